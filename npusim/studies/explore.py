"""The designs and rooflines that the page lets a reader walk through.

Designs are those of a study that asks for the best of its sweep. A page shows so many at most
(`SHOWN`): the front over time, energy and area, the best at the area and power of each machine, and
others spread evenly over the rest.

Left out of the rooflines: kernels without FLOP (copies, casts), and fusion: kernels are as traced.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from npusim import units
from npusim.arch import Designs
from npusim.durations import durations
from npusim.job import Job
from npusim.load import load_workload
from npusim.parameters import PARAMETERS
from npusim.plots import roof
from npusim.studies.best import LAUNCH, best, designs_of
from npusim.studies.claim import Compare
from npusim.studies.decide import Answer
from npusim.studies.outcomes import JOULES, KIND, outcomes
from npusim.studies.work import TITLES, machine, names
from npusim.sweeps.front import pareto

SHOWN = 600
OBJECTIVES = (
    ("wall_s", "time of the work", "ms", 1e3),
    ("energy_j", "energy of the work", "J", 1.0),
    ("area_mm2", "area of the die", "mm\u00b2", 1.0),
)
ROOFS = ("decode_npu", "h200", "rtx_5090")
_WORK = ("decode", "vision")
_SHARES = 60  # kernels of a workload, those that take most time on any machine


def compared(answer: Answer) -> list[str]:
    """Return the machines at whose area and power a study looks for the best design."""
    sides = [side for claim in answer.question.claims if isinstance(claim.test, Compare)
             for side in (claim.test.design, claim.test.against)]  # fmt: skip
    return list(dict.fromkeys(side.best for side in sides if side.best))


def designs(answer: Answer) -> dict[str, Any] | None:
    """Return the designs of a study for the page; None of one that asks for no best."""
    likes = compared(answer)
    if not likes:
        return None
    study = answer.question.file
    job, table = designs_of(study)
    chosen = [best(study, like) for like in likes]
    front = pareto(table, [name for name, *_ in OBJECTIVES]).index
    rows = _shown(table, [one.number for one in chosen], front)
    axes = list(job.space.axes)
    columns = {path: table[path].to_numpy()[rows] for path in axes}
    found = _evaluated(job, job.arch.name, columns)
    nominal = {path: job.arch.values.get(path) for path in axes}  # noqa: PD011
    same = np.logical_and.reduce([columns[path] == nominal[path] for path in axes])
    others = {**{name: _evaluated(job, name, {}) for name in likes}}
    kinds, blocks = (
        _names([found, *others.values()], KIND),
        _names([found, *others.values()], JOULES),
    )
    return {
        "title": answer.question.title,
        "work": "sum of " + ", ".join(f"{n:g} x {w.name}" for w, n in
                                      zip(job.workloads, job.counts, strict=True)),
        "axes": [_axis(path, columns[path]) for path in axes],
        "objectives": [dict(zip(("name", "label", "unit", "scale"), one, strict=True))
                       for one in OBJECTIVES],
        "points": {
            "launch": [LAUNCH] * len(rows),
            **{path: column.tolist() for path, column in columns.items()},
            **{name: found[name].tolist() for name in
               ("wall_s", "wall_low_s", "wall_high_s", "energy_j", "area_mm2")},
        },
        "front": np.isin(rows, front).tolist(),
        "time": {"kinds": [*kinds, "idle"], "ms": _time(found, kinds)},
        "energy": {"blocks": blocks, "mj": _parts(found, JOULES, blocks)},
        "baselines": [
            {"name": f"{_called(name)}, hardware queue (predicted)",
             **{key: float(row[key].iloc[0]) for key in ("wall_s", "energy_j", "area_mm2")},
             "time": _time(row, kinds)[0], "energy": _parts(row, JOULES, blocks)[0]}
            for name, row in others.items()
        ],
        "nominal": int(np.flatnonzero(same)[0]) if same.any() else None,
        "baseline": 0,
    }  # fmt: skip


def _shown(table: pd.DataFrame, chosen: Sequence[int], front: pd.Index) -> list[int]:
    """Return rows to show, sorted."""
    first = list(dict.fromkeys([*chosen, *(int(i) for i in front)]))[:SHOWN]
    rest = [i for i in range(len(table)) if i not in set(first)]
    more = np.linspace(0, len(rest) - 1, min(SHOWN - len(first), len(rest))).round().astype(int)
    return sorted({*first, *(rest[i] for i in more)})


def _evaluated(job: Job, arch: str, columns: dict[str, Any]) -> pd.DataFrame:
    return outcomes(Designs(machine(arch), columns), job.workloads, LAUNCH, job.counts)


def _names(tables: Sequence[pd.DataFrame], prefix: str) -> list[str]:
    """Return the kinds or blocks of some tables, those that take most first."""
    total: dict[str, float] = {}
    for table in tables:
        for column in map(str, table.columns):
            if column.startswith(prefix):
                name = column.removeprefix(prefix)
                total[name] = total.get(name, 0.0) + float(table[column].mean())
    return sorted(total, key=lambda name: -total[name])


def _parts(table: pd.DataFrame, prefix: str, names: Sequence[str]) -> list[list[float]]:
    """Return what each row takes, in thousandths."""
    zero = np.zeros(len(table))
    columns = [table[prefix + n].to_numpy() if prefix + n in table else zero for n in names]
    return [[float(f"{1e3 * x:.5g}") for x in row] for row in np.array(columns).T]


def _time(table: pd.DataFrame, kinds: Sequence[str]) -> list[list[float]]:
    rows = _parts(table, KIND, kinds)
    idle = table["device_idle_s"].to_numpy()
    return [[*row, float(f"{1e3 * x:.5g}")] for row, x in zip(rows, idle, strict=True)]


def _axis(path: str, column: Any) -> dict[str, Any]:
    unit, values = PARAMETERS[path].unit, [float(x) for x in np.unique(column)]
    return {"path": path, "unit": unit, "values": values,
            "labels": {repr(x): units.show(x, unit) for x in values}}  # fmt: skip


def rooflines() -> list[dict[str, Any]]:
    """Return the kernels of shipped traces under the roofs of machines, as predicted."""
    found = []
    for model, title in TITLES.items():
        for work in _WORK:
            w = load_workload(names(model, work)[0])
            found.append({
                "workload": f"{title}, {work}",
                "machines": [_roof(name) for name in ROOFS],
                "kernels": _kernels(w),
            })  # fmt: skip
    return found


def _called(name: str) -> str:
    """Return the title of a machine without what stands in brackets."""
    return machine(name).title.split(" (")[0]


def _roof(name: str) -> dict[str, Any]:
    slope, top, _ = roof(machine(name))
    return {"name": _called(name), "peak": top * 1e12, "bandwidth": slope * 1e12}


def _kernels(w: Any) -> list[dict[str, Any]]:
    rows, inverse = w.unique()
    often = np.bincount(inverse, minlength=len(rows))
    flop, moved, kind = w["flop"][rows], w.bytes_moved[rows], w.text("kind")[rows]
    drawn = np.flatnonzero((flop > 0) & (moved > 0))
    rate, share = {}, {}
    for name in ROOFS:
        time = durations(w, Designs(machine(name))).table[: len(rows), 0]
        whole = float((often * time).sum())
        rate[name], share[name] = flop / time, often * time / whole
    most = np.max([share[name] for name in ROOFS], axis=0)
    kept = sorted(drawn[np.argsort(-most[drawn], kind="stable")][:_SHARES])
    shapes = {c: w[c][rows] for c in ("m", "n", "k")}
    return [
        {"name": f"{kind[i]} {shapes['m'][i]:g} x {shapes['n'][i]:g} x {shapes['k'][i]:g}",
         "kind": str(kind[i]), "intensity": float(flop[i] / moved[i]),
         "rate": {_called(n): float(rate[n][i]) for n in ROOFS},
         "share": {_called(n): float(share[n][i]) for n in ROOFS}}
        for i in kept
    ]  # fmt: skip
