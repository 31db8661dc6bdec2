"""Readable names of kernels: what they say, and that no two kernels share one."""

from __future__ import annotations

import ast
import csv
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog
from npusim.importers import import_trace
from npusim.kernel_match import key
from npusim.report.labels import label, labels

GEMV = (
    "std::enable_if<!T7, void>::type internal::gemvx::kernel<int, int, __nv_bfloat16, "
    "__nv_bfloat16, __nv_bfloat16, float, (bool)0, (bool)1, (bool)1, (bool)0, (int){}, (bool)0, "
    "cublasGemvParamsEx<int, cublasGemvTensorStridedBatched<const __nv_bfloat16>>>(T13)"
)
MUL = (
    "void at::native::{}elementwise_kernel<4, at::native::BinaryFunctor<c10::BFloat16, "
    "c10::BFloat16, c10::BFloat16, at::native::binary_internal::MulFunctor<float> >, "
    "std::array<char*, 3ul> >(int, T2, T3)"
)
SPLIT = (
    "void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<(int)128, (int)64, (int)128, "
    "(int)4, (bool)0, (bool)0, cutlass::bfloat16_t>, (bool)1>(flash::Flash_fwd_params)"
)
NAMED = {
    GEMV.format(7): "GEMV bf16 (cuBLAS)",
    SPLIT: "flash split-KV attention bf16 (FlashAttention)",
    SPLIT.replace("splitkv", "splitkv_combine"): "flash split-KV combine bf16 (FlashAttention)",
    MUL.format(""): "elementwise mul bf16 (ATen)",
    MUL.format("vectorized_"): "elementwise mul bf16, vec (ATen)",
    "void at::native::vectorized_elementwise_kernel<4, at::native::silu_kernel("
    "at::TensorIteratorBase &)::[lambda() (instance 2)]::operator ()() const::[lambda("
    "c10::BFloat16) (instance 1)], std::array<char *, (unsigned long)2>>(int, T2, T3)":
        "elementwise silu bf16, vec (ATen)",
    "void at::native::reduce_kernel<(int)512, (int)1, at::native::ReduceOp<float, at::native::"
    "MeanOps<float, float, float, float>, unsigned int, float, (int)4>>(T3)":
        "mean reduction fp32 (ATen)",
    "void at::native::(anonymous namespace)::CatArrayBatchedCopy_vectorized<at::native::("
    "anonymous namespace)::OpaqueType<2u>, unsigned int, 3, 128, 1, 16, 8>(char*)":
        "cat array batched copy vectorized (ATen)",
    "void at::native::index_elementwise_kernel<128, 4, at::native::gpu_index_kernel<at::native::"
    "index_put_kernel_impl<at::native::OpaqueType<8> >(at::TensorIterator&)> >(long)":
        "index put (ATen)",
    "void cutlass::Kernel2<cutlass_80_tensorop_bf16_s16816gemm_relu_bf16_128x256_32x3_tn_align8>"
    "(T1::Params)": "GEMM 128x256 relu bf16 (CUTLASS)",
    "void cutlass::Kernel2<cutlass_80_wmma_tensorop_bf16_s161616gemm_bf16_32x32_128x2_tn_align8>"
    "(T1::Params)": "GEMM 32x32 wmma bf16 (CUTLASS)",
    "fmha_cutlassF_bf16_aligned_64x64_rf_sm80(AttentionKernel<cutlass::bfloat16_t>::Params)":
        "memory-efficient attention 64x64 bf16 (CUTLASS)",
    "nvjet_sm90_tst_128x64_64x8_1x2_h_bz_TNT": "nvjet 128x64 GEMM (cuBLAS)",
    "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x32x8_stage3_ffma_execute_kernel__5x_cublas":
        "xmma 128x32x8 GEMM fp32 (cuBLAS)",
    "cudnn_infer_volta_scudnn_winograd_128x128_ldg1_ldg4_relu_tile148t_nt_v1":
        "convolution winograd 128x128 (cuDNN)",
    "Cijk_Alik_Bljk_BBS_BH_Bias_HA_S_SAV_UserArgs_MT64x32x128_MI16x16x1_SN_LDSB1":
        "GEMM 64x32x128 bf16 (hipBLASLt)",
    "triton_poi_fused__unsafe_view_mul_silu_2": "fused unsafe view mul silu (Triton)",
    "ncclDevKernel_AllReduce_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)":
        "all reduce bf16 (NCCL)",
    "void cub::DeviceRadixSortOnesweepKernel<cub::Policy800, false>(int*)":
        "device radix sort onesweep (CUB)",
    "_ZN5aiter24add_rmsnorm_quant_kernelIDF16bDF16bLi64ELi8EEEvPT0_": "add rmsnorm quant",
    "Memcpy DtoH (Device -> Pinned)": "Memcpy DtoH (Device -> Pinned)",
    "my_own": "my own",
}  # fmt: skip


