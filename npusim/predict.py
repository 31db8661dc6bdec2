"""One workload on one machine: the answer with its band, its host share and its gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from npusim.arch import Arch, Designs, with_value
from npusim.caveats import not_modelled, notes
from npusim.compare import BAND, band_factors, replay_with_band
from npusim.lanes import Durations, durations
from npusim.lanes import replay as lane_replay
from npusim.load import traced_arch
from npusim.models.kernel import parts
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
    idle_share : float
        Share of wall time in which the device idles for the host or a launch.
    launches : float
        Device operations a step.
    band : Band or None
        None where the traced machine is not known, and for ``transfer``.
    limits : dict of str to float
        Shares of device time by what it is spent on: ``floor``, ``memory``, ``compute`` or
        ``measured`` (carried over from the trace because shapes are not known).
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
    idle_share: float
    launches: float
    band: Band | None
    limits: dict[str, float]
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
        float(middle.idle_share[0]), middle.launches, band,
        _limits(workload, designs, time), not_modelled(arch),
        tuple(notes(workload, arch, launch, mode, traced)),
        {"workload": workload.id, "arch": arch_id(arch), "model": model_version(),
         "traced": arch_id(traced) if traced is not None else ""},
    )  # fmt: skip


def without_effect(
    workload: Workload, base: Arch, settings: Mapping[str, float], launch: str, mode: str = "model"
) -> tuple[str, ...]:
    """Return the settings that, each alone, leave a prediction exactly as it was.

    A parameter may have a model and still not count: the latency of eager launches does not
    under graph launch, nor an FP8 rate for a workload in bf16.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> settings = {"matrix.fp8.rate": 1.0, "memories.dram.bandwidth": 4e12}
    >>> without_effect(w, h200, settings, "graph")
    ('matrix.fp8.rate',)
    """
    if not settings:
        return ()
    before = _totals(workload, base, launch, mode)
    changed = {p: with_value(base, p, v) for p, v in settings.items() if v != base.values.get(p)}
    return tuple(p for p, a in changed.items() if _totals(workload, a, launch, mode) == before)


def _totals(workload: Workload, arch: Arch, launch: str, mode: str) -> tuple[float, ...]:
    designs = Designs(arch)
    time = durations(workload, designs, mode, traced_arch(workload))
    r = lane_replay(workload, designs, time, launch)
    return tuple(float(x[0]) for x in (r.wall_s, r.device_busy_s, r.host_busy_s))


def _limits(workload: Workload, designs: Designs, time: Durations) -> dict[str, float]:
    """Return the shares of device time by what it is spent on."""
    rows, inverse = workload.unique()
    known = workload.classified
    seconds = {"measured": float(time.scale[~known].sum())}
    for name, part in parts(workload.operations(rows), designs).items():
        seconds[name] = float((part[inverse, 0] * time.scale)[known].sum())
    total = sum(seconds.values()) or 1.0
    return {name: value / total for name, value in seconds.items() if value > 0}
