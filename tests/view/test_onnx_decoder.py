"The exported decoder says what torch says, on any grid and for any camera, and belongs to its weights"
import numpy as np
import pytest
import torch
from spa3r.model.cameras import Cameras,intrinsics,look_at
from spa3r.util.core import UserError
from spa3r.view.onnx_decoder import CameraDecoder,Eyes,as_bytes,camera_inputs,export_decoder,export_eyes,find_decoder,find_eyes,fingerprint
from spa3r.teachers.teachers import WEIGHTS,load_student
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.teachers.teachers import ExactTeacher,VGGTTeacher
from spa3r.model.patch_encoder import VGGT
from spa3r.rooms.rooms import HELD_OUT,render,sample_scenes
from tiny_vggt import tiny as vggt_config
from spa3r.data.batches import Views

onnx = pytest.importorskip('onnx', reason='the extra `onnx` is not installed')
pytest.importorskip('onnxscript', reason='the extra `onnx` is not installed')
ort = pytest.importorskip('onnxruntime', reason='the extra `onnx` is not installed')

def session(data):
    o = ort.SessionOptions()
    o.intra_op_num_threads = 1
    return ort.InferenceSession(data, o)

def cameras(n, hw, seed=0):
    g = torch.Generator().manual_seed(seed)
    return Cameras(look_at(torch.rand(n,3, generator=g)*3, torch.tensor([6.,5.,1.])), intrinsics(torch.tensor([.8,1.2,1.])[:n], hw), hw)

def difference(student, s, grid, hw, seed):
    "Largest over heads, depth and three cameras"
    cfg,far = student.cfg,0
    z = torch.randn(cfg.n_latents, cfg.dim, generator=torch.Generator().manual_seed(seed))
    cams = cameras(3, hw, seed)
    with torch.no_grad(): want = student.decode(z[None], Cameras(cams.w2c[None], cams.K[None], hw), grid, depth=True)
    for i in range(3):
        got = dict(zip([o.name for o in s.get_outputs()], s.run(None, {k:v.numpy() for k,v in camera_inputs(z, cams[i], grid).items()})))
        assert set(got)==set(want)
        far = max(far, *(np.abs(got[k]-want[k][0,i].unflatten(0, grid).numpy()).max() for k in want))
    return far

@pytest.fixture(scope='module')
def tiny():
    torch.manual_seed(0)
    return Spa3R(Spa3RConfig.nano(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=6, geo_channels=10, sem_channels=7)).eval()

@pytest.fixture(scope='module')
def tiny_file(tiny, tmp_path_factory): return export_decoder(tiny, tmp_path_factory.mktemp('onnx')/'decoder.onnx')

@pytest.mark.parametrize('grid,hw', [((5,7),(70,98)), ((16,16),(112,112)), ((3,9),(42,126)), ((12,2),(120,20))])
def test_export_says_what_torch_says(tiny, tiny_file, grid, hw): assert difference(tiny, session(tiny_file.read_bytes()), grid, hw, 1)<1e-3

def test_what_takes_a_minute_is_told(tiny, monkeypatch, tmp_path):
    "Decoder and encoder of weights that have none beside them"
    said = []
    monkeypatch.setattr('spa3r.view.onnx_decoder.say', lambda what,lasts=False: said.append((what,lasts)))
    def stop(*args, **kwargs): raise UserError('not now')
    monkeypatch.setattr(torch.onnx, 'export', stop)
    seer = VGGTTeacher(VGGT(vggt_config()))
    assert find_decoder(tiny, tmp_path)==(None,'not now') and find_eyes(tiny, seer, tmp_path) is None
    assert said==[('making the decoder for the page',True),('making the encoder for the page',True)]

def test_file_holds_no_trace_of_this_machine(tiny_file):
    m = onnx.load(tiny_file)
    onnx.checker.check_model(m)
    assert not any(n.metadata_props or n.doc_string for n in m.graph.node)
    assert b'site-packages' not in tiny_file.read_bytes() and b'.py' not in tiny_file.read_bytes()

@pytest.mark.parametrize('name', ['exact','nano'])
@pytest.mark.parametrize('grid,hw', [((16,16),(112,112)), ((12,16),(84,112))])
def test_shipped_decoder_is_that_of_the_shipped_weights(name, grid, hw):
    student,data = load_student(name)[0],(WEIGHTS/name/'decoder.onnx').read_bytes()
    assert fingerprint(student).encode() in data, 'run tools/ship_decoders.py'
    assert difference(student, session(data), grid, hw, 2)<1e-3

def test_decoder_of_other_weights_is_not_taken(tiny, tiny_file, monkeypatch):
    assert find_decoder(tiny, tiny_file.parent)==(tiny_file.read_bytes(),'')
    other = Spa3R(tiny.cfg).eval()
    def no(*_): raise UserError('no onnx here')
    monkeypatch.setattr('spa3r.view.onnx_decoder.export_decoder', no)
    assert find_decoder(other, tiny_file.parent)==(None,'no onnx here')
    assert find_decoder(tiny, tiny_file.parent, most=1e4)[0] is None and 'too many' in find_decoder(tiny, None, most=1e4)[1]

