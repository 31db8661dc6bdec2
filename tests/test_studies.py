"""Studies: every shipped claim has a verdict that its inputs can turn, and the parts by hand."""

import json
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim.cli import main
from npusim.errors import InputError, NpusimError
from npusim.store import model_version
from npusim.studies import draws
from npusim.studies.bench import Bench, Case, Lot
from npusim.studies.claim import Rule
from npusim.studies.decide import decide, unused
from npusim.studies.draws import doubts, is_chosen, perturbed, samples
from npusim.studies.influence import bracket, ends
from npusim.studies.read import claimed, read_question
from npusim.studies.record import of_answer
from npusim.studies.verdict import Found, decided, of_draws, only_without_host, overall

HEAD = """
title: A study of a test
question: Does it?
source: a test
arch: decode_npu
"""
CLAIM = """
claims:
  one:
    says: It is so
    source: a test
    compare:
      figure: wall_s
      design: {memories.dram.bandwidth: 2.5 TB/s}
      against: {memories.dram.bandwidth: 1.25 TB/s}
    holds: {most: 0.9}
    rule: for a test
    models: [paddleocr_vl]
    batch: [1]
    launch: [queue]
"""


@pytest.fixture(scope="module")
def bench():
    with Bench(workers=1) as one:
        yield one


def study(folder, text, head=HEAD):
    file = folder / "mine.yaml"
    file.write_text(head + text, encoding="utf-8")
    return str(file)


# --- what ships --------------------------------------------------------------


@pytest.mark.parametrize("name", claimed())
def test_every_claim_names_its_source_and_its_rule(name):
    question = read_question(name)
    for claim in question.claims:
        assert "seed" in claim.source or "DOI" in claim.source or "http" in claim.source
        assert claim.rule.why
        assert np.isfinite(claim.rule.least) or np.isfinite(claim.rule.most)


def test_all_systems_of_the_seeds_have_a_study():
    words = " ".join(c.source for name in claimed() for c in read_question(name).claims)
    for seed in ("seed 000", "seed 001", "seed 002", "seed 003", "seed 004"):
        assert seed in words
    for section in range(1, 10):
        assert f"seed 004 section {section}" in words


# --- verdicts ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("band", "verdict"),
    [((0.5, 0.9), "supported"), ((0.5, 1.0), "supported"), ((0.9, 1.1), "undecided"),
     ((1.01, 1.2), "refuted")],
)  # fmt: skip
def test_a_band_decides_only_when_all_of_it_lies_on_one_side(band, verdict):
    assert decided(Rule(most=1.0), *band) == verdict


def test_a_rule_with_two_ends():
    rule = Rule(least=0.9, most=1.1)
    assert [decided(rule, low, low + 0.05) for low in (0.8, 0.88, 1.0, 1.2)] == [
        "refuted", "undecided", "supported", "refuted"]  # fmt: skip


def test_draws_give_band_and_how_sure():
    drawn = np.linspace(0.0, 1.0, 1001)
    found = of_draws("x", {}, 0.5, drawn, Rule(most=0.75))
    assert (found.low, found.high) == pytest.approx((0.1, 0.9))
    assert found.sure == pytest.approx(0.75, abs=1e-3)
    assert found.verdict == "undecided"


def test_a_band_holds_the_value_that_it_is_the_band_of():
    found = of_draws("x", {}, 2.0, np.linspace(0.0, 1.0, 11), Rule(most=1.5))
    assert found.high == 2.0
    assert found.verdict == "undecided"


def test_a_figure_that_is_no_number_is_told():
    with pytest.raises(InputError, match="not a number"):
        of_draws("x", {}, 1.0, np.array([1.0, np.nan]), Rule(most=1.5))


def cases(verdicts):
    return [Found(f"{mode} {batch}", {"launch": mode, "batch": batch}, 1, 1, 1, v, 1.0)
            for (mode, batch), v in verdicts.items()]  # fmt: skip


