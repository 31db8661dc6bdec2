"""Write a Kineto trace of any size, event by event as the profiler lays it out.

    python benchmarks/make_kineto_trace.py 1000000 trace.json

A step is 48 layers of an eager decoder: operators nest four deep with their shapes, every third
launches a kernel, launches and kernels are joined by flow events. 1,000,000 events are 320 MB.
"""

import argparse
import itertools
import json
import sys
from pathlib import Path

HEAD = """{
  "schemaVersion": 1,
  "deviceProperties": [
    {
      "id": 0, "name": "NVIDIA H200", "totalGlobalMem": 150109880320,
      "computeMajor": 9, "computeMinor": 0, "numSms": 132
    }
  ],
  "record_shapes": 1,
  "displayTimeUnit": "ms",
  "baseTimeNanoseconds": 1790857026000000000,
  "traceEvents": [
"""
TAIL = """
  ],
  "traceName": "trace.json"
}
"""
GEMV = (
    "void gemv2T_kernel_val<int, int, __nv_bfloat16, __nv_bfloat16, __nv_bfloat16, float, 128, 16,"
    " 4, 4, false, false, cublasGemvParamsEx<int, cublasGemvTensorStridedBatched<__nv_bfloat16"
    " const>, cublasGemvTensorStridedBatched<__nv_bfloat16 const>,"
    " cublasGemvTensorStridedBatched<__nv_bfloat16>, float> >"
)
POINTWISE = (
    "void at::native::vectorized_elementwise_kernel<4, at::native::{}, std::array<char*, 2ul> >"
)
WIDTHS = (2048, 2048, 512, 512, 6144, 6144, 2048)


class Writer:
    """Counts events, and hands them out as text."""

    def __init__(self):
        self.now, self.device, self.id, self.count = 4368274086.5e3, 0.0, 0, 0

    def _event(self, text):
        self.count += 1
        return text

    def span(self, cat, name, start, stop, args):
        return self._event(
            f'  {{\n    "ph": "X", "cat": "{cat}", "name": "{name}", "pid": 665, "tid": 665,\n'
            f'    "ts": {start:.3f}, "dur": {stop - start:.3f},\n'
            f'    "args": {{\n      "External id": {self.id},{args} "Ev Idx": {self.id}\n'
            "    }\n  }"
        )

    def operator(self, name, inputs, inner):
        """An operator around what `inner` yields; its own event comes first."""
        self.id += 1
        mine, start = self.id, self.now
        self.now += 2.137
        held = list(inner())
        self.now += 1.211
        dims = json.dumps([list(i) for i in inputs])
        strides = json.dumps([[i[-1], 1] if len(i) == 2 else [] for i in inputs])
        types = json.dumps(["c10::BFloat16" if i else "Scalar" for i in inputs])
        values = json.dumps(["" if i else "1" for i in inputs])
        self.id, last = mine, self.id
        own = self.span("cpu_op", name, start, self.now,
                        f'"Record function id": 0, "Concrete Inputs": {values}, "Input type": '
                        f'{types}, "Input Strides": {strides}, "Input Dims": {dims},')  # fmt: skip
        self.id = last
        return [own, *held]

    def launch(self, kernel, grid, block, micros):
        """A launch call, its kernel, and the arrow between them."""
        self.id += 1
        c, start = self.id, self.now
        self.now += 4.512
        self.device = max(self.device, self.now + 1.0)
        begin, self.device = self.device, self.device + micros
        grid, block = f"[{grid}, 1, 1]", f"[{block}, 1, 1]"
        return [
            self.span("cuda_runtime", "cudaLaunchKernel", start, self.now,
                      f'      "cbid": 211, "correlation": {c},'),
            self._event(
                f'  {{\n    "ph": "X", "cat": "kernel", "name": "{kernel}", "pid": 0, "tid": 7,\n'
                f'    "ts": {begin:.3f}, "dur": {micros:.3f},\n    "args": {{\n'
                f'      "External id": {c},      "queued": 0, "device": 0, "context": 1,'
                f'      "stream": 7, "correlation": {c},      "registers per thread": 32,'
                f'      "shared memory": 0,      "blocks per SM": 1.060606,'
                f'      "warps per SM": 4.242424,      "grid": {grid},      "block": {block},'
                f'      "est. achieved occupancy %": 7\n    }}\n  }}'
            ),
            self._event(f'  {{\n    "ph": "s", "id": {c}, "pid": 665, "tid": 665, "ts": '
                        f'{start:.3f},\n    "cat": "ac2g", "name": "ac2g"\n  }}'),
            self._event(f'  {{\n    "ph": "f", "id": {c}, "pid": 0, "tid": 7, "ts": {begin:.3f},'
                        f'\n    "cat": "ac2g", "name": "ac2g", "bp": "e"\n  }}'),
        ]  # fmt: skip

    def linear(self, n, k):
        def strided():
            return self.operator("aten::as_strided", [(n, k), (), (), ()], tuple)

        def transpose():
            return self.operator("aten::transpose", [(n, k), (), ()], strided)

        def product():
            return self.launch(GEMV, n // 16, 128, 2.0 + n * k / 2e6)

        def inner():
            yield from self.operator("aten::t", [(n, k)], transpose)
            yield from self.operator("aten::mm", [(1, k), (k, n)], product)

        return self.operator("aten::linear", [(1, k), (n, k), ()], inner)

    def pointwise(self, name, functor, n):
        kernel = POINTWISE.format(functor)
        return self.operator(
            name, [(1, n), (1, n), ()], lambda: self.launch(kernel, max(n // 512, 1), 128, 1.216)
        )

    def layer(self):
        for n in WIDTHS:
            yield from self.linear(n, 2048)
        for name in ("mul", "add", "silu", "neg"):
            yield from self.pointwise(f"aten::{name}", f"{name}_functor<float>", 2048)

    def step(self, number):
        """Yield the events of one step; its own mark, which knows its length, comes last."""
        start = self.now
        for _ in range(48):
            yield from self.layer()
        self.now = max(self.now, self.device)
        yield self.span("user_annotation", f"step#{number}", start, self.now, "")
        self.now += 50.0


def trace(events):
    """Yield the text of a trace with at least so many events, in whole steps."""
    writer = Writer()
    yield HEAD
    between = ""
    for number in itertools.count():
        for text in writer.step(number):
            yield between + text
            between = ",\n"
        if writer.count >= events:
            break
    yield TAIL


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("events", type=int)
    parser.add_argument("file", type=Path)
    asked = parser.parse_args()
    with asked.file.open("w") as file:
        for text in trace(asked.events):
            file.write(text)
    print(f"{asked.file}: {asked.file.stat().st_size} bytes", file=sys.stderr)


if __name__ == "__main__":
    main()
