"""What if it were done otherwise? One row of the paper's comparisons, in miniature: little students that differ in one thing, judged on the same unseen rooms.

    python benchmarks/ablate.py mask [--steps 400] [--seeds 3] [--scenes 32] [--out nbs/reference/ablations]

Rows: mask, camera, latents, loss, targets (students of the exact teacher, 6 x 6 patches) and teacher (students of the shipped nano teacher, 8 x 8 patches:
one pass or two, LayerNorm or the official RMSNorm). The students are tiny (width 64, 2 + 2 layers), so the absolute numbers are low; what is compared is the
choice. Every variant of a seed starts from the same weights and sees the same rooms. Writes OUT/ROW.json, which the page of ablations draws.
"""
import argparse, json, platform, tempfile, time
from dataclasses import replace
from functools import partial
from pathlib import Path
import torch
import torch.nn.functional as F
from torch import nn
from spa3r.model.cameras import rotate
from spa3r.model.field_decoder import FieldDecoder
from spa3r.util.core import atomic_write, set_seed
from spa3r.bench.evaluate import commit
from spa3r.train.loop import TrainConfig, fit
from spa3r.teachers.teachers import WEIGHTS
from spa3r.probe.probes import evaluate_field
from spa3r.model.prope import Prope
from spa3r.model.psfm import Spa3R, Spa3RConfig, fit_standardisation, psfm_loss, select_views
from spa3r.rooms.rooms import CLASSES, FURNITURE, HELD_OUT, _ROT, render
from spa3r.teachers.teachers import ExactTeacher, load_teacher
from spa3r.train.pretrain import masked, observe
from spa3r.data.batches import RoomSource, rooms_as_views

class WorldRays(FieldDecoder):
    "Rays in the frame of the latents, with PRoPE"
    def rays(self, cams, grid): return rotate(cams.c2w[..., :3, :3], cams.rays(grid)).flatten(2, 3)

class Pluecker(WorldRays):
    "Lines in that frame; no camera in the attention, only the place in the image"
    ray_dims = 6
    def rays(self, cams, grid):
        d = super().rays(cams, grid)
        return torch.cat([d, torch.linalg.cross(cams.positions[:, :, None].expand_as(d), d)], -1)
    def positions(self, cams, grid, n_special):
        return Prope(torch.eye(4).expand(cams.w2c.flatten(0, 1)[:, None].shape), None, cams.hw, grid, self.e, n_special)

def told_by(field, kind):
    "The same decoder with the same weights, told of cameras in another way"
    field.__class__ = kind
    if kind.ray_dims != field.pose_tokenizer.in_features: field.pose_tokenizer = nn.Linear(kind.ray_dims, field.pose_tokenizer.out_features)

ROWS = dict(
    mask={f'{r:.0%} hidden': dict(ratio=r) for r in (.5, .25, .75)},
    camera={'PRoPE, rays of the camera': {}, 'PRoPE, rays in the world': dict(camera=WorldRays), 'Pluecker': dict(camera=Pluecker)},
    latents={f'{n} latents': dict(latents=n) for n in (32, 4, 8, 128)},
    loss={f"{'smooth L1' if s else 'L1'}, {on}": dict(smooth=s, on=on) for on in ('targets', 'all') for s in (False, True)},
    targets={'both': {}, 'geometry': dict(weights=dict(sem_l1=0., sem_cos=0.)), 'semantics': dict(weights=dict(geo_l1=0., geo_cos=0.))},
    teacher={'one pass, LayerNorm': dict(teacher={}), 'two passes, LayerNorm': dict(teacher=dict(asymmetric=False)), 'one pass, RMSNorm': dict(teacher=dict(norm='rms'))})

class Halves(ExactTeacher):
    "The exact teacher, its features told apart: where and which way ('geo'), and what ('sem'); the encoder sees both"
    SPLIT = 42  # coordinates of position, normal and waves, before the field's rotation
    def __init__(self, grid):
        super().__init__(grid)
        self.channels = {'geo': 64, 'sem': 64-self.SPLIT}
    @torch.no_grad()
    def observe(self, views, is_tgt):
        obs = super().observe(views, is_tgt)
        f = obs.feats['geo'].double()@_ROT.double()
        where = F.pad(f[..., :self.SPLIT], (0, 64-self.SPLIT))@_ROT.double().T
        return replace(obs, feats={'geo': where.float(), 'sem': f[..., self.SPLIT:].float()})

