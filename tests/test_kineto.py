import copy
import gzip
import itertools
import json
import math

import msgspec
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npusim import catalog
from npusim.errors import InputError, NpusimError
from npusim.importers import import_trace
from npusim.importers.host_lane import host_lane
from npusim.inspection import inspection
from npusim.load import load_workload
from npusim.workload import BYTES, Workload
from tests.kineto_builder import FP32, INT64, Trace, tensor

CAT2 = "void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<2u>, 4>"
CAT4 = CAT2.replace("<2u>", "<4u>")
SDPA = "aten::scaled_dot_product_attention"


@pytest.fixture
def imported(tmp_path):
    """Import a trace whose one step a function fills."""

    def run(fill, **more):
        trace = Trace(**more)
        with trace.step():
            fill(trace)
        return import_trace(trace.write(tmp_path))

    return run


@pytest.fixture
def one(imported):
    """The only operation that an operator with one kernel makes, as a dict of its columns."""

    def run(name, *inputs, kernel="k", outer=None, **args):
        def fill(trace):
            if outer is None:
                with trace.op(name, *inputs):
                    trace.kernel(kernel, **args)
            else:
                with trace.op(outer, *inputs), trace.op(name, *inputs):
                    trace.kernel(kernel, **args)

        w = imported(fill)
        assert len(w) == 1
        return row(w, 0)

    return run


def row(w, i):
    found = {c: w[c][i] for c in w.columns}
    return found | {c: w.text(c)[i] for c in w.labels}


def moved(r):
    return {c: r[c] for c in BYTES if r[c]}


# ---------------------------------------------------------------- what operators do, by hand


def test_linear_of_one_token_is_a_gemv_over_its_weight(imported):
    def fill(t):
        with t.op("aten::linear", tensor(1, 1, 1024), tensor(2048, 1024), ""):
            with t.op("aten::t", tensor(2048, 1024)):
                pass
            with t.op("aten::mm", tensor(1, 1024), tensor(1024, 2048, strides=[1, 1024])):
                t.kernel("nvjet_sm90_tst_64x8", dur=5.5)

    w = imported(fill)
    r = row(w, 0)
    assert len(w) == 1
    assert (r["kind"], r["dtype"], r["operator"], r["library"], r["basis"]) == (
        "gemv", "bf16", "aten::mm", "cuBLAS", "shape")  # fmt: skip
    assert (r["batch"], r["m"], r["n"], r["k"]) == (1, 1, 2048, 1024)
    assert r["flop"] == 2 * 1024 * 2048
    assert moved(r) == {
        "read_weight": 1024 * 2048 * 2,
        "read_activation": 1024 * 2,
        "write_activation": 2048 * 2,
    }
    assert r["duration_s"] == pytest.approx(5.5e-6)
    assert (r["blocks"], r["threads"], r["registers"], r["shared_memory"]) == (8, 128, 32, 1024)
    assert w.meta["device"] == "NVIDIA H200"
    assert w.classified_busy_share == 1


def test_linear_with_bias_of_many_tokens(one):
    r = one("aten::addmm", tensor(4304), tensor(64, 1152), tensor(1152, 4304), "1", "1",
            outer="aten::linear")  # fmt: skip
    assert (r["kind"], r["m"], r["n"], r["k"]) == ("gemm", 64, 4304, 1152)
    assert r["flop"] == 2 * 64 * 4304 * 1152
    assert moved(r) == {
        "read_weight": (1152 * 4304 + 4304) * 2,
        "read_activation": 64 * 1152 * 2,
        "write_activation": 64 * 4304 * 2,
    }


def test_a_linear_that_launches_its_own_kernel(one):
    r = one("aten::linear", tensor(2, 8, 1152), tensor(4304, 1152), tensor(4304))
    assert (r["kind"], r["m"], r["n"], r["k"]) == ("gemm", 16, 4304, 1152)
    assert r["flop"] == 2 * 16 * 4304 * 1152
    assert r["read_weight"] == (4304 * 1152 + 4304) * 2


def test_an_fp8_product_reads_half_the_weight_and_writes_bf16(one):
    fp8 = "c10::Float8_e4m3fn"
    inputs = (tensor(64, 1024, dtype=fp8), tensor(1024, 2048, dtype=fp8), tensor(dtype=FP32),
              tensor(dtype=FP32), "", "", "15", "False")  # fmt: skip
    r = one("aten::_scaled_mm", *inputs)
    assert (r["dtype"], r["flop"]) == ("fp8", 2 * 64 * 1024 * 2048)
    assert moved(r) == {"read_weight": 1024 * 2048, "read_activation": 64 * 1024,
                        "write_activation": 2 * 64 * 2048}  # fmt: skip


def test_a_bias_along_the_rows_makes_a_layer_of_any_addmm(one):
    r = one("aten::addmm", tensor(512), tensor(64, 256), tensor(256, 512), "1", "1")
    assert r["read_weight"] == (256 * 512 + 512) * 2
    added = one("aten::addmm", tensor(64, 512), tensor(64, 256), tensor(256, 512), "1", "1")
    assert added["read_weight"] == 0


def test_product_of_activations_reads_no_weight(one):
    r = one("aten::bmm", tensor(3, 64, 7, dtype=FP32), tensor(3, 7, 5, dtype=FP32))
    assert (r["kind"], r["batch"], r["m"], r["n"], r["k"]) == ("gemm", 3, 64, 5, 7)
    assert r["flop"] == 2 * 3 * 64 * 5 * 7
    assert moved(r) == {
        "read_activation": (3 * 64 * 7 + 3 * 7 * 5) * 4,
        "write_activation": 3 * 64 * 5 * 4,
    }


