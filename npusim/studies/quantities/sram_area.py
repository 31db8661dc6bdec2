"""Silicon of an on-chip memory that holds so many bytes, over what may be exposed in one piece.

    share = bytes x area of a byte of the node [x area.sram_compute] / reticle

Bytes are given, or those of a model's weights or of the cache of a sequence. In-place compute takes
``area.sram_compute`` times the area of a byte (`npusim.models.sram_compute`).

The reticle is the largest field of a scanner, 858 mm2 (`npusim.silicon.RETICLE`). Left out: room
for anything else on the die, several dies, stacking.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from npusim import units
from npusim.arch import Arch, Designs
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.models.technology import of_node
from npusim.silicon import RETICLE
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.technology import NODES
from npusim.templates import load_model
from npusim.templates.kernels import ITEM
from npusim.templates.parameter_count import cache_elements, model_parameters

UNIT = "1"
FIGURE = "share of a reticle"

_COMPUTE = "area.sram_compute"


class Options(Strict):
    """What is held, and in which node.

    Attributes
    ----------
    arch : str
        Machine whose node it is.
    bytes : str
        Capacity, as text with a unit; or empty where `model` is given.
    model : str
        Model of which the weights are held, or, with `tokens`, the cache of a sequence.
    tokens : int
    bits : int
        Bits of a weight or of a number of the cache; 0: those of the model.
    compute : bool
        Whether bytes multiply in place.
    against : {"reticle", "die"}
        What it is a share of: the reticle, or the published die of the machine.
    """

    arch: str
    bytes: str = ""
    model: str = ""
    tokens: int = 0
    bits: int = 0
    compute: bool = False
    against: Literal["reticle", "die"] = "reticle"


def doubts(options: Options) -> dict[str, Doubt]:
    """Return the area of a byte, and how many times that one that multiplies."""
    arch = load_arch(options.arch)
    return assumed(arch, [_byte(arch), *([_COMPUTE] if options.compute else [])], every=True)


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the share.

    Raises
    ------
    InputError
        Both or none of ``bytes`` and ``model``, or a machine without a node.

    Examples
    --------
    The weights of DeepSeek-OCR, 6.7 GB, do not fit on a die:

    >>> measure(Options(arch="h100", model="deepseek_ocr"), {}).low > 1
    True
    """
    held, what = _held(options)
    arch = load_arch(options.arch)
    known = doubts(options)
    area = _area(with_settings(arch, settings), held, options.compute)
    ends = [held_area for end in ("low", "high") for held_area in [
        _area(with_settings(arch, {p: getattr(d, end) for p, d in known.items()}), held,
              options.compute)]]  # fmt: skip
    limit = RETICLE
    if options.against == "die":
        if "area.die" not in arch.values:
            raise InputError("has no published die", file=options.arch, place="area.die")
        limit = arch["area.die"]
    node = NODES[int(arch["technology.node"])]
    reason = (
        f"{what} are {held / 1e6:,.0f} MB: {area * 1e6:,.0f} mm2 in {node}"
        f"{', multiplying in place' if options.compute else ''}, where the "
        f"{options.against} is {limit * 1e6:.0f} mm2"
    )
    return Value(area / limit, min(area, *ends) / limit, max(area, *ends) / limit, reason,
                 (*([options.model] if options.model else ()), options.arch,
                  "archs/technology/nodes.yaml"))  # fmt: skip


def _held(options: Options) -> tuple[float, str]:
    if bool(options.bytes) == bool(options.model):
        raise InputError("needs one of bytes and model", place="sram_area")
    if options.bytes:
        return units.parse(options.bytes, "B"), "what is held"
    model = load_model(options.model)
    item = options.bits / 8 if options.bits else ITEM[model.dtype]
    if options.tokens:
        token = cache_elements(model.decoder, absorbed=True) * model.decoder.layers
        return options.tokens * token * item, f"the caches of {options.tokens:,} tokens"
    return model_parameters(model) * item, f"the weights of {options.model}"


def _byte(arch: Arch) -> str:
    if "technology.node" not in arch.values:
        raise InputError("says no process node", file=arch.name, place="technology.node")
    return f"node.{NODES[int(arch['technology.node'])]}.sram"


def _area(arch: Arch, held: float, compute: bool) -> float:
    times = arch[_COMPUTE] if compute else 1.0
    return held * float(of_node("sram", Designs(arch))[0]) * times
