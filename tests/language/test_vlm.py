"Spa3-VLM on tiny Qwens: the base model to the last bit at the start, each scene by itself, and all that transformers expects of a model"
import json,shutil
from copy import deepcopy
import pytest,torch
from safetensors import safe_open
from safetensors.torch import load_file,save_file
from transformers import AutoConfig,AutoModel,AutoModelForImageTextToText,Qwen2Config,Trainer,TrainingArguments
from tiny_qwen import BASES,base,encoder,folders,images,picture,tokenizer,wake
from spa3r.util.core import UserError
from spa3r.teachers.teachers import load_student
from spa3r.model.psfm import Spa3R
from spa3r.data.scenes import resize_view,stack_views
from spa3r.data.batches import Views
from spa3r.language.vlm import BASES as OURS,INPUTS,Processor,SpatialEncoder,Spa3Qwen2_5VL,from_qwen,processor_fields,spatial_fields

kinds = pytest.mark.parametrize('kind', BASES)
SCENES = [[picture(0),picture(1, 112, 84)], [picture(2)], [picture(3, 56, 56),picture(4),picture(5, 112, 112)]]
FILMS = [[picture(30+i*9+j) for j in range(n)] for i,n in enumerate((2,1,5))]
TEXTS = ['How many chairs?','Which of them is the nearest to the door?','Tables?']

@pytest.fixture(scope='module')
def tok(): return tokenizer()

@pytest.fixture(scope='module')
def there(tmp_path_factory): return folders(tmp_path_factory.mktemp('qwens'))

def made(there, kind, fusion='cross', awake=True, **kw):
    torch.manual_seed(0)
    m = from_qwen(str(there/kind), str(there/'spatial'), fusion, **kw)
    return wake(m) if awake and fusion!='none' else m

def prepare(m, tok, scenes=None, texts=TEXTS, fps=None, **kw):
    scenes = scenes or (FILMS if fps else SCENES)
    p = Processor(tok, images(), **processor_fields(m.config))
    return p([p.chat(len(s), t, video=bool(fps)) for s,t in zip(scenes, texts)], scenes, fps, **kw)

def plain(x): return {k:v for k,v in x.items() if k not in INPUTS}
def logits(m, x, **kw):
    with torch.no_grad(): return m(**x, **kw).logits

# identity at the start

@kinds
@pytest.mark.parametrize('fps', [None,2.])
def test_the_base_model_to_the_last_bit(there, tok, kind, fps):
    m,b = made(there, kind, awake=False),base(kind, tok)
    x = prepare(m, tok, fps=fps)
    assert torch.equal(logits(m, x), logits(b, plain(x)))
    assert torch.equal(m.generate(**x, max_new_tokens=6, do_sample=False), b.generate(**plain(x), max_new_tokens=6, do_sample=False))
    assert (logits(wake(m), x)-logits(b, plain(x))).abs().max()>.1

@kinds
def test_also_in_bfloat16(there, tok, kind):
    m,b = made(there, kind, awake=False, dtype=torch.bfloat16),AutoModelForImageTextToText.from_pretrained(there/kind, dtype=torch.bfloat16).eval()
    x = prepare(m, tok)
    assert m.dtype==torch.bfloat16 and torch.equal(logits(m, x), logits(b, plain(x)))

@kinds
def test_also_built_from_a_configuration(tok, there, kind):
    "and saved and loaded before any training, and when a checkpoint holds no adapter"
    cfg = made(there, kind).config
    torch.manual_seed(0)
    m = OURS[kind](cfg).eval()
    last = m.model.adapter.geometry_adaptor[-1]
    assert not last.weight.any() and not last.bias.any() and m.model.adapter.geometry_adaptor[0].weight.any()
    m.model.attach(encoder())
    x = prepare(m, tok)
    m.config.fusion,want = 'none',logits(m, x)
    m.config.fusion,got = 'cross',logits(m, x)
    assert not torch.equal(want, logits(wake(m), x)) and torch.equal(want, got)

