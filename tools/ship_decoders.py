"""Write the ONNX decoder beside shipped weights, so that a page can decode without onnx being installed. Needs the extra `onnx`.

    python tools/ship_decoders.py [exact nano]
"""
import sys
from spa3r.onnx_decoder import export_decoder
from spa3r.probes import WEIGHTS, load_student

for name in sys.argv[1:] or ['exact', 'nano']:
    file = export_decoder(load_student(name)[0], WEIGHTS/name/'decoder.onnx')
    print(f'{name}: {file.stat().st_size/1e6:.2f} MB')
