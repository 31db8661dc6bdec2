"""Numbers of the library's routines from a trace of `npusim.capture.routines`.

    python benchmarks/routines.py fold TRACE OUT.parquet [CACHES]
    python benchmarks/routines.py fit WORKLOAD MACHINE [OUT.yaml]
    python benchmarks/routines.py fused AXES.json MACHINE [OUT.yaml]

`fold` keeps one step of a trace: of each operation the median time over the steps, without the
kernels that rewrite inputs; CACHES is `warm`, or `step` where weights are read once. `fit` finds
which numbers a routine needs (another one, or others than the machine has, only where that lowers
the cost by a tenth), fits them to a random half of its calls (bounded least squares of the log
error, robust to outliers) and prints the errors on the other half. What it writes is fitted to
both halves. `fused` does the same with the kernels of a compiler by form, timed inside a graph.
"""

import itertools
import json
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
from scipy.optimize import least_squares

import npusim as ns
from npusim.arch import Designs
from npusim.importers.work import Work
from npusim.library import HOST_COPIES, NUMBERS, ROUTINES
from npusim.measured.shapes import Measurable, operations
from npusim.models.cost import smooth_max
from npusim.models.floor import floor_path
from npusim.models.links import chained
from npusim.models.routine import Shape, routine_shape, with_starts
from npusim.workload import Steps, Workload

REWRITES = ("aten::neg_", "aten::logical_or", "aten::logical_or_", "aten::mul_")
SEED, SPREAD, WORTH, FEWEST = 7, 0.1, 1.1, 6
STARTS = {"element": (0.05, 0.5, 5.0), "block": (30.0, 300.0), "chain": (5.0, 100.0, 500.0)}
MOST = {"floor": 1e-4, "element": 1e3, "block": 2e3, "chain": 1e4}
LEAST = {"floor": 5e-7, "element": 1e-4, "block": 1.0, "chain": 1.0}
# Streams on 8 units of an H200 (h200_axes.json, sm_count) take 101 cycles for each 1,024 elements
# of 2 bytes, which is less than the instructions or blocks that would explain these calls.
REFUTED = {"vectorized": ("element", "block")}
FUSED = {
    "fused_steps": ("steps",),
    "fused_rows": ("squares", "moments"),
    "fused_passes": ("maximum",),
}
# A routine that no call is known to be, and those it lies between: addresses over three dimensions.
BETWEEN = {"cat": ("cat_2d", "cat_4d")}
CHOICES = [*itertools.chain(*(itertools.combinations(STARTS, n) for n in range(4)))]


class Found(NamedTuple):
    """A routine's numbers: fitted to all rows, to each half and all, errors on the other half,
    the floor of the machine for that kind of kernel, and the rows of the other half."""

    routine: str
    rows: int
    chosen: tuple
    values: np.ndarray
    fits: np.ndarray
    errors: np.ndarray
    floor_s: float
    held: np.ndarray


def fold(trace, out, caches="warm"):
    w = ns.import_trace(trace)
    steps = len(w.steps)
    one = len(w) // steps
    for c in ("kernel", "blocks", "step"):
        rows = w[c].reshape(steps, one)
        assert c == "step" or (rows == rows[0]).all(), f"steps differ in {c}"
    keep = np.flatnonzero(~w.mask("operator", *REWRITES)[:one])
    times = np.median(w["duration_s"].reshape(steps, one), axis=0)
    columns = {c: v[:one][keep] for c, v in w.columns.items()}
    columns["duration_s"] = times[keep]
    folded = Workload(
        "h200_routines",
        columns,
        w.labels,
        Steps(w.steps.wall_s[:1], w.steps.tail_s[:1]),
        meta={
            **w.meta,
            "folded_steps": steps,
            "rewrites_left_out": one - len(keep),
            "caches": caches,
        },  # warm: inputs have just been rewritten
    )
    ns.save_workload(folded, Path(out))
    print(f"{out}: {len(folded)} operations of {one}, medians of {steps} steps")


