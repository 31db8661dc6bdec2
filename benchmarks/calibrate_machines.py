"""Fit the machines that were measured, on one half of each table, and write it into their files.

PYTHONPATH=. python benchmarks/calibrate_machines.py [MACHINE...]

Values of `archs/MACHINE.yaml` are replaced in place; the record of the fit, with the residuals of
the other half, becomes its `calibration:` block. Public tables are read from ../shared/external.
"""

import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import public_tables
import routines
import yaml

import npusim as ns
from npusim import calibration_file, units
from npusim.arch import with_value
from npusim.calibrate import calibrate, residuals
from npusim.holdout import split
from npusim.library import NUMBERS
from npusim.measured import from_workload, read_axes
from npusim.parameters import PARAMETERS

ROOT = Path(__file__).resolve().parents[1]
GEMM = ("gemm.start", "gemm.fill", "gemm.reduce", "gemm.ramp", "matrix.efficiency")
BOUNDS = {
    "gemm.start": (100.0, 10_000.0), "gemm.fill": (50.0, 5000.0), "gemm.reduce": (0.5e-6, 6e-6),
    "gemm.ramp": (100.0, 1e6), "matrix.efficiency": (0.5, 1.0), "matrix.boost_share": (0.0, 1.0),
    "memories.dram.efficiency": (0.7, 1.0), "units.miss_rate": (15.0, 64.0),
}  # fmt: skip
# Where every fit begins: what was believed before anything was fitted.
BEFORE = {
    "gemm.start": 3400.0, "gemm.fill": 600.0, "gemm.reduce": 2.6e-6, "gemm.ramp": 5000.0,
    "matrix.efficiency": 0.9, "matrix.boost_share": 0.3, "memories.dram.efficiency": 0.88,
    "units.miss_rate": 22.0,
}  # fmt: skip
FREE = {
    "h200": (*GEMM, "matrix.boost_share", "units.miss_rate"),
    "a100": (*GEMM, "memories.dram.efficiency"),
    "h100": (*GEMM, "memories.dram.efficiency"),
    "l40s": (*GEMM, "memories.dram.efficiency"),
}
SEED = 0
STARTS = 4  # the first one ends in a valley beside the lowest
UNITS = (16, 32, 48, 80, 112, 132)  # of axis sm_count; the others are held back
LAUNCH_BOUND = 24  # above it the GEMV's eager launches set its time, not the units


# Numbers of its attention library, which no other machine measured here runs.
ATTENTION = {"decode": ("block", "share", "combine", "part"),
             "prefill": ("start", "block", "share", "softmax")}  # fmt: skip
LIBRARY = ROOT / "archs" / "libraries" / "attention.yaml"


def attention_rows(phase):
    axes = read_axes(ROOT / "workloads" / "experiments" / "h200_axes.json")
    return axes.take(axes.op == f"{phase}_attention")


def fitted_attention(phase, rows, arch):
    """Return a calibration of cuDNN's numbers for one phase."""
    free = [f"library.cudnn_{phase}.{name}" for name in ATTENTION[phase]]
    bounds = {p: (max(PARAMETERS[p].low, 0.01), PARAMETERS[p].high) for p in free}
    return calibrate([(rows, arch)], free, bounds=bounds)


def attention():
    """Fit cuDNN's numbers to the H200's attention rows and write them."""
    arch, lines = ns.load_arch("h200"), LIBRARY.read_text().splitlines()
    for phase in ("decode",):  # those of prefill were fitted with rows that no axis has
        made = fitted_attention(phase, attention_rows(phase), arch)
        for f in made.fitted:
            mark = made.archs[0].provenance[f.path]
            source = f"H200 axis {phase}_attention: benchmarks/calibrate_machines.py"
            entry = written(f.path, f.after, mark.low, mark.high, source)
            lines = replaced(lines, f.path.split("."), entry)
            print("h200", f.path, f"{f.before:.4g} -> {f.after:.4g}", f.why)
    LIBRARY.write_text("\n".join([*lines, ""]))


def h200_tables():
    """Return what the H200 is fitted to and what is held back, of its own experiments."""
    axes = read_axes(ROOT / "workloads" / "experiments" / "h200_axes.json")
    whole = np.isnan(axes.units)
    # Cold weights and resident ones: only both tell the start of a product from its fill.
    fitted, held = split(axes.take((axes.op == "linear") & whole), SEED)
    large = (axes.operations["m"] > 1) | (axes.units <= LAUNCH_BOUND)
    few = axes.take(~whole & ((axes.op == "stream") | (axes.op == "linear") & large))
    known = np.isin(few.units, UNITS)
    return [fitted, few.take(known)], [held, few.take(~known)]


