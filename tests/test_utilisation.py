"""Utilisation: shares by hand, what must be conserved, and shares of shipped workloads."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.durations import Durations, durations
from npusim.lanes import replay
from npusim.models.kernel import kernel_cost
from npusim.models.special import evaluations
from npusim.utilisation import UNITS, arithmetic, functions, times_at_peak, utilisation
from tests.builder import timed, workload
from tests.machines import machine, operations

NPU = "decode_npu"
NAMES = ("deepseek_ocr_decode_grouped", "paddleocr_vl_decode", "paddleocr_vl_prefill",
         "deepseek_ocr_vision")  # fmt: skip
PRODUCT = {"kind": "gemm", "dtype": "bf16", "batch": 1, "m": 512, "n": 1024, "k": 1024,
           "flop": 2.0**30, "read_weight": 2.0**21, "read_activation": 2.0**20,
           "write_activation": 2.0**20}  # fmt: skip
SILU = {"kind": "activation", "dtype": "fp32", "batch": 1, "m": 1, "n": 1_000_000, "flop": 4e6}


# --- by hand: four units at 1 GHz, 1,024 FLOP a clock on the matrix unit, 64 on lanes ------------


def test_each_unit_needs_its_work_over_its_peak():
    d = Designs(machine(memories__dram__bandwidth=1e12, special__rate=16))
    found = times_at_peak(operations(PRODUCT, SILU), d)
    assert found["matrix"].ravel() == pytest.approx([2**30 / 4096e9, 0])
    assert found["vector"].ravel() == pytest.approx([0, 4e6 / 256e9])
    assert found["special"].ravel() == pytest.approx([0, 2e6 / 64e9])
    assert found["dram"].ravel() == pytest.approx([2**22 / 1e12, 0])  # nothing is in the cache
    assert found["l2"].ravel() == pytest.approx([0, 0])
    assert set(found) == {"matrix", "vector", "special", "dram", "l2"}


def test_efficiencies_are_not_in_the_peak():
    low = machine(matrix__efficiency=0.5, vector__efficiency=0.5, memories__dram__efficiency=0.5)
    found = (times_at_peak(operations(PRODUCT, SILU), Designs(a)) for a in (machine(), low))
    before, after = found
    for unit, needed in before.items():
        assert np.array_equal(needed, after[unit])


def test_resident_bytes_are_of_the_cache():
    near = {**PRODUCT, "distance_weight": 1.0}
    d = Designs(machine(memories__l2__slice_width=16, memories__l2__capacity=1e9))
    found = times_at_peak(operations(near), d)
    assert found["l2"].item() == pytest.approx(2**21 / 64e9, rel=1e-6)  # 4 slices of 16 B a ns
    assert found["dram"].item() == pytest.approx(2**21 / 1e18, rel=1e-6)


def test_polynomials_are_work_of_the_lanes():
    special = {"special__rate": 16, "special__emulated": 18, "special__place": 2}
    found = times_at_peak(operations(SILU), Designs(machine(**special)))
    assert found["special"].item() == 0
    assert found["vector"].item() == pytest.approx((4e6 + 2e6 * 18) / 256e9)


def test_a_whole_unit_takes_elements_and_leaves_the_lanes_alone():
    found = times_at_peak(operations(SILU), Designs(machine(special__rate=64, special__whole=1)))
    assert found["special"].item() == pytest.approx(1e6 / 256e9)
    assert found["vector"].item() == 0


def test_units_beside_take_the_work_of_what_runs_there():
    unit = {"gemv__count": 4, "gemv__lanes": 128, "gemv__width": 64, "gemv__port": 1,
            "gemv__batch": 8, "gemv__latency": 2e-7}  # fmt: skip
    for dtype, values, item in (("bf16", 1, 2.0), ("fp8", 2, 1.0)):
        row = {"kind": "gemv", "dtype": dtype, "batch": 1, "m": 1, "n": 1024, "k": 1024,
               "flop": 2.0**21, "read_weight": item * 2**20}  # fmt: skip
        found = times_at_peak(operations(row), Designs(machine(**unit)))
        assert found["gemv_unit"].item() == pytest.approx(2**21 / (2 * 4 * 128 * values * 1e9))
        assert found["matrix"].item() == 0


def test_memories_that_compute_read_no_weights():
    small = {**PRODUCT, "m": 1, "kind": "gemv", "flop": 2.0**21}
    sram = {"sram_compute__capacity": 1e9, "sram_compute__largest": 1e9,
            "sram_compute__bandwidth": 1e15, "sram_compute__latency": 1e-9}  # fmt: skip
    w = workload({**small, "routine": ""})
    found = times_at_peak(w.operations(), Designs(machine(**sram)))
    assert found["sram_compute"].item() == pytest.approx(2**21 / 1e15)
    assert found["matrix"].item() == 0
    without = times_at_peak(w.operations(), Designs(machine()))
    assert without["matrix"].item() == pytest.approx(2**21 / 4096e9)
    assert found["dram"].item() < without["dram"].item() + 1e-30


def test_shares_are_of_the_wall_time_of_a_step():
    """Two steps, each of two products of 262 us of matrix work and a kernel nobody knows."""
    rows = [{**PRODUCT, "step": s} for s in (0, 0, 1, 1)]
    w = workload(rows[0], rows[1], timed(1e-3, step=0), rows[2], rows[3], timed(1e-3, step=1),
                 wall=(1.0, 1.0))  # fmt: skip
    d = Designs(machine(), {"matrix.bf16.rate": np.array([1024.0, 2048.0])})
    found = utilisation(w, d, durations(w, d), np.array([2e-3, 2e-3]))
    each = 2**30 / 4096e9
    assert found["matrix"] == pytest.approx([2 * each / 2e-3, each / 2e-3])


def test_no_unit_is_at_work_for_longer_than_the_operation_runs():
    w, d = workload(PRODUCT), Designs(machine())
    short = Durations(np.array([[1e-6], [1.0]]), np.zeros(1, dtype=np.intp), np.ones(1))
    assert utilisation(w, d, short, np.array([1e-5]))["matrix"][0] == pytest.approx(0.1)


# --- conservation -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", catalog.names("workloads"))
@pytest.mark.parametrize("arch", ["h200", "mi300x", NPU])
def test_flop_of_all_units_are_those_of_the_workload(name, arch):
    w, d = ns.load_workload(name), Designs(ns.load_arch(arch))
    rows, inverse = w.unique()
    o = w.operations(rows)
    cost = kernel_cost(o, d)
    parts = arithmetic(o, d, cost, np.zeros(cost.floor.shape), functions(o, d, cost)[1])
    assert set(parts) <= set(UNITS)
    total = sum(part[inverse].sum() for part in parts.values())
    assert total == pytest.approx(w["flop"].sum(), rel=1e-12)
    if arch == "h200":  # no unit beside: matrix and vector units do all of it
        assert parts["matrix"][inverse].sum() + parts["vector"][inverse].sum() == total


@pytest.mark.parametrize("place", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("whole", [0.0, 1.0])
def test_each_function_is_evaluated_once(place, whole):
    arch = with_value(with_value(ns.load_arch(NPU), "special.place", place), "special.whole", whole)
    w, d = ns.load_workload("deepseek_ocr_vision"), Designs(arch)
    o = w.operations(w.unique()[0])
    single, elements, on_lanes = functions(o, d, kernel_cost(o, d))
    done = single + on_lanes + np.where(elements > 0, evaluations(o)[:, None], 0.0)
    assert np.array_equal(done[:, 0], evaluations(o))
    assert (elements.any(), on_lanes.any()) == (whole > 0 and place < 2, place == 2)


def test_levels_serve_what_the_operations_move():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    o = w.operations(w.unique()[0])
    found = times_at_peak(o, Designs(h200))
    slices = ("slices", "slice_width", "clock")
    l2 = np.prod([h200[f"memories.l2.{number}"] for number in slices])
    moved = found["dram"] * h200["memories.dram.bandwidth"] + found["l2"] * l2
    assert moved[:, 0] == pytest.approx(o.bytes_moved, rel=1e-9)


# --- shares -------------------------------------------------------------------------------------

AXES = {
    "matrix.bf16.rate": st.floats(64, 1e5), "vector.fp32.rate": st.floats(8, 4096),
    "special.rate": st.floats(1, 1024), "special.whole": st.sampled_from([0.0, 1.0]),
    "special.place": st.sampled_from([0.0, 1.0, 2.0]), "units.count": st.sampled_from([8.0, 70.0]),
    "memories.dram.bandwidth": st.floats(1e11, 1e13), "gemv.count": st.sampled_from([0.0, 70.0]),
}  # fmt: skip


@settings(max_examples=30)
@given(name=st.sampled_from(NAMES), axes=st.fixed_dictionaries(AXES),
       launch=st.sampled_from(["graph", "queue"]))  # fmt: skip
def test_shares_lie_between_nothing_and_all(name, axes, launch):
    w = ns.load_workload(name)
    d = Designs(ns.load_arch(NPU), {path: np.array([value]) for path, value in axes.items()})
    time = durations(w, d)
    found = utilisation(w, d, time, replay(w, d, time, launch).wall_s)
    for share in found.values():
        assert 0 <= share[0] <= 1


def test_designs_are_told_apart():
    w = ns.load_workload("paddleocr_vl_vision")
    rates = np.array([512.0, 2048.0, 8192.0])
    d = Designs(ns.load_arch(NPU), {"matrix.bf16.rate": rates})
    time = durations(w, d)
    wall = replay(w, d, time, "graph").wall_s
    found = utilisation(w, d, time, wall)
    assert (np.diff(found["matrix"]) < 0).all()
    assert (np.diff(found["dram"]) > 0).all()
    one = with_value(ns.load_arch(NPU), "matrix.bf16.rate", 512.0)
    alone = utilisation(w, Designs(one), durations(w, Designs(one)), wall[:1])
    assert {u: s[0] for u, s in alone.items()} == pytest.approx({u: s[0] for u, s in found.items()})


def test_a_decode_step_leaves_matrix_units_idle_and_vision_does_not():
    d = Designs(ns.load_arch("h200"))
    shares = {}
    for name in ("deepseek_ocr_decode_grouped", "paddleocr_vl_vision"):
        w = ns.load_workload(name)
        time = durations(w, d)
        shares[name] = utilisation(w, d, time, replay(w, d, time, "graph").wall_s)
    decode, vision = shares.values()
    assert decode["matrix"][0] < 0.01
    assert decode["dram"][0] > 0.05
    assert vision["matrix"][0] > 0.1
    assert decode["special"][0] < vision["special"][0] < 0.1
