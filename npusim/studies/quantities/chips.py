"""A figure of one plan for several chips over that of another: links, splits, copies.

Both sides are plans of `npusim.scale_out` for one model and one machine; they differ in how many
chips do what (``tensor``, ``expert``, ``pipeline``, ``data``, ``overlap``) or in parameters of the
machine (``link.bandwidth``).

The band is that of kernel times: both sides at the low end, both at the high end.

Left out: what `npusim.scale_out` leaves out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Literal

from pydantic import Field

from npusim import units
from npusim.arch import check, siblings
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.scale_out import Plan, ScaleOut, scale_out
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.studies.work import machine as load_machine
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "ratio of two plans of chips"

_PLAN = ("tensor", "expert", "pipeline", "data", "overlap")


class Options(Strict):
    """Two plans and what is compared.

    Attributes
    ----------
    arch, model, lowering : str
    phase : {"decode", "prefill"}
    launch : {"eager", "graph", "queue"}
    batch, context : int
        Sequences of all chips together, and tokens of each.
    figure : {"step_s", "tokens_per_s", "tokens_per_s_chip"}
    both, design, against : dict
        What both sides and each of them set: numbers of a plan, parameters of the machine.
    """

    arch: str
    model: str
    lowering: str = "serving"
    phase: Literal["decode", "prefill"] = "decode"
    launch: Literal["eager", "graph", "queue"] = "graph"
    batch: int = 1
    context: int = 1024
    figure: Literal["step_s", "tokens_per_s", "tokens_per_s_chip"] = "step_s"
    both: dict[str, str | int | float] = Field(default_factory=dict)
    design: dict[str, str | int | float] = Field(default_factory=dict)
    against: dict[str, str | int | float] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what the machine assumes of its links, as far as both sides leave it as it is."""
    own = {*options.both, *options.design, *options.against}
    found = assumed(load_machine(options.arch), ("link.latency", "link.efficiency"))
    return {path: doubt for path, doubt in found.items() if path not in own}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A plan that is not possible, or a setting that is none.
    """
    sides = [_row(options, {**options.both, **side}, settings)
             for side in (options.design, options.against)]  # fmt: skip
    middle, low, high = (_ratio(sides, options.figure, end) for end in (None, 0, 1))
    one, other = sides
    reason = (
        f"{_show(options.design)}: {1e3 * one.step_s:.3g} ms a step, {one.collective_share:.0%} of "
        f"device time between chips, {one.bubble_share:.0%} waited; {_show(options.against)}: "
        f"{1e3 * other.step_s:.3g} ms, {other.collective_share:.0%} and {other.bubble_share:.0%}"
    )
    return Value(middle, min(low, middle, high), max(low, middle, high), reason,
                 (options.model, options.arch))  # fmt: skip


def _ratio(sides: list[ScaleOut], figure: str, end: int | None) -> float:
    one, other = (side.step_s if end is None else side.band_s[end] for side in sides)
    if figure == "step_s":
        return one / other
    # tokens of a step are the same on both sides: rates are as times, the other way round
    chips = sides[1].chips / sides[0].chips if figure == "tokens_per_s_chip" else 1.0
    return other / one * chips


def _row(options: Options, side: Mapping[str, Any], settings: Mapping[str, float]) -> ScaleOut:
    plan = {name: side[name] for name in _PLAN if name in side}
    machine = dict(settings)
    for path, raw in side.items():
        if path in _PLAN:
            if isinstance(raw, bool) or not isinstance(raw, int) or raw < 1:
                raise InputError("not a number of chips", place=path, value=raw,
                                 allowed="a whole number from 1")  # fmt: skip
        elif path in PARAMETERS:
            machine[path] = check(path, units.parse(raw, PARAMETERS[path].unit))
        else:
            raise InputError("neither of a plan nor of a machine", place=path, value=raw,
                             allowed=f"{', '.join(_PLAN)}; {siblings(path)}")  # fmt: skip
    return _scaled(options.model_dump_json(exclude={"both", "design", "against", "figure"}),
                   json.dumps(plan, sort_keys=True),
                   json.dumps(machine, sort_keys=True))  # fmt: skip


@lru_cache(maxsize=256)
def _scaled(asked: str, plan: str, machine: str) -> ScaleOut:
    o = Options.model_validate_json(asked)
    arch = with_settings(load_machine(o.arch), json.loads(machine))
    found = scale_out(o.model, arch, o.phase, o.batch, o.context, [Plan(**json.loads(plan))],
                      o.launch, o.lowering)  # fmt: skip
    return found.rows[0]


def _show(side: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {raw}" for path, raw in side.items()) or "as both"
