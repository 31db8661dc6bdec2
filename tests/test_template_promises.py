"""What a user of templates relies on beside the kernels: ids, routing, caches, notes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.predict import replay
from npusim.reuse.experts import expected_hit, loads, zipf
from npusim.templates import load_lowering
from npusim.transforms import set_context
from npusim.transforms.speculation import speculate


def decode(**more):
    return ns.template("paddleocr_vl", "decode", context=100, lowering="npu", **more)


def test_what_changes_a_time_per_token_changes_the_id():
    half, most = (speculate(decode(), 3, acceptance) for acceptance in (0.5, 0.9))
    assert half.id != most.id
    half, most = (decode(draft=3, acceptance=acceptance) for acceptance in (0.5, 0.9))
    assert half.id != most.id and half["flop"].sum() == most["flop"].sum()


def test_pages_of_other_lengths_have_other_ids():
    """64 and 65 tokens are eight groups of the same steps, but for how many each stands for."""
    short, long = (
        ns.template("paddleocr_vl", "page", lowering="npu", settings={"page.new": new})
        for new in (18, 20)
    )
    assert short.id != long.id


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 64), st.integers(1, 8), st.integers(1, 300), st.floats(0, 4))
def test_no_expert_gets_a_token_twice(experts, chosen, tokens, skew):
    chosen = min(chosen, experts)
    rows = loads(zipf(experts, skew), chosen, tokens)
    assert sum(rows) == tokens * chosen and min(rows) >= 1 and max(rows) <= tokens
    assert len(rows) == pytest.approx(expected_hit(zipf(experts, skew), chosen, tokens), abs=1)


def test_loads_by_hand():
    """All tokens choose both of two experts; of six over four, each at least one of six."""
    assert loads(zipf(2, 3.0), 2, 5) == [5, 5]
    assert loads(zipf(4, 0.0), 1, 4, hit=2) == [2, 2]


def test_a_function_stays_one_after_it_was_called():
    code = (
        "import npusim as ns; w = ns.load_workload('paddleocr_vl_decode');"
        "ns.rescale(w, batch=8); ns.rescale(w, batch=2); ns.template; ns.page_times; ns.load_model"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": "."})


def test_a_prompt_is_not_absorbed():
    """Latent attention of a prompt works on every head: 128 heads x (192 + 128) x 2 FLOP a pair."""
    prompt = ns.template("deepseek_v3", "prefill", context=64, lowering="serving")
    pairs = 64 * 65 / 2
    flop = float(prompt["flop"][prompt.mask("kind", "attention")].sum())
    assert flop == 61 * 128 * pairs * 2 * (192 + 128)
    assert float(prompt["write_kv"].sum()) == 61 * 64 * (512 + 64) * 2  # latent vectors alone
    step = ns.template("deepseek_v3", "decode", context=63, lowering="serving")
    flop = float(step["flop"][step.mask("kind", "attention")].sum())
    assert flop == 61 * 128 * 64 * 2 * (576 + 512)


def test_a_chunk_expands_what_is_in_the_latent_cache():
    """Keys and values of 16 + 48 tokens, of each of 61 layers, from vectors of 512."""
    chunk = ns.template("deepseek_v3", "prefill", context=48, new=16, lowering="serving")
    wide = (chunk["k"] == 512) & (chunk["n"] == 128 * (128 + 128))
    assert int(wide.sum()) == 61 and set(chunk["m"][wide].tolist()) == {64}


def test_a_model_larger_than_the_memory_is_said():
    step = ns.template("deepseek_v3", "decode", context=64, batch=256, lowering="npu")
    notes = replay(step, ns.load_arch("h200"), "graph").notes
    assert any(note.startswith("DOES NOT FIT") and "h200" in note for note in notes)
    notes = replay(decode(), ns.load_arch("h200"), "graph").notes
    assert not any(note.startswith("DOES NOT FIT") for note in notes)


def test_a_page_keeps_its_contexts():
    page = ns.template("paddleocr_vl", "page", lowering="npu")
    with pytest.raises(InputError, match="a page has contexts of its own"):
        set_context(page, 2000)


def test_a_lowering_that_is_edited_is_read_again(tmp_path):
    file = tmp_path / "mine.yaml"
    text = "title: mine\nsource: here\nbase: npu\nops:\n  head:\n    steps:\n"
    kernel = "    - {{kernel: head, kind: product, m: rows, n: {}, k: inner}}\n"
    file.write_text(text + kernel.format(7))
    first = ns.template("paddleocr_vl", "decode", context=9, lowering=str(file))
    file.write_text(text + kernel.format(8))
    second = ns.template("paddleocr_vl", "decode", context=9, lowering=str(file))
    assert (first["n"].tolist().count(7), second["n"].tolist().count(8)) == (1, 1)
    assert load_lowering("npu") is load_lowering("npu")


def test_parameters_that_the_sizes_do_not_make_are_refused(tmp_path):
    source = (ns_models() / "llama_3_1_8b.yaml").read_text()
    (tmp_path / "typo.yaml").write_text(source.replace("hidden: 4096", "hidden: 4032"))
    with pytest.raises(InputError, match="the sizes make another number"):
        ns.load_model(tmp_path / "typo.yaml")
    assert ns.load_model("llama_3_1_8b", {"decoder.layers": 2}).decoder.layers == 2


def ns_models():
    from npusim import catalog

    return catalog.folder("models")


def test_images_that_are_resized_are_noted():
    small = ns.template("paddleocr_vl", "vision", image=(28, 28), lowering="npu")
    assert small.meta["notes"] == ["images of 28x28 pixels are resized to 392x392"]
    assert small.meta["tokens"] == 14 * 14  # patches of 14, two by two


def test_a_plain_replay_of_a_page_says_that_it_weighs_nothing():
    page, h200 = ns.template("paddleocr_vl", "page", lowering="npu"), ns.load_arch("h200")
    said = [note.startswith("a page: each of its steps") for note in replay(page, h200).notes]
    assert sum(said) == 1
    weighed = ns.page_times(page, h200).step.notes
    assert not any(note.startswith("a page: each of its steps") for note in weighed)
