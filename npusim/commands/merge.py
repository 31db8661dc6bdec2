"""The command that joins results: ``npusim merge``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from npusim.commands.output import JSON, command_line, print_json


@click.command()
@click.argument("result", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path, file_okay=False),
              help="Folder for the joined results; one that has none yet.")  # fmt: skip
@click.option("--any-model", is_flag=True,
              help="Join also what different versions of the models have made.")  # fmt: skip
@JSON
def merge(result: Sequence[Path], output: Path, any_model: bool, as_json: bool) -> None:
    """Join results of sweeps, or of parts of one, into one results.parquet.

    RESULT is the folder of a sweep, finished or not, or its results.parquet. Each design is there
    once; two different answers for one design are refused. Parts of one sweep (`sweep --part`)
    become that sweep, finished if none is missing.
    """
    from npusim import terminal
    from npusim.sweeps.merge import merge as merged

    with terminal.progress("rows", quiet=as_json) as tick:
        done = merged(result, output, any_model, command_line(), tick)
    if as_json:
        print_json({**done.as_dict(), "command": command_line()})
        return
    twice = f", {terminal.many(done.duplicates, 'duplicate')} dropped" if done.duplicates else ""
    click.echo(f"{terminal.many(done.rows, 'design')}{twice}: {done.path}")
    if done.missing:
        some = ", ".join(str(number) for number in done.missing[:8])
        more = ", ..." if len(done.missing) > 8 else ""
        missing = terminal.many(len(done.missing), "block")
        click.echo(f"unfinished: {missing} missing ({some}{more}); go on with sweep --resume")
