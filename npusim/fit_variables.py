"""What a fit may move: which machines share a value of a parameter, where it begins, its bounds.

A library has kernels of one family for GPUs of one kind of units (its loads are copied by threads,
or by an engine beside them). What such a kernel takes to start belongs to the family, not to the
GPU: machines of one family can share it while another has its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from npusim.arch import Arch
from npusim.errors import InputError
from npusim.fit import Pair, Variable
from npusim.parameters import PARAMETERS

Bounds = Mapping[str, tuple[float, float]]
Kin = dict[str, list[list[str]]]  # of each parameter: the names of machines that share a value


def sharing(
    machines: Mapping[str, Arch], free: Sequence[str], shared: bool, own: Collection[str],
    families: Mapping[str, str], by_family: Collection[str],
) -> Kin:  # fmt: skip
    """Return for each parameter the machines that share its value, as lists of names.

    Raises
    ------
    InputError
        A parameter of families that is not fitted or that each machine has for itself, or a machine
        of no family.
    """
    odd = next((path for path in by_family if path not in free or path in own), None)
    if odd is not None:
        raise InputError("families share its value, so it is fitted, and not for each machine",
                         place=odd, allowed="one of `free` that is not in `own`")  # fmt: skip
    found: Kin = {}
    for path in free:
        if path in by_family:
            alone = next((name for name in machines if name not in families), None)
            if alone is not None:
                raise InputError("of no family, though families share a value", place=path,
                                 value=alone, allowed="a family for each machine")  # fmt: skip
            named = dict.fromkeys(families[name] for name in machines)
            found[path] = [[n for n in machines if families[n] == family] for family in named]
        elif shared and path not in own:
            found[path] = [list(machines)]
        else:
            found[path] = [[name] for name in machines]
    return found


def variables(
    pairs: Sequence[Pair], machines: Mapping[str, Arch], kin: Kin, bounds: Bounds
) -> list[Variable]:
    """Return what to fit: one variable a parameter and machines that share its value."""
    found = []
    for path, groups in kin.items():
        for names in groups:
            its = tuple(i for i, (_, arch) in enumerate(pairs) if arch.name in names)
            found.append(_variable(path, its, [machines[n] for n in names], bounds.get(path)))
    return found


def _variable(
    path: str, pairs: tuple[int, ...], archs: Sequence[Arch], bounds: tuple[float, float] | None
) -> Variable:
    """Return a variable that begins at the machines' value (of several the median)."""
    before = [arch[path] for arch in archs]
    ends = [bounds or _bounds(arch, path) for arch in archs]
    low, high = max(e[0] for e in ends), min(e[1] for e in ends)
    if low >= high:
        raise InputError("has no bounds that hold for every machine", place=path,
                         value=", ".join(arch.name for arch in archs),
                         hint="give each machine its own value")  # fmt: skip
    return Variable(path, pairs, low, min(max(float(np.median(before)), low), high), high)


def _bounds(arch: Arch, path: str) -> tuple[float, float]:
    """Return the range that a machine gives a parameter, or the declared bounds.

    The range of a fitted value says how sure that fit was; another may well end elsewhere.
    """
    p = PARAMETERS[path]
    given = arch.provenance[path]
    if given.low < given.high and given.kind != "calibrated":
        return given.low, given.high
    return p.low, p.high
