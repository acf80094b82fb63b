"Questions about rooms: every answer is found again by other means"
import json,math,os,random,re,subprocess,sys
from collections import Counter
from functools import lru_cache
from itertools import product
import numpy as np
import pytest, torch
from spa3r.cameras import look_at,transform
from spa3r.questions import (APART,BODY,CLEAR,FRAMES,GRID,KEYS,SIZE,STOP,answer_distribution,answer_text,bearing,blind_scores,box_distance,corners,debias,
    first_frames,room_frames,room_questions,room_video,sector,turn,watch)
from spa3r.rooms import CLASSES,FURNITURE,HELD_OUT,Thing,make_room,make_rooms,render
from spa3r.vsibench import CHOICE,NUMERIC,TYPES,blind_answers,grade,letters,prompt,score,totals

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

def of_type(seed, *types): return [q for q in asked(seed) if q['question_type'] in types]
def the(seed, cls):
    "The only object of a class"
    o, = [o for o in rooms(seed).objects if o.cls==cls]
    return o
def seed_of(q): return int(q['scene_name'].removeprefix('room-'))
def named(q):
    "Classes of things that a question and its options speak of"
    return {w for w in re.findall('[a-z]+', ' '.join([q['question'],*(q['options'] or [])])) if w in CLASSES}

# --- other ways to the answers: each says whether a question's answer is right

def surface(o, k=18):
    "Points all over the surface of an object's box"
    t = np.linspace(-1, 1, k)
    a,b = (x.ravel() for x in np.meshgrid(t, t))
    u = np.concatenate([np.insert(np.stack([a, b], 1), axis, side, 1) for axis in range(3) for side in (-1.,1.)])*o.half
    z = np.exp(1j*o.yaw)*(u[:,0]+1j*u[:,1])
    return torch.from_numpy(np.stack([z.real, z.imag, u[:,2]], 1)+o.centre)

def sampled_distance(a, b): return torch.cdist(surface(a), surface(b), compute_mode='donot_use_mm_for_euclid_dist').min().item()

@lru_cache(None)
def apart(seed, a, b): return sampled_distance(the(seed, a), the(seed, b))

def right_count(q):
    "Distinct instances in the masks, over the whole video"
    inst,cls,*_ = masks(seed_of(q))
    name, = re.fullmatch(r'How many (\w+)\(s\) are in this room\?', q['question']).groups()
    seen = [(inst==i).float().mean((1,2)).max().item() for i in inst[cls==CLASSES.index(name)].unique()]
    return sum(x>=.8*CLEAR for x in seen)==int(q['ground_truth'])==rooms(seed_of(q)).counts()[name]

def right_distance(q):
    a,b = re.search(r'between the (\w+) and the (\w+) \(in meters\)\?$', q['question']).groups()
    return abs(apart(seed_of(q), a, b)-float(q['ground_truth']))<.05+.02

def right_size(q):
    "Extent of the solids that the renderer draws, along the axes of the piece"
    name, = re.search(r'height\) of the (\w+), measured in centimeters\?$', q['question']).groups()
    o = the(seed_of(q), name)
    rows = rooms(seed_of(q)).table.astype(float)
    rows = rows[rows[:,2]==o.inst]
    z = (rows[:,3]+1j*rows[:,4])*np.exp(-1j*o.yaw)
    mid = np.stack([z.real, z.imag, rows[:,5]], 1)
    return abs(100*np.max((mid+rows[:,6:9]).max(0)-(mid-rows[:,6:9]).min(0))-float(q['ground_truth']))<.51

def right_area(q):
    "Where the rays of the video meet the walls"
    w,l = masks(seed_of(q))[3].tolist()
    return abs(w*l-float(q['ground_truth']))<.051

def right_nearest(q):
    names,to = re.search(r'which of these objects \((.+)\) is the closest to the (\w+)\?$', q['question']).groups()
    d = {n:apart(seed_of(q), n, to) for n in names.split(', ')}
    best,second = sorted(d, key=d.get)[:2]
    return sorted(d)==sorted(o[3:] for o in q['options']) and best==answer_text(q) and d[second]-d[best]>APART-.06

