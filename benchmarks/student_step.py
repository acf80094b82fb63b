"""CPU seconds and peak memory of one training step of the student (forward and backward, one thread).

    python benchmarks/student_step.py [--repeats 5]

The size is one that the official code can also be run at on a laptop: a VGGT aggregator of width 512 (features 2 x 512 wide), 6 views of 10 x 10
patches of which 3 are context, D 384, 4 + 4 layers, 64 queries, batch 1. The rows differ in what is decoded: the three hidden views only (our
default, the paper's loss) or all six (the official loss), the latter also with activation checkpointing: blocks keep nothing and compute it again, and
before every other block what was freed goes back to the system instead of leaving holes (`spa3r.loop.return_freed`; not tried on the official code).
The teacher is not part of the step: its features are random numbers. Peak memory is that of a process which runs this row alone.
The official code's figures were measured at this size on a machine with two cores, and are printed as they were: a ratio to them means something on
such a machine, and the ratios between our own rows anywhere.
"""
import argparse, json, time
from statistics import median
from fresh import fresh, peak_gb

ROWS = {'targets': ['targets'], 'all': ['all'], 'all, checkpointing': ['all', '--checkpointing']}
OFFICIAL = dict(seconds=(2.8, 3.3), gb=1.03)  # its own step, all views

def step_time(on, repeats, dim, checkpointing):
    from types import SimpleNamespace
    import torch
    from spa3r.cameras import Cameras, intrinsics, look_around
    from spa3r.core import set_seed
    from spa3r.teachers import Observation
    from spa3r.psfm import Spa3R, Spa3RConfig, draw_targets, psfm_loss, select_views
    from spa3r.loop import Task, TrainConfig, spread
    torch.set_num_threads(1)
    set_seed(0)
    b, v, grid = 1, 6, (10, 10)
    student = Spa3R(Spa3RConfig(dim=dim, nh=dim//64, enc_depth=4, dec_depth=4, n_latents=64, geo_channels=1024, sem_channels=1024))
    alone = SimpleNamespace(prepare=lambda task: task, device=torch.device('cpu'))  # one process; Accelerate itself would count as memory
    task = spread(Task(student, lambda m, o: psfm_loss(m, o, on=on)), TrainConfig(checkpointing=checkpointing), alone)
    is_tgt = draw_targets(b, v)
    feats = {k: torch.randn(b, v, 100, c) for k, c in student.cfg.channels.items()}
    cams = Cameras(look_around(torch.eye(4), v, 1.).expand(b, v, 4, 4), intrinsics(torch.tensor(1.), (140, 140)).expand(b, v, 3, 3), (140, 140))
    obs = Observation(select_views(feats['geo'], ~is_tgt), feats, cams, torch.rand(b, v, 100)+1, grid, is_tgt)
    base, times = peak_gb(), []
    for _ in range(repeats+1):
        student.zero_grad(set_to_none=True)
        t = time.process_time()
        task(obs)['loss'].backward()
        times.append(time.process_time()-t)
    return dict(median=median(times[1:]), best=min(times[1:]), peak_gb=peak_gb(), added_gb=peak_gb()-base)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeats', type=int, default=5, help='steps to time, after one to warm up')
    p.add_argument('--dim', type=int, default=384, help='width of the student; the official figures are for 384')
    p.add_argument('--only', default='', help='run one row in this process and print it as JSON: targets or all')
    p.add_argument('--checkpointing', action='store_true', help='with --only')
    a = p.parse_args()
    if a.only: print(json.dumps(step_time(a.only, a.repeats, a.dim, a.checkpointing)))
    else:
        print(f"{'decoded':20} {'CPU s (median)':>15} {'CPU s (best)':>13} {'peak GB':>8} {'of it added':>12}")
        rows, (lo, hi) = {}, OFFICIAL['seconds']
        for name, args in ROWS.items():
            r = rows[name] = fresh(__file__, '--repeats', a.repeats, '--dim', a.dim, '--only', *args)
            print(f"{name:20} {r['median']:15.2f} {r['best']:13.2f} {r['peak_gb']:8.2f} {r['added_gb']:12.2f}", flush=True)
        print(f"{'official (2 cores)':20} {f'{lo}-{hi}':>15} {'':13} {OFFICIAL['gb']:8.2f}")
        for name, r in rows.items():
            one = rows['all']
            text = f"{name}: {r['median']/one['median']:.2f} of the time of all, {r['peak_gb']/one['peak_gb']:.2f} of its peak"
            if a.dim==384: text += f"; {r['median']/hi:.2f}-{r['median']/lo:.2f} and {r['peak_gb']/OFFICIAL['gb']:.2f} of the official's"
            print(text)
