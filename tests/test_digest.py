"""Digests of blocks join to that of the whole."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.sweeps.digest import Digesting, evenly
from npusim.sweeps.lines import lines
from npusim.sweeps.space import Space
from npusim.sweeps.task import Block

COSTS = ("area_mm2", "energy_j")


def designs(seed, count):
    """Few distinct values, so that ties are common."""
    rng = np.random.default_rng(seed)
    return pd.DataFrame({
        "design_id": [f"{i:032x}" for i in range(count)],
        "wall_s": rng.integers(1, 5, count) / 7,
        "area_mm2": rng.integers(1, 9, count).astype(float),
        "energy_j": rng.integers(1, 9, count) / 3,
        "power_w": rng.integers(50, 150, count).astype(float),
        "allowed": rng.random(count) < 0.7,
    })  # fmt: skip


def beaten(row, table):
    values = table[["wall_s", *COSTS]].to_numpy()
    own = row[["wall_s", *COSTS]].to_numpy(float)
    return bool(((values <= own).all(axis=1) & (values < own).any(axis=1)).any())


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 999), count=st.integers(1, 60), size=st.integers(1, 25))
def test_joined_blocks_are_the_whole_by_brute_force(seed, count, size):
    table = designs(seed, count)
    shown = np.arange(0, count, 7)
    digesting = Digesting("wall_s", COSTS, size, power={"one": 99.0}, shown=shown)
    parts = [
        digesting(Block(i, len(piece)), pa.Table.from_pandas(piece, preserve_index=False))
        for i, start in enumerate(range(0, count, size))
        for piece in [table.iloc[start : start + size]]
    ]
    found = digesting.joined(parts)
    fair = table[table["allowed"]]
    assert (found.designs, found.allowed) == (count, len(fair))
    assert found.over == int((table["power_w"] > 99.0 * 1.01).sum())
    front = [i for i, row in fair.iterrows() if not beaten(row, fair)]
    assert sorted(found.front.index) == front
    kept = {*shown.tolist(), *front}
    assert kept <= set(found.shown.index)
    for i, row in found.shown.iterrows():
        assert row["design_id"] == table.loc[i, "design_id"]
    if len(fair):
        first = fair.sort_values(["wall_s", *COSTS], kind="stable")
        assert found.best["design_id"] == first.iloc[0]["design_id"]
        assert found.as_fast == int((fair["wall_s"] == fair["wall_s"].min()).sum())


def test_a_limit_of_each_machine_counts():
    table = pa.table({"arch": ["a", "b", "a"], "wall_s": [1.0, 2.0, 3.0], "allowed": [True] * 3,
                      "power_w": [100.0, 100.0, 60.0]})  # fmt: skip
    found = Digesting("wall_s", (), 3, power={"a": 90.0})(Block(0, 3), table)
    assert found.over == 1
    axis = table.append_column("power.limit", pa.array([200.0, 50.0, 50.0]))
    assert Digesting("wall_s", (), 3, power={"a": 90.0})(Block(0, 3), axis).over == 2


def test_an_even_sample_holds_both_ends_and_what_is_beside_it():
    rows = evenly(10**9, [5, 17])
    assert {0, 5, 17, 10**9 - 1} <= set(rows.tolist())
    assert 20_000 <= len(rows) <= 20_002


def test_lines_differ_in_one_axis_alone():
    axes = {"units.count": [60.0, 70.0, 80.0], "host.speed": [0.5, 1.0], "host.sync": [1e-6, 2e-6]}
    space = Space(ns.load_arch("decode_npu"), axes, ["graph", "queue"])
    rows = lines(space, {"launch": "queue", "units.count": 71.0, "host.speed": 1.0}, 0)
    shape = list(space.grids[0][1].values())
    places = np.array(np.unravel_index(rows, shape)).T
    base = dict(zip(space.grids[0][1], places[0] * 0, strict=False))
    base |= {"launch": 1, "units.count": 1, "host.speed": 1, "host.sync": 0}
    center = np.array([base[name] for name in space.grids[0][1]])
    assert ((places != center).sum(axis=1) <= 1).all()
    assert len(rows) == 1 + sum(n - 1 for n in shape)


@pytest.mark.parametrize("count", [0, 5])
def test_lines_of_samples_are_none(count):
    axes = {"host.sync": ns.Axis((1e-6, 2e-6), scale="linear", steps=False)}
    space = Space(ns.load_arch("decode_npu"), axes, ["queue"], samples=ns.Samples(8))
    assert lines(space, {}, count).tolist() == []
