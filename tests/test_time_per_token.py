"""Time per token of shipped workloads, with drafts and without: replays, sweeps, command line."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.cli import main
from npusim.models.kernel import kernel_time
from npusim.sweeps.front import best, objective, pareto, without_effect
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.tokens import tokens_per_step
from npusim.transforms import speculate
from npusim.transforms.speculation import touched

DRAFTS, ACCEPTANCE, LAYERS = (
    "workload.draft_tokens", "workload.acceptance", "workload.draft_layers",
)  # fmt: skip


@pytest.mark.parametrize(
    ("model", "lowering", "batch"),
    [("paddleocr_vl", "hf-eager", 1), ("paddleocr_vl", "serving", 8), ("qwen3_8b", "npu", 1),
     ("deepseek_ocr", "hf-eager-grouped", 4), ("llama_3_1_8b", "hf-eager", 2)],
)  # fmt: skip
def test_a_step_that_verifies_is_as_its_hyperparameters_say(model, lowering, batch):
    """The template lowers the step of several tokens itself: it knows nothing of the transform."""
    how = {"batch": batch, "context": 700, "lowering": lowering}
    made = ns.template(model, "decode", draft=3, acceptance=0.8, **how)
    changed = speculate(ns.template(model, "decode", **how), 3, 0.8)
    assert tokens_per_step(made) == pytest.approx(tokens_per_step(changed))
    for column, most in (("flop", 1e-3), ("read_weight", 1e-6), ("read_kv", 1e-6),
                         ("write_kv", 1e-3), ("write_activation", 5e-3)):  # fmt: skip
        assert changed[column].sum() == pytest.approx(made[column].sum(), rel=most), column


DECODERS = ["paddleocr_vl_decode", "paddleocr_vl_decode_b8", "deepseek_ocr_decode_grouped"]


@pytest.mark.parametrize("name", DECODERS)
def test_arithmetic_of_a_step_goes_with_the_tokens(name):
    """But for the keys that later tokens see besides, less than 0.1 % for four tokens."""
    w = ns.load_workload(name)
    ratio = float(speculate(w, 3, 0.8)["flop"].sum() / w["flop"].sum())
    assert ratio == pytest.approx(4.0, rel=1e-3)


@pytest.mark.parametrize("name", DECODERS)
def test_time_per_token_falls_while_weights_are_what_counts(name):
    w, h200 = ns.load_workload(name), ns.load_arch("h200")
    times = [ns.replay(speculate(w, k, 1.0), h200, "graph") for k in (0, 1, 3, 7)]
    per_token = [r.s_per_token for r in times]
    assert per_token == sorted(per_token, reverse=True)
    assert times[3].wall_s < 1.6 * times[0].wall_s  # eight tokens in little more than one
    sequences = w["batch"][touched(w)][0]
    assert [r.tokens for r in times] == [sequences * n for n in (1, 2, 4, 8)]


def test_verifying_takes_what_it_took_on_an_h200():
    """Products and attention of 18 layers, torch 2.11 on an H200 (transformers' Ernie 4.5 0.3B):

    717 us for two rows and 676 us for 16; attention without a mask 18 x 13.1 us for any of them.
    """
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    for drafts, products in ((1, 717e-6), (15, 676e-6)):
        made = speculate(w, drafts, 0.8)
        rows = made["step"] == 0
        unique, inverse = made.unique()
        time = kernel_time(made.operations(unique), Designs(h200))[inverse, 0]
        found = time[rows & made.mask("kind", "gemm", "gemv", "splitk_reduce")].sum()
        assert found == pytest.approx(products, rel=0.1)
        found = time[rows & made.mask("kind", "attention")].sum()
        assert found == pytest.approx(18 * 13.1e-6, rel=0.1)


def test_the_best_number_of_drafts_comes_out_of_a_sweep():
    """The more are accepted the more are worth drafting; past the best one time per token rises."""
    h200, w = ns.load_arch("h200"), ns.load_workload("paddleocr_vl_decode")
    axes = {DRAFTS: [0, 1, 2, 3, 4, 6, 8, 12], ACCEPTANCE: [0.3, 0.6, 0.9], LAYERS: [1]}
    table = sweep(Space(h200, axes, ["graph"]), w)
    assert objective(table) == "s_per_token"
    assert table["s_per_token"].to_numpy() == pytest.approx(table["wall_s"] / table["tokens"])
    chosen = []
    for _, part in table.groupby(ACCEPTANCE):
        at = int(np.argmin(part["s_per_token"]))
        per_token = part["s_per_token"].to_numpy()
        assert (np.diff(per_token[: at + 1]) < 0).all() and (np.diff(per_token[at:]) > 0).all()
        chosen.append(part[DRAFTS].iloc[at])
    assert chosen == sorted(chosen) and 0 < chosen[0] < chosen[-1] < 12
    assert best(table, [])[DRAFTS] == chosen[-1]
    assert pareto(table, [objective(table)])[DRAFTS].tolist() == [chosen[-1]]


def test_the_gain_is_that_of_the_formula_for_what_a_pass_and_a_step_take():
    """Theorem 3.8 of arXiv:2211.17192, for the step that verifies in place of one token's."""
    h200, w = ns.load_arch("h200"), ns.load_workload("paddleocr_vl_decode")
    step, first = (ns.replay(speculate(w, 1, 0.8, n), h200, "graph").wall_s for n in (0, 1))
    cost = (first - step) / step
    assert 0.08 < cost < 0.13  # a layer of 18 and the head, a quarter of all weights
    for k in (4, 8):
        formula = (1 - 0.8 ** (k + 1)) / (0.2 * (k * cost + 1))
        drafted = ns.replay(speculate(w, k, 0.8, 1), h200, "graph")
        assert step / drafted.s_per_token == pytest.approx(formula, rel=0.05)


def test_an_axis_that_changes_tokens_alone_has_an_effect():
    space = Space(ns.load_arch("h200"), {DRAFTS: [2], ACCEPTANCE: [0.5, 0.9]}, ["graph"])
    table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    assert np.ptp(table["wall_s"]) == 0 and without_effect(space, table) == ()


def test_a_page_has_the_time_per_token_of_what_decodes():
    h200 = ns.load_arch("h200")
    page = [ns.load_workload(f"paddleocr_vl_{phase}") for phase in ("prefill", "decode")]
    table = sweep(Space(h200, {"units.count": [132]}, ["graph"]), page, counts=[1, 64])
    decode = ns.replay(page[1], h200, "graph")
    assert table["tokens"].tolist() == [64.0] and objective(table) == "wall_s"
    assert table["s_per_token"].iloc[0] == pytest.approx(decode.s_per_token)
    assert table["s_per_token[paddleocr_vl_decode]"].iloc[0] == pytest.approx(decode.s_per_token)
    assert not [c for c in table if c.startswith("s_per_token[paddleocr_vl_prefill")]
    alone = sweep(Space(h200, {"units.count": [132]}, ["graph"]), page[0])
    assert "tokens" not in alone and "s_per_token" not in alone


@pytest.fixture
def cli(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return lambda *args: CliRunner().invoke(main, [str(a) for a in args])


REPLAY = ("replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph")


def test_a_replay_tells_time_per_token(cli):
    drafts = ("--set", f"{DRAFTS}=3", "--set", f"{ACCEPTANCE}=0.8")
    content = json.loads(cli(*REPLAY, "--json", *drafts).stdout)
    assert content["tokens"] == pytest.approx(2.952) and content["no_effect"] == []
    assert content["s_per_token"] == pytest.approx(content["wall_s"] / 2.952)
    assert "2.952 tokens a step: " in cli(*REPLAY, *drafts).stdout
    assert "\n1 token a step: " in cli(*REPLAY).stdout
    plain = json.loads(cli(*REPLAY, "--json").stdout)
    assert plain["tokens"] == 1.0 and plain["s_per_token"] == plain["wall_s"]
    vision = json.loads(cli("replay", "paddleocr_vl_vision", "--arch", "h200", "--json").stdout)
    assert vision["tokens"] is None and vision["s_per_token"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ([f"{DRAFTS}=129", f"{ACCEPTANCE}=0.8"], "out of bounds: 129"),
        ([f"{DRAFTS}=3", f"{ACCEPTANCE}=80"], "acceptance: out of bounds: 80"),
        ([f"{DRAFTS}=3", f"{ACCEPTANCE}=0.8", f"{LAYERS}=19"], "more layers than are known: 19"),
    ],
)
def test_settings_that_make_no_sense_are_refused(cli, settings, message):
    run = cli(*REPLAY, *(part for s in settings for part in ("--set", s)))
    assert run.exit_code == 1 and message in run.stderr and "Traceback" not in run.stderr


def test_a_study_of_drafts_names_the_best(cli, tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text(catalog.find("archs", "h200").read_text(encoding="utf-8") + f"""
sweep:
  workloads: [paddleocr_vl_decode]
  launch: [graph]
  axes:
    {DRAFTS}: [0, 2, 4, 8]
    {LAYERS}: [1]
""")  # fmt: skip
    call = ("sweep", file, "--set", f"{ACCEPTANCE}=0.7", "-o", tmp_path / "out", "--no-figures")
    run = cli(*call, "--json")
    assert run.exit_code == 0, run.stderr
    content = json.loads(run.stdout)
    table = pd.read_parquet(tmp_path / "out" / "results.parquet")
    assert content["pareto"]["objectives"] == ["s_per_token"]
    assert content["best"]["s_per_token"] == table["s_per_token"].min()
    assert 0 < content["best"][DRAFTS] < 8 and content["nominal"]["tokens"] == 1.0
    assert "a token" in cli(*call).stdout
