"""The main job: from the name of a machine or study to a compared sweep on disk."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from npusim import catalog, config, store
from npusim.arch import PARAMETERS, Arch, Designs, with_value
from npusim.compare import Measured, compare_designs, error_of, kernel_errors, measured
from npusim.errors import InputError
from npusim.load import load_arch, load_workload, require_traced, traced_arch
from npusim.models import modelled
from npusim.predict import not_modelled
from npusim.predict import replay as predict
from npusim.space import Progress, Space, best, evaluate, pareto, sweep, unmodelled
from npusim.workload import Workload


@dataclass(frozen=True)
class Job:
    """A sweep that is ready to run.

    Attributes
    ----------
    name, title, question : str
    arch : Arch
        The nominal machine.
    space : Space
    workloads : tuple of Workload
    given : tuple of str
        Names or paths under which the workloads were asked for.
    costs : tuple of str
        Axes that a designer pays for.
    baseline : Arch or None
        Machine that designs are put beside.
    refused : tuple of InputError
        Axes asked for that no cost model reads.
    """

    name: str
    title: str
    question: str
    arch: Arch
    space: Space
    workloads: tuple[Workload, ...]
    given: tuple[str, ...]
    costs: tuple[str, ...]
    baseline: Arch | None
    refused: tuple[InputError, ...]


@dataclass(frozen=True)
class Outcome:
    """A sweep that has run."""

    job: Job
    table: pd.DataFrame
    front: pd.DataFrame
    nominal: pd.Series[float]
    comparison: pd.DataFrame
    summary: dict[str, Any]


def read_job(
    name: str, workloads: Sequence[str], launch: Sequence[str], settings: Mapping[str, float]
) -> Job:
    """Read a machine with a sweep block, or a study.

    Parameters
    ----------
    name : str
        Path or name of an architecture or study file.
    workloads, launch : sequence of str
        What to use instead of what the file says; empty for what the file says.
    settings : mapping of str to float
        Parameters of the machine to change first [SI].

    Raises
    ------
    InputError, InputErrors
        Mistakes in the files, no sweep block, no axis left, or a setting that an axis overrides.
    """
    arch, block, title, question, job_name = _read(name)
    clash = next((p for p in settings if p in block.axes), None)
    if clash is not None:
        raise InputError(
            "is an axis of this sweep, which would override it",
            place=f"--set {clash}",
            hint="leave it out",
        )
    for path, value in settings.items():
        arch = with_value(arch, path, value)
    refused = unmodelled(list(block.axes))
    known = {p: v for p, v in block.axes.items() if p in modelled()}
    if not known:
        raise InputError(
            "no axis of this sweep has a cost model", file=name, value=", ".join(block.axes)
        )
    given = tuple(workloads or block.workloads)
    loaded = tuple(load_workload(w) for w in given)
    names = [w.name for w in loaded]
    if len(set(names)) != len(names):
        raise InputError("two workloads of one name", value=", ".join(names))
    baseline = load_arch(block.baseline) if block.baseline else traced_arch(loaded[0])
    space = Space(arch, known, tuple(dict.fromkeys(launch or block.launch)))
    costs = tuple(c for c in block.costs if c in known)
    return Job(
        job_name, title, question, arch, space, loaded, given, costs, baseline, tuple(refused)
    )


def _read(name: str) -> tuple[Arch, config.Sweep, str, str, str]:
    path = Path(name)
    is_path = path.suffix != "" or len(path.parts) > 1
    if not is_path and name not in catalog.names("archs") and name in catalog.names("studies"):
        file = catalog.find("studies", name)
    else:
        file = catalog.find("archs", name)
    if config.is_study(file):
        study = config.read_study(file)
        return load_arch(study.arch), study.sweep, study.title, study.question, study.name
    arch, block = config.read_arch(file)
    if block is None:
        with_block = [n for n in catalog.names("archs") if _has_sweep(n)]
        raise InputError(
            "has no sweep block", file=file, hint=f"try one that has: {', '.join(with_block)}"
        )
    return arch, block, arch.title, "", arch.name


def _has_sweep(name: str) -> bool:
    return config.read_arch(catalog.find("archs", name))[1] is not None


def run_job(job: Job, command: str, progress: Progress | None = None) -> Outcome:
    """Run a sweep and put it beside what was measured."""
    start = time.perf_counter()
    table = sweep(job.space, job.workloads, progress=progress)
    seconds = time.perf_counter() - start
    axes = list(job.space.axes)
    table.insert(0, "design_id", store.design_ids(table, job.arch, job.workloads, "model", axes))
    objectives = ["wall_s", *job.costs]
    front = pareto(table, objectives)
    nominal = _nominal(job)
    comparison = _comparison(job, table)
    summary = {
        "name": job.name,
        "title": job.title,
        "question": job.question,
        "designs": len(table),
        "seconds": seconds,
        "workloads": [w.name for w in job.workloads],
        "launch": list(job.space.launch),
        "axes": {
            p: {"unit": PARAMETERS[p].unit, "values": list(v)} for p, v in job.space.axes.items()
        },
        "refused": [str(e) for e in job.refused],
        "baseline": _baseline(job),
        "nominal": _row(nominal),
        "best": _row(best(table, job.costs)),
        "pareto": {
            "objectives": objectives,
            "size": len(front),
            "designs": [_row(row) for _, row in front.iterrows()],
        },
        "not_modelled": list(not_modelled(job.arch)),
        "notes": _notes(job),
        "made_by": {
            "command": command,
            "model": store.model_version(),
            "arch": {"name": job.arch.name, "id": store.arch_id(job.arch)},
            "workloads": [
                {"name": w.name, "id": w.id, "given": given}
                for w, given in zip(job.workloads, job.given, strict=True)
            ],
        },
    }
    return Outcome(job, table, front, nominal, comparison, summary)


def _nominal(job: Job) -> pd.Series[float]:
    """Return the machine as its file gives it, under the last launch mode of the sweep."""
    row = evaluate(Designs(job.arch), job.workloads, job.space.launch[-1]).iloc[0]
    values: pd.Series[float] = pd.concat(
        [pd.Series({path: job.arch[path] for path in job.space.axes}), row]
    )
    return values


def _comparison(job: Job, table: pd.DataFrame) -> pd.DataFrame:
    """Return how many times faster each design is than each measured figure."""
    parts = [table[["design_id", "launch", *job.space.axes, "wall_s", "device_busy_s"]]]
    for w in job.workloads:
        suffix = _suffix(w.name, len(job.workloads))
        found = compare_designs(table, w, suffix)
        parts.append(found.rename(columns={c: f"{w.name}: {c}" for c in found.columns}))
    return pd.concat(parts, axis=1)


def _suffix(workload: str, count: int) -> str:
    """Return what follows the columns of one workload of a sweep."""
    return f"[{workload}]" if count > 1 else ""


def _baseline(job: Job) -> dict[str, Any] | None:
    """Return the baseline machine: predicted under each launch mode, and measured."""
    if job.baseline is None:
        return None
    predicted = {}
    for launch in dict.fromkeys(("eager", *job.space.launch)):
        predicted[launch] = _row(evaluate(Designs(job.baseline), job.workloads, launch).iloc[0])
    figures = {w.name: [measured_content(m) for m in measured(w)] for w in job.workloads}
    return {
        "arch": job.baseline.name,
        "launch": "eager",
        "wall_s": predicted["eager"]["wall_s"],
        "device_busy_s": predicted["eager"]["device_busy_s"],
        "predicted": predicted,
        "measured": figures,
    }


def measured_content(m: Measured) -> dict[str, Any]:
    """Return a measured figure as plain values."""
    return {
        "device": m.device,
        "launch": m.launch,
        "quantity": f"{m.quantity}_s",
        "value": m.value_s,
        "low": m.low_s,
        "high": m.high_s,
        "like_for_like": m.like_for_like,
        "source": m.source,
        "note": m.note,
    }


def _row(row: pd.Series[float]) -> dict[str, Any]:
    """Return a row as plain values; what is undefined becomes None."""
    content: dict[str, Any] = {}
    for key, value in row.items():
        undefined = isinstance(value, (float, np.floating)) and not np.isfinite(value)
        plain = value.item() if isinstance(value, np.generic) else value
        content[str(key)] = None if undefined else plain
    return content


def _notes(job: Job) -> list[str]:
    notes: dict[str, None] = {}
    for w in job.workloads:
        for launch in job.space.launch:
            notes.update(dict.fromkeys(predict(w, job.arch, launch).notes))
    return list(notes)


def save_outcome(outcome: Outcome, folder: Path, figures: bool) -> list[Path]:
    """Write results, front, comparison, summary and figures of a sweep; return the figures."""
    about = {key: outcome.summary[key] for key in ("name", "workloads", "axes", "made_by")}
    store.save_results(folder, outcome.table, about)
    store.save_csv(folder / store.PARETO, outcome.front)
    store.save_csv(folder / store.COMPARISON, outcome.comparison)
    drawn: list[Path] = []
    if figures:
        from npusim.figures import save_sweep_figures

        job = outcome.job
        drawn = save_sweep_figures(
            folder,
            outcome.table,
            job.arch,
            job.workloads,
            job.costs,
            list(job.space.axes),
            outcome.nominal,
        )
    store.save_json(folder / store.SUMMARY, outcome.summary)
    return drawn


@dataclass(frozen=True)
class Compared:
    """A result beside measured figures."""

    name: str
    table: pd.DataFrame
    summary: dict[str, Any]


def compare_one(path: Path) -> Compared:
    """Put the results of a sweep, or a workload, beside measured baselines.

    Raises
    ------
    InputError
        Neither, or a workload from a machine that is not known.
    """
    is_results = path.is_dir() or (path.suffix == ".parquet" and path.name == store.RESULTS)
    return _compare_sweep(path) if is_results else _compare_workload(str(path))


def _compare_sweep(path: Path) -> Compared:
    table, about = store.load_results(path)
    names = about["workloads"]
    parts = [table[["design_id", "launch", *about["axes"], "wall_s", "device_busy_s"]]]
    ratios = {}
    for name, made in zip(names, about["made_by"]["workloads"], strict=True):
        w = load_workload(made["given"])
        if w.id != made["id"]:
            raise InputError(
                "workload has changed since the sweep", file=path, value=name, hint="sweep again"
            )
        found = compare_designs(table, w, _suffix(name, len(names)))
        parts.append(found)
        ratios[name] = {
            column: _ratios(found, column)
            for column in found.columns
            if f"{column}, low" in found.columns
        }
    summary = {
        "result": str(path),
        "name": about["name"],
        "designs": len(table),
        "times_faster_than": ratios,
        "made_by": about["made_by"],
    }
    return Compared(about["name"], pd.concat(parts, axis=1), summary)


def _ratios(found: pd.DataFrame, column: str) -> dict[str, float | None]:
    """Return how the designs of a sweep spread against one measured figure."""
    values = found[column]
    fastest = int(np.argmax(values.to_numpy()))
    ends = {end: float(found[f"{column}, {end}"].iloc[fastest]) for end in ("low", "high")}
    return {
        "slowest": float(values.min()),
        "median": float(values.median()),
        "fastest": float(values.max()),
        **{f"fastest_{end}": value if np.isfinite(value) else None for end, value in ends.items()},
    }


def _compare_workload(name: str) -> Compared:
    w = load_workload(name)
    arch = require_traced(w)
    rows = []
    for m in measured(w):
        if m.device not in arch.devices:
            continue
        result = predict(w, arch, m.launch)
        value = getattr(result, f"{m.quantity}_s")
        band = getattr(result.band, f"{m.quantity}_s") if result.band else (None, None)
        rows.append(
            {
                **measured_content(m),
                "predicted": value,
                "error": value / m.value_s - 1,
                "predicted_low": band[0],
                "predicted_high": band[1],
            }
        )
    errors = kernel_errors(w, arch)
    error = error_of(errors) if len(errors) else None
    kinds = {str(k): vars(error_of(part)) for k, part in errors.groupby("kind")}
    summary = {
        "result": name,
        "name": w.name,
        "arch": arch.name,
        "steps": rows,
        "kernels": vars(error) if error else None,
        "kinds": kinds,
        "made_by": {"model": store.model_version(), "workload": w.id},
    }
    return Compared(w.name, pd.DataFrame(rows), summary)


def save_comparisons(file: Path, compared: Sequence[Compared]) -> None:
    """Write comparisons, one below the other, as CSV."""
    parts = [c.table.assign(result=c.name) for c in compared]
    store.save_csv(file, pd.concat(parts, ignore_index=True))
