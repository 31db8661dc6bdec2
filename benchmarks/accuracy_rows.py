"""The rows of docs/accuracy.md about single kernels: what was asked of a model, and what it does.

Each function returns one or more `Row`: predictions beside measurements that no parameter was
fitted to, with the number of parameters that were fitted to others.
"""

from dataclasses import dataclass, field
from pathlib import Path

import calibrate_machines
import gemm_accuracy
import numpy as np
import public_tables

import npusim as ns
from npusim.arch import with_value
from npusim.calibrate import calibrate
from npusim.holdout import anchor, split
from npusim.measured import read_axes

ROOT = Path(__file__).resolve().parents[1]
SEEDS = range(5)
ANCHOR = 24
DECODE = ("helpers", "block", "share", "combine", "part")
PREFILL = ("start", "block", "share", "softmax")
# What warm single operators, back to back in a graph, tell of an H200.
POINTWISE = {
    "library.reduce_rows.floor": (0.1, 10.0), "library.reduce_rows.block": (1.0, 1e4),
    "library.special.block": (1.0, 1e4), "library.unrolled_cast.chain": (1.0, 1e4),
    "memories.l2.slice_width": (32.0, 128.0), "memories.dram.efficiency": (0.7, 1.0),
}  # fmt: skip
LIBRARY = {"a100": "fa3_sm80", "h100": "fa3", "rtx_4090": "fa2"}
MOST = 30  # fewer than these: the worst instead of p90


@dataclass
class Row:
    """One case: N predictions beside N measurements.

    `asked` are median and p90 [share]; `draws` are medians and p90 of several random samples, the
    first of which is the row itself.
    """

    case: str
    asked: tuple
    free: int
    predicted: np.ndarray
    measured: np.ndarray
    note: str = ""
    draws: list = field(default_factory=list)

    @property
    def errors(self):
        return np.abs(self.predicted / self.measured - 1)

    @property
    def seen(self):
        e = self.errors
        return np.median(e), np.quantile(e, 0.9) if len(e) >= MOST else e.max()

    @property
    def reached(self):
        return all(seen <= asked for seen, asked in zip(self.seen, self.asked, strict=True))


def shortfall(r):
    """Say by how much a goal is missed."""
    return " and ".join(
        f"{name} {seen:.1%} where {asked:.0%} was asked"
        for name, seen, asked in zip(("median", "p90"), r.seen, r.asked, strict=True)
        if seen > asked
    )


def row(case, asked, free, parts, note=""):
    """Return a row of several (measured, machine)."""
    told = np.concatenate([gemm_accuracy.predicted_of(t, a) for t, a in parts])
    return Row(case, asked, free, told, np.concatenate([t.seconds for t, _ in parts]), note)


def drawn(rows):
    """Return the first of several rows that differ in the random sample, with all their errors."""
    rows[0].draws = [r.seen for r in rows]
    return rows[0]


def products():
    """Return matrix products of GPUs left out of the fit, without and with an anchor."""
    tables = {name: public_tables.gemm(name) for name in public_tables.GEMM}
    kin = list(gemm_accuracy.left_out_of_family(tables))
    alone = list(gemm_accuracy.left_out(tables, lambda t: t))
    for what, choose, plain, few in (
        ("GEMM, M = 1", lambda t: t.take(t.operations["m"] == 1), (0.08, 0.25), (0.04, 0.15)),
        ("GEMM, all M", lambda t: t, (0.10, 0.30), (0.05, 0.16)),
    ):
        free = len(gemm_accuracy.SHARED) + 1  # two families, two starts
        left = [(name, choose(t), a) for name, t, a in kin]
        yield row(
            f"{what}, one GPU left out, datasheet only",
            plain,
            free,
            [(t, a) for _, t, a in left],
        )
        for name, held, arch in left:
            yield row(f"- {name} left out", None, free, [(held, arch)])
        yield row(
            "- the three of the tables alone, one start for all",
            None,
            len(gemm_accuracy.SHARED),
            [(choose(t), a) for _, t, a in alone],
        )
        for names in (("a100", "h100"), ("l40s",)):
            yield drawn(
                [
                    row(
                        f"{what}, the same with {ANCHOR} points of {' and '.join(names)} each",
                        few if len(names) > 1 else None,
                        len(gemm_accuracy.ANCHOR),
                        [
                            anchored(t, a, gemm_accuracy.ANCHOR, gemm_accuracy.BOUNDS, seed)
                            for n, t, a in left
                            if n in names
                        ],
                    )
                    for seed in SEEDS
                ]
            )


def anchored(held, arch, free, bounds, seed):
    few, rest = anchor(held, ANCHOR, seed)
    return rest, calibrate([(few, arch)], free, bounds=bounds).archs[0]


