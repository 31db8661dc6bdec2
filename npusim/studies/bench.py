"""Replays for many claims at once: asked for in lots, grouped by what they share, on all cores.

A lot is some designs of one machine on one case of work. Lots of the same machine, work and launch
mode are evaluated together, since a design more costs a hundredth of a replay more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from types import TracebackType
from typing import TypeVar

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.errors import InputError
from npusim.studies import work
from npusim.studies.outcomes import JOULES, KIND, outcomes
from npusim.studies.processes import processes
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.worker import ONE_THREAD
from npusim.workload import Workload

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]
_T = TypeVar("_T")
_R = TypeVar("_R")

_MOST = 1024  # designs of a piece of work, which bounds memory and shares the load


@dataclass(frozen=True)
class Case:
    """One case of work: a step or page of a model at a batch, under a launch mode."""

    model: str
    work: str
    batch: int
    launch: str
    lowering: str = ""

    def text(self) -> str:
        """Return the case in words.

        Examples
        --------
        >>> Case("paddleocr_vl", "decode", 8, "graph").text()
        'PaddleOCR-VL, batch 8, graph'
        """
        return ", ".join(part for part in self.parts if part)

    @property
    def parts(self) -> tuple[str, str, str]:
        """What it is of in words: model, batch (nothing of a workload as it is), launch mode."""
        batch = "" if self.work == work.STEP else f"batch {self.batch}"
        return work.title(self.model), batch, self.launch


@dataclass(frozen=True)
class Lot:
    """Designs to evaluate on a case.

    Attributes
    ----------
    arch : str
        Name or path of the machine.
    case : Case
    change : mapping of str to float
        Changes of the workload [SI].
    columns : mapping of str to array, shape (D,)
        Parameters of the machine that differ from it [SI].
    size : int
        Number of designs D.
    """

    arch: str
    case: Case
    change: Mapping[str, float] = field(default_factory=dict)
    columns: Mapping[str, Array] = field(default_factory=dict)
    size: int = 1

    @property
    def shared(self) -> tuple[object, ...]:
        """What lots must have in common to be evaluated together."""
        base = work.machine(self.arch)
        beyond = frozenset(p for p in self.columns if p not in base.values)  # noqa: PD011
        return self.arch, self.case, tuple(sorted(self.change.items())), beyond


class Bench:
    """Evaluates lots; a context manager, which holds the processes.

    Parameters
    ----------
    workers : int, optional
        Processes; by default one a core that this process may use. 1 evaluates here.

    Examples
    --------
    >>> import numpy as np
    >>> lot = Lot("h200", Case("paddleocr_vl", "decode", 1, "graph"),
    ...           columns={"memories.dram.bandwidth": np.array([2.4e12, 4.8e12])}, size=2)
    >>> with Bench(workers=1) as bench:
    ...     (found,) = bench([lot])
    >>> bool(found["wall_s"][0] > found["wall_s"][1])
    True
    """

    def __init__(self, workers: int | None = None, progress: Progress | None = None) -> None:
        self.workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self._progress = progress
        self._pool: ProcessPoolExecutor | None = None
        self._open = ExitStack()
        self.designs = 0

    def __enter__(self) -> Bench:
        if self.workers > 1:
            for name in ONE_THREAD:
                os.environ.setdefault(name, "1")
            self._pool = self._open.enter_context(processes(self.workers))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self._open.__exit__(kind, error, trace)

    def __call__(self, lots: Sequence[Lot]) -> list[pd.DataFrame]:
        """Return what the designs of each lot do, see `npusim.studies.outcomes`.

        Raises
        ------
        InputError
            Designs that a model refuses, with the machine and case.
        """
        return self.later(lots)()

    def later(self, lots: Sequence[Lot]) -> Callable[[], list[pd.DataFrame]]:
        """Begin with some lots, and return what waits for them: the same as a call of the bench."""
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, lot in enumerate(lots):
            groups.setdefault(lot.shared, []).append(i)
        gathered = [_gathered([lots[i] for i in places]) for places in groups.values()]
        pieces = [(g, piece) for g, found in enumerate(gathered) for piece in _pieces(found.lot)]
        jobs = _jobs([piece for _, piece in pieces])
        run = map if self._pool is None else self._pool.map
        answers = run(_evaluate_all, [[pieces[i][1] for i in job] for job in jobs])

        def wait() -> list[pd.DataFrame]:
            made: dict[int, pd.DataFrame] = {}
            for done, (job, tables) in enumerate(zip(jobs, answers, strict=True)):
                made |= dict(zip(job, tables, strict=True))
                if self._progress is not None:
                    self._progress(done + 1, len(jobs))
            found: list[pd.DataFrame] = [pd.DataFrame()] * len(lots)
            for g, places in enumerate(groups.values()):
                own = [made[i] for i, (group, _) in enumerate(pieces) if group == g]
                table = _joined(own)
                self.designs += len(table)
                for place, rows in zip(places, gathered[g].rows, strict=True):
                    found[place] = table.iloc[rows].reset_index(drop=True)
            return found

        return wait

    def apart(self, call: Callable[[_T], _R], over: Sequence[_T]) -> Iterator[_R]:
        """Return what a function makes of some things, each in a process that is free."""
        return iter(map(call, over)) if self._pool is None else self._pool.map(call, over)


@dataclass(frozen=True)
class _Gathered:
    """Lots of the same work as one without repeated designs, and which rows of it each is."""

    lot: Lot
    rows: list[NDArray[np.intp]]


def _gathered(lots: Sequence[Lot]) -> _Gathered:
    """Return lots that share all else as one; claims have many designs in common."""
    first, base = lots[0], work.machine(lots[0].arch)
    paths = list(dict.fromkeys(path for lot in lots for path in lot.columns))
    table = np.empty((sum(lot.size for lot in lots), len(paths)))
    for i, path in enumerate(paths):
        table[:, i] = np.concatenate([_column(lot, path, base) for lot in lots])
    rows = np.ascontiguousarray(table + 0.0)  # no negative zero: equal rows are equal bytes
    seen: dict[bytes, int] = {}
    which = np.array([seen.setdefault(row.tobytes(), len(seen)) for row in rows], dtype=np.intp)
    kept = np.unique(which, return_index=True)[1]
    columns = {path: rows[kept, i] for i, path in enumerate(paths)}
    ends = np.cumsum([lot.size for lot in lots])[:-1]
    return _Gathered(Lot(first.arch, first.case, first.change, columns, len(kept)),
                     np.split(which, ends))  # fmt: skip


def _pieces(lot: Lot) -> list[Lot]:
    """Return a lot in pieces of a size that memory holds and that share the load."""
    return [
        Lot(lot.arch, lot.case, lot.change, {p: c[i : i + _MOST] for p, c in lot.columns.items()},
            min(_MOST, lot.size - i))
        for i in range(0, lot.size, _MOST)
    ]  # fmt: skip


_Work = tuple[str, str, int, str, tuple[tuple[str, float], ...]]


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables as one; a kind or block that a part does not have takes nothing there."""
    table = pd.concat(parts, ignore_index=True)
    if all(len(part.columns) == len(table.columns) for part in parts):
        return table
    apart = [c for c in map(str, table.columns) if c.startswith((KIND, JOULES))]
    return table.fillna(dict.fromkeys(apart, 0.0))


