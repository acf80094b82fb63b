"Laws of spa3r.util.core"
import json,os,random,re,runpy,subprocess,sys,time
from dataclasses import dataclass
from pathlib import Path
import numpy as np, pytest, torch
from fastcore.script import anno_parser
from safetensors.torch import load_file,save_file
import spa3r.util.core as core
from spa3r.util.core import HubModel,UserError,atomic_write,check_fields,check_regular,command,home,pick_device,pick_dtype,TensorFiles,say,saying,set_seed,with_cfg,within

@dataclass(frozen=True)
class Cfg:
    dim:int=64 # Width of everything
    flat:bool=False # Leave out the third dimension

@command
@with_cfg(Cfg)
def go(
    data:str='rooms', # Folder of `scenes`
    **kwargs):
    "Try a configuration"
    cfg = Cfg(**kwargs)
    if cfg.dim<0: raise UserError(f'width {cfg.dim}\nis negative: give a positive one')
    if cfg.dim==0: raise KeyboardInterrupt
    if cfg.dim==1: raise ZeroDivisionError
    if cfg.dim==11: open('x'*300, encoding='utf8')
    if cfg.dim==12: raise UserError('no '*10**5)
    if cfg.dim==7: print(data, cfg)
    return data,cfg

@pytest.fixture
def cmd(tmp_path, monkeypatch, capsys):
    "Run `go` as an installed console script would; gives exit status, stdout, stderr"
    p = tmp_path/'go'
    p.write_text(f"import sys\nfrom {__name__} import go\nif __name__=='__main__': sys.exit(go())\n", encoding='utf8')
    monkeypatch.setenv('COLUMNS', '200')
    def run(*args):
        monkeypatch.setattr(sys, 'argv', [str(p), *args])
        with pytest.raises(SystemExit) as e: runpy.run_path(str(p), run_name='__main__')
        return e.value.code or 0, *capsys.readouterr()
    return run

@command
@with_cfg(Cfg)
def given(
    data:str='rooms', # Scenes
    **kwargs):
    "Print the options that were given"
    print(sorted(kwargs))

def test_options_not_given_are_left_to_the_function(cmd, monkeypatch):
    "Presets need to know what was asked for: `--dim` with its default value is asked for, no `--dim` is not"
    monkeypatch.setattr(sys.modules[__name__], 'go', given)
    assert cmd()[:2]==(0, '[]\n')
    assert cmd('--dim', str(Cfg().dim))[:2]==(0, "['dim']\n")

def draws(): return random.random(),np.random.rand(),torch.rand(1).item()

@pytest.mark.parametrize('seed', [0, 1, 10**9+7, 2**32+5, 2**40])
def test_same_seed_same_numbers(seed):
    set_seed(seed)
    a,b = draws(),draws()
    assert all(x!=y for x,y in zip(a, b))
    set_seed(seed)
    assert draws()==a
    set_seed(2**70)
    set_seed(seed+1)
    assert all(x!=y for x,y in zip(draws(), a))

def test_device_and_dtype():
    assert pick_device('cpu')==torch.device('cpu') and pick_dtype('cpu') is torch.float32
    assert pick_device().type==('cuda' if torch.cuda.is_available() else 'cpu')
    for name in ('cuda:77', 'abacus', 'hpu', 'meta'):
        with pytest.raises(UserError, match=name): pick_device(name)
    with pytest.raises(UserError, match='CUDA_VISIBLE_DEVICES'): pick_device('cuda:0', numbered=False)

def test_command_is_still_a_function():
    assert go()==('rooms', Cfg())
    assert go('here', dim=3)==('here', Cfg(3))
    with pytest.raises(UserError): go(dim=-1)
    with pytest.raises(TypeError): go(width=3)

def test_command_options_and_help(cmd):
    assert cmd('--data', 'there', '--dim', '7', '--flat')==(0, 'there Cfg(dim=7, flat=True)\n', '')
    assert cmd()==(0, '', '')  # what the function returns is no exit status
    rc,out,_ = cmd('--help')
    assert rc==0
    for s in ('Try a configuration', 'Folder of scenes', 'Width of everything', 'default: 64'): assert s in out
    assert '`' not in out, 'a terminal has no code font'
    assert cmd('--width', '3')[0]==2

@command
def walk(
    n_steps:int=1, # How many
    at_night:bool=True, # In the dark
):
    "Print what was asked for"
    print(n_steps, at_night)

