"""Replays for many claims at once: asked for in lots, grouped by what they share, on all cores.

A lot is some designs of one machine on one case of work. Lots of the same machine, work and launch
mode are evaluated together, since a design more costs a hundredth of a replay more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from multiprocessing import get_context
from types import TracebackType

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.errors import InputError
from npusim.studies import work
from npusim.studies.outcomes import JOULES, KIND, outcomes
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.worker import ONE_THREAD
from npusim.workload import Workload

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

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
        return f"{work.TITLES[self.model]}, batch {self.batch}, {self.launch}"


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
        self._workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self._progress = progress
        self._pool: ProcessPoolExecutor | None = None
        self.designs = 0

    def __enter__(self) -> Bench:
        if self._workers > 1:
            for name in ONE_THREAD:
                os.environ.setdefault(name, "1")
            self._pool = ProcessPoolExecutor(self._workers, get_context("forkserver"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def __call__(self, lots: Sequence[Lot]) -> list[pd.DataFrame]:
        """Return what the designs of each lot do, see `npusim.studies.outcomes`.

        Raises
        ------
        InputError
            Designs that a model refuses, with the machine and case.
        """
        groups: dict[tuple[object, ...], list[int]] = {}
        for i, lot in enumerate(lots):
            groups.setdefault(lot.shared, []).append(i)
        pieces = [piece for places in groups.values() for piece in _pieces(lots, places)]
        jobs = _jobs(pieces)
        tables: list[list[tuple[int, pd.DataFrame]]] = [[] for _ in lots]
        run = map if self._pool is None else self._pool.map
        answers = run(_evaluate_all, [[pieces[i][0] for i in job] for job in jobs])
        for done, (job, found) in enumerate(zip(jobs, answers, strict=True)):
            for number, table in zip(job, found, strict=True):
                start = 0
                for place, rows in pieces[number][1]:
                    tables[place].append((number, table.iloc[start : start + rows]))
                    start += rows
                self.designs += len(table)
            if self._progress is not None:
                self._progress(done + 1, len(jobs))
        return [_joined([t for _, t in sorted(parts, key=lambda part: part[0])])
                for parts in tables]  # fmt: skip


_Piece = tuple[Lot, list[tuple[int, int]]]
_Work = tuple[str, str, int, str, tuple[tuple[str, float], ...]]


def _pieces(lots: Sequence[Lot], places: Sequence[int]) -> list[_Piece]:
    """Return the designs of lots that share all else as a few lots, and whose rows these are."""
    first = lots[places[0]]
    base = work.machine(first.arch)
    paths = dict.fromkeys(path for i in places for path in lots[i].columns)
    columns = {
        path: np.concatenate([_column(lots[i], path, base) for i in places]) for path in paths
    }
    owners = np.repeat(places, [lots[i].size for i in places])
    pieces = []
    for start in range(0, len(owners), _MOST):
        own = owners[start : start + _MOST]
        part = {path: column[start : start + _MOST] for path, column in columns.items()}
        which, rows = np.unique(own, return_counts=True)
        order = [(int(i), int(n)) for i, n in zip(which, rows, strict=True)]
        pieces.append((Lot(first.arch, first.case, first.change, part, len(own)), order))
    return pieces


def _joined(parts: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Return tables as one; a kind or block that a part does not have takes nothing there."""
    table = pd.concat(parts, ignore_index=True)
    apart = [c for c in map(str, table.columns) if c.startswith((KIND, JOULES))]
    return table.fillna(dict.fromkeys(apart, 0.0))


def _jobs(pieces: Sequence[_Piece]) -> list[list[int]]:
    """Return which pieces are of the same work, most designs first: one process does them.

    What is known of a workload (which operations are alike, what is reused) is found once there.
    """
    jobs: dict[tuple[object, ...], list[int]] = {}
    for i, (lot, _) in enumerate(pieces):
        jobs.setdefault(_work_of(lot), []).append(i)
    return sorted(jobs.values(), key=lambda job: -sum(pieces[i][0].size for i in job))


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