def test_decode_attention_reads_the_kv_cache(one):
    kv = tensor(1, 2, 674, 128)
    r = one("aten::_cudnn_attention_forward", tensor(1, 16, 1, 128), kv, kv, "", "0.", "False",
            outer=SDPA)  # fmt: skip
    assert (r["kind"], r["heads"], r["kv_heads"], r["m"], r["n"], r["k"]) == (
        "attention", 16, 2, 1, 674, 128)  # fmt: skip
    assert r["flop"] == 2 * (2 * 16 * 674 * 128)  # QK^T and PV, two FLOP a multiply and add
    assert moved(r) == {
        "read_kv": 2 * 2 * 674 * 128 * 2,  # K and V, 2 heads, bf16
        "read_activation": 16 * 128 * 2,
        "write_activation": 16 * 128 * 2,
    }
    assert r["phase"] == "decode"


@pytest.mark.parametrize(("causal", "phase"), [("True", "prefill"), ("False", "encode")])
def test_attention_of_a_whole_prompt(one, causal, phase):
    q, kv = tensor(1, 16, 628, 128), tensor(1, 2, 628, 128)
    r = one("aten::_flash_attention_forward", q, kv, kv, "", "0.", causal, outer=SDPA)
    # a causal query sees itself and what is before it: 1 + 2 + ... + 628 pairs
    pairs = sum(range(1, 629)) if causal == "True" else 628 * 628
    assert r["flop"] == 4 * 16 * 128 * pairs
    assert r["phase"] == phase
    assert moved(r) == {
        "read_activation": (16 + 2 + 2) * 628 * 128 * 2,
        "write_activation": 16 * 628 * 128 * 2,
    }


def test_flash_attention_called_directly_has_heads_second_to_last(one):
    q, kv = tensor(1, 1, 10, 128), tensor(1, 1070, 10, 128)
    r = one("flash_attn::_flash_attn_forward", q, kv, kv)
    assert (r["heads"], r["kv_heads"], r["m"], r["n"]) == (10, 10, 1, 1070)
    assert r["flop"] == 4 * 10 * 1070 * 128
    assert r["read_kv"] == 2 * 10 * 1070 * 128 * 2


def test_grouped_product_of_one_token_reads_the_experts_it_chose(imported):
    def fill(t):
        with t.op("aten::topk", tensor(1, 64, dtype=FP32), "6", "-1", "True", "False"):
            t.kernel("void at::native::sbtopk::gatherTopK<float>")
        with t.op("aten::_grouped_mm", tensor(6, 1280), tensor(64, 1280, 1792)):
            t.kernel("void at::cuda::detail::prepare_grouped_gemm_data<cutlass>")
            t.kernel("void cutlass::device_kernel<grouped>")

    w = imported(fill)
    assert w.text("kind").tolist() == ["topk", "setup", "grouped_gemm"]
    r = row(w, 2)
    assert (r["m"], r["n"], r["k"], r["groups"]) == (6, 1792, 1280, 64)
    assert r["flop"] == 2 * 6 * 1792 * 1280
    assert r["read_weight"] == pytest.approx(6 * 1280 * 1792 * 2)
    assert w["flop"][1] == 0
    assert w["read_weight"][:2].sum() == 0


@pytest.mark.parametrize(("experts", "chosen", "tokens"), [(4, 2, 2), (5, 2, 3), (4, 4, 2)])
def test_experts_hit_is_the_mean_over_all_choices(imported, experts, chosen, tokens):
    def fill(t):
        with t.op("aten::topk", tensor(tokens, experts, dtype=FP32), str(chosen)):
            t.kernel("gatherTopK")
        with t.op("aten::_grouped_mm", tensor(tokens * chosen, 8), tensor(experts, 8, 16)):
            t.kernel("grouped")

    choices = list(itertools.combinations(range(experts), chosen))
    hits = [len(set().union(*each)) for each in itertools.product(choices, repeat=tokens)]
    r = row(imported(fill), 1)
    assert r["read_weight"] == pytest.approx(np.mean(hits) * 8 * 16 * 2)
    assert r["flop"] == 2 * tokens * chosen * 8 * 16  # every row is computed, however few experts


@pytest.mark.parametrize(
    ("operator", "settings"),
    [
        ("aten::cudnn_convolution", ["[1, 1]", "[2, 2]", "[1, 1]", "1"]),
        ("aten::convolution", ["", "[2, 2]", "[1, 1]", "[1, 1]", "False"]),
        ("aten::miopen_convolution", ["", "[1]", "[2]", "[1]"]),
    ],
)
def test_convolution(one, operator, settings):
    r = one(operator, tensor(1, 3, 56, 56), tensor(8, 3, 3, 3), *settings)
    # kernel 3, padding 1, stride 2: 56 -> 28
    assert r["kind"] == "conv"
    assert r["flop"] == 2 * (28 * 28) * 8 * (3 * 3 * 3)
    assert moved(r) == {
        "read_weight": 8 * 3 * 3 * 3 * 2,
        "read_activation": 3 * 56 * 56 * 2,
        "write_activation": 8 * 28 * 28 * 2,
    }


def test_pointwise_broadcast_counts_each_operand_once(one):
    r = one("aten::mul", tensor(6, 1, dtype=FP32), tensor(1280, dtype=FP32))
    assert (r["kind"], r["dtype"], r["flop"]) == ("pointwise", "fp32", 6 * 1280)
    assert moved(r) == {
        "read_activation": 6 * 4,
        "read_weight": 1280 * 4,  # a vector along every row: a parameter of the model
        "write_activation": 6 * 1280 * 4,
    }


