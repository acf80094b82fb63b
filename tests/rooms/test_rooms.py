"Laws of the generated rooms, their cameras, the ray caster and the exact field"
import math,random
import numpy as np, pytest, torch
from collections import Counter
from another_processor import RoundsOtherwise
from spa3r.model.cameras import Cameras, inv_se3, project, rotation_angle, scale_intrinsics, unproject
from spa3r.rooms.rooms import (BALL, BOX, CLASSES, CYLINDER, FURNITURE, HELD_OUT, NEAR, Rect, Rooms, build, exact_field, make_room, make_rooms, overlap,
                         render, room_cameras, sample_scenes, scene_cameras)

SEEDS = [0, 3, 17, HELD_OUT+5]
MANY = range(500, 620)

@pytest.fixture(scope='module')
def scenes(): return sample_scenes(SEEDS, 4, (56, 56))

@pytest.fixture(scope='module')
def hit(scenes): return render(*scenes)

@pytest.fixture(scope='module')
def many(): return [make_room(s) for s in MANY]

# drawing

def test_same_seed_same_scene_in_any_batch():
    a,ca = sample_scenes(SEEDS, 4, (56, 56))
    b,cb = sample_scenes(SEEDS[::-1], 4, (56, 56))
    for i,j in enumerate(range(len(SEEDS)-1, -1, -1)):
        assert a.rooms[i].objects == b.rooms[j].objects and np.array_equal(a.rooms[i].table, b.rooms[j].table)
        assert torch.equal(ca.w2c[i], cb.w2c[j]) and torch.equal(ca.K[i], cb.K[j])
    assert not np.array_equal(make_room(1).table[:6], make_room(2).table[:6])

def test_global_random_state_has_no_say():
    torch.manual_seed(0)
    np.random.seed(0)
    a = make_room(9).table
    torch.rand(3)
    np.random.rand(3)
    assert np.array_equal(a, make_room(9).table)

def test_first_cameras_do_not_depend_on_how_many_follow(many, monkeypatch):
    "Unless a path has to begin anew, which is left out here: every camera is good enough"
    monkeypatch.setattr('spa3r.rooms.rooms._good', lambda depth, *_: np.ones(len(depth), bool))
    for r in many[:12]: assert torch.equal(room_cameras(r, 4).w2c[:3], room_cameras(r, 3).w2c)

def test_four_to_ten_pieces_of_at_least_twelve_classes(many):
    assert all(4 <= len(r.furniture) <= 10 for r in many)
    assert {len(r.furniture) for r in many} >= {5, 6, 7, 8, 9, 10}
    seen = Counter(o.cls for r in many for o in r.furniture)
    assert set(seen) == {CLASSES[i] for i in FURNITURE} and len(seen) >= 12
    assert min(seen.values()) >= 8
    for r in many:
        assert r.counts()['door'] == 1 and r.counts()['window'] >= 1
        assert sum(r.counts().values()) == len(r.objects)
        assert [o.inst for o in r.objects] == list(range(1, len(r.objects)+1))

def corners(o):
    c,s = math.cos(o.yaw),math.sin(o.yaw)
    sg = np.array([[i,j,k] for i in (-1,1) for j in (-1,1) for k in (-1,1)])*o.half
    return np.stack([c*sg[:,0]-s*sg[:,1], s*sg[:,0]+c*sg[:,1], sg[:,2]], 1)+o.centre

def test_things_are_inside_the_room_and_stand_on_something(many):
    for r in many:
        W,L,H = r.size
        by_id = {o.inst:o for o in r.objects}
        for o in r.objects:
            p = corners(o)
            assert (np.abs(p[:,:2])<=np.array([W,L])/2+1e-5).all() and p[:,2].min()>=-1e-5 and p[:,2].max()<=H
            foot = o.centre[2]-o.half[2]
            if o.on==0: assert abs(foot)<1e-6, f'{o.cls} of room {r.seed} floats'
            elif o.on>0:
                s = by_id[o.on]
                assert s.cls in ('table','desk','cabinet','bookshelf','bed','sofa','box','stool')
                c,n = math.cos(s.yaw),math.sin(s.yaw)
                d = p[:,:2]-s.centre[:2]
                d = np.stack([c*d[:,0]+n*d[:,1], c*d[:,1]-n*d[:,0]], 1)
                assert (np.abs(d)<=np.array(s.half[:2])+1e-6).all(), f'{o.cls} sticks out over {s.cls}'
                rows = r.table[r.table[:,2]==s.inst]  # its foot is at the top of one of the supporter's primitives
                tops = rows[:,5]+rows[:,8]
                assert np.abs(tops-foot).min()<5e-3, f'{o.cls} of room {r.seed} does not touch {s.cls}'
            else: assert min(W/2-np.abs(p[:,0]).max(), L/2-np.abs(p[:,1]).max())<1e-4, f'{o.cls} is not on a wall'

