"The page in a real browser, from the disk: it opens, decodes where nobody was, and does with less where the browser lacks something"
import base64,json,re,struct,sys,time
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from browser import CHROMIUM,browser,serve
from spa3r.model.cameras import Cameras,intrinsics,look_at
from spa3r.data.batches import Views
from spa3r._modidx import d as modidx
from spa3r.probe.probes import Gate
from spa3r.util import core
from spa3r.util.core import UserError
from spa3r.view.onnx_decoder import Eyes
from spa3r.view.page import demo,show,write_html
from spa3r.teachers.teachers import load_student
from spa3r.rooms.rooms import HELD_OUT,render,sample_scenes
from spa3r.view.page import WORDS,verdict
from spa3r.view.scene import FieldScene,scene_points

pytest.importorskip('websocket', reason='websocket-client, of the extra `dev`, is not installed')
pytestmark = pytest.mark.skipif(not CHROMIUM, reason='no Chromium on this machine (apt-get install chromium)')

@pytest.fixture(scope='module')
def fields(tmp_path_factory):
    "The demo's page with the shipped weights, their decoder included"
    d = tmp_path_factory.mktemp('page')
    rooms,cams = sample_scenes([HELD_OUT+3], 5, (300,400))
    (d/'place'/'images').mkdir(parents=True)
    for i,x in enumerate(render(rooms, cams, (300,400))['rgb'][0]): Image.fromarray((x*255).byte().numpy()).save(d/'place'/'images'/f'IMG_{i}.jpg')
    pages = {k:demo(weights=k, out=str(d/f'{k}.html'), rooms=0, **kw) for k,kw in (('exact',dict(views=4, between=2)), ('nano',{}))}
    return pages|dict(photos=demo(images=str(d/'place'), out=str(d/'photos.html'), views=4, between=1))

@pytest.fixture
def field(request, fields): return fields[getattr(request, 'param', 'exact')]
both = pytest.mark.parametrize('field', ['exact','nano'], indirect=True)
of_photos = pytest.mark.parametrize('field', ['photos'], indirect=True)

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
    page.eval('document.querySelector("#pad").scrollIntoView()')
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
    for now in (1,0):
        page.key('v')
        assert page.eval('S.inside')==now
    page.key('h')
    assert page.eval('document.getElementById("help").open')
    page.key('h')
    page.eval('go({trust:Array.from(numbers[D.threshold].data).sort((a,b) => a-b)[n*V>>1]/254})')
    assert 0<page.eval('ids.length')<page.eval('N'), 'only points that are sure'

def test_similarity_to_a_patch(page):
    top = rect(page, '#p2')[1]
    page.eval('refer("pred", S.cam, 5)')
    assert rect(page, '#p2')[1]==top, 'the row stands still'
    assert page.eval('S.colour')=='similarity' and page.eval('sim.pred[S.cam*n+5]')>=253
    assert page.eval('new Set(sim.pred).size')>20
    assert text(page, 'cos')==text(page, 'cos4')=='', 'a cosine of features stands beside features only'
    x,y = page.eval('(b => [b.left+b.width/2, b.top+b.height/2])(document.querySelector("#plot canvas").getBoundingClientRect())')
    page.eval('go({colour:"prediction"})')
    for dx in range(0, 200, 15):
        page.click(x+dx, y+40)
        if page.eval('S.colour=="similarity" || S.cam!=D.start'): break
    assert page.eval('S.colour=="similarity" || S.cam!=D.start'), 'a click finds a point or a camera'

def text(page, id): return page.eval(f'document.getElementById("{id}").textContent')
def rect(page, sel): return page.eval(f'(b => [b.left, b.top, b.width, b.height])(document.querySelector(`{sel}`).getBoundingClientRect())')

