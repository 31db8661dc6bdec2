"""What ``npusim fuse`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any

from rich.text import Text

from npusim import terminal, units

_MOST = 20


def shown(content: Mapping[str, Any]) -> None:
    """Print macro-ops with what they cover, and what stays as it was."""
    console = terminal.plain()
    before, after = (units.show(content[name], "B") for name in ("activation_bytes", "left_bytes"))
    console.print(Text(
        f"{content['workload']}: {content['operations']:g} operations a step run as "
        f"{content['runs']:g}; activations read and written: {before}, then {after}"))  # fmt: skip
    numbers = ("times", "operations", "measured now")
    table = terminal.blank("macro-ops of a step", "macro-op", *numbers, "what one covers",
                           right=numbers)  # fmt: skip
    for use in content["uses"][:_MOST]:
        spent = units.show(use["measured_s"], "s", 3) if use["measured_s"] else ""
        terminal.add(table, use["name"], f"{use['times']:g}", str(len(use["operators"])), spent,
                     _listed(use["operators"]))  # fmt: skip
    terminal.show(table)
    if len(content["uses"]) > _MOST:
        console.print(Text(f"and {len(content['uses']) - _MOST} more (--json lists them)"))
    left = ", ".join(f"{kind} {times:g}" for kind, times in content["left"].items())
    console.print(Text(f"as before, a step: {left}"))
    console.print(Text("note: who reads what of whom is told by sizes; a trace holds no addresses"))


def _listed(operators: Any) -> str:
    """Return names of operators, those that follow each other counted."""
    short = (name.rsplit("::", 1)[-1] or "?" for name in operators)
    parts = ((name, len(list(same))) for name, same in groupby(short))
    return " ".join(name if times == 1 else f"{name} x{times}" for name, times in parts)
