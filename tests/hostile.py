"""Bad input of every kind for every command, in one process: python tests/hostile.py [GROUP ...] (numbers, choices, outputs, ...)

Each case must end in one line on stderr and exit status 2 (1 where data are judged), without a traceback, and leave what it was given as it was.
All of it happens in a folder of its own; nodes and pipes are made there. The last line says how many were tried and how many were handled.
"""
import contextlib,hashlib,inspect,io,json,os,pickle,resource,shutil,signal,socket,struct,sys,tempfile,threading,time,traceback,warnings,zipfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import NamedTuple
os.environ['HF_HUB_OFFLINE'] = '1'  # read when its library is imported
import numpy as np,torch
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
from spa3r.train.listen import listen
from spa3r.train.speedrun import speedrun

COMMANDS = dict(demo=demo, teach=teach, pretrain=pretrain, probe=probe, check_data=check_data, convert=convert, view=view, finetune=finetune, vsibench=evaluate, listen=listen, speedrun=speedrun)
SECONDS = 150 # Longer than any case may take, on a busy machine too

class TooLong(BaseException): pass

class Case(NamedTuple):
    "A command line, and how it must end"
    kind:str
    cmd:str
    args:list
    kept:Path=None # What must be as it was
    works:bool=False # Must it come back, with exit status 0?
    says:str='' # In what it says
    within:object=contextlib.nullcontext # What it happens in

def terminal(): return io.TextIOWrapper(io.BytesIO(), 'ascii', write_through=True) # The poorest there is

def attempt(case):
    "Run a command as a shell would: exit status (None: it came back), what it said on stdout and on stderr, what else went wrong"
    out,err,status,odd = terminal(),terminal(),None,''
    def late(*_): raise TooLong
    signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    try:
        with contextlib.redirect_stdout(out),contextlib.redirect_stderr(err),warnings.catch_warnings(action='ignore'),case.within(): COMMANDS[case.cmd].main([str(a) for a in case.args])
    except SystemExit as e: status = e.code or 0
    except TooLong: odd = f'more than {SECONDS} s'
    except BaseException as e: odd = ''.join(traceback.format_exception(e)[-3:])
    finally: signal.alarm(0)
    return status,*(o.buffer.getvalue().decode() for o in (out,err)),odd

def fault(case):
    "What is wrong with how a case ended; '' if nothing is"
    status,out,said,odd = attempt(case)
    lines = [l for l in said.splitlines() if l.strip() and not l.rstrip().endswith('...') and '%|' not in l and not l.startswith('stopping after')]  # progress is no error
    if odd: return odd.strip()
    if case.says not in out+said: return f'it does not say {case.says!r}: {(out+said)[-600:]}'
    if case.works: return '' if status in (None,0) else f'exit status {status}: {said[-600:]}'
    if status==141: return '' if not lines else f'{len(lines)} lines to nobody: {said[-600:]}'
    if status not in (1,2,130,143): return 'it was taken' if not status else f'exit status {status}'
    return '' if len(lines)==1 and len(lines[0])<1500 else f'{len(lines)} lines: {said[-600:]}'

def mark(path):
    "What must not change"
    p = Path(path)
    if not p.exists(): return None
    files = [p] if not p.is_dir() else sorted(o for o in p.rglob('*') if o.is_file())
    return hashlib.sha1(b''.join(os.fsencode(o)+o.read_bytes() for o in files if o.name!='.lock')).hexdigest()

# --- numbers: every numeric option must have a range, and refuse what is out of it

def just_outside(limit, whole):
    low,high = map(float, limit[1:-1].split(','))
    step = 1 if whole else .001
    values = [low if limit[0]=='(' else low-step, high if limit[-1]==')' else high*(1+1e-6)+step]
    return [str(int(v)) for v in values]+['1'+25*'0'] if whole else [f'{v:.12g}' for v in values]+['nan','inf','-inf']

NO_WORDS = 'out export cache rooms device tasks split media'.split() # Texts that are outputs, made, or tried elsewhere
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
    (d/'file.txt').write_text('kept', encoding='utf8')
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
def changed(p, **kw): p.write_text(json.dumps(json.loads(p.read_text(encoding='utf8'))|kw), encoding='utf8')

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
    'index beside':lambda d: (d/'model.safetensors.index.json').write_text('{"weight_map": {"a": "model.safetensors"}}', encoding='utf8'), 'no weights':lambda d: (d/'model.safetensors').unlink(),
    'no config':lambda d: (d/'config.json').unlink(), 'config empty':lambda d: (d/'config.json').write_text('', encoding='utf8'), 'config list':lambda d: (d/'config.json').write_text('[1]', encoding='utf8'), 'config binary':lambda d: (d/'config.json').write_bytes(b'\xff\xfe\0'),
    'config deep':lambda d: (d/'config.json').write_text('['*100_000, encoding='utf8')}
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
            (folder/'evil.py').write_text(f'open({str(d/"ran")!r}, "w")\nclass Evil: pass\n', encoding='utf8')
            (folder/'custom_generate').mkdir()
            (folder/'custom_generate'/'generate.py').write_text(f'open({str(d/"ran")!r}, "w")\n', encoding='utf8')
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
    (d/'text.ckpt').write_text('no checkpoint', encoding='utf8'), (d/'zero.ckpt').write_bytes(b''), (d/'zip.ckpt').write_bytes(b'PK\3\4'), (d/'pickle.ckpt').write_bytes(pickle.dumps(Counter))
    for k in ('text','zero','zip','pickle'): yield '14 checkpoints','convert',[d/f'{k}.ckpt',f'--out={d}/out'],d/f'{k}.ckpt'
    for k,files in {'bare':{}, 'config alone':{'config.json':'{}'}, 'cut':{'config.json':'{}', 'model.safetensors':'xx'}, 'lost piece':{'config.json':'{}', 'model.safetensors.index.json':'{"weight_map": {"a": "b.safetensors"}}'}}.items():
        (d/k).mkdir()
        for n,t in files.items(): (d/k/n).write_text(t, encoding='utf8')
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
    (folder/'step-zzz').mkdir(), (folder/'step-9999999').write_text('no folder', encoding='utf8')
    yield Case('13 runs','pretrain',[*again,f'--out={folder}'], works=True)
    for k,text in {'answers cut':b'{"as', 'answers list':b'[1]\n'}.items():
        (d/f'{k}.json.answers').mkdir()
        (d/f'{k}.json.answers'/'run.json').write_bytes(text), (d/f'{k}.json.answers'/'rank0.jsonl').write_bytes(b'{"ask": "a", "answer": "b"}\n')
        if SHIPPED.is_dir(): yield '13 runs','vsibench',['--rooms=1','--limit=1',f'--out={d}/{k}.json'],None
    for k,text in {'no json':'word', 'list':'[]', 'no rows':'{"rows": {}}', 'rows odd':'{"rows": {"a": [1]}}', 'rows number':'{"rows": 3}'}.items():
        (d/f'{k}.json').write_text(text, encoding='utf8')
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
        (d/f'{k}.jsonl').write_text(text, encoding='utf8')
        yield '10 11 questions','vsibench',[f'--data={d}/{k}.jsonl','--model=none',f'--out={d}/o.json'],d/f'{k}.jsonl'
    (d/'binary.jsonl').write_bytes(b'\xff\xfe\0\1'), (d/'bad.parquet').write_bytes(b'PAR1'), (d/'folder').mkdir()
    for n in ('binary.jsonl','bad.parquet','folder'): yield '10 11 questions','vsibench',[f'--data={d/n}','--model=none',f'--out={d}/o.json'],d/n
    if SHIPPED.is_dir():
        for k in ('no video','bad zip','up'):
            (d/k).mkdir()
            (d/k/'test.jsonl').write_text(json.dumps(q|(dict(scene_name='../../s') if k=='up' else {})), encoding='utf8')
            if k=='bad zip': (d/k/'a.zip').write_bytes(b'PK\3\4')
            yield '10 11 questions','vsibench',[f'--data={d/k}','--model=nano',f'--out={d}/{k}.json'],d/k
    talk = dict(conversations=[{'from':'human','value':'<image>\nWhat?'},{'from':'gpt','value':'That.'}], image='a.png')
    for k,text in {'nothing':'', 'word':'word', 'number':'3', 'object':'{}', 'empty list':'[]', 'no turns':json.dumps([talk|dict(conversations=[])]), 'no picture':json.dumps([{'conversations':talk['conversations']}]),
                   'gone':json.dumps([talk]), 'turned':json.dumps([talk|dict(conversations=talk['conversations'][::-1])])}.items():
        (d/f'{k}.json').write_text(text, encoding='utf8')
        yield '9 conversations','finetune',['--nano',f'--data={d}/{k}.json',f'--out={d}/tuned {k}','--steps=1'],d/f'{k}.json'
    for args in (['--host='], ['--host= '], ['--host=999.1.1.1'], ['--host=no host'], ['--host=203.0.113.7'], ['--host='+'a'*300], ['--port=70000'], ['--port=-1']): yield '16 viewer','view',args,None

