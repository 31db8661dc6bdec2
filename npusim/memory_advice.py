"""What would make a plan fit, flag by flag, and the largest that fits.

Each flag is changed alone, the others as they are. What is needed never falls when a length, a
count of sequences or of tokens grows, so the greatest value that fits is found by halving an
interval; the least utilization, memory and number of chips follow from what is needed.

Left out: other types of weights and cache (``--weight-bits``, ``--kv-bits``), which change answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from npusim.errors import InputError
from npusim.memory_flags import FLAGS
from npusim.memory_plan import MemoryPlan

HIGHEST = 0.95  # utilization to recommend: graphs and contexts need the rest
_TENTH = 1e8  # of a GB
_MOST_CHIPS = 64
_LONGEST = 2**24  # tokens: longer than any model reads


@dataclass(frozen=True)
class Advice:
    """One change that makes a plan fit.

    Attributes
    ----------
    flag : str
        What to change, as on the command line.
    name : str
        What `npusim.memory_plan.MemoryPlan.changed` calls it.
    bound : str
        ``at least`` or ``at most``.
    value : float
    """

    flag: str
    name: str
    bound: str
    value: float

    def applied(self, plan: MemoryPlan) -> MemoryPlan:
        """Return the plan with the change."""
        return plan.changed(**{self.name: self.value})

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return {"flag": self.flag, "bound": self.bound, "value": self.value}


def advice(plan: MemoryPlan) -> list[Advice]:
    """Return each single change that makes a plan fit; none if it fits.

    Examples
    --------
    >>> from npusim.memory_plan import memory_plan
    >>> plan = memory_plan("llama_3_1_8b", 24e9, 131072, 1, 2048)
    >>> plan.fits
    False
    >>> for a in advice(plan):
    ...     print(a.flag, a.bound, a.value)
    --max-model-len at most 36128
    --memory at least 37900000000.0
    --tensor at least 2
    """
    return [] if plan.fits else list(_each(plan))


def _each(plan: MemoryPlan) -> Iterator[Advice]:
    c = plan.asked
    share = next((k / 100 for k in range(1, 101) if k / 100 * plan.capacity >= plan.needed), 1.0)
    if share <= _highest(plan):
        yield _advice("gpu_memory_utilization", "at least", share)
    length = largest(plan, "max_model_len", c.max_model_len)
    if length is not None:
        yield _advice("max_model_len", "at most", length)
    for name in ("max_num_batched_tokens", "max_num_seqs"):
        value = largest(plan, name, getattr(c, name))
        if value is not None:
            yield _advice(name, "at most", value)
    memory = math.ceil(plan.needed / c.gpu_memory_utilization / _TENTH) * _TENTH
    yield Advice("--memory", "capacity", "at least", memory)
    chips = next((n for n in range(c.tensor + 1, _MOST_CHIPS + 1) if _fits(plan, tensor=n)), None)
    if chips is not None:
        yield _advice("tensor", "at least", chips)


def largest(plan: MemoryPlan, name: str, most: int | None = None) -> int | None:
    """Return the greatest value of a flag with which a plan fits; None if no value does.

    Parameters
    ----------
    plan : MemoryPlan
        With all the other flags.
    name : str
        ``max_model_len``, ``max_num_seqs`` or ``max_num_batched_tokens``.
    most : int, optional
        Where to end; by default where the other flags do.

    Examples
    --------
    >>> from npusim.memory_plan import memory_plan
    >>> plan = memory_plan("llama_3_1_8b", 24e9, 8192, 256, 2048)
    >>> plan.sequences(), largest(plan, "max_model_len")
    (4, 32944)
    """
    low, high = _bounds(plan, name)
    high = high if most is None else min(high, most)
    if high < low or not _fits(plan, **{name: low}):
        return None
    while low < high:
        middle = (low + high + 1) // 2
        if _fits(plan, **{name: middle}):
            low = middle
        else:
            high = middle - 1
    return low


def _bounds(plan: MemoryPlan, name: str) -> tuple[int, int]:
    """Return the least and the greatest value of a flag that go with the others."""
    c = plan.asked
    known = [n for n in (plan.longest, plan.model.decoder.positions) if n]
    if name == "max_model_len":
        tokens = [] if c.chunked_prefill else [c.max_num_batched_tokens]
        return 1, min([_LONGEST, *known, *tokens])
    if name == "max_num_seqs":
        return 1, c.max_num_batched_tokens
    if name != "max_num_batched_tokens":
        raise InputError("no flag with a largest value", value=name,
                         allowed="max_model_len, max_num_seqs, max_num_batched_tokens")  # fmt: skip
    return max(c.max_num_seqs, 1 if c.chunked_prefill else c.max_model_len), _LONGEST


def _highest(plan: MemoryPlan) -> float:
    """Return the highest utilization to recommend: what comes beside the share has room."""
    return min(HIGHEST, 1 - plan.beside / plan.capacity)


def too_high(plan: MemoryPlan) -> float | None:
    """Return the utilization to go down to so that what comes beside the share has room.

    None where it has room already, or never has.

    Examples
    --------
    >>> from npusim.memory_plan import memory_plan
    >>> plan = memory_plan("paddleocr_vl", 12e9, 16384, gpu_memory_utilization=0.99)
    >>> too_high(plan)
    0.94
    """
    if plan.spare >= 0:
        return None
    shares = (k / 100 for k in range(99, 0, -1))
    return next((s for s in shares if (1 - s) * plan.capacity >= plan.beside), None)


def _fits(plan: MemoryPlan, **flags: Any) -> bool:
    """Return whether a plan fits with other flags, which may be impossible."""
    try:
        return plan.changed(**flags).fits
    except InputError:
        return False


def _advice(name: str, bound: str, value: float) -> Advice:
    return Advice(FLAGS[name], name, bound, value)
