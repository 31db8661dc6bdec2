"""The error band of a prediction: which residuals speak for a design, and what they make of it.

A machine that was calibrated carries the residuals of what was held back. They speak for designs
within what was measured of it; for all others those of machines that were left out of the fit do
(``archs/residuals/left_out.yaml``), and kinds of operation that were never measured anywhere take
the widest of these.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from npusim import catalog, config
from npusim.arch import SET_BY_USER, Arch, Designs
from npusim.bands import (
    QUANTILES,
    Residual,
    by_kind,
    extrapolated,
    far_designs,
    from_record,
    total_band,
)
from npusim.durations import Durations
from npusim.workload import Workload

Array = NDArray[np.float64]

FEWEST = 20
LEAST = 0.05  # of the prediction, where a band ends at the latest
_DEVICE = ("units.", "matrix.", "vector.", "memories.", "gemm.", "floor.", "library.")
BAND = (QUANTILES[0], QUANTILES[-1])


@dataclass(frozen=True)
class Factors:
    """By what modelled device time may be off.

    Attributes
    ----------
    low, high : array, shape (D,)
        Ends of the band over the prediction; the band holds the prediction itself.
    beyond : array of bool, shape (D,)
        Designs that lie outside of what was measured.
    basis : str
        Where the residuals come from.
    reasons : tuple of str
        In which ways operations or designs lie outside.
    """

    low: Array
    high: Array
    beyond: NDArray[np.bool_]
    basis: str
    reasons: tuple[str, ...]


@cache
def left_out() -> tuple[str, dict[str, Residual]]:
    """Return the residuals of machines that were left out of the fit, and what they are.

    Examples
    --------
    >>> "gemm" in left_out()[1]
    True
    """
    source, record = config.read_residuals(catalog.folder("archs") / "residuals" / "left_out.yaml")
    return source, from_record(record)


def own(arch: Arch) -> dict[str, Residual]:
    """Return the residuals of a machine's calibration; those left out fill what it lacks.

    A kind of which fewer than `FEWEST` were measured counts as lacking: its quantiles say nothing.
    """
    if not arch.calibration:
        return {}
    known = from_record(arch.calibration["residuals"])
    return {**left_out()[1], **{kind: r for kind, r in known.items() if r.n >= FEWEST}}


def band_factors(workload: Workload, designs: Designs, time: Durations) -> Factors | None:
    """Return by what the device time of a workload may be off on each design.

    Parameters
    ----------
    workload : Workload
    designs : Designs
        D designs.
    time : Durations
        Modelled device time of its operations; those carried over have no error.

    Returns
    -------
    Factors or None
        None where nothing is modelled.
    """
    rows, _ = workload.unique()
    operations = workload.operations(rows)
    often, seconds = _modelled(time, len(rows))
    counted = often > 0
    modelled = np.add.reduce(seconds, axis=0)
    if not (modelled > 0).all():
        return None
    kinds = by_kind(operations.kind[counted], seconds[counted])
    basis, foreign = left_out()
    known = own(designs.base)
    where = extrapolated(operations.take(counted), designs, known or foreign)
    beyond = outside(kinds, designs)
    low, high = (end / modelled for end in kinds_band(kinds, designs, beyond))
    if known:
        basis = _basis(designs, kinds, beyond, basis)
    return Factors(np.clip(low, LEAST, 1.0), np.maximum(high, 1.0), beyond, basis,
                   where.reasons)  # fmt: skip


def kind_seconds(workload: Workload, time: Durations) -> dict[str, Array]:
    """Return the modelled device time of each kind of operation, (D,) each [s].

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.durations import durations
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> time = durations(w, h200)
    >>> bool(np.isclose(sum(kind_seconds(w, time).values()), time.busy())[0])
    True
    """
    rows, _ = workload.unique()
    often, seconds = _modelled(time, len(rows))
    counted = often > 0
    return by_kind(workload.operations(rows).kind[counted], seconds[counted])


def _modelled(time: Durations, rows: int) -> tuple[Array, Array]:
    """Return how often each distinct operation takes modelled time, and what that comes to."""
    often: Array = np.bincount(time.row, time.scale, len(time.table))[:rows].astype(np.float64)
    return often, often[:, None] * time.table[:rows]


def outside(kinds: Collection[str], designs: Designs) -> NDArray[np.bool_]:
    """Return which designs lie outside of what was measured of some kinds of operation, (D,)."""
    known = own(designs.base)
    far = far_designs(kinds, designs, known or left_out()[1])
    return far | _changed(designs) if known else far


def kinds_band(
    kinds: Mapping[str, Array], designs: Designs, beyond: NDArray[np.bool_]
) -> tuple[Array, Array]:
    """Return the ends of modelled device time from that of each kind, (D,) each [s].

    Parameters
    ----------
    kinds : mapping of str to array, shape (D,)
        Modelled time of each kind of operation [s].
    designs : Designs
        D designs.
    beyond : array of bool, shape (D,)
        Those for which the residuals of other machines speak, see `outside`.
    """
    low, high = total_band(kinds, left_out()[1])
    known = own(designs.base)
    if known and not beyond.all():
        ends = zip((low, high), total_band(kinds, known), strict=True)
        low, high = (np.where(beyond, far, near) for far, near in ends)
    return low, high


def _basis(
    designs: Designs, kinds: Mapping[str, Array], beyond: NDArray[np.bool_], foreign: str
) -> str:
    """Say which residuals a band is made of: a machine's own as far as it has enough of a kind."""
    record = from_record(designs.base.calibration["residuals"])
    mine = [kind for kind in kinds if kind in record and record[kind].n >= FEWEST]
    if beyond.all() or not mine:
        return foreign
    name = f"the calibration record of {designs.base.name}"
    if len(mine) == len(kinds) and not beyond.any():
        return name
    return f"{name} ({', '.join(mine)}); for all else {foreign}"


def _changed(designs: Designs) -> NDArray[np.bool_]:
    """Return which designs differ from their machine in what a kernel's time depends on, (D,)."""
    marks = designs.base.provenance
    by_hand = any(marks[p].source == SET_BY_USER for p in marks if p.startswith(_DEVICE))
    changed = np.full(len(designs), by_hand)
    for path, column in designs.columns.items():
        if path.startswith(_DEVICE):
            changed |= column != designs.base.values.get(path)
    return changed
