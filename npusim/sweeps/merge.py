"""Joining results: of machines that did parts of one sweep, of sweeps that overlap.

Blocks of one unfinished sweep become one store, which is finished if nothing is missing. All else
becomes one table with a row for each id. Equal ids mean equal answers, so two rows of one id must
agree to 1e-9 in every column that both have; otherwise nothing is written. A missing value (null)
is no answer and takes that of the other row.

Rows stream from file to file, a row group at a time; only ids stay in memory, 16 bytes each, and
about 40 bytes more each while equal ones are found.

Left out: overlaps in an order of their own. A row is compared where its first appearance is
written, and the others are read there and then: fast where both are in like order (grids, parts),
slow where millions of common designs are shuffled.
"""

from __future__ import annotations

import filecmp
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.sweeps import results
from npusim.sweeps.blocks import BLOCKS, Store, block_files, describe, locked, read
from npusim.sweeps.encoding import ABOUT, Head, written
from npusim.sweeps.ids import lanes_of
from npusim.sweeps.sources import ID, WHICH, Source, described, labels, opened
from npusim.sweeps.task import Block

Progress = Callable[[int, int], None]

SAME = 1e-9
_CACHED = 4  # row groups of other files kept for comparison


@dataclass(frozen=True)
class Merged:
    """What a merge has made.

    Parameters
    ----------
    path : Path
        ``results.parquet``, or ``blocks`` of a sweep that is still unfinished.
    sources : sequence of Source
    rows : int
        Designs in it.
    duplicates : int
        Rows that were there more than once and are so no more.
    missing : sequence of int
        Numbers of the blocks that are still to be done; empty where it is finished.
    """

    path: Path
    sources: Sequence[Source]
    rows: int
    duplicates: int
    missing: Sequence[int] = ()

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {
            "results": str(self.path), "rows": self.rows, "duplicates": self.duplicates,
            "finished": not self.missing, "missing_blocks": list(self.missing),
            "inputs": [_told(source) for source in self.sources],
        }  # fmt: skip


def _told(source: Source) -> dict[str, Any]:
    told = {"path": str(source.path), "name": source.about["name"], "model": source.model}
    if source.blocks is None:
        return told
    return told | {"blocks": len(source.blocks), "of": source.count}


def merge(
    paths: Sequence[Path], output: Path, any_model: bool = False, command: str = "",
    progress: Progress | None = None,
) -> Merged:  # fmt: skip
    """Join results into one folder.

    Parameters
    ----------
    paths : sequence of Path
        Folders of sweeps, finished or not, or their ``results.parquet``.
    output : Path
        Folder that has no results yet.
    any_model : bool
        Also those that different versions of the models have made.
    command : str
        What asked for it, for the description.
    progress : callable, optional
        Called with (rows done, rows in all).

    Raises
    ------
    InputError
        Not results; two answers for one id; different models; `output` holds results; no room.
    """
    sources = [opened(path) for path in paths]
    if not sources:
        raise InputError("nothing to merge")
    if (output / results.RESULTS).exists() or block_files(output / BLOCKS):
        raise InputError("holds results already", place="--output", value=str(output),
                         hint="give another folder")  # fmt: skip
    models = {source.model: source for source in sources}
    if len(models) > 1 and not any_model:
        shown = ", ".join(f"{one.path}: {model}" for model, one in models.items())
        raise InputError(f"made by different models ({shown})",
                         hint="sweep again, or --any-model")  # fmt: skip
    is_new = not output.exists()
    try:
        if all(s.blocks is not None and s.sweep == sources[0].sweep for s in sources):
            return _merge_blocks(sources, output, progress)
        return _merge_rows(sources, output, command, progress)
    except InputError:
        if is_new:
            with suppress(OSError):  # not there yet, or blocks that another merge goes on with
                output.rmdir()
        raise


# ---------------------------------------------------------------- blocks of one sweep


