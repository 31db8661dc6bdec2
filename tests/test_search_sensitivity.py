"""What moves a figure: Sobol indices of known functions, tornados and knees by hand."""

import math
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

import npusim as ns
from npusim import search_plots
from npusim.axes import Axis
from npusim.errors import InputError
from npusim.job import read_job
from npusim.search.knees import knees
from npusim.search.points import Points
from npusim.search.ranges import Range, ranges
from npusim.search.run import nominal, sensitivity
from npusim.search.sensitivity import sobol
from npusim.search.tornado import tornado
from tests.builder import kernel, timed, workload

NPU = ns.load_arch("decode_npu")


def copying(bytes_=4e8):
    """Return a workload of one kernel that moves bytes, and a pause."""
    return workload(kernel("k", 50.0, kind="pointwise", dtype="fp32", elements=bytes_ / 8,
                           read_activation=bytes_ / 2, write_activation=bytes_ / 2),
                    timed(1e-5), name="copies")  # fmt: skip


# ---------------------------------------------------------------- Sobol indices


def test_indices_of_the_ishigami_function_are_the_known_ones():
    # T. Ishigami, T. Homma, 1990: y = sin x1 + a sin^2 x2 + b x3^4 sin x1, all from -pi to pi
    pytest.importorskip("SALib")
    a, b = 7.0, 0.1
    v1 = 0.5 * (1 + b * math.pi**4 / 5) ** 2
    v2, v13 = a**2 / 8, b**2 * math.pi**8 * (1 / 18 - 1 / 50)
    whole = v1 + v2 + v13
    wanted = {"x1": (v1, v1 + v13), "x2": (v2, v2), "x3": (0.0, v13)}

    def ishigami(t):
        x1, x2, x3 = (t[name].to_numpy() for name in wanted)
        return np.sin(x1) + a * np.sin(x2) ** 2 + b * x3**4 * np.sin(x1)

    even = dict.fromkeys(wanted, Range((-math.pi, math.pi)))
    found = sobol(ishigami, even, samples=4096, seed=1).set_index("axis")
    for name, (first, total) in wanted.items():
        row = found.loc[name]
        assert row["first"] == pytest.approx(first / whole, abs=0.02)
        assert row["total"] == pytest.approx(total / whole, abs=0.02)
        assert abs(row["first"] - first / whole) <= 2 * row["first_conf"]
        assert abs(row["total"] - total / whole) <= 2 * row["total_conf"]
    assert found.index.tolist() == ["x1", "x2", "x3"]


def test_indices_of_a_log_range_a_name_and_a_whole_number():
    pytest.importorskip("SALib")
    varied = {"a": Range((1.0, 1e4), "log"), "b": Range((0.0, 1.0), "names"),
              "c": Range((0.0, 3.0), "linear", True)}  # fmt: skip

    def figure(t):
        assert set(t["b"]) == {0.0, 1.0}
        assert set(t["c"]) == {0.0, 1.0, 2.0, 3.0}
        # variances: of log10 a 16 / 12, of 4 b 16 / 4, of c 15 / 12
        return (np.log10(t["a"]) + 4 * t["b"] + t["c"]).to_numpy()

    found = sobol(figure, varied, samples=1024).set_index("axis")
    whole = 16 / 12 + 4 + 15 / 12
    for name, share in {"a": 16 / 12, "b": 4, "c": 15 / 12}.items():
        assert found.loc[name, "first"] == pytest.approx(share / whole, abs=0.02)
        assert found.loc[name, "total"] == pytest.approx(share / whole, abs=0.02)


def test_an_axis_that_nothing_reads_has_no_index_and_equal_seeds_agree():
    pytest.importorskip("SALib")
    axes = {"memories.dram.bandwidth": [2e12, 3e12], "matrix.fp32.rate": [64, 128],
            "floor.sort": [1e-6, 2e-6]}  # fmt: skip
    points = Points(NPU, list(axes), [copying()])

    def time(t):
        return points(t.assign(launch="queue"))["wall_s"].to_numpy()

    varied = ranges({p: Axis(tuple(map(float, v))) for p, v in axes.items()})
    found = sobol(time, varied, samples=64).set_index("axis")
    assert found.index[0] == "memories.dram.bandwidth"
    assert found.loc["memories.dram.bandwidth", "total"] == pytest.approx(1.0, abs=0.05)
    for name in ("matrix.fp32.rate", "floor.sort"):
        assert found.loc[name, ["first", "total"]].tolist() == [0.0, 0.0]
    again = sobol(time, varied, samples=64).set_index("axis")
    pd.testing.assert_frame_equal(found, again)
    assert not found.equals(sobol(time, varied, samples=64, seed=1).set_index("axis"))


def test_a_figure_that_never_changes_has_no_indices():
    pytest.importorskip("SALib")
    found = sobol(lambda t: np.full(len(t), 3.0), {"a": Range((0.0, 1.0))}, samples=8)
    assert found[["first", "total"]].to_numpy().tolist() == [[0.0, 0.0]]