def test_an_expanded_operand_is_in_memory_once(one):
    wide = tensor(16, 674, 128, strides=[0, 128, 1])
    r = one("aten::add", wide, tensor(16, 674, 128), "1")
    assert r["read_activation"] == (674 * 128 + 16 * 674 * 128) * 2
    assert r["write_activation"] == 16 * 674 * 128 * 2
    assert r["flop"] == 16 * 674 * 128


def test_mixed_types_write_the_wider_and_comparisons_write_bools(one):
    r = one("aten::mul", tensor(8, 10), tensor(8, 10, dtype=FP32))
    assert moved(r) == {"read_activation": 80 * (2 + 4), "write_activation": 80 * 4}
    r = one("aten::mul", tensor(8, 10), tensor(dtype="double"))  # a Python number
    assert (r["dtype"], r["write_activation"]) == ("bf16", 160)
    r = one("aten::eq", tensor(8, 10), tensor(8, 10))
    assert (r["write_activation"], r["read_activation"]) == (80, 320)


def test_cast_and_copy(one):
    r = one("aten::copy_", tensor(1, 1, 1024, dtype=FP32), tensor(1, 1, 1024), "False")
    assert r["kind"] == "cast"
    assert (r["flop"], moved(r)) == (0, {"read_activation": 2048, "write_activation": 4096})
    r = one("aten::copy_", tensor(4, 8), tensor(4, 8, strides=[0, 1]), "False")
    assert r["kind"] == "copy"
    assert (r["flop"], moved(r)) == (0, {"read_activation": 16, "write_activation": 64})


def test_reduction_and_gather(one):
    r = one("aten::mean", tensor(4, 1280, dtype=FP32), "[-1]", "True", "")
    assert (r["kind"], r["flop"]) == ("reduction", 4 * 1280)
    assert moved(r) == {"read_activation": 4 * 1280 * 4, "write_activation": 4 * 4}
    r = one("aten::index_select", tensor(103424, 1024), "0", tensor(8, dtype=INT64),
            outer="aten::embedding")  # fmt: skip
    assert (r["kind"], r["flop"]) == ("gather", 0)
    assert moved(r) == {
        "read_weight": 8 * 1024 * 2,
        "read_activation": 8 * 8,
        "write_activation": 8 * 1024 * 2,
    }


def test_a_concatenation_that_attention_reads_is_the_kv_cache(imported):
    def fill(t):
        for _ in "kv":
            with t.op("aten::cat", [tensor(1, 2, 673, 128), tensor(1, 2, 1, 128)], "-2"):
                t.kernel(CAT2)
        with t.op("aten::cat", [tensor(1, 16, 1, 64), tensor(1, 16, 1, 64)], "-1"):
            t.kernel(CAT2)  # rotate_half
        kv = tensor(1, 2, 674, 128)
        with t.op(SDPA, tensor(1, 16, 1, 128), kv, kv, "", "0.", "False"):
            t.kernel("cudnn_generated_fort_native_sdpa_sm90_flash_fprop")

    w = imported(fill)
    size = 2 * 674 * 128 * 2
    assert w.text("kind").tolist() == ["cat", "cat", "cat", "attention"]
    assert w["read_kv"].tolist() == [size, size, 0, 2 * size]
    assert w["write_kv"].tolist() == [size, size, 0, 0]
    assert w["write_activation"].tolist() == [0, 0, 16 * 128 * 2, 16 * 128 * 2]


def test_a_concatenation_takes_its_element_size_from_the_kernel(one):
    parts = [tensor(2, 3, dtype=FP32), tensor(2, 5, dtype=FP32)]
    r = one("aten::cat", parts, "-1", kernel=CAT4)
    assert (r["dtype"], moved(r)) == ("fp32", {"read_activation": 64, "write_activation": 64})


def test_copy_engine_moves_the_bytes_it_reports(imported):
    def fill(t):
        t.copy(nbytes=48)
        t.copy("Memset (Device)", 4096, cat="gpu_memset")

    w = imported(fill)
    assert w.text("kind").tolist() == ["memcpy", "memset"]
    assert w.text("basis").tolist() == ["launch", "launch"]
    assert w["read_activation"].tolist() == [48, 0]
    assert w["write_activation"].tolist() == [48, 4096]
    assert w.classified.all()


def test_split_k_does_the_product_once(imported):
    def fill(t):
        weight = tensor(6848, 1280, strides=[1, 6848])
        layer = t.op("aten::linear", tensor(1, 6848), tensor(1280, 6848))
        with layer, t.op("aten::mm", tensor(1, 6848), weight):
            t.kernel("cutlass_80_wmma_tensorop_bf16_s161616gemm_16x16")
            t.kernel("void cublasLt::splitKreduce_kernel<32, 16, int, float>")

    w = imported(fill)
    assert w.text("kind").tolist() == ["gemv", "splitk_reduce"]
    assert w["flop"][0] == 2 * 6848 * 1280
    assert w["flop"][1] <= 0.001 * w["flop"][0]
    assert w["read_weight"].tolist() == [6848 * 1280 * 2, 0]


def test_an_unknown_kernel_is_counted_and_shown(imported):
    def fill(t):
        with t.op("mylib::secret", tensor(4, 4)):
            t.kernel("my_kernel", dur=1)
        with t.op("aten::neg", tensor(4, 4)):
            t.kernel("elementwise", dur=3)

    w = imported(fill)
    assert w.text("kind").tolist() == ["unknown", "pointwise"]
    assert w.classified_busy_share == pytest.approx(0.75)
    found = inspection(w)["unclassified"]["my_kernel"]
    assert (found["count"], found["seconds"]) == (1, pytest.approx(1e-6))