def test_a_checkpoint_without_an_adapter(there, tok, tmp_path):
    "What is missing is initialised, and still says nothing; what is there is kept"
    m = made(there, 'qwen2_5_vl')
    m.save_pretrained(tmp_path)
    f = tmp_path/'model.safetensors'
    whole = load_file(f)
    save_file({k:v for k,v in whole.items() if 'adapter' not in k}, f, metadata={'format':'pt'})
    again,x = Spa3Qwen2_5VL.from_pretrained(tmp_path).eval(),prepare(m, tok)
    assert torch.equal(logits(again, x), logits(base('qwen2_5_vl', tok), plain(x)))
    save_file({k:v for k,v in whole.items() if 'geometry_gate' not in k}, f, metadata={'format':'pt'})
    again = Spa3Qwen2_5VL.from_pretrained(tmp_path)
    assert torch.equal(again.model.adapter.geometry_adaptor[-1].weight, m.model.adapter.geometry_adaptor[-1].weight)

# scenes of a batch

@kinds
@pytest.mark.parametrize('fusion', ['cross','append'])
@pytest.mark.parametrize('fps', [None,2.])
def test_each_scene_by_itself(there, tok, kind, fusion, fps):
    "In a batch as alone, whatever the number of views"
    m = made(there, kind, fusion)
    scenes = FILMS if fps else SCENES
    got,out = logits(m, prepare(m, tok, fps=fps)),m.generate(**prepare(m, tok, fps=fps), max_new_tokens=6, do_sample=False)
    for i in range(3):
        x = prepare(m, tok, scenes[i:i+1], TEXTS[i:i+1], fps)
        alone = logits(m, x)[0]
        torch.testing.assert_close(got[i,-len(alone):], alone, rtol=0, atol=2e-4)
        mine = m.generate(**x, max_new_tokens=6, do_sample=False)[0,x['input_ids'].shape[1]:]
        assert torch.equal(out[i,-6:][:len(mine)], mine)

@kinds
def test_another_scene_changes_no_bit(there, tok, kind):
    m = made(there, kind)
    x = prepare(m, tok)
    y = dict(x, spatial_images=[*x['spatial_images'][:2], 1-x['spatial_images'][2]])
    a,b = logits(m, x),logits(m, y)
    assert torch.equal(a[:2], b[:2]) and not torch.equal(a[2], b[2])

@kinds
def test_pictures_and_a_video_in_one_batch(there, tok, kind):
    "Scenes of either kind, side by side, as alone"
    m = made(there, kind)
    p = Processor(tok, images(), **processor_fields(m.config))
    film = [picture(20+i) for i in range(4)]
    a,b = p([p.chat(2, 'Chairs?')], SCENES[:1]),p([p.chat(1, 'Chairs?', video=True)], [film], fps=2.)
    n = max(a['input_ids'].shape[1], b['input_ids'].shape[1])
    rows = {k:torch.cat([torch.nn.functional.pad(o[k], (n-o[k].shape[1],0)) for o in (a,b)]) for k in ('input_ids','attention_mask','mm_token_type_ids')}
    both = {**a,**b,**rows, 'spatial_images':a['spatial_images']+b['spatial_images'], 'images_per_scene':torch.tensor([2,0]), 'videos_per_scene':torch.tensor([0,1])}
    got = logits(m, both)
    for row,x in zip(got, (a,b)):
        alone = logits(m, x)[0]
        torch.testing.assert_close(row[-len(alone):], alone, rtol=0, atol=2e-4)

@kinds
def test_words_alone(there, tok, kind):
    m,b,x = made(there, kind),base(kind, tok),tok(['How many chairs?'], return_tensors='pt')
    assert torch.equal(logits(m, x), logits(b, x))

# what goes in

@kinds
@pytest.mark.parametrize('fusion', ['cross','append'])
def test_latents_in_place_of_pictures(there, tok, kind, fusion):
    m = made(there, kind, fusion)
    x = prepare(m, tok)
    latents = torch.stack([m.model.encoder()(o) for o in x['spatial_images']])
    y = {k:v for k,v in x.items() if k!='spatial_images'}
    assert torch.equal(logits(m, x), logits(m, dict(y, latents=latents))) and torch.equal(logits(m, x), logits(m, dict(y, latents=list(latents))))
    told = prepare(m, tok, latents=latents)
    assert told.keys()==y.keys()|{'latents'} and torch.equal(logits(m, x), logits(m, told))
    assert torch.equal(m.generate(**x, max_new_tokens=6, do_sample=False), m.generate(**y, latents=latents, max_new_tokens=6, do_sample=False))

