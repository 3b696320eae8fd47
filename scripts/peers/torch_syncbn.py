#!/usr/bin/env python3
"""How long PyTorch's batch normalization takes on GPUs, for the shapes that ResNet-50 normalizes.

Prints a line of JSON for each shape, layout, dtype and pass of three rivals of syncbn4j:
  torch_syncbn      SyncBatchNorm. With one process its module falls back to plain batch normalization, so its autograd
                    function is called as the module would in a larger job: all its kernels run, and its collectives go
                    through an NCCL process group, of one rank or of as many as there are replicas.
  torch_batch_norm  F.batch_norm, which synchronizes nothing; of one replica alone.
  torch_copy        Tensor.copy_ within the device.
With --replicas N there are N processes with a GPU each, which share each batch: a time is that of the last of them, and a
copy is of what each has, by all at once.
Calls are timed by CUDA events, `--calls` of them a sample, over sets of tensors that together are larger than the L2
cache (as src/test/java/.../gpu/KernelTimes.java does), and again as a CUDA graph with a call for each set, where PyTorch
can capture it. A result is compared with float64; one that is wrong is printed to stderr instead of its time.
Exit status: 0 all was timed; 1 a result is wrong; 2 there is no torch, or not the device.
"""
import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time

try:
    import torch
    import torch.distributed as dist
    import torch.multiprocessing as processes
    import torch.nn.functional as F
    from torch.nn.modules._functions import SyncBatchNorm
except ImportError as missing:
    print(f"torch_syncbn: {missing}", file=sys.stderr)
    sys.exit(2)

# Channels, side of the picture, and how many of the 53 layers have it.
RESNET50 = [(64, 112, 1), (64, 56, 6), (128, 56, 1), (256, 56, 4), (128, 28, 7), (256, 28, 1), (512, 28, 5),
            (256, 14, 11), (512, 14, 1), (1024, 14, 7), (512, 7, 5), (2048, 7, 4)]
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# Beyond this a result is wrong and not only less exact than it could be.
ALLOWED = {"float32": 1e-4, "bfloat16": 2**-6, "float16": 2**-9}
EPSILON, MOMENTUM = 1e-3, 0.01
WARM_UP = 3


class Clock:
    """Times of work on a stream; on the CPU, which is for trying this script, of the host."""

    def __init__(self, cuda):
        self.cuda = cuda

    def event(self):
        if not self.cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def synchronize(self):
        if self.cuda:
            torch.cuda.synchronize()

    def microseconds(self, begin, end):
        return begin.elapsed_time(end) * 1e3 if self.cuda else (end - begin) * 1e6


class Ranks:
    """The processes that share each batch; this is one of them."""

    def __init__(self, rank, size, device):
        self.rank, self.size, self.device = rank, size, device

    def share(self, images):
        """How many of a batch's images are this rank's."""
        return images * (self.rank + 1) // self.size - images * self.rank // self.size

    def meet(self):
        if self.size > 1:
            dist.barrier()

    def total(self, tensor):
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def most(self, values):
        """Of each of the values the largest; infinite where one is not a number, which a maximum may pass over."""
        if self.size == 1:
            return values
        largest = torch.tensor(values, dtype=torch.float64, device=self.device).nan_to_num(math.inf)
        dist.all_reduce(largest, dist.ReduceOp.MAX)
        return largest.tolist()

    def print(self, *text, **options):
        if self.rank == 0:
            print(*text, flush=True, **options)


def spread(values):
    values = sorted(values)

    def percentile(percent):
        at = (len(values) - 1) * percent / 100
        below = int(at)
        above = min(below + 1, len(values) - 1)
        return values[below] + (at - below) * (values[above] - values[below])

    return {"median_us": percentile(50), "p10_us": percentile(10), "p90_us": percentile(90), "samples": len(values)}


