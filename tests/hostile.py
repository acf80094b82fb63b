"""Bad input of every kind for every command, in one process: python tests/hostile.py [GROUP ...] (numbers, choices, outputs, ...)

Each case must end in one line on stderr and exit status 2 (1 where data are judged), without a traceback, and leave what it was given as it was.
All of it happens in a folder of its own; nodes and pipes are made there. The last line says how many were tried and how many were handled.
"""
import contextlib,hashlib,inspect,io,json,os,pickle,shutil,signal,struct,sys,tempfile,time,traceback,warnings,zipfile
from collections import Counter
from pathlib import Path
import torch
from PIL import Image
from safetensors.torch import load_file,save_file
from spa3r.language.convert import convert
from spa3r.bench.evaluate import SHIPPED,evaluate
from spa3r.train.finetune import finetune
from spa3r.probe.probes import probe
from spa3r.view.live import view
from spa3r.view.page import demo
from spa3r.teachers.teachers import WEIGHTS
from spa3r.train.teach_vggt import teach
from spa3r.train.pretrain import pretrain
from spa3r.data.batches import check_data

COMMANDS = dict(demo=demo, teach=teach, pretrain=pretrain, probe=probe, check_data=check_data, convert=convert, view=view, finetune=finetune, vsibench=evaluate)
SECONDS = 60 # Longer than any case may take

class TooLong(BaseException): pass

def attempt(cmd, args):
    "Run a command as a shell would: exit status (None: it came back), what it said on stderr, what else went wrong"
    said,status,odd = io.StringIO(),None,''
    def late(*_): raise TooLong
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(io.StringIO()),contextlib.redirect_stderr(said),warnings.catch_warnings(action='ignore'): COMMANDS[cmd].main([str(a) for a in args])
    except SystemExit as e: status = e.code or 0
    except TooLong: odd = f'more than {SECONDS} s'
    except BaseException as e: odd = ''.join(traceback.format_exception(e)[-3:])
    finally: signal.alarm(0)
    return status,said.getvalue(),odd

def fault(cmd, args, fine=()):
    "What is wrong with how a case ended; '' if nothing is"
    status,said,odd = attempt(cmd, args)
    lines = [l for l in said.splitlines() if l.strip() and not l.rstrip().endswith('...') and '%|' not in l]  # progress is no error
    if odd: return odd.strip()
    if status is None or status==0: return '' if 'works' in fine else 'it was taken'
    if status not in (1,2): return f'exit status {status}'
    return '' if len(lines)==1 and len(lines[0])<1500 else f'{len(lines)} lines: {said[-600:]}'

def mark(path):
    "What must not change"
    p = Path(path)
    if not p.exists(): return None
    files = [p] if not p.is_dir() else sorted(o for o in p.rglob('*') if o.is_file())
    return hashlib.sha1(b''.join(str(o).encode()+o.read_bytes() for o in files if o.name!='.lock')).hexdigest()

# --- numbers: every numeric option must have a range, and refuse what is out of it

def just_outside(limit, whole):
    low,high = map(float, limit[1:-1].split(','))
    step = 1 if whole else .001
    values = [low if limit[0]=='(' else low-step, high if limit[-1]==')' else high*(1+1e-6)+step]
    return [str(int(v)) for v in values]+['1'+25*'0'] if whole else [f'{v:.12g}' for v in values]+['nan','inf','-inf']

NEEDED = dict(check_data=['.'], convert=['nowhere.ckpt']) # Arguments without a default

def numbers():
    for name,cmd in COMMANDS.items():
        f = cmd.__wrapped__
        for k,p in inspect.signature(f).parameters.items():
            if p.annotation not in (int,float,'int','float'): continue
            limit = getattr(f, 'limits', {}).get(k)
            if limit is None: yield '12 numbers',name,[f'--{k} has no range'],None
            else: yield from (('12 numbers',name,[*NEEDED.get(name, []),f'--{k}={v}'],None) for v in just_outside(limit, p.annotation in (int,'int'))+['word'])

