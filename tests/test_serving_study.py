"""Serving studies: every mistake by line and path, what is run, and what guides claim of it."""

import numpy as np
import pytest

from npusim import catalog
from npusim.errors import InputError, InputErrors, NpusimError
from npusim.load import load_arch
from npusim.memory_plan import memory_plan
from npusim.serving_block import read_serving
from npusim.serving_study import notes, run_study, told

ENGINE = "{max_num_seqs: 4, max_num_batched_tokens: 16, max_model_len: 256}"
ASKED = "{arrivals: poisson, rate_per_s: 200, count: 12, prompt: 50, output: 10}"
TEXT = f"""title: Tiny
question: How long?
source: made for a test
arch: h200
serving:
  model: paddleocr_vl
  engine: {ENGINE}
  requests: {ASKED}
"""


@pytest.fixture
def study(tmp_path):
    """Return a study: the small one, with lines added below its serving block."""

    def made(more="", text=TEXT, **changed):
        for old, new in changed.values():
            assert old in text
            text = text.replace(old, new)
        file = tmp_path / "study.yaml"
        file.write_text(text + "".join(f"  {line}\n" for line in more.splitlines()))
        return read_serving(file)

    return made


def run(study, **how):
    return run_study(study, **{"band": False} | how)


def engine(more):
    return {"engine": (ENGINE, f"{ENGINE[:-1]}, {more}}}")}


def requests(text):
    return {"requests": (ASKED, text)}


