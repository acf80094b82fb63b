"Lessons about rooms: facts, steps and phrases are true of the room and of its questions"
import math,random
import numpy as np
import pytest,torch
from spa3r.bench.scoring import prompt
from spa3r.rooms.questions import answer_text
from spa3r.rooms.rooms import CLASSES
from spa3r.rooms.visibility import sector,watch
from spa3r.train.lessons import NAMES,SHOWN,_CUT,film,lesson,phrases,steps
from spa3r.util.core import UserError

@pytest.fixture(scope='module')
def x(): return lesson(11)

def words(q): return [(i,NAMES.index(w)) for i,w in enumerate(w for w in _CUT.split(q['question']) if w in NAMES and w!='room')]

def test_facts_are_true(x):
    room,f = watch(11).room,x['facts']
    counts = room.counts()
    for i,n in enumerate(NAMES[:-1]): assert f[i,0].item()==min(counts.get(n, 0), 4)/2-1
    assert torch.allclose(2*f[-1,4:7], torch.tensor([*sorted(room.size[:2]), room.size[2]]).float())
    unique = {o.cls:o for o in watch(11).unique}
    at = lambda n: f[NAMES.index(n),1:4]
    for a in unique:
        assert torch.allclose(f[NAMES.index(a),4:7], 2*torch.tensor(sorted(unique[a].half)).float(), atol=1e-5)
        for b in unique:  # a change of frame leaves distances and heights alone
            assert math.isclose((at(a)-at(b)).norm().item(), math.dist(unique[a].centre, unique[b].centre), abs_tol=1e-3)
            assert math.isclose((at(a)-at(b))[2].item(), unique[a].centre[2]-unique[b].centre[2], abs_tol=1e-3)
    assert f[[i for i,n in enumerate(NAMES) if n not in unique],1:4].isnan().all()

def test_patches_lie_at_what_they_show(x):
    assert x['cls'].shape==(SHOWN*12,16) and x['frames'].shape==(SHOWN,84,112,3)
    floor = x['places'].float()[x['cls']==CLASSES.index('floor')]
    assert floor[:,2].std()<.02 and floor[:,2].mean()<-.5  # one plane, below the camera

@pytest.mark.parametrize('kind', ['easy','medium','hard'])
def test_the_last_step_of_a_direction_is_its_answer(x, kind):
    asked = [q for q in x['questions'] if q['question_type']==f'object_rel_direction_{kind}']
    assert asked
    for q in asked:
        way,value = steps(q, words(q), x)
        assert [i for i,_ in way]==[1,2] and way[1][1][3:5]==value[1:]
        assert sector(kind, math.degrees(math.atan2(value[2], value[1])))==answer_text(q)

def test_gaps_on_the_way_decide_what_is_nearest(x):
    asked = [q for q in x['questions'] if q['question_type']=='object_rel_distance']
    assert asked
    for q in asked:
        said = words(q)+[(9+i, NAMES.index(o.split('. ')[1])) for i,o in enumerate(q['options'])]
        gap = {w:v[5] for (i,v) in steps(q, said, x)[0] for j,w in said if i==j}
        assert NAMES[min(gap, key=gap.get)]==answer_text(q)

def test_turns_on_a_route_are_its_answer():
    checked = 0
    for room in range(6):
        x = lesson(room)
        for q in [q for q in x['questions'] if q['question_type']=='route_planning']:
            way = steps(q, words(q), x)[0]
            turns = [math.degrees(math.atan2(v[4], v[3])) for _,v in way]
            names = ['Turn Back' if abs(t)>135 else 'Turn Left' if t>0 else 'Turn Right' for t in turns]
            want = answer_text(q).split(', ')
            assert names[len(names)-len(want):]==want
            checked += 1
    assert checked

def test_phrases_shorten_questions(x):
    found = phrases(x['questions'])
    assert {*NAMES}<={*found} and all(len(p)>1 and not p.isdigit() for p in found)
    q = next(q for q in x['questions'] if q['question_type']=='object_rel_direction_hard')
    assert sum(p in found for p in _CUT.split(prompt(q)))>=8
    assert len(phrases(x['questions'], least=10**6))==len(NAMES)

def test_films_are_made_once_and_go_on(tmp_path, monkeypatch):
    import spa3r.train.lessons as module
    made = []
    monkeypatch.setattr(module, 'lesson', lambda room, each: made.append(room) or dict(room=room, frames=0, questions=[]))
    assert [o['room'] for o in film(tmp_path, 3, 5, a_file=2)]==[5,6,7] and made==[5,6,7]
    assert [o['room'] for o in film(tmp_path, 4, 5, a_file=2)]==[5,6,7,8] and made==[5,6,7,8]
    (tmp_path/'rooms-5.pt').write_bytes(b'')
    with pytest.raises(UserError, match='delete it'): film(tmp_path, 1, 5, a_file=2)