def test_mistakes_are_named(there, tok):
    m = made(there, 'qwen2_5_vl')
    x = prepare(m, tok)
    y = {k:v for k,v in x.items() if k!='spatial_images'}
    z = torch.zeros(3, 6, 32)
    for bad,said in ((y,'looks at a scene twice'), (dict(x, latents=z),'looks at a scene twice'), (dict(y, latents=z[:2]),'2 scenes, but images of 3'),
                     (dict(y, latents=z, images_per_scene=torch.tensor([1,1,1])),'6 images'), (dict(x, spatial_images=x['spatial_images'][:2]),'spatial images of 2 scenes, but images of 3'),
                     (dict(x, spatial_images=[o[...,:-1] for o in x['spatial_images']]),'14-pixel patches')):
        with pytest.raises(ValueError, match=said): logits(m, bad)
    with pytest.raises(ValueError, match='spatial_imges'): m.generate(**y, spatial_imges=x['spatial_images'], max_new_tokens=2)
    with pytest.raises(UserError, match='6 latents of width 16, this model was built for 6 of 32'): m.model.attach(encoder(m=6, dim=16))

@kinds
@pytest.mark.parametrize('fusion', ['none','cross','append'])
def test_three_fusions(there, tok, kind, fusion):
    "None is the base model; appended latents are the last tokens before the question, in one dimension, unseen by deeper layers"
    m,b = made(there, kind, fusion),base(kind, tok)
    x = prepare(m, tok)
    assert ('spatial_images' in x)==(fusion!='none')
    if fusion=='none':
        assert torch.equal(logits(m, x), logits(b, plain(x))) and not list(m.model.adapter.parameters())
        return
    out = m.model.get_image_features(**{k:x[k] for k in ('pixel_values','image_grid_thw','spatial_images','images_per_scene')})
    want = b.model.get_image_features(x['pixel_values'], x['image_grid_thw'])
    sizes,slots = [len(o) for o in want.pooler_output],6*(fusion=='append')
    assert [len(o) for o in out.pooler_output]==(sizes if not slots else [*sizes[:2],6,sizes[2],6,*sizes[3:],6])
    if slots:
        kept = [o for i,o in enumerate(out.pooler_output) if i not in (2,4,8)]
        assert all(torch.equal(a, b) for a,b in zip(kept, want.pooler_output))
        pos,_ = m.model.get_rope_index(**{k:x[k] for k in ('input_ids','mm_token_type_ids','image_grid_thw','attention_mask')})
        at = (x['input_ids'][0]==tok.convert_tokens_to_ids('<|image_pad|>')).nonzero()[-6:,0]
        assert (pos[:,0,at]==pos[0,0,at]).all() and (pos[0,0,at].diff()==1).all()
    if kind=='qwen3_vl':
        for a,b in zip(out.deepstack_features, want.deepstack_features):
            a = torch.cat(a)
            assert torch.equal(a[a.abs().sum(1)>0], torch.cat(b)) and (a.abs().sum(1)==0).sum()==3*slots

@kinds
def test_any_features_may_answer(there, tok, kind):
    "A teacher's features in place of latents, another number for each scene"
    m = made(there, kind)
    y = {k:v for k,v in prepare(m, tok).items() if k!='spatial_images'}
    z = [torch.randn(n, 32) for n in (16,8,24)]
    assert not torch.equal(logits(m, dict(y, latents=z)), logits(m, dict(y, latents=[o.flip(1) for o in z])))

@kinds
@pytest.mark.parametrize('dim,nh', [(96,6),(32,2)])
def test_any_base_size(tok, tmp_path, there, kind, dim, nh):
    base(kind, tok, hidden_size=dim, num_attention_heads=nh, head_dim=16).save_pretrained(tmp_path)
    m = from_qwen(str(tmp_path), str(there/'spatial'))
    assert logits(wake(m), prepare(m, tok)).isfinite().all() and m.model.adapter.geom_cross_attention.nh==nh

# the spatial encoder