@pytest.mark.parametrize('field', ['exact','nano','photos'], indirect=True)
def test_the_verdict_stands_above_all_controls(page):
    v = page.eval('D.verdict')
    assert text(page, 'verdict')==v['text'] and v['text'].startswith(f"From {page.eval('stops.filter(s => s.kind==`context`).length')} ") and page.eval('document.getElementById("verdict").classList.contains(D.verdict.won ? "won" : "lost")')
    x,y,w,h = rect(page, '#verdict')
    assert page.eval(f'[...document.querySelectorAll("button:not(.term),input,summary")].every(e => !e.offsetParent || e.getBoundingClientRect().top>={y+h}-1)')
    rows = page.eval('D.measures.slice(1).map(r => parseFloat(r[1].replace("−", "-")))')
    assert page.eval('document.querySelector("tr.best").firstChild.textContent')==page.eval('D.measures[D.best+1][0]') and rows[page.eval('D.best')]==max(rows)
    assert page.eval('START.colour')==('rgb' if not v['won'] or v.get('trusted') is False else 'prediction')
    assert page.eval('D.other && document.querySelector("#p4 canvas").width==gw'), 'another place is a picture beside the prediction'

def test_a_newcomers_screen_has_four_things_and_few_controls(page):
    for sel in ('#title','#verdict','#p0','#p1','#p2','#p4','#plot'):
        x,y,w,h = rect(page, sel)
        assert h>0 and y+h<=901, sel
    assert page.eval('[...document.querySelectorAll("#more input,#more button")].every(e => !e.checkVisibility())')
    page.eval('document.querySelector("#more summary").click()')
    assert page.eval('[...document.querySelectorAll("#more input")].some(e => e.checkVisibility())')
    page.eval('document.querySelector("#more summary").click()')

ROW = ('#p0','#p1','#p2','#p4')  # the picture, the teacher's features of it, the prediction, and that of another place

@pytest.mark.parametrize('size', [(1280,900),(390,844)])
@pytest.mark.parametrize('k', ['nano','photos'])
def test_picture_features_and_predictions_stand_in_one_row(tab, fields, k, size):
    open_page(tab, fields[k], size=size, mobile=size[0]<500)
    boxes = [rect(tab, o) for o in ROW]
    assert len({b[1] for b in boxes})==1 and all(a[0]+a[2]<b[0] for a,b in zip(boxes, boxes[1:])), 'one beside the other, in this order'
    assert np.ptp([b[2] for b in boxes])<1 and boxes[0][2]>70 and boxes[0][0]>=0 and boxes[-1][0]+boxes[-1][2]<=size[0], 'of one size, whole'
    assert sum(boxes[0][1::2])<.7*size[1], 'and the scene begins on the same screen'
    assert [text(tab, f'h{i}') for i in (0,1,2,4)]==['the hidden picture',"teacher's features",'prediction','another place']
    assert [text(tab, i) for i in ('cos','cos4')]==tab.eval("[stops[S.cam].cos, stops[S.cam].cos4].map(x => 'cosine '+num(x))")

def test_narrow_pictures_stand_in_one_row(tab, tmp_path):
    open_page(tab, write_html(tmp_path/'a.html', tall(12, 5)), live='0')
    boxes = [rect(tab, o) for o in ROW[:3]]
    assert len({b[1] for b in boxes})==1 and boxes[0][3]<420 and not tab.eval('$("otherpanel").checkVisibility()')

def tall(gh, gw):
    "A scene of upright pictures"
    rand = lambda *s: torch.rand(*s, generator=torch.Generator().manual_seed(0))
    hw = (10*gh,10*gw)
    cams = Cameras(look_at(rand(3,3)*2, torch.tensor([5.,5.,1.])), intrinsics(1., hw), hw)
    return FieldScene(cams, ['context','path','target'], rand(3,gh,gw,5), [rand(gh,gw,5),None,rand(gh,gw,5)], [rand(3,*hw),None,rand(3,*hw)], 1+rand(3,gh,gw))

