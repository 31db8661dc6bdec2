"""Fit the energy constants of an H200 to the power of its board: values and errors, Markdown.

PYTHONPATH=. python benchmarks/energy_fit.py [AXES.json ...]

Rows are those of the axes ``energy`` and ``power`` of ``npusim capture experiments``; by default
the runs of workloads/experiments and, where it is there, that of ../shared/baselines. The idle
power of each run is an input: what is fitted is what a work takes over it. Bytes of DRAM and L2,
products in bf16 and fp32 and launches are fitted to the axis ``energy`` of the baselines, what that
does not tell (other types, functions, L1, the clock's voltage) to the axis ``power`` of our own
runs on two other boards; their streams and their own axis ``energy`` are held back, and so say how
far boards differ. Steps of models (energy_steps.json) are not looked at.
"""

import json
import sys
from pathlib import Path

import numpy as np
from scipy.optimize import least_squares

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "workloads" / "experiments"
SHARED = ROOT.parent / "shared" / "baselines" / "h200" / "axes.json"
FILES = (OURS / "h200_power_axes.json", OURS / "h200_power_axes_again.json",
         OURS / "h200_axes.json", SHARED)  # fmt: skip
UNITS, CLOCK, RESTING = 132, 1980.0, 345.0
LEAKAGE, LEAST = 24.4, 0.7  # [W] and lowest voltage, assumed: 0.03 W/mm2 of 814 mm2
UNDISTURBED = {"h200_power_axes.json": 80.8, "h200_power_axes_again.json": 80.6}  # [W], no process
WIDTH = {"fp32": 4, "tf32": 4, "fp8": 1, "int8": 1}

# Constant -> first guess, in pJ (a byte, an operation, a clock of a unit), uJ, or as named.
START = {
    "dram": 115.0, "l2": 50.0, "l1": 10.0, "shared memory": 4.0, "bf16": 1.0, "fp16": 1.1,
    "tf32": 2.0, "fp8": 0.6, "int8": 0.7, "fp32 product": 10.0, "fp32 multiply-add": 3.0,
    "special": 35.0, "cycle": 40.0, "launch [uJ]": 1.5, "zeros, of bf16": 0.4,
    "clocks [W]": 50.0, "slope": 0.35,
}  # fmt: skip
OF_OWN = {"multiply_add": ("fp32 multiply-add", "flops"), "load_shared": ("shared memory", "bytes"),
          "load_l1": ("l1", "bytes"), "exponential": ("special", "functions")}  # fmt: skip


def busy(row):
    return min(row["bursts"] * row["in_burst_ms"] * 1e-3, 1.0)


def of_power(row):
    """Return what a row of the axis ``power`` does in a second, by constant."""
    what, rate = row["what"], row.get("bursts", 0.0)
    units = UNITS * busy(row) if rate else 0.0
    if what == "spin":
        return {"cycle": rate * row["unit_cycles"] / (CLOCK * 1e6), "unit": "units"}
    if what == "tiny":
        return {"launch [uJ]": rate * 1e6}
    if what == "gemm":
        size = WIDTH.get(row["dtype"], 2) * 3 * (row["flops"] / rate_of(row) / 2) ** (2 / 3)
        name = "fp32 product" if row["dtype"] == "fp32" else row["dtype"]
        zeros = row["data"] == "zeros"
        way = 0.0 if name == "fp32 product" else of_way(rate * row["flops"])
        return {"zeros" if zeros else name: rate * row["flops"] - way, "cycle": units,
                "dram": rate * rate_of(row) * size}  # fmt: skip
    if what in OF_OWN:
        name, amount = OF_OWN[what]
        units *= min(row["blocks"], UNITS) / UNITS
        return {name: rate * row[amount], "cycle": units}
    level = "dram" if row["mib"] >= 256 else "l2"
    return {level: rate * row["bytes"], "cycle": units}


def of_way(flops):
    """Return the FLOP of products of 8192 that stand for their operands' way, which is counted with
    the bytes of DRAM (npusim.models.energy)."""
    return flops / (2 * 8192**3) * 100.0 * 2 * 8192**2


def rate_of(row):
    """Return the products of a burst: operands are 8192 wide, those of fp32 4096."""
    return row["flops"] / (2 * (4096 if row["dtype"] == "fp32" else 8192) ** 3)


