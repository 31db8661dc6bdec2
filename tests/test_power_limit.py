"""Voltage and power limits: a machine worked out by hand, and what must hold."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.durations import durations
from npusim.measured.patterns import pattern
from npusim.models.voltage import clocked, voltage
from npusim.power import LEAST, held, mean_power
from tests.builder import timed, workload
from tests.energy_machines import small, with_die

H200 = ns.load_arch("h200")
QUEUE = {"launch__queue__submit": 0, "launch__queue__interval": 0, "host__sync": 0,
         "host__speed": 1, "host__threads": 1}  # fmt: skip
# 50 W at rest; 20 W of clocks and 20 W of four units that have a kernel, both with x V(x)^2.
LIMITED = {**QUEUE, "voltage__clock": 1e9, "voltage__slope": 0.5, "voltage__least": 0.6,
           "energy__cycle": 5e-9, "energy__launch": 0}  # fmt: skip


def carried():
    """A step that is carried over: a millisecond of the device at any clock."""
    return workload(timed(1e-3))


# --- voltage ------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(st.floats(0, 1), st.floats(0.1, 1), st.lists(st.floats(0.05, 1.5), min_size=2, max_size=5))
def test_voltage_rises_with_the_clock_and_never_falls_below_the_least(slope, least, shares):
    arch = small(voltage__clock=1e9, voltage__slope=slope, voltage__least=least)
    found = voltage(Designs(arch, {"units.clock": 1e9 * np.sort(shares)}))
    assert (np.diff(found) >= 0).all()
    assert (found >= least).all()
    steeper = voltage(Designs(with_value(arch, "voltage.slope", 1.0),
                              {"units.clock": 1e9 * np.sort(shares)}))  # fmt: skip
    below = np.sort(shares) <= 1
    assert (steeper[below] <= found[below] + 1e-12).all()


def test_a_machine_without_a_voltage_has_one():
    assert voltage(Designs(small(), {"units.clock": np.array([1e8, 1e9])})).tolist() == [1.0]


def test_clocked_changes_the_clock_of_the_units_alone():
    d = Designs(H200, {"power.limit": np.array([300.0, 500.0])})
    slower = clocked(d, np.array([0.5, 1.0]))
    assert slower["units.clock"].tolist() == [0.99e9, 1.98e9]
    assert slower["power.limit"].tolist() == [300.0, 500.0]
    assert slower["memories.l2.clock"] == d["memories.l2.clock"]


# --- the limit by hand --------------------------------------------------------------------------


def share_at(limit, **more):
    arch = small(**{**LIMITED, **more}, power__limit=limit)
    return held(carried(), Designs(arch), "queue").share.item()


def test_the_clock_of_a_limit_by_hand():
    """With V = (1 + x) / 2: 50 + 40 x (1 + x)^2 / 4 = limit."""
    for limit in (60.0, 70.0, 85.0):
        x = share_at(limit)
        if x > 0.2:  # there V is 0.6
            assert 50 + 10 * x * (1 + x) ** 2 == pytest.approx(limit, rel=1e-4)
    assert share_at(70.0) == pytest.approx(0.69562, abs=1e-4)  # x (1 + x)^2 = 2


def test_below_the_least_voltage_power_falls_with_the_clock_alone():
    assert share_at(51.44) == pytest.approx(0.1, abs=1e-4)  # 40 x 0.1 x 0.36


def test_one_voltage_needs_a_lower_clock():
    assert share_at(70.0, voltage__slope=0.0) == pytest.approx(0.5, abs=1e-4)


def test_a_limit_that_no_clock_meets_leaves_the_least_one():
    assert share_at(50.0) == pytest.approx(LEAST)
    assert share_at(1.0) == pytest.approx(LEAST)


def test_a_limit_counts_leakage_and_clocks_of_the_die():
    arch = with_die(**LIMITED)  # 7 + 5 V^2 + (10 + 20) x V^2
    for limit in (20.0, 30.0):
        d = Designs(with_value(arch, "power.limit", limit))
        x = held(carried(), d, "queue").share.item()
        v2 = max(1 - 0.5 * (1 - x), 0.6) ** 2
        assert 7 + 5 * v2 + 30 * x * v2 == pytest.approx(limit, rel=1e-4)


# --- what must hold -----------------------------------------------------------------------------


def test_a_limit_above_the_power_of_a_step_changes_no_bit():
    w = ns.load_workload("paddleocr_vl_decode")
    high, higher = (ns.replay(w, with_value(H200, "power.limit", limit), "graph").as_dict()
                    for limit in (300.0, 1e6))  # fmt: skip
    for found in (high, higher):
        found.pop("made_by")
    assert high["clock_share"] == 1.0
    assert high == higher


def test_a_limit_is_kept_and_never_shortens_a_step():
    w, limits = pattern("rmsnorm_linear", 4096), np.linspace(120, 600, 25)
    free = Designs(H200, {"power.limit": np.full(25, 1e6)})
    time = durations(w, free)
    power, busy = mean_power(w, free, time, "graph"), time.busy()
    settled = held(w, Designs(H200, {"power.limit": limits}), "graph")
    after = mean_power(w, settled.designs, settled.time, "graph")
    over = power > limits
    assert 5 < over.sum() < 20
    assert (settled.share[~over] == 1.0).all()
    assert (after[~over] == power[~over]).all()
    assert ((settled.share[over] > LEAST) & (settled.share[over] < 1.0)).all()
    assert after[over] == pytest.approx(limits[over], rel=1e-3)
    assert (after <= limits)[over].all()
    assert (settled.time.busy() >= busy).all()
    assert (np.diff(settled.share) >= 0).all()


def test_each_of_many_designs_has_its_own_clock():
    w = pattern("rmsnorm_linear", 4096)
    together = held(w, Designs(H200, {"power.limit": np.array([150.0, 1e6, 200.0])}), "graph")
    alone = held(w, Designs(with_value(H200, "power.limit", 150.0)), "graph")
    assert together.share[0] == alone.share.item()
    assert together.time.busy()[0] == pytest.approx(alone.time.busy().item(), rel=1e-12)
    assert together.share[0] < together.share[2] < together.share[1] == 1.0


def test_a_replay_says_that_its_clock_is_held():
    w = pattern("rmsnorm_linear", 4096)
    sleepy = with_value(with_value(H200, "gating.leakage", 0.5), "gating.wake", 1e-4)
    slow = ns.replay(w, with_value(sleepy, "power.limit", 140.0), "graph")
    assert slow.power_w == pytest.approx(140, rel=1e-3)  # the wait counts
    low, free = (ns.replay(w, with_value(H200, "power.limit", p), "graph") for p in (140.0, 1e4))
    assert low.power_w == pytest.approx(140, rel=1e-3)
    assert low.clock_share < slow.clock_share < 1 == free.clock_share
    assert low.wall_s > free.wall_s
    assert [n for n in low.notes if n.startswith("power limit:")]
    assert not [n for n in free.notes if n.startswith("power limit:")]
