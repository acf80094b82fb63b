"Laws of spa3r.model.cameras over random batches, shapes and dtypes"
import math
import pytest,torch
from another_processor import RoundsOtherwise
import torch.nn.functional as F
from spa3r.model.cameras import (Cameras,axis_angle,cell_centres,compose,fov,grid_rays,interpolate,intrinsics,inv_se3,
    look_at,orbit,patch_rays,project,quat_to_rot,rigid,rot_to_quat,rotate,rotation_angle,scale_intrinsics,slerp,transform,unproject,uv_dirs)

SHAPES = [(), (1,), (3,), (2,3)]
DTYPES = [torch.float32, torch.float64]
HW = (28,42)
shapes = pytest.mark.parametrize('shape', SHAPES)
dtypes = pytest.mark.parametrize('dtype', DTYPES)

def tol(dtype, scale=1.): return scale*(1e-5 if dtype==torch.float32 else 1e-12)
def close(a, b, eps):
    assert a.shape==b.shape, f'{tuple(a.shape)} is not {tuple(b.shape)}'
    assert a.dtype==b.dtype
    assert torch.isfinite(a).all() and ((a-b).abs()<eps).all(), f'largest difference {(a-b).abs().max():.2e}'

@pytest.fixture(autouse=True)
def seed(): torch.manual_seed(0)

def rand_rot(shape, dtype, kind='any'):
    "Random rotations: any, tiny (near the identity), half (exactly 180 degrees about anything), almost (nearly 180)"
    axis = F.normalize(torch.randn(*shape, 3, dtype=torch.float64), dim=-1)
    u = torch.rand(shape, dtype=torch.float64)
    angle = dict(any=u*math.pi, tiny=u*1e-4, half=u*0+math.pi, almost=math.pi-u*1e-4)[kind]
    k = torch.zeros(*shape, 3, 3, dtype=torch.float64)  # Rodrigues, so that quaternions are not tested by themselves
    x,y,z = axis.unbind(-1)
    k[...,0,1],k[...,0,2],k[...,1,0],k[...,1,2],k[...,2,0],k[...,2,1] = -z,y,z,-x,-y,x
    s,c = angle.sin()[...,None,None],angle.cos()[...,None,None]
    return (torch.eye(3, dtype=torch.float64) + s*k + (1-c)*(k@k)).to(dtype)
def rand_pose(shape, dtype, kind='any'): return rigid(rand_rot(shape, dtype, kind), 3*torch.randn(*shape, 3, dtype=dtype))
def rand_K(shape, dtype, hw=HW, skew=0.):
    K = intrinsics(.5+torch.rand(shape, dtype=dtype), hw, .5+torch.rand(shape, dtype=dtype))
    K[...,:2,2] += 4*torch.randn(*shape, 2, dtype=dtype)  # the principal point is not always in the middle
    K[...,0,1] = skew
    return K
def rand_cams(shape, dtype, hw=HW): return Cameras(rand_pose(shape, dtype), intrinsics(.5+torch.rand(shape, dtype=dtype), hw, .5+torch.rand(shape, dtype=dtype)), hw)

KINDS = pytest.mark.parametrize('kind', ['any','tiny','half','almost'])

# rotations
@shapes
@dtypes
@KINDS
def test_quaternion_round_trip(shape, dtype, kind):
    for R in (rand_rot(shape, dtype, kind) for _ in range(20)):
        q = rot_to_quat(R)
        close(quat_to_rot(q), R, tol(dtype))
        close(q.norm(dim=-1), torch.ones(shape, dtype=dtype), tol(dtype))
        assert (q[...,3]>=0).all()

