"""Numbers of the technology of each design: of its node, its memory, its links.

A machine names its node, memory and links (``technology.*``); their numbers stand under
``node.NODE``, ``dram_type.MEMORY`` and ``link_type.LINK``. They are looked up design by design, so
that the node can be an axis of a sweep.

Left out: chips of several dies in several nodes, memories of several kinds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.technology import DRAM_TYPES, LINK_TYPES, NODES

Array = NDArray[np.float64]

PARAMETERS = ("technology.node", "technology.memory", "technology.link", "technology.host")

_GROUPS = {
    "technology.node": ("node", NODES), "technology.memory": ("dram_type", DRAM_TYPES),
    "technology.link": ("link_type", LINK_TYPES), "technology.host": ("link_type", LINK_TYPES),
}  # fmt: skip


def of_node(number: str, designs: Designs) -> Array:
    """Return a number of the node of each design, (D,) or (1,) [SI].

    Examples
    --------
    >>> import npusim as ns
    >>> from npusim.arch import Designs
    >>> nodes = Designs(ns.load_arch("h200"), {"technology.node": np.array([2.0, 5.0])})
    >>> (of_node("logic", nodes) / 1e12).tolist()  # n7 and n4, millions of transistors a mm2
    [96.3, 146.5]
    """
    return of_choice("technology.node", number, designs)


def of_choice(path: str, number: str, designs: Designs) -> Array:
    """Return a number of what each design chose by `path`, (D,) or (1,) [SI].

    Parameters
    ----------
    path : str
        One of `PARAMETERS`, which the designs have.
    number : str
        Last part of the path of the number.
    designs : Designs
        D designs.
    """
    group, names = _GROUPS[path]
    chosen = designs[path]
    if len(chosen) == 1:  # all designs alike: no need to look
        return designs[f"{group}.{names[int(chosen.item())]}.{number}"]
    found: Array = np.zeros(1)
    for i in (i for i in range(len(names)) if np.any(chosen == i)):
        found = np.where(chosen == i, designs[f"{group}.{names[i]}.{number}"], found)
    return found
