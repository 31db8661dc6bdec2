"""What a reader should know before using a prediction."""

from __future__ import annotations

from collections.abc import Iterator

from npusim.arch import Arch, Designs
from npusim.models import modelled
from npusim.models.energy import missing
from npusim.models.link import NEEDED as LINK
from npusim.models.roofline import MATRIX_KINDS, unit_of
from npusim.technology import GROUPS
from npusim.units import show
from npusim.workload import Workload

_NOT_OF_TIME = (*GROUPS, "technology", "power", "voltage", "gating")
_SLIGHT = 5e-4
# What no model of a step reads and commands do all the same.
READ_ELSEWHERE = {
    "area.die": "npusim area puts its own die beside it",
    "launch.graph.repeat": "npusim validate and calibrate read it",
    "power.brief": "npusim validate and calibrate read it",
    "power.window": "npusim validate and calibrate read it",
}
_PASSED_ON = 0.5


def not_modelled(arch: Arch) -> tuple[str, ...]:
    """Return the parameters of a machine that no cost model reads.

    Examples
    --------
    >>> import npusim as ns
    >>> not_modelled(ns.load_arch("decode_npu"))
    ('launch.graph.repeat',)
    """
    known = modelled()
    return tuple(path for path in arch.values if path not in known)


def notes(workload: Workload, arch: Arch, launch: str, mode: str) -> Iterator[str]:
    """Yield what limits a prediction, the gravest first, one sentence each."""
    missing = 1 - workload.classified_busy_share
    if workload.meta.get("measured") is False:
        missing = 1.0 - float(workload.classified.any())
        lowering = workload.meta.get("lowering")
        yield (
            f"made from hyperparameters, with the kernels of {lowering}: nothing was measured of it"
            if lowering
            else "nothing was measured: the trace holds operators without device times"
        )
        unknown = int((~workload.classified).sum())
        if unknown:
            yield f"TOO SHORT: {unknown} of {len(workload)} operations have no known work: 0 s each"
    elif missing > _PASSED_ON:
        yield (
            f"NOT A PREDICTION: {missing:.1%} of device time has no shapes (a graph or compiled "
            "replay?) and is carried over from the traced machine as measured"
        )
    elif missing > _SLIGHT:
        yield f"{missing:.1%} of device time has no shapes and is carried over as measured"
    yield from _about_host(workload, arch, launch)
    if mode == "transfer":
        yield "no error band: measured times are carried over, scaled by the ratio of the models"
    elif missing > 1 - _SLIGHT:
        yield "no error band: no operation has shapes to compare"
    yield from _about_machine(workload, arch)


def _about_host(workload: Workload, arch: Arch, launch: str) -> Iterator[str]:
    if launch == "eager" and workload.meta.get("profiler") == "out":
        each, records = arch["host.record"], float(workload["records"].sum())
        p = arch.provenance["host.record"]
        out = show(each * records / len(workload.steps), "s")
        low, high = (show(x, "s") for x in (p.low, p.high))
        yield (
            f"the profiler is taken out of the host: {show(each, 's')} (host.record, believed "
            f"between {low} and {high}) for each of {records / len(workload.steps):,.0f} recorded "
            f"operators a step, {out}; the band does not hold that"
        )
    elif launch == "eager" and workload.meta.get("host") == "measured":
        yield (
            "host times are those of the trace, profiler included (--unprofiled takes it out); "
            "the band holds device times alone"
        )
    elif launch == "eager" and workload["host_s"].any():
        known = float((workload["host_s"] > 0).mean())
        yield (
            f"{known:.0%} of the launches cost what the host of the H200 traces took before such "
            "kernels, the others launch.eager.host, all at host.speed; the band holds device "
            "times alone"
        )
    elif launch == "eager":
        path = "launch.eager.host"
        low, high = (show(x, "s") for x in (arch.provenance[path].low, arch.provenance[path].high))
        yield (
            f"nothing tells of the host: every launch costs {path} = {show(arch[path], 's')}, "
            f"believed between {low} and {high}; the band does not hold that"
        )
    if not workload.meta.get("marked_steps"):
        yield "no step is marked in the trace: the whole capture counts as one"
    waits = int(workload["sync"].sum())
    if launch == "graph" and waits > len(workload.steps):
        pieces = waits / len(workload.steps)
        yield f"the program waits for the device {pieces:.0f} times a step: as many graphs"
    if launch == "queue" and waits > len(workload.steps):
        pieces = waits / len(workload.steps)
        yield (
            f"the program waits for the device {pieces:.0f} times a step: a queue is taken to "
            "decide what comes next on the device, without the host"
        )


def _about_machine(workload: Workload, arch: Arch) -> Iterator[str]:
    between = (workload.text("kind") == "collective") & (workload["k"] > 1)
    lacks = [path for path in LINK if path not in arch.values]
    if between.any() and lacks:
        yield (
            f"NO LINKS: {int(between.sum())} collectives between chips count as streams of their "
            f"bytes alone, {arch.name} has no {', '.join(lacks)}"
        )
    used = [p for path, p in arch.provenance.items()
            if path in modelled() and path.split(".")[0] not in _NOT_OF_TIME]  # fmt: skip
    assumed = sum(p.kind == "assumed" for p in used)
    if assumed:
        yield (
            f"{assumed} of the {len(used)} values of {arch.name} that count here are assumed; "
            "their ranges are not in the band"
        )
    yield from _about_energy(arch)
    yield from _about_capacity(workload, arch)
    designs, total = Designs(arch), float(workload["flop"].sum())
    for dtype in workload.labels["dtype"]:
        rows = workload.mask("kind", *MATRIX_KINDS) & workload.mask("dtype", dtype)
        share = float(workload["flop"][rows].sum()) / total if total else 0.0
        if share > _SLIGHT and unit_of("gemm", dtype, designs) == "vector":
            yield (
                f"{share:.1%} of the FLOP are matrix products in {dtype}, for which {arch.name} "
                "gives no matrix rate: computed at the fp32 vector rate"
            )


def _about_energy(arch: Arch) -> Iterator[str]:
    """Say why there is no energy, and what gating is taken to cost."""
    lacks = missing(Designs(arch))
    if lacks:
        limit = ", and its power.limit holds nothing" if "power.limit" in arch.values else ""
        yield f"no energy: {arch.name} does not give {', '.join(lacks)}{limit}"
    if "gating.leakage" in arch.values and arch["gating.leakage"] > 0:
        wake = arch["gating.wake"] if "gating.wake" in arch.values else 0.0
        yield (
            f"units for products sleep between products: each time they wake a step waits for "
            f"gating.wake, {show(wake, 's')}" + ("" if wake else ", which is not given")
        )


def _about_capacity(workload: Workload, arch: Arch) -> Iterator[str]:
    """Say that a step reads more weights and keys than the memory holds."""
    needed = float((workload["read_weight"] + workload["read_kv"]).sum()) / len(workload.steps)
    held = arch["memories.dram.capacity"]
    if needed > held:
        yield (
            f"DOES NOT FIT: a step reads {show(needed, 'B')} of weights and KV cache, {arch.name} "
            f"holds {show(held, 'B')}; no time is added for what would have to be fetched"
        )
