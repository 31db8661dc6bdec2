"""Dependencies between the operations of an execution graph.

An operation waits for what the trace says it waits for, and for whoever last wrote what it reads
or last read what it writes. Nodes that do no work on the device pass on what they wait for. On a
recorded stream each operation waits for the one before.
"""

from __future__ import annotations

import heapq
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from npusim.errors import InputError
from npusim.importers.graph_idle import allocates
from npusim.importers.graph_nodes import Node
from npusim.importers.graph_work import Task

MOST_EDGES = 16_000_000


class Storages:
    """Who last wrote each storage, and who has read it since."""

    def __init__(self) -> None:
        self._writer: dict[int, int] = {}
        self._readers: dict[int, list[int]] = {}

    def waits(
        self, i: int, reads: Collection[int], writes: Collection[int], makes: Collection[int]
    ) -> set[int]:
        """Return what operation i waits for, and note what it reads, changes and makes.

        Examples
        --------
        Operation 0 makes storage 7, 1 reads it, 2 writes to it, 3 reads it:

        >>> s = Storages()
        >>> [sorted(s.waits(*x)) for x in ((0, [], [], [7]), (1, [7], [], [8]),
        ...                                (2, [7], [7], []), (3, [7], [], []))]
        [[], [0], [0, 1], [2]]
        """
        found = {self._writer[s] for s in (*reads, *writes) if s in self._writer}
        for s in writes:
            found.update(self._readers.pop(s, ()))
            self._writer[s] = i
        for s in reads:
            if s not in writes:
                self._readers.setdefault(s, []).append(i)
        for s in makes:
            self.forget(s)
            self._writer[s] = i
        found.discard(i)
        return found

    def forget(self, storage: int) -> None:
        """Start a storage anew: memory that is given out again keeps its address."""
        self._writer.pop(storage, None)
        self._readers.pop(storage, None)


def in_order(path: Path, nodes: Sequence[Node]) -> list[Node]:
    """Return nodes so that each follows those it waits for, else as they started or stand.

    Raises
    ------
    InputError
        A dependency on a node that is not there, or dependencies that form a cycle.
    """
    place = {n.id: i for i, n in enumerate(nodes)}
    followers: list[list[int]] = [[] for _ in nodes]
    open_waits = [0] * len(nodes)
    for i, node in enumerate(nodes):
        for j in node.waits:
            if j not in place:
                raise InputError("depends on a node that is not in the trace", file=path,
                                 place=f"node {node.id}", value=j)  # fmt: skip
            followers[place[j]].append(i)
            open_waits[i] += 1

    def key(i: int) -> tuple[float, int]:
        start = nodes[i].start_us
        return (start if start is not None else 0.0, i)

    ready = [key(i) for i, count in enumerate(open_waits) if count == 0]
    heapq.heapify(ready)
    ordered: list[Node] = []
    while ready:
        _, i = heapq.heappop(ready)
        ordered.append(nodes[i])
        for j in followers[i]:
            open_waits[j] -= 1
            if open_waits[j] == 0:
                heapq.heappush(ready, key(j))
    if len(ordered) < len(nodes):
        stuck = next(n for n, count in zip(nodes, open_waits, strict=True) if count)
        raise InputError("dependencies form a cycle", file=path, place=f"node {stuck.id}",
                         value=stuck.name)  # fmt: skip
    return ordered


def dependencies(
    path: Path, nodes: Iterable[Node], tasks: Mapping[int, Task]
) -> list[Collection[int]]:
    """Return for each task, in the order of the nodes, those before it that it waits for.

    Steps are replayed one after the other: nothing waits for an operation of another step. A
    kernel of which neither memory nor stream is recorded stands behind its operator: what waits
    for that waits for it.

    Parameters
    ----------
    path : Path
    nodes : iterable of Node
        In an order in which each follows those it waits for.
    tasks : mapping of int to Task
        The nodes that do work, by their number, with their steps.

    Raises
    ------
    InputError
        More than `MOST_EDGES` dependencies.
    """
    found: list[Collection[int]] = []
    behind: dict[int, frozenset[int]] = {}  # node -> operations done once it is done
    working: set[int | None] = set()  # nodes that work, launch work, or are inside such
    memory, last, streams = Storages(), dict[int, int](), list[int | None]()
    step, first, total = 0, 0, 0
    for node in nodes:
        before = _together((behind.get(j, frozenset()) for j in node.waits), streams, found)
        task = tasks.get(node.id)
        if task is None:
            behind[node.id] = before
            total += len(before) if len(node.waits) > 1 else 0
            if node.caller in working:
                working.add(node.id)
            elif allocates(node):
                for ref in node.made:
                    memory.forget(ref.storage)
        else:
            i = len(found)
            if task.step != step:
                step, first, memory, last = task.step, i, Storages(), {}
            reaches = (task.reads, task.writes, task.makes)
            waits = memory.waits(i, *reaches)
            waits.update(j for j in before if j >= first)
            if node.stream is not None:
                if node.stream in last:
                    waits.add(last[node.stream])
                last[node.stream] = i
            streams.append(node.stream)
            found.append(waits)
            behind[node.id] = frozenset((i,))
            working.add(node.id)
            if node.is_event and node.caller is not None:
                working.add(node.caller)
                if node.caller in node.waits and node.stream is None and not any(reaches):
                    behind[node.caller] = behind[node.id]
            total += len(waits)
        if total > MOST_EDGES:
            raise InputError("too many dependencies", file=path, place=f"node {node.id}",
                             allowed=f"up to {MOST_EDGES}")  # fmt: skip
    return found


def _together(
    sets: Iterable[frozenset[int]], streams: Sequence[int | None], waits: Sequence[Collection[int]]
) -> frozenset[int]:
    """Return operations of several sets without those that others of them wait for anyway."""
    parts = {s for s in sets if s}
    if len(parts) < 2:
        return next(iter(parts), frozenset())
    latest: dict[object, int] = {}  # of those on one stream the last waits for the others
    for i in frozenset().union(*parts):
        key = ("stream", streams[i]) if streams[i] is not None else i
        latest[key] = max(i, latest.get(key, i))
    found = frozenset(latest.values())
    return found.difference(*(waits[i] for i in found))
