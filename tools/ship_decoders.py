"""Write the ONNX decoder beside shipped weights, and for those that start from pictures the eyes, so that a page needs no onnx. Needs the extra `onnx`.

    python tools/ship_decoders.py [exact nano]
"""
import sys
from spa3r.view.onnx_decoder import export_decoder, export_eyes
from spa3r.teachers.teachers import WEIGHTS,load_student

for name in sys.argv[1:] or ['exact', 'nano']:
    student, teacher, _ = load_student(name)
    files = [export_decoder(student, WEIGHTS/name/'decoder.onnx')]
    if hasattr(teacher, 'vggt'): files.append(export_eyes(student, teacher.vggt, WEIGHTS/name/'eyes.onnx'))
    print(f'{name}: '+', '.join(f'{f.name} {f.stat().st_size/1e6:.2f} MB' for f in files))
