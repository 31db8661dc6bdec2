"""Accuracy of matrix products on GPUs that were left out of the fit.

PYTHONPATH=. python benchmarks/gemm_accuracy.py

A GPU that is left out is predicted from its datasheet and from what the others share. What a kernel
takes to start belongs to its family: where threads copy tiles into shared memory (Ampere, Ada), or
an engine beside them does, with a barrier in hardware (Hopper: TMA). The compute capability says
which; so the left-out GPU takes the start of the others of its family, and all else of all others.
Of the H100's family that is the H200, from our own experiments on it; it carries the same die.
"""

from pathlib import Path

import numpy as np
import public_tables

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.calibrate import calibrate
from npusim.holdout import anchor
from npusim.measured import read_axes
from npusim.measured.period import predicted

AXES = Path(__file__).resolve().parents[1] / "workloads" / "experiments" / "h200_axes.json"

SHARED = (
    "gemm.start", "gemm.fill", "gemm.reduce", "gemm.ramp", "matrix.efficiency",
    "matrix.boost_share", "memories.dram.efficiency",
)  # fmt: skip
BOUNDS = {
    "gemm.start": (100.0, 10_000.0), "gemm.fill": (50.0, 5000.0), "gemm.reduce": (0.5e-6, 6e-6),
    "gemm.ramp": (100.0, 1e6), "matrix.efficiency": (0.5, 1.0), "matrix.boost_share": (0.0, 1.0),
    "memories.dram.efficiency": (0.7, 1.0),
}  # fmt: skip
# Where every fit begins, whatever the files of the machines say: nothing of the left-out one.
START = {
    "gemm.start": 3000.0, "gemm.fill": 600.0, "gemm.reduce": 2.5e-6, "gemm.ramp": 5000.0,
    "matrix.efficiency": 0.9, "matrix.boost_share": 0.5, "memories.dram.efficiency": 0.88,
}  # fmt: skip
# What 24 products of the left-out GPU fit anew; its start is known from the family.
ANCHOR = ("gemm.fill", "matrix.efficiency", "memories.dram.efficiency", "gemm.ramp")
FAMILIES = {"a100": "copied by threads", "l40s": "copied by threads", "h100": "TMA", "h200": "TMA"}
BY_FAMILY = ("gemm.start",)
ROWS, SEED = 600, 1


def plain(name):
    arch = ns.load_arch(name)
    for path, value in START.items():
        arch = with_value(arch, path, value)
    return arch


def predicted_of(measured, arch):
    return predicted(measured, Designs(arch))[:, 0]


def errors(measured, arch):
    return predicted_of(measured, arch) / measured.seconds - 1


def h200():
    """Return the bf16 products of the H200's own experiments, weights cold as in the tables."""
    axes = read_axes(AXES)
    cold = axes.operations.reuse.is_new("read_weight") & np.isnan(axes.units)
    return axes.take((axes.op == "linear") & cold & (axes.operations.dtype == "bf16"))


def left_out(tables, rows):
    """Yield each machine with the values that the other ones share, the start of kernels too."""
    for name in tables:
        others = [(public_tables.some(rows(t), ROWS, SEED), plain(n)) for n, t in tables.items()
                  if n != name]  # fmt: skip
        fit = calibrate(others, SHARED, bounds=BOUNDS)
        yield name, rows(tables[name]), taken(plain(name), fit.fitted)


def left_out_of_family(tables):
    """Yield each machine with the start of its family and values that all the other ones share."""
    known = {**tables, "h200": h200()}
    for name in tables:
        others = [(public_tables.some(t, ROWS, SEED), plain(n)) for n, t in known.items()
                  if n != name]  # fmt: skip
        fit = calibrate(others, SHARED, families=FAMILIES, by_family=BY_FAMILY, bounds=BOUNDS)
        kin = [f for f in fit.fitted if FAMILIES[f.machine] == FAMILIES[name]]
        yield name, tables[name], taken(plain(name), kin)


def taken(arch, fitted):
    """Return a machine with fitted values of others."""
    for f in fitted:
        arch = with_value(arch, f.path, f.after)
    return arch


def told(log):
    return f"{np.median(np.abs(log)):.1%} / {np.quantile(np.abs(log), 0.9):.1%}"


def main():
    tables = {name: public_tables.gemm(name) for name in public_tables.GEMM}
    left = list(left_out_of_family(tables))
    for name, _, arch in left:
        print(name, {p: float(f"{arch[p]:.3g}") for p in SHARED})
    for what, rows in (
        ("M = 1", lambda t: t.take(t.operations["m"] == 1)),
        ("all M", lambda t: t),
    ):
        plain_errors, anchored = {}, {}
        for name, table, arch in left:
            held = rows(table)
            plain_errors[name] = errors(held, arch)
            for seed in range(5):
                few, rest = anchor(held, 24, seed)
                fit = calibrate([(few, arch)], ANCHOR, bounds=BOUNDS)
                anchored.setdefault(name, []).append(errors(rest, fit.archs[0]))
        print(
            what,
            "left out",
            {n: told(e) for n, e in plain_errors.items()},
            "pooled",
            told(np.concatenate(list(plain_errors.values()))),
        )
        print(
            what,
            "anchored",
            {n: [told(e) for e in es] for n, es in anchored.items()},
            "pooled",
            [told(np.concatenate([anchored[n][s] for n in ("a100", "h100")])) for s in range(5)],
        )


if __name__ == "__main__":
    main()
