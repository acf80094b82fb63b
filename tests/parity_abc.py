"Parity of the parts with recordings of the official code: PRoPE, 2D RoPE, blocks, both stacks"
import pytest,torch
import torch.nn.functional as F
from functools import partial
from golden_io import load
from spa3r.attention import Attention,Block,Transformer,Rope2d,grid_positions
from spa3r.prope import Prope

TOL = 1e-4  # activations, absolute

def close(a, b, tol=TOL):
    assert a.shape==b.shape, f'{tuple(a.shape)} against {tuple(b.shape)}'
    diff = (a-b).abs().max().item()
    assert diff<=tol, f'differs by {diff:.2e}'
    return diff

def weights(ts, prefix):
    "The recorded state dict below `prefix`"
    return {k.removeprefix(prefix):v for k,v in ts.items() if k.startswith(prefix)}

def grid_hw(cfg): return (cfg['patches_y'], cfg['patches_x']), (cfg['image_height'], cfg['image_width'])

def prope_of(ts, cfg, w2c, K, special):
    grid,hw = grid_hw(cfg)
    return Prope(ts[w2c], ts[K] if K else None, hw, grid, cfg['head_dim'], n_special=special)

def attention(pos, q, k, v): return pos.o(F.scaled_dot_product_attention(pos.q(q), pos.k(k), pos.v(v)))

def test_prope_attention():
    ts,card = load('a_prope_attention')
    cfg = card['config']
    pos = prope_of(ts, cfg, 'viewmats', 'Ks', cfg['special_tokens'])
    n = ts['spatial_mask'].numel()
    assert torch.equal(ts['spatial_mask'], torch.arange(n)>=cfg['special_tokens'])
    q,k,v = pos.q(ts['q']),pos.k(ts['k']),pos.v(ts['v'])
    for ours,name in ((q,'q_t'), (k,'k_t'), (v,'v_t')): close(ours, ts[name])
    o = F.scaled_dot_product_attention(q, k, v)
    close(o, ts['sdpa_out'])
    close(pos.o(o), ts['out'])

@pytest.mark.parametrize('K,out', [('mc_Ks','mc_out'), (None,'gta_out')])
def test_prope_many_cameras(K, out):
    ts,card = load('a_prope_attention')
    assert ts['mc_viewmats'].shape[1]==card['config']['mc_cameras']
    pos = prope_of(ts, card['config'], 'mc_viewmats', K, 0)
    close(attention(pos, ts['mc_q'], ts['mc_k'], ts['mc_v']), ts[out])

def test_prope_layer():
    ts,card = load('a_prope_layer')
    cfg = card['config']
    attn = Attention(cfg['dim'], cfg['heads'], qk_norm='rms', qkv_bias=cfg['qkv_bias'])
    attn.load_state_dict(weights(ts, 'w.'))
    pos = prope_of(ts, {**cfg, 'head_dim': cfg['dim']//cfg['heads']}, 'viewmats', 'Ks', cfg['special_tokens'])
    close(attn(ts['x'], pos), ts['out'])

def test_rope2d():
    ts,card = load('b_rope2d')
    cfg = card['config']
    rope = Rope2d(ts['pos'], cfg['dim']//cfg['heads'], base=cfg['rope_freq'])
    close(rope.q(ts['q']), ts['q_rope'])
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
    close(net(ts['x'], Rope2d(ts['pos'], dim//nh, base=cfg['rope_freq']), attend), ts[out])

def stack(ts, cfg):
    net = Transformer(cfg['dim'], cfg['depth'], cfg['heads'], cfg['registers'])
    net.load_state_dict(weights(ts, 'w.'))
    return net

def test_encoder():
    ts,card = load('c_encoder')
    cfg = card['config']
    pos = F.pad(ts['pos']+1, (0,0,cfg['registers'],0))
    close(stack(ts, cfg)(ts['x'], Rope2d(pos, cfg['dim']//cfg['heads'])), ts['out'])

def test_encoder_positions():
    "The bottleneck's own positions are the recorded ones"
    from spa3r.latent_bottleneck import LatentBottleneck
    ts,card = load('c_encoder')
    cfg = card['config']
    net = LatentBottleneck(cfg['dim'], cfg['dim'], cfg['depth'], cfg['heads'], cfg['queries'], cfg['registers'])
    net.encoder.load_state_dict(weights(ts, 'w.'))
    pos = net.positions(cfg['context_views'], grid_hw(cfg)[0])
    close(net.encoder(ts['x'], pos)[:, :cfg['queries']], ts['out'][:, :cfg['queries']])

def test_decoder():
    ts,card = load('c_decoder')
    cfg = card['config']
    special = cfg['registers']+cfg['queries']
    assert torch.equal(ts['spatial_mask'], torch.arange(ts['spatial_mask'].numel())>=special)
    pos = prope_of(ts, {**cfg, 'head_dim': cfg['dim']//cfg['heads']}, 'viewmats', 'Ks', special)
    close(stack(ts, cfg)(ts['x'], pos), ts['out'])
