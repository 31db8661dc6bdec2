"""A calibrated machine as a YAML file: its values with their sources, and the calibration record.

Text with a unit is chosen so that reading the file gives the very same numbers.
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from npusim import units
from npusim.arch import Arch, Provenance
from npusim.atomic import whole_file
from npusim.calibrate import Calibration, Fitted
from npusim.errors import InputError
from npusim.parameters import PARAMETERS

_WIDTH = 100


def write(calibration: Calibration, name: str, path: Path, model: str = "") -> None:
    """Write one of the machines of a calibration.

    Parameters
    ----------
    calibration : Calibration
    name : str
        Name of the machine.
    path : Path
        The YAML file; it is written whole or not at all. A ``sweep:`` block of the machine's own
        file is not carried over.
    model : str
        Version of the models that it was fitted with, for the record.

    Raises
    ------
    InputError
        No such machine, or the file cannot be written.
    """
    arch = next((a for a in calibration.archs if a.name == name), None)
    if arch is None:
        raise InputError("is not a machine of this calibration", value=name,
                         allowed=", ".join(a.name for a in calibration.archs))  # fmt: skip
    content: dict[str, Any] = {"title": arch.title, "devices": list(arch.devices)}
    if arch.note:
        content["note"] = arch.note
    for parameter, value in arch.values.items():
        *groups, leaf = parameter.split(".")
        at = content
        for group in groups:
            at = at.setdefault(group, {})
        at[leaf] = _entry(parameter, value, arch.provenance[parameter])
    of_models = {"model": model} if model else {}
    content["calibration"] = of_models | record(calibration, arch)
    text = yaml.safe_dump(
        content, sort_keys=False, allow_unicode=True, width=_WIDTH, default_flow_style=None
    )
    with whole_file(path) as made:
        made.write_text(text, encoding="utf-8")


def record(calibration: Calibration, arch: Arch) -> dict[str, Any]:
    """Return the calibration record of a machine as plain values.

    Returns
    -------
    dict
        ``measured`` (what it was fitted to), ``free`` parameters, ``median_ape`` and ``p90_ape``
        before and after on what was fitted to, ``parameters`` by dotted path and ``residuals`` by
        kind of operation [SI].
    """
    before, after = calibration.before, calibration.after
    return {
        "measured": list(calibration.rows),
        "free": calibration.free,
        "median_ape": {"before": _short(before.median_ape), "after": _short(after.median_ape)},
        "p90_ape": {"before": _short(before.p90_ape), "after": _short(after.p90_ape)},
        "parameters": {f.path: _parameter(f) for f in calibration.of(arch.name)},
        "residuals": {kind: r.as_record() for kind, r in calibration.residuals.items()},
    }


def _parameter(f: Fitted) -> dict[str, Any]:
    unit = PARAMETERS[f.path].unit
    error = None if np.isnan(f.standard_error) else units.show(f.standard_error, unit, 3)
    return {
        "before": exact(f.before, unit), "after": exact(f.after, unit),
        "bounds": [exact(f.low, unit), exact(f.high, unit)], "at_bound": f.at_bound,
        "shared": f.shared, "standard_error": error, "effect": _short(f.effect),
        "source": f.source, "why": f.why,
    }  # fmt: skip


def _short(share: float) -> float:
    return float(f"{share:.4g}")


def _entry(path: str, value: float, origin: Provenance) -> dict[str, Any]:
    unit = PARAMETERS[path].unit
    entry: dict[str, Any] = {"value": exact(value, unit), "source": origin.source,
                             "kind": origin.kind}  # fmt: skip
    if origin.low < origin.high or origin.kind == "assumed":
        entry["range"] = [exact(origin.low, unit), exact(origin.high, unit)]
    return entry


def exact(value: float, unit: str) -> str | float | int:
    """Return an SI value as text that reads as the same number, as short as can be.

    Examples
    --------
    >>> exact(4.8e12, "B/s"), exact(3.68e-6, "s"), exact(0.1 + 0.2, "1"), exact(8.14e-4, "mm2")
    ('4.8 TB/s', '3.68 µs', 0.30000000000000004, '814 mm2')
    """
    if unit == "1":
        return int(value) if float(value).is_integer() else value
    for digits in range(4, 18):
        text = units.show(value, unit, digits)
        if units.parse(text, unit) == value:
            return text
    shift = 6 if unit == "mm2" else 0  # the only unit that is not the SI one
    return f"{Decimal(repr(float(value))).scaleb(shift)} {unit}"
