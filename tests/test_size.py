"The real size: number formats at each stage, pictures as the official language model is shown them, and the teacher that official weights were taught by"
import json,subprocess,sys
from dataclasses import replace
from pathlib import Path
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from spa3r.language.convert import OFFICIAL
from spa3r.util.core import UserError,pick_dtype
from spa3r.model.patch_encoder import VGGT,VGGTConfig,resize_pos_embed
from spa3r.language.processor import Processor
from spa3r.teachers.teachers import load_student
from spa3r.model.psfm import Spa3R,Spa3RConfig,psfm_loss
from spa3r.data.scenes import resize_view
from spa3r.language.vlm import SpatialEncoder
from spa3r.teachers.teachers import VGGTTeacher,load_teacher
from spa3r.train.pretrain import pretrain,taught_by
from spa3r.data.batches import Views
from spa3r.language import vlm as S
from tiny_qwen import images,picture,tokenizer

bf16,f32 = torch.bfloat16,torch.float32

@pytest.fixture(scope='module')
def tok(): return tokenizer()

def watch(model, *names):
    "Number formats of what modules give, by name"
    seen = {}
    def note(k):
        def hook(m, args, out): seen.setdefault(k, set()).add((out[0] if isinstance(out, (list,tuple)) else out).dtype)
        return hook
    mods = dict(model.named_modules())
    hooks = [mods[k].register_forward_hook(note(k)) for k in names]
    return seen,hooks

# ---- bfloat16 where it counts

def test_which_number_format(monkeypatch):
    assert pick_dtype('cpu')==pick_dtype('cpu', 'float32')==f32 and pick_dtype('cpu', 'bfloat16')==bf16
    monkeypatch.setattr(torch.cuda, 'is_bf16_supported', lambda: True)
    assert pick_dtype('cuda')==bf16 and pick_dtype('cuda', 'float32')==f32
    for what in (lambda o: pick_dtype('cpu', o), lambda o: SpatialEncoder.from_pretrained('nano', dtype=o), lambda o: load_student('nano', dtype=o)):
        with pytest.raises(UserError, match="no number format 'int4'"): what('int4')

STAGES = {'teacher.vggt.aggregator.patch_embed.proj':bf16, 'teacher.vggt.aggregator.frame_blocks.0.attn.qkv':bf16, 'teacher.vggt.aggregator.global_blocks.0.mlp':bf16,
          'teacher.vggt.aggregator.global_blocks.0':f32, 'student.bottleneck.projection':bf16, 'student.bottleneck.encoder.blocks.0.attn.qkv':bf16,
          'student.bottleneck.encoder.blocks.0':f32} # sums keep float32

@pytest.mark.parametrize('asked', ['bfloat16',torch.bfloat16,'auto'])
def test_spatial_encoder_in_bfloat16_stage_by_stage(asked, monkeypatch):
    "As asked, or by itself where the device suits it; the latents come out in float32, near those of float32"
    want = SpatialEncoder.from_pretrained('nano')
    if asked=='auto': monkeypatch.setattr(S, 'pick_dtype', lambda device, name: bf16 if name=='auto' else pick_dtype(device, name))
    enc = SpatialEncoder.from_pretrained('nano', dtype=asked)
    seen,_ = watch(enc, *STAGES)
    imgs = torch.rand(3, 3, 84, 112)
    z = enc(imgs)
    assert seen=={k:{v} for k,v in STAGES.items()} and z.dtype==f32
    assert 0<(z-want(imgs)).norm()<.02*want(imgs).norm()
    big = {p.dtype for k,p in enc.teacher.named_parameters() if k.endswith(('qkv.weight','fc1.weight'))}
    assert big=={bf16} and {p.dtype for p in enc.student.parameters()}=={f32}

def test_float32_is_an_option_and_autocast_around_it_changes_nothing():
    enc,imgs = SpatialEncoder.from_pretrained('nano', dtype='float32'),torch.rand(2, 3, 112, 112)
    seen,_ = watch(enc, *STAGES)
    with torch.autocast('cpu', bf16): z = enc(imgs)
    assert {o for s in seen.values() for o in s}=={f32} and torch.equal(z, enc(imgs))

def test_what_is_saved_has_all_digits(tmp_path):
    "Also when what computes was rounded: the file it came from is read again"
    SpatialEncoder.from_pretrained('nano', dtype='bfloat16').save_pretrained(tmp_path/'a')
    SpatialEncoder.from_pretrained('nano').save_pretrained(tmp_path/'b')
    for f in ('model.safetensors','teacher/model.safetensors'):
        a,b = load_file(tmp_path/'a'/f),load_file(tmp_path/'b'/f)
        assert a.keys()==b.keys() and all(torch.equal(a[k], b[k]) for k in b)

