"""How should a language model be told of a scene? The same small Qwen, tuned with one way of telling or another, judged on questions about unseen rooms.

    python benchmarks/ablate_vlm.py BASE [--rooms 400] [--passes 1] [--seeds 0 1 2] [--judged 40] [--keep runs/told] [--out nbs/reference/ablations]

BASE is a Qwen that has been taught on rooms without geometry: spa3r_finetune --nano --fusion none --rooms 1600 --epochs 1 --out BASE. Every variant goes on from it with the same
conversations: no geometry; the nano teacher's features of all views, asked directly; the nano student's latents, by cross-attention and appended; and latents
of the exact student, which knows the true field of what the frames show. Judged by the eight tasks of VSI-Bench on rooms, beside chance, frequency and blind.
Each run is kept in KEEP as it ends, so what was stopped goes on, and several processes may take a seed each. Writes OUT/language.json.
"""
import argparse, json, platform, tempfile, time
from functools import cache, wraps
from pathlib import Path
import torch
from transformers import PrinterCallback
from spa3r.bench.questions_data import room_data
from spa3r.model.cameras import Cameras
from spa3r.language.chat import Chat
from spa3r.util.core import atomic_write, set_seed
from spa3r.bench.evaluate import SIMPLE, VLM, ask_id, commit, make_scenes
from spa3r.train.finetune import Collator, RoomTalks, TuneConfig, Tuner, pupils, training_args
from spa3r.language.processor import Processor, pictures
from spa3r.teachers.teachers import load_student
from spa3r.rooms.rooms import HELD_OUT, make_rooms
from spa3r.data.scenes import resize_view, stack_views
from spa3r.language.vlm import SpatialEncoder
from spa3r.data.batches import BrokenReport, Views
from spa3r.bench.scoring import grade, totals
from spa3r.language.vlm import Spa3Qwen2_5VL, Spa3Qwen2_5VLConfig, processor_fields
from spa3r.rooms.visibility import room_video
from transformers import AutoConfig, AutoModelForImageTextToText

class Talks(RoomTalks):
    "Conversations about rooms that are filmed once, for all variants of a seed"
    @staticmethod
    @cache
    def filmed(seed, room, frames): return RoomTalks(1, frames=frames, seed=seed).scene(room)[::2]

    def scene(self, room):
        frames, questions = self.filmed(self.seed, room, self.frames)
        return frames, self.eye(room, frames) if self.eye else None, questions

def once(f):
    "Look at each room once"
    seen = {}
    @wraps(f)
    def g(room, frames):
        if room not in seen: seen[room] = f(room, frames)
        return seen[room]
    return g

def eyes():
    "Ways to look at a room: function of its number and its frames -> (m, c)"
    nano, (student, teacher, _) = SpatialEncoder.from_pretrained('nano'), load_student('exact')
    views = lambda frames: stack_views([resize_view(p, *nano.view) for p in pictures(frames)])
    @torch.no_grad()
    def direct(room, frames): return nano.teacher.context(Views(views(frames)[None]))[0][0].flatten(0, 1)
    @torch.no_grad()
    def latents(room, frames): return nano(views(frames))
    @torch.no_grad()
    def exact(room, frames):
        cams = room_video(room, len(frames))[1]
        h, w = cams.hw
        K = cams.K.clone()
        K[..., 0, 2] -= (w-h)/2  # the square in the middle, as the student was trained
        return student.encode(*teacher.context(Views(rooms=make_rooms([room]), cams=Cameras(cams.w2c, K, (h, h))[None])))[0]
    return dict(direct=once(direct), latents=once(latents), exact=once(exact))

VARIANTS = {'no geometry': ('none', None), 'teacher, cross-attention': ('cross', 'direct'), 'latents, appended': ('append', 'latents'),
            'latents, cross-attention': ('cross', 'latents'), 'exact latents, cross-attention': ('cross', 'exact')}

def start(base, fusion, width, n):
    "The base, and an adapter for latents that will be given"
    if fusion == 'none': return AutoModelForImageTextToText.from_pretrained(base, dtype=torch.float32)
    fields = {k: v for k, v in AutoConfig.from_pretrained(base).to_dict().items() if k != 'model_type'}
    cfg = Spa3Qwen2_5VLConfig(**fields | dict(fusion=fusion, latent_dim=width, n_latents=n))
    return Spa3Qwen2_5VL.from_pretrained(base, config=cfg, dtype=torch.float32)

