"""Experiments on the host, on a pretended PyTorch whose costs are known."""

import time
from types import SimpleNamespace

import pytest

from npusim.capture.experiments import first_use, graph_size, profiler, queue_depth
from npusim.capture.gpu import Unavailable
from tests.fake_torch import FakeTorch

LONG = 0.03  # blocked [s]


class Tensor:
    """A tensor whose `add_` launches one kernel, or blocks at the call of that number."""

    def __init__(self, torch, blocks_at=None):
        self.torch, self.blocks_at, self.calls = torch, blocks_at, 0

    def add_(self, _):
        self.torch.launch()
        if self.calls == self.blocks_at:
            time.sleep(LONG)
        self.calls += 1


@pytest.fixture
def torch():
    return FakeTorch()


@pytest.mark.parametrize("stream", ["same", "other"])
def test_the_launch_that_blocks_is_counted(torch, stream):
    x = Tensor(torch, blocks_at=1 + 37)  # one goes before
    torch.ones = lambda *_, **__: x
    slept = []
    torch.cuda._sleep = slept.append
    torch.cuda.Event = lambda: SimpleNamespace(record=lambda: None)
    found = queue_depth.measure(torch, {"axis": "queue_depth", "stream": stream})
    assert found["launches"] == 37
    assert found["blocked_ms"] >= 1e3 * LONG
    assert len(slept) == (1 if stream == "same" else 2)


def test_a_queue_that_never_blocks_is_said(torch):
    torch.ones = lambda *_, **__: Tensor(torch)
    torch.cuda._sleep = lambda _: None
    assert queue_depth.measure(torch, {"stream": "same"})["launches"] == -1


def test_a_pytorch_that_cannot_sleep_is_said(torch):
    with pytest.raises(Unavailable, match="_sleep"):
        queue_depth.measure(torch, {"stream": "same"})


def test_a_graph_of_some_size_by_its_clock(torch):
    torch.kernel_ms = 0.002
    torch.ones = lambda *_, **__: Tensor(torch)
    found = graph_size.measure(torch, {"axis": "graph_size", "nodes": 64})
    assert found["events_us"] == pytest.approx(128)  # of the device's clock, which has no launches
    assert 0 < found["host_us"] <= found["wall_us"]
    assert torch.graphs[-1].kernels == 64


@pytest.mark.parametrize(("way", "home"), [("loaded", "torch"), ("compiled", "special")])
def test_the_first_call_is_told_from_the_next(torch, way, home):
    calls = []

    def call(x):
        time.sleep(0.01 if not calls else 0.001)
        calls.append(x)

    name = next(p["call"] for p in first_use.points({}, quick=True) if p["way"] == way)
    torch.special = SimpleNamespace()
    setattr(torch if home == "torch" else torch.special, name, call)
    torch.full = lambda *_, **__: "x"
    found = first_use.measure(torch, {"axis": "first_use", "way": way, "call": name})
    assert found["first_us"] >= 10e3 > found["again_us"] >= 1e3


def test_what_a_call_records_is_counted_per_call(torch, monkeypatch):
    def call():
        if torch.recording is not None:
            time.sleep(2e-3)
            for _ in range(2):
                with torch.recording.op("aten::view"):
                    pass

    monkeypatch.setattr(profiler, "_CALLS", 2)
    monkeypatch.setattr(profiler, "_call", lambda *_: call)
    found = profiler.measure(torch, {"axis": "profiler", "call": "view", "shapes": True})
    assert found["operators"] == 2
    assert (found["runtime_calls"], found["device_operations"]) == (0, 0)
    assert found["profiled_us"] > found["us"] + 1.5e3
    assert torch.profiler.settings[-1]["record_shapes"] is True