def test_load_student_in_bfloat16_keeps_cameras_rays_and_losses_in_float32():
    st,tea,_ = load_student('nano', dtype='bfloat16')
    ref = load_student('nano')
    assert ref[0].dtype is None and {p.dtype for p in ref[1].parameters()}=={f32}
    want = {'vggt.aggregator.global_blocks.0.attn.qkv':bf16, 'vggt.camera_head.trunk.0.attn.qkv':f32, 'vggt.camera_head.pose_branch':f32}
    seen,_ = watch(tea, *want)
    seen2,_ = watch(st, 'field.pose_tokenizer', 'field.decoder.blocks.0.attn.qkv', 'bottleneck.projection')
    is_tgt = torch.tensor([[False,True,False,True]])
    obs = tea.observe(Views(torch.rand(1, 4, 3, 112, 112)), is_tgt)
    assert seen=={k:{v} for k,v in want.items()} and obs.cams.K.dtype==obs.depth.dtype==obs.ctx.dtype==f32
    losses = psfm_loss(st, obs)
    assert seen2=={'field.pose_tokenizer':{f32}, 'field.decoder.blocks.0.attn.qkv':{bf16}, 'bottleneck.projection':{bf16}}
    assert {v.dtype for v in losses.values()}=={f32}
    assert {v.dtype for v in st.decode(st.encode(obs.ctx, obs.grid), obs.cams, obs.grid, depth=True).values()}=={f32}
    assert abs(losses['loss']-psfm_loss(ref[0], obs)['loss'])<.02*losses['loss']

def test_positions_of_patches_are_added_in_float32():
    "As officially: under autocast the table is not rounded to the eight bits of what it is added to"
    cfg = VGGTConfig(dim=64, depth=1, nh=4, embed_depth=1, embed_nh=4, img_size=56, heads=())
    torch.manual_seed(0)
    vit = VGGTTeacher(VGGT(cfg), dtype=bf16).vggt.aggregator.patch_embed
    got = []
    vit.blocks[0].register_forward_pre_hook(lambda m, args: got.append(args[0]))
    x = torch.rand(1, 3, 28, 42)
    with torch.autocast('cpu', bf16):
        vit(x)
        patches = vit.patch_embed(x)
    assert patches.dtype==bf16 and got[0].dtype==f32
    assert torch.equal(got[0][:,5:], patches.float()+resize_pos_embed(vit.pos_embed[:,1:], (2,3)))

def test_settles_on_a_second_device():
    "The encoder goes where the pictures are, and gives there what it gives on the CPU (such a device knows no autocast, so float32)"
    code = """import os,torch,second_device
keep = second_device.set_up()
torch.set_num_threads(1)
from spa3r.language.vlm import SpatialEncoder
imgs,enc = torch.rand(2, 3, 28, 42),SpatialEncoder.from_pretrained('nano')
with torch.no_grad(): near,far = enc(imgs),enc(imgs.to('far'))
print(next(enc.parameters()).device.type, far.device.type, far.dtype, ((far.cpu()-near).norm()/near.norm()).item()<1e-4, flush=True)
os._exit(0)"""
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf8', cwd=Path(__file__).parent)
    assert r.stdout.split()==['far','far','torch.float32','True'], r.stdout+r.stderr[-2000:]

# ---- one picture for both eyes

SIZES = {(640,480):252, (1296,968):252, (1920,1440):252, (1752,1168):216, (1920,1080):180, (540,960):324} # of a source -> tokens of a picture

def tokens(p, size): return int(p([p.chat(1, '?')], [[Image.new('RGB', size)]])['image_grid_thw'].prod())//4

@pytest.mark.filterwarnings('ignore:upright pictures')
def test_tokens_of_a_picture_as_officially(tok):
    "518 wide, stretched to whole patches, at most a square, cut to whole tokens: whatever the size of the source"
    p = Processor(tok, images(max_side=10_000), view=(518,14,'round'))
    assert {s:tokens(p, s) for s in SIZES}==SIZES
    before = Processor(tok, images(max_side=10_000), view=None)
    assert [tokens(before, s) for s in list(SIZES)[:3]]==[391,1610,3519]

@pytest.mark.parametrize('fps', [None,2.])
def test_both_eyes_see_one_picture(tok, fps):
    "What Qwen's eye gets is the spatial view, without the patches at the right and below that make no whole token"
    pics = [picture(i, 160, 90) for i in range(2)]
    p = Processor(tok, images(), view=(126,14,'round'))
    x = p([p.chat(1 if fps else 2, '?', video=bool(fps))], [pics], fps=fps)
    seen = x['spatial_images'][0]
    assert seen.shape==(2,3,70,126)
    cut = [Image.fromarray((o.movedim(0,-1)*255).round().byte().numpy()) for o in seen[:,:,:56,:112]]
    q = Processor(tok, images(max_side=10_000), view=None)
    assert torch.equal(x['pixel_values_videos' if fps else 'pixel_values'], q.look(cut, fps)[0])

