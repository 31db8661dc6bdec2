"""The main job: what is asked, what is refused, what is written."""

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import catalog, job, store
from npusim.beside import compare_one
from npusim.cli import main
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.outcome import run_job, save_outcome
from npusim.sweeps import design_task
from npusim.sweeps.design_task import DesignTask
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.tables import results as tables
from tests.builder import timed, workload


@pytest.fixture(scope="module")
def outcome():
    asked = job.read_job("decode_npu", ["paddleocr_vl_decode"], ["queue"], {})
    return run_job(asked, "npusim sweep decode_npu")


def test_the_report_machine_sweeps_thousands_of_designs_and_refuses_no_axis():
    asked = job.read_job("decode_npu", [], [], {})
    assert len(asked.space) == 5 * 3 * 3 * 2 * 3 * 2 * 3 * 2 * 2 * 2
    assert not asked.refused
    assert asked.baseline.name == "h200"
    page = dict(zip((w.name for w in asked.workloads), asked.counts, strict=True))
    assert page == {"deepseek_ocr_vision": 1, "deepseek_ocr_prefill": 1, "deepseek_ocr_decode": 64}


def test_a_study_is_a_sweep_over_a_machine_it_names():
    asked = job.read_job("bandwidth", [], [], {})
    assert asked.arch.name == "decode_npu"
    assert asked.question
    assert len(asked.workloads) == 3


def test_the_summary_says_what_made_it(outcome):
    s = outcome.summary
    assert s["designs"] == len(outcome.table) == 5 * 3 * 3 * 2 * 3 * 2 * 3 * 2 * 2
    assert s["made_by"]["command"] == "npusim sweep decode_npu"
    assert s["made_by"]["arch"]["id"] == store.arch_id(load_arch("decode_npu"))
    w = ns.load_workload("paddleocr_vl_decode")
    assert s["made_by"]["workloads"] == [
        {
            "name": w.name,
            "id": w.id,
            "given": w.name,
            "profiler": "in",
            "traced": store.arch_id(load_arch("h200")),
        }
    ]
    assert s["made_by"]["model"] == store.model_version()
    json.dumps(s, allow_nan=False)


def test_best_nominal_and_baseline_are_what_single_replays_give(outcome):
    s, w = outcome.summary, ns.load_workload("paddleocr_vl_decode")
    assert s["best"]["wall_s"] == outcome.table["wall_s"].min()
    assert s["nominal"]["wall_s"] == ns.replay(w, load_arch("decode_npu"), "queue").wall_s
    assert s["baseline"]["wall_s"] == ns.replay(w, load_arch("h200"), "eager").wall_s
    arch = load_arch("decode_npu")
    for path in s["axes"]:
        arch = ns.with_value(arch, path, s["best"][path])
    assert ns.replay(w, arch, "queue").wall_s == pytest.approx(s["best"]["wall_s"], rel=1e-12)


def test_axes_that_change_nothing_are_named(outcome):
    # the KV cache of one sequence fits the smallest of these memories
    w, sizes = ns.load_workload("paddleocr_vl_decode"), outcome.table["memories.kv_sram.capacity"]
    assert (w["read_kv"] + w["write_kv"]).sum() / len(w.steps) < 1.5 * sizes.min()
    # and what fp32 products of one row take on vector units is their loads
    assert outcome.summary["no_effect"] == ["vector.fp32.rate", "memories.kv_sram.capacity"]


def test_more_of_an_axis_is_never_slower(outcome):
    axes = list(outcome.summary["axes"])
    # units aside: under one power limit more of them run slower, which small kernels feel
    for path in (p for p in axes if p != "units.count"):
        others = [p for p in axes if p != path]
        wall = outcome.table.sort_values([*others, path])["wall_s"].to_numpy()
        rows = wall.reshape(-1, outcome.table[path].nunique())
        # a cache takes a byte written as slowly as two read: what it holds more may cost a trace
        slack = 1e-4 if path.startswith("memories.") and path.endswith(".capacity") else 1e-12
        assert (rows[:, 1:] <= rows[:, :-1] * (1 + slack)).all(), path


