import csv
import json
import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.difference import LEVELS, difference
from npusim.difference_rows import Change, largest
from npusim.importers import import_trace
from npusim.joining.captures import join
from npusim.workload import COLUMNS, HostCosts, Steps, Workload
from tests.builder import workload

GEMV = {"kernel": "gemv<float>(float*)", "operator": "aten::mm", "kind": "gemv", "m": 1, "n": 8,
        "k": 4, "flop": 64.0, "read_weight": 128.0}  # fmt: skip
ADD = {"kernel": "void at::native::add<2ul>(int)", "operator": "aten::add", "kind": "pointwise"}


def by_name(changes):
    return {c.name: c for c in changes}


def totals(d):
    return {t.name: (t.a, t.b) for t in d.totals}


def with_counters(w, **counters):
    return Workload(w.name, w.columns, w.labels, w.steps, w.edges, w.meta,
                    {k: np.array(v) for k, v in counters.items()})  # fmt: skip


def test_changes_of_a_step_by_hand():
    a = workload(*[{**GEMV, "step": s, "duration_s": 2.0, "start_s": 0.0} for s in (0, 1)],
                 wall=(4.0, 4.0), name="before")  # fmt: skip
    b = workload(
        {**GEMV, "duration_s": 3.0},
        {**GEMV, "duration_s": 5.0, "start_s": 3.0},
        {**ADD, "duration_s": 1.0, "start_s": 9.0},
        wall=(12.0,),
        name="after",
    )
    d = difference(a, b)
    assert (d.a, d.b) == ("before", "after")
    gemv, add = d.changes["kernel"]
    assert (gemv.count_a, gemv.count_b, gemv.seconds_a, gemv.seconds_b) == (1, 2, 2, 8)
    # one more of 2 s, and two that take 2 s longer each
    assert (gemv.seconds, gemv.by_count, gemv.by_duration, gemv.status) == (6, 2, 4, "slower")
    assert (add.seconds, add.by_count, add.by_duration, add.status) == (1, 1, 0, "added")
    found = totals(d)
    assert found["wall_s"] == (4, 12)
    assert found["device_busy_s"] == (2, 9)
    assert found["launches"] == (1, 3)
    assert found["flop"] == (64, 128)
    assert found["read_weight"] == (128, 256)
    assert found["idle_share"] == (0.5, 0.25)
    assert "before has 2 steps, after 1: all figures are those of a step" in d.notes


@pytest.mark.parametrize(
    ("counts", "seconds", "status"),
    [
        ((1, 0), (2, 0), "gone"),
        ((0, 1), (0, 2), "added"),
        ((4, 4), (2, 2.01), "same"),
        ((4, 4), (2, 2.1), "slower"),
        ((4, 4), (2, 1.9), "faster"),
        ((4, 8), (2, 3.9), "more"),
        ((4, 2), (2, 1.1), "fewer"),
        ((4, 5), (2, 9), "slower"),
    ],
)
def test_a_status_names_what_explains_most(counts, seconds, status):
    assert Change("x", *counts, *seconds).status == status


def test_one_kernel_spelled_by_two_profilers_is_one_row():
    a = workload({"kernel": "void at::native::(anonymous namespace)::f<2ul>(int)", "duration_s": 1})
    b = workload({"kernel": "void at::<unnamed>::f<(unsigned long)2>(T1)", "duration_s": 2})
    (row,) = difference(a, b).changes["kernel"]
    assert (row.name, row.status) == (a.labels["kernel"][0], "slower")


def test_shapes_are_told_apart_and_named():
    attention = {"kind": "attention", "operator": "sdpa", "batch": 2, "m": 1, "n": 99, "k": 64,
                 "heads": 16, "kv_heads": 2, "duration_s": 1.0}  # fmt: skip
    a = workload({**GEMV, "duration_s": 1.0}, attention)
    b = workload({**GEMV, "k": 5, "duration_s": 1.0}, attention)
    rows = by_name(difference(a, b).changes["operator and shape"])
    assert {name: c.status for name, c in rows.items()} == {
        "aten::mm 1x8x4": "gone",
        "aten::mm 1x8x5": "added",
        "sdpa 2 of 1x99x64, 16 heads on 2": "same",
    }


