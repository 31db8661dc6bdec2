"""Operations of a trace, whatever its format, put together into a workload."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim import __version__
from npusim.importers import kernel_names
from npusim.importers.coded import Coded, by_appearance, distinct, joined
from npusim.importers.files import Numbering
from npusim.importers.layers import layers
from npusim.importers.work import Launch, Work
from npusim.workload import HOST_PARTS, LABELS, HostCosts, Steps, Workload

MEASURED = ("start_s", "duration_s", "stream", "registers", "shared_memory", "host_s", *HOST_PARTS,
            "sync", "presync_s", "thread", "records")  # fmt: skip
_FROM_WORK = [f.name for f in fields(Work)]


@dataclass(frozen=True)
class Operation:
    """One device operation as an importer found it; times in seconds from the start of its step.

    The host fields are explained in `npusim.importers.host_lane` and `host_parts`; zero, and thread
    -1, where a format has none.
    """

    launch: Launch
    work: Work
    start_s: float
    duration_s: float
    operator: str = "unknown"
    stream: int = 0
    registers: int = 0
    shared_memory: float = 0.0
    host_s: float = 0.0
    interpreter_s: float = 0.0
    framework_s: float = 0.0
    library_s: float = 0.0
    launch_s: float = 0.0
    sync: bool = False
    presync_s: float = 0.0
    thread: int = -1
    records: int = 0


@dataclass(frozen=True)
class Step:
    """One step of a capture: its operations in issue order, wall time and host tail [s]."""

    operations: Sequence[Operation]
    wall_s: float
    tail_s: float = 0.0

    def columns(self) -> StepColumns:
        """Return the same as columns."""
        operations = self.operations
        measured = {m: np.array([getattr(o, m) for o in operations]) for m in MEASURED}
        return StepColumns(
            [o.launch for o in operations], [o.work for o in operations],
            [o.operator for o in operations], measured, self.wall_s, self.tail_s,
        )  # fmt: skip


@dataclass(frozen=True)
class StepColumns:
    """One step of a capture as columns.

    Attributes
    ----------
    launches, works, operators : sequence or Coded, length K
        Of each operation; those that are equal are best the same object.
    measured : mapping of str to array, shape (K,)
        The columns of `MEASURED`; threads by any number of their own, -1 where unknown.
    wall_s, tail_s : float
        Wall time and host tail [s].
    start_s : float, optional
        When the step began, from any zero that all steps share [s].
    """

    launches: Sequence[Launch] | Coded[Launch]
    works: Sequence[Work] | Coded[Work]
    operators: Sequence[str] | Coded[str]
    measured: Mapping[str, NDArray[Any]]
    wall_s: float
    tail_s: float = 0.0
    start_s: float | None = None


def no_host(count: int) -> dict[str, NDArray[Any]]:
    """Return the host's columns of operations of which no launch is known."""
    return {
        **{c: np.zeros(count) for c in ("host_s", *HOST_PARTS, "presync_s")},
        "sync": np.zeros(count, dtype=bool),
        "thread": np.full(count, -1, dtype=np.int64),
        "records": np.zeros(count, dtype=np.int64),
    }


def assemble(
    name: str,
    steps: Sequence[Step | StepColumns],
    meta: Mapping[str, Any],
    host: HostCosts | None = None,
) -> Workload:
    """Return the workload of some steps; phase and layers follow from the operations.

    Raises
    ------
    InputError
        Values that no workload may have.
    """
    return _assembled(name, [s.columns() if isinstance(s, Step) else s for s in steps], meta, host)


def _assembled(
    name: str, steps: Sequence[StepColumns], meta: Mapping[str, Any], host: HostCosts | None
) -> Workload:
    launched, done = joined([s.launches for s in steps]), joined([s.works for s in steps])
    called = joined([s.operators for s in steps])
    launches, launch, works, work = launched.table, launched.codes, done.table, done.codes
    number = np.repeat(np.arange(len(steps)), [len(step.works) for step in steps])
    columns: dict[str, NDArray[Any]] = {"step": number, "origin": np.zeros_like(number)}
    labels: dict[str, list[str]] = {"origin": ["measured"]}
    for c, texts, of in (
        ("kernel", [x.kernel for x in launches], launch),
        ("library", [kernel_names.library(x.kernel) for x in launches], launch),
        ("phase", [_phase(step.works) for step in steps], number),
        ("operator", called.table, called.codes),
        *((c, [getattr(x, c) for x in works], work) for c in _FROM_WORK if c in LABELS),
    ):
        labels[c], columns[c] = _labelled(texts, of)
    for c in _FROM_WORK:
        if c not in LABELS:
            columns[c] = np.array([getattr(x, c) for x in works])[work]
    columns["blocks"] = np.array([x.blocks for x in launches])[launch]
    columns["threads"] = np.array([x.threads for x in launches])[launch]
    columns["layer"] = np.concatenate([_layers(step.works) for step in steps])
    for c in MEASURED:
        columns[c] = np.concatenate([step.measured[c] for step in steps])
    columns["thread"] = _from_zero(columns["thread"])
    begins = [s.start_s for s in steps if s.start_s is not None]
    times = Steps(
        np.array([s.wall_s for s in steps]), np.array([s.tail_s for s in steps]),
        np.array(begins) - min(begins) if len(begins) == len(steps) else None,
    )  # fmt: skip
    about = {**meta, "npusim": __version__}
    return Workload(name, columns, labels, times, meta=about, host=host)


def _from_zero(threads: NDArray[Any]) -> NDArray[np.int64]:
    """Return numbers from 0 by first appearance; -1 stays."""
    found = np.full(len(threads), -1, dtype=np.int64)
    known = threads != -1
    if known.any():
        _, number = distinct(threads[known] - threads[known].min())
        found[known] = by_appearance(number)[1]
    return found


def _labelled(texts: Sequence[str], of: NDArray[Any]) -> tuple[list[str], NDArray[np.intp]]:
    """Return labels in order of appearance, and each operation's code.

    `of` says which text each operation has; they appear there in the order of the texts.
    """
    numbers = Numbering()
    codes = np.fromiter(map(numbers.__getitem__, texts), np.intp, len(texts))
    return list(numbers), codes[of]


def _layers(works: Sequence[Work] | Coded[Work]) -> list[int] | NDArray[np.int64]:
    """Return `layers` of a step, without a look at each operation where there are none."""
    if isinstance(works, Coded) and all(w.kind != "attention" for w in works.distinct()):
        return np.full(len(works), -1, dtype=np.int64)
    return layers(list(works))


def _phase(works: Sequence[Work] | Coded[Work]) -> str:
    """Tell decode (one query), prefill (causal) and encode (all against all) apart."""
    distinct = works.distinct() if isinstance(works, Coded) else works
    attention = [w for w in distinct if w.kind == "attention" and w.n > 1]
    if not attention:
        return "unknown"
    if any(w.m == 1 for w in attention):
        return "decode"
    causal = any(w.flop < 3.5 * w.batch * w.heads * w.m * w.n * w.k for w in attention)
    return "prefill" if causal else "encode"
