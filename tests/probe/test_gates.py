"Gates: what overlaps, what a teacher gets wrong, what is met, and the command that says so"
import json,re
import pytest
import torch
from spa3r.model.cameras import Cameras,axis_angle,rigid
from spa3r.util.core import UserError
from spa3r.probe.measures import Count,camera_errors,depth_errors,fit_prior,same_picture,shared_views,unposed
from spa3r.probe.probes import Gate,criteria,format_parts,format_table,gates,judge,probe,passes
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.rooms.rooms import HELD_OUT,render,sample_scenes
from spa3r.teachers.teachers import ExactTeacher,Observation,Teacher,VGGTTeacher

torch.set_num_threads(1)

class Says(Teacher):
    "Claims some cameras"
    def __init__(self, change):
        super().__init__()
        self.change = change
    def observe(self, views, is_tgt):
        b,v = is_tgt.shape
        return Observation(None, {}, self.change(sample_scenes(range(b), v)[1]), None, (4,4), is_tgt)

def still(c): return Cameras(torch.eye(4).expand_as(c.w2c), c.K, c.hw)

@pytest.mark.parametrize('change,is_identity,is_unposed', [(lambda c: c.relative_to(0), False, True), (still, True, False)])
def test_rotation_error_does_not_depend_on_the_frame(change, is_identity, is_unposed):
    e = camera_errors(Says(change), range(4), v=3, n_ctx=2, batch=4)
    assert e['n']==4*3 and e['identity']>5 and unposed(e)==is_unposed
    for o in (e,e['overlapping']): assert o['rotation']==pytest.approx(o['identity'] if is_identity else 0, abs=.1)

def test_given_cameras_are_not_predicted():
    e = camera_errors(ExactTeacher((2,2)), range(2), batch=2)
    assert e['rotation']<.1 and e['given'] and not unposed(e) and not unposed(dict(rotation=10, identity=30, given=False))

@pytest.fixture(scope='module')
def scene():
    rooms,cams = sample_scenes(range(3), 4, spread='wide')
    return rooms,cams,render(rooms, cams, grid=(8,8))

def test_what_a_view_sees_of_another(scene):
    "Against a loop over patches that asks the renderer itself whether anything stands in the way"
    rooms,cams,hit = scene
    share = shared_views(hit, cams)
    assert share.shape==(3,4,4) and torch.equal(share.diagonal(dim1=1, dim2=2), torch.ones(3,4))
    for b,i,j in ((0,0,1),(1,2,0),(2,3,1),(0,3,2)):
        n = 0
        for p in hit['xyz'][b,j].flatten(0,1):
            x = cams.w2c[b,i,:3,:3]@p+cams.w2c[b,i,:3,3]
            u = cams.K[b,i]@x
            u = u[:2]/u[2]/torch.tensor([112/8,112/8])
            if x[2]>0 and 0<=u[0]<8 and 0<=u[1]<8:
                there = hit['depth'][b,i,int(u[1]),int(u[0])]
                n += (abs(x[2]-there)/x[2]<.1).item()
        assert share[b,i,j].item()*64==pytest.approx(n)

def test_nothing_is_seen_behind_or_through(scene):
    rooms,cams,hit = scene
    hand = hit|dict(depth=torch.full_like(hit['depth'], .03))
    assert shared_views(hand, cams).max()==0
    away = Cameras(torch.diag(torch.tensor([-1.,1,-1,1]))@cams.w2c, cams.K, cams.hw)
    assert shared_views(hit, away).diagonal(dim1=1, dim2=2).max()==0

class Same(Teacher):
    "Turns view `i` by `i` degrees and shifts it by `i` centimetres, whatever it is shown"
    def observe(self, views, is_tgt):
        assert (views.imgs==views.imgs[:,:1]).all() and not is_tgt.any()
        b,v = is_tgt.shape
        i = torch.arange(v).float()
        w2c = rigid(axis_angle((0,0,1), i.deg2rad()), torch.stack([i*0,i*0,i/100], -1))
        return Observation(None, {}, Cameras(w2c.expand(b,v,4,4), torch.eye(3).expand(b,v,3,3), (28,28)), None, (4,4), is_tgt)

