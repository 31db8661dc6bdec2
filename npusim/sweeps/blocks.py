"""Where a sweep keeps its blocks until all are there: ``OUT/blocks/``.

One Parquet file a block (``00000012.parquet``), and ``sweep.json`` that says which sweep it is.
Nothing is ever appended to or changed in place, so a sweep that is killed at any moment has kept
what it had finished. When all blocks are there, `Store.finish` makes ``OUT/results.parquet`` of
them: one file up to a million rows, above that the folder itself takes that name, and no row is
written twice.

Left out: file systems that cannot lock a file (some mounts of Lustre) are refused.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from npusim.errors import InputError
from npusim.sweeps import results
from npusim.sweeps.encoding import PLACE, Head, place
from npusim.sweeps.task import Block, Task

BLOCKS, SWEEP, LOCK = "blocks", "sweep.json", ".lock"
_VERSION = 1
_MOST_BLOCKS = 1_000_000
_AGAIN = "remove these results and sweep again"
_KEPT = "what is done is kept, go on with --resume"


@dataclass(frozen=True)
class Writer:
    """Writes the files of blocks, in any process: what goes to one.

    Parameters
    ----------
    folder : Path
        Where block files lie.
    head : Head
    """

    folder: Path
    head: Head

    def file(self, number: int) -> Path:
        """Return the name of a block."""
        return self.folder / f"{number:08d}.parquet"

    def write(self, block: Block, table: pa.Table) -> None:
        """Write one block, whole or not at all.

        Raises
        ------
        InputError
            It cannot be written.
        """
        self.put(block.number, self.head.encoded(block, table))

    def put(self, number: int, content: pa.Buffer | bytes) -> None:
        """Write one block that is encoded already.

        Raises
        ------
        InputError
            It cannot be written.
        """
        results.put(self.file(number), content, _KEPT)

    def read(self, number: int) -> pa.Table:
        """Return one block.

        Raises
        ------
        InputError
            The file is damaged; it is removed, so that the sweep can go on.
        """
        try:
            return read(self.file(number))
        except InputError:
            # Its end, which says what it holds, may still be good: it would be kept for ever.
            with suppress(OSError):
                self.file(number).unlink()
            raise


class Store:
    """The blocks of one sweep, to be opened with `Store.open` and used in a ``with``.

    Attributes
    ----------
    folder : Path
        Folder of the sweep.
    head : Head
        The sweep.
    done : set of int
        Numbers of the blocks that are there.
    finished : bool
        Whether they have become the results.
    """

    def __init__(self, folder: Path, head: Head, blocks: Sequence[Block], lock: TextIO | None):
        self.folder, self.head, self.finished = folder, head, lock is None
        self.blocks = blocks
        self.done = {block.number for block in blocks} if self.finished else set[int]()
        self.writer = Writer(folder / BLOCKS, head)
        self._lock = lock

    @classmethod
    def open(cls, folder: Path, task: Task, resume: bool = False) -> Store:
        """Open the store of a sweep in a folder, a new one where there is none.

        Parameters
        ----------
        folder : Path
            Folder of the sweep, made if it is not there.
        task : Task
        resume : bool
            Go on with what is there: blocks that are damaged or cut short are done again. A sweep
            that is finished stays so.

        Raises
        ------
        InputError
            Blocks of this sweep are there and `resume` is not given; blocks of another sweep are;
            another process is at work there; the folder cannot be written.
        """
        head, inside = Head.of(task), folder / BLOCKS
        if resume and not inside.exists() and _result_of(folder) == head.id:
            _bare(folder / results.RESULTS)
            results.clean(folder)
            return cls(folder, head, task.blocks, None)
        lock = locked(inside)
        store = cls(folder, head, task.blocks, lock)
        try:
            store._take(resume)
        except BaseException:
            store.close()
            raise
        return store

    def _take(self, resume: bool) -> None:
        """Find out what is there, and what of it is good."""
        inside = self.writer.folder
        found, kept = description(inside), block_files(inside)
        if kept and (found is None or found["id"] != self.head.id):
            what, of = "holds an unfinished sweep of something else", f"{len(kept)} blocks"
            finish, others = "finish that one", "remove the folder, or give another -o"
            if found is not None:
                of = f"{len(kept)} of {found['blocks']} blocks"
                model = _model(found["about"])
                if model != _model(json.loads(self.head.about)):
                    what = f"holds an unfinished sweep by other models, {model}"
                    finish = "finish it with the npusim that began it"
            raise InputError(f"{what} ({of})", file=inside, hint=f"{finish}, {others}")
        if kept and not resume:
            done = f"{len(kept)} of {self.head.blocks} blocks of this sweep are done"
            raise InputError(done, file=inside, hint="go on with --resume, or remove the folder")
        results.clean(self.folder)
        results.clean(inside)
        self._look([int(file.stem) for file in kept])
        describe(inside, self.head)

    def _look(self, numbers: Sequence[int]) -> None:
        """Take blocks as done whose files are whole and of this sweep; remove other files.

        Also at the end: a worker that outlives its killed sweep for a moment may have written one.
        """
        rows = {block.number: block.rows for block in self.blocks}
        self.done.clear()
        for number in numbers:
            file = self.writer.file(number)
            said = place(file)
            ours = said is not None and (said.get("id"), said["block"]) == (self.head.id, number)
            if ours and said is not None and said["rows"] == rows.get(number):
                self.done.add(number)
            else:
                with results.writing(file):
                    file.unlink(missing_ok=True)

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others have the folder; one in which nothing was done is left as it was."""
        if self._lock is None:
            return
        inside = self.writer.folder
        if inside.is_dir() and not self.finished and not block_files(inside):
            results.remove(inside)
        self._lock.close()
        self._lock = None

    def discard(self) -> None:
        """Remove all blocks."""
        inside = self.writer.folder
        if not self.finished and inside.is_dir():
            results.remove(inside)
            self.done.clear()

    def missing(self, wanted: Iterable[Block] | None = None) -> list[Block]:
        """Return the blocks that are not there, of all or of those wanted."""
        chosen = self.blocks if wanted is None else wanted
        return [block for block in chosen if block.number not in self.done]

    def tables(self, wanted: Iterable[Block] | None = None) -> Iterator[pa.Table]:
        """Yield the tables of blocks, of all that are done or of those wanted.

        One is in memory at a time; of results that are one file, that.

        Raises
        ------
        InputError
            A file is damaged.
        """
        target = self.folder / results.RESULTS
        chosen = [b for b in self.blocks if b.number in self.done] if wanted is None else wanted
        if self.finished and target.is_file():
            whole = read(target, _AGAIN)
            ends = np.cumsum([block.rows for block in self.blocks])
            for block in chosen:
                yield whole.slice(int(ends[block.number]) - block.rows, block.rows)
            return
        for block in chosen:
            if self.finished:
                yield read(Writer(target, self.head).file(block.number), _AGAIN)
            else:
                yield self.writer.read(block.number)

    def files(self) -> list[Path]:
        """Return the Parquet files that hold what is done."""
        if self.finished:
            return results.files(self.folder / results.RESULTS)
        return [self.writer.file(number) for number in sorted(self.done)]

    def finish(self) -> Path:
        """Make results of the blocks, in place of those of an earlier sweep; return their path.

        Raises
        ------
        InputError
            Blocks are missing, damaged or of another sweep, or something cannot be written.
        """
        target = self.folder / results.RESULTS
        if self.finished:
            return target
        self._look(sorted(self.done))
        if self.missing():
            done = f"{len(self.done)} of {self.head.blocks} blocks are done"
            raise InputError(f"not finished: {done}", file=self.writer.folder,
                             hint="go on with --resume")  # fmt: skip
        inside = self.writer.folder
        if self.head.rows > results.ONE_FILE:
            results.replace(inside, target)
            _bare(target)
        else:
            said = self.head.metadata()
            results.save(self.folder, self.tables(), self.head.rows, said, _KEPT)
            with results.writing(inside):
                # Renamed first: a folder of some blocks would look like an unfinished sweep.
                gone = results.temporary(self.folder)
                inside.rename(gone)
                results.remove(gone)
        self.finished = True
        return target


