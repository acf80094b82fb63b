"The live viewer: what it shows is a function of its state; a real browser connects, sees the room, and its clicks arrive"
import io,os,sys,threading,time
from dataclasses import replace
from types import SimpleNamespace
import numpy as np
import pytest
import torch
from PIL import Image
from browser import CHROMIUM,browser
from spa3r.data.scenes import stack_views
from spa3r.view import live
from spa3r.model.cameras import Cameras,intrinsics,look_at
from spa3r.util.core import UserError
from spa3r.view.live import ROOMS,WEAR,Gallery,State,Window,_camera,_wxyz,ask_from,look,newest,painter,photo_place,pick,room_place,serve,uploaded,uploaded_place,view
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers.teachers import load_student
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.teachers.teachers import ExactTeacher,VGGTTeacher
from spa3r.view.scene import ramp

def student(**kw):
    torch.manual_seed(0)
    return Spa3R(Spa3RConfig.nano(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=8, **kw)).eval()

@pytest.fixture(scope='module')
def room(): return room_place(student(), ExactTeacher((8,8)), views=4)

@pytest.fixture(scope='module')
def photos():
    torch.manual_seed(0)
    vggt = VGGT(VGGTConfig.nano(patch=14, dim=48))
    with torch.no_grad(): vggt.camera_head.pose_branch.fc2.bias.add_(torch.tensor([0,0,0,0,0,0,.25,.3,.3]))
    return photo_place(student(geo_channels=96), VGGTTeacher(vggt), torch.rand(4,3,112,112))

START = State((True,False,True,False))

# ---- from a state to pictures

def test_taking_a_view_away_is_not_having_given_it(room):
    "Latents come from the given views alone, in their order"
    seen = look(room, (True,False,True,False))
    st,t = room.student,room.teacher
    feats = t.observe(room.views, torch.tensor([[False,True,False,True]])).ctx
    assert torch.equal(seen.latents, st.encode(feats, (8,8))) and len(seen.less)==1
    assert torch.allclose(seen.less[0], st.encode(feats[:,:1], (8,8)), atol=1e-6)
    assert look(room, (True,False,False,False)).less==[]
    with pytest.raises(UserError, match='first view'): look(room, (False,True,True,True))

def test_pixels_of_photos_are_square(photos):
    K = look(photos, START.is_ctx).cams.K
    said = photos.teacher.observe(photos.views, torch.tensor([[False,True,False,True]])).cams.K[0]
    assert torch.equal(K[:,0,0], K[:,1,1]) and not torch.allclose(said[:,0,0], said[:,1,1])

@pytest.mark.parametrize('off', [(), (3,), (0,1,2,4,5,6,7)])
def test_switched_off_latents_are_as_if_they_never_were(room, off):
    seen = look(room, START.is_ctx)
    pred,s = ask_from(room.student, seen, seen.cams, off)
    on = [i for i in range(8) if i not in off]
    want = room.student.decode(seen.latents[:,on], seen.cams[None], (8,8))['geo'][0].unflatten(1, (8,8))
    assert torch.allclose(pred, want, atol=1e-6) and s.shape==(4,8,8) and s.isfinite().all()

def test_not_all_latents_off(room):
    with pytest.raises(UserError, match='All latents'): ask_from(room.student, look(room, START.is_ctx), look(room, START.is_ctx).cams, range(8))

@pytest.mark.parametrize('colour', WEAR)
@pytest.mark.parametrize('kind', ['room','photos'])
def test_everything_that_points_can_wear(kind, colour, request):
    p = painter(request.getfixturevalue(kind))(replace(START, colour=colour, picked=(1,5)))
    assert len(p.xyz)==len(p.rgb)==len(p.where)>100 and p.rgb.dtype==np.uint8 and np.isfinite(p.xyz).all()
    assert list(p.images)==['field','uncertainty','similarity'] and all(o.shape[:2]==(96,96) for o in p.images.values())
    assert p.kind==['context','target']*2 and len(p.cams)==4