def test_a_page_is_the_sum_of_its_steps():
    asked = job.read_job("decode_npu", [], ["queue"], {})
    few = Space(asked.arch, {"units.count": [60.0, 80.0]}, ["queue"])
    row = sweep(few, asked.workloads, counts=asked.counts).iloc[1]
    names = ("deepseek_ocr_vision", "deepseek_ocr_prefill", "deepseek_ocr_decode")
    parts = [row[f"wall_s[{name}]"] for name in names]
    assert row["wall_s"] == pytest.approx(parts[0] + parts[1] + 64 * parts[2])
    arch = ns.with_value(asked.arch, "units.count", 80.0)
    for name, part in zip(names, parts, strict=True):
        assert ns.replay(ns.load_workload(name), arch, "queue").wall_s == pytest.approx(part)


def test_measured_pages_are_sums_of_measured_steps(outcome):
    walls = outcome.summary["baseline"]["measured_wall_s"]
    w = ns.load_workload("paddleocr_vl_decode")
    assert walls == {
        "traced": pytest.approx(w.steps.wall_s.mean()),
        "unprofiled": pytest.approx(44.548e-3),
    }


def test_the_front_holds_the_best_and_nothing_beaten(outcome):
    front = outcome.summary["pareto"]
    ids = {row["design_id"] for row in front["designs"]}
    assert outcome.summary["best"]["design_id"] in ids
    assert front["size"] == len(ids) < len(outcome.table)


def test_every_design_has_an_id_of_its_own(outcome):
    assert outcome.table["design_id"].is_unique


def test_ids_change_with_everything_that_changes_the_answer(monkeypatch):
    base, other = load_arch("h200"), ns.with_value(load_arch("h200"), "units.count", 131)
    w, v = ns.load_workload("paddleocr_vl_decode"), ns.load_workload("paddleocr_vl_decode_b8")

    def one(arch=base, workload=w, count=1.0, launch="graph", clock=1e9, traced=base, **more):
        monkeypatch.setattr(design_task, "traced_arch", lambda _: traced)
        task = DesignTask(Space(arch, {"units.clock": [clock]}, [launch]), (workload,), (count,),
                          **more)  # fmt: skip
        return task.table(0)["design_id"][0].as_py(), task.id

    different = [
        one(),
        one(arch=other),
        one(workload=v),
        one(count=64.0),
        one(traced=other),
        one(traced=None),
        one(mode="transfer", arch=with_clock(base)),
        one(launch="queue"),
        one(clock=2e9),
    ]
    monkeypatch.setattr(design_task, "model_version", lambda: "another")
    different.append(one())
    for ids in zip(*different, strict=True):  # of the design, and of the sweep
        assert len(set(ids)) == len(ids)
    monkeypatch.undo()
    assert one() == different[0]


def with_clock(arch):
    return ns.with_value(arch, "units.clock", 1.5e9)


def test_a_design_has_one_id_in_every_space():
    h200, w = load_arch("h200"), ns.load_workload("paddleocr_vl_decode")
    own = h200["host.speed"]
    few = Space(h200, {"units.clock": [1e9, 1.5e9]}, ["graph"])
    more = Space(
        h200, {"host.speed": [0.5, own], "units.clock": [1.5e9, 1.2e9]}, ["queue", "graph"]
    )
    first, second = (DesignTask(s, (w,), (1.0,)).table(0).to_pandas() for s in (few, more))
    here = first[first["units.clock"] == 1.5e9]["design_id"].tolist()
    at = (second["units.clock"] == 1.5e9) & (second["host.speed"] == own)
    assert second[at & (second["launch"] == "graph")]["design_id"].tolist() == here
    assert second["design_id"].is_unique


def test_what_is_written_reads_back(outcome, tmp_path):
    save_outcome(outcome, tmp_path, figures=False)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "comparison.csv", "pareto.csv", "results.parquet", "summary.json"]  # fmt: skip
    table, about = store.load_results(tmp_path)
    pd.testing.assert_frame_equal(table, outcome.table)
    assert (
        about["made_by"] | {"command": outcome.summary["made_by"]["command"]}
        == (outcome.summary["made_by"])
    )
    assert json.loads((tmp_path / "summary.json").read_text()) == outcome.summary
    assert len(pd.read_csv(tmp_path / "pareto.csv")) == outcome.summary["pareto"]["size"]
    assert len(pd.read_csv(tmp_path / "comparison.csv")) == len(outcome.table)
    compared = compare_one(tmp_path)
    figures = compared.summary["times_faster_than"]["paddleocr_vl_decode"]
    name = "NVIDIA H200, graph, wall (unprofiled)"
    assert figures[name]["fastest"] == pytest.approx(2.3608e-3 / outcome.table["wall_s"].min())


