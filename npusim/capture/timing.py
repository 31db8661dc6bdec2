"""How times are taken: CUDA-graph replays by events, eager calls and whole steps by the clock.

Launching a graph takes a few microseconds whatever is in it, so graphs here hold enough operations
to run for about a millisecond. A time is the median over replays (`npusim.graph_timing`).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

from npusim.capture.gpu import Row
from npusim.graph_timing import PROBE_REPLAYS, UNTIMED, probe_rounds, replays, rounds

Call = Callable[[], object]

_EAGER_LOOPS, _EAGER_CALLS = 7, 200


def wall_row(seconds: Sequence[float]) -> Row:
    """Return median, 10th and 95th percentile [ms] of times [s], as in ``wall.jsonl``.

    Percentiles are interpolated between the two nearest samples.

    Examples
    --------
    >>> wall_row([0.001 * t for t in range(1, 22)])
    {'median_ms': 11.0, 'p10_ms': 3.0, 'p95_ms': 20.0, 'n': 21}
    """
    cuts = statistics.quantiles(seconds, n=20, method="inclusive")
    times = {"median_ms": statistics.median(seconds), "p10_ms": cuts[1], "p95_ms": cuts[18]}
    return {**{name: round(1e3 * t, 9) for name, t in times.items()}, "n": len(seconds)}


def nothing() -> None:
    """Rewind what keeps no state."""


def capture_graph(torch: Any, run: Call, warm_up: Call | None = None) -> Any:
    """Capture what `run` launches as a CUDA (or HIP) graph, after running it on a side stream."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(UNTIMED):
            (warm_up or run)()
    torch.cuda.current_stream().wait_stream(side)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()
    return graph


def replay_ms(torch: Any, replay: Call, count: int, rewind: Call = nothing) -> list[float]:
    """Return what each of `count` replays takes [ms], by events around it; two go before.

    `rewind` runs before each replay and is not timed.
    """
    times = []
    for i in range(UNTIMED + count):
        rewind()
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        replay()
        end.record()
        torch.cuda.synchronize()
        if i >= UNTIMED:
            times.append(float(start.elapsed_time(end)))
    return times


def graph_us(torch: Any, calls: Sequence[Call]) -> float:
    """Return the median time of one call inside a graph [us].

    Parameters
    ----------
    torch : module
    calls : sequence of callable
        The same operation on different operand sets, run in turn. One set means that operands are
        warm where they fit a cache; sets that add up to more than the caches, that they are cold.
    """

    def cycle(times: int) -> Call:
        def run() -> None:
            for _ in range(times):
                for call in calls:
                    call()  # its result is dropped, so the next one takes the same memory

        return run

    count = probe_rounds(len(calls))
    graph = capture_graph(torch, cycle(count), cycle(1))
    took = statistics.median(replay_ms(torch, graph.replay, PROBE_REPLAYS))
    wanted = rounds(1e3 * took / (count * len(calls)), len(calls))
    if wanted > count:
        count = wanted
        graph = capture_graph(torch, cycle(count), cycle(1))
        took = statistics.median(replay_ms(torch, graph.replay, PROBE_REPLAYS))
    times = replay_ms(torch, graph.replay, replays(1e-3 * took))
    return 1e3 * statistics.median(times) / (count * len(calls))


def eager_us(torch: Any, call: Call) -> float:
    """Return the median time of a call in a loop that only waits at its end [us]."""
    loops = []
    for _ in range(_EAGER_LOOPS + 1):
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(_EAGER_CALLS):
            call()
        torch.cuda.synchronize()
        loops.append(time.perf_counter() - start)
    return 1e6 * statistics.median(loops[1:]) / _EAGER_CALLS


def wall_seconds(torch: Any, run: Call, count: int) -> list[float]:
    """Return what each of `count` calls takes from start to an idle device [s]."""
    times = []
    for _ in range(count):
        torch.cuda.synchronize()
        start = time.perf_counter()
        run()
        torch.cuda.synchronize()
        times.append(time.perf_counter() - start)
    return times


def wake(torch: Any, seconds: float = 0.3) -> None:
    """Keep the device busy until its clocks are up."""
    a = torch.randn(4096, 4096, device="cuda", dtype=torch.bfloat16)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for _ in range(10):
            torch.mm(a, a)
        torch.cuda.synchronize()
