"""The command that evaluates designs: ``npusim sweep``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from npusim.commands.folder import used
from npusim.commands.output import JSON, LAUNCHES, UNPROFILED, command_line, print_json
from npusim.commands.settings import read_settings
from npusim.errors import InputError

if TYPE_CHECKING:
    from npusim.axes import Samples

_SPACE = (
    click.option("--workload", "-w", "workloads", multiple=True,
                 help="Workload to sweep instead of those the file names; may be repeated."),
    click.option("--launch", type=LAUNCHES, multiple=True,
                 help="Launch mode instead of those the file names; may be repeated."),
    click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
                 help="Change a parameter of the machines or of the workloads before sweeping."),
    click.option("--beside", multiple=True, metavar="ARCH",
                 help="Sweep this machine over the same axes, too; may be repeated."),
    click.option("--samples", type=click.IntRange(1), metavar="N",
                 help="Draw N designs instead of the full grid; ranges anywhere between their "
                 "ends."),
    click.option("--method", type=click.Choice(["sobol", "lhs", "random"]),
                 help="How they are drawn.  [default: sobol]"),
    click.option("--seed", type=click.IntRange(0), metavar="S",
                 help="Seed of the draw.  [default: 0]"),
)  # fmt: skip
_RUN = (
    click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
                 help="Folder for results and figures. Default: results/NAME."),
    click.option("--engine", default="local", show_default=True, metavar="ENGINE",
                 help="local: processes of this machine; dask://HOST:PORT: a Dask cluster."),
    click.option("--workers", type=click.IntRange(1), metavar="N",
                 help="Processes of the local engine. Default: one a core; 1 for small sweeps."),
    click.option("--resume", is_flag=True, help="Go on with the sweep that is in the folder."),
    click.option("--part", metavar="I/N",
                 help="Evaluate the blocks of one of N machines; join them by npusim merge."),
    click.option("--bands", is_flag=True,
                 help="Keep on the Pareto front every design that is not surely beaten."),
    click.option("--figures/--no-figures", default=True, show_default=True, help="Draw figures."),
)  # fmt: skip


@click.command()
@click.argument("arch_or_study")
def sweep(
    arch_or_study: str,
    workloads: Sequence[str],
    launch: Sequence[str],
    settings: Sequence[str],
    beside: Sequence[str],
    samples: int | None,
    method: str | None,
    seed: int | None,
    output: Path | None,
    engine: str,
    workers: int | None,
    resume: bool,
    part: str | None,
    bands: bool,
    figures: bool,
    unprofiled: bool,
    as_json: bool,
) -> None:
    """Evaluate every design of the sweep block of ARCH_OR_STUDY.

    ARCH_OR_STUDY is a file, or the name of a machine or study that ships (decode_npu, bandwidth).
    Several workloads are summed, each as often as the file says, or once with --workload. Axes may
    change the workloads too: workload.weight_bits, workload.context and so on.

    Prints the best design beside the baseline, and writes results.parquet (one row a design; a
    folder of files above a million), pareto.csv, comparison.csv (beside measured machines),
    summary.json and figures. Blocks that are done are kept: Ctrl-C or a crash loses none of them,
    and --resume goes on.
    """
    from npusim import job, outcome, terminal
    from npusim.tables import results as tables

    if part == "":
        raise InputError("empty", place="--part", allowed="I/N, e.g. 2/3")
    changes = dict(read_settings(settings))
    drawn = _samples(samples, method, seed)
    asked = job.read_job(arch_or_study, workloads, launch, changes, unprofiled, beside, drawn)
    folder = output or Path("results") / asked.name
    for error in asked.refused:
        click.echo(f"refused axis: {error}; swept without it", err=True)
    how = outcome.How(folder, engine, workers, resume, part or "", bands)
    with used(folder), terminal.progress("designs", quiet=as_json, rate=True) as tick:
        done = outcome.run_job(asked, command_line(), tick, how)
    outcome.save_outcome(done, folder, figures)
    if as_json:
        print_json(done.summary)
    else:
        tables.swept(done, folder)


for option in (*_SPACE, *_RUN, UNPROFILED, JSON):  # of a command they follow each other
    sweep = option(sweep)


def _samples(count: int | None, method: str | None, seed: int | None) -> Samples | None:
    """Return what was asked to be drawn."""
    from npusim.axes import Samples

    if count is None:
        if method is not None or seed is not None:
            raise InputError("says how to draw, but not how many",
                             place="--method" if method is not None else "--seed",
                             hint="give --samples N")  # fmt: skip
        return None
    return Samples(count, method or "sobol", seed or 0)
