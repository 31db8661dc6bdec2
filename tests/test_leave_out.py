"""Workloads without some of their operations."""

import numpy as np
import pytest

import npusim as ns
from npusim.errors import InputError
from npusim.leave_out import leave_out
from npusim.transforms import only_steps
from npusim.workload import Steps, Workload
from tests.builder import timed, workload

FREE = ("launch.eager.latency", "launch.eager.copy_latency", "launch.eager.interval", "host.sync")


def eager():
    """Return a machine on which nothing but the host's own work delays a launch."""
    arch = ns.load_arch("h200")
    for path in FREE:
        arch = ns.with_value(arch, path, 0.0)
    return arch


def rows(w, *left):
    marks = np.zeros(len(w), dtype=bool)
    marks[list(left)] = True
    return marks


def test_host_work_device_time_and_wait_go_with_an_operation():
    # host 10 + 20 + 30 us; the second is waited for: 10 + 20 + 500 + 30 + 7
    w = workload(timed(5e-6, host_s=1e-5), timed(5e-4, host_s=2e-5, sync=True),
                 timed(7e-6, host_s=3e-5))  # fmt: skip
    before = ns.replay(w, eager())
    after = ns.replay(leave_out(w, rows(w, 1), "test"), eager())
    assert before.wall_s == pytest.approx(567e-6)
    assert after.wall_s == pytest.approx(47e-6)
    assert before.device_busy_s - after.device_busy_s == pytest.approx(5e-4)
    assert before.host_busy_s - after.host_busy_s == pytest.approx(2e-5)


def test_dependencies_are_handed_on():
    # 0 <- 1 <- 2 and 0 <- 2 <- 3, on three streams
    streams = [timed(1e-6, stream=n) for n in (0, 1, 2, 0)]
    edges = (np.array([0, 0, 1, 3, 4]), np.array([0, 0, 1, 2]))
    w = workload(*streams, edges=edges)
    indptr, indices = leave_out(w, rows(w, 1, 2), "test").edges
    assert (indptr.tolist(), indices.tolist()) == ([0, 0, 1], [0])


def test_it_is_told_and_counted():
    w = workload(*[timed(1e-6, host_s=1e-6) for _ in range(4)])
    counted = Workload(w.name, w.columns, w.labels, w.steps, w.edges, w.meta,
                       {"dram_read": np.arange(4.0)})  # fmt: skip
    once = leave_out(counted, rows(counted, 0), "first")
    twice = leave_out(once, rows(once, 1), "second")
    assert twice.meta["left_out"] == 2
    assert ["first" in n or "second" in n for n in twice.meta["notes"]] == [True, True]
    assert twice.counters["dram_read"].tolist() == [1.0, 3.0]
    assert twice.steps is w.steps
    assert leave_out(w, rows(w), "nothing") is w


@pytest.mark.parametrize(
    ("marks", "problem"),
    [(np.zeros(3, dtype=bool), "not one mark"), (np.zeros(2), "not one mark"),
     (np.ones(2, dtype=bool), "nothing left")],
)  # fmt: skip
def test_what_cannot_be_left_out_is_refused(marks, problem):
    w = workload(timed(1e-6), timed(1e-6))
    with pytest.raises(InputError, match=problem):
        leave_out(w, marks, "test")


def three_steps():
    # each waits for the one before it, across steps and streams
    rows = [timed(n * 1e-6, step=n // 2, stream=n % 2) for n in range(6)]
    w = workload(*rows, edges=(np.array([0, 0, 1, 2, 3, 4, 5]), np.arange(5)), wall=(1.0,) * 3)
    steps = Steps(np.array([1.0, 2.0, 3.0]), np.array([0.1, 0.2, 0.3]), np.array([0.0, 4.0, 8.0]))
    return Workload(w.name, w.columns, w.labels, steps, w.edges, w.meta,
                    {"dram_read": np.arange(6.0)})  # fmt: skip


def test_only_some_steps():
    w = three_steps()
    late = only_steps(w, [1, 2])
    assert late["step"].tolist() == [0, 0, 1, 1]
    assert late["duration_s"] == pytest.approx([2e-6, 3e-6, 4e-6, 5e-6])
    assert [e.tolist() for e in late.edges] == [[0, 0, 1, 2, 3], [0, 1, 2]]
    assert late.counters["dram_read"].tolist() == [2.0, 3.0, 4.0, 5.0]
    assert [x.tolist() for x in (late.steps.wall_s, late.steps.tail_s, late.steps.start_s)] == [
        [2.0, 3.0], [0.2, 0.3], [0.0, 4.0]]  # fmt: skip
    assert late.meta["steps_of_trace"] == [1, 2]
    assert only_steps(late, [1]).meta["steps_of_trace"] == [2]
    assert only_steps(w, range(3)) is w


@pytest.mark.parametrize("steps", [[], [3], [-1], [2, 1], [1, 1], [0.5]])
def test_steps_that_are_none_are_refused(steps):
    with pytest.raises(InputError, match="not steps with operations, in order"):
        only_steps(three_steps(), steps)
