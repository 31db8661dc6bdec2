"""What of a workload was changed, kept with it, so that nobody takes it for what was measured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.workload import Workload

_KEY = "transforms"


def changes(w: Workload) -> dict[str, float]:
    """Return the settings by which a workload differs from what was traced."""
    return dict(w.meta.get(_KEY, {}))


def told(settings: Mapping[str, float]) -> str:
    """Return settings as text.

    Examples
    --------
    >>> told({"workload.weight_bits": 4.0, "workload.context": 8192.0})
    'workload.weight_bits=4, workload.context=8192'
    """
    return ", ".join(f"{path}={value:g}" for path, value in settings.items())


def changed(
    w: Workload, settings: Mapping[str, float], columns: Mapping[str, NDArray[Any]]
) -> Workload:
    """Return a workload with other columns and the record of it; itself if they are the same."""
    if columns and all(np.array_equal(w[name], column) for name, column in columns.items()):
        return w
    before = changes(w)
    record = {**before, **settings}
    notes = [note for note in w.meta.get("notes", ()) if note != _note(before)]
    meta = {**w.meta, _KEY: record, "notes": [*notes, _note(record)]}
    return Workload(w.name, {**w.columns, **columns}, w.labels, w.steps, w.edges, meta,
                    w.counters, w.host)  # fmt: skip


def _note(record: Mapping[str, float]) -> str:
    return f"changed by {told(record)}: measured times and counters are those from before"


def checked(settings: Mapping[str, float]) -> dict[str, float]:
    """Return settings if each lies within its declared bounds.

    Raises
    ------
    InputError
        The first that does not.
    """
    for path, value in settings.items():
        p = PARAMETERS[path]
        if not p.low <= value <= p.high:
            raise InputError("out of bounds", place=path, value=value,
                             allowed=f"{p.low:g} to {p.high:g}")  # fmt: skip
    return {path: float(value) for path, value in settings.items()}