def test_the_page_names_the_project(page):
    assert 'Spa3R' in text(page, 'project') and page.eval('$("project").href')==modidx['settings']['git_url']
    x,y,w,h = rect(page, '#project')
    assert y+h<=rect(page, '#verdict')[1] and x+w<=1280 and rect(page, '#title')[1]<y+h<sum(rect(page, '#title')[1::2])+8, 'on the line of the title'

def test_aims_are_folded(tab, tmp_path):
    aims = [Gate('a', 'apples', 3., 2.),Gate('b', 'pears', 1., 2.)]
    for given in (aims,[]):
        open_page(tab, write_html(tmp_path/'a.html', tall(3, 4), aims=given, remarks=['one','two']), live='0')
        assert tab.eval('[...document.querySelectorAll("#remarks>ul>li")].map(e => e.textContent)')==['one','two']
        assert tab.eval('!!document.getElementById("aims")')==bool(given)
        if not given: continue
        assert '1 of 2 met' in tab.eval('document.querySelector("#aims summary").textContent')
        seen = lambda: tab.eval('[...document.querySelectorAll("#aims li")].filter(e => e.checkVisibility()).map(e => e.textContent)')
        assert seen()==[]
        tab.eval('document.querySelector("#aims summary").click()')
        assert seen()==['Met: apples 3, wanted above 2.','Missed: pears 1, wanted above 2.']

@pytest.mark.parametrize('field', ['exact','nano','photos'], indirect=True)
def test_no_word_of_the_page_has_the_marks_of_code(page):
    page.eval('document.querySelectorAll("details").forEach(e => {e.open = true})')
    said = page.eval('[document.querySelector("header"),document.querySelector("main"),document.querySelector("footer"),$("help")].map(e => e.textContent).join()')
    assert len(said)>1500 and '`' not in said+json.dumps(WORDS)+page.eval('[...document.querySelectorAll("[title]")].map(e => e.title).join()')
    page.eval('document.querySelectorAll("details").forEach(e => {e.open = false})')

def test_a_pressed_button_can_be_read_under_the_mouse(page):
    x,y,w,h = rect(page, '#colours [aria-pressed=true]')
    page.mouse('mouseMoved', x+w/2, y+h/2, button='none', buttons=0)
    ink,paper = page.eval('(s => [s.color, s.backgroundColor])(getComputedStyle(document.querySelector("#colours [aria-pressed=true]")))')
    lum = lambda c: sum(map(int, c[c.index('(')+1:-1].split(',')[:3]))
    assert page.eval('document.querySelector("#colours [aria-pressed=true]").matches(":hover")') and abs(lum(ink)-lum(paper))>400

def test_space_belongs_to_the_control_that_has_the_focus(page):
    for sel in ('#only','#more summary','#play'):  # ends with the walk, which stops below
        page.eval(f'document.querySelector("#more").open = true; document.querySelector(`{sel}`).focus()')
        page.key(' ')
        assert page.eval('!!timer')==(sel=='#play'), sel
    page.eval('document.querySelector("#more").open = false; $("play").click(); document.activeElement.blur()')

def test_a_patch_is_chosen_by_keys(page):
    s = page.eval('S.cam')
    page.eval('document.querySelector("#p2 canvas").focus()')
    at = page.eval('cursor.p2')
    page.key('ArrowRight')
    page.key('ArrowDown')
    assert page.eval('cursor.p2')==at+1+page.eval('gw') and page.eval('S.cam')==s and page.eval('document.querySelectorAll("#p2 .cur").length')==1
    page.key('Enter')
    assert page.eval('S.ref')==f"pred.{s}.{page.eval('cursor.p2')}" and page.eval('S.colour')=='similarity'
    page.eval('document.activeElement.blur()')
    assert page.eval('document.querySelectorAll("#p2 .cur").length')==0

