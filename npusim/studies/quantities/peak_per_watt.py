"""Peak operations a watt of a machine over those of another.

    of datasheet   units x matrix rate x clock / power.limit
    of a product   what a large product, repeated, computes a joule at the clock that the power
                   limit leaves

The first is what "TOPS/W" of a datasheet is. A machine without a published power limit has none of
it; the second is modelled for every machine that says enough of its energy.

The band of a product is that of the constants of energy and of its time, as if both machines shared
none of them: an upper bound of the doubt.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

import numpy as np
from pydantic import Field

from npusim.arch import Arch, Designs
from npusim.columns import COLUMNS, LABELS
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.measured.shapes import linear
from npusim.models.roofline import matrix_peak
from npusim.predict import replay
from npusim.studies.assumed import with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.workload import COST_COLUMNS, Steps, Workload

UNIT = "1"
FIGURE = "operations a watt over the other machine's"

_SIDE = 8192
_LIMIT = "power.limit"


class Options(Strict):
    """Two machines and what counts as their peak.

    Attributes
    ----------
    arch, against : str
    dtype : str
        Type of the products.
    of : {"datasheet", "product"}
    set : dict of str to float
        Parameters of the first machine that differ [SI].
    """

    arch: str
    against: str = "h100"
    dtype: str = "bf16"
    of: Literal["datasheet", "product"] = "product"
    set: dict[str, float] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: the band holds the constants of energy."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A machine without a rate in the type, without a power limit (datasheet) or that says too
        little of its energy (product).

    Examples
    --------
    H100 beside A100: 989 TFLOP/s at 700 W beside 312 at 400 W.

    >>> found = measure(Options(arch="h100", against="a100", of="datasheet"), {})
    >>> round(found.value, 2)
    1.81
    """
    one = with_settings(load_arch(options.arch), {**options.set, **settings})
    (value, low, high, text), (other, least, most, other_text) = (
        _of(arch, options) for arch in (one, load_arch(options.against))
    )
    reason = f"{options.arch}: {text}; {options.against}: {other_text}"
    return Value(value / other, low / most, high / least, reason, (options.arch, options.against))


def _of(arch: Arch, options: Options) -> tuple[float, float, float, str]:
    """Return operations a watt with the ends of their band [FLOP/J], and how they come about."""
    peak = float(matrix_peak(Designs(arch), options.dtype)[0])
    if not peak > 0:
        raise InputError("has no rate for products of this type", file=arch.name,
                         place=f"matrix.{options.dtype}.rate", value=options.dtype)  # fmt: skip
    if options.of == "datasheet":
        if _LIMIT not in arch.values:
            raise InputError("has no published power limit", file=arch.name, place=_LIMIT,
                             hint="of: product")  # fmt: skip
        each = peak / arch[_LIMIT]
        return each, each, each, f"{peak / 1e12:.0f} TFLOP/s at {arch[_LIMIT]:.0f} W"
    work = _product(options.dtype)
    found = replay(work, arch, "graph")
    if found.energy_j is None or found.energy_band_j is None:
        raise InputError("says too little for its energy", file=arch.name)
    flop = float(work["flop"].sum())
    value, high, low = (flop / joules for joules in (found.energy_j, *found.energy_band_j))
    text = (f"{flop / found.wall_s / 1e12:.0f} TFLOP/s at {flop / found.wall_s / value:.0f} W, "
            f"{found.clock_share:.0%} of its clock")  # fmt: skip
    return value, low, high, text


@lru_cache(maxsize=8)
def _product(dtype: str) -> Workload:
    """Return a square product as a step."""
    one = linear(dtype, _SIDE, _SIDE, _SIDE)
    row = {c: getattr(one if hasattr(one, c) else one.work, c) for c in COST_COLUMNS}
    row |= {"kernel": "product", "operator": "product", "phase": "unknown", "basis": "shape",
            "origin": "generated"}  # fmt: skip
    labels = {c: (str(row.get(c, "")),) for c in LABELS}
    columns = {c: np.full(1, 0 if c in LABELS else row.get(c, 0)) for c in COLUMNS}
    nothing = np.zeros(1)
    return Workload("product", columns, labels, Steps(nothing, nothing),
                    meta={"measured": False, "host": "unknown"})  # fmt: skip