def halves(case, asked, table, arch, free, bounds=None):
    """Return rows of the second half, of machines fitted to the first."""
    rows = []
    for seed in SEEDS:
        first, second = split(table, seed)
        made = calibrate([(first, arch)], free, bounds=bounds)
        rows.append(row(case, asked, made.free, [(second, made.archs[0])]))
    return drawn(rows)


def paths(library, phase, names):
    return tuple(f"library.{library}_{phase}.{n}" for n in names)


def wide(free):
    """Return bounds of library numbers: shares up to 1, else what could ever be."""
    most = {"share": (0.1, 1.0), "block": (10.0, 2e4), "part": (1.0, 1e3), "softmax": (1.0, 64.0)}
    return {path: most.get(path.rsplit(".", 1)[-1], (0.01, 10.0)) for path in free}


def attention_tables():
    return {
        "a100": public_tables.decode_attention("a100"),
        "h100": public_tables.decode_attention("h100"),
        "rtx_4090": public_tables.rtx_4090_attention(),
    }


def attention():
    """Return decode attention within a GPU, and on another one."""
    tables = attention_tables()
    for name in ("h100", "a100"):
        free = paths(LIBRARY[name], "decode", DECODE)
        yield halves(
            f"decode attention, {name} ({LIBRARY[name]}), one half from the other",
            (0.04, 0.15),
            tables[name],
            ns.load_arch(name),
            free,
            wide(free),
        )
    for here, there in (("h100", "a100"), ("a100", "h100"), ("h100", "rtx_4090")):
        yield drawn([elsewhere(tables, here, there, seed) for seed in SEEDS])


def elsewhere(tables, here, there, seed):
    """Return a row: the numbers of a library on one GPU begin those of another's on another."""
    arch = ns.load_arch(there)
    for name in DECODE:
        value = ns.load_arch(here)[f"library.{LIBRARY[here]}_decode.{name}"]
        arch = with_value(arch, f"library.{LIBRARY[there]}_decode.{name}", value)
    free = paths(LIBRARY[there], "decode", DECODE[:4])
    return row(
        f"decode attention, from {here} to {there}, {ANCHOR} points",
        (0.15, 0.40),
        len(free),
        [anchored(tables[there], arch, free, wide(free), seed)],
    )


def h200():
    """Return the experiments on the H200, one half from the other."""
    axes = read_axes(ROOT / "workloads" / "experiments" / "h200_axes.json")
    whole, cold = np.isnan(axes.units), axes.operations.reuse.is_new("read_weight")
    arch, bounds = ns.load_arch("h200"), calibrate_machines.BOUNDS
    products = axes.take((axes.op == "linear") & whole & cold)
    yield halves(
        "H200 linear_shapes", (0.04, 0.12), products, arch, calibrate_machines.FREE["h200"], bounds
    )
    yield halves(
        "H200 pointwise",
        (0.04, 0.12),
        axes.take(axes.op == "pointwise"),
        arch,
        tuple(POINTWISE),
        POINTWISE,
    )
    for op, names in (("decode", DECODE[1:]), ("prefill", PREFILL)):
        free = paths("cudnn", op, names)
        yield halves(
            f"H200 {op} attention",
            (0.06, 0.18),
            axes.take(axes.op == f"{op}_attention"),
            arch,
            free,
            wide(free),
        )
    yield units(axes, arch)


def units(axes, arch):
    """Return the rows of axis sm_count whose numbers of units were left out."""
    few = axes.take(
        ~np.isnan(axes.units)
        & (
            (axes.op == "stream")
            | (axes.operations["m"] > 1)
            | (axes.units == axes.units[~np.isnan(axes.units)].min())
        )
    )
    left = few.take(~np.isin(few.units, calibrate_machines.UNITS))
    return row(
        "H200 sm_count: units left out (GEMV at 8 only)",
        (0.04, 0.10),
        len(calibrate_machines.FREE["h200"]),
        [(left, arch)],
        f"fitted at {', '.join(map(str, calibrate_machines.UNITS))} units",
    )


def told(r):
    asked = "" if r.asked is None else f"{r.asked[0]:.0%} / {r.asked[1]:.0%}"
    median, p90 = r.seen
    last = f"{p90:.1%}" + ("" if len(r.errors) >= MOST else " (worst)")
    over = ""
    if len(r.draws) > 1:
        draws = np.array(r.draws)
        over = (
            f"{draws[:, 0].min():.1%} to {draws[:, 0].max():.1%} / "
            f"{draws[:, 1].min():.1%} to {draws[:, 1].max():.1%}"
        )
    return f"| {r.case} | {asked} | {median:.1%} | {last} | {over} | {len(r.errors):,} | {r.free} |"


if __name__ == "__main__":
    for source in (h200, attention, products):
        for r in source():
            print(told(r), flush=True)