def test_an_axis_may_be_something_that_the_nominal_machine_lacks(tmp_path):
    asked = job.read_job("decode_npu", ["paddleocr_vl_decode"], ["queue"], {})
    axes = {"matrix.fp32.rate": [256.0, 512.0, 1024.0], "memories.dram.bandwidth": [2e12, 3e12]}
    done = run_job(replace(asked, space=Space(asked.arch, axes, ["queue"]), costs=()), "")
    assert done.summary["nominal"]["matrix.fp32.rate"] is None
    files = [p.name for p in save_outcome(done, tmp_path, figures=True)]
    assert "axis_effects.png" in files
    tables.swept(done, tmp_path)


def test_the_edge_is_told_of_axes_that_count(outcome):
    # more of each is faster, of the cache by a thousandth of a percent; two values are no range
    assert outcome.summary["best_at_edge"] == [
        "memories.dram.bandwidth", "units.count", "matrix.bf16.rate",
    ]  # fmt: skip
    assert "memories.l2.capacity" in outcome.summary["slight_effect"]


def test_the_edge_of_axes_that_hardly_count_is_not_told(tmp_path, capsys):
    # a second that is carried over, and a product of a fifth of a millisecond, too large to stay
    small = workload(timed(1.0), {"kind": "gemv", "m": 1, "n": 65536, "k": 4096, "dtype": "bf16",
                                  "read_weight": 5.4e8, "duration_s": 2e-4})  # fmt: skip
    asked = job.read_job("decode_npu", ["paddleocr_vl_decode"], ["graph"], {})
    axes = {"memories.dram.bandwidth": [2e12, 2.5e12, 3e12], "units.count": [60.0, 70.0, 80.0],
            "launch.graph.node": [0.0, 1e-4, 1e-3]}  # fmt: skip
    asked = replace(asked, workloads=(small,), space=Space(asked.arch, axes, ["graph"]), costs=())
    done = run_job(asked, "")
    wall = done.table.groupby("launch.graph.node")["wall_s"]
    assert (wall.max() > wall.min()).all() and (wall.max() < wall.min() * 1.001).all()
    slight = ["memories.dram.bandwidth", "units.count"]
    assert done.summary["slight_effect"] == slight
    assert done.summary["best_at_edge"] == ["launch.graph.node"]
    tables.swept(done, tmp_path)
    out = capsys.readouterr().out
    assert f"axes that change the time of the best by less than 0.1%: {', '.join(slight)}\n" in out
    assert "edge of launch.graph.node: look beyond" in out


@pytest.mark.parametrize("raw", [b"{", b"[]", b"{}", b"[" * 100_000])
def test_results_with_a_damaged_description_are_refused(outcome, tmp_path, raw):
    save_outcome(outcome, tmp_path, figures=False)
    data = pq.read_table(tmp_path / "results.parquet")
    pq.write_table(
        data.replace_schema_metadata({b"npusim.sweep": raw}), tmp_path / "results.parquet"
    )
    with pytest.raises(InputError, match="its description is damaged"):
        store.load_results(tmp_path)


def test_a_folder_holds_one_sweep(outcome, tmp_path):
    (tmp_path / "roofline.png").write_text("of an earlier sweep")
    (tmp_path / "notes.txt").write_text("mine")
    save_outcome(outcome, tmp_path, figures=False)
    assert not (tmp_path / "roofline.png").exists()
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_sweep_that_cannot_be_written_leaves_nothing(outcome, tmp_path):
    (tmp_path / "pareto.csv").mkdir()
    with pytest.raises(InputError, match="is a folder where a file would be written"):
        save_outcome(outcome, tmp_path, figures=False)
    assert [p.name for p in tmp_path.iterdir()] == ["pareto.csv"]


