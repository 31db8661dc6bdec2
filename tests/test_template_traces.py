"""Templates beside the ten traces of an H200 that ship: kernels, work, replays and counters.

A template knows neither the context of a trace nor the experts that its tokens chose: the context
is that of the trace's first step, and of the prefill with experts 601 of 11 layers were hit. Tokens
of a trace agree about experts: choosing for themselves 1,024 tokens would hit all 64 of each layer.
"""

import importlib.util
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import npusim as ns
from npusim.templates import template
from npusim.transforms import set_context

ROOT = Path(__file__).parents[1]
NCU = ROOT.parent / "shared" / "baselines" / "h200" / "ncu"

# The traced vision step had no class token, no resized positions and no ends of rows.
AS_TRACED = {
    "vision.tower.class_token": False, "vision.tower.pre_norm": False,
    "vision.tower.positions": "none", "vision.tower.table": 0, "vision.newline": False,
}  # fmt: skip
PADDLE, DEEPSEEK, GROUPED = "paddleocr_vl", "deepseek_ocr", {"lowering": "hf-eager-grouped"}
HIT = 601 / 11  # experts in a layer, in the trace of the prefill
TRACES = {
    "paddleocr_vl_decode": (PADDLE, "decode", {}),
    "paddleocr_vl_decode_b8": (PADDLE, "decode", {"batch": 8}),
    "paddleocr_vl_decode_b32": (PADDLE, "decode", {"batch": 32}),
    "paddleocr_vl_prefill": (PADDLE, "prefill", {"context": 628, "logits": "all"}),
    "paddleocr_vl_vision": (PADDLE, "vision", {"image": (728, 644)}),
    "deepseek_ocr_decode": (DEEPSEEK, "decode", {}),
    "deepseek_ocr_decode_grouped": (DEEPSEEK, "decode", GROUPED),
    "deepseek_ocr_decode_grouped_b16": (DEEPSEEK, "decode", {"batch": 16, **GROUPED}),
    "deepseek_ocr_prefill": (DEEPSEEK, "prefill", {"context": 1024, "experts_hit": HIT}),
    "deepseek_ocr_vision": (DEEPSEEK, "vision", {"image": (1024, 1024), "settings": AS_TRACED}),
}  # fmt: skip
DECODES = [name for name, (_, phase, _) in TRACES.items() if phase == "decode"]


@cache
def both(name):
    """Return the trace, and the template of its first step."""
    trace = ns.load_workload(name)
    model, phase, asked = TRACES[name]
    if phase == "decode":
        keys = int(trace["n"][trace.mask("kind", "attention")][0])
        asked = {**asked, "context": keys - 1}
    return trace, template(model, phase, **asked)


def kinds(w, rows):
    return Counter(w.text("kind")[rows].tolist())


@pytest.mark.parametrize("name", TRACES)
def test_kernels_and_work_are_those_of_the_trace(name):
    trace, made = both(name)
    first = trace["step"] == 0
    seen, told = kinds(trace, first), kinds(made, slice(None))
    off = sum(abs(seen[kind] - told[kind]) for kind in seen | told)
    assert off <= 0.03 * first.sum(), {k: told[k] - seen[k] for k in seen | told}
    assert made["flop"].sum() == pytest.approx(trace["flop"][first].sum(), rel=0.02)
    assert made.bytes_moved.sum() == pytest.approx(trace.bytes_moved[first].sum(), rel=0.01)


@pytest.mark.parametrize("name", TRACES)
def test_a_replay_takes_as_long_as_that_of_the_trace(name):
    h200 = ns.load_arch("h200")
    trace, made = (ns.replay(w, h200, launch="graph").device_busy_s for w in both(name))
    # experts of the template get as many tokens each, those of the traced prefill did not
    assert made == pytest.approx(trace, rel=0.025 if name == "deepseek_ocr_prefill" else 0.01)


def test_tokens_of_a_trace_agree_about_experts():
    """By themselves they would hit all 704, which makes a seventh more kernels."""
    trace, _ = both("deepseek_ocr_prefill")
    alone = template(DEEPSEEK, "prefill", context=1024)
    first = (trace["step"] == 0).sum()
    assert 1.1 * first < len(alone) < 1.25 * first