def separated(a, b, tol):
    "Separating axes of two yaw-turned boxes, table rows"
    if abs(a[5]-b[5])>=a[8]+b[8]-tol: return True
    d = b[3:5]-a[3:5]
    for c,s in ((a[9],a[10]),(b[9],b[10])):
        for ax in (np.array([c,s]),np.array([-s,c])):
            r = sum(q[6]*abs(ax@[q[9],q[10]])+q[7]*abs(ax@[-q[10],q[9]]) for q in (a,b))
            if abs(d@ax)>=r-tol: return True
    return False

def crossing(t, tol=2e-3):
    "Pairs of primitives of different things that share space, each taken as its bounding box"
    t = t[t[:,2]>0].astype(float)
    return [(int(a[2]),int(b[2])) for i,a in enumerate(t) for b in t[:i] if a[2]!=b[2] and not separated(a, b, tol)]

def test_nothing_intersects(many):
    for r in many[:60]: assert not crossing(r.table), f'room {r.seed}: {[(r.objects[i-1].cls,r.objects[j-1].cls) for i,j in crossing(r.table)]}'

def test_the_intersection_test_can_fail(many):
    r = many[0]
    t = r.table.copy()
    f = [o.inst for o in r.furniture if o.on==0][:2]
    d = np.array(r.objects[f[0]-1].centre)-r.objects[f[1]-1].centre
    t[t[:,2]==f[1],3:5] += d[:2]
    assert crossing(t)

def test_boxes_are_tight(many):
    for r in many[:30]:
        for o in r.objects:
            t = r.table[r.table[:,2]==o.inst].astype(float)
            c,s = math.cos(o.yaw),math.sin(o.yaw)
            d = t[:,3:6]-o.centre
            d = np.stack([c*d[:,0]+s*d[:,1], c*d[:,1]-s*d[:,0], d[:,2]], 1)
            lo,hi = (d-t[:,6:9]).min(0),(d+t[:,6:9]).max(0)
            assert np.allclose(hi, o.half, atol=1e-4) and np.allclose(lo, -np.array(o.half), atol=1e-4), o

def test_overlap_of_rectangles():
    r = np.random.default_rng(0)
    for _ in range(300):
        a,b = [Rect(*r.uniform(-1,1,2), *r.uniform(.1,.8,2), math.cos(y), math.sin(y)) for y in r.uniform(-3,3,2)]
        g = r.uniform(-1,1,(4000,2))
        p = np.stack([a[0]+a[4]*g[:,0]*a[2]-a[5]*g[:,1]*a[3], a[1]+a[5]*g[:,0]*a[2]+a[4]*g[:,1]*a[3]], 1)-b[:2]
        q = np.abs(np.stack([b[4]*p[:,0]+b[5]*p[:,1], b[4]*p[:,1]-b[5]*p[:,0]], 1))
        inside = (q<=np.array(b[2:4])).all(1).any()
        assert overlap(a, b)==overlap(b, a) and (not inside or overlap(a, b))
    square,beside = Rect(0,0,1,1,1,0),Rect(2.1,0,1,1,1,0)
    assert not overlap(square, beside) and overlap(square, beside, gap=.2)
    assert not overlap(square, Rect(1.8,1.8,1,1,math.sqrt(.5),math.sqrt(.5)))  # bounding circles meet, the squares do not

# cameras

def test_video_paths_turn_ten_to_thirty_degrees(many):
    for r in many[:40]:
        c = room_cameras(r, 8)
        a = torch.rad2deg(rotation_angle(c.w2c[1:,:3,:3], c.w2c[:-1,:3,:3]))
        assert a.min()>10 and a.max()<30, a
        z = c.positions[:,2]
        assert z.min()>1.19 and z.max()<1.71
        assert (c.positions[1:]-c.positions[:-1]).norm(dim=-1).max()<1.2  # a step, not a jump
        f = 2*torch.rad2deg(torch.atan(56/c.K[:,0,0]))
        assert f.min()>59.9 and f.max()<80.1

