"""What it saves to watch a scene once: python benchmarks/prefix_reuse.py [--size 3b --device cuda]

Eighteen questions about one scene (VSI-Bench asks 5130 about 288), each read from the beginning, and all of them continued from one cache.
Weights are random, so answers are noise; how often they agree is reported all the same.
"""
import time
import torch
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from spa3r.language.chat import Chat
from spa3r.util.core import command,pick_device,pick_dtype,set_seed
from spa3r.rooms.visibility import room_frames
from spa3r.rooms.rooms import HELD_OUT
from spa3r.language.processor import Processor,make_tokenizer
from spa3r.language.vlm import SpatialEncoder,Spa3Qwen2_5VL,nano_config,processor_fields,spatial_fields

ASKED = [f'These are frames of a video.\nHow many {o}s are in this room?\nPlease answer the question using a single word or phrase.'
    for o in 'chair table lamp shelf bed sofa door window plant box book cup stool desk rug clock picture curtain'.split()]

def sizes(size, tokenizer, encoder):
    "Configuration, and the most pixels a frame may have"
    cfg = nano_config(tokenizer, **spatial_fields(encoder))
    return (cfg,112*112) if size=='nano' else (grown(cfg),448*448)

def grown(cfg):
    "A configuration with the sizes of Qwen2.5-VL-3B"
    text = dict(vocab_size=151936, hidden_size=2048, intermediate_size=11008, num_hidden_layers=36, num_attention_heads=16, num_key_value_heads=2, rope_parameters=dict(rope_type='default', rope_theta=1e6, mrope_section=[16,24,24]))
    vision = dict(depth=32, hidden_size=1280, intermediate_size=3420, num_heads=16, out_hidden_size=2048, window_size=112, fullatt_block_indexes=[7,15,23,31])
    for k,v in text.items(): setattr(cfg.text_config, k, v)
    for k,v in vision.items(): setattr(cfg.vision_config, k, v)
    cfg.text_config.layer_types = ['full_attention']*36
    return cfg

def timed(f, device):
    "Seconds of a call, and what it gave"
    if device.type=='cuda': torch.cuda.synchronize()
    t = time.perf_counter()
    out = f()
    if device.type=='cuda': torch.cuda.synchronize()
    return time.perf_counter()-t,out

@command
def main(
    size:str='nano', # nano or 3b
    frames:int=32, # Frames of the scene
    device:str='auto', # auto, cpu, cuda
    times:int=3, # Runs, of which the fastest counts
):
    "Time both ways"
    set_seed(0)
    device = pick_device(device)
    tok,encoder = make_tokenizer(ASKED, 600),SpatialEncoder.from_pretrained('nano')
    cfg,pixels = sizes(size, tok, encoder)
    torch.set_default_dtype(pick_dtype(device))
    with device: model = Spa3Qwen2_5VL(cfg)
    torch.set_default_dtype(torch.float32)
    model.model.attach(encoder.to(device))
    chat = Chat(model, Processor(tok, Qwen2VLImageProcessorPil(min_pixels=28*28, max_pixels=pixels), **processor_fields(cfg)), frames=frames)
    film = room_frames(HELD_OUT, frames)
    model.generation_config.eos_token_id = None  # every answer has 16 tokens
    each = lambda: [chat.answer(film, q) for q in ASKED]
    once = lambda: chat.ask(chat.watch(film), ASKED)
    chat.answer(film, ASKED[0])
    (a,texts),(b,together) = (min((timed(f, device) for _ in range(times)), key=lambda o: o[0]) for f in (each,once))
    n = chat.watch(film).ids.shape[1]
    print(f"{size}, {sum(p.numel() for p in model.parameters())/1e6:.1f} million weights, {model.dtype}, {device}, {torch.get_num_threads()} threads: "
          f"{n} tokens of {frames} frames, {len(ASKED)} questions; each from the beginning {a:.2f} s, watched once {b:.2f} s, {a/b:.1f} times as fast; "
          f"{sum(x==y for x,y in zip(texts, together))} of {len(ASKED)} answers agree")

if __name__=='__main__': main()