def test_the_overview_turns_by_keys_and_stays_in_the_link(page, field):
    page.eval('document.querySelector("#plot canvas").focus()')
    s,was = page.eval('S.cam'),page.eval('eyeNow()')
    for k in ('ArrowLeft','ArrowUp','+'): page.key(k)
    now = page.eval('eyeNow()')
    assert page.eval('S.cam')==s and np.abs(np.array(now)-was).max()>.1
    page.wait('location.hash.includes("eye=")')
    hash = page.eval('location.hash')
    open_page(page, field, hash)
    assert np.allclose(page.eval('eyeNow()'), now, atol=.01)

def test_a_click_on_a_pyramid_flies_there_and_back(page):
    page.eval('scene(2)')
    spot = """(() => {const box = G.r.domElement.getBoundingClientRect(); G.cam.updateMatrixWorld()
      for (let s=V-1; s>=0; s--) if (stops[s].kind!='path') {
        const m = corners(rows34(c2w, s), lensOf(s), FAR).reduce((a,p) => a.map((x,k) => x+p[k]/4), [0,0,0]), v = new THREE.Vector3(...m).project(G.cam)
        const x = box.left+(v.x+1)/2*box.width, y = box.top+(1-v.y)/2*box.height
        if (under(x, y).hit===s) return [s, x, y]
      }})()"""
    s,x,y = page.eval(spot)
    over = page.eval('eyeNow()')
    page.mouse('mouseMoved', x, y, button='none', buttons=0)
    assert page.eval('over')==s and page.eval('stops[over].name') in text(page, 'tip') and page.eval('getComputedStyle($("tip")).display')=='block'
    page.click(x, y)
    page.wait('!document.body.classList.contains("gliding")')
    assert page.eval('S.inside')==1 and page.eval('S.cam')==s
    assert np.allclose(page.eval('G.cam.position.toArray()'), page.eval('place(rows34(c2w, S.cam))'), atol=1e-3)
    page.key('Escape')
    page.wait('!document.body.classList.contains("gliding")')
    assert page.eval('S.inside')==0 and np.allclose(page.eval('eyeNow()'), over, atol=1e-3)

def test_ground_axes_and_scale(page):
    assert text(page, 'ruler').endswith(' m') and page.eval('G.ground.visible && G.ax.visible && G.ay.visible && G.az.visible')
    page.eval('go({grid:0})')
    assert page.eval('!G.ground.visible && !G.ax.visible && !$("ruler").checkVisibility()')

def test_the_page_writes_a_glb(page):
    data = bytes(page.eval('Array.from(glb())'))
    magic,version,size,n,kind = struct.unpack('<5I', data[:20])
    d = json.loads(data[20:20+n])
    assert (magic,version,size,kind)==(0x46546c67,2,len(data),0x4e4f534a) and len(data)==28+n+d['buffers'][0]['byteLength']
    count = {m['name']:d['accessors'][m['primitives'][0]['attributes']['POSITION']]['count'] for m in d['meshes']}
    assert count['points']==page.eval('ids.length') and count['context 1']==16 and len(count)==1+page.eval('stops.filter(s => s.kind!="path").length')
    v = d['bufferViews'][d['accessors'][0]['bufferView']]
    xyz = np.frombuffer(data[28+n+v['byteOffset']:][:v['byteLength']], np.float32).reshape(-1, 3)
    assert np.allclose([xyz.min(0),xyz.max(0)], [d['accessors'][0]['min'],d['accessors'][0]['max']])
    z = page.eval('ids.map(i => cloud.xyz[3*i+2])')
    assert np.allclose(xyz[:,1], z, atol=1e-5), 'y is up'

def test_nothing_is_too_small_for_a_mouse(page):
    page.eval('document.querySelector("#more").open = true')
    small = page.eval('[...document.querySelectorAll("button:not(.term),summary,input:not([type=file]),label,a")].filter(e => e.checkVisibility() && !e.closest(".bars")).map(e => [e.id || e.textContent, (b => Math.min(b.width, b.height))(e.getBoundingClientRect())]).filter(o => o[1]<24)')
    out = page.eval('[...document.querySelectorAll("button,label,h3,small,.caption")].filter(e => e.checkVisibility() && !e.closest("#strip") && e.getBoundingClientRect().right>innerWidth).map(e => e.textContent)')
    page.eval('document.querySelector("#more").open = false')
    assert small==[] and out==[]