@shapes
@dtypes
def test_quaternion_length_and_sign_do_not_matter(shape, dtype):
    q = torch.randn(*shape, 4, dtype=dtype)
    s = (torch.rand(*shape, 1, dtype=dtype)+.1)*5
    R = quat_to_rot(q)
    close(quat_to_rot(-s*q), R, tol(dtype))
    close(compose(R, R.mT), torch.eye(3, dtype=dtype).expand(*shape, 3, 3), tol(dtype))
    close(torch.linalg.det(R), torch.ones(shape, dtype=dtype), tol(dtype))
    q = F.normalize(q, dim=-1)
    close(rot_to_quat(R), torch.where(q[...,3:]<0, -q, q), tol(dtype))

@dtypes
def test_half_turns_about_the_axes(dtype):
    for i in range(3):
        d = -torch.ones(3, dtype=dtype)
        d[i] = 1
        close(rot_to_quat(torch.diag(d)).abs(), F.one_hot(torch.tensor(i), 4).to(dtype), tol(dtype))
    close(rot_to_quat(torch.eye(3, dtype=dtype)), torch.tensor([0,0,0,1], dtype=dtype), tol(dtype))

@dtypes
@KINDS
def test_rotation_angle_is_the_angle_that_was_turned(dtype, kind):
    "In float32 too, near 0 and near pi, where the arc cosine of the trace is wrong by 1e-4 to 1e-3"
    angle = dict(any=torch.linspace(.1, 3., 30), tiny=torch.logspace(-6, -3, 30), half=torch.full((30,), math.pi, dtype=torch.float64), almost=math.pi-torch.logspace(-5, -3, 30).double())[kind].double()
    R = rand_rot((30,), torch.float64)
    other = compose(R, axis_angle(torch.randn(30, 3, dtype=torch.float64), angle))
    close(rotation_angle(R.to(dtype), other.to(dtype)), angle.to(dtype), tol(dtype, .1 if kind=='tiny' else 1))
    close(rotation_angle(other.to(dtype), R.to(dtype)), angle.to(dtype), tol(dtype, .1 if kind=='tiny' else 1))

@dtypes
def test_axis_angle_turns_right_handed(dtype):
    R = axis_angle((0,0,1), torch.tensor(math.pi/2, dtype=dtype))
    close(rotate(R.to(dtype), torch.tensor([1,0,0], dtype=dtype)), torch.tensor([0,1,0], dtype=dtype), 1e-6)
    axis,angle = torch.randn(7, 3, dtype=dtype),torch.rand(7, dtype=dtype)*3
    R = axis_angle(axis, angle)
    close(rotate(R, axis), axis, tol(dtype))
    close((R.diagonal(dim1=-2, dim2=-1).sum(-1)-1)/2, angle.cos(), tol(dtype))
    close(compose(axis_angle(axis, angle), axis_angle(axis, -angle/3)), axis_angle(axis, angle*2/3), tol(dtype))

@dtypes
@KINDS
def test_slerp_goes_the_short_way_evenly(dtype, kind):
    Ra = rand_rot((5,), dtype)
    Rb = compose(rand_rot((5,), dtype, kind), Ra)
    close(slerp(Ra, Rb, 0.), Ra, tol(dtype))
    close(slerp(Ra, Rb, 1.), Rb, tol(dtype))
    whole = rotation_angle(Ra, Rb)
    for t in (.1, .5, .8): close(rotation_angle(Ra, slerp(Ra, Rb, t)), whole*t, tol(dtype))
    close(slerp(Ra, Ra, .3), Ra, tol(dtype))

def test_rotations_have_gradients_at_the_identity():
    R = torch.eye(3).requires_grad_()
    (rot_to_quat(R).sum() + rotation_angle(R, torch.eye(3))).backward()
    assert torch.isfinite(R.grad).all()