def _jobs(pieces: Sequence[Lot]) -> list[list[int]]:
    """Return which pieces are of the same work, most designs first: one process does them.

    What is known of a workload (which operations are alike, what is reused) is found once there.
    """
    jobs: dict[tuple[object, ...], list[int]] = {}
    for i, lot in enumerate(pieces):
        jobs.setdefault(_work_of(lot), []).append(i)
    return sorted(jobs.values(), key=lambda job: -sum(pieces[i].size for i in job))


def _work_of(lot: Lot) -> _Work:
    c = lot.case
    return c.model, c.work, c.batch, c.lowering, tuple(sorted(lot.change.items()))


def _column(lot: Lot, path: str, base: Arch) -> Array:
    if path in lot.columns:
        return lot.columns[path]
    return np.full(lot.size, base[path])


def _evaluate_all(lots: Sequence[Lot]) -> list[pd.DataFrame]:
    return [_evaluate(lot) for lot in lots]


def _evaluate(lot: Lot) -> pd.DataFrame:
    case, base = lot.case, work.machine(lot.arch)
    try:
        changed = _workloads(*_work_of(lot))
        counts = work.counts(case.model, case.work, case.batch)
        found = outcomes(Designs(base, lot.columns), changed, case.launch, counts)
    except InputError as error:
        raise InputError(f"{case.text()} on {base.name}: {error}") from None
    if not lot.columns and lot.size > 1:
        found = found.iloc[np.zeros(lot.size, dtype=int)].reset_index(drop=True)
    return found


@lru_cache(maxsize=8)
def _workloads(
    model: str, of: str, batch: int, lowering: str, change: tuple[tuple[str, float], ...]
) -> list[Workload]:
    loaded = work.workloads(model, of, batch, lowering)
    return with_changes(loaded, {**work.change(of, batch, lowering), **dict(change)})
