"Note which files of weights are meant to ship: python tools/checksums.py"
import hashlib
from pathlib import Path

ROOT = Path(__file__).parent.parent
files = sorted(p for p in (ROOT/'spa3r'/'weights').rglob('*') if p.is_file())
(ROOT/'tests'/'weights.sha256').write_text(''.join(f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(ROOT/'spa3r'/'weights').as_posix()}\n" for p in files))
