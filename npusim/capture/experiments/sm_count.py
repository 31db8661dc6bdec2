"""A stream, a large matrix product and a GEMV on part of the compute units, by green contexts.

Launches are eager: a stream of a green context, made by the driver, is handed to PyTorch. The
driver rounds a number of units up to what it can set apart; rows hold the number it gave.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from statistics import median
from typing import Any

from npusim.capture.gpu import Row, Unavailable, first_line
from npusim.capture.timing import Call

AXES = ("sm_count",)

_UNITS = (8, 16, 24, 32, 40, 48, 64, 80, 96, 112, 128)
_QUICK_UNITS = (8, 32)
_OPS = ("gemv_6848x1280", "stream_1GiB", "gemm_4096x8192x8192")
_STREAM_BYTES = 2**30  # half read, half written
_GEMM = (4096, 8192, 8192)
_GEMV, _GEMV_WEIGHTS = (6848, 1280), 24
_LOOPS, _LOOP_MS, _MOST_CALLS = 9, 5.0, 50


def points(device: Row, quick: bool) -> list[Row]:
    """Return parts of the device, and the whole of it."""
    parts = [u for u in (_QUICK_UNITS if quick else _UNITS) if u < device["sms"]]
    return [{"axis": "sm_count", "sms": sms, "op": op}
            for sms in (*parts, device["sms"]) for op in _OPS]  # fmt: skip


def measure(torch: Any, point: Row) -> Row:
    """Return ``us``, ``gbps`` of the stream or ``tflops`` of the product, and ``sms`` as given."""
    calls, work = _work(torch, point["op"])
    torch.cuda.synchronize()
    with _part(torch, point["sms"]) as (stream, given), torch.cuda.stream(stream):
        us = _loop_us(torch, calls)
    rates = {name: amount / us for name, amount in work.items()}
    return {"sms": given, "us": us, **rates}


def _work(torch: Any, op: str) -> tuple[list[Call], Row]:
    """Return an operation on each of its operand sets, and its work per microsecond as a rate."""

    def random(*shape: int) -> Any:
        return torch.randn(shape, device="cuda", dtype=torch.bfloat16)

    if op == "stream_1GiB":
        a = random(_STREAM_BYTES // 4)
        b = torch.empty_like(a)
        return [lambda: torch.mul(a, 1.5, out=b)], {"gbps": _STREAM_BYTES / 1e3}
    m, n, k = _GEMM if op.startswith("gemm") else (1, *_GEMV)
    weights = [random(n, k).t() for _ in range(1 if op.startswith("gemm") else _GEMV_WEIGHTS)]
    x, out = random(m, k), random(m, n)
    calls: list[Call] = [partial(torch.mm, x, w, out=out) for w in weights]
    return calls, {"tflops": 2 * m * n * k / 1e6} if op.startswith("gemm") else {}


def _loop_us(torch: Any, calls: list[Call]) -> float:
    """Return the median time of one eager call in a loop, by events around the loop [us]."""
    count = len(calls)

    def loop_ms(times: int) -> float:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for i in range(times):
            calls[i % count]()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))

    loop_ms(count)
    once = loop_ms(count) / count
    times = max(count, min(_MOST_CALLS, round(_LOOP_MS / once)))
    times -= times % count
    return 1e3 * median(loop_ms(times) for _ in range(_LOOPS)) / times


@contextmanager
def _part(torch: Any, units: int) -> Iterator[tuple[Any, int]]:
    """Give a stream that runs on part of the device, and how many units the driver gave it."""
    device = torch.cuda.current_device()
    if units == torch.cuda.get_device_properties(device).multi_processor_count:
        yield None, units
        return
    driver = _driver(torch)
    ordinal = _ask(driver.cuDeviceGet(device))
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    try:
        everything = _ask(driver.cuDeviceGetDevResource(ordinal, kind))
    except RuntimeError as error:
        raise Unavailable(f"no green contexts on this device: {first_line(error)}") from None
    groups, count, _rest = _ask(driver.cuDevSmResourceSplitByCount(1, everything, 0, units))
    if count != 1:
        raise RuntimeError(f"the driver gives no part of {units} units")
    described = _ask(driver.cuDevResourceGenerateDesc(groups, 1))
    flag = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
    context = _ask(driver.cuGreenCtxCreate(described, ordinal, flag))
    try:
        apart = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = _ask(driver.cuGreenCtxStreamCreate(context, apart, 0))
        yield torch.cuda.ExternalStream(int(stream)), groups[0].sm.smCount
        torch.cuda.synchronize()
        _ask(driver.cuStreamDestroy(stream))
    finally:
        driver.cuGreenCtxDestroy(context)


def _driver(torch: Any) -> Any:
    """Return the CUDA driver's bindings, if they know green contexts.

    Raises
    ------
    Unavailable
        An AMD GPU, no bindings, or too old ones.
    """
    if torch.version.hip is not None:
        raise Unavailable("green contexts are CUDA's: AMD GPUs have none")
    try:
        driver = import_module("cuda.bindings.driver")
    except ImportError:
        raise Unavailable("green contexts need: pip install cuda-bindings") from None
    if not hasattr(driver, "cuGreenCtxStreamCreate"):
        raise Unavailable("green contexts need cuda-bindings 12.6 or later")
    return driver


def _ask(answer: tuple[Any, ...]) -> Any:
    """Return what a driver call returned beside its status."""
    status, *values = answer
    if int(status) != 0:
        raise RuntimeError(f"the CUDA driver answers {getattr(status, 'name', status)}")
    return values[0] if len(values) == 1 else tuple(values)
