"""A profiling report as a folder: one page that holds everything, tables, figures, plain data."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from npusim import __version__, units
from npusim.arch import Arch
from npusim.atomic import check_folder, whole_file, whole_folder
from npusim.load import traced_arch
from npusim.report.collect import collect
from npusim.report.data import FIELDS, Report, Section, Table, content
from npusim.report.figures import save_report_figures
from npusim.store import save_csv, save_json
from npusim.workload import Workload

PAGE, DATA = "report.html", "report.json"
_DIGITS = 4
_WRAP = {"label", "kernel", "operator", "name", "value", "before", "after", "note"}
_ABSENT = "–"


def save_report(w: Workload, folder: str | Path, arch: Arch | None = None) -> list[Path]:
    """Write the profiling report of a workload; return the files.

    ``report.html`` holds everything a reader needs and asks no network; ``tables/*.csv`` have every
    row, ``figures/*.png`` the figures, ``report.json`` all of it as plain values in SI units.
    Everything is made beside the folder first and moved there at the end; what an earlier report
    left there under the same names goes.

    Parameters
    ----------
    w : Workload
    folder : str or Path
        Made if it is not there.
    arch : Arch, optional
        The machine it ran on; by default the shipped one that lists the traced device, if any.

    Returns
    -------
    list of Path

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    folder = Path(folder)
    check_folder(folder)
    machine = arch if arch is not None else traced_arch(w)
    report = collect(w, machine)
    names = outputs(report)
    with whole_folder(folder, names) as made:
        for part in ("tables", "figures"):
            (folder / part).mkdir(exist_ok=True)
        for table in (t for s in report.sections for t in s.tables if len(t.frame)):
            save_csv(made / _csv(table), table.frame)
        drawn = save_report_figures(made / "figures", report, w, machine)
        save_json(made / DATA, content(report))
        with whole_file(made / PAGE) as temporary:
            temporary.write_text(page(report, w, drawn), encoding="utf-8")
    return sorted(folder / name for name in names if (folder / name).is_file())


def outputs(report: Report) -> list[str]:
    """Return the files that a report may have, the same for every workload."""
    tables = [_csv(t) for s in report.sections for t in s.tables]
    figures = [f"figures/{f.name}.png" for s in report.sections for f in s.figures]
    return [PAGE, DATA, *tables, *figures]


def _csv(table: Table) -> str:
    return f"tables/{table.name}.csv"


def page(report: Report, w: Workload, drawn: Mapping[str, Path]) -> str:
    """Return the page of a report; figures are those drawn, by name."""
    folder = FileSystemLoader(Path(__file__).parent)
    environment = Environment(loader=folder, autoescape=True, undefined=StrictUndefined)
    environment.filters["sentence"] = lambda text: f"{text[:1].upper()}{text[1:]}."
    template = environment.get_template("page.html.j2")
    device = w.meta.get("device") or "device not named in the trace"
    lead = f"{device}; {len(w):,} launches in {len(w.steps):,} step" + "s" * (len(w.steps) > 1)
    return template.render(
        report=report,
        lead=lead,
        sections=[_section(s, drawn) for s in report.sections],
        version=__version__,
        workload_id=w.id[:12],
    )


def _section(section: Section, drawn: Mapping[str, Path]) -> dict[str, Any]:
    figures = [
        {"caption": f.caption, "image": base64.b64encode(drawn[f.name].read_bytes()).decode()}
        for f in section.figures
        if f.name in drawn
    ]
    tables = [_table(t) for t in section.tables if len(t.frame) and t.rows]
    words = {part: getattr(section, part) for part in ("name", "title", "text", "notes", "lacks")}
    return {**words, "tables": tables, "figures": figures}


@dataclass(frozen=True)
class Head:
    """The head of a column on the page."""

    label: str
    unit: str
    number: bool
    wraps: bool = False

    @property
    def style(self) -> str:
        """Return the class of its cells."""
        return "n" if self.number else ("w" if self.wraps else "k")


def _table(table: Table) -> dict[str, Any]:
    """Return the part of a table that the page shows, its values as text."""
    columns = [c for c in (table.shown or tuple(table.frame.columns)) if c in table.frame]
    some = table.frame.head(table.rows)
    heads, cells = [], []
    for column in columns:
        head, texts = shown(column, some[column])
        heads.append(head)
        cells.append(texts)
    rows = list(zip(*cells, strict=True))
    return {"name": table.name, "title": table.title, "heads": heads, "rows": rows,
            "more": len(table.frame) - len(some)}  # fmt: skip


def shown(column: str, values: pd.Series[Any]) -> tuple[Head, list[str]]:
    """Return the head of a column and its values as text, all in one unit.

    Examples
    --------
    >>> head, texts = shown("total_s", pd.Series([0.01234, 0.000567, float("nan")]))
    >>> head.unit, texts
    ('ms', ['12.34', '0.567', '–'])
    >>> shown("time_share", pd.Series([0.5, 0.00012, 1e-9]))[1]
    ['50.0', '0.01', '<0.001']
    """
    field = FIELDS[column]
    if field.unit == "text":
        return Head(field.label, "", number=False, wraps=column in _WRAP), [
            _text(v) for v in values
        ]
    if field.unit == "count":
        return Head(field.label, "", number=True), [_whole(v) for v in values]
    if field.unit == "share":
        return Head(field.label, "%", number=True), [_percent(float(v)) for v in values]
    numbers = values.astype(float)
    scale, unit = _unit(numbers, field.unit)
    return Head(field.label, unit, number=True), [number(v / scale) for v in numbers]


def _unit(numbers: pd.Series[float], unit: str) -> tuple[float, str]:
    """Return factor and name of the unit in which the middle of some values reads best."""
    positive = numbers[numbers > 0]
    if unit in ("1", "FLOP/B") or positive.empty:
        return 1.0, "" if unit == "1" else unit
    name = units.show(float(positive.median()), unit).partition(" ")[2]
    return units.parse(f"1 {name}", unit), name


def _text(value: Any) -> str:
    return _ABSENT if pd.isna(value) else str(value)


def _whole(value: Any) -> str:
    return _ABSENT if pd.isna(value) else f"{int(value):,}"


def _percent(value: float) -> str:
    if math.isnan(value):
        return _ABSENT
    if 0 < value < 5e-6:
        return "<0.001"
    return f"{100 * value:.1f}" if value == 0 or value >= 0.001 else f"{100 * value:.1g}"


def number(value: float) -> str:
    """Return a number with four significant digits, small ones with two; never with an exponent.

    Whole numbers stay whole.

    Examples
    --------
    >>> [number(x) for x in (123456.7, 12.345, 0.5, 0.01234, 5.0, 1e-8, float("nan"))]
    ['123,457', '12.35', '0.500', '0.012', '5', '<0.000001', '–']
    """
    if math.isnan(value):
        return _ABSENT
    if round(value, 9) == round(value):
        return f"{value:,.0f}"
    power = math.floor(math.log10(abs(value)))
    if power < -6:
        return "<0.000001"
    decimals = max(0, min(3, _DIGITS - 1 - power)) if power >= -1 else 1 - power
    return f"{value:,.{decimals}f}"
