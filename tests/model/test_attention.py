"Laws of attention, blocks, registers and 2D rotary positions"
import math,pytest,torch
import torch.nn.functional as F
from functools import partial
from torch import nn
from spa3r.model.attention import (Attention,Block,LayerScale,MLP,RMSNorm,Rope2d,Transformer,grid_positions,quarter_turn,turn)

def rand(*shape, dtype=torch.float32, seed=0): return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)
def near(a, b, tol): assert (a-b).abs().max()<=tol, (a-b).abs().max()

@pytest.mark.parametrize('b,n,dim,nh', [(1,1,8,1), (2,7,16,2), (3,5,24,3)])
@pytest.mark.parametrize('dtype', [torch.float32, torch.float64])
def test_attention_is_a_loop_over_heads(b, n, dim, nh, dtype):
    net,x = Attention(dim, nh).to(dtype),rand(b, n, dim, dtype=dtype)
    q,k,v = net.qkv(x).chunk(3, dim=-1)
    e,outs = dim//nh,[]
    for h in range(nh):
        s = slice(h*e, (h+1)*e)
        outs.append((q[...,s]@k[...,s].mT/math.sqrt(e)).softmax(-1)@v[...,s])
    near(net(x), net.proj(torch.cat(outs, -1)), 1e-5)

@pytest.mark.parametrize('qk_norm', [None, 'rms', 'layer'])
def test_qk_norm_names_and_meaning(qk_norm):
    net = Attention(16, 2, qk_norm)
    keys = {k for k in net.state_dict() if 'norm' in k}
    assert keys=={None: set(), 'rms': {'q_norm.weight','k_norm.weight'},
                  'layer': {'q_norm.weight','k_norm.weight','q_norm.bias','k_norm.bias'}}[qk_norm]
    x = rand(1, 5, 16)
    out = net(x)
    with torch.no_grad():
        net.qkv.weight[:16] *= 3
        net.qkv.bias[:16] *= 3
    same = torch.allclose(net(x), out, atol=1e-4)
    assert same==(qk_norm is not None)  # the length of the queries matters only without the norm

def test_rms_norm_is_torchs_and_keeps_dtype():
    ours,theirs = RMSNorm(8),nn.RMSNorm(8)
    with torch.no_grad(): ours.weight.copy_(rand(8)), theirs.weight.copy_(ours.weight)
    x = rand(3, 8)
    assert torch.equal(ours(x), theirs(x))
    assert ours(x.bfloat16()).dtype==torch.bfloat16

@pytest.mark.parametrize('dim,nh,qk_norm,says', [(10,3,None,'3 heads'), (8,2,'batch',"'batch'")])
def test_bad_attention(dim, nh, qk_norm, says):
    with pytest.raises(ValueError, match=says): Attention(dim, nh, qk_norm)

def test_no_bias(): assert 'qkv.bias' not in Attention(8, 2, qkv_bias=False).state_dict()

def test_mask_hides_bit_for_bit():
    net,x = Block(16, 2, qk_norm='rms'),rand(2, 6, 16)
    mask = torch.ones(6, 6, dtype=torch.bool)
    mask[:4,4:] = False
    attend = partial(F.scaled_dot_product_attention, attn_mask=mask)
    y = x.clone()
    y[:,4:] += 1
    assert torch.equal(net(x, attend=attend)[:,:4], net(y, attend=attend)[:,:4])
    assert not torch.equal(net(x)[:,:4], net(y)[:,:4])

def test_pos_meets_q_k_v_and_output():
    "Every hook is called once, on (b, nh, n, e), after the norms"
    seen = []
    class Pos:
        def __getattr__(self, name):
            def f(t):
                seen.append((name, tuple(t.shape), t.pow(2).mean(-1)))
                return t*{'q':2., 'k':.5, 'v':3., 'o':1/3}[name]
            return f
    net,x = Attention(16, 2, 'rms'),rand(2, 5, 16)
    near(net(x, Pos()), net(x), 1e-5)
    assert [(n,s) for n,s,_ in seen]==[(n,(2,2,5,8)) for n in 'qkvo']
    for name,_,ms in seen[:2]: near(ms, torch.ones_like(ms), 1e-3)

def test_block_names_and_identity():
    plain,scaled = Block(8, 2),Block(8, 2, init_values=0.)
    extra = set(scaled.state_dict())-set(plain.state_dict())
    assert extra=={'ls1.gamma','ls2.gamma'}
    x = rand(2, 3, 8)
    assert torch.equal(scaled(x), x) and not torch.equal(plain(x), x)
    assert plain.norm1.eps==plain.norm2.eps==1e-6 and Block(8, 2, eps=1e-5).norm1.eps==1e-5

def test_mlp_and_scale():
    net,x = MLP(4, 8, 3),rand(5, 4)
    h = net.fc1(x)
    near(net(x), net.fc2(h*(1+torch.erf(h/math.sqrt(2)))/2), 1e-6)
    assert MLP(4, 8)(x).shape==x.shape
    near(LayerScale(4, .1)(x), x*.1, 1e-7)

@pytest.mark.parametrize('r', [0, 1, 4])
def test_registers_come_and_go(r):
    net,x = Transformer(16, 2, 2, n_registers=r),rand(2, 5, 16)
    lens = []
    def spy(q, k, v):
        lens.append(k.shape[2])
        return F.scaled_dot_product_attention(q, k, v)
    y = net(x, attend=spy)
    assert y.shape==x.shape and lens==[5+r]*2
    near(y.mean(-1), torch.zeros(2, 5), 1e-5)  # the last norm, at its first weights
    if r:
        with torch.no_grad(): net.register_tokens += rand(1, r, 16)
        assert (net(x)-y).abs().max()>1e-4  # tokens do look at registers

