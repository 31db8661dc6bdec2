"""The documentation tells what the commands print."""

import re
import runpy

import pandas as pd
import pytest

import npusim as ns
from npusim.store import model_version
from npusim.studies.read import claimed, read_question


def test_the_accuracy_page_was_made_with_these_models(root):
    text = (root / "docs" / "accuracy.md").read_text()
    assert f"with the models of npusim {model_version()}." in text, (
        "run: python benchmarks/accuracy.py > docs/accuracy.md"
    )


def test_the_page_of_verdicts_has_every_claim_and_was_made_with_these_models(root):
    text = (root / "docs" / "verdicts.md").read_text(encoding="utf-8")
    again = "run: npusim study --all && python docs/make_verdicts.py results/studies"
    assert f"models of npusim {model_version()} by" in text, again
    for name in claimed():
        for claim in read_question(name).claims:
            assert claim.says.replace("|", "/") in text, again


def test_the_figure_of_the_readme_is_that_of_the_verdicts(root):
    docs, again = root / "docs", "run: python docs/make_answer.py results/studies"
    about, *_ = (docs / "answer.csv").read_text(encoding="utf-8").splitlines()
    assert about == f"# models of npusim {model_version()}", again
    told = (docs / "verdicts.md").read_text(encoding="utf-8")
    for row in pd.read_csv(docs / "answer.csv", comment="#").itertuples():
        (claim,) = (c for c in read_question(row.study).claims if c.id == row.claim)
        (line,) = (x for x in told.splitlines() if x.startswith(f"| {claim.says} ["))
        assert f"| {row.value:.3g} ({row.low:.3g} to {row.high:.3g}) |" in line, again
    assert "docs/answer.png" in (root / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("row", "arch", "bandwidth"),
    [("H200 with a hardware queue, predicted", "h200", None),
     ("nominal NPU, predicted", "decode_npu", None),
     ("nominal NPU at 3 TB/s, predicted", "decode_npu", "3 TB/s")],
)  # fmt: skip
def test_the_figures_of_the_readme_are_what_replay_answers(root, row, arch, bandwidth):
    machine = ns.load_arch(arch)
    if bandwidth is not None:
        machine = ns.with_value(machine, "memories.dram.bandwidth", bandwidth)
    r = ns.replay(ns.load_workload("deepseek_ocr_decode"), machine, "queue")
    low, high = (1e3 * t for t in r.band.wall_s)
    cells = [f"{1e3 * r.wall_s:.1f} ms ({low:.1f}–{high:.1f})", f"{1e3 * r.device_busy_s:.1f} ms",
             f"{100 * r.idle_share:.0f} %"]  # fmt: skip
    assert f"| {row} | {' | '.join(cells)} |" in (root / "README.md").read_text()


def test_what_the_readme_concludes_is_so(root):
    w, npu = ns.load_workload("deepseek_ocr_decode"), ns.load_arch("decode_npu")
    at = {b: ns.replay(w, ns.with_value(npu, "memories.dram.bandwidth", b), "queue").wall_s
          for b in ("2 TB/s", "3 TB/s")}  # fmt: skip
    assert at["3 TB/s"] / at["2 TB/s"] == pytest.approx(10 / 11, abs=0.01)  # "worth an eleventh"
    before = ns.replay(w, npu, "queue")
    assert before.limits["floor"] == pytest.approx(0.64, abs=0.015)  # "six tenths"
    for path, left in (("gemv.count", 0.85), ("fusion.chain", 0.70)):
        without = ns.replay(w, ns.with_value(npu, path, 0), "queue")
        assert before.wall_s / without.wall_s == pytest.approx(left, abs=0.01), path
    for path, worth in (("units.count", 1 / 50), ("matrix.bf16.rate", 1 / 100)):
        more = ns.with_value(npu, path, 2 * npu[path])
        gained = 1 - ns.replay(w, more, "queue").wall_s / before.wall_s
        assert gained == pytest.approx(worth, abs=0.005), path
    waits = w["sync"].sum() / len(w.steps)
    assert f"{waits:.0f} decisions a step" in re.sub(r"\s+", " ", (root / "README.md").read_text())


def test_every_page_is_in_the_navigation(root):
    listed = (root / "mkdocs.yml").read_text()
    for page in (root / "docs").rglob("*.md"):
        assert str(page.relative_to(root / "docs")) in listed


def test_tables_of_the_documentation_are_those_of_the_code(root):
    made = runpy.run_path(str(root / "docs" / "make_tables.py"))
    for name, page in made["PAGES"].items():
        assert (root / "docs" / name).read_text() == page(), "run: python docs/make_tables.py"