@pytest.mark.parametrize('dashes', [False,True], ids=['fastcore 1','fastcore 2'])
def test_both_spellings_of_an_option_are_taken(cmd, dashes, monkeypatch):
    "The parser of fastcore 2 spells `--n-steps` what that of fastcore 1 spells `--n_steps`; help has the latter"
    def spelled(f):
        parser = anno_parser(f)
        for a in parser._actions: a.option_strings = [o.replace('_', '-') if dashes else o for o in a.option_strings]
        parser._option_string_actions = {o:a for a in parser._actions for o in a.option_strings}
        return parser
    monkeypatch.setattr(core, 'anno_parser', spelled)
    monkeypatch.setattr(sys.modules[__name__], 'go', walk)
    monkeypatch.setattr(core, '_parser', core._parser.__wrapped__)  # not cached
    for given,want in (('--n_steps=3','3 True'), ('--n-steps=3','3 True'), ('--n-s=4','4 True'),
                       ('--no-at_night','1 False'), ('--no-at-night','1 False')):
        assert cmd(given)==(0, want+'\n', ''), given
    assert '--n_steps ' in (out := cmd('--help')[1]) and '--n-steps' not in out

def test_command_says_what_is_wrong_in_one_line(cmd):
    assert cmd('--dim=-1')==(2, '', 'go: width -1 is negative: give a positive one\n')
    assert cmd('--dim', '0')==(130, '', 'go: stopped\n')

def test_a_long_step_is_said_again(capfd):
    "With its seconds, until there is something new; a short one is said once"
    def waited(*parts):
        end,got = time.time()+60,''
        while not all(p in got for p in parts) and time.time()<end: time.sleep(.01); got += capfd.readouterr().err
        return got.splitlines()
    with saying(.01):
        say('a short step')
        assert waited('a short step ...\n')==['a short step ...']
        say('a long one', lasts=True)
        got = waited('... 0 s\n', '... 1 s\n')
        assert got[0]=='a long one ...' and all(re.fullmatch(r'a long one \.\.\. \d+ s', o) for o in got[1:])
        say('another')
        assert waited('another ...\n')[-1]=='another ...'
        time.sleep(.3)
        assert capfd.readouterr().err==''

def test_what_the_system_refuses_is_one_line(cmd):
    rc,out,said = cmd('--dim', '11')
    assert (rc,out,len(said.splitlines()))==(2,'',1) and 'File name too long' in said and 'give another' in said
    for args in (['--dim=12'], [f"--dim={'x'*9000}"]):
        rc,_,said = cmd(*args)
        assert rc==2 and len(said.splitlines())==1 and len(said)<1400

def test_home_is_the_users(cmd, monkeypatch):
    monkeypatch.setenv('HOME', '/home/me')
    assert cmd('--data=~/photos', '--dim=7')[1]=='/home/me/photos Cfg(dim=7, flat=False)\n'
    assert cmd('--data=~no such user/x', '--dim=7')[1]=='~no such user/x Cfg(dim=7, flat=False)\n'
    assert go('~/photos', dim=4)[0]=='/home/me/photos' and home('~/a')==Path('/home/me/a') and home('b')==Path('b')

SAYS = "from spa3r.util.core import *\n@command\ndef go(n:int=1):\n    for i in range(9999): print('a word')\ngo()\n"

