"""The matrix array: times by hand, what tiles load, laws, and what it leaves alone."""

import re

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.errors import InputError
from npusim.models.gemm import gemm_cost
from npusim.models.hierarchy import Traffic
from npusim.models.kernel import kernel_cost
from npusim.models.roofline import bandwidth
from npusim.models.systolic import systolic_cost, takes
from npusim.models.systolic_tiles import fastest, tile_loads
from tests.machines import machine, operations

WEIGHT, OUTPUT, INPUT = range(3)
SINGLE, DOUBLE = range(2)
# Four arrays of 8 x 16 at 1 GHz, loads that cost nothing unless a test says what a unit takes.
ARRAY = {"array__rows": 8, "array__columns": 16, "array__dataflow": WEIGHT,
         "array__buffer": DOUBLE, "array__side_by_side": 1, "array__latency": 2e-7,
         "units__load_rate": 1e6}  # fmt: skip
START = 0.2e-6 + 2e-9  # a nanosecond to the first operands, one to the last results
NS = 1e-9
NPU = "decode_npu"


def product(m=1, n=64, k=64, dtype="bf16", item=2.0, batch=1, **more):
    return {"kind": "gemv" if m == 1 else "gemm", "dtype": dtype, "batch": batch, "m": m, "n": n,
            "k": k, "flop": 2.0 * batch * m * n * k, "read_weight": item * n * k * batch,
            "read_activation": item * m * k * batch, "write_activation": 2.0 * m * n * batch,
            **more}  # fmt: skip


def arrays(**changes):
    return Designs(machine(**{**ARRAY, **changes}))


def busy(row, **changes):
    """Return what a product takes beside its start [ns]."""
    return (systolic_cost(operations(row), arrays(**changes)).time.item() - START) / NS


# --- cycles on several arrays ------------------------------------------------------------------


@pytest.mark.parametrize(("flow", "buffer", "clocks"), [
    # 64 x 64 x 64 on four arrays: 8 folds of 64 on each, 16 columns of the result (of the inputs)
    (WEIGHT, DOUBLE, (8 + 64 + 8 + 16 - 2) + 7 * 64), (WEIGHT, SINGLE, 8 * (8 + 64 + 8 + 16 - 2)),
    (INPUT, DOUBLE, (8 + 64 + 8 + 16 - 2) + 7 * 64), (INPUT, SINGLE, 8 * (8 + 64 + 8 + 16 - 2)),
    # 8 x 4 folds of results, 8 on each
    (OUTPUT, DOUBLE, (64 + 8 + 16 - 2) + 7 * 64), (OUTPUT, SINGLE, 8 * (64 + 8 + 16 - 2)),
])  # fmt: skip
def test_folds_are_shared_among_arrays(flow, buffer, clocks):
    found = busy(product(64), array__dataflow=flow, array__buffer=buffer)
    assert found == pytest.approx(clocks, rel=1e-6)


@pytest.mark.parametrize(("dtype", "item", "folds"), [
    ("bf16", 2.0, 8), ("fp16", 2.0, 8), ("fp8", 1.0, 4), ("int8", 1.0, 4), ("int4", 0.5, 2),
])  # fmt: skip
def test_an_element_takes_two_values_of_eight_bits(dtype, item, folds):
    found = busy(product(64, dtype=dtype, item=item))
    assert found == pytest.approx((8 + 64 + 8 + 16 - 2) + (folds - 1) * 64, rel=1e-6)


def test_a_gemv_brings_a_row_of_weights_a_clock():
    # 16 columns each, 8 folds of one row: as long as their weights take to come in
    assert busy(product()) == pytest.approx((8 + 1 + 8 + 16 - 2) + 7 * 8, rel=1e-6)
    # all 64 elements of the input past 16 rows of weights: no more than a fold of results
    assert busy(product(), array__dataflow=OUTPUT) == pytest.approx(64 + 8 + 16 - 2, rel=1e-6)
    # one column of inputs; 16 rows of weights stream past
    found = busy(product(), array__dataflow=INPUT)
    assert found == pytest.approx((8 + 16 + 8 + 16 - 2) + 7 * 16, rel=1e-6)


