"""Figures of design studies: what is drawn where, in which unit, and that grey tells it apart."""

from __future__ import annotations

import io
import re
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle, StepPatch
from matplotlib.text import Text

import npusim as ns
from npusim import study_plots as plots
from npusim.errors import InputError
from npusim.sides import after
from npusim.study_plots import lane_chart, placing, style
from npusim.study_plots.front import thinned
from npusim.timeline import Span, Timeline

DRAM, UNITS = "memories.dram.bandwidth", "units.count"
HOST_LANES = ["host", "launch", "device", "idle"]


@pytest.fixture(scope="module")
def workload():
    return ns.load_workload("paddleocr_vl_decode")


@pytest.fixture
def ax():
    return Figure().subplots()


def cases():
    return pd.DataFrame({
        "claim": ["enough bandwidth", "enough bandwidth", "half the time", "half the time"],
        "label": ["deepseek_ocr, queue", "deepseek_ocr, eager", "paddleocr_vl, queue", "all"],
        "value": [1.02, 1.06, 0.7, 0.45], "low": [1.0, 1.0, 0.6, 0.4],
        "high": [1.04, 1.1, 0.8, 0.6], "most": [1.05, 1.05, 0.5, 0.5],
        "verdict": ["supported", "undecided", "refuted", "supported in part"],
    })  # fmt: skip


def steps():
    return pd.DataFrame({
        "label": ["H200, eager", "as a graph", "hardware queue", "half the units"],
        "total_s": [8e-3, 3e-3, 2.5e-3, 2.75e-3], "low_s": [7.5e-3, 2.7e-3, 2.2e-3, 2.5e-3],
        "high_s": [8.5e-3, 3.2e-3, 2.8e-3, 3e-3],
    })  # fmt: skip


def grid(of=lambda x, y: x + y):
    """Return a grid of 5 bandwidths and 4 numbers of units; x [TB/s] and y [10 units]."""
    x, y = (v.ravel() for v in np.meshgrid([1.0, 2.0, 3.0, 4.0, 5.0], [2.0, 4.0, 6.0, 8.0]))
    return pd.DataFrame({DRAM: x * 1e12, UNITS: y * 10, "wall_s": of(x, y) * 1e-3})


def lines():
    x = np.array([0.5, 1, 2, 4, 8]) * 1e12
    table = pd.concat(
        [
            pd.DataFrame({"launch": launch, DRAM: x, "wall_s": floor + 1e9 / x})
            for launch, floor in (("eager", 6e-2), ("graph", 1.1e-3), ("queue", 1e-3))
        ]
    )
    return table.assign(wall_low_s=0.9 * table["wall_s"], wall_high_s=1.2 * table["wall_s"])


def timeline(workload):
    """Return a step of 10 ms: host work to 2 and a wait, device 1 to 3 and 4 to 9; issued at 3.5.

    The second operation is on its way from 3.5 to 4; the host works again from 9 to 10.
    """
    spans = [Span("work", 0, 0.0, 2e-3), Span("wait", 0, 2e-3, 9e-3), Span("tail", 1, 9e-3, 1e-2)]
    return Timeline(workload, spans, [0.5e-3, 3.5e-3], [1e-3, 4e-3], [3e-3, 9e-3], [0.0, 1e-2])


def joules():
    blocks = ["dram", "board", "matrix", "vector", "l2", "l1", "noc", "control", "launch", "rest",
              "registers", "link"]  # fmt: skip
    size = 0.2 / np.arange(1, 13)
    return pd.DataFrame([size, 0.5 * size], index=["H200, graph", "decode NPU"], columns=blocks)


def ends_of_joules():
    total = joules().sum(axis=1)
    return pd.DataFrame({"low": 0.8 * total, "high": 1.3 * total})


def designs(count=400):
    rng = np.random.default_rng(3)
    area = rng.uniform(300, 800, count)
    wall = 1e-3 * (1 + 300 / area + rng.uniform(0, 1, count))
    return pd.DataFrame({"area_mm2": area, "wall_s": wall, "wall_low_s": 0.9 * wall,
                         "wall_high_s": 1.2 * wall})  # fmt: skip


