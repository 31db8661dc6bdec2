"""A percentile that a few slow requests make, over the percentile that was published.

Of n requests all take what is usual, but for s of them, which take as long as the published mean
needs:

    slow = (n mean - (n - s) usual) / s

What a percentile of such a run would be tells whether the published one comes from s slow requests
or from another spread of latencies.

Left out: usual requests differ from each other (by the range of `usual`, if it is given).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from npusim import units
from npusim.errors import InputError
from npusim.latency import slow_one, summary, with_slow_one
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "percentile of the reading over the published one"


class Options(Strict):
    """A published run of requests, and how it is read.

    Attributes
    ----------
    requests, slow : int
        Requests of the run, and how many of them are taken to be slow.
    mean, usual : str
        Published mean, and what the others take (a published median).
    of : {"p50", "p95", "p99"}
        The percentile that decides.
    published : str
        What was published of it.
    compiled : str
        What a kernel takes that is compiled at its first use: told beside; or empty.
    """

    requests: int
    slow: int = 1
    mean: str
    usual: str
    of: Literal["p50", "p95", "p99"] = "p95"
    published: str
    compiled: str = ""


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: all numbers are published."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        Not a number of slow requests, or a mean that they cannot make.

    Examples
    --------
    Seed 001: ten requests, mean 1.7370 s, median 0.3333 s, P95 8.0539 s.

    >>> run = Options(requests=10, mean="1.7370 s", usual="0.3333 s", published="8.0539 s")
    >>> round(measure(run, {}).value, 4)
    1.0
    """
    mean, usual, published = (
        units.parse(t, "s") for t in (options.mean, options.usual, options.published)
    )
    if not 1 <= options.slow < options.requests:
        raise InputError("not a number of slow requests", place="slow", value=options.slow,
                         allowed=f"1 to {options.requests - 1}")  # fmt: skip
    if not published > 0:
        raise InputError("not a latency", place="published", value=options.published)
    usually = options.requests - options.slow
    if options.slow == 1:
        slow = slow_one(options.requests, mean, usual)
        found = with_slow_one(options.requests, mean, usual)
    else:
        slow = (options.requests * mean - usually * usual) / options.slow
        if slow < usual:
            raise InputError("no slow requests make this mean", place="mean", value=options.mean,
                             allowed=f"{usual:g} s (the usual) or more")  # fmt: skip
        found = summary([usual] * usually + [slow] * options.slow)
    told = float(getattr(found, f"{options.of}_s"))
    reason = (
        f"{options.slow} of {options.requests} requests that took {slow:.2f} s, all others "
        f"{usual:.4g} s, make a mean of {mean:.4g} s and a {options.of} of {told:.4f} s; "
        f"{published:.4f} s was published"
    )
    if options.compiled:
        each = units.parse(options.compiled, "s")
        reason += (
            f"; {slow - usual:.1f} s too long are {(slow - usual) / each:.0f} kernels compiled"
        )
    return Value(
        told / published, told / published, told / published, reason, ("published figures",)
    )
