"""The compiled loops of stack distances: which block is which, and how much was used since.

Each access takes the next slot of time and frees the slot of the last access of its block: what was
used since is what stands in later slots (B. Bennett, V. Kruskal, "LRU stack processing", IBM
J. Res. Dev. 19(4), 1975, doi:10.1147/rd.194.0353). Sums stand beside the slots in four tiers of 64,
each the sum of what comes before it in the tier above: a look-up reads four numbers, and a change
subtracts from two rows of 64, which the compiler does in vectors; a tree of sums has branches that
no processor foresees. When the slots run out, those in use move down, so that there are never more
than twice as many as there are blocks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int32]

ONE, IN_ROW, WIDTH = np.uint64(1), np.uint64(63), np.uint64(64)
TIER_1, TIER_2, TIER_3 = np.uint64(6), np.uint64(12), np.uint64(18)
UNUSED = -1
GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio: Fibonacci hashing (Knuth)


# ---------------------------------------------------------------- blocks numbered from 0


def number_near(blocks: NDArray[np.int64], first: int, named: Ids, ids: Ids) -> int:
    """Give blocks numbers by first use, from a table of all between them; return how many."""
    count = 0
    for i in range(blocks.size):
        at = blocks[i] - first
        if named[at] < 0:
            named[at] = count
            count += 1
        ids[i] = named[at]
    return count


def number_far(blocks: NDArray[np.int64], keys: NDArray[np.int64], named: Ids, ids: Ids) -> int:
    """Give blocks numbers by first use, through a hash table of 2^k places, -1 where free.

    Return how many there are, or -1 if they would fill more than half of the table.
    """
    bits = 0
    while 1 << bits < keys.size:
        bits += 1
    down = np.uint64(64 - bits)
    count = 0
    for i in range(blocks.size):
        key = blocks[i]
        at = np.int64((np.uint64(key) * GOLDEN) >> down)
        while named[at] >= 0 and keys[at] != key:
            at = (at + 1) & (keys.size - 1)
        if named[at] < 0:
            if 2 * count >= keys.size:
                return UNUSED
            keys[at], named[at] = key, count
            count += 1
        ids[i] = named[at]
    return count


# ---------------------------------------------------------------- sums over slots of time


def sum_before(weights: NDArray[Any], slot: Any) -> Any:
    """Return the sum of the slots before one in its row of 64."""
    inside = slot & IN_ROW
    start = slot - inside
    total: Any = 0
    for j in range(WIDTH):
        weight = np.int64(weights[start + j])
        total += weight if j < inside else 0
    return total


def subtract_after(sums: NDArray[Any], row: Any, amount: Any) -> None:
    """Subtract an amount from the sums that stand after one in its row of 64."""
    inside = row & IN_ROW
    start = row - inside
    none = amount - amount
    for j in range(WIDTH):
        sums[start + j] -= amount if j > inside else none


def open_row(now: Any, total: Any, weights: NDArray[Any], near: NDArray[Any],
             mid: NDArray[Any], far: NDArray[np.int64]) -> None:  # fmt: skip
    """Set the sums before a new row of slots, of all that comes before it."""
    row = now >> TIER_1
    if row & IN_ROW == 0:
        near[row] = 0
        part = now >> TIER_2
        if part & IN_ROW == 0:
            mid[part] = 0
            far[part >> TIER_1] = total
        else:
            mid[part] = total - far[part >> TIER_1]
    else:
        near[row] = total - far[now >> TIER_3] - mid[now >> TIER_2]


def distances(ids: Ids, sizes: NDArray[Any], bypass: NDArray[np.bool_], weights: NDArray[Any],
              near: NDArray[Any], mid: NDArray[Any], far: NDArray[np.int64], owners: Ids,
              last: Ids, out: NDArray[np.float64]) -> None:  # fmt: skip
    """Fill in the distance of each access, its own block included; inf for a first use."""
    slots = np.uint64(owners.size)
    now: Any = np.uint64(0)
    total: Any = 0
    slot: Any
    for i in range(ids.size):
        block = np.uint64(ids[i])
        if now == slots:
            now, total = np.uint64(0), 0
            for slot in range(slots):
                weight, owner = weights[slot], owners[slot]
                weights[slot] = 0
                if weight:
                    if now & IN_ROW == 0:
                        open_row(now, total, weights, near, mid, far)
                    weights[now], owners[now], last[np.uint64(owner)] = weight, owner, now
                    now += ONE
                    total += np.int64(weight)
        if now & IN_ROW == 0:
            open_row(now, total, weights, near, mid, far)
        past = last[block]
        stays = bypass.size > 0 and bypass[i]
        if past < 0:
            out[i] = np.inf
        else:
            slot = np.uint64(past)
            row, part, whole = slot >> TIER_1, slot >> TIER_2, slot >> TIER_3
            out[i] = total - (far[whole] + mid[part] + near[row] + sum_before(weights, slot))
            if not stays:
                amount = weights[slot]
                weights[slot] = 0
                total -= np.int64(amount)
                subtract_after(near, row, near.dtype.type(amount))
                subtract_after(mid, part, mid.dtype.type(amount))
                for j in range(whole + ONE, np.uint64(far.size)):
                    far[j] -= np.int64(amount)
        if not stays:
            weights[now], owners[now], last[block] = sizes[block], block, now
            total += np.int64(sizes[block])
            now += ONE


HELPERS = (sum_before, subtract_after, open_row)