def kernels():
    return pd.DataFrame({
        "kind": ["gemv", "attention", "pointwise", "sort"], "intensity": [1.0, 2.0, 0.2, 0.1],
        "flop_rate": [2e12, 1e12, 5e9, 1e5], "time_share": [0.5, 0.1, 0.3, 0.1],
    })  # fmt: skip


def doubts():
    return pd.DataFrame({
        "label": ["host.speed", "floor.matmul", "memories.dram.efficiency", "launch.queue.submit"],
        "low": [1.04, 0.98, 1.08, 1.042], "high": [1.04, 1.09, 1.02, 1.049],
        "low_text": ["0.8", "0.5 µs", "80 %", "50 ns"],
        "high_text": ["1.2", "3 µs", "95 %", "500 ns"],
    })  # fmt: skip


def features():
    return pd.DataFrame({
        "label": ["hardware queue", "4.8 TB/s", "KV SRAM of 8 MB", "fused pipelines"],
        "factor": [1.9, 2.4, 2.5, 2.45], "low": [1.7, 2.1, 2.2, 2.1],
        "high": [2.1, 2.7, 2.8, 2.7], "area_mm2": [0.2, 14.25, 4.5, 0.0],
    })  # fmt: skip


def draw_pareto(ax):
    table = designs()
    named = {"nominal": table.iloc[0], "H200": {"area_mm2": 814.0, "wall_s": 2.5e-3},
             "fastest": table.loc[table["wall_s"].idxmin()]}  # fmt: skip
    plots.pareto(ax, table, "area_mm2", "wall_s", ns.pareto(table, ["area_mm2", "wall_s"]), named)


ROOFS = {"H200": (4.8e12, 989e12), "H100": (3.35e12, 989e12), "decode NPU": (2.5e12, 240e12)}
DRAWN = {
    "verdicts": lambda ax: plots.verdicts(ax, cases()),
    "waterfall": lambda ax: plots.waterfall(ax, steps()),
    "heat": lambda ax: plots.heat(ax, grid(), DRAM, UNITS, "wall_s", 6.5e-3, (2.4e12, 42.0)),
    "curves": lambda ax: plots.curves(ax, lines(), DRAM, "wall_s", "launch",
                                      {"claimed: 2 to 3 TB/s": (2e12, 3e12), "H200": 4.8e12},
                                      {"measured on an H200": 2.7e-3}),
    "lanes": lambda ax: plots.lanes(ax, {
        "H200, eager": timeline(ns.load_workload("paddleocr_vl_decode")),
        "NPU, queue": timeline(ns.load_workload("paddleocr_vl_decode"))}),
    "energy": lambda ax: plots.energy(ax, joules(), ends_of_joules()),
    "pareto": draw_pareto,
    "roofline": lambda ax: plots.roofline(ax, ROOFS, kernels()),
    "tornado": lambda ax: plots.tornado(ax, doubts(), 1.04, {"rule: at most 1.05": 1.05}),
    "build_order": lambda ax: plots.build_order(ax, features()),
}  # fmt: skip


def figure(name, columns=1, height=3.2):
    drawn = Figure(plots.size(columns, height), layout="constrained")
    FigureCanvasAgg(drawn)
    DRAWN[name](drawn.subplots())
    return drawn


def words(drawn, monkeypatch):
    """Return the texts that are drawn (ticks beyond an axis are not), each with its box [pixel]."""
    seen, draw = [], Text.draw

    def noted(self, renderer):
        seen.append(self)
        draw(self, renderer)

    with monkeypatch.context() as patched:
        patched.setattr(Text, "draw", noted)
        drawn.canvas.draw()
    shown = [text for text in seen if text.get_visible() and text.get_text().strip()]
    return [(text.get_text(), Text.get_window_extent(text)) for text in shown]


def svg(name):
    with plots.look():
        drawn = figure(name)
        drawn.savefig(found := io.BytesIO(), format="svg", metadata=dict(plots.SVG))
    return found.getvalue()


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("name", DRAWN)
def test_no_text_leaves_the_figure(name, columns, monkeypatch):
    with plots.look():
        drawn = figure(name, columns)
        shown = words(drawn, monkeypatch)
        width, height = drawn.canvas.get_width_height()
    assert len(shown) > 8
    for text, box in shown:
        assert -1 <= box.x0 <= box.x1 <= width + 1, text
        assert -1 <= box.y0 <= box.y1 <= height + 1, text


