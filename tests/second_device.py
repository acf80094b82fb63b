"""A second device on a machine that has none, to see that code runs anywhere: its tensors lie in the CPU's memory, but are as strict as a GPU's about whom they meet

    python tests/second_device.py spa3r.view.page:demo --device far --rooms 2

runs a command with the device `far` known to torch and accelerate, and says how many operations were done there. `waits` lists those for whose end the CPU
would have to wait on a GPU: numbers that are asked for, and copies from one to the other. What cannot be seen so is all that differs from
GPU to GPU: kernels, number formats, streams, memory.
"""
import importlib, os, sys, traceback
import torch
from torch.utils._pytree import tree_leaves,tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

aten = torch.ops.aten
COPIES = {aten._to_copy.default, aten.copy_.default}  # go from one device to the other
INDEXED = {aten.index.Tensor, aten.index_put.default, aten.index_put_.default}  # take indices from the CPU, on a GPU too
ASKS = {aten._local_scalar_dense.default, aten.nonzero.default, aten.masked_select.default, aten.unique_dim.default, aten._unique2.default, aten.equal.default}  # need an answer
done,home,waits = 0,None,[]

def waits_for(f, ts, kw, r):
    "Would the CPU stand still until a GPU has done everything before this?"
    if f in COPIES: return len({isinstance(a, Far) for a in (*ts, *tree_leaves(r)) if isinstance(a, torch.Tensor)})>1 and not kw.get('non_blocking', False)
    return f in ASKS and isinstance(ts[0], Far) or f in INDEXED and any(isinstance(a, Far) and a.dtype==torch.bool for a in ts[1:])

class Far(torch.Tensor):
    "A tensor on the far device; `x` is what it holds"
    @staticmethod
    def __new__(cls, x): return torch.Tensor._make_wrapper_subclass(cls, x.shape, strides=x.stride(), storage_offset=x.storage_offset(), dtype=x.dtype, device='far:0')
    def __init__(self, x): self.x = x
    def tolist(self):
        waits.append('tolist')
        return self.x.tolist()
    def untyped_storage(self): return self.x.untyped_storage()
    def __repr__(self): return f'far {self.x!r}'
    def __format__(self, spec): return format(self.item(), spec) if not self.ndim else repr(self)
    def __reduce_ex__(self, protocol): return self.x.__reduce_ex__(protocol)
    def __deepcopy__(self, memo): return memo.setdefault(id(self), self.detach().clone().requires_grad_(self.requires_grad))
    __torch_function__ = torch._C._disabled_torch_function_impl
    @classmethod
    def __torch_dispatch__(cls, f, types, args=(), kw=None): return run(f, *args, **(kw or {}))

def near(a): return a.x if isinstance(a, Far) else torch.device('cpu') if isinstance(a, torch.device) else a

def run(f, *args, **kw):
    "Do on the CPU what was asked of the far device"
    global done
    done += 1
    if home and os.getpid()!=home: raise RuntimeError('the far device is used in a process forked off one that uses it')
    ts = [a for a in tree_leaves((args, kw)) if isinstance(a, torch.Tensor)]
    if f is aten._has_compatible_shallow_copy_type.default: return isinstance(ts[0], Far)==isinstance(ts[1], Far)
    device = next((a for a in (*args, *kw.values()) if isinstance(a, torch.device)), None)
    far = isinstance(args[0], Far) if f is aten.copy_.default else device.type=='far' if device else any(isinstance(a, Far) for a in ts)
    if far and not device and f not in COPIES:
        strict = [ts[0], *tree_leaves(args[2:])] if f in INDEXED else ts
        if any(isinstance(a, torch.Tensor) and a.ndim and not isinstance(a, Far) for a in strict): raise RuntimeError(f'{f}: tensors on the CPU and on the far device')
    given = dict(zip((s.name for s in f._schema.arguments), args))|kw
    written = [given[s.name] for s in f._schema.arguments if s.name in given and s.alias_info and s.alias_info.is_write and isinstance(given[s.name], torch.Tensor)]
    r = f(*tree_map(near, args), **tree_map(near, kw))
    for a in written:
        if isinstance(a, Far) and a.shape!=a.x.shape: a.data = Far(a.x)  # it changed its shape in place
    same = {id(near(a)):a for a in written}
    r = tree_map(lambda a: same[id(a)] if id(a) in same else Far(a) if far and isinstance(a, torch.Tensor) else a, r)
    if waits_for(f, ts, given, r): waits.append(str(f))
    return r

def operations():
    "What creates tensors or moves them: torch calls these below the level of Python classes"
    for name in torch._C._dispatch_get_all_op_names():
        if not name.startswith('aten::') or name.endswith('out') or torch._C._dispatch_has_kernel_for_dispatch_key(name, 'CompositeImplicitAutograd'): continue
        packet,_,overload = name[6:].partition('.')
        op = getattr(getattr(aten, packet), overload or 'default')
        kinds = {a.name:str(a.type) for a in op._schema.arguments}
        if op in {*COPIES, aten._local_scalar_dense.default} or 'device' in kinds and not any('Tensor' in k for k in kinds.values()): yield op

def near_files():
    "Safetensors knows no device but its own"
    import safetensors,safetensors.torch
    save,opened = safetensors.torch.save_file,safetensors.safe_open
    class Opened:
        def __init__(self, path, framework, device='cpu', **kw): self.f,self.device = opened(path, framework, **kw),device
        def __enter__(self): return self
        def __exit__(self, *args): return self.f.__exit__(*args)
        def __getattr__(self, k): return getattr(self.f, k)
        def get_tensor(self, k): return self.f.get_tensor(k).to(self.device)
    safetensors.torch.save_file = lambda tensors, *args, **kw: save({k:v.cpu() for k,v in tensors.items()}, *args, **kw)
    safetensors.safe_open = Opened

def set_up():
    "Make the device known; what is returned must be kept"
    global home
    home = os.getpid()
    _setup_privateuseone_for_python_backend('far')
    torch.far.get_amp_supported_dtype = lambda: [torch.bfloat16]
    torch.inference_mode = torch.no_grad  # made of wrapped tensors, views of what it leaves cannot be taken
    libs = [torch.library.Library('_', 'IMPL'),torch.library.Library('aten', 'IMPL')]
    libs[0].fallback(run, 'PrivateUse1')
    for op in operations(): libs[1].impl(op, lambda *args, op=op, **kw: run(op, *args, **kw), 'PrivateUse1')
    torch.Tensor.pin_memory = lambda self, *args: self
    near_files()
    from accelerate.state import PartialState
    PartialState.default_device = torch.device('far', 0)
    os.environ['ACCELERATE_TORCH_DEVICE'] = 'far:0'  # transformers looks here
    return libs

if __name__=='__main__':
    keep,code = set_up(),1
    torch.set_num_threads(1)
    module,name = sys.argv[1].split(':')
    sys.argv[:2] = [name]
    try:
        getattr(importlib.import_module(module), name)()
        code = 0
    except SystemExit as e: code = e.code or 0
    except BaseException: traceback.print_exc()
    print(f'{done} operations on the far device', flush=True)
    sys.stderr.flush()
    os._exit(code)  # torch cannot take the threads of such a device down
