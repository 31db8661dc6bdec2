"""Clock modes: when racing to idle pays, worked out by hand, and which clocks are chosen."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import with_value
from npusim.clock_modes import choose, modes, over_period, sleeping
from npusim.errors import InputError
from tests.builder import workload
from tests.energy_machines import small, with_die

H200 = ns.load_arch("h200")
N = 4096
FLOP = 2.0 * N**3
# 4.096 TFLOP/s at 1 GHz: 33.6 ms that nothing but the clock decides, at 30 W of arithmetic; DRAM
# and launches take nothing.
SECONDS = FLOP / 4.096e12
# An operand's way, here for nothing, is as much as 100 operations on each of its elements.
COUNTED = FLOP - 100 * 2 * N**2
PRODUCT = {"kind": "gemm", "dtype": "bf16", "batch": 1, "m": N, "n": N, "k": N, "flop": FLOP,
           "read_weight": 2.0 * N * N, "read_activation": 2.0 * N * N,
           "write_activation": 2.0 * N * N}  # fmt: skip
TAKES = {"energy__matrix__bf16": 30 * SECONDS / COUNTED, "energy__cycle": 0, "energy__launch": 0,
         "energy__cache": 0, "energy__dram__hbm3e": 0, "units__load_rate": 1e6,
         "launch__queue__submit": 0, "launch__queue__interval": 0, "host__sync": 0,
         "host__speed": 1, "host__threads": 1, "voltage__clock": 1e9}  # fmt: skip
SHARES = [0.5, 0.9, 0.98, 1.0]


def paced(slope, sleep, shares=SHARES):
    """Return the energy of a period of twice the product's time, at each clock [J]."""
    arch = small(**TAKES, voltage__slope=slope, voltage__least=0.1)
    table = modes(workload(PRODUCT), arch, "queue", shares)
    return over_period(table, 2.1 * SECONDS, sleep)


def by_hand(slope, sleep, shares=SHARES):
    """Return the same: 30 W of arithmetic and 20 W of clocks at full clock, 50 W of board.

    E(x) = (30 + 20) t V^2 + (50 - sleep) t / x + period x sleep,  V = 1 - slope (1 - x)

    At x = 1 that falls with the clock, so that racing does not pay, if
    2 slope (30 + 20) > 50 - sleep.
    """
    x = np.array(shares)
    v2 = (1 - slope * (1 - x)) ** 2
    return SECONDS * (50 * v2 + (50 - sleep) / x + 2.1 * sleep)


@pytest.mark.parametrize(("slope", "sleep"), [(0.0, 0.0), (0.4, 9.0), (0.4, 50.0), (0.8, 20.0)])
def test_energy_of_a_period_by_hand(slope, sleep):
    assert paced(slope, sleep).tolist() == pytest.approx(by_hand(slope, sleep), rel=1e-3)


@pytest.mark.parametrize(
    ("slope", "sleep", "races"),
    [
        (0.0, 0.0, True),  # one voltage: racing pays as long as sleep takes less than the board
        (0.0, 45.0, True),
        (0.0, 55.0, False),
        (0.4, 9.0, True),  # 2 x 0.4 x 50 = 40 W: the board must save more than that by sleeping
        (0.4, 11.0, False),
        (0.6, 0.0, False),  # a steep voltage: slow even if sleep is free
    ],
)
def test_where_racing_to_idle_ends(slope, sleep, races):
    near, full = paced(slope, sleep, [0.98, 1.0])
    assert (full < near) == races


@pytest.mark.parametrize(("sleep", "races"), [(2.7, True), (3.3, False)])
def test_leakage_is_saved_by_sleep_and_by_a_lower_voltage(sleep, races):
    """10 W of clocks, 5 of leakage, 7 of board: slow if 2 x 0.1 (30 + 10 + 5) > 7 + 5 - sleep."""
    arch = with_die(**TAKES, voltage__slope=0.1, voltage__least=0.1)
    table = modes(workload(PRODUCT), arch, "queue", [0.995, 1.0])
    near, full = over_period(table, 2 * SECONDS, sleep)
    assert (full < near) == races


def test_slow_and_steady_is_the_lowest_clock_that_is_fast_enough():
    found = paced(0.6, 50.0, [0.3, 0.5, 1.0])
    assert np.isnan(found[0])  # takes 3.3 times as long, the period is 2.1
    assert found.idxmin() == 1


