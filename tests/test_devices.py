"Commands on a second device, made of the CPU: nothing may be left behind there, and everything comes out the same"
import importlib, json, os, re, subprocess, sys
from pathlib import Path
import pytest
import torch

pytest.importorskip('torch.utils.backend_registration', reason='a torch without devices made in Python')
if not hasattr(torch.utils.backend_registration, '_setup_privateuseone_for_python_backend'): pytest.skip('a torch without devices made in Python', allow_module_level=True)

HERE = Path(__file__).parent
SMALL = dict(steps=2, images=12, images_device=6, quiet=True)

def lines(path): return [json.loads(o) for o in path.read_text(encoding='utf8').splitlines()]
def losses(out): return [o['loss'] for o in lines(out/'log.jsonl') if 'loss' in o]
def page(out):
    s = (out/'it').read_text(encoding='utf8')
    return [o['cos'] for o in json.loads(re.search(r'id="data">(.*?)</script>', s, re.S)[1])['stops']]
def numbers(o):
    "All numbers in a result, but for times"
    if isinstance(o, dict): return [x for k,v in sorted(o.items()) for x in numbers(v) if k not in ('seconds','time','date')]
    return [x for v in o for x in numbers(v)] if isinstance(o, list) else [o] if isinstance(o, (int,float)) and o==o else []
def result(out): return numbers(json.loads((out/'it').read_text(encoding='utf8')))

# command, options, what to compare, how many operations it takes at least
RUNS = dict(
    demo=('view.page:demo', dict(weights='nano', rooms=0, views=4, between=1, out='it'), page, 5000),
    probe=('probe.probes:probe', dict(weights='nano', scenes=2, views=4, n_ctx=2, batch=2, out='it'), result, 10_000),
    teach=('train.teach_vggt:teach', SMALL|dict(out='.'), losses, 10_000),
    pretrain=('train.pretrain:pretrain', SMALL|dict(nano=True, steps=3, eval_every=2, v_min=3, v_max=3, out='.'), losses, 10_000),
    pretrain_vggt=('train.pretrain:pretrain', SMALL|dict(nano=True, eval_every=0, v_min=3, v_max=3, teacher=str(HERE.parent/'spa3r/weights/nano/teacher'), cache='cache', out='.'), losses, 5000),
    vsibench=('bench.evaluate:evaluate', dict(rooms=1, frames=4, limit=8, out='it'), result, 1000),
    finetune=('train.finetune:finetune', dict(model=str(HERE.parent/'spa3r/weights/vlm'), nano=True, rooms=2, steps=1, turns=4, frames=4, quiet=True, out='.'), losses, 1000))

def words(options, folder):
    "As on the command line"
    for k,v in options.items(): yield from [f'--{k}'] if v is True else [f'--{k}', str(folder/v) if k in ('out','cache') else str(v)]

def on_far(what, *args, path=HERE.parent):
    return subprocess.run([sys.executable, HERE/'second_device.py', what, *args], capture_output=True, encoding='utf8', timeout=600, env=os.environ|dict(PYTHONPATH=str(path)))

def test_the_device_is_strict(tmp_path):
    (tmp_path/'slips.py').write_text('''
import torch
a = lambda: torch.arange(3., device='far')
def fine(): assert (a()[torch.tensor([0,2])]*2).sum().item()==4 and (a()*torch.tensor(2.)).tolist()==[0,2,4]
def mixed(): a()*torch.ones(3)
def layer(): torch.nn.Linear(3, 2)(a())
def index(): torch.ones(3)[a().long()]
def put(): a()[[0,1]] = torch.ones(2)
def numpy(): a().numpy()
''', encoding='utf8')
    run = lambda name: on_far(f'slips:{name}', path=tmp_path)
    assert not run('fine').returncode
    for name in ('mixed', 'layer', 'index', 'put'):
        assert (p := run(name)).returncode and 'on the CPU and on the far device' in p.stderr, name
    assert run('numpy').returncode

def here(name, folder, device):
    "Run it in this process; what it comes to"
    what,options,look,_ = RUNS[name]
    module,f = what.split(':')
    folder.mkdir()
    getattr(importlib.import_module(f'spa3r.{module}'), f)(**{k:folder/v if k in ('out','cache') else v for k,v in options.items()}, device=device)
    return look(folder)

@pytest.mark.parametrize('name', RUNS)
def test_same_on_another_device(name, tmp_path):
    what,options,look,least = RUNS[name]
    (far := tmp_path/'far').mkdir()
    p = on_far(f'spa3r.{what}', *words(options, far), '--device', 'far')
    assert not p.returncode, p.stderr[-3000:]
    done = int(re.search(r'(\d+) operations on the far device', p.stdout)[1])
    assert done>least, done
    a,b = here(name, tmp_path/'cpu', 'cpu'),look(far)
    off = [(x,y) for x,y in zip(a, b, strict=True) if y!=pytest.approx(x, abs=1e-4, rel=1e-4)]
    assert a and len(off)<=12*(name=='probe') and all(y==pytest.approx(x, abs=.03) for x,y in off), off  # a patch between two classes may tip, and with it a few shares

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
@pytest.mark.parametrize('name', ['demo','teach','pretrain','pretrain_vggt'])
def test_much_the_same_on_a_gpu(name, tmp_path):
    assert here(name, tmp_path/'gpu', 'cuda')==pytest.approx(here(name, tmp_path/'cpu', 'cpu'), rel=.02)  # it multiplies in bfloat16

