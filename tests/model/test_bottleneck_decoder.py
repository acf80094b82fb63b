"Laws of the latent bottleneck and the feature-field decoder"
import pytest,torch
import torch.nn.functional as F
from spa3r.model.attention import Rope2d,grid_positions
from spa3r.model.cameras import Cameras,axis_angle,intrinsics,rigid,rotate
from spa3r.model.field_decoder import FieldDecoder
from spa3r.model.latent_bottleneck import LatentBottleneck

def rand(*shape, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
def near(a, b, tol=1e-4): assert a.shape==b.shape and (a-b).abs().max()<=tol, (a-b).abs().max()

@pytest.fixture(scope='module')
def net():
    torch.manual_seed(0)
    return LatentBottleneck(c=6, dim=32, depth=2, nh=2, m=5, n_registers=3).eval()

@pytest.fixture(scope='module')
def dec():
    torch.manual_seed(1)
    return FieldDecoder(32, depth=2, nh=2, channels={'geo': 7, 'sem': 3}, n_registers=3).eval()

def some_cams(b, v, hw=(56,84), seed=0):
    R = axis_angle(rand(b, v, 3, seed=seed), rand(b, v, seed=seed+1))
    return Cameras(rigid(R, rand(b, v, 3, seed=seed+2)), intrinsics(.9, hw), hw)

@pytest.mark.parametrize('b,v,grid', [(1,1,(1,1)), (2,3,(4,6)), (1,12,(2,5)), (3,2,(7,3))])
def test_any_number_of_views(net, b, v, grid): assert net(rand(b, v, grid[0]*grid[1], 6), grid).shape==(b,5,32)

def test_wrong_grid(net):
    with pytest.raises(ValueError, match='24 patches a view are not a 4x5 grid'): net(rand(1, 2, 24, 6), (4,5))

def test_the_last_mlp_sees_latents_and_rays_alone(net, dec):
    seen = []
    hooks = [stack.blocks[-1].mlp.register_forward_pre_hook(lambda m, args: seen.append(args[0].shape[1])) for stack in (net.encoder, dec.decoder)]
    dec(net(rand(1, 3, 24, 6), (4,6)), some_cams(1, 2), (2,4))
    for h in hooks: h.remove()
    assert seen==[5, 8]  # 3 registers and 72 patches go no further, nor do 3 registers and 5 latents

@pytest.mark.parametrize('perm', [(1,0,2), (2,0,1)])
def test_views_are_a_set_and_patches_are_not(net, perm):
    x = rand(2, 3, 24, 6)
    z = net(x, (4,6))
    near(net(x[:,list(perm)], (4,6)), z)
    assert (net(x.flip(2), (4,6))-z).abs().max()>1e-2
    assert (net(x, (6,4))-z).abs().max()>1e-3  # a 6x4 grid is another picture

def test_latents_are_as_ordered_as_their_queries(net):
    x,perm = rand(1, 2, 24, 6),torch.tensor([4,2,0,1,3])
    z,old = net(x, (4,6)),net.query_embed.weight.data.clone()
    try:
        net.query_embed.weight.data = old[perm]
        near(net(x, (4,6)), z[:,perm])
    finally: net.query_embed.weight.data = old

def test_scenes_of_a_batch_do_not_mix(net):
    x = rand(3, 2, 24, 6)
    z = net(x, (4,6))
    for i in range(3): near(net(x[i:i+1], (4,6)), z[i:i+1], 1e-5)
    y = x.clone()
    y[1] += 1
    near(net(y, (4,6))[[0,2]], z[[0,2]], 1e-6)

def test_queries_have_no_place_and_patches_start_at_one(net):
    pos = net.positions(2, (2,3))
    assert torch.equal(pos.sin[0,0,:8], torch.zeros(8, 16))
    assert torch.equal(pos.cos[0,0,8:14], pos.cos[0,0,14:]) and pos.sin[0,0,8].abs().max()>0

class Pluecker(FieldDecoder):
    "Rays of the world in place of PRoPE: what is said of a camera stands in two methods"
    ray_dims = 6
    def rays(self, cams, grid):
        d = rotate(cams.c2w[...,:3,:3], cams.rays(grid)).flatten(2, 3)
        return torch.cat([d, torch.linalg.cross(cams.positions[:,:,None].expand_as(d), d)], -1)
    def positions(self, cams, grid, n_special):
        patches = grid_positions(*grid)+1
        return Rope2d(torch.cat([patches.new_zeros(n_special, 2), patches])[None], self.e)

def test_another_way_to_say_where_a_camera_is():
    torch.manual_seed(0)
    new,cams,z = Pluecker(32, depth=2, nh=2, channels={'geo':7}).eval(),some_cams(2, 3),rand(2, 5, 32)
    out = new(z, cams, (4,6), depth=True)
    assert out['geo'].shape==(2,3,24,7) and new.pose_tokenizer.in_features==6
    near(new(z, cams[:,1:2], (4,6))['geo'][:,0], out['geo'][:,1], 1e-5)
    along = Cameras(rigid(torch.eye(3), torch.tensor([0.,0.,1.]))@cams.w2c, cams.K, cams.hw)
    assert (new(z, along, (4,6))['geo']-out['geo']).abs().max()>1e-3  # rays know where their camera stands
    near(new.rays(along, (1,1)), new.rays(cams, (1,1)))  # but not where on the line: that is what a line means

@pytest.mark.parametrize('v,hw,grid', [(1,(56,84),(4,6)), (3,(56,84),(2,2)), (2,(30,200),(3,20)), (5,(100,40),(5,2))])
def test_any_camera_any_grid_any_aspect(dec, v, hw, grid):
    out = dec(rand(2, 5, 32), some_cams(2, v, hw), grid, depth=True)
    n = grid[0]*grid[1]
    assert {k: tuple(t.shape) for k,t in out.items()}=={'geo': (2,v,n,7), 'sem': (2,v,n,3), 'depth': (2,v,n)}
    assert set(dec(rand(2, 5, 32), some_cams(2, v, hw), grid))=={'geo','sem'}

def test_a_camera_does_not_see_the_others(dec):
    z,cams = rand(2, 5, 32),some_cams(2, 3)
    out = dec(z, cams, (3,4))['geo']
    for i in range(3): near(dec(z, cams[:,i:i+1], (3,4))['geo'][:,0], out[:,i], 1e-5)
    near(dec(z, cams[:,[2,0,1]], (3,4))['geo'], out[:,[2,0,1]], 1e-5)
    near(dec(z[:1], cams[:1], (3,4))['geo'], out[:1], 1e-5)

def test_latents_are_a_set(dec):
    z,cams = rand(1, 5, 32),some_cams(1, 2)
    near(dec(z[:,[3,1,4,0,2]], cams, (3,4))['geo'], dec(z, cams, (3,4))['geo'], 1e-5)
    assert (dec(rand(1, 5, 32, seed=9), cams, (3,4))['geo']-dec(z, cams, (3,4))['geo']).abs().max()>1e-2

def scores(dec, z, cam):
    kept = []
    def record(q, k, v):
        kept.append(q@k.mT)
        return F.scaled_dot_product_attention(q, k, v)
    with torch.no_grad(): dec.tokens(z, cam, (3,4), attend=record)
    return kept

def test_pose_enters_between_rays_and_tokens_without_a_camera(dec):
    z,cams,s = rand(1, 5, 32),some_cams(1, 2),3+5
    a,b = (scores(dec, z, cams[:,i:i+1])[0] for i in (0, 1))
    near(a[...,s:,s:], b[...,s:,s:], 1e-3)  # ray to ray: blind to the pose
    assert (a-b)[...,s:,:s].abs().max()>.1 and (a-b)[...,:s,s:].abs().max()>.1
    assert torch.equal(a[...,:s,:s], b[...,:s,:s])

def test_without_that_door_there_is_no_pose(dec):
    z,cams,s = rand(1, 5, 32),some_cams(1, 2),3+5
    def locked(q, k, v):
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool)
        mask[s:,:s] = False
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    with torch.no_grad():
        x,y = dec.tokens(z, cams, (3,4), attend=locked),dec.tokens(z, cams, (3,4))
    near(x[:,0], x[:,1], 1e-3)
    assert (y[:,0]-y[:,1]).abs().max()>.1

