"""What a kernel's name alone tells: its library and its kind.

The table is data: first match wins. Names say nothing of shapes, so operations known only by
name have no FLOP and no bytes.
"""

from __future__ import annotations

import re
from functools import lru_cache

_LIBRARIES = (
    (r"Memcpy|Memset|hipMemcpy|CopyDeviceTo|fillBuffer|^\[CUDA mem|^mem(cpy|set)\b", "runtime"),
    (r"flash::|flash_fwd|flash_bwd|FlashAttn|fmha_v\d", "FlashAttention"),
    (r"mcdnn", "mcDNN"),
    (r"cudnn", "cuDNN"),
    (r"nvjet|cublas|gemvx|gemv2[NT]|gemmk1|gemmSN|splitKreduce|dot_kernel|reduce_1Block|_xmma_",
     "cuBLAS"),
    (r"^triton_", "Triton"),
    (r"Cijk_|hipblaslt", "hipBLASLt"),
    (r"paged_attention_ll4mi", "AITER"),
    (r"ck_tile::|ck::", "Composable Kernel"),
    (r"nccl|rccl", "NCCL"),
    (r"cub::|thrust::|rocprim::", "CUB"),
    (r"\bat::|softmax_warp|elementwise_kernel|convolve_sgemm|compute_cuda_kernel|"
     r"CatArrayBatchedCopy|\breduce_kernel<\d+, \d+, ReduceOp", "ATen"),
    (r"cutlass", "CUTLASS"),
    (r"^(void )?phi::", "PaddlePaddle"),
)  # fmt: skip

_KINDS = (
    (r"^Memcpy|CopyDeviceTo|hipMemcpy|rocclr_copyBuffer|^\[CUDA memcpy|^memcpy\b", "memcpy"),
    (r"^Memset|fillBuffer|^\[CUDA memset|^memset\b", "memset"),
    (r"^triton_|^fused_\w*_\d{10,}$", "fused"),
    (
        r"splitkv_combine|lean_reduction|splitkv_reduce|paged_attention\w*reduce",
        "attention_combine",
    ),
    (r"splitKreduce|splitk_reduce|splitk_combine|reduce_1Block", "splitk_reduce"),
    (r"flash_fwd|flash_fprop|fmha|attention|mha_fwd|sdpa", "attention"),
    (r"nccl|rccl", "collective"),
    (r"prepare_grouped_gemm|[Cc]omputeOffsets|nchwToNhwc|nhwcToNchw|precompute_indices", "setup"),
    (r"implicit_gemm|implicit_convolve|precomputed_convolve|convolve_|conv2d|winograd", "conv"),
    (r"tensorop_\w+fprop", "conv"),
    (r"gemvx|gemv|cublasGemvParams|dot_kernel", "gemv"),
    (r"nvjet|gemm|Cijk_|_mm_|matmul|cutlass.*Kernel|device_kernel.*grouped", "gemm"),
    (r"layer_norm|LayerNorm|RmsNorm|rms_norm|RMSNorm", "norm"),
    (r"softmax|SoftMax|Softmax", "softmax"),
    (r"topk|TopK", "topk"),
    (r"bitonicSort|radixSort|RadixSort|sort", "sort"),
    (r"DeviceScan|DeviceSelect|DeviceCompact|scan_|write_indices|cumsum", "scan"),
    (r"reduce_kernel|DeviceReduce|ReduceOp|Histogram", "reduction"),
    (r"CatArrayBatchedCopy", "cat"),
    (r"silu|gelu|GeluCUDA|sigmoid|tanh_kernel|SwiGLU|ActFFNGlu", "activation"),
    (r"rope|Rope|rotary", "rope"),
    (r"direct_copy|bfloat16_copy|float16_copy", "copy"),
    (r"FillFunctor|elementwise_kernel_with_index", "fill"),
    (r"scatter|index_put|indexFunc", "scatter"),
    (r"gather|index_elementwise|indexSelect|embedding", "gather"),
    (r"elementwise|upsample|compute_cuda_kernel", "pointwise"),
)

_COMPILED_LIBRARIES = tuple((re.compile(p), name) for p, name in _LIBRARIES)
_COMPILED_KINDS = tuple((re.compile(p), kind) for p, kind in _KINDS)


@lru_cache(maxsize=100_000)
def library(kernel: str) -> str:
    """Return the library a kernel comes from.

    Examples
    --------
    >>> library("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT")
    'cuBLAS'
    >>> library("my_kernel")
    'unknown'
    """
    return next((name for p, name in _COMPILED_LIBRARIES if p.search(kernel)), "unknown")


@lru_cache(maxsize=100_000)
def kind(kernel: str) -> str:
    """Return the kind of work a kernel's name suggests.

    Examples
    --------
    >>> kind("void cublasLt::splitKreduce_kernel<32, 16, int, float>")
    'splitk_reduce'
    >>> kind("my_kernel")
    'unknown'
    """
    return next((k for p, k in _COMPILED_KINDS if p.search(kernel)), "unknown")
