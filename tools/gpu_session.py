"""Everything that a GPU should prove, in one go and in order of worth: python tools/gpu_session.py OUT [--device cuda] [--minutes 9] [--tiny] [--only tests,step]

Each part is a process with a time limit of its own and gets no more than what is left of the whole. What it finds out goes into OUT/results.json and, with all it
says, into OUT/session.txt, as it comes: a part that is cut short keeps what it had. The runs of `nano` lie in OUT/speedrun: the weights of each part that came to its end.
`--tiny` runs every part at a toy's size, on a CPU too, to know beforehand that it works.

Weights of the large models are random: times and memory do not depend on them, answers do. What the machine needs: Python with torch, transformers, accelerate,
safetensors, einops, pillow, tqdm, matplotlib, pytest and this folder. An image that holds torch but not the small rest, and no way to a package index, takes it along as wheels
(fastcore is the one most likely to be missing):

    pip download --no-deps -d .whl 'fastcore<2'
    pip install --no-index --no-deps --target .site .whl/*.whl && PYTHONPATH=.site python tools/gpu_session.py OUT
"""
import argparse, json, os, re, shutil, signal, subprocess, sys, tempfile, threading, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMITS = dict(tests=60, nano=250, step=80, spatial=25, tune=40, prefix=30, resume=55)  # seconds, in order of worth
MARK = 'RESULT '

def tell(**found): print(MARK+json.dumps(found), flush=True)