def _merge_blocks(sources: Sequence[Source], output: Path, progress: Progress | None) -> Merged:
    """Put the blocks of one sweep into one store, and finish it if all are there."""
    first, chosen, twice = sources[0], dict[int, Path](), 0
    for source in sources:
        for number, file in (source.blocks or {}).items():
            if number not in chosen:
                chosen[number] = file
                continue
            twice += pq.read_metadata(file).num_rows
            if not filecmp.cmp(chosen[number], file, shallow=False):
                _agree(read(chosen[number]), read(file), chosen[number], file)
    head = Head(str(first.sweep), written(first.about), first.count, first.rows)
    sizes = {n: pq.read_metadata(chosen[n]).num_rows for n in sorted(chosen)}
    blocks = [Block(number, sizes.get(number, 0)) for number in range(head.blocks)]
    rows = 0
    with Store(output, head, blocks, locked(output / BLOCKS)) as store:
        results.clean(store.writer.folder)
        describe(store.writer.folder, head)
        for number, size in sizes.items():
            store.writer.put(number, chosen[number].read_bytes())
            store.done.add(number)
            rows += size
            if progress is not None:
                progress(rows, sum(sizes.values()))
        missing = [block.number for block in store.missing()]
        path = store.writer.folder if missing else store.finish()
    return Merged(path, sources, rows, twice, missing)


def _agree(a: pa.Table, b: pa.Table, first: Path, second: Path) -> None:
    """Refuse two blocks that give different answers."""
    if a.schema.names != b.schema.names or a.num_rows != b.num_rows:
        raise InputError("one block with other columns or rows", file=f"{first}, {second}")
    for name in a.schema.names:
        _refuse(_unlike(a[name], b[name]), name, a[ID], lambda _: (first, second))


# ---------------------------------------------------------------- rows of several sweeps


def _merge_rows(
    sources: Sequence[Source], output: Path, command: str, progress: Progress | None
) -> Merged:
    rows = _Rows([file for source in sources for file in source.files])
    names = labels(sources)
    which = {f: n for s, n in zip(sources, names, strict=True) for f in s.files} if names else {}
    wanted = _columns(rows.files, bool(which))
    first, others = _repeated(rows.ids())
    about = {ABOUT: written(described(sources, command)).encode()}
    kept = rows.count - len(others)
    tables = _joined(rows, wanted, which, first, others, progress)
    return Merged(results.save(output, tables, kept, about), sources, kept, len(others))


