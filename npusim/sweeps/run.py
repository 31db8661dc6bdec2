"""Sweeps: a space of designs, evaluated on workloads.

A table holds one row a design and launch mode. Its columns are ``arch`` where there are several
machines, ``launch``, the dotted paths of the axes and the totals of a step: ``wall_s`` and
``device_busy_s`` with their bands (``wall_low_s``, ``wall_high_s`` and so on), ``device_idle_s``,
``host_busy_s``, ``idle_share``. With several workloads these are sums over as many steps of each as
are counted, and each workload has columns of its own for one step, ``wall_s[name]``. Where some
decode there are ``tokens``, those of all steps that are counted, and ``s_per_token``, the wall time
of what decodes over them (time per output token: prefill is no part of it).

Axes below ``workload.`` change the workloads (`npusim.transforms`), all others the machine. In a
sweep of several workloads each of them changes those that have what it changes. An axis that is off
in a design is shown at what the machine or the workloads have, or not-a-number where there is none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pandas as pd

from npusim.errors import InputError
from npusim.sweeps.evaluator import Evaluator
from npusim.sweeps.space import Space
from npusim.workload import Workload

Progress = Callable[[int, int], None]

_BLOCK = 16_384
_MOST = 10_000_000


def sweep(
    space: Space,
    workloads: Workload | Sequence[Workload],
    mode: str = "model",
    progress: Progress | None = None,
    counts: Sequence[float] | None = None,
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
    counts : sequence of float, optional
        How many steps of each workload make the whole (64 decode steps, say), or shares of a mix;
        one by default.

    Returns
    -------
    DataFrame
        D rows, in the order of the space; see the head of this module for the columns [SI].

    Raises
    ------
    InputError
        No workload, more designs than a table holds, or a machine that lacks what an axis needs.

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
    if len(space) > _MOST:
        raise InputError("too many designs for one table", value=len(space),
                         allowed=f"up to {_MOST}",
                         hint="use fewer values an axis, draw samples, or npusim sweep, which "
                         "streams them to disk")  # fmt: skip
    evaluator = Evaluator(space, chosen, counts, mode)
    tables = []
    for start in range(0, len(space), _BLOCK):
        stop = min(start + _BLOCK, len(space))
        tables.append(pd.DataFrame(evaluator.columns(start, stop)))
        if progress is not None:
            progress(stop, len(space))
    return pd.concat(tables, ignore_index=True)
