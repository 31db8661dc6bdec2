"""One workload on one machine: the answer with its band, its host share and its gaps."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from npusim.arch import Arch, Designs
from npusim.compare import BAND, band_factors, replay_with_band
from npusim.lanes import durations
from npusim.load import traced_arch
from npusim.models import modelled
from npusim.models.kernel import BOUNDS, bound
from npusim.store import arch_id, model_version
from npusim.workload import Workload


@dataclass(frozen=True)
class Band:
    """Range of a step's time, from how far kernel times lie off on the traced machine [s]."""

    wall_s: tuple[float, float]
    device_busy_s: tuple[float, float]
    quantiles: tuple[float, float]
    basis: str


@dataclass(frozen=True)
class Result:
    """What `replay` answers: per step, the mean over the steps of the workload.

    Attributes
    ----------
    workload, arch, launch, mode : str
        What was asked.
    wall_s, device_busy_s, host_busy_s : float
        Wall time, sum of device times, host work [s].
    host_share : float
        Share of wall time in which the device idles for the host or a launch.
    launches : float
        Device operations a step.
    band : Band or None
        None where the traced machine is not known, and for ``transfer``.
    bound_shares : dict of str to float
        Share of device time by what limits it: ``floor``, ``memory``, ``compute`` or ``measured``
        (carried over from the trace because shapes are not known).
    not_modelled : tuple of str
        Parameters that the machine gives and no cost model reads: they change nothing.
    notes : tuple of str
        What a reader should know before using the number.
    made_by : dict
        Ids of workload and machine, and the version of the models.
    """

    workload: str
    arch: str
    launch: str
    mode: str
    wall_s: float
    device_busy_s: float
    host_busy_s: float
    host_share: float
    launches: float
    band: Band | None
    bound_shares: dict[str, float]
    not_modelled: tuple[str, ...]
    notes: tuple[str, ...]
    made_by: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return the result as plain values, ready for JSON."""
        return asdict(self)


def replay(workload: Workload, arch: Arch, launch: str = "eager", mode: str = "model") -> Result:
    """Replay a workload on a machine.

    Parameters
    ----------
    workload : Workload
    arch : Arch
    launch : {"eager", "graph", "queue"}
    mode : {"model", "transfer"}
        See `npusim.lanes.durations`.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        An unknown launch mode or mode, or ``transfer`` of a trace from an unknown machine.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> eager, graph, queue = (ns.replay(w, h200, launch=m) for m in ("eager", "graph", "queue"))
    >>> eager.wall_s > graph.wall_s > queue.wall_s
    True
    """
    designs, traced = Designs(arch), traced_arch(workload)
    time = durations(workload, designs, mode, traced)
    factors = band_factors(workload, traced) if mode == "model" else None
    banded = replay_with_band(workload, designs, time, launch, factors)
    middle = banded.middle
    band = None
    if banded.low is not None and banded.high is not None and traced is not None:
        ends = (banded.low, banded.high)
        band = Band(
            (float(ends[0].wall_s[0]), float(ends[1].wall_s[0])),
            (float(ends[0].device_busy_s[0]), float(ends[1].device_busy_s[0])),
            BAND,
            f"measured / predicted kernel times of this workload on {traced.name}, one for all",
        )
    return Result(
        workload.name, arch.name, launch, mode,
        float(middle.wall_s[0]), float(middle.device_busy_s[0]), float(middle.host_busy_s[0]),
        float(middle.host_share[0]), middle.launches, band,
        _bound_shares(workload, designs, mode), not_modelled(arch),
        tuple(_notes(workload, arch, launch, band)),
        {"workload": workload.id, "arch": arch_id(arch), "model": model_version()},
    )  # fmt: skip


def not_modelled(arch: Arch) -> tuple[str, ...]:
    """Return the parameters of a machine that no cost model reads.

    >>> import npusim as ns
    >>> "gemv.count" in not_modelled(ns.load_arch("decode_npu"))
    True
    """
    known = modelled()
    return tuple(path for path in arch.values if path not in known)


def _bound_shares(workload: Workload, designs: Designs, mode: str) -> dict[str, float]:
    rows, inverse = workload.unique()
    limits = bound(workload.operations(rows), designs)[inverse, 0]
    limits = np.where(workload.classified, limits, "measured")
    time = durations(workload, designs, mode, traced_arch(workload))
    seconds = time.table[time.row, 0] * time.scale
    total = float(seconds.sum()) or 1.0
    shares = {b: float(seconds[limits == b].sum()) / total for b in (*BOUNDS, "measured")}
    return {name: share for name, share in shares.items() if share > 0}


def _notes(workload: Workload, arch: Arch, launch: str, band: Band | None) -> list[str]:
    """Return what a reader should know before using a prediction."""
    notes = []
    if launch == "eager" and workload.meta.get("host") == "measured":
        notes.append("host times are those of the trace, profiler included")
    elif launch == "eager":
        notes.append("the trace has no host: every launch costs launch.eager.host")
    if not workload.meta.get("marked_steps"):
        notes.append("no step is marked in the trace: the whole capture counts as one")
    missing = 1 - workload.classified_busy_share
    if missing > 5e-4:
        notes.append(f"{missing:.1%} of device time has no shapes and is carried over as measured")
    waits = int(workload["sync"].sum())
    if launch == "graph" and waits > len(workload.steps):
        pieces = waits / len(workload.steps)
        notes.append(f"the program waits for the device {pieces:.0f} times a step: as many graphs")
    if band is None:
        notes.append("no error band: transfer mode, or no shipped machine lists the traced device")
    used = [p for path, p in arch.provenance.items() if path in modelled()]
    assumed = sum(p.kind == "assumed" for p in used)
    if assumed:
        notes.append(f"{assumed} of the {len(used)} values of {arch.name} that count here are "
                     "assumed; their ranges are not in the band")  # fmt: skip
    return notes
