"""CPU seconds and peak memory of one training step of the student (forward and backward, one thread).

    python benchmarks/student_step.py [--rounds 3] [--repeats 3] [--official FOLDER]

The size is one that the official code can also be run at on a laptop: a VGGT aggregator of width 512 (features 2 x 512 wide), 6 views of 10 x 10
patches of which 3 are context, D 384, 4 + 4 layers, 64 queries, batch 1. The rows differ in what is decoded: the three hidden views only (our
default, the paper's loss) or all six (the official loss), the latter also with activation checkpointing (blocks keep nothing and compute it again, and
before every other block what was freed goes back to the system: `spa3r.train.loop.return_freed`) and with products in bfloat16 (`precision='bf16_cpu'`).
The teacher is not part of the step: its features are random numbers. Rows take turns, each time in a process of their own, and ratios are between the
medians of one such run: the same row takes up to half more or less at another hour. The official code is no part of this repository; with `--official`
its step from a checkout in FOLDER is a row of its own, with our weights, cameras and features, and ratios are to it. It needs einops; its teachers are
replaced by functions that return those features, so that of either code only the student takes time. How far loss and gradients differ is printed first.
"""
import argparse, json, time
from pathlib import Path
from statistics import median
from fresh import fresh, peak_gb

ROWS = {'targets': ['targets'], 'all': ['all'], 'all, checkpointing': ['all', '--checkpointing'], 'all, bf16': ['all', '--bf16']}

