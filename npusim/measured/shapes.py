"""What the measured operations of a table do: FLOP and bytes as an imported trace would have them.

Each operation of a table is put as the framework's call that it stands for, and the rules of the
importers say what it does; so one shape costs the same whether it comes from a table or a trace.

What lies between two uses of an operand follows from how it was measured: with c operand sets in
turn, c times what one of them holds; where nothing is said of the sets, operands are cold.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from npusim.importers.products import RULES as PRODUCTS
from npusim.importers.streams import RULES as STREAMS
from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Launch, Work
from npusim.measured.launched import launched
from npusim.reuse import Reuse, alone
from npusim.workload import COST_COLUMNS, COST_LABELS, Operations

COLD = math.inf

_TYPES = {"bf16": 2, "fp16": 2, "fp32": 4, "tf32": 4, "fp64": 8, "fp8": 1, "int8": 1}
_OTHER_NAMES = {
    "bfloat16": "bf16", "float16": "fp16", "half": "fp16", "float32": "fp32", "float": "fp32",
    "float64": "fp64", "double": "fp64", "float8_e4m3fn": "fp8", "float8_e5m2": "fp8",
    "fp8_e4m3": "fp8", "e4m3": "fp8",
}  # fmt: skip
# What tables and frameworks call a type -> (its name here, bytes).
DTYPES: Mapping[str, tuple[str, int]] = {
    name: (known, _TYPES[known])
    for name, known in [*((t, t) for t in _TYPES), *_OTHER_NAMES.items()]
}

_TWO_OPERANDS = ("add", "sub", "mul", "div", "maximum", "minimum")
_ONE_OPERAND = ("mul_scalar", "neg", "abs", "exp", "log", "sqrt", "rsqrt", "pow", "cos", "sin",
                "clamp", "silu", "gelu", "sigmoid", "tanh", "relu")  # fmt: skip
_OVER_ROWS = ("mean", "sum", "amax", "softmax", "rms_norm", "layer_norm")
_MOVES = ("cast", "copy", "fill", "cat")
_SAME_AS = {"clone": "copy", "to": "cast", "rmsnorm": "rms_norm", "layernorm": "layer_norm"}
POINTWISE = (*_TWO_OPERANDS, *_ONE_OPERAND, *_OVER_ROWS, *_MOVES, *_SAME_AS)
_ROW, _OTHER_ROW = 1280, 64


@dataclass(frozen=True)
class Measurable:
    """What one measured operation does, and what lies between two uses of what it reads.

    Attributes
    ----------
    work : Work
    weight, kv, activation : float
        Bytes touched between two uses of the weights, the KV cache and the activations [B].
    library, routine : str
        What ran it: where a table does not say it, what PyTorch runs (`npusim.measured.launched`).
    blocks, threads : int
        Its grid, 0 where it is not known.
    again : float
        Bytes touched from one read of its activations to the next within the operation, where it
        reads all of them twice [B]; 0 where it does not.
    """

    work: Work
    weight: float
    kv: float
    activation: float
    library: str = "unknown"
    routine: str = ""
    blocks: int = 0
    threads: int = 0
    again: float = 0.0

    @property
    def is_cold(self) -> bool:
        """Whether what it is there to read (weights, else a cache, else activations) is cold."""
        operand = self.weight if self.work.read_weight else self.activation
        return (self.kv if self.work.read_kv else operand) == COLD


def operations(measured: Sequence[Measurable]) -> Operations:
    """Return measured operations as a cost model sees them."""
    texts = (
        [o.work.kind for o in measured], [o.work.dtype for o in measured],
        [o.library for o in measured], [o.routine for o in measured],
    )  # fmt: skip
    kind, dtype, library, routine = (np.array(t, dtype=object) for t in texts)
    grid = ("blocks", "threads")
    numeric = [c for c in COST_COLUMNS if c not in (*COST_LABELS, *grid)]
    columns = {c: np.array([getattr(o.work, c) for o in measured]) for c in numeric}
    columns |= {c: np.array([getattr(o, c) for o in measured]) for c in grid}
    apart = zip(*((o.weight, o.kv, o.activation) for o in measured), strict=True)
    reuse = _read_again(alone(*(list(a) for a in apart)), measured)
    return Operations(kind, dtype, library, routine, columns, reuse)


def _read_again(reuse: Reuse, measured: Sequence[Measurable]) -> Reuse:
    """Return the reuse of operations of which some read their activations twice.

    Half of these reads come `again` after the other half, which follow what the operation before
    read last: nearer than what it wrote, by what lies between the first of its inputs and the last.
    """
    twice = [i for i, one in enumerate(measured) if one.again]
    if not twice:
        return reuse
    before, count = len(reuse.windows), len(twice)
    added = np.zeros((2, count, 3))
    added[0, :, 2] = [measured[i].activation - measured[i].work.read_activation / 2 for i in twice]
    added[1, :, 2] = [measured[i].again for i in twice]
    name = "read_activation"
    window = np.repeat(reuse.window[name], 2, axis=1)
    share = np.tile([1.0, 0.0], (len(measured), 1))
    window[twice] = before + np.arange(2 * count).reshape(2, count).T
    share[twice] = 0.5
    kept = np.tile(reuse.kept[twice], (2, 1))
    return replace(
        reuse, windows=np.vstack([reuse.windows, *added]), kept=np.vstack([reuse.kept, kept]),
        share={**reuse.share, name: share}, window={**reuse.window, name: window},
    )  # fmt: skip


def linear(dtype: str, m: int, n: int, k: int, copies: float = COLD) -> Measurable:
    """Return a linear layer: (m, k) by a weight (n, k), of which there are `copies` in turn.

    An 8-bit float product gives 16-bit results, as `torch._scaled_mm` does.

    Examples
    --------
    >>> one = linear("bf16", 1, 1280, 1024, copies=6)
    >>> one.work.kind, one.work.flop, one.work.read_weight, one.weight
    ('gemv', 2621440.0, 2621440.0, 15733248.0)
    """
    x, weight = _tensor(dtype, m, k), _tensor(dtype, n, k)
    if dtype == "fp8":
        work = _work("_scaled_mm", x, _tensor(dtype, k, n))
    else:
        work = _work("linear", x, weight)
    beside = work.read_activation + work.write_activation
    # The input and the result are the same memory every time: one weight lies between two uses.
    return Measurable(work, copies * work.read_weight + beside, COLD, work.read_weight + beside)


def decode_attention(
    dtype: str,
    batch: int,
    heads: int,
    kv_heads: int,
    head_dim: int,
    context: int,
    copies: float = COLD,
) -> Measurable:
    """Return attention of one query a sequence over a cache of `context` tokens.

    Examples
    --------
    >>> one = decode_attention("bf16", 2, 16, 2, 128, 1000, copies=1)
    >>> one.work.m, one.work.n, one.work.read_kv, one.kv - one.work.read_kv
    (1, 1000, 2048000.0, 16384.0)
    """
    q = _tensor(dtype, batch, heads, 1, head_dim)
    kv = _tensor(dtype, batch, kv_heads, context, head_dim)
    work = _work("scaled_dot_product_attention", q, kv, kv)
    # The rule takes one key for no cache; a table that says decode means one.
    work = replace(work, read_kv=2 * kv.nbytes, read_activation=q.nbytes)
    beside = work.read_activation + work.write_activation
    return Measurable(work, COLD, copies * work.read_kv + beside, work.read_kv + beside)


def prefill_attention(
    dtype: str, batch: int, heads: int, kv_heads: int, head_dim: int, sequence: int,
    causal: bool, copies: float = COLD,
) -> Measurable:  # fmt: skip
    """Return attention of a whole sequence over itself.

    Examples
    --------
    >>> full, causal = (prefill_attention("bf16", 1, 8, 8, 64, 3, c).work.flop for c in (0, 1))
    >>> full == 4 * 8 * 64 * 9, causal == 4 * 8 * 64 * 6
    (True, True)
    """
    q = _tensor(dtype, batch, heads, sequence, head_dim)
    kv = _tensor(dtype, batch, kv_heads, sequence, head_dim)
    work = _work("scaled_dot_product_attention", q, kv, kv, causal=causal)
    if sequence == 1:  # the rule takes one query for decode
        work = replace(work, read_kv=0.0, read_activation=q.nbytes + 2 * kv.nbytes)
    return _of_activations(work, copies)


def pointwise(dtype: str, name: str, elements: int, copies: float = COLD) -> Measurable:
    """Return a pointwise, reducing or copying operator on a tensor of `elements`.

    ``add`` and the like read two tensors; ``cast`` goes to fp32, and from fp32 to bf16; reductions,
    softmax and norms are over rows of 1280 (64 where 1280 does not divide), norms without a scale;
    ``cat`` joins a tensor to itself: it reads both inputs, one after the other, so
    the second time it finds what it has just read, behind as much that it has written.

    Parameters
    ----------
    dtype : str
        Type of the input.
    name : str
        One of `POINTWISE`.
    elements : int
        Elements of the (first) input.
    copies : float
        Operand sets in turn.

    Examples
    --------
    >>> add, cat = (pointwise("bf16", name, 1000).work for name in ("add", "cat"))
    >>> add.read_activation, add.write_activation, cat.read_activation, cat.write_activation
    (4000.0, 2000.0, 4000.0, 4000.0)
    """
    name = _SAME_AS.get(name, name)
    row = 1
    if name in _OVER_ROWS:
        row = _ROW if elements % _ROW == 0 else math.gcd(elements, _OTHER_ROW)
    known, size = DTYPES[dtype]
    runs = launched(name, known, size, elements // row, row)._asdict()
    return replace(_pointwise(dtype, name, elements, row, copies), **runs)


def _pointwise(dtype: str, name: str, elements: int, row: int, copies: float) -> Measurable:
    """Return a pointwise operator, whatever runs it."""
    x = _tensor(dtype, elements)
    if name in _OVER_ROWS:
        x = _tensor(dtype, elements // row, row)
        return _of_activations(_work(name, x, values=("", "[-1]")), copies)
    if name == "cat":
        twice = 2.0 * x.nbytes
        work = Work("cat", x.dtype, batch=1, m=1, n=elements, read_activation=twice,
                    write_activation=twice)  # fmt: skip
        distinct = copies * (x.nbytes + twice)
        return replace(_of_activations(work, copies), activation=distinct, again=twice)
    inputs = {
        "copy": ("copy_", (x, x)),
        "cast": ("copy_", (_tensor("bf16" if x.dtype == "fp32" else "fp32", elements), x)),
        "fill": ("fill_", (x,)),
        "mul_scalar": ("mul", (x,)),
    }
    operator, tensors = inputs.get(name, (name, (x, x) if name in _TWO_OPERANDS else (x,)))
    return _of_activations(_work(operator, *tensors), copies)


def stream(dtype: str, bytes_read: float, bytes_written: float, copies: float = COLD) -> Measurable:
    """Return a kernel that reads and writes memory and hardly computes.

    Examples
    --------
    >>> stream("fp32", 4096.0, 4096.0, copies=1).activation
    8192.0
    """
    known, size = DTYPES[dtype]
    kind = "copy" if bytes_read else "fill"
    elements = int(max(bytes_read, bytes_written) / size)
    work = Work(kind, known, batch=1, m=1, n=elements, read_activation=bytes_read,
                write_activation=bytes_written)  # fmt: skip
    runs = launched(kind, known, size, 1, elements)._asdict()
    return replace(_of_activations(work, copies), **runs)


def _of_activations(work: Work, copies: float) -> Measurable:
    moved = work.read_weight + work.read_activation + work.write_activation
    return Measurable(work, COLD, COLD, copies * moved)


def _tensor(dtype: str, *shape: int) -> Tensor:
    name, size = DTYPES[dtype]
    return Tensor(shape, name, size)


_RULES: Mapping[str, Callable[[Call, Launch], Work | None]] = {**PRODUCTS, **STREAMS}


def _work(
    operator: str, *tensors: Tensor, values: tuple[str, ...] = (), causal: bool = False
) -> Work:
    if causal:
        values = ("",) * 5 + ("True",)  # its place among the inputs of PyTorch's operator
    name = f"aten::{operator}"
    work = _RULES[name](Call(name, tensors, values), Launch(""))
    if work is None:
        raise RuntimeError(f"no rule takes {operator} of {tensors}")  # ours, not the user's
    return work
