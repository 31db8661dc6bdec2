"""Spaces of any size: rows made when asked for, machines side by side, and what travels."""

import itertools
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import job
from npusim.axes import Axis, Condition, Samples
from npusim.errors import InputError, InputErrors
from npusim.sweeps.part import Blocks, Part
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from tests.builder import timed, workload

H200, NPU = ns.load_arch("h200"), ns.load_arch("decode_npu")
PATHS = ("host.sync", "host.speed", "units.count", "matrix.efficiency")
VALUES = {"host.sync": (1e-6, 2e-6, 5e-6), "host.speed": (0.5, 1.0, 2.0, 4.0),
          "units.count": (60.0, 70.0), "matrix.efficiency": (0.7,)}  # fmt: skip


@given(st.permutations(PATHS), st.integers(1, 4), st.data())
def test_rows_of_a_grid_are_those_of_the_product(paths, count, data):
    axes = {path: VALUES[path] for path in paths[:count]}
    rows = list(itertools.product(*axes.values()))
    part = Part(NPU, "queue", {}, axes)
    assert len(part) == len(rows)
    start = data.draw(st.integers(0, len(rows) - 1))
    stop = data.draw(st.integers(start + 1, len(rows)))
    designs = part.designs(start, stop)
    for i, path in enumerate(axes):
        assert designs[path].tolist() == [row[i] for row in rows[start:stop]]
        index = part.index(path, start, stop)
        assert [axes[path][k] for k in index] == designs[path].tolist()


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 2), (3, 1), (0, 25)])
def test_rows_that_are_not_there_are_refused(start, stop):
    part = Part(NPU, "queue", {}, {p: VALUES[p] for p in PATHS})
    with pytest.raises(InputError, match=rf"no such rows: '{start} to {stop}' .allowed: 0 to 24"):
        part.designs(start, stop)


def test_a_space_of_a_million_millions_is_made_as_it_is_asked_for():
    floors = [1e-7 * (i + 1) for i in range(10)]
    axes = {f"floor.{kind}": floors for kind in ("matmul", "attention", "pointwise", "reduction")}
    axes |= {path: [1.0 + 0.01 * i for i in range(100)] for path in ("host.speed",)}
    axes |= {"host.sync": [1e-8 * (i + 1) for i in range(1000)],
             "host.record": [1e-9 * (i + 1) for i in range(1000)]}  # fmt: skip
    space = Space(NPU, axes, ["queue"])
    assert len(space) == 10**12
    blocks = space.blocks(1000)
    assert len(blocks) == 10**9
    number, start, stop, row = blocks[123_456_789]
    assert (number, start, stop, row) == (0, 123_456_789_000, 123_456_790_000, 123_456_789_000)
    made = space.parts[0].designs(start, stop)
    assert len(made) == 1000
    (_, sizes), digits, left = space.grids[0], {}, 123_456_789_000 + 999
    for path, size in reversed(sizes.items()):
        left, digits[path] = divmod(left, size)
    assert left == 0
    for path, values in axes.items():
        assert made[path][999] == values[digits[path]]
    with pytest.raises(InputError, match="too many designs for one table: 1000000000000"):
        sweep(space, workload(timed(1e-6)))


def test_more_designs_than_can_be_numbered_are_refused():
    axes = {p: np.linspace(1e-7, 1e-5, 1000).tolist() for p in
            ("host.sync", "host.record", "floor.matmul", "floor.attention", "floor.pointwise",
             "floor.reduction", "floor.gather")}  # fmt: skip
    with pytest.raises(
        InputError, match=r"too many designs: 1000000000000000000000 .*draw samples"
    ):
        Space(NPU, axes)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=5), st.integers(1, 5), st.data())
def test_blocks_cover_every_row_once_and_no_block_has_two_parts(lengths, size, data):
    blocks = Blocks(lengths, size)
    rows = [(number, at, row) for number, start, stop, first in blocks
            for at, row in zip(range(start, stop), itertools.count(first))]  # fmt: skip
    wanted = [(number, at) for number, length in enumerate(lengths) for at in range(length)]
    assert rows == [(number, at, row) for row, (number, at) in enumerate(wanted)]
    assert all(stop - start <= size for _, start, stop, _ in blocks)
    cut = data.draw(st.slices(len(blocks)))
    assert list(blocks[cut]) == list(blocks)[cut]
    assert list(blocks[cut][::2]) == list(blocks)[cut][::2]
    assert blocks[-1] == list(blocks)[-1]
    with pytest.raises(IndexError):
        blocks[len(blocks)]


def test_rows_come_by_launch_mode_work_and_what_is_dear_to_change():
    axes = {"host.sync": [1e-6, 2e-6], "workload.batch": [1, 2], "gemm.fill": [1.0, 2.0],
            "fusion.chain": [0, 8]}  # fmt: skip
    space = Space(NPU, axes, ["graph", "queue"])
    table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    assert list(table.columns[:5]) == ["launch", *axes]
    order = ["launch", "workload.batch", "fusion.chain", "gemm.fill", "host.sync"]
    assert space.grids == ((0, dict.fromkeys(order, 2)),)
    found = list(table[order].itertuples(index=False, name=None))
    values = [["graph", "queue"], [1, 2], [0, 8], [1.0, 2.0], [1e-6, 2e-6]]
    assert found == list(itertools.product(*values))


# ---------------------------------------------------------------- machines side by side


