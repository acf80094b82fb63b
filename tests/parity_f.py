"The whole loss forward: every intermediate, every loss, every recorded gradient, in all four variants"
import pytest,torch
from golden_io import card,load
from parity_d import ATOL,recorded_dino,recorded_vggt
from spa3r.patch_encoder import VGGTTeacher,Views
from spa3r.psfm import Spa3R,Spa3RConfig,official_name,psfm_loss,select_views

def recorded_student():
    "The recorded student, sizes from the card and the shapes of its weights"
    w,c = load('f_spa3r_student_weights')
    c = c['config']
    student = Spa3R(Spa3RConfig(dim=c['spa_dim'], nh=c['spa_heads'], enc_depth=c['enc'], dec_depth=c['dec'], n_latents=c['num_queries'],
        n_registers=c['registers'], geo_channels=2*c['embed_dim'], sem_channels=c['dino']['hidden']))
    student.load_state_dict(w)
    return student

def taps(student, ts):
    "Hooks that keep what the official code names inside the two halves"
    kept = {}
    def keep(name): return lambda m,i,o: kept.__setitem__(name, o)
    student.bottleneck.encoder.register_forward_hook(keep('encoder_out'))
    student.field.pose_tokenizer.register_forward_hook(keep('pose_cond'))
    student.field.decoder.register_forward_hook(keep('decoder_out'))
    return kept

def check(name, got, want, tol=ATOL):
    assert got.shape==want.shape, f'{name}: {tuple(got.shape)} for {tuple(want.shape)}'
    diff = (got-want).abs().max().item()
    assert diff<=tol, f'{name} differs by {diff:.1e}'
    return diff