def covisible(hit, cams, i, j):
    "Which points of view i does view j see: (b, gh, gw), and where"
    uv,z = project(hit['xyz'][:,i], scale_intrinsics(cams.K[:,j], cams.hw, hit['depth'].shape[-2:]), cams.w2c[:,j])
    gh,gw = hit['depth'].shape[-2:]
    ok = (z>0)&(uv[...,0]>=0)&(uv[...,0]<gw)&(uv[...,1]>=0)&(uv[...,1]<gh)
    k = uv.floor().long()
    ix = k[...,1].clamp(0,gh-1)*gw+k[...,0].clamp(0,gw-1)
    d = hit['depth'][:,j].flatten(1).gather(1, ix.flatten(1)).view_as(z)
    return ok&((d-z).abs()<.05*z), ix

def test_adjacent_views_overlap():
    rooms,cams = sample_scenes(range(700, 730), 5)
    h = render(rooms, cams, (28, 28))
    near = torch.stack([covisible(h, cams, i, i+1)[0].flatten(1).float().mean(1) for i in range(4)])
    assert near.min()>.2 and near.mean()>.5, (near.min(), near.mean())
    wide,cams = sample_scenes(range(700, 730), 5, spread='wide')
    h = render(wide, cams, (28, 28))
    far = torch.stack([covisible(h, cams, i, i+1)[0].flatten(1).float().mean(1) for i in range(4)])
    base = (cams.positions[:,1:]-cams.positions[:,:-1]).norm(dim=-1)
    assert base.mean()>1.5 and far.mean()<near.mean()

@pytest.mark.parametrize('spread', ['video','wide'])
def test_every_camera_sees_something(spread):
    rooms,cams = sample_scenes(range(800, 860), 4, spread=spread)
    h = render(rooms, cams, (16, 16))
    d,furn = h['depth'].flatten(2),(h['cls'].flatten(2)>=FURNITURE.start).float().mean(-1)
    assert (d<.6).float().mean(-1).max()<.3 and d.mean(-1).min()>1.2
    assert furn.min()>0 and (furn<.03).float().mean()<.02 and furn.mean()>.12

def test_no_camera_inside_or_against_furniture(many):
    for r in many[:60]:
        for e in room_cameras(r, 4).positions.double().numpy():
            for o in r.furniture:
                c,s = math.cos(o.yaw),math.sin(o.yaw)
                d = e-o.centre
                q = np.abs([c*d[0]+s*d[1], c*d[1]-s*d[0], d[2]])-o.half
                assert np.linalg.norm(np.maximum(q, 0))>.19

def test_a_bad_camera_is_rejected_not_the_room(monkeypatch):
    import spa3r.rooms.rooms as R
    r = make_room(4)
    seen = []
    real = R._good
    def good(*a):
        r = real(*a)
        seen.extend(r.tolist())
        return r
    monkeypatch.setattr(R, '_good', good)
    for i in range(20): assert room_cameras(r, 4, seed=i).shape==(4,)
    assert seen.count(False)>5 and seen.count(True)>=80
    assert not real(np.full(36, .5), .4, 1.) and not real(np.full(36, 3.), .0, 1.) and not real(np.full(36, 3.), .4, .05)
    assert real(np.full(36, 3.), .4, 1.)