# --- a second round: cases in files, folders, names and moments

def photo(wh=(112,84), kind='PNG', mode='RGB', **kw):
    buf = io.BytesIO()
    Image.new(mode, wh, 90).save(buf, kind, **kw)
    return buf.getvalue()

def filled(folder, files):
    "A folder with these files; text as UTF-8"
    for n,b in files.items():
        p = Path(os.fsdecode(folder))/os.fsdecode(n if isinstance(n, bytes) else n.encode())
        p.parent.mkdir(parents=True, exist_ok=True)
        p.write_bytes(b if isinstance(b, bytes) else b.encode())
    return Path(folder)

def png_of(w, h):
    "A PNG that promises more pixels than there are"
    data = bytearray(photo())
    data[16:24] = struct.pack('>2I', w, h)
    import zlib
    data[29:33] = struct.pack('>I', zlib.crc32(data[12:29]))
    return bytes(data)

def film(path, n=8, wh=(96,64), codec='mpeg4', at=lambda i: i):
    "A video; `at` says when each picture is shown, in tenths of a second"
    import av
    from fractions import Fraction
    with av.open(str(path), 'w') as box:
        s = box.add_stream(codec, rate=10)
        s.width,s.height,s.pix_fmt = *wh,'yuv420p'
        s.codec_context.time_base = Fraction(1, 10)
        for i in range(n):
            f = av.VideoFrame.from_ndarray(np.full((wh[1],wh[0],3), 20*i, np.uint8), format='rgb24')
            f.pts,f.time_base = at(i),Fraction(1, 10)
            box.mux(s.encode(f))
        box.mux(s.encode())
    return Path(path)

def in_box(path, box, at, data):
    "The same file with some bytes of a box of MP4 changed"
    b = bytearray(path.read_bytes())
    i = b.index(box)+4+at
    b[i:i+len(data)] = data
    return b

def looked(kind, path, works=False, says='', kept=True, cmds=('demo','check_data')):
    "The same pictures for the commands that look at them"
    path = Path(path)
    given = '--images' if path.is_dir() else '--video'
    for cmd in cmds:
        args = [path,'--width=56','--v_max=4','--images_device=8','--images=8'] if cmd=='check_data' else [f'{given}={path}','--views=2','--no-live','--between=0',f'--out={path.parent}/page.html'] if cmd=='demo' else [f'{given}={path}','--port=0']
        yield Case(kind, cmd, args, path if kept else None, works, says)

def odd_photos(d):
    p,ok = photo(),{f'{i}.png':photo() for i in range(4)}
    animated = photo(kind='GIF', save_all=True, append_images=[Image.new('RGB', (112,84), i) for i in (9,99,200)])
    good = {'bytes':{**ok, b'\xff\xfe.png':p}, 'line end':{**ok, 'a\nb.png':p, 'c\td\x1b[31m.txt':'x'}, 'long':{**ok, 'x'*246+'.png':p}, 'words':{**ok, '\u5ba4 \U0001f4f7 e\u0301.PNG':p}, 'wide':{**ok, 'p.png':photo((1120,84))},
            'phone':{**ok, 'IMG_1.AAE':'x', 'IMG_1.DNG':b'II*\0', '.DS_Store':'x', '._0.png':'x'}, 'modes':{**ok, 'l.png':photo(mode='L'), 'p.png':photo(mode='P'), '1.png':photo(mode='1'), 'la.png':photo(mode='LA'), 'c.jpg':photo(kind='JPEG', mode='CMYK'), 'i.png':photo(mode='I;16'), 'f.tif':photo(kind='TIFF', mode='F')},
            'bomb':{**ok, 'b.png':png_of(60_000, 60_000)}, 'liar':{**ok, 'b.png':png_of(500, 400)}, 'svg':{**ok, 's.png':'<svg/>'}, 'exif':{**ok, 'e.jpg':photo(kind='JPEG', exif=b'Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0c\0\0\0\0\0\0\0'), 'f.jpg':photo(kind='JPEG', exif=b'Exif\0\0'+bytes(range(200)))}}
    broken = dict(modes='f.tif', bomb='b.png', liar='b.png', svg='s.png') # check_data judges those
    for k,files in good.items():
        kind,says = '10 names' if k in ('bytes','words','line end','long') else '4 5 15 photos',broken.get(k, dict(phone='DNG', wide='p.png').get(k, ''))
        folder = filled(d/f'good {k}', files)
        yield from looked(kind, folder, True, says, cmds=('demo',) if k in broken else ('demo','check_data'))
        if k in broken: yield from looked(kind, folder, cmds=('check_data',))
    yield from looked('4 5 15 photos', filled(d/'moving', {**ok, 'm.gif':animated, 'm.tif':photo(kind='TIFF', save_all=True, append_images=[Image.new('RGB', (112,84))])}), True, 'm.gif')
    for k,files in {'all wide':{f'{i}.png':photo((1120,84)) for i in range(2)}|{f'{i}b.png':photo() for i in range(2)}, 'all bombs':{f'{i}.png':png_of(60_000, 60_000) for i in range(4)}, 'zip':{'a.zip':'PK', 'b.zip':'PK'}, 'raw':{f'{i}.CR2':b'II*\0' for i in range(4)}, 'live':{**ok, 'a.mov':'x'},
                    'masks':{f'mask/{i}.png':p for i in range(4)}, 'lines':{f'{i}.png':photo((1,20_000)) for i in range(2)}, 'dots':{f'{i}.png':photo((1,1)) for i in range(2)}|{f'{i}w.png':photo((20_000,1)) for i in range(4)}}.items():
        yield from looked('4 5 15 photos', filled(d/k, files), cmds=('demo','check_data') if k in ('raw','zip','all bombs') else ('check_data',) if k=='live' else ('demo',) if k=='all wide' else ())
        yield from looked('4 5 15 photos', d/k, cmds=('check_data',)) if k in ('all wide',) else ()
    (d/'loop').mkdir(), (d/'loop'/'a.png').symlink_to('a.png'), (d/'loop'/'b.png').symlink_to('nowhere'), (d/'loop'/'c').symlink_to(d/'loop')
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(d/'sock.png')), (d/'names.png').mkdir(), (d/'names.mp4').mkdir(), os.mkfifo(d/'film.mp4')
    yield from looked('4 5 15 photos', d/'loop', kept=False)
    for n in ('sock.png','names.mp4','film.mp4','loop/a.png'): yield from looked('4 5 15 photos', d/n, kept=False)