@pytest.mark.parametrize("name", ["verdicts", "curves", "pareto", "roofline", "build_order",
                                  "tornado", "waterfall"])  # fmt: skip
def test_words_inside_and_beside_the_axes_do_not_hide_each_other(name):
    with plots.look():
        drawn = figure(name, 2)
        drawn.canvas.draw()
        boxes = [(t.get_text(), Text.get_window_extent(t)) for t in drawn.axes[0].texts]
    assert len(boxes) > 2
    for i, (text, box) in enumerate(boxes):
        for other, another in boxes[i + 1 :]:
            across = min(box.x1, another.x1) - max(box.x0, another.x0)
            up = min(box.y1, another.y1) - max(box.y0, another.y0)
            assert min(across, up) < 2, (text, other)


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_figure_is_the_same_file(name):
    first = svg(name)
    assert first == svg(name)
    assert len(first) < 150_000
    assert b"</text>" in first and b"<dc:date>" not in first


@pytest.mark.parametrize("name", sorted(set(DRAWN) - {"lanes", "heat"}))
def test_axes_of_numbers_name_their_unit(name):
    axes = figure(name).axes[0]
    rows = name in {"verdicts", "waterfall", "energy", "tornado", "build_order"}
    for label in [axes.get_xlabel(), *([] if rows else [axes.get_ylabel()])]:
        assert re.search(r"\[\S+\]$", label), label


def test_a_heat_map_and_its_colour_bar_name_their_units():
    axes, bar = figure("heat").axes
    assert axes.get_xlabel() == f"{DRAM} [TB/s]" and axes.get_ylabel() == f"{UNITS} [1]"
    assert bar.get_ylabel() == "step time [ms]"


# The look


def test_fills_are_told_apart_in_grey():
    found = [style.luminance(colour) for colour in style.FILLS]
    assert (np.diff(found) > 0.12).all()
    assert style.luminance("#FF0000") == pytest.approx(0.299)


def test_neighbours_in_a_stack_differ_in_grey_and_in_hatch():
    stack = [style.fill(i) for i in range(35)]
    shades = np.array([style.luminance(f["facecolor"]) for f in stack])
    assert (np.abs(np.diff(shades)) > 0.2).all()
    assert len({(f["facecolor"], f["hatch"]) for f in stack}) == 35


def test_lines_differ_without_colour():
    assert len({(str(dash), marker) for _, dash, marker in style.LINES}) == len(style.LINES)
    assert all(style.luminance(colour) < 0.55 for colour, _, _ in style.LINES)


def test_heat_maps_get_lighter_all_the_way_and_bear_black_ink():
    found = [style.luminance(colour) for colour in style.shades().colors]
    assert (np.diff(found) > 0).all() and found[0] > 0.35


def test_the_look_ends_with_its_block():
    from matplotlib import rcParams

    before = rcParams["svg.fonttype"]
    with plots.look():
        assert rcParams["svg.fonttype"] == "none"
    assert rcParams["svg.fonttype"] == before


def test_a_figure_is_as_wide_as_one_column_or_two():
    with pytest.raises(InputError, match="not a width of a figure: 3"):
        plots.size(3, 2.0)


# Where labels go


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_labels_are_spread_in_order_and_as_little_as_can_be(places):
    found = placing.spread(places, 0.05, 0.0, 1.0)
    order = np.argsort(places, kind="stable")
    assert (np.diff(found[order]) >= 0.05 - 1e-9).all()
    assert found.min() >= -1e-9 and found.max() <= 1 + 1e-9
    apart = np.diff(np.sort(places))
    if len(places) == 1 or apart.min() >= 0.05:
        np.testing.assert_allclose(found, places, atol=1e-9)


def test_labels_share_the_room_if_there_is_too_little():
    assert placing.spread([0.5] * 3, 0.8, 0.0, 1.0).tolist() == [0.0, 0.5, 1.0]


