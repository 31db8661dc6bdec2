"""The command that shows how a workload reuses its data: ``npusim reuse``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.commands.sizes import quantity

_CAPACITIES = (
    "8 MB",
    "16 MB",
    "32 MB",
    "64 MB",
    "128 MB",
    "256 MB",
    "512 MB",
    "1024 MB",
    "2048 MB",
)
_EXPERTS = (
    "experts are drawn anew in each step in what is looked up; the simulation runs one step again"
)


@click.command()
@click.argument("workload")
@click.option("--capacity", "capacities", multiple=True, metavar="SIZE",
              help="Cache to look up, e.g. --capacity '40 MiB'; may be repeated. "
              "By default 8 MB to 2 GB.")  # fmt: skip
@click.option("--simulate", is_flag=True,
              help="Walk over one step in an exactly simulated cache of each capacity too "
              "(needs pip install 'npusim[cache]').")  # fmt: skip
@click.option("--line", default="4 KiB", show_default=True, metavar="SIZE",
              help="Line of the simulated cache.")  # fmt: skip
@click.option("--ways", default=0, show_default=True, metavar="N",
              help="Its associativity; 0 is fully associative.")  # fmt: skip
@click.option("--policy", type=click.Choice(["lru", "random", "srrip"]), default="lru",
              show_default=True, help="What it evicts.")  # fmt: skip
@click.option("--victim", default="0 B", show_default=True, metavar="SIZE",
              help="Victim cache beside it.")  # fmt: skip
@JSON
def reuse(
    workload: str, capacities: Sequence[str], simulate: bool, line: str, ways: int, policy: str,
    victim: str, as_json: bool,
) -> None:  # fmt: skip
    """Show what of a step of WORKLOAD a cache of any size would miss, by class of data.

    Missed is what DRAM must read and write: data whose window (the bytes touched since their last
    use, their own included) does not fit into a fully associative LRU cache. Each step is taken to
    repeat itself.
    """
    from npusim.load import load_workload
    from npusim.locality import locality

    sizes = [_size("--capacity", text, 1.0) for text in capacities or _CAPACITIES]
    loaded = load_workload(workload)
    found = locality(loaded, sizes)
    content: dict[str, Any] = {
        "workload": loaded.name,
        "capacity": sizes,
        "moved": dict(found.moved),
        "missed": {name: missed.tolist() for name, missed in found.missed.items()},
        "simulated": [],
        "notes": [_EXPERTS] if (loaded["groups"] > 1).any() else [],
        "command": command_line(),
    }
    if simulate:
        shape = _size("--line", line, 1.0), ways, policy, _size("--victim", victim)
        content["simulated"] = _simulated(loaded, sizes, *shape)
    if as_json:
        print_json(content)
        return
    from npusim.tables import locality as locality_tables

    locality_tables.shown(content)


def _size(option: str, text: str, least: float = 0.0) -> float:
    return quantity(option, text, "B", least, 1e15, "up to 1 PB")


def _simulated(
    workload: Any, sizes: Sequence[float], line: float, ways: int, policy: Any, victim: float
) -> list[dict[str, Any]]:
    """Return what exactly simulated caches do; capacities are rounded down to whole sets."""
    from npusim.cache import Cache
    from npusim.locality import simulated

    rows = []
    for size in sizes:
        unit = int(line) * max(ways, 1)
        cache = Cache(capacity=max(int(size) // unit, 1) * unit, line=int(line), ways=ways,
                      policy=policy, hashed=ways > 0,
                      victim=int(victim // line * line))  # fmt: skip
        s = simulated(workload, cache)
        rows.append({"capacity": cache.capacity, "lines": s.accesses, "hit_share": s.hits,
                     "by_class": dict(s.hit_share), "profiled": s.profiled})  # fmt: skip
    return rows
