"""Capture without a GPU: plans, rows, files, what is said when something is missing."""

import gc
import gzip
import json
import os
import re
import shlex
import stat
import subprocess
import sys
import weakref
from itertools import pairwise
from types import SimpleNamespace
from unittest.mock import MagicMock

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from npusim.capture import (
    Case,
    Origin,
    capture_counters,
    capture_experiments,
    capture_model,
    counters,
    environment,
    experiments,
    gpu,
    hugging_face,
    nvml,
    step_energy,
    timing,
    trace,
    user_code,
)
from npusim.capture.commands import capture as commands
from npusim.capture.experiments import (
    energy,
    experiment,
    experiment_names,
    launch,
    power,
    sm_count,
)
from npusim.capture.folder import Folder
from npusim.capture.models import Step
from npusim.errors import InputError, NpusimError
from npusim.importers import import_trace
from tests.fake_torch import STEP_MS, FakeTorch

DEVICE = {"axis": "device", "name": "NVIDIA H200", "sms": 132, "l2": 62914560,
          "mem": 150109880320, "torch": "2.11.0+cu130"}  # fmt: skip
FIGURES = {"us", "us_per_op", "gbps", "tflops", "eager_us", "eager_graph_us", "fused_graph_us",
           "joules", "watts", "seconds", "iters", "dram_bytes", "l2_bytes", "flops", "launches",
           "sm_mhz"}  # fmt: skip


@pytest.fixture
def torch(monkeypatch):
    fake = FakeTorch()
    monkeypatch.setitem(sys.modules, "torch", fake)
    for module in (trace, experiments):
        monkeypatch.setattr(module, "wake", lambda _: None)
    return fake


@pytest.fixture
def baseline(shared):
    folder = shared / "baselines" / "h200"
    if not (folder / "axes.json").is_file():
        pytest.skip("the H200 baseline is not beside the checkout")
    return folder


def rows(path):
    return json.loads(path.read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


# ---------------------------------------------------------------- cases and their files


@pytest.mark.shared
def test_files_are_called_as_in_the_baseline(baseline):
    walls = [w for w in lines(baseline / "wall.jsonl") if "same_process_trace" in w]
    assert len(walls) > 10
    for wall in walls:
        name, phase, batch, context = wall["case"].split(":")
        file = wall["same_process_trace"]
        way = next((w for w in ("graph", "compiled") if file.endswith(f"_{w}.json.gz")), "eager")
        case = Case("config.json", phase, int(batch), int(context), launch=way, name=name)
        assert (case.id, case.trace_file) == (wall["case"], file)
    case = Case("m", "decode", context=628, name="paddle")
    for metrics in ("counters", "dram"):
        assert (baseline / "ncu" / case.counter_file(metrics)).is_file()


@pytest.mark.parametrize(
    ("model", "label", "is_callable"),
    [
        ("models/paddle/config.json", "paddle", False),
        ("models/paddle", "paddle", False),
        ("small.json", "small", False),
        ("org/Model-1.5B", "Model-1.5B", False),
        ("package.module:decoder", "decoder", True),
        ("code/mine.py:step", "step", True),
    ],
)
def test_a_model_is_called_after_where_it_is(model, label, is_callable):
    case = Case(model, "prefill", context=4)
    assert (case.label, case.is_callable) == (label, is_callable)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"phase": "train"}, "--phase: not one of those known: 'train' .allowed: prefill, decode"),
        ({"dtype": "int4"}, "--dtype: .*allowed: bf16, fp16, fp32"),
        ({"launch": "queue"}, "--launch: .*allowed: eager, graph, compiled"),
        ({"batch": 0}, "--batch: out of bounds: 0 .allowed: from 1"),
        ({"context": 0}, "--context: out of bounds: 0 .allowed: from 1"),
        ({"steps": 51}, "--steps: out of bounds: 51 .allowed: 1 to 50"),
        ({"name": "../x"}, "--name: not a name for files"),
        ({"model": "."}, "--name: not a name for files"),
    ],
)
def test_a_case_that_cannot_be_is_refused(changed, message):
    with pytest.raises(InputError, match=message):
        Case(**{"model": "m", "phase": "decode", "context": 8} | changed)


# ---------------------------------------------------------------- plans of experiments


@pytest.mark.parametrize("name", experiment_names())
@given(sms=st.integers(1, 512), l2=st.none() | st.integers(2**20, 2**28), quick=st.booleans())
def test_no_point_is_planned_twice_on_any_device(name, sms, l2, quick):
    planned = experiment(name).points({**DEVICE, "sms": sms, "l2": l2}, quick)
    assert planned
    assert len({json.dumps(p, sort_keys=True) for p in planned}) == len(planned)
    assert {p["axis"] for p in planned} == set(experiment(name).AXES)


@pytest.mark.parametrize(
    "name", sorted(set(experiment_names()) - {"launch", "energy", "queue_depth"})
)
def test_quick_is_a_fraction(name):
    quick, whole = (len(experiment(name).points(DEVICE, q)) for q in (True, False))
    assert quick < whole / 2


@given(st.integers(2**20, 2**30))
def test_weights_go_from_well_inside_the_cache_to_far_beyond(l2):
    planned = experiment("l2_residency").points({**DEVICE, "l2": l2}, False)
    for n in (1280, 6848):
        sizes = [p["footprint_mb"] for p in planned if p.get("n") == n]
        assert sizes == sorted(sizes)
        assert sizes[0] <= max(0.1 * l2 / 2**20, 2 * n * 1280 / 2**20)
        assert sizes[-1] >= 7 * l2 / 2**20


@given(st.integers(1, 300))
def test_parts_of_a_device_are_smaller_than_it_and_the_whole_comes_last(sms):
    counts = [p["sms"] for p in sm_count.points({**DEVICE, "sms": sms}, False)]
    assert counts[-3:] == [sms] * 3
    assert max(counts[:-3], default=0) < sms


@given(st.integers(1, 200_000), st.integers(1, 20_000), st.sampled_from([1, 2]))
def test_weights_are_cold_and_not_without_number(n, k, itemsize):
    from npusim.capture.experiments.linear_shapes import copies

    count, size = copies(n, k, itemsize), n * k * itemsize
    assert 2 <= count <= 400
    assert count == 400 or count * size >= 400e6
    assert count == 2 or (count - 1) * size < 400e6


# ---------------------------------------------------------------- rows of experiments


