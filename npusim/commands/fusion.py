"""The command that shows what a fusion engine makes of a workload: ``npusim fuse``."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.commands.sizes import quantity
from npusim.errors import InputError


@click.command()
@click.argument("workload")
@click.option("--chain", default=16, show_default=True, metavar="N",
              help="Longest chain of operations that runs as one.")  # fmt: skip
@click.option("--buffer", metavar="SIZE",
              help="Bytes of a row that are held at once, e.g. --buffer '128 KiB'; by default "
              "any.")  # fmt: skip
@click.option("--products", is_flag=True,
              help="Matrix products hand their results to the engine.")  # fmt: skip
@click.option("--recompute", default=0, show_default=True, metavar="N",
              type=click.IntRange(0, 256),
              help="Most operations that a chain does again though others do them.")  # fmt: skip
@click.option("--side-by-side", default=0, show_default=True, metavar="N",
              type=click.IntRange(0, 2),
              help="Neighbours that run as one: 0 none, 1 with a common input, 2 any of one "
              "iteration space.")  # fmt: skip
@JSON
def fuse(
    workload: str, chain: int, buffer: str | None, products: bool, recompute: int,
    side_by_side: int, as_json: bool,
) -> None:  # fmt: skip
    """Show which chains of operations of WORKLOAD a fusion engine runs as one.

    These are the chains that `npusim replay` and `npusim sweep` run on a machine with fusion.chain,
    fusion.buffer, .products, .recompute and .side_by_side, in a graph or a hardware queue. Who
    reads what is told by sizes, since traces hold no addresses.
    """
    from npusim.fusion.chains import Limits
    from npusim.fusion.summary import summary
    from npusim.load import load_workload

    if not 2 <= chain <= 256:
        raise InputError("out of bounds", place="--chain", value=chain, allowed="2 to 256")
    size = (
        math.inf
        if buffer is None
        else quantity("--buffer", buffer, "B", most=1e12, allowed="0 B to 1 TB")
    )
    limits = Limits(chain, size, products, recompute, side_by_side)
    loaded = load_workload(workload)
    if not loaded.bytes_moved.any():
        raise InputError("nothing is known of what its operations read and write",
                         file=loaded.name, hint="import a trace with shapes")  # fmt: skip
    found = summary(loaded, limits)
    content: dict[str, Any] = {
        "workload": loaded.name, "chain": chain, "products": products,
        "recompute": recompute, "side_by_side": side_by_side,
        "buffer": None if buffer is None else limits.buffer, **asdict(found),
        "command": command_line(),
    }  # fmt: skip
    if as_json:
        print_json(content)
        return
    from npusim.tables import fusion as fusion_tables

    fusion_tables.shown(content)
