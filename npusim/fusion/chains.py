"""Chains of operations that a fusion engine may run as one.

An operation joins the chain of what it reads if the whole is legal:

- a macro-op of the table covers it (`npusim.fusion.macro_ops`);
- it has at most ``fusion.chain`` operations;
- one iteration space: all have as many elements as the largest, or one for each of its rows behind
  a reduction, or one in all; slices and what is concatenated are a part of them, a quarter or more;
- nobody outside reads a result between the operation that made it and the end of the chain, where
  the chain now runs (a result that is read later is written as before), and nothing on another
  stream waits for it;
- neither a wait of the host nor an operation of which nothing is known lies in between: what comes
  behind the one is not issued yet, and the other may read or write anything;
- a row that is reduced lies in one unit: its kernel has no more blocks than rows, and the row no
  more than 32,768 elements;
- what is alive at once of one row fits ``fusion.buffer``, if the chain has a reduction: its rows
  are held. Without one a chain works on pieces of any size.

Source: seed 004 section 5; legality as in Z. Zheng et al., "AStitch: enabling a new
multi-dimensional optimization space for memory-intensive ML training and inference on modern SIMT
architectures", ASPLOS 2022, doi:10.1145/3503222.3507723 (element-wise steps, and row reductions
whose results stay on chip).

What is found is then run through two more rules, each of which an engine may have or not: cheap
work is done again by those that read it (`npusim.fusion.recompute`), and neighbours run side by
side (`npusim.fusion.side_by_side`). Neither leaves more operations or moves more bytes.

Left out: loops over rows that do not fit the buffer.
"""

from __future__ import annotations

from dataclasses import dataclass

from npusim.fusion.macro_ops import MacroOps
from npusim.fusion.recompute import Run, recomputed
from npusim.fusion.rules import Limits, Rules
from npusim.fusion.side_by_side import Group, members_of, side_by_side
from npusim.workload import Workload

__all__ = ["Chain", "Limits", "chains"]


@dataclass(frozen=True)
class Chain:
    """Operations that run as one, at the place of the last.

    Attributes
    ----------
    members : tuple of int
    name : str
        The macro-op; several side by side.
    rows, width : int
        Rows and elements of a row; one row of all where no reduction tells.
    is_of_rows : bool
        Whether it reduces rows.
    again : frozenset of int
        Members that every reader of theirs does, so that nobody writes what they make.
    parts : int
        How many parts go over all elements, side by side.
    """

    members: tuple[int, ...]
    name: str
    rows: int
    width: int
    is_of_rows: bool
    again: frozenset[int] = frozenset()
    parts: int = 1


def chains(w: Workload, table: MacroOps, limits: Limits) -> tuple[Chain, ...]:
    """Return the chains of at least two operations, by their last operation.

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.fusion.macro_ops import load_macro_ops
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> found = chains(w, load_macro_ops(), Limits(16))
    >>> sorted({c.name for c in found})
    ['norm', 'read by index and norm', 'rotary', 'steps']
    """
    rules = Rules(w, table, limits)
    found = _grown(rules)
    runs = recomputed(found, rules) if limits.recompute else [Run(m) for m in found]
    groups = side_by_side(runs, rules) if limits.side_by_side else [(run,) for run in runs]
    every = (_chain(group, rules) for group in groups)
    return tuple(chain for chain in every if len(chain.members) > 1)


def _grown(rules: Rules) -> list[tuple[int, ...]]:
    """Return chains and what may be in one but is alone, by their last operation.

    Operations in order, each put into the chain of what it reads where that is legal.
    """
    chain_of: dict[int, tuple[int, ...]] = {}
    for i, kind in enumerate(rules.kinds):
        if not kind:
            continue
        chain_of[i] = (i,)
        # The latest first: what is not legal with all of them may be with the nearest.
        for j in sorted(rules.flow.reads[i], reverse=True):
            if j not in chain_of or rules.where[j] != rules.where[i]:
                continue
            both = tuple(sorted({*chain_of[j], *chain_of[i]}))
            if rules.is_legal(both):
                for member in both:
                    chain_of[member] = both
    return sorted(set(chain_of.values()), key=lambda members: members[-1])


def _chain(group: Group, rules: Rules) -> Chain:
    members = members_of(group)
    largest = rules.largest(members)
    whole = [run for run in group if rules.largest(run.members) == largest]
    return Chain(
        members,
        " beside ".join(dict.fromkeys(rules.name(run.members) for run in group)),
        *rules.space(members),
        rules.is_of_rows(members),
        frozenset().union(*(run.again for run in group)),
        len(whole),
    )
