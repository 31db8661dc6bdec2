"""The serving core against an engine in which every block is an object (`tests.serving_oracle`)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, serve
from npusim.step_cost import StepCost
from tests.serving_oracle import Naive

LINEAR = LinearTimes(StepCost(1.0, 0.25), prompt_s=0.5, prompt_token_s=0.125, image_token_s=0.0625,
                     group_s=2.0)  # fmt: skip


class Telling:
    """Times that differ wherever a step differs; powers of two, so that sums are exact."""

    def seconds(self, step):
        there = sum(new * before for new, before in step.prompts)
        return LINEAR.seconds(step) + step.context / 1024 + there / 4096


def told(step):
    """Return the same time, from plain numbers."""
    prompts, decodes, context, images, work = step
    time = work + sum(images) / 16 + context / 1024 + sum(n * b for n, b in prompts) / 4096
    if prompts:
        time += 2.0 + len(prompts) / 2 + sum(n for n, _ in prompts) / 8
    if decodes:
        time += 1.0 + decodes / 4
    return time


NAMES = {"a": 6, "b": 11, "c": 16}
sixteenths = st.integers(0, 400).map(lambda n: n / 16)


@st.composite
def asked(draw):
    name = draw(st.sampled_from(["", "", *NAMES]))
    picture = draw(st.sampled_from(["", "", "", "x", "y", "z"]))
    prompt = draw(st.integers(1, 40))
    shared = min(NAMES.get(name, 0), prompt)
    tokens = {"x": 3, "y": 5, "z": 9}.get(picture, 0)
    if tokens > prompt:
        picture, tokens = "", 0
    return Request(prompt, draw(st.integers(1, 12)), draw(sixteenths), name, shared, picture,
                   tokens, draw(st.sampled_from([0.0, 0.0, 0.5])))  # fmt: skip


workloads = st.lists(asked(), min_size=1, max_size=12)


@st.composite
def policies(draw, requests):
    longest = max(r.tokens for r in requests)
    block, chunked, seqs = draw(st.integers(1, 8)), draw(st.booleans()), draw(st.integers(1, 8))
    tokens = seqs + draw(st.integers(0, 30)) if chunked else longest + draw(st.integers(0, 20))
    least = -(-longest // block)
    some = st.booleans()
    return Policy(
        max_seqs=seqs, max_tokens=max(tokens, seqs), max_model_len=longest,
        blocks=draw(st.one_of(st.just(0), st.integers(least, 2 * least + 6))), block=block,
        chunked=chunked, mixed=draw(some), one_by_one=draw(some), prefix_cache=draw(some),
        reserve_prompt=draw(some), encoder_tokens=draw(st.sampled_from([0, 5, 8, 20])),
    )  # fmt: skip


def agree(requests, policy):
    run = serve(requests, Fleet(Pool(Telling(), policy)))
    naive = Naive(policy, told)
    one_by_one = naive.serve(requests)
    course = run.engines[0]
    columns = (course.end_s, course.tokens, course.samples, course.running, course.waiting,
               course.blocks)  # fmt: skip
    assert list(zip(*(c.tolist() for c in columns), strict=True)) == naive.rows
    assert run.number.tolist() == [one.number for one in one_by_one]
    for name, each in (("entered_s", "entered"), ("first_s", "first"), ("done_s", "done"),
                       ("stops", "stops"), ("cached", "cached")):  # fmt: skip
        assert getattr(run, name).tolist() == [getattr(one, each) for one in one_by_one], name
    assert naive.used == 0
    return run


@given(st.data())
def test_the_same_as_block_by_block(data):
    requests = data.draw(workloads)
    agree(requests, data.draw(policies(requests)))


@given(st.data())
def test_the_same_where_room_is_tight(data):
    """All at once, long answers, no more blocks than the longest needs and a few."""
    requests = [replace(r, arrival_s=r.arrival_s / 16) for r in data.draw(workloads)]
    policy = data.draw(policies(requests))
    least = -(-policy.max_model_len // policy.block)
    agree(requests, replace(policy, blocks=least + data.draw(st.integers(0, 4)), max_seqs=8,
                            max_tokens=max(policy.max_tokens, 8), prefix_cache=True))  # fmt: skip