@pytest.mark.shared
def test_rows_have_the_fields_of_the_baseline_and_its_derived_figures(baseline, monkeypatch):
    """Each measured row is made again from its own time: fields, rates and work must agree."""
    told = {}

    def time(*columns):
        return lambda *_: next(told["row"][c] for c in columns if c in told["row"])

    for module in map(experiment, experiment_names()):
        if hasattr(module, "graph_us"):
            monkeypatch.setattr(module, "graph_us", time("us_per_op", "us", "eager_graph_us"))
        if hasattr(module, "eager_us"):
            monkeypatch.setattr(module, "eager_us", time("eager_us", "us"))
    monkeypatch.setattr(launch, "median", lambda _: told["row"]["us"] / 1e6)
    monkeypatch.setattr(sm_count, "_loop_us", lambda *_: told["row"]["us"])
    monkeypatch.setattr(energy, "open_board", lambda _: None)
    monkeypatch.setattr(energy, "wake", lambda *_: None)
    monkeypatch.setattr(energy, "capture_graph", lambda *_: MagicMock())

    def spent(*_):
        row = told["row"]
        return nvml.Spent(row["joules"], row["seconds"], row.get("iters", 0), row.get("sm_mhz"))

    monkeypatch.setattr(energy, "spend", spent)
    monkeypatch.setattr(energy, "idle", spent)
    mock = MagicMock()
    mock.cuda.get_device_properties.return_value = SimpleNamespace(
        multi_processor_count=132, L2_cache_size=DEVICE["l2"], gcnArchName=""
    )
    seen, ours = {DEVICE["axis"]}, {a: experiment(n) for n in experiment_names()
                                    for a in experiment(n).AXES}  # fmt: skip
    for row in rows(baseline / "axes.json")[1:]:
        point = {k: v for k, v in row.items() if k not in FIGURES - {"seconds"}}
        if row["axis"] == "sm_count" and row["sms"] < 132:
            continue  # needs the driver
        told["row"] = row
        made = {**point, **ours[row["axis"]].measure(mock, point)}
        if row["axis"] == "fusion":
            made |= {k: row[k] for k in ("eager_graph_us", "fused_graph_us") if k in made}
        assert made.keys() == row.keys()
        numbers = [k for k, v in row.items() if isinstance(v, float | int)]
        assert [made[k] for k in numbers] == pytest.approx([row[k] for k in numbers], rel=1e-9)
        seen.add(row["axis"])
    assert seen == {row["axis"] for row in rows(baseline / "axes.json")}


def test_the_device_is_described_as_in_the_baseline(torch):
    assert gpu.device_row(torch).keys() == DEVICE.keys()
    del torch.cuda.device.L2_cache_size
    assert gpu.device_row(torch)["l2"] is None


# ---------------------------------------------------------------- times


@given(st.lists(st.floats(1e-6, 10), min_size=2, max_size=80))
def test_walls_are_told_by_median_and_percentiles(seconds):
    row = timing.wall_row(seconds)
    wanted = 1e3 * np.percentile(seconds, [50, 10, 95])
    assert [row["median_ms"], row["p10_ms"], row["p95_ms"]] == pytest.approx(wanted, rel=1e-6)
    assert row["n"] == len(seconds)


@given(st.floats(0.0, 1e7), st.integers(1, 400))
def test_a_graph_is_long_enough_and_not_too_large(one_us, sets):
    count = timing.rounds(one_us, sets)
    operations = count * sets
    assert operations <= 1000 + sets
    assert operations >= 1000 or operations * one_us >= 1000
    assert count == 1 or (operations - sets) * one_us < 1000


@given(st.floats(1e-3, 20), st.integers(1, 400))
def test_a_call_in_a_graph_is_timed_by_the_device(kernel_ms, sets):
    torch = FakeTorch()
    torch.kernel_ms = kernel_ms
    assert timing.graph_us(torch, [torch.launch] * sets) == pytest.approx(1e3 * kernel_ms)
    assert all(graph.kernels % sets == 0 for graph in torch.graphs)
    assert torch.graphs[-1].kernels * kernel_ms >= 1 or torch.graphs[-1].kernels >= 1000


def test_replays_are_rewound_one_by_one(torch):
    rewound = []
    times = timing.replay_ms(torch, torch.launch, 5, lambda: rewound.append(1))
    assert times == [STEP_MS] * 5
    assert len(rewound) == 7


# ---------------------------------------------------------------- the folder


def test_experiments_replace_their_own_rows_only(tmp_path):
    folder = Folder(tmp_path)
    one, two = {"axis": "launch", "us": 1.0}, {"axis": "pointwise", "us": 2.0}
    folder.add_experiment(DEVICE, ("launch",), [one], {"run": "a"})
    folder.add_experiment(DEVICE, ("pointwise",), [two], {"run": "a", "more": 1})
    assert rows(tmp_path / "axes.json") == [DEVICE, one, two]
    again = Folder(tmp_path)
    again.add_experiment(DEVICE, ("launch",), [{**one, "us": 3.0}], {"run": "b"})
    assert rows(tmp_path / "axes.json") == [DEVICE, two, {**one, "us": 3.0}]
    assert rows(tmp_path / "provenance.json") == [{"run": "a", "more": 1}, {"run": "b"}]
    again.add_experiment(DEVICE, ("energy",), [], {"run": "c"})  # skipped: nothing is lost
    assert len(rows(tmp_path / "axes.json")) == 3


@pytest.mark.parametrize(
    ("past", "asked_quick", "there"),
    [
        ([("measured", False)], False, True),
        ([("measured", False)], True, True),
        ([("measured", True)], True, True),
        ([("measured", True)], False, False),
        ([("measured", True), ("measured", False)], False, True),
        ([("measured", False), ("skipped", False)], False, True),
        ([("skipped", False)], False, False),
        ([], False, False),
    ],
)
def test_what_is_there_with_enough_points_counts_as_done(tmp_path, past, asked_quick, there):
    folder = Folder(tmp_path)
    for i, (status, quick) in enumerate(past):
        record = {"run": str(i), "experiments": {"launch": {"status": status, "quick": quick}}}
        folder.add_experiment(DEVICE, ("launch",), [{"axis": "launch"}], record)
    assert Folder(tmp_path).has("launch", ("launch",), asked_quick) is there
    assert not Folder(tmp_path).has("launch", ("launch", "other"), asked_quick)


def test_experiments_of_two_devices_do_not_mix(tmp_path):
    folder = Folder(tmp_path)
    folder.add_experiment(DEVICE, ("launch",), [{"axis": "launch"}], {"run": "a"})
    Folder(tmp_path).check_device(DEVICE)
    for field, other in (("name", "NVIDIA L4"), ("torch", "2.12.0"), ("sms", 114)):
        with pytest.raises(InputError, match=f"axes.json: holds experiments of another {field}"):
            Folder(tmp_path).check_device({**DEVICE, field: other})


