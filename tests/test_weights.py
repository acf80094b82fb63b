"The weights that ship: every file is the one that was judged, and what its card says can be had again"
import hashlib,json
from pathlib import Path
import pytest
from spa3r.language.chat import load_chat
from spa3r.teachers.teachers import WEIGHTS,load_student
from spa3r.probe.probes import evaluate_field
from spa3r.rooms.questions import room_questions
from spa3r.rooms.rooms import HELD_OUT
from spa3r.bench.scoring import prompt
from spa3r.rooms.visibility import room_frames

HERE = Path(__file__).parent

@pytest.mark.parametrize('name,folder', [('weights',WEIGHTS), ('golden',HERE/'golden')])
def test_every_file_is_the_one_that_was_judged(name, folder):
    "Lists written by tools/checksums.py"
    want = {name:h for h,name in (l.split() for l in (HERE/f'{name}.sha256').read_text(encoding='utf8').splitlines())}
    have = {p.relative_to(folder).as_posix():hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob('*') if p.is_file()}
    assert have==want, f'not as listed: {sorted(k for k in have.keys()|want.keys() if have.get(k)!=want.get(k))}; after a change that is meant: python tools/checksums.py'

def test_the_weights_are_small(): assert sum(p.stat().st_size for p in WEIGHTS.rglob('*') if p.is_file())<30e6

@pytest.mark.parametrize('name', ['exact','nano'])
def test_the_card_can_be_had_again(name):
    "The cosine at hidden views of some of the card's rooms, within what so few rooms can differ from all of them"
    told = json.loads((WEIGHTS/name/'card.json').read_text(encoding='utf8'))['measures']['video']
    assert told['config']['first_seed']==HELD_OUT
    student,teacher,_ = load_student(name)
    n,rows = 8,evaluate_field(student, teacher, range(HELD_OUT, HELD_OUT+8), hw=tuple(told['config']['hw']))['rows']
    for method in ('prediction','shuffled latents','nearest view'):
        card,mine = told['rows'][method]['cosine'],rows[method]['cosine']['mean']
        assert abs(mine-card['mean'])<4*card['std']/n**.5, f'{method}: the card says {card["mean"]:.3f}, here it is {mine:.3f}'
    assert rows['prediction']['cosine']['mean']>rows['shuffled latents']['cosine']['mean']+.1

def test_the_vlm_says_what_its_card_says(capsys):
    "Its answers about the first of the card's rooms; one may differ, for another CPU rounds a near tie otherwise"
    card,chat = json.loads((WEIGHTS/'vlm'/'card.json').read_text(encoding='utf8')),load_chat('vlm', frames=8)
    assert 'about real places it knows nothing' in capsys.readouterr().err
    asked = [prompt(q) for q in room_questions(HELD_OUT, 1)][:len(card['said'])]  # kinds that are younger than the weights come last
    said = chat.ask(chat.watch(room_frames(HELD_OUT, 8)), asked)
    assert len(said)==len(card['said'])>=5 and sum(a!=b for a,b in zip(said, card['said']))<=1
    assert {'nano','chance','frequency','blind'}<=card['result']['runs'].keys()
