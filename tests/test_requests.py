"""Requests of several clients through one engine, and summaries of latencies."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.latency import slow_one, summary, with_slow_one
from npusim.requests import Engine, Request, closed_loop, crowd
from npusim.step_cost import StepCost

COST = StepCost(1.0, 0.5)

times = st.floats(0.0, 10.0)
requests = st.builds(Request, st.floats(0.01, 10.0), st.integers(0, 6), times)
sent = st.lists(st.lists(requests, min_size=1, max_size=4), min_size=1, max_size=5)
costs = st.builds(StepCost, st.floats(0.01, 5.0), times)
engines = st.builds(Engine, costs, st.integers(1, 6), st.booleans(), times)


def here(clients):
    """Return the same requests without what happens outside of the engine."""
    return [[Request(r.prefill_s, r.steps) for r in each] for each in clients]


# ---------------------------------------------------------------- by hand


def test_one_request_is_the_sum_of_its_parts():
    run = closed_loop([[Request(3.0, steps=4, outside_s=2.0)]], Engine(COST, most=4))
    one = run.served[0]
    assert (one.sent_s, one.first_token_s, one.done_s, one.tokens) == (0.0, 5.0, 11.0, 5)
    assert (run.makespan_s, run.busy_s, run.steps) == (11.0, 9.0, 4)
    assert run.utilisation == 9 / 11
    assert run.tokens_per_s == 5 / 11


@pytest.mark.parametrize("clients", [1, 2, 3, 4])
def test_latency_of_clients_that_are_alike(clients):
    """All wait for all prefills, then decode together: C P + n (a + C b)."""
    run = closed_loop(crowd(clients, 3, [Request(3.0, 4)]), Engine(COST, most=4))
    expected = clients * 3.0 + 4 * (1.0 + 0.5 * clients)
    assert run.latencies_s == pytest.approx([expected] * 3 * clients)
    assert run.requests_per_s == pytest.approx(clients / expected)


def test_packed_requests_share_what_a_group_costs():
    engine = Engine(COST, most=4, packed=True, group_s=5.0)
    run = closed_loop(crowd(3, 1, [Request(1.0, 0)]), engine)
    assert run.latencies_s.tolist() == [8.0] * 3  # 5 + 3 x 1, once
    alone = closed_loop(crowd(3, 1, [Request(1.0, 0)]), Engine(COST, 4, group_s=5.0))
    assert alone.latencies_s.tolist() == [6.0, 12.0, 18.0]


def test_who_comes_while_others_decode_is_taken_in_between_two_steps():
    # the first decodes from 2 in steps of 1.5; the second comes at 4, waits until 5, takes until
    # 7; two steps of both (2 s each) end the first at 11, one more of 1.5 s the second
    early, late = Request(2.0, 4), Request(2.0, 3, outside_s=4.0)
    run = closed_loop([[early], [late]], Engine(COST, most=2))
    assert [(s.client, s.first_token_s, s.done_s) for s in run.served] == [
        (0, 2.0, 11.0), (1, 7.0, 12.5)]  # fmt: skip


def test_a_full_batch_lets_others_wait():
    run = closed_loop(crowd(2, 1, [Request(1.0, 2)]), Engine(COST, most=1))
    assert run.latencies_s.tolist() == [4.0, 8.0]


def test_rounds_wait_for_the_slowest():
    quick, slow = Request(1.0, 0), Request(5.0, 0)
    clients = [[quick, quick], [slow, slow]]
    engine = Engine(COST, most=4)
    # in turn: 1, 1 + 5, then again; in rounds the quick one is sent again after 6 s only
    rounds = closed_loop(clients, engine, rounds=True)
    assert [s.sent_s for s in rounds.served if s.client == 0] == [0.0, 6.0]
    assert rounds.makespan_s == 12.0
    free = closed_loop(clients, engine)
    assert [s.sent_s for s in free.served if s.client == 0] == [0.0, 1.0]


def test_rounds_of_clients_with_unequal_numbers_of_requests():
    one = Request(1.0, 0)
    run = closed_loop([[one], [one, one, one]], Engine(COST, most=2), rounds=True)
    assert sorted((s.client, s.number) for s in run.served) == [(0, 0), (1, 0), (1, 1), (1, 2)]


def test_steps_by_a_table():
    table = {1: 1.0, 2: 1.25}
    run = closed_loop(crowd(2, 1, [Request(2.0, 4)]), Engine(table, most=2))
    assert run.makespan_s == 2 * 2.0 + 4 * 1.25


def test_a_crowd_deals_out_sizes_in_turn():
    sizes = [Request(float(n), 0) for n in range(1, 4)]
    dealt = crowd(2, 3, sizes)
    assert [[r.prefill_s for r in each] for each in dealt] == [[1, 3, 2], [2, 1, 3]]


# ---------------------------------------------------------------- what always holds


@given(sent, engines, st.booleans())
def test_nothing_is_lost(clients, engine, rounds):
    run = closed_loop(clients, engine, rounds)
    assert sorted((s.client, s.number) for s in run.served) == [
        (c, n) for c, each in enumerate(clients) for n in range(len(each))]  # fmt: skip
    assert run.tokens == sum(r.steps + 1 for each in clients for r in each)
    assert run.busy_s <= run.makespan_s * (1 + 1e-9)
    longest = max(r.steps for each in clients for r in each)
    assert longest <= run.steps <= sum(r.steps for each in clients for r in each)
    for s in run.served:
        r = clients[s.client][s.number]
        least = r.outside_s + r.prefill_s + engine.group_s
        assert s.first_token_s - s.sent_s >= least * (1 - 1e-9)
        assert s.latency_s >= (least + r.steps * engine.time(1)) * (1 - 1e-9)
        assert s.done_s <= run.makespan_s


@given(st.lists(requests, min_size=1, max_size=6), engines)
def test_one_client_waits_for_nobody(each, engine):
    run = closed_loop([each], engine)
    parts = [r.outside_s + engine.group_s + r.prefill_s + r.steps * engine.time(1) for r in each]
    assert run.latencies_s == pytest.approx(parts)
    assert run.makespan_s == pytest.approx(sum(parts))


@given(sent, st.integers(1, 6), st.booleans(), costs, times, times)
def test_a_dearer_step_is_never_faster(clients, most, packed, cost, dispatch, request):
    """Without anything outside, who is served when does not depend on how long it takes."""
    dearer = StepCost(cost.dispatch_s + dispatch, cost.request_s + request)
    cheap, dear = (closed_loop(here(clients), Engine(c, most, packed)) for c in (cost, dearer))
    assert [(s.client, s.number) for s in cheap.served] == [
        (s.client, s.number) for s in dear.served]  # fmt: skip
    assert dear.makespan_s >= cheap.makespan_s * (1 - 1e-9)
    assert (dear.latencies_s >= cheap.latencies_s * (1 - 1e-9)).all()


@given(sent, engines)
def test_an_engine_that_always_has_work_is_always_busy(clients, engine):
    run = closed_loop(here(clients), engine)
    assert run.busy_s == pytest.approx(run.makespan_s)
    clients_at_once = run.latencies_s.sum() / run.makespan_s  # Little's law
    assert clients_at_once <= len(clients) * (1 + 1e-9)


# ---------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("make", "problem"),
    [(lambda: Request(-1.0, 1), "prefill_s: not a time"),
     (lambda: Request(1.0, 1, float("nan")), "outside_s: not a time"),
     (lambda: Request(1.0, -1), "not a number of decode steps"),
     (lambda: Request(1.0, 1.5), "not a number of decode steps"),
     (lambda: Request(1.0, float("nan")), "not a number of decode steps"),
     (lambda: Engine(COST, 0), "no room"),
     (lambda: Engine(COST, 2.5), "no room"),
     (lambda: Engine(COST, float("nan")), "no room"),
     (lambda: Engine(COST, 1, group_s=-1.0), "group_s: not a time"),
     (lambda: Engine({1: 1.0}, 2), "no time of a step of this batch: 2"),
     (lambda: Engine({1: -1.0}, 1), "step of batch 1: not a time"),
     (lambda: crowd(0, 1, [Request(1.0, 1)]), "no requests"),
     (lambda: crowd(1, 1, []), "no requests"),
     (lambda: closed_loop([], Engine(COST, 1)), "not a run"),
     (lambda: closed_loop([[], []], Engine(COST, 1)), "not a run"),
     (lambda: closed_loop([[Request(1.0, 10**9)]], Engine(COST, 1)), "not a run"),
     (lambda: closed_loop([[Request(0.0, 0)]], Engine(COST, 1)), "takes no time")],
)  # fmt: skip
def test_what_cannot_be_served_is_refused(make, problem):
    with pytest.raises(InputError, match=problem):
        make()


# ---------------------------------------------------------------- summaries


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
