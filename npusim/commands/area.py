"""The command that shows what a machine takes in silicon and money: ``npusim area``."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.errors import InputError, InputErrors


@click.command()
@click.argument("archs", nargs=-1, required=True, metavar="ARCH...")
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
              help="Change a parameter of the machines, e.g. --set technology.node=n3; may be "
              "repeated.")  # fmt: skip
@JSON
def area(archs: tuple[str, ...], settings: tuple[str, ...], as_json: bool) -> None:
    """Show the area of each block of ARCH, and what its die, memory and package cost.

    A machine has an area if it says what it is made of (technology.node, technology.memory,
    units.registers, memories.l1.capacity). If none of those asked does, that is an error. Bands
    are those of the constants in archs/technology, each moved alone, added in quadrature.
    """
    from npusim.arch import with_value
    from npusim.load import load_arch
    from npusim.silicon import silicon
    from npusim.store import model_version

    changes = dict(_change(text) for text in settings)
    if len(changes) < len(settings):
        raise InputError("a path is given twice", place="--set", value=", ".join(settings))
    found = []
    for name in archs:
        arch = load_arch(name)
        for path, value in changes.items():
            arch = with_value(arch, path, value)
        found.append(silicon(arch))
    if all(one.missing for one in found):
        raise InputErrors(
            InputError(f"no area: it does not say {', '.join(one.missing)}", file=one.arch)
            for one in found
        )
    if as_json:
        machines: list[dict[str, Any]] = [{**asdict(one), "error": one.error} for one in found]
        print_json({"machines": machines, "model": model_version(), "command": command_line()})
        return
    from npusim.tables import area as area_tables

    for one in found:
        area_tables.shown(one)


def _change(text: str) -> tuple[str, float]:
    """Return a change of a machine that its silicon depends on."""
    from npusim.config import read_setting
    from npusim.silicon import READ

    path, value = read_setting(text)
    if path not in READ:
        raise InputError("changes neither area nor cost", place="--set", value=path)
    return path, value