@pytest.mark.parametrize('asym', ['asym','sym'])
@pytest.mark.parametrize('nm,norm', [('official_rms','rms'), ('layernorm','layer')])
def test_loss_forward(nm, norm, asym, record_property):
    name = f'f_spa3r_{nm}_{asym}'
    ts,c = load(name)
    asked = set(c['tensors'])
    student,teacher = recorded_student(),VGGTTeacher(recorded_vggt(norm)[0], recorded_dino(), asymmetric=c['config']['asym'])
    kept = taps(student, ts)
    obs = teacher.observe(Views(ts['images']), ts['view_mask'])
    losses = psfm_loss(student, obs, on='all', smooth=True)  # the official choices
    losses['loss'].backward()
    latents = student.encode(obs.ctx, obs.grid)
    pred = student(obs, depth=True)
    kept['pose_cond'] = kept['pose_cond'].flatten(0,1).unflatten(0, (-1, obs.grid[0]*obs.grid[1]))
    m,n = latents.shape[1],obs.feats['geo'].shape[2]

    enc = teacher.vggt.aggregate(obs_imgs:=ts['images'], obs.is_tgt if c['config']['asym'] else None, (-1,))
    got = dict(f_ctx=obs.ctx, f_tgt=obs.feats['geo'], f_sem=obs.feats['sem'], pose_enc=teacher.vggt.camera_head(enc[-1][:,:,0])[-1],
        encoder_out=kept['encoder_out'], latents=latents, rays=obs.cams.rays(obs.grid).flatten(0,1).flatten(1,2), pose_cond=kept['pose_cond'],
        decoder_out=kept['decoder_out'], dec_out=kept['decoder_out'][:,m:].unflatten(0, obs.cams.shape), pred_geo=pred['geo'], pred_sem=pred['sem'],
        depth_hat=pred['depth'][...,None], depth_gt=obs.depth[...,None], extrinsics=obs.cams.w2c.flatten(0,1)[:,None],
        encoder_pos=encoder_pos(m, obs), spatial_mask=torch.arange(c['config']['registers']+m+n)>=c['config']['registers']+m)
    got['predict_latents_all_views'] = student.encode(*teacher.context(Views(obs_imgs)))
    got['predict_latents_first3_views'] = student.encode(*teacher.context(Views(obs_imgs[:,:3])))
    worst = max(check(f'{name} {k}', v, ts[k]) for k,v in got.items() if k in asked and v.is_floating_point())
    for k in ('encoder_pos','spatial_mask'): assert k not in asked or torch.equal(got[k], ts[k]), k
    fov_scale = ts['intrinsics'].abs().max().item()  # pixels: relative
    check(f'{name} intrinsics', obs.cams.K.flatten(0,1)[:,None]/fov_scale, ts['intrinsics']/fov_scale)

    official = {'loss.geo_l1':'geo_l1', 'loss.geo_cos':'geo_cos', 'loss.sem_l1':'sem_l1', 'loss.sem_cos':'sem_cos', 'loss.depth_prob':'depth', 'loss.total':'loss'}
    lost = {k:losses[v] for k,v in official.items()}
    for on in ('all','targets'):
        for smooth in (False,True):
            d = psfm_loss(student, obs, on=on, smooth=smooth)
            for f in student.cfg.channels:
                part = ('smooth_l1' if smooth else 'l1_plain')
                lost[f'alt.{f}_{part}'+('_targets_only' if on=='targets' else '')] = d[f'{f}_l1']
                if on=='targets' and smooth: lost[f'alt.{f}_cos_targets_only'] = d[f'{f}_cos']
    worst_loss = max(check(f'{name} {k}', lost[k].detach(), ts[k], 1e-5) for k in asked if k.startswith(('loss.','alt.')))

    for k,v in c['losses'].items(): check(f'{name} card {k}', ts['loss.'+k.replace('/','_')], torch.tensor(v), 1e-6)
    check(f'{name} card total', ts['loss.total'], torch.tensor(c['total']), 1e-6)

    grads = {official_name(k):p.grad for k,p in student.named_parameters()}
    worst_grad = 0
    for k in (k for k in asked if k.startswith('grad.')):
        g,t = grads[k.removeprefix('grad.')],ts[k]
        rel = ((g-t).norm()/t.norm()).item()
        assert rel<=1e-4, f'{name} {k} differs by {rel:.1e} of its norm'
        worst_grad = max(worst_grad, rel)
    for k,v in c.get('grad_norms', {}).items(): assert abs(grads[k].norm().item()-v)<=1e-4*v+1e-7, f'{name} norm of the gradient of {k}'

    known = set(got)|{'intrinsics','images','view_mask'}|set(lost)|{k for k in asked if k.startswith('grad.')}
    assert asked<=known, f'{name}: nothing here looks at {sorted(asked-known)}'
    print(f'{name}: activations {worst:.1e}, losses {worst_loss:.1e}, gradients {worst_grad:.1e} of their norms')
    record_property('largest differences', (worst, worst_loss, worst_grad))

def encoder_pos(m, obs):
    "Positions as the official encoder is given them: queries -1, patches (y, x) of each context view"
    from spa3r.attention import grid_positions
    patches = grid_positions(*obs.grid).repeat(obs.ctx.shape[1], 1)
    return torch.cat([patches.new_full((m,2), -1), patches]).expand(len(obs.ctx), -1, -1)

def test_hidden_views_leave_no_trace():
    "Other pixels in the hidden views: no bit of latents or of predictions at given cameras changes; the predicted cameras do"
    ts,_ = load('f_spa3r_layernorm_asym')
    student,teacher = recorded_student(),VGGTTeacher(recorded_vggt('layer')[0], recorded_dino())
    imgs,is_tgt = ts['images'],ts['view_mask']
    other = torch.where(is_tgt[:,:,None,None,None], 1-imgs, imgs)
    a,b = (teacher.observe(Views(x), is_tgt) for x in (imgs,other))
    assert torch.equal(a.ctx, b.ctx)
    assert torch.equal(student.encode(a.ctx, a.grid), student.encode(b.ctx, b.grid))
    assert torch.equal(student(a, a.cams)['geo'], student(b, a.cams)['geo'])
    assert not torch.equal(a.cams.w2c, b.cams.w2c) and not torch.equal(a.feats['geo'], b.feats['geo'])
