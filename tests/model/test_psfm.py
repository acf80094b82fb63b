"The loss, the draw of hidden views and the joined model"
import json
import pytest,torch
from spa3r.model.cameras import Cameras,intrinsics,orbit
from spa3r.util.core import UserError
from spa3r.teachers.teachers import Observation
from spa3r.model.psfm import Spa3R,Spa3RConfig,draw_targets,feature_loss,fit_standardisation,n_context,official_name,our_name,psfm_loss,select_views

TINY = dict(dim=32, nh=2, enc_depth=1, dec_depth=1, n_latents=4, geo_channels=6)

def observation(b=2, v=4, grid=(2,3), sem=0, seed=0):
    g = torch.Generator().manual_seed(seed)
    hw = (14*grid[0],14*grid[1])
    n = grid[0]*grid[1]
    is_tgt = draw_targets(b, v, generator=g)
    feats = {k:torch.randn(b, v, n, c, generator=g) for k,c in {'geo':6,'sem':sem}.items() if c}
    cams = Cameras(orbit((0,0,2), 2, 0, v).expand(b,v,4,4), intrinsics(torch.tensor(1.), hw).expand(b,v,3,3), hw)
    return Observation(select_views(feats['geo'], ~is_tgt), feats, cams, torch.rand(b,v,n,generator=g)+1, grid, is_tgt)

