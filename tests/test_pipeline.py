"""Micro-batches through the stages of a pipeline: closed forms, a walk over paths, refusals."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.pipeline import passed, round_s, schedule

TIMES = st.floats(0.0, 10.0)


@pytest.mark.parametrize("stages", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3, 8])
def test_equal_stages_by_the_closed_form(stages, count):
    found = passed([2.0] * stages, count)
    assert float(found.total_s) == 2.0 * (count + stages - 1)
    assert float(found.latency_s) == 2.0 * stages and float(found.interval_s) == 2.0
    assert float(found.bubble_share) == pytest.approx((stages - 1) / (count + stages - 1))


def test_transfers_delay_the_next_stage_alone():
    """Two stages of 1 s, half a second between: the second is busy without a pause from 1.5 s."""
    assert schedule([1.0, 1.0], 3, 0.5).tolist() == [[1.0, 2.5], [2.0, 3.5], [3.0, 4.5]]


def test_a_slow_stage_by_hand():
    """Stages of 1, 3 and 1 s: the middle one sets the pace, 1 + 3 x 3 + 1."""
    found = passed([1.0, 3.0, 1.0], 3)
    assert (float(found.total_s), float(found.interval_s)) == (11.0, 3.0)
    assert float(found.bubble_share) == pytest.approx(1 - 15 / 33)


@settings(max_examples=80, deadline=None)
@given(st.lists(TIMES, min_size=1, max_size=4), st.integers(1, 5), TIMES)
def test_the_end_is_the_longest_path(times, count, transfer):
    """From the first micro-batch on the first stage to the last on the last, one step at a time."""
    stages = len(times)

    def longest(m, s):
        if m < 0 or s < 0:
            return -math.inf if (m, s) != (-1, 0) else 0.0
        before = max(longest(m - 1, s), longest(m, s - 1) + transfer if s else -math.inf)
        return times[s] + max(before, 0.0)

    found = passed(times, count, transfer)
    assert float(found.total_s) == pytest.approx(longest(count - 1, stages - 1))
    assert float(found.total_s) >= count * max(times)
    assert -1e-12 <= float(found.bubble_share) <= 1.0


@settings(max_examples=80, deadline=None)
@given(st.lists(st.floats(0.01, 10.0), min_size=1, max_size=4), st.integers(1, 6), TIMES, TIMES)
def test_rounds_that_go_on_for_long(times, count, transfer, back):
    """Tokens one after the other, each micro-batch waiting for its own last token."""
    stages, rounds = len(times), 60
    free, came, ends = [0.0] * stages, [0.0] * count, []
    for _ in range(rounds):
        for m in range(count):
            at = came[m]
            for s in range(stages):
                free[s] = at = max(free[s], at) + times[s]
                at += transfer if s < stages - 1 else back
            came[m] = at
        ends.append(came[-1])
    steady = (ends[-1] - ends[rounds // 2]) / (rounds - 1 - rounds // 2)
    assert float(round_s(times, count, transfer, back)) == pytest.approx(steady, rel=1e-6)


def test_designs_side_by_side_are_each_alone():
    times = np.array([[1.0, 2.0], [3.0, 0.5]])
    both = passed(times, 4, [0.25])
    for d in range(2):
        one = passed(times[:, d], 4, [0.25])
        for name in ("total_s", "latency_s", "interval_s", "bubble_share"):
            assert float(getattr(both, name)[d]) == float(getattr(one, name))
        assert round_s(times, 4, 0.25)[d] == round_s(times[:, d], 4, 0.25)


@pytest.mark.parametrize(("given_", "told"), [
    (([], 1), "stage_s: needs one time a stage"),
    (([1.0], 0), "micro_batches: out of range"),
    (([1.0, -1.0], 1), "stage_s: not a duration"),
    (([1.0, math.nan], 1), "stage_s: not a duration"),
    (([1.0, 1.0], 1, -0.5), "transfer_s: not a duration"),
    (([1.0, 1.0], 1, [0.1, 0.1]), "transfer_s: needs one time between"),
])  # fmt: skip
def test_what_is_no_pipeline_is_refused(given_, told):
    for way in (schedule, passed, round_s):
        with pytest.raises(InputError, match=told):
            way(*given_)
