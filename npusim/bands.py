"""Error bands: what is left after calibration, carried to totals, and where it says nothing.

After a calibration the ratio of measured to predicted time has quantiles p10, p50 and p90, for
each kind of operation. A total is the sum over kinds of predicted time T times a factor F:

- within a kind all operations share one F: what a model gets wrong of one GEMV it gets wrong of
  the next, so errors of a thousand equal kernels do not cancel;
- between kinds factors are independent: the half-widths T (p90 - p50) and T (p50 - p10) add in
  quadrature around the sum of T p50, as errors that know nothing of each other do.

For one kind the band is exact, ``T p10`` to ``T p90``. For several it is the propagation of
independent errors with its upper and lower sides kept apart; see R. Barlow, "Asymmetric errors",
PHYSTAT 2003, arXiv:physics/0401042.

Left out: errors that kinds share (a wrong bandwidth), and ranges of assumed parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim import units
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.workload import Operations

Array = NDArray[np.float64]
Domain = Mapping[str, tuple[float, float]]

QUANTILES = (0.1, 0.5, 0.9)
MACHINE = ("units.count", "memories.l2.capacity", "memories.dram.bandwidth")
_PRODUCTS = ("gemv", "gemm", "grouped_gemm", "conv")
_SHAPE = {**dict.fromkeys(_PRODUCTS, ("m", "n", "k", "bytes")),
          "attention": ("batch", "m", "n", "k", "heads", "bytes")}  # fmt: skip
_MEANING = {
    "attention": {"m": "queries", "n": "context", "k": "head size"},
}


@dataclass(frozen=True)
class Residual:
    """What is left between measurement and model for one kind of operation.

    Attributes
    ----------
    n : int
        Measured operations.
    p10, p50, p90 : float
        Quantiles of measured / predicted time.
    domain : mapping of str to (float, float)
        Least and most that was measured of each quantity: of the shape by column, of the machine
        by dotted path [B and SI].
    """

    n: int
    p10: float
    p50: float
    p90: float
    domain: Domain

    def as_record(self) -> dict[str, Any]:
        """Return plain values, as they stand in the calibration record of a machine."""
        domain = {name: list(ends) for name, ends in self.domain.items()}
        quantiles = {q: float(f"{getattr(self, q):.5g}") for q in ("p10", "p50", "p90")}
        return {"n": self.n, **quantiles, "domain": domain}


def from_record(record: Mapping[str, Any]) -> dict[str, Residual]:
    """Return the residuals of a calibration record, by kind of operation."""
    found = {}
    for kind, r in record.items():
        domain = {name: (float(low), float(high)) for name, (low, high) in r["domain"].items()}
        found[kind] = Residual(int(r["n"]), float(r["p10"]), float(r["p50"]), float(r["p90"]),
                               domain)  # fmt: skip
    return found


def residual(ratio: Array, domain: Domain) -> Residual:
    """Return the residual of one kind from measured / predicted times, shape (n,).

    Examples
    --------
    >>> r = residual(np.linspace(0.9, 1.1, 11), {"m": (1.0, 1.0)})
    >>> r.n, round(r.p10, 3), round(r.p50, 3), round(r.p90, 3)
    (11, 0.92, 1.0, 1.08)
    """
    low, middle, high = np.quantile(ratio, QUANTILES)
    return Residual(len(ratio), float(low), float(middle), float(high), domain)


def shape_columns(kind: str, operations: Operations) -> Iterator[tuple[str, Array]]:
    """Yield the quantities that span the shapes of a kind, each of shape (U,) [B].

    Only bytes say how large a pointwise kernel is: its rows and columns are a matter of layout.
    """
    for name in _SHAPE.get(kind, ("bytes",)):
        column = operations.bytes_moved if name == "bytes" else operations[name]
        yield name, column.astype(np.float64)


def span(values: Array) -> tuple[float, float]:
    """Return the least and the most of some values."""
    return float(values.min()), float(values.max())


def widened(a: Domain, b: Domain) -> Domain:
    """Return a domain that holds two others.

    Examples
    --------
    >>> widened({"m": (1.0, 4.0)}, {"m": (2.0, 9.0), "k": (1.0, 1.0)})
    {'m': (1.0, 9.0), 'k': (1.0, 1.0)}
    """
    low = {n: min(d[n][0] for d in (a, b) if n in d) for n in {**a, **b}}
    return {n: (low[n], max(d[n][1] for d in (a, b) if n in d)) for n in low}


def total_band(
    by_kind: Mapping[str, Array], residuals: Mapping[str, Residual], carried: Array | float = 0.0
) -> tuple[Array, Array]:
    """Return the p10 and p90 of a total, each of shape (D,) [s].

    Parameters
    ----------
    by_kind : mapping of str to array, shape (D,)
        Predicted time of each kind of operation on D designs [s].
    residuals : mapping of str to Residual
        Of a calibration. A kind that was never measured takes the widest of those that were.
    carried : array, shape (D,), or float
        Time that was measured and is carried over, without error [s].

    Raises
    ------
    InputError
        There are no residuals.

    Examples
    --------
    >>> r = {"gemv": Residual(9, 0.8, 1.0, 1.3, {}), "gemm": Residual(9, 0.6, 1.0, 1.4, {})}
    >>> [float(x[0]) for x in total_band({"gemv": np.array([10.0])}, r)]
    [8.0, 13.0]
    >>> low, high = total_band({"gemv": np.array([10.0]), "gemm": np.array([10.0])}, r)
    >>> round(float(high[0]), 3)  # 20 + sqrt(3^2 + 4^2)
    25.0
    """
    wide = _widest(residuals)
    middle, below, above = np.asarray(carried, dtype=np.float64), np.zeros(()), np.zeros(())
    for kind, time in by_kind.items():
        r = residuals.get(kind, wide)
        middle = middle + time * r.p50
        below = below + (time * (r.p50 - r.p10)) ** 2
        above = above + (time * (r.p90 - r.p50)) ** 2
    return middle - np.sqrt(below), middle + np.sqrt(above)


def _widest(residuals: Mapping[str, Residual]) -> Residual:
    if not residuals:
        raise InputError("no calibration residuals to make a band of", hint="run npusim calibrate")
    all_of = residuals.values()
    middle = float(np.median([r.p50 for r in all_of]))
    return Residual(0, min(r.p10 for r in all_of), middle, max(r.p90 for r in all_of), {})


def by_kind(kind: NDArray[np.object_], seconds: Array) -> dict[str, Array]:
    """Return the time of each kind on each design.

    Parameters
    ----------
    kind : array of str, shape (U,)
    seconds : array, shape (U, D)
        Time of each operation [s], as often as it runs.

    Examples
    --------
    >>> times = by_kind(np.array(["a", "b", "a"], object), np.array([[1.0], [2.0], [3.0]]))
    >>> {k: t.tolist() for k, t in times.items()}
    {'a': [4.0], 'b': [2.0]}
    """
    # Not a matrix product: its rounding would depend on where a design stands.
    return {k: np.add.reduce(seconds[kind == k], axis=0) for k in dict.fromkeys(kind.tolist())}


@dataclass(frozen=True)
class Extrapolation:
    """Where a prediction lies outside of what was measured.

    Attributes
    ----------
    operations : array of bool, shape (U,)
        Of a kind, or of a shape, that was not measured.
    designs : array of bool, shape (D,)
        With more or less of a machine parameter than any machine that was measured.
    reasons : tuple of str
        Each way in which that happens, in words.
    """

    operations: NDArray[np.bool_]
    designs: NDArray[np.bool_]
    reasons: tuple[str, ...]


def extrapolated(
    operations: Operations, designs: Designs, residuals: Mapping[str, Residual]
) -> Extrapolation:
    """Return which operations and designs lie outside of what a calibration measured.

    Parameters
    ----------
    operations : Operations
        U operations.
    designs : Designs
        D designs.
    residuals : mapping of str to Residual
        With the domain of each kind.
    """
    outside = np.zeros(len(operations), dtype=bool)
    reasons: dict[str, None] = {}
    never: list[str] = []
    of_machine: dict[str, dict[str, tuple[float, float]]] = {}
    for kind in dict.fromkeys(operations.kind.tolist()):
        rows = operations.kind == kind
        if kind not in residuals:
            outside |= rows
            never.append(kind)
            continue
        domain = residuals[kind].domain
        for name, column in shape_columns(kind, operations):
            far = rows & _outside(column, domain.get(name))
            outside |= far
            if far.any():
                text = _shown(kind, name, column[far], domain[name])
                reasons[f"{kind}: {text}, {far.sum()} of {rows.sum()} operations"] = None
        for path in (p for p in MACHINE if p in domain and p in designs):
            of_machine.setdefault(path, {})[kind] = domain[path]
    # First what goes for all that the machine runs, then the shapes.
    reasons = {text: None for path, ends in of_machine.items()
               for text in _far_machine(path, designs, ends)} | reasons  # fmt: skip
    if never:
        reasons[f"never measured: {', '.join(never)}"] = None
    beyond = far_designs(dict.fromkeys(operations.kind.tolist()), designs, residuals)
    return Extrapolation(outside, beyond, tuple(reasons))


def _far_machine(
    path: str, designs: Designs, ends: Mapping[str, tuple[float, float]]
) -> Iterator[str]:
    """Say how designs lie outside of what was measured of some kinds, if they do.

    Once for all kinds; of which, where it was not the same of all.
    """
    column = np.broadcast_to(designs[path], len(designs))
    outside = {kind: far for kind, one in ends.items() if (far := _outside(column, one)).any()}
    if not outside:
        return
    measured: dict[str, list[str]] = {}
    for kind in outside:
        measured.setdefault(_text(ends[kind], path), []).append(kind)
    same = len(measured) == 1 and len(outside) == len(ends)
    told = ", ".join(text if same else f"{text} ({', '.join(kinds)})"
                     for text, kinds in measured.items())  # fmt: skip
    far = np.logical_or.reduce(list(outside.values()))
    yield f"{path} {_text(span(column[far]), path)}, measured {told}"


def far_designs(
    kinds: Collection[str], designs: Designs, residuals: Mapping[str, Residual]
) -> NDArray[np.bool_]:
    """Return which designs lie outside of the machines on which some kinds were measured, (D,)."""
    domains = [residuals[kind].domain for kind in kinds if kind in residuals]
    ends = {(path, *d[path]) for d in domains for path in MACHINE if path in d and path in designs}
    beyond = np.zeros(len(designs), dtype=bool)
    for path, low, high in ends:
        beyond |= _outside(designs[path], (low, high))
    return beyond


def _outside(values: Array, ends: tuple[float, float] | None) -> NDArray[np.bool_]:
    if ends is None:
        return np.zeros(len(values), dtype=bool)
    slack = 1e-9
    return (values < ends[0] * (1 - slack)) | (values > ends[1] * (1 + slack))


def _shown(kind: str, name: str, values: Array, ends: tuple[float, float]) -> str:
    """Say what of a shape lies outside of what was measured."""
    called = _MEANING.get(kind, {}).get(name, name)
    return f"{called} {_text(span(values), name)}, measured {_text(ends, name)}"


def _text(ends: tuple[float, float], name: str) -> str:
    """Return a range with its unit, one number where both ends are the same."""
    unit = "B" if name == "bytes" else PARAMETERS[name].unit if name in PARAMETERS else "1"
    low, high = (units.show(end, unit, 6) for end in ends)
    return low if ends[0] == ends[1] else f"{low} to {high}"
