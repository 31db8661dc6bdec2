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
from simpleeval import DEFAULT_OPERATORS, InvalidExpression, SimpleEval

from npusim.errors import InputError
from npusim.models.attention_library import CALLED, library_of


def _parts(library: str, batch: float, blocks: float, tiles: float, units: float) -> float:
    """Return in how many parts an attention library splits the keys of a decode step."""
    if library not in CALLED:
        raise ValueError(f"{library!r} is no attention library: {', '.join(CALLED)}")
    if min(batch, blocks, tiles, units) <= 0:
        raise ValueError("parts of nothing")
    given = (np.array([[float(x)]]) for x in (batch, blocks, tiles, units))
    return float(library_of(library).parts(*given)[0].item())


FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "ceil": math.ceil, "floor": math.floor, "min": min, "max": max, "sqrt": math.sqrt,
    "log2": math.log2, "parts": _parts,
}  # fmt: skip

# What may stand in an expression: no attributes, items, comprehensions or texts that are put
# together, though simpleeval would allow some of them.
_NODES = (
    ast.BoolOp, ast.boolop, ast.BinOp, ast.operator, ast.UnaryOp, ast.unaryop, ast.IfExp,
    ast.Compare, ast.cmpop, ast.Call, ast.Name, ast.expr_context, ast.Constant,
)  # fmt: skip


_LONGEST, _DEEPEST = 500, 40  # characters, levels
_LARGEST = 1e30


def _power(base: float, exponent: float) -> Any:
    """Return a power that no model needs to be larger."""
    if not (isinstance(base, int | float) and isinstance(exponent, int | float)):
        raise ValueError("a power of something that is no number")
    if abs(exponent) > 100 or abs(base) > _LARGEST:
        raise ValueError("a power beyond all bounds")
    return float(base**exponent) if abs(base) > 1e3 else base**exponent


def _of_numbers(of: Callable[..., Any]) -> Callable[..., Any]:
    """Return an operator that texts are refused by: they are chosen and compared, no more."""

    def guarded(*operands: Any) -> Any:
        if any(isinstance(x, str) for x in operands):
            raise ValueError("arithmetic with a text")
        return of(*operands)

    return guarded


_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd)
_OPERATORS = DEFAULT_OPERATORS | {op: _of_numbers(DEFAULT_OPERATORS[op]) for op in _ARITHMETIC}
_OPERATORS[ast.Pow] = _power
for _bits in (ast.BitAnd, ast.BitOr, ast.BitXor, ast.Invert, ast.LShift, ast.RShift):
    _OPERATORS.pop(_bits, None)


class _Evaluator(threading.local):
    """One of simpleeval's for each thread: making one takes longer than most expressions."""

    def __init__(self) -> None:
        self.of = SimpleEval(operators=_OPERATORS, functions=dict(FUNCTIONS))


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
        except (
            InvalidExpression, ArithmeticError, TypeError, ValueError, RecursionError, MemoryError,
        ) as error:  # fmt: skip
            raise InputError(f"cannot be computed: {error}", value=self.text) from None


def _depth(tree: ast.AST) -> int:
    """Return how many levels a tree has."""
    depth, level = 0, [tree]
    while level and depth <= _DEEPEST:
        depth, level = depth + 1, [child for n in level for child in ast.iter_child_nodes(n)]
    return depth


@lru_cache(maxsize=4096)  # lowerings say ``rows`` some hundred times
def _parsed(text: str) -> tuple[ast.AST, frozenset[str]]:
    """Return the tree of an expression and the names in it."""
    problem = InputError("not an expression", value=text,
                         allowed=f"arithmetic and {', '.join(FUNCTIONS)}")  # fmt: skip
    if len(text) > _LONGEST:
        raise InputError("too long for an expression", value=text,
                         allowed=f"up to {_LONGEST} characters")  # fmt: skip
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise problem from None
    nodes = list(ast.walk(tree))
    if not all(isinstance(node, _NODES) for node in nodes) or _depth(tree) > _DEEPEST:
        raise problem
    called = {n.func.id for n in nodes if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if unknown := sorted(called - set(FUNCTIONS)):
        raise InputError("unknown function", value=unknown[0], allowed=", ".join(FUNCTIONS))
    return tree, frozenset(n.id for n in nodes if isinstance(n, ast.Name)) - called
