"""The commands that make workloads: ``npusim template`` and ``npusim rescale``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim import catalog
from npusim.commands.output import JSON, command_line, print_json
from npusim.commands.sizes import pixels
from npusim.errors import InputError

if TYPE_CHECKING:
    from npusim.workload import Workload


@click.command()
@click.argument("workload")
@click.option("--batch", type=int, metavar="B", help="Sequences of a step.")
@click.option("--context", type=int, metavar="C", help="Keys of every sequence, in each step.")
@click.option(
    "--against",
    multiple=True,
    metavar="TRACE",
    help="The same program traced at another batch or context (workload or trace): shapes are "
    "bound by comparing the two; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the workload there: NAME.parquet.",
)
@JSON
def rescale(
    workload: str, batch: int | None, context: int | None, against: Sequence[str], output: Path,
    as_json: bool,
) -> None:  # fmt: skip
    """Write WORKLOAD, traced decode steps, at another batch or context.

    Shapes follow rules of the operators, or what further traces say. Each operation is marked:
    measured (it is as traced), rescaled (by a law that is known, its kernel too) or extrapolated
    (beyond the traces, or the library may take another kernel). Measured times stay what they were:
    replay it.
    """
    from npusim.load import load_workload
    from npusim.rescaling import rescale as rescaled
    from npusim.transforms import present

    _check_output(output, [workload, *against])
    traced, others = load_workload(workload), [load_workload(name) for name in against]
    made = rescaled(traced, batch=batch, context=context, against=others).renamed(output.stem)
    content = {name: present(made, f"workload.{name}") for name in ("batch", "context")}
    _save(made, output, content, as_json)


_TEMPLATE = f"""Make a workload from the hyperparameters of MODEL: no trace is needed.

