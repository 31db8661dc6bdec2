"""Figures: what is drawn where, with which unit, and what is said in words."""

from __future__ import annotations

import subprocess
import sys
from itertools import product

import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.legend import Legend

import npusim as ns
from npusim import figures, plots
from npusim.arch import Designs
from npusim.compare import error_of, kernel_errors, measured
from npusim.errors import InputError
from npusim.models.roofline import ridge_point
from npusim.workload import KINDS, Workload

DRAM, UNITS, CLOCK = "memories.dram.bandwidth", "units.count", "units.clock"
AXES = [DRAM, UNITS, CLOCK]


@pytest.fixture(scope="module")
def workload():
    return ns.load_workload("paddleocr_vl_decode")


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


@pytest.fixture(scope="module")
def npu():
    return ns.load_arch("decode_npu")


@pytest.fixture
def ax():
    return Figure().subplots()


def designs(**changes):
    """Return a grid whose time depends on bandwidth and launch, and not on units or clock."""
    grid = product(["graph", "queue"], [2e12, 2.5e12, 3e12], [60.0, 70.0])
    table = pd.DataFrame(grid, columns=["launch", DRAM, UNITS]).assign(**{CLOCK: 1.8e9})
    wall = table["launch"].map({"graph": 2e-3, "queue": 1e-3}) + 1e9 / table[DRAM]
    return table.assign(wall_s=wall, wall_low_s=0.9 * wall, wall_high_s=1.3 * wall).assign(
        **changes
    )


def nominal(table, launch="queue"):
    held = (table["launch"] == launch) & (table[DRAM] == 2.5e12) & (table[UNITS] == 70)
    return table[held].iloc[0]


def points(ax):
    """Return the coordinates of all scattered points."""
    groups = (c for c in ax.collections if isinstance(c, PathCollection))
    return np.concatenate([np.empty((0, 2)), *(c.get_offsets() for c in groups)])


def line(ax, label):
    return next(found for found in ax.get_lines() if found.get_label().startswith(label))


def words(ax):
    return [text.get_text() for text in ax.texts]


def part_of(workload, keep, name="part"):
    columns = {c: values[keep] for c, values in workload.columns.items()}
    return Workload(name, columns, workload.labels, workload.steps, meta=workload.meta)


def test_roofline_axes_carry_units(ax, workload, h200):
    plots.roofline(ax, workload, h200)
    assert ax.get_xlabel().endswith("[FLOP/B]") and ax.get_ylabel().endswith("[TFLOP/s]")
    assert ax.get_xscale() == ax.get_yscale() == "log"


def test_roofline_draws_each_distinct_operation_with_flop_once(ax, workload, h200):
    plots.roofline(ax, workload, h200)
    rows, inverse = workload.unique()
    with_flop = np.unique(inverse[workload.classified & (workload["flop"] > 0)])
    assert len(points(ax)) == len(with_flop) < len(rows)


def test_roofline_places_a_kernel_at_its_intensity_and_mean_rate(ax, workload, h200):
    inverse = workload.unique()[1]
    commonest = np.bincount(inverse[workload["flop"] > 0]).argmax()
    same = np.flatnonzero(inverse == commonest)
    assert len(same) > 1
    plots.roofline(ax, part_of(workload, same), h200)
    flop = workload["flop"][same]
    expected = (
        flop[0] / workload.bytes_moved[same[0]],
        flop.sum() / workload["duration_s"][same].sum() / 1e12,
    )
    np.testing.assert_allclose(points(ax), [expected])


def test_the_sustained_roof_bends_at_the_ridge_point(ax, workload, h200, npu):
    plots.roofline(ax, workload, h200, [npu])
    for arch, name in ((h200, "NVIDIA H200 SXM, sustained"), (npu, "Decode NPU, sustained")):
        x, y = line(ax, name).get_data()
        ridge = float(ridge_point(Designs(arch), "bf16")[0])
        assert x[1] == pytest.approx(ridge)
        assert y[1] == y[2] == pytest.approx(x[1] * y[0] / x[0])
        assert f"ridge {ridge:.3g} FLOP/B" in line(ax, name).get_label()


