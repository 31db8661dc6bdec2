"""Joules from the board's counter over some seconds of graph replays, and the work done then."""

from __future__ import annotations

from typing import Any

from npusim.capture.gpu import Row
from npusim.capture.nvml import Spent, idle, open_board, spend
from npusim.capture.timing import Call, capture_graph, wake

AXES = ("energy",)

_SECONDS, _QUICK_SECONDS = 4.0, 1.0
_GIB = 2**30
_WORKS = ("dram_stream_rw", "l2_stream_rw", "gemm_bf16", "gemm_fp32", "gemv_dram", "tiny_kernels")
_L2_STREAM = 8 * 2**20  # or a quarter of a small L2, so that both buffers stay in it
_STREAMS, _L2_STREAMS, _GEMMS, _LAUNCHES = 20, 500, 5, 2000
_GEMM = 8192
_GEMV, _GEMV_WEIGHTS = (6848, 1280), 48  # 841 MB: several times any cache


def points(device: Row, quick: bool) -> list[Row]:
    """Return the floor and every work; the seconds planned become those it took."""
    seconds = _QUICK_SECONDS if quick else _SECONDS
    return [{"axis": "energy", "what": w, "seconds": seconds} for w in ("idle", *_WORKS)]


def measure(torch: Any, point: Row) -> Row:
    """Return ``joules``, ``seconds``, ``watts``, ``iters``, the work done, and ``sm_mhz``."""
    board, what, seconds = open_board(torch), point["what"], point["seconds"]
    if what == "idle":  # the floor with clocks up
        wake(torch, 1.0)
        return _figures(idle(board, seconds), {})
    run, work = _work(torch, what)
    graph = capture_graph(torch, run)
    spent = spend(torch, board, graph.replay, seconds)
    done = {name: spent.calls * amount for name, amount in work.items()}
    return {**_figures(spent, {"iters": spent.calls, **done}), "sm_mhz": spent.sm_mhz}


def _figures(spent: Spent, work: Row) -> Row:
    return {"joules": spent.joules, "seconds": spent.seconds, "watts": spent.watts, **work}


def _work(torch: Any, what: str) -> tuple[Call, Row]:
    """Return a work, and what one run of it moves [B], computes [FLOP] or launches."""
    if what == "dram_stream_rw":
        return _stream(torch, _GIB, _STREAMS), {"dram_bytes": 2 * _GIB * _STREAMS}
    if what == "l2_stream_rw":
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        size = min(_L2_STREAM, (getattr(device, "L2_cache_size", 0) or 4 * _L2_STREAM) // 4)
        return _stream(torch, size, _L2_STREAMS), {"l2_bytes": 2 * size * _L2_STREAMS}
    if what == "gemv_dram":
        return _gemv(torch)
    if what == "tiny_kernels":
        x = torch.ones(1, device="cuda")
        return lambda: [x.add_(1) for _ in range(_LAUNCHES)], {"launches": _LAUNCHES}
    dtype, times = (torch.bfloat16, _GEMMS) if what == "gemm_bf16" else (torch.float32, 1)
    a, b = (torch.randn(_GEMM, _GEMM, device="cuda", dtype=dtype) for _ in range(2))
    out = torch.empty_like(a)
    return lambda: [torch.mm(a, b, out=out) for _ in range(times)], {"flops": 2 * _GEMM**3 * times}


def _stream(torch: Any, size: int, times: int) -> Call:
    """Return `times` passes that read and write `size` bytes each."""
    a = torch.randn(size // 2, device="cuda", dtype=torch.bfloat16)
    b = torch.empty_like(a)
    return lambda: [torch.mul(a, 1.5, out=b) for _ in range(times)]


def _gemv(torch: Any) -> tuple[Call, Row]:
    n, k = _GEMV
    x = torch.randn(1, k, device="cuda", dtype=torch.bfloat16)
    weights = [torch.randn(n, k, device="cuda", dtype=torch.bfloat16)
               for _ in range(_GEMV_WEIGHTS)]  # fmt: skip
    linear = torch.nn.functional.linear
    work = 2 * n * k * _GEMV_WEIGHTS  # two bytes and two FLOP a weight
    return lambda: [linear(x, w) for w in weights], {"dram_bytes": work, "flops": work}
