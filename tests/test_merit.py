"""What designs cost: figures of merit by hand, in a sweep and in a single replay."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.merit import MERITS, figures_of_merit
from npusim.models.area import die_area
from npusim.models.carbon import embodied
from npusim.models.die_cost import machine_cost
from npusim.models.service_cost import carbon, money
from npusim.sweeps.evaluate import ENERGIES, evaluate
from npusim.sweeps.run import sweep
from npusim.sweeps.space import Space
from npusim.workload import Workload
from tests.builder import kernel, timed, workload
from tests.energy_machines import small, with_die

YEAR = 365.25 * 24 * 3600
KWH = 3.6e6
OF_ENERGY = {*ENERGIES, "clock_share", "power_w", "edp_js"}
OF_AREA = {"area_mm2", "area_delay_mm2s", "cost_usd", "usd_per_mtoken", "g_per_mtoken"}


def served(**changes):
    """Return an H200 with round numbers of service: ten years, half of them at work."""
    arch = ns.load_arch("h200")
    round_ = {"cost.lifetime": 10 * YEAR, "cost.utilisation": 0.5,
              "cost.electricity": 0.2 / KWH, "carbon.grid": 0.5 / KWH}  # fmt: skip
    for path, value in {**round_, **changes}.items():
        arch = ns.with_value(arch, path, value)
    return arch


def product(n, k, microseconds=5.0):
    """Return a matrix-vector product in bf16."""
    return kernel("gemv", microseconds, kind="gemv", dtype="bf16", batch=1, m=1, n=n, k=k,
                  flop=2 * n * k, read_weight=2.0 * n * k, read_activation=2.0 * k,
                  write_activation=2.0 * n)  # fmt: skip


def yielding(w, tokens):
    """Return a workload that says how many tokens a step of it yields."""
    meta = {**w.meta, "tokens_per_step": tokens}
    return Workload(w.name, w.columns, w.labels, w.steps, w.edges, meta)


@pytest.fixture(scope="module")
def decode():
    made = workload(product(4096, 4096), product(1024, 4096), timed(2e-5), name="decode")
    return yielding(made, 2.0)


@pytest.fixture(scope="module")
def vision():
    return workload(product(8192, 2048), timed(1e-4), name="vision")


# ---------------------------------------------------------------- by hand


def test_a_second_of_a_machine_is_its_cost_over_the_time_it_is_at_work():
    d = Designs(served())
    at_work = 5 * YEAR  # half of ten years
    found = money(np.array([at_work, 1.0]), np.zeros(2), d)
    assert found == pytest.approx([machine_cost(d)[0], machine_cost(d)[0] / at_work])
    assert carbon(np.array([at_work]), np.zeros(1), d) == pytest.approx(embodied(d))


def test_a_joule_costs_what_electricity_costs_and_emits_what_its_grid_does():
    d = Designs(served())
    joules = np.array([KWH, 5 * KWH])
    assert money(np.zeros(2), joules, d) == pytest.approx([0.2, 1.0])
    assert carbon(np.zeros(2), joules, d) == pytest.approx([0.5, 2.5])  # kg


def test_a_machine_that_is_used_twice_as_much_costs_half_a_second():
    half, whole = (Designs(served(**{"cost.utilisation": u})) for u in (0.5, 1.0))
    one = np.ones(1)
    assert money(one, 0 * one, half) == pytest.approx(2 * money(one, 0 * one, whole))
    assert money(0 * one, one, half) == money(0 * one, one, whole)


@given(*[st.floats(1e-6, 1e6) for _ in range(4)])
def test_time_and_energy_of_two_services_add_up(s, t, j, k):
    d = Designs(served())
    for price in (money, carbon):
        parts = price(np.array([s]), np.array([j]), d) + price(np.array([t]), np.array([k]), d)
        assert price(np.array([s + t]), np.array([j + k]), d) == pytest.approx(parts, rel=1e-9)


def test_figures_of_a_table_by_hand():
    d = Designs(served())
    table = pd.DataFrame({"wall_s": [0.5], "energy_j": [100.0], "s_per_token": [1e-3],
                          "j_per_token": [0.2]})  # fmt: skip
    found = {name: np.asarray(v).item() for name, v in figures_of_merit(table, d).items()}
    area, cost = die_area(d).item() * 1e6, machine_cost(d).item()
    # 1,000 s and 200 kJ a million tokens
    assert found == {
        "power_w": pytest.approx(200.0),
        "edp_js": pytest.approx(50.0),
        "area_mm2": pytest.approx(area),
        "area_delay_mm2s": pytest.approx(area / 2),
        "cost_usd": pytest.approx(cost),
        "usd_per_mtoken": pytest.approx(cost * 1e3 / (5 * YEAR) + 0.2 * 2e5 / KWH),
        "g_per_mtoken": pytest.approx(1e3 * (embodied(d).item() * 1e3 / (5 * YEAR)
                                             + 0.5 * 2e5 / KWH)),
    }  # fmt: skip
    assert set(found) <= set(MERITS)


def test_a_die_of_round_numbers_has_its_area_and_a_machine_without_one_has_none():
    table = pd.DataFrame({"wall_s": [2.0], "energy_j": [3.0]})
    found = figures_of_merit(table, Designs(small()))
    assert {name: np.asarray(v).item() for name, v in found.items()} == {
        "power_w": 1.5, "edp_js": 6.0}  # fmt: skip
    assert die_area(Designs(with_die())).item() * 1e6 == pytest.approx(10.0)
    assert set(figures_of_merit(table[["wall_s"]], Designs(small()))) == set()


# ---------------------------------------------------------------- in a sweep


@pytest.mark.parametrize("name", ["h200", "h100", "decode_npu"])
@pytest.mark.parametrize("launch", ["graph", "eager"])
def test_columns_agree_with_each_other_and_with_a_replay(decode, name, launch):
    arch = ns.load_arch(name)
    (row,) = evaluate(Designs(arch), [decode], launch).to_dict("records")
    alone, close = ns.replay(decode, arch, launch), {"rel": 1e-9}
    for column in ("wall_s", "energy_j", "movement_j", "power_w", "area_mm2", "s_per_token"):
        assert row[column] == pytest.approx(getattr(alone, column), **close), column
    assert (row["energy_low_j"], row["energy_high_j"]) == pytest.approx(
        alone.energy_band_j, **close
    )
    blocks = sum(sum(kinds.values()) for kinds in alone.energy_by_block.values())
    assert blocks == pytest.approx(row["energy_j"], **close)
    assert row["power_w"] * row["wall_s"] == pytest.approx(row["energy_j"], **close)
    assert row["edp_js"] == pytest.approx(row["power_w"] * row["wall_s"] ** 2, **close)
    assert row["area_delay_mm2s"] == pytest.approx(row["area_mm2"] * row["wall_s"], **close)
    assert (row["tokens"], row["j_per_token"]) == (2.0, pytest.approx(row["energy_j"] / 2))
    d = Designs(arch)
    million = [np.array([1e6 * row[f"{unit}_per_token"]]) for unit in ("s", "j")]
    assert row["cost_usd"] == pytest.approx(machine_cost(d).item(), **close)
    assert row["usd_per_mtoken"] == pytest.approx(money(*million, d).item(), **close)
    assert row["g_per_mtoken"] == pytest.approx(1e3 * carbon(*million, d).item(), **close)


def test_columns_of_a_shipped_step_are_those_of_its_replay():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    axes = {"units.clock": [1.5e9, 1.98e9], "units.count": [100, 132]}
    table = sweep(Space(h200, axes, ["graph"]), w)
    for _, row in table.iterrows():
        arch = h200
        for path in axes:
            arch = ns.with_value(arch, path, row[path])
        alone = ns.replay(w, arch, "graph")
        for column in ("energy_j", "power_w", "area_mm2"):
            assert row[column] == pytest.approx(getattr(alone, column), rel=1e-9), column
    assert table["area_mm2"].nunique() == 2  # units, not the clock


def test_several_workloads_are_summed_as_often_as_they_are_counted(decode, vision):
    designs = Designs(ns.load_arch("decode_npu"), {"units.count": np.array([60.0, 80.0])})
    alone = {w.name: evaluate(designs, [w], "queue") for w in (decode, vision)}
    both = evaluate(designs, [decode, vision], "queue", counts=[64, 3])
    for column in (*ENERGIES, "wall_s"):
        whole = 64 * alone["decode"][column] + 3 * alone["vision"][column]
        assert both[column].tolist() == pytest.approx(whole.tolist(), rel=1e-9), column
        for w in (decode, vision):
            assert both[f"{column}[{w.name}]"].tolist() == pytest.approx(
                alone[w.name][column].tolist()
            )
    assert both["power_w"].tolist() == pytest.approx((both["energy_j"] / both["wall_s"]).tolist())
    assert both["edp_js"].tolist() == pytest.approx((both["energy_j"] * both["wall_s"]).tolist())
    # a token is of what decodes alone: vision yields none
    assert both["tokens"].tolist() == [128.0, 128.0]
    for column in ("s_per_token", "j_per_token", "usd_per_mtoken", "g_per_mtoken", "cost_usd"):
        assert both[column].tolist() == pytest.approx(alone["decode"][column].tolist()), column


def test_a_step_without_tokens_has_no_figures_of_them(vision):
    table = evaluate(Designs(ns.load_arch("h200")), [vision], "graph")
    assert not {"j_per_token", "usd_per_mtoken", "g_per_mtoken", "s_per_token"} & set(table)
    assert {"energy_j", "power_w", "area_mm2", "cost_usd"} <= set(table)


def test_a_machine_that_does_not_say_what_it_takes_has_no_such_column(decode):
    arch = ns.load_arch("mi300x")
    table = evaluate(Designs(arch), [decode], "graph")
    assert not (OF_ENERGY | OF_AREA | {"j_per_token"}) & set(table)
    assert {"wall_s", "s_per_token"} <= set(table)
    alone = ns.replay(decode, arch, "graph")
    assert (alone.energy_j, alone.power_w, alone.area_mm2) == (None, None, None)
    assert (alone.energy_band_j, alone.energy_by_block, alone.clock_share) == (None, {}, 1.0)


def test_every_figure_that_a_sweep_may_cost_is_a_column(decode):
    table = evaluate(Designs(ns.load_arch("h200")), [decode], "graph")
    assert set(MERITS) <= set(table)
    assert np.isfinite(table[list(MERITS)].to_numpy(float)).all()
    assert (table[list(MERITS)] > 0).all(axis=None)
