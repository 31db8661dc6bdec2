"""Which matrix array does decode and prefill want: shape, dataflow, registers, products in a chain.

PYTHONPATH=. python benchmarks/matrix_array.py

Prints the Markdown tables of docs/matrix_array.md. Nothing here is measured: no machine has such
an array. Times are those of products unless a table says otherwise; arrays that are compared have
as many elements in all, and their units as much of everything else together.
"""

import numpy as np

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.measured.shapes import linear, operations
from npusim.models.gemm import gemm_cost
from npusim.models.systolic import systolic_cost, takes
from npusim.models.systolic_tiles import fastest
from npusim.transforms.batch import set_batch
from npusim.units import CHOICES

UNITS = 64  # the middle of the nominal range that is a power of two
# rows, columns, units: 65,536 elements each
SHAPES = ((16, 64, 64), (8, 128, 64), (4, 256, 64), (2, 512, 64), (32, 32, 64), (16, 128, 32),
          (8, 256, 32), (64, 128, 8), (32, 256, 8), (128, 128, 4), (256, 256, 1))  # fmt: skip
PER_UNIT = ("units.load_rate", "units.miss_rate", "memories.dram.in_flight", "memories.l1.capacity")
STEPS = (
    ("deepseek_ocr_decode_grouped", 1), ("deepseek_ocr_decode_grouped", 4),
    ("deepseek_ocr_decode_grouped", 8), ("paddleocr_vl_decode", 1), ("paddleocr_vl_decode", 4),
    ("paddleocr_vl_decode", 8), ("deepseek_ocr_prefill", 1), ("paddleocr_vl_prefill", 1),
)  # fmt: skip
ROWS = (1, 4, 8, 64, 512, 4096)
LAYERS = ((1280, 1280), (6848, 1280), (1280, 6848))
FLOWS = CHOICES["dataflow"]
US, MS = 1e6, 1e3


def changed(arch: Arch, **values: float) -> Arch:
    """Return a machine with other values; dots are written ``__``."""
    for path, value in values.items():
        arch = with_value(arch, path.replace("__", "."), float(value))
    return arch


def with_array(arch: Arch, rows: int, columns: int, units: int = UNITS, **more: float) -> Arch:
    """Return a machine of so many units with arrays, and as much of all else together."""
    arch = changed(arch, gemv__count=0, units__count=units, units__powered=units)
    for path in PER_UNIT:
        arch = with_value(arch, path, arch[path] * UNITS / units)
    return changed(arch, array__rows=rows, array__columns=columns, **more)


def step(name: str, batch: int) -> ns.Workload:
    """Return a step of so many sequences."""
    w = ns.load_workload(name)
    return set_batch(w, batch) if batch > 1 else w


def together(machines: list[Arch]) -> Designs:
    """Return machines as one table of designs, so that each workload is costed once."""
    paths = {path for path in machines[0].values if len({m[path] for m in machines}) > 1}
    return Designs(machines[0], {p: np.array([m[p] for m in machines]) for p in paths})


def products(w: ns.Workload, machines: Designs) -> np.ndarray:
    """Return what the products of a step take on arrays, shape (D,) [s]."""
    rows, which = w.unique()
    work = w.operations(rows)
    on_array = takes(work, machines)
    count = np.bincount(which, minlength=len(rows))[on_array] / len(w.steps)
    return count @ systolic_cost(work.take(on_array), machines).time


def table(head: str, machines: dict[str, Arch]) -> str:
    """Return times of products on machines, a row each; the least of a column is bold."""
    designs = together(list(machines.values()))
    found = np.array([products(step(*one), designs) for one in STEPS]).T
    names = [f"{name.replace('_grouped', '')}, {batch}" if "decode" in name else name
             for name, batch in STEPS]  # fmt: skip
    lines = [f"| {head} [ms] | " + " | ".join(names) + " |", "|---" * (len(STEPS) + 1) + "|"]
    for label, row in zip(machines, found, strict=True):
        cells = [f"**{t * MS:.3f}**" if t <= least * 1.001 else f"{t * MS:.3f}"
                 for t, least in zip(row, found.min(axis=0), strict=True)]  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_shape(arch: Arch, copies: str = "") -> str:
    """Return the table of shapes of equal area."""
    return table("rows x columns, units" + copies, {
        f"{r} x {c}, {units}": with_array(arch, r, c, units) for r, c, units in SHAPES
    })  # fmt: skip


