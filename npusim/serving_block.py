"""Serving studies: YAML with a model, a machine, an engine and requests, to values in SI units.

A study is a question with a ``serving:`` block. Flags of engines keep the names that vLLM and
FastDeploy give them, with underscores.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import Field

from npusim import units
from npusim.arch import check, siblings
from npusim.errors import InputError, InputErrors
from npusim.parameters import PARAMETERS
from npusim.schema import Strict, checked
from npusim.transforms import TRANSFORMABLE
from npusim.yaml_tree import Place, Tree, read_tree

_Count = Annotated[int, Field(ge=1, le=10_000_000)]
_Some = Annotated[int, Field(ge=0, le=10_000_000)]
_Text = Annotated[str, Field(min_length=1)]
_Quantity = str | float | int
_MOST_RUNS = 10_000


class Engine(Strict):
    """One engine and its flags."""

    max_num_seqs: _Count = 256
    max_num_batched_tokens: _Count = 2048
    max_model_len: _Count = 8192
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = 0.9
    block_size: Annotated[int, Field(ge=1, le=4096)] = 16
    kv_blocks: _Some = 0
    chunked_prefill: bool = True
    prefill_apart: bool = False
    one_prompt_a_step: bool = False
    prefix_caching: bool = True
    encoder_cache_tokens: _Some = 0
    step_overhead: _Quantity = "0 s"
    tensor: Annotated[int, Field(ge=1, le=1024)] = 1


class Prefill(Strict):
    """Engines on which prompts enter; what is not given is as for those that answer."""

    engines: _Count = 1
    arch: _Text | None = None
    engine: Engine | None = None


class Lengths(Strict):
    """Lengths by chance."""

    mean: Annotated[float | int, Field(ge=1)]
    spread: Annotated[float | int, Field(ge=0, le=10)] = 0.0


class Requests(Strict):
    """What is asked for."""

    arrivals: Literal["poisson", "clients", "file"]
    rate_per_s: Annotated[float | int, Field(gt=0)] | None = None
    count: _Count | None = None
    clients: _Count | None = None
    each: _Count | None = None
    think: _Quantity | None = None
    rounds: bool | None = None
    file: _Text | None = None
    time_unit: Literal["s", "ms", "us"] | None = None
    columns: dict[str, str] | None = None
    prompt: _Count | Lengths | None = None
    output: _Count | Lengths | None = None
    prefix_tokens: _Some | None = None
    image: Annotated[list[_Count], Field(min_length=2, max_length=2)] | None = None
    images: _Count | None = None
    seed: Annotated[int, Field(ge=0)] | None = None


class Limits(Strict):
    """What a request may take."""

    ttft: _Quantity | None = None
    tpot: _Quantity | None = None
    latency: _Quantity | None = None


class Serving(Strict):
    """What a ``serving:`` block may hold."""

    model: _Text
    lowering: _Text = "serving"
    launch: Literal["eager", "graph", "queue"] = "graph"
    settings: dict[str, str | int | float | bool] = Field(default_factory=dict)
    set: dict[str, _Quantity] = Field(default_factory=dict)
    engine: Engine = Engine()
    engines: _Count = 1
    route: Literal["least_loaded", "round_robin"] = "least_loaded"
    prefill: Prefill | None = None
    requests: Requests
    limits: Limits = Limits()
    until: _Quantity | None = None
    axes: dict[str, Annotated[list[_Quantity], Field(min_length=1)]] = Field(default_factory=dict)


class _File(Strict):
    title: _Text
    question: _Text
    source: Annotated[str, Field(min_length=3)]
    arch: _Text
    serving: Serving


# What each kind of arrivals needs, and what else it may have.
_ARRIVALS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = MappingProxyType({
    "poisson": (("rate_per_s", "count", "prompt", "output"),
                ("seed", "prefix_tokens", "image", "images")),
    "clients": (("clients", "each", "prompt", "output"),
                ("think", "rounds", "seed", "prefix_tokens", "image", "images")),
    "file": (("file",), ("time_unit", "columns", "rate_per_s", "count", "seed")),
})  # fmt: skip
_UNITS = {"step_overhead": "s", "think": "s", "latency": "s", "ttft": "s", "tpot": "s",
          "until": "s"}  # fmt: skip
# What axes may vary: values of these, those of the block itself among `_PLAIN` only.
_GROUPS: Mapping[str, Any] = MappingProxyType({
    "": Serving, "engine": Engine, "requests": Requests, "prefill": Prefill,
})  # fmt: skip
_PLAIN = ("engines", "route", "launch", "lowering")


@dataclass(frozen=True)
class ServingFile:
    """A serving study as it stands in its file, quantities in SI units.

    Attributes
    ----------
    file : Path
    title, question, source, arch : str
    block : Serving
    axes : mapping of str to tuple
        Values of each thing that varies: a dotted path in the block, or of a machine [SI].
    """

    file: Path
    title: str
    question: str
    source: str
    arch: str
    block: Serving
    axes: Mapping[str, tuple[Any, ...]]


def read_serving(file: Path) -> ServingFile:
    """Read a serving study.

    Raises
    ------
    InputError, InputErrors
        Every mistake in the file, each with its line and dotted path.
    """
    tree = read_tree(file)
    read = checked(tree, _File)
    errors: list[InputError] = []
    block = _quantities(tree, read.serving, ("serving",), errors)
    _check_requests(tree, read.serving.requests, errors)
    settings = _settings(tree, read.serving.set, errors)
    axes = {p: _axis(tree, p, values, errors) for p, values in read.serving.axes.items()}
    runs = 1
    for values in axes.values():
        runs *= len(values)
    if runs > _MOST_RUNS:
        errors.append(tree.error(("serving", "axes"), "too many runs", value=runs,
                                 allowed=f"up to {_MOST_RUNS:,}"))  # fmt: skip
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    block = block.model_copy(update={"set": settings, "axes": {}})
    return ServingFile(file, read.title, read.question, read.source, read.arch, block, axes)


def with_axis(block: Serving, path: str, value: Any) -> Serving:
    """Return a block with another value at a path of `axes`; those of machines go to ``set``."""
    if path in PARAMETERS:
        return block.model_copy(update={"set": {**block.set, path: value}})
    *groups, leaf = path.split(".")
    if not groups:
        return block.model_copy(update={leaf: value})
    inner = getattr(block, groups[0])
    return block.model_copy(update={groups[0]: inner.model_copy(update={leaf: value})})


def _check_requests(tree: Tree, requests: Requests, errors: list[InputError]) -> None:
    """Add what kinds of arrivals lack, and what they have no use for."""
    needed, more = _ARRIVALS[requests.arrivals]
    given = {name for name in requests.model_fields_set if getattr(requests, name) is not None}
    for name in needed:
        if name not in given:
            errors.append(tree.error(("serving", "requests"),
                                     f"{requests.arrivals} needs {name}"))  # fmt: skip
    for name in sorted(given - {"arrivals", *needed, *more}):
        place: Place = ("serving", "requests", name)
        errors.append(tree.error(place, f"has no effect with arrivals: {requests.arrivals}",
                                 allowed=", ".join((*needed, *more))))  # fmt: skip


def _quantities(tree: Tree, model: Any, place: Place, errors: list[InputError]) -> Any:
    """Return a block with its quantities in SI units."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Strict):
            found[name] = _quantities(tree, value, (*place, name), errors)
        elif name in _UNITS and value is not None:
            found[name] = _quantity(tree, (*place, name), value, _UNITS[name], errors)
    return model.model_copy(update=found)


