"""What is a way of telling a language model about a scene worth? Models of spa3r_listen side by side, on rooms that none of them has seen.

    python benchmarks/listeners.py runs/none/ask runs/cross/ask runs/append/ask [--rooms 120] [--lessons runs/lessons] [--out listeners.json] [--picture map.png]

For each model: the eight tasks of VSI-Bench with intervals over rooms; the same with the latents of the next room, and how many answers differ then; how far from the truth it
places names; and its difference to every other model, to chance, frequency and blind. The folder of a stage says in its train.json where its latents come from.
"""
import argparse, json
from pathlib import Path
import matplotlib.pyplot as plt
import torch
from spa3r.bench.baselines import compare, format_table, summarise
from spa3r.bench.evaluate import SIMPLE, commit
from spa3r.bench.scoring import grade
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import HELD_OUT
from spa3r.train.lessons import NAMES, film
from spa3r.train.listen import answers, load_listener, placement, prepare, source
from spa3r.util.core import atomic_write

def told(folder):
    "Where the latents of a model come from; empty if it has none"
    d = json.loads((Path(folder)/'train.json').read_text(encoding='utf8'))
    return '' if d['fusion']=='none' else d['spatial']

def asked(model, rooms, swap):
    "Answers to all questions about rooms, with their own latents or with those of the next room"
    out = []
    for i, x in enumerate(rooms):
        y = rooms[(i+1) % len(rooms)] if swap else x
        out += answers(model, x, room_questions(x['room']), y.get('latents'), 16)
    return out

def placed(pairs):
    "Errors of placement, metres: median and quartiles"
    off = (pairs[:,0]-pairs[:,1]).norm(dim=-1)
    return dict(zip(('low','median','high'), [round(o, 3) for o in off.quantile(torch.tensor([.25,.5,.75])).tolist()]), names=len(off))

def draw(ax, model, x, title):
    "Where a model believes things to be, and where they are"
    pairs, names = placement(model, [x]), [n for n, f in zip(NAMES, x['facts']) if not f[1].isnan()]
    for (a, b), name in zip(pairs, names):
        ax.plot(*torch.stack([a[:2], b[:2]]).T, color='gray', lw=.7)
        ax.plot(*b[:2], 's', color='#2a6', ms=5)
        ax.plot(*a[:2], 'o', color='#c60', ms=4)
        ax.text(*b[:2], f' {name}', fontsize=6)
    ax.set(title=title, aspect='equal', xticks=[], yticks=[])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('models', nargs='+', help='folders of stages ask, or of stages roll, which only place')
    p.add_argument('--rooms', type=int, default=120, help='unseen rooms')
    p.add_argument('--lessons', default='runs/lessons', help='folder of filmed rooms')
    p.add_argument('--out', default='listeners.json')
    p.add_argument('--picture', default='', help='file for the maps that the models have of the first room')
    a = p.parse_args()
    torch.set_num_threads(1)
    first = HELD_OUT+1000  # the stages look at the rooms from HELD_OUT on while they learn
    qs = [q for i in range(a.rooms) for q in room_questions(first+i)]
    rows, result, maps = {k:grade(qs, f(qs)) for k, f in SIMPLE.items()}, {}, []
    for folder in a.models:
        model, rooms = load_listener(folder), film(a.lessons, a.rooms, first)
        prepare(rooms, model, source(told(folder)) if told(folder) else None)
        result[folder] = dict(spatial=told(folder), fusion=model.vlm.config.fusion, place=placed(placement(model, rooms)))
        maps.append((folder, model, rooms[0]))
        if json.loads((Path(folder)/'train.json').read_text(encoding='utf8'))['stage']!='ask': continue
        own = asked(model, rooms, False)
        rows[folder] = grade(qs, own)
        if told(folder):
            other = asked(model, rooms, True)
            rows[f'{folder}, another room'] = grade(qs, other)
            result[folder]['changed'] = sum(x!=y for x, y in zip(own, other))/len(own)
        print(folder, result[folder], flush=True)
    runs = {k:summarise(r) for k, r in rows.items()}
    minus = {f'{x} - {y}':compare(rows[x], rows[y])['overall'] for x in rows if x not in SIMPLE for y in rows if x!=y}
    print(format_table(runs))
    for k, m in minus.items(): print(f"{k}: {100*m['difference']:+.1f} [{100*m['low']:.1f}, {100*m['high']:.1f}]")
    for k, r in result.items(): print(k, r)
    atomic_write(Path(a.out), lambda f: f.write_text(json.dumps(dict(rooms=a.rooms, commit=commit(), models=result, runs=runs, minus=minus), indent=1), encoding='utf8'))
    if a.picture:
        fig, axs = plt.subplots(1, len(maps), figsize=(3.2*len(maps), 3.2), squeeze=False)
        for ax, (k, model, x) in zip(axs[0], maps): draw(ax, model, x, k)
        fig.savefig(a.picture, dpi=110)

if __name__ == '__main__': main()
