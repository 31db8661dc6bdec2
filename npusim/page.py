"""A page on a machine: its steps replayed one by one, and what a reader of it waits for.

    page          sum over the steps of wall time x how many times it is done      [s]
    TTFT          the same, of images and prefill: the first token is there        [s]
    TPOT          mean wall time of the decode steps: from one token to the next   [s]
    tokens per s  tokens of the answer over the page's time

Source: definitions of MLPerf Inference (time to first token, time per output token).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch
from npusim.errors import InputError
from npusim.predict import (
    BASIS,
    BESIDE,
    EXTRAPOLATES,
    Band,
    Result,
    beyond,
    on_units,
    replay,
)
from npusim.tokens import page_parts, repeated
from npusim.workload import Workload

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Part:
    """One kind of step of a page: how many there are and what they take in all [s]."""

    name: str
    steps: int
    wall_s: float
    device_busy_s: float
    host_busy_s: float
    launches: float


@dataclass(frozen=True)
class PageTimes:
    """What a page takes.

    Attributes
    ----------
    parts : tuple of Part
        Vision, prefill and decode.
    page_s, ttft_s, tpot_s : float
        Time of the page, to its first token, and from one token to the next [s].
    tokens_per_s : float
        Tokens of the answers over the time of the page.
    device_busy_share : float
        Share of the page's time in which kernels run.
    band_s : tuple of float, optional
        Ends of the page's time, from how far kernel times were off where they were measured [s].
    step : Result
        The mean over all steps that are done.
    """

    parts: tuple[Part, ...]
    page_s: float
    ttft_s: float
    tpot_s: float
    tokens_per_s: float
    device_busy_share: float
    band_s: tuple[float, float] | None
    step: Result

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, for JSON; the mean step has a place of its own."""
        return {name: value for name, value in asdict(self).items() if name != "step"}


def page_times(
    workload: Workload, arch: Arch, launch: str = "eager", mode: str = "model"
) -> PageTimes:
    """Replay a page.

    Parameters
    ----------
    workload : Workload
        A page (`npusim.templates.template`).
    arch : Arch
    launch : {"eager", "graph", "queue"}
    mode : {"model", "transfer"}

    Raises
    ------
    InputError
        A workload that is no page.

    Examples
    --------
    >>> import npusim as ns
    >>> page = ns.template("paddleocr_vl", "page", lowering="npu")
    >>> found = page_times(page, ns.load_arch("decode_npu"), "queue")
    >>> abs(found.page_s - found.ttft_s - 164 * found.tpot_s) < 1e-9
    True
    """
    parts = page_parts(workload)
    if parts is None:
        raise InputError("is not a page", file=workload.name,
                         hint="make one with `npusim template MODEL --phase page`")  # fmt: skip
    steps, times = zip(*repeated(workload), strict=True)
    results = [replay(step, arch, launch, mode) for step in steps]
    names = [str(part["name"]) for part in parts]
    wall = sum(r.wall_s * t for r, t in zip(results, times, strict=True))
    busy = sum(r.device_busy_s * t for r, t in zip(results, times, strict=True))
    found = tuple(_part(n, names, times, results) for n in dict.fromkeys(names))
    decode = next((p for p in found if p.name == "decode"), None)
    first = sum(p.wall_s for p in found if p.name != "decode")
    about = workload.meta["page"]
    return PageTimes(
        found, wall, first, decode.wall_s / decode.steps if decode else 0.0,
        about["new"] * workload.meta["batch"] / wall, busy / wall, _band(results, times),
        _mean(workload.name, results, times),
    )  # fmt: skip


def _part(name: str, names: Sequence[str], times: Sequence[int], results: Sequence[Result]) -> Part:
    """Return what all steps of a name take."""
    own = [(r, t) for n, r, t in zip(names, results, times, strict=True) if n == name]
    sums = {f: sum(getattr(r, f) * t for r, t in own)
            for f in ("wall_s", "device_busy_s", "host_busy_s", "launches")}  # fmt: skip
    return Part(name, sum(t for _, t in own), **sums)


