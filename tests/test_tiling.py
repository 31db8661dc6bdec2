"""What tile and split a library takes: rules by hand, and beside kernels that cuBLAS took."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.models.gemm import gemm_cost
from npusim.models.tiling import Tiling
from tests.machines import machine, operations

MEASURED = Path(__file__).parents[1] / "workloads/experiments/h200_one_row.parquet"
NS = 1e-9
RULE = {"gemm__split_inner": 256, "gemm__split_width": 128, "gemm__split_results": 8192}
FREE = {"gemm__reduce": 0, "units__load_rate": 1e6}
STEP, FILL, OUTSIDE = 512 * NS, 100 * NS, 1500 * NS  # of a 64 x 64 tile, see test_gemm_equation


def busy(row, **changes):
    return gemm_cost(operations(row), Designs(machine(**changes))).time.item() - OUTSIDE


def test_a_short_reduction_is_never_cut():
    row = {"m": 64, "n": 64, "k": 256}
    assert busy(row, **FREE) == pytest.approx(2 * STEP + FILL, rel=1e-3)  # in two
    assert busy(row, **FREE, **RULE) == pytest.approx(4 * STEP + FILL, rel=1e-3)


def test_a_long_one_always_though_it_takes_longer():
    slow = {**FREE, "gemm__reduce": 1e-3}  # a millisecond to sum parts: whole is faster
    row = {"m": 64, "n": 64, "k": 512}
    assert busy(row, **slow) == pytest.approx(8 * STEP + FILL, rel=1e-3)
    assert busy(row, **slow, **RULE) == pytest.approx(1e-3 + 2 * STEP + FILL, rel=1e-3)


@pytest.mark.parametrize("row", [
    {"m": 64, "n": 192, "k": 512},  # wider than 128
    {"m": 128, "n": 128, "k": 512},  # 16,384 results
    {"m": 64, "n": 64, "k": 512, "dtype": "fp32"},
    {"m": 64, "n": 64, "k": 512, "batch": 2},
    {"m": 64, "n": 64, "k": 512, "routine": "whole"},
])  # fmt: skip
def test_else_what_is_faster(row):
    slow = {**FREE, "gemm__reduce": 1e-3}
    assert busy(row, **slow, **RULE) == busy(row, **slow)


def test_what_a_trace_tells_goes_before_the_rule():
    row = {"m": 64, "n": 64, "k": 128, "routine": "split"}
    assert busy(row, **FREE, **RULE) == busy(row, **FREE)


def test_a_product_that_must_be_cut_is_where_tiles_fill_the_units():
    row = {"m": 64, "n": 64, "k": 512}
    one = busy(row, units__count=1, units__powered=1, **FREE, **RULE)
    assert one == pytest.approx(8 * STEP + 2 * FILL, rel=1e-3)  # two blocks, one after the other


def test_narrow_tiles_by_hand():
    # 4 units: 64 columns in tiles of 8 are 8 blocks, of 16 four; rows are padded to 64, which are
    # loaded by each block: (64 + 16) x 2 B x 64 = 10,240 B a k-step at 64 B/ns; 64 x 16 x 64 x 2
    # FLOP at 1,024 take 128 ns
    narrow = {"gemm__narrow_rows": 4, "gemm__narrow_width": 128}
    row = {"m": 1, "n": 64, "k": 128}
    assert busy(row, gemm__reduce=1, **narrow) == pytest.approx(2 * 160 * NS + FILL, rel=1e-3)
    # five rows: a tile of 64 columns in one block, 8 rows of it used
    five = {**row, "m": 5}
    found = busy(five, gemm__reduce=1, **narrow)
    assert found == busy(five, gemm__reduce=1) == pytest.approx(2 * 144 * NS + FILL, rel=1e-3)
    wide = {**row, "n": 192}
    assert busy(wide, gemm__reduce=1, **narrow) == busy(wide, gemm__reduce=1)


def test_a_narrow_tile_has_56_columns_at_most():
    narrow = {"gemm__narrow_rows": 4, "gemm__narrow_width": 1e6}
    # one unit, 112 columns: two blocks of 56, one after the other, (64 + 56) x 128 B a step
    row = {"m": 1, "n": 112, "k": 64, "routine": "whole"}
    found = busy(row, units__count=1, units__powered=1, **narrow)
    assert found == pytest.approx(2 * (max(120 * 128 / 64, 448) * NS + FILL), rel=1e-3)


def test_exact_sums_of_fp8_have_smaller_tiles():
    fp8 = {"matrix__fp8__rate": 2048, "units__load_rate": 1e6}
    row = {"m": 128, "n": 256, "k": 128, "dtype": "fp8", "routine": "whole"}
    one = {"units__count": 1, "units__powered": 1}
    step = 2 * 128 * 256 * 64 / 2048 * NS
    assert busy(row, **fp8, **one) == pytest.approx(2 * step + FILL, rel=1e-3)
    # two tiles of 128 x 128: as much arithmetic, a block more
    cut = busy(row, **fp8, **one, gemm__fp8_tile=16384)
    assert cut == pytest.approx(2 * step + 2 * FILL, rel=1e-3)
    assert busy({**row, "dtype": "bf16"}, **one, gemm__fp8_tile=16384) == busy(
        {**row, "dtype": "bf16"}, **one
    )


def test_one_small_tile_moves_its_sums_in_the_open():
    # 64 x 64 sums every 128 of K, at 32 additions a ns: 128 ns
    fp8 = {"matrix__fp8__rate": 2048, "units__load_rate": 1e6}
    row = {"m": 64, "n": 64, "k": 256, "dtype": "fp8", "routine": "whole"}
    step = 256 * NS
    assert busy(row, **fp8) == pytest.approx(4 * step + FILL, rel=1e-3)
    exact = busy(row, **fp8, gemm__fp8_tile=20480)
    assert exact == pytest.approx(4 * step + 2 * 128 * NS + FILL, rel=1e-3)
    # five on four units: the second of a unit multiplies while the first moves its sums
    several = {**row, "n": 320}
    rounds = busy(several, **fp8, gemm__fp8_tile=4096)
    assert rounds == pytest.approx(2 * (4 * step + FILL), rel=1e-3)


@pytest.fixture(scope="module")
def kernels():
    w = ns.load_workload(MEASURED)
    of = w.mask("dtype", "bf16") & w.mask("kind", "gemv", "gemm")
    return w, np.flatnonzero(of)


def test_the_library_of_the_h200_splits_as_its_file_says(kernels):
    """Not by the routine of the trace: by type and size alone."""
    w, at = kernels
    o = w.operations().take(at)
    free = Tiling(operations(*({"m": m, "n": n, "k": k, "dtype": "bf16"}
                               for m, n, k in zip(o["m"], o["n"], o["k"], strict=True))),
                  Designs(ns.load_arch("h200")))  # fmt: skip
    everything = slice(None)
    always = free.refused((64, 64), 1, everything)[:, 0]
    never = free.refused((64, 64), 2, everything)[:, 0] & ~always
    split = w.mask("routine", "split")[at]
    narrow = (
        free.refused((64, 64), 1, everything)[:, 0] & free.refused((64, 64), 2, everything)[:, 0]
    )
    assert (always & ~narrow).sum() > 80
    assert split[always & ~narrow].all()
    assert not split[never | narrow].any()


def test_and_its_tiles_are_narrow_where_the_file_says(kernels):
    w, at = kernels
    names = w.text("kernel")
    columns = {i: int(re.search(r"tst_(\d+)x", names[i]).group(1)) for i in at}
    narrow = [i for i in at if columns[i] < 64]
    by_rule = [i for i in at if w["m"][i] <= 4 and w["n"][i] <= 1024 and w["k"][i] <= 2560]
    ours = set(by_rule)
    assert sum(i in ours for i in narrow) >= 0.6 * len(narrow)  # 16 columns to 1,536: left out
    # but for 64 and 128 columns, which have tiles of 64 for all but the shortest reductions
    assert all(columns[i] == 8 for i in by_rule if w["n"][i] > 128)


RULES = {
    "gemm.split_inner": (1, 9000), "gemm.split_width": (1, 9000), "gemm.split_results": (1, 1e6),
    "gemm.narrow_rows": (0, 64), "gemm.narrow_width": (1, 9000), "gemm.fp8_tile": (4096, 32768),
    "gemm.vector_row": (0, 1), "units.count": (1, 300),
}  # fmt: skip


@given(data=st.data(), which=st.sets(st.sampled_from(sorted(RULES))))
def test_every_rule_leaves_every_product_a_way(data, which):
    sizes = st.integers(1, 9000)
    rows = [{"m": data.draw(sizes), "n": data.draw(sizes), "k": data.draw(sizes),
             "dtype": data.draw(st.sampled_from(["bf16", "fp8", "fp32"])),
             "routine": data.draw(st.sampled_from(["", "split", "whole"]))}
            for _ in range(3)]  # fmt: skip
    axes = {path: np.array(data.draw(st.lists(st.integers(*map(int, RULES[path])),
                                              min_size=2, max_size=2)), float)
            for path in sorted(which)}  # fmt: skip
    known = {"matrix__fp8__rate": 2048.0, **{p.replace(".", "__"): v[0] for p, v in axes.items()}}
    time = gemm_cost(operations(*rows), Designs(machine(**known), axes)).time
    assert np.isfinite(time).all()
    assert (time > 0).all()
