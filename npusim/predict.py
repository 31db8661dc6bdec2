"""One workload on one machine: the answer with its band, its host share and its gaps."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs, with_value
from npusim.caveats import not_modelled, notes
from npusim.compare import Banded, replay_with_band
from npusim.durations import Durations
from npusim.energy import KINDS, step_energy
from npusim.error_band import BAND, band_factors
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.load import traced_arch
from npusim.models.area import die_area
from npusim.models.cost import PLACES
from npusim.models.gemm import KINDS as PRODUCTS
from npusim.models.kernel import BOUNDS, kernel_cost
from npusim.power import LEAST, held
from npusim.store import arch_id, model_version, stale_fit
from npusim.tokens import page_parts, tokens_per_step
from npusim.traffic import traffic
from npusim.transforms import (
    changes,
    limits,
    refuse_changed,
    split,
    told,
    transformed,
    unmeasured,
)
from npusim.units import show
from npusim.utilisation import utilisation
from npusim.workload import Workload

Array = NDArray[np.float64]

_FEW = 4  # ways to extrapolate that are told
BASIS, EXTRAPOLATES = "the band comes from", "extrapolates"  # how notes of a band begin
# How the note of the share of a unit begins.
BESIDE = {"gemv_unit": "GEMV unit:", "array": "matrix array:"}


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
    products : dict of str to float
        Shares of device time that matrix products take, by where they run: on the ``gemv_unit``,
        the matrix ``array`` or ``elsewhere`` (compute units, memories that compute in place).
    utilisation : dict of str to float
        Share of the wall time of a step in which each unit would be at work at its peak rate
        (`npusim.utilisation.UNITS`).
    traffic : dict of str to dict of str to float
        Bytes read and written in a step by the level of the memory that serves them and the class
        of data: weights, experts, KV cache, activations [B].
    energy_j, movement_j : float or None
        Energy of a step, of all that and of moving its bytes alone [J]; None where the machine says
        too little (`npusim.models.energy.missing`).
    energy_band_j : tuple of float or None
        Ends of the energy if constants and wall time are at theirs [J].
    energy_by_block : dict of str to dict of str to float
        Energy of each block: ``dynamic``, ``clocks``, ``leakage`` [J]. They add up to `energy_j`.
    power_w : float or None
        Mean power of a step [W].
    clock_share : float
        Clock that the power limit allows, as a share of the machine's.
    area_mm2 : float or None
        Area of the die [mm2]; None where the machine does not say its node.
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
    products: dict[str, float]
    utilisation: dict[str, float]
    traffic: dict[str, dict[str, float]]
    energy_j: float | None
    movement_j: float | None
    energy_band_j: tuple[float, float] | None
    energy_by_block: dict[str, dict[str, float]]
    power_w: float | None
    clock_share: float
    area_mm2: float | None
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
    ran = program(workload, designs, launch, mode)
    settled = held(ran, designs, launch, mode, traced)
    designs, time = settled.designs, settled.time
    factors = band_factors(ran, designs, time) if mode == "model" else None
    banded = replay_with_band(ran, designs, time, launch, factors)
    middle, band = banded.middle, None
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
    spent, products = _shares(ran, designs, time)
    used = {
        u: float(share[0]) for u, share in utilisation(ran, designs, time, middle.wall_s).items()
    }
    return Result(
        workload.name, arch.name, launch, mode,
        wall, float(middle.device_busy_s[0]), float(middle.host_busy_s[0]),
        float(middle.host_wait_s[0]), float(middle.device_idle_s[0]),
        float(middle.idle_share[0]), middle.launches,
        tokens, None if tokens is None else wall / tokens, band,
        spent, products, used, _moved(ran, designs), *_energy(ran, designs, time, banded),
        float(settled.share[0]), _known(float(die_area(designs)[0]) * 1e6), not_modelled(arch),
        (*_held(settled.share, arch), *_changed(workload), *notes(workload, arch, launch, mode),
         *stale_fit(arch), *on_units(products), *_fused(workload, ran), *beyond(band)),
        {"workload": workload.id, "arch": arch_id(arch), "model": model_version(),
         "traced": arch_id(traced) if traced is not None else ""},
    )  # fmt: skip


def _changed(workload: Workload) -> Iterator[str]:
    """Say that a workload is not the one that was measured, and what its changes leave out."""
    record = changes(workload)
    if record:
        beside = (
            "" if workload.meta.get("measured") is False else ": nothing that was measured is of it"
        )
        yield f"the workload is changed ({told(record)}){beside}"
        yield from limits(record)
        if record.get("workload.draft_tokens") and "workload.acceptance" not in record:
            yield "no time per token: workload.acceptance would say how many drafts are accepted"
    if page_parts(workload) is not None:
        yield "a page: each of its steps counts once in this mean, `page_times` counts all of them"
    caches = workload.meta.get("caches", "step")
    if caches != "step":
        yield f"caches are {caches} at every kernel: a profiler's protocol, not a running step"


def _fused(workload: Workload, ran: Workload) -> Iterator[str]:
    """Say how many operations a fusion engine made of a workload, if it made fewer."""
    before, after = (len(w) / len(w.steps) for w in (workload, ran))
    if after < before:
        yield (
            f"fusion engine: {before:.0f} operations a step run as {after:.0f}; who reads what of "
            "whom is told by sizes, and nobody measured an engine"
        )


def beyond(band: Band | None) -> Iterator[str]:
    """Say in which ways a prediction lies outside of what was measured, the first few."""
    if band is None:
        return
    yield f"{BASIS} {band.basis}"
    for reason in band.extrapolates[:_FEW]:
        yield f"{EXTRAPOLATES}: {reason}"
    more = len(band.extrapolates) - _FEW
    if more > 0:
        ways = "way" if more == 1 else "ways"
        yield f"{EXTRAPOLATES} in {more} more {ways} (--json lists {'it' if more == 1 else 'them'})"


def on_units(products: Mapping[str, float]) -> Iterator[str]:
    """Say which share of the time of matrix products is spent on units beside compute units.

    Parameters
    ----------
    products : mapping of str to float
        As in `Result`.

    Examples
    --------
    >>> next(on_units({"gemv_unit": 0.3, "elsewhere": 0.1})).split(";")[0]
    'GEMV unit: 75.0% of the time of matrix products is on it'
    >>> list(on_units({"elsewhere": 0.4}))
    []
    """
    for unit, name in BESIDE.items():
        there = products.get(unit, 0.0)
        if there > 0:
            yield (
                f"{name} {there / sum(products.values()):.1%} of the time of matrix products is on "
                "it; nobody measured one, and no band holds that"
            )


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
    ran = program(workload, designs, launch, mode)
    settled = held(ran, designs, launch, mode, traced_arch(workload))
    r = replay_with_band(ran, settled.designs, settled.time, launch, None).middle
    spent = step_energy(ran, settled.designs, settled.time, r.wall_s)
    energy = None if spent is None else _known(float(spent.joules[0]))
    times = (float(x[0]) for x in (r.wall_s, r.device_busy_s, r.host_busy_s))
    return (*times, _known(tokens_per_step(workload)), energy)


def _moved(workload: Workload, designs: Designs) -> dict[str, dict[str, float]]:
    """Return the bytes that each level serves, by class of data."""
    return {level: {g: float(moved[0]) for g, moved in groups.items() if moved[0] > 0}
            for level, groups in traffic(workload, designs).items()}  # fmt: skip


_Energy = tuple[
    float | None, float | None, tuple[float, float] | None, dict[str, dict[str, float]],
    float | None,
]  # fmt: skip


def _energy(workload: Workload, designs: Designs, time: Durations, banded: Banded) -> _Energy:
    """Return energy, that of moving bytes, the band, each block's, and the mean power."""
    wall = banded.middle.wall_s
    spent = step_energy(workload, designs, time, wall)
    if spent is None:
        return None, None, None, {}, None
    ends = (wall if end is None else end.wall_s for end in (banded.low, banded.high))
    low, high = (float(end[0]) for end in spent.band(designs, *ends))
    blocks: dict[str, dict[str, float]] = {}
    for kind in KINDS:
        for block, joules in spent.by_block(kind).items():
            blocks.setdefault(block, {})[kind] = float(joules[0])
    total, moving = (_known(float(joules[0])) for joules in (spent.joules, spent.movement))
    return total, moving, (low, high), blocks, _known(float(spent.watts[0]))


