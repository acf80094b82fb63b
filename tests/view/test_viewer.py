"Laws of the viewer: what the page is told, what photos become, and how bad input ends"
import base64,io,json,os,re,subprocess,sys,time
import numpy as np
import pytest
import torch
from pathlib import Path
from PIL import Image
from spa3r.model.cameras import Cameras,intrinsics,look_at,project
from spa3r.util.core import UserError
from spa3r.data.scenes import natural,photo_folder,photo_names,read_photos,read_video,resize_view as fit_picture,sharper
from spa3r.data.batches import Views
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers.teachers import ExactTeacher,VGGTTeacher
from spa3r.teachers.teachers import load_student
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.rooms.rooms import HELD_OUT,sample_scenes
from spa3r.view.scene import (FieldScene,ask,data_uri,field_error,field_figure,photo_scene,point_colours,ramp,room_scene,
                          scene_points,similarity,upright,walk)
from spa3r.probe.probes import evaluate_field
from spa3r.view.page import demo,few_directions,page_data,room_measures,still,write_html
from spa3r.view.plots import FeaturePCA

def scene(v=5, grid=(3,4), c=6, hw=(30,40), dgrid=(6,8), known=None, seed=0, up=(0.,0.,1.)):
    g = torch.Generator().manual_seed(seed)
    rand = lambda *s: torch.rand(*s, generator=g)
    cams = Cameras(look_at(rand(v,3)*2+torch.tensor([0,0,1.]), torch.tensor([5.,5.,1.])), intrinsics(1., hw), hw)
    known = [True]*v if known is None else known
    kind = ['context']+['target' if k else 'path' for k in known[1:]]
    feats = rand(v,*grid,c)-.5
    return FieldScene(cams, kind, rand(v,*grid,c)-.5, [f if k else None for f,k in zip(feats, known)],
                      [rand(3,*hw) if k else None for k in known], 1+rand(v,*dgrid), up)

def page_json(path): return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', path.read_text(encoding='utf8'), re.S)[1])
def unpack(s, dtype, *shape): return np.frombuffer(base64.b64decode(s), dtype).reshape(*shape)

@pytest.fixture(scope='module')
def exact(tmp_path_factory):
    torch.manual_seed(0)
    d = tmp_path_factory.mktemp('weights')/'exact'
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8)).save_pretrained(d)
    return d

@pytest.fixture(scope='module')
def nano(tmp_path_factory):
    torch.manual_seed(0)
    d = tmp_path_factory.mktemp('weights')/'nano'
    vggt = VGGT(VGGTConfig.nano(patch=14, dim=48))
    with torch.no_grad(): vggt.camera_head.pose_branch.fc2.bias.add_(torch.tensor([0,0,0,0,0,0,.25,.3,.3]))  # an untrained head has no field of view
    vggt.save_pretrained(d/'teacher')
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=96, teacher='teacher')).save_pretrained(d)
    return d

@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    d = tmp_path_factory.mktemp('photos')
    r = np.random.default_rng(0)
    for n,(w,h) in {'1':(150,120), '2':(300,240), '10':(160,140)}.items(): Image.fromarray(r.integers(0, 255, (h,w,3), np.uint8)).save(d/f'{n}.jpg')
    (d/'3.jpg').write_bytes((d/'2.jpg').read_bytes()[:3000])
    (d/'4.png').write_text('no picture', encoding='utf8')
    (d/'notes.txt').write_text('no photo', encoding='utf8')
    return d

def run(*args, **env):
    "The installed command, as a user calls it"
    t = time.time()
    code = 'import sys; from spa3r.view.page import demo; sys.argv[0]="spa3r_demo"; sys.exit(demo())\n'
    path = env.pop('script')
    path.write_text(code, encoding='utf8')
    r = subprocess.run([sys.executable, path, *map(str, args)], capture_output=True, encoding='utf8', env=os.environ|env, timeout=120)
    return r,time.time()-t

