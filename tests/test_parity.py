"""Parity with numbers recorded from the official code: activations to 1e-4, losses to 1e-5, gradients to 1e-4 of their norm.

The recordings are read from the folder named by SPA3R_GOLDEN (default tests/golden). Sizes, layers and tensor names come from the cards, so recordings of
other sizes can be put in their place; a missing file or tensor is a failure, and nothing is skipped.
"""
from functools import partial
import pytest,torch
import torch.nn.functional as F
from golden_io import card,load
from spa3r.model.attention import Attention,Block,Rope2d,Transformer,grid_positions
from spa3r.model.cameras import Cameras,inv_se3,patch_rays,project,rigid,scale_intrinsics,transform,unproject
from spa3r.model.latent_bottleneck import LatentBottleneck
from spa3r.data.batches import Views
from spa3r.model.patch_encoder import VGGT,VGGTConfig,normalise
from spa3r.teachers.teachers import DINOv3,VGGTTeacher
from spa3r.model.prope import Prope
from spa3r.model.psfm import Spa3R,Spa3RConfig,official_name,psfm_loss

ATOL = 1e-4  # activations, absolute; pixels relative to the largest
worst = {}  # kind -> largest difference seen, printed at the end

@pytest.fixture(scope='module', autouse=True)
def report():
    yield
    for k,v in worst.items(): print(f'\nlargest difference, {k}: {v:.1e}', end='')

def check(name, got, want, tol=ATOL, kind='activations'):
    "`got` and the recorded `want` agree to `tol`"
    assert got.shape==want.shape, f'{name}: {tuple(got.shape)} for {tuple(want.shape)}'
    diff = (got-want).abs().max().item()
    assert diff<=tol, f'{name} differs by {diff:.1e}'
    worst[kind] = max(worst.get(kind, 0.), diff)

def check_pixels(name, got, want):
    "The same for numbers counted in pixels, relative to the largest"
    s = want.abs().max().clamp(min=1)
    check(name, got/s, want/s)

# a, b, c: PRoPE, 2D RoPE, blocks, both stacks

def weights(ts, prefix):
    "The recorded state dict below `prefix`"
    return {k.removeprefix(prefix):v for k,v in ts.items() if k.startswith(prefix)}

def grid_hw(cfg): return (cfg['patches_y'], cfg['patches_x']), (cfg['image_height'], cfg['image_width'])

def prope_of(ts, cfg, w2c, K, special):
    grid,hw = grid_hw(cfg)
    for k in ([K] if K else []): assert torch.equal(ts[k][...,(0,1,2,2,2),(1,0,0,1,2)], torch.tensor([0.,0,0,0,1]).expand(*ts[k].shape[:-2], 5)), 'zero skew'
    return Prope(ts[w2c], ts[K] if K else None, hw, grid, cfg['head_dim'], n_special=special)

def attention(pos, q, k, v): return pos.o(F.scaled_dot_product_attention(pos.q(q), pos.k(k), pos.v(v)))

def test_prope_attention():
    ts,card = load('a_prope_attention')
    cfg = card['config']
    pos = prope_of(ts, cfg, 'viewmats', 'Ks', cfg['special_tokens'])
    n = ts['spatial_mask'].numel()
    assert torch.equal(ts['spatial_mask'], torch.arange(n)>=cfg['special_tokens'])
    q,k,v = pos.q(ts['q']),pos.k(ts['k']),pos.v(ts['v'])
    for ours,name in ((q,'q_t'), (k,'k_t'), (v,'v_t')): check('prope_attention', ours, ts[name])
    o = F.scaled_dot_product_attention(q, k, v)
    check('prope_attention', o, ts['sdpa_out'])
    check('prope_attention', pos.o(o), ts['out'])

@pytest.mark.parametrize('K,out', [('mc_Ks','mc_out'), (None,'gta_out')])
def test_prope_many_cameras(K, out):
    ts,card = load('a_prope_attention')
    assert ts['mc_viewmats'].shape[1]==card['config']['mc_cameras']
    pos = prope_of(ts, card['config'], 'mc_viewmats', K, 0)
    check('prope_many_cameras', attention(pos, ts['mc_q'], ts['mc_k'], ts['mc_v']), ts[out])

