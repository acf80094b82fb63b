"""Is a run that was killed twenty times the run that was left alone? Losses, weights and log are compared to the last bit.

    python benchmarks/kill_resume.py [--kills 20] [--steps 60] [--workers 0] [--seed 0]

`spa3r_pretrain --nano` runs once straight through and once with `kill -9` at random moments: a few while it starts, the others spread over its steps,
each a random part of a step late. Every start is the same command. On a CPU; a kill costs one start, so this takes minutes.
"""
import argparse, json, os, random, signal, subprocess, sys, tempfile, time
from pathlib import Path
from safetensors.torch import load_file

COMMAND = ('--nano --grid 4 --images 24 --images_device 12 --v_min 2 --v_max 4 --eval_every 0 --save_every 5 --device cpu --quiet').split()

def start(out, a):
    "The command, running"
    exe = Path(sys.executable).parent/'spa3r_pretrain'
    return subprocess.Popen([exe, '--out', out, '--steps', str(a.steps), '--workers', str(a.workers), *COMMAND], env=os.environ | dict(OMP_NUM_THREADS='1'))

def lines(out):
    "The log as it is on disk"
    return (out/'log.jsonl').read_bytes() if (out/'log.jsonl').exists() else b''

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--kills', type=int, default=20)
    p.add_argument('--steps', type=int, default=60)
    p.add_argument('--workers', type=int, default=0)
    p.add_argument('--seed', type=int, default=0, help='of the moments')
    a = p.parse_args()
    random.seed(a.seed)
    with tempfile.TemporaryDirectory() as d:
        whole, killed = Path(d)/'whole', Path(d)/'killed'
        t = time.time()
        assert start(whole, a).wait() == 0
        step = json.loads((whole/'runs.jsonl').read_text(encoding='utf8'))['seconds']/a.steps
        print(f'left alone: {a.steps} steps, {time.time()-t:.0f} s, {step:.2f} s a step', flush=True)
        early = a.kills//5
        moments = [None]*early + sorted(random.randrange(1, a.steps) for _ in range(a.kills-early))
        kept = True
        for i, at in enumerate(moments):
            before, run = lines(killed), start(killed, a)
            if at is None: time.sleep(random.uniform(0, 6))
            while at is not None and lines(killed).count(b'\n') < at and run.poll() is None: time.sleep(step/20)
            if at is not None: time.sleep(random.uniform(0, 1.5*step))
            run.send_signal(signal.SIGKILL)
            assert run.wait() == -signal.SIGKILL, f'ended by itself with {run.returncode}'
            kept &= lines(killed).startswith(before[:before.rfind(b'\n')+1])
            last = max(killed.glob('step-*'), default=None)
            print(f"kill {i+1}: {lines(killed).count(bytes([10]))} lines in the log, checkpoint {last.name if last else 'none'}"
                  + (', while writing the next' if (killed/'unfinished').exists() else ''), flush=True)
        assert start(killed, a).wait() == 0
        x, y = (load_file(o/'model.safetensors') for o in (whole, killed))
        la, lb = ([json.loads(l)['loss'] for l in lines(o).splitlines()] for o in (whole, killed))
        same = all((x[k] == y[k]).all() for k in x)
        print(f"losses {'equal' if la == lb else 'NOT EQUAL'} ({len(la)} and {len(lb)} lines), weights {'equal' if same else 'NOT EQUAL'}, "
              f"lines of the log {'never rewritten' if kept else 'REWRITTEN'}")
        sys.exit(not (la == lb and same and kept))

if __name__ == '__main__': main()
