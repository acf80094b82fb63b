"The loop: data as published, a scene watched once, a question asked once whatever happens, several processes, a model of transformers"
import io,json,multiprocessing,os,random,shutil,signal,sys,time,zipfile
from pathlib import Path
from types import SimpleNamespace
import numpy as np, pytest, torch
from spa3r.bench import questions_data as bm, evaluate as e, scoring as v
from spa3r.language.chat import OtherChat
from spa3r.util.core import UserError

def question(i, scene='s0', t='object_counting', truth='3', options=None, dataset='d', **kw):
    if t in v.CHOICE: options,truth = options or ['A. left','B. right'],kw.pop('letter', 'A')
    return dict(id=i, dataset=dataset, scene_name=scene, question_type=t, question=f'Question {i}?', options=options, ground_truth=truth) | kw
TYPES = [t for ts in v.PUBLIC.values() for t in ts]  # a public file's
def questions(n=60, per=7, **kw): return [question(i, f's{i//per}', TYPES[i%len(TYPES)], **kw) for i in range(n)]
def write(path, qs):
    path.write_text('\n'.join(map(json.dumps, qs)) if path.suffix=='.jsonl' else json.dumps(qs), encoding='utf8')
    return path

def film(path, frames=20, size=(64,48), step=10, codec='mpeg4', **options):
    av = pytest.importorskip('av')
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as box:
        s = box.add_stream(codec, rate=10, options=options)
        s.width,s.height,s.pix_fmt = *size,'yuv420p'
        s.gop_size = 5
        for i in range(frames):
            for p in s.encode(av.VideoFrame.from_ndarray(np.full((size[1],size[0],3), step*i, dtype=np.uint8), format='rgb24')): box.mux(p)
        for p in s.encode(): box.mux(p)
    return path

class Dummy:
    "Says '2' and counts"
    def __init__(self, stop=10**9): self.log,self.stop = [],stop
    def __call__(self, scene, qs):
        if len(self.log)+len(qs)>self.stop: raise KeyboardInterrupt
        assert {v.scene_of(q) for q in qs}=={scene.name}
        self.log += [e.ask_id(q) for q in qs]
        return ['2']*len(qs)
def scenes(qs): return e.make_scenes(qs, None)

# --- data

@pytest.mark.parametrize('suffix', ['.jsonl','.json','.parquet'])
def test_questions_from_files(tmp_path, monkeypatch, suffix):
    qs,path = questions(),tmp_path/f'test{suffix}'
    write(path, qs)
    if suffix=='.parquet':
        monkeypatch.setitem(sys.modules, 'pyarrow', None)
        with pytest.raises(UserError, match='pip install pyarrow'): bm.read_questions(path)
        batch = lambda p: SimpleNamespace(to_pylist=lambda: json.loads(Path(p).read_text(encoding='utf8')))  # pyarrow, as far as it is used
        table = lambda p: SimpleNamespace(iter_batches=lambda: [batch(p)])
        monkeypatch.setitem(sys.modules, 'pyarrow', SimpleNamespace(parquet=SimpleNamespace(ParquetFile=table)))
        monkeypatch.setitem(sys.modules, 'pyarrow.parquet', SimpleNamespace(ParquetFile=table))
    assert bm.read_questions(path)==qs and bm.open_data(str(path))[0]==qs and bm.open_data(str(tmp_path) if suffix!='.json' else str(path))[0]==qs

def test_published_tables(tmp_path, monkeypatch):
    "Two tables in place of one file, as the hub has them; and one of them alone"
    qs = [dict(q, pruned=q['id']%4==0) for q in questions()]
    out,left = [q for q in qs if q['pruned']],[q for q in qs if not q['pruned']]
    for n,o in (('debiased',left),('pruned',out)): write(tmp_path/f'test_{n}.parquet', o)
    monkeypatch.setattr(bm, '_table', lambda p: json.loads(p.read_text(encoding='utf8')))
    assert bm.open_data(str(tmp_path))[0]==left+out
    for n,o in (('debiased',left),('pruned',out)): assert bm.open_data(str(tmp_path), n)[0]==o
    (tmp_path/'test_pruned.parquet').unlink()
    assert bm.open_data(str(tmp_path), 'debiased')[0]==left
    with pytest.raises(UserError, match='no questions in'): bm.open_data(str(tmp_path))

def test_arrow_files(tmp_path):
    "As `datasets` writes them (streams, a folder for the split) and as others do"
    pa = pytest.importorskip('pyarrow')
    qs = questions()
    table = pa.Table.from_pylist(qs)
    (tmp_path/'set/test').mkdir(parents=True)
    for path,new in ((tmp_path/'set/test/data-00000-of-00001.arrow',pa.ipc.new_stream), (tmp_path/'a.arrow',pa.ipc.new_file)):
        with pa.OSFile(str(path), 'wb') as f, new(f, table.schema) as w: w.write_table(table)
    assert bm.open_data(str(tmp_path/'set'))[0]==bm.read_questions(tmp_path/'a.arrow')==qs
    (tmp_path/'b.arrow').write_bytes((tmp_path/'a.arrow').read_bytes()[:300])
    with pytest.raises(UserError, match='b.arrow cannot be read'): bm.read_questions(tmp_path/'b.arrow')

def test_lines_end_at_line_ends_alone(tmp_path):
    q = question(0, question='How\u2028many\u0085 chairs\x0c?')
    (tmp_path/'a.jsonl').write_text('\ufeff'+json.dumps(q, ensure_ascii=False)+'\r\n'+json.dumps(question(1)), encoding='utf8')
    assert bm.read_questions(tmp_path/'a.jsonl')==[q,question(1)]