def test_shapes_that_are_empty_or_absurd_are_not_fatal(imported):
    huge = 10**40

    def fill(t):
        for name, inputs in [
            ("aten::mul", [tensor(0, 5), tensor(0, 5)]),
            ("aten::mm", [tensor(0, 5), tensor(5, 0)]),
            ("aten::mean", [tensor(4, 0), "[-1]"]),
            ("aten::index", [tensor(4, 0), [tensor(3)]]),
            ("aten::cat", [[tensor(0), tensor(0)], "0"]),
            ("aten::mm", [tensor(huge, huge), tensor(huge, huge)]),
            ("aten::topk", [tensor(4, 64), str(10**350)]),
            ("aten::upsample_bilinear2d", [tensor(1, 3, 4, 4), f"[{10**350}, 2]"]),
            ("aten::cudnn_convolution", [tensor(1, 3, 8, 8), tensor(8, 3, 3, 3),
                                         f"[{10**350}]", "[1]", "[1]"]),
            ("aten::cudnn_convolution", [tensor(1, 3, 8, 8), tensor(8, 3, 3, 3), "[0]", "[0]",
                                         "[1]"]),
        ]:  # fmt: skip
            with t.op(name, *inputs):
                t.kernel("vectorized_gather" if name == "aten::index" else "k")
        with t.op("aten::cat", [tensor(2)], "0"):
            t.kernel(f"OpaqueType<{10**400}u>")

    w = imported(fill)
    assert len(w) == 11
    assert np.isfinite(w["flop"]).all()
    assert np.isfinite(w.bytes_moved).all()


# ---------------------------------------------------------------- steps, launches, the host


def test_a_graph_replay_has_kernels_and_no_operators(imported):
    def fill(t):
        launch = t.call("cudaGraphLaunch", dur=20)
        t.run(launch, "nvjet_sm90_tst_64x8", 4)
        t.run(launch, "void flash_fwd_splitkv_kernel<>", 5)
        t.run(launch, "my_kernel", 1)

    w = imported(fill)
    assert w.text("kind").tolist() == ["gemm", "attention", "unknown"]
    assert w.text("basis").tolist() == ["name", "name", "none"]
    assert set(w.text("operator")) == {"unknown"}
    assert w["flop"].sum() == w.bytes_moved.sum() == w.classified_busy_share == 0
    assert w["duration_s"].sum() == pytest.approx(10e-6)
    assert w.meta["host"] == "unknown"


def test_operations_belong_to_the_step_that_launched_them(tmp_path):
    t = Trace()
    t.kernel("before", dur=2)
    with t.step(0):
        t.kernel("a", dur=50)
        late = t.kernel("b", dur=500)
    with t.step(1):
        t.kernel("c", dur=7)
    t.now += 1
    t.kernel("after", dur=11)
    w = import_trace(t.write(tmp_path))
    assert late["ts"] + late["dur"] > t.now  # b ends long after its step
    assert w.text("kernel").tolist() == ["a", "b", "c"]
    assert w["step"].tolist() == [0, 0, 1]
    assert len(w.steps) == inspection(w)["steps"] == 2
    assert w.steps.wall_s == pytest.approx([6e-6, 4e-6])  # marks of 1 us, launches of 2 us
    assert inspection(w)["outside_steps"] == {"count": 2, "seconds": pytest.approx(13e-6)}


@pytest.mark.parametrize("mark", ["step#{}", "ProfilerStep#{}"])
def test_both_marks_of_a_step_are_known(tmp_path, mark):
    t = Trace()
    for i in range(3):
        with t.step(i, mark):
            t.kernel()
    assert import_trace(t.write(tmp_path))["step"].tolist() == [0, 1, 2]


def test_without_marks_the_capture_is_one_step(tmp_path):
    t = Trace()
    first = t.call()
    t.run(first, dur=5)
    last = t.kernel(dur=9)
    w = import_trace(t.write(tmp_path))
    assert w.steps.wall_s == pytest.approx([(last["ts"] + 9 - first["ts"]) * 1e-6])
    assert inspection(w)["steps"] == 0  # none is marked


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=12), st.integers(1, 3))
def test_no_device_time_is_lost(tmp_path, durations, every):
    t = Trace()
    for i, duration in enumerate(durations):
        if i % every == 0:
            with t.step(i):
                t.kernel(dur=duration)
        else:
            t.kernel(dur=duration)
    w = import_trace(t.write(tmp_path))
    total = w["duration_s"].sum() + w.meta["outside_steps_s"]
    assert total == pytest.approx(math.fsum(durations) * 1e-6)
    assert len(w) + w.meta["outside_steps"] == len(durations)


def test_gzip_and_plain_are_the_same_trace(tmp_path):
    t = busy_trace()
    plain, packed = t.write(tmp_path, "x.json"), t.write(tmp_path, "x.pt.trace.json.gz")
    assert import_trace(plain).id == import_trace(packed).id
    assert import_trace(plain).name == import_trace(packed).name == "x"
    assert import_trace(plain, "mine").name == "mine"


def test_host_lane_by_hand(tmp_path):
    """Two kernels, a wait for them, a copy that blocks, and the rest of the step [us]."""
    t = Trace()
    t.add("user_annotation", "step#0", 0, 100)
    for n, (call, ts, dur) in enumerate(
        [("cudaLaunchKernel", 10, 2), ("cudaLaunchKernel", 20, 2), ("cudaMemcpyAsync", 75, 20)]
    ):
        t.add("cuda_runtime", call, ts, dur, {"correlation": n})
    t.add("cuda_runtime", "cudaStreamSynchronize", 30, 40, {"correlation": 9})
    for n, (cat, ts, dur) in enumerate(
        [("kernel", 15, 10), ("kernel", 25, 40), ("gpu_memcpy", 80, 10)]
    ):
        t.add(cat, f"Memcpy {n}", ts, dur, {"correlation": n, "stream": 7, "bytes": 8})
    w = import_trace(t.write(tmp_path))
    us = 1e-6
    assert w["host_s"] == pytest.approx([10 * us, 10 * us, 10 * us])  # from 0, 10 and 65
    assert w["presync_s"] == pytest.approx([0, 10 * us, 0])  # from 20 to the wait at 30
    assert w["sync"].tolist() == [False, True, True]
    assert w.steps.tail_s == pytest.approx([10 * us])  # from the copy's end at 90 to 100
    assert w["start_s"] == pytest.approx([15 * us, 25 * us, 80 * us])
    waited = (65 - 30) + (90 - 75)
    work = w["host_s"].sum() + w["presync_s"].sum() + w.steps.tail_s.sum()
    assert work + waited * us == pytest.approx(w.steps.wall_s.sum())
    assert w.meta["host"] == "measured"


