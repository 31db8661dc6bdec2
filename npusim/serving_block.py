"""Serving studies: YAML with a model, a machine, an engine and requests, to values in SI units.

A study is a question with a ``serving:`` block. Flags of engines keep the names that vLLM and
FastDeploy give them, with underscores.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, ValidationError

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
_MOST_RUNS = 10_000


def _plain(value: Any) -> Any:
    if not isinstance(value, str | float | int):
        raise ValueError("not a single value")
    return value


def _quantity_only(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, str | float | int):
        raise ValueError("not a quantity")
    return value


# Checked as one, so that a mistake is told once and not for each type that it might have been.
_Quantity = Annotated[str | float | int, BeforeValidator(_quantity_only)]
_Plain = Annotated[str | float | int | bool, BeforeValidator(_plain)]


def _from_text(value: Any) -> Any:
    """Return a number that YAML takes for text: 1e3 has no point."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return value


# Changes of the workload that every step of an engine can have.
OF_STEPS = ("workload.weight_bits", "workload.weight_group", "workload.scales",
             "workload.arithmetic", "workload.quantize", "workload.kv_bits",
             "workload.expert_skew")  # fmt: skip


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
    framework: Literal["vllm", "vllm-0.19", "fastdeploy"] = "vllm"
    step_overhead: _Quantity = 0.0
    tensor: Annotated[int, Field(ge=1, le=1024)] = 1


class Prefill(Strict):
    """Engines on which prompts enter; what is not given is as for those that answer."""

    engines: _Count = 1
    arch: _Text | None = None
    engine: Engine | None = None


class Lengths(Strict):
    """Lengths by chance; a whole number alone is the length of all."""

    mean: Annotated[float, Field(ge=1, le=100_000_000)]
    spread: Annotated[float, Field(ge=0, le=10)] = 0.0


def _lengths(value: Any) -> Any:
    if isinstance(value, Lengths | dict):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100_000_000:
        raise ValueError("neither a whole number of tokens from 1 nor a mapping of mean and spread")
    return Lengths(mean=value)


_Tokens = Annotated[Lengths, BeforeValidator(_lengths)]


class Requests(Strict):
    """What is asked for."""

    arrivals: Literal["poisson", "clients", "file"]
    rate_per_s: Annotated[float, BeforeValidator(_from_text), Field(gt=0, le=1e9)] | None = None
    count: _Count | None = None
    clients: _Count | None = None
    each: _Count | None = None
    think: _Quantity | None = None
    rounds: bool | None = None
    file: _Text | None = None
    time_unit: Literal["s", "ms", "us"] | None = None
    columns: dict[str, str] | None = None
    prompt: _Tokens | None = None
    output: _Tokens | None = None
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
    axes: dict[str, Annotated[list[_Plain], Field(min_length=1)]] = Field(default_factory=dict)


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
    "file": (("file",), ("time_unit", "columns", "rate_per_s", "count")),
})  # fmt: skip
_UNITS = {"step_overhead": "s", "think": "s", "latency": "s", "ttft": "s", "tpot": "s",
          "until": "s"}  # fmt: skip
# What axes may vary: values of these, those of the block itself among `_PLAIN` only.
_GROUPS: Mapping[str, Any] = MappingProxyType({
    "": Serving, "engine": Engine, "requests": Requests, "prefill": Prefill,
})  # fmt: skip
_PLAIN = ("engines", "route", "launch", "lowering")
_FIXED = ("arrivals", "columns", "image", "engine")  # no single values, or another study


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
    if "serving" not in tree.values:
        hint = "it has a sweep block: npusim sweep answers it" if "sweep" in tree.values else None
        raise InputError("no serving block", file=file, hint=hint)
    read = checked(tree, _File)
    errors: list[InputError] = []
    block = _quantities(tree, read.serving, ("serving",), errors)
    _check_requests(tree, read.serving, errors)
    settings = _settings(tree, read.serving.set, errors)
    axes = {p: _axis(tree, p, values, errors) for p, values in read.serving.axes.items()}
    for path in axes:
        if path.startswith("prefill.") and read.serving.prefill is None:
            errors.append(tree.error(("serving", "axes", path), "has no effect without prefill"))
    if not _has_links(read.serving):
        for path in (*axes, *read.serving.set):
            if path.startswith("link."):
                where = "axes" if path in axes else "set"
                errors.append(tree.error(("serving", where, path), "has no effect with one chip an "
                                         "engine and no prefill"))  # fmt: skip
    errors += _idle(tree, read.serving)
    runs = 1
    for values in axes.values():
        runs *= len(values)
    if runs > _MOST_RUNS:
        errors.append(tree.error(("serving", "axes"), "too many runs", value=runs,
                                 allowed=f"up to {_MOST_RUNS:,}"))  # fmt: skip
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
    block = _beside(file, block.model_copy(update={"set": settings, "axes": {}}))
    arch = _path_beside(file, read.arch)
    return ServingFile(file, read.title, read.question, read.source, arch, block, axes)


