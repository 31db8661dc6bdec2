"""Taking traces in from the command line: repairs, joined captures, reports and differences."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import importers
from npusim.cli import main
from npusim.counters import COUNTERS
from npusim.errors import InputError
from npusim.workload import HostCosts, Workload
from npusim.workload_file import load_workload, save_workload
from tests.kineto_builder import Trace, tensor

ROOT = Path(__file__).parent.parent
B = "baselines/h200"


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        return CliRunner().invoke(main, [str(a) for a in arguments])

    return run


def test_import_then_export_then_import_is_identity(cli, tmp_path):
    w = ns.load_workload("paddleocr_vl_decode")
    rng = np.random.default_rng(3)
    counters = {name: rng.random(len(w)) for name in COUNTERS}
    counters["dram_read"][::3] = np.nan
    full = Workload("full", w.columns, w.labels, w.steps, w.edges, w.meta, counters, w.host)
    save_workload(full, tmp_path / "full.parquet")
    assert cli("import", "full.parquet", "-o", "again.parquet").exit_code == 0
    again = load_workload(tmp_path / "again.parquet")
    assert again.id == full.id
    assert dict(again.meta) == dict(full.meta)
    assert again.host.names == full.host.names
    for column in ("calls", "self_s", "total_s"):
        np.testing.assert_array_equal(getattr(again.host, column), getattr(full.host, column))
    for name in COUNTERS:
        np.testing.assert_array_equal(again.counters[name], full.counters[name])
    assert cli("import", "again.parquet", "-o", "third.parquet").exit_code == 0
    assert load_workload(tmp_path / "third.parquet").id == full.id


def test_a_host_without_calls_is_kept(tmp_path):
    w = ns.load_workload("paddleocr_vl_decode")
    none = HostCosts((), (), np.zeros(0, dtype=int), np.zeros(0), np.zeros(0))
    save_workload(
        Workload("w", w.columns, w.labels, w.steps, w.edges, w.meta, None, none),
        tmp_path / "w.parquet",
    )
    assert len(load_workload(tmp_path / "w.parquet").host) == 0


def test_a_repair_is_said(cli, tmp_path):
    t = Trace()
    with t.step(), t.op("aten::mm", tensor(4, 64), tensor(64, 64)):
        t.kernel("a")
        t.kernel("b")
    (tmp_path / "cut.json").write_text(t.text()[:-40])
    done = cli("import", "cut.json")
    assert done.exit_code == 0, done.output
    assert "cut.parquet: 1 operation in 1 step" in done.output
    assert "note: the trace was cut short: 1 events lost at its end" in done.output
    assert "cut short" in cli("inspect", "cut.parquet").output


def mctracer(unit):
    event = {"ph": "X", "cat": "gpu_op", "name": "gemvn", "pid": 1, "tid": 2, "ts": 0,
             "dur": 9300 if unit == "ns" else 9.3}  # fmt: skip
    return json.dumps({"traceEvents": [event | {"ts": i * event["dur"] * 2} for i in range(9)]})


def test_the_unit_of_time_is_said_and_can_be_given(cli, tmp_path):
    (tmp_path / "tracer_out-1.json").write_text(mctracer("ns"))
    said = cli("import", "tracer_out-1.json").output
    assert "note: times are in ns (median operation 9.3 us as ns, 9.3 ms as us" in said
    given = json.loads(cli("import", "tracer_out-1.json", "--time-unit", "us", "--json").output)
    assert given["workloads"][0]["device_busy_s"] == pytest.approx(9 * 9.3e-3)
    assert cli("import", "tracer_out-1.json", "--time-unit", "ms").exit_code == 2


def graph_and_eager(folder):
    """A step of two kernels, once with operators and once as a graph replays it."""
    shapes = (tensor(1, 64), tensor(64, 128))
    eager, graph = Trace(), Trace()
    with eager.step():
        with eager.op("aten::mm", *shapes):
            eager.kernel("gemv", dur=8.0)
        with eager.op("aten::neg", tensor(1, 128)):
            eager.kernel("neg", dur=3.0)
    with graph.step():
        graph.kernel("gemv", dur=6.0)
        graph.kernel("neg", dur=2.0)
    eager.write(folder, "eager.json")
    graph.write(folder, "graph.json")


def test_a_graph_gets_the_shapes_of_the_eager_trace(cli, tmp_path):
    graph_and_eager(tmp_path)
    done = cli("import", "graph.json", "eager.json", "-o", "both.parquet")
    assert done.exit_code == 0, done.output
    w = load_workload(tmp_path / "both.parquet")
    assert w.name == "both"
    assert w.text("operator").tolist() == ["aten::mm", "aten::neg"]
    assert w["duration_s"].tolist() == pytest.approx([6e-6, 2e-6])
    assert w["flop"].tolist() == [2 * 64 * 128, 128]
    as_json = json.loads(
        cli("import", "graph.json", "eager.json", "-o", "b.parquet", "--json").output
    )
    (entry,) = as_json["workloads"]
    assert entry["joined"]["shapes"]["matched"] == 2
    assert entry["kernels"] == 2


class _Taker:
    """An importer that takes every file."""

    def __init__(self, name, **more):
        self.FORMAT = name
        vars(self).update(more)

    def sniff(self, _path):
        return True


def test_a_file_that_two_importers_take_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "x.log"
    file.write_text("hello")
    first, second, generic = _Taker("A log"), _Taker("B log"), _Taker("any log", GENERIC=True)
    for known, taken in (([first, generic], first), ([generic], generic), ([], None)):
        monkeypatch.setattr(importers, "importers", lambda known=known: iter(known))
        assert importers.importer_of(file) is taken
    monkeypatch.setattr(importers, "importers", lambda: iter([first, second, generic]))
    with pytest.raises(
        InputError, match=r"x\.log: taken by more than one importer: A log; B log; "
    ):
        importers.import_trace(file)


def test_endings_of_a_format_are_left_out_of_the_name(tmp_path, monkeypatch):
    taker = _Taker("A log", ENDINGS=(".prof",))
    taker.read = lambda path, name: ns.load_workload("paddleocr_vl_decode").renamed(name)
    monkeypatch.setattr(importers, "importers", lambda: iter([taker]))
    for name, stem in (("a.b.prof.gz", "a.b"), ("a.trace.json", "a"), ("a.sqlite", "a.sqlite")):
        (tmp_path / name).write_text("hello")
        assert importers.import_trace(tmp_path / name).name == stem


def test_the_help_of_import_lists_every_format(cli):
    shown = cli("import", "--help").stdout
    assert all(f"  {one.FORMAT}\n" in shown for one in importers.importers())


def test_a_folder_keeps_traces_apart(cli, tmp_path):
    graph_and_eager(tmp_path)
    assert cli("import", "graph.json", "eager.json", "-o", "out").exit_code == 0
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == [
        "eager.parquet",
        "graph.parquet",
    ]


def test_diff_prints_and_adds_up(cli, tmp_path):
    graph_and_eager(tmp_path)
    found = json.loads(cli("diff", "eager.json", "graph.json", "--json").output)
    kernels = found["changes"]["kernel"]
    assert sum(k["seconds"] for k in kernels) == pytest.approx(8e-6 - 11e-6)
    shown = cli("diff", "eager.json", "graph.json")
    assert shown.exit_code == 0, shown.output
    assert "eager (a) against graph (b)" in shown.output
    assert "faster" in shown.output


@pytest.mark.shared
def test_the_report_of_a_joined_capture(cli, shared, tmp_path):
    """Timeline and counters of the same step, joined, inspected and reported."""
    sources = [shared / B / "kineto/kineto_paddle_decode_b1_c628.json.gz",
               shared / B / "ncu/dram_paddle_decode_b1_c628.csv.gz",
               shared / B / "ncu/ncu_paddle_decode_b1_c628.csv.gz"]  # fmt: skip
    done = cli("import", *sources, "-o", "joined.parquet")
    assert done.exit_code == 0, done.output
    assert "cold cache" in done.output
    w = load_workload(tmp_path / "joined.parquet")
    assert np.isfinite(w.counters["dram_read"]).sum() > 0.9 * 2346
    done = cli("inspect", "joined.parquet", "--report", "out")
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert "aten::_cudnn_attention_forward" in json.dumps(report)
    assert (tmp_path / "out" / "report.html").stat().st_size > 100_000
    assert list((tmp_path / "out" / "figures").glob("*.png"))
    assert list((tmp_path / "out" / "tables").glob("*.csv"))


@pytest.mark.shared
def test_every_file_beside_the_checkout_imports_or_is_refused_in_one_line(shared):
    """Each trace there is: a workload with its device time, or one line that says why not."""
    places = [shared / "external" / "traces", shared / "baselines"]
    if not places[0].is_dir():
        pytest.skip(f"{places[0]} is not there")
    files = sorted(f for p in places for f in p.rglob("*") if f.is_file() and f.name != "LICENSE")
    refused = {}
    for file in files:
        try:
            w = ns.import_trace(file)
        except ns.NpusimError as error:
            refused[file.name] = str(error)
            assert "\n" not in str(error)
            continue
        assert len(w) > 0
        assert w["duration_s"].sum() > 0 or w.meta["measured"] is False
    assert set(refused) == {
        "axes.json", "energy_steps.json", "wall.jsonl", "feeder_tests_trace.tar.gz",
        "json_trace.tar.gz", "dlrm_kineto.tar.gz", "dlrm_pytorch_et.tar.gz",
        "cpu_only_rank-34.Jul_15_10_52_41.1074.pt.trace.json.gz",
        *(["paddle_decode_b1_c628.ncu-rep.gz"] if find_spec("ncu_report") is None else []),
    }  # fmt: skip
    assert (
        "operators of the CPU" in refused["cpu_only_rank-34.Jul_15_10_52_41.1074.pt.trace.json.gz"]
    )
    assert all("archive" in why for name, why in refused.items() if name.endswith(".tar.gz"))


def test_two_helpers_read_a_large_trace_from_the_command_line(tmp_path):
    """The whole way with processes: spawned helpers import the main module again."""
    file = tmp_path / "large.json"
    maker = ROOT / "benchmarks" / "make_kineto_trace.py"
    subprocess.run([sys.executable, maker, "110000", file], check=True, capture_output=True)
    assert file.stat().st_size > 32 << 20
    command = [
        sys.executable,
        "-m",
        "npusim",
        "import",
        file,
        "-o",
        tmp_path / "w.parquet",
        "--json",
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT)
    (entry,) = json.loads(done.stdout)["workloads"]
    assert entry["classified_busy_share"] == 1
    assert done.stderr == ""


def test_a_machine_without_a_report_is_refused(cli):
    done = cli("inspect", "paddleocr_vl_decode", "--arch", "h200")
    assert done.exit_code == 1
    assert "--arch: only a report has rooflines: 'h200'; add --report DIR" in done.output
