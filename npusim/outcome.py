"""A sweep that has run: its summary, and what of it is written."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from npusim import store
from npusim.atomic import whole_folder
from npusim.axes import ARCH
from npusim.beside import suffix
from npusim.caveats import not_modelled
from npusim.compare import compare_designs
from npusim.constraints import Limit, limits_of, refuse_none
from npusim.errors import InputError
from npusim.job import Job
from npusim.job_notes import job_notes, unmet
from npusim.load import traced_arch
from npusim.merit import MERITS
from npusim.parameters import MEMORIES, PARAMETERS
from npusim.references import baseline, nominal_design, plain, references
from npusim.sweeps import results
from npusim.sweeps.blocks import Store
from npusim.sweeps.design_task import DesignTask
from npusim.sweeps.digest import TABLE, Digest, Digesting, evenly
from npusim.sweeps.encoding import ABOUT
from npusim.sweeps.engines import Progress, run
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.front import without_effect
from npusim.sweeps.lines import lines
from npusim.sweeps.task import Block, Unfinished, part
from npusim.tokens import repeated, tokens_per_step
from npusim.transforms import split
from npusim.workload import Workload

_FIGURES = (
    "latency_cost.png", "axis_effects.png", "roofline.png", "predicted_measured.png",
    *(f"axis_effects_{name}.png" for name in MERITS),
    *(f"dram_traffic_{memory}.png" for memory in MEMORIES),
    *(f"gain_by_context_{memory}.png" for memory in MEMORIES),
)  # fmt: skip
_SLIGHT = 1e-3  # of the time of the best: less than what is printed of it
_LINES = 64  # random designs with lines through them, of a sweep that is too large to be shown
_ALONE = 30_000  # designs that are done before a second process is ready to help
_COMPARED = 100_000  # designs that are all put beside measurement
_OUTPUTS = (store.PARETO, store.COMPARISON, store.SUMMARY, *_FIGURES)


@dataclass(frozen=True)
class Outcome:
    """A sweep that has run.

    Attributes
    ----------
    job : Job
    table : DataFrame
        Its designs; of more than 200,000 the front, the best, an even sample, and lines on which
        one axis alone changes.
    front : DataFrame
    nominal : Series
        The machine as it is.
    comparison : DataFrame
        How many times faster than each measured figure designs are: all designs up to 100,000,
        else the front and the best.
    summary : dict
    kept : Path or None
        The folder that has the results already.
    """

    job: Job
    table: pd.DataFrame
    front: pd.DataFrame
    nominal: pd.Series[float]
    comparison: pd.DataFrame
    summary: dict[str, Any]
    kept: Path | None = None


@dataclass(frozen=True)
class How:
    """How a sweep is run.

    Attributes
    ----------
    folder : Path or None
        Where its results go, and its blocks until then; None keeps all in memory.
    engine : str
        ``local``, or ``dask://HOST:PORT``.
    workers : int or None
        Processes of ``local``; one a core by default.
    resume : bool
        Go on with what is in the folder.
    part : str
        ``I/N``: evaluate only the blocks of one of N machines; empty for all.
    bands : bool
        Whether the front holds every design that is not surely beaten.
    """

    folder: Path | None = None
    engine: str = "local"
    workers: int | None = 1
    resume: bool = False
    part: str = ""
    bands: bool = False


def run_job(
    job: Job, command: str, progress: Progress | None = None, how: How | None = None
) -> Outcome:
    """Run a sweep and put it beside what was measured.

    Raises
    ------
    InputError
        No design meets the constraints, the folder cannot be used, or a part was asked for and
        other parts are missing.
    """
    how = how or How()
    nominal = nominal_design(job)
    limits = limits_of(job.constraints, references(job))
    start, time_of = time.perf_counter(), _ranked_by(job)
    task = DesignTask(job.space, job.workloads, job.counts, limits, description=_about(job))
    digesting = _digesting(job, task, time_of, nominal, how.bands)
    if how.folder is None:
        found = _in_memory(task, digesting, progress)
    else:
        found = _on_disk(task, digesting, how.folder, how, progress)
    seconds = time.perf_counter() - start
    table, front, fastest = found.shown, found.front, found.best
    objectives = [time_of, *job.costs]
    compared = table if len(table) <= _COMPARED else _with(front, fastest)
    comparison, idle = _comparison(job, compared), without_effect(job.space, table)
    slight = _slight(job, table, fastest, time_of, idle)
    summary = {
        "name": job.name,
        "title": job.title,
        "question": job.question,
        "designs": found.designs,
        "seconds": seconds,
        "workloads": [w.name for w in job.workloads],
        "steps": dict(zip((w.name for w in job.workloads), job.counts, strict=True)),
        "launch": list(job.space.launch),
        "axes": {
            p: {"unit": PARAMETERS[p].unit, "values": list(v)} for p, v in job.space.axes.items()
        },
        "samples": asdict(job.space.samples) if job.space.samples else None,
        "refused": [str(e) for e in job.refused],
        "no_effect": list(idle),
        "slight_effect": slight,
        "baseline": baseline(job),
        "nominal": plain(nominal),
        "best": plain(fastest),
        "constraints": [asdict(one) for one in job.constraints],
        "allowed": found.allowed,
        "as_fast": found.as_fast,
        "best_at_edge": _at_edge(job, fastest, [*idle, *slight]),
        "pareto": {
            "objectives": objectives,
            "bands": how.bands,
            "size": len(front),
            "designs": [plain(row) for _, row in front.iterrows()],
        },
        "not_modelled": list(dict.fromkeys(p for a in job.space.archs for p in not_modelled(a))),
        "notes": [*unmet(found.over), *job.space.notes, *job_notes(job)],
        "made_by": {"command": command, **_about(job)["made_by"]},
    }
    return Outcome(job, table, front, nominal, comparison, summary, how.folder)


def _about(job: Job) -> dict[str, Any]:
    """Describe a sweep in JSON: what goes with its results, however they are made."""
    return {
        "name": job.name,
        "workloads": [w.name for w in job.workloads],
        "axes": {
            path: {"unit": PARAMETERS[path].unit, "values": list(values)}
            for path, values in job.space.axes.items()
        },
        "made_by": {
            "model": store.model_version(),
            "arch": {"name": job.arch.name, "id": store.arch_id(job.arch)},
            "beside": [{"name": a.name, "id": store.arch_id(a)} for a in job.space.beside],
            "workloads": [
                {
                    "name": w.name,
                    "id": w.id,
                    "given": given,
                    "profiler": w.meta.get("profiler", "in"),
                    "traced": store.arch_id(traced) if traced is not None else "",
                }
                for w, given in zip(job.workloads, job.given, strict=True)
                for traced in [traced_arch(w)]
            ],
        },
    }


def _digesting(
    job: Job, task: DesignTask, time_of: str, nominal: pd.Series[float], bands: bool
) -> Digesting:
    """Return how the blocks of a sweep are digested: above 200,000 designs not all are shown."""
    shown = None
    if len(job.space) > TABLE:
        named = {str(path): value for path, value in nominal.items()}
        shown = evenly(len(job.space), lines(job.space, named, _LINES))
    power = {a.name: a["power.limit"] for a in job.space.archs if "power.limit" in a.values}  # noqa: PD011
    return Digesting(time_of, job.costs, task.size, bands, power, shown)


def _in_memory(task: DesignTask, digesting: Digesting, progress: Progress | None) -> Digest:
    """Evaluate the designs of a task here; return what they come to."""
    tables, done = [], 0
    for block in task.blocks:
        tables.append(task.table(block.number))
        done += block.rows
        if progress is not None:
            progress(done, len(task.space))
    return _of_table(pa.concat_tables(tables), digesting, task.limits)


def _of_table(table: pa.Table, digesting: Digesting, limits: Sequence[Limit]) -> Digest:
    """Return what a whole sweep comes to; refuse limits that no design keeps."""
    found = digesting(Block(0, table.num_rows), table)
    if not found.allowed:
        refuse_none([_columns(table, limits)], limits)
    return found


def _on_disk(
    task: DesignTask, digesting: Digesting, folder: Path, how: How, progress: Progress | None
) -> Digest:
    """Evaluate the designs of a task into a folder; return what they come to.

    If no design of a sweep that is quickly done again is allowed, nothing stays.
    """
    wanted = part(task.blocks, how.part) if how.part else None
    large = len(task.space) > TABLE
    with Store.open(folder, task, how.resume) as kept:
        alone = how.engine == "local" and how.workers is None and len(task.space) <= _ALONE
        workers = 1 if alone else how.workers
        digest = digesting if large and not wanted else None
        parts = run(task, kept, how.engine, workers, progress, digest, wanted)
        if kept.missing() and wanted is not None:
            raise Unfinished(how.part, len(kept.done), len(task.blocks), folder)
        if large:
            kept.finish()
            parts = parts or [digesting(b, t) for b, t in _numbered(task.blocks, kept)]
            found = digesting.joined(parts)
            if not found.allowed:
                every = (_columns(table, task.limits) for table in kept.tables())
                refuse_none(every, task.limits, f"all designs are kept in {folder}")
            return found
        try:
            found = _of_table(pa.concat_tables(kept.tables()), digesting, task.limits)
        except InputError:
            kept.discard()
            raise
        kept.finish()
        return found


def _numbered(blocks: Sequence[Block], kept: Store) -> Iterator[tuple[Block, pa.Table]]:
    yield from zip(blocks, kept.tables(), strict=True)


def _columns(table: pa.Table, limits: Sequence[Limit]) -> dict[str, Any]:
    return {limit.column: table[limit.column].to_numpy() for limit in limits}


def _with(front: pd.DataFrame, best: pd.Series[Any]) -> pd.DataFrame:
    """Return the front, and the best design below it if it is not of it."""
    if best["design_id"] in set(front["design_id"]):
        return front
    return pd.concat([front, best.to_frame().T])


def _ranked_by(job: Job) -> str:
    """Return the time to make small: that per token where designs differ in the tokens they yield.

    Changes of the work decide that, so one design of each is asked.
    """
    each = {tuple(part.change.items()): part.change for part in job.space.parts}
    tokens = {
        sum(n * made for w, n in zip(changed, job.counts, strict=True) for made in [_tokens(w)])
        for changed in (with_changes(job.workloads, change) for change in each.values())
    }
    return "s_per_token" if len(tokens) > 1 else "wall_s"


def _tokens(w: Workload) -> float:
    """Return the tokens of a step or page, 0 where it yields none."""
    each = ((times, tokens_per_step(part)) for part, times in repeated(w))
    return sum(times * tokens for times, tokens in each if np.isfinite(tokens))


def _comparison(job: Job, table: pd.DataFrame) -> pd.DataFrame:
    """Return how many times faster each design is than each measured figure."""
    where = [name for name in ("design_id", ARCH, "launch") if name in table]
    parts = [table[[*where, *job.space.axes, "wall_s", "device_busy_s"]]]
    for w in job.workloads:
        found = compare_designs(table, w, suffix(w.name, len(job.workloads)))
        parts.append(found.rename(columns={c: f"{w.name}: {c}" for c in found.columns}))
    return pd.concat(parts, axis=1)


def _slight(
    job: Job, table: pd.DataFrame, row: pd.Series[float], time_of: str, no_effect: Sequence[str]
) -> list[str]:
    """Return the axes of the machine that, each alone, hardly change the time of a design.

    Designs that differ from it in one axis alone say so; where a sweep has none, nothing is said.
    """
    where = [name for name in (ARCH, "launch", *job.space.axes) if name in table]
    same = {c: ((table[c] == row[c]) | (table[c].isna() & pd.isna(row[c]))).to_numpy()
            for c in where}  # fmt: skip
    found = []
    for path, values in split(job.space.axes)[0].items():
        line = np.logical_and.reduce([same[c] for c in where if c != path] or [same[path] | True])
        times = table[time_of].to_numpy(float)[line]
        if len(values) > 1 and path not in no_effect and len(times) > 1:
            found += [path] * bool(np.ptp(times) < _SLIGHT * row[time_of])
    return found


def _at_edge(job: Job, row: pd.Series[float], no_effect: Sequence[str]) -> list[str]:
    """Return the axes on whose edge a design lies, those with an effect: look beyond them.

    Not those of the workloads: less work is always faster.
    """
    of_machine = split(job.space.axes)[0].items()
    axes = {p: v for p, v in of_machine if len(v) > 2 and p not in no_effect}
    return [p for p, v in axes.items() if row[p] in (min(v), max(v))]


def save_outcome(outcome: Outcome, folder: Path, figures: bool) -> list[Path]:
    """Write front, comparison, summary and figures of a sweep beside its results; return the files.

    Everything is made beside the folder first and moved there at the end, and what an earlier
    sweep left there under the same names goes, so that a folder holds one sweep.

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    with whole_folder(folder, _OUTPUTS) as temporary:
        if outcome.kept is None:
            about = {ABOUT: json.dumps(_about(outcome.job)).encode()}
            every = pa.Table.from_pandas(outcome.table, preserve_index=False)
            results.save(folder, [every], len(outcome.table), about)
        store.save_csv(temporary / store.PARETO, outcome.front)
        store.save_csv(temporary / store.COMPARISON, outcome.comparison)
        store.save_json(temporary / store.SUMMARY, outcome.summary)
        if figures:
            _draw(outcome, temporary)
    made = (folder / name for name in (store.RESULTS, *_OUTPUTS))
    return sorted(file for file in made if file.exists())


def _draw(outcome: Outcome, folder: Path) -> None:
    from npusim.figures import save_sweep_figures

    job, table = outcome.job, outcome.table
    if ARCH in table:  # figures are of the nominal machine
        table = table[table[ARCH] == job.arch.name].reset_index(drop=True)
    axes = [p for p in job.space.axes if p not in job.changes and table[p].notna().any()]
    save_sweep_figures(
        folder,
        table,
        job.arch,
        job.workloads,
        job.costs,
        axes,
        outcome.nominal,
        job.counts,
        not job.space.samples,
        len(outcome.table) == outcome.summary["designs"],
    )