def _beside(file: Path, block: Serving) -> Serving:
    """Return a block whose files are looked for beside the study first."""
    found: dict[str, Any] = {
        n: _path_beside(file, getattr(block, n)) for n in ("model", "lowering")
    }
    if block.prefill is not None and block.prefill.arch is not None:
        arch = _path_beside(file, block.prefill.arch)
        found["prefill"] = block.prefill.model_copy(update={"arch": arch})
    return block.model_copy(update=found)


def _path_beside(file: Path, name: str) -> str:
    try:
        return str(file.parent / name) if (file.parent / name).is_file() else name
    except (OSError, ValueError):
        return name


def _idle(tree: Tree, block: Serving) -> Iterator[InputError]:
    """Yield what is given and does nothing beside something else."""
    engines: list[tuple[Place, Engine]] = [(("serving", "engine"), block.engine)]
    if block.prefill is not None and block.prefill.engine is not None:
        engines.append((("serving", "prefill", "engine"), block.prefill.engine))
    for place, engine in engines:
        for name in ("gpu_memory_utilization", "framework"):
            if engine.kv_blocks and name in engine.model_fields_set:
                yield tree.error((*place, name), "has no effect where kv_blocks is given")
    for path, values in block.axes.items():
        if len(set(map(str, values))) < len(values):
            yield tree.error(("serving", "axes", path), "value given twice")


def _has_links(block: Serving) -> bool:
    """Return whether anything goes between chips."""
    several = block.engine.tensor > 1 or "engine.tensor" in block.axes
    return several or block.prefill is not None


def with_axis(block: Serving, path: str, value: Any) -> Serving:
    """Return a block with another value at a path of `axes`; those of machines go to ``set``."""
    if path in PARAMETERS:
        return block.model_copy(update={"set": {**block.set, path: value}})
    *groups, leaf = path.split(".")
    if not groups:
        return block.model_copy(update={leaf: value})
    inner = getattr(block, groups[0])
    return block.model_copy(update={groups[0]: inner.model_copy(update={leaf: value})})


def axis_unit(path: str) -> str:
    """Return the unit of an axis's values, "1" for what has none.

    Examples
    --------
    >>> axis_unit("link.bandwidth"), axis_unit("engine.step_overhead"), axis_unit("engines")
    ('B/s', 's', '1')
    """
    if path in PARAMETERS:
        return PARAMETERS[path].unit
    return _UNITS.get(path.rpartition(".")[2], "1")


def axis_text(path: str, value: Any) -> str:
    """Return a value of an axis as short text.

    Examples
    --------
    >>> axis_text("link.bandwidth", 64e9), axis_text("requests.prompt", 2048)
    ('64 GB/s', '2048')
    """
    unit = axis_unit(path)
    if unit != "1":
        return units.show(value, unit)
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _check_requests(tree: Tree, block: Serving, errors: list[InputError]) -> None:
    """Add what kinds of arrivals lack, and what they have no use for; axes give values too."""
    requests = block.requests
    needed, more = _ARRIVALS[requests.arrivals]
    place: Place = ("serving", "requests")
    given = {name: (*place, name) for name in requests.model_fields_set
             if getattr(requests, name) is not None}  # fmt: skip
    for path in block.axes:
        group, _, name = path.partition(".")
        if group == "requests" and name in Requests.model_fields:
            given.setdefault(name, ("serving", "axes", path))
    for name in needed:
        if name not in given:
            errors.append(tree.error(place, f"{requests.arrivals} needs {name}"))
    for name in sorted(given.keys() - {"arrivals", *needed, *more}):
        errors.append(tree.error(given[name], f"has no effect with arrivals: {requests.arrivals}",
                                 allowed=", ".join((*needed, *more))))  # fmt: skip
    if "images" in given and "image" not in given:
        errors.append(tree.error(given["images"], "has no effect without image"))


