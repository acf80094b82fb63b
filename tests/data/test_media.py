"Videos and photos as people have them: what a file shows whoever opens it, what is left out and named, what has an odd shape"
import itertools,os,struct,threading,warnings,zipfile
from fractions import Fraction
from pathlib import Path
import numpy as np, pytest
from PIL import Image
from spa3r.bench import questions_data as bm
from spa3r.util.core import UserError,read_text
from spa3r.language.processor import pictures
from spa3r.data.scenes import Video,VideoScene,odd_shapes,open_scenes,read_photos,read_video
from spa3r.data.batches import Batches,BadData,check_data
av = pytest.importorskip('av')

W,H = 96,64
def painted(v=0, size=(W,H)):
    "Four quarters, each with a grey of its own; the third channel counts"
    a = np.zeros((size[1],size[0],3), np.uint8)
    for y,x in itertools.product((0,1), (0,1)): a[y*size[1]//2:(y+1)*size[1]//2, x*size[0]//2:(x+1)*size[0]//2, :2] = 40+60*(2*y+x)
    a[...,2] = v
    return a
def quarters(img):
    "Which grey is where, row by row"
    a = np.asarray(img)[...,0].astype(float)
    h,w = a.shape
    return [round((a[y*h//4,x*w//4]-40)/60) for y in (1,3) for x in (1,3)]
def bright(img): return np.asarray(img)[...,2].mean()

def film(path, frames=24, codec='libx264', how=lambda s: None, first=0, step=8, sound=0, size=(W,H), options=None, stills=0, paint=painted):
    "A film at ten frames a second; perhaps with sound of so many seconds, or with a stream before it that holds one picture"
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w', options=options or {}) as box:
        for _ in range(stills):
            c = box.add_stream('mjpeg', rate=10)
            c.width,c.height,c.pix_fmt = W,H,'yuvj420p'
        s = box.add_stream(codec, rate=10)
        s.width,s.height,s.pix_fmt = *size,'yuvj420p' if codec=='mjpeg' else 'yuv420p'
        s.codec_context.gop_size = 8
        if codec!='mjpeg': s.bit_rate = 10**6
        how(s)
        if sound: a = box.add_stream('aac', rate=16000, layout='mono')
        for _ in range(stills): box.mux(c.encode(av.VideoFrame.from_ndarray(np.full((H,W,3), 255, np.uint8), format='rgb24').reformat(format='yuvj420p')))
        for i in range(frames): box.mux(s.encode(av.VideoFrame.from_ndarray(paint(first+step*i, size), format='rgb24')))
        box.mux(s.encode())
        for k in range(int(sound*16000/1024)):
            f = av.AudioFrame(format='fltp', layout='mono', samples=1024)
            f.sample_rate,f.pts = 16000,k*1024
            f.planes[0].update(bytes(4096))
            box.mux(a.encode(f))
        if sound: box.mux(a.encode(None))
    return path

READERS = dict(scene=lambda p: [o.read(i) for o in [VideoScene(p)] for i in range(len(o))], pictures=lambda p: pictures(p, 99), benchmark=lambda p: bm.video_frames(p, 99),
               opened=lambda p: bm.video_frames(open(p, 'rb'), 99, 'it'))

# ---- what a video shows

@pytest.mark.parametrize('a,b,c,d', [o for s,t in itertools.product((1,-1), (1,-1)) for o in ((s,0,0,t),(0,s,t,0))])
@pytest.mark.parametrize('suffix', ['.mp4','.mov'])
def test_all_eight_ways_to_turn_and_mirror(tmp_path, a, b, c, d, suffix):
    "x goes to (a, b), y to (c, d): worked out here for each quarter"
    one = 1<<16
    p = film(tmp_path/f'v{suffix}', 12, how=lambda s: s.set_display_matrix([a*one,b*one,0,c*one,d*one,0,0,0,1<<30]))
    at = {(a*x+c*y,b*x+d*y):2*(y>0)+(x>0) for y in (-1,1) for x in (-1,1)}
    want = [at[x,y] for y in (-1,1) for x in (-1,1)]
    for name,read in READERS.items():
        got = read(p)
        assert len(got)==12 and all(quarters(o)==want for o in got), name
        assert np.asarray(got[0]).shape[:2]==((H,W) if a else (W,H)), name
    assert VideoScene(p).size(3)==((W,H) if a else (H,W))
    assert read_video(p, 3, 56)[0].shape[2:]==((28,56) if a else (56,56))

@pytest.mark.parametrize('sar', [Fraction(4,3),Fraction(8,9),Fraction(2,1)])
@pytest.mark.parametrize('suffix', ['.mp4','.mkv'])
@pytest.mark.parametrize('turn', [0,90])
def test_pixels_that_are_not_square(tmp_path, sar, suffix, turn):
    def how(s):
        s.sample_aspect_ratio = sar
        if turn: s.set_display_rotation(turn)
    p = film(tmp_path/f'v{suffix}', 6, how=how)
    want = (round(W*sar),H) if not turn else (H,round(W*sar))
    assert VideoScene(p).size(0)==want
    for name,read in READERS.items(): assert all(np.asarray(o).shape[1::-1]==want for o in read(p)), name

def test_a_cover_is_no_film(tmp_path):
    p = film(tmp_path/'v.mkv', 24, stills=1)
    with av.open(str(p)) as box: assert len(box.streams.video)==2
    for name,read in READERS.items(): assert [round(bright(o)/8) for o in read(p)]==[*range(24)], name
    only = film(tmp_path/'sound.mp4', 1, sound=1)
    assert len(Video(only))==1  # one picture is one picture
    with av.open(str(tmp_path/'s.mp4'), 'w') as box:
        a = box.add_stream('aac', rate=16000, layout='mono')
        f = av.AudioFrame(format='fltp', layout='mono', samples=1024)
        f.sample_rate = 16000
        f.planes[0].update(bytes(4096))
        box.mux(a.encode(f))
        box.mux(a.encode(None))
    with pytest.raises(UserError, match='s.mp4 has no film in it'): Video(tmp_path/'s.mp4')

def shifted(src, to, by):
    "The same packets, earlier: what begins before 0 is hidden by an edit list"
    with av.open(str(src)) as a, av.open(str(to), 'w') as b:
        s = b.add_stream_from_template(a.streams.video[0])
        for p in a.demux(video=0):
            if p.dts is None: continue
            p.pts,p.dts,p.stream = p.pts-by,p.dts-by,s
            b.mux(p)
    return to

@pytest.mark.parametrize('hide', [3,5,8,13])
def test_hidden_packets_are_no_frames(tmp_path, hide):
    whole = film(tmp_path/'a.mp4')
    p = shifted(whole, tmp_path/'b.mp4', hide*1024)
    for name,read in READERS.items(): assert [round(bright(o)/8) for o in read(p)]==[*range(hide, 24)], name
    data = bytearray(whole.read_bytes())
    i = data.index(b'elst')
    data[i+12:i+16] = struct.pack('>I', 100*(24-hide)*struct.unpack('>I', data[i+12:i+16])[0]//2400)
    (tmp_path/'c.mp4').write_bytes(data)
    for name,read in READERS.items(): assert [round(bright(o)/8) for o in read(tmp_path/'c.mp4')]==[*range(24-hide)], name

@pytest.mark.parametrize('suffix', ['.mp4','.mkv'])
def test_sound_does_not_thin_out_the_pictures(tmp_path, suffix):
    p = film(tmp_path/f'v{suffix}', sound=9)
    assert [round(bright(o)/8) for o in pictures(p, 4)]==[3,9,15,21]
    assert read_video(p, 4)[1]==['0.3 s','0.9 s','1.5 s','2.1 s']
    assert len(Video(p).evenly(24))==24

def test_sizes_that_change_on_the_way_become_one(tmp_path):
    small,large = (film(tmp_path/f'{k}.mkv', 10, 'mjpeg', size=k) for k in ((48,32),(96,64)))
    for first,then in ((small,large),(large,small)):
        p = tmp_path/f'from-{first.stem}.mkv'
        with av.open(str(first)) as a, av.open(str(then)) as b, av.open(str(p), 'w') as out:
            s = out.add_stream_from_template(a.streams.video[0])
            for box,late in ((a,0),(b,1000)):
                for k in box.demux(video=0):
                    if k.dts is None: continue
                    k.pts,k.dts,k.stream = k.pts+late,k.dts+late,s
                    out.mux(k)
        want = Video(first).size
        for name,read in READERS.items():
            got = read(p)
            assert len(got)==20 and all(np.asarray(o).shape[1::-1]==want and quarters(o)==[0,1,2,3] for o in got), name
        assert VideoScene(p).read(15).size==want and len(Batches(open_scenes(p, width=28), 0, 2, 2, 4, 4)[0,0].imgs)==2

@pytest.mark.parametrize('name,codec,opts', [('a.mkv','libx264',{}),('b.webm','libvpx',{}),('c.avi','mpeg4',{}),('d.mp4','libx264',dict(movflags='faststart')),('e.mkv','mpeg4',{})])
@pytest.mark.parametrize('share', [.3,.6,.9])
def test_a_cut_file_is_one_line(tmp_path, name, codec, opts, share):
    whole = film(tmp_path/name, 80, codec=codec, options=opts, step=3)
    assert len(Video(whole))==80
    data = whole.read_bytes()
    cut = tmp_path/f'cut-{name}'
    cut.write_bytes(data[:int(len(data)*share)])
    for n,read in READERS.items():
        with pytest.raises(UserError, match='is cut|cannot be read') as e: read(cut)
        assert '\n' not in str(e.value), n
    (tmp_path/'d').mkdir()
    for p in (whole,cut): p.rename(tmp_path/'d'/p.name)
    s = open_scenes(tmp_path/'d', width=28)
    assert [o.name for o in s.scenes]==[whole.stem] and len(s.left)==1 and 'cut-' in s.left[0]

@pytest.mark.parametrize('name,codec,opts', [('a.mkv','libx264',{}),('b.webm','libvpx',{}),('c.avi','mpeg4',{}),('d.mp4','libx264',dict(movflags='faststart'))])
def test_a_shorter_cut_is_told(tmp_path, name, codec, opts):
    "Wherever two pictures or more are gone, a warning or a refusal says what is missing"
    whole = film(tmp_path/name, 80, codec=codec, options=opts, step=3)
    data,cut,told = whole.read_bytes(),tmp_path/f'cut-{name}',0
    with warnings.catch_warnings(action='error'): assert len(Video(whole))==80
    for share in (.995,.985,.97,.94,.9,.85):
        cut.write_bytes(data[:int(len(data)*share)])
        try:
            with av.open(str(cut)) as box: left = sum(bool(p.size) and not p.is_corrupt for p in box.demux(video=0))
        except av.error.FFmpegError: continue
        with warnings.catch_warnings(record=True, action='always') as got:
            try: n,said = len(Video(cut)),' '.join(str(o.message) for o in got)
            except UserError as e: said = str(e)
        if left<=78:
            assert 'missing' in said, (share,left,said)
            told += 1
    assert told

@pytest.mark.parametrize('name,codec', [('a.avi','libx264'),('b.avi','mpeg4'),('c.webm','libvpx-vp9'),('d.mov','mpeg4'),('e.mkv','libx264'),('f.mp4','mjpeg')])
def test_every_frame_in_any_order(tmp_path, name, codec):
    v,order = Video(film(tmp_path/name, codec=codec)),[17,3,23,0,16,8,7]
    assert len(v)==24 and [round(bright(next(v.frames([i])))/8) for i in order]==order
    assert [round(bright(o)/8) for o in v.frames(order)]==sorted(order)
    with pytest.raises(IndexError): list(v.frames([24]))

def test_names_and_notes_in_other_encodings(tmp_path):
    p = film(tmp_path/'a.mp4', 4)
    odd = Path(os.fsdecode(os.fsencode(tmp_path)+b'/caf\xe9.mp4'))
    p.rename(odd)
    assert len(Video(odd))==4 and open_scenes(tmp_path, width=28).frames==4

# ---- photos

def photo(path, size=(128,96), v=100, **kw):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(painted(v, size)).save(path, **kw)
    return path
def photos(folder, n=4, size=(128,96), suffix='jpg'):
    for i in range(n): photo(folder/f'{i}.{suffix}', size)
    return folder
def names(s): return [o.name for o in s.scenes]
def opened(path): return open_scenes(path, width=112)

def test_what_phones_and_browsers_write(tmp_path):
    heif = pytest.importorskip('pillow_heif')
    for i,(s,kind) in enumerate((('jpg','JPEG'),('jfif','JPEG'),('JPE','JPEG'),('avif','AVIF'),('webp','WEBP'))): photo(tmp_path/f'{i}.{s}', format=kind)
    heif.from_pillow(Image.fromarray(painted(100, (128,96)))).save(tmp_path/'5.HEIC')
    imgs,got,left = read_photos(tmp_path, 9)
    assert len(imgs)==6 and not left and opened(tmp_path).frames==6
    for o in imgs: assert quarters((o.permute(1,2,0)*255).round().byte().numpy())==[0,1,2,3]
    assert [quarters(o) for o in pictures(tmp_path, 9)]==[[0,1,2,3]]*6

def test_heic_without_its_reader_is_named(tmp_path, monkeypatch):
    heif = pytest.importorskip('pillow_heif')
    photos(tmp_path, 3)
    heif.from_pillow(Image.fromarray(painted())).save(tmp_path/'5.heic')
    monkeypatch.setitem(__import__('sys').modules, 'pillow_heif', None)
    left = read_photos(tmp_path)[2]
    assert len(left)==1 and left[0].startswith('5.heic') and "pip install 'spa3r[heic]'" in left[0]

def test_everything_that_is_not_read_is_named(tmp_path):
    photos(tmp_path, 3)
    for n in ('a.CR2','b.psd','notes.txt','clip.mp4'): (tmp_path/n).write_bytes(b'x')
    photos(tmp_path/'more', 2)
    os.mkfifo(tmp_path/'7.jpg')
    (tmp_path/'8.png').symlink_to(tmp_path/'nowhere.png')
    said = '\n'.join(read_photos(tmp_path)[2])
    for n in ('a.CR2','b.psd','notes.txt','clip.mp4','more','7.jpg','8.png'): assert n in said, n
    with pytest.raises(UserError, match='3 photos .*beside .*: one scene or many'): opened(tmp_path)

def test_photos_beside_videos(tmp_path):
    for n in 'ab': film(tmp_path/f'{n}.mp4', 6)
    photos(tmp_path/'thumbs', 2)
    s = opened(tmp_path)
    assert names(s)==['a','b'] and s.name=='folder of videos' and ['thumbs' in o for o in s.left]==[True]
    photo(tmp_path/'cover.jpg')
    assert names(opened(tmp_path))==['a','b'] and 'cover.jpg' in '\n'.join(opened(tmp_path).left)
    photo(tmp_path/'poster.jpg')
    with pytest.raises(UserError, match='2 photos .*beside 2 videos .*Move'): opened(tmp_path)
    for n in ('cover','poster'): (tmp_path/f'{n}.jpg').unlink()
    photos(tmp_path/'room', 3)
    assert names(opened(tmp_path))==['room','a','b']

def test_flat_beside_nested_and_what_is_no_photo(tmp_path):
    photos(tmp_path/'room1', 2)
    photos(tmp_path/'room2/images', 3)
    for n in ('masks','depth','sensor_depth','Thumbnails','images_4'): photos(tmp_path/'room2'/n, 3)
    photos(tmp_path/'part/room3/rgb', 4)
    photos(tmp_path/'part/room4', 2)
    photos(tmp_path/'images_2', 2)  # there is no `images` beside this one
    s = opened(tmp_path)
    assert {o.name:len(o) for o in s.scenes}=={'images_2':2,'part/room3':4,'part/room4':2,'room1':2,'room2':3}
    for n in ('masks','depth','sensor_depth','Thumbnails','images_4'): assert any(f'room2/{n}:' in o for o in s.left), n
    photos(tmp_path/'room1/extra', 2)
    with pytest.raises(UserError, match='room1 has 2 photos'): opened(tmp_path)

def test_links_in_a_circle_and_deep_folders(tmp_path):
    photos(tmp_path/'a', 2)
    (tmp_path/'a2').mkdir()
    (tmp_path/'a2/up').symlink_to(tmp_path)
    photos(tmp_path/'1/2/3/4/5/6/7', 2)
    s = opened(tmp_path)
    assert names(s)==['a'] and any('link upwards' in o for o in s.left) and any('too deep' in o for o in s.left)

def test_recordings_beside_scenes_and_twice(tmp_path):
    photos(tmp_path/'scene0000_00/color', 3)
    (tmp_path/'scene0001_00').mkdir()
    for n in 'ab': (tmp_path/f'scene0001_00/{n}.sens').write_bytes(b'x')
    (tmp_path/'scene0002_00.sens').write_bytes(b'no recording')
    photo(tmp_path/'overview.jpg')
    s = opened(tmp_path)
    said = '\n'.join(s.left)
    assert names(s)==['scene0000_00'] and all(n in said for n in ('overview.jpg','a.sens, b.sens','scene0002_00.sens'))

def test_lists_with_marks_comments_and_accents(tmp_path):
    nfc,nfd = 'caf\u00e9','cafe\u0301'
    for n in ('a1',nfd): photos(tmp_path/'data'/n/'dslr/undistorted_images', 2)
    (tmp_path/'splits').mkdir()
    (tmp_path/'splits/nvs_sem_train.txt').write_text(f'# rooms\r\na1  # the first\r\n\r\n{nfc}\r\n', encoding='utf-8-sig')
    s = opened(tmp_path)
    assert names(s)==['a1',nfc] and not s.left
    (tmp_path/'splits/nvs_sem_train.txt').write_text('../a1\n', encoding='utf8')
    with pytest.raises(UserError, match='is no scene'): opened(tmp_path)

# ---- odd shapes

def test_the_largest_group_stays():
    rng = np.random.default_rng(0)
    for _ in range(200):
        sizes = [(int(w),int(h)) for w,h in rng.integers(20, 200, (rng.integers(2, 12), 2))]
        a = [min(h/w, 1) for w,h in sizes]  # a view is at most a square
        groups = [[i for i,x in enumerate(a) if .56*t<=x<=t] for t in a]
        best = max(map(len, groups))
        if len(a)-best>=.5*len(a):
            with pytest.raises(UserError, match='too different shapes'): odd_shapes(sizes, range(len(a)))
        else: assert [i for i in range(len(a)) if i not in odd_shapes(sizes, range(len(a)))] in groups and len(odd_shapes(sizes, range(len(a))))==len(a)-best

@pytest.mark.parametrize('odd,n,ok', [((900,120),9,True),((900,120),3,True),((900,120),2,True),((900,120),1,False)])
def test_one_rule_wherever_pictures_are_cropped(tmp_path, odd, n, ok, capsys):
    "The viewer, training, its check and a conversation leave the same one out, or refuse it together"
    photos(tmp_path/'d', n)
    photo(tmp_path/'d/odd.jpg', odd)
    files = sorted((tmp_path/'d').iterdir())
    from spa3r.language.processor import Processor
    talk = lambda: Processor(None, None, view=(112,14)).views(pictures(files))
    if ok:
        imgs,got,left = read_photos(tmp_path/'d', 99)
        assert 'odd.jpg' not in got and left==['odd.jpg: of another shape than the rest'] and imgs.shape==(n,3,84,112)
        s = opened(tmp_path/'d')
        assert s.frames==n and len(s.left)==1 and 'odd.jpg' in s.left[0] and s.scenes[0].names.tolist()==[f'{i}.jpg' for i in range(n)]
        assert Batches(s, 0, 2, 2, 2, 2)[0,0].imgs.shape[-2:]==(84,112)
        check_data(str(tmp_path/'d'), width=112, v_max=4)
        assert 'odd.jpg' in capsys.readouterr().out
        with pytest.warns(UserWarning, match=f'does not see picture {n+1} of {n+1}'): assert talk().shape==(n,3,84,112)
    else:
        for f,e in ((lambda: read_photos(tmp_path/'d'),UserError), (lambda: opened(tmp_path/'d'),UserError), (talk,UserError), (lambda: check_data(str(tmp_path/'d'), width=112),BadData)):
            with pytest.raises(e, match='too different shapes'): f()

def test_scenes_of_another_shape(tmp_path):
    for i in range(5): photos(tmp_path/f'r{i}', 3)
    photos(tmp_path/'upright', 3, (96,128))
    photos(tmp_path/'pano', 3, (900,120))
    s = opened(tmp_path)
    assert names(s)==[f'r{i}' for i in range(5)]+['upright'] and len(s.left)==1 and s.left[0].startswith('pano: 900x120')
    for i in range(2, 5): [p.unlink() for p in (tmp_path/f'r{i}').iterdir()]
    for i in (2,3): photos(tmp_path/f'pano{i}', 3, (900,120))
    with pytest.raises(UserError, match='too different shapes'): opened(tmp_path)

# ---- things that are no files

def test_pipes_are_never_opened(tmp_path):
    photos(tmp_path/'d', 3)
    for n in ('9.jpg','9.mp4','9.json'): os.mkfifo(tmp_path/'d'/n)
    def tries():
        read_photos(tmp_path/'d')
        assert opened(tmp_path/'d').frames==3
        pictures([tmp_path/'d/0.jpg'])
        for f in (lambda: Video(tmp_path/'d/9.mp4'), lambda: pictures(tmp_path/'d/9.jpg'), lambda: pictures(tmp_path/'d/9.mp4'), lambda: read_text(tmp_path/'d/9.json'),
                  lambda: bm.read_questions(tmp_path/'d/9.json'), lambda: opened(tmp_path/'d/9.mp4')):
            with pytest.raises(UserError): f()
        done.append(True)
    done = []
    t = threading.Thread(target=tries, daemon=True)  # whoever opened one would wait for ever
    t.start()
    t.join(60)
    assert done

# ---- zips, and names of scenes

def asked(scene='s0', dataset='d'): return dict(id=0, dataset=dataset, scene_name=scene, question_type='object_counting', question='?', options=None, ground_truth='3')
def zipped(path, members, **kw):
    with zipfile.ZipFile(path, 'w', **kw) as z:
        for n,data in members: z.writestr(n, data)
    return path
def patched(path, at, value):
    "The same zip with a field changed in both of its headers of the first member"
    b = bytearray(path.read_bytes())
    for head,k in ((b'PK\1\2',at[0]), (b'PK\3\4',at[1])):
        i = b.index(head)+k
        b[i:i+2] = struct.pack('<H', value)
    path.write_bytes(b)

def test_what_a_zip_cannot_give_is_known_before_it_is_asked(tmp_path):
    data = film(tmp_path/'x/s0.mp4', 6).read_bytes()
    for field,value,why in (((8,6),1,'is encrypted'), ((10,8),9,'packed by method 9'), ((10,8),99,'packed by method 99')):
        patched(zipped(tmp_path/'d.zip', [('d/s0.mp4',data)]), field, value)
        with pytest.raises(UserError, match=f's0.mp4 in .*d.zip (is )?{why}'): bm.Videos(tmp_path).find(asked())
    zipped(tmp_path/'d.zip', [('d/s0.mp4',data)])
    v = bm.Videos(tmp_path)
    assert v.film(asked(), 3).shape==(3,H,W,3)
    v.biggest = 100
    with pytest.raises(UserError, match='takes 0.0 GB'): v.find(asked())
    zipped(tmp_path/'d.zip', [('val/s0.mp4',data),('preview/s0.mp4',data)])
    with pytest.raises(UserError, match='2 videos answer to d/s0 in .*val/s0.mp4, preview/s0.mp4'): bm.Videos(tmp_path).find(asked())
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        zipped(tmp_path/'d.zip', [('d/s0.mp4',data),('d/s0.mp4',data)])
    with pytest.raises(UserError, match='the same name twice'): bm.Videos(tmp_path).find(asked())
    zipped(tmp_path/'d.zip', [('d/s0.mp4',data),('__MACOSX/d/._s0.mp4',b'x'),('d/._s0.mp4',b'x')])
    assert bm.Videos(tmp_path).find(asked())[1].filename=='d/s0.mp4'

@pytest.mark.parametrize('name,scene', [('win\\s0.mp4','s0'),('S.MP4','S'),('cafe\u0301.mp4','caf\u00e9'),('caf\u00e9.mov','cafe\u0301')])
def test_names_that_mean_the_same(tmp_path, name, scene):
    data = film(tmp_path/'x/s0.mp4', 6).read_bytes()
    zipped(tmp_path/'d.zip', [(name,data)])
    assert bm.Videos(tmp_path).film(asked(scene), 3).shape==(3,H,W,3)
    if '\\' in name: return
    (tmp_path/'e/deep').mkdir(parents=True)
    (tmp_path/'e/deep'/name).write_bytes(data)
    v = bm.Videos(tmp_path)
    assert v.film(asked(scene, 'e'), 3).shape==(3,H,W,3) and v.find(asked('other', 'e')) is None
    (tmp_path/'e'/Path(name).with_suffix('.mkv').name).write_bytes(data)
    with pytest.raises(UserError, match='2 videos answer to e/'): bm.Videos(tmp_path).find(asked(scene, 'e'))

@pytest.mark.parametrize('kw', [dict(dataset='../out'),dict(dataset='/tmp'),dict(scene='../x/s0'),dict(scene='..')])
def test_no_name_leads_out_of_the_folder(tmp_path, kw):
    film(tmp_path/'out/s0.mp4', 4)
    (tmp_path/'in').mkdir()
    for f in ('find','open'):
        with pytest.raises(UserError, match='no plain name'): getattr(bm.Videos(tmp_path/'in'), f)(asked(**kw))

def test_upright_and_lying_photos_go_together(tmp_path):
    "A phone held now this way and now that, 4:3 or 16:9: all count, cropped to the lowest, and a line says which lose most"
    for n,(a,b) in enumerate(((160,120),(160,90))):
        photos(d := tmp_path/f'{n}/d', 3, (a,b))
        for i in range(3): photo(d/f'up{i}.jpg', (b,a))
        with warnings.catch_warnings(action='ignore'): imgs,names,left = read_photos(d, 99)
        assert len(names)==6 and len(left)==1 and 'up0.jpg, up1.jpg, up2.jpg: upright among lying ones' in left[0]
        assert imgs.shape[-2]==112*b//a//14*14 and f'the middle {imgs.shape[-2]} rows' in left[0]
        s = opened(d)
        assert s.frames==6 and not s.left

def test_a_frame_of_another_size_in_a_recording_is_broken_and_named(tmp_path, capsys):
    photos(tmp_path/'scene0000_00/color', 12)
    photo(tmp_path/'scene0000_00/color/5.jpg', (48,36))
    (tmp_path/'scene0000_00/intrinsic').mkdir()
    file = tmp_path/'scene0000_00/intrinsic/intrinsic_color.txt'
    wh = Image.open(tmp_path/'scene0000_00/color/0.jpg').size
    K = np.diag([100.,100,1,1])
    for scale,told in ((1,0),(2,1)):
        K[:2,2] = [o*scale/2 for o in wh]
        np.savetxt(file, K)
        assert sum('intrinsic_color.txt is for pictures of about' in o for o in opened(tmp_path).left)==told
    file.write_text('no matrix', encoding='utf8')
    s = opened(tmp_path)
    assert not s.left and len(s.scenes[0])==12
    with pytest.raises(ValueError, match='48x36, while the recording is'): s.scenes[0].read(5)
    assert s.scenes[0].read(4).size==wh
    check_data(str(tmp_path), width=56, v_max=4, max_broken=.2)
    assert '5.jpg: 48x36, while the recording is' in capsys.readouterr().out

# ---- names, and files that send their reader elsewhere

@pytest.mark.parametrize('name', ['12:30.mp4','pipe:0.mp4','-i.mp4','a%03d.mp4'])
def test_a_name_is_never_an_address(tmp_path, monkeypatch, name):
    film(tmp_path/'v.mp4').rename(tmp_path/name)
    monkeypatch.chdir(tmp_path)
    assert len(Video(name))==24 and pictures(f'./{name}', 4)

@pytest.mark.parametrize('text', ['ffconcat version 1.0\nfile v.mp4\n', '#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nv.mp4\n#EXT-X-ENDLIST\n'])
@pytest.mark.parametrize('suffix', ['mp4','mkv','webm'])
def test_a_playlist_is_no_video(tmp_path, monkeypatch, text, suffix):
    film(tmp_path/'v.mp4')
    monkeypatch.chdir(tmp_path)
    Path(f'list.{suffix}').write_text(text, encoding='utf8')
    with pytest.raises(UserError): Video(f'list.{suffix}')
    with open(f'list.{suffix}', 'rb') as f, pytest.raises(UserError): Video(f, 'it')

def test_pictures_that_move_are_named(tmp_path):
    photos(tmp_path/'d', 3)
    more = [Image.fromarray(painted(99*i)) for i in range(3)]
    for n in ('m.gif','m.tif','m.png','m.webp'): more[0].save(tmp_path/'d'/n, save_all=True, append_images=more[1:])
    more[0].save(tmp_path/'d'/'m.jpg', 'MPO', save_all=True, append_images=more[1:])  # a phone's photo with its preview
    for left in (read_photos(tmp_path/'d', 9)[2], opened(tmp_path/'d').left):
        for n in ('m.gif','m.tif','m.png','m.webp'): assert any(n in o and 'first of 3' in o for o in left), n
        assert not any('m.jpg' in o for o in left)

def test_links_that_lead_nowhere_are_no_photos(tmp_path):
    photos(tmp_path/'d', 3)
    (tmp_path/'d/8.jpg').symlink_to('8.jpg'), (tmp_path/'d/9.jpg').symlink_to('nowhere.jpg')
    imgs,names,left = read_photos(tmp_path/'d')
    assert len(imgs)==3 and any('8.jpg' in o for o in left) and any('9.jpg' in o for o in left)
