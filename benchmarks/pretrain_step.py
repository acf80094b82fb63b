"""The pre-training step at full size on one GPU: images a second, memory, share of the machine's own matmul rate, and where the time goes.

    python benchmarks/pretrain_step.py [--views 12] [--repeats 5] [--compile] [--checkpointing] [--nano] [--json]

VGGT-1B (camera and depth heads, matrices of the aggregator in bf16, frozen) looks at 24 images of 518 x 518, half of them hidden; the paper's student
encodes the context and decodes the hidden views, forward and backward, under bf16 autocast. All weights and images are random. There is no semantic
teacher, no optimiser step (the paper takes one for 384 images) and no reading of data (`loader.py` measures that). Operations are counted by torch's
FlopCounterMode (matrix products, convolutions, attention; activations that are computed again count again), and the rate of a large matrix product in
the same precision is measured in the same run. `--nano` is the laptop's model and 12 images of 112 x 112 in float32 on one CPU thread, in CPU seconds.
"""
import argparse, json, time
from statistics import median
import torch
from fresh import peak_gb
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count
from spa3r.util.core import set_seed
from spa3r.model.patch_encoder import VGGT, VGGTConfig
from spa3r.model.psfm import Spa3R, Spa3RConfig, draw_targets, psfm_loss
from spa3r.teachers.teachers import VGGTTeacher
from spa3r.train.loop import Task, TrainConfig, accelerator, compile_blocks, spread
from spa3r.data.batches import Views

aten = torch.ops.aten
ON_CPU = {  # attention there has no formula in torch
    aten._scaled_dot_product_flash_attention_for_cpu: lambda q, k, v, *_, **kw: sdpa_flop_count(q, k, v),
    aten._scaled_dot_product_flash_attention_for_cpu_backward: lambda grad, q, k, v, *_, **kw: sdpa_backward_flop_count(grad, q, k, v)}

def clock(device):
    "Seconds: of the GPU's work, or of this process on a CPU"
    if device=='cpu': return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()

def matmul_rate(device, n, repeats=5):
    "Operations a second of one large matrix product"
    x = torch.randn(n, n, device=device, dtype=torch.float32 if device=='cpu' else torch.bfloat16)
    times = []
    for _ in range(repeats+1):
        t = clock(device)
        for _ in range(4): x@x
        times.append((clock(device)-t)/4)
    return 2*n**3/median(times[1:])

class Step:
    "The frozen teacher, the student and a batch of random images"
    def __init__(self, a, device):
        heads = dict(heads=('camera', 'depth'))
        vggt, size = (VGGTConfig.nano, Spa3RConfig.nano) if a.nano else (VGGTConfig, Spa3RConfig)
        with torch.device(device): net = VGGT(vggt(**heads))
        self.teacher = VGGTTeacher(net, dtype=torch.float32 if a.nano else torch.bfloat16)
        if a.compile: compile_blocks(self.teacher)
        self.student = Spa3R(size(geo_channels=self.teacher.channels['geo'], sem_channels=0)).to(device)
        task = Task(self.student, lambda m, obs: psfm_loss(m, obs), bf16=not a.nano)
        self.task = spread(task, TrainConfig(compile=a.compile, checkpointing=a.checkpointing), accelerator(device))
        n, side = (12 if a.nano else 24)//a.views, net.cfg.img_size
        self.views, self.is_tgt = Views(torch.rand(n, a.views, 3, side, side, device=device)), draw_targets(n, a.views)
        self.images = n*a.views
    def __call__(self):
        self.student.zero_grad(set_to_none=True)
        self.task(self.teacher.observe(self.views, self.is_tgt))['loss'].backward()
    @property
    def parts(self):
        "Name -> module, of what is run once in a forward pass"
        net, s = self.teacher.vggt, self.student
        return {'teacher: aggregator': net.aggregator, 'teacher: camera head': net.camera_head, 'teacher: depth head': net.depth_head,
                'student: bottleneck': s.bottleneck, 'student: field': s.field}

