"""Experts of a mixture: how long ago the one that a token is sent to was used.

Each step h of E experts of a layer are used, expert j with probability p(j), and independently in
each step. Then j was used t steps ago with probability p (1 - p)^(t - 1), and in t steps

    d(t) = sum over all experts of 1 - (1 - p)^t

of them are touched. Probabilities follow a popularity q (uniform, Zipf or measured):

    p(j) = 1 - exp(-c q(j)),    c such that they add up to h

Source: reuse times of independent references, D. E. Knuth, "An analysis of optimum caching",
Journal of Algorithms 6(2), 1985, doi:10.1016/0196-6774(85)90037-6; Zipf popularity as in L.
Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999,
doi:10.1109/INFCOM.1999.749260.

Left out: tokens that follow each other to the same experts, layers that agree.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

# Numbers of steps that are told apart: 1, 2, to 4, to 8 and so on; the last is all beyond.
_LAST = np.array([0.0, 1, 2, 4, 8, 16, 32, 64, np.inf])


def zipf(count: int, skew: float) -> Array:
    """Return the popularity of experts, the most popular first, shape (count,).

    Examples
    --------
    >>> zipf(3, 1.0).tolist(), zipf(2, 0.0).tolist()
    ([1.0, 0.5, 0.3333333333333333], [1.0, 1.0])
    """
    popularity: Array = np.arange(1, count + 1, dtype=np.float64) ** -skew
    return popularity


def probabilities(popularity: Array, used: float) -> Array:
    """Return how probable each expert is in a step that uses so many, shape (E,).

    Examples
    --------
    >>> probabilities(zipf(64, 0.0), 6.0)[:2].round(6).tolist()
    [0.09375, 0.09375]
    """
    if used >= len(popularity):
        return np.ones(len(popularity))
    share = popularity / popularity.sum()
    if np.ptp(popularity) == 0:
        return np.full(len(popularity), used / len(popularity))

    from scipy.optimize import brentq  # slow to load, and most workloads have no experts

    def excess(logarithm: float) -> float:
        return float(np.sum(-np.expm1(-np.exp(logarithm) * share)) - used)

    result: Array = -np.expm1(-np.exp(brentq(excess, -20.0, 700.0)) * share)
    return result


def last_used(popularity: Array, used: float) -> tuple[Array, Array]:
    """Return when the experts of a step were used before, as shares of them.

    Parameters
    ----------
    popularity : array, shape (E,)
        Above zero, in any scale.
    used : float
        Experts that a step uses, 1 to E.

    Returns
    -------
    share, touched : array, shape (P,)
        Shares that add up to one, and how many experts are touched up to then, themselves included.

    Examples
    --------
    Two of four: half of them were used in the step before, when two were touched.

    >>> share, touched = last_used(zipf(4, 0.0), 2.0)
    >>> share[:2].round(9).tolist(), touched[:2].round(9).tolist()
    ([0.5, 0.25], [2.0, 3.0])
    """
    p = probabilities(popularity, used)
    missed = (1.0 - p)[:, None] ** _LAST
    share = (p / p.sum()) @ (missed[:, :-1] - missed[:, 1:])
    within = np.sqrt((_LAST[:-1] + 1.0) * np.minimum(_LAST[1:], 4.0 * _LAST[-2]))
    touched = np.sum(1.0 - (1.0 - p)[:, None] ** within, axis=0)
    return share, touched


def expected_hit(popularity: Array, chosen: float, tokens: float) -> float:
    """Return how many experts some tokens choose together, each so many for itself.

    Examples
    --------
    >>> round(expected_hit(zipf(64, 0.0), 6, 16), 2)
    50.75
    """
    return float(np.sum(1.0 - (1.0 - probabilities(popularity, chosen)) ** tokens))


def loads(popularity: Array, chosen: int, tokens: int, hit: float | None = None) -> list[int]:
    """Return how many tokens each expert that is hit gets, the most popular first.

    As many experts as are hit get one token each, and what is left by how probable they are; none
    gets a token twice.

    Parameters
    ----------
    popularity : array, shape (E,)
    chosen : int
        Experts that a token chooses.
    tokens : int
    hit : float, optional
        Experts that are hit; by default as many as tokens that choose independently are expected
        to hit.

    Examples
    --------
    >>> loads(zipf(64, 0.0), 6, 1), loads(zipf(4, 1.0), 2, 6)
    ([1, 1, 1, 1, 1, 1], [4, 3, 3, 2])
    """
    sent = chosen * tokens
    wanted = expected_hit(popularity, chosen, tokens) if hit is None else hit
    busy = min(max(round(wanted), chosen), sent, len(popularity))
    weight = np.sort(probabilities(popularity, chosen))[::-1][:busy]
    more, free = np.zeros(busy), np.ones(busy, dtype=bool)
    while True:  # beyond one each; none gets more than every token once
        left = sent - busy - float(more[~free].sum())
        more[free] = left * weight[free] / weight[free].sum()
        over = free & (more > tokens - 1)
        if not over.any():
            break
        more[over], free[over] = tokens - 1, False
    rows = np.floor(more + 1e-9)
    rest = round(float(sent - busy - rows.sum()))
    order = np.argsort(rows - more, kind="stable")
    rows[order[rows[order] < tokens - 1][:rest]] += 1
    return [int(r) + 1 for r in rows]
