"""The site, made from the notebooks without Quarto: pages that open from the disk

    python tools/docs.py [--out _docs] [--strict]

nbdev does the first half, for Quarto too: hidden cells gone, names in back-ticks linked to where they are explained,
and the four processors below (settings.ini names them). The second half writes Markdown for Material for MkDocs
(`pip install -e '.[docs]'`). nbdev puts a signature in place of an exported definition; here the code is the story, so
`skip_procs` leaves that out and each definition is shown whole, under a heading that links lead to."""

import ast,base64,html,json,os,re,shutil,subprocess,sys,warnings
from pathlib import Path
from posixpath import dirname,join,normpath,relpath
from textwrap import indent
from spa3r.util.core import UserError,command

ROOT = Path(__file__).resolve().parents[1]
if str(ROOT) not in sys.path: sys.path.append(str(ROOT))  # settings.ini names the processors as `tools.docs:...`

def definitions(
    src:str, # Source of a cell
)->list: # (syntax tree, source) of each public definition; what stands around them stays with one of them
    "A cell cut before each public definition but the first"
    defs = [o for o in ast.parse(src).body if isinstance(o, (ast.FunctionDef,ast.ClassDef)) and o.name[0]!='_']
    lines = src.splitlines()
    starts = [min(d.lineno for d in [o,*o.decorator_list])-1 for o in defs]
    cuts = [0,*starts[1:],len(lines)]
    return [(o, '\n'.join(lines[a:b]).strip()) for o,a,b in zip(defs, cuts, cuts[1:])]

def heading(
    name:str, # Definition: `name`, or `Class.name`; empty: anchors only
    url:str=None, # Where its source is
    others:list=(), # Names without a heading that are defined below it
)->str: # Markdown
    "Heading of a definition, with anchors in small letters as nbdev's links have them"
    parts = [f'[source]({url}){{ .source }}']*bool(url)+[
        f'### {name} {{ #{name.lower()} }}']*bool(name)+[f'<a id="{o.lower()}"></a>' for o in others]
    return '\n\n'.join(['---']*bool(name)+parts)

def names(
    src:str, # Source of a cell
)->list: # Names of its definitions, methods after a dot
    "All that is defined in a cell"
    from nbdev.showdoc import showdoc_nm
    defs = [o for o in ast.parse(src).body if isinstance(o, (ast.FunctionDef,ast.ClassDef))]
    return [showdoc_nm(o) for o in defs]+[f'{c.name}.{o.name}' for c in defs if isinstance(c, ast.ClassDef)
                                          for o in c.body if isinstance(o, ast.FunctionDef)]

class show_source:
    "Processor: each definition is shown as it's written, under a heading with its name"
    def __init__(self, nb): self.nb = nb
    def begin(self):
        from execnb.nbio import mk_cell
        from nbdev.doclinks import NbdevLookup
        from nbdev.showdoc import showdoc_nm
        find,out = NbdevLookup(),[]
        for c in self.nb.cells:
            flags = c.get('directives_') or {}
            if 'default_exp' in flags or 'exporti' in flags: continue
            if 'export' in flags:
                if all(isinstance(o, (ast.Import,ast.ImportFrom)) for o in ast.parse(c.source).body): continue
                found = [(showdoc_nm(o),code) for o,code in definitions(c.source)]
                for nm,code in found:
                    out += [mk_cell(heading(nm, find.code(nm), [o for o in names(code) if o!=nm]), 'markdown'),
                            mk_cell(code)]
                if found: continue
                out.append(mk_cell(heading('', others=names(c.source)), 'markdown'))
            out.append(c)
        self.nb.cells = out

def _text(x): return ''.join(x)

PLOTLY = 'application/vnd.plotly.v1+json'

def plotly_js(
    folder, # Where pages will look for it
):
    "Put Plotly's library beside site.js"
    import plotly
    shutil.copy(Path(plotly.__file__).parent/'package_data/plotly.min.js', folder)

def plotly_div(
    cell, # Cell of a notebook, changed in place
):
    "Processor: a saved Plotly figure becomes a `div` with its data, which site.js draws"
    from nbdev.config import get_config
    for o in cell.get('outputs', []):
        fig = o.get('data', {}).get(PLOTLY)
        if fig is None: continue
        assets = get_config().config_path/'_proc/assets'
        if assets.exists() and not (assets/'plotly.min.js').exists(): plotly_js(assets)
        data = html.escape(json.dumps({k:fig[k] for k in ('data','layout')}))
        height = fig['layout'].get('height') or 450
        o['data'] = {'text/markdown':[
            f'<div class="plotly-figure" style="height:{height}px" data-figure="{data}"></div>\n']}

