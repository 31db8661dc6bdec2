"""The studies as one page: verdicts of all claims, designs and rooflines to look into.

The page is one file that asks no server and no network. Claims, their cases and figures are plain
HTML, so they read without a script too. What can be handled (filters, designs, rooflines) is drawn
by the scripts of ``page_files`` from data that stand in the page as JSON. A policy in the page lets
these scripts run, by their digest, and nothing else. Figures are held as images: their names and
styles stay apart from each other and from the page.

Left out: a dark scheme, and figures on the page whose text can be searched (the files beside the
page can).
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from npusim import units
from npusim.atomic import whole_file
from npusim.errors import InputError

_FILES = Path(__file__).parent / "page_files"
_SCRIPTS = ("chart.js", "verdicts.js", "breakdown.js", "designs.js", "rooflines.js", "start.js")
# A symbol beside the word: verdicts are told apart without colour.
SYMBOLS = {"supported": "✓", "supported in part": "◐", "undecided": "?", "refuted": "✗"}
_ABSENT = "–"
_DIGITS = 6


def write(content: Mapping[str, Any], file: Path) -> None:
    """Write the page of the studies.

    Parameters
    ----------
    content : Mapping
        ``title``, ``npusim``, ``model`` and ``command``; ``studies`` with claims, figures and
        files; ``designs`` (or None) with columns of points, their breakdowns and baselines;
        ``rooflines``. Quantities in SI units, breakdowns in ms and mJ. numpy values may stand
        in it.
    file : Path
        Written whole or not at all.

    Raises
    ------
    InputError
        The file cannot be written, a verdict is none of those known, columns of the designs differ
        in length, or a design has a value that its axis lacks.
    """
    text = page(content)
    with whole_file(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def page(content: Mapping[str, Any]) -> str:
    """Return the page as text; parameters and errors as `write`."""
    for study in content["studies"]:
        _check_verdicts(study)
    script = "".join(["(() => {\n", *(_part(name) for name in _SCRIPTS), "})();\n"])
    data = {
        "designs": _designs(content["designs"]) if content["designs"] else None,
        "rooflines": content["rooflines"] or [],
    }
    folder = FileSystemLoader(_FILES)
    environment = Environment(
        loader=folder, autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters.update(
        band=band, shown=shown, symbol=SYMBOLS.__getitem__, anchor=anchor, image=_image,
        relative=lambda name: quote(name, safe="/"), slug=lambda word: word.replace(" ", "-"),
    )  # fmt: skip
    return environment.get_template("page.html").render(
        content=content,
        claims=[(study, claim) for study in content["studies"] for claim in study["claims"]],
        verdicts=list(SYMBOLS),
        data=embedded(data),
        drawn=data,
        style=_part("page.css"),
        script=script,
        digest=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
    )


def _part(name: str) -> str:
    return (_FILES / name).read_text(encoding="utf-8")


def _check_verdicts(study: Mapping[str, Any]) -> None:
    """Refuse a verdict for which the page has no symbol."""
    for claim in study["claims"]:
        for word in (claim["verdict"], *(case["verdict"] for case in claim["cases"])):
            if word not in SYMBOLS:
                raise InputError("is no verdict", place=f"{study['name']}.{claim['id']}",
                                 value=word, allowed=", ".join(SYMBOLS))  # fmt: skip


def embedded(data: Any) -> str:
    r"""Return data as JSON that may stand in a script element: no ``<``, ASCII alone.

    Not a number and endless ones become null, numpy values plain ones, floats six digits.

    Examples
    --------
    >>> print(embedded({"a": "</script>", "b": np.array([1.0, np.nan]), "c": "\u2028"}))
    {"a":"\u003c/script>","b":[1.0,null],"c":"\u2028"}
    """
    text = json.dumps(_plain(data), allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _plain(data: Any) -> Any:
    """Return data with plain Python values in it."""
    if isinstance(data, np.ndarray | np.generic):
        data = data.tolist()
    if isinstance(data, Mapping):
        return {str(key): _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(value) for value in data]
    if isinstance(data, float):
        return float(f"{data:.{_DIGITS}g}") if math.isfinite(data) else None
    return data


def _designs(designs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the designs for the page: values of an axis as places in the list of its values."""
    points = dict(designs["points"])
    rows = len(points["launch"])
    lengths = {name: len(column) for name, column in points.items()}
    lengths |= {"front": len(designs["front"]), "time": len(designs["time"]["ms"])}
    lengths |= {"energy": len(designs["energy"]["mj"])}
    for name, length in lengths.items():
        if length != rows:
            raise InputError(f"has {length} rows where launch has {rows}", place=f"designs.{name}")
    launches = list(dict.fromkeys(points["launch"]))
    axes = [{"name": "launch", "label": "launch", "values": launches}]
    points["launch"] = [launches.index(name) for name in points["launch"]]
    for axis in designs["axes"]:
        path, values = axis["path"], list(axis["values"])
        labels = [_label(axis, value) for value in values]
        axes.append({"name": path, "label": path, "values": labels})
        points[path] = [_index(path, values, value) for value in points[path]]
    return {**designs, "axes": axes, "points": points}


