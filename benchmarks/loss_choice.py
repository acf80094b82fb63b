"""Which loss? Plain or smooth L1, over the hidden views or over all: the same little student trained four ways, judged on the same unseen rooms.

    python benchmarks/loss_choice.py [--steps 400] [--seeds 2] [--scenes 32]

The students are tiny (width 64, 2 + 2 layers, 6 x 6 patches), so the absolute numbers are low; what is compared is the choice. Every variant of a seed
starts from the same weights and sees the same rooms. Decoding all views makes the student's step 1.6 times as long (`student_step.py`), so a last row gives
the default that much more steps. Two spreads are printed: over seeds in the table, and the gap to the default, seed by seed.
"""
import argparse, tempfile
from functools import partial
import torch
from spa3r.teachers.teachers import ExactTeacher
from spa3r.probe.measures import fit_prior
from spa3r.probe.probes import evaluate_field
from spa3r.model.psfm import Spa3R, Spa3RConfig, fit_standardisation, psfm_loss
from spa3r.rooms.rooms import HELD_OUT
from spa3r.train.loop import TrainConfig, fit
from spa3r.train.pretrain import masked, observe
from spa3r.data.batches import RoomSource
from spa3r.util.core import set_seed

VARIANTS = {f"{'smooth L1' if smooth else 'L1'}, {on}": dict(smooth=smooth, on=on) for on in ('targets', 'all') for smooth in (False, True)}
VARIANTS['L1, targets, 1.6 x steps'] = dict(longer=1.6)

def train(teacher, seed, steps, smooth=False, on='targets', longer=1.):
    "A little student, trained with one of the losses"
    steps = round(steps*longer)
    cfg = TrainConfig.nano(steps=steps, seed=seed, smooth=smooth, on=on, save_every=steps)
    set_seed(seed)
    student = Spa3R(Spa3RConfig.nano(dim=64, nh=2, enc_depth=2, dec_depth=2, n_latents=32, grid=6))
    look = lambda b: observe(teacher, *b)
    batch_fn = partial(masked, cfg.batches(RoomSource(images=False)), cfg)
    fit_standardisation(student, {'geo': torch.cat([look(batch_fn(i, 0)).feats['geo'].flatten(0, -2) for i in range(4)])})
    with tempfile.TemporaryDirectory() as d:
        return fit(student, batch_fn, lambda m, b: psfm_loss(m, look(b), on=on, smooth=smooth), cfg, d, progress=False)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--steps', type=int, default=400)
    p.add_argument('--seeds', type=int, default=2)
    p.add_argument('--scenes', type=int, default=32)
    a = p.parse_args()
    torch.set_num_threads(1)
    teacher, rooms = ExactTeacher((6, 6)), range(HELD_OUT, HELD_OUT+a.scenes)
    got = {k: [] for k in VARIANTS}
    for seed in range(a.seeds):
        for k, kw in VARIANTS.items():
            rows = evaluate_field(train(teacher, seed, a.steps, **kw), teacher, rooms)['rows']['prediction']
            got[k].append([rows[m]['mean'] for m in ('cosine', 'l1', 'furniture')])
            print(f'seed {seed} {k}: cosine, L1, furniture {[round(x, 3) for x in got[k][-1]]}', flush=True)
    first = torch.tensor(got['L1, targets'])
    print(f"\n{a.steps} steps, {a.seeds} seeds, {a.scenes} unseen rooms\n{'loss':26} {'cosine':>14} {'L1':>14} {'furniture':>14}   gap to the first row")
    for k, v in got.items():
        v = torch.tensor(v)
        cell = lambda x: ' '.join(f'{m:.3f} ±{s:.3f}'.rjust(14) for m, s in zip(x.mean(0), x.std(0) if len(x) > 1 else torch.full((3,), float('nan'))))
        print(f'{k:26} {cell(v)}   {[round(o, 3) for o in (v-first).mean(0).tolist()]}')
