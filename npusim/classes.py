"""What holds a kernel back: memory, arithmetic, its launch, or nothing in particular.

Two rules, for two kinds of evidence. With hardware counters the one of compute and DRAM throughput
that is the higher share of its peak names the class, unless they lie within five points of each
other. It is the rule behind the classes that kernel reports made with counter profilers quote.
Without counters the arithmetic intensity of a kernel, from its shapes, is held against the ridge
of the machine, after kernels that the floor of the machine accounts for are set apart.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs
from npusim.models.kernel import kernel_cost
from npusim.models.roofline import matrix_peak, unit_of, vector_peak
from npusim.workload import Workload

Array = NDArray[np.float64]

CLASSES = ("memory-bound", "compute-bound", "balanced", "launch-bound", "unknown")

# Read off the classes of the DeepSeek-OCR kernel study (seed 004): any distance between 3.85 and
# 5.79 points gives all 38 of them.
BALANCED_POINTS = 0.05
# Chosen: a class should not turn on a few percent of intensity, or of a floor that is itself rough.
BALANCED_FACTOR = 2.0
FLOOR_SHARE = 0.5

COUNTER_RULE = (
    "By counters: a launch is balanced if its SM and DRAM throughput, both as shares of their "
    "peaks, differ by less than 5 percentage points; otherwise it is compute-bound if SM "
    "throughput is the higher of the two and memory-bound if DRAM throughput is. It is unknown "
    "if either was not measured. Balanced does not mean efficient: both may be low."
)
SHAPE_RULE = (
    "By shapes: a launch is launch-bound if the machine's floor for its kind is at least half of "
    "its duration; otherwise its arithmetic intensity (FLOP and bytes from tensor shapes, each "
    "byte once) is held against the ridge of the datasheet roofline for the unit and type it "
    "computes in: balanced within a factor of 2 of the ridge, memory-bound below, compute-bound "
    "above. It is unknown if its shapes are not known."
)


def by_counters(sm: Array, dram: Array) -> NDArray[np.object_]:
    """Return the class of launches from two hardware counters, shape (K,).

    Parameters
    ----------
    sm, dram : array, shape (K,)
        Compute and DRAM throughput as shares of their peaks, not-a-number where not measured.

    Examples
    --------
    >>> by_counters(np.array([0.41, 0.09, 0.37, np.nan]), np.array([0.08, 0.2, 0.37, 0.1])).tolist()
    ['compute-bound', 'memory-bound', 'balanced', 'unknown']
    """
    found = np.full(len(sm), "unknown", dtype=object)
    known = np.isfinite(sm) & np.isfinite(dram)
    # Counters are printed to a hundredth of a percent: compare at that grain, not at rounding's.
    difference = np.round(sm - dram, 6)
    found[known] = "balanced"
    found[known & (difference >= BALANCED_POINTS)] = "compute-bound"
    found[known & (difference <= -BALANCED_POINTS)] = "memory-bound"
    return found


def by_shapes(w: Workload, arch: Arch) -> NDArray[np.object_]:
    """Return the class of launches from their shapes and durations, shape (K,).

    Parameters
    ----------
    w : Workload
        K operations.
    arch : Arch
        The machine that they ran on.

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("deepseek_ocr_prefill"), ns.load_arch("h200")
    >>> sorted(set(by_shapes(w, h200)))
    ['balanced', 'compute-bound', 'launch-bound', 'memory-bound']
    """
    rows, inverse = w.unique()
    floor = kernel_cost(w.operations(rows), Designs(arch)).floor[inverse, 0]
    moved, seconds = w.bytes_moved, w["duration_s"]
    known = w.classified & (seconds > 0) & (moved + w["flop"] > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        over = w["flop"] / moved / (flop_peak(w, arch) / arch["memories.dram.bandwidth"])
    found = np.full(len(w), "unknown", dtype=object)
    found[known] = "balanced"
    found[known & (over > BALANCED_FACTOR)] = "compute-bound"
    found[known & (over < 1 / BALANCED_FACTOR)] = "memory-bound"
    found[known & (floor >= FLOOR_SHARE * seconds)] = "launch-bound"
    return found


def flop_peak(w: Workload, arch: Arch) -> Array:
    """Return the datasheet throughput of the unit and type each operation uses, (K,) [FLOP/s].

    Examples
    --------
    >>> import npusim as ns
    >>> w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    >>> [round(p / 1e12) for p in sorted(set(flop_peak(w, h200)))]
    [67, 989]
    """
    machine, peak = Designs(arch), np.zeros(len(w))
    for kind in w.labels["kind"]:
        for dtype in w.labels["dtype"]:
            rows = w.mask("kind", kind) & w.mask("dtype", dtype)
            on_matrix = unit_of(kind, dtype, machine) == "matrix"
            peak[rows] = (matrix_peak(machine, dtype) if on_matrix else vector_peak(machine))[0]
    return peak
