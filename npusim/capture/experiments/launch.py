"""What a launch costs: one-element additions eagerly, inside a graph, and with a round trip."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import eager_us, graph_us

AXES = ("launch",)

_ROUND_TRIPS = 1000


def points(device: Row, quick: bool) -> list[Row]:
    """Return the three ways."""
    whats = ("eager_add1", "graph_add1", "sync_roundtrip")
    return [{"axis": "launch", "what": what} for what in whats]


def measure(torch: Any, point: Row) -> Row:
    """Return ``us``: per addition, or per ``.item()`` of a value that is ready."""
    x = torch.ones(1, device="cuda")

    def add() -> None:
        x.add_(1)

    if point["what"] == "eager_add1":
        return {"us": eager_us(torch, add)}
    if point["what"] == "graph_add1":
        return {"us": graph_us(torch, [add])}
    times = []
    for _ in range(_ROUND_TRIPS):
        start = time.perf_counter()
        x.item()
        times.append(time.perf_counter() - start)
    return {"us": 1e6 * median(times)}
