"""One workload on one machine: the answer with its band, its host share and its gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from npusim.arch import Arch, Designs, with_value
from npusim.caveats import not_modelled, notes
from npusim.compare import replay_with_band
from npusim.durations import Durations, durations
from npusim.error_band import BAND, band_factors
from npusim.errors import InputError
from npusim.lanes import replay as lane_replay
from npusim.load import traced_arch
from npusim.models.kernel import parts
from npusim.store import arch_id, model_version
from npusim.tokens import tokens_per_step
from npusim.traffic import movement, traffic
from npusim.transforms import (
    changes,
    limits,
    refuse_changed,
    split,
    told,
    transformed,
    unmeasured,
)
from npusim.workload import Workload

_FEW = 4  # ways to extrapolate that are told
BASIS, EXTRAPOLATES = "the band comes from", "extrapolates"  # how notes of a band begin


@dataclass(frozen=True)
class Band:
    """Range of a step's time, from how far kernel times were off where they were measured.

    Attributes
    ----------
    wall_s, device_busy_s : tuple of float
        Ends of the band [s].
    quantiles : tuple of float
        Which quantiles they are.
    basis : str
        Measurements that it comes from.
    extrapolates : tuple of str
        In which ways this machine or workload lies outside of them; the band does not hold that.
    """

    wall_s: tuple[float, float]
    device_busy_s: tuple[float, float]
    quantiles: tuple[float, float]
    basis: str
    extrapolates: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What `replay` answers: per step, the mean over the steps of the workload.

    Attributes
    ----------
    workload, arch, launch, mode : str
        What was asked.
    wall_s, device_busy_s, host_busy_s : float
        Wall time, sum of device times, host work [s].
    host_wait_s, device_idle_s : float
        Time in which the host waits for the device; in which no stream is at work. Host work and
        wait make the wall time; so do idle time and time in which some stream is at work [s].
    idle_share : float
        Share of wall time in which the device idles for the host or a launch.
    launches : float
        Device operations a step.
    tokens : float or None
        Tokens that a step yields, of all its sequences; None where it does not decode.
    s_per_token : float or None
        Wall time over tokens [s].
    band : Band or None
        None for ``transfer`` and where nothing is modelled.
    limits : dict of str to float
        Shares of device time by what it is spent on: ``floor``, ``memory``, ``compute`` or
        ``measured`` (carried over from the trace because shapes are not known).
    traffic : dict of str to dict of str to float
        Bytes read and written in a step by the level of the memory that serves them and the class
        of data: weights, experts, KV cache, activations [B].
    movement_j : float or None
        Energy of moving them [J]; None where the machine does not say what a byte takes.
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
    host_wait_s: float
    device_idle_s: float
    idle_share: float
    launches: float
    tokens: float | None
    s_per_token: float | None
    band: Band | None
    limits: dict[str, float]
    traffic: dict[str, dict[str, float]]
    movement_j: float | None
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
        See `npusim.durations.durations`.

    Returns
    -------
    Result

    Raises
    ------
    InputError
        An unknown launch mode or mode, or ``transfer`` of a trace from an unknown machine or of a
        workload that is not as it was traced.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> eager, graph, queue = (ns.replay(w, h200, launch=m) for m in ("eager", "graph", "queue"))
    >>> eager.wall_s > graph.wall_s > queue.wall_s
    True
    """
    if mode == "transfer":
        refuse_changed(workload, "transfer")
    designs, traced = Designs(arch), traced_arch(workload)
    time = durations(workload, designs, mode, traced)
    factors = band_factors(workload, designs, time) if mode == "model" else None
    banded = replay_with_band(workload, designs, time, launch, factors)
    middle = banded.middle
    band = None
    if banded.low is not None and banded.high is not None and factors is not None:
        ends = (banded.low, banded.high)
        band = Band(
            (float(ends[0].wall_s[0]), float(ends[1].wall_s[0])),
            (float(ends[0].device_busy_s[0]), float(ends[1].device_busy_s[0])),
            BAND,
            factors.basis,
            (*unmeasured(workload), *factors.reasons),
        )
    wall, tokens = float(middle.wall_s[0]), _known(tokens_per_step(workload))
    return Result(
        workload.name, arch.name, launch, mode,
        wall, float(middle.device_busy_s[0]), float(middle.host_busy_s[0]),
        float(middle.host_wait_s[0]), float(middle.device_idle_s[0]),
        float(middle.idle_share[0]), middle.launches,
        tokens, None if tokens is None else wall / tokens, band,
        _limits(workload, designs, time), *_moved(workload, designs), not_modelled(arch),
        (*_changed(workload), *notes(workload, arch, launch, mode), *beyond(band)),
        {"workload": workload.id, "arch": arch_id(arch), "model": model_version(),
         "traced": arch_id(traced) if traced is not None else ""},
    )  # fmt: skip


