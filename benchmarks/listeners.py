"""What is a way of telling a language model about a scene worth? Models of spa3r_listen side by side, on rooms that none of them has seen.

    python benchmarks/listeners.py none=runs/none-0,runs/none-1 append=runs/append-0,runs/append-1 [--rooms 120] [--lessons runs/lessons] [--out listeners.json]

Each variant has a name and folders of stage `ask`, one a seed. For each: the eight tasks of VSI-Bench, each question's
score averaged over the seeds, with intervals over rooms; the same with the latents of the next room, and how many
answers differ then; how far from the truth it places names; how it compares with the other variants, with another
room's latents and with blind. A folder says in its train.json where its latents come from.
"""
import argparse, json
from pathlib import Path
import numpy as np
import torch
from spa3r.bench.baselines import compare, format_table, summarise
from spa3r.bench.evaluate import SIMPLE, commit
from spa3r.bench.scoring import grade
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import CLASSES, HELD_OUT
from spa3r.train.lessons import NAMES, film
from spa3r.train.listen import answers, load_listener, placement, prepare, source
from spa3r.util.core import atomic_write

def spatial(folder):
    "Where the latents of a model come from; empty if it has none"
    d = json.loads((Path(folder)/'train.json').read_text(encoding='utf8'))
    return '' if d['fusion']=='none' else d['spatial']

def asked(model, rooms, shift=0):
    "Answers to all questions about rooms, with the latents of the room that is `shift` further on"
    return [a for i, x in enumerate(rooms)
            for a in answers(model, x, room_questions(x['room']), rooms[(i+shift) % len(rooms)].get('latents'), 16)]

def seen(model, x):
    "Where a model believes the things of a room to be, where they are, and what they are called"
    pairs, names = placement(model, [x]), [n for n, f in zip(NAMES, x['facts']) if not f[1].isnan()]
    return dict(names=names, said=pairs[:,0].tolist(), true=pairs[:,1].tolist())

def plan(x):
    "What the patches of a room show, seen from above: right and ahead of the first camera, metres; is it furniture?"
    at, cls = x['places'].float().flatten(0, 1)[:,:2], x['cls'].flatten()
    shown = ~torch.isin(cls, torch.tensor([CLASSES.index(c) for c in ('floor', 'ceiling')]))
    return dict(at=at[shown].mul(100).round().div(100).tolist(), furniture=(cls[shown]!=CLASSES.index('wall')).tolist())

def judged(folders, rooms, qs):
    "What the seeds of a variant answer and believe"
    out = dict(own=[], other=[], changed=[], place=[])
    for folder in folders:
        model = load_listener(folder)
        for x in rooms: x.pop('latents', None)
        prepare(rooms, model, source(spatial(folder)) if spatial(folder) else None)
        pairs = placement(model, rooms)
        out['place'].append((pairs[:,0]-pairs[:,1]).norm(dim=-1).tolist())
        own = asked(model, rooms)
        out['own'].append(grade(qs, own))
        if not spatial(folder): continue
        other = asked(model, rooms, 1)
        out['other'].append(grade(qs, other))
        out['changed'].append(sum(x!=y for x, y in zip(own, other))/len(own))
    return out|dict(map=seen(model, rooms[0]))

def mean(runs):
    "One row for each question: its score averaged over the seeds"
    return [r[0]|dict(score=sum(o['score'] for o in r)/len(r), readable=all(o['readable'] for o in r)) for r in zip(*runs)]

def summary(name, j, folders):
    "A variant in numbers"
    off = [float(np.median(p)) for p in j['place']]
    return dict(folders=len(folders), spatial=spatial(folders[0]), place=off, changed=j['changed'], map=j['map'],
                overall=[summarise(r, 1)['scores']['overall'] for r in j['own']])

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('models', nargs='+', help='NAME=FOLDER,FOLDER...')
    p.add_argument('--rooms', type=int, default=120, help='unseen rooms')
    p.add_argument('--lessons', default='runs/lessons', help='folder of filmed rooms')
    p.add_argument('--out', default='listeners.json')
    a = p.parse_args()
    torch.set_num_threads(1)
    first = HELD_OUT+1000  # the stages look at the rooms from HELD_OUT on while they learn
    qs = [q for i in range(a.rooms) for q in room_questions(first+i)]
    rows, models, said = {k:grade(qs, f(qs)) for k, f in SIMPLE.items() if k!='oracle'}, {}, {}
    variants = {k:v.split(',') for k, v in (m.split('=') for m in a.models)}
    rooms = film(a.lessons, a.rooms, first)
    mine = room_questions(first)
    for name, folders in variants.items():
        j = judged(folders, rooms, qs)
        models[name], rows[name] = summary(name, j, folders), mean(j['own'])
        if j['other']: rows[f'{name}, another room'] = mean(j['other'])
        said[name] = [(r['answer'], o['answer']) for r, o in zip(j['own'][0], (j['other'] or j['own'])[0])][:len(mine)]
        print(name, {k:v for k, v in models[name].items() if k!='map'}, flush=True)
    beside = lambda x: [y for y in ('blind', *variants, f'{x}, another room') if y in rows and y!=x]
    minus = {f'{x} - {y}':compare(rows[x], rows[y])['overall'] for x in variants for y in beside(x)}
    runs = {k:summarise(r) for k, r in rows.items()}
    print(format_table(runs))
    for k, m in minus.items(): print(f"{k}: {100*m['difference']:+.1f} [{100*m['low']:.1f}, {100*m['high']:.1f}]")
    result = dict(rooms=a.rooms, questions=len(qs), commit=commit(), models=models, runs=runs, minus=minus, asked=mine, said=said,
                  plan=plan(rooms[0]))
    atomic_write(Path(a.out), lambda f: f.write_text(json.dumps(result), encoding='utf8'))

if __name__ == '__main__': main()
