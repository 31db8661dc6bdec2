"""What Nsight Compute calls its metrics, in which units it prints them, and which counter each is.

Display names and their metrics are those of the section files of Nsight Compute, 2019 to 2026.
Where several metrics can fill a counter they are in order of preference: the first that is in a
file gives the counter of all its kernels, so that none mixes two bases. FLOP follow the metric
comparison of the Nsight Compute documentation (``flop_count_sp``: add + mul + 2 fma).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain
from types import MappingProxyType

ELAPSED = ".avg.pct_of_peak_sustained_elapsed"
ACTIVE = ".avg.pct_of_peak_sustained_active"
SECTOR = 32.0  # bytes, of every cache level and of DRAM

_TIMES = {"s": 0, "second": 0, "ms": -3, "msecond": -3, "us": -6, "usecond": -6,
          "ns": -9, "nsecond": -9}  # fmt: skip
_PREFIXES = {"": 0, "k": 3, "m": 6, "g": 9, "t": 12, "p": 15}  # decimal: 32,768 B are 32.77 Kbyte
_COUNTS = ("", "inst", "sector", "cycle", "register/thread", "thread", "block", "pass")

# The least and the most that a number of a dimension can be [SI]. A share above 1 is no error: the
# cycles it is divided by are those of another pass, which shows for kernels of a few blocks.
MOST: Mapping[str, float] = MappingProxyType({
    "s": 1e6, "share": 100.0, "B": 1e20, "B/s": 1e20, "Hz": 1e12, "count": 2.0**53, "1/cycle": 1e9,
})  # fmt: skip


def _units() -> Mapping[str, tuple[str, int]]:
    """Return the dimension of every unit, and the power of ten that makes it SI."""
    found = {unit: ("s", power) for unit, power in _TIMES.items()}
    for prefix, power in _PREFIXES.items():
        found |= {f"{prefix}byte{per}": ("B", power) for per in ("", "/block")}
        found |= {f"{prefix}byte/{per}": ("B/s", power) for per in ("s", "second")}
        found[f"{prefix}hz"] = "Hz", power
    found |= {f"cycle/{time}": ("Hz", -power) for time, power in _TIMES.items()}
    found |= dict.fromkeys(_COUNTS, ("count", 0))
    return MappingProxyType(found | {"%": ("share", -2), "inst/cycle": ("1/cycle", 0)})


UNITS = _units()


@dataclass(frozen=True)
class Source:
    """A metric as a file has it: its name and what it measures (one name may measure two things).

    Attributes
    ----------
    name : str
    dimension : str
        One of `MOST`.
    """

    name: str
    dimension: str


def _of(dimension: str, *names: str) -> tuple[Source, ...]:
    return tuple(Source(name, dimension) for name in names)


def _moved(metric: str) -> tuple[Source, ...]:
    """Return bytes, or the sectors that they came in."""
    sectors = metric.replace("bytes", "sectors")
    return Source(f"{metric}.sum", "B"), Source(f"{sectors}.sum", "count")


DURATION = _of("s", "gpu__time_duration.sum", "gpu__time_duration.avg", "Duration")

COUNTER_SOURCES: Mapping[str, tuple[Source, ...]] = MappingProxyType({
    "sm_throughput": _of("share", f"sm__throughput{ELAPSED}", "Compute (SM) Throughput",
                         "Compute (SM) [%]", "SM [%]", "SOL SM"),
    "memory_throughput": _of("share", f"gpu__compute_memory_throughput{ELAPSED}",
                             "Memory Throughput", "Memory [%]", "SOL Memory"),
    "dram_throughput": _of("share", f"gpu__dram_throughput{ELAPSED}", f"dram__throughput{ELAPSED}",
                           "DRAM Throughput", "SOL DRAM", "SOL FB"),
    "l1_throughput": _of("share", f"l1tex__throughput{ACTIVE}", "L1/TEX Cache Throughput",
                         "SOL L1/TEX Cache", "SOL TEX", f"l1tex__throughput{ELAPSED}"),
    "l2_throughput": _of("share", f"lts__throughput{ELAPSED}", "L2 Cache Throughput",
                         "SOL L2 Cache", "SOL L2"),
    "memory_busy": _of("share", f"gpu__compute_memory_access_throughput{ELAPSED}", "Mem Busy"),
    "max_bandwidth": _of("share", f"gpu__compute_memory_request_throughput{ELAPSED}",
                         "Max Bandwidth"),
    "dram_bandwidth": _of("B/s", "dram__bytes.sum.per_second", "Memory Throughput"),
    "l1_hit_rate": _of("share", "l1tex__t_sector_hit_rate.pct", "L1/TEX Hit Rate", "L1 Hit Rate"),
    "l2_hit_rate": _of("share", "lts__t_sector_hit_rate.pct", "L2 Hit Rate"),
    "dram_read": _moved("dram__bytes_read"),
    "dram_write": _moved("dram__bytes_write"),
    "l1_bytes": _moved("l1tex__t_bytes"),
    "l2_bytes": _moved("lts__t_bytes"),
    "occupancy": _of("share", f"sm__warps_active{ACTIVE}", "Achieved Occupancy"),
    "occupancy_limit": _of("share", "sm__maximum_warps_per_active_cycle_pct",
                           "Theoretical Occupancy"),
    "waves": _of("count", "launch__waves_per_multiprocessor", "Waves Per SM"),
    "issue_active": _of("share", f"smsp__issue_active{ACTIVE}", f"sm__issue_active{ACTIVE}",
                        "One or More Eligible", f"sm__inst_issued{ACTIVE}", "Issue Slots Busy",
                        f"smsp__issue_active{ELAPSED}", f"sm__issue_active{ELAPSED}"),
    "tensor_pipe": _of("share", f"sm__pipe_tensor_cycles_active{ACTIVE}",
                       f"sm__pipe_tensor_cycles_active{ELAPSED}"),
    "instructions": _of("count", "sm__inst_executed.sum", "smsp__inst_executed.sum",
                        "inst_executed", "Executed Instructions"),
    "sm_clock": _of("Hz", "gpc__cycles_elapsed.avg.per_second", "sm__cycles_elapsed.avg.per_second",
                    "smsp__cycles_elapsed.avg.per_second", "SM Frequency"),
    "dram_clock": _of("Hz", "dram__cycles_elapsed.avg.per_second", "DRAM Frequency",
                      "Memory Frequency"),
})  # fmt: skip

# What a launch asked for, where a file has it as metrics.
LAUNCH: Mapping[str, tuple[Source, ...]] = MappingProxyType({
    "registers": _of("count", "launch__registers_per_thread", "Registers Per Thread"),
    "shared_static": _of("B", "launch__shared_mem_per_block_static",
                         "Static Shared Memory Per Block"),
    "shared_dynamic": _of("B", "launch__shared_mem_per_block_dynamic",
                          "Dynamic Shared Memory Per Block"),
    "blocks": _of("count", "launch__grid_size", "Grid Size"),
    "threads": _of("count", "launch__block_size", "Block Size"),
    "passes": _of("count", "profiler__replayer_passes"),
})  # fmt: skip

# A duration that is not in the file: cycles, over the same cycles a second.
CYCLES = tuple(
    (Source(f"{unit}__cycles_elapsed.avg", "count"),
     Source(f"{unit}__cycles_elapsed.avg.per_second", "Hz"))
    for unit in ("gpc", "sm", "smsp")
)  # fmt: skip


@dataclass(frozen=True)
class Arithmetic:
    """The metrics that give the FLOP of one type: of adds, multiplications and fused pairs.

    Attributes
    ----------
    parts : tuple of three Source
        Thread instructions of each, all of them or a cycle.
    rate : Source, optional
        Cycles a second, for counts that are given a cycle.
    """

    parts: tuple[Source, Source, Source]
    rate: Source | None = None


def _arithmetic(letter: str) -> tuple[Arithmetic, ...]:
    found = []
    for unit in ("smsp", "sm"):
        names = [f"{unit}__sass_thread_inst_executed_op_{letter}{operation}_pred_on.sum"
                 for operation in ("add", "mul", "fma")]  # fmt: skip
        add, mul, fma = _of("count", *names)
        found.append(Arithmetic((add, mul, fma)))
        add, mul, fma = _of("1/cycle", *(f"{name}.per_cycle_elapsed" for name in names))
        rate = Source(f"{unit}__cycles_elapsed.avg.per_second", "Hz")
        found.append(Arithmetic((add, mul, fma), rate))
    return tuple(sorted(found, key=lambda a: a.rate is not None))


FLOP: Mapping[str, tuple[Arithmetic, ...]] = MappingProxyType({
    "fp16_flop": _arithmetic("h"), "fp32_flop": _arithmetic("f"), "fp64_flop": _arithmetic("d"),
})  # fmt: skip


def _wanted() -> Mapping[str, tuple[Source, ...]]:
    """Return every metric that is read, by its name."""
    lists = chain([DURATION], COUNTER_SOURCES.values(), LAUNCH.values(), CYCLES,
                  (a.parts for form in FLOP.values() for a in form),
                  ((a.rate,) for form in FLOP.values() for a in form if a.rate))  # fmt: skip
    found: dict[str, dict[Source, None]] = {}
    for source in chain.from_iterable(lists):
        found.setdefault(source.name, {})[source] = None
    return MappingProxyType({name: tuple(sources) for name, sources in found.items()})


WANTED = _wanted()


def is_unknown(name: str) -> bool:
    """Return whether a name is a metric that no counter takes, and no attribute of the device."""
    return name not in WANTED and not name.startswith(("device__", "breakdown:"))


def source(name: str, unit: str) -> tuple[Source, int] | None:
    """Return which metric a name in a unit is, and the power of ten that makes its numbers SI.

    Parameters
    ----------
    name : str
        One of `WANTED`.
    unit : str
        As the file has it.

    Returns
    -------
    tuple of Source and int, or None
        None for a unit that is unknown, or that no metric of this name has.

    Examples
    --------
    >>> [source("Memory Throughput", unit)[0].dimension for unit in ("%", "Gbyte/s")]
    ['share', 'B/s']
    >>> source("Duration", "us")[1], source("Duration", "%")
    (-6, None)
    """
    dimension, power = UNITS.get(unit.strip().lower(), ("", 0))
    for wanted in WANTED[name]:
        if wanted.dimension == dimension:
            return wanted, power
    return None


def allowed_units(name: str) -> str:
    """Return the units that a metric may have, for messages."""
    dimensions = {wanted.dimension for wanted in WANTED[name]}
    return ", ".join(unit or "none" for unit, (what, _) in UNITS.items() if what in dimensions)