def test_other_libraries_are_compared_by_what_is_common():
    def capture(prefix, operator="aten::mm", n=8, kind="gemv"):
        return workload({**GEMV, "kernel": prefix, "operator": operator, "n": n, "kind": kind,
                         "duration_s": 1.0})  # fmt: skip

    cuda = capture("cublas_gemv")
    assert difference(cuda, cuda).compared_by == "kernel"
    assert difference(cuda, capture("Cijk_")).compared_by == "operator and shape"
    assert difference(cuda, capture("Cijk_", n=9)).compared_by == "operator"
    assert difference(cuda, capture("Cijk_", "unknown")).compared_by == "kind"
    # what nobody knows is not the same on both sides
    d = difference(capture("x", "unknown"), capture("y", "unknown"))
    assert (d.compared_by, d.common_share["operator"], d.common_share["kind"]) == ("kind", 0, 1)


@pytest.mark.parametrize(
    ("of_a", "of_b", "compared_by"),
    [
        ((1, 1), (1, 1), "kernel"),  # one half of the time of both: enough
        ((1, 1), (9, 1), "kernel"),
        ((1.01, 0.99), (1, 1), "kernel"),
        ((0.99, 1.01), (1, 1), "operator and shape"),
        ((1, 1), (0.99, 1.01), "operator and shape"),
        ((9, 1), (0.99, 1.01), "operator and shape"),  # nor does it help that it is most of one
        ((1, 3), (1, 3), "operator and shape"),
    ],
)
def test_half_of_the_time_of_both_must_be_common(of_a, of_b, compared_by):
    """Seconds of a kernel that both captures have, and of one that each has of its own."""
    a, b = (
        workload(*[{**GEMV, "kernel": k, "duration_s": t}
                   for k, t in zip(("common", own), seconds, strict=True)])
        for own, seconds in (("cublas", of_a), ("Cijk", of_b))
    )  # fmt: skip
    d = difference(a, b)
    assert d.compared_by == compared_by
    assert d.common_share["kernel"] == min(of_a[0] / sum(of_a), of_b[0] / sum(of_b))
    assert d.common_share["operator and shape"] == 1


def test_half_of_the_time_must_be_common_at_every_level():
    """Two kernels of 1 s each: what they have in common decides, first the finest of levels."""

    def capture(prefix, second):
        rows = [{**GEMV, "duration_s": 1.0}, {**GEMV, "duration_s": 1.0, **second}]
        return workload(*[{**row, "kernel": prefix + str(i)} for i, row in enumerate(rows)])

    a = capture("x", {"operator": "aten::one", "kind": "gemm"})
    half = capture("y", {"operator": "aten::two", "kind": "gemm"})
    assert difference(a, half).compared_by == "operator and shape"
    assert difference(a, half).common_share["operator and shape"] == 0.5
    # the other half is of another shape too, and takes a hundredth longer
    longer = capture("y", {"operator": "aten::one", "n": 9, "duration_s": 1.01})
    assert difference(a, longer).compared_by == "operator"


def test_captures_of_one_name_are_told_apart():
    w = workload({**GEMV, "duration_s": 1.0}, name="x")
    assert (difference(w, w).a, difference(w, w).b) == ("x (a)", "x (b)")


def test_counters_are_weighted_by_time():
    a = workload(*[{**GEMV, "duration_s": s} for s in (1.0, 3.0, 4.0)])
    b = workload(*[{**GEMV, "duration_s": s} for s in (1.0, 1.0)])
    a = with_counters(a, l2_hit_rate=[0.0, 1.0, np.nan], occupancy=[0.5] * 3)
    b = with_counters(b, l2_hit_rate=[0.25, 0.75], waves=[1.0, 1.0])
    (hit,) = difference(a, b).counters
    assert (hit.counter, hit.a, hit.b) == ("l2_hit_rate", 0.75, 0.5)
    assert (hit.mean_a, hit.mean_b, hit.time_share_a, hit.time_share_b) == (0.5, 0.5, 0.5, 1.0)


def test_host_calls_a_step():
    def capture(names, calls, seconds, steps):
        rows = [{**GEMV, "step": s, "duration_s": 1.0} for s in range(steps)]
        w = workload(*rows, wall=(9.0,) * steps)
        host = HostCosts(names, ("operator",) * len(names), np.array(calls), np.array(seconds),
                         np.array(seconds))  # fmt: skip
        return Workload(w.name, w.columns, w.labels, w.steps, w.edges, w.meta, None, host)

    a = capture(("aten::mm", "aten::cat"), [4, 2], [8.0, 2.0], 2)
    b = capture(("aten::mm", "graph"), [1, 1], [4.5, 3.0], 1)
    d = difference(a, b)
    assert [(c.name, c.count_a, c.count_b, c.seconds) for c in d.host] == [
        ("graph", 0, 1, 3.0), ("aten::cat", 1, 0, -1.0), ("aten::mm", 2, 1, 0.5)]  # fmt: skip
    assert difference(a, workload({**GEMV, "duration_s": 1.0})).host == ()


