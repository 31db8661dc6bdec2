"""Bytes that a chain of operations reads from outside and writes; all else stays on the chip."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from npusim.fusion.dataflow import Dataflow
from npusim.workload import Workload

BESIDE = ("read_weight", "read_kv", "write_kv")  # bytes that are no activations


def activations(
    w: Workload, members: Sequence[int], again: Collection[int], flow: Dataflow
) -> tuple[float, float]:
    """Return the activations that a chain reads and writes [B].

    What several members read from outside is read once. Written is what somebody outside reads, or
    nobody that is known; never what is done again, since all its readers do it themselves.

    Examples
    --------
    Squares of a row, and their mean: the squares are read once more, by what comes behind:

    >>> import npusim as ns
    >>> from npusim.fusion.dataflow import dataflow
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> square = w.text("operator").tolist().index("aten::pow")
    >>> activations(w, [square, square + 1], (), dataflow(w))
    (4096.0, 4100.0)
    """
    own, last, rows = set(members), members[-1], list(members)
    inside = sum(part for m in members for j, part in flow.reads[m].items() if j in own)
    twice = _read_again(w, members, own, flow)
    read = max(float(w["read_activation"][rows].sum()) - inside - twice, 0.0)
    leaves = (
        m for m in members if m == last or (m not in again and _is_read_outside(m, own, flow))
    )
    return read, float(sum(w["write_activation"][m] for m in leaves))


def _is_read_outside(m: int, own: set[int], flow: Dataflow) -> bool:
    """Return whether somebody outside reads a result, or nobody that is known."""
    return not flow.readers[m] or not own.issuperset(flow.readers[m])


def moved(w: Workload, members: Sequence[int], again: Collection[int], flow: Dataflow) -> float:
    """Return all bytes that a chain reads and writes [B]."""
    rows = list(members)
    rest = sum(float(w[name][rows].sum()) for name in BESIDE)
    return rest + sum(activations(w, members, again, flow))


def _read_again(w: Workload, members: Sequence[int], own: set[int], flow: Dataflow) -> float:
    """Return the bytes from outside that members read beyond what there are, so more than once."""
    read: dict[int, float] = {}
    for m in members:
        for j, part in flow.reads[m].items():
            if j not in own:
                read[j] = read.get(j, 0.0) + part
    made = w["write_activation"]
    return sum(max(size - float(made[j]), 0.0) for j, size in read.items())
