"""Links of chains by hand, on four units of 1 GHz, and what measured kernels say of them."""

from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs
from npusim.library import NUMBERS
from npusim.models.amount import amount, results
from npusim.models.links import FOURS, TILED, VECTORS, links, share_results
from npusim.models.routine import routine_cost, routine_shape
from tests.machines import machine, operations

NS = 1e-9
FLOOR = 3e-6  # of one kernel of that machine
ROOT = Path(__file__).resolve().parents[1]


def design(**changes):
    return Designs(machine(host__bandwidth=1e10, **changes))  # which no row here uses


def library(routine, **numbers):
    full = {**dict.fromkeys(NUMBERS, 0), **numbers}
    return {f"library__{routine}__{name}": value for name, value in full.items()}


def rows(routine, **more):
    return operations({"kind": "pointwise", "routine": routine, "batch": 1, "m": 1, **more})


def found(row):
    return links(row, amount(row)[:, None]).item()


# --- vectors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("routine", VECTORS)
@pytest.mark.parametrize(
    ("blocks", "threads", "elements", "rest"),
    [
        (1, 128, 1024, 0),  # full, 8 a thread
        (1, 128, 1000, 8),
        (1, 128, 129, 2),
        (1, 128, 1, 1),
        (3, 128, 3072, 0),
        (3, 128, 3071, 8),
        (3, 128, 2049, 1),
        (2, 128, 1024, 0),  # full, 4 a thread
        (2, 128, 1023, 4),
        (2, 128, 513, 1),
        (1, 128, 512, 0),
        (1, 128, 2048, 0),  # full, 16 a thread
        (1, 128, 1500, 12),
        (7, 128, 6159, 1),  # 15 left to 128 threads
        (2691, 128, 2392 * 1152, 0),
        (1, 512, 4096, 0),  # a block of four
        (1, 512, 4000, 8),
        (0, 128, 1000, 0),  # nobody knows
        (1, 0, 1000, 0),
    ],
)
def test_what_the_last_block_of_vectors_takes_one_by_one(routine, blocks, threads, elements, rest):
    assert found(rows(routine, n=elements, blocks=blocks, threads=threads)) == rest


@pytest.mark.parametrize(
    ("blocks", "elements", "cycles"),
    [
        (1, 1000, 8 * 100),
        (1, 1024, 100),  # one load
        (2, 1100, 100),  # the rest of the last block, or the load of the first
        (2, 1800, 7 * 100),
    ],
)
def test_a_full_block_waits_for_one_load(blocks, elements, cycles):
    given = design(**library("vectorized", floor=1, chain=100))
    row = rows("vectorized", n=elements, blocks=blocks, threads=128)
    assert routine_cost(row, given).time.item() == pytest.approx(FLOOR + cycles * NS)


@pytest.mark.parametrize(
    ("blocks", "elements", "cycles"),
    [
        (1, 1000, 8 * 300),
        (1, 1024, 100 + 8 * 200),  # 300 less the load, eight times
        (2, 1100, 100 + 8 * 200),  # the first block is full
        (2, 1900, 7 * 300),
        (2, 1000, 4 * 300),  # 4 a thread: 100 + 4 x 200 in the first block
    ],
)
def test_functions_of_a_full_block_are_one_after_the_other(blocks, elements, cycles):
    given = design(**library("special", floor=1, chain=300), library__vectorized__chain=100)
    row = rows("special", n=elements, blocks=blocks, threads=128)
    assert routine_cost(row, given).time.item() == pytest.approx(FLOOR + cycles * NS)


def test_a_chain_shorter_than_a_load_is_a_load():
    given = design(**library("fill", floor=1, chain=30), library__vectorized__chain=100)
    row = rows("fill", n=1024, blocks=1, threads=128)
    assert routine_cost(row, given).time.item() == pytest.approx(FLOOR + 30 * NS)


# --- fours ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("routine", FOURS)
@pytest.mark.parametrize(("elements", "loads"), [(128, 1), (512, 1), (513, 2), (90_112, 176)])
def test_rows_are_loaded_four_elements_at_a_time(routine, elements, loads):
    assert found(rows(routine, n=elements, blocks=1, threads=128)) == loads