def test_encoder_is_the_students(tmp_path):
    "The shipped student's latents; only what encoding needs is there, and written"
    enc,(student,teacher,folder) = SpatialEncoder.from_pretrained('nano'),load_student('nano')
    imgs = torch.rand(3, 3, 112, 112)
    assert torch.equal(enc(imgs), student.encode(*teacher.context(Views(imgs[None])))[0])
    names = {k.split('.')[0]+'.'+k.split('.')[1] for k,_ in enc.named_parameters()}
    assert names=={'student.bottleneck','teacher.vggt'} and not any('head' in k for k,_ in enc.named_parameters())
    enc.save_pretrained(tmp_path)
    with safe_open(tmp_path/'model.safetensors', 'pt') as f: assert {k.split('.')[0] for k in f.keys()}<={'projection','query_embed','encoder','geo_mean','geo_std'}
    again = SpatialEncoder.from_pretrained(str(tmp_path))
    assert torch.equal(again(imgs), enc(imgs)) and sum(p.numel() for p in again.parameters())==sum(p.numel() for p in enc.parameters())
    assert spatial_fields(again)==dict(latent_dim=128, n_latents=64, spatial_width=enc.view[0], spatial_patch=enc.view[1])

def test_encoder_is_strict(tmp_path):
    encoder().save_pretrained(tmp_path)
    f = tmp_path/'model.safetensors'
    whole = load_file(f)
    for state in ({k:v for k,v in whole.items() if k!='query_embed.weight'}, whole|{'extra.weight':torch.zeros(1)}):
        save_file(state, f)
        with pytest.raises(UserError, match='query_embed|extra'): SpatialEncoder.from_pretrained(str(tmp_path))
    with pytest.raises(UserError, match='do not fit|No weights'): SpatialEncoder.from_pretrained(str(tmp_path/'teacher'))
    with pytest.raises(UserError, match='looks at rooms'): SpatialEncoder.from_pretrained('exact').view

@kinds
def test_encoder_is_no_part_of_the_model(there, tok, kind):
    "Neither a cast nor training mode reaches it; it is in no state dict, and frozen"
    m = made(there, kind)
    x = prepare(m, tok)
    want = [m.model.encoder()(o) for o in x['spatial_images']]
    m = m.bfloat16().train()
    enc = m.model.encoder()
    assert all(p.dtype==torch.float32 and not p.requires_grad for p in enc.parameters()) and not any(o.training for o in enc.modules())
    with torch.autocast('cpu', torch.bfloat16): assert all(torch.equal(a, enc(o)) for a,o in zip(want, x['spatial_images']))
    assert not any('spatial' in k or 'teacher' in k for k in m.state_dict()) and not any('spatial' in k for k,_ in m.named_parameters())
    m(**x, labels=x['input_ids']).loss.backward()
    assert all(p.grad is None for p in enc.parameters()) and all(p.grad is not None for p in m.model.adapter.parameters())

def test_encoder_has_a_dtype_of_its_own(there):
    enc = SpatialEncoder.from_pretrained(str(there/'spatial'), dtype=torch.bfloat16)
    assert {p.dtype for n,p in enc.teacher.named_parameters() if n.endswith('qkv.weight')}=={torch.bfloat16}
    assert {p.dtype for p in enc.student.parameters()}=={torch.float32} and enc(torch.rand(2,3,28,56)).dtype==torch.float32

def test_the_same_views_in_its_own_size(there, tok):
    m = made(there, 'qwen2_5_vl')
    x = prepare(m, tok)
    for got,pics in zip(x['spatial_images'], SCENES): assert torch.equal(got, stack_views([resize_view(p, 56, 14) for p in pics]))
    assert x['images_per_scene'].tolist()==[2,1,3] and [len(o) for o in x['spatial_images']]==[2,1,3]

# what transformers expects

