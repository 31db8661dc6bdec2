"""Nodes of an execution graph: operators, what they were called with, and by which operator.

Execution traces record every tensor as ``[tensor, storage, offset, elements, element bytes,
device]`` beside its shape and a type such as ``Tensor(c10::BFloat16)``; lists of tensors as
``GenericList[Tensor(float),Tensor(float)]``. Two tensors of one storage share memory.

Source: PyTorch, torch/csrc/profiler/standalone/execution_trace_observer.cpp, schemas 1.0.1 to
1.1.1-chakra.0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from npusim.importers.tensors import Call, Tensor, read_call
from npusim.importers.work import Work

_HOSTS = ("", "cpu", "meta")
_NONE = "<None>"
_LARGEST = 2**62
# Callers that a call remembers: rules look for the layer around it, not for the whole program.
CALLERS = 16


@dataclass(frozen=True, slots=True)
class TensorRef:
    """A tensor among the arguments of a node: where it lives, and its shape and type as recorded.

    Attributes
    ----------
    position : int
        Of the argument; the tensors of a list share one.
    tensor, storage : int
        Their numbers in the trace, 0 for none.
    nbytes : float
        Size [B].
    device : str
        ``cuda:0``, ``cpu`` and the like.
    """

    position: int
    tensor: int
    storage: int
    nbytes: float
    device: str
    dims: Any
    dtype: str
    strides: Any

    @property
    def on_device(self) -> bool:
        """Whether it lives on an accelerator."""
        return self.device not in _HOSTS


@dataclass(frozen=True, slots=True)
class Arguments:
    """Inputs or outputs of a node, one entry an argument in each list."""

    values: Sequence[Any] = ()
    shapes: Sequence[Any] = ()
    types: Sequence[Any] = ()
    strides: Sequence[Any] = ()

    def tensors(self) -> Iterator[TensorRef]:
        """Yield the tensors, those of lists one by one; what is malformed counts as absent.

        Examples
        --------
        >>> x = Arguments([[3, 4, 0, 8, 4, "cuda:0"], 1], [[2, 4], []], ["Tensor(float)", "Int"])
        >>> [(t.position, t.storage, t.nbytes, t.dtype) for t in x.tensors()]
        [(0, 4, 32.0, 'float')]
        """
        for i, (kind, value) in enumerate(zip(self.types, self.values, strict=False)):
            if not isinstance(kind, str) or "Tensor(" not in kind:
                continue
            shape, strides = _at(self.shapes, i), _at(self.strides, i)
            if kind.startswith("Tensor("):
                yield _ref(i, kind, value, shape, strides)
                continue
            kinds = kind[kind.find("[") + 1 : -1].split(",")
            if isinstance(value, list) and len(kinds) == len(value):
                for j, inner in enumerate(kinds):
                    if inner.startswith("Tensor("):
                        yield _ref(i, inner, value[j], _at(shape, j), _at(strides, j))


@dataclass(slots=True, eq=False)
class Node:
    """One node of an execution graph.

    Attributes
    ----------
    caller : int, optional
        The node that called it.
    schema : str
        Signature of an operator, which says what it writes; empty for everything else.
    is_event : bool
        Whether it ran on the device (a kernel), rather than being an operator on the host.
    is_generated : bool
        Whether a compiler made its kernel.
    waits : tuple of int
        Nodes that it is recorded to wait for.
    start_us : float, optional
        When it started, on the clock of the trace [us]: seconds would round it.
    work : Work, optional
        What it does, where the trace says it outright.
    """

    id: int
    name: str
    caller: int | None = None
    inputs: Arguments = field(default_factory=Arguments)
    outputs: Arguments = field(default_factory=Arguments)
    schema: str = ""
    is_event: bool = False
    is_generated: bool = False
    waits: tuple[int, ...] = ()
    stream: int | None = None
    start_us: float | None = None
    duration_s: float = 0.0
    work: Work | None = None
    _given: tuple[TensorRef, ...] | None = None
    _made: tuple[TensorRef, ...] | None = None

    @property
    def given(self) -> tuple[TensorRef, ...]:
        """The tensors among its inputs."""
        if self._given is None:
            self._given = tuple(self.inputs.tensors())
        return self._given

    @property
    def made(self) -> tuple[TensorRef, ...]:
        """The tensors among its outputs."""
        if self._made is None:
            self._made = tuple(self.outputs.tensors())
        return self._made


def shaped(refs: Sequence[TensorRef]) -> list[Tensor | None]:
    """Return recorded tensors as importers know them; None where the type is none of theirs."""
    args = {
        "Input Dims": [r.dims for r in refs],
        "Input type": [r.dtype for r in refs],
        "Input Strides": [r.strides for r in refs],
    }
    return [t if isinstance(t, Tensor) else None for t in read_call("", args).inputs]


def call_of(node: Node, parents: tuple[Call, ...] = ()) -> Call:
    """Return a node as the call of an operator, which is what the rules of all importers read.

    Examples
    --------
    >>> tensor = lambda n: [n, n, 0, 8, 2, "cuda:0"]
    >>> call = call_of(Node(1, "aten::cat", inputs=Arguments(
    ...     [[tensor(1), tensor(2)], 0], [[[2, 4], [2, 4]], []],
    ...     ["GenericList[Tensor(c10::Half),Tensor(c10::Half)]", "Int"])))
    >>> [t.shape for t in call.tensors], call.values
    ([(2, 4), (2, 4)], ('', '0'))
    """
    refs, arguments = node.given, node.inputs
    found: list[Tensor | tuple[Tensor, ...] | None] = [None] * len(arguments.types)
    for ref, tensor in zip(refs, shaped(refs), strict=True):
        if str(arguments.types[ref.position]).startswith("Tensor("):
            found[ref.position] = tensor
        elif tensor is not None:
            earlier = found[ref.position]
            found[ref.position] = (*(earlier if isinstance(earlier, tuple) else ()), tensor)
    taken = {r.position for r in refs}
    values = tuple(
        "" if i in taken or v == _NONE else str(v) for i, v in enumerate(arguments.values)
    )
    return Call(node.name, tuple(found), values, parents)


def _ref(position: int, kind: str, value: Any, dims: Any, strides: Any) -> TensorRef:
    tensor = storage = elements = size = 0
    device = ""
    if isinstance(value, list) and len(value) >= 6:
        numbers = [v if isinstance(v, int) and 0 <= v < _LARGEST else 0 for v in value[:5]]
        tensor, storage, _, elements, size = numbers
        device = value[5] if isinstance(value[5], str) else ""
    return TensorRef(position, tensor, storage, float(elements * size), device, dims,
                     kind[len("Tensor(") : -1], strides)  # fmt: skip


def _at(values: Any, i: int) -> Any:
    return values[i] if isinstance(values, (list, tuple)) and i < len(values) else None