# Verdicts


def test_a_verdict_is_told_by_the_shape_of_its_marker(ax):
    plots.verdicts(ax, cases())
    marks = {line.get_label(): line for line in ax.get_lines() if line.get_label() in
             ("supported", "undecided", "refuted", "supported in part")}  # fmt: skip
    assert {name: mark.get_marker() for name, mark in marks.items()} == {
        "supported": "o", "undecided": "D", "refuted": "x", "supported in part": "o"}  # fmt: skip
    assert marks["supported"].get_fillstyle() == "full"
    assert marks["supported in part"].get_fillstyle() == "left"
    assert marks["undecided"].get_markerfacecolor() == "white"


def test_each_case_stands_at_its_value_with_its_band(ax):
    plots.verdicts(ax, cases())
    rows = ax.get_yticks()
    for row, (_, case) in zip(rows, cases().iterrows(), strict=True):
        there = [[float(x) for x, y in zip(*line.get_data(), strict=True)
                  if y == row and np.isfinite(x)] for line in ax.get_lines()]  # fmt: skip
        assert [case["low"], case["high"]] in there and [case["value"]] in there


def test_what_a_rule_allows_is_shaded_over_the_rows_of_its_claim_alone(ax):
    plots.verdicts(ax, cases())
    first, second = (c.get_paths()[0].get_extents() for c in ax.collections[:2])
    rows = ax.get_yticks()
    assert first.x1 == pytest.approx(1.05) and second.x1 == pytest.approx(0.5)
    assert (first.y0, first.y1) == (rows[0] - 0.5, rows[1] + 0.5)
    assert (second.y0, second.y1) == (rows[2] - 0.5, rows[3] + 0.5)
    said = [t.get_text() for t in ax.texts]
    assert "≤ 1.05" in said and "≤ 0.5" in said and "half the time" in said


def test_a_rule_without_an_end_on_one_side_reaches_to_the_edge(ax):
    plots.verdicts(ax, cases().iloc[:1].assign(most=np.inf, least=0.9))
    box = ax.collections[0].get_paths()[0].get_extents()
    assert box.x0 == pytest.approx(0.9) and box.x1 == pytest.approx(ax.get_xlim()[1])
    assert [t.get_text() for t in ax.texts if "≤" in t.get_text()] == []


def test_ratios_far_apart_are_drawn_on_a_logarithmic_axis(ax):
    far = cases().iloc[:2].assign(value=[1.0, 20.0], low=[0.9, 18.0], high=[1.1, 22.0])
    assert plots.verdicts(ax, far).get_xscale() == "log"
    assert plots.verdicts(Figure().subplots(), cases()).get_xscale() == "linear"


def test_seconds_are_shown_in_the_unit_in_which_they_read_best(ax):
    few = cases().iloc[:1].assign(value=2e-3, low=1e-3, high=3e-3, most=2.5e-3)
    plots.verdicts(ax, few, "time saved", "s")
    assert ax.get_xlabel() == "time saved [ms]" and "≤ 2.5" in [t.get_text() for t in ax.texts]


def test_verdicts_refuse_what_they_cannot_draw(ax):
    with pytest.raises(InputError, match="not a verdict: 'maybe'"):
        plots.verdicts(ax, cases().assign(verdict="maybe"))
    with pytest.raises(InputError, match="row 1: outside of its own band"):
        plots.verdicts(ax, cases().assign(low=[1.0, 1.08, 0.6, 0.4]))
    with pytest.raises(InputError, match="high, row 2: not a finite number"):
        plots.verdicts(ax, cases().assign(high=[1.04, 1.1, np.nan, 0.6]))
    with pytest.raises(InputError, match="nothing to draw"):
        plots.verdicts(ax, cases().iloc[:0])


# Waterfall


def bars(ax):
    return [p for p in ax.patches if isinstance(p, Rectangle) and p.get_width() > 0]


