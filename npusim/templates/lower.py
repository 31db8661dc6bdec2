"""Operators of a model to the kernels of a lowering, and these to a workload.

Operators of the same name and sizes have the same kernels, so these are made once; a layer that
repeats costs nothing but its place in the columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim import __version__
from npusim.columns import COLUMNS, HOST_PARTS, LABELS
from npusim.errors import InputError
from npusim.templates.kernels import ITEM, Row, kernel_row
from npusim.templates.lowering import Lowering, Step
from npusim.templates.operators import OPERATORS, Operator
from npusim.templates.overlap import lanes
from npusim.workload import Steps, Workload

_DEEPEST = 20  # operators that operators are made of
_MOST = 5_000_000  # kernels of a workload


@dataclass(frozen=True)
class Phase:
    """One step of a workload.

    Attributes
    ----------
    name : str
        ``prefill``, ``decode`` or ``encode``.
    operators : sequence of Operator
    tail_s : float
        Host work after the last kernel [s].
    """

    name: str
    operators: Sequence[Operator]
    tail_s: float = 0.0


@dataclass
class _Kernels:
    """Kernels made so far: each different one once, and those of each operator by number."""

    lowering: Lowering
    dtype: str
    rows: list[Row] = field(default_factory=list)
    places: list[tuple[str, str]] = field(default_factory=list)
    of: dict[tuple[str, tuple[float, ...]], list[int]] = field(default_factory=dict)

    def numbers(self, name: str, sizes: tuple[float, ...], depth: int = 0) -> list[int]:
        """Return the kernels of an operator, as numbers into `rows`."""
        found = self.of.get((name, sizes))
        if found is None:
            found = self.of[name, sizes] = self._made(name, sizes, depth)
        return found

    def _made(self, name: str, sizes: tuple[float, ...], depth: int) -> list[int]:
        if name not in self.lowering.ops:
            raise InputError(
                "has no kernels for this operator", file=self.lowering.name, value=name,
                hint="choose another lowering, or give it some",
            )  # fmt: skip
        if depth > _DEEPEST:
            raise InputError("operators that are made of each other", file=self.lowering.name,
                             value=name)  # fmt: skip
        let, steps = self.lowering.ops[name]
        names: dict[str, Any] = dict(zip(OPERATORS[name], sizes, strict=True))
        names |= {"item": ITEM[self.dtype], "units": self.lowering.units}
        try:
            for more, expression in let.items():
                names[more] = expression.value(names)
            return self._steps(steps, names, depth, name)
        except InputError as error:
            if depth:
                raise
            raise InputError(str(error), file=self.lowering.name, place=name) from None

    def _steps(
        self, steps: Sequence[Step], names: Mapping[str, Any], depth: int, name: str
    ) -> list[int]:
        made: list[int] = []
        for step in steps:
            times = _times(step, names)
            if times == 0:
                continue
            once = self._step(step, names, depth, name)
            if len(made) + len(once) * times > _MOST:
                raise InputError("too many kernels", value=len(made) + len(once) * times,
                                 allowed=f"up to {_MOST:,}")  # fmt: skip
            made += once * times
        return made

    def _step(self, step: Step, names: Mapping[str, Any], depth: int, name: str) -> list[int]:
        if step.op is not None:
            sizes = tuple(step.sizes[size].value(names) for size in OPERATORS[step.op])
            return self.numbers(step.op, sizes, depth + 1)
        if step.kernel is None:
            return self._steps(step.do, names, depth, name)
        row = kernel_row(step, names, self.dtype, self.lowering.library)
        host, first = self.lowering.host_s.get(name, {}).get(step.place, (0.0, 0.0))
        self.rows.append({**row, "host_s": host, "first_s": first})
        self.places.append((name, step.place))
        return [len(self.rows) - 1]


def lower(
    name: str, phases: Iterable[Phase], lowering: Lowering, dtype: str, meta: Mapping[str, Any]
) -> Workload:
    """Return the workload of some steps of a model.

    Parameters
    ----------
    name : str
        What to call it.
    phases : iterable of Phase
        Its steps, taken one by one.
    lowering : Lowering
    dtype : str
        Type that the model computes in.
    meta : mapping
        Provenance beside that of the lowering.

    Returns
    -------
    Workload
        Every operation is ``generated``: it has shapes, and no measured time.

    Raises
    ------
    InputError
        An operator that the lowering has no kernels for, or a kernel that cannot be computed.
    """
    kernels = _Kernels(lowering, dtype)
    steps = _steps(name, phases, kernels)
    counts = [len(step.kernels) for step in steps]
    at = np.concatenate([step.kernels for step in steps])
    columns, labels = _columns(kernels.rows, at)
    for start, stop in pairwise([0, *np.cumsum(counts).tolist()]):
        _plan(columns["host_s"][start:stop], at[start:stop], kernels.rows)
    columns["interpreter_s"] = columns["host_s"]
    columns["layer"] = np.concatenate([step.layers for step in steps])
    columns["step"] = np.repeat(np.arange(len(steps)), counts)
    labels["phase"] = list(dict.fromkeys(step.phase for step in steps))
    which = [labels["phase"].index(step.phase) for step in steps]
    columns["phase"] = np.array(which)[columns["step"]]
    edges = None
    if any(step.halves.any() for step in steps):
        halves = np.concatenate([step.halves for step in steps])
        apart = np.array([row["kind"] == "collective" for row in kernels.rows])[at]
        columns["stream"], edges = lanes(halves, apart, columns["step"])
    times = Steps(np.zeros(len(steps)), np.array([step.tail_s for step in steps], dtype=np.float64))
    about = {
        "format": "template", "lowering": lowering.name, "launch": "eager", "host": "generated",
        "measured": False, "units": lowering.units, "marked_steps": len(steps),
        "npusim": __version__, **meta,
    }  # fmt: skip
    return Workload(name, columns, labels, times, edges, meta=about)


@dataclass(frozen=True)
class _Step:
    """A step made of kernels: their numbers, layers and halves, each (K,)."""

    phase: str
    tail_s: float
    kernels: NDArray[np.intp]
    layers: NDArray[np.int64]
    halves: NDArray[np.int64]


def _steps(name: str, phases: Iterable[Phase], kernels: _Kernels) -> list[_Step]:
    """Return the steps of a workload; too many kernels are refused before they are all made."""
    steps: list[_Step] = []
    total = 0
    for phase in phases:
        parts = [kernels.numbers(o.name, o.sizes) for o in phase.operators]
        counts = [len(part) for part in parts]
        layers, halves = (np.repeat([getattr(o, of) for o in phase.operators], counts)
                          for of in ("layer", "half"))  # fmt: skip
        numbers = np.array([i for part in parts for i in part], dtype=np.intp)
        steps.append(_Step(phase.name, phase.tail_s, numbers, layers, halves))
        total += len(numbers)
        if total > _MOST:
            raise InputError("too many kernels", file=name, value=total,
                             allowed=f"up to {_MOST:,}")  # fmt: skip
    return steps


def _plan(host_s: NDArray[Any], at: NDArray[np.intp], rows: Sequence[Row]) -> None:
    """Put what the host does before the first of a shape in a step where it belongs."""
    shapes, first = np.unique(at, return_index=True)
    for shape, place in zip(shapes.tolist(), first.tolist(), strict=True):
        host_s[place] = rows[shape]["first_s"]


def places(operators: Sequence[Operator], lowering: Lowering, dtype: str) -> list[tuple[str, str]]:
    """Return of each kernel of a step which operator of the lowering it stands in, and where."""
    kernels = _Kernels(lowering, dtype)
    return [kernels.places[i] for o in operators for i in kernels.numbers(o.name, o.sizes)]


def _columns(
    rows: Sequence[Row], at: NDArray[np.intp]
) -> tuple[dict[str, NDArray[Any]], dict[str, list[str]]]:
    """Return columns and labels of kernels, given the different ones and which each is."""
    fixed: dict[str, Any] = {
        **dict.fromkeys(COLUMNS, 0), **dict.fromkeys(HOST_PARTS, 0.0),
        "basis": "shape", "origin": "generated", "phase": "", "layer": -1, "thread": -1,
    }  # fmt: skip
    columns: dict[str, NDArray[Any]] = {}
    labels: dict[str, list[str]] = {}
    for name in COLUMNS:
        values = [row.get(name, fixed[name]) for row in rows]
        if name in LABELS:
            labels[name] = list(dict.fromkeys(values))
            number = {text: i for i, text in enumerate(labels[name])}
            values = [number[text] for text in values]
        columns[name] = np.array(values)[at]
    return columns, labels


def _times(step: Step, names: Mapping[str, Any]) -> int:
    """Return how many times a step is done."""
    times = step.times.value(names) if step.when.value(names) else 0
    if not isinstance(times, int | float) or not 0 <= times <= _MOST or times != int(times):
        raise InputError("not a number of times", place=step.kernel or step.op, value=times,
                         allowed=f"a whole number up to {_MOST:,}")  # fmt: skip
    return int(times)