class Told(Chat):
    "A chat that is given latents with the frames of a scene"
    latents = None
    def inputs(self, texts, pics): return self.move(self.processor(texts, pics, latents=None if self.latents is None else [self.latents]*len(texts)))

def answerer(model, processor, eye, frames):
    "Look at a room once, then answer all the questions about it"
    vlm = VLM(Told(model, processor, frames=frames))
    def answer(scene, questions):
        if eye: vlm.chat.latents = scene.once('latents', lambda: eye(int(scene.name.rpartition('-')[2]), scene.frames(frames)))
        return vlm.answer(scene, questions)
    return answer

def tune(base, fusion, talks, cfg):
    "A model, tuned with one way of telling"
    set_seed(cfg.seed)
    latents = talks.scene(talks.number(0))[1]
    width, n = (0, 0) if latents is None else latents.shape[::-1]
    model, p = start(base, fusion, width, n), Processor.from_pretrained(base)
    p = Processor(p.tokenizer, p.images, **processor_fields(model.config))
    with tempfile.TemporaryDirectory() as d:
        t = Tuner(pupils(model, cfg), training_args(cfg, d, torch.device('cpu')), talks, Collator(p), BrokenReport())
        t.remove_callback(PrinterCallback)
        t.train()
    return model.eval(), p

def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('base', help='folder of a tuned nano Qwen without geometry')
    p.add_argument('--rooms', type=int, default=400)
    p.add_argument('--passes', type=int, default=1)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--judged', type=int, default=40, help='unseen rooms')
    p.add_argument('--lr', type=float, default=1e-3)
    p.add_argument('--keep', type=Path, default=Path('runs/told'))
    p.add_argument('--out', type=Path, default=Path('nbs/reference/ablations'))
    a = p.parse_args()
    torch.set_num_threads(1)
    look = eyes()
    questions, films = room_data(range(HELD_OUT, HELD_OUT+a.judged))
    scenes = make_scenes(questions, films.film)
    score = lambda texts: {k: round(100*x, 2) for k, x in totals(grade(questions, texts)).items()}
    def run(k, seed):
        fusion, eye = VARIANTS[k][0], look.get(VARIANTS[k][1])
        cfg, start = TuneConfig.nano(lr=a.lr, turns=12, seed=seed, save_every=10**6), time.process_time()
        answer = answerer(*tune(a.base, fusion, Talks(a.rooms, 12, a.passes, 8, 100+seed, eye), cfg), eye, 8)
        texts = {ask_id(q): t for s in scenes for q, t in zip(s.questions, answer(s, s.questions))}
        for s in scenes: s.made.pop('latents', None)
        return score([texts[ask_id(q)] for q in questions]) | dict(cpu_minutes=round((time.process_time()-start)/60, 1))
    made = f'--rooms {a.rooms} --passes {a.passes} --judged {a.judged} --lr {a.lr}'
    def kept(k, seed):
        f = a.keep/f"{k} {seed} {made}.json"
        if not f.exists(): atomic_write(f, lambda f: f.write_text(json.dumps(run(k, seed)), encoding='utf8'))
        got = json.loads(f.read_text(encoding='utf8'))
        print(f'seed {seed} {k}:', got, flush=True)
        return got
    got = {k: [] for k in VARIANTS}
    for seed in a.seeds:
        for k in VARIANTS: got[k].append(kept(k, seed))
    d = dict(command=f"python benchmarks/ablate_vlm.py BASE {made} --seeds {' '.join(map(str, a.seeds))}", commit=commit(), hardware=f'1 core of a CPU ({platform.machine()}), no GPU',
             cpu_minutes=round(sum(r.pop('cpu_minutes') for v in got.values() for r in v), 1), questions=len(questions), beside={k: score(f(questions)) for k, f in SIMPLE.items()}, runs=got)
    atomic_write(a.out/'language.json', lambda f: f.write_text(json.dumps(d, indent=1), encoding='utf8'))

if __name__ == '__main__': main()
