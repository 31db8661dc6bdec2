"""What one kernel does: FLOP and bytes, and the rules that give them.

Conventions: a multiply and an add are two FLOP; bytes are those of each tensor once, whatever the
kernel re-reads. A rule that cannot know returns None, and the operation counts as unclassified.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from npusim.importers.tensors import Call


@dataclass(frozen=True)
class Launch:
    """What the profiler says of a kernel launch itself (0 where it says nothing)."""

    kernel: str
    grid: tuple[int, int, int] = (0, 0, 0)
    threads: int = 0
    nbytes: float = 0.0

    @property
    def blocks(self) -> int:
        """Thread blocks launched."""
        return math.prod(self.grid)


@dataclass(frozen=True)
class Work:
    """What one kernel does; the names are those of the columns of a workload."""

    kind: str
    dtype: str = "unknown"
    basis: str = "shape"
    batch: int = 0
    m: int = 0
    n: int = 0
    k: int = 0
    heads: int = 0
    kv_heads: int = 0
    groups: int = 0
    flop: float = 0.0
    read_weight: float = 0.0
    read_kv: float = 0.0
    read_activation: float = 0.0
    write_kv: float = 0.0
    write_activation: float = 0.0
    routine: str = ""


Rule = Callable[[Call, Launch], Work | None]
