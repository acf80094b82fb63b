"A wheel built from the project holds its weights and runs the demo in an empty folder, far from the checkout"
import os,re,shutil,subprocess,sys,sysconfig,tarfile,venv,zipfile
from configparser import ConfigParser
from pathlib import Path
import pytest

root = Path(__file__).resolve().parents[1]
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
models = ['exact', 'nano', 'nano/teacher']

def run(*cmd, cwd, timeout=600):
    "Run a command that must succeed, without the checkout in sight and without a network to the hub"
    env = {k:v for k,v in os.environ.items() if k not in ('PYTHONPATH','VIRTUAL_ENV','PYTHONHOME')}|dict(HF_HUB_OFFLINE='1', PIP_DISABLE_PIP_VERSION_CHECK='1')
    r = subprocess.run([str(o) for o in cmd], cwd=cwd, env=env, capture_output=True, encoding='utf8', timeout=timeout)
    assert r.returncode==0, f'{cmd} ended in {r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-4000:]}'
    return r.stdout

@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    "Built from a copy, so that nothing left over from an earlier build gets in"
    src,out = tmp_path_factory.mktemp('src')/'spa3r',tmp_path_factory.mktemp('dist')
    src.mkdir()
    shutil.copytree(root/'spa3r', src/'spa3r', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copytree(root/'tests', src/'tests', ignore=shutil.ignore_patterns('golden','__pycache__'))
    for f in 'settings.ini setup.py pyproject.toml README.md LICENSE MANIFEST.in'.split(): shutil.copy(root/f, src)
    run(sys.executable, '-m', 'build', '--no-isolation', '--outdir', out, src, cwd=src)  # the sdist, and the wheel from it
    return next(out.glob('*.whl'))

def test_sdist_has_no_half_of_the_tests(wheel):
    with tarfile.open(next(wheel.parent.glob('*.tar.gz'))) as t: names = [n.partition('/')[2] for n in t.getnames()]
    assert not [n for n in names if n.startswith('tests')] and {'settings.ini','README.md','spa3r/__init__.py'}<=set(names)

def test_the_page_of_the_package_stands_alone(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        meta = z.read(next(n for n in names if n.endswith('/METADATA'))).decode()
    head,_,text = meta.partition('\n\n')
    assert 'License-Expression: Apache-2.0 AND MIT' in head
    for f in ('LICENSE','three.LICENSE','onnxruntime.LICENSE','onnxruntime.ThirdPartyNotices.txt.gz'): assert any('/licenses/' in n and n.endswith('/'+f) for n in names), f'no {f}'
    for o in ('Python :: 3.11','Python :: 3.14','Intended Audience'): assert f'Classifier: ' in head and o in head
    for o in ('Documentation','Changelog','Issues'): assert re.search(rf'^Project-URL: {o}, https://', head, re.M)
    near = re.findall(r'(?:\]\(|(?:src|href)=")(?!https?://|#)[^)"]*', text)
    assert not near, f'links that lead nowhere from there: {near}'
    pictures = re.findall(r'!\[[^\]]*\]\(([^)]*)\)', text)
    assert pictures and all('/raw/' in o for o in pictures)

@pytest.fixture(scope='module')
def outside(wheel, tmp_path_factory):
    "bin folder of a fresh environment with the wheel in it; torch and the rest are seen in the environment that runs the tests"
    home = tmp_path_factory.mktemp('outside')/'venv'
    venv.create(home, with_pip=True)
    site = next(home.glob('lib*/python*/site-packages'))
    # a folder named in a .pth is searched last, and its own .pth files (our editable install) are not read
    (site/'outer.pth').write_text('\n'.join(dict.fromkeys(sysconfig.get_path(o) for o in ('purelib','platlib'))), encoding='utf8')
    run(home/'bin/python', '-m', 'pip', 'install', '-q', '--no-deps', '--no-index', wheel, cwd=home)
    return home/'bin'

def test_wheel_says_what_settings_say(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        meta,entry = [z.read(next(n for n in names if n.endswith(o))).decode() for o in ('METADATA','entry_points.txt')]
    assert f"\nVersion: {cfg['version']}\n" in meta and f"\nRequires-Python: >={cfg['min_python']}\n" in meta
    need = {re.match(r'[\w-]+', o)[0] for o in cfg['requirements'].split()}
    assert need=={re.match(r'[\w-]+', o)[0] for o in re.findall(r'^Requires-Dist: (.*)$', meta, re.M) if 'extra ==' not in o}
    for k in cfg: assert not k.endswith('_requirements') or f"Provides-Extra: {k.removesuffix('_requirements')}\n" in meta
    for c in cfg['console_scripts'].split(): assert c.replace('=', ' = ') in entry
    assert not [n for n in names if not n.startswith(('spa3r/','spa3r-'))], 'only the package belongs in the wheel'

def test_wheel_has_all_that_the_package_has(wheel):
    have = {n for n in zipfile.ZipFile(wheel).namelist() if n.startswith('spa3r/')}
    want = {p.relative_to(root).as_posix() for p in (root/'spa3r').rglob('*') if p.is_file() and '__pycache__' not in p.parts}
    assert have==want, f'missing {sorted(want-have)}, too many {sorted(have-want)}'

def test_wheel_has_its_weights(wheel):
    with zipfile.ZipFile(wheel) as z:
        names = z.namelist()
        for m in models:
            for f in ('config.json','model.safetensors'): assert f'spa3r/weights/{m}/{f}' in names, f'no {f} of {m}'
        for m in models[:2]: assert f'spa3r/weights/{m}/README.md' in names, f'{m} has no card'
        assert sum(i.file_size for i in z.infolist() if '/weights/' in i.filename)<30e6

def test_installed_outside_the_checkout(outside, tmp_path):
    where = run(outside/'python', '-c', 'import spa3r; print(spa3r.__version__, spa3r.__file__)', cwd=tmp_path).split()
    assert where[0]==cfg['version'] and Path(where[1]).is_relative_to(outside.parent)

def test_demo_runs_from_the_wheel(outside, tmp_path):
    out = run(outside/'spa3r_demo', '--out', 'field.html', cwd=tmp_path)
    assert re.search(r'\d\.\d', out), 'the demo prints its measures'
    assert [p.name for p in tmp_path.iterdir()]==['field.html'], 'the demo leaves one file'
    page = (tmp_path/'field.html').read_text(encoding='utf8')
    assert 50_000<len(page)<15_000_000
    assert not re.search(r'''<(script|link|img|iframe)[^>]*\b(src|href)\s*=\s*["']?(https?:)?//''', page), 'the page opens without a network'