def test_the_datasheet_roof_is_dashed_and_above_the_sustained_one(ax, workload, h200):
    plots.roofline(ax, workload, h200)
    sheet, sustained = line(ax, "NVIDIA H200 SXM, data"), line(ax, "NVIDIA H200 SXM, sust")
    assert (sheet.get_linestyle(), sustained.get_linestyle()) == ("--", "-")
    assert (sheet.get_ydata()[[0, 2]] > sustained.get_ydata()[[0, 2]]).all()


def test_roofline_says_how_much_time_it_cannot_draw(ax, workload, h200):
    plots.roofline(ax, workload, h200)
    share = np.average(workload["flop"] == 0, weights=workload["duration_s"])
    assert f"not drawn: {share:.1%} without FLOP" in ax.get_title()


def test_a_workload_without_flop_still_has_roofs(ax, workload, h200):
    plots.roofline(ax, part_of(workload, workload["flop"] == 0), h200)
    assert "not drawn: 100.0%" in ax.get_title()
    assert len(points(ax)) == 0 and len(ax.get_lines()) >= 4
    ax.figure.draw_without_rendering()


def test_a_machine_without_matrix_unit_has_a_vector_roof(ax, workload, h200):
    kept = (p for p in h200.provenance if not p.startswith("matrix.") or p.count(".") == 1)
    plain = ns.Arch("plain", "Plain", {p: h200[p] for p in kept}, {})
    plots.roofline(ax, workload, plain)
    assert "matrix" not in line(ax, "Plain, sustained").get_label()


def test_dollar_signs_in_a_name_are_not_read_as_formulas(ax, workload, h200):
    plots.roofline(ax, part_of(workload, slice(None), r"a$\bad$"), h200)
    ax.figure.draw_without_rendering()
    assert r"a$\bad$" in ax.get_title()


def test_latency_cost_labels_path_and_unit(ax):
    plots.latency_cost(ax, designs(), DRAM)
    assert (ax.get_xlabel(), ax.get_ylabel()) == (f"{DRAM} [TB/s]", "step time [ms]")


def test_identical_points_are_drawn_once_and_distinct_ones_all(ax):
    table = designs()
    plots.latency_cost(ax, table, DRAM)
    expected = {(d / 1e12, w * 1e3) for d, w in zip(table[DRAM], table["wall_s"], strict=True)}
    drawn = points(ax)
    assert len(drawn) == len(expected) == 6
    np.testing.assert_allclose(sorted(map(tuple, drawn)), sorted(expected))


def test_the_front_line_passes_through_the_points_of_the_front(ax):
    table = designs()
    front = ns.pareto(table, ["wall_s", DRAM])
    plots.latency_cost(ax, table, DRAM, front)
    found = line(ax, "fastest at its cost")
    assert found.get_drawstyle() == "steps-post"
    on_line = {(round(x, 9), round(y, 9)) for x, y in zip(*found.get_data(), strict=True)}
    for _, row in front.iterrows():
        assert (round(row[DRAM] / 1e12, 9), round(row["wall_s"] * 1e3, 9)) in on_line


def test_the_front_line_never_rises_and_leaves_out_what_is_beaten_in_this_plane(ax):
    table = designs()
    plots.latency_cost(ax, table, DRAM, table)
    times = line(ax, "fastest at its cost").get_ydata()
    assert (np.diff(times) <= 0).all()
    assert max(times) <= table.loc[table["launch"] == "queue", "wall_s"].max() * 1e3


def test_a_front_of_one_point_reaches_the_end_of_the_axis(ax):
    table = designs()
    plots.latency_cost(ax, table, UNITS, table.loc[[table["wall_s"].idxmin()]])
    assert line(ax, "fastest at its cost").get_xdata().tolist() == [60, 70]


def test_the_band_of_the_front_spans_low_to_high(ax):
    table = designs()
    plots.latency_cost(ax, table, DRAM, table.iloc[[6]])
    (band,) = [c for c in ax.collections if c.get_label() == "its error band"]
    ends = band.get_paths()[0].vertices[:, 1]
    np.testing.assert_allclose(ends, table["wall_s"].iloc[6] * 1e3 * np.array([0.9, 1.3]))


def test_a_front_without_a_band_has_none(ax):
    table = designs(wall_low_s=np.nan, wall_high_s=np.nan)
    plots.latency_cost(ax, table, DRAM, table.iloc[[6]])
    assert all(c.get_label() != "its error band" for c in ax.collections)


