"""Searches: points as a sweep has them, each once; NSGA-II and refinement find known fronts."""

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.axes import Axis, Condition
from npusim.constraints import Constraint
from npusim.errors import InputError
from npusim.search import points as points_module
from npusim.search.choices import Choices
from npusim.search.limits import Limits
from npusim.search.nsga2 import judged, nsga2
from npusim.search.points import Points
from npusim.search.refine import refine
from npusim.sweeps.front import pareto
from npusim.sweeps.run import sweep
from tests.builder import kernel, timed, workload

NPU = ns.load_arch("decode_npu")


def products(count=2):
    """Return a workload of products that wait for DRAM, and a pause."""
    made = [
        kernel("gemv", 50.0, kind="gemv", dtype="bf16", batch=1, m=1, n=n, k=8192,
               flop=2 * n * 8192, read_weight=2.0 * n * 8192, read_activation=2.0 * 8192,
               write_activation=2.0 * n)
        for n in (1024, 8192, 4096)[:count]
    ]  # fmt: skip
    return workload(*made, timed(2e-5), name="decode")


def every(choices):
    """Return all lists of places."""
    grids = np.meshgrid(*(np.arange(size) for size in choices.sizes), indexing="ij")
    return np.column_stack([grid.reshape(-1) for grid in grids])


# ---------------------------------------------------------------- points


def test_points_are_the_rows_of_a_sweep():
    w = ns.load_workload("paddleocr_vl_decode")
    axes = {"units.count": [60, 80], "workload.weight_bits": [8, 16], "host.sync": [1e-6, 3e-6]}
    space = ns.Space(NPU, axes, ["graph", "queue"])
    wanted = sweep(space, w)
    rows = wanted[["launch", *axes]].sample(frac=1, random_state=1)
    found = Points(NPU, list(axes), [w])(rows)
    assert list(found.columns) == list(wanted.columns)
    pd.testing.assert_frame_equal(found, wanted.loc[rows.index].reset_index(drop=True), rtol=1e-12)


def test_choices_of_a_space_with_conditions_and_machines_are_its_designs():
    other = ns.load_arch("h200")
    on = {"gemv.count": Condition(least=1.0)}
    axes = {"gemv.count": [0, 70], "gemv.width": Axis((32.0, 64.0), when=on),
            "host.sync": Axis((1e-6, 3e-6), when={"launch": Condition(("eager",))})}  # fmt: skip
    space = ns.Space(NPU, axes, ["eager", "queue"], beside=[other])
    wanted = sweep(space, products())
    choices = Choices.of(space)
    points = Points(space.archs, list(axes), [products()])
    found = points(choices.points(every(choices)))
    assert len(choices) == 2 * 2 * 2 * 2 * 2 > len(points) == len(space) == len(wanted)
    columns = ["arch", "launch", *axes, "wall_s"]
    assert sorted(map(str, found[columns].drop_duplicates().to_numpy().tolist())) == sorted(
        map(str, wanted[columns].to_numpy().tolist())
    )


def test_each_distinct_point_is_evaluated_once(monkeypatch):
    evaluated, own = [], points_module.evaluate

    def counted(designs, *args, **more):
        evaluated.append(len(designs))
        return own(designs, *args, **more)

    monkeypatch.setattr(points_module, "evaluate", counted)
    points = Points(NPU, ["units.count", "workload.weight_bits"],
                    [ns.load_workload("paddleocr_vl_decode")])  # fmt: skip
    rows = pd.DataFrame({"launch": ["queue", "graph", "queue", "queue"],
                         "units.count": [60.0, 60.0, 60.0, 80.0],
                         "workload.weight_bits": [8.0, 8.0, 8.0, np.nan]})  # fmt: skip
    first = points(rows)
    assert (sum(evaluated), len(evaluated), len(points)) == (3, 3, 3)
    assert first.iloc[0].equals(first.iloc[2])
    again = points(pd.concat([rows, rows.assign(launch="eager").iloc[:1]]))
    assert (sum(evaluated), len(points.table)) == (4, 4)
    pd.testing.assert_frame_equal(again.iloc[:4], first)
    assert points.known(rows) == [True] * 4


def test_no_number_leaves_the_workload_as_it_is():
    w = ns.load_workload("paddleocr_vl_decode")
    points = Points(NPU, ["workload.weight_bits"], [w])
    found = points(pd.DataFrame({"launch": "queue", "workload.weight_bits": [np.nan, 16.0, 8.0]}))
    assert found["workload.weight_bits"].tolist() == [16.0, 16.0, 8.0]
    assert found["wall_s"][0] == found["wall_s"][1] > found["wall_s"][2]
    assert found["wall_s"][0] == pytest.approx(ns.replay(w, NPU, "queue").wall_s)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"launch": ["queue"]}, "points do not say: 'units.count'"),
        ({"units.count": [60.0]}, "points do not say: 'launch'"),
        ({"launch": ["warp"], "units.count": [60.0]}, "unknown launch mode: 'warp'"),
        ({"launch": ["queue"], "units.count": [0.0]}, "units.count: out of bounds: 0"),
        ({"launch": ["queue"], "units.count": [60.5]}, "units.count: not a whole number"),
        ({"arch": ["h1"], "launch": ["queue"], "units.count": [60.0]}, "unknown machine: 'h1'"),
    ],
)
def test_points_that_make_no_sense_are_refused(points, message):
    with pytest.raises(InputError, match=message):
        Points(NPU, ["units.count"], [products()])(pd.DataFrame(points))


