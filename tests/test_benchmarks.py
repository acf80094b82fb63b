"Every benchmark runs at its smallest size and prints its lines; none of the numbers is judged by how fast it is"
import json,re,runpy,subprocess,sys
from pathlib import Path
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from browser import CHROMIUM
from spa3r.train.speedrun import PARTS

HERE = Path(__file__).parent.parent/'benchmarks'
NUMBER = r'-?\d[\d.,]*(?:e[-+]?\d+)?'

@pytest.fixture
def run(monkeypatch, capfd):
    "What a benchmark prints; it runs in this process, which has torch already, apart from rows that start their own"
    def f(name, *args):
        monkeypatch.syspath_prepend(HERE)
        monkeypatch.setattr(sys, 'argv', [f'{name}.py', *args])
        runpy.run_path(str(HERE/f'{name}.py'), run_name='__main__')
        return capfd.readouterr().out
    return f

def rows(out, start, n):
    "The `n` numbers at the end of each line that begins with `start`"
    got = [re.search(rf'((?:\s{NUMBER}){{{n}}})\s*$', re.sub(' +', ' ', l)) for l in out.splitlines() if re.match(rf'\s*{start}', l)]
    assert got and all(got), out
    return [[float(x.replace(',','')) for x in m[1].split()] for m in got]

def test_aggregation_forms_agree(run):
    out = run('aggregation', '--views', '2', '--repeats', '1')
    (n,dense),(m,two) = re.findall(r'^ +2 +(\d+) (dense|two calls)', out, re.M)
    assert (n,m,dense,two)==('658','658','dense','two calls')
    assert all(t>=part>0 and peak>added for t,part,peak,added in rows(out, r'2 +658', 4))
    diff,size = map(float, re.search(r'largest difference (\S+) of tokens up to (\S+)', out).groups())
    assert diff<1e-5<size

def test_student_step_rows(run):
    out = run('student_step', '--rounds', '1', '--repeats', '1', '--dim', '64')
    times = {k:rows(out, f'{k}  ', 4)[0] for k in ('targets','all','all, checkpointing','all, bf16')}
    assert all(median>=best>0 and peak>added for median,best,peak,added in times.values())
    ratios = {k:float(x) for k,x in re.findall(r'^(.*): (\S+) of the time of all', out, re.M)}
    assert set(ratios)==set(times) and ratios['all']==1 and 'official' not in out  # another code is not compared with in another run

CHECKOUT = '''
import torch
from torchvision.transforms.v2 import functional
from vggt.utils.pose_enc import pose_encoding_to_extri_intri
from spa3r.model.cameras import Cameras
from spa3r.model.psfm import Spa3R as Ours,Spa3RConfig,official_name,psfm_loss
from spa3r.teachers.teachers import Observation
from .masked_vggt import MaskedVGGT
class Spa3R(Ours):
    def __init__(self, dim, num_queries, num_encoder_layers, num_decoder_layers, num_heads):
        v,dino = MaskedVGGT.from_pretrained(''),torch.hub.load('', '')
        super().__init__(Spa3RConfig(dim=dim, nh=num_heads, enc_depth=num_encoder_layers, dec_depth=num_decoder_layers, n_latents=num_queries,
                                     geo_channels=2*v.aggregator.patch_embed.embed_dim, sem_channels=dino.embed_dim))
        self.v = v
    def named_parameters(self, *args, **kw): return ((official_name(k),p) for k,p in super().named_parameters(*args, **kw))
    def forward(self, inputs, *args, mode=None, **kwargs):
        if mode is None: return super().forward(inputs, *args, **kwargs)
        hw,mask = inputs['images'].shape[-2:],self._random_masking(inputs['images'].shape[:2], .5)
        (geo,),_ = self.v.aggregator(inputs['images'], view_mask=mask)
        P,K = pose_encoding_to_extri_intri(self.v.camera_head([geo])[-1], hw)
        depth = self.v.depth_head([geo], images=inputs['images'], patch_start_idx=0)[0].flatten(2)
        cams = Cameras(torch.cat([P, torch.tensor([0,0,0,1.]).expand_as(P[...,:1,:])], -2), K, hw)
        obs = Observation(geo[~mask][None], {'geo':geo, 'sem':self._extract_dino_features(inputs['images'], hw)}, cams, depth, tuple(o//self.v.aggregator.patch_size for o in hw), mask)
        return {k:SCALE*x for k,x in psfm_loss(self, obs, on='all', smooth=True).items() if k!='loss'}
'''

