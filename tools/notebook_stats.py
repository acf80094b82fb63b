"""How the notebooks read: words of prose per line of code, checks per exported definition, figures and size.

    python tools/notebook_stats.py
"""
import ast, json, re
from pathlib import Path

def stats(path):
    "Counts of one notebook"
    cells = [(c['cell_type'], ''.join(c['source']), c.get('outputs', []))
             for c in json.loads(path.read_text(encoding='utf8'))['cells']]
    prose = sum(len(s.split()) for t, s, _ in cells if t == 'markdown')
    code = [(s, o) for t, s, o in cells if t == 'code' and not re.match(r'\s*#\|\s*(hide|default_exp)', s)]
    lines = sum(len([l for l in s.split('\n') if l.strip() and not l.startswith('#|')]) for s, _ in code)
    checks = sum(len(re.findall(r'\btest_\w+\(|^\s*assert\b|(?<=: )assert\b', s, re.M)) for s, _ in code)
    exports = 0
    for s, _ in code:
        if not s.startswith('#| export'): continue
        exports += sum(isinstance(n, (ast.FunctionDef, ast.ClassDef))
                       and not n.name.startswith('_') for n in ast.parse(s).body)
    figures = sum('image/png' in o.get('data', {}) for _, outs in code for o in outs)
    return len(cells), prose/max(lines, 1), exports, checks, checks/exports if exports else float(
        'nan'), figures, path.stat().st_size/1e3

print(f"{'notebook':28} {'cells':>5} {'words/line':>10} {'exports':>7} "
      f"{'checks':>6} {'checks/export':>13} {'figures':>7} {'kB':>5}")
for p in sorted(Path('nbs').rglob('*.ipynb')):
    n, words, exports, checks, per, figures, kb = stats(p)
    print(f'{p.stem:28} {n:5} {words:10.1f} {exports:7} {checks:6} {per:13.1f} {figures:7} {kb:5.0f}')