def read(file: Path, hint: str = "go on with --resume") -> pa.Table:
    """Return the table of one Parquet file, without what is said about it.

    Parameters
    ----------
    file : Path
    hint : str
        What to do if it is damaged.

    Raises
    ------
    InputError
        The file is damaged or missing.
    """
    try:
        with pq.ParquetFile(file, page_checksum_verification=True) as opened:
            table = opened.read(use_threads=False)
    except FileNotFoundError:
        raise InputError("a block is missing", file=file, hint=hint) from None
    except (pa.ArrowException, OSError, ValueError):
        raise InputError("a block is damaged", file=file, hint=hint) from None
    if len(set(table.schema.names)) < len(table.schema.names):
        raise InputError("a block is damaged: a column is given twice", file=file, hint=hint)
    return table.replace_schema_metadata(None)


def describe(inside: Path, head: Head) -> None:
    """Write which sweep a folder of blocks is of, unless it says so already."""
    said = {"version": _VERSION, "id": head.id, "blocks": head.blocks, "rows": head.rows,
            "about": json.loads(head.about)}  # fmt: skip
    if description(inside) != said:
        text = json.dumps(said, indent=1, allow_nan=False) + "\n"
        results.put(inside / SWEEP, text.encode())


def description(inside: Path) -> dict[str, Any] | None:
    """Return what a folder of blocks says of its sweep, or None.

    Raises
    ------
    InputError
        It is damaged, or from a later version.
    """
    file = inside / SWEEP
    try:
        if file.exists() and not file.is_file():  # a pipe would be waited for
            raise InputError("not a file", file=file)
        found = json.loads(file.read_bytes())
        json.dumps(found, allow_nan=False)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or not {"version", "id", "blocks", "rows", "about"} <= set(
        found
    ):
        raise InputError("damaged", file=file, hint="remove the folder and sweep again")
    if found["version"] != _VERSION:
        raise InputError("written by another version of npusim", file=file, place="version",
                         value=found["version"], allowed=str(_VERSION),
                         hint="finish it with the npusim that began it, or remove the folder and "
                         "sweep again")  # fmt: skip
    counts = [found[name] for name in ("blocks", "rows")]
    if not (isinstance(found["id"], str) and isinstance(found["about"], dict)
            and all(type(count) is int for count in counts)
            and 1 <= counts[0] <= min(counts[1], _MOST_BLOCKS)):  # fmt: skip
        raise InputError("damaged", file=file, hint="remove the folder and sweep again")
    return found