def choices():
    for name,cmd in COMMANDS.items():
        for k,o in getattr(cmd.__wrapped__, 'limits', {}).items():
            if isinstance(o, tuple): yield '12 names',name,[*NEEDED.get(name, []),f'--{k}=zzz'],None
        yield '12 names',name,[*NEEDED.get(name, []),'--no_such_option=1'],None
        if 'device' in inspect.signature(cmd.__wrapped__).parameters: yield '12 names',name,[*NEEDED.get(name, []),'--device=abacus'],None
    for args in (['--images=7','--images_device=4'], ['--v_min=9','--v_max=4'], ['--data=nowhere'], ['--semantic=nowhere'], ['--init=nowhere'], ['--init=no/such-student'], ['--teacher=nowhere']):
        yield '12 names','pretrain',['--nano',*args],None
    for args in (['--n_ctx=6'], ['--weights=nowhere'], ['--weights='], ['--head=sem','--weights=exact']): yield '12 names','probe',args,None
    for args in (['--weights=nowhere'], ['--images=nowhere'], ['--video=nowhere'], ['--images=.','--video=x'], ['--rooms=1'], ['--export=a.obj'], ['--teacher=nowhere']): yield '12 names','demo',args,None
    for args in (['--model=nowhere'], ['--data=nowhere'], ['--tasks=zzz'], ['--against=nowhere']): yield '12 names','vsibench',args,None
    for args in (['--model=nowhere'], ['--data=/nope.json'], ['--spatial=nowhere'], ['--teacher=nowhere'], ['--fsdp']): yield '12 names','finetune',['--nano',*args],None
    yield '12 names','teach',['--init=nowhere'],None
    yield '12 names','teach',['--images=4','--images_device=4'],None

# --- outputs

def outputs(d):
    (d/'file.txt').write_text('kept')
    (d/'folder').mkdir()
    os.mkfifo(d/'pipe')
    with contextlib.suppress(OSError): os.mknod(d/'node', 0o600|0o020000, os.makedev(1, 3))  # a null device of our own, where that is allowed
    model = shutil.copytree(WEIGHTS/'exact', d/'model')
    vlm = shutil.copytree(SHIPPED, d/'vlm') if SHIPPED.is_dir() else None
    run = d/'run'
    pretrain(out=str(run), nano=True, grid=2, steps=1, images=4, images_device=4, v_min=2, v_max=2, eval_every=0, quiet=True, device='cpu')
    (d/'link').symlink_to(model)
    ckpt = d/'spa3r.ckpt'
    torch.save(dict(state_dict={}), ckpt)
    nodes = [o for o in ('pipe','node') if (d/o).exists()]
    bad = ['', ' ', 'a\0b', d/('x'*300), d/'file.txt'/'in_a_file', '/proc/nowhere/x', *(d/o for o in nodes), *(d/o/'in_it' for o in nodes)]
    short = dict(demo=['--rooms=0','--views=2'], pretrain=['--nano','--steps=1'], teach=['--steps=1'], probe=['--scenes=2'], finetune=['--nano','--steps=1'], vsibench=['--model=none','--rooms=1'], convert=[ckpt])
    files,folders = {'demo':['out','export'],'probe':['out'],'vsibench':['out']},{'pretrain':['out','cache'],'teach':['out'],'convert':['out'],'finetune':['out']}
    for name,opts in (files|folders).items():
        for o in opts:
            for b in bad+([d/'folder', f'{d}/new/'] if name in files else [d/'file.txt']):
                if (name,o,str(b)) in {('probe','out',''),('pretrain','cache','')}: continue  # these mean none
                yield '1 2 outputs',name,[*short[name],f'--{o}={b}'],d/'file.txt'
    for name,args,kept in (('demo', [f'--weights={model}',f'--out={model}/config.json'], model), ('demo', [f'--weights={model}',f'--out={d}/link/config.json'], model), ('demo', [f'--out={d}/a.ply',f'--export={d}/a.ply'], model),
            ('probe', [f'--weights={model}',f'--out={model}/model.safetensors'], model), ('pretrain', ['--nano',f'--init={run}',f'--out={run}'], run), ('pretrain', ['--nano',f'--init={model}',f'--out={d}/link'], model),
            ('pretrain', ['--nano',f'--out={model}'], model), ('pretrain', ['--nano',f'--cache={model}'], model), ('teach', [f'--init={model}',f'--out={model}'], model), ('teach', [f'--out={model}'], model),
            ('convert', [model,f'--out={model}'], model), ('convert', [d/'link',f'--out={model}'], model), ('convert', [ckpt,f'--out={run}'], run), ('convert', [ckpt,f'--out={model}'], model), ('convert', [ckpt,f'--out={ckpt}'], ckpt),
            ('finetune', ['--nano',f'--model={model}',f'--out={model}'], model), ('finetune', ['--nano',f'--out={model}'], model), ('finetune', ['--nano',f'--spatial={model}',f'--out={d}/link'], model)):
        yield '1 2 outputs',name,args,kept
    if vlm:
        for name,args in (('convert',[vlm,f'--out={vlm}']), ('convert',[vlm,f'--out={vlm}/spatial']), ('finetune',['--nano',f'--model={vlm}',f'--out={vlm}']), ('vsibench',[f'--model={vlm}',f'--out={vlm}/config.json']),
                          ('finetune',['--nano',f'--model={vlm}',f'--out={vlm}/spatial']), ('finetune',['--nano',f'--spatial={vlm}/spatial',f'--out={vlm}'])): yield '1 2 outputs',name,args,vlm

