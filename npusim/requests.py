"""Requests of a few clients through one engine, as a discrete-event simulation.

Closed loop: each client sends its requests one after another, the next as soon as the last is
answered. "4x8" is read as four clients with eight requests each; the other reading, eight rounds of
four that wait for the slowest of a round, is ``rounds=True``.

The engine is one host: it does one thing at a time. It takes a request in (vision and prefill,
which gives the first token), and nothing else happens meanwhile; or it runs one decode step of all
requests that it holds. Those that wait are taken in before the next decode step, while there is
room in the batch, one after another or all at once (``packed``).

Source: iteration-level scheduling of G.-I. Yu et al., "Orca", OSDI 2022; that prefill goes before
decode is assumed.

Left out: chunked prefill beside decode steps, room for the KV cache, preemption, open arrivals,
several engines, steps that grow with the context.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import simpy
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.latency import Latency, summary
from npusim.step_cost import StepCost

Process = Generator[simpy.Event, Any, None]

_MOST_TOKENS = 10_000_000


@dataclass(frozen=True)
class Request:
    """What one request needs.

    Attributes
    ----------
    prefill_s : float
        Vision and prefill, in which the engine serves nobody else [s].
    steps : int
        Decode steps after that: it is answered with ``steps + 1`` tokens.
    outside_s : float
        Before the engine has it, beside whatever the engine does: network, decoding of the image
        [s].

    Raises
    ------
    InputError
        A time that is negative or no number, or steps that are no count.
    """

    prefill_s: float
    steps: int
    outside_s: float = 0.0

    def __post_init__(self) -> None:
        for place, value in (("prefill_s", self.prefill_s), ("outside_s", self.outside_s)):
            _refuse_no_time(place, value)
        if not (self.steps >= 0 and float(self.steps).is_integer()):
            raise InputError("not a number of decode steps", place="steps", value=self.steps,
                             allowed="0, 1, 2, ...")  # fmt: skip


@dataclass(frozen=True)
class Engine:
    """How the engine serves.

    Attributes
    ----------
    step : StepCost or mapping of int to float
        Time of a decode step by its batch [s]; a mapping has every batch from 1 to `most`.
    most : int
        Requests that it decodes together.
    packed : bool
        Whether it takes in all that wait at once, so that `group_s` is paid once for them.
    group_s : float
        Of taking in, beside the `prefill_s` of each request: dispatch that does not grow with
        what is packed [s].

    Raises
    ------
    InputError
        A batch without a time, or a time that is none.
    """

    step: StepCost | Mapping[int, float]
    most: int
    packed: bool = False
    group_s: float = 0.0

    def __post_init__(self) -> None:
        _refuse_no_time("group_s", self.group_s)
        if not (self.most >= 1 and self.most % 1 == 0):
            raise InputError("no room in the batch", place="most", value=self.most,
                             allowed="a whole number from 1")  # fmt: skip
        if isinstance(self.step, StepCost):
            return
        for batch in range(1, self.most + 1):
            if batch not in self.step:
                raise InputError("no time of a step of this batch", place="step", value=batch,
                                 allowed=f"every batch from 1 to {self.most}")  # fmt: skip
            _refuse_no_time(f"step of batch {batch}", self.step[batch])

    def time(self, batch: int) -> float:
        """Return the time of a decode step [s]."""
        return self.step.time(batch) if isinstance(self.step, StepCost) else self.step[batch]


@dataclass(frozen=True)
class Served:
    """One request as it went, times from the start of the run.

    Attributes
    ----------
    client, number : int
        Whose, and which of its requests, from 0.
    sent_s, first_token_s, done_s : float
        When the client sent it, had its first token and all of them [s].
    tokens : int
    """

    client: int
    number: int
    sent_s: float
    first_token_s: float
    done_s: float
    tokens: int

    @property
    def latency_s(self) -> float:
        """From sending it to the last token [s]."""
        return self.done_s - self.sent_s


@dataclass(frozen=True)
class Outcome:
    """A run.

    Attributes
    ----------
    served : tuple of Served
        All requests, in the order in which they were done.
    makespan_s : float
        Until the last one was done [s].
    busy_s : float
        In which the engine worked [s].
    steps : int
        Decode steps that it ran.
    """

    served: tuple[Served, ...]
    makespan_s: float
    busy_s: float
    steps: int

    @property
    def latencies_s(self) -> NDArray[np.float64]:
        """Latency of each request, as in `served`, shape (N,) [s]."""
        return np.array([s.latency_s for s in self.served])

    @property
    def latency(self) -> Latency:
        """Mean and percentiles."""
        return summary(self.latencies_s)

    @property
    def tokens(self) -> int:
        """Tokens of all answers."""
        return sum(s.tokens for s in self.served)

    @property
    def requests_per_s(self) -> float:
        """Requests done a second of the run."""
        return len(self.served) / self.makespan_s

    @property
    def tokens_per_s(self) -> float:
        """Tokens a second of the run."""
        return self.tokens / self.makespan_s

    @property
    def utilisation(self) -> float:
        """Share of the run in which the engine worked."""
        return min(self.busy_s / self.makespan_s, 1.0)


def crowd(clients: int, each: int, requests: Sequence[Request]) -> list[list[Request]]:
    """Return what each client sends: a list of requests dealt out in turn, again if it is short.

    Parameters
    ----------
    clients, each : int
        Clients, and requests of each.
    requests : sequence of Request
        Sizes that occur. Nothing is drawn: whoever wants a distribution gives its samples.

    Raises
    ------
    InputError
        No clients, or nothing to deal out.

    Examples
    --------
    >>> small, large = Request(1.0, 0), Request(2.0, 0)
    >>> [[r.prefill_s for r in sent] for sent in crowd(2, 2, [small, small, large])]
    [[1.0, 2.0], [1.0, 1.0]]
    """
    if min(clients, each, len(requests)) < 1:
        raise InputError("no requests", value=f"{clients} x {each} of {len(requests)}",
                         allowed="1 or more of each")  # fmt: skip
    return [[requests[(n * clients + c) % len(requests)] for n in range(each)]
            for c in range(clients)]  # fmt: skip


def closed_loop(
    clients: Sequence[Sequence[Request]], engine: Engine, rounds: bool = False
) -> Outcome:
    """Serve clients that each send one request after another.

    Parameters
    ----------
    clients : sequence of sequence of Request
        What each client sends, in order: see `crowd`.
    engine : Engine
    rounds : bool
        Whether all clients wait until the round is answered before they send the next request.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        No requests, too many to simulate, or requests that take no time at all.

    Examples
    --------
    Two clients: the second waits for the first one's prefill, then both decode together.

    >>> engine = Engine(StepCost(1.0, 0.5), most=2)
    >>> run = closed_loop(crowd(2, 1, [Request(prefill_s=3.0, steps=2)]), engine)
    >>> run.latencies_s.tolist(), run.makespan_s, run.utilisation
    ([10.0, 10.0], 10.0, 1.0)
    """
    tokens = sum(request.steps + 1 for sent in clients for request in sent)
    if not 0 < tokens <= _MOST_TOKENS:
        raise InputError("not a run that can be simulated", value=f"{tokens} tokens",
                         allowed=f"1 to {_MOST_TOKENS}")  # fmt: skip
    run = _Run(clients, engine, rounds).outcome()
    if run.makespan_s == 0:
        raise InputError("a run that takes no time", value=f"{len(run.served)} requests",
                         allowed="a prefill or step above 0 s")  # fmt: skip
    return run


@dataclass
class _Ticket:
    """A request under way."""

    request: Request
    client: int
    number: int
    sent: float
    done: simpy.Event
    first: float = 0.0
    left: int = field(init=False)

    def __post_init__(self) -> None:
        self.left = self.request.steps


class _Run:
    """Clients and engine of one simulation."""

    def __init__(self, clients: Sequence[Sequence[Request]], engine: Engine, rounds: bool) -> None:
        self._env = simpy.Environment()
        self._engine = engine
        self._waiting: deque[_Ticket] = deque()
        self._running: list[_Ticket] = []
        self._sleep: simpy.Event | None = None
        self._open = sum(map(len, clients))
        self._served: list[Served] = []
        self._busy, self._steps = 0.0, 0
        if rounds:
            self._env.process(self._in_rounds(clients))
        else:
            for c, sent in enumerate(clients):
                self._env.process(self._client(c, sent))
        self._env.process(self._serve())

    def outcome(self) -> Outcome:
        self._env.run()
        return Outcome(tuple(self._served), float(self._env.now), self._busy, self._steps)

    def _client(self, client: int, requests: Sequence[Request]) -> Process:
        for number, request in enumerate(requests):
            yield from self._send(client, number, request)

    def _in_rounds(self, clients: Sequence[Sequence[Request]]) -> Process:
        for number in range(max(map(len, clients))):
            sent = [(c, r[number]) for c, r in enumerate(clients) if number < len(r)]
            one_each = [self._env.process(self._send(c, number, r)) for c, r in sent]
            yield self._env.all_of(one_each)

    def _send(self, client: int, number: int, request: Request) -> Process:
        ticket = _Ticket(request, client, number, self._env.now, self._env.event())
        if request.outside_s > 0:
            yield self._env.timeout(request.outside_s)
        self._waiting.append(ticket)
        if self._sleep is not None:
            self._sleep.succeed()
            self._sleep = None
        yield ticket.done

    def _serve(self) -> Process:
        while self._open:
            yield self._env.timeout(0)  # whoever comes at this very moment is seen
            if self._waiting and len(self._running) < self._engine.most:
                yield from self._take_in()
            elif self._running:
                yield from self._decode()
            else:
                self._sleep = self._env.event()
                yield self._sleep

    def _take_in(self) -> Process:
        room = self._engine.most - len(self._running)
        count = min(room, len(self._waiting)) if self._engine.packed else 1
        group = [self._waiting.popleft() for _ in range(count)]
        yield self._work(self._engine.group_s + sum(t.request.prefill_s for t in group))
        for ticket in group:
            ticket.first = self._env.now
        self._running += group
        self._let_go()

    def _decode(self) -> Process:
        yield self._work(self._engine.time(len(self._running)))
        self._steps += 1
        for ticket in self._running:
            ticket.left -= 1
        self._let_go()

    def _work(self, seconds: float) -> simpy.Event:
        self._busy += seconds
        return self._env.timeout(seconds)

    def _let_go(self) -> None:
        """Answer the requests that have all their tokens."""
        for t in self._running:
            if t.left == 0:
                self._served.append(Served(t.client, t.number, t.sent, t.first, self._env.now,
                                           t.request.steps + 1))  # fmt: skip
                self._open -= 1
                t.done.succeed()
        self._running = [t for t in self._running if t.left > 0]


def _refuse_no_time(place: str, value: float) -> None:
    if not (math.isfinite(value) and value >= 0):
        raise InputError("not a time", place=place, value=value, allowed="0 s or more")
