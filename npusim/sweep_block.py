"""The ``sweep:`` block of a machine or study: workloads, launch modes, axes, costs, constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from npusim import units
from npusim.arch import check, siblings
from npusim.axes import ARCH, LAUNCH, Axis, Condition, Samples, checked, discrete, faults
from npusim.constraints import Constraint
from npusim.errors import InputError
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS
from npusim.yaml_tree import Place, Tree

_MOST_STEPS = 1_000_000
# Figures of merit that a sweep may want small beside its time.
_COSTS = tuple(name for name in MERITS if name not in ("wall_s", "s_per_token"))
_OF_RANGE = ("start", "stop", "steps", "scale")
_SHOWN = ("s", "J", "W", "mm2", "USD", "g")


class Strict(BaseModel):
    """A mapping of a file, without a key that nobody reads."""

    model_config = ConfigDict(extra="forbid", strict=True)


class Range(Strict):
    """Evenly spaced values of an axis, both ends included, or its values; and when it counts."""

    values: list[str | float] | None = None
    start: str | float | None = None
    stop: str | float | None = None
    steps: Annotated[int, Field(ge=2, le=_MOST_STEPS)] | None = None
    scale: Literal["linear", "log"] | None = None
    when: dict[str, Any] | None = None


class _Samples(Strict):
    """Designs to draw in place of the full grid."""

    count: int
    method: str = "sobol"
    seed: int = 0


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
        | Annotated[
            dict[str, Annotated[float, Field(gt=0, allow_inf_nan=False)]], Field(min_length=1)
        ]
    )
    launch: Annotated[list[Literal["eager", "graph", "queue"]], Field(min_length=1)]
    axes: Annotated[dict[str, list[str | float] | Range], Field(min_length=1)]
    samples: _Samples | None = None
    costs: list[str] = []
    constraints: dict[str, _Bound] = {}
    baseline: str | None = None


@dataclass(frozen=True)
class Sweep:
    """What a ``sweep:`` block asks for.

    Attributes
    ----------
    workloads : mapping of str to float
        Names or paths of workloads, and how many steps of each make the whole: its weight.
    launch : tuple of str
        Launch modes to sweep.
    given : mapping of str to Axis
        Each parameter that varies.
    costs : tuple of str
        What a designer pays for, axes or figures of merit: smaller is better on the Pareto front.
    constraints : tuple of Constraint
        What designs must keep to be compared.
    baseline : str or None
        Machine that every design is put beside; by default the one that was traced.
    samples : Samples or None
        What to draw in place of the full grid.
    """

    workloads: Mapping[str, float]
    launch: tuple[str, ...]
    given: Mapping[str, Axis]
    costs: tuple[str, ...] = ()
    constraints: tuple[Constraint, ...] = ()
    baseline: str | None = None
    samples: Samples | None = None

    @property
    def axes(self) -> dict[str, tuple[float, ...]]:
        """Values of each parameter that varies [SI]."""
        return {path: axis.values for path, axis in self.given.items()}


def read_sweep(tree: Tree, block: Mapping[str, Any], errors: list[InputError]) -> Sweep:
    """Return a sweep block, adding its mistakes to `errors`."""
    axes = _axes(tree, block, errors)
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
                 _constraints(tree, block, errors), block.get("baseline"),
                 _samples(tree, block, errors))  # fmt: skip


def _axes(tree: Tree, block: Mapping[str, Any], errors: list[InputError]) -> dict[str, Axis]:
    """Return the axes of a block, adding mistakes to `errors`."""
    axes: dict[str, Axis] = {}
    for path, raw in block["axes"].items():
        place: Place = ("sweep", "axes", path)
        if path not in PARAMETERS:
            errors.append(tree.error(place, "unknown parameter", value=path,
                                     allowed=siblings(path)))  # fmt: skip
            continue
        when = raw.get("when") if isinstance(raw, dict) else None
        conditions = {} if when is None else _when(tree, (*place, "when"), when, errors)
        try:
            axes[path] = replace(_axis(path, raw), when=conditions)
        except InputError as error:
            errors.append(tree.error(place, str(error).removeprefix(f"{path}: ")))
    for path, parent, problem, more in faults(axes, {LAUNCH: block["launch"]}):
        if parent in axes or parent not in block["axes"]:  # else its own mistake has been told
            errors.append(tree.error(("sweep", "axes", path, "when", parent), problem, **more))
    return axes


def _samples(tree: Tree, block: Mapping[str, Any], errors: list[InputError]) -> Samples | None:
    given = block.get("samples")
    if given is None:
        return None
    try:
        return Samples(**given)
    except InputError as error:
        at, _, text = str(error).partition(": ")
        errors.append(tree.error(("sweep", *at.split(".")), text))
        return None


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


def _axis(path: str, raw: Any) -> Axis:
    """Return an axis from a list, or from a mapping of its values or its range."""
    unit = PARAMETERS[path].unit
    given: Mapping[str, Any] = {"values": raw} if isinstance(raw, list) else raw
    if given.get("values") is not None:
        other = next((key for key in _OF_RANGE if given.get(key) is not None), None)
        if other is not None:
            raise InputError("values and a range", place=path, value=other, allowed="one of them")
        if not given["values"]:
            raise InputError("an axis needs at least one value", place=path)
        return Axis(tuple(check(path, units.parse(item, unit)) for item in given["values"]))
    for key in ("start", "stop"):
        if given.get(key) is None:
            raise InputError("an axis is a list, values, or a range from start to stop",
                             place=path, value=f"no {key}")  # fmt: skip
    start, stop = (check(path, units.parse(given[end], unit)) for end in ("start", "stop"))
    scale = given.get("scale") or "linear"
    if scale == "log" and (start <= 0 or stop <= 0):
        raise InputError("a log axis needs ends above zero", place=path)
    steps = given.get("steps")
    if steps is None:
        return Axis((start, stop), scale, steps=False)
    inner = range(1, steps - 1)  # both ends stay exact
    if scale == "linear":
        values = [start + (stop - start) * i / (steps - 1) for i in inner]
    else:
        values = [start * (stop / start) ** (i / (steps - 1)) for i in inner]
    if discrete(path):  # 8, 16, 32: powers are off by a last bit
        values = [round(v) if math.isclose(v, round(v), rel_tol=1e-12) else v for v in values]
    return Axis((start, *(checked(path, float(v)) for v in values), stop), scale)


def _when(
    tree: Tree, place: Place, given: Mapping[str, Any], errors: list[InputError]
) -> dict[str, Condition]:
    """Return what each parent must be, adding mistakes to `errors`."""
    found = {}
    if not given:
        errors.append(tree.error(place, "asks for nothing", hint="name a parent: {gemv.count: 70}"))
    for parent, raw in given.items():
        if parent not in (LAUNCH, ARCH) and parent not in PARAMETERS:
            errors.append(tree.error((*place, parent), "unknown parameter", value=parent,
                                     allowed=f"{LAUNCH}, {ARCH}, {siblings(parent)}"))  # fmt: skip
            continue
        try:
            found[parent] = _condition(parent, raw)
        except InputError as error:
            errors.append(tree.error((*place, parent), str(error)))
    return found


def _condition(parent: str, raw: Any) -> Condition:
    """Return a condition from a value, a list of values, or ends."""
    names = parent in (LAUNCH, ARCH)
    if raw in ([], {}):
        raise InputError("asks for nothing", allowed="a value, a list of values, least, most")
    if not isinstance(raw, dict):
        listed = raw if isinstance(raw, list) else [raw]
        return Condition(tuple(_wanted(parent, item) for item in listed))
    wrong = [key for key in raw if key not in ("least", "most")]
    if wrong or names:
        raise InputError("not a condition", value=", ".join(wrong or raw),
                         allowed=f"a {'name' if names else 'value'}, a list of them"
                         + ("" if names else ", least, most"))  # fmt: skip
    ends = {end: _wanted(parent, raw[end]) for end in raw}
    least, most = float(ends.get("least", -math.inf)), float(ends.get("most", math.inf))
    if least > most:
        raise InputError("least is above most", value=f"{raw['least']} to {raw['most']}")
    return Condition((), least, most)


def _wanted(parent: str, raw: Any) -> float | str:
    if parent not in (LAUNCH, ARCH):
        return check(parent, units.parse(raw, PARAMETERS[parent].unit))
    if not isinstance(raw, str):
        raise InputError("not a name", value=raw)
    return raw