# rigid motions
@shapes
@dtypes
def test_inverse_and_composition(shape, dtype):
    A,B,C = [rand_pose(shape, dtype) for _ in range(3)]
    eye = torch.eye(4, dtype=dtype).expand(*shape, 4, 4)
    close(compose(A, inv_se3(A)), eye, tol(dtype))
    close(compose(inv_se3(A), A), eye, tol(dtype))
    close(inv_se3(A), torch.linalg.inv(A), tol(dtype, 2))
    close(inv_se3(inv_se3(A)), A, tol(dtype))
    close(inv_se3(compose(A, B)), compose(inv_se3(B), inv_se3(A)), tol(dtype, 2))
    close(compose(A, B, C), A@B@C, tol(dtype, 5))
    x = torch.randn(*shape, 5, 3, dtype=dtype)
    close(transform(compose(A, B), x), transform(A, transform(B, x)), tol(dtype, 3))
    close(transform(inv_se3(A), transform(A, x)), x, tol(dtype, 2))
    close(torch.cdist(transform(A, x), transform(A, x)), torch.cdist(x, x), tol(dtype, 300))

@dtypes
def test_leading_dims_of_the_camera_come_first(dtype):
    T = rand_pose((2,3), dtype)
    x = torch.randn(2, 3, 4, 5, 3, dtype=dtype)
    y = transform(T, x)
    for b in range(2):
        for v in range(3): close(y[b,v], x[b,v]@T[b,v,:3,:3].mT + T[b,v,:3,3], tol(dtype))
    close(transform(T, x[0,0,0,0]), rotate(T[...,:3,:3], x[0,0,0,0].expand(2,3,3)) + T[...,:3,3], tol(dtype))

def test_geometry_keeps_its_precision_under_autocast():
    cams = rand_cams((2,3), torch.float32)
    depth = 1+torch.rand(2, 3, *HW)
    a = unproject(depth, cams.K, cams.c2w),cams.rays((2,3)),cams.relative_to(1).w2c,cams.pose()
    with torch.autocast('cpu', torch.bfloat16): b = unproject(depth, cams.K, cams.c2w),cams.rays((2,3)),cams.relative_to(1).w2c,cams.pose()
    for x,y in zip(a, b): assert x.dtype==y.dtype and torch.equal(x, y)

# pinhole
@shapes
@dtypes
def test_intrinsics_and_fov(shape, dtype):
    fh,fw = .3+2*torch.rand(shape, dtype=dtype),.3+2*torch.rand(shape, dtype=dtype)
    K = intrinsics(fh, HW, fw)
    assert K.shape==(*shape,3,3) and K.dtype==dtype
    for a,b in zip(fov(K, HW), (fh,fw)): close(a, b, tol(dtype))
    sq = intrinsics(fh, HW)
    close(sq[...,0,0], sq[...,1,1], tol(dtype))
    h,w = HW  # the rays through the edges of the image open by exactly the field of view
    edge = lambda u,v: uv_dirs(torch.tensor([u,v], dtype=dtype), K)
    close(torch.atan2(edge(w/2,h)[...,1], edge(w/2,h)[...,2])*2, fh, tol(dtype))
    close(torch.atan2(edge(w,h/2)[...,0], edge(w,h/2)[...,2])*2, fw, tol(dtype))

@shapes
@dtypes
@pytest.mark.parametrize('skew', [0., 1.5])
def test_project_unproject_round_trip(shape, dtype, skew):
    K,w2c = rand_K(shape, dtype, skew=skew),rand_pose(shape, dtype)
    depth = .2+5*torch.rand(*shape, *HW, dtype=dtype)
    xyz = unproject(depth, K, inv_se3(w2c))
    assert xyz.shape==(*shape,*HW,3)
    uv,z = project(xyz, K, w2c)
    close(uv, cell_centres(HW, K).expand(*shape, *HW, 2), tol(dtype, 300))
    close(z, depth, tol(dtype, 3))

@shapes
@dtypes
def test_unproject_project_round_trip(shape, dtype):
    K,w2c = rand_K(shape, dtype),rand_pose(shape, dtype)
    cam = torch.randn(*shape, 9, 3, dtype=dtype)
    cam[...,2] = cam[...,2].abs()+.5
    xyz = transform(inv_se3(w2c), cam)
    uv,z = project(xyz, K, w2c)
    close(z, cam[...,2], tol(dtype, 2))
    K9 = K[...,None,:,:]
    close(transform(inv_se3(w2c), uv_dirs(uv, K9)*z[...,None]), xyz, tol(dtype, 5))
    close(project(transform(inv_se3(w2c), -cam), K, w2c)[1], -cam[...,2], tol(dtype, 2))  # behind is z<0

