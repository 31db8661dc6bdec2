"""Machines and studies from YAML: to a validated `Arch` and `Study`, every error told at once.

The schema of an architecture is built from :data:`npusim.parameters.PARAMETERS`, so a new
parameter is declared in one place; those below ``workload.`` are no numbers of a machine, but axes
of a sweep. An architecture may carry a ``sweep:`` block; a study names its architecture with
``arch:`` and carries one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, create_model

from npusim import catalog, units
from npusim.arch import Arch, Provenance, check, siblings
from npusim.errors import InputError, InputErrors
from npusim.parameters import PARAMETERS
from npusim.sweep_block import Range, Strict, Sweep, SweepBlock, read_sweep
from npusim.technology import GROUPS
from npusim.transforms import TRANSFORMABLE
from npusim.yaml_tree import Place, Tree, read_tree

_OF_MACHINE = [path for path in PARAMETERS if path not in TRANSFORMABLE]
# Folders beside the machines with what every machine begins with: first words of their paths.
_SHARED = {"libraries": ("library",), "technology": GROUPS}
_Values = dict[str, tuple[float, Provenance]]


class _Entry(Strict):
    """One value of a machine with its provenance."""

    value: str | float
    source: Annotated[str, Field(min_length=3)]
    kind: Literal["datasheet", "measured", "calibrated", "assumed"]
    range: Annotated[list[str | float], Field(min_length=2, max_length=2)] | None = None


@dataclass(frozen=True)
class Study:
    """One question: a machine, or several side by side, and a sweep over it."""

    name: str
    title: str
    question: str
    source: str
    archs: tuple[str, ...]
    sweep: Sweep

    @property
    def arch(self) -> str:
        """The first of the machines."""
        return self.archs[0]


class _FittedEntry(Strict):
    """What a calibration did to one parameter."""

    before: str | float
    after: str | float
    bounds: Annotated[list[str | float], Field(min_length=2, max_length=2)]
    at_bound: bool
    shared: bool
    standard_error: str | float | None
    effect: float
    source: Annotated[str, Field(min_length=3)]
    why: str


class _ResidualEntry(Strict):
    """What a calibration left unexplained for one kind of operation."""

    n: Annotated[int, Field(ge=1)]
    p10: Annotated[float, Field(gt=0)]
    p50: Annotated[float, Field(gt=0)]
    p90: Annotated[float, Field(gt=0)]
    domain: dict[str, Annotated[list[float], Field(min_length=2, max_length=2)]]


class _ResidualFile(Strict):
    """Residuals of machines that were left out of the fit."""

    source: Annotated[str, Field(min_length=3)]
    residuals: Annotated[dict[str, _ResidualEntry], Field(min_length=1)]


class _BeforeAfter(Strict):
    before: float
    after: float


class _Calibration(Strict):
    """The record of `npusim calibrate`."""

    model: str | None = None  # version of the models; records made before it was written have none
    measured: Annotated[list[str], Field(min_length=1)]
    free: Annotated[int, Field(ge=1)]
    median_ape: _BeforeAfter
    p90_ape: _BeforeAfter
    parameters: dict[str, _FittedEntry]
    residuals: dict[str, _ResidualEntry]


@cache
def _schema() -> type[BaseModel]:
    """Return the schema of an architecture file, built from the declared parameters."""
    around: dict[str, Any] = {
        "title": (Annotated[str, Field(min_length=1)], ...),
        "devices": (list[str], Field(default_factory=list)),
        "note": (str, ""),
        "sweep": (SweepBlock | None, None),
        "calibration": (_Calibration | None, None),
    }
    return create_model("ArchFile", __base__=_entries(_OF_MACHINE), **around)


def _entries(paths: Iterable[str]) -> type[BaseModel]:
    """Return the schema of a tree of parameters."""
    tree: dict[str, Any] = {}
    for path in paths:
        *groups, leaf = path.split(".")
        at = tree
        for group in groups:
            at = at.setdefault(group, {})
        at[leaf] = PARAMETERS[path]

    def model(name: str, node: dict[str, Any]) -> type[BaseModel]:
        fields: dict[str, Any] = {}
        for key, child in node.items():
            if isinstance(child, dict):
                inner = model(f"{name}.{key}", child)
                needed = any(f.is_required() for f in inner.model_fields.values())
                fields[key] = (inner, ...) if needed else (inner, None)
            else:
                fields[key] = (_Entry, ...) if child.required else (_Entry, None)
        made: type[BaseModel] = create_model(name, __base__=Strict, **fields)
        return made

    return model("arch", tree)


@cache
def _libraries() -> _Values:
    """Return the numbers of libraries and technologies: what every machine begins with."""
    found: _Values = {}
    for folder, groups in _SHARED.items():
        paths = [path for path in PARAMETERS if path.split(".")[0] in groups]
        for file in sorted((catalog.folder("archs") / folder).glob("*.yaml")):
            tree = read_tree(file)
            errors = _problems(tree, _entries(paths))
            _refuse(errors)
            found |= _given(tree, paths, errors)
            _refuse(errors)
    return found


def _given(
    tree: Tree, paths: Iterable[str], errors: list[InputError], malformed: bool = False
) -> _Values:
    """Return the entries of a file, adding their mistakes to `errors`."""
    found: _Values = {}
    for path in paths:
        entry = _at(tree.values, path)
        if entry is None or (malformed and not _fits(_Entry, entry)):
            continue
        try:
            found[path] = _entry(tree, path, entry)
        except InputErrors as error:
            errors += error.errors
    return found


class _StudyFile(Strict):
    title: Annotated[str, Field(min_length=1)]
    question: Annotated[str, Field(min_length=1)]
    source: Annotated[str, Field(min_length=3)]
    arch: Any
    sweep: SweepBlock
    # What `npusim study` reads, see npusim.studies.read.
    claims: Any = None
    flips: Any = None
    figures: Any = None


def read_arch(file: Path) -> tuple[Arch, Sweep | None]:
    """Read an architecture and its sweep block, if it has one.

    Parameters
    ----------
    file : Path
        A YAML file.

    Returns
    -------
    Arch, Sweep or None

    Raises
    ------
    InputError, InputErrors
        Every mistake in the file, each with its line and dotted path.
    """
    tree = read_tree(file)
    errors = _problems(tree, _schema())
    malformed = bool(errors)
    given = _given(tree, _OF_MACHINE, errors, malformed)
    given |= {path: entry for path, entry in _libraries().items() if path not in given}
    block, sweep = tree.values.get("sweep"), None
    if block is not None and not (malformed and not _fits(SweepBlock, block)):
        sweep = read_sweep(tree, block, errors)
    _refuse(errors)
    values = {path: value for path, (value, _) in given.items()}
    provenance = {path: mark for path, (_, mark) in given.items()}
    arch = Arch(file.stem, tree.values["title"], values, provenance,
                tuple(tree.values.get("devices", ())), tree.values.get("note", ""),
                tree.values.get("calibration") or {})  # fmt: skip
    return arch, sweep


def read_residuals(file: Path) -> tuple[str, Mapping[str, Any]]:
    """Read residuals by kind of operation, with where they come from.

    Raises
    ------
    InputError, InputErrors
        Every mistake in the file, each with its line and place.
    """
    tree = read_tree(file)
    _refuse(_problems(tree, _ResidualFile))
    return tree.values["source"], tree.values["residuals"]


def read_study(file: Path) -> Study:
    """Read a study: a question with the machine and sweep that answer it.

    Raises
    ------
    InputError, InputErrors
        Every mistake in the file, each with its line and dotted path.
    """
    tree = read_tree(file)
    if "serving" in tree.values and "sweep" not in tree.values:
        raise InputError("no sweep block", file=file, place="serving",
                         hint="`npusim serve-sim` answers what has a serving block")  # fmt: skip
    if "claims" in tree.values and "sweep" not in tree.values:
        raise InputError("no sweep block", file=file, place="claims",
                         hint="`npusim study` tests what has claims")  # fmt: skip
    _refuse(_problems(tree, _StudyFile))
    errors: list[InputError] = []
    sweep = read_sweep(tree, tree.values["sweep"], errors)
    archs = _machines(tree, errors)
    _refuse(errors)
    v = tree.values
    return Study(file.stem, v["title"], v["question"], v["source"], archs, sweep)


def _machines(tree: Tree, errors: list[InputError]) -> tuple[str, ...]:
    """Return the machines that a study names, adding mistakes to `errors`."""
    given = tree.values["arch"]
    listed = given if isinstance(given, list) else [given]
    if not listed or not all(isinstance(name, str) and name for name in listed):
        errors.append(tree.error(("arch",), "not a machine", value=given,
                                 allowed="a name, a path, or a list of them"))  # fmt: skip
        return ()
    if len(set(listed)) < len(listed):
        errors.append(tree.error(("arch",), "named twice",
                                 value=next(n for n in listed if listed.count(n) > 1)))  # fmt: skip
    return tuple(listed)


def is_study(file: Path) -> bool:
    """Return whether a YAML file describes a study rather than a machine."""
    return "arch" in read_tree(file).values


def read_setting(text: str) -> tuple[str, float]:
    """Read ``path=value`` of the command line.

    Examples
    --------
    >>> read_setting("memories.dram.bandwidth=2.5 TB/s")
    ('memories.dram.bandwidth', 2500000000000.0)

    Raises
    ------
    InputError
        No ``=``, unknown path, wrong unit or out of bounds.
    """
    path, equals, value = text.partition("=")
    path = path.strip()
    if not equals:
        raise InputError("not path=value", place="--set", value=text)
    if path not in PARAMETERS:
        raise InputError("unknown parameter", place="--set", value=path, allowed=siblings(path))
    try:
        return path, check(path, units.parse(value.strip(), PARAMETERS[path].unit))
    except InputError as error:
        text = str(error).removeprefix(f"{path}: ")
        raise InputError(text, place=f"--set {path}") from None


def _at(values: Mapping[str, Any], path: str) -> Any:
    node: Any = values
    for part in path.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _entry(tree: Tree, path: str, entry: Mapping[str, Any]) -> tuple[float, Provenance]:
    """Return the SI value and provenance of one entry, or every mistake in it."""
    place: Place = tuple(path.split("."))
    errors: list[InputError] = []

    def quantity(raw: str | float, *below: str | int) -> float:
        try:
            return check(path, units.parse(raw, PARAMETERS[path].unit))
        except InputError as error:
            text = str(error).removeprefix(f"{path}: ")
            errors.append(tree.error((*place, *below), text))
            return math.nan

    value = quantity(entry["value"], "value")
    low = high = value
    if entry.get("range") is not None:
        low, high = (quantity(raw, "range", i) for i, raw in enumerate(entry["range"]))
        if low > value or value > high:
            errors.append(tree.error((*place, "range"), "range does not hold the value",
                                     value=entry["range"]))  # fmt: skip
    elif entry["kind"] == "assumed":
        errors.append(
            tree.error(place, "an assumed value needs a range", hint="add range: [low, high]")
        )
    if errors:
        raise InputErrors(errors)
    return value, Provenance(entry["source"], entry["kind"], low, high)


def _refuse(errors: list[InputError]) -> None:
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)


def _problems(tree: Tree, schema: type[BaseModel]) -> list[InputError]:
    """Return what pydantic finds, in our words and with our places."""
    try:
        schema.model_validate(tree.values)
    except ValidationError as found:
        problems: dict[str, InputError] = {}
        every = found.errors(include_url=False)
        for e in every:
            error = _problem(tree, schema, e, alone=len(every) == 1)
            if error is not None:
                problems.setdefault(str(error), error)
        return list(problems.values())
    return []


def _fits(schema: type[BaseModel], value: Any) -> bool:
    """Return whether a part of a file is of the right form, the rest of it aside."""
    try:
        schema.model_validate(value)
    except ValidationError:
        return False
    return True


_OTHER = "a file of another npusim? see CHANGELOG.md"

# What pydantic says of a value of the wrong type, in our words.
_TYPES = {
    "string_type": "not text", "int_type": "not a whole number",
    "list_type": "not a list", "model_type": "not a mapping", "dict_type": "not a mapping",
}  # fmt: skip


def _problem(tree: Tree, schema: type[BaseModel], e: Any, alone: bool) -> InputError | None:
    # Names of union branches stand in the location; keep only what is in the file. An axis is a
    # list or a range: only the complaints of the branch that was meant count.
    place: list[str | int] = []
    node: Any = tree.values
    quantity = False
    for part in e["loc"]:
        inside = (isinstance(node, dict) and part in node) or (
            isinstance(node, list) and isinstance(part, int) and part < len(node)
        )
        if inside:
            node = node[part]
        elif e["type"] != "missing" or part != e["loc"][-1]:
            if isinstance(node, dict) != (part == "Range") and str(part)[:5] in ("Range", "list["):
                return None
            quantity = part in ("str", "float")
            continue
        place.append(part)
    if place == ["workload"]:
        return tree.error(tuple(place), "changes the workload, not the machine",
                          hint="make it an axis of a sweep, or use --set")  # fmt: skip
    if e["type"] == "extra_forbidden":
        known = _keys(schema, e["loc"][:-1])
        return tree.error(tuple(place), "unknown key", value=place[-1], allowed=", ".join(known),
                          hint=_unknown(str(place[-1]), known))  # fmt: skip
    if e["type"] == "missing":
        # Of a file that is right but for one key: else it is not finished.
        return tree.error(tuple(place), "is missing", hint=_OTHER if alone else None)
    message = e["msg"][0].lower() + e["msg"][1:]
    message = "not a quantity" if quantity else _TYPES.get(e["type"], message)
    return tree.error(tuple(place), message, value=e["input"])


def _unknown(key: str, known: list[str]) -> str:
    """Say what a key may have been meant to be, or else that the file may be too new or too old.

    Examples
    --------
    >>> _unknown("cpacity", ["bandwidth", "capacity"]), _unknown("version", ["title", "units"])
    ("did you mean 'capacity'?", 'a file of another npusim? see CHANGELOG.md')
    """
    # Who slips hits the first letter; without that rule a version would be a conversion.
    near = get_close_matches(key, [one for one in known if one[:1] == key[:1]], 1, 0.75)
    return f"did you mean {near[0]!r}?" if near else _OTHER


def _keys(schema: Any, loc: tuple[str | int, ...]) -> list[str]:
    """Return the keys that a level of a schema accepts."""
    for part in loc:
        fields = getattr(schema, "model_fields", {})
        if part in fields:
            annotation = fields[part].annotation
            options = getattr(annotation, "__args__", None) or (annotation,)
            schema = next((o for o in options if hasattr(o, "model_fields")), None)
        elif part == "Range":
            schema = Range
    return sorted(getattr(schema, "model_fields", {}))