@pytest.mark.parametrize('v', range(2,13))
@pytest.mark.parametrize('ratio', [0.05,0.25,0.5,0.75,0.9,0.99])
def test_draw(v, ratio):
    is_tgt = draw_targets(64, v, ratio, torch.Generator().manual_seed(v))
    n = n_context(v, ratio)
    assert n==sorted((1, v*(100-round(100*ratio))//100, v-1))[1]  # rounded down in whole hundredths, at least one and not all
    assert not is_tgt[:,0].any() and (~is_tgt).sum(1).eq(n).all()
    if 1<n<v-1: assert len(is_tgt.unique(dim=0))>1  # different samples hide different views
    assert torch.equal(is_tgt, draw_targets(64, v, ratio, torch.Generator().manual_seed(v)))

@pytest.mark.parametrize('bad', [(1,0.5), (4,0.), (4,1.)])
def test_draw_refuses(bad):
    with pytest.raises(ValueError): n_context(*bad)

@pytest.mark.parametrize('smooth', [False,True])
def test_feature_loss_by_hand(smooth):
    p,t = torch.randn(3,5,7),torch.randn(3,5,7)
    d = feature_loss(p, t, smooth)
    e = (p-t).abs()
    l1 = torch.where(e<1, e**2/2, e-0.5) if smooth else e
    torch.testing.assert_close(d['l1'], l1.mean())
    cos = (p*t).sum(-1)/(p.norm(dim=-1)*t.norm(dim=-1))
    torch.testing.assert_close(d['cos'], (1-cos).mean())

def test_features_of_zero_have_a_loss_and_a_gradient():
    p,t = torch.zeros(2,7,requires_grad=True),torch.randn(2,7)
    d = feature_loss(p, t)
    assert d['cos']==1
    assert torch.autograd.grad(sum(d.values()), p)[0].isfinite().all()

def test_select_views_keeps_order():
    x = torch.arange(8).reshape(2,4)
    keep = torch.tensor([[1,0,1,0],[0,1,0,1]]).bool()
    assert select_views(x, keep).tolist()==[[0,2],[5,7]]

@pytest.mark.parametrize('sem', [0,5])
def test_loss_is_the_sum_of_its_parts(sem):
    student = Spa3R(Spa3RConfig.nano(**TINY, sem_channels=sem))
    d = psfm_loss(student, observation(sem=sem))
    assert set(d)=={'loss','geo_l1','geo_cos','depth'}|({'sem_l1','sem_cos'} if sem else set())
    torch.testing.assert_close(d['loss'], sum(v for k,v in d.items() if k!='loss'))

def test_a_third_target(tmp_path):
    "It is one more name in the teacher's channels: predicted, standardised, weighed, saved and loaded like the others"
    cfg = Spa3RConfig.nano(**TINY).predicting({'geo':6, 'sem':5, 'rgb':3})
    assert cfg.channels=={'geo':6, 'sem':5, 'rgb':3} and cfg.predicting({'geo':6})==Spa3RConfig.nano(**TINY)
    torch.manual_seed(0)
    student,obs = Spa3R(cfg),observation(sem=5)
    obs.feats['rgb'] = 7+torch.rand(2, 4, 6, 3)
    fit_standardisation(student, obs.feats)
    torch.testing.assert_close(student.rgb_mean, obs.feats['rgb'].mean((0,1,2)))
    d = psfm_loss(student, obs, weights={'rgb_l1':3.})
    torch.testing.assert_close(d['loss'], sum(v*(3. if k=='rgb_l1' else 1.) for k,v in d.items() if k!='loss'))
    d['rgb_cos'].backward()
    assert student.bottleneck.projection.weight.grad.abs().max()>0
    student.save_pretrained(tmp_path)
    again = Spa3R.from_pretrained(tmp_path)
    assert again.cfg.channels==cfg.channels and torch.equal(again(obs)['rgb'], student.eval()(obs)['rgb'])

def test_a_configuration_of_two_targets_is_read_as_before(tmp_path):
    student = Spa3R(Spa3RConfig.nano(**TINY, sem_channels=5))
    student.save_pretrained(tmp_path)
    old = json.loads((tmp_path/'config.json').read_text(encoding='utf8'))
    del old['more_channels']
    (tmp_path/'config.json').write_text(json.dumps(old), encoding='utf8')
    assert Spa3R.from_pretrained(tmp_path).cfg==student.cfg

def test_targets_only_ignores_context_predictions():
    "The context views' true features enter the loss only with on='all'"
    student,obs = Spa3R(Spa3RConfig.nano(**TINY)),observation()
    a = {on:psfm_loss(student, obs, on=on)['loss'] for on in ('targets','all')}
    obs.feats = {'geo':torch.where(obs.is_tgt[:,:,None,None], obs.feats['geo'], obs.feats['geo']+1)}
    b = {on:psfm_loss(student, obs, on=on)['loss'] for on in ('targets','all')}
    assert torch.equal(a['targets'], b['targets']) and not torch.equal(a['all'], b['all'])

def test_depth_probe_is_detached():
    student = Spa3R(Spa3RConfig.nano(**TINY))
    psfm_loss(student, observation())['depth'].backward()
    assert {k.split('.')[1] for k,p in student.named_parameters() if p.grad is not None}=={'depth_probe'}

def test_names_round_trip():
    student = Spa3R(Spa3RConfig.nano(**TINY, sem_channels=3))
    for k in [k for k,_ in student.named_parameters()]: assert our_name(official_name(k))==k
    assert {k.split('.')[0] for k in student.state_dict()}=={'projection','query_embed','encoder','pose_tokenizer','decoder','heads','depth_prob',
                                                              'geo_mean','geo_std','sem_mean','sem_std'}

@pytest.mark.parametrize('half', [False,True])
def test_save_and_load(tmp_path, half):
    student = Spa3R(Spa3RConfig.nano(**TINY))
    fit_standardisation(student, {'geo':torch.randn(50,6)*3+1})
    (student.half() if half else student).save_pretrained(tmp_path)
    again = Spa3R.from_pretrained(tmp_path)
    assert again.cfg==student.cfg
    for k,v in student.float().state_dict().items():
        assert again.state_dict()[k].dtype==torch.float32
        torch.testing.assert_close(again.state_dict()[k], v)

def test_loading_is_strict(tmp_path):
    from safetensors.torch import load_file,save_file
    Spa3R(Spa3RConfig.nano(**TINY)).save_pretrained(tmp_path)
    w = load_file(tmp_path/'model.safetensors')
    save_file({k:v for k,v in w.items() if k!='encoder.norm.bias'}, tmp_path/'model.safetensors')
    with pytest.raises(UserError, match="encoder.norm.bias"): Spa3R.from_pretrained(tmp_path)

def test_standardisation_fits():
    student,f = Spa3R(Spa3RConfig.nano(**TINY)),torch.randn(400,6)*torch.arange(1,7)+torch.arange(6)
    fit_standardisation(student, {'geo':f})
    x = student.standardise('geo', f)
    torch.testing.assert_close(x.mean(0), torch.zeros(6), atol=1e-5, rtol=0)
    torch.testing.assert_close(x.std(0), torch.ones(6), atol=1e-5, rtol=0)
    assert Spa3R(Spa3RConfig.nano(**{**TINY,'standardise':False})).standardise('geo', f) is f

@pytest.mark.parametrize('grid', [(2,3),(5,2),(1,9)])
@pytest.mark.parametrize('v', [1,3])
def test_any_camera_any_grid(grid, v):
    student = Spa3R(Spa3RConfig.nano(**TINY))
    z = student.encode(torch.randn(2,3,6,6), (2,3))
    hw = (20*grid[0],20*grid[1])
    cams = Cameras(orbit((0,0,2), 2, 0, v).expand(2,v,4,4), intrinsics(torch.tensor(1.), hw).expand(2,v,3,3), hw)
    out = student.decode(z, cams, grid, depth=True)
    assert out['geo'].shape==(2,v,grid[0]*grid[1],6) and out['depth'].shape==(2,v,grid[0]*grid[1])
    for i in range(v):  # one camera knows nothing of the others
        torch.testing.assert_close(student.decode(z, cams[:,i:i+1], grid)['geo'], out['geo'][:,i:i+1], atol=1e-5, rtol=1e-4)

def test_the_paper_size_has_the_official_tensors():
    from golden_io import card
    with torch.device('meta'): student = Spa3R()
    want = {k.removeprefix('model.'):v['shape'] for k,v in card('keys_spa3r_student')['keys'].items()}
    assert {k:list(v.shape) for k,v in student.state_dict().items()}==want

def test_terms_can_be_weighed():
    student,obs = Spa3R(Spa3RConfig.nano(**TINY)),observation()
    d = psfm_loss(student, obs, weights={'geo_cos':3., 'depth':0.})
    torch.testing.assert_close(d['loss'], d['geo_l1']+3*d['geo_cos'])
    with pytest.raises(ValueError, match='no terms'): psfm_loss(student, obs, weights={'cosine':1.})

def test_nothing_hidden_is_said():
    obs = observation()
    obs.is_tgt = torch.zeros_like(obs.is_tgt)
    with pytest.raises(ValueError, match='no view is hidden'): psfm_loss(Spa3R(Spa3RConfig.nano(**TINY)), obs)

def test_select_views_without_a_mask():
    x,keep = torch.randn(3, 5, 2),draw_targets(3, 5)
    assert torch.equal(select_views(x, keep), x[keep].unflatten(0, (3,-1)))
    with pytest.raises(ValueError, match='same for all'): select_views(x, torch.tensor([[1,0,0,0,0],[1,1,0,0,0],[1,0,0,0,0]]).bool())