def _quantities(tree: Tree, model: Any, place: Place, errors: list[InputError]) -> Any:
    """Return a block with its quantities in SI units."""
    found: dict[str, Any] = {}
    for name in type(model).model_fields:
        value = getattr(model, name)
        if isinstance(value, Strict):
            found[name] = _quantities(tree, value, (*place, name), errors)
        elif name in _UNITS and value is not None and name in model.model_fields_set:
            found[name] = _quantity(tree, (*place, name), value, _UNITS[name], errors)
    return model.model_copy(update=found)


def _quantity(tree: Tree, place: Place, raw: Any, unit: str, errors: list[InputError]) -> float:
    try:
        value = units.parse(raw, unit)
        if value < 0 or (value == 0 and place[-1] == "until"):
            least = "above 0" if place[-1] == "until" else "from 0"
            raise InputError("out of bounds", value=raw, allowed=f"{least} {unit}")
    except InputError as error:
        errors.append(tree.error(place, str(error)))
        return 0.0
    return value


def _settings(tree: Tree, given: Mapping[str, Any], errors: list[InputError]) -> dict[str, float]:
    found: dict[str, float] = {}
    for path, raw in given.items():
        for value in _of_machine(tree, ("serving", "set", path), path, [raw], errors):
            found[path] = value
    return found


def _axis(tree: Tree, path: str, values: list[Any], errors: list[InputError]) -> tuple[Any, ...]:
    """Return the values of an axis."""
    place: Place = ("serving", "axes", path)
    if path in PARAMETERS:
        return _of_machine(tree, place, path, values, errors)
    group, _, leaf = path.rpartition(".")
    schema: Any = _GROUPS.get(group)
    if schema is None or leaf not in _varied(group):
        errors.append(tree.error(place, "unknown axis", value=path, allowed=_near(path)))
        return ()
    if leaf in _UNITS:
        return tuple(_quantity(tree, place, v, _UNITS[leaf], errors) for v in values)
    for value in values:
        try:
            schema.__pydantic_validator__.validate_assignment(schema.model_construct(), leaf, value)
        except ValidationError as wrong:
            why = wrong.errors()[0]["msg"].removeprefix("Value error, ")
            errors.append(tree.error(place, "not a value of it", value=value, hint=why.lower()))
    return tuple(values)


def _varied(group: str) -> list[str]:
    """Return what of a group an axis may vary."""
    if not group:
        return list(_PLAIN)
    return [name for name in _GROUPS[group].model_fields if name not in _FIXED]


def _near(path: str) -> str:
    """Return what an unknown axis may have meant, as text for a message."""
    group = path.partition(".")[0]
    if group and group in _GROUPS:
        return ", ".join(f"{group}.{name}" for name in _varied(group))
    if any(known.startswith(f"{group}.") for known in PARAMETERS) and group != "workload":
        return siblings(path)
    groups = ", ".join(f"{g}.*" for g in _GROUPS if g)
    return f"{', '.join(_PLAIN)}, {groups} or a path of a machine"


def _of_machine(
    tree: Tree, place: Place, path: str, values: list[Any], errors: list[InputError]
) -> tuple[float, ...]:
    if path in TRANSFORMABLE and path not in OF_STEPS:
        errors.append(tree.error(place, "cannot be changed for every step of an engine",
                                 value=path, allowed=", ".join(OF_STEPS)))  # fmt: skip
        return ()
    if path not in PARAMETERS:
        errors.append(tree.error(place, "unknown parameter", value=path, allowed=siblings(path)))
        return ()
    found: list[float] = []
    for raw in values:
        try:
            found.append(check(path, units.parse(raw, PARAMETERS[path].unit)))
        except InputError as error:
            errors.append(tree.error(place, str(error).removeprefix(f"{path}: ")))
    return tuple(found)