@kinds
@pytest.mark.parametrize('fps', [None,2.])
def test_generate_looks_once_and_its_cache_is_right(there, tok, kind, fps):
    m = made(there, kind)
    x,looks = prepare(m, tok, fps=fps),[]
    m.model.visual.register_forward_hook(lambda *a: looks.append('eye'))
    m.model.spatial.register_forward_hook(lambda *a: looks.append('space'))
    got = m.generate(**x, max_new_tokens=6, do_sample=False, output_logits=True, return_dict_in_generate=True)
    assert looks.count('eye')==1 and looks.count('space')==3
    n = x['input_ids'].shape[1]
    ids,mask = got.sequences[:,:-1],torch.nn.functional.pad(x['attention_mask'], (0,got.sequences.shape[1]-1-n), value=1)
    types = torch.nn.functional.pad(x['mm_token_type_ids'], (0,ids.shape[1]-n))
    full = logits(m, dict(x, input_ids=ids, attention_mask=mask, mm_token_type_ids=types))[:,n-1:]
    done = (got.sequences[:,n:-1]==tok.eos_token_id).cumsum(1)>0  # after its end a row is filled up
    for i,l in enumerate(got.logits):
        going = torch.ones(3, dtype=torch.bool) if i==0 else ~done[:,i-1]
        torch.testing.assert_close(l[going], full[going,i], rtol=0, atol=3e-4)

@kinds
def test_beams(there, tok, kind):
    m = made(there, kind)
    kw = dict(max_new_tokens=4, do_sample=False, num_beams=3)
    x = prepare(m, tok)
    got = m.generate(**x, **kw)[:,x['input_ids'].shape[1]:]
    for i in range(3):
        y = prepare(m, tok, SCENES[i:i+1], TEXTS[i:i+1])
        mine = m.generate(**y, **kw)[0,y['input_ids'].shape[1]:]
        assert torch.equal(got[i,:len(mine)], mine)

@kinds
@pytest.mark.parametrize('fusion', ['cross','append'])
def test_gradient_checkpointing(there, tok, kind, fusion):
    m = made(there, kind, fusion).train()
    x,grads = prepare(m, tok),[]
    for on in (False,True):
        if on: m.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=False))
        m.zero_grad()
        m(**x, labels=x['input_ids'], use_cache=False).loss.backward()
        grads.append({k:p.grad.clone() for k,p in m.named_parameters() if p.grad is not None})
    assert grads[0].keys()==grads[1].keys() and any('adapter' in k for k in grads[0])
    for k,g in grads[0].items(): torch.testing.assert_close(g, grads[1][k], rtol=1e-4, atol=1e-6, msg=k)

@kinds
def test_sdpa(there, tok, kind):
    "The default, and equal to attention written out"
    a,b = made(there, kind),made(there, kind, attn_implementation='eager')
    assert a.config._attn_implementation=='sdpa' and b.config._attn_implementation=='eager'
    x = prepare(a, tok)
    real = x['attention_mask']>0
    torch.testing.assert_close(logits(a, x)[real], logits(b, x)[real], rtol=0, atol=3e-4)

@kinds
@pytest.mark.parametrize('fusion', ['cross','append'])
def test_saved_loaded_moved(there, tok, tmp_path, kind, fusion):
    "By AutoModel, with the spatial encoder beside it, from wherever the folder is taken; and saved from there again"
    m = made(there, kind, fusion)
    x = prepare(m, tok)
    m.save_pretrained(tmp_path/'a')
    shutil.move(tmp_path/'a', tmp_path/'b')
    again = AutoModelForImageTextToText.from_pretrained(tmp_path/'b')
    assert type(again) is type(m) and type(AutoConfig.from_pretrained(tmp_path/'b')) is type(m.config) and again.model.spatial is None
    assert all(torch.equal(v, again.state_dict()[k]) for k,v in m.state_dict().items()) and again.state_dict().keys()==m.state_dict().keys()
    again.save_pretrained(tmp_path/'c')
    shutil.rmtree(tmp_path/'b')
    third = AutoModelForImageTextToText.from_pretrained(tmp_path/'c')
    for o in (again,third): assert torch.equal(logits(o, x), logits(m, x))
    inner = AutoModel.from_pretrained(tmp_path/'c')
    assert type(inner) is type(m.model) and torch.equal(inner(**x).last_hidden_state, m.model(**x).last_hidden_state)
    with safe_open(tmp_path/'c/model.safetensors', 'pt') as f: names = set(f.keys())
    assert {k for k in names if 'adapter' in k}=={f'model.adapter.{k}' for k in m.model.adapter.state_dict()}
    p = Processor.from_pretrained(str(there/kind))
    p.save_pretrained(tmp_path/'c')
    q = Processor.from_pretrained(str(tmp_path/'c'), max_pixels=56*56)
    assert (q.view,q.slots,q.stamps,q.pixels)==((56,14,'floor'),6*(fusion=='append'),kind=='qwen3_vl',56*56) and q.images.size['longest_edge']==56*56
    assert q.chat(2, 'Hm?')==Processor(tok, images()).chat(2, 'Hm?')

