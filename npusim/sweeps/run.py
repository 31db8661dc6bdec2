"""Sweeps: a space of designs, evaluated on workloads.

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

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pandas as pd

from npusim.errors import InputError
from npusim.sweeps.evaluate import evaluate, with_changes
from npusim.sweeps.space import Space
from npusim.transforms import split
from npusim.workload import Workload

Progress = Callable[[int, int], None]

_BLOCK = 4096


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


def _in_order(space: Space, table: pd.DataFrame) -> pd.DataFrame:
    """Return designs by launch mode and then by axis, as if workloads had not come first."""
    of_machine, of_workload = split(space.axes)
    sizes = {"launch": len(space.launch), **{p: len(v) for p, v in space.axes.items()}}
    made, wanted = [*of_workload, "launch", *of_machine], ["launch", *space.axes]
    rows = np.arange(len(table)).reshape([sizes[name] for name in made])
    order = rows.transpose([made.index(name) for name in wanted]).reshape(-1)
    columns = [*wanted, *(name for name in table.columns if name not in wanted)]
    return table.iloc[order].reset_index(drop=True)[columns]
