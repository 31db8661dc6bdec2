"""Which call of a thread is inside which, for many calls at once."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.importers.coded import distinct

Floats = NDArray[np.float64]
Codes = NDArray[np.int64]
DEEPEST = 200


def order(thread: Codes, start: Floats, stop: Floats) -> NDArray[np.intp]:
    """Return calls by thread and start, one that holds another before it, shape (N,).

    A trace is nearly in this order but for the stops, which cost most of the sorting: so they are
    looked at only where calls of one thread start in one moment.
    """
    found = np.lexsort((start, thread))
    again = (np.diff(thread[found]) == 0) & (start[found[1:]] == start[found[:-1]])
    tied = np.zeros(len(found), dtype=bool)
    tied[1:] |= again
    tied[:-1] |= again
    rows = found[tied]
    found[tied] = rows[np.lexsort((-stop[rows], start[rows], thread[rows]))]
    return found


def parents(
    thread: Codes, start: Floats, stop: Floats, holds: NDArray[np.bool_] | None = None
) -> Codes:
    """Return the innermost call that each call begins in.

    That is the last one before it on its thread that has not ended when it starts; what ends in
    that moment holds moments (calls without length) and nothing else. Calls that have
    ended are passed over by going on to what they themselves began in: the way up doubles with
    every round, so that a million calls take some tens of rounds.

    Parameters
    ----------
    thread, start, stop : array, shape (N,)
        In the order of `order`.
    holds : array of bool, shape (N,), optional
        Which calls may be parents; by default all.

    Returns
    -------
    array, shape (N,)
        Index of the parent, -1 for none.

    Examples
    --------
    One call that holds two, the first of which holds one:

    >>> start, stop = np.array([0.0, 1, 2, 5]), np.array([9.0, 4, 3, 6])
    >>> parents(np.zeros(4, dtype=int), start, stop).tolist()
    [-1, 0, 1, 0]
    """
    count = len(start)
    found = np.arange(-1, count - 1, dtype=np.int64)
    first = np.ones(count, dtype=bool)
    first[1:] = thread[1:] != thread[:-1]
    found[first] = -1
    moment = stop == start
    stop = stop if holds is None else np.where(holds, stop, -np.inf)
    # The first round, of all calls and the one before each, needs no looking up.
    ended = ~first
    ended[1:] &= (stop[:-1] < start[1:]) | ((stop[:-1] == start[1:]) & ~moment[1:])
    open_ = np.flatnonzero(ended)
    around, begins, alone = found[open_], start[open_], moment[open_]
    while len(open_):
        around = found[around]
        found[open_] = around
        end = stop[around]  # of any call where there is none around
        up = (around >= 0) & ((end < begins) | ((end == begins) & ~alone))
        open_, around, begins, alone = open_[up], around[up], begins[up], alone[up]
    return found


def depths(parent: Codes, rows: Codes, deepest: int = DEEPEST) -> Codes:
    """Return how many calls are around each of some, at most `deepest`, shape of `rows`.

    Examples
    --------
    >>> depths(np.array([-1, 0, 1, 0]), np.array([0, 2, 3])).tolist()
    [0, 2, 1]
    """
    depth = np.zeros(len(rows), dtype=np.int64)
    above = parent[rows]
    live = np.flatnonzero(above >= 0)
    for _ in range(deepest):
        if not len(live):
            break
        depth[live] += 1
        above[live] = parent[above[live]]
        live = live[above[live] >= 0]
    return depth


def chains(
    parent: Codes, label: Codes, wanted: NDArray[Any]
) -> tuple[Codes, list[tuple[int, int]]]:
    """Tell calls apart by their label and those of all calls around them.

    Parameters
    ----------
    parent, label : array, shape (N,)
    wanted : array of int
        Calls that matter.

    Returns
    -------
    chain : array, shape (N,)
        Number of the chain of each call that is wanted or around one that is, -1 elsewhere.
    links : list of (label, chain)
        Label of each chain's innermost call, and the chain around it (-1 for none).

    Examples
    --------
    >>> chains(np.array([-1, 0, -1, 2]), np.array([7, 8, 7, 8]), np.array([1, 3]))
    (array([0, 1, 0, 1]), [(7, -1), (8, 0)])
    """
    needed = np.zeros(len(parent), dtype=bool)
    needed[wanted] = True
    live = np.flatnonzero(needed)
    for _ in range(DEEPEST):
        above = parent[live]
        above = above[above >= 0]
        live = above[~needed[above]]
        if not len(live):
            break
        needed[live] = True
    rows = np.flatnonzero(needed)
    depth = depths(parent, rows)
    labels, short = distinct(label[rows])
    chain = np.full(len(parent), -1, dtype=np.int64)
    links: list[tuple[int, int]] = []
    for level in range(int(depth.max(initial=-1)) + 1):
        at = depth == level
        inner, above = rows[at], parent[rows[at]]
        around = np.where(above >= 0, chain[above], -1)
        pairs, code = distinct(short[at] * (len(links) + 1) + around + 1)
        chain[inner] = code + len(links)
        short_of, around_of = np.divmod(pairs, len(links) + 1)
        links += zip(labels[short_of].tolist(), (around_of - 1).tolist(), strict=True)
    return chain, links