def test_without_the_extra_it_says_so(tiny, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__('sys').modules, 'onnxscript', None)
    with pytest.raises(UserError, match=r"pip install 'spa3r\[onnx\]'"): export_decoder(tiny, tmp_path/'d.onnx')
    assert not list(tmp_path.iterdir())

def test_one_camera_at_a_time(tiny):
    with pytest.raises(ValueError, match='one at a time'): camera_inputs(torch.zeros(6,32), cameras(2, (28,28)), (2,2))

def test_traced_module_is_the_decoder(tiny):
    cams,z = cameras(1, (70,98)),torch.randn(6,32)
    with torch.no_grad():
        got = CameraDecoder(tiny.field)(**camera_inputs(z, cams[0], (5,7)))
        want = tiny.decode(z[None], Cameras(cams.w2c[None], cams.K[None], cams.hw), (5,7), depth=True)
    for a,b in zip(got, want.values()): assert torch.allclose(a, b[0,0].unflatten(0, (5,7)), atol=1e-5)

@pytest.mark.parametrize('hide', [[0,1,0,1], [0,0,1], [0,1]])
def test_shipped_eyes_see_what_the_two_calls_see(hide):
    "Hiding by a mask is hiding by order: the context's latents, everybody's features, cameras and depth"
    student,teacher,folder = load_student('nano')
    data,is_tgt = find_eyes(student, teacher, folder),torch.tensor([hide])>0
    assert data==(WEIGHTS/'nano'/'eyes.onnx').read_bytes() and fingerprint(student, teacher.vggt).encode() in data, 'run tools/ship_decoders.py'
    imgs = render(*sample_scenes([HELD_OUT], len(hide)))['rgb'][0].movedim(-1, 1)
    obs = teacher.observe(Views(imgs[None]), is_tgt, fine=True)
    want = dict(feats=student.standardise('geo', obs.feats['geo'])[0].unflatten(1, obs.grid), w2c=obs.cams.w2c[0], K=obs.cams.K[0], depth=obs.fine[0][0], conf=obs.fine[1][0],
                latents=student.encode(obs.ctx, obs.grid)[0])
    with torch.no_grad(): traced = dict(zip(Eyes.names, Eyes(student, teacher.vggt)(imgs, is_tgt[0].float())))
    got = dict(zip(Eyes.names, session(data).run(None, dict(imgs=imgs.numpy(), hidden=is_tgt[0].float().numpy()))))
    for k,w in want.items():
        top = max(1, w.abs().max().item())
        assert (traced[k]-w).abs().max()<1e-4*top and np.abs(got[k]-w.numpy()).max()<.05*top, k
    for k in ('feats','latents'): assert torch.cosine_similarity(torch.from_numpy(got[k]), want[k], dim=-1).mean()>.999  # its matrices are bytes

def test_eyes_take_any_number_of_views(tmp_path):
    torch.manual_seed(0)
    vggt = VGGT(vggt_config(img_size=28)).eval()
    student = Spa3R(Spa3RConfig.nano(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=4, geo_channels=64)).eval()
    eyes = session(export_eyes(student, vggt, tmp_path/'eyes.onnx').read_bytes())
    for v in (2,9):  # more than are seen by one round of the depth head
        imgs,hidden = torch.rand(v,3,28,28),torch.arange(v)%2
        obs = VGGTTeacher(vggt).observe(Views(imgs[None]), hidden[None]>0, fine=True)
        got = dict(zip(Eyes.names, eyes.run(None, dict(imgs=imgs.numpy(), hidden=hidden.float().numpy()))))
        assert np.abs(got['depth']-obs.fine[0][0].numpy()).max()<1e-3 and np.abs(got['w2c']-obs.cams.w2c[0].numpy()).max()<1e-3

def test_bytes_of_a_matrix():
    x = np.random.default_rng(0).normal(size=(40,70)).astype('float32')
    x[:,3] *= 100
    for m,want in ((x,1), (x.T,0)):  # the loud column has a scale of its own
        q,scale,axis = as_bytes(m)
        assert axis==want and q.dtype==np.int8 and scale.shape==(m.shape[axis],)
        assert (np.abs(q*(scale if axis else scale[:,None])-m)<=np.expand_dims(scale, 1-axis)*.51).all()
    assert not as_bytes(0*x)[0].any()

def test_no_eyes_where_nobody_looks(tiny, tmp_path):
    assert find_eyes(tiny, ExactTeacher(), tmp_path) is None
    student,teacher,folder = load_student('nano')
    assert find_eyes(student, teacher, folder, most=1e5) is None
