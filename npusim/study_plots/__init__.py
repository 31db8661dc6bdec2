"""Figures of design studies, as an architect needs them in a review.

Each function draws data into an Axes and returns it, without reading files or running models. What
carries meaning differs in shape, hatch, dash or a word beside it, never in colour alone. Draw and
save inside of `look` for one look throughout:

>>> import pandas as pd
>>> from matplotlib.figure import Figure
>>> cases = pd.DataFrame({"label": ["batch 1"], "value": 1.02, "low": 1.0, "high": 1.04,
...                       "verdict": "supported", "most": 1.05})
>>> with look():
...     figure = Figure(size(1, 2.2), layout="constrained")
...     ax = verdicts(figure.subplots(), cases)
"""

from __future__ import annotations

from npusim.study_plots.effects import tornado
from npusim.study_plots.energy_bars import energy
from npusim.study_plots.forest import verdicts
from npusim.study_plots.front import pareto
from npusim.study_plots.heat_map import heat
from npusim.study_plots.lane_chart import lanes
from npusim.study_plots.lines import curves
from npusim.study_plots.order import build_order
from npusim.study_plots.roofs import roofline
from npusim.study_plots.steps import waterfall
from npusim.study_plots.style import SVG, look, size, tall

__all__ = [
    "SVG", "build_order", "curves", "energy", "heat", "lanes", "look", "pareto", "roofline",
    "size", "tall", "tornado", "verdicts", "waterfall",
]  # fmt: skip
