"All bad input is handled: one line, and nothing lost"
import os,subprocess,sys
from pathlib import Path
import pytest

@pytest.mark.skipif(os.name=='nt', reason='pipes and alarms')
def test_all_of_it_is_handled():
    r = subprocess.run([sys.executable, Path(__file__).with_name('hostile.py')], capture_output=True, text=True)
    print(r.stdout)
    tried,handled = map(int, r.stdout.splitlines()[-1].split(' handled')[0].replace('tried /', '').split())
    assert handled==tried>200 and r.returncode==0, r.stdout[-6000:]+r.stderr[-2000:]