def by_part(step, meter):
    "How much `meter` rises in each part of one step, and in the rest: mostly the backward pass"
    got, start = {}, {}
    hooks = []
    for k, m in step.parts.items():
        hooks.append(m.register_forward_pre_hook(lambda *_, k=k: start.update({k: meter()})))
        hooks.append(m.register_forward_hook(lambda *_, k=k: got.update({k: got.get(k, 0)+meter()-start[k]})))
    t = meter()
    step()
    total = meter()-t
    for h in hooks: h.remove()
    return got | {'backward and the rest': total-sum(got.values())}

def kernels(step, device, n=8):
    "The operations that take most time, as shares of all"
    acts = [ProfilerActivity.CPU]+[ProfilerActivity.CUDA]*(device=='cuda')
    with profile(activities=acts) as prof: step()
    where,own = (DeviceType.CPU,lambda e: e.self_cpu_time_total) if device=='cpu' else (DeviceType.CUDA,lambda e: e.self_device_time_total)
    rows = sorted((e for e in prof.key_averages() if e.device_type==where), key=own, reverse=True)  # an operator counts the kernels that it starts, too
    return [(e.key[:80], own(e)/sum(map(own, rows)), e.count) for e in rows[:n]]

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--views', type=int, default=12, help='views of a scene; as many scenes as 24 images give')
    p.add_argument('--repeats', type=int, default=5, help='steps to time, after two to warm up')
    p.add_argument('--compile', action='store_true', help="compile the blocks of teacher and student")
    p.add_argument('--checkpointing', action='store_true', help="keep no activations inside the student's blocks")
    p.add_argument('--nano', action='store_true', help='a small step on the CPU')
    p.add_argument('--json', action='store_true', help='say the figures as a line of JSON, too')
    a = p.parse_args()
    if not a.nano and not torch.cuda.is_available(): raise SystemExit('the full-size step needs a GPU; --nano runs a small one on the CPU')
    if not 2<=a.views<=(12 if a.nano else 24): raise SystemExit(f'{a.views} views: at least 2, and no more than there are images')
    device = 'cpu' if a.nano else 'cuda'
    torch.set_num_threads(1)
    set_seed(0)
    rate, step, times = matmul_rate(device, 512 if a.nano else 8192), Step(a, device), []
    for _ in range(2): step()
    for _ in range(a.repeats):
        t = clock(device)
        step()
        times.append(clock(device)-t)
    peak = peak_gb() if a.nano else torch.cuda.max_memory_allocated()/1e9
    with FlopCounterMode(display=False, custom_mapping=ON_CPU) as flops: ops = by_part(step, flops.get_total_flops)
    secs, t, total = by_part(step, lambda: clock(device)), median(times), sum(ops.values())
    print(f"{'one CPU thread' if a.nano else torch.cuda.get_device_name()}: {step.images} images, {a.views} views of a scene, median of {a.repeats} steps")
    print(f"{step.images/t:.1f} images a {'CPU-' if a.nano else ''}second ({t:.3f} s a step), peak memory {peak:.2f} GB")
    print(f"{total/1e12:.3f}e12 operations a step, {total/t/1e12:.3f}e12 a second: {total/t/rate:.2f} of the matmul rate of {rate/1e12:.3f}e12")
    print(f"\n{'part':24} {'seconds':>9} {'share':>6} {'operations':>11} {'of matmul rate':>15}")
    for k, s in secs.items(): print(f"{k:24} {s:9.4f} {s/sum(secs.values()):6.2f} {ops[k]/total:11.2f} {ops[k]/s/rate:15.2f}")
    print(f"\n{'time in kernels':80} {'share':>6} {'calls':>6}")
    for k, share, n in kernels(step, device): print(f"{k:80} {share:6.2f} {n:6}")
    if a.json: print('RESULT', json.dumps(dict(views=a.views, compiled=a.compile, images_a_second=round(step.images/t, 2), seconds=round(t, 4), peak_gb=round(peak, 2),
        of_matmul_rate=round(total/t/rate, 3), parts={k:round(s/sum(secs.values()), 3) for k, s in secs.items()})))
