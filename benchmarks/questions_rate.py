"How many questions about rooms one CPU core makes in a minute: python benchmarks/questions_rate.py --help"
import time
from collections import Counter
import torch
from fastcore.script import call_parse
from spa3r.rooms.questions import room_questions

@call_parse
def main(
    seconds:float=20., # How long to measure
    each:int=3, # Most questions of a type about a room
):
    "Questions a minute on one thread, from the number of a room to its questions: drawing, filming, looking and asking"
    torch.set_num_threads(1)
    room_questions(0, each)  # warm up
    made,seed,wall,cpu = Counter(),1,time.perf_counter(),time.process_time()
    while time.perf_counter()-wall<seconds:
        made.update(q['question_type'] for q in room_questions(seed, each))
        seed += 1
    n,wall,cpu = made.total(),time.perf_counter()-wall,time.process_time()-cpu
    print(f"{seed-1} rooms, {n} questions ({n/(seed-1):.1f} a room): {60*n/wall:,.0f} a minute by the clock, {60*n/cpu:,.0f} a minute of CPU time")
    for t,k in made.most_common(): print(f'{t:30}{k:6}')
