"""Hiding the targets from the context inside VGGT: two plain attention calls against one call with a dense mask.

    python benchmarks/aggregation.py [--views 4 8 12] [--repeats 3] [--full]

Both forms let context tokens look at context and hidden tokens at everything, and run the same aggregator with the same random weights on the same
views, half of them hidden. The dense form makes a boolean mask of tokens x tokens for each sample anew in every global block, as the official code does
(masked_vggt.py:75,97-105@07e0b60); it is written below in three lines. Without `--full`: width 256, 4 + 4 blocks, 252-pixel views, float32, one CPU
thread, CPU seconds. With `--full`: VGGT-1B's sizes, 518-pixel views, bf16, on a GPU, seconds. Every row has a process of its own, which makes one pass
to warm up; its peak memory is that of the process on a CPU, and what was allocated at most on a GPU.
"""
import argparse, json, tempfile, time
from pathlib import Path
from statistics import median
from fresh import fresh, peak_gb

FORMS = 'dense', 'two calls'

def dense(n_ctx):
    "The same attention as `asymmetric`, by a mask"
    import torch
    import torch.nn.functional as F
    def attend(q, k, v):
        is_ctx = torch.arange(q.shape[-2], device=q.device) < n_ctx
        allowed = (is_ctx[None,:] | ~is_ctx[:,None]).repeat(len(q), 1, 1, 1)
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)
    return attend

def row(form, views, repeats, full, out):
    "Time and memory of one form; its tokens are written to `out`"
    import numpy as np
    import torch
    from spa3r.model import patch_encoder as pe
    from spa3r.util.core import set_seed
    if full and not torch.cuda.is_available(): raise SystemExit('--full needs a GPU: leave it out to measure a small aggregator on the CPU')
    if not full: torch.set_num_threads(1)
    set_seed(0)
    device = 'cuda' if full else 'cpu'
    small = dict(dim=256, depth=4, nh=4, embed='conv', img_size=252, dpt_layers=(0,1,2,3))
    cfg = pe.VGGTConfig(heads=(), **{} if full else small)
    with torch.device(device): net = pe.Aggregator(cfg).eval()
    imgs = torch.rand(1, views, 3, cfg.img_size, cfg.img_size, device=device)
    is_tgt = torch.arange(views, device=device)[None] >= (views+1)//2
    spent = 0.
    def now():
        if full: torch.cuda.synchronize()
        return time.perf_counter() if full else time.process_time()
    plain = pe.asymmetric if form=='two calls' else dense
    def watched(n_ctx):
        f = plain(n_ctx)
        def attend(*qkv):
            nonlocal spent
            t, o = now(), f(*qkv)
            spent += now()-t
            return o
        return attend
    pe.asymmetric = watched
    base, times, inside = peak_gb(), [], []
    if full: torch.cuda.reset_peak_memory_stats()
    for _ in range(repeats+1):
        t, spent = now(), 0.
        with torch.no_grad(), torch.autocast(device, torch.bfloat16, enabled=full): tokens = net(imgs, is_tgt)[-1]
        times.append(now()-t)
        inside.append(spent)
    peak = torch.cuda.max_memory_allocated()/1e9 if full else peak_gb()
    base = sum(p.numel()*p.element_size() for p in net.parameters())/1e9 if full else base
    np.save(out, tokens.float().cpu().numpy())
    return dict(n=views*tokens.shape[2], time=median(times[1:]), attention=median(inside[1:]), peak=peak, added=peak-base)

def compare(views, repeats, full):
    "Print both forms at one number of views, and their ratios"
    import numpy as np
    with tempfile.TemporaryDirectory() as d:
        outs = [str(Path(d)/f'{i}.npy') for i in range(2)]
        rows = [fresh(__file__, '--only', form, '--views', views, '--repeats', repeats, '--out', o, *['--full']*full) for form, o in zip(FORMS, outs)]
        x, y = map(np.load, outs)
    for form, r in zip(FORMS, rows):
        print(f"{views:5} {r['n']:7} {form:10} {r['time']:10.3f} {r['attention']:13.3f} {r['peak']:8.2f} {r['added']:12.3f}")
    a, b = rows
    ratios = ', '.join(f"{k} {b[k]/a[k] if a[k] else float('nan'):.2f}" for k in ('time', 'attention', 'peak', 'added'))
    print(f"      two calls / dense: {ratios}; largest difference {abs(x-y).max():.1e} of tokens up to {abs(x).max():.1f}", flush=True)

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--views', type=int, nargs='+', default=[4, 8, 12], help='numbers of views of the scene')
    p.add_argument('--repeats', type=int, default=3, help='passes to time, after one to warm up')
    p.add_argument('--full', action='store_true', help="VGGT-1B's sizes on a GPU")
    p.add_argument('--only', default='', help='run one form in this process and print it as JSON')
    p.add_argument('--out', default='', help='with --only: file for its tokens')
    a = p.parse_args()
    if a.only: print(json.dumps(row(a.only, a.views[0], a.repeats, a.full, a.out)))
    else:
        print(f"views  tokens form       {'GPU s' if a.full else 'CPU s':>10} {'in attention':>13} {'peak GB':>8} {'of it added':>12}")
        for v in a.views: compare(v, a.repeats, a.full)