# ---- a scene

@pytest.mark.parametrize('known', [None, [True,False,True,False,True], [True]+[False]*4])
def test_unknown_stays_unknown(known, tmp_path):
    s = scene(known=known)
    e,d = field_error(s),page_data(s)
    for i,k in enumerate(s.known.tolist()):
        assert e[i].isfinite().all().item()==k and e[i].isnan().all().item()==(not k)
        st = d['stops'][i]
        assert (st['cos'] is not None)==st['teacher']==k and (st['img'] is not None)==k
        if k: assert abs(st['cos']-(1-e[i].mean().item()))<1e-5

def test_error_is_zero_only_for_the_right_direction():
    s = scene()
    s.pred = torch.stack(s.teacher)*3.7
    assert field_error(s).abs().max()<1e-5
    s.pred = -s.pred
    assert (field_error(s)-2).abs().max()<1e-5

@pytest.mark.parametrize('field,val', [('kind',['context']*4), ('imgs',[None]*6), ('teacher',[]), ('kind',['context']*4+['else'])])
def test_scene_that_does_not_fit(field, val):
    s = scene()
    with pytest.raises(ValueError): FieldScene(**(vars(s)|{field:val}))

def test_one_basis_for_all_panels():
    s = scene()
    pca = FeaturePCA(torch.randn(500,6, generator=torch.Generator().manual_seed(1)))
    d = page_data(s, pca)
    for name,x in (('pred',s.pred), ('teach',torch.stack(s.teacher))):
        got = unpack(d[name], np.uint8, 5,3,4,3)
        assert np.abs(got-(pca(x)*255).round().numpy()).max()<=1

@pytest.mark.parametrize('up', [(0,0,1.), (0,-1.,0), (1.,2.,-.5), (0,0,-1.)])
def test_upright_is_a_rotation_that_lifts_up(up):
    s = scene(up=up)
    c = upright(s)
    u = torch.nn.functional.normalize(torch.tensor(up), dim=0)
    assert torch.allclose(torch.cdist(c.positions, c.positions), torch.cdist(s.cams.positions, s.cams.positions), atol=1e-4)
    assert torch.allclose(c.positions[:,2], s.cams.positions@u, atol=1e-4)
    assert torch.allclose(torch.linalg.det(c.w2c[:,:3,:3]), torch.ones(5), atol=1e-4)

@pytest.mark.parametrize('dgrid', [(3,4),(6,8),(9,16)])
def test_points_project_back_to_their_patch(dgrid):
    s = scene(dgrid=dgrid)
    s.depth[1,0,0] = torch.nan
    s.depth[2,1,1] = 0
    p,c = scene_points(s),upright(s)
    assert len(p['xyz'])==5*dgrid[0]*dgrid[1]-2
    for i in range(5):
        m = p['stop']==i
        uv,z = project(torch.from_numpy(p['xyz'][m]), c.K[i], c.w2c[i])
        cell = (uv[:,1]/10).floor()*4+(uv[:,0]/10).floor()
        assert (cell.numpy()==p['patch'][m]).all()

def test_fewer_points_on_demand():
    s = scene(dgrid=(30,40))
    for n in (50,500): assert n/3<scene_points(s, n)['keep'].sum()<=n

def test_still_shows_the_nearer_point():
    xyz = np.array([[0,4,0],[0,2,0],[1,4,0.]])
    rgb = np.array([[255,0,0],[0,255,0],[0,0,255]], np.uint8)
    for order in ([0,1,2],[1,0,2]):
        a = still(xyz[order], [rgb[order], rgb[order][:,[1,0,2]]], (0,0,0), (0,1,0), (60,60))
        assert a.shape==(120,60,3)
        assert tuple(a[30,30])==(0,255,0) and tuple(a[90,30])==(255,0,0)
        assert (a==[0,0,255]).all(-1).sum()==2*16

# ---- the page

