"What every command promises: nothing lost, nothing silently wrong, no foreign code, an end that can be gone on from"
import json,os,shutil,signal,subprocess,sys,time
from dataclasses import fields
from pathlib import Path
import pytest,torch
import spa3r.bench.baselines as b
from spa3r.language.chat import load_chat
from spa3r.util.core import UserError,check_outputs,limits_of
from spa3r.bench.evaluate import SHIPPED,ask_id,beside,with_film
from spa3r.train.finetune import TuneConfig
from spa3r.view.live import _stranger,check_address
from spa3r.train.loop import TrainConfig,checkpoints,fit
from spa3r.model.patch_encoder import VGGTConfig
from spa3r.model.psfm import Spa3RConfig
from small_run import SIZE,small

here = Path(__file__).parent
def log(d): return [json.loads(l) for l in open(Path(d)/'log.jsonl', encoding='utf8')]
def python(code, *args, **env): return subprocess.run([sys.executable, '-c', code, *map(str, args)], capture_output=True, encoding='utf8', cwd=here, env=os.environ|dict(HF_HUB_OFFLINE='1')|env, timeout=600)

@pytest.mark.parametrize('cfg', [TrainConfig, TuneConfig, Spa3RConfig, VGGTConfig])
def test_every_number_of_a_configuration_has_a_range(cfg):
    limits,whole = limits_of(cfg)
    assert {f.name for f in fields(cfg) if f.type in (int,float)}<=limits.keys() and whole<=limits.keys()
    for k in whole:
        with pytest.raises(UserError, match=k): cfg(**{k:10**25})
        with pytest.raises(UserError, match=k): cfg(**{k:1.5})

@pytest.mark.parametrize('method', ['fork','forkserver','spawn'])
def test_workers_under_every_start_method(tmp_path, method):
    if method!='spawn' and os.name=='nt': pytest.skip('Windows spawns')
    small(tmp_path/'alone', TrainConfig(**SIZE|dict(steps=3)))
    r = python(f"import sys,multiprocessing\nmultiprocessing.set_start_method({method!r})\nfrom small_run import *\nsmall(Path(sys.argv[1]), TrainConfig(**SIZE|dict(steps=3), workers=2))", tmp_path/'helped')
    assert not r.returncode, r.stderr[-2000:]
    assert log(tmp_path/'alone')==log(tmp_path/'helped')