@pytest.mark.parametrize(("way", "waits"), [("DtoH", True), ("HtoD", True), ("DtoD", False)])
def test_only_copies_to_or_from_the_host_block(tmp_path, way, waits):
    t = Trace()
    t.add("user_annotation", "step#0", 0, 100)
    t.add("cuda_runtime", "cudaMemcpyAsync", 10, 50, {"correlation": 1})
    t.add("gpu_memcpy", f"Memcpy {way}", 15, 10, {"correlation": 1, "stream": 7, "bytes": 8})
    assert import_trace(t.write(tmp_path))["sync"].tolist() == [waits]


def test_ones_own_marks_come_before_the_profilers(tmp_path):
    t = Trace()
    with t.step(0, "ProfilerStep#{}"), t.step(0):
        t.kernel()
    w = import_trace(t.write(tmp_path))
    assert len(w.steps) == 1 and len(w) == 1
    inner = next(e for e in t.events if e["name"] == "step#0")
    assert w.steps.wall_s[0] == pytest.approx(inner["dur"] * 1e-6)


def test_a_wait_that_finds_the_device_done_costs_nothing():
    lane = host_lane(0, 100, np.array([[10.0, 12]]), np.array([20.0]), np.array([[50.0, 51]]),
                     np.array([False]))  # fmt: skip
    assert (lane.work.tolist(), lane.presync.tolist(), lane.tail) == ([10], [40], 50)


@given(
    st.lists(st.tuples(st.floats(0.1, 9), st.floats(0.1, 9), st.sampled_from("lws")), max_size=20),
    st.floats(0, 9),
)
def test_host_work_and_waits_fill_the_step(parts, rest):
    """Launches (l), works (w) and waits (s) in a row: what is not waiting is work."""
    now, free, waited = 0.0, 0.0, 0.0
    calls, done, waits = [], [], []
    for host, device, what in parts:
        now += host
        if what == "l":
            calls.append((now, now + host))
            free = max(free, now + host) + device
            done.append(free)
            now += host
        elif what == "s":
            end = max(now, free) + 0.5
            waited += max(free - now, 0) if calls else 0
            waits.append((now, end))
            now = end
    lane = host_lane(0, now + rest, np.array(calls).reshape(-1, 2), np.array(done),
                     np.array(waits).reshape(-1, 2), np.zeros(len(calls), dtype=bool))  # fmt: skip
    assert lane.work.sum() + lane.presync.sum() + lane.tail + waited == pytest.approx(now + rest)


def test_one_launch_that_was_lost_does_not_lose_the_host(tmp_path):
    t = Trace()
    with t.step():
        for _ in range(20):
            t.now += 10
            t.kernel(dur=1)
    whole = import_trace(t.write(tmp_path))
    lost = [e for e in t.events if e["cat"] == "cuda_runtime"][9]
    t.events.remove(lost)
    w = import_trace(t.write(tmp_path))
    assert len(w) == 20
    host = w["host_s"].sum() + w.steps.tail_s.sum()
    assert w.meta["host"] == "measured"
    assert host == pytest.approx(whole["host_s"].sum() + whole.steps.tail_s.sum(), rel=0.1)


def test_operations_are_in_order_of_launch_and_keep_their_stream(tmp_path):
    t = Trace()
    with t.step():
        t.kernel("a", dur=50, stream=7)
        t.kernel("b", dur=1, stream=13)
        t.kernel("c", dur=1, stream=7)
    t.events.reverse()
    w = import_trace(t.write(tmp_path))
    assert w.text("kernel").tolist() == ["a", "b", "c"]
    assert w["stream"].tolist() == [7, 13, 7]
    indptr, indices = w.edges
    assert (indptr.tolist(), indices.tolist()) == ([0, 0, 0, 1], [0])


# ---------------------------------------------------------------- damaged input


def busy_trace():
    t = Trace()
    kv = tensor(1, 2, 674, 128)
    for i in range(2):
        with t.step(i):
            layer = t.op("aten::linear", tensor(1, 1024), tensor(2048, 1024))
            with layer, t.op("aten::mm", tensor(1, 1024), tensor(1024, 2048)):
                t.kernel("nvjet")
                t.kernel("splitKreduce")
            with t.op("aten::cat", [tensor(1, 2, 673, 128), tensor(1, 2, 1, 128)], "-2"):
                t.kernel(CAT2)
            with t.op(SDPA, tensor(1, 16, 1, 128), kv, kv, "", "0.", "False"):
                t.kernel("flash_fwd")
            with t.op("aten::topk", tensor(1, 64, dtype=FP32), "6"):
                t.kernel("gatherTopK")
            with t.op("aten::_grouped_mm", tensor(6, 128), tensor(64, 128, 17)):
                t.kernel("grouped")
            with t.op("aten::mean", tensor(4, 12), "[-1]"):
                t.kernel("reduce_kernel")
            with t.op("aten::cudnn_convolution", tensor(1, 3, 8, 8), tensor(8, 3, 3, 3),
                      "[1]", "[2]", "[1]"):  # fmt: skip
                t.kernel("conv")
            with t.op("aten::upsample_bilinear2d", tensor(1, 3, 4, 4), "[8, 8]"):
                t.kernel("upsample")
            with t.op("aten::index", tensor(8, 16), [tensor(3, dtype=INT64)]):
                t.kernel("index_elementwise")
            t.copy()
            t.call("cudaStreamSynchronize", 30)
    return t


