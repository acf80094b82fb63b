"""A run that is small enough for tests, as a command: python tests/small_run.py --out DIR ..., alone or by torchrun

A student of a few thousand weights learns the exact field of rooms at 3x3 patches. `--ways ddp,fsdp` trains it once each way, into OUT/ddp and OUT/fsdp.
"""
import time
from functools import partial
from pathlib import Path
import torch
from torch.distributed.tensor import DTensor
from spa3r.util.core import command,set_seed,with_cfg
from spa3r.model.psfm import Spa3R,Spa3RConfig,psfm_loss
from spa3r.train.loop import TrainConfig,fit
from spa3r.teachers.teachers import ExactTeacher
from spa3r.train.pretrain import masked,observe
from spa3r.data.batches import RoomSource

SIZE = dict(steps=8, images=16, images_device=4, v_min=2, v_max=4, lr=.01, warmup=2, save_every=3, eval_every=0)

def small(out, cfg, pause=0., **kw):
    "Train; returns the student and what its parameters were while it learnt"
    torch.set_num_threads(1)
    set_seed(cfg.seed)
    student,teacher,kinds = Spa3R(Spa3RConfig.nano(dim=16, nh=2, enc_depth=1, dec_depth=1, n_latents=4)),ExactTeacher((3,3)),set()
    def each_step(step):
        time.sleep(pause)
        kinds.update('sharded' if isinstance(p, DTensor) else 'whole' for p in student.parameters())
    batch_fn = partial(masked, cfg.batches(RoomSource((42,42), images=False)), cfg)
    return fit(student, batch_fn, lambda m,b: psfm_loss(m, observe(teacher, *b)), cfg, out, each_step=each_step, progress=False, **kw),kinds

@command
@with_cfg(TrainConfig)
def main(
    out:str='', # Folder
    ways:str='', # ddp, fsdp, or both with a comma
    pause:float=0., # Seconds to sleep after each step
    **kwargs):
    "Train a small student"
    cfg = lambda **kw: TrainConfig(**SIZE|kwargs|kw)
    if not ways: return small(out, cfg(), pause)
    for way in ways.split(','):
        _,kinds = small(Path(out)/way, cfg(fsdp=way=='fsdp'))
        print(f"{way} {' '.join(kinds)}\n", end='', flush=True)  # in one piece: two processes write

if __name__=='__main__': main()