def test_notes_say_what_makes_figures_hard_to_compare():
    a = workload({**GEMV, "duration_s": 1.0}, {**ADD, "step": 1, "duration_s": 1.0},
                 {**ADD, "step": 1, "duration_s": 1.0}, wall=(1, 1), device="one")  # fmt: skip
    b = workload({"kernel": "x", "basis": "none", "duration_s": 1.0}, device="two")
    notes = difference(a, b).notes
    assert "steps of made (a) differ: 1 to 2 operations" in notes
    assert "FLOP and bytes are known for 0% of the device time of made (b)" in notes
    assert "device: one against two" in notes


OPERATION = st.fixed_dictionaries({
    "kernel": st.sampled_from(["a<1>", "a<2>", "b", "c(int)"]),
    "operator": st.sampled_from(["mm", "add", "unknown"]),
    "kind": st.sampled_from(["gemm", "pointwise", "unknown"]),
    "m": st.integers(0, 2),
    "duration_s": st.floats(0, 10),
})  # fmt: skip
CAPTURE = st.lists(OPERATION, min_size=1, max_size=30)


@settings(max_examples=150)
@given(CAPTURE, CAPTURE, st.integers(1, 3))
def test_every_table_adds_up(rows_a, rows_b, steps):
    a, b = workload(*rows_a), workload(*rows_b, wall=(1.0,) * steps)
    d = difference(a, b)
    busy = math.fsum(r["duration_s"] for r in rows_b) / steps - math.fsum(
        r["duration_s"] for r in rows_a
    )
    for level in LEVELS:
        rows = d.changes[level]
        assert math.fsum(c.seconds for c in rows) == pytest.approx(busy, abs=1e-9)
        parts = math.fsum(c.by_count + c.by_duration for c in rows)
        assert parts == pytest.approx(busy, abs=1e-9)
        assert sum(c.count_a for c in rows) == pytest.approx(len(rows_a))
        assert sum(c.count_b for c in rows) * steps == pytest.approx(len(rows_b))
        short = largest(rows, 2)
        assert len(short) <= 3
        assert math.fsum(c.seconds for c in short) == pytest.approx(busy, abs=1e-9)
    before, after = totals(d)["device_busy_s"]
    assert after - before == pytest.approx(busy, abs=1e-9)
    json.dumps(d.as_dict(), allow_nan=False)


@settings(max_examples=50)
@given(CAPTURE)
def test_a_capture_does_not_differ_from_itself(rows):
    w = workload(*rows)
    d = difference(w, w)
    assert all(c.seconds == 0 and c.status == "same" for level in LEVELS for c in d.changes[level])
    assert all(t.a == t.b for t in d.totals)


def test_a_hundred_thousand_kernels_take_a_second_or_two():
    rng, size = np.random.default_rng(0), 100_000
    base = workload(*[{**GEMV, "kernel": f"k<{i}>", "n": i} for i in range(500)])
    pick = np.sort(rng.integers(0, 500, size))
    columns = {c: base[c][pick] for c in COLUMNS} | {"duration_s": rng.random(size)}
    w = Workload("many", columns, base.labels, Steps(np.ones(1), np.zeros(1)), meta={})
    began = time.perf_counter()
    d = difference(w, w)
    assert time.perf_counter() - began < 6  # about one on an idle machine
    assert len(d.changes["kernel"]) == 500


# ---------------------------------------------------------------- real captures


def trace(shared, name):
    path = shared / name
    if not path.is_file():
        pytest.skip(f"{name} is not beside the checkout")
    return import_trace(path)


H200 = "baselines/h200/kineto/kineto_paddle_decode_b1_c628"
TRACELENS = "external/traces/tracelens"


@pytest.mark.shared
def test_a_compiled_step_against_an_eager_one(shared):
    d = difference(trace(shared, f"{H200}.json.gz"), trace(shared, f"{H200}_compiled.json.gz"))
    found = totals(d)
    assert found["launches"] == (782, 367)  # as the folder's README counts them
    gone, added = ([c for c in d.changes["kernel"] if c.status == s] for s in ("gone", "added"))
    assert all("triton" not in c.name for c in gone)
    fused = math.fsum(c.seconds_b for c in added if c.name.startswith("triton_"))
    assert fused > 0.5 * math.fsum(c.seconds_b for c in added)
    kinds = by_name(d.changes["kind"])
    assert kinds["fused"].status == "added"
    assert kinds["pointwise"].status == "gone"