def test_terms_explain_themselves(page):
    page.eval('document.querySelector(".term[data-term=prediction]").click()')
    assert WORDS["terms"]['prediction'] in text(page, 'gloss') and page.eval('$("gloss").checkVisibility()')
    page.key('Escape')
    assert page.eval('$("gloss").hidden') and page.eval('[...document.querySelectorAll(".term")].every(b => D.terms[b.dataset.term])')

@of_photos
def test_photos_have_names_and_are_sharp(page):
    names = page.eval('[...document.querySelectorAll("#strip span")].map(e => e.textContent)')
    assert names==['IMG_0.jpg','IMG_1.jpg','IMG_3.jpg','IMG_4.jpg'] and 'IMG_1.jpg' in text(page, 'said')
    assert '4 of 5 photos' in text(page, 'remarks') and page.eval('document.querySelector("#p0 img").naturalWidth')>=448
    assert 'not metres' in text(page, 'ruler') and 'opposite order' in text(page, 'remarks')

@of_photos
def test_the_cloud_of_photos_is_its_pixels(page):
    page.eval('go({colour:"rgb", sure:0, cut:1, only:0})')
    dh,dw = page.eval('D.cloud.hw')
    all_ = page.eval('ids.length')
    assert dw>3*page.eval('gw') and .9*4*dh*dw<all_<=4*dh*dw
    page.eval('go({sure:.5})')
    assert abs(page.eval('ids.length')/all_-.5)<.05, 'half of them are surer than half'
    grey = np.array(page.eval('ids.slice(0, 500).map(i => at(cloud.rgb, i))'))
    assert np.ptp(grey, axis=0).max()>30, 'in the colours of the pictures'

def test_points_stand_where_python_puts_them(tab, tmp_path):
    g = torch.Generator().manual_seed(0)
    cams = Cameras(look_at(torch.rand(3,3, generator=g)*2, torch.tensor([5.,5.,1.])), intrinsics(1., (30,40)), (30,40))
    f = torch.randn(3,3,4,6, generator=g)
    s = FieldScene(cams, ['context','path','target'], f, [f[0],None,f[2]], [torch.rand(3,30,40, generator=g),None,torch.rand(3,30,40, generator=g)], 1+torch.rand(3,6,8, generator=g))
    s.depth[1,2,3] = torch.nan
    open_page(tab, write_html(tmp_path/'a.html', s), live='0')
    p = scene_points(s)
    assert np.abs(np.array(tab.eval('Array.from(cloud.xyz)')).reshape(-1, 3)-p['xyz']).max()<2e-3
    for k in ('stop','patch','keep'): assert tab.eval(f'Array.from(cloud.{k})')==p[k].astype(int).tolist(), k
    assert tab.eval('Array.from(cloud.rgb)')==p['rgb'].ravel().tolist()
    assert tab.eval('known')==[0,2] and tab.errors==[]

def test_cameras_that_are_not_trusted_show_their_points_one_at_a_time(tab, tmp_path):
    rand = lambda *s: torch.rand(*s, generator=torch.Generator().manual_seed(0))
    cams = Cameras(look_at(rand(3,3)*2, torch.tensor([5.,5.,1.])), intrinsics(1., (30,40)), (30,40))
    s = FieldScene(cams, ['context','path','target'], rand(3,4,6,5), [rand(4,6,5),None,rand(4,6,5)], [rand(3,30,40),None,rand(3,30,40)], 1+rand(3,6,8))
    for trusted in (False,True):
        open_page(tab, write_html(tmp_path/f'{trusted}.html', s, said_first=dict(text='-', won=False, cameras='-', trusted=trusted)), live='0')
        shown = lambda: tab.eval('[...new Set(ids.map(i => cloud.stop[i]))]')
        assert tab.eval('S.only')==(not trusted) and shown()==([0,2] if trusted else [2]) and ('not to be trusted' in text(tab, 'caption'))==(not trusted)
    tab.eval('go({only:1, cam:1})')
    assert shown()==[0], 'between two pictures: the one before'

