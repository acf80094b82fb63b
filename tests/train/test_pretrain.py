"The loop: the same curve after any accident and on any number of devices, clear refusals, data that belong to their step"
import errno,inspect,json,math,multiprocessing,os,shutil,signal,subprocess,sys,time
from dataclasses import replace
from pathlib import Path
import pytest,torch
import torch.nn.functional as F
from torch import nn
import spa3r.train.pretrain as t
from spa3r.util.core import UserError,set_seed
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers.teachers import WEIGHTS
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.rooms.rooms import HELD_OUT
from spa3r.teachers.teachers import ExactTeacher
from spa3r.train.teach_vggt import Lesson,teach
from spa3r.train.loop import Feed,Log,Run,Task,TrainConfig,accelerator,fit,locked,newest,param_groups,what_happened
from spa3r.train.pretrain import masked,observe,pretrain
from spa3r.data.batches import RoomSource,seeded
from small_run import SIZE,small

here = Path(__file__).parents[1]

class Toy(nn.Linear):
    def save_pretrained(self, d):
        from safetensors.torch import save_file
        Path(d).mkdir(exist_ok=True)
        save_file(self.state_dict(), Path(d)/'model.safetensors')

def batch(step, m): return torch.randn(8, 3, generator=seeded(step, m))
def loss(model, x): return {'loss':F.mse_loss(model(x), x.sum(1,keepdim=True))}
def log(d): return [json.loads(l) for l in open(Path(d)/'log.jsonl', encoding='utf8')]
def config(**kw): return TrainConfig(**{**dict(steps=17, images=2, images_device=2, v_min=2, v_max=2, lr=.05, warmup=3, save_every=4, eval_every=0), **kw})
def steps(d): return [l['step'] for l in log(d)]
def checkpoints(d): return sorted(p.name for p in Path(d).glob('step-*'))

def run(d, batch_fn=batch, loss_fn=loss, model=None, evaluate=None, each_step=None, settings={}, **kw):
    set_seed(3)
    return fit(model or Toy(3,1), batch_fn, loss_fn, config(**kw), d, evaluate, each_step, settings, progress=False)

def breaks(at, e=ZeroDivisionError):
    "A `batch_fn` that raises at a step"
    def f(step, m):
        if step==at: raise e
        return batch(step, m)
    return f

# --- resume

@pytest.mark.parametrize('at', [0,3,4,5,16])
def test_accident_leaves_no_trace(tmp_path, at):
    whole = run(tmp_path/'a')
    with pytest.raises(ZeroDivisionError): run(tmp_path/'b', breaks(at))
    (tmp_path/'b'/'unfinished').mkdir(exist_ok=True)  # as left by a kill while writing
    before = (tmp_path/'b'/'log.jsonl').read_bytes()
    with open(tmp_path/'b'/'log.jsonl', 'a', encoding='utf8') as f: f.write('{"step": 1')
    again = run(tmp_path/'b')
    assert log(tmp_path/'a')==log(tmp_path/'b') and steps(tmp_path/'b')==list(range(17))
    assert (tmp_path/'b'/'log.jsonl').read_bytes().startswith(before)  # what was there is as it was
    assert torch.equal(whole.weight, again.weight) and torch.equal(whole.bias, again.bias)

def test_chance_in_a_model_belongs_to_the_step(tmp_path):
    def noisy(m, x): return {'loss':F.mse_loss(m(x+torch.rand(3)), x.sum(1,keepdim=True))}
    run(tmp_path/'a', loss_fn=noisy, images=4)
    with pytest.raises(ZeroDivisionError): run(tmp_path/'b', breaks(10), noisy, images=4)
    torch.rand(7)
    run(tmp_path/'b', loss_fn=noisy, images=4)
    assert log(tmp_path/'a')==log(tmp_path/'b')

def test_finished_run_does_nothing(tmp_path):
    a = run(tmp_path)
    b = run(tmp_path, batch_fn=lambda step,m: 1/0)
    assert torch.equal(a.weight, b.weight) and len(log(tmp_path))==17

