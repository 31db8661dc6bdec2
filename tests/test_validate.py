"""Error statistics on figures worked out by hand, and on what ships."""

import json
import math

import numpy as np
import pytest

import npusim as ns
from npusim import measured
from npusim.arch import Designs
from npusim.calibrate import calibrate
from npusim.durations import durations
from npusim.measured import period
from npusim.tables import calibration as calibration_tables
from npusim.validate import Errors, errors_of, validate, validate_trace
from tests.builder import timed, workload
from tests.test_measured import AXES, DECODE, LINEAR, read


def test_error_statistics_by_hand():
    e = errors_of(np.array([1.0, 3.0, 8.0]), np.array([2.0, 2.0, 4.0]))
    assert (e.n, e.median_ape, e.p90_ape, e.worst_ape) == (3, 0.5, 1.0, 1.0)
    assert e.gmean_ratio == pytest.approx((0.5 * 1.5 * 2) ** (1 / 3))
    assert e.weighted_ape == pytest.approx((1 + 1 + 4) / 8)


@pytest.mark.parametrize(("count", "p90"), [(29, 0.28), (30, 0.261)])
def test_of_fewer_than_thirty_the_worst_is_given(count, p90):
    # errors of 0, 1, 2 ... %: the 90th percentile of 30 lies at 26.1
    e = errors_of(1 + np.arange(count) / 100, np.ones(count))
    assert e.p90_ape == pytest.approx(p90)


def test_a_table_by_hand(monkeypatch, tmp_path):
    seconds = {"linear": 2e-6, "decode_attention": 9e-6}
    rows = [{**LINEAR, "launch": "kernel"}, {**LINEAR, "launch": "kernel", "latency_us": 1},
            {**DECODE, "launch": "kernel", "weight_copies": 1}]  # fmt: skip

    def fixed(o, designs):
        time = np.where(
            o.kind == "attention", *(seconds[k] for k in ("decode_attention", "linear"))
        )
        return time[:, None].astype(float)

    monkeypatch.setattr(period, "kernel_time", fixed)
    h200 = ns.load_arch("h200")
    v = validate(read(tmp_path, *rows), h200)
    assert (v.overall.n, v.overall.median_ape, v.overall.worst_ape) == (
        3, pytest.approx(1 / 3), pytest.approx(1.0))  # fmt: skip
    assert v.per_op["linear"].median_ape == pytest.approx((1 / 3 + 1) / 2)
    assert v.per_op["decode_attention"].worst_ape == pytest.approx(0)
    assert [w.row for w in v.worst] == [3, 2, 4]
    assert v.worst[0].shape == "gemv bf16 batch=1 m=1 n=256 k=512"
    assert v.worst[2].shape == "attention bf16 batch=2 m=1 n=100 k=64 heads=8 kv_heads=2"
    assert (v.worst[0].predicted_s, v.worst[0].measured_s) == pytest.approx((2e-6, 1e-6))
    content = json.loads(json.dumps(v.as_dict(), allow_nan=False))
    assert {"n", "median_ape", "p90_ape", "gmean_ratio", "per_op"} <= set(content)
    assert set(content["per_op"]) == {"linear", "decode_attention"}
    assert "busy_error" not in content
    fitted = [p for p in h200.provenance.values() if p.kind == "calibrated"]
    assert 0 < content["fitted_parameters"] <= len(fitted)
    of_libraries = [path for path, p in h200.provenance.items()
                    if path.startswith("library.") and p.kind == "calibrated"]  # fmt: skip
    assert 0 < content["fitted_of_libraries"] <= len(of_libraries)


def test_fitted_numbers_are_said_to_be_the_machines_or_the_libraries(capsys):
    # of a library's attention alone, a pointwise kernel feels nothing
    point, keys = workload({"duration_s": 1e-6}), {"kind": "attention", "m": 1, "n": 64, "k": 64,
                           "heads": 4, "kv_heads": 4, "batch": 1, "dtype": "bf16",
                           "library": "cuDNN", "read_kv": 1e5, "duration_s": 1e-5}  # fmt: skip
    h200 = ns.load_arch("h200")
    none, some = (validate_trace(w, h200) for w in (point, workload(keys)))
    assert none.fitted_of_libraries == 0 < some.fitted_of_libraries
    assert some.fitted_parameters - some.fitted_of_libraries == none.fitted_parameters
    b200 = validate_trace(workload(keys), ns.load_arch("b200"))  # a datasheet, and no fit of it
    assert b200.fitted_parameters == b200.fitted_of_libraries > 0
    calibration_tables.validated(some)
    told = (f"{none.fitted_parameters} of the machine, {some.fitted_of_libraries} of libraries "
            "(of all machines)\n")  # fmt: skip
    assert told in capsys.readouterr().out


