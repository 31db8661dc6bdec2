"""What came of a run: each request as it went, and what is usually told of all of them.

    TTFT      first token - sent                                  time to the first token [s]
    TPOT      (last token - first token) / (tokens - 1)           time per output token [s]
    goodput   answered requests that meet every limit, a second of the run
    L = lambda W    requests in the system on average, arrivals a second, time in it on average

Source: definitions of MLPerf Inference for TTFT and TPOT; goodput after DistServe, Y. Zhong et al.,
arXiv:2401.09670; J. D. C. Little, doi:10.1287/opre.9.3.383.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.latency import Latency, summary
from npusim.serving.request import refuse_no_time

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Limits:
    """A service-level objective: what a request may take; infinity where nothing is asked.

    Attributes
    ----------
    ttft_s, tpot_s, latency_s : float
        To the first token, from one token to the next on average, to the last token [s].
    """

    ttft_s: float = float("inf")
    tpot_s: float = float("inf")
    latency_s: float = float("inf")

    def __post_init__(self) -> None:
        for place in ("ttft_s", "tpot_s", "latency_s"):
            if getattr(self, place) != float("inf"):
                refuse_no_time(place, getattr(self, place))


@dataclass(frozen=True)
class Course:
    """What an engine did over time, a row a step; see `npusim.serving.engine.Log`."""

    end_s: Array
    seconds: Array
    tokens: NDArray[np.int64]
    samples: NDArray[np.int64]
    running: NDArray[np.int64]
    waiting: NDArray[np.int64]
    blocks: NDArray[np.int64]

    @property
    def busy_s(self) -> float:
        """In which it worked [s]."""
        return float(self.seconds.sum())


@dataclass(frozen=True)
class Outcome:
    """A run.

    Attributes
    ----------
    number, client, prompt, output : array, shape (N,)
        Answered requests, in the order of their arrival: which, whose, and their tokens.
    sent_s, entered_s, first_s, done_s : array, shape (N,)
        When each was sent, first worked on, had its first token and its last one [s].
    stops : array, shape (N,)
        How often each was stopped for want of room.
    cached : array, shape (N,)
        Tokens of each prompt that were found in the cache when it entered.
    rejected : tuple of str
        Why each of those that were not taken was not.
    in_flight : int
        Requests that arrived and were neither answered nor rejected when the run was ended.
    end_s : float
        When it was ended: with the last answer, or as asked [s].
    engines : tuple of Course
        What each engine did; those that only enter prompts first.
    residence_s : float
        Time in the system of all requests that were taken, those in flight until the end [s].
    """

    number: NDArray[np.int64]
    client: NDArray[np.int64]
    prompt: NDArray[np.int64]
    output: NDArray[np.int64]
    sent_s: Array
    entered_s: Array
    first_s: Array
    done_s: Array
    stops: NDArray[np.int64]
    cached: NDArray[np.int64]
    rejected: tuple[str, ...]
    in_flight: int
    end_s: float
    engines: tuple[Course, ...]
    residence_s: float

    def __len__(self) -> int:
        return len(self.number)

    @property
    def arrived(self) -> int:
        """Requests that were sent."""
        return len(self) + self.in_flight + len(self.rejected)

    @property
    def ttft_s(self) -> Array:
        """From sending a request to its first token, shape (N,) [s]."""
        return self.first_s - self.sent_s

    @property
    def latency_s(self) -> Array:
        """From sending a request to its last token, shape (N,) [s]."""
        return self.done_s - self.sent_s

    @cached_property
    def tpot_s(self) -> Array:
        """From one token to the next on average, shape (N,), not-a-number for one token [s]."""
        gaps, each = self.output - 1, np.full(len(self), np.nan)
        np.divide(self.done_s - self.first_s, gaps, out=each, where=gaps > 0)
        return each

    def summaries(self) -> dict[str, Latency]:
        """Return mean and percentiles of TTFT, TPOT and latency; nothing of what nobody has."""
        found = {"ttft": self.ttft_s, "tpot": self.tpot_s[~np.isnan(self.tpot_s)],
                 "latency": self.latency_s}  # fmt: skip
        return {name: summary(values) for name, values in found.items() if len(values)}

    @property
    def requests_per_s(self) -> float:
        """Requests answered a second of the run."""
        return len(self) / self.end_s if self.end_s else 0.0

    @property
    def tokens_per_s(self) -> float:
        """Tokens of answers a second of the run, of all that were made in it."""
        made = sum(int(e.samples.sum()) for e in self.engines)
        return made / self.end_s if self.end_s else 0.0

    @property
    def utilisation(self) -> float:
        """Share of the run in which engines worked, on average over them."""
        busy = sum(e.busy_s for e in self.engines)
        return min(busy / (self.end_s * len(self.engines)), 1.0) if self.end_s else 0.0

    @property
    def in_system(self) -> float:
        """Requests in the system on average over the run."""
        return self.residence_s / self.end_s if self.end_s else 0.0

    def goodput(self, limits: Limits) -> float:
        """Return requests a second that were answered within limits; one token has no TPOT."""
        if not isinstance(limits, Limits):
            raise InputError("not limits", value=limits, allowed="npusim.serving.Limits")
        met = (self.ttft_s <= limits.ttft_s) & (self.latency_s <= limits.latency_s)
        met &= np.isnan(self.tpot_s) | (self.tpot_s <= limits.tpot_s)
        return float(met.sum()) / self.end_s if self.end_s else 0.0

    def over_time(self, every_s: float) -> dict[str, Array]:
        """Return what went on, in equal parts of the run.

        Parameters
        ----------
        every_s : float
            Length of a part [s].

        Returns
        -------
        dict of str to array, shape (P,)
            ``t`` [s], the end of each part; ``running``, ``waiting`` and ``blocks`` of the engines
            together, on average over the steps that ended in it; ``tokens_per_s`` entered and
            ``answer_tokens_per_s`` made in it. Not-a-number where no step ended.

        Raises
        ------
        InputError
            A length that is none, or a million parts.
        """
        refuse_no_time("every_s", every_s)
        if every_s == 0 or self.end_s / every_s > 1e6:
            raise InputError("not a part of the run", place="every_s", value=every_s,
                             allowed=f"{self.end_s / 1e6:g} s or more, above 0 s")  # fmt: skip
        parts = max(int(np.ceil(self.end_s / every_s - 1e-9)), 1)
        found = {"t": every_s * np.arange(1, parts + 1, dtype=float)}
        for name in ("running", "waiting", "blocks"):
            means = np.array([_means(e, name, every_s, parts) for e in self.engines])
            nobody = np.isnan(means).all(axis=0)  # an engine that idles alone has nothing
            found[name] = np.where(nobody, np.nan, np.nansum(means, axis=0))
        for name, column in (("tokens_per_s", "tokens"), ("answer_tokens_per_s", "samples")):
            found[name] = np.sum([_sums(e, column, every_s, parts) for e in self.engines],
                                 axis=0) / every_s  # fmt: skip
        return found


def _part(course: Course, every_s: float, parts: int) -> NDArray[np.intp]:
    at = np.ceil(course.end_s / every_s - 1e-9).astype(np.intp) - 1
    return np.clip(at, 0, parts - 1)


def _sums(course: Course, name: str, every_s: float, parts: int) -> Array:
    part, values = _part(course, every_s, parts), getattr(course, name)
    return np.bincount(part, weights=values, minlength=parts).astype(np.float64)


def _means(course: Course, name: str, every_s: float, parts: int) -> Array:
    steps = np.bincount(_part(course, every_s, parts), minlength=parts)
    mean = np.full(parts, np.nan)
    np.divide(_sums(course, name, every_s, parts), steps, out=mean, where=steps > 0)
    return mean
