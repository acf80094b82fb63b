"Laws of the measures: a student that knows all is perfect, one that looks at nothing has no gap, and no method is helped or hurt by the bookkeeping"
import pytest
import torch
from spa3r.model.cameras import Cameras,rotate
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers.teachers import ExactTeacher,VGGTTeacher
from spa3r.probe.measures import Prior,fit_classes,fit_prior,held_rooms,held_views,mean_std,measure
from spa3r.teachers.teachers import view_side
from spa3r.probe.probes import by_distance,camera_distance,evaluate_field,nearest_view,warp
from spa3r.model.psfm import Spa3R,Spa3RConfig,select_views
from spa3r.rooms.rooms import CLASSES,FURNITURE,HELD_OUT,render,sample_scenes

torch.set_num_threads(1)
SEEDS = range(HELD_OUT+500, HELD_OUT+505)
CAMERAS = ("another view's camera","another room's camera")
GRID = (6,6)

class Knows(ExactTeacher):
    "Teacher and student in one: its latents are the hidden features themselves"
    def observe(self, views, is_tgt):
        self.obs = super().observe(views, is_tgt)
        return self.obs
    def standardise(self, name, feats): return feats
    def encode(self, feats, grid): return select_views(self.obs.feats['geo'], self.obs.is_tgt)
    def decode(self, latents, cams, grid, depth=False):
        return dict(geo=latents, depth=select_views(self.obs.depth, self.obs.is_tgt))

class Blind(Knows):
    "Never looks at its latents"
    def decode(self, latents, cams, grid, depth=False):
        rays = rotate(cams.c2w[...,:3,:3], cams.rays(grid)).flatten(2,3)
        return dict(geo=rays@torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), depth=torch.ones_like(rays[...,0]))

@pytest.fixture(scope='module')
def prior():
    t = Knows(GRID)
    return fit_prior(t, t, range(HELD_OUT-24, HELD_OUT))

@pytest.fixture(scope='module')
def known(prior):
    t = Knows(GRID)
    return evaluate_field(t, t, SEEDS, batch=2, prior=prior)

def test_knowing_all_is_perfect(known):
    p,top = known['rows']['prediction'],known['rows']['teacher itself']
    assert p['cosine']['mean']==pytest.approx(1, abs=1e-5) and p['l1']['mean']==0
    assert p['furniture']==top['furniture'] and p['classes']==top['classes']
    assert known['depth']['prediction']['mean']==0 < known['depth']['position median']['mean']
    assert known['gaps']['cosine, shuffled latents']['mean']>.3 and p['r2']['mean']==1 and p['iou']['mean']<=p['furniture']['mean']
    for k in CAMERAS: assert known['gaps'][f'cosine, {k}']['mean']==known['gaps'][f'cosine, {k}']['std']==0  # what it knows, it says to any camera

def test_not_looking_leaves_no_gap(prior):
    t = Blind(GRID)
    r = evaluate_field(t, t, SEEDS, prior=prior)
    for k in ('cosine, shuffled latents','furniture, shuffled latents'): assert r['gaps'][k]['mean']==r['gaps'][k]['std']==0
    assert all(r['rows'][k]!=r['rows']['prediction'] for k in CAMERAS)  # but it knows where it is asked from

def test_baselines_are_ordered(known):
    cos = {k:d['cosine']['mean'] for k,d in known['rows'].items()}
    assert cos['teacher itself'] > cos['true-depth warp'] > cos['nearest view']
    assert cos['teacher itself'] > cos['true-depth warp'] > cos['position mean'] > 0
    assert 0 < known['seen']['mean'] < 1
    assert known['rows']['teacher itself']['furniture']['mean'] > .8 > known['rows']['position mean']['furniture']['mean']

@pytest.mark.parametrize('batch', [3,5])
def test_batch_size_changes_nothing(known, prior, batch):
    t = Knows(GRID)
    r = evaluate_field(t, t, SEEDS, batch=batch, prior=prior)
    for part in ('rows','covered','uncovered'):
        for k in set(r[part])-{'shuffled latents'}:
            for m,d in r[part][k].items(): assert d['mean']==pytest.approx(known[part][k][m]['mean'], abs=1e-5), (part,k,m)
    assert [o['cosine']['nearest view']['n'] for o in r['distance']]==[o['cosine']['nearest view']['n'] for o in known['distance']]

class Asked(Knows):
    "Remembers what it was asked"
    def decode(self, latents, cams, grid, depth=False):
        self.calls = getattr(self, 'calls', []) + [(latents,cams)]
        return super().decode(latents, cams, grid)

def same(a, b): return (a==b).flatten(1).all(1)

