"""What changed between two captures, a step of one against a step of the other.

Every table adds up: the seconds that its rows gained and lost are what device-busy time gained or
lost. Kernels are the same if their names have one key; where libraries differ and hardly any name
is common, captures are compared by operator and shape, by operator or by kind instead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from npusim.classes import COUNTER_RULE, SHAPE_RULE, by_counters, by_shapes
from npusim.counters import COUNTERS
from npusim.difference_rows import Change, CounterShift, Difference, Total
from npusim.inspection import inspection
from npusim.joining.counters import is_profile
from npusim.kernel_match import Ints, common_codes, keys
from npusim.load import traced_arch
from npusim.workload import BYTES, LABELS, Workload

_SHAPE = ("batch", "m", "n", "k", "heads", "kv_heads")
_LEVELS: Mapping[str, tuple[str, ...]] = {
    "kernel": ("kernel",),
    "kind": ("kind",),
    "library": ("library",),
    "operator": ("operator",),
    "kind and shape": ("kind", *_SHAPE),
    "operator and shape": ("operator", *_SHAPE),
}
LEVELS = tuple(_LEVELS)
_PREFERRED = ("kernel", "operator and shape", "operator", "kind")
_COMMON = 0.5  # share of busy time that must be in groups of both captures to compare by them
_COVERED = 0.99  # share of busy time with shapes below which FLOP and bytes need a caveat


def difference(a: Workload, b: Workload) -> Difference:
    """Compare two captures, a step of each.

    Parameters
    ----------
    a, b : Workload
        Before and after, or one machine and another.

    Returns
    -------
    Difference
    """
    groups = {level: _groups(a, b, columns) for level, columns in _LEVELS.items()}
    changes = {level: _changes(a, b, *found) for level, found in groups.items()}
    common = {level: _common_share(rows) for level, rows in changes.items()}
    compared_by = next((level for level in _PREFERRED if common[level] >= _COMMON), "kind")
    names = _names(a, b)
    return Difference(
        *names,
        _totals(a, b),
        changes,
        common,
        compared_by,
        _host(a, b),
        _counters(a, b),
        *_classes(a, b),
        tuple(_notes(a, b, names)),
    )


def _names(a: Workload, b: Workload) -> tuple[str, str]:
    """Return two names that tell the captures apart."""
    return (a.name, b.name) if a.name != b.name else (f"{a.name} (a)", f"{b.name} (b)")


def _steps(w: Workload) -> int:
    return max(len(w.steps), 1)


# ---------------------------------------------------------------- groups


def _groups(
    a: Workload, b: Workload, columns: Sequence[str]
) -> tuple[Ints, NDArray[np.intp], Callable[[int], str]]:
    """Group the operations of both captures by some columns.

    Returns
    -------
    group : array, shape (Ka + Kb,)
        The group of each operation, those of a first.
    first : array, shape (G,)
        An operation of each group.
    name : callable
        The name of an operation's group.
    """
    group = np.zeros(len(a) + len(b), dtype=np.int64)
    first = np.zeros(1, dtype=np.intp)
    for c in columns:
        values = np.concatenate(_comparable(a, b, c))
        values = np.unique(values, return_inverse=True)[1].reshape(-1)
        both = group * (values.max() + 1) + values
        _, first, group = np.unique(both, return_index=True, return_inverse=True)
        group = group.reshape(-1)

    def name(row: int) -> str:
        w, at = (a, row) if row < len(a) else (b, row - len(a))
        text = w.labels[columns[0]][w[columns[0]][at]]
        return f"{text} {_shape(w, at)}".strip() if len(columns) > 1 else text

    return group, first, name


def _comparable(a: Workload, b: Workload, column: str) -> tuple[Ints, Ints]:
    """Return a column of both captures as integers that mean the same."""
    if column not in LABELS:
        return a[column], b[column]
    texts = [keys(w) if column == "kernel" else w.labels[column] for w in (a, b)]
    (codes_a, codes_b), _ = common_codes(texts)
    return codes_a[a[column]], codes_b[b[column]]


def _shape(w: Workload, row: int) -> str:
    """Return the shape of an operation in short: batch x m x n x k, and heads of attention."""
    batch, m, n, k, heads, kv_heads = (int(w[c][row]) for c in _SHAPE)
    text = "x".join(str(d) for d in (m, n, k) if d)
    if batch > 1:
        text = f"{batch} of {text}"
    return f"{text}, {heads} heads on {kv_heads}" if heads else text


def _changes(
    a: Workload,
    b: Workload,
    group: Ints,
    first: NDArray[np.intp],
    name: Callable[[int], str],
) -> tuple[Change, ...]:
    """Return the groups of both captures, largest change first."""
    amounts = []
    for w, part in ((a, group[: len(a)]), (b, group[len(a) :])):
        count = np.bincount(part, minlength=len(first))
        seconds = np.bincount(part, w["duration_s"], len(first))
        amounts += [count / _steps(w), seconds / _steps(w)]
    count_a, seconds_a, count_b, seconds_b = amounts
    order = np.argsort(-np.abs(seconds_b - seconds_a), kind="stable")
    table = np.column_stack([count_a, count_b, seconds_a, seconds_b])[order].tolist()
    names = [name(row) for row in first[order].tolist()]
    return tuple(Change(n, *row) for n, row in zip(names, table, strict=True))


def _common_share(changes: Sequence[Change]) -> float:
    """Return the share of busy time in named groups of both, of the capture where it is less."""
    shares = []
    for seconds in ("seconds_a", "seconds_b"):
        total = sum(getattr(c, seconds) for c in changes)
        both = sum(
            getattr(c, seconds)
            for c in changes
            if c.count_a and c.count_b and c.name.partition(" ")[0] != "unknown"
        )
        shares.append(both / total if total else 0.0)
    return min(shares)


def _classes(a: Workload, b: Workload) -> tuple[tuple[Change, ...], str]:
    """Return how the classes of both captures changed, and by what rule; nothing if none fits."""
    if all({"sm_throughput", "dram_throughput"} <= w.counters.keys() for w in (a, b)):
        rule = COUNTER_RULE
        found = [
            by_counters(w.counters["sm_throughput"], w.counters["dram_throughput"]) for w in (a, b)
        ]
    else:
        machines = [traced_arch(w) for w in (a, b)]
        if machines[0] is None or machines[1] is None:
            return (), ""
        rule = SHAPE_RULE
        found = [by_shapes(a, machines[0]), by_shapes(b, machines[1])]
    names, first, group = np.unique(
        np.concatenate(found).astype(str), return_index=True, return_inverse=True
    )
    of = dict(zip(first.tolist(), names.tolist(), strict=True))
    return _changes(a, b, group.reshape(-1), first, of.__getitem__), rule


# ---------------------------------------------------------------- totals, host and counters


def _totals(a: Workload, b: Workload) -> tuple[Total, ...]:
    found = [_figures(w) for w in (a, b)]
    units = {"launches": "1", "syncs": "1", "idle_share": "1", "flop": "FLOP",
             **dict.fromkeys(BYTES, "B")}  # fmt: skip
    return tuple(
        Total(name, units.get(name, "s"), found[0][name], found[1][name]) for name in found[0]
    )


def _figures(w: Workload) -> dict[str, float]:
    """Return the totals of a capture, a step."""
    whole, steps = inspection(w), _steps(w)
    seconds = {c: whole[c] / steps for c in ("wall_s", "device_busy_s", "device_active_s")}
    return {
        **seconds,
        "idle_share": whole["idle_share"],
        "launches": whole["kernels"] / steps,
        "syncs": whole["syncs"] / steps,
        "flop": whole["flop"] / steps,
        **{c: moved / steps for c, moved in whole["bytes"].items()},
    }


def _host(a: Workload, b: Workload) -> tuple[Change, ...]:
    """Return host calls of both captures by the time in them alone, largest change first."""
    if not a.host or not b.host:
        return ()
    sums: dict[str, list[float]] = {}
    for at, w, host in ((0, a, a.host), (1, b, b.host)):
        rows = zip(host.names, host.calls.tolist(), host.self_s.tolist(), strict=True)
        for name, calls, seconds in rows:
            row = sums.setdefault(name, [0.0] * 4)
            row[at] += calls / _steps(w)
            row[at + 2] += seconds / _steps(w)
    changes = (Change(name, *row) for name, row in sums.items())
    return tuple(sorted(changes, key=lambda c: -abs(c.seconds)))


def _counters(a: Workload, b: Workload) -> tuple[CounterShift, ...]:
    found = []
    for name in COUNTERS:
        if name in a.counters and name in b.counters:
            of_a, of_b = _means(a, name), _means(b, name)
            if of_a is not None and of_b is not None:
                pairs = (value for pair in zip(of_a, of_b, strict=True) for value in pair)
                found.append(CounterShift(name, COUNTERS[name].unit, *pairs))
    return tuple(found)


def _means(w: Workload, counter: str) -> tuple[float, float, float] | None:
    """Return the mean of a counter weighted by time, its plain mean, and its share of time."""
    values, seconds = w.counters[counter], w["duration_s"]
    known = ~np.isnan(values)
    total = float(seconds[known].sum())
    if not total:
        return None
    weighted = float((values[known] * seconds[known]).sum()) / total
    return weighted, float(values[known].mean()), total / float(seconds.sum())


def _notes(a: Workload, b: Workload, names: tuple[str, str]) -> list[str]:
    notes = []
    if len(a.steps) != len(b.steps):
        notes.append(f"{names[0]} has {len(a.steps)} steps, {names[1]} {len(b.steps)}: all figures "
                     "are those of a step")  # fmt: skip
    for w, name in zip((a, b), names, strict=True):
        count = np.bincount(w["step"], minlength=_steps(w))
        if count.min() != count.max():
            notes.append(f"steps of {name} differ: {count.min()} to {count.max()} operations")
        if is_profile(w):
            notes.append(f"durations of {name} are those of a counter profiler, its wall their sum")
        elif not w.meta.get("marked_steps"):
            notes.append(f"{name} has no marked steps: the whole capture counts as one")
        if "note" in w.meta:
            notes.append(f"{name}: {w.meta['note']}")
        if (share := w.classified_busy_share) < _COVERED:
            notes.append(f"FLOP and bytes are known for {share:.0%} of the device time of {name}")
    for what in ("device", "launch"):
        values = [str(w.meta.get(what, "") or "unknown") for w in (a, b)]
        if values[0] != values[1]:
            notes.append(f"{what}: {values[0]} against {values[1]}")
    return notes
