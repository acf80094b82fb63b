import json,warnings
from dataclasses import replace
import pytest,torch
import torch.nn.functional as F
from safetensors.torch import load_file,save_file
from spa3r.util.core import UserError
from spa3r.model.patch_encoder import VGGT,VGGTConfig,PatchEmbed,DPTHead,CameraHead,asymmetric,context_first,resize_pos_embed,take_views
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.teachers.teachers import WEIGHTS,load_teacher
from tiny_vggt import scene,tiny

def dino(**kw): return tiny(embed='dinov2', embed_depth=1, embed_nh=4, init_values=.1, **kw)

@pytest.fixture(scope='module', params=['conv','dinov2','rms','patch7'])
def net(request):
    torch.manual_seed(0)
    return VGGT(dict(conv=tiny(), dinov2=dino(), rms=tiny(global_qk_norm='rms'), patch7=tiny(patch=7, dpt_down=1))[request.param]).eval()

# views and masks
@pytest.mark.parametrize('b,v,k', [(1,2,1),(3,6,3),(4,7,2),(2,4,0)])
def test_context_first(b, v, k):
    g = torch.Generator().manual_seed(v)
    is_tgt = torch.zeros(b, v, dtype=torch.bool)
    for m in is_tgt: m[1+torch.randperm(v-1, generator=g)[:k]] = True
    order,n = context_first(is_tgt)
    assert n==v-k and (order[:,0]==0).all()
    assert not take_views(is_tgt, order)[:,:n].any() and take_views(is_tgt, order)[:,n:].all()
    for part in (order[:,:n],order[:,n:]): assert (part.diff(dim=1)>0).all()
    assert (take_views(take_views(torch.arange(v).expand(b,v), order), order.argsort(1))==torch.arange(v)).all()

def test_bad_masks():
    with pytest.raises(ValueError, match='same for all'): context_first(torch.tensor([[0,1,1],[0,0,1]]).bool())
    with pytest.raises(ValueError, match='view 0'): context_first(torch.tensor([[1,0,1]]).bool())
    imgs,is_tgt = scene()
    with pytest.raises(ValueError, match='one flag per view'): VGGT(tiny()).aggregate(imgs, is_tgt[:,:3])
    with pytest.raises(ValueError, match=r'layers \[9\]'): VGGT(tiny()).aggregate(imgs, layers=(0,9))
    with pytest.raises(ValueError, match='14-pixel'): VGGT(tiny()).aggregate(imgs[...,:80])

@pytest.mark.parametrize('n_ctx', [1,4,9])
@pytest.mark.parametrize('dtype', [torch.float32,torch.float64])
def test_two_calls_are_the_mask(n_ctx, dtype):
    torch.manual_seed(n_ctx)
    q,k,v = torch.randn(3, 2, 3, 10, 8, dtype=dtype)
    is_tgt = torch.arange(10)>=n_ctx
    mask = is_tgt[:,None]|~is_tgt
    torch.testing.assert_close(asymmetric(n_ctx)(q,k,v), F.scaled_dot_product_attention(q,k,v,attn_mask=mask), atol=1e-6, rtol=1e-6)

# the aggregator
@torch.no_grad()
def test_no_leak(net):
    "Not one bit of the context tokens changes with the pixels of hidden views; the others change, and so do the cameras"
    imgs,is_tgt = scene()
    other = torch.where(is_tgt[:,:,None,None,None], torch.rand_like(imgs), imgs)
    a,b = (net.aggregate(x, is_tgt, (0,1,2,3)) for x in (imgs,other))
    for l in a:
        assert torch.equal(a[l][~is_tgt], b[l][~is_tgt]), f'layer {l} leaks'
        assert not torch.equal(a[l][is_tgt], b[l][is_tgt])
    a,b = net.aggregate(imgs)[-1],net.aggregate(other)[-1]
    assert not torch.allclose(a[~is_tgt], b[~is_tgt]), 'without a mask everything should see everything'

