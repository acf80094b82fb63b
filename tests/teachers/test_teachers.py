"Who may teach: frozen, strictly loaded, in few digits where that is harmless, and asked once"
import copy,json,os
import pytest,torch
import torch.nn.functional as F
from safetensors.torch import load_file,save_file
from golden_io import card
from spa3r.util.core import UserError
from spa3r.data.batches import Views
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.rooms.rooms import render,sample_scenes
from spa3r.teachers.teachers import DINOv3,ExactTeacher,Observation,ObservationCache,Teacher,VGGTTeacher,load_teacher
from tiny_vggt import scene,tiny

os.environ['HF_HUB_OFFLINE'] = '1'


def tiny_dino(kind='dinov3', seed=0, **kw):
    "A small model of one of the three kinds, randomised whole"
    import transformers as t
    torch.manual_seed(seed)
    c = dict(dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2), **kw)
    if kind=='dinov3': net = t.DINOv3ViTModel(t.DINOv3ViTConfig(**dict(intermediate_size=64, num_register_tokens=4, patch_size=16, pos_embed_rescale=2.)|c))
    if kind=='dinov2': net = t.Dinov2Model(t.Dinov2Config(**c, patch_size=14, image_size=518))
    if kind=='dinov2_with_registers': net = t.Dinov2WithRegistersModel(t.Dinov2WithRegistersConfig(**c, patch_size=14, image_size=518))
    for p in net.parameters(): torch.nn.init.normal_(p, std=.2)
    return net

# frozen

def test_frozen():
    "train() of a teacher, or of what holds it, changes nothing; DINOv3 in train mode would be random"
    teacher = VGGTTeacher(VGGT(tiny()), DINOv3(tiny_dino()))
    torch.nn.ModuleList([teacher]).train()
    assert not any(m.training for m in teacher.modules()) and not any(p.requires_grad for p in teacher.parameters())
    imgs,is_tgt = scene()
    a,b = (teacher.observe(Views(imgs), is_tgt) for _ in range(2))
    assert torch.equal(a.feats['sem'], b.feats['sem']) and not a.feats['geo'].requires_grad
    loose = tiny_dino().train()
    x = torch.rand(1, 3, 224, 224)
    assert not torch.equal(loose(pixel_values=x).last_hidden_state, loose(pixel_values=x).last_hidden_state)

# what they say

@pytest.mark.parametrize('asym', [True,False])
def test_vggt_teacher(asym):
    torch.manual_seed(0)
    teacher = VGGTTeacher(VGGT(tiny()), DINOv3(tiny_dino()), asymmetric=asym)
    imgs,is_tgt = scene()
    obs = teacher.observe(Views(imgs), is_tgt)
    assert isinstance(obs, Observation) and obs.grid==(4,6) and obs.is_tgt is is_tgt
    assert obs.ctx.shape==(2,3,24,64) and obs.depth.shape==(2,5,24) and obs.cams.shape==(2,5) and obs.cams.hw==(56,84)
    assert {k:v.shape for k,v in obs.feats.items()}=={k:(2,5,24,c) for k,c in teacher.channels.items()}
    alone,grid = teacher.context(Views(imgs[~is_tgt].unflatten(0, (2,-1))))
    assert grid==obs.grid
    torch.testing.assert_close(obs.ctx, alone, atol=1e-5, rtol=1e-5)
    same = torch.equal(obs.ctx.flatten(0,1), obs.feats['geo'][~is_tgt])
    assert same==asym, 'one pass: context features are those of the targets\' pass; two passes: they are not'

class Colours(Teacher):
    "The mean colour of each patch"
    channels = {'rgb':3}
    def forward(self, imgs, grid):
        return F.interpolate(imgs.flatten(0, 1), size=grid, mode='area').unflatten(0, imgs.shape[:2]).flatten(3).mT

def test_a_third_teacher(tmp_path):
    "Any module with `channels` stands beside the others, and its features are kept on disk like theirs"
    teacher = VGGTTeacher(VGGT(tiny()), [DINOv3(tiny_dino()), Colours()])
    imgs,is_tgt = scene()
    obs = teacher.observe(Views(imgs), is_tgt)
    assert teacher.channels=={'geo':64, 'sem':32, 'rgb':3}=={k:v.shape[-1] for k,v in obs.feats.items()}
    torch.testing.assert_close(obs.feats['rgb'][1,2,7], imgs[1,2,:,14:28,14:28].mean((1,2)))  # second row, second column of six
    cache = ObservationCache(tmp_path, {}, 1, dtype=torch.float32, tell=len)
    cache.get(0, lambda: obs)
    assert torch.equal(cache.get(0, None).feats['rgb'], obs.feats['rgb'])
    with pytest.raises(ValueError, match="'sem'"): VGGTTeacher(VGGT(tiny()), [DINOv3(tiny_dino()), DINOv3(tiny_dino())])