def test_one_view_and_nobody_disagrees(room):
    p = painter(room)(State((True,False,False,False), colour='uncertainty'))
    assert 'unknown' in ' '.join(p.words) and (p.rgb==ramp(np.nan)).all() and (p.images['uncertainty']==ramp(np.nan)).all()

def test_words_are_plain(room):
    "Degrees in place of a spread; what is grey says how it gets its colours"
    words = painter(room)(START).words
    assert any('°' in o for o in words) and any('click a point' in o for o in words) and not any('spread' in o for o in words)
    assert not any('click a point' in o for o in painter(room)(replace(START, picked=(0,1))).words)

def test_pictures_depend_on_the_state_alone(room):
    a,b = painter(room),painter(room)
    states = [START, replace(START, is_ctx=(True,True,True,False)), replace(START, off=frozenset({2})), replace(START, picked=(0,9), colour='similarity')]
    want = [a(s) for s in states]
    for s,w in [*zip(states, want)][::-1]:
        p = b(s)
        assert (p.rgb==w.rgb).all() and p.words==w.words and all((p.images[k]==w.images[k]).all() for k in p.images)
    assert not (want[0].images['field']==want[1].images['field']).all() and not (want[0].images['field']==want[2].images['field']).all()

@pytest.mark.parametrize('kind', ['exact','photos'])
def test_window_at_a_view_sees_its_field(kind, request):
    "The world that is shown and the model's are one, whichever way up was; the lens is that of the first view"
    place = room_place(*load_student('exact')[:2], views=4) if kind=='exact' else request.getfixturevalue(kind)
    paint,seen = painter(place),look(place, START.is_ctx)
    p = paint(START)
    got = [paint(replace(START, w2c=p.cams.w2c[i])).pred for i in range(4)]
    for i in range(4):
        cam = Cameras(seen.cams.w2c[i:i+1], seen.cams.K[:1], seen.cams.hw)
        assert torch.allclose(got[i], ask_from(place.student, seen, cam)[0][0], atol=2e-3)
    assert torch.allclose(p.pred, got[1], atol=1e-3)  # at first at the first hidden view
    if kind=='exact': assert (got[1]-got[3]).abs().mean()>.05  # and it does matter where one stands

def test_a_room_stands_on_its_floor(room):
    "Up is z: floor and ceiling are level"
    z = painter(room)(replace(START, cut=1.)).xyz[:,2]
    lo,hi = np.percentile(z, [1,99])
    assert 2<hi-lo<4 and (np.abs(z-lo)<.05).mean()>.05
    assert painter(room)(replace(START, cut=.5)).xyz[:,2].max()<=lo+.55*(hi-lo)

def test_a_patch_is_like_itself(room):
    p = painter(room)(replace(START, colour='rgb'))
    i = len(p.where)//2
    q = painter(room)(replace(START, picked=tuple(p.where[i].tolist()), colour='similarity'))
    assert q.rgb[i].tolist()==ramp(1.).tolist() and q.rgb.mean()<q.rgb[i].mean()

@pytest.mark.parametrize('seed', range(5))
def test_pick_finds_the_first_point_near_the_ray(seed):
    r = np.random.default_rng(seed)
    xyz,o,d = r.normal(size=(300,3)),r.normal(size=3)*3,None
    d = xyz[7]-o
    to = xyz-o
    ang = np.arccos(np.clip(to@d/np.linalg.norm(to, axis=1)/np.linalg.norm(d), -1, 1))
    near = [j for j in range(300) if np.tan(ang[j])<.02 and ang[j]<1]
    assert pick(xyz, o, d*r.uniform(.1, 9))==min(near, key=lambda j: to[j]@d)
    assert pick(xyz, o, -d)!=7

def test_newest_wish_wins():
    done,go = [],threading.Event()
    give,idle,stop = newest(lambda x: (go.wait(5), done.append(x)))
    for i in range(20): give(i)
    go.set()
    assert idle(5) and done[-1]==19 and len(done)<=2
    give(20)
    assert idle(5) and done[-1]==20
    stop()

