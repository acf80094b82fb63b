"The site, made without Quarto: every page is opened in a browser, and nothing is missing, raw or fetched from elsewhere"
import base64,json,re
from contextlib import chdir
from functools import cache
from pathlib import Path
from urllib.parse import unquote
import pytest
from browser import CHROMIUM,browser,serve
from tools.docs import PLOTLY,definitions,docs,figure_alts,file_links,heading,names,output_markdown,page_markdown,plotly_div,relink,show_source

root = Path(__file__).resolve().parents[1]
nbs = sorted(p for p in (root/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
cells = lambda p: json.loads(p.read_text(encoding='utf8'))['cells']

def page_of(p):
    "Where a notebook's page is, by nbdev's rule"
    return (p.relative_to(root/'nbs').parent/(re.sub(r'^\d+[a-z]*_', '', p.stem)+'.html')).as_posix()

@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    with chdir(root): docs(out=str(out), strict=True)  # a broken link between pages fails here
    return out

@pytest.fixture(scope='module')
def address(site):
    with serve(site) as url: yield url

@pytest.fixture(scope='module')
def tab():
    if not CHROMIUM: pytest.skip('no Chromium on this machine (apt-get install chromium)')
    with browser() as p: yield p

LOOK = r'''(() => {
    const text = document.querySelector('main, body').cloneNode(true)
    text.querySelectorAll('pre, code, script, style, annotation').forEach(o => o.remove())
    return {tex: text.textContent.match(/\$\$|\\[([]|\\[a-zA-Z]{2,}|\$[^$\n]*[\\^_{][^$\n]*\$/g) || [],
        flags: [...document.querySelectorAll('pre')].filter(o => /^#\s*\|/m.test(o.textContent)).length,
        pictures: [...document.images].filter(o => !(o.complete && o.naturalWidth)).map(o => o.src),
        mute: [...document.images].filter(o => !o.alt).map(o => o.src),
        formulas: document.querySelectorAll('.arithmatex:not(:has(.katex))').length,
        links: [...document.querySelectorAll('a[href]')].map(o => o.href).filter(o => o.startsWith(location.origin))}
})()'''

@cache
def ids(f): return set(re.findall(r'''\bid=["']?([^"'\s>]+)''', f.read_text(encoding='utf8')))

def visit(tab, url):
    for o in (tab.errors, tab.fetched, tab.failed): o.clear()
    tab.open(url)

def problems(tab, url, site):
    "What is wrong with the page at `url`, whose files are in `site`, as text"
    host = '/'.join(url.split('/')[:3])+'/'
    visit(tab, url)
    for i in range(tab.eval("document.querySelectorAll('.plotly-figure').length")):
        tab.eval(f"document.querySelectorAll('.plotly-figure')[{i}].scrollIntoView()")
        tab.wait(f"document.querySelectorAll('.plotly-figure')[{i}].querySelector('.main-svg')!==null")
    r = tab.eval(LOOK)
    bad = [f'error: {o}' for o in tab.errors+tab.failed]+[f'asks elsewhere: {o}' for o in tab.fetched if not o.startswith((host,'data:'))]
    bad += [f'raw TeX: {o}' for o in r['tex']]+[f'no picture: {o}' for o in r['pictures']]+[f'no alt text: {o}' for o in r['mute']]
    bad += [f"{r[k]} {what}" for k,what in (('flags','code blocks with #|'), ('formulas','formulas not set')) if r[k]]
    for link in sorted(set(r['links'])):
        file,_,frag = unquote(link.removeprefix(host)).partition('#')
        f = site/(file or 'index.html')
        if not f.exists(): bad.append(f'leads nowhere: {link}')
        elif frag and frag not in ids(f): bad.append(f'no such place: {link}')
    return bad

@pytest.mark.parametrize('p', nbs, ids=lambda p: p.stem)
def test_page_is_whole(p, tab, address, site):
    assert not problems(tab, f'{address}/{page_of(p)}', site)
    assert tab.eval("document.querySelectorAll('.md-nav--primary > .md-nav__list > .md-nav__item--section').length")>=6, 'the parts are in the sidebar'

def test_every_definition_has_its_place(site):
    from spa3r._modidx import d
    for sym,(place,_) in [o for mod in d['syms'].values() for o in mod.items()]:
        file,_,frag = place.partition('#')
        assert frag in ids(site/file), f'{sym} should be at {place}'

def test_problems_are_seen(tab, tmp_path):
    (tmp_path/'bad.html').write_text(r'''<main><p id=a>A price of $5, $x_1$ and \(y\)</p><pre>#| hide</pre><img src=none.png><a href=none.html>x</a><a href=#b>y</a>
        <script src=http://example.invalid/x.js></script><script>nobody()</script><span class=arithmatex></span></main>''', encoding='utf8')
    with serve(tmp_path) as url: bad = '\n'.join(problems(tab, url+'/bad.html', tmp_path))
    for o in ('error: ReferenceError: nobody', 'asks elsewhere: http://example.invalid', 'raw TeX: $x_1$', r'raw TeX: \(', 'no picture', 'no alt text', '1 code blocks with #|',
              '1 formulas', 'leads nowhere', 'no such place'): assert o in bad, f'{o!r} is not in\n{bad}'
    assert '$5' not in bad

def test_code_is_folded_where_it_should_be(tab, address):
    p = next(p for p in nbs if sum(''.join(c['source']).startswith('#| code-fold: true') for c in cells(p)))
    n = sum('#| code-fold: true' in ''.join(c['source']) for c in cells(p))
    visit(tab, f'{address}/{page_of(p)}')
    assert tab.eval("[...document.querySelectorAll('details.example')].map(o => o.open)")==[False]*n

@pytest.mark.parametrize('where', ['served','from the disk'])
def test_search_finds_a_function(tab, address, site, where):
    visit(tab, (address if where=='served' else site.as_uri())+'/index.html')
    tab.eval("document.querySelector('[data-md-component=search-query]').focus()")
    tab.send('Input.insertText', text='patch_rays')
    found = tab.wait("(o => o && o.href)(document.querySelector('.md-search-result__link'))")
    assert '/cameras.html' in found and not tab.errors

def test_a_plotly_figure_is_drawn(tab, site):
    fig = dict(data=[dict(type='scatter', y=[1,3,2])], layout=dict(height=200))
    cell = dict(outputs=[dict(output_type='display_data', data={PLOTLY:fig})])
    plotly_div(cell)
    (site/'fig.html').write_text(f"<main>{cell['outputs'][0]['data']['text/markdown'][0]}</main><script src=assets/site.js></script>", encoding='utf8')
    with serve(site) as url: assert not problems(tab, url+'/fig.html', site)
    tab.wait("document.querySelectorAll('.scatterlayer .trace').length==1")
    (site/'fig.html').unlink()

def test_what_a_cell_shows():
    def page(src, **data): return page_markdown(dict(cells=[dict(cell_type='raw', source='---\ntitle: T\n---'),
        dict(cell_type='code', source=src, outputs=[dict(output_type='display_data', data={'text/plain':'plain'}|data)])]), 't')
    assert '1+1' in page('1+1')[0] and 'plain' in page('1+1')[0]
    assert '1+1' not in page('#| echo: false\n1+1')[0]
    md,pics = page('#| fig-alt: "A room"\ndraw()', **{'image/png':'AAAA'})
    assert '![A room](pictures/t-1.png)' in md and list(pics)==['pictures/t-1.png'] and '#|' not in md
    inside = page("print('~~~')", **{'text/plain':'~~~~\nx\n~~~~'})[0]
    assert '\n~~~~\n' in inside and '~~~~~ {' in inside, 'a fence is longer than what it holds'
    assert '<b>x</b>' in page('x', **{'text/html':'<b>x</b>'})[0]

# --- its parts

SRC = 'def _x(): pass\ndef half(x): return x/2\n\n@cache\ndef twice(x): return 2*x'

def test_a_cell_is_cut_before_each_public_definition():
    assert [(o.name, code) for o,code in definitions(SRC)]==[('half','def _x(): pass\ndef half(x): return x/2'), ('twice','@cache\ndef twice(x): return 2*x')]
    assert definitions('HELD_OUT = 10**6')==[]

def test_headings_have_the_anchors_that_links_lead_to():
    assert heading('Toy', 'toy.py#L3', ['Toy.play'])=='---\n\n[source](toy.py#L3){ .source }\n\n### Toy { #toy }\n\n<a id="toy.play"></a>'
    assert heading('', others=['_x'])=='<a id="_x"></a>'
    assert names('class Toy:\n  def play(self): pass\n@patch\ndef stop(self:Toy): pass')==['Toy','Toy.stop','Toy.play']

def test_definitions_are_shown_whole_and_imports_not():
    from execnb.nbio import mk_cell,new_nb
    imports,both = mk_cell('import math'),mk_cell(SRC)
    imports.directives_ = both.directives_ = {'export':[]}
    nb = new_nb([imports, both, mk_cell('half(2)')])
    show_source(nb).begin()
    assert [c.source for c in nb.cells][::2]==['---\n\n### half { #half }\n\n<a id="_x"></a>', '---\n\n### twice { #twice }', 'half(2)']

@pytest.mark.parametrize('at,inside,out', [('tour.ipynb','model/prope.ipynb','../LICENSE'), ('model/prope.ipynb','../tour.ipynb','../../LICENSE')])
def test_links_out_of_the_notebooks_lead_to_the_repository(at, inside, out):
    from execnb.nbio import mk_cell,new_nb
    nb = new_nb([mk_cell(f'[licence]({out}) and [page]({inside})', 'markdown')])
    nb.path_ = str(root/'nbs'/at)
    with chdir(root): file_links(nb).begin()
    assert nb.cells[0].source==f'[licence](https://github.com/spa3r/spa3r/blob/main/LICENSE) and [page]({inside})'

def test_links_between_pages():
    pages = {'tour':'tour', 'model/02_prope':'model/prope', 'rooms/03_render':'rooms/render'}
    assert relink('[rooms](rooms/03_render.ipynb#light)', pages)=='[rooms](rooms/render.md#light)'
    assert relink('[rooms](../rooms/03_render.ipynb#light), [tour](../tour.ipynb)', pages, 'model/prope')=='[rooms](../rooms/render.md#light), [tour](../tour.md)'
    assert relink('[`Cameras.cat`](cameras.html#cameras.cat)', pages, 'model/prope')=='[`Cameras.cat`](cameras.md#cameras.cat)'
    assert relink('[elsewhere](https://example.org/01_x.ipynb)', pages)=='[elsewhere](https://example.org/01_x.ipynb)'

def test_names_lead_to_the_page_beside_not_to_the_public_site():
    from execnb.nbio import mk_cell,new_nb
    nb = new_nb([mk_cell('[`Cameras`](https://spa3r.github.io/spa3r/model/cameras.html#cameras)', 'markdown')])
    for at,to in (('tour.ipynb','model/cameras.html'), ('model/prope.ipynb','cameras.html'), ('view/page.ipynb','../model/cameras.html')):
        one = new_nb([mk_cell(nb.cells[0].source, 'markdown')])
        one.path_ = str(root/'nbs'/at)
        with chdir(root): file_links(one).begin()
        assert one.cells[0].source==f'[`Cameras`]({to}#cameras)'

def test_every_figure_has_an_alt_text():
    from execnb.nbio import mk_cell,new_nb
    silent,named,text = mk_cell('draw()'),mk_cell('#| fig-alt: "A room"\ndraw()'),mk_cell('1+1')
    for c,data in ((silent,{'image/png':''}), (named,{'image/png':''}), (text,{'text/plain':'2'})): c.outputs = [dict(output_type='display_data', data=data)]
    nb = new_nb([silent, named, text])
    nb.frontmatter_ = dict(title='Tour')
    figure_alts(nb).begin()
    assert [c.source for c in nb.cells]==['#| fig-alt: "Figure 1 of Tour: what this code draws"\ndraw()', '#| fig-alt: "A room"\ndraw()', '1+1']

def test_a_picture_becomes_a_file():
    pic = {'output_type':'display_data', 'data':{'image/png':base64.b64encode(b'dots').decode(), 'text/plain':['<Figure>']}}
    assert output_markdown(pic, 'cameras-1', 'a ray')==('![a ray](cameras-1.png)', {'cameras-1.png':b'dots'})
