"Laws of the measures: a student that knows all is perfect, one that looks at nothing has no gap, and no method is helped or hurt by the bookkeeping"
import json
import pytest
import torch
from spa3r.cameras import Cameras
from spa3r.core import UserError
from spa3r.patch_encoder import VGGT,VGGTConfig
from spa3r.teachers import ExactTeacher,Observation,Teacher,VGGTTeacher
from spa3r.probes import (aims,camera_errors,evaluate_field,fit_classes,fit_prior,format_table,held_rooms,mean_std,
                          measure,nearest_view,probe,unposed,warp)
from spa3r.psfm import Spa3R,Spa3RConfig,select_views
from spa3r.rooms import CLASSES,FURNITURE,HELD_OUT,render,sample_scenes

torch.set_num_threads(1)
SEEDS = range(HELD_OUT+500, HELD_OUT+505)
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
        rays = cams.rays(grid).flatten(2,3)
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
    assert known['gaps']['cosine, shuffled latents']['mean']>.3
    assert all(a.startswith('met') for a in aims(known))

def test_not_looking_leaves_no_gap(prior):
    t = Blind(GRID)
    r = evaluate_field(t, t, SEEDS, prior=prior)
    for k in ('cosine, shuffled latents','furniture, shuffled latents'): assert r['gaps'][k]['mean']==r['gaps'][k]['std']==0
    assert all(a.startswith('missed') for a in aims(r))

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
    for k in set(r['rows'])-{'shuffled latents'}:
        for m,d in r['rows'][k].items(): assert d['mean']==pytest.approx(known['rows'][k][m]['mean'], abs=1e-5), (k,m)

def test_shuffled_latents_are_another_rooms():
    class Seen(Knows):
        def decode(self, latents, cams, grid, depth=False):
            self.calls = getattr(self, 'calls', []) + [latents]
            return super().decode(latents, cams, grid)
    t = Seen(GRID)
    evaluate_field(t, t, SEEDS, batch=2, prior=fit_prior(t, t, range(4), batch=4))
    own,other = torch.cat(t.calls[::2]),torch.cat(t.calls[1::2])
    assert len(own)==len(other)==len(SEEDS) and not (own==other).flatten(1).all(1).any()
    assert all((own==o).flatten(1).all(1).any() for o in other)

def test_hidden_views_depend_on_the_seed_alone():
    t = ExactTeacher(GRID)
    tgt = lambda b: torch.cat([r.obs.is_tgt for r in held_rooms(t, range(7), v=5, n_ctx=2, batch=b)])
    assert torch.equal(tgt(7), tgt(2)) and not tgt(7)[:,0].any()
    assert (tgt(7).sum(1)==3).all() and len(tgt(7).unique(dim=0))>1
    for n in (0,5): pytest.raises(ValueError, lambda: next(held_rooms(t, [0], v=5, n_ctx=n)))

@pytest.fixture(scope='module')
def rooms_twice():
    "Rooms whose last view is their second once more; that one and the third are hidden"
    rooms,cams = sample_scenes(range(4), 4)
    cams = Cameras.cat([cams[:,:3], cams[:,1:2]], dim=1)
    return cams,render(rooms, cams, grid=(8,8)),torch.tensor([[False,False,True,True]]*4)

def test_nearest_view_of_a_seen_camera_is_itself(rooms_twice):
    cams,hit,is_tgt = rooms_twice
    assert (nearest_view(cams, is_tgt)[:,1]==1).all()

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

def test_measure_by_hand():
    eye,f = torch.eye(len(CLASSES)),list(FURNITURE)[0]
    cls = torch.tensor([[[0,f,f,1]],[[0,1,1,1]]])
    true = eye[cls]
    pred = true.clone()
    pred[0,0,1] = 2*eye[0]
    d = measure(pred, true, cls, torch.nn.Identity())
    assert d['furniture'][0]==.5 and d['furniture'][1].isnan()
    assert d['classes'].tolist()==[.75,1.] and d['cosine'].tolist()==[.75,1.]
    assert d['l1'][0]==pytest.approx(3/4/len(CLASSES))

def test_mean_leaves_out_what_does_not_apply():
    assert mean_std([1.,3.,float('nan')])==dict(mean=2., std=pytest.approx(2**.5), n=2)
    assert mean_std([float('nan')])==dict(mean=None, std=None, n=0)

class Says(Teacher):
    "Claims some cameras"
    def __init__(self, change):
        super().__init__()
        self.change = change
    def observe(self, views, is_tgt):
        b,v = is_tgt.shape
        cams = self.change(sample_scenes(range(b), v)[1])
        return Observation(None, {}, cams, None, (2,2), is_tgt)

