"Laws of the uncertainty: what it is made of, and that its judge can say yes and no"
import pytest
import torch
import torch.nn.functional as F
from spa3r.model.cameras import Cameras,intrinsics,orbit
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.rooms.rooms import HELD_OUT
from spa3r.teachers.teachers import ExactTeacher
from spa3r.probe.uncertainty import (Scale,calibration_error,estimates,expect,fit_head,fit_scale,format_uncertainty,judge_uncertainty,rank_correlation,reliability,
                               sparsification,sparsification_gain,disagreement,without_one)

def rand(*s, seed=0): return torch.rand(*s, generator=torch.Generator().manual_seed(seed))

@pytest.fixture(scope='module')
def student():
    torch.manual_seed(0)
    return Spa3R(Spa3RConfig.nano(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=8)).eval()

def cameras(b, v): return Cameras(torch.stack([orbit((0,0,2), 2, 0, v)]*b), intrinsics(torch.tensor(1.2), (56,56)).expand(b,v,3,3), (56,56))

class Echo:
    "Latents are the mean of the context; every camera sees them as they are"
    def encode(self, ctx, grid): return ctx.mean((1,2))[:,None]
    def decode(self, z, cams, grid): return dict(geo=z[:,None].expand(-1, cams.shape[1], grid[0]*grid[1], -1))

def test_disagreement_by_hand():
    "Three views say x, x and y: without the second (x+y)/2 is said, without the third x"
    x,y = torch.tensor([1.,0.]),torch.tensor([0.,1.])
    ctx = torch.stack([x,x,y])[None,:,None]
    net,cams = Echo(),cameras(1, 2)
    pred,s = disagreement(net, net.encode(ctx, (1,1)), without_one(net, ctx, (1,1)), cams, (1,1))
    both = [1-F.cosine_similarity(o, (2*x+y)/3, dim=0) for o in ((x+y)/2, x)]
    assert torch.allclose(s, torch.full((1,2,1), (sum(both)/2).item()), atol=1e-6)

def test_disagreement_of_one_view_is_unknown(student):
    ctx,cams = rand(2,1,16,64),cameras(2, 3)
    less = without_one(student, ctx, (4,4))
    pred,s = disagreement(student, student.encode(ctx, (4,4)), less, cams, (4,4))
    assert less==[] and s.shape==(2,3,16) and s.isnan().all() and pred.isfinite().all()

@pytest.mark.parametrize('v', [2,3,5])
def test_prediction_is_the_students(student, v):
    "The spread changes nothing of what is predicted, never leaves the first view out, and does not mind the order of the others"
    ctx,cams = rand(1,v,16,64),cameras(1, 2)
    z,less = student.encode(ctx, (4,4)),without_one(student, ctx, (4,4))
    pred,s = disagreement(student, z, less, cams, (4,4))
    assert len(less)==v-1 and torch.equal(pred, student.decode(z, cams, (4,4))['geo']) and (s>0).all()
    other = torch.cat([ctx[:,:1], ctx[:,1:].flip(1)], 1)
    again = disagreement(student, student.encode(other, (4,4)), without_one(student, other, (4,4)), cams, (4,4))[1]
    assert torch.allclose(again, s, atol=1e-5)
    assert torch.equal(without_one(student, ctx, (4,4))[-1], student.encode(ctx[:,:-1], (4,4)))

@pytest.mark.parametrize('v', [6,7,24,48])
def test_many_views_are_taken_away_in_four_shares(v):
    "So that the work grows as the views do; every view but the first is missing exactly once"
    class Student:
        def encode(self, ctx, grid): return ctx[0,:,0,0].int().tolist()
    kept = without_one(Student(), torch.arange(v)[None,:,None,None], (1,1))
    missing = [i for z in kept for i in range(v) if i not in z]
    assert len(kept)==4 and sorted(missing)==list(range(1, v))
    assert max(map(len, kept))-min(map(len, kept))<=1

def test_rank_correlation_is_pearsons_of_average_ranks():
    a,b = rand(5,50),rand(5,50, seed=1)
    a[:,::5] = .5  # ties
    def ranks(x): return torch.stack([((x<o).sum()+((x==o).sum()-1)/2).float() for o in x])
    want = [torch.corrcoef(torch.stack([ranks(i), ranks(j)]))[0,1] for i,j in zip(a,b)]
    assert torch.allclose(rank_correlation(a, b).float(), torch.stack(want), atol=1e-5)
    assert rank_correlation(torch.ones(7), rand(7))==0

