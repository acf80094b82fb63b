"Instruction tuning: what counts, what sees what, what is broken, and runs that are stopped"
import json,os,re,signal,subprocess,sys
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText,TrainerCallback
from tiny_qwen import BASES,folders,picture,tokenizer,wake
import spa3r.train.finetune as ft
from spa3r.language.chat import load_chat
from spa3r.util.core import UserError
from spa3r.train.finetune import (Broken,Collator,FileTalks,RoomTalks,Talk,TuneConfig,finetune,in_answers,inputs_apart,last_checkpoint,layout,nano_qwen,read_talks,segments,
    side_by_side)
from spa3r.language.processor import Processor
from spa3r.language.vlm import from_qwen,processor_fields

@pytest.fixture(scope='module')
def there(tmp_path_factory): return folders(tmp_path_factory.mktemp('qwens'))

def made(there, kind='qwen2_5_vl', fusion='cross'):
    torch.manual_seed(0)
    m = from_qwen(str(there/kind), str(there/'spatial'), fusion, dtype=torch.float32)
    p = Processor.from_pretrained(str(there/kind))
    return (wake(m) if fusion!='none' else m),Processor(p.tokenizer, p.images, **processor_fields(m.config))

SAID = [('How many chairs?','3'),('Which is nearest?\nA. door\nB. bed','B'),('How far?','2.5'),('Left or right?','left')]
def talk(i=0, n=3, said=SAID, **kw): return Talk(said, [picture(9*i+j) for j in range(n)], f'talk {i}', **kw)

# which tokens count

def by_reading(text): return [a for a in re.findall(r'<\|im_start\|>assistant\n(.*?<\|im_end\|>)', text, re.S)]

def test_answers_end_with_their_end_sign():
    "A decision: the newline behind it, which the official code learns as well, is no part of an answer"
    tok = tokenizer()
    ids = tok('<|im_start|>user\nHm?<|im_end|>\n<|im_start|>assistant\n3<|im_end|>\n', return_tensors='pt')['input_ids']
    assert tok.decode(ids[in_answers(ids, tok)])=='3<|im_end|>' and tok.decode(ids[0,-1])=='\n'

def test_defaults_are_the_official_scripts():
    "scripts/train_vlm_sft.sh, and the pictures of its data pipeline"
    c = TuneConfig()
    assert (c.lr,c.weight_decay,c.warmup,c.clip,c.batch,c.accumulate,c.epochs,c.max_tokens,c.frames,c.max_pixels)==(1e-5,.01,.03,1.,1,8,1.,16384,8,0)

def test_answers_are_what_the_assistant_says(there):
    _,p = made(there)
    c = Collator(p)
    talks = [talk(0), talk(1, 1, SAID[:1]), talk(2, 2, [('Say <|im_start|> not','a b\nc'),*SAID[1:3]])]
    x = c(talks)
    for t,ids,lab in zip(talks, x['input_ids'], x['labels']):
        assert (lab[lab>=0]==ids[lab>=0]).all()
        assert p.tokenizer.decode(lab[lab>=0])==''.join(by_reading(c.text(t)))==''.join(f'{a}<|im_end|>' for _,a in t.said)
    assert set(x['labels'][x['attention_mask']==0].tolist())<={-100}

# questions that stand apart

@pytest.mark.parametrize('kind', BASES)
@pytest.mark.parametrize('fusion', ['cross','append','none'])
def test_apart_is_one_by_one(there, kind, fusion):
    m,p = made(there, kind, fusion)
    c,talks = Collator(p),[talk(0, apart=True),talk(1, 2, SAID[1:3], apart=True)]
    def grads(groups):
        "Gradients of the summed loss of all answers"
        m.zero_grad()
        total = 0
        for g in groups:
            x = c(g)
            loss = m(**inputs_apart(m, x), num_items_in_batch=torch.tensor(1.)).loss
            loss.backward()
            total += loss.item()
        return total,{k:v.grad.clone() for k,v in m.named_parameters() if v.grad is not None}
    a,ga = grads([talks])
    b,gb = grads([[replace(t, said=[qa], apart=False)] for t in talks for qa in t.said])
    assert abs(a/b-1)<1e-5 and ga.keys()==gb.keys()
    norm = torch.stack([g.norm() for g in gb.values()]).norm()
    for k in ga: assert (ga[k]-gb[k]).norm()<2e-5*norm, k

def everywhere(x): return {k:v for k,v in x.items() if k!='keep'}  # scores of all places

