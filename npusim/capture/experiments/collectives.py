"""Collective operations on all GPUs of the machine, over message sizes, and copies between two.

One process a GPU (`npusim.capture.ranks`). A message is what `bytes` says: what the chip that has
more of it gives or gets (all of the gathered tensor, all of the tensor to be scattered). Times are
those of a call inside a graph of many, of the slowest rank; where a graph cannot hold collectives,
of a call in a loop, by events (``how``). The library takes the protocol that it wants, or the one
that ``protocol`` names. ``host`` is what the host pays for a call in a loop that does not wait.
Copies go by the copy engine from one GPU to another, in one process.

A library that lets graphs and eager calls take turns puts an event into the graph for every call,
which costs more than a small message (``mixing`` 1, as it is by default): other rows are without.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from statistics import median
from typing import Any

from npusim.capture.gpu import Row, Unavailable
from npusim.capture.ranks import Rank, Ranks, slowest
from npusim.capture.timing import Call, capture_graph, replay_ms

AXES = ("collectives",)

OPERATIONS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
_SIZES = tuple(2**i for i in range(9, 30))
_QUICK_SIZES = (2**13, 2**18, 2**24)
_PROTOCOLS = ("LL", "LL128", "Simple")
_FORCED = ("all_reduce", "all_gather", "reduce_scatter")
_FORCED_SIZES = tuple(4**i for i in range(5, 15))
_MIXED_SIZES = (2**13, 2**18, 2**23)
_COPIES = (2**24, 2**26, 2**28)
_QUICK_COPIES = (2**24,)
_HOST_BYTES = 2**13
_ITEM = 2  # bytes of a number: half precision

# All ranks must repeat a call equally often, so the count comes from the size, not from a clock.
_GUESSED_START_US, _GUESSED_RATE = 10.0, 200e3  # us, B/us
_GRAPH_US, _MOST_CALLS, _REPLAYS = 2000.0, 100, 15
_HOST_CALLS, _HOST_LOOPS = 200, 7

_ranks: dict[tuple[str, int], Ranks] = {}


def points(device: Row, quick: bool) -> list[Row]:
    """Return each operation at each size, the host's share of a call, and copies."""
    sizes = _QUICK_SIZES if quick else _SIZES
    rows = [{"op": op, "bytes": size} for op in OPERATIONS for size in sizes]
    rows += [{"op": "host", "bytes": _HOST_BYTES}]
    if not quick:
        rows += [{"op": op, "bytes": size, "protocol": protocol} for protocol in _PROTOCOLS
                 for op in _FORCED for size in _FORCED_SIZES]  # fmt: skip
        rows += [{"op": "all_reduce", "bytes": size, "mixing": 1} for size in _MIXED_SIZES]
    rows += [{"op": "copy", "bytes": size, "ways": ways}
             for size in (_QUICK_COPIES if quick else _COPIES) for ways in (1, 2)]  # fmt: skip
    return [{"axis": "collectives", **row} for row in rows]


def measure(torch: Any, point: Row) -> Row:
    """Return ``us``, ``gpus``, ``how``, and for copies ``gbps`` one way (10^9 B/s)."""
    if point["op"] == "copy":
        return _copy(torch, point)
    answers = _group(torch, point.get("protocol", ""), point.get("mixing", 0)).ask(point)
    figures = {"gpus": len(answers), "us": slowest(answers, "us"), "how": answers[0]["how"]}
    return {**figures, "library": answers[0]["library"]}


def _group(torch: Any, protocol: str, mixing: int) -> Ranks:
    """Return ranks with some settings; they stay until others are asked for, or one failed."""
    wanted = (protocol, mixing)
    if wanted in _ranks and not _ranks[wanted].closed:
        return _ranks[wanted]
    for ranks in _ranks.values():
        ranks.close()
    _ranks.clear()
    settings = {"NCCL_GRAPH_MIXING_SUPPORT": str(mixing)}
    if protocol:
        settings["NCCL_PROTO"] = protocol
    _ranks[wanted] = Ranks(torch, work, settings)
    return _ranks[wanted]