MISTAKES = [
    ("", {"a": ("engine:", "enginee:")}, ["line 7, serving.enginee: unknown key: 'enginee'"]),
    ("", {"a": ("max_num_seqs", "max_nm_seqs")}, ["line 7, serving.engine.max_nm_seqs: unknown"]),
    ("", {"a": ("max_num_seqs: 4", "max_num_seqs: four")},
     ["line 7, serving.engine.max_num_seqs: not a whole number: 'four'"]),
    ("", {"a": ("max_num_seqs: 4", "max_num_seqs: true")},
     ["line 7, serving.engine.max_num_seqs: not a whole number: True"]),
    ("", {"a": ("max_num_seqs: 4", "max_num_seqs: 0")}, ["max_num_seqs: out of bounds: 0"]),
    ("", {"a": ("  model: paddleocr_vl\n", "")}, ["line 5, serving.model: is missing"]),
    ("launch: fast", {}, ["line 9, serving.launch: not one of those allowed: 'fast'"]),
    ("until: 0 s", {}, ["line 9, serving.until: out of bounds: '0 s' (allowed: above 0 s)"]),
    ("until: 3 m", {}, ["line 9, serving.until: has the wrong unit: '3 m'"]),
    ("until: true", {}, ["line 9, serving.until: not a quantity: True"]),
    ("limits: {tft: 1 s}", {}, ["line 9, serving.limits.tft: unknown key"]),
    ("limits: {ttft: 3, tpot: 5 MB}", {},
     ["line 9, serving.limits.ttft: has no unit", "line 9, serving.limits.tpot: has the wrong"]),
    ("", engine("step_overhead: -1 ms"), ["step_overhead: out of bounds: '-1 ms' (allowed: from"]),
    ("", engine("gpu_memory_utilization: 1.5"), ["gpu_memory_utilization: out of bounds: 1.5"]),
    ("", {"a": ("rate_per_s: 200, ", "")}, ["line 8, serving.requests: poisson needs rate_per_s"]),
    ("", requests("{arrivals: poisson, rate_per_s: 1, clients: 3, think: 1 s}"),
     ["poisson needs count", "poisson needs prompt", "poisson needs output",
      "serving.requests.clients: has no effect with arrivals: poisson",
      "serving.requests.think: has no effect with arrivals: poisson"]),
    ("", requests("{arrivals: clients, prompt: 5, output: 5, rate_per_s: 3}"),
     ["clients needs clients", "clients needs each", "rate_per_s: has no effect"]),
    ("", requests("{arrivals: file, seed: 3}"), ["file needs file", "seed: has no effect"]),
    ("", {"a": ("count: 12", "count: 12, images: 3")}, ["images: has no effect without image"]),
    ("", {"a": ("rate_per_s: 200", "rate_per_s: 0")}, ["rate_per_s: out of bounds: 0"]),
    ("", {"a": ("rate_per_s: 200", "rate_per_s: .nan")}, ["rate_per_s: not a number: '.nan'"]),
    ("", {"a": ("rate_per_s: 200", "rate_per_s: 20 /s")}, ["rate_per_s: not a number: '20 /s'"]),
    ("", {"a": ("prompt: 50", "prompt: 0")}, ["requests.prompt: neither a whole number"]),
    ("", {"a": ("prompt: 50", "prompt: 5.5")}, ["requests.prompt: neither a whole number"]),
    ("", {"a": ("prompt: 50", "prompt: {mean: 5, sprad: 1}")}, ["prompt.sprad: unknown key"]),
    ("", {"a": ("prompt: 50", "prompt: {mean: 0.5}")}, ["prompt.mean: out of bounds: 0.5"]),
    ("axes: {nope: [1]}", {}, ["line 9, serving.axes.nope: unknown axis: 'nope'"]),
    ("axes: {model: [a]}", {}, ["unknown axis: 'model'"]),
    ("axes: {'': [1]}", {}, ["unknown axis: ''"]),
    ("axes: {limits.ttft: [1 s]}", {}, ["unknown axis: 'limits.ttft'"]),
    ("axes: {engine.nope: [1]}", {}, ["unknown axis: 'engine.nope' (allowed: engine.max_num_seqs"]),
    ("axes: {memories.dram.bandwith: [1 TB/s]}", {}, ["(allowed: memories.dram.bandwidth"]),
    ("axes: {workload.gemv: [1]}", {}, ["unknown axis"]),
    ("axes: {requests.arrivals: [clients]}", {}, ["unknown axis: 'requests.arrivals'"]),
    ("axes: {requests.clients: [4]}", {}, ["axes.requests.clients: has no effect with arrivals"]),
    ("axes: {requests.images: [4]}", {}, ["axes.requests.images: has no effect without image"]),
    ("axes: {prefill.engines: [1, 2]}", {}, ["axes.prefill.engines: has no effect without"]),
    ("axes: {engine.max_num_seqs: []}", {}, ["axes.engine.max_num_seqs: list should have"]),
    ("axes: {engine.max_num_seqs: 4}", {}, ["axes.engine.max_num_seqs: not a list: 4"]),
    ("axes: {engine.max_num_seqs: [4, 0, a]}", {},
     ["not a value of it: 0", "not a value of it: 'a'"]),
    ("axes: {engine.chunked_prefill: [true, 1]}", {}, ["not a value of it: 1"]),
    ("axes: {launch: [graph, fast]}", {}, ["axes.launch: not a value of it: 'fast'"]),
    ("axes: {engines: [0]}", {}, ["axes.engines: not a value of it: 0"]),
    ("axes: {requests.prompt: [5, {mean: 5}]}", {}, ["axes.requests.prompt.1: not a single value"]),
    ("axes: {requests.prompt: [.nan]}", {}, ["axes.requests.prompt: not a value of it: '.nan'"]),
    ("axes: {engine.step_overhead: [3]}", {}, ["axes.engine.step_overhead: has no unit: '3'"]),
    ("axes: {memories.dram.bandwidth: [1 TB, -1 TB/s]}", {},
     ["has the wrong unit: '1 TB'", "out of bounds: -1 TB/s"]),
    ("set: {memories.dram.bandwdth: 3 TB/s, memories.dram.bandwidth: 3}", {},
     ["serving.set.memories.dram.bandwdth: unknown parameter",
      "serving.set.memories.dram.bandwidth: has no unit"]),
    ("set: {workload.batch: 4}", {}, ["serving.set.workload.batch: cannot be changed"]),
    ("limits: {ttft: 3}\naxes: {nope: [1], engine.max_num_seqs: [a]}\nset: {a: 3}",
     {"a": ("count: 12, ", ""), "b": ("max_model_len: 256", "max_model_len: 256, "
                                                            "step_overhead: 3 MB")},
     ["line 7, serving.engine.step_overhead: has the wrong unit", "line 9, serving.limits.ttft",
      "line 8, serving.requests: poisson needs count", "line 11, serving.set.a: unknown parameter",
      "line 10, serving.axes.nope: unknown", "line 10, serving.axes.engine.max_num_seqs: not a"]),
]  # fmt: skip


