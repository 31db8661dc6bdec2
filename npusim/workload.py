"""A workload: K operations as columns, their dependencies, and the host that issued them.

Columns are declared in `npusim.columns`. Text columns (kernel name, operator, kind) hold small
integers into a list of labels, so that 40,000 operations with 200-character names stay small.
A workload holds whole steps (one decode step, one prefill); every time is in seconds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.columns import (
    BASES,
    BYTES,
    BYTES_OF,
    COLUMNS,
    COST_COLUMNS,
    COST_LABELS,
    HOST_PARTS,
    KINDS,
    LABELS,
    LIMIT_COLUMNS,
    ORIGINS,
    Column,
)
from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.reuse import Experts, Reuse, alone, periodic, zipf

__all__ = [
    "BASES", "BYTES", "BYTES_OF", "COLUMNS", "COST_COLUMNS", "COST_LABELS", "HOST_PARTS", "KINDS",
    "LABELS", "ORIGINS", "Column", "HostCosts", "Operations", "Steps", "Workload", "stream_order",
]  # fmt: skip

# What of the provenance a replay, or what follows from it, depends on.
_TELLING = ("host", "measured", "profiler", "units", "batch", "tokens_per_step", "page")
CACHES = ("step", "warm", "cold")  # what an operation finds in them

_TYPES: dict[str, type[np.generic]] = {
    "label": np.int32, "count": np.int64, "index": np.int64, "amount": np.float64, "flag": np.bool_,
}  # fmt: skip
_LARGEST = {"amount": 1e30, "flag": 1, "count": 2**53, "index": 2**53}


@dataclass(frozen=True)
class Operations:
    """Operations as a cost model sees them: U rows that differ in cost, without measurements.

    Attributes
    ----------
    kind, dtype, library, routine : array of str, shape (U,)
    columns : mapping of str to array, shape (U,)
        The numeric columns of `COST_COLUMNS`, and `LIMIT_COLUMNS` where known [FLOP, B].
    reuse : Reuse
        What lies between two uses of what it reads and writes.
    """

    kind: NDArray[np.object_]
    dtype: NDArray[np.object_]
    library: NDArray[np.object_]
    routine: NDArray[np.object_]
    columns: Mapping[str, NDArray[Any]]
    reuse: Reuse

    def __len__(self) -> int:
        return len(self.kind)

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a numeric column, shape (U,)."""
        return self.columns[column]

    def take(self, rows: NDArray[Any] | slice) -> Operations:
        """Return some of the operations, by index, mask or slice."""
        kind, dtype, library, routine = (getattr(self, c)[rows] for c in COST_LABELS)
        columns = {c: column[rows] for c, column in self.columns.items()}
        return Operations(kind, dtype, library, routine, columns, self.reuse.take(rows))

    @property
    def bytes_moved(self) -> NDArray[np.float64]:
        """Bytes that each operation reads and writes, shape (U,) [B]."""
        moved: NDArray[np.float64] = np.sum([self.columns[c] for c in BYTES], axis=0)
        return moved


@dataclass(frozen=True)
class Steps:
    """What is known of each step of a capture.

    Attributes
    ----------
    wall_s : array, shape (S,)
        Measured wall time of the step on the host [s].
    tail_s : array, shape (S,)
        Host work after the last launch or wait of the step [s].
    start_s : array, shape (S,), optional
        When each step began, from the first one [s]; None where a format does not tell.
    """

    wall_s: NDArray[np.float64]
    tail_s: NDArray[np.float64]
    start_s: NDArray[np.float64] | None = None

    def __len__(self) -> int:
        return len(self.wall_s)


@dataclass(frozen=True)
class HostCosts:
    """Where the host spent the steps of a capture, by what it called.

    Attributes
    ----------
    names : tuple of str
        Framework operators and runtime calls, the most expensive first.
    group : tuple of str
        ``operator`` or ``runtime``.
    calls : array, shape (N,)
    self_s : array, shape (N,)
        Time in it and in no operator or runtime call of its own [s]; a runtime call has none.
    total_s : array, shape (N,)
        Time in it with all that it called; a call inside a call of the same name counts once [s].
    """

    names: tuple[str, ...]
    group: tuple[str, ...]
    calls: NDArray[np.int64]
    self_s: NDArray[np.float64]
    total_s: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.names)


