"""Prefetch: weights of the next operations are loaded while DRAM would stand idle.

Weights are known before an operation starts, activations are not. Where a machine has a buffer for
it, DRAM loads weights of operations that are already issued, in their order, whenever the ones that
run do not need it, until the buffer is full. With a the time of loads that are there when an
operation starts:

    t    = max(t with all its weights there, t without any - a)
    idle = t - (DRAM time - a)          which fills the buffer for the next ones

So the time of a step goes from the sum of each operation's maximum towards the maximum of the sums:
it is never below the DRAM time of all of them, nor below their time with all weights there.

Source: double buffering as in any streaming accelerator; the bound is that of two resources used in
turn (P. Denning, J. Buzen, doi:10.1145/356733.356735).

Left out: prefetch of KV cache and activations, the ports of the buffer, weights that an expert
router chooses late.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.hierarchy import Traffic
from npusim.models.roofline import bandwidth

Array = NDArray[np.float64]

PARAMETERS = ("prefetch.depth",)


def part_left(traffic: Traffic, dram: Array, designs: Designs) -> Array:
    """Return the share of DRAM bytes that are not weights and so cannot come early, (U, D)."""
    if "prefetch.depth" not in designs:
        return np.broadcast_to(np.ones(1), dram.shape)
    weights = traffic.bytes("dram", "read_weight")
    return 1.0 - np.divide(weights, dram, out=np.zeros_like(dram), where=dram > 0)


def depth(designs: Designs) -> Array | None:
    """Return how much DRAM time the buffer holds, (D,) or (1,) [s]; None without a buffer."""
    if "prefetch.depth" not in designs or not designs["prefetch.depth"].any():
        return None
    return designs["prefetch.depth"] / bandwidth(designs)


class Buffer:
    """What has been loaded ahead on D designs, as the DRAM time that it took [s].

    Parameters
    ----------
    depth : array, shape (D,) or (1,)
        The most that it holds [s].

    Examples
    --------
    Two operations of 4 s, each of 2 s of loads that 4 s of work hide, and 2 s of other work: while
    the first is at work, the loads of the second come in.

    >>> buffer, one = Buffer(np.array([9.0])), np.ones(1)
    >>> first = buffer.run(4 * one, 2 * one, 2 * one, 2 * one, issued=2 * one)
    >>> second = buffer.run(4 * one, 2 * one, 2 * one, 2 * one, issued=0 * one)
    >>> first.item(), second.item()
    (4.0, 2.0)
    """

    def __init__(self, depth: Array) -> None:
        self._depth = depth
        self._there: Array = np.zeros_like(depth)

    def run(self, time: Array, channel: Array, ahead: Array, gain: Array, issued: Array) -> Array:
        """Return how long an operation takes now, and load for those issued behind it, (D,) [s].

        Parameters
        ----------
        time, channel, ahead, gain : array, shape (D,)
            As in `npusim.models.cost.Cost`.
        issued : array, shape (D,)
            DRAM time of the weights of the operations issued behind it.
        """
        used = np.minimum(self._there, ahead)
        now: Array = time - np.minimum(used, gain)
        self._there = self._there - used
        self.idle(now - (channel - used), issued)
        return now

    def idle(self, time: Array, issued: Array) -> None:
        """Load while DRAM has nothing else to do."""
        self._there = np.minimum(self._there + np.maximum(time, 0.0),
                                 np.minimum(self._depth, issued))  # fmt: skip
