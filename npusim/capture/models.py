"""What runs in one step: a program that can be stepped eagerly and in a form a graph can hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any, Protocol

from npusim.capture.case import Case
from npusim.capture.gpu import Row
from npusim.capture.timing import Call, nothing


@dataclass(frozen=True)
class Step:
    """One step of a program.

    Attributes
    ----------
    run : callable
        Launches the step; does not wait for it.
    rewind : callable
        Puts the state back to where it was before `run`, so that a graph of it can be replayed.
    keeps : object
        What `run` uses without holding it: a graph knows the addresses of tensors, not the tensors.
    """

    run: Call
    rewind: Call = nothing
    keeps: object = None


class Program(Protocol):
    """A model, or a function of the user's, ready to run."""

    about: Row
    """What provenance says of it."""

    def eager(self, before: int) -> Step:
        """Return a step that, after `before` runs, stands at the context of the case."""

    def static(self, compiled: bool) -> Step:
        """Return a step with all its state in fixed memory, fused by the compiler if asked."""


def load_program(torch: Any, case: Case) -> Program:
    """Build what a case names on the GPU.

    Parameters
    ----------
    torch : module
    case : Case

    Raises
    ------
    NpusimError
        It cannot be found or built, or has no such phase.
    """
    if case.is_callable:
        from npusim.capture.user_code import UserProgram  # noqa: PLC0415

        return UserProgram(torch, case)
    from npusim.capture.hugging_face import hugging_face_program  # noqa: PLC0415

    return hugging_face_program(torch, case)


def accepted(
    function: Callable[..., Any], offered: Mapping[str, Any], rest: bool = False
) -> dict[str, Any]:
    """Return those of the arguments offered that a function takes.

    Parameters
    ----------
    function : callable
    offered : mapping
        Arguments by name.
    rest : bool
        Whether a function with ``**rest`` takes them all, or still only those it names.

    Examples
    --------
    >>> accepted(lambda batch, *, dtype=None: None, {"batch": 8, "context": 64, "dtype": "bf16"})
    {'batch': 8, 'dtype': 'bf16'}
    >>> anything = lambda **rest: None
    >>> accepted(anything, {"batch": 8}), accepted(anything, {"batch": 8}, rest=True)
    ({}, {'batch': 8})
    """
    taken = signature(function).parameters
    if rest and any(p.kind is Parameter.VAR_KEYWORD for p in taken.values()):
        return dict(offered)
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return {n: v for n, v in offered.items() if n in taken and taken[n].kind in named}
