"""What data, clocks and the load before do to matrix products on an NVIDIA GPU, by type.

    python benchmarks/precision_power.py h200_precision_power.json

Needs an NVIDIA GPU with fp8 and PyTorch for it; without NVML no clocks and no power. Takes
48 s on an H200. What 165 s have no time for is named in the file, as is what this PyTorch or GPU
refuses. Weights are cold: products take distinct ones in turn, 400 MB of them, inside a CUDA graph
of about a millisecond. Rows: workloads/experiments/h200_precision_power.md.
"""

import argparse
import ctypes
import itertools
import json
import math
import statistics
import sys
import tempfile
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

LIMIT_S = 165.0
WEIGHTS_B = 400e6
GROUP = 128  # weights of 4 bits that share a scale
SPIN_CYCLES = 400_000
COUNTED, SETTLING = 20, 2  # replays of a burst, and those before them that do not count
E4M3, E5M2, BF16 = torch.float8_e4m3fn, torch.float8_e5m2, torch.bfloat16
BIG, MIDDLE = (4096, 8192, 8192), (4096, 4096, 4096)

# What NVML is asked, in which type it answers, and how many of that are one of the unit.
READINGS = {
    "mhz": ("nvmlDeviceGetClockInfo", ctypes.c_uint, 1, ctypes.c_uint(1)),  # of the units
    "watts": ("nvmlDeviceGetPowerUsage", ctypes.c_uint, 1e3),
    "degrees": ("nvmlDeviceGetTemperature", ctypes.c_uint, 1, ctypes.c_uint(0)),  # [°C]
    "joules": ("nvmlDeviceGetTotalEnergyConsumption", ctypes.c_ulonglong, 1e3),  # so far
    # bits of what holds the clock down; 4 is the power limit
    "reasons": ("nvmlDeviceGetCurrentClocksThrottleReasons", ctypes.c_ulonglong, 1),
}


class Board:
    """What NVML says of the first GPU; None where it says nothing."""

    def __init__(self):
        self.device, device = None, ctypes.c_void_p()
        try:
            self.nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        find = self.nvml.nvmlDeviceGetHandleByIndex_v2
        if self.nvml.nvmlInit_v2() == 0 and find(0, ctypes.byref(device)) == 0:
            self.device = device

    def read(self, name):
        if self.device is None:
            return None
        function, kind, parts, *more = READINGS[name]
        value = kind()
        if getattr(self.nvml, function)(self.device, *more, ctypes.byref(value)):
            return None
        return value.value if parts == 1 else value.value / parts


def numbers(data, rows, columns):
    """Return a bfloat16 matrix of such data."""
    if data == "ints":
        return torch.randint(-2, 3, (rows, columns), device="cuda").to(BF16)
    make = {"randn": torch.randn, "zeros": torch.zeros, "ones": torch.ones}[data]
    return make(rows, columns, device="cuda", dtype=BF16)


def copies(n, k, item_b):
    """Return how many weights to take in turn."""
    return max(1, min(400, math.ceil(WEIGHTS_B / (n * k * item_b))))


def products(dtype, data, m, n, k):
    """Return calls that multiply one m x k input with distinct weights of n x k."""
    x = numbers(data, m, k)
    if dtype == "bf16":
        weights = (numbers(data, n, k) for _ in range(copies(n, k, 2)))
        return [partial(torch.nn.functional.linear, x, w) for w in weights]
    if dtype == "int8":
        x8 = in_int8(data, x)
        weights = (in_int8(data, numbers(data, n, k)) for _ in range(copies(n, k, 1)))
        return [partial(torch._int_mm, x8, w.t()) for w in weights]
    if dtype == "int4":
        return [int4_product(x, n, k) for _ in range(copies(n, k, 0.5))]
    one = torch.ones((), device="cuda", dtype=torch.float32)
    multiply = partial(
        torch._scaled_mm, scale_a=one, scale_b=one, out_dtype=BF16, use_fast_accum="fast" in dtype
    )
    x8 = x.to(E4M3)
    of_weights = E5M2 if "e5m2" in dtype else E4M3
    weights = (numbers(data, n, k).to(of_weights) for _ in range(copies(n, k, 1)))
    return [partial(multiply, x8, w.t()) for w in weights]


def in_int8(data, x):
    """Return numbers in 8 bits; four standard deviations of normal ones fill them."""
    return ((x * 32).clamp(-127, 127) if data == "randn" else x).to(torch.int8)


