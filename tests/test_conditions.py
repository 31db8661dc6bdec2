"""Axes that hang on others: every design once, none that differs in what does not count."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.axes import Axis, Condition, faults, parents_first
from npusim.errors import InputError, InputErrors
from npusim.sweeps import conditions
from npusim.sweeps.conditions import disjoint
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.transforms import transformed

NPU = ns.load_arch("decode_npu")
OFF = None


def holds(condition, value):
    if isinstance(value, str):
        return value in condition.values
    if condition.values and value not in condition.values:
        return False
    return condition.least <= value <= condition.most


def canonical(axes, design):
    """What a design is when axes that do not count are left out, asked of each axis anew."""

    def counts(path):
        return all(
            (parent not in axes or counts(parent)) and holds(condition, design[parent])
            for parent, condition in axes[path].when.items()
        )

    return tuple(v if p not in axes or counts(p) else OFF for p, v in design.items())


@st.composite
def spaces(draw):
    names = "abcde"[: draw(st.integers(1, 5))]
    sizes = {name: draw(st.integers(1, 3)) for name in names}
    rank = draw(st.permutations(names))  # parents come before children in this order
    condition = st.one_of(
        st.builds(lambda v: Condition(tuple(v)), st.sets(st.sampled_from([0.0, 1.0, 2.0]),
                                                        min_size=1)),
        st.builds(lambda v: Condition(least=v), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
        st.builds(lambda v: Condition(most=v), st.sampled_from([0.0, 0.5, 1.0, 2.0])),
    )  # fmt: skip
    axes = {}
    for name in names:
        parents = rank[: rank.index(name)]
        chosen = draw(st.sets(st.sampled_from(parents))) if parents else set()
        when = {parent: draw(condition) for parent in sorted(chosen)}
        if draw(st.booleans()) and draw(st.booleans()):
            when["launch"] = Condition(("graph",))
        axes[name] = Axis(tuple(float(i) for i in range(sizes[name])), when=when)
    return axes


@given(spaces())
def test_disjoint_grids_are_what_brute_force_finds(axes):
    fixed = {"launch": ("graph", "queue")}
    names = [*fixed, *axes]
    everything = itertools.product(*fixed.values(), *(a.values for a in axes.values()))
    wanted = {canonical(axes, dict(zip(names, design, strict=True))) for design in everything}
    found = [
        tuple(dict(zip(grid, design, strict=True)).get(name, OFF) for name in names)
        for grid in disjoint(axes, fixed)
        for design in itertools.product(*grid.values())
    ]
    assert len(found) == len(set(found))
    assert set(found) == wanted


@given(spaces())
def test_parents_come_first(axes):
    order = parents_first(axes)
    assert sorted(order) == sorted(axes)
    for path, axis in axes.items():
        assert all(order.index(p) < order.index(path) for p in axis.when if p in axes)


def test_what_hangs_on_the_same_condition_cuts_once():
    unit = {"a": Condition(least=1.0)}
    axes = {"a": Axis((0.0, 1.0))} | {n: Axis((0.0, 1.0), when=unit) for n in "bcdefgh"}
    assert [len(g) for g in disjoint(axes, {})] == [1, 8]


def test_too_many_grids_are_refused_before_they_fill_memory(monkeypatch):
    monkeypatch.setattr(conditions, "MOST_GRIDS", 100)
    axes = {f"p{i}": Axis((0.0, 1.0)) for i in range(9)}
    axes |= {f"c{i}": Axis((0.0, 1.0), when={f"p{i}": Condition(least=1.0)}) for i in range(9)}
    with pytest.raises(InputError, match=r"^c6: conditions cut .*draw samples"):
        disjoint(axes, {})


def test_axes_that_are_off_keep_what_the_machine_has():
    unit = {"gemv.count": Condition(least=1.0)}
    axes = {
        "gemv.width": Axis((32.0, 256.0), when=unit),
        "gemv.count": [0, 35, 70],
        "gemv.lanes": Axis((64.0, 128.0, 256.0), when=unit | {"launch": Condition(("queue",))}),
        "memories.dram.bandwidth": ["2 TB/s", "3 TB/s"],
    }
    space = Space(NPU, axes, ["graph", "queue"])
    # without the unit 2 x 2; with it 2 counts, 2 widths, 2 bandwidths: 8, and 8 x 3 in a queue
    assert len(space) == 4 + 8 + 24
    w = ns.load_workload("paddleocr_vl_decode")
    table = sweep(space, w)
    assert list(table.columns[:5]) == ["launch", *axes]
    assert not table[["launch", *axes]].duplicated().any()
    without = table[table["gemv.count"] == 0]
    assert (without["gemv.width"] == NPU["gemv.width"]).all()
    assert (table.loc[table["launch"] == "graph", "gemv.lanes"] == NPU["gemv.lanes"]).all()
    for _, row in table.iloc[::5].iterrows():
        arch = NPU
        for path in axes:
            arch = ns.with_value(arch, path, row[path])
        assert ns.replay(w, arch, row["launch"]).wall_s == pytest.approx(row["wall_s"], rel=1e-12)


def test_a_child_of_an_axis_that_is_off_is_off_whatever_the_machine_has():
    axes = {
        "fusion.chain": [0, 8],
        "gemv.count": Axis((0.0, 35.0), when={"fusion.chain": Condition(least=1.0)}),
        "gemv.width": Axis((32.0, 256.0), when={"gemv.count": Condition(least=1.0)}),
    }
    assert NPU["gemv.count"] > 0  # nominal units are there, but no axis decides on them
    assert len(Space(NPU, axes)) == 1 + 1 + 2


def test_axes_of_the_workload_hang_and_are_hung_on():
    axes = {
        "memories.kv_sram.capacity": [0, 48e6],
        "workload.batch": [1, 4],
        "workload.kv_bits": Axis((8.0, 4.0), when={"memories.kv_sram.capacity": Condition((0.0,))}),
        "host.sync": Axis((1e-6, 2e-6), when={"workload.batch": Condition(least=4.0)}),
    }
    space = Space(NPU, axes, ["queue"])
    assert len(space) == 2 * 3 + 3
    w = ns.load_workload("paddleocr_vl_decode")
    table = sweep(space, w)
    off = table["memories.kv_sram.capacity"] > 0
    assert set(table.loc[off, "workload.kv_bits"]) == {16.0}  # as traced
    assert set(table.loc[~off, "workload.kv_bits"]) == {8.0, 4.0}
    changed = transformed(w, {"workload.batch": 4.0})
    row = table[off & (table["workload.batch"] == 4) & (table["host.sync"] == 2e-6)].iloc[0]
    npu = ns.with_value(ns.with_value(NPU, "host.sync", 2e-6), "memories.kv_sram.capacity", 48e6)
    assert row["wall_s"] == pytest.approx(ns.replay(changed, npu, "queue").wall_s, rel=1e-12)


def test_a_machine_is_a_parent_too():
    only = {"arch": Condition(("decode_npu",))}
    axes = {"host.sync": [1e-6, 2e-6], "host.speed": Axis((1.0, 2.0, 4.0), when=only)}
    space = Space(ns.load_arch("h200"), axes, ["queue"], beside=[NPU])
    assert [(p.arch.name, len(p)) for p in space.parts] == [("h200", 2), ("decode_npu", 6)]


def test_values_of_a_range_meet_what_they_are_written_as():
    # 2.1e12 + 0.9e12 x 1 / 3 is a last bit off 2.4 TB/s
    assert Condition((2.4e12,)).holds(np.nextafter(2.4e12, 0))
    assert Condition(least=2.4e12).holds(np.nextafter(2.4e12, 0))
    assert not Condition((2.4e12,)).holds(2.4e12 * (1 + 1e-8))


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"gemv.port": Condition((0.0,))},
         r"gemv.width, when gemv.port: hangs on what is no axis .*: 'gemv.port' .*gemv.count"),
        ({"gemv.width": Condition((32.0,))}, r"hangs on itself: 'gemv.width -> gemv.width'"),
        ({"gemv.lanes": Condition((64.0,))},
         r"gemv.width, when gemv.lanes: hangs on itself: 'gemv.width -> gemv.lanes -> gemv.width'"),
        ({"gemv.count": Condition(least=71.0)}, r"never holds: 'gemv.count from 0 to 70'"),
        ({"gemv.count": Condition((35.0,))}, "never holds"),
        ({"launch": Condition(("warp",))}, r"when launch: never holds: 'warp' .*graph, queue"),
        ({"arch": Condition(("h100",))}, r"when arch: never holds: 'h100' .allowed: decode_npu"),
    ],
)  # fmt: skip
def test_conditions_that_cannot_be_are_refused(when, message):
    axes = {
        "gemv.count": [0, 70],
        "gemv.lanes": Axis((64.0, 128.0), when={"gemv.width": Condition((32.0,))}),
        "gemv.width": Axis((32.0, 64.0), when=when),
    }
    with pytest.raises((InputError, InputErrors), match=message):
        Space(NPU, axes, ["graph", "queue"])


def test_a_circle_through_others_is_told_of_each_that_is_on_it():
    def on(name):
        return Axis((0.0, 1.0), when={name: Condition((1.0,))})

    found = list(faults({"a": on("b"), "b": on("c"), "c": on("a"), "d": on("a")}, {}))
    circles = {path: more["value"] for path, _, _, more in found}
    assert circles == {"a": "a -> b -> c -> a", "b": "b -> c -> a -> b", "c": "c -> a -> b -> c"}


def test_an_axis_that_counts_in_no_design_is_told():
    queued = {"launch": Condition(("queue",))}
    axes = {"host.sync": [1e-6, 2e-6], "launch.queue.interval": Axis((1e-7, 2e-7), when=queued)}
    assert len(Space(NPU, axes, ["graph", "queue"])) == 2 + 4
    graph = Space(NPU, axes, ["graph"])
    assert len(graph) == 2
    assert graph.notes == (
        "launch.queue.interval is off in every design: what it hangs on never holds here",
    )
