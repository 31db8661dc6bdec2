"""The command that shows what each clock makes of time and energy: ``npusim power``."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from npusim.commands.output import JSON, LAUNCHES, UNPROFILED, command_line, print_json
from npusim.commands.sizes import quantity
from npusim.errors import InputError


@click.command()
@click.argument("workloads", nargs=-1, required=True, metavar="WORKLOAD[=COUNT]...")
@click.option("--arch", "arch_name", required=True, help="Machine: a name or a YAML file.")
@click.option("--launch", type=LAUNCHES, default="graph",
              show_default=True, help="How operations reach the device.")  # fmt: skip
@click.option("--shares", metavar="LIST",
              help="Clocks as shares of the machine's, e.g. --shares 0.5,0.75,1; by default 0.4 to "
              "1 by 0.05.")  # fmt: skip
@click.option("--latency", metavar="TIME",
              help="Choose the clocks with the least energy within this time for all workloads "
              "together (upper end of the band), e.g. --latency '3 ms'.")  # fmt: skip
@click.option("--period", metavar="TIME",
              help="Time in which all of it is asked for once: compare racing to idle with pacing, "
              "e.g. --period '20 ms'.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
              help="Change a parameter of the machine, e.g. --set 'power.sleep=20 W'; may be "
              "repeated.")  # fmt: skip
@UNPROFILED
@JSON
def power(
    workloads: Sequence[str], arch_name: str, launch: str, shares: str | None,
    latency: str | None, period: str | None, settings: Sequence[str], unprofiled: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Show time, energy and power of WORKLOADs at each clock, and which clock to choose.

    COUNT says how many steps of a workload make the whole (deepseek_ocr_decode=64). Voltage goes
    with the clock; a power limit lowers the clock further. With --latency the clock is chosen for
    all workloads together and for each of them; with --period racing to idle is put beside pacing,
    by the middle of the band. V / V0 is the voltage over that at voltage.clock.
    """
    import pandas as pd

    from npusim.clock_modes import SHARES, choose, modes, over_period, sleeping
    from npusim.load import load_workload
    from npusim.store import model_version
    from npusim.transforms import unprofiled as without_profiler

    arch = _machine(arch_name, settings)
    wanted, most = _shares(shares) or SHARES, _time(latency, "--latency")
    whole = _time(period, "--period")
    counts: dict[str, int] = {}
    tables = {}
    for text in workloads:
        name, count = _counted(text)
        loaded = load_workload(name)
        loaded = without_profiler(loaded) if unprofiled else loaded
        if loaded.name in counts:
            raise InputError("a workload is given twice", value=loaded.name)
        counts[loaded.name], tables[loaded.name] = count, modes(loaded, arch, launch, wanted)
    total = pd.concat(t[_SUMMED] * counts[m] for m, t in tables.items()).groupby(level=0).sum()
    sleep = sleeping(arch)
    content: dict[str, Any] = {
        "arch": arch.name, "launch": launch, "steps": counts, "sleep_w": sleep,
        "modes": {name: table.to_dict("records") for name, table in tables.items()},
        "chosen": {
            "together": asdict(choose(tables, counts, most, together=True)),
            "each": asdict(choose(tables, counts, most)),
        },
        "latency_s": most, "period_s": whole, "model": model_version(), "command": command_line(),
    }  # fmt: skip
    if whole is not None:
        content["period"] = _over(over_period(total, whole, sleep), wanted, whole)
    if as_json:
        print_json(content)
        return
    from npusim.tables import power as power_tables

    power_tables.shown(content)


_SUMMED = ["wall_s", "energy_j"]


def _machine(name: str, settings: Sequence[str]) -> Any:
    from npusim.arch import with_value
    from npusim.config import read_setting
    from npusim.load import load_arch
    from npusim.sweeps.space import unmodelled

    arch, seen = load_arch(name), set()
    for path, value in map(read_setting, settings):
        for error in unmodelled([path]):
            raise InputError(str(error), place="--set")
        if path in seen:
            raise InputError("a path is given twice", place="--set", value=path)
        seen.add(path)
        arch = with_value(arch, path, value)
    return arch


def _over(joules: Any, shares: Sequence[float], period: float) -> Mapping[str, Any]:
    """Return the energy of a period at each clock, racing and pacing beside the best."""
    fits = [(share, float(j)) for share, j in zip(shares, joules, strict=True) if not math.isnan(j)]
    if not fits:
        raise InputError("no clock is fast enough", place="--period", value=f"{period:g} s",
                         allowed="more than the steps take at the highest clock")  # fmt: skip
    named = {"race_to_idle": max(fits), "slow_and_steady": min(fits),
             "best": min(fits, key=lambda fit: fit[1])}  # fmt: skip
    return {name: {"share": share, "energy_j": j} for name, (share, j) in named.items()}


def _shares(text: str | None) -> tuple[float, ...]:
    if text is None:
        return ()
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        raise InputError("not a list of numbers", place="--shares", value=text,
                         allowed="e.g. 0.5,0.75,1") from None  # fmt: skip
    if len(set(found)) < len(found):
        raise InputError("a share is given twice", place="--shares", value=text)
    return found


def _time(text: str | None, option: str) -> float | None:
    above = math.ulp(0.0)
    return None if text is None else quantity(option, text, "s", above, 1e6, "above 0 s to 1e6 s")


def _counted(text: str) -> tuple[str, int]:
    """Return a workload and how many steps of it are asked for.

    Examples
    --------
    >>> _counted("deepseek_ocr_decode=64"), _counted("trace.json")
    (('deepseek_ocr_decode', 64), ('trace.json', 1))
    """
    name, equals, count = text.rpartition("=")
    if not equals or not (count.isascii() and count.isdigit()):
        return text, 1
    if len(count) > 7 or not 1 <= int(count) <= 1_000_000:
        raise InputError("out of bounds", place=name, value=count, allowed="1 to 1000000 steps")
    return name, int(count)
