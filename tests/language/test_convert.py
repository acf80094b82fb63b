"The official checkpoint: read without running it, sorted by name, and kept with the teacher it belongs to"
import json,pickle,subprocess,sys,types
from pathlib import Path
import pytest,torch
from golden_io import card,golden_dir,load
from safetensors.torch import load_file
from spa3r.language.convert import OFFICIAL,STUDENT,TEACHERS,config_of,convert,fill_vlm,read_checkpoint,student_state,vlm_config,vlm_states
from spa3r.util.core import UserError
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers.teachers import load_student
from spa3r.model.psfm import Spa3R,Spa3RConfig

def inventory(name): return {k:torch.empty(v['shape'], device='meta') for k,v in card(name)['keys'].items()}

# names and shapes at full size

def test_full_size():
    "1914 tensors in, the student's 191 out, their sizes the paper's, every one with a place in ours"
    full,student = inventory('keys_spa3r_lightning_full'),inventory('keys_spa3r_student')
    state = student_state(dict(state_dict=full, epoch=3))
    assert len(full)==1914 and {f'model.{k}' for k in state}==set(student)
    assert config_of(state)==Spa3RConfig()
    with torch.device('meta'): net = Spa3R(config_of(state))
    assert {k:v.shape for k,v in net.state_dict().items()}=={k.removeprefix('model.'):v.shape for k,v in student.items()}
    assert {k.split('.')[1] for k in full}==set(STUDENT)|set(TEACHERS)

def test_flat_state_dict():
    "A bare state dict, without Lightning's frame or its prefix, is the same"
    full = inventory('keys_spa3r_lightning_full')
    bare = {k.removeprefix('model.'):v for k,v in full.items()}
    assert student_state(bare).keys()==student_state(dict(state_dict=full)).keys()

# a small checkpoint with the same names

@pytest.fixture(scope='module')
def tensors():
    "Recorded student and VGGT as the official code saves them: no track head, no biases of the RMS norms, something of DINO"
    student,vggt = load('f_spa3r_student_weights')[0],load('d_vggt_weights')[0]
    vggt = {k:v for k,v in vggt.items() if not ('global_blocks' in k and k.endswith(('q_norm.bias','k_norm.bias')))}
    return {f'model.{k}':v for k,v in (student|vggt|{'dino.cls_token':torch.zeros(1,1,4)}).items()}

def lightning(path, tensors, **more):
    "A file as Lightning writes it"
    torch.save({'epoch':7, 'global_step':80_000, 'pytorch-lightning_version':'2.5.1', 'state_dict':tensors, 'loops':{}, 'callbacks':{},
                'optimizer_states':[], 'lr_schedulers':[], **more}, path)
    return str(path)

def test_convert(tmp_path, tensors, capsys):
    out = convert(lightning(tmp_path/'spa3r.ckpt', tensors), str(tmp_path/'out'))
    said = capsys.readouterr().out
    assert 'left behind' in said and '1 of dino' in said and ' of aggregator' in said and 'of encoder' not in said
    student,state = Spa3R.from_pretrained(out),load('f_spa3r_student_weights')[0]
    assert all(torch.equal(student.state_dict()[k], v) for k,v in state.items()) and len(student.state_dict())==len(state)
    c = student.cfg
    assert (c.dim,c.nh,c.enc_depth,c.dec_depth,c.n_latents,c.n_registers,c.geo_channels,c.sem_channels)==(96,4,2,2,16,4,128,32)
    assert (c.teacher_norm,c.asymmetric,c.teacher)==('rms',False,'facebook/VGGT-1B') and 'smooth L1' in c.note and 'last' in c.note
    assert sorted(p.name for p in out.iterdir())==['config.json','model.safetensors']
    assert not any(k.startswith(('aggregator','dino')) for k in load_file(out/'model.safetensors'))