class Workload:
    """K operations in issue order.

    Parameters
    ----------
    name : str
        What to call it.
    columns : mapping of str to array, shape (K,)
        Every column of `COLUMNS`.
    labels : mapping of str to sequence of str
        The texts that each label column points into.
    steps : Steps
        Wall times of the S steps.
    edges : tuple of two arrays, optional
        Dependencies in CSR form: ``indices[indptr[i]:indptr[i + 1]]`` are the operations that i
        waits for, all before it. By default each operation waits for the one before it on its
        stream: a trace has no addresses, so nothing weaker is safe.
    meta : mapping, optional
        Provenance: device, driver, framework, file, counts of what was dropped.
    counters : mapping of str to array, shape (K,), optional
        Some of `npusim.counters.COUNTERS`; not-a-number where an operation has none.
    host : HostCosts, optional
        What the host called, where the trace tells.

    Raises
    ------
    InputError
        A missing column, a negative or undefined number, a label out of range, or a dependency
        that points forward.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, NDArray[Any]],
        labels: Mapping[str, Sequence[str]],
        steps: Steps,
        edges: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None,
        meta: Mapping[str, Any] | None = None,
        counters: Mapping[str, NDArray[np.float64]] | None = None,
        host: HostCosts | None = None,
    ) -> None:
        self.name = name
        self.labels = MappingProxyType({key: tuple(labels.get(key, ())) for key in LABELS})
        self.columns = MappingProxyType(
            {c: _column(name, COLUMNS[c], columns.get(c), self.labels) for c in COLUMNS}
        )
        self.steps = steps
        self.meta = MappingProxyType(dict(meta or {}))
        self.host = host
        _check_steps(self)
        self.edges = edges if edges is not None else stream_order(self["stream"], self["step"])
        _check_edges(self)
        self.counters = MappingProxyType(
            {c: _counter(self, c, given) for c, given in (counters or {}).items()}
        )

    def __reduce__(self) -> tuple[type[Workload], tuple[Any, ...]]:
        """Return what makes the same workload in another process: views do not travel."""
        columns, labels, meta = dict(self.columns), dict(self.labels), dict(self.meta)
        return Workload, (self.name, columns, labels, self.steps, self.edges, meta,
                          dict(self.counters), self.host)  # fmt: skip

    def under(self, caches: str) -> Workload:
        """Return the same under a protocol of the caches, one of `CACHES`.

        ``step`` leaves in them what a running step does, ``warm`` each operation's own data (as
        the replay of a profiler with many passes), ``cold`` nothing.
        """
        same = caches == self.meta.get("caches", "step")
        return self if same else self.renamed(self.name, caches=caches)

    def __len__(self) -> int:
        """Return the number of operations K."""
        return len(self.columns["step"])

    def __getitem__(self, column: str) -> NDArray[Any]:
        """Return a column, shape (K,); of a label column the integers."""
        return self.columns[column]

    def text(self, column: str) -> NDArray[np.object_]:
        """Return a label column as text, shape (K,)."""
        names: NDArray[np.object_] = np.array(self.labels[column], dtype=object)
        chosen: NDArray[np.object_] = names[self.columns[column]]
        return chosen

    def renamed(self, name: str, **meta: Any) -> Workload:
        """Return the same workload under another name, with more provenance."""
        return Workload(name, self.columns, self.labels, self.steps, self.edges,
                        {**self.meta, **meta}, self.counters, self.host)  # fmt: skip

    def mask(self, column: str, *values: str) -> NDArray[np.bool_]:
        """Return which operations have one of the given labels, shape (K,)."""
        codes = [i for i, label in enumerate(self.labels[column]) if label in values]
        return np.isin(self.columns[column], codes)

    @property
    def bytes_moved(self) -> NDArray[np.float64]:
        """Bytes that each operation reads and writes, shape (K,) [B]."""
        moved: NDArray[np.float64] = np.sum([self.columns[c] for c in BYTES], axis=0)
        return moved

    @property
    def classified(self) -> NDArray[np.bool_]:
        """Whether kind, FLOP and bytes of each operation are known, shape (K,)."""
        return self.mask("basis", "shape", "launch") & ~self.mask("kind", "unknown")

    @property
    def classified_busy_share(self) -> float:
        """Share of device-busy time whose operations have kind, FLOP and bytes."""
        total = float(self["duration_s"].sum())
        return float(self["duration_s"][self.classified].sum()) / total if total > 0 else 0.0

    def unique(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        """Return one row of each distinct cost, and for every operation which one it is.

        Returns
        -------
        rows : array, shape (U,)
            Index of a representative operation.
        inverse : array, shape (K,)
            ``rows[inverse]`` cost the same as all operations.
        """
        return self._unique

    @cached_property
    def _unique(self) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
        columns = [self.columns[c].astype(np.float64) for c in (*COST_COLUMNS, *LIMIT_COLUMNS)]
        table = np.column_stack([*columns, self.reuse.signature()])
        raw, width = table.tobytes(), table.itemsize * table.shape[1]
        codes: dict[bytes, int] = {}  # of rows as bytes: sorting them takes twenty times as long
        number = codes.setdefault
        ends = range(0, len(raw), width)
        inverse = np.array([number(raw[i : i + width], len(codes)) for i in ends], dtype=np.intp)
        return np.unique(inverse, return_index=True)[1], inverse

    def operations(self, rows: NDArray[np.intp] | None = None) -> Operations:
        """Return some operations (by default all) as a cost model sees them."""
        at = slice(None) if rows is None else rows
        numbers = (*(c for c in COST_COLUMNS if c not in LABELS), *LIMIT_COLUMNS)
        numeric = {c: self.columns[c][at] for c in numbers}
        kind, dtype, library, routine = (self.text(c)[at] for c in COST_LABELS)
        return Operations(kind, dtype, library, routine, numeric, self.reuse.take(at))

    @cached_property
    def reuse(self) -> Reuse:
        """What lies between two uses of what each operation reads and writes.

        Each step is taken to repeat itself. ``meta["caches"]`` asks for another protocol:
        ``warm``, each operation again and again, or ``cold``, caches emptied before each.
        """
        caches = self.meta.get("caches", "step")
        if caches not in CACHES:
            raise InputError("unknown protocol of the caches", file=self.name, place="caches",
                             value=caches, allowed=", ".join(CACHES))  # fmt: skip
        if caches == "step":
            kinds = self.text("kind").tolist()
            return periodic(kinds, self.columns, self["step"], self._experts())
        own = self.bytes_moved if caches == "warm" else np.full(len(self), np.inf)
        return alone(own, own, own)

    def _experts(self) -> Experts:
        """Return which operations read experts, where a grouped product says how many there are.

        ``meta["experts"]`` gives their popularity, the most popular first: a Zipf exponent (0,
        uniform, if nothing is given) or one number an expert.
        """
        given = self.meta.get("experts", 0.0)
        rows = np.flatnonzero((self["groups"] > 1) & (self["read_weight"] > 0))
        bits = self.meta.get("transforms", {}).get("workload.weight_bits")
        used, popularity = np.zeros(len(self)), {}
        for row in rows.tolist():
            count = int(self["groups"][row])
            width = bits / 8.0 if bits else BYTES_OF.get(self.text("dtype")[row], 2.0)
            one = float(self["n"][row] * self["k"][row]) * width
            used[row] = min(max(self["read_weight"][row] / max(one, 1.0), 1.0), count)
            if np.ndim(given) == 0:
                popularity[row] = zipf(count, float(given))
            elif len(given) == count and min(given) > 0:
                popularity[row] = np.asarray(given, dtype=np.float64)
            else:
                raise InputError("not the popularity of each expert", file=self.name,
                                 place="experts", value=f"{len(given)} numbers",
                                 allowed=f"{count} numbers above 0")  # fmt: skip
        return Experts(used, popularity)

    @cached_property
    def id(self) -> str:
        """Hash of everything that a replay can depend on."""
        how = [self.meta.get("caches", "step"), self.meta.get("experts", 0.0)]
        how += [self.meta.get(name) for name in _TELLING]
        digest = hashlib.blake2b(repr(how).encode(), digest_size=16)
        for name, column in self.columns.items():
            digest.update(name.encode() + column.tobytes())
        for labels in self.labels.values():
            digest.update("\0".join(labels).encode())
        for name, counter in self.counters.items():
            digest.update(name.encode() + counter.tobytes())
        for array in (self.steps.wall_s, self.steps.tail_s, *self.edges):
            digest.update(array.tobytes())
        return digest.hexdigest()


def stream_order(
    stream: NDArray[np.int64], step: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return CSR dependencies of each operation on the one before it on its stream and step.

    Examples
    --------
    >>> indptr, indices = stream_order(np.array([0, 1, 0]), np.array([0, 0, 0]))
    >>> indptr.tolist(), indices.tolist()
    ([0, 0, 0, 1], [0])
    """
    order = np.lexsort((stream, step))  # stable: in each step and stream as they come
    follows = (np.diff(stream[order]) == 0) & (np.diff(step[order]) == 0)
    before = np.full(len(order), -1, dtype=np.int64)
    before[order[1:][follows]] = order[:-1][follows]
    indptr = np.concatenate([[0], np.cumsum(before >= 0)])
    return indptr.astype(np.int64), before[before >= 0]


