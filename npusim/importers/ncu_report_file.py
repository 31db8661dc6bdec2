"""Reports of Nsight Compute (``.ncu-rep``), through NVIDIA's package ``ncu-report``.

The package gives names, metrics and units, but not the process, and of a report that is cut short
it gives what is left without a word. So the blocks of the file are counted first: after the magic
and a header, each has a header with the number of its results, the size of its payload and its
process (Nsight Compute Customization Guide, "Report File Format"; headers are protocol buffers).
"""

from __future__ import annotations

import importlib
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, BinaryIO

from npusim.errors import InputError
from npusim.importers import files, ncu_probe
from npusim.importers.ncu_csv import EXPORT
from npusim.importers.ncu_metrics import MOST, WANTED, allowed_units, is_unknown, source
from npusim.importers.ncu_profile import Kernel, Profile

MAGIC = b"NVR\0"

_LONGEST = 600  # seconds that NVIDIA's package may take
_LONGEST_HEADER = 64 << 20  # the one with the strings of a report is the longest
_RESULTS, _PAYLOAD, _PROCESS, _PROCESS_ID = 2, 5, 6, 1  # tags
_NUMBER, _STRING, _FIXED = 0, 2, {1: 8, 5: 4}  # kinds of values; numbers of so many bytes
_CC = tuple(f"device__attribute_compute_capability_{part}" for part in ("major", "minor"))
_DEVICE_NAME = "device__attribute_display_name"
# what the package raises for a damaged report
_DAMAGED = (AttributeError, TypeError, ValueError, RuntimeError, LookupError, OSError, MemoryError)


def read(path: Path) -> tuple[Profile, dict[str, Any]]:
    """Read a report, gzipped or not.

    Parameters
    ----------
    path : Path

    Returns
    -------
    profile : Profile
    about : dict
        What the file says of itself.

    Raises
    ------
    InputError
        The package is not installed, or the report is damaged or cut short.
    """
    package = _package(path)
    with tempfile.TemporaryDirectory(prefix="npusim-") as folder:
        report = _plain(path, Path(folder) / "unpacked.ncu-rep")
        processes = _processes(path, report)
        _check_readable(path, package, report, len(processes))
        with _quiet():
            return _Report(path, processes).read(package, report)


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what NVIDIA's library prints of its own accord, past Python."""
    sys.stderr.flush()
    with Path(os.devnull).open("wb") as nowhere:
        before = os.dup(2)
        try:
            os.dup2(nowhere.fileno(), 2)
            yield
        finally:
            os.dup2(before, 2)
            os.close(before)