@pytest.mark.shared
def test_one_model_on_two_makes_of_gpu(shared):
    name = "gaunernst_bert-small-uncased__1016001.json.gz"
    d = difference(*(trace(shared, f"{TRACELENS}/{gpu}_{name}") for gpu in ("h100", "mi300x")))
    assert d.compared_by == "operator and shape"
    assert d.common_share["kernel"] < 0.2
    assert d.common_share["operator and shape"] == pytest.approx(1)
    assert totals(d)["flop"][0] == totals(d)["flop"][1] > 0
    flash = by_name(d.changes["operator and shape"])[
        "aten::_flash_attention_forward 141x141x64, 8 heads on 8"
    ]
    assert (flash.count_a, flash.count_b, flash.status) == (4, 4, "slower")


@pytest.mark.shared
def test_a_larger_batch_keeps_its_operators(shared):
    one = trace(shared, f"{H200}.json.gz")
    many = trace(shared, f"{H200.replace('b1', 'b32')}.json.gz")
    d = difference(one, many)
    assert totals(d)["launches"] == (782, 782)
    assert totals(d)["read_kv"][1] == pytest.approx(32 * totals(d)["read_kv"][0])
    assert d.common_share["operator"] > 0.99
    assert d.common_share["operator and shape"] < 0.01


@pytest.mark.shared
def test_two_profiles_of_one_study(shared):
    folder = shared / "external" / "seed_dsocr_rtx5090"
    if not folder.is_dir():
        pytest.skip("the published profiles are not beside the checkout")
    found = [
        join([import_trace(f) for f in sorted(folder.glob(f"{run}/kernel_*/ncu.details.csv"))])
        for run in ("ncu-v1", "ncu-v2")
    ]
    d = difference(*(joined.workload for joined in found))
    table = (shared / "facts" / "dsocr_ncu_v2_stage_of_each_kernel.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))
    assert totals(d)["launches"] == (18, 20)
    published = sum(float(r["ncu_us"]) for r in rows) * 1e-6
    assert totals(d)["device_busy_s"][1] == pytest.approx(published, abs=20 * 5e-9)  # rounded
    shifts = {c.counter: c for c in d.counters}
    published = np.mean([float(r["dram_pct"]) for r in rows]) / 100
    assert shifts["dram_throughput"].mean_b == pytest.approx(published, abs=1e-4)
    assert "durations of ncu.details (a) are those of a counter profiler" in " ".join(d.notes)


def test_classes_shift_by_counters_or_by_shapes():
    """By counters where both have them, by shapes and machine otherwise."""
    w = ns.load_workload("paddleocr_vl_decode")
    shown = difference(w, w)
    assert "arithmetic intensity" in shown.class_rule
    assert {c.name for c in shown.classes} == {"launch-bound", "memory-bound"}
    assert sum(c.seconds_a for c in shown.classes) == pytest.approx(w["duration_s"].sum() / 3)
    n = len(w)

    def counted(sm, dram):
        counters = {"sm_throughput": np.full(n, sm), "dram_throughput": np.full(n, dram)}
        return Workload("c", w.columns, w.labels, w.steps, w.edges, w.meta, counters)

    shown = difference(counted(0.5, 0.1), counted(0.1, 0.5))
    assert shown.class_rule.startswith("By counters")
    status = {c.name: (c.count_a, c.count_b) for c in shown.classes}
    assert status == {"compute-bound": (n / 3, 0), "memory-bound": (0, n / 3)}


@pytest.mark.shared
def test_classes_of_the_two_profiles_are_those_of_the_study(shared):
    """Counted from the classification tables of the study itself (V1 has two kernels unknown)."""
    seed = shared / "external" / "seed_dsocr_rtx5090"
    if not seed.is_dir():
        pytest.skip(f"{seed} is not there")
    profiles, expected = [], []
    for version in ("ncu-v1", "ncu-v2"):
        files = sorted((seed / version).glob("kernel_*/ncu.details.csv"))
        profiles.append(join([ns.import_trace(f) for f in files]).workload)
        rows = (seed / version / "analysis" / "classification_summary.csv").read_text().split()[1:]
        expected.append(Counter(row.split(",")[1].replace("_", "-") for row in rows))
    shown = difference(*profiles)
    for class_ in ("memory-bound", "compute-bound", "balanced"):
        change = next(c for c in shown.classes if c.name == class_)
        assert (change.count_a, change.count_b) == tuple(e[class_] for e in expected)
