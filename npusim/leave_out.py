"""A workload without some of its operations: what a program would be that does not issue them.

An operation that is left out takes its device time with it, the host work before its launch, and
the wait for it: a copy to the host that the program no longer needs is no synchronisation any more.
What waited for it waits for what it waited for.

Left out: host work that belongs to it and is counted before the next launch (a framework's return),
and whether the next operation could be issued differently.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.workload import Workload

Edges = tuple[NDArray[np.int64], NDArray[np.int64]]


def leave_out(w: Workload, rows: NDArray[np.bool_], why: str) -> Workload:
    """Return a workload without some operations.

    Parameters
    ----------
    w : Workload
        K operations.
    rows : array of bool, shape (K,)
        Which to leave out.
    why : str
        What it stands for; goes into the notes.

    Returns
    -------
    Workload
        Measured times of the rest are those from before, wall times of steps too.

    Raises
    ------
    InputError
        Not one mark an operation, or a step that would have nothing left.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_vision")
    >>> fewer = leave_out(w, w["sync"], "no waits")
    >>> (len(w) - len(fewer)) // 3, int(fewer["sync"].sum())
    (99, 0)
    """
    if rows.shape != (len(w),) or rows.dtype != np.bool_:
        given = f"{rows.dtype} {rows.shape}"
        raise InputError("not one mark an operation", file=w.name, value=given,
                         allowed=f"bool ({len(w)},)")  # fmt: skip
    if not rows.any():
        return w
    kept = ~rows
    missing = np.setdiff1d(w["step"], w["step"][kept])
    if missing.size:
        raise InputError("a step would have nothing left", file=w.name, place=f"step {missing[0]}",
                         allowed="at least one operation a step")  # fmt: skip
    count = int(rows.sum())
    note = f"{count} operations left out ({why}): measured wall times are those from before"
    meta: dict[str, Any] = {
        **w.meta,
        "left_out": w.meta.get("left_out", 0) + count,
        "notes": [*w.meta.get("notes", ()), note],
    }
    columns, counters, edges = taken(w, kept)
    return Workload(w.name, columns, w.labels, w.steps, edges, meta, counters, w.host)


def taken(
    w: Workload, kept: NDArray[np.bool_]
) -> tuple[dict[str, NDArray[Any]], dict[str, NDArray[np.float64]], Edges]:
    """Return the columns, counters and dependencies of some of the operations."""
    columns = {name: column[kept] for name, column in w.columns.items()}
    counters = {name: counter[kept] for name, counter in w.counters.items()}
    return columns, counters, _edges(w, kept)


def _edges(w: Workload, kept: NDArray[np.bool_]) -> Edges:
    """Return the dependencies of what is kept; through what is left out they are handed on."""
    indptr, indices = w.edges
    number = np.cumsum(kept) - 1
    stands_for: list[tuple[int, ...]] = []  # operations that are kept, in place of each
    waits: list[tuple[int, ...]] = []
    for i in range(len(w)):
        before = indices[indptr[i] : indptr[i + 1]].tolist()
        inherited = tuple(sorted({k for j in before for k in stands_for[j]}))
        stands_for.append((int(number[i]),) if kept[i] else inherited)
        if kept[i]:
            waits.append(inherited)
    pointer = np.cumsum([0, *map(len, waits)], dtype=np.int64)
    return pointer, np.array([k for before in waits for k in before], dtype=np.int64)
