"Everything about the package is in settings.ini; this file hands it to setuptools"
import re
from configparser import ConfigParser
from pathlib import Path
from setuptools import find_packages, setup

here = Path(__file__).parent
ini = ConfigParser(delimiters=['='])
ini.read(here/'settings.ini', encoding='utf8')
cfg = ini['DEFAULT']
extras = {k.removesuffix('_requirements'): v.split() for k,v in cfg.items() if k.endswith('_requirements')}
url,raw = f"{cfg['git_url']}/blob/{cfg['branch']}/",f"{cfg['git_url']}/raw/{cfg['branch']}/"

def readme():
    "README.md for a page that has no files beside it: links and pictures by their full addresses"
    md = (here/'README.md').read_text(encoding='utf8')
    md = re.sub(r'(!\[[^\]]*\]\(|src=")(?![a-z]+:|#)', rf'\g<1>{raw}', md)
    return re.sub(r'(\]\(|href=")(?![a-z]+:|#)', rf'\g<1>{url}', md)

setup(
    name=cfg['lib_name'], version=cfg['version'], description=cfg['description'], keywords=cfg['keywords'].split(),
    author=cfg['author'], author_email=cfg['author_email'], url=cfg['git_url'],
    project_urls={'Documentation': cfg['doc_host']+cfg['doc_baseurl'], 'Changelog': url+'CHANGELOG.md', 'Issues': cfg['git_url']+'/issues', 'Paper': 'https://arxiv.org/abs/2602.21186'},
    # three.js and onnxruntime-web in spa3r/web are under the MIT licence
    license_expression='Apache-2.0 AND MIT', license_files=['LICENSE', 'spa3r/web/*LICENSE', 'spa3r/web/*Notices*'],
    classifiers=['Development Status :: 4 - Beta', 'Intended Audience :: Science/Research', 'Intended Audience :: Education', 'Operating System :: OS Independent',
                 *(f'Programming Language :: Python :: {v}' for v in ('3', '3.11', '3.12', '3.13', '3.14')),
                 'Framework :: Jupyter', 'Topic :: Scientific/Engineering :: Artificial Intelligence', 'Topic :: Scientific/Engineering :: Image Recognition'],
    long_description=readme(), long_description_content_type='text/markdown',
    package_dir={'': '.'},  # an editable install puts this folder on Python's path: nbdev finds tools/docs.py there
    packages=find_packages(include=['spa3r', 'spa3r.*']),
    package_data={'spa3r': ['weights/**/*', 'web/*', '**/*.json', '**/*.html']},
    python_requires='>=' + cfg['min_python'], install_requires=cfg['requirements'].split(), extras_require=extras,
    entry_points={'console_scripts': cfg['console_scripts'].split(), 'nbdev': ['spa3r=spa3r._modidx:d'],
                  'lmms_eval.models': ['spa3r=spa3r.bench.evaluate:manifest']},
    zip_safe=False)
