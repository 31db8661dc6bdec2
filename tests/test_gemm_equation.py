"""Tiles, splits and local memory of matrix products by hand, on a machine of round numbers.

A k-step of a 64 x 64 tile is 2 x 64^3 FLOP at 1,024 a nanosecond: 512 ns. A block takes 100 ns
beside its steps, a product 1.5 us beside its blocks.
"""

import numpy as np
import pytest

from npusim.arch import Designs
from npusim.models.gemm import gemm_cost
from tests.machines import machine, operations

NS = 1e-9
STEP, FILL, OUTSIDE = 512 * NS, 100 * NS, 1500 * NS
FREE = {"gemm__reduce": 0, "units__load_rate": 1e6}  # sums of parts and loads


def busy(row, **changes):
    return gemm_cost(operations(row), Designs(machine(**changes))).time.item() - OUTSIDE


@pytest.mark.parametrize("parts", [2, 3, 4, 6, 8, 12, 16, 24, 32])
def test_k_is_cut_into_as_many_parts_as_there_are_units(parts):
    # two steps each, the least; one part more would have fewer
    row = {"m": 64, "n": 64, "k": 128 * parts}
    found = busy(row, units__count=parts, units__powered=parts, **FREE)
    assert found == pytest.approx(2 * STEP + FILL, rel=1e-3)


@pytest.mark.parametrize(
    ("units", "steps"),
    [
        (5, 3),  # ten steps in four parts: ceil(10 / 4)
        (10, 3),  # 20 in eight
        (20, 3),  # 40 in sixteen
        (48, 3),  # 96 in 32, the most
    ],
)
def test_other_numbers_of_parts_are_not_tried(units, steps):
    row = {"m": 64, "n": 64, "k": 128 * units}
    found = busy(row, units__count=units, units__powered=units, **FREE)
    assert found == pytest.approx(steps * STEP + FILL, rel=1e-3)


def test_a_larger_tile_needs_room_for_two_of_its_steps():
    # Five tiles of 64 x 64 are two rounds on four units, three of 64 x 128 one. Two steps of a tile
    # of 64 x 128 are 2 x 64 x (64 + 128) x 2 B = 49,152 B.
    row = {"m": 64, "n": 320, "k": 128, "routine": "whole"}
    wide, narrow = 4 * STEP + FILL, 2 * (2 * STEP + FILL)
    assert busy(row, memories__l1__capacity=49152) == pytest.approx(wide)
    assert busy(row, memories__l1__capacity=49151) == pytest.approx(narrow)
    # weights of a byte take half: 2 x 64 x (64 x 2 + 128) = 32,768 B
    stored = {**row, "read_weight": 320.0 * 128}
    assert busy(stored, memories__l1__capacity=32768) == pytest.approx(wide, rel=1e-5)
    assert busy(stored, memories__l1__capacity=32767) == pytest.approx(narrow, rel=1e-5)


def test_a_unit_holds_the_results_of_128_x_256():
    # 256 x 256 results on one unit: two blocks of 8 x 2 steps of 512 ns, never one of 16 x 2
    row = {"m": 256, "n": 256, "k": 128}
    found = busy(row, units__count=1, units__powered=1)
    assert found == pytest.approx(2 * (16 * STEP + FILL))


@pytest.mark.parametrize(
    ("m", "n", "tiles"),
    [(64, 128, 1), (64, 192, 3), (64, 256, 1), (128, 128, 1), (192, 64, 3), (192, 128, 3)],
)
def test_one_side_of_a_tile_is_a_power_of_two_the_other_may_go_by_steps(m, n, tiles):
    # on one unit; without steps smaller than 256 a side of 192 is three of 64 (of 128 it is 256)
    row, whole = {"m": m, "n": n, "k": 128}, (m // 64) * (n // 64) * 2 * STEP
    one = {"units__count": 1, "units__powered": 1}
    assert busy(row, **one) == pytest.approx(whole + FILL)  # steps of 64
    assert busy(row, **one, gemm__tile_step=256) == pytest.approx(whole + tiles * FILL)


def test_blocks_that_share_columns_are_no_more_than_there_are():
    # four blocks of 64 rows share 64 columns, a cluster of eight or not: of a cache that gives 8
    # B/ns each asks for 8,192 B of rows a step, 1,024 ns, and a fourth of as much of columns
    row = {"m": 256, "n": 64, "k": 128}
    cache = {"units__load_rate": 1e9, "memories__l2__slices": 1, "memories__l2__slice_width": 8,
             "memories__l1__capacity": 32768}  # fmt: skip
    found = busy(row, **cache, gemm__cluster=8)
    assert found == pytest.approx(4 * 2 * (1024 + 256) * NS + FILL, rel=1e-3)


def test_steps_on_the_way_lie_in_local_memory():
    # A step of eight rows of two bytes and 64 columns of one: 64 x (8 x 2 + 64) = 5,120 B. Of three
    # that find room two are on the way while one is computed: ten steps in five latencies of 1 us.
    row = {"routine": "whole", "m": 8, "n": 64, "k": 640, "read_weight": 40960.0,
           "distance_weight": 1.0}  # fmt: skip
    idle = {"units__load_rate": 1e6, "matrix__bf16__rate": 1e9, "gemm__fill": 0,
            "memories__l2__latency": 1e-6, "gemm__stages": 11}  # fmt: skip
    assert busy(row, **idle, memories__l1__capacity=15360) == pytest.approx(5e-6, rel=1e-3)
    assert busy(row, **idle, memories__l1__capacity=15359) == pytest.approx(10e-6, rel=1e-3)


def test_products_that_do_not_fit_a_block_of_the_model_are_costed_alike():
    # 20,000 designs are more than it works on at a time
    rows = operations({"m": 64, "n": 64, "k": 128}, {"m": 64, "n": 64, "k": 256})
    designs = Designs(machine(), {"gemm.fill": np.full(20000, 100.0)})
    found = gemm_cost(rows, designs).time
    each = [gemm_cost(rows.take(np.array([i])), Designs(machine())).time.item() for i in (0, 1)]
    assert (found == np.array(each)[:, None]).all()