def test_apart_means_apart(there):
    "Another answer to one question changes no logit of another question, and each of its own"
    m,p = made(there)
    def logits(said):
        with torch.no_grad(): return m(**inputs_apart(m, everywhere(x := Collator(p)([talk(0, said=said, apart=True)])))).logits[0],x['segments'][0]
    (a,seg),(b,seg2) = logits(SAID),logits([SAID[0],(SAID[1][0],'A'),*SAID[2:]])
    assert torch.equal(seg, seg2) and sorted(set(seg.tolist()))==[0,1,2,3,4]
    assert torch.equal(a[seg!=2], b[seg!=2]) and not torch.equal(a[seg==2], b[seg==2])

def test_apart_beside_together(there):
    "A batch may hold both kinds"
    m,p = made(there)
    c,one,two = Collator(p),talk(0, apart=True),talk(1, 2)
    with torch.no_grad():
        both = m(**inputs_apart(m, everywhere(c([one,two])))).logits
        for i,t in enumerate((one,two)):
            x = everywhere(c([t]))
            torch.testing.assert_close(both[i,:x['input_ids'].shape[1]], m(**inputs_apart(m, x)).logits[0], rtol=1e-4, atol=1e-4)

# files

def row(**kw): return dict(id='x', conversations=[{'from':'human','value':'<image>\nWhat?'},{'from':'gpt','value':'That.'}], image='a.png') | kw
def write(path, rows):
    path.write_text(json.dumps(rows) if path.suffix=='.json' else '\n'.join(map(json.dumps, rows)), encoding='utf8')
    return str(path)

@pytest.mark.parametrize('name', ['a.json','a.jsonl'])
def test_reads_what_others_write(tmp_path, name):
    rows = [row(), row(image=None, images=['b.png','c.png']), row(image=None, video='v/d.mp4', question_type='x', data_source='s'),
            row(conversations=None, messages=[dict(role='system', content='Be brief.'),dict(role='user', content='Hm?'),dict(role='assistant', content='So.')])]
    got = read_talks(write(tmp_path/name, rows), '/media')
    assert [t.pics for t in got]==[['/media/a.png'],['/media/b.png','/media/c.png'],['/media/v/d.mp4'],['/media/a.png']]
    assert got[3].said==[('Hm?','So.')] and got[0].said==[('<image>\nWhat?','That.')]
    assert read_talks(tmp_path/name)[0].pics==[str(tmp_path/'a.png')]

@pytest.mark.parametrize('bad,why', [(row(image=''), 'no `image`'), (row(conversations=[]), 'must be a list'), (row(conversations=row()['conversations'][:1]), 'human and gpt in turn'),
    (row(conversations=row()['conversations'][::-1]), 'human and gpt in turn'), ('text', 'conversation 1'), (row(conversations=[{'from':'human','value':3},{'from':'gpt','value':'a'}]), 'each with a text')])
def test_names_what_it_does_not_understand(tmp_path, bad, why):
    with pytest.raises(UserError, match=re.escape(why)): read_talks(write(tmp_path/'a.json', [row(),bad]))

@pytest.mark.parametrize('text', ['{', '[]', '{"a":1}', ''])
def test_no_conversations(tmp_path, text):
    (tmp_path/'a.json').write_text(text, encoding='utf8')
    with pytest.raises(UserError, match='a.json'): read_talks(tmp_path/'a.json')

def test_marks():
    at = lambda qs,n: [[o['type'] for o in r['content']] for r in layout(Talk([(q,'a') for q in qs], [picture(0)]*n)) if r['role']=='user']
    assert at(['a <image>b','<image> c'], 2)==[['text','image','text'],['image','text']]
    assert at(['a','b'], 2)==[['image','image','text'],['text']]
    assert at(['a <video>\nb','c'], 3)==[['image']*3+['text'],['text']]
    with pytest.raises(ValueError, match='2 pictures are marked'): at(['<image>','<image>'], 1)

def test_frames_of_a_video_are_spread(tmp_path):
    for i in range(20): picture(i).save(tmp_path/f'{i}.png')
    t = FileTalks([Talk(SAID[:1], [str(tmp_path)])], 8)[0]
    assert len(t.pics)==8 and t.pics[0].tobytes()==picture(0).tobytes() and t.pics[-1].tobytes()==picture(19).tobytes()

# what is broken

