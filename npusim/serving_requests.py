"""Requests of a serving study: drawn by chance, of clients, or those of a log.

What a log says of first and last tokens is what predictions are held against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.latency import Latency, summary
from npusim.request_file import Log, read_requests
from npusim.serving import Request
from npusim.serving.arrivals import Lengths, crowd, poisson, sized
from npusim.serving_block import Requests, Serving, ServingFile

_SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6}
_ASKED = "serving.requests"


@dataclass(frozen=True)
class Measured:
    """What a log says of the same requests.

    Attributes
    ----------
    samples : mapping of str to array
        ``ttft``, ``tpot`` and ``latency`` of each request that has one [s].
    """

    samples: Mapping[str, NDArray[np.float64]]

    @property
    def summaries(self) -> dict[str, Latency]:
        """Mean and percentiles of each."""
        return {name: summary(values) for name, values in self.samples.items() if len(values)}


def drawn(study: ServingFile, block: Serving, image_tokens: int) -> tuple[list[Any], int]:
    """Return requests that are drawn, or what clients send, and how many had to be cut."""
    r, most = block.requests, block.engine.max_model_len
    count = (r.count if r.arrivals == "poisson" else (r.clients or 1) * (r.each or 1)) or 1
    prompt, output = _lengths(r.prompt), _lengths(r.output)
    if prompt.spread == output.spread == 0 and round(prompt.mean) + round(output.mean) > most:
        raise InputError("longer than an engine takes", file=study.file, place=f"{_ASKED}.prompt",
                         value=f"{prompt.mean:g} tokens and {output.mean:g} of the answer",
                         allowed=f"{most} together (max_model_len)")  # fmt: skip
    random = np.random.default_rng(r.seed or 0)
    free = sized(count, prompt, output, np.random.default_rng(r.seed or 0))
    made = sized(count, prompt, output, random, most)
    cut = sum(a != b for a, b in zip(free, made, strict=True))
    shortest = min(request.prompt for request in made)
    for name, tokens in (("image", image_tokens), ("prefix_tokens", r.prefix_tokens or 0)):
        if tokens > shortest:
            raise InputError("more tokens than the shortest prompt has", file=study.file,
                             place=f"{_ASKED}.{name}", value=tokens,
                             allowed=f"up to {shortest}")  # fmt: skip
    made = [_dressed(request, i, r, image_tokens) for i, request in enumerate(made)]
    if r.arrivals == "poisson":
        return poisson(made, float(r.rate_per_s or 0), random), cut
    waiting = [replace(x, arrival_s=float(r.think or 0)) for x in made]
    return crowd(r.clients or 1, r.each or 1, waiting), cut


def _dressed(request: Request, i: int, r: Requests, image_tokens: int) -> Request:
    """Return a request with the prefix and the image that it has."""
    more: dict[str, Any] = {}
    if r.prefix_tokens:
        more |= {"prefix": "shared", "prefix_tokens": r.prefix_tokens}
    if image_tokens:
        image = f"image {i % r.images if r.images else i}"
        more |= {"image": image, "image_tokens": image_tokens}
    return replace(request, **more) if more else request


def _lengths(given: Any) -> Lengths:
    return Lengths(float(given.mean), float(given.spread)) if hasattr(given, "mean") else Lengths(
        float(given))  # fmt: skip


def logged(study: ServingFile, r: Requests) -> Log | None:
    """Return the log of a study, looked for beside its file."""
    if r.file is None:
        return None
    file = Path(r.file) if Path(r.file).is_absolute() else study.file.parent / r.file
    log = read_requests(file, r.columns, _SECONDS[r.time_unit or "s"])
    if r.count is not None:
        log = replace(log, requests=log.requests[: r.count],
                      first_s=None if log.first_s is None else log.first_s[: r.count],
                      last_s=None if log.last_s is None else log.last_s[: r.count])  # fmt: skip
    if r.rate_per_s is not None:
        span = log.requests[-1].arrival_s
        if span == 0:
            raise InputError("all of its requests come at once, so there is no rate to change",
                             file=file, place=f"{_ASKED}.rate_per_s",
                             value=r.rate_per_s)  # fmt: skip
        faster = (len(log.requests) - 1) / span / float(r.rate_per_s)
        moved = tuple(replace(x, arrival_s=x.arrival_s * faster) for x in log.requests)
        log = Log(moved, None, None, log.columns)  # measured at another rate
    return log


def measured(log: Log | None) -> Measured | None:
    """Return what a log says of the waits of its requests, None where it does not."""
    if log is None or log.first_s is None or log.last_s is None:
        return None
    sent = np.array([r.arrival_s for r in log.requests])
    gaps = np.array([r.output - 1 for r in log.requests])
    many = gaps > 0
    tpot: NDArray[np.float64] = (log.last_s - log.first_s)[many] / gaps[many]
    return Measured({"ttft": log.first_s - sent, "tpot": tpot, "latency": log.last_s - sent})
