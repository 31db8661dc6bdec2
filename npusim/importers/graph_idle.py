"""Nodes of an execution graph that do no work on the device: annotations, views, the host's own."""

from __future__ import annotations

import re

from npusim.importers.graph_nodes import Node

_COMMUNICATION = re.compile(
    r"(nccl|rccl|hccl|xccl|gloo|mpi|ucc):|record_param_comms$|_?c10d(_functional)?::"
)
_ALLOCATIONS = {f"aten::{name}" for name in (
    "empty", "empty_like", "empty_strided", "empty_permuted", "empty_quantized", "new_empty",
    "new_empty_strided",
)}  # fmt: skip
# What only changes how a tensor is seen, or asks about it. Most say so in their schema as well.
_IDLE = _ALLOCATIONS | {f"aten::{name}" for name in (
    "view", "view_as", "reshape", "reshape_as", "_reshape_alias", "_unsafe_view", "flatten",
    "unflatten", "t", "transpose", "permute", "numpy_T", "mT", "movedim", "swapaxes", "swapdims",
    "expand", "expand_as", "broadcast_to", "as_strided", "slice", "narrow", "select", "diagonal",
    "squeeze", "unsqueeze", "split", "split_with_sizes", "chunk", "tensor_split", "unbind",
    "unfold", "alias", "detach", "contiguous", "to", "real", "imag", "view_as_real",
    "view_as_complex", "resolve_conj", "resolve_neg", "lift", "lift_fresh", "t_", "transpose_",
    "squeeze_", "unsqueeze_", "swapaxes_", "swapdims_", "as_strided_", "detach_", "rename_",
    "requires_grad_", "resize_", "resize_as_", "set_", "record_stream", "result_type", "is_pinned",
    "is_same_size", "item", "size", "stride", "sym_size", "sym_stride", "sym_numel", "numel",
)}  # fmt: skip
_RETURNS_VIEW = re.compile(r"->\s*\(?\s*Tensor\([a-z]+\)")


def communicates(name: str) -> bool:
    """Return whether a node sends data to other devices.

    Examples
    --------
    >>> [communicates(n) for n in ("nccl:all_reduce", "c10d::allreduce_", "aten::add")]
    [True, True, False]
    """
    return _COMMUNICATION.match(name) is not None


def allocates(node: Node) -> bool:
    """Return whether a node makes new tensors without writing to them."""
    return node.name in _ALLOCATIONS


def is_operator(node: Node) -> bool:
    """Return whether a node is an operator, and not an annotation or part of the framework."""
    known = node.schema or node.name.startswith("aten::") or node.is_generated
    return bool(known) or communicates(node.name)


def idle_reason(node: Node) -> str | None:
    """Return why a node of the host does no work on the device, or None where it does."""
    if not is_operator(node):
        return "annotations"
    if not any(t.on_device for t in (*node.given, *node.made)):
        return "on the host"
    idle = node.name in _IDLE or node.name.endswith("::wait_tensor")
    if node.schema and "!" not in node.schema and not communicates(node.name):
        passed_on = node.made and {t.storage for t in node.made} <= {t.storage for t in node.given}
        idle = idle or bool(passed_on or _RETURNS_VIEW.search(node.schema))
    return "views and metadata" if idle else None