def test_page_is_whole(tmp_path):
    s = scene(known=[True,False,True,False,True])
    path = write_html(tmp_path/'a.html', s, title='</script><script>alert(1)', remarks=['<b>'], measures=[['','cosine'],['prediction','1']])
    text = path.read_text(encoding='utf8')
    assert path.stat().st_size<15e6 and '<script>alert' not in text
    own = re.sub(r'<script type="text/plain" id="(three|ort|ortmod)">.*?</script>', '', text, flags=re.S)  # without other people's programs
    assert len(own)<len(text) and not re.search(r'(src|href)\s*=\s*["\']?(https?:)?//', own) and '@import' not in own and '<link' not in own
    assert not re.search(r'/\*[A-Z]+\*/', own), 'a place for data was left empty'
    d = page_json(path)
    assert d['title']=='</script><script>alert(1)' and len(d['stops'])==5 and d['grid']==[3,4]
    hw = d['cloud']['hw']
    assert hw==[6,8] and unpack(d['cloud']['depth'], np.uint16, 5,*hw).max()<65535 and unpack(d['cloud']['rgb'], np.uint8, 3,*hw,3).shape[0]==3
    assert d['verdict']['text'].startswith('From 1 picture the model')
    assert unpack(d['c2w'], np.float32, 5,3,4).shape[0]==5 and unpack(d['lens'], np.float32, 5,4).shape[0]==5 and d['live'] is None
    assert all(k in text for k in ('id="slide"','id="shot"','id="reset"','id="still"','webgl'))

@pytest.mark.parametrize('grid,hw', [((14,8),(196,112)), ((2,9),(28,126))])
def test_any_aspect(grid, hw, tmp_path):
    d = page_json(write_html(tmp_path/'a.html', scene(grid=grid, hw=hw, dgrid=grid)))
    assert d['grid']==list(grid) and abs(d['aspect']-hw[1]/hw[0])<1e-3

def test_script_parses(tmp_path):
    node = pytest.importorskip('shutil').which('node')
    if not node: pytest.skip('no node here to read the script')
    text = write_html(tmp_path/'a.html', scene()).read_text(encoding='utf8')
    (tmp_path/'a.js').write_text(text[text.rindex('<script>')+8:text.rindex('</script>')], encoding='utf8')
    assert subprocess.run([node, '--check', tmp_path/'a.js'], capture_output=True).returncode==0

def test_numbers_of_patches_reach_the_page():
    s = scene(known=[True,False,True,False,True])
    s.numbers = dict(doubt=torch.linspace(0, 1, 60).view(5,3,4))
    d = page_data(s)
    assert d['colours']==['rgb','teacher','prediction','error','doubt','similarity'] and d['threshold']=='doubt'
    err,doubt = (unpack(d['numbers'][k]['data'], np.uint8, 5,3,4) for k in ('error','doubt'))
    assert (err[[1,3]]==255).all() and (err[[0,2,4]]<255).all()
    assert doubt.max()==254 and doubt.min()==0 and (np.diff(doubt.ravel().astype(int))>=0).all()

def test_few_directions_keep_cosines():
    g = torch.Generator().manual_seed(0)
    low = torch.randn(300,5, generator=g)@torch.randn(5,40, generator=g)+3  # far from the origin, and of rank 6
    B = few_directions(low, 6)
    assert torch.allclose(B.mT@B, torch.eye(6), atol=1e-4)
    cos = lambda x: torch.cosine_similarity(x[:,None], x[None], dim=-1)
    assert (cos(low@B)-cos(low)).abs().max()<1e-3

