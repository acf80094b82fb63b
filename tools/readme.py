"Write README.md from nbs/index.ipynb; its pictures go to nbs/images/index. `--check` changes nothing and fails when they differ"
import base64,json,re,sys
from pathlib import Path

root = Path(__file__).resolve().parents[1]
pics = Path('nbs/images/index')

def text(x): return ''.join(x)

def output(o, name, alt, files):
    "Markdown for one output of a code cell; a picture is put into `files`"
    if o['output_type']=='error': raise SystemExit(f"index.ipynb has a saved error: {o['ename']}: {o['evalue']}")
    if o['output_type']=='stream': return '' if o['name']=='stderr' else '```\n'+text(o['text']).rstrip()+'\n```'
    d = o['data']
    for mime,ext in (('image/png','png'), ('image/jpeg','jpg'), ('image/svg+xml','svg')):
        if mime not in d: continue
        files[pics/f'{name}.{ext}'] = text(d[mime]).encode() if ext=='svg' else base64.b64decode(text(d[mime]))
        return f'![{alt}]({pics.as_posix()}/{name}.{ext})'
    if 'text/markdown' in d: return links(text(d['text/markdown']).strip())
    return '```\n'+text(d['text/plain']).rstrip()+'\n```'

def links(md):
    "Addresses beside the notebook become addresses beside the README"
    return re.sub(r'(\]\(|src=")(?![a-z]+:|#|/)(\.\./)?', lambda m: m[1]+('' if m[2] else 'nbs/'), md)

def convert(nb):
    "Markdown of the notebook, and its pictures as {path: bytes}"
    parts,files = [],{}
    for c in nb['cells']:
        src = text(c['source'])
        if c['cell_type']=='markdown': parts.append(links(src.strip())); continue
        flags = re.findall(r'^#\s*\|\s*(.+?)\s*$', src, re.M)
        if c['cell_type']!='code' or any(f.split()[0] in ('hide','default_exp') for f in flags): continue
        code = re.sub(r'^#\s*\|.*\n?', '', src, flags=re.M).strip()
        if code and 'echo: false' not in flags: parts.append(f'```python\n{code}\n```')
        alt = next((f.split(':', 1)[1].strip().strip('"') for f in flags if f.startswith('fig-alt:')), '')
        for o in c.get('outputs', []): parts.append(output(o, f'fig-{len(files)+1}', alt, files))
    return '\n\n'.join(p for p in parts if p)+'\n',files

def main(check=False):
    md,files = convert(json.loads((root/'nbs/index.ipynb').read_text(encoding='utf8')))
    want = {Path('README.md'): md.encode()}|files
    have = [p.relative_to(root) for p in (root/pics).glob('*')]
    stale = [p for p in have if p not in want]
    differ = [p for p,b in want.items() if not (root/p).exists() or (root/p).read_bytes()!=b]
    if check: return [str(p) for p in differ+stale]
    for p in stale: (root/p).unlink()
    for p in differ:
        (root/p).parent.mkdir(parents=True, exist_ok=True)
        (root/p).write_bytes(want[p])
    return []

if __name__=='__main__':
    bad = main('--check' in sys.argv[1:])
    if bad: sys.exit(f"not in step with nbs/index.ipynb: {', '.join(bad)}; run python tools/readme.py")
