"""Predictions beside measurements: of kernels, of steps, and of every design of a sweep.

Measured figures that are not in a trace ship in ``workloads/measured.csv``, each with its source
and whether the same kernels ran.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim import catalog
from npusim.arch import Arch, Designs
from npusim.durations import Durations
from npusim.energy import wake_up
from npusim.error_band import Factors
from npusim.errors import InputError
from npusim.lanes import Replayed, replay
from npusim.models.kernel import bound, kernel_time
from npusim.transforms import changes, refuse_changed
from npusim.workload import Workload

Array = NDArray[np.float64]

_PER_SECOND = {"s": 1.0, "ms": 1e3, "us": 1e6}


@dataclass(frozen=True)
class Measured:
    """One measured figure of a workload.

    Attributes
    ----------
    device, launch, quantity : str
        Machine, launch mode, and ``wall`` or ``device_busy`` of one step.
    value_s, low_s, high_s : float
        Central value and range [s].
    same_kernels : bool
        Whether the same kernels ran.
    source, note : str
    how : str
        How it was measured, in a word or two.
    traced : bool
        Whether the figure is that of the trace itself.
    """

    device: str
    launch: str
    quantity: str
    value_s: float
    low_s: float
    high_s: float
    same_kernels: bool
    source: str
    note: str
    how: str
    traced: bool = False

    @property
    def label(self) -> str:
        """Short name, e.g. ``NVIDIA H200, eager, wall``."""
        return f"{self.device}, {self.launch}, {self.quantity}"


@cache
def _figures() -> pd.DataFrame:
    return pd.read_csv(catalog.folder("workloads") / "measured.csv", keep_default_na=False)


def measured(workload: Workload) -> list[Measured]:
    """Return every measured figure of a workload: its own trace first, then the published ones.

    Of one that is not as it was traced (`npusim.transforms`) there are none.

    Examples
    --------
    >>> import npusim as ns
    >>> [m.label for m in measured(ns.load_workload("paddleocr_vl_decode"))][:3]
    ['NVIDIA H200, eager, wall', 'NVIDIA H200, eager, device_busy', 'NVIDIA H200, eager, wall']
    """
    if changes(workload):
        return []
    device = str(workload.meta.get("device", "") or "traced device")
    busy = _busy_by_step(workload)
    source = f"the trace itself ({len(workload.steps)} steps)"
    launch = str(workload.meta.get("launch", "eager"))
    note, marked = "the profiler slows the host", bool(workload.meta.get("marked_steps"))
    if not marked:
        note += "; no step is marked: the whole capture, idle time included"
    found = []
    if workload.meta.get("measured") is not False:
        found = [
            _spread(device, launch, "wall", workload.steps.wall_s, source, note, marked),
            _spread(device, launch, "device_busy", busy, source, "", comparable=True),
        ]
    table = _figures()
    of_this = (table["workload"] == workload.name) & (table["trace"] == workload.meta.get("file"))
    for row in table[of_this].to_dict("records"):
        scale = _PER_SECOND[row["unit"]]
        value, low, high = (float(row[c]) / scale for c in ("value", "low", "high"))
        found.append(
            Measured(
                row["device"],
                row["launch"],
                row["quantity"],
                value,
                low,
                high,
                row["same_kernels"] == "yes",
                row["source"],
                row["note"],
                row["how"],
            )
        )
    return found


def _busy_by_step(w: Workload) -> Array:
    return np.bincount(w["step"], w["duration_s"], len(w.steps)).astype(np.float64)


def _spread(
    device: str, launch: str, quantity: str, values: Array, source: str, note: str, comparable: bool
) -> Measured:
    return Measured(
        device,
        launch,
        quantity,
        float(np.mean(values)),
        float(np.min(values)),
        float(np.max(values)),
        same_kernels=comparable,
        source=source,
        note=note,
        how="profiled trace",
        traced=True,
    )


def kernel_errors(workload: Workload, arch: Arch) -> pd.DataFrame:
    """Return predicted and measured device time of every operation whose shapes are known.

    Parameters
    ----------
    workload : Workload
        K operations.
    arch : Arch
        The machine that was traced.

    Returns
    -------
    DataFrame
        One row an operation: ``kind``, ``kernel``, ``predicted_s``, ``measured_s``, ``bound``.

    Raises
    ------
    InputError
        The workload is not as it was traced.
    """
    refuse_changed(workload, "a comparison")
    rows, inverse = workload.unique()
    operations, machine = workload.operations(rows), Designs(arch)
    table = pd.DataFrame(
        {
            "kind": workload.text("kind"),
            "kernel": workload.text("kernel"),
            "predicted_s": kernel_time(operations, machine)[inverse, 0],
            "measured_s": workload["duration_s"],
            "bound": bound(operations, machine)[inverse, 0],
        }
    )
    return table[workload.classified & (workload["duration_s"] > 0)]


@dataclass(frozen=True)
class Error:
    """How far predictions lie from measurements.

    Attributes
    ----------
    operations : int
    median_ape, p90_ape, worst_ape : float
        Absolute error of single operations, as a share of the measured time.
    weighted_ape : float
        The same, weighted by measured time.
    busy_error : float
        (predicted - measured) / measured of the sum.
    """

    operations: int
    median_ape: float
    p90_ape: float
    worst_ape: float
    weighted_ape: float
    busy_error: float


def error_of(table: pd.DataFrame) -> Error:
    """Return error statistics of a table of `kernel_errors`.

    Raises
    ------
    InputError
        The table is empty.

    Examples
    --------
    >>> e = error_of(pd.DataFrame({"predicted_s": [1.0, 3.0], "measured_s": [2.0, 2.0]}))
    >>> e.median_ape, e.busy_error
    (0.5, 0.0)
    """
    if table.empty:
        raise InputError("no operation with known shapes to compare")
    predicted, actual = table["predicted_s"].to_numpy(), table["measured_s"].to_numpy()
    ape = np.abs(predicted - actual) / actual
    return Error(
        len(table),
        float(np.median(ape)),
        float(np.quantile(ape, 0.9)),
        float(ape.max()),
        float(np.average(ape, weights=actual)),
        float(predicted.sum() / actual.sum() - 1),
    )


@dataclass(frozen=True)
class Banded:
    """A replay with its band: wall and device-busy time if kernels are faster or slower."""

    middle: Replayed
    low: Replayed | None
    high: Replayed | None


def replay_with_band(
    workload: Workload,
    designs: Designs,
    time: Durations,
    launch: str,
    factors: Factors | None,
) -> Banded:
    """Replay three times: as predicted, and with all kernel times at either end of the band.

    Units that were gated wake up in each of them (`npusim.energy.wake_up`).
    """
    wake = wake_up(workload, designs)

    def run(times: Durations) -> Replayed:
        found = replay(workload, designs, times, launch)
        return replace(found, wall_s=found.wall_s + wake) if wake.any() else found

    middle = run(time)
    if factors is None:
        return Banded(middle, None, None)
    low, high = (run(time.scaled(f)) for f in (factors.low, factors.high))
    return Banded(middle, low, high)


def compare_designs(table: pd.DataFrame, workload: Workload, suffix: str = "") -> pd.DataFrame:
    """Put every design beside every measured figure of a workload.

    Parameters
    ----------
    table : DataFrame
        Designs with ``wall_s``, ``device_busy_s`` and band columns.
    workload : Workload
    suffix : str
        What follows the column names, e.g. ``"[name]"`` of one of several workloads.

    Returns
    -------
    DataFrame
        One row a design. For each figure how many times faster the design is, and the same at
        both ends of the band: ``FIGURE``, ``FIGURE, low``, ``FIGURE, high``.
    """
    columns: dict[str, pd.Series[float]] = {}
    for m in measured(workload):
        name = f"{m.label} ({m.how})"
        if name in columns:
            raise InputError("two figures of one name", file="measured.csv", value=name)
        stem = m.quantity
        columns[name] = m.value_s / table[f"{stem}_s{suffix}"]
        columns[f"{name}, low"] = m.value_s / table[f"{stem}_high_s{suffix}"]
        columns[f"{name}, high"] = m.value_s / table[f"{stem}_low_s{suffix}"]
    return pd.DataFrame(columns, index=table.index)
