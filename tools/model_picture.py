"""Draw the whole model with its shapes, from the configurations: python tools/model_picture.py

Writes nbs/images/model-paper.svg and model-nano.svg (the whole), where-*.svg (a small one with one part marked)
and badge-*.svg. `--check` changes nothing and fails when a file differs. Colours follow the reader's light or dark
preference; what is trained, frozen or dropped is told by outlines and words, too.
"""
import sys
from configparser import ConfigParser
from dataclasses import dataclass
from pathlib import Path
from spa3r.model.patch_encoder import VGGTConfig
from spa3r.model.psfm import Spa3RConfig,n_context
from spa3r.data.scenes import view_hw
from spa3r.train.teach_vggt import miniature

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT/'nbs'/'images'
W = 420  # width in pixels, so that a phone shrinks it by little

@dataclass(frozen=True)
class Sizes:
    "What the picture says about one size of the model"
    name:str # In the title
    student:Spa3RConfig # Bottleneck and decoder
    encoder:VGGTConfig # Patch encoder
    hw:tuple # Height and width of a view in pixels
    views:int # Views of a scene
    width:int # Width of the language model
    language:str # Its name
    adapter:str # What becomes of the adapter

    @property
    def shapes(self):
        "Shape of everything that flows, by name"
        h,w = self.hw
        n,vc = h*w//self.encoder.patch**2,n_context(self.views)
        vt,c = self.views-vc,2*self.encoder.dim
        return dict(context=(vc,3,h,w), hidden=(vt,3,h,w),
                    tokens=(self.views,1+self.encoder.n_registers+n,c), features=(vc,n,c),
                    rays=(vt,n,3), latents=(self.student.n_latents,self.student.dim), visual=('n',self.width),
                    **{k:(vt,n,o) for k,o in self.student.channels.items()})

def paper():
    "Spa3R as published: views of ScanNet (1296 x 968 pixels), with Qwen2.5-VL-3B"
    encoder = VGGTConfig()
    hw = view_hw((1296,968), encoder.img_size, encoder.patch)[1],encoder.img_size
    return Sizes("the paper's sizes", Spa3RConfig(), encoder, hw, 12, 2048, 'Qwen2.5-VL-3B', 'trained')

def nano():
    "The weights `nano` and `vlm` of the package"
    encoder = miniature()
    student = Spa3RConfig.nano(geo_channels=2*encoder.dim, teacher='teacher', grid=0)
    return Sizes('the miniature', student, encoder, (encoder.img_size,)*2, 6, 128, 'Qwen2.5-VL, 3 M weights',
                 'vlm appends latents')

STYLE = """<style>
text { font: 12px system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif; fill: #1b1f24; }
.small { font-size: 11px; fill: #4a525c; } .bold { font-weight: 600; }
.mono { font: 11px ui-monospace, Consolas, 'DejaVu Sans Mono', monospace; fill: #4a525c; }
.mid { text-anchor: middle; } .end { text-anchor: end; } .card { fill: #fff; stroke: #d0d7de; } .line { stroke: #59636e; fill: none; stroke-width: 1.3; }
.head { fill: #59636e; } .hatch { stroke: #8a6d3b; stroke-width: 1; }
.trained { fill: #d5e8f7; stroke: #1f6aa5; stroke-width: 2.4; }
.frozen { fill: #eceff2; stroke: #59636e; stroke-width: 1.4; stroke-dasharray: 6 3; }
.dropped { fill: #fdf3dc; stroke: #8a6d3b; stroke-width: 1.4; stroke-dasharray: 1.5 2.5; }
.data { fill: #fff; stroke: #59636e; stroke-width: 1.2; } .here { fill: #b3261e; stroke: #b3261e; }
.here-text { fill: #fff; font-weight: 600; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; } .small, .mono { fill: #b3bcc6; } .card { fill: #161b22; stroke: #3d444d; } .line { stroke: #9da7b1; }
.head { fill: #9da7b1; } .trained { fill: #143a5a; stroke: #6cb6f5; } .frozen { fill: #2a3038; stroke: #9da7b1; }
.dropped { fill: #3a2f16; stroke: #d9b44a; } .hatch { stroke: #d9b44a; } .data { fill: #161b22; stroke: #9da7b1; }
.here { fill: #f28b82; stroke: #f28b82; } .here-text { fill: #1b1f24; }
}
</style>"""
DEFS = """<defs>
<marker id="a" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="7" markerHeight="7" orient="auto"><path class="head" d="M0 0L10 5L0 10z"/></marker>
<pattern id="h" width="7" height="7" patternUnits="userSpaceOnUse" patternTransform="rotate(45)"><path class="hatch" d="M0 0V7" opacity=".35"/></pattern>
</defs>"""