@pytest.mark.parametrize(("baseline", "scale"), [(3e-3, "linear"), (60e-3, "log")])
def test_time_is_logarithmic_where_it_differs_more_than_five_times(ax, baseline, scale):
    plots.latency_cost(ax, designs(), DRAM, baselines=[("H200", baseline)])
    assert ax.get_yscale() == scale
    assert line(ax, "H200").get_ydata()[0] == pytest.approx(baseline * 1e3)


def test_launch_modes_differ_in_marker(ax):
    plots.latency_cost(ax, designs(), DRAM)
    shapes = {tuple(c.get_paths()[0].vertices.ravel()) for c in ax.collections}
    assert len(shapes) == 2
    assert {"graph", "queue"} <= set(ax.get_legend_handles_labels()[1])


def test_a_colour_has_a_bar_with_its_unit(ax):
    plots.latency_cost(ax, designs(), UNITS, colour=DRAM)
    bar = next(other for other in ax.figure.axes if other is not ax)
    assert bar.get_xlabel() == f"{DRAM} [TB/s]"
    assert len(points(ax)) == 2 * 3 * 2


@pytest.mark.parametrize("cost", AXES)
def test_a_single_design_can_be_drawn(ax, cost):
    one = designs().iloc[[0]]
    plots.latency_cost(ax, one, cost, one, reference=one.iloc[0])
    ax.figure.draw_without_rendering()
    assert len(points(ax)) == 1


def test_effects_hold_all_other_axes_at_the_reference():
    found = plots.effects(designs(), AXES, nominal(designs()))
    base = 1e-3 + 1e9 / 2.5e12
    assert found[DRAM].index.tolist() == [3e12, 2.5e12, 2e12]
    np.testing.assert_allclose(found[DRAM][2e12], (1e-3 + 1e9 / 2e12) / base - 1)
    np.testing.assert_allclose(found["launch"]["graph"], 1e-3 / base)


def test_a_reference_between_swept_values_takes_the_nearest():
    table = designs()
    between = nominal(table).replace({2.5e12: 2.6e12})
    assert plots.effects(table, AXES, between)[DRAM][2.5e12] == 0


def test_the_design_at_zero_is_the_nearest_that_was_swept():
    table = designs()
    between = nominal(table).replace({2.5e12: 2.7e12})
    assert plots.nearest(table, AXES, between)[DRAM] == 2.5e12
    titles = [figures._axis_effects(table, AXES, at).axes[0].get_title()
              for at in (nominal(table), between)]  # fmt: skip
    assert titles[0].endswith("0 is the nominal design: 1.4 ms, launch queue")
    assert titles[1].endswith("0 is the design nearest to the nominal one: 1.4 ms, launch queue")


def test_a_launch_mode_in_which_more_axes_count_has_a_panel_of_its_own():
    table = designs()
    assert len(figures._axis_effects(table, AXES, nominal(table)).axes) == 1
    of_graph = (table["launch"] == "graph") & (table[UNITS] == 60)
    table.loc[of_graph, "wall_s"] *= 1.5
    figure = figures._axis_effects(table, AXES, nominal(table))
    titles = [panel.get_title() for panel in figure.axes]
    assert [t.rsplit(maxsplit=1)[1] for t in titles] == ["queue", "graph"]
    assert any(text.startswith("60  +50%") for text in words(figure.axes[1]))


def test_axis_effects_are_sorted_and_labelled(ax):
    plots.axis_effects(ax, designs(), AXES, nominal(designs()))
    assert ax.get_xlabel() == "change of the time [%], slower hatched"
    names = [label.get_text() for label in ax.get_yticklabels()]
    assert names[::-1][:2] == ["launch", DRAM]
    assert any(text.startswith("3 TB/s  -") for text in words(ax))
    assert any(text.startswith("2 TB/s  +7.1%") for text in words(ax))


def test_effects_on_another_figure_than_time(ax):
    table = designs()
    table = table.assign(energy_j=table[UNITS] / table[UNITS].min())  # a joule for the fewest units
    few = table[UNITS].min()
    found = plots.effects(table, AXES, nominal(table), "energy_j")
    assert found[UNITS].index[0] == few
    assert found[UNITS][few] == pytest.approx(few / nominal(table)[UNITS] - 1)
    plots.axis_effects(ax, table, AXES, nominal(table), "energy_j")
    assert ax.get_xlabel() == "change of energy_j [%], more of it hatched"
    title = figures._axis_effects(table, AXES, nominal(table), "energy_j").axes[0].get_title()
    joules = nominal(table)[UNITS] / few
    assert f"0 is the nominal design: {joules:.4g} J, launch queue" in title


