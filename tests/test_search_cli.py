"""``npusim search`` and ``npusim sensitivity``: one object, one line an error, whole folders."""

import json

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim.cli import _Group
from npusim.commands.search import search, sensitivity
from npusim.store import model_version
from npusim.sweeps.front import pareto
from tests.builder import kernel, timed, workload

STUDY = """\
title: Made by hand
question: Which designs?
source: made by hand
arch: decode_npu
sweep:
  workloads: [decode.parquet]
  launch: [graph, queue]
  axes:
    units.count: [50, 60, 70, 80]
    memories.dram.bandwidth: [2 TB/s, 2.5 TB/s, 3 TB/s]
    gemv.count: [0, 70]
    matrix.fp32.rate: [64 FLOP/clock, 128 FLOP/clock]
  costs: [area_mm2]
  constraints: {constraints}
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = [
        kernel("gemv", 50.0, kind="gemv", dtype="bf16", batch=1, m=1, n=n, k=8192,
               flop=2 * n * 8192, read_weight=2.0 * n * 8192, read_activation=2.0 * 8192,
               write_activation=2.0 * n)
        for n in (1024, 8192)
    ]  # fmt: skip
    folder = tmp_path_factory.mktemp("searches")
    ns.save_workload(workload(*made, timed(2e-5), name="decode"), folder / "decode.parquet")
    return folder


@pytest.fixture
def study(folder):
    def write(constraints="{}"):
        file = folder / "study.yaml"
        file.write_text(STUDY.replace("{constraints}", constraints))
        return str(file)

    return write


def run(*args):
    group = _Group("npusim")
    group.add_command(search)
    group.add_command(sensitivity)
    return CliRunner().invoke(group, [str(a) for a in args])


def test_a_search_prints_one_object_and_writes_what_it_says(study, tmp_path):
    pytest.importorskip("pymoo")
    done = run("search", study(), "--population", 8, "--generations", 3, "--refine", "-o",
               tmp_path, "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert done.stderr == ""
    assert content["objectives"] == ["wall_s", "area_mm2"]
    assert content["space"] == 2 * 4 * 3 * 2 * 2
    assert {p.name for p in tmp_path.iterdir()} == set(content["files"])
    table = pq.read_table(tmp_path / "designs.parquet").to_pandas()
    front = pd.read_csv(tmp_path / "front.csv")
    assert len(table) == content["evaluations"] <= content["space"]
    assert front["wall_s"].tolist() == pytest.approx(
        pareto(table, content["objectives"])["wall_s"].tolist()
    )
    assert [row["wall_s"] for row in content["front"]] == pytest.approx(front["wall_s"].tolist())
    about = json.loads(pq.read_schema(tmp_path / "designs.parquet").metadata[b"npusim.search"])
    assert about["seed"] == content["seed"] == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["model"] == content["model"] == about["model"] == model_version()


def test_a_search_prints_a_front_with_units(study, tmp_path):
    pytest.importorskip("pymoo")
    done = run("search", study(), "--population", 8, "--generations", 2, "--launch", "queue",
               "--objective", "energy_j", "--objective", "units.count", "-o", tmp_path)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "small energy_j, units.count" in done.stdout
    assert " mJ" in done.stdout
    assert "designs; the space holds 48; seed 0" in done.stdout


def test_a_search_keeps_the_constraints_of_the_file(study, tmp_path):
    pytest.importorskip("pymoo")
    bound = "{units.count: {most: 60}, area_mm2: {like: nominal, within: 50 %}}"
    done = run("search", study(bound), "--population", 12, "--generations", 3, "-o", tmp_path,
               "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert all(row["units.count"] <= 60 for row in content["front"])
    assert 0 < content["allowed"] < content["evaluations"]


@pytest.mark.parametrize(
    ("constraints", "args", "line"),
    [
        ("{}", ["--objective", "joules"], "error: not an objective: 'joules' (allowed: "),
        ("{}", ["--objective", "wall_s", "--objective", "wall_s"], "error: objective: given twice"),
        ("{}", ["--objective", "launch"], "error: not an objective: 'launch' (allowed: "),
        ("{}", ["--halvings", "1"], "error: --halvings: halves the steps of --refine"),
        ("{}", ["--set", "units.count=60"], "error: --set units.count: is an axis"),
        ("{}", ["-w", "nothing"], "error: "),
        ("{area_mm2: {most: 1 mm2}}", [], "error: no design that was found meets the constraints"),
    ],
)
def test_what_cannot_be_searched_is_one_line(study, tmp_path, constraints, args, line):
    pytest.importorskip("pymoo")
    done = run("search", study(constraints), "--population", 4, "--generations", 1, "-o", tmp_path,
               *args)  # fmt: skip
    assert done.exit_code == 1
    assert done.stdout == ""
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_a_sensitivity_prints_one_object_and_writes_what_it_says(study, tmp_path):
    pytest.importorskip("SALib")
    done = run("sensitivity", study(), "--samples", 32, "--objective", "energy_j", "-o", tmp_path,
               "--json")  # fmt: skip
    assert done.exit_code == 0, done.output
    content = json.loads(done.stdout)
    assert (content["launch"], content["objective"]) == ("queue", "energy_j")
    assert {p.name for p in tmp_path.iterdir()} == set(content["files"])
    rows = {row["axis"]: row for row in content["axes"]}
    assert (rows["matrix.fp32.rate"]["swing"] == 0) is (rows["matrix.fp32.rate"]["total"] == 0)
    table = pd.read_csv(tmp_path / "sensitivity.csv")
    assert table["total"].is_monotonic_decreasing
    assert (tmp_path / "tornado.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "tornado.pdf").read_bytes().startswith(b"%PDF")


def test_a_sensitivity_without_indices_needs_no_samples(study, tmp_path):
    done = run("sensitivity", study(), "--no-sobol", "--launch", "graph", "-o", tmp_path)
    assert done.exit_code == 0, done.output
    assert "graph launch; nominal" in done.stdout
    assert "2 TB/s" in done.stdout
    assert "total" not in done.stdout


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--samples", "100"], "error: not a number of samples: 100 (allowed: powers of two"),
        (["--objective", "joules"], "error: not an objective: 'joules'"),
        (["--objective", "launch", "--no-sobol"], "error: not an objective: 'launch'"),
        (["--set", "gemv.count=1"], "error: --set gemv.count: is an axis"),
    ],
)
def test_what_has_no_sensitivity_is_one_line(study, tmp_path, args, line):
    pytest.importorskip("SALib")
    done = run("sensitivity", study(), "-o", tmp_path, *args)
    assert done.exit_code == 1
    assert done.stderr.startswith(line)
    assert done.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_axes_of_other_machines_have_no_sensitivity_here(folder, tmp_path):
    file = folder / "machines.yaml"
    text = STUDY.replace("{constraints}", "{}").replace("decode_npu", "[h200, decode_npu]")
    file.write_text(text.replace("    matrix.fp32.rate: [64 FLOP/clock, 128 FLOP/clock]\n", ""))
    done = run("sensitivity", file, "--no-sobol", "-o", tmp_path / "s", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert {row["axis"] for row in found["axes"]} == {"units.count", "memories.dram.bandwidth"}
    assert "of h200 alone, which has no gemv.count" in found["notes"]


def test_a_refused_search_leaves_no_folder(study, tmp_path):
    done = run("search", study("{area_mm2: {most: 1 mm2}}"), "-o", tmp_path / "none")
    assert done.exit_code == 1
    assert not (tmp_path / "none").exists()