@pytest.mark.parametrize("routine", FOURS)
def test_each_wave_of_rows_waits_again(routine):
    # a unit of 2,048 threads holds 16 blocks of 128, four units 64: three waves of two links each
    row = rows(routine, m=192, n=1024, blocks=192, threads=128, write_activation=192 * 8.0,
               distance_activation=192 * 8.0)  # fmt: skip
    given = design(**library(routine, chain=100), units__threads=2048)
    # 200 cycles at first; then 400, beside 1,536 B written at 4 x 64 / 2 B a clock: 12 cycles
    assert routine_cost(row, given).time.item() == pytest.approx(
        (200 + np.hypot(400, 12)) * NS, rel=1e-3
    )


@pytest.mark.parametrize(
    ("routine", "dtype", "written", "blocks", "shared"),
    [
        ("reduce_rows", "fp32", 4.0, 20, True),
        ("reduce_rows", "fp32", 80.0, 20, False),  # a result each
        ("reduce_rows", "bf16", 40.0, 20, False),
        ("reduce_rows", "bf16", 38.0, 20, True),
        ("reduce_rows", "fp32", 0.0, 20, False),  # nobody knows
        ("reduce_arg", "bf16", 80.0, 20, True),  # ten positions of 8 B
        ("reduce_arg", "bf16", 160.0, 20, False),
        ("layer_norm", "fp32", 4.0, 20, False),
        ("reduce_rows", "fp32", 4.0, 0, False),
    ],
)
def test_blocks_share_a_result_if_there_are_more_of_them(routine, dtype, written, blocks, shared):
    row = rows(routine, dtype=dtype, n=20_480, blocks=blocks, threads=512,
               write_activation=written)  # fmt: skip
    assert share_results(row).item() == shared
    if blocks:  # two elements a thread
        assert found(row) == (8 if shared else 1)


def test_a_block_of_a_shared_result_works_again():
    row = rows("reduce_rows", dtype="fp32", n=20_480, blocks=20, threads=512,
               write_activation=4.0)  # fmt: skip
    assert results(row).tolist() == [1.0]
    shape = routine_shape(row, design())
    assert shape.rounds.item() == 6  # five on each unit, and the last one
    assert shape.share.item() == 20_480 / 4


# --- measured -------------------------------------------------------------------------------------


def test_traced_kernels_of_full_blocks_take_less_time_than_smaller_ones_with_a_rest():
    """The same kernel on an H200: 1,024 elements in a step, 700 to 1,023 in the experiment."""

    def median(w, least, most):
        at = w.mask("routine", "vectorized") & w.mask("kind", "pointwise") & (w["blocks"] == 1)
        at &= (
            w.mask("dtype", "fp32", "bf16") & (w["n"] * w["m"] >= least) & (w["n"] * w["m"] <= most)
        )
        return np.median(w["duration_s"][at])

    decode = ns.load_workload("paddleocr_vl_decode")
    drawn = ns.load_workload(ROOT / "workloads" / "experiments" / "h200_routines.parquet")
    assert 1.1 * median(decode, 1024, 1024) < median(drawn, 700, 1023)


def test_a_row_of_90_008_in_a_block_is_44_loads_of_512_threads():
    """44 loads a thread of about 450 cycles at 1.98 GHz are ten microseconds of 12.2 measured."""
    w = ns.load_workload(ROOT / "workloads" / "experiments" / "h200_routines.parquet")
    at = w.mask("routine", "reduce_rows") & w.mask("dtype", "fp32") & (w["n"] == 90_008)
    at = np.flatnonzero(at & (w["blocks"] == 6))
    shape = routine_shape(w.operations(at), Designs(ns.load_arch("h200")))
    assert set(shape.depth.ravel()) == {44.0}
    a_link = (np.median(w["duration_s"][at]) - 2e-6) / 44
    assert 0.8 < a_link * 1.98e9 / ns.load_arch("h200")["library.reduce_rows.chain"] < 1.25


# --- sums over a device ---------------------------------------------------------------------------


@pytest.mark.parametrize("routine", TILED)
@pytest.mark.parametrize(
    ("elements", "rest"), [(4096, 0), (4097, 1), (6144, 8), (8192, 0), (8191, 16), (256, 1)]
)
def test_what_is_left_of_the_last_tile_is_taken_one_by_one(routine, elements, rest):
    assert found(rows(routine, n=elements, blocks=2, threads=256)) == rest
