"""How long a k-step of a library's tiles takes on a GPU, and what a product takes beside them.

    python benchmarks/tiles.py FILE.json     on a GPU with PyTorch
    python benchmarks/tiles.py               what the file in workloads/experiments says

Products of the same rows and columns and growing K are repeated on the same operands, which the
cache holds. Where the library keeps its tile, the slope over K is what a k-step takes; the name of
the kernel says how large its tile is.
"""

import json
import re
import statistics
import sys
from pathlib import Path

from profiled import kernels

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_tiles.json"
ROWS = (1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)
COLUMNS = (256, 1024, 1280, 2048, 3072, 4096)
INNER = (512, 1024, 1536, 2048, 2560)
FP8_ROWS, FP8_INNER = (16, 64, 128, 256, 512, 1024), (640, 1280, 2560, 5120)
CALLS, LINE = 12, 128  # calls of a product; bytes of K in a k-step


def row(torch, call, **shape):
    ran = kernels(torch, call, CALLS)
    each = len(ran) // CALLS
    name, grid, _ = ran[0]
    took = statistics.median(time for _, _, time in ran[each::each])
    return {**shape, "kernel": name, "grid": grid, "kernels": each, "us": round(took, 3)}


def measure(file):
    import torch  # noqa: PLC0415

    rows = []
    for n, m, k in ((n, m, k) for n in COLUMNS for m in ROWS for k in INNER):
        x, w = (torch.randn(rows_, k, device="cuda").bfloat16() for rows_ in (m, n))
        call = lambda x=x, w=w: torch.nn.functional.linear(x, w)  # noqa: E731
        rows.append(row(torch, call, dtype="bf16", m=m, n=n, k=k))
    one = torch.ones((), device="cuda")
    for m, k in ((m, k) for m in FP8_ROWS for k in FP8_INNER):
        x, w = (torch.randn(r, k, device="cuda").to(torch.float8_e4m3fn) for r in (m, 1280))
        for fast in (False, True):
            call = lambda x=x, w=w, fast=fast: torch._scaled_mm(  # noqa: E731
                x, w.t(), scale_a=one, scale_b=one, out_dtype=torch.bfloat16, use_fast_accum=fast
            )
            dtype = "fp8_fast" if fast else "fp8"
            rows.append(row(torch, call, dtype=dtype, m=m, n=1280, k=k))
    device = torch.cuda.get_device_properties(0)
    data = {"device": device.name, "units": device.multi_processor_count,
            "pytorch": torch.__version__, "rows": rows}  # fmt: skip
    Path(file).write_text(json.dumps(data, indent=0))
    print(f"{file}: {len(rows)} rows")


def slopes(rows):
    """Yield the type, rows and columns, kernel and tile of products that keep their tile over K,
    with the time of a k-step of 128 bytes and of what is left [us]."""
    size = {"bf16": 2}
    for key in dict.fromkeys((r["dtype"], r["m"], r["n"]) for r in rows):
        own = [r for r in rows if (r["dtype"], r["m"], r["n"]) == key]
        first, last = own[0], own[-1]
        tile = re.search(r"_(\d+)x(\d+)_\d+x\d+_(\dx\d)", first["kernel"])
        same = first["kernel"] == last["kernel"] and first["kernels"] == last["kernels"] == 1
        if tile and same and first["grid"][0] * first["grid"][1] <= 132:
            step = LINE / size.get(key[0], 1)
            slope = (last["us"] - first["us"]) / ((last["k"] - first["k"]) / step)
            yield key, tile.groups(), slope, first["us"] - slope * first["k"] / step


def report(clock=1.98e3):
    data = json.loads(FILE.read_text())
    print("| type | tile | blocks that share | products | a k-step [cycles] | B a clock and unit | "
          "beside [µs] |\n|---|---|---|---|---|---|---|")  # fmt: skip
    found = {}
    for (dtype, _, _), (a, b, shared), slope, beside in slopes(data["rows"]):
        found.setdefault((dtype, int(a), int(b), shared), []).append((slope * clock, beside))
    for (dtype, a, b, shared), values in sorted(
        found.items(), key=lambda f: (f[0][0], f[0][1] * f[0][2])
    ):
        cycles, beside = (statistics.median(v[i] for v in values) for i in (0, 1))
        print(f"| {dtype} | {a} x {b} | {shared} | {len(values)} | {cycles:.0f} | "
              f"{(a + b) * LINE / cycles:.0f} | {beside:.2f} |")  # fmt: skip


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else report()