@pytest.mark.parametrize('kw', [dict(teacher=str(HERE.parent/'spa3r/weights/nano/teacher')), dict(on='all', checkpointing=True)])
def test_learns_the_same_in_half_the_bits(kw, tmp_path, monkeypatch):
    "As on a GPU: teacher and student multiply in bfloat16"
    from spa3r.train import loop, pretrain as training
    run = lambda out: losses(training.pretrain(**SMALL|dict(nano=True, steps=3, eval_every=0, v_min=3, v_max=3, device='cpu', out=tmp_path/out)|kw) and tmp_path/out)
    a,begin = run('a'),loop.Task.__init__
    monkeypatch.setattr(loop.Task, '__init__', lambda self, model, loss, bf16=False: begin(self, model, loss, True))
    monkeypatch.setattr(training, 'pick_dtype', lambda device: torch.bfloat16)
    b = run('b')
    assert a!=b and b==pytest.approx(a, rel=.005)

def test_live_on_another_device(tmp_path):
    (tmp_path/'lively.py').write_text('''
import sys, numpy as np
from spa3r.view.live import WEAR,State,painter,photo_place,room_place
from spa3r.teachers.teachers import load_student
def main():
    to = sys.argv[1]
    exact,nano = [load_student(o, to) for o in ('exact','nano')]
    room = room_place(*exact[:2], views=4, device=to)
    for place in (room, photo_place(*nano[:2], room.imgs[:,:,:112,:112], device=to)):
        for w in WEAR: print(np.round(painter(place)(State((True,False,True,False), colour=w, picked=(1,5), off=frozenset({3}))).rgb.mean(), 1))
''', encoding='utf8')
    a,b = [subprocess.run([sys.executable, HERE/'second_device.py', 'lively:main', to], capture_output=True, encoding='utf8', env=os.environ|dict(PYTHONPATH=f'{HERE.parent}:{tmp_path}')) for to in ('cpu','far')]
    assert not b.returncode, b.stderr[-3000:]
    a,b = [[*map(float, p.stdout.split('\n')[:-2])] for p in (a,b)]
    assert len(a)==12 and b==pytest.approx(a, abs=.3)

def test_a_step_waits_for_nothing(tmp_path):
    "On a GPU Python runs ahead: nothing in a micro-batch asks for a number, from the batch's way there to its gradients"
    (tmp_path/'steps.py').write_text('''
import __main__ as far
import torch
from spa3r.train.loop import TrainConfig,to_device
from spa3r.model.psfm import Spa3R,Spa3RConfig,psfm_loss
from spa3r.teachers.teachers import ExactTeacher,load_teacher
from spa3r.train.teach_vggt import LESSONS,Lesson,lesson_views,teach_loss
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.train.pretrain import masked,observe
from spa3r.data.batches import RoomSource
def count(name, f):
    f()  # what is made once
    n = len(far.waits)
    f()
    print(name, far.waits[n:])
def main():
    cfg,there = TrainConfig.nano(images=6, images_device=6, v_min=3, v_max=3),torch.device('far', 0)
    for name,t in (('photos',load_teacher(TEACHER).to('far')),('exact',ExactTeacher((8,8)).to('far'))):
        batch = masked(cfg.batches(RoomSource((28,28), images=name=='photos')), cfg, 0, 0)
        s = Spa3R(Spa3RConfig.nano(geo_channels=t.channels['geo'])).to('far')
        count(name, lambda: psfm_loss(s, observe(t, *to_device(batch, there)))['loss'].backward())
    batch = next(b for b in (lesson_views(LESSONS, i) for i in range(2000, 2100)) if b[1].any())
    lesson = Lesson(VGGT(VGGTConfig.nano()), 21).to('far')
    count('lesson', lambda: teach_loss(lesson, to_device(batch, there))['loss'].backward())
'''.replace('TEACHER', repr(str(HERE.parent/'spa3r/weights/nano/teacher'))), encoding='utf8')
    p = subprocess.run([sys.executable, HERE/'second_device.py', 'steps:main'], capture_output=True, encoding='utf8', env=os.environ|dict(PYTHONPATH=f'{HERE.parent}:{tmp_path}'))
    assert not p.returncode, p.stderr[-3000:]
    assert p.stdout.split('\n')[:3]==['photos []','exact []','lesson []']
