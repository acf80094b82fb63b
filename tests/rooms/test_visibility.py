"Watching a room: the video, what it shows, distances"
import random
import numpy as np
import pytest, torch
from spa3r.rooms.rooms import Thing,make_rooms,render
from spa3r.rooms.visibility import CLEAR,SIZE,bearing,box_distance,clear_sector,corners,room_frames,room_video,watch
from rooms_again import RATE,SEEDS,masks,rooms,sampled_distance

@pytest.mark.parametrize('seed', [*SEEDS[::4],527])
def test_shown_is_what_was_in_full_view(seed):
    "In one frame that a model sees: large enough by a sharper look, and each corner of the box inside the picture"
    scene,inst = watch(seed),masks(seed)[0][::RATE]
    K,w2c = (x.double().numpy() for x in (scene.cams.K[0],scene.cams.w2c))
    for o in rooms(seed).objects:
        size = (inst==o.inst).double().mean((1,2)).numpy()
        x = np.einsum('nij,kj->nki', w2c, np.c_[corners(o),np.ones(8)])[...,:3]
        ahead,uv = x[...,2]>.1,x@K.T
        uv = uv[...,:2]/np.where(ahead, uv[...,2], 1)[...,None]
        whole = (ahead&(uv>0).all(-1)&(uv<SIZE[::-1]).all(-1)).all(1)
        best = max([0,*size[whole]])
        if not .8*CLEAR<best<1.2*CLEAR: assert (o in scene.shown)==(best>CLEAR), (o.cls, best)

@pytest.mark.parametrize('seed', SEEDS[::3])
def test_the_video_is_one_path_through_free_space(seed):
    room,cams = room_video(seed, 8*31+1)
    assert torch.equal(cams[::8].w2c, room_video(seed, 32)[1].w2c) or (cams[::8].w2c-room_video(seed, 32)[1].w2c).abs().max()<1e-4
    eye = cams.positions.numpy()
    assert (abs(eye[:,:2])<np.array(room.size[:2])/2-.2).all() and (eye[:,2]>1).all() and (eye[:,2]<2).all()
    assert np.linalg.norm(np.diff(eye, axis=0), axis=1).max()<.15, 'a jump'
    assert (cams.w2c[:,0,2].abs()<1e-4).all(), 'the horizon tilts'
    for o in room.objects:
        z = (eye[:,0]-o.centre[0]+1j*(eye[:,1]-o.centre[1]))*np.exp(-1j*o.yaw)
        inside = (abs(z.real)<o.half[0])&(abs(z.imag)<o.half[1])&(abs(eye[:,2]-o.centre[2])<o.half[2])
        assert not inside.any(), f'through the {o.cls}'

def test_frames_are_those_of_the_video():
    got = room_frames(4, 5, (48,64))
    assert got.shape==(5,48,64,3) and got.dtype==np.uint8
    _,cams = room_video(4, 5)
    want = render(make_rooms([4]), cams[None], (48,64))['rgb'][0].numpy()*255
    assert abs(got-want).max()<=.51
    with pytest.raises(ValueError, match='three to four'): room_frames(4, 5, (64,64))

# --- geometry

def projected_distance(a, b, steps=4000):
    "From box to box and back, each time to the nearest point: this ends at the closest pair"
    def onto(o, p):
        z = (p[0]-o.centre[0]+1j*(p[1]-o.centre[1]))*np.exp(-1j*o.yaw)
        z = complex(np.clip(z.real, -o.half[0], o.half[0]), np.clip(z.imag, -o.half[1], o.half[1]))*np.exp(1j*o.yaw)
        return np.array([o.centre[0]+z.real, o.centre[1]+z.imag, np.clip(p[2], o.centre[2]-o.half[2], o.centre[2]+o.half[2])])
    p,d = np.array(b.centre, dtype=float),9.
    for _ in range(steps):
        q = onto(a, p)
        p,last = onto(b, q),d
        d = np.linalg.norm(p-q)
        if last-d<1e-12: break
    return d

@pytest.mark.parametrize('seed', range(60))
def test_box_distance(seed):
    r = random.Random(seed)
    a,b = [Thing('box', i, [r.uniform(-1.5,1.5) for _ in range(3)], [r.uniform(.1,.7) for _ in range(3)], r.uniform(-4,4)) for i in (1,2)]
    assert box_distance(a, b)==pytest.approx(projected_distance(a, b), abs=2e-3)
    assert box_distance(a, b)==pytest.approx(box_distance(b, a), abs=1e-12)
    if box_distance(a, b): assert -1e-9<sampled_distance(a, b)-box_distance(a, b)<.06

def test_corners_are_counterclockwise():
    o = Thing('box', 1, (1,2,.5), (.3,.2,.5), .7)
    x,y = corners(o)[:4,:2].T
    assert .5*(x*np.roll(y, -1)-np.roll(x, -1)*y).sum()==pytest.approx(4*.3*.2)

@pytest.mark.parametrize('level,angle,want', [('easy',11,'left'), ('easy',9,None), ('easy',-171,None), ('easy',-100,'right'), ('medium',124,'left'), ('medium',126,None),
    ('medium',144,None), ('medium',-146,'back'), ('medium',180,'back'), ('hard',79,'front-left'), ('hard',81,None), ('hard',-101,'back-right'), ('hard',178,None)])
def test_no_answer_within_ten_degrees_of_a_border(level, angle, want):
    assert clear_sector(level, [angle]*5)==want
    if want!='back': assert clear_sector(level, [angle,angle,-angle,angle,angle]) is None, 'a corner on the other side'

def test_angles_of_a_scene_are_bearings():
    scene = watch(1)
    u = scene.unique
    for i,a in enumerate(u):
        for j,b in enumerate(u):
            assert scene.gaps[i,j]==box_distance(a, b)
            for k,c in enumerate(u):
                if len({i,j,k})==3: assert scene.angles[i,j,k,0]==pytest.approx(bearing(a.centre, b.centre, c.centre))