def test_broken_are_named_and_left_out(there, tmp_path):
    _,p = made(there)
    picture(0).save(tmp_path/'a.png')
    (tmp_path/'b.png').write_bytes(b'no picture')
    data = FileTalks(read_talks(write(tmp_path/'t.json', [row(id=7),row(id=8, image='b.png'),row(id=9, conversations=[{'from':'human','value':'<image><image>'},{'from':'gpt','value':'a'}])])))
    assert data.missing()==[]
    x = Collator(p)([data[i] for i in range(3)])
    read,broken = x['met']
    assert read==3 and len(x['input_ids'])==1 and 'conversation 8' in broken[0].name and 'b.png' in broken[0].why and 'marked' in broken[1].why
    assert 'more than 20 tokens' in Collator(p, 20)([data[0]])['met'][1][0].why

def test_a_batch_with_nothing_in_it_teaches_nothing(there):
    m,p = made(there)
    x = Collator(p)([Broken('a','b')])
    loss = m(**inputs_apart(m, x), num_items_in_batch=torch.tensor(1.)).loss
    loss.backward()
    assert loss.item()==0 and x['met'][0]==1 and (x['labels']==-100).all()
    assert all(q.grad is not None and not q.grad.any() for k,q in m.named_parameters() if q.grad is not None) and m.model.adapter.ln.weight.grad is not None

# runs

TINY = dict(nano=True, rooms=4, turns=3, frames=2, accumulate=2, steps=4, save_every=2, quiet=True, device='cpu', max_pixels=56*56, lr=1e-2)
def log(out): return [json.loads(l) for l in (Path(out)/'log.jsonl').read_text(encoding='utf8').splitlines()]
def run(there, out, **kw): return finetune(out=str(out), **dict(model=str(there/'qwen2_5_vl'), spatial=str(there/'spatial')) | TINY | kw)

class Stop(Exception): pass
class Break(TrainerCallback):
    def __init__(self, at): self.at = at
    def on_step_end(self, args, state, control, **kw):
        if state.global_step==self.at: raise Stop

def stopped(there, out, at, monkeypatch, **kw):
    "A run that breaks off after a step"
    real = ft.Tuner.__init__
    def init(self, *a, **k):
        real(self, *a, **k)
        self.add_callback(Break(at))
    with monkeypatch.context() as mp:
        mp.setattr(ft.Tuner, '__init__', init)
        with pytest.raises(Stop): run(there, out, **kw)

def same(a, b):
    for k,v in a.state_dict().items(): assert torch.equal(v, b.state_dict()[k]), k

@pytest.mark.parametrize('kw', [dict(), dict(fusion='none'), dict(model='nano', fusion='none')])
def test_a_run_that_was_stopped_goes_on(there, tmp_path, monkeypatch, kw):
    def once(there, out): return run(there, out, **kw)
    whole = once(there, tmp_path/'a')
    stopped(there, tmp_path/'b', 3, monkeypatch, **kw)
    half = tmp_path/'b'/'checkpoint-9'  # as if the next one had been torn
    half.mkdir()
    assert last_checkpoint(tmp_path/'b').name=='checkpoint-2'
    again = once(there, tmp_path/'b')
    same(whole, again)
    assert log(tmp_path/'a')==log(tmp_path/'b') and [l['step'] for l in log(tmp_path/'b')]==[1,2,3,4]
    same(again, once(there, tmp_path/'b'))  # finished: nothing more happens
    assert len(log(tmp_path/'b'))==4

def test_what_learns(there, tmp_path):
    before = made(there, fusion='none')[0].state_dict()
    after = run(there, tmp_path, eyes=False, checkpointing=True, fusion='none').state_dict()
    for k,v in after.items():
        if 'norm' not in k and 'bias' not in k: assert torch.equal(v, before[k])==('.visual.' in k), k
    seen = run(there, tmp_path/'b', eyes=True, fusion='none').state_dict()
    assert any(not torch.equal(v, before[k]) for k,v in seen.items() if '.visual.' in k)

def test_the_adapter_wakes_and_the_tuned_model_talks(there, tmp_path):
    m = run(there, tmp_path)
    assert m.model.adapter.geometry_adaptor[-1].weight.abs().max()>0
    chat = load_chat(str(tmp_path))
    same(m, chat.model)
    assert isinstance(chat.answer([picture(0),picture(1)], 'How many?'), str)
    assert chat.processor.images.size['longest_edge']==56*56  # as it was tuned