def test_live_camera_at_a_stop_is_the_stop(exact):
    s = room_scene(Spa3R.from_pretrained(exact).eval(), ExactTeacher(), HELD_OUT+1, views=3, between=1)
    d = page_data(s, live=True)['live']
    assert unpack(d['latents'], np.float32, 8,32).shape==(8,32) and abs(d['unit']-1)<1e-3
    assert np.abs(unpack(d['w2c'], np.float32, -1,3,4)-s.seen.w2c[:,:3].numpy()).max()<1e-6
    got = unpack(d['check'], np.float32, len(d['check_patches']),64)
    assert np.allclose(got, s.pred[d['check_stop']].flatten(0,1)[d['check_patches']].numpy())
    basis,mean = unpack(d['colours'], np.float32, 64,3),unpack(d['mean'], np.float32, 64)
    rgb = ((got-mean)@basis-d['lo'])/(np.array(d['hi'])-d['lo'])  # what the page does with a decoded field
    n = s.pred[0,...,0].numel()
    stored = unpack(page_data(s)['pred'], np.uint8, -1,n,3)[d['check_stop'],d['check_patches']]
    assert np.abs(rgb.clip(0, 1)*255-stored).max()<=1
    with pytest.raises(ValueError, match='keeps no latents'): page_data(scene(), live=True)

# ---- figures

def test_colours_of_points():
    s = scene(known=[True,False,True,False,True])
    p,pca = scene_points(s),FeaturePCA(torch.stack([t for t in s.teacher if t is not None]))
    got = {k:point_colours(s, p, k, pca, (2,1,1)) for k in ('rgb','teacher','prediction','error','similarity')}
    unknown = np.isin(p['stop'], [1,3])
    for k in ('teacher','error'): assert (got[k][unknown]==[190,196,205]).all() and not (got[k][~unknown]==[190,196,205]).all(-1).all()
    i = 7
    assert (got['prediction'][i]==(pca(s.pred).flatten(1,2)[p['stop'][i],p['patch'][i]]*255).round().numpy()).all()
    assert ramp(np.linspace(0, 1, 9)).sum(-1).tolist()==sorted(ramp(np.linspace(0, 1, 9)).sum(-1).tolist())  # lighter is more
    with pytest.raises(ValueError, match="colour by 'x'"): point_colours(s, p, 'x', pca)

def test_similarity_is_to_the_teacher_of_the_point():
    s = scene(known=[True,False,True,False,True])
    s.pred[4,2,3] = s.teacher[2][1,1]*5
    sim = similarity(s, (2,1,1))
    assert sim.shape==(5,3,4) and abs(sim[4,2,3]-1)<1e-5 and sim.max()<=1+1e-5
    assert abs(similarity(s, (1,0,2))[1,0,2]-1)<1e-5  # nobody was there: the prediction itself

def test_figure_has_a_step_for_each_camera_and_all_colours():
    s = scene(known=[True,False,True,False,True])
    fig = field_figure(s, (2,1,1), n=200)
    assert [f.name for f in fig.frames]==list('01234') and len(fig.layout.sliders[0].steps)==5
    assert [b.label for b in fig.layout.updatemenus[0].buttons]==['rgb','teacher','prediction','error','similarity']
    assert len({f.data[2].source for f in fig.frames})==5 and fig.frames[1].data[1].source==fig.frames[3].data[1].source!=fig.frames[0].data[1].source
    assert [b.label for b in field_figure(s).layout.updatemenus[0].buttons]==['rgb','teacher','prediction','error']
    assert len(fig.data[0].x)<=200

# ---- photos and videos

def test_natural_order(): assert sorted(['b10','b9','a','b9a','10','9'], key=natural)==['9','10','a','b9','b9a','b10']

@pytest.mark.parametrize('size', [(112,112), (540,960), (960,540), (113,77), (50,200)])
@pytest.mark.parametrize('patch', [7,14])
def test_picture_becomes_whole_patches(size, patch):
    o = fit_picture(Image.new('RGBA', size), 112, patch)
    h = 112*size[1]/size[0]
    assert o.mode=='RGB' and o.width==112 and o.height%patch==0 and (min(h, 112)-o.height)<patch+1

