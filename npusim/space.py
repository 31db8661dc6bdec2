"""Sweeps: a space of designs, evaluated on workloads, with its Pareto front.

A table holds one row a design and launch mode. Its columns are the dotted paths of the axes and
the totals of a step: ``wall_s`` and ``device_busy_s`` with their bands (``wall_low_s``,
``wall_high_s`` and so on), ``device_idle_s``, ``host_busy_s``, ``idle_share``. With several
workloads these are sums over as many steps of each as are counted, and each workload has columns of
its own for one step, ``wall_s[name]``. Where some decode there are ``tokens``, those of all steps
that are counted, and ``s_per_token``, the wall time of what decodes over them (time per output
token: prefill is no part of it).

Axes below ``workload.`` change the workloads (`npusim.transforms`), all others the machine. In a
sweep of several workloads each of them changes those that have what it changes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from npusim.arch import Arch, Designs, check, parameter
from npusim.compare import replay_with_band
from npusim.energy import step_energy
from npusim.error_band import band_factors
from npusim.errors import InputError, InputErrors
from npusim.fusion.program import programs
from npusim.load import traced_arch
from npusim.merit import figures_of_merit
from npusim.models import modelled
from npusim.models.energy import has_energy
from npusim.models.launch import LAUNCHES
from npusim.power import held
from npusim.tokens import repeated, tokens_per_step
from npusim.traffic import GROUPS, dram, traffic
from npusim.transforms import (
    TRANSFORMABLE,
    applies,
    needs,
    refuse_changed,
    split,
    transformed,
    unmeasured,
)
from npusim.units import parse
from npusim.workload import Workload

Array = NDArray[np.float64]
Progress = Callable[[int, int], None]

_BLOCK = 4096
_SAME = 1e-9
_MOST = 2_000_000
TRAFFIC = tuple(f"dram_{group}_bytes" for group in GROUPS)
ENERGIES = ("energy_j", "energy_low_j", "energy_high_j", "movement_j")
_CLOCKED = "clocked_s"  # wall time at the clocks that were asked for
TOTALS = ("wall_s", "wall_low_s", "wall_high_s", "device_busy_s", "device_busy_low_s",
          "device_busy_high_s", "device_idle_s", "host_busy_s")  # fmt: skip


def unmodelled(paths: Sequence[str]) -> list[InputError]:
    """Return one error for each parameter that neither a cost model nor a transform reads.

    Examples
    --------
    >>> [str(e) for e in unmodelled(["units.count", "area.die"])]
    ['area.die: no cost model of this version reads it, so it cannot be swept or set']
    """
    known = {*modelled(), *TRANSFORMABLE}
    return [
        InputError(
            "no cost model of this version reads it, so it cannot be swept or set", place=path
        )
        for path in paths
        if parameter(path) and path not in known
    ]


@dataclass(frozen=True)
class Space:
    """Every combination of the values of some axes, on a machine.

    Parameters
    ----------
    arch : Arch
        What all designs share.
    axes : mapping of str to sequence of float or str
        Values of each dotted path [SI], of the machine or of the workload (``workload.*``), or
        texts with a unit or a name (``"2 TB/s"``, ``"weight"``).
    launch : sequence of str
        Launch modes.

    Attributes
    ----------
    designs : Designs
        Combinations of the axes of the machine.
    changes : tuple of mapping
        Combinations of the axes of the workload, one without any if there are none.

    Raises
    ------
    InputError, InputErrors
        An axis without values or without a model, a value out of bounds, or too many designs.

    Examples
    --------
    >>> import npusim as ns
    >>> space = Space(ns.load_arch("h200"), {"units.count": [66, 132]}, ["graph", "queue"])
    >>> len(space)
    4
    """

    arch: Arch
    axes: Mapping[str, Sequence[float]]
    launch: Sequence[str] = ("eager",)
    designs: Designs = field(init=False, repr=False)
    changes: tuple[Mapping[str, float], ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        errors = unmodelled(list(self.axes))
        axes = {path: [_number(path, v) for v in given] for path, given in self.axes.items()}
        object.__setattr__(self, "axes", axes)
        errors += [
            InputError("axis without values", place=p) for p, v in self.axes.items() if not len(v)
        ]
        errors += [
            InputError("value given twice", place=p)
            for p, v in self.axes.items()
            if len(set(v)) < len(v)
        ]
        errors += [
            InputError("unknown launch mode", value=mode, allowed=", ".join(LAUNCHES))
            for mode in self.launch
            if mode not in LAUNCHES
        ]
        if errors:
            raise errors[0] if len(errors) == 1 else InputErrors(errors)
        count = int(np.prod([float(len(v)) for v in self.axes.values()])) * len(self.launch)
        if count > _MOST or count == 0:
            raise InputError("too many or no designs", value=count, allowed=f"1 to {_MOST}",
                             hint="use fewer values an axis")  # fmt: skip
        of_machine, of_workload = split(self.axes)
        grids = np.meshgrid(
            *(np.asarray(v, dtype=float) for v in of_machine.values()), indexing="ij"
        )
        columns = {path: grid.reshape(-1) for path, grid in zip(of_machine, grids, strict=True)}
        object.__setattr__(self, "designs", Designs(self.arch, columns))
        values = [[check(path, v) for v in given] for path, given in of_workload.items()]
        changes = tuple(dict(zip(of_workload, each, strict=True)) for each in product(*values))
        object.__setattr__(self, "changes", changes)

    def __len__(self) -> int:
        """Return the number of designs, launch modes counted."""
        return len(self.changes) * len(self.designs) * len(self.launch)


def _number(path: str, value: float | str) -> float:
    """Return a value of an axis, or a text with its unit or name [SI]."""
    try:
        return parse(value, parameter(path).unit) if isinstance(value, str) else float(value)
    except InputError as error:
        raise InputError(str(error), place=path) from None


def sweep(
    space: Space,
    workloads: Workload | Sequence[Workload],
    mode: str = "model",
    progress: Progress | None = None,
    counts: Sequence[int] | None = None,
) -> pd.DataFrame:
    """Evaluate every design of a space.

    Parameters
    ----------
    space : Space
        D designs.
    workloads : Workload or sequence of Workload
    mode : {"model", "transfer"}
        How kernel times are predicted, see `npusim.durations.durations`.
    progress : callable, optional
        Called with (designs done, designs in all).
    counts : sequence of int, optional
        How many steps of each workload make the whole (64 decode steps, say); one by default.

    Returns
    -------
    DataFrame
        D rows; see the head of this module for the columns [SI].

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"memories.dram.bandwidth": [2.4e12, 4.8e12]}
    >>> space = Space(ns.load_arch("h200"), axes, ["graph"])
    >>> table = sweep(space, ns.load_workload("paddleocr_vl_decode"))
    >>> bool(table["wall_s"].iloc[0] > table["wall_s"].iloc[1])
    True
    """
    chosen = [workloads] if isinstance(workloads, Workload) else list(workloads)
    if not chosen:
        raise InputError("no workload to sweep")
    parts, done = [], 0
    for change in space.changes:
        changed = with_changes(chosen, change)
        for launch, block in product(space.launch, space.designs.blocks(_BLOCK)):
            parts.append(evaluate(block, changed, launch, mode, counts).assign(**change))
            done += len(block)
            if progress is not None:
                progress(done, len(space))
    return _in_order(space, pd.concat(parts, ignore_index=True))


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


def _in_order(space: Space, table: pd.DataFrame) -> pd.DataFrame:
    """Return designs by launch mode and then by axis, as if workloads had not come first."""
    of_machine, of_workload = split(space.axes)
    sizes = {"launch": len(space.launch), **{p: len(v) for p, v in space.axes.items()}}
    made, wanted = [*of_workload, "launch", *of_machine], ["launch", *space.axes]
    rows = np.arange(len(table)).reshape([sizes[name] for name in made])
    order = rows.transpose([made.index(name) for name in wanted]).reshape(-1)
    columns = [*wanted, *(name for name in table.columns if name not in wanted)]
    return table.iloc[order].reset_index(drop=True)[columns]


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


def pareto(table: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the rows that no other row beats: smaller is better in every objective.

    Parameters
    ----------
    table : DataFrame
        N designs.
    objectives : sequence of str
        Columns to make small.

    Returns
    -------
    DataFrame
        The front, sorted by the first objective. Rows that tie in all objectives all stay.

    Raises
    ------
    InputError
        No objective, or a column that is not there.

    Examples
    --------
    >>> t = pd.DataFrame({"wall_s": [1.0, 2.0, 2.0], "cost": [2.0, 1.0, 3.0]})
    >>> pareto(t, ["wall_s", "cost"]).index.tolist()
    [0, 1]
    """
    missing = [name for name in objectives if name not in table.columns]
    if missing or not len(objectives):
        raise InputError("not an objective", value=", ".join(missing),
                         allowed=", ".join(map(str, table.columns)))  # fmt: skip
    values = table[list(objectives)].to_numpy(dtype=float)
    order = np.lexsort(values.T[::-1])
    front: list[int] = []
    kept = np.empty((0, values.shape[1]))
    for i in order:  # in this order a row can only be beaten by one that came before
        row = values[i]
        beaten = (kept <= row).all(axis=1) & (kept < row).any(axis=1)
        if not beaten.any():
            front.append(int(i))
            kept = np.vstack([kept, row])
    return table.iloc[front]