@pytest.mark.parametrize('depth', [0, 1, 3])
@pytest.mark.parametrize('keep', [slice(0, 2), slice(3, 5), slice(4, None)])
def test_only_tokens_that_are_asked_for_pass_the_last_mlp(depth, keep):
    net,x,thought = Transformer(16, depth, 2, n_registers=2),rand(2, 6, 16),[]
    for b in net.blocks: b.mlp.register_forward_pre_hook(lambda m, args: thought.append(args[0].shape[1]))
    h = torch.cat([net.register_tokens.expand(2, -1, -1), x], 1)
    for b in net.blocks: h = b(h)
    thought.clear()
    y = net(x, keep=keep)
    near(y, net.norm(h)[:,keep], 1e-6)
    assert thought==([8]*(depth-1)+[y.shape[1]] if depth else [])

def test_a_transformer_sees_a_set():
    net,x,perm = Transformer(16, 2, 2),rand(2, 6, 16),torch.tensor([3,1,5,0,4,2])
    near(net(x[:,perm]), net(x)[:,perm], 1e-5)

def test_quarter_turn():
    for f in (1, 3):
        J = quarter_turn(f)
        a,b = rand(f),rand(f, seed=1)
        assert torch.equal(torch.cat([a,b])@J, torch.cat([-b,a])) and torch.equal(J@J, -torch.eye(2*f))

def complex_rope(x, pos, base=100.):
    "Independent: pairs as complex numbers, turned by exp(i angle)"
    f = x.shape[-1]//4
    out = []
    for half,p in zip(x.chunk(2, -1), pos.unbind(-1)):
        a,b = half.chunk(2, -1)
        angle = p[:,None,:,None].double()*base**(-torch.arange(f).double()/f)
        z = torch.complex(a.double(), b.double())*torch.polar(torch.ones_like(angle), angle)
        out += [z.real,z.imag]
    return torch.cat(out, -1)

@pytest.mark.parametrize('e,base', [(4,100.), (16,100.), (24,10000.)])
def test_rope_against_complex_numbers(e, base):
    pos = torch.randint(0, 40, (2, 9, 2), generator=torch.Generator().manual_seed(0))
    x = rand(2, 3, 9, e)
    near(Rope2d(pos, e, base).q(x), complex_rope(x, pos, base), 1e-4)

@pytest.mark.parametrize('shift', [(1,0), (0,1), (17,5), (300,200)])
def test_rope_depends_on_differences_only(shift):
    pos = torch.randint(0, 30, (2, 11, 2), generator=torch.Generator().manual_seed(1))
    q,k = rand(2, 3, 11, 16),rand(2, 3, 11, 16, seed=1)
    def scores(p): return (lambda r: r.q(q)@r.k(k).mT)(Rope2d(p, 16))
    near(scores(pos), scores(pos+torch.tensor(shift)), 1e-3)
    assert (scores(pos)-scores(pos.flip(-1))).abs().max()>.1
    assert (scores(pos)-scores(2*pos)).abs().max()>.1

def test_rope_keeps_length_value_and_origin():
    x,pos = rand(1, 2, 6, 8),grid_positions(2, 3)[None]
    rope = Rope2d(pos, 8)
    near(rope.q(x).norm(dim=-1), x.norm(dim=-1), 1e-5)
    assert torch.equal(rope.q(x)[:,:,0], x[:,:,0]) and rope.v(x) is x and rope.o(x) is x
    assert torch.equal(rope.k(x), rope.q(x))

@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float16])
def test_rope_in_half_precision_is_float32_rounded(dtype):
    pos,x = grid_positions(20, 30)[None]+1,rand(1, 2, 600, 16).to(dtype)
    rope = Rope2d(pos, 16)
    y = rope.q(x)
    assert y.dtype==dtype and torch.equal(y, rope.q(x.float()).to(dtype))
    with torch.autocast('cpu', torch.bfloat16): z = rope.q(x.float())
    assert torch.equal(z, rope.q(x.float()))  # autocast does not reach the angles

def test_turn_blends():
    x,M = rand(2, 5, 4),rand(4, 4, seed=1)
    c,s = rand(5, 4, seed=2),rand(5, 4, seed=3)
    near(turn(x, M, c, s), x*c + (x@M)*s, 1e-6)

def test_grid_positions_are_row_major():
    p = grid_positions(3, 5)
    assert p.shape==(15,2) and all(tuple(p[y*5+x].tolist())==(y,x) for y in range(3) for x in range(5))

def test_bad_head():
    with pytest.raises(ValueError, match='divide by 4'): Rope2d(grid_positions(2, 2)[None], 6)

@pytest.mark.parametrize('mode', ['bf16', 'autocast'])
def test_low_precision_stack(mode):
    torch.manual_seed(0)
    net,x = Transformer(64, 2, 2),rand(2, 12, 64)
    pos = Rope2d(torch.cat([torch.zeros(4, 2, dtype=torch.long), grid_positions(3, 4)+1])[None], 32)
    ref = net(x, pos)
    if mode=='bf16': out = net.bfloat16()(x.bfloat16(), pos)
    else:
        with torch.autocast('cpu', torch.bfloat16): out = net(x, pos)
    assert (out.float()-ref).abs().mean()<.03
    out.float().sum().backward()
    assert all(p.grad is not None for p in net.parameters())