def _model(about: object) -> object:
    """Return the version of the models that a description names, if it does."""
    made_by = about.get("made_by") if isinstance(about, dict) else None
    return made_by.get("model") if isinstance(made_by, dict) else None


def block_files(inside: Path) -> list[Path]:
    """Return the files of a folder that are named as blocks, in order."""
    return sorted(inside.glob("[0-9]" * 8 + ".parquet"))


def _result_of(folder: Path) -> str | None:
    """Return the id of the sweep whose results are in a folder, or None."""
    target = folder / results.RESULTS
    try:
        first = results.files(target)[0]
        found = results.described(results.schema_of(first), PLACE, first)
    except (InputError, IndexError):
        return None
    return str(found.get("id"))


def _bare(target: Path) -> None:
    """Take away what a folder of results holds beside Parquet: Polars refuses such a folder."""
    with results.writing(target):
        if target.is_dir():
            for name in (SWEEP, LOCK):
                (target / name).unlink(missing_ok=True)
            results.keep(target)


def locked(inside: Path) -> TextIO:
    """Return the lock of a store, held until it is closed or the process is gone.

    Raises
    ------
    InputError
        Another process holds it, or the folder cannot be written or locked.
    """
    with results.writing(inside):
        while True:
            inside.mkdir(parents=True, exist_ok=True)
            lock = (inside / LOCK).open("a")
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                # Who held it may have renamed the folder since: then this lock locks nothing.
                if os.fstat(lock.fileno()).st_ino == (inside / LOCK).stat().st_ino:
                    return lock
            except BlockingIOError:
                lock.close()
                raise InputError("another sweep is at work in this folder", file=inside,
                                 hint="wait for it, or give another -o") from None  # fmt: skip
            except FileNotFoundError:
                pass
            except BaseException:
                lock.close()
                raise
            lock.close()