def svg(w, h, title, parts):
    "The file: a card of its own, so that it can be read on any page"
    return '\n'.join(
        [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img">',
                      f'<title>{title}</title>', STYLE, DEFS,
                      f'<rect class="card" x=".5" y=".5" width="{w-1}" height="{h-1}" rx="8"/>', *parts, '</svg>', ''])

def text(x, y, s, cls=''):
    return f'<text x="{x}" y="{y}" class="{cls}">{s}</text>'

def arrow(*points):
    "Through the points, with a head at the last"
    return f'<path class="line" marker-end="url(#a)" d="M{"L".join(f"{x} {y}" for x,y in points)}"/>'

def line(*points):
    return arrow(*points).replace(' marker-end="url(#a)"', '')

def box(x, y, w, h, lines, kind):
    "A part of the model: outline by kind, the first line bold"
    out = [f'<rect class="{kind.split()[0]}" x="{x}" y="{y}" width="{w}" height="{h}" rx="6"/>']
    if 'dropped' in kind: out.append(f'<rect x="{x}" y="{y}" width="{w}" height="{h}" rx="6" fill="url(#h)"/>')
    top = y+h/2-7*len(lines)+11
    return out+[text(x+w/2, top+14*i, s, 'mid '+('small' if i else 'bold')) for i,s in enumerate(lines)]

def stack(x, y):
    "Three pictures"
    return [f'<rect class="data" x="{x+7*i}" y="{y+5*i}" width="26" height="20" rx="2"/>' for i in range(3)]

def shape(t): return ' × '.join(map(str, t))

def learning(s, t):
    "Upper half: predict the features of hidden views"
    sem = 'sem' in t
    feats = f"{t['geo'][1]} × ({t['geo'][2]} + {t['sem'][2]})" if sem else shape(t['geo'][1:])
    return [text(12, 22, '1  Predict hidden views (PSFM)', 'bold'), text(408, 22, s.name, 'small end'),
        *stack(14, 34), text(66, 44, 'context views'), text(66, 59, shape(t['context']), 'mono'),
        *stack(224, 34), text(276, 44, 'hidden views'), text(276, 59, shape(t['hidden']), 'mono'),
        arrow((30,68), (30,84)), arrow((240,68), (240,84)),
        *box(12, 86, 256 if sem else 396, 44,
             ['patch encoder (VGGT)', 'frozen · context never sees hidden views'], 'frozen'),
        *([arrow((350,68), (350,84)), *box(280, 86, 128, 44, ['DINOv3', 'frozen, then dropped', 'views at 224 × 224'], 'frozen dropped'),
           line((256,132), (256,142), (390,142))] if sem else []),
        text(12, 148, f"tokens {shape(t['tokens'])}", 'mono'),
        arrow((84,154), (84,186)), text(92, 166, 'features'), text(92, 180, shape(t['features']), 'mono'),
        arrow((232,132), (232,186)), text(238, 166, 'cameras → rays'), text(238, 180, shape(t['rays']), 'mono'),
        *box(12, 188, 144, 46, ['latent bottleneck', 'trained, then frozen'], 'trained'),
        *box(206, 188, 144, 46, ['field decoder', 'trained, then dropped'], 'trained dropped'),
        arrow((84,236), (84,254)),
        *[f'<rect class="data" x="{24+12*i}" y="256" width="9" height="16" rx="2"/>' for i in range(10)],
        text(32, 289, 'latents'), text(80, 289, shape(t['latents']), 'mono'),
        arrow((144,264), (180,264), (180,211), (204,211)),
        arrow((278,236), (278,266)), text(200, 252, 'predicted'),
        arrow((390,132), (390,266)), text(384, 252, 'true', 'end'),
        *box(206, 268, 202, 40, ['loss: L1 + 1 − cosine', f'a view: {feats}'], 'dropped dropped')]

def language(s, t):
    "Lower half: the latents reach a language model"
    return ['<path class="line" d="M12 322H408" stroke-dasharray="2 4"/>',
        text(32, 342, '2  Ask about a room (Spa3-VLM)', 'bold'),
        arrow((22,274), (22,392)), text(32, 378, 'latents, now of all its views'),
        *stack(346, 350), text(338, 370, 'its views', 'end'),
        arrow((366,382), (366,392)),
        *box(290, 394, 118, 42, ['vision tower', 'frozen'], 'frozen'),
        *box(12, 394, 144, 42, ['adapter', s.adapter], 'trained'),
        arrow((288,415), (158,415)), text(222, 408, 'visual tokens', 'mid'),
        text(222, 430, shape(t['visual']), 'mono mid'),
        arrow((84,438), (84,460)), text(92, 453, f"as many tokens, {s.width} wide", 'small'),
        *box(12, 462, 276, 42, ['language model', f'trained · {s.language}'], 'trained'),
        arrow((352,483), (290,483)), text(356, 487, 'question'),
        arrow((150,506), (150,524)), text(158, 522, 'answer')]