def test_edges_are_padded():
    # 65 of k: nine folds; 17 columns each: two folds across, or more blocks than arrays
    assert busy(product(64, 64, 65)) == pytest.approx(94 + 8 * 64, rel=1e-6)
    assert busy(product(64, 68, 64)) > busy(product(64, 64, 64)) * 1.2


def test_arrays_run_at_the_clock_of_matrix_work():
    found = busy(product(64), units__base_clock=5e8)
    assert found == pytest.approx(2 * 542, rel=1e-6)


# --- products one behind another ---------------------------------------------------------------


@pytest.mark.parametrize("row", [
    product(4, 16, 8, batch=8),
    product(32, 16, 8, kind="grouped_gemm", groups=8, read_weight=8 * 2.0 * 16 * 8)])  # fmt: skip
@pytest.mark.parametrize(("together", "buffer", "clocks"), [
    (1, DOUBLE, 2 * (8 + 4 + 8 + 16 - 2)),  # two of the eight on each array, of one fold each
    (2, DOUBLE, (8 + 4 + 8 + 16 - 2) + 8),  # the second as soon as its weights are there
    (64, DOUBLE, (8 + 4 + 8 + 16 - 2) + 8), (64, SINGLE, 2 * (8 + 4 + 8 + 16 - 2))])  # fmt: skip
def test_products_side_by_side_fill_and_drain_once(row, together, buffer, clocks):
    found = busy(row, array__side_by_side=together, array__buffer=buffer)
    assert found == pytest.approx(clocks, rel=1e-6)


def test_an_array_for_each_product_has_nothing_to_share():
    one = busy(product(4, 16, 8, batch=4), array__side_by_side=1)
    assert one == busy(product(4, 16, 8, batch=4), array__side_by_side=64)


# --- parts of k --------------------------------------------------------------------------------

LONG = {"n": 16, "k": 4096}  # 512 folds on one array


def test_a_long_product_is_cut_in_thirty_two():
    # 2,048 folds of one strip: 64 on each of 32 arrays, a row of weights a clock; then the sum
    clocks = (8 + 1 + 8 + 16 - 2) + 63 * 8
    found = busy(product(n=16, k=2048 * 8), units__count=64, units__powered=64)
    assert found == pytest.approx(clocks + 1000, rel=1e-3)


def test_parts_of_k_cost_their_sum():
    whole, quarter = 31 + 511 * 8, 31 + 127 * 8
    assert busy(product(**LONG), gemm__reduce=1e-3) == pytest.approx(whole, rel=1e-6)
    assert busy(product(**LONG)) == pytest.approx(quarter + 1000, rel=1e-6)
    # whether a library split it binds nobody; that it left the sum to another kernel pays for it
    assert busy(product(**LONG, routine="whole")) == pytest.approx(quarter + 1000, rel=1e-6)
    # reduction kernel 0.8 us, its node 0.05 us and 0.15 us before it
    assert busy(product(**LONG, routine="split")) == pytest.approx(quarter, rel=1e-4)
    found = busy(product(**LONG, routine="split"), gemm__reduce=1.3e-6)
    assert found == pytest.approx(quarter + 300, rel=1e-4)


# --- what is loaded ----------------------------------------------------------------------------


def test_a_port_takes_the_operands_of_its_block():
    # 64 x (1 + 16) operands of 2 B and 16 results, at 8 B a ns
    found = busy(product(), units__load_rate=8)
    assert found == pytest.approx((64 * 17 * 2 + 16 * 2) / 8, rel=1e-6)


