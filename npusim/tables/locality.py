"""What ``npusim reuse`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from npusim import terminal, units

_NAMES = {"weight": "weights", "kv": "KV cache", "activation": "activations"}


def shown(content: Mapping[str, Any]) -> None:
    """Print what caches of some capacities miss, and what simulated ones hit."""
    console = terminal.plain()
    moved = {name: size for name, size in content["moved"].items() if size > 0}
    sums = ", ".join(f"{_NAMES[n]} {units.show(size, 'B')}" for n, size in moved.items())
    console.print(Text(f"{content['workload']}: a step reads and writes {sums}"))
    names = [_NAMES[n] for n in moved]
    table = terminal.blank("missed in a step", "capacity", *names, "of all",
                           right=("capacity", *names, "of all"))  # fmt: skip
    for i, size in enumerate(content["capacity"]):
        missed = [content["missed"][n][i] for n in moved]
        cells = [units.show(m, "B", 3) for m in missed]
        terminal.add(
            table, units.show(size, "B"), *cells, f"{sum(missed) / sum(moved.values()):.1%}"
        )
    terminal.show(table)
    if content["simulated"]:
        _simulated(content["simulated"])
    for note in content["notes"]:
        console.print(Text(f"note: {note}"))


def _simulated(rows: list[dict[str, Any]]) -> None:
    columns = ("capacity", "lines", *_NAMES.values(), "all", "by look-up")
    table = terminal.blank("lines that hit in the simulated cache", *columns, right=columns)
    for row in rows:
        by = [f"{row['by_class'][n]:.1%}" if n in row["by_class"] else "" for n in _NAMES]
        terminal.add(table, units.show(row["capacity"], "B"), f"{row['lines']:,}", *by,
                     f"{row['hit_share']:.1%}", f"{row['profiled']:.1%}")  # fmt: skip
    terminal.show(table)
