"A scene is watched once and asked often: the same logits and answers as from the beginning each time"
from copy import deepcopy
import numpy as np
import pytest,torch
from PIL import Image
from tiny_qwen import BASES,base,folders,images,picture,strong,tokenizer,wake
from spa3r.language.chat import CACHE,Chat,OtherChat,load_chat
from spa3r.data.scenes import resize_view,stack_views
from spa3r.language.processor import pictures
from spa3r.util.core import UserError
from spa3r.language.vlm import INPUTS,Processor,from_qwen,processor_fields

kinds = pytest.mark.parametrize('kind', BASES)
SCENES = [[picture(0),picture(1, 112, 84)], [picture(2)], [picture(3, 56, 56),picture(4),picture(5, 112, 112)]]
ASKED = ['How many chairs?','Which of them is the nearest to the door, and why?','Tables?','How many doors are there in this room?','Beds?']

@pytest.fixture(scope='module')
def there(tmp_path_factory): return folders(tmp_path_factory.mktemp('qwens'))

def chat(there, kind, fusion='cross', tokens=8, dtype=None, **kw):
    m = wake(from_qwen(str(there/kind), str(there/'spatial'), fusion))
    with torch.no_grad(): m.model.language_model.embed_tokens.weight.mul_(.5)
    if dtype: m = m.to(dtype)
    return Chat(m, Processor(tokenizer(), images(), **processor_fields(m.config)), tokens=tokens, **kw)

