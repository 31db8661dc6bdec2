"""Tables of how workloads came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from npusim import terminal
from npusim.page import PageTimes


def origins(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what operations are, with the device time that was measured of them.

    Parameters
    ----------
    found : mapping
        ``origins`` of `npusim.inspection.inspection`: count and seconds by mark.
    """
    total = sum(entry["seconds"] for entry in found.values())
    table = terminal.blank(
        "operations by origin", "origin", "count", "measured time", "share",
        right=("count", "measured time", "share"),
    )  # fmt: skip
    for origin, entry in found.items():
        share = f"{entry['seconds'] / total:.1%}" if total else "-"
        seconds = terminal.seconds(entry["seconds"])
        terminal.add(table, origin, str(entry["count"]), seconds, share)
    terminal.show(table)


def page(found: PageTimes) -> None:
    """Print what a page takes."""
    table = terminal.blank(
        "the page", "part", "steps", "wall", "device busy", "host work", "share of wall",
        right=("steps", "wall", "device busy", "host work", "share of wall"),
    )  # fmt: skip
    for part in found.parts:
        times = (part.wall_s, part.device_busy_s, part.host_busy_s)
        terminal.add(table, part.name, str(part.steps), *map(terminal.seconds, times),
                     f"{part.wall_s / found.page_s:.1%}")  # fmt: skip
    terminal.show(table)
    band = ""
    if found.band_s is not None:
        low, high = map(terminal.seconds, found.band_s)
        band = f" (band p10-p90 of kernel times: {low} - {high})"
    ttft, tpot = terminal.seconds(found.ttft_s), terminal.seconds(found.tpot_s)
    console = terminal.plain()
    console.print(Text(f"{terminal.seconds(found.page_s)} a page{band}"))
    console.print(Text(f"first token after {ttft} (TTFT), then one every {tpot} (TPOT), "
                       f"{found.tokens_per_s:.4g} tokens/s"))  # fmt: skip
