"""Benchmarks that repeat an operation: for how long, and what a power limit makes of it."""

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.capture import timing
from npusim.errors import InputError
from npusim.graph_timing import load, replays
from npusim.measured import period as period_of
from npusim.measured import power_limit, read_axes
from npusim.measured.period import predicted
from npusim.measured.shapes import linear, operations, pointwise
from npusim.models.energy import of_way
from npusim.models.kernel import kernel_cost
from npusim.models.voltage import clocked
from tests.fake_torch import FakeTorch

ROOT = Path(__file__).parents[1]
AXES = ROOT / "workloads" / "experiments" / "h200_axes.json"
H200 = ns.load_arch("h200")
LARGE, SMALL = (operations([linear("bf16", m, 8192, 8192)]) for m in (4096, 16))


def program():
    sys.path.insert(0, str(ROOT / "benchmarks"))
    try:
        return importlib.import_module("power_window")
    finally:
        sys.path.pop(0)


def rows():
    found = program()
    data = json.loads(found.FILES[0].read_text())
    return [(row, *found.course(row, data["bin_ms"])[:2]) for row in data["rows"]]


def period(one, arch=H200):
    return kernel_cost(one, Designs(arch)).time


# ---------------------------------------------------------------- how long


@settings(max_examples=60)
@given(st.floats(1e-3, 20), st.integers(1, 400))
def test_a_load_is_what_ran_until_the_median_replay(kernel_ms, sets):
    torch = FakeTorch()
    torch.kernel_ms = kernel_ms
    timing.graph_us(torch, [torch.launch] * sets)
    graph_ms = torch.graphs[-1].kernels * kernel_ms
    until = torch.now_ms - graph_ms * replays(1e-3 * graph_ms) / 2
    assert load(1e-3 * kernel_ms, sets) == pytest.approx(1e-3 * until)


def test_experiments_say_how_many_sets_they_cycle():
    m = read_axes(AXES)
    by_op = {op: set(m.sets[m.op == op]) for op in set(m.op)}
    assert by_op["pointwise"] == by_op["decode_attention"] == by_op["prefill_attention"] == {1.0}
    # 8192 x 8192 in bf16 are 134 MB: three make 400 MB; in fp8 six do
    large = (m.op == "linear") & (m.operations["n"] == 8192) & (m.operations["k"] == 8192)
    cold = large & np.isnan(m.units) & (m.sets < 10) & (m.operations["m"] == 4096)
    assert dict(zip(m.operations.dtype[cold], m.sets[cold], strict=True)) == {"bf16": 3, "fp8": 6}
    assert np.isnan(m.sets[~np.isnan(m.units)]).all()  # eager loops
    some = m.take(large)
    assert np.array_equal(some.sets, m.sets[large], equal_nan=True)


# ---------------------------------------------------------------- what a limit makes of it


def test_what_is_held_by_hand():
    arch = with_value(with_value(H200, "power.window", 0.1), "power.brief", 500.0)
    d, one = Designs(arch), period(LARGE)
    most = power_limit.at_limit(LARGE, one, d)
    assert most > 1.2
    # 132 products until the median, of about 700 us: 0.9 of the window, less a half of it
    part = 132 * one.item() / 0.1 - 0.5
    assert 0.1 < part < 0.9
    found = power_limit.slowed(LARGE, one, np.array([3.0]), d)
    assert found == pytest.approx(1 + part * (most - 1))
    # no time at all: held from the first microsecond; for ever: not
    for window, expected in ((0.0, most), (1e3, 1.0)):
        d = Designs(with_value(arch, "power.window", window))
        assert power_limit.slowed(LARGE, one, np.array([3.0]), d) == pytest.approx(expected)


@pytest.mark.parametrize("limit", [450.0, 550.0, 750.0])
def test_the_limit_is_met_at_the_clock_that_is_left(limit):
    d, one = Designs(with_value(H200, "power.brief", limit)), period(LARGE)
    slower = power_limit.at_limit(LARGE, one, d).item()
    low, high = 0.3, 1.0
    for _ in range(30):  # the clock at which it takes so long
        middle = (low + high) / 2
        took = kernel_cost(LARGE, clocked(d, np.array([middle]))).time / one
        low, high = (middle, high) if took > slower else (low, middle)
    at = clocked(d, np.array([low]))
    assert power_limit.watts(LARGE, one * slower, at).item() == pytest.approx(limit, rel=0.02)


def test_nothing_is_held_that_takes_little_or_whose_benchmark_is_not_known():
    d = Designs(H200)
    assert power_limit.slowed(SMALL, period(SMALL), np.array([3.0]), d) == 1.0
    assert power_limit.slowed(LARGE, period(LARGE), np.array([np.nan]), d) == 1.0
    for path in ("power.brief", "power.window", "technology.node"):
        values = {p: v for p, v in H200.values.items() if p != path}
        without = Designs(replace(H200, values=values))
        assert power_limit.slowed(LARGE, period(LARGE), np.array([3.0]), without) == 1.0