def test_a_phone(tab, fields):
    tab.send('Emulation.setTouchEmulationEnabled', enabled=True)
    try:
        for k in ('exact','photos'):
            open_page(tab, fields[k], size=(390,844), mobile=True)
            assert tab.eval('TOUCH') and 'W A S D' not in text(tab, 'livesay')
            assert tab.eval('document.documentElement.scrollWidth')<=390 and rect(tab, '#plot')[1]<650, 'a good part of the scene is on the first screen'
            for sel in ('#verdict','#p0','#p1','#p2','#p4'): assert sum(rect(tab, sel)[1::2])<=844, sel
            tab.eval('document.querySelector("#more").open = true')
            small = tab.eval('[...document.querySelectorAll("button:not(.term),summary,input:not([type=file]):not([type=checkbox]),label")].filter(e => e.checkVisibility() && !e.closest(".bars") && e.getBoundingClientRect().height<40).map(e => e.id || e.textContent)')
            assert small==[], 'a finger needs room'
            cut = tab.eval('[...document.querySelectorAll("button,summary,h3")].filter(e => e.checkVisibility() && !e.closest("#strip") && e.scrollWidth>e.clientWidth+1).map(e => e.textContent)')
            assert cut==[], 'labels are whole'
            ends = tab.eval('[...document.querySelectorAll("#ends span")].filter(e => e.checkVisibility()).map(e => (b => [b.left, b.right])(e.getBoundingClientRect()))')
            assert len(ends)>=2 and all(b[0]-a[1]>=4 for a,b in zip(ends, ends[1:])), 'ends of the scale stand apart'
    finally:
        tab.send('Emulation.setTouchEmulationEnabled', enabled=False)
        tab.at = None

def test_dark(tab, field):
    tab.send('Emulation.setEmulatedMedia', features=[dict(name='prefers-color-scheme', value='dark')])
    try:
        open_page(tab, field)
        lum = lambda sel,k: sum(map(int, (c:=tab.eval(f'getComputedStyle(document.querySelector("{sel}")).{k}'))[c.index('(')+1:-1].split(',')[:3]))
        assert lum('body', 'backgroundColor')<150 and lum('.card', 'backgroundColor')<200
        for sel in ('#verdict','#said','.panel small','#caption','td'): assert lum(sel, 'color')>400, sel
    finally:
        tab.send('Emulation.setEmulatedMedia', features=[])
        tab.at = None

@pytest.mark.parametrize('width', [375,828,1280])
def test_no_sideways_scrolling(tab, field, width):
    open_page(tab, field, size=(width,800), mobile=width<500)
    assert tab.eval('document.documentElement.scrollWidth')<=width
    tab.key('b')
    assert tab.eval('document.documentElement.scrollWidth')<=width

def js(x, kind='float32'): return f"(s => new {kind.capitalize()}Array(Uint8Array.from(atob(s), c => c.charCodeAt(0)).buffer))('{base64.b64encode(np.ascontiguousarray(x, kind).tobytes()).decode()}')"

@of_photos
def test_pictures_of_the_reader_are_looked_at_as_torch_does(page):
    student,teacher,_ = load_student('nano')
    pics,hide = render(*sample_scenes([HELD_OUT], 3))['rgb'][0].movedim(-1, 1),torch.tensor([0.,1.,0.])
    with torch.no_grad(): want = dict(zip(Eyes.names, Eyes(student, teacher.vggt)(pics, hide)))
    page.eval(f'see([{",".join(f"{{x:{js(o)}}}" for o in pics)}], [0,1,0]).then(o => {{window.told = o}})')
    for k,w in want.items():
        got = np.array(page.eval(f'Array.from(told.{k})'))
        assert np.abs(got-w.numpy().ravel()).max()<.05*max(1, w.abs().max().item()), k  # its matrices are bytes
        assert np.corrcoef(got, w.numpy().ravel())[0,1]>.999, k