def tables(machine):
    if machine == "h200":
        return h200_tables()
    first, second = split(public_tables.gemm(machine), SEED)
    return [first], [second]


def fit(machine):
    """Return the calibration of a machine, with the residuals of what was held back."""
    arch = ns.load_arch(machine)
    for path in FREE[machine]:
        arch = with_value(arch, path, BEFORE[path])
    fitted, held = tables(machine)
    made = calibrate([(t, arch) for t in fitted], FREE[machine], bounds=BOUNDS, starts=STARTS)
    pairs = [(t, made.archs[0]) for t in held]
    if machine == "h200":
        pairs += [*held_attention(made.archs[0]), held_routines(made.archs[0])]
    return replace(made, residuals=residuals(pairs))


def held_attention(arch):
    """Return the second half of the attention rows, with numbers of the first."""
    found = []
    for phase in ATTENTION:
        first, second = split(attention_rows(phase), SEED)
        found.append((second, fitted_attention(phase, first, arch).archs[0]))
    return found


def held_routines(arch):
    """Return the half of the routines' calls that was held back, with numbers of the other one."""
    w = ns.load_workload(ROOT / "workloads" / "experiments" / "h200_routines.parquet")
    held = []
    for found in routines.calibrate(w, arch.name):
        if found.routine in routines.BETWEEN:  # their calls are those of others
            continue
        held.append(found.held)
        for number, value in zip(NUMBERS, found.fits[0], strict=True):
            path = f"library.{found.routine}.{number}"
            if path in arch.values:
                arch = with_value(arch, path, value / (found.floor_s if number == "floor" else 1))
    table = from_workload(w)
    return table.take(np.isin(table.row, np.concatenate(held))), arch


def written(path, value, low, high, source):
    unit = PARAMETERS[path].unit

    def text(x):
        return f"{x:.4g}" if unit == "1" else units.show(x, unit, 4)

    return (
        f'{{value: {text(value)}, source: "{source}", kind: calibrated, '
        f"range: [{text(low)}, {text(high)}]}}"
    )


def put(file, made):
    """Replace the fitted values in a machine's file and its record."""
    lines = file.read_text().splitlines()
    arch = made.archs[0]
    for f in made.fitted:
        if f.is_fitted:
            mark = arch.provenance[f.path]
            entry = written(
                f.path,
                f.after,
                mark.low,
                mark.high,
                "benchmarks/calibrate_machines.py; see calibration below",
            )
            lines = replaced(lines, f.path.split("."), entry)
    at = next((i for i, line in enumerate(lines) if line.startswith("calibration:")), len(lines))
    stop = next((i for i in range(at + 1, len(lines)) if re.match(r"\w", lines[i])), len(lines))
    block = yaml.safe_dump(
        {"calibration": calibration_file.record(made, arch)},
        sort_keys=False,
        allow_unicode=True,
        width=100,
        default_flow_style=None,
    )
    file.write_text("\n".join([*lines[:at], *block.rstrip().splitlines(), *lines[stop:], ""]))


def replaced(lines, keys, entry):
    """Return the lines with the entry of nested keys replaced."""
    start, stop = 0, len(lines)
    for depth, key in enumerate(keys):
        indent = "  " * depth
        at = next(i for i in range(start, stop) if re.match(f"{indent}{key}:", lines[i]))
        end = next(
            (
                i
                for i in range(at + 1, stop)
                if lines[i].strip() and not lines[i].startswith(indent + " ")
            ),
            stop,
        )
        start, stop = at + 1, end
    return [*lines[: start - 1], f"{'  ' * (len(keys) - 1)}{keys[-1]}: {entry}", *lines[stop:]]


def main():
    for machine in sys.argv[1:] or FREE:
        if machine == "h200":
            attention()
        made = fit(machine)
        put(ROOT / "archs" / f"{machine}.yaml", made)
        for f in made.fitted:
            print(machine, f.path, f"{f.before:.4g} -> {f.after:.4g}", f.why)
        for kind, r in made.residuals.items():
            print("  held back:", kind, r.n, f"p10 {r.p10:.3f} p50 {r.p50:.3f} p90 {r.p90:.3f}")


if __name__ == "__main__":
    main()