def test_bars_of_a_waterfall_lead_from_the_first_total_to_the_last(ax):
    plots.waterfall(ax, steps())
    drawn = [p for p in ax.patches if p.get_height() == pytest.approx(0.56)]
    first, *between, last = ((p.get_x(), p.get_width()) for p in drawn)
    assert first == (0, 8.0) and last == (0, 2.75)
    assert first[1] + sum(width for _, width in between) == pytest.approx(last[1])
    ends = [x + width for x, width in between]
    np.testing.assert_allclose(ends, [3.0, 2.5, 2.75])
    assert [t.get_text() for t in ax.texts] == [
        "8 ms", "-5 ms, 2.67x", "-0.5 ms, 1.2x", "+0.25 ms, 0.909x",
        "2.75 ms, 2.91x in all"]  # fmt: skip


def test_a_step_that_takes_longer_is_hatched(ax):
    plots.waterfall(ax, steps())
    hatched = [p.get_hatch() for p in ax.patches if p.get_height() == pytest.approx(0.56)]
    assert hatched == [None, None, None, "////", None]


def test_of_a_total_of_nothing_no_factor_is_told(ax):
    with pytest.raises(InputError, match=r"total_s, row 3: no factor can be told: 0\.0"):
        plots.waterfall(ax, steps().assign(total_s=[8e-3, 3e-3, 2.5e-3, 0.0], low_s=0.0))


# Heat map


def contours(ax):
    """Return the vertices of contours by line width."""
    found = {}
    for drawn in (c for c in ax.collections if hasattr(c, "levels")):
        found.setdefault(float(drawn.get_linewidth()[0]), []).append(
            (float(drawn.levels[0]), np.concatenate(drawn.allsegs[0]))
        )
    return found


def test_contours_lie_where_the_figure_has_their_value(ax):
    plots.heat(ax, grid(), DRAM, UNITS, "wall_s", 6.5e-3)
    found = contours(ax)
    ((level, line),) = found[2.4]
    assert level == pytest.approx(6.5)
    np.testing.assert_allclose(line[:, 0] + line[:, 1] / 10, 6.5, rtol=1e-9)
    assert len(found[0.7]) > 2
    for level, line in found[0.7]:
        np.testing.assert_allclose(line[:, 0] + line[:, 1] / 10, level, rtol=1e-9)


def test_a_limit_that_is_never_crossed_is_told_in_words(ax):
    plots.heat(ax, grid(), DRAM, UNITS, "wall_s", 50e-3)
    assert 2.4 not in contours(ax)
    assert ax.get_title("left") + ax.get_title() == "nowhere above the limit of 50 ms"


def test_the_cell_of_the_nominal_design_is_framed(ax):
    plots.heat(ax, grid(), DRAM, UNITS, "wall_s", nominal=(2.4e12, 42.0))
    (frame,) = ax.patches
    assert frame.get_bbox().extents.tolist() == pytest.approx([1.5, 30.0, 2.5, 50.0])
    with pytest.raises(InputError, match="the nominal design is not on the map: '9'"):
        plots.heat(Figure().subplots(), grid(), DRAM, UNITS, "wall_s", nominal=(9e12, 42.0))


def test_cells_of_a_logarithmic_axis_part_half_the_way_of_its_powers(ax):
    wide = grid().assign(**{DRAM: 1e11 * 4 ** (grid()[DRAM] / 1e12)})
    plots.heat(ax, wide, DRAM, UNITS, "wall_s")
    assert ax.get_xscale() == "log"
    np.testing.assert_allclose(ax.get_xlim(), np.array([2, 2 * 4**5]) / 10, rtol=1e-9)


def test_a_map_needs_one_design_a_cell(ax):
    with pytest.raises(InputError, match="several designs in one cell"):
        plots.heat(ax, pd.concat([grid(), grid()]), DRAM, UNITS, "wall_s")
    with pytest.raises(InputError, match="a grid with holes"):
        plots.heat(ax, grid().iloc[1:], DRAM, UNITS, "wall_s")
    with pytest.raises(InputError, match="too small for a map: '5 x 1'"):
        plots.heat(ax, grid().iloc[:5], DRAM, UNITS, "wall_s")


# Curves