class _Rows:
    """All rows of several Parquet files, by their place in the whole."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files
        self.groups: list[tuple[int, int]] = []  # file, row group
        sizes = []
        for number, file in enumerate(files):
            metadata = _metadata(file)
            for group in range(metadata.num_row_groups):
                self.groups.append((number, group))
                sizes.append(metadata.row_group(group).num_rows)
        self.starts = np.cumsum([0, *sizes])
        self.count = int(self.starts[-1])
        self._held: OrderedDict[int, pa.Table] = OrderedDict()

    def ids(self) -> NDArray[np.uint64]:
        """Return all ids, (N, 2).

        Raises
        ------
        InputError
            Something in that column is no id.
        """
        found, done = np.empty((self.count, 2), np.uint64), 0
        for file in self.files:
            try:
                with pq.ParquetFile(file) as opened_file:
                    for batch in opened_file.iter_batches(columns=[ID]):
                        found[done : done + len(batch)] = lanes_of(batch.column(0))
                        done += len(batch)
            except InputError as error:
                raise InputError(str(error), file=file) from None
            except (pa.ArrowException, OSError, ValueError):
                raise InputError("damaged", file=file, place=ID) from None
        return found

    def file_of(self, row: int) -> Path:
        """Return the file that a row is in."""
        group = int(np.searchsorted(self.starts, row, side="right")) - 1
        return self.files[self.groups[group][0]]

    def group(self, number: int) -> pa.Table:
        """Return one row group of all."""
        file, group = self.groups[number]
        try:
            with pq.ParquetFile(self.files[file], page_checksum_verification=True) as opened_file:
                table = opened_file.read_row_group(group, use_threads=False)
        except (pa.ArrowException, OSError, ValueError):
            raise InputError("damaged", file=self.files[file]) from None
        return table.replace_schema_metadata(None)

    def take(self, rows: NDArray[np.int64], wanted: pa.Schema, which: dict[Path, str]) -> pa.Table:
        """Return some rows in the order given, with the columns wanted."""
        groups = np.searchsorted(self.starts, rows, side="right") - 1
        parts, places = [], []
        for number in np.unique(groups).tolist():
            place = np.flatnonzero(groups == number)
            if number not in self._held:
                self._held[number] = self.group(number)
            self._held.move_to_end(number)
            if len(self._held) > _CACHED:
                self._held.popitem(last=False)
            local = self._held[number].take(pa.array(rows[place] - self.starts[number]))
            parts.append(_aligned(local, wanted, which.get(self.files[self.groups[number][0]])))
            places.append(place)
        back = np.argsort(np.concatenate(places))
        return pa.concat_tables(parts).take(pa.array(back))


def _metadata(file: Path) -> Any:
    try:
        return pq.read_metadata(file)
    except (pa.ArrowException, OSError, ValueError):
        raise InputError("damaged", file=file) from None


def _repeated(ids: NDArray[np.uint64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows whose id was there before, and for each of them the first that has it.

    Both are in the order of the firsts, and of the rows for one first.
    """
    order = np.lexsort((ids[:, 1], ids[:, 0]))  # stable: rows of one id stay in order
    ordered = ids[order]
    again = np.zeros(len(ids), dtype=bool)
    again[1:] = (ordered[1:] == ordered[:-1]).all(axis=1)
    heads = np.maximum.accumulate(np.where(again, 0, np.arange(len(ids))))
    first, others = order[heads[again]], order[again]
    by_first = np.lexsort((others, first))
    return first[by_first], others[by_first]


# Of what sweeps write.
_PLAIN = (pa.types.is_floating, pa.types.is_integer, pa.types.is_boolean, pa.types.is_string,
          pa.types.is_large_string, pa.types.is_null)  # fmt: skip


def _columns(files: Sequence[Path], which: bool) -> pa.Schema:
    """Return all columns of several files, in the order in which they first appear.

    Raises
    ------
    InputError
        A column is a number in one and a text in another.
    """
    kinds: dict[str, tuple[pa.DataType, Path]] = {}
    if which:
        kinds[WHICH] = (pa.string(), files[0])
    seen: list[pa.Schema] = []
    for file in files:
        schema = results.schema_of(file).remove_metadata()
        if schema in seen:
            continue
        seen.append(schema)
        if len(set(schema.names)) < len(schema.names):
            twice = next(name for name in schema.names if schema.names.count(name) > 1)
            raise InputError("column given twice", file=file, value=twice)
        for field in schema:
            kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
            if not any(is_plain(kind) for is_plain in _PLAIN):
                raise InputError("neither numbers nor text", file=file, place=field.name,
                                 value=str(kind))  # fmt: skip
            before, where = kinds.get(field.name, (kind, file))
            try:
                one = [pa.schema([(field.name, k)]) for k in (before, kind)]
                joined = pa.unify_schemas(one, promote_options="permissive").field(0).type
            except (pa.ArrowTypeError, pa.ArrowInvalid):
                raise InputError(f"column {field.name!r} is {before} in {where} and {kind} here",
                                 file=file) from None  # fmt: skip
            kinds[field.name] = (joined, where)
    return pa.schema([(name, kind) for name, (kind, _) in kinds.items()])


def _aligned(table: pa.Table, wanted: pa.Schema, label: str | None) -> pa.Table:
    """Return a table with the columns wanted; what it does not have is null."""
    columns = []
    for field in wanted:
        if field.name in table.schema.names:
            columns.append(table[field.name].cast(field.type))
        elif field.name == WHICH and label is not None:
            columns.append(pa.chunked_array([pa.repeat(label, table.num_rows)], pa.string()))
        else:
            columns.append(pa.chunked_array([pa.nulls(table.num_rows, field.type)], field.type))
    return pa.table(columns, schema=wanted)


