"""Accuracy of matrix products on GPUs that were left out of the fit.

PYTHONPATH=. python benchmarks/gemm_accuracy.py
"""

import numpy as np
import public_tables

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.calibrate import calibrate
from npusim.holdout import anchor
from npusim.measured.period import predicted

SHARED = (
    "gemm.start", "gemm.fill", "gemm.reduce", "gemm.overlap", "matrix.efficiency",
    "matrix.boost_share", "memories.dram.efficiency",
)  # fmt: skip
BOUNDS = {
    "gemm.start": (500.0, 10_000.0), "gemm.fill": (50.0, 3000.0), "gemm.reduce": (0.5e-6, 6e-6),
    "gemm.overlap": (1.0, 8.0), "matrix.efficiency": (0.5, 1.0), "matrix.boost_share": (0.0, 1.0),
    "memories.dram.efficiency": (0.7, 1.0),
}  # fmt: skip
# Where every fit begins, whatever the files of the machines say: nothing of the left-out one.
START = {
    "gemm.start": 3000.0, "gemm.fill": 600.0, "gemm.reduce": 2.5e-6, "gemm.overlap": 2.0,
    "matrix.efficiency": 0.9, "matrix.boost_share": 0.5, "memories.dram.efficiency": 0.88,
}  # fmt: skip
ANCHOR = ("gemm.start", "matrix.efficiency", "memories.dram.efficiency", "gemm.overlap")
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


def left_out(tables, rows):
    """Yield each machine with the values that the other ones share."""
    for name in tables:
        others = [(public_tables.some(rows(t), ROWS, SEED), plain(n)) for n, t in tables.items()
                  if n != name]  # fmt: skip
        fit = calibrate(others, SHARED, bounds=BOUNDS)
        arch = plain(name)
        for f in fit.fitted:
            arch = with_value(arch, f.path, f.after)
        yield name, rows(tables[name]), arch


def told(log):
    return f"{np.median(np.abs(log)):.1%} / {np.quantile(np.abs(log), 0.9):.1%}"


def main():
    tables = {name: public_tables.gemm(name) for name in public_tables.GEMM}
    for what, rows in (
        ("M = 1", lambda t: t.take(t.operations["m"] == 1)),
        ("all M", lambda t: t),
    ):
        plain_errors, anchored = {}, {}
        for name, held, arch in left_out(tables, rows):
            plain_errors[name] = errors(held, arch)
            print(what, name, {p: float(f"{arch[p]:.3g}") for p in SHARED})
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