def test_poses_are_absolute_until_made_relative(dec):
    z,cams = rand(1, 5, 32),some_cams(1, 3)
    move = rigid(axis_angle(torch.tensor([.3,1.,.2]), 1.1), torch.tensor([1.,-2.,.5]))
    moved = Cameras(cams.w2c@move, cams.K, cams.hw)
    with torch.no_grad():
        assert (dec(z, moved, (3,4))['geo']-dec(z, cams, (3,4))['geo']).abs().max()>1e-2
        near(dec(z, moved.relative_to(0), (3,4))['geo'], dec(z, cams.relative_to(0), (3,4))['geo'], 1e-3)

def test_image_size_alone_does_not_matter(dec):
    z,small,big = rand(1, 5, 32),some_cams(1, 2, (56,84)),some_cams(1, 2, (112,168))
    near(dec(z, small, (3,4))['geo'], dec(z, big, (3,4))['geo'], 1e-4)

def test_depth_probe_is_a_spectator():
    dec = FieldDecoder(16, 1, 2, {'geo': 4})
    z = rand(1, 3, 16).requires_grad_()
    dec(z, some_cams(1, 2), (2,3), depth=True)['depth'].sum().backward()
    assert z.grad is None and {k.split('.')[0] for k,p in dec.named_parameters() if p.grad is not None}=={'depth_probe'}
    dec(z, some_cams(1, 2), (2,3))['geo'].sum().backward()
    assert z.grad.abs().max()>0

@pytest.mark.parametrize('bad', [(2,), (1,2), (3,2)])
def test_cameras_of_other_scenes(dec, bad):
    cams = some_cams(3, 2)
    cams = cams[0] if bad==(2,) else cams[:bad[0]]
    with pytest.raises(ValueError, match='latents of 2 scenes need cameras'): dec(rand(2, 5, 32), cams, (2,3))

@pytest.mark.parametrize('dim,nh', [(36,3), (24,2), (32,5)])
def test_bad_width(dim, nh):
    with pytest.raises(ValueError, match='multiple of 8'): FieldDecoder(dim, 1, nh, {})

@pytest.mark.parametrize('mode', ['bf16', 'autocast'])
def test_low_precision(mode):
    torch.manual_seed(0)
    net,dec = LatentBottleneck(6, 64, 2, 2, m=5),FieldDecoder(64, 2, 2, {'geo': 8})
    x,cams = rand(1, 2, 12, 6),some_cams(1, 2)
    ref = dec(net(x, (3,4)), cams, (3,4))['geo']
    if mode=='bf16':
        net,dec = net.bfloat16(),dec.bfloat16()
        out = dec(net(x.bfloat16(), (3,4)), cams, (3,4))['geo']
        assert out.dtype==torch.bfloat16
    else:
        with torch.autocast('cpu', torch.bfloat16): out = dec(net(x, (3,4)), cams, (3,4))['geo']
    assert (out.float()-ref).abs().mean()<.02
    out.float().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for k,p in [*net.named_parameters(), *dec.named_parameters()] if 'depth_probe' not in k)