def test_a_board_asleep():
    assert sleeping(with_value(H200, "power.sleep", 20.0)) == 20.0
    assert sleeping(with_value(H200, "power.idle", 85.0)) == pytest.approx(85.0)
    arch = with_die(voltage__clock=1e9, voltage__slope=1, voltage__least=0.6)
    assert sleeping(arch) == pytest.approx(7 + 5 * 0.36)


def test_modes_agree_with_replays():
    w = ns.load_workload("paddleocr_vl_decode")
    gated = with_value(with_value(H200, "gating.leakage", 0.5), "gating.wake", 1e-6)
    table = modes(w, gated, "graph", [0.5, 1.0])
    for row in table.to_dict("records"):
        slower = with_value(gated, "units.clock", row["clock_hz"])
        r = ns.replay(w, slower if row["share"] < 1 else gated, "graph")
        assert row["clock_hz"] == pytest.approx(row["share"] * 1.98e9)
        ours = (row["wall_s"], row["energy_j"], row["energy_low_j"], row["power_w"])
        theirs = (r.wall_s, r.energy_j, r.energy_band_j[0], r.power_w)
        assert ours == pytest.approx(theirs, rel=1e-12)
        assert row["edp_js"] == pytest.approx(r.wall_s * r.energy_j)
    assert table["voltage"].tolist() == pytest.approx([1 - 0.5 * H200["voltage.slope"], 1.0])


def test_what_modes_refuse():
    w = workload(PRODUCT)
    with pytest.raises(InputError, match=r"too little for its energy.*technology\.node"):
        modes(w, ns.load_arch("mi300x"), "graph")
    with pytest.raises(InputError, match="no share of a clock"):
        modes(w, H200, "graph", [0.0, 1.0])


# --- which clocks -------------------------------------------------------------------------------

rows = st.tuples(st.floats(1, 10), st.floats(1, 10))
tables = st.lists(st.lists(rows, min_size=3, max_size=3), min_size=1, max_size=3)


def made(phases):
    shares = pd.DataFrame({"share": [0.5, 0.75, 1.0]})
    found = {}
    for i, phase in enumerate(phases):
        wall, joules = np.array(phase).T
        found[str(i)] = shares.assign(wall_s=wall, wall_high_s=1.5 * wall, energy_j=joules)
    return found


@settings(max_examples=30)
@given(tables, st.lists(st.integers(1, 9), min_size=3, max_size=3), st.floats(1, 2))
def test_a_clock_for_each_phase_never_takes_more_and_meets_the_latency(phases, counts, slack):
    of, n = made(phases), {str(i): c for i, c in enumerate(counts[: len(phases)])}
    latency = slack * min(sum(n[m] * t["wall_high_s"][i] for m, t in of.items()) for i in range(3))
    together, each = (choose(of, n, latency, way) for way in (True, False))
    assert each.energy_j <= together.energy_j * (1 + 1e-12)
    assert 1.5 * each.wall_s <= latency * (1 + 1e-12)
    assert 1.5 * together.wall_s <= latency * (1 + 1e-12)
    assert len(set(together.shares.values())) == 1
    free = choose(of, n)
    assert free.energy_j == pytest.approx(sum(n[m] * t["energy_j"].min() for m, t in of.items()))
    assert free.energy_j <= each.energy_j * (1 + 1e-12)


def test_a_phase_that_is_counted_more_often_decides():
    """One step of `a` saves 3 J slowly, ten of `b` 1 J each; there is time for one of the two."""
    a = pd.DataFrame({"share": [0.5, 1.0], "wall_s": [11.0, 1.0], "wall_high_s": [11.0, 1.0],
                      "energy_j": [2.0, 5.0]})  # fmt: skip
    b = a.assign(wall_s=[2.0, 1.0], wall_high_s=[2.0, 1.0], energy_j=[1.0, 2.0])
    found = choose({"a": a, "b": b}, {"a": 1, "b": 10}, 21.0)
    assert found.shares == {"a": 1.0, "b": 0.5}
    assert (found.wall_s, found.energy_j) == (21.0, 15.0)
    assert choose({"a": a, "b": b}, {"a": 1, "b": 1}, 12.0).shares == {"a": 0.5, "b": 1.0}


def test_no_clock_is_fast_enough():
    with pytest.raises(InputError, match=r"no clock is fast enough.*1\.5 s or more"):
        choose(made([[(1, 1), (2, 1), (3, 1)]]), {"0": 1}, 1.4)


def test_too_many_combinations():
    table = pd.DataFrame({"share": np.linspace(0.1, 1, 101)})
    with pytest.raises(InputError, match="too many combinations"):
        choose(dict.fromkeys("abcd", table), dict.fromkeys("abcd", 1))
