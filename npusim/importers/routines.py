"""Which of a library's ways to do something a kernel is: its routine.

One operator has several routines: what lies in memory without holes is read in wide pieces, what
does not by an address for each element; a short row in one warp, a long one in one block. They
differ in cost by much more than their bytes do, so costs are kept by routine (`npusim.library`,
`npusim.models.routine`). The table is data: first match wins. Kernels of other libraries have no
routine, and neither have matrix products and attention, whose models look at shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from npusim.importers.tensors import Call, Tensor, broadcast

_SPECIAL = r"silu|[gG]elu|sigmoid|tanh|\bcos_|\bsin_|\bexp_|\blog_|erf"

_ROUTINES = (
    (r"^Memcpy DtoH.*Pageable", "copy_to_host_pageable"),
    (r"^Memcpy DtoH", "copy_to_host"),
    (r"^Memcpy HtoD.*Pageable", "copy_from_host_pageable"),
    (r"^Memcpy HtoD", "copy_from_host"),
    (r"^Memcpy DtoD", "copy_engine"),
    (r"^Memset", "fill_engine"),
    (rf"vectorized_elementwise_kernel<\d, [\w:() ]*({_SPECIAL})", "special"),
    (r"vectorized_elementwise_kernel<.*FillFunctor", "fill"),
    (r"vectorized_elementwise_kernel<", "vectorized"),
    (r"unrolled_elementwise_kernel<.*LoadWithCast", "unrolled_cast"),
    (r"unrolled_elementwise_kernel<", "unrolled"),
    (r"elementwise_kernel_with_index<", "indexed_fill"),
    (r"_scatter_gather_elementwise_kernel<", "scatter_gather"),
    (r"index_elementwise_kernel<", "index"),
    (r"elementwise_kernel<\d+, \d+, .*gpu_kernel_impl<", "strided_cast"),
    (r"elementwise_kernel<\d+, \d+,", "strided"),
    (r"CatArrayBatchedCopy_(vectorized|aligned)", "cat_vectorized"),
    (r"CatArrayBatchedCopy.*\b(?:int|long), 2, \d+, \d+>", "cat_2d"),
    (r"CatArrayBatchedCopy.*\b(?:int|long), 4, \d+, \d+>", "cat_4d"),
    (r"CatArrayBatchedCopy", "cat"),  # over three dimensions, or not told
    (r"vectorized_gather_kernel<", "gather_vectorized"),
    (r"index(Select|Func)SmallIndex<", "index_small"),
    (r"index(Select|Func)LargeIndex<", "index_large"),
    (r"compute_cuda_kernel<", "repeat"),
    (r"\breduce_kernel<\d+, \d+, .*Arg(Max|Min)Ops", "reduce_arg"),
    (r"\breduce_kernel<\d+, 1,", "reduce_rows"),
    (r"\breduce_kernel<", "reduce_columns"),
    (r"vectorized_layer_norm_kernel<[^>]*true>", "rms_norm"),
    (r"vectorized_layer_norm_kernel<", "layer_norm"),
    (r"softmax_warp_forward<", "softmax_warp"),
    (r"cunn_SoftMaxForward", "softmax_block"),
    (r"Device(CompactInit|ScanInit|ScanByKeyInit)Kernel<|mbtopk::fill<", "scan_init"),
    (r"DeviceRadixSortExclusiveSumKernel<", "scan_init"),
    (r"DeviceSelectSweepKernel<", "select_sweep"),
    (r"DeviceReduceSingleTileKernel<", "reduce_tile"),
    (r"DeviceReduceKernel<", "reduce_device"),
    (r"DeviceScan(ByKey)?Kernel<", "scan_device"),
    (r"write_indices<", "write_indices"),
    (r"scan_innermost_dim<", "scan_rows"),
    (r"scan_outer_dim<", "scan_columns"),
    (r"kernelHistogram1D<", "histogram"),
    (r"bitonicSortKVInPlace<", "sort_bitonic"),
    (r"radixSortKVInPlace<", "sort_block"),
    (r"DeviceRadixSortOnesweepKernel<", "sort_sweep"),
    (r"DeviceRadixSortHistogramKernel<", "sort_histogram"),
    (r"sbtopk::gatherTopK<", "topk_block"),
    (r"mbtopk::", "topk_device"),
    (r"upsample_linear1d_out_frame<", "upsample_line"),
    (r"upsample_bi\w+2d_out_frame<", "upsample_image"),
    (r"implicit_convolve_sgemm|precomputed_convolve_sgemm", "conv_vector"),
    (r"nchwToNhwcKernel|nhwcToNchwKernel", "layout"),
    (r"device_kernel.*GroupProblemShape", "grouped_matrix"),
    (r"prepare_grouped_gemm_data", "grouped_setup"),
)  # fmt: skip
_COMPILED = tuple((re.compile(p), name) for p, name in _ROUTINES)

_LINE = 128  # bytes of a cache line, which threads side by side share if they are near enough
_DEEP = (4, 5)  # dimensions whose addresses cost more than the rest; the last stands for more


def routine(kernel: str, call: Call | None = None) -> str:
    """Return the routine of a kernel, empty where it has none.

    Parameters
    ----------
    kernel : str
    call : Call, optional
        The operator that launched it: the strides of its inputs tell what a kernel that computes
        an address for each element has to do for it.

    Examples
    --------
    >>> routine("void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add")
    'vectorized'
    >>> turned = Tensor((4096, 512), "bf16", 2, (1, 4096))
    >>> flat = Tensor((4096, 512), "bf16", 2, (512, 1))
    >>> copy = "void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl_nocast<..."
    >>> routine(copy, Call("aten::copy_", (flat, turned), ()))
    'transposed'
    >>> routine("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT")
    ''
    """
    name = _named(kernel)
    if name not in ("strided", "strided_cast") or call is None:
        return name
    operands = [x for x in call.tensors if len(x.strides) == len(x.shape)]
    if _transposes(operands):
        return "transposed"
    deep = min(dimensions(operands), max(_DEEP))
    return f"strided_{deep}d" if name == "strided" and deep in _DEEP else name


@lru_cache(maxsize=100_000)
def _named(kernel: str) -> str:
    """Return the routine that a kernel's name alone tells."""
    return next((name for p, name in _COMPILED if p.search(kernel)), "")


