"""Sweeps: every combination once, the same answer alone as in a batch, and the true front."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError, InputErrors
from npusim.sweeps.front import best, pareto
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space, unmodelled
from tests.builder import timed, workload


def test_a_space_holds_every_combination_once():
    axes = {"units.count": [60, 70], "memories.dram.bandwidth": [2e12, 2.5e12, 3e12]}
    space = Space(ns.load_arch("decode_npu"), axes, ["graph", "queue"])
    assert len(space) == 12
    table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    combinations = set(table[["launch", *axes]].itertuples(index=False, name=None))
    assert combinations == {(m, u, b) for m in ("graph", "queue") for u in (60, 70)
                            for b in (2e12, 2.5e12, 3e12)}  # fmt: skip


@pytest.mark.parametrize("mode", ["model", "transfer"])
def test_a_row_of_a_sweep_equals_the_same_design_alone(mode):
    w, base = ns.load_workload("deepseek_ocr_decode_grouped"), ns.load_arch("decode_npu")
    if mode == "transfer":  # of fused operations no time is known
        base = ns.with_value(base, "fusion.chain", 0.0)
    axes = {"memories.dram.bandwidth": [2e12, 3e12], "floor.matmul": [1e-6, 2e-6]}
    table = sweep(Space(base, axes, ["eager", "graph", "queue"]), w, mode)
    assert len(table) == 12
    for _, row in table.iterrows():
        arch = base
        for path in axes:
            arch = ns.with_value(arch, path, row[path])
        alone = ns.replay(w, arch, row["launch"], mode)
        for name in ("wall_s", "device_busy_s", "host_busy_s", "idle_share"):
            assert row[name] == pytest.approx(getattr(alone, name), rel=1e-12)
        if alone.band is not None:
            assert (row["wall_low_s"], row["wall_high_s"]) == pytest.approx(alone.band.wall_s)


def test_several_workloads_add_up():
    ws = [ns.load_workload(n) for n in ("paddleocr_vl_decode", "deepseek_ocr_decode_grouped")]
    space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph"])
    table = sweep(space, ws)
    for name in ("wall_s", "wall_high_s", "device_busy_s", "host_busy_s"):
        parts = sum(table[f"{name}[{w.name}]"] for w in ws)
        assert np.allclose(table[name], parts, rtol=1e-12)
    alone = sweep(space, ws[0])
    assert np.allclose(table["wall_s[paddleocr_vl_decode]"], alone["wall_s"], rtol=1e-12)


def test_without_a_known_machine_there_is_no_band():
    table = sweep(Space(ns.load_arch("h200"), {"units.count": [132]}), workload(timed(1e-6)))
    assert table["wall_low_s"].isna().all()


def test_axes_without_a_model_are_refused_by_name():
    paths = ["launch.graph.repeat", "units.count", "area.die", "power.window", "power.brief"]
    names = [str(e).split(":")[0] for e in unmodelled(paths)]
    assert names == [path for path in paths if path != "units.count"]
    axes = {"launch.graph.repeat": [0.0, 1e-7], "area.die": [1e-4], "units.count": [60]}
    with pytest.raises(InputErrors, match=r"(?s)graph\.repeat: no cost model.*area\.die: no cost"):
        Space(ns.load_arch("decode_npu"), axes)


@pytest.mark.parametrize(
    ("axes", "launch", "message"),
    [
        ({"units.count": []}, ["graph"], "axis without values"),
        ({"units.count": [1]}, ["warp"], "unknown launch mode: 'warp'"),
        ({"units.count": [1]}, [], "no launch mode .allowed: eager, graph, queue"),
        ({"units.count": [1]}, ["graph", "graph"], "launch mode given twice: 'graph'"),
        ({"units.count": [0]}, ["graph"], "units.count: out of bounds"),
        ({"units.cuont": [1]}, ["graph"], "unknown parameter: 'units.cuont'"),
    ],
)  # fmt: skip
def test_spaces_that_make_no_sense_are_refused(axes, launch, message):
    with pytest.raises(InputError, match=message):
        Space(ns.load_arch("decode_npu"), axes, launch)


@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=40))
def test_the_front_is_what_brute_force_finds(rows):
    table = pd.DataFrame(rows, columns=["a", "b", "c"])
    front = set(pareto(table, ["a", "b", "c"]).index)
    for i, row in enumerate(rows):
        beaten = any(
            all(x <= y for x, y in zip(other, row, strict=True)) and other != row for other in rows
        )
        assert (i in front) is not beaten


def test_an_objective_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="not an objective: 'joules'"):
        pareto(pd.DataFrame({"wall_s": [1.0]}), ["wall_s", "joules"])


def test_the_best_of_equals_costs_least():
    table = pd.DataFrame({"wall_s": [2.0, 1.0, 1.0], "cost": [0.0, 5.0, 4.0]})
    assert best(table, ["cost"]).name == 2


def test_axes_take_names_and_units():
    npu, w = ns.load_arch("decode_npu"), ns.load_workload("paddleocr_vl_decode")
    npu = ns.with_value(npu, "array.rows", 8.0)
    axes = {"array.dataflow": ["weight", "output"], "memories.dram.bandwidth": ["2 TB/s", 2.5e12]}
    table = sweep(Space(npu, axes, ["queue"]), w)
    assert table["array.dataflow"].tolist() == [0.0, 0.0, 1.0, 1.0]
    assert table["memories.dram.bandwidth"].tolist() == [2e12, 2.5e12] * 2
    with pytest.raises(InputError, match=r"array.dataflow: not one of the names: 'row'"):
        Space(npu, {"array.dataflow": ["row"]})
    with pytest.raises(InputError, match=r"array.dataflow: out of bounds: 7 of weight, output"):
        Space(npu, {"array.dataflow": [0, 7]})
    narrow = sweep(Space(npu, {"workload.arithmetic": ["traced", "int8"]}, ["queue"]), w)
    assert narrow["wall_s"].iloc[1] < narrow["wall_s"].iloc[0]
