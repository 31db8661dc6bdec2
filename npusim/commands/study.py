"""``npusim study``: claims of a document, put to the test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.commands.settings import read_settings


@click.command()
@click.argument("name", nargs=-1)
@click.option("--all", "every", is_flag=True, help="Run every study that ships with claims.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a parameter of the studies' machine or of the workloads first, e.g. --set "
    "'floor.matmul=3.7 us'; may be repeated. What a claim sets itself stays.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for the page, the gallery and the data. Default: results/studies; with --json "
    "nothing is written unless it is given.",
)
@click.option("--draws", type=click.IntRange(8, 4096), help="How often what is not known is drawn.")
@click.option(
    "--workers",
    type=click.IntRange(1, 1024),
    help="Processes. Default: one a core that npusim may use.",
)
@click.option("--figures/--no-figures", default=True, help="Whether to draw figures.")
@JSON
def study(
    name: Sequence[str], every: bool, settings: Sequence[str], output: Path | None,
    draws: int | None, workers: int | None, figures: bool, as_json: bool,
) -> None:  # fmt: skip
    """Run design studies: verdicts on claims, with figures and a page.

    NAME is a study that ships with claims (all are listed when none is named) or a file of yours.
    Each claim is held against replays of traces, or against what was measured: supported,
    refuted, or undecided within its band, with the reason, the assumed number that it hangs on
    most, and the value of that number that would flip the verdict.
    """
    from npusim.errors import InputError
    from npusim.studies.read import claimed, read_question

    if every and name:
        raise InputError("names and --all", value=" ".join(name), hint="give one of them")
    names = tuple(claimed()) if every else tuple(dict.fromkeys(name))
    from npusim.tables import study as study_tables

    if not names:
        questions = [read_question(one) for one in claimed()]
        if as_json:
            print_json({"studies": study_tables.listed(questions)})
        else:
            study_tables.study_list(questions)
        return
    from npusim import terminal
    from npusim.studies.decide import unused
    from npusim.studies.run import run

    questions, changes = [read_question(one) for one in names], dict(read_settings(settings))
    idle = unused(questions, changes)
    if idle:
        click.echo(f"note: changes nothing here: --set {', '.join(idle)}", err=True)
    folder = output if output is not None or as_json else Path("results") / "studies"
    with terminal.progress("studies", quiet=as_json) as tick:
        done = run(questions, changes, folder,
                   draws=draws, workers=workers, progress=tick, figures=figures,
                   command=command_line())  # fmt: skip
    if as_json:
        print_json(done.as_dict())
    else:
        study_tables.verdicts(done)
