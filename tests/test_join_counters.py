"""Edges of what a join tells of counters: cache state, loose donors, what is too little to say."""

import numpy as np
import pytest

from npusim.joining.captures import join
from npusim.joining.shapes import has_operators
from tests.builder import gemv, kernel, profile, workload

RUN = ("dram_read", "dram_throughput", "l2_hit_rate")  # counters that a warm replay falsifies
WARM, PART, COLD = "the operands were in L2", "part of the operands", "the weights came from DRAM"


def joined(timeline, *rows, **counters):
    """Counters that a timeline gets of one profile, and what is said of its durations."""
    found = join([timeline, profile(*rows, **counters)])
    (times,) = found.summary["counters"]["durations"]
    return found.workload.counters, times["explanation"]


# ---------------------------------------------------------------- warm, cold and in between


@pytest.mark.parametrize(
    ("read", "state"),
    [
        (0, WARM), (99_999, WARM), (100_000, PART), (100_001, PART), (500_000, PART),
        (899_999, PART), (900_000, COLD), (900_001, COLD), (1_000_000, COLD), (2_000_000, COLD),
    ],
)  # fmt: skip
def test_cache_state_by_what_was_read_of_a_megabyte_of_weights(read, state):
    """Warm below a tenth, cold from nine tenths; DRAM counters are dropped where it is warm."""
    more = {"dram_throughput": [0.1], "l2_hit_rate": [0.9], "occupancy": [0.5]}
    counters, (sentence,) = joined(workload(gemv(4.0)), gemv(4.0), dram_read=[read], **more)
    assert f"): {state}" in sentence
    assert [s in sentence for s in (WARM, PART, COLD)].count(True) == 1
    assert {name for name in RUN if name in counters} == (set() if state == WARM else set(RUN))
    assert counters["occupancy"].tolist() == [0.5]


@pytest.mark.parametrize(
    ("reads", "state"),
    [
        ((0, 199_999), WARM),
        ((0, 200_000), PART),
        ((900_000, 899_999), PART),
        ((1, 1_799_999), COLD),
    ],
)
def test_cache_state_is_that_of_all_kernels_with_weights_together(reads, state):
    """Two of a megabyte each; what reads no weights, or was not profiled, does not count."""
    rows = [gemv(4.0), gemv(4.0, k=9), kernel("add", read_activation=1e6)]
    timeline = workload(*rows, gemv(4.0, k=10, weight=1e9))
    _, (sentence,) = joined(timeline, *rows, dram_read=[*reads, 5e6])
    assert sentence.startswith("2 kernels with 2 MB of weights")
    assert f"): {state}" in sentence


def test_a_profile_of_no_weights_says_nothing_of_the_cache():
    rows = [kernel("add", read_activation=1e6)]
    counters, explanation = joined(workload(*rows), *rows, dram_read=[0], l2_hit_rate=[1.0])
    assert explanation == []
    assert {"dram_read", "l2_hit_rate"} <= set(counters)


def test_a_warm_replay_is_told_where_the_timeline_has_no_times():
    """What is left out is said, whatever there is to compare durations with."""
    counters, explanation = joined(workload(gemv(0.0)), gemv(4.0), dram_read=[0], occupancy=[0.5])
    assert set(counters) == {"profiled_s", "occupancy"}
    (sentence,) = explanation
    assert sentence.endswith("(0.0%): the operands were in L2 (warm replay), so what it counted of "
                             "DRAM and L2 hits is left out")  # fmt: skip


@pytest.mark.parametrize(("profiled", "slower"), [(1.02, ""), (1.04, "1.04"), (0.5, "")])
def test_cold_kernels_are_slower_from_three_percent_on(profiled, slower):
    _, (sentence,) = joined(workload(gemv(1.0)), gemv(profiled), dram_read=[1e6])
    tail = f", and take {slower} times as long as in the run" if slower else ""
    assert sentence.endswith(f"(cold cache){tail}")


