"""Tables of how workloads came about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.page import PageTimes


def kinds(content: Mapping[str, Any], of: str) -> None:
    """Print what kinds of operations there are: their time, or FLOP and bytes if none was measured.

    Parameters
    ----------
    content : mapping
        `npusim.inspection.inspection`.
    of : str
        What the counts are of.
    """
    busy, found = content["device_busy_s"], content["kinds"]
    columns = ["count", "time", "share"] if busy else ["count", "FLOP", "bytes"]
    title = f"{'device time' if busy else 'work'} by kind, {of}"
    table = terminal.blank(title, "kind", *columns, right=columns)
    total = {c: sum(entry[c] for entry in found.values()) for c in ("count", "flop", "bytes")}
    for kind, entry in {**found, "sum": {**total, "seconds": busy}}.items():
        if busy:
            cells = terminal.seconds(entry["seconds"]), f"{entry['seconds'] / busy:.1%}"
        else:
            cells = units.show(entry["flop"], "FLOP"), units.show(entry["bytes"], "B")
        terminal.add(table, kind, str(entry["count"]), *cells)
    terminal.show(table)


def origins(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Print what operations are, with the device time that was measured of them.

    Parameters
    ----------
    found : mapping
        ``origins`` of `npusim.inspection.inspection`: count and seconds by mark.
    """
    total = sum(entry["seconds"] for entry in found.values())
    columns = ["count", "measured time", "share"] if total else ["count"]
    table = terminal.blank("operations by origin", "origin", *columns, right=columns)
    for origin, entry in found.items():
        cells = (
            [terminal.seconds(entry["seconds"]), f"{entry['seconds'] / total:.1%}"] if total else []
        )
        terminal.add(table, origin, str(entry["count"]), *cells)
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
