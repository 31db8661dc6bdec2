"""Step times on a grid beside replays of the templates that they are made of."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim import step_times
from npusim.arch import with_value
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.predict import replay
from npusim.serving import Step
from npusim.step_times import CAPTURED, GridTimes, Line, Plane, Sizes, grid_times
from npusim.templates import template

SIZES = Sizes(tokens=544, requests=32, context=1024)
SMALL = Sizes(tokens=16, requests=8, context=256)
SHORT = 128  # tokens: below where attention is split, so all its kernels are those of rest's replay


def decode(model="paddleocr_vl"):
    return lambda b, c: template(model, "decode", batch=b, context=c, lowering="serving")


def prompt(model="paddleocr_vl"):
    return lambda n, c: template(model, "prefill", context=c or n, new=n if c else None,
                                 lowering="serving")  # fmt: skip


def decoding(b, context):
    return Step(decodes=b, context=b * context)


@pytest.fixture(scope="module")
def h200():
    return load_arch("h200")


@pytest.fixture(scope="module")
def times(h200):
    return grid_times(decode(), prompt(), h200, SIZES, "graph", (1, 2, 4, 8, 16, 32))


@pytest.fixture(scope="module")
def eager(h200):
    return grid_times(decode(), prompt(), h200, SMALL, "eager")


@pytest.fixture(scope="module")
def llama(h200):
    return grid_times(decode("llama_3_1_8b"), prompt("llama_3_1_8b"), h200, SMALL, "graph",
                      (1, 8, 16))  # fmt: skip


@pytest.mark.parametrize("b", [1, 8, 32])
def test_a_decode_step_at_a_grid_point_is_its_replay(times, h200, b):
    # 0.1 %: attention comes from another grid, and caches are warmer or colder around it
    expected = replay(decode()(b, SHORT), h200, "graph").wall_s
    assert times.seconds(decoding(b, SHORT)) == pytest.approx(expected, rel=1e-3)


def test_a_decode_step_of_a_larger_model_is_its_replay(llama, h200):
    for b in (1, 8):
        expected = replay(decode("llama_3_1_8b")(b, SHORT), h200, "graph").wall_s
        assert llama.seconds(decoding(b, SHORT)) == pytest.approx(expected, rel=1e-3)
        # weights of 15 GB at 4.8 TB/s are a floor under it
        assert expected > 15e9 / 4.8e12


@pytest.mark.parametrize(("b", "context"), [(8, 1024), (32, 512), (8, 412), (3, 200), (24, 700)])
def test_decode_steps_with_split_attention_and_between_points(times, h200, b, context):
    """Between points within 4 %: attention has steps there, where it is split over more units."""
    rows = next(c for c in (1, 2, 4, 8, 16, 32) if c >= b)  # what a graph was captured for
    low = replay(decode()(b, context), h200, "graph").wall_s
    high = replay(decode()(rows, context), h200, "graph").wall_s
    assert 0.96 * low <= times.seconds(decoding(b, context)) <= 1.02 * high


@pytest.mark.parametrize("n", [16, 64, 256, 544])
def test_a_prompt_alone_is_its_replay(times, h200, n):
    # 4 %: the head is of one row either way, but the tail of a decode step is taken
    expected = replay(prompt()(n, 0), h200, "graph").wall_s
    assert times.seconds(Step([(n, 0)], 1)) == pytest.approx(expected, rel=0.04)


@pytest.mark.parametrize(("n", "before"), [(16, 128), (64, 128), (256, 512)])
def test_a_part_of_a_prompt_is_its_replay(times, h200, n, before):
    expected = replay(prompt()(n, before), h200, "graph").wall_s
    assert times.seconds(Step([(n, before)], 1)) == pytest.approx(expected, rel=0.04)


def test_a_mixed_step_is_the_sum_of_its_parts(times, h200):
    """512 tokens of a prompt beside 32 requests of 512 tokens: products of 544 rows, once."""
    step = Step([(512, 0)], 1, 32, 32 * 512)
    by_hand = (times.rest.at(544) + times.head.at(33) + times.decode.at(32, 512)
               + times.prompt.at(512, 0) + times.tail.at(544))  # fmt: skip
    assert times.host.at(544) < times.rest.at(544)
    assert times.seconds(step) == pytest.approx(by_hand, rel=1e-12)
    # From replays alone: together they take less than one after the other, by about what the
    # weights take to read once more, and longer than either alone.
    alone = replay(prompt()(512, 0), h200, "graph").wall_s
    others = replay(decode()(32, 512), h200, "graph").wall_s
    assert max(alone, others) < times.seconds(step) < 0.97 * (alone + others)


def test_its_parts_are_those_of_replays(times, h200):
    """Attention at a grid point is the attention of that template and nothing else's time."""
    long, short = (replay(decode()(32, c), h200, "graph") for c in (1024, SHORT))
    grown = times.decode.at(32, 1024) - times.decode.at(32, SHORT)
    assert grown == pytest.approx(long.device_busy_s - short.device_busy_s, rel=0.02)
    # keys and values of 18,432 bytes a token are read once more for each token of context
    assert grown > 32 * (1024 - SHORT) * 18_432 / 4.8e12


