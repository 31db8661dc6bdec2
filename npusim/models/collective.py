"""Collective operations: messages between chips, by the algorithm and the protocol of a library.

    time = start + hops x (link.latency + hop / clock) + bytes / rate + fill + local
    rate = min(share x B, blocks x channel x clock)
    blocks = min(channels, message / least), one at least

S is the message: the larger of what a chip gives and gets (the whole gathered tensor, the whole
tensor to be scattered), n the chips that take part (``k``), B one way of the links. Bytes and hops
of a pattern are those of its topology (`npusim.models.link`; R is a pass round the chips, X an
exchange of a byte between every two, N a transfer between neighbours):

| | ring | tree | one_shot | in_switch |
|---|---|---|---|---|
| all_reduce | 2 S R, twice its hops | 2 S (n - 1) / n, 2 log2 n | S X | S (1 + 1 / n), 2 hops |
| all_gather, reduce_scatter | S R | S (n - 1) / n, log2 n | S / n X | |
| broadcast | S, hops of R | S, log2 n | S X | |
| all_to_all | S / n X, whatever the algorithm | | | |
| send | S N, likewise | | | |

- ring: bandwidth-optimal, many hops (Patarasuk, Yuan 2009, doi:10.1016/j.jpdc.2008.09.002);
- tree: two trees that each carry half, every chip inside one and a leaf of the other (Sanders,
  Speck, Träff 2009, doi:10.1016/j.parco.2009.09.001); gathers and scatters double and halve
  (Thakur, Rabenseifner, Gropp 2005, doi:10.1177/1094342005051521). On a mesh or a ring of links,
  where far chips are several links away, there is none. NCCL's tree within one domain of links is
  a chain, as deep as the ring: its own choice is the ring here;
- one_shot: every chip sends all to all others and sums alone, one hop (the kernels that serving
  frameworks use for small messages);
- in_switch: the switch sums and multicasts (``link.reduces``, more than two chips): a chip sends
  its message and one n-th of the result, and gets as much.

Protocols, of ring and tree: ``flagged`` (each 8 bytes carry 4 of flag: half of B, no
synchronisation), ``lines`` (120 of 128 bytes) and ``bulk`` (all of B, threads and memory are
synchronised for each slice). A thread block passes on no more than ``channel`` bytes a clock, and
small messages have few blocks: ``least`` bytes of the message each. Exchanges, sends and one_shot
use ``direct`` (flagged) or ``direct_bulk``, whichever is faster. in_switch is ``switch``.

Two things overlap with nothing. ``local``, in lines, bulk and direct_bulk: a chip's own part S / n
goes through its blocks at their rate and over no link (none for broadcast and send). ``fill``, in
bulk: a chunk goes on in two slices, and the next chip cannot start before it has the first:
min(S / 2 n, ``slice`` x blocks) / B. One_shot takes all blocks at any size, and sums what came:
n S at their rate in direct_bulk.

``library.collective.algorithm`` says who chooses. ``library`` (where not given): NCCL's way, which
takes ring or in_switch and a protocol by an estimate of its own, guess_start + hops x guess_hop +
bytes / (guess_share x B), and is not always right. ``fastest``: whatever is fastest here. Or one
algorithm in its fastest protocol; where an operation does not have it, the ring.

Source: protocols, shares and guesses: NCCL, src/graph/tuning.cc, src/graph/topo.h and
src/include/device.h of 2.28 (8 steps of a 4 MiB buffer, two a slice); starts, hops and rates of
blocks: fitted to workloads/experiments/h200_collectives_axes.json by benchmarks/collectives.py.

Left out: several levels of links, the memory bandwidth and the units that a collective takes from
kernels beside it, sums in other types, chips that come late, what a library does once at its
start, events that a framework puts between collectives of a graph (docs/collectives.md).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models import link
from npusim.models.cost import Cost, overlapped
from npusim.models.link import Way
from npusim.units import CHOICES
from npusim.workload import Operations

Array = NDArray[np.float64]

ROUTINES = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all", "broadcast", "send")
PROTOCOLS = ("flagged", "lines", "bulk", "direct", "direct_bulk", "switch")
NUMBERS = ("start", "hop", "channel", "share")
GUESSED = ("flagged", "lines", "bulk", "switch")
GUESSES = ("guess_start", "guess_hop", "guess_share")

_ALGORITHM = "library.collective.algorithm"
_WHOLE = tuple(f"library.collective.{name}" for name in ("channels", "least", "slice"))

PARAMETERS = (
    "link.reduces", "units.clock", "floor.pointwise", _ALGORITHM, *_WHOLE,
    *(f"library.collective_{p}.{number}" for p in PROTOCOLS for number in NUMBERS),
    *(f"library.collective_{p}.{number}" for p in GUESSED for number in GUESSES),
)  # fmt: skip

READS = {*PARAMETERS, *link.PARAMETERS}


@dataclass(frozen=True)
class _Offer:
    """One way to do operations, each (U, D) [s]; what cannot be is infinite.

    Attributes
    ----------
    algorithm, protocol : str
    floor, moving : array
        What it takes: before the first byte is there, and then.
    guess : array
        What the library thinks that it takes.
    """

    algorithm: str
    protocol: str
    floor: Array
    moving: Array
    guess: Array

    @property
    def time(self) -> Array:
        return self.floor + self.moving


def known(operations: Operations, designs: Designs) -> NDArray[np.bool_]:
    """Return which operations are collectives of known chips, on links that are known, (U,)."""
    rows = (operations.kind == "collective") & np.isin(operations.routine, ROUTINES)
    rows &= operations["k"] > 1
    needed = [path in designs for path in (*link.NEEDED, *_WHOLE)]
    found: NDArray[np.bool_] = rows & all(needed)
    return found


def message(operations: Operations) -> Array:
    """Return the larger of what a chip gives and what it gets, (U,) [B]."""
    found: Array = np.maximum(operations["read_activation"], operations["write_activation"])
    return found


def collective_cost(operations: Operations, designs: Designs) -> Cost:
    """Return the cost of collectives that are `known`, each (U, D) [s].

    Parameters
    ----------
    operations : Operations
        U collectives: ``routine`` one of `ROUTINES`, ``k`` chips, bytes given and got.
    designs : Designs
        D designs.

    Examples
    --------
    A hundred million bytes on two chips: links carry them at 370.8 GB/s in 270 us, the blocks of
    each chip half of them again in 36 us, and the first slice is 67 us on its way alone:

    >>> import npusim as ns
    >>> from npusim.columns import COST_COLUMNS, COST_LABELS
    >>> from npusim.reuse import alone
    >>> nothing = {c: np.zeros(1) for c in COST_COLUMNS if c not in COST_LABELS}
    >>> sizes = {**nothing, "k": np.array([2]), "read_activation": np.array([1e8])}
    >>> label = [np.array([t], object) for t in ("collective", "bf16", "NCCL", "all_reduce")]
    >>> one = Operations(*label, sizes, alone(*[np.array([np.inf])] * 3))
    >>> cost = collective_cost(one, Designs(ns.load_arch("h200")))
    >>> f"{1e6 * cost.time.item():.0f} us"
    '389 us'
    """
    chosen = _choice(_offers(operations, designs), operations, designs)
    nothing = np.zeros_like(chosen.moving)
    return overlapped(chosen.floor, chosen.moving, nothing, chosen.moving)


def ways(operations: Operations, designs: Designs) -> dict[tuple[str, str], Array]:
    """Return what each algorithm takes in each protocol, (U, D) [s]; infinite where it cannot be.

    All-to-all and send have one algorithm, ``direct``.
    """
    return {(o.algorithm, o.protocol): o.time for o in _offers(operations, designs)}


def _offers(operations: Operations, designs: Designs) -> list[_Offer]:
    """Return all ways to do some operations."""
    n, size = operations["k"].astype(float)[:, None], message(operations)[:, None]
    sums = operations.routine[:, None] == "all_reduce"
    scatters = operations.routine[:, None] == "reduce_scatter"
    alone = np.isin(operations.routine, ("broadcast", "send"))[:, None]
    own = np.where(alone, 0.0, size / n)
    read = np.where(sums, n, np.where(scatters, 1.0, 0.0)) * size
    ways_of, made = _patterns(operations, designs), _Protocols(size, designs)
    offers = [made.offer(a, p, ways_of[a], 0.0 if p == "flagged" else own, p == "bulk")
              for a in ("ring", "tree") for p in ("flagged", "lines", "bulk")]  # fmt: skip
    offers += [made.offer("direct", p, ways_of["direct"], 0.0 if p == "direct" else own)
               for p in ("direct", "direct_bulk")]  # fmt: skip
    offers += [made.one_shot(p, ways_of["one_shot"], read) for p in ("direct", "direct_bulk")]
    return [*offers, made.offer("in_switch", "switch", ways_of["in_switch"], 0.0)]


def _patterns(operations: Operations, designs: Designs) -> dict[str, Way]:
    """Return, by algorithm, bytes x link load and hops of operations; infinite where it has none.

    Loads are in bytes over the whole of a chip's links.
    """
    chips = operations["k"].astype(float)
    n, size = chips[:, None], message(operations)[:, None]
    is_ = {name: (operations.routine == name)[:, None] for name in ROUTINES}
    sums, spreads = is_["all_reduce"], is_["broadcast"]
    passes = is_["all_gather"] | is_["reduce_scatter"]
    rounds, every = link.round_way(chips, designs), link.exchange_way(chips, designs)
    pair, stretched = link.neighbour_way(chips, designs), link.stretched(chips, designs)
    times = np.where(sums, 2.0, 1.0)
    even = (n - 1) / n * stretched
    topology, names = link.topology(designs), CHOICES["topology"]
    near = (topology == names.index("switch")) | (topology == names.index("full"))
    tree = np.where(near, _of([(sums | passes, times * even), (spreads, stretched)]), np.inf)
    reduces = designs["link.reduces"] if "link.reduces" in designs else np.zeros(len(designs))
    adds = sums & (n > 2) & (reduces > 0) & (topology == names.index("switch"))
    once = _of([(sums | spreads, every.load), (passes, every.load / n)])
    between = _of([(is_["all_to_all"], every.load / n), (is_["send"], pair.load)])
    return {
        "ring": Way(_of([(sums | passes, times * rounds.load), (spreads, stretched)]) * size,
                    times * rounds.hops),
        "tree": Way(tree * size, times * np.ceil(np.log2(n))),
        "one_shot": Way(once * size, every.hops),
        "in_switch": Way(np.where(adds, size * (1 + 1 / n), np.inf), np.full_like(n, 2.0)),
        "direct": Way(between * size, np.where(is_["send"], pair.hops, every.hops)),
    }  # fmt: skip


def _of(cases: list[tuple[NDArray[np.bool_], Array]]) -> Array:
    """Return the value of the first case that holds, infinite where none does."""
    return np.select([case for case, _ in cases], [value for _, value in cases], np.inf)


class _Protocols:
    """What bytes and hops cost in each protocol."""

    def __init__(self, size: Array, designs: Designs) -> None:
        self.designs = designs
        self.clock = designs["units.clock"][None, :]
        self.rate = link.rate(designs)[None, :]
        self.channels, least, self.slice = (designs[path][None, :] for path in _WHOLE)
        self.blocks = np.clip(size / least, 1.0, self.channels)

    def number(self, protocol: str, name: str) -> Array:
        return self.designs[f"library.collective_{protocol}.{name}"][None, :]

    def offer(
        self, algorithm: str, protocol: str, way: Way, local: Array | float, filled: bool = False
    ) -> _Offer:
        """Return what a way takes in a protocol.

        `local` are the bytes that blocks handle while no link is at work [B].
        """
        full, of_blocks = self.number(protocol, "share") * self.rate, self._passed(protocol)
        moving = way.load / np.minimum(full, of_blocks) + local / of_blocks
        if filled:
            moving = moving + np.minimum(local / 2, self.slice * self.blocks) / full
        return self._made(algorithm, protocol, way, moving)

    def one_shot(self, protocol: str, way: Way, reads: Array) -> _Offer:
        """Return what an exchange by all thread blocks takes, and reading what came [B]."""
        ratio = self.channels / self.blocks
        full = self.number(protocol, "share") * self.rate
        moving = way.load / np.minimum(full, ratio * self._passed(protocol))
        moving = moving + reads / (ratio * self._passed("direct_bulk"))
        return self._made("one_shot", protocol, way, moving)

    def _passed(self, protocol: str) -> Array:
        """Return what the thread blocks pass on, all together [B/s]."""
        found: Array = self.blocks * self.number(protocol, "channel") * self.clock
        return found

    def _made(self, algorithm: str, protocol: str, way: Way, moving: Array) -> _Offer:
        hop = self.designs["link.latency"] + self.number(protocol, "hop") / self.clock
        start = self.number(protocol, "start") * self.designs["floor.pointwise"]
        floor = np.broadcast_to(start + way.hops * hop, moving.shape)
        return _Offer(algorithm, protocol, floor, moving, self._guess(protocol, way))

    def _guess(self, protocol: str, way: Way) -> Array:
        """Return what the library thinks that it takes; direct ways are not estimated."""
        if protocol not in GUESSED:
            return np.full(way.load.shape, np.inf)
        start, hop, share = (self.number(protocol, name) for name in GUESSES)
        return start + way.hops * hop + way.load / (share * self.rate)


def _choice(offers: list[_Offer], operations: Operations, designs: Designs) -> _Offer:
    """Return, of each operation and design, the offer that is taken."""
    floors, times, guesses = (
        np.stack([np.broadcast_to(getattr(offer, part), shape) for offer in offers])
        for shape in [(len(operations), len(designs))]
        for part in ("floor", "time", "guess")
    )
    names = [offer.algorithm for offer in offers]
    asked = designs[_ALGORITHM] if _ALGORITHM in designs else np.zeros(len(designs))
    between = np.isfinite(times[names.index("direct")])
    best = np.zeros(times.shape[1:], dtype=int)
    for place, choice in enumerate(CHOICES["algorithm"]):
        if not (asked == place).any():
            continue
        wish = _wishes(choice, names, times, guesses)
        best = np.where(asked == place, np.argmin(wish, axis=0), best)
    direct = np.array([name == "direct" for name in names])[:, None, None]
    best = np.where(between, np.argmin(np.where(direct, times, np.inf), axis=0), best)
    floor, time = (np.take_along_axis(table, best[None], axis=0)[0] for table in (floors, times))
    return _Offer("", "", floor, time - floor, time)


def _wishes(choice: str, names: list[str], times: Array, guesses: Array) -> Array:
    """Return by what a choice compares offers, (offers, U, D)."""
    of = np.array(names)[:, None, None]
    if choice == "fastest":
        return times
    if choice == "library":
        return np.where(np.isin(of, ("ring", "in_switch")) & np.isfinite(times), guesses, np.inf)
    wish = np.where(of == choice, times, np.inf)
    without = ~np.isfinite(wish).any(axis=0)
    ring: Array = np.where(without & (of == "ring"), times, wish)
    return ring
