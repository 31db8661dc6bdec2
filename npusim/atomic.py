"""Output files that exist whole or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from npusim.errors import InputError


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` and rename it there when the block ends well.

    Raises
    ------
    InputError
        The folder cannot be made or written, or the disk is full.
    """
    temporary: Path | None = None
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            # Renaming over a device or a pipe would put a file in its place.
            raise InputError("cannot be written: no plain file", file=target)
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from None
    finally:
        if temporary is not None:
            with suppress(FileNotFoundError):
                temporary.unlink()


@contextmanager
def whole_folder(target: Path, names: Collection[str]) -> Iterator[Path]:
    """Give a temporary folder and move its files to `target` when the block ends well.

    Of `names`, those that the block did not make are removed from `target`; nothing else there is
    touched.

    Raises
    ------
    InputError
        The folder cannot be made or written, or something else has one of the names.
    """
    blocked = next((target / n for n in names if (target / n).is_dir()), None)
    if blocked is not None:
        raise InputError("is a folder where a file would be written", file=blocked)
    try:
        target.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=target, prefix=".") as made:
            yield Path(made)
            for name in names:
                fresh = Path(made) / name
                if fresh.is_file():
                    fresh.replace(target / name)
                else:
                    (target / name).unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"cannot be written: {error.strerror or error}", file=target) from None


def check_folder(folder: Path) -> None:
    """Make sure that files can be written to a folder, before work is put into them.

    Raises
    ------
    InputError
        The folder cannot be made or written.
    """
    with suppress(_Enough), whole_file(folder / "summary.json") as temporary:
        temporary.write_text("{}")
        raise _Enough


class _Enough(Exception):
    """Ends a trial write before it replaces anything."""


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