def test_what_the_student_is_asked():
    "Rightly; with another room's latents; at another view's camera; at another room's camera"
    t = Asked(GRID)
    evaluate_field(t, t, SEEDS, batch=2, prior=fit_prior(t, t, range(4), batch=4))
    own,shuffled,view,room = [(torch.cat([z for z,_ in c]),torch.cat([c.w2c for _,c in c])) for c in (t.calls[i::4] for i in range(4))]
    assert all(len(z)==len(w)==len(SEEDS) for z,w in (own,shuffled,view,room))
    assert not same(own[0], shuffled[0]).any() and same(own[1], shuffled[1]).all()
    assert all(same(own[0], z[None]).any() for z in shuffled[0])
    assert same(own[0], view[0]).all() and same(own[1].roll(1, 1), view[1]).all() and not (own[1]==view[1]).flatten(2).all(2).any()
    assert same(own[0], room[0]).all() and not same(own[1], room[1]).any()
    for i,(z,w) in enumerate(zip(shuffled[0], room[1])): assert torch.equal(same(own[0], z[None]), same(own[1], w[None])), i  # latents and cameras of the same room

def test_one_hidden_view_has_no_other(prior):
    t = Knows(GRID)
    r = evaluate_field(t, t, SEEDS, v=3, n_ctx=2, prior=prior)
    assert "another view's camera" not in r['rows'] and "cosine, another view's camera" not in r['gaps'] and "another room's camera" in r['rows']

def test_hidden_views_depend_on_the_seed_alone():
    t = ExactTeacher(GRID)
    tgt = lambda b: torch.cat([r.obs.is_tgt for r in held_rooms(t, range(7), v=5, n_ctx=2, batch=b)])
    assert torch.equal(tgt(7), tgt(2)) and not tgt(7)[:,0].any()
    assert (tgt(7).sum(1)==3).all() and len(tgt(7).unique(dim=0))>1
    for n in (0,5): pytest.raises(ValueError, lambda: next(held_rooms(t, [0], v=5, n_ctx=n)))

def test_held_rooms_are_the_held_views():
    for r,(views,is_tgt) in zip(held_rooms(ExactTeacher(GRID), SEEDS, batch=3), held_views(SEEDS, batch=3), strict=True):
        assert torch.equal(r.obs.is_tgt, is_tgt) and torch.equal(r.cams.w2c, views.cams.w2c)
        assert torch.equal(r.hit['depth'], render(views.rooms, views.cams, grid=GRID)['depth'])

@pytest.fixture(scope='module')
def rooms_twice():
    "Rooms whose last view is their second once more; that one and the third are hidden"
    rooms,cams = sample_scenes(range(4), 4)
    cams = Cameras.cat([cams[:,:3], cams[:,1:2]], dim=1)
    return cams,render(rooms, cams, grid=(8,8)),torch.tensor([[False,False,True,True]]*4)

def test_nearest_view_of_a_seen_camera_is_itself(rooms_twice):
    cams,hit,is_tgt = rooms_twice
    far = camera_distance(cams, is_tgt)
    assert (nearest_view(cams, is_tgt)[:,1]==1).all() and far[:,1,1].abs().max()<1e-3 and far[:,0].min()>.05 and far.shape==(4,2,2)
    turned = Cameras(cams.w2c.clone(), cams.K, cams.hw)
    turned.w2c[:,3,:2] *= -1  # upside down on the spot: half a turn and no metres
    assert torch.allclose(camera_distance(turned, is_tgt)[:,1,1], torch.tensor(torch.pi), atol=1e-3)

def test_warp_finds_the_point(rooms_twice):
    cams,hit,is_tgt = rooms_twice
    xyz = hit['xyz'].flatten(2,3)  # the feature is the place itself
    out,seen = warp(xyz[:,:2], hit, cams, is_tgt)
    true = select_views(xyz, is_tgt)
    assert seen[:,1].all() and torch.equal(out[:,1], true[:,1])  # the same camera sees all, each patch from its own place
    off = (out-true).norm(dim=-1)
    assert seen.any() and off[seen].median()<.3 and off[seen].mean() < off[~seen].mean()

def test_warp_does_not_see_through_things(rooms_twice):
    cams,hit,is_tgt = rooms_twice
    wall = hit | dict(depth=torch.where(is_tgt[...,None,None], hit['depth'], torch.tensor(.03)))  # context has a hand before its eyes
    assert not warp(hit['xyz'].flatten(2,3)[:,:2], wall, cams, is_tgt)[1].any()

