"""Replay against timelines worked out by hand, and the laws that every timeline keeps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import lanes
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.lanes import durations, replay
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
        "launch.graph.submit": 30 * US,
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
# graph: submitted 0-30; 30-40, 40.5-60.5, 61-91; the sync returns 3 later.
# queue: 2-12, 12.1-32.1, 32.2-62.2; the sync returns 3 later.
@pytest.mark.parametrize(
    ("launch", "wall", "host"), [("eager", 69, 19), ("graph", 94, 33), ("queue", 65.2, 5)]
)
def test_a_chain_by_hand(machine, launch, wall, host):
    result = run(chain(), machine, launch)
    assert result.wall_s[0] == pytest.approx(wall * US)
    assert result.host_busy_s[0] == pytest.approx(host * US)
    assert result.device_busy_s[0] == pytest.approx(60 * US)
    assert result.idle_share[0] == pytest.approx(1 - 60 / wall)


# eager: the host waits from 6 until 17, issues at 22 and 27: 24-44, 45-75.
# graph: 30-40, sync to 43, second graph submitted to 73: 73-93, 93.5-123.5, sync.
# queue: the wait is the device's own affair: as without.
@pytest.mark.parametrize(("launch", "wall"), [("eager", 75), ("graph", 126.5), ("queue", 65.2)])
def test_a_wait_in_the_middle_by_hand(machine, launch, wall):
    assert run(chain(sync=True), machine, launch).wall_s[0] == pytest.approx(wall * US)


def test_without_a_measured_host_each_launch_costs_what_the_machine_says(machine):
    # issued at 6, 12, 18: 8-18, 19-39, 40-70, then the final sync
    assert run(chain(host="unknown"), machine, "eager").wall_s[0] == pytest.approx(73 * US)


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
    serial = result.host_busy_s[0] + w["duration_s"].sum() + 2e-6 * (len(w) + 1)
    assert result.wall_s[0] <= serial * slack


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
    walked = lanes._lanes(w, designs, time, launch)
    summed = replay(w, designs, time, launch)
    found = summed.wall_s, summed.device_busy_s, summed.host_busy_s
    for total, walk in zip(found, walked, strict=True):
        assert total * steps == pytest.approx(walk)


def test_copies_start_after_their_own_latency(machine):
    slow = ns.with_value(machine, "launch.eager.copy_latency", 9e-6)
    w = workload({**timed(10 * US, host_s=5 * US), "kind": "memcpy"})
    assert run(w, slow, "eager").wall_s[0] == pytest.approx(24 * US)
    assert run(w, slow, "graph").wall_s[0] == pytest.approx(43 * US)


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
