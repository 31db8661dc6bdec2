"""Products of one row on vector units: by hand, as laws, and beside what an H200 took."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.models.gemm import gemm_cost
from npusim.models.kernel import kernel_time
from npusim.models.vector_row import takes, vector_cost
from tests.machines import machine, operations

MEASURED = Path(__file__).parents[1] / "workloads/experiments/h200_one_row.parquet"
# Four units of 16 B a clock at 1 GHz; a reduction kernel takes 0.8 us, DRAM answers 0.4 us later
# than the cache and gives 20 B/ns.
SLOW = {
    "units__miss_rate": 16, "memories__dram__bandwidth": 20e9, "memories__dram__latency": 5e-7,
    "memories__l2__latency": 1e-7, "memories__dram__in_flight": 1e9,
}  # fmt: skip


def row(n=64, k=1000, dtype="fp32", **more):
    size = {"fp32": 4.0, "bf16": 2.0}[dtype]
    base = {"kind": "gemv", "m": 1, "n": n, "k": k, "dtype": dtype, "flop": 2.0 * n * k}
    return {**base, "read_weight": size * n * k, **more}


def test_a_resident_product_by_hand():
    # 64 results: 16 x 64 blocks fill four units, 256,000 B at 64 B/ns
    found = vector_cost(operations(row(distance_weight=1.0)), Designs(machine(**SLOW)))
    assert found.time.item() == pytest.approx(800e-9 + 4000e-9, rel=1e-3)
    assert found.floor.item() == pytest.approx(800e-9)


def test_few_results_of_a_short_reduction_fill_few_units():
    # 12 results are three blocks of four; 500 products each are not cut: 24,000 B at 48 B/ns
    found = vector_cost(operations(row(12, 500, distance_weight=1.0)), Designs(machine(**SLOW)))
    assert found.time.item() == pytest.approx(800e-9 + 500e-9, rel=1e-3)
    longer = vector_cost(operations(row(12, 1000, distance_weight=1.0)), Designs(machine(**SLOW)))
    assert longer.time.item() == pytest.approx(800e-9 + 750e-9, rel=1e-3)


def test_cold_weights_come_later_and_at_the_rate_of_dram():
    # 256,000 B: a bound of 64 B/ns and one of 20, (64^-3 + 20^-3)^(-1/3) = 19.80 B/ns
    found = vector_cost(operations(row()), Designs(machine(**SLOW)))
    reach = (64**-3 + 20**-3) ** (-1 / 3)
    assert found.time.item() == pytest.approx((800 + 400 + 256_000 / reach) * 1e-9, rel=1e-3)


def test_arithmetic_bounds_a_slow_vector_unit():
    # 128,000 FLOP at 4 x 2 a ns
    slow = machine(**SLOW, vector__fp32__rate=2)
    found = vector_cost(operations(row(distance_weight=1.0)), Designs(slow))
    assert found.time.item() == pytest.approx(800e-9 + 16_000e-9, rel=1e-3)


def test_a_library_says_whether_it_has_such_kernels():
    work = operations(row(dtype="bf16"), row(dtype="bf16", m=2), row(), row(m=2), row(groups=4))
    choices = ({}, {"gemm__vector_row": 0}, {"gemm__vector_row": 1})
    without, none, has = (Designs(machine(**SLOW, **more)) for more in choices)
    assert takes(work, without)[:, 0].tolist() == [False, False, True, False, False]
    assert takes(work, none)[:, 0].tolist() == [False, False, True, False, False]
    assert takes(work, has)[:, 0].tolist() == [True, False, True, False, False]


def test_a_column_is_a_row():
    a, b = row(), {**row(), "m": 64, "n": 1}
    times = vector_cost(operations(a, b), Designs(machine(**SLOW))).time[:, 0]
    assert times[0] == times[1]


def test_off_is_the_product_as_it_was():
    work = operations(*(row(n, k, "bf16") for n in (64, 1000) for k in (100, 4000)))
    without = gemm_cost(work, Designs(machine(**SLOW))).time
    off = gemm_cost(work, Designs(machine(**SLOW, gemm__vector_row=0))).time
    on = gemm_cost(work, Designs(machine(**SLOW, gemm__vector_row=1))).time
    np.testing.assert_array_equal(off, without)
    assert (on <= off).all()
    assert (on < off).any()


def test_it_is_an_axis():
    designs = Designs(machine(**SLOW), {"gemm.vector_row": np.array([0.0, 1.0])})
    work = operations(row(64, 300, "bf16"))
    both = gemm_cost(work, designs).time[0]
    for choice, time in enumerate(both):
        assert time == gemm_cost(work, Designs(machine(**SLOW, gemm__vector_row=choice))).time
    assert both[1] < both[0]


@given(
    n=st.integers(1, 20_000),
    k=st.integers(1, 20_000),
    units=st.integers(1, 200),
    cold=st.booleans(),
)
def test_more_never_hurts(n, k, units, cold):
    far = {} if cold else {"distance_weight": 1.0}
    work = operations(row(n, k, **far))

    def time(**more):
        return vector_cost(work, Designs(machine(**{**SLOW, "units__count": units, **more})))

    base = time().time.item()
    assert base >= 800e-9
    for more in ({"units__count": 2 * units}, {"units__miss_rate": 32},
                 {"memories__dram__bandwidth": 40e9}, {"vector__fp32__rate": 128}):  # fmt: skip
        assert time(**more).time.item() <= base * (1 + 1e-12)


def test_beside_what_an_h200_took():
    """210 products of one row in fp32; nothing of the model was fitted to them."""
    w = ns.load_workload(MEASURED)
    one = w.mask("dtype", "fp32") & w.mask("kind", "gemv")
    assert one.sum() == 210
    told = kernel_time(w.operations(), Designs(ns.load_arch("h200")))[one, 0]
    error = np.abs(told / w["duration_s"][one] - 1)
    assert np.median(error) < 0.10
    assert np.quantile(error, 0.9) < 0.25


def test_the_board_of_the_study():
    """One-row products of DeepSeek-OCR on an RTX 5090 took 3.745 us on average (nsys)."""
    arch = ns.load_arch("rtx_5090")
    expert = row(896, 1280, "bf16")
    time = gemm_cost(operations(expert), Designs(arch)).time.item()
    tiles = gemm_cost(operations(expert), Designs(with_value(arch, "gemm.vector_row", 0)))
    assert time == pytest.approx(3.74e-6, rel=0.10)
    assert tiles.time.item() > 1.2 * time
