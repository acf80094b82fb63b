"The repository keeps its promises: order of imports, size of outputs, notebooks and modules in step, light imports, commands that answer"
import ast,base64,json,os,re,shutil,subprocess,sys,time,tomllib
from configparser import ConfigParser
from graphlib import TopologicalSorter
from importlib.metadata import version
from pathlib import Path
import pytest

root = Path(__file__).resolve().parents[1]
ini = ConfigParser(delimiters=['='])
ini.read(root/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
modules = sorted(p for p in (root/'spa3r').rglob('*.py') if not p.name.startswith('_'))
def place(p): return p.relative_to(root/'nbs').as_posix()
def dotted(p): return '.'.join(p.relative_to(root/'spa3r').with_suffix('').parts)
def source_of(mod): return root/'spa3r'/(mod.replace('.', '/')+'.py')
commands = dict(o.split('=') for o in cfg['console_scripts'].split())

def cells(p): return json.loads(p.read_text(encoding='utf8'))['cells']
def source(c): return ''.join(c['source'])
def default_exp(p):
    m = [re.search(r'^#\s*\|\s*default_exp\s+(\S+)', source(c), re.M) for c in cells(p) if c['cell_type']=='code']
    return next((o[1] for o in m if o), None)
exported = [m for m in map(default_exp, nbs) if m]

def run(*cmd, **kw):
    "Output of a command that must succeed"
    env = os.environ|dict(HF_HUB_OFFLINE='1', CUDA_VISIBLE_DEVICES='')
    r = subprocess.run([str(o) for o in cmd], capture_output=True, encoding='utf8', env=env, timeout=300, **kw)
    assert r.returncode==0, f'{cmd} ended in {r.returncode}\n{r.stdout[-2000:]}\n{r.stderr[-4000:]}'
    return r.stdout

# --- notebooks

def test_there_are_notebooks(): assert len(exported)>10 and len(modules)==len(exported), f'{len(exported)} notebooks export, {len(modules)} modules'

def imported(mod):
    "Our modules that `mod` imports, inside functions too"
    found = set()
    for n in ast.walk(ast.parse(source_of(mod).read_text(encoding='utf8'))):
        if isinstance(n, ast.Import): found |= {a.name for a in n.names}
        if isinstance(n, ast.ImportFrom):
            package = f'spa3r.{mod}'.split('.')[:-n.level] if n.level else []
            at = '.'.join([*package, *[n.module]*bool(n.module)])
            found |= {at, *(f'{at}.{a.name}' for a in n.names)}
    return {m for m in exported if f'spa3r.{m}' in found}

layers = 'util model rooms data teachers probe view language bench train'.split()  # a package imports from itself and from those before it

def test_every_module_is_in_a_layer():
    assert {m.split('.')[0] for m in exported}==set(layers)
    assert all(m.count('.')==1 for m in exported)

@pytest.mark.parametrize('mod', exported)
def test_packages_import_only_from_layers_below(mod):
    at = layers.index(mod.split('.')[0])
    for m in imported(mod): assert layers.index(m.split('.')[0])<=at, f'{mod} imports {m}, which is in a layer above'

def test_no_two_modules_need_each_other():
    TopologicalSorter({m:imported(m)-{m} for m in exported}).prepare()  # a CycleError names them

def test_notebooks_are_numbered_from_one_and_named_as_their_modules():
    for folder in {p.parent for p in nbs if default_exp(p)}:
        here = [p for p in nbs if p.parent==folder]
        assert [p.name[:3] for p in here]==[f'{i+1:02}_' for i in range(len(here))]
        for p in here: assert default_exp(p)==f'{folder.name}.{p.stem[3:]}', f'{place(p)} exports {default_exp(p)}'

@pytest.mark.parametrize('p', nbs, ids=place)
def test_outputs_are_small(p):
    outs = [o for c in cells(p) for o in c.get('outputs', [])]
    size = len(json.dumps(outs))
    assert size<700_000, f'{p.name} keeps {size/1e3:.0f} kB of outputs'
    for o in outs:
        assert o['output_type']!='error', f"{p.name} has a saved error: {o.get('evalue')}"
        for mime in ('image/png','image/jpeg'):
            pic = len(base64.b64decode(''.join(o.get('data',{}).get(mime,''))))
            assert pic<=100*1024, f'{p.name} has a figure of {pic/1024:.0f} kB'

@pytest.mark.parametrize('p', nbs, ids=place)
def test_no_path_of_one_machine(p):
    here = '|'.join(re.escape(str(o)) for o in {root, root.parent, Path.home()} if len(o.parts)>1)
    bad = re.compile(rf'(?<![\w.:/])(/home/|/root/|/Users/|/tmp/|/mnt/|/opt/|C:\\\\|(?:{here})(?:/|\b))')
    for i,c in enumerate(cells(p)):
        for what,s in (('source',source(c)), ('output',json.dumps(c.get('outputs',[])))):
            if what=='output': s = re.sub(r'"image/\w+": "[^"]*"', '', s)
            m = bad.search(s)
            assert not m, f'{p.name}, cell {i}: {what} names {s[m.start():m.start()+60]!r}'

@pytest.mark.parametrize('p', nbs, ids=place)
def test_title_cell_is_only_a_title(p):
    md = next(source(c) for c in cells(p) if c['cell_type']=='markdown').strip().splitlines()
    assert md[0].startswith('# ') and any(l.startswith('> ') for l in md), f'{p.name} needs "# title" and "> what it is about"'
    assert all(not l.strip() or re.match(r'(# |> |- \w+:)', l) for l in md), f'{p.name}: other text in the title cell is dropped from the docs'

@pytest.mark.parametrize('p', nbs, ids=place)
def test_lines_of_code_are_short(p):
    code = [source(c).splitlines() for c in cells(p) if c['cell_type']=='code']
    long = [l for o in code for l in o if len(l)>120 and not l.startswith('#|')]  # a directive cannot be broken
    assert not long, f'{place(p)} has {len(long)} lines over 120 columns, the first is {long[0]!r}'

def test_modules_are_in_step(tmp_path):
    from nbdev.export import nb_export
    def body(p): return '\n'.join(l for l in p.read_text(encoding='utf8').splitlines() if not l.startswith(('# %%','# AUTOGENERATED')))
    lib = tmp_path/'spa3r'  # of this name, so that imports of the package become relative as they do there
    for p in nbs: nb_export(p, lib_path=lib)
    made = sorted(o.relative_to(lib) for o in lib.rglob('*.py') if not o.name.startswith('_'))
    assert made==[o.relative_to(root/'spa3r') for o in modules], 'spa3r/ holds other modules than the notebooks export'
    bad = [str(o) for o in made if body(lib/o)!=body(root/'spa3r'/o)]
    assert not bad, f'{bad} differ from their notebooks: run nbdev_export'

def test_notebooks_are_clean(tmp_path):
    from nbdev.clean import process_write,clean_nb
    from functools import partial
    for p in nbs:
        q = shutil.copy(p, tmp_path)
        process_write(warn_msg='', proc_nb=partial(clean_nb, clear_all=False, clean_ids=True), f_in=q)
        assert Path(q).read_text(encoding='utf8')==p.read_text(encoding='utf8'), f'{p.name} is not clean: run nbdev_clean'

def test_every_notebook_is_in_the_sidebar():
    import yaml
    web = yaml.safe_load((root/'nbs/_quarto.yml').read_text(encoding='utf8'))['website']
    listed = [o for s in web['sidebar']['contents'] for o in ([s] if isinstance(s, str) else s['contents'])]
    assert sorted(listed)==sorted(map(place, nbs))

def test_notebooks_end_well_where_nbdev_is_not_installed():
    last = {source(cells(p)[-1]) for p in nbs if default_exp(p)}
    assert len(last)==1, 'notebooks that export end with the same cell'
    run(sys.executable, '-c', "import sys; sys.modules['nbdev'] = None\n"+last.pop())

# --- links

def words(p): return '\n'.join(source(c) for c in cells(p) if c['cell_type']=='markdown')
def anchors(p):
    "What headings of a page are called in its address, as pandoc does it"
    heads = re.findall(r'^#+ (.+?)\s*$', re.sub(r'```.*?```', '', words(p), flags=re.S), re.M)
    return {re.sub(r'^[^a-z]+', '', re.sub(r'[^\w\-. ]', '', h.lower()).strip().replace(' ', '-')) for h in heads}
def links(p): return re.findall(r'\]\((?![a-z]+:)([^)#\s]*)#?([^)\s]*)\)', words(p))

@pytest.mark.parametrize('p', nbs, ids=place)
def test_links_lead_somewhere(p):
    for f,a in links(p):
        to = p if not f else p.parent/f.replace('.html', '.ipynb')
        assert to.exists(), f'{p.name} links to {f}, which is not there'
        assert not a or a in anchors(to), f'{p.name} links to {f}#{a}; there are {sorted(anchors(to))}'

deviations = next(p for p in nbs if p.name=='deviations.ipynb')

def test_deviations_name_tests_that_exist():
    named = re.findall(r'`(test_\w+)::(\w+)`', words(deviations))
    assert len(named)>80
    for f,fn in named:
        tree = ast.parse(next((root/'tests').rglob(f'{f}.py')).read_text(encoding='utf8'))
        assert any(isinstance(n, ast.FunctionDef) and n.name==fn for n in tree.body), f'there is no {fn} in tests/{f}.py'

def led_back(f):
    "Sections of the deviations that the notebook `f` links to, as they name it"
    p = (deviations.parent/f).resolve()
    return [a for o,a in links(p) if (p.parent/o).resolve()==deviations]

def test_deviations_and_notebooks_link_each_other():
    for section in re.split(r'^## ', words(deviations), flags=re.M)[1:]:
        here = next(iter(re.findall(r'^(.+)$', section, re.M))).lower().replace(' ', '-')
        for f in set(re.findall(r'\(([\w./]*\d\w+\.ipynb)#', section)) if here in ('parts','language','judgement') else ():
            assert here in led_back(f), f'{f} does not link back to deviations.ipynb#{here}'
    for f in set(re.findall(r'\(([\w./]*\d\w+\.ipynb)#', words(deviations))):
        assert led_back(f), f'{f} does not link back'

# --- texts are UTF-8 on every machine, whatever its locale says

def code_of(p):
    "Python of a file, or of a notebook's cells"
    return p.read_text(encoding='utf8') if p.suffix=='.py' else '\n'.join(re.sub(r'^\s*[!%].*$', '', source(c), flags=re.M) for c in cells(p) if c['cell_type']=='code')

def of_the_locale(tree):
    "Calls that read or write text in the encoding of the machine"
    for n in (n for n in ast.walk(tree) if isinstance(n, ast.Call)):
        name,words = getattr(n.func, 'id', None) or getattr(n.func, 'attr', ''),{k.arg:k.value for k in n.keywords}
        mode = words.get('mode') or (n.args[1] if len(n.args)>1 else None)
        opens = getattr(n.func, 'id', '')=='open' and 'b' not in str(getattr(mode, 'value', mode and 'b'))
        texts = isinstance(n.func, ast.Attribute) and name in ('read_text','write_text')
        if (opens or texts or 'text' in words and name in ('run','Popen','check_output')) and 'encoding' not in words: yield ast.unparse(n)

@pytest.mark.parametrize('p', [*modules, *nbs, *(o for d in ('tests','tools','benchmarks') for o in sorted((root/d).rglob('*.py')))], ids=lambda p: p.relative_to(root).as_posix())
def test_texts_have_their_encoding(p): assert not list(of_the_locale(ast.parse(code_of(p))))

def test_an_encoding_left_out_is_found():
    bad = "open(p)", "open(p, 'w')", "p.read_text()", "p.write_text('x')", "subprocess.run(a, text=True)"
    good = "open(p, 'rb')", "open(p, mode='ab')", "open(p, encoding='utf8')", "p.read_text(encoding='utf8')", "read_text(p)", "subprocess.run(a, encoding='utf8')", "Image.open(p)"
    assert all(list(of_the_locale(ast.parse(o))) for o in bad) and not any(list(of_the_locale(ast.parse(o))) for o in good)

# --- README and settings

def test_readme_is_in_step(): run(sys.executable, root/'tools/readme.py', '--check')

def test_readme_has_both_commands():
    md = (root/'README.md').read_text(encoding='utf8')
    assert len(md.splitlines())<150
    lines = [l for l in md.splitlines() if 'pip install -e' in l and '.venv' in l]
    assert any('pip install -e . && spa3r_demo' in l for l in lines), 'the line that sets up and runs the main job'
    assert any("pip install -e '.[dev]' && nbdev_test" in l and '&& pytest' in l for l in lines), 'the line that sets up and passes the tests'
    for a in re.findall(r'\]\((?![a-z]+:|#)([^)#]+)', md): assert (root/a).exists(), f'README links to {a}, which is not there'

def test_readme_maps_every_notebook_and_command():
    md = (root/'README.md').read_text(encoding='utf8')
    for p in nbs: assert p.stem=='index' or f'(nbs/{place(p)})' in md, f'README does not link to {place(p)}: run nbs/index.ipynb again, then python tools/readme.py'
    for c in commands: assert f'`{c}`' in md, f'README does not name {c}: run nbs/index.ipynb again, then python tools/readme.py'

def test_pictures_have_an_alt_text():
    for p in [root/'README.md', *nbs]:
        text = p.read_text(encoding='utf8') if p.suffix=='.md' else '\n'.join(source(c) for c in cells(p) if c['cell_type']=='markdown')
        assert not re.search(r'!\[\s*\]\(|<img(?![^>]*alt=")', text), f'a picture of {p.name} has no alt text'

def test_version_has_one_place():
    import spa3r
    assert spa3r.__version__==cfg['version']==version('spa3r')
    assert 'project' not in tomllib.loads((root/'pyproject.toml').read_text(encoding='utf8'))

def test_every_command_is_a_function_of_a_notebook():
    for name,target in commands.items():
        mod,fn = target.removeprefix('spa3r.').split(':')
        assert mod in exported, f'{name} points at spa3r.{mod}, which no notebook exports'
        assert any(isinstance(n, ast.FunctionDef) and n.name==fn for n in ast.parse(source_of(mod).read_text(encoding='utf8')).body), f'no {fn} in spa3r.{mod}'

# --- the package

@pytest.mark.parametrize('p', modules, ids=dotted)
def test_public_names_have_a_docstring(p):
    for n in ast.parse(p.read_text(encoding='utf8')).body:
        if isinstance(n, (ast.FunctionDef,ast.ClassDef)) and not n.name.startswith('_'):
            assert ast.get_docstring(n), f'{dotted(p)}.{n.name} has no docstring'

heavy = 'plotly open3d transformers nbdev accelerate torchvision viser av IPython matplotlib'.split()
light = [m for m in exported if m.split('.')[0] not in ('language','bench') and m not in ('train.finetune','train.lessons','train.listen','train.speedrun')]  # those need a language model

def test_imports_are_light():
    code = f'''if 1:
        import sys,time,json
        import torch
        have = set(sys.modules)
        t = time.perf_counter()
        import spa3r
        for m in {light!r}: __import__('spa3r.'+m)
        t = time.perf_counter()-t
        top = set(m.split('.')[0] for m in set(sys.modules)-have)
        print(json.dumps(dict(loaded=sorted(top & set({heavy!r})), seconds=t, n=len(set(sys.modules)-have))))'''
    r = json.loads(run(sys.executable, '-c', code, cwd=root).splitlines()[-1])
    print(f"{len(light)} modules add {r['seconds']:.2f} s and {r['n']} Python modules to import torch")
    assert r['loaded']==[], f"importing spa3r loads {r['loaded']}"

@pytest.mark.parametrize('cmd', commands)
def test_command_answers_help(cmd):
    exe = Path(sys.executable).parent/cmd
    assert exe.exists(), f"{exe.name} is not installed beside Python: pip install -e '.[dev]'"
    out = run(exe, '--help')
    assert out.startswith('usage: '+cmd) and len(out.splitlines())>4, out

def test_the_lines_of_the_readme_run_as_they_stand(tmp_path):
    from PIL import Image
    from spa3r.rooms.rooms import render,sample_scenes
    rgb = (render(*sample_scenes([3], 4))['rgb'][0]*255).byte().numpy()
    (tmp_path/'my_photos').mkdir()
    for i,o in enumerate(rgb): Image.fromarray(o).save(tmp_path/'my_photos'/f'{i}.png')
    blocks = re.findall(r'```python\n(.*?)```', (root/'README.md').read_text(encoding='utf8'), re.S)
    assert any("spa3r.show('my_photos')" in o for o in blocks), 'your own photos in one line'
    code = '\n'.join(blocks).replace('spa3r.show', '_page = spa3r.show')+'\nprint(_page.data[:15])'
    r = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf8', cwd=tmp_path)
    assert not r.returncode and 'cosine at hidden views' in r.stdout and '<iframe src' in r.stdout and (tmp_path/'my_photos.html').exists(), r.stdout+r.stderr[-800:]

def test_what_people_type_first_is_there_and_loaded_only_then():
    code = '''if 1:
        import sys,spa3r
        assert not {'torch','numpy','transformers'} & set(sys.modules), 'import spa3r loads more than itself'
        assert {'load','show','Spa3R','VGGT','Spa3VLM'}<=set(dir(spa3r))
        student,teacher,folder = spa3r.load('exact')
        assert type(student) is spa3r.Spa3R and folder.name=='exact'
        assert spa3r.show.__module__=='spa3r.view.page'
        assert spa3r.VGGT.__module__=='spa3r.model.patch_encoder' and spa3r.Spa3VLM.__module__=='spa3r.language.vlm'
        try: spa3r.nothing
        except AttributeError as e: assert 'nothing' in str(e)
        else: raise AssertionError('there is no such name')'''
    run(sys.executable, '-c', code, cwd=root)
