"A VGGT of the least size, and views for it"
import torch
from spa3r.model.patch_encoder import VGGTConfig

def tiny(**kw): return VGGTConfig.nano(**{**dict(patch=14, dim=32, depth=4, dpt_dim=8, dpt_channels=(4,8,8,8)), **kw})

def scene(b=2, v=5, h=56, w=84, seed=0):
    "Views, and masks that hide as many views at other positions in each sample"
    g = torch.Generator().manual_seed(seed)
    is_tgt = torch.zeros(b, v, dtype=torch.bool)
    for m in is_tgt: m[1+torch.randperm(v-1, generator=g)[:v//2]] = True
    return torch.rand(b, v, 3, h, w, generator=g),is_tgt
