"""Work that a machine does a joule over what another one does.

    ratio = energy of the work on the other machine / energy of it on this one

The work is that of design studies (`npusim.studies.work`): a decode step, a prompt, a vision step
or a whole page of a model. Steps that a batch shares count for each of its sequences.

The band is that of energies and of their walls, as if the two machines shared no constant: an upper
bound of the doubt.

Left out: what `npusim.energy` leaves out; hosts; the time in which a board has nothing to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from pydantic import Field

from npusim.arch import Arch
from npusim.clock_modes import modes
from npusim.load import load_arch
from npusim.studies.assumed import with_settings
from npusim.studies.value import Doubt, Value
from npusim.studies.work import change, counts, workloads
from npusim.sweep_block import Strict
from npusim.sweeps.evaluate import with_changes

UNIT = "1"
FIGURE = "work a joule over the other machine's"

_COLUMNS = ("energy_j", "energy_low_j", "energy_high_j", "wall_s")
_Launch = Literal["eager", "graph", "queue"]
_Joules = tuple[float, float, float, float]


class Options(Strict):
    """Two machines and the work.

    Attributes
    ----------
    arch, against : str
    model : str
    work : {"decode", "page", "vision", "prefill"}
    batch : int
    launch, against_launch : {"eager", "graph", "queue"}
    set : dict of str to float
        Parameters of the first machine that differ [SI].
    """

    arch: str
    against: str = "h100"
    model: Literal["deepseek_ocr", "paddleocr_vl"] = "deepseek_ocr"
    work: Literal["decode", "page", "vision", "prefill"] = "page"
    batch: int = 1
    launch: _Launch = "queue"
    against_launch: _Launch = "graph"
    set: dict[str, float] = Field(default_factory=dict)


def doubts(options: Options) -> dict[str, Doubt]:
    """Return nothing: the band holds the constants of energy."""
    return {}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A machine that says too little of its energy.

    Examples
    --------
    >>> asked = Options(arch="h100", against="h100", work="decode", launch="graph")
    >>> measure(asked, {}).value
    1.0
    """
    one = with_settings(load_arch(options.arch), {**options.set, **settings})
    own = _joules(one, options, options.launch)
    other = _of_shipped(options.against, options.model, options.work, options.batch,
                        options.against_launch)  # fmt: skip
    ratio = other[0] / own[0]
    shown = [f"{j[0]:.3g} J in {1e3 * j[3]:.3g} ms ({j[0] / j[3]:.0f} W)" for j in (own, other)]
    reason = (
        f"{options.work} of {options.model}, batch {options.batch}: {shown[0]} on {options.arch} "
        f"({options.launch}), {shown[1]} on {options.against} ({options.against_launch})"
    )
    return Value(ratio, other[1] / own[2], other[2] / own[1], reason,
                 (options.arch, options.against, options.model))  # fmt: skip


@lru_cache(maxsize=64)
def _of_shipped(arch: str, model: str, work: str, batch: int, launch: str) -> _Joules:
    o = Options.model_validate({"arch": arch, "against": arch, "model": model, "work": work,
                                "batch": batch})  # fmt: skip
    return _joules(load_arch(arch), o, launch)


def _joules(arch: Arch, options: Options, launch: str) -> _Joules:
    """Return energy of the work, the ends of its band, and its wall [J], [J], [J], [s]."""
    each = workloads(options.model, options.work, options.batch)
    changes = change(options.work, options.batch)
    parts = with_changes(each, changes) if changes else list(each)
    total = [0.0, 0.0, 0.0, 0.0]
    for w, count in zip(parts, counts(options.model, options.work, options.batch), strict=True):
        (row,) = modes(w, arch, launch, [1.0]).to_dict("records")
        for i, name in enumerate(_COLUMNS):
            total[i] += count * float(row[name])
    return total[0], total[1], total[2], total[3]