def test_a_failure_does_not_end_it(capsys):
    done = []
    give,idle,stop = newest(lambda x: done.append(1/x))
    give(0)
    assert idle(5)
    give(1)
    assert idle(5) and done==[1.]
    stop()

@pytest.mark.parametrize('eye', [(1.,2,3), (-2,0,.5), (0,-1,4)])
def test_camera_to_the_window_and_back(eye):
    c = Cameras(look_at(torch.tensor(eye), torch.tensor([.3,.1,.2])), intrinsics(1., (10,10)), (10,10))
    assert torch.allclose(_camera(SimpleNamespace(wxyz=_wxyz(c), position=c.positions.numpy())), c.w2c, atol=1e-5)

# ---- the command

@pytest.mark.parametrize('kw,err', [(dict(images='a', video='b'),'not both'), (dict(images='no/such'),'No folder'), (dict(video='no.mp4'),'No video'), (dict(views=1),'views 1'),
                                    (dict(images='.', weights='exact'),'cannot look at pictures')])
def test_mistakes_are_named(kw, err, monkeypatch):
    monkeypatch.setattr(live, '_viser', lambda: None)
    with pytest.raises(UserError, match=err): view(**kw)

def test_without_viser(monkeypatch):
    def none(name): raise ImportError(name)
    monkeypatch.setattr(live, 'import_module', none)
    with pytest.raises(UserError, match=r'spa3r\[viewer\]'): view()

# ---- the window

def wait_for(what, seconds=400):
    end = time.time()+seconds
    while time.time()<end:
        if x := what(): return x
        time.sleep(.1)
    raise AssertionError(f'nothing within {seconds} s')

@pytest.fixture(scope='module')
def served(room):
    pytest.importorskip('viser')
    w = serve(room, port=8471)
    yield w
    w.stop()

def visitor(served, tab):
    "Open the window in a browser's tab; the `Window` that it got"
    before = set(served.windows)
    tab.open(f'http://127.0.0.1:{served.server.get_port()}', size=(900,600))
    w = served.windows[wait_for(lambda: set(served.windows)-before).pop()]
    wait_for(lambda: w.state and w.state.w2c is not None)  # the browser says where its camera is
    assert w.idle(400)
    return w

@pytest.fixture(scope='module')
def tabs():
    pytest.importorskip('websocket')
    if not CHROMIUM: pytest.skip('no Chromium')
    with browser() as a, browser() as b: yield a,b

@pytest.fixture(scope='module')
def window(room):
    "A visitor's window without a browser: a server of its own stands for the client, and a bare camera for that of the browser"
    s = pytest.importorskip('viser').ViserServer(host='127.0.0.1', port=8481, verbose=False)
    camera = SimpleNamespace(position=None, look_at=None, wxyz=None, fov=None, up_direction=None, on_update=lambda f: None)
    w = Window(SimpleNamespace(gui=s.gui, scene=s.scene, camera=camera, atomic=s.atomic), Gallery(room))
    assert w.idle(400) and camera.position is not None
    yield w
    w.stop()
    s.stop()

def send(w, name, data):
    "What viser does when an upload is complete"
    k = w.places.upload
    k._impl.value = viser_file(name, data)
    for f in list(k._impl.update_cb): f(SimpleNamespace(target=k))

def viser_file(name, data):
    from viser import UploadedFile
    return UploadedFile(name, data)

def png(w=64, h=48, seed=0):
    f = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (h,w,3), np.uint8)).save(f, 'png')
    return f.getvalue()

def test_knobs_change_the_state(window):
    k = window.knobs
    k.ctx[1].value = True
    wait_for(lambda: window.state.is_ctx==(True,True,True,False))
    k.latent.value = 3
    k.on.value = False
    wait_for(lambda: window.state.off==frozenset({3}))
    assert window.idle(400) and '3 of 4 views' in k.words.content and '7 of 8 latents' in k.words.content
    k.latent.value = 2
    wait_for(lambda: k.on.value)
    assert window.state.off==frozenset({3})  # to look at another number switches nothing
    k.latent.value = 3
    wait_for(lambda: not k.on.value)
    for i in range(8):
        k.latent.value = i
        wait_for(lambda: k.on.value==(i not in window.state.off))
        k.on.value = False
        wait_for(lambda: i in window.state.off)
    assert window.idle(400) and 'All latents' in k.words.content  # said, and alive

