"""On what a capture was made: device, driver, versions, clocks, command, date, licence."""

from __future__ import annotations

import platform
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from npusim import __version__
from npusim.capture.gpu import Row, Unavailable, device_row
from npusim.capture.nvml import open_board

UNSPECIFIED = "unspecified"


@dataclass(frozen=True)
class Origin:
    """What only the caller knows of a capture.

    Attributes
    ----------
    command : str
        The command line, or how the library was called.
    licence : str
        Under which licence the measurements may be passed on.
    """

    command: str = ""
    licence: str = UNSPECIFIED


def new_record(what: str, origin: Origin, at: datetime | None = None) -> Row:
    """Return a provenance record that knows no GPU yet.

    Parameters
    ----------
    what : str
        ``model``, ``experiments`` or ``counters``.
    origin : Origin
    at : datetime, optional
        When, in UTC; by default now.

    Examples
    --------
    >>> new_record("model", Origin("npusim capture"), datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    {'run': '20260102T030405.000000Z', 'utc': '2026-01-02T03:04:05Z', 'what': 'model', \
'command': 'npusim capture', 'licence': 'unspecified'}
    """
    utc = at or datetime.now(UTC)
    return {
        "run": utc.strftime("%Y%m%dT%H%M%S.%fZ"),
        "utc": utc.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "what": what,
        "command": origin.command,
        "licence": origin.licence or UNSPECIFIED,
    }


def environment(torch: Any) -> Row:
    """Return device, driver, versions and the state of the board.

    Parameters
    ----------
    torch : module
        PyTorch with a GPU.

    Returns
    -------
    dict
        ``device`` (units, L2 [B], memory [B]), ``driver``, ``cuda``, ``hip``, ``board`` (clocks
        [Hz], power limit [W], or why they are unknown), ``cpu`` (it makes eager times) and the
        versions of what ran.
    """
    device = device_row(torch)
    driver, board = None, {}
    try:
        open_ = open_board(torch)
        driver, board = open_.driver(), open_.state()
    except Unavailable as reason:
        board = {"unavailable": str(reason)}
    return {
        "device": {name: device[name] for name in ("name", "sms", "l2", "mem")},
        "driver": driver,
        "cuda": torch.version.cuda,
        "hip": torch.version.hip,
        "pytorch": torch.__version__,
        "cudnn": torch.backends.cudnn.version(),
        "transformers": _version("transformers"),
        "triton": _version("triton"),
        "npusim": __version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "board": board,
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str | None:
    """Return the name of the processor."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or None
