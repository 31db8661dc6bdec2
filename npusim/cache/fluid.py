"""Compiled loops of expected hits: replacement that is not LRU, as a flow of lines.

One pass over a stream, where each access has a chance of a hit and the rest of it is a miss. What
a line's survival depends on is how much was evicted since its last use, which only what came before
decides, so that there is nothing to iterate.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]
Values = NDArray[np.float64]

UNUSED = -1.0


def random_hits(ids: Ids, lines: float, evicted_at: Values) -> float:
    """Return the expected hits of a cache that evicts at random.

    A line survives each eviction with probability 1 - 1/lines. `evicted_at`, a value a block, all
    -1 at first, keeps what had been evicted at its last use.
    """
    survives = math.log1p(-1.0 / max(lines, 1.0 + 1e-9))
    filled, evicted, hits = 0.0, 0.0, 0.0
    for i in range(ids.size):
        before = evicted_at[ids[i]]
        hit = math.exp(survives * (evicted - before)) if before >= 0 else 0.0
        hits += hit
        miss = 1.0 - hit
        if filled < lines:
            filled += miss
        else:
            evicted += miss
        evicted_at[ids[i]] = evicted
    return hits


def srrip_hits(ids: Ids, lines: float, used_at: Values, rank: Values, chance: Values,
               held: Values) -> float:  # fmt: skip
    """Return the expected hits of SRRIP with 2 bits and hit priority.

    The lines of a cache stand in a row and have one of four predictions; `held` counts them. Those
    at 3 are evicted from left to right; when none is left, all move up by one: a round. Time is
    counted in rounds. A line that entered at time t, at 2, is evicted at t + 1; one that was hit in
    round r is evicted in round r + 3, when what is evicted comes to its place in the row.

    `used_at`, `rank` and `chance`, a value a block, all -1 at first, keep the time of its last use,
    its place in the row, and the chance that its last use was a hit.
    """
    for prediction in range(4):
        held[prediction] = 0.0
    filled, hits = 0.0, 0.0
    turn, start = 0.0, 0.0  # the round, and how many were at 3 when it began
    for i in range(ids.size):
        block = ids[i]
        now = turn + (1.0 - held[3] / start if start > 0.0 else 0.0)
        then = used_at[block]
        hit = 0.0
        if then >= 0.0:
            gone = int(turn - math.floor(then))
            if now < then + 1.0 or filled < lines:
                entered = 1.0 - chance[block]
                hit += entered
                held[min(2 + gone, 3)] -= entered
            if now < math.floor(then) + 3.0 + rank[block]:
                hit += chance[block]
                held[min(gone, 3)] -= chance[block]
        hits += hit
        miss = 1.0 - hit
        held[0] += hit
        held[2] += miss
        if filled < lines:
            filled += miss
        else:
            held[3] -= miss
            while held[3] <= 0.0:
                held[3] += held[2]
                held[2], held[1], held[0] = held[1], held[0], 0.0
                turn += 1.0
                start = held[3]
        used_at[block] = now
        if miss > 0.5:
            rank[block] = now - math.floor(now)
        chance[block] = hit
    return hits