def test_captured_sizes_round_up(times):
    for b in (17, 20, 31):
        assert times.rest.at(b) != times.rest.at(32)
        attention = times.decode.at(b, SHORT) - times.decode.at(32, SHORT)
        head = times.head.at(b) - times.head.at(32)
        same = times.seconds(decoding(32, SHORT)) + attention + head
        assert times.seconds(decoding(b, SHORT)) == pytest.approx(same, rel=1e-12)
    free = GridTimes(times.rest, times.host, times.tail, times.head, times.decode, times.prompt)
    assert free.seconds(decoding(9, SHORT)) < times.seconds(decoding(9, SHORT))
    # beyond the largest one each size has its own time
    assert times.seconds(Step([(40, 0)], 1)) == free.seconds(Step([(40, 0)], 1))


def test_a_host_that_holds_up_the_device_hides_the_context(eager, h200):
    found = [eager.seconds(decoding(4, c)) for c in (16, 128, 200, 256)]
    assert found == [found[0]] * 4
    expected = replay(decode()(4, SHORT), h200, "eager")
    assert expected.host_busy_s > expected.device_busy_s
    assert found[0] == pytest.approx(expected.wall_s, rel=1e-3)


@given(st.integers(1, 32), st.integers(1, 1024), st.integers(0, 1024))
def test_more_context_takes_no_less(times, b, context, more):
    """But for 2 %: attention of one request is faster where it begins to be split."""
    longer = min(context + more, 1024)
    assert times.seconds(decoding(b, context)) <= 1.02 * times.seconds(decoding(b, longer))
    assert times.seconds(decoding(b, context)) < times.seconds(decoding(b, context + 1024))


@given(st.integers(1, 32), st.integers(1, 1024), st.integers(0, 400))
def test_ends_of_the_band_are_around_the_middle(times, b, context, new):
    step = Step([(new, 0)] if new else [], int(new > 0), b, b * context)
    low, middle, high = (times.at_end(end).seconds(step) for end in step_times.ENDS)
    assert 0 < low < middle < high
    assert times.at_end("middle").seconds(step) == times.seconds(step)


def test_ends_of_the_band_are_those_of_the_replay(times, h200):
    band = replay(decode()(32, SHORT), h200, "graph").band.wall_s
    for end, expected in zip(("low", "high"), band, strict=True):
        found = times.at_end(end).seconds(decoding(32, SHORT))
        assert found == pytest.approx(expected, rel=3e-3)


def test_ends_that_are_none(times):
    with pytest.raises(InputError, match="no end of a band"):
        times.at_end("top")
    bare = GridTimes(*[Line((1.0,), (1.0,))] * 4, *[Plane((1.0,), (Line((1.0,), (1.0,)),))] * 2)
    assert bare.at_end("middle") == bare
    with pytest.raises(InputError, match="these times have no band"):
        bare.at_end("low")


FLAT = Plane((1.0,), (Line((1.0,), (0.0,)),))


def flat(rest=2.0, host=1.0, tail=0.25, head=0.5, **more):
    lines = [Line((1.0,), (y,)) for y in (rest, host, tail, head)]
    return GridTimes(*lines, FLAT, FLAT, **more)


def test_a_step_of_nothing_takes_its_work():
    assert flat(engine_s=1.0).seconds(Step()) == 0
    assert flat(engine_s=1.0).seconds(Step(work_s=0.125)) == 0.125


def test_each_part_of_a_step_counts_as_the_head_of_the_module_says():
    one = Step(decodes=1, context=10)
    assert flat().seconds(one) == 2.0 + 0.5 + 0.25
    assert flat(host=9.0).seconds(one) == 9.0 + 0.25
    assert flat(engine_s=1.0).seconds(one) == 3.75
    assert flat().seconds(Step([(5, 0)])) == 2.0 + 0.25  # no answer yet, so no head
    assert flat().seconds(Step([(5, 0)], 1)) == 2.75
    seen = Step([(5, 0)], 1, images=[100, 50], work_s=0.5)
    assert flat(image_token_s=(0.01, 0.01, 0.01)).seconds(seen) == pytest.approx(2.75 + 1.5 + 0.5)
    # images have a band of their own, work before it has none
    ends = (Line((1.0,), (0.5,)), Line((1.0,), (2.0,)))
    high = flat(image_token_s=(0.005, 0.01, 0.03), ends=ends, end="high")
    assert high.seconds(seen) == pytest.approx(5.5 + 4.5 + 0.5)


