"""Voltage and clock: the voltage goes with the clock, and energy with the square of the voltage.

    V(f) = max(1 - slope (1 - f / f0), least)      as a share of the voltage at f0

f is ``units.clock`` and f0 ``voltage.clock``, at which the machine's energies are quoted: the
energy of an operation and of a clock cycle is V^2 of what is quoted, leakage as well (its current
falls about as the voltage does). A machine without ``voltage.clock`` has one voltage.

The matrix unit runs at no higher clock than the units (`npusim.models.roofline`); caches and
memories keep theirs.

Source: dynamic power of CMOS, A. Chandrakasan et al., IEEE JSSC 27(4), 1992, doi:10.1109/4.126534;
a straight line between clock and voltage in the range that is used. The slope of the H200 is
calibrated: what a product takes at 1,980 MHz (with rests, below the power limit) and at 1,380 to
1,515 MHz (at the limit), docs/energy.md.

Left out: temperature (a corner that does not change), voltages of a cache or memory of its own,
steps of a real curve, time and energy that a change of voltage takes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs

Array = NDArray[np.float64]

PARAMETERS = ("voltage.clock", "voltage.slope", "voltage.least", "units.clock")


def voltage(designs: Designs) -> Array:
    """Return the voltage as a share of that at which energies are quoted, (D,) or (1,).

    Examples
    --------
    >>> import npusim as ns
    >>> from dataclasses import replace
    >>> h200 = ns.load_arch("h200")
    >>> given = {**h200.values, "voltage.clock": 2e9, "voltage.slope": 0.4, "voltage.least": 0.75}
    >>> d = Designs(replace(h200, values=given), {"units.clock": np.array([2e9, 1e9, 0.5e9])})
    >>> voltage(d).tolist()
    [1.0, 0.8, 0.75]
    """
    if "voltage.clock" not in designs:
        return np.ones(1)
    below = 1.0 - designs["units.clock"] / designs["voltage.clock"]
    least = designs["voltage.least"] if "voltage.least" in designs else np.zeros(1)
    slope = designs["voltage.slope"] if "voltage.slope" in designs else np.zeros(1)
    result: Array = np.maximum(1.0 - slope * below, least)
    return result


def clocked(designs: Designs, share: Array) -> Designs:
    """Return designs whose units run at a share of their clock; nothing else changes.

    Parameters
    ----------
    designs : Designs
        D designs.
    share : array, shape (D,)
        Above 0.

    Examples
    --------
    >>> import npusim as ns
    >>> slower = clocked(Designs(ns.load_arch("h200")), np.array([0.75]))
    >>> (slower["units.clock"] / 1e9).tolist()
    [1.485]
    """
    return designs.changed({"units.clock": designs["units.clock"] * share})