def test_an_axis_without_effect_is_named_and_so_is_one_of_one_value(ax):
    plots.axis_effects(ax, designs(), AXES, nominal(designs()))
    assert words(ax).count("no effect here") == 1  # units
    assert "1.8 GHz only" in words(ax)


def test_a_bar_that_is_cut_says_so_with_its_true_length(ax):
    table = designs()
    table.loc[table["launch"] == "graph", "wall_s"] *= 100
    plots.axis_effects(ax, table, AXES, nominal(table))
    change = 100 * (100 * (2e-3 + 4e-4) / (1e-3 + 4e-4) - 1)
    assert f"graph  +{change:.0f}% (bar cut)" in words(ax)
    assert ax.get_xlim()[1] < change


def test_designs_that_never_differ_in_one_axis_alone_are_no_error(ax):
    table = designs().iloc[[0, 9]]
    plots.axis_effects(ax, table, [DRAM, UNITS], designs().iloc[3])
    assert "no two designs differ in it alone" in words(ax)


def test_predicted_measured_axes_carry_units_and_errors(ax, workload, h200):
    errors = kernel_errors(workload, h200)
    plots.predicted_measured(ax, errors)
    assert ax.get_xlabel().endswith("[µs]") and ax.get_ylabel().endswith("[µs]")
    e = error_of(errors)
    for part in (f"{e.median_ape:.0%} median", f"{e.p90_ape:.0%} p90", f"{e.busy_error:+.1%}"):
        assert part in ax.get_title()


def test_operations_of_one_kernel_and_prediction_are_one_point_at_the_median(ax):
    rows = [("a", "gemm", 1e-6), ("a", "gemm", 2e-6), ("a", "gemm", 9e-6), ("b", "cast", 3e-6)]
    errors = pd.DataFrame(rows, columns=["kernel", "kind", "measured_s"])
    plots.predicted_measured(ax, errors.assign(predicted_s=2e-6))
    np.testing.assert_allclose(sorted(map(tuple, points(ax))), [(2, 2), (3, 2)])


def test_every_kind_has_a_place_and_groups_differ_in_marker(ax):
    errors = pd.DataFrame({"kernel": KINDS, "kind": KINDS})
    plots.predicted_measured(ax, errors.assign(predicted_s=1e-6, measured_s=2e-6))
    assert len(points(ax)) == len(KINDS)
    groups = [c for c in ax.collections if isinstance(c, PathCollection)]
    assert len({tuple(c.get_paths()[0].vertices.ravel()) for c in groups}) == len(groups) == 6


def test_no_operation_to_compare_is_said(ax, workload, h200):
    plots.predicted_measured(ax, kernel_errors(workload, h200).iloc[:0])
    assert ax.get_title() == "no operation whose shapes are known"
    ax.figure.draw_without_rendering()


NAMES = ["latency_cost.png", "axis_effects.png", "roofline.png", "predicted_measured.png"]


def swept(npu, workloads, axes, launch=("graph", "queue")):
    space = ns.Space(npu, axes, launch)
    table = ns.sweep(space, workloads)
    return table, table.iloc[-1]


