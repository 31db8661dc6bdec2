"""Tensors as PyTorch's profiler records them: shape, type and strides of each operator input."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

# C++ type name -> (name, bytes)
DTYPES = {
    "c10::BFloat16": ("bf16", 2), "c10::Half": ("fp16", 2), "float": ("fp32", 4),
    "double": ("fp64", 8), "c10::Float8_e4m3fn": ("fp8", 1), "c10::Float8_e5m2": ("fp8", 1),
    "c10::Float8_e4m3fnuz": ("fp8", 1), "signed char": ("int8", 1), "unsigned char": ("uint8", 1),
    "short": ("int16", 2), "int": ("int32", 4), "long int": ("int64", 8), "long": ("int64", 8),
    "bool": ("bool", 1), "c10::complex<float>": ("complex64", 8),
}  # fmt: skip
_WIDEST = ("fp64", "complex64", "fp32", "bf16", "fp16", "fp8", "int64", "int32", "int16", "int8",
           "uint8", "bool")  # fmt: skip
_LARGEST = 2**62
_NUMBERS = re.compile(r"-?\d+")


@dataclass(frozen=True)
class Tensor:
    """Shape, type and the elements that are really in memory (broadcast dimensions once)."""

    shape: tuple[int, ...]
    dtype: str
    itemsize: int
    strides: tuple[int, ...] = ()

    @property
    def elements(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> float:
        """Bytes in memory: an expanded dimension (stride 0) is stored once [B]."""
        strides = self.strides if len(self.strides) == len(self.shape) else (1,) * len(self.shape)
        stored = math.prod(n for n, s in zip(self.shape, strides, strict=True) if s != 0)
        return float(stored * self.itemsize)


@dataclass(frozen=True)
class Call:
    """One call of a framework operator that launched a kernel.

    Attributes
    ----------
    name : str
        Innermost operator.
    inputs : tuple
        A `Tensor`, a tuple of them (a list of tensors) or None for everything else.
    values : tuple of str
        Scalars and lists as the profiler prints them, "" where an input is a tensor.
    parents : tuple of Call
        Enclosing operators, outermost first.
    """

    name: str
    inputs: tuple[Tensor | tuple[Tensor, ...] | None, ...]
    values: tuple[str, ...]
    parents: tuple[Call, ...] = ()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Inputs that are tensors, lists flattened."""
        flat: list[Tensor] = []
        for item in self.inputs:
            if isinstance(item, Tensor):
                flat.append(item)
            elif item is not None:
                flat.extend(item)
        return tuple(flat)

    def within(self, *names: str) -> Call | None:
        """Return the innermost call of one of these operators, itself included."""
        return next((c for c in (self, *reversed(self.parents)) if c.name in names), None)

    def numbers(self, position: int) -> list[int]:
        """Return the whole numbers of a scalar or list input; what no tensor can have is absent."""
        text = self.values[position] if position < len(self.values) else ""
        found = [int(n) for n in _NUMBERS.findall(text)] if len(text) < 100 else []
        return found if all(abs(n) < 2**31 for n in found) else []


def read_call(name: str, args: Any, parents: tuple[Call, ...] = ()) -> Call:
    """Build a call from an operator event's arguments; what is malformed counts as absent."""
    if not isinstance(args, dict):
        return Call(name, (), (), parents)
    dims, types = _list(args.get("Input Dims")), _list(args.get("Input type"))
    strides = _list(args.get("Input Strides"))
    inputs = tuple(
        _input(dims[i], types[i], strides[i] if i < len(strides) else None)
        for i in range(min(len(dims), len(types)))
    )
    values = tuple(str(v) for v in _list(args.get("Concrete Inputs")))
    return Call(name, inputs, values, parents)


def widest(tensors: Sequence[Tensor]) -> Tensor | None:
    """Return a tensor whose type the result of a mixed operation has.

    A tensor without dimensions does not widen one with them, as in PyTorch.
    """
    shaped = [t for t in tensors if t.shape] or list(tensors)
    order = {d: i for i, d in enumerate(_WIDEST)}
    return min(shaped, key=lambda t: order.get(t.dtype, len(order)), default=None)


def broadcast(tensors: Sequence[Tensor]) -> tuple[int, ...]:
    """Return the shape that the tensors broadcast to.

    Examples
    --------
    >>> a, b = Tensor((6, 1), "fp32", 4), Tensor((1280,), "fp32", 4)
    >>> broadcast([a, b])
    (6, 1280)
    """
    rank = max((len(t.shape) for t in tensors), default=0)
    padded = [(1,) * (rank - len(t.shape)) + t.shape for t in tensors]
    return tuple(0 if 0 in sizes else max(sizes) for sizes in zip(*padded, strict=True))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _input(dims: Any, kind: Any, strides: Any) -> Tensor | tuple[Tensor, ...] | None:
    if kind == "TensorList" and isinstance(dims, list):
        # The profiler gives no type for lists: two bytes here, and the rule that needs to know
        # reads the size of an element from the kernel's name.
        steps = strides if isinstance(strides, list) else [None] * len(dims)
        made = [_tensor(d, "c10::BFloat16", s) for d, s in zip(dims, steps, strict=False)]
        return tuple(t for t in made if t is not None)
    known = isinstance(kind, str) and kind in DTYPES
    return _tensor(dims, kind, strides) if known else None


def _tensor(dims: Any, kind: str, strides: Any) -> Tensor | None:
    if not isinstance(dims, list) or not all(isinstance(n, int) and n >= 0 for n in dims):
        return None
    if math.prod(dims) > _LARGEST:
        return None
    name, size = DTYPES[kind]
    steps = tuple(s for s in _list(strides) if isinstance(s, int))
    return Tensor(tuple(dims), name, size, steps)