def odd_videos(d):
    v = film(d/'v.mp4')
    b = v.read_bytes()
    fixed = lambda *xs: struct.pack('>9i', *(int(x*2**(30 if i%3==2 else 16)) for i,x in enumerate(xs)))
    m = lambda *xs: in_box(v, b'tkhd', 40, fixed(*xs))
    for k,data in {'turned by 45':m(.7,.7,0,-.7,.7,0,0,0,1), 'no matrix':m(*9*[0]), 'twice as large':m(2,0,0,0,2,0,0,0,1), 'moved':m(1,0,0,0,1,0,5000,-5000,1), 'perspective':m(1,0,.5,0,1,.5,0,0,1),
                   'no width':in_box(v, b'tkhd', 76, bytes(8)), 'all in one':in_box(v, b'stts', 8, struct.pack('>2I', 8, 0))}.items():
        (d/f'{k}.mp4').write_bytes(data)
        yield from looked('3 videos', d/f'{k}.mp4', k!='all in one')
    for k,at in {'at 12:30.mp4':lambda i: i, '12:30.mp4':lambda i: i, 'uneven.mp4':lambda i: i**2, 'late.mkv':lambda i: 100+i, 'far.mkv':lambda i: 10**6*i, '-i.mp4':lambda i: i, 'pipe:0.mp4':lambda i: i, 'a%03d.mp4':lambda i: i}.items():
        shutil.move(film(d/f'w{Path(k).suffix}', at=at), d/k)
        for cmd,args in dict(demo=[f'--video={k}','--views=2','--no-live','--between=0','--out=p.html'], check_data=[f'./{k}','--width=56','--v_max=4','--images_device=8','--images=8']).items(): yield Case('3 videos',cmd,args, d/k, True)
    for k,text in {'list.mp4':'ffconcat version 1.0\nfile v.mp4\n', 'play.mp4':'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nv.mp4\n#EXT-X-ENDLIST\n', 'play.webm':'#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nhttp://127.0.0.1:9/v.mp4\n', 'sdp.mov':'v=0\nm=video 1 RTP/AVP 96\n',
                   'gif.mp4':photo(kind='GIF', save_all=True, append_images=[Image.new('RGB', (112,84), i) for i in (9,99)]), 'page.mp4':'<!doctype html><h1>404</h1>', 'lfs.mp4':'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n', 'nul.avi':bytes(4000),
                   'moov.mp4':b[b.index(b'moov')-4:], 'head.mp4':b[:40]}.items():
        filled(d, {k:text})
        yield from looked('3 videos', d/k)
    yield from looked('3 videos', film(d/'one.mp4', 1))
    yield from looked('3 videos', film(d/'low.mp4', wh=(640,2)))

def sens(path, n=4, wh=(64,48), codec=2, frame=None, promise=None, colour=None):
    "A recording as ScanNet has them"
    data = frame if frame is not None else photo((64,48), 'JPEG')
    head = struct.pack('<IQ', 4, 1)+b's'+bytes(256)+struct.pack('<2i4IfQ', codec, 1, *wh, 4, 4, 1000., n if promise is None else promise)
    path.write_bytes(head+n*(bytes(80)+struct.pack('<2Q', len(data) if colour is None else colour, 0)+data))
    return path

def recordings(d):
    for k,kw in dict(header=dict(wh=(1296,968)), nothing=dict(wh=(0,0)), raw=dict(codec=0, frame=bytes(99)), huge=dict(codec=0, wh=(2**32-1,2**32-1)), far=dict(colour=2**64-1), some=dict(colour=2**63), none=dict(n=0), more=dict(promise=5, n=1), text=dict(frame=b'no picture')).items():
        yield Case('3 recordings','check_data',[sens(d/f'{k}.sens', **kw),'--width=56','--v_max=4','--images_device=8','--images=8'], d/f'{k}.sens')
        yield Case('3 recordings','pretrain',[f'--data={d}/{k}.sens','--nano','--teacher=exact',f'--out={d}/run {k}','--steps=1'], d/f'{k}.sens') if k in ('nothing','far') else Case('3 recordings','check_data',[d/f'{k}.sens','--sample=2','--width=56','--v_max=4','--images_device=8','--images=8'], d/f'{k}.sens')
    yield Case('3 recordings','check_data',[sens(d/'good.sens'),'--width=56','--v_max=4','--images_device=8','--images=8'], d/'good.sens', True, '64x48')

Q = dict(id=0, dataset='a', scene_name='s', question_type='object_counting', question='How many?', options=None, ground_truth='2')
def lines(*qs): return '\n'.join(json.dumps(o) for o in qs)+'\n'

