"""Residency: the share of reused data that the last-level cache still holds.

Data that a program reads again and again in the same order (weights in decode) hits only while
all that is touched in between fits. Addresses are hashed over the sets of the cache, so some sets
overflow before the whole cache is full: with a reuse distance F, a usable capacity C and W
effective ways, a set is asked to hold a Poisson number of lines with mean W F / C, and lines of a
set that holds at most W stay under LRU:

    hit = P(Poisson(W F / C) <= W - 1)

Source: Poisson occupancy of hashed sets, A. Agarwal, M. Horowitz, J. Hennessy, "An analytical
cache model", ACM TOCS 7(2), 1989, doi:10.1145/63404.63407. A100-class caches of two partitions
keep a copy of data of the far one (NVIDIA A100 whitepaper): ``memories.l2.usable`` is 2/3 there.

Left out: replacement other than LRU, write-back traffic, interference of streams.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc

from npusim.arch import Designs

Array = NDArray[np.float64]

PARAMETERS = ("memories.l2.capacity", "memories.l2.usable", "memories.l2.ways")


def usable(designs: Designs) -> Array:
    """Return the bytes of the last-level cache that reused data can fill, shape (D,) [B]."""
    if "memories.l2.capacity" not in designs:
        return np.zeros(1)
    return designs["memories.l2.capacity"] * designs["memories.l2.usable"]


def resident_share(distance: NDArray[np.float64], designs: Designs) -> Array:
    """Return the share of hits of data with a reuse distance, shape (U, D).

    Parameters
    ----------
    distance : array, shape (U,)
        Bytes touched between two uses, its own included [B]; ``inf`` is never reused.
    designs : Designs
        D designs; one without a last-level cache hits nothing.

    Examples
    --------
    >>> import npusim as ns
    >>> h200 = Designs(ns.load_arch("h200"))  # 60 MiB, two thirds usable
    >>> resident_share(np.array([20e6, 42e6, 80e6]), h200).round(1).ravel().tolist()
    [1.0, 0.5, 0.0]
    """
    few, which = designs.distinct(PARAMETERS)
    capacity = usable(few)
    if not capacity.any():
        return np.zeros((len(distance), len(designs)))
    ways = few["memories.l2.ways"]
    different, row = np.unique(distance, return_inverse=True)
    with np.errstate(divide="ignore"):
        lines = ways * different[:, None] / capacity
    share: Array = np.broadcast_to(gammaincc(ways, np.minimum(lines, 1e6)),
                                   (len(different), len(few)))  # fmt: skip
    return share[row.reshape(-1)[:, None], which]