def logits_of(c, pics, q):
    "Logits of an answer when everything is read from the beginning"
    x = c.processor([c.processor.chat(len(pics), q, c.system)], [pics])
    out = c.model.generate(**x, max_new_tokens=c.tokens, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return torch.stack(out.logits)[:,0],out.sequences[0,x['input_ids'].shape[1]:]

def logits_together(c, pics, qs):
    "Logits of all answers when the pictures are read once"
    seen = c.watch(pics)
    x,past = c.continued(seen, qs),deepcopy(seen.past)
    past.batch_repeat_interleave(len(qs))
    out = c.model.generate(**x, **{CACHE:past}, max_new_tokens=c.tokens, do_sample=False, output_logits=True, return_dict_in_generate=True)
    return torch.stack(out.logits, 1),out.sequences[:,x['input_ids'].shape[1]:]

@kinds
@pytest.mark.parametrize('fusion', ['none','cross','append'])
def test_watched_once_as_read_each_time(there, kind, fusion):
    "float32: logits to 1e-4 of their size, answers the same, and they depend on scene and question"
    c,texts,first = chat(there, kind, fusion),[],[]
    for pics in SCENES:
        got,ids = logits_together(c, pics, ASKED)
        for i,q in enumerate(ASKED):
            want,mine = logits_of(c, pics, q)
            n = len(want)
            assert torch.equal(ids[i,:n], mine)
            assert (got[i,:n]-want).abs().max()<=1e-4*want.abs().max().clamp_min(1)
        first += list(got[:,0])
        texts += (told := c.ask(c.watch(pics), ASKED))
        assert told==[c.answer(pics, q) for q in ASKED]
    assert len(set(texts))>=4 and torch.pdist(torch.stack(first)).min()>.5

def test_asking_warns_of_nothing(there, recwarn):
    c = chat(there, 'qwen2_5_vl')
    c.ask(c.watch(SCENES[0]), ASKED)
    assert not [str(w.message) for w in recwarn if 'deprecated' in str(w.message)]

@kinds
@pytest.mark.parametrize('fusion', ['cross','append'])
def test_watched_with_given_latents(there, kind, fusion):
    "The latents it would make itself change nothing when they are given; those of another scene change what it says"
    c = chat(there, kind, fusion)
    def latents(pics): return c.model.model.encoder()(stack_views([resize_view(p, *c.processor.view) for p in pics]))
    def cache(seen): return torch.stack([layer.keys for layer in seen.past.layers])
    own,given,other = c.watch(SCENES[0]),c.watch(SCENES[0], latents(SCENES[0])),c.watch(SCENES[0], latents(SCENES[2]))
    torch.testing.assert_close(cache(given), cache(own), rtol=1e-4, atol=1e-4)
    assert (cache(other)-cache(own)).abs().max()>1e-2
    assert c.ask(given, ASKED)==c.ask(own, ASKED)

@kinds
def test_pictures_are_read_once(there, kind):
    "The eye and the spatial encoder look once a scene; asking leaves no trace in what was watched"
    c,looks = chat(there, kind),[]
    c.model.model.visual.register_forward_hook(lambda *a: looks.append('eye'))
    c.model.model.encoder().register_forward_hook(lambda *a: looks.append('space'))
    a,b = (c.watch(o) for o in SCENES[:2])
    n = a.past.get_seq_length()
    first = [c.ask(o, ASKED) for o in (a,b)]
    assert [c.ask(o, [q]) for o in (b,a) for q in ASKED]==[[t] for t in first[1]+first[0]]  # the scenes take turns
    assert looks.count('eye')==2 and looks.count('space')==2 and a.past.get_seq_length()==n

@kinds
def test_where_a_scene_ends(there, kind):
    "After the last <|vision_end|>; positions as in a whole conversation"
    c = chat(there, kind)
    a = c.watch(SCENES[0])
    tok = c.processor.tokenizer
    assert tok.decode(a.ids[0,-1:])=='<|vision_end|>' and (a.ids==tok.convert_tokens_to_ids('<|vision_end|>')).sum()==2
    x = c.continued(a, ASKED)
    for i,q in enumerate(ASKED):
        w = c.processor([c.processor.chat(2, q, c.system)], [SCENES[0]])
        pos,_ = c.model.model.get_rope_index(**{k:w[k] for k in ('input_ids','mm_token_type_ids','image_grid_thw','attention_mask')})
        real = x['attention_mask'][i]>0
        assert torch.equal(x['input_ids'][i][real], w['input_ids'][0]) and torch.equal(x['position_ids'][:,i][:,real], pos[:,0])

@kinds
def test_a_batch_of_scenes(there, kind):
    "Several scenes with different numbers of pictures, each with its question: as one by one"
    c = chat(there, kind)
    got = c.answer(SCENES, ASKED[:3])
    assert got==[c.answer(s, q) for s,q in zip(SCENES, ASKED)] and len(set(got))==3 and isinstance(got[0], str)
    with pytest.raises(ValueError): c.answer(SCENES, ASKED)

@kinds
def test_bfloat16_agrees_mostly(there, kind):
    "Rounding differs when rows are put together otherwise; how often answers agree is printed, and logits stay near"
    c = chat(there, kind, dtype=torch.bfloat16)
    same,n = 0,0
    for pics in SCENES:
        got,ids = logits_together(c, pics, ASKED)
        for i,q in enumerate(ASKED):
            want,mine = logits_of(c, pics, q)
            assert (got[i,0]-want[0]).abs().max()<=.06*want[0].abs().max()
            same,n = same+torch.equal(ids[i,:len(mine)], mine),n+1
    print(f'\nbfloat16, {kind}: {same} of {n} answers agree', end='')
    assert same>=n/2

def test_a_plain_qwen(there):
    "The same helper without any adapter"
    c = load_chat(str(there/'qwen2_5_vl'), tokens=6)
    assert type(c) is Chat and c.processor.view is None and c.ask(c.watch(SCENES[0]), ASKED)==[c.answer(SCENES[0], q) for q in ASKED]

@kinds
def test_any_other_model(there, kind):
    "With the processor of transformers, and with no word from us where tokens are"
    from test_vlm import official
    c = chat(there, kind, 'none')
    o = OtherChat(c.model, official(kind, c.processor.tokenizer), tokens=c.tokens)
    want = [c.answer(s, q) for s,q in zip(SCENES, ASKED)]
    assert o.answer(SCENES, ASKED[:3])==want and [o.ask(o.watch(s), [q])[0] for s,q in zip(SCENES, ASKED)]==want
    assert o.ask(o.watch(SCENES[0]), ASKED)==c.ask(c.watch(SCENES[0]), ASKED)

@kinds
def test_load_chat(there, tmp_path, kind):
    c = chat(there, kind, 'append')
    c.model.save_pretrained(tmp_path)
    c.processor.save_pretrained(tmp_path)
    again = load_chat(str(tmp_path), tokens=8)
    assert again.answer(SCENES, ASKED[:3])==c.answer(SCENES, ASKED[:3])
    with pytest.raises(UserError, match='cannot be loaded as an image-and-text model'): load_chat(str(there/'spatial'))

def test_what_shows_a_scene(tmp_path):
    "A folder, a video, a picture, arrays and tensors; upright, and at most so many"
    frames = np.random.default_rng(0).integers(0, 255, (5,24,32,3), dtype=np.uint8)
    for i,f in enumerate(frames): Image.fromarray(f).save(tmp_path/f'{i}.png')
    (tmp_path/'notes.txt').write_text('no picture', encoding='utf8')
    same = lambda a,b: len(a)==len(b) and all(np.array_equal(np.asarray(x), y) for x,y in zip(a, b))
    for x in (tmp_path, str(tmp_path), frames, list(frames), torch.from_numpy(frames).movedim(-1,1)/255, [tmp_path/f'{i}.png' for i in range(5)]): assert same(pictures(x), frames)
    assert same(pictures(tmp_path, 3), frames[[0,2,4]]) and same(pictures(tmp_path/'2.png'), frames[2:3]) and same(pictures(frames[0]), frames[:1])
    assert same(pictures(Image.fromarray(frames[1])), frames[1:2])
    turned = Image.fromarray(frames[0])
    exif = turned.getexif()
    exif[0x0112] = 6
    turned.save(tmp_path/'turned.jpg', exif=exif)
    assert pictures(tmp_path/'turned.jpg')[0].size==(24,32)
    for bad,said in ((tmp_path/'none','No '), (tmp_path/'notes.txt','neither a picture nor a video'), ([],'at least one')):
        with pytest.raises(UserError, match=said): pictures(bad)
    (tmp_path/'empty').mkdir()
    with pytest.raises(UserError, match='No pictures in'): pictures(tmp_path/'empty')

def test_a_video_file(tmp_path, there):
    import av
    with av.open(str(tmp_path/'a.mp4'), 'w') as box:
        s = box.add_stream('mpeg4', rate=10)
        s.width,s.height = 84,56
        for i in range(20): [box.mux(p) for p in s.encode(av.VideoFrame.from_ndarray(np.full((56,84,3), i*12, np.uint8), format='rgb24'))]
        [box.mux(p) for p in s.encode()]
    got = pictures(tmp_path/'a.mp4', 4)
    level = [np.asarray(p).mean() for p in got]
    assert len(got)==4 and got[0].size==(84,56) and all(a<b for a,b in zip(level, level[1:]))
    c = chat(there, 'qwen2_5_vl', frames=4)
    assert c.answer(tmp_path/'a.mp4', ASKED[0])==c.answer(got, ASKED[0])

@pytest.mark.parametrize('token', ['<|im_end|>','<|image_pad|>','<|vision_end|>','<|endoftext|>'])
def test_a_token_that_somebody_types_is_refused_by_name(there, token):
    c,typed = chat(there, next(iter(BASES))),f'What does {token} mean?'
    other = OtherChat.__new__(OtherChat)
    other.system = 'Be brief.'
    for ask in (lambda: c.answer(SCENES[0], typed), lambda: c.ask(c.watch(SCENES[0]), ['Beds?',typed]), lambda: other.around(1, typed), lambda: c.processor.chat(1, 'Hm?', reply=token)):
        with pytest.raises(UserError, match=r'in words, which a model takes for the token') as err: ask()
        assert token in str(err.value)
    c.system = token
    with pytest.raises(UserError, match='in words'): c.watch(SCENES[0])