bad = {"no dataset, scene_name, question_type, question, ground_truth":dict(id=1), 'smell':question(1, question_type='smell'), "'two' is no number":question(1, truth='two'),
       "None is no number":question(1, truth=None), "'nan' is no number":question(1, truth='nan'), "'C' is none of the options' letters A, B":question(1, t='route_planning', letter='C'),
       "options None":question(1, t='route_planning')|dict(options=None), "options ['left', 'right']":question(1, t='route_planning', options=['left','right']),
       'not a question but list':[1], 'not a question but NoneType':None}
@pytest.mark.parametrize('why', bad)
def test_malformed_rows_are_named(tmp_path, why):
    with pytest.raises(UserError) as err: bm.read_questions(write(tmp_path/'a.jsonl', [question(0), bad[why], question(2)]))
    assert f'line 2: ' in str(err.value) and why in str(err.value) and 'a.jsonl' in str(err.value) and '1 malformed questions of 3' in str(err.value)
    with pytest.raises(UserError, match='entry 1: '): bm.read_questions(write(tmp_path/'a.json', [question(0), bad[why]]))

def test_more_ways_to_be_malformed(tmp_path):
    (tmp_path/'a.jsonl').write_text(json.dumps(question(0))+'\n\n{"id": 1, "dat', encoding='utf8')
    with pytest.raises(UserError, match='line 3: not a question'): bm.read_questions(tmp_path/'a.jsonl')
    with pytest.raises(UserError, match='line 2: the same scene and id as line 1'): bm.read_questions(write(tmp_path/'b.jsonl', [question(0)]*2))
    with pytest.raises(UserError, match='and 3 more'): bm.read_questions(write(tmp_path/'c.jsonl', [{}]*8))
    with pytest.raises(UserError, match='no questions in it'): bm.read_questions(write(tmp_path/'d.json', []))
    for n,text in (('e.json','{'), ('f.json','7'), ('h.jsonl','\xff\xfe')):
        (tmp_path/n).write_bytes(text.encode('latin1'))
        with pytest.raises(UserError, match=n): bm.read_questions(tmp_path/n)
    with pytest.raises(UserError, match='none.jsonl'): bm.read_questions(tmp_path/'none.jsonl')
    with pytest.raises(UserError, match='looked for test.jsonl'): bm.open_data(str(tmp_path))
    with pytest.raises(UserError, match='hub id'): bm.open_data('nowhere')

def test_hub_that_cannot_be_reached_is_named(monkeypatch):
    import huggingface_hub
    def none(**kw): raise OSError('no way there')
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', none)
    with pytest.raises(UserError, match='nyu-visionx/VSI-Bench is no file or folder here.*no way there'): bm.open_data('nyu-visionx/VSI-Bench')

def test_hub_brings_questions_first_and_a_zip_when_it_is_wanted(tmp_path, monkeypatch):
    import huggingface_hub
    asked = []
    def download(repo_id, repo_type, allow_patterns, **kw):
        assert (repo_id,repo_type)==('nyu-visionx/VSI-Bench','dataset')
        asked.append(allow_patterns)
        if '*.jsonl' in allow_patterns: write(tmp_path/'test.jsonl', questions(8))
        if 'd.zip' in allow_patterns:
            with zipfile.ZipFile(tmp_path/'d.zip', 'w') as z: z.write(film(tmp_path/'made/s0.mp4'), 'd/s0.mp4')
        return str(tmp_path)
    monkeypatch.setattr(huggingface_hub, 'snapshot_download', download)
    qs,videos = bm.open_data('nyu-visionx/VSI-Bench')
    assert len(qs)==8 and len(asked)==1
    assert videos.film(qs[0], 3).shape==(3,48,64,3) and asked[1:]==[['d.zip']]
    assert videos.find(qs[7]) is None and len(asked)==2
    assert bm.open_data('nyu-visionx/VSI-Bench')[1].find(qs[0]) and len(asked)==3  # the zip is there already

def test_splits(tmp_path):
    qs = questions(20)
    write(tmp_path/'test.jsonl', qs)
    with pytest.raises(UserError, match='pruned_ids.txt'): bm.open_data(str(tmp_path), 'debiased')
    with pytest.raises(UserError, match='debiased'): bm.open_data(str(tmp_path), 'biased')
    (tmp_path/'pruned_ids.txt').write_text('\n'.join(str(i) for i in range(0, 20, 3)), encoding='utf8')
    by_list = {s:[q['id'] for q in bm.open_data(str(tmp_path), s)[0]] for s in ('full','debiased','pruned')}
    write(tmp_path/'test.jsonl', [dict(q, pruned=q['id']%3==0) for q in qs])
    (tmp_path/'pruned_ids.txt').unlink()
    assert by_list=={s:[q['id'] for q in bm.open_data(str(tmp_path), s)[0]] for s in ('full','debiased','pruned')}
    assert by_list['pruned']==list(range(0, 20, 3)) and sorted(by_list['pruned']+by_list['debiased'])==by_list['full']==list(range(20))

def test_videos_in_folders_and_zips(tmp_path):
    film(tmp_path/'d/s0.mp4', step=1)
    film(tmp_path/'s1.mkv', step=2)
    film(tmp_path/'x/s2.mp4', step=3)
    with zipfile.ZipFile(tmp_path/'d.zip', 'w') as z: z.write(tmp_path/'x/s2.mp4', 'any/where/s2.mp4')
    videos = bm.Videos(tmp_path)
    for i in range(3): assert videos.film(question(0, f's{i}'), 20)[-1].mean()==pytest.approx(19*(i+1), abs=3)
    with pytest.raises(UserError, match='no video of d/s3: looked for d/s3.mp4 and d.zip'): videos.film(question(0, 's3'), 4)
    (tmp_path/'d/s4.mp4').write_bytes(b'0'*999)
    with pytest.raises(UserError, match='d/s4 cannot be read as a video'): bm.Videos(tmp_path).film(question(0, 's4'), 4)

