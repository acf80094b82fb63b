"Everything about the package is in settings.ini; this file hands it to setuptools"
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'], license='Apache-2.0',
    long_description=(here/'README.md').read_text(encoding='utf8'), long_description_content_type='text/markdown',
    package_dir={'': '.'},  # an editable install puts this folder on Python's path: nbdev finds tools/docs.py there
    packages=find_packages(include=['spa3r', 'spa3r.*']), include_package_data=True,
    package_data={'spa3r': ['weights/**/*.json', 'weights/**/*.safetensors', 'weights/**/*.md', 'weights/**/*.onnx', 'web/*', '*.js', '*.json', '*.html', '*.css']},
    python_requires='>=' + cfg['min_python'], install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['spa3r=spa3r._modidx:d'],
                  'lmms_eval.models': ['spa3r=spa3r.lmms:manifest']},
    zip_safe=False)
