"The loop: same curve after an accident, clear refusals, rooms that belong to their step"
import json,math
from pathlib import Path
import pytest,torch
import torch.nn.functional as F
from torch import nn
from spa3r.core import UserError,set_seed
from spa3r.psfm import Spa3R
from spa3r.rooms import HELD_OUT
from spa3r.teaching import teach
from spa3r.training import TrainConfig,fit,load_checkpoint,param_groups,pretrain,room_views

class Toy(nn.Linear):
    def save_pretrained(self, d):
        from safetensors.torch import save_file
        Path(d).mkdir()
        save_file(self.state_dict(), Path(d)/'model.safetensors')

def batch(step): return torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
def loss(m, x): return {'loss':F.mse_loss(m(x), x.sum(1,keepdim=True))}
def log(d): return [json.loads(l) for l in open(Path(d)/'log.jsonl')]

def run(d, batch_fn=batch, **kw):
    set_seed(3)
    return fit(Toy(3,1), batch_fn, loss, TrainConfig(**{**dict(steps=17, lr=.05, warmup=3, save_every=4), **kw}), d, progress=False)

@pytest.mark.parametrize('at', [0,3,4,5,16])
def test_accident_leaves_no_trace(tmp_path, at):
    whole = run(tmp_path/'a')
    def bad(step): return batch(step) if step!=at else 1/0
    with pytest.raises(ZeroDivisionError): run(tmp_path/'b', bad)
    (tmp_path/'b'/'unfinished').mkdir(exist_ok=True)  # as left by a kill while writing
    with open(tmp_path/'b'/'log.jsonl', 'a') as f: f.write('{"step": 1')
    again = run(tmp_path/'b')
    assert log(tmp_path/'a')==log(tmp_path/'b') and [l['step'] for l in log(tmp_path/'b')]==list(range(17))
    assert torch.equal(whole.weight, again.weight) and torch.equal(whole.bias, again.bias)

def test_finished_run_does_nothing(tmp_path):
    a = run(tmp_path)
    b = run(tmp_path, batch_fn=lambda step: 1/0)
    assert torch.equal(a.weight, b.weight) and len(log(tmp_path))==17

def test_other_settings_are_refused(tmp_path):
    run(tmp_path)
    with pytest.raises(UserError, match='other settings'): run(tmp_path, lr=.06)

def test_nan_stops_with_a_word(tmp_path):
    with pytest.raises(UserError, match='lower the learning rate'): run(tmp_path, lambda s: batch(s)*(math.nan if s==9 else 1))
    assert [p.name for p in tmp_path.glob('step-*')]==['step-0000008']
    m = Toy(3,1)
    assert load_checkpoint(tmp_path, m, torch.optim.AdamW(param_groups(m, 0.), lr=1.))==8
    assert m.weight.isfinite().all()

def test_schedule():
    c = TrainConfig.nano(steps=500)
    lrs = [c.lr_at(s) for s in range(500)]
    top = max(range(500), key=lrs.__getitem__)
    assert lrs[:top+1]==sorted(lrs[:top+1]) and lrs[top:]==sorted(lrs[top:], reverse=True) and top<=c.warmup
    assert abs(lrs[-1]/c.lr-c.lr_end)<1e-3

def test_rooms_belong_to_their_step():
    c = TrainConfig.nano(batch=3, v_min=3, v_max=5)
    a,b,other = (room_views(c, s)[0] for s in (4,4,5))
    assert torch.equal(a.cams.w2c, b.cams.w2c)
    assert a.cams.w2c.shape!=other.cams.w2c.shape or not torch.equal(a.cams.w2c, other.cams.w2c)
    assert len({room_views(c, s)[0].cams.shape[1] for s in range(12)})==3

def test_training_never_sees_held_out_rooms(monkeypatch):
    import spa3r.training as t
    seen = []
    real = t.sample_scenes
    monkeypatch.setattr(t, 'sample_scenes', lambda seeds, *a, **k: seen.extend(seeds) or real(seeds, *a, **k))
    for s in range(20): room_views(TrainConfig.nano(batch=4, v_min=2, v_max=2), s)
    assert len(set(seen))>70 and max(seen)<HELD_OUT

def test_pretrain_and_teach_end_to_end(tmp_path):
    teach(out=str(tmp_path/'teacher'), steps=1, batch=1, v_min=2, v_max=2)
    s = pretrain(out=str(tmp_path/'student'), teacher=str(tmp_path/'teacher'), nano=True, steps=2, batch=1, v_min=2, v_max=2)
    assert (tmp_path/'student'/'teacher'/'model.safetensors').exists()  # the two travel together
    again = Spa3R.from_pretrained(tmp_path/'student')
    assert again.cfg.teacher=='teacher' and all(torch.equal(v, again.state_dict()[k]) for k,v in s.state_dict().items())