# What the trace of a decode step has otherwise, by kind and column: where several kernels share a
# name, the profiler does not say on how many elements an operator of its own works (a gather of
# one index is seen by its elements, or by how many experts were hit in that step), which of two
# block sizes summed columns took, and that the sum of parts of the router's product is in fp32.
OTHERWISE = {
    ("gather", "m"), ("gather", "n"), ("gather", "moved"), ("gather", "blocks"),
    ("gather", "threads"), ("reduction", "threads"), ("splitk_reduce", "moved"),
}  # fmt: skip
EXACT = ("m", "n", "k", "flop", "moved", "blocks", "threads")


@pytest.mark.parametrize("name", DECODES)
def test_a_decode_step_is_the_trace_kernel_by_kernel(name):
    trace, made = both(name)
    rows = np.flatnonzero(trace["step"] == 0)
    kind = trace.text("kind")[rows]
    if len(rows) != len(made):  # a counter that a library clears, in one of the traces
        rows, kind = rows[kind != "memset"], kind[kind != "memset"]
    assert kind.tolist() == made.text("kind").tolist()
    moved = {"moved": (trace.bytes_moved[rows], made.bytes_moved)}
    different = Counter()
    for column in EXACT:
        seen, told = moved.get(column) or (trace[column][rows], made[column])
        off = np.abs(seen - told) > 1e-9 * np.maximum(seen, 1)
        if column in ("blocks", "threads"):  # a template knows no grid of a product
            off &= ~np.isin(kind, ("gemv", "gemm", "grouped_gemm", "splitk_reduce"))
        different.update((k, column) for k in kind[off])
    assert set(different) <= OTHERWISE, different
    assert max(different.values(), default=0) <= 6 * 11  # once for each expert that is hit


# ---------------------------------------------------------------- counters of DRAM


@pytest.fixture(scope="module")
def counters():
    place = importlib.util.spec_from_file_location(
        "dram_counters", ROOT / "benchmarks/dram_counters.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


def read(module, w, at):
    """Return the bytes that the model reads from DRAM, by group, in a running step."""
    found = module.modelled(w, at, "step")
    return module.sums(pd.DataFrame({"group": module.group(w)[at], **found})).read_step


def test_a_step_reads_what_counters_of_one_pass_say(counters):
    """Products with weights, copies of the cache and all: a step of 636 keys."""
    made = template(PADDLE, "decode", context=counters.ONE_PASS_KEYS - 1)
    told = read(counters, made, np.arange(len(made)))
    for name in ("weight products", "KV cache copies"):
        assert told[name] == pytest.approx(counters.ONE_PASS[name], rel=0.1)
    assert told["all"] == pytest.approx(sum(counters.ONE_PASS.values()), rel=0.1)


@pytest.mark.shared
@pytest.mark.skipif(not NCU.exists(), reason="../shared/baselines/h200/ncu is not here")
@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode"])
def test_kernels_that_were_profiled_read_what_counters_say(counters, name):
    """A template has no names of kernels: each is found by its place in the trace's step."""
    trace, _ = both(name)
    profile = ns.load_workload(NCU / f"dram_{counters.CASES[name]}.csv.gz")
    at, of = counters.matched(trace, profile)
    keys = counters.keys(trace, profile, at, of)
    first = np.flatnonzero(trace["step"] == 0)
    kept = first[trace.text("kind")[first] != "memset"]
    made = template(TRACES[name][0], "decode", context=keys - 1)
    made_at = np.arange(len(made))[made.text("kind") != "memset"]
    assert len(made_at) == len(kept)
    found = made_at[np.searchsorted(kept, at)]
    assert made.text("kind")[found].tolist() == trace.text("kind")[at].tolist()
    seen = profile.counters["dram_read"][of]
    told = read(counters, made, found)
    assert len(found) == len(profile)
    assert told["all"] == pytest.approx(seen.sum(), rel=0.1)
    products = counters.group(made)[found] == "weight products"
    assert told["weight products"] == pytest.approx(seen[products].sum(), rel=0.1)
    moved = set_context(trace, keys)  # what the trace itself reads there
    assert told["all"] == pytest.approx(read(counters, moved, at)["all"], rel=0.01)
