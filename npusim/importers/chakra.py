"""MLCommons Chakra execution traces: protobuf (``.et``), and the two forms of them in JSON.

A trace that was converted from PyTorch holds operators of the host and the kernels they launched,
with whole microseconds; one made for a simulator holds computation (FLOP and bytes), memory
accesses and communication that wait for each other.

The forms in JSON are one object with a ``workload_graph``, which the feeder reads, and what
``chakra_jsonizer`` prints: one object a message, the metadata first.

Source: MLCommons Chakra, schema/protobuf/et_def.proto, src/feeder/json_node.cpp,
src/jsonizer/jsonizer.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from npusim.errors import InputError
from npusim.importers import chakra_protobuf, files
from npusim.importers.chakra_nodes import Record, Trace
from npusim.importers.graph_edges import MOST_EDGES, in_order
from npusim.importers.graph_work import Operators, kernel_tasks
from npusim.importers.graph_workload import check_work, graph_workload
from npusim.workload import Workload

FORMAT = "MLCommons Chakra trace, .et or JSON"
ENDINGS = (".et",)

_MOST_DIGITS = 30  # of a number printed as text; what is longer stays text, and is refused later
_TYPES = ("INVALID", "METADATA", "MEM_LOAD", "MEM_STORE", "COMP", "COMM_SEND", "COMM_RECV",
          "COMM_COLL")  # fmt: skip
_FEEDER = re.compile(rb'"workload_graph"\s*:\s*\[')
_PRINTED = re.compile(rb'"type"\s*:\s*"[A-Z_]+_NODE"')
_SPACE = re.compile(r"\s*")
_ATTRIBUTES = ("tensor_size", "num_ops", "comm_size", "comm_type", "is_cpu_op")


class _FeederNode(msgspec.Struct, rename={"id": "Id", "name": "Name", "type": "NodeType"}):
    id: int
    name: str = ""
    type: int = 0
    ctrlDeps: list[int] = []  # noqa: N815  (as in the file)
    ctrl_deps: list[int] = []
    data_deps: list[int] = []
    runtime: int = 0
    tensor_size: int = 0
    num_ops: int = 0
    comm_size: int = 0
    comm_type: int | None = None
    is_cpu_op: bool | None = None


class _Graph(msgspec.Struct):
    workload_graph: list[_FeederNode]


class _Info(msgspec.Struct):
    values: str = ""
    shapes: str = ""
    types: str = ""


class _Node(msgspec.Struct, rename="camel"):
    id: int = 0
    name: str = ""
    type: str | int = 0
    ctrl_deps: list[int] = []
    data_deps: list[int] = []
    start_time_micros: int = 0
    duration_micros: int = 0
    inputs: _Info = msgspec.field(default_factory=_Info)
    outputs: _Info = msgspec.field(default_factory=_Info)
    attr: list[dict[str, Any]] = []


def sniff(path: Path) -> bool:
    """Return whether the file starts like one of the forms of a Chakra trace."""
    start = files.head(path)
    if start.lstrip()[:1] == b"{":
        return bool(_FEEDER.search(start) or _PRINTED.search(start))
    return ".et" in path.suffixes[-2:] or chakra_protobuf.starts_like(start)


def read(path: Path, name: str) -> Workload:
    """Read a trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        Its edges are the dependencies of the trace, those of nodes on the host passed on, and
        those through memory and streams where it records them. Where operations have a duration
        but no start, they begin as soon as what they wait for has ended.

    Raises
    ------
    InputError
        Damaged, cut short, too large, numbers that two nodes share, dependencies that are missing
        or form a cycle, or no computation on a device.
    """
    form, records = _records(path)
    trace = Trace(path, records)
    nodes = in_order(path, trace.nodes)
    skipped = Counter(r.reason for r in records if not r.on_device)
    if trace.has_events:
        tasks = kernel_tasks(nodes, trace.launchers)
    else:
        operators = Operators(sorted(nodes, key=lambda n: n.id))
        chosen = {t.node.id: t for t in operators.tasks()}
        tasks = [chosen[n.id] for n in nodes if n.id in chosen]
        skipped = operators.skipped if tasks else skipped
    check_work(path, tasks, skipped, len(nodes))
    return graph_workload(path, name, nodes, tasks, skipped, {
        "format": form, "unreadable_arguments": trace.unreadable,
    })  # fmt: skip


def _records(path: Path) -> tuple[str, list[Record]]:
    start = files.head(path)
    if start.lstrip()[:1] != b"{":
        return "chakra protobuf", _limited(path, chakra_protobuf.records(path))
    if _FEEDER.search(start):
        graph = files.decode_json(path, files.whole(path), _Graph)
        return "chakra json", _limited(path, map(_from_feeder, graph.workload_graph))
    return "chakra json", _limited(path, _printed(path))


def _limited(path: Path, records: Iterator[Record]) -> list[Record]:
    found: list[Record] = []
    total = 0
    for record in records:
        total += len(record.waits) + len(record.callers)
        if len(found) == files.MOST_OPERATIONS or total > MOST_EDGES:
            raise files.too_many(path)
        found.append(record)
    return found


def _from_feeder(n: _FeederNode) -> Record:
    given = {key: getattr(n, key) for key in _ATTRIBUTES}
    return Record(n.id, n.name, n.type, n.ctrlDeps or n.ctrl_deps, n.data_deps, 0, n.runtime,
                  attributes={k: v for k, v in given.items() if v is not None})  # fmt: skip


def _printed(path: Path) -> Iterator[Record]:
    """Yield the nodes that `chakra_jsonizer` prints: objects one after the other."""
    try:
        text = files.whole(path).decode()
    except UnicodeDecodeError:
        raise InputError("not UTF-8", file=path) from None
    decoder, at, number = json.JSONDecoder(), _after_space(text, 0), 0
    while at < len(text):
        try:
            value, at = decoder.raw_decode(text, at)
            node = msgspec.convert(value, _Node, strict=False)
        except json.JSONDecodeError as error:
            cut = error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated")
            raise InputError("JSON is cut short" if cut else "not JSON", file=path,
                             place=f"line {error.lineno}") from None  # fmt: skip
        except (msgspec.ValidationError, RecursionError) as error:
            raise InputError("not a node of a Chakra trace", file=path,
                             place=f"object {number + 1}",
                             value=str(error).partition(" - at ")[0]) from None  # fmt: skip
        at, number = _after_space(text, at), number + 1
        if number > 1:
            yield _from_print(path, node)


def _after_space(text: str, at: int) -> int:
    found = _SPACE.match(text, at)
    return found.end() if found is not None else at


def _from_print(path: Path, n: _Node) -> Record:
    names = {f"{kind}_NODE": i for i, kind in enumerate(_TYPES)}
    kind = n.type if isinstance(n.type, int) else names.get(n.type, -1)
    attributes = {str(a.get("name")): _value(a) for a in n.attr}
    inputs, outputs = ((x.values, x.shapes, x.types) for x in (n.inputs, n.outputs))
    return Record(n.id, n.name, kind, n.ctrl_deps, n.data_deps, n.start_time_micros,
                  n.duration_micros, inputs, outputs, attributes)  # fmt: skip


def _value(attribute: dict[str, Any]) -> Any:
    """Return the value of an attribute; large whole numbers are printed as text."""
    key = next((k for k in attribute if k.endswith("Val")), "")
    value = attribute.get(key)
    whole = "int" in key.lower() or "fixed" in key
    if whole and isinstance(value, str) and value.isdecimal() and len(value) < _MOST_DIGITS:
        return int(value)
    return value