def test_a_trace_that_is_replaced_belongs_to_its_new_wall_only(tmp_path):
    folder = Folder(tmp_path)
    for run, name in (("a", "t.gz"), ("b", "other.gz"), ("c", "t.gz")):
        folder.add_wall({"case": "m", "run": run, "same_process_trace": name})
    folder.add_wall({"case": "m", "run": "d"})
    assert [w.get("same_process_trace") for w in lines(tmp_path / "wall.jsonl")] == [
        None, "other.gz", "t.gz", None]  # fmt: skip


def test_energies_of_a_case_are_replaced(tmp_path):
    folder = Folder(tmp_path)
    folder.add_energy([{"case": "idle", "watts": 70.0}, {"case": "m:graph:1:8", "joules": 1.0}])
    folder.add_energy([{"case": "idle", "watts": 80.0}, {"case": "n:graph:1:8", "joules": 2.0}])
    found = {r["case"]: r for r in rows(tmp_path / "energy_steps.json")}
    assert found["idle"]["watts"] == 80.0
    assert found.keys() == {"idle", "m:graph:1:8", "n:graph:1:8"}


@pytest.mark.parametrize("name", ["axes.json", "provenance.json"])
@pytest.mark.parametrize("text", ["{", "{}", "[1]", "[" * 100_000, "\udcff"])
def test_files_of_another_kind_are_left_alone(tmp_path, name, text):
    (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=name):
        Folder(tmp_path)


def test_a_damaged_list_of_walls_is_not_appended_to(tmp_path):
    (tmp_path / "wall.jsonl").write_text('{"case": "m"}\nnot json\n')
    with pytest.raises(InputError, match=r"wall\.jsonl: line 2: not a JSON object"):
        Folder(tmp_path).add_wall({"case": "m"})
    assert (tmp_path / "wall.jsonl").read_text().count("\n") == 2


# ---------------------------------------------------------------- running experiments


class Made:
    """An experiment of three points whose second fails in a way that is given."""

    def __init__(self, axis):
        self.AXES, self.failure, self.runs = (axis,), None, 0

    def points(self, device, quick):
        return [{"axis": self.AXES[0], "n": n} for n in range(1 if quick else 3)]

    def measure(self, torch, point):
        self.runs += 1
        if point["n"] == 1 and self.failure is not None:
            raise self.failure
        return {"us": 2.0 * point["n"]}


@pytest.fixture
def made(monkeypatch):
    modules = {"one": Made("made"), "two": Made("other")}
    monkeypatch.setattr(experiments, "experiment_names", lambda: tuple(modules))
    monkeypatch.setattr(experiments, "experiment", modules.__getitem__)
    return modules


def test_experiments_are_measured_and_told(torch, made, tmp_path):
    seen = []
    done = capture_experiments(tmp_path, origin=Origin("npusim capture experiments", "CC0-1.0"),
                               tick=lambda *a: seen.append(a))  # fmt: skip
    assert [(o.status, o.points, o.left_out) for o in done.values()] == [("measured", 3, [])] * 2
    assert seen[:4] == [("one", 0, 3), ("one", 1, 3), ("one", 2, 3), ("one", 3, 3)]
    axes = rows(tmp_path / "axes.json")
    assert axes[0]["axis"] == "device"
    assert [r["us"] for r in axes if r["axis"] == "made"] == [0.0, 2.0, 4.0]
    (record,) = rows(tmp_path / "provenance.json")
    assert record["experiments"]["two"]["status"] == "measured"
    assert (record["command"], record["licence"]) == ("npusim capture experiments", "CC0-1.0")
    assert torch.seed == 0


def test_a_point_that_fails_is_left_out_and_named(torch, made, tmp_path):
    made["one"].failure = RuntimeError("CUDA out of memory\nmore")
    done = capture_experiments(tmp_path, ["one"])
    assert done["one"].points == 2
    wanted = [{"axis": "made", "n": 1, "reason": "RuntimeError: CUDA out of memory"}]
    assert done["one"].left_out == wanted
    assert rows(tmp_path / "provenance.json")[0]["experiments"]["one"]["left_out"] == wanted


def test_an_experiment_that_cannot_be_is_skipped_with_its_reason(torch, made, tmp_path):
    made["one"].failure = gpu.Unavailable("no green contexts on this device")
    done = capture_experiments(tmp_path)
    assert (done["one"].status, done["one"].reason) == (
        "skipped", "no green contexts on this device")  # fmt: skip
    assert {r["axis"] for r in rows(tmp_path / "axes.json")} == {"device", "other"}


def test_an_experiment_whose_every_point_fails_is_skipped(torch, made, tmp_path):
    made["one"].measure = MagicMock(side_effect=ValueError("unknown type"))
    done = capture_experiments(tmp_path, ["one"])
    assert done["one"].reason == "every point failed: ValueError: unknown type"
    assert not (tmp_path / "axes.json").exists()
    assert rows(tmp_path / "provenance.json")[0]["experiments"]["one"]["status"] == "skipped"


def test_a_run_that_broke_off_is_taken_up(torch, made, tmp_path):
    made["two"].failure = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        capture_experiments(tmp_path)
    made["two"].failure = None
    done = capture_experiments(tmp_path)
    assert [o.status for o in done.values()] == ["kept", "measured"]
    assert made["one"].runs == 3
    assert [o.status for o in capture_experiments(tmp_path, quick=True).values()] == ["kept"] * 2
    done = capture_experiments(tmp_path, ["one"], again=True)
    assert (done["one"].status, made["one"].runs) == ("measured", 6)


def test_an_unknown_experiment_is_refused_before_anything_runs(torch, tmp_path):
    with pytest.raises(InputError, match=r"no such experiment: 'nosuch' .allowed: attention, "):
        capture_experiments(tmp_path / "new", ["launch", "nosuch"])
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("hip", [None, "6.4"])
def test_green_contexts_that_are_not_there_are_said(torch, monkeypatch, hip):
    torch.version.hip = hip
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(gpu.Unavailable, match="AMD GPUs" if hip else "pip install cuda-bindings"):
        sm_count._driver(torch)


def test_a_part_of_a_device_is_made_used_and_destroyed(torch, monkeypatch):
    calls = []

    def answer(name, *values):
        return lambda *given: (calls.append((name, *given)), (0, *values))[1]

    group = SimpleNamespace(sm=SimpleNamespace(smCount=16))
    driver = MagicMock()
    driver.cuDeviceGet = answer("device", "dev")
    driver.cuDeviceGetDevResource = answer("resource", "all")
    driver.cuDevSmResourceSplitByCount = answer("split", [group], 1, "rest")
    driver.cuDevResourceGenerateDesc = answer("describe", "desc")
    driver.cuGreenCtxCreate = answer("create", "context")
    driver.cuGreenCtxStreamCreate = answer("stream", 77)
    driver.cuStreamDestroy = answer("end stream")
    driver.cuGreenCtxDestroy = answer("end context")
    monkeypatch.setattr(sm_count, "_driver", lambda _: driver)
    torch.cuda.ExternalStream = lambda pointer: f"stream {pointer}"
    with sm_count._part(torch, 12) as found:
        assert found == ("stream 77", 16)  # what the driver gave, not what was asked
    assert [c[0] for c in calls] == ["device", "resource", "split", "describe", "create",
                                     "stream", "end stream", "end context"]  # fmt: skip
    assert ("split", 1, "all", 0, 12) in calls
    driver.cuDeviceGetDevResource = lambda *_: (801, None)
    with pytest.raises(gpu.Unavailable, match="the CUDA driver answers 801"), sm_count._part(
        torch, 12):  # fmt: skip
        pass


