"""What results there are to be merged: finished or not, and what they say about themselves."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from npusim.errors import InputError
from npusim.sweeps import results
from npusim.sweeps.blocks import BLOCKS, SWEEP, block_files, description
from npusim.sweeps.encoding import ABOUT, PLACE, place

ID, WHICH = "design_id", "sweep"


@dataclass(frozen=True)
class Source:
    """Results, or the blocks of an unfinished sweep.

    Parameters
    ----------
    path : Path
        As it was given.
    files : sequence of Path
        Parquet files, one at least.
    about : dict
        The sweep.
    sweep : str or None
        Its strong id; None where results are of several sweeps.
    schema : Schema
        Columns of the first file.
    blocks : dict of int to Path, or None
        Files by the number of the block; None for finished results.
    count, rows : int
        How many blocks and rows the whole sweep has, if it is unfinished.
    """

    path: Path
    files: Sequence[Path]
    about: dict[str, Any]
    sweep: str | None
    schema: pa.Schema
    blocks: dict[int, Path] | None = None
    count: int = 0
    rows: int = 0

    @property
    def model(self) -> str:
        """Return the version of the models that made it."""
        return str(self.about["made_by"].get("model", ""))


def opened(path: Path) -> Source:
    """Find out what a path holds.

    Parameters
    ----------
    path : Path
        Folder of a sweep, its ``results.parquet`` (file or folder), or its ``blocks``.

    Raises
    ------
    InputError
        Nothing of that; both results and an unfinished sweep; no block is done yet.
    """
    inside, finished = path / BLOCKS, path / results.RESULTS
    if (path / SWEEP).is_file():
        return _unfinished(path, path)
    if block_files(inside) and finished.exists():
        raise InputError("holds results and an unfinished sweep", file=path,
                         hint=f"name {results.RESULTS} or {BLOCKS} in it")  # fmt: skip
    if inside.is_dir() and not finished.exists():
        return _unfinished(path, inside)
    return _finished(path, finished if finished.exists() else path)


def _finished(path: Path, target: Path) -> Source:
    files = results.files(target)
    if not files or not files[0].is_file():
        raise InputError("no results there", file=path, hint="make some with `npusim sweep`")
    schema = results.schema_of(files[0])
    about = _checked(results.described(schema, ABOUT, files[0]), schema, files[0])
    sweep = None
    if PLACE in (schema.metadata or {}):
        sweep = str(results.described(schema, PLACE, files[0]).get("id"))
    return Source(path, files, about, sweep, schema)


def _unfinished(path: Path, inside: Path) -> Source:
    said = description(inside)
    found = {} if said is None else {
        file_place["block"]: file for file in block_files(inside)
        if (file_place := place(file)) is not None and file_place.get("id") == said["id"]
    }  # fmt: skip
    if said is None or not found:
        raise InputError("no block of the sweep is done", file=path, hint="resume it first")
    files = [found[number] for number in sorted(found)]
    schema = results.schema_of(files[0])
    about = _checked(said["about"], schema, files[0])
    return Source(path, files, about, said["id"], schema, found, said["blocks"], said["rows"])


def _checked(about: dict[str, Any], schema: pa.Schema, file: Path) -> dict[str, Any]:
    """Return a description that has what every sweep tells."""
    whole = {"name", "workloads", "axes", "made_by"} <= about.keys()
    if not whole or not isinstance(about["made_by"], dict):
        raise InputError("not the results of a sweep: its description is damaged", file=file)
    if ID not in schema.names:
        raise InputError("results without ids", file=file, place=ID)
    return about


def described(sources: Sequence[Source], command: str) -> dict[str, Any]:
    """Return the description of results that are merged of others.

    What they agree on stays; of lists and tables it is the union; names are joined.
    """
    alike = [identity(source) for source in sources]
    if len(set(alike)) == 1:
        return sources[0].about
    abouts = list({one: source.about for one, source in zip(alike, sources, strict=True)}.values())
    whole: dict[str, Any] = _united(abouts)
    whole["made_by"]["command"] = command
    return whole | {"merged": abouts}


def identity(source: Source) -> str:
    """Return what makes rows of a sweep comparable: all it says of itself but its command."""
    made_by = {k: v for k, v in source.about["made_by"].items() if k != "command"}
    return json.dumps(source.about | {"made_by": made_by}, sort_keys=True)


def labels(sources: Sequence[Source]) -> list[str] | None:
    """Return what each source is called in the column `WHICH`; None where all are one sweep."""
    alike = [identity(source) for source in sources]
    if len(set(alike)) == 1:
        return None
    given: dict[str, str] = {}
    for one, source in zip(alike, sources, strict=True):
        name, used = str(source.about["name"]), set(given.values())
        if one not in given:
            tries = [name, *(f"{name} ({i})" for i in range(2, len(sources) + 1))]
            given[one] = next(label for label in tries if label not in used)
    return [given[one] for one in alike]


def _united(values: Sequence[Any]) -> Any:
    """Return what several values of one kind say together.

    Examples
    --------
    >>> _united([{"a": [1, 2], "n": "x"}, {"a": [2, 3], "n": "y"}])
    {'a': [1, 2, 3], 'n': 'x + y'}
    """
    distinct = list({json.dumps(v, sort_keys=True): v for v in values}.values())
    if len(distinct) == 1:
        return distinct[0]
    if all(isinstance(v, dict) for v in distinct):
        keys = dict.fromkeys(key for v in distinct for key in v)
        return {key: _united([v[key] for v in distinct if key in v]) for key in keys}
    if all(isinstance(v, list) for v in distinct):
        return list({json.dumps(v, sort_keys=True): v for one in distinct for v in one}.values())
    if all(isinstance(v, str) for v in distinct):
        return " + ".join(distinct)
    return distinct