@pytest.mark.parametrize(("kernel", "expected"), NAMED.items())
def test_label_says_what_a_kernel_does_in_which_type_and_library(kernel, expected):
    assert label(kernel) == expected


def test_a_name_cut_down_by_a_profiler_reads_like_the_whole_one():
    whole = "void at::native::<unnamed>::CatArrayBatchedCopy<at::native::<unnamed>::OpaqueType<2>>"
    assert label(whole, library="ATen") == label(
        "void unnamed>::CatArrayBatchedCopy<unnamed>::OpaqueType<2>>", library="ATen"
    )


def test_type_that_was_traced_is_used_where_the_name_tells_none():
    assert (
        label("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT", "bf16") == "nvjet 64x8 GEMM bf16 (cuBLAS)"
    )
    assert label(MUL.format(""), "fp32") == "elementwise mul bf16 (ATen)"


def test_half_of_a_fused_attention_name_is_no_type():
    kernel = "cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x64_kernel0"
    assert label(kernel, "bf16") == "flash attention bf16 (cuDNN)"


def test_kernels_of_one_label_are_told_apart_by_what_differs():
    assert labels([GEMV.format(7), GEMV.format(6)]) == [
        "GEMV bf16, variant 7 (cuBLAS)",
        "GEMV bf16, variant 6 (cuBLAS)",
    ]


def test_a_kernel_alone_needs_no_variant():
    assert labels([GEMV.format(7), "my_own"]) == ["GEMV bf16 (cuBLAS)", "my own"]


def test_the_same_kernel_twice_is_one_kernel():
    assert labels([GEMV.format(7), GEMV.format(7)]) == ["GEMV bf16 (cuBLAS)"] * 2


def test_kernels_whose_names_differ_in_nothing_to_show_are_numbered():
    found = labels(["f(int)", "f( int)"])
    assert len(set(found)) == 2 and found[1].endswith("#2")


pieces = st.lists(
    st.sampled_from([*NAMED, GEMV.format(6), "f<1>", "f<2>", "f", "", "$", "<", "::"])
)


@given(st.lists(st.builds("".join, pieces) | st.text(max_size=30), max_size=12))
def test_no_two_names_share_a_label(kernels):
    found = dict(zip(kernels, labels(kernels), strict=True))
    assert len(set(found.values())) == len(found)


@given(st.lists(st.sampled_from(list(NAMED)), unique=True), st.randoms())
def test_order_does_not_change_labels(kernels, random):
    shuffled = list(kernels)
    random.shuffle(shuffled)
    assert dict(zip(kernels, labels(kernels), strict=True)) == dict(
        zip(shuffled, labels(shuffled), strict=True)
    )


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_labels_of_shipped_workloads_are_short_and_different(name):
    kernels = ns.load_workload(name).labels["kernel"]
    found = labels(kernels)
    assert len(set(found)) == len(set(kernels))
    assert max(map(len, found)) <= 110


@pytest.mark.shared
def test_names_of_a_published_kernel_report(shared):
    file = shared / "external/seed_dsocr_rtx5090/nsys/decode_cuda_gpu_kern_sum.csv"
    if not file.is_file():
        pytest.skip("the kernel sums are not there")
    w = import_trace(file)
    found = labels(w.labels["kernel"])
    # the report calls its first kernels GEMV-1 (template=7), GEMV-2 (template=6), direct copy, ...
    assert found[:5] == [
        "GEMV bf16, variant 7 (cuBLAS)",
        "GEMV bf16, variant 6 (cuBLAS)",
        "elementwise direct copy fp32, unrolled (ATen)",
        "elementwise mul bf16, vec (ATen)",
        "elementwise silu bf16, vec (ATen)",
    ]


@pytest.mark.shared
def test_every_profiled_kernel_of_a_published_report_has_a_name_of_its_own(shared):
    file = shared / "external/seed_dsocr_rtx5090/ncu-v2/analysis/metrics_summary.csv"
    if not file.is_file():
        pytest.skip("the metrics are not there")
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    found = labels([row["kernel_name"] for row in rows])
    assert len(set(found)) == len(rows) == 20
    longest = max(range(20), key=lambda i: float(rows[i]["duration_us"]))
    assert found[longest] == "GEMM 128x256 relu bf16 (CUTLASS)"
    assert ast.literal_eval(rows[longest]["grid_size"])[2] >= 1


def test_names_made_to_backtrack_take_no_time():
    for name in ("cutlass_" * 400 + "tensorop_" * 400 + "fprop_" * 400, "elementwise_kernel" * 800,
                 "(" * 50_000 + ")" * 50_000, "f<" * 20_000):  # fmt: skip
        start = time.process_time()
        label(name)
        key(name)
        assert time.process_time() - start < 60  # hours, where a pattern goes back and forth
