"What another processor may make of the same operations, a GPU among them"
import torch
from torch.utils._python_dispatch import TorchDispatchMode

ROUNDS = 'add sub rsub mul div reciprocal sqrt rsqrt sin cos tan exp pow sum mean mm bmm'.split()

class RoundsOtherwise(TorchDispatchMode):
    "Every result of float arithmetic that is no whole number is off by up to two units in the last place"
    def __init__(self):
        super().__init__()
        self.g,self.done = torch.Generator().manual_seed(0),0
    def off(self, x):
        if not isinstance(x, torch.Tensor) or x.dtype!=torch.float32: return x
        self.done += 1
        return torch.where(x==x.round(), x, x*(1+(torch.rand(x.shape, generator=self.g)*4-2)*2**-23))
    def __torch_dispatch__(self, f, types, args=(), kwargs=None):
        r,name = f(*args, **(kwargs or {})),f._schema.name[6:]
        if name.rstrip('_') not in ROUNDS: return r
        return r.copy_(self.off(r)) if name.endswith('_') else self.off(r)
