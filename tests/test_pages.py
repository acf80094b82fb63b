"The pages around the method: path, heads, equations, glossary, Colab"
import ast,json,posixpath,re
from importlib.metadata import requires
from pathlib import Path
import pytest

nbs = Path(__file__).resolve().parents[1]/'nbs'

def cells(name): return json.loads((nbs/name).read_text(encoding='utf8'))['cells']
def source(c): return ''.join(c['source'])
def beside(name, to): return posixpath.normpath(posixpath.join(posixpath.dirname(name), to))
def prose(name): return '\n'.join(source(c) for c in cells(name) if c['cell_type']=='markdown')
def made_by(name, start):
    "Markdown that a cell of the index printed"
    return next(''.join(o['data']['text/markdown']) for c in cells('index.ipynb') for o in c.get('outputs', [])
                if ''.join(o.get('data', {}).get('text/markdown', '')).startswith(start))

# --- the path

path = re.findall(r'^\| \[[^\]]+\]\(([^)]+)\) \| .+ \| (\d+) \|$', made_by('index.ipynb', '| | | minutes |'), re.M)

def test_the_path_takes_two_hours():
    assert [n for n,_ in path][0]=='tour.ipynb' and len(path)==7
    total = sum(int(m) for _,m in path)
    assert total<=120 and f'| together | {total} |' in made_by('index.ipynb', '| | | minutes |')

@pytest.mark.parametrize('name,minutes', path)
def test_each_station_opens_with_needs_time_and_place(name, minutes):
    head = [source(c) for c in cells(name) if c['cell_type']=='markdown'][1]
    assert '**You need**' in head and '**Where you are:**' in head
    assert int(re.search(r'\*\*Time:\*\* (\d+) minutes', head)[1])==int(minutes)
    text = prose(name)
    pictures = re.findall(r'!\[([^\]]+)\]\(((?:\.\./)*images/(?:where|model)-[^)]+)\)', text)
    assert pictures and all((nbs/beside(name, f)).exists() and len(alt)>20 for alt,f in pictures)

def test_nothing_on_the_path_needs_what_comes_later():
    order = [n for n,_ in path]
    later = set(order)
    for name in order:
        needs = re.search(r'\*\*You need\*\*(.*?)\*\*Time', prose(name), re.S)[1]
        asked = {beside(name, o) for o in re.findall(r'\(([\w./]+\.ipynb)', needs)}
        assert not asked & later, f'{name} needs {asked & later}, which comes later on the path'
        later.discard(name)

# --- equations

page = cells('conventions.ipynb')
first,last = (next(i for i,c in enumerate(page) if source(c).startswith(o)) for o in ('## Equations','## Terms'))
equations = page[first:last]

def exported(name):
    "Names that a notebook exports: functions, classes, and Class.method by `@patch`"
    found = set()
    for c in cells(name):
        if c['cell_type']!='code' or not re.match(r'#\s*\|\s*export\b', source(c)): continue
        for n in ast.parse(source(c)).body:
            if isinstance(n, ast.ClassDef): found |= {n.name}|{f'{n.name}.{o.name}' for o in n.body if isinstance(o, ast.FunctionDef)}
            if isinstance(n, ast.FunctionDef):
                a = n.args.args[0] if n.args.args else None
                kind = a.annotation.id if a and a.arg=='self' and isinstance(a.annotation, ast.Name) else ''
                found.add(f'{kind}.{n.name}' if kind else n.name)
    return found

def test_each_function_of_the_equations_is_where_the_page_says():
    lines = [l for c in equations if source(c).startswith('### ') for l in source(c).splitlines() if l.startswith('Functions: ')]
    rows = re.findall(r'\[([\w.]+)\]\(([^)#]+)#[^)]+\)', ' '.join(lines))
    assert len(rows)>20
    for f,nb in rows: assert f in exported(nb), f'{nb} exports no {f}'

def test_each_equation_has_a_check_that_shows_a_number():
    sections = 0
    for c,after in zip(equations, equations[1:]):
        if c['cell_type']!='markdown' or '$$' not in source(c): continue
        sections += 1
        assert after['cell_type']=='code' and re.search(r'agree\(', source(after)), source(c).splitlines()[0]
        assert re.search(r': -?\d+\.\d+', ''.join(t for o in after['outputs'] for t in o.get('text', ()))), f'{source(c).splitlines()[0]} shows no number'
    assert sections>8

# --- glossary

terms,_,settled = prose('conventions.ipynb').partition('## Terms')[2].partition('## Words with')
terms = [(t,meaning,nb) for t,nb,meaning in re.findall(r'^- \*\*\[(.+?)\]\(([^)#]+)(?:#[^)]*)?\)\*\*: (.+)$', terms, re.M)]

def test_glossary_is_in_order_and_says_each_once():
    names = [t for t,_,_ in terms]
    assert len(names)>60 and names==sorted(set(names), key=str.lower)

@pytest.mark.parametrize('term,meaning,nb', terms, ids=lambda o: o if ' ' not in o else '')
def test_a_term_is_found_where_the_glossary_sends_us(term, meaning, nb):
    text = '\n'.join(source(c) for c in cells(nb)).lower()
    words = [w for part in term.lower().split(',') for w in (part.strip(), part.split()[-1])]
    assert any(w in text for w in words), f'{nb} does not speak of {term}'

def test_settled_words_have_a_meaning():
    words = re.findall(r'^\| ([^|]+) \| ([^|]+) \| ([^|]+) \|$', settled, re.M)[1:]
    assert {'spread','layout','probe','nano','scene','special token'}<={w for w,_,_ in words}

# --- Colab

@pytest.mark.parametrize('name', ['index.ipynb','tour.ipynb'])
def test_colab_keeps_its_torch(name):
    assert f'colab.research.google.com/github/spa3r/spa3r/blob/main/nbs/tour.ipynb' in prose(name)
    cell = next(source(c) for c in cells(name) if "'google.colab' in sys.modules" in source(c))
    assert cell.startswith('#| hide') and '--no-deps' in cell
    line = next(l.strip() for l in cell.splitlines() if l.strip().startswith('rest = '))
    got = {}
    exec(line, dict(requires=requires), got)
    names = {re.match(r"'([\w-]+)", o)[1] for o in got['rest'].split("' ") if o} | set(re.findall(r"'([\w-]+)", got['rest']))
    assert 'torch' not in names and {'einops','fastcore','transformers','plotly'}<=names
    assert not any('extra' in o for o in got['rest'].split())
