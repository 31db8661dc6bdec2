"""Residency: the share of reused data that the last-level cache still holds.

Data that a program reads again and again in the same order (weights in decode) hits under LRU only
while all that is touched in between fits. Addresses are hashed over the sets of the cache, so some
sets overflow before the whole cache is full: with a reuse distance F, a usable capacity C and W
effective ways, a set is asked to hold a Poisson number of lines with mean W F / C, and lines of a
set that holds at most W stay:

    hit = P(Poisson(W F / C) <= W - 1)

Under random replacement a line survives each miss with the same chance, so what is touched in a
circle of F = x C bytes hits as often as it misses allow:

    hit = exp(-x (1 - hit)) = -W0(-x exp(-x)) / x        for x > 1, with Lambert's W0

Source: Poisson occupancy of hashed sets, A. Agarwal, M. Horowitz, J. Hennessy, "An analytical
cache model", ACM TOCS 7(2), 1989, doi:10.1145/63404.63407. Random replacement: E. Berg, E.
Hagersten, "StatCache", ISPASS 2004, doi:10.1109/ISPASS.2004.1291352, solved for one distance.
A100-class caches of two partitions keep a copy of data of the far one (NVIDIA A100 whitepaper):
``memories.l2.usable`` is 2/3 there.

Left out: write-back traffic in the way of reads; under random replacement, data of other distances
in the same circle.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import gammaincc, lambertw

from npusim.arch import Designs

Array = NDArray[np.float64]

PARAMETERS = (
    "memories.l2.capacity",
    "memories.l2.usable",
    "memories.l2.ways",
    "memories.l2.replacement",
    "memories.victim.capacity",
)


def usable(designs: Designs) -> Array:
    """Return the bytes of the last-level cache that reused data can fill, shape (D,) or (1,) [B].

    A victim cache is exclusive, it holds nothing that the cache holds: its capacity comes on top.
    """
    if "memories.l2.capacity" not in designs:
        return victim(designs)
    return designs["memories.l2.capacity"] * designs["memories.l2.usable"] + victim(designs)


def victim(designs: Designs) -> Array:
    """Return the capacity of the victim cache, shape (D,) or (1,) [B]; 0 where there is none."""
    path = "memories.victim.capacity"
    return designs[path] if path in designs else np.zeros(1)


def resident_share(distance: Array, designs: Designs) -> Array:
    """Return the share of hits of data with a reuse distance, shape (N, D).

    Parameters
    ----------
    distance : array, shape (N,) or (N, D)
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
    between = distance[:, None] if distance.ndim == 1 else distance
    shape = len(between), len(designs)
    capacity = usable(designs)
    if not capacity.any():
        return np.zeros(shape)
    load = np.minimum(between / capacity, 1e4)
    ways = designs["memories.l2.ways"]
    share: Array = gammaincc(ways, ways * load)
    if "memories.l2.replacement" in designs:
        share = np.where(designs["memories.l2.replacement"] > 0, _at_random(load), share)
    return np.broadcast_to(share, shape)


def _at_random(load: Array) -> Array:
    """Return the hits of a circle of `load` times the capacity under random replacement."""
    beyond = np.maximum(load, 1.0)
    hits = -lambertw(-beyond * np.exp(-beyond)).real / beyond
    return np.where(load > 1.0, hits, 1.0)