# ---------------------------------------------------------------- power of a board


class Counter:
    """A board of 100 W that takes 0.3 J more for each kernel; it has a clock of its own."""

    def __init__(self, torch, mhz=1980):
        self.torch, self.mhz = torch, mhz

    def joules(self):
        return 0.1 * self.torch.now_ms + 0.3 * self.torch.launches

    def sm_mhz(self):
        return self.mhz

    def state(self):
        return {"temperature_c": 41.0}


@pytest.fixture
def board(torch, monkeypatch):
    """Let the host's clock be that of the device, a hundredth of a millisecond a look."""

    def look():
        torch.now_ms += 0.01
        return torch.now_ms * 1e-3

    def sleep(seconds):
        torch.now_ms += 1e3 * seconds

    event = torch.cuda.Event

    def waited_for(enable_timing):
        made = event(enable_timing)
        made.synchronize = lambda: None
        return made

    counter = Counter(torch)
    for module in (power, nvml):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=look, sleep=sleep))
    monkeypatch.setattr(power, "wake", lambda *_: sleep(1.0))
    monkeypatch.setattr(power, "open_board", lambda _: counter)
    torch.cuda.Event = waited_for
    torch.backends.cuda = SimpleNamespace(matmul=SimpleNamespace(allow_tf32=None))
    torch.float8_e4m3fn, torch.int8 = "fp8", "int8"
    torch.zeros = torch.ones = torch.randn = torch.empty_like = MagicMock()
    torch.mm = torch.mul = torch._int_mm = torch._scaled_mm = lambda *_, **__: torch.launch()
    return counter


def burst(**point):
    return {"axis": "power", "seconds": 2.0, **point}


def test_a_resting_board_takes_what_its_counter_says(torch, board):
    row = power.measure(torch, burst(what="idle", after_s=5.0))
    assert row == {"seconds": pytest.approx(2.0, rel=1e-3), "watts": pytest.approx(100.0, rel=1e-4),
                   "sm_mhz": 1980, "degrees": 41.0}  # fmt: skip
    assert torch.now_ms >= 1e3 * (1.0 + 5.0 + nvml.SETTLE + 2.0)
    assert torch.launches == 0


@pytest.mark.parametrize("duty", [0.25, 0.5, 1.0])
def test_a_burst_is_at_work_for_its_share_of_the_time(torch, board, duty):
    torch.kernel_ms = 0.5  # three of them are a burst of 1.5 ms
    row = power.measure(torch, burst(what="gemm", dtype="bf16", data="randn", duty=duty))
    assert row["burst_ms"] == row["in_burst_ms"] == pytest.approx(1.5)
    assert row["bursts"] * 1.5e-3 == pytest.approx(duty, rel=0.03)
    assert row["flops"] == 3 * 2 * 8192**3
    assert row["seconds"] == pytest.approx(2.0, rel=2e-3)
    assert row["watts"] == pytest.approx(100 + 3 * 0.3 * row["bursts"], rel=2e-3)
    assert (row["sm_mhz"], row["degrees"]) == (1980, 41.0)


@pytest.mark.parametrize(
    ("point", "does"),
    [
        ({"what": "gemm", "dtype": "fp32", "data": "randn"}, {"flops": 2 * 4096**3}),
        ({"what": "gemm", "dtype": "tf32", "data": "randn"}, {"flops": 2 * 8192**3}),
        ({"what": "gemm", "dtype": "fp8", "data": "randn"}, {"flops": 2 * 8192**3}),
        ({"what": "gemm", "dtype": "int8", "data": "zeros"}, {"flops": 2 * 8192**3}),
        # reads and writes 512 MiB
        ({"what": "stream", "mib": 512}, {"bytes": 2**30}),
    ],
)
def test_what_a_burst_does_is_counted_by_hand(torch, board, point, does):
    row = power.measure(torch, burst(duty=0.5, **point))  # a kernel of 2 ms is a burst
    assert {name: row[name] for name in does} == does
    assert torch.backends.cuda.matmul.allow_tf32 in (None, point.get("dtype") == "tf32")


def test_kernels_of_one_element_are_started_so_often(torch, board):
    torch.kernel_ms = 0.002
    torch.ones = lambda *_, **__: SimpleNamespace(add_=lambda _: torch.launch())
    row = power.measure(torch, burst(what="tiny", every_us=500.0))
    assert row["launches"] == 1
    assert row["bursts"] == pytest.approx(2000, rel=0.05)
    assert row["watts"] == pytest.approx(100 + 0.3 * row["bursts"], rel=2e-3)


@pytest.mark.parametrize(
    ("point", "grid", "rounds", "does"),
    [
        # a thread does 16 x 2,048 multiply-adds, two FLOP each
        ({"what": "multiply_add", "blocks": 528}, (528, 512), (2048, 0),
         {"flops": 2 * 528 * 512 * 2048 * 16}),
        ({"what": "exponential", "blocks": 528}, (528, 512), (1024, 0),
         {"functions": 528 * 512 * 1024 * 16}),
        # 16 B a load
        ({"what": "load_shared", "blocks": 528}, (528, 512), (2048, 0),
         {"bytes": 16 * 528 * 512 * 2048 * 16}),
        ({"what": "load_l1", "blocks": 528}, (528, 512), (2048, 2048),
         {"bytes": 16 * 528 * 512 * 2048 * 16}),
        ({"what": "load_cache", "blocks": 528, "mib": 8}, (528, 512), (64, 2**19),
         {"bytes": 16 * 528 * 512 * 64 * 16}),
        ({"what": "spin", "blocks": 33, "threads": 32}, (33, 32), (4_000_000, 0),
         {"unit_cycles": 33 * 4_000_000}),
    ],
)  # fmt: skip
def test_kernels_of_our_own_say_what_they_do(torch, board, point, grid, rounds, does):
    started, sizes = [], []

    def kernel(blocks, threads, given):
        started.append((blocks[0], threads[0], *given[1:]))
        torch.launch()

    def compiled(source, name):
        assert f"void {name}(" in source
        return kernel

    torch.cuda._compile_kernel = compiled
    torch.randn = lambda size, device: sizes.append(size)
    row = power.measure(torch, burst(**point))
    assert {name: row[name] for name in does} == does
    assert set(started) == {(*grid, *rounds)}
    # what is read last lies inside what is there
    last = 4 * rounds[1] * (grid[0] if point["what"] == "load_l1" else 1)
    assert sizes[0] >= max(last, 4 * 2048 + 1)
    assert row["bursts"] * 2e-3 == pytest.approx(1.0, rel=0.03)


