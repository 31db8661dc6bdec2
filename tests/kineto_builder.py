"""Small Kineto traces, built the way the profiler would have written them."""

import gzip
import json
from contextlib import contextmanager

BF16, FP32, INT64 = "c10::BFloat16", "float", "long int"


def tensor(*dims, dtype=BF16, strides=None):
    """One tensor input; row-major unless strides are given."""
    if strides is None:
        strides, step = [], 1
        for n in reversed(dims):
            strides.insert(0, step)
            step *= n
    return {"dims": list(dims), "type": dtype, "strides": list(strides)}


class Trace:
    """A host thread and one stream, in microseconds; kernels run as soon as they can."""

    def __init__(self, device="NVIDIA H200"):
        self.events = []
        self.now = 1000.0
        self.free = 0.0
        self.correlation = 0
        self.about = {"schemaVersion": 1, "deviceProperties": [{"id": 0, "name": device}]}

    def add(self, cat, name, ts, dur, args=None, **more):
        event = {"ph": "X", "cat": cat, "name": name, "pid": 1, "tid": 1, "ts": ts, "dur": dur,
                 "args": args or {}}  # fmt: skip
        self.events.append(event | more)
        return self.events[-1]

    @contextmanager
    def _span(self, cat, name, args=None):
        start, at = self.now, len(self.events)
        self.now += 1
        yield
        self.now += 1
        self.add(cat, name, start, self.now - start, args)
        self.events.insert(at, self.events.pop())

    def step(self, number=0, name="step#{}"):
        return self._span("user_annotation", name.format(number))

    def op(self, name, *inputs):
        """An operator: a tensor, a list of tensors, or the text of a scalar each."""
        dims, types, strides, values = [], [], [], []
        for item in inputs:
            many = isinstance(item, list)
            one = isinstance(item, dict)
            dims.append([t["dims"] for t in item] if many else item["dims"] if one else [])
            strides.append([t["strides"] for t in item] if many else item["strides"] if one else [])
            types.append("TensorList" if many else item["type"] if one else "Scalar")
            values.append("" if many or one else item)
        shapes = {"Input Dims": dims, "Input type": types, "Input Strides": strides}
        return self._span("cpu_op", name, {**shapes, "Concrete Inputs": values})

    def call(self, name="cudaLaunchKernel", dur=2.0, cat="cuda_runtime"):
        """A runtime call; returns its correlation."""
        self.correlation += 1
        event = self.add(cat, name, self.now, dur, {"correlation": self.correlation})
        self.now += dur
        return event

    def run(self, launch, name="kernel", dur=3.0, cat="kernel", **args):
        """A device event of a runtime call."""
        start = max(self.free, launch["ts"] + 5)
        self.free = start + dur
        found = {"correlation": launch["args"]["correlation"], "stream": 7}
        if cat == "kernel":
            found |= {"grid": [8, 1, 1], "block": [128, 1, 1], "registers per thread": 32,
                      "shared memory": 1024}  # fmt: skip
        return self.add(cat, name, start, dur, found | args, pid=0, tid=7)

    def kernel(self, name="my_kernel", dur=3.0, **args):
        """A launch call and its kernel."""
        return self.run(self.call(), name, dur, **args)

    def copy(self, name="Memcpy DtoD (Device -> Device)", nbytes=48, dur=1.0, cat="gpu_memcpy"):
        return self.run(self.call("cudaMemcpyAsync"), name, dur, cat, bytes=nbytes)

    def text(self):
        return json.dumps({**self.about, "traceEvents": self.events})

    def write(self, folder, name="trace.json"):
        file = folder / name
        raw = self.text().encode()
        file.write_bytes(gzip.compress(raw) if name.endswith(".gz") else raw)
        return file