def test_the_record_chooses_the_teacher(tmp_path, tensors):
    "load_student runs VGGT as the official code ran it: features as recorded with RMS norms, in two passes"
    from test_parity import check,recorded_vggt
    from spa3r.data.batches import Views
    out = convert(lightning(tmp_path/'spa3r.ckpt', tensors), str(tmp_path/'out'))
    recorded_vggt('layer')[0].save_pretrained(tmp_path/'vggt')  # VGGT as published: LayerNorm, with biases
    with pytest.warns(UserWarning, match='k_norm.bias'): student,teacher,_ = load_student(str(out), teacher=str(tmp_path/'vggt'))
    assert teacher.vggt.cfg.global_qk_norm=='rms' and not teacher.asymmetric
    ts,_ = load('f_spa3r_official_rms_sym')
    obs = teacher.observe(Views(ts['images']), ts['view_mask'])
    check('context', obs.ctx, ts['f_ctx'])
    check('targets', obs.feats['geo'], ts['f_tgt'])
    check('latents', student.encode(*teacher.context(Views(ts['images']))), ts['predict_latents_all_views'])

def test_a_student_without_a_record(tmp_path):
    "Weights that say nothing of the norm take the teacher as its own config has it"
    cfg = VGGTConfig.nano(dim=32, global_qk_norm='rms')
    VGGT(cfg).save_pretrained(tmp_path/'teacher')
    Spa3R(Spa3RConfig.nano(geo_channels=64, teacher='teacher', grid=0)).save_pretrained(tmp_path)
    old = json.loads((tmp_path/'config.json').read_text(encoding='utf8'))
    for k in ('teacher_norm','asymmetric','note'): old.pop(k)  # as saved before there was a record
    (tmp_path/'config.json').write_text(json.dumps(old), encoding='utf8')
    _,teacher,_ = load_student(str(tmp_path))
    assert teacher.vggt.cfg.global_qk_norm=='rms' and teacher.asymmetric

@pytest.mark.parametrize('how,said', [('unknown',"'model.extra.w'"), ('renamed','does not fit'), ('missing','does not fit'), ('size','query_embed'), ('shape','does not fit'), ('none','not the student'), ('empty','no state_dict')])
def test_strict(tmp_path, tensors, how, said):
    t = dict(tensors)
    if how=='unknown': t['model.extra.w'] = torch.zeros(1)
    if how=='renamed': t['model.heads.geo.fc1.offset'] = t.pop('model.heads.geo.fc1.bias')
    if how=='missing': t.pop('model.encoder.norm.bias')
    if how=='size': t.pop('model.query_embed.weight')
    if how=='shape': t['model.pose_tokenizer.weight'] = torch.zeros(96, 4)
    if how=='none': t = {k:v for k,v in t.items() if 'aggregator' in k}
    if how=='empty': t = {}
    with pytest.raises(UserError, match=said) as e: convert(lightning(tmp_path/'c.ckpt', t), str(tmp_path/'out'))
    assert '\n' not in str(e.value) and not (tmp_path/'out').exists()

# what else may be in the file

@pytest.fixture
def foreign(monkeypatch):
    "Classes of a package that only the writer of the file has"
    mod = types.ModuleType('their.config')
    class Options(dict): "As Lightning's AttributeDict"
    class Settings: "An ordinary object"
    class Slots:
        "An object that is called with arguments"
        def __init__(self, *a): self.a = a
        def __reduce__(self): return Slots, self.a
    for c in (Options,Settings,Slots):
        c.__module__,c.__qualname__ = 'their.config',c.__name__
        setattr(mod, c.__name__, c)
    monkeypatch.setitem(sys.modules, 'their', types.ModuleType('their'))
    monkeypatch.setitem(sys.modules, 'their.config', mod)
    return mod

def hyper(mod):
    s = mod.Settings()
    s.lr,s.betas = 2e-3,(.9,.95)
    return mod.Options(lr=2e-3, model=s, where=mod.Slots('here', 3), nested=mod.Options(x=[mod.Options(y=1)]))