def _label(axis: Mapping[str, Any], value: Any) -> str:
    """Return the words for a value of an axis; keys of the labels are numbers as text."""
    for key, label in axis["labels"].items():
        if key == str(value) or _same(_number(key), value):
            return str(label)
    return shown(value, axis["unit"]) if _number(value) is not None else str(value)


def _index(path: str, values: Sequence[Any], value: Any) -> int:
    for place, one in enumerate(values):
        if one == value or _same(_number(one), value):
            return place
    raise InputError("a design has a value that its axis lacks", place=f"designs.{path}",
                     value=value, allowed=", ".join(map(str, values)))  # fmt: skip


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _same(one: float | None, other: Any) -> bool:
    """Tell whether two numbers are the same to the digits that the page keeps."""
    second = _number(other)
    return one is not None and second is not None and math.isclose(one, second, rel_tol=1e-6)


def shown(value: float | None, unit: str) -> str:
    """Return a quantity as short text.

    Examples
    --------
    >>> shown(1.04567, "1"), shown(0.0023, "s"), shown(123456.0, "1"), shown(float("nan"), "s")
    ('1.046', '2.3 ms', '123,456', '–')
    >>> shown(2.0, "tokens")
    '2 tokens'
    """
    if value is None or math.isnan(value):
        return _ABSENT
    if math.isinf(value):
        return "no limit" if value > 0 else "-no limit"
    if unit == "1":
        return f"{value:,.0f}" if abs(value) >= 1e4 else f"{value:.4g}"
    try:
        return units.show(float(value), unit)
    except InputError:
        return f"{value:.4g} {unit}"


def band(thing: Mapping[str, Any]) -> str:
    """Return a value and its band as text.

    Examples
    --------
    >>> band({"value": 1.04, "low": 1.01, "high": 1.09, "unit": "1"})
    '1.04 (1.01 to 1.09)'
    >>> band({"value": 2.0, "low": 2.0, "high": 2.0, "unit": "s"})
    '2 s'
    """
    value, low, high = (shown(thing[part], thing["unit"]) for part in ("value", "low", "high"))
    return value if low == high == value else f"{value} ({low} to {high})"


def anchor(*names: str) -> str:
    """Return names as one that an element may have; different names stay different.

    Examples
    --------
    >>> anchor("claim", "host", "a b")
    'claim--host--a.20b'
    """
    safe = ("".join(c if c.isalnum() or c in "_-" else f".{ord(c):x}" for c in n) for n in names)
    return "--".join(safe)


def _image(svg: str) -> str:
    """Return a drawing as an address that holds it; what comes before the drawing goes."""
    begin = svg.find("<svg")
    if begin < 0:
        raise InputError("a figure is no SVG drawing", value=svg[:40])
    return "data:image/svg+xml;base64," + base64.b64encode(svg[begin:].encode()).decode()