@pytest.mark.parametrize(("more", "changed", "messages"), MISTAKES)
def test_all_mistakes_are_told_at_once_by_line_and_path(study, more, changed, messages):
    with pytest.raises(NpusimError) as found:
        study(more, **changed)
    told = str(found.value).splitlines()
    assert len(told) == len(messages)
    assert isinstance(found.value, InputErrors if len(messages) > 1 else InputError)
    for line, message in zip(told, messages, strict=True):
        assert "study.yaml: line " in line
        assert message in line
        assert ".int:" not in line  # no word of how a schema is checked
        assert ".float:" not in line


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        ("", {"a": ("max_num_batched_tokens: 16", "max_num_batched_tokens: 2")},
         "--max-num-batched-tokens: "),
        ("", engine("chunked_prefill: false"), "--max-num-batched-tokens: without chunked"),
        ("", engine("kv_blocks: 3"), "--max-model-len: the KV cache does not hold one"),
        ("", engine("tensor: 3"), "--tensor: does not divide"),
        ("", engine("gpu_memory_utilization: 0.001"), "--max-model-len: does not fit the memory"),
        ("prefill: {engine: {max_num_seqs: 32, max_num_batched_tokens: 16}}", {},
         "--max-num-batched-tokens: "),
        ("axes: {engine.max_num_batched_tokens: [16, 2]}", {}, "--max-num-batched-tokens: "),
        ("prefill: {engines: 1}", {"a": ("h200", "metax_c500")}, "link.bandwidth: has no link"),
        ("prefill: {arch: nope}", {}, "no such arch: 'nope'"),
        ("axes: {lowering: [serving, nope]}", {}, "no such lowering: 'nope'"),
        ("settings: {decoder.nope: 3}", {}, "decoder.nope: unknown key"),
        ("set: {area.die: 400 mm2}", {}, "area.die: no cost model"),
        ("", {"a": ("prompt: 50", "prompt: 250")}, "serving.requests.prompt: longer than an eng"),
        ("", {"a": ("prompt: 50", "prompt: 50, prefix_tokens: 60")},
         "serving.requests.prefix_tokens: more tokens than the shortest prompt has: 60"),
        ("", {"a": ("prompt: 50", "prompt: 50, image: [700, 560]")},
         "serving.requests.image: more tokens than the shortest prompt has: 500"),
        ("", {"a": ("prompt: 50", "prompt: 50, image: [70, 56]"),
              "b": ("paddleocr_vl", "llama_3_1_8b")}, "has no vision encoder"),
        ("", requests("{arrivals: file, file: none.csv}"), "none.csv: no such file"),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_one_line(study, more, changed, message):
    with pytest.raises(InputError) as found:
        run(study(more, **changed))
    assert message in str(found.value)
    assert len(str(found.value).splitlines()) == 1


def test_other_files_are_no_serving_studies():
    with pytest.raises(InputError, match="no serving block"):
        read_serving(catalog.find("archs", "h200"))
    with pytest.raises(InputError, match="no serving block; it has a sweep block"):
        read_serving(catalog.find("studies", catalog.names("studies")[0]))


@pytest.mark.parametrize("name", catalog.names("serving"))
def test_studies_that_ship(name):
    shipped = read_serving(catalog.find("serving", name))
    assert shipped.axes
    assert all(len(set(values)) > 1 for values in shipped.axes.values())
    assert shipped.arch in catalog.names("archs")
    assert shipped.block.model in catalog.names("models")
    assert shipped.question.endswith((".", "?"))


def test_axes_are_walked_in_order(study):
    asked = study("axes: {engines: [1, 2], engine.prefix_caching: [true, false]}")
    found = run(asked)
    assert [tuple(r.axes.values()) for r in found] == [
        (1, True), (1, False), (2, True), (2, False)]  # fmt: skip
    assert [len(r.middle.engines) for r in found] == [1, 1, 2, 2]


def test_an_axis_may_give_what_arrivals_need(study):
    asked = study("axes: {requests.rate_per_s: [50, 400]}", a=("rate_per_s: 200, ", ""))
    slow, fast = run(asked)
    assert slow.middle.end_s > 4 * fast.middle.end_s


