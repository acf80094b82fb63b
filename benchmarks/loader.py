"""How fast data come, and how long training waits for them: python benchmarks/loader.py --help

JPEG folders are made on the spot (smooth noise, so that a file has about the size of a photograph's) and read as training reads them, by `Batches` and
the loader of `fit`, without and with workers. Then a small VGGT teacher and a small student are trained on rooms that are drawn and rendered on the
fly, and the share of time that the step waits for them is printed. Waiting is a matter of the clock, so a busy machine shows in it.
"""
import resource, tempfile, time
from functools import partial
from pathlib import Path
import numpy as np
import torch
from fastcore.script import call_parse
from PIL import Image
from spa3r.util.core import set_seed
from spa3r.train.loop import Feed, TrainConfig, accelerator
from spa3r.model.patch_encoder import VGGT, VGGTConfig
from spa3r.model.psfm import Spa3R, Spa3RConfig, psfm_loss
from spa3r.teachers.teachers import VGGTTeacher
from spa3r.train.pretrain import masked, observe
from spa3r.data.batches import RoomSource, open_scenes

def write_photos(folder, scenes, photos, wh):
    "Folders of JPEG files"
    rng = np.random.default_rng(0)
    for i in range(scenes):
        (Path(folder)/f'scene{i}').mkdir()
        for j in range(photos):
            small = Image.fromarray(rng.integers(0, 256, (wh[1]//8, wh[0]//8, 3), dtype=np.uint8))
            small.resize(wh, Image.BICUBIC).save(Path(folder)/f'scene{i}'/f'{j}.jpg', quality=90)

def cpu():
    "CPU seconds of this process and of those it has waited for"
    return sum(o.ru_utime+o.ru_stime for o in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))

def pace(source, cfg, acc, work=lambda batch: None):
    "Images a second by the clock and a CPU-second, and the share of the time that was waited for data; the clock starts at the second batch"
    batch_fn = partial(masked, cfg.batches(source), cfg)
    work(batch_fn(0, 0))  # warm up
    c, feed = cpu(), Feed(batch_fn, 0, cfg, acc)
    images = [feed.next()[1].numel()]
    t, w = time.perf_counter(), feed.waited
    for _ in range(cfg.steps-1):
        batch = feed.next()
        images.append(batch[1].numel())
        work(batch)
    secs, waited = time.perf_counter()-t, feed.waited-w
    feed.close()
    return sum(images[1:])/secs, sum(images)/(cpu()-c), waited/secs

@call_parse
def main(
    batches:int=7, # Batches of each row; the clock starts at the second
    images:int=24, # Images of a batch
    views:int=6, # Views of a scene
    scenes:int=8, # Folders of photographs
    photos:int=12, # Photographs in each
    width:int=1296, # Of a photograph, pixels (ScanNet's); its height is 3/4 of it
    view:int=518, # Width of a view, pixels
    workers:int=2, # Processes of the second row of each kind
):
    "Images a second of photographs and rooms, and the share of time waiting"
    torch.set_num_threads(1)
    set_seed(0)
    acc = accelerator('cpu')
    cfg = partial(TrainConfig, steps=batches, images=images, images_device=images, v_min=views, v_max=views)
    print(f"{'data':34} {'workers':>7} {'images/s':>9} {'images/CPU s':>13} {'waiting':>8}")
    def rows(name, source, **kw):
        got = {w: pace(source, cfg(workers=w), acc, **kw) for w in (0, workers)}
        for w, (clock, each, waited) in got.items(): print(f"{name:34} {w:7} {clock:9.1f} {each:13.1f} {waited:8.2f}", flush=True)
        print(f"{name}: {workers} workers / none {got[workers][0]/got[0][0]:.2f}")
    with tempfile.TemporaryDirectory() as d:
        write_photos(d, scenes, photos, (width, width*3//4))
        mean = np.mean([p.stat().st_size for p in Path(d).glob('*/*.jpg')])/1e3
        source = open_scenes(d, width=view)
        rows(f'JPEG of {mean:.0f} kB, {width} to {view} px', source)
    teacher = VGGTTeacher(VGGT(VGGTConfig.nano(heads=('camera', 'depth'))))
    student = Spa3R(Spa3RConfig.nano(geo_channels=teacher.channels['geo']))
    def work(batch):
        student.zero_grad(set_to_none=True)
        psfm_loss(student, observe(teacher, *batch))['loss'].backward()
    rows('rooms of 112 px, nano training', RoomSource(), work=work)
