"""The command that asks what more chips give: ``npusim scale``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from npusim.commands.output import JSON, LAUNCHES, command_line, print_json
from npusim.errors import InputError

_LISTS = {
    "tensor": "chips that share each product",
    "expert": "chips that share the experts, 1 or multiples of the tensor split",
    "pipeline": "stages that share the layers",
    "data": "copies of the model, each with sequences of its own",
    "overlap": "1, or 2: two halves take turns, collectives of one beside the other's work",
}
_MOST = 200  # plans of one command


def _lists(command: Any) -> Any:
    """Add an option for each way to split a model, a list of numbers each."""
    for name, what in reversed(_LISTS.items()):
        command = click.option(f"--{name}", default="1", show_default=True, metavar="LIST",
                               help=f"{what[0].upper()}{what[1:]}; e.g. 1,2.")(command)  # fmt: skip
    return command


@click.command()
@click.argument("model")
@click.option("--arch", "arch_name", required=True, help="One chip: a name or a YAML file.")
@click.option("--phase", type=click.Choice(["decode", "prefill"]), default="decode",
              show_default=True, help="What a step does.")  # fmt: skip
@click.option("--batch", type=click.IntRange(1, 10**6), default=1, show_default=True, metavar="B",
              help="Sequences of all chips together.")  # fmt: skip
@click.option("--context", type=click.IntRange(1, 10**9), default=1024, show_default=True,
              metavar="C", help="Tokens of each: in the cache, or of the prompt.")  # fmt: skip
@_lists
@click.option("--launch", type=LAUNCHES, default="graph",
              show_default=True, help="How operations reach the device.")  # fmt: skip
@click.option("--lowering", default="serving", show_default=True, metavar="L",
              help="How operators become kernels: a name that ships, or a file.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
              help="Change a parameter of the machine or of the workload, e.g. --set "
              "'link.bandwidth=400 GB/s' --set workload.weight_bits=8; may be "
              "repeated.")  # fmt: skip
@JSON
def scale(
    model: str, arch_name: str, phase: str, batch: int, context: int, tensor: str, expert: str,
    pipeline: str, data: str, overlap: str, launch: str, lowering: str, settings: Sequence[str],
    as_json: bool,
) -> None:  # fmt: skip
    """Show what a step of MODEL takes on more chips, and what is lost between them.

    Each combination of --tensor, --expert, --pipeline, --data and --overlap is a plan. A plan that
    the model does not have is listed with the reason.
    """
    from npusim.load import load_arch
    from npusim.scale_out import plans, scale_out

    lists = {name: _numbers(name, text) for name, text in zip(
        _LISTS, (tensor, expert, pipeline, data, overlap), strict=True)}  # fmt: skip
    wanted = plans(**lists)
    if len(wanted) > _MOST:
        raise InputError("too many plans", value=len(wanted), allowed=f"up to {_MOST}")
    arch = load_arch(arch_name)
    found = scale_out(model, arch, phase, batch, context, wanted, launch, lowering,
                      _changes(settings))  # fmt: skip
    content: dict[str, Any] = {
        "model": model, "arch": arch.name, "phase": phase, "batch": batch, "context": context,
        "launch": launch, "lowering": lowering,
        "plans": [row.as_dict() for row in found.rows],
        "impossible": [{**vars(plan), "reason": why} for plan, why in found.impossible],
        "notes": list(found.notes), "command": command_line(),
    }  # fmt: skip
    if as_json:
        print_json(content)
        return
    from npusim.tables import scale as scale_tables

    scale_tables.shown(content)


def _numbers(name: str, text: str) -> tuple[int, ...]:
    """Return the numbers of a list.

    Examples
    --------
    >>> _numbers("tensor", "1,2,8")
    (1, 2, 8)
    """
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() and len(part) < 7 for part in parts):
        raise InputError("not a list of whole numbers", place=f"--{name}", value=text,
                         allowed="e.g. 1,2,4")  # fmt: skip
    found = tuple(int(part) for part in parts)
    if len(set(found)) < len(found):
        raise InputError("a number is given twice", place=f"--{name}", value=text)
    if min(found) < 1:
        raise InputError("out of range", place=f"--{name}", value=text, allowed="from 1")
    return found


def _changes(settings: Sequence[str]) -> dict[str, float]:
    """Return the settings by path, those that nothing reads refused."""
    from npusim.config import read_setting
    from npusim.sweeps.space import unmodelled

    found: dict[str, float] = {}
    for path, value in map(read_setting, settings):
        for error in unmodelled([path]):
            raise InputError(str(error), place="--set")
        if path in found:
            raise InputError("given twice", place="--set", value=path)
        found[path] = value
    return found
