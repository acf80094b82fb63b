"The lesson: what is shown at which time, poses from view to view, Muon, and the same run after a stop"
import json
from dataclasses import replace
import pytest
import torch
from spa3r.model.cameras import Cameras,compose,rotation_angle
from spa3r.util.core import UserError
from spa3r.train.loop import Muon,TrainConfig,even_out,newest,param_groups
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.rooms.rooms import CLASSES,HELD_OUT,LAYOUTS,sample_scenes
from spa3r.teachers.teachers import VGGTTeacher
from spa3r.train.teach_vggt import STAGES,Lesson,Stage,lesson_views,looks,pose_loss,miniature,teach,teach_loss

torch.set_num_threads(1)
SMALL = dict(dim=32, depth=1, images=6, images_device=6, quiet=True, device='cpu')

def test_stages_begin_with_pairs_that_nearly_agree_and_end_large():
    assert STAGES[0].v_max==2 and STAGES[0].steps>STAGES[-1].steps and STAGES[-1].size==112 and STAGES[-1].until==1
    assert [s.until for s in STAGES]==sorted(s.until for s in STAGES) and [s.v_max for s in STAGES]==sorted(s.v_max for s in STAGES)
    wide = [dict(zip(LAYOUTS, s.shares(s.v_max)))['wide'] for s in STAGES]
    assert wide==sorted(wide) and wide[0]==0<wide[-1]
    for s in STAGES:
        for v in range(2, s.v_max+1): assert sum(s.shares(v))==pytest.approx(1) and min(s.shares(v))>=0

def test_what_is_shown():
    "All shapes, repeated views in about one set of eight, hidden views in half, square pixels; no room that is held out"
    cfg,shapes,again,hidden = TrainConfig.nano(steps=1000, images=12, images_device=12, v_min=2, v_max=6),set(),0,0
    for s in range(300, 420):
        views,is_tgt,i,seed = lesson_views(cfg, s, pictures=False)
        v = views.cams.shape[1]
        assert len(views.rooms)*v<=12 and i<v and not is_tgt[:,0].any() and views.imgs is None
        assert torch.allclose(views.cams.K[...,0,0], views.cams.K[...,1,1]) and all(r.seed<HELD_OUT for r in views.rooms.rooms)
        shapes.add(views.cams.hw)
        w = views.cams.w2c[0].flatten(1)
        again += len(w.unique(dim=0))<v
        hidden += is_tgt.any().item()
    assert shapes=={(56,56),(42,56),(28,56),(56,42)} and 4<again<28 and 35<hidden<85

def test_poses_have_no_frame_of_their_own():
    _,cams = sample_scenes(range(2), 4)
    for k in range(4):
        moved = Cameras(compose(cams.w2c, cams.c2w[:,[k]]), cams.K, cams.hw).pose()
        assert all(x<1e-4 for x in pose_loss([moved], cams).values())
    still = torch.cat([cams.pose()[...,:3]*0, torch.tensor([0,0,0,1.]).expand(2,4,4), cams.pose()[...,7:]], -1)
    i,j = torch.triu_indices(4, 4, 1)
    R = cams.w2c[...,:3,:3]
    true = 2*(rotation_angle(R[:,i], R[:,j])/2).sin()
    assert pose_loss([still], cams)['turn'].item()==pytest.approx(true.mean().item(), rel=1e-4)

def test_view_0_is_the_identity_to_the_last_bit():
    torch.manual_seed(0)
    net = VGGT(VGGTConfig.nano(dim=32, patch=7))
    w2c = net.cameras(net.aggregate(torch.rand(2, 3, 3, 28, 35))[-1], (28,35)).w2c
    assert torch.equal(w2c[:,0], torch.eye(4).expand(2,4,4)) and not torch.equal(w2c[:,1], w2c[:,0])