def times(numbers, shape, clock):
    floor, element, block, chain = numbers
    issue = (shape.rounds * block + shape.share * element) / clock
    links = chained(shape.depth, shape.full, chain, shape.loading) / clock
    wait = links * shape.again + shape.missed
    compute = smooth_max(np.hypot(issue, shape.matrix), wait, shape.power)
    busy = with_starts(smooth_max(shape.memory, compute, shape.power), shape)
    return (floor + links + shape.stagger + shape.first + busy)[:, 0]


def fit(shape, measured, clock, chosen):
    """Return cost and numbers of the best fit with a floor and the chosen numbers."""
    names = ["floor", *chosen]
    at = [list(NUMBERS).index(n) for n in names]

    def whole(logs):
        numbers = np.zeros(len(NUMBERS))
        numbers[at] = np.exp(logs)
        return numbers

    def error(logs):
        return np.log(times(whole(logs), shape, clock) / measured)

    low, high = (np.log([side[n] for n in names]) for side in (LEAST, MOST))
    best = None
    for start in itertools.product(*(STARTS[n] for n in chosen)):
        guess = np.log([0.9 * measured.min(), *start])
        found = least_squares(
            error,
            np.clip(guess, low + 1e-6, high - 1e-6),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=SPREAD,
        )
        if best is None or found.cost < best[0]:
            best = (found.cost, whole(found.x))
    return best


def choose(routine, shape, measured, clock, designs):
    """Return the numbers worth having: one more must lower the cost by a tenth.

    So must others in place of those that the machine has. All these calls ran on a whole machine;
    what streams on few units refute is no choice.
    """
    choices = CHOICES if routine not in HOST_COPIES else [()]
    choices = [c for c in choices if not set(c) & set(REFUTED.get(routine, ()))]
    costs = {c: fit(shape, measured, clock, c)[0] * WORTH ** len(c) for c in choices}
    best = min(costs, key=costs.get)
    had = tuple(n for n in STARTS if f"library.{routine}.{n}" in designs)
    return had if costs.get(had, np.inf) <= WORTH * costs[best] else best


def part(shape, rows):
    return Shape(*(getattr(shape, f)[rows] for f in Shape.__dataclass_fields__))


def distinct(w, rows):
    """Return one row of each that a model cannot tell apart, and the median time of its like."""
    table = np.column_stack(
        [
            w[c][rows].astype(float)
            for c in ("kernel", "m", "n", "batch", "flop", "blocks", "threads")
        ]
        + [w.bytes_moved[rows]]
    )
    first, which = np.unique(table, axis=0, return_index=True, return_inverse=True)[1:]
    spent = w["duration_s"][rows]
    return rows[first], np.array([np.median(spent[which.ravel() == i]) for i in range(len(first))])


def calibrate(w, machine, wanted=tuple(ROUTINES)):
    """Yield what was found of each routine."""
    designs = Designs(ns.load_arch(machine))
    clock = float(designs["units.clock"][0])
    routine = w.text("routine")
    usable = (routine != "") & ~w.mask("basis", "name", "none")
    for name in sorted({*routine[usable], *BETWEEN} & set(wanted)):
        like = (name, *BETWEEN.get(name, ()))
        rows, measured = distinct(w, np.flatnonzero(usable & np.isin(routine, like)))
        if len(rows) < FEWEST:
            print(f"{name}: {len(rows)} rows are too few", file=sys.stderr)
            continue
        shape = routine_shape(w.operations(rows), designs)
        half = np.random.default_rng(SEED).permutation(len(rows)) < (len(rows) + 1) // 2
        chosen = choose(name, shape, measured, clock, designs)
        one, other, both = (
            fit(part(shape, r), measured[r], clock, chosen)[1] for r in (half, ~half, half | ~half)
        )
        errors = np.abs(times(one, part(shape, ~half), clock) / measured[~half] - 1)
        kinds, counts = np.unique(w.text("kind")[rows].astype(str), return_counts=True)
        floor_s = float(designs[floor_path(kinds[np.argmax(counts)])][0])
        yield Found(
            name,
            len(rows),
            ("floor", *chosen),
            both,
            np.array([one, other, both]),
            errors,
            floor_s,
            rows[~half],
        )