def test_one_visitor_does_not_change_another(served, tabs):
    "The second begins afresh, and what each does stays with it; places, too"
    window = visitor(served, tabs[0])
    window.knobs.ctx[1].value = True
    wait_for(lambda: window.state.is_ctx[1])
    other = visitor(served, tabs[1])
    assert other.state.is_ctx==START.is_ctx and other.state.off==frozenset() and '8 of 8 latents' in other.knobs.words.content
    other.knobs.colour.value = 'error'
    other.knobs.ctx[3].value = True
    wait_for(lambda: other.state.is_ctx==(True,False,True,True))
    assert window.state.is_ctx[:2]==(True,True) and window.state.colour!='error' and not window.knobs.ctx[3].value
    send(other, 'a.png', png())
    assert len(other.pictures)==1 and window.pictures==[] and 'a.png' not in window.places.sent.content
    other.go(lambda: (replace(other.place, name='elsewhere'),other.paint))
    assert other.idle(400) and 'elsewhere' in other.knobs.words.content and other.state.is_ctx==START.is_ctx and 'a.png' in other.places.sent.content
    assert window.place.name=='room 9' and window.state.is_ctx[1]
    n = len(served.windows)
    tabs[1].open('about:blank')
    wait_for(lambda: len(served.windows)==n-1)

def test_uploads_that_are_refused(window):
    "No picture, too large, too many: one line, and what was there stays"
    window.pictures.clear()
    said = lambda: window.places.sent.content
    for name,data,why in (('a.txt', b'not a picture', 'that are no image'), ('b.png', png()[:300], 'b.png'), ('c.png', b'0'*21_000_000, '21 MB')):
        send(window, name, data)
        assert why in said() and name in said() and window.pictures==[] and window.places.look.disabled
    send(window, 'one.png', png())
    assert window.places.look.disabled and '1 of at most' in said()
    for i in range(11): send(window, f'{i}.png', png(seed=i))
    send(window, 'last.png', png())
    assert '12 pictures are the most' in said() and len(window.pictures)==12 and not window.places.look.disabled
    for f in list(window.places.forget._impl.update_cb): f(None)
    assert window.pictures==[] and window.places.look.disabled

def test_uploads_are_looked_at_and_never_written(photos, tmp_path):
    "The place of uploads is the place of the same pictures; no file is opened for writing by Python"
    written,watched = [],[True]
    def hook(event, args):
        if watched and event=='open' and args[2] & (os.O_WRONLY|os.O_RDWR|os.O_CREAT): written.append(args[0])
    sys.addaudithook(hook)  # cannot be taken back, so it is put to sleep
    sent = [uploaded(f'{i}.png', png(seed=i)) for i in range(3)]
    place = uploaded_place(photos.student, photos.teacher, sent)
    watched.clear()
    assert written==[] and place.imgs.shape==(3,3,84,112) and place.name=='3 pictures' and 'camera' in place.note.lower()
    assert torch.equal(place.imgs[1], stack_views([sent[1][0]])[0])
    with pytest.raises(UserError, match='at least 2'): uploaded_place(photos.student, photos.teacher, sent[:1])

def test_examples_to_click(window):
    "Three rooms with both shipped weights"
    assert {w:list(b.options) for w,b in window.places.rooms.items()}=={w:[f'room {i}' for i in ROOMS] for w in ('exact','nano')} and len(ROOMS)==3
    b = window.places.rooms['exact']
    b.value = f'room {ROOMS[1]}'
    assert window.idle(400) and window.place.name==f'room {ROOMS[1]}, weights exact' and len(window.frusta)==6
    assert f'room {ROOMS[1]}' in window.knobs.words.content and window.state.is_ctx==(True,False)*3

