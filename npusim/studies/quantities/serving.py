"""A figure of one serving configuration over that of another, both simulated.

Each side is a serving study (`npusim.serving_study`): a model on a machine, the flags of an engine,
requests. Both start from a study that ships, or from a block that the option gives, and differ in
what each of them sets: paths of the study's axes (``engine.max_num_seqs``, ``requests.clients``,
``lowering``, ``prefill.engines``), parameters of the machine, or ``arch``.

The band is that of step times: the ratio with all steps of both sides at the low end of their band,
in the middle and at the high end, since both sides run much the same kernels.

Left out: what `npusim.serving_study` leaves out. Requests that are drawn are the same on both
sides, by the seed of the study.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from pydantic import Field, ValidationError

from npusim import catalog, units
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.serving_block import (
    Engine,
    Prefill,
    Requests,
    Serving,
    ServingFile,
    axis_unit,
    read_serving,
    with_axis,
)
from npusim.serving_study import Known, Run, run_study, told
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "ratio of two serving configurations"

_WAITS = ("ttft", "tpot", "latency")
_OF = ("mean_s", "p50_s", "p95_s", "p99_s", "most_s")
_FIGURES = ("tokens_per_s", "requests_per_s", "goodput_per_s", "utilisation", "j_per_token",
            *(f"{wait}.{of}" for wait in _WAITS for of in _OF))  # fmt: skip
_KNOWN = Known()  # of this process: claims share machines and models
_GROUPS: Mapping[str, Any] = {"": Serving, "engine": Engine, "requests": Requests}


class Options(Strict):
    """Two serving configurations and what is compared.

    Attributes
    ----------
    study : str
        A serving study that ships, or its file; its axes are not swept here.
    figure : str
        ``tokens_per_s``, ``requests_per_s``, ``goodput_per_s``, ``utilisation``, ``j_per_token``,
        or ``ttft``, ``tpot``, ``latency`` with ``.mean_s``, ``.p50_s``, ``.p95_s``...
    both : dict
        What both sides set beside the study: another model, a smaller run.
    design, against : dict
        What each of them sets.
    """

    study: str
    figure: str
    both: dict[str, Any] = Field(default_factory=dict)
    design: dict[str, Any] = Field(default_factory=dict)
    against: dict[str, Any] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: each value of a number is a simulation of seconds."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        No such study, figure or path, a configuration that does not fit its memory, or a figure of
        the other side that is zero.
    """
    if options.figure not in _FIGURES:
        raise InputError("no figure of a serving study", place="figure", value=options.figure,
                         allowed=", ".join(_FIGURES))  # fmt: skip
    design, against = _both(options, settings)
    ratios = [
        _ratio(design[end], against[end], options.figure) for end in ("middle", "low", "high")
    ]
    one, other = design["middle"], against["middle"]
    reason = (
        f"{_show(options.design)}: {_figures(one)}; {_show(options.against)}: {_figures(other)}"
    )
    return Value(ratios[0], min(ratios), max(ratios), reason,
                 (f"studies/serving/{options.study}", *design["data"]))  # fmt: skip


def _ratio(design: Mapping[str, Any], against: Mapping[str, Any], figure: str) -> float:
    values = []
    for side in (design, against):
        wait, _, of = figure.partition(".")
        values.append(float(side[wait][of] if of else side[figure]))
    if not values[1] > 0:
        raise InputError("is zero on the other side", place="figure", value=figure)
    return values[0] / values[1]


def _both(options: Options, settings: Mapping[str, float]) -> tuple[dict[str, Any], ...]:
    """Return the figures of both sides; where they share step times, these are computed once."""
    machine = json.dumps(dict(settings), sort_keys=True)
    sides = (options.design, options.against)
    paths = {path for side in sides for path in side}
    (path,) = paths if len(paths) == 1 else ("",)
    varies = path in PARAMETERS or path.startswith(("engine.", "requests."))
    if varies and all(sides):
        values = json.dumps([side[path] for side in sides])
        both = json.dumps(options.both, sort_keys=True)
        return _told(options.study, both, machine, path, values)
    alone = (json.dumps({**options.both, **side}, sort_keys=True) for side in sides)
    return tuple(_told(options.study, given, machine)[0] for given in alone)


@lru_cache(maxsize=64)
def _told(
    study: str, given: str, settings: str, path: str = "", values: str = "[]"
) -> tuple[dict[str, Any], ...]:
    """Return the figures of some configurations at the ends of their band, and what they rest on.

    They differ in one path, or there is one of them.
    """
    asked = _asked(study, json.loads(given))
    block = asked.block.model_copy(
        update={"set": {**asked.block.set, **json.loads(settings)}, "axes": {}}
    )
    axes = {path: tuple(_value(path, raw) for raw in json.loads(values))} if path else {}
    runs = run_study(replace(asked, block=block, axes=axes), known=_KNOWN)
    data = {"data": (asked.block.model, asked.arch)}
    return tuple({end: _at(run, end) for end in ("middle", "low", "high")} | data for run in runs)


def _at(run: Run, end: str) -> dict[str, Any]:
    figures = told(run)
    return figures if end == "middle" else {**figures, **figures["band"][end]}


def _asked(study: str, given: Mapping[str, Any]) -> ServingFile:
    asked = read_serving(catalog.find("serving", study))
    block = asked.block
    for path, raw in given.items():
        if path == "arch":
            catalog.find("archs", raw)
            asked = replace(asked, arch=str(raw))
        elif path == "prefill.engines":  # 0: engines that do both
            block = block.model_copy(update={"prefill": Prefill(engines=raw) if raw else None})
        else:
            block = with_axis(block, path, _value(path, raw))
    try:
        block = Serving.model_validate(block.model_dump(warnings=False))
    except ValidationError as found:
        first = found.errors()[0]
        raise InputError(first["msg"], place=".".join(map(str, first["loc"])),
                         value=first["input"]) from None  # fmt: skip
    return replace(asked, block=block)


def _value(path: str, raw: Any) -> Any:
    if path in PARAMETERS:
        return units.parse(raw, PARAMETERS[path].unit)
    group, _, leaf = path.rpartition(".")
    if group not in _GROUPS or leaf not in _GROUPS[group].model_fields:
        raise InputError("no setting of a serving study", value=path,
                         allowed="as in axes, model, arch, of a machine")  # fmt: skip
    unit = axis_unit(path)
    return units.parse(raw, unit) if unit != "1" else raw


def _show(side: Mapping[str, Any]) -> str:
    return ", ".join(f"{path} {raw}" for path, raw in side.items()) or "as the study has it"


def _figures(told: Mapping[str, Any]) -> str:
    return (
        f"{told['tokens_per_s']:,.0f} tokens/s, first token after "
        f"{1e3 * told['ttft']['mean_s']:.3g} ms, then {1e3 * told['tpot']['mean_s']:.3g} ms a token"
    )