def test_the_eye_gets_the_same_part_of_a_picture_in_more_pixels(tmp_path):
    r = np.random.default_rng(0)
    for i,wh in enumerate([(500,410),(410,500)]):
        Image.fromarray(r.integers(0, 255, (wh[1]//10,wh[0]//10,3), np.uint8)).resize(wh, Image.BICUBIC).save(tmp_path/f'{i}.png')
    small,names,_ = read_photos(tmp_path, 2, 112, 7)
    fine = sharper(tmp_path, names, 112, 7, 4)
    assert fine.shape==(2,3,*(4*o for o in small.shape[-2:]))
    assert (torch.nn.functional.avg_pool2d(fine, 4)-small).abs().mean()<.04
    assert (torch.nn.functional.avg_pool2d(fine.roll(16, 2), 4)-small).abs().mean()>.2, 'and no other part'

def test_photos_are_found_where_they_were_meant(photos, tmp_path):
    (tmp_path/'x').mkdir()
    os.symlink(photos, tmp_path/'x'/'images')
    assert read_photos(tmp_path/'x', 9)[1]==photo_names(photos)[:2]+['10.jpg'] and photo_folder(tmp_path/'x')==tmp_path/'x'/'images'
    with pytest.raises(UserError, match='is a file: give the folder'): photo_folder(photos/'1.jpg')
    (tmp_path/'a.mp4').write_bytes(b'x')
    with pytest.raises(UserError, match='give it to --video'): photo_folder(tmp_path/'a.mp4')
    os.symlink(photos, tmp_path/'x'/'again')
    with pytest.raises(UserError, match='again, images do'): photo_folder(tmp_path/'x')

def test_exif_rotation():
    a = np.zeros((80,112,3), np.uint8)
    a[:40] = 255
    im = Image.fromarray(a)
    turned = im.rotate(90, expand=True)
    turned.getexif()[0x112] = 6
    assert np.abs(np.asarray(fit_picture(turned)).astype(int)-np.asarray(fit_picture(im))).max()<3

def test_photos_left_out_and_named(photos):
    imgs,names,left = read_photos(photos, 9)
    assert names==['1.jpg','2.jpg','10.jpg'] and imgs.shape==(3,3,84,112)
    assert [o.split(':')[0] for o in left if ': .' not in o]==['3.jpg','4.png'], left
    assert read_photos(photos, 2)[1]==['1.jpg','10.jpg']

def test_too_few_or_unlike_photos(tmp_path):
    with pytest.raises(UserError, match='0 usable'): read_photos(tmp_path)
    Image.new('RGB', (112,112)).save(tmp_path/'a.png')
    (tmp_path/'b.png').write_text('x', encoding='utf8')
    with pytest.raises(UserError, match='1 usable photo .*b.png'): read_photos(tmp_path)
    Image.new('RGB', (112,30)).save(tmp_path/'c.png')
    with pytest.raises(UserError, match='too different'): read_photos(tmp_path)
    with pytest.raises(UserError, match='No folder'): read_photos(tmp_path/'none')

@pytest.mark.parametrize('frames', [3,40])
def test_video(frames, tmp_path):
    av = pytest.importorskip('av')
    with av.open(str(tmp_path/'v.mp4'), 'w') as box:
        s = box.add_stream('mpeg4', rate=10)
        s.width,s.height,s.pix_fmt = 128,96,'yuv420p'
        for i in range(frames):
            f = av.VideoFrame.from_ndarray(np.full((96,128,3), 20+i*200//frames, np.uint8), format='rgb24')
            for p in s.encode(f): box.mux(p)
        for p in s.encode(): box.mux(p)
    imgs,names = read_video(tmp_path/'v.mp4', 3)
    assert imgs.shape==(3,3,84,112) and len(set(names))==3
    light = imgs.mean((1,2,3))*255
    assert (light.diff()>0).all() and light[0]<20+200/3 and light[2]>20+200*.6
    fine = read_video(tmp_path/'v.mp4', 3, times=4)[0]
    assert fine.shape==(3,3,336,448) and (torch.nn.functional.avg_pool2d(fine, 4)-imgs).abs().mean()<.02, 'the same parts, for display'

def test_video_without_pyav(tmp_path, monkeypatch):
    (tmp_path/'v.mp4').write_bytes(b'0')
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(UserError, match='PyAV'): read_video(tmp_path/'v.mp4')

# ---- asking

def test_walk_keeps_the_views():
    _,cams = sample_scenes([HELD_OUT], 5)
    for between in (0,1,4):
        path,kind = walk(cams[0], between)
        assert len(path)==len(kind)==5+4*between and kind.count('path')==4*between
        at = torch.tensor([i for i,k in enumerate(kind) if k!='path'])
        assert torch.allclose(path[at].w2c, cams[0].w2c, atol=1e-5) and [kind[i] for i in at]==['context','target']*2+['context']

def test_no_hidden_view_changes_a_prediction(exact):
    torch.manual_seed(0)
    student = Spa3R.from_pretrained(exact).eval()
    vggt = VGGTTeacher(VGGT(VGGTConfig.nano(patch=14, dim=32)))
    rooms,cams = sample_scenes([HELD_OUT], 6)
    is_ctx = torch.tensor([True,False,True,False,True,False])
    imgs = torch.rand(1,6,3,28,28)
    other = imgs.clone()
    other[:,~is_ctx] = torch.rand(1,3,3,28,28)
    with torch.no_grad(): vggt.vggt.camera_head.pose_branch.fc2.bias.add_(torch.tensor([0,0,0,0,0,0,.25,.3,.3]))
    z = [ask(student, vggt, Views(o), is_ctx, 2)[4] for o in (imgs,other)]
    assert torch.equal(*z)
    pred = ask(student, ExactTeacher(), Views(None, cams, rooms), is_ctx)[1]
    few = torch.tensor([0,2,4,5])
    assert torch.allclose(ask(student, ExactTeacher(), Views(None, cams[:,few], rooms), is_ctx[few])[1][3], pred[5], atol=1e-4)

def test_room_knows_everything(exact):
    student = Spa3R.from_pretrained(exact).eval()
    s = room_scene(student, ExactTeacher(), HELD_OUT+1, views=3, between=1)
    assert s.known.all() and all(o is not None for o in s.imgs) and s.depth.isfinite().all()
    assert s.kind[0]=='context' and s.kind.count('target')==1

def test_pixels_of_photos_are_square(nano):
    "The teacher says two fields of view that contradict each other; what is shown has one focal length, between them"
    student,teacher,_ = load_student(nano)
    imgs = torch.rand(3,3,42,28)
    K = teacher.observe(Views(imgs[None]), torch.tensor([[False,True,False]])).cams.K[0]
    scene = photo_scene(student, teacher, imgs, between=0)
    assert ((K[:,0,0]/K[:,1,1]).log().abs()>.05).all() and torch.equal(scene.cams.K[:,0,0], scene.cams.K[:,1,1])
    assert torch.allclose(scene.cams.K[:,0,0]**2, K[:,0,0]*K[:,1,1], rtol=1e-4) and torch.equal(scene.seen.K, scene.cams.K)

def test_photos_know_only_photos(nano):
    student,teacher = Spa3R.from_pretrained(nano).eval(),VGGTTeacher(VGGT.from_pretrained(str(nano/'teacher')))
    s = photo_scene(student, teacher, torch.rand(3,3,42,28), between=2)
    assert s.kind==['context','path','path','target','path','path','context'] and s.known.tolist()==[True,False,False]*2+[True]
    assert s.pred.shape==(7,3,2,96) and s.depth.shape==(7,21,14)  # as fine as the teacher's own map
    assert [o.isfinite().all().item() for o in s.sure]==s.known.tolist() and s.sure[0].min()>=1  # VGGT's confidence starts at 1
    many = photo_scene(student, teacher, torch.rand(4,3,84,84), between=300)  # as many points as a page can bear, however long the walk
    assert 250_000<many.depth.numel()<330_000 and many.depth.shape[1]>6

# ---- the command

def test_demo_writes_a_page(exact, tmp_path, capsys):
    path = demo(weights=str(exact), out=str(tmp_path/'f.html'), rooms=2, views=4, between=1, live=False)
    d,said = page_json(path),capsys.readouterr().out
    assert 'Now measuring on 2 unseen rooms' in said and 'shuffled latents' not in said  # the page has them
    assert [r[0] for r in d['measures'][1:]]==['prediction','shuffled latents',"another view's camera","another room's camera",'nearest view','position mean','true-depth warp']
    assert d['colours']==['rgb','teacher','prediction','error','uncertainty','similarity'] and d['live'] is None
    assert any(a.startswith('Missed: ') for a in d['aims']) and not any('missed' in r.lower() for r in d['remarks'])

def test_the_table_of_the_page_is_that_of_tour_and_probe(exact):
    "One source: the same rooms, cameras and classifier"
    student,teacher,_ = load_student(str(exact))
    assert room_measures(student, teacher, 2)['rows']==evaluate_field(student, teacher, range(HELD_OUT, HELD_OUT+2))['rows']

def test_the_page_says_what_went_in(tmp_path):
    "The exact teacher looks at no picture, so none is spoken of; nano looks at pictures. Without a table none is spoken of"
    for name,went_in,how in (('exact','3 views of a room went in',"computed from the room's surfaces"), ('nano','3 pictures of a room went in','computed from that picture')):
        d = page_json(demo(weights=name, out=str(tmp_path/'f.html'), rooms=0, between=0, live=False))
        assert went_in in d['lead'][0] and d['said']['target'][2]==how and not any('in the table' in r for r in d['remarks'])

def test_only_shipped_weights_are_called_synthetic(nano, photos, tmp_path, capsys):
    demo(images=str(photos), out=str(tmp_path/'f.html'), between=0, live=False)
    assert 'synthetic rooms' in capsys.readouterr().out
    demo(images=str(photos), weights=str(nano), out=str(tmp_path/'f.html'), between=0, live=False)
    assert 'synthetic' not in capsys.readouterr().out

@pytest.mark.parametrize('kind', ['images','video'])
def test_pictures_are_shown_sharper_than_the_model_sees_them(nano, kind, tmp_path):
    given,r = {kind:str(tmp_path/'a')},np.random.default_rng(0)
    pics = [Image.fromarray(r.integers(0, 255, (48,64,3), np.uint8)).resize((640,480)) for _ in range(4)]
    if kind=='images':
        (tmp_path/'a').mkdir()
        for i,o in enumerate(pics): o.convert('L').save(tmp_path/'a'/f'{i}.pgm')  # as cameras of robots write them
    else:
        av = pytest.importorskip('av')
        with av.open(str(tmp_path/'a'), 'w', format='mp4') as box:
            s = box.add_stream('mpeg4', rate=4)
            s.width,s.height,s.pix_fmt = 640,480,'yuv420p'
            for o in pics:
                for p in s.encode(av.VideoFrame.from_image(o)): box.mux(p)
            for p in s.encode(): box.mux(p)
    d = page_json(demo(**given, weights=str(nano), out=str(tmp_path/'f.html'), views=2, between=0, live=False))
    seen = [Image.open(io.BytesIO(base64.b64decode(s['img'].split(',')[1]))) for s in d['stops']]
    assert [o.width for o in seen]==[448,448] and d['stops'][1]['file'] in ('3.pgm','0.8 s','0.6 s')

def test_demo_of_photos_says_what_it_is_worth(nano, photos, tmp_path, capsys):
    path = demo(images=str(photos), weights=str(nano), out=str(tmp_path/'f.html'), between=1, live=False)
    said = capsys.readouterr().out
    assert 'left out: 3.jpg' in said and 'that can be used, in this order' in said and 'spread evenly' not in said
    assert any('3.jpg' in r for r in page_json(path)['remarks'])

def test_a_page_is_named_after_its_pictures(nano, photos, tmp_path, monkeypatch, capsys):
    "Two folders give two pages; upright pictures are called so once"
    monkeypatch.chdir(tmp_path)
    few,many = tmp_path/'my.holiday',tmp_path/'home'
    for d,n in ((few,2),(many,8)):
        d.mkdir()
        for i in range(n): Image.fromarray(np.random.default_rng(i).integers(0, 255, (90,60,3), np.uint8)).save(d/f'{i}.png')
    kw = dict(weights=str(nano), between=0, live=False)
    assert demo(images=str(few), **kw)==Path('my.holiday.html')
    said = capsys.readouterr().out
    assert said.count('only the middle square is used, 33 % of the height is cut off')==1 and 'both photos' in said
    monkeypatch.chdir(many)
    assert demo(images='.', **kw)==Path('home.html') and '6 of 8 photos, spread evenly (the option “views” takes more)' in capsys.readouterr().out

def test_bad_arguments(exact, nano, photos, tmp_path):
    bad = tmp_path/'bad'
    bad.mkdir()
    (bad/'config.json').write_text((exact/'config.json').read_text(encoding='utf8'), encoding='utf8')
    for kw,why in [(dict(images='none'), 'No folder'), (dict(images=''), 'No folder'), (dict(video=''), 'No video'), (dict(device='meta'), 'No device'), (dict(video='none.mp4'), 'No video'), (dict(images='a', video='b'), 'not both'),
                   (dict(weights='no/such/folder'), 'folder that exists'), (dict(weights=str(bad)), 'model.safetensors missing'), (dict(views=1), 'views 1'),
                   (dict(seed=-1), 'seed -1'), (dict(images=str(photos), weights=str(exact)), 'cannot look at pictures'), (dict(out=str(bad)), 'is a folder'),
                   (dict(weights=str(exact), teacher=str(nano/'teacher'), rooms=0), 'leave out --teacher|learnt on features')]:
        with pytest.raises(UserError, match=why): demo(**(dict(out=str(tmp_path/'f.html'), live=False)|kw))
    (bad/'model.safetensors').write_bytes((exact/'model.safetensors').read_bytes())
    cfg = json.loads((bad/'config.json').read_text(encoding='utf8'))
    (bad/'config.json').write_text(json.dumps(cfg|dict(dim=64)), encoding='utf8')
    with pytest.raises(UserError, match='do not fit'): demo(weights=str(bad))

def test_errors_end_in_one_line_and_2(tmp_path):
    r,t = run('--weights', 'nobody/nothing', script=tmp_path/'spa3r_demo', HF_ENDPOINT='http://127.0.0.1:9', HF_HOME=str(tmp_path))
    assert r.returncode==2 and len(r.stderr.strip().splitlines())==1 and 'nobody/nothing' in r.stderr and t<90
    r,_ = run('--help', script=tmp_path/'spa3r_demo')
    assert r.returncode==0 and all(f'--{o}' in r.stdout for o in ('images','video','weights','out','seed'))

def test_doubt_is_where_single_pictures_matter():
    "0 to 1 over the scene, as `spread` says it in order; unknown with one picture"
    student,teacher,_ = load_student('exact')
    scene = room_scene(student, teacher, HELD_OUT+2, views=4, between=0)
    u = scene.numbers['uncertainty']
    assert u.shape==scene.pred.shape[:3] and u.min()>=0 and u.max()==1
    one = room_scene(student, teacher, HELD_OUT+2, views=2, between=1).numbers['uncertainty']
    assert one.isnan().all()
