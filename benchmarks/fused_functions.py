"""Special functions in kernels that torch.compile writes: measured on a GPU, and predicted.

    python benchmarks/fused_functions.py FILE.json
    PYTHONPATH=. python benchmarks/fused_functions.py

With a file to write it measures: needs an NVIDIA GPU and PyTorch 2.11 with Triton, nothing of
npusim. Takes two minutes on an H200. What `LIMIT_S` has no time for is named in the file,
as is what failed.
Without, it prints the Markdown tables of docs/fusion.md from the rows that ship. Rows:
workloads/experiments/h200_fused_functions.md.
"""

import argparse
import json
import math
import re
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_fused_functions.json"
LIMIT_S = 200.0
SIZES = (102400, 262144, 524288, 1048576, 1638400, 2560000, 4194304, 6656000)
NORMS = ((1, 1024), (48, 1024), (132, 1536), (300, 1024), (512, 2048), (1000, 1024), (2000, 768))
SETTLING, COUNTED = 2, 25  # replays of a graph: those that do not count, and those that do
GRAPH_US = 1000.0

# What npusim counts as the steps of each chain, and how many special functions an element it has.
CHAINS = {
    "mul": (("mul",), 0),
    "steps2": (("add", "mul_scalar", "add", "mul_scalar", "add"), 0),
    "steps12": (("add", *("mul_scalar", "add") * 12), 0),
    "div": (("div",), 1),
    "rsqrt": (("mul", "add", "rsqrt", "mul"), 1),
    "exp": (("exp", "mul"), 1),
    "silu": (("silu", "mul"), 2),
    "exp4": (("exp", "exp", "exp", "exp", "add", "add", "add"), 4),
    "tanh": (("tanh", "mul"), 1),
    "gelu": (("gelu", "mul"), 1),
}


# --- measuring ------------------------------------------------------------------------------


def functions(torch):
    """Return each chain of `CHAINS` as PyTorch writes it: of two inputs, computed in fp32."""

    def wide(function):
        return lambda x, y: function(x.float(), y.float()).to(x.dtype)

    def steps(count):
        def run(x, y):
            x = x + y
            for i in range(count):
                x = x * (1.0 + 0.01 * i) + 0.5
            return x

        return wide(run)

    return {
        "mul": wide(lambda x, y: x * y),
        "steps2": steps(2),
        "steps12": steps(12),
        "div": wide(lambda x, y: x / y),
        "rsqrt": wide(lambda x, y: torch.rsqrt(x * x + 1.0) * y),
        "exp": wide(lambda x, y: torch.exp(x) * y),
        "silu": wide(lambda x, y: torch.nn.functional.silu(x) * y),
        "exp4": wide(lambda x, y: x.exp() + y.exp() + (0.5 * x).exp() + (0.5 * y).exp()),
        "tanh": wide(lambda x, y: torch.tanh(x) * y),
        "gelu": wide(lambda x, y: torch.nn.functional.gelu(x) * y),
    }


def norm(torch):
    """Return an RMSNorm, times a weight if it is given one."""

    def run(x, *weight):
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)
        for w in weight:
            wide = wide * w.float()
        return wide.to(x.dtype)

    return run


class Tuner:
    """What the compiler's tuning had to choose from: its kernels, and what it timed of each."""

    def __init__(self):
        from torch._inductor.runtime.triton_heuristics import CachingAutotuner  # noqa: PLC0415

        self.seen, self.timings = [], {}
        choose = CachingAutotuner.autotune_to_one_config
        time_all = CachingAutotuner.benchmark_all_configs

        def chosen(of, *args, **kwargs):
            self.seen.append((of, list(of.launchers)))
            return choose(of, *args, **kwargs)

        def timed(of, *args, **kwargs):
            self.timings = time_all(of, *args, **kwargs)
            return self.timings

        CachingAutotuner.autotune_to_one_config = chosen
        CachingAutotuner.benchmark_all_configs = timed

    def clear(self):
        self.seen, self.timings = [], {}

    def kernels(self):
        """Yield what makes the compiled call run each kernel, what is known of it, if it is taken.

        A call that had nothing to choose runs the one kernel that it has.
        """
        if len(self.seen) != 1:
            yield {"taken": True}
            return
        of, launchers = self.seen[0]
        taken = of.launchers[0]
        for launcher in launchers:
            of.launchers = [launcher]
            found = {"taken": launcher is taken, "tuner_us": 1e3 * self.timings[launcher]}
            if launcher.config.kwargs.keys() == {"XBLOCK"}:
                found["block"] = launcher.config.kwargs["XBLOCK"]
            yield found | instructions(of, launcher)
        of.launchers = [taken]


