"""What a node of a Chakra trace is: kernel, communication, memory access or operator on the host.

Arguments are text there, lists as Python prints them. A kernel carries those of the operator that
launched it, which is the node on the host with the same text among those it depends on. Chakra's
``data_deps`` say what a node waits for; ``ctrl_deps`` say who called it, and are what it waits for
only where a trace has no ``data_deps`` at all.

Source: MLCommons Chakra, schema/protobuf/et_def.proto, src/converter/pytorch_converter.py,
src/feeder/et_feeder_node.cpp.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.importers.graph_nodes import Arguments, Node
from npusim.importers.graph_work import collective
from npusim.importers.work import Work

METADATA, LOAD, STORE, COMPUTE, SEND, RECEIVE, COLLECTIVE = range(1, 8)

_COMMUNICATION = (SEND, RECEIVE, COLLECTIVE)
_COLLECTIVES = ("ALL_REDUCE", "REDUCE", "ALL_GATHER", "GATHER", "SCATTER", "BROADCAST",
                "ALL_TO_ALL", "REDUCE_SCATTER", "REDUCE_SCATTER_BLOCK", "BARRIER")  # fmt: skip
_PART = re.compile(r"\(\d+\)$")  # older converters split operators: aten::mm(0), aten::mm(1)
_LONGEST_TEXT = 1 << 20
_LONGEST_US = 10**12
_LARGEST = 2**62
# Older converters keep the name of an operator and the arguments of the one inside it that does
# the work; the first letters of their types tell which one that is.
_INNER = {
    ("aten::conv2d", "TTGGGIBBB"): "aten::cudnn_convolution",
    ("aten::linear", "TTTII"): "aten::addmm",
    ("aten::relu_", "TI"): "aten::relu_",
}


@dataclass(slots=True)
class Record:
    """A node as a file gives it; times in microseconds, arguments as (values, shapes, types)."""

    id: int
    name: str = ""
    type: int = 0
    callers: Sequence[int] = ()
    waits: Sequence[int] = ()
    start: int = 0
    duration: int = 0
    inputs: tuple[str, str, str] = ("", "", "")
    outputs: tuple[str, str, str] = ("", "", "")
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def on_host(self) -> bool:
        """Whether it is the host's; one that does not say is, if it is a framework's operator."""
        by_name = self.name.startswith("aten::") or "op_schema" in self.attributes
        return bool(self.attributes.get("is_cpu_op", by_name))

    @property
    def on_device(self) -> bool:
        """Whether it is work of the device."""
        return self.type in (LOAD, STORE, COMPUTE, *_COMMUNICATION) and not self.on_host

    @property
    def reason(self) -> str:
        """Why a node that is not on the device does not count."""
        if self.type == METADATA:
            return "metadata"
        return "on the host" if self.on_host else "of another type"


class Trace:
    """The nodes of a trace.

    Parameters
    ----------
    path : Path
    records : sequence of Record

    Attributes
    ----------
    nodes : list of Node
        In the order of the file.
    launchers : dict of int to Node
        The operator behind each node on the device, where it is known.
    unreadable : int
        Arguments that are no lists.

    Raises
    ------
    InputError
        Numbers that two nodes share, or amounts and times that are none.
    """

    def __init__(self, path: Path, records: Sequence[Record]) -> None:
        self._path = path
        self._records = {r.id: r for r in records}
        if len(self._records) < len(records):
            twice = next(i for i, n in Counter(r.id for r in records).items() if n > 1)
            raise InputError("two nodes have one number", file=path, place=f"node {twice}",
                             value=self._records[twice].name)  # fmt: skip
        self.unreadable = 0
        self.has_events = any(r.on_device for r in records)
        self._has_starts = any(r.start for r in records)
        self._by_control = not any(r.waits for r in records)
        self._calls: dict[object, Node] = {}
        self.nodes = [self._node(r) for r in records]
        self.launchers = {
            n.id: by for n in self.nodes if n.is_event and (by := self._launcher(n)) is not None
        }

    def _node(self, r: Record) -> Node:
        node = Node(
            r.id, r.name,
            caller=self._caller(r),
            schema=str(r.attributes.get("op_schema") or ""),
            waits=tuple(dict.fromkeys(r.callers if self._by_control else r.waits)),
        )  # fmt: skip
        if r.on_device or not self.has_events:
            node.inputs, node.outputs = self._arguments(r.inputs), self._arguments(r.outputs)
        if not r.on_device:
            node.name = _PART.sub("", r.name)
            return node
        if r.duration > _LONGEST_US:
            raise InputError("not a duration", file=self._path, place=f"node {r.id}",
                             value=r.duration, allowed=f"up to {_LONGEST_US} us")  # fmt: skip
        node.is_event = True
        node.stream = _stream(r)
        node.start_us = float(r.start) if self._has_starts else None
        node.duration_s = r.duration * 1e-6
        node.work = self._work(r, node)
        return node

    def _caller(self, r: Record) -> int | None:
        """Return the operator that called a node, unless its number is stale or its own."""
        found = self._records.get(r.callers[0]) if len(r.callers) == 1 else None
        return found.id if found is not None and found.on_host and found.id < r.id else None

    def _arguments(self, texts: tuple[str, str, str]) -> Arguments:
        return Arguments(*(self._list(text) for text in texts))

    def _list(self, text: str) -> list[Any]:
        """Return a list that Python printed; nothing where it is none."""
        if not text:
            return []
        try:
            with warnings.catch_warnings(action="ignore"):  # Python's on odd text
                found = ast.literal_eval(text) if len(text) < _LONGEST_TEXT else None
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            found = None
        if not isinstance(found, list):
            self.unreadable += 1
            return []
        return found

    def _work(self, r: Record, node: Node) -> Work | None:
        """Return what a node says it does; None leaves it to its operator.

        Computation of a simulator's graph has FLOP and bytes and a name of its own; where that
        tells nothing it counts as fused: it stands for several operators.
        """
        size = self._amount(r, "comm_size" if r.type in _COMMUNICATION else "tensor_size")
        if r.type in _COMMUNICATION and not size:
            return collective(r.name, node.given, node.made or node.given)
        if r.type in _COMMUNICATION:
            return Work("collective", batch=1, m=1, n=int(size),
                        read_activation=0.0 if r.type == RECEIVE else size,
                        write_activation=0.0 if r.type == SEND else size)  # fmt: skip
        if r.type != COMPUTE:
            return Work("memcpy", basis="shape" if size else "name", batch=1, m=1, n=int(size),
                        read_activation=size, write_activation=size)  # fmt: skip
        flop = self._amount(r, "num_ops")
        if not flop and not size:
            return None
        kind = kernel_names.kind(r.name)
        return Work(kind if kind != "unknown" else "fused", batch=1, m=1, n=1, flop=flop,
                    read_activation=size)  # fmt: skip

    def _amount(self, r: Record, key: str) -> float:
        value = r.attributes.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _LARGEST:
            raise InputError("not an amount", file=self._path, place=f"node {r.id}, {key}",
                             value=value, allowed="a whole number from 0")  # fmt: skip
        return float(value)

    def _launcher(self, node: Node) -> Node | None:
        """Return the operator behind a node, one object a call."""
        r = self._records[node.id]
        if r.type == COLLECTIVE:
            return Node(r.id, _collective(r))
        before = (self._records.get(i) for i in (*r.waits, *r.callers))
        hosts = [h for h in before if h is not None and h.on_host and "::" in h.name]
        if not hosts or r.type != COMPUTE:
            return None
        same = next((h for h in hosts if h.inputs == r.inputs), None)
        by = same or hosts[0]
        node.caller = by.id
        if same is not None:
            node.schema = str(by.attributes.get("op_schema") or "")
        key = (by.attributes.get("rf_id", by.id), r.inputs)
        if key not in self._calls:
            name = _PART.sub("", by.name)
            inner = None if same else _inner(name, node)
            known = same is not None or inner is not None
            self._calls[key] = Node(by.id, inner or name, caller=self._caller(by),
                                    inputs=node.inputs if known else Arguments())  # fmt: skip
        return self._calls[key]


def _stream(r: Record) -> int | None:
    """Return the stream of a kernel; older converters call it its thread."""
    value = r.attributes.get("stream", r.attributes.get("tid"))
    return value if isinstance(value, int) and 0 <= value < 2**53 else None


def _collective(r: Record) -> str:
    value = r.attributes.get("comm_type")
    known = isinstance(value, int) and 0 <= value < len(_COLLECTIVES)
    return _COLLECTIVES[value] if isinstance(value, int) and known else "unknown"


def _inner(name: str, node: Node) -> str | None:
    """Return the operator inside another one that a kernel's arguments belong to, if known."""
    return _INNER.get((name, "".join(str(kind)[:1] for kind in node.inputs.types)))