def by_flow(arch: Arch) -> str:
    """Return the table of dataflows and registers, on narrow and wide arrays."""
    return table("array, stays, registers", {
        f"{r} x {c}, {flow}, {registers}":
            with_array(arch, r, c, array__dataflow=f, array__buffer=b)
        for r, c in ((8, 128), (4, 256)) for f, flow in enumerate(FLOWS)
        for b, registers in ((1, "double"), (0, "single"))
    })  # fmt: skip


def by_chain(arch: Arch) -> str:
    """Return a table of experts and small products, alone and one behind another."""
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    grouped = np.flatnonzero(w.mask("kind", "grouped_gemm"))[:2]
    v = ns.load_workload("deepseek_ocr_vision")
    small = np.flatnonzero(v.mask("kind", "gemm") & (v["batch"] == 64))[:1]
    works = {f"experts {int(o['m'][0])} x {int(o['n'][0])} x {int(o['k'][0])}": o
             for o in (w.operations(grouped[i : i + 1]) for i in range(2))}  # fmt: skip
    works["64 of 768 x 64 x 64"] = v.operations(small)
    head = "| rows x columns, units | " + " | ".join(works) + " |\n|---" + "|---" * 3 + "|"
    lines = [head]
    for rows, columns, units in ((8, 128, 64), (64, 128, 8), (128, 128, 4), (256, 256, 1)):
        cells = []
        for o in works.values():
            times = []
            for chain in (1, 8, 64):
                d = Designs(with_array(arch, rows, columns, units, array__side_by_side=chain))
                times.append(f"{fastest(o, d).compute.item() * US:.2f}")
            cells.append(f"{', '.join(times)} of {systolic_cost(o, d).time.item() * US:.2f}")
        lines.append(f"| {rows} x {columns}, {units} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def by_rows(arch: Arch) -> str:
    """Return a table of array and matrix unit by rows, weights from DRAM."""
    array, unit = Designs(changed(arch, array__rows=8)), Designs(arch)
    lines = ["| rows | " + " | ".join(f"{n} x {k}" for n, k in LAYERS) + " |", "|---|---|---|---|"]
    for m in ROWS:
        work = operations([linear("bf16", m, n, k) for n, k in LAYERS])
        again = fastest(work, array).loads[:, 0] / (work.bytes_moved - work["write_activation"])
        times = systolic_cost(work, array).time[:, 0], gemm_cost(work, unit).time[:, 0]
        pairs = zip(*times, again, strict=True)
        cells = (f"{a * US:.2f}, {b * US:.2f}, {c:.1f}" for a, b, c in pairs)
        lines.append(f"| {m} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def of_steps(arch: Arch) -> str:
    """Return a table of whole steps with the units that the machine may have, nothing fused."""
    arch = changed(arch, fusion__chain=0)
    kinds = {"matrix unit": {"gemv__count": 0}, "matrix unit, GEMV unit": {},
             "array": {"gemv__count": 0, "array__rows": 8},
             "array, GEMV unit": {"array__rows": 8}}  # fmt: skip
    names = [f"{name.replace('_grouped', '')}" for name, batch in STEPS if batch == 1]
    lines = ["| step, hardware queue [ms] | " + " | ".join(names) + " |", "|---" * 5 + "|"]
    for label, changes in kinds.items():
        times = (ns.replay(ns.load_workload(name), changed(arch, **changes), "queue").wall_s
                 for name, batch in STEPS if batch == 1)  # fmt: skip
        lines.append(f"| {label} | " + " | ".join(f"{t * MS:.2f}" for t in times) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    npu = ns.load_arch("decode_npu")
    resident = changed(npu, memories__l2__capacity=4e9)
    for text in (of_steps(npu), by_rows(npu), by_shape(npu), by_shape(resident, ", 4 GB of cache"),
                 by_flow(npu), by_chain(npu)):  # fmt: skip
        print(text)
