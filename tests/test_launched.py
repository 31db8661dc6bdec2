"""What PyTorch launches for operators of tables, against the launches of a trace; and transfers."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.importers.routines import routine
from npusim.library import ROUTINES
from npusim.measured import read, shapes
from npusim.measured.launched import Launched, launched, pieces, reduce_rows
from npusim.measured.period import predicted
from npusim.models.memory import dram_time, l2_bandwidth
from npusim.models.roofline import bandwidth
from npusim.models.routine import transfer_time
from npusim.reuse import alone
from npusim.workload import BYTES, Operations

EXPERIMENTS = Path(__file__).parent.parent / "workloads/experiments"
TRACE = ns.load_workload(EXPERIMENTS / "h200_routines.parquet")
H200 = Designs(ns.load_arch("h200"))
SIZES = {"bf16": 2, "fp32": 4}
OPERATORS = {
    "aten::add": "add", "aten::mul": "mul", "aten::neg": "neg", "aten::pow": "pow",
    "aten::rsqrt": "rsqrt", "aten::clamp": "clamp", "aten::silu": "silu", "aten::gelu": "gelu",
    "aten::cos": "cos", "aten::sigmoid": "sigmoid", "aten::fill_": "fill", "aten::mean": "mean",
    "aten::amax": "amax", "aten::_softmax": "softmax", "aten::_fused_rms_norm": "rms_norm",
    "aten::native_layer_norm": "layer_norm",
}  # fmt: skip
# What they run on contiguous tensors and over rows; others have holes, broadcast, reduce columns.
WHOLE = {"vectorized", "special", "fill", "reduce_rows", "softmax_warp", "softmax_block",
         "rms_norm", "layer_norm"}  # fmt: skip


def traced():
    """Yield the launches of a trace that tables can ask for: name, type, rows, row, launch."""
    operator, names, dtype = (TRACE.text(c) for c in ("operator", "routine", "dtype"))
    for i in range(len(TRACE)):
        name = OPERATORS.get(operator[i])
        rows, length = int(TRACE["batch"][i] * TRACE["m"][i]), int(TRACE["n"][i])
        if name is None or dtype[i] not in SIZES or names[i] not in WHOLE:
            continue
        if names[i] == "reduce_rows" and length > 100_000:
            continue  # several blocks share a row: left out of the rule
        ran = Launched(names[i], int(TRACE["blocks"][i]), int(TRACE["threads"][i]))
        yield name, dtype[i], rows, length, ran


def test_launches_are_those_of_the_trace():
    seen = set()
    for name, dtype, rows, length, ran in traced():
        assert launched(name, dtype, SIZES[dtype], rows, length) == ran, (name, rows, length)
        seen.add((name, dtype))
    assert {n for n, _ in seen} == set(OPERATORS.values()) and len(seen) >= 30


@pytest.mark.parametrize(("into", "dtype"), [("fp32", "bf16"), ("bf16", "fp32")])
def test_casts_are_launched_as_in_the_trace(into, dtype):
    mine = TRACE.mask("operator", "aten::copy_") & TRACE.mask("kind", "cast")
    whole = TRACE.mask("routine", "vectorized", "unrolled_cast")  # others transpose or have holes
    rows = np.flatnonzero(mine & whole & TRACE.mask("dtype", into))
    moved = TRACE["read_activation"][rows] / np.prod([TRACE[c][rows] for c in "mn"], axis=0)
    rows = rows[moved == SIZES[dtype]]  # not those from int64
    assert len(rows) >= 6
    for i in rows:
        elements = int(TRACE["m"][i] * TRACE["n"][i])
        ran = (TRACE.text("routine")[i], TRACE["blocks"][i], TRACE["threads"][i])
        assert launched("cast", dtype, SIZES[dtype], 1, elements) == ran


def test_two_tensors_are_joined_as_in_the_trace():
    """Half of the blocks take each input; beyond 4,224 the library launches no more."""
    rows = np.flatnonzero(TRACE.mask("routine", "cat_vectorized") & (TRACE["write_activation"] > 0))
    told, ran = [], []
    for i in rows:
        item = SIZES[TRACE.text("dtype")[i]]
        largest = float(TRACE["m"][i] * TRACE["n"][i] * item)
        if TRACE["write_activation"][i] == 2 * largest and largest < 4224 * 2048:
            elements = int(largest / item)
            told.append(launched("cat", TRACE.text("dtype")[i], item, 1, elements).blocks)
            ran.append(int(TRACE["blocks"][i]))
    assert len(ran) >= 5 and told == ran


def test_every_name_has_a_routine_and_a_grid():
    for name in shapes.POINTWISE:
        for dtype in shapes.DTYPES:
            one = shapes.pointwise(dtype, name, 10_000)
            assert one.routine in ROUTINES and one.blocks > 0 and one.threads > 0
    assert shapes.stream("bf16", 2048.0, 2048.0).blocks == 1
    assert shapes.stream("bf16", 0.0, 4096.0).routine == "fill"


def test_names_of_kernels_give_the_same_routine():
    kernel = "void at::native::vectorized_elementwise_kernel<8, at::native::neg_kernel_cuda"
    assert launched("neg", "bf16", 2, 1, 9).routine == routine(kernel)
    assert launched("silu", "bf16", 2, 1, 9).routine == routine(kernel.replace("neg", "silu"))


def test_a_type_by_another_name_is_the_same_type():
    for name in shapes.POINTWISE:
        assert shapes.pointwise("float32", name, 640) == shapes.pointwise("fp32", name, 640)
    assert shapes.pointwise("float32", "cast", 640).work.dtype == "bf16"


def test_a_table_that_names_a_routine_leaves_its_grid_open(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("op,dtype,latency_us,name,elements,routine\n"
                    "pointwise,bf16,2,mul,5000,\n"
                    "pointwise,bf16,2,mul,5000,strided\n"
                    "pointwise,bf16,2,mul,5000,vectorized\n")  # fmt: skip
    o = read(path).operations
    assert o.routine.tolist() == ["vectorized", "strided", "vectorized"]
    assert o["blocks"].tolist() == [5, 0, 5]  # 128 threads of 8 elements
    assert o["threads"].tolist() == [128, 0, 128]


@given(st.integers(1, 10**6), st.integers(1, 8000), st.sampled_from([2, 4, 8, 16]))
def test_reductions_have_a_place_for_every_row(rows, length, at_once):
    name, blocks, threads = reduce_rows(rows, length, at_once)
    assert name == "reduce_rows" and threads & (threads - 1) == 0 and 1 <= threads <= 512
    assert blocks <= rows <= blocks * threads


@given(st.integers(0, 10**9), st.integers(1, 16))
def test_pieces_hold_all_elements_and_no_block_is_empty(elements, each):
    grid = pieces("vectorized", elements, each)
    assert (grid.blocks - 1) * 128 * each < max(elements, 1) <= grid.blocks * 128 * each


# ---------------------------------------------------------------- transfers


def moving(read_bytes, written, distance):
    columns = dict.fromkeys((*BYTES, "batch", "m", "n"), np.zeros(1))
    columns |= {"read_activation": np.array([read_bytes]),
                "write_activation": np.array([written])}  # fmt: skip
    text = (np.array([t], object) for t in ("pointwise", "bf16", "ATen", "vectorized"))
    return Operations(*text, columns, alone([distance], [distance], [distance]))


def seconds(read_bytes, written, distance, active=132.0):
    whole = np.array([[active]])
    return transfer_time(moving(read_bytes, written, distance), whole, H200).item()


def test_the_cache_takes_two_loads_for_a_store_and_both_hinder_each_other():
    rate = l2_bandwidth(np.array([[132.0]]), H200).item()
    assert seconds(8e6, 0.0, 1e6) == pytest.approx(8e6 / rate)
    assert seconds(0.0, 8e6, 1e6) == pytest.approx(2 * 8e6 / rate)
    # the 1.5-norm of 1 and 2 is (1 + 2^1.5)^(2/3) = 2.447: more than the stores alone, less than 3
    assert seconds(8e6, 8e6, 1e6) == pytest.approx((1 + 2**1.5) ** (2 / 3) * 8e6 / rate)
    assert seconds(16e6, 8e6, 1e6) == pytest.approx(2 * 2 ** (2 / 3) * 8e6 / rate)  # 2 and 2


def test_few_units_wait_for_what_they_read_but_not_for_what_they_write():
    one, none = np.full((1, 1), 1e9), np.zeros((1, 1))
    units = np.array([[8.0]])
    taken = 8 * H200["units.miss_rate"] * H200["units.clock"]
    held = 8 * H200["memories.dram.in_flight"] / H200["memories.dram.latency"]
    assert dram_time(one, none, units, H200).item() == pytest.approx(1e9 / taken.item(), rel=0.01)
    assert dram_time(none, one, units, H200).item() == pytest.approx(1e9 / held.item(), rel=0.01)
    both = dram_time(one, one, units, H200).item()
    assert both == pytest.approx(2e9 / min(held.item(), 2 * taken.item()), rel=0.01)


@given(st.floats(0, 1e10), st.floats(0, 1e10), st.integers(1, 500))
def test_a_stream_is_never_faster_than_the_memory_nor_slower_with_more_units(r, w, units):
    sides = np.full((1, 1), r), np.full((1, 1), w)
    few, more = (dram_time(*sides, np.array([[u]]), H200).item() for u in (units, 2.0 * units))
    assert (r + w) / bandwidth(H200).item() * (1 - 1e-12) <= more <= few * (1 + 1e-12)


def test_streams_of_the_experiments_on_all_and_few_units():
    """Within 15 % of every size and unit count, without a look at either."""
    m = read(EXPERIMENTS / "h200_axes.json")
    m = m.take((m.op == "stream") & (m.operations.bytes_moved > 1e8))
    error = predicted(m, H200)[:, 0] / m.seconds - 1
    assert len(m) >= 16 and (np.abs(error) < 0.15).all()
