"""How many experts the tokens of a step choose together.

Of E experts a token chooses k, expert j with probability p(j). Of t tokens that choose each for
itself, at least one chooses

    h(t) = sum over all experts of 1 - (1 - p(j))^t      [expert]

which is E (1 - (1 - k / E)^t) where all are as popular as each other. Probabilities follow the
popularity of the experts (`npusim.reuse.experts`).

Source: as for the experts of one step after the other (`npusim.reuse.experts`).

Left out: tokens that agree about their experts beyond the popularity of these.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.reuse.experts import expected_hit, zipf
from npusim.workload import Workload

Array = NDArray[np.float64]


def experts_hit(w: Workload, own: int, tokens: float) -> Array:
    """Return how many experts the grouped products of a step read, 1 for all else, shape (K,).

    Parameters
    ----------
    w : Workload
        ``meta["experts"]`` gives the popularity of its experts, as for `Workload.reuse`.
    own : int
        Tokens that it routes.
    tokens : float
        Tokens that are routed instead.

    Raises
    ------
    InputError
        More rows than a choice of experts has, or no popularity for each of them.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("deepseek_ocr_decode_grouped")
    >>> [float(experts_hit(w, 1, tokens).max().round(2)) for tokens in (1, 16, 1000)]
    [6.0, 50.75, 64.0]
    """
    hit, found = np.ones(len(w)), dict[tuple[int, int], float]()
    rows = w.mask("kind", "grouped_gemm") & (w["groups"] > 1) & (w["read_weight"] > 0)
    for row in np.flatnonzero(rows & w.classified).tolist():
        groups, chosen = int(w["groups"][row]), int(max(w["batch"][row], 1) * w["m"][row])
        if not 0 < chosen <= groups * own:
            raise InputError("rows of a grouped product that are no choice of experts", file=w.name,
                             place=f"row {row}, m", value=chosen,
                             allowed=f"1 to {groups * own}")  # fmt: skip
        if (groups, chosen) not in found:
            found[groups, chosen] = expected_hit(_popularity(w, groups), chosen / own, tokens)
        hit[row] = found[groups, chosen]
    return hit


def _popularity(w: Workload, count: int) -> Array:
    given = w.meta.get("experts", 0.0)
    if np.ndim(given) == 0:
        return zipf(count, float(given))
    if len(given) != count or min(given) <= 0:
        raise InputError("not the popularity of each expert", file=w.name, place="experts",
                         value=f"{len(given)} numbers", allowed=f"{count} above 0")  # fmt: skip
    return np.asarray(given, dtype=np.float64)