@shapes
@dtypes
@pytest.mark.parametrize('grid', [(2,3), (28,42), (4,4), (5,1)])
def test_rays_are_unit_and_hit_their_cells(shape, dtype, grid):
    K = rand_K(shape, dtype)
    d = grid_rays(K, HW, grid)
    assert d.shape==(*shape,*grid,3)
    close(d.norm(dim=-1), torch.ones(*shape, *grid, dtype=dtype), tol(dtype))
    assert (d[...,2]>0).all()
    size = torch.tensor([HW[1]/grid[1], HW[0]/grid[0]], dtype=dtype)
    for far in (.1, 1., 30.):
        uv,_ = project(d*far, K, torch.eye(4, dtype=dtype))
        close(uv, (cell_centres(grid, K)*size).expand(*shape, *grid, 2), tol(dtype, 30))

@dtypes
def test_patch_rays(dtype):
    K = rand_K((2,), dtype)
    close(patch_rays(K, HW), grid_rays(K, HW, (2,3)), tol(dtype))
    close(patch_rays(K, HW, 7), Cameras(torch.eye(4, dtype=dtype), K, HW).rays((4,6)), tol(dtype))
    close(patch_rays(scale_intrinsics(K, HW, (2,3)), (2,3), 1), patch_rays(K, HW), tol(dtype))
    with pytest.raises(ValueError, match='28x42.*5-pixel'): patch_rays(K, HW, 5)

@dtypes
def test_a_coarse_depth_map_lies_on_the_same_surface(dtype):
    "A plane sampled on any grid gives points of that plane"
    K,w2c = rand_K((3,), dtype),rand_pose((3,), dtype)
    n = torch.tensor([.1,.2,1.], dtype=dtype)
    for grid in (HW, (2,3), (5,4)):
        Kg = scale_intrinsics(K, HW, grid)
        depth = 3/(uv_dirs(cell_centres(grid, Kg), Kg[:,None,None])*n).sum(-1)
        cam = transform(w2c, unproject(depth, Kg, inv_se3(w2c)))
        close((cam*n).sum(-1), torch.full((3,*grid), 3, dtype=dtype), tol(dtype, 5))

# pose encoding
@shapes
@dtypes
@KINDS
def test_pose_encoding_round_trip(shape, dtype, kind):
    w2c = rand_pose(shape, dtype, kind)
    K = intrinsics(.5+torch.rand(shape, dtype=dtype), HW, .5+torch.rand(shape, dtype=dtype))
    enc = Cameras(w2c, K, HW).pose()
    assert enc.shape==(*shape,9)
    back = Cameras.from_pose(enc, HW)
    close(back.w2c, w2c, tol(dtype))
    close(back.K, K, tol(dtype, 30))
    close(back.pose()[...,[0,1,2,7,8]], enc[...,[0,1,2,7,8]], tol(dtype))
    s = torch.cat([torch.ones(3), torch.full((4,), -2.5), torch.ones(2)]).to(dtype)  # any length and sign of quaternion
    close(Cameras.from_pose(enc*s, HW).w2c, w2c, tol(dtype))

# Cameras
@shapes
@dtypes
def test_cameras_keep_shapes_and_dtypes(shape, dtype):
    c = rand_cams(shape, dtype)
    assert c.shape==shape and c.hw==HW
    close(c.c2w, inv_se3(c.w2c), tol(dtype))
    close(c.positions, c.c2w[...,:3,3], tol(dtype))
    close(transform(c.w2c, c.positions), torch.zeros(*shape, 3, dtype=dtype), tol(dtype, 3))
    d = Cameras.from_pose(c.pose(), HW)
    close(d.w2c, c.w2c, tol(dtype))
    close(d.K, c.K, tol(dtype, 30))
    assert c.rays().shape==(*shape,*HW,3) and c.rays((2,3)).dtype==dtype
    assert c.to(torch.float64).K.dtype==torch.float64 and c.to('cpu').w2c.device.type=='cpu'

