"The patch encoder against recordings of the official code: both norms; masked, full and context-only passes; heads"
import pytest,torch
from einops import rearrange
from golden_io import card,load
from spa3r.patch_encoder import VGGT,VGGTConfig,normalise

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