@kinds
def test_a_saved_model_says_how_to_load_it(there, tok, tmp_path, kind):
    m = made(there, kind)
    m.save_pretrained(tmp_path)
    how,load = json.loads((tmp_path/'config.json').read_text(encoding='utf8'))['load_with'].split('; ')
    names = dict(FOLDER=tmp_path)
    exec(how, names)
    again = eval(load, names)
    x = prepare(m, tok)
    assert type(again) is type(m) and torch.equal(logits(again, x), logits(m, x))

def test_names_of_older_files(there, tok, tmp_path):
    "Qwen2.5-VL as it is on the hub: visual.*, model.*, lm_head"
    shutil.copytree(there/'qwen2_5_vl', tmp_path/'old')
    f = tmp_path/'old/model.safetensors'
    state = {k.replace('model.visual.','visual.').replace('model.language_model.','model.'):v for k,v in load_file(f).items()}
    assert {k.split('.')[0] for k in state}=={'visual','model','lm_head'}
    save_file(state, f, metadata={'format':'pt'})
    m = from_qwen(str(tmp_path/'old'), str(there/'spatial'))
    x = prepare(m, tok)
    assert torch.equal(logits(m, x), logits(base('qwen2_5_vl', tok), plain(x)))
    wake(m).save_pretrained(tmp_path/'new')
    again = Spa3Qwen2_5VL.from_pretrained(tmp_path/'new')
    assert torch.equal(logits(again, x), logits(m, x))

def test_a_base_that_does_not_fit(there, tmp_path):
    shutil.copytree(there/'qwen2_5_vl', tmp_path/'bad')
    f = tmp_path/'bad/model.safetensors'
    state = load_file(f)
    save_file({k:v for k,v in state.items() if 'lm_head' not in k}, f, metadata={'format':'pt'})
    with pytest.raises(UserError, match='lm_head'): from_qwen(str(tmp_path/'bad'), '')
    save_file(state|{'more':torch.zeros(1)}, f, metadata={'format':'pt'})
    with pytest.raises(UserError, match='more'): from_qwen(str(tmp_path/'bad'), '')
    Qwen2Config().save_pretrained(tmp_path/'words')
    with pytest.raises(UserError, match='is a qwen2: a Spa3-VLM is built on one of'): from_qwen(str(tmp_path/'words'), '')

def test_without_an_encoder(there, tok):
    m = from_qwen(str(there/'qwen2_5_vl'), '')
    m2 = made(there, 'qwen2_5_vl')
    with pytest.raises(UserError, match='no spatial encoder'): logits(m, prepare(m2, tok))

@kinds
def test_trainer(there, tok, tmp_path, kind):
    "Two steps, a checkpoint, and two more from it: as four in a row; what is frozen stays"
    def batch(rows):
        x = prepare(m, tok, [SCENES[i] for i in rows], [TEXTS[i] for i in rows], padding='right')
        return dict(x, labels=x['input_ids'].masked_fill(x['attention_mask']==0, -100))
    def run(m, out, steps, resume=None):
        m.model.visual.requires_grad_(False)
        args = TrainingArguments(output_dir=str(out), max_steps=steps, per_device_train_batch_size=2, save_steps=2, learning_rate=1e-2, lr_scheduler_type='constant',
            use_cpu=True, report_to=[], disable_tqdm=True, remove_unused_columns=False, seed=0, gradient_checkpointing=True)
        t = Trainer(m, args, train_dataset=[0,1,2,1,0,2,2,1], data_collator=batch)
        t.train(resume_from_checkpoint=resume)
        return m
    m = made(there, kind, awake=False)
    before = deepcopy({k:v for k,v in m.state_dict().items()})
    enc = [p.clone() for p in m.model.spatial.parameters()]
    whole = run(m, tmp_path/'a', 4).state_dict()
    assert all(torch.equal(a, b) for a,b in zip(enc, m.model.spatial.parameters()))
    for k,v in whole.items(): assert torch.equal(v, before[k])==('.visual.' in k), k
    part = made(there, kind, awake=False)
    run(part, tmp_path/'b', 2)
    resumed = run(made(there, kind, awake=False), tmp_path/'b', 4, str(tmp_path/'b/checkpoint-2')).state_dict()
    for k,v in whole.items(): torch.testing.assert_close(v, resumed[k], rtol=0, atol=1e-6, msg=k)
    again = AutoModelForImageTextToText.from_pretrained(tmp_path/'a/checkpoint-4').eval()
    x = prepare(m, tok)
    assert torch.equal(logits(again, x), logits(m.eval(), x))

