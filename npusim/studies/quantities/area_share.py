"""Share of the die that some blocks of a machine take, or their area over another machine's.

Areas are those of `npusim.models.area`: counts and capacities of the machine times what each takes
in its process node. The band is that of the constants behind them, in quadrature; where two
machines are compared, constants that both have move on both at once.

Left out: what blocks share (wires, rows of decoders); control, schedulers and the register file are
blocks of their own, whichever lanes they serve.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from npusim.arch import Arch, Designs
from npusim.constants import quadrature
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.models.area import BLOCKS, block_areas
from npusim.models.area import missing as without_area
from npusim.silicon import constants
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

Array = NDArray[np.float64]

UNIT = "1"
FIGURE = "share of the die"

_DIE = "die"


class Options(Strict):
    """Which blocks of which machine.

    Attributes
    ----------
    arch : str
    block : str
        A block (`npusim.models.area.BLOCKS`), or ``die``, or empty where `blocks` says several.
    blocks : list of str
    of : str
        Block whose area is divided by: ``die``, or another one.
    against : str
        A machine whose area of the same blocks is divided by, in place of `of`; or empty.
    set : dict of str to float
        Parameters of the machine that differ [SI].
    """

    arch: str
    block: str = ""
    blocks: list[str] = Field(default_factory=list)
    of: str = _DIE
    against: str = ""
    set: dict[str, float] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return the constants of areas that the machine is made of."""
    arch = _machine(options, {})
    paths = [p for p in constants(arch) if p.startswith("area.") or p.endswith((".logic", ".sram"))]
    return assumed(arch, paths, every=True)


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the share, or the ratio to another machine.

    Raises
    ------
    InputError
        An unknown block, or a machine that does not say its node.

    Examples
    --------
    >>> found = measure(Options(arch="h100", block="matrix"), {})
    >>> 0.05 < found.low < found.value < found.high < 0.3
    True
    """
    names = _names([*options.blocks, *([options.block] if options.block else [])])
    arch = _machine(options, settings)
    other = with_settings(load_arch(options.against), _shared(settings, options.against)) if (
        options.against) else arch  # fmt: skip
    below = names if options.against else _names([options.of])
    shared = set(constants(arch)) & set(constants(other))

    def ratio(of: Designs) -> Array:
        # constants of technology move on both machines at once
        moved = {p: of.base[p] for p in shared}
        divisor = replace(other, values={**other.values, **moved}) if options.against else of.base
        return _sum(of, names) / _sum(Designs(divisor), below)

    designs = Designs(arch)
    value = float(ratio(designs)[0])
    low, high = (float(np.ravel(end)[0]) for end in quadrature(ratio, designs, constants(arch)))
    areas = block_areas(designs)
    total = float(_sum(designs, BLOCKS)[0])
    most = sorted(BLOCKS, key=lambda b: -float(areas[b][0]))[:4]
    parts = ", ".join(f"{b} {float(areas[b][0]) / total:.0%}" for b in most)
    own, under = (float(_sum(Designs(a), b)[0]) for a, b in ((arch, names), (other, below)))
    what = f"of {options.against}" if options.against else f"of {options.of}"
    reason = (
        f"{' + '.join(names) if len(names) < len(BLOCKS) else _DIE} of {options.arch} takes "
        f"{own * 1e6:.3g} mm2, {under * 1e6:.3g} mm2 {what}; most of the {total * 1e6:.0f} mm2 are "
        f"{parts}"
    )
    data = (options.arch, *([options.against] if options.against else ()), "archs/technology")
    return Value(value, max(min(low, value), 0.0), max(high, value), reason, data)


def _machine(options: Options, settings: Mapping[str, float]) -> Arch:
    arch = with_settings(load_arch(options.arch), {**options.set, **settings})
    lacks = without_area(Designs(arch))
    if lacks:
        raise InputError("says too little for its area", file=options.arch, value=", ".join(lacks))
    return arch


def _shared(settings: Mapping[str, float], name: str) -> dict[str, float]:
    """Return the settings that are constants of technology of another machine, too."""
    arch = load_arch(name)
    own = set(constants(arch))
    return {path: value for path, value in settings.items() if path in own}


def _names(asked: Sequence[str]) -> tuple[str, ...]:
    for name in asked:
        if name != _DIE and name not in BLOCKS:
            raise InputError("no block of a die", place="block", value=name,
                             allowed=f"{_DIE}, {', '.join(BLOCKS)}")  # fmt: skip
    if not asked:
        raise InputError("no block", place="block", allowed=f"{_DIE}, {', '.join(BLOCKS)}")
    return BLOCKS if _DIE in asked else tuple(dict.fromkeys(asked))


def _sum(designs: Designs, names: Sequence[str]) -> Array:
    areas = block_areas(designs)
    total: Array = np.sum([areas[name] for name in names], axis=0)
    return total
