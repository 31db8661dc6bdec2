"""What holds of every run of requests through engines."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, Transfer, serve
from npusim.serving.fleet import ROUTES
from npusim.serving.pool import Pool as BlockPool
from npusim.serving.scheduler import Scheduler, Ticket
from npusim.step_cost import StepCost

LONGEST = 52  # tokens of a request: prompts up to 40, answers up to 12
TIMES = LinearTimes(StepCost(1.0, 0.25), prompt_s=0.5, prompt_token_s=0.125, image_token_s=0.0625,
                    group_s=2.0)  # fmt: skip

fourths = st.integers(0, 200).map(lambda n: n / 4)
costs = st.floats(0.01, 5.0)
some = st.booleans()


@st.composite
def asked(draw):
    prompt = draw(st.integers(1, 40))
    name = draw(st.sampled_from(["", "a", "b"]))
    shared = min(draw(st.sampled_from([4, 11, 30])), prompt) if name else 0
    image = draw(st.sampled_from(["", "x", "y"]))
    return Request(prompt, draw(st.integers(1, 12)), draw(fourths), name, shared, image,
                   min(5, prompt) if image else 0, draw(st.sampled_from([0.0, 1.0])),
                   draw(st.sampled_from([0.0, 0.5])))  # fmt: skip


lists = st.lists(asked(), min_size=1, max_size=10)
clients = st.lists(st.lists(asked(), min_size=1, max_size=4), min_size=1, max_size=4)


@st.composite
def policies(draw, tight=some):
    block, seqs = draw(st.integers(1, 8)), draw(st.integers(1, 6))
    chunked = draw(some)
    least = -(-LONGEST // block)
    return Policy(
        max_seqs=seqs, max_tokens=seqs + draw(st.integers(0, 30)) + (0 if chunked else LONGEST),
        max_model_len=LONGEST, block=block, blocks=least + draw(st.integers(0, 5))
        if draw(tight) else 0, chunked=chunked, mixed=draw(some), one_by_one=draw(some),
        prefix_cache=draw(some), reserve_prompt=draw(some),
        encoder_tokens=draw(st.sampled_from([0, 5, 10])),
    )  # fmt: skip


@st.composite
def fleets(draw):
    pool = Pool(TIMES, draw(policies()), draw(st.integers(1, 3)))
    route = draw(st.sampled_from(ROUTES))
    if draw(some):
        return Fleet(pool, route)
    prompts = Pool(TIMES, draw(policies()), draw(st.integers(1, 2)))
    return Fleet(pool, route, prompts, Transfer(draw(fourths), 8.0, draw(fourths)))


works = st.one_of(lists, clients)


def flat(work):
    return list(work) if isinstance(work[0], Request) else [r for each in work for r in each]


def same(one, other):
    for name in ("number", "client", "sent_s", "entered_s", "first_s", "done_s", "stops", "cached"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert one.end_s == other.end_s
    for a, b in zip(one.engines, other.engines, strict=True):
        for name in ("end_s", "seconds", "tokens", "samples", "running", "waiting", "blocks"):
            np.testing.assert_array_equal(getattr(a, name), getattr(b, name))


def in_system(out, sent, done):
    """Return the mean number in the system: what is there between events, times how long."""
    events = sorted([(t, 1) for t in sent] + [(t, -1) for t in done])
    area = there = last = 0.0
    for time, change in events:
        area += there * (time - last)
        there, last = there + change, time
    return (area + there * (out.end_s - last)) / out.end_s


# ---------------------------------------------------------------- nothing is lost


@given(works, fleets(), some)
def test_all_are_answered_and_nothing_is_made_twice(work, fleet, rounds):
    out = serve(work, fleet, rounds=rounds and not isinstance(work[0], Request))
    requests = flat(work)
    assert sorted(zip(out.prompt, out.output, strict=True)) == sorted(
        (r.prompt, r.output) for r in requests)  # fmt: skip
    assert (out.in_flight, out.rejected) == (0, ())
    assert sorted(out.number.tolist()) == list(range(len(requests)))
    # also where some were stopped: a prompt that enters again gives the next token, not the first
    assert sum(int(e.samples.sum()) for e in out.engines) == sum(r.output for r in requests)
    assert (out.sent_s <= out.entered_s).all()
    assert (out.entered_s < out.first_s).all()
    assert ((out.first_s < out.done_s) == (out.output > 1)).all()
    assert out.end_s == out.done_s.max()
    for engine in out.engines:
        assert engine.busy_s <= out.end_s * (1 + 1e-9)
        assert (np.diff(engine.end_s) >= engine.seconds[1:] * (1 - 1e-9)).all()


@given(works, fleets(), st.integers(1, 400).map(lambda n: n / 8))
def test_all_that_arrived_were_answered_or_are_in_flight(work, fleet, until):
    out = serve(work, fleet, until_s=until)
    asked_for = flat(work)
    assert out.arrived == len(out) + out.in_flight <= len(asked_for)
    if isinstance(work[0], Request):
        assert out.arrived == sum(r.arrival_s < until for r in asked_for)
    assert out.end_s == until
    assert (out.done_s < until).all()
    full = serve(work, fleet)
    assert len(out) == (full.done_s < until).sum()  # what comes later changes nothing before


@given(lists, policies())
def test_tokens_enter_once_unless_a_request_was_stopped(requests, policy):
    out = serve(requests, Fleet(Pool(TIMES, policy)))
    entered = int(out.engines[0].tokens.sum())
    needed = int((out.prompt + out.output - 1 - out.cached).sum())
    if not out.stops.any():
        assert entered == needed
    elif not any(r.prefix for r in requests):  # who comes back may find what others computed
        assert entered >= needed
    assert (out.engines[0].tokens <= policy.max_tokens).all()
    assert (out.engines[0].running <= policy.max_seqs).all()


@given(works, fleets())
def test_a_run_repeats_bit_for_bit(work, fleet):
    same(serve(work, fleet), serve(work, fleet))


@given(works, fleets(), st.one_of(st.none(), st.integers(1, 400).map(lambda n: n / 8)))
def test_littles_law(work, fleet, until):
    """The mean number in the system is the rate of arrivals times the mean time in it."""
    out = serve(work, fleet, until)
    if not out.in_flight and len(out):
        rate = out.arrived / out.end_s
        assert out.in_system == pytest.approx(rate * out.latency_s.mean())
        assert out.in_system == pytest.approx(in_system(out, out.sent_s, out.done_s))
    elif isinstance(work[0], Request):
        sent = [r.arrival_s for r in work if r.arrival_s < until]
        assert out.in_system == pytest.approx(in_system(out, sent, out.done_s))


# ---------------------------------------------------------------- blocks


@given(lists, policies(tight=st.just(True)))
def test_a_pool_is_never_exceeded_and_all_of_it_comes_back(requests, policy):
    scheduler = Scheduler(policy)
    for number, request in enumerate(requests):
        scheduler.add(Ticket(number, request, 0.0))
    answered, now = [], 0.0
    while (step := scheduler.plan(now)) is not None:
        assert 0 < step.tokens <= policy.max_tokens
        assert 0 < scheduler.pool.used <= policy.blocks
        now += 1.0
        answered += scheduler.finish(now)
        held = [policy.blocks_of(t.computed + (scheduler.ticks - t.since if t.answers else 0))
                for t in scheduler.running.values()]  # fmt: skip
        shared = [t.shared for t in scheduler.running.values()]
        assert sum(held) - sum(shared) <= scheduler.pool.used <= sum(held)
    assert sorted(t.number for t in answered) == list(range(len(requests)))
    assert (scheduler.pool.used, scheduler.pool.free) == (0, policy.blocks)
    assert (scheduler.answering, scheduler.context) == (0, 0)
    scheduler.pool.take(policy.blocks)  # all of them are really there
    assert not any(scheduler.pool.kept(n) for n in range(len(requests)))
    assert not any(scheduler.pool.shared(name) for name in "ab")


@given(lists, policies(tight=st.just(False)))
def test_a_pool_that_never_runs_out_is_one_without_end(requests, policy):
    most = sum(policy.blocks_of(r.tokens) for r in requests)
    endless, large = (serve(requests, Fleet(Pool(TIMES, p)))
                      for p in (policy, replace(policy, blocks=max(most, LONGEST))))  # fmt: skip
    same(endless, large)
    assert not endless.stops.any()


def test_an_older_copy_of_a_prefix_does_not_take_the_newer_one_along():
    """Four free blocks: two of nothing, the older copy, the newer one; taken in this order."""
    pool = BlockPool(4)
    for _ in range(2):
        pool.take(1)
        assert pool.publish_prefix("s", 1, 0)
        pool.let_go_prefix("s", 1)
    pool.take(3)
    assert pool.shared("s") == 1
    pool.take(1)
    assert (pool.shared("s"), pool.free) == (0, 0)


# ---------------------------------------------------------------- times


@given(works, fleets())
def test_twice_as_slow_takes_twice_as_long(work, fleet):
    """Powers of two: to the last bit."""
    double = LinearTimes(StepCost(2.0, 0.5), 1.0, 0.25, 0.125, 4.0)

    def slow(r):
        return replace(r, arrival_s=2 * r.arrival_s, work_s=2 * r.work_s, outside_s=2 * r.outside_s)

    later = [slow(r) if isinstance(r, Request) else [slow(s) for s in r] for r in work]
    link = fleet.transfer and replace(fleet.transfer, bandwidth=4.0,
                                      latency_s=2 * fleet.transfer.latency_s)  # fmt: skip
    dear = replace(fleet, pool=replace(fleet.pool, times=double), transfer=link,
                   prompts=fleet.prompts and replace(fleet.prompts, times=double))  # fmt: skip
    one, two = serve(work, fleet), serve(later, dear)
    np.testing.assert_array_equal(two.done_s, 2 * one.done_s)
    np.testing.assert_array_equal(two.first_s, 2 * one.first_s)
    np.testing.assert_array_equal(two.cached, one.cached)


@given(clients, policies(), costs, costs, costs)
def test_a_dearer_step_is_never_faster(work, policy, dispatch, request_s, token):
    """Where clients send at once, who is served when does not depend on how long it takes."""
    here = [[replace(r, arrival_s=0.0, outside_s=0.0) for r in each] for each in work]
    dearer = LinearTimes(
        StepCost(1.0 + dispatch, 0.25 + request_s), 0.5, 0.125 + token, 0.0625, 2.0
    )
    cheap, dear = (serve(here, Fleet(Pool(t, policy))) for t in (TIMES, dearer))
    np.testing.assert_array_equal(cheap.client, dear.client)
    np.testing.assert_array_equal(cheap.engines[0].tokens, dear.engines[0].tokens)
    assert (dear.latency_s >= cheap.latency_s * (1 - 1e-9)).all()
    assert cheap.utilisation == pytest.approx(1.0)  # it always has work


@given(st.lists(asked(), min_size=1, max_size=6))
def test_one_client_waits_for_nobody(each):
    policy = Policy(prefix_cache=False)
    out = serve([each], Fleet(Pool(TIMES, policy)))
    parts = [r.outside_s + r.work_s + 2.0 + 0.5 + r.prompt / 8 + r.image_tokens / 16
             + 1.25 * (r.output - 1) for r in each]  # fmt: skip
    assert out.latency_s == pytest.approx(parts)
    assert out.end_s == pytest.approx(sum(parts) + sum(r.arrival_s for r in each))


# ---------------------------------------------------------------- a queue that is known


def single_server(rate, count=20_000):
    """Return waiting times and gaps of Poisson arrivals at one server that takes 1 s for each."""
    gaps = np.random.default_rng(20).exponential(1 / rate, count)
    times = LinearTimes(StepCost(0.0, 0.0), prompt_s=1.0)
    out = serve([Request(1, 1, float(t)) for t in np.cumsum(gaps)],
                Fleet(Pool(times, Policy(max_seqs=1))))  # fmt: skip
    return out.entered_s - out.sent_s, gaps, out


@pytest.mark.parametrize("rate", [0.3, 0.5, 0.7])
def test_mean_wait_of_a_single_server(rate):
    """Pollaczek and Khinchine for a service of S that never varies: rho S / (2 (1 - rho)).

    Source: F. Pollaczek, Mathematische Zeitschrift 32 (1930), doi:10.1007/BF01194620.
    """
    waits, _, out = single_server(rate)
    assert waits.mean() == pytest.approx(rate / (2 * (1 - rate)), rel=0.05)
    assert out.utilisation == pytest.approx(rate, rel=0.02)


def test_each_wait_of_a_single_server():
    """Each waits as long as the one before it, and its service, reach beyond the gap between them.

    Source: D. V. Lindley, Proc. Cambridge Phil. Soc. 48 (1952), doi:10.1017/S0305004100027638.
    """
    waits, gaps, _ = single_server(0.9)
    expected = [0.0]
    for gap in gaps[1:]:
        expected.append(max(expected[-1] + 1.0 - gap, 0.0))
    assert waits == pytest.approx(expected, abs=1e-6)
