"""Requests through engines, small cases by hand."""

import numpy as np
import pytest

from npusim.serving import (
    Fleet,
    Limits,
    LinearTimes,
    Policy,
    Pool,
    Request,
    Step,
    Transfer,
    serve,
)
from npusim.serving.arrivals import crowd
from npusim.step_cost import StepCost

COST = StepCost(1.0, 0.5)  # a step of decoding takes 1 s and 0.5 s for each request in it
TOKENS = LinearTimes(COST, prompt_token_s=0.25)


def run(requests, times=TOKENS, rounds=False, until_s=None, **policy):
    return serve(requests, Fleet(Pool(times, Policy(**policy))), until_s, rounds)


def rows(outcome, name):
    return getattr(outcome.engines[0], name).tolist()


def old(work, steps, **more):
    """Return a request that takes so long before its first token, and then so many steps."""
    return Request(1, steps + 1, work_s=work, **more)


def line(**more):
    return LinearTimes(COST, **more)


# ---------------------------------------------------------------- one engine


def test_one_request_is_the_sum_of_its_parts():
    times = LinearTimes(COST, prompt_s=3.0, prompt_token_s=0.25)
    out = run([Request(prompt=4, output=3, outside_s=2.0)], times)
    # 2 outside, then 3 + 4 x 0.25 for the prompt, then two steps of 1.5
    assert (out.sent_s[0], out.entered_s[0], out.first_s[0], out.done_s[0]) == (0, 2, 6, 9)
    assert (out.end_s, out.utilisation, out.tokens_per_s) == (9.0, 7 / 9, 3 / 9)
    assert (rows(out, "tokens"), rows(out, "samples")) == ([4, 1, 1], [1, 1, 1])
    assert rows(out, "seconds") == [4.0, 1.5, 1.5]


def test_two_that_come_together_are_one_batch():
    out = run([Request(4, 3), Request(4, 2)])
    # 8 x 0.25 = 2, then two together 1 + 2 x 0.5 = 2, then the first alone 1.5
    assert (out.first_s.tolist(), out.done_s.tolist()) == ([2, 2], [5.5, 4])


def test_a_prompt_enters_beside_those_under_way():
    out = run([Request(4, 4), Request(4, 2, arrival_s=2.0)])
    # prompt until 1, a step until 2.5; then 1.5 + 1 for both until 5; a step of two until 7
    assert (out.first_s.tolist(), out.done_s.tolist()) == ([1, 5], [7, 7])


def test_prompts_go_first_where_steps_are_not_mixed():
    out = run([Request(4, 4), Request(4, 2, arrival_s=2.0)], mixed=False)
    # prompt until 1, a step until 2.5; the other prompt until 3.5; two together until 5.5; 1.5
    assert (out.first_s.tolist(), out.done_s.tolist()) == ([1, 3.5], [7, 5.5])


def test_who_comes_as_a_step_ends_is_in_the_next():
    """Whether it was on its way before the step began or not."""
    for times in ([0.0, 1.0], [0.0, 0.5, 1.0]):
        out = run([Request(4, 3, arrival_s=t) for t in times])
        assert out.entered_s.tolist() == [0, *[1] * (len(times) - 1)]


def test_a_prompt_enters_in_parts():
    out = run([Request(10, 2)], line(group_s=1.0, prompt_token_s=0.25), max_tokens=4, max_seqs=4)
    # 4, 4 and 2 tokens: 2 + 2 + 1.5 s
    assert rows(out, "tokens") == [4, 4, 2, 1]
    assert (out.first_s[0], out.done_s[0]) == (5.5, 7.0)


def test_parts_of_prompts_fill_what_answers_leave():
    out = run([Request(1, 4), Request(6, 1)], max_tokens=3, max_seqs=2)
    # the second has 2 of its tokens in the first step, then 2 beside the first one's, then 2
    assert rows(out, "tokens") == [3, 3, 3, 1]
    assert rows(out, "samples") == [1, 1, 2, 1]