def odd_questions(d):
    way = Q|dict(id=1, question_type='route_planning', options=['A. left','B. right'], ground_truth='A')
    two = lines(Q, way)
    for k,text in {'mark.jsonl':'\ufeff'+two, 'crlf.jsonl':two.replace('\n','\r\n'), 'upper.JSONL':two, 'list.JSON':json.dumps([Q,way]), 'words.jsonl':lines(Q|dict(question='\u5ba4 \u2028 \x85?'), way), 'blank.jsonl':'\n\n'+two+'\n \n', 'more.jsonl':lines(Q|dict(zzz=[1,{'a':None}]), way),
                   'whole.json':'\ufeff'+json.dumps([Q,way], indent=1), 'zero.jsonl':lines(Q|dict(ground_truth=0), way), 'large.jsonl':lines(Q|dict(id=10**30, ground_truth='1e300'), way)}.items():
        filled(d, {k:text})
        yield Case('10 20 questions','vsibench',[f'--data={d/k}','--model=none',f'--out={d}/o {k}.json'], d/k, True, '2 questions')
    for k,text in {'utf16.jsonl':two.encode('utf-16'), 'latin.jsonl':two.replace('many','m\xe4ny').encode('latin-1').replace(b'\\u00e4', b'\xe4'), 'raw.jsonl':lines(Q).encode().replace(b'How', b'H\xf6w'), 'nul.jsonl':two+'\0', 'lines.json':two, 'two.jsonl':json.dumps(Q)+json.dumps(way), 'deep.json':'['*10**5, 'deep.jsonl':'['*10**5, 'cut.json':json.dumps([Q,way])[:-9],
                   'nan.jsonl':lines(Q|dict(ground_truth=float('nan'))), 'inf.jsonl':lines(Q|dict(ground_truth='1e999')), 'truth.jsonl':lines(Q|dict(ground_truth=[2])), 'bool.jsonl':lines(Q|dict(ground_truth=True)), 'id.jsonl':lines(Q|dict(id=1.5)), 'ids.jsonl':lines(Q|dict(id=1), Q|dict(id='1')), 'true.jsonl':lines(Q|dict(id=True)), 'nest.jsonl':lines(Q|dict(question={'text':'x'})),
                   'type.jsonl':lines(Q|dict(question_type=['object_counting'])), 'options.jsonl':lines(way|dict(options={'A':'left'})), 'lower.jsonl':lines(way|dict(ground_truth='a')), 'token.jsonl':lines(way|dict(options=['A. <|vision_start|>','B. x'])), 'pad.jsonl':lines(Q|dict(question='<|image_pad|>')), 'digits.jsonl':'{"id": '+'9'*5000+'}\n', 'same.json':json.dumps([Q,Q]), 'object.json':json.dumps({'a':Q}), 'scene.jsonl':lines(Q|dict(scene_name='')), 'space.jsonl':lines(Q|dict(scene_name='a\0b')),
                   'q.zip':'PK', 'q.csv':'id,dataset\n1,a\n', 'q.arrow':'ARROW1', 'q.parquet':'', 'none.json':'null', 'number.json':'1e999'}.items():
        filled(d, {k:text})
        yield Case('10 20 questions','vsibench',[f'--data={d/k}','--model=none',f'--out={d}/o.json'], d/k)
    os.mkfifo(d/'pipe.jsonl'), os.mkfifo(filled(d/'pruned', {'test.jsonl':two})/'pruned_ids.txt'), (d/'self.jsonl').symlink_to('self.jsonl')
    for args in ([f'--data={d}/pipe.jsonl'], [f'--data={d}/pruned','--split=pruned'], [f'--data={d}/self.jsonl'], [f'--data={d}/crlf.jsonl','--tasks=,object_counting,zzz'], [f'--data={d}/crlf.jsonl','--split=debiased']): yield Case('10 20 questions','vsibench',[*args,'--model=none',f'--out={d}/o.json'])
    filled(d/'both', {'test.jsonl':lines(Q), 'test.parquet':'PAR1'})
    yield Case('4 left out','vsibench',[f'--data={d}/both','--model=none',f'--out={d}/both.json'], d/'both', True, 'test.parquet')
    rows = [dict(id=0, scene='a/s', question_type='object_counting'), dict(id=1, scene='a/s', question_type='route_planning')]
    against = lambda *xs: json.dumps(dict(rows={'m':[r|dict(answer=x) for r,x in zip(rows, xs)]}))
    for k,xs in {'words':('\u5ba4 2','A'), 'none':(None,None), 'numbers':(2,3), 'nan':(float('nan'),float('inf')), 'lists':([2],{'a':'A'}), 'true':(True,False), 'huge':('9'*5000,'A'*10**6), 'thought':('<think>2','<think></think></think>A'), 'digits':('\u0663 \u00bd 1_000','\uff21'), 'nul':('\0002','A\0'), 'minus':('-1e400','a'), 'half':('\ud800','A')}.items():
        filled(d, {f'{k}.run':against(*xs)})
        yield Case('6 answers','vsibench',[f'--data={d}/crlf.jsonl','--model=none',f'--against={d}/{k}.run',f'--out={d}/against {k}.json'], d/f'{k}.run', True)
    for k,text in {'bom':'\ufeff'+against(2), 'few':against(2), 'bytes':b'\xff', 'ids':against(2, 2).replace('"id": 1', '"id": [1]'), 'twice':json.dumps(dict(rows={'m':[rows[0]|dict(answer=1), rows[0]|dict(answer=2), rows[1]|dict(answer=1)]})), 'deep':'{"rows":'+'['*10**5, 'long':against(2, 2)[:60]}.items():
        filled(d, {f'{k}.bad':text})
        yield Case('6 answers','vsibench',[f'--data={d}/crlf.jsonl','--model=none',f'--against={d}/{k}.bad',f'--out={d}/o.json'], d/f'{k}.bad')
    yield Case('1 2 outputs','vsibench',[f'--data={d}/crlf.jsonl','--model=none',f'--against={d}/words.run',f'--out={d}/words.run'], d/'words.run')

def zips(d):
    v = film(d/'v.mp4').read_bytes()
    def case(k, members, patch=lambda z: None, **kw):
        filled(d/k, {'test.jsonl':lines(Q)})
        with warnings.catch_warnings(action='ignore'), zipfile.ZipFile(d/k/'a.zip', 'w', zipfile.ZIP_DEFLATED) as z:
            for n,b in members: z.writestr(n, b)
        if patch: patch(d/k/'a.zip')
        return Case('11 zips','vsibench',[f'--data={d/k}','--model=nano','--frames=1',f'--out={d}/{k}.json'], d/k, **kw)
    def field(at, here, x):
        def f(p):
            b = bytearray(p.read_bytes())
            for sig,k in ((b'PK\1\2',at),(b'PK\3\4',here)): b[(i := b.index(sig)+k):i+len(x)] = x
            p.write_bytes(b)
        return f
    link = zipfile.ZipInfo('a/s.mp4')
    link.external_attr = 0o120777<<16
    for k,ms in dict(absolute=[('/etc/s.mp4',v)], up=[('../../s.mp4',v)], back=[('..\\..\\s.mp4',v)], drive=[('C:\\s.mp4',v)]).items(): yield case(k, ms, works=True)
    yield from (case('empty', []), case('nothing', [('a/s.mp4',b'')]), case('text', [('a/s.mp4',b'no video')]), case('link', [(link,b'/etc/passwd')]), case('twice', [('a/s.mp4',v),('b/s.MP4',v)]), case('deep', [('a.zip',b'PK')]))
    yield from (case('cut', [('a/s.mp4',v)], lambda p: cut(p, 300)), case('locked', [('a/s.mp4',v)], field(8, 6, b'\1\0')), case('method', [('a/s.mp4',v)], field(10, 8, b'\x09\0')), case('more', [('a/s.mp4',v)], field(24, 22, struct.pack('<I', 2**31-2)), works=True),
                case('less', [('a/s.mp4',v)], field(24, 22, struct.pack('<I', 99))), case('sum', [('a/s.mp4',v)], field(16, 14, b'abcd')), case('offset', [('a/s.mp4',v)], field(42, 26, b'\xff\xff')))
    os.mkfifo(filled(d/'fifo', {'test.jsonl':lines(Q)})/'a.zip'), (filled(d/'folder', {'test.jsonl':lines(Q)})/'a.zip').mkdir(), (filled(d/'out of it', {'test.jsonl':lines(Q)})/'s.mp4').symlink_to('/nowhere/s.mp4')
    for k in ('fifo','folder','out of it'): yield Case('11 zips','vsibench',[f'--data={d/k}','--model=nano',f'--out={d}/{k}.json'])

def odd_talks(d):
    talk = dict(conversations=[{'from':'human','value':'<image>\nWhat?'},{'from':'gpt','value':'That.'}], image='a.png')
    said = lambda *vs: talk|dict(conversations=[{'from':('human','gpt')[i%2],'value':v} for i,v in enumerate(vs)])
    filled(d, {'a.png':photo(), 'b.png':photo(), 'v.mp4':'no video'})
    nan = json.dumps([talk])
    for k,t in {'utf16.json':nan.encode('utf-16'), 'latin.json':nan.replace('What','Wh\xe4t').encode('latin-1'), 'nul.jsonl':nan[1:-1]+'\n\0', 'lines.json':nan[1:-1]+'\n'+nan[1:-1], 'value.json':[said('<image>?', 3)], 'list.json':[said('<image>?', [dict(type='text', text='That.')])], 'role.json':[talk|dict(conversations=[{'from':'tool','value':'x'},{'from':'gpt','value':'y'}])],
                'odd.json':[said('<image>?', 'a', 'b')], 'end.json':[said('<image>?', 'That.<|im_end|>')], 'start.json':[said('<|im_start|>system', 'x')], 'pad.json':[said('<image><|video_pad|>?', 'x')], 'system.json':[talk|dict(conversations=[{'from':'system','value':'<|vision_end|>'},*talk['conversations']])], 'marks.json':[said('<image><image><image>?', 'x')], 'both.json':[talk|dict(video='v.mp4')],
                'numbers.json':[talk|dict(image=3)], 'mixed.json':[talk|dict(image=None, images=['a.png',4])], 'empty.json':[talk|dict(image='')], 'video.json':[talk|dict(image=None, video='v.mp4')], 'folder.json':[talk|dict(image='.')], 'null.json':[None], 'text.json':['x'], 'deep.json':'['*10**5, 'digits.json':'['+'9'*5000+']', 'object.json':{'a':talk}, 'cut.jsonl':nan[1:-9]}.items():
        filled(d, {k:t if isinstance(t, (str,bytes)) else json.dumps(t)})
        yield Case('9 10 conversations','finetune',['--nano',f'--data={d/k}',f'--out={d}/tuned {k}','--steps=1','--rooms=1'], d/k)
    os.mkfifo(d/'pipe.json'), os.mkfifo(d/'pipe.png')
    filled(d, {'fifo.json':json.dumps([talk|dict(image='pipe.png')])})
    for k in ('pipe','fifo'): yield Case('9 10 conversations','finetune',['--nano',f'--data={d}/{k}.json',f'--out={d}/tuned {k}','--steps=1'])

