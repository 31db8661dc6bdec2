"""Bandwidth, residency, clocks and how costs add up: by hand, by sampling, and laws."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import catalog
from npusim.arch import Arch, Designs
from npusim.load import load_arch
from npusim.models.cost import Cost, overlapped, smooth_max
from npusim.models.memory import (
    STREAM,
    TILES,
    dram_bandwidth,
    l2_bandwidth,
    miss_bandwidth,
)
from npusim.models.residency import resident_share, usable
from npusim.models.roofline import bandwidth, burst_clock, throughput
from tests.machines import machine

positive = st.floats(1e-9, 1e9)


def designs(**changes):
    """Designs of one machine, or of several where a change is a list."""
    columns = {p.replace("__", "."): np.array(v, float) for p, v in changes.items()
               if isinstance(v, list)}  # fmt: skip
    same = {p: v for p, v in changes.items() if not isinstance(v, list)}
    return Designs(machine(**same), columns)


def without_cache():
    """The machine of round numbers without a last-level cache."""
    base = machine()
    kept = {p: v for p, v in base.values.items() if not p.startswith("memories.l2.")}
    return Designs(Arch("bare", "No cache", kept, {p: base.provenance[p] for p in kept}))


# ---------------------------------------------------------------- DRAM and the last-level cache


def dram(active, sharpness, **changes):
    # a peak of 1 GB/s; each unit keeps 100 B in flight for 1 us and so pulls 100 MB/s
    given = {"memories__dram__bandwidth": 1e9, "memories__dram__in_flight": 100,
             "memories__dram__latency": 1e-6, **changes}  # fmt: skip
    return dram_bandwidth(np.array([[active]]), designs(**given), sharpness).item()


def test_bandwidth_by_hand():
    # ten units pull what the DRAM gives: the smooth minimum is 2^(-1/s) of it
    assert dram(10.0, STREAM) == pytest.approx(1e9 * 2 ** (-1 / 3))
    assert dram(10.0, TILES) == pytest.approx(1e9 * 2 ** (-1 / 8))
    # at s = 1 twice the pull gives 1 / (1/2 + 1)
    assert dram(20.0, 1.0) == pytest.approx(1e9 * 2 / 3)
    # far from the knee one of the bounds holds
    assert dram(0.1, STREAM) == pytest.approx(1e7, rel=1e-5)
    assert dram(1e4, STREAM) == pytest.approx(1e9, rel=1e-8)
    assert dram(1e4, STREAM, memories__dram__efficiency=0.5) == pytest.approx(5e8, rel=1e-8)


@given(positive, st.floats(1, 1000), st.sampled_from([STREAM, TILES]))
def test_bandwidth_is_below_both_bounds_and_grows_with_units(peak, active, sharpness):
    peak = 1e6 + peak
    few, more = (dram(a, sharpness, memories__dram__bandwidth=peak) for a in (active, 2 * active))
    assert 0 < few <= min(peak, active * 1e8)
    assert few <= more
    assert few >= min(peak, active * 1e8) * 2 ** (-1 / sharpness) * (1 - 1e-12)


def test_bandwidth_of_several_designs_has_their_shape():
    d = designs(memories__dram__bandwidth=[1e9, 2e9, 4e9])
    found = dram_bandwidth(np.array([[1.0], [4.0]]) * np.ones(3), d)
    assert found.shape == (2, 3)
    assert found[1] == pytest.approx([1e9, 2e9, 4e9])  # round numbers pull without end
    assert bandwidth(d).tolist() == [1e9, 2e9, 4e9]


def test_what_units_take_in_by_hand():
    # 4 units x 10 B/clock at 1 GHz; 64 B of load each, and 4 slices x 16 B at 2 GHz: 128 GB/s
    d = designs(units__miss_rate=10, memories__l2__slice_width=16, memories__l2__clock=2e9)
    assert miss_bandwidth(d).tolist() == [4e10]
    active = np.array([[1.0], [2.0], [3.0], [4.0]])
    # the slower bound over (1 + ratio^1.5)^(2/3); the ratios are 1/2, 1, 2/3, 1/2
    expected = [52.303e9, 80.635e9, 95.804e9, 104.607e9]
    assert l2_bandwidth(active, d).ravel() == pytest.approx(expected, rel=1e-5)
    # far from the knee one of the bounds holds
    d = designs(memories__l2__slice_width=[0.1, 1e6])
    assert l2_bandwidth(np.array([[4.0]]), d)[0] == pytest.approx([4e8, 256e9], rel=1e-4)


def test_without_a_cache_units_load_at_their_rate():
    active = np.array([[1.0], [4.0]])
    assert l2_bandwidth(active, without_cache()).ravel().tolist() == [64e9, 256e9]


# ---------------------------------------------------------------- residency


@pytest.mark.parametrize("distance", [0.0, 1e5, 1e6, 3e6])
def test_hits_by_hand(distance):
    load = distance / 1e6
    one, two = (resident_share(np.array([distance]), designs(memories__l2__ways=w)).item()
                for w in (1, 2))  # fmt: skip
    assert one == pytest.approx(math.exp(-load))  # no other line in a set of one
    assert two == pytest.approx(math.exp(-2 * load) * (1 + 2 * load))  # at most one other of two


def test_half_a_usable_cache_is_half_a_cache():
    half = designs(memories__l2__usable=0.5)
    small = designs(memories__l2__capacity=5e5)
    distance = np.array([1e5, 4e5, 6e5])
    assert usable(half).tolist() == [5e5]
    assert resident_share(distance, half) == pytest.approx(resident_share(distance, small))


@pytest.mark.parametrize("load", [0.6, 0.9, 1.0, 1.2])
def test_hits_are_those_of_lines_hashed_over_sets(load):
    sets, ways = 20_000, 16
    lines = int(load * sets * ways)
    held = np.bincount(np.random.default_rng(0).integers(sets, size=lines), minlength=sets)
    kept = held[held <= ways].sum() / lines
    found = resident_share(np.array([load * 1e6]), designs(memories__l2__ways=ways)).item()
    assert found == pytest.approx(kept, abs=0.005)


def test_what_never_comes_back_is_never_held():
    found = resident_share(np.array([np.inf, 0.0]), designs(memories__l2__ways=[1, 16]))
    assert found.tolist() == [[0.0, 0.0], [1.0, 1.0]]
    assert resident_share(np.array([0.0, 1.0]), without_cache()).tolist() == [[0.0], [0.0]]
    assert usable(without_cache()).tolist() == [0.0]


@given(st.floats(0, 1e8), st.floats(1, 100), st.floats(1.1, 10), st.floats(1, 200))
def test_more_cache_never_holds_less(distance, ways, factor, size):
    d = designs(memories__l2__capacity=[1e4 * size, 1e4 * size * factor], memories__l2__ways=ways)
    near, far = np.array([distance, distance * factor])
    small, large = resident_share(np.array([near]), d)[0]
    assert 0 <= small <= large <= 1
    assert resident_share(np.array([far]), d)[0, 1] == pytest.approx(small, abs=1e-9)


@given(st.floats(0.05, 0.9), st.floats(2, 50))
def test_more_ways_end_more_sharply(load, ways):
    d = designs(memories__l2__ways=[ways, 4 * ways])
    inside, outside = resident_share(np.array([load * 1e6, 1e6 / load * 1.2]), d)
    assert inside[1] >= inside[0] - 1e-12
    assert outside[1] <= outside[0] + 1e-12


# ---------------------------------------------------------------- clocks of the matrix units


def test_clocks_by_hand():
    # between 1 and 2 GHz, half-way: 1.5 with all 64 units; with 8 x as many half of it, with an
    # eighth twice of it, but never more than the clock of the units
    d = designs(units__base_clock=1e9, matrix__boost_share=0.5,
                units__powered=64, units__count=[64, 512, 8], units__clock=2e9)  # fmt: skip
    assert burst_clock(d) == pytest.approx([1.5e9, 0.75e9, 2e9])
    # a limit that lowers that one leaves less to share
    held = designs(units__base_clock=1e9, matrix__boost_share=0.5,
                   units__powered=64, units__count=[64, 512, 8], units__clock=1.2e9)  # fmt: skip
    assert burst_clock(held) == pytest.approx([1.1e9, 0.55e9, 1.2e9])
    # below the base clock all of them run at it
    low = designs(units__base_clock=1e9, matrix__boost_share=0.5, units__powered=64,
                  units__count=64, units__clock=0.8e9)  # fmt: skip
    assert burst_clock(low) == pytest.approx([0.8e9])
    # 1,024 FLOP a clock and unit, of which nine in ten are reached
    d = designs(units__base_clock=1e9, matrix__boost_share=0.5,
                units__powered=64, units__count=64, matrix__efficiency=0.9,
                units__clock=2e9)  # fmt: skip
    assert throughput("gemm", "bf16", d).item() == pytest.approx(0.9 * 64 * 1024 * 1.5e9)


@given(st.integers(1, 1000), st.integers(1, 1000), st.floats(0, 1))
def test_more_units_run_slower_and_give_more(units, more, share):
    d = designs(units__base_clock=1e9, units__clock=1.5e9, matrix__boost_share=share,
                units__powered=100, units__count=[units, units + more])  # fmt: skip
    few, many = burst_clock(d)
    assert many <= few <= 1.5e9
    assert few * units <= many * (units + more) * (1 + 1e-12)


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_machines_hold_a_clock_between_base_and_boost(name):
    arch = load_arch(name)
    clock = burst_clock(Designs(arch)).item()
    least = arch["units.base_clock"] * (arch["units.powered"] / arch["units.count"]) ** (1 / 3)
    assert min(least, arch["units.clock"]) <= clock <= arch["units.clock"]


# ---------------------------------------------------------------- how costs add up


def column(*values):
    return np.array([[v] for v in values])


def test_the_longer_of_two_that_overlap_has_the_time():
    cost = overlapped(column(1.0, 1.0, 1.0), column(2.0, 3.0, 2.0), column(3.0, 2.0, 2.0),
                      busy=column(4.0, 5.0, 6.0))  # fmt: skip
    assert cost.memory.ravel().tolist() == [0.0, 5.0, 6.0]  # of two equal ones the transfers
    assert cost.compute.ravel().tolist() == [4.0, 0.0, 0.0]
    assert cost.time.ravel().tolist() == [5.0, 6.0, 7.0]


def test_a_floor_may_be_one_for_all():
    busy = np.ones((2, 3))
    cost = overlapped(np.array([1.0, 2.0, 3.0]), busy, 0 * busy, busy)
    assert cost.floor.tolist() == [[1, 2, 3]] * 2
    assert cost.time.tolist() == [[2, 3, 4]] * 2


def test_the_time_is_the_sum_of_its_parts():
    assert Cost(column(1.0), column(2.0), column(4.0)).time.item() == 7.0


def test_smooth_maximum_by_hand():
    three, four = np.array([3.0]), np.array([4.0])
    for power, expected in ((1, 7.0), (2, 5.0), (3, 91 ** (1 / 3)), (1000, 4.0)):
        assert smooth_max(three, four, np.array([power])).item() == pytest.approx(expected)
    nothing = np.zeros(1)
    assert smooth_max(nothing, nothing, np.array([4.0])).item() == 0
    assert smooth_max(nothing, four, np.array([4.0])).item() == 4
    assert smooth_max(1e300 * three, 1e300 * four, np.array([8.0])).item() < 4.1e300


@given(positive, positive, st.floats(1, 16))
def test_a_smooth_maximum_lies_between_the_larger_one_and_the_sum(a, b, power):
    x, y, p = (np.array([v]) for v in (a, b, power))
    found = smooth_max(x, y, p).item()
    assert max(a, b) <= found * (1 + 1e-12)
    assert found <= (a + b) * (1 + 1e-12)
    assert found == pytest.approx(smooth_max(y, x, p).item())
    assert smooth_max(x, y, p + 1).item() <= found * (1 + 1e-12)
