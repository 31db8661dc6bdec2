"""Figures that a study asks for: one file of ``kinds`` a kind, found by its name.

A kind has ``Options`` (what a study file may say) and ``pictures``, a generator. It yields the lots
that it wants replayed (`npusim.studies.bench.Lot`), is sent their tables, as often as it needs to,
and returns its pictures; so all figures of all studies wait for one bench together
(`npusim.studies.figures.drawing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from pydantic import ValidationError

from npusim.errors import InputError
from npusim.studies.figures import kinds
from npusim.studies.figures.about import About

Loc = tuple[str | int, ...]

_WORDS = {"missing": "is missing", "extra_forbidden": "unknown option",
          "model_type": "not a mapping", "dict_type": "not a mapping", "list_type": "not a list",
          "string_type": "not text", "int_type": "not a whole number",
          "float_type": "not a number"}  # fmt: skip


@cache
def names() -> tuple[str, ...]:
    """Return the names of all kinds, sorted.

    Examples
    --------
    >>> "curve" in names()
    True
    """
    return tuple(sorted(module.name for module in iter_modules(kinds.__path__)))


def find(name: str) -> Any:
    """Return the module of a kind."""
    return import_module(f"npusim.studies.figures.kinds.{name}")


def options(name: str, given: Mapping[str, Any], about: About) -> Any:
    """Return what a study file says of a figure, checked.

    Raises
    ------
    InputError
        The first mistake.
    """
    for loc, problem, more in faults(name, given, about):
        raise InputError(problem, place=".".join(map(str, (name, *loc))), **more)
    return find(name).Options.model_validate(given, context=about)


def faults(name: str, given: Any, about: About) -> Iterator[tuple[Loc, str, dict[str, Any]]]:
    """Yield every mistake in the options of a figure: where, what, and more for `InputError`.

    Examples
    --------
    >>> about = About(("enough",), None)
    >>> list(faults("tornado", {"claim": "enough"}, about))
    []
    >>> list(faults("tornado", {"claim": "much"}, about))
    [(('claim',), 'no such claim', {'value': 'much', 'allowed': 'enough'})]
    """
    model = find(name).Options
    try:
        model.model_validate(given, context=about)
    except ValidationError as found:
        for error in found.errors():
            yield _told(model, error)


def _told(model: Any, error: Any) -> tuple[Loc, str, dict[str, Any]]:
    """Return what pydantic found wrong, in our words."""
    loc = tuple(part for part in error["loc"] if part not in ("str", "float"))  # of a union
    problem = _WORDS.get(error["type"], error["msg"])
    if error["type"] == "missing":
        return loc, problem, {}
    more = {"value": error["input"]}
    if error["type"] == "extra_forbidden":
        more = {"value": loc[-1]}
        if len(loc) == 1:
            more["allowed"] = ", ".join(model.model_fields)
    elif error["type"] == "literal_error":
        problem = "not one of those allowed"
        more["allowed"] = error["ctx"]["expected"].replace("'", "")
    elif error["type"] == "input":  # raised by us, see `npusim.studies.figures.fields`
        problem, more = error["ctx"]["problem"], dict(error["ctx"]["more"])
    return loc, problem, more