def test_another_budget_is_an_option(tok):
    p = Processor(tok, images(max_side=10_000), view=(518,14), pixels=100*28*28)
    x = p([p.chat(1, '?')], [[Image.new('RGB', (1296,968))]])
    assert int(x['image_grid_thw'].prod())//4==88 and x['spatial_images'][0].shape==(1,3,378,518)
    low = Processor(tok, images(), view=(518,14))
    assert tokens(low, (2000,60))==tokens(low, (2000,30))==18  # a strip of one patch, half a token: it is filled up
    with pytest.warns(UserWarning, match='does not see picture 4 of 4'): x = low([low.chat(4, '?')], [[Image.new('RGB', (640,480))]*3+[Image.new('RGB', (2000,30))]])
    assert x['spatial_images'][0].shape==(3,3,378,518) and x['image_grid_thw'][3].tolist()==[1,2,36]

# ---- the official teacher

@pytest.fixture(scope='module')
def official(tmp_path_factory):
    "A small student as the converted official one, and a VGGT for it whose norms have biases"
    root = tmp_path_factory.mktemp('official')
    torch.manual_seed(0)
    net = VGGT(VGGTConfig.nano(patch=14, dim=32, depth=2, nh=2, dpt_dim=8, dpt_channels=(8,8,8,8), camera_nh=2, dpt_down=4))
    for k,p in net.named_parameters():
        if 'norm' in k and 'global' in k: p.data += torch.randn_like(p)
    net.save_pretrained(root/'vggt')
    Spa3R(Spa3RConfig(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=4, geo_channels=64, sem_channels=0, semantic='', **OFFICIAL)).save_pretrained(root/'student')
    return root

RUN = dict(nano=True, steps=1, images=4, images_device=4, v_min=4, v_max=4, grid=2, eval_every=0, quiet=True, device='cpu')

@pytest.mark.parametrize('asked,norm,asymmetric', [({},'rms',False), (dict(norm='layer'),'layer',False), (dict(passes=1),'rms',True), (dict(norm='layer', passes=1),'layer',True)])
@pytest.mark.filterwarnings('ignore:left out by name')
def test_init_from_official_weights_has_the_official_teacher(official, tmp_path, monkeypatch, asked, norm, asymmetric):
    "Norm and passes come from the configuration unless options say otherwise; what is saved says what was done"
    from spa3r.train import pretrain as T
    made = []
    def spy(*args, **kw):
        made.append(load_teacher(*args, **kw))
        return made[-1]
    monkeypatch.setattr(T, 'load_teacher', spy)
    st = pretrain(out=str(tmp_path/'run'), teacher=str(official/'vggt'), init=str(official/'student'), **RUN, **asked)
    (t,) = made
    assert (t.vggt.cfg.global_qk_norm,t.asymmetric)==(norm,asymmetric)
    said = json.loads((tmp_path/'run'/'config.json').read_text(encoding='utf8'))
    assert (said['teacher_norm'],said['asymmetric'])==(norm,asymmetric)==(st.cfg.teacher_norm,st.cfg.asymmetric) and said['note'].startswith('goes on from: official')
    settings = json.loads((tmp_path/'run'/'train.json').read_text(encoding='utf8'))
    assert {k:settings.get(k) for k in asked}==asked
    _,tea,_ = load_student(str(tmp_path/'run'))
    assert (tea.vggt.cfg.global_qk_norm,tea.asymmetric)==(norm,asymmetric)

@pytest.mark.filterwarnings('ignore:left out by name')
def test_the_official_two_passes_without_weights_to_start_from(official, tmp_path):
    st = pretrain(out=str(tmp_path/'run'), teacher=str(official/'vggt'), norm='rms', passes=2, on='all', smooth=True, **RUN)
    assert (st.cfg.teacher_norm,st.cfg.asymmetric)==('rms',False)

def test_ways_of_teaching_are_checked(official, tmp_path):
    assert taught_by('')==dict(teacher_norm='', asymmetric=True) and taught_by(str(official/'student'))==dict(teacher_norm='rms', asymmetric=False)
    for kw,why in ((dict(norm='batch'),'layer or rms'), (dict(passes=3),r'passes 3: a whole number in \[0, 2\]')):
        with pytest.raises(UserError, match=why): pretrain(out=str(tmp_path/'x'), teacher=str(official/'vggt'), **RUN, **kw)
        assert not (tmp_path/'x').exists()
    with pytest.raises(UserError, match='exact teacher has neither'): pretrain(out=str(tmp_path/'x'), passes=2, **RUN)
