"""Requests to serve: by clients, by chance, with sizes that are given or drawn."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.serving.request import MOST_TOKENS, Request

_MOST = 10_000_000  # requests


@dataclass(frozen=True)
class Lengths:
    """Tokens of prompts or answers.

    Attributes
    ----------
    mean : float
        On average.
    spread : float
        Standard deviation over the mean. Above 0 lengths are lognormal, as those of public request
        logs roughly are, and rounded to whole tokens from 1.
    """

    mean: float
    spread: float = 0.0

    def __post_init__(self) -> None:
        if not 1 <= self.mean <= MOST_TOKENS:
            raise InputError("not a number of tokens", place="mean", value=self.mean,
                             allowed=f"1 to {MOST_TOKENS:,}")  # fmt: skip
        if not 0 <= self.spread <= 10:
            raise InputError("out of bounds", place="spread", value=self.spread, allowed="0 to 10")

    def drawn(self, count: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Return lengths of so many requests.

        ``ln X`` is normal with variance ``ln(1 + spread^2)`` and the mean that gives `mean`.
        """
        if self.spread == 0:
            return np.full(count, round(self.mean))
        variance = math.log(1 + self.spread**2)
        drawn = random.lognormal(math.log(self.mean) - variance / 2, math.sqrt(variance), count)
        return np.clip(np.rint(drawn), 1, MOST_TOKENS).astype(np.int64)


def poisson(requests: Sequence[Request], rate: float, random: np.random.Generator) -> list[Request]:
    """Return requests that come by chance, the gaps between them exponential.

    Parameters
    ----------
    requests : sequence of Request
        Their `arrival_s` is replaced.
    rate : float
        Requests a second on average [1/s].
    random : numpy.random.Generator

    Raises
    ------
    InputError
        A rate that is none.

    Examples
    --------
    >>> came = poisson([Request(10, 5)] * 1000, 4.0, np.random.default_rng(1))
    >>> abs(came[-1].arrival_s / 1000 - 0.25) < 0.02
    True
    """
    if not (math.isfinite(rate) and rate > 0):
        raise InputError("not a rate", place="rate", value=rate, allowed="above 0 a second")
    times = np.cumsum(random.exponential(1.0 / rate, len(requests))).tolist()
    return [replace(r, arrival_s=t) for r, t in zip(requests, times, strict=True)]


def sized(
    count: int, prompt: Lengths, output: Lengths, random: np.random.Generator,
    longest: int = MOST_TOKENS,
) -> list[Request]:  # fmt: skip
    """Return requests of drawn lengths; prompt and answer together are no longer than `longest`.

    Raises
    ------
    InputError
        Not a number of requests.
    """
    if not 1 <= count <= _MOST:
        raise InputError("not a number of requests", place="count", value=count,
                         allowed=f"1 to {_MOST:,}")  # fmt: skip
    if longest < 2:
        raise InputError("no room for prompt and answer", value=longest, allowed="2 or more")
    prompts = np.minimum(prompt.drawn(count, random), longest - 1)
    outputs = np.minimum(output.drawn(count, random), longest - prompts)
    return [Request(p, o) for p, o in zip(prompts.tolist(), outputs.tolist(), strict=True)]


def crowd(clients: int, each: int, requests: Sequence[Request]) -> list[list[Request]]:
    """Return what each client sends: a list of requests dealt out in turn, again if it is short.

    Parameters
    ----------
    clients, each : int
        Clients, and requests of each.
    requests : sequence of Request
        Sizes that occur.

    Raises
    ------
    InputError
        No clients, or nothing to deal out.

    Examples
    --------
    >>> small, large = Request(1, 1), Request(2, 1)
    >>> [[r.prompt for r in sent] for sent in crowd(2, 2, [small, small, large])]
    [[1, 2], [1, 1]]
    """
    if min(clients, each, len(requests)) < 1 or clients * each > _MOST:
        raise InputError("not a number of requests", value=f"{clients} x {each} of {len(requests)}",
                         allowed=f"1 or more of each, {_MOST:,} in all")  # fmt: skip
    return [[requests[(n * clients + c) % len(requests)] for n in range(each)]
            for c in range(clients)]  # fmt: skip
