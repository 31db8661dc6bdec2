"""What a graph costs by its size: one-element additions, from an idle device and in turn."""

from __future__ import annotations

import time
from statistics import median
from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.timing import capture_graph

AXES = ("graph_size",)

_SIZES = (1, 4, 16, 64, 256, 512, 1024, 2048, 4096)
_FEW = (1, 256, 1024)
_REPLAYS, _IN_TURN = 40, 20


def points(device: Row, quick: bool) -> list[Row]:
    """Return the sizes."""
    return [{"axis": "graph_size", "nodes": n} for n in (_FEW if quick else _SIZES)]


def measure(torch: Any, point: Row) -> Row:
    """Return host time of a launch, wall from call to idle device, and period in turn [us]."""
    x = torch.ones(1, device="cuda")

    def run() -> None:
        for _ in range(point["nodes"]):
            x.add_(1)

    graph = capture_graph(torch, run)
    called, waited, inside = [], [], []
    for _ in range(_REPLAYS + 2):
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start = time.perf_counter()
        graph.replay()
        called.append(time.perf_counter() - start)
        torch.cuda.synchronize()
        waited.append(time.perf_counter() - start)
        first.record()
        graph.replay()
        last.record()
        torch.cuda.synchronize()
        inside.append(1e3 * float(first.elapsed_time(last)))
    return {
        "host_us": 1e6 * median(called[2:]),
        "wall_us": 1e6 * median(waited[2:]),
        "events_us": median(inside[2:]),
        "period_us": _period_us(torch, graph),
    }


def _period_us(torch: Any, graph: Any) -> float:
    periods = []
    for _ in range(5):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(_IN_TURN):
            graph.replay()
        torch.cuda.synchronize()
        periods.append((time.perf_counter() - start) / _IN_TURN)
    return 1e6 * median(periods)
