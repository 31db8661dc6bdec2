"""How long an NVIDIA GPU lets products take more than its power limit, and what they take then.

    python benchmarks/power_window.py FILE.json          on a GPU with PyTorch that has fp8
    PYTHONPATH=. python benchmarks/power_window.py       what the shipped files say

After a rest a product is repeated for a quarter of a second, on weights that are cold, and every
replay of its graph is timed: until the board lowers its clock the product runs at full speed.
Rests differ in length, so that the board's own ticks fall anywhere. Then the product is repeated
for longer, and clock and power are read.
"""

import json
import math
import random
import statistics
import sys
import time
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "workloads" / "experiments"
FILES = tuple(FOLDER / f"h200_power_window{end}.json" for end in ("", "_again"))
PRODUCTS = [  # rows, columns, inner
    (4096, 8192, 8192), (4096, 4096, 4096), (1024, 8192, 8192), (1024, 4096, 4096),
    (256, 8192, 8192), (4096, 1280, 1280), (1024, 1280, 1280),
]  # fmt: skip
RUNS, LOAD_MS, BIN_MS, REST_S = 12, 250.0, 5.0, (0.25, 0.35)
SETTLED_MS = 150.0  # from then on the clock stays for a while
SHOWN_MS = (10, 30, 40, 50, 60, 70, 80, 100, 120)


def run(replays, graph, per):
    """Return the time of a product in each bin of a load after a rest [us], None where no replay
    began."""
    time.sleep(random.uniform(*REST_S))  # noqa: S311
    bins = [[] for _ in range(round(LOAD_MS / BIN_MS))]
    began = time.perf_counter()
    while (at := 1e3 * (time.perf_counter() - began)) < LOAD_MS:
        bins[int(at / BIN_MS)].append(replays(graph, 1, per)[0][0])
    return [round(statistics.median(b), 2) if b else None for b in bins]


def measure(file):
    import torch  # noqa: PLC0415
    from precision_power import Board, graph_of, products, replays, sustained  # noqa: PLC0415

    rows, board = [], Board()
    for m, n, k in PRODUCTS:
        for dtype in ("bf16", "fp8"):
            graph, per = graph_of(products(dtype, "randn", m, n, k))
            us = [run(replays, graph, per) for _ in range(RUNS)]
            settled = sustained(board, graph, per)
            rows.append({"dtype": dtype, "m": m, "n": n, "k": k, "us": us, "settled": settled})
            del graph
            torch.cuda.empty_cache()
    device = torch.cuda.get_device_properties(0)
    data = {"device": device.name, "pytorch": torch.__version__, "bin_ms": BIN_MS, "rows": rows}
    Path(file).write_text(json.dumps(data))
    print(f"{file}: {len(rows)} products")


def at(bins, low_ms, high_ms, width_ms):
    """Return the bins that begin from one time to another."""
    return [u for i, u in enumerate(bins) if low_ms <= i * width_ms < high_ms and u is not None]


def course(row, width_ms):
    """Return the time of a product at first and at last [us], and its mean by bin over the runs."""
    runs = row["us"]
    first = statistics.median(u for r in runs for u in at(r, 5, 25, width_ms))
    last = statistics.mean(u for r in runs for u in at(r, SETTLED_MS, LOAD_MS, width_ms))
    means = [statistics.mean(known) if (known := [u for u in b if u is not None]) else math.nan
             for b in zip(*runs, strict=True)]  # fmt: skip
    return first, last, means


def window(data):
    """Return the window that explains how products slow down best, in least squares [ms], and when
    single runs do."""
    width, shares, starts = data["bin_ms"], [], []
    for row in data["rows"]:
        first, last, means = course(row, width)
        if last < 1.1 * first:
            continue
        shares += [((i + 0.5) * width, (u - first) / (last - first))
                   for i, u in enumerate(means) if i * width < SETTLED_MS]  # fmt: skip
        half = (first + last) / 2
        starts += [next(i * width for i, u in enumerate(r) if u and u > half) for r in row["us"]]

    def off(w):
        return sum((min(max(t / w - 0.5, 0.0), 1.0) - s) ** 2 for t, s in shares)

    return min(range(20, 151), key=off), sorted(starts)


def brief(row, width_ms, arch):
    """Return what a product takes for good by its energy, at the clock measured, and what the board
    holds it at 150 ms after a rest: what it takes then, at as many cycles, over that, times the
    limit [W]."""
    from npusim.arch import Designs  # noqa: PLC0415
    from npusim.measured.power_limit import watts  # noqa: PLC0415
    from npusim.measured.shapes import linear, operations  # noqa: PLC0415
    from npusim.models.voltage import clocked  # noqa: PLC0415

    settled, last = row["settled"], course(row, width_ms)[1]
    one = operations([linear(row["dtype"], row["m"], row["n"], row["k"])])

    def power(us, mhz):
        at = clocked(Designs(arch), np.array([mhz * 1e6 / arch["units.clock"]]))
        return watts(one, np.array([[us * 1e-6]]), at).item()

    held = power(settled["us"], settled["mhz_nvml"])
    then = power(last, settled["us"] * settled["mhz_nvml"] / last)
    return held, arch["power.limit"] * then / held


def report():
    import npusim as ns  # noqa: PLC0415

    arch = ns.load_arch("h200")
    data = json.loads(FILES[0].read_text())
    width = data["bin_ms"]
    print("| type | m | n = k | at first [µs] | " + " | ".join(f"{t} ms" for t in SHOWN_MS)
          + " | 150 ms on | for good | clock [MHz] | power told [W] | held at 150 ms on [W] |\n"
          + "|---" * (len(SHOWN_MS) + 9) + "|")  # fmt: skip
    powers = []
    for row in data["rows"]:
        first, last, means = course(row, width)
        cells = [f"{means[int(t / width) - 1] / first:.2f}" for t in SHOWN_MS]
        s = row["settled"]
        held, then = brief(row, width, arch)
        if s["reasons"] and last > 1.05 * first:
            powers.append(then)
        print(f"| {row['dtype']} | {row['m']} | {row['n']} | {first:.2f} | {' | '.join(cells)} | "
              f"{last / first:.2f} | {s['us'] / first:.2f} | {s['mhz_nvml']:.0f} | {held:.0f} | "
              f"{f'{then:.0f}' if then in powers else ''} |")  # fmt: skip
    print(f"\nheld at 150 ms on: median {statistics.median(powers):.0f} W, {min(powers):.0f} to "
          f"{max(powers):.0f}")  # fmt: skip
    for file in FILES:
        best, starts = window(json.loads(file.read_text()))
        tenth = len(starts) // 10
        print(f"{file.name}: window {best} ms; half-way after {starts[0]:.0f} to "
              f"{starts[-1]:.0f} ms, 80 % of runs after {starts[tenth]:.0f} to "
              f"{starts[-1 - tenth]:.0f}")  # fmt: skip


if __name__ == "__main__":
    measure(sys.argv[1]) if len(sys.argv) > 1 else report()