def _package(path: Path) -> Any:
    """Return NVIDIA's package, loaded when it is needed: it is 50 MB."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the wrapper's own types
            return importlib.import_module("ncu_report")
    except ImportError:
        raise InputError("reports need NVIDIA's package ncu-report", file=path,
                         hint=f"pip install 'npusim[ncu]', or {EXPORT}") from None  # fmt: skip


def _check_readable(path: Path, package: Any, report: Path, results: int) -> None:
    """Refuse a report that NVIDIA's package cannot read, which may end the process (`ncu_probe`).

    A report whose blocks say that it holds nothing is not given to the package at all.
    """
    where = getattr(package, "__file__", None)
    if where is None:
        return
    if not results:
        raise InputError("no kernels", file=path, allowed="at least one result")
    command = [sys.executable, str(Path(ncu_probe.__file__)), str(Path(where).parent), str(report)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=_LONGEST, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise InputError("report is damaged: it cannot be read in time", file=path,
                         allowed=f"{_LONGEST} s") from None  # fmt: skip
    found = done.stdout.decode(errors="replace").strip()
    if done.returncode or found != str(results):
        raise InputError("report is damaged: results cannot be read", file=path,
                         value=found if found.isdecimal() else "none",
                         allowed=str(results))  # fmt: skip


def _plain(path: Path, unpacked: Path) -> Path:
    """Return the report, unpacked if it was packed: the package reads nothing else."""
    try:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) == MAGIC:
                if path.stat().st_size > files.LARGEST:
                    raise files.too_large(path)
                return path
        with unpacked.open("wb") as copy:
            copy.writelines(files.chunks(path))
    except OSError as error:
        raise files.unreadable(path, error) from None
    return unpacked


# ---------------------------------------------------------------- the blocks of the file


def _processes(path: Path, report: Path) -> list[int]:
    """Return the process of every result that a report should have, in the order of the file."""
    found: list[int] = []
    try:
        size = report.stat().st_size
        with report.open("rb") as stream:
            stream.seek(len(MAGIC))
            _header(stream)
            while stream.tell() < size:
                block = _Block.of(_header(stream))
                stream.seek(block.payload, 1)
                if stream.tell() > size or block.results > block.payload:
                    raise _Damaged
                found += [block.process] * block.results
                if len(found) > files.MOST_OPERATIONS:
                    raise files.too_many(path)
    except _Damaged:
        raise InputError("report is damaged or cut short", file=path,
                         place=f"after {len(found)} results") from None  # fmt: skip
    except OSError as error:
        raise files.unreadable(path, error) from None
    return found


class _Damaged(Exception):
    """A block that is not whole."""


def _header(stream: BinaryIO) -> bytes:
    """Return the header that comes next: its length in four bytes, then as many."""
    length = int.from_bytes(stream.read(4), "little")
    header = stream.read(length) if length <= _LONGEST_HEADER else b""
    if len(header) < length or not length:
        raise _Damaged
    return header


@dataclass(frozen=True)
class _Block:
    """What the header of a block says."""

    results: int
    payload: int
    process: int

    @classmethod
    def of(cls, header: bytes) -> _Block:
        fields = dict(_fields(header))
        process = fields.get(_PROCESS, b"")
        number = dict(_fields(process)).get(_PROCESS_ID, 0) if isinstance(process, bytes) else 0
        values = fields.get(_RESULTS, 0), fields.get(_PAYLOAD, 0), number
        results, payload, number = (v if isinstance(v, int) else -1 for v in values)
        if not (results >= 0 and 0 <= payload <= files.LARGEST and 0 <= number < 2**53):
            raise _Damaged
        return cls(results, payload, number)


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    r"""Yield the numbers and the byte strings of a protocol buffer by their tags.

    Examples
    --------
    >>> list(_fields(b"\x10\x96\x01\x1a\x02ab"))
    [(2, 150), (3, b'ab')]
    """
    at = 0
    while at < len(data):
        key, at = _varint(data, at)
        tag, kind = key >> 3, key & 7
        if kind in _FIXED:
            at += _FIXED[kind]
            continue
        value, at = _varint(data, at)
        if kind == _NUMBER:
            yield tag, value
        elif kind == _STRING and at + value <= len(data):
            yield tag, data[at : at + value]
            at += value
        else:
            raise _Damaged


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """Return a number of seven bits a byte, and where it ends."""
    value = 0
    for shift, byte in enumerate(data[at : at + 10]):
        value |= (byte & 127) << 7 * shift
        if byte < 128:
            return value, at + shift + 1
    raise _Damaged


# ---------------------------------------------------------------- its results


class _Report:
    """What the package gives of a report, kept as a profile."""

    def __init__(self, path: Path, processes: list[int]) -> None:
        self.path = path
        self.processes = processes
        self.profile = Profile(path)
        self.about: dict[str, Any] = {"format": "ncu report"}

    def read(self, package: Any, report: Path) -> tuple[Profile, dict[str, Any]]:
        """Read all results."""
        try:
            context = package.load_report(str(report))
            ranges = [context.range_by_idx(i) for i in range(context.num_ranges())]
            actions = [r.action_by_idx(i) for r in ranges for i in range(r.num_actions())]
            if len(actions) == len(self.processes):
                for number, action in enumerate(actions):
                    self._add(number, action)
        except _DAMAGED as error:
            raise InputError("report is damaged", file=self.path,
                             place=f"result {len(self.profile.kernels)}",
                             value=str(error)) from None  # fmt: skip
        if len(actions) != len(self.processes):
            raise InputError("report is damaged: results cannot be read", file=self.path,
                             value=len(actions), allowed=str(len(self.processes)))  # fmt: skip
        if not actions:
            raise InputError("no kernels", file=self.path, allowed="at least one result")
        return self.profile, self.about

    def _add(self, number: int, action: Any) -> None:
        """Keep a result."""
        place = f"result {number}"
        names = action.metric_names()

        def launched(what: str) -> int:
            known = f"launch__{what}" in names
            return self._whole(action.metric_by_name(f"launch__{what}"), place) if known else 0

        name = action.name(action.NameBase_DEMANGLED) or action.name(action.NameBase_FUNCTION)
        kernel = Kernel(
            self.processes[number], number, name or "unknown", str(launched("device_id")),
            launched("context_id"), launched("stream_id"),
            (launched("grid_dim_x"), launched("grid_dim_y"), launched("grid_dim_z")),
            launched("block_size"),
        )  # fmt: skip
        at = self.profile.add(kernel)
        for metric in names:
            if metric in WANTED:
                self._put(at, metric, action.metric_by_name(metric), place)
            elif is_unknown(metric):
                self.profile.unknown.add(metric)
        self._describe(action, names)

    def _describe(self, action: Any, names: Any) -> None:
        """Note the device, which is that of the first result."""
        if _DEVICE_NAME in names:
            self.about.setdefault("device", str(action.metric_by_name(_DEVICE_NAME).value()))
        if all(part in names for part in _CC):
            parts = (str(action.metric_by_name(part).value()) for part in _CC)
            self.about.setdefault("cc", ".".join(parts))

    def _put(self, at: int, name: str, metric: Any, place: str) -> None:
        """Keep a metric of a kernel, unless there is no value."""
        value, unit = metric.value(), metric.unit()
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return
        found = source(name, unit)
        if found is None:
            raise InputError(f"unknown unit of {name}", file=self.path, place=place, value=unit,
                             allowed=allowed_units(name))  # fmt: skip
        wanted, power = found
        high = Decimal(MOST[wanted.dimension]).scaleb(-power)
        if not isinstance(value, int | float) or not 0 <= value <= high:
            raise InputError(f"not a value of {name}", file=self.path, place=place, value=value,
                             allowed=f"a number of {unit or '1'} from 0 to {high:.4g}")  # fmt: skip
        self.profile.put(at, wanted, float(Decimal(value).scaleb(power)))

    def _whole(self, metric: Any, place: str) -> int:
        """Return a size or number of a launch."""
        value = metric.value()
        if not isinstance(value, int | float) or not 0 <= value < 2**53 or value != int(value):
            raise InputError(f"not a value of {metric.name()}", file=self.path, place=place,
                             value=value, allowed="a whole number")  # fmt: skip
        return int(value)
