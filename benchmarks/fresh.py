"Rows of a benchmark that are measured in a process of their own, so that no row sees the memory of another"
import json, resource, subprocess, sys

def fresh(script, *args):
    "What `script` prints as JSON when it is started anew with `args`; start it from a process without torch, whose own peak the child inherits"
    done = subprocess.run([sys.executable, script, *map(str, args)], stdout=subprocess.PIPE, encoding='utf8')
    if done.returncode: raise SystemExit(f"{script} {' '.join(map(str, args))} ended with {done.returncode}")
    return json.loads(done.stdout)

def peak_gb():
    "Most memory that this process has held, GB"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)/1e9