def script(*args, **kw):
    "Run a Python script of this repository, show what it says, return it"
    done = subprocess.run([sys.executable, *map(str, args)], cwd=ROOT,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf8', **kw)
    print(done.stdout, flush=True)
    if done.returncode: tell(failed=' '.join(map(str, args)), code=done.returncode)
    return done.stdout

# the parts; each takes the options and may print RESULT lines

def tests(a):
    "The tests that need a GPU: renderer and cameras agree with the CPU, commands come out much the same"
    names = 'cpu_and_gpu' if a.tiny else 'gpu'
    said = script('-m', 'pytest', '-q', '-p', 'no:cacheprovider', '-rs', '-k', names, 'tests/rooms/test_rooms.py',
                  'tests/model/test_cameras.py', *[] if a.tiny else ['tests/test_devices.py'])
    tell(**{k:int(n) for n,k in re.findall(r'(\d+) (passed|failed|skipped|error)', said)})

def seconds(f, device, repeats=3):
    "Median time of a call, after one to warm up"
    import torch
    times = []
    for _ in range(repeats+1):
        if device=='cuda': torch.cuda.synchronize()
        t = time.perf_counter()
        f()
        if device=='cuda': torch.cuda.synchronize()
        times.append(time.perf_counter()-t)
    return sorted(times[1:])[repeats//2]

def rate(run, steps, images):
    "Images a second of `run(steps)`, without the seconds of its start"
    t = []
    for n in (1, 1, steps+1):
        t.append(time.perf_counter())
        run(n)
    start,all_ = t[2]-t[1],time.perf_counter()-t[2]
    return steps*images/max(all_-start, all_/10)

def nano(a):
    "How many images a second the laptop's models learn from, by batch and workers; then `spa3r_speedrun` in the time that is left: all that ships from random numbers, as far as it comes"
    from spa3r.train.teach_vggt import teach
    from spa3r.train.pretrain import pretrain
    from spa3r.train.speedrun import speedrun
    start,common = time.perf_counter(),dict(device=a.device, quiet=True)
    with tempfile.TemporaryDirectory() as d:
        def one(f, name, n, steps, **kw):
            got = rate(lambda k: f(out=tempfile.mkdtemp(dir=d), steps=k, images=n,
                                   images_device=n, save_every=10**6, **common, **kw), steps, n)
            tell(what=name, images=n, images_a_second=round(got, 1), **kw)
        cores,sizes,steps = os.cpu_count() or 1,(12,) if a.tiny else (512,1024),2 if a.tiny else 20
        workers = dict(workers=0 if a.tiny else max(cores-2, 1))
        for n in sizes: one(teach, 'teach', n, steps, **workers)
        for n in sizes: one(pretrain, 'exact', n, steps, nano=True, eval_every=0, **workers)
    left = a.seconds-(time.perf_counter()-start)
    run,module = Path(a.out)/'speedrun',sys.modules[speedrun.__module__]
    if a.tiny: module.TRIAL = 2
    try: r = speedrun(out=str(run), minutes=.1 if a.tiny else left/60, small=a.tiny, device=a.device, quiet=True)
    finally:
        # what comes back is weights and logs
        for f in (*run.rglob('step-*'), *run.rglob('*.pt'), *run.rglob('unfinished')):
            shutil.rmtree(f) if f.is_dir() else f.unlink(missing_ok=True)
    tell(what='speedrun', minutes=round(60*r['hours'], 2), parts={p['name']:p['steps'] for p in r['parts']},
         losses={p['name']:[round(p['curve'][i][1], 4) for i in (0,-1)] for p in r['parts']})

def step(a):
    "The pre-training step at full size: 12 and 4 views, plain and compiled"
    for views,how in ((2,[]),) if a.tiny else ((12,[]), (12,['--compile']), (4,['--compile']), (4,[])):
        script('benchmarks/pretrain_step.py', '--views', views,
               '--repeats', 1 if a.tiny else 3, *how, *['--nano']*a.tiny, '--json')

def spatial(a):
    "Photographs into latents: 8 and 32 frames, in float32 and in bfloat16"
    import torch
    from spa3r.model.patch_encoder import VGGT,VGGTConfig
    from spa3r.model.psfm import Spa3R,Spa3RConfig
    from spa3r.language.vlm import SpatialEncoder
    from spa3r.teachers.teachers import VGGTTeacher
    from spa3r.data.batches import Views
    vggt,student,hw = (VGGTConfig.nano,Spa3RConfig.nano,(28,28)) if a.tiny else (VGGTConfig,Spa3RConfig,(392,518))
    for dtype in (torch.float32,torch.bfloat16):
        with torch.device(a.device):
            net,s = VGGT(vggt(heads=())),Spa3R(student(geo_channels=2*vggt().dim, sem_channels=0))
        eye = SpatialEncoder(s, VGGTTeacher(net, dtype=dtype)).to(a.device)
        for n in (2,) if a.tiny else (8,32):
            views = Views(torch.rand(1, n, 3, *hw, device=a.device))
            tell(frames=n, dtype=str(dtype), seconds=round(seconds(lambda: eye.encode(views), a.device), 4))

def tune(a):
    "Forward and backward of one batch of a tuning: a language model of 3 billion weights, 8 frames of 504x392, 16 questions"
    import torch
    from transformers import Qwen2_5_VLForConditionalGeneration as Qwen
    sys.path.insert(0, str(ROOT/'benchmarks'))
    from prefix_reuse import grown
    from spa3r.train.finetune import Collator,RoomTalks,inputs_apart,nano_qwen
    toy,p = nano_qwen(2)
    with torch.device(a.device): model = Qwen(toy.config if a.tiny else grown(toy.config))
    model.model.visual.requires_grad_(False)
    model.gradient_checkpointing_enable(dict(use_reentrant=False))
    w,h = (56,56) if a.tiny else (504,392)
    p.images.size['longest_edge'] = w*h
    talk = RoomTalks(1, 2 if a.tiny else 16, frames=2 if a.tiny else 8, hw=(480,640))[0]
    talk.pics = [o.resize((w,h)) for o in talk.pics]  # rooms are filmed four to three
    x = {k:v.to(a.device) for k,v in Collator(p)([talk]).items() if k!='met'}
    def once():
        model.zero_grad(set_to_none=True)
        with torch.autocast(a.device, torch.bfloat16, enabled=a.device=='cuda'):
            loss = model.train()(**inputs_apart(model, x)).loss
        loss.backward()
    t,tokens = seconds(once, a.device),x['input_ids'].numel()
    memory = dict(peak_gb=round(torch.cuda.max_memory_allocated()/1e9, 1)) if a.device=='cuda' else {}
    tell(weights=sum(o.numel() for o in model.parameters()), tokens=tokens,
         seconds=round(t, 3), tokens_a_second=round(tokens/t), **memory)

def prefix(a):
    "A scene watched once for eighteen questions"
    said = script('benchmarks/prefix_reuse.py', *f"--size {'nano' if a.tiny else '3b'} --frames "
                                                 f"{2 if a.tiny else 32} --device {a.device} --times 1".split())
    tell(said=next((l for l in said.splitlines() if 'watched once' in l), 'nothing'))

def resume(a):
    "Two steps of pre-training from photographs, killed after the first and started again"
    import numpy as np, torch
    from PIL import Image
    from spa3r.model.patch_encoder import VGGT,VGGTConfig
    with tempfile.TemporaryDirectory() as d:
        for i in range(24):
            (p := Path(d)/f'photos/scene{i%2}/{i//2}.jpg').parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(i).integers(0, 255, (6,8,3), np.uint8)).resize(
                (56,42) if a.tiny else (640,480), Image.BICUBIC).save(p)
        with torch.device(a.device):
            VGGT((VGGTConfig.nano if a.tiny else VGGTConfig)(heads=('camera','depth'))).save_pretrained(f'{d}/teacher')
        (start := Path(d)/'start.py').write_text('from spa3r.train.pretrain import pretrain\npretrain()\n', encoding='utf8')
        nano = ['--nano','--width','56'] if a.tiny else []
        command = [sys.executable, str(start), *nano, '--out',
                   f'{d}/run', '--data', f'{d}/photos', '--teacher', f'{d}/teacher',
            *'--steps 2 --images 24 --images_device 24 --v_min 12 --v_max 12 '
             '--save_every 1 --eval_every 0 --quiet --device'.split(), a.device]
        t,p = time.perf_counter(),subprocess.Popen(command, cwd=ROOT)
        while p.poll() is None and not list(Path(d).glob('run/step-*')): time.sleep(.05)
        first,_ = time.perf_counter()-t,p.kill()
        p.wait()
        script(*command[1:])
        rows = [json.loads(l) for l in Path(f'{d}/run/log.jsonl').read_text(encoding='utf8').splitlines()]
        tell(to_first_checkpoint=round(first, 1), seconds=round(time.perf_counter()-t, 1),
             steps=[r['step'] for r in rows], losses=[r['loss'] for r in rows])

PARTS = dict(tests=tests, nano=nano, step=step, spatial=spatial, tune=tune, prefix=prefix, resume=resume)

# the session

class Session:
    "Runs parts one after another and writes down what they find"
    def __init__(self, a):
        self.a,self.out,self.end,self.found = a,Path(a.out),time.monotonic()+60*a.minutes,{}
        self.out.mkdir(parents=True, exist_ok=True)
        self.text = open(self.out/'session.txt', 'a', encoding='utf8')
    def say(self, line):
        print(line, end='', flush=True)
        self.text.write(line)
        self.text.flush()
    def note(self, part, **found):
        self.found.setdefault(part, []).append(found)
        tmp = self.out/'results.json.tmp'
        tmp.write_text(json.dumps(self.found, indent=1), encoding='utf8')
        tmp.rename(self.out/'results.json')
    def run(self, part):
        "One part, in a process group that ends with its time"
        # a toy proves nothing by being fast
        left = min(LIMITS[part]*(10 if self.a.tiny else 1), self.end-time.monotonic())
        if left<5: return self.note(part, not_run='no time left')
        self.say(f'\n== {part}: {PARTS[part].__doc__}; {left:.0f} s\n')
        command = [sys.executable, __file__, self.a.out, '--part', part, '--device',
                   self.a.device, '--seconds', str(left), *['--tiny']*self.a.tiny]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get('PYTHONPATH')])])
        p = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding='utf8',
                             start_new_session=True, env=os.environ|dict(PYTHONPATH=path, PYTHONUNBUFFERED='1'))
        start,late = time.monotonic(),threading.Timer(left, lambda: os.killpg(p.pid, signal.SIGKILL))
        late.start()
        for line in p.stdout:
            self.say(line)
            if line.startswith(MARK): self.note(part, **json.loads(line.removeprefix(MARK)))
        code = p.wait()
        late.cancel()
        self.note(part, seconds=round(time.monotonic()-start, 1), **{} if code==0
                  else dict(ended='out of time' if code==-signal.SIGKILL else f'with {code}'))

def machine(device):
    "What it runs on"
    import torch
    name = torch.cuda.get_device_name() if device=='cuda' else 'CPU'
    return dict(device=name, torch=torch.__version__, cores=os.cpu_count(), python=sys.version.split()[0])

if __name__=='__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('out', nargs='?', default=os.environ.get('OUT', 'gpu_session'),
                   help='folder of the results; $OUT by default')
    p.add_argument('--device', default='cuda')
    p.add_argument('--minutes', type=float, default=9.)
    p.add_argument('--tiny', action='store_true', help="toys' sizes")
    p.add_argument('--only', default=','.join(PARTS), help='parts, with commas')
    p.add_argument('--part', default='', help='run this part here; for the session itself')
    p.add_argument('--seconds', type=float, default=60., help='with --part: how long it may take')
    a = p.parse_args()
    if odd := set(a.only.split(','))-set(PARTS):
        p.error(f"no parts {', '.join(sorted(odd))}: there are {', '.join(PARTS)}")
    if a.part: PARTS[a.part](a)
    else:
        s = Session(a)
        s.note('machine', **machine(a.device))
        for part in a.only.split(','): s.run(part)
        s.say(f"\n{json.dumps(s.found, indent=1)}\n")