def test_a_reader_may_leave(tmp_path):
    (tmp_path/'go.py').write_text(SAYS, encoding='utf8')
    p = subprocess.Popen([sys.executable, tmp_path/'go.py'], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    p.stdout.close()  # as `| head` does
    assert (p.stderr.read(),p.wait())==(b'',141)

@pytest.mark.skipif(not Path('/dev/full').exists(), reason='no device that is always full')
def test_a_full_disk_shows_before_the_end(tmp_path):
    (tmp_path/'go.py').write_text(SAYS.replace('9999', '1'), encoding='utf8')
    with open('/dev/full', 'w', encoding='utf8') as full: r = subprocess.run([sys.executable, tmp_path/'go.py'], stdout=full, stderr=subprocess.PIPE, encoding='utf8')
    assert r.returncode==2 and len(r.stderr.splitlines())==1 and 'no room left' in r.stderr

@pytest.mark.parametrize('fd', [1, 2])
def test_a_closed_stream_is_nowhere(tmp_path, fd):
    (tmp_path/'go.py').write_text(SAYS+"f = open('kept.txt', 'w', encoding='utf8')\nassert f.fileno()>2\n", encoding='utf8')
    with pytest.MonkeyPatch.context() as m:
        m.chdir(tmp_path)
        assert subprocess.run(['sh', '-c', f'exec "$0" go.py {fd}>&-', sys.executable], stdout=subprocess.DEVNULL).returncode==0

@dataclass(frozen=True)
class Mixed:
    n:int=within('[0, 9]', 1) # How many
    flat:bool=False # Leave out the third dimension
    name:str='' # What to call it
    def __post_init__(self): check_fields(self)

def test_fields_have_their_type():
    assert Mixed(2, True, 'x').flat and Mixed(flat=False)
    for bad in (dict(flat='no'), dict(flat=1), dict(flat=None), dict(name=3), dict(name=['x']), dict(n=1.5)):
        (k,v), = bad.items()
        with pytest.raises(UserError, match=re.escape(f'{k} {v}: ')): Mixed(**bad)

def test_a_pipe_is_no_file(tmp_path):
    check_regular(tmp_path/'none')
    os.mkfifo(tmp_path/'pipe')
    for p in (tmp_path/'pipe',tmp_path):
        with pytest.raises(UserError, match='is no file: remove it'): check_regular(p)

def test_a_bug_keeps_its_traceback(cmd):
    with pytest.raises(ZeroDivisionError): cmd('--dim', '1')

def test_command_in_its_own_process(tmp_path):
    (tmp_path/'go.py').write_text("from spa3r.util.core import *\n@command\ndef go(n:int=1): raise UserError('no such thing')\ngo()\n", encoding='utf8')
    r = subprocess.run([sys.executable, str(tmp_path/'go.py')], capture_output=True, encoding='utf8')
    assert (r.returncode, r.stdout, r.stderr)==(2, '', 'go.py: no such thing\n')

def test_atomic_write_all_or_nothing(tmp_path):
    p = tmp_path/'deep'/'er'/'a.txt'
    assert atomic_write(p, lambda q: q.write_text('old', encoding='utf8'))==p and p.read_text(encoding='utf8')=='old'
    def half(q):
        q.write_text('ne', encoding='utf8')
        raise OSError('disk full')
    with pytest.raises(OSError): atomic_write(p, half)
    assert p.read_text(encoding='utf8')=='old' and [o.name for o in p.parent.iterdir()]==['a.txt']
    seen = []
    atomic_write(p, lambda q: (q.write_text('new', encoding='utf8'), seen.append((q.parent==p.parent, q.suffix, p.read_text(encoding='utf8')))))
    assert p.read_text(encoding='utf8')=='new' and seen==[(True, '.txt', 'old')]
    atomic_write(tmp_path/'t.pt', lambda q: torch.save(torch.arange(3), q))
    assert torch.load(tmp_path/'t.pt', weights_only=True).tolist()==[0,1,2]

def test_with_cfg_leaves_out_fields():
    import inspect
    f = with_cfg(Cfg, but='flat')(lambda data, **kwargs: None)
    assert list(inspect.signature(f).parameters)==['data', 'dim']

def test_import_is_light():
    code = "import sys, torch, spa3r.util.core, spa3r.model.cameras; print([m for m in ('matplotlib','plotly','open3d','transformers','nbdev') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf8').stdout.strip()=='[]'

# ---- loading

@dataclass(frozen=True)
class Sizes: n:int=3

class Net(torch.nn.Module, HubModel):
    "A table that no file holds, a buffer that files hold, and parameters of several kinds"
    Config = Sizes
    def __init__(self, cfg=Sizes()):
        super().__init__()
        self.cfg,self.line,self.names = cfg,torch.nn.Linear(cfg.n, cfg.n),torch.nn.Embedding(cfg.n, 2)
        self.norm,self.token = torch.nn.LayerNorm(cfg.n),torch.nn.Parameter(torch.randn(cfg.n)*.02)
        self.register_buffer('table', torch.arange(cfg.n)**2, persistent=False)
        self.register_buffer('mean', torch.zeros(cfg.n))

def parts(folder, state, cut=3):
    "Weights in two parts with an index"
    names,where = list(state),{}
    for i,ks in enumerate((names[:cut], names[cut:])):
        save_file({k:state[k] for k in ks}, folder/f'model-{i}.safetensors')
        where |= {k:f'model-{i}.safetensors' for k in ks}
    (folder/'model.safetensors.index.json').write_text(json.dumps(dict(metadata={}, weight_map=where)), encoding='utf8')
    return where

def test_nothing_is_drawn_before_loading(tmp_path, monkeypatch):
    "Every tensor is the file's, tables that no file holds are right, and chance is where it was"
    net = Net(Sizes(5))
    net.mean.fill_(7)
    net.save_pretrained(tmp_path)
    def drawn(*args, **kwargs): raise AssertionError('a parameter was drawn, to be thrown away')
    for k in ('uniform_','normal_'): monkeypatch.setattr(torch.Tensor, k, drawn)  # what `nn.init` draws with
    with pytest.raises(AssertionError, match='thrown away'): Net()
    again = Net.from_pretrained(tmp_path)
    monkeypatch.undo()
    assert all(torch.equal(a, net.state_dict()[k]) for k,a in again.state_dict().items())
    assert again.table.tolist()==[0,1,4,9,16] and not again.training
    assert all(type(p) is torch.nn.Parameter and p.requires_grad and p.dtype==torch.float32 for p in again.parameters())
    again.line.weight.data.add_(1)  # a private page: the file stays as it is
    assert torch.equal(load_file(tmp_path/'model.safetensors')['line.weight'], net.line.weight)

def test_weights_are_in_memory_once(tmp_path):
    "Loading takes the memory of nothing but what is used"
    code = f"""import resource,torch
from test_core import Net,Sizes
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
before = peak()
net = Net.from_pretrained({str(tmp_path)!r})
loaded = peak()
net.line.weight.sum()
print((loaded-before)//1000, (peak()-before)//1000)"""
    Net(Sizes(6000)).save_pretrained(tmp_path)  # 144 MB
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf8', cwd=Path(__file__).parent)
    loaded,used = map(int, r.stdout.split())
    assert loaded<200 and used<250, r.stdout+r.stderr  # every number has been looked at, where it lies in the file

def test_half_precision_files_become_float32(tmp_path):
    net = Net()
    net.save_pretrained(tmp_path)
    save_file({k:v.bfloat16() for k,v in net.state_dict().items()}, tmp_path/'model.safetensors')
    again = Net.from_pretrained(tmp_path)
    assert {v.dtype for v in again.state_dict().values()}=={torch.float32} and torch.equal(again.line.weight, net.line.weight.bfloat16().float())

def test_weights_in_parts(tmp_path):
    net = Net()
    net.save_pretrained(tmp_path)
    state = load_file(tmp_path/'model.safetensors')
    parts(tmp_path, state)
    with pytest.raises(UserError, match='one of the two is stale'): Net.from_pretrained(tmp_path)
    (tmp_path/'model.safetensors').unlink()
    again = Net.from_pretrained(tmp_path)
    assert all(torch.equal(a, state[k]) for k,a in again.state_dict().items())
    assert sorted(TensorFiles(tmp_path).tensors(lambda k: k.startswith('line')))==['line.bias','line.weight']
    (tmp_path/'model.safetensors.index.json').unlink()
    assert TensorFiles(tmp_path).tensors().keys()==state.keys()  # nobody says what belongs where, but everything is there
    save_file(state, tmp_path/'model-0.safetensors')
    with pytest.raises(UserError, match='and so has a file before it'): TensorFiles(tmp_path).tensors()
    save_file(state, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match='one of the two is stale'): TensorFiles(tmp_path).tensors()

@pytest.mark.parametrize('spoil,why', [
    (lambda d,w: (d/'model-1.safetensors').unlink(), 'model-1.safetensors missing'),
    (lambda d,w: w.pop('mean'), 'disagree about mean'),
    (lambda d,w: w.update(extra='model-0.safetensors'), 'disagree about extra'),
    (lambda d,w: w.update(mean='model-9.safetensors'), 'model-9.safetensors missing'),
    (lambda d,w: w.update(mean=3), 'no index of weights')])
def test_parts_that_do_not_make_a_whole(tmp_path, spoil, why):
    net = Net()
    (tmp_path/'config.json').write_text('{"n": 3}', encoding='utf8')
    where = parts(tmp_path, {k:v.contiguous() for k,v in net.state_dict().items()})
    spoil(tmp_path, where)
    (tmp_path/'model.safetensors.index.json').write_text(json.dumps(dict(weight_map=where)), encoding='utf8')
    with pytest.raises(UserError, match=why): Net.from_pretrained(tmp_path)

def test_parts_are_loaded_strictly(tmp_path):
    "What is missing, too much or of another shape is named, as in one file"
    (tmp_path/'config.json').write_text('{"n": 3}', encoding='utf8')
    state = {k:v.contiguous() for k,v in Net().state_dict().items()}
    parts(tmp_path, {k:v for k,v in state.items() if k!='norm.bias'})
    with pytest.raises(UserError, match='Missing.*norm.bias'): Net.from_pretrained(tmp_path)
    parts(tmp_path, state|{'more':torch.zeros(1)})
    with pytest.raises(UserError, match='Unexpected.*more'): Net.from_pretrained(tmp_path)
    parts(tmp_path, state|{'mean':torch.zeros(4)})
    with pytest.raises(UserError, match='size mismatch for mean'): Net.from_pretrained(tmp_path)
    (tmp_path/'model-0.safetensors').write_bytes(b'no tensors')
    with pytest.raises(UserError, match='model-0.safetensors cannot be read'): Net.from_pretrained(tmp_path)
    for text in ('[]', '{"weight_map": 3}', 'no'):
        (tmp_path/'model.safetensors.index.json').write_text(text, encoding='utf8')
        with pytest.raises(UserError, match='no index of weights'): Net.from_pretrained(tmp_path)

# ---- the hub, played by a few lines

class Hub:
    "What `HfApi` is asked for, and what was in the folder that it was given"
    asked = []
    def __init__(self, token=None): self.token = token
    def create_repo(self, repo_id, **kw): Hub.asked.append(('create',repo_id,self.token,kw))
    def upload_folder(self, repo_id, folder_path, **kw):
        files = {p.relative_to(folder_path).as_posix():p.read_bytes() for p in Path(folder_path).rglob('*') if p.is_file()}
        Hub.asked.append(('upload',repo_id,self.token,kw,files))
        return 'where it is'
    def model_info(self, name, **kw): Hub.asked.append(('info',name,self.token,kw))

@pytest.fixture
def hub(monkeypatch):
    import huggingface_hub
    monkeypatch.setattr(huggingface_hub, 'HfApi', Hub)
    Hub.asked = []
    return Hub

def test_a_model_goes_to_the_hub_with_a_card(hub, tmp_path):
    net = Net(Sizes(5))
    assert net.push_to_hub('me/net', token='t', commit_message='first', private=True, branch='b')=='where it is'
    (_,name,token,made),(_,*to,how,files) = hub.asked
    assert name=='me/net' and token=='t' and made==dict(private=True, exist_ok=True) and to==['me/net','t']
    assert how['commit_message']=='first' and how['revision']=='b' and set(files)=={'config.json','model.safetensors','README.md'}
    head = files['README.md'].decode().split('---')[1]
    assert 'pipeline_tag: image-feature-extraction' in head and '- spa3r' in head and 'library_name: spa3r' in head
    for k,v in files.items(): (tmp_path/k).write_bytes(v)
    assert torch.equal(Net.from_pretrained(tmp_path).line.weight, net.line.weight)

def test_what_lies_beside_weights_goes_along(hub, tmp_path):
    "The card that was written for them, and their teacher; nothing else of the folder"
    Net().save_pretrained(tmp_path)
    Net().save_pretrained(tmp_path/'teacher')
    for k in ('README.md','card.json','log.jsonl','decoder.onnx','secret.txt'): (tmp_path/k).write_text(k, encoding='utf8')
    Net.from_pretrained(tmp_path).push_to_hub('me/net', folder=tmp_path)
    files = hub.asked[-1][-1]
    assert set(files)=={'config.json','model.safetensors','README.md','card.json','decoder.onnx','teacher/config.json','teacher/model.safetensors'}
    assert files['README.md']==b'README.md'

def test_a_model_comes_from_the_hub_as_asked(hub, tmp_path, monkeypatch):
    import huggingface_hub
    Net(Sizes(4)).save_pretrained(tmp_path)
    def download(repo_id, **kw):
        hub.asked.append(('download',repo_id,kw))
        return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    net = Net.from_pretrained('me/net', revision='v1', token='t', cache_dir=str(tmp_path/'cache'))
    (_,_,token,info),(_,_,got) = hub.asked
    assert net.cfg.n==4 and token=='t' and info['revision']=='v1'
    assert (got['revision'],got['token'],got['cache_dir'])==('v1','t',str(tmp_path/'cache'))
