"""A step that calls the library's routines one by one: what their kernel times are calibrated on.

    npusim capture model npusim.capture.routines:program --phase prefill --steps 9 -o FOLDER

Every routine that moves or maps data (pointwise, copies, concatenations, gathers, reductions,
sorts, selections), convolutions and grouped products are called over sizes and layouts. Sizes are
drawn at random on a logarithmic scale, not those of any model. Before each call a small kernel
rewrites its inputs in place, as the operation before it does in a model: they are as warm as the
caches allow. A trace of the step is a workload like any other.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from npusim.capture.gpu import TORCH, load
from npusim.capture.routines import elementwise, products, reductions, selection, transfers
from npusim.capture.routines.bank import Bank, Made

_SEED = 20
_FAMILIES = (elementwise, reductions, selection, products, transfers)


def program(device: str) -> Callable[[], None]:
    """Return a step that calls every routine once at each of its sizes, the smallest first."""
    torch = load("torch", TORCH)
    calls = sorted(planned(torch, device), key=lambda made: made.nbytes)

    def step() -> None:
        for made in calls:
            for fresh in made.inputs:
                _rewrite(torch, fresh)
            made.call()  # its result is dropped, so the next one takes the same memory

    return step


def planned(torch: Any, device: str) -> list[Made]:
    """Return every call on its operands; the same for every run."""
    bank = Bank(torch, device)
    chance = random.Random(_SEED)  # noqa: S311  (no secret)
    return [made for family in _FAMILIES for made in family.calls(bank, chance)]


def _rewrite(torch: Any, fresh: Any) -> None:
    """Write an input in place: its values stay, or change sign."""
    if fresh.dtype.is_floating_point:
        fresh.neg_()
    elif fresh.dtype == torch.bool:
        fresh.logical_or_(fresh)
    else:
        fresh.mul_(1)