def test_a_claim_that_differs_by_launch_mode_says_so():
    found = cases({("queue", "1"): "supported", ("queue", "8"): "supported",
                   ("eager", "1"): "refuted", ("eager", "8"): "refuted"})  # fmt: skip
    assert overall(found) == ("supported in part", "supported with queue; refuted with eager")
    assert only_without_host(found)


def test_a_claim_that_differs_within_a_launch_mode_says_where():
    found = cases({("queue", "1"): "supported", ("queue", "8"): "undecided",
                   ("eager", "1"): "supported", ("eager", "8"): "supported"})  # fmt: skip
    assert overall(found) == (
        "supported in part", "supported with queue (batch 1), eager; undecided with queue (batch 8)"
    )  # fmt: skip
    assert not only_without_host(found)


def test_nothing_supported_and_something_undecided_is_undecided():
    assert (
        overall(cases({("queue", "1"): "refuted", ("eager", "1"): "undecided"}))[0] == "undecided"
    )


# --- replays -----------------------------------------------------------------


def test_a_ratio_is_that_of_two_replays(tmp_path, bench):
    (answer,) = decide([read_question(study(tmp_path, CLAIM))], bench, draws=16)
    w, npu = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("decode_npu")
    walls = [ns.replay(w, ns.with_value(npu, "memories.dram.bandwidth", v), "queue").wall_s
             for v in ("2.5 TB/s", "1.25 TB/s")]  # fmt: skip
    (case,) = answer.decisions[0].cases
    assert case.value == pytest.approx(walls[0] / walls[1], rel=1e-9)
    assert case.low <= case.value <= case.high


def test_settings_go_on_both_sides_and_a_claim_keeps_its_own(tmp_path, bench):
    question = read_question(study(tmp_path, CLAIM))
    set_ = {"floor.matmul": 2e-6, "memories.dram.bandwidth": 1e13}
    (answer,) = decide([question], bench, set_, draws=16)
    w = ns.load_workload("paddleocr_vl_decode")
    npu = ns.with_value(ns.load_arch("decode_npu"), "floor.matmul", 2e-6)
    walls = [ns.replay(w, ns.with_value(npu, "memories.dram.bandwidth", v), "queue").wall_s
             for v in (2.5e12, 1.25e12)]  # fmt: skip
    assert answer.decisions[0].cases[0].value == pytest.approx(walls[0] / walls[1], rel=1e-9)


def test_lots_evaluated_together_are_lots_evaluated_alone(bench):
    case = Case("paddleocr_vl", "decode", 8, "graph")
    lots = [Lot("decode_npu", case, {}, {"units.count": np.array([60.0, 80.0])}, 2),
            Lot("decode_npu", case, {}, {"fusion.chain": np.array([0.0])}, 1),
            Lot("decode_npu", case)]  # fmt: skip
    together = bench(lots)
    for lot, found in zip(lots, together, strict=True):
        (alone,) = bench([lot])
        pd.testing.assert_frame_equal(
            found[sorted(alone)], alone[sorted(alone)], rtol=1e-12, check_dtype=False)  # fmt: skip
        assert np.isfinite(found["wall_s"]).all()


def test_two_runs_are_the_same(tmp_path, bench):
    question = read_question(study(tmp_path, CLAIM))
    first, second = (json.dumps(of_answer(decide([question], bench, draws=16)[0])) for _ in "ab")
    assert first == second


def test_two_processes_say_what_one_says(tmp_path):
    # in processes of their own: what starts workers stays until its process ends
    command = [sys.executable, "-m", "npusim", "study", study(tmp_path, CLAIM), "--json"]
    one, two = (
        json.loads(
            subprocess.run([*command, "--workers", n], check=True, capture_output=True).stdout
        )
        for n in "12"
    )
    assert one["studies"] == two["studies"]