@pytest.mark.parametrize(("flow", "room"), [
    (WEIGHT, 2 * 64 * 8 * 2 + 4 * 64 * 64), (INPUT, 2 * 64 * 8 * 2 + 4 * 64 * 64),
    (OUTPUT, 2 * (64 + 64) * 64 * 2)])  # fmt: skip
def test_a_tile_that_does_not_fit_is_cut_and_loads_more(flow, room):
    # four slices of 1 B a ns; in one tile 16,384 B of operands and 8,192 B of results, in two one
    # side is loaded twice
    slow = {"memories__l2__slice_width": 1, "array__dataflow": flow}
    fits = busy(product(64), memories__l1__capacity=room, **slow)
    assert fits == pytest.approx((16384 + 8192) / 4, rel=1e-6)
    cut = busy(product(64), memories__l1__capacity=room - 1, **slow)
    assert cut == pytest.approx((16384 + 8192 + 8192) / 4, rel=1e-6)


def test_the_smallest_tile_needs_no_room():
    found = busy(product(64, 640, 640), memories__l1__capacity=1000)
    assert np.isfinite(found)


def test_dram_gives_no_more_than_its_bandwidth():
    row = product(1, 1024, 1024)  # 2,101,248 B in all
    assert busy(row, memories__dram__bandwidth=1e11) == pytest.approx(21012.48, rel=1e-4)
    # four units, each 8 B a ns of what misses
    assert busy(row, units__miss_rate=8) == pytest.approx(2101248 / 32, rel=1e-6)
    # a tile is 16 columns wide at least, however wide the array: 32 columns keep two units busy
    slow = {"units__miss_rate": 1, "gemm__reduce": 1e-3, "array__columns": 64}
    found = busy(product(1, 32, 512), **slow)
    assert found == pytest.approx((2 * 32 * 512 + 2 * 512 + 2 * 32) / 2, rel=1e-6)


def test_first_operands_take_the_latency_of_their_level():
    slow = {"memories__dram__latency": 5e-7, "memories__l2__latency": 3e-7,
            "memories__l2__capacity": 1e9}  # fmt: skip
    both = operations(product(), product(distance_weight=1.0, distance_activation=1.0))
    floors = systolic_cost(both, arrays(**slow)).floor.ravel()
    assert floors.tolist() == pytest.approx([0.2e-6 + 0.5e-6 + 0.3e-6, 0.2e-6 + 0.3e-6 + 0.3e-6])


def test_weights_in_a_memory_of_their_own_come_from_there():
    arch = with_value(ns.load_arch(NPU), "array.rows", 8.0)
    for name, value in {"capacity": 1e12, "bandwidth": 1e12, "latency": 5e-8}.items():
        arch = with_value(arch, f"memories.weight_sram.{name}", value)
    w = ns.load_workload("paddleocr_vl_decode")
    o = w.operations(np.flatnonzero(w.mask("kind", "gemv") & (w["read_weight"] > 1e8))[:1])
    cost = systolic_cost(o, Designs(arch))
    assert cost.floor.item() == pytest.approx(0.2e-6 + 0.05e-6 + 0.3e-6, rel=1e-3)
    assert cost.memory.item() == pytest.approx(o["read_weight"].item() / 1e12, rel=1e-9)


def test_narrow_weights_are_widened_once_a_block():
    # 1,024 weights in each of four blocks, two a clock
    row = product(item=2.0, read_weight=0.5 * 64 * 64)
    assert busy(row, conversion__rate=2) == pytest.approx(1024 / 2, rel=1e-6)
    assert busy(row) == busy(product())


# --- which products it takes -------------------------------------------------------------------


@pytest.mark.parametrize(("row", "taken"), [
    (product(1), True), (product(4096), True), (product(0), True), (product(4, kind="conv"), True),
    (product(512, kind="grouped_gemm", groups=64), True), (product(4, read_weight=0.0), True),
    (product(1, dtype="fp32"), False), (product(1, dtype="tf32"), False),
    (product(1, dtype="fp64"), False), (product(1, kind="attention"), False),
    (product(1, kind="pointwise"), False)])  # fmt: skip