@settings(max_examples=25, deadline=None)
@given(st.floats(100, 1200), st.floats(0, 0.5), st.sampled_from([64, 256, 1024, 4096]))
def test_a_lower_limit_or_a_shorter_window_never_helps(limit, window, m):
    one = operations([linear("bf16", m, 4096, 4096)])
    columns = {"power.brief": np.array([limit, limit * 0.8, limit]),
               "power.window": np.array([window, window, window / 2])}  # fmt: skip
    d = Designs(H200, columns)
    time = np.repeat(period(one), 3, axis=1)
    plain, less, sooner = power_limit.slowed(one, time, np.array([12.0]), d)[0]
    assert 1.0 <= plain <= less + 1e-9
    assert plain <= sooner + 1e-9


def test_many_at_once_are_each_as_alone():
    m = read_axes(AXES)
    m = m.take((m.op == "linear") & (m.operations["m"] >= 256))
    d = Designs(H200, {"matrix.efficiency": np.array([0.8, 0.9])})
    together = predicted(m, d)
    for i in range(0, len(m), 7):
        for j, value in enumerate((0.8, 0.9)):
            arch = with_value(H200, "matrix.efficiency", value)
            alone = predicted(m.take(np.array([i])), Designs(arch))
            assert alone.item() == pytest.approx(together[i, j], rel=1e-12)


def test_a_time_that_is_none_is_one_line(monkeypatch):
    m = read_axes(AXES)
    m = m.take(m.op == "linear")
    for none in (np.nan, np.inf):
        time = np.full((len(m), 1), none)
        monkeypatch.setattr(period_of, "kernel_time", lambda o, d, t=time: t[: len(o)])
        with pytest.raises(InputError, match="the model gives no time above zero"):
            predicted(m, Designs(H200))


# ---------------------------------------------------------------- against boards


def test_products_at_the_limit_take_its_power():
    # of measured clocks and times; nothing was fitted to them
    arch = with_value(H200, "power.brief", H200["power.limit"])
    found = [
        program().brief(row, 5.0, arch)[0] for row, first, last in rows() if last > 1.05 * first
    ]
    assert len(found) == 12
    assert np.median(found) == pytest.approx(700, rel=0.02)
    assert found == pytest.approx([700] * 12, rel=0.07)


def test_what_a_board_holds_is_what_the_machine_says():
    held = [
        program().brief(row, 5.0, H200)[1] for row, first, last in rows() if last > 1.05 * first
    ]
    assert H200["power.brief"] == pytest.approx(np.median(held), rel=0.01)
    mark = H200.provenance["power.brief"]
    assert mark.low <= min(held) < max(held) <= mark.high
    windows = [program().window(json.loads(f.read_text()))[0] for f in program().FILES]
    assert H200["power.window"] == pytest.approx(1e-3 * np.mean(windows))


def test_products_slow_down_as_told():
    """150 ms after a rest; two that stream their weights are told 16 % too slow."""
    off = {}
    for row, first, last in rows():
        one = operations([linear(row["dtype"], row["m"], row["n"], row["k"])])
        d = Designs(H200)
        over = power_limit.watts(one, period(one), d).item() > H200["power.brief"]
        told = power_limit.at_limit(one, period(one), d).item() if over else 1.0
        off[row["dtype"], row["m"], row["n"]] = told / (last / first) - 1
    assert len(off) == 14
    assert max(map(abs, off.values())) < 0.17
    assert np.mean(np.abs(list(off.values()))) < 0.05


def test_the_way_of_operands_is_counted_once():
    # 256 rows or more: all weights; inputs by columns, of which there are 512
    many, few = (operations([linear("bf16", m, 512, 1024)]) for m in (1024, 64))
    assert of_way(many) == pytest.approx(100 * 1024 * (512 + 1024))
    assert of_way(few) == pytest.approx(100 * 1024 * (512 / 4 + 64))
    assert of_way(operations([pointwise("bf16", "add", 4096)])) == 0
    time = np.array([[1e-3]])
    none = Designs(with_value(H200, "energy.matrix.bf16", 1e-15))
    own = power_limit.watts(LARGE, time, Designs(H200)) - power_limit.watts(LARGE, time, none)
    flop = 2 * 4096 * 8192 * 8192 - 100 * 8192 * (8192 + 4096)
    assert own.item() == pytest.approx(flop * (H200["energy.matrix.bf16"] - 1e-15) / 1e-3)
