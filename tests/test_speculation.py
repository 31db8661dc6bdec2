"""Speculative decoding: rows and bytes worked out by hand, expected tokens, time per token."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.importers.routines import routine
from npusim.tokens import tokens_per_step
from npusim.transforms import changes, set_batch, speculate, transformed
from npusim.transforms.speculation import expected_tokens, present, touched
from npusim.workload import BYTES, COLUMNS, LABELS
from tests.builder import workload
from tests.test_batch import (
    ANGLES,
    ATTENTION,
    BEFORE,
    COMBINE,
    COSINE,
    COUNT,
    EMBEDDING,
    EXPERTS,
    GROW,
    LAYER,
    POSITION,
    QUERY,
    SAMPLE,
    STEP,
    TURN,
    WIDE_WEIGHTS,
)  # fmt: skip  # isort: skip

DRAFTS, ACCEPTANCE, LAYERS = (
    "workload.draft_tokens", "workload.acceptance", "workload.draft_layers",
)  # fmt: skip

# A step with its layers numbered; the last operation waits for the host, as one that samples does.
LAST = {**SAMPLE, "sync": True, "presync_s": 2e-6}
DEEP = (*BEFORE, *({**r, "layer": 0} for r in LAYER[:-2]), QUERY, LAST)


def step(*rows, **more):
    return workload(*(rows or DEEP), device="NVIDIA H200", **more).renamed("made", units=132)


DEEP_GIVEN = (*BEFORE, *LAYER[:-2], QUERY, SAMPLE)
FOUR = {  # three drafts: four tokens of a sequence over 1070 keys
    EMBEDDING["kind"]: (EMBEDDING, {"m": 4, "read_weight": 10_240, "read_activation": 32}),
    "position": (POSITION, {"m": 4, "read_activation": 32, "write_activation": 16}),
    # 64 frequencies of four bytes are read once, four positions beside them
    "angles": (ANGLES, {"batch": 4, "m": 64, "flop": 512, "read_activation": 256 + 16,
                        "write_activation": 1024}),
    "cosine": (COSINE, {"m": 4, "n": 128, "write_activation": 1024}),
    "query": (LAYER[5], {"m": 4, "n": 1280, "k": 1280, "flop": 13_107_200,
                         "read_weight": 3_276_800, "write_activation": 10_240}),
    # a row of the table for each token: all of 2816 bytes, four times
    "turn": (TURN, {"m": 40, "read_activation": 4 * 2816, "write_activation": 10_240}),
    "grow": (GROW, {"m": 10_720, "n": 128, "read_kv": 2_739_200 * 1073 / 1070,
                    "write_kv": 2_739_200 * 1073 / 1070, "read_activation": 0}),
    # query i sees 1070 + i keys: 4 x 1070 + 6 in all, of 5120 FLOP each
    "attention": (ATTENTION, {"batch": 1, "m": 4, "n": 1073, "flop": 5120 * (4 * 1070 + 6),
                              "read_kv": 5120 * 1073, "read_activation": 10_240,
                              "write_activation": 10_240, "blocks": 10, "kv_heads": 10}),
    "experts": (EXPERTS, {"m": 24, "flop": 4 * 27_525_120,
                          "read_weight": 64 * (1 - 0.90625**4) * 4_587_520}),
    "sample": (SAMPLE, {"m": 4, "n": 129_280, "write_activation": 32, "blocks": 4}),
}  # fmt: skip
STAYS = {"count": COUNT, "weights": WIDE_WEIGHTS}


@pytest.mark.parametrize("name", FOUR)
def test_four_tokens_of_a_sequence_are_worked_on_together(name):
    w = speculate(step(), 3, 0.5)
    given, expected = FOUR[name]
    at = next(i for i, r in enumerate(DEEP_GIVEN) if r is given)
    at -= at > DEEP_GIVEN.index(COMBINE)  # which is gone
    for column, value in expected.items():
        assert w[column][at] == pytest.approx(value), column


@pytest.mark.parametrize("name", STAYS)
def test_what_is_there_once_stays(name):
    before, after = step(), speculate(step(), 3, 0.5)
    at = next(i for i, r in enumerate(DEEP_GIVEN) if r is STAYS[name])
    now = at - (at > DEEP_GIVEN.index(COMBINE))
    assert all(before[c][at] == after[c][now] for c in COLUMNS if COLUMNS[c].type != "label")


def test_nothing_combines_keys_that_are_not_split():
    w = speculate(step(), 3, 0.5)
    assert not w.mask("kind", "attention_combine").any()
    asked = transformed(step(), {"workload.attention_splits": 8, DRAFTS: 3, ACCEPTANCE: 0.5})
    combine = asked.mask("kind", "attention_combine")
    assert combine.sum() == 1 and asked["n"][combine].tolist() == [4 * 1280]
    assert asked["blocks"][asked.mask("kind", "attention")].tolist() == [80]


ADDED = [
    ("aten::eq", "pointwise", "vectorized", 3, 48, 3),
    ("aten::bitwise_not", "pointwise", "vectorized", 3, 3, 3),
    ("aten::copy_", "cast", "unrolled_cast", 0, 3, 24),
    ("aten::cumsum", "scan", "scan_rows", 3, 24, 24),
    ("aten::lt", "pointwise", "vectorized", 3, 24, 3),
    ("aten::sum", "reduction", "reduce_rows", 3, 3, 8),
]


def test_drafts_and_answers_are_compared_behind_the_last_operation():
    """Numbers of eight bytes, flags of one; the host waits for what it reads now."""
    w = speculate(step(), 3, 0.5)
    columns = [w.text(c) for c in ("operator", "kind", "routine")]
    columns += [w[c] for c in ("flop", "read_activation", "write_activation")]
    assert list(zip(*columns, strict=True))[-6:] == ADDED
    assert w["sync"].tolist() == [False] * (len(w) - 1) + [True]
    assert w["presync_s"].sum() == w["presync_s"][-1] == 2e-6
    assert set(w.text("origin")[-6:]) == {"generated"} and not w["host_s"][-6:].any()
    for name, kind, of_name in zip(w.text("kernel")[-6:], w.text("kind")[-6:],
                                   w.text("routine")[-6:], strict=True):  # fmt: skip
        assert (kernel_names.library(name), routine(name)) == ("ATen", of_name), kind


def test_a_pass_drafts_with_what_lies_around_the_layers():
    """Two layers: what is before and behind them is in each pass, of layers only the first."""
    w = step(*BEFORE, {**QUERY, "layer": 0}, {**ATTENTION, "layer": 0}, {**COMBINE, "layer": 0},
             {**QUERY, "layer": 1}, {**ATTENTION, "layer": 1}, QUERY, LAST)  # fmt: skip
    made = speculate(w, 2, 0.5, 1)
    again = [*range(8), 10, 11]
    for start in (0, 10):
        for column in ("m", "n", "batch", "blocks", "flop", *BYTES):
            assert made[column][start : start + 10].tolist() == w[column][again].tolist(), column
        assert made.text("kind")[start : start + 10].tolist() == w.text("kind")[again].tolist()
    assert not made["sync"][:20].any() and not made["duration_s"][:20].any()
    assert len(made) == 20 + 11 + 6  # the step without the kernel that combines, and comparing
    assert made["sync"].sum() == 1 and made["sync"][-1]


def test_each_step_drafts_for_itself():
    rows = [{**r, "step": i} for i in range(3) for r in DEEP]
    w = speculate(step(*rows, wall=(1.0,) * 3), 2, 0.5, 1)
    assert np.bincount(w["step"]).tolist() == [2 * len(DEEP) + len(DEEP) - 1 + 6] * 3
    assert (np.diff(w["step"]) >= 0).all()
    assert all(set(w.labels[c]) >= set(step().labels[c]) for c in LABELS if c != "origin")


@pytest.mark.parametrize(
    ("drafts", "acceptance", "expected"),
    [(0, 0.7, 1.0), (3, 0.0, 1.0), (3, 1.0, 4.0), (1, 0.5, 1.5), (4, 0.8, 3.3616),
     (5, 0.6, (1 - 0.6**6) / 0.4)],
)  # fmt: skip
def test_expected_tokens_are_those_of_a_run_of_successes(drafts, acceptance, expected):
    assert expected_tokens(drafts, acceptance) == pytest.approx(expected)


@given(st.integers(0, 128), st.floats(0, 1), st.floats(0, 1))
def test_expected_tokens_lie_between_one_and_all_and_grow(drafts, a, b):
    low, high = sorted((a, b))
    few, many = expected_tokens(drafts, low), expected_tokens(drafts, high)
    assert 1 <= few <= many <= drafts + 1
    assert many <= expected_tokens(drafts + 1, high)


def test_expected_tokens_are_what_a_trial_finds():
    draws = np.random.default_rng(7).random((200_000, 4)) < 0.7
    yielded = 1 + np.cumprod(draws, axis=1).sum(axis=1)
    assert expected_tokens(4, 0.7) == pytest.approx(yielded.mean(), rel=5e-3)


@given(st.integers(1, 60), st.integers(1, 60))
def test_work_goes_with_the_tokens_and_weights_do_not(a, b):
    w = step()
    one, other = speculate(w, a, 0.5), speculate(w, b, 0.5)
    dense = ~one.mask("kind", "grouped_gemm", "attention", "gather")
    rows = dense & (one["flop"] != 0) & one.mask("kind", "gemm", "gemv", "activation", "cast")
    assert (one["flop"] * (b + 1) == other["flop"] * (a + 1))[rows & (one["m"] != 64)].all()
    assert (one["read_weight"] == other["read_weight"])[dense].all()
    attention = touched(w)
    keys = 1070 * (a + 1) + a * (a + 1) / 2
    assert one["flop"][one.mask("kind", "attention")] == w["flop"][attention] / 1070 * keys


@given(st.integers(1, 40), st.integers(1, 8))
def test_a_batch_that_verifies_is_that_batch_of_verified_sequences(drafts, sequences):
    w = speculate(set_batch(step(), sequences), drafts, 0.5)
    tokens = set_batch(step(), sequences * (drafts + 1))
    attention = w.mask("kind", "attention")
    assert w["batch"][attention].tolist() == [sequences]
    assert w["m"][attention].tolist() == [drafts + 1]
    for kind in ("gemm", "grouped_gemm", "sort", "topk", "softmax", "reduction"):
        rows, of_tokens = w.mask("kind", kind)[:-6], tokens.mask("kind", kind)
        rows = np.append(rows, [False] * 6)
        read = "read_weight" if kind == "grouped_gemm" else "write_activation"
        a, b = (v[read][r & (v["k"] != 1)] for v, r in ((w, rows), (tokens, of_tokens)))
        assert a == pytest.approx(b, rel=1e-9), kind


@pytest.mark.parametrize("settings", [{DRAFTS: 0}, {DRAFTS: 0.4, ACCEPTANCE: 0.9},
                                      {DRAFTS: 0, ACCEPTANCE: 0.9, LAYERS: 1}])  # fmt: skip
def test_no_drafts_change_nothing(settings):
    w = step()
    assert transformed(w, settings) is w
    assert present(w)[DRAFTS] == 0 and tokens_per_step(w) == 1.0


def test_what_was_changed_is_told_and_tokens_with_it():
    w = set_batch(step(), 2)
    made = speculate(w, 2.6, 0.5, 1)
    assert changes(made) == {"workload.batch": 2, DRAFTS: 3, ACCEPTANCE: 0.5, LAYERS: 1}
    assert made.meta["tokens_per_step"] == tokens_per_step(made) == 2 * 1.875
    assert present(made) == {DRAFTS: 3, ACCEPTANCE: 0.5, LAYERS: 1}
    other = transformed(made, {ACCEPTANCE: 1.0})
    assert tokens_per_step(other) == 8.0 and changes(other)[ACCEPTANCE] == 1.0
    assert other.id != made.id  # the same work, and other tokens
    assert transformed(made, {DRAFTS: 3, ACCEPTANCE: 0.5}) is made


def test_a_workload_that_verifies_is_written_with_its_tokens(tmp_path):
    ns.save_workload(speculate(step(), 2, 0.5), tmp_path / "w.parquet")
    assert tokens_per_step(ns.load_workload(tmp_path / "w.parquet")) == 1.75


@pytest.mark.parametrize("later", [{"workload.context": 2000}, {"workload.batch": 4},
                                   {"workload.static_cache": 2000},
                                   {"workload.expert_skew": 1.0}])  # fmt: skip
@pytest.mark.parametrize("layers", [0, 1])
def test_steps_that_verify_are_not_changed_in_part(later, layers):
    with pytest.raises(InputError, match=r"workload\.\w+: its steps verify drafts"):
        transformed(speculate(step(), 3, 0.5, layers), later)


def test_weights_and_cache_may_change_before_or_after():
    w, more = step(), {"workload.weight_bits": 4, "workload.kv_bits": 8}
    after = transformed(speculate(w, 3, 0.5, 1), more)
    once = transformed(w, {DRAFTS: 3, ACCEPTANCE: 0.5, LAYERS: 1, **more})
    for column in ("m", "flop", *BYTES):
        assert after[column] == pytest.approx(once[column], rel=1e-9), column


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        (DEEP, {DRAFTS: -1, ACCEPTANCE: 0.5}, r"out of bounds: -1 \(allowed: 0 to 128\)"),
        (DEEP, {DRAFTS: 2, ACCEPTANCE: 1.1}, r"acceptance: out of bounds: 1.1 \(allowed: 0 to 1\)"),
        (DEEP, {DRAFTS: 2, ACCEPTANCE: float("nan")}, "out of bounds: nan"),
        (DEEP, {DRAFTS: 2, ACCEPTANCE: 0.5, LAYERS: 2},
         r"draft_layers: more layers than are known: 2 \(allowed: 0 to 1\)"),
        (STEP, {DRAFTS: 2, ACCEPTANCE: 0.5, LAYERS: 1}, r"than are known: 1 \(allowed: 0 to 0\)"),
        ((QUERY,), {DRAFTS: 2, ACCEPTANCE: 0.5}, r"draft_tokens: has no decode attention"),
        ((*DEEP, {**ATTENTION, "m": 600, "phase": "prefill"}), {DRAFTS: 2, ACCEPTANCE: 0.5},
         r"draft_tokens: has phases beside decode"),
        ((*DEEP, {**ATTENTION, "batch": 4}), {DRAFTS: 2, ACCEPTANCE: 0.5},
         r"draft_tokens: attention over different or unknown numbers of sequences"),
        ((GROW, *DEEP), {DRAFTS: 2, ACCEPTANCE: 0.5, "workload.static_cache": 2000},
         r"draft_tokens: has a static KV cache"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(rows, settings, message):
    with pytest.raises(InputError, match=message) as error:
        transformed(step(*rows), settings)
    assert "\n" not in str(error.value)


def test_other_drafts_than_those_it_verifies_are_refused():
    w = speculate(step(), 3, 0.5)
    with pytest.raises(
        InputError, match=r"draft_tokens: verifies drafts already: '4' \(allowed: 3"
    ):
        transformed(w, {DRAFTS: 4})
    with pytest.raises(
        InputError, match=r"draft_layers: verifies drafts already: '1' \(allowed: 0"
    ):
        transformed(w, {LAYERS: 1})


def test_dependencies_beside_streams_are_refused():
    edges = np.array([0, 0, *range(1, len(DEEP))]), np.zeros(len(DEEP) - 1, dtype=np.int64)
    with pytest.raises(InputError, match="dependencies beside the order of its streams"):
        speculate(step(edges=edges), 2, 0.5)


@pytest.mark.parametrize("tokens", ["two", 0, float("inf")])
def test_a_file_that_gives_no_number_of_tokens_is_refused(tokens):
    with pytest.raises(InputError, match="tokens_per_step: not a number of tokens"):
        tokens_per_step(step().renamed("made", tokens_per_step=tokens))


def test_a_masked_step_yields_tokens_too():
    """Keys come from copies for all heads, and not from a cache."""
    w = transformed(step(GROW, *DEEP), {"workload.static_cache": 2000, "workload.batch": 3})
    assert tokens_per_step(w) == 3.0
    assert tokens_per_step(step({**ATTENTION, "read_kv": 0.0})) == 1.0


def test_only_steps_that_decode_alone_yield_tokens():
    both = step(*DEEP, {**ATTENTION, "m": 600, "phase": "prefill"})
    assert np.isnan(tokens_per_step(both))
    assert np.isnan(tokens_per_step(step(*DEEP, {**ATTENTION, "batch": 4})))
