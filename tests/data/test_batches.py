"Pictures, scenes and batches: one rule for sizes, readers, sampling, and draws that depend on seed and step alone"
import copy,io,json,os,pickle,random,struct,subprocess,sys,warnings,zlib
from collections import Counter
from pathlib import Path
import numpy as np
import pytest
import torch
from PIL import Image
from golden_io import card
from spa3r.util.core import UserError
from spa3r.rooms.rooms import HELD_OUT
from spa3r.data import batches as V
from spa3r.data.scenes import PhotoScene,SensScene,natural,open_scenes,resize_view,stack_views,upright_size,view_hw
from spa3r.data.batches import (BadData,Batches,BrokenReport,CachedRooms,RoomSource,Views,cache_rooms,check_data,draw_views,inspect_scenes,
                         rooms_as_views,sample_frames,seeded,shuffled,with_images)

def picture(n=0, size=(64,48)):
    "A smooth picture whose mean grey is `n`, so that it can be told apart after JPEG"
    x = np.linspace(-20, 20, size[0])[None,:,None]
    return Image.fromarray(np.clip(np.broadcast_to(n+x, (size[1],size[0],3)), 0, 255).astype(np.uint8))

def grey(img): return np.asarray(img).mean()

def photos(folder, n, size=(64,48), first=0, name='{}.jpg'):
    "`n` photos, unpadded names, the i-th of grey 20+2*i"
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(first, first+n): picture(20+2*i, size).save(folder/name.format(i), quality=95)
    return folder

