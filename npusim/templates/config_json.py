"""A ``config.json`` key by key: what is asked for is checked, what nobody asked for is told.

Reading goes on after a problem, so that all of them are told at once; what could not be read is 1
until then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from npusim.errors import InputError, InputErrors, shown
from npusim.yaml_tree import read_text

_DEEPEST = 20
_MOST_NOTES = 50
_LARGEST = 10**9
NEEDED = object()


class Config:
    """The keys of one mapping of a ``config.json``.

    Parameters
    ----------
    file : Path
    values : mapping
    name : str
        Dotted name of the mapping, empty for the whole file.
    problems : list of InputError, optional
        Where to put what is wrong, if not into a list of its own.
    """

    def __init__(
        self, file: Path, values: Mapping[str, Any], name: str = "",
        problems: list[InputError] | None = None,
    ) -> None:  # fmt: skip
        self.file = file
        self.values = values
        self.name = name
        self.problems = [] if problems is None else problems
        self.notes: list[str] = []
        self._asked: set[str] = set()

    def given(self, key: str) -> Any:
        """Return what a key says; None where it is missing or null."""
        self._asked.add(key)
        return self.values.get(key)

    def size(self, key: str, default: Any = NEEDED, least: int = 1) -> Any:
        """Return a whole number from `least`; `default` where the key is missing or null."""
        value = self.given(key)
        if value is None and default is not NEEDED:
            return default
        if value is None:
            self.wrong(key, "is missing" if key not in self.values else "is null")
            return 1
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= _LARGEST:
            self.wrong(key, "not a size", value, f"a whole number from {least} to {_LARGEST:,}")
            return 1
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false; `default` where the key is missing or null."""
        value = self.given(key)
        if not isinstance(value, bool | None):
            self.wrong(key, "not true or false", value)
        return default if value is None else bool(value)

    def choice(self, key: str, choices: Mapping[str, str], default: Any = NEEDED) -> Any:
        """Return what stands for a text in `choices`."""
        value = self.given(key)
        if value is None and default is not NEEDED:
            return default
        if not isinstance(value, str) or value not in choices:
            self.wrong(key, "cannot be expressed", value, ", ".join(choices))
            return 1
        return choices[value]

    def only(self, key: str, *allowed: Any, hint: str | None = None) -> None:
        """Refuse a key that says anything but what is allowed (or nothing)."""
        value = self.given(key)
        if value is not None and not any(value == a and type(value) is type(a) for a in allowed):
            names = ", ".join(json.dumps(a) for a in (*allowed, None))
            self.wrong(key, "cannot be expressed", value, names, hint)

    def part(self, key: str) -> Config | None:
        """Return a mapping inside of this one, None where there is none."""
        value = self.given(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            self.wrong(key, "not a mapping", value)
            return None
        inner = Config(self.file, value, f"{self.name}{key}.", self.problems)
        inner.notes = self.notes
        return inner

    def wrong(
        self, key: str, problem: str, value: Any = NEEDED, allowed: str | None = None,
        hint: str | None = None,
    ) -> None:  # fmt: skip
        """Put down what is wrong with a key."""
        more = {} if value is NEEDED else {"value": value}
        self.problems.append(InputError(problem, file=self.file, place=self.name + key,
                                        allowed=allowed, hint=hint, **more))  # fmt: skip

    def note(self, key: str, text: str) -> None:
        """Put down what of a key no kernel shows."""
        self.notes.append(f"{self.name}{_plain(key)}: {text}")

    def note_rest(self, ignored: frozenset[str], same: Mapping[str, Any] | None = None) -> None:
        """Put down the keys that nobody asked for, but for some and for copies of others."""
        same = same or {}
        rest = [key for key, value in self.values.items()
                if key not in self._asked | ignored and value is not None
                and not (key in same and same[key] == value)]  # fmt: skip
        for key in rest[:_MOST_NOTES]:
            self.note(key, f"is left out: {shown(self.values[key])}")
        if len(rest) > _MOST_NOTES:
            self.notes.append(f"{len(rest) - _MOST_NOTES} more keys are left out")

    def done(self) -> None:
        """Raise what was wrong, if anything was: each problem once."""
        problems = list({str(problem): problem for problem in self.problems}.values())
        if problems:
            raise problems[0] if len(problems) == 1 else InputErrors(problems)


def _plain(key: str) -> str:
    """Return a key as it can be printed: as it is, mostly."""
    return key if key.isidentifier() and key.isascii() and len(key) < 60 else shown(key)


def read_json(file: Path) -> Config:
    """Read a file of JSON whose top is a mapping.

    Raises
    ------
    InputError
        Unreadable, larger than a megabyte, not JSON, not a mapping, nested too deeply, a key twice.
    """
    text = read_text(file)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key, value in pairs:
            if key in found:
                raise InputError("key given twice", file=file, value=key)
            found[key] = value
        return found

    try:
        values = json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        raise InputError(f"not JSON: {error.msg[0].lower()}{error.msg[1:]}", file=file,
                         place=f"line {error.lineno}") from None  # fmt: skip
    except ValueError:  # a number with more digits than Python will read
        raise InputError("not JSON that can be read: a number of thousands of digits",
                         file=file) from None  # fmt: skip
    except RecursionError:
        raise _too_deep(file) from None
    if not isinstance(values, dict):
        raise InputError("not a mapping of keys to values", file=file)
    _check_depth(values, file)
    return Config(file, values)


def _check_depth(values: Any, file: Path) -> None:
    level = [values]
    for _ in range(_DEEPEST):
        level = [inner for outer in level
                 for inner in (outer.values() if isinstance(outer, dict) else outer)
                 if isinstance(inner, dict | list)]  # fmt: skip
        if not level:
            return
    raise _too_deep(file)


def _too_deep(file: Path) -> InputError:
    return InputError("nested too deeply", file=file, allowed=f"{_DEEPEST} levels")
