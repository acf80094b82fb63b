"Qwens of random weights, a tokenizer of bytes, and a spatial encoder to go with them: small enough for tests"
import torch
from spa3r.model.patch_encoder import VGGT,VGGTConfig
from spa3r.model.psfm import Spa3R,Spa3RConfig
from spa3r.teachers.teachers import VGGTTeacher
from spa3r.language.processor import SPECIAL,make_tokenizer
from spa3r.language.vlm import SpatialEncoder

def tokenizer(): return make_tokenizer(['How many chairs are there in this room?'], 256+20+len(SPECIAL))

def ids(tok): return {f'{k}_token_id':tok.convert_tokens_to_ids(f'<|{v}|>') for k,v in dict(image='image_pad', video='video_pad', vision_start='vision_start', vision_end='vision_end').items()}

def sizes(kind, tok):
    "Configuration of a tiny Qwen"
    text = dict(vocab_size=len(tok), hidden_size=64, intermediate_size=96, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None,
                eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[2,3,3]))
    vision = dict(depth=3, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64, patch_size=14, spatial_merge_size=2)
    if kind=='qwen2_5_vl': vision |= dict(window_size=56, fullatt_block_indexes=[1])
    else:
        vision |= dict(num_position_embeddings=64, deepstack_visual_indexes=[0,1])
        text['head_dim'] = 16
    return dict(text_config=text, vision_config=vision, **ids(tok))

def strong(model, by=4.):
    "Weights so large that answers depend on what is seen and asked"
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim>1: p.mul_(by)
    return model.eval()

def encoder(dim=32, m=6):
    "A spatial encoder of random weights, for views 56 pixels wide"
    torch.manual_seed(7)
    vggt = VGGT(VGGTConfig.nano(patch=14, dim=32, depth=2, nh=2, img_size=56, heads=()))
    student = Spa3R(Spa3RConfig.nano(dim=dim, nh=2, enc_depth=1, dec_depth=1, n_latents=m, geo_channels=64, teacher='teacher', grid=0, standardise=False))
    return strong(SpatialEncoder(student, VGGTTeacher(vggt)), 3.)

BASES = dict(qwen2_5_vl=('Qwen2_5_VLConfig','Qwen2_5_VLForConditionalGeneration'), qwen3_vl=('Qwen3VLConfig','Qwen3VLForConditionalGeneration'))

def base(kind, tok, **text):
    "A tiny Qwen of transformers"
    import transformers
    Config,Model = (getattr(transformers, o) for o in BASES[kind])
    s = sizes(kind, tok)
    s['text_config'] |= text
    s['vision_config']['out_hidden_size'] = s['text_config']['hidden_size']
    torch.manual_seed(0)
    return strong(Model(Config(**s)))

def wake(model):
    "An adapter that has something to say"
    torch.manual_seed(3)
    with torch.no_grad():
        for p in model.model.adapter.parameters(): p.normal_(std=.5)
    return model

def images(max_side=112):
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    return Qwen2VLImageProcessorPil(min_pixels=28*28, max_pixels=max_side**2)

def picture(seed, w=84, h=56):
    from PIL import Image
    import numpy as np
    return Image.fromarray(np.random.default_rng(seed).integers(0, 255, (h,w,3), dtype=np.uint8))

def folders(path):
    "Both bases and the spatial encoder on disk"
    tok = tokenizer()
    for kind in BASES:
        base(kind, tok).save_pretrained(path/kind)
        tok.save_pretrained(path/kind)
        images().save_pretrained(path/kind)
    encoder().save_pretrained(path/'spatial')
    return path
