"""Products in another type: bytes by hand, laws, refusals, and the measured axis."""

import csv
import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs, with_value
from npusim.errors import InputError
from npusim.measured.experiments import read_axes
from npusim.measured.period import predicted
from npusim.models.kernel import kernel_time
from npusim.transforms import changes, present, refuse_without_rate, transformed
from npusim.transforms.precision import ARITHMETIC, QUANTIZE, SCALES, dtype_of
from npusim.units import CHOICES, parse, show
from npusim.workload import COLUMNS
from tests.builder import kernel, workload

TRACED, BF16, FP16, E4M3, E5M2, INT8, INT4 = (float(i) for i in range(7))
TENSOR, CHANNEL, GROUP = 0.0, 1.0, 2.0
KERNEL, NATIVE = 0.0, 1.0
PRODUCTS = ("gemv", "gemm", "grouped_gemm", "conv")
NAMES = ("operator", "kind", "dtype", "m", "n", "flop", "read_weight", "read_activation",
         "write_activation")  # fmt: skip


def point(read, write, m=1, **more):
    return kernel("mul", operator="mul", dtype="bf16", batch=1, m=m, n=write // 2 // m,
                  read_activation=float(read), write_activation=float(write), **more)  # fmt: skip


def product(n, k, m=1, dtype="bf16", bias=False, item=2, **more):
    return kernel("mm", operator="mm", kind="gemv" if m == 1 else "gemm", dtype=dtype, batch=1,
                  m=m, n=n, k=k, flop=2.0 * m * n * k, library="cuBLAS", routine="whole",
                  read_weight=float(item * n * k + (item * n if bias else 0)),
                  read_activation=float(item * m * k), write_activation=2.0 * m * n,
                  **more)  # fmt: skip


# Numbers that one product reads, and a second one.
ONE = (point(8192, 4096), product(1024, 2048))
TWO = (*ONE, product(512, 2048))


def columns(w, names=("dtype", "flop", "read_weight", "read_activation", "write_activation")):
    return list(zip(*(w.text(c) if c == "dtype" else w[c] for c in names), strict=True))


def change(rows, **settings):
    return transformed(workload(*rows), {f"workload.{name}": v for name, v in settings.items()})


# --- bytes by hand ---------------------------------------------------------------------------


def test_native_fp8_halves_weights_and_inputs_and_keeps_the_rest():
    w = change(ONE, arithmetic=E4M3, quantize=NATIVE)
    # 1024 x 2048 weights of a byte, 2048 inputs of a byte, 1024 results of two
    assert columns(w) == [("bf16", 0.0, 0.0, 8192.0, 2048.0),
                          ("fp8", 4194304.0, 2097152.0, 2048.0, 2048.0)]  # fmt: skip
    assert changes(w) == {ARITHMETIC: E4M3, SCALES: TENSOR, QUANTIZE: NATIVE}
    assert w.text("origin").tolist() == ["extrapolated"] * 2


@pytest.mark.parametrize(("asked", "weights", "inputs"), [
    ({"arithmetic": INT8}, 2097152.0, 2048.0),
    ({"arithmetic": INT4}, 1048576.0, 1024.0),
    ({"arithmetic": FP16}, 4194304.0, 4096.0),
    ({"arithmetic": E4M3, "scales": CHANNEL}, 2097152.0 + 4096, 2052.0),  # 4 B a column, 4 a row
    # 128 weights share 2 B, 128 inputs 4 B: 16,384 and 16 groups
    ({"arithmetic": E4M3, "weight_group": 128}, 2097152.0 + 32768, 2048.0 + 64),
    ({"arithmetic": E4M3, "weight_bits": 4}, 1048576.0, 2048.0),
    ({"arithmetic": INT4, "scales": GROUP, "weight_group": 64}, 1048576.0 + 65536, 1024.0 + 128),
])  # fmt: skip
def test_bytes_of_types_and_scales(asked, weights, inputs):
    w = change(ONE, quantize=NATIVE, **asked)
    assert (w["read_weight"][1], w["read_activation"][1]) == (weights, inputs)
    assert w["write_activation"].tolist() == [inputs, 2048.0]


def test_scales_of_channels_without_a_change_of_arithmetic():
    w = change(ONE, weight_bits=4, scales=CHANNEL)
    assert w["read_weight"][1] == 1048576.0 + 4096
    assert columns(w)[1][0] == "bf16"
    assert changes(w) == {"workload.weight_bits": 4.0, SCALES: CHANNEL}
    as_is = change(ONE, scales=CHANNEL, arithmetic=TRACED)
    assert changes(as_is) == {}  # nothing is narrow, so nothing has a scale


