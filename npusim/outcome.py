"""A sweep that has run: its summary, and what of it is written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from npusim import store
from npusim.arch import Designs
from npusim.atomic import whole_folder
from npusim.beside import measured_content, suffix
from npusim.caveats import not_modelled, notes
from npusim.compare import compare_designs, measured
from npusim.constraints import NOMINAL, allowed
from npusim.job import Job
from npusim.load import load_arch, traced_arch
from npusim.merit import MERITS
from npusim.parameters import MEMORIES, PARAMETERS
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.sweeps.front import best, objective, pareto, without_effect
from npusim.sweeps.run import Progress, sweep
from npusim.transforms import TRANSFORMABLE, applies, limits, needs, present, split
from npusim.workload import Workload

_FIGURES = (
    "latency_cost.png", "axis_effects.png", "roofline.png", "predicted_measured.png",
    *(f"axis_effects_{name}.png" for name in MERITS),
    *(f"dram_traffic_{memory}.png" for memory in MEMORIES),
    *(f"gain_by_context_{memory}.png" for memory in MEMORIES),
)  # fmt: skip
_OUTPUTS = (store.RESULTS, store.PARETO, store.COMPARISON, store.SUMMARY, *_FIGURES)


@dataclass(frozen=True)
class Outcome:
    """A sweep that has run."""

    job: Job
    table: pd.DataFrame
    front: pd.DataFrame
    nominal: pd.Series[float]
    comparison: pd.DataFrame
    summary: dict[str, Any]


def run_job(job: Job, command: str, progress: Progress | None = None) -> Outcome:
    """Run a sweep and put it beside what was measured."""
    nominal = _nominal(job)
    references = _references(job, nominal)
    for one in job.constraints:
        one.bounds(references)  # refuses a machine without the figure before the sweep
    start = time.perf_counter()
    table = sweep(job.space, job.workloads, progress=progress, counts=job.counts)
    seconds = time.perf_counter() - start
    axes = list(job.space.axes)
    swept = [(w, n, traced_arch(w)) for w, n in zip(job.workloads, job.counts, strict=True)]
    table.insert(0, "design_id", store.design_ids(table, job.arch, swept, "model", axes))
    table["allowed"] = allowed(table, job.constraints, references)
    time_of, fair = objective(table), table[table["allowed"]]
    objectives = [time_of, *job.costs]
    front, fastest = pareto(fair, objectives), best(fair, job.costs)
    comparison, idle = _comparison(job, table), without_effect(job.space, table)
    summary = {
        "name": job.name,
        "title": job.title,
        "question": job.question,
        "designs": len(table),
        "seconds": seconds,
        "workloads": [w.name for w in job.workloads],
        "steps": dict(zip((w.name for w in job.workloads), job.counts, strict=True)),
        "launch": list(job.space.launch),
        "axes": {
            p: {"unit": PARAMETERS[p].unit, "values": list(v)} for p, v in job.space.axes.items()
        },
        "refused": [str(e) for e in job.refused],
        "no_effect": list(idle),
        "baseline": _baseline(job),
        "nominal": _row(nominal),
        "best": _row(fastest),
        "constraints": [asdict(one) for one in job.constraints],
        "allowed": len(fair),
        "as_fast": int((fair[time_of] <= fastest[time_of] * (1 + 1e-9)).sum()),
        "best_at_edge": _at_edge(job, fastest, idle),
        "pareto": {
            "objectives": objectives,
            "size": len(front),
            "designs": [_row(row) for _, row in front.iterrows()],
        },
        "not_modelled": list(not_modelled(job.arch)),
        "notes": [*_unmet(job, table), *_notes(job)],
        "made_by": {
            "command": command,
            "model": store.model_version(),
            "arch": {"name": job.arch.name, "id": store.arch_id(job.arch)},
            "workloads": [
                {
                    "name": w.name,
                    "id": w.id,
                    "given": given,
                    "profiler": w.meta.get("profiler", "in"),
                    "traced": store.arch_id(traced) if traced is not None else "",
                }
                for (w, _, traced), given in zip(swept, job.given, strict=True)
            ],
        },
    }
    return Outcome(job, table, front, nominal, comparison, summary)


def _nominal(job: Job) -> pd.Series[float]:
    """Return the machine as its file gives it, under the last launch mode of the sweep.

    An axis over something that the machine itself lacks has no nominal value, nor has one over
    something in which the workloads differ: NaN.
    """
    machine, launch = Designs(job.arch), job.space.launch[-1]
    workloads = with_changes(job.workloads, job.changes)
    table = evaluate(machine, workloads, launch, counts=job.counts)
    own = pd.Series({path: _own(path, machine, workloads) for path in job.space.axes})
    values: pd.Series[float] = pd.concat([own, table.iloc[0]])
    return values


def _unmet(job: Job, table: pd.DataFrame) -> Iterator[str]:
    """Say how many designs take more than their power limit at any clock."""
    path = "power.limit"
    limit = table[path] if path in table else job.arch.values.get(path)  # noqa: PD011
    if limit is None or "power_w" not in table:
        return
    over = int((table["power_w"] > limit * 1.01).sum())
    if over:
        yield f"NOT HELD: {over} designs take more than power.limit at any clock"


def _references(job: Job, nominal: pd.Series[float]) -> dict[str, dict[str, float]]:
    """Return the figures of the machines that constraints compare with."""
    found = {}
    for name in dict.fromkeys(one.like for one in job.constraints if one.like):
        if name == NOMINAL:
            row, machine = nominal, job.arch
        else:
            machine = load_arch(name)
            workloads = with_changes(job.workloads, job.changes)
            launch = job.space.launch[-1]
            row = evaluate(Designs(machine), workloads, launch, counts=job.counts).iloc[0]
        values = {str(k): float(v) for k, v in row.items() if isinstance(v, (int, float))}
        found[name] = {**machine.values, **values}  # noqa: PD011
    return found


def _own(path: str, machine: Designs, workloads: Sequence[Workload]) -> float:
    """Return the value that a parameter has before it is swept, or NaN."""
    if path in TRANSFORMABLE:
        found = {value for w in workloads if (value := present(w, path)) is not None}
        return found.pop() if len(found) == 1 else np.nan
    return float(machine[path][0]) if path in machine else np.nan


def _comparison(job: Job, table: pd.DataFrame) -> pd.DataFrame:
    """Return how many times faster each design is than each measured figure."""
    parts = [table[["design_id", "launch", *job.space.axes, "wall_s", "device_busy_s"]]]
    for w in job.workloads:
        found = compare_designs(table, w, suffix(w.name, len(job.workloads)))
        parts.append(found.rename(columns={c: f"{w.name}: {c}" for c in found.columns}))
    return pd.concat(parts, axis=1)


def _at_edge(job: Job, row: pd.Series[float], no_effect: Sequence[str]) -> list[str]:
    """Return the axes on whose edge a design lies, those with an effect: look beyond them.

    Not those of the workloads: less work is always faster.
    """
    of_machine = split(job.space.axes)[0].items()
    axes = {p: v for p, v in of_machine if len(v) > 2 and p not in no_effect}
    return [p for p, v in axes.items() if row[p] in (min(v), max(v))]


def _baseline(job: Job) -> dict[str, Any] | None:
    """Return the baseline machine: predicted under each launch mode, and measured."""
    if job.baseline is None:
        return None
    predicted, workloads = {}, with_changes(job.workloads, job.changes)
    for launch in dict.fromkeys(("eager", *job.space.launch)):
        table = evaluate(Designs(job.baseline), workloads, launch, counts=job.counts)
        predicted[launch] = _row(table.iloc[0])
    figures = {w.name: [measured_content(m) for m in measured(w)] for w in job.workloads}
    return {
        "arch": job.baseline.name,
        "launch": "eager",
        "wall_s": predicted["eager"]["wall_s"],
        "device_busy_s": predicted["eager"]["device_busy_s"],
        "predicted": predicted,
        "measured_wall_s": {
            "traced": _whole(job, traced=True),
            "unprofiled": _whole(job, traced=False),
        },
        "measured": figures,
    }


def _whole(job: Job, *, traced: bool) -> float | None:
    """Return the measured eager wall time of all steps on the baseline, or None if one lacks it."""
    devices = job.baseline.devices if job.baseline is not None else ()
    total = 0.0
    for w, count in zip(job.workloads, job.counts, strict=True):
        found = [
            m.value_s
            for m in measured(w)
            if m.device in devices and (m.launch, m.quantity, m.traced) == ("eager", "wall", traced)
        ]
        if not found:
            return None
        total += count * found[0]
    return total


def _row(row: pd.Series[float]) -> dict[str, Any]:
    """Return a row as plain values; what is undefined becomes None."""
    content: dict[str, Any] = {}
    for key, value in row.items():
        undefined = isinstance(value, (float, np.floating)) and not np.isfinite(value)
        plain = value.item() if isinstance(value, np.generic) else value
        content[str(key)] = None if undefined else plain
    return content


def _notes(job: Job) -> list[str]:
    """Return what limits the predictions of a sweep; of which workload, where they differ."""
    told: dict[str, list[str]] = {}
    for w in job.workloads:
        for launch in job.space.launch:
            for note in notes(w, job.arch, launch, "model"):
                told.setdefault(note, []).append(w.name)
    if job.baseline is not None:
        for w in job.workloads:
            for note in notes(w, job.baseline, "eager", "model"):
                if "host" in note:
                    told.setdefault(f"{job.baseline.name}, eager: {note}", []).append(w.name)
    everywhere = len(job.workloads)
    return list(_about_changes(job)) + [
        note if len(set(names)) == everywhere else f"{', '.join(dict.fromkeys(names))}: {note}"
        for note, names in told.items()
    ]


def _about_changes(job: Job) -> Iterator[str]:
    """Yield what a reader should know of axes and settings that change the workloads."""
    paths = list(split(job.space.axes)[1])
    if paths:
        changed = f"designs that change {', '.join(paths)} do other work"
        yield f"measured figures are of the workloads as traced; {changed}"
    for path in paths:
        without = [w.name for w in job.workloads if not applies(w, path)]
        if without:
            yield f"{path} changes nothing in {', '.join(without)}: no {needs(path)}"
    yield from limits(paths)


def save_outcome(outcome: Outcome, folder: Path, figures: bool) -> list[Path]:
    """Write results, front, comparison, summary and figures of a sweep; return the files.

    Everything is made beside the folder first and moved there at the end, and what an earlier
    sweep left there under the same names goes, so that a folder holds one sweep.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    about = {key: outcome.summary[key] for key in ("name", "workloads", "axes", "made_by")}
    with whole_folder(folder, _OUTPUTS) as temporary:
        store.save_results(temporary, outcome.table, about)
        store.save_csv(temporary / store.PARETO, outcome.front)
        store.save_csv(temporary / store.COMPARISON, outcome.comparison)
        store.save_json(temporary / store.SUMMARY, outcome.summary)
        if figures:
            _draw(outcome, temporary)
    return sorted(folder / name for name in _OUTPUTS if (folder / name).is_file())


def _draw(outcome: Outcome, folder: Path) -> None:
    from npusim.figures import save_sweep_figures

    job = outcome.job
    save_sweep_figures(
        folder,
        outcome.table,
        job.arch,
        job.workloads,
        job.costs,
        [path for path in job.space.axes if path not in job.changes],
        outcome.nominal,
        job.counts,
    )