def test_a_third_teacher_by_name(tmp_path):
    "Several names with commas: the first is `sem`, the others are numbered"
    VGGT(tiny()).save_pretrained(tmp_path/'vggt')
    tiny_dino().save_pretrained(tmp_path/'a')
    tiny_dino('dinov2', hidden_size=24).save_pretrained(tmp_path/'b')
    t = load_teacher(str(tmp_path/'vggt'), semantic=f"{tmp_path/'a'}, {tmp_path/'b'}")
    assert t.channels=={'geo':64, 'sem':32, 'sem2':24}
    with pytest.raises(UserError, match='nowhere'): load_teacher(str(tmp_path/'vggt'), semantic=f"{tmp_path/'a'},{tmp_path/'nowhere'}")

def test_context_needs_no_heads():
    "Encoding runs without any head"
    feats,grid = VGGTTeacher(VGGT(tiny(heads=()))).context(Views(scene()[0]))
    assert feats.shape==(2,5,24,64)

def exact_scene():
    rooms,cams = sample_scenes([1,2], 4)
    return Views(cams=cams, rooms=rooms),torch.tensor([[0,1,0,1],[0,0,1,1]]).bool()

def test_exact_teacher():
    teacher,(views,is_tgt) = load_teacher('exact'),exact_scene()
    obs = teacher.observe(views, is_tgt)
    assert obs.feats['geo'].shape==(2,4,64,teacher.channels['geo']) and obs.grid==(8,8)
    torch.testing.assert_close(obs.cams.w2c[:,0], torch.eye(4).expand(2,4,4), atol=1e-5, rtol=0)
    assert torch.equal(obs.ctx.flatten(0,1), obs.feats['geo'][~is_tgt])
    assert torch.equal(teacher.context(views)[0], obs.feats['geo'])
    torch.testing.assert_close(obs.depth, render(views.rooms, views.cams, grid=(8,8))['depth'].flatten(2))
    with pytest.raises(ValueError, match='rooms'): teacher.observe(Views(scene()[0]), is_tgt)

def test_observation_moves():
    imgs,is_tgt = scene()
    obs = VGGTTeacher(VGGT(tiny())).observe(Views(imgs), is_tgt).to('meta')
    assert obs.ctx.is_meta and obs.feats['geo'].is_meta and obs.cams.w2c.is_meta and obs.is_tgt.is_meta and obs.grid==(4,6)

# in few digits

def vggt(seed=0, **kw):
    torch.manual_seed(seed)
    return VGGT(tiny(**kw)).eval()

dino = dict(embed='dinov2', embed_depth=1, embed_nh=4, init_values=.1)

@pytest.mark.parametrize('kw', [{}, dino, dino|dict(global_qk_norm='rms')])
def test_bfloat16(kw):
    "Near the float32 teacher; the same numbers as autocast over float32 weights; observations in float32"
    imgs,is_tgt = scene()
    net = vggt(**kw)
    full,low = VGGTTeacher(net, DINOv3(tiny_dino())),VGGTTeacher(copy.deepcopy(net), DINOv3(tiny_dino(), dtype=torch.bfloat16), dtype=torch.bfloat16)
    a,b = (t.observe(Views(imgs), is_tgt) for t in (full,low))
    for x,y in ((a.ctx,b.ctx), (a.feats['geo'],b.feats['geo']), (a.feats['sem'],b.feats['sem']), (a.depth,b.depth)):
        assert y.dtype==torch.float32 and 0<(x-y).norm()<.03*x.norm()
    with torch.autocast('cpu', torch.bfloat16): toks = net.aggregate(imgs, is_tgt)[-1]
    assert torch.equal(net.patches(toks).float(), b.feats['geo'])
    assert toks.dtype==torch.float32, 'sums inside the blocks have lost their digits'

