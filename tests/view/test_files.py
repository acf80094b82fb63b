"Files for other programs: what is written is what is read, by us and by trimesh alone"
import importlib,json,struct
from types import SimpleNamespace
import numpy as np
import pytest
import torch
trimesh = pytest.importorskip('trimesh')
from spa3r.view import scene as files
from spa3r.model.cameras import Cameras,intrinsics,look_at
from spa3r.util.core import UserError
from spa3r.view.scene import COLOURS,KIND_COLOURS,check_export,export_scene,point_colours,ramp,read_points,show_open3d,write_points
from spa3r.view.plots import FeaturePCA,frustum

def cloud(k=50, seed=0):
    r = np.random.default_rng(seed)
    return r.normal(size=(k,3)),r.integers(0, 256, (k,3), np.uint8)

def cameras(v=3): return Cameras(look_at(torch.rand(v,3, generator=torch.Generator().manual_seed(0))+torch.tensor([0,0,1.]), torch.tensor([5.,5.,1.])), intrinsics(1., (30,40)), (30,40))

@pytest.mark.parametrize('v', [0,1,3])
@pytest.mark.parametrize('ending', ['ply','glb','PLY'])
def test_there_and_back(tmp_path, ending, v):
    xyz,rgb = cloud()
    cams = cameras(max(v, 1)) if v else None
    f = write_points(tmp_path/f'a.{ending}', xyz, rgb, cams, ['context','target','context'][:v] if v else None, length=.3)
    x,c,tips = read_points(f)
    assert np.abs(x-xyz).max()<1e-6 and (c==rgb).all() and len(tips)==v
    if v: assert np.abs(np.stack(list(tips.values()))-frustum(cams, .3).numpy()).max()<1e-5
    if v==3 and ending=='glb': assert list(tips)==['context 1','target 1','context 2']
    assert [o.name for o in tmp_path.iterdir()]==[f.name]

def test_glb_has_y_up_and_any_reader_finds_the_colours(tmp_path):
    "Read without our reader: what was z is y, nothing is mirrored, cameras wear the colour of their kind"
    xyz,rgb = cloud()
    s = trimesh.load(write_points(tmp_path/'a.glb', xyz, rgb, cameras(), ['context','target','path']))
    p = s.geometry['points']
    assert np.abs(p.vertices[:,1]-xyz[:,2]).max()<1e-6 and (p.colors[:,:3]==rgb).all()
    assert np.sign(np.linalg.det(p.vertices[:3]))==np.sign(np.linalg.det(xyz[:3]))
    for name in ('context','target','path'): assert (s.geometry[f'{name} 1'].visual.vertex_colors[:,:3]==KIND_COLOURS[name]).all()
    raw = (tmp_path/'a.glb').read_bytes()
    assert raw[:4]==b'glTF' and struct.unpack('<I', raw[8:12])[0]==len(raw)
    meshes = json.loads(raw[20:20+struct.unpack('<I', raw[12:16])[0]])['meshes']
    assert [m['primitives'][0].get('mode') for m in meshes]==[0]+[4]*3  # points, then triangles

def test_ply_by_any_reader(tmp_path):
    xyz,rgb = cloud()
    m = trimesh.load(write_points(tmp_path/'a.ply', xyz, rgb, cameras(2)), process=False)
    assert m.vertices.shape==(50+10,3) and len(m.faces)==16 and m.faces.min()==50
    assert (m.visual.vertex_colors[50:,:3]==KIND_COLOURS['context']).all()
    p = trimesh.load(write_points(tmp_path/'b.ply', xyz, rgb))
    assert isinstance(p, trimesh.PointCloud)  # no camera, no faces

def test_bytes_and_fractions_are_one_colour(tmp_path):
    xyz,rgb = cloud()
    assert (read_points(write_points(tmp_path/'a.ply', xyz, rgb/255))[1]==rgb).all()

@pytest.mark.parametrize('kw,err', [(dict(path='a.obj'),'.ply or .glb'), (dict(xyz=np.zeros((0,3)), rgb=np.zeros((0,3))),'0 points'), (dict(xyz=np.full((50,3), np.inf)),'not finite'),
                                    (dict(rgb=np.zeros((3,3))),'one for each'), (dict(cams=cameras(), kind=['context']),'1 kinds for 3')])