def test_a_pytorch_that_compiles_no_kernels_is_said(torch, board):
    with pytest.raises(gpu.Unavailable, match=r"compiles no kernels: .* is missing"):
        power.measure(torch, burst(what="spin", blocks=1, threads=32))


def test_a_clock_that_the_board_does_not_tell_is_none(torch, board):
    board.mhz = None
    row = power.measure(torch, burst(what="gemm", dtype="bf16", data="randn", duty=1.0))
    assert row["sm_mhz"] is None


@pytest.mark.parametrize("sms", [1, 2, 16, 132])
def test_every_work_has_blocks_to_run(sms):
    planned = power.points({**DEVICE, "sms": sms}, False)
    assert min(p["blocks"] for p in planned if "blocks" in p) >= 1
    assert planned[-1]["what"] == "idle"  # has the board come back to where it was?
    assert {p["seconds"] for p in planned} == {2.0}


# ---------------------------------------------------------------- a model


CODE = """
import torch

def step(batch, *, dtype):
    assert (batch, dtype) == (4, torch.bfloat16)
    return torch.launch

def waits():
    def run():
        if torch.capturing is not None:
            raise RuntimeError("not permitted when stream is capturing")
        torch.launch()
    return run

def fails():
    def run():
        raise ValueError("shapes cannot be multiplied")
    return run

def broken(context):
    return [][context]

def nothing():
    return 5
"""


@pytest.fixture
def code(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(CODE)
    return file


def test_a_function_is_measured_and_traced(torch, code, tmp_path):
    case = Case(f"{code}:step", "decode", 4, 64)
    done = capture_model(case, tmp_path / "out", Origin("npusim capture model", "MIT"))
    assert done.files == ("kineto_step_decode_b4_c64.json.gz", "wall.jsonl", "provenance.json")
    assert (done.trace, done.kernels, done.notes) == (done.files[0], 1, ())
    (wall,) = lines(tmp_path / "out" / "wall.jsonl")
    assert wall["case"] == "step:decode:4:64"
    assert (wall["graph_median_ms"], wall["graph_min_ms"]) == (STEP_MS, STEP_MS)
    assert (wall["n"], wall["compiled"]) == (40, False)
    (record,) = rows(tmp_path / "out" / "provenance.json")
    assert record["run"] == wall["run"]
    assert record["device"]["name"] == "NVIDIA Test"
    assert record["case"]["batch"] == 4
    assert record["files"] == list(done.files[:2])
    assert (record["licence"], record["pytorch"], record["hip"]) == ("MIT", "2.99.0+fake", None)
    assert torch.profiler.settings[-1]["record_shapes"] is True
    w = import_trace(tmp_path / "out" / done.trace)
    assert (len(w), len(w.steps), w.meta["device"]) == (3, 3, "NVIDIA Test")


@pytest.mark.shared
def test_walls_have_the_fields_of_the_baseline(torch, code, tmp_path, baseline):
    capture_model(Case(f"{code}:step", "decode", 4, 64, launch="graph"), tmp_path)
    (ours,) = lines(tmp_path / "wall.jsonl")
    theirs = next(w for w in lines(baseline / "wall.jsonl")
                  if w.get("same_process_trace", "").endswith("_graph.json.gz"))  # fmt: skip
    assert ours.keys() == theirs.keys()


@pytest.mark.parametrize(("way", "traced"), [("eager", True), ("graph", False)])
def test_a_step_that_no_graph_can_hold_is_said_and_recorded(torch, code, tmp_path, way, traced):
    said = []
    case = Case(f"{code}:waits", "decode", 1, 8, launch=way)
    done = capture_model(case, tmp_path, say=said.append)
    reason = "RuntimeError: not permitted when stream is capturing"
    assert f"no graph of the step: {reason}" in said
    assert done.notes == (f"no graph of the step: {reason}",)
    (wall,) = lines(tmp_path / "wall.jsonl")
    assert wall["graph_error"] == reason
    assert "graph_min_ms" not in wall
    assert ("same_process_trace" in wall) is traced is (tmp_path / case.trace_file).is_file()
    assert (done.trace is not None) is traced


def test_what_a_graph_reads_lives_as_long_as_the_graph(torch, code):
    class Tensor:
        pass

    class Program:
        def static(self, compiled):
            tensor = Tensor()
            self.tensor = weakref.ref(tensor)
            return Step(lambda: (tensor, torch.launch()))

    program, case = Program(), Case("m", "decode", context=8)
    step, _ = trace._graph(trace._Run(torch, case, None, trace.quiet), program)
    gc.collect()
    assert program.tensor() is not None
    del step
    gc.collect()
    assert program.tensor() is None


def test_a_device_that_fails_is_told_in_one_line(torch, code, tmp_path):
    torch.run = MagicMock(side_effect=[None] * 10 + [RuntimeError("out of memory\nmore")])
    with pytest.raises(NpusimError, match=r"mine.py:step: RuntimeError: out of memory$"):
        capture_model(Case(f"{code}:step", "decode", 4, 64), tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_a_trace_without_kernels_is_said(torch, code, tmp_path):
    torch.profiler.sees_device = False
    done = capture_model(Case(f"{code}:step", "decode", 4, 64), tmp_path)
    assert done.kernels == 0
    assert done.notes == ("the trace holds no kernels: the profiler may not see the device",)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fails", "a decode step fails: ValueError: shapes cannot be multiplied$"),
        ("broken", r"mine.py:broken: mine.py, line 21: IndexError: list index out of range$"),
        ("nothing", "returned no step: 'int' .allowed: a function without arguments"),
        ("other", "mine.py: no such function: 'other' .allowed: step, waits, fails, broken"),
    ],
)
def test_code_that_does_not_work_is_told_in_one_line(torch, code, tmp_path, function, message):
    with pytest.raises(NpusimError, match=message) as told:
        capture_model(Case(f"{code}:{function}", "decode", 4, 64), tmp_path / "out")
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no.such.module:f", "no.such.module:f: .*ModuleNotFoundError: No module named 'no'"),
        ("absent.py:f", "absent.py: no such file"),
        ("json:nosuch", "json: no such function: 'nosuch'"),
    ],
)
def test_code_that_is_not_there_is_told_in_one_line(name, message):
    with pytest.raises(InputError, match=message):
        user_code.find_function(name)


