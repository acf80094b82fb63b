"""Make a finished run part of the package: weights as float16, judged on unseen rooms, with a card.

    python tools/ship_weights.py runs/exact exact --hours 1.5 --hardware "1 CPU core" --command "spa3r_pretrain --nano ..."

Writes spa3r/weights/NAME/: config.json, model.safetensors, decoder.onnx, card.json (everything measured) and README.md (the same for people). A student that was
trained on a patch encoder of its own brings it along as NAME/teacher.
"""
import argparse, json, subprocess
from pathlib import Path
import torch
from spa3r.util.core import atomic_write
from spa3r.probe.probes import format_parts,format_table,probe,passes
from spa3r.view.onnx_decoder import export_decoder
from spa3r.model.patch_encoder import VGGT
from spa3r.model.psfm import Spa3R

ROOT = Path(__file__).parent.parent/'spa3r'/'weights'

def curve(logs, points=200):
    "The loss of one or more runs after another, averaged in at most `points` pieces"
    loss = torch.tensor([json.loads(l)['loss'] for log in logs for l in open(log, encoding='utf8')])
    pieces = loss.tensor_split(min(points, len(loss)))
    steps = torch.tensor([len(p) for p in pieces]).cumsum(0)
    return dict(step=steps.tolist(), loss=[round(p.mean().item(), 4) for p in pieces])

def measure_card(name, card, scenes, seeds):
    "The card with the probe's tables for cameras on a path and for cameras far apart"
    tables = {spread:probe(name, scenes=scenes, seeds=seeds, spread=spread) for spread in ('video', 'wide')}
    return card | dict(measures=tables, worth_showing=passes(tables['video']))

def write_card(name, card):
    "For programs, and for people"
    atomic_write(ROOT/name/'card.json', lambda f: f.write_text(json.dumps(card, indent=1), encoding='utf8'))
    atomic_write(ROOT/name/'README.md', lambda f: f.write_text(card_text(name, card), encoding='utf8'))

def card_text(name, c):
    "The card as Markdown"
    tables = '\n\n'.join(f"### {spread} cameras\n\n```\n{format_table(r)}\n\n{format_parts(r)}\n```"
                         for spread, r in c['measures'].items())
    aims = '\n'.join(f"- {a} ({spread} cameras)" for spread, r in c['measures'].items() for a in r['aims'])
    return f"""---
license: apache-2.0
library_name: spa3r
pipeline_tag: {Spa3R.pipeline_tag}
tags:
- spa3r
- 3d
- spatial-reasoning
worth_showing: {str(c['worth_showing']).lower()}
---
# {name}

{c['about']}

| | |
|---|---|
| made by | `{c['command']}` |
| seed | {c['seed']} |
| commit | {c['commit']} |
| hardware | {c['hardware']} |
| time | {c['hours']:.1f} hours |
| parameters | {c['parameters']:,} (stored as float16) |

Learnt on procedurally generated rooms and nothing else: about photos of real places these weights know nothing that they can be trusted with.

## Measures on unseen rooms

{tables}

## Aims

{aims}
"""

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, help='folder of the finished run')
    p.add_argument('name', help='folder below spa3r/weights')
    p.add_argument('--command', required=True, help='the command(s) that made it')
    p.add_argument('--hours', type=float, required=True)
    p.add_argument('--hardware', required=True)
    p.add_argument('--about', default='A student of the feature field.')
    p.add_argument('--before', type=Path, nargs='*', default=[], help='runs that it started from')
    p.add_argument('--teacher-run', type=Path, nargs='*', default=[],
                   help='runs that made the patch encoder, one after another')
    p.add_argument('--scenes', type=int, default=48, help='rooms in a set')
    p.add_argument('--seeds', type=int, default=3, help='disjoint sets of rooms')
    a = p.parse_args()
    out = ROOT/a.name
    student = Spa3R.from_pretrained(a.run)
    student.half().save_pretrained(out)
    if student.cfg.teacher == 'teacher': VGGT.from_pretrained(a.run/'teacher').half().save_pretrained(out/'teacher')
    export_decoder(Spa3R.from_pretrained(out), out/'decoder.onnx')
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, encoding='utf8').stdout.strip()
    c = dict(about=a.about, command=a.command, seed=json.loads((a.run/'train.json').read_text(encoding='utf8'))['seed'],
             commit=commit, hardware=a.hardware, hours=a.hours,
             parameters=sum(o.numel() for o in student.parameters()),
             curve=curve([r/'log.jsonl' for r in (*a.before, a.run)]))
    if a.teacher_run: c['teacher_curve'] = curve([r/'log.jsonl' for r in a.teacher_run])
    write_card(a.name, measure_card(a.name, c, a.scenes, a.seeds))

if __name__ == '__main__': main()
