"""The space of a sweep: which designs it holds.

A space is a full grid, or samples of one, on one machine or several. It knows how many designs it
holds and which each of them is without making any: a part makes the rows that are asked for.

Rows are counted by machine, then by part (`npusim.sweeps.conditions`), launch mode and axes of the
workload in the given order, then by axes of the machine as `npusim.sweeps.order` ranks them, the
last of each the fastest.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from npusim.arch import Arch, parameter
from npusim.axes import ARCH, LAUNCH, Axis, Samples, checked, faults
from npusim.errors import InputError, InputErrors
from npusim.models import modelled
from npusim.models.launch import LAUNCHES
from npusim.sweeps.conditions import disjoint
from npusim.sweeps.order import slowest_first
from npusim.sweeps.part import Blocks, Part
from npusim.sweeps.sampling import drawn, listed
from npusim.transforms import TRANSFORMABLE, split
from npusim.units import parse

_MOST_PARTS = 1_000_000
# First row of a full grid, and its axes in the order of its rows with how many values each has.
Lines = tuple[int, dict[str, int]]


def unmodelled(paths: Sequence[str]) -> list[InputError]:
    """Return one error for each parameter that neither a cost model nor a transform reads.

    Examples
    --------
    >>> [str(e) for e in unmodelled(["units.count", "area.die"])]
    ['area.die: no cost model of this version reads it, so it cannot be swept or set']
    """
    known = {*modelled(), *TRANSFORMABLE}
    return [
        InputError(
            "no cost model of this version reads it, so it cannot be swept or set", place=path
        )
        for path in paths
        if parameter(path) and path not in known
    ]


@dataclass(frozen=True, init=False)
class Space:
    """Every combination of the values of some axes, or samples of them, on some machines.

    Parameters
    ----------
    arch : Arch
        What all designs of the first machine share.
    axes : mapping of str to sequence of float or str, or Axis
        Values of each dotted path [SI], of the machine or of the workload (``workload.*``), or
        texts with a unit or a name (``"2 TB/s"``, ``"weight"``). An `Axis` may be a range, and may
        hang on others.
    launch : str or sequence of str
        Launch modes.
    beside : sequence of Arch
        More machines, under the same axes. An axis is off on a machine that has nothing of its
        group (``gemv`` of ``gemv.count``) if another one of them has.
    samples : Samples, optional
        Draw so many designs in place of the full grid.

    Attributes
    ----------
    axes : mapping of str to tuple of float
        All axes with their values [SI], in the given order.
    given : mapping of str to Axis
        The same with ranges and conditions.
    archs : tuple of Arch
        All machines.
    parts : tuple of Part
        Designs by machine, launch mode and version of the work; no design is in two of them.
    grids : tuple of (int, mapping of str to int)
        Full grids that the rows are made of: the first row of each, and its sizes in the order of
        its rows (``launch`` first). None of samples.
    notes : tuple of str
        What a reader should know of how the space came to be.

    Raises
    ------
    InputError, InputErrors
        An axis without values or without a model, a value out of bounds, a condition that cannot
        be, or too many designs.

    Examples
    --------
    >>> import npusim as ns
    >>> space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph", "queue"])
    >>> len(space), space.grids
    (4, ((0, {'launch': 2, 'units.count': 2}),))
    """

    arch: Arch
    axes: Mapping[str, tuple[float, ...]]
    launch: tuple[str, ...]
    beside: tuple[Arch, ...]
    samples: Samples | None
    given: Mapping[str, Axis]
    parts: tuple[Part, ...] = field(repr=False, compare=False)
    grids: tuple[Lines, ...] = field(repr=False)
    notes: tuple[str, ...]

    def __init__(
        self,
        arch: Arch,
        axes: Mapping[str, Sequence[float | str] | Axis],
        launch: str | Sequence[str] = ("eager",),
        beside: Sequence[Arch] = (),
        samples: Samples | None = None,
    ) -> None:
        errors = unmodelled(list(axes))
        given = {path: _axis(path, axis) for path, axis in axes.items()}
        put = object.__setattr__
        put(self, "arch", arch)
        put(self, "beside", tuple(beside))
        put(self, "launch", (launch,) if isinstance(launch, str) else tuple(launch))
        put(self, "samples", samples)
        put(self, "given", given)
        put(self, "axes", {path: axis.values for path, axis in given.items()})
        errors += list(_wrong(self))
        if errors:
            raise errors[0] if len(errors) == 1 else InputErrors(errors)
        lacking, notes = _lacking(self)
        if samples is None:
            parts, grids = _of_grids(self, lacking)
        else:
            parts, grids = _of_samples(self, lacking, samples, notes), []
        put(self, "parts", tuple(parts))
        put(self, "grids", tuple(grids))
        put(self, "notes", (*notes, *_never(self)))

    @property
    def archs(self) -> tuple[Arch, ...]:
        """All machines, the first one first."""
        return (self.arch, *self.beside)

    def __len__(self) -> int:
        """Return the number of designs: machines, launch modes and changes of the work counted."""
        return sum(len(part) for part in self.parts)

    def blocks(self, size: int) -> Blocks:
        """Return the space in blocks of at most so many rows, each of one part.

        Returns
        -------
        Blocks
            (number of the part, start, stop, row in the space of its first), made when asked for.
        """
        return Blocks([len(part) for part in self.parts], size)


def _axis(path: str, axis: Sequence[float | str] | Axis) -> Axis:
    if isinstance(axis, str) or not isinstance(axis, Axis | Iterable):
        raise InputError("not a list of values", place=path, value=axis)
    if isinstance(axis, Axis):
        return replace(axis, values=tuple(_number(path, value) for value in axis.values))
    return Axis(tuple(_number(path, value) for value in axis))


def _number(path: str, value: float | str) -> float:
    """Return a value of an axis, or a text with its unit or name [SI]."""
    try:
        return parse(value, parameter(path).unit) if isinstance(value, str) else float(value)
    except InputError as error:
        raise InputError(str(error), place=path) from None
    except (TypeError, ValueError):
        raise InputError("not a number", place=path, value=value) from None


def _wrong(space: Space) -> Iterator[InputError]:
    """Yield what is wrong with axes, launch modes and machines."""
    yield from _wrong_axes(space)
    names = [arch.name for arch in space.archs]
    others = {LAUNCH: LAUNCHES, ARCH: names}
    for path, parent, problem, more in faults(space.given, others):
        yield InputError(problem, place=f"{path}, when {parent}", **more)
    if not space.launch:
        yield InputError("no launch mode", allowed=", ".join(LAUNCHES))
    for mode in space.launch:
        if mode not in LAUNCHES:
            yield InputError("unknown launch mode", value=mode, allowed=", ".join(LAUNCHES))
    for what, given in (("launch mode", space.launch), ("machine", names)):
        if len(set(given)) < len(given):
            twice = next(name for name in given if list(given).count(name) > 1)
            yield InputError(f"{what} given twice", value=twice)
    if space.samples is not None and not split(space.axes)[0]:
        yield InputError("nothing to draw samples of", value=", ".join(space.axes),
                         allowed="an axis of the machine",
                         hint="axes of the workload are full factors")  # fmt: skip


def _wrong_axes(space: Space) -> Iterator[InputError]:
    for path, axis in space.given.items():
        drawn_here = space.samples is not None and path not in TRANSFORMABLE
        values = axis.values
        if drawn_here and axis.scale:
            values = (values[0], values[-1])
        if not values:
            yield InputError("axis without values", place=path)
        if len(set(values)) < len(values):
            yield InputError("value given twice", place=path)
        if wrong := _not_values(path, values):
            yield wrong
        if not axis.steps and not drawn_here:
            hint = "give steps" + (", or draw samples" if space.samples is None else "")
            yield InputError("a range without steps cannot be counted", place=path, hint=hint)


def _not_values(path: str, values: Sequence[float]) -> InputError | None:
    """Return what is wrong with the first value that the parameter cannot have."""
    try:
        for value in values:
            checked(path, value)
    except InputError as error:
        return error
    return None


def _lacking(space: Space) -> tuple[dict[str, set[str]], list[str]]:
    """Return which axes are off on each machine, and what to tell of it."""
    off: dict[str, set[str]] = {arch.name: set() for arch in space.archs}
    told: dict[tuple[str, ...], list[str]] = {}
    for path in split(space.axes)[0]:
        group = f"{path.rpartition('.')[0]}."
        without = [a.name for a in space.archs if not any(p.startswith(group) for p in a.values)]
        if 0 < len(without) < len(space.archs):
            told.setdefault(tuple(without), []).append(path)
            for name in without:
                off[name].add(path)
    notes = [f"{', '.join(paths)}: no axes of {', '.join(names)}, without anything of their group"
             for names, paths in told.items()]  # fmt: skip
    return off, notes


def _of_grids(space: Space, lacking: Mapping[str, set[str]]) -> tuple[list[Part], list[Lines]]:
    """Return the parts of full grids, and which rows make one."""
    parts: list[Part] = []
    grids: list[Lines] = []
    row = 0
    for arch in space.archs:
        fixed = {ARCH: (arch.name,), LAUNCH: space.launch}
        for grid in disjoint(space.given, fixed, lacking[arch.name]):
            values = {path: grid[path] for path in space.axes if path in grid}
            machine, workload = split(values)
            ordered = {path: machine[path] for path in slowest_first(machine)}
            sizes = {LAUNCH: grid[LAUNCH], **workload, **ordered}
            lines = {name: len(of) for name, of in sizes.items()}
            grids.append((row, lines))
            row += _checked(math.prod(lines.values()) + row) - row
            _checked(len(parts) + len(grid[LAUNCH]) * math.prod(map(len, workload.values())),
                     "versions of the work", _MOST_PARTS)  # fmt: skip
            for launch, each in product(grid[LAUNCH], product(*workload.values())):
                change = dict(zip(workload, each, strict=True))
                parts.append(Part(arch, str(launch), change, ordered))  # type: ignore[arg-type]
    return parts, grids


def _never(space: Space) -> Iterator[str]:
    """Tell which axes count in no design: of a launch mode that is not asked for, say."""
    used: set[str] = set()
    for part in space.parts:
        used.update(part.change, part.axes, part.points or ())
    for path in space.axes:
        if path not in used:
            yield f"{path} is off in every design: what it hangs on never holds here"


def _checked(count: int, what: str = "designs", most: int = sys.maxsize) -> int:
    if count > most:
        raise InputError(f"too many {what}", value=count, allowed=f"up to {most}",
                         hint="use fewer values an axis, or draw samples")  # fmt: skip
    return count


def _of_samples(
    space: Space, lacking: Mapping[str, set[str]], samples: Samples, notes: list[str]
) -> list[Part]:
    """Return the parts of samples, adding to `notes` what to tell of them."""
    machine = {path: space.given[path] for path in split(space.axes)[0]}
    columns = drawn(machine, samples)
    parts, twice = [], 0
    for arch in space.archs:
        for part, dropped in listed(space.given, columns, arch, space.launch, lacking[arch.name]):
            parts.append(part)
            twice += dropped
            _checked(len(parts), "versions of the work", _MOST_PARTS)
    count = samples.count
    if samples.method == "sobol" and count & (count - 1):
        near = 1 << count.bit_length() - 1
        notes.append(
            f"{count} is no power of two: a Sobol sequence is evenest with {near} or {2 * near}"
        )
    if twice:
        kept = sum(map(len, parts))
        notes.append(f"{twice} of {twice + kept} designs drawn came twice and are left out")
    return parts