def spoil(path):
    "Cut the end off a file"
    data = path.read_bytes()
    path.write_bytes(data[:len(data)*8//10])

@pytest.fixture(scope='module')
def scenes(tmp_path_factory):
    "Seven scenes with 5 to 17 photos"
    root = tmp_path_factory.mktemp('scenes')
    for i,n in enumerate((9,5,17,12,14,8,16)): photos(root/f'place{i}', n)
    return root

def source(root, **kw): return open_scenes(root, **(dict(width=28, patch=14)|kw))
def batches(root, seed=0, v_min=2, v_max=4, images=24, images_device=8, **kw): return Batches(source(root, **kw), seed, v_min, v_max, images, images_device)
def same(a, b): return torch.equal(a.imgs, b.imgs) and a.broken==b.broken and a.dropped==b.dropped

# ---- a picture

@pytest.mark.filterwarnings('ignore:upright pictures')
@pytest.mark.parametrize('size', [(640,480),(480,640),(1296,968),(1752,1168),(100,700),(113,77),(540,960)])
@pytest.mark.parametrize('width,patch', [(518,14),(112,14),(112,7)])
@pytest.mark.parametrize('rows', ['floor','round'])
def test_size_of_a_view(size, width, patch, rows):
    o = resize_view(Image.new('RGB', size), width, patch, rows)
    h = width*size[1]/size[0]
    assert o.width==width and o.height%patch==0 and o.height<=width
    assert -patch/2<=min(h, width)-o.height<=patch/2 if rows=='round' else 0<=min(h, width)-o.height+1<patch+2
    assert view_hw(size, width, patch, rows)[1]==o.height

@pytest.mark.parametrize('size,floor,rounded', [((1296,968),27,28),((640,480),27,28),((1920,1440),27,28),((1752,1168),24,25),((1920,1080),20,21),((540,960),37,37)])
def test_rows_of_patches_as_in_the_two_official_rules(size, floor, rounded):
    "Pre-training cuts, the official language model stretches; no view has more rows than columns"
    assert [view_hw(size, rows=r)[1]//14 for r in ('floor','round')]==[floor,rounded]

@pytest.mark.parametrize('size', [(500,300),(300,500),(640,480)])
@pytest.mark.parametrize('rows', ['floor','round'])
@pytest.mark.filterwarnings('ignore:upright pictures')
def test_cutting_first_changes_nothing(size, rows):
    "The picture as a whole, resized and cut, is the same to a rounding"
    im = picture(100, size)
    h,keep = view_hw(size, 112, 14, rows)
    whole = im.resize((112,h), Image.BICUBIC).crop((0, (h-keep)//2, 112, (h-keep)//2+keep))
    assert np.abs(np.asarray(whole).astype(int)-np.asarray(resize_view(im, 112, 14, rows))).max()<=1

def test_upright_pictures_stop_at_a_square_and_say_so():
    a = np.zeros((960,540,3), np.uint8)
    a[480-200:480+200] = 255  # the middle 400 rows
    with pytest.warns(UserWarning, match='only the middle square is used, 44 % of the height'): o = resize_view(Image.fromarray(a))
    rows = np.asarray(o)[:,0,0]>127
    assert o.size==(518,518) and abs(rows.sum()-400*518/540)<=2 and abs(np.where(rows)[0].mean()-258.5)<1
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        resize_view(Image.new('RGB', (640,480)))  # a lying one loses nothing, and nothing is said

@pytest.mark.parametrize('size', [(1,20000),(20000,1),(3,30000)])
@pytest.mark.parametrize('rows', ['floor','round'])
@pytest.mark.filterwarnings('ignore:upright pictures')
def test_towers_and_lines_take_no_memory(size, rows):
    "What is cut is never enlarged: a whole tower at this width would be 16 GB"
    import resource
    im,before = through_file(Image.new('RGB', size, 'red'), 'PNG'),resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    if size[0]<size[1]: assert np.asarray(resize_view(im, 518, 14, rows)).shape==(518,518,3)
    else:
        with pytest.raises(UserError, match='too wide and low'): resize_view(im, 518, 14, rows)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss-before<100_000  # kB

def test_aspect_is_kept_and_the_middle_stays():
    "A disc in the middle stays a disc in the middle"
    y,x = np.mgrid[:300,:500]
    a = np.where((x-250)**2+(y-150)**2<100**2, 255, 0).astype(np.uint8)
    o = np.asarray(resize_view(Image.fromarray(a), 126, 14))[...,0]>127
    rows,cols = np.where(o.any(1))[0],np.where(o.any(0))[0]
    assert o.shape==(70,126) and abs(len(rows)-len(cols))<=1 and abs(len(cols)-200*126/500)<=1
    assert abs(rows.mean()-34.5)<1 and abs(cols.mean()-62.5)<1

def test_odd_sizes_are_refused():
    with pytest.raises(UserError, match='14-pixel'): resize_view(Image.new('RGB', (2000,30)))
    with pytest.raises(ValueError, match='width 100'): resize_view(Image.new('RGB', (200,200)), 100)

@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('kind', ['JPEG','PNG','TIFF'])
def test_every_exif_orientation(orientation, kind):
    "A picture stored in any of the eight ways comes out as the one it was"
    a = np.zeros((60,80,3), np.uint8)
    a[:30,:40] = 250
    a[:30,40:,0] = 250
    a[30:,:40,1] = 250
    up = Image.fromarray(a)
    T = Image.Transpose
    undo = {1:None, 2:T.FLIP_LEFT_RIGHT, 3:T.ROTATE_180, 4:T.FLIP_TOP_BOTTOM, 5:T.TRANSPOSE, 6:T.ROTATE_90, 7:T.TRANSVERSE, 8:T.ROTATE_270}[orientation]
    stored,exif,f = up if undo is None else up.transpose(undo),Image.Exif(),io.BytesIO()
    exif[0x112] = orientation
    stored.save(f, kind, exif=exif, **(dict(quality=98, subsampling=0) if kind=='JPEG' else {}))
    f.seek(0)
    img = Image.open(f)
    assert upright_size(img)==(80,60)
    d = np.abs(np.asarray(resize_view(img, 112, 14)).astype(int)-np.asarray(resize_view(up, 112, 14)))
    assert d.mean()<2, f'orientation {orientation} comes out wrong'

def through_file(img, kind, **kw):
    f = io.BytesIO()
    img.save(f, kind, **kw)
    f.seek(0)
    return Image.open(f)

def test_16_bits_grey_palette_and_alpha():
    ramp = np.tile(np.linspace(0, 255, 112), (28,1))
    want = ramp[7,:].round()
    imgs = {'16 bit PNG':through_file(Image.fromarray((ramp*257).astype(np.uint16)), 'PNG'), '16 bit TIFF':through_file(Image.fromarray((ramp*257).astype(np.uint16)), 'TIFF'),
            'grey':Image.fromarray(ramp.astype(np.uint8)), 'palette':through_file(Image.fromarray(ramp.astype(np.uint8)).convert('P'), 'PNG'),
            'CMYK':Image.fromarray(ramp.astype(np.uint8)).convert('RGB').convert('CMYK'), 'integers':Image.fromarray((ramp*257).astype(np.int32))}
    for k,im in imgs.items():
        o = np.asarray(resize_view(im, 112, 14))
        assert o.shape==(28,112,3) and o.dtype==np.uint8, k
        assert np.abs(o[7].astype(float)-want[:,None]).max()<4, f'{k}: {np.abs(o[7].astype(float)-want[:,None]).max()}'

def test_16_bit_colour_file():
    "A 16-bit RGB PNG, made by hand"
    ramp = np.repeat((np.tile(np.linspace(0, 255, 112), (28,1))*257).astype('>u2')[...,None], 3, 2)
    chunk = lambda k,d: struct.pack('>I', len(d))+k+d+struct.pack('>I', zlib.crc32(k+d))
    png = b'\x89PNG\r\n\x1a\n'+chunk(b'IHDR', struct.pack('>2I5B', 112, 28, 16, 2, 0, 0, 0))
    png += chunk(b'IDAT', zlib.compress(b''.join(b'\0'+r.tobytes() for r in ramp)))+chunk(b'IEND', b'')
    o = np.asarray(resize_view(Image.open(io.BytesIO(png)), 112, 14))
    assert np.abs(o[7].astype(float)-np.linspace(0, 255, 112)[:,None]).max()<4

@pytest.mark.parametrize('mode', ['RGBA','LA','P'])
def test_what_is_transparent_is_white(mode):
    a = np.zeros((28,28,4), np.uint8)
    a[:,14:] = 0,0,0,255  # left half transparent black, right half black
    im = Image.fromarray(a)
    im = through_file(im.quantize(4) if mode=='P' else im.convert(mode), 'PNG')
    o = np.asarray(resize_view(im, 28, 14))
    assert (o[:,:12]>250).all() and (o[:,16:]<5).all()

def test_what_cannot_be_told_is_refused():
    with pytest.raises(ValueError, match='floating'): resize_view(Image.fromarray(np.zeros((28,28), np.float32)), 28, 14)
    with pytest.raises(ValueError, match='16 bits'): resize_view(Image.fromarray(np.full((28,28), 70000, np.int32)), 28, 14)

def test_large_jpeg_on_disk_and_in_memory_agree():
    big = picture(100, (2400,1800))
    lazy = through_file(big, 'JPEG', quality=95)
    whole = through_file(big, 'JPEG', quality=95)
    whole.load()
    a,b = (np.asarray(resize_view(o, 112, 14)).astype(int) for o in (lazy, whole))
    assert np.abs(a-b).max()<=3

def test_stacking_crops_to_the_lowest():
    imgs = [Image.fromarray(np.arange(h, dtype=np.uint8)[:,None].repeat(28, 1)).convert('RGB') for h in (42,28)]
    o = stack_views(imgs)
    assert o.shape==(2,3,28,28) and (o[0,0,:,0]*255).round().tolist()==list(range(7,35)) and (o[1,0,:,0]*255).round().tolist()==list(range(28))

# ---- readers

def test_unpadded_names_in_their_order(tmp_path):
    photos(tmp_path/'a', 12)
    s = PhotoScene(tmp_path/'a')
    assert list(s.names)==[f'{i}.jpg' for i in range(12)]
    assert [round((grey(s.read(i))-20)/2) for i in range(12)]==list(range(12))

def test_natural_order_is_total():
    names = ['1.jpg','01.jpg','10.jpg','2.jpg','A2.jpg','a10.jpg','frame-000010.color.jpg','frame-000009.color.jpg']
    for k in range(5):
        random.Random(k).shuffle(names)
        assert sorted(names, key=lambda n: (natural(n), n))==['01.jpg','1.jpg','2.jpg','10.jpg','A2.jpg','a10.jpg','frame-000009.color.jpg','frame-000010.color.jpg']

def test_scannet_extracted(tmp_path):
    for n,root in enumerate((tmp_path/'flat', tmp_path/'tree/scans')):
        for i in (10,2): photos(root/f'scene{i:04d}_00'/'color', 5+i)
        (root/'scene0003_00').mkdir()  # nothing extracted
        s = source(tmp_path/('flat','tree')[n])
        assert s.left==["scene0003_00: neither a folder `color` nor a .sens file"]
        assert s.name=='ScanNet' and [o.name for o in s.scenes]==['scene0002_00','scene0010_00'] and [len(o) for o in s.scenes]==[7,15]
        assert s.scenes[0].interval==(2,6) and s.scenes[1].where(10).endswith('scene0010_00/color/10.jpg') and s.frames==22
    one = source(tmp_path/'flat/scene0002_00')
    assert one.name=='ScanNet' and [len(o) for o in one.scenes]==[7]

def encoded(img, codec):
    if codec==0: return np.asarray(img).tobytes()
    f = io.BytesIO()
    img.save(f, {1:'PNG',2:'JPEG'}[codec], **(dict(quality=95) if codec==2 else {}))
    return f.getvalue()

def write_sens(path, imgs, codec=2, version=4, sensor=b'StructureSensor', lie=0, imu=2):
    "A ScanNet recording byte for byte: header, frames of colour and zlib depth, inertial samples"
    w,h = imgs[0].size
    mats = [np.eye(4, dtype='<f4').tobytes()]*4
    out = [struct.pack('<IQ', version, len(sensor)), sensor, *mats, struct.pack('<ii', codec, 1), struct.pack('<4I', w, h, 8, 6), struct.pack('<f', 1000.), struct.pack('<Q', len(imgs)+lie)]
    for i,im in enumerate(imgs):
        depth = zlib.compress(np.full((6,8), 1000+i, '<u2').tobytes())
        data = encoded(im, codec)
        out += [np.eye(4, dtype='<f4').tobytes(), struct.pack('<4Q', 10*i, 10*i+1, len(data), len(depth)), data, depth]
    out += [struct.pack('<Q', imu)]+[bytes(128)]*imu
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b''.join(out))
    return path

@pytest.mark.parametrize('codec', [0,1,2])
def test_sens_file(tmp_path, codec):
    imgs = [picture(20+2*i, (32,24)) for i in range(15)]
    path = write_sens(tmp_path/'scene0001_00.sens', imgs, codec)
    s = SensScene(path)
    assert s.name=='scene0001_00' and len(s)==15 and s.size(0)==(32,24) and s.interval==(2,6)
    for i in (14,0,7,8):
        d = np.abs(np.asarray(s.read(i).convert('RGB')).astype(int)-np.asarray(imgs[i])).max()
        assert d<=(0 if codec<2 else 4)
    assert s.where(7).endswith('scene0001_00.sens#7')
    t = pickle.loads(pickle.dumps(s))
    assert grey(t.read(3))==grey(s.read(3))

def test_sens_folders(tmp_path):
    imgs = [picture(20+2*i, (32,24)) for i in range(4)]
    write_sens(tmp_path/'a/scans/scene0007_01/scene0007_01.sens', imgs)
    write_sens(tmp_path/'b/scene0001_00.sens', imgs)
    for o,name in (('a','scene0007_01'),('b','scene0001_00'),('b/scene0001_00.sens','scene0001_00'),('a/scans/scene0007_01','scene0007_01')):
        s = source(tmp_path/o)
        assert s.name=='ScanNet' and [x.name for x in s.scenes]==[name] and len(s.scenes[0])==4

def test_sens_that_ends_early_or_is_none(tmp_path):
    imgs = [picture(20+2*i, (32,24)) for i in range(10)]
    path = write_sens(tmp_path/'s.sens', imgs)
    data = path.read_bytes()
    path.write_bytes(data[:len(data)//2])
    s = SensScene(path)
    ok = []
    for i in range(10):
        try: s.read(i).load(); ok.append(i)
        except Exception as e: assert str(e)
    assert len(s)==10 and 2<len(ok)<6 and ok==list(range(len(ok)))
    (tmp_path/'junk.sens').write_bytes(random.Random(0).randbytes(500))
    (tmp_path/'empty.sens').write_bytes(b'')
    write_sens(tmp_path/'old.sens', imgs, version=3)
    write_sens(tmp_path/'liar.sens', imgs, lie=10**15)
    for n in ('junk','empty','old','liar'):
        with pytest.raises(ValueError, match=n): SensScene(tmp_path/f'{n}.sens')
    got = source(tmp_path)
    assert [o.name for o in got.scenes]==['s'] and len(got.left)==4

@pytest.fixture()
def scannetpp(tmp_path):
    root = tmp_path/'pp'
    for i,n in (('aa11',9),('bb22',6),('cc33',7),('dd44',1)):
        photos(root/'data'/i/'dslr/undistorted_images', n, name='DSC{:05d}.JPG')
        photos(root/'data'/i/'dslr/resized_images', 3, name='DSC{:05d}.JPG')
    (root/'splits').mkdir()
    (root/'splits/nvs_sem_train.txt').write_text('bb22\naa11\nno99\ndd44\n\n', encoding='utf8')
    (root/'splits/nvs_sem_val.txt').write_text('cc33\n', encoding='utf8')
    return root

def test_scannetpp_split_files(scannetpp):
    s = source(scannetpp)
    assert s.name=='ScanNet++ DSLR' and [(o.name,len(o),o.interval) for o in s.scenes]==[('bb22',6,(20,60)),('aa11',9,(20,60))]
    assert len(s.left)==2 and 'no99' in s.left[0] and 'dd44: 1 frame' in s.left[1]
    assert [o.name for o in source(scannetpp, split='val').scenes]==['cc33']
    assert 'undistorted_images' in s.scenes[0].where(0)
    with pytest.raises(UserError, match='nvs_sem_test.txt'): source(scannetpp, split='test')
    (scannetpp/'data/bb22/dslr/undistorted_images').rename(scannetpp/'data/bb22/dslr/else')
    assert 'undistort' in source(scannetpp).left[0]

def test_photos_of_one_or_many_scenes(tmp_path, scenes):
    s = source(scenes)
    assert s.name=='folder of scenes' and [o.name for o in s.scenes]==[f'place{i}' for i in range(7)] and s.frames==81
    one = source(scenes/'place3')
    assert one.name=='folder of photos' and len(one.scenes[0])==12
    photos(tmp_path/'a', 3)
    photos(tmp_path/'b', 1)
    photos(tmp_path/'.thumbs', 5)
    (tmp_path/'readme.txt').write_text('x', encoding='utf8')
    (tmp_path/'a/.hidden.jpg').write_text('x', encoding='utf8')
    s = source(tmp_path)
    assert [(o.name,len(o)) for o in s.scenes]==[('a',3)]
    assert s.left==['readme.txt: .txt is neither a photo nor a video that is read here','b: 1 frame, at least 2 are needed']
    photos(tmp_path, 2, name='loose{}.jpg')
    with pytest.raises(UserError, match='one scene or many'): source(tmp_path)

def test_several_places_at_once(scenes, scannetpp):
    s = source(f'{scenes},{scannetpp}')
    assert s.name=='folder of scenes and ScanNet++ DSLR' and len(s)==9 and {o.interval for o in s.scenes}=={(1,3),(20,60)}
    assert {o.interval for o in source(scenes, interval=(2,5)).scenes}=={(2,5)}

def test_nothing_to_read(tmp_path):
    for p,why in ((tmp_path/'none','No folder or file'), (tmp_path,'holds nothing.*Looked for ScanNet.*videos')):
        with pytest.raises(UserError, match=why): open_scenes(p)
    (tmp_path/'a.txt').write_text('x', encoding='utf8')
    with pytest.raises(UserError, match='holds a.txt'): open_scenes(tmp_path)
    with pytest.raises(UserError, match='neither a video'): open_scenes(tmp_path/'a.txt')
    photos(tmp_path, 1)
    with pytest.raises(UserError, match='1 frame, at least 2'): open_scenes(tmp_path)

def write_video(path, n, size=(64,48), gop=12, codec='mpeg4'):
    av = pytest.importorskip('av')
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), 'w') as box:
        s = box.add_stream(codec, rate=10)
        s.width,s.height,s.pix_fmt,s.gop_size,s.bit_rate = *size,'yuv420p',gop,4*10**6
        for i in range(n):
            for p in s.encode(av.VideoFrame.from_ndarray(np.full((size[1],size[0],3), 20+7*i, np.uint8), format='rgb24')): box.mux(p)
        for p in s.encode(): box.mux(p)
    return path

@pytest.mark.parametrize('codec,suffix', [('mpeg4','.mp4'),('libx264','.mp4'),('libx264','.mkv')])
def test_every_frame_of_a_video(tmp_path, codec, suffix):
    path = write_video(tmp_path/f'v{suffix}', 30, codec=codec)
    s,order = source(path).scenes[0],[*range(29,-1,-3),*range(30)]
    assert len(s)==30 and s.size(0)==(64,48) and s.name=='v'
    assert [round((grey(s.read(i))-20)/7) for i in order]==order
    assert source(tmp_path).name=='folder of videos'

def test_video_that_is_none(tmp_path, monkeypatch):
    (tmp_path/'a.mp4').write_text('no video', encoding='utf8')
    with pytest.raises(UserError, match='a.mp4 cannot be read'): open_scenes(tmp_path/'a.mp4')
    monkeypatch.setitem(sys.modules, 'av', None)
    with pytest.raises(UserError, match='PyAV'): open_scenes(tmp_path/'a.mp4')

def test_damaged_exif_turns_nothing():
    im,f = picture(100),io.BytesIO()
    exif = Image.Exif()
    exif[0x112] = 77
    im.save(f, 'JPEG', exif=exif)
    f.seek(0)
    got = Image.open(f)
    assert upright_size(got)==(64,48) and resize_view(got, 28, 14).size==(28,14)

# ---- which frames

@pytest.mark.parametrize('e', card('h_sampling')['empirical'], ids=lambda e: f"{e['num_images']} frames, {e['num_frames']} views, {e['interval']}")
def test_sampling_as_recorded(e):
    "Gaps and ends of 4000 draws lie where those of the official code did"
    n,v = e['num_images'],e['num_frames']
    draws = torch.tensor([sample_frames(n, v, e['interval'], seeded(0, k)) for k in range(4000)])
    gaps = draws.diff(dim=1)
    assert draws.shape==(4000,v) and draws.min()>=0 and draws.max()<n and (gaps>=0).all()
    assert gaps.min()==e['gap_min'] and abs(gaps.float().mean()-e['gap_mean'])<.03*e['gap_mean']
    assert draws[:,0].min()==e['start_min'] and abs(gaps.max()-e['gap_max'])<=(0 if e['gap_max']<10 or v*20<n else 25)
    assert abs(draws[:,0].max()-e['start_max'])<=.1*e['start_max']+1 and abs(draws[:,-1].max()-e['last_max'])<=.02*n
    if n<v: assert (gaps==0).any()
    else: assert (gaps>0).all()

def test_a_short_scene_leaves_no_trace():
    "The official interval shrinks to [2, 2] for good in this very order of scenes"
    interval = [2,6]
    g = seeded(1)
    for o in card('h_sampling')['interval_mutation_trace']:
        sample_frames(o['num_images'], o['num_frames'], interval, g)
        assert interval==[2,6]
    after = torch.tensor([sample_frames(1000, 4, interval, g) for _ in range(200)]).diff(dim=1)
    assert after.max()==6 and after.min()==2

def test_sampling_at_the_edges():
    g = seeded(0)
    assert sample_frames(1, 1, (2,6), g)==[0] and sample_frames(1, 4, (2,6), g)==[0,0,0,0]
    assert {sample_frames(9, 1, (2,6), g)[0] for _ in range(300)}==set(range(9))
    for lo in (1,2): assert {tuple(sample_frames(4, 4, (lo,6), g)) for _ in range(20)}=={(0,1,2,3)}
    assert {tuple(sample_frames(7, 4, (2,6), g)) for _ in range(50)}=={(0,2,4,6)}
    assert {i for _ in range(5000) for i in sample_frames(30, 3, (2,6), g)}==set(range(30))
    for bad in ((0,4,(2,6)), (5,0,(2,6)), (5,4,(0,3)), (5,4,(3,2))):
        with pytest.raises(ValueError): sample_frames(*bad, g)

# ---- batches

def test_sizes_of_a_step(scenes):
    b = Batches(source(scenes), v_min=4, v_max=12)
    assert b.micros==16
    table = {int(k):n for k,n in card('h_sampling')['batch_sampler']['size_table'].items()}
    seen = Counter()
    for step in range(9000):
        v = b.views_in(step)
        seen[v] += 1
        assert b.scenes_in(step)==table[v]==24//v
    assert set(seen)==set(range(4,13)) and sum((n-1000)**2/1000 for n in seen.values())<26  # chi-squared, one in a thousand
    assert [b.views_in(s) for s in range(1020,1030)]==[Batches(source(scenes)).views_in(s) for s in range(1020,1030)]
    assert [b.views_in(s) for s in range(50)]!=[Batches(source(scenes), seed=1).views_in(s) for s in range(50)]

def test_shapes(scenes):
    b = batches(scenes)
    for step in range(4):
        for m in range(b.micros):
            x = b.micro(step, m)
            assert x.imgs.shape[:3]==(b.scenes_in(step), b.views_in(step), 3) and x.imgs.shape[3:]==(14,28)
            assert x.imgs.dtype==torch.float32 and 0<=x.imgs.min() and x.imgs.max()<=1 and x.broken==x.dropped==()
    for m in (-1,3):
        with pytest.raises(ValueError): b.micro(0, m)

def test_pure(scenes):
    "A micro-batch is the same whatever was asked before, from a fresh object, through pickle, and whatever the global generators say"
    b = batches(scenes)
    want = {(s,m):b.micro(s, m) for s in range(4) for m in range(3)}
    keys = list(want)
    random.Random(0).shuffle(keys)
    torch.manual_seed(1), np.random.seed(1), random.seed(1)
    state = torch.get_rng_state(),np.random.get_state()[1].tolist(),random.getstate()
    c = pickle.loads(pickle.dumps(batches(scenes)))
    V._thousand.cache_clear(), V._order.cache_clear()
    for k in keys: assert same(c[k], want[k])
    assert torch.equal(state[0], torch.get_rng_state()) and state[1]==np.random.get_state()[1].tolist() and state[2]==random.getstate()
    assert not same(batches(scenes, seed=1).micro(0,0), want[0,0])
    assert not torch.equal(want[0,0].imgs[:1,:1], want[0,1].imgs[:1,:1])

def test_keys_do_not_run_into_each_other():
    keys = [(0,),(0,0),(0,0,0),(1,),(0,1),(1,0),(2**32,),(0,2**32),(2**32,0),(1,2,3),(3,2,1)]
    assert len({torch.randint(2**60, (1,), generator=seeded(*k)).item() for k in keys})==len(keys)

def test_nothing_is_changed(scenes):
    b = batches(scenes)
    before = copy.deepcopy([vars(o) for o in b.source.scenes])
    for s in range(3): b.micro(s, 0)
    after = [vars(o) for o in b.source.scenes]
    for x,y in zip(before, after):
        assert x.keys()==y.keys() and all(np.array_equal(x[k], y[k]) for k in x)

@pytest.mark.parametrize('workers', [0,2])
def test_workers_and_ranks_do_not_matter(scenes, workers):
    "The union of what the ranks of any world get is what one process gets"
    b = batches(scenes)
    alone = {(s,m):b.micro(s, m) for s in range(3) for m in range(3)}
    for world in (1,3):
        got = {}
        for rank in range(world):
            mine = [(s,m) for s in range(3) for m in range(rank, b.micros, world)]
            load = torch.utils.data.DataLoader(batches(scenes), batch_size=None, sampler=mine, num_workers=workers)
            got |= dict(zip(mine, load))
        assert got.keys()==alone.keys() and all(same(got[k], alone[k]) for k in got)

@pytest.mark.parametrize('images,device,v', [(8,8,(2,4)),(24,8,(2,4)),(48,24,(4,12)),(9,9,(3,3))])
def test_epochs_are_exact(scenes, images, device, v):
    b = Batches(source(scenes), 3, *v, images, device)
    starts,k = [],0
    for s in range(60):
        assert b.first_scene(s)==k
        starts.append(k//7)
        assert b.epoch_of(s)==k//7
        k += b.micros*b.scenes_in(s)
    for e in range(starts[-1]): assert b.steps_in_epoch(e)==starts.count(e)

def test_every_scene_once_an_epoch(scenes, monkeypatch):
    "The draws of an epoch are a shuffle of the scenes, another one in each, and micro-batches take them without gap or overlap"
    drawn = []
    monkeypatch.setattr(V, '_scene_views', lambda src,seed,k,v: (drawn.append((k, shuffled(len(src), seed, k))), ([Image.new('RGB', (28,14))]*v, [], []))[1])
    b = batches(scenes)
    for s in range(12):
        for m in range(3): b.micro(s, m)
    ks,scs = zip(*drawn)
    assert list(ks)==list(range(len(ks))) and len(ks)>5*7
    epochs = [scs[i:i+7] for i in range(0, len(scs)//7*7, 7)]
    assert all(sorted(e)==list(range(7)) for e in epochs) and len(set(epochs))>1

def test_every_frame_gets_its_turn(scenes):
    s = source(scenes).scenes[2]
    seen = Counter(i for k in range(400) for i in sample_frames(len(s), 3, s.interval, seeded(0, V.FRAMES, k)))
    assert set(seen)==set(range(17))

def test_long_runs_are_quick_to_enter(scenes):
    b = Batches(source(scenes))
    total = sum(16*(24//b.views_in(s)) for s in range(80_000))
    assert b.first_scene(80_000)==total and abs(total/80_000/16-3.1)<.2

def test_sizes_that_cannot_be(scenes):
    s = source(scenes)
    for kw,why in ((dict(seed=-1),'seed -1'), (dict(v_min=1),'at least 2'), (dict(v_min=5, v_max=4),'5 to 4'), (dict(v_max=30),'no more than images'), (dict(images=100),'100 images'), (dict(images=0),'0 images')):
        with pytest.raises(UserError, match=why): Batches(s, **kw)

def test_mixed_sizes_are_cropped_alike(tmp_path):
    photos(tmp_path/'a', 4, (64,48))
    photos(tmp_path/'a', 4, (64,64), first=4)
    photos(tmp_path/'b', 6, (128,96))
    b = batches(tmp_path, v_min=4, v_max=4)
    got = {tuple(b.micro(s, m).imgs.shape) for s in range(5) for m in range(3)}
    assert {o[-1] for o in got}=={28} and {o[-2] for o in got}<={14,28} and (2,4,3,14,28) in got
    assert inspect_scenes(b.source).mixed==['a']

# ---- what is broken

def test_broken_gives_way_to_the_next(tmp_path):
    photos(tmp_path/'a', 30)
    s = PhotoScene(tmp_path/'a', interval=(2,6))
    ids = lambda imgs: [round((grey(o)-20)/2) for o in imgs]
    whole = {k:ids(draw_views(s, 6, seeded(0, k), 28, 14)[0]) for k in range(60)}
    assert all(whole[k]==sample_frames(30, 6, (2,6), seeded(0, k)) for k in whole)
    lost,twice = (11,12,13,14,20),0
    for i in lost[:-1]: spoil(tmp_path/f'a/{i}.jpg')
    (tmp_path/'a/20.jpg').unlink()
    for k,w in whole.items():
        imgs,bad = draw_views(s, 6, seeded(0, k), 28, 14)
        want,met = set(w)-set(lost),[i for i in w if i in lost]
        for i in met:  # by hand: the next one that is whole and not drawn
            j = i+1
            while j in want or j in w or j in lost: j += 1
            want.add(j)
        assert ids(imgs)==sorted(want) and len(want)==6
        assert {Path(p).name for p in bad}>={f'{i}.jpg' for i in met} and {Path(p).name for p in bad}<={f'{i}.jpg' for i in lost}
        twice += len({11,12,13,14}&set(w))>1
    assert twice>5

def test_a_scene_is_given_up_early(tmp_path):
    "As many broken frames as views, or all but one, and no more are tried"
    photos(tmp_path/'a', 30)
    for i in range(3, 30): spoil(tmp_path/f'a/{i}.jpg')
    for v in (2,4,7):
        imgs,bad = draw_views(PhotoScene(tmp_path/'a', interval=(2,6)), v, seeded(0, 2), 28, 14)
        assert imgs==[] and len(bad)==v
    photos(tmp_path/'b', 3)
    for i in (0,1): spoil(tmp_path/f'b/{i}.jpg')
    imgs,bad = draw_views(PhotoScene(tmp_path/'b'), 6, seeded(0), 28, 14)
    assert imgs==[] and len(bad)==2

def test_too_small_scenes_are_dropped(tmp_path):
    for i in range(4): photos(tmp_path/f's{i}', 8, first=30*i)
    for i in range(7): spoil(tmp_path/f's2/{60+i}.jpg')
    b = batches(tmp_path, v_min=4, v_max=4)
    seen,drop = Counter(),0
    for s in range(6):
        for m in range(3):
            x = b.micro(s, m)
            first = b.first_scene(s)+2*m
            for i,imgs in enumerate(x.imgs):
                want = shuffled(4, 0, first+i)
                if want==2: want = shuffled(4, 0, first+i, after=1)
                seen[want] += 1
                assert all(abs((o.mean()*255-20)/2-30*want-4)<5 for o in imgs)
            drop += len(x.dropped)
            assert set(x.dropped)<={'s2'} and bool(x.broken)==bool(x.dropped) and len(x.broken)<=8
    assert drop==9 and 2 not in seen and seen.total()==36

def test_broken_is_the_same_for_any_worker(tmp_path):
    photos(tmp_path/'a', 20)
    photos(tmp_path/'b', 20)
    for i in (3,4,9): spoil(tmp_path/f'a/{i}.jpg')
    keys = [(s,m) for s in range(4) for m in range(3)]
    alone = [batches(tmp_path).micro(*k) for k in keys]
    assert any(x.broken for x in alone)
    for x,y in zip(alone, torch.utils.data.DataLoader(batches(tmp_path), batch_size=None, sampler=keys, num_workers=2)): assert same(x, y)
    for k in reversed(range(12)): assert same(batches(tmp_path).micro(*keys[k]), alone[k])

def test_all_broken_is_an_error(tmp_path):
    photos(tmp_path/'a', 6)
    for p in (tmp_path/'a').iterdir(): spoil(p)
    with pytest.raises(UserError, match='No scene of 1'): batches(tmp_path).micro(0, 0)

def test_two_photos_one_broken(tmp_path):
    photos(tmp_path/'a', 2)
    photos(tmp_path/'b', 5)
    spoil(tmp_path/'a/1.jpg')
    b = batches(tmp_path, v_min=3, v_max=3)
    xs = [b.micro(s, m) for s in range(8) for m in range(3)]
    assert any(x.dropped==('a',) for x in xs)

def test_report_counts_and_stops():
    def views(n, *broken, dropped=()): return Views(torch.zeros(2,n,3,1,1), broken=broken, dropped=dropped)
    r = BrokenReport()
    for _ in range(50): r.add(views(10))
    r.add(views(10, 'p/10.jpg', 'p/9.jpg', dropped=('p',)))
    r.add(views(10, 'p/9.jpg'))
    assert r.read==1043 and str(r).splitlines()==['3 of 1043 images read were broken and left out:','  p/9.jpg (2 times)','  p/10.jpg','  scene p dropped: too many of its images are broken']
    r.check()
    other = pickle.loads(pickle.dumps(r))
    other.merge(r)
    assert other.read==2086 and other.broken['p/9.jpg']==4
    assert '3 of 1043' in r.end_epoch() and r.read==0 and 'none broken' in str(r)
    r.add(views(10, 'a.jpg'))
    r.check()  # one of 21 says nothing yet
    with pytest.raises(UserError, match=r'1 of 21 .*a\.jpg.*--max_broken'): r.end_epoch()
    r = BrokenReport(max_broken=.1)
    r.add(views(10, 'a.jpg'))
    r.end_epoch()
    r = BrokenReport()
    for i in range(60): r.add(views(10, *(['a.jpg'] if i%4==0 else [])))
    with pytest.raises(UserError, match='more than 1.0%'): r.check()
    r = BrokenReport()
    r.add(rooms_as_views([1], 2))
    assert r.read==0 and r.end_epoch()=='0 images read, none broken'

# ---- rooms

def test_rooms_are_a_source():
    src = RoomSource((28,28))
    b = Batches(src, 0, 2, 3, 12, 6)
    x = b.micro(1, 1)
    assert x.imgs.shape==(b.scenes_in(1), b.views_in(1), 3, 28, 28) and x.cams.shape==x.imgs.shape[:2] and len(x.rooms)==len(x.imgs)
    y = pickle.loads(pickle.dumps(Batches(RoomSource((28,28), images=False), 0, 2, 3, 12, 6))).micro(1, 1)
    assert y.imgs is None and torch.equal(y.cams.w2c, x.cams.w2c) and torch.equal(with_images(y).imgs, x.imgs)
    seeds = [o.seed for s in range(20) for m in range(2) for o in Batches(RoomSource((28,28), False), 0, 2, 3, 12, 6).micro(s, m).rooms.rooms]
    assert len(set(seeds))==len(seeds) and max(seeds)<HELD_OUT and abs(np.mean(seeds)/HELD_OUT-.5)<.15
    assert b.epoch_of(10**5)==0

def test_half_of_the_rooms_are_walked_and_half_seen_from_all_sides():
    turn = []
    for i in range(0, 64, 8):
        c = rooms_as_views(range(i, i+8), 4).cams.c2w[...,:3,2]
        turn += (c[:,1:]*c[:,:-1]).sum(-1).clamp(-1,1).acos().mul(180/torch.pi).mean(1).tolist()
    assert 18<sum(t>35 for t in turn)<46

def test_cached_rooms_are_the_rooms(tmp_path, capsys):
    c = cache_rooms(tmp_path/'c', 8, 5, (28,28), per_file=4)
    assert '0.00 GB' in capsys.readouterr().out and len(c)==8
    b = Batches(c, 0, 2, 3, 12, 6)
    for s in range(3):
        x = b.micro(s, 0)
        assert (x.imgs-with_images(x).imgs).abs().max()<=.5/255+1e-6
        assert x.imgs.shape[:2]==x.cams.shape and all(o.seed<8 for o in x.rooms.rooms)
        drawn = rooms_as_views([o.seed for o in x.rooms.rooms], 5, (28,28)).cams
        assert all(any(torch.equal(w, o) for o in d) for ws,d in zip(x.cams.w2c, drawn.w2c) for w in ws)  # as they were drawn
        assert torch.equal(x.cams.K, drawn.K[:,:x.cams.shape[1]]) and x.cams.hw==drawn.hw
    assert sum(b.steps_in_epoch(e) for e in range(4))==b._first_step(4)
    stamps = {p:p.stat().st_mtime_ns for p in (tmp_path/'c').glob('*.npy')}
    lost = tmp_path/'c/rooms-000000.npy'
    data = lost.read_bytes()
    lost.unlink()
    with pytest.raises(UserError, match='rooms-000000.npy is missing'): CachedRooms(tmp_path/'c')
    more = cache_rooms(tmp_path/'c', 12, 5, (28,28), per_file=4)
    assert len(more)==12 and lost.read_bytes()==data and all(p.stat().st_mtime_ns==t for p,t in stamps.items() if p!=lost)
    with pytest.raises(UserError, match='other settings'): cache_rooms(tmp_path/'c', 8, 6, (28,28), per_file=4)
    with pytest.raises(UserError, match='6 views'): c.views(0, [0], 6)
    with pytest.raises(UserError, match='rooms.json cannot be read.*cache_rooms'): CachedRooms(tmp_path)
    for cut in (b'', data[:300], data[:-1]):
        lost.write_bytes(cut)
        with pytest.raises(UserError, match='rooms-000000.npy is missing.*or damaged'): CachedRooms(tmp_path/'c')
    lost.write_bytes(data)
    for odd in (dict(), dict(more.meta, per_file=0), dict(more.meta, hw=[28]), dict(more.meta, rooms='8'), dict(more.meta, views=6)):
        (tmp_path/'c/rooms.json').write_text(json.dumps(odd), encoding='utf8')
        with pytest.raises(UserError): CachedRooms(tmp_path/'c')

def test_cache_that_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(V.shutil, 'disk_usage', lambda p: type('U', (), dict(free=1000)))
    with pytest.raises(UserError, match='has no room'): cache_rooms(tmp_path/'c', 8, 2, (28,28), per_file=4)
    assert not list((tmp_path/'c').glob('*.npy'))

# ---- the command

def check(*args):
    "The command as a shell runs it"
    code = 'import sys\nfrom spa3r.data.batches import check_data\nsys.argv[0] = "spa3r_check_data"\nif __name__=="__main__": sys.exit(check_data())\n'
    script = Path(args[0]).parent/'spa3r_check_data.py'
    script.write_text(code, encoding='utf8')
    r = subprocess.run([sys.executable, script, *map(str, args)], capture_output=True, encoding='utf8', timeout=120, env=os.environ|dict(OMP_NUM_THREADS='1'))
    return r.returncode,r.stdout,r.stderr

def test_check_data_says_what_is_there(tmp_path, capsys):
    root = tmp_path/'data'
    photos(root/'scene0001_00/color', 150)
    photos(root/'scene0002_00/color', 60, (48,64))
    photos(root/'scene0003_00/color', 1)
    spoil(root/'scene0002_00/color/7.jpg')
    look = check_data(str(root), width=28, v_max=6, images=24, images_device=8)
    said = capsys.readouterr().out
    steps = Batches(open_scenes(root, width=28), 0, 4, 6, 24, 8).steps_in_epoch(0)
    for what in ('ScanNet: 2 scenes, 210 frames (60 to 150', 'scene0003_00: 1 frame', '64x48: 150 images, a view is 28x14', '48x64: 59 images, a view is 28x28, the middle of 37 rows', '1 of 210 images broken',
                 f'{root}/scene0002_00/color/7.jpg: ', 'truncated', f'an epoch: {steps} step', 'images a second', 'hours', 'GB (teachers', 'training would run'): assert what in said, what
    assert look.read==210 and list(look.broken)==[f'{root}/scene0002_00/color/7.jpg']
    for i in range(3): spoil(root/f'scene0002_00/color/{i}.jpg')
    with pytest.raises(BadData, match='4 of 210'): check_data(str(root), width=28)
    assert '2.jpg' in capsys.readouterr().out
    check_data(str(root), width=28, max_broken=.05)
    assert check_data(str(root), width=28, sample=10, max_broken=1.).read==20
    assert '20 of 210 frames were looked at' in capsys.readouterr().out

def test_check_data_exit_codes(tmp_path, scenes, capsys):
    code,out,err = check(scenes, '--width', 28)
    assert code==0 and out.splitlines()[-1]=='training would run' and not err
    (tmp_path/'empty').mkdir()
    bad = photos(tmp_path/'bad', 30)
    for i in range(9): spoil(bad/f'{i}.jpg')
    code,out,err = check(bad, '--width', 28)
    assert code==1 and '9 of 30 images are broken' in err and len(err.splitlines())==1 and 'training would run' not in out
    assert all(f'{bad}/{i}.jpg: ' in out for i in range(9))
    for p,kw,why in ((tmp_path/'none',{},'No folder or file'), (tmp_path/'empty',{},'holds nothing'), (scenes,dict(v_max=30),'no more than images')):
        with pytest.raises(BadData, match=why) as e: check_data(str(p), **kw)
        assert e.value.code==1 and not capsys.readouterr().out
