"""MetaX mcTracer: Chrome JSON (``tracer_out-<pid>.json``), often cut short by an interrupt.

Its `ts` and `dur` are nanoseconds, unlike any other Chrome trace; the unit is decided from the
kernels in the file and the reason is kept. Events are read one by one, so that a file that ends in
the middle of one loses that event and nothing else.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from npusim.errors import InputError
from npusim.importers import files
from npusim.importers.assembly import assemble
from npusim.importers.chrome_events import Events
from npusim.importers.describe import describe
from npusim.importers.device_lane import Time, Timed, step_of
from npusim.importers.work import Launch, Work
from npusim.workload import Workload

FORMAT = "MetaX mcTracer JSON"

_PER_SECOND = {"ns": 10**9, "us": 10**6}
_DEVICE = ("gpu_op", "kernel")
_NAME = re.compile(r"tracer_out.*\.json(\.gz)?|.*\.mctracer\.json(\.gz)?")
_CATEGORY = re.compile(rb'"cat"\s*:\s*"gpu_op"')
_CHROME = re.compile(rb'"traceEvents"|"ph"\s*:')
_KINETO = re.compile(
    rb'"schemaVersion"|"deviceProperties"|"baseTimeNanoseconds"|"cat"\s*:\s*"cpu_op"'
)
_HEAD = 4 << 20
_LATEST = 2**62
_LONGEST = 10**15
_SHORTEST_S, _TYPICAL_S, _LONGEST_S, _LONGEST_CAPTURE_S = 5e-7, (2e-6, 5e-4), 5e-2, 3600.0


def sniff(path: Path) -> bool:
    """Return whether the file has mcTracer's categories, or its name and a Chrome trace in it."""
    start = files.head(path, _HEAD)
    if not _CHROME.search(start) or _KINETO.search(start):
        return False
    return bool(_CATEGORY.search(start) or _NAME.fullmatch(path.name))


def read(path: Path, name: str, time_unit: str | None = None) -> Workload:
    """Read a trace.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.
    time_unit : str, optional
        ``ns`` or ``us``; by default decided from the data. ``meta["time_unit"]`` and
        ``meta["time_unit_reason"]`` say what and why.

    Returns
    -------
    Workload
        One step, without host.

    Raises
    ------
    InputError
        Not JSON before its last event, too large, without kernels, or with times that are none.
    """
    if time_unit is not None and time_unit not in _PER_SECOND:
        raise InputError("unknown time unit", value=time_unit, allowed=", ".join(_PER_SECOND))
    events = Events(path)
    streams = files.Numbering()
    found: list[Timed] = []
    for number, event in events:
        if _is_device(event):
            found.append(_timed(path, number, event, streams))
            if len(found) > files.MOST_OPERATIONS:
                raise files.too_many(path)
    if not found:
        raise InputError("no device operations", file=path, place="traceEvents",
                         value=f"{events.count} events",
                         allowed="events of category " + " or ".join(_DEVICE))  # fmt: skip
    found.sort(key=lambda t: t.start)
    unit, reason = (time_unit, "given") if time_unit is not None else decide_unit(found)
    meta = {
        "format": "mctracer", "file": path.name, "device": "", "launch": "eager",
        "host": "unknown", "marked_steps": 0, "outside_steps": 0, "outside_steps_s": 0.0,
        "time_unit": unit, "time_unit_reason": reason, "events": events.count,
        "streams": len(streams), "repaired": events.repaired, "lost_events": events.lost,
    }  # fmt: skip
    try:
        return assemble(name, [step_of(found, _PER_SECOND[unit])], meta)
    except InputError as error:
        raise InputError(str(error), file=path) from None


@dataclass(frozen=True)
class _Guess:
    """How plausible one reading of the numbers is; the larger the score the better."""

    unit: str
    score: int
    says: str


def decide_unit(found: Sequence[Timed]) -> tuple[str, str]:
    """Return the unit of a trace, ``ns`` or ``us``, and why.

    A typical kernel takes 2 µs to 500 µs, hardly any takes under 0.5 µs or over 50 ms, and nobody
    traces for over an hour. Where both units pass, nanoseconds are what mcTracer documents.

    Examples
    --------
    >>> launch = Launch("k")
    >>> kernels = [Timed(launch, i * 20_000, 9_300, describe(None, launch)) for i in range(5)]
    >>> decide_unit(kernels)
    ('ns', 'median operation 9.3 us as ns, 9.3 ms as us; capture 89.3 us as ns, 89.3 ms as us')
    """
    typical = median(float(t.duration) for t in found)
    span = float(max(t.start + t.duration for t in found) - min(t.start for t in found))
    guesses = [_guess(unit, typical, span) for unit in _PER_SECOND]
    best = max(guesses, key=lambda g: g.score)  # of equals the first: nanoseconds
    medians, captures = zip(*(g.says.split(";") for g in guesses), strict=True)
    reason = f"median operation {', '.join(medians)}; capture {', '.join(captures)}"
    tied = guesses[0].score == guesses[1].score
    return best.unit, reason + ("; both are plausible, ns is documented" if tied else "")