def _changed(workload: Workload) -> Iterator[str]:
    """Say that a workload is not the one that was measured, and what its changes leave out."""
    record = changes(workload)
    if record:
        yield f"the workload is changed ({told(record)}): nothing that was measured is of it"
        yield from limits(record)
        if record.get("workload.draft_tokens") and "workload.acceptance" not in record:
            yield "no time per token: workload.acceptance would say how many drafts are accepted"
    caches = workload.meta.get("caches", "step")
    if caches != "step":
        yield f"caches are {caches} at every kernel: a profiler's protocol, not a running step"


def beyond(band: Band | None) -> Iterator[str]:
    """Say in which ways a prediction lies outside of what was measured, the first few."""
    if band is None:
        return
    yield f"{BASIS} {band.basis}"
    for reason in band.extrapolates[:_FEW]:
        yield f"{EXTRAPOLATES}: {reason}"
    if len(band.extrapolates) > _FEW:
        yield f"{EXTRAPOLATES} in {len(band.extrapolates) - _FEW} more ways (--json lists them)"


def without_effect(
    workload: Workload, base: Arch, settings: Mapping[str, float], launch: str, mode: str = "model"
) -> tuple[str, ...]:
    """Return the settings, of machine or workload, that each alone leave a prediction as it was.

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

    def without(left_out: str) -> tuple[float | None, ...] | None:
        of_machine, of_workload = split({p: v for p, v in settings.items() if p != left_out})
        arch = base
        for path, value in of_machine.items():
            arch = with_value(arch, path, value)
        try:
            return _totals(transformed(workload, of_workload), arch, launch, mode)
        except InputError:  # the others cannot do without it
            return None

    before = without("")
    changed = [p for p, v in settings.items() if v != base.values.get(p)]
    return tuple(p for p in changed if without(p) == before)


def _totals(workload: Workload, arch: Arch, launch: str, mode: str) -> tuple[float | None, ...]:
    designs = Designs(arch)
    time = durations(workload, designs, mode, traced_arch(workload))
    r = lane_replay(workload, designs, time, launch)
    times = (float(x[0]) for x in (r.wall_s, r.device_busy_s, r.host_busy_s))
    return (*times, _known(tokens_per_step(workload)))


def _moved(
    workload: Workload, designs: Designs
) -> tuple[dict[str, dict[str, float]], float | None]:
    """Return the traffic of each level, and the energy of it."""
    found = traffic(workload, designs)
    bytes_of = {level: {g: float(moved[0]) for g, moved in groups.items() if moved[0] > 0}
                for level, groups in found.items()}  # fmt: skip
    return bytes_of, _known(float(movement(found, designs)[0]))


def _known(value: float) -> float | None:
    """Return a number, or None where there is none."""
    return None if math.isnan(value) else value


def _limits(workload: Workload, designs: Designs, time: Durations) -> dict[str, float]:
    """Return the shares of device time by what it is spent on."""
    rows, inverse = workload.unique()
    known = workload.classified
    seconds = {"measured": float(time.scale[~known].sum())}
    for name, part in parts(workload.operations(rows), designs).items():
        seconds[name] = float((part[inverse, 0] * time.scale)[known].sum())
    total = sum(seconds.values()) or 1.0
    return {name: value / total for name, value in seconds.items() if value > 0}
