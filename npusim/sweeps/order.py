"""In which order the axes of a grid are counted: what is dear to change is changed least often.

A block of designs that follow each other shares what its slowest axes decide, so the numbers of
designs run through axes that only few and cheap terms read (launches, energies, areas) first, and
through those of matrix products last.
"""

from __future__ import annotations

from collections.abc import Iterable

from npusim.models import gemm, gemv_unit, systolic
from npusim.models.kernel import reads

_PRODUCTS = frozenset({*gemm.READS, *gemv_unit.READS, *systolic.READS})


def slowest_first(paths: Iterable[str]) -> list[str]:
    """Return axes in the order in which a grid counts them, the slowest first.

    Axes of the workload are slowest: each of their values is another workload. Then come what
    decides the program (fusion), what products read, what other kernels read, and all else; within
    these the given order stays.

    Examples
    --------
    >>> slowest_first(["host.sync", "vector.efficiency", "gemm.fill", "workload.batch"])
    ['workload.batch', 'vector.efficiency', 'gemm.fill', 'host.sync']
    """
    return sorted(paths, key=_rank)


def _rank(path: str) -> int:
    if path.startswith("workload."):
        return 0
    if path.startswith("fusion."):
        return 1
    if path in _PRODUCTS:
        return 2
    return 3 if path in reads() else 4