def test_products_of_narrow_types_are_taken(row, taken):
    o = operations(row)
    assert takes(o, arrays()).item() is taken
    assert not takes(o, Designs(machine())).any()
    assert not takes(o, arrays(array__rows=0)).any()
    if taken:
        assert np.isfinite(systolic_cost(o, arrays()).time).all()


def test_a_product_of_unknown_shape_takes_its_multiplications():
    row = {"kind": "gemm", "flop": 2e6, "read_activation": 100.0}
    assert busy(row) == pytest.approx(1e6 / (4 * 8 * 16), rel=1e-6)


def test_designs_without_an_array_have_no_cost_on_it():
    d = Designs(machine(**ARRAY), {"array.rows": np.array([8.0, 0.0])})
    assert np.isfinite(systolic_cost(operations(product()), d).time).tolist() == [[True, False]]


@pytest.mark.parametrize("missing", ["array.columns", "array.dataflow", "array.buffer",
                                     "array.side_by_side", "array.latency"])  # fmt: skip
def test_an_array_without_its_numbers_is_refused(missing):
    given_ = {k: v for k, v in ARRAY.items() if k.replace("__", ".") != missing}
    with pytest.raises(InputError, match=missing):
        systolic_cost(operations(product()), Designs(machine(**given_)))


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_no_array_changes_nothing(name):
    arch = ns.load_arch(name)
    bare = {p: v for p, v in arch.values.items() if not p.startswith("array.")}  # noqa: PD011
    without = ns.Arch(arch.name, arch.title, bare, {p: arch.provenance[p] for p in bare})
    none = without
    for path, value in ARRAY.items():
        if path.startswith("array"):
            none = with_value(none, path.replace("__", "."), float(value))
    none = with_value(none, "array.rows", 0.0)
    for w in ("deepseek_ocr_decode_grouped", "paddleocr_vl_prefill", "deepseek_ocr_vision"):
        o = ns.load_workload(w)
        o = o.operations(o.unique()[0])
        before, after = (kernel_cost(o, Designs(a)) for a in (without, none))
        for part in ("floor", "memory", "compute"):
            assert np.array_equal(getattr(before, part), getattr(after, part))


def test_arrays_that_compute_in_place_keep_what_they_do_faster():
    w = ns.load_workload("paddleocr_vl_decode")
    o = w.operations(np.flatnonzero(w.mask("kind", "gemv") & (w["read_weight"] == 524288.0))[:1])
    arch = with_value(ns.load_arch(NPU), "array.rows", 8.0)
    for name, value in {
        "capacity": 1e9,
        "largest": 2e6,
        "bandwidth": 1e13,
        "latency": 1e-7,
    }.items():
        arch = with_value(arch, f"sram_compute.{name}", value)
    assert systolic_cost(o, Designs(arch)).time.item() == pytest.approx(1e-7 + 524288.0 / 1e13)


# --- laws --------------------------------------------------------------------------------------

MORE = ("units.count", "units.clock", "units.load_rate", "units.miss_rate",
        "memories.l1.capacity", "memories.dram.bandwidth", "memories.dram.in_flight",
        "memories.l2.slices", "memories.l2.slice_width", "memories.l2.clock",
        "array.side_by_side", "array.buffer")  # fmt: skip
LESS = ("array.latency", "memories.dram.latency", "memories.l2.latency", "gemm.reduce")
SHAPES = {"m": st.one_of(st.just(1), st.integers(1, 600)), "n": st.integers(1, 3000),
          "k": st.integers(1, 3000), "batch": st.sampled_from([1, 1, 3, 100]),
          "dtype": st.sampled_from(["bf16", "fp8"]), "routine": st.sampled_from(["", "split"]),
          "distance_weight": st.sampled_from([1.0, 1e8, np.inf])}  # fmt: skip
