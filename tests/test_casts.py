"""Casts that the kernels beside them do: bytes by hand, what stays, shipped steps."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.transforms import set_batch, transformed
from npusim.transforms.casts import CASTS, fold_casts
from npusim.workload import stream_order
from tests.builder import workload
from tests.test_software_knobs import LAYER, NARROW, NORM, ROUTER, TABLES, WIDEN, moved, point


def test_a_norm_loads_the_narrow_type_twice_and_stores_it_once():
    w = fold_casts(workload(*NORM))
    assert w.text("operator").tolist() == ["add", "pow", "mean", "add", "rsqrt", "mul", "mul"]
    # pow and the product read 2048 bytes of bf16, not 4096 of fp32; the product stores 2048
    assert moved(w) == [4096, 2048, 4096, 12, 4, 2048 + 4, 2048]
    assert moved(w, "write_activation") == [2048, 4096, 4, 4, 4, 2048, 2048]
    assert w.text("dtype").tolist() == ["bf16"] + ["fp32"] * 5 + ["bf16"]
    assert w.text("origin").tolist() == ["measured", "extrapolated"] + ["measured"] * 3 + [
        "extrapolated", "measured"]  # fmt: skip


def test_a_router_reads_its_weights_as_they_are_kept():
    w = fold_casts(workload(*ROUTER))
    assert w.text("kind").tolist() == ["gemv", "softmax"]
    assert (w["read_weight"][0], w["read_activation"][0]) == (163_840.0, 2560.0)
    assert w.text("dtype")[0] == "fp32" and w["flop"][0] == 163_840.0


def test_a_router_of_quantised_weights_reads_those():
    w = transformed(workload(*ROUTER), {"workload.weight_bits": 4, CASTS: 0})
    assert w.text("kind").tolist() == ["gemv", "softmax"]
    assert (w["read_weight"][0], w["read_activation"][0]) == (40_960.0, 2560.0)


def test_tables_are_stored_narrow():
    w = fold_casts(workload(*TABLES))
    assert w.text("operator").tolist() == ["cos", "mul", "sin", "mul"]
    assert moved(w, "write_activation") == [512, 256, 512, 256]
    assert moved(w) == [512, 520, 512, 520]


def test_a_cast_takes_its_host_work_and_its_wait_for_nothing_else():
    before = workload(*NORM)
    after = fold_casts(before)
    assert after["host_s"].sum() == pytest.approx(before["host_s"].sum() - 2 * 3e-6)
    assert after["interpreter_s"].sum() == pytest.approx(0.0)
    assert after.steps is before.steps
    order = stream_order(after["stream"], after["step"])
    assert all(np.array_equal(a, b) for a, b in zip(after.edges, order, strict=True))
    assert after.meta["left_out"] == 2


def test_edges_beside_the_streams_are_handed_on():
    indptr = np.array([0, 0, 1, 2, 3, 4, 5, 7, 8, 9])
    indices = np.array([0, 1, 2, 3, 4, 1, 5, 6, 7])
    w = fold_casts(workload(*NORM, edges=(indptr, indices)))
    # the product waited for the cast, so now it waits for what the cast waited for
    waits = [w.edges[1][w.edges[0][i] : w.edges[0][i + 1]].tolist() for i in range(len(w))]
    assert waits == [[], [0], [1], [2], [3], [0, 4], [5]]


@pytest.mark.parametrize(
    "given",
    [
        (WIDEN, point("mul", "fp32", 1, 1024, 6144, 4096)),  # of which a part may be another's
        (WIDEN, point("sort", "fp32", 1, 1024, 4096, 8192, "sort")),  # sorts its own type
        (WIDEN, {**point("pow", "fp32", 1, 1024, 4096, 4096), "stream": 9}),
        (WIDEN, {**point("pow", "fp32", 1, 1024, 4096, 4096), "step": 1}),
        (WIDEN,),
        ({**WIDEN, "sync": True}, point("pow", "fp32", 1, 1024, 4096, 4096)),
        ({**WIDEN, "basis": "name"}, point("pow", "fp32", 1, 1024, 4096, 4096)),
        (point("mul", "fp32", 1, 512, 2048, 2048), NARROW),
        (point("mul", "fp32", 1, 1024, 4096, 4096), point("x", "fp32", 1, 1, 4, 4), NARROW),
        (LAYER,),
    ],
)
def test_what_sizes_do_not_tell_stays(given):
    wall = (1.0, 1.0) if any(r.get("step") for r in given) else (1.0,)
    w = workload(*given, wall=wall)
    with pytest.raises(InputError, match="has no cast beside a kernel that can load or store"):
        fold_casts(w)
    assert fold_casts(workload(*NORM, *given, wall=wall)).mask("kind", "cast").sum() == sum(
        r["kind"] == "cast" for r in given)  # fmt: skip


@pytest.mark.parametrize(
    ("name", "casts", "left"),
    [
        ("paddleocr_vl_decode", 78, 0), ("paddleocr_vl_decode_b8", 78, 0),
        ("paddleocr_vl_prefill", 78, 0), ("deepseek_ocr_decode_grouped", 98, 13),
        ("deepseek_ocr_decode_grouped_b16", 98, 13), ("deepseek_ocr_decode", 142, 2),
    ],
)  # fmt: skip
def test_casts_of_shipped_steps(name, casts, left):
    w = ns.load_workload(name)
    after = fold_casts(w)
    count = [int((v.mask("kind", "cast") & (v["step"] == 0)).sum()) for v in (w, after)]
    assert count == [casts, left]
    assert len(w) - len(after) == 3 * (casts - left)
    kept = np.isin(w["start_s"] + 1e3 * w["step"], after["start_s"] + 1e3 * after["step"])
    assert kept.sum() == len(after)
    assert (after.bytes_moved <= w.bytes_moved[kept]).all()
    assert after["flop"].sum() == w["flop"].sum()
    for column in ("read_kv", "write_kv"):
        assert after[column].sum() == w[column].sum()


def test_routers_of_deepseek_ocr_read_half_the_bytes():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    after = fold_casts(w)
    routers = (after.mask("kind", "gemv") & after.mask("dtype", "fp32")
               & (after["read_weight"] > 0))  # fmt: skip
    assert set(after["read_weight"][routers]) == {163_840.0}
    assert set(after["read_activation"][routers]) == {2560.0}


@given(st.sampled_from([1, 2, 8, 32]))
def test_a_batch_before_or_after_folding_is_the_same(batch):
    w = ns.load_workload("paddleocr_vl_decode")
    first = fold_casts(set_batch(w, batch))
    assert not first.mask("kind", "cast").any()
    then = set_batch(fold_casts(w), batch)
    for name in ("batch", "m", "n", "flop", "read_kv", "write_kv", "write_activation"):
        assert first[name] == pytest.approx(then[name], rel=1e-12), name