@torch.no_grad()
def test_cameras_see_all_views(net):
    imgs,is_tgt = scene()
    other = torch.where(is_tgt[:,:,None,None,None], torch.rand_like(imgs), imgs)
    a,b = (net.cameras(net.aggregate(x, is_tgt)[-1], x.shape[-2:]) for x in (imgs,other))
    assert not torch.equal(a.w2c[~is_tgt], b.w2c[~is_tgt])

@torch.no_grad()
def test_masked_is_context_only(net):
    "One masked pass holds the features of a pass over the context views alone"
    imgs,is_tgt = scene()
    masked,alone = net.aggregate(imgs, is_tgt)[-1],net.aggregate(imgs[~is_tgt].unflatten(0, (2,-1)))[-1]
    torch.testing.assert_close(masked[~is_tgt], alone.flatten(0,1), atol=1e-5, rtol=1e-5)

@torch.no_grad()
def test_order_of_views(net):
    "Views come back in the order they went in: exchanging two views exchanges their tokens"
    imgs,is_tgt = scene(v=4)
    perm = torch.tensor([0,3,1,2])
    a,b = net.aggregate(imgs, is_tgt)[-1],net.aggregate(imgs[:,perm], is_tgt[:,perm])[-1]
    torch.testing.assert_close(a[:,perm], b, atol=1e-5, rtol=1e-5)

@torch.no_grad()
def test_no_targets_is_no_mask(net):
    imgs,is_tgt = scene()
    assert torch.equal(net.aggregate(imgs, torch.zeros_like(is_tgt))[-1], net.aggregate(imgs)[-1])

@torch.no_grad()
def test_layers(net):
    "Only what is asked for is kept, under the number asked with"
    imgs,_ = scene()
    toks = net.aggregate(imgs, layers=(1,-1,3))
    assert set(toks)=={1,-1,3} and torch.equal(toks[-1], toks[3])
    n = net.grid((56,84))[0]*net.grid((56,84))[1]
    assert toks[1].shape==(2,5,5+n,64) and net.patches(toks[1]).shape==(2,5,n,64)
    assert torch.equal(net.aggregate(imgs, layers=(1,))[1], toks[1])

def test_one_view():
    assert VGGT(tiny()).aggregate(torch.rand(1,1,3,28,28))[-1].shape==(1,1,9,64)

def test_resize_pos_embed():
    p = torch.randn(1, 25, 6)
    assert resize_pos_embed(p, (5,5)) is p
    const = torch.ones(1, 25, 6)
    torch.testing.assert_close(resize_pos_embed(const, (3,8)), torch.ones(1, 24, 6))

