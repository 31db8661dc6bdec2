"""Errors that a user can act on: one line with the file, the place, the value and what is allowed.

Everything that npusim raises on purpose is an :class:`NpusimError`; the command line prints its
text and exits 1. Any other exception is a bug in npusim.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

_MISSING = object()
_LONGEST_VALUE = 60


def shown(value: Any) -> str:
    r"""Return a value as it appears in a message: one line, printable, not too long.

    Examples
    --------
    >>> shown("4.8 TB\\n")
    "'4.8 TB\\\\n'"
    >>> len(shown("x" * 1000))
    60
    """
    try:
        text = repr(value) if isinstance(value, str) else str(value)
    except ValueError:  # an integer with more digits than Python will print
        text = "a number of thousands of digits"
    text = _one_line(text)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."


def _one_line(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)


class NpusimError(Exception):
    """Base of every error that npusim raises on purpose."""


class InputError(NpusimError):
    """One thing wrong with what the user gave.

    Parameters
    ----------
    problem : str
        What is wrong, in a few words.
    file : optional
        The file it is in.
    place : str, optional
        Line number, dotted path or flag inside that file.
    value : optional
        The value that was found there.
    allowed : str, optional
        What would have been accepted.
    hint : str, optional
        What to do next.

    Examples
    --------
    >>> print(InputError("unknown key", file="a.yaml", place="line 3", value="unit",
    ...                  allowed="units, matrix"))
    a.yaml: line 3: unknown key: 'unit' (allowed: units, matrix)
    """

    def __init__(
        self,
        problem: str,
        *,
        file: object = None,
        place: str | None = None,
        value: Any = _MISSING,
        allowed: str | None = None,
        hint: str | None = None,
    ) -> None:
        head = [_one_line(str(part)) for part in (file, place) if part is not None]
        body = problem if value is _MISSING else f"{problem}: {shown(value)}"
        if allowed is not None:
            body += f" (allowed: {allowed})"
        if hint is not None:
            body += f"; {hint}"
        # Words of other libraries, and names that come from the file, are in the body too.
        lines = [_one_line(line) for line in body.split("\n")]
        super().__init__(": ".join([*head, "\n".join(lines)]))


class InputErrors(NpusimError):
    """Several things wrong with one input, all of them told at once, one a line."""

    def __init__(self, errors: Iterable[InputError]) -> None:
        self.errors = tuple(errors)
        super().__init__("\n".join(str(error) for error in self.errors))

    def __reduce__(self) -> tuple[type[InputErrors], tuple[tuple[InputError, ...]]]:
        """Return what makes the same errors in another process."""
        return InputErrors, (self.errors,)