def eye_level(at, to): return torch.tensor([*at.centre[:2],1.]),torch.tensor([*to.centre[:2],1.])

def right_direction(q):
    "Put a camera there, look that way, and see on which side the object and its corners are"
    at,facing,to = (the(seed_of(q), n) for n in re.match(r'If I am standing by the (\w+) and facing the (\w+), is the (\w+) to', q['question']).groups())
    w2c = look_at(*eye_level(at, facing))
    x,_,z = transform(w2c, torch.tensor(np.vstack([to.centre, corners(to)])).float()).unbind(-1)
    deg = [math.degrees(math.atan2(a, b)) for a,b in zip(x.tolist(), z.tolist())]  # to the right of the picture is positive
    def call(a):
        side = 'right' if a>0 else 'left'
        if 'Cartesian' in q['question']: return ('front-' if -90<a<90 else 'back-')+side
        return 'back' if '135' in q['question'] and not -135<a<135 else side
    return {call(a) for a in deg}=={answer_text(q)} and {call(deg[0]-9.9),call(deg[0]+9.9)}=={answer_text(q)}

@lru_cache(None)
def outline(seed, inst, k=40):
    "Points along the outline of an object's floor plan"
    c = corners(rooms(seed).objects[inst-1])[:4,:2]
    return np.concatenate([np.linspace(a, b, k) for a,b in zip(c, np.roll(c, -1, 0))])

def inside(o, p):
    z = complex(*(p-o.centre[:2]))*np.exp(-1j*o.yaw)
    return abs(z.real)<o.half[0] and abs(z.imag)<o.half[1]

def arrives(q, words):
    "A robot follows the route step by step: does it get there?"
    seed,text = seed_of(q),q['question']
    at,facing,goal = (the(seed, n) for n in re.match(r'You are a robot beginning at the (\w+) and facing the (\w+)\. You want to navigate to the (\w+)\.', text).groups())
    steps = re.findall(r'\d\. (\[please fill in\]|Go forward until the \w+\.)', text)
    off = lambda os, p: min(np.hypot(*(outline(seed, o.inst)-p).T).min() for o in os)
    floor,words = [o for o in rooms(seed).furniture if o.on==0],list(words)
    p,heading,order = np.array(at.centre[:2]),math.atan2(*np.subtract(facing.centre, at.centre)[1::-1]),None
    left = False  # still on its way out of what it began at?
    for s in steps:
        if s[0]=='[':
            order = words.pop(0)
            continue
        to = the(seed, re.search(r'until the (\w+)', s)[1])
        way = math.atan2(*(np.array(to.centre[:2])-p)[::-1])
        a = math.degrees(math.remainder(way-heading, 2*math.pi))
        if not {'Turn Left':10<a<135, 'Turn Right':-135<a<-10, 'Turn Back':abs(a)>135, None:abs(a)<1}[order]: return False  # it turned, and what it should go to is not there
        heading,order,step = way,None,.02*np.array([math.cos(way),math.sin(way)])
        if not left:
            while off([at], p)<STOP or inside(at, p): p = p+step
            left = True
        while off([to], p)>=STOP:
            p = p+step
            if off(floor, p)<BODY-.02 or (abs(p)>np.array(rooms(seed).size[:2])/2).any(): return False  # it ran into something
    return to is goal and not words

def right_route(q):
    reached = {o[3:]:arrives(q, o[3:].split(', ')) for o in q['options']}
    return [o for o,ok in reached.items() if ok]==[answer_text(q)]

def right_order(q):
    "When classes come into view in four times as many and sharper frames, whatever share of the picture is asked for"
    inst,cls,*_ = masks(seed_of(q))
    names = re.search(r'in the video: (.+)\?$', q['question'])[1].split(', ')
    def first(n, share):
        part = inst*(cls==CLASSES.index(n))
        big = torch.stack([(part==i).float().mean((1,2)) for i in part.unique() if i]).max(0)[0]
        return (big>share).float().argmax().item()
    return all(sorted(names, key=lambda n: first(n, x))==answer_text(q).split(', ') and len({first(n, x) for n in names})==4 for x in (.0005,.002,CLEAR))