def legend(y):
    "Outlines and what they mean"
    return [f'<path class="line" d="M12 {y}H408" stroke-dasharray="2 4"/>',
        *(o for x,kind,name in ((12,'trained','trained'), (112,'frozen','frozen'),
                                (206,'dropped dropped','needed for training only'))
          for o in (*box(x, y+10, 26, 16, [], kind), text(x+33, y+22, name)))]

def whole(s):
    "The model from pictures to answer"
    title = (f'The whole model, {s.name}: '
             'views become tokens in a frozen patch encoder, features of context views become '
             f'{s.student.n_latents} latents in a trained bottleneck, '
             'a decoder predicts the features of hidden views from latents and rays; '
             'afterwards latents reach a language model through an adapter')
    return svg(W, 570, title, learning(s, s.shapes)+language(s, s.shapes)+legend(534))

def training(s):
    "The upper half alone"
    title = ('One pass of the frozen patch encoder over all views gives features and cameras; '
             'the bottleneck makes latents of the context '
             'views, the decoder predicts the features of hidden views from latents and rays, and the loss compares')
    return svg(W, 358, title, learning(s, s.shapes)+legend(322))

PARTS = {'photos':(0,0,['photos']), 'patch-encoder':(1,0,['patch','encoder']),
         'latent-bottleneck':(2,0,['latent','bottleneck']),
         'field-decoder':(3,0,['field','decoder']), 'psfm':(4,0,['PSFM','loss']), 'prope':(3,1,['rays and','PRoPE']),
         'adapter':(2,1,['adapter']), 'language':(1,1,['language','model'])}
HERE = {'tour':tuple(PARTS), **{k:(k,) for k in PARTS if k not in ('photos','language')},
        'attention':tuple(k for k in PARTS if k not in ('photos','psfm'))}

def where(marked):
    "A small map with the parts `marked` filled"
    out = [arrow((77+80*i,31), (87+80*i,31)) for i in range(4)]
    out += [arrow((285,70), (285,52)), arrow((205,50), (205,68)), arrow((167,89), (157,89))]
    for k,(col,row,lines) in PARTS.items():
        x,y,here = 11+80*col,12+58*row,k in marked
        out += [f'<rect class="{"here" if here else "data"}" x="{x}" y="{y}" width="66" height="38" rx="6"/>']
        out += [text(x+33, y+23.5-7*(len(lines)-1)+14*i, s, f'mid small{" here-text" if here else ""}')
                for i,s in enumerate(lines)]
    here = 'all of it' if len(marked)==len(PARTS) else ', '.join(' '.join(PARTS[k][2]) for k in marked)
    return svg(408, 120, f'Where you are in the model: {here}', out)

def badge(left, right):
    "Two words on a plate; drawn here, so that no page asks another machine for it"
    a,b = 7*len(left)+14,7*len(right)+14
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{a+b}" '
            f'height="20" role="img"><title>{left}: {right}</title>'
            f'<rect width="{a+b}" height="20" rx="3" fill="#1f6aa5"/><rect '
            f'width="{a}" height="20" rx="3" fill="#444c56"/>'
            '<g fill="#fff" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" text-anchor="middle">'
            f'<text x="{a/2}" y="14">{left}</text><text x="{a+b/2}" y="14">{right}</text></g></svg>\n')

def pictures():
    "Every file by name"
    ini = ConfigParser(delimiters=['='])
    ini.read(ROOT/'settings.ini', encoding='utf8')
    cfg = ini['DEFAULT']
    files = {f'model-{k}':whole(s) for k,s in (('paper',paper()), ('nano',nano()))}
    files['psfm'] = training(paper())
    files |= {f'where-{k}':where(parts) for k,parts in HERE.items()}
    files |= {'badge-colab':badge('Colab', 'open'), 'badge-python':badge('python', f"≥ {cfg['min_python']}"),
              'badge-licence':badge('licence', 'Apache 2.0'), 'badge-paper':badge('arXiv', '2602.21186')}
    return {f'{k}.svg':v for k,v in files.items()}

def main(check=False):
    differ = [k for k,v in pictures().items() if not (IMAGES/k).exists() or (IMAGES/k).read_text(encoding='utf8')!=v]
    for k in () if check else differ: (IMAGES/k).write_text(pictures()[k], encoding='utf8')
    return differ if check else []

if __name__=='__main__':
    bad = main('--check' in sys.argv[1:])
    if bad: sys.exit(f"not in step with the configurations: {', '.join(bad)}; run python tools/model_picture.py")