def _rewrite(nb, f):
    "Apply `f` to all Markdown of a notebook"
    for c in nb.cells:
        if c.cell_type=='markdown': c.source = f(_text(c.source))
        for o in c.get('outputs', []):
            if 'text/markdown' in o.get('data', {}): o['data']['text/markdown'] = f(_text(o['data']['text/markdown']))

class file_links:
    "Processor: links out of the folder of notebooks lead to the repository, links to the published site to the page beside"
    def __init__(self, nb): self.nb = nb
    def begin(self):
        from nbdev.config import get_config
        cfg = get_config()
        at = Path(self.nb.path_).resolve().relative_to(cfg.nbs_path.resolve())
        out = re.compile(r'\]\('+re.escape('../'*len(at.parts)))
        site = re.compile(rf'\]\({re.escape(cfg.doc_host+cfg.doc_baseurl)}([\w/]+\.html)')
        beside = lambda m: f"]({relpath(m[1], at.parent.as_posix())}"
        _rewrite(self.nb, lambda s: site.sub(beside, out.sub(f']({cfg.git_url}/blob/{cfg.branch}/', s)))

class figure_alts:
    "Processor: a figure that says nothing of itself says at least where it stands, for those who cannot see it"
    def __init__(self, nb): self.nb = nb
    def begin(self):
        title,n = getattr(self.nb, 'frontmatter_', {}).get('title', 'this page'),0
        for c in self.nb.cells:
            if not any(k.startswith('image/') for o in c.get('outputs', []) for k in o.get('data', {})): continue
            n += 1
            if '#| fig-alt:' not in c.source:
                c.source = f'#| fig-alt: "Figure {n} of {title}: what this code draws"\n{c.source}'

def _fence(s, kind):
    f = '~'*max(3, 1+max(map(len, re.findall('~+', s)), default=0))  # longer than what is inside
    return f'{f} {kind}\n{s.rstrip()}\n{f}'

def output_markdown(
    o:dict, # Output of a cell
    name:str, # What a picture's file is called, without its ending
    alt:str, # What a picture shows, for those who cannot see it
)->tuple: # Markdown, and the picture as {file name: bytes}
    "One output of a cell as Markdown"
    if o['output_type']=='stream':
        return ('' if o['name']=='stderr' else _fence(_text(o['text']), '{ .text .output }')),{}
    d = o['data']
    for mime,ext in (('image/png','png'), ('image/jpeg','jpg'), ('image/svg+xml','svg')):
        if mime not in d: continue
        pic = _text(d[mime])
        return f'![{alt}]({name}.{ext})',{f'{name}.{ext}':pic.encode() if ext=='svg' else base64.b64decode(pic)}
    for mime in ('text/markdown','text/html'):
        if mime in d: return _text(d[mime]).strip(),{}
    return _fence(_text(d['text/plain']), '{ .text .output }'),{}

def page_markdown(
    nb:dict, # Notebook as nbdev's processors leave it
    stem:str, # Name of the page, without its ending
)->tuple: # Markdown, and its pictures as {file name: bytes}
    "A processed notebook as a page of Markdown"
    import yaml
    meta = yaml.safe_load(_text(nb['cells'][0]['source']).strip().strip('-'))
    parts,pics = [f"---\ntitle: {json.dumps(meta['title'])}\n---",
                  f"# {meta['title']}", f"{meta.get('description','')}\n{{ .subtitle }}"],{}
    for c in nb['cells'][1:]:
        src = _text(c['source'])
        if c['cell_type']=='markdown': parts.append(src.strip())
        if c['cell_type']!='code': continue
        flags = dict(re.findall(r'^#\|\s*([\w-]+):\s*(.+?)\s*$', src, re.M))
        code = re.sub(r'^#\|.*\n?', '', src, flags=re.M).strip()
        block = [_fence(code, '{ .python }')] if code and flags.get('echo')!='false' else []
        for o in c.get('outputs', []):
            alt = flags.get('fig-alt', '').strip('"')
            md,files = output_markdown(o, f'pictures/{stem}-{len(pics)+1}', alt)
            block.append(md)
            pics |= files
        if flags.get('code-fold')=='true':
            block = ['??? example "'+flags.get('code-summary', 'Show the code').strip('"')+'"',
                     indent('\n\n'.join(block), '    ')]
        parts += block
    return '\n\n'.join(p for p in parts if p)+'\n',pics

def relink(
    md:str, # Markdown of a page
    pages:dict, # Notebook to page, both as paths below their folder, without ending
    here:str='index', # The page's own path
)->str: # The same with links between pages
    "Links to notebooks and to pages become links that MkDocs checks"
    at = dirname(here)
    def beside(m):
        to = normpath(join(at, m[1]))
        return f"]({relpath(pages.get(to, to), at or '.')}.md"
    return re.sub(r'\]\((?![a-z]+:)([\w./-]+)\.(?:ipynb|html)', beside, md)

