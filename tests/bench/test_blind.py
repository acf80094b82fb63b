"Answering blind: what words give away is found, and taken out"
import random
from collections import Counter
import numpy as np
import pytest
from spa3r.bench.baselines import blind_answers,blind_scores,debias
from spa3r.bench.scoring import grade,totals
from rooms_again import SEEDS,asked

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
