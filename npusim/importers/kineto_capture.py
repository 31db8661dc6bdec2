"""A Kineto trace put together: who launched each device operation, and from which operator."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.importers import nesting
from npusim.importers.kineto_events import Codes, Floats, Spans
from npusim.importers.kineto_host import Calls
from npusim.importers.kineto_scan import Trace
from npusim.importers.tensors import Call, read_call

_STEP = re.compile(r"(?:ProfilerStep|step)#\d+")
_OVERLAP_US = 1.0  # old traces are in whole microseconds

Span = tuple[float, float]


@dataclass(frozen=True)
class Capture:
    """A trace put together; device operations in the order in which they were issued.

    Attributes
    ----------
    launch : array, shape (K,)
        Row of the runtime call that launched each, -1 if unknown.
    issued : array, shape (K,)
        When that was; the start on the device where it is unknown [us].
    own : array of bool, shape (K,)
        Whether it is the only one of its launch.
    instance : array, shape (K,)
        The host's call that launched it, -1 if unknown.
    chain : array, shape (K,)
        Number of that call in `operators`, -1 if unknown.
    marks : list of (start, stop)
        Marked steps [us].
    """

    trace: Trace
    device: Spans
    calls: Calls
    launch: Codes
    issued: Floats
    own: NDArray[np.bool_]
    instance: Codes
    chain: Codes
    operators: list[Call]
    marks: list[Span]

    @property
    def spans(self) -> list[Span]:
        """The steps; without marks all of the trace is one."""
        return self.marks or [(float(self.issued.min()), float(self.device.stop.max()))]


def capture_of(trace: Trace, calls: Calls) -> Capture:
    """Return a trace put together with the calls of the host in it."""
    device, runtime = trace.device, trace.runtime
    # A call without a time cannot say when it launched anything.
    timed = np.where(np.isfinite(runtime.start), runtime.correlation, -1)
    launch, own = _launches(device.correlation, timed)
    issued = device.start.copy()
    known = launch >= 0
    issued[known] = runtime.start[launch[known]]
    order = np.lexsort((device.start, issued))
    device, launch, issued, own = device[order], launch[order], issued[order], own[order]
    instance = _instances(calls, launch, len(runtime))
    chain, links = nesting.chains(calls.parent, _labels(calls, trace), instance[instance >= 0])
    return Capture(
        trace, device, calls, launch, issued, own, instance,
        np.append(chain, -1)[instance], _operators(trace, links),
        _marks(trace),
    )  # fmt: skip


def _launches(device: Codes, runtime: Codes) -> tuple[Codes, NDArray[np.bool_]]:
    """Return the runtime call of each device operation, and whether it launched no other."""
    launch = np.full(len(device), -1, dtype=np.int64)
    rows = np.flatnonzero(runtime >= 0)
    rows = rows[np.argsort(runtime[rows], kind="stable")]
    at = np.searchsorted(runtime[rows], device, "right") - 1  # of several with one id the last
    found = (at >= 0) & (device >= 0)
    found[found] = runtime[rows[at[found]]] == device[found]
    launch[found] = rows[at[found]]
    _, code, count = np.unique(device, return_inverse=True, return_counts=True)
    return launch, found & (count[code.reshape(-1)] == 1)


def _instances(calls: Calls, launch: Codes, runtime: int) -> Codes:
    """Return the innermost operator around the launch of each device operation, -1 for none."""
    around = np.full(runtime + 1, -1, dtype=np.int64)
    is_call = ~calls.is_operator
    around[calls.row[is_call]] = calls.parent[is_call]
    return around[launch]  # the last entry stands for launches that are unknown


def _labels(calls: Calls, trace: Trace) -> Codes:
    """Return a number for name and arguments of each call."""
    return calls.name.astype(np.int64) * (len(trace.shapes) + 1) + calls.shape + 1


def _operators(trace: Trace, links: list[tuple[int, int]]) -> list[Call]:
    """Return the operator of each chain, with those around it; arguments are read once each."""
    arguments: dict[int, Any] = {}
    found: list[Call] = []
    for label, around in links:
        name, shape = divmod(label, len(trace.shapes) + 1)
        if shape not in arguments:
            arguments[shape] = _decoded(trace.shapes[shape - 1] if shape else b"")
        parents = (*found[around].parents, found[around]) if around >= 0 else ()
        found.append(read_call(trace.names[name], arguments[shape], parents))
    return found


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw) if raw else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError("an operator's arguments cannot be read", place="args",
                         value=str(error)) from None  # fmt: skip


def _marks(trace: Trace) -> list[Span]:
    """Return the marked steps in order; one's own marks come before the profiler's."""
    marks = trace.marks
    named = [(i, trace.names[n]) for i, n in enumerate(marks.name.tolist())]
    steps = [
        (i, name) for i, name in named if _STEP.fullmatch(name) and marks.start[i] == marks.start[i]
    ]
    own = [i for i, name in steps if not name.startswith("Profiler")]
    chosen = own or [i for i, _ in steps]
    length = np.nan_to_num(marks.length)
    found = sorted({(float(marks.start[i]), float(marks.start[i] + length[i])) for i in chosen})
    for (_, stop), (start, _) in pairwise(found):
        if start < stop - _OVERLAP_US:
            raise InputError("steps overlap", place="user_annotation",
                             value=f"one begins {stop - start:.3f} us before another ends",
                             allowed="steps one after the other")  # fmt: skip
    return found
