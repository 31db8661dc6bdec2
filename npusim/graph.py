"""A workload as a networkx graph and back.

Chain matching, critical paths and fusion work on the graph, once a workload, never once a design.
"""

from __future__ import annotations

from typing import Any

import networkx as nx
import numpy as np

from npusim.errors import InputError
from npusim.workload import COLUMNS, LABELS, Steps, Workload


def to_networkx(workload: Workload) -> nx.DiGraph[int]:
    """Return the workload as a directed graph: one node an operation, one edge a dependency.

    Parameters
    ----------
    workload : Workload

    Returns
    -------
    networkx.DiGraph
        Nodes 0..K-1 carry every column, labels as text; edges point from an operation to those
        that wait for it. Steps and provenance are attributes of the graph.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> graph = to_networkx(w)
    >>> graph.number_of_nodes() == len(w)
    True
    >>> from_networkx(graph).id == w.id
    True
    """
    graph: nx.DiGraph[int] = nx.DiGraph(
        name=workload.name,
        wall_s=workload.steps.wall_s.tolist(),
        tail_s=workload.steps.tail_s.tolist(),
        meta=dict(workload.meta),
        labels={key: list(values) for key, values in workload.labels.items()},
    )
    columns = {c: (workload.text(c) if c in LABELS else workload[c]).tolist() for c in COLUMNS}
    for i in range(len(workload)):
        graph.add_node(i, **{c: values[i] for c, values in columns.items()})
    indptr, indices = workload.edges
    after = np.repeat(np.arange(len(workload)), np.diff(indptr))
    graph.add_edges_from(zip(indices.tolist(), after.tolist(), strict=True))
    return graph


def from_networkx(graph: nx.DiGraph[int]) -> Workload:
    """Return the workload of a graph in the form that `to_networkx` makes.

    Nodes are put in an order in which every operation follows what it waits for, keeping the
    order of their numbers where that allows it.

    Raises
    ------
    InputError
        A cycle, a node without a column, or a graph without its steps.
    """
    name = str(graph.graph.get("name", "graph"))
    try:
        order = list(nx.lexicographical_topological_sort(graph, key=lambda n: (
            graph.nodes[n].get("step", 0), n)))  # fmt: skip
    except nx.NetworkXUnfeasible:
        raise InputError("dependencies form a cycle", file=name) from None
    columns: dict[str, Any] = {}
    labels: dict[str, list[str]] = {}
    known = graph.graph.get("labels", {})
    for c in COLUMNS:
        missing = next((n for n in order if c not in graph.nodes[n]), None)
        if missing is not None:
            raise InputError("node lacks an attribute", file=name, place=f"node {missing}", value=c)
        values = [graph.nodes[n][c] for n in order]
        if c in LABELS:
            labels[c] = list(dict.fromkeys([*known.get(c, ()), *values]))
            index = {label: i for i, label in enumerate(labels[c])}
            values = [index[v] for v in values]
        columns[c] = np.array(values)
    position = {node: i for i, node in enumerate(order)}
    before = [sorted(position[p] for p in graph.predecessors(n)) for n in order]
    indptr = np.cumsum([0, *map(len, before)], dtype=np.int64)
    indices = np.array([p for group in before for p in group], dtype=np.int64)
    lacking = [key for key in ("wall_s", "tail_s") if key not in graph.graph]
    if lacking:
        raise InputError("graph lacks an attribute", file=name, value=lacking[0])
    steps = Steps(np.array(graph.graph["wall_s"], dtype=float),
                  np.array(graph.graph["tail_s"], dtype=float))  # fmt: skip
    return Workload(name, columns, labels, steps, (indptr, indices), graph.graph.get("meta"))
