"""Summaries of latencies, and what one slow sample makes of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.latency import slow_one, summary, with_slow_one


def test_percentiles_lie_between_samples():
    # 95 % of nine steps is 8.55: between 8 and 100, 55 % of the way
    found = summary([0, 1, 2, 3, 4, 5, 6, 7, 8, 100])
    assert found.p95_s == pytest.approx(8 + 0.55 * 92)
    assert (found.count, found.p50_s, found.mean_s, found.most_s) == (10, 4.5, 13.6, 100.0)


@given(st.integers(2, 50), st.floats(0.01, 10.0), st.floats(1.01, 100.0))
def test_the_slow_one_is_found_again(count, usual, times_slower):
    slow = usual * times_slower
    mean = float(np.mean([*[usual] * (count - 1), slow]))
    assert slow_one(count, mean, usual) == pytest.approx(slow, rel=1e-6)


def test_seed_001_has_ten_requests_or_eleven():
    """P95 of n samples with one slow one: u + n (1.05 - 0.05 n) (mean - u), alike for 10 and 11."""
    told = {n: with_slow_one(n, 1.7370, 0.3333).p95_s for n in range(2, 30)}
    for n in range(2, 21):
        assert told[n] == pytest.approx(0.3333 + n * (1.05 - 0.05 * n) * (1.7370 - 0.3333))
    near = [n for n, p95 in told.items() if abs(p95 - 8.0539) < 5e-4]
    assert near == [10, 11]
    assert slow_one(10, 1.7370, 0.3333) == pytest.approx(14.37, abs=0.005)


@pytest.mark.parametrize(
    ("make", "problem"),
    [(lambda: summary([]), "no latencies"), (lambda: summary([1.0, -1.0]), "not a latency"),
     (lambda: summary([float("nan")]), "not a latency"), (lambda: slow_one(0, 1, 1), "no samples"),
     (lambda: slow_one(10, 0.3, 0.4), "no single slow sample"),
     (lambda: slow_one(10, float("nan"), 0.4), "no single slow sample")],
)  # fmt: skip
def test_summaries_refuse_what_is_none(make, problem):
    with pytest.raises(InputError, match=problem):
        make()
