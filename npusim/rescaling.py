"""A measured workload at another batch or context, and how sure each of its operations is.

From one trace, shapes follow rules of the operators (`npusim.transforms.batch` and `context`).
Further traces of the same program, at other batches or contexts, bind the shapes by comparison. Of
an operation that costs v(i) at the traced sizes x(i), the rule stands where it gives every v(i).
Elsewhere the traces count: between the two sizes next to the one that is asked for,

    v(x) = v(i) + (v(j) - v(i)) (x - x(i)) / (x(j) - x(i))

for each of its shapes, FLOP and bytes. Such a law is confirmed if it is the same for all traces: v
constant, v proportional to x, or, with three traces or more, all v on one line.

Its kernel (kind, library, routine, grid) is known where the two traces next to the size have the
same one, or where rules give that of every trace; if not, its grid is left unknown.

An operation is then (`npusim.columns.ORIGINS`)

- ``measured`` if the traces agree about it whatever the size, or the size is that of a trace, whose
  kernel and shapes it then has;
- ``rescaled`` if the size lies between traces, its law is confirmed and its kernel known;
- ``extrapolated`` otherwise, and where a trace lacks it (`npusim.counterparts`).

Without further traces the marks are those of the transforms (`npusim.transforms.record`).

Left out: measured times and host work stay those of the workload; operations that only other traces
have are not added; a law of batch and context together is taken to be the product of both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.columns import COLUMNS, COST_COLUMNS, COST_LABELS, ORIGINS
from npusim.counterparts import Index, Mask, counterparts
from npusim.errors import InputError
from npusim.size_laws import Points, column_of, equal
from npusim.transforms import batch as batches
from npusim.transforms import context as contexts
from npusim.transforms import refuse_changed, transformed
from npusim.transforms.record import changed, checked, marked, origins
from npusim.workload import Workload

Array = NDArray[np.float64]

_NAMES = {contexts.KEYS: "context", batches.BATCH: "batch"}  # in the order of the changes
_GRID = ("blocks", "threads")
_WORK = tuple(c for c in COST_COLUMNS if c not in (*COST_LABELS, *_GRID))
_LAUNCH = (*_GRID, "registers", "shared_memory")
_TEXTS = ("kernel", *COST_LABELS)
_EXACT = 1e-9
_RESCALED, _EXTRAPOLATED = (ORIGINS.index(o) for o in ("rescaled", "extrapolated"))


def rescale(
    w: Workload,
    *,
    batch: float | None = None,
    context: float | None = None,
    against: Sequence[Workload] = (),
) -> Workload:
    """Return a workload at another batch or context, each operation marked.

    Parameters
    ----------
    w : Workload
        Decode steps as they were traced.
    batch : float, optional
        Sequences of a step, 1 to 1e6.
    context : float, optional
        Keys of every sequence, 1 to 1e9.
    against : sequence of Workload
        The same program traced at another batch or another context, not both at once.

    Returns
    -------
    Workload
        Column ``origin`` says what each operation is. Measured times stay what they were.

    Raises
    ------
    InputError
        Neither batch nor context, out of bounds, no decode attention, a workload or trace that was
        changed before, a trace of another program, or of a size that is there already.

    Examples
    --------
    >>> import npusim as ns
    >>> one, many = (ns.load_workload("paddleocr_vl_decode" + b) for b in ("", "_b32"))
    >>> eight, rule = rescale(one, batch=8, against=[many]), rescale(one, batch=8)
    >>> float(eight["flop"].sum() / rule["flop"].sum())
    1.0
    >>> [int((w.text("origin") == "extrapolated").sum()) for w in (rule, eight)]
    [657, 447]
    """
    given = {contexts.KEYS: context, batches.BATCH: batch}
    asked = checked({path: value for path, value in given.items() if value is not None})
    asked = {path: float(np.rint(value)) for path, value in asked.items()}
    if not asked:
        raise InputError("nothing to rescale to", file=w.name, allowed="a batch, a context or both")
    if not against:
        return transformed(w, asked)
    for one in (w, *against):
        refuse_changed(one, "comparing traces")
    traces = _traces(w, against, asked)
    made = w
    for path, value in asked.items():
        own = [t for t in traces if t.path == path]
        made = _compared(w, made, path, value, own) if own else transformed(made, {path: value})
    return made


# ---------------------------------------------------------------- traces


@dataclass(frozen=True)
class _Trace:
    """Another trace: what it is at, the operation that each one is there, and the size by step."""

    workload: Workload
    path: str
    at: Index
    size: Array


def _size(w: Workload, path: str) -> Array:
    """Return the size of each step, shape (S,)."""
    if path == contexts.KEYS:
        lengths = contexts.lengths(w)
        if not lengths.all():
            raise InputError("has steps without decode attention", file=w.name, place=path)
        return lengths
    return np.full(len(w.steps), float(batches.sequences(w)))


def _ruled(w: Workload, path: str, size: Array) -> Workload:
    """Return a workload at other sizes, one a step, by rule."""
    if path == contexts.KEYS:
        return contexts.with_lengths(w, size)
    return batches.transform(w, {path: float(size[0])})


def _traces(w: Workload, against: Sequence[Workload], asked: Mapping[str, float]) -> list[_Trace]:
    """Return the other traces, each with what it differs in."""
    own = {path: _size(w, path) for path in _NAMES}
    found: list[_Trace] = []
    for other in against:
        at = counterparts(w, other)
        size = {path: _size(other, path)[: len(w.steps)] for path in _NAMES}
        differs = [path for path in _NAMES if not np.array_equal(size[path], own[path])]
        if len(differs) > 1:
            raise InputError("differs from the workload in batch and in context", file=other.name,
                             value=_told(size), allowed=f"one of {_told(own)}")  # fmt: skip
        path = differs[0] if differs else next(iter(asked))
        if path not in asked:
            raise InputError(f"differs in {_NAMES[path]}, which is not asked for", file=other.name,
                             value=_told(size))  # fmt: skip
        before = [own[path], *(t.size for t in found if t.path == path)]
        if any((size[path] == sizes).any() for sizes in before):
            raise InputError(f"has the {_NAMES[path]} of another one", file=other.name,
                             value=_told(size), allowed="each batch and context once")  # fmt: skip
        found.append(_Trace(other, path, at, size[path]))
    return found


def _told(size: Mapping[str, Array]) -> str:
    return ", ".join(f"{_NAMES[path]} {np.median(s):g}" for path, s in size.items())


# ---------------------------------------------------------------- one size


@dataclass(frozen=True)
class _Comparison:
    """A workload at another size by rule, beside what traces say of it.

    Attributes
    ----------
    points : Points
    before, rule : Workload
        As it is before the change, and after it by rule.
    traced : mapping of str to array, shape (P, K)
        Each column that costs depend on, in every trace.
    stands : mapping of str to array of bool, shape (K,)
        Where the rule gives what every trace has.
    """

    points: Points
    before: Workload
    rule: Workload
    traced: Mapping[str, NDArray[Any]]
    stands: Mapping[str, Mask]

    def work(self) -> tuple[dict[str, NDArray[Any]], Mask, Mask]:
        """Return shapes and amounts, where their laws are confirmed, and where traces made them."""
        p, w, found = self.points, self.points.first, {}
        sure, other = np.ones(len(w), dtype=bool), np.zeros(len(w), dtype=bool)
        alike = np.all([p.alike(self.traced[c]) for c in COST_LABELS], axis=0)
        for c in _WORK:
            law = p.is_law(self.traced[c])
            sure &= self.stands[c] | law
            scale = np.where(w[c] > 0, self.before[c] / np.maximum(w[c], _EXACT), 1.0)
            line = p.line(self.traced[c]) * scale  # by what was changed before
            line = np.rint(line) if COLUMNS[c].type == "count" else line
            # Between two kernels there is no line: they may be described in other shapes.
            by_traces = ~self.stands[c] & (law | alike | (p.at >= 0))
            found[c] = np.where(by_traces, line, self.rule[c])
            other |= by_traces
        return found, sure, other

    def kernel(self) -> tuple[dict[str, NDArray[Any]], Mask]:
        """Return names, labels and launches, and where they are known."""
        p = self.points
        by_rule = np.all([self.stands[c] for c in (*COST_LABELS, *_GRID)], axis=0)
        values = {c: p.values(c) for c in (*_TEXTS, *_LAUNCH)}
        alike = np.all([p.alike(values[c]) for c in (*_TEXTS, *_GRID)], axis=0)
        as_traced = origins(self.before) == origins(p.first)  # not at another of the other size
        known = ((p.within & alike) | (p.at >= 0)) & as_traced
        source = np.where(p.at >= 0, p.at, p.low)
        found = {}
        for c, v in values.items():
            ruled = column_of(self.rule, c)
            found[c] = np.where(known, p.of(v, source), ruled)
            if c in _GRID:
                found[c] = np.where(known | by_rule, found[c], 0)
        return found, known | by_rule


def _points(w: Workload, path: str, target: float, traces: Sequence[_Trace]) -> Points:
    sizes = np.stack([_size(w, path), *(t.size for t in traces)])
    return Points([w, *(t.workload for t in traces)], [t.at for t in traces], sizes, target)


def _compared(
    w: Workload, before: Workload, path: str, target: float, traces: Sequence[_Trace]
) -> Workload:
    """Return a workload at another size, by the laws of its traces.

    Parameters
    ----------
    w : Workload
        As it was traced.
    before : Workload
        The same, or at another of the other size.
    """
    p, rule = _points(w, path, target, traces), transformed(before, {path: target})
    ruled = [w, *(_ruled(w, path, t.size) for t in traces)]
    traced = {c: p.values(c) for c in COST_COLUMNS}
    stands = {c: equal(v, np.stack([column_of(r, c) for r in ruled])) for c, v in traced.items()}
    found = _Comparison(p, before, rule, traced, stands)
    (work, sure, other), (kernel, known) = found.work(), found.kernel()
    depends = ~np.all([equal(v, v[0]) for v in traced.values()], axis=0)
    columns = work | kernel
    for c, column in columns.items():  # what a trace lacks is left to the rule
        told = np.where(depends, column, column_of(before, c))
        columns[c] = np.where(p.present, told, column_of(rule, c))
    texts = {c: columns.pop(c) for c in _TEXTS}
    made = changed(before, {path: target}, columns, texts)
    if made is before:
        return before
    marks = np.where(sure & known & p.within, _RESCALED, _EXTRAPOLATED)
    own = np.stack([origins(w), *(origins(t.workload)[t.at] for t in traces)])
    marks = np.where((p.at >= 0) & known, p.of(own, np.maximum(p.at, 0)), marks)
    marks = np.where(p.present, np.where(depends, marks, 0), _EXTRAPOLATED)
    made = marked(made, np.maximum(origins(before), marks))
    return _noted(made, path, traces, int((other & depends & p.present).sum()), p)


def _noted(
    w: Workload, path: str, traces: Sequence[_Trace], other: int, points: Points
) -> Workload:
    """Return a workload whose notes say what it was compared with."""
    names = ", ".join(f"{t.workload.name} ({_NAMES[path]} {np.median(t.size):g})" for t in traces)
    note = f"compared with {names}: {other} operations follow the traces rather than the rule"
    if not points.present.all():
        note += f"; {int((~points.present).sum())} are not in every trace"
    against = [*w.meta.get("against", ()), *(t.workload.name for t in traces)]
    return w.renamed(w.name, against=against, notes=[*w.meta.get("notes", ()), note])