def case(dim):
    "A student and an observation that are the same in every process"
    import torch
    from spa3r.model.cameras import Cameras, intrinsics, orbit
    from spa3r.model.psfm import Spa3R, Spa3RConfig, draw_targets, select_views
    from spa3r.teachers.teachers import Observation
    from spa3r.util.core import set_seed
    torch.set_num_threads(1)
    set_seed(0)
    b, v, grid = 1, 6, (10, 10)
    student = Spa3R(Spa3RConfig(dim=dim, nh=dim//64, enc_depth=4, dec_depth=4, n_latents=64, geo_channels=1024, sem_channels=1024))
    is_tgt = draw_targets(b, v)
    feats = {k: torch.randn(b, v, 100, c) for k, c in student.cfg.channels.items()}
    cams = Cameras(orbit((0,0,2), 2, 0, v).expand(b, v, 4, 4), intrinsics(torch.tensor(1.), (140, 140)).expand(b, v, 3, 3), (140, 140))
    return student, Observation(select_views(feats['geo'], ~is_tgt), feats, cams, torch.rand(b, v, 100)+1, grid, is_tgt)

def our_step(student, obs, on, checkpointing=False):
    "Loss of `student` as the training loop asks for it; of all views, as smooth L1 like the official one"
    from types import SimpleNamespace
    from spa3r.model.psfm import psfm_loss
    from spa3r.train.loop import Task, TrainConfig, spread
    alone = SimpleNamespace(prepare=lambda task: task, device=obs.ctx.device)  # one process; Accelerate itself would count as memory
    task = spread(Task(student, lambda m, o: psfm_loss(m, o, on=on, smooth=on=='all')), TrainConfig(checkpointing=checkpointing), alone)
    return lambda: task(obs)['loss']

def official_model(student, obs, folder):
    "The student of the official checkout in `folder`, with the weights of ours; what its teachers would say is in `obs`"
    import sys, torch
    from importlib.util import module_from_spec, spec_from_file_location
    from types import ModuleType, SimpleNamespace
    def stand_in(name, **has): vars(sys.modules.setdefault(name, ModuleType(name))).update(has)
    def aggregator(images, view_mask): return [obs.feats['geo']], 0
    cfg, cams = student.cfg, obs.cams
    aggregator.patch_size, aggregator.patch_embed = 14, SimpleNamespace(embed_dim=cfg.geo_channels//2)
    depth = obs.depth.reshape(*obs.depth.shape[:2], *obs.grid, 1)
    vggt = SimpleNamespace(parameters=list, aggregator=aggregator, camera_head=lambda tokens: [None], point_head=None, depth_head=lambda *a, **kw: (depth, None))
    torch.hub.load = lambda *a: SimpleNamespace(parameters=list, embed_dim=cfg.sem_channels)
    for name in ('torchvision', 'torchvision.transforms', 'vggt', 'vggt.utils', 'official.utils.visualize'): stand_in(name)
    stand_in('torchvision.transforms.v2', functional=None)
    stand_in('vggt.utils.pose_enc', pose_encoding_to_extri_intri=lambda *a: (cams.w2c[..., :3, :], cams.K))
    stand_in('official.masked_vggt', MaskedVGGT=SimpleNamespace(from_pretrained=lambda name: vggt))
    spec = spec_from_file_location('official', folder/'spa3r/models/__init__.py')  # by another name, for ours is called spa3r, too
    sys.modules['official'] = official = module_from_spec(spec)
    spec.loader.exec_module(official)
    model = official.Spa3R(cfg.dim, num_queries=cfg.n_latents, num_encoder_layers=cfg.enc_depth, num_decoder_layers=cfg.dec_depth, num_heads=cfg.nh)
    model.load_state_dict(student.state_dict(), assign=True)
    model._random_masking, model._extract_dino_features = (lambda *a: obs.is_tgt), (lambda *a: obs.feats['sem'])
    return model

def official_step(model, obs):
    "Its loss: the forward pass of the official training step, summed as its Lightning module does"
    images = obs.ctx.new_zeros(1).expand(*obs.cams.shape, 3, *obs.cams.hw)
    return lambda: sum(model({'images': images}, mode='loss').values())

def agreement(dim, folder):
    "How far the two codes differ in loss and gradients, relative to the largest gradient of each parameter"
    import torch
    student, obs = case(dim)
    ours, loss = dict(student.named_parameters()), our_step(student, obs, 'all')()
    grads = dict(zip(ours, torch.autograd.grad(loss, ours.values())))
    model = official_model(student, obs, folder)
    from spa3r.model.psfm import official_name
    theirs, other = dict(model.named_parameters()), official_step(model, obs)()
    other_grads = dict(zip(theirs, torch.autograd.grad(other, theirs.values())))
    gaps = [float((g-other_grads.pop(official_name(k))).abs().max()/g.abs().max()) for k,g in grads.items()]
    assert not other_grads, sorted(other_grads)
    off = abs(loss.item()-other.item())/other.item()
    return dict(parameters=sum(p.numel() for p in ours.values()), loss=off, gradients=max(gaps))

def step_time(on, repeats, dim, checkpointing, bf16, folder):
    from spa3r.train.loop import multiplying
    model, obs = case(dim)
    if on=='official': model = official_model(model, obs, folder)
    loss = official_step(model, obs) if on=='official' else our_step(model, obs, on, checkpointing)
    base, times = peak_gb(), []
    for _ in range(repeats+1):
        model.zero_grad(set_to_none=True)
        t = time.process_time()
        with multiplying(bf16): loss().backward()
        times.append(time.process_time()-t)
    return dict(median=median(times[1:]), best=min(times[1:]), peak_gb=peak_gb(), added_gb=peak_gb()-base)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3, help='times each row has its turn')
    p.add_argument('--repeats', type=int, default=3, help='steps to time in a turn, after one to warm up')
    p.add_argument('--dim', type=int, default=384, help='width of the student')
    p.add_argument('--official', type=Path, metavar='FOLDER', help='checkout of the official repository (hustvl/Spa3R) to measure beside ours')
    p.add_argument('--only', default='', help='run one row in this process and print it as JSON: targets, all, official or agreement')
    p.add_argument('--checkpointing', action='store_true', help='with --only')
    p.add_argument('--bf16', action='store_true', help='with --only')
    a = p.parse_args()
    if a.official and not (a.official/'spa3r/models/spa3r.py').is_file(): p.error(f"{a.official} holds no spa3r/models/spa3r.py: give a checkout of the official repository")
    if a.only=='agreement': print(json.dumps(agreement(a.dim, a.official)))
    elif a.only: print(json.dumps(step_time(a.only, a.repeats, a.dim, a.checkpointing, a.bf16, a.official)))
    else:
        base, more = ('official', ['--official', a.official]) if a.official else ('all', [])
        if a.official:
            d = fresh(__file__, '--dim', a.dim, '--only', 'agreement', *more)
            print(f"{d['parameters']:,} parameters; loss differs from the official by {d['loss']:.0e}, gradients by {d['gradients']:.0e} of the largest of each parameter")
        rows = ROWS | {base: [base]}
        turns = [{k: fresh(__file__, '--repeats', a.repeats, '--dim', a.dim, *more, '--only', *args) for k, args in rows.items()} for _ in range(a.rounds)]
        got = {k: {m: median(t[k][m] for t in turns) for m in turns[0][k]} for k in rows}
        print(f"{'decoded':20} {'CPU s (median)':>15} {'CPU s (best)':>13} {'peak GB':>8} {'of it added':>12}")
        for name, r in got.items(): print(f"{name:20} {r['median']:15.2f} {r['best']:13.2f} {r['peak_gb']:8.2f} {r['added_gb']:12.2f}")
        for name, r in got.items():
            each = [t[name]['median']/t[base]['median'] for t in turns]
            print(f"{name}: {median(each):.2f} of the time of {base} ({min(each):.2f} to {max(each):.2f} in {a.rounds} rounds), {r['peak_gb']/got[base]['peak_gb']:.2f} of its peak")
