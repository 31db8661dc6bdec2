"""What ``npusim memory`` prints."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from npusim import terminal, units
from npusim.memory_plan import MemoryPlan

_BAR = 40  # characters of the whole memory


def shown(plan: MemoryPlan, content: Mapping[str, Any]) -> None:
    """Print what takes memory, whether it fits, the largest that does, and what to change."""
    console = terminal.plain()
    where = content["arch"] or "a chip"
    split = f", one of {plan.asked.tensor} chips" if plan.asked.tensor > 1 else ""
    table = terminal.blank(
        f"{plan.model.title} on {where}, {_size(plan.capacity)}{split}, as {plan.framework.name} "
        "counts", "what", "size", "of the memory", "", "from", right=("size", "of the memory"),
    )  # fmt: skip
    for what, size, source in _parts(plan):
        share = size / plan.capacity
        bar = "#" * min(_BAR, max(0, round(share * _BAR)))
        terminal.add(table, what, _size(size), f"{share:.1%}", bar, source)
    terminal.show(table)
    for line in _lines(plan, content):
        console.print(Text(line))
    for note in content["notes"]:
        console.print(Text(f"note: {note}"))


def _parts(plan: MemoryPlan) -> Iterator[tuple[str, float, str]]:
    """Yield what takes memory, how much, and what that follows from."""
    c, peak = plan.asked, plan.peak
    inside = ", ".join(plan.framework.inside)
    beside = ", ".join(name for name in plan.overheads if name not in plan.framework.inside)
    yield "weights", plan.weights, f"{c.weight_bits:g} bits in the layers"
    yield "peak of a step", peak.bytes, f"{c.max_num_batched_tokens:,} tokens: {peak.where}"
    yield "tables", plan.tables, "blocks of sequences, rotations of positions"
    yield "runtime", plan.runtime, inside
    yield "pool of the KV cache", plan.pool, f"{plan.pool_tokens:,} tokens, {plan.blocks:,} blocks"
    yield "reserve", plan.reserve, f"outside --gpu-memory-utilization {c.gpu_memory_utilization:g}"
    yield "  taken beside", plan.beside, beside or "nothing"


def _lines(plan: MemoryPlan, content: Mapping[str, Any]) -> Iterator[str]:
    c = plan.asked
    yield (f"a token of the KV cache takes {_size(plan.kv_token)}, a sequence of "
           f"{c.max_model_len:,} takes {_size(plan.kv_sequence)}")  # fmt: skip
    needed, share = _size(plan.needed), _size(plan.share)
    if plan.fits:
        yield f"fits: {needed} are needed, {share} are there"
        yield from _at_once(plan, content)
    else:
        yield f"DOES NOT FIT: {needed} are needed, {share} are there"
    yield from (f"largest that fits, the rest as it is: {found}" for found in _largest(content))
    if not plan.fits:
        yield "any one of these makes it fit:" if content["advice"] else (
            "no single flag makes it fit")  # fmt: skip
    for a in content["advice"]:
        yield f"  {a['flag']} {a['bound']} {_value(a['flag'], a['value'])}"
    yield from _beside(plan, content)


def _at_once(plan: MemoryPlan, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield how many sequences the pool holds, and what it would take to hold them all."""
    c = plan.asked
    typical = content["typical_tokens"]
    usual = "" if typical is None else (
        f", {content['typical_sequences']:,} of {typical:,} tokens")  # fmt: skip
    yield (f"in the pool at once: {plan.sequences():,} sequences of {c.max_model_len:,} tokens"
           f"{usual}, of {c.max_num_seqs:,} allowed; others wait")  # fmt: skip
    low, high = (units.show(end, "B", 3) for end in plan.pool_range)
    yield (f"pool from {low} to {high} as the runtime goes; all sequences at their longest would "
           f"take {_size(plan.all_sequences)}")  # fmt: skip


def _largest(content: Mapping[str, Any]) -> Iterator[str]:
    found = {f"--{name.replace('_', '-')}": v for name, v in content["largest"].items() if v}
    if found:
        yield ", ".join(f"{flag} {value:,}" for flag, value in found.items())


def _beside(plan: MemoryPlan, content: Mapping[str, Any]) -> Iterator[str]:
    """Yield what happens where the reserve is too small."""
    if plan.spare >= 0:
        return
    lower = content["utilization_with_room_beside"]
    how = "no utilization leaves that much" if lower is None else (
        f"--gpu-memory-utilization at most {lower:g} leaves it")  # fmt: skip
    yield (f"out of memory in service: beside its share the engine takes {_size(plan.beside)}, "
           f"{_size(plan.reserve)} are left; {how}")  # fmt: skip


def _value(flag: str, value: float) -> str:
    if flag == "--memory":
        return _size(value)
    return f"{value:g}" if value < 1 else f"{value:,.0f}"


def _size(value: float) -> str:
    return units.show(value, "B")
