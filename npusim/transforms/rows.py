"""Operations put into a workload, or put in place of others.

What is put in place of an operation keeps its place, its stream and what the host does for it: the
program still launches something there. What is put in beside takes no host work, since none is
known of it. Measured times of what was not traced are zero. What is taken out takes its host work
with it (`npusim.leave_out`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from npusim.columns import COLUMNS, COST_COLUMNS, LABELS, ORIGINS
from npusim.errors import InputError
from npusim.workload import Workload, stream_order

Row = dict[str, Any]

# What an operation is, in place of what another one was; and what one has of its neighbour.
_WHAT = ("kernel", "operator", "basis", *COST_COLUMNS, "registers", "shared_memory", "duration_s")
_WHERE = ("step", "phase", "start_s", *(c.name for c in COLUMNS.values() if c.type == "index"))


@dataclass(frozen=True)
class Kernel:
    """A kernel that is added: what a trace calls it, and elements and threads of a block."""

    function: str
    operator: str
    kind: str
    routine: str
    each: int
    threads: int = 128

    @property
    def name(self) -> str:
        """The function, without what depends on types."""
        return "void at::native::" + self.function


def kernel_row(kernel: Kernel, dtype: str, m: int, n: int, **columns: float) -> Row:
    """Return the columns of a kernel that works on m x n elements; what it does not say is zero."""
    return {"kernel": kernel.name, "operator": kernel.operator,
            "library": "ATen", "routine": kernel.routine, "kind": kernel.kind, "dtype": dtype,
            "basis": "shape", "origin": "generated", "batch": 1, "m": m, "n": n,
            "blocks": -(-m * n // kernel.each),
            "threads": kernel.threads, **columns}  # fmt: skip


class Rows:
    """A workload whose operations are being changed: columns of all, and rows to be put in.

    Parameters
    ----------
    w : Workload
    place : str
        Path of the setting that asks for it, for what is refused.
    """

    def __init__(self, w: Workload, place: str) -> None:
        self._w, self._place = w, place
        self._columns = {name: column.copy() for name, column in w.columns.items()}
        self._counters = {name: values.copy() for name, values in w.counters.items()}
        self._labels = {name: list(w.labels[name]) for name in LABELS}
        self._at: list[int] = []
        self._rows: list[Row] = []

    def change(self, at: int, row: Row) -> None:
        """Set some columns of an operation. Its mark never becomes a better one."""
        own = self._w.labels["origin"][self._w["origin"][at]]
        if ORIGINS.index(own) > ORIGINS.index(row.get("origin", own)):
            row = {**row, "origin": own}
        for name, value in row.items():
            self._columns[name][at] = self._coded(name, value)

    def replace(self, at: int, row: Row) -> None:
        """Put another operation where one is. It keeps what the host does for it."""
        self.change(at, {**dict.fromkeys(_WHAT, 0), **row})
        for values in self._counters.values():
            values[at] = np.nan

    def insert(self, before: int, rows: Sequence[Row], **columns: float) -> None:
        """Put operations in front of one, which they share step, stream and layer with."""
        beside = {name: self._w[name][before] for name in _WHERE}
        self._put(before, [{**beside, **columns, **row} for row in rows])

    def append(self, after: int, row: Row) -> None:
        """Put an operation behind one, which it shares step, stream and layer with."""
        beside = {name: self._w[name][after] for name in _WHERE}
        self._put(after + 1, [{**beside, **row}])

    def workload(self) -> Workload:
        """Return the workload with all that.

        Raises
        ------
        InputError
            Operations were put in, and there are dependencies beside the order of streams.
        """
        w, at = self._w, self._at
        columns = {}
        for name, column in self._columns.items():
            given = [self._coded(name, row.get(name, 0)) for row in self._rows]
            columns[name] = np.insert(column, at, given)
        counters = {name: np.insert(values, at, np.nan) for name, values in self._counters.items()}
        edges = None if self._rows else w.edges
        return Workload(w.name, columns, self._labels, w.steps, edges, w.meta, counters,
                        w.host)  # fmt: skip

    def _put(self, at: int, rows: Sequence[Row]) -> None:
        if not self._rows:
            self._check()
        self._at += [at] * len(rows)
        self._rows += rows

    def _check(self) -> None:
        """Refuse dependencies that new operations would have no part in."""
        w = self._w
        order = stream_order(w["stream"], w["step"])
        if not all(np.array_equal(a, b) for a, b in zip(w.edges, order, strict=True)):
            raise InputError("has dependencies beside the order of its streams, which new "
                             "operations have no part in", file=w.name,
                             place=self._place)  # fmt: skip

    def _coded(self, name: str, value: Any) -> Any:
        """Return a value as its column holds it: a text as its place among the labels."""
        if not isinstance(value, str):
            return value
        labels = self._labels[name]
        if value not in labels:
            labels.append(value)
        return labels.index(value)
