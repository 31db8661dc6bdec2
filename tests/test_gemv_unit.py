"""The GEMV unit: times by hand, laws, and where it loses to the matrix unit."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.durations import durations
from npusim.errors import InputError
from npusim.lanes import replay
from npusim.models.gemv_unit import gemv_unit_cost, takes
from npusim.models.hierarchy import Traffic
from npusim.models.kernel import kernel_cost, kernel_time
from npusim.models.roofline import bandwidth
from npusim.page import page_times
from npusim.traffic import traffic
from tests.machines import machine, operations

# Four engines of 128 lanes at 1 GHz, each with 64 B a clock through a port of its own.
UNIT = {"gemv__count": 4, "gemv__lanes": 128, "gemv__width": 64, "gemv__port": 1, "gemv__batch": 8,
        "gemv__latency": 2e-7}  # fmt: skip
START = 0.2e-6 + 2e-9  # a nanosecond to the first weights, one to the last results
NPU = "decode_npu"


def product(rows=1, n=1024, k=1024, dtype="bf16", item=2.0, **more):
    kind = "gemv" if rows == 1 else "gemm"
    return {"kind": kind, "dtype": dtype, "batch": 1, "m": rows, "n": n, "k": k,
            "flop": 2.0 * rows * n * k, "read_weight": item * n * k,
            "read_activation": item * rows * k, "write_activation": 2.0 * rows * n,
            **more}  # fmt: skip


def time_of(row, **changes):
    return gemv_unit_cost(operations(row), Designs(machine(**{**UNIT, **changes}))).time.item()


def test_a_port_takes_its_slice_and_the_whole_input():
    # (2,048 B of input + 2,099,200 B of weights and results / 4) / 64 B a ns = 8,232 ns
    assert time_of(product()) == pytest.approx(8.232e-6 + START, rel=1e-9)
    # as wide as its lanes: 2,048 clocks of 2^20 multiply-accumulates on 512 lanes
    assert time_of(product(), gemv__width=1024) == pytest.approx(2.048e-6 + START, rel=1e-9)


def test_rows_side_by_side_cost_arithmetic_alone():
    # 8 x 2^20 / 512 = 16,384 clocks; weights come by once: 8,512 ns
    assert time_of(product(8)) == pytest.approx(16.384e-6 + START, rel=1e-9)
    assert time_of(product(8), gemv__lanes=1024) == pytest.approx(8.512e-6 + START, rel=1e-9)


@pytest.mark.parametrize(("dtype", "item", "clocks"), [
    ("bf16", 2.0, 16384), ("fp16", 2.0, 16384), ("fp8", 1.0, 8192), ("int8", 1.0, 8192),
    ("int4", 0.5, 4096)])  # fmt: skip
def test_a_lane_takes_two_values_of_eight_bits(dtype, item, clocks):
    wide = product(8, dtype=dtype, item=item)
    found = time_of(wide, gemv__width=4096)
    assert found == pytest.approx(clocks * 1e-9 + START, rel=1e-9)


def test_dram_gives_no_more_than_its_bandwidth():
    # 2,101,248 B in all at half of 200 GB/s
    slow = {"memories__dram__bandwidth": 2e11, "memories__dram__efficiency": 0.5}
    assert time_of(product(), **slow) == pytest.approx(21.01248e-6 + START, rel=1e-9)


def test_slices_of_the_cache_are_met_softly():
    # 4 x 16 B a ns beside ports of 256: 64 / (1 + 0.25^1.5)^(1/1.5) = 59.1665 B a ns
    found = time_of(product(), memories__l2__slice_width=16)
    assert found == pytest.approx(2101248 / (64e9 / 1.125 ** (2 / 3)) + START, rel=1e-9)


def test_a_shared_port_takes_what_a_compute_unit_does():
    # 526,848 B through a port of 32 B a ns
    shared = {"gemv__port": 0, "units__load_rate": 32}
    assert time_of(product(), **shared) == pytest.approx(16.464e-6 + START, rel=1e-9)
    # 4 x 8 B a ns from DRAM: 2,101,248 / 32
    assert time_of(product(), gemv__port=0, units__miss_rate=8) == pytest.approx(
        65.664e-6 + START, rel=1e-9
    )
    assert time_of(product(), units__load_rate=32, units__miss_rate=8) == time_of(product())
    # two units have two ports, whatever the number of engines: (2,048 + 2,099,200 / 2) / 64
    assert time_of(product(), gemv__port=0, units__count=2) == pytest.approx(
        16.432e-6 + START, rel=1e-9
    )


def test_ports_are_shared_where_the_machine_does_not_say():
    silent = {k: v for k, v in UNIT.items() if k != "gemv__port"}
    row, d = operations(product()), Designs(machine(**silent, units__load_rate=32))
    assert gemv_unit_cost(row, d).time.item() == pytest.approx(16.464e-6 + START, rel=1e-9)


def test_first_weights_take_the_latency_of_their_level():
    slow = {"memories__dram__latency": 5e-7, "memories__l2__latency": 3e-7,
            "memories__l2__capacity": 1e9}  # fmt: skip
    d = Designs(machine(**UNIT, **slow))
    both = operations(product(), product(distance_weight=1.0))
    floors = gemv_unit_cost(both, d).floor.ravel()
    assert floors.tolist() == pytest.approx([0.2e-6 + 0.5e-6 + 0.3e-6, 0.2e-6 + 0.3e-6 + 0.3e-6])


def test_weights_in_a_memory_of_their_own_come_from_there():
    arch = ns.load_arch(NPU)
    own = {"capacity": 1e12, "bandwidth": 1e12, "latency": 5e-8}
    for name, value in own.items():
        arch = with_value(arch, f"memories.weight_sram.{name}", value)
    w = ns.load_workload("paddleocr_vl_decode")
    o = w.operations(np.flatnonzero(w.mask("kind", "gemv") & (w["read_weight"] > 1e8))[:1])
    cost = gemv_unit_cost(o, Designs(arch))
    assert cost.floor.item() == pytest.approx(0.2e-6 + 0.05e-6 + 0.3e-6)
    assert cost.memory.item() == pytest.approx(o["read_weight"].item() / 1e12, rel=1e-9)


# --- which products it takes -----------------------------------------------------------------


@pytest.mark.parametrize(("row", "taken"), [
    (product(1), True), (product(8), True), (product(9), False),
    (product(0), False),  # nobody knows its shape
    (product(1, dtype="fp32"), False), (product(1, dtype="tf32"), False),
    (product(1, kind="conv"), False), (product(1, kind="attention"), False),
    (product(1, read_weight=0.0), False),
    (product(6, kind="grouped_gemm", groups=64), True),  # a row for each of six experts
    (product(512, kind="grouped_gemm", groups=64), True),  # eight each
    (product(513, kind="grouped_gemm", groups=64), False),
])  # fmt: skip
def test_products_of_few_rows_with_weights_are_taken(row, taken):
    assert takes(operations(row), Designs(machine(**UNIT))).item() is taken


def test_each_design_has_its_own_accumulators_and_engines():
    d = Designs(machine(**UNIT), {"gemv.batch": np.array([1.0, 4.0, 4.0]),
                                  "gemv.count": np.array([4.0, 4.0, 0.0])})  # fmt: skip
    found = gemv_unit_cost(operations(product(1), product(4), product(5)), d).time
    assert np.isfinite(found).tolist() == [[True, True, False], [False, True, False], [False] * 3]


@pytest.mark.parametrize("missing", ["gemv.lanes", "gemv.width", "gemv.batch", "gemv.latency"])
def test_a_unit_without_its_numbers_is_refused(missing):
    given = {k: v for k, v in UNIT.items() if k.replace("__", ".") != missing}
    with pytest.raises(InputError, match=missing):
        kernel_time(operations(product()), Designs(machine(**given)))


# --- beside what computes products without one -----------------------------------------------


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_a_unit_of_no_engines_changes_nothing(name):
    arch = ns.load_arch(name)
    bare = {p: v for p, v in arch.values.items() if not p.startswith("gemv.")}
    without = ns.Arch(arch.name, arch.title, bare, {p: arch.provenance[p] for p in bare})
    none = without
    for path, value in UNIT.items():
        none = with_value(none, path.replace("__", "."), float(value))
    none = with_value(none, "gemv.count", 0.0)
    for w in ("deepseek_ocr_decode_grouped", "paddleocr_vl_prefill", "deepseek_ocr_vision"):
        o = ns.load_workload(w)
        o = o.operations(o.unique()[0])
        before, after = (kernel_cost(o, Designs(a)) for a in (without, none))
        for part in ("floor", "memory", "compute"):
            assert np.array_equal(getattr(before, part), getattr(after, part))
        assert not np.any(after.at("gemv_unit"))


def test_each_product_runs_where_it_is_faster():
    o = operations(product(1), product(64), product(8), {"kind": "pointwise", "flop": 1e3})
    with_it, without = Designs(machine(**UNIT)), Designs(machine())
    cost, elsewhere = kernel_cost(o, with_it), kernel_time(o, without)
    unit = gemv_unit_cost(o.take(np.array([0, 2])), with_it).time.ravel()
    assert cost.at("gemv_unit").ravel().tolist() == [1, 0, float(unit[1] < elsewhere[2, 0]), 0]
    least = [min(unit[0], elsewhere[0, 0]), elsewhere[1, 0], min(unit[1], elsewhere[2, 0])]
    assert cost.time.ravel()[:3].tolist() == pytest.approx(least, rel=1e-12)
    slow = Designs(machine(**{**UNIT, "gemv__latency": 1e-3}))
    assert np.array_equal(kernel_time(o, slow), elsewhere)


def test_arrays_that_compute_in_place_keep_what_they_do_faster():
    w = ns.load_workload("paddleocr_vl_decode")
    o = w.operations(np.flatnonzero(w.mask("kind", "gemv") & (w["read_weight"] == 524288.0))[:1])
    arch = ns.load_arch(NPU)
    for name, value in {
        "capacity": 1e9,
        "largest": 2e6,
        "bandwidth": 1e13,
        "latency": 1e-7,
    }.items():
        arch = with_value(arch, f"sram_compute.{name}", value)
    cost = kernel_cost(o, Designs(arch))
    assert cost.time.item() == pytest.approx(1e-7 + 524288.0 / 1e13)
    assert cost.at("gemv_unit").item() == 0
    slow = kernel_cost(o, Designs(with_value(arch, "sram_compute.latency", 1e-4)))
    assert slow.at("gemv_unit").item() == 1


@pytest.mark.parametrize(("n", "k"), [(1280, 1280), (6848, 1280), (129280, 1280)])
def test_it_loses_to_the_matrix_unit_from_some_rows_on(n, k):
    arch = with_value(ns.load_arch(NPU), "gemv.batch", 64.0)
    o = operations(*(product(rows, n, k) for rows in range(1, 65)))
    on_unit = kernel_cost(o, Designs(arch)).at("gemv_unit").ravel() > 0
    assert on_unit[:4].all()  # weights come no faster than four rows are multiplied
    assert not on_unit[-1]
    assert (np.diff(on_unit.astype(int)) <= 0).all()


def test_few_lanes_lose_earlier():
    arch = with_value(ns.load_arch(NPU), "gemv.batch", 64.0)
    o = operations(*(product(rows, 6848, 1280) for rows in range(1, 65)))
    d = Designs(arch, {"gemv.lanes": np.array([16.0, 64.0, 128.0])})
    rows = kernel_cost(o, d).at("gemv_unit").sum(axis=0)
    assert rows[0] < rows[1] < rows[2]


# --- laws ------------------------------------------------------------------------------------

MORE = ("gemv.count", "gemv.lanes", "gemv.width", "gemv.port", "gemv.batch", "units.clock",
        "units.load_rate", "units.miss_rate", "memories.dram.bandwidth", "memories.dram.in_flight",
        "memories.l2.slices", "memories.l2.slice_width", "memories.l2.clock")  # fmt: skip
LESS = ("gemv.latency", "memories.dram.latency", "memories.l2.latency")
SHAPES = {"rows": st.integers(1, 8), "n": st.integers(1, 9000), "k": st.integers(1, 9000),
          "distance_weight": st.sampled_from([1.0, 1e8, np.inf])}  # fmt: skip
ROW = st.builds(product, **SHAPES)


@given(row=ROW, path=st.sampled_from((*MORE, *LESS)), factor=st.floats(0.02, 0.98),
       port=st.sampled_from([0.0, 1.0]))  # fmt: skip
def test_a_better_unit_is_never_slower(row, path, factor, port):
    arch = with_value(ns.load_arch(NPU), "gemv.port", port)
    pair = np.array([arch[path] * factor, arch[path]])
    pair = np.array([0.0, 1.0]) if path == "gemv.port" else pair
    pair = np.maximum(np.floor(pair), 1) if path.endswith(("count", "batch", "lanes")) else pair
    pair = np.maximum(pair, 1.0) if path.endswith(("width", "rate")) else pair
    d = Designs(arch, {path: pair[::-1] if path in LESS else pair})
    worse, better = gemv_unit_cost(operations(row), d).time[0]
    assert better <= worse * (1 + 1e-12)


@given(row=ROW, port=st.sampled_from([0.0, 1.0]), width=st.floats(1, 1e5))
def test_nothing_beats_the_level_that_holds_the_weights(row, port, width):
    o = operations(row)
    d = Designs(ns.load_arch(NPU), {"gemv.port": np.array([port]), "gemv.width": np.array([width])})
    cost = gemv_unit_cost(o, d)
    busy = (cost.memory + cost.compute).item() * (1 + 1e-12)
    assert busy >= Traffic(o, d).moved("dram").item() / bandwidth(d).item()
    assert busy >= o.bytes_moved.item() / (64 * 64 * 1.8e9)  # slices of the cache
    assert busy >= row["read_weight"] / (70 * width * 1.8e9)
    assert busy >= row["flop"] / 2 / (70 * 128 * 1.8e9)
    assert cost.time.item() > 0.2e-6 + 0.3e-6


@given(row=ROW)
def test_what_a_prefetch_saves_is_what_dram_took_longer(row):
    d = Designs(with_value(ns.load_arch(NPU), "prefetch.depth", 1e6))
    cost = gemv_unit_cost(operations(row), d)
    busy = (cost.memory + cost.compute).item()
    assert 0 <= cost.gain.item() <= busy * (1 + 1e-12)
    assert cost.ahead.item() <= cost.channel.item() <= busy * (1 + 1e-12)
    assert cost.gain.item() <= cost.ahead.item() + 1e-15


def test_weights_that_are_there_leave_the_port_by_hand():
    # from DRAM at 100 GB/s; the input and results come and go by it, the weights need not
    slow = {"memories__dram__bandwidth": 1e11, "prefetch__depth": 1e9}
    cost = gemv_unit_cost(operations(product()), Designs(machine(**UNIT, **slow)))
    assert cost.channel.item() == pytest.approx(21.01248e-6, rel=1e-9)
    assert cost.ahead.item() == pytest.approx(20.97152e-6, rel=1e-9)
    assert cost.gain.item() == pytest.approx(21.01248e-6 - 8.232e-6, rel=1e-9)


def test_a_prefetch_follows_the_unit_that_is_chosen():
    o, arch = operations(product(1, 6848, 1280)), ns.load_arch(NPU)
    d = Designs(with_value(arch, "prefetch.depth", 1e6))
    found, unit = kernel_cost(o, d), gemv_unit_cost(o, d)
    assert found.at("gemv_unit").item() == 1
    for part in ("channel", "ahead", "gain"):
        assert getattr(found, part).item() == pytest.approx(getattr(unit, part).item(), rel=1e-12)
    w = ns.load_workload("paddleocr_vl_decode")
    d = Designs(arch, {"prefetch.depth": np.array([0.0, 1e6, 1e9])})
    time = durations(w, d)
    busy = replay(w, d, time, "graph").device_busy_s
    channel = time.early[0][time.row].sum(axis=0) / len(w.steps)
    assert busy[0] > busy[1] > busy[2]
    assert (busy >= channel * (1 - 1e-12)).all()


def test_the_unit_moves_no_other_bytes():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    with_it = traffic(w, Designs(ns.load_arch(NPU)))
    without = traffic(w, Designs(with_value(ns.load_arch(NPU), "gemv.count", 0.0)))
    for level, groups in with_it.items():
        for group, moved in groups.items():
            assert np.array_equal(moved, without[level][group])


# --- what a replay tells ---------------------------------------------------------------------


def test_a_replay_says_how_much_is_on_it():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    with_it = ns.replay(w, ns.load_arch(NPU), "queue")
    without = ns.replay(w, with_value(ns.load_arch(NPU), "gemv.count", 0.0), "queue")
    assert with_it.device_busy_s < without.device_busy_s
    assert set(without.products) == {"elsewhere"}
    # products in fp32 stay on vector units: 11 routers of 328 KB and the rotary frequencies, each
    # no shorter than a reduction, no longer than that, 328 KB at 2.2 TB/s and DRAM's latency
    share = with_it.products["elsewhere"] * with_it.device_busy_s
    least = ns.load_arch(NPU)["floor.reduction"]
    assert 12 * least < share < 12 * (least + 0.15e-6 + 0.7e-6)
    saved = without.products["elsewhere"] * without.device_busy_s
    saved -= sum(with_it.products.values()) * with_it.device_busy_s
    assert saved == pytest.approx(without.device_busy_s - with_it.device_busy_s, rel=1e-9)
    assert sum(with_it.limits.values()) == pytest.approx(1.0)
    (note,) = (n for n in with_it.notes if n.startswith("GEMV unit:"))
    assert "9" in note.split("%")[0]
    assert not any(n.startswith("GEMV unit:") for n in without.notes)


def test_a_page_says_it_once():
    page = ns.template("paddleocr_vl", "page", lowering="npu")
    step = page_times(page, ns.load_arch(NPU), "queue").step
    assert sum(n.startswith("GEMV unit:") for n in step.notes) == 1
    assert 0 < step.products["gemv_unit"] < 1


def test_who_asks_for_compute_units_gets_the_arrays_of_a_machine_that_has_them():
    npu = ns.with_value(ns.load_arch("decode_npu"), "array.rows", 8.0)
    w = ns.load_workload("paddleocr_vl_decode")
    there = {place: ns.replay(w, ns.with_value(npu, "products.place", place), "queue").products
             for place in ("units", "array", "gemv_unit", "fastest")}  # fmt: skip
    assert "gemv_unit" not in there["units"]
    assert there["units"] == there["array"]
    assert there["gemv_unit"]["gemv_unit"] > there["fastest"]["gemv_unit"] > 0