def _transposes(operands: Sequence[Tensor]) -> bool:
    """Return whether neighbours in the first operand lie a cache line or more apart in another.

    Threads side by side follow the first one. Only operands as large as the result count: a small
    one stays in the nearest cache.
    """
    result = math.prod(broadcast(operands))
    large = [x for x in operands if 2 * x.elements > result]
    if not large or result < 2:
        return False
    ahead = _nearest(large[0]) - len(large[0].shape)
    return any(
        len(x.shape) >= -ahead
        and x.strides[ahead] * x.itemsize >= _LINE
        and _nearest(x) - len(x.shape) != ahead
        for x in large[1:]
    )


def _nearest(x: Tensor) -> int:
    """Return the dimension along which elements lie nearest to each other in memory."""
    steps = [
        (s, -i) for i, (n, s) in enumerate(zip(x.shape, x.strides, strict=True)) if n > 1 and s
    ]
    return -min(steps)[1] if steps else len(x.shape)


def dimensions(operands: Sequence[Tensor]) -> int:
    """Return how many dimensions addresses run over once those that follow on are merged.

    Examples
    --------
    A bias of one number a row, added to rows that follow each other: two dimensions.

    >>> x, bias = Tensor((8, 16, 32), "bf16", 2, (512, 32, 1)), Tensor((8, 16, 1), "bf16", 2,
    ...                                                              (16, 1, 1))
    >>> dimensions([x, bias])
    2
    """
    shape = broadcast(operands)
    strides = [_over(x, shape) for x in operands]
    order = sorted((i for i, n in enumerate(shape) if n > 1),
                   key=lambda i: [s[i] or math.inf for s in strides])  # fmt: skip
    merged, ends = 0, None
    for i in order:
        steps = [s[i] for s in strides]
        merged += steps != ends
        ends = [step * shape[i] for step in steps]
    return merged


def _over(x: Tensor, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the strides of an operand over the shape of the result: 0 where it is repeated."""
    added = len(shape) - len(x.shape)
    return (0,) * added + tuple(s if n > 1 else 0 for n, s in zip(x.shape, x.strides, strict=True))