def checkout(folder, scale):
    (folder/'spa3r/models').mkdir(parents=True)
    (folder/'spa3r/models/__init__.py').write_text('from .spa3r import Spa3R', encoding='utf8')
    (folder/'spa3r/models/spa3r.py').write_text(CHECKOUT.replace('SCALE', str(scale)), encoding='utf8')
    return ['--dim', '64', '--official', str(folder)]

def test_a_checkout_of_our_own_student_is_ours(tmp_path):
    p = subprocess.run([sys.executable, HERE/'student_step.py', '--only', 'agreement', *checkout(tmp_path, 1)], capture_output=True, encoding='utf8')
    assert not p.returncode and json.loads(p.stdout)|dict(parameters=0)==dict(parameters=0, loss=0, gradients=0), p.stderr

def test_student_step_beside_a_checkout(run, tmp_path):
    "one whose loss is half as large again: ours is off by a third of it"
    out = run('student_step', '--rounds', '1', '--repeats', '1', *checkout(tmp_path, 1.5))
    loss,grads = map(float, re.search(r'from the official by (\S+), gradients by (\S+) of', out).groups())
    assert loss==pytest.approx(1/3, abs=.04) and grads==.5
    ratios = {k:float(x) for k,x in re.findall(r'^(.*): (\S+) of the time of official', out, re.M)}
    assert len(ratios)==5 and ratios['official']==1 and len(rows(out, 'official  ', 4))==1

def test_student_step_needs_a_checkout(run, tmp_path):
    with pytest.raises(SystemExit, match='2'): run('student_step', '--official', str(tmp_path))

def test_pretrain_step_counts_operations(run):
    out = run('pretrain_step', '--nano', '--views', '2', '--repeats', '1')
    assert re.search(r'12 images, 2 views', out) and re.search(rf'{NUMBER} images a CPU-second', out) and 'matmul rate of' in out
    parts = rows(out, '(?:teacher|student|backward)', 4)
    assert len(parts)==6 and all(p[0]>0 and min(p)>=0 for p in parts)  # a share below half a percent is printed as 0
    assert sum(p[1] for p in parts)==pytest.approx(1, abs=.04) and sum(p[2] for p in parts)==pytest.approx(1, abs=.04)
    assert len(rows(out, 'aten::', 2))>=5

def test_loader_rows(run):
    out = run('loader', '--batches', '3', '--images', '4', '--views', '2', '--scenes', '2', '--photos', '3', '--width', '160', '--view', '56')
    for kind in ('JPEG','rooms'):
        got = rows(out, f'{kind}.*[^e] +\\d+ +\\S+ +\\S+ +\\S+$', 4)
        assert [g[0] for g in got]==[0,2] and all(g[1]>0 and g[2]>0 and 0<=g[3]<=1 for g in got)
        assert re.search(rf'{kind}.*: 2 workers / none {NUMBER}', out)

@pytest.mark.parametrize('name,args,says', [
    ('rooms_rate', ['--views','2','--size','28','--batch','1','--seconds','.05'], 'scenes/s by the clock'),
    ('questions_rate', ['--seconds','.05'], 'questions')])
def test_rates(run, name, args, says): assert re.search(rf'{NUMBER} .*{says}', run(name, *args))

def test_full_size_needs_a_gpu(run, monkeypatch):
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    with pytest.raises(SystemExit, match='--nano'): run('pretrain_step')

@pytest.mark.skipif(not CHROMIUM, reason='no Chromium on this machine (apt-get install chromium)')
def test_page_latency_rows(run):
    pytest.importorskip('websocket', reason='websocket-client, of the extra `dev`, is not installed')
    out = run('page_latency', '--cameras', '2')
    assert len(re.findall(rf'^nano, with(?:out)? 3D view: best {NUMBER}, median {NUMBER}, .* off by {NUMBER}; load', out, re.M))==2

