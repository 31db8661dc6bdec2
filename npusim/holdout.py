"""Samples of measured operations: one to fit on, the rest to report on."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.measured.data import Measured


def split(measured: Measured, seed: int) -> tuple[Measured, Measured]:
    """Return two random halves of each op; where a count is odd the first gets one more.

    Parameters
    ----------
    measured : Measured
    seed : int
        The same seed gives the same halves.

    Returns
    -------
    Measured, Measured
        Rows in the order of the whole.
    """
    random = np.random.default_rng(seed)
    first = np.zeros(len(measured), dtype=bool)
    for op in sorted(set(measured.op)):
        rows = random.permutation(np.flatnonzero(measured.op == op))
        first[rows[: (len(rows) + 1) // 2]] = True
    return measured.take(first), measured.take(~first)


def anchor(measured: Measured, count: int, seed: int) -> tuple[Measured, Measured]:
    """Return a few well-spread operations, and all the others.

    Operations are put in strata of equal size: by bytes, and among those that move equally much by
    FLOP; one is drawn at random from each stratum.

    Parameters
    ----------
    measured : Measured
    count : int
        How many, fewer than there are.
    seed : int
        The same seed gives the same sample.

    Raises
    ------
    InputError
        Not from 1 to one less than there are.
    """
    if not 0 < count < len(measured):
        raise InputError("cannot sample", file=measured.source, value=count,
                         allowed=f"1 to {len(measured) - 1} of {len(measured)} rows")  # fmt: skip
    random = np.random.default_rng(seed)
    o = measured.operations
    chosen: list[int] = []
    outer = np.array_split(np.argsort(o.bytes_moved, kind="stable"), max(round(count**0.5), 1))
    for rows, wanted in zip(outer, _shares([len(r) for r in outer], count), strict=True):
        inner = rows[np.argsort(o["flop"][rows], kind="stable")]
        strata = np.array_split(inner, wanted) if wanted else []
        chosen += [int(random.choice(stratum)) for stratum in strata]
    mask: NDArray[np.bool_] = np.zeros(len(measured), dtype=bool)
    mask[chosen] = True
    return measured.take(mask), measured.take(~mask)


def _shares(sizes: list[int], count: int) -> list[int]:
    """Return how many to take of each part, as even as can be, `count` in all.

    Examples
    --------
    >>> _shares([10, 10, 9], 8)
    [3, 3, 2]
    """
    ends = np.ceil(np.cumsum(sizes) * count / sum(sizes) - 1e-9).astype(int)
    return [int(n) for n in np.diff(np.concatenate([[0], ends]))]