def int4_product(x, n, k):
    """Return a call that multiplies by random weights of 4 bits, with a scale a group of them."""
    weights = torch.randint(0, 256, (n, k // 2), device="cuda", dtype=torch.uint8)
    packed = torch._convert_weight_to_int4pack(weights, 8)
    scales = torch.ones(k // GROUP, n, 2, device="cuda", dtype=BF16)
    return partial(torch._weight_int4pack_mm, x, packed, GROUP, scales)


def narrowings(m, k):
    """Return ways to bring m x k numbers from bfloat16 to fp8, by name."""
    x, scale = numbers("randn", m, k), torch.full((), 0.5, device="cuda", dtype=BF16)

    def dynamic():
        largest = x.abs().amax(-1, keepdim=True).float() / 448
        return (x / largest).to(E4M3)

    return {"cast": lambda: x.to(E4M3), "static": lambda: (x * scale).to(E4M3), "dynamic": dynamic}


def captured(calls, times):
    """Return a CUDA graph of all calls, so many times over."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for call in 2 * calls:
            call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in times * calls:
            call()
    return graph


def graph_of(calls):
    """Return a graph of about a millisecond, or a thousand calls, and the number of calls."""
    graph = captured(calls, 1)
    took_us = statistics.median(replays(graph, 3, len(calls))[0]) * len(calls)
    times = max(1, min(math.ceil(1000 / max(took_us, 1e-3)), math.ceil(1000 / len(calls))))
    return (captured(calls, times) if times > 1 else graph), times * len(calls)


def replays(graph, count, per, clock=False):
    """Return the time of a call [us] in each replay and, right behind each, the clock [MHz].

    The clock is that of a kernel that spins for so many cycles. It starts and ends in the time
    too, so the clock said is 1 to 2 % low.
    """
    us, mhz = [], []
    for _ in range(count):
        start, end, spun = events(3)
        start.record()
        graph.replay()
        end.record()
        if clock:
            torch.cuda._sleep(SPIN_CYCLES)
            spun.record()
        torch.cuda.synchronize()
        us.append(1e3 * start.elapsed_time(end) / per)
        if clock:
            mhz.append(SPIN_CYCLES / (1e3 * end.elapsed_time(spun)))
    return us, mhz


def events(count):
    return [torch.cuda.Event(enable_timing=True) for _ in range(count)]


def burst(graph, per, rest_s=0.15, clock=False):
    """Return times [us] and clocks [MHz] of a rested board, as `npusim capture` takes times."""
    torch.cuda.synchronize()
    time.sleep(rest_s)
    us, mhz = replays(graph, SETTLING + COUNTED, per, clock)
    median = statistics.median(us[SETTLING:])
    found = {"us": median, "first": us[0], "least": min(us), "most": max(us)}
    if clock:
        found |= {"mhz_after": statistics.median(mhz[SETTLING:]), "mhz_least": min(mhz)}
    return found


def sustained(board, graph, per, seconds=0.5):
    """Return time, power and clock of replays back to back, after as long to settle.

    The counter of energy moves in steps and is read some 30 ms late: power to about 15 %.
    """
    replay_s = 1e-6 * per * statistics.median(replays(graph, 3, per)[0])
    count = max(2, int(seconds / replay_s))
    for _ in range(count):
        graph.replay()
    torch.cuda.synchronize()
    begin_j = board.read("joules")
    start, end = events(2)
    begin = time.perf_counter()
    with watched(board) as samples:
        start.record()
        for _ in range(count):
            graph.replay()
        end.record()
        torch.cuda.synchronize()
        took_s = time.perf_counter() - begin
        after = replays(graph, 3, per, clock=True)[1]
    end_j = board.read("joules")
    clocks = [mhz for mhz, _, _ in samples if mhz]
    return {
        "us": 1e3 * start.elapsed_time(end) / (count * per),
        "seconds": took_s,
        "watts": None if begin_j is None else (end_j - begin_j) / took_s,
        "watts_seen": [watts for _, watts, _ in samples[-3:]],
        "mhz_nvml": statistics.median(clocks) if clocks else None,
        "mhz_after": statistics.median(after),
        "reasons": sorted({reasons for _, _, reasons in samples if reasons}),
        "degrees": board.read("degrees"),
    }


@contextmanager
def watched(board):
    """Yield a list that a thread fills with clock, power and reasons, every 30 ms."""
    samples, stop = [], threading.Event()

    def look():
        while not stop.is_set():
            samples.append([board.read(name) for name in ("mhz", "watts", "reasons")])
            time.sleep(0.03)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield samples
    finally:
        stop.set()
        thread.join()


def kernels(call):
    """Return the kernels of a call, by PyTorch's profiler."""
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(trace))
        found = json.loads(trace.read_text())["traceEvents"]
    return [
        {"name": e["name"][:160], "grid": e["args"].get("grid"), "block": e["args"].get("block"),
         "us": e["dur"]}
        for e in found if e.get("cat") == "kernel"
    ]  # fmt: skip


def spins():
    """Return what spins of some cycles take [us], on a board that does nothing else."""
    torch.cuda._sleep(10**9)
    torch.cuda.synchronize()
    found = []
    for cycles in (10**5, 4 * 10**5, 4 * 10**6) * 3:
        start, end = events(2)
        start.record()
        torch.cuda._sleep(cycles)
        end.record()
        torch.cuda.synchronize()
        found.append((cycles, 1e3 * start.elapsed_time(end)))
    return found


def rested_and_clocked(graph, per, _call):
    return {"burst": burst(graph, per), "clocked": burst(graph, per, clock=True)}


def rested_to_hot(board, graph, per, call):
    found = rested_and_clocked(graph, per, call)
    found["sustained"] = sustained(board, graph, per)
    return found | {"hot": burst(graph, per, rest_s=0.0)}


def time_and_kernels(graph, per, call):
    return {"burst": burst(graph, per, 0.05, clock=True), "kernels": kernels(call)}


def cases(board):
    """Yield what is measured of products, and how many seconds have to be left for it."""
    # two large products: data, clocks, and how long load has lasted
    all_of_it = partial(rested_to_hot, board)
    for size in (BIG, MIDDLE):
        for dtype in ("bf16", "fp8", "fp8_fast", "int8"):
            for data in ("randn", "zeros", "ints") if size is BIG else ("randn", "zeros"):
                yield "power", dtype, data, size, all_of_it, 60
    yield "power", "fp8_e5m2", "randn", BIG, rested_and_clocked, 50
    yield "power", "bf16", "ones", BIG, rested_and_clocked, 50
    # every point of the axis `precision`, and which kernel it takes
    for m, size in itertools.product((16, 64, 256, 1024, 4096), (1280, 4096, 8192)):
        for dtype in ("bf16", "fp8", "fp8_fast"):
            yield "axis", dtype, "randn", (m, size, size), time_and_kernels, 12
    # weights of 4 bits in groups, under arithmetic in bfloat16
    for m, size in itertools.product((1, 16, 32, 64, 128, 256), (4096, 8192)):
        yield "int4", "int4", "randn", (m, size, size), time_and_kernels, 6


class Run:
    """The rows found until time is up, what failed and what was left out."""

    def __init__(self):
        self.begin = time.perf_counter()
        self.rows, self.errors, self.left_out = [], [], []

    def seconds(self):
        return time.perf_counter() - self.begin

    def has(self, need_s, row):
        """Return whether there is time left for a row; without it the row is left out."""
        enough = LIMIT_S - self.seconds() >= need_s
        if not enough:
            self.left_out.append(row)
        return enough

    def product(self, what, dtype, data, size, measure, need_s):
        """Measure products of one type and size, unless there is less time left than needed."""
        m, n, k = size
        row = {"what": what, "dtype": dtype, "data": data, "m": m, "n": n, "k": k}
        if not self.has(need_s, row):
            return
        try:
            calls = products(dtype, data, m, n, k)
            self.rows.append(row | measure(*graph_of(calls), calls[0]))
        except Exception as e:  # what this PyTorch or GPU cannot do is named; the rest goes on
            self.errors.append(row | {"error": f"{type(e).__name__}: {str(e)[:200]}"})
        calls = None  # their memory goes back too
        torch.cuda.empty_cache()

    def quantise(self):
        """Measure what narrows the input of a product."""
        for m, k in itertools.product((1, 16, 256, 4096), (1280, 8192)):
            row = {"what": "quantise", "m": m, "k": k}
            if not self.has(4, row):
                continue
            for how, call in narrowings(m, k).items():
                self.rows.append(row | {"how": how, "burst": burst(*graph_of([call]), 0.02)})


def measured():
    """Return all that is measured."""
    run, board = Run(), Board()
    if board.device is None:
        run.errors.append("NVML names no first GPU: no clocks, no power")
    torch.manual_seed(0)
    device = {"name": torch.cuda.get_device_properties(0).name, "torch": torch.__version__}
    device |= {name: board.read(name) for name in ("mhz", "watts", "degrees")}
    found = {"device": device, "spins": spins()}
    for case in cases(board):
        run.product(*case)
    run.quantise()
    found["seconds"] = run.seconds()
    return found | {"rows": run.rows, "errors": run.errors, "left_out": run.left_out}


def rounded(value):
    """Return a value of JSON with five significant digits in its fractions."""
    if isinstance(value, dict):
        return {name: rounded(v) for name, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def written(found):
    """Return what was found as JSON, one row a line."""
    parts = []
    for name, value in rounded(found).items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f" {json.dumps(item)}" for item in value) + "\n]"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="JSON file to write")
    file = parser.parse_args().file
    if not file.parent.is_dir():
        parser.error(f"no folder {file.parent}")
    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    file.write_text(written(measured()))


if __name__ == "__main__":
    main()
