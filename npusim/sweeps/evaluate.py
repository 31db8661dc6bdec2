"""What designs do on workloads: one row a design, every model asked."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.compare import Banded, replay_with_band
from npusim.energy import Spent, step_energy
from npusim.error_band import Factors, band_factors
from npusim.errors import InputError
from npusim.fusion.program import programs
from npusim.load import traced_arch
from npusim.merit import figures_of_merit
from npusim.models.energy import has_energy
from npusim.power import Held, held
from npusim.tokens import repeated, tokens_per_step
from npusim.traffic import GROUPS, dram, traffic
from npusim.transforms import applies, needs, refuse_changed, transformed, unmeasured
from npusim.workload import Workload

Array = NDArray[np.float64]

TRAFFIC = tuple(f"dram_{group}_bytes" for group in GROUPS)
ENERGIES = ("energy_j", "energy_low_j", "energy_high_j", "movement_j")
CLOCKED = "clocked_s"  # wall time at the clocks that were asked for
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
    counts: Sequence[float] | None = None,
) -> pd.DataFrame:
    """Evaluate designs under one launch mode; see `npusim.sweeps.run` for the columns."""
    each = [_whole(designs, w, launch, mode) for w in workloads]
    found = assemble(designs, [w.name for w in workloads], each, counts or [1] * len(each))
    own = {"launch": launch, **designs.columns}
    return pd.DataFrame({**own, **found}, index=range(len(designs)))


@dataclass(frozen=True)
class Step:
    """What D designs do with a step of a workload, or with a whole page.

    Attributes
    ----------
    totals, decoding : mapping of str to array, shape (D,)
        Totals of all, and those of what decodes.
    tokens : float
        What it yields.
    """

    totals: Mapping[str, Array]
    decoding: Mapping[str, Array]
    tokens: float


def assemble(
    designs: Designs,
    names: Sequence[str],
    steps: Sequence[Step],
    counts: Sequence[float],
    machines: Mapping[str, Array] | None = None,
) -> dict[str, NDArray[Any]]:
    """Return the columns of a sweep from what designs do with each workload, (D,) each.

    Parameters
    ----------
    designs : Designs
        D designs.
    names : sequence of str
        Names of the workloads.
    steps : sequence of Step
        What the designs do with a step of each.
    counts : sequence of float
        How many steps of each make the whole.
    machines : mapping of str to array, optional
        `npusim.merit.machine_figures` of the designs, if they are known already.
    """
    energy = has_energy(designs)
    each = (*TOTALS, *TRAFFIC, *(ENERGIES if energy else ()))
    sums = {name: np.zeros(len(designs)) for name in (*each, "extrapolates")}
    sums |= {CLOCKED: np.zeros(len(designs))} if energy else {}
    decoding = {name: np.zeros(len(designs)) for name in ("wall_s", "energy_j") if name in sums}
    found: dict[str, NDArray[Any]] = {}
    tokens = 0.0
    for name, step, count in zip(names, steps, counts, strict=True):
        sums = {column: total + count * step.totals[column] for column, total in sums.items()}
        decoding = {
            column: total + count * step.decoding[column] if step.decoding else total
            for column, total in decoding.items()
        }
        tokens += count * step.tokens
        if len(steps) > 1:
            found |= {f"{column}[{name}]": step.totals[column] for column in each}
            if step.tokens:
                found[f"s_per_token[{name}]"] = step.decoding["wall_s"] / step.tokens
    beyond, clocked = sums.pop("extrapolates") > 0, sums.pop(CLOCKED, None)
    if tokens:
        sums |= {"tokens": np.full(len(designs), tokens)}
        sums |= {f"{name.rsplit('_')[-1]}_per_token": total / tokens
                 for name, total in decoding.items()}  # fmt: skip
    found |= sums
    found |= {"extrapolates": beyond, "idle_share": sums["device_idle_s"] / sums["wall_s"]}
    if clocked is not None:
        found["clock_share"] = clocked / sums["wall_s"]
    return found | figures_of_merit(found, designs, machines)


def _whole(designs: Designs, w: Workload, launch: str, mode: str) -> Step:
    """Return what designs do with a step, or with a whole page."""
    parts = [(part, times, _totals(designs, part, launch, mode)) for part, times in repeated(w)]
    return summed(parts)


def summed(parts: Sequence[tuple[Workload, int, Mapping[str, Array]]]) -> Step:
    """Return a step made of parts, each so many times."""
    own: dict[str, Array] = {}
    decoding: dict[str, Array] = {}
    tokens = 0.0
    for part, times, totals in parts:
        yielded = tokens_per_step(part)
        decodes = np.isfinite(yielded)
        for name, values in totals.items():
            more = times * values
            own[name] = own[name] + more if name in own else more
            if decodes:
                decoding[name] = decoding[name] + more if name in decoding else more
        tokens += times * yielded if decodes else 0.0
    return Step(own, decoding, tokens)


def _totals(designs: Designs, w: Workload, launch: str, mode: str) -> dict[str, Array]:
    """Return totals of a step; designs that fuse alike run the same program."""
    if mode == "transfer":
        refuse_changed(w, "transfer")
    totals: dict[str, Array] = defaultdict(lambda: np.zeros(len(designs)))
    for ran, part, rows in programs(w, designs, launch, mode):
        for name, values in of_program(part, ran, launch, mode):
            totals[name][rows] = values
    return totals


@dataclass(frozen=True)
class Ran:
    """A program as designs run it.

    Attributes
    ----------
    workload : Workload
    settled : Held
        The designs at the clocks that their power limit allows.
    factors : Factors or None
        By what device time may be off.
    banded : Banded
    spent : Spent or None
        Energy of a step, None if the machine does not say.
    """

    workload: Workload
    settled: Held
    factors: Factors | None
    banded: Banded
    spent: Spent | None


def run_program(designs: Designs, w: Workload, launch: str, mode: str) -> Ran:
    """Run a program on designs that run it as it is."""
    settled = held(w, designs, launch, mode, traced_arch(w))
    designs, time = settled.designs, settled.time
    factors = band_factors(w, designs, time) if mode == "model" else None
    banded = replay_with_band(w, designs, time, launch, factors)
    spent = step_energy(w, designs, time, banded.middle.wall_s)
    return Ran(w, settled, factors, banded, spent)


def of_program(
    designs: Designs, w: Workload, launch: str, mode: str
) -> Iterator[tuple[str, Array]]:
    """Yield the totals of a step of a program that designs run as it is, by name, (D,) each."""
    yield from totals_of(run_program(designs, w, launch, mode))


def totals_of(ran: Ran) -> Iterator[tuple[str, Array]]:
    """Yield the totals of a step, by name, (D,) each."""
    designs, banded, w = ran.settled.designs, ran.banded, ran.workload
    for quantity in ("wall", "device_busy"):
        for end, r in (("", banded.middle), ("_low", banded.low), ("_high", banded.high)):
            nothing = np.full(len(designs), np.nan)
            yield f"{quantity}{end}_s", nothing if r is None else getattr(r, f"{quantity}_s")
    yield "device_idle_s", banded.middle.device_idle_s
    yield "host_busy_s", banded.middle.host_busy_s
    yield from dram(traffic(w, designs)).items()
    wall = banded.middle.wall_s
    if ran.spent is not None:
        ends = [wall if end is None else end.wall_s for end in (banded.low, banded.high)]
        joules = (ran.spent.joules, *ran.spent.band(designs, *ends), ran.spent.movement)
        yield from zip(ENERGIES, joules, strict=True)
        yield CLOCKED, ran.settled.share * wall
    beyond = np.zeros(len(designs), dtype=bool) if ran.factors is None else ran.factors.beyond
    yield "extrapolates", (beyond | bool(unmeasured(w))).astype(np.float64)