def test_lora_spares_the_language_model(there, tmp_path, monkeypatch):
    pytest.importorskip('peft')
    kw = dict(lora=2, eyes=False)
    start = made(there)[0].state_dict()
    m = run(there, tmp_path/'a', **kw)
    assert type(m).__name__=='Spa3Qwen2_5VL'
    for k,v in m.state_dict().items():
        if re.search('language_model.*(proj)', k) and 'bias' not in k: assert np.linalg.matrix_rank((v-start[k]).numpy(), tol=1e-5)<=2, k
        elif '.adapter.' not in k: assert torch.equal(v, start[k]), k
    assert m.model.adapter.geometry_adaptor[-1].weight.any()
    same(m, AutoModelForImageTextToText.from_pretrained(tmp_path/'a'))
    stopped(there, tmp_path/'b', 3, monkeypatch, **kw)
    same(m, run(there, tmp_path/'b', **kw))

def test_sharding_in_one_process_is_refused(there, tmp_path):
    with pytest.raises(UserError, match='--fsdp.*torchrun'): run(there, tmp_path/'r', fsdp=True)

def test_one_process_takes_one_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 4)
    assert ft.training_args(TuneConfig.nano(), tmp_path, torch.device('meta')).n_gpu==1  # where there are four, Trainer would cut up batches

def test_other_settings_and_second_runs_are_refused(there, tmp_path):
    run(there, tmp_path, steps=1)
    with pytest.raises(UserError, match='other settings'): run(there, tmp_path, steps=1, lr=1.)
    with ft.locked(tmp_path), pytest.raises(UserError, match='another process'): run(there, tmp_path, steps=1)

def test_a_loss_that_is_no_number(there, tmp_path, monkeypatch):
    real = ft.Tuner.compute_loss
    monkeypatch.setattr(ft.Tuner, 'compute_loss', lambda self, *a, **k: real(self, *a, **k)*(float('nan') if self.state.global_step==2 else 1))
    with pytest.raises(UserError, match='step 3 is nan.*goes on from checkpoint-2'): run(there, tmp_path)
    assert len(log(tmp_path))==2

def test_missing_files_stop_it_at_once(there, tmp_path):
    picture(0).save(tmp_path/'a.png')
    data = write(tmp_path/'t.json', [row(),row(image='b.png')])
    with pytest.raises(UserError, match='1 of 2 pictures and videos are not there, such as .*b.png.*--media'): run(there, tmp_path/'r', data=data)
    run(there, tmp_path/'r', data=data, max_broken=.6)

def test_too_much_that_is_broken_stops_it(there, tmp_path, capsys):
    picture(0).save(tmp_path/'a.png')
    (tmp_path/'b.png').write_bytes(b'no picture')
    data = write(tmp_path/'t.jsonl', [row(),row(id='y', image='b.png')])
    with pytest.raises(UserError, match=r'conversations read are broken, more than 1.0% \(such as t.jsonl, conversation y: .*b.png'): run(there, tmp_path/'r', data=data, steps=0)
    run(there, tmp_path/'s', data=data, steps=0, max_broken=.6)
    assert '1 of 2 conversations read were broken' in capsys.readouterr().out

@pytest.mark.parametrize('model,why', [('nowhere','No weights in'),('empty','empty.* cannot be loaded')])
def test_no_such_model(there, tmp_path, model, why):
    (tmp_path/'empty').mkdir()
    with pytest.raises(UserError, match=why): run(there, tmp_path/'r', model=str(tmp_path/model))

def test_two_processes_are_one(there, tmp_path):
    "At equal conversations a step the losses of two processes are those of one"
    run(there, tmp_path/'a', checkpointing=True)
    code = f"from spa3r.train.finetune import finetune; finetune(out={str(tmp_path/'b')!r}, model={str(there/'qwen2_5_vl')!r}, spatial={str(there/'spatial')!r}, **{TINY|dict(accumulate=1, checkpointing=True)!r})"
    (tmp_path/'go.py').write_text(code, encoding='utf8')
    p = subprocess.run([sys.executable,'-m','torch.distributed.run','--standalone','--nproc_per_node','2',str(tmp_path/'go.py')], capture_output=True, encoding='utf8', env=os.environ|dict(OMP_NUM_THREADS='1'))
    assert p.returncode==0, p.stderr[-3000:]
    a,b = log(tmp_path/'a'),log(tmp_path/'b')
    assert len(a)==len(b)==4
    for x,y in zip(a, b): assert abs(x['loss']-y['loss'])<1e-4 and abs(x['norm']/y['norm']-1)<1e-3