def test_cameras_index_iterate_and_join():
    c = rand_cams((2,3), torch.float32)
    assert c[0].shape==(3,) and c[:,1].shape==(2,) and c[...,0].shape==(2,) and c[:,[2,0]].shape==(2,2) and c[1,2].shape==()
    mask = torch.tensor([[True,False,True],[False,True,False]])
    assert c[mask].shape==(3,) and torch.equal(c[mask].w2c[1], c.w2c[0,2]) and torch.equal(c[...,0].K, c.K[:,0])
    assert [o.shape for o in c]==[(3,),(3,)] and len(c)==2
    for dim in (0,1,-1,-2):
        parts = [c[:1],c[1:]] if dim in (0,-2) else [c[:,:1],c[:,1:]]
        assert torch.equal(Cameras.cat(parts, dim).w2c, c.w2c) and torch.equal(Cameras.cat(parts, dim).K, c.K)
    with pytest.raises(ValueError, match='different sizes'): Cameras.cat([c, Cameras(c.w2c, c.K, (14,14))])
    one = Cameras(c.w2c, c.K[0,0], HW)
    assert one.K.shape==(2,3,3,3) and torch.equal(one.K[1,2], c.K[0,0])
    with pytest.raises(ValueError, match='rigid'): Cameras(c.w2c[...,:3,:], c.K, HW)
    with pytest.raises(ValueError, match='intrinsics'): Cameras(c.w2c, c.w2c, HW)

@dtypes
@pytest.mark.parametrize('shape', [(1,), (3,), (2,3)])
def test_relative_to_moves_the_world_not_the_views(dtype, shape):
    c = rand_cams(shape, dtype)
    for i in range(-1, shape[-1]):
        r = c.relative_to(i)
        close(r.w2c[...,i,:,:], torch.eye(4, dtype=dtype).expand(*shape[:-1], 4, 4), tol(dtype))
        x = torch.randn(*shape[:-1], 7, 3, dtype=dtype)  # points of the world, one set a scene
        x_i = transform(c.w2c[...,i,:,:], x)
        for v in range(shape[-1]): close(transform(r.w2c[...,v,:,:], x_i), transform(c.w2c[...,v,:,:], x), tol(dtype, 5))
        close(r.relative_to(0).w2c, c.relative_to(0).w2c, tol(dtype, 3))

# paths
@shapes
@dtypes
def test_look_at(shape, dtype):
    eye,target = torch.randn(*shape, 3, dtype=dtype)*3,torch.randn(*shape, 3, dtype=dtype)
    w2c = look_at(eye, target)
    R = w2c[...,:3,:3]
    close(compose(R, R.mT), torch.eye(3, dtype=dtype).expand(*shape, 3, 3), tol(dtype))
    close(torch.linalg.det(R), torch.ones(shape, dtype=dtype), tol(dtype))
    close(inv_se3(w2c)[...,:3,3], eye, tol(dtype))
    seen = transform(w2c, target)
    close(seen[...,:2], torch.zeros(*shape, 2, dtype=dtype), tol(dtype))
    close(seen[...,2], (target-eye).norm(dim=-1), tol(dtype))
    assert (transform(w2c, target+torch.tensor([0,0,.1], dtype=dtype))[...,1]<0).all()  # up in the world is up in the picture
    close(R[...,0,2], torch.zeros(shape, dtype=dtype), tol(dtype))  # and the horizon is level