def test_a_prompt_that_does_not_fit_waits_or_enters_in_part():
    two = [Request(3, 1), Request(3, 1)]
    whole = run(two, max_tokens=4, max_seqs=4, max_model_len=4, chunked=False)
    assert (rows(whole, "tokens"), whole.done_s.tolist()) == ([3, 3], [0.75, 1.5])
    assert rows(whole, "waiting") == [1, 0]
    parts = run(two, max_tokens=4, max_seqs=4)
    assert (rows(parts, "tokens"), parts.done_s.tolist()) == ([4, 2], [1.0, 1.5])


def test_a_full_batch_lets_others_wait():
    out = run(crowd(2, 1, [old(1.0, 2)]), line(), max_seqs=1)
    assert out.latency_s.tolist() == [4.0, 8.0]
    assert rows(out, "running") == [1] * 6
    assert rows(out, "waiting") == [1, 1, 1, 0, 0, 0]


def test_a_prompt_is_let_in_if_all_of_it_finds_room():
    """The second needs five blocks of one token; three are left while the first is there."""
    two = [Request(3, 1), Request(5, 1)]
    room = {"block": 1, "blocks": 6, "max_model_len": 6, "max_tokens": 5, "max_seqs": 4}
    assert rows(run(two, **room), "tokens") == [3, 5]
    assert rows(run(two, reserve_prompt=False, **room), "tokens") == [5, 3]


def test_the_last_one_is_stopped_and_comes_back():
    """Six blocks of one token; A needs 5 in the end, B 4.

    Both prompts: 4 blocks. Both decode: 6. Then there are none: B is stopped, A takes the last of
    its three blocks, in the next step one more and is answered. B finds the first one and enters
    the other three of its four tokens, two of the prompt and two of the answer; that gives the
    third token.
    """
    two, room = [Request(2, 4), Request(2, 3)], {"block": 1, "blocks": 6, "max_model_len": 6}
    out = run(two, **room)
    assert rows(out, "blocks") == [4, 6, 4, 5, 4]
    assert rows(out, "tokens") == [4, 2, 1, 1, 3]
    assert rows(out, "samples") == [2, 2, 1, 1, 1]
    assert out.stops.tolist() == [0, 1]
    assert out.first_s.tolist() == [1, 1]
    assert out.done_s.tolist() == [6, 6.75]  # 1 + 2 + 1.5 + 1.5, and 3 x 0.25
    forgets = run(two, prefix_cache=False, **room)
    assert forgets.done_s.tolist() == [6, 7]  # all four


# ---------------------------------------------------------------- prefixes and images


def test_a_shared_prefix_is_computed_once():
    """Blocks of two tokens, a prefix of five: two full blocks of it are found."""
    first, later = (Request(6, 8, prefix="s", prefix_tokens=5),
                    Request(8, 1, arrival_s=1.0, prefix="s", prefix_tokens=5))  # fmt: skip
    for blocks in (0, 20):
        out = run([first, later], block=2, blocks=blocks, max_model_len=20)
        assert out.cached.tolist() == [0, 4]
        assert rows(out, "tokens")[:2] == [6, 1 + 4]  # one under way at 1.5, and 8 - 4
        # three blocks; then 7 tokens of the first and 8 of the other, two blocks of them shared
        assert rows(out, "blocks")[:2] == [3, 4 + 4 - 2]
    assert run([first, later], block=2, prefix_cache=False).cached.tolist() == [0, 0]


@pytest.mark.parametrize("blocks", [0, 10])
def test_a_prefix_is_found_after_all_have_left(blocks):
    """Also in a pool without end; but the last token of a prompt is always computed."""
    one = Request(4, 1, prefix="s", prefix_tokens=4)
    again = [Request(4, 1, float(t), "s", 4) for t in (10, 20)]
    out = run([one, *again, Request(5, 1, 30.0, "s", 4)], block=2, blocks=blocks, max_model_len=8)
    assert out.cached.tolist() == [0, 2, 2, 4]


def test_no_more_is_found_than_is_shared():
    sizes = enumerate((8, 2, 0))
    out = run([Request(8, 1, 10.0 * n, "s", shared) for n, shared in sizes],
              block=2)  # fmt: skip
    assert out.cached.tolist() == [0, 2, 0]


