"Scores answers by lmms-eval's own path, evaluator included, in an environment that has it: python lmms_driver.py answers.json"
import json,os,sys,tempfile,warnings
from importlib.metadata import version
from pathlib import Path
os.environ |= dict(HF_HUB_OFFLINE='1', HF_DATASETS_OFFLINE='1', CUDA_VISIBLE_DEVICES='')
import lmms_eval.__main__ as main
from lmms_eval import evaluator
from lmms_eval.api.model import lmms
from lmms_eval.tasks import TaskManager
rows = json.loads(Path(sys.argv[1]).read_text(encoding='utf8'))
TASK = '''task: odd
dataset_path: json
dataset_kwargs:
  data_files:
    test: {d}/test.jsonl
test_split: test
output_type: generate_until
doc_to_visual: !function utils.no_visual
doc_to_text: !function utils.text
doc_to_target: ground_truth
generation_kwargs:
  max_new_tokens: 16
process_results: !function utils.one
metric_list:
  - metric: score
    aggregation: !function utils.mean
    higher_is_better: true
'''
UTILS = '''from lmms_eval.tasks.vsibench.utils import *
def no_visual(doc): return []
def text(doc, lmms_eval_specific_kwargs=None): return 'Q?'
def one(doc, results):
    out = vsibench_process_results(doc, results)['vsibench_overall']
    return dict(score=float(out['accuracy'] if out['question_type'] in MCA_QUESTION_TYPES else out['MRA:.5:.95:.05']))
def mean(xs): return sum(xs)/len(xs)
'''
class Says(lmms):
    def __init__(self): super().__init__()
    def generate_until(self, requests): return [rows[r.args[3]]['answer'] for r in requests]
    def loglikelihood(self, requests): raise NotImplementedError
    def generate_until_multi_round(self, requests): raise NotImplementedError
with tempfile.TemporaryDirectory() as d:
    os.environ['HF_HOME'] = d
    d = Path(d)
    (d/'test.jsonl').write_text(''.join(json.dumps(dict(id=i, question_type=r['question_type'], ground_truth=r['ground_truth'])) + '\n' for i,r in enumerate(rows)), encoding='utf8')
    (d/'odd.yaml').write_text(TASK.format(d=d), encoding='utf8')
    (d/'utils.py').write_text(UTILS, encoding='utf8')
    sys.argv = ['lmms_eval','--model','says','--tasks','odd']
    args = main.parse_eval_args()[-1]
    got = evaluator.simple_evaluate(model=Says(), tasks=['odd'], task_manager=TaskManager(include_path=str(d), include_defaults=False), cli_args=args, log_samples=True, bootstrap_iters=0, batch_size=1, device='cpu')
    out = {s['doc_id']:s['score'] for s in got['samples']['odd']}
print('VERSION', version('lmms_eval'))
print('SCORES', json.dumps([out[i] for i in range(len(rows))]))
