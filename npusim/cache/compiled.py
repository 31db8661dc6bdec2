"""Loops that numba compiles, when they are first called: importing npusim does not load numba.

A kernel and all that it calls live in one file: numba keeps compiled code beside the source (or in
the user's cache folder) for as long as the file of the kernel itself does not change. Kernels and
helpers make no arrays, so that none need be counted: with counts they take 2.5 times as long.
Where that folder is full, or what is kept there is damaged, they are compiled in every process.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache, wraps
from importlib import import_module
from typing import Any, ParamSpec, TypeVar, cast

from npusim.errors import InputError

P = ParamSpec("P")
R = TypeVar("R")


def compiled(kernel: Callable[P, R], *helpers: Callable[..., Any]) -> Callable[P, R]:
    """Return a kernel, compiled; the first call with new types takes seconds, unless kept on disk.

    Parameters
    ----------
    kernel : callable
        A function of the subset of Python that numba compiles.
    *helpers : callable
        The functions of the same file that it calls, themselves or through others.

    Raises
    ------
    InputError
        If numba is not installed.
    """
    return cast(Callable[P, R], _compiled(kernel, helpers))


@cache
def _compiled(kernel: Callable[..., Any], helpers: tuple[Callable[..., Any], ...]) -> Any:
    try:
        numba = import_module("numba")
        extending = import_module("numba.extending")
    except ImportError:
        raise InputError("simulating a cache needs the numba package",
                         hint="pip install 'npusim[cache]'") from None  # fmt: skip
    options: dict[str, object] = {"error_model": "numpy"}  # no look for a division by 0
    if hasattr(import_module("numba.core.options").DefaultOptions, "_nrt"):
        options["_nrt"] = False
    for helper in helpers:
        extending.register_jitable(forceinline=True, **options)(helper)
    alone = numba.njit(**options)(kernel)
    try:
        kept = numba.njit(cache=True, **options)(kernel)
    except RuntimeError:  # no folder can be written to
        return alone

    @wraps(kernel)
    def run(*given: Any) -> Any:
        try:
            return kept(*given)
        except (OSError, EOFError, ValueError, pickle.UnpicklingError):
            return alone(*given)  # these are never of a kernel, but of reading or keeping one

    return run