@of_photos
def test_dropped_pictures_become_the_scene_and_go_again(page, tmp_path):
    "Latents, field, cloud, verdict and the free camera, from files, without Python"
    rooms,cams = sample_scenes([HELD_OUT+4], 3, (120,160))
    for i,x in enumerate(render(rooms, cams, (120,160))['rgb'][0]): Image.fromarray((x*255).byte().numpy()).save(tmp_path/f'{i}.png')
    first = page.eval('D.verdict.text')
    files = ','.join(f'new File([{js(np.frombuffer((tmp_path/f"{i}.png").read_bytes(), np.uint8), "uint8")}], "mine {i}.png", {{type:"image/png"}})' for i in (2,0,1))
    page.eval(f'(() => {{const t = new DataTransfer(); for (const f of [{files}]) t.items.add(f); dispatchEvent(new DragEvent("drop", {{dataTransfer:t, cancelable:true}}))}})()')
    page.wait('D!==PAGE', 300)
    page.wait('$("ownsay").textContent=="3 of your 3 pictures"')
    assert 'never on a photo' in text(page, 'remarks') and "this page's first scene" in text(page, 'measures')
    assert page.eval('stops.map(s => s.file)')==['mine 0.png','mine 1.png','mine 2.png'] and page.eval('stops.map(s => s.kind)')==['context','target','context']
    rows = page.eval('D.measures.slice(1).map(r => [r[0], parseFloat(r[1].replace("−", "-"))])')
    said,want = page.eval('D.verdict.text'),verdict([dict(name=k, cosine=c) for k,c in rows], 2, 1, trusted=page.eval('D.verdict.trusted'))['text']
    words,numbers = (lambda t: re.sub(r'\d\.\d\d', '#', t)),(lambda t: [float(o) for o in re.findall(r'\d\.\d\d', t)])
    assert words(said)==words(want) and numbers(said)==pytest.approx(numbers(want), abs=.011), 'the sentence is that of Python, from rounded numbers'
    assert page.eval('D.best')==max(range(4), key=lambda i: rows[i][1]) and page.eval('ids.length')>2000 and page.eval('V')==3
    assert page.eval('[...Array(V).keys()].every(s => lens[4*s]==lens[4*s+1])'), 'square pictures, square pixels'
    k = count(page)
    page.key('w')
    settled(page, k)
    assert page.eval('S.pose && live.rgb.length==3*n && live.rgb.some(x => x>0)')
    page.eval('$("undo").click()')
    assert page.eval('D===PAGE') and text(page, 'verdict')==first
    page.eval(f'own([new File(["x"], "a.png", {{type:"image/png"}})])')
    assert 'at least two' in text(page, 'ownsay')

@pytest.mark.parametrize('name', ['nano','photos'])
def test_pages_of_nano_carry_the_encoder_in_15_mb(fields, name):
    text = fields[name].read_text(encoding='utf8')
    assert fields[name].stat().st_size<15e6 and len(re.search('id="eyes">(.*?)<', text)[1])>5e6

def test_a_page_in_the_output_of_a_cell(tab, tmp_path):
    (tmp_path/'cell.html').write_text(show(out=str(tmp_path/'a.html'), rooms=0, views=2, between=0).data, encoding='utf8')
    tab.at = None
    tab.open(f'file://{tmp_path}/cell.html')
    tab.wait('document.querySelector("iframe").contentDocument?.body?.dataset.live=="1"', 120)
    assert tab.eval('document.querySelector("iframe").contentDocument.getElementById("verdict").textContent').startswith('From 1 view')

