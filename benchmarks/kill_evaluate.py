"""Kill a running evaluation again and again, let it finish, and count what was lost and what was asked twice.

    python benchmarks/kill_evaluate.py [--kills 20] [--world 2]

A dummy model notes every question before it thinks about it for a few milliseconds. Each round starts the loop in `world` processes, waits for its
first answers, lets it work for a moment and sends SIGKILL. The last round is left alone. A question whose answer was on its way when the signal came has to be
asked again; one whose answer was in the file must not be.
Then the loop alone is timed: questions a second of a model that takes no time, with and without a file.
"""
import json, multiprocessing, os, random, signal, tempfile, time
from collections import Counter
from pathlib import Path
from fastcore.script import call_parse
from spa3r.bench.evaluate import ask, ask_id, make_scenes, read_answers

def made(n, per=18):
    "Questions about scenes of `per` questions each"
    return [dict(id=i, dataset='dummy', scene_name=f's{i//per:05d}', question_type='object_counting', question=f'How many of {i}?', options=None, ground_truth='2')
            for i in range(n)]

def child(folder, n, rank, world, think):
    log = open(folder/f'asked.{rank}', 'ab', buffering=0)
    def answer(scene, qs):
        log.write(''.join(ask_id(q)+'\n' for q in qs).encode())
        time.sleep(think)
        return ['2']*len(qs)
    ask(answer, make_scenes(made(n), None), folder/'answers', 8, rank, world)

def lines(folder):
    "Fingerprints of all complete lines"
    return Counter(json.loads(l)['ask'] for p in (folder/'answers').glob('rank*.jsonl') for l in p.read_bytes().split(b'\n')[:-1])

def rate(n, folder):
    start = time.perf_counter()
    ask(lambda scene,qs: ['2']*len(qs), make_scenes(made(n), None), folder)
    return n/(time.perf_counter()-start)

@call_parse
def main(
    kills:int=20, # How often
    questions:int=40_000, # How many
    world:int=2, # Processes
    think:float=.004, # Seconds that the dummy takes for eight questions
    seed:int=0, # When to kill
):
    "Kill a running evaluation and see what is lost"
    r = random.Random(seed)
    with tempfile.TemporaryDirectory() as tmp:
        tmp,done,lost,again,rounds,torn = Path(tmp),set(),0,0,0,0
        while True:
            logged = {p:p.stat().st_size for p in tmp.glob('asked.*')}
            ps = [multiprocessing.get_context('fork').Process(target=child, args=(tmp, questions, i, world, think)) for i in range(world)]
            for p in ps: p.start()
            if rounds<kills:
                while len(list(tmp.glob('asked.*')))<world or any(p.stat().st_size==logged.get(p, 0) for p in tmp.glob('asked.*')): time.sleep(.02)
                time.sleep(r.uniform(0, .4))
                for p in ps: os.kill(p.pid, signal.SIGKILL)
            for p in ps: p.join()
            torn += sum(p.read_bytes()[-1:] not in (b'\n',b'') for p in (tmp/'answers').glob('rank*.jsonl'))
            new = [a for p in tmp.glob('asked.*') for a in p.read_bytes()[logged.get(p, 0):].decode().split()]
            again += len(set(new)&done)
            now = set(read_answers(tmp/'answers'))
            lost += len(done-now)
            done = now
            if rounds==kills: break
            print(f'kill {rounds+1:2}: {len(done):6} answers on disk', flush=True)
            rounds += 1
        want,got = set(map(ask_id, made(questions))),lines(tmp)
        asked = Counter(a for p in tmp.glob('asked.*') for a in p.read_text(encoding='utf8').split())
        print(f'{kills} kills of {world} processes, {questions} questions, {torn} torn lines')
        print(f'answers lost: {lost}; questions without an answer in the end: {len(want-set(got))}; asked again although answered: {again}; answered twice: {sum(n>1 for n in got.values())}')
        print(f'asked again because the kill came before the answer: {sum(n-1 for n in asked.values())}, {sum(n-1 for n in asked.values())/max(kills*world,1):.1f} a process and kill')
        print(f'the loop with a model that takes no time: {rate(questions, tmp/"timed"):.0f} questions/s with a file, {rate(questions, None):.0f} without')