@dtypes
def test_look_at_straight_down_and_nowhere(dtype):
    for z in (1., -1.):
        R = look_at(torch.tensor([0,0,z], dtype=dtype), (0,0,0))[:3,:3]
        close(compose(R, R.mT), torch.eye(3, dtype=dtype), tol(dtype))
        close(R[2], torch.tensor([0,0,-z], dtype=dtype), tol(dtype))
    with pytest.raises(ValueError, match='same point'): look_at((1.,2,3), (1.,2,3))

def steps(w2c):
    "Turn and distance from each camera to the next"
    pos = inv_se3(w2c)[:,:3,3]
    return rotation_angle(w2c[:-1,:3,:3], w2c[1:,:3,:3]),(pos[1:]-pos[:-1]).norm(dim=-1)
def is_rigid(w2c):
    R = w2c[:,:3,:3]
    close(compose(R, R.mT), torch.eye(3, dtype=w2c.dtype).expand_as(R), 1e-5)
    assert (torch.linalg.det(R)>.99).all()

@pytest.mark.parametrize('up', [(0,0,1), (0,-1,0), (1.,2,-3)])
def test_orbit_goes_round(up):
    c,n = torch.tensor([1.,2,3]),16
    w2c = orbit(c, 2., .7, n, up=up)
    is_rigid(w2c)
    close(transform(w2c, c)[:,:2], torch.zeros(n, 2), 1e-5)  # always looking at the centre
    u = F.normalize(torch.tensor(up, dtype=torch.float32), dim=0)
    arm = inv_se3(w2c)[:,:3,3]-c
    close(arm@u, torch.full((n,), .7), 1e-5)
    close((arm-(arm@u)[:,None]*u).norm(dim=-1), torch.full((n,), 2.), 1e-5)
    turn,dist = steps(torch.cat([w2c, w2c[:1]]))  # even all the way, across the seam too
    assert turn.std()<1e-4 and dist.std()<1e-4 and abs(dist[0]-4*math.sin(math.pi/n))<1e-4
    half = orbit(c, 2., .7, n, turn=math.pi, up=up)
    close(half[0], w2c[0], 1e-5)
    close((inv_se3(half[0])+inv_se3(half[-1]))[:3,3]/2, c+.7*u, 1e-5)  # both ends of half a turn are opposite

@dtypes
@KINDS
def test_interpolation_is_straight_even_and_exact_at_its_ends(dtype, kind):
    n,a = 11,rand_pose((), dtype)
    b = compose(rigid(rand_rot((), dtype, kind), torch.randn(3, dtype=dtype)), a)
    w2c = interpolate(a, b, n)
    assert w2c.shape==(n,4,4) and w2c.dtype==dtype
    is_rigid(w2c)
    close(w2c[0], a, tol(dtype))
    close(w2c[-1], b, tol(dtype, 2))
    turn,dist = steps(w2c)
    close(turn, rotation_angle(a[:3,:3], b[:3,:3]).expand(n-1)/(n-1), tol(dtype))
    pos = inv_se3(w2c)[:,:3,3]
    close(pos, torch.lerp(pos[:1], pos[-1:], torch.linspace(0, 1, n, dtype=dtype)[:,None]), tol(dtype, 2))
    close(interpolate(b, a, n).flip(0), w2c, tol(dtype, 300) if kind in ('any','tiny') else math.inf)  # half a turn may go either way
    same = interpolate(a, a, 3)
    close(same, a.expand(3, 4, 4), tol(dtype))

def told(c): return [c.rays((4,4)), c.pose(), c.relative_to(1).w2c, interpolate(c.w2c[0,0], c.w2c[0,1], 5)]

def test_another_processor_says_the_same():
    c = rand_cams((2,3), torch.float32)
    with RoundsOtherwise(): other = told(c)
    for a,b in zip(told(c), other): close(b, a, 1e-5)

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cpu_and_gpu_agree():
    c = rand_cams((2,3), torch.float32)
    for a,b in zip(told(c), told(c.to('cuda'))): close(b.cpu(), a, 1e-5)
