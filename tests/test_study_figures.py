"""Figures that studies ask for: drawn data against replays, options that are refused, files."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError, InputErrors
from npusim.plots import roof
from npusim.studies import figures, gallery
from npusim.studies.bench import Bench, Case, Lot
from npusim.studies.claim import Side
from npusim.studies.decide import Answer, decide
from npusim.studies.figures import drawing
from npusim.studies.figures.about import About
from npusim.studies.figures.fields import Along, design
from npusim.studies.figures.kinds import build_order, waterfall
from npusim.studies.read import claimed, read_question
from npusim.studies.work import workloads

DRAM = "memories.dram.bandwidth"
STUDY = {
    "title": "Is 2 TB/s enough?", "question": "Is it?", "source": "nobody", "arch": "decode_npu",
    "sweep": {
        "workloads": ["paddleocr_vl_decode"], "launch": ["graph"],
        "axes": {DRAM: ["1 TB/s", "2 TB/s", "4 TB/s"], "memories.l2.capacity": ["8 MB", "192 MB"]},
        "baseline": "h200",
    },
    "claims": {
        "enough": {
            "says": "2 TB/s is enough.", "source": "nobody", "holds": {"most": 1.05},
            "compare": {"figure": "wall_s", "design": {DRAM: "2 TB/s"},
                        "against": {DRAM: "3 TB/s"}},
            "rule": "5 % is little", "models": ["paddleocr_vl"], "batch": [1], "launch": ["queue"],
        },
        "half": {
            "says": "Half of the die is matrix units.", "source": "nobody", "holds": {"least": 0.5},
            "measure": {"quantity": "area_share", "arch": "h100", "block": "matrix"},
            "rule": "a half is a half",
        },
    },
}  # fmt: skip
ABOUT = About(("enough", "half"), 6)


@pytest.fixture(scope="module")
def bench():
    with Bench(workers=1) as found:
        yield found


@pytest.fixture(scope="module")
def answer(tmp_path_factory, bench):
    file = tmp_path_factory.mktemp("studies") / "enough.yaml"
    file.write_text(yaml.safe_dump(STUDY), encoding="utf-8")
    return decide([read_question(str(file))], bench, draws=8)[0]


@pytest.fixture
def ask(answer, bench):
    """Return the pictures of one figure."""

    def asked(kind, of=answer, **options):
        question = replace(of.question, figures=({"verdicts": {}}, {kind: options}))
        found = drawing.pictures([replace(of, question=question)], bench)
        return [p for p in found if p.kind == kind]

    return asked


def one(bench, case=None, arch="decode_npu", change=None, **columns):
    case = case or Case("paddleocr_vl", "decode", 1, "queue")
    given = {path: np.array([value]) for path, value in columns.items()}
    return bench([Lot(arch, case, change or {}, given)])[0].iloc[0]


def test_a_curve_draws_what_the_bench_says(ask, bench):
    (found,) = ask("curve", parameter=DRAM, values=["4 TB/s", "1 TB/s"], launch=["graph"])
    assert found.table["line"].unique().tolist() == ["PaddleOCR-VL", "DeepSeek-OCR"]
    row = found.table[(found.table["line"] == "PaddleOCR-VL") & (found.table[DRAM] == 1e12)].iloc[0]
    own = one(bench, Case("paddleocr_vl", "decode", 1, "graph"), **{DRAM: 1e12})
    assert row["wall_s"] == pytest.approx(own["wall_s"])
    assert (row["low"], row["high"]) == pytest.approx((own["wall_low_s"], own["wall_high_s"]))
    axes = found.figure().axes[0]
    assert axes.get_xlabel() == f"{DRAM} [TB/s]"
    assert sorted(len(line.get_xdata()) for line in axes.lines)[-2:] == [2, 2]


def test_a_ratio_to_the_same_design_is_one_whatever_is_drawn(ask, bench):
    (found,) = ask("curve", parameter=DRAM, values=["1 TB/s", "3 TB/s"], over={DRAM: "3 TB/s"},
                   models=["paddleocr_vl"])  # fmt: skip
    slow, same = found.table.sort_values(DRAM).to_dict("records")
    assert (same["low"], same["step time, ratio"], same["high"]) == pytest.approx((1, 1, 1))
    walls = [one(bench, **{DRAM: bandwidth})["wall_s"] for bandwidth in (1e12, 3e12)]
    assert slow["step time, ratio"] == pytest.approx(walls[0] / walls[1])
    assert slow["low"] < slow["step time, ratio"] < slow["high"]


def test_a_batch_is_one_of_the_case_and_both_designs_take_it(ask, bench):
    options = {"parameter": "workload.batch", "values": [1, 8], "models": ["paddleocr_vl"]}
    (found,) = ask("curve", figure="s_per_token", **options)
    own = one(bench, Case("paddleocr_vl", "decode", 8, "queue"))
    assert found.table["s_per_token"].iloc[1] == pytest.approx(own["s_per_token"])
    assert "batch 1" not in found.title
    (ratio,) = ask("curve", over={"gemv.count": 0}, both=["workload.batch"], **options)
    other = one(bench, Case("paddleocr_vl", "decode", 8, "queue"), **{"gemv.count": 0.0})
    assert ratio.table["step time, ratio"].iloc[1] == pytest.approx(own["wall_s"] / other["wall_s"])


def test_what_a_study_is_run_with_holds_for_its_figures(ask, answer, bench):
    of = replace(answer, settings={"memories.l2.capacity": 1024e6, "workload.context": 4096.0})
    (found,) = ask(
        "curve", of, parameter=DRAM, values=["1 TB/s", "2 TB/s"], models=["paddleocr_vl"]
    )
    own = one(bench, change={"workload.context": 4096.0},
              **{DRAM: 1e12, "memories.l2.capacity": 1024e6})  # fmt: skip
    assert found.table["wall_s"].iloc[0] == pytest.approx(own["wall_s"])


def test_a_map_is_a_ratio_cell_by_cell(ask, bench):
    (found,) = ask("heat", x={"parameter": "workload.context", "values": [1024, 8192]},
                   y={"parameter": DRAM, "values": ["1 TB/s", "2.5 TB/s"]},
                   both=["workload.context"], limit=1.05)  # fmt: skip
    table = found.table.set_index(["workload.context", DRAM])["step time over nominal"]
    assert table.loc[1024.0, 2.5e12] == pytest.approx(1) == table.loc[8192.0, 2.5e12]
    context = {"workload.context": 8192.0}
    slow, fast = (one(bench, change=context, **{DRAM: b})["wall_s"] for b in (1e12, 2.5e12))
    assert table.loc[8192.0, 1e12] == pytest.approx(slow / fast)
    (alone,) = ask("heat", x={"parameter": "workload.context", "values": [1024, 8192]},
                   y={"parameter": DRAM, "values": ["1 TB/s", "2.5 TB/s"]})  # fmt: skip
    cell = alone.table.set_index(["workload.context", DRAM]).loc[(8192.0, 1e12)].iloc[0]
    assert cell == pytest.approx(slow / one(bench)["wall_s"])


def test_a_waterfall_goes_from_replay_to_replay(ask):
    (w,), h200 = workloads("paddleocr_vl", "decode", 1), ns.load_arch("h200")
    steps = [
        {"name": "H200", "set": {"arch": "h200"}}, {"name": "graph", "set": {"launch": "graph"}},
        {"name": "half the bandwidth", "set": {DRAM: "2.4 TB/s"}},
        {"name": "decode NPU", "set": {"arch": "decode_npu"}},
    ]  # fmt: skip
    (found,) = ask("waterfall", steps=steps)
    half = ns.with_value(h200, DRAM, 2.4e12)
    own = [
        ns.replay(w, arch, launch).wall_s
        for arch, launch in (
            (h200, "eager"),
            (h200, "graph"),
            (half, "graph"),
            (ns.load_arch("decode_npu"), "graph"),
        )
    ]
    assert found.table["wall_s"].tolist() == pytest.approx(own)
    assert found.table["step"].tolist() == [step["name"] for step in steps]
    assert (found.table["low"] <= found.table["wall_s"]).all()


def test_steps_keep_those_before_but_for_another_machine():
    base = Side(arch="h200", machine={"units.count": 66.0}, launch="graph", work={"a": 1.0})
    same = waterfall.after(base, Side(machine={"units.clock": 1e9}))
    assert dict(same.machine) == {"units.count": 66.0, "units.clock": 1e9}
    other = waterfall.after(base, Side(arch="decode_npu", work={"b": 2.0}))
    assert (other.arch, other.launch, dict(other.machine)) == ("decode_npu", "graph", {})
    assert dict(other.work) == {"a": 1.0, "b": 2.0}


def test_lanes_add_up_to_the_step_that_the_bench_replays(ask, bench):
    designs = {"queue": {"launch": "queue"}, "H200": {"arch": "h200", "launch": "graph"}}
    (found,) = ask("lanes", designs=designs)
    table = found.table.set_index("design")
    assert table[["device_s", "launch_s", "idle_s"]].sum(axis=1).to_numpy() == pytest.approx(
        table["wall_s"].to_numpy())  # fmt: skip
    # The bench gives the mean of the steps that were traced, the figure the first of them.
    assert table.loc["queue", "wall_s"] == pytest.approx(one(bench)["wall_s"], rel=0.02)


def test_joules_of_all_blocks_are_the_energy(ask, bench):
    (found,) = ask("energy", designs={"NPU": {}, "half": {DRAM: "1 TB/s"}}, models=["paddleocr_vl"])
    blocks = found.table.drop(columns=["design", "energy_j", "low", "high"])
    assert blocks.sum(axis=1).to_numpy() == pytest.approx(found.table["energy_j"].to_numpy())
    assert found.table["design"].tolist() == ["NPU", "half"]
    assert found.table["energy_j"].iloc[1] == pytest.approx(one(bench, **{DRAM: 1e12})["energy_j"])


def test_kernels_lie_where_flop_bytes_and_time_put_them(ask):
    (found,) = ask("roofline", machines=["h200", "decode_npu"])
    w = ns.load_workload("paddleocr_vl_decode")
    _, top, _ = roof(ns.load_arch("h200"))
    assert 0 < found.table["time_share"].sum() <= 1
    assert found.table["flop_rate"].max() <= top * 1e12
    # What a kernel does is its rate times its time, and all of them do what the step does.
    busy = ns.replay(w, ns.load_arch("h200"), "graph").device_busy_s * len(w.steps)
    done = (found.table["flop_rate"] * found.table["time_share"]).sum() * busy
    assert done == pytest.approx(w["flop"][w.classified].sum(), rel=1e-6)


def test_a_front_holds_what_no_design_of_the_sweep_beats(ask, answer):
    (found,) = ask("pareto", x="area_mm2")
    job = ns.sweep(ns.Space(ns.load_arch("decode_npu"), {
        DRAM: [1e12, 2e12, 4e12], "memories.l2.capacity": [8e6, 192e6]}, ["graph"]),
        ns.load_workload("paddleocr_vl_decode"))  # fmt: skip
    points = job[["area_mm2", "wall_s"]].to_numpy()
    free = [p for p in points if not any((q <= p).all() and (q < p).any() for q in points)]
    assert sorted(map(tuple, free)) == sorted(
        found.table[["area_mm2", "wall_s"]].itertuples(index=False, name=None)
    )
    texts = [t.get_text() for t in found.figure().axes[0].texts]
    assert {"nominal", "h200, graph"} <= set(texts)


def test_a_tornado_is_that_of_its_claim(ask, answer):
    (found,) = ask("tornado", claim="enough")
    rows = answer.decisions[0].influence.tornado
    assert found.table["label"].tolist() == [row[0] for row in rows]
    lines = found.figure().axes[0].lines
    assert any(np.allclose(line.get_xdata(), 1.05) for line in lines)


def test_features_come_in_the_order_in_which_each_gains_most(ask, bench):
    base = {"fusion.chain": 0.0, "gemv.count": 0.0}
    features = {"fusion": {"fusion.chain": 8}, "GEMV": {"gemv.count": 70}}
    (found,) = ask(
        "build_order", base={path: int(v) for path, v in base.items()}, features=features
    )
    of = {"": one(bench, **base), "fusion": one(bench, **{**base, "fusion.chain": 8.0}),
          "GEMV": one(bench, **{**base, "gemv.count": 70.0}),
          "all": one(bench, **{"fusion.chain": 8.0, "gemv.count": 70.0})}  # fmt: skip
    first = min(("fusion", "GEMV"), key=lambda name: of[name]["wall_s"])
    table = found.table
    assert table["label"].iloc[0] == first
    assert table["factor"].tolist() == pytest.approx(
        [of[""]["wall_s"] / of[name]["wall_s"] for name in (first, "all")]
    )
    assert table["area_mm2"].sum() == pytest.approx(of["all"]["area_mm2"] - of[""]["area_mm2"])
    assert (table["low"] < table["factor"]).all() and (table["factor"] < table["high"]).all()


@given(st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 5), min_size=1))
def test_features_that_add_up_come_by_what_they_gain(gains):
    def value(chosen):
        return 100 - sum(gains[name] for name in chosen)

    class Values(dict):
        def __missing__(self, chosen):
            return value(chosen)

    order = build_order.greedy(list(gains), Values())
    found = [gains[name] for name in order]
    assert found == pytest.approx(sorted(found, reverse=True))


def test_every_study_shows_its_verdicts(answer, bench):
    found = drawing.pictures([answer], bench)
    assert [p.kind for p in found] == ["verdicts", "verdicts"]  # a ratio and a share: two axes
    assert {p.study for p in found} == {"enough"}
    rows = pd.concat([p.table for p in found], ignore_index=True)
    cases = [case for d in answer.decisions for case in d.cases]
    assert rows["verdict"].tolist() == [case.verdict for case in cases]
    assert rows["value"].tolist() == [case.value for case in cases]
    assert ((rows["low"] <= rows["value"]) & (rows["value"] <= rows["high"])).all()


WRONG = [
    ("curve", {"parameter": "dram", "values": [1, 2]}, "parameter", "unknown parameter: 'dram'"),
    ("curve", {"parameter": "area.die", "values": [1, 2]}, "parameter", "no cost model"),
    ("curve", {"parameter": DRAM, "values": [1, 2]}, "", "has no unit"),
    ("curve", {"parameter": DRAM, "start": "1 TB/s"}, "", "start, stop and steps"),
    ("curve", {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"], "figure": "wall"}, "figure",
     "no figure of a design: 'wall'"),
    ("curve", {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"], "over": {"units.cout": 1}},
     "over", "units.cout"),
    ("curve", {"parameter": "workload.batch", "values": [1, 8], "over": {}}, "", "both"),
    ("curve", {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"], "colour": "red"}, "colour",
     "unknown option"),
    ("heat", {"x": {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"]}}, "y", "is missing"),
    ("waterfall", {"steps": [{"name": "a"}, {"name": "b", "set": {"launch": "sideways"}}]},
     "steps.1.set", "not a launch mode"),
    ("lanes", {"designs": {"a": {"arch": "h201"}}}, "designs.a", "h201"),
    ("roofline", {"machines": ["h201"]}, "machines.0", "h201"),
    ("pareto", {"x": "beauty"}, "", "beauty"),
    ("tornado", {"claim": "much"}, "claim", "no such claim: 'much' (allowed: enough, half)"),
    ("build_order", {"features": {"a": {"fusion.chain": 8}}}, "features", "2"),
    ("energy", {"designs": {"a": {}}, "models": ["gpt"]}, "", "models: no such workload: 'gpt'"),
    ("verdicts", {"claim": "enough"}, "claim", "unknown option"),
    ("curve", ["a"], "", "not a mapping"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options", "place", "text"), WRONG)
def test_a_mistake_is_told_in_a_line_with_its_place(tmp_path, kind, options, place, text):
    file = tmp_path / "wrong.yaml"
    content = {**STUDY, "figures": [{"verdicts": {}}, {kind: options}]}
    file.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises((InputError, InputErrors)) as error:
        read_question(str(file))
    lines = str(error.value).splitlines()
    at = f"figures.1.{kind}" + (f".{place}" if place else "")
    assert any(f"{at}: " in line and text in line for line in lines), lines
    assert all(line.startswith(f"{file}: line ") for line in lines)


def test_a_sweep_that_is_not_there_or_too_large_has_no_front():
    for designs, text in ((None, "needs a sweep block"), (30_000, "too many designs")):
        ((_, problem, _),) = figures.faults("pareto", {"x": "area_mm2"}, About((), designs))
        assert text in problem


def test_a_kind_that_is_none_is_told_with_those_there_are(tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text(yaml.safe_dump({**STUDY, "figures": [{"pie": {}}]}), encoding="utf-8")
    with pytest.raises(
        InputError, match=r"not a figure: 'pie' \(allowed: one of build_order, curve"
    ):
        read_question(str(file))


def test_all_shipped_studies_ask_for_figures_that_exist():
    for name in claimed():
        question = read_question(name)
        about = drawing._about(question)
        for figure in question.figures:
            ((kind, options),) = figure.items()
            assert list(figures.faults(kind, options, about)) == [], (name, kind)


@given(st.integers(2, 40), st.sampled_from(["linear", "log"]))
def test_steps_hold_both_ends_and_rise(steps, scale):
    found = Along(parameter=DRAM, start="1 TB/s", stop="5 TB/s", steps=steps, scale=scale).points()
    assert (found[0], found[-1], len(found)) == (1e12, 5e12, steps)
    assert (np.diff(found) > 0).all()


def test_sides_hold_machine_work_and_names_apart():
    found = design({"arch": "h200", DRAM: "2 TB/s", "workload.kv_bits": 8, "launch": "queue"})
    assert (found.arch, found.launch) == ("h200", "queue")
    assert (dict(found.machine), dict(found.work)) == ({DRAM: 2e12}, {"workload.kv_bits": 8.0})


def test_kinds_are_found_with_what_a_file_may_say_of_them():
    assert {"build_order", "curve", "heat", "lanes", "pareto", "verdicts"} <= set(figures.names())
    for name in figures.names():
        assert "Attributes" in figures.find(name).Options.__doc__ or name == "verdicts"


@pytest.fixture(scope="module")
def pictures(answer, bench):
    asked = ({"curve": {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"]}},
             {"curve": {"parameter": DRAM, "values": ["1 TB/s", "4 TB/s"]}})  # fmt: skip
    question = replace(answer.question, figures=asked)
    return drawing.pictures([replace(answer, question=question)], bench)


class _Page(HTMLParser):
    def __init__(self):
        super().__init__()
        self.ids, self.links, self.images = [], [], []

    def handle_starttag(self, tag, attrs):
        of = dict(attrs)
        self.ids += [of["id"]] if "id" in of else []
        self.links += [of["href"]] if tag == "a" else []
        self.images += [(of["src"], of["alt"])] if tag == "img" else []


def test_a_gallery_has_a_page_with_all_figures_and_their_data(pictures, tmp_path):
    shown = gallery.save(pictures, tmp_path, {"enough": "Is 2 TB/s <enough>?"})
    names = ["enough_verdicts", "enough_verdicts_2", "enough_curve", "enough_curve_2"]
    assert [one.name for one in shown] == names
    assert {f.name for f in (tmp_path / "figures").iterdir()} == {
        f"{name}.{ending}" for name in names for ending in ("svg", "csv")
    }
    text = (tmp_path / "gallery.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(text)
    assert "Is 2 TB/s &lt;enough&gt;?" in text and "<script" not in text
    assert len(set(page.ids)) == len(page.ids)
    for link in page.links:
        assert link[1:] in page.ids if link.startswith("#") else (tmp_path / link).is_file()
    assert [src for src, _ in page.images] == [one.file for one in shown]
    assert all(alt.startswith(p.title) for (_, alt), p in zip(page.images, pictures, strict=True))
    table = pd.read_csv(tmp_path / shown[2].data)
    assert table["wall_s"].to_numpy() == pytest.approx(
        pictures[2].table["wall_s"].to_numpy(), rel=1e-5
    )


def test_the_same_figures_are_the_same_bytes(pictures, tmp_path):
    for folder in ("a", "b"):
        gallery.save(pictures, tmp_path / folder)
    for file in (tmp_path / "a").rglob("*.*"):
        other = tmp_path / "b" / file.relative_to(tmp_path / "a")
        assert file.read_bytes() == other.read_bytes()
    svg = (tmp_path / "a" / "figures" / "enough_curve.svg").read_text(encoding="utf-8")
    assert re.match(r"<svg ", svg) and "step time [ms]</text>" in svg


def test_a_folder_that_is_in_the_way_is_told_and_nothing_is_written(pictures, tmp_path):
    (tmp_path / "figures" / "enough_curve.svg").mkdir(parents=True)
    with pytest.raises(InputError, match="is a folder"):
        gallery.save(pictures, tmp_path)
    assert [f.name for f in tmp_path.rglob("*") if f.is_file()] == []


def test_a_figure_that_a_machine_lacks_is_told_with_its_study(answer, bench):
    figure = {"curve": {"parameter": DRAM, "values": ["1 TB/s", "2 TB/s"], "figure": "area_mm2",
                        "lines": {"C500": {"arch": "metax_c500"}}}}  # fmt: skip
    of = Answer(replace(answer.question, figures=(figure,)), answer.decisions)
    with pytest.raises(InputError, match=r"study enough.*no such figure: 'area_mm2'"):
        drawing.pictures([of], bench)