def test_points_need_a_workload():
    with pytest.raises(InputError, match="no workload"):
        Points(NPU, ["units.count"], [])


# ---------------------------------------------------------------- constraints


@given(
    st.lists(st.floats(0, 1000), min_size=1, max_size=20),
    st.floats(1, 900), st.floats(1, 900), st.booleans(),
)  # fmt: skip
def test_a_design_within_its_bounds_breaks_nothing(values, one, other, like):
    low, high = sorted([one, other])
    bound = (
        Constraint("power_w", like="x", within=0.2) if like else Constraint("power_w", low, high)
    )
    table = pd.DataFrame({"power_w": [*values, high]})
    references = {"x": {"power_w": high}}
    limits = Limits((bound,), references)
    bottom, top = (0.8 * high, 1.2 * high) if like else (low, high)
    power = table["power_w"].to_numpy()
    near = 1e-9 * top  # what rounding may do
    inside, outside = (
        (power >= bottom) & (power <= top),
        (power > top + near) | (power < bottom - near),
    )
    found = limits.allowed(table)
    assert found[inside].all()
    assert not found[outside].any()
    above = power > top * (1 + 1e-6)
    assert limits.excess(table)[above, 0] == pytest.approx(power[above] / top - 1)


def test_a_design_without_the_figure_breaks_the_limit_most():
    table = pd.DataFrame({"power_w": [np.nan, 1e6, 100.0]})
    excess = Limits((Constraint("power_w", most=200.0),)).excess(table)[:, 0]
    assert excess[0] > excess[1] > excess[2] == 0
    with pytest.raises(InputError, match=r"constraints\.area_mm2: the designs do not have it"):
        Limits((Constraint("area_mm2", most=1.0),)).excess(table)


# ---------------------------------------------------------------- NSGA-II

AXES = {
    "memories.dram.bandwidth": np.linspace(1.5e12, 3e12, 7), "units.count": [40, 50, 60, 70, 80],
    "matrix.bf16.rate": [512, 1024, 2048, 4096], "memories.l2.capacity": [64e6, 128e6, 256e6],
    "vector.fp32.rate": [64, 128, 256], "gemv.count": [0, 40],
}  # fmt: skip
OBJECTIVES = ["wall_s", "energy_j", "area_mm2"]


@pytest.fixture(scope="module")
def known():
    """Return a space and all its designs."""
    space = ns.Space(NPU, AXES, ["graph", "queue"])
    return space, sweep(space, products())


def volume(front, table):
    """Return the share of the box between best and worst that a front covers."""
    from pymoo.indicators.hv import HV

    low, high = (table[OBJECTIVES].agg(end).to_numpy() for end in ("min", "max"))
    scaled = (front[OBJECTIVES].drop_duplicates().to_numpy() - low) / (high - low)
    return HV(ref_point=np.full(len(OBJECTIVES), 1.05))(scaled)


@pytest.mark.parametrize("seed", [0, 1])
def test_a_small_share_of_a_space_gives_nearly_its_front(known, seed):
    pytest.importorskip("pymoo")
    space, table = known
    points = Points(NPU, list(AXES), [products()])
    found = nsga2(Choices.of(space), points, OBJECTIVES, population=24, generations=14, seed=seed)
    assert found.evaluations <= 24 * 14 < 0.07 * len(table)
    assert volume(found.front, table) >= 0.95 * volume(pareto(table, OBJECTIVES), table)
    wanted = pareto(found.table, OBJECTIVES)
    assert found.front.index.tolist() == wanted.index.tolist()


def test_equal_seeds_give_equal_searches(known):
    pytest.importorskip("pymoo")
    choices = Choices.of(known[0])
    tables = []
    for seed in (3, 3, 4):
        points = Points(NPU, list(AXES), [products()])
        tables.append(nsga2(choices, points, OBJECTIVES, None, 12, 4, seed).table)
    pd.testing.assert_frame_equal(tables[0], tables[1])
    assert not tables[0].equals(tables[2])


