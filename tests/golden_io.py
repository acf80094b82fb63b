"Recorded numbers: `load('c_encoder')` gives the tensors of one recording and its card. Directory: `SPA3R_GOLDEN`, default tests/golden"
import json,os
from pathlib import Path
from safetensors.torch import load_file

def golden_dir(): return Path(os.environ.get('SPA3R_GOLDEN') or Path(__file__).parent/'golden')

def card(name):
    "The card (sizes, conventions, meaning of each tensor) of recording `name`"
    p = golden_dir()/f'{name}.json'
    if not p.exists(): raise FileNotFoundError(f'{p} is missing: point SPA3R_GOLDEN at a folder with all recordings')
    return json.loads(p.read_text(encoding='utf8'))

def load(name):
    "Tensors and card of recording `name`; every tensor named on the card must be there, in its shape"
    c = card(name)
    ts = load_file(golden_dir()/f'{name}.safetensors')
    for k,v in c['tensors'].items():
        assert k in ts, f'{name}: {k} is on the card but not in the file'
        assert list(ts[k].shape)==v['shape'], f'{name}: {k} has shape {list(ts[k].shape)}, the card says {v["shape"]}'
    return ts,c
