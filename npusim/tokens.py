"""Tokens that a step yields, which a time per token is divided by, and how often steps are done.

A decode step yields a token of each of its sequences, and more where drafted tokens are verified in
it (`npusim.transforms.speculation`): ``meta["tokens_per_step"]`` then says how many on average, or
is None if nobody said how many are accepted. No other step yields tokens one after another.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from npusim.errors import InputError
from npusim.transforms.profiler import only_steps
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


def page_parts(w: Workload) -> list[dict[str, Any]] | None:
    """Return name and number of each step of a page, None where a workload is none.

    A page (`npusim.templates.pages`) holds a step of each kind, and ``meta["page"]`` how many there
    are of it.
    """
    about = w.meta.get("page")
    parts = about.get("parts") if isinstance(about, Mapping) else None
    if not isinstance(parts, list) or len(parts) != len(w.steps):
        return None
    return [dict(part) for part in parts]


def repeated(w: Workload) -> list[tuple[Workload, int]]:
    """Return what makes a workload, and how many times: a page step by step, any other as it is.

    Examples
    --------
    >>> import npusim as ns
    >>> [(len(x.steps), times) for x, times in repeated(ns.load_workload("paddleocr_vl_decode"))]
    [(3, 1)]
    >>> sum(times for _, times in repeated(ns.template("paddleocr_vl", "page", lowering="npu")))
    166
    """
    parts = page_parts(w)
    if parts is None:
        return [(w, 1)]
    return [(only_steps(w, [i]), int(part["times"])) for i, part in enumerate(parts)]
