"""What a fusion engine makes of a workload, macro-op by macro-op."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from npusim.fusion.chains import Chain, Limits, chains
from npusim.fusion.macro_ops import load_macro_ops
from npusim.fusion.program import fused
from npusim.workload import Workload


@dataclass(frozen=True)
class MacroOpUse:
    """How often a macro-op stands in for the same operators.

    Attributes
    ----------
    name : str
        The macro-op.
    operators : tuple of str
        What one of them covers, in order.
    times : float
        How often a step (mean over the steps).
    measured_s : float
        Measured time of all that it covers, a step [s]; 0 where nothing was measured. What
        several do again is shared out among them.
    """

    name: str
    operators: tuple[str, ...]
    times: float
    measured_s: float


@dataclass(frozen=True)
class Summary:
    """A workload before and behind a fusion engine.

    Attributes
    ----------
    operations, runs : float
        Operations of a step, and what is left of them.
    activation_bytes, left_bytes : float
        Activations that a step reads and writes before and after [B].
    uses : tuple of MacroOpUse
        The most frequent first.
    left : mapping of str to float
        Operations of a step that stay as they are, by kind.
    """

    operations: float
    runs: float
    activation_bytes: float
    left_bytes: float
    uses: tuple[MacroOpUse, ...]
    left: Mapping[str, float]


def summary(w: Workload, limits: Limits) -> Summary:
    """Return what an engine with some limits makes of a workload.

    Examples
    --------
    A norm of PaddleOCR-VL and the addition before it:

    >>> import npusim as ns
    >>> found = summary(ns.load_workload("paddleocr_vl_decode"), Limits(16))
    >>> use = max(found.uses, key=lambda use: len(use.operators))
    >>> use.name, len(use.operators), use.times
    ('norm', 9, 36.0)
    """
    found, ran = chains(w, load_macro_ops(), limits), fused(w, limits)
    steps = len(w.steps)
    operators, taken = w.text("operator"), w.text("kind")
    covers = [_Use(c, tuple(str(operators[m]) for m in c.members)) for c in found]
    times = Counter(use.key for use in covers)
    spent: defaultdict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
    doing = np.zeros(len(w), dtype=int)  # how many do an operation
    for use in covers:
        doing[list(use.chain.members)] += 1
    share_s = w["duration_s"] / np.maximum(doing, 1)
    for use in covers:
        spent[use.key] += float(share_s[list(use.chain.members)].sum())
    left = Counter(taken[doing == 0].tolist())
    before, after = (float((x["read_activation"] + x["write_activation"]).sum()) / steps
                     for x in (w, ran))  # fmt: skip
    return Summary(
        len(w) / steps, len(ran) / steps, before, after,
        tuple(MacroOpUse(*key, n / steps, spent[key] / steps) for key, n in times.most_common()),
        {kind: n / steps for kind, n in left.most_common()},
    )  # fmt: skip


@dataclass(frozen=True)
class _Use:
    chain: Chain
    operators: tuple[str, ...]

    @property
    def key(self) -> tuple[str, tuple[str, ...]]:
        return self.chain.name, self.operators