def test_the_same_picture():
    got = same_picture(Same(), range(5), v=4, hw=(28,28), batch=2)
    assert got['turn']==pytest.approx(3, abs=1e-3) and got['shift']==pytest.approx(.03, abs=1e-5) and got['n']==5 and got['views']==4
    assert same_picture(ExactTeacher((2,2)), range(2)) is None

def test_overlap_leaves_out_pairs_and_changes_no_error():
    kw = dict(v=5, n_ctx=2, spread='wide', batch=4)
    all_,half,none = [camera_errors(ExactTeacher((8,8)), range(4), share=s, **kw) for s in (0.,.5,1.1)]
    assert all_['overlapping']|dict(given=True)=={k:v for k,v in all_.items() if k!='overlapping'}|dict(share=0.)
    assert 0<half['overlapping']['n']<half['n']==4*10 and half['overlapping']['identity']<half['identity']  # who sees the same has turned less
    assert none['overlapping']==dict(rotation=None, identity=None, n=0, share=1.1)

class DepthHead:
    "A teacher whose depth head says the truth times something, of rooms it is told"
    def __init__(self, seeds, times, v=3):
        self.vggt,self.cfg,self.asymmetric,self.seeds,self.times,self.v = self,VGGTConfig.nano(),True,list(seeds),times,v
        self.masks = []
    def autocast(self, imgs): return torch.no_grad()
    def aggregate(self, imgs, is_tgt, layers):
        self.masks.append(is_tgt)
        self.now,self.seeds = self.seeds[:len(imgs)],self.seeds[len(imgs):]
    def depth(self, toks, hw): return self.times*render(*sample_scenes(self.now, self.v, hw), grid=(hw[0]//2,hw[1]//2))['depth'],None

@pytest.mark.parametrize('times', [1.,.8,1.25])
def test_depth_errors(times):
    seeds,kw = range(HELD_OUT, HELD_OUT+5),dict(v=3, n_ctx=2, hw=(28,28), batch=2)
    t = DepthHead(seeds, times)
    d = depth_errors(t, seeds, range(6), **kw)
    assert d['depth head']['mean']==pytest.approx(abs(times-1), abs=1e-6) and d['depth head']['std']<1e-6 and d['depth head']['n']==5
    assert torch.cat(t.masks).sum()==5 and .1<d['position median']['mean']<.6

def test_position_median_by_hand():
    kw = dict(v=2, n_ctx=1, hw=(28,28), batch=4)
    true,other = [render(*sample_scenes(s, 2, (28,28)), grid=(14,14))['depth'] for s in (range(4),range(50,55))]
    median = other.flatten(0,1).sort(0).values[4]  # the lower of the two in the middle of ten
    want = ((median-true).abs()/true).mean((1,2,3))
    got = depth_errors(DepthHead(range(4), 1., v=2), range(4), range(50,55), **kw)['position median']
    assert got['mean']==pytest.approx(want.mean().item(), rel=1e-5) and got['std']==pytest.approx(want.std().item(), rel=1e-4)

def test_given_depth_is_not_judged(): assert depth_errors(ExactTeacher((2,2)), range(2)) is None

def test_depth_of_a_real_teacher():
    torch.manual_seed(0)
    t = VGGTTeacher(VGGT(VGGTConfig.nano(dim=32, img_size=56, patch=7)))
    d = depth_errors(t, range(3), range(4), v=3, n_ctx=2, hw=(56,56), batch=2, sets=3)
    assert d['depth head']['n']==3 and 0<d['depth head']['mean']<10 and d['depth head']['std_sets']==pytest.approx(d['depth head']['std'])

def made(pred=(.9,.5), shuffled=.6, near=.4, warp=.8, deg=3., off=.1, given=False, same=.1, layout='video'):
    row = lambda c,f: dict(cosine=dict(mean=c), furniture=dict(mean=f))
    return dict(config=dict(cameras=layout), same=None if given else dict(turn=same, views=6), rows={'prediction':row(*pred), 'shuffled latents':row(shuffled,.1), 'nearest view':row(.5,near), 'true-depth warp':row(warp,.9)},
        cameras=dict(given=given, overlapping=dict(rotation=deg, identity=17.)),
        teacher_depth=None if given else {'depth head':dict(mean=off), 'position median':dict(mean=.2)})

@pytest.mark.parametrize('name,kw', [('rotation',dict(deg=4.)), ('rotation',dict(deg=None)), ('rotation',dict(deg=10., layout='wide')), ('rotation',dict(deg=2., layout='steps')), ('same',dict(same=.5)), ('depth',dict(off=.12)), ('furniture',dict(near=.5)), ('furniture',dict(pred=(.9,None))),
    ('latents',dict(shuffled=.76)), ('warp',dict(warp=.9))])
def test_each_gate_can_be_missed_alone(name, kw):
    missed = [g.name for g in gates(made(**kw)) if not g.met]
    assert missed==[name] and [a.split(':')[0] for a in criteria(made(**kw))].count('missed')==1
    assert passes(made(**kw))==(name not in ('furniture','latents'))

def test_gates_that_do_not_apply_are_left_out():
    assert [g.name for g in gates(made())]==['rotation','same','depth','furniture','latents','warp'] and all(g.met for g in gates(made()))
    assert [g.name for g in gates(made(given=True))]==['furniture','latents','warp']

def test_a_gate_says_its_figure():
    text = str(Gate('x', 'apples', 3.14159, 2, beside='pears'))
    assert text=='met: apples 3.14, wanted above 2 (pears)' and str(Gate('x', 'apples', None, 2, True))=='missed: apples unknown, wanted below 2'
    assert '17' in criteria(made())[0] and '0.1' in criteria(made())[1] and '0.2' in criteria(made())[2]
    assert gates(made(deg=9., layout='wide'))[0].met and not gates(made(deg=9.))[0].met

@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    d = tmp_path_factory.mktemp('weights')
    torch.manual_seed(0)
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8)).save_pretrained(d)
    return d