# heads
@pytest.mark.parametrize('patch,hw,down', [(14,(112,112),2),(14,(42,70),1),(7,(56,28),4),(16,(64,32),2)])
def test_heads_any_size(patch, hw, down):
    net,(b,v,h,w) = VGGT(tiny(patch=patch, dpt_down=down)),(1,3,*hw)
    out = net(torch.rand(b,v,3,h,w), torch.tensor([[False,True,True]]))
    assert out['depth'].shape==out['depth_conf'].shape==out['points_conf'].shape==(b,v,h//down,w//down)
    assert out['points'].shape==(b,v,h//down,w//down,3) and [p.shape for p in out['pose']]==[(b,v,9)]*4
    assert (out['depth']>0).all() and (out['depth_conf']>=1).all() and all((p[...,7:]>=0).all() for p in out['pose'])

def test_everything_learns():
    "Each parameter of nano gets a gradient from the outputs"
    torch.manual_seed(0)
    net = VGGT(tiny())
    out = net(*scene(h=28, w=42))
    loss = sum(o.pow(2).mean() for k,o in out.items() if k!='pose')+sum(p.pow(2).mean() for p in out['pose'])
    loss.backward()
    assert [k for k,p in net.named_parameters() if p.grad is None]==[]

def test_dtypes():
    "Under autocast the features are bfloat16 or float32, heads and cameras float32 as without it, from the same tokens"
    net,(imgs,is_tgt) = VGGT(tiny()).eval(),scene()
    with torch.no_grad():
        toks = net.aggregate(imgs, is_tgt, (*net.cfg.dpt_layers,-1))
        want = net.cameras(toks[-1], (56,84)).w2c,net.depth(toks, (56,84))[0]
        with torch.autocast('cpu', torch.bfloat16):
            got = net.cameras(toks[-1], (56,84)).w2c,net.depth(toks, (56,84))[0]
            out = net(imgs, is_tgt)
    for a,b in zip(want, got): assert b.dtype==torch.float32 and torch.equal(a, b)
    assert out['depth'].dtype==out['points'].dtype==out['pose'][-1].dtype==torch.float32 and out['depth'].isfinite().all()

def test_bad_config():
    with pytest.raises(UserError, match="'layer' or 'rms'"): tiny(global_qk_norm='batch')
    with pytest.raises(UserError, match='depht'): tiny(heads=('camera','depht'))
    assert VGGT(dino(embed_registers=2)).aggregator.patch_embed.register_tokens.shape[1]==2
    with pytest.raises(UserError, match="'dinov2' or 'conv'"): tiny(embed='mlp')
    with pytest.raises(ValueError, match='multiples of 4'): VGGT(tiny(dpt_dim=6))

# loading
@pytest.mark.parametrize('cfg', [tiny(), dino(), tiny(global_qk_norm='rms', heads=('camera',))])
def test_round_trip(tmp_path, cfg, capsys):
    net = VGGT(cfg)
    net.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        back = VGGT.from_pretrained(tmp_path)
    assert back.cfg==cfg and not back.training and capsys.readouterr().out==''
    assert all(torch.equal(a, b) for a,b in zip(net.state_dict().values(), back.state_dict().values()))

def test_half_weights(tmp_path):
    "Weights saved as float16 come back as float32"
    net = VGGT(tiny())
    net.save_pretrained(tmp_path)
    save_file({k:v.half() for k,v in net.state_dict().items()}, tmp_path/'model.safetensors')
    back = VGGT.from_pretrained(tmp_path)
    assert {p.dtype for p in back.parameters()}=={torch.float32}

@pytest.mark.parametrize('how', ['missing','extra','shape'])
def test_strict(tmp_path, how):
    "A tensor too few, too many or of another shape is an error"
    VGGT(tiny()).save_pretrained(tmp_path)
    sd = load_file(tmp_path/'model.safetensors')
    if how=='missing': sd.pop('aggregator.camera_token')
    if how=='extra': sd['aggregator.spare'] = torch.zeros(1)
    if how=='shape': sd['aggregator.camera_token'] = torch.zeros(1,2,1,8)
    save_file(sd, tmp_path/'model.safetensors')
    with pytest.raises(UserError): VGGT.from_pretrained(tmp_path)
    with pytest.raises(UserError) as e: load_teacher(str(tmp_path))
    assert '\n' not in str(e.value)

def test_rms_from_layer(tmp_path):
    "The biases that RMS norms have no place for are named in a warning; nothing else is dropped; frame blocks keep theirs"
    VGGT(tiny()).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match='k_norm.bias'): net = VGGT.from_pretrained(tmp_path, global_qk_norm='rms')
    assert sorted(net.left_out)==sorted(f'aggregator.global_blocks.{i}.attn.{n}_norm.bias' for i in range(4) for n in 'qk')

def test_track_head(tmp_path):
    "A track head is left out by its name, and only under that name"
    VGGT(tiny()).save_pretrained(tmp_path)
    sd = load_file(tmp_path/'model.safetensors')
    save_file({**sd, 'track_head.norm.weight':torch.ones(3)}, tmp_path/'model.safetensors')
    assert VGGT.from_pretrained(tmp_path).left_out==['track_head.norm.weight']
    save_file({**sd, 'track.norm.weight':torch.ones(3)}, tmp_path/'model.safetensors')
    with pytest.raises(UserError): VGGT.from_pretrained(tmp_path)

def test_foreign_config(tmp_path):
    "A config.json of the published VGGT (img_size, patch_size, embed_dim) means our default sizes"
    (tmp_path/'config.json').write_text('{"img_size": 518, "patch_size": 14, "embed_dim": 1024}', encoding='utf8')
    save_file({'aggregator.camera_token':torch.zeros(1)}, tmp_path/'model.safetensors')
    with torch.device('meta'), pytest.raises(UserError, match=r"\[1, 2, 1, 1024\]"): VGGT.from_pretrained(tmp_path)

def test_published_config_is_understood():
    assert VGGT.read_config(dict(img_size=518, patch_size=14, embed_dim=1024))==VGGTConfig()
    with pytest.raises(TypeError): VGGT.read_config(dict(VGGTConfig().__dict__, colour=3))

def test_no_field_of_view_is_zero():
    net = VGGT(tiny()).eval()
    torch.nn.init.zeros_(net.camera_head.pose_branch.fc2.weight)
    torch.nn.init.constant_(net.camera_head.pose_branch.fc2.bias, -1.)
    tokens = net.aggregate(scene()[0])[-1]
    assert net.cameras(tokens, (56,84)).K.isfinite().all()

@pytest.mark.parametrize('patch,down,hw', [(14,1,(56,42)),(7,2,(56,42)),(7,1,(21,35)),(14,2,(28,28))])
def test_depth_of_some_pixels_is_that_of_all(patch, down, hw):
    head = DPTHead(24, 2, (8,8,12,12), 16, patch=patch, down=down)
    grid = hw[0]//patch,hw[1]//patch
    toks = [torch.randn(3, grid[0]*grid[1], 24) for _ in range(4)]
    with torch.no_grad(): whole,some = head(toks, hw),head(toks, hw, grid)
    want = torch.nn.functional.interpolate(whole, size=grid, mode='nearest')
    assert some.shape==want.shape and (some-want).abs().max()<1e-5*want.abs().max() and want.std()>1e-3

def test_depth_a_few_views_at_a_time():
    net = VGGT(VGGTConfig.nano(patch=14)).eval()
    toks = {l:torch.randn(2, 6, 5+16, 256) for l in net.cfg.dpt_layers}
    with torch.no_grad(): a,b = [net._dense(net.depth_head, toks, (56,56), k=k)[0] for k in (5,12)]
    assert torch.allclose(a, b, atol=1e-5) and a.shape==(2,6,28,28,1)
    with torch.no_grad(): low = net.depth(toks, (56,56), (4,4), torch.bfloat16)[0]
    whole = net.depth(toks, (56,56))[0]
    assert low.dtype==torch.float32 and torch.allclose(low, whole[...,::7,::7], rtol=.05) and not torch.equal(low, whole[...,::7,::7])

@pytest.mark.parametrize('hw,n,rounds', [((56,56), 24, [24]), ((518,518), 9, [8,1]), ((518,392), 12, [10,2]), ((5180,5180), 2, [1,1])])
def test_a_dense_head_takes_as_many_pixels_as_memory_allows(hw, n, rounds):
    net,seen = VGGT(VGGTConfig.nano(dim=16, depth=2, nh=2, heads=('depth',))),[]
    def head(layers, hw, grid):
        seen.append(len(layers[0]))
        return torch.zeros(seen[-1], 2, 1, 1)
    toks = torch.zeros(1, n, 2+net.cfg.n_registers, 32)
    net._dense(head, {l:toks for l in net.cfg.dpt_layers}, hw)
    assert seen==rounds

def test_nano_is_the_miniature_that_ships():
    "One meaning of the word: the sizes by that name are those of the weights by that name"
    there = json.loads((WEIGHTS/'nano'/'teacher'/'config.json').read_text(encoding='utf8'))
    assert VGGT.read_config(there)==VGGTConfig.nano()
    student = Spa3R.read_config(json.loads((WEIGHTS/'nano'/'config.json').read_text(encoding='utf8')))
    assert replace(student, teacher='exact', grid=8)==Spa3RConfig.nano(geo_channels=2*VGGTConfig.nano().dim)