def test_cameras_stay_float32():
    "Matrices of the aggregator shrink; heads, norms and tokens do not. The camera head computes in float32; the depth head multiplies as the teacher does, and in float32 for whoever wants every pixel"
    imgs,is_tgt = scene()
    low = VGGTTeacher(vggt(**dino), dtype=torch.bfloat16)
    kinds = {k:p.dtype for k,p in low.vggt.named_parameters()}
    assert all((d==torch.bfloat16)==(k.startswith('aggregator.') and any(o in k for o in ('qkv','proj.','fc1','fc2'))) for k,d in kinds.items())
    with low.autocast(imgs): toks = low.vggt.aggregate(imgs, is_tgt, (*low.vggt.cfg.dpt_layers,-1))
    pose = low.vggt.camera_head(toks[-1][:,:,0].float())[-1]
    obs = low.observe(Views(imgs), is_tgt)
    from spa3r.model.cameras import Cameras
    assert torch.equal(obs.cams.w2c, Cameras.from_pose(torch.cat([pose[...,:7], pose[...,7:].clamp_min(.05)], -1), (56,84)).relative_to(0).w2c)
    depth = F.interpolate(low.vggt.depth({k:v.float() for k,v in toks.items()}, (56,84))[0], size=obs.grid, mode='nearest')
    assert 0<(obs.depth-depth.flatten(2)).norm()<.01*depth.norm() and obs.depth.dtype==torch.float32
    fine = low.observe(Views(imgs), is_tgt, fine=True)
    assert torch.allclose(fine.depth, depth.flatten(2), rtol=1e-5)

@pytest.mark.parametrize('dtype', [torch.float32,torch.bfloat16])
def test_the_loop_does_not_reach_the_teacher(dtype):
    imgs,is_tgt = scene()
    teacher = VGGTTeacher(vggt(), DINOv3(tiny_dino(), dtype=dtype), dtype=dtype)
    a = teacher.observe(Views(imgs), is_tgt)
    with torch.autocast('cpu', torch.bfloat16): b,(c,_) = teacher.observe(Views(imgs), is_tgt),teacher.context(Views(imgs))
    assert torch.equal(a.ctx, b.ctx) and torch.equal(a.feats['sem'], b.feats['sem']) and torch.equal(a.depth, b.depth)
    assert torch.equal(c, teacher.context(Views(imgs))[0])

# the semantic teacher

@pytest.mark.parametrize('kind,n', [('dinov3',201), ('dinov2',257), ('dinov2_with_registers',261)])
def test_dino_kinds(tmp_path, kind, n, capfd):
    "Written and read back, the patches are those behind class and register tokens, row by row; nothing is printed"
    net = tiny_dino(kind).eval()
    net.save_pretrained(tmp_path)
    capfd.readouterr()
    sem = DINOv3.from_pretrained(str(tmp_path))
    assert capfd.readouterr()==('','')
    imgs = torch.rand(1, 2, 3, 224, 224)
    side = 14 if kind=='dinov3' else 16
    from spa3r.model.patch_encoder import normalise
    with torch.no_grad(): all_tokens = net(pixel_values=normalise(imgs[0])).last_hidden_state
    assert all_tokens.shape[1]==n
    torch.testing.assert_close(sem(imgs, (side,side))[0], all_tokens[:,-side*side:])
    assert sem.channels=={'sem':32} and not sem.training and sem(imgs, (4,6)).shape==(1,2,24,32)

def test_dinov3_at_real_names(tmp_path):
    "A small checkpoint with all names of ViT-L/16, as the hub has them, gives every one of its tensors"
    net = tiny_dino(num_hidden_layers=24)
    real = {k.removeprefix('model.') for k in card('keys_dinov3_vitl16_transformers')['keys']}
    net.save_pretrained(tmp_path)
    sd = load_file(tmp_path/'model.safetensors')
    assert set(sd)==real
    model = DINOv3.from_pretrained(str(tmp_path)).model
    assert len(model.state_dict())>=len(real)
    for (k,a),b in zip(net.named_parameters(), model.parameters(), strict=True): assert torch.equal(a, b), k

@pytest.mark.parametrize('how', ['missing','extra','shape'])
@pytest.mark.parametrize('kind', ['dinov3','dinov2_with_registers'])
def test_dino_strict(tmp_path, kind, how, capfd):
    tiny_dino(kind).save_pretrained(tmp_path)
    sd = load_file(tmp_path/'model.safetensors')
    k = next(k for k in sd if 'norm1.weight' in k)
    if how=='missing': sd.pop(k)
    if how=='extra': sd['spare'] = torch.zeros(1)
    if how=='shape': sd[k] = torch.zeros(3)
    save_file(sd, tmp_path/'model.safetensors', metadata={'format':'pt'})
    capfd.readouterr()
    with pytest.raises(UserError, match=dict(missing='missing_keys.*norm1', extra='unexpected_keys.*spare', shape='mismatched_keys.*norm1')[how]) as e:
        DINOv3.from_pretrained(str(tmp_path))
    assert '\n' not in str(e.value) and capfd.readouterr()==('','')

