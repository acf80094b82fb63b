"Laws of cameras as positions"
import math,pytest,torch
import torch.nn.functional as F
from spa3r.model.attention import grid_positions
from spa3r.model.cameras import axis_angle,intrinsics,inv_se3,look_at,rigid
from spa3r.model.prope import Prope,lift_intrinsics,projections

def rand(*shape, dtype=torch.float32, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
def near(a, b, tol): assert a.shape==b.shape and (a-b).abs().max()<=tol, (a-b).abs().max()

def some_cams(b, k, hw=(56,84), dtype=torch.float64, seed=0):
    R = axis_angle(rand(b, k, 3, seed=seed, dtype=dtype), rand(b, k, seed=seed+1, dtype=dtype)*2)
    K = intrinsics(.8+.3*rand(b, k, seed=seed+2, dtype=dtype).sigmoid(), hw)
    return rigid(R, 2*rand(b, k, 3, seed=seed+3, dtype=dtype)),K.to(dtype)

def any_move(dtype=torch.float64): return rigid(axis_angle(torch.tensor([.3,1.,.2], dtype=dtype), 1.1), torch.tensor([5.,-3.,2.], dtype=dtype))

@pytest.mark.parametrize('dtype,tol', [(torch.float64,1e-10), (torch.float32,1e-4)])
@pytest.mark.parametrize('dims', [(), (3,), (2,3)])
def test_projection_and_its_inverse(dtype, tol, dims):
    w2c,K = some_cams(2, 3, dtype=dtype)
    w2c,K = (t[(0,)*(2-len(dims))].expand(*dims, *t.shape[-2:]) for t in (w2c, K))
    K = K.clone()
    K[...,:2,2] += 7.  # principal point off the middle
    for args in ((w2c,), (w2c, K, (56,84))):
        P,Pi = projections(*args)
        near(P@Pi, torch.eye(4, dtype=dtype).expand_as(P), tol)
        near(Pi, torch.linalg.inv(P), tol*10)

def test_projection_is_the_image():
    w2c,K = some_cams(1, 4)
    hw = (56,84)
    P,_ = projections(w2c, K, hw)
    X = torch.cat([rand(1, 4, 3, dtype=torch.float64), torch.ones(1, 4, 1, dtype=torch.float64)], -1)
    p = (P@X[...,None])[...,0]
    uvz = (K@(w2c@X[...,None])[...,:3,:])[...,0]
    near(p[...,:2]/p[...,2:3], uvz[...,:2]/uvz[...,2:]/torch.tensor([84.,56.])-.5, 1e-8)

@pytest.mark.parametrize('scale', [.5, 3.])
def test_image_size_drops_out(scale):
    _,K = some_cams(1, 2)
    for a,b in zip(lift_intrinsics(K, (56,84)), lift_intrinsics(K*torch.tensor([scale,scale,1.])[:,None], (56*scale,84*scale))): near(a, b, 1e-12)

def slow(x, M, cam, xy, sign, base):
    "The definition for one token"
    f,out = len(x)//8,x.clone()
    for g in range(0, 4*f, 4): out[g:g+4] = M[cam]@x[g:g+4]
    for start,p in zip((4*f,6*f), xy.tolist()):
        for i in range(f):
            t = sign*p*base**-(i/f)
            a,b = x[start+i],x[start+f+i]
            out[start+i],out[start+f+i] = a*math.cos(t)+b*math.sin(t),b*math.cos(t)-a*math.sin(t)
    return out

@pytest.mark.parametrize('k,grid,e,s,base', [(1,(2,3),8,0,100.), (2,(1,4),16,3,100.), (3,(2,1),24,1,50.)])
@pytest.mark.parametrize('pinhole', [True, False])
def test_against_the_definition(k, grid, e, s, base, pinhole):
    w2c,K = some_cams(2, k)
    K = K if pinhole else None
    pos = Prope(w2c, K, (56,84), grid, e, n_special=s, base=base)
    P,Pi = projections(w2c, K, (56,84))
    n,xy = grid[0]*grid[1],grid_positions(*grid).flip(-1)
    x = rand(2, 2, s+k*n, e, dtype=torch.float64)
    for f,M,sign in ((pos.q,P.mT,1), (pos.k,Pi,1), (pos.v,Pi,1), (pos.o,P,-1)):
        y = f(x)
        assert torch.equal(y[:,:,:s], x[:,:,:s])
        for b in range(2):
            for h in range(2):
                ref = [slow(x[b,h,s+t], M[b], t//n, xy[t%n], sign, base) for t in range(k*n)]
                near(y[b,h,s:], torch.stack(ref), 1e-9)

def scores(w2c, K, q, k, s=3, grid=(2,3)):
    pos = Prope(w2c, K, (56,84), grid, q.shape[-1], n_special=s)
    return pos.q(q)@pos.k(k).mT

def qkv(b=2, n=3+2*6, e=16, dtype=torch.float64): return (rand(b, 2, n, e, dtype=dtype, seed=i) for i in range(3))

@pytest.mark.parametrize('seed', [10, 20])
def test_one_camera_scores_do_not_depend_on_the_camera(seed):
    q,k,_ = qkv(n=3+6)
    a,b = (scores(*some_cams(2, 1, seed=i), q, k) for i in (0, seed))
    near(a[...,3:,3:], b[...,3:,3:], 1e-9)
    assert (a-b)[...,3:,:3].abs().max()>.1 and (a-b)[...,:3,3:].abs().max()>.1  # but with tokens without a camera they do
    assert torch.equal(a[...,:3,:3], b[...,:3,:3])

def test_only_relative_poses_count_between_cameras():
    q,k,_ = qkv()
    w2c,K = some_cams(2, 2)
    a,together = scores(w2c, K, q, k),scores(w2c@any_move(), K, q, k)
    near(a[...,3:,3:], together[...,3:,3:], 1e-9)
    assert (a-together)[...,3:,:3].abs().max()>.1
    alone = w2c.clone()
    alone[:,1] = w2c[:,1]@any_move()
    b = scores(alone, K, q, k)
    assert (a-b)[...,3:9,9:].abs().max()>.1 and (a-b)[...,9:,3:9].abs().max()>.1
    near(a[...,9:,9:], b[...,9:,9:], 1e-9)

@pytest.mark.parametrize('pinhole', [True, False])
def test_attention_does_not_see_the_world_frame_without_special_tokens(pinhole):
    w2c,K = some_cams(2, 2)
    K = K if pinhole else None
    def attend(w2c, s, ts):
        pos = Prope(w2c, K, (56,84), (2,3), 16, n_special=s)
        return pos.o(F.scaled_dot_product_attention(pos.q(ts[0]), pos.k(ts[1]), pos.v(ts[2])))
    all_ts = list(qkv())
    rays = [t[:,:,3:] for t in all_ts]
    near(attend(w2c, 0, rays), attend(w2c@any_move(), 0, rays), 1e-8)
    assert (attend(w2c, 3, all_ts)-attend(w2c@any_move(), 3, all_ts)).abs().max()>.1

def test_patches_of_one_camera_differ_by_differences_only():
    "Scores of two patches depend on the offset of their rows and columns"
    q,k = rand(1, 1, 1, 16, dtype=torch.float64),rand(1, 1, 1, 16, dtype=torch.float64, seed=1)
    w2c,K = some_cams(1, 1)
    pos = Prope(w2c, K, (56,84), (4,5), 16)
    S = (pos.q(q.expand(1,1,20,16))@pos.k(k.expand(1,1,20,16)).mT)[0,0].view(4,5,4,5)
    near(S[1:,:,1:], S[:-1,:,:-1], 1e-9)
    near(S[:,1:,:,1:], S[:,:-1,:,:-1], 1e-9)
    assert (S[0,0,0,1]-S[0,1,0,0]).abs()>1e-3 and (S[0,0,0,1]-S[0,0,1,0]).abs()>1e-3

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_half_precision_is_float32_rounded(dtype):
    w2c,K = some_cams(1, 1, dtype=torch.float32)
    w2c[...,:3,3] += 5.
    pos,x = Prope(w2c, K, (56,84), (2,3), 16, n_special=2),rand(1, 2, 8, 16).to(dtype)
    for f in (pos.q, pos.k, pos.v, pos.o): assert f(x).dtype==dtype and torch.equal(f(x), f(x.float()).to(dtype))

def test_autocast_does_not_reach_the_cameras():
    w2c,K = some_cams(1, 1, dtype=torch.float32)
    x = rand(1, 2, 8, 16)
    ref = Prope(w2c, K, (56,84), (2,3), 16, n_special=2)
    with torch.autocast('cpu', torch.bfloat16):
        pos = Prope(w2c, K, (56,84), (2,3), 16, n_special=2)
        outs = [f(x) for f in (pos.q, pos.k, pos.o)]
    for a,f in zip(outs, (ref.q, ref.k, ref.o)): assert torch.equal(a, f(x))

@pytest.mark.parametrize('e', [4, 12, 20])
def test_bad_head(e):
    with pytest.raises(ValueError, match='multiple of 8'): Prope(*some_cams(1, 1), (56,84), (2,3), e)

@pytest.mark.parametrize('n', [5, 7, 12])
def test_wrong_number_of_tokens(n):
    pos = Prope(*some_cams(1, 1), (56,84), (2,3), 8)
    with pytest.raises(ValueError, match=f'{n} tokens, expected 0 . 1 cameras x .2, 3. = 6'): pos.q(rand(1, 1, n, 8))

def test_cameras_get_gradients():
    w2c,K = some_cams(1, 1)
    w2c.requires_grad_()
    q,k,_ = qkv(b=1, n=3+6)
    scores(w2c, K, q, k).square().sum().backward()
    assert w2c.grad.abs().max()>0