# --- weights and what is in their folder

def cut(p, n): p.write_bytes(p.read_bytes()[:n])
def changed(p, **kw): p.write_text(json.dumps(json.loads(p.read_text())|kw))

def tensor(change):
    "Change one tensor of a folder's weights"
    def f(folder):
        p = folder/'model.safetensors'
        s = load_file(p)
        k = max(s, key=lambda k: s[k].numel())
        save_file({n:v.contiguous() for n,v in (change(s, k) or s).items()}, p, metadata={'format':'pt'})
    return f

WRONG = {'nan':tensor(lambda s,k: s[k].view(-1)[:1].fill_(torch.nan) is None), 'inf':tensor(lambda s,k: s[k].view(-1)[-1:].fill_(torch.inf) is None), 'int8':tensor(lambda s,k: s.update({k:s[k].to(torch.int8)})),
    'no size':tensor(lambda s,k: s.update({k:s[k][:0]})), 'shape':tensor(lambda s,k: s.update({k:s[k][:1]})), 'missing':tensor(lambda s,k: s.pop(k) is None or s), 'too many':tensor(lambda s,k: s.update({'extra.weight':s[k].clone()})),
    'empty':lambda d: (d/'model.safetensors').write_bytes(b''), 'cut':lambda d: cut(d/'model.safetensors', 4000), 'header':lambda d: (d/'model.safetensors').write_bytes(struct.pack('<Q', 2**62)+b'{}'),
    'index beside':lambda d: (d/'model.safetensors.index.json').write_text('{"weight_map": {"a": "model.safetensors"}}'), 'no weights':lambda d: (d/'model.safetensors').unlink(),
    'no config':lambda d: (d/'config.json').unlink(), 'config empty':lambda d: (d/'config.json').write_text(''), 'config list':lambda d: (d/'config.json').write_text('[1]'), 'config binary':lambda d: (d/'config.json').write_bytes(b'\xff\xfe\0'),
    'config deep':lambda d: (d/'config.json').write_text('['*100_000)}
SIZES = {k:(lambda v: lambda d: changed(d/'config.json', **v))(v) for k,v in {'deep':dict(enc_depth=10**6), 'wide':dict(dim=10**7), 'negative':dict(n_latents=-1), 'no heads':dict(nh=0), 'words':dict(dim='wide'), 'half':dict(dim=1.5),
    'unknown':dict(zzz=1), 'none':dict(dim=None), 'large':dict(n_latents=99_999), 'uneven':dict(nh=7)}.items()}