def test_mask_token_may_be_missing(tmp_path):
    dino,imgs = tiny_dino(),torch.rand(1, 2, 3, 28, 28)
    dino.save_pretrained(tmp_path)
    sd = load_file(tmp_path/'model.safetensors')
    assert any('mask_token' in k for k in sd)
    save_file({k:v for k,v in sd.items() if 'mask_token' not in k}, tmp_path/'model.safetensors', metadata={'format':'pt'})
    assert DINOv3.from_pretrained(str(tmp_path))(imgs, (2,2)).equal(DINOv3(dino)(imgs, (2,2)))

def test_not_a_dino(tmp_path):
    (tmp_path/'config.json').write_text(json.dumps(dict(model_type='bert')), encoding='utf8')
    with pytest.raises(UserError, match='it is a bert'): DINOv3.from_pretrained(str(tmp_path))
    (tmp_path/'config.json').unlink()
    with pytest.raises(UserError, match='cannot be a semantic teacher') as e: DINOv3.from_pretrained(str(tmp_path))
    assert '\n' not in str(e.value)

def test_gated(monkeypatch):
    "A closed gate: where to knock, and who can stand in; any other trouble keeps its own message"
    import huggingface_hub
    from huggingface_hub.errors import GatedRepoError
    class Answer:
        headers,request,status_code = {},None,401
    def shut(*a, local_files_only=False, **k):
        raise FileNotFoundError('nothing here') if local_files_only else GatedRepoError('401 Client Error', response=Answer())
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', lambda *a, **k: None)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', shut)
    with pytest.raises(UserError, match='is gated: ask for access at https://huggingface.co/facebook/dinov3-vitl16.*facebook/dinov2-with-registers-large') as e:
        load_teacher('facebook/VGGT-1B', semantic='facebook/dinov3-vitl16')
    assert '\n' not in str(e.value)
    def down(*a, **k): raise ConnectionError('no route to host')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', down)
    with pytest.raises(UserError, match='no route to host'): DINOv3.from_pretrained('facebook/dinov3-vitl16')

# by name

def test_load_teacher(tmp_path):
    VGGT(tiny()).save_pretrained(tmp_path/'teacher')
    teacher = load_teacher('teacher', tmp_path)
    assert isinstance(teacher, VGGTTeacher) and teacher.vggt.cfg==tiny(heads=('camera','depth')) and teacher.asymmetric
    assert load_teacher(str(tmp_path/'teacher')).channels=={'geo':64}
    with pytest.raises(UserError, match='no teacher in'): load_teacher('teacher', tmp_path/'nowhere')

def test_load_teacher_whole(tmp_path):
    "All that can be said: norm, passes, semantics, precision"
    torch.manual_seed(0)
    net = VGGT(tiny(**dino))
    net.save_pretrained(tmp_path/'vggt')
    tiny_dino('dinov2').save_pretrained(tmp_path/'dino')
    with pytest.warns(UserWarning, match='k_norm.bias'):
        t = load_teacher(str(tmp_path/'vggt'), semantic=str(tmp_path/'dino'), asymmetric=False, norm='rms', dtype=torch.bfloat16)
    assert t.channels=={'geo':64, 'sem':32} and not t.asymmetric and t.dtype==t.others[0].dtype==torch.bfloat16 and t.vggt.cfg.global_qk_norm=='rms'
    imgs,is_tgt = scene()
    full = load_teacher(str(tmp_path/'vggt'))
    assert not torch.allclose(full.observe(Views(imgs), is_tgt).ctx, t.observe(Views(imgs), is_tgt).ctx, atol=1e-2)

def real_vggt(**kw):
    "A VGGT with all names of VGGT-1B, thin as a thread"
    torch.manual_seed(0)
    c = VGGTConfig(dim=16, nh=2, embed_nh=2, camera_nh=2, img_size=28, dpt_dim=8, dpt_channels=(4,4,4,4), **kw)
    return VGGT(c)

