"""Tables about captures: what was taken in, and how two of them differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.counters import COUNTERS
from npusim.difference_rows import Change, Difference, largest
from npusim.inspection import inspection
from npusim.intake import Taken
from npusim.report.labels import labels
from npusim.workload import Workload

_MOST_CHANGES = 12


def imported(taken: Sequence[Taken]) -> None:
    """Print what was written."""
    console = terminal.plain()
    for t in taken:
        w = t.workload
        marked = len(w.steps) if w.meta.get("marked_steps") else 0
        steps = terminal.many(marked, "step") if marked else "one capture without marked steps"
        counters = f", {terminal.many(len(w.counters), 'counter')}" if w.counters else ""
        console.print(Text(
            f"{t.file}: {terminal.many(len(w), 'operation')} in {steps}, "
            f"{_classified(w)} with kind, FLOP and bytes{counters}"
        ))  # fmt: skip
        for note in (*_decided(w.meta), *inspection(w)["notes"]):
            console.print(Text(f"note: {note}"))


def _classified(w: Workload) -> str:
    """Return how much of a workload has kind, FLOP and bytes: of its time, if it has any."""
    if w.meta.get("measured") is False:
        return f"{w.classified.mean():.1%} of operations"
    return f"{w.classified_busy_share:.1%} of device time"


def _decided(meta: Mapping[str, Any]) -> list[str]:
    """Return what an importer decided, in words."""
    notes = []
    if "time_unit" in meta:
        notes.append(f"times are in {meta['time_unit']} ({meta['time_unit_reason']})")
    return notes


def difference(d: Difference) -> None:
    """Print what changed between two captures."""
    console = terminal.plain()
    console.print(Text(f"{d.a} (a) against {d.b} (b), one step of each"))
    table = terminal.blank("totals", "", "a", "b", "b / a", right=("a", "b", "b / a"))
    for t in d.totals:
        ratio = f"{t.b / t.a:.2f}" if t.a else ""
        name, share = t.name.removesuffix("_s").replace("_", " "), t.name == "idle_share"
        terminal.add(table, name, *(_amount(v, t.unit, share) for v in (t.a, t.b)), ratio)
    terminal.show(table)
    for level in dict.fromkeys((d.compared_by, "kind", "library")):
        title = f"device time by {level}; {d.common_share[level]:.0%} of it in what both have"
        _changes(title, level, d.changes[level])
    if d.classes:
        _changes("device time by class", "class", d.classes)
    if d.host:
        _changes("host time by call, without what it called", "call", d.host)
    if d.counters:
        _counters(d)
    for note in d.notes:
        console.print(Text(f"note: {note}"))


def _counters(d: Difference) -> None:
    numbers = ("a", "b", "plain mean a", "plain mean b")
    table = terminal.blank("counters, weighted by time", "counter", *numbers, right=numbers)
    for c in d.counters:
        values = (c.a, c.b, c.mean_a, c.mean_b)
        share = COUNTERS[c.counter].is_share
        terminal.add(table, c.counter, *(_amount(v, c.unit, share) for v in values))
    terminal.show(table)


def _changes(title: str, what: str, changes: Sequence[Change]) -> None:
    numbers = ("count a", "count b", "time a", "time b", "change", "by count", "by duration")
    table = terminal.blank(title, what, "", *numbers, right=numbers)
    shown = largest(changes, _MOST_CHANGES)
    whole = len(shown) == len(changes)
    names = [c.name for c in (shown if whole else shown[:-1])]
    short = labels(names) if what == "kernel" else names
    for i, c in enumerate(shown):
        name, status = (short[i], c.status) if i < len(short) else (c.name, "")
        times = (c.seconds_a, c.seconds_b, c.seconds, c.by_count, c.by_duration)
        counts = (f"{c.count_a:g}", f"{c.count_b:g}")
        terminal.add(table, name, status, *counts, *map(terminal.seconds, times))
    terminal.show(table)


def _amount(value: float, unit: str, share: bool) -> str:
    if share:
        return f"{value:.1%}"
    return f"{value:,.4g}" if unit == "1" else units.show(value, unit)
