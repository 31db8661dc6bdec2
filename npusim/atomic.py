"""Output files that exist whole or not at all.

What is not finished lies beside its target under a name of its own, locked by the process that
writes it. A process that is killed leaves it there, and the next one that writes to that folder
removes it: what nobody holds, nobody will finish. So neither clocks nor process numbers, which are
used again, are asked.

Left out: file systems that cannot lock keep what a killed process has left.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from npusim.errors import InputError

UNFINISHED = ".unfinished-"


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target` and rename it there when the block ends well.

    Raises
    ------
    InputError
        The folder cannot be made or written, or the disk is full.
    """
    try:
        if target.exists() and not (target.is_file() or target.is_dir()):
            # Renaming over a device or a pipe would put a file in its place.
            raise InputError("cannot be written: no plain file", file=target)
        target.parent.mkdir(parents=True, exist_ok=True)
        with _held(target.parent, target.suffix) as temporary:
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            _keep(temporary)
            temporary.replace(target)
    except OSError as error:
        raise InputError(f"cannot be written: {reason(error)}", file=target) from None


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
    made: Path | None = None
    try:
        target.mkdir(parents=True, exist_ok=True)
        with _held(target) as made:
            yield made
            fresh = [made / name for name in names if (made / name).is_file()]
            for file in fresh:
                _keep(file)  # what the disk has no room for is told before anything is replaced
                (target / file.relative_to(made)).parent.mkdir(parents=True, exist_ok=True)
            for name in names:
                if made / name in fresh:
                    (made / name).replace(target / name)
                else:
                    (target / name).unlink(missing_ok=True)
    except InputError as error:
        if made is None or str(made) not in str(error):
            raise
        # Whoever reads it looks for the file itself, not for the one beside it.
        raise InputError(str(error).replace(str(made), str(target))) from None
    except OSError as error:
        raise InputError(f"cannot be written: {reason(error)}", file=target) from None


def reason(error: OSError) -> str:
    """Return what the operating system says, without the words of a library around it.

    Examples
    --------
    >>> reason(OSError("Error writing bytes to file. Detail: [errno 28] No space left on device"))
    'No space left on device'
    """
    found = re.search(r"\[errno (\d+)\]", str(error))  # as Arrow has it
    return os.strerror(int(found[1])) if found else error.strerror or str(error)


@contextmanager
def _held(folder: Path, suffix: str | None = None) -> Iterator[Path]:
    """Give a new file in a folder, or a new folder where there is no suffix; remove it at the end.

    It is locked meanwhile, so that no other process takes it for left behind.
    """
    _clean(folder)
    while True:
        if suffix is None:
            made = Path(tempfile.mkdtemp(dir=folder, prefix=UNFINISHED))
            handle = os.open(made, os.O_RDONLY)
        else:
            handle, name = tempfile.mkstemp(dir=folder, prefix=UNFINISHED, suffix=suffix)
            made = Path(name)
        try:
            with suppress(OSError):  # a file system that cannot lock
                fcntl.flock(handle, fcntl.LOCK_EX)
            if not made.exists():  # another process had it first, and took it for left behind
                continue
            yield made
            return
        finally:
            _remove(made)
            os.close(handle)


def _clean(folder: Path) -> None:
    """Remove what killed processes have left in a folder: what can be locked, nobody is writing."""
    for left in list(folder.glob(UNFINISHED + "*")):
        with suppress(OSError):  # it has its name by now, or may not be removed
            handle = os.open(left, os.O_RDONLY | os.O_NOFOLLOW)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                _remove(left)
            finally:
                os.close(handle)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _keep(file: Path) -> None:
    """Have a file on the disk itself: some tell only then that there is no room.

    Without it, a loss of power could leave an empty file under the name of the old one.
    """
    with file.open("rb") as opened:
        os.fsync(opened.fileno())


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
