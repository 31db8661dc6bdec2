"""What ``npusim search`` and ``npusim sensitivity`` print."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.merit import MERITS
from npusim.parameters import PARAMETERS

_MOST = 20  # rows of a front
_PRECISE, _EXACT = 4, 6  # digits of figures, and of values that were given


def searched(content: Mapping[str, Any], folder: str) -> None:
    """Print a front, its knees, and what the search took."""
    front, objectives = content["front"], content["objectives"]
    axes = [n for n in ("arch", "launch", *content["axes"]) if n in front[0]]
    # what is the same all along the front is said once
    differ = [n for n in axes if n not in objectives and len({r[n] for r in front}) > 1]
    rows = _spread(front, objectives)
    title = f"{content['name']}: front of {len(front)} designs, small {', '.join(objectives)}"
    if len(rows) < len(front):
        title += f"; {len(rows)} of them"
    knees = content["knees"]
    bends = ["knee"] if knees else []
    table = terminal.blank(title, *objectives, *bends, *differ, right=objectives)
    for row in rows:
        bend = any(all(k[n] == row[n] for n in objectives) for k in knees)
        cells = [shown(n, row[n]) for n in objectives] + ["knee" * bend for _ in bends]
        terminal.add(table, *cells, *(shown(n, row[n]) for n in differ))
    terminal.show(table)
    console = terminal.plain()
    same = [n for n in axes if n not in objectives and n not in differ]
    if same:
        console.print(Text("all: " + ", ".join(f"{n} {shown(n, front[0][n])}" for n in same)))
    took = f"evaluated {content['evaluations']} designs; the space holds {content['space']}"
    between = " and, between its values, more" if content["halvings"] else ""
    console.print(Text(f"{took}{between}; seed {content['seed']}"))
    if content["constraints"]:
        console.print(Text(f"{content['allowed']} of those evaluated meet the constraints"))
    _notes(content["notes"])
    console.print(Text(f"written to {folder}: {', '.join(content['files'])}"))


def felt(content: Mapping[str, Any], folder: str) -> None:
    """Print what each axis does, alone and with the others."""
    figure, rows = content["objective"], content["axes"]
    indices = content["samples"] > 0
    numbers = ["at the lowest", "at the highest", "swing",
               *(["first", "total"] if indices else [])]  # fmt: skip
    table = terminal.blank(f"{content['title']}; nominal {shown(figure, content['nominal'])}",
                           "axis", "from", "to", *numbers, right=numbers)  # fmt: skip
    for row in rows:
        ends = [shown(row["axis"], row[f"{end}_value"]) for end in ("low", "high")]
        cells = [shown(figure, row[name]) for name in ("low", "high", "swing")]
        if indices:
            cells += [_index(row["first"], row["first_conf"]),
                      _index(row["total"], row["total_conf"])]  # fmt: skip
        terminal.add(table, row["axis"], *ends, *cells)
    terminal.show(table)
    console = terminal.plain()
    if indices:
        what = "first: share of the variance that the axis has alone; total: with all that it does "
        console.print(Text(what + "together with others; ± half of a 95 % interval"))
    console.print(Text(f"evaluated {content['evaluations']} designs, seed {content['seed']}"))
    _notes(content["notes"])
    console.print(Text(f"written to {folder}: {', '.join(content['files'])}"))


def shown(name: str, value: Any) -> str:
    """Return a value of a column with its unit.

    Examples
    --------
    >>> shown("wall_s", 0.0021), shown("units.count", 70.0), shown("area_mm2", 512.34)
    ('2.1 ms', '70', '512.3 mm2')
    """
    if value is None:
        return "-"
    if isinstance(value, str):
        return value
    if name in PARAMETERS:
        return units.show(value, PARAMETERS[name].unit, _EXACT)
    unit = MERITS.get(name.partition("[")[0], "")
    unit = unit or ("s" if name.endswith("_s") else "J" if name.endswith("_j") else "1")
    if unit in ("s", "J", "W"):
        return units.show(value, unit, _PRECISE)
    return f"{value:.{_PRECISE}g}" + ("" if unit == "1" else f" {unit}")


def _spread(front: Sequence[Mapping[str, Any]], objectives: Sequence[str]) -> list[Any]:
    """Return rows that differ in an objective, at most so many, evenly along the front."""
    distinct = list({tuple(row[n] for n in objectives): row for row in reversed(front)}.values())
    distinct.reverse()
    if len(distinct) <= _MOST:
        return distinct
    return [distinct[round(i * (len(distinct) - 1) / (_MOST - 1))] for i in range(_MOST)]


def _index(value: float | None, half: float | None) -> str:
    return "" if value is None or half is None else f"{value + 0.0:.3f} ± {half:.3f}"


def _notes(notes: Sequence[str]) -> None:
    for note in notes:
        terminal.plain().print(Text(f"note: {note}"))
