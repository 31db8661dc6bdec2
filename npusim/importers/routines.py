"""Which of a library's ways to do something a kernel is: its routine.

One operator has several routines: what lies in memory without holes is read in wide pieces, what
does not by an address for each element, a short row in one warp, a long one in one block. They
differ in cost by much more than their bytes do, so costs are kept by routine
(`npusim.models.routine`). The table is data: first match wins. Kernels of other libraries have no
routine, and neither have matrix products and attention, whose models look at shapes.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import lru_cache

from npusim.importers.tensors import Call, Tensor, broadcast

_ROUTINES = (
    (r"^Memcpy DtoH.*Pageable", "copy_to_host_pageable"),
    (r"^Memcpy DtoH", "copy_to_host"),
    (r"^Memcpy HtoD.*Pageable", "copy_from_host_pageable"),
    (r"^Memcpy HtoD", "copy_from_host"),
    (r"^Memcpy DtoD", "copy_engine"),
    (r"^Memset", "fill_engine"),
    (r"vectorized_elementwise_kernel<", "vectorized"),
    (r"unrolled_elementwise_kernel<.*LoadWithCast", "unrolled_cast"),
    (r"unrolled_elementwise_kernel<", "unrolled"),
    (r"elementwise_kernel_with_index<", "indexed_fill"),
    (r"_scatter_gather_elementwise_kernel<", "scatter_gather"),
    (r"index_elementwise_kernel<", "index"),
    (r"elementwise_kernel<\d+, \d+, .*gpu_kernel_impl<", "strided_cast"),
    (r"elementwise_kernel<\d+, \d+,", "strided"),
    (r"CatArrayBatchedCopy_(vectorized|aligned)", "cat_vectorized"),
    (r"CatArrayBatchedCopy", "cat"),
    (r"vectorized_gather_kernel<", "gather_vectorized"),
    (r"index(Select|Func)SmallIndex<", "index_small"),
    (r"index(Select|Func)LargeIndex<", "index_large"),
    (r"compute_cuda_kernel<", "repeat"),
    (r"reduce_kernel<\d+, \d+, .*Arg(Max|Min)Ops", "reduce_arg"),
    (r"\breduce_kernel<\d+, 1,", "reduce_rows"),
    (r"\breduce_kernel<", "reduce_columns"),
    (r"vectorized_layer_norm_kernel<.*true>", "rms_norm"),
    (r"vectorized_layer_norm_kernel<", "layer_norm"),
    (r"softmax_warp_forward<", "softmax_warp"),
    (r"cunn_SoftMaxForward", "softmax_block"),
    (r"Device(CompactInit|ScanInit|ScanByKeyInit)Kernel<|mbtopk::fill<", "scan_init"),
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
    (r"DeviceRadixSortExclusiveSumKernel<", "scan_init"),
    (r"sbtopk::gatherTopK<", "topk_block"),
    (r"mbtopk::", "topk_device"),
    (r"upsample_linear1d_out_frame<", "upsample_line"),
    (r"upsample_bi\w+2d_out_frame<", "upsample_image"),
    (r"implicit_convolve_sgemm|precomputed_convolve_sgemm", "conv_vector"),
    (r"_fprop_implicit_gemm|tensorop_\w+fprop", "conv_matrix"),
    (r"nchwToNhwcKernel|nhwcToNchwKernel", "layout"),
    (r"device_kernel.*GroupProblemShape", "grouped_matrix"),
    (r"prepare_grouped_gemm_data", "grouped_setup"),
)  # fmt: skip
_COMPILED = tuple((re.compile(p), name) for p, name in _ROUTINES)

ROUTINES = tuple(dict.fromkeys([*(name for _, name in _ROUTINES), "transposed"]))


def routine(kernel: str, call: Call | None = None) -> str:
    """Return the routine of a kernel, empty where it has none.

    Parameters
    ----------
    kernel : str
    call : Call, optional
        The operator that launched it; its strides tell a transposing copy from one that keeps the
        order of memory.

    Examples
    --------
    >>> routine("void at::native::vectorized_elementwise_kernel<8, at::native::FillFunctor<float>")
    'vectorized'
    >>> routine("nvjet_sm90_tst_64x8_64x16_4x1_v_bz_TNT")
    ''
    """
    name = named(kernel)
    if name in ("strided", "strided_cast") and call is not None and _transposes(call.tensors):
        return "transposed"
    return name


@lru_cache(maxsize=100_000)
def named(kernel: str) -> str:
    """Return the routine that a kernel's name alone tells."""
    return next((name for p, name in _COMPILED if p.search(kernel)), "")


def _transposes(tensors: Sequence[Tensor]) -> bool:
    """Return whether two operands as large as the result run along different dimensions."""
    result = math.prod(broadcast(tensors))
    along = {_fastest(x) for x in tensors if 2 * x.elements > result}
    return len(along - {None}) > 1


def _fastest(x: Tensor) -> int | None:
    """Return the dimension, counted from the last, along which memory is dense; None if none is."""
    if len(x.strides) != len(x.shape):
        return None
    found = [i for i, (n, s) in enumerate(zip(x.shape, x.strides, strict=True)) if n > 1 and s == 1]
    return found[-1] - len(x.shape) if found else None
