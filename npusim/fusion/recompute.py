"""Cheap work done again by each of those that read it, so that its own kernel goes.

A chain of steps and fills (no reduction, no access by index, no product) goes if every operation
that reads a result of it is in a chain that can take in what that result is made of:

- the whole is a legal chain still (macro-op, length, iteration space, buffer);
- no chain does more than ``fusion.recompute`` operations that others do too;
- all together move no more bytes than before: inputs read once more by each against a result that
  is neither written nor read;
- every result has a reader that is known (else it leaves the step), none on another stream.

Compilers do so for pointwise producers of few operations (TorchInductor inlines those whose inner
function has no more than ``realize_opcount_threshold`` = 30 operations and that read no more than
``realize_reads_threshold`` = 4 buffers, torch/_inductor/config.py). FLOP of each copy count.

Left out: a result that a product reads is in memory anyway, but another chain might make it again
to start sooner; parts of a chain that others could make while the rest stays.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npusim.fusion.outside import moved
from npusim.fusion.rules import Rules

_CHEAP = ("step", "fill")

Members = tuple[int, ...]


@dataclass(frozen=True)
class Run:
    """Operations that run as one, and which of them other runs do too."""

    members: Members
    again: frozenset[int] = frozenset()


def recomputed(runs: Sequence[Members], rules: Rules) -> list[Run]:
    """Return runs without those whose readers do their work, in the order of their ends.

    Parameters
    ----------
    runs : sequence of tuple of int
        Operations that run as one, or alone; none in two.
    rules : Rules
    """
    left = {members[-1]: Run(members) for members in runs}
    doing = {m: {members[-1]} for members in runs for m in members}  # which runs do an operation
    # The last first: what its readers take in may then be taken in by the readers of those.
    for end in sorted(left, reverse=True):
        taken = _taken_in(left[end].members, left, doing, rules)
        if not taken:
            continue
        gone = left.pop(end)
        left.update(taken)
        for m in gone.members:
            doing[m] = {reader for reader, run in taken.items() if m in run.again}
    return [left[end] for end in sorted(left)]


def _taken_in(
    members: Members, left: dict[int, Run], doing: dict[int, set[int]], rules: Rules
) -> dict[int, Run]:
    """Return the runs that read a run, each with what it reads of it inside; empty if not legal."""
    parts = _read_parts(members, doing, rules)
    found: dict[int, Run] = {}
    for end, part in parts.items():
        run = left[end]
        whole = Run(tuple(sorted({*run.members, *part})), run.again | part)
        if (
            rules.where[end] != rules.where[members[-1]]
            or len(whole.again) > rules.limits.recompute
            or not rules.is_covered(whole.members)
        ):
            return {}
        found[end] = whole
    before = _moved(Run(members), rules) + sum(_moved(left[end], rules) for end in found)
    return found if sum(_moved(run, rules) for run in found.values()) <= before else {}


def _read_parts(
    members: Members, doing: dict[int, set[int]], rules: Rules
) -> dict[int, frozenset[int]]:
    """Return for each run that reads a run what that is made of; empty if it has to stay."""
    flow = rules.flow
    if any(rules.kinds[m] not in _CHEAP for m in members) or rules.is_awaited(members):
        return {}
    parts: dict[int, frozenset[int]] = {}
    for m in members:
        if not flow.readers[m] or any(reader not in doing for reader in flow.readers[m]):
            return {}
        made_of = _made_of(m, members, rules)
        for reader in flow.readers[m]:
            for end in doing[reader] - {members[-1]}:
                parts[end] = parts.get(end, frozenset()) | made_of
    return parts


def _made_of(m: int, members: Members, rules: Rules) -> frozenset[int]:
    """Return an operation and those of its run that it needs."""
    found, open_ = {m}, [m]
    while open_:
        for j in rules.flow.reads[open_.pop()]:
            if j in members and j not in found:
                found.add(j)
                open_.append(j)
    return frozenset(found)


def _moved(run: Run, rules: Rules) -> float:
    return moved(rules.workload, run.members, run.again, rules.flow)