def test_damaged_zips_are_named(tmp_path):
    (tmp_path/'d.zip').write_bytes(b'PK, or not')
    with pytest.raises(UserError, match='d.zip cannot be read as a zip'): bm.Videos(tmp_path).find(question(0))
    with zipfile.ZipFile(tmp_path/'c.zip', 'w', zipfile.ZIP_DEFLATED) as z: z.write(film(tmp_path/'x/s0.mp4', codec='libx264'), 's0.mp4')
    b = bytearray((tmp_path/'c.zip').read_bytes())
    b[200:260] = bytes(60)
    (tmp_path/'c.zip').write_bytes(b)
    with pytest.raises(UserError, match='s0.mp4 in .*c.zip is damaged'): bm.Videos(tmp_path).open(question(0, dataset='c'))

def test_choosing():
    qs = questions()
    assert e.choose(qs)==sorted(qs, key=v.scene_of)
    first = e.choose(qs, limit=10)
    assert [q['scene_name'] for q in first]==['s0']*7+['s1']*3
    assert {q['question_type'] for q in e.choose(qs, 'object_rel_direction, object_counting')}=={*v.TASKS['object_rel_direction'],'object_counting'}
    assert {q['question_type'] for q in e.choose(qs, 'object_rel_direction_easy')}=={'object_rel_direction_easy'}
    with pytest.raises(UserError, match='no task colour: there are .*object_counting'): e.choose(qs, 'colour')
    with pytest.raises(UserError, match='none of 1 questions is of route_planning'): e.choose(qs[:1], 'route_planning')

# --- frames

@pytest.mark.parametrize('total', [1,2,31,32,33,100,4999])
def test_frame_rule(total):
    n = bm.frame_numbers(total)
    assert n.tolist()==np.linspace(0, total-1, min(32, total)).astype(int).tolist() and n[0]==0 and n[-1]==total-1 and len(set(n.tolist()))==len(n)

@pytest.mark.parametrize('frames,n', [(20,32),(20,20),(20,7),(1,4),(25,2)])
def test_the_right_frames(tmp_path, frames, n):
    got = bm.video_frames(film(tmp_path/'a.mp4', frames), n)
    assert got.dtype==np.uint8 and got.shape==(min(n, frames),48,64,3)
    assert got.mean((1,2,3))==pytest.approx(10*bm.frame_numbers(frames, n), abs=4)

