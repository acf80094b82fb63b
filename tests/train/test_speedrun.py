"From random numbers to a report; stopped on the way and taken up again; and the commands of the cards can be typed"
import importlib,inspect,json,re,shlex,signal
from configparser import ConfigParser
from pathlib import Path
import pytest
import torch
import spa3r.train.speedrun as s
import spa3r.train.teach_vggt as lesson
from spa3r.util.core import Stopped,UserError,_parser
from spa3r.teachers.teachers import WEIGHTS
from spa3r.model.psfm import Spa3R

torch.set_num_threads(1)
ini = ConfigParser(delimiters=['='])
ini.read(Path(__file__).parents[2]/'settings.ini', encoding='utf8')
commands = dict(o.split('=') for o in ini['DEFAULT']['console_scripts'].split())

def typed(line):
    "Command and options of a line, each checked against the options that there are"
    name,*words = shlex.split(line)
    mod,f = commands[name].split(':')
    f = getattr(importlib.import_module(mod), f)
    parser = _parser.__wrapped__(f)
    parser.error = lambda why: pytest.fail(f'{line}: {why}')
    return name,{k:p.default for k,p in inspect.signature(f).parameters.items()}|vars(parser.parse_args(words))

@pytest.mark.parametrize('name', ['exact','nano'])
def test_a_card_s_commands_can_be_typed(name):
    lines = json.loads((WEIGHTS/name/'card.json').read_text(encoding='utf8'))['command'].split(' && ')
    got = [typed(l) for l in lines]
    assert len(got)>1 and got[-1][1]['out']==f'runs/{name}'
    outs = [o['out'] for _,o in got]
    for i,(_,o) in enumerate(got):
        for k in ('init','teacher'):
            if o.get(k, '').startswith('runs/'): assert any(o[k].startswith(b) for b in outs[:i]), f'{lines[i]} begins with what is not made yet'

@pytest.mark.parametrize('p', s.PARTS, ids=lambda p: p.name)
@pytest.mark.parametrize('small', [False,True])
def test_a_part_s_line_is_what_is_run(p, small):
    name,o = typed(p.line('runs', 7, small))
    assert name=='spa3r_'+p.make.__name__ and o['steps']==7
    assert all(o[k]==v for k,v in p.kwargs('runs', small).items())

def test_an_option_that_is_gone_is_found():
    with pytest.raises(pytest.fail.Exception, match='batch'): typed('spa3r_pretrain --batch 4')

def test_end_to_end_with_a_stop(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(s, 'TRIAL', 2)
    parts = [s.Part('teacher', s.teach, 1, 3, small=s.PARTS[0].small|dict(depth=1)), s.Part('nano', s.pretrain, 1, 3, dict(nano=True, grid=4, teacher='{out}/teacher'), s.TINY),
             s.Part('exact', s.pretrain, 1, 3, dict(nano=True, grid=4), s.TINY)]
    monkeypatch.setattr(s, 'PARTS', parts)
    out,kw = tmp_path/'run',dict(minutes=1., small=True, device='cpu', quiet=True)
    made = []
    real = s.Part.kwargs
    def counted(self, o, small=False):
        made.append(self.name)
        if self.name=='exact' and made.count('exact')==2: raise KeyboardInterrupt  # tried, but not begun
        return real(self, o, small)
    monkeypatch.setattr(s.Part, 'kwargs', counted)
    with pytest.raises(KeyboardInterrupt): s.speedrun(out=str(out), **kw)
    told,first = json.loads((out/'speedrun.json').read_text(encoding='utf8')),(out/'nano'/'log.jsonl').read_bytes()
    assert set(told['parts'])=={'teacher','nano','exact'} and s.whole(out/'nano') and not s.whole(out/'exact') and not list(out.glob('tmp*'))
    monkeypatch.undo()
    monkeypatch.setattr(s, 'PARTS', parts)
    r = s.speedrun(out=str(out), **kw)
    assert json.loads((out/'speedrun.json').read_text(encoding='utf8'))==told and (out/'nano'/'log.jsonl').read_bytes()==first, 'what was decided and done has changed'
    assert [p['steps'] for p in r['parts']]==[len((out/p['name']/'log.jsonl').read_text(encoding='utf8').splitlines()) for p in r['parts']]
    assert json.loads((out/'report.json').read_text(encoding='utf8'))==json.loads(json.dumps(r)) and set(r['probes'])=={'nano','exact'}
    text,page = (out/'report.txt').read_text(encoding='utf8'),(out/'report.html').read_text(encoding='utf8')
    for p in r['parts']: assert p['command'] in text and p['seconds']>0
    assert 'nearest view' in text and 'missed' in text and page.count('<svg')==3 and page.count('<img alt="')==2
    assert not re.search(r'(src|href)="(?!data:)', page), 'the page needs another file'
    assert Spa3R.from_pretrained(out/'nano').cfg.teacher=='teacher'
    with pytest.raises(UserError, match='other settings'): s.speedrun(out=str(out), **kw|dict(minutes=2.))

def test_time_is_dealt_out(tmp_path, monkeypatch):
    monkeypatch.setattr(s, 'seconds_a_step', lambda *a, **k: .5)
    plan = s.Plan(tmp_path, 1000.)
    got = {p.name:plan.steps(p) for p in s.PARTS}
    share = 900/sum(p.share for p in s.PARTS)
    assert got['teacher56']==int(share*7/.5) and s.Plan(tmp_path, 1000.).steps(s.PARTS[0])==got['teacher56']
    for p in s.PARTS[:3]:
        (tmp_path/p.name).mkdir()
        (tmp_path/p.name/'runs.jsonl').write_text(json.dumps(dict(seconds=300.))+'\n', encoding='utf8')
    assert plan.left()==0
    plan.told['parts'].pop(s.PARTS[-1].name)
    assert plan.steps(s.PARTS[-1])==2  # late, and yet not left out

def test_no_time_is_refused(tmp_path):
    for kw in (dict(hours=0.), dict(minutes=-1.), dict(rooms=1)):
        with pytest.raises(UserError): s.speedrun(out=str(tmp_path/'no'), **kw)
    assert not (tmp_path/'no').exists()

def test_a_signal_at_the_last_step_of_a_trial_stops_the_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(s, 'TRIAL', 2)
    done = []
    def loss(*a, real=lesson.teach_loss):
        done.append(1)
        if len(done)==2: signal.raise_signal(signal.SIGTERM)  # within the last step
        return real(*a)
    monkeypatch.setattr(lesson, 'teach_loss', loss)
    with pytest.raises(Stopped): s.speedrun(out=str(tmp_path/'run'), minutes=1., small=True, device='cpu', quiet=True)
    assert len(done)==2