RIGHT = dict(object_counting=right_count, object_abs_distance=right_distance, object_size_estimation=right_size, room_size_estimation=right_area,
    object_rel_distance=right_nearest, **{t:right_direction for t in TYPES if 'direction' in t}, route_planning=right_route, obj_appearance_order=right_order)

@pytest.mark.parametrize('seed', SEEDS)
def test_every_answer_is_found_by_other_means(seed):
    wrong = [q for q in asked(seed) if not RIGHT[q['question_type']](q)]
    assert not wrong, wrong

def test_every_type_is_asked():
    n = Counter(q['question_type'] for s in SEEDS for q in asked(s))
    assert set(n)==set(TYPES) and min(n.values())>=20, n

@pytest.mark.parametrize('t', TYPES)
def test_the_other_means_notice_wrong_answers(t):
    for q in [q for s in SEEDS[:12] for q in of_type(s, t)]:
        if t in NUMERIC: wrong = [str(float(q['ground_truth'])+d) if t!='object_counting' else str(int(q['ground_truth'])+1) for d in ((.2,-.2) if 'size' not in t else (2,-2))]
        else: wrong = [l for l in letters(q) if l!=q['ground_truth']]
        for w in wrong: assert not RIGHT[t](dict(q, ground_truth=w)), (q, w)

# --- laws

@lru_cache(None)
def everything(): return [q for s in SEEDS for q in asked(s)]

def test_the_fields_are_those_of_the_benchmark():
    for q in everything():
        assert list(q)==['id','dataset','scene_name','question_type','question','ground_truth','options']
        assert q['dataset']=='rooms' and q['question_type'] in TYPES and isinstance(q['ground_truth'], str)
        assert (q['options'] is None)==(q['question_type'] in NUMERIC)
        assert json.loads(json.dumps(q))==q and q['question'] in prompt(q)
        assert score(q, q['ground_truth'])==1 and score(q, q['ground_truth'], 'thinking_in_space')==1
    assert len({q['id'] for q in everything()})==len(everything())
    assert len({(q['scene_name'],q['question'],*(q['options'] or ())) for q in everything()})==len(everything()), 'a question is asked twice'

def test_options_are_distinct_and_lettered():
    n = dict(object_rel_direction_easy=2, object_rel_direction_medium=3)
    for q in everything():
        if q['question_type'] not in CHOICE: continue
        assert letters(q)==list('ABCD'[:len(q['options'])]) and q['ground_truth'] in letters(q)
        assert len({o[3:] for o in q['options']})==len(q['options'])==(3 if q['question_type']=='route_planning' and len(answer_text(q).split(', '))==1
                                                                      else n.get(q['question_type'], 4))

@pytest.mark.parametrize('t', CHOICE)
def test_letters_are_balanced(t):
    "Each letter as often as chance has it, within four standard deviations"
    qs = [q for q in everything() if q['question_type']==t]
    for l in 'ABCD':
        p = np.array([1/len(q['options'])*(l in letters(q)) for q in qs])
        got = sum(q['ground_truth']==l for q in qs)
        assert abs(got-p.sum())<=4*math.sqrt((p*(1-p)).sum())+1e-9, (t, l, got, p.sum())

def test_options_are_shuffled():
    "Whatever an option says, it stands at each letter, and nothing is listed in the order of the answer"
    at = Counter((q['question_type'],o[3:],o[0]) for q in everything() if 'direction' in q['question_type'] for o in q['options'])
    for t in [t for t in TYPES if 'direction' in t]:
        texts = {o for k,o,_ in at if k==t}
        n = [at[t,o,l] for o in texts for l in 'ABCD'[:len(texts)]]
        assert min(n)>.5*sum(n)/len(n), (t, n)
    orders = [q for q in everything() if q['question_type']=='obj_appearance_order']
    assert sum(q['question'].endswith(f': {answer_text(q)}?') for q in orders)<.2*len(orders)

@pytest.mark.parametrize('t', [t for t in TYPES if 'direction' in t])
def test_directions_are_balanced(t):
    n = Counter(answer_text(q) for q in everything() if q['question_type']==t)
    assert min(n.values())>.5*sum(n.values())/len(n), n