def of_energy(row):
    """Return the same of a row of the axis ``energy``."""
    per = {name: row.get(name, 0) / row["seconds"] for name in
           ("dram_bytes", "l2_bytes", "flops", "launches")}  # fmt: skip
    if row["what"] == "tiny_kernels":
        return {"launch [uJ]": per["launches"] * 1e6, "cycle": 1.0}
    done = {"dram": per["dram_bytes"], "l2": per["l2_bytes"], "cycle": UNITS}
    if row["what"] == "gemm_bf16":
        done |= {"bf16": per["flops"] - of_way(per["flops"]),
                 "dram": per["flops"] / (2 * 8192**3) * 6 * 8192**2}  # fmt: skip
    if row["what"] == "gemm_fp32":
        done |= {"fp32 product": per["flops"], "dram": per["flops"] / (2 * 8192**3) * 12 * 8192**2}
    return done


def read(files):
    rows = []
    for file in files:
        if not Path(file).is_file():
            continue
        found = json.loads(Path(file).read_text())
        for axis, work in (("power", of_power), ("energy", of_energy)):
            of = [r for r in found if r["axis"] == axis]
            idle = [r["watts"] for r in of if r["what"] == "idle"]
            for row in of:
                does = {} if row["what"] == "idle" else work(row)
                does.pop("unit", None)
                rows.append((Path(file).name, axis, row, np.mean(idle), does))
    return rows


def predicted(x, row, idle, does):
    """Return the power of a row [W]."""
    clock = row.get("sm_mhz") or CLOCK
    volts = 1.0 - x["slope"] * (1.0 - clock / CLOCK)
    watts = idle - slower(x, clock, volts)
    for name, rate in does.items():
        each = x["zeros, of bf16"] * x["bf16"] if name == "zeros" else x[name]
        if name == "cycle":
            each *= clock * 1e6
        watts += rate * each * 1e-12 * (1.0 if name in ("dram",) else volts**2)
    return watts


def slower(x, clock, volts):
    """Return what clocks and leakage take less at a lower clock and voltage [W]."""
    return x["clocks [W]"] * (1.0 - clock / CLOCK * volts**2) + LEAKAGE * (1.0 - volts**2)


def fit(rows):
    names = list(START)

    def off(values):
        x = dict(zip(names, values, strict=True))
        errors = [predicted(x, row, idle, does) / row["watts"] - 1.0
                  for _, _, row, idle, does in rows]  # fmt: skip
        for file, watts in UNDISTURBED.items():
            idle = [i for f, axis, _, i, _ in rows if f == file and axis == "power"]
            if idle:
                errors.append((idle[0] - slower(x, RESTING, LEAST)) / watts - 1.0)
        return errors

    found = least_squares(off, [START[n] for n in names], x_scale=[START[n] for n in names],
                          bounds=(0, np.inf), loss="soft_l1", f_scale=0.03)  # fmt: skip
    spread = np.sqrt(np.diag(np.linalg.pinv(found.jac.T @ found.jac)) * 2 * found.cost
                     / max(len(rows) - len(names), 1))  # fmt: skip
    return dict(zip(names, found.x, strict=True)), dict(zip(names, spread, strict=True))


def is_fitted(file, axis, row):
    """Return whether a row is fitted to; the others are held back."""
    if axis == "energy":
        return file == SHARED.name
    issues = row["what"] == "spin" and row["threads"] > 32  # instructions, which are in operations
    return row["what"] not in ("stream", "load_cache") and not issues


def told(row):
    keys = ("what", "dtype", "data", "mib", "blocks", "threads", "duty", "every_us", "after_s")
    return ", ".join(f"{row[k]}" for k in keys if k in row)


def main(files):
    rows = read(files or FILES)
    x, spread = fit([r for r in rows if is_fitted(*r[:3])])
    print("| constant | value | standard error |\n|---|---|---|")
    for name, value in x.items():
        print(f"| {name} | {value:.4g} | {spread[name]:.2g} |")
    print("\n| run | axis | work | measured [W] | predicted [W] | error | |\n"
          "|---|---|---|---|---|---|---|")  # fmt: skip
    for file, axis, row, idle, does in rows:
        got = predicted(x, row, idle, does)
        print(
            f"| {file} | {axis} | {told(row)} | {row['watts']:.1f} | {got:.1f} | "
            f"{got / row['watts'] - 1:+.1%} | {'' if is_fitted(file, axis, row) else 'held back'} |"
        )


if __name__ == "__main__":
    main(sys.argv[1:])
