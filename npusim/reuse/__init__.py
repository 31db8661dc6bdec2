"""Reuse of data by a workload: what lies between two uses, found once, looked up for any cache.

`stream` finds which operations touch the same data, `windows` counts the bytes between two uses,
`experts` says how long ago a router chose the same ones, `profile` keeps the result.
"""

from npusim.reuse.experts import zipf
from npusim.reuse.profile import Experts, Reuse, alone, periodic
from npusim.reuse.stream import CLASSES, DATA, Stream, stream

__all__ = [
    "CLASSES", "DATA", "Experts", "Reuse", "Stream", "alone", "periodic", "stream", "zipf",
]  # fmt: skip