def test_curves_pass_through_their_points_and_fill_their_bands(ax):
    plots.curves(ax, lines(), DRAM, "wall_s", "launch")
    assert ax.get_xscale() == ax.get_yscale() == "log"
    for i, (_, case) in enumerate(lines().groupby("launch", sort=False)):
        np.testing.assert_allclose(ax.get_lines()[i].get_ydata(), case["wall_s"] * 1e3)
        corners = ax.collections[i].get_paths()[0].vertices[:, 1]
        assert corners.min() == pytest.approx(900 * case["wall_s"].min())
        assert corners.max() == pytest.approx(1200 * case["wall_s"].max())


def test_a_case_that_nobody_has_measured_has_no_band_beside_others_that_have(ax):
    table = lines()
    table.loc[table["launch"] == "eager", ["wall_low_s", "wall_high_s"]] = np.nan
    plots.curves(ax, table, DRAM, "wall_s", "launch")
    assert len(ax.get_lines()) == 3 and len(ax.collections) == 2


def test_curves_without_a_band_have_none(ax):
    plots.curves(ax, lines()[["launch", DRAM, "wall_s"]], DRAM, "wall_s", "launch")
    assert len(ax.collections) == 0


def test_lines_that_end_at_one_place_bear_names_that_do_not_hide_each_other():
    table = pd.concat([lines().iloc[5:10].assign(launch=f"case {i}") for i in range(6)])
    with plots.look():
        drawn = Figure(plots.size(1, 2.5), layout="constrained")
        FigureCanvasAgg(drawn)
        plots.curves(drawn.subplots(), table, DRAM, "wall_s", "launch")
        drawn.canvas.draw()
        boxes = sorted((Text.get_window_extent(t).extents for t in drawn.axes[0].texts),
                       key=lambda box: box[1])  # fmt: skip
    assert len(boxes) == 6
    for below, above in pairwise(boxes):
        assert below[3] <= above[1] + 3.5  # of the line, not of the letters


def test_marks_stand_at_their_values(ax):
    DRAWN["curves"](ax)
    (span,) = (p for p in ax.patches if isinstance(p, Rectangle))
    assert (span.get_x(), span.get_x() + span.get_width()) == pytest.approx((2.0, 3.0))
    at = [line.get_xdata()[0] for line in ax.get_lines() if len(set(line.get_xdata())) == 1]
    assert at == pytest.approx([4.8])


def test_curves_refuse_several_designs_at_one_place(ax):
    with pytest.raises(InputError, match="several designs at one place"):
        plots.curves(ax, pd.concat([lines(), lines()]), DRAM, "wall_s", "launch")


# Lanes


def test_lanes_of_a_step_computed_by_hand(workload):
    wall, found = lane_chart.parts(timeline(workload))
    assert wall == pytest.approx(10e-3)
    times = {lane: (1e3 * spans).tolist() for lane, spans in found.items()}
    expected = {
        "host": [[0, 2], [9, 10]],
        "launch": [[0.5, 1], [3.5, 4]],
        "device": [[1, 3], [4, 9]],
        "idle": [[0, 0.5], [3, 3.5], [9, 10]],
    }
    assert list(times) == HOST_LANES
    for lane, spans in expected.items():
        np.testing.assert_allclose(times[lane], spans, err_msg=lane)


def test_a_lane_has_the_area_of_the_time_that_it_works(ax, workload):
    plots.lanes(ax, {"by hand": timeline(workload)})
    assert ax.get_xlabel() == "time from the start of the step [ms]"
    drawn = [p for p in ax.patches if isinstance(p, StepPatch)]
    for patch, took in zip(drawn, (3.0, 1.0, 7.0, 2.0), strict=True):
        top, edges, bottom = patch.get_data()
        area = float(((bottom - top) * np.diff(edges)).sum())
        assert area / lane_chart._HEIGHT == pytest.approx(took)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "host 30.0%", "launch 10.0%", "device 70.0%", "idle 20.0%"]  # fmt: skip


