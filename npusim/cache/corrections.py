"""From fully associative LRU to caches that are built: hashed sets, random replacement, SRRIP.

Each is an approximation; :func:`npusim.cache.simulate` is what they are held against, on 4,096
hashed sets of 16 ways and 800,000 accesses: cyclic streams of 0.5 to 3 times the capacity,
uniformly random ones, Zipf's law with exponents 0.8 and 1.1, cyclic and random ones mixed, and
layers whose weights come by in turn between activations that stay. Sets that are not hashed differ:
a stream over consecutive lines fills them evenly, and is then as in a fully associative cache.

Accesses that stream past (``bypass``) need no correction for LRU: leave them out of the distances
of all others with ``stack_distances(..., bypass=...)``.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from npusim.cache import fluid
from npusim.cache.compiled import compiled
from npusim.cache.distance import numbered, whole_numbers
from npusim.cache.simulator import Cache

Values = NDArray[np.float64]

GRID = 8192
MOST_LOADS = 48
SIGMAS = 10  # no set so full in practice


def hit_chances(distances: ArrayLike, capacity: int, ways: int, line: int) -> Values:
    """Return the chance that each access hits an LRU cache of hashed sets, as `distances`.

    Of n other lines since the last use, each falls into the same set with probability 1/sets; the
    line is still there if fewer than `ways` did: P(Binomial(n, 1/sets) <= ways - 1).

    Parameters
    ----------
    distances : array, any shape
        Stack distances of lines of equal size (:func:`stack_distances`) [B].
    capacity, line : int
        Bytes of the cache and of a line [B].
    ways : int
        Lines of a set; 0 is fully associative.

    Raises
    ------
    InputError
        If no cache has this capacity, line and ways.

    Notes
    -----
    Source: A. Smith, "A comparative study of set associative memory mapping algorithms and their
    use for cache and main memory", IEEE Trans. Softw. Eng. SE-4(2), 1978,
    doi:10.1109/TSE.1978.231482; A. Agarwal, M. Horowitz, J. Hennessy, "An analytical cache model",
    ACM Trans. Comput. Syst. 7(2), 1989, doi:10.1145/63404.63407.

    The mean is within 0.5 percentage points of the simulator on all streams above; most of that is
    the draw of the hash, half as much with four times the sets.

    Examples
    --------
    Two sets of one line: with one other line between, half of the accesses hit.

    >>> hit_chances([64.0, 128.0, 192.0, np.inf], 128, 1, 64).tolist()
    [1.0, 0.5, 0.25, 0.0]
    """
    sets = _sets(capacity, ways, line)
    others = np.asarray(distances, float) / line - 1.0
    if sets == 1:
        return np.where(others < (ways or capacity // line), 1.0, 0.0)
    most = sets * (ways + SIGMAS * (math.sqrt(ways) + SIGMAS / 2))
    grid = np.unique(np.round(np.linspace(0.0, most, GRID + 1)))
    return np.interp(others, grid, _binomial_below(grid, ways, 1.0 / sets), right=0.0)


def hit_rate_set_associative(distances: ArrayLike, capacity: int, ways: int, line: int) -> float:
    """Return the hit rate of an LRU cache of hashed sets: the mean of :func:`hit_chances`.

    Examples
    --------
    >>> hit_rate_set_associative([64.0, 128.0, 192.0, np.inf], 128, 1, 64)
    0.4375
    """
    chances = hit_chances(distances, capacity, ways, line)
    return float(chances.mean()) if chances.size else 0.0


def hit_rate_random(blocks: ArrayLike, capacity: int, ways: int, line: int) -> float:
    """Return the expected hit rate of a cache of hashed sets that evicts at random.

    A line survives each eviction with probability 1 - 1/lines, and what was evicted since its last
    use is the sum of the chances of a miss since then: StatCache (E. Berg, E. Hagersten, ISPASS
    2004, doi:10.1109/ISPASS.2004.1291352) with the miss rate of the stretch in question rather than
    of the whole. Sets are unevenly full; a set of k times the mean load is as a cache of 1/k times
    the capacity, and the loads are Poisson's.

    Parameters
    ----------
    blocks : array of int, shape (N,)
        The line of each access.
    capacity, line : int
        Bytes of the cache and of a line [B].
    ways : int
        Lines of a set; 0 is fully associative.

    Raises
    ------
    InputError
        If no cache has this capacity, line and ways, or numba is not installed.

    Notes
    -----
    Within 1.3 percentage points of the simulator on the streams above (cyclic ones of two and three
    times the capacity are the worst; half a point elsewhere), and within 0.1 if fully associative.

    Examples
    --------
    A cyclic stream of twice the capacity: h = exp(-2 (1 - h)) gives 0.203.

    >>> round(hit_rate_random(np.arange(400_000) % 2000, 64_000, 0, 64), 3)
    0.202
    """
    return _over_loads(fluid.random_hits, (0,), blocks, capacity, ways, line)


def hit_rate_srrip(blocks: ArrayLike, capacity: int, ways: int, line: int) -> float:
    """Return the expected hit rate of a cache of hashed sets under SRRIP (2 bits, hit priority).

    A line that is never hit stays for one round of evictions, one that was hit for three or so
    (:func:`npusim.cache.fluid.srrip_hits`); how long a round is follows from how many lines are at
    each prediction. Parameters, unevenness of sets and errors raised are those of
    :func:`hit_rate_random`.

    Notes
    -----
    SRRIP resists a scan: K lines of a set that were hit outlast up to 3 (ways - K) others, where
    LRU keeps them for ways - K. It does not resist thrashing: a cyclic stream of more lines than
    the set has ways never hits, as with LRU, because lines that were never hit leave in the order
    in which they came.

    Within 4.1 percentage points of the simulator on the streams above, mostly too low: the worst
    are a cyclic stream that shares the cache with a random one (-4.0) and a cyclic one just below
    the capacity (-3.7); within 2.6 elsewhere.

    Examples
    --------
    >>> hit_rate_srrip(np.arange(3000) % 3, 128, 0, 64)
    0.0
    """
    return _over_loads(fluid.srrip_hits, (0, 0, 0, 4), blocks, capacity, ways, line)


def _over_loads(kernel: Callable[..., float], states: tuple[int, ...], blocks: ArrayLike,
                capacity: int, ways: int, line: int) -> float:  # fmt: skip
    """Return the hit rate over sets of every load; states are arrays to work in, 0 a block long."""
    sets = _sets(capacity, ways, line)
    ids, count = numbered(whole_numbers(blocks, "blocks"))
    run = compiled(kernel)
    hits = 0.0
    for load, share in zip(*_loads(min(count / sets, ways)), strict=True):
        kept = (np.full(length or count, fluid.UNUSED) for length in states)
        hits += float(share) * run(ids, capacity / line / float(load), *kept)
    return hits / ids.size if ids.size else 0.0


def _loads(mean: float) -> tuple[Values, Values]:
    """Return how full sets are, of the mean, as a line in them sees it, and the share of each.

    A line shares its set with Poisson(mean) others; beyond a full cache no more count than it has
    ways. A mean of 0 is a fully associative cache.
    """
    if mean == 0:
        return np.ones(1), np.ones(1)
    wide = 4 * math.sqrt(mean)
    others = np.arange(max(0, int(mean - wide)), int(mean + wide) + 2, dtype=float)
    log = others * math.log(mean) - np.array([math.lgamma(k + 1.0) for k in others])
    chance = np.exp(log - log.max())
    bins = np.arange(0, others.size, -(-others.size // MOST_LOADS))
    share = np.add.reduceat(chance, bins)
    seen = np.add.reduceat(chance * others, bins) / share
    return (1.0 + seen) / mean, share / share.sum()


def _sets(capacity: int, ways: int, line: int) -> int:
    return Cache(capacity, line, ways).sets


def _binomial_below(n: Values, ways: int, p: float) -> Values:
    """Return P(Binomial(n, p) <= ways - 1) of each n, from one term to the next in logarithms."""
    log = n * math.log1p(-p)
    total = np.exp(log)
    for k in range(1, ways):
        with np.errstate(divide="ignore"):  # of more successes than trials: log 0
            log = log + np.log(np.maximum(n - k + 1.0, 0.0) * (p / (1.0 - p) / k))
        total += np.exp(log)
    return np.minimum(total, 1.0)