def test_steps_computed_again_are_compared_with_the_log(tmp_path, capsys):
    with pytest.raises(ZeroDivisionError): run(tmp_path, breaks(7))
    run(tmp_path)
    assert 'differ' not in capsys.readouterr().out
    for p in tmp_path.glob('step-*'): p.rename(tmp_path/'elsewhere')
    before = (tmp_path/'log.jsonl').read_text(encoding='utf8')
    run(tmp_path, lambda s,m: 1.01*batch(s,m))
    assert '17 steps were computed again and differ' in capsys.readouterr().out and (tmp_path/'log.jsonl').read_text(encoding='utf8')==before

def lines(p): return p.read_bytes().count(b'\n') if p.exists() else 0
def children(pid):
    p = Path(f'/proc/{pid}/task/{pid}/children')
    return p.read_text(encoding='utf8').split() if p.exists() else []
def alive(pid):
    p = Path(f'/proc/{pid}/stat')
    return p.exists() and p.read_text(encoding='utf8').rsplit(')', 1)[1].split()[0]!='Z'

@pytest.mark.parametrize('workers', [0,2])
def test_kill_9(tmp_path, workers):
    "A process of its own, killed for good at three moments"
    small(tmp_path/'whole', TrainConfig(**SIZE))
    out,fork = tmp_path/'killed',multiprocessing.get_context('fork')
    def start():
        p = fork.Process(target=small, args=(out, TrainConfig(**SIZE, workers=workers), .05))
        p.start()
        return p
    for at in (0,3,6):
        p = start()
        while lines(out/'log.jsonl')<at and p.is_alive(): time.sleep(.01)
        helpers = children(p.pid)
        os.kill(p.pid, signal.SIGKILL)
        p.join()
        assert p.exitcode==-signal.SIGKILL
        for _ in range(500):  # they go, too
            if not any(map(alive, helpers)): break
            time.sleep(.02)
        else: raise AssertionError('workers were left behind')
        before = (out/'log.jsonl').read_bytes() if at else b''
    p = start()  # at once: the lock of a killed process is no lock
    p.join()
    assert p.exitcode==0 and before
    assert log(out)==log(tmp_path/'whole') and (out/'log.jsonl').read_bytes().startswith(before)
    a,b = (Spa3R.from_pretrained(newest(d)).state_dict() for d in (out, tmp_path/'whole'))
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_state_holds_nothing_but_tensors_and_numbers(tmp_path):
    run(tmp_path)
    state = torch.load(newest(tmp_path)/'state.pt', weights_only=True)
    assert state['step']==17 and len(state['opt']['state'])==2

# --- many devices

@pytest.fixture(scope='module')
def two(tmp_path_factory):
    "One process, two with copies, two with shards"
    d = tmp_path_factory.mktemp('two')
    small(d/'one', TrainConfig(**SIZE))
    r = subprocess.run([sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc_per_node', '2', str(here/'small_run.py'), '--out', str(d), '--ways', 'ddp,fsdp'],
                       capture_output=True, encoding='utf8', timeout=600)
    assert r.returncode==0, r.stderr
    return d,r.stdout

def alike(a, b): return max(abs(x['loss']-y['loss']) for x,y in zip(log(a), log(b), strict=True))

@pytest.mark.parametrize('way', ['ddp','fsdp'])
def test_two_processes_learn_what_one_learns(two, way):
    d,out = two
    assert alike(d/'one', d/way)<1e-5
    assert out.count(f"{way} {'sharded' if way=='fsdp' else 'whole'}\n")==2, out  # both processes, and nothing else
    assert json.loads((d/way/'runs.jsonl').read_text(encoding='utf8'))['processes']==2

@pytest.mark.parametrize('way', ['ddp','fsdp'])
def test_checkpoints_do_not_know_how_many_wrote_them(two, way, tmp_path):
    d,_ = two
    states = [torch.load(newest(d/o)/'state.pt', weights_only=True)['opt']['state'] for o in ('one',way)]
    for a,b in zip(*(s.values() for s in states), strict=True):
        for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-3, atol=1e-6)
    a,b = (Spa3R.from_pretrained(newest(d/o)).state_dict() for o in ('one',way))
    for k in a: torch.testing.assert_close(a[k], b[k], rtol=1e-3, atol=1e-4)

