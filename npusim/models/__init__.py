"""Cost models: pure functions of (operations (U,), designs (D,)) to arrays (U, D).

One physical effect a file. Each file lists in ``PARAMETERS`` the dotted paths that it reads;
a parameter that no file lists has no effect, and a sweep over it is refused by name.
"""

from __future__ import annotations

import pkgutil
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from types import MappingProxyType, ModuleType


def models() -> Iterator[ModuleType]:
    """Yield every cost model in this folder."""
    for found in pkgutil.iter_modules(__path__):
        yield import_module(f"{__name__}.{found.name}")


@cache
def modelled() -> Mapping[str, tuple[str, ...]]:
    """Return the parameters that cost models read, each with the names of those models.

    Examples
    --------
    >>> modelled()["memories.dram.bandwidth"]
    ('area', 'memory', 'roofline')
    >>> "area.die" in modelled()
    False
    """
    readers: dict[str, tuple[str, ...]] = {}
    for model in models():
        name = model.__name__.rsplit(".", 1)[-1]
        for path in model.PARAMETERS:
            readers[path] = (*readers.get(path, ()), name)
    return MappingProxyType(readers)
