"""One look for the figures of design studies, made to be read in grey.

Fills go from dark to light in steps that a printer without colours keeps apart, and neighbours in a
stack or a legend differ in hatch as well; lines differ in dash and marker. Text of an SVG stays
text, and the same figure is the same file each time if it is saved with `SVG` as its metadata.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import pairwise
from types import MappingProxyType
from typing import Any

import numpy as np
from matplotlib import colormaps, rc_context
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap, to_rgb
from matplotlib.font_manager import FontProperties
from matplotlib.offsetbox import AnchoredOffsetbox, DrawingArea
from matplotlib.transforms import blended_transform_factory

from npusim.errors import InputError

INK, RULE, PALE = "#1A1A1A", "#666666", "#E4E4E4"

# From dark to light; what reads as red and green to nobody.
FILLS = ("#10243F", "#00639C", "#D55E00", "#6DB6E8", "#F0D264")
# Of lines: each dot of a dotted hatch is a path of its own in an SVG.
HATCHES = ("", "////", "----", r"\\\\", "xxxx", "||||", "++++")
LINES: tuple[tuple[str, Any, str], ...] = (
    (FILLS[0], "-", "o"), (FILLS[2], "--", "s"), (FILLS[1], "-.", "^"), ("#7A7A7A", ":", "D"),
    (FILLS[0], (0, (6, 1, 1, 1, 1, 1)), "v"), (FILLS[2], (0, (3, 1)), "P"),
)  # fmt: skip

SVG: Mapping[str, Any] = MappingProxyType({"Date": None})
SMALL = 7.0  # size of words inside a figure [pt]
_COLUMN = {1: 3.5, 2: 7.16}  # of a page with two columns [inch]
_BELOW = 31.0  # from the axes to the legend: ticks and the name of the axis stand between [pt]
_HANDLE = 26.0  # of an entry of a legend beside its words [pt]
_LETTER = 0.56  # width of a letter, in sizes of the font
_ROW, _EDGES = 12.2, 6.0  # height of a row of a legend, and of what is above and below all [pt]
_NARROW = 3.6  # inch: an axes in one column
_STACK = (0, 3, 1, 4, 2)  # of the fills: neighbours in a stack lie far apart

STYLE: Mapping[Any, Any] = MappingProxyType({
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8,
    "legend.fontsize": SMALL, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK,
    "ytick.color": INK, "axes.titlelocation": "left", "axes.spines.top": False,
    "axes.spines.right": False, "axes.linewidth": 0.7, "axes.grid": True, "axes.axisbelow": True,
    "grid.color": "#DDDDDD", "grid.linewidth": 0.5, "lines.linewidth": 1.4,
    "lines.markersize": 4.5, "hatch.linewidth": 0.6, "legend.frameon": False,
    "figure.dpi": 150, "savefig.dpi": 200, "figure.facecolor": "white",
    "svg.fonttype": "none", "svg.hashsalt": "npusim", "axes.formatter.useoffset": False,
})  # fmt: skip


@contextmanager
def look() -> Iterator[None]:
    """Give what is drawn and saved inside of the block the look of design studies.

    Examples
    --------
    >>> import io
    >>> from matplotlib.figure import Figure
    >>> with look():
    ...     figure = Figure(size(1, 2.0), layout="constrained")
    ...     _ = figure.subplots().set_xlabel("step time [ms]")
    ...     figure.savefig(found := io.BytesIO(), format="svg", metadata=dict(SVG))
    >>> b"step time [ms]</text>" in found.getvalue()
    True
    """
    with rc_context(dict(STYLE)):
        yield


def size(columns: int, height: float) -> tuple[float, float]:
    """Return width and height of a figure over one or two columns of a page [inch].

    Raises
    ------
    InputError
        Another number of columns.

    Examples
    --------
    >>> size(2, 3.0)
    (7.16, 3.0)
    """
    if columns not in _COLUMN:
        raise InputError("not a width of a figure", value=columns, allowed="1 or 2 columns")
    return _COLUMN[columns], height


def tall(rows: int, lines: int = 1) -> float:
    """Return the height of a figure in which rows of text stand beside an axes [inch].

    Parameters
    ----------
    rows : int
    lines : int
        Of text in each.

    Examples
    --------
    >>> tall(4), tall(12)
    (2.4, 4.4)
    """
    return round(1.4 + 0.25 * rows * (1 + 0.4 * (lines - 1)), 2)


def fill(index: int) -> dict[str, Any]:
    """Return how to fill the n-th part of a stack: no two of 35 have the same fill and hatch.

    Examples
    --------
    >>> [fill(i)["hatch"] for i in range(3)], fill(0)["facecolor"]
    (['', '////', '----'], '#10243F')
    """
    colour = FILLS[_STACK[index % len(_STACK)]]
    dark = luminance(colour) < 0.4
    return {"facecolor": colour, "edgecolor": "white" if dark else INK, "linewidth": 0.4,
            "hatch": HATCHES[index % len(HATCHES)]}  # fmt: skip


def line(index: int) -> dict[str, Any]:
    """Return how to draw the n-th line: colour, dash and marker.

    Examples
    --------
    >>> line(1)["linestyle"], line(1)["marker"]
    ('--', 's')
    """
    colour, dash, marker = LINES[index % len(LINES)]
    return {"color": colour, "linestyle": dash, "marker": marker, "markeredgecolor": "white",
            "markeredgewidth": 0.4}  # fmt: skip


def below(ax: Axes, columns: int, **look: Any) -> None:
    """Put the legend below the axes, over the whole width that they have in the figure.

    The names of rows make an axes as narrow as they are long, so its legend is as wide as its cell
    of the figure. The layout would move axes out of the way of such a legend: an empty box holds
    room for it instead.
    """
    texts = ax.get_legend_handles_labels()[1]
    columns = next((n for n in range(min(columns, len(texts)), 1, -1)
                    if _width(texts, n) <= _cell(ax)[1]), 1)  # fmt: skip
    middle = blended_transform_factory(ax.figure.transSubfigure, ax.transAxes)
    legend = ax.legend(loc="upper center", bbox_to_anchor=(_cell(ax)[0], 0), ncols=columns,
                       bbox_transform=middle, borderaxespad=_BELOW / SMALL, columnspacing=1.2,
                       handletextpad=0.5, **look)  # fmt: skip
    legend.set_in_layout(False)
    rows = -(-len(texts) // columns) + len(legend.get_title().get_text().splitlines())
    room = DrawingArea(0.0, _ROW * rows + _EDGES)
    ax.add_artist(AnchoredOffsetbox("upper center", child=room, pad=0.0, frameon=False,
                                    borderpad=_BELOW / SMALL, prop=FontProperties(size=SMALL),
                                    bbox_to_anchor=(0.5, 0),
                                    bbox_transform=ax.transAxes))  # fmt: skip


def _width(texts: list[str], columns: int) -> float:
    """Return about how wide a legend of some columns is [pt]; it fills them one after another."""
    rows, longer = divmod(len(texts), columns)
    ends = np.cumsum([0, *([rows + 1] * longer), *([rows] * (columns - longer))])
    parts = [texts[a:b] for a, b in pairwise(ends.tolist())]
    return sum(_HANDLE + _LETTER * SMALL * max(map(len, part)) for part in parts)


def _cell(ax: Axes) -> tuple[float, float]:
    """Return the middle of the cell of an axes, as a share of the figure, and its width [pt]."""
    spec = ax.get_subplotspec()
    whole = float(ax.figure.bbox.width / ax.figure.dpi * 72)
    if spec is None:
        return 0.5, whole
    widths = np.array(spec.get_gridspec().get_width_ratios(), dtype=float)
    ends = np.concatenate([[0.0], np.cumsum(widths / widths.sum())])
    left, right = float(ends[spec.colspan.start]), float(ends[spec.colspan.stop])
    return (left + right) / 2, (right - left) * whole


def narrow(ax: Axes) -> bool:
    """Return whether an axes fills one column of a page, or less."""
    return bool(ax.get_window_extent().width < _NARROW * ax.figure.dpi)


def luminance(colour: Any) -> float:
    """Return how light a colour is in grey, from 0 to 1.

    The luma of ITU-R BT.601, by which image software turns colours into greys.

    Examples
    --------
    >>> luminance("black"), luminance("white")
    (0.0, 1.0)
    """
    red, green, blue = to_rgb(colour)
    return round(float(0.299 * red + 0.587 * green + 0.114 * blue), 9)


def shades() -> ListedColormap:
    """Return the colour map of heat maps: cividis from its middle on, light enough for black ink.

    Source: J. R. Nuñez, C. R. Anderton, R. S. Renslow, PLoS ONE 13(7), 2018,
    doi:10.1371/journal.pone.0199239.
    """
    lightest = 256
    return ListedColormap([colormaps["cividis"](i / 255) for i in range(105, lightest)])
