"""Links between chips: what a pattern of transfers takes on a topology.

Each chip has one bandwidth to all others, ``link.bandwidth`` (both directions), of which long
transfers reach ``link.efficiency``: B = bandwidth / 2 x efficiency each way. A topology says where
it goes; n chips take part:

- ``switch``: every chip reaches every other at B;
- ``full``: a link to each of ``link.peers`` others (where not given: the n - 1 that take part), of
  B / peers each. Fewer chips than that leave links unused;
- ``ring``: two neighbours, B / 2 each; two chips have both links between them;
- ``mesh``: a torus of the most square two factors of n; each dimension longer than one has an equal
  part of B and is a ring of it. Of a prime number of chips it is a ring.

Patterns, as seconds x B for a byte, and the hops on the longest way:

- a pass round the chips (each gives all its parts of 1 / n on): (n - 1) / n in n - 1 hops. Links
  are all in use: a full topology has as many rings as links, a ring two directions. A torus a x b
  passes half of the message along one dimension first and half along the other: max((a - 1) / a,
  (b - 1) / b) + max(a - 1, b - 1) / (a b) in a + b - 2 hops, which is (n - 1) / n if it is square;
- an exchange of a byte between every two chips: n - 1 on a switch, peers on a full topology. In a
  ring ways meet: from a chip to all others they add up to floor(n^2 / 4) links of which each chip
  has two of B / 2, so floor(n^2 / 4). In a torus the busier dimension decides: with d dimensions
  longer than one, d (n / a) floor(a^2 / 4) for that of a chips;
- one transfer between neighbours: 1 on a switch, peers, 2 on a ring of more than two, and as in the
  longer of the rings of a torus.

Source: W. J. Dally, B. Towles, "Principles and Practices of Interconnection Networks", 2004,
chapters 3 and 5 (load of channels); P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms
for clusters of workstations", 2009, doi:10.1016/j.jpdc.2008.09.002 (a ring uses every link).

Left out: several levels of links (boards, nodes), switches that are oversubscribed, routes around a
busy link, other traffic, hops that differ in length. More chips than a full topology has links for
are taken to share those links evenly.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.units import CHOICES

Array = NDArray[np.float64]

PARAMETERS = ("link.bandwidth", "link.efficiency", "link.latency", "link.topology", "link.peers")

NEEDED = ("link.bandwidth", "link.efficiency", "link.latency")


@dataclass(frozen=True)
class Way:
    """A pattern of transfers, each (U, D).

    Attributes
    ----------
    load : array
        Seconds for a byte, times B: what the busiest link carries.
    hops : array
        Hops one after the other.
    """

    load: Array
    hops: Array


def rate(designs: Designs) -> Array:
    """Return what a chip's links carry one way, all together, (D,) [B/s].

    Examples
    --------
    >>> import npusim as ns
    >>> f"{rate(Designs(ns.load_arch('h200'))).item():.4g}"
    '3.708e+11'
    """
    found: Array = designs["link.bandwidth"] / 2.0 * designs["link.efficiency"]
    return found


def grid(chips: int) -> tuple[int, int]:
    """Return the most square two factors of a number of chips, the smaller one first.

    Examples
    --------
    >>> grid(8), grid(16), grid(7)
    ((2, 4), (4, 4), (1, 7))
    """
    small = next(a for a in range(math.isqrt(chips), 0, -1) if chips % a == 0)
    return small, chips // small


def round_way(chips: Array, designs: Designs) -> Way:
    """Return a pass round the chips, of a byte in all; `chips` is (U,)."""
    n = chips[:, None]
    a, b = _sides(chips)
    even = (n - 1) / n
    square = np.maximum((a - 1) / a, (b - 1) / b) + np.maximum(a - 1, b - 1) / n
    unused = _peers(n, designs) / (n - 1)
    return Way(
        _chosen(designs, switch=even, full=even * unused, mesh=np.where(a > 1, square, even),
                ring=even),
        _chosen(designs, switch=n - 1, full=n - 1, mesh=a + b - 2, ring=n - 1),
    )  # fmt: skip


def exchange_way(chips: Array, designs: Designs) -> Way:
    """Return an exchange of a byte between every two chips; `chips` is (U,)."""
    n = chips[:, None]
    a, b = _sides(chips)
    one = np.ones_like(n)
    dimensions = np.where(a > 1, 2.0, 1.0)
    torus = dimensions * np.maximum(n / a * np.floor(a**2 / 4), n / b * np.floor(b**2 / 4))
    return Way(
        _chosen(designs, switch=n - 1, full=_peers(n, designs), mesh=torus,
                ring=np.floor(n**2 / 4)),
        _chosen(designs, switch=one, full=one, mesh=np.floor(a / 2) + np.floor(b / 2),
                ring=np.floor(n / 2)),
    )  # fmt: skip


def neighbour_way(chips: Array, designs: Designs) -> Way:
    """Return a transfer of a byte between neighbours of so many chips; `chips` is (U,)."""
    n = chips[:, None]
    a, b = _sides(chips)
    one = np.ones_like(n)
    ring = np.where(n > 2, 2.0, 1.0)
    torus = np.where(a > 1, 2.0, 1.0) * np.where(b > 2, 2.0, 1.0)
    return Way(
        _chosen(designs, switch=one, full=_peers(n, designs), mesh=torus, ring=ring),
        _chosen(designs, switch=one, full=one, mesh=one, ring=one),
    )


def stretched(chips: Array, designs: Designs) -> Array:
    """Return by how much links that lead to no chip that takes part slow all down, (U, D)."""
    n = chips[:, None]
    one = np.ones_like(n)
    return _chosen(designs, switch=one, full=_peers(n, designs) / (n - 1), mesh=one, ring=one)


def topology(designs: Designs) -> Array:
    """Return the topology of each design, by its place among the names, (D,)."""
    if "link.topology" not in designs:
        return np.zeros(len(designs))
    return designs["link.topology"]


def _chosen(designs: Designs, **by_topology: Array) -> Array:
    """Return what goes with the topology of each design, (U, D)."""
    found = topology(designs)[None, :]
    names = CHOICES["topology"]
    return np.select([found == names.index(name) for name in by_topology],
                     [np.asarray(value) for value in by_topology.values()], np.nan)  # fmt: skip


def _peers(n: Array, designs: Designs) -> Array:
    """Return over how many chips a full topology divides a chip's links, (U, D)."""
    if "link.peers" not in designs:
        return n - 1
    return np.maximum(n - 1, designs["link.peers"][None, :])


def _sides(chips: Array) -> tuple[Array, Array]:
    """Return the sides of the torus of each number of chips, (U, 1) each."""
    numbers, which = np.unique(chips, return_inverse=True)
    sides = np.array([grid(int(n)) for n in numbers], dtype=float).reshape(-1, 2)[which]
    return sides[:, :1], sides[:, 1:]
