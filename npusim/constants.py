"""How far constants that are known within a range move a figure."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs

Array = NDArray[np.float64]


def quadrature(
    value: Callable[[Designs], Array], designs: Designs, paths: Collection[str]
) -> tuple[Array, Array]:
    """Return the low and high end of a figure, (..., D) each [unit of the figure].

    Each constant is put at both ends of its range, one at a time, all others staying; what moves
    the figure down and what moves it up are added in quadrature, each on its own side, as of
    errors that know nothing of each other.

    Parameters
    ----------
    value : callable
        Figure of D designs, (D,) or (1,), or several at once, (..., D).
    designs : Designs
        D designs.
    paths : collection of str
        Constants. Those without a range, those that the machine does not give and those that are
        a column of the designs stay.

    Examples
    --------
    >>> import npusim as ns
    >>> h100 = Designs(ns.load_arch("h100"))
    >>> low, high = quadrature(lambda d: 2.0 * d["units.base_clock"], h100, ["units.base_clock"])
    >>> low.item(), high.item()
    (2600000000.0, 3340000000.0)
    """
    middle = value(designs)
    middle = np.broadcast_to(middle, (*middle.shape[:-1], len(designs)))
    below, above = np.zeros_like(middle), np.zeros_like(middle)
    for path in dict.fromkeys(paths):
        mark = designs.base.provenance.get(path)
        if mark is None or path in designs.columns or mark.low == mark.high:
            continue
        moved = [value(_with(path, end, designs)) - middle for end in (mark.low, mark.high)]
        below = below + np.minimum(np.minimum(*moved), 0.0) ** 2
        above = above + np.maximum(np.maximum(*moved), 0.0) ** 2
    return middle - np.sqrt(below), middle + np.sqrt(above)


def _with(path: str, end: float, designs: Designs) -> Designs:
    """Return the designs with one constant of their base at one end of its range."""
    return Designs(replace(designs.base, values={**designs.base.values, path: end}),
                   designs.columns)  # fmt: skip
