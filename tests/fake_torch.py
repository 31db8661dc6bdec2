"""Just enough of PyTorch to run a capture without a GPU: a device clock, graphs, a profiler."""

import contextlib
from pathlib import Path
from types import SimpleNamespace

from tests.kineto_builder import Trace

STEP_MS = 2.0


class FakeTorch:
    """Stands in for the module; `launch` launches one kernel that takes `kernel_ms`."""

    __version__ = "2.99.0+fake"
    bfloat16, float16, float32 = "torch.bfloat16", "torch.float16", "torch.float32"

    def __init__(self):
        self.version = SimpleNamespace(cuda="13.0", hip=None)
        self.backends = SimpleNamespace(cudnn=SimpleNamespace(version=lambda: 91000))
        self.cuda, self.profiler = FakeCuda(self), FakeProfiler(self)
        self.seed = None
        self.kernel_ms, self.now_ms = STEP_MS, 0.0
        self.launches = 0
        self.capturing = None
        self.graphs = []
        self.recording = None

    def manual_seed(self, seed):
        self.seed = seed

    def no_grad(self):
        return contextlib.nullcontext()

    def launch(self):
        if self.capturing is not None:
            self.capturing.kernels += 1
            return
        self.run(1)

    def run(self, kernels):
        self.launches += kernels
        self.now_ms += kernels * self.kernel_ms
        if self.recording is not None:
            for _ in range(kernels):
                self.recording.kernel("a_kernel")

    def compile(self, run, dynamic):
        assert dynamic is False
        return run


class FakeCuda:
    available = True

    def __init__(self, torch):
        self.torch = torch
        self.device = SimpleNamespace(name="NVIDIA Test", multi_processor_count=132,
                                      total_memory=2**30, L2_cache_size=60 * 2**20)  # fmt: skip
        self.Stream = self.current_stream = lambda: SimpleNamespace(wait_stream=lambda _: None)
        self.stream = lambda _: contextlib.nullcontext()
        self.synchronize = self.empty_cache = lambda: None

    def is_available(self):
        return self.available

    def current_device(self):
        return 0

    def get_device_properties(self, _):
        return self.device

    def CUDAGraph(self):  # noqa: N802
        graph = SimpleNamespace(kernels=0)
        graph.replay = lambda: self.torch.run(graph.kernels)
        self.torch.graphs.append(graph)
        return graph

    @contextlib.contextmanager
    def graph(self, graph):
        self.torch.capturing = graph
        try:
            yield
        finally:
            self.torch.capturing = None

    def Event(self, enable_timing):  # noqa: N802
        assert enable_timing
        event = SimpleNamespace(at=None)
        event.record = lambda: setattr(event, "at", self.torch.now_ms)
        event.elapsed_time = lambda end: end.at - event.at
        return event


class FakeProfiler:
    ProfilerActivity = SimpleNamespace(CPU="cpu", CUDA="cuda")
    sees_device = True

    def __init__(self, torch):
        self.torch = torch
        self.settings = []

    @contextlib.contextmanager
    def profile(self, **settings):
        self.settings.append(settings)
        self.torch.recording = trace = Trace("NVIDIA Test")
        yield SimpleNamespace(export_chrome_trace=lambda path: self._export(trace, path))
        self.torch.recording = None

    def record_function(self, name):
        return self.torch.recording.step(name=name)

    def _export(self, trace, path):
        if not self.sees_device:
            trace.events = [e for e in trace.events if e["cat"] != "kernel"]
        Path(path).write_text(trace.text())