@pytest.mark.parametrize('seed', SEEDS)
def test_nothing_unseen_or_ambiguous_is_asked_about(seed):
    inst,cls,*_ = masks(seed)
    frames = inst[::RATE]  # those that a model sees
    size = {o.inst:(frames==o.inst).float().mean((1,2)).max().item() for o in rooms(seed).objects}
    n = rooms(seed).counts()
    for q in asked(seed):
        t,things = q['question_type'],named(q)
        assert things or t=='room_size_estimation', q
        for c in things:
            seen = [size[o.inst] for o in rooms(seed).objects if o.cls==c]
            assert max(seen)>.8*CLEAR, (c, q)
            if t=='object_counting': assert len(seen)>=2 and min(seen)>.8*CLEAR, (c, q)
            elif t!='obj_appearance_order': assert n[c]==1, (c, q)

@pytest.mark.parametrize('seed', [*SEEDS[::4],527])
def test_shown_is_what_was_in_full_view(seed):
    "In one frame that a model sees: large enough by a sharper look, and each corner of the box inside the picture"
    scene,inst = watch(seed),masks(seed)[0][::RATE]
    K,w2c = (x.double().numpy() for x in (scene.cams.K[0],scene.cams.w2c))
    for o in rooms(seed).objects:
        size = (inst==o.inst).double().mean((1,2)).numpy()
        x = np.einsum('nij,kj->nki', w2c, np.c_[corners(o),np.ones(8)])[...,:3]
        ahead,uv = x[...,2]>.1,x@K.T
        uv = uv[...,:2]/np.where(ahead, uv[...,2], 1)[...,None]
        whole = (ahead&(uv>0).all(-1)&(uv<SIZE[::-1]).all(-1)).all(1)
        best = max([0,*size[whole]])
        if not .8*CLEAR<best<1.2*CLEAR: assert (o in scene.shown)==(best>CLEAR), (o.cls, best)

def test_the_room_is_measured_only_if_its_walls_are_seen():
    for s in (*SEEDS[::6],527):
        share = masks(s)[2][::RATE].float().mean((1,2)).amax(0)  # of a frame that each wall fills
        assert len(of_type(s, 'room_size_estimation'))==(share>CLEAR).all()==(watch(s).walls==4), s
    assert watch(527).walls==3

def test_same_seed_same_questions():
    assert room_questions(5)==asked(5)!=asked(6)
    assert [q['question'] for q in asked(5)]!=[q['question'] for q in asked(6)]
    code = 'import json; from spa3r.questions import room_questions; print(json.dumps(room_questions(5)))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, env=os.environ|dict(PYTHONHASHSEED='7')).stdout
    assert json.loads(out)==asked(5)

def test_each_says_how_many():
    few,many = room_questions(3, each=1),room_questions(3, each=5)
    assert max(Counter(q['question_type'] for q in few).values())==1
    assert max(Counter(q['question_type'] for q in many).values())==5
    for each in (0,10):
        with pytest.raises(ValueError, match=f'each is {each}'): room_questions(3, each=each)

def test_no_room_is_too_odd_to_ask_about():
    for s in range(500, 530): assert len(room_questions(s, each=1))>=3

# --- the video

@pytest.mark.parametrize('seed', SEEDS[::3])
def test_the_video_is_one_path_through_free_space(seed):
    room,cams = room_video(seed, 8*31+1)
    assert torch.equal(cams[::8].w2c, room_video(seed, 32)[1].w2c) or (cams[::8].w2c-room_video(seed, 32)[1].w2c).abs().max()<1e-4
    eye = cams.positions.numpy()
    assert (abs(eye[:,:2])<np.array(room.size[:2])/2-.2).all() and (eye[:,2]>1).all() and (eye[:,2]<2).all()
    assert np.linalg.norm(np.diff(eye, axis=0), axis=1).max()<.15, 'a jump'
    assert (cams.w2c[:,0,2].abs()<1e-4).all(), 'the horizon tilts'
    for o in room.objects:
        z = (eye[:,0]-o.centre[0]+1j*(eye[:,1]-o.centre[1]))*np.exp(-1j*o.yaw)
        inside = (abs(z.real)<o.half[0])&(abs(z.imag)<o.half[1])&(abs(eye[:,2]-o.centre[2])<o.half[2])
        assert not inside.any(), f'through the {o.cls}'

