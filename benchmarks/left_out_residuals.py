"""Residuals on machines that were left out of the fit: the band of a machine nobody measured.

PYTHONPATH=. python benchmarks/left_out_residuals.py [write]

Each public GPU in turn is predicted from its datasheet and what the others share (matrix
products), and from the attention library of the other GPU. Quantiles of measured / predicted go to
archs/residuals/left_out.yaml. Coverage is nested: the band for a GPU is made of residuals that the
others have when they, too, are left out of fits that never saw it.
"""

import sys
from pathlib import Path

import gemm_accuracy
import numpy as np
import public_tables
import yaml

import npusim as ns
from npusim.bands import residual, widened
from npusim.calibrate import residuals

OUT = Path(__file__).resolve().parents[1] / "archs" / "residuals" / "left_out.yaml"
SOURCE = ("benchmarks/left_out_residuals.py: A100, H100 and L40S in turn left out of the fit of "
          "matrix products, datasheet only; attention of A100 and H100 with each other's library "
          "numbers; tables of AIConfigurator (Apache-2.0)")  # fmt: skip
SWAPPED = {"a100": "fa3", "h100": "flash_attention"}


def all_rows(table):
    return table


def pairs():
    """Return what was held back, each with the machine as others describe it."""
    tables = {name: public_tables.gemm(name) for name in public_tables.GEMM}
    found = [(t, arch) for _, t, arch in gemm_accuracy.left_out(tables, all_rows)]
    for name, library in SWAPPED.items():
        t = public_tables.decode_attention(name)
        found.append((t.labelled(np.ones(len(t), dtype=bool), library=library), plain(name)))
    return found


def plain(name):
    return ns.load_arch(name) if name not in public_tables.GEMM else gemm_accuracy.plain(name)


def record(held):
    """Return the residuals by kind, every machine with the same weight."""
    by_kind = {}
    for measured, arch in held:
        ratio = measured.seconds / gemm_accuracy.predicted_of(measured, arch)
        for kind, r in residuals([(measured, arch)]).items():
            by_kind.setdefault(kind, []).append((ratio[measured.operations.kind == kind], r.domain))
    found = {}
    for kind, parts in sorted(by_kind.items()):
        most = max(len(ratio) for ratio, _ in parts)
        at = (np.arange(most) + 0.5) / most
        pooled = np.concatenate([np.quantile(ratio, at) for ratio, _ in parts])
        domain = {}
        for _, one in parts:
            domain = widened(domain, one)
        r = residual(pooled, domain)
        entry = r.as_record() | {"n": sum(len(ratio) for ratio, _ in parts)}
        found[kind] = entry
    return found


def coverage(quiet=False):
    """Return how many held-back products a nested 80 % band holds, and of how many."""
    tables = {name: public_tables.gemm(name) for name in public_tables.GEMM}
    inside = total = 0
    for name, held, arch in gemm_accuracy.left_out(tables, all_rows):
        others = {n: t for n, t in tables.items() if n != name}
        seen = [(t, a) for _, t, a in gemm_accuracy.left_out(others, all_rows)]
        band = record(seen)
        ratio = held.seconds / gemm_accuracy.predicted_of(held, arch)
        for kind in set(held.operations.kind):
            rows = held.operations.kind == kind
            r = band[kind]
            inside += int(((ratio[rows] >= r["p10"]) & (ratio[rows] <= r["p90"])).sum())
            total += int(rows.sum())
            if not quiet:
                held_in = np.mean((ratio[rows] >= r["p10"]) & (ratio[rows] <= r["p90"]))
                print(f"  {name} {kind}: band {r['p10']:.2f} to {r['p90']:.2f} holds {held_in:.1%}")
    return inside, total


def main():
    found = record(pairs())
    for kind, r in found.items():
        print(
            f"{kind}: {r['n']} held back, p10 {r['p10']:.3f} p50 {r['p50']:.3f} p90 {r['p90']:.3f}"
        )
    if "write" in sys.argv[1:]:
        OUT.parent.mkdir(exist_ok=True)
        OUT.write_text(
            yaml.safe_dump(
                {"source": SOURCE, "residuals": found},
                sort_keys=False,
                width=100,
                default_flow_style=None,
            )
        )
    inside, total = coverage()
    print(f"nested 80 % band holds {inside / total:.1%} of {total} held-back products")


if __name__ == "__main__":
    main()