@pytest.mark.parametrize(("names", "axes", "launch", "costs"), [
    (["paddleocr_vl_decode"], {DRAM: [2e12, 3e12], UNITS: [60, 80]}, ["graph", "queue"], [DRAM]),
    (["paddleocr_vl_vision"], {DRAM: [2.5e12]}, ["queue"], []),
    (["paddleocr_vl_decode", "paddleocr_vl_prefill"],
     {DRAM: [2e12, 3e12], "floor.pointwise": [1e-7, 1e-6], "host.speed": [0.5, 1], UNITS: [60],
      CLOCK: [1e9, 2e9]}, ["eager", "queue"], None),
])  # fmt: skip
def test_figures_are_whole_and_nothing_is_cut_off(
    tmp_path, npu, monkeypatch, names, axes, launch, costs
):
    loaded = [ns.load_workload(name) for name in names]
    table, reference = swept(npu, loaded, axes, launch)
    kept, save = [], Figure.savefig

    def keep(figure, *args, **options):
        kept.append((figure, options["dpi"]))
        save(figure, *args, **options)

    monkeypatch.setattr(Figure, "savefig", keep)
    drawn = list(axes) if costs is None else costs
    written = figures.save_sweep_figures(
        tmp_path / "new", table, npu, loaded, drawn, list(axes), reference
    )
    assert [path.name for path in written] == NAMES
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == sorted(NAMES)
    for path in written:
        content = path.read_bytes()
        assert content.startswith(b"\x89PNG") and content.rstrip().endswith(b"IEND\xaeB`\x82")
    for figure, dpi in kept:
        figure.set_dpi(dpi)  # as in the file: at another one ticks and their labels differ
        figure.draw_without_rendering()
        drawn, (width, height) = figure.get_tightbbox(), figure.get_size_inches()
        assert min(drawn.x0, drawn.y0) > -0.01
        assert drawn.x1 < width + 0.01 and drawn.y1 < height + 0.01
        for legend in figure.findobj(Legend):  # a clipped one does not count above
            box = legend.get_window_extent()
            assert min(box.x0, box.y0) > -1
            assert box.x1 < figure.bbox.x1 + 1 and box.y1 < figure.bbox.y1 + 1


def test_a_trace_of_an_unknown_machine_has_no_roofline(tmp_path, npu, workload):
    parts = workload.columns, workload.labels, workload.steps
    stranger = Workload("mine", *parts, meta={"device": "X1"})
    table, reference = swept(npu, stranger, {DRAM: [2e12, 3e12]})
    written = figures.save_sweep_figures(tmp_path, table, npu, [stranger], [], [DRAM], reference)
    assert [path.name for path in written] == NAMES[:2]


def test_measured_times_of_the_workload_are_named_and_profiled_ones_replaced(
    tmp_path, npu, workload, monkeypatch
):
    labels, real = [], plots.latency_cost

    def spy(ax, table, cost, front, baselines, *rest):
        labels.extend(label for label, _ in baselines)
        return real(ax, table, cost, front, baselines, *rest)

    monkeypatch.setattr(plots, "latency_cost", spy)
    table, reference = swept(npu, workload, {DRAM: [2e12, 3e12]})
    figures.save_sweep_figures(tmp_path, table, npu, [workload], [DRAM], [DRAM], reference)
    eager = 1e3 * next(
        m.value_s
        for m in measured(workload)
        if not m.traced and m.label == "NVIDIA H200, eager, wall"
    )
    assert f"H200 eager (measured, unprofiled): {eager:.4g} ms" in labels
    assert any(label.startswith("H200 graph (measured") for label in labels)
    assert sum(label.startswith("H200 eager") for label in labels) == 1
    labels.clear()
    figures.save_sweep_figures(tmp_path, table, npu, [workload], [DRAM], [DRAM], reference, [10])
    assert f"H200 eager (measured, unprofiled): {10 * eager:.4g} ms" in labels


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path, npu, workload):
    (tmp_path / "file").write_text("")
    table, reference = swept(npu, workload, {DRAM: [2e12, 3e12]})
    below = tmp_path / "file" / "x"
    with pytest.raises(InputError):
        figures.save_sweep_figures(below, table, npu, [workload], [DRAM], [DRAM], reference)


def test_drawing_needs_no_pyplot():
    code = "import sys, npusim.figures; sys.exit('matplotlib.pyplot' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_an_axis_of_one_launch_mode_alone_leaves_effects_of_the_others():
    """In graphs the interval is off and has the nominal value, which no queue was swept at."""
    table = designs()
    late = table["launch"].map({"graph": 1e-7, "queue": 2e-7})
    table = pd.concat(
        [table.assign(late=late), table[table["launch"] == "queue"].assign(late=3e-7)]
    )
    table = table.reset_index(drop=True)
    at = nominal(table).replace({2e-7: 1e-7})
    held = figures._held(table, [DRAM, UNITS, "late"], at)
    assert (held["launch"], held["late"], held[DRAM], held[UNITS]) == ("queue", 2e-7, 2.5e12, 70)
    assert plots.effects(table, [DRAM, UNITS, "late"], held)[DRAM].index.tolist() == [
        3e12, 2.5e12, 2e12
    ]  # fmt: skip


