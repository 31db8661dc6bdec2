"""The ``sweep:`` block of a machine or study: workloads, launch modes, axes, costs, constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from npusim import units
from npusim.arch import check, siblings
from npusim.constraints import Constraint
from npusim.errors import InputError
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS
from npusim.yaml_tree import Tree

_MOST_STEPS = 1_000_000
# Figures of merit that a sweep may want small beside its time.
_COSTS = tuple(name for name in MERITS if name not in ("wall_s", "s_per_token"))
_SHOWN = ("s", "J", "W", "mm2", "USD", "g")


class Strict(BaseModel):
    """A mapping of a file, without a key that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Range(Strict):
    """Evenly spaced values of an axis, both ends included."""

    start: str | float
    stop: str | float
    steps: Annotated[int, Field(ge=2, le=_MOST_STEPS)]
    scale: Literal["linear", "log"] = "linear"


class _Bound(Strict):
    """A constraint on one figure of a design."""

    least: str | float | None = None
    most: str | float | None = None
    like: Annotated[str, Field(min_length=1)] = ""
    within: str | float | None = None


class SweepBlock(Strict):
    """What a sweep block may hold."""

    workloads: (
        Annotated[list[str], Field(min_length=1)]
        | Annotated[dict[str, Annotated[int, Field(ge=1, le=_MOST_STEPS)]], Field(min_length=1)]
    )
    launch: Annotated[list[Literal["eager", "graph", "queue"]], Field(min_length=1)]
    axes: Annotated[dict[str, list[str | float] | Range], Field(min_length=1)]
    costs: list[str] = []
    constraints: dict[str, _Bound] = {}
    baseline: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What a ``sweep:`` block asks for.

    Attributes
    ----------
    workloads : mapping of str to int
        Names or paths of workloads, and how many steps of each make the whole.
    launch : tuple of str
        Launch modes to sweep.
    axes : mapping of str to tuple of float
        Values of each parameter that varies [SI].
    costs : tuple of str
        What a designer pays for, axes or figures of merit: smaller is better on the Pareto front.
    constraints : tuple of Constraint
        What designs must keep to be compared.
    baseline : str or None
        Machine that every design is put beside; by default the one that was traced.
    """

    workloads: Mapping[str, int]
    launch: tuple[str, ...]
    axes: Mapping[str, tuple[float, ...]]
    costs: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    baseline: str | None = None


def read_sweep(tree: Tree, block: Mapping[str, Any], errors: list[InputError]) -> Sweep:
    """Return a sweep block, adding its mistakes to `errors`."""
    axes: dict[str, tuple[float, ...]] = {}
    for path, raw in block["axes"].items():
        place = ("sweep", "axes", path)
        if path not in PARAMETERS:
            errors.append(tree.error(place, "unknown parameter", value=path,
                                     allowed=siblings(path)))  # fmt: skip
            continue
        try:
            axes[path] = _axis(path, raw)
        except InputError as error:
            errors.append(tree.error(place, str(error).removeprefix(f"{path}: ")))
    for path in block.get("costs", ()):
        if path not in block["axes"] and path not in _COSTS:
            errors.append(tree.error(("sweep", "costs"), "not an axis of this sweep", value=path,
                                     allowed=f"an axis, {', '.join(_COSTS)}"))  # fmt: skip
    named = block["workloads"]
    if isinstance(named, list):
        if len(set(named)) < len(named):
            twice = next(w for w in named if named.count(w) > 1)
            errors.append(tree.error(("sweep", "workloads"), "named twice", value=twice))
        named = dict.fromkeys(named, 1)
    return Sweep(dict(named), tuple(block["launch"]), axes, tuple(block.get("costs", ())),
                 _constraints(tree, block, errors), block.get("baseline"))  # fmt: skip


def _constraints(
    tree: Tree, block: Mapping[str, Any], errors: list[InputError]
) -> tuple[Constraint, ...]:
    """Return what designs must keep, adding mistakes to `errors`."""
    found = []
    for name, bound in block.get("constraints", {}).items():
        place = ("sweep", "constraints", name)
        if name not in MERITS and not (name in block["axes"] and name in PARAMETERS):
            errors.append(tree.error(place, "no figure of a design", value=name,
                                     allowed=f"an axis, {', '.join(MERITS)}"))  # fmt: skip
            continue
        if ("within" in bound) != ("like" in bound):
            errors.append(tree.error(place, "needs both like and within, or none"))
            continue
        if not bound:
            errors.append(tree.error(place, "bounds nothing", allowed="least, most, like, within"))
            continue
        unit = PARAMETERS[name].unit if name in PARAMETERS else MERITS[name]
        try:
            ends = {
                end: _bound(bound[end], name, unit) for end in ("least", "most") if end in bound
            }
            within = units.parse(bound.get("within", "0 %"), "1")
            if not 0 <= within <= 1:
                raise InputError("out of bounds", value=bound["within"], allowed="0 % to 100 %")
            if ends.get("least", -math.inf) > ends.get("most", math.inf):
                raise InputError(
                    "least is above most", value=f"{bound['least']} to {bound['most']}"
                )
        except InputError as error:
            errors.append(tree.error(place, str(error)))
            continue
        found.append(Constraint(name, ends.get("least"), ends.get("most"), bound.get("like", ""),
                                within))  # fmt: skip
    return tuple(found)


def _bound(raw: str | float, name: str, unit: str) -> float:
    """Return a bound in the unit of its column: SI of an axis, else what its name says."""
    if name in PARAMETERS:
        return units.parse(raw, unit)
    if unit not in _SHOWN:  # joule-seconds have no unit of their own here
        return units.parse(raw, "1")
    return units.parse(raw, unit) / units.parse(f"1 {unit}", unit)


def _axis(path: str, raw: Any) -> tuple[float, ...]:
    """Return the SI values of an axis from a list or a range."""
    unit = PARAMETERS[path].unit
    if isinstance(raw, list):
        if not raw:
            raise InputError("an axis needs at least one value", place=path)
        return tuple(check(path, units.parse(item, unit)) for item in raw)
    start, stop = (check(path, units.parse(raw[end], unit)) for end in ("start", "stop"))
    steps, inner = raw["steps"], range(1, raw["steps"] - 1)  # both ends stay exact
    if raw.get("scale", "linear") == "linear":
        return (start, *(start + (stop - start) * i / (steps - 1) for i in inner), stop)
    if start <= 0 or stop <= 0:
        raise InputError("a log axis needs ends above zero", place=path)
    return (start, *(start * (stop / start) ** (i / (steps - 1)) for i in inner), stop)