def _column(
    workload: str, column: Column, given: NDArray[Any] | None, labels: Mapping[str, Sequence[str]]
) -> NDArray[Any]:
    """Return a column in its declared type, or say which row is wrong."""
    if given is None:
        raise InputError("column is missing", file=workload, place=column.name)
    if np.ndim(given) != 1:
        raise InputError("column is not one-dimensional", file=workload, place=column.name)
    wrong = _wrong_rows(column, np.asarray(given), len(labels.get(column.name, ())))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(f"not a valid {column.type}", file=workload,
                         place=f"row {row}, {column.name}", value=given[row],
                         allowed=_allowed(column, labels))  # fmt: skip
    array = np.asarray(given).astype(_TYPES[column.type])
    array.setflags(write=False)
    return array


def _counter(w: Workload, name: str, given: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return a counter as floats, one an operation."""
    if name not in COUNTERS:
        raise InputError("unknown counter", file=w.name, value=name, allowed=", ".join(COUNTERS))
    array = np.array(given, dtype=np.float64)
    if array.shape != (len(w),):
        raise InputError("a counter needs one value an operation", file=w.name, place=name)
    wrong = ~np.isnan(array) & ~((array >= 0) & (array <= _LARGEST["amount"]))
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError("not a count", file=w.name, place=f"row {row}, {name}", value=array[row],
                         allowed=f"a number of {COUNTERS[name].unit} from 0")  # fmt: skip
    array.setflags(write=False)
    return array


def _wrong_rows(column: Column, given: NDArray[Any], labels: int) -> NDArray[np.bool_]:
    if given.dtype.kind not in "biuf":
        return np.ones(given.shape, dtype=bool)
    low = -1 if column.type == "index" else 0
    high = labels - 1 if column.type == "label" else _LARGEST[column.type]
    with np.errstate(invalid="ignore"):
        wrong: NDArray[np.bool_] = ~((given >= low) & (given <= high))
        if column.type not in ("amount", "flag"):
            wrong |= given != np.floor(given)
    return wrong


def _allowed(column: Column, labels: Mapping[str, Sequence[str]]) -> str:
    return {
        "label": f"0 to {len(labels.get(column.name, ())) - 1}",
        "index": "a whole number from -1",
        "count": "a whole number from 0",
        "flag": "true or false",
        "amount": f"a number of {column.unit} from 0",
    }[column.type]


def _check_steps(w: Workload) -> None:
    lengths = {len(column) for column in w.columns.values()}
    if len(lengths) != 1:
        raise InputError("columns differ in length", file=w.name, value=sorted(lengths))
    if len(w) == 0:
        raise InputError("no device operations", file=w.name,
                         hint="trace with GPU activity switched on")  # fmt: skip
    step = w["step"]
    if len(w.steps) != len(w.steps.tail_s) or int(step.max()) >= len(w.steps):
        raise InputError("an operation of a step that is not listed", file=w.name,
                         value=int(step.max()), allowed=f"below {len(w.steps)}")  # fmt: skip
    if (np.diff(step) < 0).any():
        raise InputError("operations are not in order of their steps", file=w.name)
    for part, values in (
        ("wall_s", w.steps.wall_s), ("tail_s", w.steps.tail_s), ("start_s", w.steps.start_s),
    ):  # fmt: skip
        if values is None:
            continue
        if len(values) != len(w.steps):
            raise InputError("one value a step is needed", file=w.name, place=f"steps, {part}")
        if values.ndim != 1 or not (np.isfinite(values) & (values >= 0)).all():
            raise InputError("not a duration", file=w.name, place=f"steps, {part}")
    for column, allowed in (("kind", KINDS), ("basis", BASES), ("origin", ORIGINS)):
        unknown = [label for label in w.labels[column] if label not in allowed]
        if unknown:
            raise InputError(f"unknown {column}", file=w.name, value=unknown[0],
                             allowed=", ".join(allowed))  # fmt: skip


def _check_edges(w: Workload) -> None:
    indptr, indices = w.edges
    valid = (
        len(indptr) == len(w) + 1
        and indptr[0] == 0
        and indptr[-1] == len(indices)
        and bool((np.diff(indptr) >= 0).all())
    )
    if not valid:
        raise InputError("dependencies are not in CSR form", file=w.name)
    later = np.repeat(np.arange(len(w)), np.diff(indptr))
    if len(indices) and (indices.min() < 0 or (indices >= later).any()):
        raise InputError("an operation depends on one that is not before it", file=w.name)
