"""Products of few rows on an H200: what the models say beside what its library took.

    PYTHONPATH=. python benchmarks/one_row.py

Prints errors of the kernels of workloads/experiments/h200_one_row.parquet, by type and by the
library's kernel. Nothing is fitted to these times.
"""

import re
from pathlib import Path

import numpy as np

import npusim as ns
from npusim.arch import Designs
from npusim.models.kernel import kernel_time

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_one_row.parquet"
KERNEL = re.compile(r"gemvx|gemv2T|dot_kernel|nvjet|splitKreduce|reduce_1Block")


def main():
    w = ns.load_workload(FILE)
    error = kernel_time(w.operations(), Designs(ns.load_arch("h200")))[:, 0] / w["duration_s"] - 1
    kernels = [KERNEL.search(name)[0] for name in w.text("kernel")]
    rows = ["one row" if m == 1 else "more rows" for m in w["m"]]
    names = [", ".join(parts) for parts in zip(w.text("dtype"), rows, kernels, strict=True)]
    one = w.mask("dtype", "fp32") & w.mask("kind", "gemv")
    groups = {name: np.array(names) == name for name in dict.fromkeys(names)}
    print("| kernels | n | median, signed | median | p90 |\n|---|---|---|---|---|")
    for name, part in {**groups, "**fp32, one row, all products**": one}.items():
        size = np.abs(error[part])
        print(f"| {name} | {part.sum()} | {np.median(error[part]):+.1%} | {np.median(size):.1%} | "
              f"{np.quantile(size, 0.9):.1%} |")  # fmt: skip


if __name__ == "__main__":
    main()