def test_each_machine_has_the_axes_that_it_can_have():
    axes = {"gemv.count": [0, 70], "host.sync": [1e-6, 3e-6, 9e-6], "prefetch.depth": [0, 1e6]}
    space = Space(H200, axes, ["queue"], beside=[NPU])
    assert [(p.arch.name, len(p)) for p in space.parts] == [("h200", 6), ("decode_npu", 12)]
    assert space.notes == ("gemv.count: no axes of h200, without anything of their group",)
    w = ns.load_workload("paddleocr_vl_decode")
    table = sweep(space, w)
    assert list(table.columns[:5]) == ["arch", "launch", *axes]
    assert table["arch"].tolist() == ["h200"] * 6 + ["decode_npu"] * 12
    assert table["gemv.count"].isna().tolist() == [True] * 6 + [False] * 12
    for arch, own in ((H200, ("host.sync", "prefetch.depth")), (NPU, tuple(axes))):
        alone = sweep(Space(arch, {p: axes[p] for p in own}, ["queue"]), w)
        mine = table[table["arch"] == arch.name].reset_index(drop=True)
        assert np.array_equal(mine["wall_s"], alone["wall_s"])
        assert np.array_equal(mine[list(own)], alone[list(own)])


def test_an_axis_that_no_machine_has_is_one_of_all():
    space = Space(H200, {"prefetch.depth": [0, 1e6]}, ["queue"], beside=[NPU])
    assert (len(space), space.notes) == (4, ())


def test_a_machine_beside_itself_is_refused():
    with pytest.raises(InputError, match="machine given twice: 'h200'"):
        Space(H200, {"host.sync": [1e-6]}, beside=[H200])


def test_a_job_takes_machines_beside_and_samples():
    asked = job.read_job("bandwidth", ["paddleocr_vl_decode"], ["queue"], {"host.sync": 2e-6},
                         beside=["h200", "b200"], samples=Samples(8))  # fmt: skip
    assert asked.arch.name == "decode_npu"
    assert [a.name for a in asked.space.archs] == ["decode_npu", "h200", "b200"]
    assert all(arch["host.sync"] == 2e-6 for arch in asked.space.archs)
    assert len(asked.space) == 24


# ---------------------------------------------------------------- weights


def test_weights_of_workloads_are_any_share():
    ws = [ns.load_workload(n) for n in ("paddleocr_vl_decode", "paddleocr_vl_decode_b8")]
    space = Space(H200, {"units.count": [66, 132]}, ["graph"])
    table = sweep(space, ws, counts=[0.7, 0.3])
    walls = [table[f"wall_s[{w.name}]"] for w in ws]
    assert np.allclose(table["wall_s"], 0.7 * walls[0] + 0.3 * walls[1], rtol=1e-12)
    assert np.allclose(table["tokens"], 0.7 * 1 + 0.3 * 8, rtol=1e-12)
    assert np.allclose(table["s_per_token"], table["wall_s"] / 3.1, rtol=1e-12)
    tenfold = sweep(space, ws, counts=[7, 3])
    assert np.allclose(tenfold["wall_s"], 10 * table["wall_s"], rtol=1e-12)


# ---------------------------------------------------------------- what travels to other processes


def travelled(thing):
    return pickle.loads(pickle.dumps(thing))  # noqa: S301


def test_machines_designs_and_workloads_come_back_as_they_were():
    assert travelled(NPU) == NPU
    part = Part(NPU, "queue", {"workload.batch": 4.0}, {"units.count": (60.0, 70.0)})
    assert travelled(part) == part
    made = travelled(part.designs(0, 2))
    assert made.base == NPU
    assert made["units.count"].tolist() == [60, 70]
    for name in ("paddleocr_vl_decode", "deepseek_ocr_decode_grouped"):
        w = ns.load_workload(name)
        again = travelled(w)
        assert (again.name, again.id, dict(again.meta)) == (w.name, w.id, dict(w.meta))
        assert all(np.array_equal(again[c], w[c]) for c in w.columns)
        assert not again["step"].flags.writeable
        assert ns.replay(again, NPU, "queue").wall_s == ns.replay(w, NPU, "queue").wall_s


@pytest.mark.parametrize("samples", [None, Samples(16)])
def test_a_space_and_a_job_come_back_as_they_were(samples):
    asked = job.read_job("decode_npu", [], [], {}, beside=["h200"], samples=samples)
    again = travelled(asked)
    assert again.space == asked.space
    assert again.arch == asked.arch
    assert again.counts == asked.counts
    assert [w.id for w in again.workloads] == [w.id for w in asked.workloads]
    for one, other in zip(asked.space.parts, again.space.parts, strict=True):
        a, b = one.designs(0, len(one)), other.designs(0, len(other))
        assert a.columns.keys() == b.columns.keys()
        assert all(np.array_equal(a[path], b[path]) for path in a.columns)


def test_errors_come_back_as_they_were():
    errors = InputErrors([InputError("out of bounds", place="x", value=3), InputError("no")])
    again = travelled(errors)
    assert (str(again), len(again.errors)) == (str(errors), 2)


def test_conditions_travel():
    width = Axis((32.0, 64.0), when={"gemv.count": Condition(least=1.0)})
    space = Space(NPU, {"gemv.count": [0, 70], "gemv.width": width})
    assert travelled(space) == space
    assert len(space) == 3