def calibrate_fused(axes, machine):
    """Yield what was found of each form of fused kernels."""
    designs = Designs(ns.load_arch(machine))
    clock = float(designs["units.clock"][0])
    given = [r for r in json.loads(Path(axes).read_text()) if r["axis"] == "fused_kernels"]
    for name, forms in FUSED.items():
        rows = [r for r in given if r["form"] in forms]
        measured = np.array([r["graph_us"] * 1e-6 for r in rows])
        between = float(designs["launch.graph.interval"][0])
        shape = routine_shape(fused_operations(name, rows), designs)
        half = np.random.default_rng(SEED).permutation(len(rows)) < (len(rows) + 1) // 2
        chosen = choose(name, shape, measured - between, clock, designs)
        one, other, both = (
            fit(part(shape, r), measured[r] - between, clock, chosen)[1]
            for r in (half, ~half, half | ~half)
        )
        errors = np.abs(times(one, part(shape, ~half), clock) / (measured[~half] - between) - 1)
        floor_s = float(designs[floor_path("fused")][0])
        numbers = np.array([one, other, both])
        held = np.flatnonzero(~half)
        yield Found(name, len(rows), ("floor", *chosen), both, numbers, errors, floor_s, held)


def fused_operations(routine, rows):
    """Return fused kernels as a cost model sees them: warm, one block a row if they reduce it."""
    reduces = routine != "fused_steps"
    made = []
    for r in rows:
        elements = r["m"] * r["n"]
        work = Work(
            "fused",
            "fp32",
            batch=1,
            m=r["m"] if reduces else 1,
            n=r["n"] if reduces else elements,
            flop=2.0 * r["steps"] * elements,
            read_activation=2.0 * r["inputs"] * elements,
            write_activation=2.0 * elements,
        )
        near = work.read_activation + work.write_activation
        blocks = r["m"] if reduces else 0
        made.append(Measurable(work, near, near, near, "fusion", routine, blocks))
    return operations(made)


def report(source, machine, out=None, calibrated=None):
    found = list((calibrated or calibrate)(*_opened(source, machine)))
    print(
        f"{'routine':24} {'n':>4} {'floor us':>8} {'element':>8} {'block':>7} {'chain':>6} "
        f"{'median':>7} {'p90':>6} {'worst':>6}"
    )
    for f in found:
        show = (f.values[0] * 1e6, *f.values[1:], *(100 * np.quantile(f.errors, (0.5, 0.9, 1.0))))
        print(
            f"{f.routine:24} {f.rows:4} {show[0]:8.2f} {show[1]:8.3f} {show[2]:7.0f} "
            f"{show[3]:6.0f} {show[4]:6.1f}% {show[5]:5.0f}% {show[6]:5.0f}%"
        )
    errors = np.concatenate([f.errors for f in found])
    print(
        f"{len(found)} routines, {sum(len(f.chosen) for f in found)} numbers; {len(errors)} "
        f"held back: median {100 * np.median(errors):.1f} %, "
        f"p90 {100 * np.quantile(errors, 0.9):.1f} %"
    )
    if out is not None:
        lines = [line for f in found for line in written(f, Path(source).name)]
        Path(out).write_text("\n".join(["library:", *lines, ""]))


def _opened(source, machine):
    return (source if source.endswith(".json") else ns.load_workload(source)), machine


def report_fused(axes, machine, out=None):
    report(axes, machine, out, calibrate_fused)


def written(f, source):
    """Return the lines of a routine in a machine's file; the range is that of halves and whole."""
    median, p90 = 100 * np.quantile(f.errors, (0.5, 0.9))
    yield f"  {f.routine}:"
    for i, name in enumerate(NUMBERS):
        if name in f.chosen:
            scale = 1 / f.floor_s if name == "floor" else 1.0
            low, value, high = (
                f"{v * scale:.3g}" for v in (f.fits[:, i].min(), f.values[i], f.fits[:, i].max())
            )
            about = f"{source}, {f.rows} calls; half held back: {median:.0f} %, p90 {p90:.0f} %"
            yield (
                f'    {name}: {{value: {value}, source: "{about}", kind: calibrated, '
                f"range: [{low}, {high}]}}"
            )


if __name__ == "__main__":
    {"fold": fold, "fit": report, "fused": report_fused}[sys.argv[1]](*sys.argv[2:])
