"""The command that says whether a serving configuration fits: ``npusim memory``."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from npusim.commands.output import JSON, command_line, print_json
from npusim.commands.sizes import pixels, quantity
from npusim.errors import InputError

if TYPE_CHECKING:
    from npusim.memory_plan import MemoryPlan


@click.command()
@click.argument("model")
@click.option("--arch", "arch_name", help="Machine: a name or a YAML file.")
@click.option("--memory", "capacity", metavar="SIZE",
              help="Memory of the chip, e.g. '25.25 GB': in place of --arch, or of the memory of "
              "that machine.")  # fmt: skip
@click.option("--framework", default="vllm", show_default=True,
              help="Whose way to count: vllm, vllm-0.19 or fastdeploy.")  # fmt: skip
@click.option("--max-model-len", type=int, default=16384, show_default=True,
              help="Tokens of the longest sequence, prompt and answer.")  # fmt: skip
@click.option("--max-num-seqs", type=int, default=256, show_default=True,
              help="Sequences that decode together at most.")  # fmt: skip
@click.option("--max-num-batched-tokens", type=int,
              help="Tokens that a step takes at most.  [default: --max-model-len, up to 8192 with "
              "chunked prefill]")  # fmt: skip
@click.option("--gpu-memory-utilization", type=float, default=0.9, show_default=True,
              help="Share of the memory that the engine takes.")  # fmt: skip
@click.option("--block-size", type=int,
              help="Tokens of a block of the cache.  [default: the framework's]")  # fmt: skip
@click.option(
    "--kv-bits", type=float, help="Bits of a number of the cache.  [default: the model's]"
)
@click.option("--weight-bits", type=float,
              help="Bits of a weight of the decoder's layers.  [default: the model's]")  # fmt: skip
@click.option("--tensor", type=int, default=1, show_default=True,
              help="Chips that the model is split over.")  # fmt: skip
@click.option("--chunked-prefill/--no-chunked-prefill", default=True, show_default=True,
              help="Whether a prompt may enter in parts.")  # fmt: skip
@click.option("--image", metavar="WxH",
              help="Largest image [pixels].  [default: what the model takes at most]")  # fmt: skip
@click.option("--images", type=int,
              help="Images that become tokens at once.  [default: as many as have room in a "
              "step]")  # fmt: skip
@click.option("--typical", type=int, metavar="TOKENS",
              help="Tokens of a usual sequence, prompt and answer.  [default: a page of the "
              "model]")  # fmt: skip
@JSON
def memory(
    model: str, arch_name: str | None, capacity: str | None, framework: str, max_model_len: int,
    max_num_seqs: int, max_num_batched_tokens: int | None, gpu_memory_utilization: float,
    block_size: int | None, kv_bits: float | None, weight_bits: float | None, tensor: int,
    chunked_prefill: bool, image: str | None, images: int | None,
    typical: int | None, as_json: bool,
) -> None:  # fmt: skip
    """Show whether a serving configuration of MODEL fits, what takes memory, and what to change.

    MODEL is a name that ships, a YAML file like those, or a Hugging Face config.json. A
    configuration fits when weights, the peak of a step, the runtime and one sequence of the
    greatest length have room in the share of the memory; what is left is the pool of the KV cache,
    in which sequences wait for each other. One that does not fit is an answer, too: exit status 0,
    and `fits` is false in JSON.
    """
    from npusim.memory_plan import memory_plan

    size = None if capacity is None else quantity("--memory", capacity, "B", -math.inf)
    machine: Any = size
    if arch_name is not None:
        from npusim.arch import with_value
        from npusim.load import load_arch

        machine = load_arch(arch_name)
        if size is not None:
            machine = with_value(machine, "memories.dram.capacity", size)
    if machine is None:
        raise InputError("is needed", place="--arch", hint="or --memory '24 GB'")
    plan = memory_plan(
        model, machine, max_model_len, max_num_seqs, max_num_batched_tokens,
        gpu_memory_utilization, framework=framework, block_tokens=block_size, kv_bits=kv_bits,
        weight_bits=weight_bits, tensor=tensor, chunked_prefill=chunked_prefill,
        image=None if image is None else pixels(image), images=images, longest=_longest(model),
    )  # fmt: skip
    content = _content(plan, arch_name, typical)
    if as_json:
        print_json(content)
        return
    from npusim.tables import memory as memory_tables

    memory_tables.shown(plan, content)


def _content(plan: MemoryPlan, arch: str | None, typical: int | None) -> dict[str, Any]:
    """Return what the command answers."""
    from npusim.memory_advice import advice, largest, too_high

    content = plan.as_dict()
    if typical is not None:
        most = plan.asked.max_model_len
        if not 1 <= typical <= most:
            raise InputError("out of range", place="--typical", value=typical,
                             allowed=f"1 to --max-model-len, {most}")  # fmt: skip
        content |= {"typical_tokens": typical, "typical_sequences": plan.sequences(typical)}
    names = ("max_model_len", "max_num_seqs", "max_num_batched_tokens")
    return content | {
        "arch": arch, "advice": [a.as_dict() for a in advice(plan)],
        "largest": {name: largest(plan, name) for name in names},
        "utilization_with_room_beside": too_high(plan), "command": command_line(),
    }  # fmt: skip


def _longest(model: str) -> int | None:
    """Return how many positions a Hugging Face config says that its model has, if it is one."""
    if not model.lower().endswith(".json"):
        return None
    from npusim.templates.config_json import read_json

    config = read_json(Path(model)).values
    inner = config.get("text_config")
    for part in (config, inner if isinstance(inner, dict) else {}):
        found = part.get("max_position_embeddings")
        if isinstance(found, int) and not isinstance(found, bool) and found > 0:
            return found
    return None
