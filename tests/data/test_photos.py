"What a photo does to a room: geometry stays, lenses and tilts keep their limits, the same seed spoils in the same way"
import pytest
import torch
from spa3r.model.cameras import Cameras,fov,rotation_angle
from spa3r.data.batches import Views,handheld,photograph,redecorate
from spa3r.rooms.rooms import CLASSES,render,sample_scenes
from spa3r.train.teach_vggt import taken

torch.set_num_threads(1)
gen = lambda s: torch.Generator().manual_seed(s)

@pytest.fixture(scope='module')
def scene(): return sample_scenes(range(40, 52), 3, (28,35))

def test_other_paint_and_lamp_but_the_same_room(scene):
    rooms,cams = scene
    bare = redecorate(rooms, gen(1), clutter=0)
    a,b = render(rooms, cams, (20,25)),render(bare, cams, (20,25))
    for k in ('depth','cls','inst','xyz','normal'): assert torch.equal(a[k], b[k]), k
    assert ((a['rgb']-b['rgb']).abs().mean((1,2,3,4))>.02).all()
    assert torch.equal(rooms.table, sample_scenes(range(40, 52), 3, (28,35))[0].table), 'the room that was given has changed'

def test_clutter_lies_on_the_floor_and_is_seen(scene):
    rooms,cams = scene
    full = redecorate(rooms, gen(1), clutter=30)
    t = full.table[:,-30:]
    assert (t[...,5]-t[...,8]).abs().max()<1e-6 and (t[...,3:5].abs()<=.45*rooms.size[:,None,:2]).all() and t[...,8].max()<.14
    hit = render(full, cams, (40,50))
    there = hit['inst']==99
    assert there.any() and {CLASSES[i] for i in hit['cls'][there].unique()}<={'box','bin','ball'}
    assert torch.equal(hit['depth'][~there], render(rooms, cams, (40,50))['depth'][~there])

@pytest.mark.parametrize('hw', [(42,56),(56,42),(56,56)])
def test_hands_and_lenses(scene, hw):
    cams = Cameras(scene[1].w2c, scene[1].K, hw)
    c = handheld(cams, gen(2))
    assert torch.allclose(c.positions, cams.positions, atol=1e-5)
    assert torch.allclose(c.K[...,0,0], c.K[...,1,1]) and torch.equal(c.K[...,:2,2], torch.tensor([hw[1]/2,hw[0]/2]).expand(12,3,2))
    over = torch.stack(fov(c.K, hw)).amax(0).rad2deg()
    assert 40<=over.min() and over.max()<=90.01 and over.max()-over.min()>20 and torch.equal(over[:,0], over[:,2])
    turned = rotation_angle(c.w2c[...,:3,:3], cams.w2c[...,:3,:3]).rad2deg()
    assert turned.max()<45 and turned.median()>2
    down = c.c2w[...,2,2]  # how far the gaze goes up
    assert down.mean()<cams.c2w[...,2,2].mean()

def test_pictures_of_a_seed(scene):
    x = torch.rand(4, 3, 3, 20, 30, generator=gen(0))
    a = photograph(x, gen(7))
    assert a.shape==x.shape and a.min()>=0 and a.max()<=1 and torch.equal(a, photograph(x, gen(7))) and not torch.equal(a, photograph(x, gen(8)))
    same = photograph(x[:,:1].expand_as(x), gen(7))
    assert not torch.equal(same[:,0], same[:,1])  # one picture taken twice has its own noise each time

def test_a_repeated_camera_is_a_repeated_picture(scene):
    rooms,cams = scene
    order = torch.tensor([0,1,0,2,1])
    for seed in (4,5):  # clean and spoilt
        imgs = taken(Views(cams=cams[:,order], rooms=rooms), seed).imgs
        assert torch.equal(imgs[:,0], imgs[:,2]) and torch.equal(imgs[:,1], imgs[:,4]) and not torch.equal(imgs[:,0], imgs[:,3])