def test_frames_are_those_of_the_video():
    got = room_frames(4, 5, (48,64))
    assert got.shape==(5,48,64,3) and got.dtype==np.uint8
    _,cams = room_video(4, 5)
    want = render(make_rooms([4]), cams[None], (48,64))['rgb'][0].numpy()*255
    assert abs(got-want).max()<=.51
    with pytest.raises(ValueError, match='three to four'): room_frames(4, 5, (64,64))

# --- geometry

def projected_distance(a, b, steps=4000):
    "From box to box and back, each time to the nearest point: this ends at the closest pair"
    def onto(o, p):
        z = (p[0]-o.centre[0]+1j*(p[1]-o.centre[1]))*np.exp(-1j*o.yaw)
        z = complex(np.clip(z.real, -o.half[0], o.half[0]), np.clip(z.imag, -o.half[1], o.half[1]))*np.exp(1j*o.yaw)
        return np.array([o.centre[0]+z.real, o.centre[1]+z.imag, np.clip(p[2], o.centre[2]-o.half[2], o.centre[2]+o.half[2])])
    p,d = np.array(b.centre, dtype=float),9.
    for _ in range(steps):
        q = onto(a, p)
        p,last = onto(b, q),d
        d = np.linalg.norm(p-q)
        if last-d<1e-12: break
    return d

@pytest.mark.parametrize('seed', range(60))
def test_box_distance(seed):
    r = random.Random(seed)
    a,b = [Thing('box', i, [r.uniform(-1.5,1.5) for _ in range(3)], [r.uniform(.1,.7) for _ in range(3)], r.uniform(-4,4)) for i in (1,2)]
    assert box_distance(a, b)==pytest.approx(projected_distance(a, b), abs=2e-3)
    assert box_distance(a, b)==pytest.approx(box_distance(b, a), abs=1e-12)
    if box_distance(a, b): assert -1e-9<sampled_distance(a, b)-box_distance(a, b)<.06

def test_corners_are_counterclockwise():
    o = Thing('box', 1, (1,2,.5), (.3,.2,.5), .7)
    x,y = corners(o)[:4,:2].T
    assert .5*(x*np.roll(y, -1)-np.roll(x, -1)*y).sum()==pytest.approx(4*.3*.2)

@pytest.mark.parametrize('a,want', [(0,None), (44,None), (46,'Turn Left'), (-90,'Turn Right'), (124,'Turn Left'), (126,None), (144,None), (146,'Turn Back'), (-180,'Turn Back')])
def test_turns_have_names_only_where_people_agree(a, want): assert turn(a)==want

# --- debiasing

def made(n=400, seed=0):
    "Rows like those of the real set: names of several words, columns of its own, one type that words give away and one that they do not"
    r,rows = random.Random(seed),[]
    things = ['trash can','office chair','coffee table','ceiling light','power strip','sofa','heater','whiteboard']
    for i in range(n):
        a,b,c,d = r.sample(things, 4)
        row = dict(id=i, dataset='scannet', scene_name=f'scene{i//8:04}_00', video_suffix='.mp4')
        kind = i%4
        if kind==0:
            truth,options = (r.choice('AB') if r.random()<.3 else 'AB'[a<b]),['A. left','B. right']  # mostly the alphabet decides
            rows.append(dict(row, question_type='object_rel_direction_easy', options=options, ground_truth=truth,
                question=f'If I am standing by the {c} and facing the {a}, is the {b} to the left or the right of the {a}?'))
        elif kind==1:
            rows.append(dict(row, question_type='object_rel_distance', options=[f'{l}. {t}' for l,t in zip('ABC', (a,b,c))], ground_truth=r.choice('ABC'),
                question=f'Measuring from the closest point of each object, which of these objects ({a}, {b}, {c}) is the closest to the {d}?'))
        elif kind==2:
            size = 40+20*things.index(a)
            rows.append(dict(row, question_type='object_size_estimation', options=None, ground_truth=str(size if r.random()<.8 else r.randint(30,300)),
                question=f'What is the length of the longest dimension (length, width, or height) of the {a}, measured in centimeters?'))
        else:
            rows.append(dict(row, question_type='object_abs_distance', options=None, ground_truth=round(r.uniform(.5,6), 1),
                question=f'Measuring from the closest point of each object, what is the distance between the {a} and the {b} (in meters)?'))
    return rows

