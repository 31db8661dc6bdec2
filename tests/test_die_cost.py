"""Dies of a wafer, yield, cost and carbon."""

from math import comb, exp, pi, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.models import area, carbon, die_cost, service_cost

MM2 = 1e-6
H100, NPU = ns.load_arch("h100"), ns.load_arch("decode_npu")


def without_spares(arch=H100):
    return with_value(arch, "units.spare", 0.0)


def yield_of(mm2, arch, in_units=0.0):
    areas = np.array([mm2 * MM2])
    return die_cost.die_yield(areas, areas * in_units, Designs(arch)).item()


def test_dies_of_a_wafer_by_hand():
    arch = with_value(with_value(H100, "cost.edge", 0.0), "cost.scribe", 0.0)
    found = die_cost.dies_per_wafer(np.array([100 * MM2]), Designs(arch)).item()
    assert found == pytest.approx(pi * 300**2 / 4 / 100 - pi * 300 / sqrt(200))  # 640.2
    with_rim = die_cost.dies_per_wafer(np.array([100 * MM2]), Designs(H100)).item()
    assert with_rim == pytest.approx(pi * 294**2 / 4 / 10.1**2 - pi * 294 / sqrt(2) / 10.1)


def test_no_die_is_larger_than_a_wafer():
    giant = np.array([0.3, 1.0])
    assert die_cost.dies_per_wafer(giant, Designs(H100)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("clustering", [0.5, 2.0, 3.0, 10.0])
def test_without_spares_yield_is_the_negative_binomial(clustering):
    arch = with_value(without_spares(), "cost.clustering", clustering)
    for mm2, inside in ((100, 0.0), (814, 0.6), (3000, 0.9)):
        hit = 0.001 * mm2  # 0.1 defects a cm2
        assert yield_of(mm2, arch, inside) == pytest.approx((1 + hit / clustering) ** -clustering,
                                                            rel=1e-6)  # fmt: skip


def test_spare_units_by_hand():
    """Evenly spread defects, four units of which one may be hit."""
    arch = with_value(with_value(NPU, "units.count", 3.0), "units.spare", 1.0)
    arch = with_value(arch, "cost.clustering", 100.0)
    found = yield_of(800, arch, 0.5)
    well = exp(-0.1)  # a unit of 100 mm2 at 0.1 defects a cm2
    evenly = exp(-0.4) * (well**4 + comb(4, 1) * well**3 * (1 - well))
    assert found == pytest.approx(evenly, rel=0.01)
    assert found > yield_of(800, with_value(arch, "units.spare", 0.0), 0.5)


def test_spares_of_everything_leave_what_is_outside():
    arch = with_value(H100, "units.spare", 500.0)
    outside = yield_of(400, without_spares())
    assert yield_of(1000, arch, 0.6) == pytest.approx(outside, rel=1e-4)


@given(mm2=st.floats(1.0, 5000.0), more=st.floats(1.0, 3.0), inside=st.floats(0.0, 1.0),
       spare=st.integers(0, 40))  # fmt: skip
def test_yield_is_a_share_that_falls_with_area(mm2, more, inside, spare):
    arch = with_value(H100, "units.spare", float(spare))
    small, large = (yield_of(a, arch, inside) for a in (mm2, mm2 * more))
    assert 0 < large <= small * (1 + 1e-9)
    assert small <= 1


@given(units=st.integers(20, 140), more=st.integers(1, 60))
def test_cost_and_carbon_rise_with_area(units, more):
    designs = Designs(NPU, {"units.count": np.array([units, units + more], dtype=float)})
    for figure in (die_cost.die_cost, die_cost.machine_cost, carbon.embodied):
        low, high = figure(designs)
        assert low < high


def test_costs_add_up():
    designs = Designs(NPU)
    parts = (die_cost.die_cost, die_cost.package_cost, die_cost.memory_cost)
    assert die_cost.machine_cost(designs) == pytest.approx(sum(part(designs) for part in parts))
    assert die_cost.memory_cost(designs).item() == pytest.approx(48 * 15)  # GB x USD/GB
    own = NPU["cost.package"] + NPU["cost.test"]
    assert die_cost.package_cost(designs).item() == pytest.approx(own + 3 * 120)
    found = area.block_areas(designs)
    good = die_cost.dies_per_wafer(area.die_area(designs), designs) * die_cost.die_yield(
        area.die_area(designs), die_cost.in_units(found), designs
    )
    assert die_cost.die_cost(designs) == pytest.approx(NPU["node.n4.wafer"] / good)


def test_a_die_that_no_wafer_holds_costs_without_bound():
    designs = Designs(NPU, {"units.count": np.array([70.0, 100_000.0])})
    assert np.isinf(die_cost.die_cost(designs)).tolist() == [False, True]


def test_without_a_node_there_is_no_cost():
    designs = Designs(ns.load_arch("rtx_3060"), {"units.count": np.array([20.0, 28.0])})
    for figure in (die_cost.die_cost, die_cost.package_cost, die_cost.memory_cost,
                   die_cost.machine_cost, carbon.embodied):  # fmt: skip
        assert np.isnan(figure(designs)).tolist() == [True, True]


def test_embodied_carbon_by_hand():
    designs = Designs(H100)
    found = area.block_areas(designs)
    die = area.die_area(designs)
    good = die_cost.die_yield(die, die_cost.in_units(found), designs)
    of_area = 2.75 * 0.583 + 0.328 + 0.5  # kg a cm2
    expected = die / 1e-4 / good * of_area + 80 * 0.065 + 7 * 0.15
    assert carbon.embodied(designs) == pytest.approx(expected)


def test_memory_on_the_board_brings_no_package_of_its_own():
    cheap = Designs(ns.load_arch("l40s"), {"dram_type.gddr6.package": np.array([0.0, 1.0])})
    board, stacked = carbon.embodied(cheap)
    assert stacked - board == pytest.approx(12 * 0.15)


def test_operational_carbon_is_energy_by_the_grid():
    grids = Designs(H100, {"carbon.grid": np.array([0.0, 0.5 / 3.6e6])})
    assert carbon.operational(np.array([3.6e6]), grids).tolist() == pytest.approx([0.0, 0.5])


def test_carbon_of_service_by_hand():
    # A tenth of 0.5 x 1e8 s of work, and a kilowatt-hour at 0.5 kg.
    arch = with_value(with_value(H100, "cost.lifetime", 1e8), "cost.utilisation", 0.5)
    designs = Designs(with_value(arch, "carbon.grid", 0.5 / 3.6e6))
    found = service_cost.carbon(np.array([5e6]), np.array([3.6e6]), designs)
    assert found == pytest.approx(0.1 * carbon.embodied(designs) + 0.5)