def without_effect(space: Space, table: pd.DataFrame) -> tuple[str, ...]:
    """Return the axes that never change step time or time per token, whatever the others are.

    Parameters
    ----------
    space : Space
    table : DataFrame
        What `sweep` returned for it.

    Examples
    --------
    >>> import npusim as ns
    >>> axes = {"matrix.fp8.rate": [4096, 8192], "host.sync": [1e-6, 2e-6]}
    >>> space = Space(ns.load_arch("h200"), axes, ["graph"])
    >>> without_effect(space, sweep(space, ns.load_workload("paddleocr_vl_decode")))
    ('matrix.fp8.rate',)
    """
    sizes = [len(values) for values in space.axes.values()]
    times = [table[name].to_numpy().reshape(len(space.launch), *sizes)
             for name in ("wall_s", "s_per_token") if name in table]  # fmt: skip

    def same(axis: int) -> bool:
        spread = ((np.ptp(time, axis=axis), time.min(axis=axis)) for time in times)
        return all(bool(np.all(wide <= _SAME * least)) for wide, least in spread)

    return tuple(p for i, p in enumerate(space.axes) if sizes[i] > 1 and same(i + 1))


def objective(table: pd.DataFrame) -> str:
    """Return the time to make small: that per token where designs differ in tokens, else of a step.

    Examples
    --------
    >>> objective(pd.DataFrame({"wall_s": [1.0, 1.5], "tokens": [1.0, 2.0]}))
    's_per_token'
    """
    differ = "tokens" in table and np.ptp(table["tokens"].to_numpy()) > 0
    return "s_per_token" if differ else "wall_s"


def best(table: pd.DataFrame, costs: Sequence[str]) -> pd.Series[float]:
    """Return the fastest design; of several as fast, the one that costs least, cost by cost."""
    time = objective(table)
    ranked = table.assign(**{time: table[time].round(15)}).sort_values(
        [time, *costs], kind="stable"
    )
    row: pd.Series[float] = table.loc[ranked.index[0]]
    return row
