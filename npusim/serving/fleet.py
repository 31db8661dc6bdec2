"""What serves: engines that are alike, and where prompts enter on others, the link between them."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from npusim.errors import InputError
from npusim.serving.policy import Policy
from npusim.serving.request import refuse_no_time
from npusim.serving.step import StepTimes

ROUTES = ("least_loaded", "round_robin")
_MOST_ENGINES = 100_000


@dataclass(frozen=True)
class Transfer:
    """How the KV cache of a prompt gets from where it was computed to where it is answered.

    A transfer takes ``latency_s + tokens x token_bytes / bandwidth``; each engine that enters
    prompts sends one at a time.

    Attributes
    ----------
    token_bytes : float
        KV cache of one token, of all chips of an engine [B].
    bandwidth : float
        One way, of all chips of an engine [B/s].
    latency_s : float
        Of each transfer [s].
    """

    token_bytes: float
    bandwidth: float
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        refuse_no_time("latency_s", self.latency_s)
        for place, allowed in (("token_bytes", "0 B or more"), ("bandwidth", "above 0 B/s")):
            value = getattr(self, place)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 <= value <= sys.float_info.max or (
                    place == "bandwidth" and value == 0):  # fmt: skip
                raise InputError("not a size or rate", place=place, value=value, allowed=allowed)

    def seconds(self, tokens: int) -> float:
        """Return how long the KV cache of so many tokens takes [s].

        Examples
        --------
        >>> Transfer(token_bytes=131072, bandwidth=450e9, latency_s=10e-6).seconds(1000)
        0.00030127...
        """
        return self.latency_s + tokens * self.token_bytes / self.bandwidth


@dataclass(frozen=True)
class Pool:
    """Engines that are alike.

    Attributes
    ----------
    times : StepTimes
        How long their steps take.
    policy : Policy
    engines : int
    """

    times: StepTimes
    policy: Policy
    engines: int = 1

    def __post_init__(self) -> None:
        if not callable(getattr(self.times, "seconds", None)):
            raise InputError("not times of steps", place="times", value=self.times,
                             allowed="LinearTimes, or whatever tells seconds(step)")  # fmt: skip
        _refuse_other("policy", self.policy, Policy)
        whole = isinstance(self.engines, int) and not isinstance(self.engines, bool)
        if not whole or not 1 <= self.engines <= _MOST_ENGINES:
            raise InputError("not a number of engines", place="engines", value=self.engines,
                             allowed=f"a whole number from 1 to {_MOST_ENGINES:,}")  # fmt: skip


@dataclass(frozen=True)
class Fleet:
    """All that serves.

    Attributes
    ----------
    pool : Pool
        Engines that answer; they enter prompts too if nothing else does.
    route : {"least_loaded", "round_robin"}
        Which engine gets a request: the one with the fewest, or one after the other.
    prompts : Pool, optional
        Engines on which prompts enter: each request gets its first token there.
    transfer : Transfer, optional
        Between these and those that answer; needed with `prompts`.
    """

    pool: Pool
    route: str = "least_loaded"
    prompts: Pool | None = None
    transfer: Transfer | None = None

    def __post_init__(self) -> None:
        _refuse_other("pool", self.pool, Pool)
        if self.prompts is not None:
            _refuse_other("prompts", self.prompts, Pool)
        if self.transfer is not None:
            _refuse_other("transfer", self.transfer, Transfer)
        if self.route not in ROUTES:
            raise InputError("unknown way to choose an engine", place="route", value=self.route,
                             allowed=", ".join(ROUTES))  # fmt: skip
        if (self.prompts is None) != (self.transfer is None):
            raise InputError("engines for prompts need a link to those that answer, and it them",
                             place="prompts, transfer")  # fmt: skip


def _refuse_other(place: str, value: object, kind: type) -> None:
    if not isinstance(value, kind):
        raise InputError("not what belongs here", place=place, value=value,
                         allowed=f"a {kind.__name__}")  # fmt: skip
