"CPU seconds and memory of a scene by its number of views: python benchmarks/page_cost.py --help"
import resource, subprocess, sys, time
import torch
from fastcore.script import call_parse

def once(what, n):
    "In a process of its own, so that the peak is its own"
    from spa3r.teachers.teachers import load_student
    from spa3r.rooms.rooms import HELD_OUT, render, sample_scenes
    from spa3r.view.scene import photo_scene, room_scene
    torch.set_num_threads(1)
    student,teacher,_ = load_student('nano' if what=='photos' else 'exact')
    if what=='photos':
        rooms,cams = sample_scenes([HELD_OUT+9], n, (112,112))
        imgs = torch.cat([render(rooms, cams[:,i:i+4], (112,112))['rgb'][0] for i in range(0, n, 4)]).permute(0,3,1,2)
    t = time.process_time()
    photo_scene(student, teacher, imgs) if what=='photos' else room_scene(student, teacher, HELD_OUT+9, n)
    print(f'{what:6} {n:3d} views: {time.process_time()-t:6.1f} CPU s, peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/1024:5.0f} MB', flush=True)

@call_parse
def main(
    views:str='6,12,24,48', # Numbers of views, with commas
    what:str='rooms,photos', # rooms, photos or both
):
    "What a scene of the page takes, on one thread"
    for w in what.split(','):
        for n in views.split(','): subprocess.run([sys.executable, '-c', f'import sys; sys.path.insert(0, {sys.path[0]!r}); from page_cost import once; once({w!r}, {int(n)})'], check=True)