@pytest.mark.parametrize('sig', [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_stopped_goes_on(tmp_path, sig):
    opts = [f'--{k}={v}' for k,v in (SIZE|dict(steps=12, save_every=100)).items()]
    p = subprocess.Popen([sys.executable, here/'small_run.py', f'--out={tmp_path}/a', '--pause=.3', *opts], stderr=subprocess.PIPE, encoding='utf8')
    while p.poll() is None and not ((tmp_path/'a'/'log.jsonl').exists() and log(tmp_path/'a')): time.sleep(.05)
    p.send_signal(sig)
    said = p.communicate()[1]
    n = len(log(tmp_path/'a'))
    assert p.returncode==128+sig and f'stopped after {n} of 12 steps: run it again to go on' in said and n<12
    assert [o.name for o in checkpoints(tmp_path/'a')]==[f'step-{n:07d}']
    cfg = TrainConfig(**SIZE|dict(steps=12, save_every=100))
    small(tmp_path/'a', cfg), small(tmp_path/'whole', cfg)
    assert log(tmp_path/'a')==log(tmp_path/'whole')

@pytest.mark.skipif(not SHIPPED.is_dir(), reason='no weights')
@pytest.mark.parametrize('part', ['AutoConfig','AutoModelForImageTextToText'])
def test_python_in_a_model_folder_is_never_run(tmp_path, part, monkeypatch):
    monkeypatch.setattr('builtins.input', lambda *a: 'y')
    d = shutil.copytree(SHIPPED, tmp_path/'model')
    (d/'evil.py').write_text(f'open({str(tmp_path/"ran")!r}, "w")\nclass Evil: pass\n', encoding='utf8')
    cfg = json.loads((d/'config.json').read_text(encoding='utf8'))
    (d/'config.json').write_text(json.dumps(cfg|dict(model_type='evil', auto_map={part:'evil.Evil'})), encoding='utf8')
    with pytest.raises(UserError, match='cannot be loaded'): load_chat(str(d))
    assert not (tmp_path/'ran').exists()

def test_a_torchvision_of_another_torch_is_set_aside(tmp_path):
    (tmp_path/'torchvision').mkdir()
    (tmp_path/'torchvision'/'__init__.py').write_text("raise RuntimeError('operator torchvision::nms does not exist')", encoding='utf8')
    r = python('import spa3r.train.finetune,spa3r.language.chat,transformers; from transformers import PreTrainedModel; print(transformers.utils.is_torchvision_available())', PYTHONPATH=str(tmp_path))
    assert r.returncode==0 and r.stdout.strip()=='False', r.stderr[-2000:]
    assert r.stderr.count('torchvision does not work')==1 and 'pip install torch torchvision' in r.stderr and 'Traceback' not in r.stderr
    for p in sorted((here.parent/'spa3r').rglob('*.py')):  # whoever imports transformers asks first
        s = p.read_text(encoding='utf8')
        if p.stem!='core' and ('from transformers' in s or 'import transformers' in s): assert 'spare_torchvision()' in s or 'import BASES' in s or 'PretrainedConfig' in s, p.name

def test_what_is_written_harms_nothing_that_is_read(tmp_path):
    data,out = tmp_path/'data',tmp_path/'data'/'result.json'
    data.mkdir(), (data/'config.json').write_text('{}', encoding='utf8'), (tmp_path/'link').symlink_to(data), os.mkfifo(tmp_path/'pipe')
    check_outputs(out, sources=[data])
    out.write_text('{"rows": {}}', encoding='utf8')
    check_outputs(out, sources=[data])  # a table of ours may be written again
    for o,kw in ((data,dict(folder=True)), (tmp_path/'link',dict(folder=True)), (tmp_path,dict(folder=True)), (data/'config.json',{}), (tmp_path/'link'/'config.json',{}), (tmp_path/'pipe',{}), (tmp_path/'pipe'/'x',{}), (data,{})):
        with pytest.raises(UserError, match='Cannot write'): check_outputs(o, sources=[data], **kw)
    assert beside('run.v1', '.png')!=beside('run.v2', '.png') and beside('res.png', '.png')!=Path('res.png')

def test_a_full_disk_is_known_before(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, 'disk_usage', lambda p: type('U', (), dict(free=1000)))
    with pytest.raises(UserError, match='MB are needed'): check_outputs(tmp_path/'a.html')

def test_another_film_under_the_same_name_is_asked_again(tmp_path):
    (tmp_path/'a.mp4').write_bytes(b'one')
    films = type('F', (), dict(find=lambda self, q: tmp_path/'a.mp4'))()
    q = dict(id=0, dataset='a', scene_name='a', question_type='object_counting', question='How many?', options=None, ground_truth='2')
    before = with_film([q], films)
    assert ask_id(before[0])==ask_id(with_film([q], films)[0])
    (tmp_path/'a.mp4').write_bytes(b'two')
    assert ask_id(before[0])!=ask_id(with_film([q], films)[0])

def test_guessing_compares_with_so_many_and_no_more(monkeypatch):
    seen,real = [],b._Known.__init__
    monkeypatch.setattr(b._Known, '__init__', lambda self, qs: seen.append(len(qs)) or real(self, qs))
    monkeypatch.setattr(b, 'MOST', 10)
    qs = [dict(id=i, dataset='a', scene_name=f's{i//4}', question_type='object_counting', question=f'How many {i%7}?', options=None, ground_truth=str(i%5)) for i in range(400)]
    assert len(b.blind_answers(qs))==400 and max(seen)==10 and len(seen)==5

def test_the_viewer_knows_strangers():
    ours = dict(Host='localhost:8080', Origin='http://localhost:8080')
    assert not _stranger('127.0.0.1', ours) and not _stranger('127.0.0.1', dict(Host='127.0.0.1:8080'))
    assert _stranger('127.0.0.1', ours|dict(Origin='http://evil.example')) and _stranger('127.0.0.1', dict(Host='evil.example:8080', Origin='http://evil.example:8080'))
    assert not _stranger('0.0.0.0', dict(Host='lab:8080', Origin='http://lab:8080')) and _stranger('0.0.0.0', dict(Host='lab:8080', Origin='http://evil.example'))
    for host in ('', '999.1.1.1', 'no host', 'a'*300):
        with pytest.raises(UserError, match='host|serve'): check_address(host, 8080)
    check_address('127.0.0.1', 0)