def work(torch: Any, rank: Rank, point: Row) -> Row:
    """Measure a point on one rank: all of them run this at once."""
    call = _call(torch, rank, point["op"], int(point["bytes"]))
    library = ".".join(str(part) for part in torch.cuda.nccl.version())
    with torch.no_grad():
        for _ in range(3):
            call()
        torch.cuda.synchronize()
        if point["op"] == "host":
            return {"us": _host_us(torch, call), "how": "loop", "library": library}
        us, how = _device_us(torch, call, _calls(int(point["bytes"])))
    torch.cuda.synchronize()
    return {"us": us, "how": how, "library": library}


def _calls(size: int) -> int:
    """Return how many calls of a size are timed together.

    Examples
    --------
    >>> _calls(512), _calls(2**24), _calls(2**29)
    (100, 21, 2)
    """
    guess = _GUESSED_START_US + size / _GUESSED_RATE
    return int(max(2, min(_GRAPH_US // guess, _MOST_CALLS)))


def _device_us(torch: Any, call: Call, count: int) -> tuple[float, str]:
    """Return the median time of a call [us], and how it was taken."""

    def run() -> None:
        for _ in range(count):
            call()

    replay, how = run, "events"
    with suppress(RuntimeError):
        replay, how = capture_graph(torch, run).replay, "graph"
    torch.distributed.barrier()
    times = replay_ms(torch, replay, _REPLAYS)
    return 1e3 * median(times) / count, how


def _host_us(torch: Any, call: Call) -> float:
    """Return what the host takes for a call in a loop that does not wait [us]."""
    loops = []
    for _ in range(_HOST_LOOPS):
        torch.distributed.barrier()
        torch.cuda.synchronize()
        start = time.perf_counter()
        for _ in range(_HOST_CALLS):
            call()
        loops.append(time.perf_counter() - start)
        torch.cuda.synchronize()
    return 1e6 * median(loops) / _HOST_CALLS


def _call(torch: Any, rank: Rank, op: str, size: int) -> Call:
    """Return one operation on a message of `size` bytes."""
    group = torch.distributed
    whole, part = size // _ITEM, max(size // _ITEM // rank.count, 1)

    def buffer(numbers: int) -> Any:
        return torch.ones(numbers, device="cuda", dtype=torch.float16)

    if op in ("all_reduce", "host"):
        return partial(group.all_reduce, buffer(whole))
    if op == "all_gather":
        return partial(group.all_gather_into_tensor, buffer(part * rank.count), buffer(part))
    if op == "reduce_scatter":
        return partial(group.reduce_scatter_tensor, buffer(part), buffer(part * rank.count))
    if op == "all_to_all":
        even = part * rank.count
        return partial(group.all_to_all_single, buffer(even), buffer(even))
    if op == "broadcast":
        return partial(group.broadcast, buffer(whole), 0)
    ways: dict[int, Callable[..., object]] = {0: group.send, 1: group.recv}
    if rank.index not in ways:
        return lambda: None
    return partial(ways[rank.index], buffer(whole), 1 - rank.index)


def _copy(torch: Any, point: Row) -> Row:
    """Time copies from the first GPU to the second, or both ways at once."""
    if torch.cuda.device_count() < 2:
        raise Unavailable("it needs two GPUs or more")
    size, ways = int(point["bytes"]), int(point["ways"])
    here = [torch.empty(size, dtype=torch.uint8, device=f"cuda:{i}") for i in range(2)]
    there = [torch.empty(size, dtype=torch.uint8, device=f"cuda:{1 - i}") for i in range(2)]
    streams = [torch.cuda.Stream(device=f"cuda:{i}") for i in range(2)]
    count = _calls(size)

    def loop() -> float:
        for i in range(2):
            torch.cuda.synchronize(i)
        start = time.perf_counter()
        for _ in range(count):
            for i in range(ways):
                with torch.cuda.stream(streams[i]):
                    there[i].copy_(here[i], non_blocking=True)
        for i in range(2):
            torch.cuda.synchronize(i)
        return time.perf_counter() - start

    loop()
    us = 1e6 * median(loop() for _ in range(_REPLAYS)) / count
    return {"gpus": 2, "us": us, "gbps": size / us / 1e3}
