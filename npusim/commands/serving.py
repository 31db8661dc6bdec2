"""The command that serves requests on engines: ``npusim serve-sim``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.errors import InputError


@click.command("serve-sim")
@click.argument("study")
@click.option("-o", "--output", type=click.Path(path_type=Path, file_okay=False),
              help="Write summary.json, requests.parquet (one row a request) and figures "
              "there.")  # fmt: skip
@click.option("--set", "settings", multiple=True, metavar="PATH=VALUE",
              help="Change a parameter of the machines, e.g. --set 'memories.dram.bandwidth=1.5 "
              "TB/s'; may be repeated.")  # fmt: skip
@click.option("--band/--no-band", default=True, show_default=True,
              help="Serve again with all step times at either end of their band.")  # fmt: skip
@click.option("--figures/--no-figures", default=True, show_default=True,
              help="Draw figures beside what is written.")  # fmt: skip
@JSON
def serve_sim(
    study: str, output: Path | None, settings: Sequence[str], band: bool, figures: bool,
    as_json: bool,
) -> None:  # fmt: skip
    """Serve the requests of STUDY: continuous batching on one or several engines.

    STUDY is a YAML file with a serving: block, or the name of one that ships. Step times come from
    replays of the model's template on the machine. Prints time to the first token, time per output
    token and latency with percentiles, throughput, goodput within the study's limits, and how full
    the KV cache was; beside a request log with times of tokens, how far each is off.
    """
    from npusim import catalog, serving_output, terminal
    from npusim.atomic import check_folder
    from npusim.config import read_setting
    from npusim.serving_block import OF_STEPS, read_serving, with_axis
    from npusim.serving_study import notes, run_study, told
    from npusim.transforms import TRANSFORMABLE

    asked = read_serving(catalog.find("serving", study))
    for text in settings:
        path, value = read_setting(text)
        if path in asked.axes:
            raise InputError("is an axis of the study", place="--set", value=path)
        if path in TRANSFORMABLE and path not in OF_STEPS:
            raise InputError("cannot be changed for every step of an engine", place="--set",
                             value=path, allowed=", ".join(OF_STEPS))  # fmt: skip
        asked = replace(asked, block=with_axis(asked.block, path, value))
    if output is not None:
        check_folder(output)
    with terminal.progress("step times", quiet=as_json) as tick:
        runs = run_study(asked, band, _told(tick))
    content: dict[str, Any] = {
        "study": asked.file.stem, "title": asked.title, "question": asked.question,
        "source": asked.source, "runs": [told(run) for run in runs], "notes": notes(asked, runs),
        "command": command_line(),
    }  # fmt: skip
    files: list[str] = []
    if output is not None:
        files = serving_output.save_runs(runs, content, output, figures)
    if as_json:
        print_json(content)
        return
    from npusim.tables import serving as serving_tables

    serving_tables.shown(content, output, files)


def _told(tick: Callable[[int, int], None] | None) -> Callable[[int, int, float], None] | None:
    """Return what tells a progress bar of runs, in thousandths of them."""
    if tick is None:
        return None
    return lambda run, runs, share: tick(round(1000 * (run + share)), 1000 * runs)