@pytest.mark.parametrize(("clock", "same"), [(1.93e9, True), (1.91e9, False), (2.03e9, True),
                                             (2.05e9, False)])  # fmt: skip
def test_clocks_within_three_percent_of_boost_are_the_boost_clock(clock, same):
    """An H200 has 1.98 GHz: three percent lie at 1.921 and 2.039 GHz."""
    timeline = workload(gemv(1.0), device="NVIDIA H200")
    _, (sentence,) = joined(timeline, gemv(1.0), sm_clock=[clock])
    assert ("clocks explain no difference" in sentence) == same


@pytest.mark.parametrize(("count", "sentences"), [(7, 0), (8, 1)])
def test_fewer_than_eight_kernels_are_not_split_into_short_and_long(count, sentences):
    rows = [kernel(f"k<{i}>", 1.0 + i) for i in range(count)]
    _, explanation = joined(workload(*rows), *rows, occupancy=[0.5] * count)
    assert len(explanation) == sentences


# ---------------------------------------------------------------- donors without a place


PLACED = [kernel(name) for name in "wxyz"]  # they keep their places: four outweigh what they cross


def loosely(values, *behind):
    """Occupancy of kernels behind four that are profiled after, not before, kernels `c`."""
    donors = [kernel("c") for _ in values]
    counters, _ = joined(workload(*PLACED, *behind), *donors, *PLACED,
                         occupancy=[*values, 0.0, 0.0, 0.0, 0.0])  # fmt: skip
    assert counters["occupancy"][:4].tolist() == [0, 0, 0, 0]
    return counters["occupancy"][4:].tolist()


@pytest.mark.parametrize(
    ("values", "median"),
    [
        ([0.3], 0.3),
        ([0.9, 0.1, 0.2], 0.2),  # neither mean (0.4) nor first, last, least or most
        ([0.8, 0.1, 0.2, 0.5], 0.35),  # between the two in the middle
        ([0.9, np.nan, 0.1, 0.2], 0.2),  # those that were counted
    ],
)
def test_the_median_of_donors_without_a_place_serves(values, median):
    assert loosely(values, kernel("c")) == pytest.approx([median])
    assert loosely(values, kernel("c"), kernel("c")) == pytest.approx([median] * 2)


def test_donors_without_a_place_serve_one_launch_of_one_shape_only():
    found = loosely([0.1, 0.2, 0.9], kernel("c", m=1), kernel("c", m=2))
    assert np.isnan(found).all()
    assert np.isnan(loosely([0.1, 0.2, 0.9], kernel("c", blocks=9))).all()
    assert np.isnan(loosely([0.1, 0.2, 0.9], kernel("d"))).all()


def test_a_donor_with_a_place_comes_before_those_without():
    """The last c of the profile has the place of the first in the timeline, the others none."""
    timeline = workload(*PLACED, kernel("c"), kernel("c"))
    counters, _ = joined(timeline, *[kernel("c")] * 3, *PLACED, kernel("c"),
                         occupancy=[0.1, 0.1, 0.1, 0, 0, 0, 0, 0.7],
                         waves=[1, 2, 9, 0, 0, 0, 0, np.nan])  # fmt: skip
    assert counters["occupancy"][4:].tolist() == [0.7, 0.7]
    # what the one with a place was not asked for, the others tell; a profiled kernel has its own
    assert counters["waves"][4:].tolist() == pytest.approx([np.nan, 2], nan_ok=True)


# ---------------------------------------------------------------- who knows the operators


@pytest.mark.parametrize(
    ("known", "unknown", "expected"), [(1, 1, True), (1, 2, False), (5, 4, True), (4, 5, False)]
)
def test_a_capture_has_operators_if_half_of_its_kernels_do(known, unknown, expected):
    rows = [kernel("a")] * known + [kernel("a", operator="unknown")] * unknown
    assert has_operators(workload(*rows)) == expected