def test_a_bias_stays():
    rows = (point(8192, 4096), product(1024, 2048, bias=True))
    assert change(rows, arithmetic=E4M3)["read_weight"][-1] == 2097152.0 + 2048


def test_a_kernel_narrows_inputs_once_for_all_that_read_them():
    w = change(TWO, arithmetic=E4M3)
    cast = ("quantize", "cast", "fp8", 1, 2048, 2048.0, 0.0, 4096.0, 2048.0)
    rows = list(zip(*(w.text(c) if c in w.labels else w[c] for c in NAMES), strict=True))
    assert rows[1] == cast
    assert [r[1] for r in rows] == ["pointwise", "cast", "gemv", "gemv"]
    assert w["write_activation"][0] == 4096.0  # as before
    assert (w["blocks"][1], w["threads"][1]) == (4, 128)
    assert w.text("origin")[1] == "generated"
    assert not w["host_s"][1] and not w["duration_s"][1]


def test_scales_of_rows_need_a_reduction():
    rows = (point(8 * 8192, 8 * 4096, m=8), product(1024, 2048, m=8))
    w = change(rows, arithmetic=E4M3, scales=CHANNEL)
    assert w.text("kind").tolist() == ["pointwise", "reduction", "gemm"]
    # reads 8 rows of 2,048 numbers, looks at each twice, writes a byte each and 4 a row
    assert columns(w)[1] == ("fp8", 32768.0, 0.0, 32768.0, 16384.0 + 32)
    assert w["blocks"][1] == 8
    assert columns(w)[2][3] == 16384.0 + 32


def test_other_inputs_have_a_kernel_of_their_own():
    rows = (*ONE, point(4096, 4096), product(512, 2048))
    assert change(rows, arithmetic=INT8).text("kind").tolist() == [
        "pointwise", "cast", "gemv", "pointwise", "cast", "gemv"]  # fmt: skip


def test_what_is_read_wide_too_is_written_twice():
    rows = (*ONE, point(4096, 1024))
    w = change(rows, arithmetic=E4M3, quantize=NATIVE)
    assert w["write_activation"].tolist() == [4096.0 + 2048, 2048.0, 1024.0]
    assert w["read_activation"].tolist() == [8192.0, 2048.0, 4096.0]


def test_what_comes_from_before_the_step_is_narrow_already():
    w = change((product(1024, 2048),), arithmetic=E4M3, quantize=NATIVE)
    assert columns(w) == [("fp8", 4194304.0, 2097152.0, 2048.0, 2048.0)]


@pytest.mark.parametrize("other", [
    product(64, 1280, dtype="fp32", item=4), kernel("sdpa", kind="attention", dtype="bf16", m=1,
    n=600, k=128, heads=16, kv_heads=2, flop=1e6, read_kv=1e5, read_activation=4096.0),
    kernel("bmm", kind="gemm", dtype="bf16", m=8, n=8, k=64, flop=8192.0, read_activation=2048.0),
    kernel("embedding", kind="gather", dtype="bf16", read_weight=2560.0),
])  # fmt: skip
def test_what_is_no_product_of_narrow_weights_stays(other):
    w = change((*ONE, other), arithmetic=E4M3, quantize=NATIVE)
    names = [c for c in COLUMNS if c not in w.labels]
    assert [w[c][2] for c in names] == [workload(*ONE, other)[c][2] for c in names]
    assert w.text("dtype")[2] == other["dtype"]


def test_products_narrower_than_the_type_stay():
    rows = (*ONE, product(512, 2048, dtype="int4", item=0.5))
    w = change(rows, arithmetic=E4M3, quantize=NATIVE)
    assert w.text("dtype").tolist() == ["bf16", "fp8", "int4"]
    assert w["read_weight"][2] == 524288.0


def test_formats_of_eight_bits_differ_in_name_alone():
    four, five = (change(TWO, arithmetic=a) for a in (E4M3, E5M2))
    assert columns(four) == columns(five)
    assert [dtype_of(a) for a in (E4M3, E5M2)] == ["fp8", "fp8"]


def test_names_are_read_and_shown():
    assert parse("fp8_e5m2", "arithmetic") == E5M2
    assert show(CHANNEL, "scales") == "channel"
    assert CHOICES["quantize"] == ("kernel", "native")


