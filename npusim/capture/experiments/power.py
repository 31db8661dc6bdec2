"""Power of a board while one thing at a time costs energy: clocks, units, lanes, caches, products.

Each row is some seconds of one work, from the board's energy counter, with the clock of the units
and the temperature. A work repeats a burst and rests between bursts so that it is at work for a
share ``duty`` of the time: below the power limit the clock stays up, and what a product takes at
several clocks says how the voltage goes with the clock. Kernels of our own keep to one thing
(instructions alone, special functions, shared memory, one level of cache).
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from npusim.capture.gpu import Row, Unavailable
from npusim.capture.nvml import SETTLE, Board, idle, open_board
from npusim.capture.timing import Call, capture_graph, replay_ms, wake

AXES = ("power",)

_SECONDS, _QUICK_SECONDS = 2.0, 0.5
_THREADS, _UNROLLED = 512, 16
_MIB = 2**20
_SPIN_CYCLES = 4_000_000
_DUTIES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.85, 1.0)
_BURST_US = 1500.0
# Our own kernels on one unit alone: what an instruction of a thread does, and how much of it.
_OWN = {"multiply_add": ("flops", 2), "exponential": ("functions", 1), "load_shared": ("bytes", 16)}

_SOURCE = r"""
extern "C" __global__ void spin(float* out, int cycles, int unused) {
    long long start = clock64();
    while (clock64() - start < cycles) {}
    if (out[0] == 12345.0f) out[1] = 1.0f;
}
extern "C" __global__ void multiply_add(float* out, int rounds, int unused) {
    float x[16], a = out[0] + 1.0009765625f, b = out[1] - 0.0009765625f;
    for (int i = 0; i < 16; i++) x[i] = out[i] + threadIdx.x * 0.001f + i;
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int i = 0; i < 16; i++) x[i] = fmaf(x[i], a, b);
    }
    float sum = 0.0f;
    for (int i = 0; i < 16; i++) sum += x[i];
    if (sum == 12345.0f) out[2] = sum;
}
extern "C" __global__ void exponential(float* out, int rounds, int unused) {
    float x[16], sum[16];
    for (int i = 0; i < 16; i++) x[i] = out[i] + threadIdx.x * 0.001f, sum[i] = 0.0f;
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int i = 0; i < 16; i++) {
            float y;
            asm volatile("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x[i] - r * 0.001f));
            sum[i] += y;
        }
    }
    for (int i = 1; i < 16; i++) sum[0] += sum[i];
    if (sum[0] == 12345.0f) out[2] = sum[0];
}
extern "C" __global__ void load_shared(float* out, int rounds, int unused) {
    __shared__ float4 kept[2048];
    for (int i = threadIdx.x; i < 2048; i += blockDim.x)
        kept[i] = make_float4(out[i], out[i + 1], i * 0.37f, i * 1.7f);
    __syncthreads();
    float sum = 0.0f;
    unsigned base = (unsigned)__cvta_generic_to_shared(kept);
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int i = 0; i < 16; i++) {
            float a, b, c, d;
            unsigned at = base + 16u * ((threadIdx.x + 128u * i + r) & 2047u);
            asm volatile("ld.shared.v4.f32 {%0,%1,%2,%3}, [%4];"
                         : "=f"(a), "=f"(b), "=f"(c), "=f"(d) : "r"(at));
            sum += a;
        }
    }
    if (sum == 12345.0f) out[2] = sum;
}
extern "C" __global__ void load_cache(const float* out, int rounds, int vectors) {
    float sum = 0.0f;
    unsigned step = gridDim.x * blockDim.x % vectors;
    unsigned at = (blockIdx.x * blockDim.x + threadIdx.x) % vectors;
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int i = 0; i < 16; i++) {
            float a, b, c, d;
            asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(a), "=f"(b), "=f"(c),
                         "=f"(d) : "l"(out + 4ull * at));
            sum += a + b + c + d;
            at += step;
            if (at >= vectors) at -= vectors;
        }
    }
    if (sum == 12345.0f) ((float*)out)[2] = sum;
}
extern "C" __global__ void load_l1(const float* out, int rounds, int vectors) {
    float sum = 0.0f;
    for (int r = 0; r < rounds; r++) {
        #pragma unroll
        for (int i = 0; i < 16; i++) {
            float a, b, c, d;
            unsigned at = blockIdx.x * vectors + (threadIdx.x + 128u * i + 32u * r) % vectors;
            asm volatile("ld.global.ca.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(a), "=f"(b), "=f"(c),
                         "=f"(d) : "l"(out + 4ull * at));
            sum += a;
        }
    }
    if (sum == 12345.0f) ((float*)out)[2] = sum;
}
"""


@dataclass(frozen=True)
class _Work:
    """A burst, and what one of it does."""

    run: Call
    does: Row


def points(device: Row, quick: bool) -> list[Row]:
    """Return the works; the seconds planned become those they took."""
    units = int(device["sms"])
    rows: list[Row] = [{"what": "idle", "after_s": t} for t in (0.0, 5.0, 10.0)]
    few = max(units // 4, 1)
    rows += [{"what": "spin", "blocks": b, "threads": t} for b, t in dict.fromkeys(
        ((1, 32), (few, 32), (units, 32), (units, _THREADS)))]  # fmt: skip
    rows += [{"what": w, "blocks": 4 * units} for w in (*_OWN, "load_l1")]
    rows += [{"what": "multiply_add", "blocks": few}]
    rows += [{"what": "load_cache", "blocks": 4 * units, "mib": mib} for mib in (2, 8, 24, 512)]
    rows += [{"what": "stream", "mib": mib, "duty": d} for mib, d in
             ((8, 1.0), (512, 0.25), (512, 0.5), (512, 1.0))]  # fmt: skip
    rows += [{"what": "gemm", "dtype": "bf16", "data": "randn", "duty": d} for d in _DUTIES]
    rows += [{"what": "gemm", "dtype": t, "data": d, "duty": 0.15} for t, d in
             (("bf16", "zeros"), ("fp16", "randn"), ("tf32", "randn"), ("fp32", "randn"),
              ("fp8", "randn"), ("int8", "randn"))]  # fmt: skip
    rows += [{"what": "gemm", "dtype": t, "data": "randn", "duty": 1.0}
             for t in ("fp32", "fp8")]  # fmt: skip
    rows += [{"what": "tiny", "every_us": every} for every in (0.0, 10.0, 50.0, 500.0)]
    rows += [{"what": "idle", "after_s": 1.0}]
    seconds = _QUICK_SECONDS if quick else _SECONDS
    chosen = rows[:: 4 if quick else 1]
    return [{"axis": "power", **row, "seconds": seconds} for row in chosen]


def measure(torch: Any, point: Row) -> Row:
    """Return ``watts``, ``sm_mhz``, ``degrees``, ``bursts`` a second and what one burst does."""
    board, seconds = open_board(torch), float(point["seconds"])
    if point["what"] == "idle":
        wake(torch, 1.0)
        time.sleep(point["after_s"])
        spent = idle(board, seconds)
        return _figures(board, spent.joules, spent.seconds, spent.sm_mhz)
    work = _work(torch, point)
    if point["what"] == "tiny":
        return _spaced(torch, board, work, point["every_us"] * 1e-6, seconds)
    burst_ms = sorted(replay_ms(torch, work.run, 7))[3]
    every = burst_ms * 1e-3 / float(point.get("duty", 1.0))
    return {"burst_ms": burst_ms, **_spaced(torch, board, work, every, seconds)}


def _spaced(torch: Any, board: Board, work: _Work, every: float, seconds: float) -> Row:
    """Start a burst every so many seconds, or as soon as the one before is done."""
    start_of = time.perf_counter() + SETTLE
    before = bursts = 0.0
    mhz: list[int] = []
    marks: list[Any] = []
    begun = None
    while True:
        now = time.perf_counter()
        if begun is None and now >= start_of:
            before, begun, bursts, marks = board.joules(), time.perf_counter(), 0.0, []
        if begun is not None and now - begun >= seconds:
            break
        first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        first.record()
        work.run()
        last.record()
        if begun is not None and len(mhz) < 20 and int(bursts) % 16 == 8:
            mhz += [clock for clock in [board.sm_mhz()] if clock is not None]
        last.synchronize()
        marks.append((first, last))
        marks = marks[-64:]
        bursts += 1
        while time.perf_counter() - now < every:
            pass
    took = time.perf_counter() - begun
    row = _figures(
        board, board.joules() - before, took, sorted(mhz)[len(mhz) // 2] if mhz else None
    )
    bursting = sorted(a.elapsed_time(b) for a, b in marks)
    return {**row, "bursts": bursts / took, "in_burst_ms": bursting[len(bursting) // 2],
            **work.does}  # fmt: skip


def _figures(board: Board, joules: float, took: float, mhz: int | None) -> Row:
    return {"seconds": took, "watts": joules / took, "sm_mhz": mhz,
            "degrees": board.state()["temperature_c"]}  # fmt: skip


def _work(torch: Any, point: Row) -> _Work:
    what = point["what"]
    if what == "tiny":
        x = torch.ones(1, device="cuda")
        return _Work(lambda: x.add_(1), {"launches": 1})
    if what == "gemm":
        return _products(torch, point["dtype"], point["data"])
    if what == "stream":
        return _stream(torch, point["mib"] * _MIB)
    return _own(torch, point)


def _in_graph(torch: Any, call: Call, does: Row) -> _Work:
    """Repeat a call inside a graph for about as long as a burst should last."""
    once = sorted(replay_ms(torch, call, 5))[2]
    times = max(1, round(_BURST_US * 1e-3 / once))
    graph = capture_graph(torch, lambda: [call() for _ in range(times)])
    return _Work(graph.replay, {name: times * amount for name, amount in does.items()})


def _stream(torch: Any, size: int) -> _Work:
    a = torch.randn(size // 2, device="cuda", dtype=torch.bfloat16)
    b = torch.empty_like(a)
    return _in_graph(torch, lambda: torch.mul(a, 1.5, out=b), {"bytes": 2 * size})


def _products(torch: Any, dtype: str, data: str) -> _Work:
    n = 8192 if dtype != "fp32" else 4096
    make = torch.zeros if data == "zeros" else torch.randn
    kind = {"fp32": torch.float32, "tf32": torch.float32, "fp16": torch.float16}
    a, b = (make(n, n, device="cuda", dtype=kind.get(dtype, torch.bfloat16)) for _ in range(2))
    does = {"flops": 2 * n**3}
    torch.backends.cuda.matmul.allow_tf32 = dtype == "tf32"
    if dtype == "fp8":
        one = torch.ones((), device="cuda")
        x, w = a.to(torch.float8_e4m3fn), b.to(torch.float8_e4m3fn).t()
        return _in_graph(torch, lambda: torch._scaled_mm(
            x, w, scale_a=one, scale_b=one, out_dtype=torch.bfloat16), does)  # fmt: skip
    if dtype == "int8":
        x, w = ((m * 32).clamp(-127, 127).to(torch.int8) for m in (a, b))
        return _in_graph(torch, lambda: torch._int_mm(x, w.t()), does)
    out = torch.empty_like(a)
    return _in_graph(torch, lambda: torch.mm(a, b, out=out), does)


def _own(torch: Any, point: Row) -> _Work:
    """Return a burst of one of our own kernels."""
    compiler = getattr(torch.cuda, "_compile_kernel", None)
    if compiler is None:
        raise Unavailable("this PyTorch compiles no kernels: torch.cuda._compile_kernel is missing")
    what, blocks, threads = point["what"], point["blocks"], point.get("threads", _THREADS)
    kernel = compiler(_SOURCE, what)
    vectors = {"load_cache": point.get("mib", 1) * _MIB // 16, "load_l1": 2048}.get(what, 0)
    size = {"load_cache": 4 * vectors, "load_l1": 4 * vectors * blocks}.get(what, 0)
    memory = torch.randn(max(size, 65536), device="cuda")
    if what == "spin":
        rounds, does = _SPIN_CYCLES, {"unit_cycles": _SPIN_CYCLES * blocks}
    else:
        rounds = {"load_cache": 64, "exponential": 1024}.get(what, 2048)
        name, times = _OWN.get(what, ("bytes", 16))
        does = {name: times * blocks * threads * rounds * _UNROLLED}

    def run() -> None:
        kernel((blocks, 1, 1), (threads, 1, 1), (memory, rounds, vectors))

    return _Work(run, does)