def instructions(of, launcher):
    """Return the instructions of a kernel as its listing has them, all branches of it."""
    import triton  # noqa: PLC0415

    kernel = next(r.kernel for r in of.compile_results if r.config is launcher.config)
    tool = Path(triton.__file__).parent / "backends/nvidia/bin/nvdisasm"
    code = getattr(kernel, "asm", {}).get("cubin")
    if code is None or not tool.exists():
        return {}
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(code)
        file.flush()
        done = subprocess.run([tool, "-c", file.name], check=True, capture_output=True, text=True)
    names = re.findall(r"/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+ )?([A-Z][A-Z0-9_.]+)", done.stdout)
    kept = [name for name in names if name not in ("NOP", "BRA")]  # what fills up the end
    return {"instructions": len(kept), "special": sum(n.startswith("MUFU") for n in kept)}


def kernel_of(torch, call):
    """Return grid, threads and registers of the kernels of a call, by PyTorch's profiler."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profiled:
        call()
        torch.cuda.synchronize()
    with tempfile.TemporaryDirectory() as folder:
        profiled.export_chrome_trace(str(Path(folder) / "trace.json"))
        found = json.loads((Path(folder) / "trace.json").read_text())["traceEvents"]
    of = [e["args"] for e in found if e.get("cat") == "kernel"]
    if len(of) != 1:
        raise ValueError(f"{len(of)} kernels where one is meant")
    return {"grid": math.prod(of[0]["grid"]), "threads": math.prod(of[0]["block"]),
            "registers": of[0].get("registers per thread")}  # fmt: skip


def graph_us(torch, call):
    """Return what a call takes inside a graph of about a millisecond, warm: median, least [us]."""
    few = replays(torch, captured(torch, call, 20), 3)
    count = max(20, math.ceil(20 * GRAPH_US / statistics.median(few)))
    found = replays(torch, captured(torch, call, count), COUNTED)
    return {"us": statistics.median(found) / count, "least": min(found) / count}


def captured(torch, call, count):
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        call()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(count):
            call()  # its result is dropped, so the next one takes the same memory
    return graph


def replays(torch, graph, count):
    times = []
    for _ in range(count + SETTLING):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(1e3 * start.elapsed_time(end))
    return times[SETTLING:]


def points(torch):
    """Yield what a row is of, what is compiled and its inputs."""

    def numbers(*shape):
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    for n in SIZES:
        for name, function in functions(torch).items():
            yield {"form": "steps", "function": name, "m": 1, "n": n}, function, (
                numbers(n), numbers(n))  # fmt: skip
    for m, n in NORMS:
        for name, weight in (("norm", ()), ("norm, weight", (numbers(n),))):
            yield {"form": "rows", "function": name, "m": m, "n": n}, norm(torch), (
                numbers(m, n), *weight)  # fmt: skip


def measured():
    """Return all that is measured."""
    import torch  # noqa: PLC0415
    import triton  # noqa: PLC0415

    torch.manual_seed(0)
    settings = torch._inductor.config
    settings.force_disable_caches = True  # so that each is tuned
    for name in ("use_static_cuda_launcher", "use_static_triton_launcher"):
        if hasattr(settings, name):
            setattr(settings, name, False)  # which keeps no code to list
    begin, date = time.perf_counter(), datetime.now(UTC)
    tuner, rows, errors, left_out = Tuner(), [], [], []
    before = board()
    for point, function, given in points(torch):
        if time.perf_counter() - begin > LIMIT_S:
            left_out.append(point)
            continue
        torch._dynamo.reset()  # each shape is compiled for itself
        tuner.clear()
        call = torch.compile(function, dynamic=False)
        try:
            with torch.no_grad():
                call(*given)
                for kernel in tuner.kernels():
                    run = kernel_of(torch, lambda c=call, g=given: c(*g))
                    took = graph_us(torch, lambda c=call, g=given: c(*g))
                    rows.append(point | took | run | kernel)
        except Exception as e:  # what this PyTorch or GPU cannot do is named; the rest goes on
            errors.append(point | {"error": f"{type(e).__name__}: {str(e)[:200]}"})
    software = {"torch": torch.__version__, "triton": triton.__version__,
                "cuda": torch.version.cuda, "python": sys.version.split()[0]}  # fmt: skip
    return {
        "device": torch.cuda.get_device_name(0), "software": software, "before": before,
        "after": board(), "command": f"python benchmarks/fused_functions.py {FILE.name}",
        "date": date.isoformat(timespec="seconds"), "seconds": time.perf_counter() - begin,
        "errors": errors, "left_out": left_out, "rows": rows,
    }  # fmt: skip


def board():
    """Return what nvidia-smi says of the first GPU."""
    asked = "driver_version,clocks.sm,power.draw,temperature.gpu"
    done = subprocess.run(
        ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader", "-i", "0"],  # noqa: S607
        check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(zip(asked.split(","), done.stdout.strip().split(", "), strict=False))


def written(found):
    """Return what was found as JSON of five significant digits, one row a line."""

    def rounded(row):
        return {k: float(f"{v:.5g}") if isinstance(v, float) else v for k, v in row.items()}

    parts = []
    for name, value in rounded(found).items():
        if isinstance(value, list) and value:
            text = "[\n" + ",\n".join(f" {json.dumps(rounded(row))}" for row in value) + "\n]"
        else:
            text = json.dumps(value)
        parts.append(f"{json.dumps(name)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


# --- predicting -----------------------------------------------------------------------------


def rows_of(form, file=FILE):
    """Return the measured kernels of a form: ``steps``, or ``rows``, which reduce them."""
    return [r for r in json.loads(Path(file).read_text())["rows"] if r["form"] == form]


def each(row):
    """Return the elements of a thread of a kernel of steps."""
    return row["block"] // row["threads"]


def of_chain(name, size):
    """Return the kernels of a chain with so many elements a thread."""
    return [r for r in rows_of("steps") if r["function"] == name and each(r) == size]


def counted(name):
    """Return how many special functions an element npusim counts for a chain."""
    from npusim.measured.shapes import operations, pointwise  # noqa: PLC0415
    from npusim.models.special import evaluations  # noqa: PLC0415

    steps, elements = CHAINS[name][0], 1024
    found = evaluations(operations([pointwise("bf16", step, elements) for step in steps]))
    return round(found.sum() / elements)


def predicted_us(rows, functions=0):
    """Return what kernels take in a graph, warm, with so many special functions an element [us]."""
    import npusim as ns  # noqa: PLC0415
    from npusim.arch import Designs  # noqa: PLC0415
    from npusim.importers.work import Work  # noqa: PLC0415
    from npusim.measured.shapes import Measurable, operations  # noqa: PLC0415
    from npusim.models.fused import fused_cost  # noqa: PLC0415

    beside = {"norm": 0, "norm, weight": 1}  # else as many elements as the first input
    made = []
    for r in rows:
        m, n = r["m"], r["n"]
        read = 2.0 * n * (m + beside.get(r["function"], m))
        work = Work("fused", "bf16", batch=1, m=m, n=n, heads=functions * m * n,
                    read_activation=read, write_activation=2.0 * m * n)  # fmt: skip
        near = read + work.write_activation
        routine, blocks = ("fused_rows", m) if r["form"] == "rows" else ("fused_steps", 0)
        made.append(Measurable(work, near, near, near, "fusion", routine, blocks))
    h200 = Designs(ns.load_arch("h200"))
    return (fused_cost(operations(made), h200).time[:, 0] + h200["launch.graph.interval"]) * 1e6


def errors(rows, functions=0):
    """Return the relative error of each prediction."""
    return [p / r["us"] - 1 for p, r in zip(predicted_us(rows, functions), rows, strict=True)]


def by_function():
    """Return a table of errors by chain, without and with what special functions take."""

    def cell(found):
        return f"{statistics.median(found):+.0%}, {max(found, key=abs):+.0%}"

    lines = ["| chain | functions an element: has, counted | instructions an element | eight a "
             "thread: without functions | with them | two a thread: with them |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for name, (_, has) in CHAINS.items():
        eight, two, known = of_chain(name, 8), of_chain(name, 2), counted(name)
        found = (errors(eight), errors(eight, known), errors(two, known))
        lines.append(f"| {name} | {has}, {known} | {eight[0]['instructions'] / 8:.1f} | "
                     + " | ".join(map(cell, found)) + " |")  # fmt: skip
    return "\n".join(lines)


def by_block():
    """Return a table of what two elements a thread take against eight, by size."""
    lines = ["| elements | two a thread over eight: least, most | of them taken |", "|---|---|---|"]
    for n in SIZES:
        two, eight = ([r for name in CHAINS for r in of_chain(name, size) if r["n"] == n]
                      for size in (2, 8))  # fmt: skip
        over = sorted(a["us"] / b["us"] for a, b in zip(two, eight, strict=True))
        taken = sum(r["taken"] for r in two)
        lines.append(f"| {n:,} | {over[0]:.2f}, {over[-1]:.2f} | {taken} of {len(two)} |")
    return "\n".join(lines)


def norms():
    """Return a table of RMSNorms without and with a weight."""
    lines = ["| rows | without a weight: predicted, measured [us] | with one |", "|---|---|---|"]
    rows = rows_of("rows")
    of = {(r["function"], r["m"], r["n"]): (p, r["us"])
          for r, p in zip(rows, predicted_us(rows), strict=True)}  # fmt: skip
    for m, n in NORMS:
        cells = [f"{p:.2f}, {us:.2f} ({p / us - 1:+.0%})"
                 for p, us in (of[name, m, n] for name in ("norm", "norm, weight"))]  # fmt: skip
        lines.append(f"| {m:,} × {n:,} | {cells[0]} | {cells[1]} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, nargs="?", help="JSON file to write")
    file = parser.parse_args().file
    if file is None:
        print(by_function(), by_block(), norms(), sep="\n\n")
        return
    if not file.parent.is_dir():
        parser.error(f"no folder {file.parent}")
    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no GPU")
    file.write_text(written(measured()))


if __name__ == "__main__":
    main()