def test_mistakes_write_nothing(tmp_path, kw, err):
    xyz,rgb = cloud()
    a = dict(path='a.ply', xyz=xyz, rgb=rgb)|kw
    with pytest.raises((ValueError,UserError), match=err): write_points(**a|dict(path=tmp_path/a['path']))
    assert not list(tmp_path.iterdir())

def scene(v=4, seed=0):
    g = torch.Generator().manual_seed(seed)
    pred,true = torch.randn(v,2,3,8, generator=g),torch.randn(v,2,3,8, generator=g)
    true[0] = 2*pred[0]
    stop,patch = np.divmod(np.arange(v*6), 6)
    s = SimpleNamespace(pred=pred, teacher=[true[0],None,*true[2:]], kind=['context','path']+['target']*(v-2))
    return s,dict(xyz=cloud(v*6)[0], rgb=cloud(v*6)[1], stop=stop.astype(np.uint16), patch=patch.astype(np.uint16), keep=np.arange(v*6)%2==0)

def test_points_wear_what_was_asked_for():
    s,p = scene()
    pca = FeaturePCA(torch.stack([t for t in s.teacher if t is not None]))
    got = {k:point_colours(s, p, k) for k in COLOURS}
    assert (got['rgb']==p['rgb']).all()
    assert np.abs(got['prediction'].reshape(4,2,3,3)-(pca(s.pred)*255).numpy()).max()<=.51
    grey,dark = ramp(np.nan),ramp(0)
    assert (got['teacher'][6:12]==grey).all() and (got['error'][6:12]==grey).all()  # unknown
    assert np.abs(got['teacher'].reshape(4,2,3,3)[2]-(pca(s.teacher[2])*255).numpy()).max()<=.51
    assert (got['error'][:6]==dark).all() and got['error'][12:].max()>100  # the same direction is no error

def test_what_would_go_wrong_is_said_before():
    check_export('a.glb', 'error')
    for a in (('a.obj',), ('a.ply','depth'), ('ply',)):
        with pytest.raises(UserError): check_export(*a)

@pytest.mark.parametrize('cameras_too', [True,False])
def test_a_scene(tmp_path, cameras_too):
    s,p = scene()
    x,c,tips = read_points(export_scene(tmp_path/'a.glb', s, p, cameras(4), 'prediction', cameras_too))
    assert np.abs(x-p['xyz'][p['keep']]).max()<1e-6 and (c==point_colours(s, p, 'prediction')[p['keep']]).all()
    assert list(tips)==(['context 1','path 1','target 1','target 2'] if cameras_too else [])

def test_missing_packages_are_named(tmp_path, monkeypatch):
    xyz,rgb = cloud()
    f = write_points(tmp_path/'a.ply', xyz, rgb)
    def none(name): raise ImportError(f'No module named {name!r}')
    monkeypatch.setattr(files, 'import_module', none)
    with pytest.raises(UserError, match=r'spa3r\[files\]'): write_points(tmp_path/'b.ply', xyz, rgb)
    with pytest.raises(UserError, match=r'spa3r\[viz3d\]'): show_open3d(f)

def test_window_is_given_points_and_cameras(tmp_path, monkeypatch):
    "With a stand-in for Open3D, which needs a screen"
    seen = {}
    class Cloud:
        def __init__(self, x): self.x = x
    class Lines:
        def __init__(self, x, e): self.x,self.e = x,e
    o3d = SimpleNamespace(geometry=SimpleNamespace(PointCloud=Cloud, LineSet=Lines), utility=SimpleNamespace(Vector3dVector=np.asarray, Vector2iVector=np.asarray),
                          visualization=SimpleNamespace(draw_geometries=lambda g, window_name: seen.update(g=g, name=window_name)))
    xyz,rgb = cloud()
    f = write_points(tmp_path/'a.glb', xyz, rgb, cameras(2))
    monkeypatch.setattr(files, 'import_module', lambda name: o3d if name=='open3d' else importlib.import_module(name))
    show_open3d(f)
    c,*cams = seen['g']
    assert np.abs(c.x-xyz).max()<1e-6 and np.abs(c.colors*255-rgb).max()<1e-6 and len(cams)==2 and seen['name']=='a.glb' and cams[0].e.max()==4