def one_by_one(room, n, spread, hw=(112,112)):
    "A path drawn the plain way: one try, its 36 rays, the verdict, the next try"
    from spa3r.rooms.rooms import _start, _step
    r,(W,L,H) = random.Random(f'cameras {room.seed}'),room.size
    f,(h,w) = min(hw)/2/math.tan(math.radians(r.uniform(60, 80))/2),hw
    g = np.array([(x*w/2/f, y*h/2/f, 1) for y in (np.arange(6)+.5)/3-1 for x in (np.arange(6)+.5)/3-1])
    def good(eye, R, slack):
        d,t,away = g@R,[],[]
        for e in d: t.append(min((math.copysign(k, a)-o)/a for k,a,o in zip((W/2,L/2,H/2), e, eye-(0,0,H/2))))
        depth,seen = np.array(t),np.zeros(36, bool)
        for o in room.furniture:
            M = np.array([[math.cos(o.yaw),math.sin(o.yaw),0],[-math.sin(o.yaw),math.cos(o.yaw),0],[0,0,1]])
            p,q = M@(eye-o.centre),d@M.T
            away.append(np.linalg.norm(np.maximum(np.abs(p)-o.half, 0)))
            t0,t1 = [(s*np.sign(q)*o.half-p)/q for s in (-1,1)]
            a,b = t0.max(1).clip(0),t1.min(1)
            hit = (a<b)&(a<depth)
            depth,seen = np.where(hit, a, depth),seen|hit
        return min(away)>.2 and (depth<.75).mean()<=.12+.2*slack and depth.mean()>1.5-.5*slack and .18*(1-slack)<=seen.mean()<=.8+.2*slack
    for k in range(10**4):
        (turn,path),out,slack = _start(r),[],min(max(k-10, 0)/10, 1)
        while len(out)<n:
            for i in range(12):
                if i==8: turn = -turn
                p = _step(r, len(out), spread, path, turn)
                (cy,sy),(cp,sp) = [(math.cos(x),math.sin(x)) for x in (p.yaw,p.pitch)]
                eye,R = np.array((-math.cos(p.at)*p.rad*(W/2-.45), -math.sin(p.at)*p.rad*(L/2-.45), p.z)),np.array([[sy,-cy,0],[cy*sp,sy*sp,-cp],[cy*cp,sy*cp,sp]])
                if good(eye, R, slack): break
            else: break
            out.append((R, -R@eye))
            if spread=='video': path = p
        if len(out)==n: return [torch.from_numpy(np.array(o)).float() for o in zip(*out)]

def test_many_paths_at_once_are_those_drawn_one_try_at_a_time(many):
    "tries looked at ahead, and rooms beside it, change no path"
    rooms,spread = many[:24],['video','wide']*12
    cams = scene_cameras(rooms, 4, spread=spread)
    for i,(r,s) in enumerate(zip(rooms, spread)):
        R,t = one_by_one(r, 4, s)
        assert torch.equal(cams.w2c[i,:,:3,:3], R) and (cams.w2c[i,:,:3,3]-t).abs().max()<1e-6
        alone = room_cameras(r, 4, spread=s)
        assert torch.equal(alone.w2c, cams.w2c[i]) and torch.equal(alone.K, cams.K[i])

def test_long_paths_and_other_shapes(many):
    c = room_cameras(many[0], 30, hw=(84, 140))
    assert c.shape==(30,) and c.hw==(84,140) and float(c.K[0,0,2])==70 and float(c.K[0,1,2])==42
    with pytest.raises(ValueError, match='wide'): room_cameras(many[0], 3, spread='far')

# the ray caster

def brute(room, w2c, K, gh, gw, hw):
    "One ray at a time, every primitive, double precision, written without looking at the other"
    R,t = w2c[:3,:3],w2c[:3,3]
    eye = -R.T@t
    out = []
    W,L,H = room.size
    for y in range(gh):
        for x in range(gw):
            p = np.array([(x+.5)*hw[1]/gw, (y+.5)*hw[0]/gh, 1])
            d = R.T@(np.linalg.inv(K)@p)
            best = (np.inf,None,None,None)
            for ax,lim,k in ((0,-W/2,1),(0,W/2,1),(1,-L/2,1),(1,L/2,1),(2,0,0),(2,H,2)):
                if abs(d[ax])<1e-12: continue
                s = (lim-eye[ax])/d[ax]
                if 1e-6<s<best[0]: best = (s,k,0,-np.sign(d[ax])*np.eye(3)[ax])
            for q in room.table[6:].astype(float):
                kind,c,h,cs,sn = q[0],q[3:6],q[6:9],q[9],q[10]
                M = np.array([[cs,sn,0],[-sn,cs,0],[0,0,1]])
                o,e = M@(eye-c),M@d
                cand = []
                for ax in range(3):  # flat faces
                    if kind==BOX or (kind==CYLINDER and ax==2):
                        for sg in (-1,1):
                            s = (sg*h[ax]-o[ax])/e[ax]
                            u = (o+s*e)/h
                            r = np.delete(u, ax)
                            if (np.abs(r)<=1).all() if kind==BOX else (r@r<=1): cand.append((s,sg*np.eye(3)[ax]))
                if kind in (CYLINDER,BALL):
                    m = slice(0,2) if kind==CYLINDER else slice(0,3)
                    a,b,g = (e/h)[m],(o/h)[m],None
                    r = np.roots([a@a, 2*a@b, b@b-1])
                    for s in r[np.abs(r.imag)<1e-12].real:
                        u = o+s*e
                        if kind==BALL or abs(u[2])<=h[2]:
                            g = u/h**2
                            if kind==CYLINDER: g[2] = 0
                            cand.append((s,g/np.linalg.norm(g)))
                cand.sort(key=lambda z: z[0])
                if cand and cand[0][0]>NEAR and cand[0][0]<best[0]: best = (cand[0][0],int(q[1]),int(q[2]),M.T@cand[0][1])
            out.append(best)
    return out

