"""What cannot be served is refused in one line that names it, whatever was given instead."""

import pytest

from npusim.errors import InputError
from npusim.serving import (
    Fleet,
    Limits,
    LinearTimes,
    Policy,
    Pool,
    Request,
    Transfer,
    serve,
)
from npusim.step_cost import StepCost

TIMES = LinearTimes(StepCost(1.0, 0.5))
POOL = Pool(TIMES, Policy())
LINK = Transfer(1.0, 1.0)
ONE = Request(1, 2)
NAN, INF = float("nan"), float("inf")
NO_TIME = [-1.0, NAN, INF, -INF, "1", None, True, [1.0], 10**400, 1j]
NO_COUNT = [-1, 1.0, 1.5, NAN, INF, "3", None, True, [1]]
NO_TEXT = [None, 5, b"s", ["s"], True]


def short(value):
    return repr(value)[:12]


def refused(make, place):
    with pytest.raises(InputError) as error:
        make()
    assert str(error.value).startswith(f"{place}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", NO_TIME, ids=short)
@pytest.mark.parametrize("place", ["arrival_s", "work_s", "outside_s"])
def test_times_of_a_request(place, value):
    refused(lambda: Request(1, 1, **{place: value}), place)


@pytest.mark.parametrize("value", [*NO_COUNT, 100_000_001])
@pytest.mark.parametrize("place", ["prompt", "output", "prefix_tokens", "image_tokens"])
def test_tokens_of_a_request(place, value):
    refused(lambda: Request(**{"prompt": 1, "output": 1, place: value}), place)
    if place in ("prompt", "output"):
        refused(lambda: Request(**{"prompt": 1, "output": 1, place: 0}), place)


@pytest.mark.parametrize("value", NO_TEXT)
@pytest.mark.parametrize("name", ["prefix", "image"])
def test_names_of_what_is_shared(name, value):
    refused(lambda: Request(5, 1, **{name: value, f"{name}_tokens": 2}), name)


@pytest.mark.parametrize("name", ["prefix", "image"])
def test_parts_of_a_prompt(name):
    refused(lambda: Request(5, 1, **{f"{name}_tokens": 2}), f"{name}_tokens")
    refused(lambda: Request(5, 1, **{name: "s", f"{name}_tokens": 6}), f"{name}_tokens")
    Request(5, 1, **{name: "s", f"{name}_tokens": 5})


FLAGS = {"max_seqs": "--max-num-seqs", "max_tokens": "--max-num-batched-tokens",
         "max_model_len": "--max-model-len", "block": "--block-size",
         "blocks": "blocks of KV cache", "encoder_tokens": "encoder cache"}  # fmt: skip


@pytest.mark.parametrize("value", NO_COUNT)
@pytest.mark.parametrize("name", FLAGS)
def test_sizes_of_a_policy(name, value):
    refused(lambda: Policy(**{name: value}), FLAGS[name])


@pytest.mark.parametrize("name", ["max_seqs", "max_tokens", "max_model_len", "block"])
def test_nothing_at_all(name):
    refused(lambda: Policy(**{name: 0}), FLAGS[name])


@pytest.mark.parametrize("value", [0, 1, "no", None, NAN])
@pytest.mark.parametrize("name", ["chunked", "mixed", "one_by_one", "prefix_cache",
                                  "reserve_prompt"])  # fmt: skip
def test_switches_of_a_policy(name, value):
    refused(lambda: Policy(**{name: value}), name)


@pytest.mark.parametrize(
    ("settings", "place"),
    [({"blocks": 10, "block": 16, "max_model_len": 161}, "--max-model-len"),
     ({"chunked": False, "max_tokens": 2048, "max_model_len": 2049}, "--max-num-batched-tokens"),
     ({"max_seqs": 9, "max_tokens": 8}, "--max-num-batched-tokens"),
     ({"block": 10**12}, "--block-size")],
)  # fmt: skip
def test_settings_that_do_not_go_together(settings, place):
    refused(lambda: Policy(**settings), place)


def test_settings_that_just_go_together():
    Policy(blocks=10, block=16, max_model_len=160)
    Policy(chunked=False, max_tokens=2048, max_model_len=2048)
    Policy(max_seqs=8, max_tokens=8)


