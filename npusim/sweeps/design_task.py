"""A space of designs as a task: blocks of rows, each with its strong ids, evaluated anywhere."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from npusim.arch import Arch
from npusim.constraints import Limit
from npusim.load import traced_arch
from npusim.store import arch_id, model_version, strong_id
from npusim.sweeps import ids
from npusim.sweeps.evaluator import Evaluator
from npusim.sweeps.grid import Grid
from npusim.sweeps.part import Part
from npusim.sweeps.space import Space
from npusim.sweeps.task import Block
from npusim.workload import Workload

ALLOWED, DESIGN = "allowed", "design_id"
# Rows of a block: large where a second makes a million, small where one makes some thousand.
QUICK, SLOW = 131_072, 8_192
_QUICK = 65_536  # combinations of the quickest axes whose ids are added up once
_FEW = 8  # blocks at least, for workers to share


@dataclass(frozen=True)
class DesignTask:
    """The designs of a space on some workloads.

    Parameters
    ----------
    space : Space
    workloads : tuple of Workload
    counts : tuple of float
        How many steps of each make the whole.
    limits : tuple of Limit
        What designs must keep; column ``allowed`` says which do.
    mode : {"model", "transfer"}
    description : mapping
        JSON that goes with the results; see `about`.

    Examples
    --------
    >>> import npusim as ns
    >>> space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph"])
    >>> task = DesignTask(space, (ns.load_workload("paddleocr_vl_decode"),), (1.0,))
    >>> [block.rows for block in task.blocks], task.table(0).column_names[:3]
    ([2], ['design_id', 'launch', 'units.count'])
    """

    space: Space
    workloads: tuple[Workload, ...]
    counts: tuple[float, ...]
    limits: tuple[Limit, ...] = ()
    mode: str = "model"
    description: Mapping[str, Any] = field(default_factory=dict)
    # Terms are filled while they are used: threads of one worker take turns.
    _turn: Any = field(default_factory=threading.Lock, init=False, repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        """Return what goes to another process: not what was computed here."""
        return {f.name: self.__dict__[f.name] for f in fields(self) if f.init}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Take what another process sent."""
        self.__dict__.update(state, _turn=threading.Lock())

    @cached_property
    def _evaluator(self) -> Evaluator:
        return Evaluator(self.space, self.workloads, self.counts, self.mode)

    @cached_property
    def size(self) -> int:
        """Rows of a block."""
        most = QUICK if self._evaluator.is_quick() else SLOW
        return min(most, max(math.ceil(len(self.space) / _FEW), 1024))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """All blocks, in the order of the rows of the space."""
        count = math.ceil(len(self.space) / self.size)
        return tuple(
            Block(i, min(self.size, len(self.space) - i * self.size)) for i in range(count)
        )

    @cached_property
    def about(self) -> dict[str, Any]:
        """The sweep described in JSON."""
        return dict(self.description)

    @cached_property
    def id(self) -> str:
        """Strong id of everything that can change a row, and of how rows lie in blocks."""
        space = self.space
        given = {path: repr(axis) for path, axis in space.given.items()}
        return strong_id({
            **self._shared, "archs": [arch_id(arch) for arch in space.archs],
            "names": [arch.name for arch in space.archs], "launch": list(space.launch),
            "axes": given, "order": list(given), "samples": repr(space.samples),
            "limits": [repr(limit) for limit in self.limits], "size": self.size,
        })  # fmt: skip

    @cached_property
    def _shared(self) -> dict[str, Any]:
        """What all designs share."""
        traced = [traced_arch(w) for w in self.workloads]
        swept = zip(self.workloads, self.counts, traced, strict=True)
        return {
            "workloads": [(w.id, float(n), arch_id(t) if t else "") for w, n, t in swept],
            "mode": self.mode,
            "model": model_version(),
        }

    def table(self, number: int) -> pa.Table:
        """Return all columns of one block."""
        start = number * self.size
        stop = min(start + self.size, len(self.space))
        with self._turn:
            columns = self._evaluator.columns(start, stop)
        fits = np.ones(stop - start, dtype=bool)
        for limit in self.limits:
            fits &= limit.met(columns)
        names = [DESIGN, *columns, ALLOWED]
        arrays = [self._ids(start, stop), *map(pa.array, columns.values()), pa.array(fits)]
        return pa.Table.from_arrays(arrays, names)

    def _ids(self, start: int, stop: int) -> pa.Array:
        """Return the strong ids of some rows."""
        found = [
            ids.design_ids(self._head(part.arch), self._parameters(part, first, end), end - first)
            for part, first, end in self._evaluator.pieces(start, stop)
        ]
        return found[0] if len(found) == 1 else pa.concat_arrays(found)

    def _head(self, arch: Arch) -> NDArray[np.uint64]:
        return ids.head({**self._shared, "arch": arch_id(arch)})

    def _parameters(self, part: Part, start: int, stop: int) -> list[ids.Lanes]:
        """Return what launch mode and parameters add to the ids of some rows of a part."""
        found = [ids.of_values("launch", [part.launch])]
        found += [ids.of_values(path, [value]) for path, value in part.change.items()]
        own = part.arch.values
        if part.axes:
            found += _of_grid(part, start, stop, own)
        for path, column in (part.points or {}).items():
            found.append(ids.of_values(path, column[start:stop], own.get(path)))
        return found


def _of_grid(part: Part, start: int, stop: int, own: Mapping[str, float]) -> list[ids.Lanes]:
    """Return what the axes of a grid add to ids: slow ones and quick ones added up before."""
    quick, left = np.zeros((1, 2), dtype=np.uint64), list(part.axes)
    while left and len(quick) * len(part.axes[left[-1]]) <= _QUICK:
        path = left.pop()
        each = ids.of_values(path, part.axes[path], own.get(path))
        quick = (each[:, None] + quick).reshape(-1, 2)
    first, last = start // len(quick), (stop - 1) // len(quick)
    numbers = np.arange(first, last + 1, dtype=np.int64)
    slow = np.zeros((len(numbers), 2), dtype=np.uint64)
    grid = Grid(part.arch, {path: part.axes[path] for path in left})
    for path, digits in grid.digits(numbers).items():
        slow += ids.of_values(path, part.axes[path], own.get(path))[digits]
    rows = np.arange(start, stop, dtype=np.int64)
    of_slow = np.take(slow, rows // len(quick) - first, axis=0)
    return [of_slow, np.take(quick, rows % len(quick), axis=0)]
