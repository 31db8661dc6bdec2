"""Rules for everything that streams: pointwise, copies, reductions, gathers, sorts.

A transcendental function counts as one FLOP; an activation as the steps it is made of.
"""

from __future__ import annotations

import math
import re

from npusim.importers.tensors import Call, broadcast, widest
from npusim.importers.work import Launch, Rule, Work


def _rows(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return (rows, row length) of a shape."""
    return (math.prod(shape[:-1]), shape[-1]) if shape else (1, 1)


def _stream(
    kind: str, dtype: str, shape: tuple[int, ...], flop: float, *, read: float = 0.0,
    weight: float = 0.0, write: float = 0.0, basis: str = "shape",
) -> Work:  # fmt: skip
    m, n = _rows(shape)
    return Work(kind, dtype, basis, batch=1, m=m, n=n, flop=flop, read_weight=weight,
                read_activation=read, write_activation=write)  # fmt: skip


def _pointwise(flop_each: float, kind: str = "pointwise", out_bytes: int | None = None) -> Rule:
    """Return the rule of a pointwise operator.

    A one-dimensional operand that is broadcast along the rows of another is a parameter of the
    model (a norm's scale, a bias): weight.
    """

    def rule(call: Call, _: Launch) -> Work | None:
        t = call.tensors
        wide = widest(t)
        if wide is None:
            return None
        shape = broadcast(t)
        size = math.prod(shape)
        weights = [x for x in t if len(x.shape) == 1 and len(shape) > 1]
        target = t[0] if call.name.endswith("_") else None
        item = out_bytes if out_bytes is not None else (target or wide).itemsize
        return _stream(kind, wide.dtype, shape, flop_each * size,
                       read=sum(x.nbytes for x in t if x not in weights),
                       weight=sum(x.nbytes for x in weights),
                       write=float(size * item))  # fmt: skip

    return rule


def _copy(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    if len(t) < 2:
        return None
    target, origin = t[0], t[1]
    kind = "copy" if target.dtype == origin.dtype else "cast"
    return _stream(kind, target.dtype, target.shape, 0.0, read=origin.nbytes,
                   write=float(target.elements * target.itemsize))  # fmt: skip


def _fill(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    return _stream("fill", t[0].dtype, t[0].shape, 0.0, write=t[0].nbytes) if t else None


def _arange(call: Call, launch: Launch) -> Work:
    elements = launch.blocks * launch.threads
    return _stream("fill", "int64", (elements,), 0.0, write=8.0 * elements, basis="launch")


_OPAQUE = re.compile(r"OpaqueType<(\d{1,2})u?>")


def _cat(call: Call, launch: Launch) -> Work | None:
    """Return a concatenation; the profiler gives no type for lists, the kernel's name a size."""
    t = call.tensors
    size = _OPAQUE.search(launch.kernel)
    if not t or size is None:
        return None
    moved = float(int(size[1]) * sum(x.elements for x in t))
    name = {1: "int8", 2: "bf16", 4: "fp32", 8: "int64"}.get(int(size[1]), "unknown")
    largest = max(t, key=lambda x: x.elements)
    return _stream("cat", name, largest.shape, 0.0, read=moved, write=moved)


def _reduction(flop_each: float, out_bytes: int | None = None, dims: int = 1) -> Rule:
    """Return the rule of a reduction over the dimensions that an input lists (or all).

    `dims` is the position of that input: norms have their order before it.
    """

    def rule(call: Call, _: Launch) -> Work | None:
        t = call.tensors
        if not t:
            return None
        x = t[0]
        axes = [a for a in call.numbers(dims) if -len(x.shape) <= a < len(x.shape)]
        length = math.prod(x.shape[a] for a in axes) if axes else x.elements
        results = x.elements / length if length else 0.0
        item = out_bytes if out_bytes is not None else x.itemsize
        return _stream("reduction", x.dtype, x.shape, flop_each * x.elements, read=x.nbytes,
                       write=results * item)  # fmt: skip

    return rule


def _norm(flop_each: float, kind: str) -> Rule:
    """Return the rule of a normalisation or softmax: reads and writes its input once."""

    def rule(call: Call, _: Launch) -> Work | None:
        t = call.tensors
        if not t:
            return None
        x = t[0]
        return _stream(kind, x.dtype, x.shape, flop_each * x.elements, read=x.nbytes,
                       weight=sum(w.nbytes for w in t[1:]), write=x.nbytes)  # fmt: skip

    return rule


def _scan(kind: str, out_bytes: int) -> Rule:
    """Return the rule of a sort, scan or selection: in once, as many results out at the most."""

    def rule(call: Call, _: Launch) -> Work | None:
        t = call.tensors
        if not t:
            return None
        x = t[0]
        return _stream(kind, x.dtype, x.shape, float(x.elements), read=x.nbytes,
                       write=float(x.elements * out_bytes))  # fmt: skip

    return rule


def _topk(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    if not t:
        return None
    x = t[0]
    chosen = (call.numbers(1) or [1])[0]
    rows, _length = _rows(x.shape)
    return _stream("topk", x.dtype, x.shape, float(x.elements), read=x.nbytes,
                   write=float(rows * chosen * (x.itemsize + 8)))  # fmt: skip


def _gather_rows(call: Call, _: Launch) -> Work | None:
    """Return index_select, embedding and gather: the rows asked for, once in and once out."""
    t = call.tensors
    if len(t) < 2:
        return None
    table, index = t[0], t[1]
    width = 1 if call.name == "aten::gather" else table.shape[-1] if table.shape else 1
    elements = index.elements * width
    moved = float(elements * table.itemsize)
    is_weight = call.within("aten::embedding") is not None
    return _stream("gather", table.dtype, (index.elements, width), 0.0,
                   read=index.nbytes + (0.0 if is_weight else moved),
                   weight=moved if is_weight else 0.0, write=moved)  # fmt: skip


def _index(call: Call, launch: Launch) -> Work | None:
    """Return advanced indexing: the size of the index is not recorded, the grid tells rows.

    Where a block takes many elements, there are more than b - 1 blocks hold and at most what b
    blocks hold. The geometric mean of these bounds is as likely to be too small by a factor as too
    large: half-way for many blocks, near the smallest for one. They are whole rows, or part of one
    that the blocks do not hold.
    """
    t = call.tensors
    if not t or not launch.blocks:
        return None
    x = t[0]
    width = max(x.shape[-1], 1) if x.shape else 1
    if "vectorized_gather" in launch.kernel:
        elements = launch.grid[0] * width
    else:  # four elements a thread
        most = launch.blocks * launch.threads * 4
        least = most - launch.threads * 4 + 1
        elements = round(math.sqrt(least * most))
        if width <= most:
            elements = max(round(elements / width), 1) * width
    elements = min(elements, launch.blocks * launch.threads * 16)
    moved = float(elements * x.itemsize)
    shape = max(elements // width, 1), min(elements, width)
    return _stream("gather", x.dtype, shape, 0.0, read=moved, write=moved, basis="launch")


def _index_add(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    if len(t) < 3:
        return None
    index, source = t[1], t[2]
    return _stream("scatter", source.dtype, source.shape, float(source.elements),
                   read=index.nbytes + 2 * source.nbytes, write=source.nbytes)  # fmt: skip


def _scatter(call: Call, launch: Launch) -> Work | None:
    """Return scatter and index_put: the values written, and what says where.

    The index of index_put is not recorded. Where one value is written to many places, the grid
    tells how many at most.
    """
    t = call.tensors
    if len(t) < 2:
        return None
    smallest = min(t[1:], key=lambda x: x.elements)
    if not smallest.shape:
        elements = min(t[0].elements, max(launch.blocks * launch.threads * 4, 1))
        moved = float(elements * t[0].itemsize)
        return _stream("scatter", t[0].dtype, (elements,), 0.0, read=8.0 * elements, write=moved,
                       basis="launch")  # fmt: skip
    written = float(smallest.elements * t[0].itemsize)
    return _stream("scatter", t[0].dtype, smallest.shape, 0.0,
                   read=sum(x.nbytes for x in t[1:]), write=written)  # fmt: skip


def _upsample(call: Call, launch: Launch) -> Work | None:
    t = call.tensors
    size = math.prod(call.numbers(1)) if call.numbers(1) else 0
    if not t or not size:
        return None
    x = t[0]
    spatial = math.prod(x.shape[2:]) or 1
    written = x.elements / spatial * size
    return _stream("pointwise", x.dtype, x.shape, 4.0 * written, read=x.nbytes,
                   write=written * x.itemsize)  # fmt: skip


def _table() -> dict[str, Rule]:
    rules: dict[str, Rule] = {
        "copy_": _copy, "fill_": _fill, "zero_": _fill, "arange": _arange, "cat": _cat,
        "stack": _cat, "embedding": _gather_rows, "index_select": _gather_rows,
        "gather": _gather_rows, "index": _index, "index_add_": _index_add,
        "_index_put_impl_": _scatter, "index_put_": _scatter, "scatter_": _scatter,
        "repeat_interleave": _scan("gather", 8), "topk": _topk, "sort": _scan("sort", 16),
        "argsort": _scan("sort", 16), "cumsum": _scan("scan", 8), "nonzero": _scan("scan", 8),
        "histc": _scan("reduction", 8), "upsample_linear1d": _upsample,
        "upsample_bilinear2d": _upsample, "upsample_bicubic2d": _upsample,
        "_softmax": _norm(5, "softmax"), "softmax": _norm(5, "softmax"),
        "_log_softmax": _norm(5, "softmax"), "native_layer_norm": _norm(8, "norm"),
        "layer_norm": _norm(8, "norm"), "rms_norm": _norm(4, "norm"),
        "_fused_rms_norm": _norm(4, "norm"), "native_group_norm": _norm(8, "norm"),
        "cudnn_batch_norm": _norm(8, "norm"), "native_batch_norm": _norm(8, "norm"),
        "miopen_batch_norm": _norm(8, "norm"),
        "_log_softmax_backward_data": _norm(5, "softmax"), "threshold_backward": _pointwise(1),
        "uniform_": _fill, "normal_": _fill,
        "where": _pointwise(1), "silu": _pointwise(4, "activation"),
        "gelu": _pointwise(8, "activation"), "sigmoid": _pointwise(3, "activation"),
        "tanh": _pointwise(1, "activation"), "relu": _pointwise(1, "activation"),
    }  # fmt: skip
    for name in ("add", "sub", "mul", "div", "neg", "pow", "rsqrt", "sqrt", "exp", "log", "cos",
                 "sin", "abs", "floor", "ceil", "round", "remainder", "floor_divide", "maximum",
                 "minimum", "clamp", "masked_fill", "rsub", "reciprocal", "bitwise_and",
                 "bitwise_or", "bitwise_not", "fmod", "true_divide", "addcmul",
                 "addcdiv"):  # fmt: skip
        rules[name] = rules[name + "_"] = _pointwise(1)
    for name in ("eq", "ne", "gt", "ge", "lt", "le", "logical_and", "logical_or", "logical_not",
                 "isnan", "isinf"):  # fmt: skip
        rules[name] = _pointwise(1, out_bytes=1)
    for name in ("mean", "sum", "amax", "amin", "max", "min", "prod"):
        rules[name] = _reduction(1)
    for name in ("norm", "linalg_vector_norm"):
        rules[name] = _reduction(2, dims=2)
    for name, size in (("argmax", 8), ("argmin", 8), ("all", 1), ("any", 1)):
        rules[name] = _reduction(1, out_bytes=size)
    return {"aten::" + name: rule for name, rule in rules.items()}


RULES = _table()
