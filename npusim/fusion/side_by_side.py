"""Neighbours that do not read each other, run side by side as one.

Two runs that follow each other in a stream become one if

- neither reads a result of the other, so no path leads from one to the other (nothing is between);
- they go over one iteration space: rows and width alike, or as many elements where one of them
  reduces nothing, or one element in all (a constant, a counter);
- they read a common input, which is then read once, or one of them only fills with constants, which
  reads nothing (``fusion.side_by_side`` = 1); or they read what they want (2);
- together they are no longer than ``fusion.chain``, and rows of both fit ``fusion.buffer`` at once;
- nothing on another stream waits for the first, which now ends with the last.

Each part goes over all elements, so two of them have twice the work of one; launches, starts and
reads of common inputs are what is saved.

Source: A. Li et al., "Automatic horizontal fusion for GPU kernels", CGO 2022, arXiv:2007.01277.
TorchInductor joins independent nodes of one size if they share data, and with its option
``aggressive_fusion`` others too (torch/_inductor/scheduler.py).

Left out: matrix products, parts of other sizes on other units (HFuse does), what would be
neighbours if what is between were put off.
"""

from __future__ import annotations

from collections.abc import Sequence

from npusim.fusion.macro_ops import PRODUCT
from npusim.fusion.recompute import Run
from npusim.fusion.rules import Rules

SHARED = 1  # value of fusion.side_by_side for those with a common input

Group = tuple[Run, ...]


def side_by_side(runs: Sequence[Run], rules: Rules) -> list[Group]:
    """Return runs in groups that run as one, most of them alone, in the order of their ends.

    Parameters
    ----------
    runs : sequence of Run
        In the order of their ends.
    rules : Rules
    """
    ends = {run.members[-1]: run for run in runs}
    inside = {m for run in runs for m in run.members}
    groups: dict[int, Group] = {}
    open_: dict[tuple[int, ...], int] = {}  # end of the group behind, by step, stream and piece
    # From the end back: a constant is made for what comes next.
    for i in reversed(range(len(rules.where))):
        where = rules.where[i]
        if i not in ends:
            if i not in inside:
                open_.pop(where, None)
            continue
        end, run = open_.get(where, i), ends[i]
        if end != i and _is_legal(run, groups[end], rules):
            groups[end] = (run, *groups[end])
        else:
            groups[i], open_[where] = (run,), i
    return [groups[end] for end in sorted(groups)]


def _is_legal(run: Run, group: Group, rules: Rules) -> bool:
    behind, both = members_of(group), members_of((run, *group))
    return (
        len(both) <= rules.limits.chain
        and all(rules.kinds[m] != PRODUCT for m in both)
        and not rules.is_awaited(run.members)
        and not any(_reads(other, run.members, rules) for other in group)
        and _is_one_space(run.members, behind, rules)
        and rules.held(run.members) + rules.held(behind) <= rules.limits.buffer
        and (rules.limits.side_by_side > SHARED or _share(run.members, behind, rules))
    )


def members_of(group: Group) -> tuple[int, ...]:
    """Return all operations of a group, in order."""
    return tuple(sorted({m for run in group for m in run.members}))


def _reads(run: Run, before: tuple[int, ...], rules: Rules) -> bool:
    return any(j in before and j not in run.members
               for m in run.members for j in rules.flow.reads[m])  # fmt: skip


def _is_one_space(one: tuple[int, ...], other: tuple[int, ...], rules: Rules) -> bool:
    sizes = rules.largest(one), rules.largest(other)
    if 1 in sizes:
        return True
    if rules.is_of_rows(one) and rules.is_of_rows(other):
        return rules.space(one) == rules.space(other)
    return sizes[0] == sizes[1]


def _share(one: tuple[int, ...], other: tuple[int, ...], rules: Rules) -> bool:
    if any(all(rules.kinds[m] == "fill" for m in part) for part in (one, other)):
        return True
    inputs = ({j for m in part for j in rules.flow.reads[m]} - {*one, *other}
              for part in (one, other))  # fmt: skip
    return not next(inputs).isdisjoint(next(inputs))