def test_class_probe_finds_a_linear_rule():
    g = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 16, generator=g)
    y = (x@torch.randn(16, len(CLASSES), generator=g)).argmax(-1)
    a,b = fit_classes(x, y),fit_classes(x, y)
    assert (a(x).argmax(-1)==y).float().mean()>.9 and torch.equal(a.weight, b.weight) and not a.weight.requires_grad

@pytest.fixture
def reads():
    "A prior whose probe reads the class off one-hot features"
    return Prior(None, None, torch.nn.Identity(), torch.full((len(CLASSES),), .5))

def test_measure_by_hand(reads):
    eye,f = torch.eye(len(CLASSES)),list(FURNITURE)[0]
    cls = torch.tensor([[[0,f,f,1]],[[0,1,1,1]]])
    true = eye[cls]
    pred = true.clone()
    pred[0,0,1] = 2*eye[0]
    d = measure(pred, true, cls, reads)
    assert d['furniture'][0]==.5 and d['furniture'][1].isnan() and d['iou'][0]==.5 and d['iou'][1].isnan()
    assert d['classes'].tolist()==[.75,1.] and d['cosine'].tolist()==[.75,1.]
    assert d['l1'][0]==pytest.approx(3/4/len(CLASSES))
    assert d['r2'].tolist()==[pytest.approx(1-(4+1)/4/len(CLASSES)/.5), 1.]
    pred[1,0,3] = eye[f]  # furniture where there is none
    d = measure(pred, true, cls, reads)
    assert d['iou'].tolist()==[.5,0.] and d['furniture'][1].isnan()

def test_iou_counts_what_was_called_furniture(reads):
    "The wrong furniture counts twice: it is missing here, and is claimed there"
    eye,(f,g,*_) = torch.eye(len(CLASSES)),list(FURNITURE)
    cls,said = torch.tensor([[[f,f,g,0]]]),torch.tensor([[[f,g,g,g]]])
    d = measure(eye[said], eye[cls], cls, reads)
    assert d['furniture'][0]==pytest.approx(2/3) and d['iou'][0]==pytest.approx(2/5)  # 2 right of 3 that are furniture and 4 called so, less 2 in both

def test_measure_of_some_patches(reads):
    g = torch.Generator().manual_seed(0)
    true,pred = torch.randn(2, 2, 3, 4, len(CLASSES), generator=g)
    cls,keep = true.argmax(-1),torch.rand(2, 3, 4, generator=g)<.5
    some,rest,every = [measure(pred, true, cls, reads, k) for k in (keep,~keep,None)]
    n = keep.float().mean((1,2))
    for m in ('cosine','l1','r2','classes'): assert torch.allclose(n*some[m]+(1-n)*rest[m], every[m], atol=1e-5), m
    alone = measure(pred[:1][keep[:1]][None,None], true[:1][keep[:1]][None,None], cls[:1][keep[:1]][None,None], reads)
    for m in alone: assert torch.allclose(alone[m][0], some[m][0], atol=1e-5, equal_nan=True), m
    assert all(x.isnan().all() for x in measure(pred, true, cls, reads, torch.zeros_like(keep)).values())

def test_r2_of_the_channel_mean_is_zero():
    "Over the rooms from which mean and variance come"
    t = Knows(GRID)
    kw = dict(v=4, n_ctx=2, batch=6)
    prior = fit_prior(t, t, range(6), **kw)
    r = next(held_rooms(t, range(6), **kw))
    true,cls = [select_views(x, r.obs.is_tgt) for x in (r.obs.feats['geo'], r.hit['cls'].flatten(2))]
    r2 = measure(true.flatten(0,2).mean(0).expand_as(true), true, cls, prior)['r2'].mean()
    assert r2==pytest.approx(1/cls.numel(), abs=1e-4)  # the variance is the unbiased one

def test_covered_patches_are_those_of_the_warp(known):
    u,c,rows = known['uncovered'],known['covered'],known['rows']
    assert u['true-depth warp']==u['nearest view'] and c['true-depth warp']['cosine']['mean']>c['nearest view']['cosine']['mean']+.1
    assert c['true-depth warp']['cosine']['mean']>rows['true-depth warp']['cosine']['mean']

def test_ranges_of_distance(known):
    far,x = torch.tensor([0.,.5,.6,9.]),torch.tensor([1.,2.,4.,8.])
    d = by_distance(far, {'a':x, 'b':-x})
    assert [(o['above'], o['below'], o['cosine']['a']['mean'], o['cosine']['b']['n']) for o in d]==[(0.,.5,1.,1),(.5,1.,3.,2),(2.,None,8.,1)]
    near = torch.cat([camera_distance(r.cams, r.obs.is_tgt).min(-1).values.flatten() for r in held_rooms(ExactTeacher(GRID), SEEDS)])
    count = lambda o: int((near>=o['above']).sum() if o['below'] is None else ((near>=o['above'])&(near<o['below'])).sum())
    assert all(o['cosine']['prediction']['n']==count(o) for o in known['distance'])
    cos = [o['cosine']['nearest view']['mean'] for o in known['distance']]
    assert cos[0]>cos[-1] and all(o['cosine']['prediction']['mean']==pytest.approx(1, abs=1e-5) for o in known['distance'])

