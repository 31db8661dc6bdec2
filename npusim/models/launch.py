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
    submit : array
        From the host's call to the first operation.
    interval : array
        Device idle between two operations.
    """

    per_operation: bool
    waits: bool
    submit: Array
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
        return LaunchCost(True, True, designs["launch.eager.latency"],
                          designs["launch.eager.interval"])  # fmt: skip
    if launch not in LAUNCHES:
        raise InputError("unknown launch mode", value=launch, allowed=", ".join(LAUNCHES))
    return LaunchCost(False, launch == "graph", designs[f"launch.{launch}.submit"],
                      designs[f"launch.{launch}.interval"])  # fmt: skip
