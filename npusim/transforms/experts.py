"""Skewed experts: how evenly a router spreads tokens, as the exponent of a Zipf popularity.

A token chooses as many experts; those that are popular come again sooner, so a cache or weight
memory holds them more often (`npusim.reuse.experts`), and the sequences of a batch agree more often
and hit fewer (`npusim.transforms.routing`). Where nothing is said, all experts are as popular as
each other.

Source: L. Breslau et al., "Web caching and Zipf-like distributions", INFOCOM 1999,
doi:10.1109/INFCOM.1999.749260.

Left out: experts of a trace with a product for each, whose number no kernel tells: there each step
reads what the one before read.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.transforms.batch import touched as attends
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.routing import experts_hit
from npusim.workload import Workload

SKEW = "workload.expert_skew"
PARAMETERS = (SKEW,)
NEEDS = "grouped product that says how many experts there are"
LIMIT = "popularity changes which experts a cache holds and how many a batch hits, not the kernels"
UNMEASURED = ""  # the kernels are those that were measured


def skew_experts(w: Workload, exponent: float) -> Workload:
    """Return a workload whose experts are as popular as a Zipf law says.

    Parameters
    ----------
    w : Workload
    exponent : float
        0 (all alike) to 10.

    Returns
    -------
    Workload

    Raises
    ------
    InputError
        Out of bounds, or no operation whose experts are known.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("deepseek_ocr_decode_grouped")
    >>> skew_experts(w, 1.0).meta["experts"]
    1.0
    """
    return transform(w, {SKEW: exponent})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with experts as `PARAMETERS` say."""
    asked = checked(settings)
    if not touched(w).any():
        raise lacks(w, NEEDS, SKEW)
    if asked[SKEW] == present(w)[SKEW]:
        return w
    skewed = w.renamed(w.name, experts=asked[SKEW])
    return changed(skewed, asked, _read(w, skewed))


def _read(before: Workload, after: Workload) -> dict[str, NDArray[np.float64]]:
    """Return what products read of the experts that a batch hits, nothing if that stays."""
    sequences = np.unique(before["batch"][attends(before)]).tolist()
    if len(sequences) != 1 or sequences[0] <= 1:  # one token hits what it chooses
        return {}
    hit = [experts_hit(w, sequences[0], sequences[0]) for w in (before, after)]
    return {"read_weight": before["read_weight"] * hit[1] / hit[0]}


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations read experts, shape (K,)."""
    result: NDArray[np.bool_] = (w["groups"] > 1) & (w["read_weight"] > 0)
    return result


def present(w: Workload) -> dict[str, float]:
    """Return the exponent as it is."""
    return {SKEW: changes(w).get(SKEW, 0.0)}
