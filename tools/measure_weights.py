"""Measure shipped weights again, when the probe has learnt new questions: card.json and README.md are rewritten, the weights stay as they are.

    python tools/measure_weights.py exact [--scenes 48] [--seeds 3]
"""
import argparse, json
from ship_weights import ROOT, measure_card, write_card

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('name', help='folder below spa3r/weights')
    p.add_argument('--scenes', type=int, default=48, help='rooms in a set')
    p.add_argument('--seeds', type=int, default=3, help='disjoint sets of rooms')
    a = p.parse_args()
    card = json.loads((ROOT/a.name/'card.json').read_text(encoding='utf8'))
    write_card(a.name, measure_card(a.name, card, a.scenes, a.seeds))