def test_mean_leaves_out_what_does_not_apply():
    assert mean_std([1.,3.,float('nan')])==dict(mean=2., std=pytest.approx(2**.5), n=2)
    assert mean_std([float('nan')])==dict(mean=None, std=None, n=0)

def test_spread_over_sets(known, prior):
    assert mean_std([0.,2.,4.,6.,float('nan'),float('nan')], sets=3)==dict(mean=3., std=pytest.approx(20**.5/3**.5), n=4, std_sets=pytest.approx(8**.5))
    t = Knows(GRID)
    two = evaluate_field(t, t, range(SEEDS[0], SEEDS[0]+4), batch=4, prior=prior, sets=2)
    each = [evaluate_field(t, t, range(SEEDS[0]+i, SEEDS[0]+i+2), prior=prior) for i in (0,2)]
    d,a,b = [r['rows']['nearest view']['cosine'] for r in (two,*each)]
    assert d['mean']==pytest.approx((a['mean']+b['mean'])/2) and d['std_sets']==pytest.approx(abs(a['mean']-b['mean'])/2**.5)
    assert two['config']['sets']==2 and 'std_sets' not in a

def test_images_and_own_cameras():
    "A teacher that looks gets pictures and nothing else, and the student its cameras"
    torch.manual_seed(0)
    class Looks(VGGTTeacher):
        def observe(self, views, is_tgt):
            assert views.cams is None and views.imgs.shape[2:]==(3,56,56) and 0<=views.imgs.min()<views.imgs.max()<=1
            return super().observe(views, is_tgt)
    class Told(Spa3R):
        def decode(self, latents, cams, grid, depth=False):
            if depth: self.first = cams  # the question that is not put wrongly
            return super().decode(latents, cams, grid, depth)
    t = Looks(VGGT(VGGTConfig.nano(patch=14, dim=32, img_size=56)))
    with torch.no_grad(): t.vggt.camera_head.pose_branch.fc2.bias[7:] += 1  # an untrained head may give a field of view of 0
    student = Told(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=64))
    kw = dict(v=3, n_ctx=2, hw=(56,56), batch=2)
    r = evaluate_field(student, t, range(2), prior=fit_prior(student, t, range(10,14), **kw), **kw)
    own = next(held_rooms(t, range(2), **kw)).obs
    assert torch.allclose(student.first.w2c, select_views(own.cams, own.is_tgt).w2c, atol=1e-6)
    assert r['config']['grid']==[4,4] and all(d['cosine']['n']==2 for d in r['rows'].values())

def test_nan_is_not_left_out(prior):
    class Broken(Knows):
        def decode(self, latents, cams, grid, depth=False):
            return dict(geo=torch.where(torch.arange(len(latents))[:,None,None,None]==0, torch.nan, latents), depth=latents[...,0])
    t = Broken(GRID)
    with pytest.raises(ValueError, match='not finite'): evaluate_field(t, t, SEEDS, prior=prior)

@pytest.mark.parametrize('patch,grid,side', [(7,0,56),(14,0,56),(7,6,42),(14,6,84)])
def test_side_gives_the_grid_of_training(patch, grid, side):
    t = VGGTTeacher(VGGT(VGGTConfig.nano(dim=16, patch=patch, img_size=56)))
    student = Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=32, teacher='teacher', grid=grid))
    assert view_side(student, t)==side and (not grid or t.vggt.grid((side,side))==(grid,grid))
    assert view_side(student, ExactTeacher(GRID))==112

def test_semantic_head(prior):
    "Another feature map is judged by the same measures"
    class Two(Knows):
        def observe(self, views, is_tgt):
            obs = super().observe(views, is_tgt)
            obs.feats['sem'] = obs.feats['geo'][...,:32]*2
            return obs
        def decode(self, latents, cams, grid, depth=False):
            return super().decode(latents, cams, grid) | dict(sem=2*latents[...,:32])
    t = Two(GRID)
    r = evaluate_field(t, t, SEEDS, head='sem', prior=fit_prior(t, t, range(6), head='sem'))
    assert r['config']['head']=='sem' and r['rows']['prediction']['cosine']['mean']==pytest.approx(1, abs=1e-5)
    assert r['rows']['nearest view']['cosine']['mean']<.95
