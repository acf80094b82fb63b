"Questions that share the prefix of their scene: the tree is the dense mask"
import pytest,torch
from spa3r.language.chat import behind,sharing,through
from spa3r.language.processor import make_tokenizer
from spa3r.language.vlm import Spa3Qwen2_5VL,nano_config

@pytest.fixture(scope='module')
def lm():
    torch.manual_seed(0)
    return Spa3Qwen2_5VL(nano_config(make_tokenizer(['a b'], 300), fusion='none')).model.language_model

def dense(lm, scene, asked):
    "A row for each scene, all its questions behind it, under a mask that says what sees what"
    (b,s,n,d),p = asked.shape,scene.shape[1]
    seg,at = torch.cat([torch.zeros(p), 1+torch.arange(s).repeat_interleave(n)]),torch.arange(p+s*n)
    sees = ((seg==0)|(seg==seg[:,None]))&(at<=at[:,None])
    place = torch.cat([torch.arange(p), p+torch.arange(n).repeat(s)]).expand(3, b, -1)
    out = lm(inputs_embeds=torch.cat([scene, asked.flatten(1, 2)], 1), position_ids=place, attention_mask=sees.expand(b, 1, -1, -1)).last_hidden_state
    return out[:,p:].unflatten(1, (s, n))

def tree(lm, scene, asked):
    (b,s,n,d),place = asked.shape,torch.arange(scene.shape[1]).expand(3, 1, -1)
    with sharing(lm):
        through(lm, scene, place, keep=(kept := {}))
        return lm.norm(through(lm, asked.flatten(0, 1), behind(place, n), prefix=kept)).unflatten(0, (b, s))

@pytest.mark.parametrize('b,s,p,n', [(1,1,1,1), (2,3,5,4), (3,2,9,1)])
def test_values_and_gradients_are_those_of_the_dense_mask(lm, b, s, p, n):
    g = torch.Generator().manual_seed(b)
    scene,asked = torch.randn(b, p, 192, generator=g, requires_grad=True),torch.randn(b, s, n, 192, generator=g, requires_grad=True)
    weigh,grads = torch.randn(b, s, n, 192, generator=g),[]
    for way in (dense, tree):
        y = way(lm, scene, asked)
        grads.append((y, *torch.autograd.grad((y*weigh).sum(), [scene, asked, lm.layers[0].self_attn.k_proj.weight])))
    for want,have in zip(*grads): torch.testing.assert_close(have, want, rtol=1e-3, atol=1e-4)

def test_what_fills_up_a_question_changes_nothing_before_it(lm):
    scene,asked = torch.randn(2, 5, 192),torch.randn(2, 3, 4, 192)
    longer = torch.cat([asked, torch.randn(2, 3, 2, 192)], 2)
    torch.testing.assert_close(tree(lm, scene, longer)[:,:,:4], tree(lm, scene, asked), rtol=1e-4, atol=1e-5)

def test_the_model_is_the_plain_one_afterwards_also_after_an_accident(lm):
    old = lm.config._attn_implementation
    with pytest.raises(KeyError), sharing(lm): through(lm, torch.randn(1, 2, 192), torch.arange(2).expand(3, 1, 2), prefix={})
    assert lm.config._attn_implementation==old!='prefix'
