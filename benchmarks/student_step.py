"""CPU seconds and peak memory of one training step of the student (forward and backward, one thread).

    python benchmarks/student_step.py [--rounds 3] [--repeats 3]

The size is one that the official code can also be run at on a laptop: a VGGT aggregator of width 512 (features 2 x 512 wide), 6 views of 10 x 10
patches of which 3 are context, D 384, 4 + 4 layers, 64 queries, batch 1. The rows differ in what is decoded: the three hidden views only (our
default, the paper's loss) or all six (the official loss), the latter also with activation checkpointing (blocks keep nothing and compute it again, and
before every other block what was freed goes back to the system: `spa3r.train.loop.return_freed`) and with products in bfloat16 (`precision='bf16_cpu'`).
The teacher is not part of the step: its features are random numbers. Rows take turns, each time in a process of their own, and ratios are between the
medians of one such run: the same row takes up to half more or less at another hour. The official code is not at hand here; `README.md` tells how the two compared.
"""
import argparse, json, time
from statistics import median
from fresh import fresh, peak_gb

ROWS = {'targets': ['targets'], 'all': ['all'], 'all, checkpointing': ['all', '--checkpointing'], 'all, bf16': ['all', '--bf16']}

def step_time(on, repeats, dim, checkpointing, bf16):
    from types import SimpleNamespace
    import torch
    from spa3r.model.cameras import Cameras, intrinsics, orbit
    from spa3r.util.core import set_seed
    from spa3r.teachers.teachers import Observation
    from spa3r.model.psfm import Spa3R, Spa3RConfig, draw_targets, psfm_loss, select_views
    from spa3r.train.loop import Task, TrainConfig, multiplying, spread
    torch.set_num_threads(1)
    set_seed(0)
    b, v, grid = 1, 6, (10, 10)
    student = Spa3R(Spa3RConfig(dim=dim, nh=dim//64, enc_depth=4, dec_depth=4, n_latents=64, geo_channels=1024, sem_channels=1024))
    alone = SimpleNamespace(prepare=lambda task: task, device=torch.device('cpu'))  # one process; Accelerate itself would count as memory
    task = spread(Task(student, lambda m, o: psfm_loss(m, o, on=on)), TrainConfig(checkpointing=checkpointing), alone)
    is_tgt = draw_targets(b, v)
    feats = {k: torch.randn(b, v, 100, c) for k, c in student.cfg.channels.items()}
    cams = Cameras(orbit((0,0,2), 2, 0, v).expand(b, v, 4, 4), intrinsics(torch.tensor(1.), (140, 140)).expand(b, v, 3, 3), (140, 140))
    obs = Observation(select_views(feats['geo'], ~is_tgt), feats, cams, torch.rand(b, v, 100)+1, grid, is_tgt)
    base, times = peak_gb(), []
    for _ in range(repeats+1):
        student.zero_grad(set_to_none=True)
        t = time.process_time()
        with multiplying(bf16): task(obs)['loss'].backward()
        times.append(time.process_time()-t)
    return dict(median=median(times[1:]), best=min(times[1:]), peak_gb=peak_gb(), added_gb=peak_gb()-base)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3, help='times each row has its turn')
    p.add_argument('--repeats', type=int, default=3, help='steps to time in a turn, after one to warm up')
    p.add_argument('--dim', type=int, default=384, help='width of the student')
    p.add_argument('--only', default='', help='run one row in this process and print it as JSON: targets or all')
    p.add_argument('--checkpointing', action='store_true', help='with --only')
    p.add_argument('--bf16', action='store_true', help='with --only')
    a = p.parse_args()
    if a.only: print(json.dumps(step_time(a.only, a.repeats, a.dim, a.checkpointing, a.bf16)))
    else:
        turns = [{k: fresh(__file__, '--repeats', a.repeats, '--dim', a.dim, '--only', *args) for k, args in ROWS.items()} for _ in range(a.rounds)]
        rows = {k: {m: median(t[k][m] for t in turns) for m in turns[0][k]} for k in ROWS}
        print(f"{'decoded':20} {'CPU s (median)':>15} {'CPU s (best)':>13} {'peak GB':>8} {'of it added':>12}")
        for name, r in rows.items(): print(f"{name:20} {r['median']:15.2f} {r['best']:13.2f} {r['peak_gb']:8.2f} {r['added_gb']:12.2f}")
        for name, r in rows.items():
            each = [t[name]['median']/t['all']['median'] for t in turns]
            print(f"{name}: {median(each):.2f} of the time of all ({min(each):.2f} to {max(each):.2f} in {a.rounds} rounds), {r['peak_gb']/rows['all']['peak_gb']:.2f} of its peak")