@pytest.mark.parametrize("launch", ["eager", "graph", "queue"])
def test_lanes_agree_with_the_replay(workload, launch):
    h200 = ns.load_arch("h200")
    side = after(workload, h200, launch)
    result = ns.replay(workload, h200, launch)
    walls, spent = [], dict.fromkeys(HOST_LANES, 0.0)
    for step in range(len(side.timeline.steps) - 1):
        wall, found = lane_chart.parts(side.timeline, step)
        walls.append(wall)
        for lane, spans in found.items():
            spent[lane] += float(np.diff(spans).sum())
    count, total = len(walls), sum(walls)
    assert total / count == pytest.approx(result.wall_s)
    assert spent["device"] + spent["launch"] + spent["idle"] == pytest.approx(total)
    assert spent["host"] / count == pytest.approx(result.host_busy_s)
    assert spent["launch"] + spent["idle"] == pytest.approx(count * result.device_idle_s, rel=1e-6)


def test_thousands_of_operations_make_a_small_file(workload):
    side = after(workload, ns.load_arch("h200"), "graph")
    assert len(side.timeline.start) > 2000
    with plots.look():
        drawn = Figure(plots.size(2, 3.0), layout="constrained")
        plots.lanes(drawn.subplots(), {"before": side.timeline, "after": side.timeline})
        drawn.savefig(found := io.BytesIO(), format="svg", metadata=dict(plots.SVG))
    assert len(found.getvalue()) < 200_000


def test_without_times_of_issue_there_is_the_device_alone(ax, workload):
    alone = Timeline(workload, start=[1e-3], end=[3e-3], steps=[0.0, 4e-3])
    plots.lanes(ax, {"device": alone})
    assert [t.get_text() for t in ax.get_yticklabels()] == ["device 50.0%", "idle 50.0%"]


def test_a_step_that_is_not_there_is_refused(ax, workload):
    with pytest.raises(InputError, match=r"no such step: 1 \(allowed: 0 to 0\)"):
        plots.lanes(ax, {"by hand": timeline(workload)}, step=1)


# Energy


def test_blocks_add_up_to_the_total_that_is_written(ax):
    plots.energy(ax, joules(), ends_of_joules())
    for row, (_, blocks) in enumerate(joules().iterrows()):
        stack = [p for p in bars(ax) if p.get_y() + p.get_height() / 2 == pytest.approx(row)]
        assert sum(p.get_width() for p in stack) == pytest.approx(1e3 * blocks.sum())
        right = [p.get_x() + p.get_width() for p in stack]
        np.testing.assert_allclose([p.get_x() for p in stack][1:], right[:-1], atol=1e-9)
        assert f"{1e3 * blocks.sum():.3g} mJ" in [t.get_text() for t in ax.texts]


def test_small_blocks_are_drawn_as_one(ax):
    plots.energy(ax, joules())
    labels = ax.get_legend_handles_labels()[1]
    assert labels[0] == "dram" and labels[-1] == "3 others" and len(labels) == 10


def test_energy_refuses_what_is_none(ax):
    with pytest.raises(InputError, match="not an energy"):
        plots.energy(ax, -joules())
    with pytest.raises(InputError, match="as many bands as designs"):
        plots.energy(ax, joules(), ends_of_joules().iloc[:1])


# Pareto


def test_of_designs_that_cover_each_other_one_is_drawn(ax):
    table = pd.concat([designs()] * 20, ignore_index=True)
    plots.pareto(ax, table, "area_mm2", "wall_s")
    assert len(ax.get_lines()[0].get_xdata()) <= len(designs())
    assert "8,000 designs" in ax.get_legend_handles_labels()[1]


@given(st.lists(st.tuples(st.floats(1, 2), st.floats(1, 2)), min_size=1, max_size=50))
def test_every_design_is_drawn_or_has_a_drawn_one_beside_it(places):
    points = np.array(places)
    kept = thinned(points)
    spans = np.ptp(points, axis=0)
    for point in points:
        assert (np.abs(kept - point) <= spans / 250 + 1e-12).all(axis=1).any()