def test_attention_of_prompts_is_each_on_its_own():
    plane = Plane((1.0, 9.0), (Line((0.0, 8.0), (1.0, 9.0)), Line((0.0, 8.0), (9.0, 17.0))))
    times = GridTimes(*[Line((1.0,), (0.0,))] * 4, FLAT, plane)
    assert times.seconds(Step([(1, 0), (5, 4), (9, 8)])) == 1 + (5 + 4) + 17


def test_a_power_limit_slows_steps_down(h200):
    limited, sizes = with_value(h200, "power.limit", 150.0), Sizes(4, 2, 128)
    held, free = (grid_times(decode(), prompt(), arch, sizes, "graph") for arch in (limited, h200))
    step = Step([(4, 0)], 1)
    assert held.seconds(step) > 1.02 * free.seconds(step)
    expected = replay(prompt()(4, 0), limited, "graph").wall_s
    assert held.seconds(step) == pytest.approx(expected, rel=0.05)


def test_progress_is_told_in_shares_that_rise_to_one(h200):
    told = []
    grid_times(decode(), prompt(), h200, Sizes(2, 2, 2), "graph", (1, 2), told.append)
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1)


@pytest.mark.parametrize("sizes", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (True, 1, 1), (1.5, 1, 1)])
def test_sizes_that_are_none(sizes):
    with pytest.raises(InputError, match=r"^(tokens|requests|context): not a size"):
        Sizes(*sizes)


def test_the_smallest_grid(h200):
    smallest = grid_times(decode(), prompt(), h200, Sizes(1, 1, 1), "graph", CAPTURED[:1])
    assert smallest.seconds(decoding(1, 1)) > 0
    assert smallest.seconds(Step([(1, 0)], 1)) > 0


points = st.lists(
    st.tuples(st.integers(0, 1000), st.floats(0, 1e3)), min_size=1, max_size=8,
    unique_by=lambda p: p[0],
).map(sorted)  # fmt: skip


@given(points, st.floats(-10, 1100))
def test_a_line_is_exact_at_points_and_between_its_neighbours(found, x):
    xs, ys = zip(*found, strict=True)
    line = Line(tuple(map(float, xs)), ys)
    assert [line.at(float(p)) for p in xs] == pytest.approx(list(ys))
    assert line.at(min(x, xs[0])) == ys[0]
    for (x0, y0), (x1, y1) in pairwise(found):
        if x0 <= x <= x1:
            assert min(y0, y1) - 1e-9 <= line.at(x) <= max(y0, y1) + 1e-9


@given(points, points, st.floats(0, 1), st.floats(0, 1100))
def test_a_plane_lies_between_its_lines(one, other, share, y):
    lines = tuple(Line(tuple(float(p) for p, _ in at), tuple(v for _, v in at))
                  for at in (one, other))  # fmt: skip
    plane = Plane((1.0, 3.0), lines)
    low, high = (line.at(y) for line in lines)
    assert plane.at(0.5, y) == low
    assert plane.at(3.0, y) == pytest.approx(high, abs=1e-9)
    assert plane.at(1 + 2 * share, y) == pytest.approx(low + share * (high - low), abs=1e-6)


def test_a_prompt_is_held_down_by_its_own_power(h200):
    """Products of a prompt take more power than a decode step of as many sequences."""
    how = {"lowering": "serving", "settings": {"decoder.layers": 2}}
    times = grid_times(
        lambda b, c: template("llama_3_1_8b", "decode", batch=b, context=c, **how),
        lambda n, c: template("llama_3_1_8b", "prefill", context=c or n, new=n if c else None,
                                 **how),
        h200, Sizes(2048, 8, 2048),
    )  # fmt: skip
    whole = replay(template("llama_3_1_8b", "prefill", context=2048, **how), h200, "graph")
    assert whole.clock_share < 0.9
    assert times.seconds(Step([(2048, 0)], 1)) == pytest.approx(whole.wall_s, rel=0.03)


def test_a_cache_that_is_copied_is_refused(h200):
    def decode(b, c):
        return template("paddleocr_vl", "decode", batch=b, context=c, lowering="hf-eager")

    with pytest.raises(InputError, match="kernels beside attention grow with the context"):
        grid_times(decode, decode, h200, Sizes(4, 2, 4096))
