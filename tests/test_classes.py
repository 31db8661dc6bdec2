"""What holds a kernel back, by counters and by shapes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.classes import BALANCED_POINTS, CLASSES, by_counters, by_shapes, flop_peak

from .builder import timed, workload

share = st.floats(0, 1)


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


def counted(sm, dram):
    return by_counters(np.array([sm]), np.array([dram]))[0]


@pytest.mark.parametrize(("sm", "dram", "expected"), [
    (0.4149, 0.0813, "compute-bound"), (0.0915, 0.1966, "memory-bound"),
    (0.3675, 0.3726, "balanced"), (0.0002, 0.004, "balanced"), (0.15, 0.10, "compute-bound"),
    (0.10, 0.15, "memory-bound"), (0.1499, 0.10, "balanced"), (np.nan, 0.1, "unknown"),
    (0.1, np.nan, "unknown"),
])  # fmt: skip
def test_class_by_counters(sm, dram, expected):
    assert counted(sm, dram) == expected


@given(share, share)
def test_class_by_counters_is_symmetric(sm, dram):
    other = {"compute-bound": "memory-bound", "memory-bound": "compute-bound"}
    found = counted(sm, dram)
    assert counted(dram, sm) == other.get(found, found)


@given(share, share)
def test_balanced_means_close_together(sm, dram):
    assert (counted(sm, dram) == "balanced") == (round(abs(sm - dram), 6) < BALANCED_POINTS)


@pytest.mark.shared
@pytest.mark.parametrize("version", ["ncu-v1", "ncu-v2"])
@pytest.mark.parametrize("points", [0.0386, BALANCED_POINTS, 0.0578])
def test_rule_gives_every_class_of_a_published_report(shared, version, points, monkeypatch):
    """Five points lie well inside the thresholds that fit that report: 3.85 to 5.79 points."""
    folder = shared / "external/seed_dsocr_rtx5090" / version / "analysis"
    if not folder.is_dir():
        pytest.skip("the metrics are not there")
    monkeypatch.setattr("npusim.classes.BALANCED_POINTS", points)
    metrics = pd.read_csv(folder / "metrics_summary.csv", index_col="kernel_id")
    classes = pd.read_csv(folder / "classification_summary.csv", index_col="kernel_id")
    sm, dram = (metrics[f"{c}_throughput_pct"].to_numpy() / 100 for c in ("sm", "dram"))
    found = pd.Series(by_counters(sm, dram), metrics.index).str.replace("-", "_")
    assert found.to_dict() == classes["classification"].to_dict()
    assert len(found) == 20


# ---------------------------------------------------------------- by shapes; an H200 has
# 4.8 TB/s, 989 TFLOP/s in bf16 and 66.9 TFLOP/s fp32: ridges at 206 and 13.9 FLOP/B


def gemm(flop, moved, duration):
    return {"kind": "gemm", "dtype": "bf16", "flop": flop, "read_weight": moved,
            "duration_s": duration}  # fmt: skip


@pytest.mark.parametrize(("row", "expected"), [
    (gemm(1e12, 1e9, 1e-3), "compute-bound"),  # 1000 FLOP/B
    (gemm(2e11, 1e9, 1e-3), "balanced"),  # 200 FLOP/B
    (gemm(1.1e11, 1e9, 1e-3), "balanced"),  # 110 FLOP/B, more than half the ridge
    (gemm(0.9e11, 1e9, 1e-3), "memory-bound"),
    (gemm(1e12, 1e9, 2.0e-6), "launch-bound"),  # a product starts in 1.05 us
    (gemm(1e12, 1e9, 7.5e-6), "compute-bound"),  # more than twice the floor
    ({"kind": "copy", "read_activation": 1e9, "duration_s": 1e-3}, "memory-bound"),
    ({"kind": "pointwise", "dtype": "fp32", "flop": 3e10, "read_activation": 1e9,
      "duration_s": 1e-3}, "compute-bound"),  # 30 FLOP/B: the vector unit's ridge is low
    (gemm(1e12, 1e9, 0.0), "unknown"),
    (timed(1e-3), "unknown"),
    ({"kind": "copy", "duration_s": 1e-3}, "unknown"),  # nothing to do, as far as shapes tell
])  # fmt: skip
def test_class_by_shapes(row, expected, h200):
    assert by_shapes(workload(row), h200).tolist() == [expected]


# ---------------------------------------------------------------- each side of each edge, on a
# machine with its ridge at 128 FLOP/B (7.72992 TB/s under 4096 x 132 x 1.83 GHz) and floors of 4 us


@pytest.fixture(scope="module")
def round_machine(h200):
    found = ns.with_value(h200, "memories.dram.bandwidth", "7.72992 TB/s")
    found = ns.with_value(found, "floor.pointwise", "4 us")
    found = ns.with_value(found, "floor.matmul", "3 us")
    found = ns.with_value(found, "gemm.start", 1980)  # and 1 us at 1.98 GHz
    assert flop_peak(workload(gemm(1, 1, 1)), found)[0] / 7.72992e12 == 128
    return found


@pytest.mark.parametrize(
    ("ridges", "expected"),
    [
        (0.25, "memory-bound"), (0.499, "memory-bound"), (0.5, "balanced"), (0.501, "balanced"),
        (0.75, "balanced"), (1.0, "balanced"), (1.5, "balanced"), (1.999, "balanced"),
        (2.0, "balanced"), (2.001, "compute-bound"), (3.0, "compute-bound"),
    ],
)  # fmt: skip
def test_balanced_is_from_half_to_twice_the_ridge(ridges, expected, round_machine):
    w = workload(gemm(ridges * 128e9, 1e9, 1e-3))
    assert by_shapes(w, round_machine).tolist() == [expected]


@pytest.mark.parametrize(
    ("microseconds", "expected"),
    [(1, "launch-bound"), (6, "launch-bound"), (7.999, "launch-bound"), (8, "launch-bound"),
     (8.001, "memory-bound"), (12, "memory-bound"), (16, "memory-bound")],
)  # fmt: skip
def test_launch_bound_is_up_to_twice_the_floor(microseconds, expected, round_machine):
    for kind in ("gemm", "pointwise"):
        w = workload({**gemm(1e6, 1e6, microseconds * 1e-6), "kind": kind, "dtype": "bf16"})
        assert by_shapes(w, round_machine).tolist() == [expected]


@pytest.mark.parametrize(
    ("difference", "expected"),
    [(0.04, "balanced"), (0.0499, "balanced"), (0.05, "apart"), (0.0501, "apart"),
     (0.06, "apart")],
)  # fmt: skip
def test_balanced_by_counters_is_less_than_five_points_apart(difference, expected):
    """Sums such as 0.35 + 0.05 are not exact: five points are five points at any height."""
    for low in (0.0, 0.1, 0.35, 0.7):
        sides = counted(low + difference, low), counted(low, low + difference)
        apart = ("compute-bound", "memory-bound") if expected == "apart" else ("balanced",) * 2
        assert sides == apart


def test_faster_memory_makes_a_kernel_less_memory_bound(h200):
    w = workload(gemm(0.9e11, 1e9, 1e-3))
    faster = ns.with_value(h200, "memories.dram.bandwidth", "9.6 TB/s")
    assert by_shapes(w, h200)[0] == "memory-bound"
    assert by_shapes(w, faster)[0] == "balanced"


def test_peak_is_that_of_the_unit_and_type_in_use(h200):
    w = workload(gemm(1, 1, 1), {"kind": "gemm", "dtype": "fp32"}, {"kind": "pointwise"})
    vector = 256 * 132 * 1.98e9
    assert flop_peak(w, h200).tolist() == pytest.approx([4096 * 132 * 1.83e9, vector, vector])


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_vision"])
def test_every_launch_of_a_shipped_workload_has_a_class(name, h200):
    w = ns.load_workload(name)
    found = by_shapes(w, h200)
    assert set(found) <= set(CLASSES)
    assert ((found == "unknown") == ~w.classified).all()
