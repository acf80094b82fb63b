"""Make a tuned nano VLM part of the package: weights as float16, judged on unseen rooms, with a card.

    python tools/ship_vlm.py runs/vlm --before runs/eye runs/roll --hours 1.2 --hardware "1 CPU core" --command "spa3r_listen ..."

Writes spa3r/weights/vlm/: what `load_chat` reads, card.json (everything measured) and README.md. Its spatial encoder is the shipped `nano`.
"""
import argparse, json, shutil, subprocess, tempfile
from pathlib import Path
import torch
from transformers import AutoModelForImageTextToText
from ship_weights import ROOT, curve
from spa3r.language.chat import load_chat
from spa3r.util.core import atomic_write
from spa3r.bench.evaluate import evaluate, result_text
from spa3r.language.processor import Processor
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import HELD_OUT
from spa3r.language.vlm import processor_fields  # gives `Processor.from_pretrained`
from spa3r.bench.scoring import prompt
from spa3r.rooms.visibility import room_frames

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('run', type=Path, help='folder of the last stage of spa3r_listen')
    p.add_argument('--before', type=Path, nargs='*', default=[], help='runs that it started from')
    p.add_argument('--command', required=True, help='the command(s) that made it')
    p.add_argument('--hours', type=float, required=True)
    p.add_argument('--hardware', required=True)
    p.add_argument('--rooms', type=int, default=120, help='unseen rooms to judge it on')
    p.add_argument('--note', default='', help='a sentence for the card: what these numbers do not show')
    a = p.parse_args()
    out = ROOT/'vlm'
    shutil.rmtree(out, ignore_errors=True)
    model = AutoModelForImageTextToText.from_pretrained(a.run, dtype=torch.float16)
    model.config.spatial = 'nano'
    model.save_pretrained(out)
    Processor.from_pretrained(str(a.run)).save_pretrained(out)
    for f in out.iterdir(): f.chmod(0o644)  # transformers writes what nobody else can read
    with tempfile.TemporaryDirectory() as d:
        result = evaluate(model=str(out), rooms=a.rooms, frames=8, out=f'{d}/vsibench.json')
    chat = load_chat(str(out), frames=8)
    said = chat.ask(chat.watch(room_frames(HELD_OUT, 8)), [prompt(q) for q in room_questions(HELD_OUT, 1)])
    commit = subprocess.run(['git', 'rev-parse', '--short', 'HEAD'], capture_output=True, encoding='utf8').stdout.strip()
    runs = (*a.before, a.run)
    card = dict(about='A Qwen2.5-VL of a few million weights that learnt to see, to place, to reason and to answer from '
                      'procedural rooms, with the latents of the nano student behind its pictures. '+a.note,
                command=a.command, seed=json.loads((a.run/'train.json').read_text(encoding='utf8'))['seed'],
                commit=commit, hardware=a.hardware, hours=a.hours, parameters=sum(o.numel() for o in model.parameters()),
                stages=[r.name for r in runs], curves=[curve([r/'log.jsonl']) for r in runs],
                # `said`: of the first of these rooms, for a test to have again
                result={k: result[k] for k in ('about', 'runs', 'minus')}, said=said)
    atomic_write(out/'card.json', lambda f: f.write_text(json.dumps(card, indent=1), encoding='utf8'))
    atomic_write(out/'README.md', lambda f: f.write_text(f"""---
license: apache-2.0
library_name: spa3r
pipeline_tag: image-text-to-text
tags:
- spa3r
- 3d
- spatial-reasoning
---
# vlm

{card['about']}

| | |
|---|---|
| made by | `{a.command}` |
| seed | {card['seed']} |
| commit | {commit} |
| hardware | {a.hardware} |
| time | {a.hours:.1f} hours |
| parameters | {card['parameters']:,} (stored as float16) |

Learnt on procedurally generated rooms and nothing else: about real places it knows nothing, and outside of these questions it cannot talk.

## Judged on unseen rooms

```
{result_text(result)}
```
""", encoding='utf8'))

if __name__ == '__main__': main()