@pytest.mark.parametrize('row,variants', [('camera', 3), ('targets', 3), ('teacher', 3)])
def test_a_row_of_comparisons(run, tmp_path, row, variants):
    run('ablate', row, '--steps', '2', '--seeds', '1', '--scenes', '2', '--out', str(tmp_path))
    d = json.loads((tmp_path/f'{row}.json').read_text(encoding='utf8'))
    assert d['row']==row and len(d['runs'])==variants and d['command'].startswith(f'python benchmarks/ablate.py {row} --steps 2')
    numbers = [[r['prediction']['furniture' if row=='targets' else 'cosine'] for r in v] for v in d['runs'].values()]
    assert all(len(v)==1 for v in numbers) and (row=='targets' or len({x for v in numbers for x in v})==variants)  # each variant differs

def test_ways_of_telling_a_language_model(run, tmp_path, monkeypatch):
    "Each run is kept: what goes on asks for the missing ones only, and says the same"
    from spa3r.train import finetune
    finetune.finetune(nano=True, fusion='none', rooms=2, turns=2, frames=2, accumulate=1, steps=1, quiet=True, device='cpu', out=str(tmp_path/'base'))
    args = [str(tmp_path/'base'), '--rooms', '1', '--passes', '1', '--judged', '1', '--seeds', '0', '--keep', str(tmp_path/'kept'), '--out', str(tmp_path)]
    run('ablate_vlm', *args)
    first = json.loads((tmp_path/'language.json').read_text(encoding='utf8'))
    assert len(first['runs'])==5 and all(0<=r['overall']<=100 for v in first['runs'].values() for r in v) and set(first['beside'])>={'frequency','blind'}
    next((tmp_path/'kept').glob('no geometry 0*')).unlink()
    asked,get = [],finetune.RoomTalks.__getitem__
    monkeypatch.setattr(finetune.RoomTalks, '__getitem__', lambda self, i: asked.append(i) or get(self, i))
    run('ablate_vlm', *args)
    assert len(asked)==1 and json.loads((tmp_path/'language.json').read_text(encoding='utf8'))['runs']==first['runs']

def test_listeners_side_by_side(run, tmp_path):
    from spa3r.train.listen import listen
    for fusion in ('none','append'):
        listen(str(tmp_path/fusion), 'ask', fusion, 'exact', rooms=str(tmp_path/'rooms'), n=2, steps=1, images=8,
               images_device=8, eval_every=0, quiet=True)
    folder = str(tmp_path/'append')
    out = run('listeners', f"none={tmp_path/'none'}", f'append={folder},{folder}', '--rooms', '5',
              '--lessons', str(tmp_path/'rooms'), '--out', str(tmp_path/'r.json'))
    r = json.loads((tmp_path/'r.json').read_text(encoding='utf8'))
    assert set(r['runs'])=={'chance','frequency','blind','none','append','append, another room'}
    assert {'none - blind','append - none','append - append, another room'}<=set(r['minus']) and 'append - none' in out
    assert r['models']['none']['changed']==[] and len(r['models']['append']['changed'])==2
    assert len(set(r['models']['append']['overall']))==1  # twice the same folder
    assert r['runs']['append']['scores']['overall']==pytest.approx(r['models']['append']['overall'][0], abs=1e-3)
    assert len(r['said']['append'])==len(r['asked']) and len(r['models']['none']['map']['names'])==len(r['models']['none']['map']['true'])

def test_a_reader_of_latents_beside_the_truth(run, tmp_path):
    out = run('latent_reader', 'exact', '--rooms', '4', '--unseen', '6', '--steps', '2', '--lessons', str(tmp_path))
    assert [l.split(': places')[0] for l in out.splitlines()[:3]]==['the truth','means','exact'] and out.count(' m [')==3
    overall = next(l for l in out.splitlines() if l.startswith('overall'))
    truth,means,_ = [float(x) for x in re.findall(r'([0-9.]+) \[', overall)]
    assert truth>90 and truth>means+20

def test_a_reader_finds_places_where_there_are_some():
    m = runpy.run_path(str(HERE/'latent_reader.py'))
    g = torch.Generator().manual_seed(0)
    true = 2*torch.randn(200, len(m['NAMES']), m['FACTS'], generator=g)
    true[torch.rand(true.shape[:2], generator=g)<.3] = torch.nan
    z = torch.cat([true.nan_to_num(), torch.eye(len(m['NAMES'])).expand(200, -1, -1)], -1)  # one latent a name
    def off(z):
        reader = m['learn'](z[:180], true[:180], 150)
        return (reader(z[180:])-true[180:])[...,1:4].norm(dim=-1).nanmedian()
    assert off(z)<off(torch.randn(z.shape, generator=g))/2

