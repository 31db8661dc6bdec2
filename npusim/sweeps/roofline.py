"""The roofline time of a step, on millions of designs a second: what no machine goes below.

    t = sum over operations of max(bytes / bandwidth, FLOP / throughput)

Operations that one throughput limits are sorted by their arithmetic intensity once. Those below the
ridge point of a design are bound by its memory, those above by its arithmetic, so two sums up to a
place that is looked up are all that a design costs, however many operations there are.

Source: S. Williams, A. Waterman, D. Patterson, "Roofline", CACM 52(4), 2009,
doi:10.1145/1498765.1498785; rates as in `npusim.models.roofline`.

Left out: all that makes a step take longer (floors, launches, waves, occupancy), and caches, which
may make operations quicker than DRAM alone: every byte counts as one of DRAM.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.roofline import bandwidth, throughput, unit_of
from npusim.workload import Workload

Array = NDArray[np.float64]

_AT_ONCE = 16_384  # designs whose columns stay in cache


class StepRoofline:
    """The operations of a step, sorted by arithmetic intensity.

    Parameters
    ----------
    w : Workload
        Operations whose shapes are not known count with no work.

    Examples
    --------
    >>> import npusim as ns
    >>> step = StepRoofline(ns.load_workload("paddleocr_vl_decode"))
    >>> fast = {"memories.dram.bandwidth": np.array([2.4e12, 4.8e12])}
    >>> half, whole = step.seconds(Designs(ns.load_arch("h200"), fast))
    >>> bool(1.9 < half / whole <= 2.0)
    True
    """

    def __init__(self, w: Workload) -> None:
        rows, inverse = w.unique()
        self._operations = w.operations(rows)
        self._times = np.bincount(inverse, minlength=len(rows)) / len(w.steps)

    def seconds(self, designs: Designs) -> Array:
        """Return the roofline time of a step, the mean over the steps, shape (D,) [s]."""
        limits = self._limits(designs)
        total = np.zeros(len(designs))
        for start in range(0, len(designs), _AT_ONCE):
            at = slice(start, start + _AT_ONCE)
            few = designs.of({path: c[at] for path, c in designs.columns.items()})
            total[at] = sum(one.seconds(few) for one in limits)
        return total

    def _limits(self, designs: Designs) -> list[_Limit]:
        """Return operations by the throughput that limits them."""
        o = self._operations
        of: dict[tuple[str, str], list[int]] = {}
        first: dict[tuple[str, str], tuple[str, str]] = {}
        for i, (kind, dtype) in enumerate(zip(o.kind, o.dtype, strict=True)):
            unit = unit_of(kind, dtype, designs)
            key = (unit, dtype if unit == "matrix" else "")
            of.setdefault(key, []).append(i)
            first.setdefault(key, (kind, dtype))
        work = self._times * o["flop"], self._times * o.bytes_moved
        return [_Limit(*first[key], *(x[rows] for x in work)) for key, rows in of.items()]


class _Limit:
    """Operations that one throughput limits."""

    def __init__(self, kind: str, dtype: str, flop: Array, moved: Array) -> None:
        self._kind, self._dtype = kind, dtype
        with np.errstate(divide="ignore", invalid="ignore"):
            intensity = np.where(flop > 0, flop / moved, 0.0)
        order = np.argsort(intensity, kind="stable")
        self._intensity = intensity[order]
        self._bytes = np.concatenate([[0.0], np.cumsum(moved[order])])
        done = np.concatenate([[0.0], np.cumsum(flop[order])])
        self._flop = done[-1] - done

    def seconds(self, designs: Designs) -> Array:
        """Return their roofline time, (D,) or (1,) [s]."""
        fast, wide = throughput(self._kind, self._dtype, designs), bandwidth(designs)
        at = np.searchsorted(self._intensity, fast / wide)
        total: Array = self._bytes[at] / wide + self._flop[at] / fast
        return total
