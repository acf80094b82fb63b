"Names and shapes of the real checkpoints, met on the meta device"
import pytest,torch
from golden_io import card
from spa3r.model.patch_encoder import VGGT,VGGTConfig,dropped_keys

def inventory(name): return {k:tuple(v['shape']) for k,v in card(name)['keys'].items()}
def shapes(net): return {k:tuple(v.shape) for k,v in net.state_dict().items()}

@pytest.fixture(scope='module')
def keys():
    c,inv = card('keys_vggt_1b'),inventory('keys_vggt_1b')
    assert len(inv)==c['n_tensors']
    return inv

def meta(cfg=VGGTConfig()):
    with torch.device('meta'): return VGGT(cfg)

def test_vggt_1b(keys):
    "Ours has exactly the tensors of VGGT-1B but the track head, and `dropped_keys` names exactly that"
    dropped = dropped_keys(VGGTConfig(), keys)
    assert set(dropped)=={k for k in keys if k.startswith('track_head.')} and dropped
    assert shapes(meta())=={k:s for k,s in keys.items() if k not in dropped}

def test_vggt_1b_rms(keys):
    "As the official Spa3R runs it: two biases fewer in each global block"
    cfg = VGGTConfig(global_qk_norm='rms')
    dropped = dropped_keys(cfg, keys)
    biases = {f'aggregator.global_blocks.{i}.attn.{n}_norm.bias' for i in range(cfg.depth) for n in 'qk'}
    assert {k for k in dropped if not k.startswith('track_head.')}==biases and len(biases)==48
    assert shapes(meta(cfg))=={k:s for k,s in keys.items() if k not in dropped}

def test_without_heads(keys):
    "A head that is not built is left out by name, whole"
    cfg = VGGTConfig(heads=('camera','depth'))
    dropped = dropped_keys(cfg, keys)
    assert {k.split('.')[0] for k in dropped}=={'track_head','point_head'}
    assert shapes(meta(cfg))=={k:s for k,s in keys.items() if k not in dropped}

def test_full_checkpoint(keys):
    "The Lightning checkpoint of the official student holds this VGGT under `model.`, with the RMS norms"
    full,cfg = inventory('keys_spa3r_lightning_full'),VGGTConfig(global_qk_norm='rms')
    tops = ('aggregator.','camera_head.','point_head.','depth_head.')
    held = {k.removeprefix('model.'):s for k,s in full.items() if k.removeprefix('model.').startswith(tops)}
    assert shapes(meta(cfg))==held

def test_dinov3():
    "The transformers class at ViT-L/16 size has the recorded tensors"
    from transformers import DINOv3ViTConfig,DINOv3ViTModel
    cfg = DINOv3ViTConfig(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096, num_register_tokens=4, patch_size=16)
    with torch.device('meta'): net = DINOv3ViTModel(cfg)
    inv = inventory('keys_dinov3_vitl16_transformers')
    assert len(inv)==card('keys_dinov3_vitl16_transformers')['n_tensors']
    assert {k:tuple(v.shape) for k,v in net.named_parameters()}=={k:s for k,s in inv.items()}