def test_a_break_even_turns_the_figure(tmp_path, bench):
    # with the engine fixed, nothing that takes whole numbers is what matters most
    fixed = CLAIM.replace(" TB/s}", " TB/s, fusion.chain: 8, array.rows: 0}")
    question = read_question(study(tmp_path, fixed.replace("most: 0.9", "most: 0.8")))
    (answer,) = decide([question], bench, draws=16)
    decision = answer.decisions[0]
    found = decision.influence
    found = found if found.flips is not None else found.also
    rule, held = decision.claim.rule, decision.claim.rule.margin(decision.cases[0].value) >= 0
    step = 0.05 * (found.flips - found.doubt.nominal)  # it is looked for on a grid
    margins = []
    for value in (found.flips - step, found.flips + step):
        (there,) = decide([question], bench, {found.name: value}, draws=16)
        margins.append(rule.margin(there.decisions[0].cases[0].value) >= 0)
    assert margins == [held, not held]


def test_two_studies_of_one_name_are_refused(tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    found = run(study(tmp_path, CLAIM), study(other, CLAIM), "--json")
    assert found.exit_code == 1
    assert found.stderr == "error: two studies of one name: 'mine'\n"


def test_a_setting_that_no_claim_takes_is_told(tmp_path):
    file = study(tmp_path, CLAIM)
    assert unused([read_question(file)], ["memories.dram.bandwidth", "floor.matmul"]) == [
        "memories.dram.bandwidth"]  # fmt: skip
    found = run(file, "--json", "--draws", "8", "--workers", "1", "--set",
                "memories.dram.bandwidth=1 TB/s")  # fmt: skip
    assert "note: changes nothing here: --set memories.dram.bandwidth" in found.stderr


# --- what is not known -------------------------------------------------------


def test_what_a_designer_chooses_is_no_doubt():
    drawn = samples("decode_npu", (), 8)
    assert "floor.matmul" in drawn
    assert not any(is_chosen(path) for path in drawn)
    assert "gemv.count" in doubts("decode_npu")


def test_draws_stay_in_their_ranges_and_cover_them():
    known = doubts("decode_npu")
    for path, values in samples("decode_npu", (), 64).items():
        assert known[path].low <= values.min() <= values.max() <= known[path].high
        if known[path].unit == "s":
            reach = (values.max() - values.min()) / (known[path].high - known[path].low)
            assert reach > 0.9, path


def test_draws_do_not_hang_on_what_is_fixed():
    every, fewer = samples("decode_npu", (), 16), samples("decode_npu", ("floor.sort",), 16)
    assert "floor.sort" not in fewer
    assert (every["floor.matmul"] == fewer["floor.matmul"]).all()


def made(kinds, wall=1.0, follows=1.0):
    rows = 64
    table = {f"kind {k}": np.full(rows, t) for k, t in kinds.items()}
    totals = {"wall_s": wall, "device_busy_s": sum(kinds.values()), "follows": follows}
    return pd.DataFrame({**table, **{name: np.full(rows, value) for name, value in totals.items()}})


def test_an_error_that_both_sides_make_falls_out_of_their_ratio(monkeypatch):
    # all kernels take twice as long as modelled, also what changed: the ratio stays
    monkeypatch.setattr(draws, "off", lambda *a: np.full(a[2], 2.0))
    design, against = made({"gemv": 0.5}, 0.5), made({"gemv": 1.0}, 1.0)
    ratio = perturbed(design, "decode_npu", "wall_s", against) / perturbed(
        against, "decode_npu", "wall_s")  # fmt: skip
    assert ratio == pytest.approx(0.5)


def test_what_a_design_changes_has_an_error_of_its_own(monkeypatch):
    # time is right, change is half of what is modelled: 1.0 -> 0.5 becomes 1.0 -> 0.75
    factor = {"time": 1.0, "change": 0.5}
    monkeypatch.setattr(draws, "off", lambda *a: np.full(a[2], factor[a[3]]))
    design, against = made({"gemv": 0.5}, 0.5), made({"gemv": 1.0}, 1.0)
    assert perturbed(design, "decode_npu", "wall_s", against) == pytest.approx(0.75)


def test_a_device_that_nobody_waits_for_may_be_off(monkeypatch):
    monkeypatch.setattr(draws, "off", lambda *a: np.full(a[2], 3.0))
    hidden = made({"gemv": 0.1}, 1.0, follows=0.0)
    assert perturbed(hidden, "decode_npu", "wall_s") == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("figures", "held", "between"),
    [([0.5, 0.6, 1.2, 1.3], True, (2.0, 3.0)), ([0.5, 0.6, 0.7, 0.8], True, None),
     ([1.5, 1.2, 0.9, 0.8], False, (2.0, 3.0))],
)  # fmt: skip
def test_where_a_claim_flips(figures, held, between):
    values = np.array([1.0, 2.0, 3.0, 4.0])
    assert bracket(values, np.array(figures), 1.5, Rule(most=1.0), held) == between


