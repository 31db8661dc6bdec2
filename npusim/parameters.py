"""Every number of a machine, declared once: dotted path, unit, bounds and meaning.

The same path is the key in YAML, the ``--set`` flag, the column of a result and the label of an
axis. Values are floats in SI units. Paths of `npusim.technology.TABLES` are numbers of a technology
(``archs/technology``). Paths under ``library.`` are numbers of software: they come
with the code of a library and are the same on every machine unless its file says otherwise
(``archs/libraries``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from npusim.library import NUMBERS, ROUTINES
from npusim.technology import TABLES
from npusim.units import CHOICES


@dataclass(frozen=True)
class Parameter:
    """One number of a machine, declared once.

    Attributes
    ----------
    path : str
        Dotted path, the one name used everywhere.
    unit : str
        Unit of the value; inside npusim always its SI form.
    low, high : float
        Bounds that any real or imagined machine respects [SI].
    meaning : str
        What it is, in a sentence.
    required : bool
        Whether every machine must give it. What is not required and not given does not exist on
        that machine (an FP8 rate, a GEMV unit).
    """

    path: str
    unit: str
    low: float
    high: float
    meaning: str
    required: bool = False


_DTYPE_NAMES = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4")
_FLOOR = "time from start to end that even the smallest {} takes on the device"
_FLOORS = {
    "matmul": "matrix product (GEMV, GEMM, grouped GEMM, convolution)",
    "attention": "fused attention kernel",
    "pointwise": "pointwise kernel, cast, copy or fill",
    "reduction": "reduction, softmax or normalisation",
    "gather": "gather, scatter, index or concatenation",
    "sort": "sort or top-k",
    "memcpy": "copy or fill by the copy engine",
}

_SERVES = {
    "dram": "DRAM", "l2": "the last-level cache", "victim": "the victim cache",
    "kv_sram": "the KV SRAM", "weight_sram": "the weight SRAM",
}  # fmt: skip

_DECODE = {
    "start": ("1", 0, 100, "floor of its decode kernel, in floors of attention"),
    "helpers": ("1", 0, 100, "helper kernels of a decode call, in floors of attention"),
    "block": ("1", 0, 1e6, "clock cycles of a block of its decode kernel beside its tiles"),
    "share": ("1", 1e-3, 1, "share of the matrix peak that a tile of its decode kernel reaches"),
    "combine": ("1", 0, 100, "kernel that combines parts of the keys, in floors of attention"),
    "part": ("1", 0, 1e6, "clock cycles that combining takes longer for each part of the keys"),
}
_PREFILL = {
    "start": ("1", 0, 100, "floor of its prefill kernel, in floors of attention"),
    "helpers": ("1", 0, 100, "helper kernels of a prefill call, in floors of attention"),
    "block": ("1", 0, 1e6, "clock cycles of a block of its prefill kernel beside its tiles"),
    "share": ("1", 1e-3, 1, "share of the matrix peak that a tile of its prefill kernel reaches"),
    "softmax": ("OP/clock", 1e-2, 1e6, "elements of softmax that its prefill kernel does a clock"),
}
_ATTENTION = ("cudnn", "fa2", "fa3", "fa3_sm80")

_PROTOCOL = {
    "start": ("1", 0, 1e3, "start and end of its kernel, in floors of a pointwise kernel"),
    "hop": ("1", 0, 1e6, "clock cycles of a hop beside link.latency: flags, threads that wait"),
    "channel": ("B/clock", 1e-3, 1e4, "what one thread block passes on"),
    "share": ("1", 1e-3, 1, "data in what goes over the link"),
}
_GUESS = {
    "guess_start": ("s", 0, 1e-3, "what the library takes its start to be"),
    "guess_hop": ("s", 0, 1e-3, "what the library takes a hop to be"),
    "guess_share": ("1", 1e-3, 1, "share of the link's rate that the library takes it to reach"),
}
_PROTOCOLS = {"flagged": {**_PROTOCOL, **_GUESS}, "lines": {**_PROTOCOL, **_GUESS},
              "bulk": {**_PROTOCOL, **_GUESS}, "direct": _PROTOCOL, "direct_bulk": _PROTOCOL,
              "switch": {**_PROTOCOL, **_GUESS}}  # fmt: skip

PARAMETERS: Mapping[str, Parameter] = MappingProxyType({p.path: p for p in (
    Parameter("units.count", "1", 1, 1e6, "compute units enabled (SM, CU, AP, core)", True),
    Parameter("units.spare", "1", 0, 1e6, "compute units on the die that are not enabled"),
    Parameter("units.clock", "Hz", 1e6, 1e11, "boost clock of the compute units", True),
    Parameter("units.base_clock", "Hz", 1e6, 1e11,
              "clock from which matrix.boost_share counts: that which the vendor guarantees", True),
    Parameter("units.powered", "1", 1, 1e6,
              "busy units for which the base clock is quoted: fewer of them may run faster", True),
    Parameter("units.load_rate", "B/clock", 1, 1e6,
              "what one compute unit takes in from the last-level cache, at most", True),
    Parameter("units.miss_rate", "B/clock", 0.1, 1e6,
              "what one compute unit takes in from DRAM while all of them do, at most", True),
    Parameter("units.threads", "1", 32, 1e6, "threads that one compute unit holds at once"),
    Parameter("units.blocks", "1", 1, 1e6, "thread blocks that one compute unit holds at once"),
    Parameter("units.block_rate", "1", 1e-3, 1e6,
              "thread blocks that start a clock, on all units together (where not given: any)"),
    Parameter("units.stagger", "1", 0, 1e3,
              "clock cycles from a kernel's first block on one unit to that on the next (where not "
              "given: none)"),
    Parameter("units.registers", "1", 256, 1e9,
              "registers of 32 bits that the threads of one compute unit share"),
    Parameter("units.shared_memory", "B", 1024, 1e12,
              "shared memory that the thread blocks of one compute unit share"),
    Parameter("units.thread_in_flight", "B", 1, 1e6,
              "bytes that one thread keeps in flight while it waits for what it loads"),
    Parameter("matrix.clock", "Hz", 1e6, 1e11,
              "clock at which the matrix peak is quoted", True),
    Parameter("matrix.efficiency", "1", 1e-3, 1,
              "share of the matrix unit's cycles that a large GEMM uses, at the clock it runs at",
              True),
    Parameter("matrix.boost_share", "1", 0, 1,
              "where between base clock and clock of the units a GEMM on all units runs, before a "
              "power limit holds it",
              True),
    *(Parameter(f"matrix.{d}.rate", "FLOP/clock", 1, 1e9,
                f"dense {d} matrix throughput of one compute unit (multiply and add are two)")
      for d in _DTYPE_NAMES),
    Parameter("matrix.fp64.rate", "FLOP/clock", 0, 1e9,
              "dense fp64 matrix throughput of one compute unit, for its area alone"),
    Parameter("vector.fp64.rate", "FLOP/clock", 0, 1e9,
              "fp64 vector throughput of one compute unit, for its area alone"),
    Parameter("vector.int32.rate", "OP/clock", 0, 1e9,
              "int32 throughput of one compute unit (two for a multiply-add), for its area alone"),
    Parameter("vector.fp32.rate", "FLOP/clock", 1, 1e9,
              "fp32 vector throughput of one compute unit (multiply and add are two)", True),
    Parameter("vector.efficiency", "1", 1e-3, 1,
              "share of the vector peak that a long vector kernel sustains", True),
    Parameter("special.rate", "OP/clock", 1, 1e9,
              "special functions (exp, reciprocal, rsqrt, tanh, erf, sin) that the special unit of "
              "one compute unit evaluates"),
    Parameter("special.emulated", "FLOP", 1, 1e4,
              "what a special function takes of the vector lanes, as a polynomial (an instruction "
              "of a lane is two)"),
    Parameter("special.place", "special_place", 0, len(CHOICES["special_place"]) - 1,
              "where special functions run: fastest (each operation where it is faster, where not "
              "given), special or vector"),
    Parameter("special.whole", "1", 0, 1,
              "1: the special unit does whole activations, softmax and norms, so many elements a "
              "clock; 0: single functions"),
    Parameter("memories.dram.bandwidth", "B/s", 1e6, 1e18, "DRAM bandwidth of the datasheet",
              True),
    Parameter("memories.dram.efficiency", "1", 1e-3, 1,
              "share of the DRAM bandwidth that a long stream reaches", True),
    Parameter("memories.dram.capacity", "B", 1e6, 1e18, "DRAM capacity", True),
    Parameter("memories.dram.sites", "1", 0, 1e6,
              "DRAM interfaces on the die, enabled or not: stacks of HBM, else channels of 32 bits "
              "(at least, and where not given: as many as the bandwidth takes)"),
    Parameter("memories.dram.latency", "s", 1e-9, 1e-3, "latency of a DRAM access", True),
    Parameter("memories.dram.in_flight", "B", 32, 1e9,
              "bytes that one compute unit keeps in flight to DRAM", True),
    Parameter("memories.l2.capacity", "B", 1e3, 1e15, "capacity of the last-level cache"),
    Parameter("memories.l2.spare", "B", 0, 1e15,
              "last-level cache on the die that is not enabled"),
    Parameter("memories.l2.usable", "1", 0.05, 1,
              "share of its capacity that reused data can fill"),
    Parameter("memories.l2.ways", "1", 1, 4096,
              "effective associativity: how sharply hits end where data no longer fits"),
    Parameter("memories.l2.slices", "1", 1, 1e6, "slices (channels) of the last-level cache"),
    Parameter("memories.l2.slice_width", "B/clock", 0.1, 1e6,
              "what one slice of the last-level cache gives a clock"),
    Parameter("memories.l2.clock", "Hz", 1e6, 1e11, "clock of the last-level cache"),
    Parameter("memories.l2.latency", "s", 1e-9, 1e-3, "latency of a hit in the last-level cache"),
    Parameter("memories.l2.replacement", "replacement", 0, len(CHOICES["replacement"]) - 1,
              "what the last-level cache evicts: lru (where not given) or random"),
    Parameter("memories.l2.bypass", "1", 0, 1,
              "share of the weights that is streamed past the last-level cache"),
    Parameter("memories.l1.capacity", "B", 1e3, 1e12,
              "L1 cache and shared memory of one compute unit"),
    Parameter("memories.victim.capacity", "B", 0, 1e15,
              "victim cache between L1 and the last-level cache, exclusive of it"),
    Parameter("memories.victim.bandwidth", "B/s", 1e6, 1e18, "bandwidth of the victim cache"),
    Parameter("memories.kv_sram.capacity", "B", 0, 1e15, "SRAM that holds the KV cache"),
    Parameter("memories.kv_sram.bandwidth", "B/s", 1e6, 1e18, "bandwidth of the KV SRAM"),
    Parameter("memories.kv_sram.latency", "s", 0, 1e-3, "latency of the KV SRAM"),
    Parameter("memories.weight_sram.capacity", "B", 0, 1e15,
              "SRAM that holds weights from step to step"),
    Parameter("memories.weight_sram.bandwidth", "B/s", 1e6, 1e18, "bandwidth of the weight SRAM"),
    Parameter("memories.weight_sram.latency", "s", 0, 1e-3, "latency of the weight SRAM"),
    Parameter("memories.weight_sram.replacement", "placement", 0, len(CHOICES["placement"]) - 1,
              "what the weight SRAM holds: pinned (a fixed part, where not given) or lru"),
    *(Parameter(f"memories.{name}.energy", "J/B", 0, 1e-6,
                f"energy of a byte that {text} serves, up to the compute units")
      for name, text in _SERVES.items()),
    *(Parameter(f"memories.{name}.quoted", "B", 1, 1e15,
                f"capacity for which the energy of a byte of {text} is quoted: it goes with the "
                "square root of the capacity (where not given: the same at any)")
      for name, text in _SERVES.items() if name != "dram"),
    Parameter("sram_compute.capacity", "B", 0, 1e15,
              "weights that arrays hold which multiply in place (0: none)"),
    Parameter("sram_compute.largest", "B", 0, 1e15, "largest layer that is put into them"),
    Parameter("sram_compute.bandwidth", "B/s", 1e6, 1e18,
              "weights that they pass an input row over, all together"),
    Parameter("sram_compute.latency", "s", 0, 1e-3, "what a product in them takes beside that"),
    Parameter("prefetch.depth", "B", 0, 1e15,
              "SRAM that weights of operations issued behind may fill early (0: no prefetch)"),
    Parameter("gemm.start", "1", 0, 1e6,
              "clock cycles of a matrix product beside its streaming: first tile in, last one out",
              True),
    Parameter("gemm.fill", "1", 0, 1e5,
              "clock cycles of a block beside its k-steps: pipeline fill, writing the tile", True),
    Parameter("gemm.reduce", "s", 0, 1e-3,
              "what splitting K takes in all: parts written, a second kernel, parts summed", True),
    Parameter("gemm.cluster", "1", 1, 64,
              "thread blocks that share what they load of one side (multicast; 1: none)", True),
    Parameter("gemm.tile_step", "1", 8, 256,
              "granularity of tile sizes in the library of matrix products", True),
    Parameter("gemm.stages", "1", 2, 64,
              "k-steps of a tile that a block holds: one is computed while the others are loaded"),
    Parameter("gemm.split_inner", "1", 1, 1e9,
              "longest reduction that the library never splits in types of 16 bits (where not "
              "given it splits what is faster so)"),
    Parameter("gemm.split_width", "1", 1, 1e9,
              "widest result that it always splits where the reduction is longer than "
              "gemm.split_inner, without which this counts for nothing"),
    Parameter("gemm.split_results", "1", 1, 1e12,
              "most results that it always splits then (with gemm.split_inner)"),
    Parameter("gemm.narrow_rows", "1", 0, 64,
              "most rows for which the library lays the short side of a tile along the weights, in "
              "types of 16 bits (where not given: none)"),
    Parameter("gemm.narrow_width", "1", 1, 1e9,
              "widest result for which it does so (with gemm.narrow_rows)"),
    Parameter("gemm.fp8_tile", "1", 4096, 32768,
              "largest tile of the library's fp8 products [results]; sums that are moved to fp32 "
              "on the way take a second set of accumulators (where not given: as in other types)"),
    Parameter("gemm.vector_row", "1", 0, 1,
              "1: the library computes products of one row on vector units where that is faster, "
              "0 (where not given): only in types that matrix units lack"),
    Parameter("gemm.ramp", "1", 0, 1e7,
              "clock cycles in which transfers and arithmetic of a product do not overlap, at "
              "most: while it starts and ends (0: they always do)", True),
    *(Parameter(f"library.{name}_{phase}.{number}", unit, low, high, meaning)
      for name in _ATTENTION for phase, numbers in (("decode", _DECODE), ("prefill", _PREFILL))
      for number, (unit, low, high, meaning) in numbers.items()),
    *(Parameter(f"library.{routine}.{number}", unit, 0, high, f"routine {routine}: {meaning}")
      for routine in ROUTINES for number, (unit, high, meaning) in NUMBERS.items()),
    Parameter("library.collective.algorithm", "algorithm", 0, len(CHOICES["algorithm"]) - 1,
              "how chips gather and sum: library (ring or in_switch, as it guesses; where not "
              "given), fastest, ring, tree, one_shot or in_switch"),
    Parameter("library.collective.channels", "1", 1, 1e4,
              "thread blocks that a collective takes, at most"),
    Parameter("library.collective.least", "B", 1, 1e9,
              "bytes of the message for which it takes another thread block"),
    Parameter("library.collective.slice", "B", 1, 1e9,
              "largest part that a thread block hands on at once in bulk"),
    *(Parameter(f"library.collective_{protocol}.{number}", unit, low, high,
                f"collectives, protocol {protocol}: {meaning}")
      for protocol, numbers in _PROTOCOLS.items()
      for number, (unit, low, high, meaning) in numbers.items()),
    Parameter("products.place", "products", 0, len(CHOICES["products"]) - 1,
              "where products run that several units take: fastest (each where it is faster, where "
              "not given), units (arrays where a machine has them), gemv_unit or array"),
    Parameter("conversion.rate", "OP/clock", 1e-2, 1e6,
              "weights that one compute unit, or engine of the GEMV unit, widens from how they are "
              "stored to the product's type (where not given: as fast as they come)"),
    Parameter("gemv.count", "1", 0, 1e6, "engines of the GEMV unit (0: none)"),
    Parameter("gemv.lanes", "1", 1, 1e6,
              "multiply-accumulate lanes of one engine, of 16 bits: two values of 8, four of 4"),
    Parameter("gemv.width", "B/clock", 1, 1e6, "what one engine takes in"),
    Parameter("gemv.port", "port", 0, len(CHOICES["port"]) - 1,
              "what engines load through: shared (ports of compute units, where not given) or own"),
    Parameter("gemv.batch", "1", 1, 64,
              "rows that an engine has accumulators for: products of more rows go elsewhere"),
    Parameter("gemv.latency", "s", 0, 1e-3, "start latency of the GEMV unit"),
    Parameter("array.rows", "1", 0, 65536,
              "rows of processing elements of the systolic array of a compute unit (0: no array)"),
    Parameter("array.columns", "1", 1, 65536,
              "columns of that array; an element is 16 bits wide: two values of 8, four of 4"),
    Parameter("array.dataflow", "dataflow", 0, len(CHOICES["dataflow"]) - 1,
              "what stays in its elements: weight, output (results) or input"),
    Parameter("array.buffer", "registers", 0, len(CHOICES["registers"]) - 1,
              "registers of an element for what stays: single, or double (the next is loaded "
              "meanwhile)"),
    Parameter("array.side_by_side", "1", 1, 64,
              "independent products of an operation that an array takes without draining between "
              "them"),
    Parameter("array.latency", "s", 0, 1e-3, "start latency of a product on the arrays"),
    Parameter("fusion.chain", "1", 0, 256,
              "longest chain of operations that the fusion engine runs as one (0: none)"),
    Parameter("fusion.buffer", "B", 0, 1e12,
              "bytes of a row that a fused chain may hold in one unit (where not given: any)"),
    Parameter("fusion.products", "1", 0, 1,
              "1: matrix products hand their results to the fusion engine, 0: they write them"),
    Parameter("fusion.recompute", "1", 0, 256,
              "most operations that a fused chain does again though others do them too (0: none)"),
    Parameter("fusion.side_by_side", "1", 0, 2,
              "neighbours that do not read each other run as one: 0 none, 1 with a common input, "
              "2 any of one iteration space"),
    Parameter("fusion.branch", "1", 0, 1e6,
              "clock cycles of a block for each branch in a fused chain: a read or write by index"),
    Parameter("link.bandwidth", "B/s", 1e6, 1e18, "bandwidth to other chips, both directions"),
    Parameter("link.efficiency", "1", 1e-3, 1,
              "share of link.bandwidth that long transfers reach"),
    Parameter("link.latency", "s", 0, 1e-2,
              "a hop: from a write until the other chip sees it"),
    Parameter("link.topology", "topology", 0, len(CHOICES["topology"]) - 1,
              "what links join: switch (every chip at full bandwidth, where not given), full (a "
              "link to each), mesh (a torus of two dimensions) or ring"),
    Parameter("link.peers", "1", 1, 1e5,
              "chips that a full topology has links to (where not given: those that take part)"),
    Parameter("link.reduces", "1", 0, 1,
              "1: the switch sums and multicasts what chips send, 0 (where not given): not"),
    Parameter("link.spare", "1", 0, 1e6, "links on the die that are not used"),
    Parameter("power.limit", "W", 1e-3, 1e6,
              "board power limit: clocks fall until the mean power of a step is below it"),
    Parameter("power.window", "s", 0, 1e3,
              "how long a load may take more than power.brief before the clocks fall"),
    Parameter("power.brief", "W", 1e-3, 1e6,
              "board power that loads of less than half a second are held at (where it or "
              "power.window is not given: at none)"),
    Parameter("power.rest", "W", 0, 1e6,
              "board power beside the die: DRAM that keeps its data, voltage regulators, fans"),
    Parameter("power.idle", "W", 0, 1e6,
              "board power with nothing to do, clocks down, where a run measured it: in place of "
              "power.rest and leakage"),
    Parameter("power.sleep", "W", 0, 1e6,
              "board power between requests (where not given: as with nothing to do)"),
    Parameter("power.clocks", "W", 0, 1e6,
              "power of the clocks of a die that has nothing to do, at voltage.clock, where its "
              "area is not known"),
    Parameter("voltage.clock", "Hz", 1e6, 1e11,
              "clock of the units at whose voltage energies are quoted (where not given: the "
              "voltage never changes)"),
    Parameter("voltage.slope", "1", 0, 1,
              "share of that voltage that goes with the clock: V = 1 - slope (1 - clock / "
              "voltage.clock)"),
    Parameter("voltage.least", "1", 0.1, 1, "lowest voltage, as a share of that voltage"),
    Parameter("gating.clocks", "1", 0, 1,
              "share of the clock power of a block that is saved while it has nothing to do, "
              "beside what a measured machine saves"),
    Parameter("gating.leakage", "1", 0, 1,
              "share of the leakage of a unit for products that is saved while there are none"),
    Parameter("gating.wake", "s", 0, 1e-2,
              "time until such a unit is there again, if any of its leakage is saved"),
    Parameter("area.die", "mm2", 1e-7, 1, "die area as published: no model reads it"),
    *(Parameter(f"technology.{name}", unit, 0, len(CHOICES[unit]) - 1, meaning)
      for name, unit, meaning in (
          ("node", "node", "process node that the die is made in (where not given: no area)"),
          ("memory", "dram_type", "kind of DRAM"),
          ("link", "link_type", "kind of link to other chips (where not given: none of its own)"),
          ("host", "link_type", "kind of link to the host (where not given: none)"))),
    *(Parameter(f"{group}.{name}", unit, low, high, f"{group.rsplit('.')[-1]}: {meaning}")
      for group, numbers in TABLES.items()
      for name, (unit, low, high, meaning) in numbers.items()),
    *(Parameter(f"floor.{name}", "s", 0, 1e-3, _FLOOR.format(text), True)
      for name, text in _FLOORS.items()),
    Parameter("floor.splitk_reduce", "s", 0, 1e-3,
              _FLOOR.format("kernel that sums the parts of a product")
              + " (where not given: floor.reduction)"),
    Parameter("launch.eager.host", "s", 0, 1e-2,
              "host time of one eager launch, framework included, where no trace gives it", True),
    Parameter("launch.eager.latency", "s", 0, 1e-2,
              "time from the host's launch call to the start on an idle device", True),
    Parameter("launch.eager.copy_latency", "s", 0, 1e-2,
              "time from the host's copy call to the start on an idle device", True),
    Parameter("launch.eager.interval", "s", 0, 1e-3,
              "idle time of the device between two operations launched one by one", True),
    Parameter("launch.eager.depth", "1", 1, 1e9,
              "operations that a stream holds, the running one included; the host then waits",
              True),
    Parameter("launch.graph.host", "s", 0, 1e-1, "host time of a graph launch without its nodes",
              True),
    Parameter("launch.graph.node", "s", 0, 1e-3, "host time of a graph launch for each node", True),
    Parameter("launch.graph.submit", "s", 0, 1e-1,
              "time from the end of the host's graph launch to the first operation", True),
    Parameter("launch.graph.interval", "s", 0, 1e-3,
              "idle time of the device between two operations of a graph", True),
    Parameter("launch.graph.repeat", "s", 0, 1e-3,
              "the same where a benchmark repeats one kernel of a routine", True),
    Parameter("launch.queue.submit", "s", 0, 1e-1,
              "time from the host's doorbell to the first operation of a hardware queue", True),
    Parameter("launch.queue.interval", "s", 0, 1e-3,
              "idle time of the device between two operations of a hardware queue", True),
    Parameter("host.bandwidth", "B/s", 1e6, 1e15,
              "bandwidth of copies between the host's memory and the device", True),
    Parameter("host.lanes", "1", 0, 1024, "lanes of the link to the host on the die"),
    Parameter("host.speed", "1", 1e-3, 1e3,
              "speed of the host relative to the host of the trace", True),
    Parameter("host.threads", "1", 1, 1024, "threads that prepare launches side by side", True),
    Parameter("host.record", "s", 0, 1e-3,
              "host time that the profiler takes for each operator that it records", True),
    Parameter("host.sync", "s", 0, 1e-2,
              "host time from the end of the device's work to the return of a sync", True),
    Parameter("workload.weight_bits", "1", 1, 64,
              "bits that a weight of a matrix product is stored in; arithmetic stays as traced"),
    Parameter("workload.weight_group", "1", 0, 1e6,
              "weights that share one scale of 16 bits (0: no scales)"),
    Parameter("workload.arithmetic", "arithmetic", 0, len(CHOICES["arithmetic"]) - 1,
              "type that products of weights in 16 bits or fewer compute in: traced (as it is), "
              "bf16, fp16, fp8_e4m3, fp8_e5m2, int8 or int4"),
    Parameter("workload.scales", "scales", 0, len(CHOICES["scales"]) - 1,
              "what shares a scale of narrow weights and inputs: a tensor, a channel (row of the "
              "input) or a group of workload.weight_group"),
    Parameter("workload.quantize", "quantize", 0, len(CHOICES["quantize"]) - 1,
              "who narrows the inputs of products: kernel (one of its own in front) or native "
              "(what writes them)"),
    Parameter("workload.kv_bits", "1", 1, 64, "bits that a number of the KV cache is stored in"),
    Parameter("workload.context", "1", 1, 1e9,
              "keys of decode attention, rounded to a whole number"),
    Parameter("workload.kv_heads", "1", 1, 1e6,
              "key and value heads that the query heads of attention share (1: multi-query)"),
    Parameter("workload.static_cache", "1", 1, 1e9,
              "slots of a static KV cache, in place of one that grows by concatenation"),
    Parameter("workload.cache_in_place", "1", 0, 1,
              "1: a token is written into the KV cache, 0: a growing one is copied with it"),
    Parameter("workload.page_tokens", "1", 0, 1e5,
              "tokens of a page of the KV cache (0: not paged)"),
    Parameter("workload.attention_splits", "1", 0, 128,
              "parts that decode attention has its keys in (0: as the library chooses)"),
    Parameter("workload.casts", "1", 0, 1,
              "1: casts are kernels of their own, 0: the kernels beside them do them"),
    Parameter("workload.batch", "1", 1, 1e6,
              "sequences decoded in a step, rounded to a whole number"),
    Parameter("workload.draft_tokens", "1", 0, 128,
              "tokens drafted for each sequence and verified together in a step"),
    Parameter("workload.acceptance", "1", 0, 1, "probability that a drafted token is accepted"),
    Parameter("workload.draft_layers", "1", 0, 1e4,
              "layers of the model that draft a token, embedding and head beside them (0: none)"),
    Parameter("workload.block_scale", "1", 1, 32,
              "threads of a block of pointwise kernels over those traced (of fewer blocks)"),
    Parameter("workload.merged", "1", 1, 64,
              "programs that decode side by side, whose products of the same weights are merged"),
    Parameter("workload.expert_skew", "1", 0, 10,
              "Zipf exponent of the popularity of experts (0: all alike)"),
)})  # fmt: skip

MEMORIES = tuple(
    path.split(".")[1]
    for path in PARAMETERS
    if path.startswith("memories.") and path.endswith(".capacity")
)
