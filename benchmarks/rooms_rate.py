"How many scenes a second one CPU core draws and renders: python benchmarks/rooms_rate.py --help"
import time
import torch
from fastcore.script import call_parse
from spa3r.rooms.rooms import exact_field, render, sample_scenes

@call_parse
def main(
    views:int=6, # Views of each scene
    size:int=112, # Image side, pixels
    grid:int=0, # Cells along a side of the grid to render; 0: every pixel
    batch:int=8, # Scenes at a time
    seconds:float=10., # How long to measure
    spread:str='video', # Camera paths: 'video' or 'wide'
    field:bool=False, # Also compute the exact feature field
):
    "Scenes a second on one thread, drawing of rooms and cameras included (new rooms in every batch)"
    torch.set_num_threads(1)
    g = (grid or size,)*2
    def scenes(seed):
        t0 = time.perf_counter(),time.process_time()
        rooms,cams = sample_scenes(range(seed, seed+batch), views, (size,size), spread)
        t1 = time.perf_counter(),time.process_time()
        hit = render(rooms, cams, g)
        if field: exact_field(hit, cams)
        t2 = time.perf_counter(),time.process_time()
        return [b-a for a,b in zip(t0,t1)]+[b-a for a,b in zip(t1,t2)]
    scenes(0)  # warm up
    rows,seed,t = [],batch,time.perf_counter()
    while time.perf_counter()-t<seconds:
        rows.append(scenes(seed))
        seed += batch
    n,(dw,dc,rw,rc) = len(rows)*batch,map(sum, zip(*rows))
    print(f"one thread, {n} scenes of {views} views, {g[0]}x{g[1]} rays a view{', exact field included' if field else ''}, '{spread}' paths")
    print(f"{n/(dw+rw):.1f} scenes/s by the clock, {n/(dc+rc):.1f} per CPU-second (drawing {dc/n*1e3:.2f} ms, rendering {rc/n*1e3:.2f} ms a scene)")
