"A language model that learns to see, to place, to reckon and to answer; what ships is a plain Spa3-VLM"
import json,random
import pytest,torch
from safetensors.torch import load_file,save_file
from spa3r.bench.scoring import prompt
from spa3r.language.chat import load_chat
from spa3r.language.chat import sharing
from spa3r.language.processor import pictures
from spa3r.rooms.questions import answer_text
from spa3r.train.lessons import NAMES,film
from spa3r.teachers.teachers import WEIGHTS
from spa3r.train.listen import (KINDS,STAGES,Listener,begin,draw,freeze,leave,listen,near,new_vlm,placement,point_loss,
                                prepare,reordered,roll_loss,source)
from spa3r.train.loop import TrainConfig,param_groups
from spa3r.util.core import UserError

@pytest.fixture(scope='module')
def rooms(tmp_path_factory):
    folder = tmp_path_factory.mktemp('rooms')
    film(folder, 3)
    return folder

@pytest.fixture(scope='module')
def lessons(rooms): return film(rooms, 3)

def listener(lessons, fusion='cross'):
    torch.manual_seed(0)
    return Listener(*new_vlm(lessons, fusion, latent_dim=16, n_latents=5))

def loud(model):
    "Let an adapter speak that has not learnt to"
    for p in model.vlm.model.adapter.parameters(): torch.nn.init.normal_(p, std=.2)
    return model

