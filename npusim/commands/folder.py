"""The folder that a command writes to: checked before work is put into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from npusim.errors import InputError


@contextmanager
def used(folder: Path) -> Iterator[None]:
    """Make sure that a folder can be written; if what follows is refused, leave no empty one.

    Raises
    ------
    InputError
        It cannot be made or written.
    """
    from npusim.atomic import check_folder

    fresh = not folder.exists()
    check_folder(folder)
    try:
        yield
    except InputError:
        if fresh:
            with suppress(OSError):  # what is done stays
                folder.rmdir()
        raise