def time_calls(clock, ranks, samples, calls, call):
    times, host, turn = [], [], 0
    for sample in range(-WARM_UP, samples):
        clock.synchronize()
        ranks.meet()
        start = time.perf_counter()
        begin = clock.event()
        for _ in range(calls):
            call(turn)
            turn += 1
        end = clock.event()
        enqueued = time.perf_counter() - start
        clock.synchronize()
        if sample >= 0:
            times.append(clock.microseconds(begin, end) / calls)
            host.append(enqueued * 1e6 / calls)
    return {**spread(ranks.most(times)), "host_us": statistics.median(ranks.most(host))}


def time_graph(clock, ranks, samples, sets, call):
    graph = torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    # Not by torch.cuda.graph, which has a stream of its own: a backward runs where its forward ran.
    graph.capture_begin(capture_error_mode="thread_local")
    try:
        for i in range(sets):
            call(i)
    finally:
        graph.capture_end()
    ranks.meet()
    for _ in range(WARM_UP):
        graph.replay()
    events = [clock.event()]
    for _ in range(samples):
        graph.replay()
        events.append(clock.event())
    clock.synchronize()
    times = [clock.microseconds(a, b) / sets for a, b in zip(events, events[1:])]
    return {**spread(ranks.most(times)), "host_us": None}


def error(got, want):
    """Largest difference, in parts of the largest value; NaN where something is not a number."""
    return ((got.double() - want).abs().max() / want.abs().max()).item()


