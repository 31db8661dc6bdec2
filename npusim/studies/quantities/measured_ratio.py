"""Ratio of two rows that an experiment measured: how many times longer one takes.

The band is what the experiment says of itself when it is run again (``again``): the least and the
most of all ratios of the runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import product
from typing import Annotated

from pydantic import Field

from npusim import catalog
from npusim.errors import InputError
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.yaml_tree import read_text

UNIT = "1"
FIGURE = "measured time over that of what replaces it"

_TIME = "us_per_op"


class Options(Strict):
    """Two rows.

    Attributes
    ----------
    experiment : str
        Name of a file of ``workloads/experiments`` without ``_axes.json``.
    again : bool
        Whether a second run lies beside it (``_axes_again.json``).
    both : dict
        Columns that both rows have.
    slow, fast : dict
        Columns that tell them apart.
    """

    experiment: Annotated[str, Field(pattern=r"^\w+$")]
    again: bool = True
    both: dict[str, str | int | float | bool]
    slow: dict[str, str | int | float | bool]
    fast: dict[str, str | int | float | bool]


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: what was measured hangs on no assumption."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        No such experiment, or not one row that fits.

    Examples
    --------
    >>> found = measure(Options(experiment="h200_attention", both={"where": "clip", "bias": False},
    ...                         slow={"backend": "efficient"}, fast={"backend": "flash"}), {})
    >>> round(found.value, 1)
    1.3
    """
    runs = [f"{options.experiment}_axes.json"]
    runs += [f"{options.experiment}_axes_again.json"] if options.again else []
    slow, fast = ([_row(file, {**options.both, **own}) for file in runs]
                  for own in (options.slow, options.fast))  # fmt: skip
    ratios = [a / b for a, b in product(slow, fast)]
    named = [", ".join(f"{k} {v}" for k, v in own.items()) for own in (options.slow, options.fast)]
    reason = f"{named[0]}: {slow[0]:.4g} us; {named[1]}: {fast[0]:.4g} us, measured at equal shape"
    data = tuple(f"workloads/experiments/{file}" for file in runs)
    return Value(ratios[0], min(ratios), max(ratios), reason, data)


def _row(name: str, wanted: Mapping[str, object]) -> float:
    """Return the time of the one row that has some columns [us]."""
    file = catalog.folder("workloads") / "experiments" / name
    rows = [row for row in json.loads(read_text(file))
            if all(row.get(column) == value for column, value in wanted.items())]  # fmt: skip
    if len(rows) != 1 or _TIME not in rows[0]:
        raise InputError("not one measured row", file=file, value=f"{len(rows)} with {wanted}")
    return float(rows[0][_TIME])
