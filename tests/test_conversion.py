"""Conversion of narrow weights: times by hand, laws, and one measured kernel."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.models import modelled
from npusim.models.conversion import one_pass, single_cycle, weight_time, widens
from npusim.models.gemm import gemm_cost
from npusim.models.gemv_unit import gemv_unit_cost
from npusim.models.kernel import kernel_time
from npusim.transforms import transformed
from tests.machines import machine, operations

UNIT = {"gemv__count": 4, "gemv__lanes": 128, "gemv__width": 64, "gemv__port": 1, "gemv__batch": 8,
        "gemv__latency": 2e-7}  # fmt: skip
BEGIN = 1e-6 + 500e-9  # floor and start of a product on the machine of round numbers
NEAR = 1e-5  # its DRAM takes less than a picosecond


def product(m=64, n=256, k=1024, bits=4.0, dtype="bf16", **more):
    item = {"bf16": 2.0, "fp8": 1.0, "int4": 0.5}[dtype]
    return {"kind": "gemv" if m == 1 else "gemm", "dtype": dtype, "batch": 1, "m": m, "n": n,
            "k": k, "flop": 2.0 * m * n * k, "read_weight": n * k * bits / 8.0,
            "read_activation": item * m * k, "write_activation": 2.0 * m * n, **more}  # fmt: skip


def time_of(row, **changes):
    return gemm_cost(operations(row), Designs(machine(**changes))).time.item()


# --- by hand ---------------------------------------------------------------------------------


def test_a_tile_widens_its_weights_in_each_k_step():
    # Four tiles of 64 x 64 on four units, 16 k-steps of 64 x 64 weights, 4 a clock: 1,024 clocks
    # each, where products take 512 and loads 160; 100 clocks to fill.
    assert time_of(product(), conversion__rate=4) == pytest.approx(16.484e-6 + BEGIN, rel=NEAR)
    assert time_of(product(), conversion__rate=8) == pytest.approx(8.292e-6 + BEGIN, rel=NEAR)
    assert time_of(product()) == pytest.approx(8.292e-6 + BEGIN, rel=NEAR)


def test_more_rows_in_a_tile_are_fewer_passes():
    # 64 rows are four tiles on four units, 128 rows in tiles of 128 as well; 256 columns of 512
    # rows are two tiles of 256 rows for each 128 columns: twice the weights for a unit.
    for m, weights in ((64, 4096), (128, 4096), (512, 8192)):
        expected = (16 * weights + 100) * 1e-9 + BEGIN
        assert time_of(product(m), conversion__rate=1) == pytest.approx(expected, rel=NEAR)


def test_a_narrow_matrix_widens_only_its_columns():
    # a tile of 64 columns of which 16 are there: 16 x 64 weights a step, 1 a clock
    found = time_of(product(64, n=16, routine="whole"), conversion__rate=1)
    assert found == pytest.approx(16 * 1024e-9 + 100e-9 + BEGIN, rel=NEAR)


def test_engines_widen_side_by_side():
    # 2^20 weights, four engines, 8 a clock: 32,768 clocks; arithmetic takes 2,048
    row = operations(product(1, n=1024))
    found = [gemv_unit_cost(row, Designs(machine(**UNIT, **more))).time.item()
             for more in ({"conversion__rate": 8}, {"conversion__rate": 1e6}, {})]  # fmt: skip
    assert found[0] == pytest.approx(32.768e-6 + 0.202e-6, rel=1e-6)
    assert found[1] == found[2] == pytest.approx((2048 + 526336 / 4) / 64 * 1e-9 + 0.202e-6)


def test_eight_rows_share_a_pass_of_the_gemv_unit():
    rows = operations(product(1, n=1024), product(8, n=1024))
    d = Designs(machine(**UNIT, conversion__rate=1))
    assert one_pass(rows, np.array([4.0]), d).ravel().tolist() == [262144e-9] * 2
    one, eight = gemv_unit_cost(rows, d).time.ravel()
    assert one == eight


def test_a_weight_takes_a_clock_over_the_rate():
    rows = operations(product(), product(bits=16))
    d = Designs(machine(), {"conversion.rate": np.array([2.0, 4.0])})
    assert weight_time(rows, d).tolist() == [[0.5e-9, 0.25e-9], [0.0, 0.0]]
    assert not weight_time(rows, Designs(machine())).any()


# --- what is narrow --------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "narrow"), [
    (product(), True), (product(bits=8), True), (product(bits=8.125), True),
    (product(bits=16), False), (product(bits=16.5), False),
    (product(dtype="fp8", bits=8), False), (product(dtype="fp8", bits=4), True),
    (product(dtype="int4", bits=4), False), (product(bits=0), False),
    (product(groups=64), False),  # how many experts were read is not known
])  # fmt: skip
def test_which_weights_are_widened(row, narrow):
    assert widens(operations(row)).tolist() == [narrow]


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_as_traced_no_product_widens_anything(name):
    assert not widens(ns.load_workload(name).operations()).any()


# --- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped"])
@pytest.mark.parametrize("chip", ["h200", "decode_npu"])
def test_without_narrow_weights_nothing_changes_by_a_bit(name, chip):
    o, arch = ns.load_workload(name).operations(), ns.load_arch(chip)
    slow, fast = (Designs(with_value(arch, "conversion.rate", r)) for r in (0.01, 1e6))
    assert np.array_equal(kernel_time(o, slow), kernel_time(o, fast))
    if chip == "h200":  # which gives no rate
        assert np.array_equal(kernel_time(o, slow), kernel_time(o, Designs(arch)))


def test_a_machine_without_a_rate_is_one_that_never_waits():
    w = transformed(ns.load_workload("paddleocr_vl_decode"), {"workload.weight_bits": 4})
    h200, o = ns.load_arch("h200"), w.operations()
    free = kernel_time(o, Designs(h200))
    assert np.array_equal(free, kernel_time(o, Designs(with_value(h200, "conversion.rate", 1e6))))
    slow = kernel_time(o, Designs(with_value(h200, "conversion.rate", 8.0)))
    assert (slow >= free).all()
    assert slow.sum() > 1.1 * free.sum()


@given(st.integers(1, 600), st.integers(1, 3000), st.integers(64, 4096), st.sampled_from([4, 8]))
def test_what_a_port_brings_is_converted_in_the_same_clock(m, n, k, bits):
    o = operations(product(m, n, k, bits=float(bits)))
    d = Designs(machine())
    kept = Designs(machine(conversion__rate=single_cycle(d, bits).item()))
    assert np.array_equal(gemm_cost(o, kept).time, gemm_cost(o, d).time)


@given(st.integers(1, 300), st.integers(1, 3000), st.integers(64, 4096),
       st.floats(0.1, 100), st.floats(1, 10))  # fmt: skip
def test_a_higher_rate_is_never_slower(m, n, k, rate, times):
    assume(rate * times <= 1e6)
    o = operations(product(m, n, k))
    for cost, more in ((gemm_cost, {}), (gemv_unit_cost, UNIT)):
        if m <= 8 or cost is gemm_cost:
            slow, fast = (cost(o, Designs(machine(**more, conversion__rate=r))).time.item()
                          for r in (rate, rate * times))  # fmt: skip
            assert fast <= slow


def test_bandwidth_hides_what_it_outlasts():
    # 131,072 B from DRAM at 1 GB/s take 131 us: conversion at 4 a clock, 16 us, counts for nothing
    slow = {"memories__dram__bandwidth": 1e9, "gemm__overlap": 16}
    found = [time_of(product(), **slow, **more) for more in ({"conversion__rate": 4}, {})]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


def test_it_is_an_axis():
    assert modelled()["conversion.rate"] == ("conversion",)
    w = transformed(ns.load_workload("paddleocr_vl_decode"), {"workload.weight_bits": 4})
    rates = [8.0, 16.0, 64.0]
    space = ns.Space(ns.load_arch("decode_npu"), {"conversion.rate": rates}, ["queue"])
    walls = ns.sweep(space, [w]).set_index("conversion.rate")["wall_s"].loc[rates].tolist()
    assert walls[0] > walls[1] > walls[2]


def test_the_npu_converts_four_bits_in_a_cycle():
    npu = ns.load_arch("decode_npu")
    assert single_cycle(Designs(npu), 4).item() == npu["conversion.rate"]


# --- measured --------------------------------------------------------------------------------


def test_products_with_weights_of_four_bits_on_the_h200():
    """One row, 4 bits in groups of 128 with scale and zero point, by PyTorch: 20.8 us.

    With the 16 conversions a clock that NVIDIA's guide gives it is predicted within 10 %, and at
    no cost at little more than half. Half the width and length (7.1 us) lies between: a library
    cuts it into columns, of which the model has fewer tiles than there are units.
    """
    measured, arch = {8192: 20.79e-6, 4096: 7.07e-6}, ns.load_arch("h200")
    gap = arch["launch.graph.interval"] + arch["launch.graph.node"]
    rows = operations(*(product(1, n, n, bits=4.25) for n in measured))
    said = [kernel_time(rows, Designs(a)).ravel() + gap
            for a in (arch, with_value(arch, "conversion.rate", 16.0))]  # fmt: skip
    free, slow = (s / list(measured.values()) for s in said)
    assert free[0] < 0.6
    assert slow[0] == pytest.approx(1.0, abs=0.1)
    assert free[1] < 1.0 < slow[1] < 1.6