def test_vggt_at_real_names(tmp_path):
    "A checkpoint with every name of VGGT-1B, track head included: what a teacher needs is loaded, the rest left out without a word"
    net,inv = real_vggt(),card('keys_vggt_1b')['keys']
    net.save_pretrained(tmp_path)
    sd = net.state_dict() | {k:torch.zeros(1) for k in inv if k.startswith('track_head.')}
    assert set(sd)==set(inv) and {k:v.ndim for k,v in sd.items() if 'track' not in k}=={k:len(v['shape']) for k,v in inv.items() if 'track' not in k}
    save_file(sd, tmp_path/'model.safetensors')
    import warnings
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        t = load_teacher(str(tmp_path))
    assert {k.split('.')[0] for k in t.vggt.left_out}=={'track_head','point_head'}
    for k,v in t.vggt.state_dict().items(): assert torch.equal(v, sd[k]), k
    imgs,is_tgt = scene(1, 3, 28, 42)
    assert t.observe(Views(imgs), is_tgt).feats['geo'].shape==(1,3,6,32)
    sd.pop('aggregator.global_blocks.7.attn.q_norm.bias')
    save_file(sd, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='global_blocks.7.attn.q_norm.bias'): load_teacher(str(tmp_path))

def test_hub_out_of_reach(monkeypatch, capfd):
    "One line, and nothing else on the screen"
    import huggingface_hub
    def down(*a, **k): raise ConnectionError('no route\nto host')
    monkeypatch.setattr(huggingface_hub.HfApi, 'model_info', down)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', down)
    with pytest.raises(UserError, match='cannot be had from the hub') as e: load_teacher('someone/no-such-vggt')
    assert '\n' not in str(e.value) and capfd.readouterr().err==''

# kept on disk

KEY = dict(teacher='exact', seed=3, grid=(8,8))

def some(i=0, asym=True, sem=True):
    "An observation, another for each i"
    torch.manual_seed(0)
    teacher = VGGTTeacher(VGGT(tiny()), DINOv3(tiny_dino()) if sem else None, asymmetric=asym)
    imgs,is_tgt = scene(seed=i)
    return teacher.observe(Views(imgs), is_tgt)

def same(a, b):
    assert a.feats.keys()==b.feats.keys() and a.grid==b.grid and a.cams.hw==b.cams.hw
    for x,y in ((a.ctx,b.ctx), *((a.feats[k],b.feats[k]) for k in a.feats), (a.cams.w2c,b.cams.w2c), (a.cams.K,b.cams.K), (a.depth,b.depth), (a.is_tgt,b.is_tgt)):
        assert x.dtype==y.dtype and torch.equal(x, y)

def never(): raise AssertionError('asked again')

@pytest.mark.parametrize('asym', [True,False])
@pytest.mark.parametrize('dtype', [torch.bfloat16,torch.float16,torch.float32])
def test_cache_gives_back(tmp_path, asym, dtype):
    "What comes back is what was made, features rounded; the first time too; by another process as well"
    made = some(asym=asym)
    first = ObservationCache(tmp_path, KEY, 3, dtype).get(1, lambda: made)
    again = ObservationCache(tmp_path, KEY, 3, dtype).get(1, never)
    same(first, again)
    want = copy.copy(made)
    want.ctx,want.feats = made.ctx.to(dtype).float(),{k:v.to(dtype).float() for k,v in made.feats.items()}
    same(first, want)
    assert (dtype==torch.float32)==torch.equal(first.ctx, made.ctx)

@pytest.mark.parametrize('asym', [True,False])
def test_cache_bytes(tmp_path, asym):
    "The size that is foretold is the size on disk, but for the header of a file; one pass stores no context twice"
    made = some(asym=asym)
    cache = ObservationCache(tmp_path, KEY, 2)
    for i in range(2): cache.get(i, lambda: made)
    foretold,real = cache.used,sum(p.stat().st_size for p in tmp_path.glob('*.safetensors'))
    assert 0<=real-foretold<2*1500
    n = made.feats['geo'].numel()+made.feats['sem'].numel()+(0 if asym else made.ctx.numel())
    assert foretold==2*(2*n+4*(made.depth.numel()+made.cams.w2c.numel()+made.cams.K.numel())+made.is_tgt.numel())

