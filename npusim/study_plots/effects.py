"""What each assumed number does to a figure within its range, beside the rule of a claim."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from npusim.study_plots.axis import scale
from npusim.study_plots.placing import axes_width, text_width
from npusim.study_plots.rows import need, numbers
from npusim.study_plots.style import FILLS, INK, RULE, SMALL, below

_STILL = 1e-9  # relative: less of a change is rounding
_BOX: dict[str, Any] = {"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 0.4}

# The low end of a range and the high one: light and plain, dark and hatched.
_ENDS: Mapping[str, dict[str, Any]] = MappingProxyType({
    "low": {"facecolor": FILLS[3], "edgecolor": INK, "linewidth": 0.6},
    "high": {"facecolor": FILLS[0], "edgecolor": "white", "hatch": "////", "linewidth": 0.6},
})  # fmt: skip


def tornado(
    ax: Axes, rows: pd.DataFrame, nominal: float, threshold: Mapping[str, float] | None = None,
    figure: str = "ratio (design / against)", unit: str = "1", most: int = 12,
) -> Axes:  # fmt: skip
    """Draw how far each assumed number alone moves a figure, the widest on top.

    Parameters
    ----------
    ax : Axes
        The figure in its unit; one bar a number, from the figure at the low end of its range to
        that at the high end, both ends of the range written beside it.
    rows : DataFrame
        ``label``; ``low`` and ``high``, the figure at both ends [SI]; ``low_text`` and
        ``high_text``, the ends themselves, as text.
    nominal : float
        The figure where every number is as assumed [SI].
    threshold : mapping of str to float, optional
        Lines to draw: text -> where the verdict turns [SI]. The names of numbers that reach across
        one are set bold, with a mark.
    figure, unit : str
        What the figure is, and its SI unit.
    most : int
        Numbers drawn at most; how many more there are is said in words.

    Raises
    ------
    InputError
        A column that is not there, or a value that is no number.

    Examples
    --------
    >>> from matplotlib.figure import Figure
    >>> rows = pd.DataFrame({"label": ["floor.matmul"], "low": 1.01, "high": 1.09,
    ...                      "low_text": "1 us", "high_text": "3 us"})
    >>> ax = tornado(Figure().subplots(), rows, 1.04, {"most 1.05": 1.05})
    >>> [t.get_text() for t in ax.get_yticklabels()]
    ['floor.matmul ◆']
    """
    need(rows, ["label", "low_text", "high_text"])
    low, high = numbers(rows, ["low", "high"])
    turns = dict(threshold or {})
    factor, shown = scale([*low, *high, nominal, *turns.values()], unit)
    reach = np.maximum(np.abs(low - nominal), np.abs(high - nominal))
    order = np.argsort(-reach, kind="stable")[:most]
    ends = {"low": low / factor, "high": high / factor}
    middle = nominal / factor
    crosses = [_crosses((low[i], high[i]), nominal, list(turns.values())) for i in order]
    for row, i in enumerate(order):
        _bar(ax, row, {end: float(ends[end][i]) for end in ends}, middle,
             {end: str(rows[f"{end}_text"].iloc[i]) for end in ends})  # fmt: skip
    drawn = np.concatenate([ends["low"][order], ends["high"][order], [middle],
                            np.array(list(turns.values())) / factor])  # fmt: skip
    texts = [str(text) for end in ends for text in rows[f"{end}_text"]]
    beside = max(text_width(text, SMALL) for text in texts) + 8
    share = min(beside / axes_width(ax, rows["label"].astype(str).tolist()), 0.35)
    room = (float(np.ptp(drawn)) or 0.1 * abs(middle) or 1.0) * share / (1 - 2 * share)
    ax.set(xlim=(drawn.min() - room, drawn.max() + room), ylim=(len(order) - 0.4, -0.6),
           xlabel=f"{figure} [{shown}]")  # fmt: skip
    marked = [f"{rows['label'].iloc[i]}{' ◆' * c}" for i, c in zip(order, crosses, strict=True)]
    ticks = ax.set_yticks(range(len(order)), marked, parse_math=False)
    for tick, turned in zip(ticks, crosses, strict=True):
        tick.label1.set_fontweight("bold" if turned else "normal")
    _lines(ax, middle, shown, {text: value / factor for text, value in turns.items()})
    if len(rows) > len(order):
        ax.set_title(f"{len(rows) - len(order)} more move it less", fontsize=SMALL, loc="right",
                     y=1.0)  # fmt: skip
    _legend(ax, any(crosses))
    return ax


def _crosses(ends: tuple[float, float], nominal: float, turns: list[float]) -> bool:
    """Return whether a number reaches across a threshold within its range."""
    return any((end - turn) * (nominal - turn) < 0 for end in ends for turn in turns)


def _bar(
    ax: Axes, row: int, ends: Mapping[str, float], middle: float, texts: Mapping[str, str]
) -> None:
    if max(abs(end - middle) for end in ends.values()) <= _STILL * abs(middle):
        ax.annotate("no effect", (middle, row), xytext=(5, 0),
                    textcoords="offset points", va="center", fontsize=SMALL, bbox=dict(_BOX),
                    parse_math=False, zorder=4)  # fmt: skip
        return
    same_side = (ends["low"] - middle) * (ends["high"] - middle) > 0
    for end, other, shift in (("low", "high", -0.17), ("high", "low", 0.17)):
        # Two bars on one side would hide each other: they share the row.
        y, height = (row + shift, 0.32) if same_side else (float(row), 0.6)
        ax.barh(y, ends[end] - middle, left=middle, height=height, zorder=2, **_ENDS[end])
        side = np.sign(ends[end] - middle) or -np.sign(ends[other] - middle) or 1.0
        ax.annotate(texts[end], (ends[end], y), xytext=(4 * side, 0), textcoords="offset points",
                    va="center", ha="left" if side > 0 else "right", parse_math=False,
                    bbox=dict(_BOX), zorder=4,
                    fontsize=SMALL - 1 if same_side else SMALL)  # fmt: skip


def _lines(ax: Axes, middle: float, unit: str, turns: Mapping[str, float]) -> None:
    told = f"nominal: {middle:.4g}" + (f" {unit}" if unit != "1" else "")
    ax.axvline(middle, color=INK, linewidth=1, label=told, zorder=3)
    for text, value in turns.items():
        ax.axvline(value, color=RULE, linestyle="--", linewidth=1.4, zorder=3)
        ax.annotate(text, (value, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 2),
                    textcoords="offset points", ha="center", va="bottom", fontsize=SMALL,
                    parse_math=False)  # fmt: skip
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)


def _legend(ax: Axes, turned: bool) -> None:
    for end, look in _ENDS.items():
        ax.bar([0], [0], label=f"{end} end of its range", **look)
    if turned:
        ax.plot([], [], "D", color=INK, markersize=4, label="turns the verdict")
    below(ax, 4)
