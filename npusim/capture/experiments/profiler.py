"""What the profiler adds to the host: the same calls unprofiled, and traced with their shapes.

Calls differ in how many operators and runtime calls they record, which tells what each costs. The
short ones repeat one call from a warm processor cache; `decoder` and `experts` are steps of a
small model, whose code and data are as spread out as those of a large one.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from npusim.capture.gpu import Row

AXES = ("profiler",)

_SHORT = ("view", "empty", "add", "sub_cpu", "linear", "softmax", "cast", "chunk", "item")
_STEPS = ("decoder", "experts")
_FEW = ("view", "add", "decoder")
_LAYERS, _WIDTH, _EXPERTS = 24, 512, 8
_CALLS = 200  # in a loop of a short call
_ROUNDS = 6

Call = Callable[[], object]


def points(device: Row, quick: bool) -> list[Row]:
    """Return the calls, each traced with shapes and without."""
    names = _FEW if quick else (*_SHORT, *_STEPS)
    return [
        {"axis": "profiler", "call": name, "shapes": s} for name in names for s in (True, False)
    ]


def measure(torch: Any, point: Row) -> Row:
    """Return ``us`` and ``profiled_us`` per call, and what a call records of each category.

    Loops with and without the profiler take turns, so that a host that slows down slows both.
    """
    call, repeats = _call(torch, point["call"]), 3 if point["call"] in _STEPS else _CALLS
    kinds = torch.profiler.ProfilerActivity
    plain, traced = [], []
    recorded: Row = {}
    for _ in range(_ROUNDS):
        plain.append(_loop_us(torch, call, repeats))
        with torch.profiler.profile(
            activities=[kinds.CPU, kinds.CUDA], record_shapes=point["shapes"]
        ) as profile:
            call()  # the first call after the start is slow
            traced.append(_loop_us(torch, call, repeats))
        recorded = recorded or _recorded(profile, repeats + 1)
    return {"us": median(plain[1:]), "profiled_us": median(traced[1:]), **recorded}


def _call(torch: Any, name: str) -> Call:
    if name in _STEPS:
        return _decoder(torch, name == "experts")
    x = torch.ones(16, 16, device="cuda", dtype=torch.bfloat16)
    here = torch.ones(16, 16)
    calls: dict[str, Call] = {
        "view": lambda: x.view(256),
        "empty": lambda: torch.empty(16, device="cuda"),
        "add": lambda: x.add_(1),
        "sub_cpu": lambda: here.sub_(1),
        "linear": lambda: torch.nn.functional.linear(x, x),
        "softmax": lambda: torch.softmax(x, -1),
        "cast": lambda: x.to(torch.float32),
        "chunk": lambda: x.chunk(4),
        "item": x[0, 0].item,
    }
    return calls[name]


def _decoder(torch: Any, experts: bool) -> Call:
    """Return a decode step of a small transformer, its feed-forward part of experts if asked."""
    f = torch.nn.functional

    def weight(rows: int, columns: int) -> Any:
        return torch.randn(rows, columns, device="cuda", dtype=torch.bfloat16) * 0.02

    square = [[weight(_WIDTH, _WIDTH) for _ in range(4 + 2 * _EXPERTS)] for _ in range(_LAYERS)]
    scale = torch.ones(_WIDTH, device="cuda", dtype=torch.bfloat16)
    start = torch.randn(1, _WIDTH, device="cuda", dtype=torch.bfloat16)
    past = torch.randn(1, 8, 128, _WIDTH // 8, device="cuda", dtype=torch.bfloat16)

    def norm(x: Any) -> Any:
        wide = x.to(torch.float32)
        return scale * (wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-6)).to(x.dtype)

    def attention(x: Any, w: list[Any]) -> Any:
        q, k, v = (f.linear(x, m).view(1, 1, 8, _WIDTH // 8).transpose(1, 2) for m in w[:3])
        half = q.shape[-1] // 2
        q, k = (t + torch.cat((-t[..., half:], t[..., :half]), -1) for t in (q, k))
        k, v = torch.cat((past, k), 2), torch.cat((past, v), 2)
        mixed = f.scaled_dot_product_attention(q, k, v)
        return f.linear(mixed.transpose(1, 2).reshape(1, _WIDTH), w[3])

    def feed_forward(x: Any, w: list[Any]) -> Any:
        if not experts:
            return f.linear(f.silu(f.linear(x, w[4])) * f.linear(x, w[5]), w[6])
        chosen = torch.topk(f.linear(x, w[4])[:, :_EXPERTS].softmax(-1), 2).indices
        for i in chosen[0].tolist():  # the host waits, as eager routing to experts does
            x = x + f.linear(f.silu(f.linear(x, w[4 + 2 * i])), w[5 + 2 * i])
        return x

    def step() -> Any:
        x = start
        for w in square:
            x = x + attention(norm(x), w)
            x = x + feed_forward(norm(x), w)
        return x

    return step


def _loop_us(torch: Any, call: Call, repeats: int) -> float:
    """Return the host's time of a call, which waits for the device where the call does [us]."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    took = time.perf_counter() - start
    torch.cuda.synchronize()
    return 1e6 * took / repeats


def _recorded(profile: Any, calls: int) -> Row:
    """Return events per call by category."""
    with tempfile.TemporaryDirectory() as made:
        path = Path(made) / "trace.json"
        profile.export_chrome_trace(str(path))
        events = json.loads(path.read_bytes())["traceEvents"]
    counts = Counter(e.get("cat") for e in events if e.get("ph") == "X")
    runtime = counts["cuda_runtime"] + counts["cuda_driver"]
    device = counts["kernel"] + counts["gpu_memcpy"] + counts["gpu_memset"]
    found = {"operators": counts["cpu_op"], "runtime_calls": runtime, "device_operations": device}
    return {name: round(count / calls, 2) for name, count in found.items()}