@pytest.mark.parametrize('seed', [3, HELD_OUT+8])
def test_agrees_with_a_caster_that_tries_everything(seed):
    hw,g = (112,112),(14,14)
    rooms,cams = sample_scenes([seed], 2, hw)
    h = render(rooms, cams, g)
    bad = 0
    for v in range(2):
        ref = brute(rooms.rooms[0], cams.w2c[0,v].double().numpy(), cams.K[0,v].double().numpy(), *g, hw)
        for i,(t,k,inst,n) in enumerate(ref):
            y,x = divmod(i, g[1])
            same = abs(h['depth'][0,v,y,x]-t)<1e-4 and h['cls'][0,v,y,x]==k and h['inst'][0,v,y,x]==inst
            bad += not (same and np.abs(h['normal'][0,v,y,x].numpy()-n).max()<1e-3)
    assert bad<=2, f'{bad} of {2*g[0]*g[1]} rays differ'  # a ray may graze an edge
    assert len(h['inst'].unique())>3

def test_points_are_where_depth_says(scenes, hit):
    rooms,cams = scenes
    p = unproject(hit['depth'], cams.K, cams.c2w)
    assert (p-hit['xyz']).abs().max()<1e-4
    g = render(rooms, cams, (8, 16))
    p = unproject(g['depth'], scale_intrinsics(cams.K, cams.hw, (8,16)), cams.c2w)
    assert (p-g['xyz']).abs().max()<1e-4

def test_points_lie_on_the_box_of_their_object(scenes, hit):
    rooms,_ = scenes
    for i,r in enumerate(rooms.rooms):
        for o in r.objects:
            p = hit['xyz'][i][hit['inst'][i]==o.inst].double().numpy()-o.centre
            if not len(p): continue
            assert (hit['cls'][i][hit['inst'][i]==o.inst]==CLASSES.index(o.cls)).all()
            c,s = math.cos(o.yaw),math.sin(o.yaw)
            q = np.abs(np.stack([c*p[:,0]+s*p[:,1], c*p[:,1]-s*p[:,0], p[:,2]], 1))
            assert (q<=np.array(o.half)+1e-4).all()
    W = torch.tensor([r.size for r in rooms.rooms])
    xyz = hit['xyz'].flatten(1,3)
    assert (xyz.abs()[...,:2]<=W[:,None,:2]/2+1e-4).all() and xyz[...,2].min()>-1e-4

def test_normals_are_unit_and_face_the_camera(scenes, hit):
    _,cams = scenes
    n = hit['normal']
    assert (n.norm(dim=-1)-1).abs().max()<1e-4
    away = ((hit['xyz']-cams.positions[:,:,None,None])*n).sum(-1)
    assert (away>1e-3).float().mean()==0

def test_neighbouring_points_of_a_flat_thing_lie_in_its_plane(hit):
    "ties normals to positions: on one object, where two neighbours share a normal, the step between them is across it"
    for ax in (2,3):
        a,b = [{k:v.narrow(ax, s, v.shape[ax]-1) for k,v in hit.items()} for s in (0,1)]
        flat = (a['inst']==0)&(b['inst']==0)&(a['cls']==b['cls'])&((a['normal']-b['normal']).abs().amax(-1)<1e-5)
        flat &= (a['normal'].abs().amax(-1)>.999)&(a['xyz'][...,2]<2)  # not the ceiling light
        assert flat.float().mean()>.3 and ((a['xyz']-b['xyz'])*a['normal']).sum(-1)[flat].abs().max()<1e-3