BUSY = busy_trace()


def refusal(file):
    with pytest.raises(InputError) as error:
        import_trace(file)
    message = str(error.value)
    assert message.startswith(f"{file}: ")
    assert "\n" not in message
    assert len(message) < len(str(file)) + 600
    return message


def test_json_cut_short_loses_one_event_and_says_so(tmp_path):
    """Cut anywhere, with and without brackets put behind: what is whole stays."""
    text, file = BUSY.text(), tmp_path / "cut.json"
    decoder, ends = json.JSONDecoder(), []
    at = text.index("[", text.index("traceEvents")) + 1
    for _ in BUSY.events:
        at = decoder.raw_decode(text, at)[1] + 2  # ", " follows
        ends.append(at - 2)
    kernels = [e["cat"] in ("kernel", "gpu_memcpy") for e in BUSY.events]
    first = ends[kernels.index(True)]
    for cut in range(300, ends[-1], 61):
        file.write_text(text[:cut])
        if cut < first:
            refusal(file)
            continue
        w = import_trace(file)
        whole = sum(end <= cut for end in ends)
        assert len(w) + w.meta["outside_steps"] == sum(kernels[:whole])
        started = whole < len(ends) and cut > ends[whole - 1] + 2
        assert w.meta["lost_events"] == started
    assert "lost_events" not in import_trace(BUSY.write(tmp_path)).meta


@pytest.mark.parametrize("part", range(1, 20))
def test_gzip_cut_short(tmp_path, part):
    raw = gzip.compress(BUSY.text().encode())
    file = tmp_path / "cut.json.gz"
    file.write_bytes(raw[: len(raw) * part // 20])
    assert "gzip data is damaged or cut short" in refusal(file)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "file is empty"),
        (b"   \n", "cut short"),
        (b"hello", "not JSON"),
        (b"{'a': 1}", "not JSON"),
        (b"[]", "no traceEvents"),
        (b'[{"ph": "X"}]', "no traceEvents"),
        (b"5", "expected `object`"),
        (b"{}", "traceEvents"),
        (b'{"traceEvents": {}}', "no list of traceEvents"),
        (b'{"traceEvents": null}', "no list of traceEvents"),
        (b'{"traceEvents": []}', "no device operations"),
        (b'{"traceEvents": [1]}', "expected `object`"),
        (b'{"traceEvents": []} x', "not JSON"),
        (b'{"traceEvents": [{"ph": "X", "cat": "cpu_op", "ts": 1, "dur": 1}]}',
         "no device operations"),
        (b'{"traceEvents": [{"args": ' + b"[" * 100_000, "too deep"),
        (b'{"traceEvents": [{"name": "\xff"}]}', "UTF-8"),
        (b"\x1f\x8b", "gzip data is damaged"),
        (b"\x1f\x8b" + bytes(range(256)), "gzip data is damaged"),
        (gzip.compress(b"hello", mtime=0), "not JSON"),
        (gzip.compress(b"", mtime=0), "cut short"),
        (bytes(range(256)) * 20, "not JSON"),
    ],
)  # fmt: skip
def test_files_that_are_no_traces(tmp_path, content, problem):
    file = tmp_path / "trace.json"
    file.write_bytes(content)
    assert problem in refusal(file)


def test_files_that_do_not_even_look_like_traces(tmp_path):
    file = tmp_path / "photo.png"
    file.write_bytes(b"\x89PNG" + bytes(100))
    assert "not a supported trace" in refusal(file)
    assert "no such file" in refusal(tmp_path / "absent.json")
    assert "not a file" in refusal(tmp_path)


@pytest.mark.parametrize("field", ["ts", "dur"])
@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-1e999", "1e999", "null", '"5"', "[]", "true", "-1", "1e300"]
)
def test_times_that_are_none(tmp_path, field, value):
    t = Trace()
    with t.step():
        t.kernel("good")
        t.kernel("bad")[field] = "MARK"
    file = tmp_path / "t.json"
    file.write_text(t.text().replace('"MARK"', value))
    if (field, value) == ("ts", "-1"):  # a clock may start anywhere
        assert len(import_trace(file)) == 2
        return
    message = refusal(file)
    place = next(i for i, e in enumerate(t.events) if e["name"] == "bad")
    if value not in ("NaN", "Infinity", "-1e999", "1e999"):  # not JSON at all, or no number in it
        assert f"traceEvents[{place}].{field}" in message


def test_kernels_whose_launch_is_unknown_stay(tmp_path):
    t = Trace()
    with t.step(), t.op("aten::neg", tensor(4)):
        kernels = [t.kernel(f"k{i}") for i in range(4)]
    del kernels[0]["args"]["correlation"]
    kernels[1]["args"]["correlation"] = "two"
    kernels[2]["args"]["correlation"] = 999
    kernels[3]["args"] = None
    for k in kernels:
        k["ts"] = t.events[0]["ts"] + 1.5  # inside the step by the device's own clock
    w = import_trace(t.write(tmp_path))
    assert sorted(w.text("kernel")) == ["k0", "k1", "k2", "k3"]
    assert set(w.text("operator")) == {"unknown"}
    assert w.meta["host"] == "unknown"