def test_samples_hold_the_sample_nearest_to_the_nominal_design():
    drawn = pd.DataFrame({DRAM: [2.1e12, 2.9e12, 2.4e12], UNITS: [61.0, 70.0, 69.0]})
    modes = [drawn.assign(launch=mode, wall_s=wall) for mode, wall in
             (("graph", 2e-3), ("queue", 1e-3))]  # fmt: skip
    table = pd.concat(modes, ignore_index=True)
    held = figures._held(table, [DRAM, UNITS], nominal(designs()))
    assert (held[DRAM], held[UNITS], held["launch"]) == (2.4e12, 69, "queue")
    panel = figures._axis_effects(table, [DRAM, UNITS], nominal(designs())).axes[0]
    assert any(text.startswith("graph  +100%") for text in words(panel))
    assert "0 is the design nearest to the nominal one: 1 ms, launch queue" in panel.get_title()


def test_an_axis_that_is_off_somewhere_does_not_hide_the_others():
    table = designs()
    table["gemv.count"] = 0.0
    wide = table.assign(**{"gemv.count": 70.0, "gemv.width": 32.0, "wall_s": table["wall_s"] / 2})
    table = pd.concat([table.assign(**{"gemv.width": np.nan}), wide], ignore_index=True)
    axes = [DRAM, UNITS, "gemv.count", "gemv.width"]
    for own in (np.nan, 32.0):
        at = pd.concat([nominal(designs()), pd.Series({"gemv.count": 0.0, "gemv.width": own})])
        shown = words(figures._axis_effects(table, axes, at).axes[0])
        assert any(text.startswith("70  -50%") for text in shown)
        assert any(text.startswith("2 TB/s  +7.1%") for text in shown)


def test_designs_without_a_cost_are_not_drawn_and_close_values_not_all_named(ax):
    table = designs(area_mm2=np.nan)
    table.loc[:3, "area_mm2"] = [400.0, 401.0, 402.0, 500.0]
    panel = Figure().subplots()
    at = pd.concat([nominal(designs()), pd.Series({"area_mm2": np.nan})])
    figures._draw_line([panel], ["area_mm2"], table, [], [], at)
    assert len(points(panel)) == 4
    assert len(panel.xaxis.get_major_locator().tick_values(400, 500)) > 4
    assert not any(found.get_label() == "nominal design" for found in panel.get_lines())


def test_a_nominal_machine_without_allowed_designs_or_energy_has_the_other_figures(
    tmp_path, npu, workload
):
    table, reference = swept(npu, workload, {DRAM: [2e12, 3e12]})
    table, reference = table.drop(columns="energy_j"), reference.drop("energy_j")
    nothing = table.assign(allowed=False, energy_j=np.nan)
    rest = (npu, [workload], ["energy_j", DRAM], [DRAM], reference)
    made = figures.save_sweep_figures(tmp_path, nothing, *rest)
    assert not {"latency_cost.png", "axis_effects_energy_j.png"} & {file.name for file in made}
    assert (tmp_path / "axis_effects.png").is_file()
    made = figures.save_sweep_figures(tmp_path, nothing.assign(allowed=True), *rest)
    assert "latency_cost.png" in {file.name for file in made}


def test_samples_of_a_capacity_draw_no_traffic(tmp_path, npu, workload):
    path = "memories.l2.capacity"
    space = ns.Space(npu, {path: ns.Axis((64e6, 128e6), "linear", steps=False), DRAM: ns.Axis(
        (2e12, 3e12), "linear", steps=False)}, samples=ns.Samples(4))  # fmt: skip
    table = ns.sweep(space, workload)
    made = figures.save_sweep_figures(tmp_path, table, npu, [workload], [DRAM], [path, DRAM],
                                      table.iloc[0])  # fmt: skip
    assert "dram_traffic_l2.png" not in {file.name for file in made}


@pytest.mark.parametrize(("whole", "said"), [(True, "; 6 designs that"), (False, "; designs that")])
def test_a_sample_of_designs_does_not_count_those_left_out(workload, whole, said):
    table = designs()
    table["allowed"] = table[UNITS] == 70
    at = nominal(table)
    title = figures._latency_cost(table, [(workload, 1)], [DRAM], [DRAM], at, whole).get_suptitle()
    assert f"{said} break a constraint are left out" in title.replace("\n", " ")
    assert ("a sample of the designs" in title.replace("\n", " ")) is not whole
