"""What ``npusim serve-sim`` prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.serving_block import axis_text

_WAITS = (("ttft", "TTFT"), ("tpot", "TPOT"), ("latency", "latency"))


def shown(content: Mapping[str, Any], folder: Path | None, files: Sequence[str]) -> None:
    """Print runs: one at length, several a line each."""
    console = terminal.plain()
    console.print(Text(content["title"], style="bold"))
    runs = content["runs"]
    if len(runs) == 1:
        _one(console, runs[0])
    else:
        _many(runs)
    for note in content["notes"]:
        console.print(Text(f"note: {note}"))
    if folder is not None:
        console.print(Text(f"written to {folder}: {', '.join(files)}"))


def _one(console: Any, run: Mapping[str, Any]) -> None:
    measured, band = run.get("measured", {}), run.get("band")
    columns = ["mean", "P50", "P95", "P99", "largest"]
    table = terminal.blank("", "", *columns, right=columns)
    for name, label in _WAITS:
        if name not in run:
            continue
        terminal.add(table, label, *(_time(v) for v in run[name].values()))
        if band:
            low, high = (band[end].get(name) for end in ("low", "high"))
            if low and high:
                terminal.add(table, "  band", *(f"{_time(low[k])} - {_time(high[k])}"
                                                for k in low))  # fmt: skip
        if name in measured:
            terminal.add(table, "  measured", *(_time(v) for v in measured[name].values()))
            terminal.add(table, "  off", *(_off(run[name][k], v)
                                           for k, v in measured[name].items()))  # fmt: skip
    terminal.show(table)
    answered = (
        f"{run['answered']} of {run['arrived']} requests answered, {run['in_flight']} in flight, "
        f"{run['rejected']} rejected; {run['requests_per_s']:.4g} requests and "
        f"{run['tokens_per_s']:.4g} tokens a second, goodput "
        f"{run['goodput_per_s']:.4g} a second"
    )
    busy = (
        f"{_time(run['seconds'])} of which engines work {run['utilisation']:.1%}; {run['steps']} "
        f"steps; {run['stops']} times a request was stopped for want of room; KV cache at most "
        f"{_held(run)}; {run['cached_share']:.1%} of prompt tokens found in it"
    )
    if "energy_j" in run:
        busy += f"; {units.show(run['j_per_token'], 'J')} a token"
    console.print(Text(answered))
    console.print(Text(busy))


def _many(runs: Sequence[Mapping[str, Any]]) -> None:
    axes = list(runs[0]["axes"])
    columns = ["answered", "TTFT mean", "P95", "TPOT mean", "P95 ", "latency mean", "P95  ",
               "tokens/s", "goodput/s", "busy", "stops", "KV cache"]  # fmt: skip
    table = terminal.blank("", *axes, *columns, right=(*axes, *columns))
    for run in runs:
        waits = [_time(run[name][k]) if name in run else "-"
                 for name, _ in _WAITS for k in ("mean_s", "p95_s")]  # fmt: skip
        where = [axis_text(name, v) for name, v in run["axes"].items()]
        terminal.add(
            table, *where, f"{run['answered']}/{run['arrived']}", *waits,
            f"{run['tokens_per_s']:.4g}", f"{run['goodput_per_s']:.3g}",
            f"{run['utilisation']:.1%}", str(run["stops"]), _held(run),
        )  # fmt: skip
    terminal.show(table)


def _held(run: Mapping[str, Any]) -> str:
    if not run["kv_blocks"]:
        return f"{run['kv_blocks_most']} blocks"
    return f"{run['kv_blocks_most'] / run['kv_blocks']:.0%}"


def _time(seconds: float) -> str:
    return units.show(seconds, "s")


def _off(predicted: float, measured: float) -> str:
    return f"{predicted / measured - 1:+.1%}" if measured > 0 else "-"