@pytest.mark.parametrize('way', ['ddp','fsdp'])
def test_one_process_goes_on_where_two_were(two, way, tmp_path):
    d,_ = two
    last = newest(d/way)
    state,cfg = torch.load(last/'state.pt', weights_only=True),TrainConfig(**SIZE)
    shutil.copytree(last, tmp_path/'b'/last.name)
    run = Run(Spa3R.from_pretrained(last), None, cfg, tmp_path/'b', accelerator())
    assert run.step==cfg.steps
    for a,b in zip(run.opt.state_dict()['state'].values(), state['opt']['state'].values(), strict=True): assert all(torch.equal(a[k], b[k]) for k in a)

def test_processes_share_evenly_or_not_at_all(tmp_path):
    class Three:
        num_processes,process_index = 3,0
    with pytest.raises(UserError, match='4 micro-batches a step cannot be shared evenly by 3'): Run(Toy(3,1), loss, config(images=8), tmp_path, Three)
    with pytest.raises(UserError, match='torchrun'): run(tmp_path, fsdp=True)

@pytest.mark.parametrize('world', [1,2,4])
def test_ranks_divide_the_micro_batches_among_them(world):
    seen = []
    for r in range(world):
        class Acc: num_processes,process_index,device = world,r,torch.device('cpu')
        f = Feed(lambda s,m: (s,m), 3, config(steps=5, images=8), Acc)
        seen += [f.next() for _ in range(8//world)]
    assert sorted(seen)==[(s,m) for s in (3,4) for m in range(4)]

def test_accumulation_is_one_large_batch(tmp_path):
    def part(step, m): return torch.cat([batch(step, 2*m), batch(step, 2*m+1)])
    a,b = run(tmp_path/'a', images=8),run(tmp_path/'b', part, images=4)
    torch.testing.assert_close(a.weight, b.weight, rtol=1e-4, atol=1e-5)
    assert alike(tmp_path/'a', tmp_path/'b')<1e-5
    for x,y in zip(log(tmp_path/'a'), log(tmp_path/'b')): assert abs(x['norm']/y['norm']-1)<1e-4  # AdamW would not notice another size

def test_gradients_travel_once_a_step(tmp_path, monkeypatch):
    from accelerate import Accelerator
    quiet,real = [],Accelerator.no_sync
    monkeypatch.setattr(Accelerator, 'no_sync', lambda self, m: quiet.append(1) or real(self, m))
    run(tmp_path, images=8, steps=3)
    assert len(quiet)==3*3

# --- what else a run can be asked

def test_gradients_are_clipped(tmp_path):
    run(tmp_path/'a', clip=1e-3)
    run(tmp_path/'b', clip=100.)
    a,b = log(tmp_path/'a'),log(tmp_path/'b')
    assert a[0]==b[0] and a[5]['loss']!=b[5]['loss']  # AdamW takes the first step at any size

def test_reworked_blocks_learn_the_same_and_leave_no_trace(tmp_path):
    plain,_ = small(tmp_path/'a', TrainConfig(**SIZE))
    less,_ = small(tmp_path/'b', TrainConfig(**SIZE, checkpointing=True))
    assert log(tmp_path/'a')==log(tmp_path/'b')
    assert all(torch.equal(v, less.state_dict()[k]) for k,v in plain.state_dict().items())
    assert not any('forward' in vars(m) for m in less.modules())

def test_compile_compiles_every_block(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(torch, 'compile', lambda f, **kw: seen.append(f) or f)
    small(tmp_path, TrainConfig(**SIZE|dict(steps=1), compile=True))
    assert len(seen)==2

def test_best_and_last_are_kept(tmp_path):
    scores = {4:1., 8:3., 12:2., 16:math.nan}
    weights = {}
    def evaluate(m):
        assert not m.training
        step = 4*(len(weights)+1)
        weights[step] = m.weight.detach().clone()
        return dict(score=scores[step], other=5)
    m = run(tmp_path, evaluate=evaluate, eval_every=4)
    from safetensors.torch import load_file
    assert torch.equal(load_file(tmp_path/'best'/'model.safetensors')['weight'], weights[8]) and not torch.equal(m.weight, weights[8])
    assert [l['step'] for l in map(json.loads, open(tmp_path/'eval.jsonl', encoding='utf8'))]==[4,8,12,16] and checkpoints(tmp_path)==['step-0000017'] and m.training is False

def test_evaluations_are_not_repeated(tmp_path):
    seen = []
    def evaluate(m): return dict(score=float(len(seen.append(1) or seen)))
    with pytest.raises(ZeroDivisionError): run(tmp_path, breaks(7), evaluate=evaluate, eval_every=2)
    run(tmp_path, evaluate=evaluate, eval_every=2)
    assert len(seen)==8 and [l['step'] for l in map(json.loads, open(tmp_path/'eval.jsonl', encoding='utf8'))]==list(range(2,17,2))

def test_tensorboard(tmp_path):
    pytest.importorskip('tensorboard')
    run(tmp_path, tensorboard=True)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    acc = EventAccumulator(str(tmp_path/'tensorboard'))
    acc.Reload()
    assert [round(e.value, 5) for e in acc.Scalars('loss')]==[round(l['loss'], 5) for l in log(tmp_path)]

def test_waiting_is_measured(tmp_path, capsys):
    def slow(step, m):
        time.sleep(.02)
        return batch(step, m)
    set_seed(3)
    fit(Toy(3,1), slow, loss, config(), tmp_path)
    said = json.loads((tmp_path/'runs.jsonl').read_text(encoding='utf8'))
    assert said['waited']>.5 and said['steps']==17 and 'waiting for data' in capsys.readouterr().out

# --- ends

def test_nan_stops_with_a_word(tmp_path):
    with pytest.raises(UserError, match='lower the learning rate.*goes on from step-0000009'): run(tmp_path, lambda s,m: batch(s,m)*(math.nan if s==9 else 1))
    clean = run(tmp_path/'clean', steps=17)
    m = Toy(3,1)
    r = Run(m, loss, config(), tmp_path, accelerator())
    assert r.step==9 and m.weight.isfinite().all() and len(log(tmp_path))==9
    assert log(tmp_path)==log(tmp_path/'clean')[:9]

def test_a_gradient_that_is_not_finite_stops_too(tmp_path):
    def steep(m, x): return {'loss':(m(x).sum()*0).sqrt()+F.mse_loss(m(x), x.sum(1,keepdim=True))}  # 0, with an infinite slope
    with pytest.raises(UserError, match='norm of its gradient nan'): run(tmp_path, loss_fn=steep)
    assert checkpoints(tmp_path)==[]

def test_a_worker_that_is_lost(tmp_path):
    def dies(step, m):
        if step==6: os.kill(os.getpid(), signal.SIGKILL)
        return batch(step, m)
    with pytest.raises(UserError, match='prepares data was lost.*goes on from step-000000[3-6]'): run(tmp_path, dies, workers=1)
    run(tmp_path)
    run(tmp_path/'whole')
    assert log(tmp_path)==log(tmp_path/'whole')

@pytest.mark.skipif(not Path('/proc').exists(), reason='needs /proc')
def test_a_worker_that_is_lost_while_nobody_waits(tmp_path):
    def each_step(step):
        if step==2:
            for p in children(os.getpid()): os.kill(int(p), signal.SIGKILL)
            time.sleep(.3)  # torch would raise here, in the middle of whatever this is
    with pytest.raises(UserError, match='prepares data was lost'): run(tmp_path, each_step=each_step, workers=1)
    assert steps(tmp_path)==list(range(len(log(tmp_path)))) and len(log(tmp_path))>=3

def test_what_a_user_can_mend_keeps_its_words_in_a_worker(tmp_path):
    with pytest.raises(UserError, match=r'^no pictures. The run in \S+ goes on from step-0000005'): run(tmp_path, breaks(5, UserError('no pictures')), workers=1)

def full(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device')

def test_full_disk_while_saving(tmp_path, monkeypatch):
    with monkeypatch.context() as m:
        def save(self, d):
            Toy.save_pretrained(self, d)
            if Path(d).name=='unfinished' and len(log(tmp_path))>8: full()
        class Late(Toy): save_pretrained = save
        with pytest.raises(UserError, match='no room left on the disk.*goes on from step-0000008'): run(tmp_path, model=Late(3,1))
    assert checkpoints(tmp_path)==['step-0000008'] and not (tmp_path/'unfinished').exists()
    set_seed(3)
    start = Toy(3,1).weight
    again = run(tmp_path)
    assert steps(tmp_path)==list(range(17)) and not torch.equal(start, again.weight)

def test_full_disk_while_writing_the_log(tmp_path, monkeypatch):
    class Nearly:
        "A file with room for some bytes more"
        def __init__(self, f): self.f,self.room = f,600
        def write(self, b):
            if not self.room: full()
            n = self.f.write(b[:self.room])
            self.room -= n
            return n
    with monkeypatch.context() as m:
        real = Log.__init__
        m.setattr(Log, '__init__', lambda self, *a: real(self, *a) or setattr(self, 'f', Nearly(self.f)))
        with pytest.raises(UserError, match='no room left on the disk.*goes on from step-0000004'): run(tmp_path)
    assert (tmp_path/'log.jsonl').read_bytes()[-1:]!=b'\n'  # the last line is cut
    run(tmp_path)
    run(tmp_path/'whole')
    assert log(tmp_path)==log(tmp_path/'whole')

def test_a_process_that_is_lost_is_told_from_a_bug():
    assert 'process of this run was lost' in what_happened(RuntimeError('[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:534] Connection closed by peer [127.0.0.1]:4711'))
    assert what_happened(RuntimeError('mat1 and mat2 shapes cannot be multiplied')) is None

def test_folder_in_use_is_refused(tmp_path):
    with locked(tmp_path):
        with pytest.raises(UserError, match='another process is training'): run(tmp_path)
    run(tmp_path)

def test_other_settings_are_refused(tmp_path):
    run(tmp_path, settings=dict(data='a'))
    with pytest.raises(UserError, match=r"other settings, \(there, here\): {'lr': \(0.05, 0.06\)}"): run(tmp_path, lr=.06, settings=dict(data='a'))
    with pytest.raises(UserError, match='other settings'): run(tmp_path, settings=dict(data='b'))
    run(tmp_path, settings=dict(data='a'), save_every=5, workers=1, checkpointing=True)  # these change no number

@pytest.mark.parametrize('kw', [dict(steps=0), dict(save_every=0), dict(images_device=0), dict(eval_every=-1), dict(ratio=1.), dict(precision='fp16'), dict(on='some')])
def test_settings_that_cannot_be_meant(kw):
    with pytest.raises(UserError, match=next(iter(kw))): TrainConfig(**kw)

def test_products_in_bf16_leave_the_loss_in_float32():
    c,teacher = TrainConfig(**SIZE),ExactTeacher((3,3))
    student = Spa3R(Spa3RConfig.nano(dim=16, nh=2, enc_depth=1, dec_depth=1, n_latents=4))
    b = masked(c.batches(RoomSource((42,42), images=False)), c, 0, 0)
    loss = lambda m,b: t.psfm_loss(m, observe(teacher, *b))
    low,high = (Task(student, loss, bf16)(b)['loss'] for bf16 in (True,False))
    assert low.dtype==torch.float32 and 0<abs(low/high-1)<.02
    low.backward()
    assert all(p.grad.dtype==torch.float32 for p in student.parameters())

# --- schedule and groups

def test_schedule():
    c = TrainConfig.nano(steps=500)
    lrs = [c.lr_at(s) for s in range(500)]
    top = max(range(500), key=lrs.__getitem__)
    assert lrs[:top+1]==sorted(lrs[:top+1]) and lrs[top:]==sorted(lrs[top:], reverse=True) and top<=c.warmup
    assert abs(lrs[-1]/c.lr-c.lr_end)<1e-3

def test_the_log_has_the_learning_rate_at_full_precision(tmp_path):
    run(tmp_path)
    assert [l['lr'] for l in log(tmp_path)]==[config().lr_at(s) for s in range(17)]

@pytest.mark.parametrize('model', [lambda: Spa3R(Spa3RConfig.nano()), lambda: Lesson(VGGT(VGGTConfig.nano()), 5)])
def test_decay_spares_norms_biases_queries_and_tokens(model):
    model = model()
    decay,spare = param_groups(model, .1)
    ids,name = [{id(p) for p in g['params']} for g in (decay,spare)],{id(p):k for k,p in model.named_parameters()}
    assert not ids[0]&ids[1] and ids[0]|ids[1]==set(name) and (decay['weight_decay'],spare['weight_decay'])==(.1,0)
    assert all(name[i].endswith('weight') for i in ids[0])
    norms = {id(p) for m in model.modules() if isinstance(m, (nn.LayerNorm,nn.RMSNorm)) for p in m.parameters()}
    assert norms<=ids[1] and not any('query' in name[i] or 'token' in name[i] for i in ids[0])

# --- data

def test_masks_belong_to_seed_step_and_micro_batch():
    c = TrainConfig.nano(images=24, images_device=12, v_min=3, v_max=6)
    bs = c.batches(RoomSource(images=False))
    look = lambda s,m,c=c: masked(bs, c, s, m)
    (a,x),(b,y) = look(4,1),look(4,1)
    assert torch.equal(x, y) and torch.equal(a.cams.w2c, b.cams.w2c)
    one = replace(c, v_min=6)  # six views always, so that only the masks differ
    bs = one.batches(RoomSource(images=False))
    masks = lambda **kw: {k:tuple(masked(bs, replace(one, **kw), *k)[1].flatten().tolist()) for k in ((s,m) for s in range(4) for m in range(2))}
    assert len({v for (s,m),v in masks().items() if m==0})>2 and len({v for (s,m),v in masks().items() if s==0})==2
    assert sum(a!=b for a,b in zip(masks().values(), masks(seed=1).values()))>4

def test_training_never_sees_held_out_rooms():
    c = TrainConfig.nano(images=16, images_device=16, v_min=2, v_max=2)
    seen = [r.seed for s in range(10) for r in c.batches(RoomSource(images=False)).micro(s, 0).rooms.rooms]
    assert len(set(seen))==80 and max(seen)<HELD_OUT

def test_rooms_get_pictures_only_where_they_are_needed():
    c = TrainConfig.nano(images=4, images_device=4, v_min=2, v_max=2)
    class Looks(nn.Module):
        def observe(self, views, is_tgt): return views
    b = masked(c.batches(RoomSource((28,28), images=False)), c, 0, 0)
    assert observe(Looks(), *b).imgs.shape==(2,2,3,28,28)
    assert observe(ExactTeacher((2,2)), *b).feats['geo'].shape==(2,2,4,64)

# --- the command

TINY = dict(nano=True, steps=4, images=8, images_device=4, v_min=2, v_max=3, save_every=2, eval_every=0, quiet=True, device='cpu')

@pytest.fixture(scope='module')
def vggt(tmp_path_factory):
    "Folder of a patch encoder"
    d = tmp_path_factory.mktemp('vggt')
    set_seed(0)
    VGGT(VGGTConfig.nano(patch=14)).save_pretrained(d)
    return str(d)

@pytest.fixture
def photos(tmp_path):
    "Three scenes of six small pictures, one of them broken"
    from PIL import Image
    g = torch.Generator().manual_seed(0)
    for s in 'abc':
        (tmp_path/'photos'/s).mkdir(parents=True)
        for i in range(6): Image.fromarray((torch.rand(42, 56, 3, generator=g)*255).byte().numpy()).save(tmp_path/'photos'/s/f'{i}.png')
    (tmp_path/'photos'/'b'/'3.png').write_bytes(b'no picture')
    return str(tmp_path/'photos')

def test_what_says_nothing_is_refused(tmp_path):
    for kw,why in ((dict(semantic='nix'), 'nix'), (dict(eval_data='nix'), 'nix'), (dict(init=str(WEIGHTS/'nano')), '256')):
        with pytest.raises(UserError, match=why): pretrain(out=str(tmp_path), **TINY|kw)
    with pytest.raises(UserError, match='nowhere'): teach(out=str(tmp_path), init='nowhere')
    assert not {'ratio','v_max','smooth'} & set(inspect.signature(teach).parameters)

def test_pretrain_and_teach_end_to_end(tmp_path):
    teach(out=str(tmp_path/'teacher'), steps=1, images=6, images_device=6, quiet=True)
    s = pretrain(out=str(tmp_path/'student'), teacher=str(tmp_path/'teacher'), grid=3, **TINY)
    assert (tmp_path/'student'/'teacher'/'model.safetensors').read_bytes()==(tmp_path/'teacher'/'model.safetensors').read_bytes()  # the two travel together
    again = Spa3R.from_pretrained(tmp_path/'student')
    assert again.cfg.teacher=='teacher' and all(torch.equal(v, again.state_dict()[k]) for k,v in s.state_dict().items())

def test_pretrain_judges_itself_on_held_out_rooms(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(t, 'evaluate_field', lambda student,teacher,seeds,**kw: seen.append(seeds) or {'rows':{k:{m:{'mean':.5} for m in ('cosine','furniture')} for k in ('prediction','shuffled latents','nearest view')}})
    monkeypatch.setattr(t, 'fit_prior', lambda *a,**kw: 'prior')
    pretrain(out=str(tmp_path), grid=2, **TINY|dict(eval_every=2))
    assert [json.loads(l)['score'] for l in open(tmp_path/'eval.jsonl', encoding='utf8')]==[.5,.5] and (tmp_path/'best'/'config.json').exists()
    assert all(s>=HELD_OUT+10**6 for o in seen for s in o)

def test_going_on_needs_no_examples(tmp_path, monkeypatch):
    asked,real = [],t.observe
    monkeypatch.setattr(t, 'observe', lambda *a: asked.append(1) or real(*a))
    a = pretrain(out=str(tmp_path), grid=2, **TINY)
    assert len(asked)==4+4*2
    b = pretrain(out=str(tmp_path), grid=2, **TINY)
    assert len(asked)==4+4*2 and all(torch.equal(v, b.state_dict()[k]) for k,v in a.state_dict().items())  # the standardisation among them

def test_pretrain_on_photos(tmp_path, photos, vggt, capsys):
    kw = dict(data=photos, teacher=vggt, width=56, eval_data=photos, **TINY|dict(eval_every=2, steps=5))
    pretrain(out=str(tmp_path/'a'), max_broken=.5, **kw)
    said = capsys.readouterr().out
    assert 'epoch 0: ' in said and f'{photos}/b/3.png' in said
    scores = [json.loads(l) for l in open(tmp_path/'a'/'eval.jsonl', encoding='utf8')]
    assert [o['step'] for o in scores]==[2,4] and all(abs(o['score']+o['geo_cos']-1)<1e-6 for o in scores)
    with pytest.raises(UserError, match='are broken, more than 1.0%.*goes on from step-'): pretrain(out=str(tmp_path/'b'), **kw)

def test_cached_teacher_is_asked_once(tmp_path, vggt, monkeypatch):
    asked,real = [],t.observe
    monkeypatch.setattr(t, 'observe', lambda *a: asked.append(1) or real(*a))
    kw = dict(teacher=vggt, grid=3, **TINY|dict(steps=6))
    pretrain(out=str(tmp_path/'plain'), **kw)
    asked.clear()
    pretrain(out=str(tmp_path/'a'), cache=str(tmp_path/'cache'), cache_samples=8, **kw)
    assert len(asked)==8
    pretrain(out=str(tmp_path/'b'), cache=str(tmp_path/'cache'), cache_samples=8, workers=1, **kw)
    assert len(asked)==8 and log(tmp_path/'a')==log(tmp_path/'b')
    a,b = log(tmp_path/'a'),log(tmp_path/'plain')
    assert all(abs(x['loss']-y['loss'])<.02 for x,y in zip(a[:4], b)) and abs(a[4]['loss']-b[4]['loss'])>1e-4  # then come the first two steps again
    with pytest.raises(UserError, match='other settings'): pretrain(out=str(tmp_path/'c'), cache=str(tmp_path/'cache'), cache_samples=8, **kw|dict(seed=1))

def test_a_cache_is_walked_round_and_round(tmp_path):
    class Cache:
        n,folder = 8,tmp_path
        def get(self, i, make): return i,make()
    batch,look = t.cached(Cache(), config(images=4), lambda *key: key, lambda key: key)
    got = [look(batch(s, m)) for s in range(6) for m in range(2)]
    assert got==[(i%8, divmod(i%8, 2)) for i in range(12)]
    (tmp_path/'00000003.safetensors').touch()
    assert batch(1, 1)==(3, None) and batch(1, 0)==(2, (1,0))  # what is there is not made again, unless it turns out to be damaged
    assert look((3, None))==(3, (1,1))

def test_exact_teacher_knows_rooms_alone(tmp_path, photos):
    with pytest.raises(UserError, match='the exact teacher knows rooms'): pretrain(out=str(tmp_path), data=photos, **TINY)

def test_every_setting_is_an_option():
    import inspect
    from dataclasses import fields
    assert {f.name for f in fields(TrainConfig)}<=set(inspect.signature(pretrain).parameters)
    paper = TrainConfig()
    assert (paper.steps,paper.images,paper.images_device,paper.v_min,paper.v_max,paper.ratio,paper.lr,paper.weight_decay,paper.clip,paper.precision)==(80_000,384,24,4,12,.5,1e-3,1e-4,1.,'bf16')

def test_blocks_are_compiled_once_for_any_number_of_views(monkeypatch):
    "teacher and student, 4 to 12 views, with and without gradients: as many pieces as there are kinds of blocks, not more with every number"
    from torch._dynamo.testing import CompileCounter
    from spa3r.train.loop import compile_blocks
    from spa3r.model.psfm import draw_targets,psfm_loss
    from spa3r.teachers.teachers import VGGTTeacher
    from spa3r.data.batches import Views
    count,real,made = CompileCounter(),torch.compile,[]
    monkeypatch.setattr(torch, 'compile', lambda f, **kw: real(f, backend=count, **kw))
    torch._dynamo.reset()
    teacher = VGGTTeacher(VGGT(VGGTConfig.nano(patch=14, dim=32, depth=2, nh=2, heads=('camera','depth'))))
    student = Spa3R(Spa3RConfig.nano(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=4, geo_channels=64))
    for m in (teacher,student): compile_blocks(m)
    for v in (4,5,6,8,11,12,4):
        psfm_loss(student, teacher.observe(Views(torch.rand(1,v,3,14,14)), draw_targets(1, v)))['loss'].backward()
        made.append(count.frame_count)
    assert made[1]==made[-1]<=8, made
    torch._dynamo.reset()

def test_products_of_a_cpu_in_bf16(tmp_path):
    "an option: nearly the same curve, and the setting is gone afterwards"
    a,b = [small(tmp_path/p, TrainConfig(**SIZE|dict(steps=3), precision=p)) and log(tmp_path/p) for p in ('bf16','bf16_cpu')]
    assert [r['loss'] for r in b]==pytest.approx([r['loss'] for r in a], rel=.01)
    assert torch.get_float32_matmul_precision()=='highest'
    from spa3r.train.loop import multiplying
    with multiplying(True): assert torch.get_float32_matmul_precision()=='medium' and not torch.backends.cuda.flash_sdp_enabled()
    assert torch.get_float32_matmul_precision()=='highest' and torch.backends.cuda.flash_sdp_enabled()

def test_a_batch_goes_ahead_and_choices_stay():
    from spa3r.train.loop import to_device
    from spa3r.data.batches import Views
    v,is_tgt,i,rest = to_device((Views(torch.zeros(1,2,3,4,4, dtype=torch.uint8)),torch.ones(1,2, dtype=bool),3,[dict(x=torch.ones(2))]), torch.device('meta'))
    assert (v.imgs.device.type,v.imgs.dtype,is_tgt.device.type,i,rest[0]['x'].device.type)==('meta',torch.uint8,'cpu',3,'meta')

GROUP = """
import atexit
from torch import distributed as dist
@atexit.register
def after(): print('left:', not dist.is_initialized())
import spa3r.train.loop
from tempfile import mkdtemp
dist.init_process_group('gloo', init_method=f'file://{mkdtemp()}/f', rank=0, world_size=1)
"""

def test_processes_part_before_python_ends():
    "What is registered later runs first: the group is gone when the first is called"
    r = subprocess.run([sys.executable, '-c', GROUP], capture_output=True, encoding='utf8')
    assert r.returncode==0 and r.stdout=='left: True\n', r.stderr
