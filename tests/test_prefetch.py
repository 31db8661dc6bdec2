"""Prefetch: timelines by hand, the bounds that hold for all, and what a model calls early."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.durations import Durations, durations
from npusim.lanes import replay
from npusim.models.hierarchy import Traffic
from npusim.models.kernel import kernel_cost
from npusim.models.prefetch import Buffer, depth
from npusim.models.roofline import bandwidth
from tests.builder import timed, workload
from tests.machines import machine, operations

HUGE = 1e14  # B, beyond all weights
BANDWIDTH = 1e9  # B/s: a depth of 1 GB is one second of loads
LAUNCH = {
    "launch.eager.host": 0.0, "launch.eager.latency": 0.0, "launch.eager.copy_latency": 0.0,
    "launch.eager.interval": 0.0, "launch.eager.depth": 1e9, "launch.graph.host": 0.0,
    "launch.graph.node": 0.0, "launch.graph.submit": 0.0, "launch.graph.interval": 0.0,
    "launch.queue.submit": 0.0, "launch.queue.interval": 0.0, "host.speed": 1.0, "host.sync": 0.0,
    "host.threads": 1, "host.record": 0.0,
}  # fmt: skip


def arch(**changes):
    """Return a machine of round numbers whose launches take nothing unless a test says so."""
    plain = {path.replace(".", "__"): value for path, value in LAUNCH.items()}
    return machine(**{"memories__dram__bandwidth": BANDWIDTH, **plain, **changes})


def given_times(*each, designs=1):
    """Return durations of operations ``(time, channel, ahead, gain)`` [s]."""
    parts = np.array([*each, (1.0, 0.0, 0.0, 0.0)], dtype=float).T[:, :, None]
    parts = np.broadcast_to(parts, (4, len(each) + 1, designs))
    return Durations(parts[0].copy(), np.arange(len(each)), np.ones(len(each)), parts[1:].copy())


def together(load, work, other=0.0):
    """Return what a kernel takes of which loads of weights and work overlap in full."""
    time = max(load, work) + other
    return time, load, load, time - work - other


def busy(times, deep, *, launch="graph", sync=(), **changes):
    """Return device-busy time of operations with a buffer of so many seconds [s]."""
    rows = [timed(1.0, sync=i in sync) for i in range(len(times))]
    designs = Designs(arch(prefetch__depth=deep * BANDWIDTH, **changes))
    return replay(workload(*rows), designs, given_times(*times), launch).device_busy_s.item()


# --- by hand ---------------------------------------------------------------------------------


def test_two_operations_by_hand():
    # 4 s of work, then 3 s of loads for 1 s of work: all of them come while the first works
    times = together(0.0, 4.0), together(3.0, 1.0)
    assert busy(times, 0.0) == pytest.approx(7.0)
    assert busy(times, 9.0) == pytest.approx(5.0)
    # 2 s fit the buffer: 1 s of loads beside 1 s of work is left
    assert busy(times, 2.0) == pytest.approx(5.0)
    assert busy(times, 1.0) == pytest.approx(6.0)


def test_three_operations_by_hand():
    # 2 s of work; 3 s of loads, 1 of work; the same again. 2 s come under the first operation,
    # which leaves 1 under the second; DRAM has been busy since, and 3 s are left for the third.
    times = together(0.0, 2.0), together(3.0, 1.0), together(3.0, 1.0)
    assert busy(times, 0.0) == pytest.approx(8.0)
    assert busy(times, 99.0) == pytest.approx(2 + 1 + 3)


def test_loads_for_two_operations_wait_together_where_there_is_room():
    # 6 s of work cover the loads of both products behind
    times = together(0.0, 6.0), together(3.0, 1.0), together(3.0, 1.0)
    assert busy(times, 6.0) == pytest.approx(8.0)
    # room for 4: the second has 3 of its 3, the third 1 and what comes in 1 s of work: 1 is left
    assert busy(times, 4.0) == pytest.approx(6 + 1 + 1)
    assert busy(times, 3.0) == pytest.approx(6 + 1 + 2)


def test_loads_come_in_the_idle_time_between_two_operations():
    times = together(0.0, 1.0), together(3.0, 1.0)
    # 1 s beside the first operation, half a second between: 1.5 of 3 are left
    assert busy(times, 99.0, launch__graph__interval=0.5e-3) == pytest.approx(1 + 2 - 0.5e-3)
    assert busy(times, 99.0, launch__queue__interval=0.5e-3, launch="queue") == pytest.approx(
        1 + 2 - 0.5e-3
    )


def test_dram_that_works_for_others_loads_nothing_early():
    # a kernel of 4 s that needs DRAM all the time, none of it for weights
    times = (4.0, 4.0, 0.0, 0.0), together(3.0, 1.0)
    assert busy(times, 99.0) == pytest.approx(7.0)
    # or half the time
    times = (4.0, 2.0, 0.0, 0.0), together(3.0, 1.0)
    assert busy(times, 99.0) == pytest.approx(4 + 1)
    times = (4.0, 3.0, 0.0, 0.0), together(3.0, 1.0)
    assert busy(times, 99.0) == pytest.approx(4 + 2)


def test_nothing_is_loaded_across_a_wait_of_a_graph():
    times = together(0.0, 4.0), together(3.0, 1.0)
    assert busy(times, 99.0, sync=(0,)) == pytest.approx(7.0)
    assert busy(times, 99.0, sync=(0,), launch="queue") == pytest.approx(5.0)  # it does not wait


def test_nothing_is_loaded_across_steps():
    times = (together(0.0, 4.0), together(3.0, 1.0)) * 2
    rows = [timed(1.0, step=i // 2) for i in range(4)]
    designs = Designs(arch(prefetch__depth=99 * BANDWIDTH))
    w = workload(*rows, wall=(1.0, 1.0))
    one = replay(w, designs, given_times(*times), "graph").device_busy_s.item()
    assert one == pytest.approx(5.0)
    work_last = (together(3.0, 1.0), together(0.0, 4.0)) * 2
    one = replay(w, designs, given_times(*work_last), "graph").device_busy_s.item()
    assert one == pytest.approx(7.0)


def test_eager_nothing_is_loaded_before_an_operation_is_issued():
    # each takes the host a second to issue: at 1 and 2. The first works from 1 to 5.
    times = together(0.0, 4.0), together(3.0, 1.0)
    w = workload(timed(1.0, host_s=1.0), timed(1.0, host_s=1.0))
    designs = Designs(arch(prefetch__depth=99 * BANDWIDTH))
    found = replay(w, designs, given_times(*times), "eager")
    assert found.device_busy_s.item() == pytest.approx(5.0)  # loaded from 2 to 5
    # issued at 4.5: half a second of loads, 2.5 are left
    w = workload(timed(1.0, host_s=1.0), timed(1.0, host_s=3.5))
    found = replay(w, designs, given_times(*times), "eager")
    assert found.device_busy_s.item() == pytest.approx(6.5)
    assert found.wall_s.item() == pytest.approx(7.5)
    # issued when the first is done: nothing
    w = workload(timed(1.0, host_s=1.0), timed(1.0, host_s=6.0))
    assert replay(w, designs, given_times(*times), "eager").device_busy_s.item() == pytest.approx(7)


def test_eager_nothing_is_loaded_across_a_wait():
    times = together(0.0, 4.0), together(3.0, 1.0)
    assert busy(times, 99.0, launch="eager", sync=(0,)) == pytest.approx(7.0)
    assert busy(times, 99.0, launch="eager") == pytest.approx(5.0)


def test_an_operation_behind_loads_of_another_waits_for_dram():
    # loads of the second take from 0 to 3 beside 4 s of work; those of the third begin then, and
    # have 1 s there, then 1 s under the second
    times = together(0.0, 4.0), together(3.0, 1.0), together(3.0, 1.0)
    assert busy(times, 99.0) == pytest.approx(4 + 1 + 1)


def test_times_and_loads_scale_together():
    times = together(0.0, 2.0), together(3.0, 1.0), together(3.0, 1.0)
    designs = Designs(arch(), {"prefetch.depth": np.full(2, HUGE)})
    w = workload(*[timed(1.0)] * 3)
    given_ = given_times(*times, designs=2)
    twice = replay(w, designs, given_.scaled(2.0), "graph").device_busy_s
    assert twice == pytest.approx(np.full(2, 12.0))
    apart = replay(w, designs, given_.scaled(np.array([0.5, 3.0])), "graph").device_busy_s
    assert apart == pytest.approx([3.0, 18.0])


def test_a_design_without_a_buffer_beside_others_is_as_alone():
    times = together(0.0, 4.0), together(3.0, 1.0)
    columns = {"prefetch.depth": np.array([0.0, 1.0, 9.0]) * BANDWIDTH}
    w = workload(timed(1.0), timed(1.0))
    for launch in ("graph", "queue", "eager"):
        found = replay(w, Designs(arch(), columns), given_times(*times, designs=3), launch)
        assert found.device_busy_s == pytest.approx([7.0, 6.0, 5.0])


def test_depth_is_the_time_that_dram_takes_for_it():
    deep = Designs(arch(memories__dram__efficiency=0.5, prefetch__depth=3e9))
    assert depth(deep).tolist() == [6.0]
    assert depth(Designs(arch())) is None
    assert depth(Designs(arch(prefetch__depth=0.0))) is None


# --- laws ------------------------------------------------------------------------------------

seconds = st.floats(0, 10).map(lambda x: round(x, 3))
kernels = st.lists(
    st.tuples(seconds, seconds, st.floats(0, 1), st.floats(1, 8), seconds), min_size=1, max_size=12
)


def modelled(load, work, weights, power, other):
    """Return time, channel, ahead and gain of loads that partly overlap with work."""
    norm = lambda a, b: (a**power + b**power) ** (1 / power)  # noqa: E731
    ahead = load * weights
    time = norm(load, work)
    return time + other, load, ahead, time - norm(load - ahead, work)


@settings(max_examples=50)
@given(kernels, st.lists(seconds, min_size=2, max_size=6), st.sampled_from(["graph", "eager"]),
       st.sets(st.integers(0, 11), max_size=3))  # fmt: skip
def test_deeper_is_never_slower_and_both_bounds_hold(given_kernels, depths, launch, sync):
    times = [modelled(*k) for k in given_kernels]
    alone = sum(t for t, *_ in times)
    there = sum(t - gain for t, *_, gain in times)
    channel = sum(c for _, c, *_ in times)
    deep = {"prefetch.depth": np.append(0.0, np.sort(depths)) * BANDWIDTH}
    w = workload(*[timed(1.0, sync=i in sync) for i in range(len(times))])
    count = len(deep["prefetch.depth"])
    found = replay(w, Designs(arch(), deep), given_times(*times, designs=count), launch)
    total = found.device_busy_s
    assert (np.diff(total) <= 1e-9).all()
    assert (np.diff(found.wall_s) <= 1e-9).all()
    assert total[0] == pytest.approx(alone, abs=1e-9)
    assert (total <= alone + 1e-9).all()
    assert (total >= max(channel, there) - 1e-9).all()


@settings(max_examples=50)
@given(kernels, seconds)
def test_a_buffer_never_holds_more_than_its_depth_or_what_is_asked_for(given_kernels, deep):
    buffer = Buffer(np.array([deep]))
    times = [tuple(np.array([x]) for x in modelled(*k)) for k in given_kernels]
    for i, (time, channel, ahead, gain) in enumerate(times):
        issued = np.array([sum(t[2].item() for t in times[i + 1 :])])
        now = buffer.run(time, channel, ahead, gain, issued)
        assert time - gain - 1e-9 <= now <= time + 1e-9
        assert buffer._there <= min(deep, issued.item()) + 1e-9


@settings(max_examples=40)
@given(kernels, seconds)
def test_more_streams_than_one_change_nothing_that_happens_on_one(given_kernels, deep):
    """The lane by lane replay, forced by an empty operation on another stream, is no faster."""
    times = [modelled(*k) for k in given_kernels]
    designs = Designs(arch(prefetch__depth=deep * BANDWIDTH))
    one = replay(workload(*[timed(1.0)] * len(times)), designs, given_times(*times), "graph")
    rows = [timed(1.0)] * len(times) + [timed(0.0, stream=8)]
    two = replay(workload(*rows), designs, given_times(*times, (0.0,) * 4), "graph")
    assert two.device_busy_s.item() >= one.device_busy_s.item() - 1e-9
    assert two.device_busy_s.item() <= sum(t for t, *_ in times) + 1e-9


@settings(max_examples=50)
@given(kernels, st.lists(seconds, min_size=2, max_size=5), st.lists(st.integers(7, 9), min_size=12,
       max_size=12), st.sampled_from(["graph", "eager"]))  # fmt: skip
def test_on_several_streams_both_bounds_hold(given_kernels, depths, streams, launch):
    times = [modelled(*k) for k in given_kernels]
    alone = sum(t for t, *_ in times)
    there = sum(t - gain for t, *_, gain in times)
    deep = {"prefetch.depth": np.append(0.0, np.sort(depths)) * BANDWIDTH}
    rows = [timed(1.0, stream=s, host_s=0.5) for s, _ in zip(streams, times, strict=False)]
    count = len(deep["prefetch.depth"])
    found = replay(
        workload(*rows), Designs(arch(), deep), given_times(*times, designs=count), launch
    )
    assert found.device_busy_s[0] == pytest.approx(alone, abs=1e-9)
    assert (found.device_busy_s <= alone + 1e-9).all()
    assert (found.device_busy_s >= there - 1e-9).all()
    assert (found.wall_s <= found.wall_s[0] + 1e-9).all()


# --- models ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "paddleocr_vl_prefill"])
@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_without_a_buffer_nothing_changes_at_all(name, launch):
    w, h200 = ns.load_workload(name), ns.load_arch("h200")
    before = Designs(h200)
    after = Designs(with_value(h200, "prefetch.depth", 0.0))
    plain, none = (replay(w, d, durations(w, d), launch) for d in (before, after))
    for quantity in ("wall_s", "device_busy_s", "host_busy_s"):
        assert getattr(plain, quantity).tolist() == getattr(none, quantity).tolist()


def costs(name, **more):
    w = ns.load_workload(name)
    o = w.operations(w.unique()[0])
    h200 = with_value(ns.load_arch("h200"), "prefetch.depth", 1e7)
    for path, value in more.items():
        h200 = with_value(h200, path.replace("__", "."), value)
    d = Designs(h200)
    return o, d, kernel_cost(o, d)


@pytest.mark.parametrize(
    "name", ["paddleocr_vl_decode", "paddleocr_vl_prefill", "deepseek_ocr_decode_grouped"]
)
def test_what_can_come_early_is_part_of_what_dram_does(name):
    o, d, cost = costs(name)
    busy_ = cost.time - cost.floor
    assert (cost.gain >= -1e-15).all()
    assert (cost.gain <= cost.ahead + 1e-15).all()
    assert (cost.ahead <= cost.channel + 1e-15).all()
    assert (cost.channel <= busy_ + 1e-12).all()
    assert (cost.ahead[o["read_weight"] == 0] == 0).all()
    assert (cost.gain[o["read_weight"] > 1e6] > 0).all()
    # DRAM is at work at least as long as its bytes take it
    moved = Traffic(o, d).moved("dram") / bandwidth(d)
    assert (cost.channel >= np.minimum(moved, busy_) * (1 - 1e-9)).all()


def test_dram_is_idle_while_other_memories_serve():
    """Attention whose cache lies in an SRAM of its own leaves DRAM to the weights behind it."""
    o, d, cost = costs("paddleocr_vl_decode_b32", memories__kv_sram__capacity=1e10,
                       memories__kv_sram__bandwidth=2e12)  # fmt: skip
    attention = o.kind == "attention"
    assert (cost.memory[attention] > 5e-6).any()
    moved = Traffic(o, d).moved("dram")[attention] / bandwidth(d)
    assert cost.channel[attention] == pytest.approx(moved, rel=0.5, abs=2e-7)


def test_dram_is_idle_while_the_cache_serves():
    copies = [{"kind": "pointwise", "read_activation": 4e7, "write_activation": 4e7,
               "distance_activation": 1.0}]  # fmt: skip
    o = operations(*copies)
    d = Designs(machine(memories__l2__capacity=1e9, prefetch__depth=1.0))
    cost = kernel_cost(o, d)
    assert cost.memory.item() > 1e-7
    assert cost.channel.item() == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_nothing_is_loaded_beside_a_kernel_that_nobody_knows(launch):
    """It may need DRAM all the time."""
    gemv = {"kind": "gemv", "dtype": "bf16", "m": 1, "n": 8192, "k": 8192, "flop": 2**27,
            "read_weight": 2.0**27, "blocks": 128}  # fmt: skip
    w, h200 = workload(timed(1e-3), gemv, host="unknown"), ns.load_arch("h200")
    d = Designs(h200, {"prefetch.depth": np.array([0.0, 1e9])})
    without, with_it = replay(w, d, durations(w, d), launch).device_busy_s
    # at most what comes in the interval between the two
    assert with_it >= without - d[f"launch.{launch}.interval"].item() - 1e-12


@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_decode_gains_by_prefetch_within_its_bounds(launch):
    w = ns.load_workload("paddleocr_vl_decode")
    d = Designs(ns.load_arch("h200"), {"prefetch.depth": np.array([0.0, 1e5, 1e6, 1e7, 1e9])})
    time = durations(w, d)
    found = replay(w, d, time, launch)
    total = found.device_busy_s * len(w.steps)
    rows = time.row
    channel, _, gain = (part[rows].sum(axis=0) for part in time.early)
    assert (np.diff(total) <= 1e-12).all()
    assert total[0] == pytest.approx(time.busy()[0])
    if launch == "graph":  # launched one by one, each has been waited for when it is issued
        assert total[-1] < 0.98 * total[0]
    assert (total >= np.maximum(channel, time.busy() - gain) * (1 - 1e-12)).all()
