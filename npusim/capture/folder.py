"""The folder a capture fills: axes.json, wall.jsonl, energy_steps.json, provenance.json, traces.

Every file is written whole. Rows have the fields of npusim's own H200 baseline, so whatever reads
one reads the other.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from npusim.atomic import whole_file, whole_folder
from npusim.capture.gpu import Row
from npusim.errors import InputError

AXES, WALL, ENERGY, PROVENANCE = (
    "axes.json",
    "wall.jsonl",
    "energy_steps.json",
    "provenance.json",
)


class Folder:
    """What earlier captures left in a folder, and how to add to it.

    Parameters
    ----------
    path : Path
        It need not exist yet.

    Raises
    ------
    InputError
        A file there is not what a capture writes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.axes = _rows(path / AXES)
        self.records = _rows(path / PROVENANCE)

    def check_device(self, device: Row) -> None:
        """Make sure that experiments already there are of this GPU and PyTorch.

        Raises
        ------
        InputError
            They are of another.
        """
        for row in self.axes:
            if row.get("axis") != "device":
                continue
            for field in ("name", "sms", "mem", "torch"):
                if row.get(field) != device[field]:
                    raise InputError(f"holds experiments of another {field}", file=self.path / AXES,
                                     value=row.get(field), allowed=str(device[field]),
                                     hint="give another folder")  # fmt: skip

    def has(self, name: str, axes: Sequence[str], quick: bool) -> bool:
        """Return whether an experiment is already there, with as many points as asked."""
        found = {row.get("axis") for row in self.axes}
        past = [e for r in self.records for n, e in _experiments(r) if n == name]
        measured = [e for e in past if e.get("status") == "measured"]
        enough = bool(measured) and (quick or not measured[-1].get("quick"))
        return enough and found.issuperset(axes)

    def add_experiment(
        self, device: Row, axes: Sequence[str], rows: Sequence[Row], record: Row
    ) -> None:
        """Replace the rows of some axes, and write them with the record that tells of them."""
        if rows:
            others = [r for r in self.axes if r.get("axis") not in ("device", *axes)]
            self.axes = [device, *others, *rows]
        self._note(record)
        with whole_folder(self.path, (AXES, PROVENANCE)) as made:
            if self.axes:
                _write(made / AXES, self.axes)
            _write(made / PROVENANCE, self.records)

    def add_wall(self, row: Row) -> None:
        """Append a wall time; earlier rows that named the same trace no longer do."""
        rows = _lines(self.path / WALL)
        trace = row.get("same_process_trace")
        for old in rows:
            if trace is not None and old.get("same_process_trace") == trace:
                del old["same_process_trace"]
        with whole_file(self.path / WALL) as made:
            made.write_text("".join(json.dumps(r, allow_nan=False) + "\n" for r in [*rows, row]))

    def add_energy(self, rows: Sequence[Row]) -> None:
        """Append energies; those of the same cases are replaced."""
        new = {row["case"] for row in rows}
        kept = [r for r in _rows(self.path / ENERGY) if r.get("case") not in new]
        with whole_file(self.path / ENERGY) as made:
            _write(made, [*kept, *rows])

    def add_record(self, record: Row) -> None:
        """Write a provenance record beside those of earlier captures."""
        self._note(record)
        with whole_file(self.path / PROVENANCE) as made:
            _write(made, self.records)

    def add_file(self, name: str, write: Callable[[Path], None]) -> str:
        """Write a file that `write` fills, whole; returns its name."""
        with whole_file(self.path / name) as made:
            write(made)
        return name

    def _note(self, record: Row) -> None:
        """Put a record in place of the one of the same run, or last."""
        others = [r for r in self.records if r.get("run") != record["run"]]
        self.records = [*others, record]


def _experiments(record: Row) -> list[tuple[str, Row]]:
    found = record.get("experiments")
    items = found.items() if isinstance(found, dict) else ()
    return [(name, told) for name, told in items if isinstance(told, dict)]


def _rows(path: Path) -> list[Row]:
    """Return the rows of a JSON file, none where there is no file."""
    text = _text(path)
    found: Any = None
    with suppress(ValueError, RecursionError):
        found = json.loads(text) if text else []
    if not isinstance(found, list) or not all(isinstance(row, dict) for row in found):
        raise InputError("not a list of rows, as capture writes it", file=path,
                         hint="move it away or give another folder")  # fmt: skip
    return found


def _lines(path: Path) -> list[Row]:
    """Return the rows of a file with one JSON object a line, none where there is no file."""
    rows = []
    for number, line in enumerate(_text(path).splitlines(), 1):
        found: Any = None
        with suppress(ValueError, RecursionError):
            found = json.loads(line)
        if not isinstance(found, dict):
            raise InputError("not a JSON object", file=path, place=f"line {number}", value=line)
        rows.append(found)
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text() if path.exists() else ""
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {getattr(error, 'strerror', None) or error}",
                         file=path) from None  # fmt: skip


def _write(path: Path, rows: Sequence[Row]) -> None:
    """Write rows as a JSON list, one row a line."""
    lines = ",\n".join(json.dumps(row, allow_nan=False) for row in rows)
    path.write_text(f"[\n{lines}\n]\n")
