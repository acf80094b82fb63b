"The patch encoder against recordings of the official code: both norms; masked, full and context-only passes; heads"
import pytest,torch
from einops import rearrange
from golden_io import card,load
from spa3r.patch_encoder import DINOv3,VGGT,VGGTConfig,VGGTTeacher,Views,normalise

ATOL = 1e-4

def vggt_config(c, state, global_qk_norm):
    "Sizes of the recorded VGGT, from the card and the weights that go with it"
    c,a,p,h,d = c['config'],*(c['config'][k] for k in ('aggregator','patch_embed','camera_head','depth_head'))
    assert (d['activation'],d['conf'])==('exp','expp1')
    assert h['dim_in']==d['dim_in']==2*a['embed_dim']
    assert p['pos_embed_grid']*c['patch_size']==a['img_size'] and p['registers']==state['aggregator.patch_embed.register_tokens'].shape[1]
    heads = tuple(o for o in ('camera','depth','point') if any(k.startswith(f'{o}_head.') for k in state))
    return VGGTConfig(patch=c['patch_size'], dim=a['embed_dim'], depth=a['depth'], nh=a['num_heads'], n_registers=c['aggregator_registers'],
        global_qk_norm=global_qk_norm, embed='dinov2', embed_depth=p['depth'], embed_nh=p['heads'], img_size=a['img_size'], heads=heads,
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
def test_vggt(name, norm, record_property):
    ts,c = load(name)
    names = [k for k in c['tensors'] if k not in ('images','view_mask')]
    net,_ = recorded_vggt(norm)
    with torch.no_grad(): res = passes(net, ts, names)
    assert len(names)>10
    worst = 0
    for k in names:
        assert res[k].shape==ts[k].shape, f'{name} {k}: {tuple(res[k].shape)} for {tuple(ts[k].shape)}'
        diff = (res[k]-ts[k]).abs().max().item()
        assert diff<=ATOL, f'{name} {k} differs by {diff:.1e}'
        worst = max(worst, diff)
    print(f'{name}: {len(names)} tensors, largest difference {worst:.1e}')
    record_property('largest difference', worst)

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
    for k,v in got.items():
        assert v.shape==ts[k].shape, f'{k}: {tuple(v.shape)} for {tuple(ts[k].shape)}'
        diff = (v-ts[k]).abs().max().item()
        assert diff<=ATOL*(1+(ts[k].abs().max().item() if k=='intrinsics' else 0)), f'{nm} {asym} {k} differs by {diff:.1e}'
        print(f'{nm} {asym} {k} {diff:.1e}')
