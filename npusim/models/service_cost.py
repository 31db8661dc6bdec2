"""Cost of service: what a second of a machine and a joule cost, in money and carbon.

    money  = cost of the machine x seconds / (lifetime x utilisation) + joules x electricity
    carbon = embodied carbon     x seconds / (lifetime x utilisation) + joules x carbon of the grid

A machine is written off evenly over the time in which it is at work.

Source: amortised capital and operating cost, L. Barroso, U. Hölzle, P. Ranganathan, "The Datacenter
as a Computer", 2018, doi:10.2200/S00874ED3V01Y201809CAC046.

Left out: interest, boards, hosts, networks, buildings, people.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.models.carbon import embodied, operational
from npusim.models.die_cost import machine_cost

Array = NDArray[np.float64]

PARAMETERS = ("cost.lifetime", "cost.utilisation", "cost.electricity")


def money(seconds: Array, joules: Array, designs: Designs, machine: Array | None = None) -> Array:
    """Return what some time and energy of each design cost, (D,) [USD].

    Parameters
    ----------
    seconds, joules : array, shape (D,)
    designs : Designs
        D designs.
    machine : array, shape (D,), optional
        Cost of each machine, if it is known already [USD].

    Examples
    --------
    A kilowatt-hour alone, at 0.1 USD:

    >>> import npusim as ns
    >>> h200 = Designs(ns.load_arch("h200"))
    >>> round(float(money(np.zeros(1), np.array([3.6e6]), h200)[0]), 6)
    0.1
    """
    whole = machine_cost(designs) if machine is None else machine
    cost: Array = whole * _used(seconds, designs)
    return cost + joules * designs["cost.electricity"]


def carbon(seconds: Array, joules: Array, designs: Designs) -> Array:
    """Return the carbon of some time and energy of each design, (D,) [kg]."""
    made: Array = embodied(designs) * _used(seconds, designs)
    return made + operational(joules, designs)


def _used(seconds: Array, designs: Designs) -> Array:
    """Return which part of a machine's working life some seconds are, (D,)."""
    part: Array = seconds / (designs["cost.lifetime"] * designs["cost.utilisation"])
    return part
