"""Traces taken in: read, joined where they belong together, and written as workloads."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from npusim.errors import InputError
from npusim.importers import import_trace
from npusim.joining.captures import join
from npusim.workload import Workload
from npusim.workload_file import load_workload, save_workload


@dataclass(frozen=True)
class Taken:
    """A workload to write.

    Attributes
    ----------
    workload : Workload
    file : Path
    summary : dict, optional
        What was joined and what did not match; None for a single trace.
    """

    workload: Workload
    file: Path
    summary: dict[str, Any] | None = None


def load(source: str, time_unit: str | None, tick: Callable[[int, int], None] | None) -> Workload:
    """Read a trace, with all the cores there are, or a workload file.

    Raises
    ------
    InputError
        No such file, not a trace, or a time unit where the format fixes it.
    """
    path = Path(source)
    if path.suffix != ".parquet":
        return import_trace(path, None, time_unit, _cores(), tick)
    if time_unit is not None:
        raise InputError("a workload's times are in seconds", file=path, value=time_unit,
                         allowed="no time unit")  # fmt: skip
    return load_workload(path)


def _cores() -> int:
    """Return how many cores this process may use."""
    allowed = getattr(os, "sched_getaffinity", None)  # not on every system
    return len(allowed(0)) if allowed is not None else os.cpu_count() or 1


def apart(loaded: Sequence[Workload], folder: Path | None) -> list[Taken]:
    """Return one workload a trace, in a folder, this one by default.

    Raises
    ------
    InputError
        Two traces of one name, or a name that is none of a file: it may come from the file itself,
        and could lead out of the folder.
    """
    for w in loaded:
        if not w.name.isprintable() or w.name in ("", ".", "..") or {"/", "\\"} & set(w.name):
            raise InputError("its name is none of a file", place="name", value=w.name,
                             hint="import it alone with --output NAME.parquet")  # fmt: skip
    taken = [Taken(w, (folder or Path()) / f"{w.name}.parquet") for w in loaded]
    files = [t.file for t in taken]
    twice = next((f for f in files if files.count(f) > 1), None)
    if twice is not None:
        raise InputError("two traces would be written to one file", value=str(twice),
                         hint="import them one by one with --output")  # fmt: skip
    return taken


def joined(loaded: Sequence[Workload], file: Path) -> list[Taken]:
    """Return all traces as one workload, joined if they are several.

    Raises
    ------
    InputError
        Traces that cannot be joined.
    """
    if len(loaded) == 1:
        return [Taken(loaded[0].renamed(file.stem), file)]
    found = join(loaded)
    # What the reader should know of the joining stays with the workload.
    w = found.workload.renamed(file.stem, notes=list(found.notes))
    return [Taken(w, file, found.summary)]


def save(taken: Sequence[Taken]) -> None:
    """Write workloads; nothing is written before all are read."""
    for t in taken:
        save_workload(t.workload, t.file)