def test_a_browser_sees_the_room_and_clicks(served, tabs):
    w,tab = visitor(served, tabs[1]),tabs[1]
    see = lambda: w.client.get_render(150, 200, transport_format='png', timeout=60)[...,:3].astype(int)
    def coloured(x): return (np.ptp(x, -1)>40).mean()
    room = wait_for(lambda: [x] if coloured(x := see())>.02 else None)[0]
    w.knobs.colour.value = 'uncertainty'
    assert w.idle(400)
    wait_for(lambda: np.abs(see()-room).max(-1).mean()>1)
    def picked():
        if w.state.picked is None:
            for x,y in ((450,300),(400,260),(420,330),(350,300)):
                tab.mouse('mouseMoved', x, y, buttons=0, clickCount=0)
                tab.click(x, y)
        return w.state.picked
    wait_for(picked)
    assert w.idle(400) and w.state.colour=='similarity'

def test_a_picture_goes_up_through_the_button(served, tabs, tmp_path):
    "From a file of the visitor's, by the browser's own chooser"
    (tmp_path/'mine.png').write_bytes(png())
    w,tab = visitor(served, tabs[1]),tabs[1]
    folder = "[...document.querySelectorAll('*')].filter(e => e.textContent.trim()=='your own pictures').pop()"
    tab.wait(f'!!{folder}', heed=False)
    tab.eval(f'{folder}.click()')
    wait_for(lambda: tab.eval("!!document.querySelector('input[type=file]')"))
    doc = tab.send('DOM.getDocument')['root']['nodeId']
    node = wait_for(lambda: tab.send('DOM.querySelector', nodeId=doc, selector='input[type=file]')['nodeId'])
    tab.send('DOM.setFileInputFiles', nodeId=node, files=[str(tmp_path/'mine.png')])
    wait_for(lambda: [o for _,o,_ in w.pictures]==['mine.png'])
    wait_for(lambda: tab.eval("document.body.textContent.includes('mine.png')"))

# ---- what was seen is not looked at again

class Asked:
    "A teacher that counts how often it is asked"
    def __init__(self, teacher): self.teacher,self.all,self.few = teacher,[],[]
    def __getattr__(self, k): return getattr(self.teacher, k)
    def observe(self, views, is_tgt):
        self.all.append((~is_tgt[0]).tolist())
        return self.teacher.observe(views, is_tgt)
    def context(self, views):
        self.few.append(views.imgs.shape[1])
        return self.teacher.context(views)

STATES = [(True,False,True,False), (True,True,True,False), (True,False,True,False), (True,False,False,False), (True,True,True,False)]

def test_the_teacher_looks_once_at_each_choice_of_views(photos):
    "Once at the start, and no more when a view that was taken away comes back"
    place = replace(photos, teacher=Asked(photos.teacher))
    paint = painter(place)
    assert len(place.teacher.all)==1
    for s in STATES: paint(replace(START, is_ctx=s))
    assert place.teacher.all==[list(STATES[i]) for i in (0,1,3)]

def test_a_teacher_of_two_passes_says_once_what_is_in_all_views(photos):
    "Cameras, depth and features of all views do not depend on what is given, so a toggle costs a look at what is given; and shows what it would have shown"
    two = VGGTTeacher(photos.teacher.vggt, asymmetric=False)
    place = replace(photos, teacher=Asked(two))
    paint = painter(place)
    got = [paint(replace(START, is_ctx=s)) for s in STATES]
    assert place.teacher.all==[list(STATES[0])] and place.teacher.few==[3,1]
    for s,g in zip(STATES, got):
        seen = look(replace(photos, teacher=two), s)
        want = look(place, s)
        assert all(torch.equal(a, b) for a,b in ((seen.latents,want.latents), (seen.feats,want.feats), (seen.depth,want.depth), (seen.cams.w2c,want.cams.w2c)))
        assert sum(s)==sum(k=='context' for k in g.kind)