def shares(qs, x): return {t:np.mean([v for q,v in zip(qs, x.tolist()) if q['question_type']==t]) for t in {q['question_type'] for q in qs}}

def test_a_blind_model_finds_what_words_give_away():
    qs = made()
    s,c = (shares(qs, x) for x in blind_scores(qs))
    assert c['object_rel_direction_easy']==.5 and c['object_rel_distance']==pytest.approx(1/3)
    assert s['object_size_estimation']>c['object_size_estimation']+.2, (s, c)
    assert s['object_rel_direction_easy']>.5+.05
    assert abs(s['object_rel_distance']-1/3)<.06 and abs(s['object_abs_distance']-c['object_abs_distance'])<.08

def test_a_blind_model_does_not_see_the_answer_it_is_judged_by():
    "Another answer to one question leaves what is guessed for it as it was"
    qs = [q for q in made(240) if q['options']]
    i = next(i for i,q in enumerate(qs) if q['question_type']=='object_rel_direction_easy')
    flipped = [dict(q, ground_truth='AB'['A'==q['ground_truth']]) if j==i else q for j,q in enumerate(qs)]
    a,b = blind_scores(qs)[0][i],blind_scores(flipped)[0][i]
    assert a+b==pytest.approx(1, abs=1e-4)

def test_debiasing_takes_out_what_words_give_away():
    qs = made()
    marked,log = debias(qs)
    assert [{k:v for k,v in q.items() if k!='pruned'} for q in marked]==qs
    out = Counter(q['question_type'] for q in marked if q['pruned'])
    assert out['object_size_estimation']>=25 and out['object_rel_direction_easy']>=15, out
    assert out['object_rel_distance']+out['object_abs_distance']<=25, out
    assert all(n<=.3*100+1 for n in out.values())
    assert len(log)==7 and sum(n for n,*_ in log[-1].values())==sum(not q['pruned'] for q in marked)
    assert debias(qs)[0]==marked

def test_debiasing_keeps_some_of_each_type():
    qs = [q for q in made() if q['question_type']=='object_size_estimation'][:30]
    for keep in (10,25):
        assert sum(not q['pruned'] for q in debias(qs, share=.9, keep=keep)[0])>=keep
    assert not any(q['pruned'] for q in debias(qs, share=0)[0])
    with pytest.raises(ValueError, match='share is 2'): debias(qs, share=2)

def test_debiased_rooms_are_harder_for_another_blind_model():
    "Judged by neighbours, not by the model that pruned; as many questions taken out at random do not help"
    qs = [q for s in SEEDS[:24] for q in asked(s)]
    left = [q for q in debias(qs, rounds=3)[0] if not q['pruned']]
    r,of = random.Random(0),Counter(q['question_type'] for q in left)
    some = [q for t in of for q in r.sample([q for q in qs if q['question_type']==t], of[t])]
    a,b,c = [totals(grade(o, blind_answers(o)))['overall'] for o in (qs,some,left)]
    print(f'blind neighbours: {a:.3f} before, {b:.3f} with as many taken out at random, {c:.3f} debiased')
    assert c<min(a, b)-.02

def test_answer_distribution():
    d = answer_distribution(everything())
    assert set(d)==set(TYPES) and sum(sum(n.values()) for n in d.values())==len(everything())
    assert set(d['object_rel_direction_medium'])=={'left','right','back'}
    assert set(answer_distribution(everything(), letters=True)['object_rel_direction_medium'])=={'A','B','C'}
    assert set(answer_distribution(made())['object_rel_direction_easy'])=={'left','right'}
