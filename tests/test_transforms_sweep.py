"""Axes and settings of the workload, from a file or the command line to tables on disk."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import catalog, config, job, store
from npusim.beside import compare_one
from npusim.cli import main
from npusim.errors import InputError, InputErrors
from npusim.outcome import run_job, save_outcome
from npusim.sweeps.design_task import DesignTask
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.front import without_effect
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.tables import results as tables
from npusim.transforms import quantize_weights, set_context, transformed
from tests.test_transforms import ATTENTION, LAYER, STEP, step

H200 = catalog.find("archs", "h200").read_text(encoding="utf-8")
SWEEP = """
sweep:
  workloads: {paddleocr_vl_prefill: 1, paddleocr_vl_decode: 4}
  launch: [graph]
  axes:
    memories.l2.capacity: [60 MiB, 120 MiB]
    workload.weight_bits: [16, 4]
    workload.context: [1024, 16384]
"""
BITS, CONTEXT, L2 = "workload.weight_bits", "workload.context", "memories.l2.capacity"


def small(name="made", *rows):
    """Eight layers of 17.5 MB, which no cache here holds in 16 bits, before attention."""
    return step(*(rows or [LAYER] * 7 + [*STEP]), name=name, device="NVIDIA H200")


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])


def test_a_sweep_is_what_replays_of_changed_workloads_answer(h200):
    axes = {BITS: [16, 8, 4], L2: [1e6, 60e6], CONTEXT: [600, 8192]}
    space = Space(h200, axes, ["graph", "queue"])
    w = small()
    table = sweep(space, w)
    assert len(table) == len(space) == 3 * 2 * 2 * 2
    assert list(table.columns[:4]) == ["launch", *axes]
    slowest_first = [BITS, CONTEXT, L2]  # each change of the work once
    grid = pd.MultiIndex.from_product([["graph", "queue"], *(axes[p] for p in slowest_first)])
    assert pd.MultiIndex.from_frame(table[["launch", *slowest_first]]).equals(grid.set_names(
        ["launch", *slowest_first]))  # fmt: skip
    for _, row in table.iterrows():
        changed = set_context(quantize_weights(w, row[BITS]), row[CONTEXT])
        alone = ns.replay(changed, ns.with_value(h200, L2, row[L2]), row["launch"])
        for name in ("wall_s", "device_busy_s", "host_busy_s", "idle_share"):
            assert row[name] == pytest.approx(getattr(alone, name), rel=1e-12)
        assert (row["wall_low_s"], row["wall_high_s"]) == pytest.approx(alone.band.wall_s)
        if row[BITS] != 16:
            assert row["extrapolates"]
            assert alone.band.extrapolates[0].startswith("weights in another width")


def test_axes_of_the_workload_alone_make_a_space(h200):
    space = Space(h200, {BITS: [16, 4]})
    table = sweep(space, small())
    assert len(space) == 2 and table[BITS].tolist() == [16, 4]
    assert table["device_busy_s"].iloc[1] < table["device_busy_s"].iloc[0]


def test_progress_counts_every_design(h200):
    seen = []
    sweep(Space(h200, {BITS: [16, 4], L2: [1e6, 2e6]}, ["graph", "queue"]), small(),
          progress=lambda *at: seen.append(at))  # fmt: skip
    assert seen[-1] == (8, 8) and seen == sorted(seen)


def test_a_change_reaches_the_workloads_that_have_what_it_changes(h200):
    layers, whole = small("layers", LAYER), small("whole")
    found = with_changes([layers, whole], {CONTEXT: 1200, "workload.kv_bits": 8})
    assert found[0] is layers
    assert found[1]["read_kv"][-1] == 614_400.0  # twice the keys in half the bits
    table = sweep(Space(h200, {CONTEXT: [600, 8192]}, ["graph"]), [layers, whole])
    first, second = (table[f"device_busy_s[{name}]"] for name in ("layers", "whole"))
    assert first.iloc[0] == first.iloc[1] and second.iloc[0] < second.iloc[1]


def test_axes_without_effect_are_found_among_those_of_both_sorts(h200):
    axes = {BITS: [16, 8], "matrix.fp8.rate": [4096, 8192], CONTEXT: [600.2, 599.9, 600]}
    space = Space(h200, axes, ["graph"])
    assert without_effect(space, sweep(space, small())) == ("matrix.fp8.rate", CONTEXT)


@pytest.mark.parametrize(
    ("axes", "message"),
    [
        ({BITS: [0.5]}, "workload.weight_bits: out of bounds: 0.5"),
        ({CONTEXT: [float("nan")]}, "workload.context: out of bounds"),
        ({BITS: []}, "workload.weight_bits: axis without values"),
        ({BITS: [8, 8]}, "workload.weight_bits: value given twice"),
        ({"workload.bits": [8]}, "unknown parameter: 'workload.bits'.*workload.weight_bits"),
        ({BITS: range(1, 64), CONTEXT: range(1, 65537)}, "too many versions of the work: 4"),
    ],
)
def test_spaces_that_make_no_sense_are_refused(h200, axes, message):
    with pytest.raises(InputError, match=message):
        Space(h200, axes)


def test_a_change_that_reaches_no_workload_is_refused(h200):
    with pytest.raises(InputError, match=r"workload\.context: no workload here has any decode att"):
        sweep(Space(h200, {CONTEXT: [8]}), [small("a", LAYER), small("b", LAYER)])


def test_measured_times_are_not_transferred_to_other_work(h200):
    w = small()
    assert ns.replay(w, h200, mode="transfer").mode == "transfer"
    with pytest.raises(InputError, match=r"transfer needs what was measured.*weight_bits=4"):
        ns.replay(quantize_weights(w, 4), h200, mode="transfer")
    with pytest.raises(InputError, match="transfer needs what was measured"):
        sweep(Space(h200, {BITS: [16, 4]}), w, "transfer")


def test_a_replay_says_what_was_changed(h200):
    first = ns.replay(quantize_weights(small(), 4, 128), h200).notes[0]
    assert first == ("the workload is changed (workload.weight_bits=4, workload.weight_group=128): "
                     "nothing that was measured is of it")  # fmt: skip


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    file = tmp_path_factory.mktemp("arch") / "mine.yaml"
    file.write_text(H200 + SWEEP)
    return run_job(job.read_job(str(file), [], [], {}), "npusim sweep mine.yaml")


def test_a_file_may_sweep_workloads(outcome):
    table, s = outcome.table, outcome.summary
    assert list(table.columns[:5]) == ["design_id", "launch", L2, BITS, CONTEXT]
    assert len(table) == s["designs"] == 8 and table["design_id"].is_unique
    assert s["axes"][CONTEXT] == {"unit": "1", "values": [1024, 16384]}
    assert s["best"][BITS] == 4 and s["best"][CONTEXT] == 1024
    assert (s["nominal"][BITS], s["nominal"][CONTEXT]) == (16, 675)
    w = ns.load_workload("paddleocr_vl_decode")
    prefill = ns.load_workload("paddleocr_vl_prefill")
    machine = ns.load_arch("h200")
    assert s["nominal"]["wall_s"] == pytest.approx(sum(
        n * ns.replay(x, machine, "graph").wall_s for n, x in ((1, prefill), (4, w))))  # fmt: skip
    best = ns.with_value(machine, L2, s["best"][L2])
    changed = [quantize_weights(prefill, 4), transformed(w, {BITS: 4, CONTEXT: 1024})]
    walls = [ns.replay(x, best, "graph").wall_s for x in changed]
    assert s["best"]["wall_s"] == pytest.approx(walls[0] + 4 * walls[1])


def test_the_notes_say_what_measured_figures_are_of_and_what_stays(outcome):
    notes = outcome.summary["notes"]
    assert notes[0] == ("measured figures are of the workloads as traced; designs that change "
                        "workload.weight_bits, workload.context do other work")  # fmt: skip
    assert notes[1].startswith("workload.context changes nothing in paddleocr_vl_prefill: no dec")
    assert any(note.startswith("workload.weight_bits: arithmetic stays") for note in notes)


def test_results_of_changed_workloads_read_back_and_compare(outcome, tmp_path, capsys):
    files = {file.name for file in save_outcome(outcome, tmp_path, figures=True)}
    assert {"results.parquet", "latency_cost.png", "axis_effects.png"} <= files
    table, about = store.load_results(tmp_path)
    pd.testing.assert_frame_equal(table, outcome.table)
    assert about["axes"][BITS]["values"] == [16, 4]
    compared = compare_one(tmp_path)
    figure = compared.summary["times_faster_than"]["paddleocr_vl_decode"]
    own = table["device_busy_s[paddleocr_vl_decode]"]
    w = ns.load_workload("paddleocr_vl_decode")
    name = "NVIDIA H200, eager, device_busy (profiled trace)"
    assert figure[name]["fastest"] == pytest.approx(w["duration_s"].sum() / 3 / own.min())
    tables.compared([compared])
    tables.swept(outcome, tmp_path)
    printed = " ".join(capsys.readouterr().out.split())
    assert "measured as traced; designs that change workload.weight_bits, workload.con" in printed
    assert "nominal: memories.l2.capacity 62.91 MB, workload.weight_bits 16" in printed


def test_workloads_that_differ_have_no_nominal_value(h200, tmp_path, capsys):
    asked = job.read_job("bandwidth", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped"],
                         ["graph"], {})  # fmt: skip
    bandwidth = "memories.dram.bandwidth"
    axes = {CONTEXT: [1024, 2048, 4096], bandwidth: [1e12, 2e12, 3e12]}
    done = run_job(replace(asked, space=Space(h200, axes, ["graph"]), costs=()), "")
    assert done.summary["nominal"][CONTEXT] is None
    assert done.summary["best"][CONTEXT] == 1024
    assert done.summary["best_at_edge"] == [bandwidth]  # to ask for less work is no design
    save_outcome(done, tmp_path, figures=True)
    tables.swept(done, tmp_path)
    assert "workload.context as traced" in capsys.readouterr().out


def test_ids_tell_changed_workloads_apart(h200):
    w = small()
    ids = DesignTask(Space(h200, {BITS: [8.0, 4.0]}, ["graph"]), (w,), (1.0,)).table(0)["design_id"]
    assert len(set(ids.to_pylist())) == 2


def test_a_setting_changes_all_designs_and_the_baseline_but_no_measured_figure():
    one = ["paddleocr_vl_decode"]
    plain = run_job(job.read_job("bandwidth", one, ["graph"], {}), "").summary
    asked = job.read_job("bandwidth", one, ["graph"], {BITS: 4.0})
    done = run_job(asked, "")
    s = done.summary
    assert set(done.table[BITS]) == {4.0} and s["axes"][BITS]["values"] == [4.0]
    assert s["nominal"][BITS] == 4.0
    four = quantize_weights(ns.load_workload(one[0]), 4)
    assert s["nominal"]["wall_s"] == pytest.approx(ns.replay(four, asked.arch, "graph").wall_s)
    predicted = s["baseline"]["predicted"]["graph"]["wall_s"]
    assert predicted == pytest.approx(ns.replay(four, ns.load_arch("h200"), "graph").wall_s)
    assert predicted < plain["baseline"]["predicted"]["graph"]["wall_s"]
    assert s["baseline"]["measured_wall_s"] == plain["baseline"]["measured_wall_s"]
    assert s["made_by"]["workloads"] == plain["made_by"]["workloads"]
    assert (done.table["wall_s"] < run_job(job.read_job("bandwidth", one, ["graph"], {}),
                                           "").table["wall_s"]).all()  # fmt: skip


def test_a_setting_that_is_an_axis_or_reaches_nothing_is_refused(tmp_path):
    (tmp_path / "mine.yaml").write_text(H200 + SWEEP)
    with pytest.raises(InputError, match=r"--set workload\.context: is an axis of this sweep"):
        job.read_job(str(tmp_path / "mine.yaml"), [], [], {CONTEXT: 8.0})
    with pytest.raises(InputError, match="no workload here has any decode attention"):
        job.read_job("bandwidth", ["paddleocr_vl_vision"], [], {CONTEXT: 8.0})


def test_a_range_of_contexts_need_not_be_whole(tmp_path):
    body = SWEEP.replace("[1024, 16384]", "{start: 1024, stop: 65536, steps: 4, scale: log}")
    (tmp_path / "mine.yaml").write_text(H200 + body)
    _, block = config.read_arch(tmp_path / "mine.yaml")
    assert block.axes[CONTEXT] == pytest.approx([1024, 4096, 16384, 65536])
    w = set_context(step(ATTENTION), block.axes[CONTEXT][1])
    assert w["n"].tolist() == [4096]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (H200 + "workload:\n  weight_bits: {value: 8, source: me myself, kind: assumed}\n",
         ["workload: changes the workload, not the machine; make it an axis of a sweep"]),
        (H200 + SWEEP.replace("[16, 4]", "[16, 0]"),
         ["sweep.axes.workload.weight_bits: out of bounds: 0"]),
        (H200 + SWEEP.replace("[16, 4]", "[16 bit]"),
         ["sweep.axes.workload.weight_bits: has the wrong unit: '16 bit'"]),
        (H200 + SWEEP.replace("workload.weight_bits", "workload.bits"),
         ["unknown parameter: 'workload.bits'", "workload.weight_bits"]),
    ],
)  # fmt: skip
def test_files_that_make_no_sense_are_refused_by_line(tmp_path, text, words):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises((InputError, InputErrors)) as error:
        config.read_arch(tmp_path / "mine.yaml")
    (line,) = str(error.value).splitlines()
    assert all(word in line for word in words) and "mine.yaml: line " in line


def test_the_command_line_replays_a_changed_workload(cli):
    settings = ["--set", "workload.weight_bits=8", "--set", "workload.context=8192"]
    command = ["replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph"]
    done = cli(*command, *settings, "--json")
    assert done.exit_code == 0 and done.stderr == ""
    answer, plain = json.loads(done.stdout), json.loads(cli(*command, "--json").stdout)
    w = transformed(ns.load_workload("paddleocr_vl_decode"), {BITS: 8, CONTEXT: 8192})
    assert answer["wall_s"] == ns.replay(w, ns.load_arch("h200"), "graph").wall_s
    assert answer["notes"][0].startswith("the workload is changed (workload.weight_bits=8, work")
    assert answer["made_by"]["workload"] == w.id != plain["made_by"]["workload"]
    own = cli(*command, "--set", "workload.weight_bits=16", "--set", "units.count=66", "--json")
    assert own.stderr == "note: changes nothing here: --set workload.weight_bits\n"
    assert json.loads(own.stdout)["no_effect"] == ["workload.weight_bits"]


def test_the_command_line_sweeps_workloads(cli, tmp_path):
    (tmp_path / "mine.yaml").write_text(H200 + SWEEP)
    done = cli("sweep", "mine.yaml", "--no-figures", "--json", "--set", "workload.kv_bits=8")
    assert done.exit_code == 0 and done.stderr == ""
    summary = json.loads(done.stdout)
    assert list(summary["axes"]) == ["workload.kv_bits", L2, BITS, CONTEXT]
    table = store.load_results(tmp_path / "results" / "mine")[0]
    assert len(table) == 8 and np.isfinite(table["wall_s"]).all()
    beside = cli("compare", tmp_path / "results" / "mine")
    assert beside.exit_code == 0 and "note: measured as traced" in beside.stdout


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["replay", "paddleocr_vl_vision", "--arch", "h200", "--set", "workload.context=8192"],
         ["paddleocr_vl_vision: workload.context: has no decode attention"]),
        (["replay", "paddleocr_vl_decode", "--arch", "h200", "--set", "workload.weight_bits=0"],
         ["--set workload.weight_bits: out of bounds: 0 (allowed: 1 to 64)"]),
        (["replay", "paddleocr_vl_decode", "--arch", "h200", "--set", "workload.weight_bits=8 B"],
         ["--set workload.weight_bits: has the wrong unit"]),
        (["replay", "paddleocr_vl_decode", "--arch", "h200", "--set", "workload.layers=8"],
         ["unknown parameter: 'workload.layers'", "workload.context"]),
        (["replay", "paddleocr_vl_decode", "--arch", "h200", "--mode", "transfer",
          "--set", "workload.kv_bits=8"], ["transfer needs what was measured", "kv_bits=8"]),
        (["sweep", "bandwidth", "-w", "paddleocr_vl_vision", "--set", "workload.context=8"],
         ["workload.context: no workload here has any decode attention", "paddleocr_vl_vision"]),
    ],
)  # fmt: skip
def test_bad_changes_are_one_line(cli, tmp_path, command, words):
    done = cli(*command)
    assert done.exit_code == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and all(word in line for word in words)
    assert not list(tmp_path.iterdir())