MODEL is a name that ships ({", ".join(catalog.names("models"))}), a YAML file like those, or a
Hugging Face config.json. Its kernels are those that a framework would launch: --lowering is one of
{", ".join(catalog.names("lowerings"))}, or a file. Replay them on any machine.
"""


@click.command(help=_TEMPLATE)
@click.argument("model")
@click.option(
    "--phase",
    required=True,
    type=click.Choice(["prefill", "decode", "vision", "page"]),
    help="What a step does: a prompt enters, one token a sequence is made, images become tokens, "
    "or all of it for a page.",
)
@click.option(
    "--batch",
    type=int,
    default=1,
    show_default=True,
    metavar="B",
    help="Sequences of a step, pages read together.",
)
@click.option(
    "--context",
    type=int,
    metavar="C",
    help="Tokens of each sequence: of the prompt for prefill, in the cache before for decode. By "
    "default those of the prompt of the model's page, else 1024.",
)
@click.option(
    "--new", type=int, metavar="N", help="Tokens that enter in a chunk of a prefill, after C."
)
@click.option(
    "--steps",
    type=int,
    default=1,
    show_default=True,
    metavar="S",
    help="Decode steps, one after the other.",
)
@click.option(
    "--draft",
    type=int,
    default=0,
    show_default=True,
    metavar="K",
    help="Drafted tokens that a decode step verifies beside its own.",
)
@click.option(
    "--acceptance",
    type=float,
    metavar="A",
    help="Probability that the model agrees with a drafted token; with --draft.",
)
@click.option("--image", metavar="WxH", help="Pixels of each image of a vision step.")
@click.option(
    "--images", type=int, default=1, show_default=True, metavar="I", help="Images of a vision step."
)
@click.option(
    "--lowering",
    default="hf-eager",
    show_default=True,
    metavar="L",
    help="How operators become kernels: a name that ships, or a file.",
)
@click.option(
    "--logits",
    type=click.Choice(["last", "all"]),
    default="last",
    show_default=True,
    help="Tokens of a prompt that the vocabulary projection is computed of.",
)
@click.option(
    "--experts-hit",
    type=float,
    metavar="H",
    help="Experts that a step hits in a layer; by default as many as are expected.",
)
@click.option(
    "--tensor",
    type=int,
    default=1,
    show_default=True,
    metavar="T",
    help="Chips that share each product; the workload is that of one of them.",
)
@click.option(
    "--expert",
    type=int,
    default=1,
    show_default=True,
    metavar="E",
    help="Chips that share the experts: 1, or a multiple of T.",
)
@click.option(
    "--pipeline",
    type=int,
    default=1,
    show_default=True,
    metavar="P",
    help="Stages that share the layers.",
)
@click.option("--stage", type=int, metavar="S", help="Which stage, from 0; with --pipeline.")
@click.option(
    "--overlap",
    type=int,
    default=1,
    show_default=True,
    metavar="N",
    help="2: two halves of the step take turns, collectives of one beside the other's work.",
)
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="PATH=VALUE",
    help="Change a hyperparameter, e.g. --set decoder.attention.kv_heads=1; may be repeated.",
)
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write the workload there: NAME.parquet.",
)
@JSON
def template(
    model: str, phase: str, batch: int, context: int | None, new: int | None, steps: int,
    draft: int, acceptance: float | None, image: str | None, images: int, lowering: str,
    logits: str, experts_hit: float | None, tensor: int, expert: int, pipeline: int,
    stage: int | None, overlap: int, settings: Sequence[str], output: Path, as_json: bool,
) -> None:  # fmt: skip
    """Write a workload made of hyperparameters."""
    from npusim.templates import template as templated

    _check_output(output, [model])
    made = templated(
        model, phase, batch=batch, context=context, new=new, steps=steps, draft=draft,
        acceptance=acceptance, lowering=lowering, logits=logits, experts_hit=experts_hit,
        image=None if image is None else pixels(image), images=images, tensor=tensor,
        expert=expert, pipeline=pipeline, stage=stage, overlap=overlap,
        settings=dict(map(_setting, settings)),
    ).renamed(output.stem)  # fmt: skip
    told = ("model", "parameters", "lowering", "batch", "context", "new", "tokens")
    about = {name: made.meta.get(name) for name in told}
    _save(made, output, about, as_json)


def _setting(text: str) -> tuple[str, Any]:
    """Return path and value of a hyperparameter, read as YAML reads it."""
    from npusim.yaml_tree import read_scalar

    path, equals, value = text.partition("=")
    if not equals or not path.strip():
        raise InputError("not a setting", place="--set", value=text, allowed="PATH=VALUE")
    return path.strip(), read_scalar(value.strip())


def _check_output(output: Path, sources: Sequence[str]) -> None:
    """Refuse a name that is none of a workload, or that of what the workload is made of."""
    if output.suffix != ".parquet":
        raise InputError("not a name for a workload", place="--output", value=str(output),
                         allowed="NAME.parquet")  # fmt: skip
    if any(output.exists() and Path(s).exists() and output.samefile(s) for s in sources):
        raise InputError("would be replaced by what is made of it", file=output, place="--output",
                         hint="write to another file")  # fmt: skip


def _save(made: Workload, output: Path, content: dict[str, Any], as_json: bool) -> None:
    """Write a workload and say what its operations are."""
    from npusim.inspection import inspection
    from npusim.workload_file import save_workload

    save_workload(made, output)
    found = inspection(made)
    if as_json:
        print_json({"out": str(output), "operations": len(made), **content,
                    "origins": found["origins"], "notes": found["notes"],
                    "command": command_line()})  # fmt: skip
        return
    from npusim.tables import workload as workload_tables

    about = ", ".join(f"{name} {value:g}" if isinstance(value, float) else f"{name} {value}"
                      for name, value in content.items() if value is not None)  # fmt: skip
    click.echo(f"{output}: {len(made)} operations, {about}")
    for note in made.meta.get("notes", ()):
        click.echo(f"note: {note}")
    workload_tables.origins(found["origins"])