ROW = st.builds(product, **SHAPES)
KIND = {"rows": st.sampled_from([1, 4, 8, 60, 128]), "columns": st.sampled_from([1, 16, 100, 256]),
        "flow": st.integers(0, 2), "buffer": st.integers(0, 1)}  # fmt: skip


def npu(rows, columns, flow, buffer, **more):
    """Return the machine with an array, and a clock that does not fall with more units."""
    arch = ns.load_arch(NPU)
    given_ = {"array.rows": rows, "array.columns": columns, "array.dataflow": flow,
              "array.buffer": buffer, "units.powered": 1e6, **more}  # fmt: skip
    for path, value in given_.items():
        arch = with_value(arch, path, float(value))
    return arch


@settings(max_examples=40)
@given(row=ROW, path=st.sampled_from((*MORE, *LESS)), factor=st.floats(0.02, 0.98), **KIND)
def test_a_better_machine_is_never_slower(row, path, factor, rows, columns, flow, buffer):
    arch = npu(rows, columns, flow, buffer)
    pair = np.array([arch[path] * factor, arch[path]])
    pair = np.array([0.0, 1.0]) if path == "array.buffer" else pair
    pair = np.maximum(np.floor(pair), 1) if path.endswith(("count", "side_by_side")) else pair
    pair = np.maximum(pair, 1.0) if path.endswith("rate") else pair
    d = Designs(arch, {path: pair[::-1] if path in LESS else pair})
    worse, better = systolic_cost(operations(row), d).time[0]
    assert better <= worse * (1 + 1e-12)


@settings(max_examples=40)
@given(row=ROW, **KIND)
def test_nothing_beats_elements_memory_or_operands(row, rows, columns, flow, buffer):
    o, d = operations(row), Designs(npu(rows, columns, flow, buffer))
    found, values = fastest(o, d), 1 if row["dtype"] == "bf16" else 2
    least = row["flop"] / 2 / (70 * rows * columns * values * 1.8e9)
    assert found.busy.item() >= least * (1 - 1e-12)
    assert found.busy.item() >= Traffic(o, d).moved("dram").item() / bandwidth(d).item()
    assert found.loads.item() >= (row["read_weight"] + row["read_activation"]) * (1 - 1e-12)
    assert found.busy.item() >= found.loads.item() / (70 * 64 * 1.8e9)
    assert found.busy.item() >= max(found.held, found.dram, found.compute).item() * (1 - 1e-12)


@settings(max_examples=40)
@given(row=ROW, **KIND)
def test_a_larger_local_memory_loads_no_more(row, rows, columns, flow, buffer):
    # where loads are all that counts: the slices of the cache give a byte a clock
    slow = {"memories.l2.slices": 1.0, "memories.l2.slice_width": 1.0, "gemm.reduce": 1e-3}
    sizes = {"memories.l1.capacity": np.array([2.0**13, 2.0**17, 2.0**20, 2.0**30])}
    d = Designs(npu(rows, columns, flow, buffer, **slow), sizes)
    found = fastest(operations({**row, "distance_weight": 1.0, "routine": ""}), d)
    assert (np.diff(found.held[0]) <= found.held[0, :1] * 1e-12).all()


@settings(max_examples=40)
@given(row=ROW, **KIND)
def test_what_a_prefetch_saves_is_what_dram_took_longer(row, rows, columns, flow, buffer):
    arch = npu(rows, columns, flow, buffer, **{"prefetch.depth": 1e6})
    cost = systolic_cost(operations(row), Designs(arch))
    work = (cost.memory + cost.compute).item()
    assert 0 <= cost.gain.item() <= cost.ahead.item() + 1e-15
    assert cost.ahead.item() <= cost.channel.item() <= work * (1 + 1e-12)


