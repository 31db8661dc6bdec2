"""From a figure with its band to a verdict, and from verdicts of cases to that of a claim."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.bands import QUANTILES
from npusim.errors import InputError
from npusim.studies.claim import Rule

Array = NDArray[np.float64]

SUPPORTED, REFUTED, UNDECIDED = "supported", "refuted", "undecided"
IN_PART = "supported in part"
VERDICTS = (SUPPORTED, IN_PART, UNDECIDED, REFUTED)
_ORDER = (SUPPORTED, UNDECIDED, REFUTED)


@dataclass(frozen=True)
class Found:
    """The figure of a case with its band, and what follows.

    Attributes
    ----------
    case : str
        The case in words.
    labels : mapping of str to str
        What tells it from others: model, batch, launch.
    value, low, high : float
        The figure, and the ends of its band (p10 and p90).
    verdict : str
    sure : float
        Share of the draws in which the claim holds.
    """

    case: str
    labels: Mapping[str, str]
    value: float
    low: float
    high: float
    verdict: str
    sure: float


def of_draws(case: str, labels: Mapping[str, str], value: float, drawn: Array, rule: Rule) -> Found:
    """Return the verdict of a case from draws of its figure, (N,).

    Raises
    ------
    InputError
        A figure that is not a number.

    Examples
    --------
    >>> drawn = np.linspace(0.8, 1.0, 101)
    >>> of_draws("a", {}, 0.9, drawn, Rule(most=1.05)).verdict
    'supported'
    >>> of_draws("a", {}, 0.9, drawn, Rule(most=0.9)).verdict
    'undecided'
    """
    if not (np.isfinite(drawn).all() and np.isfinite(value)):
        raise InputError("is not a number on all designs", place=case)
    low, high = (float(q) for q in np.quantile(drawn, (QUANTILES[0], QUANTILES[-1])))
    low, high = min(low, value), max(high, value)  # a band holds what it is the band of
    sure = float(np.mean([rule.margin(x) >= 0 for x in drawn]))
    return Found(case, labels, value, low, high, decided(rule, low, high), sure)


def decided(rule: Rule, low: float, high: float) -> str:
    """Return the verdict of a band: which side of the rule all of it lies on.

    Examples
    --------
    >>> [decided(Rule(least=1.0), *band) for band in ((1.1, 1.2), (0.8, 0.9), (0.9, 1.1))]
    ['supported', 'refuted', 'undecided']
    """
    if low >= rule.least and high <= rule.most:
        return SUPPORTED
    if high < rule.least or low > rule.most:
        return REFUTED
    return UNDECIDED


def overall(found: Sequence[Found]) -> tuple[str, str]:
    """Return the verdict of a claim from those of its cases, and where which holds.

    Examples
    --------
    >>> cases = [Found("", {"launch": m, "batch": "1"}, 1, 1, 1, v, 1.0)
    ...          for m, v in (("queue", "supported"), ("eager", "refuted"))]
    >>> overall(cases)
    ('supported in part', 'supported with queue; refuted with eager')
    """
    verdicts = {one.verdict for one in found}
    if len(verdicts) == 1:
        return verdicts.pop(), ""
    whole = IN_PART if SUPPORTED in verdicts else UNDECIDED
    return whole, _where(found)


def _where(found: Sequence[Found]) -> str:
    """Say which cases come to which verdict."""
    names = [name for name in found[0].labels if len({f.labels[name] for f in found}) > 1]
    parts = []
    for verdict in _ORDER:
        own = [one for one in found if one.verdict == verdict]
        if own:
            parts.append(f"{verdict} with {_listed(own, found, names)}")
    return "; ".join(parts)


def _listed(own: Sequence[Found], every: Sequence[Found], names: Sequence[str]) -> str:
    """Return cases in words, by the first label; what holds for all of its cases without the rest.

    Examples
    --------
    >>> cases = [Found("", {"launch": m, "batch": b}, 1, 1, 1, "refuted", 1)
    ...          for m in ("queue", "eager") for b in "18"]
    >>> _listed(cases[1:], cases, ["launch", "batch"])
    'queue (batch 8), eager'
    """
    name, rest = names[0], names[1:]
    told: dict[str, list[str]] = {}
    for value in dict.fromkeys(one.labels[name] for one in own):
        mine = [one for one in own if one.labels[name] == value]
        same = [one for one in every if one.labels[name] == value]
        inner = "" if len(mine) == len(same) or not rest else _listed(mine, same, rest)
        told.setdefault(inner, []).append(f"batch {value}" if name == "batch" else value)
    return ", ".join(
        f"{' and '.join(values)} ({inner})" if inner else ", ".join(values)
        for inner, values in told.items()
    )


def only_without_host(found: Sequence[Found]) -> bool:
    """Return whether a claim holds with a graph or queue alone: the host hides it else."""
    by = {mode: {one.verdict for one in found if one.labels.get("launch") == mode}
          for mode in ("eager", "graph", "queue")}  # fmt: skip
    return by["eager"] == {REFUTED} and SUPPORTED in by["queue"] | by["graph"]
