"""Traffic: the bytes of a step by the level that serves them, on many designs.

The reuse profile of a workload is summed over its operations once; each design is a look-up.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.hierarchy import served
from npusim.workload import Workload

Array = NDArray[np.float64]

GROUPS = ("weight", "expert", "kv", "activation")


def traffic(workload: Workload, designs: Designs) -> dict[str, dict[str, Array]]:
    """Return what each level reads and writes in a step (mean over the steps), by class of data.

    Parameters
    ----------
    workload : Workload
        S steps.
    designs : Designs
        D designs.

    Returns
    -------
    dict of str to dict of str to array, shape (D,)
        For each of `npusim.models.hierarchy.LEVELS` that serves anything, the bytes of each of
        `GROUPS` [B]; experts are weights that a router chooses (products that say how many there
        are). Their sum over levels is what the operations move.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("h200"))
    >>> found = traffic(w, h200)
    >>> round(float(found["dram"]["weight"][0]) / 1e6)  # all weights of a step, in MB
    721
    """
    routed = (workload["groups"] > 1) & (workload["read_weight"] > 0)
    found: dict[str, dict[str, Array]] = {}
    for rows, name in ((~routed, None), (routed, "expert")):
        if not rows.any():
            continue
        operations = workload.operations(np.flatnonzero(rows))
        for (level, group), moved in served(operations, designs).items():
            into = found.setdefault(level, {g: np.zeros(len(designs)) for g in GROUPS})
            to = name if name and group == "weight" else group
            into[to] = into[to] + moved / len(workload.steps)
    return found


def dram(found: Mapping[str, Mapping[str, Array]]) -> dict[str, Array]:
    """Return the columns of a sweep: bytes that DRAM reads and writes in a step, by class."""
    return {f"dram_{group}_bytes": found["dram"][group] for group in GROUPS}
