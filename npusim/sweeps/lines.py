"""Lines through designs of a space: all that differ from one of them in one axis alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.sweeps.space import Space

Rows = NDArray[np.int64]

_SEED = 20_240_611  # any, always the same: the same sweep shows the same designs


def lines(space: Space, nominal: Mapping[str, float | str], count: int) -> Rows:
    """Return rows on lines through the design nearest to the nominal one and through some others.

    Parameters
    ----------
    space : Space
        Of samples there are no lines.
    nominal : mapping of str to float or str
        Launch mode, and value of each axis that has one [SI].
    count : int
        How many other designs, drawn at random, have lines through them in each full grid.

    Returns
    -------
    array of int
        Sorted, each once.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"units.count": [66, 132], "host.speed": [1, 2, 4]}
    >>> space = Space(ns.load_arch("h200"), axes, ["graph"])
    >>> lines(space, {"units.count": 132.0, "host.speed": 1.0}, 0).tolist()
    [0, 3, 4, 5]
    """
    rng, found = np.random.default_rng(_SEED), [np.zeros(0, dtype=np.int64)]
    starts = dict(zip(accumulate(map(len, space.parts), initial=0), space.parts, strict=False))
    for first, sizes in space.grids:
        whole = math.prod(sizes.values())
        own: dict[str, Sequence[Any]] = {**space.axes, "launch": space.launch, **starts[first].axes}
        near = _nearest(own, sizes, nominal)
        bases = np.unique(np.append(rng.integers(0, whole, count), near))
        stride = whole
        for size in sizes.values():
            stride //= size
            start = bases - bases // stride % size * stride
            every = start[:, None] + stride * np.arange(size)
            found.append(first + every.reshape(-1))
    return np.unique(np.concatenate(found))


def _nearest(
    axes: Mapping[str, Sequence[Any]], sizes: Mapping[str, int],
    nominal: Mapping[str, float | str],
) -> int:  # fmt: skip
    """Return the row of a full grid whose design is nearest to the nominal one."""
    row = 0
    for path, size in sizes.items():
        row = row * size + _digit(axes[path][:size], nominal.get(path))
    return row


def _digit(values: Sequence[Any], wanted: float | str | None) -> int:
    """Return which value is nearest to the one that is wanted; the first where none is."""
    if isinstance(wanted, str):
        return list(values).index(wanted) if wanted in values else 0
    if wanted is None or not math.isfinite(wanted):
        return 0
    return int(np.argmin(np.abs(np.asarray(values, dtype=float) - wanted)))
