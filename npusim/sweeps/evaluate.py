"""What designs do on workloads: one row a design, every model asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.compare import replay_with_band
from npusim.energy import step_energy
from npusim.error_band import band_factors
from npusim.errors import InputError
from npusim.fusion.program import programs
from npusim.load import traced_arch
from npusim.merit import figures_of_merit
from npusim.models.energy import has_energy
from npusim.power import held
from npusim.tokens import repeated, tokens_per_step
from npusim.traffic import GROUPS, dram, traffic
from npusim.transforms import applies, needs, refuse_changed, transformed, unmeasured
from npusim.workload import Workload

Array = NDArray[np.float64]

TRAFFIC = tuple(f"dram_{group}_bytes" for group in GROUPS)
ENERGIES = ("energy_j", "energy_low_j", "energy_high_j", "movement_j")
_CLOCKED = "clocked_s"  # wall time at the clocks that were asked for
TOTALS = ("wall_s", "wall_low_s", "wall_high_s", "device_busy_s", "device_busy_low_s",
          "device_busy_high_s", "device_idle_s", "host_busy_s")  # fmt: skip


def with_changes(workloads: Sequence[Workload], change: Mapping[str, float]) -> list[Workload]:
    """Return workloads, each with the changes that apply to it.

    Raises
    ------
    InputError
        A change that applies to none of them.

    Examples
    --------
    >>> import npusim as ns
    >>> page = [ns.load_workload(f"paddleocr_vl_{phase}") for phase in ("prefill", "decode")]
    >>> changed = with_changes(page, {"workload.context": 8192})
    >>> changed[0] is page[0], changed[1] is page[1]
    (True, False)
    """
    for path in change:
        if not any(applies(w, path) for w in workloads):
            raise InputError(f"no workload here has any {needs(path)}", place=path,
                             value=", ".join(w.name for w in workloads))  # fmt: skip
    return [transformed(w, {p: v for p, v in change.items() if applies(w, p)}) for w in workloads]


def evaluate(
    designs: Designs,
    workloads: Sequence[Workload],
    launch: str,
    mode: str = "model",
    counts: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Evaluate designs under one launch mode; see `sweep` for the columns."""
    table = pd.DataFrame({"launch": launch, **designs.columns}, index=range(len(designs)))
    each = (*TOTALS, *TRAFFIC, *(ENERGIES if has_energy(designs) else ()))
    names = (*each, "extrapolates", *((_CLOCKED,) if has_energy(designs) else ()))
    sums: dict[str, Array] = {name: np.zeros(len(designs)) for name in names}
    decoding = {name: np.zeros(len(designs)) for name in ("wall_s", "energy_j") if name in names}
    tokens = 0.0
    for w, count in zip(workloads, counts or [1] * len(workloads), strict=True):
        own, took, made = _whole(designs, w, launch, mode)
        sums = {name: sums[name] + count * own[name] for name in names}
        decoding = {name: total + count * took[name] for name, total in decoding.items()}
        tokens += count * made
        if len(workloads) > 1:
            table = table.assign(**{f"{name}[{w.name}]": own[name] for name in each})
            if made:
                table[f"s_per_token[{w.name}]"] = took["wall_s"] / made
    beyond = sums.pop("extrapolates") > 0
    if tokens:
        sums |= {"tokens": np.full(len(designs), tokens)}
        sums |= {f"{name.rsplit('_')[-1]}_per_token": total / tokens
                 for name, total in decoding.items()}  # fmt: skip
    clocked = sums.pop(_CLOCKED, None)
    table = table.assign(**sums, extrapolates=beyond)
    table["idle_share"] = table["device_idle_s"] / table["wall_s"]
    if clocked is not None:
        table["clock_share"] = clocked / table["wall_s"]
    return table.assign(**figures_of_merit(table, designs))


def _whole(
    designs: Designs, w: Workload, launch: str, mode: str
) -> tuple[dict[str, Array], dict[str, Array], float]:
    """Return totals of a step, or of a whole page; those of what decodes, and its tokens."""
    own: dict[str, Array] = defaultdict(lambda: np.zeros(len(designs)))
    decoding: dict[str, Array] = defaultdict(lambda: np.zeros(len(designs)))
    tokens = 0.0
    for part, times in repeated(w):
        totals, yielded = _totals(designs, part, launch, mode), tokens_per_step(part)
        for name, values in totals.items():
            own[name] = own[name] + times * values
            if np.isfinite(yielded):
                decoding[name] = decoding[name] + times * values
        if np.isfinite(yielded):
            tokens += times * yielded
    return own, decoding, tokens


def _totals(designs: Designs, w: Workload, launch: str, mode: str) -> dict[str, Array]:
    """Return totals of a step; designs that fuse alike run the same program."""
    if mode == "transfer":
        refuse_changed(w, "transfer")
    totals: dict[str, Array] = defaultdict(lambda: np.zeros(len(designs)))
    for ran, part, rows in programs(w, designs, launch, mode):
        for name, values in _of_program(part, ran, launch, mode):
            totals[name][rows] = values
    return totals


def _of_program(
    designs: Designs, w: Workload, launch: str, mode: str
) -> Iterator[tuple[str, Array]]:
    settled = held(w, designs, launch, mode, traced_arch(w))
    designs, time = settled.designs, settled.time
    factors = band_factors(w, designs, time) if mode == "model" else None
    banded = replay_with_band(w, designs, time, launch, factors)
    for quantity in ("wall", "device_busy"):
        for end, r in (("", banded.middle), ("_low", banded.low), ("_high", banded.high)):
            nothing = np.full(len(designs), np.nan)
            yield f"{quantity}{end}_s", nothing if r is None else getattr(r, f"{quantity}_s")
    yield "device_idle_s", banded.middle.device_idle_s
    yield "host_busy_s", banded.middle.host_busy_s
    yield from dram(traffic(w, designs)).items()
    wall = banded.middle.wall_s
    spent = step_energy(w, designs, time, wall)
    if spent is not None:
        ends = [wall if end is None else end.wall_s for end in (banded.low, banded.high)]
        joules = (spent.joules, *spent.band(designs, *ends), spent.movement)
        yield from zip(ENERGIES, joules, strict=True)
        yield _CLOCKED, settled.share * wall
    beyond = np.zeros(len(designs), dtype=bool) if factors is None else factors.beyond
    yield "extrapolates", (beyond | bool(unmeasured(w))).astype(np.float64)