def test_frames_of_a_film_that_was_cut(tmp_path):
    whole = film(tmp_path/'a.mkv', 25).read_bytes()
    (tmp_path/'b.mkv').write_bytes(whole[:len(whole)*2//3])
    with pytest.raises(UserError, match='b.mkv is cut'): bm.video_frames(tmp_path/'b.mkv', 4)  # frames of the first two thirds would pass for frames of the whole

def test_frames_that_cannot_be_decoded(tmp_path):
    "Cut out in front of a key frame: the first packets give no picture, and the rule holds for those that come"
    import av
    with av.open(str(film(tmp_path/'a.mkv', 25, step=9, codec='libx264', bf='0'))) as a, av.open(str(tmp_path/'b.mkv'), 'w') as b:
        s = b.add_stream_from_template(a.streams.video[0])
        for i,p in enumerate(a.demux(video=0)):
            if i>0 and p.size:
                p.stream = s
                b.mux(p)
    whole = bm.video_frames(tmp_path/'b.mkv', 99).mean((1,2,3))
    assert len(whole)==20
    assert bm.video_frames(tmp_path/'b.mkv', 7).mean((1,2,3))==pytest.approx(whole[bm.frame_numbers(len(whole), 7)], abs=.1)

# --- a scene is watched once

def test_watched_once():
    qs,filmed,made,seen = questions(30),[],[],[]
    def film(q, n):
        filmed.append((q['scene_name'],n))
        return np.zeros((n,2,2,3), np.uint8)
    def answer(scene, some):
        assert scene.frames(8).shape==(8,2,2,3)
        scene.once('latents', lambda: made.append(scene.name))
        seen.append((scene.name,len(some)))
        return ['1']*len(some)
    all_ = e.make_scenes(qs, film)
    e.ask(answer, all_, batch=3)
    names = sorted({q['scene_name'] for q in qs})
    assert sorted(filmed)==[(s,8) for s in names] and sorted(made)==[f'd/{s}' for s in names]
    assert seen[:3]==[('d/s0',3),('d/s0',3),('d/s0',1)] and len(seen)==3*4+1
    assert not any(s.made for s in all_)  # memory was given back
    e.ask(answer, all_, batch=0)
    assert seen[-5:]==[('d/s0',7),('d/s1',7),('d/s2',7),('d/s3',7),('d/s4',2)]

# --- nothing is lost, nothing is asked twice

def test_stopped_and_continued(tmp_path):
    qs,log = questions(),[]
    for stop in (5, 12, 13, 10**9):
        d = Dummy(stop)
        try: e.ask(d, scenes(qs), tmp_path/'a', batch=4)
        except KeyboardInterrupt: pass
        log += d.log
        assert set(log)==set(e.read_answers(tmp_path/'a'))
    assert sorted(log)==sorted(map(e.ask_id, qs))
    got,n = e.ask(Dummy(), scenes(qs), tmp_path/'a')
    assert n==0 and set(got)==set(map(e.ask_id, qs)) and set(got.values())=={'2'}

@pytest.mark.parametrize('seed', range(30))
def test_any_number_of_processes_stopped_anywhere(tmp_path, seed):
    "Runs with changing numbers of processes, each killed at a random byte of its file"
    r,qs = random.Random(seed),questions(80, per=1+seed%9)
    for _ in range(4):
        world = r.randint(1, 5)
        for rank in r.sample(range(world), world):
            before,d = e.read_answers(tmp_path),Dummy(r.randint(0, 30))
            try: e.ask(d, scenes(qs), tmp_path, r.choice([0,1,3,8]), rank, world)
            except KeyboardInterrupt: pass
            assert not set(d.log)&set(before), 'asked again'
            assert set(e.read_answers(tmp_path))==set(before)|set(d.log), 'lost'
            f = tmp_path/f'rank{rank}.jsonl'
            if r.random()<.5 and f.exists():  # the power went while a line was written
                with open(f, 'ab') as o: o.write(b'{"ask": "77", "answer": "2", "question": "\xc3'[:r.randint(1, 40)])
                assert set(e.read_answers(tmp_path))==set(before)|set(d.log)
    world = r.randint(1, 6)
    logs = [Dummy() for _ in range(world)]
    for rank,d in enumerate(logs): e.ask(d, scenes(qs), tmp_path, 3, rank, world)
    got = e.read_answers(tmp_path)
    assert set(got)==set(map(e.ask_id, qs))
    lines = [json.loads(l)['ask'] for p in tmp_path.glob('rank*.jsonl') for l in p.read_text(encoding='utf8').splitlines() if l.endswith('}')]
    assert sorted(l for l in lines if l!='77')==sorted(map(e.ask_id, qs)), 'a line for each question, and only one'

def test_torn_line_is_cut_before_more_is_added(tmp_path):
    qs = questions(10)
    e.ask(Dummy(), scenes(qs[:4]), tmp_path)
    f = tmp_path/'rank0.jsonl'
    whole = f.read_bytes()
    f.write_bytes(whole[:-9])
    assert len(e.read_answers(tmp_path))==3
    d = Dummy()
    e.ask(d, scenes(qs), tmp_path)
    assert len(d.log)==7 and [json.loads(l)['id'] for l in f.read_text(encoding='utf8').splitlines()]==list(range(10))

def test_garbage_in_the_middle_is_named(tmp_path):
    e.ask(Dummy(), scenes(questions(4)), tmp_path)
    f = tmp_path/'rank0.jsonl'
    f.write_bytes(f.read_bytes().replace(b'"id": 2', b'\0\0\0'))
    with pytest.raises(UserError, match='rank0.jsonl, line 3 is no answer'): e.read_answers(tmp_path)

def test_a_file_has_one_writer(tmp_path):
    with e.AnswerFile(tmp_path/'rank0.jsonl'):
        with pytest.raises(UserError, match='another process'): e.ask(Dummy(), scenes(questions(4)), tmp_path)
    e.ask(Dummy(), scenes(questions(4)), tmp_path)

def test_every_scene_is_somebodys():
    qs = questions(100, per=3)
    for world in (1,2,3,7,60):
        d = [Dummy() for _ in range(world)]
        for rank in range(world): e.ask(d[rank], scenes(qs), None, 2, rank, world)
        assert sorted(sum((o.log for o in d), []))==sorted(map(e.ask_id, qs))

def test_other_wording_is_another_question(tmp_path):
    qs = questions(6)
    e.ask(Dummy(), scenes(qs), tmp_path)
    d = Dummy()
    e.ask(d, scenes([dict(qs[0], question='Otherwise?'),*qs[1:]]), tmp_path)
    assert len(d.log)==1

def test_answers_survive_any_text(tmp_path):
    odd = ['', '\n', '\r\n', '\u2028', '"', '\\', '\x00', '\ud83d', 'é', '9'*9999, None]
    qs = questions(len(odd))
    texts = dict(zip(map(e.ask_id, qs), odd))
    got,_ = e.ask(lambda s,some: [texts[e.ask_id(q)] for q in some], scenes(qs), tmp_path)
    assert got==texts==e.read_answers(tmp_path)

def test_progress(tmp_path, monkeypatch):
    bars = []
    class Bar:
        def __init__(self, **kw): bars.append(dict(kw, done=0))
        def __enter__(self): return self
        def __exit__(self, *_): pass
        def update(self, n): bars[-1]['done'] += n
    monkeypatch.setattr(e, 'tqdm', Bar)
    qs = questions(30)
    try: e.ask(Dummy(10), scenes(qs), tmp_path, 5)
    except KeyboardInterrupt: pass
    e.ask(Dummy(), scenes(qs), tmp_path, 5)
    assert [(b['total'],b['initial'],b['done'],b['unit']) for b in bars]==[(30,0,7,' questions'),(30,7,23,' questions')]

def test_wrong_number_of_answers():
    with pytest.raises(ValueError, match='1 answers to 7 questions about d/s0'): e.ask(lambda s,qs: ['2'], scenes(questions()))

def slow(log, path, qs, rank, world):
    def answer(scene, some):
        time.sleep(.004)
        with open(f'{log}.{rank}', 'a', encoding='utf8') as f: f.write(''.join(e.ask_id(q)+'\n' for q in some))
        return ['2']*len(some)
    e.ask(answer, scenes(qs), path, 2, rank, world)

def test_real_processes_one_of_them_killed(tmp_path):
    qs,made = questions(200, per=5),multiprocessing.get_context('fork')
    ps = [made.Process(target=slow, args=(tmp_path/'log', tmp_path/'answers', qs, r, 2)) for r in range(2)]
    for p in ps: p.start()
    while len(e.read_answers(tmp_path/'answers'))<20: time.sleep(.01)
    os.kill(ps[1].pid, signal.SIGKILL)
    for p in ps: p.join()
    some = e.read_answers(tmp_path/'answers')
    assert ps[0].exitcode==0 and 100<=len(some)<200
    slow(tmp_path/'log', tmp_path/'answers', qs, 0, 1)
    assert set(e.read_answers(tmp_path/'answers'))==set(map(e.ask_id, qs))
    asked = [l for p in tmp_path.glob('log.*') for l in p.read_text(encoding='utf8').split()]
    twice = {a for a in asked if asked.count(a)>1}
    assert set(asked)==set(map(e.ask_id, qs)) and not twice&set(some) and len(twice)<=2  # what the kill took out of the model's mouth is asked again

# --- runs, tables, the command

def test_a_folder_holds_one_run(tmp_path):
    e.same_run(tmp_path, dict(model='slip of the pen', frames=8))  # nothing has been answered: no harm done
    e.same_run(tmp_path, dict(model='a', frames=8))
    e.ask(Dummy(), scenes(questions(3)), tmp_path)
    e.same_run(tmp_path, dict(model='a', frames=8))
    with pytest.raises(UserError, match=r"'frames': \(8, 32\)"): e.same_run(tmp_path, dict(model='a', frames=32))

def test_command_on_a_file(tmp_path, capsys):
    path = write(tmp_path/'q.json', questions(120))
    r = e.evaluate(str(path), out=str(tmp_path/'o.json'), parser='thinking_in_space')
    said = capsys.readouterr().out
    assert r==json.loads((tmp_path/'o.json').read_text(encoding='utf8')) and (tmp_path/'o.json.png').read_bytes()[:4]==b'\x89PNG'
    assert list(r['runs'])==['chance','frequency','blind','oracle'] and not r['minus']
    asked = {'overall',*v.PUBLIC,*TYPES}
    assert r['runs']['oracle']['scores']==dict.fromkeys(asked, 100.)
    for s in r['runs'].values():
        assert set(s['intervals'])==asked
        for k,(lo,hi) in s['intervals'].items(): assert lo<=s['scores'][k]<=hi
    assert r['about']['parser']=='thinking_in_space' and r['about']['questions']==120 and r['about']['code'].startswith('spa3r ')
    for w in ('120 questions about 18 scenes','oracle','relative direction','  easy','answers read as thinking_in_space does','code spa3r'): assert w in said, w
    for w in ('as reported by others on the 5130 questions of VSI-Bench, not run here','62.1','79.2','Thinking in Space','Spa3R, table 1'): assert w in said, w
    assert [len(o) for o in r['rows'].values()]==[120]*4 and not (tmp_path/'o.json.answers').exists()

def test_command_on_rooms(tmp_path, capsys, monkeypatch):
    r = e.evaluate(rooms=2, seed=5, model='none', out=str(tmp_path/'o.json'))
    assert r['about']['data']=='rooms' and r['about']['scenes']==2 and r['runs']['oracle']['scores']['overall']==100
    qs,films = bm.room_data(range(10**9+5, 10**9+7))
    assert [q['id'] for q in e.choose(qs)]==[o['id'] for o in r['rows']['chance']] and not any(map(bm.fault, qs))
    assert films.find(qs[0]) and films.film(qs[0], 2).shape==(2,240,320,3) and (films.film(qs[-1], 1)!=films.film(qs[0], 1)).any()
    monkeypatch.setattr(bm, 'debias', lambda qs: ([dict(q, pruned=i%3==0) for i,q in enumerate(qs)],None))
    split = {s:e.evaluate(rooms=2, seed=5, split=s, model='none', out=str(tmp_path/'o.json'))['about']['questions'] for s in ('debiased','pruned')}
    assert split['pruned']==-(-len(qs)//3) and sum(split.values())==len(qs) and 'split debiased' in capsys.readouterr().out

class Tiny:
    "Stands where a model stands"
    made = []
    @classmethod
    def from_pretrained(cls, name, device, **kw): return cls()
    def answer(self, scene, qs):
        f = scene.once('mean', lambda: Tiny.made.append(scene.name) or scene.frames(4).mean())
        return [str(round(f)%5)]*len(qs)

@pytest.fixture
def filmed(tmp_path, monkeypatch):
    for i in range(5): film(tmp_path/f'd/s{i}.mp4')
    monkeypatch.setattr(e, 'VLM', Tiny)
    Tiny.made = []
    return write(tmp_path/'test.jsonl', questions(33))

def test_command_with_a_model(tmp_path, filmed, capsys):
    out = str(tmp_path/'o.json')
    r = e.evaluate(str(tmp_path), model='tiny', out=out, frames=4, limit=20)
    assert list(r['runs'])[0]=='tiny' and set(r['minus'])=={'chance','frequency','blind','oracle'} and sorted(Tiny.made)==['d/s0','d/s1','d/s2']
    r = e.evaluate(str(tmp_path), model='tiny', out=out, frames=4)  # more questions: those before are not asked again
    said = capsys.readouterr().out
    assert '20 questions asked' in said and '13 questions asked' in said and 'questions/s' in said and 'frames 4' in said and 'tiny minus blind' in said
    assert len(r['rows']['tiny'])==33
    again = e.evaluate(str(tmp_path), model='tiny', out=out, frames=4)
    assert again['rows']==r['rows'] and '0 questions asked' in capsys.readouterr().out
    with pytest.raises(UserError, match=r"'model': \('tiny', 'other'\)"): e.evaluate(str(tmp_path), model='other', out=out, frames=4)
    r = e.evaluate(str(tmp_path), model='other', out=str(tmp_path/'p.json'), frames=4, against=out)
    assert r['minus']['tiny (o.json)']['overall']==dict(difference=0, low=0, high=0, p=1) and 'other minus tiny (o.json): +0.0' in capsys.readouterr().out
    with pytest.raises(UserError, match='is not the result of a run'): e.evaluate(str(filmed), out=out, against=str(filmed))

def test_any_function_can_be_judged(tmp_path, filmed, capsys):
    def looks(scene, qs): return [str(len(scene.frames(3))) for q in qs]
    r = e.evaluate(str(tmp_path), model=looks, out=str(tmp_path/'o.json'), limit=7)
    assert next(iter(r['runs']))=='looks' and {o['answer'] for o in r['rows']['looks']}=={'3'}

def test_weights_that_changed_are_another_model(tmp_path, filmed, monkeypatch):
    m = tmp_path/'m'
    m.mkdir()
    (m/'model.safetensors').write_bytes(bytes(200_000))
    kw = dict(model=str(m), out=str(tmp_path/'o.json'), frames=4, limit=7)
    r = e.evaluate(str(tmp_path), **kw)
    assert r['about']['weights']==e.weights_id(str(m)) and next(iter(r['runs']))==r['about']['model']=='m'  # not the whole path
    e.evaluate(str(tmp_path), **kw)
    (m/'model.safetensors').write_bytes(bytes(150_000)+b'1'+bytes(49_999))
    with pytest.raises(UserError, match="answers of a run with other settings, .*weights"): e.evaluate(str(tmp_path), **kw)
    shutil.copytree(m, tmp_path/'blind')
    r = e.evaluate(str(tmp_path), **kw|dict(model=str(tmp_path/'blind'), out=str(tmp_path/'p.json')))
    assert list(r['runs'])==['blind (model)',*e.SIMPLE]  # a name that is taken

def test_the_shipped_model_is_asked_about_rooms(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(e, 'VLM', Tiny)
    monkeypatch.setattr(e, 'SHIPPED', tmp_path/'vlm')
    kw = dict(rooms=1, out=str(tmp_path/'o.json'))
    assert list(e.evaluate(**kw)['runs'])==list(e.SIMPLE) and 'only ways of guessing are judged' in capsys.readouterr().out  # said, and gone on
    with pytest.raises(UserError, match='nano VLM is not here'): e.evaluate(model='nano', **kw)
    (tmp_path/'vlm').mkdir()
    (tmp_path/'vlm/config.json').write_text('{}', encoding='utf8')
    r = e.evaluate(**kw)
    assert list(r['runs'])==['nano',*e.SIMPLE] and r['about']['frames']==8 and 'nano minus blind' in capsys.readouterr().out
    assert list(e.evaluate(model='none', **kw)['runs'])==list(e.SIMPLE)
    q = str(write(tmp_path/'q.json', questions(10)))
    assert list(e.evaluate(q, **kw)['runs'])==list(e.SIMPLE)  # other data only if it is asked for

def test_command_in_several_processes(tmp_path, filmed, capsys, monkeypatch):
    monkeypatch.setenv('WORLD_SIZE', '2')
    kw = dict(model='tiny', out=str(tmp_path/'o.json'), frames=4)
    for rank,first in ((1,True),(0,False)):
        monkeypatch.setenv('RANK', str(rank))
        r = e.evaluate(str(tmp_path), **kw)
        assert (r=={})==first and (tmp_path/'o.json').exists()!=first
    assert 'process 1 of 2 is done; 19 questions are with the others' in capsys.readouterr().out
    assert len(r['rows']['tiny'])==33 and len(list((tmp_path/'o.json.answers').glob('rank*.jsonl')))==2
    monkeypatch.setenv('RANK', '1')
    assert e.evaluate(str(tmp_path), **kw)=={}  # nothing left to ask: the first process makes the table
    monkeypatch.setenv('RANK', '0')
    assert e.evaluate(str(tmp_path), **kw)['rows']==r['rows']

def test_missing_videos_are_named_before_anything_is_asked(tmp_path, filmed):
    (tmp_path/'d/s3.mp4').unlink()
    with pytest.raises(UserError, match='1 scenes have no video: d/s3'): e.evaluate(str(tmp_path), model='tiny', out=str(tmp_path/'o.json'))
    assert not (tmp_path/'o.json.answers').exists() and e.evaluate(str(tmp_path), out=str(tmp_path/'o.json'))['runs']

def test_options_are_checked(tmp_path):
    q = str(write(tmp_path/'q.json', questions(4)))
    for kw,why in ((dict(parser='mine'),'lmms_eval'), (dict(frames=-1),'frames'), (dict(rooms=0),'rooms'), (dict(limit=-1),'limit'), (dict(batch=-1),'batch'), (dict(tasks='x'),'no task x')):
        with pytest.raises(UserError, match=why): e.evaluate(q, out=str(tmp_path/'o.json'), **kw)

# --- a model of transformers

CHAT = '''{% for m in messages %}<|im_start|>{{ m['role'] }}
{% for c in m['content'] %}{% if c['type']=='image' %}<|vision_start|><|image_pad|><|vision_end|>{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}'''

@pytest.fixture(scope='module')
def qwen():
    "A Qwen2.5-VL of random weights, and a processor of images alone (the real one needs torchvision)"
    from tokenizers import Tokenizer,decoders,models,pre_tokenizers
    from transformers import Qwen2_5_VLConfig,Qwen2_5_VLForConditionalGeneration,Qwen2TokenizerFast
    from transformers.models.qwen2_5_vl.processing_qwen2_5_vl import Qwen2_5_VLProcessor
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    from transformers.processing_utils import ProcessorMixin
    class Images(Qwen2_5_VLProcessor):
        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **kw):
            self.image_token,self.video_token = '<|image_pad|>','<|video_pad|>'
            self.image_token_id,self.video_token_id = [tokenizer.convert_tokens_to_ids(t) for t in (self.image_token,self.video_token)]
            ProcessorMixin.__init__(self, image_processor, tokenizer, chat_template=chat_template)
    tk = Tokenizer(models.BPE(vocab={c:i for i,c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tk.pre_tokenizer,tk.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False),decoders.ByteLevel()
    special = ['<|endoftext|>','<|im_start|>','<|im_end|>','<|vision_start|>','<|vision_end|>','<|image_pad|>','<|video_pad|>']
    tok = Qwen2TokenizerFast(tokenizer_object=tk, eos_token='<|im_end|>', pad_token='<|endoftext|>', additional_special_tokens=special)
    n = {s.strip('<|>'):tok.convert_tokens_to_ids(s) for s in special}
    text = dict(vocab_size=len(tok), hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, bos_token_id=None,
                eos_token_id=n['im_end'], pad_token_id=n['endoftext'], rope_parameters=dict(rope_type='default', rope_theta=1e4, mrope_section=[2,3,3]))
    vision = dict(depth=2, hidden_size=32, intermediate_size=48, num_heads=2, out_hidden_size=64, patch_size=14, spatial_merge_size=2, window_size=56, fullatt_block_indexes=[1])
    torch.manual_seed(0)
    m = Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, image_token_id=n['image_pad'], video_token_id=n['video_pad'],
                                                            vision_start_token_id=n['vision_start'], vision_end_token_id=n['vision_end'])).eval()
    for p in m.parameters():
        if p.ndim>1: p.data.mul_(4)  # so that answers depend on what is seen and asked
    return m,Images(Qwen2VLImageProcessorPil(min_pixels=56*56, max_pixels=112*112), tok, chat_template=CHAT)

def plainly(m, p, frames, q, tokens):
    "One question, everything read from the beginning"
    from PIL import Image
    imgs = [Image.fromarray(o) for o in frames]
    chat = [dict(role='system', content=[dict(type='text', text='You are a helpful assistant.')]),
            dict(role='user', content=[dict(type='image')]*len(imgs)+[dict(type='text', text=v.prompt(q))])]
    x = p(text=[p.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)], images=imgs, return_tensors='pt')
    return p.tokenizer.decode(m.generate(**x, max_new_tokens=tokens, do_sample=False)[0,x['input_ids'].shape[1]:], skip_special_tokens=True)

def test_vlm_reads_frames_once_and_answers_as_if_it_had_not(qwen):
    m,p = qwen
    qs = [question(i, f's{i//6}', t, question='What is it?'*(1+i%3)+' '+'abcdef'[i%6]) for i,t in enumerate(['object_counting','route_planning','object_rel_distance']*4)]
    pics = {s:np.random.default_rng(i).integers(0, 255, (5,*hw,3), dtype=np.uint8) for i,(s,hw) in enumerate(dict(s0=(84,112), s1=(56,84)).items())}
    looks = []
    hook = m.model.visual.register_forward_hook(lambda mod,x,out: looks.append(1))
    vlm = e.VLM(OtherChat(m, p, frames=5, tokens=12))
    got = {}
    a,b = e.make_scenes(qs, lambda q,n: pics[q['scene_name']][:n])
    for i in range(0, 6, 2):  # the scenes take turns: each keeps what was read of it
        for s in (a,b): got |= dict(zip(map(e.ask_id, s.questions[i:i+2]), vlm.answer(s, s.questions[i:i+2])))
    assert len(looks)==2
    hook.remove()
    want = {e.ask_id(q):plainly(m, p, pics[q['scene_name']], q, 12) for q in qs}
    assert got==want
    assert len(set(want.values()))>=6  # they differ, so agreeing means something
    three = e.VLM(OtherChat(m, p, frames=3, tokens=8)).answer(e.make_scenes(qs[:4], lambda q,n: pics['s0'][:n])[0], qs[:4])
    assert three==[plainly(m, p, pics['s0'][:3], q, 8) for q in qs[:4]]

def test_vlm_through_the_loop(qwen, tmp_path):
    qs = questions(10, per=5)
    vlm = e.VLM(OtherChat(*qwen, frames=2, tokens=4))
    frames = lambda q,n: np.random.default_rng(int(q['scene_name'][1:])).integers(0, 255, (n,56,84,3), dtype=np.uint8)
    one,_ = e.ask(vlm.answer, e.make_scenes(qs, frames), tmp_path/'a', batch=1)
    all_,n = e.ask(vlm.answer, e.make_scenes(qs, frames), tmp_path/'b', batch=0)
    assert one==all_ and n==10 and all(isinstance(t, str) for t in one.values())

def test_vlm_that_cannot_be_loaded_is_named(tmp_path):
    with pytest.raises(UserError, match='cannot be loaded as an image-and-text model'): e.VLM.from_pretrained(str(tmp_path))

@pytest.mark.parametrize('fusion', ['cross','append'])
def test_command_with_a_spa3_vlm(tmp_path, capsys, monkeypatch, fusion):
    "A folder with a Spa3-VLM on rooms: watched once a room, and what it says is what it says alone"
    from tiny_qwen import folders,wake
    from spa3r.language.chat import Chat,load_chat
    from spa3r.language.vlm import Processor,from_qwen
    there = folders(tmp_path/'base')
    wake(from_qwen(str(there/'qwen2_5_vl'), str(there/'spatial'), fusion)).save_pretrained(tmp_path/'model')
    Processor.from_pretrained(str(there/'qwen2_5_vl')).save_pretrained(tmp_path/'model')
    watched,watch = [],Chat.watch
    monkeypatch.setattr(Chat, 'watch', lambda self,x: watched.append(1) or watch(self, x))
    r = e.evaluate('rooms', model=str(tmp_path/'model'), frames=3, rooms=2, limit=12, batch=4, out=str(tmp_path/'o.json'), device='cpu')
    capsys.readouterr()
    qs,films = bm.room_data(range(e.HELD_OUT, e.HELD_OUT+2))
    rows,by = next(iter(r['rows'].values())),{(e.scene_of(q),q['id']):q for q in qs}
    c = load_chat(str(tmp_path/'model'), frames=3)
    assert len(rows)==12 and len(watched)==len({o['scene'] for o in rows})
    alone = [c.answer(films.film(q, 3), v.prompt(q)) for q in (by[o['scene'],o['id']] for o in rows)]
    assert [o['answer'] for o in rows]==alone and len(set(alone))>1

# --- many questions

def many(path, n):
    "Questions in a file, never in memory together"
    with open(path, 'w', encoding='utf8') as f: f.writelines(json.dumps(question(i, f's{i//20}', TYPES[i%len(TYPES)], truth=str(i%40)))+'\n' for i in range(n))
    return path

def test_what_lies_on_disk_is_a_list(tmp_path):
    qs = questions(30)
    x = bm.OnDisk(qs)
    assert len(x)==30 and x==qs and x[-1]==qs[-1] and x[3:9:2]==qs[3:9:2] and x[[5,1]]==[qs[5],qs[1]] and x!=qs[:-1] and x!=qs[::-1]
    assert bm.OnDisk()==[] and list(x)==list(map(json.loads, map(x.line, range(30))))
    with pytest.raises(IndexError): x[30]

def test_memory_grows_by_less_than_a_question(tmp_path, monkeypatch):
    "Ways of guessing, judged and written: what a question costs in memory is far less than the question"
    import tracemalloc
    from spa3r.bench import baselines
    monkeypatch.setattr(baselines, 'MOST', 50)  # all types have more
    def peak(n):
        path = many(tmp_path/f'{n}.jsonl', n)
        tracemalloc.start()
        qs = e.choose(bm.open_data(str(path))[0])
        e.save_result(e.judge(qs, {k:f(qs) for k,f in e.SIMPLE.items()}, draws=2), tmp_path/'o.json')
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert len(json.loads((tmp_path/'o.json').read_text(encoding='utf8'))['rows']['blind'])==n
        return most
    peak(200)  # imports
    small,large = peak(1000),peak(3000)
    assert (large-small)/2000<300  # a question as a dictionary takes 700 bytes, with its four rows 3000

def test_a_list_in_memory_is_judged_as_one_on_disk(tmp_path):
    qs = questions(300)
    disk = bm.read_questions(many(tmp_path/'q.jsonl', 300))
    for f in e.SIMPLE.values(): assert f(list(disk))==f(disk)
    texts = e.SIMPLE['blind'](qs)
    a,b = e.judge(qs, {'a':texts}, draws=20),e.judge(bm.OnDisk(qs), {'a':texts}, draws=20)
    assert a['runs']==b['runs'] and a['rows']['a']==b['rows']['a']==v.grade(qs, texts)

@pytest.mark.parametrize('piece', [1,7,2**16])
def test_json_comes_in_pieces_of_any_size(piece):
    "However a file is cut up by reading, its values are those that Python reads at once"
    class Slow(io.StringIO):
        def read(self, n): return super().read(min(n, piece))
    for x in ([], [1,23,-4.5e-6,'a]"\\',None,True,[[],{}],{'a':{'b':[1]}}], list(range(300))):
        for text in (json.dumps(x), json.dumps(x, indent=3), f' \n{json.dumps(x)}\t'):
            p = bm.Pieces(Slow(text))
            assert list(p.items())==x
            p.end()
    for text in ('[1 2]', '[1,', '[1', '{}', '', 'null', '[1]]', '[x]', '["a]'):
        with pytest.raises(ValueError): p = bm.Pieces(Slow(text)); list(p.items()); p.end()

def test_an_entry_without_end_is_refused_before_memory_is_full(monkeypatch):
    monkeypatch.setattr(bm.Pieces, 'most', 10**5)
    endless = SimpleNamespace(read=lambda n: '["'*n)
    with pytest.raises(ValueError, match='more than 100000 letters'): list(bm.Pieces(endless).items())

@pytest.mark.parametrize('suffix', ['json','against'])
def test_lists_in_one_piece_are_not_held_in_memory(tmp_path, suffix):
    import tracemalloc
    qs = [dict(q, question=q['question']+' '*300) for q in bm.read_questions(many(tmp_path/'q.jsonl', 2000))]
    whole = bm.OnDisk(qs)
    path = tmp_path/'x.json'
    if suffix=='json': path.write_text(json.dumps(qs), encoding='utf8')
    else: e.save_result(e.judge(whole, {'m':['x'*400]*2000}, draws=2), path)
    def read():
        if suffix=='json': assert bm.read_questions(path)==whole
        else: assert list(e.against_run(path, whole[::-1])[1][5:7])==['x'*400]*2
    read()  # imports
    tracemalloc.start()
    read()
    assert tracemalloc.get_traced_memory()[1]<path.stat().st_size/2
    tracemalloc.stop()

def test_answers_of_another_run_go_to_their_questions(tmp_path):
    qs = questions(60)
    e.save_result(e.judge(qs, {'m':[f'answer {i}' for i in range(60)]}, draws=2), tmp_path/'a.json')
    assert e.against_run(tmp_path/'a.json', qs[::-1])==('m (a.json)', bm.OnDisk([f'answer {i}' for i in range(60)][::-1]))
    assert len(e.against_run(tmp_path/'a.json', qs[9:12])[1])==3
    text = json.loads((tmp_path/'a.json').read_text(encoding='utf8'))
    text['rows']['m'].append(text['rows']['m'][3]|dict(answer='another'))
    (tmp_path/'b.json').write_text(json.dumps(text), encoding='utf8')
    with pytest.raises(UserError, match='two answers'): e.against_run(tmp_path/'b.json', qs)