def test_a_run_does_not_depend_on_what_else_the_study_runs(study):
    """Captured sizes are those of an engine's own flags, though step times are shared."""
    tokens = "max_num_batched_tokens: 16", "max_num_batched_tokens: 64"
    (alone,) = run(study(a=tokens))
    both = run(study("axes: {engine.max_num_seqs: [4, 32]}", a=tokens))
    assert both[0].middle.summaries()["ttft"].mean_s == pytest.approx(
        alone.middle.summaries()["ttft"].mean_s, rel=3e-3
    )  # between other points of their grid
    assert both[0].policy == alone.policy


def test_what_is_left_for_the_kv_cache_is_the_memory_plans(study):
    (found,) = run(study())
    plan = memory_plan("paddleocr_vl", load_arch("h200"), 256, 4, 64, 0.9, block_tokens=16)
    assert found.policy.blocks == plan.blocks
    assert found.kv_token == 18 * 2 * 2 * 128 * 2  # layers, K and V, heads, head size, bf16
    (given,) = run(study(**engine("kv_blocks: 77")))
    assert given.policy.blocks == 77


def test_an_overhead_is_added_to_each_step(study):
    (free,) = run(study(a=("count: 12", "count: 1")))
    (held,) = run(study(a=("count: 12", "count: 1"), **engine("step_overhead: 2 ms")))
    steps = len(free.middle.engines[0].end_s)
    assert steps == 13  # four parts of the prompt, the last gives a token, nine steps the others
    gained = held.middle.latency_s[0] - free.middle.latency_s[0]
    assert gained == pytest.approx(steps * 2e-3, rel=1e-9)


def test_the_band_holds_the_middle_of_requests_alone(study):
    one = requests("{arrivals: clients, clients: 1, each: 3, prompt: 50, output: 10}")
    (found,) = run(study(**one), band=True)
    for low, middle, high in zip(found.low.latency_s, found.middle.latency_s, found.high.latency_s,
                                 strict=True):  # fmt: skip
        assert low < middle < high


def test_drawn_lengths_are_cut_and_said(study):
    asked = study(a=("prompt: 50", "prompt: {mean: 200, spread: 1}"))
    found = run(asked)
    assert max(found[0].middle.prompt + found[0].middle.output) <= 256
    assert found[0].cut == np.sum(found[0].middle.prompt + found[0].middle.output == 256)
    assert found[0].cut > 0
    said = f"drawn requests that were cut to max_model_len: up to {found[0].cut} of a run"
    assert said in notes(asked, found)


def test_blocks_held_are_those_of_engines_that_answer(study):
    """Several prompts enter at once, but one request at a time is answered, of four blocks."""
    more = "prefill: {engine: {max_num_seqs: 4, max_num_batched_tokens: 64, max_model_len: 256, "
    alone = {"a": ("max_num_seqs: 4, max_num_batched", "max_num_seqs: 1, max_num_batched")}
    asked = study(more + "kv_blocks: 2000}}", **alone, b=("rate_per_s: 200", "rate_per_s: 2000"),
                  c=("max_model_len: 256", "max_model_len: 256, kv_blocks: 20"))  # fmt: skip
    (found,) = run(asked)
    assert max(found.middle.engines[0].blocks) > 4
    content = told(found)
    assert (content["kv_blocks"], content["kv_blocks_most"]) == (20, 4)


def log_study(study, tmp_path, rows, more=""):
    (tmp_path / "log.csv").write_text(
        "arrival_s,prompt,output,first_token_s,last_token_s\n" + "".join(rows)
    )
    return study(requests=(ASKED, f"{{arrivals: file, file: log.csv{more}}}"))


ROWS = ["100,50,10,100.5,101.4\n", "102,40,1,102.25,102.25\n", "104,60,5,104.5,106.5\n"]


def test_a_log_is_told_beside_the_run(study, tmp_path):
    (found,) = run(log_study(study, tmp_path, ROWS))
    measured = told(found)["measured"]
    assert measured["ttft"]["mean_s"] == pytest.approx((0.5 + 0.25 + 0.5) / 3)
    assert measured["tpot"]["mean_s"] == pytest.approx((0.1 + 0.5) / 2)  # one token has none
    assert measured["latency"]["most_s"] == pytest.approx(2.5)
    assert found.middle.prompt.tolist() == [50, 40, 60]


