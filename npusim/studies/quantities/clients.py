"""Clients of one engine whose decode steps are paid once: throughput, or what a saving is worth.

A decode step of B requests takes ``a + b B``: dispatch once, some work for each request
(`npusim.step_cost`). Two figures follow:

    throughput = B / (a + b B) over 1 / (a + b)                 requests that decode all the time
    latency    = mean (or percentile) with `saved` seconds less of vision and prompt, over without,

the latter by simulating closed-loop clients (`npusim.serving`), each request taken in for
``request - steps x (a + b)`` seconds, one after the other, or all that wait for the price of one.

A step of one request is measured best, so b is what is doubted: with ``a + b`` held, it may be
anything from nothing (B requests cost what one does) to the whole step, unless `between` says more.
The band is that of b.

Left out: contexts that grow, prompts beside decoding, arrivals that do not wait for answers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from pydantic import Field

from npusim import units
from npusim.errors import InputError
from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, serve
from npusim.step_cost import StepCost, fit_step_cost
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "ratio"

_PATH = "step.request"
_APART_S = 1e-3  # between clients whose answers are done together, on their way to the engine


class Options(Strict):
    """What is known of a service.

    Attributes
    ----------
    throughput : dict of str to float
        Number of requests that decode together -> tokens a second: a and b are fitted to them.
    dispatch, each : str
        a and b themselves, as text with a unit, in place of that.
    between : list of two str
        Range of b, for a step of one request that takes as long as it does.
    figure : {"throughput", "latency"}
    clients : int
    request : str
        What one request of a single client takes.
    steps : int
        Its decode steps.
    requests : int
        How many requests each client sends.
    saved : str
        By how much less vision and prompt of a request block the engine.
    taken_in : {"one by one", "packed", "together"}
        One request after the other; all that wait for the price of one, the first of them alone;
        or all from the start.
    of : {"mean", "p50", "p95"}
        Which latency.
    """

    throughput: dict[str, float] = Field(default_factory=dict)
    dispatch: str = ""
    each: str = ""
    between: list[str] = Field(default_factory=list)
    figure: Literal["throughput", "latency"] = "throughput"
    clients: int
    request: str = ""
    steps: int = 0
    requests: int = 8
    saved: str = "0 s"
    taken_in: Literal["one by one", "packed", "together"] = "packed"
    of: Literal["mean", "p50", "p95"] = "mean"


def doubts(options: Options) -> dict[str, Doubt]:
    """Return the work of a request in a step, with the step of one request held as measured."""
    cost = _cost(options)
    one = cost.time(1)
    low, high = 0.0, one
    if options.between:
        low, high = (units.parse(end, "s") for end in options.between)
    return {_PATH: Doubt(cost.request_s, low, high, "s", "steps of two requests, by run",
                         (0.0, one))}  # fmt: skip


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A cost of steps that is not told, or told twice; a request that is shorter than its steps.

    Examples
    --------
    Seed 000: 45.9 tokens a second of one request and 65.2 of two tell 82.6 of four.

    >>> found = measure(Options(throughput={"1": 45.9, "2": 65.2}, clients=4), {})
    >>> round(found.value, 2)
    1.8
    """
    if options.clients < 1:
        raise InputError("no clients", place="clients", value=options.clients, allowed="1 or more")
    doubt = doubts(options)[_PATH]
    held = _with(options, settings.get(_PATH, doubt.nominal))
    ends = [_ratio(options, _with(options, each)) for each in (doubt.low, doubt.high)]
    value = _ratio(options, held)
    return Value(value, min(value, *ends), max(value, *ends), _reason(options, held),
                 ("published figures",))  # fmt: skip


def _with(options: Options, each: float) -> StepCost:
    """Return the cost of steps if a request's work is so long and a step of one as measured."""
    one = _cost(options).time(1)
    return StepCost(max(one - each, 0.0), min(each, one))


def _ratio(options: Options, cost: StepCost) -> float:
    if options.figure == "throughput":
        return cost.tokens_per_s(options.clients) / cost.tokens_per_s(1)
    after, before = (_latency(options, cost, options.clients, s)
                     for s in (units.parse(options.saved, "s"), 0.0))  # fmt: skip
    return after / before


def _reason(options: Options, cost: StepCost) -> str:
    told = (
        f"a step takes {1e3 * cost.dispatch_s:.3g} ms and {1e3 * cost.request_s:.3g} ms a request"
    )
    many = options.clients
    if options.figure == "throughput":
        return (f"{told}: {many} requests make {cost.tokens_per_s(many):.1f} tokens/s, one makes "
                f"{cost.tokens_per_s(1):.1f}, and more of them {_most(cost)} at most")  # fmt: skip
    saved = units.parse(options.saved, "s")
    shown = [
        f"{1e3 * _latency(options, cost, n, s):.0f} ms" for n in (many, 1) for s in (0.0, saved)
    ]
    return (
        f"{told}; {1e3 * saved:.1f} ms less of taking a request in make the {options.of} latency "
        f"of {many} clients {shown[0]} to {shown[1]}, that of one client {shown[2]} to {shown[3]}"
    )


def _cost(options: Options) -> StepCost:
    if bool(options.throughput) == bool(options.dispatch and options.each):
        raise InputError("needs throughput, or dispatch and each", place="clients")
    if options.throughput:
        batches = [units.parse(batch, "1") for batch in options.throughput]
        return fit_step_cost(batches, list(options.throughput.values()))
    return StepCost(units.parse(options.dispatch, "s"), units.parse(options.each, "s"))


def _most(cost: StepCost) -> str:
    return f"{1 / cost.request_s:.0f}" if cost.request_s > 0 else "any number of"


def _latency(options: Options, cost: StepCost, clients: int, less: float) -> float:
    whole = units.parse(options.request or "0 s", "s") - options.steps * cost.time(1)
    if options.steps < 1 or whole < less:
        least = options.steps * cost.time(1) + less
        raise InputError("leaves nothing to take a request in", place="request",
                         value=options.request, allowed=f"{least:.4g} s or more")  # fmt: skip
    packed = options.taken_in != "one by one"
    policy = Policy(clients, mixed=False, one_by_one=not packed)
    apart = _APART_S if options.taken_in == "packed" else 0.0
    sent = [[Request(1, options.steps + 1, work_s=0.0 if packed else whole - less,
                     outside_s=c * apart)] * options.requests
            for c in range(clients)]  # fmt: skip
    times = LinearTimes(cost, group_s=whole - less if packed else 0.0)
    outcome = serve(sent, Fleet(Pool(times, policy)))
    return float(getattr(outcome.summaries()["latency"], f"{options.of}_s"))
