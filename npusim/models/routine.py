"""Device time of a library's routines: pointwise, copies, gathers, reductions, scans, sorts.

    time    = floor + depth x chain / clock + hypot(memory, issue)
    issue   = ceil(blocks / units) x (block + work of a block x element) / clock
    depth   = ceil(work / threads launched)

- floor [s]: what the smallest kernel of the routine takes;
- chain [cycle]: from one element of a thread to its next, where the second waits for the first
  (an address that a load gives, a store that the compiler cannot move a load across);
- block [cycle]: what a compute unit spends on starting, synchronising and ending a block;
- element [cycle]: what it spends on issuing the instructions of one element (or byte, or multiply
  and add: `WORK`), with as many threads as it holds.

Memory and issue overlap in part: half-way between adding up and hiding one behind the other, the
square root of the sum of their squares. Blocks go to units evenly; a unit that has one more
decides. A grid that the trace does not tell is taken to have 512 elements a block.

The four numbers of a routine are data of the library (`library.ROUTINE.*`), the same on every
machine: instructions and dependences come with the code. Those a routine does not have are zero.

Source: N.-M. Ho, W.-F. Wong, "Exploiting half precision arithmetic in Nvidia GPUs", HPEC 2017, for
the issue bound of ATen-like kernels; D. Lowell et al. on latency-bound kernels; fitted numbers:
workloads/experiments/h200_routines.md.

Left out: registers and shared memory (occupancy), clocks under a power limit, contended atomics,
which elements a mask chooses.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.workload import Operations

Array = NDArray[np.float64]

NUMBERS = ("floor", "element", "block", "chain")