def test_the_front_is_joined_and_named_designs_are_called_by_name(ax):
    draw_pareto(ax)
    front = ns.pareto(designs(), ["area_mm2", "wall_s"])
    line = next(found for found in ax.get_lines() if "no other beats" in str(found.get_label()))
    np.testing.assert_allclose(line.get_xdata(), front["area_mm2"])
    np.testing.assert_allclose(line.get_ydata(), front["wall_s"] * 1e3)
    assert [t.get_text() for t in ax.texts] == ["nominal", "H200", "fastest"]
    assert len({found.get_marker() for found in ax.get_lines()[-3:]}) == 3
    with pytest.raises(InputError, match="baseline: a design without a figure"):
        plots.pareto(ax, designs(), "area_mm2", "wall_s", named={"baseline": {"wall_s": 1.0}})


# Roofline


def test_a_roof_bends_where_bandwidth_meets_peak(ax):
    plots.roofline(ax, ROOFS, kernels())
    assert ax.get_xscale() == ax.get_yscale() == "log"
    for line, (slope, top) in zip(ax.get_lines(), ROOFS.values(), strict=False):
        x, y = line.get_data()
        assert x[1] == pytest.approx(top / slope)
        assert y[1] == y[2] == pytest.approx(top / 1e12)
        assert y[0] / x[0] == pytest.approx(slope / 1e12)
    assert "H200:" in ax.texts[0].get_text() and "4.8 TB/s" in ax.texts[0].get_text()
    assert len({line.get_linestyle() for line in ax.get_lines()[:3]}) == 3


def test_markers_have_the_area_of_their_share_and_stand_at_their_rate(ax):
    plots.roofline(ax, ROOFS, kernels())
    drawn = {tuple(c.get_offsets()[0]): float(c.get_sizes()[0]) for c in ax.collections}
    assert drawn[1.0, 2.0] / drawn[2.0, 1.0] == pytest.approx(5.0)
    low = ax.get_ylim()[0]
    assert [y for x, y in drawn if x == 0.1] == pytest.approx([low])  # 0.1 MFLOP/s is far below
    assert "1 of 4 kernels, 10.0%" in ax.get_legend().get_title().get_text()


def test_a_roof_needs_rates(ax):
    with pytest.raises(InputError, match="H200: not a roof"):
        plots.roofline(ax, {"H200": (0.0, 1e12)})
    with pytest.raises(InputError, match="a kernel without FLOP"):
        plots.roofline(ax, ROOFS, kernels().assign(flop_rate=0.0))


# Tornado


def test_the_widest_is_on_top_and_what_turns_the_verdict_is_marked(ax):
    plots.tornado(ax, doubts(), 1.04, {"most 1.05": 1.05})
    names = [t.get_text() for t in ax.get_yticklabels()]
    assert names == ["floor.matmul ◆", "memories.dram.efficiency ◆", "launch.queue.submit",
                     "host.speed"]  # fmt: skip
    assert "no effect" in [t.get_text() for t in ax.texts]
    top = [p for p in ax.patches if p.get_height() == pytest.approx(0.6)][:2]
    ends = sorted(p.get_x() + p.get_width() for p in top)
    assert ends == pytest.approx([0.98, 1.09])
    assert top[0].get_hatch() is None and top[1].get_hatch() == "////"
    assert 1.05 in [line.get_xdata()[0] for line in ax.get_lines() if len(line.get_xdata())]


def test_a_tornado_says_how_many_it_leaves_out(ax):
    plots.tornado(ax, doubts(), 1.04, most=2)
    assert len(ax.get_yticklabels()) == 2 and ax.get_title("right") == "2 more move it less"


# Order of building


def test_each_feature_adds_to_what_those_before_reached(ax):
    plots.build_order(ax, features())
    drawn = [p for p in ax.patches if p.get_height() == pytest.approx(0.56)]
    before, added = drawn[::2], drawn[1::2]
    assert [p.get_width() for p in before] == pytest.approx([1.0, 1.9, 2.4, 2.45])
    assert [p.get_x() + p.get_width() for p in added] == pytest.approx([1.9, 2.4, 2.5, 2.45])
    assert [p.get_hatch() for p in added] == ["////", "////", "////", "xxxx"]
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "1. hardware queue\n+0.2 mm2", "2. 4.8 TB/s\n+14.2 mm2", "3. KV SRAM of 8 MB\n+4.5 mm2",
        "4. fused pipelines\nno area"]  # fmt: skip
