"""Numbers of a machine that its file only assumes, as doubts about what is told of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from npusim.arch import Arch, with_value
from npusim.parameters import PARAMETERS
from npusim.studies.value import Doubt


def assumed(arch: Arch, paths: Iterable[str], every: bool = False) -> dict[str, Doubt]:
    """Return a doubt for each parameter that a machine assumes and gives a range for.

    Parameters
    ----------
    arch : Arch
    paths : iterable of str
        Parameters that matter; those that the machine lacks, or that were measured or published,
        are left out.
    every : bool
        Whether a published or calibrated number with a range is doubted, too.

    Examples
    --------
    >>> import npusim as ns
    >>> found = assumed(ns.load_arch("metax_c500"), ["floor.matmul", "power.limit"])
    >>> list(found), found["floor.matmul"].low < found["floor.matmul"].high
    (['floor.matmul'], True)
    """
    found = {}
    for path in paths:
        mark = arch.provenance.get(path)
        if mark is None or mark.low >= mark.high or not (every or mark.kind == "assumed"):
            continue
        p = PARAMETERS[path]
        found[path] = Doubt(arch[path], mark.low, mark.high, p.unit, mark.source, (p.low, p.high))
    return found


def with_settings(arch: Arch, settings: Mapping[str, float]) -> Arch:
    """Return a machine with some parameters changed.

    Raises
    ------
    InputError
        Unknown path, or out of bounds.

    Examples
    --------
    >>> import npusim as ns
    >>> with_settings(ns.load_arch("h200"), {"units.count": 100.0})["units.count"]
    100.0
    """
    for path, value in settings.items():
        arch = with_value(arch, path, value)
    return arch
