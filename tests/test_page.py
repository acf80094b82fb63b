"The page in a real browser, from the disk: it opens, decodes where nobody was, and does with less where the browser lacks something"
import numpy as np
import pytest
from browser import CHROMIUM,browser
from spa3r.page import demo

pytest.importorskip('websocket', reason='websocket-client, of the extra `dev`, is not installed')
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='no Chromium on this machine (apt-get install chromium)')

@pytest.fixture(scope='module')
def fields(tmp_path_factory):
    "The demo's page with the shipped weights, their decoder included"
    d = tmp_path_factory.mktemp('page')
    return {k:demo(weights=k, out=str(d/f'{k}.html'), rooms=0, views=4, between=2) for k in ('exact','nano')}

@pytest.fixture
def field(request, fields): return fields[getattr(request, 'param', 'exact')]
both = pytest.mark.parametrize('field', ['exact','nano'], indirect=True)

@pytest.fixture(scope='module')
def tab():
    with browser() as p:
        p.at = None
        yield p

@pytest.fixture
def page(tab, field):
    "The page as it was when it was opened"
    if tab.at!=str(field): open_page(tab, field)
    tab.eval('document.getElementById("reset").click()')
    yield tab
    assert tab.errors==[] and all(u.startswith(('file:','blob:','data:')) for u in tab.fetched), 'no script error, and nothing fetched'

def open_page(tab, path, hash='', live='1', **kw):
    tab.errors.clear()
    tab.fetched.clear()
    tab.at = None if hash or kw else str(path)
    tab.open('about:blank')
    tab.open(f'file://{path}{hash}', **kw)
    tab.wait(f'document.body.dataset.ready=="1" && document.body.dataset.live=="{live}"')

PICTURE = "(i => Array.from(document.querySelector('#p'+i+' canvas').getContext('2d').getImageData(0, 0, gw, gh).data))({})"
def picture(page, i): return np.array(page.eval(PICTURE.replace('{}', str(i)))).reshape(-1, 4)
def settled(page, since): page.wait(f'live.count>{since} && !live.busy && !held.size')
def count(page): return page.eval('live.count')

@both
def test_decoder_in_the_page_says_what_torch_said(page): assert page.eval('live.diff')<1e-3

@both
def test_moving_the_camera_changes_the_prediction(page):
    assert 'target' in page.eval('document.getElementById("chip").textContent')
    seen,k = [picture(page, 2)],count(page)
    for key in 'wdj':
        page.key(key)
        settled(page, k)
        k = count(page)
        seen.append(picture(page, 2))
    assert page.eval('document.getElementById("chip").textContent')=='free camera' and 'ms' in page.eval('document.getElementById("livesay").textContent')
    assert all(np.abs(a-b).mean()>.2 for a,b in zip(seen, seen[1:])), 'each step shows another field'
    assert page.eval('document.querySelectorAll("#p3 .none").length')==1, 'nobody knows the truth here'

@both
def test_the_free_camera_of_a_known_one_sees_its_prediction(page):
    for s in (0, page.eval('V-1')):
        page.eval(f'go({{cam:{s}, pose:null}})')
        stored,k = picture(page, 2),count(page)
        page.eval(f'go({{pose:Float64Array.from(rows34(c2w, {s}))}})')
        settled(page, k)
        assert np.abs(picture(page, 2)-stored).max()<=2

def test_a_button_moves_it_and_a_click_brings_it_back(page):
    k = count(page)
    x,y = page.eval('(b => [b.left+b.width/2, b.top+b.height/2])(document.querySelector("#pad button").getBoundingClientRect())')
    page.click(x, y)
    settled(page, k)
    assert page.eval('!!S.pose')
    page.eval('document.querySelector("#strip button").click()')
    assert page.eval('!S.pose && S.cam==0')

def test_free_camera_is_in_the_address(page, field):
    k = count(page)
    page.key('a')
    settled(page, k)
    pose,seen = page.eval('Array.from(S.pose)'),picture(page, 2)
    page.wait('location.hash.includes("pose="+Array.from(S.pose, x => +x.toFixed(4)).join(","))')  # and no earlier one
    hash = page.eval('location.hash')
    open_page(page, field, hash)
    settled(page, 0)
    assert np.allclose(page.eval('Array.from(S.pose)'), pose, atol=1e-3) and np.abs(picture(page, 2)-seen).max()<=6

def test_every_colour_and_key(page):
    for i,k in enumerate(page.eval('D.colours')):
        page.key(str(i+1))
        assert page.eval('S.colour')==k and page.eval('ids.length')>100
    for key,flag in (('v','inside'),('b','beside')):
        page.key(key)
        assert page.eval(f'S.{flag}')==1
        page.key(key)
    page.key('h')
    assert page.eval('document.getElementById("help").open')
    page.key('h')
    page.eval('go({trust:Array.from(numbers[D.threshold].data).sort((a,b) => a-b)[n*V>>1]/254})')
    assert 0<page.eval('ids.length')<page.eval('N'), 'only points that are sure'

def test_similarity_to_a_patch(page):
    page.eval('refer("pred", S.cam, 5)')
    assert page.eval('S.colour')=='similarity' and page.eval('sim.pred[S.cam*n+5]')>=253
    assert page.eval('new Set(sim.pred).size')>20
    x,y = page.eval('(b => [b.left+b.width/2, b.top+b.height/2])(document.querySelector("#plot canvas").getBoundingClientRect())')
    page.eval('go({colour:"prediction"})')
    for dx in range(0, 200, 15):
        page.click(x+dx, y+40)
        if page.eval('S.colour=="similarity" || S.cam!=D.start'): break
    assert page.eval('S.colour=="similarity" || S.cam!=D.start'), 'a click finds a point or a camera'

@pytest.mark.parametrize('width', [375,1280])
def test_no_sideways_scrolling(tab, field, width):
    open_page(tab, field, size=(width,800), mobile=width<500)
    assert tab.eval('document.documentElement.scrollWidth')<=width
    tab.key('b')
    assert tab.eval('document.documentElement.scrollWidth')<=width

def test_less_is_shown_and_said(tab, field):
    open_page(tab, field, '#live=0', live='0')
    assert 'Only the cameras of the walk' in tab.eval('document.getElementById("livesay").textContent')
    before = picture(tab, 2)
    tab.key('w')
    assert tab.eval('!S.pose') and (picture(tab, 2)==before).all()
    tab.key('ArrowRight')
    assert (picture(tab, 2)!=before).any(), 'the cameras that were asked before are there'

def test_without_webgl(field):
    with browser(webgl=False) as p:
        open_page(p, field)
        assert p.eval('document.body.classList.contains("nogl") && document.querySelector("#still img").naturalWidth>0')
        before = picture(p, 2)
        p.key('w')
        settled(p, 0)
        assert (picture(p, 2)!=before).any() and p.errors==[]
