"""Arithmetic in lowerings: ``rows * width``, ``ceil(rows / 64)``, ``'split' if rows < 64 else ''``.

simpleeval computes them: arithmetic, comparisons and the functions below, nothing that reaches
out of the sizes of an operator.
"""

from __future__ import annotations

import ast
import math
import threading
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
from simpleeval import InvalidExpression, SimpleEval

from npusim.errors import InputError
from npusim.models.attention_library import library_of


def _parts(library: str, batch: float, blocks: float, tiles: float, units: float) -> float:
    """Return in how many parts an attention library splits the keys of a decode step."""
    given = (np.array([[float(x)]]) for x in (batch, blocks, tiles, units))
    return float(library_of(library).parts(*given)[0].item())


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ceil": math.ceil, "floor": math.floor, "min": min, "max": max, "sqrt": math.sqrt,
    "log2": math.log2, "parts": _parts,
}  # fmt: skip


class _Evaluator(threading.local):
    """One of simpleeval's for each thread: making one takes longer than most expressions."""

    def __init__(self) -> None:
        self.of = SimpleEval(functions=dict(FUNCTIONS))


_EVALUATOR = _Evaluator()


class Expression:
    """One expression, read once and evaluated for many sizes.

    Parameters
    ----------
    text : str

    Raises
    ------
    InputError
        Not arithmetic.

    Examples
    --------
    >>> Expression("ceil(rows / 64) * width").value({"rows": 65, "width": 2})
    4
    >>> sorted(Expression("rows * width").names)
    ['rows', 'width']
    """

    def __init__(self, text: str) -> None:
        self.text = text
        self._parsed, self.names = _parsed(text)

    def value(self, names: Mapping[str, Any]) -> Any:
        """Return what it is for some names.

        Raises
        ------
        InputError
            It cannot be computed: a division by zero, something that is no arithmetic.
        """
        evaluator = _EVALUATOR.of
        evaluator.names = dict(names)
        try:
            return evaluator.eval(self.text, previously_parsed=self._parsed)
        except (InvalidExpression, ArithmeticError, TypeError, ValueError) as error:
            raise InputError(f"cannot be computed: {error}", value=self.text) from None


@lru_cache(maxsize=4096)  # lowerings say ``rows`` some hundred times
def _parsed(text: str) -> tuple[ast.AST, frozenset[str]]:
    """Return the tree of an expression and the names in it."""
    try:
        tree = SimpleEval.parse(text)
    except (InvalidExpression, SyntaxError, ValueError, RecursionError):
        raise InputError("not an expression", value=text,
                         allowed=f"arithmetic and {', '.join(FUNCTIONS)}") from None  # fmt: skip
    nodes = list(ast.walk(tree))
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if unknown := sorted(called - set(FUNCTIONS)):
        raise InputError("unknown function", value=unknown[0], allowed=", ".join(FUNCTIONS))
    return tree, frozenset(n.id for n in nodes if isinstance(n, ast.Name)) - called
