"""Routines of libraries: the ways in which they do what one operator asks, and what each works on.

A routine's cost is data of its library, kept in parameters ``library.ROUTINE.NUMBER`` of a
machine (`npusim.models.routine` says what they mean). Names are neutral: other libraries have
routines of the same make.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

# What the work of a routine is counted in.
WORK = ("elements", "bytes", "threads", "products")

_ELEMENTS = (
    "vectorized", "fill", "special", "unrolled", "unrolled_cast", "strided", "strided_4d",
    "strided_5d", "strided_cast", "transposed", "indexed_fill", "cat", "cat_2d", "cat_4d",
    "gather_vectorized", "index", "index_small", "index_large", "scatter_gather", "repeat",
    "reduce_rows", "reduce_columns", "reduce_arg", "reduce_device", "reduce_tile", "layer_norm",
    "rms_norm", "softmax_warp", "softmax_block", "scan_init", "scan_device", "scan_rows",
    "scan_columns", "select_sweep", "histogram", "sort_bitonic", "sort_block", "sort_histogram",
    "sort_sweep", "topk_block", "topk_device", "upsample_line", "upsample_image", "fused_steps",
    "fused_rows", "fused_passes",
)  # fmt: skip
_BYTES = (
    "cat_vectorized", "copy_engine", "copy_to_host", "copy_to_host_pageable", "copy_from_host",
    "copy_from_host_pageable", "fill_engine", "layout", "grouped_matrix", "grouped_setup",
)  # fmt: skip

ROUTINES: Mapping[str, str] = MappingProxyType({
    **dict.fromkeys(_ELEMENTS, "elements"), **dict.fromkeys(_BYTES, "bytes"),
    "write_indices": "threads",  # one selected element each; how many is not recorded
    "conv_vector": "products",  # a multiply and an add
})  # fmt: skip

# Routines that copy between the memories of device and host.
HOST_COPIES = ("copy_to_host", "copy_to_host_pageable", "copy_from_host", "copy_from_host_pageable")

# Number of a routine -> unit, upper bound and meaning of its parameter.
NUMBERS: Mapping[str, tuple[str, float, str]] = MappingProxyType({
    "floor": ("1", 1e3, "time of its smallest kernel, in floors of that kind of the machine"),
    "element": ("1", 1e4, "cycles of a compute unit for one element (byte, thread, product)"),
    "block": ("1", 1e6, "cycles of a compute unit for one thread block"),
    "chain": ("1", 1e6, "cycles from one element of a thread to the next that waits for it"),
})  # fmt: skip