def test_a_trace_by_hand():
    h200 = ns.load_arch("h200")
    first = workload({"duration_s": 1.0}, timed(1.0), device="NVIDIA H200")
    t = float(durations(first, Designs(h200)).busy()[0]) - 1.0  # of the kernel that is modelled
    w = workload({"duration_s": t / 2}, timed(3 * t), wall=(8 * t,), device="NVIDIA H200")
    v = validate_trace(w, h200)
    assert v.steps is not None
    assert v.steps.busy_error == pytest.approx((t + 3 * t) / (3.5 * t) - 1)
    assert v.steps.modelled_busy_share == pytest.approx(0.5 / 3.5)
    assert (v.overall.n, v.overall.median_ape) == (1, pytest.approx(1.0))
    assert v.notes == ("kernels without shapes or time, left out: 1 of 2",)
    assert set(v.per_op) == {"pointwise"}
    content = json.loads(json.dumps(v.as_dict(), allow_nan=False))
    assert {"busy_error", "wall_error", "weighted_ape", "launch", "per_op"} <= set(content)


def test_a_host_that_was_measured_gives_the_wall():
    # the host works 1 s, launches, and waits: 1 s + latency + kernel
    h200 = ns.load_arch("h200")
    latency = h200["launch.eager.latency"]
    rows = [{**timed(0.5), "host_s": 1.0, "sync": True}, {"duration_s": 1e-6}]
    w = workload(*rows, wall=(2.0,), device="NVIDIA H200")
    v = validate_trace(w, h200)
    assert v.steps is not None
    assert v.steps.wall_error == pytest.approx((1.0 + latency + 0.5) / 2 - 1, abs=2e-5)


def test_a_trace_without_a_wall_has_no_error_of_it():
    w = workload({"duration_s": 1e-6}, wall=(0.0,), device="NVIDIA H200")
    v = validate_trace(w, ns.load_arch("h200"))
    assert v.steps is not None and math.isnan(v.steps.wall_error)
    assert v.as_dict()["wall_error"] is None


def test_a_perfect_model_has_no_error():
    m = measured.read(AXES)
    h200 = ns.load_arch("h200")
    perfect = m.take(np.arange(len(m)))
    object.__setattr__(perfect, "seconds", period.predicted(m, Designs(h200))[:, 0])
    v = validate(perfect, h200)
    assert v.overall == Errors(len(m), 0.0, 0.0, 0.0, pytest.approx(1.0), 0.0)


def test_shipped_measurements_and_traces_can_be_held_against_the_machine():
    h200 = ns.load_arch("h200")
    v = validate(measured.read(AXES), h200)
    assert v.overall.n == sum(e.n for e in v.per_op.values()) == 531
    assert len(v.worst) == 10
    assert 0 < v.overall.median_ape < 0.3
    trace = validate_trace(ns.load_workload("paddleocr_vl_decode"), h200)
    assert trace.steps is not None
    assert abs(trace.steps.wall_error) < 0.02
    assert abs(trace.steps.busy_error) < 0.3


def test_tables_tell_the_figures(capsys, tmp_path):
    h200 = ns.load_arch("h200")
    rows = [{"duration_s": 1e-6}, timed(1e-6)]
    calibration_tables.validated(validate_trace(workload(*rows, device="NVIDIA H200"), h200))
    out = capsys.readouterr().out
    assert "h200 against made; fitted parameters that count here: " in out
    assert "of which 50.0% is predicted" in out
    assert "note: kernels without shapes or time, left out: 1 of 2" in out
    m = measured.read(AXES)
    m = m.take(m.op == "pointwise")
    done = calibrate([(m, h200)], ["floor.pointwise", "floor.sort"])
    calibration_tables.calibrated(done, tmp_path / "out.yaml")
    out = capsys.readouterr().out
    assert "fitted to 112 rows of h200_axes.json on h200 (pointwise)" in out
    assert "1 free parameter\n" in out
    assert "1 more left as they were: no measured time depends on them" in out
    assert "out.yaml; report errors on measurements that it has not seen" in out


def test_operations_that_a_board_held_are_told():
    axes = measured.read(AXES)
    large = axes.take((axes.op == "linear") & (axes.operations["m"] == 4096))
    h200 = ns.load_arch("h200")
    (note,) = [n for n in validate(large, h200).notes if n.startswith("power limit: ")]
    count = int(note.split()[2])
    assert 10 < count < len(large)  # not the short ones, nor those of `sm_count`
    assert "%" in note
    few = axes.take((axes.op == "linear") & (axes.operations["m"] == 1))
    assert not [n for n in validate(few, h200).notes if n.startswith("power limit")]
    free = ns.with_value(h200, "power.brief", 1e5)
    assert not [n for n in validate(large, free).notes if n.startswith("power limit")]