def test_who_finds_a_part_of_a_prefix_computes_the_rest_for_others():
    """Five blocks of a token. A leaves p p p and two free ones, which go first; X takes these and
    the last two of the prefix. B finds one and computes the others, which C finds."""
    shares = {"prefix": "p", "prefix_tokens": 3}
    four = [Request(4, 1, **shares), Request(4, 1, 10.0), Request(4, 1, 20.0, **shares),
            Request(4, 1, 30.0, **shares)]  # fmt: skip
    out = run(four, block=1, blocks=5, max_model_len=5)
    assert out.cached.tolist() == [0, 0, 1, 3]


@pytest.mark.parametrize(
    ("tokens", "took"), [(0, [3.5] * 4), (4, [3.5, 1.5, 3.5, 3.5]), (8, [3.5, 1.5, 3.5, 1.5])]
)
def test_an_image_is_encoded_unless_it_is_still_there(tokens, took):
    """4 x 0.5 s for the encoder, 6 x 0.25 s for the prompt; x, x, y, x."""
    times = line(prompt_token_s=0.25, image_token_s=0.5)
    names = enumerate("xxyx")
    out = run([Request(6, 1, 10.0 * n, image=name, image_tokens=4) for n, name in names], times,
              encoder_tokens=tokens)  # fmt: skip
    assert out.latency_s.tolist() == took


def test_the_image_that_was_asked_for_longest_ago_goes_first():
    """Room for two: z takes the place of y, not that of x."""
    asked = [Request(4, 1, 10.0 * n, image=name, image_tokens=4) for n, name in enumerate("xyxzx")]
    out = run(asked, line(prompt_token_s=0.25, image_token_s=0.5), encoder_tokens=8)
    assert out.latency_s.tolist() == [3, 3, 1, 3, 1]


# ---------------------------------------------------------------- clients


@pytest.mark.parametrize("clients", [1, 2, 3, 4])
def test_latency_of_clients_that_are_alike(clients):
    """All wait for all prompts, then are answered together: C P + n (a + C b)."""
    out = run(crowd(clients, 3, [old(3.0, 4)]), line(), max_seqs=4, mixed=False, one_by_one=True)
    expected = clients * 3.0 + 4 * (1.0 + 0.5 * clients)
    assert out.latency_s == pytest.approx([expected] * 3 * clients)
    assert out.requests_per_s == pytest.approx(clients / expected)


def test_prompts_that_enter_together_share_what_a_group_costs():
    three, times = crowd(3, 1, [old(1.0, 0)]), line(group_s=5.0)
    together = run(three, times, mixed=False)
    assert together.latency_s.tolist() == [8.0] * 3  # 5 + 3 x 1, once
    alone = run(three, times, mixed=False, one_by_one=True)
    assert alone.latency_s.tolist() == [6.0, 12.0, 18.0]


def test_rounds_wait_for_the_slowest():
    quick, slow = old(1.0, 0), old(5.0, 0)
    both = [[quick, quick], [slow, slow]]
    policy = {"mixed": False, "one_by_one": True}
    # in turn: 1, 1 + 5, then again; in rounds the quick one is sent again after 6 s only
    rounds = run(both, line(), rounds=True, **policy)
    assert rounds.sent_s[rounds.client == 0].tolist() == [0.0, 6.0]
    assert rounds.end_s == 12.0
    free = run(both, line(), **policy)
    assert free.sent_s[free.client == 0].tolist() == [0.0, 1.0]


def test_rounds_of_clients_with_unequal_numbers_of_requests():
    one = old(1.0, 0)
    out = run([[one], [one, one, one]], line(), rounds=True)
    assert sorted(out.client.tolist()) == [0, 1, 1, 1]
    assert out.sent_s.tolist() == [0, 0, 2, 3]


def test_clients_think_before_they_send():
    out = run([[old(1.0, 0), old(1.0, 0, arrival_s=3.0)]], line())
    assert (out.sent_s.tolist(), out.done_s.tolist()) == ([0, 4], [1, 5])


