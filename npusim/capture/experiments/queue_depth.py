"""How many launches wait in a stream before the host blocks: launches behind a sleeping kernel."""

from __future__ import annotations

import time
from typing import Any

from npusim.capture.gpu import Row, Unavailable

AXES = ("queue_depth",)

_SLEEP_CYCLES = 400_000_000  # about 0.2 s: longer than it takes to fill any queue
_MOST = 20_000
_BLOCKED_S = 0.02


def points(device: Row, quick: bool) -> list[Row]:
    """Return launches on the stream that sleeps, and on another beside it."""
    return [{"axis": "queue_depth", "stream": stream} for stream in ("same", "other")]


def measure(torch: Any, point: Row) -> Row:
    """Return ``launches`` that were issued before one took ``blocked_ms``; -1 if none did."""
    if not hasattr(torch.cuda, "_sleep"):
        raise Unavailable("this PyTorch has no torch.cuda._sleep")
    x = torch.ones(1, device="cuda")
    other = torch.cuda.Stream()
    x.add_(1)
    torch.cuda.synchronize()
    torch.cuda._sleep(_SLEEP_CYCLES)
    if point["stream"] == "same":
        return _fill(torch, x)
    behind = torch.cuda.Event()
    with torch.cuda.stream(other):
        torch.cuda._sleep(_SLEEP_CYCLES)  # both streams sleep
        behind.record()
        return _fill(torch, x)


def _fill(torch: Any, x: Any) -> Row:
    found = {"launches": -1, "blocked_ms": 0.0}
    for i in range(_MOST):
        start = time.perf_counter()
        x.add_(1)
        took = time.perf_counter() - start
        if took > _BLOCKED_S:
            found = {"launches": i, "blocked_ms": 1e3 * took}
            break
    torch.cuda.synchronize()
    return found
