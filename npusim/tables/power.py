"""What ``npusim power`` prints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from npusim import terminal, units


def shown(content: Mapping[str, Any]) -> None:
    """Print time and energy at each clock, and which clocks to choose."""
    console = terminal.plain()
    for name, rows in content["modes"].items():
        count = content["steps"][name]
        of = "one step" if count == 1 else f"one step, of {count}"
        numbers = (
            "clock",
            "V / V0",
            "wall",
            "its upper end",
            "energy",
            "band",
            "power",
            "E x wall",
        )
        table = terminal.blank(f"{name} on {content['arch']}, {content['launch']} launch, {of}",
                               "share", *numbers, right=numbers)  # fmt: skip
        for row in rows:
            below = "" if row["held"] >= 1 else f", held at {row['held']:.1%}"
            band = " - ".join(units.show(row[f"energy_{end}_j"], "J", 3) for end in ("low", "high"))
            terminal.add(
                table, f"{row['share']:.3g}{below}", units.show(row["clock_hz"], "Hz"),
                f"{row['voltage']:.3f}", units.show(row["wall_s"], "s"),
                units.show(row["wall_high_s"], "s"), units.show(row["energy_j"], "J"), band,
                units.show(row["power_w"], "W"), f"{row['edp_js']:.3g} Js",
            )  # fmt: skip
        terminal.show(table)
    _chosen(console, content)
    if "period" in content:
        _period(console, content)


def _chosen(console: Any, content: Mapping[str, Any]) -> None:
    latency = content["latency_s"]
    within = "" if latency is None else f" within {units.show(latency, 's')} (upper end)"
    for how, label in (("together", "one clock"), ("each", "a clock for each")):
        if how == "each" and len(content["steps"]) == 1:
            continue
        one = content["chosen"][how]
        shares = dict.fromkeys(one["shares"].values()) if how == "together" else one["shares"]
        clocks = ", ".join(
            f"{share:.3g}" if how == "together" else f"{share} {one['shares'][share]:.3g}"
            for share in shares
        )
        console.print(Text(
            f"least energy{within}, {label}: {clocks}; {units.show(one['energy_j'], 'J')} in "
            f"{units.show(one['wall_s'], 's')}"))  # fmt: skip


def _period(console: Any, content: Mapping[str, Any]) -> None:
    period, sleep = units.show(content["period_s"], "s"), units.show(content["sleep_w"], "W")
    labels = {"race_to_idle": "racing to idle", "slow_and_steady": "slow and steady",
              "best": "least"}  # fmt: skip
    told = "; ".join(
        f"{labels[name]} (share {one['share']:.3g}) {units.show(one['energy_j'], 'J')}"
        for name, one in content["period"].items()
    )
    console.print(Text(f"once every {period}, {sleep} asleep: {told}"))
