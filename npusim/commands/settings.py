"""What ``--set`` says, for the commands that take it."""

from __future__ import annotations

from collections.abc import Sequence

from npusim.errors import InputError


def read_settings(settings: Sequence[str]) -> list[tuple[str, float]]:
    """Return the ``--set`` options as paths and values [SI], those without effect refused.

    Raises
    ------
    InputError
        No such parameter, one that no model reads, a bad value, or one given twice.
    """
    from npusim.config import read_setting
    from npusim.sweeps.space import unmodelled

    pairs = [read_setting(text) for text in settings]
    paths = [path for path, _ in pairs]
    twice = next((path for path in paths if paths.count(path) > 1), None)
    if twice is not None:
        raise InputError("given twice", place="--set", value=twice)
    refused = unmodelled([path for path, _ in pairs])
    if refused:
        raise InputError(str(refused[0]), place="--set")
    return pairs
