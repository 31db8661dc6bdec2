"""What claims measure beside replays: one file a quantity, found by its name.

A quantity has ``Options`` (what a study file may say), ``UNIT``, ``FIGURE`` (what its value is, in
words), ``doubts`` (the assumed numbers that it hangs on) and ``measure``.
"""

from __future__ import annotations

from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import Any


@cache
def names() -> tuple[str, ...]:
    """Return the names of all quantities, sorted.

    Examples
    --------
    >>> "time_share" in names()
    True
    """
    return tuple(sorted(module.name for module in iter_modules(__path__)))


def find(name: str) -> Any:
    """Return the module of a quantity."""
    return import_module(f"npusim.studies.quantities.{name}")
