"""How ``npusim capture`` times an operation inside a graph, and how long it has run by then.

Graphs hold enough operations to run for about a millisecond; a time is the median over replays. A
first graph of a few operations tells how many that takes. What reads the times has to know how
long the device had been at work: a board that takes more than its power limit lowers its clock
after a while.
"""

from __future__ import annotations

import math

PROBE_OPERATIONS = 10
PROBE_REPLAYS = 3  # after those that are not timed
UNTIMED = 2  # replays before those that are timed; rounds on a side stream before a capture

_LEAST_GRAPH_US = 1000.0
_MOST_OPERATIONS = 1000
_REPLAY_SECONDS = 0.06
_FEWEST_REPLAYS, _MOST_REPLAYS = 7, 50
_COLD_BYTES = 400e6
_MOST_MATRICES = 400


def copies(n: int, k: int, itemsize: int) -> int:
    """Return how many weight matrices of `itemsize` [B] an element are cycled to keep them cold.

    About 400 MB together, no more than 400.

    Examples
    --------
    >>> copies(1280, 1280, 2), copies(8192, 8192, 2), copies(129280, 1280, 2), copies(64, 64, 2)
    (123, 3, 2, 400)
    """
    return min(_MOST_MATRICES, max(2, math.ceil(_COLD_BYTES / (n * k * itemsize))))


def rounds(one_us: float, sets: int) -> int:
    """Return how often a graph cycles through its operand sets.

    Parameters
    ----------
    one_us : float
        About what one operation takes [us].
    sets : int
        Operand sets, one operation each.

    Examples
    --------
    >>> rounds(1.0, 1), rounds(5.0, 60), rounds(1e4, 2), rounds(0.01, 1)
    (1000, 4, 1, 1000)
    """
    wanted = math.ceil(_LEAST_GRAPH_US / (max(one_us, 1e-3) * sets))
    return max(1, min(wanted, math.ceil(_MOST_OPERATIONS / sets)))


def probe_rounds(sets: int) -> int:
    """Return how often the first graph cycles through its operand sets.

    Examples
    --------
    >>> probe_rounds(3), probe_rounds(60)
    (4, 1)
    """
    return math.ceil(PROBE_OPERATIONS / sets)


def replays(replay_s: float) -> int:
    """Return how many replays to time, given what one takes [s].

    Examples
    --------
    >>> replays(1.0), replays(0.003), replays(1e-4)
    (7, 20, 50)
    """
    wanted = round(_REPLAY_SECONDS / max(replay_s, 1e-9))
    return max(_FEWEST_REPLAYS, min(wanted, _MOST_REPLAYS))


def load(one_s: float, sets: int) -> float:
    """Return how long an operation has been repeated when its median replay is half done [s].

    Parameters
    ----------
    one_s : float
        What one operation takes [s], above 0.
    sets : int
        Operand sets in turn.

    Examples
    --------
    A product of 700 us on three matrices: 6 before the capture, 5 replays of 12, two more that are
    not timed and seven that are:

    >>> round(load(700e-6, 3) / 700e-6)
    132
    """
    count = probe_rounds(sets)
    probe = UNTIMED + (UNTIMED + PROBE_REPLAYS) * count
    wanted = rounds(1e6 * one_s, sets)
    if wanted > count:
        count = wanted
        probe += UNTIMED + (UNTIMED + PROBE_REPLAYS) * count
    timed = replays(one_s * count * sets)
    return one_s * sets * (probe + (UNTIMED + timed / 2) * count)
