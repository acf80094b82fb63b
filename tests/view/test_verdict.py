"The sentence on top of a page says who won, and what these pictures say about their cameras"
import re
from dataclasses import replace
import pytest
import torch
from spa3r.model.cameras import Cameras,intrinsics,look_at
from spa3r.view.page import WORDS,about_cameras,agreement,reprojection,scene_measures,verdict
from spa3r.view.scene import FieldScene

def scene(good=True, v=4, c=8, other=True):
    g = torch.Generator().manual_seed(0)
    true = torch.randn(v,3,4,c, generator=g)
    cams = Cameras(look_at(torch.rand(v,3, generator=g), torch.tensor([5.,5.,1.])), intrinsics(1., (30,40)), (30,40))
    pred = true+.1*torch.randn(true.shape, generator=g) if good else -true
    return FieldScene(cams, ['context','target']*(v//2), pred, list(true), list(torch.rand(v,3,30,40, generator=g)), torch.ones(v,6,8), other=torch.randn(true.shape, generator=g) if other else None)

@pytest.mark.parametrize('good', [True,False])
def test_the_best_row_wins_whichever_it_is(good):
    s = scene(good)
    rows = scene_measures(s)
    assert [r['name'] for r in rows]==['prediction','the picture before, copied','mean of the context pictures',"another place's latents"]
    best = max(rows, key=lambda r: r['cosine'])
    v = verdict(rows, 2, 2)
    assert v['won']==good==(best['name']=='prediction') and v['text'].startswith('From 2 photos')
    if not good: assert best['name'] in v['text'] and 'worse' in v['text']
    cos = torch.stack([torch.cosine_similarity(s.pred[i], s.teacher[i], dim=-1).mean() for i in (1,3)]).mean()
    assert abs(rows[0]['cosine']-cos)<1e-5

def test_two_digits_decide():
    rows = [dict(name='prediction', cosine=.5312, l1=0), dict(name='mean of the context pictures', cosine=.5299, l1=0)]
    for mine in (.5312,.51,.5499,.52):
        v = verdict([dict(rows[0], cosine=mine),rows[1]], 3, 1)
        assert 'the mean of the context pictures are too close to call' in v['text'] and v['won'] is False, mine
        assert verdict([dict(rows[0], cosine=mine),rows[1]], 3, 1, trusted=False)==v
    assert verdict([dict(rows[0], cosine=.56),rows[1]], 3, 1)['won'] is True
    assert 'worse than the mean' in verdict([dict(rows[0], cosine=.50),rows[1]], 3, 1)['text']

def test_nothing_is_won_with_cameras_that_are_not_trusted():
    rows = [dict(name='prediction', cosine=.6, l1=0), dict(name='mean of the context pictures', cosine=.5, l1=0)]
    v = verdict(rows, 3, 3, trusted=False)
    assert v['won'] is None and not re.search(r'\bw[io]n', v['text']) and 'not to be trusted' in v['text']
    lost = verdict([dict(rows[0], cosine=.4),rows[1]], 3, 3, trusted=False)
    assert lost['won'] is False and 'worse than the mean' in lost['text']

def test_nothing_held_back_nothing_won():
    s = replace(scene(), kind=['context']*4)
    assert scene_measures(s)==[] and verdict([], 4, 0)['won'] is None

def test_copies_are_of_the_picture_before():
    s = scene()
    s.teacher[1] = s.teacher[0]
    far = torch.cosine_similarity(s.teacher[2], s.teacher[3], dim=-1).mean()
    assert abs(scene_measures(s)[1]['cosine']-(1+far)/2)<1e-5  # the first hidden one is its neighbour

class Told:
    "Cameras that depend on the order in which pictures are shown, or do not"
    def __init__(self, w2c, honest): self.w2c,self.honest = w2c,honest
    def observe(self, views, is_tgt):
        who = views.imgs[0,:,0,0,0].long() if self.honest else torch.arange(views.imgs.shape[1])
        w = self.w2c[who]
        return type('', (), dict(cams=Cameras(w[None], torch.eye(3).repeat(1,len(w),1,1), (2,2)).relative_to(0)))

def test_cameras_that_follow_the_order_are_found_out():
    w2c = look_at(torch.tensor([[0.,0,1],[1,0,1],[1,3,1],[0,5,1]]), torch.tensor([5.,4.,1.]))
    pics = torch.arange(4.).view(4,1,1,1).expand(4,3,2,2)
    a,b = (agreement(Told(w2c, h), pics) for h in (True,False))
    assert a['disagree']<.1<5<a['turned'] and b['disagree']>.5*b['turned']
    ok,no = dict(moved=.1, still=.2, n=3),dict(moved=.2, still=.1, n=3)
    assert [about_cameras(x, y)['trusted'] for x,y in ((a,ok),(a,no),(b,ok),(a,{}))]==[True,False,False,True]
    assert 'nothing moved' in about_cameras(a, no)['text'] and 'nothing turned' in about_cameras(b, ok)['text']

def test_pixels_land_where_a_shift_says():
    "A wall two metres ahead, the camera goes aside by one pixel's worth"
    h,w,f = 20,40,40.
    wall = torch.rand(3,h,w+1, generator=torch.Generator().manual_seed(0))
    w2c = torch.eye(4).repeat(2,1,1)
    w2c[1,0,3] = -2/f  # two metres away, one pixel is this much
    K = torch.tensor([[f,0,w/2],[0,f,h/2],[0,0,1]]).repeat(2,1,1)
    feats = torch.randn(2,2,4,3)
    s = FieldScene(Cameras(w2c, K, (h,w)), ['context','target'], feats, list(feats), [wall[:,:,:-1],wall[:,:,1:]], torch.full((2,h,w), 2.))
    r = reprojection(s)
    assert r['moved']<1e-3<.1<r['still'] and r['n']==1
    w2c[1,0,3] *= -1
    assert reprojection(s)['moved']>.1

def test_terms_are_short():
    assert all(t.endswith('.') and t.count('. ')<3 for t in WORDS["terms"].values())
