"""A short film of the demo's page, taken in a real browser. Needs Chromium and the extra `dev`.

    python tools/film.py [page.html] [film.gif]        # without a page: that of a generated room
"""
import io, sys, tempfile
from base64 import b64decode
from pathlib import Path
from PIL import Image
root = Path(__file__).resolve().parents[1]
sys.path.append(str(root/'tests'))
from browser import browser
from spa3r.view.page import demo

SCREEN = (1200,980)  # the row of pictures and the scene

def frame(page, width=600):
    "What is on the screen now, small"
    img = Image.open(io.BytesIO(b64decode(page.send('Page.captureScreenshot', format='png')['data']))).convert('RGB')
    return img.resize((width, round(img.height*width/img.width)), Image.LANCZOS)

def acts(page):
    "What happens in the film: turn, look through a camera, walk off where nobody was, ask what is like a patch"
    for _ in range(4): yield 'around(.12, 0)'
    page.eval('go({inside:1})')
    page.wait('!document.body.classList.contains("gliding")')
    yield ''
    for _ in range(6): yield 'fly(.05, .06, 0, .05)'
    yield 'go({inside:0, pose:null})'
    page.wait('!document.body.classList.contains("gliding")')
    yield 'refer("pred", S.cam, Math.floor(n*.6))'
    for _ in range(3): yield 'around(.12, 0)'

def film(page_file, out):
    with browser(size=SCREEN) as p:
        p.open(f'file://{Path(page_file).resolve()}', size=SCREEN)
        p.wait('document.body.dataset.live=="1"', 600)
        frames = [frame(p)]*2
        for js in acts(p):
            if js: p.eval(js+';0')
            p.wait('!live.busy && !document.body.classList.contains("gliding")', 120)
            p.eval('new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))')
            frames.append(frame(p))
    some = frames[::5]+frames[-1:]  # one palette for all, of what is shown all along
    whole = Image.new('RGB', (some[0].width, some[0].height*len(some)))
    for i,f in enumerate(some): whole.paste(f, (0, i*f.height))
    pal = whole.quantize(128)
    small = [f.quantize(palette=pal, dither=Image.Dither.NONE) for f in frames]
    small[0].save(out, save_all=True, append_images=small[1:],
                  duration=[600]+[280]*(len(small)-2)+[1500], loop=0, optimize=True)
    print(f'{out}: {len(small)} frames, {Path(out).stat().st_size/1e6:.2f} MB')

if __name__=='__main__':
    with tempfile.TemporaryDirectory() as d:
        page = sys.argv[1] if len(sys.argv)>1 else demo(out=f'{d}/field.html', rooms=0)
        film(page, sys.argv[2] if len(sys.argv)>2 else root/'nbs'/'images'/'page.gif')
