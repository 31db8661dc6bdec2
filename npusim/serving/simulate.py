"""Requests through engines, as a discrete-event simulation.

Requests come by themselves, each at its time, or from clients that wait for an answer before they
send the next. An engine works on one step after the other (`npusim.serving.scheduler`); nothing is
drawn by lot, so a run repeats bit for bit.

Where prompts enter on engines of their own, a request gets its first token there, its KV cache is
sent over a link, and another engine makes the rest.

Left out: engines that fail, batches that are held up on purpose, what the sender still holds while
its blocks are under way.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import simpy

from npusim.errors import InputError
from npusim.serving.engine import Engine, Log
from npusim.serving.fleet import Fleet, Pool
from npusim.serving.outcome import Course, Outcome
from npusim.serving.request import Request, refuse_no_time
from npusim.serving.scheduler import Ticket

Process = Generator[simpy.Event, Any, None]

_MOST = 10_000_000  # requests


def serve(
    requests: Sequence[Request] | Sequence[Sequence[Request]], fleet: Fleet,
    until_s: float | None = None, rounds: bool = False,
) -> Outcome:  # fmt: skip
    """Serve requests.

    Parameters
    ----------
    requests : sequence of Request, or of sequence of Request
        Requests that come each at its `arrival_s`; or what each client sends, one after the other,
        the next `arrival_s` after the one before was answered.
    fleet : Fleet
    until_s : float, optional
        When to end; by default with the last answer [s].
    rounds : bool
        Whether all clients wait until each of them has its answer.

    Returns
    -------
    Outcome

    Raises
    ------
    InputError
        No requests, too many, or a run that takes no time.

    Examples
    --------
    Two clients: the second waits for the first one's prompt, then both are answered together.

    >>> from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, serve
    >>> from npusim.step_cost import StepCost
    >>> times = LinearTimes(StepCost(1.0, 0.5), prompt_s=3.0)
    >>> alone = Policy(max_seqs=2, mixed=False, one_by_one=True)
    >>> run = serve([[Request(prompt=1, output=3)], [Request(prompt=1, output=3)]],
    ...             Fleet(Pool(times, alone)))
    >>> run.latency_s.tolist(), run.utilisation
    ([10.0, 10.0], 1.0)
    """
    clients, closed = _listed(requests)
    if not isinstance(fleet, Fleet):
        raise InputError("nothing that serves", place="fleet", value=fleet, allowed="a Fleet")
    count = sum(map(len, clients))
    if not 0 < count <= _MOST:
        raise InputError("not a run that can be simulated", value=f"{count} requests",
                         allowed=f"1 to {_MOST:,}")  # fmt: skip
    if until_s is not None:
        refuse_no_time("until_s", until_s)
        if until_s == 0:
            raise InputError("a run that takes no time", place="until_s", value=until_s,
                             allowed="above 0 s")  # fmt: skip
    if rounds and not closed:
        raise InputError("rounds need clients", place="rounds", value=rounds,
                         allowed="requests listed by client")  # fmt: skip
    run = _Run(fleet, count)
    if closed:
        run.clients(clients, rounds)
    else:
        run.arrivals(clients[0])
    return run.outcome(until_s)


def _listed(requests: Any) -> tuple[list[list[Request]], bool]:
    """Return what each client sends, and whether there are clients."""
    try:
        listed = list(requests)
        closed = bool(listed) and not isinstance(listed[0], Request)
        clients = [list(sent) for sent in listed] if closed else [listed]
    except TypeError:
        raise InputError("neither requests nor lists of requests", place="requests",
                         value=requests) from None  # fmt: skip
    for request in chain.from_iterable(clients):
        if not isinstance(request, Request):
            raise InputError("not a request", place="requests", value=request)
    return clients, closed


class _Run:
    """Clients and engines of one simulation."""

    def __init__(self, fleet: Fleet, count: int) -> None:
        self._env = simpy.Environment()
        self._fleet, self._open = fleet, count
        self._engines = self._made(fleet.pool, self._answered)
        self._prompts: list[Engine] = []
        self._links: list[simpy.Resource] = []
        if fleet.prompts is not None:
            self._prompts = self._made(fleet.prompts, self._entered)
            self._links = [simpy.Resource(self._env) for _ in self._prompts]
        self._turns = {True: 0, False: 0}
        self._sent: list[Ticket] = []
        self._whole: dict[int, Ticket] = {}  # by number, while a part of it enters its prompt
        self._at: dict[int, int] = {}
        self._waits: dict[int, simpy.Event] = {}
        self._rejected: list[str] = []
        self._over = self._env.event()

    def _made(self, pool: Pool, answered: Any) -> list[Engine]:
        return [Engine(self._env, pool.times, pool.policy, answered) for _ in range(pool.engines)]

    def arrivals(self, requests: Iterable[Request]) -> None:
        """Let requests come, each at its time."""
        self._env.process(self._come(sorted(requests, key=lambda r: r.arrival_s)))

    def clients(self, clients: Sequence[Sequence[Request]], rounds: bool) -> None:
        """Let clients send, each one request after the other."""
        if rounds:
            self._env.process(self._in_rounds(clients))
            return
        for c, sent in enumerate(clients):
            self._env.process(self._client(c, sent))

    def outcome(self, until_s: float | None) -> Outcome:
        """Run, and return what came of it."""
        self._env.run(until=self._over if until_s is None else until_s)
        end = float(self._env.now)
        if until_s is None and end == 0 and self._sent:
            raise InputError("a run that takes no time", value=f"{len(self._sent)} requests",
                             allowed="steps above 0 s")  # fmt: skip
        done = [t for t in self._sent if t.done_s >= 0]
        times: dict[str, Any] = {name: np.array([getattr(t, name) for t in done], dtype=np.float64)
                 for name in ("sent_s", "entered_s", "first_s", "done_s")}  # fmt: skip
        counts: dict[str, Any] = {name: np.array([getattr(t, name) for t in done], dtype=np.int64)
                  for name in ("number", "client", "stops", "cached")}  # fmt: skip
        counts |= {name: np.array([getattr(t.request, name) for t in done], dtype=np.int64)
                   for name in ("prompt", "output")}  # fmt: skip
        spent = sum((t.done_s if t.done_s >= 0 else end) - t.sent_s for t in self._sent)
        return Outcome(
            **times, **counts, rejected=tuple(self._rejected),
            in_flight=len(self._sent) - len(done), end_s=end, residence_s=float(spent),
            engines=tuple(_course(e.log) for e in (*self._prompts, *self._engines)),
        )  # fmt: skip

    def _come(self, requests: Iterable[Request]) -> Process:
        for request in requests:
            if request.arrival_s > self._env.now:
                yield self._env.timeout(request.arrival_s - self._env.now)
            self._send(request, 0)

    def _client(self, client: int, requests: Sequence[Request]) -> Process:
        for request in requests:
            yield from self._one(request, client)

    def _in_rounds(self, clients: Sequence[Sequence[Request]]) -> Process:
        for n in range(max(map(len, clients))):
            sent = [(r[n], c) for c, r in enumerate(clients) if n < len(r)]
            yield self._env.all_of([self._env.process(self._one(r, c)) for r, c in sent])

    def _one(self, request: Request, client: int) -> Process:
        """Send a request of a client, and wait for its answer."""
        if request.arrival_s > 0:
            yield self._env.timeout(request.arrival_s)
        ticket = self._send(request, client)
        if ticket is not None:
            self._waits[ticket.number] = self._env.event()
            yield self._waits[ticket.number]

    def _send(self, request: Request, client: int) -> Ticket | None:
        """Send a request to an engine, unless none can ever serve it."""
        number = len(self._sent) + len(self._rejected)
        why = self._engines[0].scheduler.refuses(request)
        if self._prompts:
            why = why or self._prompts[0].scheduler.refuses(replace(request, output=1))
        if why:
            self._rejected.append(f"request {number}: {why}")
            self._close()
            return None
        ticket = Ticket(number, request, self._env.now, client)
        self._sent.append(ticket)
        if request.outside_s > 0:
            self._env.process(self._later(ticket))
        else:
            self._submit(ticket)
        return ticket

    def _later(self, ticket: Ticket) -> Process:
        yield self._env.timeout(ticket.request.outside_s)
        self._submit(ticket)

    def _submit(self, ticket: Ticket) -> None:
        if not self._prompts:
            self._engines[self._next(self._engines)].submit(ticket)
            return
        at = self._next(self._prompts)
        self._at[ticket.number] = at
        part = replace(ticket.request, output=1)
        self._whole[ticket.number] = ticket
        self._prompts[at].submit(Ticket(ticket.number, part, ticket.sent_s, ticket.client))

    def _next(self, engines: Sequence[Engine]) -> int:
        """Return which engine comes next."""
        if self._fleet.route == "round_robin":
            key = engines is self._prompts
            self._turns[key] += 1
            return (self._turns[key] - 1) % len(engines)
        return min(range(len(engines)), key=lambda i: engines[i].load)

    def _entered(self, part: Ticket) -> None:
        """Send on a request whose prompt has entered on an engine that only does that."""
        ticket = self._whole.pop(part.number)
        ticket.entered_s, ticket.first_s = part.entered_s, part.first_s
        ticket.cached, ticket.stops, ticket.made = part.cached, part.stops, 1
        if ticket.request.output == 1:
            ticket.done_s = self._env.now
            self._answered(ticket)
            return
        self._env.process(self._transferred(ticket, self._links[self._at.pop(part.number)]))

    def _transferred(self, ticket: Ticket, link: simpy.Resource) -> Process:
        transfer = self._fleet.transfer
        if transfer is None:
            raise AssertionError
        with link.request() as turn:
            yield turn
            yield self._env.timeout(transfer.seconds(ticket.request.prompt))
        ticket.brought = ticket.request.prompt
        self._engines[self._next(self._engines)].submit(ticket)

    def _answered(self, ticket: Ticket) -> None:
        waits = self._waits.pop(ticket.number, None)
        if waits is not None:
            waits.succeed()
        self._close()

    def _close(self) -> None:
        """One request less is awaited; with the last one the run is over."""
        self._open -= 1
        if self._open == 0:
            self._over.succeed()


def _course(log: Log) -> Course:
    """Return what an engine did, steps that were under way at the end left out."""
    steps = len(log.end_s)
    times: dict[str, Any] = {n: np.array(getattr(log, n)[:steps], dtype=np.float64)
                             for n in ("end_s", "seconds")}  # fmt: skip
    counts: dict[str, Any] = {n: np.array(getattr(log, n)[:steps], dtype=np.int64)
              for n in ("tokens", "samples", "running", "waiting", "blocks")}  # fmt: skip
    return Course(**times, **counts)
