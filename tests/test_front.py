"""Fronts: what brute force finds, with ties, bands, holes and in blocks."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.errors import InputError
from npusim.sweeps.dominance import covered
from npusim.sweeps.ends import ends
from npusim.sweeps.front import Front, pareto, without_effect
from tests.builder import kernel, timed, workload

NAMES = ["a", "b", "c", "d", "e"]


def oracle(low, high):
    """Return which rows no other surely beats, pair by pair."""
    kept = np.zeros(len(low), dtype=bool)
    for i in range(len(low)):
        if np.isnan(low[i]).any():
            continue
        beaten = (high <= low[i]).all(axis=1) & (high < low[i]).any(axis=1)
        kept[i] = not beaten.any()
    return kept


def table_of(values):
    return pd.DataFrame(values, columns=NAMES[: values.shape[1]])


def drawn(kind, count, objectives, seed):
    random = np.random.default_rng(seed)
    if kind == "uniform":
        return random.random((count, objectives))
    if kind == "all on it":
        return random.dirichlet(np.ones(objectives), count)
    if kind == "few values":
        return random.integers(0, 6, (count, objectives)).astype(float)
    # one objective that never changes, one that runs against another
    values = random.integers(0, 50, (count, objectives)).astype(float)
    values[:, 0], values[:, -1] = 1.0, -values[:, 1 % objectives]
    return values


# ---------------------------------------------------------------- exact


@given(
    st.integers(1, 4).flatmap(
        lambda k: st.lists(
            st.tuples(*[st.sampled_from([0.0, 1.0, 2.0, 3.0, np.inf, np.nan])] * k), max_size=40
        ).map(lambda rows, k=k: np.array(rows, dtype=float).reshape(-1, k))
    )
)
def test_small_fronts_are_what_brute_force_finds(values):
    table = table_of(values)
    front = pareto(table, list(table.columns))
    assert set(front.index) == set(np.flatnonzero(oracle(values, values)))
    assert front["a"].is_monotonic_increasing


@pytest.mark.parametrize("objectives", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", ["uniform", "all on it", "few values", "against each other"])
def test_large_fronts_are_what_brute_force_finds(kind, objectives):
    values = drawn(kind, 700, objectives, seed=objectives)
    table = table_of(values)
    front = pareto(table, list(table.columns))
    assert set(front.index) == set(np.flatnonzero(oracle(values, values)))


@pytest.mark.parametrize("sizes", [(700, 900), (2000, 20), (20, 2000), (1, 1), (0, 5), (5, 0)])
@pytest.mark.parametrize("kind", ["uniform", "few values", "all on it"])
def test_what_covers_is_what_brute_force_finds(kind, sizes):
    for count in (1, 2, 3, 4):
        points, by = (drawn(kind, n, count, seed) for n, seed in zip(sizes, (1, 2), strict=True))
        wanted = [bool((by <= row).all(axis=1).any()) for row in points]
        assert covered(points, by).tolist() == wanted


def test_a_front_as_large_as_the_table_takes_no_pairs():
    # pair by pair this would be 10^10 comparisons
    values = drawn("all on it", 100_000, 3, seed=0)
    beaten = values[:1] + np.array([0.0, 0.0, 1.0])
    table = table_of(np.vstack([values, beaten]))
    front = pareto(table, ["a", "b", "c"])
    assert len(front) == 100_000
    assert 100_000 not in front.index


def test_ties_all_stay_and_rows_without_a_number_never_do():
    table = pd.DataFrame({"a": [1.0, 1.0, np.nan, 0.5], "b": [1.0, 1.0, 0.0, np.nan]})
    assert pareto(table, ["a", "b"]).index.tolist() == [0, 1]
    assert pareto(table.iloc[2:], ["a", "b"]).empty
    assert pareto(table, ["a"]).index.tolist() == [3]


def test_texts_and_missing_columns_are_no_objectives():
    table = pd.DataFrame({"a": [1.0], "launch": ["graph"]})
    for name in ("launch", "b"):
        with pytest.raises(InputError, match=f"not an objective: '{name}' .allowed: a."):
            pareto(table, ["a", name])
    with pytest.raises(InputError, match="not an objective"):
        pareto(table, [])


# ---------------------------------------------------------------- with bands


@given(
    st.lists(
        st.tuples(*[st.tuples(*[st.integers(0, 6)] * 3)] * 2), min_size=1, max_size=30
    )
)  # fmt: skip
def test_with_bands_what_may_be_better_stays(rows):
    (low_a, a, high_a), (low_b, b, high_b) = np.sort(np.array(rows, dtype=float)).transpose(1, 2, 0)
    table = pd.DataFrame({
        "wall_s": a, "wall_low_s": low_a, "wall_high_s": high_a,
        "energy_j": b, "energy_low_j": low_b, "energy_high_j": high_b,
    })  # fmt: skip
    objectives = ["wall_s", "energy_j"]
    wanted = oracle(np.column_stack([low_a, low_b]), np.column_stack([high_a, high_b]))
    front = pareto(table, objectives, bands=True)
    assert set(front.index) == set(np.flatnonzero(wanted))
    assert set(pareto(table, objectives).index) <= set(front.index)


def test_bands_of_no_width_change_nothing():
    values = drawn("few values", 800, 3, seed=3)
    table = pd.DataFrame(values, columns=["wall_s", "b", "c"])
    table = table.assign(wall_low_s=table["wall_s"], wall_high_s=table["wall_s"])
    exact = pareto(table, ["wall_s", "b", "c"])
    assert pareto(table, ["wall_s", "b", "c"], bands=True).index.tolist() == exact.index.tolist()


def test_ends_of_what_is_made_of_time_and_energy():
    t = pd.DataFrame({
        "wall_s": [2.0], "wall_low_s": [1.0], "wall_high_s": [3.0],
        "energy_j": [100.0], "energy_low_j": [80.0], "energy_high_j": [120.0],
        "power_w": [50.0], "edp_js": [200.0], "s_per_token": [0.2], "j_per_token": [10.0],
        "area_mm2": [500.0], "area_delay_mm2s": [1000.0], "usd_per_mtoken": [4.0],
    })  # fmt: skip
    wanted = {
        "wall_s": (1, 3), "energy_j": (80, 120), "power_w": (80 / 3, 120), "edp_js": (80, 360),
        "s_per_token": (0.1, 0.3), "j_per_token": (8, 12), "area_mm2": (500, 500),
        "area_delay_mm2s": (500, 1500), "usd_per_mtoken": (2, 6),
    }  # fmt: skip
    for name, pair in wanted.items():
        assert [end[0] for end in ends(t, name)] == pytest.approx(pair)


def test_ends_of_a_sweep_hold_the_value_and_follow_the_tokens():
    space = ns.Space(ns.load_arch("decode_npu"), {"units.count": [60, 80]}, ["queue"])
    decode = ns.sweep(space, ns.load_workload("paddleocr_vl_decode"))
    low, high = ends(decode, "s_per_token")
    assert low == pytest.approx(decode["wall_low_s"] / decode["tokens"])
    assert high == pytest.approx(decode["wall_high_s"] / decode["tokens"])
    for name in ("wall_s", "energy_j", "power_w", "edp_js", "usd_per_mtoken", "area_mm2"):
        low, high = ends(decode, name)
        assert (low <= decode[name]).all()
        assert (decode[name] <= high).all()
    both = [ns.load_workload(f"paddleocr_vl_{phase}") for phase in ("prefill", "decode")]
    whole = ns.sweep(space, both)
    low, _ = ends(whole, "wall_s[paddleocr_vl_decode]")
    assert low == pytest.approx(decode["wall_low_s"])


def test_designs_without_a_band_are_refused():
    table = pd.DataFrame({"wall_s": [1.0], "wall_low_s": [np.nan], "wall_high_s": [np.nan]})
    with pytest.raises(InputError, match="without an error band: 'wall_low_s'"):
        pareto(table, ["wall_s"], bands=True)
    with pytest.raises(InputError, match="without an error band"):
        pareto(table[["wall_s"]], ["wall_s"], bands=True)


# ---------------------------------------------------------------- block by block


@given(st.integers(0, 10_000), st.lists(st.integers(0, 60), min_size=1, max_size=5), st.booleans())
def test_the_front_of_blocks_is_the_front_of_all(seed, sizes, bands):
    values = drawn("few values", sum(sizes), 3, seed)
    table = pd.DataFrame(values, columns=["wall_s", "b", "c"])
    table = table.assign(wall_low_s=table["wall_s"] - 1, wall_high_s=table["wall_s"] + 0.5)
    front = Front(["wall_s", "b", "c"], bands)
    start = 0
    for size in sizes:
        front.add(table.iloc[start : start + size])
        start += size
    wanted = pareto(table, ["wall_s", "b", "c"], bands)
    assert set(front.table.index) == set(wanted.index)
    assert front.table["wall_s"].tolist() == wanted["wall_s"].tolist()
    assert front.seen == len(table)


# ---------------------------------------------------------------- axes without effect


def test_axes_without_effect_are_found_in_any_order_of_rows():
    npu = ns.load_arch("decode_npu")
    axes = {"host.sync": [1e-6, 2e-6], "matrix.fp32.rate": [64, 128], "units.count": [60, 80]}
    space = ns.Space(npu, axes, ["queue", "eager"])
    w = workload(kernel("k", 50.0, kind="pointwise", elements=1e8, read_activation=4e8,
                        write_activation=4e8), timed(1e-5))  # fmt: skip
    table = ns.sweep(space, w)
    found = without_effect(space, table)
    assert "matrix.fp32.rate" in found
    assert without_effect(space, table.sample(frac=1, random_state=0)) == found


def test_an_axis_counts_if_it_moves_a_time_anywhere():
    axes = {"units.count": [1, 2], "host.sync": [1e-6, 2e-6]}
    space = ns.Space(ns.load_arch("h200"), axes)
    table = pd.DataFrame({"launch": "eager", "units.count": [1, 1, 2, 2], "wall_s": [1, 1, 1, 1.5],
                          "host.sync": axes["host.sync"] * 2})  # fmt: skip
    assert without_effect(space, table) == ()
    assert without_effect(space, table.assign(wall_s=[1.0, 1.0, 2.0, 2.0])) == ("host.sync",)
    # no two designs differ in one axis alone: nothing can be said
    assert without_effect(space, table.iloc[[0, 3]].assign(wall_s=1.0)) == ()
