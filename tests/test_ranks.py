"""Processes of a capture, one a GPU: threads that pretend to be them, on a pretended PyTorch."""

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from types import SimpleNamespace

import pytest

from npusim.capture import ranks
from npusim.capture.experiments import collectives
from npusim.capture.gpu import Unavailable
from npusim.capture.ranks import Ranks, slowest
from tests.fake_torch import FakeTorch


class Thread(threading.Thread):
    """Stands in for a process: has a pipe end of its own."""

    def __init__(self, target, args, daemon):
        end, *others = args
        own = Connection(os.dup(end.fileno()))
        super().__init__(target=target, args=(own, *others), daemon=daemon)

    def terminate(self):
        raise AssertionError("it should have ended")


class Torch(FakeTorch):
    """Boards whose calls take as long as told."""

    def __init__(self, boards=2):
        super().__init__()
        self.float16 = "torch.float16"
        self.joined, self.failing, self.called = [], None, []
        self.cuda.device_count = lambda: boards
        self.cuda.set_device = lambda _: None
        self.cuda.nccl = SimpleNamespace(version=lambda: (2, 28, 9))
        self.device = lambda kind, index: (kind, index)
        self.ones = lambda numbers, **_: SimpleNamespace(numbers=numbers)
        self.multiprocessing = SimpleNamespace(
            get_context=lambda _: SimpleNamespace(Process=Thread, Pipe=multiprocessing.Pipe)
        )
        calls = ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor",
                 "all_to_all_single", "broadcast", "send", "recv")  # fmt: skip
        self.distributed = SimpleNamespace(
            is_available=lambda: True, init_process_group=self.join, barrier=lambda: None,
            **{name: self.call(name) for name in calls})  # fmt: skip

    def join(self, backend, init_method, rank, world_size, device_id):
        self.joined.append((backend, rank, world_size, device_id))
        if self.failing == "join":
            raise RuntimeError("no such board")

    def call(self, name):
        def run(*buffers):
            self.called.append((name, *(getattr(b, "numbers", b) for b in buffers)))
            if name == self.failing:
                raise ValueError("broken link")
            self.launch()

        return run


@pytest.fixture
def torch(monkeypatch):
    made = Torch()
    monkeypatch.setattr(ranks, "load", lambda *_: made)
    monkeypatch.setattr(ranks, "os", SimpleNamespace(environ={}))
    monkeypatch.setattr(collectives, "_ranks", {})
    return made


def doubled(torch, rank, point):
    if point["n"] == rank.index:
        raise ValueError("of this rank")
    return {"us": 2.0 * point["n"] + rank.index}


def test_all_ranks_answer_in_their_order(torch):
    group = Ranks(torch, doubled, {"NCCL_PROTO": "LL"})
    assert group.ask({"n": 5}) == [{"us": 10.0}, {"us": 11.0}]
    assert slowest(group.ask({"n": 6}), "us") == 13.0
    assert sorted(torch.joined) == [("nccl", i, 2, ("cuda", i)) for i in range(2)]
    assert ranks.os.environ == {"NCCL_PROTO": "LL"}
    group.close()
    assert group.closed


def test_a_rank_that_fails_says_why_and_ends_the_group(torch):
    group = Ranks(torch, doubled, {})
    with pytest.raises(RuntimeError, match="ValueError: of this rank"):
        group.ask({"n": 1})
    assert group.closed


@pytest.mark.parametrize("boards", [0, 1])
def test_one_board_is_not_enough(boards):
    with pytest.raises(Unavailable, match=f"two GPUs or more, this machine has {boards}"):
        Ranks(Torch(boards), doubled, {})


def test_boards_that_cannot_join_are_said(torch):
    torch.failing = "join"
    with pytest.raises(Unavailable, match="did not start: RuntimeError: no such board"):
        Ranks(torch, doubled, {})


def test_a_pytorch_without_groups_is_said(torch):
    torch.distributed.is_available = lambda: False
    with pytest.raises(Unavailable, match=r"no torch\.distributed"):
        Ranks(torch, doubled, {})


SEEN = {
    "all_reduce": [("all_reduce", 512)],
    "all_gather": [("all_gather_into_tensor", 512, 256)],
    "reduce_scatter": [("reduce_scatter_tensor", 256, 512)],
    "all_to_all": [("all_to_all_single", 512, 512)],
    "broadcast": [("broadcast", 512, 0)],
    "send": [("recv", 512, 0), ("send", 512, 1)],
}


@pytest.mark.parametrize("op", collectives.OPERATIONS)
def test_a_message_is_what_the_larger_side_holds(torch, op):
    for index in range(2):
        call = collectives._call(torch, ranks.Rank(index, 2), op, 1024)
        call()
    assert sorted(set(torch.called)) == SEEN[op]
    assert collectives._call(torch, ranks.Rank(2, 3), "send", 1024)() is None


def test_calls_of_a_graph_by_its_clock(torch):
    torch.kernel_ms = 0.007
    point = {"op": "all_reduce", "bytes": 1024}
    found = collectives.work(torch, ranks.Rank(0, 2), point)
    assert found["us"] == pytest.approx(7.0)
    assert (found["how"], found["library"]) == ("graph", "2.28.9")


def test_without_graphs_calls_are_timed_in_a_loop(torch, monkeypatch):
    def no_graph(*_):
        raise RuntimeError("cannot be captured")

    monkeypatch.setattr(collectives, "capture_graph", no_graph)
    torch.kernel_ms = 0.009
    found = collectives.work(torch, ranks.Rank(0, 2), {"op": "all_gather", "bytes": 1024})
    assert found["us"] == pytest.approx(9.0)
    assert found["how"] == "events"


def test_what_the_host_pays_is_not_what_the_board_takes(torch):
    torch.kernel_ms = 1e3
    found = collectives.work(torch, ranks.Rank(0, 2), {"op": "host", "bytes": 8192})
    assert 0 < found["us"] < 1e5
    assert found["how"] == "loop"


def test_settings_are_those_of_a_group_and_groups_stay(torch, monkeypatch):
    made = []

    class Group:
        closed = False

        def __init__(self, _, __, settings):
            made.append(settings)

        def ask(self, point):
            return [{"us": 3.0, "how": "graph", "library": "1"},
                    {"us": 4.0, "how": "graph", "library": "1"}]  # fmt: skip

        def close(self):
            self.closed = True

    monkeypatch.setattr(collectives, "Ranks", Group)
    plain = {"op": "all_reduce", "bytes": 8}
    wanted = {"gpus": 2, "us": 4.0, "how": "graph", "library": "1"}
    assert collectives.measure(torch, plain) == wanted
    collectives.measure(torch, plain)
    collectives.measure(torch, {**plain, "protocol": "LL"})
    collectives.measure(torch, {**plain, "mixing": 1})
    assert made == [{"NCCL_GRAPH_MIXING_SUPPORT": "0"},
                    {"NCCL_GRAPH_MIXING_SUPPORT": "0", "NCCL_PROTO": "LL"},
                    {"NCCL_GRAPH_MIXING_SUPPORT": "1"}]  # fmt: skip


def test_copies_need_two_boards():
    with pytest.raises(Unavailable, match="two GPUs"):
        collectives.measure(Torch(1), {"op": "copy", "bytes": 8, "ways": 1})