@pytest.mark.parametrize('change,is_identity,is_unposed', [(lambda c: c.relative_to(0), False, True),
    (lambda c: Cameras(torch.eye(4).expand_as(c.w2c), c.K, c.hw), True, False)])
def test_rotation_error_does_not_depend_on_the_frame(change, is_identity, is_unposed):
    e = camera_errors(Says(change), range(4), v=3, n_ctx=2, batch=4)
    assert e['n']==4*3 and e['identity']>5 and unposed(e)==is_unposed
    assert e['rotation']==pytest.approx(e['identity'] if is_identity else 0, abs=.1)

def test_told_cameras_are_not_predicted():
    e = camera_errors(ExactTeacher((2,2)), range(2), batch=2)
    assert e['rotation']<.1 and e['given'] and not unposed(e) and not unposed(dict(rotation=10, identity=30, given=False))

def test_images_and_own_cameras():
    "A teacher that looks gets pictures and nothing else, and the student its cameras"
    torch.manual_seed(0)
    class Looks(VGGTTeacher):
        def observe(self, views, is_tgt):
            assert views.cams is None and views.imgs.shape[2:]==(3,56,56) and 0<=views.imgs.min()<views.imgs.max()<=1
            return super().observe(views, is_tgt)
    class Asked(Spa3R):
        def decode(self, latents, cams, grid, depth=False):
            self.first = cams
            return super().decode(latents, cams, grid, depth)
    t = Looks(VGGT(VGGTConfig.nano(dim=32, img_size=56)))
    with torch.no_grad(): t.vggt.camera_head.pose_branch.fc2.bias[7:] += 1  # an untrained head may give a field of view of 0
    student = Asked(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=64))
    kw = dict(v=3, n_ctx=2, hw=(56,56), batch=2)
    r = evaluate_field(student, t, range(2), prior=fit_prior(student, t, range(10,14), **kw), **kw)
    own = next(held_rooms(t, range(2), **kw)).obs
    assert torch.allclose(student.first.w2c, select_views(own.cams, own.is_tgt).w2c, atol=1e-6)
    assert r['config']['grid']==[4,4] and all(d['cosine']['n']==2 for d in r['rows'].values())
    assert not camera_errors(t, range(2), **kw)['given']

def test_nan_is_not_left_out(prior):
    class Broken(Knows):
        def decode(self, latents, cams, grid, depth=False):
            return dict(geo=torch.where(torch.arange(len(latents))[:,None,None,None]==0, torch.nan, latents), depth=latents[...,0])
    t = Broken(GRID)
    with pytest.raises(ValueError, match='not finite'): evaluate_field(t, t, SEEDS, prior=prior)

def test_aims_name_what_is_missed():
    row = lambda c,f: dict(cosine=dict(mean=c), furniture=dict(mean=f))
    table = lambda p,s,n: dict(rows={'prediction':row(*p), 'shuffled latents':row(*s), 'nearest view':row(*n)})
    assert [a.split(':')[0] for a in aims(table((.8,.5), (.6,.1), (.5,.4)))]==['met','met']
    assert [a.split(':')[0] for a in aims(table((.8,.4), (.7,.1), (.5,.4)))]==['missed','missed']
    assert aims(table((.8,None), (.6,None), (.5,None)))[0].startswith('missed')

@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    d = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8)).save_pretrained(d)
    return d

def test_command_prints_and_writes_the_same(weights, tmp_path, capsys):
    r = probe(str(weights), scenes=3, batch=2, out=str(tmp_path/'probe.json'), device='cpu')
    text = capsys.readouterr().out
    assert json.loads((tmp_path/'probe.json').read_text())==r and format_table(r) in text
    for k in ('prediction','shuffled latents','nearest view','position mean','true-depth warp','teacher itself'):
        assert f"{r['rows'][k]['cosine']['mean']:.3f}" in text and k in text
    assert all(a in text for a in r['aims']) and list(tmp_path.iterdir())==[tmp_path/'probe.json']

@pytest.mark.parametrize('kw', [dict(weights='nowhere'), dict(scenes=1), dict(n_ctx=6), dict(n_ctx=0), dict(spread='narrow'), dict(weights='tests'), dict(batch=0)])
def test_command_says_what_is_wrong(weights, kw):
    with pytest.raises(UserError, match='|'.join(str(v) for v in kw.values())): probe(**{'weights':str(weights), 'scenes':2, **kw})
