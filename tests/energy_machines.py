"""Machines of round numbers that say what they take, for tests that know the answer."""

from __future__ import annotations

from dataclasses import replace

from npusim.arch import Arch
from npusim.technology import AREA, DRAM_TYPES, NODES
from tests.machines import machine

N4, HBM3E = float(NODES.index("n4")), float(DRAM_TYPES.index("hbm3e"))
MM2, PJ = 1e-6, 1e-12


def small(**more: float) -> Arch:
    """Return four units at 1 GHz: 50 W at rest, 20 W of clocks; its area is not known."""
    given = {"technology__node": N4, "technology__memory": HBM3E, "energy__node": N4,
             "node__n4__energy": 1, "node__n4__leakage": 1, "power__idle": 50, "power__clocks": 20,
             "energy__matrix__bf16": 1 * PJ, "energy__padding": 0.25, "energy__vector": 10 * PJ,
             "energy__special": 30 * PJ, "energy__cycle": 40 * PJ, "energy__launch": 3e-6,
             "energy__cache": 50 * PJ, "energy__cache_quoted": 1e6,
             "energy__dram__hbm3e": 60 * PJ}  # fmt: skip
    return machine(**{**given, **more})


def with_die(**more: float) -> Arch:
    """Return the same with a die of 10 mm2, 4 of them matrix units.

    It leaks 5 W, its clocks take 10 W, the board beside it 7 W.
    """
    area = {f"area__{name}": 0.0 for name in AREA}
    area |= {"area__mac": 4 * MM2 * 1e14 / (4 * 512), "area__rest": 1.5 * MM2 * 1e14}
    given = {"node__n4__logic": 1e14, "node__n4__sram": 0.0, "units__registers": 0,
             "memories__l1__capacity": 0, "dram_type__hbm3e__phy": 0,
             "dram_type__hbm3e__control": 0, "dram_type__hbm3e__bandwidth": 1e18, "power__rest": 7,
             "leakage__density": 0.5 / MM2, "clocks__density": 1 / MM2}  # fmt: skip
    arch = small(**{**area, **given, **more})
    return replace(arch, values={p: v for p, v in arch.values.items()
                                 if p not in ("power.idle", "power.clocks")})  # fmt: skip