def test_sparsification_by_hand():
    e = torch.tensor([4.,1.,3.,2.]*5)
    c = sparsification(e, e)
    assert c[0]==2.5 and c[5]==2 and c[15]==1  # without the worst quarter, with the best quarter
    assert torch.allclose(sparsification(torch.ones(20), e), torch.full((20,), 2.5).double())  # a die
    g = sparsification_gain(torch.stack([e**2, torch.ones(20), -e]), e.expand(3,-1))
    assert abs(g[0]-1)<1e-9 and abs(g[1])<1e-9 and g[2]<-.5

def test_ties_do_not_depend_on_their_place():
    u,e = (rand(200)*4).floor(),rand(200, seed=1)
    p = torch.randperm(200, generator=torch.Generator().manual_seed(2))
    assert torch.allclose(sparsification(u, e), sparsification(u[p], e[p]))
    assert torch.allclose(reliability(u, e), reliability(u[p], e[p]))

def test_calibration_by_hand():
    said = torch.tensor([.1]*10+[.5]*10)
    err = torch.tensor([.2]*10+[.5]*10)
    assert torch.allclose(reliability(said, err, 2), torch.tensor([[.1,.2],[.5,.5]]).double())
    assert abs(calibration_error(said, err)-.05)<1e-6

@pytest.mark.parametrize('p', [1.,.5,.25])
def test_scale_finds_factor_and_power(p):
    u = rand(3000)
    f = fit_scale(u, .3*u**p)
    assert f.power==p and abs(f.scale-.3)<1e-4 and torch.allclose(f(u), .3*u**p, atol=1e-4)

def test_scale_refuses():
    for u in (torch.zeros(4), torch.tensor([-1.,1.]), torch.tensor([1.,torch.nan])):
        with pytest.raises(ValueError): fit_scale(u, torch.ones(len(u)))

def test_head_is_ridge_regression():
    x,y = torch.randn(300, 5, generator=torch.Generator().manual_seed(0)),rand(300)
    X = torch.cat([x, torch.ones(300,1)], 1).double()
    D = torch.diag(torch.tensor([7.]*5+[0.])).double()  # the bias is not shrunk
    w = torch.linalg.solve(X.T@X+D, X.T@y.sqrt().double())
    h = fit_head(x.view(3,100,5), y.view(3,100), l2=7.)
    assert torch.allclose(h.weight[0].double(), w[:5], atol=1e-5) and torch.allclose(h.bias.double(), w[5:], atol=1e-5)
    assert torch.allclose(expect(h, x), (X@w).float().clamp_min(0)**2, atol=1e-5) and not h.weight.requires_grad

def test_estimates_and_their_judge(student):
    teacher = ExactTeacher((4,4))
    a,b = [estimates(student, teacher, range(HELD_OUT+i, HELD_OUT+i+4), batch=2) for i in (0,4)]
    assert a['error'].shape==(4,3*16) and a['tokens'].shape==(4,48,32) and all(x.isfinite().all() for x in a.values())
    assert (a['nearest view'].unflatten(1, (3,16)).std(-1)<1e-6).all()  # one number for a view
    one = estimates(student, teacher, range(HELD_OUT, HELD_OUT+4), batch=4)
    for k in a: assert torch.allclose(a[k], one[k], atol=1e-4), k
    res = judge_uncertainty(a, b, sets=2)
    assert set(res)=={'disagreement','length','nearest view','head','constant'} and abs(res['constant']['gain']['mean'])<1e-6
    assert len(format_uncertainty(res).splitlines())==6
    c,d = [estimates(student, teacher, range(HELD_OUT+i, HELD_OUT+i+2), n_ctx=1) for i in (0,2)]
    assert 'disagreement' not in judge_uncertainty(c, d) and 'head' in judge_uncertainty(c, d)

def test_judge_knows_the_truth_when_it_sees_it():
    def made(seed):
        e = rand(6,300, seed=seed)**2
        return {'error':e, 'disagreement':e/4, 'length':rand(6,300, seed=seed+1), 'nearest view':1-e, 'constant':torch.ones_like(e), 'tokens':e.sqrt()[...,None]}
    r = judge_uncertainty(made(0), made(10), sets=3)
    assert r['disagreement']['rank']['mean']>.999 and r['disagreement']['gain']['mean']>.999 and r['disagreement']['ece']['mean']<1e-4 and abs(r['disagreement']['scale']['scale']-4)<1e-3
    assert abs(r['length']['rank']['mean'])<.1 and r['nearest view']['gain']['mean']<0 and r['constant']['ece']['mean']<.03

def test_scale_is_a_function(): assert torch.equal(Scale(2., .5)(torch.tensor([4.])), torch.tensor([4.]))
