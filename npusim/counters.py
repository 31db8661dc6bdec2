"""Hardware counters of kernels: what a counter profiler adds to a workload.

Counters are optional. Every one has its name, unit and meaning here; a workload that has them holds
one column a counter, not-a-number where a kernel was not profiled. Shares are 0 to 1, not percent.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


@dataclass(frozen=True)
class Counter:
    """One counter.

    Attributes
    ----------
    name : str
    unit : str
        SI; ``1`` for shares of a peak and ratios.
    meaning : str
    """

    name: str
    unit: str
    meaning: str

    @property
    def is_share(self) -> bool:
        """Whether it is a part of some whole, and reads best in percent."""
        return self.unit == "1" and self.name not in ("waves", "instructions", "passes")


COUNTERS: Mapping[str, Counter] = MappingProxyType({c.name: c for c in (
    Counter("profiled_s", "s", "duration under the counter profiler, its clocks and cache state"),
    Counter("sm_throughput", "1", "compute throughput, share of what the units can sustain"),
    Counter("memory_throughput", "1", "busiest part of the memory system, share of its peak"),
    Counter("dram_throughput", "1", "DRAM throughput, share of peak"),
    Counter("l1_throughput", "1", "L1 throughput, share of peak"),
    Counter("l2_throughput", "1", "L2 throughput, share of peak"),
    Counter("memory_busy", "1", "how busy the memory units were"),
    Counter("max_bandwidth", "1", "busiest link between memory units, share of its peak"),
    Counter("dram_bandwidth", "B/s", "bytes moved to and from DRAM a second"),
    Counter("l1_hit_rate", "1", "share of L1 accesses that hit"),
    Counter("l2_hit_rate", "1", "share of L2 accesses that hit"),
    Counter("dram_read", "B", "bytes read from DRAM"),
    Counter("dram_write", "B", "bytes written to DRAM"),
    Counter("l1_bytes", "B", "bytes that L1 served"),
    Counter("l2_bytes", "B", "bytes that L2 served"),
    Counter("occupancy", "1", "warps active on a unit while it was active, share of its limit"),
    Counter("occupancy_limit", "1", "warps that registers, shared memory and blocks allow, share"),
    Counter("waves", "1", "waves of blocks a unit runs"),
    Counter("issue_active", "1", "share of cycles in which a scheduler issues"),
    Counter("tensor_pipe", "1", "share of cycles in which the matrix units are active"),
    Counter("instructions", "1", "warp instructions executed"),
    Counter("fp16_flop", "FLOP", "FP16 arithmetic executed outside the matrix units"),
    Counter("fp32_flop", "FLOP", "FP32 arithmetic executed outside the matrix units"),
    Counter("fp64_flop", "FLOP", "FP64 arithmetic executed outside the matrix units"),
    Counter("sm_clock", "Hz", "clock of the compute units while profiled"),
    Counter("dram_clock", "Hz", "clock of the memory while profiled"),
)})  # fmt: skip