def test_a_search_keeps_constraints(known):
    pytest.importorskip("pymoo")
    space, table = known
    bounds = (Constraint("area_mm2", most=float(table["area_mm2"].quantile(0.3))),
              Constraint("units.count", least=60.0))  # fmt: skip
    limits = Limits(bounds)
    points = Points(NPU, list(AXES), [products()])
    found = nsga2(Choices.of(space), points, OBJECTIVES, limits, 24, 14, seed=0)
    fair = table[(table["area_mm2"] <= bounds[0].most) & (table["units.count"] >= 60)]
    assert (found.front["area_mm2"] <= bounds[0].most).all()
    assert (found.front["units.count"] >= 60).all()
    assert volume(found.front, table) >= 0.9 * volume(pareto(fair, OBJECTIVES), table)
    assert (found.table["allowed"] == limits.allowed(found.table)).all()


def test_what_cannot_be_searched_is_told_in_a_line(known, monkeypatch):
    pytest.importorskip("pymoo")
    choices = Choices.of(known[0])
    points = Points(NPU, list(AXES), [products()])
    with pytest.raises(InputError, match="not an objective: 'joules'"):
        nsga2(choices, points, ["joules"], population=4, generations=1)
    with pytest.raises(InputError, match="populations from 2"):
        nsga2(choices, points, OBJECTIVES, population=1)
    one = Choices.of(ns.Space(NPU, {"units.count": [60]}, ["queue"]))
    with pytest.raises(InputError, match="no axis with two values"):
        nsga2(one, Points(NPU, ["units.count"], [products()]), ["wall_s"])
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(InputError, match=r'needs pymoo; pip install "npusim\[search\]"'):
        nsga2(choices, points, OBJECTIVES)


def test_a_space_smaller_than_its_population_is_searched_whole():
    pytest.importorskip("pymoo")
    space = ns.Space(NPU, {"units.count": [60, 70], "gemv.count": [0, 70]}, ["queue"])
    points = Points(NPU, list(space.axes), [products()])
    found = nsga2(Choices.of(space), points, OBJECTIVES, population=20, generations=5)
    assert found.evaluations == 4


# ---------------------------------------------------------------- refinement


def start(space, place, objectives, work):
    choices = Choices.of(space)
    points = Points(space.archs, list(space.axes), [work])
    points(choices.points(np.array([place])))
    return judged(points, objectives, Limits()), choices, points


def test_a_walk_from_one_design_reaches_the_whole_front(known):
    space, table = known
    found, choices, points = start(space, [0, 1, 6, 4, 3, 2, 2, 1], OBJECTIVES, products())
    better = refine(found, choices, points, budget=len(table))
    wanted = pareto(table, OBJECTIVES)
    assert volume(better.front, table) == pytest.approx(volume(wanted, table), rel=1e-3)
    assert better.evaluations < 0.5 * len(table)


def test_no_neighbour_of_a_refined_front_is_left_to_ask(known):
    space, table = known
    found, choices, points = start(space, [0, 0, 0, 0, 0, 0, 0, 0], OBJECTIVES, products())
    better = refine(found, choices, points, budget=len(table))
    places = every(choices)
    names = ["launch", *AXES]
    number = {key: i for i, key in enumerate(choices.points(places)[names].itertuples(False, None))}
    rows = [number[key] for key in better.front[names].itertuples(False, None)]
    near = [
        i for row in rows for i in np.flatnonzero(np.abs(places - places[row]).sum(axis=1) == 1)
    ]
    assert all(points.known(choices.points(places[near])))


def test_a_walk_keeps_to_its_budget(known):
    space, _ = known
    found, choices, points = start(space, [0, 1, 3, 2, 2, 1, 1, 1], OBJECTIVES, products())
    assert refine(found, choices, points, budget=17).evaluations == 18
    assert refine(found, choices, points, budget=0) is found


def test_halved_steps_lie_between_values_of_axes_that_may_be_any_number():
    axes = {"memories.dram.bandwidth": [2e12, 3e12], "units.count": [60, 80],
            "memories.l2.capacity": Axis((16e6, 256e6), "log")}  # fmt: skip
    space = ns.Space(NPU, axes, ["queue"])
    objectives = ["wall_s", "memories.dram.bandwidth", "memories.l2.capacity"]
    found, choices, points = start(space, [0, 0, 0, 0, 0], objectives, products())
    better = refine(found, choices, points, halvings=2, budget=500)
    assert set(better.front["memories.dram.bandwidth"]) == {2e12, 2.25e12, 2.5e12, 2.75e12, 3e12}
    assert set(better.table["units.count"]) == {60.0, 80.0}
    capacities = set(better.table["memories.l2.capacity"].round())
    assert capacities <= {16e6, 32e6, 64e6, 128e6, 256e6}
    assert 64e6 in capacities


def test_a_walk_keeps_constraints():
    space = ns.Space(NPU, {"units.count": [40, 50, 60, 70, 80]}, ["queue"])
    found, choices, points = start(space, [0, 0, 2], ["area_mm2"], products())
    limits = Limits((Constraint("units.count", least=50.0),))
    assert refine(found, choices, points, limits).front["units.count"].tolist() == [50.0]
