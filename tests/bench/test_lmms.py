"The way into lmms-eval: a task made of rooms, and a model that watches each video once. lmms-eval itself is played by a few lines"
import ast,json,sys
from types import ModuleType,SimpleNamespace
import numpy as np, pytest
from spa3r.bench import evaluate as lmms, questions_data as bm, scoring as v

@pytest.fixture(scope='module')
def task(tmp_path_factory):
    folder = tmp_path_factory.mktemp('task')
    lmms.rooms_task(str(folder), rooms=1, frames=6)
    return folder

@pytest.fixture
def harness(monkeypatch):
    "As much of lmms-eval as is used"
    base = type('lmms', (), dict(__init__=lambda self: setattr(self, 'task_dict', {})))
    parts = {'lmms_eval':{}, 'lmms_eval.api':{}, 'lmms_eval.api.model':dict(lmms=base), 'lmms_eval.models':{},
             'lmms_eval.models.registry_v2':dict(ModelManifest=lambda **kw: SimpleNamespace(**kw))}
    for k,names in parts.items():
        m = ModuleType(k)
        vars(m).update(names)
        monkeypatch.setitem(sys.modules, k, m)
    return base

class Fake:
    "Answers with the brightness of the first frame"
    films = []
    @classmethod
    def from_pretrained(cls, name, device, **kw): return cls()
    def answer(self, scene, qs):
        f = scene.once('f', lambda: Fake.films.append(scene.name) or scene.frames(3)[0].mean())
        return [f'{q["id"]} {f:.0f}' for q in qs]

def test_task_folder(task):
    qs,videos = bm.open_data(str(task))
    assert len(qs)>10 and videos.film(qs[0], 99).shape==(6,240,320,3)
    frames = bm.room_data([])[1].film(qs[0], 6)
    assert np.abs(videos.film(qs[0], 99).astype(int)-frames).mean()<6  # the film is of this room
    text = (task/'spa3r_rooms.yaml').read_text(encoding='utf8')
    yaml = pytest.importorskip('yaml')
    class Loader(yaml.SafeLoader): pass
    Loader.add_constructor('!function', lambda l,n: n.value)
    cfg = yaml.load(text, Loader)
    assert cfg['task']=='spa3r_rooms' and cfg['dataset_kwargs']['data_files']['test']==str(task/'test.jsonl')
    assert len(cfg['metric_list'])==9 and cfg['generation_kwargs']['max_new_tokens']==16
    ast.parse((task/'utils.py').read_text(encoding='utf8'))

def test_only_what_lmms_eval_knows(tmp_path, monkeypatch):
    "Kinds of question that are not VSI-Bench's stay out of the task"
    known = dict(object_counting=('object_counting',), object_rel_direction=v.TASKS['object_rel_direction'])
    monkeypatch.setattr(lmms, 'PUBLIC', known)
    lmms.rooms_task(str(tmp_path), rooms=1, frames=2)
    asked = [json.loads(l)['question_type'] for l in (tmp_path/'test.jsonl').read_text(encoding='utf8').splitlines()]
    assert asked and set(asked)<={t for ts in known.values() for t in ts}

def test_written_again_it_is_the_same(task):
    before = {p.name:p.stat().st_mtime_ns for p in task.rglob('*.mp4')}
    text = (task/'test.jsonl').read_text(encoding='utf8')
    lmms.rooms_task(str(task), rooms=1, frames=6)
    assert before=={p.name:p.stat().st_mtime_ns for p in task.rglob('*.mp4')} and text==(task/'test.jsonl').read_text(encoding='utf8')

def test_model(task, harness, monkeypatch):
    monkeypatch.setattr(lmms, 'VLM', Fake)
    Fake.films = []
    m = lmms.Spa3RModel(pretrained='x', frames='3', batch_size='4', device='cpu')
    assert isinstance(m, harness) and m.device.type=='cpu'  # which lmms-eval asks for where there are several processes
    qs,_ = bm.open_data(str(task))
    m.task_dict = {'spa3r_rooms':{'test':qs}}
    film = lambda q: [str(task/q['dataset']/f"{q['scene_name']}.mp4")]
    ask = lambda i: SimpleNamespace(args=(v.prompt(qs[i]), {}, film, i, 'spa3r_rooms', 'test'))
    order = [3,1,2,0,5,4]
    got = m.generate_until([ask(i) for i in order])
    assert [int(a.split()[0]) for a in got]==[qs[i]['id'] for i in order] and len(Fake.films)==1
    other = SimpleNamespace(args=('Which of these is a duck?', {}, film, 0, 'spa3r_rooms', 'test'))
    with pytest.raises(ValueError, match='does not ask as VSI-Bench does'): m.generate_until([other])

def test_entry_point(harness):
    d = lmms.manifest()
    mod,_,name = d.simple_class_path.rpartition('.')
    assert d.model_id=='spa3r' and getattr(sys.modules[mod], name).__mro__[1] is harness
    with pytest.raises(AttributeError, match='Spa4RModel'): lmms.Spa4RModel

def test_it_needs_no_lmms_eval_to_be_imported(): assert 'lmms_eval' not in sys.modules