def test_a_run_that_is_ended_before_all_are_answered():
    out = run([old(1.0, 9), old(1.0, 0, arrival_s=100.0)], line(), until_s=6.0)
    # a prompt until 1, steps until 2.5, 4 and 5.5; the next one is under way
    assert (len(out), out.in_flight, out.arrived, out.end_s) == (0, 1, 1, 6.0)
    assert (out.tokens_per_s, out.requests_per_s) == (4 / 6, 0.0)
    assert (out.in_system, out.summaries()) == (1.0, {})


def test_who_is_too_long_is_rejected():
    three = [Request(3, 2), Request(3, 1), Request(4, 1)]
    out = run(three, max_model_len=4)
    assert (len(out), out.in_flight, out.arrived) == (1, 0, 3)
    assert out.number.tolist() == [1]
    assert out.rejected[0] == "request 0: 5 tokens, more than --max-model-len 4"
    clients = run([three], max_model_len=4)  # the client goes on with its next
    assert (len(clients), len(clients.rejected)) == (1, 2)
    nobody = run(three[::2], max_model_len=4)
    assert (len(nobody), nobody.end_s, nobody.in_system, nobody.utilisation) == (0, 0, 0, 0)


def test_a_crowd_deals_out_sizes_in_turn():
    dealt = crowd(2, 3, [Request(n, 1) for n in range(1, 4)])
    assert [[r.prompt for r in each] for each in dealt] == [[1, 3, 2], [2, 1, 3]]


# ---------------------------------------------------------------- several engines


@pytest.mark.parametrize(("route", "last"), [("round_robin", 6.0), ("least_loaded", 1.0)])
def test_which_engine_gets_a_request(route, last):
    """The third comes while the first engine works: in turn it is that one's, until 10."""
    three = [old(10.0, 0), old(1.0, 0), old(1.0, 0, arrival_s=5.0)]
    out = serve(three, Fleet(Pool(line(), Policy(max_seqs=1), engines=2), route=route))
    assert out.latency_s.tolist() == [10.0, 1.0, last]
    assert len(out.engines) == 2


TRANSFER = Transfer(token_bytes=10.0, bandwidth=20.0, latency_s=1.0)  # 4 tokens: 3 s


def apart(requests, engines=1, **policy):
    """Serve where prompts enter on engines of their own."""
    dear = LinearTimes(COST, prompt_s=100.0, image_token_s=100.0, group_s=100.0)
    fleet = Fleet(Pool(dear, Policy(**policy)), "round_robin", Pool(TOKENS, Policy(), engines),
                  TRANSFER)  # fmt: skip
    return serve(requests, fleet)


@pytest.mark.parametrize("mixed", [True, False])
def test_prompts_on_engines_of_their_own(mixed):
    """Prompts until 3; the third has all it wants. Links send one at a time: until 6 and 9.

    Steps of those that answer: the first alone from 6 to 7.5 and to 9, both to 11 (output 4).
    """
    three = [Request(4, 4), Request(4, 2), Request(4, 1)]
    out = apart(three, mixed=mixed)
    assert TRANSFER.seconds(4) == 3.0
    assert out.first_s.tolist() == [3, 3, 3]
    assert out.done_s.tolist() == [11, 11, 3]
    prompts, answers = out.engines
    assert (prompts.samples.tolist(), answers.samples.tolist()) == ([3], [1, 1, 2])
    assert answers.tokens.tolist() == [1, 1, 2]
    assert answers.blocks.tolist() == [1, 1, 2]


def test_what_is_brought_is_context_of_its_first_step():
    class Asked:
        def __init__(self):
            self.steps = []

        def seconds(self, step):
            self.steps.append((step.prompts, step.decodes, step.context))
            return 1.0

    for mixed in (True, False):
        asked = Asked()
        fleet = Fleet(Pool(asked, Policy(mixed=mixed)), prompts=Pool(TOKENS, Policy()),
                      transfer=TRANSFER)  # fmt: skip
        serve([Request(4, 4), Request(4, 2)], fleet)
        # at 5 one comes with 4, and has one more each second; at 8 the other, when it is answered
        assert asked.steps == [([], 1, 5), ([], 1, 6), ([], 1, 7), ([], 1, 5)]