def test_rules_answer_a_route_from_places():
    m = runpy.run_path(str(HERE/'latent_reader.py'))
    f = np.zeros((len(m['NAMES']),m['FACTS']))
    for name,at in (('bed',(0,0)), ('tv',(0,3)), ('sofa',(3,3)), ('lamp',(3,0))): f[m['NAMES'].index(name),1:3] = at
    fill = '[please fill in]'
    ask = lambda steps: (f"You are a robot beginning at the bed and facing the tv. You want to navigate to the lamp. You will perform "
                         f"the following actions (Note: for each {fill}, choose either 'turn back,' 'turn left,' or 'turn right.'): {steps}")
    straight = ask(f'1. Go forward until the tv. 2. {fill} 3. Go forward until the sofa. 4. {fill} 5. Go forward until the lamp.')
    assert np.allclose(m['turns'](straight, f[:,1:3]), (-90,-90))
    assert np.allclose(m['turns'](ask(f'1. {fill} 2. Go forward until the lamp.'), f[:,1:3]), (-90,))
    q = dict(question_type='route_planning', question=straight, options=['A. Turn Left, Turn Right','B. Turn Right, Turn Right'])
    assert m['answer'](q, f, None)=='B'

def test_a_gpu_session_in_toys_sizes(tmp_path):
    "All parts work before they cost anything; one that is cut short keeps what it had"
    p = subprocess.run([sys.executable, HERE.parent/'tools/gpu_session.py', tmp_path/'out', '--device', 'cpu', '--tiny', '--minutes', '60'], capture_output=True, encoding='utf8')
    assert not p.returncode, p.stderr
    r = json.loads((tmp_path/'out/results.json').read_text(encoding='utf8'))
    bad = {k:v for k,v in r.items() if any('failed' in o or 'ended' in o or 'not_run' in o for o in v)}
    assert not bad and list(r)==['machine','tests','nano','step','spatial','tune','prefix','resume'], (bad, p.stdout[-5000:])
    assert all(len(v)>1 and v[-1]['seconds']>0 for k,v in r.items() if k!='machine')
    assert r['nano'][-2]['what']=='speedrun' and list(r['nano'][-2]['parts'])==[p.name for p in PARTS]
    run = tmp_path/'out/speedrun'
    assert all((run/p.name/'model.safetensors').is_file() for p in PARTS) and (run/'report.html').is_file() and not list(run.rglob('*.pt'))
    assert 0<r['step'][0]['of_matmul_rate']<1 and {o['dtype'] for o in r['spatial'][:-1]}=={'torch.float32','torch.bfloat16'}
    assert r['tune'][0]['tokens_a_second']>0 and 'watched once' in r['prefix'][0]['said'] and r['resume'][0]['steps']==[0,1]
    assert len(list((tmp_path/'out').iterdir()))<=8 and (tmp_path/'out/session.txt').stat().st_size>1000

def test_a_gpu_session_ends_in_time(tmp_path, monkeypatch):
    "A part that never ends is ended, and what it had found is kept; for what comes after there may be no time"
    m = SimpleNamespace(**runpy.run_path(str(HERE.parent/'tools/gpu_session.py')))
    (p := tmp_path/'part.py').write_text('import time\nprint(\'RESULT {"found": 1}\', flush=True)\ntime.sleep(1000)', encoding='utf8')
    env = m.Session.run.__globals__
    monkeypatch.setitem(env, '__file__', str(p))
    monkeypatch.setitem(env['LIMITS'], 'tune', 6)
    s = m.Session(SimpleNamespace(out=str(tmp_path/'out'), minutes=60, tiny=False, device='cpu'))
    s.run('tune')
    s.end = 0
    s.run('resume')
    r = json.loads((tmp_path/'out/results.json').read_text(encoding='utf8'))
    assert r['tune'][-1]['ended']=='out of time' and r['resume']==[dict(not_run='no time left')]
    assert r['tune'][0]==dict(found=1) and 'RESULT' in (tmp_path/'out/session.txt').read_text(encoding='utf8')
