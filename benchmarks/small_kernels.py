"""Kernels of full blocks, alone, repeated and in a graph: what blocks and repeats cost on a GPU.

    python benchmarks/small_kernels.py FILE.json     on a GPU with PyTorch
    python benchmarks/small_kernels.py               what the file in workloads/experiments says

Each call writes what it wrote before, so data are warm as far as the cache holds them. A kernel's
time is PyTorch's profiler's, the median of 15 calls in a row; the period is that of a graph of
1,000 of them, without the profiler. The slope between two numbers of blocks is what one more block
costs where nothing else does. `mixed` is the time where all these calls come in turn, so that a
unit has run other code since; `between` the same with a product before each, which reads 32 MiB
that the cache does not hold. `cold` is the time of calls on so many sets of operands in turn that
the cache holds none.
"""

import itertools
import json
import statistics
import sys
from pathlib import Path

import numpy as np
from profiled import kernels

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_small_kernels.json"
BLOCKS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
ELEMENTS = 1024  # of a block
CALLS, IN_GRAPH, REPLAYS = 15, 1000, 15
WEIGHTS, COPIES = 4096, 8  # of the product between calls: rows and columns, matrices in turn
COLD, FEWEST = 256e6, 128  # bytes of all sets in turn; from so many blocks on


def operators(torch, blocks):
    """Return the calls on so many blocks by name and type."""
    n = blocks * ELEMENTS
    made = {}
    for dtype in (torch.bfloat16, torch.float32):
        x, y = (torch.randn(n, device="cuda").to(dtype) for _ in range(2))
        out, apart = torch.empty_like(x), torch.randn(2 * n, device="cuda").to(dtype)[::2]
        name = str(dtype).removeprefix("torch.")
        made |= {
            ("mul", name): lambda x=x, y=y, out=out: torch.mul(x, y, out=out),
            ("neg", name): lambda x=x, out=out: torch.neg(x, out=out),
            ("copy", name): lambda x=x, out=out: out.copy_(x),
            ("fill", name): lambda out=out: out.fill_(1.0),
            ("silu", name): lambda x=x, out=out: torch.ops.aten.silu.out(x, out=out),
            ("strided", name): lambda x=apart, y=y, out=out: torch.mul(x, y, out=out),
        }
    wide, narrow = torch.randn(n, device="cuda"), torch.empty(n, device="cuda").bfloat16()
    made["narrow", "float32"] = lambda: narrow.copy_(wide)
    made["widen", "bfloat16"] = lambda: wide.copy_(narrow)
    return made


def in_turn(torch, calls, product=None):
    """Return each call's time among the others, the median [us], by what it is called."""
    names = [name for name in calls if kernels(torch, calls[name], 1)]
    times = {name: [] for name in names}

    def turn():
        for name in names:
            if product:
                product()
            calls[name]()

    took = kernels(torch, turn, CALLS)
    each = len(took) // (CALLS * len(names))  # a call is one kernel, the last of its own
    for i, (_, _, time) in enumerate(took[each - 1 :: each]):
        times[names[i % len(names)]].append(time)
    return {name: statistics.median(values) for name, values in times.items()}


