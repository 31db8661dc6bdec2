"""Time of a step from throughputs, on figures worked out by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.step_cost import StepCost, fit_step_cost


def test_two_batches_are_met_exactly():
    # 1 / 10 = 0.1 s and 4 / 20 = 0.2 s: 0.1 s more for three more requests
    cost = fit_step_cost([1, 4], [10.0, 20.0])
    assert cost.request_s == pytest.approx(0.1 / 3)
    assert cost.dispatch_s == pytest.approx(0.1 - 0.1 / 3)


def test_more_batches_are_met_in_the_mean():
    # steps of 1, 2 and 4.5 s at batches 1, 2, 3: slope 1.75, through the means (2, 2.5), would
    # cross zero at -1: so no dispatch, and slope (1 + 4 + 13.5) / 14
    cost = fit_step_cost([1, 2, 3], [1.0, 1.0, 3 / 4.5])
    assert cost.dispatch_s == 0
    assert cost.request_s == pytest.approx(18.5 / 14)


def test_a_step_that_does_not_grow_has_no_cost_a_request():
    cost = fit_step_cost([1, 8, 32], [b / t for b, t in ((1, 0.0445), (8, 0.0444), (32, 0.0445))])
    assert cost.request_s < 2e-6
    assert cost.dispatch_s == pytest.approx(0.0445, rel=5e-3)


def test_seed_000_predicts_batch_four_within_ten_percent():
    cost = fit_step_cost([1, 2], [45.9, 65.2])
    a, b = 2 / 45.9 - 2 / 65.2, 2 / 65.2 - 1 / 45.9
    assert (cost.dispatch_s, cost.request_s) == pytest.approx((a, b))
    assert cost.tokens_per_s(4) == pytest.approx(4 / (a + 4 * b))
    assert abs(cost.tokens_per_s(4) / 87.8 - 1) < 0.1


@given(st.floats(1e-6, 1.0), st.floats(1e-6, 1.0), st.sets(st.integers(1, 64), min_size=2))
def test_a_cost_is_found_again(dispatch, request, batches):
    true = StepCost(dispatch, request)
    found = fit_step_cost(sorted(batches), [true.tokens_per_s(b) for b in sorted(batches)])
    for batch in batches:
        assert found.time(batch) == pytest.approx(true.time(batch), rel=1e-6)


@pytest.mark.parametrize(
    ("batches", "speeds", "problem"),
    [([1, 2], [45.9], "one throughput a batch"), ([1, 1], [45.9, 46.0], "too few different"),
     ([], [], "too few different"), ([0, 2], [45.9, 65.2], "not a batch"),
     ([1, 2], [45.9, -1.0], "not a throughput"), ([1, 2], [45.9, float("nan")], "not a throughput"),
     ([1, float("inf")], [45.9, 65.2], "not a batch"), ([[1, 2]], [[1, 2]], "one throughput")],
)  # fmt: skip
def test_bad_throughputs_are_refused(batches, speeds, problem):
    with pytest.raises(InputError, match=problem):
        fit_step_cost(batches, speeds)


@pytest.mark.parametrize("times", [(-1.0, 1.0), (1.0, float("nan")), (float("inf"), 1.0)])
def test_a_cost_is_a_time(times):
    with pytest.raises(InputError, match="not a time"):
        StepCost(*times)