# pictures and words

def official(kind, tok):
    "transformers' processor without its videos, which need torchvision"
    from transformers import Qwen2_5_VLProcessor,Qwen3VLProcessor
    from transformers.processing_utils import ProcessorMixin
    class Images(Qwen3VLProcessor if kind=='qwen3_vl' else Qwen2_5_VLProcessor):
        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kw):
            for k in ('image','video'):
                setattr(self, f'{k}_token', f'<|{k}_pad|>')
                setattr(self, f'{k}_token_id', tokenizer.convert_tokens_to_ids(f'<|{k}_pad|>'))
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
    return Images(images(), tok, chat_template=tok.chat_template)

@kinds
def test_as_the_processor_of_transformers(tok, kind):
    theirs,p = official(kind, tok),Processor(tok, images(), view=None)
    tok.padding_side = 'left'
    x = theirs(text=[p.chat(len(s), t) for s,t in zip(SCENES, TEXTS)], images=sum(SCENES, []), padding=True, return_tensors='pt')
    y = p([p.chat(len(s), t) for s,t in zip(SCENES, TEXTS)], SCENES)
    for k in ('input_ids','attention_mask','mm_token_type_ids','pixel_values','image_grid_thw'): assert torch.equal(torch.as_tensor(x[k]), y[k]), k
    assert set(y)==set(x)

def test_chat_is_qwens(tok):
    p = Processor(tok, images())
    start = '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\n'
    eye = '<|vision_start|><|image_pad|><|vision_end|>'
    assert p.chat(2, 'Hm?')==f'{start}{eye}{eye}Hm?<|im_end|>\n<|im_start|>assistant\n'
    assert p.chat(1, 'Hm?', reply='Two.')==f'{start}{eye}Hm?<|im_end|>\n<|im_start|>assistant\nTwo.<|im_end|>\n'
    assert tok.apply_chat_template([dict(role='user', content='Hm?')], tokenize=False)==f'{start}Hm?<|im_end|>\n'

def test_video_patches(tok):
    "Frames two by two, in time before anything else; the last is doubled when it is alone; still frames are a picture"
    p = Processor(tok, images())
    frames = [picture(i) for i in range(3)]
    x,grid = p.look(frames, fps=2.)
    one = [p.look([f])[0].unflatten(1, (3,2,14*14)) for f in frames]
    n = len(one[0])
    assert grid.tolist()==[[2,4,6]] and x.shape==(2*n,1176)
    y = x.unflatten(1, (3,2,14*14))
    for t,(a,b) in enumerate(((0,1),(2,2))):
        assert torch.equal(y[t*n:t*n+n,:,0], one[a][:,:,0]) and torch.equal(y[t*n:t*n+n,:,1], one[b][:,:,0])
    assert torch.equal(p.look([frames[0]]*2, fps=2.)[0], p.look([frames[0]])[0])
    assert p.times(3, 2.)==[.25,1.] and p.times(3)==[]
    with pytest.raises(ValueError, match='one size'): p.look([frames[0],picture(9, 112, 112)], fps=2.)

def test_text_and_pictures_must_agree(tok):
    p = Processor(tok, images())
    with pytest.raises(ValueError, match='speaks of 1 pictures, the scene has 2'): p([p.chat(1, 'Hm?')], SCENES[:1])

def test_tokenizer(tok):
    for s in ('How many chairs?', 'Größe 12.5 m²\n\n  end', '<|im_start|>user'): assert tok.decode(tok(s)['input_ids'])==s
    assert len(tok('<|vision_start|><|image_pad|><|vision_end|>')['input_ids'])==3 and len(tok('chairs')['input_ids'])<6 and tok('12')['input_ids']==tok('1')['input_ids']+tok('2')['input_ids']
