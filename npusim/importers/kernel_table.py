"""A plain CSV table of hotspots: kernel, calls, and their time in all or on average.

For what is only published as a table. Columns: ``kernel`` or ``name``; ``calls``, ``count`` or
``instances``; ``total_us`` (or ``_ns``, ``_ms``, ``_s``) or ``avg_us``. The unit may stand in
brackets instead. Other columns are ignored; a share in percent is added up into
``meta["listed_percent"]``, which says how much of the whole the table lists.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

from npusim.errors import InputError
from npusim.importers.csv_rows import Header
from npusim.importers.sums import Sum, lay_out
from npusim.importers.unit_rows import LONGEST_NS, Record, Report, has_header
from npusim.workload import Workload

FORMAT = "kernel table CSV"

_NAMES = ("kernel", "name")
_CALLS = ("calls", "count", "instances")
_TOTALS = ("total", "totaltime", "totalduration")
_AVERAGES = ("avg", "average", "mean", "avgtime")
_TIMES = ("ns", "us", "µs", "ms", "s")


def sniff(path: Path) -> bool:
    """Return whether the file has the header of such a table."""
    return has_header(path, _wanted)


def read(path: Path, name: str) -> Workload:
    """Read a table.

    Parameters
    ----------
    path : Path
    name : str
        What to call the workload.

    Returns
    -------
    Workload
        One step; every row as many operations as it has calls, each of the average time.

    Raises
    ------
    InputError
        No such table, a damaged row, a number that is none, or too many calls.
    """
    rows = list(Report(path, _wanted))
    meta = {"format": "kernel_table", **_listed(rows)}
    return lay_out(path, name, [_sum(r) for r in rows], meta)


def _wanted(header: Header) -> bool:
    has_time = any(_timed(header, names) for names in (_TOTALS, _AVERAGES))
    has_time_share = "time" in header and header["time"].unit == "%"  # nsys, which has its own file
    named = _first(header, _NAMES) and _first(header, _CALLS)
    return bool(named) and has_time and not has_time_share


def _first(header: Header, names: tuple[str, ...]) -> str | None:
    return next((n for n in names if n in header), None)


def _timed(header: Header, names: tuple[str, ...]) -> str | None:
    return next((n for n in names if n in header and header[n].unit in _TIMES), None)


def _listed(rows: list[Record]) -> dict[str, float]:
    """Return how much of the whole the table lists, if it has a share and all are numbers."""
    header = rows[0].columns if rows else {}
    share = next((n for n, f in header.items() if f.unit == "%" or n.startswith("pct")), None)
    if share is None:
        return {}
    try:
        return {"listed_percent": float(sum(r.number(share, 0, 100, Decimal(0)) for r in rows))}
    except InputError:  # not a column that anything depends on
        return {}


def _sum(r: Record) -> Sum:
    calls = r.calls(_first(r.columns, _CALLS) or "")
    return Sum(r.place, r.name(_first(r.columns, _NAMES) or ""), calls, _total_ns(r, calls))


def _total_ns(r: Record, calls: int) -> Decimal:
    """Return the time of all calls: as given, or the average times their number."""
    total, average = _timed(r.columns, _TOTALS), _timed(r.columns, _AVERAGES)
    if total is not None and (average is None or not r.is_missing(total)):
        return r.time_ns(total)
    return r.time_ns(str(average), high=LONGEST_NS / calls) * calls
