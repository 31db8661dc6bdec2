"""Which nodes of an execution graph do work on the device, and what work.

An operator counts where it touches a tensor on a device, does more than look at it in another way,
and calls no other operator that counts: of ``aten::linear`` and the ``aten::addmm`` inside it, the
latter. Where the trace also holds the kernels, they count and operators say what they do.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from npusim.importers import kernel_names
from npusim.importers.describe import HELPERS, RULES, describe
from npusim.importers.graph_idle import communicates, idle_reason, is_operator
from npusim.importers.graph_nodes import CALLERS, Node, TensorRef, call_of, shaped
from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Launch, Work

COMPUTING, COMMUNICATING = 0, 1  # streams where a trace records none

_SCALAR_TO_HOST = "aten::_local_scalar_dense"

# What moves as much as its result holds; the profiler records no results, execution traces do.
_FROM_RESULT = {"aten::arange": "fill", "aten::cat": "cat", "aten::_cat": "cat",
                "aten::stack": "cat", "aten::index": "gather"}  # fmt: skip


@dataclass(slots=True, eq=False)
class Task:
    """A node that does work on the device.

    Attributes
    ----------
    call : Call, optional
        The operator behind it.
    reads, writes, makes : frozenset of int
        Storages that it reads, changes, and brings into being.
    """

    node: Node
    call: Call | None
    launch: Launch
    work: Work
    reads: frozenset[int]
    writes: frozenset[int]
    makes: frozenset[int]
    stream: int
    sync: bool = False
    step: int = 0


class Operators:
    """The operators of a trace without kernels that do the work.

    Parameters
    ----------
    nodes : sequence of Node
        Every caller before what it calls.

    Attributes
    ----------
    chosen : set of int
        Those that count.
    skipped : Counter of str
        How many nodes do not count, by reason.
    """

    def __init__(self, nodes: Sequence[Node]) -> None:
        self._by_id = {n.id: n for n in nodes}
        self.skipped: Counter[str] = Counter()
        working: list[Node] = []
        for node in nodes:
            reason = idle_reason(node)
            if reason is None:
                working.append(node)
            else:
                self.skipped[reason] += 1
        above: set[int] = set()
        for node in working:
            caller = self._caller(node)
            while caller is not None and caller.id not in above:
                above.add(caller.id)
                caller = self._caller(caller)
        self.chosen = {n.id for n in working} - above
        self.skipped["callers of those that count"] = len(working) - len(self.chosen)
        self._within: Counter[int] = Counter()
        for i in self.chosen:
            self._within.update(n.id for n in self._callers(self._by_id[i]))
        self._calls = _calls(nodes, self.chosen | above)

    def tasks(self) -> Iterator[Task]:
        """Yield what counts, in the order of the nodes."""
        for node in self._by_id.values():
            if node.id in self.chosen:
                yield self._communication(node) if communicates(node.name) else self._task(node)

    def _task(self, node: Node) -> Task:
        call = self._calls[node.id][-1]
        work = _between_host_and_device(node) or _described(
            self._with_rule(node, call), Launch(node.name.rpartition("::")[2]), node.made
        )
        to_host = node.name == "aten::copy_" and node.given[:1] and not node.given[0].on_device
        waits = call.name == _SCALAR_TO_HOST or (to_host and "True" not in call.values[2:3])
        return Task(node, call, Launch(node.name), work, *storages(node),
                    COMPUTING, bool(waits))  # fmt: skip

    def _with_rule(self, node: Node, call: Call) -> Call:
        """Return the operator whose rule describes a node.

        One without a rule does the work of its caller, if that has one and calls nothing else
        that counts: ``aten::clamp_min_`` inside ``aten::relu_``.
        """
        if _has_rule(call.name):
            return call
        for caller in self._callers(node):
            if self._within[caller.id] > 1:
                break
            if _has_rule(caller.name):
                return self._calls[caller.id][-1]
        return call

    def _communication(self, node: Node) -> Task:
        """Return a collective, send or receive; what comes back stands with the call around it."""
        around = [node, *(n for n in self._callers(node) if communicates(n.name))]
        sent = next((n.given for n in around if n.given), ())
        logged = [n for n in around if n.name == "record_param_comms"]
        got = next((n.made for n in logged if n.made), sent)
        reads, writes = _stored(sent), _stored(got)
        return Task(node, self._calls[node.id][-1], Launch(node.name),
                    collective(node.name, sent, got), reads, writes, frozenset(),
                    COMMUNICATING)  # fmt: skip

    def _callers(self, node: Node) -> Iterator[Node]:
        caller = self._caller(node)
        for _ in range(CALLERS):
            if caller is None:
                return
            yield caller
            caller = self._caller(caller)

    def _caller(self, node: Node) -> Node | None:
        return self._by_id.get(node.caller) if node.caller is not None else None


def _has_rule(name: str) -> bool:
    return name in RULES or name.removesuffix("_") in RULES or name in _FROM_RESULT


def _calls(nodes: Iterable[Node], wanted: set[int]) -> Mapping[int, tuple[Call, ...]]:
    """Return the operators around each wanted node, outermost first, itself last."""
    chains: dict[int, tuple[Call, ...]] = {}
    for node in nodes:
        if node.id in wanted:
            chain = chains.get(node.caller, ()) if node.caller is not None else ()
            if is_operator(node):
                chain = (*chain, call_of(node, chain))[-CALLERS:]
            chains[node.id] = chain
    return chains


def kernel_tasks(nodes: Sequence[Node], launchers: Mapping[int, Node]) -> list[Task]:
    """Return what ran on the device, in the order of the nodes.

    Parameters
    ----------
    nodes : sequence of Node
        Those on the device carry the arguments of the operator that launched them.
    launchers : mapping of int to Node
        That operator, by the number of the node on the device, where it is known.
    """
    by_id = {n.id: n for n in nodes}
    around: set[int] = set()
    for launcher in launchers.values():
        caller = launcher.caller
        while caller in by_id and caller not in around:
            around.add(caller)
            caller = by_id[caller].caller
    chains = _calls(nodes, around)
    calls: dict[int, Call] = {}  # one object a launcher, so that its kernels share its work
    tasks: list[Task] = []
    for node in nodes:
        if not node.is_event:
            continue
        by = launchers.get(node.id)
        first = by is None or id(by) not in calls
        if by is not None and first:
            chain = chains.get(by.caller, ()) if by.caller is not None else ()
            calls[id(by)] = call_of(by, chain)
        tasks.append(_kernel_task(node, calls[id(by)] if by is not None else None, first))
    return tasks


def _kernel_task(node: Node, call: Call | None, first: bool) -> Task:
    """Return a node that ran on the device; kernels but the first go on with their call's results.

    A graph of a simulator says outright what its nodes do.
    """
    named, launch = kernel_names.kind(node.name), Launch(node.name)
    reads, writes, makes = storages(node)
    stream = COMPUTING
    if named == "collective" or (node.work is not None and node.work.kind == "collective"):
        stream = COMMUNICATING
        work = node.work or collective(node.name, node.given, node.made or node.given)
    elif node.work is not None:
        work = node.work
    elif named in ("memcpy", "memset"):
        moved = next((t.nbytes for t in (*node.made, *node.given)), 0.0)
        work = describe(call, Launch(node.name, nbytes=moved))
    elif named in HELPERS or call is None:
        work = describe(call, launch)
    else:
        work = _described(call, launch, node.made)
    if not first:
        writes, makes = writes | makes, frozenset()
    chosen = node.stream if node.stream is not None else stream
    return Task(node, call, launch, work, reads, writes, makes, chosen)


def storages(node: Node) -> tuple[frozenset[int], frozenset[int], frozenset[int]]:
    """Return the storages that a node reads, changes, and brings into being.

    What it changes is what its schema marks; of a node without one, what it also returns; of one
    that returns nothing, everything it is given. Storages count whole, whatever part is used.
    """
    reads, results = _stored(node.given), _stored(node.made)
    if node.schema:
        marked = _changed(node.schema)
        return reads, _stored(t for t in node.given if t.position in marked), results - reads
    return reads, results & reads if results else reads, results - reads


def _stored(refs: Iterable[TensorRef]) -> frozenset[int]:
    """Return the storages of tensors that hold something: all empty ones share an address."""
    return frozenset(t.storage for t in refs if t.storage and t.nbytes)


@lru_cache(maxsize=10_000)
def _changed(schema: str) -> frozenset[int]:
    """Return the positions of the arguments that an operator writes to.

    Examples
    --------
    >>> sorted(_changed("aten::add.out(Tensor self, int[2] x=[0, 0], *, Tensor(a!) out) -> ()"))
    [2]
    """
    arguments, depth = [""], 0
    for c in schema.partition("(")[2].rpartition("->")[0].rstrip(") "):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            arguments.append("")
        else:
            arguments[-1] += c
    given = [a for a in arguments if a.strip() != "*"]  # what follows it is named, no argument
    return frozenset(i for i, a in enumerate(given) if "!" in a)


def collective(name: str, sent: Sequence[TensorRef], got: Sequence[TensorRef]) -> Work:
    """Return a communication: the bytes it reads and writes on this device.

    Examples
    --------
    >>> bucket = [TensorRef(0, 3, 4, 1024.0, "cuda:0", [256], "float", None)]
    >>> w = collective("nccl:all_reduce", bucket, bucket)
    >>> w.kind, w.dtype, w.n, w.read_activation, w.write_activation
    ('collective', 'fp32', 256, 1024.0, 1024.0)
    """
    tensors = [t for t in shaped(sent or got) if t is not None]
    return Work(
        "collective", tensors[0].dtype if tensors else "unknown",
        basis="shape" if sent or got else "name", batch=1, m=1, n=sum(t.elements for t in tensors),
        read_activation=0.0 if "recv" in name else sum(t.nbytes for t in sent),
        write_activation=0.0 if "send" in name else sum(t.nbytes for t in got),
    )  # fmt: skip


def _described(call: Call, launch: Launch, outputs: Sequence[TensorRef]) -> Work:
    kind = _FROM_RESULT.get(call.name)
    result = next((t for t in shaped(outputs) if t is not None), None)
    if kind is not None and result is not None:
        return _moved(kind, call, result)
    if call.name not in RULES and call.name.removesuffix("_") in RULES:  # in place: the same work
        call = replace(call, name=call.name.removesuffix("_"))
    work = describe(call, launch)
    if work.basis == "launch" and not launch.blocks:  # a grid that no execution trace records
        return Work(work.kind, basis="name")
    return work


def _moved(kind: str, call: Call, result: Tensor) -> Work:
    """Return what only moves data: it writes its result and reads as much."""
    read = 0.0
    if kind == "cat":
        read = sum(t.nbytes for t in call.tensors)
    elif kind == "gather":
        read = result.nbytes + sum(t.nbytes for t in call.tensors[1:])
    return Work(kind, result.dtype, batch=1, m=math.prod(result.shape[:-1]),
                n=result.shape[-1] if result.shape else 1, read_activation=read,
                write_activation=float(result.elements * result.itemsize))  # fmt: skip


def _between_host_and_device(node: Node) -> Work | None:
    """Return a copy from or to the host, None for everything else."""
    if node.name == _SCALAR_TO_HOST:
        moved = sum(t.nbytes for t in node.given[:1])
    elif node.name == "aten::copy_" and len({t.on_device for t in node.given[:2]}) == 2:
        moved = node.given[0].nbytes
    else:
        return None
    return Work("memcpy", batch=1, m=1, n=int(moved), read_activation=moved,
                write_activation=moved)  # fmt: skip
