"""One engine as a process of the simulation: step after step while there is something to do."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from npusim.serving.policy import Policy
from npusim.serving.scheduler import Scheduler, Ticket
from npusim.serving.step import StepTimes

Process = Generator[simpy.Event, Any, None]


@dataclass
class Log:
    """What an engine did: a row a step.

    Attributes
    ----------
    end_s : array of float
        When the step ended [s].
    seconds : array of float
        How long it took [s].
    tokens, samples, running, waiting, blocks : array of int
        Tokens that entered and tokens of answers made; requests that ran and waited, and blocks of
        KV cache that were held, when it began.
    """

    end_s: array[float] = field(default_factory=lambda: array("d"))
    seconds: array[float] = field(default_factory=lambda: array("d"))
    tokens: array[int] = field(default_factory=lambda: array("q"))
    samples: array[int] = field(default_factory=lambda: array("q"))
    running: array[int] = field(default_factory=lambda: array("q"))
    waiting: array[int] = field(default_factory=lambda: array("q"))
    blocks: array[int] = field(default_factory=lambda: array("q"))


class Engine:
    """One engine.

    Parameters
    ----------
    env : simpy.Environment
    times : StepTimes
        How long its steps take.
    policy : Policy
    answered : callable
        Told of every request that is answered, at that moment.
    """

    def __init__(
        self, env: simpy.Environment, times: StepTimes, policy: Policy,
        answered: Callable[[Ticket], None],
    ) -> None:  # fmt: skip
        self.scheduler = Scheduler(policy)
        self.log = Log()
        self._env, self._times, self._answered = env, times, answered
        self._sleep: simpy.Event | None = None
        env.process(self._serve())

    @property
    def load(self) -> int:
        """Requests that it has, running or not."""
        return len(self.scheduler.running) + len(self.scheduler.waiting)

    def submit(self, ticket: Ticket) -> None:
        """Let it serve a request."""
        self.scheduler.add(ticket)
        if self._sleep is not None:
            self._sleep.succeed()
            self._sleep = None

    def _serve(self) -> Process:
        env, scheduler, log = self._env, self.scheduler, self.log
        while True:
            step = scheduler.plan(env.now)
            if step is None:
                self._sleep = env.event()
                yield self._sleep
                yield env.timeout(0)  # whoever comes at this very moment is seen
                continue
            seconds = self._times.seconds(step)
            log.tokens.append(step.tokens)
            log.samples.append(step.samples)
            log.running.append(len(scheduler.running))
            log.waiting.append(len(scheduler.waiting))
            log.blocks.append(scheduler.pool.used)
            log.seconds.append(seconds)
            yield env.timeout(seconds)
            log.end_s.append(env.now)
            for ticket in scheduler.finish(env.now):
                self._answered(ticket)
            if env.peek() <= env.now:
                yield env.timeout(0)  # whoever comes at this very moment is seen