def test_what_has_no_indices_is_told_in_a_line(monkeypatch):
    pytest.importorskip("SALib")
    one = {"a": Range((0.0, 1.0))}
    with pytest.raises(InputError, match=r"not a number of samples: 100 .allowed: powers of two"):
        sobol(lambda t: t["a"].to_numpy(), one, samples=100)
    with pytest.raises(InputError, match="no axis of the machine"):
        sobol(lambda t: np.ones(len(t)), {}, samples=8)
    with pytest.raises(InputError, match="not a number for some designs"):
        sobol(lambda t: np.where(t["a"] > 0.5, np.nan, 1.0), one, samples=8)
    monkeypatch.setitem(sys.modules, "SALib.analyze", None)
    with pytest.raises(InputError, match=r'needs SALib; pip install "npusim\[search\]"'):
        sobol(lambda t: t["a"].to_numpy(), one, samples=8)


@given(st.integers(0, 50), st.integers(1, 50), st.booleans())
def test_every_whole_number_of_a_range_is_as_likely(low, wide, log):
    low = max(low, 1) if log else low
    span = Range((float(low), float(low + wide)), "log" if log else "linear", True)
    values = span.at(np.linspace(0, 1, 20 * (wide + 1) + 1)[:-1] + 0.5 / (20 * (wide + 1)))
    assert set(values) <= set(map(float, range(low, low + wide + 1)))
    assert (values.min(), values.max()) == (low, low + wide)
    if not log:
        assert set(np.unique(values, return_counts=True)[1]) == {20}


def test_ranges_of_axes():
    found = ranges({
        "units.count": Axis((80.0, 60.0, 70.0)), "memories.l2.capacity": Axis((1e6, 2e8)),
        "memories.victim.capacity": Axis((0.0, 2e8)), "gemv.port": Axis((1.0, 0.0)),
        "memories.dram.bandwidth": Axis((1e12, 2e12), "log"), "host.sync": Axis((1e-6,)),
        "workload.weight_bits": Axis((8.0, 16.0)),
    })  # fmt: skip
    assert found == {
        "units.count": Range((60.0, 80.0), "linear", True),
        "memories.l2.capacity": Range((1e6, 2e8), "log"),
        "memories.victim.capacity": Range((0.0, 2e8), "linear"),
        "gemv.port": Range((1.0, 0.0), "names"),
        "memories.dram.bandwidth": Range((1e12, 2e12), "log"),
    }


# ---------------------------------------------------------------- tornado


def test_a_tornado_is_what_single_designs_take():
    axes = {"floor.sort": Axis((2e-6, 1e-6)), "memories.dram.bandwidth": Axis((2e12, 2.5e12, 3e12)),
            "gemv.port": Axis((1.0, 0.0)), "units.count": Axis((60.0,))}  # fmt: skip
    middle = {"floor.sort": 1e-6, "memories.dram.bandwidth": 2.5e12, "gemv.port": 0.0,
              "units.count": 70.0}  # fmt: skip
    w = copying()
    found = tornado(Points(NPU, list(axes), [w]), axes, middle, "queue", "wall_s")
    assert found["axis"].tolist() == ["memories.dram.bandwidth", "floor.sort", "gemv.port"]
    top = found.iloc[0]

    def alone(value):
        return ns.replay(w, ns.with_value(NPU, "memories.dram.bandwidth", value), "queue").wall_s

    assert (top["low_value"], top["nominal_value"], top["high_value"]) == (2e12, 2.5e12, 3e12)
    figures = [top["low"], top["nominal"], top["high"]]
    assert figures == pytest.approx([alone(2e12), alone(2.5e12), alone(3e12)])
    assert top["swing"] == pytest.approx(alone(2e12) - alone(3e12))
    assert found["swing"][1:].tolist() == [0.0, 0.0]


def test_of_names_the_extremes_count():
    npu = ns.with_value(NPU, "array.rows", 8.0)
    axes = {"array.dataflow": Axis((0.0, 1.0, 2.0))}
    w = ns.load_workload("paddleocr_vl_decode")
    points = Points(npu, list(axes), [w])
    found = tornado(points, axes, {"array.dataflow": 0.0}, "queue", "wall_s").iloc[0]
    times = {v: ns.replay(w, ns.with_value(npu, "array.dataflow", v), "queue").wall_s
             for v in (0.0, 1.0, 2.0)}  # fmt: skip
    assert found["low"] == pytest.approx(min(times.values()))
    assert found["high"] == pytest.approx(max(times.values()))
    assert times[found["high_value"]] == pytest.approx(found["high"])


def test_names_without_effect_are_told_by_name():
    points = Points(NPU, ["array.dataflow"], [copying()])
    found = tornado(points, {"array.dataflow": Axis((0.0, 1.0, 2.0))}, {"array.dataflow": 0.0},
                    "queue", "wall_s").iloc[0]  # fmt: skip
    assert (found["low_value"], found["high_value"], found["swing"]) == (0.0, 2.0, 0.0)