# --- laws ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped"])
def test_settings_as_they_are_change_nothing(name):
    w = ns.load_workload(name)
    assert transformed(w, {ARITHMETIC: TRACED, SCALES: CHANNEL, QUANTIZE: NATIVE}) is w
    assert present(w, ARITHMETIC) == TRACED
    once = transformed(w, {ARITHMETIC: INT8})
    assert transformed(once, {ARITHMETIC: INT8}) is once


@pytest.mark.parametrize("name", ["paddleocr_vl_decode_b8", "paddleocr_vl_prefill",
                                  "deepseek_ocr_decode"])  # fmt: skip
@pytest.mark.parametrize("who", [KERNEL, NATIVE])
def test_products_do_the_same_arithmetic(name, who):
    w = ns.load_workload(name)
    after = transformed(w, {ARITHMETIC: E4M3, QUANTIZE: who})
    shapes = ("m", "n", "k", "batch", "flop", "write_activation")
    before, then = (v.mask("kind", *PRODUCTS) for v in (w, after))
    names = shapes if who == KERNEL else shapes[:-1]  # a native product may feed another
    for column in names:
        assert np.array_equal(w[column][before], after[column][then])


@given(st.sampled_from([TENSOR, CHANNEL, GROUP]), st.sampled_from([KERNEL, NATIVE]),
       st.integers(1, 64), st.integers(1, 40), st.integers(1, 40))  # fmt: skip
def test_fewer_bits_are_never_more_bytes(scales, who, m, n, k):
    rows = (point(64 * m * k, 128 * m * k, m=m), product(64 * n, 64 * k, m=m), point(4096, 64))
    more = {"weight_group": 64} if scales == GROUP else {"scales": scales}
    sizes = []
    for arithmetic in (FP16, E4M3, INT4):
        w = change(rows, arithmetic=arithmetic, quantize=who, **more)
        at = w.mask("kind", "gemv", "gemm")
        sizes.append([w[c][at].sum() for c in ("read_weight", "read_activation")])
    if scales != TENSOR:  # whose scales 16 bits do without
        sizes = sizes[1:]
    assert all(a >= b for wide, narrow in itertools.pairwise(sizes)
               for a, b in zip(wide, narrow, strict=True))  # fmt: skip


@pytest.mark.parametrize("name", ["paddleocr_vl_decode", "deepseek_ocr_decode_grouped",
                                  "paddleocr_vl_prefill"])  # fmt: skip
def test_native_narrow_types_are_never_slower(name):
    w, npu = ns.load_workload(name), ns.load_arch("decode_npu")
    walls = [ns.replay(transformed(w, {ARITHMETIC: a, QUANTIZE: NATIVE}), npu, "queue").wall_s
             for a in (TRACED, FP16, INT8, INT4)]  # fmt: skip
    assert walls[0] == walls[1] > walls[2] > walls[3]


def test_kernels_that_narrow_are_launches():
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    own, native = (ns.replay(transformed(w, {ARITHMETIC: E4M3, QUANTIZE: q}), h200, "graph")
                   for q in (KERNEL, NATIVE))  # fmt: skip
    assert own.launches - native.launches == 73  # inputs of 127 products
    assert native.launches == 782
    assert native.wall_s < own.wall_s


def test_peaks_follow_the_type():
    # 4096 rows of 8192 x 8192: compute alone counts
    rows = (product(8192, 8192, m=4096),)
    times = {}
    for arithmetic in (BF16, E4M3, INT8):
        o = change(rows, arithmetic=arithmetic, quantize=NATIVE).operations()
        for machine in ("h100", "h200"):
            times[arithmetic, machine] = kernel_time(o, Designs(ns.load_arch(machine))).item()
    assert times[E4M3, "h100"] == times[INT8, "h100"]
    assert times[BF16, "h100"] / times[E4M3, "h100"] == pytest.approx(2.0, rel=0.03)
    # sums of fp8 that are exact have smaller tiles: more blocks are filled
    assert 1.0 < times[E4M3, "h200"] / times[INT8, "h200"] < 1.05


def test_types_are_axes():
    w = ns.load_workload("paddleocr_vl_decode")
    axes = {ARITHMETIC: [TRACED, E4M3], QUANTIZE: [KERNEL, NATIVE]}
    table = ns.sweep(ns.Space(ns.load_arch("decode_npu"), axes, ["queue"]), [w])
    walls = table.set_index([ARITHMETIC, QUANTIZE])["wall_s"]
    assert walls[TRACED, KERNEL] == walls[TRACED, NATIVE] > walls[E4M3, NATIVE]
    assert walls[E4M3, KERNEL] > walls[E4M3, NATIVE]


