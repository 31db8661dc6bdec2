"""What ``npusim area`` prints."""

from __future__ import annotations

from rich.text import Text

from npusim import terminal, units
from npusim.silicon import RETICLE, Figure, Silicon

_LABELS = {
    "dies_per_wafer": ("whole dies of a wafer", "1"), "yield": ("dies that work", "%"),
    "die_cost": ("a die that works", "USD"), "package_cost": ("package and test", "USD"),
    "memory_cost": ("memory", "USD"), "cost": ("chip and memory", "USD"),
    "embodied": ("carbon of making them", "kg"),
}  # fmt: skip


def shown(found: Silicon) -> None:
    """Print the blocks of a die, and what it costs."""
    console = terminal.plain()
    if found.missing:
        console.print(Text(f"{found.arch}: no area: it does not say {', '.join(found.missing)}"))
        return
    columns = ("area", "share of the die", "band of the area", "band of the share")
    table = terminal.blank(f"{found.arch}, {found.node}", "block", *columns, right=columns)
    for name, block in sorted(found.blocks.items(), key=lambda item: -item[1].value):
        share = found.shares[name]
        terminal.add(table, name, units.show(block.value, "mm2", 3), f"{share.value:.1%}",
                     _band(block, "mm2"), _band(share, "%"))  # fmt: skip
    die = found.figures["die"]
    terminal.add(table, "die", units.show(die.value, "mm2", 3), "100.0%", _band(die, "mm2"), "")
    terminal.show(table)
    if found.published is not None and found.error is not None:
        published = units.show(found.published, "mm2")
        console.print(Text(f"published: {published}; the model is {found.error:+.1%} from it"))
    if die.value > RETICLE:
        largest = units.show(RETICLE, "mm2")
        console.print(Text(f"note: larger than one exposure ({largest}): no such die is made"))
    table = terminal.blank("cost", "", "value", "band", right=("value", "band"))
    for name, (label, unit) in _LABELS.items():
        figure = found.figures[name]
        terminal.add(table, label, _number(figure.value, unit), _band(figure, unit))
    terminal.show(table)


def _band(figure: Figure, unit: str) -> str:
    return f"{_number(figure.low, unit)} - {_number(figure.high, unit)}"


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{value:.1%}"
    return f"{value:,.0f} {unit}" if unit == "USD" else units.show(value, unit, 3)
