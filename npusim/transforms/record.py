"""What of a workload was changed, kept with it, so that nobody takes it for what was measured.

Settings go to ``meta["transforms"]``. Each operation of which a change alters what it costs is
marked in the column ``origin`` (`npusim.columns`) as

- ``extrapolated`` where nothing says which kernel does it now: its kind, type, library or routine
  has become another, its launch grid is no longer known, or its routine never was (libraries
  divide attention, and combine its parts, by rules of their own); or where the transform says that
  it goes beyond all that was measured;
- ``rescaled`` elsewhere.

What a transform puts in is ``generated``. A mark never becomes a better one: what was rescaled and
is changed back stays rescaled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.columns import COST_COLUMNS, COST_LABELS, ORIGINS
from npusim.errors import InputError
from npusim.parameters import PARAMETERS
from npusim.units import CHOICES, show
from npusim.workload import Workload

_KEY = "transforms"
# Drafts are verified in steps as they are; what may change after that.
_DRAFTS = ("workload.draft_tokens", "workload.acceptance", "workload.draft_layers")
_AFTER_DRAFTS = (*_DRAFTS, "workload.weight_bits", "workload.weight_group", "workload.kv_bits",
                 "workload.kv_heads")  # fmt: skip
_MERGED = "workload.merged"
_EXTRAPOLATED = ORIGINS.index("extrapolated")


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
    return ", ".join(f"{path}={_shown(path, value)}" for path, value in settings.items())


def _shown(path: str, value: float) -> str:
    unit = PARAMETERS[path].unit
    return show(value, unit) if unit in CHOICES else f"{value:g}"


def changed(
    w: Workload,
    settings: Mapping[str, float],
    columns: Mapping[str, NDArray[Any]],
    texts: Mapping[str, NDArray[np.object_]] | None = None,
    origin: str = "rescaled",
) -> Workload:
    """Return a workload with other columns and the record of it; itself if they are the same.

    Parameters
    ----------
    w : Workload
    settings : mapping of str to float
        What was asked for.
    columns : mapping of str to array, shape (K,)
        Numeric columns, and label columns as codes.
    texts : mapping of str to array of str, shape (K,), optional
        Label columns as texts.
    origin : str
        The least mark of an operation that costs something else now, one of `ORIGINS`.

    Raises
    ------
    InputError
        Steps that verify drafts, of which a setting would change a part only.
    """
    refuse_late(w, settings)
    labels, columns = dict(w.labels), dict(columns)
    for name, text in (texts or {}).items():
        labels[name], columns[name] = _coded(w.labels[name], text)
    if columns and all(np.array_equal(w[name], column) for name, column in columns.items()):
        return w
    before = changes(w)
    record = {**before, **settings}
    notes = [note for note in w.meta.get("notes", ()) if note != _note(w, before)]
    meta = {**w.meta, _KEY: record, "notes": [*notes, _note(w, record)]}
    made = Workload(w.name, {**w.columns, **columns}, labels, w.steps, w.edges, meta, w.counters,
                    w.host)  # fmt: skip
    return marked(made, np.maximum(origins(made), _marks(w, columns, ORIGINS.index(origin))))


def refuse_late(w: Workload, settings: Mapping[str, float]) -> None:
    """Refuse what has to be changed before drafts are verified in the steps as they then are."""
    late = [path for path in settings if path not in _AFTER_DRAFTS]
    if late and _DRAFTS[0] in changes(w):
        raise InputError("its steps verify drafts, which come after this change", file=w.name,
                         place=late[0], hint="set both at once")  # fmt: skip
    late = [path for path in settings if path != _MERGED]
    if late and _MERGED in changes(w):
        raise InputError("its products are merged, which comes after this change", file=w.name,
                         place=late[0], hint="set both at once")  # fmt: skip


def origins(w: Workload) -> NDArray[np.intp]:
    """Return the place of each operation's mark in `ORIGINS`, shape (K,)."""
    places = np.array([ORIGINS.index(label) for label in w.labels["origin"]], dtype=np.intp)
    found: NDArray[np.intp] = places[w["origin"]]
    return found


def marked(w: Workload, marks: NDArray[np.intp]) -> Workload:
    """Return a workload whose operations have other marks, by their place in `ORIGINS`."""
    return Workload(w.name, {**w.columns, "origin": marks}, {**w.labels, "origin": ORIGINS},
                    w.steps, w.edges, w.meta, w.counters, w.host)  # fmt: skip


def _marks(w: Workload, columns: Mapping[str, NDArray[Any]], least: int) -> NDArray[np.intp]:
    """Return the marks that a change makes: 0 where nothing that counts is altered."""
    given = [c for c in COST_COLUMNS if c in columns]
    altered = {c: w[c] != columns[c] for c in given}
    alike = np.zeros(len(w), dtype=bool)
    costs = np.any([alike, *altered.values()], axis=0)
    other = np.any([alike, *(altered[c] for c in given if c in COST_LABELS)], axis=0)
    lost = (w["blocks"] > 0) & (columns.get("blocks", w["blocks"]) == 0)
    unknown = other | lost | w.mask("routine", "")
    return np.where(costs, np.where(unknown, max(_EXTRAPOLATED, least), least), 0)


def _coded(
    labels: tuple[str, ...], text: NDArray[np.object_]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return labels with those of a text added, and the text as codes."""
    number = {label: i for i, label in enumerate(dict.fromkeys([*labels, *text.tolist()]))}
    return tuple(number), np.array([number[label] for label in text.tolist()], dtype=np.int64)


def _note(w: Workload, record: Mapping[str, float]) -> str:
    kept = "" if w.meta.get("measured") is False else ": measured times and counters are as before"
    return f"changed by {told(record)}{kept}"


def lacks(w: Workload, what: str, place: str) -> InputError:
    """Return the error of a workload that lacks what a setting needs."""
    hint = "make it so from the start: npusim template" if w.meta.get("lowering") else None
    return InputError(f"has no {what}", file=w.name, place=place, hint=hint)


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