def test_a_correlation_used_twice_is_not_two_launches(tmp_path):
    t = Trace()
    with t.step(), t.op("aten::neg", tensor(4)):
        a = t.kernel("a")
        b = t.kernel("b")
    b["args"]["correlation"] = a["args"]["correlation"]
    w = import_trace(t.write(tmp_path))
    assert len(w) == 2
    assert w["host_s"].sum() + w.steps.tail_s.sum() <= w.steps.wall_s.sum() * 1.0001


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
    | st.sampled_from(["1e5", 2**63, 10**30, 10**400, -1, 0, 1e308, -1e308, "TensorList",
                       "c10::BFloat16", "kernel", "cpu_op", "gpu_memcpy", "step#0", "X",
                       "[99999999999999999999]", "OpaqueType<8u>", "cuda_runtime"]),
    lambda inner: st.lists(inner, max_size=4)
    | st.dictionaries(st.sampled_from(["correlation", "stream", "grid", "block", "bytes",
                                       "Input Dims", "Input type", "name"]), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
FIELDS = ["ph", "cat", "name", "ts", "dur", "pid", "tid", "args"]
INSIDE = ["correlation", "stream", "grid", "block", "bytes", "registers per thread",
          "shared memory", "Input Dims", "Input type", "Input Strides",
          "Concrete Inputs"]  # fmt: skip


def check_sound(w):
    assert isinstance(w, Workload)
    assert 0 <= w.classified_busy_share <= 1 + 1e-9
    for column in ("flop", *BYTES, "duration_s", "host_s", "presync_s"):
        assert np.isfinite(w[column]).all()
    json.dumps(inspection(w), allow_nan=False)


@settings(max_examples=250)
@example([(1, "Input type", [], 0)])
@given(
    st.lists(
        st.tuples(st.integers(0, len(BUSY.events) - 1), st.sampled_from(FIELDS + INSIDE), ANYTHING,
                  st.integers(0, 4)),
        min_size=1, max_size=5,
    )
)  # fmt: skip
def test_any_value_anywhere_is_refused_or_read(tmp_path, changes):
    events = copy.deepcopy(BUSY.events)
    for at, field, value, deep in changes:
        event = events[at]
        if field in INSIDE and isinstance(event.get("args"), dict):
            inside = event["args"].get(field)
            if isinstance(inside, list) and deep < len(inside):
                inside[deep] = value
            else:
                event["args"][field] = value
        elif field not in INSIDE:
            event[field] = value
    file = tmp_path / "mutated.json"
    file.write_text(json.dumps({**BUSY.about, "traceEvents": events}))
    try:
        check_sound(import_trace(file))
    except NpusimError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(("told", "units"), [(132, 132), (0, None), ("132", None), (None, None)])
def test_units_of_the_device_are_kept_where_the_trace_tells(tmp_path, told, units):
    t = Trace()
    t.about["deviceProperties"][0]["numSms"] = told
    with t.step(), t.op("aten::add"):
        t.kernel()
    assert import_trace(t.write(tmp_path)).meta.get("units") == units


@settings(max_examples=50)
@given(ANYTHING, st.sampled_from(["deviceProperties", "cuda_driver_version", "schemaVersion", "x"]))
def test_any_header_is_refused_or_read(tmp_path, value, field):
    file = tmp_path / "header.json"
    file.write_text(json.dumps({**BUSY.about, field: value, "traceEvents": BUSY.events}))
    check_sound(import_trace(file))


@settings(max_examples=150)
@given(st.binary(max_size=200), st.integers(0, len(BUSY.text())), st.integers(0, 30))
def test_any_bytes_are_refused_or_read(tmp_path, new, at, length):
    raw = BUSY.text().encode()
    for content in (new, b"\x1f\x8b" + new, raw[:at] + new[:20] + raw[at + length :]):
        file = tmp_path / "bytes.json"
        file.write_bytes(content)
        try:
            check_sound(import_trace(file))
        except NpusimError as error:
            assert "\n" not in str(error)


# ---------------------------------------------------------------- the measured traces

TRACES = {  # operations a step, or None where no fact says
    "dsocr_decode_b1_c1024": None,
    "dsocr_grouped_decode_b16_c1024": None,
    "dsocr_grouped_decode_b1_c1024": None,
    "dsocr_grouped_decode_b1_c1024_compiled": None,
    "dsocr_grouped_decode_b1_c1024_graph": None,
    "dsocr_prefill_b1_c1024": None,
    "dsocr_vision_b1_c0": None,
    "paddle_decode_b1_c628": 782,
    "paddle_decode_b1_c628_compiled": 367,
    "paddle_decode_b1_c628_graph": 930,
    "paddle_decode_b32_c628": 782,
    "paddle_decode_b8_c628": 782,
    "paddle_prefill_b1_c628": None,
    "paddle_vision_b1_c0": None,
}
EAGER = [name for name in TRACES if not name.endswith(("graph", "compiled"))]


@pytest.fixture(scope="session")
def measured(shared):
    """Import a measured trace, once a session."""
    known = {}

    def get(name):
        if name not in known:
            known[name] = import_trace(file_of(shared, name))
        return known[name]

    return get


class Event(msgspec.Struct):
    """What the tests read of an event by themselves."""

    name: str = ""
    cat: str | None = None
    ts: float = 0.0
    dur: float = 0.0


class File(msgspec.Struct):
    traceEvents: list[Event]  # noqa: N815


def file_of(shared, name):
    return shared / "baselines" / "h200" / "kineto" / f"kineto_{name}.json.gz"


@pytest.mark.shared
def test_every_measured_trace_is_tested(shared):
    found = (shared / "baselines" / "h200" / "kineto").glob("kineto_*.json.gz")
    assert {f.name.removeprefix("kineto_").split(".")[0] for f in found} == set(TRACES)


@pytest.mark.shared
@pytest.mark.parametrize("name", TRACES)
def test_a_measured_trace_keeps_all_its_device_time(shared, measured, name):
    w = measured(name)
    with gzip.open(file_of(shared, name)) as stream:
        events = msgspec.json.decode(stream.read(), type=File).traceEvents
    device = [e for e in events if e.cat in ("kernel", "gpu_memcpy", "gpu_memset")]
    assert len(w) + w.meta["outside_steps"] == len(device)
    seconds = math.fsum(e.dur for e in device) * 1e-6
    assert w["duration_s"].sum() + w.meta["outside_steps_s"] == pytest.approx(seconds, rel=1e-9)
    marks = sorted(
        (e.ts, e.dur) for e in events
        if e.cat == "user_annotation" and e.name.startswith("step#")
    )  # fmt: skip
    assert w.steps.wall_s == pytest.approx([dur * 1e-6 for _, dur in marks])
    assert len(w.steps) == 3
    if TRACES[name] is not None:
        assert np.bincount(w["step"]).tolist() == [TRACES[name]] * 3


@pytest.mark.shared
@pytest.mark.parametrize("name", EAGER)
def test_an_eager_trace_is_classified(measured, name):
    w = measured(name)
    assert w.classified_busy_share >= 0.97
    assert w.meta["host"] == "measured"
    phase = name.removeprefix("dsocr_").removeprefix("grouped_").removeprefix("paddle_")
    phase = phase.split("_")[0]
    assert set(w.text("phase")) == {"encode" if phase == "vision" else phase}
    work = np.zeros(3)
    np.add.at(work, w["step"], w["host_s"] + w["presync_s"])
    assert (work + w.steps.tail_s <= w.steps.wall_s * 1.0001).all()


@pytest.mark.shared
def test_a_paddleocr_vl_decode_step_by_hand(measured, shared):
    text = json.loads((shared / "facts" / "paddleocr_vl.json").read_text())["text"]
    hidden, heads, kv_heads = (text[f"{k}"] for k in (
        "hidden_size", "num_attention_heads", "num_key_value_heads"))  # fmt: skip
    head, inner = text["head_dim"], text["intermediate_size"]
    layers, vocabulary = text["num_hidden_layers"], text["vocab_size"]
    layer = 2 * hidden * heads * head + 2 * hidden * kv_heads * head + 3 * hidden * inner
    matrices = layers * layer + vocabulary * hidden
    assert matrices == 360_710_144
    norms = (2 * layers + 1) * hidden
    for batch in (1, 8, 32):
        w = measured(f"paddle_decode_b{batch}_c628")
        products = w.mask("kind", "gemv", "gemm") & (w["read_weight"] > 0)
        attention = w.mask("kind", "attention")
        for step in range(3):
            at = w["step"] == step
            lengths = w["n"][at & attention]
            assert len(lengths) == layers
            assert len(set(lengths.tolist())) == 1  # one context for all layers
            assert w["flop"][at & products].sum() == 2 * batch * matrices
            assert w["read_weight"][at & products].sum() == 2 * matrices
            context = lengths[0]
            assert w["flop"][at & attention].sum() == layers * batch * 4 * heads * head * context
            kv = layers * batch * 2 * kv_heads * head * context * 2
            assert w["read_kv"][at & attention].sum() == kv
            # every norm's scale and the embedded tokens are the only other weights of note
            others = 2 * (norms + batch * hidden)
            assert w["read_weight"][at].sum() == pytest.approx(2 * matrices + others, rel=1e-4)
            whole = 2 * batch * matrices + layers * batch * 4 * heads * head * context
            assert w["flop"][at].sum() == pytest.approx(whole, rel=0.02)
        assert np.diff([w["n"][(w["step"] == s) & attention][0] for s in range(3)]).tolist() == [
            1, 1]  # fmt: skip


@pytest.mark.shared
@pytest.mark.parametrize("name", ["dsocr_decode_b1_c1024", "dsocr_grouped_decode_b1_c1024"])
def test_a_deepseek_ocr_token_reads_its_active_parameters(measured, shared, name):
    facts = json.loads((shared / "facts" / "deepseek_ocr.json").read_text())["params_check"]
    active = facts["active_params_per_decode_token_incl_lm_head"]
    w = measured(name)
    for step in range(3):
        at = w["step"] == step
        assert w["read_weight"][at].sum() == pytest.approx(1.148e9, rel=0.01)
        products = at & w.mask("kind", "gemv", "gemm", "grouped_gemm") & (w["read_weight"] > 0)
        assert w["flop"][products].sum() == pytest.approx(2 * active, rel=0.01)


@pytest.mark.shared
def test_experts_of_a_batch_lie_between_one_token_and_all(measured):
    one, many = (measured(f"dsocr_grouped_decode_b{b}_c1024") for b in (1, 16))
    read = [w["read_weight"][(w["step"] == 0) & w.mask("kind", "grouped_gemm")].sum()
            for w in (one, many)]  # fmt: skip
    expert = 3 * 1280 * 896 * 2  # gate, up and down, bf16
    assert read[0] == pytest.approx(11 * 6 * expert)
    assert read[1] == pytest.approx(11 * 64 * (1 - (58 / 64) ** 16) * expert)


@pytest.mark.parametrize("name", catalog.names("workloads"))
@pytest.mark.shared
def test_a_shipped_workload_is_what_its_trace_imports_to(measured, name):
    w = load_workload(name)
    fresh = measured(w.meta["file"].removeprefix("kineto_").removesuffix(".json.gz"))
    assert w.id == fresh.id
