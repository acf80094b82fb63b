"Rooms looked at again: longer, sharper, and without the help of what is tested"
from functools import lru_cache
import numpy as np
import torch
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import CLASSES,HELD_OUT,make_room,make_rooms,render
from spa3r.rooms.visibility import FRAMES,room_video

SEEDS = [*range(30),*range(HELD_OUT, HELD_OUT+6)]
RATE,FINE = 4,(72,96)  # the video is looked at again: more frames, more rays

asked = lru_cache(None)(room_questions)
rooms = lru_cache(None)(make_room)

@lru_cache(None)
def masks(seed):
    "What a longer and sharper look at the video shows: instance and class of each pixel, on which of four walls it is, and how far the walls are apart; every RATE-th frame is one of the video"
    _,cams = room_video(seed, RATE*(FRAMES-1)+1)
    hit = render(make_rooms([seed]), cams[None], FINE)
    wall,xy = hit['cls'][0]==CLASSES.index('wall'),hit['xyz'][0][...,:2]
    far = torch.cat([xy,-xy], -1)>torch.tensor(rooms(seed).size[:2]).repeat(2)/2-1e-3
    return hit['inst'][0].short(),hit['cls'][0].short(),far&wall[...,None],xy[wall].amax(0)-xy[wall].amin(0)

@lru_cache(None)
def everything(): return [q for s in SEEDS for q in asked(s)]

def surface(o, k=18):
    "Points all over the surface of an object's box"
    t = np.linspace(-1, 1, k)
    a,b = (x.ravel() for x in np.meshgrid(t, t))
    u = np.concatenate([np.insert(np.stack([a, b], 1), axis, side, 1) for axis in range(3) for side in (-1.,1.)])*o.half
    z = np.exp(1j*o.yaw)*(u[:,0]+1j*u[:,1])
    return torch.from_numpy(np.stack([z.real, z.imag, u[:,2]], 1)+o.centre)

def sampled_distance(a, b): return torch.cdist(surface(a), surface(b), compute_mode='donot_use_mm_for_euclid_dist').min().item()