def test_foreign_classes(tmp_path, tensors, foreign, monkeypatch):
    "Named, refused, and after the user's word replaced by stubs; the package itself is never looked for"
    f = lightning(tmp_path/'c.ckpt', tensors, hyper_parameters=hyper(foreign))
    monkeypatch.delitem(sys.modules, 'their.config')
    names = ['their.config.Options','their.config.Settings','their.config.Slots']
    with pytest.raises(UserError, match=','.join(names)) as e: convert(f, str(tmp_path/'out'))
    assert 'Nothing of it was run' in str(e.value) and not (tmp_path/'out').exists()
    with pytest.raises(UserError, match=r'more than tensors: their.config.Slots\.'): convert(f, str(tmp_path/'out'), allow=','.join(names[:2]))
    out = convert(f, str(tmp_path/'out'), allow=','.join(names))
    assert len(load_file(out/'model.safetensors'))==len(load('f_spa3r_student_weights')[0])
    assert 'their.config' not in sys.modules
    from torch.serialization import get_safe_globals
    assert not any('their' in str(o) for o in get_safe_globals()), 'the stubs outlive their file'

class Evil:
    def __init__(self, f, *args): self.f,self.args = f,args
    def __reduce__(self): return self.f,self.args

@pytest.mark.parametrize('f', [eval,exec,__import__('os').system])
def test_nothing_runs(tmp_path, tensors, f):
    "Code in the file is refused; allowed, it is a stub that does nothing"
    trace = tmp_path/'trace'
    code = f'touch {trace}' if 'system' in f.__name__ else f'open({str(trace)!r}, "w")'
    path = lightning(tmp_path/'c.ckpt', tensors, hyper_parameters=Evil(f, code))
    with pytest.raises(UserError): read_checkpoint(path)
    from torch.serialization import get_unsafe_globals_in_checkpoint
    names = get_unsafe_globals_in_checkpoint(path)
    try: read_checkpoint(path, names)
    except UserError as e: assert 'blocked' in str(e)  # the operating system's names not even as stubs
    assert not trace.exists()
    torch.load(path, weights_only=False)
    assert trace.exists(), 'this file does no harm, so the test proves nothing'

@pytest.mark.parametrize('content', [b'', b'some text', pickle.dumps({'state_dict':{}}), b'PK\x03\x04 half a zip'])
def test_not_a_checkpoint(tmp_path, content):
    (tmp_path/'c.ckpt').write_bytes(content)
    with pytest.raises(UserError, match='cannot be read as a checkpoint') as e: convert(str(tmp_path/'c.ckpt'), str(tmp_path/'out'))
    assert '\n' not in str(e.value)

def test_paths(tmp_path, tensors):
    with pytest.raises(UserError, match='No file'): convert(str(tmp_path/'none.ckpt'), str(tmp_path/'out'))
    (tmp_path/'taken').write_text('', encoding='utf8')
    with pytest.raises(UserError, match='Cannot write'): convert(lightning(tmp_path/'c.ckpt', tensors), str(tmp_path/'taken'))