def odd_models(d):
    copy = lambda k,src=WEIGHTS/'exact': shutil.copytree(src, d/k)
    demo_of = lambda f: ['--rooms=0','--views=2','--no-live','--between=0',f'--weights={f}',f'--out={d}/p.html']
    text = (WEIGHTS/'exact'/'config.json').read_text(encoding='utf8')
    for k,t in {'nan':text.replace(': 4', ': NaN', 1), 'inf':text.replace(': 4', ': 1e999', 1), 'digits':text.replace(': 4', ': '+'9'*5000, 1), 'float':text.replace(': 4', ': 4.0', 1), 'true':text.replace(': 4', ': true', 1), 'list':text.replace(': 4', ': [4]', 1), 'utf16':text.encode('utf-16'), 'comment':'// mine\n'+text, 'comma':text.replace('}', ',}'), 'null':'null', 'word':'"x"', 'nul':text+'\0'}.items():
        filled(f := copy(f'config {k}'), {'config.json':t})
        yield Case('14 models','demo',demo_of(f), f)
    filled(f := copy('config mark'), {'config.json':'\ufeff'+text})
    yield Case('14 models','demo',demo_of(f), f, True)
    state = load_file(WEIGHTS/'exact'/'model.safetensors')
    def kinds(change):
        def f(folder): save_file({k:change(v).contiguous() for k,v in state.items()}, folder/'model.safetensors', metadata={'format':'pt'})
        return f
    def link(to): return lambda f: ((f/'model.safetensors').unlink(), (f/'model.safetensors').symlink_to(to))
    def header(h, tail=b''): return lambda f: (f/'model.safetensors').write_bytes(struct.pack('<Q', len(h))+h+tail)
    for k,f in {'float8':kinds(lambda v: v.to(torch.float8_e4m3fn)), 'complex':kinds(lambda v: v.to(torch.complex64)), 'bool':kinds(lambda v: v>0), 'half':kinds(lambda v: (v*1e6).half()), 'turned':kinds(lambda v: v.mT if v.ndim>1 else v), 'flat':kinds(lambda v: v.flatten()), 'loop':link('model.safetensors'), 'lost':link('/nowhere/x'), 'folder':lambda f: ((f/'model.safetensors').unlink(), (f/'model.safetensors').mkdir()),
                'pipe':lambda f: ((f/'model.safetensors').unlink(), os.mkfifo(f/'model.safetensors')), 'overlap':header(b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4)), 'beyond':header(b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'), 'negative':header(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', bytes(4)), 'no header':header(b''),
                'lfs':lambda f: filled(f, {'model.safetensors':'version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n'}), 'up':lambda f: ((f/'model.safetensors').rename(f.parent/'up.safetensors'), filled(f, {'model.safetensors.index.json':json.dumps(dict(weight_map=dict.fromkeys(state, '../up.safetensors')))})),
                'index list':lambda f: ((f/'model.safetensors').unlink(), filled(f, {'model.safetensors.index.json':'{"weight_map": [1]}'})), 'index numbers':lambda f: ((f/'model.safetensors').unlink(), filled(f, {'model.safetensors.index.json':'{"weight_map": {"a": 1}}'}))}.items():
        f(folder := copy(f'weights {k}'))
        for cmd,args in (('demo',demo_of(folder)),('pretrain',['--nano',f'--init={folder}',f'--out={d}/run {k}','--steps=1'])): yield Case('7 14 weights',cmd,args, folder if k!='pipe' else None)
    if not SHIPPED.is_dir(): return
    evil = pickle.dumps(type('Evil', (), {'__reduce__':lambda self: (open, (str(d/'ran'),'w'))})())
    drop = lambda f: (f/'model.safetensors').unlink()
    for k,change in {'bin':lambda f: (drop(f), filled(f, {'pytorch_model.bin':evil})), 'template':lambda f: filled(f, {'chat_template.jinja':'{% for'}), 'calls':lambda f: filled(f, {'chat_template.jinja':"{{ ''.__class__.__mro__[1].__subclasses__() }}"}), 'raises':lambda f: filled(f, {'chat_template.jinja':'{{ raise_exception("no") }}'}), 'empty template':lambda f: filled(f, {'chat_template.jinja':''}),
                     'tokenizer':lambda f: filled(f, {'tokenizer.json':'{}'}), 'tokenizer list':lambda f: filled(f, {'tokenizer.json':'[1]'}), 'tokenizer cut':lambda f: cut(f/'tokenizer.json', 999), 'tokenizer config':lambda f: filled(f, {'tokenizer_config.json':'[]'}), 'pictures':lambda f: [filled(f, {p.name:'[1]'}) for p in f.glob('pre*.json')], 'generation':lambda f: filled(f, {'generation_config.json':'{"max_new_tokens": "x"}'}),
                     'auto tokenizer':lambda f: changed(f/'tokenizer_config.json', auto_map={'AutoTokenizer':['evil.Evil',None]}, tokenizer_class='Evil'), 'tokens':lambda f: changed(f/'config.json', image_token_id=10**9), 'architecture':lambda f: changed(f/'config.json', model_type='bert'), 'no type':lambda f: changed(f/'config.json', model_type=None)}.items():
        change(f := shutil.copytree(SHIPPED, d/f'vlm {k}'))
        yield Case('8 14 models','vsibench',[f'--model={f}','--rooms=1','--limit=1',f'--out={d}/{k}.json'], f)
    yield Case('8 14 models','vsibench',['--model=none','--rooms=1',f'--out={d}/o.json'], d/'ran', True)

