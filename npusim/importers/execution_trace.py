"""PyTorch execution traces: JSON that `torch.profiler.ExecutionTraceObserver` writes.

The operators of a program with shapes, types and memory, but no device times. Linked with a
profiler trace (``chakra_trace_link``) they also hold kernels, with times and streams. Numbers of
nodes count up as operators begin, in the old layout (``parent``, ``input_shapes``) and the new
(``ctrl_deps``, ``inputs.shapes``). Steps are the annotations ``step#N`` or ``ProfilerStep#N``.

Source: PyTorch, torch/csrc/profiler/standalone/execution_trace_observer.cpp, schemas 1.0.1 to
1.1.1-chakra.0.0.4; MLCommons Chakra, src/trace_link/trace_linker.py.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.graph_idle import is_operator
from npusim.importers.graph_nodes import Arguments, Node
from npusim.importers.graph_work import Operators, Task, kernel_tasks
from npusim.importers.graph_workload import check_work, graph_workload
from npusim.workload import Workload

FORMAT = "PyTorch execution trace JSON"

_NODES = re.compile(rb'"nodes"\s*:\s*\[')
_OURS = re.compile(rb'"schema"\s*:\s*"\d|"op_schema"|"rf_id"')
_STEP = re.compile(r"(?:ProfilerStep|step)#\d+")
_EVENTS = ("kernel", "gpu_memcpy", "gpu_memset")
_LONGEST_US = 1e12
_LATEST_US = 1e20


class _Arguments(msgspec.Struct):
    values: list[Any] = []
    shapes: list[Any] = []
    types: list[Any] = []
    strides: list[Any] = []


class _Attribute(msgspec.Struct):
    name: Any = ""
    value: Any = None


class _Node(msgspec.Struct):
    id: int
    name: str = ""
    parent: int | None = None
    ctrl_deps: int | None = None
    inputs: _Arguments | list[Any] = []
    input_shapes: list[Any] = []
    input_types: list[Any] = []
    outputs: _Arguments | list[Any] = []
    output_shapes: list[Any] = []
    output_types: list[Any] = []
    op_schema: str = ""
    attrs: list[_Attribute] = []
    cat: str | None = None
    ts: float | None = None
    exclusive_dur: float | None = None
    stream: int | None = None


class _Trace(msgspec.Struct):
    nodes: list[_Node]
    schema: str = ""


def sniff(path: Path) -> bool:
    """Return whether the file starts like an execution trace: nodes, and no Chrome events."""
    start = files.head(path)
    if start.lstrip()[:1] != b"{" or b'"traceEvents"' in start:
        return False
    return bool(_NODES.search(start) and _OURS.search(start))


def read(path: Path, name: str) -> Workload:
    """Read an execution trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        Its edges are the dependencies through memory, within each step. Durations are 0 where the
        trace is not linked; ``meta["measured"]`` says so, ``meta["skipped"]`` which nodes did not
        count and why.

    Raises
    ------
    InputError
        Not JSON, cut short, too large, numbers that two nodes share, callers that begin after what
        they call, or no work on a device.
    """
    trace = files.decode_json(path, files.whole(path), _Trace)
    if len(trace.nodes) > files.MOST_OPERATIONS:
        raise files.too_many(path)
    nodes = sorted((_node(path, n) for n in trace.nodes), key=lambda n: n.id)
    by_id = {n.id: n for n in nodes}
    unfinished = _check(path, nodes, by_id)
    if any(n.is_event for n in nodes):
        launchers = {n.id: by_id[n.caller] for n in nodes if n.is_event and n.caller in by_id}
        tasks = kernel_tasks(nodes, launchers)
        skipped = Counter("on the host" if is_operator(n) else "annotations"
                          for n in nodes if not n.is_event)  # fmt: skip
    else:
        operators = Operators(nodes)
        tasks, skipped = list(operators.tasks()), operators.skipped
    check_work(path, tasks, skipped, len(nodes))
    inside, marks = _in_steps(nodes, tasks)
    if not inside:
        raise InputError("no device operation lies inside a step", file=path,
                         value=f"{marks} steps")  # fmt: skip
    return graph_workload(path, name, nodes, inside, skipped, {
        "format": "pytorch execution trace", "schema": trace.schema, "marked_steps": marks,
        "outside_steps": len(tasks) - len(inside),
        "outside_steps_s": sum(t.node.duration_s for t in tasks[: len(tasks) - len(inside)]),
        "unfinished_callers": unfinished,
    })  # fmt: skip


def _node(path: Path, n: _Node) -> Node:
    attributes = {a.name: a.value for a in n.attrs if isinstance(a.name, str)}
    caller = n.ctrl_deps if n.ctrl_deps is not None else n.parent
    return Node(
        n.id, n.name,
        caller=None if caller == n.id else caller,  # the root calls itself
        inputs=_arguments(n.inputs, n.input_shapes, n.input_types),
        outputs=_arguments(n.outputs, n.output_shapes, n.output_types),
        schema=n.op_schema or str(attributes.get("op_schema") or ""),
        is_event=n.cat in _EVENTS,
        is_generated=attributes.get("kernel_backend") == "triton",
        stream=n.stream if n.cat in _EVENTS else None,
        start_us=_time(path, n, "ts", -_LATEST_US, _LATEST_US),
        duration_s=(_time(path, n, "exclusive_dur", 0.0, _LONGEST_US) or 0.0) * 1e-6,
    )  # fmt: skip


def _arguments(given: _Arguments | list[Any], shapes: list[Any], types: list[Any]) -> Arguments:
    if isinstance(given, _Arguments):
        return Arguments(given.values, given.shapes, given.types, given.strides)
    return Arguments(given, shapes, types)


def _time(path: Path, n: _Node, field: str, low: float, high: float) -> float | None:
    """Return a time of a kernel [us]; those of operators on the host are not read."""
    value: float | None = getattr(n, field)
    if n.cat not in _EVENTS or value is None:
        return None
    if not low <= value <= high:
        raise InputError("not a time", file=path, place=f"node {n.id}, {field}", value=value,
                         allowed="microseconds, finite")  # fmt: skip
    return value


def _check(path: Path, nodes: Sequence[Node], by_id: Mapping[int, Node]) -> int:
    """Check numbers and callers; return how many callers had not finished when the trace did.

    The observer writes a node when it ends. One that never does is missing, with its place in the
    nesting; what it called is there.
    """
    if len(by_id) < len(nodes):
        twice = next(b for a, b in pairwise(nodes) if a.id == b.id)
        raise InputError("two nodes have one number", file=path, place=f"node {twice.id}",
                         value=twice.name)  # fmt: skip
    for node in nodes:
        if node.caller is not None and node.caller > node.id:
            raise InputError("a node begins before the one that calls it", file=path,
                             place=f"node {node.id}", value=node.caller,
                             allowed="a caller with a smaller number")  # fmt: skip
    return len({n.caller for n in nodes if n.caller is not None} - by_id.keys())


def _in_steps(nodes: Sequence[Node], tasks: Sequence[Task]) -> tuple[list[Task], int]:
    """Return the tasks inside steps, numbered without empty ones, and how many steps are marked.

    Numbers count up over all threads, so a step reaches from its annotation to the next one.
    """
    marks = [n for n in nodes if _STEP.fullmatch(n.name)]
    own = [n.id for n in marks if not n.name.startswith("Profiler")]
    starts = own or [n.id for n in marks]  # one's own marks come first
    if not starts:
        return list(tasks), 0
    numbers = files.Numbering()
    inside = [t for t in tasks if t.node.id > starts[0]]
    for task in inside:
        task.step = numbers[bisect_right(starts, task.node.id)]
    return inside, len(starts)
