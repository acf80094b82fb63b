"""Does an uncertainty know where the field is wrong? The table of `probe/03_uncertainty`, from more rooms.

    python benchmarks/uncertainty.py [--weights exact] [--sets 3] [--rooms 48] [--fit 48]

Prints mean ± standard deviation over rooms, for calibration over sets, then the deviation of the sets' means. The rooms to fit on are the last ones before the held-out ones.
"""
import argparse
import torch
from spa3r.teachers.teachers import load_student
from spa3r.rooms.rooms import HELD_OUT
from spa3r.probe.uncertainty import estimates, format_uncertainty, judge_uncertainty

def measure(weights, sets, rooms, fit, n_ctx=3, v=6, spread='video'):
    "What `judge_uncertainty` says of shipped weights"
    student, teacher, _ = load_student(weights)
    kw = dict(n_ctx=n_ctx, v=v, spread=spread)
    known, new = range(HELD_OUT-fit, HELD_OUT), range(HELD_OUT, HELD_OUT+sets*rooms)
    return judge_uncertainty(*[estimates(student, teacher, o, **kw) for o in (known, new)], sets=sets)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--weights', default='exact')
    p.add_argument('--sets', type=int, default=3)
    p.add_argument('--rooms', type=int, default=48)
    p.add_argument('--fit', type=int, default=48)
    p.add_argument('--spread', default='video', choices=('video', 'wide'))
    a = p.parse_args()
    torch.set_num_threads(1)
    res = measure(a.weights, a.sets, a.rooms, a.fit, spread=a.spread)
    print(f"{a.weights}: {a.sets} sets of {a.rooms} unseen rooms, {a.fit} others to fit on, cameras {a.spread}\n{format_uncertainty(res)}")
    if a.sets > 1: print('deviation of the sets\' means: '+', '.join(f"{k} rank {d['rank']['std_sets']:.3f} gain {d['gain']['std_sets']:.3f}" for k, d in res.items()))
    print('scales: '+', '.join(f"{k} {d['scale']['scale']:.3g} x u^{d['scale']['power']:g}" for k, d in res.items()))
