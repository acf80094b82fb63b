"""What can be read off latents at all? A small transformer learns from latents alone where the things of a room stand.

    python benchmarks/latent_reader.py exact nano runs/nano [--rooms 1000] [--unseen 120] [--steps 1200] [--lessons runs/lessons]

One row for each student: the median distance, on rooms that the reader has not seen, between where it puts the only thing
of a class and where that is, with an interval over rooms; beside it the mean place of the class. It is a ceiling for language
models that hear these latents, and a student whose row is no better than the mean place has nothing to tell them.
"""
import argparse
import numpy as np
import torch
from torch import nn
from spa3r.rooms.rooms import HELD_OUT
from spa3r.train.lessons import NAMES, film
from spa3r.train.listen import source

class Reader(nn.Module):
    "A query for each class looks at the latents"
    def __init__(self, dim, width=128, depth=3):
        super().__init__()
        self.into, self.out = nn.Linear(dim, width), nn.Linear(width, 3)
        self.names = nn.Parameter(torch.randn(len(NAMES), width)/2)
        layer = nn.TransformerDecoderLayer(width, 4, 2*width, batch_first=True, norm_first=True)
        self.look = nn.TransformerDecoder(layer, depth)
    def forward(self, z): return self.out(self.look(self.names.expand(len(z), -1, -1), self.into(z)))

def places(lessons):
    "Where the only thing of each class is, in the frame of the first camera, metres (rooms, names, 3); not a number: none, or several"
    return torch.stack([x['facts'][:,1:4].float() for x in lessons])

def learn(z, where, steps, seed=0):
    "A reader of latents (rooms, m, d)"
    torch.manual_seed(seed)
    reader, known = Reader(z.shape[-1]), ~where.isnan().any(-1)
    opt = torch.optim.AdamW(reader.parameters(), 1e-3, weight_decay=.1)
    rate = torch.optim.lr_scheduler.OneCycleLR(opt, 1e-3, steps, pct_start=.1)
    for _ in range(steps):
        i = torch.randint(len(z), (48,))
        loss = (reader(z[i])-where[i].nan_to_num())[known[i]].norm(dim=-1).mean()
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

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('students', nargs='+', help='exact, nano, a folder or a hub id')
    p.add_argument('--rooms', type=int, default=1000, help='to learn from')
    p.add_argument('--unseen', type=int, default=120, help='to be judged on')
    p.add_argument('--steps', type=int, default=1200)
    p.add_argument('--lessons', default='runs/lessons', help='folder of filmed rooms')
    a = p.parse_args()
    torch.set_num_threads(1)
    train, held = film(a.lessons, a.rooms), film(a.lessons, a.unseen, HELD_OUT+1000)
    true, where = places(held), places(train)
    print(f'mean place of the class: {interval((true-where.nanmean(0)).norm(dim=-1))}')
    for name in a.students:
        make = source(name)
        with torch.no_grad(): z, zh = (torch.stack([make(x).float() for x in xs]) for xs in (train, held))
        mean, std = z.mean((0, 1)), z.std((0, 1))
        reader = learn((z-mean)/std, where, a.steps)
        with torch.no_grad(): off = (reader((zh-mean)/std)-true).norm(dim=-1)
        print(f'{name}: {interval(off)}', flush=True)

if __name__ == '__main__': main()
