"""The commands ``npusim capture ...``: parse, call the library, print."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from npusim.capture.case import DTYPES, LAUNCHES, PHASES, Case
from npusim.commands.output import print_json

if TYPE_CHECKING:
    from npusim.capture.environment import Origin
    from npusim.capture.experiments import Outcome

_OUTPUT = click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for what is captured; earlier captures there are kept.",
)
_LICENCE = click.option(
    "--licence",
    default="unspecified",
    show_default=True,
    help="Licence under which the measurements may be passed on, for provenance.json.",
)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
_PHASE = click.option("--phase", required=True, type=click.Choice(PHASES), help="What to run.")
_BATCH = click.option("--batch", default=1, show_default=True, help="Sequences, or images.")
_CONTEXT = click.option("--context", default=0, help="Tokens a sequence (not for vision).")
_DTYPE = click.option(
    "--dtype",
    type=click.Choice(list(DTYPES)),
    default="bf16",
    show_default=True,
    help="Of weights, inputs and cache.",
)
_NAME = click.option("--name", default="", help="What to call the model in file names.")


@click.group()
def capture() -> None:
    """Make a baseline of the GPU of this machine: traces, experiments, counters.

    Needs PyTorch built for the GPU; nothing else of npusim does.
    """


@capture.command("model")
@click.argument("model")
@_PHASE
@_BATCH
@_CONTEXT
@_DTYPE
@click.option("--steps", default=3, show_default=True, help="Steps in the trace.")
@click.option(
    "--launch",
    type=click.Choice(LAUNCHES),
    default="eager",
    show_default=True,
    help="What is traced: eager steps, graph replays, or those of the compiled step.",
)
@click.option("--energy", is_flag=True, help="Also measure joules a step, from the board.")
@_NAME
@_LICENCE
@_OUTPUT
@_JSON
def model_(
    model: str,
    phase: str,
    batch: int,
    context: int,
    dtype: str,
    steps: int,
    launch: str,
    energy: bool,
    name: str,
    licence: str,
    output: Path,
    as_json: bool,
) -> None:
    """Trace steps of MODEL and measure them unprofiled, eagerly and as a graph.

    MODEL is a Hugging Face config.json, a folder that holds one, a model in the local cache
    (weights are random: none are read), or code of yours: module:function or file.py:function,
    which returns a function that runs one step.
    """
    from npusim.capture.trace import capture_model  # noqa: PLC0415

    case = Case(model, phase, batch, context, dtype, launch, steps, name)
    done = capture_model(case, output, _origin(licence), energy, _say)
    if as_json:
        print_json(asdict(done))
        return
    wall = done.wall
    click.echo(f"{case.id}: eager step {wall['median_ms']:.3f} ms, graph replay "
               + (f"{wall['graph_min_ms']:.3f} ms" if "graph_min_ms" in wall else "none")
               + (f", {done.kernels} kernels a step" if done.trace else ""))  # fmt: skip
    click.echo(f"{output}: {', '.join(done.files)}")


@capture.command("experiments")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--quick", is_flag=True, help="Few points of each.")
@click.option("--again", is_flag=True, help="Measure those that are there already, too.")
@_LICENCE
@_OUTPUT
@_JSON
def experiments_(
    names: Sequence[str], quick: bool, again: bool, licence: str, output: Path, as_json: bool
) -> None:
    """Run natural experiments: small workloads in which one effect decides.

    NAME is attention, attention_backends, collectives, energy, first_use, fused_kernels, fusion,
    graph_size, l2_residency, launch, linear_shapes, ngram, pointwise, power, precision,
    product_choice, profiler, queue_depth or sm_count; all by default.
    Those already in the folder are kept, so a run that broke off can be taken up.
    """
    from npusim.capture.experiments import capture_experiments  # noqa: PLC0415

    shown = sys.stderr.isatty() and not as_json

    def tick(name: str, done: int, planned: int) -> None:
        end = "\n" if done == planned else ""
        click.echo(f"\r{name}: {done} of {planned} points{end}", err=True, nl=False)

    def told(name: str, outcome: Outcome) -> None:
        if not as_json:
            click.echo(f"{name}: {_went(outcome)}")

    done = capture_experiments(
        output, names, quick, again, _origin(licence), tick if shown else None, told
    )
    if as_json:
        print_json({"folder": str(output), "experiments": {n: asdict(o) for n, o in done.items()}})


@capture.command("counters")
@click.argument("model")
@_PHASE
@_BATCH
@_CONTEXT
@_DTYPE
@click.option(
    "--metrics",
    type=click.Choice(["counters", "dram"]),
    default="counters",
    show_default=True,
    help="Whole sections (many passes, warm), or few counters with honest DRAM bytes.",
)
@click.option("--kernels", type=int, help="Profile no more than the first so many kernels.")
@click.option("--ncu", help="Path of ncu, where it is not on the PATH.")
@_NAME
@_LICENCE
@_OUTPUT
@_JSON
def counters_(
    model: str,
    phase: str,
    batch: int,
    context: int,
    dtype: str,
    metrics: str,
    kernels: int | None,
    ncu: str | None,
    name: str,
    licence: str,
    output: Path,
    as_json: bool,
) -> None:
    """Profile the kernels of one eager step of MODEL with NVIDIA Nsight Compute (ncu)."""
    from npusim.capture.counters import capture_counters  # noqa: PLC0415

    case = Case(model, phase, batch, context, dtype, name=name)
    done = capture_counters(case, output, _origin(licence), metrics, kernels, ncu, _say)
    if as_json:
        print_json(asdict(done))
    else:
        click.echo(f"{output}: {', '.join(done.files)}, {done.kernels} kernels")


def _went(outcome: Outcome) -> str:
    if outcome.status == "kept":
        return "kept, it was there already (--again measures it anew)"
    if outcome.status == "skipped":
        return f"skipped: {outcome.reason}"
    text = f"{outcome.points} rows in {outcome.seconds:.0f} s"
    if outcome.left_out:
        text += f", {len(outcome.left_out)} points left out: {outcome.left_out[0]['reason']}"
    return text


def _origin(licence: str) -> Origin:
    from npusim.capture.environment import UNSPECIFIED, Origin  # noqa: PLC0415

    if licence == UNSPECIFIED:
        _say("note: the licence of these measurements is recorded as unspecified; see --licence")
    # What is passed on names no folders: they hold names of people and projects.
    words = [Path(word).name or word for word in sys.argv[1:]]
    return Origin("npusim " + shlex.join(words), licence)


def _say(text: str) -> None:
    click.echo(text, err=True)