SHARD = """
import sys
from accelerate.state import AcceleratorState,PartialState
from accelerate.utils import DistributedType
from spa3r.train import finetune as ft
made = AcceleratorState.__init__
def init(self, *args, fsdp_plugin=None, **kwargs):  # on a CPU accelerate forgets the plugin
    made(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if fsdp_plugin is None: return
    self.fsdp_plugin,self.distributed_type = fsdp_plugin,DistributedType.FSDP
    PartialState._shared_state['distributed_type'] = self.distributed_type
if sys.argv[2]=='sharded': AcceleratorState.__init__ = init
step,kinds = ft.Tuner.training_step,set()
def training_step(self, model, *args, **kwargs):
    kinds.update(type(p).__name__ for p in model.parameters())
    return step(self, model, *args, **kwargs)
ft.Tuner.training_step = training_step
ft.finetune(fsdp=True, **eval(sys.argv[1]))
assert kinds=={'DTensor'}, kinds
"""

def sharded(there, tmp_path, how):
    (tmp_path/'go.py').write_text(SHARD, encoding='utf8')
    kw = TINY|dict(accumulate=1, out=str(tmp_path/'b'), model=str(there/'qwen2_5_vl'), spatial=str(there/'spatial'))
    return subprocess.run([sys.executable,'-m','torch.distributed.run','--standalone','--nproc_per_node','2',str(tmp_path/'go.py'),repr(kw),how], capture_output=True, encoding='utf8', env=os.environ|dict(OMP_NUM_THREADS='1'))

def test_shards_are_one(there, tmp_path):
    "FSDP2 over two processes: parameters are shards, losses those of one process, and what is saved is whole"
    a,p = run(there, tmp_path/'a'),sharded(there, tmp_path, 'sharded')
    assert p.returncode==0, p.stderr[-3000:]
    for x,y in zip(log(tmp_path/'a'), log(tmp_path/'b'), strict=True): assert abs(x['loss']-y['loss'])<1e-4 and abs(x['norm']/y['norm']-1)<1e-3
    b = AutoModelForImageTextToText.from_pretrained(tmp_path/'b').state_dict()
    for k,v in a.state_dict().items(): assert torch.allclose(v, b[k], atol=1e-3), k

def test_sharding_that_would_not_happen_is_refused(there, tmp_path):
    "On a CPU accelerate would take it, and every process would hold everything"
    p = sharded(there, tmp_path, 'as it is')
    assert p.returncode and 'accelerate would quietly go on without' in p.stderr

# rooms

def test_rooms_come_oncewith_other_questions():
    d = RoomTalks(2, turns=4, passes=2, frames=2, eye=lambda room,frames: torch.full((1,2), room))
    assert len(d)==4==len(d.lengths)
    a,b,c = d[0],d[2],d[1]
    assert a.name==b.name!=c.name and a.apart and len(a.pics)==2 and a.latents.tolist()==[[d.number(0)]*2]
    assert not {q for q,_ in a.said}&{q for q,_ in b.said} and RoomTalks(2, turns=4, frames=2)[0].said==a.said
    assert RoomTalks(2, frames=2, seed=1).number(0)!=d.number(0)

def test_nano_is_small_and_writes_what_is_asked():
    m,p = nano_qwen(3)
    assert 2e6<sum(o.numel() for o in m.parameters())<6e6 and type(m).__name__=='Qwen2_5_VLForConditionalGeneration'
    assert p.tokenizer.decode(p.tokenizer('12.5 m, front-left')['input_ids'])=='12.5 m, front-left'

@pytest.mark.parametrize('kind', BASES)
def test_scores_where_answers_are_and_nowhere_else(there, kind):
    "the same loss and gradients as with the scores of every place"
    m,p = made(there, kind)
    x = Collator(p)([talk(0),talk(1, 2, SAID[1:3])])
    def grads(x):
        m.zero_grad()
        out = m(**inputs_apart(m, x), num_items_in_batch=torch.tensor(7))
        out.loss.backward()
        return out,[q.grad.clone() for q in m.parameters() if q.grad is not None]
    (few,a),(all_,b) = grads(dict(x)),grads(everywhere(x))
    assert few.loss.item()==pytest.approx(all_.loss.item(), rel=1e-6) and len(a)==len(b)>10
    assert all(torch.allclose(i, j, atol=1e-6, rtol=1e-4) for i,j in zip(a, b))
    assert few.logits.shape[1]==len(x['keep'])<.3*all_.logits.shape[1]