def weights(d):
    for k,f in (WRONG|SIZES).items():
        for name in ('demo','probe') if k in WRONG else ('demo',):
            folder = shutil.copytree(WEIGHTS/'exact', d/f'{k} {name}')
            f(folder)
            yield '7 14 weights',name,[f'--weights={folder}',*(['--rooms=0','--views=2',f'--out={d}/page.html'] if name=='demo' else ['--scenes=2'])],folder
    for k in ('nan','missing','cut'):
        folder = shutil.copytree(WEIGHTS/'exact', d/f'{k} init')
        WRONG[k](folder)
        yield '7 14 weights','pretrain',['--nano',f'--init={folder}',f'--out={d}/out {k}','--steps=1'],folder
        yield '7 14 weights','teach',[f'--init={folder}',f'--out={d}/out {k}','--steps=1'],folder
        yield '7 14 weights','view',[f'--weights={folder}','--port=0'],folder
    if not SHIPPED.is_dir(): return
    for k in [o for o in WRONG if o!='too many']+['no tokenizer']:
        for name in ('vsibench','finetune') if k in ('missing','nan','index beside','no tokenizer','config empty') else ('vsibench',):
            folder = shutil.copytree(SHIPPED, d/f'{k} {name} vlm')
            if k=='no tokenizer': [p.unlink() for p in folder.glob('*token*')]
            else: WRONG[k](folder)
            yield '7 14 weights',name,[f'--model={folder}',*(['--rooms=1','--limit=1',f'--out={d}/r.json'] if name=='vsibench' else ['--nano','--rooms=1','--steps=1',f'--out={d}/tuned {k}'])],folder

def code(d):
    "Folders that bring Python along"
    if not SHIPPED.is_dir(): return
    for part in ('config','model','generate'):
        for name in ('vsibench','finetune'):
            folder = shutil.copytree(SHIPPED, d/f'{part} {name}')
            (folder/'evil.py').write_text(f'open({str(d/"ran")!r}, "w")\nclass Evil: pass\n')
            (folder/'custom_generate').mkdir()
            (folder/'custom_generate'/'generate.py').write_text(f'open({str(d/"ran")!r}, "w")\n')
            if part!='generate': changed(folder/'config.json', model_type='evil', auto_map={'AutoConfig':'evil.Evil', 'AutoModelForImageTextToText':'evil.Evil'} if part=='config' else {'AutoModelForImageTextToText':'evil.Evil'})
            args = ['--rooms=1','--limit=1',f'--out={d}/{part}.json'] if name=='vsibench' else ['--nano','--rooms=1','--steps=1',f'--out={d}/tuned {part}']
            if part!='generate': yield '8 code',name,[f'--model={folder}',*args],d/'ran'

def checkpoints(d):
    one = torch.ones(2)
    huge = torch.zeros(1).expand(4096, 10**7)
    for k,v in {'list':[1], 'number':3, 'empty':{}, 'no tensors':{'a':1}, 'integer keys':{'state_dict':{1:one}}, 'words':{'state_dict':{'projection.weight':'w'}}, 'unknown':{'state_dict':{'zzz':one}}, 'state list':{'state_dict':[one]},
                'no size':{'state_dict':{'projection.weight':torch.ones(0,0), 'query_embed.weight':one}}, 'scalar':{'state_dict':{'projection.weight':torch.tensor(1.)}}, 'huge':{'state_dict':{'projection.weight':huge}}}.items():
        torch.save(v, d/f'{k}.ckpt')
        yield '14 checkpoints','convert',[d/f'{k}.ckpt',f'--out={d}/out'],d/f'{k}.ckpt'
    (d/'text.ckpt').write_text('no checkpoint'), (d/'zero.ckpt').write_bytes(b''), (d/'zip.ckpt').write_bytes(b'PK\3\4'), (d/'pickle.ckpt').write_bytes(pickle.dumps(Counter))
    for k in ('text','zero','zip','pickle'): yield '14 checkpoints','convert',[d/f'{k}.ckpt',f'--out={d}/out'],d/f'{k}.ckpt'
    for k,files in {'bare':{}, 'config alone':{'config.json':'{}'}, 'cut':{'config.json':'{}', 'model.safetensors':'xx'}, 'lost piece':{'config.json':'{}', 'model.safetensors.index.json':'{"weight_map": {"a": "b.safetensors"}}'}}.items():
        (d/k).mkdir()
        for n,t in files.items(): (d/k/n).write_text(t)
        yield '14 checkpoints','convert',[d/k,f'--out={d}/out'],d/k

# --- runs