class Case:
    """Sets of tensors of one shape, layout and dtype, a rank's share, and what float64 says of the last of them."""

    def __init__(self, shape, layout, dtype, sets, device, ranks):
        self.sets, self.ranks = sets, ranks
        self.copy_us = math.inf
        form = torch.channels_last if layout == "channels_last" else torch.contiguous_format

        def tensors(offset):
            return [(torch.randn(shape, device=device) + offset).to(dtype).contiguous(memory_format=form)
                    for _ in range(sets)]

        self.x = [x.requires_grad_() for x in tensors(0.5)]
        self.dy = tensors(0.0)
        self.y = [torch.empty_like(dy) for dy in self.dy]
        self.dx = [None] * sets
        channels = torch.arange(shape[1], device=device, dtype=torch.float32)
        self.weight = (1 + channels.sin() / 4).requires_grad_()
        self.bias = (channels.cos() / 2).requires_grad_()
        self.mean = torch.zeros_like(channels)
        self.variance = torch.ones_like(channels)
        self.channels = sorted({0, shape[1] // 2, shape[1] - 1})
        self.want()

    def sampled(self, tensor):
        return tensor.detach()[:, self.channels].double()

    def want(self):
        def of(parameter):
            return parameter.detach()[self.channels].double().view(1, -1, 1, 1)

        over = (0, 2, 3)

        def mean(values):
            return self.ranks.total(values.sum(over, keepdim=True)) / count

        x, dy = self.sampled(self.x[-1]), self.sampled(self.dy[-1])
        count = self.ranks.total(torch.tensor(x.numel() / x.shape[1], dtype=x.dtype, device=x.device))
        centered = x - mean(x)
        sigma = (mean(centered.square()) + EPSILON).sqrt()
        xhat = centered / sigma
        self.want_y = xhat * of(self.weight) + of(self.bias)
        self.want_dx = of(self.weight) / sigma * (dy - mean(dy) - xhat * mean(dy * xhat))

    def error_of_copy(self):
        return error(self.sampled(self.y[-1]), self.sampled(self.x[-1]))

    def error_of_y(self):
        return error(self.sampled(self.y[-1]), self.want_y)

    def error_of_dx(self):
        return error(self.sampled(self.dx[-1]), self.want_dx)


def rivals(case, group):
    """Name and forward, from x to y, of what is timed."""
    if group is not None:
        yield "torch_syncbn", lambda x: SyncBatchNorm.apply(
            x, case.weight, case.bias, case.mean, case.variance, EPSILON, MOMENTUM, group, case.ranks.size)
    if case.ranks.size == 1:
        yield "torch_batch_norm", lambda x: F.batch_norm(
            x, case.mean, case.variance, case.weight, case.bias, True, MOMENTUM, EPSILON)


class Report:
    def __init__(self, options, device, ranks):
        self.options, self.device, self.clock, self.wrong = options, device, Clock(device == "cuda"), False
        self.ranks = ranks
        self.totals = {}  # microseconds of all 53 layers

    def measure(self, case, head, impl, name, call, check, allowed):
        """Times by calls and by graph; a copy is the fastest way to make one."""
        ways = [("calls", lambda: time_calls(self.clock, self.ranks, self.options.samples, self.options.calls,
                                             lambda turn: call(turn % case.sets)))]
        if self.device == "cuda":
            ways.append(("graph", lambda: time_graph(self.clock, self.ranks, self.options.samples, case.sets, call)))
        for way, timed in ways:
            try:
                case_times = timed()
            except RuntimeError as refused:  # what cannot be captured
                if way == "calls":
                    raise
                text = str(refused).splitlines()[0]
                self.ranks.print(f"torch_syncbn: {impl} {name} {head['shape']} not timed by {way}: {text}",
                                 file=sys.stderr)
                torch.cuda.synchronize()
                continue
            if way == "calls":
                call(case.sets - 1)  # the set that is looked at may not have had its turn
            found = self.ranks.most([check()])[0]
            if not found <= allowed:
                self.wrong = True
                self.ranks.print(f"WRONG {impl} {name} {head}: an error of {found:.3g}, {allowed:.3g} is allowed",
                                 file=sys.stderr)
                continue
            if impl == "torch_copy":
                case.copy_us = min(case.copy_us, case_times["median_us"])
            total = " ".join([head["layout"], head["dtype"], str(head["shape"][0]), "images,", impl, name, "by", way])
            self.totals[total] = self.totals.get(total, 0) + head.get("layers", 1) * case_times["median_us"]
            case_times = {key: round(value, 4) if isinstance(value, float) else value
                          for key, value in case_times.items()}
            self.ranks.print(json.dumps({**head, "pass": name, "measured": way, "impl": impl, **case_times,
                                         "copies": round(case_times["median_us"] / case.copy_us, 4),
                                         "max_error": found}))

    def run(self, case, head, group, dtype):
        with torch.no_grad():
            self.measure(case, head, "torch_copy", "copy", lambda i: case.y[i].copy_(case.x[i]), case.error_of_copy, 0)
        for impl, normalize in rivals(case, group):
            def forward(i):
                case.y[i] = normalize(case.x[i])

            def backward(i):
                case.dx[i] = torch.autograd.grad(case.y[i], (case.x[i], case.weight, case.bias), case.dy[i],
                                                 retain_graph=True)[0]

            self.measure(case, head, impl, "forward", forward, case.error_of_y, ALLOWED[dtype])
            for i in range(case.sets):
                forward(i)
            self.measure(case, head, impl, "backward", backward, case.error_of_dx, ALLOWED[dtype])


def raise_clocks():
    """An idle GPU's clocks are low, and rise with the work."""
    memory, start = torch.empty(2**26, device="cuda"), time.perf_counter()
    while time.perf_counter() - start < 1:
        memory.zero_()
        torch.cuda.synchronize()


def batches(text):
    """Pairs of images and the dtype that they are taken in; None: in all."""
    pairs = [(batch.lower().split("/") + [None])[:2] for batch in text.split(",")]
    return [(int(images), dtype) for images, dtype in pairs]


def resnet50(options):
    """What is timed unless cases are given."""
    for dtype in DTYPES:
        for layout in ("channels_last", "channels_first"):
            for images, only in options.images:
                for channels, side, layers in RESNET50:
                    if only in (None, dtype):
                        side = side if options.divide == 1 else max(2, side // options.divide)
                        yield {"suite": "resnet50", "layer": f"{channels}x{side}x{side}", "layers": layers,
                               "shape": (images, channels, side, side), "layout": layout, "dtype": dtype, "cold": True}


def given_cases():
    """As `syncbn bench` gives them."""
    return [json.loads(line) for line in sys.stdin if line.strip()]


def run(rank, options, heads, store):
    """What one process does; ends it.

    :param store: a file by which the processes find each other, not there yet
    """
    cuda = options.device == "cuda"
    ranks = Ranks(rank, options.replicas, options.device)
    torch.manual_seed(rank)
    group, rotate = None, max(options.rotate, 0)
    if cuda:
        torch.cuda.set_device(rank)
        torch.cuda.set_stream(torch.cuda.Stream())  # the default stream cannot be captured
        if options.rotate < 0:
            rotate = 4 * torch.cuda.get_device_properties(rank).L2_cache_size
        raise_clocks()
        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        dist.init_process_group("nccl", device_id=torch.device("cuda", rank), rank=rank, world_size=options.replicas,
                                store=dist.FileStore(store, options.replicas))
        group = dist.group.WORLD
    report = Report(options, options.device, ranks)
    for head in heads:
        dtype = DTYPES[head["dtype"]]
        images, *image = head["shape"]
        size = images // ranks.size * math.prod(image) * dtype.itemsize  # of the smallest share
        head["cold"] = head["cold"] and rotate > 0
        sets = max(2, -(-rotate // size)) if head["cold"] else 1
        case = Case((ranks.share(images), *image), head["layout"], dtype, sets, options.device, ranks)
        head = {"figure": "time", **head, "replicas": ranks.size, "threads": 1,
                "device": "gpu" if cuda else "cpu", "sets": sets, "torch": torch.__version__}
        report.run(case, head, group, head["dtype"])
    if not report.wrong:
        for total, microseconds in report.totals.items():
            ranks.print(f"# {total}: {microseconds / 1e3:.3f} ms")
    if group is not None:
        ranks.meet()  # the first that ends in failure has the others ended: rank 0 has to have printed
        dist.destroy_process_group()
    sys.exit(1 if report.wrong else 0)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=batches, default="16,32/bfloat16,4/bfloat16",
                        help="with commas between; 32/bfloat16: in this dtype only")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--calls", type=int, default=64, help="that make a sample")
    parser.add_argument("--divide", type=int, default=1, help="the pictures' sides by this")
    parser.add_argument("--rotate", type=int, default=-1, help="bytes of all sets; -1: four times the L2 cache")
    parser.add_argument("--replicas", type=int, default=1, help="that share each batch, a GPU each")
    parser.add_argument("--cases", action="store_true",
                        help="not ResNet-50's: from stdin, JSON lines with suite, shape, layout, dtype, cold and more")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("torch_syncbn: torch sees no GPU", file=sys.stderr)
        sys.exit(2)
    if options.replicas > (torch.cuda.device_count() if options.device == "cuda" else 1):
        print(f"torch_syncbn: --replicas is {options.replicas}, but torch sees {torch.cuda.device_count()} GPU(s)",
              file=sys.stderr)
        sys.exit(2)
    heads = list(given_cases() if options.cases else resnet50(options))
    fewest = min((head["shape"][0] for head in heads), default=1)
    if not 1 <= options.replicas <= fewest:
        print(f"torch_syncbn: --replicas is {options.replicas}, allowed is 1 to {fewest}, the images of a batch",
              file=sys.stderr)
        sys.exit(2)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (options, heads, os.path.join(folder, "store"))
        if options.replicas == 1:
            run(0, *arguments)
        try:
            processes.spawn(run, arguments, options.replicas)
        except processes.ProcessExitedException as ended:
            sys.exit(ended.exit_code)


if __name__ == "__main__":
    main()