def test_products_are_costed_the_same_alone_and_together():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    d = Designs(npu(8, 128, 0, 1), {"array.columns": np.array([64.0, 128.0, 256.0])})
    o = w.operations(w.unique()[0])
    o = o.take(takes(o, d))
    together = systolic_cost(o, d).time
    for i in range(0, len(o), 3):
        assert np.array_equal(systolic_cost(o.take(np.array([i])), d).time[0], together[i])
    narrow = Designs(npu(8, 64, 0, 1))
    assert np.array_equal(systolic_cost(o, narrow).time[:, 0], together[:, 0])


# --- measured traffic --------------------------------------------------------------------------

# Products of one row of both models: n, k; which kernel, by its name and grid.
MEASURED = {
    "paddle_decode_b1_c628": {
        ("64x8_64x16_4x1_v_bz_TNT", "(4, 8, 1)"): (2048, 1024),  # q_proj
        ("64x8_64x16_4x1_v_bz_TNT", "(4, 12, 1)"): (3072, 1024),  # gate_proj, up_proj
        ("64x8_64x16_4x1_v_bz_splitK_TNT", "(4, 8, 1)"): (1024, 3072),  # down_proj
        ("8x64_64x16_2x1_v_bz_TNN", "(2, 64, 1)"): (1024, 2048),  # o_proj
        ("8x64_64x16_4x1_v_bz_TNN", "(4, 8, 1)"): (256, 1024),  # k_proj, v_proj
    },
    "dsocr_decode_b1_c1024": {
        ("16x64_64x16_4x1_v_bz_TNN", "(4, 20, 1)"): (1280, 1280),  # attention
        ("64x8_64x16_4x1_v_bz_TNT", "(4, 27, 1)"): (6848, 1280),  # gate_proj, up_proj
        ("64x8_64x16_4x1_v_bz_TNT", "(4, 7, 1)"): (1792, 1280),  # experts
        ("64x8_64x16_4x1_v_bz_splitK_TNT", "(4, 25, 1)"): (1280, 6848),  # down_proj
    },
}  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("case", MEASURED)
def test_tiles_explain_what_products_of_one_row_load_on_an_h200(shared, case):
    """A kernel's name has its tile, weights by rows, and its cluster; rows are loaded padded."""
    path = shared / f"baselines/h200/ncu/ncu_{case}.csv.gz"
    table = pd.read_csv(path, skiprows=[1], low_memory=False)
    sectors = table["lts__t_sectors_op_read.sum"].astype(str).str.replace(",", "").astype(float)
    for (name, grid), (n, k) in MEASURED[case].items():
        these = table["Kernel Name"].str.endswith("_" + name) & (table["Grid Size"] == grid)
        across, rows, cluster = map(
            float, re.match(r"(\d+)x(\d+)_\d+x\d+_(\d+)x1", name).groups())  # fmt: skip
        strips = np.ceil(n / across) / cluster
        padded = np.array([2.0 * rows * k])
        loads = tile_loads(padded, np.array([2.0 * n * k]), np.ones(1), strips).item()
        assert loads == pytest.approx(32.0 * sectors[these].median(), rel=0.02), name
    if "paddle" in case:  # o_proj: 21 MB for 4.2 MB of weights
        these = table["Kernel Name"].str.contains("8x64_64x16_2x1")
        assert 32.0 * sectors[these].median() == pytest.approx(5.0 * 2 * 1024 * 2048, rel=0.01)


def test_the_matrix_unit_stays_where_types_are_wide():
    o = operations(product(64, dtype="fp32", item=4.0), product(64))
    with_it, without = (kernel_cost(o, Designs(machine(**extra))).time
                        for extra in (ARRAY, {"units__load_rate": 1e6}))  # fmt: skip
    assert with_it[0] == without[0] == gemm_cost(o.take(np.array([0])), arrays()).time[0]
    assert with_it[1].item() == pytest.approx(START + 542 * NS, rel=1e-6)
