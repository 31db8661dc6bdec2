"""What it costs to get operations started, by launch mode.

- ``eager``: the host issues every operation; each starts a latency after its call, and an
  interval after the one before it on its stream.
- ``graph``: the host submits the step as one graph. Where the program waits for a result in the
  middle, the graph is cut there: each piece is submitted and waited for.
- ``queue``: a hardware queue holds the step, control flow included; the host rings once a step.

Source: the launch and host entries of the architecture files.

Left out: queue depth, several dispatch threads, cost that grows with the size of a graph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.errors import InputError

Array = NDArray[np.float64]

LAUNCHES = ("eager", "graph", "queue")

PARAMETERS = (
    "launch.eager.host",
    "launch.eager.latency",
    "launch.eager.copy_latency",
    "launch.eager.interval",
    "launch.graph.submit",
    "launch.graph.interval",
    "launch.queue.submit",
    "launch.queue.interval",
    "host.speed",
    "host.sync",
)


@dataclass(frozen=True)
class LaunchCost:
    """Costs of one launch mode on each design, each of shape (D,) or (1,) [s].

    Attributes
    ----------
    per_operation : bool
        Whether the host issues every operation (else one submission a piece).
    waits : bool
        Whether the host has to wait for results in the middle of a step.
    submit, copy : array
        From the host's call to the first operation; to the start of a copy, where each operation
        is issued by itself.
    interval : array
        Device idle between two operations.
    """

    per_operation: bool
    waits: bool
    submit: Array
    copy: Array
    interval: Array


def launch_cost(launch: str, designs: Designs) -> LaunchCost:
    """Return what a launch mode costs.

    Raises
    ------
    InputError
        A launch mode that does not exist.

    Examples
    --------
    >>> import npusim as ns
    >>> launch_cost("graph", Designs(ns.load_arch("h200"))).submit.tolist()
    [3e-05]
    """
    if launch == "eager":
        names = ("latency", "copy_latency", "interval")
        return LaunchCost(True, True, *(designs[f"launch.eager.{name}"] for name in names))
    if launch not in LAUNCHES:
        raise InputError("unknown launch mode", value=launch, allowed=", ".join(LAUNCHES))
    submit, interval = (designs[f"launch.{launch}.{name}"] for name in ("submit", "interval"))
    return LaunchCost(False, launch == "graph", submit, submit, interval)
