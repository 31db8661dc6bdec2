"""Lowerings: which kernels a framework runs for each operator of a model. They are data.

A lowering is a YAML file of ``workloads/lowerings``. For each operator (`OPERATORS`) it lists
steps: a ``kernel`` with its columns, another ``op`` that it is made of, or a list to ``do`` so many
``times``; each only ``when`` an expression holds. What a kernel does not say has defaults by its
kind (`npusim.templates.kernels`). A lowering may stand on another one (``base``) and change some
operators of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from npusim import catalog, units
from npusim.errors import InputError
from npusim.library import ROUTINES
from npusim.schema import Strict, checked
from npusim.templates.expressions import Expression
from npusim.templates.operators import OPERATORS
from npusim.workload import KINDS
from npusim.yaml_tree import Tree, read_tree

# What expressions know beside the sizes of their operator: bytes of an element of the model's
# type, and units of the machine whose libraries' choices the lowering repeats.
GLOBALS = ("item", "units")
# Routines that are no make of kernel of their own (`npusim.library`): ways of a product.
_WAYS = ("", "whole", "split")
_COLLECTIVES = (
    "all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send",
)  # fmt: skip
TEXTS = ("kind", "dtype", "of", "routine", "library", "operator")
NUMBERS: tuple[str, ...] = (
    "batch", "m", "n", "k", "heads", "kv_heads", "groups", "inputs", "reads", "results", "writes",
    "weights", "kv_reads", "kv_writes", "flop", "work", "blocks", "threads",
)  # fmt: skip


_OF_KERNELS = {*TEXTS, *NUMBERS, "sync"}


def _text(value: Any) -> Any:
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


_Formula = Annotated[str, BeforeValidator(_text)]


class _Step(Strict):
    """One step of an operator: exactly one of kernel, op and do."""

    kernel: str | None = None
    op: str | None = None
    do: list[_Step] | None = None
    sizes: dict[str, _Formula] = Field(default_factory=dict)
    times: _Formula = "1"
    when: _Formula = "1"
    kind: str | None = None
    dtype: str = "model"
    of: str | None = None  # type of what it reads, where it is another one
    routine: str = ""
    library: str | None = None
    operator: str | None = None
    batch: _Formula | None = None
    m: _Formula | None = None
    n: _Formula | None = None
    k: _Formula | None = None
    heads: _Formula | None = None
    kv_heads: _Formula | None = None
    groups: _Formula | None = None
    inputs: _Formula | None = None
    reads: _Formula | None = None
    results: _Formula | None = None
    writes: _Formula | None = None
    weights: _Formula | None = None
    kv_reads: _Formula | None = None
    kv_writes: _Formula | None = None
    flop: _Formula | None = None
    work: _Formula | None = None
    blocks: _Formula | None = None
    threads: _Formula | None = None
    sync: bool = False


class _Operator(Strict):
    let: dict[str, _Formula] = Field(default_factory=dict)
    steps: list[_Step]


class _Ngram(Strict):
    """What the host does to find n-grams that must not repeat, anew for every token."""

    fixed: str
    token: str  # for each token of a sequence
    source: Annotated[str, Field(min_length=3)]


_LEAST = 1e-3  # us: what was measured to take nothing is known, too
_Microseconds = Annotated[float, Field(ge=0, le=1e6)]


class _Host(Strict):
    """What the host does before kernels are launched [us], by operator and place."""

    source: Annotated[str, Field(min_length=3)]
    host_us: dict[str, dict[str, _Microseconds]]
    # before the first of a shape in a step, where a library plans it anew
    first_us: dict[str, dict[str, _Microseconds]] = Field(default_factory=dict)


class _File(Strict):
    title: Annotated[str, Field(min_length=3)]
    source: Annotated[str, Field(min_length=3)]
    base: str | None = None
    units: Annotated[int, Field(ge=1)] | None = None
    library: str | None = None
    experts: Literal["loop", "together"] | None = None
    latent: Literal["expanded", "absorbed"] | None = None
    ngram: _Ngram | None = None
    ops: dict[str, _Operator]


_HostTimes = Mapping[str, Mapping[str, tuple[float, float]]]


@dataclass(frozen=True)
class Step:
    """One step of an operator, its expressions read.

    Attributes
    ----------
    kernel, op : str or None
        Name of the kernel, or of the operator that it stands for.
    do : tuple of Step
        Steps that it repeats.
    sizes : mapping of str to Expression
        Sizes of the operator that it stands for.
    times, when : Expression
    texts : mapping of str to str or Expression
        Label columns of a kernel.
    numbers : mapping of str to Expression
        The others that are given.
    sync : bool
        Whether the host waits for it.
    place : str
        Where it stands in its operator, and its kernel: ``2 mul``, or ``2.0 mul`` in a list that is
        done.
    """

    kernel: str | None
    op: str | None
    do: tuple[Step, ...]
    sizes: Mapping[str, Expression]
    times: Expression
    when: Expression
    texts: Mapping[str, str | Expression]
    numbers: Mapping[str, Expression]
    sync: bool
    place: str


@dataclass(frozen=True)
class Lowering:
    """How a framework runs the operators of a model.

    Attributes
    ----------
    name, title, source : str
    units : int
        Compute units of the machine whose libraries' choices it repeats.
    library : str
        Of kernels that name none.
    experts : str
        ``loop`` over those that are hit, or all ``together``.
    latent : str
        How latent attention is done: ``expanded`` to all heads, or in decode ``absorbed`` into the
        queries, with a cache of latent vectors.
    ngram_s : tuple of float
        Host work to find n-grams that must not repeat: of a step, and for each token of each
        sequence [s].
    host_s : mapping of str to mapping of str to two floats
        What the host does before a kernel of an operator is launched, by the kernel's place, as
        far as it was measured: in general, and before the first of a shape in a step [s].
    ops : mapping of str to (let, steps)
    """

    name: str
    title: str
    source: str
    units: int
    library: str
    experts: str
    latent: str
    ngram_s: tuple[float, float]
    host_s: _HostTimes
    ops: Mapping[str, tuple[Mapping[str, Expression], tuple[Step, ...]]]


def load_lowering(name: str) -> Lowering:
    """Return a lowering by the name or path of its file.

    Raises
    ------
    InputError
        No such lowering, or a file that is not one: every problem with its line.

    Examples
    --------
    >>> load_lowering("hf-eager").experts
    'loop'
    """
    return _loaded(name, _written(catalog.folder("lowerings")))


def _written(folder: Path) -> tuple[tuple[str, int], ...]:
    """Return when each file of a folder was written, so that one that is edited is read again."""
    files = sorted(folder.rglob("*.yaml"))
    return tuple((str(file), file.stat().st_mtime_ns) for file in files)


def _loaded(name: str, written: tuple[tuple[str, int], ...]) -> Lowering:
    """Return a lowering that ships from what was read before, any other one anew."""
    return _kept(name, written) if name in catalog.names("lowerings") else _load(name, ())


@lru_cache(maxsize=32)
def _kept(name: str, written: tuple[tuple[str, int], ...]) -> Lowering:
    return _load(name, ())


def _load(name: str, above: tuple[str, ...]) -> Lowering:
    path = catalog.find("lowerings", name)
    if str(path) in above:
        raise InputError("stands on itself", file=path, place="base", value=name)
    tree = read_tree(path)
    file = checked(tree, _File)
    base = _load(file.base, (*above, str(path))) if file.base else None
    settings: dict[str, Any] = {
        s: getattr(file, s) or getattr(base, s, None)
        for s in ("units", "library", "experts", "latent")
    }
    if missing := [s for s, value in settings.items() if value is None]:
        raise tree.error((missing[0],), "is missing")
    if file.ngram is not None:
        ngram = _seconds(tree, file.ngram)
    elif base is not None:
        ngram = base.ngram_s
    else:
        raise tree.error(("ngram",), "is missing")
    ops = dict(base.ops) if base else {}
    ops |= {op: _operator(tree, op, given) for op, given in file.ops.items()}
    return Lowering(
        path.stem,
        file.title,
        file.source,
        ngram_s=ngram,
        host_s=_host(path, file.ops, base, ops),
        ops=ops,
        **settings,
    )


def _check_host(tree: Tree, given: _Host, ops: Mapping[str, Any]) -> None:
    """Refuse host times of what is not there."""
    for part, times in (("host_us", given.host_us), ("first_us", given.first_us)):
        for op, each in times.items():
            there = _places(ops[op][1]) if op in ops else set()
            for at in each:
                if at not in there or (part == "first_us" and at not in given.host_us.get(op, {})):
                    raise tree.error((part, op, at), "no kernel of the lowering stands there",
                                     value=at, allowed=", ".join(sorted(there)))  # fmt: skip


def _places(steps: tuple[Step, ...]) -> set[str]:
    """Return where kernels stand in an operator."""
    inner = [_places(s.do) for s in steps if s.do]
    return {s.place for s in steps if s.kernel is not None}.union(*inner)


def _host(
    path: Path, own: Mapping[str, Any], base: Lowering | None, ops: Mapping[str, Any]
) -> _HostTimes:
    """Return host times of a lowering: its own file's, and its base's of operators left alone."""
    found = {op: times for op, times in (base.host_s if base else {}).items() if op not in own}
    file = path.parent / "hosts" / path.name
    if file.is_file():
        tree = read_tree(file)
        given = checked(tree, _Host)
        _check_host(tree, given, ops)
        for op, times in given.host_us.items():
            first = given.first_us.get(op, {})
            found[op] = {at: (1e-6 * max(us, _LEAST), 1e-6 * max(first.get(at, us), _LEAST))
                         for at, us in times.items()}  # fmt: skip
    return found


def _seconds(tree: Tree, given: _Ngram) -> tuple[float, float]:
    """Return host times of the look for n-grams [s]."""
    found = []
    for field in ("fixed", "token"):
        try:
            value = units.parse(getattr(given, field), "s")
        except InputError as error:
            raise tree.error(("ngram", field), str(error)) from None
        if not 0 <= value <= 1:
            raise tree.error(("ngram", field), "out of bounds", value=value, allowed="0 s to 1 s")
        found.append(value)
    return found[0], found[1]


def _operator(
    tree: Tree, op: str, given: _Operator
) -> tuple[Mapping[str, Expression], tuple[Step, ...]]:
    if op not in OPERATORS:
        raise tree.error(("ops", op), "unknown operator", value=op,
                         allowed=", ".join(OPERATORS))  # fmt: skip
    known = {*OPERATORS[op], *GLOBALS}
    let = {}
    for name, text in given.let.items():
        if name in known:
            raise tree.error(("ops", op, "let", name), "has that name already", value=name,
                             allowed=f"names beside {', '.join(sorted(known))}")  # fmt: skip
        let[name] = _read(tree, ("ops", op, "let", name), text, known)
        known = known | {name}
    return let, _steps(tree, ("ops", op, "steps"), given.steps, known)


def _steps(
    tree: Tree, place: tuple[str | int, ...], steps: list[_Step], known: set[str]
) -> tuple[Step, ...]:
    return tuple(_step(tree, (*place, i), s, known) for i, s in enumerate(steps))


def _step(tree: Tree, place: tuple[str | int, ...], s: _Step, known: set[str]) -> Step:
    given = [what for what in ("kernel", "op", "do") if getattr(s, what) is not None]
    if len(given) != 1:
        raise tree.error(place, "needs exactly one of kernel, op, do", value=", ".join(given))
    taken = {"kernel": _OF_KERNELS, "op": {"sizes"}, "do": set()}[given[0]]
    if beside := sorted(s.model_fields_set - {given[0], "when", "times"} - taken):
        raise tree.error((*place, beside[0]), f"not of a step with {given[0]}", value=beside[0],
                         allowed=", ".join(sorted(taken | {"when", "times"})))  # fmt: skip
    if s.do is not None and not s.do:
        raise tree.error((*place, "do"), "does nothing")
    if s.kernel is not None and s.kind is None:
        raise tree.error((*place, "kind"), "is missing", allowed=", ".join((*KINDS, "product")))
    if s.kind is not None and s.kind not in (*KINDS, "product"):
        raise tree.error((*place, "kind"), "unknown kind", value=s.kind,
                         allowed=", ".join((*KINDS, "product")))  # fmt: skip
    if s.op is not None:
        wanted = OPERATORS.get(s.op)
        if wanted is None:
            raise tree.error((*place, "op"), "unknown operator", value=s.op,
                             allowed=", ".join(OPERATORS))  # fmt: skip
        if set(wanted) != set(s.sizes):
            raise tree.error((*place, "sizes"), "not the sizes of this operator",
                             value=", ".join(s.sizes), allowed=", ".join(wanted))  # fmt: skip

    def read(field: str, text: str) -> Expression:
        return _read(tree, (*place, field), text, known)

    texts: dict[str, str | Expression] = {}
    for field in TEXTS:
        text = getattr(s, field)
        if text is not None:
            texts[field] = read(field, text[1:].strip()) if text.startswith("=") else text
    routine = texts["routine"]
    known_routines = _COLLECTIVES if s.kind == "collective" else (*_WAYS, *ROUTINES)
    if isinstance(routine, str) and routine not in known_routines:
        raise tree.error((*place, "routine"), "unknown routine", value=routine,
                         allowed=", ".join(filter(None, known_routines)))  # fmt: skip
    numbers = {f: read(f, text) for f in NUMBERS if (text := getattr(s, f)) is not None}
    sizes = {size: _read(tree, (*place, "sizes", size), text, known)
             for size, text in s.sizes.items()}  # fmt: skip
    inner = _steps(tree, (*place, "do"), s.do or [], known)
    at = ".".join(str(part) for part in place[3:] if part != "do") + f" {s.kernel or ''}"
    return Step(s.kernel, s.op, inner, sizes, read("times", s.times), read("when", s.when),
                texts, numbers, s.sync, at)  # fmt: skip


def _read(tree: Tree, place: tuple[str | int, ...], text: str, known: set[str]) -> Expression:
    try:
        expression = Expression(text)
    except InputError as error:
        raise tree.error(place, str(error)) from None
    if unknown := sorted(expression.names - known):
        raise tree.error(place, "unknown name", value=unknown[0],
                         allowed=", ".join(sorted(known)))  # fmt: skip
    return expression
