"The picture of the whole model: drawn from the configurations, and its shapes are those that the model has"
import importlib.util,json
from dataclasses import replace
from pathlib import Path
import pytest,torch
from torch._subclasses.fake_tensor import FakeTensorMode
from spa3r.model.cameras import Cameras
from spa3r.model.patch_encoder import VGGT
from spa3r.model.psfm import Spa3R

root = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location('model_picture', root/'tools/model_picture.py')
draw = importlib.util.module_from_spec(spec)
spec.loader.exec_module(draw)

def test_pictures_are_in_step():
    bad = draw.main(check=True)
    assert not bad, f'{bad} differ from the configurations: run python tools/model_picture.py'

def test_a_changed_configuration_changes_the_picture():
    from dataclasses import replace
    s = draw.nano()
    for field,value in (('n_latents',77), ('dim',136)):
        assert f'{value}' in draw.whole(replace(s, student=replace(s.student, **{field:value})))
    assert draw.whole(replace(s, encoder=replace(s.encoder, dim=104)))!=draw.whole(s)

def walked(s):
    "Shapes that the model really has on its way, without memory or numbers"
    t = s.shapes
    grid = tuple(o//s.encoder.patch for o in s.hw)
    with FakeTensorMode(), torch.no_grad():
        vggt,student = VGGT(s.encoder),Spa3R(s.student)
        tokens = vggt.aggregate(torch.empty(1, s.views, 3, *s.hw))[-1]
        features = vggt.patches(tokens)[:,:t['context'][0]]
        latents = student.encode(features, grid)
        vt = t['hidden'][0]
        cams = Cameras(torch.empty(1, vt, 4, 4), torch.empty(1, vt, 3, 3), s.hw)
        out = dict(tokens=tokens, features=features, latents=latents, rays=cams.rays(grid).flatten(2,3),
                   **student.decode(latents, cams, grid))
    return {k:tuple(v.shape[1:]) for k,v in out.items()}

@pytest.mark.parametrize('size', ['paper','nano'])
def test_shapes_are_those_of_the_model(size):
    s = getattr(draw, size)()
    found = walked(s)
    assert found=={k:s.shapes[k] for k in found}
    assert {'tokens','features','latents','rays','geo'}<=set(found)
    text = draw.whole(s)
    for k in ('tokens','features','latents','rays'): assert draw.shape(found[k]) in text, k

def test_the_miniature_is_the_one_in_the_package():
    weights,s = root/'spa3r/weights',draw.nano()
    def read(f): return json.loads((weights/f/'config.json').read_text(encoding='utf8'))
    assert Spa3R.read_config(read('nano'))==s.student
    told = VGGT.read_config(read('nano/teacher'))
    assert replace(told, relative=s.encoder.relative)==s.encoder  # weights of before tell cameras as their head says them: the same shapes
    assert read('vlm')['text_config']['hidden_size']==s.width and read('vlm')['spatial_width']==s.hw[1]

def test_the_language_model_of_the_paper():
    keys = json.loads((root/'tests/golden/keys_spa3_vlm_adapter.json').read_text(encoding='utf8'))['keys']
    assert draw.paper().width==keys['geometry_projector.2.weight']['shape'][0]
    assert draw.paper().student.dim==keys['geometry_projector.0.weight']['shape'][1]

def test_states_are_told_by_more_than_colour():
    text = draw.whole(draw.paper())
    for word in ('trained','frozen','dropped','needed for training only'): assert word in text
    assert 'stroke-dasharray: 6 3' in text and 'stroke-dasharray: 1.5 2.5' in text and 'url(#h)' in text
    assert 'prefers-color-scheme: dark' in text and '<title>' in text

def test_the_small_pictures_mark_their_part():
    for name,parts in draw.HERE.items():
        assert draw.where(parts).count('class="here"')==len(parts), name
