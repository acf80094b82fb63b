"Note which weights are meant to ship, and which numbers were recorded: python tools/checksums.py"
import hashlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
for name,folder in (('weights', ROOT/'spa3r'/'weights'), ('golden', ROOT/'tests'/'golden')):
    files = sorted(p for p in folder.rglob('*') if p.is_file())
    (ROOT/'tests'/f'{name}.sha256').write_text(
        ''.join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files), encoding='utf8')