def test_cache_resumes(tmp_path):
    "Killed after two of four: only the others are made; a damaged or unfinished file is made anew"
    asked = []
    def ask(i):
        def make():
            asked.append(i)
            return some(i)
        return make
    cache = ObservationCache(tmp_path, KEY, 4)
    for i in (2,0): cache.get(i, ask(i))
    (tmp_path/'.00000001.99.safetensors').write_bytes(b'half of a')
    for i in range(4): ObservationCache(tmp_path, KEY, 4).get(i, ask(i))
    assert asked==[2,0,1,3]
    p = tmp_path/'00000002.safetensors'
    good = p.read_bytes()
    for bad in (b'', good[:len(good)//2], b'x'*100):
        p.write_bytes(bad)
        same(ObservationCache(tmp_path, KEY, 4).get(2, ask(2)), some_rounded(2))
        assert p.stat().st_size==len(good)
    assert asked[4:]==[2]*3

def some_rounded(i):
    o = some(i)
    o.ctx,o.feats = o.ctx.bfloat16().float(),{k:v.bfloat16().float() for k,v in o.feats.items()}
    return o

def test_cache_key(tmp_path):
    "Another teacher, seed or number format is refused, and said; the same key in other clothes is not"
    ObservationCache(tmp_path, KEY, 2).get(0, some)
    ObservationCache(tmp_path, dict(reversed(KEY.items()))|{'grid':[8,8]}, 5).get(0, never)
    for new,said in ((KEY|{'seed':4}, r"\{'seed': \(3, 4\)\}"), (KEY|{'side':112}, r"\{'side': \(None, 112\)\}"), ({'seed':3,'grid':(8,8)}, r"'teacher': \('exact', None\)")):
        with pytest.raises(UserError, match=said) as e: ObservationCache(tmp_path, new, 2)
        assert '\n' not in str(e.value)
    with pytest.raises(UserError, match='float16'): ObservationCache(tmp_path, KEY, 2, torch.float16)

def size_of(made, tmp_path):
    "Bytes of one observation as a cache counts them"
    cache = ObservationCache(tmp_path/'one', KEY, 1, tell=str)
    cache.get(0, lambda: made)
    return cache.used

def test_cache_limit(tmp_path):
    "What will not fit is refused before anything is written; what grows beyond, when it does"
    made,said = some(),[]
    gb = size_of(made, tmp_path)/1e9
    with pytest.raises(UserError, match='the limit is'): ObservationCache(tmp_path, KEY, 10, limit_gb=9.9*gb, tell=said.append).get(0, lambda: made)
    assert not list(tmp_path.glob('*.safetensors')) and len(said)==1 and '10 observations' in said[0]
    cache = ObservationCache(tmp_path, KEY, 10, limit_gb=10.1*gb, tell=said.append)
    for i in range(9): cache.get(i, lambda: made)
    assert len(said)==2, 'sizes are told once'
    with pytest.raises(UserError, match='the limit is'): cache.get(9, lambda: some(sem=True, asym=False))
    cache.get(9, lambda: made)
    more = ObservationCache(tmp_path, KEY, 12, limit_gb=11*gb, tell=said.append)
    with pytest.raises(UserError, match='the limit is'): more.get(10, lambda: made)
    assert '10 are there' in said[-1] and more.get(3, never) is not None

def test_cache_free_space(tmp_path, monkeypatch):
    import shutil
    from types import SimpleNamespace
    made = some()
    size = size_of(made, tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: SimpleNamespace(free=3*size))
    ObservationCache(tmp_path/'fits', KEY, 3, tell=str).get(0, lambda: made)
    with pytest.raises(UserError, match='are free'): ObservationCache(tmp_path/'not', KEY, 4, tell=str).get(0, lambda: made)
    assert not list((tmp_path/'not').glob('*.safetensors'))

def test_cache_full_disk(tmp_path, monkeypatch):
    "The disk fills up in the middle: one line, no half file"
    import errno,safetensors.torch
    def full(kept, p, **k):
        p.write_bytes(b'some')
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(safetensors.torch, 'save_file', full)
    with pytest.raises(UserError, match='No space left') as e: ObservationCache(tmp_path, KEY, 3, tell=str).get(0, some)
    assert '\n' not in str(e.value) and [p.name for p in tmp_path.iterdir()]==['key.json']

def test_cache_refuses_what_is_not_finite(tmp_path):
    big = some()
    big.feats['geo'] = big.feats['geo'].clone()
    big.feats['geo'][0,0,0,0] = 1e5
    with pytest.raises(UserError, match="feats.geo.*float16.*bfloat16"): ObservationCache(tmp_path/'h', KEY, 3, torch.float16, tell=str).get(0, lambda: big)
    assert ObservationCache(tmp_path/'b', KEY, 3, tell=str).get(0, lambda: big).feats['geo'].isfinite().all()
    with pytest.raises(ValueError, match='observation 3 of a cache for 3'): ObservationCache(tmp_path/'b', KEY, 3).get(3, never)