def mkdocs_settings(
    cfg, # nbdev's settings
    nav:list, # Sidebar as MkDocs wants it
)->dict: # Contents of mkdocs.yml
    "How MkDocs shows the pages"
    day,night = ({'media':f'(prefers-color-scheme: {m})', 'scheme':s, 'primary':'blue grey', 'accent':'deep orange',
        'toggle':{'icon':f'material/weather-{i}', 'name':f'Change to the {o} theme'}} for m,s,i,o in
        (('light','default','sunny','dark'), ('dark','slate','night','light')))
    return dict(site_name=cfg.title, site_description=cfg.description,
                copyright=f'<a href="{cfg.git_url}">{cfg.git_url}</a>',
        docs_dir='pages', site_dir='site', use_directory_urls=False, nav=nav,
        theme=dict(name='material', font=False, palette=[day,night], features=[
            'navigation.sections','navigation.footer','navigation.top','content.code.copy','toc.follow']),
        plugins=['search','offline'], extra=dict(generator=False, polyfills=['assets/iframe-worker.js']),
        extra_css=['assets/katex/katex.min.css','styles.css'],
        extra_javascript=['assets/katex/katex.min.js','assets/site.js'],
        markdown_extensions=['attr_list','tables','admonition','pymdownx.details',
                             'pymdownx.superfences','pymdownx.highlight','pymdownx.betterem',
            {'pymdownx.arithmatex':dict(generic=True)}, {'toc':dict(permalink=True, toc_depth=3)}],
        validation=dict(anchors='warn', unrecognized_links='warn'))

@command
def docs(
    out:str='_docs', # Folder for the site; what it holds is replaced
    strict:bool=False, # Fail when a link between pages is broken?
):
    "Make the site from the notebooks of this checkout, without Quarto: pages that open from the disk"
    try:
        import material,yaml
        from nbdev.config import get_config
        from nbdev.serve import proc_nbs
    except ImportError as e: raise UserError(f"{e.name} is missing: pip install -e '.[docs]'") from None
    cfg = get_config()
    if not (cfg.nbs_path/'_quarto.yml').exists():
        raise UserError('There are no notebooks here: run it in a checkout of spa3r')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        proc = proc_nbs(n_workers=0, force=True)
    work = proc/'_mkdocs'
    shutil.rmtree(work, ignore_errors=True)
    pages = work/'pages'
    shutil.copytree(proc/'assets', pages/'assets')
    shutil.copytree(proc/'images', pages/'images')
    shutil.copy(proc/'styles.css', pages)
    plotly_js(pages/'assets')
    nbs = {p.relative_to(proc).with_suffix('').as_posix():json.loads(p.read_text(encoding='utf8'))
           for p in proc.rglob('*.ipynb')}
    name = lambda nb: re.search(r'output-file: (\w+)\.html', _text(nb['cells'][0]['source']))
    stems = {k:join(dirname(k), m[1]) if (m := name(nb)) else k for k,nb in nbs.items()}
    for k,nb in nbs.items():
        file = pages/f'{stems[k]}.md'
        md,pics = page_markdown(nb, file.stem)
        (file.parent/'pictures').mkdir(parents=True, exist_ok=True)
        file.write_text(relink(md, stems, stems[k]), encoding='utf8')
        for f,b in pics.items(): (file.parent/f).write_bytes(b)
    page = lambda o: stems[o.removesuffix('.ipynb')]+'.md'
    side = yaml.safe_load((cfg.nbs_path/'_quarto.yml').read_text(encoding='utf8'))['website']['sidebar']['contents']
    nav = [page(o) if isinstance(o, str) else {o['section']:[page(p) for p in o['contents']]} for o in side]
    (work/'mkdocs.yml').write_text(yaml.safe_dump(mkdocs_settings(cfg, nav), sort_keys=False), encoding='utf8')
    cmd = [sys.executable, '-m', 'mkdocs', 'build', '-f', work/'mkdocs.yml',
           '-d', Path(out).resolve(), *(['--strict'] if strict else [])]
    r = subprocess.run(cmd, env=os.environ|{'NO_MKDOCS_2_WARNING':'1'}, capture_output=True, encoding='utf8')
    said = '\n'.join(l for l in r.stderr.splitlines() if not l.startswith('INFO'))
    if r.returncode: raise UserError(f'MkDocs could not make the site: {said}')
    if said: print(said)
    print(f"{len(nbs)} pages: open {Path(out)/'index.html'}")

if __name__=='__main__': docs()
