"""Verdicts on claims as a forest plot: each case with its band, beside what the rule allows."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.study_plots.axis import logarithmic, scale
from npusim.study_plots.rows import banded, need
from npusim.study_plots.style import INK, PALE, RULE, SMALL, below, narrow

Array = NDArray[np.float64]

# How a verdict is marked: by shape and filling alone.
MARKS: Mapping[str, dict[str, Any]] = MappingProxyType({
    "supported": {"marker": "o", "markersize": 6, "color": INK},
    "supported in part": {"marker": "o", "markersize": 6, "fillstyle": "left", "color": INK,
                          "markerfacecoloralt": "white"},
    "undecided": {"marker": "D", "markersize": 5.5, "color": INK, "markerfacecolor": "white"},
    "refuted": {"marker": "x", "markersize": 6.5, "markeredgewidth": 1.9, "color": INK},
})  # fmt: skip
_SPAN = 3.0  # ratios further apart than this are drawn on a logarithmic axis


def verdicts(
    ax: Axes, cases: pd.DataFrame, figure: str = "ratio (design / against)", unit: str = "1"
) -> Axes:
    """Draw the cases of one claim or of several, each with its band and its verdict.

    Parameters
    ----------
    ax : Axes
        The figure in its unit, logarithmic if it spans three times or more; one row a case, from
        the top. The shaded part is what the rule allows.
    cases : DataFrame
        ``label, value, low, high, verdict``, in the order of the rows; ``least`` and ``most``, the
        ends of what the rule allows (not-a-number or infinite: no such end); ``claim``, if there
        are several: a heading before the cases of each.
    figure : str
        What the value is, in words.
    unit : str
        Its SI unit.

    Raises
    ------
    InputError
        A column that is not there, a value that is no number or outside of its band, or an unknown
        verdict.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> cases = pd.DataFrame({"label": ["batch 1"], "value": 1.02, "low": 1.0, "high": 1.04,
    ...                       "verdict": "supported", "most": 1.05})
    >>> ax = verdicts(Figure().subplots(), cases)
    >>> ax.get_xlabel(), [t.get_text() for t in ax.get_yticklabels()]
    ('ratio (design / against) [1]', ['batch 1'])
    """
    need(cases, ["label", "verdict"])
    value, low, high = banded(cases, ("value", "low", "high"))
    for verdict in cases["verdict"]:
        if verdict not in MARKS:
            raise InputError("not a verdict", value=verdict, allowed=", ".join(MARKS))
    factor, shown = scale(np.concatenate([low, high]), unit)
    ends = _ends(cases) / factor
    rows, headings = _places(cases)
    values = np.concatenate([low, high]) / factor
    _limits(ax, values, ends[np.isfinite(ends)])
    _allowed(ax, rows, ends)
    _bands(ax, rows, low / factor, high / factor)
    for verdict in cases["verdict"].unique():
        at = np.flatnonzero(cases["verdict"] == verdict)
        ax.plot(value[at] / factor, np.take(rows, at), linestyle="", zorder=4, **MARKS[verdict])
    for i, y in enumerate(rows):
        told = "{} [{}, {}]".format(*(_digits(v[i] / factor) for v in (value, low, high)))
        ax.annotate(told, (1.0, y), xycoords=("axes fraction", "data"), xytext=(5, 0),
                    textcoords="offset points", va="center", fontsize=SMALL)  # fmt: skip
    for y, text in headings:
        ax.annotate(text, (0.0, y), xycoords=("axes fraction", "data"), xytext=(4, 0),
                    textcoords="offset points", va="center", weight="bold", fontsize=SMALL + 0.5,
                    parse_math=False)  # fmt: skip
    ax.set(xlabel=f"{figure} [{shown}]", yticks=rows)
    ax.set_yticklabels(cases["label"].astype(str), parse_math=False)
    ax.set_ylim(
        max(rows) + 0.7, min([*rows, *(y for y, _ in headings)]) - (0.6 if headings else 1.05)
    )
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    _legend(ax, list(cases["verdict"]), bool(np.isfinite(ends).any()))
    return ax


def _bands(ax: Axes, rows: list[float], low: Array, high: Array) -> None:
    """Draw all bands as one line that is broken between them: an artist each is slow to lay out."""
    gap = np.full(len(rows), np.nan)
    ax.plot(np.column_stack([low, high, gap]).ravel(), np.repeat(rows, 3), color=INK, linewidth=1.2,
            marker="|", markersize=4, zorder=3, label="band")  # fmt: skip


def _digits(value: float) -> str:
    """Return three digits, noughts at the end too, and three decimals of what is about 1."""
    near = 0.95 < abs(value) < 1.05
    return f"{value:.3f}" if near else f"{value:#.3g}".rstrip(".")


def _ends(cases: pd.DataFrame) -> Array:
    """Return from where to where the rule of each case allows, (N, 2); infinite: no end."""
    found = np.column_stack([np.full(len(cases), -np.inf), np.full(len(cases), np.inf)])
    for i, name in enumerate(("least", "most")):
        if name in cases:
            given = cases[name].to_numpy(dtype=float)
            found[:, i] = np.where(np.isnan(given), found[:, i], given)
    return found


def _places(cases: pd.DataFrame) -> tuple[list[float], list[tuple[float, str]]]:
    """Return the row of each case, and headings with theirs: one before each claim."""
    rows, headings, at = list[float](), list[tuple[float, str]](), 0.0
    before: str | None = None
    for i in range(len(cases)):
        claim = str(cases["claim"].iloc[i]) if "claim" in cases else None
        if claim is not None and claim != before:
            at += 0.1 * (i > 0)
            headings.append((at, claim))
            at, before = at + 1.15, claim
        rows.append(at)
        at += 1.0
    return rows, headings


def _limits(ax: Axes, values: Array, ends: Array) -> None:
    """Set the x axis to hold all bands and thresholds, with room on both sides."""
    held = np.concatenate([values, ends])
    low, high = float(held.min()), float(held.max())
    if low > 0 and high > _SPAN * low:
        room = (high / low) ** 0.08
        ax.set_xlim(low / room, high * room)
        logarithmic(ax, "x")
        return
    room = (0.2 if len(ends) and narrow(ax) else 0.12) * (high - low) or 0.1 * abs(high) or 1.0
    ax.set_xlim(low - room, high + room)


def _allowed(ax: Axes, rows: list[float], ends: Array) -> None:
    """Shade what each rule allows over its rows, and write its thresholds over them."""
    left, right = ax.get_xlim()
    first = 0
    for i in range(1, len(rows) + 1):
        same = i < len(rows) and rows[i] - rows[i - 1] < 1.01 and (ends[i] == ends[first]).all()
        if same:
            continue
        least, most = ends[first]
        top, bottom = rows[first] - 0.5, rows[i - 1] + 0.5
        if np.isfinite([least, most]).any():
            ax.fill_betweenx([top, bottom], max(least, left), min(most, right), color=PALE,
                             linewidth=0, zorder=0.5)  # fmt: skip
        for end, words, side in ((least, "≥", "right"), (most, "≤", "left")):
            if np.isfinite(end):
                ax.plot([end, end], [top - 0.3, bottom], color=RULE, linestyle="--", linewidth=1)
                ax.annotate(f"{words} {end:.4g}", (end, top), va="bottom", ha=side, color=INK,
                            xytext=(2 if side == "left" else -2, 0), textcoords="offset points",
                            fontsize=SMALL - 0.5)  # fmt: skip
        first = i


def _legend(ax: Axes, found: list[str], ruled: bool) -> None:
    for name, mark in MARKS.items():
        if name in found:
            ax.plot([], [], linestyle="", label=name, **mark)
    if ruled:
        ax.fill_betweenx([], [], [], color=PALE, label="allowed by the rule")
    below(ax, 6)