def odd_runs(d):
    small = dict(nano=True, grid=2, images=4, images_device=4, v_min=2, v_max=2, eval_every=0, quiet=True, device='cpu', steps=2, save_every=2)
    pretrain(out=str(d/'run'), **small)
    again = [f'--{k}' if v is True else f'--{k}={v}' for k,v in small.items()]
    step = next((d/'run').glob('step-*')).name
    log = (d/'run'/'log.jsonl').read_text(encoding='utf8')
    for k,(f,t) in {'log nan':('log.jsonl','{"step": 0, "loss": NaN}\n{"step": "NaN"}\n'), 'log nul':('log.jsonl','\0\n'), 'log deep':('log.jsonl','['*10**5+'\n'), 'log digits':('log.jsonl','{"step": '+'9'*5000+', "loss": 1}\n'), 'train null':('train.json','null'), 'train deep':('train.json','['*10**5), 'train other':('train.json','{"steps": "2"}'),
                    'state number':(f'{step}/state.pt',3), 'state list':(f'{step}/state.pt',[1]), 'state step':(f'{step}/state.pt',dict(opt={}, step='x')), 'state opt':(f'{step}/state.pt',dict(opt=dict(state={0:{'exp_avg':torch.ones(9)}}, param_groups=[]), step=2)), 'config':(f'{step}/config.json','[')}.items():
        folder = shutil.copytree(d/'run', d/k)
        filled(folder, {f:t}) if isinstance(t, str) else torch.save(t, folder/f)
        yield Case('13 runs','pretrain',again+[f'--out={folder}']+['--steps=3'], folder)
    for k,f in (('pipe','train.json'),('pipe 2',f'{step}/state.pt')):
        folder = shutil.copytree(d/'run', d/k)
        (folder/f).unlink(), os.mkfifo(folder/f)
        yield Case('13 runs','pretrain',again+[f'--out={folder}'])
    folder = shutil.copytree(d/'run', d/'locked')
    (folder/'.lock').unlink(missing_ok=True), (folder/'.lock').mkdir()
    yield Case('13 runs','pretrain',again+[f'--out={folder}'])
    cache = d/'cache'
    pretrain(out=str(d/'cached'), cache=str(cache), cache_samples=2, **small)
    files = sorted(p for p in cache.rglob('*') if p.is_file() and p.suffix)
    for i,t in enumerate((b'', b'\xff\xfe', b'[1]', pickle.dumps(print))):
        for p in {files[0],files[-1]}:
            folder = shutil.copytree(cache, d/f'cache {i} {p.name}')
            (folder/p.relative_to(cache)).write_bytes(t)
            made = p.suffix=='.safetensors'  # what is damaged is made again
            yield Case('13 runs','pretrain',again+['--cache_samples=2',f'--cache={folder}',f'--out={d}/run {i} {p.name}'], None if made else folder, made)
    for k,(f,t) in {'plan empty':('speedrun.json',''), 'plan list':('speedrun.json','[]'), 'plan bare':('speedrun.json','{}'), 'plan parts':('speedrun.json','{"seconds": 60, "small": true, "device": "cpu", "parts": 3}'), 'plan time':('teacher/runs.jsonl','word\n')}.items():
        filled(d/k, {f:t})
        yield Case('13 runs','speedrun',['--small','--minutes=1','--device=cpu','--quiet',f'--out={d/k}'], d/k)
    for k,(f,t) in {'rooms text':('rooms-0.pt',b'text'), 'rooms pickle':('rooms-0.pt',pickle.dumps(print)), 'rooms list':('rooms-0.pt',3), 'rooms odd':('rooms-0.pt',[1,2])}.items():
        filled(d/k, {f:t}) if isinstance(t, bytes) else ((d/k).mkdir(), torch.save(t, d/k/f))
        yield Case('13 runs','listen',['--stage=eye','--n=2','--steps=1','--quiet',f'--rooms={d/k}',f'--out={d}/l {k}'], d/k)
    for k in ('init','rooms'):
        filled(d/f'listen {k}', {'config.json':'{}', 'model.safetensors':'x'})
        yield Case('13 runs','listen',['--stage=reckon','--n=2','--steps=1',f'--{k}={d}/listen {k}',f'--out={d}/l2 {k}'], d/f'listen {k}')
    for k,t in {'nul':b'\0\n', 'bytes':b'\xff\n', 'ask':b'{"ask": [1], "answer": "x"}\n', 'deep':b'['*10**5+b'\n'}.items():
        filled(d/f'{k}.json.answers', {'rank0.jsonl':t})
        if SHIPPED.is_dir(): yield Case('13 runs','vsibench',['--rooms=1','--limit=1',f'--out={d}/{k}.json'], d/f'{k}.json.answers'/'rank0.jsonl')

@contextlib.contextmanager
def after(seconds, sig):
    "A signal in the middle of it"
    t = threading.Timer(seconds, os.kill, (os.getpid(), sig))
    t.start()
    try: yield
    finally: t.cancel()

@contextlib.contextmanager
def full_disk(size):
    "No file may grow beyond so many bytes"
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, old[1]))
    try: yield
    finally: resource.setrlimit(resource.RLIMIT_FSIZE, old)

@contextlib.contextmanager
def without(name):
    "A package that is not installed, or broken"
    old = {k:v for k,v in sys.modules.items() if k.partition('.')[0]==name}
    for k in old: del sys.modules[k]
    sys.modules[name] = None
    try: yield
    finally:
        del sys.modules[name]
        sys.modules.update(old)

def moments(d):
    "Signals, full disks, packages that are not there"
    filled(d/'photos', {f'{i}.png':photo() for i in range(6)})
    train = ['--quiet','--device=cpu','--steps=100000']
    long = {'pretrain':['--nano','--grid=2','--images=4','--images_device=4','--v_min=2','--v_max=2',f'--out={d}/pre',*train], 'teach':[f'--out={d}/teach',*train], 'finetune':['--nano','--rooms=4',f'--out={d}/tune',*train], 'probe':['--scenes=400'], 'vsibench':['--rooms=2000','--model=none',f'--out={d}/v.json'], 'demo':['--rooms=400',f'--out={d}/d.html'],
            'view':['--port=0'], 'listen':[f'--rooms={d}/lessons',f'--out={d}/listen','--n=100000','--quiet'], 'speedrun':['--small','--quiet',f'--out={d}/speed']}
    for i,(cmd,args) in enumerate(long.items()): yield Case('19 signals',cmd,args, within=partial(after, 2, (signal.SIGTERM,signal.SIGINT)[i%2]))
    few = ['--quiet','--device=cpu','--steps=2','--save_every=1']
    for cmd,args in {'pretrain':['--nano','--grid=2','--images=4','--images_device=4','--v_min=2','--v_max=2',f'--out={d}/full pre',*few], 'teach':[f'--out={d}/full teach','--images=12','--images_device=12','--dim=32','--depth=1',*few], 'demo':['--rooms=0','--views=2',f'--out={d}/full.html'], 'vsibench':['--model=none','--rooms=4',f'--out={d}/full.json'],
                     'listen':[f'--rooms={d}/full lessons',f'--out={d}/full listen','--n=2',*few], 'convert':[SHIPPED,f'--out={d}/full model']}.items(): yield Case('19 full disk',cmd,args, within=partial(full_disk, 20_000))
    film(d/'v.mp4')
    filled(d, {'q.parquet':'PAR1'})
    for name,cmd,args in (('av','demo',[f'--video={d}/v.mp4']), ('av','check_data',[d/'v.mp4']), ('pyarrow','vsibench',[f'--data={d}/q.parquet','--model=none']), ('peft','finetune',['--nano','--rooms=1','--lora=2',f'--out={d}/lora','--steps=1']), ('tensorboard','pretrain',['--nano','--tensorboard',f'--out={d}/board','--steps=1']), ('viser','view',['--port=0']), ('trimesh','demo',['--rooms=0','--views=2','--no-live',f'--export={d}/e.glb',f'--out={d}/e.html']))\
            : yield Case('21 extras',cmd,args, within=partial(without, name), says='pip install')
    for args in (['--host=127.0.0.1:80'], ['--host=[::1]'], ['--host=127.0.0.1/8'], ['--host=localhost\n'], ['--port=0x50'], ['--port=1e3'], [f'--images={d}/photos','--video=x'], ['--views=3','--port=65536']): yield Case('16 viewer','view',args)