def test_colours_move_with_the_surface_not_with_the_camera():
    rooms,cams = sample_scenes(range(900, 912), 2)
    h = render(rooms, cams, (112, 112))
    ok,ix = covisible(h, cams, 0, 1)
    c = h['rgb'][:,1].flatten(1,2).gather(1, ix.flatten(1)[...,None].expand(-1,-1,3)).view_as(h['rgb'][:,0])
    e = (c-h['rgb'][:,0]).abs().mean(-1)
    assert ok.float().mean()>.4 and e[ok].median()<.02
    assert e[ok].median() < (h['rgb'][:,0]-h['rgb'][:,1]).abs().mean(-1)[ok].median()/4
    assert h['rgb'].min()>=0 and h['rgb'].max()<=1 and h['rgb'].std()>.1

def test_batching_changes_nothing(scenes, hit):
    rooms,cams = scenes
    for i in range(len(rooms)):
        one = render(rooms[i], cams[i:i+1])
        for k in hit:
            same = (one[k][0]-hit[k][i]).abs()<1e-5 if hit[k].is_floating_point() else one[k][0]==hit[k][i]
            assert same.float().mean()>.9995, k

def test_a_cell_of_a_grid_is_the_middle_of_its_pixels(scenes):
    rooms,cams = scenes
    a,b = render(rooms, cams, (8,8)),render(rooms, cams, (24,24))
    same = (a['depth']-b['depth'][...,1::3,1::3]).abs()<1e-4
    assert same.float().mean()>.99

def test_things_close_to_the_camera_are_cut_not_lost():
    "a primitive that reaches behind the camera is still drawn where it is in front"
    r = make_room(0)
    w2c = torch.eye(4)
    w2c[:3,:3] = torch.tensor([[1.,0,0],[0,0,-1],[0,1,0]])  # looking along +y
    w2c[:3,3] = -w2c[:3,:3]@torch.tensor([0,0,1.5])
    K = torch.tensor([[50.,0,56],[0,50,56],[0,0,1]])
    t = r.table[:7].copy()
    t[6,0:11] = BOX,7,1, 0,0,.5, .5,1.5,.4, 1,0  # long box below, from behind the eye to 1.5 m ahead
    room = Rooms(torch.tensor([[4.,6.,2.5]]), torch.tensor([[0,0,2.]]), torch.from_numpy(t)[None], [r])
    h = render(room, Cameras(w2c[None,None], K[None,None], (112,112)))
    d = h['depth'][0,0]
    on = h['cls'][0,0]==7
    y = torch.arange(112)+.5-56
    assert on[-1,56] and abs(d[-1,56]-.6*50/y[-1])<1e-4 and not on[:50].any()
    assert abs(h['xyz'][0,0][on][:,2]-.9).max()<1e-4

def test_wrong_shapes_are_named(scenes):
    rooms,cams = scenes
    with pytest.raises(ValueError, match='4 rooms'): render(rooms, cams[0])

def test_another_processor_sees_the_same(scenes, hit):
    rooms,cams = scenes
    with RoundsOtherwise() as other: h = render(rooms, cams)
    assert other.done>100 and not torch.equal(h['depth'], hit['depth'])
    for k in hit:
        same = (h[k]-hit[k]).abs()<1e-4 if hit[k].is_floating_point() else h[k]==hit[k]
        assert same.float().mean()>.9995, (k, same.float().mean())

@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_cpu_and_gpu_agree(scenes, hit):
    rooms,cams = scenes
    h = render(rooms.to('cuda'), cams.to('cuda'))
    for k in hit:
        same = (h[k].cpu()-hit[k]).abs()<1e-4 if hit[k].is_floating_point() else h[k].cpu()==hit[k]
        assert same.float().mean()>.998, (k, same.float().mean())

# the exact field