def test_break_evens_are_looked_for_within_bounds():
    for path, doubt in doubts("decode_npu").items():
        low, high = ends(path, doubt)
        assert doubt.bounds[0] <= low <= doubt.nominal <= high <= doubt.bounds[1], path


# --- files and the command line ----------------------------------------------


BAD = [
    ("claims: {}\n", "at least 1"),
    (CLAIM.replace("wall_s", "wall"), "no figure of a design: 'wall'"),
    (CLAIM.replace("memories.dram.bandwidth: 2.5 TB/s", "memories.dram.bandwith: 2.5 TB/s"),
     "unknown parameter: 'memories.dram.bandwith'"),
    (CLAIM.replace("2.5 TB/s", "2.5 GHz"), "has the wrong unit: '2.5 GHz'"),
    (CLAIM.replace("holds: {most: 0.9}", "holds: {}"), "bounds nothing"),
    (CLAIM.replace("holds: {most: 0.9}", "holds: {least: 2, most: 1}"), "least is above most"),
    (CLAIM.replace("launch: [queue]", "launch: [quue]"), "not one of those allowed"),
    (CLAIM.replace("    rule: for a test\n", ""), "is missing"),
    (CLAIM + "    measure: {quantity: time_share}\n", "one of compare and measure"),
    (CLAIM + "    doubts: {floor.matmul: [1 us, 2 us]}\n", "belongs to measure"),
    (CLAIM + "    colour: red\n", "unknown key"),
    (CLAIM + "flips: {claim: two, set: {a: 1}, to: refuted, because: it is}\n", "no such claim"),
    (CLAIM.replace("against: {", "against: {arch: h2000, "), "no such arch"),
    (CLAIM.replace("against: {", "against: {best: h200, "), "the best design of the study's own"),
    (CLAIM[: CLAIM.index("    compare")] + "    measure: {quantity: luck}\n"
     + CLAIM[CLAIM.index("    holds") : CLAIM.index("    models")], "no such quantity"),
]  # fmt: skip


@pytest.mark.parametrize(("text", "told"), BAD, ids=[told for _, told in BAD])
def test_mistakes_in_a_file_are_told_by_place(tmp_path, text, told):
    file = study(tmp_path, text)
    with pytest.raises(NpusimError) as error:
        read_question(file)
    assert told in str(error.value)
    assert "mine.yaml: line " in str(error.value)


def run(*arguments):
    return CliRunner().invoke(main, ["study", *arguments])


def test_without_a_name_studies_are_listed():
    found = run()
    assert found.exit_code == 0
    assert all(name in found.output for name in claimed())
    assert {one["name"] for one in json.loads(run("--json").output)["studies"]} == set(claimed())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["nosuch"], "no such study"), (["host", "--all"], "names and --all"),
     (["serving/context_length"], "no such file"),
     (["bandwidth", "--set", "floor.matmull=1 us"], "unknown parameter")],
)  # fmt: skip
def test_bad_input_is_one_line(arguments, told):
    found = run(*arguments)
    assert found.exit_code == 1
    (line,) = found.output.splitlines()
    assert line.startswith("error: ")
    assert told in line