def _guess(unit: str, typical: float, span: float) -> _Guess:
    each, whole = typical / _PER_SECOND[unit], span / _PER_SECOND[unit]
    score = 0
    if _SHORTEST_S <= each <= _LONGEST_S:
        score += 1
    if _TYPICAL_S[0] <= each <= _TYPICAL_S[1]:
        score += 1
    if whole <= _LONGEST_CAPTURE_S:
        score += 1
    return _Guess(unit, score, f"{_shown(each)} as {unit};{_shown(whole)} as {unit}")


def _shown(seconds: float) -> str:
    """Return a time with a unit that suits it.

    Examples
    --------
    >>> _shown(9.3e-6), _shown(0.25)
    ('9.3 us', '250 ms')
    """
    for factor, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "us")):
        if seconds >= factor:
            return f"{seconds / factor:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def _is_device(event: dict[str, Any]) -> bool:
    """Return whether an event ran on the device: by category, or by what only launches have."""
    if event.get("ph") != "X":
        return False
    args = event.get("args")
    shaped = isinstance(args, dict) and {"device_id", "grid", "block"} <= args.keys()
    return event.get("cat") in _DEVICE or shaped


def _timed(path: Path, number: int, event: dict[str, Any], streams: files.Numbering) -> Timed:
    given = event.get("args")
    args: dict[str, Any] = given if isinstance(given, dict) else {}
    start = _time(path, number, "ts", event.get("ts"), -_LATEST, _LATEST)
    duration = _time(path, number, "dur", event.get("dur"), 0, _LONGEST)
    device = str(args.get("device_id", event.get("pid")))
    queue = str(args.get("queue_id", args.get("stream", event.get("tid"))))
    given = args.get("mem")
    memory: dict[str, Any] = given if isinstance(given, dict) else {}
    launch, work = _described(_name(event, args), _triple(args.get("grid")),
                              math.prod(_triple(args.get("block"))))  # fmt: skip
    shared = _count(memory.get("static_shared")) + _count(memory.get("dynamic_shared"))
    return Timed(launch, start, duration, work, streams[device, queue],
                 min(_count(memory.get("registers_per_thread")), 2**16), float(shared))  # fmt: skip


@lru_cache(maxsize=4096)
def _described(kernel: str, grid: tuple[int, int, int], threads: int) -> tuple[Launch, Work]:
    """Return a launch and what it does: most kernels of a trace were seen before."""
    launch = Launch(kernel, grid, threads)
    return launch, describe(None, launch)


def _name(event: dict[str, Any], args: dict[str, Any]) -> str:
    """Return the kernel's name: some versions call the event after the launch call."""
    name, inner = event.get("name"), args.get("name")
    own = name if isinstance(name, str) else ""
    if isinstance(inner, str) and inner and (not own or "LaunchKernel" in own):
        return inner
    return own or "unknown"


def _time(path: Path, number: int, field: str, value: object, low: int, high: int) -> Time:
    """Return a time exactly; some writers put decimals into strings."""
    if isinstance(value, str):
        text = value.strip()
        value = Decimal(text) if re.fullmatch(r"-?[0-9]{1,20}(\.[0-9]{0,12})?", text) else value
    if isinstance(value, (int, Decimal)) and not isinstance(value, bool) and low <= value <= high:
        return value
    raise InputError("not a time", file=path, place=f"traceEvents[{number}].{field}",
                     value=value, allowed=f"a number from {low} to {high}")  # fmt: skip


def _triple(value: object) -> tuple[int, int, int]:
    """Return sizes along three axes, from an object or a list; zeros where they are neither."""
    if isinstance(value, dict):
        value = [value.get("x", 1), value.get("y", 1), value.get("z", 1)]
    if not isinstance(value, list) or len(value) != 3:
        return (0, 0, 0)
    try:
        return _counts(*value)
    except TypeError:  # a list or an object among them
        return (0, 0, 0)


@lru_cache(maxsize=4096, typed=True)
def _counts(x: object, y: object, z: object) -> tuple[int, int, int]:
    counts = _count(x), _count(y), _count(z)
    return counts if math.prod(counts) < 2**53 else (0, 0, 0)


def _count(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        return 0
    return value if 0 <= value < 2**31 else 0
