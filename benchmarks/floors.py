"""Floors of kernel kinds from natural experiments, as `archs/h200.yaml` quotes them.

    python benchmarks/floors.py AXES.json

AXES.json holds rows of the axes `linear_shapes`, `pointwise` and `decode_attention` (median times
of CUDA-graph replays, us). A floor is what is left of the time of a small kernel when the graph's
interval between kernels and the DRAM traffic of its weights are taken away.
"""

import json
import statistics
import sys
from pathlib import Path

INTERVAL_US = 0.284
BANDWIDTH = 4.238e12  # B/s, the stream of the same board


def left(row, nbytes=0.0):
    return row["us_per_op"] - INTERVAL_US - nbytes / BANDWIDTH * 1e6


def show(name, values):
    print(f"{name:10} median {statistics.median(values):5.2f} us  "
          f"{min(values):5.2f} to {max(values):5.2f}  of {len(values)}")  # fmt: skip


def main(path):
    rows = json.loads(Path(path).read_text())
    linear = [r for r in rows if r["axis"] == "linear_shapes" and r["m"] <= 16]
    weights = [(r, 2.0 * r["n"] * r["k"]) for r in linear]
    show("matmul", [left(r, b) for r, b in weights if b < 20e6])
    points = [r for r in rows if r["axis"] == "pointwise" and r["elements"] <= 65536]
    plain = ("mul", "silu", "neg", "cast", "copy")
    show("pointwise", [left(r) for r in points if r["op"] in plain])
    reduction = [left(r) for r in points if r["op"] == "mean"]
    show("reduction", reduction)
    show("gather", [left(r) for r in points if r["op"] == "cat"])
    combine = statistics.median(reduction) + INTERVAL_US
    decode = [r for r in rows if r["axis"] == "decode_attention"]
    small = [r for r in decode if r["batch"] == 1 and r["ctx"] <= 1024]
    show("attention", [left(r) - combine for r in small])


if __name__ == "__main__":
    main(sys.argv[1])
