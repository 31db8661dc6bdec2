"""Claims that a quantity decides: its value on each case, and on what it hangs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import ndtr, ndtri

from npusim.arch import is_whole
from npusim.bands import QUANTILES
from npusim.errors import InputError
from npusim.studies import quantities
from npusim.studies.claim import Claim, Measure, Rule
from npusim.studies.influence import Influence, ends, most_influential, swings
from npusim.studies.value import Doubt, Value
from npusim.studies.verdict import Found, decided
from npusim.units import CHOICES

_QUANTILE = float(ndtri(QUANTILES[-1]))
_HALVINGS = 7  # towards a break-even: a quantity may take a second
_ASKED = 1
_TINY = 1e-12


def ask(
    claim: Claim, test: Measure, settings: Mapping[str, float]
) -> tuple[list[Found], list[Value], Influence | None]:
    """Return what the cases of a claim come to, their values, and on what the first hangs most.

    Raises
    ------
    InputError
        Options that a quantity refuses, with the claim.
    """
    quantity = quantities.find(test.quantity)
    found, values = [], []
    try:
        for case, options in test.cases.items():
            known = quantity.doubts(options)
            own = {path: v for path, v in settings.items() if path in known}
            value = quantity.measure(options, own)
            values.append(value)
            found.append(_found(case, value, claim.rule))
        first = next(iter(test.cases.values()))
        return found, values, _influence(quantity, first, test.doubts, found[0], claim.rule)
    except InputError as error:
        raise InputError(str(error), place=f"claims.{claim.id}") from None


def _found(case: str, value: Value, rule: Rule) -> Found:
    verdict = decided(rule, value.low, value.high)
    labels = {"case": case} if case else {}
    return Found(case or "all", labels, value.value, value.low, value.high, verdict,
                 _sure(value, rule))  # fmt: skip


def _sure(value: Value, rule: Rule) -> float:
    """Return how likely the claim holds, by the two-piece normal of the band."""

    def below(x: float) -> float:
        if math.isinf(x):
            return float(x > 0)
        side = value.high - value.value if x > value.value else value.value - value.low
        if side <= _TINY * max(abs(value.value), 1.0):
            return float(x >= value.value)
        return float(ndtr((x - value.value) / side * _QUANTILE))

    return max(below(rule.most) - below(rule.least), 0.0) if value.low < value.high else float(
        rule.margin(value.value) >= 0)  # fmt: skip


def _influence(
    quantity: Any, options: Any, given: Mapping[str, Doubt], found: Found, rule: Rule
) -> Influence | None:
    known: dict[str, Doubt] = quantity.doubts(options)
    ranges = {
        path: dataclasses.replace(doubt, nominal=known[path].nominal) if path in known else doubt
        for path, doubt in given.items()
    }
    doubts = {("", path): doubt for path, doubt in {**known, **ranges}.items()}

    def figure(path: str, value: float) -> float:
        return float(quantity.measure(options, {path: value}).value)

    moved = {key: (figure(key[1], d.low), figure(key[1], d.high)) for key, d in doubts.items()}
    held = rule.margin(found.value) >= 0
    flips: dict[tuple[str, str], float | None] = {}
    for key in swings(moved)[:_ASKED]:
        flips[key] = _flip(figure, key[1], doubts[key], rule, held)
        if flips[key] is not None:
            break
    return most_influential(lambda key: key[1], doubts, moved, flips)


def _flip(figure: Any, path: str, doubt: Doubt, rule: Rule, held: bool) -> float | None:
    """Return the value at which a claim flips: the nearest end that does, then halved towards."""
    if doubt.unit in CHOICES:
        return None
    low, high = ends(path, doubt)

    def other(value: float) -> bool:
        return (rule.margin(figure(path, value)) >= 0) != held

    far = next((end for end in (doubt.high, doubt.low, high, low) if other(end)), None)
    if far is None:
        return None
    near, whole = doubt.nominal, is_whole(path)
    for _ in range(_HALVINGS):
        middle = np.sqrt(near * far) if min(near, far) > 0 else (near + far) / 2
        middle = float(np.rint(middle)) if whole else float(middle)
        near, far = (near, middle) if other(middle) else (middle, far)
    return far
