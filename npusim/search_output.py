"""What ``npusim search`` and ``npusim sensitivity`` write."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_pdf import FigureCanvasPdf
from matplotlib.figure import Figure

from npusim import search_plots
from npusim.atomic import whole_folder
from npusim.figures import STYLE
from npusim.search.nsga2 import Found
from npusim.search.run import Felt

SEARCH_FILES = ("front.csv", "designs.parquet", "summary.json")
FELT_FILES = ("sensitivity.csv", "tornado.png", "tornado.pdf", "summary.json")
_KEY = b"npusim.search"
_DPI = 150


def save_search(found: Found, content: Mapping[str, Any], folder: Path) -> list[str]:
    """Write a search into a folder, all files or none; return their names.

    Parameters
    ----------
    found : Found
    content : mapping
        What ``--json`` prints.
    folder : Path

    Raises
    ------
    InputError
        The folder cannot be written.
    """
    with whole_folder(folder, SEARCH_FILES) as temporary:
        found.front.to_csv(temporary / "front.csv", index=False)
        data = pa.Table.from_pandas(found.table, preserve_index=False)
        about = {**(data.schema.metadata or {}), _KEY: json.dumps(content).encode()}
        pq.write_table(data.replace_schema_metadata(about), temporary / "designs.parquet",
                       compression="zstd")  # fmt: skip
        _summary(temporary, content)
    return list(SEARCH_FILES)


def save_sensitivity(felt: Felt, content: Mapping[str, Any], folder: Path) -> list[str]:
    """Write a sensitivity into a folder, all files or none; return their names.

    Parameters are those of `save_search`.
    """
    with whole_folder(folder, FELT_FILES) as temporary:
        joined(felt).to_csv(temporary / "sensitivity.csv", index=False)
        with rc_context(dict(STYLE)):
            drawn = Figure((7.5, 1.9 + 0.34 * min(len(felt.alone), 15)), layout="constrained")
            search_plots.tornado(drawn.subplots(), felt.alone, felt.objective)
            drawn.suptitle(str(content["title"]), fontsize=9, parse_math=False)
            for canvas, ending in ((FigureCanvasAgg, "png"), (FigureCanvasPdf, "pdf")):
                canvas(drawn)
                drawn.savefig(temporary / f"tornado.{ending}", dpi=_DPI, format=ending)
        _summary(temporary, content)
    return list(FELT_FILES)


def joined(felt: Felt) -> pd.DataFrame:
    """Return one row an axis: what it does alone, and its Sobol indices where there are any."""
    if felt.indices is None:
        return felt.alone
    return felt.alone.merge(felt.indices, on="axis", how="left").sort_values(
        ["total", "swing"], ascending=False, kind="stable", ignore_index=True
    )


def plain(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Return rows as JSON holds them; what is no number is None.

    Examples
    --------
    >>> plain(pd.DataFrame({"launch": ["graph"], "gemv.count": [float("nan")]}))
    [{'launch': 'graph', 'gemv.count': None}]
    """
    return [
        {str(k): None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in table.to_dict("records")
    ]


def _summary(folder: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=1, allow_nan=False)
    (folder / "summary.json").write_text(text + "\n", encoding="utf-8")