def cold(torch, blocks):
    """Return the median time of each call [us] on sets of operands that no cache holds."""
    sets = [operators(torch, blocks) for _ in range(int(COLD // (4 * ELEMENTS * blocks)) + 1)]
    found = {}
    for name in sets[0]:
        turn = itertools.cycle([one[name] for one in sets])
        took = kernels(torch, lambda turn=turn: next(turn)(), 2 * len(sets))
        if took:
            found[name] = statistics.median(time for _, _, time in took[len(sets) :])
    return found


def products(torch):
    """Return a product that reads other weights whenever it is called."""
    x = torch.randn(32, WEIGHTS, device="cuda").bfloat16()
    weights = [torch.randn(WEIGHTS, WEIGHTS, device="cuda").bfloat16() for _ in range(COPIES)]
    turn = itertools.cycle(weights)
    return lambda: torch.mm(x, next(turn))


def graph(torch, call):
    made = torch.cuda.CUDAGraph()
    with torch.cuda.graph(made):
        for _ in range(IN_GRAPH):
            call()
    return made


def period(torch, made):
    """Return the time of one operation of a graph [us], the median over replays."""
    times = []
    for _ in range(REPLAYS):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        made.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end) / IN_GRAPH)
    return statistics.median(times)


def measure(file):
    import torch  # noqa: PLC0415

    rows, product = [], products(torch)
    for blocks in BLOCKS:
        calls = operators(torch, blocks)
        mixed, between = in_turn(torch, calls), in_turn(torch, calls, product)
        far = cold(torch, blocks) if blocks >= FEWEST else {}
        for (op, dtype), call in calls.items():
            alone = kernels(torch, call, CALLS)
            if not alone:  # a copy engine's, not a kernel
                continue
            made = graph(torch, call)
            inside = kernels(torch, made.replay, 1)
            rows.append({
                "op": op, "dtype": dtype, "blocks": blocks, "grid": alone[0][1][0],
                "kernel_us": round(statistics.median(t for _, _, t in alone), 3),
                "graph_kernel_us": round(statistics.median(t for _, _, t in inside), 3),
                "period_us": round(period(torch, made), 4),
                "mixed_us": round(mixed[op, dtype], 3),
                "between_us": round(between[op, dtype], 3),
                "cold_us": round(far[op, dtype], 3) if far else None,
            })  # fmt: skip
    device = torch.cuda.get_device_properties(0)
    data = {
        "device": device.name,
        "units": device.multi_processor_count,
        "pytorch": torch.__version__,
        "rows": rows,
    }
    Path(file).write_text(json.dumps(data, indent=0))
    print(f"{file}: {len(rows)} rows")


def report():
    data = json.loads(FILE.read_text())
    by = {(r["op"], r["dtype"], r["blocks"]): r for r in data["rows"]}
    shown = (1, 16, 128, 1024, 4096)
    heads = ("a kernel [µs], blocks", *shown, "a block more [ns]", "in a graph")
    print(f"| {' | '.join(map(str, heads))} |")
    print(f"|---|{'---|' * len(shown)}---|---|")
    for op, dtype in dict.fromkeys((o, d) for o, d, _ in by):
        times = [by[op, dtype, blocks]["kernel_us"] for blocks in shown]
        more = 1e3 * (times[-1] - times[-2]) / (shown[-1] - shown[-2])
        first, last = (by[op, dtype, blocks]["period_us"] for blocks in (256, 2048))
        print(f"| {op} {dtype} | {' | '.join(f'{t:.2f}' for t in times)} | {more:.2f} | "
              f"{1e3 * (last - first) / (2048 - 256):.2f} |")  # fmt: skip
    print("\n| more than repeated [µs], blocks | cold 128 | 256 | 512 | "
          "others between 1 | 32 | 128 | a product too 1 | 32 | 128 |")  # fmt: skip
    print(f"|---|{'---|' * 9}")
    for op, dtype in dict.fromkeys((o, d) for o, d, _ in by):
        cells = [
            by[op, dtype, blocks][how] - by[op, dtype, blocks]["kernel_us"]
            for how, shown in (("cold_us", (128, 256, 512)), ("mixed_us", (1, 32, 128)),
                               ("between_us", (1, 32, 128)))
            for blocks in shown
        ]  # fmt: skip
        print(f"| {op} {dtype} | {' | '.join(f'{c:.2f}' for c in cells)} |")
    more = [r["period_us"] - r["kernel_us"] for r in data["rows"] if r["blocks"] <= 256]
    print(f"\nperiod less kernel, to 256 blocks: median {np.median(more):.2f} µs, a tenth "
          f"{np.quantile(more, 0.1):.2f}, nine tenths {np.quantile(more, 0.9):.2f}")  # fmt: skip


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else report()