@torch.no_grad()
def read_off(student, teacher, seeds, weights=None):
    "What a linear layer reads off the tokens of hidden rays: its weights, or with weights how often it finds the class of furniture, and its mean |error|/depth"
    views = rooms_as_views(list(seeds), 6, (42, 42))
    is_tgt = torch.tensor([[False, True]*3]*len(seeds))
    obs = teacher.observe(views, is_tgt)
    x = student.field.tokens(student.encode(obs.ctx, obs.grid), select_views(obs.cams, is_tgt), obs.grid).flatten(0, -2)
    cls, z = (select_views(o, is_tgt).flatten() for o in (render(views.rooms, views.cams, grid=obs.grid)['cls'].flatten(2), obs.depth))
    x, y = F.pad(x, (0, 1), value=1.).double(), torch.cat([F.one_hot(cls, len(CLASSES)), z.log()[:, None]], 1).double()
    if weights is None: return torch.linalg.solve(x.T@x+1e-3*len(x)*torch.eye(x.shape[1]), x.T@y)
    said, furn = x@weights, cls >= FURNITURE.start
    return dict(furniture=(said[furn, :-1].argmax(1) == cls[furn]).double().mean().item(), depth=((said[:, -1].exp()-z).abs()/z).mean().item())

def train(teacher, seed, steps, grid, ratio=.5, latents=32, smooth=False, on='targets', camera=None, weights=None):
    "A little student"
    cfg = TrainConfig.nano(steps=steps, seed=seed, smooth=smooth, on=on, ratio=ratio, save_every=steps)
    set_seed(seed)
    student = Spa3R(Spa3RConfig.nano(dim=64, nh=2, enc_depth=2, dec_depth=2, n_latents=latents, grid=grid, geo_channels=teacher.channels['geo'], sem_channels=teacher.channels.get('sem', 0)))
    if camera: told_by(student.field, camera)
    exact = isinstance(teacher, ExactTeacher)
    look = lambda b: observe(teacher, *b)
    batch_fn = partial(masked, cfg.batches(RoomSource((42, 42) if exact else (7*grid, 7*grid), images=not exact)), cfg)
    seen = [look(batch_fn(i, 0)).feats for i in range(4)]
    fit_standardisation(student, {k: torch.cat([f[k].flatten(0, -2) for f in seen]) for k in teacher.channels})
    with tempfile.TemporaryDirectory() as d:
        return fit(student, batch_fn, lambda m, b: psfm_loss(m, look(b), on=on, smooth=smooth, weights=weights), cfg, d, progress=False)

def run(row, steps, seeds, scenes):
    "Each variant with each seed: {variant: [{measure: mean over rooms}]}"
    got, grid = {k: [] for k in ROWS[row]}, 8 if row == 'teacher' else 6
    for seed in range(seeds):
        for k, kw in ROWS[row].items():
            kw = dict(kw)
            teacher = load_teacher('teacher', WEIGHTS/'nano', **kw.pop('teacher')) if row == 'teacher' else (Halves if row == 'targets' else ExactTeacher)((grid, grid))
            student = train(teacher, seed, steps, grid, **kw)
            if row == 'targets':  # heads that were not asked know nothing, so all are judged by what their rays know
                got[k].append({'prediction': read_off(student, teacher, range(HELD_OUT, HELD_OUT+scenes), read_off(student, teacher, range(256)))})
                print(f'seed {seed} {k}:', got[k][-1]['prediction'], flush=True)
                continue
            r = evaluate_field(student, teacher, range(HELD_OUT, HELD_OUT+scenes), hw=(7*grid,)*2 if row == 'teacher' else (112, 112))['rows']
            got[k].append({n: {m: r[n][m]['mean'] for m in ('cosine', 'l1', 'furniture')} for n in ('prediction', 'shuffled latents', 'nearest view')})
            print(f'seed {seed} {k}:', {m: round(x, 3) for m, x in got[k][-1]['prediction'].items()}, flush=True)
    return got

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('row', choices=ROWS)
    p.add_argument('--steps', type=int, default=400)
    p.add_argument('--seeds', type=int, default=3)
    p.add_argument('--scenes', type=int, default=32)
    p.add_argument('--out', type=Path, default=Path('nbs/reference/ablations'))
    a = p.parse_args()
    torch.set_num_threads(1)
    start = time.process_time()
    got = run(a.row, a.steps, a.seeds, a.scenes)
    d = dict(row=a.row, command=f'python benchmarks/ablate.py {a.row} --steps {a.steps} --seeds {a.seeds} --scenes {a.scenes}', commit=commit(), hardware=f'1 core of a CPU ({platform.machine()}), no GPU',
             cpu_minutes=round((time.process_time()-start)/60, 1), runs=got)
    atomic_write(a.out/f'{a.row}.json', lambda f: f.write_text(json.dumps(d, indent=1), encoding='utf8'))
