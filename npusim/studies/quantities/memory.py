"""Memory of a serving engine under its flags: what is needed over what is there, or over another's.

`npusim.memory_plan` says where the memory of a board goes. A figure of one plan, over the engine's
share of the memory, over the sequences that were asked for, or over the same figure under other
flags:

    needed      weights, tables, the largest step, what a process takes, one longest sequence [B]
    pool        what is left for the KV cache [B]
    sequences   how many sequences of `tokens` the pool holds at once

The band is that of what no shape tells: context, libraries and captured graphs of a process.

Left out: what `npusim.memory_plan` leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from itertools import product
from typing import Any, Literal

from pydantic import Field, ValidationError

from npusim import units
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.memory_flags import FRAMEWORKS, OVERHEADS
from npusim.memory_plan import MemoryPlan, memory_plan
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "memory of an engine, as a ratio"

_MOST = 20e9  # no process takes more beside its model


class Flags(Strict):
    """Flags of an engine, as `npusim.memory_plan` names them.

    Attributes
    ----------
    max_model_len, max_num_seqs, max_num_batched_tokens, images : int
    gpu_memory_utilization : float
    chunked_prefill : bool
    kv_bits, weight_bits : float
    framework : str
    """

    max_model_len: int = 16384
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 16384
    images: int | None = None
    gpu_memory_utilization: float = 0.7
    chunked_prefill: bool = False
    kv_bits: float | None = None
    weight_bits: float | None = None
    framework: str = "fastdeploy"


class Options(Strict):
    """A model on a board, and what is compared.

    Attributes
    ----------
    model : str
    arch : str
        Board; or empty, where `memory` says its size.
    memory : str
    figure : {"needed", "pool", "sequences"}
    over : {"share", "asked", "against"}
        The engine's share of the memory; the sequences asked for; the same figure under the flags
        of `against`.
    tokens : int
        Of a sequence, for `sequences`.
    both, design, against : dict
        Flags.
    """

    model: str
    arch: str = ""
    memory: str = ""
    figure: Literal["needed", "pool", "sequences"] = "needed"
    over: Literal["share", "asked", "against"] = "share"
    tokens: int = 0
    both: dict[str, Any] = Field(default_factory=dict)
    design: dict[str, Any] = Field(default_factory=dict)
    against: dict[str, Any] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what a process takes beside its model within the engine's share."""
    framework = options.both.get("framework", Flags().framework)
    inside = FRAMEWORKS[framework].inside if framework in FRAMEWORKS else tuple(OVERHEADS)
    return {f"memory.{name}": Doubt(o.value, o.low, o.high, "B", o.source, (0.0, _MOST))
            for name, o in OVERHEADS.items() if name in inside}  # fmt: skip


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        Flags that no engine starts with, both or none of ``arch`` and ``memory``.

    Examples
    --------
    PaddleOCR-VL with the guide's flags on a board of 8 GB (seed 003):

    >>> measure(Options(model="paddleocr_vl", memory="8 GB"), {}).value < 1
    True
    """
    known = {path.removeprefix("memory."): d for path, d in doubts(options).items()}
    own = {path.removeprefix("memory."): value for path, value in settings.items()}
    ends = product(*((d.low, d.high) for d in known.values()))
    values = [_ratio(options, dict(zip(known, end, strict=True))) for end in ends]
    value = _ratio(options, own)
    plan = _plan(options, options.design, own)
    reason = (
        f"{plan.needed / 1e9:.2f} GB are needed ({plan.weights / 1e9:.2f} weights, "
        f"{plan.peak.bytes / 1e9:.2f} the largest step, {plan.runtime / 1e9:.2f} the process, "
        f"{plan.kv_sequence / 1e9:.2f} a sequence) of a share of {plan.share / 1e9:.2f} GB; the "
        f"pool of {plan.pool / 1e9:.2f} GB holds {plan.pool_tokens:,} tokens"
    )
    if options.over == "against":
        other = _plan(options, options.against, own)
        reason += f"; with {_show(options.against)} {other.needed / 1e9:.2f} GB are needed"
    data = (options.model, *([options.arch] if options.arch else ()))
    return Value(value, min(value, *values), max(value, *values), reason, data)


def _ratio(options: Options, overheads: Mapping[str, float]) -> float:
    plan = _plan(options, options.design, overheads)
    if options.over == "share":
        below = plan.share
    elif options.over == "asked":
        below = float(plan.asked.max_num_seqs)
    else:
        below = _figure(_plan(options, options.against, overheads), options)
    if not below > 0:
        raise InputError("nothing to divide by", place="over", value=options.over)
    return _figure(plan, options) / below


def _show(flags: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in flags.items()) or "the flags of both"


def _figure(plan: MemoryPlan, options: Options) -> float:
    if options.figure == "sequences":
        return float(plan.sequences(options.tokens or None))
    return float(getattr(plan, options.figure))


def _plan(options: Options, side: Mapping[str, Any], overheads: Mapping[str, float]) -> MemoryPlan:
    flags = json.dumps({**options.both, **side}, sort_keys=True)
    return _planned(options.model, options.arch, options.memory, flags,
                    tuple(sorted(overheads.items())))  # fmt: skip


@lru_cache(maxsize=512)
def _planned(
    model: str, arch: str, memory: str, given: str, overheads: tuple[tuple[str, float], ...]
) -> MemoryPlan:
    if bool(arch) == bool(memory):
        raise InputError("needs one of arch and memory", place="memory")
    board = load_arch(arch) if arch else units.parse(memory, "B")
    flags = json.loads(given)
    for name in flags:
        if name not in Flags.model_fields:
            raise InputError("no flag of an engine", place=name, value=flags[name],
                             allowed=", ".join(Flags.model_fields))  # fmt: skip
    try:
        asked = Flags.model_validate(flags).model_dump()
    except ValidationError as found:
        first = found.errors()[0]
        raise InputError(first["msg"], place=str(first["loc"][0]), value=first["input"]) from None
    return memory_plan(model, board, **asked, overheads=dict(overheads))