def test_a_frame_that_may_only_run_scripts(tab, fields):
    "As JupyterLab shows the file beside a notebook"
    folder,tab.at = fields['exact'].parent,None
    (folder/'notebook.html').write_text('<iframe sandbox="allow-scripts" src="exact.html" width="1240" height="860"></iframe>', encoding='utf8')
    tab.send('Target.setAutoAttach', autoAttach=True, waitForDebuggerOnStart=False, flatten=True)
    tab.frames.clear()
    try:
        with serve(folder) as at:
            tab.open(f'{at}/notebook.html')
            def wait(js, seconds=120):
                end = time.time()+seconds
                while not (tab.eval('1') and tab.frames and tab.eval(js, tab.frames[-1])):
                    if time.time()>end: raise TimeoutError(js)
                    time.sleep(.1)
            wait('document.body?.dataset.live=="1"')
            inside = lambda js: tab.eval(js, tab.frames[-1])
            was = inside('[S.cam, eyeNow().join()]')
            x,y,w = inside('(b => [b.left, b.top, b.width])(document.querySelector("#plot canvas").getBoundingClientRect())')
            dx,dy = tab.eval('(b => [b.left, b.top])(document.querySelector("iframe").getBoundingClientRect())')
            tab.drag((x+dx+w-160,y+dy+100), (x+dx+w-260,y+dy+100))  # its upper part is on the first screen
            wait(f'eyeNow().join()!="{was[1]}"')
            for _ in range(20):  # a frame takes keys from when it has the focus, which a slow machine gives late
                tab.key('w')
                if inside('!!S.pose'): break
                time.sleep(.5)
            wait('live.count>0 && S.pose && !live.busy && !held.size')
            inside('$("shot").click()')
            wait('$("livesay").textContent.includes("may not save files")', 20)
    finally: tab.send('Target.setAutoAttach', autoAttach=False, waitForDebuggerOnStart=False, flatten=True)

def test_what_can_be_shown_in_a_cell(tmp_path, monkeypatch):
    "A folder, pictures, and views that have pictures; anything else is named"
    asked = []
    def told(**kw):
        assert core._now, 'what takes long is said under the cell'
        asked.append(kw | dict(files=len(list(Path(kw['images']).glob('*.png'))) if 'images' in kw else 0))
        (tmp_path/'a.html').write_text('<p>', encoding='utf8')
        return tmp_path/'a.html'
    monkeypatch.setattr('spa3r.view.page.demo', told)
    imgs = torch.rand(3, 3, 56, 56)
    Image.new('RGB', (56,56)).save(tmp_path/'1.png')
    (tmp_path/'film.mp4').touch()
    for what in (imgs, Views(imgs[None]), tmp_path, str(tmp_path/'film.mp4'), None): show(what)
    assert [(o['files'],o.get('views'),'video' in o) for o in asked]==[(3,3,False), (3,3,False), (1,None,False), (0,None,True), (0,None,False)]
    assert not Path(asked[0]['images']).exists(), 'no picture is left on the disk'
    show(tmp_path, views=10)
    names = [o['out'] for o in asked]
    assert names==['field.html','field.html',f'{tmp_path.name}.html','film.html','field.html',f'{tmp_path.name}-views10.html'], 'two calls do not share a page'
    monkeypatch.delenv('VSCODE_PID', raising=False)
    frame = lambda **kw: show(imgs, **kw).data[:20]
    assert frame().startswith('<iframe srcdoc'), 'a file elsewhere: the page itself'
    monkeypatch.chdir(tmp_path)
    assert frame()=='<iframe src="a.html"' and frame(inline=True).startswith('<iframe srcdoc'), 'a file beside the notebook: a link'
    monkeypatch.setitem(sys.modules, 'google.colab', sys)
    assert frame().startswith('<iframe srcdoc'), 'which Colab cannot follow'
    for bad in (3, Views(None, *sample_scenes([1], 2)[::-1])):
        with pytest.raises(UserError, match='cannot be shown'): show(bad)
    monkeypatch.setitem(sys.modules, 'IPython.display', None)
    with pytest.raises(UserError, match='pip install jupyterlab'): show(imgs)

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
