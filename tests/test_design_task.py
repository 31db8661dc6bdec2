"""A space as a task: any row alone is the row of its block, wherever and in whatever company."""

from __future__ import annotations

import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest

import npusim as ns
from npusim import store as store_of_results
from npusim.arch import Designs
from npusim.constraints import Limit
from npusim.errors import InputError
from npusim.sweeps.blocks import Store
from npusim.sweeps.design_task import DesignTask
from npusim.sweeps.engines import run
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.sweeps.evaluator import Evaluator
from npusim.sweeps.space import Space
from npusim.sweeps.task import part

SAME = 1e-9
BANDWIDTH, UNITS, COUNT = "memories.dram.bandwidth", "units.count", "gemv.count"


@pytest.fixture(scope="module")
def work():
    return (ns.load_workload("deepseek_ocr_decode"),)


@pytest.fixture(scope="module")
def mixed():
    """Two machines and launch modes, an axis of the work, one that hangs on another: 12 parts."""
    axes = {
        "workload.context": ns.Axis((512.0, 2048.0)),
        BANDWIDTH: ns.Axis(tuple(np.linspace(2e12, 3e12, 17))),
        UNITS: ns.Axis((60.0, 70.0, 80.0)),
        COUNT: ns.Axis((0.0, 70.0)),
        "gemv.width": ns.Axis((32.0, 64.0, 128.0), when={COUNT: ns.Condition(least=1.0)}),
        "host.sync": ns.Axis(tuple(np.linspace(1e-6, 8e-6, 9))),
    }
    return Space(ns.load_arch("decode_npu"), axes, ["graph", "queue"], [ns.load_arch("h200")])


def test_rows_alone_are_those_of_their_block(mixed, work):
    task = DesignTask(mixed, work, (64.0,))
    table = task.table(2).to_pandas()
    start, rng = 2 * task.size, np.random.default_rng(3)
    firsts = np.cumsum([0, *map(len, mixed.parts)])
    for place in rng.integers(0, len(table), 12).tolist():
        row, number = start + place, int(np.searchsorted(firsts, start + place, "right")) - 1
        own = mixed.parts[number]
        design = own.designs(row - int(firsts[number]), row - int(firsts[number]) + 1)
        changed = with_changes(work, own.change)
        alone = evaluate(design, changed, own.launch, counts=[64.0]).iloc[0]
        for name, value in alone.items():
            if name == "launch":
                assert table.iloc[place]["launch"] == value
            else:
                assert table.iloc[place][name] == pytest.approx(value, rel=SAME), name


def test_a_row_is_the_replay_of_its_machine(work):
    axes = {UNITS: [60.0, 80.0], "host.sync": list(np.linspace(1e-6, 8e-6, 600))}
    space = Space(ns.load_arch("decode_npu"), axes, ["queue"])
    found = Evaluator(space, work).columns(0, len(space))
    for row in (0, 599, 600, 1111):
        arch = ns.load_arch("decode_npu")
        for path in axes:
            arch = ns.with_value(arch, path, float(found[path][row]))
        one = ns.replay(work[0], arch, "queue")
        assert found["wall_s"][row] == pytest.approx(one.wall_s, rel=SAME)
        assert found["energy_j"][row] == pytest.approx(one.energy_j, rel=SAME)


def test_rows_do_not_depend_on_their_company(mixed, work):
    every, fresh = Evaluator(mixed, work), Evaluator(mixed, work)
    whole = every.columns(0, len(mixed))
    for start, stop in ((0, 1), (400, 1300), (len(mixed) - 7, len(mixed))):
        some = fresh.columns(start, stop)
        assert list(some) == list(whole)
        for name, values in some.items():
            if values.dtype.kind == "O":
                assert values.tolist() == whole[name][start:stop].tolist()
            else:
                np.testing.assert_allclose(values, whole[name][start:stop], rtol=SAME)


def test_all_engines_and_parts_give_the_same_bytes(tmp_path, mixed, work):
    task = DesignTask(mixed, work, (1.0,), (Limit("area_mm2", 0.0, 480.0),))
    ways = {"one": {"workers": 1}, "two": {"workers": 2}, "parts": {"workers": 1}}
    for name, how in ways.items():
        with Store.open(tmp_path / name, pickle.loads(pickle.dumps(task))) as store:  # noqa: S301
            for which in ("2/2", "1/2") if name == "parts" else ("1/1",):
                run(task, store, blocks=part(task.blocks, which), **how)
            assert len(store.done) == len(task.blocks) > 4
    files = {n: sorted((tmp_path / n / "blocks").glob("*.parquet")) for n in ways}
    for pair in zip(*files.values(), strict=True):
        assert len({file.read_bytes() for file in pair}) == 1
    with Store.open(tmp_path / "two", task, resume=True) as store:
        table = pq.read_table(store.finish()).to_pandas()
    assert len(table) == len(mixed) and table["design_id"].is_unique
    assert (table["allowed"] == (table["area_mm2"] <= 480.0)).all()
    assert table["allowed"].nunique() == 2


def test_blocks_hold_every_row_once(mixed, work):
    task = DesignTask(mixed, work, (1.0,))
    assert sum(block.rows for block in task.blocks) == len(mixed)
    assert [block.number for block in task.blocks] == list(range(len(task.blocks)))


def test_samples_are_evaluated_as_they_are(work):
    axes = {
        BANDWIDTH: ns.Axis((1e12, 4e12), scale="log", steps=False),
        UNITS: ns.Axis((40.0, 80.0)),
    }
    space = Space(ns.load_arch("decode_npu"), axes, ["queue"], samples=ns.Samples(64))
    found = DesignTask(space, work, (1.0,)).table(0).to_pandas()
    designs = Designs(space.arch, {p: found[p].to_numpy() for p in axes})
    alone = evaluate(designs, work, "queue")
    np.testing.assert_allclose(found["wall_s"], alone["wall_s"], rtol=SAME)
    assert found["design_id"].is_unique


def test_ten_million_designs_are_a_task_at_once(work):
    """Nothing of the size of the space is made before a block is asked for."""
    axes = {p: list(np.linspace(1e-7, 1e-6, 100)) for p in ("floor.matmul", "floor.pointwise")}
    axes["host.sync"] = list(np.linspace(1e-6, 1e-5, 1000))
    space = Space(ns.load_arch("decode_npu"), axes, ["queue"])
    task = DesignTask(space, work, (1.0,))
    assert sum(block.rows for block in task.blocks) == 10_000_000
    last = task.table(len(task.blocks) - 1).to_pandas().iloc[-1]
    assert [last[path] for path in axes] == [1e-6, 1e-6, 1e-5]
    assert len(pickle.dumps(task)) < 20_000_000


def test_more_designs_than_fit_a_table_are_not_read_at_once(tmp_path, monkeypatch, mixed, work):
    task = DesignTask(mixed, work, (1.0,), description={"name": "x"})
    with Store.open(tmp_path, task) as store:
        run(task, store, workers=1)
        store.finish()
    monkeypatch.setattr(store_of_results, "_MOST", len(mixed) - 1)
    with pytest.raises(InputError, match=f"too many designs to read at once: {len(mixed)} "):
        store_of_results.load_results(tmp_path)


def test_threads_of_one_worker_take_turns(mixed, work):
    task, alone = DesignTask(mixed, work, (1.0,)), DesignTask(mixed, work, (1.0,))
    numbers = [block.number for block in task.blocks][:4]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(task.table, numbers))
    assert all(table.equals(alone.table(n)) for n, table in zip(numbers, found, strict=True))
