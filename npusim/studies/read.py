"""From a study file to claims, every mistake told with its line and place."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError

from npusim import catalog
from npusim.config import read_study
from npusim.errors import InputError, InputErrors
from npusim.parameters import PARAMETERS
from npusim.schema import checked
from npusim.studies import figures, quantities, work
from npusim.studies.claim import (
    BATCHES,
    LAUNCHES,
    MODELS,
    Claim,
    Compare,
    Flip,
    Measure,
    Question,
    Rule,
    Side,
)
from npusim.studies.figures.about import About
from npusim.studies.side import FIGURES, number, side
from npusim.studies.value import Doubt
from npusim.sweep_block import Strict
from npusim.yaml_tree import Place, Tree, read_tree

_Text = Annotated[str, Field(min_length=3)]
_Launch = Literal["eager", "graph", "queue"]
_VERDICTS = Literal["supported", "refuted", "undecided", "supported in part"]


class _Holds(Strict):
    least: float | None = None
    most: float | None = None


class _Compare(Strict):
    figure: str
    design: dict[str, str | int | float]
    against: dict[str, str | int | float] = Field(default_factory=dict)


class _Claim(Strict):
    says: _Text
    source: _Text
    compare: _Compare | None = None
    measure: dict[str, Any] | None = None
    cases: Annotated[dict[str, dict[str, Any]], Field(min_length=1)] | None = None
    holds: _Holds
    rule: _Text
    work: Literal["decode", "page", "vision", "prefill", "step"] | None = None
    models: Annotated[list[str], Field(min_length=1)] | None = None
    batch: Annotated[list[Annotated[int, Field(ge=1, le=1024)]], Field(min_length=1)] | None = None
    launch: Annotated[list[_Launch], Field(min_length=1)] | None = None
    doubts: dict[str, Annotated[list[str | float], Field(min_length=2, max_length=2)]] | None = None
    note: str = ""


class _Flip(Strict):
    claim: str
    set: Annotated[dict[str, Any], Field(min_length=1)]
    to: _VERDICTS
    because: _Text


class _File(Strict):
    title: _Text
    question: _Text
    source: _Text
    arch: str
    sweep: Any = None
    claims: Annotated[dict[str, _Claim], Field(min_length=1)]
    flips: _Flip | None = None
    figures: list[dict[str, Any]] = Field(default_factory=list)


def claimed() -> list[str]:
    """Return the names of the studies that ship with claims, sorted."""
    return [name for name in catalog.names("studies") if has_claims(catalog.find("studies", name))]


def has_claims(file: Path) -> bool:
    """Return whether a study file has claims."""
    return "claims" in read_tree(file).values


def read_question(name: str) -> Question:
    """Read a study with claims.

    Parameters
    ----------
    name : str
        Path, or name of a study that ships.

    Raises
    ------
    InputError, InputErrors
        Every mistake in the file, each with its line and dotted path.

    Examples
    --------
    >>> question = read_question("bandwidth")
    >>> question.arch, len(question.claims) > 0
    ('decode_npu', True)
    """
    file = catalog.find("studies", name)
    tree = read_tree(file)
    if "claims" not in tree.values:
        raise InputError("has no claims", file=file,
                         hint="`npusim sweep` answers what has a sweep block alone")  # fmt: skip
    read = checked(tree, _File)
    designs = None
    if read.sweep is not None:
        sweep = read_study(file).sweep
        designs = math.prod(map(len, sweep.axes.values())) * len(sweep.launch)
    errors: list[InputError] = []
    claims = tuple(_claim(tree, name, given, errors) for name, given in read.claims.items())
    flips = _flip(tree, read, errors)
    for i, figure in enumerate(read.figures):
        _check_figure(tree, ("figures", i), figure, About(tuple(read.claims), designs), errors)
    _refuse(errors)
    return Question(
        str(name), file.stem, read.title, read.question, read.source, read.arch, claims, flips,
        tuple(read.figures), read.sweep is not None,
    )  # fmt: skip


def _claim(tree: Tree, name: str, given: _Claim, errors: list[InputError]) -> Claim:
    place: Place = ("claims", name)
    least, most = given.holds.least, given.holds.most
    if least is None and most is None:
        errors.append(tree.error((*place, "holds"), "bounds nothing", allowed="least, most"))
    elif least is not None and most is not None and least > most:
        errors.append(tree.error((*place, "holds"), "least is above most"))
    rule = Rule(-math.inf if least is None else least, math.inf if most is None else most,
                given.rule)  # fmt: skip
    test: Compare | Measure
    if (given.compare is None) == (given.measure is None):
        errors.append(tree.error(place, "needs one of compare and measure"))
        test = Measure("", {})
    elif given.compare is not None:
        test = _compare(tree, place, given, given.compare, errors)
    else:
        test = _measure(tree, place, given, given.measure or {}, errors)
    return Claim(name, given.says, given.source, rule, test, given.note)


def _compare(
    tree: Tree, place: Place, given: _Claim, compare: _Compare, errors: list[InputError]
) -> Compare:
    for key in ("cases", "doubts"):
        if getattr(given, key) is not None:
            errors.append(tree.error((*place, key), "belongs to measure"))
    if compare.figure not in FIGURES:
        errors.append(tree.error((*place, "compare", "figure"), "no figure of a design",
                                 value=compare.figure, allowed=", ".join(FIGURES)))  # fmt: skip
    design = _side(tree, (*place, "compare", "design"), compare.design, errors)
    against = _side(tree, (*place, "compare", "against"), compare.against, errors)
    launches = tuple(mode for mode in LAUNCHES if mode in (given.launch or LAUNCHES))
    models = tuple(given.models or MODELS)
    own = all(map(work.is_own, models))
    of = given.work or (work.STEP if own else "decode")
    batches = tuple(given.batch or ((1,) if own else BATCHES))
    try:
        work.check(models, of, batches)
    except InputError as error:
        errors.append(tree.error(place, str(error)))
    return Compare(compare.figure, design, against, of, models, batches, launches)


def _side(
    tree: Tree, place: Place, given: Mapping[str, str | float], errors: list[InputError]
) -> Side:
    def wrong(key: str, problem: str) -> None:
        errors.append(tree.error((*place, key), problem))

    return side(given, "sweep" in tree.values, wrong)


def _measure(
    tree: Tree, place: Place, given: _Claim, measure: Mapping[str, Any], errors: list[InputError]
) -> Measure:
    for key in ("work", "models", "batch", "launch"):
        if getattr(given, key) is not None:
            errors.append(tree.error((*place, key), "belongs to compare"))
    name = measure.get("quantity")
    if name not in quantities.names():
        errors.append(tree.error((*place, "measure", "quantity"), "no such quantity", value=name,
                                 allowed=", ".join(quantities.names())))  # fmt: skip
        return Measure("", {})
    options = {key: value for key, value in measure.items() if key != "quantity"}
    cases = {}
    for case, more in (given.cases or {"": {}}).items():
        try:
            cases[case] = quantities.find(str(name)).Options.model_validate({**options, **more})
        except ValidationError as found:
            errors += [_wrong(tree, place, case, more, e) for e in found.errors()]
        except InputError as error:
            errors.append(tree.error((*place, "measure"), str(error)))
    return Measure(str(name), cases, _doubts(tree, place, given.doubts or {}, errors))


def _wrong(tree: Tree, place: Place, case: str, more: Mapping[str, Any], found: Any) -> InputError:
    """Return what pydantic found wrong with an option, in our words."""
    loc = tuple(found["loc"])
    inside = ("cases", case) if loc and loc[0] in more else ("measure",)
    problems = {"missing": "is missing", "extra_forbidden": "unknown option"}
    text = problems.get(found["type"], found["msg"])
    shown = {} if found["type"] == "missing" else {"value": found["input"]}
    return tree.error((*place, *inside, *loc), text, **shown)


def _doubts(
    tree: Tree, place: Place, given: Mapping[str, list[str | float]], errors: list[InputError]
) -> dict[str, Doubt]:
    found = {}
    for path, ends in given.items():
        try:
            low, high = (number(path, end) for end in ends)
        except InputError as error:
            errors.append(tree.error((*place, "doubts", path), str(error)))
            continue
        p = PARAMETERS[path]
        found[path] = Doubt(math.nan, low, high, p.unit, "range of the study", (p.low, p.high))
    return found


def _flip(tree: Tree, read: _File, errors: list[InputError]) -> Flip | None:
    if read.flips is None:
        return None
    if read.flips.claim not in read.claims:
        errors.append(tree.error(("flips", "claim"), "no such claim", value=read.flips.claim,
                                 allowed=", ".join(read.claims)))  # fmt: skip
    return Flip(read.flips.claim, read.flips.set, read.flips.to, read.flips.because)


def _check_figure(
    tree: Tree, place: Place, given: Mapping[str, Any], about: About, errors: list[InputError]
) -> None:
    if len(given) != 1 or next(iter(given)) not in figures.names():
        errors.append(tree.error(place, "not a figure", value=", ".join(given),
                                 allowed="one of " + ", ".join(figures.names())))  # fmt: skip
        return
    ((kind, options),) = given.items()
    for loc, problem, more in figures.faults(kind, options, about):
        errors.append(tree.error((*place, kind, *loc), problem, **more))


def _refuse(errors: list[InputError]) -> None:
    if errors:
        raise errors[0] if len(errors) == 1 else InputErrors(errors)