def test_paths_are_looked_for_beside_the_file_that_names_them(tmp_path, monkeypatch):
    text = catalog.find("studies", "bandwidth").read_text()
    (tmp_path / "mine.yaml").write_bytes(catalog.find("archs", "decode_npu").read_bytes())
    (tmp_path / "w.parquet").write_bytes(
        catalog.find("workloads", "paddleocr_vl_decode").read_bytes()
    )
    named = text.replace("arch: decode_npu", "arch: mine.yaml")
    named = named.replace("deepseek_ocr_decode_grouped, ", "").replace(
        "paddleocr_vl_decode, paddleocr_vl_decode_b32", "w.parquet")  # fmt: skip
    (tmp_path / "study.yaml").write_text(named)
    asked = job.read_job(str(tmp_path / "study.yaml"), [], [], {})
    assert asked.arch.name == "mine"
    assert [w.name for w in asked.workloads] == ["paddleocr_vl_decode"]


def test_a_workload_is_compared_with_its_own_trace():
    summary = compare_one(Path("paddleocr_vl_decode")).summary
    first = summary["steps"][0]
    w = ns.load_workload("paddleocr_vl_decode")
    assert first["value"] == pytest.approx(w.steps.wall_s.mean())
    assert first["predicted"] == ns.replay(w, load_arch("h200"), "eager").wall_s
    assert (
        sum(k["operations"] for k in summary["kinds"].values()) == summary["kernels"]["operations"]
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"units.count": 70.0}, "--set units.count: is an axis of this sweep"),
        ({"units.count": -1.0}, "--set units.count: is an axis"),
        ({"host.sync": -1.0}, "host.sync: out of bounds"),
    ],
)
def test_settings_that_would_do_nothing_are_refused(settings, message):
    with pytest.raises(InputError, match=message):
        job.read_job("decode_npu", [], [], settings)


def test_a_setting_changes_the_machine_that_is_swept():
    asked = job.read_job("decode_npu", [], [], {"host.sync": 5e-6})
    assert asked.arch["host.sync"] == 5e-6


def test_a_machine_without_a_sweep_block_says_which_have_one():
    with pytest.raises(InputError, match="has no sweep block; try one that has: decode_npu"):
        job.read_job("h200", [], [], {})


def test_the_command_line_prints_and_writes_the_same(tmp_path):
    runner = CliRunner()
    arguments = ["sweep", "bandwidth", "-w", "paddleocr_vl_decode", "--launch", "graph", "--json",
                 "-o", str(tmp_path / "out put")]  # fmt: skip
    done = runner.invoke(main, arguments)
    assert done.exit_code == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed == json.loads((tmp_path / "out put" / "summary.json").read_text())
    assert printed["launch"] == ["graph"]
    figures = {p.suffix for p in (tmp_path / "out put").iterdir()} - {".json", ".csv", ".parquet"}
    assert figures == {".png"}


def test_a_sweep_without_the_profiler_begins_at_the_second_step():
    asked = job.read_job("host", [], [], {}, without_profiler=True)
    assert all(w.meta["profiler"] == "out" and len(w.steps) == 2 for w in asked.workloads)
    assert not job.read_job("host", [], [], {}).workloads[0].meta.get("profiler")


def test_a_profiler_that_was_not_there_cannot_be_taken_out(tmp_path):
    bare = tmp_path / "bare.parquet"
    ns.save_workload(workload(timed(1e-6), host="unknown", name="bare"), bare)
    with pytest.raises(InputError, match="bare: no host was measured"):
        job.read_job("host", [str(bare)], [], {}, without_profiler=True)


def test_a_sweep_without_the_profiler_is_compared_as_such(tmp_path):
    for flag in ([], ["--unprofiled"]):
        folder = tmp_path / ("out" if flag else "in")
        arguments = [
            "sweep",
            "host",
            "-w",
            "paddleocr_vl_decode",
            "--no-figures",
            "-o",
            str(folder),
        ]
        assert CliRunner().invoke(main, [*arguments, *flag]).exit_code == 0
        done = CliRunner().invoke(main, ["compare", str(folder)])
        assert done.exit_code == 0, done.stderr


def test_a_wall_without_the_profiler_is_held_against_one():
    rows = compare_one(Path("paddleocr_vl_decode")).table
    eager = rows[(rows["launch"] == "eager") & (rows["quantity"] == "wall_s")]
    h200 = eager[eager["device"] == "NVIDIA H200"]
    assert len(h200) == 2 and (h200["error"].abs() < 0.02).all()