def runs(d):
    kw,run = dict(nano=True, grid=2, images=4, images_device=4, v_min=2, v_max=2, eval_every=0, quiet=True, device='cpu'),d/'run'
    pretrain(out=str(run), steps=2, save_every=2, **kw)
    again = [f'--{k}' if v is True else f'--{k}={v}' for k,v in kw.items()]+['--steps=2','--save_every=2']
    last = next(run.glob('step-*')).name
    bad = {'train empty':('train.json',b''), 'train cut':('train.json',b'{"st'), 'train list':('train.json',b'[]'), 'train binary':('train.json',b'\xff\0'), 'log word':('log.jsonl',b'word\n'), 'log list':('log.jsonl',b'[1]\n'),
        'log odd':('log.jsonl',b'{"step": "x"}\n'), 'log binary':('log.jsonl',b'\xff\xfe\n'), 'eval odd':('eval.jsonl',b'{"step": 1, "score": "good"}\n'), 'state empty':(f'{last}/state.pt',b''), 'state text':(f'{last}/state.pt',b'text'),
        'state pickle':(f'{last}/state.pt',pickle.dumps(print)), 'weights empty':(f'{last}/model.safetensors',b''), 'weights text':(f'{last}/model.safetensors',b'text'), 'no state':(f'{last}/state.pt',None), 'no weights':(f'{last}/model.safetensors',None)}
    for k,(f,text) in bad.items():
        folder = shutil.copytree(run, d/k)
        (folder/f).unlink() if text is None else (folder/f).write_bytes(text)
        yield '13 runs','pretrain',[*again,f'--out={folder}'],folder
    for k,n in (('state cut','state.pt'),('weights cut','model.safetensors')):
        folder = shutil.copytree(run, d/k)
        cut(folder/last/n, 2000)
        yield '13 runs','pretrain',[*again,f'--out={folder}'],folder
    folder = shutil.copytree(run, d/'log folder')
    (folder/'log.jsonl').unlink(), (folder/'log.jsonl').mkdir()
    yield '13 runs','pretrain',[*again,f'--out={folder}'],None
    yield '13 runs','pretrain',[*again,'--lr=.5',f'--out={run}'],run
    folder = shutil.copytree(run, d/'odd step')
    (folder/'step-zzz').mkdir(), (folder/'step-9999999').write_text('no folder')
    yield '13 runs, works','pretrain',[*again,f'--out={folder}'],None
    for k,text in {'answers cut':b'{"as', 'answers list':b'[1]\n'}.items():
        (d/f'{k}.json.answers').mkdir()
        (d/f'{k}.json.answers'/'run.json').write_bytes(text), (d/f'{k}.json.answers'/'rank0.jsonl').write_bytes(b'{"ask": "a", "answer": "b"}\n')
        if SHIPPED.is_dir(): yield '13 runs','vsibench',['--rooms=1','--limit=1',f'--out={d}/{k}.json'],None
    for k,text in {'no json':'word', 'list':'[]', 'no rows':'{"rows": {}}', 'rows odd':'{"rows": {"a": [1]}}', 'rows number':'{"rows": 3}'}.items():
        (d/f'{k}.json').write_text(text)
        yield '13 runs','vsibench',['--model=none','--rooms=1',f'--against={d}/{k}.json',f'--out={d}/o.json'],d/f'{k}.json'

# --- pictures, videos, questions, conversations, addresses

def pictures(d):
    def scene(name, files):
        (d/name).mkdir()
        for n,b in files.items(): (d/name/n).write_bytes(b)
        return d/name
    buf = io.BytesIO()
    Image.new('RGB', (112,112), 'teal').save(buf, 'PNG')
    png = buf.getvalue()
    scenes = [scene('nothing', {}), scene('texts', {'a.txt':b'a','b.txt':b'b'}), scene('broken', {f'{i}.png':b'no picture' for i in range(8)}), scene('one', {'a.png':png}), scene('cut', {f'{i}.png':png[:40] for i in range(8)}), scene('zero', {f'{i}.jpg':b'' for i in range(8)})]
    os.mkfifo(scene('pipes', {})/'a.png'), os.mkfifo(d/'pipes'/'b.jpg')
    for s in [*scenes, d/'pipes']:
        yield '3 15 pictures','demo',[f'--images={s}',f'--out={d}/p.html'],s if s.name!='pipes' else None
        yield '3 15 pictures','check_data',[s],None
    for n,b in {'empty.mp4':b'', 'text.mp4':b'no video', 'picture.mp4':png, 'zip.mp4':b'PK\3\4'}.items():
        (d/n).write_bytes(b)
        for name,arg in (('demo','--video='),('view','--video=')): yield '3 15 pictures',name,[f'{arg}{d/n}',*([f'--out={d}/p.html'] if name=='demo' else ['--port=0'])],d/n
        yield '3 15 pictures','check_data',[d/n],d/n

