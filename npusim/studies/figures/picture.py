"""A figure of a study, ready to be drawn: what it shows, in words and as data."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from npusim import study_plots as plots

_COLUMNS = 2


@dataclass(frozen=True)
class Picture:
    """A figure of a study. It pickles, so that other processes can draw it.

    Attributes
    ----------
    kind : str
        Of `npusim.studies.figures.names`.
    title, caption : str
        What it shows; how to read it.
    table : DataFrame
        The data that are drawn [SI].
    draw : callable
        Draws into an Axes.
    height : float
        [inch]
    study : str
        Name of the study.
    """

    kind: str
    title: str
    caption: str
    table: pd.DataFrame
    draw: Callable[[Any], Any]
    height: float = 3.2
    study: str = ""

    def figure(self) -> Figure:
        """Return it drawn; within `npusim.study_plots.look` for the common look."""
        figure = Figure(plots.size(_COLUMNS, self.height), layout="constrained")
        self.draw(figure.subplots())
        return figure

    def svg(self) -> str:
        """Return it as SVG, the same text for the same data."""
        with plots.look():
            self.figure().savefig(file := io.BytesIO(), format="svg", metadata=dict(plots.SVG))
        text = file.getvalue().decode("utf-8")
        return text[text.index("<svg") :]

    def csv(self) -> str:
        """Return its data, SI units."""
        text: str = self.table.to_csv(index=False, float_format="%.6g", lineterminator="\n")
        return text