# --- a third round: nonsense for every text, what is no file where files are kept, lists of scenes, streams, homes and disks

def words(d):
    "Nonsense for every option that takes a text"
    os.mkfifo(d/'pipe')
    for name,cmd in COMMANDS.items():
        f = cmd.__wrapped__
        texts = {k for k,p in inspect.signature(f).parameters.items() if p.annotation in (str,'str')}-{*NO_WORDS}
        for k in sorted(texts-{k for k,o in getattr(f, 'limits', {}).items() if isinstance(o, tuple)}):
            for b in ('a\0b', 'x'*5000, '~nobody at home/x', f'{d}/pipe/x'): yield Case('12 words',name,[*NEEDED.get(name, [])[:k!='data'],*([b] if name=='check_data' and k=='data' or k=='ckpt' else [f'--{k}={b}'])])
    for args in (['--weights='], ['--teacher='], ['--images='], ['--video=']): yield Case('12 words','demo',['--rooms=0','--views=2',*args])
    for b in ('', ',', '.,', ',,'): yield Case('12 words','check_data',[b])
    for b in ('nowhere.json', 'zero3', d/'pipe'): yield Case('12 words','finetune',['--nano','--rooms=1',f'--deepspeed={b}',f'--out={d}/deep'])
    for b in ('hpu', 'privateuseone', 'cuda:99', 'meta', 'auto:0', 'cpu,cuda'): yield Case('12 words','probe',[f'--device={b}'])

def nodes(d):
    "Pipes, devices, folders and links to themselves where a run has its files"
    small = dict(nano=True, grid=2, images=4, images_device=4, v_min=2, v_max=2, eval_every=0, quiet=True, device='cpu', save_every=2)
    pretrain(out=str(d/'run'), steps=2, **small)
    again = [f'--{k}' if v is True else f'--{k}={v}' for k,v in small.items()]+['--steps=3']
    step = next((d/'run').glob('step-*')).name
    make = dict(pipe=os.mkfifo, folder=lambda p: (p/'x').mkdir(parents=True), loop=lambda p: p.symlink_to(p.name))
    for f in ('log.jsonl','eval.jsonl','runs.jsonl',f'{step}/model.safetensors'):
        for k,made in make.items():
            folder = shutil.copytree(d/'run', d/f'{k} {Path(f).name}')
            (folder/f).unlink(missing_ok=True), made(folder/f)
            if (f,k)!=('runs.jsonl','loop'): yield Case('13 15 nodes','pretrain',again+[f'--out={folder}'])
    for f in ('rank0.jsonl','rank7.jsonl','run.json'):
        for k,made in make.items():
            (d/f'{k} {f}.json.answers').mkdir(), made(d/f'{k} {f}.json.answers'/f)
            if SHIPPED.is_dir() and (f,k)!=('run.json','loop'): yield Case('13 15 nodes','vsibench',['--rooms=1','--limit=1',f'--out={d}/{k} {f}.json'])

def cached(d):
    "Damaged folders of rooms whose pictures are on disk"
    from spa3r.data.batches import cache_rooms
    cache_rooms(d/'rooms', 4, views=3, hw=(28,28), per_file=2)
    card,n = json.loads((d/'rooms'/'rooms.json').read_text(encoding='utf8')),0
    args = ['--nano',f"--teacher={WEIGHTS/'nano'/'teacher'}",'--images=4','--images_device=4','--v_min=2','--v_max=2','--steps=1','--quiet','--eval_every=0']
    for t in ('', '[]', '{}', b'\xff', '['*10**5, *(json.dumps(card|o) for o in (dict(rooms='x'), dict(per_file=0), dict(rooms=10**12), dict(hw=[28]), dict(hw=[-1,28]), dict(views=4), dict(per_file=None)))):
        folder,n = filled(shutil.copytree(d/'rooms', d/f'card {n}'), {'rooms.json':t}),n+1
        yield Case('13 rooms','pretrain',[f'--data={folder}',*args,f'--out={d}/run {n}'], folder)
    for t in (b'', b'text', pickle.dumps(print)):
        folder,n = filled(shutil.copytree(d/'rooms', d/f'array {n}'), {'cameras-000001.npy':t}),n+1
        yield Case('13 rooms','pretrain',[f'--data={folder}',*args,f'--out={d}/run {n}'], folder)
    cut(shutil.copytree(d/'rooms', d/'cut')/'rooms-000001.npy', 500)
    yield Case('13 rooms','pretrain',[f'--data={d}/cut',*args,f'--out={d}/run cut'], d/'cut')