def test_energy_of_steps_is_read_from_the_board(torch, code, tmp_path, monkeypatch):
    monkeypatch.setattr(nvml, "SETTLE", 0.0)
    for module in (trace, step_energy):
        monkeypatch.setattr(module, "SECONDS", 0.01)
    board = MagicMock()
    board.joules.side_effect = [100.0, 101.0, 110.0, 112.0, 120.0, 124.0]
    board.sm_mhz.return_value = 1980
    monkeypatch.setattr(trace, "open_board", lambda _: board)
    done = capture_model(Case(f"{code}:step", "decode", 4, 64), tmp_path, energy=True)
    idle, eager, graph = rows(tmp_path / "energy_steps.json")
    assert idle["case"] == "idle"
    assert idle["watts"] == pytest.approx(100, rel=0.5)  # 1 J in about 0.01 s
    assert [r["case"] for r in (eager, graph)] == ["step:eager:4:64", "step:graph:4:64"]
    assert (eager["joules"], graph["joules"]) == (2.0, 4.0)
    assert graph["mj_per_step"] == pytest.approx(4000 / graph["steps"])
    assert "energy_steps.json" in done.files


@pytest.mark.shared
def test_energies_have_the_fields_of_the_baseline(baseline):
    idle, graph = rows(baseline / "energy_steps.json")[:2]
    spent = nvml.Spent(graph["joules"], graph["seconds"], graph["steps"], int(graph["sm_mhz"]))
    ours = step_energy.energy_row(Case("paddle", "decode", context=628), "graph", spent)
    assert ours.keys() == graph.keys()
    for name, value in graph.items():
        assert ours[name] == (value if isinstance(value, str) else pytest.approx(value, rel=1e-9))
    assert idle.keys() == {"case", "watts"}