def _joined(
    rows: _Rows, wanted: pa.Schema, which: dict[Path, str], first: NDArray[np.int64],
    others: NDArray[np.int64], progress: Progress | None,
) -> Iterator[pa.Table]:  # fmt: skip
    """Yield every row once, with what other rows of its id know more."""
    dropped = np.sort(others)
    for number in range(len(rows.groups)):
        start, end = int(rows.starts[number]), int(rows.starts[number + 1])
        label = which.get(rows.files[rows.groups[number][0]])
        table = _aligned(rows.group(number), wanted, label)
        low, high = np.searchsorted(first, [start, end])
        if high > low:
            table = _with_others(table, start, first[low:high], others[low:high], rows, which)
        low, high = np.searchsorted(dropped, [start, end])
        if high > low:
            keep = np.ones(end - start, dtype=bool)
            keep[dropped[low:high] - start] = False
            table = table.filter(pa.array(keep))
        yield table
        if progress is not None:
            progress(end, rows.count)


def _with_others(
    table: pa.Table, start: int, first: NDArray[np.int64], others: NDArray[np.int64], rows: _Rows,
    which: dict[Path, str],
) -> pa.Table:  # fmt: skip
    """Compare rows with later rows of their ids, and take from those what is null here."""
    rank = np.arange(len(first)) - np.searchsorted(first, first)
    for turn in range(int(rank.max()) + 1):
        now = rank == turn
        ours, theirs = first[now] - start, rows.take(others[now], table.schema, which)
        for index, field in enumerate(table.schema):
            if field.name == WHICH:
                continue
            mine = table.column(index).take(pa.array(ours))
            found = theirs.column(index)

            def files(row: int, now: NDArray[np.bool_] = now) -> tuple[Path, Path]:
                return rows.file_of(int(first[now][row])), rows.file_of(int(others[now][row]))

            _refuse(_unlike(mine, found), field.name, theirs[ID], files)
            fills = pc.and_(pc.is_null(mine), pc.is_valid(found))
            if pc.any(fills).as_py():
                mask = np.zeros(table.num_rows, dtype=bool)
                mask[ours[fills.to_numpy()]] = True
                column = table.column(index).combine_chunks()
                values = found.filter(fills).combine_chunks()
                order = np.argsort(ours[fills.to_numpy()])
                filled = pc.replace_with_mask(column, pa.array(mask), values.take(pa.array(order)))
                table = table.set_column(index, field, filled)
    return table


def _unlike(a: pa.ChunkedArray, b: pa.ChunkedArray) -> NDArray[np.bool_]:
    """Say where two columns give different answers; a null gives none."""
    if pa.types.is_null(a.type) or pa.types.is_null(b.type):
        return np.zeros(len(a), dtype=bool)
    if pa.types.is_floating(a.type):
        x, y = (one.to_numpy().astype(float) for one in (a, b))
        with np.errstate(invalid="ignore", over="ignore"):
            near = np.abs(x - y) <= SAME * np.maximum(np.abs(x), np.abs(y))
        same = (x == y) | (np.isnan(x) & np.isnan(y)) | (near & np.isfinite(x) & np.isfinite(y))
        both = pc.and_(pc.is_valid(a), pc.is_valid(b)).to_numpy()
        unlike: NDArray[np.bool_] = ~same & both
        return unlike
    return np.asarray(pc.fill_null(pc.not_equal(a, b), False).to_numpy(), dtype=bool)


def _refuse(
    unlike: NDArray[np.bool_], column: str, ids: pa.ChunkedArray,
    files: Callable[[int], tuple[Path, Path]],
) -> None:  # fmt: skip
    """Raise if there are two answers for one id."""
    if not unlike.any():
        return
    row = int(np.flatnonzero(unlike)[0])
    first, second = files(row)
    raise InputError("two answers for one design", file=f"{first}, {second}", place=column,
                     value=ids[row].as_py(), hint="sweep again with one version")  # fmt: skip