def test_command_prints_and_writes_the_same(weights, tmp_path, capsys):
    r = probe(str(weights), scenes=2, seeds=2, batch=2, out=str(tmp_path/'probe.json'), device='cpu')
    text = capsys.readouterr().out
    assert json.loads((tmp_path/'probe.json').read_text(encoding='utf8'))==r and format_table(r) in text and format_parts(r) in text
    for k in ('prediction','shuffled latents',"another view's camera","another room's camera",'nearest view','position mean','true-depth warp','teacher itself'):
        d = r['rows'][k]['cosine']
        assert f"{d['mean']:.3f} ±{d['std']:.3f}/{d['std_sets']:.3f}" in text and k in text and d['n']==4
    assert all(a in text for a in r['aims']) and list(tmp_path.iterdir())==[tmp_path/'probe.json']
    assert 'cameras are given' in text and r['teacher_depth'] is None

def test_command_with_a_teacher_that_looks(tmp_path, capsys):
    "Patches of 7 pixels, at the side that the teacher was made for"
    torch.manual_seed(0)
    net = VGGT(VGGTConfig.nano(dim=32, img_size=28, patch=7))
    with torch.no_grad(): net.camera_head.pose_branch.fc2.bias[7:] += 1  # an untrained head may give a field of view of 0
    net.save_pretrained(tmp_path/'teacher')
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=64, teacher='teacher', grid=0)).save_pretrained(tmp_path)
    r = probe(str(tmp_path), scenes=2, views=4, n_ctx=2, device='cpu')
    text = capsys.readouterr().out
    assert r['config']['grid']==[4,4] and r['config']['hw']==[28,28] and not r['cameras']['given'] and r['teacher_depth']['depth head']['n']==2
    assert len(r['aims'])==6 and 'the same picture 4 times' in text and 'not to be called unposed' in text and 'see 25% or more of each other' in text