def test_fewer_requests_of_a_log_and_another_rate(study, tmp_path):
    (found,) = run(log_study(study, tmp_path, ROWS, ", count: 2"))
    assert found.middle.prompt.tolist() == [50, 40]
    assert len(found.measured.samples["ttft"]) == 2
    (faster,) = run(log_study(study, tmp_path, ROWS, ", rate_per_s: 10"))
    np.testing.assert_allclose(faster.middle.sent_s, [0, 0.1, 0.2])
    assert faster.measured is None  # it was measured at another rate
    with pytest.raises(InputError, match="no rate to change"):
        run(log_study(study, tmp_path, ROWS[:1] * 2, ", rate_per_s: 10"))


# ------------------------------------------------------------ settings, links, widths, energy


def test_settings_reach_the_pool_and_narrow_caches_take_less_of_it(study):
    blocks = {}
    for name, more in {"whole": "", "short": "settings: {decoder.layers: 6}",
                       "narrow": "set: {workload.kv_bits: 8}"}.items():  # fmt: skip
        (only,) = run(study(more))
        blocks[name] = only.policy.blocks
    assert blocks["short"] > 2.9 * blocks["whole"]  # a third of the layers
    assert blocks["narrow"] == pytest.approx(2 * blocks["whole"], rel=0.01)


def test_narrow_weights_make_faster_steps(study):
    wide, narrow = run(study("axes: {workload.weight_bits: [16, 8]}"))
    assert narrow.middle.tpot_s.mean() < wide.middle.tpot_s.mean()


def test_chips_without_links_serve_no_split_model(study):
    with pytest.raises(InputError, match=r"metax_c500: link\.bandwidth: has no link"):
        run(study(**{"arch": ("arch: h200", "arch: metax_c500")} | engine("tensor: 2")))
    with pytest.raises(InputError, match="has no effect with one chip an engine and no prefill"):
        study("axes: {link.bandwidth: [64 GB/s, 900 GB/s]}")


def test_engines_for_prompts_are_as_the_others_but_for_what_is_given(study):
    more = "prefill: {engines: 1, engine: {max_num_batched_tokens: 64}}"
    (apart,) = run(study(more, **engine("block_size: 32")))
    assert (apart.policy.block, apart.policy.max_tokens) == (32, 16)
    prompts = apart.middle.engines[0]
    assert prompts.tokens.max() == 64  # 50 of one and 14 of the next


def test_energy_is_that_of_steps_and_of_idle_chips(study):
    """By hand: power by tokens times each step's time, and a resting board between steps."""
    (only,) = run(study())
    (course,) = only.middle.engines
    from npusim.clock_modes import sleeping

    idle = (only.middle.end_s - course.busy_s) * sleeping(load_arch("h200"))
    watts = (only.energy_j - idle) / course.busy_s
    assert 100 < watts < 700  # between an idle board and its limit
    found = told(only)
    assert found["j_per_token"] == pytest.approx(only.energy_j / (12 * 10))
    (two,) = run(study(**engine("tensor: 2")))
    assert two.energy_j > 1.2 * only.energy_j  # two chips, each with less to do


def test_files_are_looked_for_beside_the_study(study, tmp_path):
    (tmp_path / "mine.yaml").write_text(
        (catalog.folder("models") / "paddleocr_vl.yaml").read_text()
    )
    asked = study(model=("model: paddleocr_vl", "model: mine.yaml"))
    assert asked.block.model == str(tmp_path / "mine.yaml")
    assert len(run(asked)) == 1


def test_a_rate_without_a_point_is_a_number(study):
    assert study(**requests(ASKED.replace("200", "1e3"))).block.requests.rate_per_s == 1000


@pytest.mark.parametrize(
    ("more", "changed", "message"),
    [
        ("", engine("kv_blocks: 90, gpu_memory_utilization: 0.8"), "has no effect where kv_blocks"),
        ("axes: {engine.max_num_seqs: [4, 4]}", {}, "engine.max_num_seqs: value given twice"),
    ],
)
def test_what_does_nothing_is_told(study, more, changed, message):
    with pytest.raises(InputError, match=message):
        study(more, **changed)


def test_a_change_that_no_step_has_is_refused(study):
    """PaddleOCR-VL has no experts that a skew could make popular."""
    with pytest.raises(InputError, match=r"workload\.expert_skew"):
        run(study("set: {workload.expert_skew: 1}"))
