"""What it costs to get operations started, by launch mode.

- ``eager``: the host issues every operation; each starts a latency after its call, and an
  interval after the one before it on its stream. A stream holds so many operations and no more:
  the host waits until there is room. Several threads may prepare launches side by side; they
  still leave in order.
- ``graph``: the host submits the step as one graph of N operations, which takes it
  ``host + N node``; the first starts a latency after the last has been submitted. Where the
  program waits for a result in the middle, the graph is cut there: each piece is submitted and
  waited for.
- ``queue``: a hardware queue, or a kernel that persists, holds the step, control flow included;
  the host rings once a step.

Host times of eager and graph launches are divided by ``host.speed``.

Source: the launch and host entries of the architecture files; that a graph starts when all of it is
submitted is seen in axis ``graph_size`` of workloads/experiments/h200_host_axes.json.

Left out: graphs that are launched while another still runs, work of the host between the launches
of a graph's pieces, threads that hinder each other.
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
    "launch.eager.depth",
    "launch.graph.host",
    "launch.graph.node",
    "launch.graph.submit",
    "launch.graph.interval",
    "launch.queue.submit",
    "launch.queue.interval",
    "host.speed",
    "host.sync",
    "host.threads",
    "host.record",
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
    host, node : array
        Host time of a submission, and for each operation in it; none where each is issued alone.
    submit, copy : array
        From the end of the host's call to the first operation; to the start of a copy, where each
        operation is issued by itself.
    interval : array
        Device idle between two operations.
    """

    per_operation: bool
    waits: bool
    host: Array
    node: Array
    submit: Array
    copy: Array
    interval: Array

    def calls(self, operations: int) -> Array:
        """Return the host time of submitting so many operations as one, (D,) [s]."""
        return self.host + operations * self.node


def launch_cost(launch: str, designs: Designs) -> LaunchCost:
    """Return what a launch mode costs.

    Raises
    ------
    InputError
        A launch mode that does not exist.

    Examples
    --------
    >>> import npusim as ns
    >>> graph = launch_cost("graph", Designs(ns.load_arch("h200")))
    >>> np.round(graph.calls(930) * 1e6, 1).tolist()  # of PaddleOCR-VL, 930 kernels [us]
    [148.2]
    """
    none = np.zeros(1)
    if launch == "eager":
        names = ("latency", "copy_latency", "interval")
        costs = (designs[f"launch.eager.{name}"] for name in names)
        return LaunchCost(True, True, none, none, *costs)
    if launch == "graph":
        speed = designs["host.speed"]
        host, node = (designs[f"launch.graph.{name}"] / speed for name in ("host", "node"))
        submit, interval = (designs[f"launch.graph.{name}"] for name in ("submit", "interval"))
        return LaunchCost(False, True, host, node, submit, submit, interval)
    if launch == "queue":
        # What the doorbell takes is the host's: nothing else happens before the first operation.
        host, interval = (designs[f"launch.queue.{name}"] for name in ("submit", "interval"))
        return LaunchCost(False, False, host, none, none, none, interval)
    raise InputError("unknown launch mode", value=launch, allowed=", ".join(LAUNCHES))