@pytest.mark.parametrize('given', [True,False])
@pytest.mark.parametrize('fitted', [True,False])
def test_one_count_over_all_that_is_measured(weights, monkeypatch, given, fitted):
    "From 0 on, never back, and at the end no room is left or too many"
    from spa3r.teachers.teachers import load_student
    torch.manual_seed(0)
    student,teacher,_ = load_student(str(weights))
    if not given:
        net = VGGT(VGGTConfig.nano(dim=32, img_size=28, patch=14))
        with torch.no_grad(): net.camera_head.pose_branch.fc2.bias[7:] += 1
        teacher,student = VGGTTeacher(net),Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=64))
    kw,counts,said = dict(v=2, n_ctx=1, hw=(28,28), batch=32),[],[]
    prior = fit_prior(student, teacher, **kw) if fitted else None
    monkeypatch.setattr('spa3r.probe.measures.say', said.append)
    monkeypatch.setattr('spa3r.probe.probes.Count', lambda n: counts.append(Count(n)) or counts[-1])
    judge(student, teacher, range(HELD_OUT, HELD_OUT+4), prior, **kw)
    share = [int(re.fullmatch(r'measuring: (\d+)%', s)[1]) for s in said]
    assert share[0]==0 and share==sorted(share) and share[-1]<100 and [c.n for c in counts]==[c.total for c in counts]==[counts[0].total]

def test_command_for_the_semantic_head(tmp_path):
    "The semantic teacher is loaded where it is asked for, and only there"
    from transformers import Dinov2Config,Dinov2Model
    torch.manual_seed(0)
    Dinov2Model(Dinov2Config(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, image_size=28, patch_size=14)).save_pretrained(tmp_path/'dino')
    net = VGGT(VGGTConfig.nano(dim=32, img_size=28, patch=7))
    with torch.no_grad(): net.camera_head.pose_branch.fc2.bias[7:] += 1
    net.save_pretrained(tmp_path/'teacher')
    Spa3R(Spa3RConfig.nano(dim=32, enc_depth=1, dec_depth=1, n_latents=8, geo_channels=64, sem_channels=24, teacher='teacher', grid=0,
        semantic=str(tmp_path/'dino'))).save_pretrained(tmp_path)
    kw = dict(scenes=2, views=3, n_ctx=2, device='cpu')
    sem,geo = [probe(str(tmp_path), head=h, **kw) for h in ('sem','geo')]
    assert sem['config']['head']=='sem' and sem['rows']['nearest view']!=geo['rows']['nearest view'] and sem['teacher_depth']==geo['teacher_depth']
    (tmp_path/'dino'/'config.json').unlink()
    assert probe(str(tmp_path), **kw)['rows']==geo['rows']
    with pytest.raises(UserError, match='semantic teacher'): probe(str(tmp_path), head='sem', **kw)

@pytest.mark.parametrize('kw', [dict(weights='nowhere'), dict(scenes=1), dict(seeds=0), dict(n_ctx=6), dict(n_ctx=0), dict(spread='narrow'), dict(weights='tests'), dict(batch=0),
    dict(head='sem'), dict(size=-1), dict(seed=-5), dict(out='.')])
def test_command_says_what_is_wrong(weights, kw):
    with pytest.raises(UserError, match='|'.join(re.escape(str(v)) for v in kw.values())): probe(**{'weights':str(weights), 'scenes':2, **kw})

def test_judge_is_the_command(weights):
    from spa3r.teachers.teachers import load_student
    student,teacher,_ = load_student(str(weights))
    r = judge(student, teacher, range(HELD_OUT, HELD_OUT+2), batch=2)
    assert r['rows']==probe(str(weights), scenes=2, batch=2, device='cpu')['rows']