# --- what is refused -------------------------------------------------------------------------


@pytest.mark.parametrize(("settings", "text"), [
    ({"arithmetic": E4M3, "scales": GROUP}, "weights have no groups"),
    ({"arithmetic": E4M3, "scales": TENSOR, "weight_group": 128}, "weights have groups"),
    ({"arithmetic": INT4, "weight_bits": 8}, "weights are stored wider"),
    ({"arithmetic": 7.0}, "out of bounds"),
])  # fmt: skip
def test_settings_that_do_not_go_together(settings, text):
    with pytest.raises(InputError, match=text):
        change(ONE, **settings)


def test_a_change_is_not_changed_again():
    w = change(ONE, arithmetic=E4M3)
    with pytest.raises(InputError, match="are changed already"):
        transformed(w, {ARITHMETIC: INT8})
    with pytest.raises(InputError, match="are changed already"):
        transformed(w, {QUANTIZE: NATIVE})


def test_no_such_products():
    with pytest.raises(InputError, match="has no matrix product that reads weights in 16 bits"):
        change((product(64, 1280, dtype="fp32", item=4),), arithmetic=E4M3)
    with pytest.raises(InputError, match="as wide as bf16"):
        change((product(64, 1280, dtype="int4", item=0.5),), arithmetic=BF16)


def test_a_machine_without_the_type_refuses_it():
    w, h200 = change(ONE, arithmetic=INT4), ns.load_arch("h200")
    with pytest.raises(InputError, match="does not compute in int4") as caught:
        refuse_without_rate(w, Designs(h200))
    assert "bf16 or fp16 or fp8 or int8" in str(caught.value)
    refuse_without_rate(w, Designs(with_value(h200, "matrix.int4.rate", 16384.0)))
    refuse_without_rate(change(ONE, arithmetic=INT8), Designs(h200))
    refuse_without_rate(workload(*ONE), Designs(ns.load_arch("a100")))  # as traced: never


# --- measured --------------------------------------------------------------------------------


def axis(path):
    rows = json.loads(path.read_text())
    table = read_axes(path)
    table = table.take(np.array([rows[r - 1]["axis"] == "precision" for r in table.row]))
    said = predicted(table, Designs(ns.load_arch("h200")))[:, 0]
    return table.operations.dtype, said / table.seconds - 1


def test_the_axis_of_the_h200(root):
    dtype, error = axis(root / "workloads" / "experiments" / "h200_axes.json")
    assert len(error) == 30
    for name in ("fp8", "bf16"):
        assert np.median(np.abs(error[dtype == name])) < 0.05
    assert np.abs(error).max() < 0.10


@pytest.mark.shared
def test_the_axis_on_another_board(shared):
    _dtype, error = axis(shared / "baselines" / "h200" / "axes.json")
    assert len(error) == 18
    assert np.median(np.abs(error)) < 0.06
    assert np.abs(error).max() < 0.10


@pytest.mark.parametrize(("name", "launches", "time"), [
    ("paddleocr_vl_decode", 0.100, 0.073), ("deepseek_ocr_decode_grouped", 0.102, 0.075),
    ("deepseek_ocr_prefill", 0.051, 0.031), ("deepseek_ocr_vision", 0.0, 0.0),
])  # fmt: skip
def test_casts_of_the_traces_beside_the_six_percent_of_the_study(name, launches, time):
    w = ns.load_workload(name)
    cast = w.mask("kind", "cast")
    assert cast.mean() == pytest.approx(launches, abs=5e-4)
    share = w["duration_s"][cast].sum() / w["duration_s"].sum()
    assert share == pytest.approx(time, abs=5e-4)


@pytest.mark.shared
def test_the_six_percent_are_half_of_the_casts_of_the_study(shared):
    path = shared / "external" / "seed_dsocr_rtx5090" / "nsys" / "decode_cuda_gpu_kern_sum.csv"
    if not path.is_file():
        pytest.skip("the study's profile is not there")
    with path.open(newline="") as file:
        rows = [(float(r["Total Time (ns)"]), r["Name"]) for r in csv.DictReader(file)]
    total = sum(t for t, _ in rows)
    wide, narrow = (
        sum(t for t, name in rows if f"{how}_elementwise_kernel<" in name and what in name) / total
        for how, what in (("unrolled", "direct_copy"), ("vectorized", "bfloat16_copy"))
    )
    assert (wide, narrow) == pytest.approx((0.060, 0.027), abs=1e-3)
