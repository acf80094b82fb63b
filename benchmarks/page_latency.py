"From moving the camera to the painted prediction, in the demo's page in headless Chromium: python benchmarks/page_latency.py --help"
import os, sys, tempfile, time
from pathlib import Path
from fastcore.script import call_parse
from spa3r.view.page import demo
sys.path.append(str(Path(__file__).parent.parent/'tests'))
from browser import browser

@call_parse
def main(
    weights:str='nano', # Weights whose decoder runs in the page
    cameras:int=60, # Cameras to decode, one after another
):
    "Milliseconds to decode a camera in the page, with the 3D view (drawn by the processor, as there is no GPU in headless Chromium) and without"
    with tempfile.TemporaryDirectory() as d:
        file = demo(weights=weights, out=f'{d}/field.html', rooms=0)
        for webgl in (True,False):
            with browser(webgl) as p:
                t = time.perf_counter()
                p.open(f'file://{file}')
                p.wait('document.body.dataset.live=="1"')
                t = time.perf_counter()-t
                for _ in range(cameras):
                    k = p.eval('live.count')
                    p.eval('fly(.004, .004, 0, .02)')
                    p.wait(f'live.count>{k} && !live.busy')
                whole,inner = (sorted(p.eval(f'live.{k}')) for k in ('times','inner'))
                pick = lambda x: f'best {x[0]:.0f}, median {x[len(x)//2]:.0f}, one in ten above {x[int(len(x)*.9)]:.0f} ms'
                print(f"{weights}, {'with' if webgl else 'without'} 3D view: {pick(whole)}; of it the decoder {pick(inner)}; ready after {t:.1f} s, off by {p.eval('live.diff'):.0e}; load {os.getloadavg()[0]:.1f}")