@pytest.mark.parametrize("value", NO_TIME, ids=short)
@pytest.mark.parametrize("place", ["prompt_s", "prompt_token_s", "image_token_s", "group_s"])
def test_times_of_steps(place, value):
    refused(lambda: LinearTimes(StepCost(1.0, 0.5), **{place: value}), place)


@pytest.mark.parametrize("value", [None, 1.0, "1", {1: 1.0}])
def test_the_cost_of_a_step(value):
    refused(lambda: LinearTimes(value), "decode")


@pytest.mark.parametrize("value", NO_TIME, ids=short)
@pytest.mark.parametrize("place", ["token_bytes", "bandwidth", "latency_s"])
def test_a_transfer(place, value):
    refused(lambda: Transfer(**{"token_bytes": 1.0, "bandwidth": 1.0, place: value}), place)


def test_a_link_that_carries_nothing():
    refused(lambda: Transfer(1.0, 0.0), "bandwidth")
    assert Transfer(0.0, 1.0).seconds(100) == 0.0


@pytest.mark.parametrize("value", [v for v in NO_TIME if v != INF], ids=short)
@pytest.mark.parametrize("place", ["ttft_s", "tpot_s", "latency_s"])
def test_limits(place, value):
    refused(lambda: Limits(**{place: value}), place)


@pytest.mark.parametrize("value", [0, *NO_COUNT, 10**9])
def test_engines_of_a_pool(value):
    refused(lambda: Pool(TIMES, Policy(), value), "engines")


@pytest.mark.parametrize(
    ("make", "place"),
    [(lambda: Pool("fast", Policy()), "times"), (lambda: Pool(None, Policy()), "times"),
     (lambda: Pool(TIMES, None), "policy"), (lambda: Pool(TIMES, {"max_seqs": 1}), "policy"),
     (lambda: Fleet(TIMES), "pool"), (lambda: Fleet(POOL, "fastest"), "route"),
     (lambda: Fleet(POOL, None), "route"), (lambda: Fleet(POOL, ["round_robin"]), "route"),
     (lambda: Fleet(POOL, prompts=POOL), "prompts, transfer"),
     (lambda: Fleet(POOL, transfer=LINK), "prompts, transfer"),
     (lambda: Fleet(POOL, prompts=1, transfer=LINK), "prompts"),
     (lambda: Fleet(POOL, prompts=POOL, transfer=1.0), "transfer")],
)  # fmt: skip
def test_fleets(make, place):
    refused(make, place)


@pytest.mark.parametrize(
    "requests",
    [None, 5, "text", [1, 2], [ONE, None], [ONE, [ONE]], [[ONE], ONE], [[ONE], [5]], {1: ONE}],
)
def test_what_is_no_request(requests):
    refused(lambda: serve(requests, Fleet(POOL)), "requests")


@pytest.mark.parametrize("requests", [[], [[]], [[], []]])
def test_no_requests(requests):
    refused(lambda: serve(requests, Fleet(POOL)), "not a run that can be simulated")


@pytest.mark.parametrize("value", [0, 0.0, *(v for v in NO_TIME if v is not None)], ids=short)
def test_when_to_end(value):
    refused(lambda: serve([ONE], Fleet(POOL), until_s=value), "until_s")


def test_other_arguments_of_a_run():
    refused(lambda: serve([ONE], POOL), "fleet")
    refused(lambda: serve([ONE], Fleet(POOL), rounds=True), "rounds")  # who would wait?


def test_a_run_that_takes_no_time():
    nothing = Fleet(Pool(LinearTimes(StepCost(0.0, 0.0)), Policy()))
    refused(lambda: serve([ONE], nothing), "a run that takes no time")


@pytest.mark.parametrize("value", [0, 1e-9, *NO_TIME], ids=short)
def test_parts_of_a_run(value):
    out = serve([ONE], Fleet(POOL))
    refused(lambda: out.over_time(value), "every_s")


def test_engines_for_prompts_are_asked_for_one_token():
    """Four tokens of a prompt and the first of its answer, whatever the others make of it."""
    short = Pool(TIMES, Policy(max_model_len=5))
    fleet = Fleet(POOL, prompts=short, transfer=LINK)
    assert serve([Request(4, 20)], fleet).rejected == ()
    assert len(serve([Request(5, 1)], fleet).rejected) == 1
    assert len(serve([Request(4, 2)], Fleet(short, prompts=POOL, transfer=LINK)).rejected) == 1
