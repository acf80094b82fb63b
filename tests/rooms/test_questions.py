"Questions about rooms: every answer is found again by other means"
import json,math,os,re,subprocess,sys
from collections import Counter
from functools import lru_cache
import numpy as np
import pytest, torch
from spa3r.model.cameras import look_at,transform
from spa3r.rooms.questions import BODY,KINDS,STOP,answer_distribution,answer_text,room_questions,turn_name
from spa3r.rooms.rooms import CLASSES
from spa3r.bench.scoring import CHOICE,NUMERIC,TYPES,letters,prompt,score
from spa3r.rooms.visibility import APART,CLEAR,corners,watch
from rooms_again import RATE,SEEDS,asked,everything,masks,rooms,sampled_distance

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

def test_the_room_is_measured_only_if_its_walls_are_seen():
    for s in (*SEEDS[::6],527):
        share = masks(s)[2][::RATE].float().mean((1,2)).amax(0)  # of a frame that each wall fills
        assert len(of_type(s, 'room_size_estimation'))==(share>CLEAR).all()==(watch(s).walls==4), s
    assert watch(527).walls==3

def test_same_seed_same_questions():
    assert room_questions(5)==asked(5)!=asked(6)
    assert [q['question'] for q in asked(5)]!=[q['question'] for q in asked(6)]
    code = 'import json; from spa3r.rooms.questions import room_questions; print(json.dumps(room_questions(5)))'
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, encoding='utf8', check=True, env=os.environ|dict(PYTHONHASHSEED='7')).stdout
    assert json.loads(out)==asked(5)

def test_each_says_how_many():
    few,many = room_questions(3, each=1),room_questions(3, each=5)
    assert max(Counter(q['question_type'] for q in few).values())==1
    assert max(Counter(q['question_type'] for q in many).values())==5
    for each in (0,10):
        with pytest.raises(ValueError, match=f'each is {each}'): room_questions(3, each=each)

def test_further_kinds(monkeypatch):
    "They come last and leave the others' questions alone, and numbers of questions stay apart however many kinds there are"
    def sniff(scene, r):
        while True: yield f'What smells of {r.random()}?',['a','b'],'a'
    before,n = room_questions(3),len(KINDS)
    for i in range(3): monkeypatch.setitem(KINDS, f'smell_{i}', sniff)
    assert room_questions(3)[:len(before)]==before and len(room_questions(3))==len(before)+9
    for i in range(3, 60-n): monkeypatch.setitem(KINDS, f'smell_{i}', sniff)
    with pytest.raises(ValueError, match='ask 1 to 1 questions'): room_questions(3, each=2)
    ids = [q['id'] for s in (3,4) for q in room_questions(s, each=1)]
    assert len(set(ids))==len(ids)>100

def test_no_room_is_too_odd_to_ask_about():
    for s in range(500, 530): assert len(room_questions(s, each=1))>=3

# --- the words of a turn, and the answers together

@pytest.mark.parametrize('a,want', [(0,None), (44,None), (46,'Turn Left'), (-90,'Turn Right'), (124,'Turn Left'), (126,None), (144,None), (146,'Turn Back'), (-180,'Turn Back')])
def test_turns_have_names_only_where_people_agree(a, want): assert turn_name(a)==want

def test_answer_distribution():
    d = answer_distribution(everything())
    assert set(d)==set(TYPES) and sum(sum(n.values()) for n in d.values())==len(everything())
    assert set(d['object_rel_direction_medium'])=={'left','right','back'}
    assert set(answer_distribution(everything(), letters=True)['object_rel_direction_medium'])=={'A','B','C'}

def test_a_room_without_a_single_thing_of_its_kind():
    "Nothing to stand by, to face or to measure: the questions that need no such thing remain"
    assert not watch(331814424, 32).unique and watch(331814424, 32).gaps.shape==(0,0)
    qs = room_questions(331814424, 6)
    assert qs and {q['question_type'] for q in qs}<={'object_counting','room_size_estimation','obj_appearance_order'}