def test_no_gradient_is_lost_and_the_turn_falls():
    torch.manual_seed(0)
    lesson,cfg = Lesson(VGGT(miniature(32, 1)), len(CLASSES)),TrainConfig.nano(steps=100, images=8, images_device=8, v_min=2, v_max=6)
    batch = lesson_views(cfg, 3, stages=(Stage(1., 28, 2),))
    opt,first = Muon(param_groups(lesson, 0., 2.), lr=3e-3, betas=(.9,.95)),None
    for _ in range(60):
        res = teach_loss(lesson, batch)
        res['loss'].backward()
        if first is None:
            assert all(p.grad is not None for k,p in lesson.named_parameters() if 'pose_tokens' not in k)
            first = {k:v.item() for k,v in res.items()}
        opt.step()
        opt.zero_grad()
    assert res['turn']<.6*first['turn'] and res['lens']<.6*first['lens'] and res['loss']<.7*first['loss']

def test_looks_leave_the_pupil_alone():
    torch.manual_seed(0)
    lesson = Lesson(VGGT(miniature(32, 1)), len(CLASSES))
    before = {k:v.clone() for k,v in lesson.state_dict().items()}
    r = looks(lesson, range(HELD_OUT, HELD_OUT+4), 28)
    assert set(r)=={'score','same',*LAYOUTS} and r['score']==pytest.approx(-sum(r[k] for k in LAYOUTS)/4)
    assert all(p.requires_grad for p in lesson.parameters()) and all(torch.equal(v, before[k]) for k,v in lesson.state_dict().items())

def test_a_stopped_lesson_goes_on_as_if_nothing_had_been(tmp_path, monkeypatch):
    "With Muon's memory; the looks at held-out rooms change nothing"
    import spa3r.train.teach_vggt as t
    teach(out=str(tmp_path/'whole'), steps=6, eval_every=0, save_every=2, **SMALL)
    real,n = t.teach_loss,[0]
    def stops(*a):
        n[0] += 1
        if n[0]==4: raise KeyboardInterrupt
        return real(*a)
    monkeypatch.setattr(t, 'teach_loss', stops)
    with pytest.raises(KeyboardInterrupt): teach(out=str(tmp_path/'stopped'), steps=6, eval_every=0, save_every=2, **SMALL)
    assert newest(tmp_path/'stopped').name=='step-0000002' and not (tmp_path/'stopped'/'model.safetensors').exists()
    a,b = VGGT.from_pretrained(tmp_path/'whole'),teach(out=str(tmp_path/'stopped'), steps=6, eval_every=0, save_every=2, **SMALL)
    assert all(torch.equal(v, b.state_dict()[k]) for k,v in a.state_dict().items())
    state = torch.load(newest(tmp_path/'stopped')/'state.pt', weights_only=True)['opt']
    assert any('mean' in s for s in state['state'].values()) and any('exp_avg' in s for s in state['state'].values())

def test_sizes_that_cannot_be():
    for kw in (dict(dim=40), dict(dim=0), dict(depth=0)):
        with pytest.raises(UserError, match='multiple of 32'): miniature(**kw)

@pytest.mark.parametrize('shape', [(8,24),(24,8),(16,16)])
def test_muon_steps_along_all_directions_alike(shape):
    torch.manual_seed(0)
    M = torch.randn(3, *shape)*torch.logspace(-1, 1, shape[1])
    s = torch.linalg.svdvals(even_out(M))
    assert s.max()<1.35 and s.median()>.6
    U,_,V = torch.linalg.svd(M, full_matrices=False)
    assert torch.cosine_similarity(even_out(M).flatten(1), (U@V).flatten(1)).min()>.9

def test_muon_is_adamw_for_what_is_not_inside_a_block():
    torch.manual_seed(0)
    nets = [VGGT(miniature(32, 1)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    opts = [Muon(param_groups(nets[0], .1, 2.), lr=.01, betas=(.9,.95)), torch.optim.AdamW(param_groups(nets[1], .1), lr=.01, betas=(.9,.95))]
    for net,opt in zip(nets, opts):
        torch.manual_seed(1)
        for p in net.parameters(): p.grad = torch.randn_like(p)
        opt.step()
    inside = {id(p) for p in param_groups(nets[0], .1, 2.)[2]['params']}
    same = {k:torch.equal(p, dict(nets[1].named_parameters())[k]) for k,p in nets[0].named_parameters()}
    assert inside and all(same[k]==(id(p) not in inside) for k,p in nets[0].named_parameters())
    assert all(p.ndim==2 and ('blocks' in k or 'trunk' in k) for k,p in nets[0].named_parameters() if id(p) in inside)