def test_prope_layer():
    ts,card = load('a_prope_layer')
    cfg = card['config']
    attn = Attention(cfg['dim'], cfg['heads'], qk_norm='rms', qkv_bias=cfg['qkv_bias'])
    attn.load_state_dict(weights(ts, 'w.'))
    pos = prope_of(ts, {**cfg, 'head_dim': cfg['dim']//cfg['heads']}, 'viewmats', 'Ks', cfg['special_tokens'])
    assert torch.equal(ts['spatial_mask'], torch.arange(ts['spatial_mask'].numel())>=cfg['special_tokens'])
    check('prope_layer', attn(ts['x'], pos), ts['out'])

def test_rope2d():
    ts,card = load('b_rope2d')
    cfg = card['config']
    rope = Rope2d(ts['pos'], cfg['dim']//cfg['heads'], base=cfg['rope_freq'])
    check('rope2d', rope.q(ts['q']), ts['q_rope'])
    patches = grid_positions(cfg['patches_y'], cfg['patches_x'])+1
    assert torch.equal(ts['pos'][0], torch.cat([patches.new_zeros(cfg['special_tokens'], 2), patches]))

@pytest.mark.parametrize('name,masked', [('attn',False), ('attn',True), ('block',False), ('block',True), ('vggt_block',False)])
def test_rope_blocks(name, masked):
    ts,card = load('b_rope2d')
    cfg = card['config']
    out = f'{name}_out_masked' if masked else f'{name}_out'
    dim,nh = cfg['dim'],cfg['heads']
    layer = 'layer' if name=='vggt_block' else 'rms'
    net = Attention(dim, nh, qk_norm=layer) if name=='attn' else Block(dim, nh, cfg['ffn_ratio'], qk_norm=layer, init_values=1., eps=1e-5)
    net.load_state_dict(weights(ts, f'{name}.'))
    attend = partial(F.scaled_dot_product_attention, attn_mask=ts['attn_mask'] if masked else None)
    check('rope_blocks', net(ts['x'], Rope2d(ts['pos'], dim//nh, base=cfg['rope_freq']), attend), ts[out])

def stack(ts, cfg):
    net = Transformer(cfg['dim'], cfg['depth'], cfg['heads'], cfg['registers'])
    net.load_state_dict(weights(ts, 'w.'))
    return net

def test_encoder():
    ts,card = load('c_encoder')
    cfg = card['config']
    pos = F.pad(ts['pos']+1, (0,0,cfg['registers'],0))
    check('encoder', stack(ts, cfg)(ts['x'], Rope2d(pos, cfg['dim']//cfg['heads'])), ts['out'])

def test_encoder_positions():
    "The bottleneck's own positions are the recorded ones"
    ts,card = load('c_encoder')
    cfg = card['config']
    net = LatentBottleneck(cfg['dim'], cfg['dim'], cfg['depth'], cfg['heads'], cfg['queries'], cfg['registers'])
    net.encoder.load_state_dict(weights(ts, 'w.'))
    pos = net.positions(cfg['context_views'], grid_hw(cfg)[0])
    check('encoder_positions', net.encoder(ts['x'], pos)[:, :cfg['queries']], ts['out'][:, :cfg['queries']])

def test_decoder():
    ts,card = load('c_decoder')
    cfg = card['config']
    special = cfg['registers']+cfg['queries']
    assert torch.equal(ts['spatial_mask'], torch.arange(ts['spatial_mask'].numel())>=special)
    pos = prope_of(ts, {**cfg, 'head_dim': cfg['dim']//cfg['heads']}, 'viewmats', 'Ks', special)
    check('decoder', stack(ts, cfg)(ts['x'], pos), ts['out'])

# d: the patch encoder

def vggt_config(c, state, global_qk_norm):
    "Sizes of the recorded VGGT, from the card and the weights that go with it"
    c,a,p,h,d = c['config'],*(c['config'][k] for k in ('aggregator','patch_embed','camera_head','depth_head'))
    assert (d['activation'],d['conf'])==('exp','expp1')
    assert h['dim_in']==d['dim_in']==2*a['embed_dim']
    assert p['pos_embed_grid']*c['patch_size']==a['img_size'] and p['registers']==state['aggregator.patch_embed.register_tokens'].shape[1]
    heads = tuple(o for o in ('camera','depth','point') if any(k.startswith(f'{o}_head.') for k in state))
    return VGGTConfig(patch=c['patch_size'], dim=a['embed_dim'], depth=a['depth'], nh=a['num_heads'], n_registers=c['aggregator_registers'],
        global_qk_norm=global_qk_norm, embed='dinov2', embed_depth=p['depth'], embed_nh=p['heads'], embed_registers=p['registers'], img_size=a['img_size'], heads=heads,
        camera_depth=h['trunk_depth'], camera_nh=h['heads'], camera_iters=h['iterations'],
        dpt_layers=tuple(d['intermediate_layer_idx']), dpt_dim=d['features'], dpt_channels=tuple(d['out_channels']))

def recorded_vggt(global_qk_norm):
    "The recorded VGGT, and the names left out while loading it"
    state,c = load('d_vggt_weights')
    net = VGGT(vggt_config(c, state, global_qk_norm))
    return net.eval(),net.load(state)

def passes(net, ts, names):
    "Everything that the recording holds, computed by us"
    imgs,is_tgt = ts['images'],ts['view_mask']
    ctx = imgs[~is_tgt].unflatten(0, (len(imgs),-1))
    kept = {int(k.split('_')[-1]) for k in names if '.tokens_' in k}
    layers = tuple(sorted(kept|set(net.cfg.dpt_layers)|{net.cfg.depth-1}))
    res = {'patch_embed': net.aggregator.patch_embed(normalise(imgs.flatten(0,1))).unflatten(0, imgs.shape[:2])}
    for nm,x,m in (('masked',imgs,is_tgt), ('full',imgs,None), ('ctx',ctx,None)):
        toks = net.aggregate(x, m, layers)
        res |= {f'{nm}.tokens_{l}':t for l,t in toks.items()}
        res |= {f'{nm}.pose_enc_{i}':e for i,e in enumerate(net.camera_head(toks[net.cfg.depth-1][:,:,0]))}
        d,conf = net.depth(toks, x.shape[-2:])
        res |= {f'{nm}.depth':d[...,None], f'{nm}.depth_conf':conf}
    return res

@pytest.mark.parametrize('name,norm', [('d_aggregator_layernorm','layer'), ('d_aggregator_official_rms','rms')])
def test_vggt(name, norm):
    ts,c = load(name)
    names = [k for k in c['tensors'] if k not in ('images','view_mask')]
    net,_ = recorded_vggt(norm)
    with torch.no_grad(): res = passes(net, ts, names)
    assert len(names)>10
    for k in names: check(f'{name} {k}', res[k], ts[k])

def test_dropped_names():
    "RMS norms have no bias: exactly the names on the card are left out, none with LayerNorm"
    _,dropped = recorded_vggt('rms')
    note = ' '.join(card('d_vggt_weights')['notes'])
    assert dropped and all(k in note for k in dropped) and len(dropped)==note.count('_norm.bias')
    assert recorded_vggt('layer')[1]==[]

def recorded_dino():
    "The recorded DINOv3"
    from transformers import DINOv3ViTConfig,DINOv3ViTModel
    state,c = load('f_dino_weights')
    c = c['config']['transformers_config']
    net = DINOv3ViTModel(DINOv3ViTConfig(hidden_size=c['hidden'], num_hidden_layers=c['layers'], num_attention_heads=c['heads'],
        intermediate_size=c['inter'], num_register_tokens=c['registers'], patch_size=c['patch'], image_size=c['image']))
    net.load_state_dict(state, strict=True)
    return DINOv3(net, side=c['image'])

@pytest.mark.parametrize('asym', ['asym','sym'])
@pytest.mark.parametrize('nm,norm', [('layernorm','layer'), ('official_rms','rms')])
def test_teacher(nm, norm, asym):
    "The teacher's context, targets, semantics, cameras and depth in the recorded loss forward"
    ts,c = load(f'f_spa3r_{nm}_{asym}')
    assert c['config']['asym']==(asym=='asym')
    obs = VGGTTeacher(recorded_vggt(norm)[0], recorded_dino(), asymmetric=c['config']['asym']).observe(Views(ts['images']), ts['view_mask'])
    got = dict(f_ctx=obs.ctx, f_tgt=obs.feats['geo'], f_sem=obs.feats['sem'], depth_gt=obs.depth[...,None], extrinsics=obs.cams.w2c.flatten(0,1)[:,None],
        intrinsics=obs.cams.K.flatten(0,1)[:,None])
    for k,v in got.items(): (check_pixels if k=='intrinsics' else check)(f'{nm} {asym} {k}', v, ts[k])

# e: geometry

@pytest.fixture(scope='module')
def rec(): return load('e_geometry')

def hw_of(card): return card['config']['H'],card['config']['W']

def test_e_geometry_pose_to_matrices(rec):
    ts,card = rec
    cams = Cameras.from_pose(ts['pose_enc'], hw_of(card))
    check('extrinsics', cams.w2c[...,:3,:], ts['extrinsics'])
    check('intrinsics', cams.K, ts['intrinsics'])

def test_e_geometry_matrices_to_pose(rec):
    ts,card = rec
    w2c = rigid(ts['extrinsics'][...,:3], ts['extrinsics'][...,3])
    check('pose_enc_back', Cameras(w2c, ts['intrinsics'], hw_of(card)).pose(), ts['pose_enc_back'])
    check('there and back', Cameras.from_pose(ts['pose_enc'], hw_of(card)).pose(), ts['pose_enc_back'])

def test_e_geometry_rays(rec):
    ts,card = rec
    h,w = hw_of(card)
    p = card['config']['patch']
    check('intrinsics_patch', scale_intrinsics(ts['intrinsics'], (h,w), (h//p,w//p)), ts['intrinsics_patch'])
    check('rays', patch_rays(ts['intrinsics'], (h,w), p).movedim(-1, -3), ts['rays'])
    check('rays of Cameras', Cameras.from_pose(ts['pose_enc'], (h,w)).rays((h//p,w//p)).movedim(-1, -3), ts['rays'])

def test_e_geometry_inverse(rec):
    ts,_ = rec
    check('c2w', inv_se3(ts['extrinsics4']), ts['c2w'])

def test_e_geometry_points_official_has_no_half_pixel(rec):
    ts,_ = rec
    depth,K,w2c,c2w = ts['depth'].squeeze(-3),ts['depth_intrinsics'],ts['extrinsics4'],ts['c2w']
    K_off = K.clone()
    K_off[...,:2,2] += .5  # centre i+.5 of this camera is pixel i of the official one
    check('points', unproject(depth, K_off, c2w), ts['points'])
    check('vggt_points_b0', unproject(depth, K_off, c2w)[0], ts['vggt_points_b0'])
    ours = unproject(depth, K, c2w)
    uv,z = project(ours, K, w2c)
    uv_off,_ = project(ts['points'], K, w2c)
    check('half a pixel between them', uv-uv_off, torch.full_like(uv, .5))
    check('depth', z, depth)
    shift = (transform(w2c, ours)-transform(w2c, ts['points'])).abs()  # depth/2f to the right and below, nothing along z
    check('shift', shift[...,0], depth/2/K[...,0,0,None,None])
    assert shift[...,:2].amax()>10*ATOL  # and it is no rounding matter

# f: the whole loss forward

def recorded_student():
    "The recorded student, sizes from the card and the shapes of its weights"
    w,c = load('f_spa3r_student_weights')
    c = c['config']
    student = Spa3R(Spa3RConfig(dim=c['spa_dim'], nh=c['spa_heads'], enc_depth=c['enc'], dec_depth=c['dec'], n_latents=c['num_queries'],
        n_registers=c['registers'], geo_channels=2*c['embed_dim'], sem_channels=c['dino']['hidden']))
    student.load_state_dict(w)
    return student

def taps(student):
    "Hooks that keep what the official code names inside the two halves"
    kept = {}
    def keep(name): return lambda m,i,o: kept.__setitem__(name, o)
    def whole(name): return lambda m,i,kw,o: kept.__setitem__(name, m.forward(*i))  # without `keep`: tokens that nobody reads, too
    student.bottleneck.encoder.register_forward_hook(whole('encoder_out'), with_kwargs=True)
    student.field.pose_tokenizer.register_forward_hook(keep('pose_cond'))
    student.field.decoder.register_forward_hook(whole('decoder_out'), with_kwargs=True)
    student.field.decoder.register_forward_hook(keep('rays_out'))
    return kept

@pytest.mark.parametrize('asym', ['asym','sym'])
@pytest.mark.parametrize('nm,norm', [('official_rms','rms'), ('layernorm','layer')])
def test_loss_forward(nm, norm, asym):
    name = f'f_spa3r_{nm}_{asym}'
    ts,c = load(name)
    asked = set(c['tensors'])
    student,teacher = recorded_student(),VGGTTeacher(recorded_vggt(norm)[0], recorded_dino(), asymmetric=c['config']['asym'])
    kept = taps(student)
    obs = teacher.observe(Views(ts['images']), ts['view_mask'])
    losses = psfm_loss(student, obs, on='all', smooth=True)  # the official choices
    losses['loss'].backward()
    latents = student.encode(obs.ctx, obs.grid)
    pred = student(obs, depth=True)
    kept['pose_cond'] = kept['pose_cond'].flatten(0,1).unflatten(0, (-1, obs.grid[0]*obs.grid[1]))
    m,n = latents.shape[1],obs.feats['geo'].shape[2]

    enc = teacher.vggt.aggregate(ts['images'], obs.is_tgt if c['config']['asym'] else None, (-1,))
    got = dict(f_ctx=obs.ctx, f_tgt=obs.feats['geo'], f_sem=obs.feats['sem'], pose_enc=teacher.vggt.camera_head(enc[-1][:,:,0])[-1],
        encoder_out=kept['encoder_out'], latents=latents, rays=obs.cams.rays(obs.grid).flatten(0,1).flatten(1,2), pose_cond=kept['pose_cond'],
        decoder_out=kept['decoder_out'], dec_out=kept['rays_out'].unflatten(0, obs.cams.shape), pred_geo=pred['geo'], pred_sem=pred['sem'],
        depth_hat=pred['depth'][...,None], depth_gt=obs.depth[...,None], extrinsics=obs.cams.w2c.flatten(0,1)[:,None],
        encoder_pos=encoder_pos(m, obs), spatial_mask=torch.arange(c['config']['registers']+m+n)>=c['config']['registers']+m)
    got['predict_latents_all_views'] = student.encode(*teacher.context(Views(ts['images'])))
    got['predict_latents_first3_views'] = student.encode(*teacher.context(Views(ts['images'][:,:3])))
    for k,v in got.items():
        if k in asked and v.is_floating_point(): check(f'{name} {k}', v, ts[k])
    for k in ('encoder_pos','spatial_mask'): assert k not in asked or torch.equal(got[k], ts[k]), k
    check_pixels(f'{name} intrinsics', obs.cams.K.flatten(0,1)[:,None], ts['intrinsics'])

    official = {'loss.geo_l1':'geo_l1', 'loss.geo_cos':'geo_cos', 'loss.sem_l1':'sem_l1', 'loss.sem_cos':'sem_cos', 'loss.depth_prob':'depth', 'loss.total':'loss'}
    lost = {k:losses[v] for k,v in official.items()}
    for on in ('all','targets'):
        for smooth in (False,True):
            d = psfm_loss(student, obs, on=on, smooth=smooth)
            for f in student.cfg.channels:
                part = ('smooth_l1' if smooth else 'l1_plain')
                lost[f'alt.{f}_{part}'+('_targets_only' if on=='targets' else '')] = d[f'{f}_l1']
                if on=='targets' and smooth: lost[f'alt.{f}_cos_targets_only'] = d[f'{f}_cos']
    for k in (k for k in asked if k.startswith(('loss.','alt.'))): check(f'{name} {k}', lost[k].detach(), ts[k], 1e-5, 'losses')

    for k,v in c['losses'].items(): check(f'{name} card {k}', ts['loss.'+k.replace('/','_')], torch.tensor(v), 1e-6)
    check(f'{name} card total', ts['loss.total'], torch.tensor(c['total']), 1e-6)

    grads = {official_name(k):p.grad for k,p in student.named_parameters()}
    for k in (k for k in asked if k.startswith('grad.')):
        g,t = grads[k.removeprefix('grad.')],ts[k]
        check(f'{name} {k}', g/t.norm(), t/t.norm(), 1e-4, 'gradients, of their norm')
        assert (g-t).norm()<=1e-4*t.norm(), f'{name} {k}'
    for k,v in c.get('grad_norms', {}).items(): assert abs(grads[k].norm().item()-v)<=1e-4*v+1e-7, f'{name} norm of the gradient of {k}'

    known = set(got)|{'intrinsics','images','view_mask'}|set(lost)|{k for k in asked if k.startswith('grad.')}
    assert asked<=known, f'{name}: nothing here looks at {sorted(asked-known)}'

def encoder_pos(m, obs):
    "Positions as the official encoder is given them: queries -1, patches (y, x) of each context view"
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