def _quantity(
    tree: Tree, place: Place, raw: _Quantity, unit: str, errors: list[InputError]
) -> float:
    try:
        value = units.parse(raw, unit)
        if value < 0 or (value == 0 and place[-1] == "until"):
            raise InputError("out of bounds", value=raw, allowed=f"above 0 {unit}")
    except InputError as error:
        errors.append(tree.error(place, str(error)))
        return 0.0
    return value


def _settings(
    tree: Tree, given: Mapping[str, _Quantity], errors: list[InputError]
) -> dict[str, float]:
    found: dict[str, float] = {}
    for path, raw in given.items():
        for value in _of_machine(tree, ("serving", "set", path), path, [raw], errors):
            found[path] = value
    return found


def _axis(
    tree: Tree, path: str, values: list[_Quantity], errors: list[InputError]
) -> tuple[Any, ...]:
    """Return the values of an axis."""
    place: Place = ("serving", "axes", path)
    if path in PARAMETERS:
        return _of_machine(tree, place, path, values, errors)
    *groups, leaf = path.split(".")
    schema: Any = _GROUPS.get(".".join(groups))
    if schema is None or leaf not in schema.model_fields or (not groups and leaf not in _PLAIN):
        known = [f"{g}.{n}" for g, s in _GROUPS.items() if g for n in s.model_fields]
        allowed = f"{', '.join((*_PLAIN, *known))} or a path of a machine"
        errors.append(tree.error(place, "unknown axis", value=path, allowed=allowed))
        return ()
    if leaf in _UNITS:
        return tuple(_quantity(tree, place, v, _UNITS[leaf], errors) for v in values)
    for value in values:
        try:
            schema.__pydantic_validator__.validate_assignment(schema.model_construct(), leaf, value)
        except ValueError:
            errors.append(tree.error(place, "not a value of it", value=value))
    return tuple(values)


def _of_machine(
    tree: Tree, place: Place, path: str, values: list[_Quantity], errors: list[InputError]
) -> tuple[float, ...]:
    if path not in PARAMETERS or path in TRANSFORMABLE:
        errors.append(tree.error(place, "no parameter of a machine", value=path,
                                 allowed=siblings(path)))  # fmt: skip
        return ()
    found: list[float] = []
    for raw in values:
        try:
            found.append(check(path, units.parse(raw, PARAMETERS[path].unit)))
        except InputError as error:
            errors.append(tree.error(place, str(error).removeprefix(f"{path}: ")))
    return tuple(found)