def test_what_no_tornado_can_be_of_is_refused():
    axes = {"units.count": Axis((60.0, 80.0))}
    points = Points(NPU, list(axes), [copying()])
    with pytest.raises(InputError, match="not an objective: 'joules'"):
        tornado(points, axes, {"units.count": 70.0}, "queue", "joules")
    with pytest.raises(InputError, match="no axis with two values"):
        tornado(points, {"units.count": Axis((60.0,))}, {"units.count": 60.0}, "queue", "wall_s")


def test_a_tornado_is_drawn_in_the_unit_of_its_figure():
    table = pd.DataFrame({
        "axis": ["units.count", "host.sync"], "low_value": [60.0, 1e-6],
        "nominal_value": [70.0, 2e-6], "high_value": [80.0, 3e-6], "low": [2e-3, 1.8e-3],
        "nominal": 1.8e-3, "high": [1.7e-3, 1.8e-3], "swing": [3e-4, 0.0],
    })  # fmt: skip
    ax = search_plots.tornado(Figure().subplots(), table)
    assert ax.get_xlabel() == "wall_s [ms]"
    assert [label.get_text() for label in ax.get_yticklabels()] == ["units.count"]
    assert [text.get_text() for text in ax.texts] == ["60", "80"]
    assert ax.get_title(loc="left") == "no effect: host.sync"
    bars = [(bar.get_x(), bar.get_width()) for bar in ax.patches[:2]]
    assert bars == [pytest.approx((1.8, 0.2)), pytest.approx((1.8, -0.1))]


# ---------------------------------------------------------------- of a job


def test_the_nominal_machine_gives_what_it_has_and_axes_the_rest():
    job = read_job("decode_npu", ["paddleocr_vl_decode"], [], {"workload.weight_bits": 8.0})
    found = nominal(job)
    assert found["units.count"] == 70.0
    assert found["workload.weight_bits"] == 8.0
    felt = sensitivity(job, "energy_j", samples=0)
    changed = ns.load_workload("paddleocr_vl_decode")
    space = ns.Space(NPU, {"workload.weight_bits": [8.0]}, ["queue"])
    assert felt.nominal == pytest.approx(ns.sweep(space, changed)["energy_j"][0])
    assert felt.launch == "queue"


# ---------------------------------------------------------------- knees


def front(*points):
    return pd.DataFrame(points, columns=["wall_s", "cost"])


def test_a_right_angle_has_its_knee_in_the_corner():
    table = front((1, 100), (1.01, 10), (1.02, 1.02), (10, 1.01), (100, 1))
    found = knees(table, ["wall_s", "cost"])
    assert found.index.tolist() == [2]
    assert found["knee"].iloc[0] == pytest.approx(1 / math.sqrt(2), abs=0.02)


def test_two_bends_are_two_knees():
    # between the bends the front comes near its chord, or behind it
    for between, default in (((12, 60), [4]), ((40, 90), [4, 1])):
        table = front((1, 1000), (2, 110), (3, 100), between, (80, 2), (1000, 1))
        assert knees(table, ["wall_s", "cost"]).index.tolist() == default
        found = knees(table, ["wall_s", "cost"], sensitivity=0.5)
        assert found.index.tolist() == [4, 1]
        assert found["knee"].is_monotonic_decreasing


def test_lines_and_fronts_that_bend_the_other_way_have_none():
    line = front(*((10.0**i, 10.0**-i) for i in range(5)))
    assert knees(line, ["wall_s", "cost"]).empty
    outward = front((1, 100), (50, 99), (100, 1))
    assert knees(outward, ["wall_s", "cost"]).empty
    assert knees(front((1, 2), (2, 1)), ["wall_s", "cost"]).empty
    assert knees(front((1, 1)), ["wall_s", "cost"]).empty


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), min_size=1, max_size=30),
       st.floats(0.01, 100))  # fmt: skip
def test_knees_lie_on_the_front_and_do_not_hang_on_units(points, unit):
    table = front(*points).round(3)
    found = knees(table, ["wall_s", "cost"])
    fair = ~table.duplicated()
    for _, row in found.iterrows():
        assert not ((table["wall_s"] < row["wall_s"]) & (table["cost"] < row["cost"])).any()
        assert 0 < row["knee"] <= 1 / math.sqrt(2) + 1e-9
    scaled = table.assign(cost=table["cost"] * unit)
    if fair.all() and len(found):
        far = found["knee"].max()
        best = knees(scaled, ["wall_s", "cost"])
        assert best["knee"].max() == pytest.approx(far, rel=1e-6)


def test_objectives_that_reach_zero_are_taken_as_they_are():
    table = front((1, 10), (1.5, 1), (10, 0))
    found = knees(table, ["wall_s", "cost"])
    assert found.index.tolist() == [1]
    x, y = math.log(1.5) / math.log(10), 0.1
    assert found["knee"].iloc[0] == pytest.approx((1 - x - y) / math.sqrt(2))


def test_knees_need_two_objectives():
    with pytest.raises(InputError, match="knees are of two objectives"):
        knees(front((1, 1)), ["wall_s"])