_MEANS = ("wall_s", "device_busy_s", "host_busy_s", "host_wait_s", "device_idle_s", "launches")


def _mean(name: str, results: Sequence[Result], times: Sequence[int]) -> Result:
    """Return the mean over all steps that are done."""
    weight = np.array(times) / sum(times)
    means: dict[str, Any] = {f: float(weight @ [getattr(r, f) for r in results]) for f in _MEANS}
    busy = weight * [r.device_busy_s for r in results]
    band, first = None, results[0]
    if first.band is not None and all(r.band is not None for r in results):
        bands = [r.band for r in results if r.band is not None]
        band = replace(
            first.band,
            wall_s=_weighted(weight, [b.wall_s for b in bands]),
            device_busy_s=_weighted(weight, [b.device_busy_s for b in bands]),
            extrapolates=tuple(dict.fromkeys(x for b in bands for x in b.extrapolates)),
        )
    products = _sums(busy / busy.sum(), [r.products for r in results])
    walls = weight * [r.wall_s for r in results]
    return replace(
        first, workload=name, **means, band=band, tokens=None, s_per_token=None,
        idle_share=means["device_idle_s"] / means["wall_s"],
        limits=_sums(busy / busy.sum(), [r.limits for r in results]), products=products,
        utilisation=_sums(walls / walls.sum(), [r.utilisation for r in results]),
        traffic={level: _sums(weight, [r.traffic.get(level, {}) for r in results])
                 for level in first.traffic},
        **_energy(weight, results, means["wall_s"]),
        notes=_notes(results, products, band),
    )  # fmt: skip


def _energy(weight: Array, results: Sequence[Result], wall: float) -> dict[str, Any]:
    """Return the mean energy, and the clock over the whole time; nothing where a step has none."""
    clock = sum(w * r.wall_s * r.clock_share for w, r in zip(weight, results, strict=True)) / wall
    found: dict[str, Any] = {"clock_share": float(clock)}
    for name in ("energy_j", "movement_j"):
        values = [getattr(r, name) for r in results]
        found[name] = None if None in values else float(weight @ np.array(values))
    bands = [r.energy_band_j for r in results if r.energy_band_j is not None]
    found["energy_band_j"] = _weighted(weight, bands) if len(bands) == len(results) else None
    found["power_w"] = None if found["energy_j"] is None else found["energy_j"] / wall
    blocks = dict.fromkeys(b for r in results for b in r.energy_by_block)
    found["energy_by_block"] = {
        block: _sums(weight, [r.energy_by_block.get(block, {}) for r in results])
        for block in blocks
    }
    return found


def _notes(
    results: Sequence[Result], products: Mapping[str, float], band: Band | None
) -> tuple[str, ...]:
    """Return what is said of any step, each once, and of the band what goes for all together."""
    said = dict.fromkeys(note for r in results for note in r.notes)
    alone = (note for note in said if not note.startswith((BASIS, EXTRAPOLATES, *BESIDE.values())))
    return (*alone, *on_units(products), *beyond(band))


def _weighted(weight: Array, pairs: Sequence[tuple[float, float]]) -> tuple[float, float]:
    low, high = (float(x) for x in weight @ np.array(pairs))
    return low, high


def _sums(weight: Array, parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return weighted sums by name."""
    total: dict[str, float] = {}
    for w, part in zip(weight.tolist(), parts, strict=True):
        for name, value in part.items():
            total[name] = total.get(name, 0.0) + w * value
    return total


def _band(results: Sequence[Result], times: Sequence[int]) -> tuple[float, float] | None:
    """Return the ends of the page's time: kernels of all steps fast, or all slow."""
    bands = [r.band for r in results]
    if any(b is None for b in bands):
        return None
    ends = [
        sum(b.wall_s[end] * t for b, t in zip(bands, times, strict=True) if b) for end in (0, 1)
    ]
    return ends[0], ends[1]
