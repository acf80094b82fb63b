"""Spa3R in notebooks: what people type first is here, and is loaded when it is asked for"""

__version__ = "0.2.0"

_FIRST = {  # name: where it lives
    'load': 'teachers.teachers:load_student',
    'Spa3R': 'model.psfm:Spa3R', 'Spa3RConfig': 'model.psfm:Spa3RConfig',
    'VGGT': 'model.patch_encoder:VGGT',
    'show': 'view.page:show',
    'Spa3VLM': 'language.vlm:Spa3Qwen2_5VL',
}

def __getattr__(name):
    if name not in _FIRST: raise AttributeError(f"module 'spa3r' has no attribute {name!r}")
    from importlib import import_module
    mod,obj = _FIRST[name].split(':')
    globals()[name] = found = getattr(import_module(f'spa3r.{mod}'), obj)
    return found

def __dir__(): return sorted({*globals(), *_FIRST})
