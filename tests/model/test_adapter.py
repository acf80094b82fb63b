"Three ways of bringing latents to visual tokens: names, identity at the start, no scene hears of another"
import pytest,torch
from golden_io import card
from spa3r.model.adapter import FUSIONS,CrossFusion,NoFusion,ZeroLinear,fuse,make_fusion

D,NH,C,M = 32,4,24,6

def noisy(kind, seed=0):
    "A fusion none of whose weights is zero"
    torch.manual_seed(seed)
    net = make_fusion(kind, D, NH, C)
    for p in net.parameters(): torch.nn.init.normal_(p, std=.3)
    return net

def scenes(sizes, seed=1):
    "Tokens of the images of some scenes, and their latents"
    torch.manual_seed(seed)
    return [torch.randn(n, D) for s in sizes for n in s],torch.randn(len(sizes), M, C),[len(s) for s in sizes]

def test_official_inventory():
    "At the size of Qwen2.5-VL-3B: names, shapes and the sum of the values"
    c = card('keys_spa3_vlm_adapter')
    with torch.device('meta'): net = CrossFusion(2048, 16, 768)
    assert {k:list(v.shape) for k,v in net.state_dict().items()}=={k:v['shape'] for k,v in c['keys'].items()}
    assert len(net.state_dict())==c['n_tensors'] and sum(v.numel() for v in net.parameters())==c['n_values']

def test_identity_at_the_start():
    torch.manual_seed(0)
    net,x,z = CrossFusion(D, NH, C),torch.randn(9, D),torch.randn(M, C)
    assert torch.equal(net(x, z), x)
    for p in net.parameters(): torch.nn.init.normal_(p)
    assert not torch.equal(net(x, z), x)
    for m in net.modules():
        if hasattr(m, 'reset_parameters'): m.reset_parameters()  # as anybody would who starts anew
    assert torch.equal(net(x, z), x) and sum(isinstance(m, ZeroLinear) for m in net.modules())==1

def test_it_can_leave_the_start():
    "A gradient reaches the zeroed layer at once, and everything else after one step"
    torch.manual_seed(0)
    net,x,z = CrossFusion(D, NH, C),torch.randn(9, D),torch.randn(M, C)
    for step in range(2):
        net.zero_grad()
        (net(x, z)-torch.ones(D)).square().mean().backward()
        moved = {k for k,p in net.named_parameters() if p.grad.abs().max()>0}
        assert moved=={'geometry_adaptor.2.weight','geometry_adaptor.2.bias'} if step==0 else moved==set(dict(net.named_parameters())), moved
        with torch.no_grad():
            for p in net.parameters(): p -= .1*p.grad

def test_tokens_do_not_hear_each_other():
    net,(x,),z = noisy('cross'),*scenes([[7]])[:2]
    y = x.clone()
    y[3] = 0
    a,b = net(x, z[0]),net(y, z[0])
    keep = torch.arange(7)!=3
    torch.testing.assert_close(a[keep], b[keep])
    assert (a[3]-b[3]).abs().max()>.1

def test_order_of_latents_does_not_matter():
    net,(x,),z = noisy('cross'),*scenes([[7]])[:2]
    torch.testing.assert_close(net(x, z[0]), net(x, z[0].flip(0)))

@pytest.mark.parametrize('kind', FUSIONS)
@pytest.mark.parametrize('sizes', [[[4]], [[4,6],[3]], [[5],[],[2,2,7]], [[3],[8,1]]])
def test_no_scene_hears_of_another(kind, sizes):
    "In a batch as alone; another scene's latents change nothing here, one's own do"
    net = noisy(kind)
    tokens,z,per = scenes(sizes)
    got,i,j = fuse(net, tokens, z, per),0,0
    other = fuse(net, tokens, torch.cat([z[:-1],-z[-1:]]), per)
    for s,k in enumerate(per):
        alone = fuse(net, tokens[i:i+k], z[s:s+1], [k])
        n = len(alone)
        assert n==k+(kind=='append')*(k>0)
        for a,b,c in zip(got[j:j+n], alone, other[j:j+n]):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-6)
            if s<len(per)-1: assert torch.equal(a, c)
        if s==len(per)-1 and kind!='none': assert not torch.equal(torch.cat(got[j:j+n]), torch.cat(other[j:j+n]))
        i,j = i+k,j+n
    assert j==len(got)

def test_append_puts_latents_behind_the_images():
    net = noisy('append')
    tokens,z,per = scenes([[4,6],[3]])
    got = fuse(net, tokens, z, per)
    assert [len(o) for o in got]==[4,6,M,3,M]
    for a,b in zip((got[0],got[1],got[3]), tokens): assert torch.equal(a, b)
    torch.testing.assert_close(got[4], net.geometry_projector(z[1]))

def test_none_changes_nothing():
    tokens,z,per = scenes([[4,6],[3]])
    assert all(torch.equal(a, b) for a,b in zip(fuse(NoFusion(), tokens, z, per), tokens)) and not list(NoFusion().parameters())

def test_any_number_of_latents():
    "What answers may be anything: other features, another number for each scene"
    net = noisy('cross')
    tokens,_,per = scenes([[4],[3]])
    got = fuse(net, tokens, [torch.randn(50, C),torch.randn(2, C)], per)
    assert [o.shape for o in got]==[(4,D),(3,D)]

def test_low_precision():
    "bfloat16 weights, float32 latents; and float32 weights under autocast"
    tokens,z,per = scenes([[4],[3]])
    want = torch.cat(fuse(noisy('cross'), tokens, z, per))
    half = fuse(noisy('cross').bfloat16(), [o.bfloat16() for o in tokens], z, per)
    with torch.autocast('cpu', torch.bfloat16): auto = fuse(noisy('cross'), tokens, z, per)
    assert half[0].dtype==torch.bfloat16
    for got in (half,auto): assert (torch.cat(got).float()-want).norm()<.02*want.norm()

@pytest.mark.parametrize('call,said', [
    (lambda t,z,p: fuse(NoFusion(), t, z[:1], p), '1 scenes, but images of 2'), (lambda t,z,p: fuse(NoFusion(), t, z, [2,2]), r'3 images, but the scenes have \[2, 2\], 4'),
    (lambda t,z,p: make_fusion('add', D, NH, C), "no fusion 'add'"), (lambda t,z,p: CrossFusion(D, 5, C), '5 heads')])
def test_mistakes_are_named(call, said):
    with pytest.raises(ValueError, match=said): call(*scenes([[4,6],[3]]))
