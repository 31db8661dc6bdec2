"""Grids of designs, evaluated by what differs: a million designs for the price of thousands.

A program's totals are sums over its operations (`npusim.sweeps.program_terms`), the figures of a
machine are functions of few of its parameters (`npusim.sweeps.term`). Both are computed for the
combinations that matter and looked up; what is left for each design are some hundred additions and
products: launches, the band, energy and figures of merit. These are the same functions that
`npusim.sweeps.evaluate` calls.

It takes what is a sum: steps that a graph or a hardware queue runs on one stream. For all else
(`refused`) designs are evaluated one by one, as are those that their power limit slows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.energy import Standing, spent
from npusim.error_band import LEAST, kinds_band, outside
from npusim.fusion.program import ENGINE, program
from npusim.lanes import Pieces, Replayed, in_order, is_in_order
from npusim.merit import machine_figures
from npusim.models.energy import has_energy
from npusim.models.launch import launch_cost
from npusim.sweeps.evaluate import CLOCKED, ENERGIES, assemble, of_program, summed
from npusim.sweeps.grid import Chosen, Grid, Rows
from npusim.sweeps.program_terms import KIND, MOVED, Counted, moved, terms
from npusim.sweeps.term import Looked, Term, chunks, totals
from npusim.tokens import repeated
from npusim.traffic import dram
from npusim.transforms import refuse_without_rate, unmeasured
from npusim.workload import Workload

Array = NDArray[np.float64]

_CHUNK = 8192  # designs whose columns stay in cache
_POWER = ("leakage.", "clocks.")


def refused(grid: Grid, workloads: Sequence[Workload], launch: str) -> str:
    """Return why designs have to be evaluated one by one, empty if they need not.

    Examples
    --------
    >>> import npusim as ns
    >>> grid = Grid(ns.load_arch("h200"), {"host.speed": (1.0, 2.0)})
    >>> refused(grid, [ns.load_workload("paddleocr_vl_decode")], "eager")
    'an eager host issues each operation by itself'
    """
    if not grid.axes:
        return "there is one design"
    designs = grid.designs(np.array([0]))
    if launch == "eager":
        return "an eager host issues each operation by itself"
    if "prefetch.depth" in designs:
        return "weights are loaded ahead of operations that follow each other"
    if "gating.wake" in designs and "gating.leakage" in designs:
        return "units that are gated wake for operations that follow each other"
    parts = [part for w in workloads for part, _ in repeated(w)]
    if not all(is_in_order(part, launch) for part in parts):
        return "operations of several streams overlap"
    if not all(part.classified.any() for part in parts):
        return "nothing is modelled"
    return ""


class Factored:
    """Designs of a grid on some workloads, by number.

    Parameters
    ----------
    grid : Grid
    workloads : sequence of Workload
    launch : str
    counts : sequence of float
        How many steps of each workload make the whole.
    """

    def __init__(
        self, grid: Grid, workloads: Sequence[Workload], launch: str, counts: Sequence[float]
    ) -> None:
        self._grid, self._counts = grid, counts
        self._names = [w.name for w in workloads]
        self._machines = Term(grid, machine_figures)
        self._standing = Term(grid, _standing) if _has_energy(grid) else None
        self._steps = [
            [(part, times, _Programs(grid, part, launch)) for part, times in repeated(w)]
            for w in workloads
        ]

    def columns(self, rows: Rows) -> dict[str, Array]:
        """Return the axes and the columns of a sweep for some designs, (N,) each [SI]."""
        chosen = Chosen(self._grid, rows)
        axes = chosen.designs().columns
        machines = self._machines.at(chosen)
        standing = None if self._standing is None else self._standing.at(chosen)
        every = [[programs.at(chosen) for _, _, programs in parts] for parts in self._steps]
        found: dict[str, Array] = dict(axes)
        for chunk in chunks(len(rows), _CHUNK):
            designs = Designs(self._grid.base, {path: c[chunk] for path, c in axes.items()})
            power = None if standing is None else _as_standing(standing.all(chunk))
            steps = [
                summed([
                    (part, times, looked.totals(designs, chunk, power))
                    for (part, times, _), looked in zip(parts, looked_up, strict=True)
                ])
                for parts, looked_up in zip(self._steps, every, strict=True)
            ]  # fmt: skip
            made = assemble(designs, self._names, steps, self._counts, machines.all(chunk))
            for name, values in made.items():
                if name not in found:
                    found[name] = np.empty(len(rows), dtype=values.dtype)
                found[name][chunk] = values
        return found


class _Programs:
    """The programs that designs of a grid run of one workload: one for each way to fuse."""

    def __init__(self, grid: Grid, w: Workload, launch: str) -> None:
        self._engine = grid.part(ENGINE)
        designs = self._engine.designs(np.arange(len(self._engine)))
        made: dict[int, _Program] = {}
        self._of: list[_Program] = []
        for i in range(len(self._engine)):
            one = designs.of({path: c[i : i + 1] for path, c in designs.columns.items()})
            ran = program(w, one, launch)
            if id(ran) not in made:
                made[id(ran)] = _Program(grid, ran, launch)
            self._of.append(made[id(ran)])

    def at(self, chosen: Chosen) -> _LookedUp:
        """Look up what some designs do."""
        numbers = chosen.number_in(self._engine)
        running = list({id(p): p for p in (self._of[i] for i in np.unique(numbers))}.values())
        places = [np.arange(len(chosen))]
        if len(running) > 1:
            order = np.array([running.index(p) if p in running else -1 for p in self._of])
            places = [np.flatnonzero(order[numbers] == i) for i in range(len(running))]
        alone = len(running) == 1
        return _LookedUp([
            (p.at(chosen if alone else chosen.of(at)), at)
            for p, at in zip(running, places, strict=True)
        ])  # fmt: skip


class _LookedUp:
    """What designs do of one workload, program by program."""

    def __init__(self, programs: list[tuple[_Sums, NDArray[np.intp]]]) -> None:
        self._programs = programs

    def totals(self, designs: Designs, chunk: slice, power: Standing | None) -> dict[str, Array]:
        """Return the totals of a step for a chunk of the designs, (n,) each."""
        if len(self._programs) == 1:
            return self._programs[0][0].totals(designs, chunk, power)
        found: dict[str, Array] = {}
        for sums, places in self._programs:
            low, high = np.searchsorted(places, (chunk.start, chunk.stop))
            here = places[low:high] - chunk.start
            if not len(here):
                continue
            some = designs.of({path: c[here] for path, c in designs.columns.items()})
            own = None if power is None else _of_some(power, here)
            for name, values in sums.totals(some, slice(low, high), own).items():
                if name not in found:
                    found[name] = np.zeros(len(designs), dtype=values.dtype)
                found[name][here] = values
        return found


class _Program:
    """One program on the designs of a grid."""

    def __init__(self, grid: Grid, ran: Workload, launch: str) -> None:
        one = grid.designs(np.array([0]))
        refuse_without_rate(ran, one)
        self.ran, self.launch = ran, launch
        counted = Counted(ran)
        self.carried, self.steps = float(counted.carried.sum()), counted.steps
        self.pieces = Pieces.of(ran, launch_cost(launch, one).waits)
        self.unmeasured = bool(unmeasured(ran))
        self._terms = [*terms(counted, grid), Term(grid, partial(moved, ran))]

    def at(self, chosen: Chosen) -> _Sums:
        """Look up the sums of some designs."""
        return _Sums(self, chosen, [term.at(chosen) for term in self._terms])


class _Sums:
    """The sums of one program on some designs, and what follows from them."""

    def __init__(self, of: _Program, chosen: Chosen, looked: list[Looked]) -> None:
        self._of, self._chosen, self._looked = of, chosen, looked

    def totals(self, designs: Designs, part: slice, power: Standing | None) -> dict[str, Array]:
        """Return the totals of a step for a part of the designs, (n,) each."""
        of, sums = self._of, totals(self._looked, part)
        kinds = {name.removeprefix(KIND): x for name, x in sums.items() if name.startswith(KIND)}
        modelled: Array = sum(kinds.values(), np.zeros(len(designs)))
        beyond = outside(kinds, designs)
        ends = (end / modelled for end in kinds_band(kinds, designs, beyond))
        least, most = next(ends).clip(LEAST, 1.0), np.maximum(next(ends), 1.0)
        cost = launch_cost(of.launch, designs)
        middle, low, high = (
            in_order(of.pieces, designs, modelled * by + of.carried, cost)
            for by in (1.0, least, most)
        )
        served = _by_level(sums, len(designs))
        found = {**_times(middle, low, high), **dram(served),
                 "extrapolates": (beyond | of.unmeasured).astype(np.float64)}  # fmt: skip
        if power is None:
            return found
        energy = spent(sums, served, designs, middle.wall_s, power)
        ends_j = energy.band(designs, low.wall_s, high.wall_s)
        joules = (energy.joules, *ends_j, energy.movement)
        found |= {**dict(zip(ENERGIES, joules, strict=True)), CLOCKED: middle.wall_s}
        return self._limited(found, designs, part)

    def _limited(self, found: dict[str, Array], designs: Designs, part: slice) -> dict[str, Array]:
        """Put designs that their power limit slows in their place, evaluated one by one."""
        if "power.limit" not in designs:
            return found
        over = np.flatnonzero(found["energy_j"] > designs["power.limit"] * found["wall_s"])
        if len(over):
            few = self._chosen.of(part).of(over).designs()
            for name, values in of_program(few, self._of.ran, self._of.launch, "model"):
                found[name] = found[name].copy()
                found[name][over] = values
        return found


def _times(middle: Replayed, low: Replayed, high: Replayed) -> dict[str, Array]:
    return {
        **{f"{quantity}{end}_s": getattr(r, f"{quantity}_s")
           for quantity in ("wall", "device_busy")
           for end, r in (("", middle), ("_low", low), ("_high", high))},
        "device_idle_s": middle.device_idle_s,
        "host_busy_s": middle.host_busy_s,
    }  # fmt: skip


def _by_level(sums: Mapping[str, Array], count: int) -> dict[str, dict[str, Array]]:
    served: dict[str, dict[str, Array]] = {}
    for name, values in sums.items():
        if name.startswith(MOVED):
            _, level, group = name.split(".")
            served.setdefault(level, {})[group] = np.broadcast_to(values, count)
    return served


def _has_energy(grid: Grid) -> bool:
    return has_energy(grid.designs(np.array([0])))


def _standing(designs: Designs) -> dict[str, Array]:
    """Return what machines take whatever they do as named results, (D,) each [W]."""
    power = Standing.of(designs).lumped()
    found = {"rest": power.rest}
    for head, by_block in zip(_POWER, (power.leakage, power.clocks), strict=True):
        found |= {head + block: values for block, values in by_block.items()}
    return found


def _as_standing(found: Mapping[str, Array]) -> Standing:
    leaks, clocks = (
        {name.removeprefix(head): x for name, x in found.items() if name.startswith(head)}
        for head in _POWER
    )
    return Standing(found["rest"], leaks, clocks)


def _of_some(power: Standing, here: NDArray[np.intp]) -> Standing:
    def some(values: Array) -> Array:
        return values if len(values) == 1 else values[here]

    return Standing(some(power.rest), {b: some(x) for b, x in power.leakage.items()},
                    {b: some(x) for b, x in power.clocks.items()})  # fmt: skip