def _held(share: Array, arch: Arch) -> Iterator[str]:
    """Say that the power limit holds the clock down."""
    if share[0] < 1:
        limit = show(arch["power.limit"], "W")
        if share[0] <= LEAST:
            yield f"NOT HELD: the power limit of {limit} cannot be met, at {LEAST:.0%} of the clock"
            return
        yield (
            f"power limit: repeated without a pause this step takes more than {limit}; its units "
            f"run at {share[0]:.1%} of their clock"
        )


def _known(value: float) -> float | None:
    """Return a number, or None where there is none."""
    return None if math.isnan(value) else value


def _shares(
    workload: Workload, designs: Designs, time: Durations
) -> tuple[dict[str, float], dict[str, float]]:
    """Return shares of device time: by what it is spent on, and of products by where they run."""
    rows, inverse = workload.unique()
    known = workload.classified
    cost = kernel_cost(workload.operations(rows), designs)

    def seconds(part: Array, of: NDArray[np.bool_]) -> float:
        return float((part[inverse, 0] * time.scale)[of].sum())

    spent = {"measured": float(time.scale[~known].sum())}
    spent |= {name: seconds(getattr(cost, name), known) for name in BOUNDS}
    product = known & workload.mask("kind", *PRODUCTS)
    products = {}
    for place in PLACES:
        name = "elsewhere" if place == "units" else place
        products[name] = seconds(cost.time * cost.at(place), product)
    total = sum(spent.values()) or 1.0
    by_limit, by_unit = (
        {name: value / total for name, value in found.items() if value > 0}
        for found in (spent, products)
    )
    return by_limit, by_unit