def lists(d):
    "Folders as ScanNet and ScanNet++ have them"
    ok,look = {f'{i}.jpg':photo(kind='JPEG') for i in range(5)},lambda f,*o: [f,'--width=56','--v_max=4','--images_device=8','--images=8',*o]
    def plus(k, text): return filled(d/k, {f'data/a1/dslr/undistorted_images/{n}':b for n,b in ok.items()}|({} if text is None else {'splits/nvs_sem_train.txt':text}))
    for k,t in {'mark':'\ufeffa1\r\n# x\r\n', 'twice':'a1\na1\n', 'spaces':'  a1  \n\n', 'some':'a1\nzz\n'}.items(): yield Case('4 20 lists','check_data',look(plus(k, t)), d/k, True, 'zz' if k=='some' else '1 scene')
    for k,t in {'no list':None, 'nothing':'', 'utf16':'a1'.encode('utf-16'), 'bytes':b'\xff\xfe\0', 'up':'../a1\n', 'absolute':'/etc\n', 'dots':'..\n', 'nul':'a\0\n', 'long':'x'*5000+'\n', 'others':'zz\n', 'comment':'#a1\n'}.items(): yield Case('4 20 lists','check_data',look(plus(k, t)), d/k)
    (plus('pipe', None)/'splits').mkdir(), os.mkfifo(d/'pipe'/'splits'/'nvs_sem_train.txt'), (plus('folder', None)/'splits'/'nvs_sem_train.txt').mkdir(parents=True)
    for args in ([d/'pipe'], [d/'folder'], [d/'mark','--split=val']): yield Case('4 20 lists','check_data',look(*args))
    color = {f'scene0000_00/color/{n}':b for n,b in ok.items()}
    for k,(more,says) in {'word':({'scene0000_00/intrinsic/intrinsic_color.txt':'word'},''), 'nan':({'scene0000_00/intrinsic/intrinsic_color.txt':'nan nan\nnan nan'},''), 'plain':({},'')}.items(): yield Case('4 20 lists','check_data',look(filled(d/k, color|more)), d/k, True, says)
    yield Case('4 20 lists','check_data',look(filled(d/'turned', color|{'scene0000_00/color/9.jpg':photo((84,112), 'JPEG')})), d/'turned', says='9.jpg')
    for k in ('a.sens','b.sens'): sens(filled(d/'two'/'scene0000_00', {'x.txt':'x'})/k)
    os.mkfifo(filled(d/'piped'/'scene0000_00', {'x.txt':'x'})/'a.sens'), os.mkfifo(d/'p.sens'), filled(d, {'z.sens':b'', 'zeros.sens':bytes(400), 'ones.sens':b'\xff'*400})
    whole = sens(d/'q.sens', 6).read_bytes()
    filled(d, {f'cut {i}.sens':whole[:len(whole)*i//5] for i in (1,2,3,4)})
    for n in ('two','piped','p.sens','z.sens','zeros.sens','ones.sens',*(f'cut {i}.sens' for i in (1,2,3,4))): yield Case('3 recordings','check_data',look(d/n))

class Refusing(io.StringIO):
    "A stdout that takes nothing"
    def __init__(self, e):
        super().__init__()
        self.e = e
    def write(self, *_): raise self.e
    def flush(self): raise self.e

@contextlib.contextmanager
def stream(name, to):
    old = getattr(sys, name)
    setattr(sys, name, to)
    try: yield
    finally: setattr(sys, name, old)

@contextlib.contextmanager
def nowhere(d):
    "In a folder that has been removed"
    home = os.getcwd()
    (d/'gone').mkdir(exist_ok=True), os.chdir(d/'gone'), (d/'gone').rmdir()
    try: yield
    finally: os.chdir(home)

def streams(d):
    "Readers that left, a full disk as stdout, closed streams, a folder that is gone, homes"
    filled(d/'photos', {f'{i}.png':photo() for i in range(4)})
    some = {'demo':['--rooms=0','--views=2','--no-live','--between=0',f'--out={d}/o.html'], 'check_data':[d/'photos','--width=56','--v_max=4','--images_device=8','--images=8'], 'vsibench':['--model=none','--rooms=2',f'--out={d}/o.json'],
            'pretrain':['--nano','--grid=2','--images=4','--images_device=4','--v_min=2','--v_max=2','--steps=1','--eval_every=0',f'--out={d}/run']}
    for cmd,args in some.items():
        for e in (BrokenPipeError(32, 'Broken pipe'), OSError(28, 'No space left on device')): yield Case('19 streams',cmd,args, within=partial(stream, 'stdout', Refusing(e)))
        for k in ('stdout','stderr'): yield Case('19 streams',cmd,args, works=True, within=partial(stream, k, None))
        yield Case('19 streams',cmd,args, works=True, within=partial(nowhere, d))
    for cmd,args in dict(demo=['--images=.'], check_data=['.'], convert=['x.ckpt'], vsibench=['--data=.','--model=none'], pretrain=['--nano','--out=run'], probe=['--out=p.json']).items(): yield Case('19 streams',cmd,args, within=partial(nowhere, d))

def more_outputs(d):
    "Sources that would be written over, and weights that name odd teachers"
    model = shutil.copytree(WEIGHTS/'exact', d/'model')
    photos,v = filled(d/'photos', {f'{i}.png':photo() for i in range(4)}),film(d/'v.mp4')
    filled(d, {'q.jsonl':lines(Q), 'q.json':json.dumps([Q]), 'result.png':'mine'})
    (d/'link.html').symlink_to(v), os.link(v, d/'hard.html')
    for cmd,args,kept in (('listen',['--n=2','--steps=1',f'--out={model}'],model), ('listen',['--n=2','--stage=reckon',f'--init={model}',f'--out={model}'],model), ('speedrun',['--small','--minutes=1',f'--out={model}'],model), ('speedrun',['--small','--minutes=1',f'--out={v}'],v), ('speedrun',['--out='],None),
            ('pretrain',['--nano',f'--out={d}/same',f'--cache={d}/same'],None), ('pretrain',['--nano',f'--data={photos}',f'--out={d}/run'],photos), ('pretrain',['--nano','--steps=1',f'--teacher={model}',f'--out={d}/run'],model), ('pretrain',['--nano','--steps=1',f'--semantic={model}',f"--teacher={WEIGHTS/'nano'/'teacher'}",f'--out={d}/run'],model),
            ('vsibench',[f'--data={d}/q.jsonl','--model=none',f'--out={d}/q.jsonl'],d/'q.jsonl'), ('vsibench',[f'--data={d}/q.json','--model=none',f'--out={d}/q.json'],d/'q.json'), ('vsibench',[f'--data={d}/q.json','--model=none',f'--out={d}/result'],d/'result.png'), ('vsibench',['--model=none','--rooms=1',f'--out={photos}/0'],photos),
            ('demo',[f'--video={v}',f'--out={v}'],v), ('demo',[f'--video={v}',f'--out={d}/link.html'],v), ('demo',[f'--video={v}',f'--out={d}/hard.html'],v), ('demo',[f'--images={photos}',f'--out={photos}/1.png'],photos), ('demo',[f'--images={photos}',f'--export={photos}/1.png'],photos), ('demo',[f'--images={photos}',f'--teacher={model}',f'--out={d}/o.html'],model),
            ('finetune',['--nano',f'--data={d}/q.json',f'--out={d}'],d/'q.json'), ('convert',[v,f'--out={d}/out'],v), ('convert',[photos,f'--out={d}/out'],photos), ('probe',['--scenes=2',f'--out={v}/x.json'],v)): yield Case('1 2 outputs',cmd,args,kept)
    of_teacher = lambda **kw: lambda f: changed(f/'teacher'/'config.json', **kw)
    of_student = lambda **kw: lambda f: changed(f/'config.json', **kw)
    for k,change in {'gone':lambda f: shutil.rmtree(f/'teacher'), 'text':lambda f: filled(f, {'teacher/config.json':'{'}), 'list':lambda f: filled(f, {'teacher/config.json':'[]'}), 'cut':lambda f: cut(f/'teacher'/'model.safetensors', 5000), 'patch':of_teacher(patch=0), 'large':of_teacher(img_size=10**9), 'low':of_teacher(img_size=7), 'less':of_teacher(img_size=-14),
                     'up':of_student(teacher='../../x'), 'device':of_student(teacher='/dev/null'), 'number':of_student(teacher=3), 'norm':of_student(teacher_norm='zzz'), 'word':of_student(asymmetric='no'), 'note':of_student(note=['x']), 'grid':of_student(grid=10**9)}.items():
        change(folder := shutil.copytree(WEIGHTS/'nano', d/f'nano {k}'))
        yield Case('14 models','demo',[f'--images={photos}','--views=2','--no-live','--between=0',f'--weights={folder}',f'--out={d}/o.html'], folder)

GROUPS = [numbers, choices, outputs, weights, code, checkpoints, runs, pictures, questions, odd_photos, odd_videos, recordings, odd_questions, zips, odd_talks, odd_models, odd_runs, moments, words, nodes, cached, lists, streams, more_outputs]

def main(groups):
    tried,handled,start = Counter(),Counter(),time.perf_counter()
    torch.set_num_threads(1)
    home = Path.cwd()
    with tempfile.TemporaryDirectory() as tmp:
        for g in (o for o in GROUPS if not groups or o.__name__ in groups):
            d = Path(tmp)/g.__name__
            d.mkdir()
            os.chdir(d)
            cases = g(d) if inspect.signature(g).parameters else g()
            with contextlib.redirect_stdout(io.StringIO()): cases = list(cases)
            for c in (Case(*o) for o in cases):
                before = mark(c.kept) if c.kept else None
                why = 'it has no range' if str(c.args[:1]).endswith("has no range']") else fault(c)
                why = why or ('what it was given has changed' if c.kept and mark(c.kept)!=before else '')
                tried[c.kind] += 1
                handled[c.kind] += not why
                if why: print(f"--- {c.kind}: {c.cmd} {' '.join(map(repr, map(str, c.args)))[:300]}\n    {why}".replace(tmp, 'TMP'), flush=True)
        os.chdir(home)
    for k in tried: print(f'{k}: {tried[k]} tried, {handled[k]} handled')
    print(f'{tried.total()} tried / {handled.total()} handled in {time.perf_counter()-start:.0f} s, {time.process_time():.0f} s of the processor with all imports')
    return tried.total()-handled.total()

if __name__=='__main__': sys.exit(min(main(sys.argv[1:]), 1))
