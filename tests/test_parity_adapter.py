"Parity of the adapter with numbers recorded from the official code: file g, beside the d and f it was recorded with (test_parity tells where from)"
import torch
from golden_io import load
from spa3r.model.adapter import CrossFusion,fuse
from spa3r.teachers.teachers import VGGTTeacher
from spa3r.data.batches import Views
from test_parity import ATOL,check,recorded_student,recorded_vggt,weights

def recorded_fusion(ts, c):
    "The recorded adapter, strictly loaded"
    c = c['config']
    net = CrossFusion(c['hidden_size'], c['heads'], c['latent_dim'])
    net.load_state_dict(weights(ts, 'w.'))
    return net

def test_adapter():
    "Every intermediate of the fusion, for one scene"
    ts,c = load('g_vlm_adapter')
    net,x,z = recorded_fusion(ts, c),ts['image_embeds'],ts['latents'][0]
    with torch.no_grad():
        got = dict(projected=net.geometry_projector(z)[None])
        got['cross'] = net.geom_cross_attention(x, got['projected'][0])[None]
        got['ln'] = net.ln(got['cross'][0])
        got |= dict(adaptor=net.geometry_adaptor(got['ln']), gate=net.geometry_gate(got['ln']), fused=net(x, z))
    for k,v in got.items(): check(f'adapter {k}', v, ts[k])
    read = {*got,'image_embeds','latents',*(k for k in ts if k.startswith('w.'))}
    assert set(c['tensors'])-read=={'images','image_embeds_b1','latents_b1','fused_batch2_official','fused_batch2_per_sample'}, 'the next tests read these'

def test_adapter_latents():
    "The latents of both scenes, from the recorded images"
    ts,c = load('g_vlm_adapter')
    latents = recorded_student().encode(*VGGTTeacher(recorded_vggt('rms')[0]).context(Views(ts['images']))).detach()
    for i,k in enumerate(('latents','latents_b1')):
        check(k, latents[i:i+1], ts[k])
        assert ts[k].shape[1:]==(c['config']['num_queries'],c['config']['latent_dim'])

def test_adapter_batch():
    "Each scene hears its own latents; the official batch lets every token hear those of all scenes"
    ts,c = load('g_vlm_adapter')
    net,tokens,latents = recorded_fusion(ts, c),[ts['image_embeds'],ts['image_embeds_b1']],torch.cat([ts['latents'],ts['latents_b1']])
    assert [len(o) for o in tokens]==c['config']['image_tokens']
    with torch.no_grad():
        ours = torch.cat(fuse(net, tokens, latents, [1,1]))
        leaky = net(torch.cat(tokens), latents.flatten(0,1))
    check('per scene', ours, ts['fused_batch2_per_sample'])
    check('all to all', leaky, ts['fused_batch2_official'])
    check('leak', (ts['fused_batch2_official']-ours).abs().max(), torch.tensor(c['checks']['batch_leak_maxabs']))
    assert c['checks']['batch_leak_maxabs']>100*ATOL  # and it is no rounding matter
    with torch.no_grad(): other = fuse(net, tokens, torch.cat([latents[:1],-latents[1:]]), [1,1])
    assert torch.equal(other[0], ours[:len(other[0])]) and not torch.equal(other[1], ours[len(other[0]):])
