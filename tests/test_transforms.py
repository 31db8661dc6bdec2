"""Transforms: bytes worked out by hand, what is already so stays, one after another."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.compare import kernel_errors, measured
from npusim.errors import InputError
from npusim.measured.data import from_workload
from npusim.models import modelled
from npusim.parameters import PARAMETERS
from npusim.transforms import (
    TRANSFORMABLE,
    applies,
    changes,
    limits,
    present,
    quantize_cache,
    quantize_weights,
    refuse_changed,
    set_context,
    split,
    transformed,
    unmeasured,
)
from npusim.transforms.experts import SKEW
from npusim.workload import COLUMNS, ORIGINS
from tests.builder import kernel, timed, workload

# A layer of 1280 x 6848 in bf16 holds 8,765,440 weights: 17,530,880 bytes.
LAYER = kernel("gemv", 7.0, kind="gemv", dtype="bf16", batch=1, m=1, n=6848, k=1280,
               flop=2.0 * 6848 * 1280, read_weight=17_530_880.0, read_activation=2560.0,
               write_activation=13696.0)  # fmt: skip
# One query of 16 heads over 600 keys and values of 2 heads of 128 numbers, and what grows one of
# them by a token: 2 x 600 x 128 numbers of two bytes, each of keys and values.
ATTENTION = kernel("sdpa", 5.0, 8, kind="attention", dtype="bf16", batch=1, m=1, n=600, k=128,
                   heads=16, kv_heads=2, flop=4.0 * 16 * 600 * 128, read_kv=614_400.0,
                   read_activation=4096.0, write_activation=4096.0)  # fmt: skip
GROW = kernel("cat", 1.5, 300, kind="cat", dtype="bf16", batch=1, m=1198, n=128,
              read_kv=307_200.0, write_kv=307_200.0)  # fmt: skip
APPEND = kernel("write", 1.0, 1, kind="copy", dtype="bf16", batch=1, m=2, n=128, write_kv=512.0)
NORM = kernel("norm", 1.0, kind="norm", dtype="bf16", read_weight=2560.0, read_activation=2560.0)
EMBEDDING = kernel("index", 1.0, kind="gather", dtype="bf16", read_weight=2560.0)
# 6 of 64 experts of 1280 x 896 in bf16, one product.
EXPERTS = kernel("grouped_gemm", 9.0, kind="grouped_gemm", dtype="bf16", batch=6, m=1, n=896,
                 k=1280, groups=64, flop=2.0 * 6 * 896 * 1280, read_weight=6.0 * 2_293_760,
                 read_activation=2560.0, write_activation=10752.0)  # fmt: skip
STEP = (LAYER, NORM, EMBEDDING, GROW, GROW, APPEND, ATTENTION)


def step(*rows, **more):
    return workload(*(rows or STEP), **more)


def read(w, name="read_weight"):
    return w[name].tolist()


@pytest.mark.parametrize(
    ("bits", "group", "expected"),
    [
        (8, None, 8_765_440),  # a byte a weight
        (4, None, 4_382_720),
        (4, 128, 4_519_680),  # and 68,480 scales of two bytes
        (4, 0, 4_382_720),
        (None, 128, 17_667_840),
        (1.58, None, 8_765_440 * 1.58 / 8),
        (32, None, 35_061_760),
    ],
)
def test_a_layer_reads_its_weights_in_the_bits_asked_for(bits, group, expected):
    w = quantize_weights(step(LAYER), bits, group)
    assert read(w) == [pytest.approx(expected, rel=1e-12)]


def test_only_matrices_of_products_are_quantised():
    rows = [{**LAYER, "kind": kind} for kind in ("gemv", "gemm", "grouped_gemm", "conv")]
    w = quantize_weights(step(*rows, NORM, EMBEDDING), 4)
    assert read(w) == [4_382_720.0] * 4 + [2560.0, 2560.0]


def test_a_bias_stays():
    biased = {**LAYER, "read_weight": 17_530_880.0 + 2 * 6848}
    four = quantize_weights(step(biased), 4, 128)
    assert read(four) == [4_519_680.0 + 13_696.0]
    assert read(quantize_weights(four, 8, 0)) == [pytest.approx(8_765_440.0 + 13_696.0)]


def test_own_bits_are_those_of_the_type():
    rows = [{**LAYER, "dtype": dtype, "read_weight": 1000.0, "n": 1, "k": 1, "groups": 1}
            for dtype in ("fp32", "fp16", "fp8", "int4")]  # fmt: skip
    assert read(quantize_weights(step(*rows), 4)) == [125.0, 250.0, 500.0, 1000.0]


def test_the_cache_is_moved_in_the_bits_asked_for():
    w = quantize_cache(step(), 4)
    assert read(w, "read_kv")[3:] == [76_800.0, 76_800.0, 0.0, 153_600.0]
    assert read(w, "write_kv")[3:] == [76_800.0, 76_800.0, 128.0, 0.0]
    assert read(w) == read(step())


def test_attention_and_the_copies_of_its_cache_follow_the_context():
    w = set_context(step(), 2400)
    attention, grow, append = 6, 3, 5
    assert (w["n"][attention], w["m"][attention], w["blocks"][attention]) == (2400, 1, 8)
    assert w["flop"][attention] == 4 * 16 * 2400 * 128
    assert w["read_kv"][attention] == 2 * 2 * 2400 * 128 * 2
    assert (w["m"][grow], w["n"][grow], w["blocks"][grow]) == (4792, 128, 1200)
    assert w["read_kv"][grow] == w["write_kv"][grow] == 2 * 2400 * 128 * 2
    same = [c for c in COLUMNS if c not in ("n", "m", "blocks", "flop", "read_kv", "write_kv",
                                              "origin")]  # fmt: skip
    assert all(np.array_equal(w[c], step()[c]) for c in same)
    assert all(w[c][append] == step()[c][append] for c in COLUMNS)
    assert w["flop"][0] == step()["flop"][0]


def test_every_step_of_a_growing_cache_gets_the_same_context():
    rows = [{**ATTENTION, "step": i, "n": 600 + i, "read_kv": 1024.0 * (600 + i)} for i in range(3)]
    w = set_context(step(*rows, wall=(1.0, 1.0, 1.0)), 1000.4)
    assert w["n"].tolist() == [1000] * 3
    assert w["read_kv"] == pytest.approx([1_024_000.0] * 3)


def test_steps_without_decode_attention_stay():
    rows = [ATTENTION, {**LAYER, "step": 1}, {**GROW, "step": 1}]
    w = set_context(step(*rows, wall=(1.0, 1.0)), 1200)
    assert w["read_kv"].tolist() == [1_228_800.0, 0.0, 307_200.0]


def test_what_was_not_classified_stays():
    unknown = {**LAYER, "basis": "name"}
    w = quantize_weights(step(unknown, LAYER), 8)
    assert read(w) == [17_530_880.0, 8_765_440.0]


@pytest.mark.parametrize(
    "settings",
    [
        {"workload.weight_bits": 16, "workload.weight_group": 0},
        {"workload.kv_bits": 16},
        {"workload.context": 600},
        {"workload.weight_bits": 16, "workload.kv_bits": 16, "workload.context": 600},
    ],
)
def test_what_is_already_so_changes_nothing(settings):
    w = step()
    assert transformed(w, settings) is w
    assert changes(w) == {}


def test_a_change_keeps_kernels_times_and_steps_and_says_what_it_did():
    before = step()
    after = transformed(before, {"workload.weight_bits": 4, "workload.context": 1200})
    assert after.labels == {**before.labels, "origin": ORIGINS}
    assert after.steps is before.steps and after.edges is before.edges
    assert np.array_equal(after["duration_s"], before["duration_s"])
    assert changes(after) == {"workload.weight_bits": 4, "workload.context": 1200}
    assert changes(before) == {} and after.id != before.id
    (note,) = after.meta["notes"]
    assert note.startswith("changed by workload.weight_bits=4, workload.context=1200: measured")
    again = quantize_weights(after, 8)
    assert len(again.meta["notes"]) == 1 and "weight_bits=8" in again.meta["notes"][0]


def test_a_changed_workload_is_written_with_the_record(tmp_path):
    ns.save_workload(quantize_cache(step(), 8), tmp_path / "w.parquet")
    w = ns.load_workload(tmp_path / "w.parquet")
    assert changes(w) == {"workload.kv_bits": 8}
    assert read(quantize_cache(w, 4), "read_kv")[6] == 153_600.0
    with pytest.raises(InputError, match=r"transfer needs what was measured.*workload.kv_bits=8"):
        refuse_changed(w, "transfer")


# What puts other kernels in place of some, and cannot be taken back; key heads need their products.
ONE_WAY = {"workload.static_cache", "workload.cache_in_place", "workload.page_tokens",
           "workload.attention_splits", "workload.casts", "workload.draft_tokens",
           "workload.acceptance", "workload.draft_layers", "workload.kv_heads",
           "workload.block_scale", "workload.merged", "workload.arithmetic",
           "workload.scales", "workload.quantize"}  # fmt: skip
SETTINGS = st.dictionaries(
    st.sampled_from(sorted(set(TRANSFORMABLE) - ONE_WAY)),
    st.integers(1, 64).map(float),
    max_size=4,
)


def _of_bounded_skew(settings):
    return {path: v * 10 / 64 if path == SKEW else v for path, v in settings.items()}


@given(SETTINGS, SETTINGS)
def test_changes_one_after_another_are_the_last_of_each(first, second):
    w = step(*STEP, EXPERTS)
    first, second = (_of_bounded_skew(settings) for settings in (first, second))
    both = transformed(transformed(w, first), second)
    once = transformed(w, {**first, **second})
    assert both.meta.get("experts", 0.0) == once.meta.get("experts", 0.0)
    assert changes(both).get(SKEW) == once.meta.get("experts")
    for name in ("n", "m", "flop", "read_weight", "read_kv", "write_kv"):
        # rows of a copy are whole: half of one too many on the way is 32 where keys grow 64 times
        slack = 32.5 if name == "m" else 0.0
        assert both[name] == pytest.approx(once[name], rel=1e-9, abs=slack)


@given(st.floats(1, 64), st.floats(1, 64))
def test_fewer_bits_are_never_more_bytes(a, b):
    low, high = sorted((a, b))
    for change in (quantize_weights, quantize_cache):
        fewer, more = change(step(), low), change(step(), high)
        assert (fewer.bytes_moved <= more.bytes_moved * (1 + 1e-12)).all()


def test_a_longer_context_is_never_faster():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    times = [ns.replay(set_context(w, n), h200, "graph").wall_s for n in (1024, 8192, 65536)]
    assert times == sorted(times)
    # 18 layers: keys and values of 2 heads of 128 numbers of 2 bytes, read by attention, and read
    # and written by the copies
    extra = 18 * (65536 - 8192) * 2 * 2 * 128 * 2
    # of what a copy has written the cache may still hold a part when attention reads it
    assert times[2] - times[1] > 2 * extra / 4.8e12


def test_present_is_what_most_of_a_workload_is():
    wide = {**LAYER, "dtype": "fp32", "read_weight": 100.0}
    w = step(wide, *STEP)
    assert present(w, "workload.weight_bits") == 16
    assert present(w, "workload.weight_group") == 0
    assert present(w, "workload.context") == 600
    assert present(quantize_weights(w, 4, 64), "workload.weight_group") == 64
    assert present(step(LAYER), "workload.kv_bits") is None


def test_what_no_measurement_holds_is_said():
    w = step()
    assert unmeasured(w) == () == unmeasured(set_context(w, 1000))
    assert len(unmeasured(transformed(w, {"workload.weight_bits": 4, "workload.kv_bits": 8}))) == 2
    weights = ["workload.weight_bits", "workload.weight_group"]
    (limit,) = limits(weights)
    assert limit.startswith("workload.weight_bits, workload.weight_group: arithmetic stays")
    assert "conversion.rate" in limit


@pytest.mark.parametrize(
    ("rows", "settings", "message"),
    [
        ((LAYER,), {"workload.context": 8}, r"made: workload\.context: has no decode attention"),
        ((LAYER,), {"workload.kv_bits": 8}, "has no operation on a KV cache"),
        ((NORM, timed(1e-6)), {"workload.weight_bits": 8}, "has no matrix product that reads"),
        ((NORM,), {"workload.weight_group": 8}, "has no matrix product that reads"),
        (STEP, {"workload.weight_bits": 0.5}, r"out of bounds: 0.5 \(allowed: 1 to 64\)"),
        (STEP, {"workload.weight_bits": float("nan")}, "out of bounds: nan"),
        (STEP, {"workload.weight_group": 0.5}, r"not a number of weights: 0.5 \(allowed: 0"),
        (STEP, {"workload.context": 0}, "out of bounds"),
        (STEP, {"workload.layers": 2}, "not a setting of a workload: 'workload.layers'"),
        (({**LAYER, "dtype": "complex64"},), {"workload.weight_bits": 8},
         "dtype: a type of unknown width: 'complex64'"),
        ((ATTENTION, {**ATTENTION, "n": 128}), {"workload.context": 8},
         "attention over different numbers of keys in one step: '128 and 600'"),
        (({**ATTENTION, "phase": "prefill"},), {"workload.context": 8}, "has no decode attention"),
        (({**ATTENTION, "m": 600},), {"workload.context": 8}, "has no decode attention"),
    ],
)  # fmt: skip
def test_changes_that_make_no_sense_are_refused(rows, settings, message):
    with pytest.raises(InputError, match=message) as error:
        transformed(step(*rows), settings)
    assert "\n" not in str(error.value)


def test_every_setting_is_declared_and_none_is_of_the_machine():
    declared = {path for path in PARAMETERS if path.startswith("workload.")}
    assert declared == set(TRANSFORMABLE)
    assert not declared & set(modelled())
    assert split({"workload.context": 1.0, "units.count": 2.0}) == (
        {"units.count": 2.0}, {"workload.context": 1.0})  # fmt: skip
    assert not applies(ns.load_workload("paddleocr_vl_vision"), "workload.context")


@pytest.mark.parametrize("transform", list(dict.fromkeys(TRANSFORMABLE.values())))
def test_every_transform_says_where_it_comes_from_and_what_it_leaves_out(transform):
    assert "Source: " in transform.__doc__ and "Left out: " in transform.__doc__
    assert transform.NEEDS and transform.LIMIT


def test_no_machine_has_a_number_of_the_workload():
    h200 = ns.load_arch("h200")
    with pytest.raises(InputError, match=r"not the machine: 'workload\.context'"):
        ns.with_value(h200, "workload.context", 8.0)
    with pytest.raises(InputError, match="changes the workload, not the machine"):
        ns.Designs(h200, {"workload.context": np.array([8.0])})


def test_nothing_measured_is_of_a_changed_workload():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    four = quantize_weights(w, 4)
    assert measured(w) and measured(four) == []
    for compare in (lambda: kernel_errors(four, h200), lambda: from_workload(four)):
        with pytest.raises(InputError, match="needs what was measured, but the workload is chang"):
            compare()
