"""The commands that search a space and ask what matters in it: ``npusim search, sensitivity``."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from npusim.commands.folder import used
from npusim.commands.output import JSON, LAUNCHES, command_line, print_json
from npusim.commands.settings import read_settings
from npusim.errors import InputError

_WORKLOADS = click.option("--workload", "-w", "workloads", multiple=True, metavar="WORKLOAD",
                          help="Workload instead of those the file names; may be "
                          "repeated.")  # fmt: skip
_SETTINGS = click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
                         help="Change a parameter of the machine or of the workloads "
                         "first.")  # fmt: skip
_SEED = click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True,
                     help="Equal seeds give equal answers.")  # fmt: skip
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("arch_or_study")
@click.option("--objective", "objectives", multiple=True, metavar="NAME",
              help="Axis or figure of merit to make small; may be repeated. Default: time, and the "
              "costs that the file names.")  # fmt: skip
@click.option("--population", type=click.IntRange(4, 100_000), default=48, show_default=True,
              help="Designs of a generation.")  # fmt: skip
@click.option("--generations", type=click.IntRange(1, 100_000), default=25, show_default=True,
              help="Generations.")  # fmt: skip
@_SEED
@click.option("--refine", is_flag=True,
              help="Then walk from the front to neighbours until it stands still.")  # fmt: skip
@click.option("--halvings", type=click.IntRange(0, 20), default=0, show_default=True, metavar="N",
              help="With --refine: how often to halve the steps of axes that may be any "
              "number.")  # fmt: skip
@click.option("--budget", type=click.IntRange(1, 10**7), default=2000, show_default=True,
              metavar="N", help="With --refine: designs more at most.")  # fmt: skip
@_WORKLOADS
@click.option("--launch", type=LAUNCHES, multiple=True,
              help="Launch mode instead of those the file names; may be repeated.")  # fmt: skip
@_SETTINGS
@click.option("-o", "--output", type=_FOLDER,
              help="Folder for results. Default: results/NAME_search.")  # fmt: skip
@JSON
def search(
    arch_or_study: str, objectives: Sequence[str], population: int, generations: int, seed: int,
    refine: bool, halvings: int, budget: int, workloads: Sequence[str], launch: Sequence[str],
    settings: Sequence[str], output: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Search the space of ARCH_OR_STUDY for designs that no other beats.

    For spaces too large to sweep: NSGA-II looks at population x generations designs of the sweep
    block, within its constraints. Needs pymoo: pip install "npusim[search]".

    Writes front.csv, designs.parquet (every design evaluated) and summary.json.
    """
    from npusim import search_output, terminal
    from npusim.job import read_job
    from npusim.search.knees import knees
    from npusim.search.run import Effort, caveats, size
    from npusim.search.run import search as run
    from npusim.store import model_version

    if halvings and not refine:
        raise InputError("halves the steps of --refine", place="--halvings", value=halvings,
                         hint="add --refine")  # fmt: skip
    asked = read_job(arch_or_study, workloads, launch, dict(read_settings(settings)))
    folder = output or Path("results") / f"{asked.name}_search"
    for error in asked.refused:
        click.echo(f"refused axis: {error}; searched without it", err=True)
    effort = Effort(population, generations, seed, budget if refine else 0, halvings)
    with used(folder), terminal.progress("searching", quiet=as_json) as tick:
        found = run(asked, objectives, effort, tick)
    bends = knees(found.front, found.objectives) if len(found.objectives) == 2 else None
    content: dict[str, Any] = {
        "name": asked.name, "title": asked.title, "workloads": [w.name for w in asked.workloads],
        "counts": list(asked.counts), "launch": list(asked.space.launch),
        "axes": list(asked.space.axes), "objectives": list(found.objectives),
        **asdict(effort), "refine": refine, "space": size(asked),
        "evaluations": found.evaluations, "allowed": int(found.table["allowed"].sum()),
        "constraints": [_bound(one) for one in asked.constraints],
        "front": search_output.plain(found.front),
        "knees": [] if bends is None else search_output.plain(bends),
        "notes": caveats(asked, {"evaluations": found.evaluations}), "folder": str(folder),
        "files": list(search_output.SEARCH_FILES), "model": model_version(),
        "command": command_line(),
    }  # fmt: skip
    search_output.save_search(found, content, folder)
    if as_json:
        print_json(content)
        return
    from npusim.tables import search as search_tables

    search_tables.searched(content, str(folder))


@click.command()
@click.argument("arch_or_study")
@click.option("--objective", default="wall_s", show_default=True, metavar="NAME",
              help="Figure of a design, e.g. energy_j or s_per_token.")  # fmt: skip
@click.option("--samples", type=click.IntRange(8, 2**20), default=512, show_default=True,
              metavar="N", help="Base samples of the Sobol indices, a power of two; axes + 2 times "
              "as many designs are evaluated.")  # fmt: skip
@_SEED
@click.option("--no-sobol", is_flag=True, help="Each axis alone, no Sobol indices.")
@_WORKLOADS
@click.option("--launch", type=LAUNCHES,
              help="Launch mode. Default: the last that the file names.")  # fmt: skip
@_SETTINGS
@click.option("-o", "--output", type=_FOLDER,
              help="Folder for results. Default: results/NAME_sensitivity.")  # fmt: skip
@JSON
def sensitivity(
    arch_or_study: str, objective: str, samples: int, seed: int, no_sobol: bool,
    workloads: Sequence[str], launch: str | None, settings: Sequence[str], output: Path | None,
    as_json: bool,
) -> None:  # fmt: skip
    """Show which axes of ARCH_OR_STUDY a figure hangs on.

    Moves each axis alone from its lowest to its highest value (a tornado), and splits the variance
    over the ranges of all axes of the machine into Sobol indices, which need SALib: pip install
    "npusim[search]".

    Writes sensitivity.csv, tornado.png, tornado.pdf and summary.json.
    """
    from npusim import search_output, terminal
    from npusim.job import read_job
    from npusim.search.run import caveats
    from npusim.search.run import sensitivity as run
    from npusim.store import model_version

    asked = read_job(
        arch_or_study, workloads, [launch] if launch else [], dict(read_settings(settings))
    )
    folder = output or Path("results") / f"{asked.name}_sensitivity"
    for error in asked.refused:
        click.echo(f"refused axis: {error}; left out", err=True)
    samples = 0 if no_sobol else samples
    with used(folder), terminal.progress("designs", quiet=as_json) as tick:
        found = run(asked, objective, samples, seed, tick)
    whole = " + ".join(f"{n:g} x {w.name}" if n != 1 else w.name
                       for w, n in zip(asked.workloads, asked.counts, strict=True))  # fmt: skip
    content: dict[str, Any] = {
        "name": asked.name, "title": f"{objective} of {whole} on {asked.arch.name}, {found.launch} "
        "launch", "workloads": [w.name for w in asked.workloads], "counts": list(asked.counts),
        "launch": found.launch, "objective": objective, "nominal": found.nominal,
        "samples": samples, "seed": seed, "evaluations": found.evaluations,
        "axes": search_output.plain(search_output.joined(found)), "notes": caveats(asked),
        "folder": str(folder), "files": list(search_output.FELT_FILES), "model": model_version(),
        "command": command_line(),
    }  # fmt: skip
    search_output.save_sensitivity(found, content, folder)
    if as_json:
        print_json(content)
        return
    from npusim.tables import search as search_tables

    search_tables.felt(content, str(folder))


def _bound(one: Any) -> dict[str, Any]:
    return {k: v for k, v in asdict(one).items() if v is not None}
