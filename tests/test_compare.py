"""Comparison with measurement, on numbers worked out by hand and on the shipped measurements."""

import numpy as np
import pandas as pd
import pytest

import npusim as ns
from npusim import catalog
from npusim.compare import band_factors, compare_designs, error_of, kernel_errors, measured
from npusim.errors import InputError
from npusim.load import traced_arch
from tests.builder import timed, workload

SHIPPED = catalog.names("workloads")


def test_error_statistics_by_hand():
    table = pd.DataFrame({"predicted_s": [1.0, 2.0, 3.0], "measured_s": [2.0, 2.0, 4.0]})
    error = error_of(table)
    assert error.median_ape == pytest.approx(0.25)
    assert error.worst_ape == pytest.approx(0.5)
    assert error.weighted_ape == pytest.approx((1 + 0 + 1) / 8)
    assert error.busy_error == pytest.approx(6 / 8 - 1)
    with pytest.raises(InputError, match="no operation with known shapes"):
        error_of(table[:0])


def test_the_band_by_hand():
    # an empty pointwise kernel is predicted at its floor of 0.99 us on the H200
    rows = [{"duration_s": 0.99e-6 * r} for r in (0.5, 0.5, 1, 1, 1, 1, 1, 1, 3, 3)]
    low, high = band_factors(workload(*rows, device="NVIDIA H200"), ns.load_arch("h200"))
    assert low == pytest.approx(0.5)
    assert high == pytest.approx(3.0)


def test_the_band_always_holds_the_prediction():
    rows = [{"duration_s": 0.99e-6 * 2}] * 3
    assert band_factors(workload(*rows), ns.load_arch("h200")) == pytest.approx((1.0, 2.0))
    assert band_factors(workload(*rows), None) is None


@pytest.mark.parametrize("name", SHIPPED)
def test_the_band_holds_what_was_measured(name):
    w = ns.load_workload(name)
    result = ns.replay(w, ns.load_arch("h200"))
    busy = w["duration_s"].sum() / len(w.steps)
    low, high = result.band.device_busy_s
    assert low <= busy <= high


@pytest.mark.parametrize("name", SHIPPED)
def test_carried_over_kernels_replay_to_the_traced_wall(name):
    w = ns.load_workload(name)
    result = ns.replay(w, ns.load_arch("h200"), mode="transfer")
    assert result.device_busy_s == pytest.approx(w["duration_s"].sum() / len(w.steps))
    assert result.wall_s == pytest.approx(w.steps.wall_s.mean(), rel=0.006)


def test_launch_modes_are_ordered_as_measured():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    eager, graph, queue = (ns.replay(w, h200, m) for m in ("eager", "graph", "queue"))
    wall = {m.launch: m.value_s for m in measured(w)
            if m.device == "NVIDIA H200" and m.quantity == "wall"}  # fmt: skip
    assert wall["eager"] > 10 * wall["graph"]
    assert eager.wall_s > 10 * graph.wall_s > 10 * queue.wall_s
    assert eager.idle_share > 0.9 > graph.idle_share > queue.idle_share


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_workload_is_classified_and_says_where_it_is_from(name):
    w = ns.load_workload(name)
    assert w.classified_busy_share >= 0.97
    assert traced_arch(w).name == "h200"
    text = (catalog.folder("workloads") / f"{name}.md").read_text()
    for word in ("NVIDIA H200", "driver", "npusim import", "date", "licence", f"{len(w):,}"):
        assert word in text
    published = [m for m in measured(w) if not m.traced]
    assert published and all(m.low_s <= m.value_s <= m.high_s for m in published)


def test_figures_of_studies_carry_what_the_studies_say():
    w = ns.load_workload("deepseek_ocr_decode")
    found = {m.label: m for m in measured(w)}
    busy = found["NVIDIA GeForce RTX 5090, eager, device_busy"]
    assert busy.value_s == pytest.approx(179.07e-3 / 64, rel=1e-3)
    wall = found["NVIDIA GeForce RTX 5090, eager, wall"]
    assert (wall.low_s, wall.high_s) == pytest.approx((629e-3 / 64, 707e-3 / 64), rel=1e-3)
    assert not busy.same_kernels and busy.note


def test_published_figures_belong_to_the_trace_they_were_measured_with():
    assert len(measured(workload(timed(1e-6), name="paddleocr_vl_decode"))) == 2


def test_designs_are_put_beside_every_figure():
    w = ns.load_workload("deepseek_ocr_decode")
    table = pd.DataFrame({"wall_s": [1e-3], "wall_low_s": [0.5e-3], "wall_high_s": [2e-3],
                          "device_busy_s": [1e-3], "device_busy_low_s": [np.nan],
                          "device_busy_high_s": [np.nan]})  # fmt: skip
    row = compare_designs(table, w).iloc[0]
    name = "NVIDIA GeForce RTX 5090, eager, device_busy (study, profiled)"
    assert row[name] == pytest.approx(2.798)
    assert np.isnan(row[f"{name}, low"])
    name = "NVIDIA H200, eager, wall (unprofiled)"
    assert row[name] == pytest.approx(63.282)
    assert row[f"{name}, low"] == pytest.approx(31.641)
    assert row[f"{name}, high"] == pytest.approx(126.564)


def test_kernels_without_shapes_are_not_compared():
    rows = [{"duration_s": 1e-6}, {"duration_s": 1e-6, "basis": "name"}]
    assert len(kernel_errors(workload(*rows), ns.load_arch("h200"))) == 1


def test_times_that_are_carried_over_are_not_in_the_band():
    known = [{"duration_s": 0.99e-6 * r} for r in (0.5, 2.0)]
    carried = timed(1e-3)
    result = ns.replay(workload(*known, carried, device="NVIDIA H200"), ns.load_arch("h200"))
    low, high = result.band.device_busy_s
    assert (low, high) == pytest.approx((1e-3 + 0.99e-6, 1e-3 + 2 * 2 * 0.99e-6))
    assert result.notes[0].startswith("NOT A PREDICTION: 99.8% of device time has no shapes")


def test_limits_share_out_the_device_time():
    # 1 us of carried-over time beside an empty kernel at its floor of 0.99 us
    result = ns.replay(workload({"duration_s": 1e-6}, timed(1e-6)), ns.load_arch("h200"))
    assert result.limits == pytest.approx({"measured": 1 / 1.99, "floor": 0.99 / 1.99})
