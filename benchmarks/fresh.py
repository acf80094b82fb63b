"Rows of a benchmark that are measured in a process of their own, so that no row sees the memory of another"
import json, os, resource, subprocess, sys

def fresh(script, *args, **env):
    "What `script` prints as JSON when it is started anew with `args` and `env` in its environment; start it from a process without torch, whose own peak the child inherits"
    done = subprocess.run([sys.executable, script, *map(str, args)], stdout=subprocess.PIPE, text=True, env=os.environ|env)
    if done.returncode: raise SystemExit(f"{script} {' '.join(map(str, args))} ended with {done.returncode}")
    return json.loads(done.stdout)

def peak_gb():
    "Most memory that this process has held, GB"
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss*(1 if sys.platform=='darwin' else 1024)/1e9
