"""Experts on several chips: what the busiest of them gets.

A layer is done when its busiest chip is. Experts are dealt to C chips in the order of their
popularity, one after the other (chip c has experts c, c + C, ...), so that chips are as even as
whole experts allow. Tokens choose for themselves: with p(j) that a token chooses expert j
(`npusim.reuse.experts.probabilities`), N tokens send a chip with n experts

    X_c ~ Binomial(N n, mean of p over its experts)

tokens, of which E[max over c] counts; and the experts hit there, of n with 1 - (1 - p)^N each,
likewise. Both maxima are taken to be of one chip.

    E[max X_c] = sum over x from 0 of 1 - product over c of P(X_c <= x)

Source: order statistics of independent counts (H. A. David, H. N. Nagaraja, "Order Statistics",
2003, doi:10.1002/0471722162).

Left out: that the chips' counts add up to a fixed number, which lowers the maximum a little; tokens
that follow each other to the same experts; choices limited to groups of experts (DeepSeek-V3's
nodes); copies of popular experts.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from npusim.reuse.experts import probabilities, zipf
from npusim.templates.hyperparameters import Experts

Array = NDArray[np.float64]

_WIDE = 10.0  # standard deviations beyond which a count is as good as certain


def popularity(e: Experts) -> Array:
    """Return the popularity of experts, the most popular first, shape (count,)."""
    given = np.array(e.popularity, dtype=np.float64) if e.popularity else zipf(e.count, e.skew)
    return np.sort(given)[::-1]


def expected_most(trials: int, chance: Array) -> float:
    """Return the expected maximum of independent binomial counts.

    Parameters
    ----------
    trials : int
        Of each of C counts.
    chance : array, shape (C,)
        Probability of each.

    Examples
    --------
    Two coins, thrown once each: three times of four at least one shows heads.

    >>> expected_most(1, np.array([0.5, 0.5]))
    0.75
    """
    each, times = np.unique(chance, return_counts=True)
    mean, width = trials * each, np.sqrt(trials * each * (1 - each))
    low = max(math.floor(float(np.min(mean - _WIDE * width))) - 1, 0)
    high = min(math.ceil(float(np.max(mean + _WIDE * width))) + 10, trials)
    counts = np.arange(low, high + 1)
    below = np.ones(len(counts))
    for p, c in zip(each.tolist(), times.tolist(), strict=True):
        below *= _at_most(counts, trials, p) ** c
    return low + float(np.sum(1.0 - below[:-1]))


def _at_most(counts: NDArray[np.int64], trials: int, p: float) -> Array:
    """Return P(X <= x) of a binomial count that lies between the first and the last x."""
    if p >= 1.0 or p <= 0.0:
        return (counts >= trials * p).astype(np.float64)
    steps = np.log((trials - counts[:-1]) / (counts[:-1] + 1.0)) + math.log(p / (1.0 - p))
    logarithm = np.concatenate([[0.0], np.cumsum(steps)])
    mass = np.exp(logarithm - logarithm.max())
    below: Array = np.cumsum(mass) / mass.sum()
    return below


def busiest(e: Experts, tokens: int, chips: int, hit: float | None = None) -> tuple[int, float]:
    """Return how many tokens the busiest chip gets, and how many of its experts are hit.

    Parameters
    ----------
    e : Experts
    tokens : int
        Of all chips; each chooses ``e.chosen`` experts.
    chips : int
        Chips that the experts are dealt to.
    hit : float, optional
        Experts that are hit on all chips; by default what is expected.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> e = load_model("deepseek_v3").decoder.experts
    >>> sent, hit = busiest(e, 256, 32)
    >>> sent, round(hit, 3)  # 64 and 8 x 0.9997 on average
    (81, 8.0)
    """
    p = probabilities(popularity(e), e.chosen)
    touched = 1.0 - (1.0 - p) ** tokens if hit is None else probabilities(popularity(e), hit)
    each = e.count // chips
    even = math.ceil(tokens * e.chosen / chips)
    most = tokens * min(each, e.chosen)
    dealt, used = (x.reshape(each, chips).mean(axis=0) for x in (p, touched))
    sent = min(max(round(expected_most(each * tokens, dealt)), even, 1), most)
    found = min(max(expected_most(each, np.minimum(used, 1.0)), sent / tokens), each, sent)
    return sent, found


def dealt_loads(e: Experts, tokens: int, chips: int, hit: float | None = None) -> list[int]:
    """Return how many tokens each expert that is hit on the busiest chip gets.

    Examples
    --------
    >>> from npusim.templates import load_model
    >>> e = load_model("deepseek_v3").decoder.experts
    >>> sum(dealt_loads(e, 256, 32)), len(dealt_loads(e, 256, 32))
    (81, 8)
    """
    sent, found = busiest(e, tokens, chips, hit)
    weight = popularity(e)[::chips]
    busy = min(max(round(found), math.ceil(sent / tokens)), sent, len(weight))
    rows = np.ones(busy, dtype=np.int64)
    weight = weight[:busy] / weight[:busy].sum()
    while (left := sent - int(rows.sum())) > 0:  # none gets a token twice
        room = rows < tokens
        part = np.floor(left * weight * room / float(weight[room].sum())).astype(np.int64)
        if not part.any():
            part[np.argmax(weight * room)] = 1
        rows = np.minimum(rows + part, tokens)
    return sorted((int(r) for r in rows), reverse=True)


def dealt_popularity(e: Experts, chips: int) -> float | list[float]:
    """Return the popularity of the experts on one chip, as a workload holds it."""
    if chips == 1:
        return e.popularity or e.skew
    if e.popularity is None and e.skew == 0:
        return 0.0
    return [float(x) for x in popularity(e)[::chips]]