def test_each_engine_has_a_link_of_its_own():
    out = apart([Request(4, 2), Request(4, 2)], engines=2)
    assert out.first_s.tolist() == [1, 1]
    assert out.done_s.tolist() == [6, 6]  # 1 + 3, then a step of both


def test_what_was_done_for_a_prompt_is_not_done_again():
    out = apart([Request(4, 2, image="x", image_tokens=2, work_s=5.0)])
    assert (out.first_s[0], out.done_s[0]) == (6.0, 6.0 + 3.0 + 1.5)


def test_what_was_brought_and_stopped_is_computed_again():
    """Blocks of a token, six: at 1 both have two and take one each. Then the second is stopped.

    The first has its other tokens at 4.5 and 6; the second enters its prompt and the two tokens
    that it has, 4 x 0.25, which gives the third token, and has the last at 8.5.
    """
    answers = Policy(block=1, blocks=6, max_model_len=6, prefix_cache=False)
    fleet = Fleet(Pool(TOKENS, answers), prompts=Pool(TOKENS, Policy(), engines=2),
                  transfer=Transfer(0.0, 1.0, 0.5))  # fmt: skip
    out = serve([Request(2, 4), Request(2, 4)], fleet)
    assert (out.first_s.tolist(), out.stops.tolist()) == ([0.5, 0.5], [0, 1])
    assert out.engines[2].blocks.tolist() == [6, 4, 5, 4, 5]
    assert out.engines[2].samples.tolist() == [2, 1, 1, 1, 1]
    assert out.done_s.tolist() == [6, 8.5]


# ---------------------------------------------------------------- times and summaries


def test_times_of_a_few_numbers():
    times = LinearTimes(StepCost(1.0, 0.5), prompt_s=10.0, prompt_token_s=0.25, image_token_s=2.0,
                        group_s=100.0)  # fmt: skip
    step = Step([(8, 0), (4, 16)], 1, 3, 3000, [5, 6], 1000.0)
    assert (step.tokens, step.samples) == (15, 4)
    # work + 11 x 2 + (100 + 2 x 10 + 12 x 0.25) + (1 + 3 x 0.5)
    assert times.seconds(step) == 1000 + 22 + 123 + 2.5
    assert times.seconds(Step(decodes=3)) == 2.5
    assert times.seconds(Step()) == 0.0


def test_summaries_of_three_requests():
    out = run([Request(4, 3), Request(4, 1), Request(4, 5)])
    # prompts until 3; two together until 5 and 7, the third alone until 8.5 and 10
    assert out.ttft_s.tolist() == [3, 3, 3]
    assert out.latency_s.tolist() == [7, 3, 10]
    np.testing.assert_array_equal(out.tpot_s, [4 / 2, np.nan, 7 / 4])
    told = out.summaries()
    assert (told["latency"].mean_s, told["tpot"].count) == (pytest.approx(20 / 3), 2)
    assert out.goodput(Limits()) == out.requests_per_s == 3 / 10
    assert out.goodput(Limits(tpot_s=1.75)) == 2 / 10  # who has one token has no TPOT to miss
    assert out.goodput(Limits(latency_s=9.0)) == 2 / 10
    assert out.goodput(Limits(ttft_s=3.0, latency_s=5.0)) == 1 / 10
    assert out.goodput(Limits(ttft_s=2.9)) == 0.0
    assert out.in_system == 20 / 10


def test_what_went_on_over_time():
    out = run([Request(4, 3), Request(4, 1), Request(4, 5)])
    # steps end at 3, 5, 7, 8.5 and 10 and enter 12, 2, 2, 1 and 1 tokens
    parts = out.over_time(4.0)
    assert parts["t"].tolist() == [4, 8, 12]
    assert (parts["tokens_per_s"] * 4).tolist() == [12, 4, 2]
    assert (parts["answer_tokens_per_s"] * 4).tolist() == [3, 4, 2]
    assert parts["running"].tolist() == [3, 2, 1]
    assert np.isnan(out.over_time(1.0)["running"][:2]).all()  # no step ended before 3
