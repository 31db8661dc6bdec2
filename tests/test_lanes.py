"""Replay against timelines worked out by hand, and the laws that every timeline keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import lanes
from npusim.arch import Designs
from npusim.durations import durations
from npusim.errors import InputError
from npusim.lanes import covered, replay, timeline
from npusim.models.launch import launch_cost
from tests.builder import timed, workload

# Of a failure hypothesis prints the machine, and warns of its length in place of the failure.
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

US = 1e-6


@pytest.fixture(scope="module")
def machine():
    arch = ns.load_arch("h200")
    for path, value in {
        "launch.eager.host": 6 * US,
        "launch.eager.latency": 2 * US,
        "launch.eager.interval": 1 * US,
        "launch.graph.host": 24 * US,
        "launch.graph.node": 1 * US,
        "launch.graph.submit": 3 * US,
        "launch.graph.interval": 0.5 * US,
        "launch.queue.submit": 2 * US,
        "launch.queue.interval": 0.1 * US,
        "host.speed": 1.0,
        "host.sync": 3 * US,
    }.items():
        arch = ns.with_value(arch, path, value)
    return arch


def run(w, arch, launch, columns=None):
    designs = Designs(arch, columns or {})
    return replay(w, designs, durations(w, designs), launch)


def chain(*, sync=False, host="measured"):
    first = timed(10 * US, host_s=5 * US, sync=sync, presync_s=1 * US if sync else 0.0)
    rest = [timed(20 * US, host_s=5 * US), timed(30 * US, host_s=5 * US)]
    return workload(first, *rest, tail=(4 * US,), host=host)


# eager: issued at 5, 10, 15 and started 2 later; 7-17, then 1 idle between: 18-38, 39-69.
# graph: submitted 0-27, begins at 30; 30-40, 40.5-60.5, 61-91; the sync returns 3 later.
# queue: 2-12, 12.1-32.1, 32.2-62.2; the sync returns 3 later.
@pytest.mark.parametrize(
    ("launch", "wall", "host"), [("eager", 69, 19), ("graph", 94, 30), ("queue", 65.2, 5)]
)
def test_a_chain_by_hand(machine, launch, wall, host):
    result = run(chain(), machine, launch)
    assert result.wall_s[0] == pytest.approx(wall * US)
    assert result.host_busy_s[0] == pytest.approx(host * US)
    assert result.device_busy_s[0] == pytest.approx(60 * US)
    assert result.idle_share[0] == pytest.approx(1 - 60 / wall)


# eager: the host waits from 6 until 17, issues at 22 and 27: 24-44, 45-75.
# graph of one: 28-38, sync to 41, graph of two begins at 70: 70-90, 90.5-120.5, sync.
# queue: the wait is the device's own affair: as without.
@pytest.mark.parametrize(("launch", "wall"), [("eager", 75), ("graph", 123.5), ("queue", 65.2)])
def test_a_wait_in_the_middle_by_hand(machine, launch, wall):
    assert run(chain(sync=True), machine, launch).wall_s[0] == pytest.approx(wall * US)


def test_without_a_measured_host_each_launch_costs_what_the_machine_says(machine):
    # issued at 6, 12, 18: 8-18, 19-39, 40-70, then the final sync
    assert run(chain(host="unknown"), machine, "eager").wall_s[0] == pytest.approx(73 * US)


def test_without_a_measured_host_a_wait_returns_later_and_once(machine):
    # issued at 6: 8-18, back at 21; issued at 27 and 33: 29-49, 50-80, the final sync
    middle = run(chain(sync=True, host="unknown"), machine, "eager")
    assert middle.wall_s[0] == pytest.approx(83 * US)
    assert middle.host_busy_s[0] == pytest.approx((3 * 6 + 2 * 3) * US)
    last = workload(timed(10 * US, sync=True), host="unknown")
    for launch, wall in (("eager", 21), ("graph", 41)):
        assert run(last, machine, launch).wall_s[0] == pytest.approx(wall * US)


def test_without_a_measured_host_a_fast_one_launches_faster(machine):
    fast = run(chain(host="unknown"), ns.with_value(machine, "host.speed", 2.0), "eager")
    # issued at 3, 6, 9: 5-15, 16-36, 37-67, then the final sync
    assert fast.wall_s[0] == pytest.approx(70 * US)
    assert fast.host_busy_s[0] == pytest.approx((3 * 3 + 3) * US)


# issued at 5: 7-17; work to 35, when all is done; issued at 40: 42-62; tail to 48
# twice as fast: 2.5: 4.5-14.5; 17.5; 20: 22-42; 24
@pytest.mark.parametrize(("speed", "wall", "host"), [(1, 62, 48), (2, 42, 24)])
def test_work_before_a_wait_and_after_the_last_launch(machine, speed, wall, host):
    first = timed(10 * US, host_s=5 * US, sync=True, presync_s=30 * US)
    w = workload(first, timed(20 * US, host_s=5 * US), tail=(8 * US,))
    result = run(w, ns.with_value(machine, "host.speed", speed), "eager")
    assert result.wall_s[0] == pytest.approx(wall * US)
    assert result.host_busy_s[0] == pytest.approx(host * US)


def test_a_host_twice_as_fast_halves_its_work(machine):
    slow = workload(*[timed(1 * US, host_s=50 * US)] * 4, tail=(0.0,))
    fast = run(slow, ns.with_value(machine, "host.speed", 2.0), "eager")
    assert fast.host_busy_s[0] == pytest.approx(100 * US)
    assert fast.wall_s[0] == pytest.approx(103 * US)


def test_streams_overlap_and_dependencies_hold_them_back(machine):
    rows = [timed(10 * US, stream=1), timed(10 * US, stream=2), timed(10 * US, stream=1)]
    free = workload(*rows)
    # graph: stream 1 runs 30-40 and 40.5-50.5, stream 2 beside it 30-40; sync 3
    assert run(free, machine, "graph").wall_s[0] == pytest.approx(53.5 * US)
    edges = (np.array([0, 0, 1, 2]), np.array([0, 1]))  # each waits for the one before it
    tied = workload(*rows, edges=edges)
    assert run(tied, machine, "graph").wall_s[0] == pytest.approx(63 * US)


def test_a_full_queue_makes_the_host_wait(machine):
    short = ns.with_value(machine, "launch.eager.depth", 2)
    w = workload(*[timed(20 * US, host_s=5 * US)] * 4, tail=(0.0,))
    # issued at 5 and 10: 7-27, 28-48; the third is ready at 15 and leaves when the first is done,
    # at 27: 49-69; the fourth is ready at 32 and leaves at 48: 70-90
    result = run(w, short, "eager")
    assert result.wall_s[0] == pytest.approx(90 * US)
    assert result.host_busy_s[0] == pytest.approx(20 * US)
    found = timeline(w, Designs(short), durations(w, Designs(short)), "eager")
    full = [(s.operation, s.start, s.end) for s in found.spans if s.what == "full"]
    assert np.ravel(full) == pytest.approx([2, 15 * US, 27 * US, 3, 32 * US, 48 * US])
    deep = ns.with_value(machine, "launch.eager.depth", 4)
    assert run(w, deep, "eager").wall_s[0] == pytest.approx(90 * US)  # the device decides anyway


def test_a_queue_of_its_own_for_each_stream(machine):
    short = ns.with_value(machine, "launch.eager.depth", 1)
    rows = [timed(50 * US, host_s=5 * US, stream=s) for s in (1, 2, 1)]
    # 7-57 and 12-62 beside it; the third is ready at 15, leaves at 57, and starts 2 later: 59-109
    result = run(workload(*rows, tail=(0.0,)), short, "eager")
    assert result.wall_s[0] == pytest.approx(109 * US)
    assert result.device_busy_s[0] == pytest.approx(150 * US)
    assert result.device_active_s[0] == pytest.approx(102 * US)
    assert result.device_idle_s[0] == pytest.approx(7 * US)


def test_a_step_begins_with_empty_queues_and_nothing_to_wait_for(machine):
    short = ns.with_value(machine, "launch.eager.depth", 1)
    rows = [timed(50 * US, host_s=5 * US, stream=1),
            timed(10 * US, host_s=5 * US, stream=1, step=1),
            timed(10 * US, host_s=5 * US, stream=2, step=1)]  # fmt: skip
    # 7-57; in the next step 7-17 and 12-22, though the last waits for the first of the step before
    w = workload(*rows, wall=(1.0, 1.0), edges=(np.array([0, 0, 0, 1]), np.array([0])))
    result = run(w, short, "eager")
    assert result.wall_s[0] == pytest.approx((57 + 22) / 2 * US)
    assert result.device_active_s[0] == pytest.approx((50 + 15) / 2 * US)


def test_depths_of_many_designs_at_once(machine):
    w = workload(*[timed(7 * US, host_s=3 * US, stream=i % 2) for i in range(12)], tail=(0.0,))
    depths, threads = np.array([1.0, 3.0, 2.0, 50.0]), np.array([1.0, 2.0, 3.0, 1.0])
    many = run(w, machine, "eager", {"launch.eager.depth": depths, "host.threads": threads})
    for i in range(4):
        one = ns.with_value(machine, "launch.eager.depth", depths[i])
        alone = run(w, ns.with_value(one, "host.threads", threads[i]), "eager")
        assert many.wall_s[i] == pytest.approx(alone.wall_s[0])
        assert many.host_busy_s[i] == pytest.approx(alone.host_busy_s[0])


def test_more_operations_than_fit_at_once_are_replayed_design_by_design(machine, monkeypatch):
    w = workload(*[timed(7 * US, host_s=3 * US, stream=i % 2) for i in range(4)], tail=(0.0,))
    speeds = {"host.speed": np.array([0.5, 1.0, 2.0])}
    whole = run(w, machine, "eager", speeds)
    monkeypatch.setattr(lanes, "_CELLS", 1)
    parts = run(w, machine, "eager", speeds)
    assert parts.wall_s.tolist() == whole.wall_s.tolist()
    assert parts.device_active_s.tolist() == whole.device_active_s.tolist()


def test_blocks_of_designs_have_the_launch_costs_of_their_own_designs(machine, monkeypatch):
    w = workload(*[timed(2 * US, host_s=3 * US) for _ in range(4)], tail=(0.0,))
    costs = {"launch.eager.host": np.array([1.0, 20.0, 6.0, 50.0, 2.0]) * US}
    whole = run(w, machine, "eager", costs)
    monkeypatch.setattr(lanes, "_BLOCK", 2)
    assert run(w, machine, "eager", costs).wall_s.tolist() == whole.wall_s.tolist()


def test_threads_prepare_launches_side_by_side(machine):
    w = workload(*[timed(1 * US, host_s=10 * US)] * 4, tail=(0.0,))
    two = run(w, ns.with_value(machine, "host.threads", 2), "eager")
    # both are ready at 10, and the next two at 20: 12-13, 14-15, 22-23, 24-25
    assert two.wall_s[0] == pytest.approx(25 * US)
    assert two.host_busy_s[0] == pytest.approx(20 * US)  # on two threads
    four = run(w, ns.with_value(machine, "host.threads", 4), "eager")
    assert four.wall_s[0] == pytest.approx((12 + 4 + 3) * US)


def test_threads_begin_anew_after_a_wait(machine):
    rows = [timed(1 * US, host_s=10 * US, sync=i == 0) for i in range(3)]
    two = run(workload(*rows, tail=(0.0,)), ns.with_value(machine, "host.threads", 2), "eager")
    # 12-13, and the host waits; both threads work from 13 to 23: 25-26, 27-28
    assert two.wall_s[0] == pytest.approx(28 * US)
    assert two.host_busy_s[0] == pytest.approx(20 * US)


def test_a_step_of_nothing_has_no_idle_share(machine):
    for path in ("launch.queue.submit", "host.sync"):
        machine = ns.with_value(machine, path, 0.0)
    result = run(workload(timed(0.0)), machine, "queue")
    assert (result.wall_s[0], result.idle_share[0]) == (0.0, 0.0)


def test_a_graph_starts_when_all_of_it_is_submitted(machine):
    w = workload(*[timed(1 * US)] * 100)
    # 24 + 100 of host, 3 later the first; 100 operations and 99 intervals; sync 3
    result = run(w, machine, "graph")
    assert result.wall_s[0] == pytest.approx((124 + 3 + 100 + 49.5 + 3) * US)
    assert result.host_busy_s[0] == pytest.approx(127 * US)
    fast = run(w, ns.with_value(machine, "host.speed", 2.0), "graph")
    assert fast.wall_s[0] == pytest.approx((62 + 3 + 100 + 49.5 + 3) * US)


def test_the_profiler_is_taken_out_as_far_as_there_is_work(machine):
    rows = [timed(1 * US, host_s=20 * US, records=3), timed(1 * US, host_s=5 * US, records=9)]
    slow = ns.with_value(machine, "host.record", 2 * US)
    w = workload(*rows, tail=(0.0,))
    assert run(w, slow, "eager").host_busy_s[0] == pytest.approx(25 * US)
    without = w.renamed(w.name, profiler="out")
    assert run(without, slow, "eager").host_busy_s[0] == pytest.approx(14 * US)
    assert w.id != without.id
    none = workload(timed(1 * US, host_s=5 * US))
    with pytest.raises(InputError, match="does not say how many operators its profiler recorded"):
        ns.unprofiled(none)


def test_time_covered_by_hand():
    starts = np.array([[0.0, 5.0], [2.0, 0.0], [10.0, 1.0]])
    ends = np.array([[4.0, 6.0], [3.0, 2.0], [11.0, 5.5]])
    assert covered(starts, ends).tolist() == [5.0, 6.0]


def test_steps_are_averaged(machine):
    two = workload(timed(10 * US), timed(30 * US, step=1), wall=(1.0, 1.0))
    result = run(two, machine, "queue")
    assert result.wall_s[0] == pytest.approx((15 + 35) / 2 * US)
    assert result.launches == 1


def test_unknown_modes_are_refused(machine):
    with pytest.raises(InputError, match="unknown launch mode: 'warp'"):
        run(chain(), machine, "warp")
    with pytest.raises(InputError, match="unknown mode: 'magic'"):
        durations(chain(), Designs(machine), "magic")
    with pytest.raises(InputError, match="transfer needs the machine"):
        durations(chain(), Designs(machine), "transfer")


rows = st.lists(
    st.builds(
        timed,
        st.floats(0, 1e-3),
        host_s=st.floats(0, 1e-4),
        sync=st.booleans(),
        presync_s=st.floats(0, 1e-5),
        stream=st.integers(1, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(rows=rows, launch=st.sampled_from(["eager", "graph", "queue"]), tail=st.floats(0, 1e-4))
def test_no_lane_is_longer_than_the_wall(machine, rows, launch, tail):
    w = workload(*rows, tail=(tail,))
    result = run(w, machine, launch)
    by_stream = np.bincount(w["stream"], w["duration_s"])
    slack = 1 + 1e-9
    assert result.wall_s[0] * slack >= by_stream.max()
    assert result.wall_s[0] * slack >= result.host_busy_s[0]
    serial = result.host_busy_s[0] + w["duration_s"].sum() + 3e-6 * (len(w) + 1)
    assert result.wall_s[0] <= serial * slack


@given(rows=rows, launch=st.sampled_from(["eager", "graph", "queue"]), tail=st.floats(0, 1e-4),
       depth=st.integers(1, 20), threads=st.integers(1, 3), steps=st.integers(1, 3),
       host=st.sampled_from(["measured", "unknown"]))  # fmt: skip
def test_lanes_add_up_to_the_wall(machine, rows, launch, tail, depth, threads, steps, host):
    steps = min(steps, len(rows))
    order = sorted(i % steps for i in range(len(rows)))
    rows = [{**row, "step": step} for row, step in zip(rows, order, strict=True)]
    w = workload(*rows, wall=(1.0,) * steps, tail=(tail,) * steps, host=host)
    for path, value in {"launch.eager.depth": depth, "host.threads": threads}.items():
        machine = ns.with_value(machine, path, value)
    designs = Designs(machine)
    time = durations(w, designs)
    result, found = replay(w, designs, time, launch), timeline(w, designs, time, launch)
    wall = result.wall_s[0] * steps
    assert found.steps[-1] == pytest.approx(wall)
    spent = {s.what: 0.0 for s in found.spans} | {"wait": 0.0, "full": 0.0}
    ends = [0.0]
    for span in found.spans:
        assert span.start == ends[-1]  # one after the other, nothing between
        spent[span.what] += span.end - span.start
        ends.append(span.end)
    assert ends[-1] == pytest.approx(wall)
    waits = spent.pop("wait") + spent.pop("full")
    assert sum(spent.values()) == pytest.approx(result.host_busy_s[0] * steps)
    assert waits == pytest.approx(result.host_wait_s[0] * steps, abs=1e-15)
    spans = [np.array(x)[:, None] for x in (found.start, found.end)]
    assert covered(*spans)[0] == pytest.approx(result.device_active_s[0] * steps, abs=1e-15)
    assert result.device_active_s[0] + result.device_idle_s[0] == pytest.approx(wall / steps)
    for s in set(w["stream"].tolist()):  # of one stream none overlap, in order of issue
        mine = w["stream"] == s
        assert (np.array(found.start)[mine][1:] >= np.array(found.end)[mine][:-1] - 1e-15).all()
    assert all(start >= issued for start, issued in zip(found.start, found.issued, strict=True))


@given(rows=rows, launch=st.sampled_from(["eager", "graph", "queue"]), data=st.data())
def test_nothing_starts_before_what_it_waits_for_is_done(machine, rows, launch, data):
    before = [data.draw(st.integers(0, i - 1)) for i in range(1, len(rows))]
    edges = (np.array([0, *range(len(rows))]), np.array(before, dtype=np.int64))
    second = data.draw(st.integers(0, len(rows) - 1))  # where the second step begins
    rows = [{**row, "step": int(0 < second <= i)} for i, row in enumerate(rows)]
    steps = 1 + rows[-1]["step"]
    w = workload(*rows, wall=(1.0,) * steps, edges=edges)
    designs = Designs(machine)
    found = timeline(w, designs, durations(w, designs), launch)
    for i, j in enumerate(before, 1):
        assert found.start[i] >= found.end[j] - 1e-15
    for i, end in enumerate(found.end):
        assert end <= found.steps[1 + w["step"][i]] + 1e-15


@given(rows=rows, launch=st.sampled_from(["eager", "graph", "queue"]))
def test_slower_kernels_never_shorten_a_step(machine, rows, launch):
    designs = Designs(machine)
    w = workload(*rows)
    time = durations(w, designs)
    quick, slow = (replay(w, designs, time.scaled(f), launch).wall_s[0] for f in (1.0, 1.3))
    assert slow >= quick - 1e-15


@given(rows=rows, launch=st.sampled_from(["graph", "queue"]), steps=st.integers(1, 3))
def test_the_sum_for_one_stream_is_what_the_walk_gives(machine, rows, launch, steps):
    order = sorted(i % steps for i in range(len(rows)))
    if len(set(order)) < steps:
        return
    one = [{**row, "stream": 7, "step": step} for row, step in zip(rows, order, strict=True)]
    w = workload(*one, wall=(1.0,) * steps)
    designs = Designs(machine, {"host.sync": np.array([1e-9, 3e-6]),
                                "launch.graph.interval": np.array([5e-4, 5e-7])})  # fmt: skip
    time = durations(w, designs)
    walk = lanes._Lanes(w, designs, time, launch_cost(launch, designs))
    walk.run()
    walked = walk.totals()
    summed = replay(w, designs, time, launch)
    found = summed.wall_s, summed.device_busy_s, summed.device_active_s, summed.host_busy_s
    for total, walk in zip(found, walked, strict=True):
        assert total * steps == pytest.approx(walk)


def test_copies_start_after_their_own_latency(machine):
    slow = ns.with_value(machine, "launch.eager.copy_latency", 9e-6)
    w = workload({**timed(10 * US, host_s=5 * US), "kind": "memcpy"})
    assert run(w, slow, "eager").wall_s[0] == pytest.approx(24 * US)
    assert run(w, slow, "graph").wall_s[0] == pytest.approx(41 * US)


@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_many_designs_at_once_equal_one_at_a_time(launch):
    w, arch = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    bandwidths = np.linspace(1e12, 6e12, 700)  # more than one block
    syncs = np.linspace(1e-6, 9e-6, 700)
    many = run(w, arch, launch, {"memories.dram.bandwidth": bandwidths, "host.sync": syncs})
    for i in (0, 511, 512, 699):
        alone = ns.with_value(arch, "memories.dram.bandwidth", bandwidths[i])
        one = run(w, ns.with_value(alone, "host.sync", syncs[i]), launch)
        assert many.wall_s[i] == pytest.approx(one.wall_s[0], rel=1e-12)
        assert many.device_busy_s[i] == pytest.approx(one.device_busy_s[0], rel=1e-12)


@pytest.mark.parametrize("path", ["host.threads", "launch.eager.depth", "units.count"])
def test_there_is_no_half_of_a_thread_or_place_in_a_queue(machine, path):
    with pytest.raises(InputError, match=rf"{path}: not a whole number: 2\.5"):
        ns.with_value(machine, path, 2.5)
    with pytest.raises(InputError, match=rf"{path}: not a whole number: 2\.5"):
        Designs(machine, {path: np.array([2.0, 2.5, 3.0])})
