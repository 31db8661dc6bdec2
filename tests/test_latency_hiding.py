"""Latency hiding: threads that wait, k-steps on the way, larger blocks, products merged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Arch, Designs, with_value
from npusim.errors import InputError
from npusim.models import pipeline
from npusim.models.gemm import gemm_cost
from npusim.models.kernel import kernel_cost
from npusim.models.links import FOURS
from npusim.models.memory import dram_bandwidth
from npusim.models.occupancy import LIMITS, waiting_time
from npusim.models.routine import CONVERTING, routine_shape
from npusim.parameters import PARAMETERS
from tests.builder import kernel, workload
from tests.machines import machine, operations

STAGES, FLIGHT = "gemm.stages", "units.thread_in_flight"
US = 1e-6
wired = pytest.mark.skipif("workload.merged" not in PARAMETERS,
                           reason="npusim.transforms does not offer these settings")  # fmt: skip


# --- threads that wait -----------------------------------------------------------------------

FAR = {"memories__dram__latency": 1e-6, "units__thread_in_flight": 16}


def wait(row, **changes):
    d = Designs(machine(**{**FAR, **changes}))
    return waiting_time(operations(row), d).item()


def test_threads_wait_for_each_of_their_loads_but_the_first():
    # 2 x 256 threads load 8,192 B at a time: 81,920 B are ten trips of a microsecond
    row = {"blocks": 2, "threads": 256, "read_activation": 81920.0}
    assert wait(row) == pytest.approx(9 * US)
    assert wait({**row, "read_activation": 8192.0}) == 0.0
    assert wait({**row, "read_activation": 100.0}) == 0.0  # which is the floor's
    assert wait(row, units__thread_in_flight=32) == pytest.approx(4 * US)
    assert wait({**row, "write_activation": 1e9}) == pytest.approx(9 * US)  # nobody waits


def test_blocks_that_find_no_room_come_later():
    # 2 blocks on each of 4 units: 2,048 threads, 32,768 B a trip
    row = {"blocks": 1000, "threads": 256, "read_activation": 327680.0}
    assert wait(row, units__threads=512) == pytest.approx(9 * US)
    assert wait(row, units__threads=1024) == pytest.approx(4 * US)
    row |= {"registers": 64}  # 16,384 a block
    assert wait(row, units__registers=32768) == pytest.approx(9 * US)


def test_a_level_that_is_nearer_is_waited_for_less():
    row = {"blocks": 2, "threads": 256, "read_activation": 81920.0, "distance_activation": 1.0}
    assert wait(row, memories__l2__latency=3e-7) == pytest.approx(9 * 3e-7, rel=1e-6)


def test_a_grid_that_nobody_knows_waits_for_nothing():
    assert wait({"read_activation": 1e9}) == 0.0
    d = Designs(machine())
    row = operations({"blocks": 1, "threads": 32, "read_activation": 1e9})
    assert not waiting_time(row, d).any()


@pytest.mark.parametrize("routine", ["", "vectorized"])
def test_a_kernel_takes_no_less_than_its_threads_wait(routine):
    row = {"kind": "pointwise", "routine": routine, "dtype": "fp32", "batch": 1, "m": 1, "n": 20480,
           "blocks": 2, "threads": 256, "read_activation": 81920.0}  # fmt: skip
    h200 = ns.load_arch("h200")
    short, far = (with_value(with_value(h200, FLIGHT, 16.0), "memories.dram.latency", latency)
                  for latency in (1e-8, 1e-5))  # fmt: skip
    times = [kernel_cost(operations(row), Designs(a)).memory.item() for a in (short, far)]
    assert times[1] >= 9e-5 > times[0]


# --- k-steps on the way ----------------------------------------------------------------------


@pytest.mark.parametrize(("stages", "room", "blocks", "steps"), [
    (2, 8, 1, 1), (4, 8, 1, 3), (4, 8, 2, 6), (4, 8, 100, 6), (16, 8, 1, 7), (16, 8, 100, 7),
    (4, 6, 2, 4),  # one of 4 and one of 2; one alone has 3
    (4, 1, 5, 1),  # no room: the smallest tile must do
])  # fmt: skip
def test_blocks_share_the_room_of_a_unit(stages, room, blocks, steps):
    d = Designs(machine(gemm__stages=stages, memories__l1__capacity=room * 1000.0))
    assert pipeline.flying(np.array([[1000.0]]), np.array([[float(blocks)]]), d).item() == steps


def test_units_without_local_memory_have_all_their_stages():
    d = Designs(machine(gemm__stages=5))
    assert pipeline.flying(np.array([[1e9]]), np.array([[3.0]]), d).item() == 12


# One tile of 64 x 64 and ten k-steps, resident, on a machine that takes time for latency alone.
TILE = {"kind": "gemm", "dtype": "bf16", "routine": "whole", "batch": 1, "m": 64, "n": 64, "k": 640,
        "flop": 1.0, "read_weight": 81920.0, "read_activation": 81920.0, "distance_weight": 1.0,
        "distance_activation": 1.0, "distance_kv": 1.0}  # fmt: skip
IDLE = {"units__load_rate": 1e6, "matrix__bf16__rate": 1e9, "gemm__fill": 0, "gemm__start": 0,
        "memories__l2__latency": 1e-6}  # fmt: skip


def busy(row, **changes):
    cost = gemm_cost(operations(row), Designs(machine(**{**IDLE, **changes})))
    return (cost.memory + cost.compute).item()


def test_a_step_is_a_latency_behind_those_before_it():
    rest = busy(TILE)
    assert rest < 0.05 * US
    assert busy(TILE, gemm__stages=2) == pytest.approx(10 * US, rel=1e-3)
    assert busy(TILE, gemm__stages=3) == pytest.approx(5 * US, rel=1e-3)
    assert busy(TILE, gemm__stages=11) == pytest.approx(1 * US, rel=1e-2)
    # 16 KiB a step: of eleven stages four fit, three on the way
    short = busy(TILE, gemm__stages=11, memories__l1__capacity=65536.0)
    assert short == pytest.approx(10 / 3 * US, rel=1e-3)


def test_a_shallow_pipeline_pulls_less_from_dram():
    # 4 units x 1,000 B in 1 us
    d = Designs(machine(memories__dram__latency=1e-6))
    pull = dram_bandwidth(np.array([[4.0]]), d, flying=np.array([[1000.0]])).item()
    assert pull == pytest.approx(4e9)
    few = Designs(machine(memories__dram__latency=1e-6, memories__dram__in_flight=500.0))
    assert dram_bandwidth(np.array([[4.0]]), few, flying=1000.0).item() == pytest.approx(2e9)
    # a tile's step of 16 KiB on the way: 163,840 B in 10 trips of 2 us, of one unit
    far = {**TILE, "distance_weight": np.inf, "distance_activation": np.inf}
    slow = {"memories__dram__latency": 2e-6, "memories__l2__latency": 2e-6}
    # units and DRAM take 20 us each, side by side
    assert busy(far, gemm__stages=2, **slow) == pytest.approx(20 * US, rel=1e-3)
    both = busy(far, gemm__stages=2, gemm__ramp=1e9, **slow)  # but for their ends
    assert both == pytest.approx(2**0.5 * 20 * US, rel=1e-3)
    assert busy(far, gemm__stages=5, **slow) == pytest.approx(5 * US, rel=1e-2)


SIZES = st.sampled_from([1, 8, 64, 300, 2048])
PRODUCT = st.builds(
    lambda m, n, k: {"kind": "gemv" if m == 1 else "gemm", "dtype": "bf16", "batch": 1, "m": m,
                     "n": n, "k": k, "flop": 2.0 * m * n * k, "read_weight": 2.0 * n * k,
                     "read_activation": 2.0 * m * k, "write_activation": 2.0 * m * n},
    SIZES, SIZES, SIZES)  # fmt: skip


@given(PRODUCT, st.lists(st.integers(2, 64), min_size=2, max_size=5), st.floats(0.1, 1))
def test_more_stages_and_more_room_are_never_slower(row, stages, less):
    npu = ns.load_arch("decode_npu")
    ordered = np.sort(np.array(stages, dtype=float))
    times = gemm_cost(operations(row), Designs(npu, {STAGES: ordered})).time[0]
    assert (np.diff(times) <= times[:-1] * 1e-12).all()
    room = npu["memories.l1.capacity"] * np.array([less, 1.0])
    pair = {"memories.l1.capacity": room, STAGES: np.full(2, ordered[0])}
    small, large = gemm_cost(operations(row), Designs(npu, pair)).time[0]
    assert large <= small * (1 + 1e-12)
    free = gemm_cost(operations(row), Designs(npu)).time.item()
    assert (times >= free * (1 - 1e-12)).all()


# --- nothing given, nothing changed ----------------------------------------------------------


@pytest.mark.parametrize("name", catalog.names("archs"))
def test_limits_alone_change_nothing(name):
    arch = ns.load_arch(name)
    bare = {p: v for p, v in arch.values.items() if p not in {f"units.{x}" for x in LIMITS}}
    without = Arch(arch.name, arch.title, bare, {p: arch.provenance[p] for p in bare})
    tight = arch
    for limit, value in zip(LIMITS, (64.0, 1.0, 4096.0, 2048.0), strict=True):
        tight = with_value(tight, f"units.{limit}", value)
    for w in ("deepseek_ocr_decode_grouped", "paddleocr_vl_prefill", "deepseek_ocr_vision"):
        o = ns.load_workload(w)
        o = o.operations(o.unique()[0])
        o = o.take(~np.isin(o.routine, (*CONVERTING, *FOURS)))  # which wait by wave
        before = kernel_cost(o, Designs(without))
        for other in (arch, tight):
            after = kernel_cost(o, Designs(other))
            for part in ("floor", "memory", "compute"):
                assert np.array_equal(getattr(before, part), getattr(after, part))


def test_shallow_pipelines_and_idle_threads_are_felt():
    w, npu = ns.load_workload("deepseek_ocr_decode_grouped"), ns.load_arch("decode_npu")
    npu = with_value(npu, "gemv.count", 0.0)
    walls = [
        ns.replay(w, with_value(npu, path, value), "queue").wall_s
        for path, value in ((STAGES, 64.0), (STAGES, 2.0), (FLIGHT, 1e6), (FLIGHT, 4.0))
    ]
    whole = ns.replay(w, npu, "queue").wall_s
    assert walls[0] == pytest.approx(whole, rel=0.01) and walls[1] > 1.1 * whole
    assert walls[2] == whole < 0.95 * walls[3]


@pytest.mark.parametrize(("path", "value"), [
    (STAGES, 1.0), (FLIGHT, 0.0), ("units.threads", 16.0), ("units.blocks", 0.0),
    ("units.registers", 0.0), ("units.shared_memory", 0.0)])  # fmt: skip
def test_what_no_machine_has_is_refused(path, value):
    with pytest.raises(InputError, match="out of bounds"):
        with_value(ns.load_arch("h200"), path, value)


# --- larger blocks ---------------------------------------------------------------------------

MAP = kernel("map", 1.0, 10, kind="pointwise", dtype="bf16", batch=1, m=1, n=10240,
             routine="unrolled", threads=128)  # fmt: skip


@wired
def test_blocks_are_fewer_and_larger_up_to_1024_threads():
    from npusim.transforms.block_size import enlarge_blocks

    wide, sums = {**MAP, "threads": 512, "blocks": 7}, {**MAP, "kind": "reduction"}
    unknown = {**MAP, "blocks": 0}
    w = enlarge_blocks(workload(MAP, wide, sums, unknown), 4)
    assert w["blocks"].tolist() == [3, 4, 10, 0]  # 10 / 4, 7 / 2
    assert w["threads"].tolist() == [512, 1024, 128, 128]
    assert w.meta["transforms"] == {"workload.block_scale": 4.0}
    same = workload(MAP)
    assert enlarge_blocks(same, 1) is same
    with pytest.raises(InputError, match="larger blocks already"):
        enlarge_blocks(w, 2)
    with pytest.raises(InputError, match="no pointwise kernel"):
        enlarge_blocks(workload(sums), 2)


@wired
def test_a_block_is_started_less_often():
    from npusim.transforms.block_size import enlarge_blocks

    w = workload({**MAP, "n": 512 * 1056, "blocks": 1056})
    eight = enlarge_blocks(w, 8).operations()
    h200 = Designs(ns.load_arch("h200"))
    shapes = [routine_shape(o, h200) for o in (w.operations(), eight)]
    assert [shape.rounds.item() for shape in shapes] == [8, 1]  # of 132 units
    assert shapes[0].share.item() == shapes[1].share.item() == 512 * 8
    before, after = (kernel_cost(o, h200).time.item() for o in (w.operations(), eight))
    assert after < before


# --- merged products -------------------------------------------------------------------------

WEIGHTS = {"kind": "gemv", "dtype": "bf16", "batch": 1, "m": 1, "n": 100, "k": 50, "flop": 1e4,
           "read_weight": 1e4, "read_activation": 100.0, "write_activation": 200.0}  # fmt: skip
ATTENDS = {"kind": "attention", "dtype": "bf16", "batch": 1, "m": 1, "n": 600, "k": 128,
           "heads": 16, "kv_heads": 2, "flop": 1e6, "read_kv": 614400.0,
           "read_activation": 4096.0, "write_activation": 4096.0}  # fmt: skip


@wired
def test_products_come_once_and_all_else_for_each_program():
    from npusim.transforms.merging import merge_products

    step = (kernel("q", 2.0, **WEIGHTS), kernel("norm", 1.0, kind="norm", dtype="bf16", batch=1,
            m=1, n=50), kernel("sdpa", 3.0, **ATTENDS), kernel("o", 2.0, **WEIGHTS))  # fmt: skip
    w = workload(*step)
    two = merge_products(w, 2)
    assert two.text("kernel").tolist() == ["q", "norm", "sdpa", "norm", "sdpa", "o"]
    assert two.text("kind").tolist()[0] == "gemm" and two["m"].tolist()[0] == 2
    assert two["read_weight"].tolist() == [1e4, 0, 0, 0, 0, 1e4]
    assert two["flop"].sum() == 2 * w["flop"].sum()
    assert two["read_kv"].sum() == 2 * 614400.0
    assert two["write_activation"].tolist()[0] == 400.0
    assert two["duration_s"].tolist() == [*w["duration_s"][:3].tolist(), 0, 0, w["duration_s"][3]]
    marks = ["extrapolated", "measured", "measured", "generated", "generated", "extrapolated"]
    assert two.text("origin").tolist() == marks
    assert two.meta["tokens_per_step"] == 2.0
    assert merge_products(w, 1) is w
    with pytest.raises(InputError, match="merged products already"):
        merge_products(two, 4)
    with pytest.raises(InputError, match="has no decode attention"):
        merge_products(workload(kernel("q", 2.0, **WEIGHTS)), 2)


@wired
@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped"])
def test_merging_lies_between_one_after_another_and_a_batch(name):
    from npusim.transforms import transformed

    w, npu = ns.load_workload(name), ns.load_arch("decode_npu")
    alone = ns.replay(w, npu, "queue").s_per_token
    before = alone
    for n in (2.0, 4.0, 8.0):
        merged, batch = (ns.replay(transformed(w, {path: n}), npu, "queue").s_per_token
                         for path in ("workload.merged", "workload.batch"))  # fmt: skip
        assert batch < merged < before
        before = merged
    whole = transformed(w, {"workload.batch": 4.0})
    pieces = transformed(w, {"workload.merged": 4.0})
    products = [v["flop"][v.mask("kind", "gemv", "gemm", "grouped_gemm") & (v["read_weight"] > 0)]
                for v in (whole, pieces)]  # fmt: skip
    assert products[0].sum() == pytest.approx(products[1].sum(), rel=1e-6)


@wired
def test_what_comes_after_merging_is_refused():
    from npusim.transforms import transformed

    w = transformed(ns.load_workload("paddleocr_vl_decode"), {"workload.merged": 2.0})
    for path, value in (("workload.batch", 2.0), ("workload.draft_tokens", 2.0)):
        with pytest.raises(InputError, match="its products are merged"):
            transformed(w, {path: value})