def test_json_is_one_object_and_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = study(tmp_path, CLAIM)
    found = run(file, "--json", "--draws", "16", "--workers", "1")
    content = json.loads(found.stdout)
    (claim,) = content["studies"][0]["claims"]
    assert claim["verdict"] == "supported"
    assert claim["data"][-1] == "machine decode_npu"
    assert claim["data"][0].startswith("paddleocr_vl_decode")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.yaml"]


def test_files_say_which_models_made_them(tmp_path):
    found = run(study(tmp_path, CLAIM), "--no-figures", "--draws", "8", "--workers", "1", "-o",
                str(tmp_path / "out"))  # fmt: skip
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "out" / "mine.json").read_text())["model"] == model_version()
    table = pd.read_csv(tmp_path / "out" / "verdicts.csv")
    assert table.columns[-1] == "model" and set(table["model"]) == {model_version()}


# --- a workload of one's own -------------------------------------------------

OWN = """
claims:
  one:
    says: As a graph it takes less than half the time
    source: a test
    compare: {figure: wall_s, design: {launch: graph}, against: {launch: eager}}
    holds: {most: 0.5}
    rule: for a test
    models: [MODEL]
    launch: [graph]
"""


def test_a_workload_of_ones_own_is_replayed_as_it_is(tmp_path, bench):
    """Its figure is that of two replays; a shipped name and a file are the same workload."""
    name = "paddleocr_vl_decode_b8"
    w, npu = ns.load_workload(name), ns.load_arch("decode_npu")
    wall = {mode: ns.replay(w, npu, mode).wall_s for mode in ("eager", "graph")}
    ns.save_workload(w, tmp_path / "step.parquet")
    for model in (name, str(tmp_path / "step.parquet")):
        (answer,) = decide([read_question(study(tmp_path, OWN.replace("MODEL", model)))], bench)
        (case,) = answer.decisions[0].cases
        assert case.value == pytest.approx(wall["graph"] / wall["eager"], rel=1e-12)
        assert answer.decisions[0].data[0].startswith(model)
        assert "batch" not in answer.decisions[0].reason


@pytest.mark.parametrize(
    ("models", "more", "told"),
    [("nowhere.json", "", "models: nowhere.json: no such file; or deepseek_ocr or paddleocr_vl"),
     ("paddleocr_vl_decode", "    work: decode\n", "work: not of a workload of yours: 'decode'"),
     ("paddleocr_vl", "    work: step\n", "work: not of a model: 'step' (allowed: decode"),
     ("paddleocr_vl, paddleocr_vl_decode", "", "work: not of a workload of yours: 'decode'"),
     ("paddleocr_vl_decode", "    batch: [1, 8]\n", "set workload.batch")],
)  # fmt: skip
def test_work_that_a_workload_does_not_have_is_refused(tmp_path, models, more, told):
    with pytest.raises(NpusimError) as found:
        read_question(study(tmp_path, OWN.replace("MODEL", models) + more))
    text = str(found.value)
    assert told in text
    assert "line " in text
    assert "claims.one" in text


def test_a_workload_has_no_lowering(tmp_path, bench):
    text = OWN.replace("MODEL", "paddleocr_vl_decode").replace(
        "design: {launch: graph}", "design: {launch: graph, lowering: npu}"
    )
    with pytest.raises(InputError, match="lowering: belongs to a model"):
        decide([read_question(study(tmp_path, text))], bench)


def test_an_experiment_is_a_name_and_no_path(tmp_path):
    text = """
claims:
  one:
    says: It is so
    source: a test
    measure: {quantity: measured_ratio, experiment: ../../x, both: {}, slow: {a: 1}, fast: {a: 2}}
    holds: {most: 0.5}
    rule: for a test
"""
    with pytest.raises(NpusimError, match=r"claims.one.measure.experiment: .*'../../x'"):
        read_question(study(tmp_path, text))