@pytest.mark.parametrize('fusion', ['none','append','cross'])
def test_with_no_truth_written_it_is_the_plain_model(lessons, fusion):
    "Several questions about two scenes, as a tree with rulers, and one by one through transformers' own forward"
    model = listener(lessons, fusion)
    if fusion!='none': loud(model)
    z,r,tok = torch.randn(2, 5, 16),random.Random(0),model.processor.tokenizer
    asked = [(q,x) for x in lessons[:2] for q in draw(x, 1, r)[:2]]
    b = model.write(asked)
    with torch.no_grad(),sharing(model.vlm.model.language_model):
        kept,at,_ = model.read(torch.stack([model.look(x['frames']) for x in lessons[:2]]), z)
        mine = model.vlm.lm_head(model.think(b['ids'], kept, at)['end'])
    for i,(q,x) in enumerate(asked):
        text = model.processor.chat(8, prompt(q))
        with torch.no_grad(): plain = model.vlm(**model.processor([text], [pictures(x['frames'].numpy(), 8)], latents=[z[i//2]])).logits[0,-1]
        torch.testing.assert_close(mine[i,b['last'][i]], plain, rtol=1e-3, atol=1e-3)

def test_what_is_written_at_a_name_is_read_there_and_moves_nothing_else(lessons):
    model = listener(lessons)
    b,seen = model.write([(q,lessons[0]) for q in draw(lessons[0], 1, random.Random(0))[:3]]),{}
    with torch.no_grad(),sharing(model.vlm.model.language_model):
        kept,at,_ = model.read()
        own = model.think(b['ids'], kept, at)
        layer = model.vlm.model.language_model.layers[3]
        hook = layer.register_forward_pre_hook(lambda m,a: seen.update(h=a[0]))
        told = model.think(b['ids'], kept, at, b['truth'])
        hook.remove()
    read,ok = seen['h']@model.axes/2,~b['truth'].isnan()
    torch.testing.assert_close(read[ok], b['truth'][ok], rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(read[~ok], own['facts'][~ok], rtol=1e-3, atol=1e-3)
    assert (told['end']-own['end']).abs().max()>1e-3

def test_options_change_places_and_stay_right(lessons):
    r,orders = random.Random(0),set()
    q = next(q for q in lessons[0]['questions'] if q['question_type']=='object_rel_direction_hard')
    for _ in range(20):
        new = reordered(q, r)
        assert answer_text(new)==answer_text(q) and sorted(o[3:] for o in new['options'])==sorted(o[3:] for o in q['options'])
        orders.add(tuple(new['options']))
    assert len(orders)>5

def test_one_option_of_each_question_is_right_and_the_label_is_its_letter(lessons):
    model = listener(lessons)
    for kind in (1,2):
        b = model.write([(q,x) for x in lessons for q in draw(x, kind, random.Random(1))[:4]])
        for opts,labels in zip(b['options'], b['labels']):
            opts = opts[~opts.isnan()]
            said = model.processor.tokenizer.decode(labels[labels>=0])
            if len(opts): assert opts.sum()==1 and said=='ABCD'[opts.argmax()]+'<|im_end|>'

def test_no_truth_is_no_loss():
    p = torch.zeros(3, requires_grad=True)
    near(p, torch.full((3,), torch.nan)).backward()
    assert (p.grad==0).all()
    assert near(torch.zeros(2), torch.tensor([torch.nan,1.])).item()==pytest.approx(1-.15)

def test_roll_call_learns_the_places_of_one_room(lessons):
    model,x = listener(lessons, 'none'),lessons[:1]
    prepare(x, model)
    batch = model.batch('roll', x, TrainConfig.nano(images=8, images_device=8), 0, 0)
    off = lambda: (lambda p: (p[:,0]-p[:,1]).norm(dim=-1).median().item())(placement(model, x))
    before,opt = off(),torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(25):
        opt.zero_grad()
        roll_loss(model, batch)['loss'].backward()
        opt.step()
    assert off()<.5*before
    for k in ('seen',): x[0].pop(k)

def test_muon_has_the_matrices_of_the_language_model(lessons):
    model = listener(lessons, 'none')
    inside = {id(p) for g in param_groups(model, .05, 2.) if g.get('muon') for p in g['params']}
    assert inside=={id(p) for p in model.vlm.model.language_model.layers.parameters() if p.ndim==2}

@pytest.mark.parametrize('fusion', ['cross','none'])
def test_all_stages_end_in_a_plain_model_that_goes_on_where_it_stopped(rooms, tmp_path, fusion):
    kw = dict(fusion=fusion, spatial='nano', rooms=str(rooms), n=3, images=8, images_device=8, steps=2, eval_every=2, quiet=True)
    listen(str(tmp_path), **kw)
    first = load_file(tmp_path/'ask'/'model.safetensors')
    assert not any('ruler' in k or k.startswith(('step','option','value','depths','patches','axes')) for k in first)
    chat = load_chat(str(tmp_path/'ask'), frames=8)
    assert type(chat.model).__name__=='Spa3Qwen2_5VL' and chat.model.config.fusion==fusion
    x = film(rooms, 1)[0]
    assert len(chat.ask(chat.watch(x['frames'].numpy()), [prompt(q) for q in x['questions'][:2]]))==2
    line = json.loads((tmp_path/'ask'/'eval.jsonl').read_text(encoding='utf8').splitlines()[-1])
    assert {'place','answers','steps','options','score'}<=line.keys()
    listen(str(tmp_path), **kw)  # all is there: nothing is learnt again
    stages = [s for s in STAGES if s!='point' or fusion=='cross']
    assert all(len((tmp_path/s/'log.jsonl').read_text(encoding='utf8').splitlines())==2 for s in stages)
    assert all(torch.equal(v, first[k]) for k,v in load_file(tmp_path/'ask'/'model.safetensors').items())
    def moved(key): return [s for a,s in zip(stages, stages[1:]) if not torch.equal(*(load_file(tmp_path/o/'model.safetensors')[key] for o in (a,s)))]
    assert moved('model.visual.blocks.0.attn.qkv.weight')==[]  # each stage leaves what the one before has taught
    assert moved('model.language_model.layers.0.mlp.up_proj.weight')==['roll']
    assert moved('model.language_model.layers.5.mlp.up_proj.weight')==['reckon','ask']
    if fusion=='cross':
        point,roll,*later = [load_file(tmp_path/s/'model.safetensors')['model.adapter.geometry_adaptor.2.weight'] for s in stages[1:]]
        assert point.any() and not torch.equal(point, roll) and all(torch.equal(roll, o) for o in later)

def test_an_adapter_learns_to_point(lessons):
    "Alone, and through nothing but its latents: those of the wrong rooms teach nothing"
    model = listener(lessons, 'cross')
    freeze(model, 'point')
    learns = [p for p in [*model.vlm.model.adapter.parameters(), *model.depths[0].parameters()] if p.requires_grad]
    assert not any(p.requires_grad for p in model.vlm.model.language_model.layers[:3].parameters())
    with torch.no_grad(): seen = torch.stack([model.look(x['frames']) for x in lessons[:2]])
    batch = dict(seen=seen, latents=torch.randn(2, 5, 16), places=torch.stack([x['places'].float() for x in lessons[:2]]))
    opt = torch.optim.AdamW(learns, 2e-3)
    losses = []
    for _ in range(60):
        loss = point_loss(model, batch)['loss']
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    assert losses[-1]<.7*losses[0]
    with torch.no_grad(): assert point_loss(model, batch|dict(latents=batch['latents'].roll(1, 0)))['loss']>losses[-1]

def test_only_an_adapter_can_point(rooms, tmp_path):
    with pytest.raises(UserError, match='no adapter to teach; go on with --stage roll'):
        listen(str(tmp_path), 'point', 'append', rooms=str(rooms), n=3, quiet=True)

def test_latents_of_a_student_in_a_folder(lessons):
    "A student of true fields is asked about every second frame, one of pictures about all"
    mine,ours = source(str(WEIGHTS/'exact')),source('exact')
    with torch.no_grad(): assert torch.equal(mine(lessons[0]), ours(lessons[0])) and mine.fields==ours.fields
    assert source(str(WEIGHTS/'nano')).fields['spatial']==str(WEIGHTS/'nano')

def test_a_folder_that_holds_no_stage_is_named(rooms, tmp_path):
    with pytest.raises(UserError, match='holds no stage of spa3r_listen'):
        listen(str(tmp_path/'out'), 'reckon', init=str(tmp_path), rooms=str(rooms), n=3, steps=1, quiet=True)

def test_an_adapter_for_latents_of_another_width_begins_anew(lessons, tmp_path):
    "What fits of it is taken, and all that stands outside; what differs outside is refused"
    old = loud(listener(lessons))
    leave(old, str(tmp_path))
    new = begin([], str(tmp_path), 'cross', dict(latent_dim=24, n_latents=7))
    was,now = old.state_dict(),new.state_dict()
    assert [k for k in was if was[k].shape!=now[k].shape]==['vlm.model.adapter.geometry_projector.0.weight']
    assert all(torch.equal(was[k], now[k]) for k in was if was[k].shape==now[k].shape)
    appended = begin([], str(tmp_path), 'append', dict(latent_dim=16, n_latents=5)).state_dict()
    assert all(torch.equal(was[k], v) for k,v in appended.items())
    rulers = load_file(tmp_path/'rulers.safetensors')
    save_file(rulers|{'step.bias':torch.zeros(3)}, tmp_path/'rulers.safetensors')
    with pytest.raises(UserError, match='1 tensors outside of the adapter do not fit, the first is step.bias'):
        begin([], str(tmp_path), 'cross', dict(latent_dim=24, n_latents=7))
    save_file(rulers, tmp_path/'rulers.safetensors')
    plain = load_file(tmp_path/'model.safetensors')
    save_file({k:v for k,v in plain.items() if k!='lm_head.weight'}, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='the first is vlm.lm_head.weight'):
        begin([], str(tmp_path), 'cross', dict(latent_dim=16, n_latents=5))

@pytest.mark.parametrize('name,of', [('exact',(8,8)), ('nano',(6,8))])
def test_features_can_stand_in_the_place_of_latents(lessons, name, of):
    "A quarter of the patches of each frame, as the student's own teacher sees them"
    make,x = source(f'direct:{name}'),lessons[0]
    f,grid = make.of.features(x)
    assert tuple(grid)==(2*of[0],2*of[1]) and make.fields==dict(latent_dim=f.shape[-1], n_latents=8*of[0]*of[1])
    z = make(x).view(8, *of, -1)
    torch.testing.assert_close(z[3,1,2], f[0,3].view(*grid, -1)[2,4])