def test_no_energy_counter_is_said_and_the_rest_is_measured(torch, code, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    done = capture_model(Case(f"{code}:step", "decode", 4, 64), tmp_path, energy=True)
    assert done.notes == ("no energy: needs NVML for Python: pip install nvidia-ml-py",)
    assert done.trace
    assert not (tmp_path / "energy_steps.json").exists()


def test_energy_that_cannot_be_measured_leaves_the_wall(torch, code, tmp_path, monkeypatch):
    board = MagicMock()
    monkeypatch.setattr(trace, "_resting", lambda _: (board, [{"case": "idle", "watts": 70.0}]))
    monkeypatch.setattr(trace, "step_energy", MagicMock(side_effect=RuntimeError("lost\nmore")))
    done = capture_model(Case(f"{code}:step", "decode", 4, 64), tmp_path, energy=True)
    assert done.notes == ("no energy of eager steps: RuntimeError: lost",)
    assert rows(tmp_path / "energy_steps.json") == [{"case": "idle", "watts": 70.0}]
    assert len(lines(tmp_path / "wall.jsonl")) == 1
    assert rows(tmp_path / "provenance.json")[0]["notes"] == list(done.notes)


def test_a_static_cache_is_rewound_in_time(torch):
    done = []
    run = step_energy.rewinding(Step(lambda: done.append("run"), lambda: done.append("rewind")))
    for _ in range(100):
        run()
    runs = "".join("r" if d == "run" else "|" for d in done).split("|")
    assert runs[0] == ""
    assert max(map(len, runs)) <= 64 - 1
    assert sum(map(len, runs)) == 100


# ---------------------------------------------------------------- Hugging Face models


@pytest.fixture
def transformers(monkeypatch):
    fake = MagicMock(__version__="5.17.0")
    monkeypatch.setitem(sys.modules, "transformers", fake)
    monkeypatch.setattr(hugging_face, "version", lambda _: "5.17.0")
    return fake


def test_transformers_that_is_absent_is_said(torch, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(NpusimError, match="needs transformers: pip install transformers"):
        hugging_face.hugging_face_program(torch, Case("org/model", "decode", context=8))


@pytest.mark.parametrize(
    ("model", "failure", "message"),
    [
        ("absent/config.json", None, "absent/config.json: no such file or folder"),
        ("{folder}", None, "holds no config.json"),
        ("org/model", OSError("offline"), "not a model that is here .*hf download"),
        ("org/model", ValueError("no `model_type`\nin it"),
         "transformers 5.17.0 reads: no `model_type`$"),
    ],
)  # fmt: skip
def test_a_configuration_that_is_not_one_is_told(
    torch, transformers, tmp_path, model, failure, message
):
    transformers.AutoConfig.from_pretrained.side_effect = failure
    with pytest.raises(InputError, match=message):
        case = Case(model.format(folder=tmp_path), "decode", context=8)
        hugging_face.hugging_face_program(torch, case)


class Layer:
    """What a cache of transformers 5 counts itself, as a tensor or as a number."""

    def __init__(self):
        self.cumulative_length = MagicMock()
        self.cumulative_length_int = 9


def test_a_cache_that_counts_is_set_back():
    layer = Layer()
    hugging_face._rewind(SimpleNamespace(layers=[layer, SimpleNamespace()]), 64)
    layer.cumulative_length.fill_.assert_called_once_with(64)
    assert layer.cumulative_length_int == 64
    hugging_face._rewind(SimpleNamespace(), 64)  # an older cache has no layers


class Model:
    """A decoder that remembers with what it was called."""

    config = SimpleNamespace(_attn_implementation="sdpa")

    def __init__(self):
        self.calls = []

    def to(self, _):
        return self

    def eval(self):
        return self

    def parameters(self):
        return [SimpleNamespace(numel=lambda: 7)]

    def forward(self, input_ids, past_key_values=None, use_cache=None, logits_to_keep=0):
        self.calls.append((input_ids, past_key_values, logits_to_keep))
        return SimpleNamespace(past_key_values=(past_key_values or 0) + input_ids[1])

    __call__ = forward


@pytest.fixture
def decoder(torch, transformers, monkeypatch):
    model = Model()
    torch.device = lambda _: MagicMock()
    torch.cuda.OutOfMemoryError = MemoryError
    torch.randint = lambda words, shape, device: shape
    transformers.AutoConfig.from_pretrained.return_value.get_text_config.return_value = (
        SimpleNamespace(vocab_size=100)
    )
    transformers.AutoModelForCausalLM.from_config.return_value = model
    return model


def test_a_decode_step_stands_at_its_context_when_it_is_traced(torch, decoder):
    case = Case("org/model", "decode", batch=2, context=628)
    program = hugging_face.hugging_face_program(torch, case)
    step = trace.warm_step(torch, case, program, before=41)
    for _ in range(41):
        step.run()
    decoder.calls.clear()
    step.run()
    assert decoder.calls == [((2, 1), 628, 1)]  # one token, after 628, one row of logits
    assert program.about["first_context"] == 628
    assert program.about["parameters"] == 7


def test_a_short_context_starts_from_one_token_and_says_where_it_is(torch, decoder):
    case = Case("org/model", "decode", context=8)
    program = hugging_face.hugging_face_program(torch, case)
    trace.warm_step(torch, case, program, before=41)
    assert program.about["first_context"] == 1 + 5 + 41


def test_a_model_without_a_cache_has_no_decode(torch, decoder, monkeypatch):
    case = Case("org/model", "decode", context=8)
    program = hugging_face.hugging_face_program(torch, case)
    monkeypatch.setattr(Model, "__call__", lambda *_, **given: SimpleNamespace(logits=1))
    with pytest.raises(InputError, match="keeps no KV cache between steps: 'Model'; trace it"):
        trace.warm_step(torch, case, program, before=0)


def test_a_prefill_takes_all_tokens_at_once(torch, decoder):
    case = Case("org/model", "prefill", batch=2, context=628)
    hugging_face.hugging_face_program(torch, case).eager(9).run()
    assert decoder.calls == [((2, 628), None, 1)]


def test_a_model_that_transformers_does_not_build_is_told(torch, transformers, decoder):
    for kind in ("AutoModelForCausalLM", "AutoModelForImageTextToText", "AutoModel"):
        getattr(transformers, kind).from_config.side_effect = ValueError(f"not for {kind}\nmore")
    with pytest.raises(
        InputError, match=r"builds no decode model of it .AutoModelForCausalLM: not"
    ):
        hugging_face.hugging_face_program(torch, Case("org/model", "decode", context=8))
    transformers.AutoModelForCausalLM.from_config.side_effect = MemoryError()
    with pytest.raises(InputError, match="bf16: does not fit the memory"):
        hugging_face.hugging_face_program(torch, Case("org/model", "decode", context=8))


def test_an_encoder_of_images_of_any_size_is_left_to_the_user(torch, transformers, decoder):
    transformers.AutoModel.from_config.return_value = decoder
    with pytest.raises(InputError, match="not an encoder of images of one size: 'Model'; trace it"):
        hugging_face.hugging_face_program(torch, Case("org/model", "vision"))


# ---------------------------------------------------------------- the machine


def test_pytorch_that_is_absent_is_said_in_one_line(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "torch", None)
    for run in (
        lambda: capture_model(Case("m", "decode", context=8), tmp_path / "a"),
        lambda: capture_experiments(tmp_path / "a"),
    ):
        with pytest.raises(NpusimError, match=r"capture needs PyTorch built for your GPU .https"):
            run()
    assert not (tmp_path / "a").exists()


def test_a_machine_without_a_gpu_is_said_in_one_line(torch, tmp_path):
    torch.cuda.available = False
    with pytest.raises(NpusimError, match="sees no GPU: check the driver"):
        capture_experiments(tmp_path)


def test_an_amd_gpu_is_recorded_as_one(torch, monkeypatch):
    torch.version = SimpleNamespace(cuda=None, hip="6.4.1")
    found = environment.environment(torch)
    assert (found["cuda"], found["hip"], found["driver"]) == (None, "6.4.1", None)
    assert found["board"] == {"unavailable": "NVML is NVIDIA's: no energy counter is read on AMD "
                              "GPUs"}  # fmt: skip


class NvmlError(Exception):
    pass


def test_a_board_is_found_by_its_identity_and_asked_in_si(torch, monkeypatch):
    fake = MagicMock(NVMLError=NvmlError, NVML_CLOCK_SM=1, NVML_CLOCK_MEM=2)
    fake.nvmlDeviceGetEnforcedPowerLimit.return_value = 700_000
    fake.nvmlDeviceGetClockInfo.side_effect = lambda _, kind: {1: 1980, 2: 3201}[kind]
    fake.nvmlDeviceGetMaxClockInfo.side_effect = NvmlError("Not Supported")
    fake.nvmlDeviceGetTemperature.return_value = 31
    fake.nvmlDeviceGetTotalEnergyConsumption.return_value = 541_567
    fake.nvmlSystemGetDriverVersion.return_value = "580.1"
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    torch.cuda.device.uuid = "0123-45"
    board = nvml.open_board(torch)
    fake.nvmlDeviceGetHandleByUUID.assert_called_once_with("GPU-0123-45")
    assert board.joules() == pytest.approx(541.567)
    assert board.state() == {
        "power_limit_w": pytest.approx(700), "sm_clock_hz": 1.98e9, "memory_clock_hz": 3.201e9,
        "sm_clock_max_hz": None, "memory_clock_max_hz": None, "temperature_c": 31.0,
    }  # fmt: skip
    assert environment.environment(torch)["driver"] == "580.1"
    fake.nvmlDeviceGetTotalEnergyConsumption.side_effect = NvmlError("Not Supported")
    with pytest.raises(gpu.Unavailable, match="has no energy counter: Not Supported"):
        board.joules()


def test_a_board_among_several_is_not_guessed(torch, monkeypatch):
    fake = MagicMock(NVMLError=NvmlError)
    fake.nvmlDeviceGetCount.return_value = 8
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    with pytest.raises(gpu.Unavailable, match="several boards"):
        nvml.open_board(torch)


def test_importing_capture_is_cheap():
    heavy = "{'torch', 'transformers', 'numpy', 'pandas', 'pyarrow', 'matplotlib', 'pydantic'}"
    code = f"import sys, npusim.capture.commands; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---------------------------------------------------------------- counters

NCU = """#!{python}
import json, pathlib, sys
given = sys.argv[1:]
if "--import" in given:
    print("==PROF== reading")
    print('"ID","Kernel Name"\\n"",""\\n"0","first"\\n"1","second"')
    sys.exit()
print({printed!r})
if {works}:
    pathlib.Path(given[given.index("--export") + 1]).write_text("report")
    pathlib.Path(given[-1]).write_text(json.dumps({{"pytorch": "2.11.0"}}))
pathlib.Path({log!r}).write_text(json.dumps(given))
"""


def fake_ncu(folder, works=True, printed=""):
    file = folder / "ncu"
    log = str(folder / "given.json")
    body = folder / "ncu.py"
    body.write_text(NCU.format(python=sys.executable, works=works, printed=printed, log=log))
    # A shell starts it: the path of an interpreter may hold spaces, which `#!` does not take.
    command = shlex.join([sys.executable, str(body)])
    file.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    return str(file)


def test_counters_of_a_step_are_saved(tmp_path):
    case = Case("paddle", "decode", context=628)
    done = capture_counters(case, tmp_path / "out", Origin("npusim capture counters"), "dram",
                            kernels=7, ncu=fake_ncu(tmp_path))  # fmt: skip
    assert done.files == ("dram_paddle_decode_b1_c628.csv.gz", "provenance.json")
    assert done.kernels == 2
    text = gzip.decompress((tmp_path / "out" / done.files[0]).read_bytes()).decode()
    assert text.splitlines()[0] == '"ID","Kernel Name"'
    (record,) = rows(tmp_path / "out" / "provenance.json")
    assert (record["pytorch"], record["metrics"], record["most_kernels"]) == ("2.11.0", "dram", 7)
    given = rows(tmp_path / "given.json")
    after = dict(pairwise(given))
    assert after["--cache-control"] == after["--clock-control"] == "none"
    assert after["--profile-from-start"] == "off"
    assert after["--launch-count"] == "7"
    assert "dram__bytes_read" in after["--metrics"]
    child = given[given.index(sys.executable) :]
    assert child[1:3] == ["-m", "npusim.capture"]
    assert Case(**json.loads(child[3])) == case


@pytest.mark.parametrize(
    ("printed", "message"),
    [
        ("==ERROR== ERR_NVGPUCTRPERM - The user does not have permission",
         "may not read the GPU's counters .ERR_NVGPUCTRPERM.: run as root, or load the driver"),
        ("error: x.json: no such file\n==ERROR== the child ended", "^x.json: no such file$"),
        ("==WARNING== No kernels were profiled.", "profiled no kernels"),
        ("==ERROR== LibraryNotLoaded", "ncu made no report: LibraryNotLoaded$"),
        ("", "ncu made no report: it printed nothing"),
    ],
)  # fmt: skip
def test_counters_that_cannot_be_read_are_told_in_one_line(tmp_path, printed, message):
    tool = fake_ncu(tmp_path, works=False, printed=printed)
    with pytest.raises(NpusimError, match=message) as told:
        capture_counters(Case("m", "decode", context=8), tmp_path / "out", ncu=tool)
    assert "\n" not in str(told.value)
    assert not list((tmp_path / "out").iterdir())


def test_ncu_that_is_not_installed_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(counters, "_PLACES", ())
    with pytest.raises(NpusimError, match="ncu is not installed: counters need NVIDIA Nsight"):
        capture_counters(Case("m", "decode", context=8), tmp_path / "out")
    with pytest.raises(NpusimError, match="/no/ncu is not installed"):
        counters.find_ncu("/no/ncu")
    for wrong in ({"metrics": "all"}, {"kernels": 0}):
        with pytest.raises(InputError, match=r"--metrics|--kernels"):
            capture_counters(Case("m", "decode", context=8), tmp_path / "out", **wrong)


def test_the_child_says_what_it_lacks(tmp_path, root):
    (tmp_path / "torch.py").write_text("raise ImportError('not here')")
    told = tmp_path / "environment.json"
    paths = os.pathsep.join([str(tmp_path), str(root)])
    done = subprocess.run(counters.child_command(Case("m", "decode", context=8), told),
                          capture_output=True, text=True, check=False, cwd=tmp_path,
                          env={**os.environ, "PYTHONPATH": paths})  # fmt: skip
    assert done.returncode == 1
    assert counters.failure(done.stderr).startswith("capture needs PyTorch built for your GPU")
    assert not told.exists()


def test_the_child_profiles_one_step_and_nothing_else(torch, code, tmp_path):
    window = []
    torch.cuda.profiler = SimpleNamespace(
        start=lambda: window.append(torch.launches), stop=lambda: window.append(torch.launches)
    )
    counters.run_step(Case(f"{code}:step", "decode", 4, 64), tmp_path / "told.json")
    assert window[1] - window[0] == 1
    assert window[0] >= 5  # warm
    told = json.loads((tmp_path / "told.json").read_text())
    assert told["device"]["name"] == "NVIDIA Test"


# ---------------------------------------------------------------- the command line


def test_the_commands_print_what_was_made(torch, code, made, tmp_path):
    runner, out = CliRunner(), str(tmp_path / "out")
    model = ["model", f"{code}:step", "--phase", "decode", "--batch", "4", "--context", "64"]
    done = runner.invoke(commands, [*model, "-o", out, "--json"], catch_exceptions=False)
    content = json.loads(done.stdout)
    assert content["trace"] == "kineto_step_decode_b4_c64.json.gz"
    assert "licence of these measurements is recorded as unspecified" in done.stderr
    done = runner.invoke(commands, [*model, "-o", out, "--licence", "MIT"], catch_exceptions=False)
    assert f"graph replay {STEP_MS:.3f} ms, 1 kernels a step" in done.stdout
    assert "licence" not in done.stderr
    made["two"].failure = gpu.Unavailable("no NVML")
    done = runner.invoke(commands, ["experiments", "-o", out], catch_exceptions=False)
    one, two = done.stdout.splitlines()
    assert re.fullmatch(r"one: 3 rows in \d+ s", one)
    assert two == "two: skipped: no NVML"
    done = runner.invoke(commands, ["experiments", "-o", out, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout)["experiments"]["one"]["status"] == "kept"
    given = ["counters", "m", "--phase", "decode", "--context", "8", "-o", out]
    done = runner.invoke(commands, [*given, "--ncu", fake_ncu(tmp_path)], catch_exceptions=False)
    assert done.stdout.endswith("ncu_m_decode_b1_c8.csv.gz, provenance.json, 2 kernels\n")


def test_the_help_names_every_experiment():
    text = CliRunner().invoke(commands, ["experiments", "--help"]).stdout
    assert all(name in text for name in experiment_names())


def test_an_ncu_that_cannot_be_started_is_told_in_one_line(tmp_path):
    file = tmp_path / "ncu"
    file.write_text("not a program")
    file.chmod(file.stat().st_mode | stat.S_IXUSR)
    case = Case("paddle", "decode", context=628)
    with pytest.raises(NpusimError, match="ncu cannot be started: ") as told:
        capture_counters(case, tmp_path / "out", Origin("npusim"), "dram", ncu=str(file))
    assert "\n" not in str(told.value)


def test_a_step_that_broke_off_is_not_saved_as_whole(tmp_path):
    """The child ran out of memory: ncu has a report of some kernels and says that it failed."""
    file = tmp_path / "ncu"
    fake_ncu(tmp_path)
    file.write_text(file.read_text().replace("exec ", "") + "exit 1\n")
    case = Case("paddle", "decode", context=628)
    with pytest.raises(NpusimError, match="ncu made no report"):
        capture_counters(case, tmp_path / "out", Origin("npusim"), "dram", ncu=str(file))
    assert not list((tmp_path / "out").glob("*.csv.gz"))
