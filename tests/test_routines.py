"""Routines of kernels: by name, by the strides of their operands, and the calls that are traced."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.capture import routines as program
from npusim.capture.routines.bank import Made
from npusim.importers.describe import describe
from npusim.importers.routines import _ROUTINES, dimensions, routine
from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Launch
from npusim.library import NUMBERS, ROUTINES, WORK
from npusim.models import fused
from npusim.models.routine import routine_shape

AT = "void at::native::"
STRIDED = AT + "elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<at::native::neg<...>"
CAST = AT + "elementwise_kernel<128, 4, at::native::gpu_kernel_impl<at::native::BinaryFunctor<...>"


def tensor(*shape, order=None, size=2):
    """Return a tensor whose dimensions lie in memory in the given order, slowest first."""
    steps, step = [0] * len(shape), 1
    for i in reversed(order or range(len(shape))):
        steps[i], step = step, step * shape[i]
    return Tensor(shape, "bf16" if size == 2 else "fp32", size, tuple(steps))


def call(*tensors):
    return Call("aten::add", tensors, ("",) * len(tensors))


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    ("kernel", "wanted"),
    [
        (AT + "vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::BFloat16>",
         "vectorized"),
        (AT + "vectorized_elementwise_kernel<8, at::native::(anonymous namespace)::silu_kernel(at",
         "special"),
        (AT + "vectorized_elementwise_kernel<4, at::native::FillFunctor<int>", "fill"),
        (AT + "unrolled_elementwise_kernel<X, 4, memory::LoadWithCast<1>", "unrolled_cast"),
        (AT + "unrolled_elementwise_kernel<X, at::native::memory::LoadWithoutCast", "unrolled"),
        (STRIDED, "strided"),
        (CAST, "strided_cast"),
        (AT + "index_elementwise_kernel<128, 4, at::native::gpu_index_kernel", "index"),
        (AT + "_scatter_gather_elementwise_kernel<128, 8, X", "scatter_gather"),
        (AT + "(anonymous namespace)::CatArrayBatchedCopy_vectorized<X", "cat_vectorized"),
        (AT + "(anonymous namespace)::CatArrayBatchedCopy<X", "cat"),
        (AT + "(anonymous namespace)::CatArrayBatchedCopy<X<2u>, unsigned int, 2, 64, 64>(X",
         "cat_2d"),
        (AT + "(anonymous namespace)::CatArrayBatchedCopy<X<2u>, unsigned int, 3, 64, 64>(X",
         "cat"),
        (AT + "(anonymous namespace)::CatArrayBatchedCopy<X<2u>, unsigned int, 4, 64, 64>(X",
         "cat_4d"),
        (AT + "(anonymous namespace)::indexFuncSmallIndex<c10::BFloat16", "index_small"),
        (AT + "reduce_kernel<512, 1, ReduceOp<float, at::native::MeanOps", "reduce_rows"),
        (AT + "reduce_kernel<128, 4, at::native::ReduceOp<float", "reduce_columns"),
        (AT + "reduce_kernel<512, 1, ReduceOp<float, ArgMaxOps<float>", "reduce_arg"),
        (AT + "vectorized_layer_norm_kernel<float, float, true>", "rms_norm"),
        (AT + "vectorized_layer_norm_kernel<float, float, false>", "layer_norm"),
        ("void at_cuda_detail::cub::detail::select::DeviceSelectSweepKernel<X", "select_sweep"),
        ("Memcpy DtoH (Device -> Pinned)", "copy_to_host"),
        ("Memcpy DtoH (Device -> Pageable)", "copy_to_host_pageable"),
        ("Memcpy DtoD (Device -> Device)", "copy_engine"),
        ("Memset (Device)", "fill_engine"),
        ("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", ""),
        ("void flash_fwd_kernel<X>", ""),
        ("triton_poi_fused_add_0", ""),
    ],
)  # fmt: skip
def test_names_tell_routines(kernel, wanted):
    assert routine(kernel) == wanted


def test_every_routine_is_declared_and_can_be_told():
    told = {name for _, name in _ROUTINES} | {"transposed", "strided_4d", "strided_5d"}
    assert told == set(ROUTINES) - set(fused.FORMS)  # which npusim makes
    assert set(ROUTINES.values()) <= set(WORK)
    assert list(NUMBERS) == ["floor", "element", "block", "chain"]


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_what_is_no_product_in_the_shipped_workloads_has_a_routine(name):
    w = ns.load_workload(name)
    ours = ~w.mask("kind", "gemm", "gemv", "attention", "attention_combine", "splitk_reduce")
    ours &= w.mask("library", "ATen", "CUB", "runtime")
    known = np.array([routine(k) != "" for k in w.text("kernel")])
    spent = w["duration_s"]
    assert spent[ours & known].sum() > 0.99 * spent[ours].sum()


# ---------------------------------------------------------------- strides


def test_a_copy_across_memory_transposes():
    there, here = tensor(4096, 512), tensor(4096, 512, order=(1, 0))
    assert routine(STRIDED, call(there, here)) == "transposed"
    assert routine(CAST, call(there, here)) == "transposed"
    assert routine(STRIDED, call(there, there)) == "strided"
    assert routine(STRIDED, call(here, here)) == "strided"


def test_neighbours_within_a_cache_line_are_no_transpose():
    """Channels move to the end of a 3 x 3 kernel: 9 elements apart, 18 bytes."""
    apart, together = tensor(64, 32, 3, 3, order=(0, 2, 3, 1)), tensor(64, 32, 3, 3)
    assert routine(STRIDED, call(apart, together)) == "strided"
    wide = tensor(64, 32, 8, 8), tensor(64, 32, 8, 8, order=(0, 2, 3, 1))
    assert routine(STRIDED, call(*wide)) == "strided"  # 32 channels of 2 bytes apart: 64 B
    wider = tensor(64, 128, 8, 8), tensor(64, 128, 8, 8, order=(0, 2, 3, 1))
    assert routine(STRIDED, call(*wider)) == "transposed"


def test_small_operands_do_not_transpose():
    """A bias of rows and one of columns run along different dimensions, and both are small."""
    rows, columns = tensor(300, 400, 1), tensor(300, 1, 400)
    assert routine(STRIDED, call(rows, columns)) == "strided"


def test_addresses_over_many_dimensions_are_routines_of_their_own():
    windows = tensor(5, 6, 7, 8, 640), tensor(5, 6, 7, 8, 640, order=(0, 2, 1, 3, 4))
    assert dimensions(windows) == 4  # the last two stay together, nothing else does
    assert routine(STRIDED, call(*windows)) == "strided_4d"
    bias = tensor(4, 5, 6, 7, 1), tensor(4, 5, 6, 1, 8, order=(2, 1, 0, 3, 4))
    assert dimensions(bias) == 5
    assert routine(STRIDED, call(*bias)) == "strided_5d"
    assert routine(CAST, call(*bias)) == "strided_cast"


def test_strides_that_are_not_known_tell_nothing():
    bare = Tensor((4096, 512), "bf16", 2)
    assert routine(STRIDED, call(bare, bare)) == "strided"
    assert routine(STRIDED, call()) == "strided"
    assert routine(STRIDED, None) == "strided"


@given(st.permutations(range(5)), st.lists(st.integers(1, 6), min_size=5, max_size=5))
def test_what_fills_memory_has_one_dimension_in_any_order(order, shape):
    x = tensor(*shape, order=order)
    assert dimensions([x, x]) == (0 if x.elements == 1 else 1)


@given(st.permutations(range(4)), st.permutations(range(4)))
def test_dimensions_do_not_depend_on_how_they_are_called(order, names):
    """Renaming the dimensions of all operands alike changes no address."""
    shape = (2, 3, 4, 5)
    a, b = tensor(*shape), tensor(*shape, order=order)

    def renamed(x):
        return Tensor(tuple(x.shape[i] for i in names), x.dtype, x.itemsize,
                      tuple(x.strides[i] for i in names))  # fmt: skip

    assert dimensions([a, b]) == dimensions([renamed(a), renamed(b)])


# ---------------------------------------------------------------- work


@pytest.mark.parametrize(
    ("width", "blocks", "rows"),
    [
        (1, 1, 23),  # of 1 to 512 elements: sqrt(512) = 22.6
        (6, 1, 4),  # 3.8 rows of six
        (96, 1, 1),  # one row at least
        (1, 2, 725),  # of 513 to 1,024: 724.8
        (6, 10, 810),  # of 4,609 to 5,120: 4,857.8, half a block less than ten has 4,864
    ],
)
def test_an_index_has_the_geometric_mean_of_what_its_blocks_may_hold(width, blocks, rows):
    table = Tensor((1024, width), "fp32", 4, (width, 1))
    launch = Launch(AT + "index_elementwise_kernel<128, 4, X", (blocks, 1, 1), 128)
    work = describe(Call("aten::index", (table, ()), ("", "")), launch)
    assert (work.m, work.n) == (rows, width)
    assert work.read_activation == work.write_activation == 4 * rows * width


def test_an_index_of_one_long_row_takes_no_more_of_it_than_its_blocks_hold():
    long = Tensor((52_745,), "bf16", 2)
    for blocks, elements in ((1, 23), (52, 26_367)):  # sqrt(26,113 x 26,624) = 26,367.3
        launch = Launch(AT + "index_elementwise_kernel<128, 4, X", (blocks, 1, 1), 128)
        work = describe(Call("aten::index", (long, ()), ("", "")), launch)
        assert (work.m, work.n, work.read_activation) == (1, elements, 2 * elements)


def test_a_small_index_has_one_element_a_thread():
    """So it waits once, as kernels of this routine do whose size is known to be that small."""
    w = ns.load_workload("deepseek_ocr_decode")
    one = w.mask("routine", "index") & w.mask("basis", "launch") & (w["blocks"] == 1)
    assert one.any()
    shape = routine_shape(w.operations(np.flatnonzero(one)), Designs(ns.load_arch("h200")))
    assert set(shape.depth.ravel()) == {1.0}


# ---------------------------------------------------------------- the traced program


def test_a_step_rewrites_inputs_before_each_call_and_runs_the_smallest_first(monkeypatch):
    done = []

    class Operand:
        def __init__(self, name, real):
            self.name, self.dtype = name, SimpleNamespace(is_floating_point=real)

        def neg_(self):
            done.append(f"neg {self.name}")

        def mul_(self, factor):
            done.append(f"{self.name} x {factor}")

    large = Made(lambda: done.append("large"), (Operand("a", True), Operand("i", False)), 10**6)
    small = Made(lambda: done.append("small"), (), 10)
    torch = SimpleNamespace(bool="torch.bool")
    monkeypatch.setattr(program, "load", lambda *_: torch)
    monkeypatch.setattr(program, "planned", lambda *_: [large, small])
    step = program.program("cuda")
    assert done == []
    step()
    assert done == ["small", "neg a", "i x 1", "large"]


def test_the_shipped_trace_has_the_routines():
    w = ns.load_workload(catalog.find("workloads", "paddleocr_vl_decode").parent
                         / "experiments" / "h200_routines.parquet")  # fmt: skip
    assert w.meta["device"] == "NVIDIA H200"
    assert w.meta["folded_steps"] == 7
    found = {routine(k) for k in set(w.labels["kernel"])}
    missing = set(ROUTINES) - found - {"transposed", "strided_4d", "strided_5d", *fused.FORMS}
    missing -= {"cat"}  # over three dimensions: no call of the program does that
    assert missing == set()
    assert not any(re.search(r"(neg_|mul_)$", o) for o in w.text("operator"))