def questions(d):
    q = dict(id=0, dataset='a', scene_name='s', question_type='object_counting', question='How many?', options=None, ground_truth='2')
    for k,text in {'nothing':'', 'word':'word', 'list':'[1]', 'no type':json.dumps({n:v for n,v in q.items() if n!='question_type'}), 'type':json.dumps(q|dict(question_type='zzz')), 'truth':json.dumps(q|dict(ground_truth='two')),
                   'twice':json.dumps(q)+'\n'+json.dumps(q), 'options':json.dumps(q|dict(question_type='route_planning', options=['left'], ground_truth='A'))}.items():
        (d/f'{k}.jsonl').write_text(text)
        yield '10 11 questions','vsibench',[f'--data={d}/{k}.jsonl','--model=none',f'--out={d}/o.json'],d/f'{k}.jsonl'
    (d/'binary.jsonl').write_bytes(b'\xff\xfe\0\1'), (d/'bad.parquet').write_bytes(b'PAR1'), (d/'folder').mkdir()
    for n in ('binary.jsonl','bad.parquet','folder'): yield '10 11 questions','vsibench',[f'--data={d/n}','--model=none',f'--out={d}/o.json'],d/n
    if SHIPPED.is_dir():
        for k in ('no video','bad zip','up'):
            (d/k).mkdir()
            (d/k/'test.jsonl').write_text(json.dumps(q|(dict(scene_name='../../s') if k=='up' else {})))
            if k=='bad zip': (d/k/'a.zip').write_bytes(b'PK\3\4')
            yield '10 11 questions','vsibench',[f'--data={d/k}','--model=nano',f'--out={d}/{k}.json'],d/k
    talk = dict(conversations=[{'from':'human','value':'<image>\nWhat?'},{'from':'gpt','value':'That.'}], image='a.png')
    for k,text in {'nothing':'', 'word':'word', 'number':'3', 'object':'{}', 'empty list':'[]', 'no turns':json.dumps([talk|dict(conversations=[])]), 'no picture':json.dumps([{'conversations':talk['conversations']}]),
                   'gone':json.dumps([talk]), 'turned':json.dumps([talk|dict(conversations=talk['conversations'][::-1])])}.items():
        (d/f'{k}.json').write_text(text)
        yield '9 conversations','finetune',['--nano',f'--data={d}/{k}.json',f'--out={d}/tuned {k}','--steps=1'],d/f'{k}.json'
    for args in (['--host='], ['--host= '], ['--host=999.1.1.1'], ['--host=no host'], ['--host=203.0.113.7'], ['--host='+'a'*300], ['--port=70000'], ['--port=-1']): yield '16 viewer','view',args,None

GROUPS = [numbers, choices, outputs, weights, code, checkpoints, runs, pictures, questions]

def main(groups):
    tried,handled,start = Counter(),Counter(),time.perf_counter()
    torch.set_num_threads(1)
    os.environ['HF_HUB_OFFLINE'] = '1'
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as tmp:
        for g in (o for o in GROUPS if not groups or o.__name__ in groups):
            d = Path(tmp)/g.__name__
            d.mkdir()
            os.chdir(d)
            cases = g(d) if inspect.signature(g).parameters else g()
            with contextlib.redirect_stdout(io.StringIO()): cases = list(cases)
            for kind,cmd,args,kept in cases:
                before = mark(kept) if kept else None
                why = fault(cmd, args, kind) if not args[0].__class__ is str or not args[0].endswith('has no range') else 'it has no range'
                why = why or ('what it was given has changed' if kept and mark(kept)!=before else '')
                tried[kind] += 1
                handled[kind] += not why
                if why: print(f"--- {kind}: {cmd} {' '.join(map(repr, map(str, args)))[:300]}\n    {why}".replace(tmp, 'TMP'), flush=True)
        os.chdir(home)
    for k in tried: print(f'{k}: {tried[k]} tried, {handled[k]} handled')
    print(f'{tried.total()} tried / {handled.total()} handled in {time.perf_counter()-start:.0f} s')
    return tried.total()-handled.total()

if __name__=='__main__': sys.exit(min(main(sys.argv[1:]), 1))
