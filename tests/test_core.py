"Laws of spa3r.core"
import os,random,runpy,subprocess,sys
from dataclasses import dataclass
import numpy as np, pytest, torch
from spa3r.core import UserError,atomic_write,command,pick_device,pick_dtype,set_seed,with_cfg

@dataclass(frozen=True)
class Cfg:
    dim:int=64 # Width of everything
    flat:bool=False # Leave out the third dimension

@command
@with_cfg(Cfg)
def go(
    data:str='rooms', # Folder of scenes
    **kwargs):
    "Try a configuration"
    cfg = Cfg(**kwargs)
    if cfg.dim<0: raise UserError(f'width {cfg.dim}\nis negative: give a positive one')
    if cfg.dim==0: raise KeyboardInterrupt
    if cfg.dim==1: raise ZeroDivisionError
    if cfg.dim==7: print(data, cfg)
    return data,cfg

@pytest.fixture
def cmd(tmp_path, monkeypatch, capsys):
    "Run `go` as an installed console script would; gives exit status, stdout, stderr"
    p = tmp_path/'go'
    p.write_text(f"import sys\nfrom {__name__} import go\nif __name__=='__main__': sys.exit(go())\n")
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
    for name in ('cuda:77', 'abacus'):
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
    assert cmd('--width', '3')[0]==2

def test_command_says_what_is_wrong_in_one_line(cmd):
    assert cmd('--dim=-1')==(2, '', 'go: width -1 is negative: give a positive one\n')
    assert cmd('--dim', '0')==(130, '', 'go: stopped\n')

def test_a_bug_keeps_its_traceback(cmd):
    with pytest.raises(ZeroDivisionError): cmd('--dim', '1')

def test_command_in_its_own_process(tmp_path):
    (tmp_path/'go.py').write_text("from spa3r.core import *\n@command\ndef go(n:int=1): raise UserError('no such thing')\ngo()\n")
    r = subprocess.run([sys.executable, str(tmp_path/'go.py')], capture_output=True, text=True)
    assert (r.returncode, r.stdout, r.stderr)==(2, '', 'go.py: no such thing\n')

def test_atomic_write_all_or_nothing(tmp_path):
    p = tmp_path/'deep'/'er'/'a.txt'
    assert atomic_write(p, lambda q: q.write_text('old'))==p and p.read_text()=='old'
    def half(q):
        q.write_text('ne')
        raise OSError('disk full')
    with pytest.raises(OSError): atomic_write(p, half)
    assert p.read_text()=='old' and [o.name for o in p.parent.iterdir()]==['a.txt']
    seen = []
    atomic_write(p, lambda q: (q.write_text('new'), seen.append((q.parent==p.parent, q.suffix, p.read_text()))))
    assert p.read_text()=='new' and seen==[(True, '.txt', 'old')]
    atomic_write(tmp_path/'t.pt', lambda q: torch.save(torch.arange(3), q))
    assert torch.load(tmp_path/'t.pt', weights_only=True).tolist()==[0,1,2]

def test_with_cfg_leaves_out_fields():
    import inspect
    f = with_cfg(Cfg, but='flat')(lambda data, **kwargs: None)
    assert list(inspect.signature(f).parameters)==['data', 'dim']

def test_import_is_light():
    code = "import sys, torch, spa3r.core, spa3r.cameras; print([m for m in ('matplotlib','plotly','open3d','transformers','nbdev') if m in sys.modules])"
    assert subprocess.run([sys.executable, '-c', code], capture_output=True, text=True).stdout.strip()=='[]'
