"""How much longer a cold product takes where what its loads evict has been written.

    python benchmarks/evictions.py FILE.json     on a GPU with PyTorch
    python benchmarks/evictions.py               what the file in workloads/experiments says

Between two calls of a product, whose weights no cache holds, so many bytes are written: always to
the same memory, or to other memory each time, which the product's loads then evict.
"""

import itertools
import json
import statistics
import sys
from pathlib import Path

from profiled import kernels

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_evictions.json"
SHAPES = ((1, 2048, 1024), (32, 2048, 1024), (75, 1280, 896), (32, 256, 1024), (32, 4096, 4096))
WRITTEN = (0, 0.25, 1, 2, 4, 8, 16, 32)  # MB
PIECE, PIECES, WEIGHTS, CALLS = 2, 100, 300e6, 40  # MB of other memory, and how often; bytes


def times(torch, between, product):
    """Return the median time of a product [us] with something between two calls of it."""

    def both():
        between()
        product()

    took = kernels(torch, both, CALLS)
    return round(statistics.median(time for name, _, time in took if "nvjet" in name), 3)


def writers(torch, megabytes):
    """Return what writes so much to the same memory, and to other memory each time."""
    numbers = int(megabytes * 1e6 / 2)
    same = torch.empty(max(numbers, 1), device="cuda", dtype=torch.bfloat16)
    ring = itertools.cycle([torch.empty(int(PIECE * 1e6 / 2), device="cuda", dtype=torch.bfloat16)
                            for _ in range(PIECES)])  # fmt: skip
    if megabytes <= PIECE:
        return lambda: same.fill_(1.0), lambda: next(ring)[: max(numbers, 1)].fill_(1.0)
    return lambda: same.fill_(1.0), lambda: [
        next(ring).fill_(1.0) for _ in range(int(megabytes // PIECE))
    ]


def measure(file):
    import torch  # noqa: PLC0415

    rows = []
    for m, n, k in SHAPES:
        x = torch.randn(m, k, device="cuda").bfloat16()
        copies = range(max(20, int(WEIGHTS / (2 * n * k))))
        weights = itertools.cycle([torch.randn(n, k, device="cuda").bfloat16() for _ in copies])
        product = lambda x=x, weights=weights: torch.nn.functional.linear(x, next(weights))  # noqa: E731
        for megabytes in WRITTEN:
            same, other = (times(torch, w, product) for w in writers(torch, megabytes))
            rows.append({"m": m, "n": n, "k": k, "written_mb": megabytes,
                         "same_us": same, "other_us": other})  # fmt: skip
    device = torch.cuda.get_device_properties(0)
    data = {"device": device.name, "pytorch": torch.__version__, "rows": rows}
    Path(file).write_text(json.dumps(data, indent=0))
    print(f"{file}: {len(rows)} rows")


def report():
    rows = json.loads(FILE.read_text())["rows"]
    heads = ["m x n x k", "weights [MB]", "nothing", "same 16 MB", "32", "other 0.25"]
    heads += [f"{w:g}" for w in WRITTEN[2:]]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}")
    for m, n, k in SHAPES:
        own = {r["written_mb"]: r for r in rows if (r["m"], r["n"], r["k"]) == (m, n, k)}
        cells = [own[0]["same_us"], own[16]["same_us"], own[32]["same_us"]]
        cells += [own[w]["other_us"] for w in WRITTEN[1:]]
        print(f"| {m} x {n} x {k} | {2e-6 * n * k:.1f} | {' | '.join(f'{c:.2f}' for c in cells)} |")


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else report()
