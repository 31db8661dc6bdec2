"""Tokens that a step yields: what a time per token is divided by.

A decode step yields a token of each of its sequences, and more where drafted tokens are verified in
it (`npusim.transforms.speculation`): ``meta["tokens_per_step"]`` then says how many on average, or
is None if nobody said how many are accepted. No other step yields tokens one after another.
"""

from __future__ import annotations

import math

import numpy as np

from npusim.errors import InputError
from npusim.transforms.splits import touched
from npusim.workload import Workload


def tokens_per_step(w: Workload) -> float:
    """Return how many tokens a step yields, not-a-number where it does not decode or none knows.

    Where prefill or an encoder is among the steps, or sequences differ in number, no one figure
    says it.

    Raises
    ------
    InputError
        What a file says is no such number.

    Examples
    --------
    >>> import npusim as ns
    >>> [tokens_per_step(ns.load_workload(f"paddleocr_vl_{name}"))
    ...  for name in ("decode", "decode_b8", "prefill")]
    [1.0, 8.0, nan]
    """
    if "tokens_per_step" in w.meta:
        given = w.meta["tokens_per_step"]
        if given is None:
            return math.nan
        if not isinstance(given, (int, float)) or not (math.isfinite(given) and given > 0):
            raise InputError("not a number of tokens", file=w.name, place="tokens_per_step",
                             value=given, allowed="a number above 0")  # fmt: skip
        return float(given)
    sequences = np.unique(w["batch"][touched(w)])
    if w.mask("phase", "prefill", "encode").any() or len(sequences) != 1 or sequences[0] < 1:
        return math.nan
    return float(sequences[0])