def test_truncated(tmp_path, tensors):
    f = Path(lightning(tmp_path/'c.ckpt', tensors))
    f.write_bytes(f.read_bytes()[:f.stat().st_size//2])
    with pytest.raises(UserError, match='cannot be read'): convert(str(f), str(tmp_path/'out'))

def test_shipped_weights_still_load():
    for name in ('exact','nano'): assert load_student(name)[0].cfg.asymmetric

def test_command(tmp_path, tensors):
    "As a command: exit 0 and a folder; a refusal is one line and exit 2"
    exe = Path(sys.executable).parent/'spa3r_convert'
    f = lightning(tmp_path/'c.ckpt', tensors)
    r = subprocess.run([exe, f, '--out', tmp_path/'out'], capture_output=True, encoding='utf8')
    assert r.returncode==0 and (tmp_path/'out'/'config.json').exists(), r.stderr
    assert json.loads((tmp_path/'out'/'config.json').read_text(encoding='utf8')).items()>=OFFICIAL.items()
    r = subprocess.run([exe, tmp_path/'nothing.ckpt'], capture_output=True, encoding='utf8')
    assert r.returncode==2 and len(r.stderr.strip().splitlines())==1 and 'No file' in r.stderr

# the whole Spa3-VLM

def old_names(state):
    "Qwen2.5-VL as transformers 4.50 wrote it"
    return {k.replace('model.visual.', 'visual.').replace('model.language_model.', 'model.'):v for k,v in state.items()}

def qwen_3b():
    "Qwen2.5-VL-3B on the meta device"
    from transformers import Qwen2_5_VLConfig,Qwen2_5_VLForConditionalGeneration
    text = dict(vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2)
    cfg = Qwen2_5_VLConfig(text_config=text, vision_config=dict(hidden_size=1280, out_hidden_size=2048), tie_word_embeddings=True)
    with torch.device('meta'): return cfg,Qwen2_5_VLForConditionalGeneration(cfg)

@pytest.fixture(scope='module')
def full_size():
    "Names and shapes of the official Spa3-VLM: a 3B under its old names, the adapter, and the whole Spa3R"
    cfg,net = qwen_3b()
    base = old_names({k:v for k,v in net.state_dict().items() if k!='lm_head.weight'})  # tied, hence not written
    frozen = card('keys_spa3_vlm_adapter')['frozen_geometry_encoder']
    spatial = {k.replace('model.', frozen['prefix'], 1):v for k,v in inventory('keys_spa3r_lightning_full').items()}
    assert len(spatial)==frozen['n_tensors'] and sum(v.numel() for v in spatial.values())==frozen['n_values']
    return cfg,base,inventory('keys_spa3_vlm_adapter'),spatial

def test_vlm_at_full_size(full_size):
    "Every tensor of the inventory has its place in ours, and ours has no other"
    cfg,base,adapter,spatial = full_size
    assert len(base)==824 and sum(v.numel() for v in base.values())==3_754_622_976 and {k.split('.')[0] for k in base}=={'visual','model'}
    state,student = vlm_states(base|adapter|spatial)
    assert len(state)==824+24 and {f'model.{k}' for k in student}==set(inventory('keys_spa3r_student'))
    ours = vlm_config(cfg.to_dict(), config_of(student))
    assert (ours.latent_dim,ours.n_latents,ours.spatial_width,ours.spatial_patch,ours.spatial_rows,ours.eye_pixels,ours.fusion)==(768,256,518,14,'round',0,'cross')
    model = fill_vlm(ours, state)
    assert model.lm_head.weight is model.model.language_model.embed_tokens.weight
    assert {k:v.shape for k,v in model.state_dict().items() if k!='lm_head.weight'}=={k:v.shape for k,v in state.items()}
    assert sum(p.numel() for p in model.parameters())==3_754_622_976+28_857_344

@pytest.mark.parametrize('how,said', [('unknown','no tensor of the official'), ('renamed','does not fit'), ('missing','does not fit'), ('shape','does not fit'), ('encoder','is missing')])
def test_vlm_at_full_size_is_strict(full_size, how, said):
    cfg,base,adapter,spatial = full_size
    t = base|adapter|spatial
    if how=='unknown': t['geometry_norm.weight'] = t['ln.weight']
    if how=='renamed': t['geometry_gate.1.weight'] = t.pop('geometry_gate.0.weight')
    if how=='missing': t.pop('visual.blocks.31.attn.qkv.bias')
    if how=='shape': t['ln.bias'] = torch.empty(7, device='meta')
    if how=='encoder': t.pop('geometry_encoder.spa3r.query_embed.weight')
    with pytest.raises(UserError, match=said):
        state,student = vlm_states(t)
        fill_vlm(vlm_config(cfg.to_dict(), config_of(student)), state)

@pytest.fixture
def official_vlm(tmp_path, tensors):
    "A small Spa3-VLM under the official names, in two pieces: the recorded adapter, student and VGGT, and a Qwen of their width"
    from tiny_qwen import base,images,tokenizer
    from safetensors.torch import save_file
    folder,tok = tmp_path/'spa3_vlm',tokenizer()
    net = base('qwen2_5_vl', tok)
    net.config.save_pretrained(folder)
    for o in (tok,images()): o.save_pretrained(folder)
    adapter = {k.removeprefix('w.'):v for k,v in load('g_vlm_adapter')[0].items() if k.startswith('w.')}
    spatial = {k.replace('model.', 'geometry_encoder.spa3r.', 1):v for k,v in tensors.items()}
    save_file({k:v.clone() for k,v in old_names(net.state_dict()).items()}, folder/'model-00001-of-00002.safetensors', metadata={'format':'pt'})
    save_file({k:v.clone() for k,v in (adapter|spatial).items()}, folder/'model-00002-of-00002.safetensors', metadata={'format':'pt'})
    return folder,net

def test_convert_vlm(tmp_path, official_vlm, capsys):
    "The converted model gives the recorded fusion, from pictures to fused tokens, and the Qwen in it is untouched"
    from test_parity import check,recorded_vggt
    from transformers import AutoModelForImageTextToText
    from transformers.modeling_outputs import BaseModelOutputWithPooling
    from spa3r.language.chat import load_chat
    from spa3r.language.vlm import SpatialEncoder
    from tiny_qwen import picture
    folder,net = official_vlm
    out = convert(str(folder), str(tmp_path/'out'))
    said = capsys.readouterr().out
    assert 'of aggregator' in said and '1 of dino' in said and '24' not in said.split('left')[1]
    m = AutoModelForImageTextToText.from_pretrained(out).eval()
    assert all(torch.equal(v, m.state_dict()[k]) for k,v in net.state_dict().items())
    recorded_vggt('layer')[0].save_pretrained(tmp_path/'vggt')
    with pytest.warns(UserWarning, match='k_norm.bias'): encoder = SpatialEncoder.from_pretrained(str(out/'spatial'), teacher=str(tmp_path/'vggt'))
    assert (encoder.cfg.teacher_norm,encoder.cfg.asymmetric,encoder.teacher.vggt.cfg.global_qk_norm)==('rms',False,'rms')
    assert json.loads((out/'spatial/config.json').read_text(encoding='utf8')).items()>=(OFFICIAL|dict(teacher='facebook/VGGT-1B')).items()
    assert not any(k.startswith(('decoder','heads','aggregator')) for k in load_file(out/'spatial/model.safetensors'))
    m.model.attach(encoder)
    ts,_ = load('g_vlm_adapter')
    tokens = (ts['image_embeds'],ts['image_embeds_b1'])
    seen = BaseModelOutputWithPooling(last_hidden_state=torch.zeros(4*88, 1), pooler_output=tokens)
    with torch.no_grad(): got = m.model.see(seen, list(ts['images']), None, [1,1]).pooler_output
    check('fused', got[0], ts['fused'])
    check('fused in a batch', torch.cat(got), ts['fused_batch2_per_sample'])
    c = load_chat(str(out), tokens=4)
    c.model.model.attach(encoder)
    c.processor.view = (56,14)
    pics = [picture(0),picture(1)]
    assert c.ask(c.watch(pics), ['Chairs?'])==[c.answer(pics, 'Chairs?')]

def test_vlm_folders_that_are_none(tmp_path, official_vlm):
    folder,_ = official_vlm
    (tmp_path/'empty').mkdir()
    with pytest.raises(UserError, match='No .safetensors'): convert(str(tmp_path/'empty'), str(tmp_path/'out'))
    (folder/'model-00002-of-00002.safetensors').write_bytes(b'x'*20)
    with pytest.raises(UserError, match='cannot be read'): convert(str(folder), str(tmp_path/'out'))
    (folder/'config.json').unlink()
    (folder/'model-00002-of-00002.safetensors').unlink()
    with pytest.raises(UserError, match='no state_dict'): convert(str(folder), str(tmp_path/'out'))
    assert not (tmp_path/'out').exists()