def test_field_is_a_function_of_the_surface_point():
    rooms,cams = sample_scenes(range(20, 26), 3)
    h = render(rooms, cams, (64, 64))
    f = exact_field(h, cams)
    assert f.shape==(6,3,64,64,64)
    ok,_ = covisible(h, cams, 0, 1)
    # look at the very same points again with a camera of one cell each: the law must hold exactly
    b,y,x = [i[::97] for i in ok.nonzero(as_tuple=True)]
    p,eye = h['xyz'][b,0,y,x],cams.positions[b,1]
    fwd = torch.nn.functional.normalize(p-eye, dim=-1)
    right = torch.nn.functional.normalize(torch.stack([fwd[:,1],-fwd[:,0],torch.zeros(len(p))], -1), dim=-1)
    R = torch.stack([right, torch.linalg.cross(fwd, right), fwd], 1)
    w2c = torch.eye(4).repeat(len(p),2,1,1)
    w2c[:,0] = cams.w2c[b,0]  # the first view stays the frame of reference
    w2c[:,1,:3,:3],w2c[:,1,:3,3] = R,-(R*eye[:,None]).sum(-1)
    K = torch.tensor([[9.,0,.5],[0,9.,.5],[0,0,1]]).expand(len(p),2,3,3)
    again = Cameras(w2c, K, (1,1))
    g = render(rooms[b.tolist()], again)
    seen = (g['xyz'][:,1,0,0]-p).norm(dim=-1)<1e-3
    assert seen.float().mean()>.8 and seen.sum()>50
    e = (exact_field(g, again)[:,1,0,0]-f[b,0,y,x]).abs().amax(-1)[seen]
    assert (e<5e-3).float().mean()>.98, e.quantile(.98)

def test_field_is_seen_from_the_first_view_only():
    "moving room and cameras together changes nothing; taking another first view does"
    rooms,cams = sample_scenes([5, 6], 3)
    h = render(rooms, cams, (8, 8))
    f = exact_field(h, cams)
    c,s = math.cos(.7),math.sin(.7)
    T = torch.tensor([[c,-s,0,1.],[s,c,0,-2],[0,0,1,.5],[0,0,0,1]])
    moved = dict(h, xyz=h['xyz']@T[:3,:3].T+T[:3,3], normal=h['normal']@T[:3,:3].T)
    g = exact_field(moved, Cameras(cams.w2c@inv_se3(T), cams.K, cams.hw))
    assert (f-g).abs().max()<1e-4
    swap = exact_field({k:v.flip(1) for k,v in h.items()}, Cameras(cams.w2c.flip(1), cams.K, cams.hw)).flip(1)
    assert (swap-f).abs().mean()>.05

def test_class_code_has_almost_half_the_variance():
    rooms,cams = sample_scenes(range(200), 4)
    h = render(rooms, cams, (8, 8))
    x = exact_field(h, cams).flatten(0,3)
    total = x.var(0).sum()
    part = {}
    for k,z in dict(cls=dict(xyz=h['xyz']*0, normal=h['normal']*0), where=dict(normal=h['normal']*0, cls=h['cls']*0)).items():
        part[k] = (exact_field(dict(h, **z), cams).flatten(0,3).var(0).sum()/total).item()
    # without points and normals, view 0's frame still moves the origin of each scene: take that out
    base = (exact_field(dict(h, xyz=h['xyz']*0, normal=h['normal']*0, cls=h['cls']*0), cams).flatten(0,3).var(0).sum()/total).item()
    assert .4<part['cls']-base<.52, (part, base)
    assert x.var(0).max()/x.var(0).median()<4

def test_field_keeps_length_whatever_the_precision_settings():
    rooms,cams = sample_scenes([1], 2)
    h = render(rooms, cams, (8, 8))
    a = exact_field(h, cams)
    with torch.autocast('cpu', dtype=torch.bfloat16): b = exact_field(h, cams)
    assert a.dtype==torch.float32 and torch.equal(a, b)

def test_negative_seeds_are_rooms_of_their_own():
    assert not np.array_equal(make_room(-5).table[:6], make_room(5).table[:6])
    with pytest.raises(ValueError, match='at least one'): make_rooms([])

@pytest.mark.parametrize('grid', [(8,8),(5,7),(16,12)])
def test_trying_everything_finds_the_same(grid):
    "the way of a GPU with few cells, in which nothing is counted"
    import spa3r.rooms.rooms as R
    rooms,cams = sample_scenes([3,50,51], 3, (56, 84), 'wide')
    a,b = R._render(rooms, cams, grid),R._render(rooms, cams, grid, fixed=True)
    assert all(torch.equal(a[k], b[k]) for k in a) and len(a['cls'].unique())>4
