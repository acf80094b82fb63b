"""CPU seconds and peak memory of one training step of the student (forward and backward, one thread).

    python benchmarks/student_step.py [--repeats 5]

The size is one that the official code can also be run at on a laptop: a VGGT aggregator of width 512 (features 2 x 512 wide), 6 views of 10 x 10
patches of which 3 are context, D 384, 4 + 4 layers, 64 queries, batch 1. The two rows differ in what is decoded: the three hidden views only (our
default, the paper's loss) or all six (the official loss). The teacher is not part of the step: its features are random numbers.
Peak memory is that of a process which runs this row alone.
"""
import argparse, json, resource, subprocess, sys, time

def step_time(on, repeats):
    import torch
    from spa3r.cameras import Cameras, intrinsics, look_around
    from spa3r.core import set_seed
    from spa3r.teachers import Observation
    from spa3r.psfm import Spa3R, Spa3RConfig, draw_targets, psfm_loss, select_views
    torch.set_num_threads(1)
    set_seed(0)
    b, v, grid = 1, 6, (10, 10)
    student = Spa3R(Spa3RConfig(dim=384, nh=6, enc_depth=4, dec_depth=4, n_latents=64, geo_channels=1024, sem_channels=1024))
    is_tgt = draw_targets(b, v)
    feats = {k: torch.randn(b, v, 100, c) for k, c in student.cfg.channels.items()}
    cams = Cameras(look_around(torch.eye(4), v, 1.).expand(b, v, 4, 4), intrinsics(torch.tensor(1.), (140, 140)).expand(b, v, 3, 3), (140, 140))
    obs = Observation(select_views(feats['geo'], ~is_tgt), feats, cams, torch.rand(b, v, 100)+1, grid, is_tgt)
    base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    times = []
    for _ in range(repeats+1):
        student.zero_grad(set_to_none=True)
        t = time.process_time()
        psfm_loss(student, obs, on=on)['loss'].backward()
        times.append(time.process_time()-t)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return dict(on=on, median=sorted(times[1:])[repeats//2], best=min(times[1:]), peak_gb=peak/1e6, added_gb=(peak-base)/1e6)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--repeats', type=int, default=5, help='steps to time, after one to warm up')
    p.add_argument('--only', default='', help='run one row in this process and print it as JSON')
    a = p.parse_args()
    if a.only: print(json.dumps(step_time(a.only, a.repeats)))
    else:
        rows = [json.loads(subprocess.run([sys.executable, __file__, '--only', on, '--repeats', str(a.repeats)],
                                          capture_output=True, text=True, check=True).stdout) for on in ('targets', 'all')]
        print(f"{'decoded':10} {'CPU s (median)':>15} {'CPU s (best)':>13} {'peak GB':>8} {'of it added':>12}")
        for r in rows: print(f"{r['on']:10} {r['median']:15.2f} {r['best']:13.2f} {r['peak_gb']:8.2f} {r['added_gb']:12.2f}")
        print(f"all / targets: {rows[1]['median']/rows[0]['median']:.2f}")
