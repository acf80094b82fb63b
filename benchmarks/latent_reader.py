"""What can be read off latents at all? A small transformer learns from latents alone how many things of each class a room has,
where they stand, how large they are and which comes first; rules answer the questions of VSI-Bench from that.

    python benchmarks/latent_reader.py exact nano direct:nano [--rooms 1000] [--unseen 120] [--steps 1200] [--lessons runs/lessons]

One row for each student (`direct:` and a student: the features that it learnt from): on rooms that the reader has not seen, the
median distance between where it puts the only thing of a class and where that is, and the scores of its answers, with intervals
over rooms; beside it the means of each class, and the truth, which shows what the rules are worth. A student whose rows are no
better than the means has nothing to tell a language model.
"""
import argparse, re
import numpy as np
import torch
from torch import nn
from spa3r.bench.baselines import format_table, summarise
from spa3r.bench.scoring import grade
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import HELD_OUT
from spa3r.rooms.visibility import bearing, sector
from spa3r.train.lessons import FACTS, NAMES, film
from spa3r.train.listen import source

class Reader(nn.Module):
    "A query for each class looks at the latents"
    def __init__(self, dim, width=128, depth=3):
        super().__init__()
        self.into, self.out = nn.Linear(dim, width), nn.Linear(width, FACTS)
        self.names = nn.Parameter(torch.randn(len(NAMES), width)/2)
        layer = nn.TransformerDecoderLayer(width, 4, 2*width, batch_first=True, norm_first=True)
        self.look = nn.TransformerDecoder(layer, depth)
    def forward(self, z): return self.out(self.look(self.names.expand(len(z), -1, -1), self.into(z)))

def facts(lessons): return torch.stack([x['facts'].float() for x in lessons])

def lost(said, true):
    "How far off facts are, (rooms, names, FACTS): metres for places, the mean of all others; what nobody knows does not count"
    known = ~true.isnan()
    off = (said-true.nan_to_num())*known
    places, others = off[...,1:4].norm(dim=-1), torch.cat([off[...,:1], off[...,4:]], -1).abs()
    return places.sum()/known[...,1].sum()+others.sum()/(known.sum()-3*known[...,1].sum())

def learn(z, true, steps, seed=0):
    "A reader of latents (rooms, m, d)"
    torch.manual_seed(seed)
    reader = Reader(z.shape[-1])
    opt = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, steps, pct_start=.1)
    for _ in range(steps):
        i = torch.randint(len(z), (48,))
        loss = lost(reader(z[i]), true[i])
        opt.zero_grad()
        loss.backward()
        opt.step()
        rate.step()
    return reader.eval()

def interval(off, n=2000):
    "Median of what is off, (rooms, names), and where it lies for 95 of 100 draws of rooms"
    draws = torch.randint(len(off), (n, len(off)), generator=torch.Generator().manual_seed(0))
    low, high = np.quantile([off[i].nanmedian().item() for i in draws], (.025, .975))
    return f'{off.nanmedian():.2f} m [{low:.2f}, {high:.2f}]'

# --- from facts to answers

def between(f, a, b):
    "What the distance of two things depends on: that of their middles, and their sizes"
    return np.array([np.linalg.norm(f[a,1:4]-f[b,1:4]), *(f[a,4:7]+f[b,4:7]), 1.])

def gap_rule(lessons):
    "Weights that turn `between` into the distance of the closest points, by least squares over true rooms"
    pairs = [(between(x['facts'].numpy(), a, b), x['gaps'][a,b].item()) for x in lessons
             for a, b in (~x['gaps'].isnan()).nonzero().tolist() if a<b]
    xs, ys = map(np.array, zip(*pairs))
    return np.linalg.lstsq(xs, ys, rcond=None)[0]

def named(text): return [NAMES.index(w) for w in re.findall('[a-z]+', text) if w in NAMES[:-1]]

def turns(text, at):
    "Degrees that a route asks to turn by"
    start, facing, *stops = named(re.sub('You want to navigate to the [a-z]+', '', text))
    way, out = [at[start], *at[stops]], []
    for i in range(len(stops)): out.append(bearing(way[i], at[facing] if i==0 else 2*way[i]-way[i-1], way[i+1]))
    blanks = text.count('[please fill in]')-1  # one stands in the note; a route may begin straight ahead
    return out[len(out)-blanks:]

def answer(q, f, rule):
    "What follows from facts (names, FACTS)"
    t, at, i = q['question_type'], f[:,1:3], named(q['question'])
    options = dict(o.split('. ', 1) for o in q['options'] or ())
    gap = lambda a, b: max(between(f, a, b)@rule, .1)
    if t=='object_counting': return f'{max(round(2*f[i[0],0]+2), 2)}'
    if t=='object_abs_distance': return f'{gap(*i[:2]):.1f}'
    if t=='object_size_estimation': return f'{100*f[i[0],6]:.0f}'
    if t=='room_size_estimation': return f'{4*f[-1,4]*f[-1,5]:.1f}'
    if t=='object_rel_distance': return min(options, key=lambda k: gap(named(options[k])[0], i[-1]))
    if t.startswith('object_rel_direction'):
        side = sector(t.rpartition('_')[2], bearing(*at[i[:3]]))
        return next(k for k, o in options.items() if o==side)
    if t=='obj_appearance_order': return min(options, key=lambda k: np.clip(-np.diff(f[named(options[k]),7]), 0, None).sum())
    by = {'Turn Left':90, 'Turn Right':-90, 'Turn Back':180}
    asked = turns(q['question'], at)
    wrong = lambda k: sum(abs((by[w]-a+180)%360-180) for w, a in zip(options[k].split(', '), asked))
    return min(options, key=wrong)

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('students', nargs='+', help='exact, nano, a folder or a hub id; direct:exact, direct:nano, ...')
    p.add_argument('--rooms', type=int, default=1000, help='to learn from')
    p.add_argument('--unseen', type=int, default=120, help='to be judged on')
    p.add_argument('--steps', type=int, default=1200)
    p.add_argument('--lessons', default='runs/lessons', help='folder of filmed rooms')
    a = p.parse_args()
    torch.set_num_threads(1)
    train, held = film(a.lessons, a.rooms), film(a.lessons, a.unseen, HELD_OUT+1000)
    true, known = facts(held), facts(train)
    rule, usual = gap_rule(train), known.nanmean(0).nan_to_num()
    asked = [(q, x) for x in range(a.unseen) for q in room_questions(HELD_OUT+1000+x)]
    def judge(name, said):
        print(f'{name}: places {interval((said-true)[...,1:4].norm(dim=-1))}', flush=True)
        said = torch.where(said.isnan(), usual, said).numpy()
        return summarise(grade([q for q, _ in asked], [answer(q, said[x], rule) for q, x in asked]))
    runs = {'the truth':judge('the truth', true), 'means':judge('means', usual.expand_as(true))}
    for name in a.students:
        make = source(name)
        with torch.no_grad(): z, zh = (torch.stack([make(x).float() for x in xs]) for xs in (train, held))
        mean, std = z.mean((0, 1)), z.std((0, 1))
        reader = learn((z-mean)/std, known, a.steps)
        with torch.no_grad(): runs[name] = judge(name, reader((zh-mean)/std))
    print(format_table(runs))

if __name__ == '__main__': main()
