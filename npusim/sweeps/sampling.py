"""Designs drawn from a space in place of its full grid.

Axes of the machine are drawn; launch modes, axes of the workload and machines are full factors:
every sample is evaluated under each of them. A range is drawn anywhere between its ends, evenly on
its scale (``log``: evenly in the logarithm); a list gives one of its values, each as often as the
others; of whole numbers and names each between the ends is drawn as often (on its scale). Numbers
drawn are rounded to nine digits, so that the last bit of a logarithm does not tell machines apart.

Source: S. Joe, F. Y. Kuo, "Constructing Sobol sequences with better two-dimensional projections",
SIAM J. Sci. Comput. 30 (2008) 2635; M. D. McKay et al., "A comparison of three methods for
selecting values of input variables", Technometrics 21 (1979) 239; both as in `scipy.stats.qmc`.

Left out: points drawn evenly among designs whose conditions hold (they are drawn from the whole
space, and axes that are off then do not count); another release of scipy may draw other points
from a seed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import product

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch
from npusim.axes import ARCH, LAUNCH, Axis, Samples, discrete, parents_first
from npusim.sweeps.part import Array, Part
from npusim.transforms import split

Mask = NDArray[np.bool_]
_DIGITS = 9


def drawn(axes: Mapping[str, Axis], samples: Samples) -> dict[str, Array]:
    """Return N values of each axis.

    Parameters
    ----------
    axes : mapping of str to Axis
        D axes of the machine.
    samples : Samples

    Returns
    -------
    mapping of str to array, shape (N,)
        [SI]

    Examples
    --------
    >>> axes = {"units.clock": Axis((1e9, 2e9), "linear"), "units.count": Axis((60.0, 80.0))}
    >>> found = drawn(axes, Samples(4))
    >>> sorted((found["units.clock"] // 2.5e8).tolist())
    [4.0, 5.0, 6.0, 7.0]
    >>> sorted(found["units.count"].tolist())
    [60.0, 60.0, 80.0, 80.0]
    """
    points = _points(len(axes), samples)
    return {p: _value(p, axis, points[:, i]) for i, (p, axis) in enumerate(axes.items())}


def _points(width: int, samples: Samples) -> Array:
    """Return points in the unit cube, shape (N, D), below one in all of them."""
    from scipy.stats import qmc  # takes half a second

    random = np.random.default_rng(samples.seed)
    count = samples.count
    if samples.method == "random":
        points = random.random((count, width))
    elif samples.method == "lhs":
        points = qmc.LatinHypercube(width, seed=random).random(count)
    else:  # the first of as many as a sequence is even with
        points = qmc.Sobol(width, seed=random).random_base2((count - 1).bit_length())[:count]
    below_one: Array = np.minimum(points, np.nextafter(1.0, 0.0))
    return below_one


def _value(path: str, axis: Axis, share: Array) -> Array:
    """Return where shares of an axis lie on it [SI]."""
    if not axis.scale:
        return np.asarray(axis.values)[(share * len(axis.values)).astype(np.intp)]
    low, high = min(axis.values), max(axis.values)
    first, last = (low - 0.5, high + 0.5) if discrete(path) else (low, high)
    if axis.scale == "log":
        found = first * (last / first) ** share
    else:
        found = first + (last - first) * share
    if discrete(path):
        rounded = np.rint(found)
    else:
        rounded = np.array([float(f"{value:.{_DIGITS}g}") for value in found])
    inside: Array = np.clip(rounded, low, high)
    return inside


def listed(
    axes: Mapping[str, Axis],
    columns: Mapping[str, Array],
    arch: Arch,
    launches: Sequence[str],
    off: Collection[str] = (),
) -> Iterator[tuple[Part, int]]:
    """Yield lists of designs of one machine, and how many that came twice each one leaves out.

    Parameters
    ----------
    axes : mapping of str to Axis
        All axes of the space.
    columns : mapping of str to array, shape (N,)
        Values drawn for those of the machine [SI].
    arch : Arch
    launches : sequence of str
    off : collection of str
        Axes that never count on this machine.
    """
    workload = split(axes)[1]
    kept = {path: (None, *a.values) if a.when else a.values for path, a in workload.items()}
    for launch, values in product(launches, product(*kept.values())):
        chosen = dict(zip(kept, values, strict=True))
        on = _counting(axes, columns, chosen, {LAUNCH: launch, ARCH: arch.name}, off)
        rows = np.ones(len(next(iter(columns.values()))), dtype=bool)
        for path, value in chosen.items():
            rows &= on[path] if value is not None else ~on[path]
        change = {path: value for path, value in chosen.items() if value is not None}
        for points, twice in _tables(columns, on, arch, rows):
            yield Part(arch, launch, change, {}, points), twice


def _counting(
    axes: Mapping[str, Axis],
    columns: Mapping[str, Array],
    chosen: Mapping[str, float | None],
    names: Mapping[str, str],
    off: Collection[str],
) -> dict[str, Mask]:
    """Return for each axis which samples it counts for."""
    size = len(next(iter(columns.values())))
    on: dict[str, Mask] = {}
    for path in parents_first(axes):
        counts = np.full(size, path not in off)
        for parent, condition in axes[path].when.items():
            if parent in names:
                counts &= condition.holds(names[parent])
            elif parent in columns:
                counts &= on[parent] & condition.met(columns[parent])
            else:
                value = chosen[parent]
                counts &= on[parent] & (value is not None and condition.holds(value))
        on[path] = counts
    return on


def _tables(
    columns: Mapping[str, Array], on: Mapping[str, Mask], arch: Arch, rows: Mask
) -> Iterator[tuple[dict[str, Array], int]]:
    """Yield columns of the designs in some rows, those apart that have other axes, each once."""
    if not rows.any():
        return
    own = {path: value for path in columns if (value := arch.values.get(path)) is not None}
    shown = {p: (np.where(on[p], c, own[p]) if p in own else c)[rows] for p, c in columns.items()}
    has = np.array([on[p][rows] | (p in own and on[p].any()) for p in columns])
    patterns, which = np.unique(has, axis=1, return_inverse=True)
    for i, pattern in enumerate(patterns.T):
        chosen = which.reshape(-1) == i
        table = {p: shown[p][chosen] for p, there in zip(columns, pattern, strict=True) if there}
        if not table:
            yield {}, int(chosen.sum()) - 1
            continue
        first = np.unique(np.stack(list(table.values())), axis=1, return_index=True)[1]
        first.sort()
        yield {p: c[first] for p, c in table.items()}, int(chosen.sum()) - len(first)
