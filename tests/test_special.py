"""Special functions: how many there are, where they run, times by hand, laws, and measurements."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs, with_value
from npusim.errors import InputError
from npusim.library import ROUTINES
from npusim.models.kernel import kernel_cost, kernel_time
from npusim.models.special import evaluations, unit_time, whole_elements
from tests.machines import machine, operations

FASTEST, SPECIAL, VECTOR = 0.0, 1.0, 2.0
NPU = "decode_npu"
RATE = 16.0  # of compute capability 9.0: CUDA C++ Programming Guide


def activation(n=1_000_000, flop=4, kind="activation", **more):
    return {"kind": kind, "batch": 1, "m": 1, "n": n, "flop": float(flop) * n, **more}


# --- how many ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("row", "needed", "elements"), [
    (activation(1000, 4), 2000, 1000),  # SiLU
    (activation(1000, 5), 2000, 1000),  # SiLU and a gate; quick GELU
    (activation(1000, 3), 2000, 1000),  # sigmoid
    (activation(1000, 8), 1000, 1000),  # GELU
    (activation(1000, 1), 0, 1000),  # ReLU
    ({"kind": "softmax", "batch": 1, "m": 10, "n": 100, "flop": 5e3}, 1010, 1000),
    ({"kind": "norm", "batch": 2, "m": 10, "n": 100, "flop": 8e3}, 20, 2000),
    ({"kind": "pointwise", "routine": "special", "batch": 1, "m": 3, "n": 7, "flop": 21.0}, 21, 0),
    ({"kind": "pointwise", "routine": "vectorized", "batch": 1, "m": 3, "n": 7}, 0, 0),
    ({"kind": "gemm", "batch": 1, "m": 3, "n": 7, "k": 9, "flop": 378.0}, 0, 0),
    ({"kind": "fused", "batch": 1, "m": 3, "n": 7, "flop": 100.0}, 0, 0),  # nobody knows
    ({"kind": "fused", "batch": 1, "m": 3, "n": 7, "flop": 100.0, "heads": 42}, 42, 0),
    # two sequences, eight heads, half of 64 x 64 scores each: 4 FLOP a score and number of a key
    ({"kind": "attention", "batch": 2, "m": 64, "n": 64, "k": 128, "heads": 8, "kv_heads": 8,
      "flop": 2 * 8 * 2048 * 4 * 128.0}, 2 * 8 * (2048 + 64), 0),
])  # fmt: skip
def test_functions_are_counted_by_kind_and_routine(row, needed, elements):
    o = operations(row)
    assert evaluations(o).tolist() == [needed]
    assert whole_elements(o).tolist() == [elements]


# --- times by hand: four units at 1 GHz with 64 FLOP a clock each ------------------------------


def busy(row, **special):
    """Return the time beside the floor [us]."""
    arch = machine(**{f"special__{name}": value for name, value in special.items()})
    return (kernel_cost(operations(row), Designs(arch)).compute.item()) * 1e6


def test_a_stream_takes_the_longer_of_lanes_and_special_unit():
    # a SiLU of 10^6: 4 x 10^6 FLOP on 256 a ns; 2 x 10^6 functions on 4 x 16 a ns
    assert busy(activation()) == pytest.approx(15.625, rel=1e-12)
    assert busy(activation(), rate=16) == pytest.approx(31.25, rel=1e-12)
    assert busy(activation(), rate=64) == pytest.approx(15.625, rel=1e-12)


def test_polynomials_take_the_lanes_beside_the_rest():
    # 2 x 10^6 x 18 FLOP on 256 a ns: 140.625 us more
    given_ = {"rate": 16, "emulated": 18, "place": VECTOR}
    assert busy(activation(), **given_) == pytest.approx(156.25, rel=1e-12)
    half = machine(vector__efficiency=0.5, **{f"special__{k}": v for k, v in given_.items()})
    found = kernel_cost(operations(activation()), Designs(half)).compute.item()
    assert found == pytest.approx(312.5e-6, rel=1e-12)


def test_each_operation_goes_where_it_is_faster():
    # two FLOP a function: (4 + 4) x 10^6 / 256 = 31.25 us on lanes, 250 on a unit of 2 a clock
    given_ = {"rate": 2, "emulated": 2}
    assert busy(activation(), **given_) == pytest.approx(31.25, rel=1e-12)
    assert busy(activation(), **given_, place=FASTEST) == pytest.approx(31.25, rel=1e-12)
    assert busy(activation(), **given_, place=SPECIAL) == pytest.approx(250.0, rel=1e-12)
    assert busy(activation(), rate=32, emulated=2) == pytest.approx(15.625, rel=1e-12)


def test_a_whole_unit_takes_an_element_a_result():
    # 10^6 elements on 4 x 16 a ns, without any instruction; at 64 a clock a quarter
    assert busy(activation(), rate=16, whole=1) == pytest.approx(15.625, rel=1e-12)
    assert busy(activation(), rate=64, whole=1) == pytest.approx(3.90625, rel=1e-12)
    norm = {"kind": "norm", "batch": 1, "m": 1000, "n": 1000, "flop": 8e6}
    assert busy(norm, rate=16) == pytest.approx(31.25, rel=1e-12)  # 8 x 10^6 FLOP on lanes
    assert busy(norm, rate=64, whole=1) == pytest.approx(3.90625, rel=1e-12)
    # what it does not do keeps its instructions
    cosine = {**activation(flop=4, kind="pointwise"), "routine": "special"}
    assert busy(cosine, rate=64, whole=1) == pytest.approx(15.625, rel=1e-12)


def test_a_slow_whole_unit_is_left_alone_unless_a_policy_sends_work_there():
    assert busy(activation(), rate=4, emulated=1, whole=1) == pytest.approx(23.4375, rel=1e-12)
    sent = {"rate": 4, "emulated": 1, "whole": 1, "place": SPECIAL}
    assert busy(activation(), **sent) == pytest.approx(62.5, rel=1e-12)
    assert busy(activation(), **{**sent, "place": VECTOR}) == pytest.approx(23.4375, rel=1e-12)


ROUTINE = {"library__special__floor": 1, "library__special__block": 100, "host__bandwidth": 1e9}
BLOCKS = activation(8000, 4, routine="special", blocks=8, threads=128)


def of_routine(**special):
    """Return the time of eight blocks on four units beside the floor [ns]."""
    arch = machine(**ROUTINE, **{f"special__{name}": value for name, value in special.items()})
    return kernel_cost(operations(BLOCKS), Designs(arch)).compute.item() * 1e9


def test_a_routine_takes_the_longer_of_its_cycles_and_its_functions():
    # two blocks of 100 cycles on a unit; 4,000 functions and 2,000 elements there
    assert of_routine() == pytest.approx(200.0)
    assert of_routine(rate=64) == pytest.approx(200.0)
    assert of_routine(rate=16) == pytest.approx(250.0)
    assert of_routine(rate=16, whole=1) == pytest.approx(125.0)
    assert of_routine(rate=16, emulated=18, place=VECTOR) == pytest.approx(200.0 + 1125.0)


def test_floors_stay_where_a_whole_unit_does_the_rest():
    arch = machine(**ROUTINE, library__special__chain=50, special__rate=1e9, special__whole=1)
    cost = kernel_cost(operations(BLOCKS), Designs(arch))
    # 832 elements of the last block are left to 128 threads
    assert cost.floor.item() == pytest.approx(3e-6 + 7 * 50e-9)
    assert cost.time.item() == pytest.approx(cost.floor.item(), rel=1e-6)


PREFILL = {"library__cudnn_prefill__start": 1, "library__cudnn_prefill__helpers": 0,
           "library__cudnn_prefill__block": 0, "library__cudnn_prefill__share": 1,
           "library__cudnn_prefill__softmax": 8, "matrix__bf16__rate": 1e9,
           "units__load_rate": 1e6}  # fmt: skip


@pytest.mark.parametrize(("special", "clocks"), [
    ({}, 2048), ({"rate": 16}, 2048), ({"rate": 4}, 4096), ({"rate": 64}, 2048),
    ({"rate": 64, "whole": 1}, 256),
    ({"rate": 4, "emulated": 8, "place": VECTOR}, 2048 + 2048),
])  # fmt: skip
def test_exponentials_bound_the_softmax_of_a_tile(special, clocks):
    """One tile of 128 x 128 scores: 2,048 clocks at the 8 a clock of the library."""
    row = {"kind": "attention", "batch": 1, "m": 128, "n": 128, "k": 64, "heads": 1,
           "kv_heads": 1, "flop": 4.0 * 128 * 128 * 64, "library": "cuDNN"}  # fmt: skip
    arch = machine(**PREFILL, **{f"special__{name}": value for name, value in special.items()})
    cost = kernel_cost(operations(row), Designs(arch))
    assert cost.compute.item() == pytest.approx(clocks * 1e-9, rel=1e-3)


DECODE = {"library__cudnn_decode__start": 1, "library__cudnn_decode__helpers": 0,
          "library__cudnn_decode__block": 0, "library__cudnn_decode__share": 1,
          "library__cudnn_decode__combine": 0, "library__cudnn_decode__part": 0,
          "matrix__bf16__rate": 1024, "units__load_rate": 1e6}  # fmt: skip


@pytest.mark.parametrize(
    ("special", "clocks"), [({}, 512), ({"rate": 8}, 512), ({"rate": 2}, 1024)]
)
def test_a_decode_tile_takes_the_longer_of_products_and_exponentials(special, clocks):
    """A tile of 16 x 128 scores: 524,288 FLOP at 1,024 a clock, 2,048 exponentials."""
    row = {"kind": "attention", "batch": 4, "m": 1, "n": 128, "k": 64, "heads": 1, "kv_heads": 1,
           "flop": 4.0 * 4 * 128 * 64, "library": "cuDNN", "routine": "whole", "blocks": 4,
           "threads": 128}  # fmt: skip
    arch = machine(**DECODE, **{f"special__{name}": value for name, value in special.items()})
    cost = kernel_cost(operations(row), Designs(arch))
    assert cost.compute.item() == pytest.approx(clocks * 1e-9, rel=1e-3)


def test_lanes_that_do_not_say_what_a_function_takes_are_refused():
    with pytest.raises(InputError, match=r"special\.emulated"):
        busy(activation(), rate=16, place=VECTOR)
    assert busy(activation(), rate=16, place=SPECIAL) == pytest.approx(31.25)


def test_a_place_is_read_by_its_name():
    npu = with_value(ns.load_arch(NPU), "special.place", "vector")
    assert npu["special.place"] == VECTOR
    with pytest.raises(InputError, match="fastest, special, vector"):
        with_value(npu, "special.place", "lanes")


# --- what stays as it was -----------------------------------------------------------------------


def test_a_machine_that_does_not_say_how_fast_they_are_keeps_its_times():
    instructions = np.array([[1e-6, 2e-6]])
    d = Designs(machine(special__whole=1, special__emulated=18, special__place=VECTOR))
    assert unit_time(instructions, np.full((1, 1), 1e9), np.full((1, 1), 1e9), d) is instructions
    bare = Designs(machine())
    o = operations(activation(), {"kind": "softmax", "m": 10, "n": 10, "flop": 500.0}, BLOCKS)
    assert np.array_equal(kernel_time(o, d), kernel_time(o, bare))


@pytest.mark.parametrize("name", [n for n in catalog.names("archs") if n not in (NPU, "tpu_v6e")])
def test_the_documented_rate_of_a_gpu_moves_no_bit_of_the_shipped_traces(name):
    """Cycles of routines hold what their functions take: 16 a clock never take longer."""
    arch = ns.load_arch(name)
    bare = {p: v for p, v in arch.values.items() if not p.startswith("special.")}
    without = ns.Arch(arch.name, arch.title, bare, {p: arch.provenance[p] for p in bare})
    given_ = with_value(without, "special.rate", RATE)
    for w in ("deepseek_ocr_decode", "paddleocr_vl_prefill", "deepseek_ocr_vision"):
        trace = ns.load_workload(w)
        o = trace.operations(trace.unique()[0])
        before, after = (kernel_cost(o, Designs(a)) for a in (without, given_))
        assert evaluations(o).sum() > 0
        for part in ("floor", "memory", "compute"):
            assert np.array_equal(getattr(before, part), getattr(after, part))


# --- laws ---------------------------------------------------------------------------------------

KINDS = st.sampled_from(["activation", "softmax", "norm", "pointwise"])
ROW = st.builds(
    lambda kind, routine, m, n, flop, blocks: {
        "kind": kind, "routine": routine, "batch": 1, "m": m, "n": n, "flop": float(flop * m * n),
        "blocks": blocks, "threads": 128, "read_activation": 2.0 * m * n},
    KINDS, st.sampled_from(["", "special", "strided", "softmax_warp", "layer_norm"]),
    st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([1, 4, 8]), st.integers(0, 500),
)  # fmt: skip
NUMBERS = {"rate": st.floats(1, 500), "emulated": st.floats(1, 100),
           "whole": st.sampled_from([0.0, 1.0])}  # fmt: skip


@given(row=ROW, place=st.sampled_from([FASTEST, SPECIAL, VECTOR]), **NUMBERS)
def test_a_faster_unit_is_never_slower(row, rate, emulated, whole, place):
    columns = {"rate": [rate, 2 * rate, 2 * rate], "emulated": [emulated, emulated, emulated / 2],
               "whole": [whole] * 3, "place": [place] * 3}  # fmt: skip
    columns["emulated"] = np.maximum(columns["emulated"], 1.0)
    d = Designs(ns.load_arch(NPU), {f"special.{k}": np.array(v) for k, v in columns.items()})
    time = kernel_time(operations(row), d)[0]
    assert time[0] >= time[1] >= time[2]


@given(row=ROW, **NUMBERS)
def test_the_fastest_place_is_as_fast_as_either_policy(row, rate, emulated, whole):
    columns = {"rate": [rate] * 3, "emulated": [emulated] * 3, "whole": [whole] * 3,
               "place": [FASTEST, SPECIAL, VECTOR]}  # fmt: skip
    d = Designs(ns.load_arch(NPU), {f"special.{k}": np.array(v) for k, v in columns.items()})
    fastest, special, vector = kernel_time(operations(row), d)[0]
    assert fastest <= min(special, vector)


@given(row=ROW, rate=st.floats(1, 500))
def test_a_whole_unit_slows_nothing_that_may_stay(row, rate):
    d = Designs(ns.load_arch(NPU), {"special.rate": np.full(2, rate),
                                    "special.whole": np.array([0.0, 1.0])})  # fmt: skip
    functions, whole = kernel_time(operations(row), d)[0]
    assert whole <= functions


def test_designs_are_costed_as_one_by_one():
    o = operations(activation(), {"kind": "softmax", "m": 99, "n": 99, "flop": 5e4}, BLOCKS)
    columns = {"rate": [4.0, 16.0, 64.0, 64.0], "place": [0.0, 1.0, 2.0, 0.0],
               "whole": [0.0, 1.0, 0.0, 1.0]}  # fmt: skip
    npu = ns.load_arch(NPU)
    whole = kernel_time(o, Designs(npu, {f"special.{k}": np.array(v) for k, v in columns.items()}))
    for i in range(4):
        one = npu
        for name, values in columns.items():
            one = with_value(one, f"special.{name}", values[i])
        assert np.array_equal(whole[:, i], kernel_time(o, Designs(one))[:, 0])


# --- measured on an H200 ------------------------------------------------------------------------


def test_no_measured_kernel_is_faster_than_its_special_functions(root):
    """Sixteen a clock and unit bound what was measured; the nearest reaches 35 % of it."""
    w = ns.load_workload(root / "workloads" / "experiments" / "h200_routines.parquet")
    h200 = ns.load_arch("h200")
    rows = np.flatnonzero(w.mask("kind", "activation", "softmax", "norm")
                          | w.mask("routine", "special"))  # fmt: skip
    needed = evaluations(w.operations(rows))
    per_clock = needed / w["duration_s"][rows] / h200["units.count"] / h200["units.clock"]
    assert len(rows) > 200
    assert set(w.text("routine")[rows]) - {""} <= set(ROUTINES)
    assert (per_clock < RATE).all()
    assert 5.0 < per_clock.max() < 8.0


def test_no_measured_attention_is_faster_than_its_exponentials(root):
    """Prefill attention of an H200, not causal: the nearest reaches 45 % of 16 a clock."""
    axes = json.loads((root / "workloads" / "experiments" / "h200_axes.json").read_text())
    rows = [row for row in axes if row["axis"] == "prefill_attention"]
    clocks = 1.98e9 * 132 * 1e-6
    per_clock = [
        row["h"] * (row["s"] ** 2 + row["s"]) / (row["us_per_op"] * clocks) for row in rows
    ]
    assert len(rows) == 48
    assert max(per_clock) < RATE
    assert 5.0 < max(per_clock) < 8.5
