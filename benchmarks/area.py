"""Area and cost of dies: against published ones, by block, and what the report says of them.

PYTHONPATH=. python benchmarks/area.py

Prints the Markdown tables of docs/area.md. ``area.rest`` is set from AD102 and GB202 (first table);
the other dies are left out of it.
"""

from functools import cache

import numpy as np

import npusim as ns
from npusim.arch import Arch, Designs, with_value
from npusim.constants import quadrature
from npusim.models import area
from npusim.models.technology import of_node
from npusim.silicon import Figure, Silicon, constants, silicon

SET_FROM = {"AD102": "l40s", "GB202": "rtx_pro_6000_server"}
LEFT_OUT = {"GA100": "a100", "GH100": "h100", "MI210": "mi210"}
TRANSISTORS = {"GA100": 54.2e9, "GH100": 80e9}  # NVIDIA whitepapers
MATRIX = ("matrix", "fp64")


@cache
def found_of(name: str) -> Silicon:
    """Return what a machine that ships takes."""
    return silicon(ns.load_arch(name))


def unexplained(arch: Arch) -> float:
    """Return what a published die has beside all blocks, in transistors of a compute unit."""
    designs = Designs(arch)
    blocks = area.block_areas(designs)
    beside = arch["area.die"] - sum(a.item() for name, a in blocks.items() if name != "rest")
    units = arch["units.count"] + arch["units.spare"]
    return beside * of_node("logic", designs).item() / units


def of_rest() -> str:
    """Return what ``area.rest`` is set from."""
    lines = ["| die | beside all blocks, a unit [MTr] |", "|---|---|"]
    found = {name: unexplained(ns.load_arch(arch)) / 1e6 for name, arch in SET_FROM.items()}
    lines += [f"| {name} | {value:.0f} |" for name, value in found.items()]
    lines.append(f"| mean | {np.mean(list(found.values())):.0f} |")
    return "\n".join(lines) + "\n"


def of_dies() -> str:
    """Return published dies beside the model."""
    lines = [
        "| die | published [mm²] | model [mm²] | band | error | |",
        "|---|---|---|---|---|---|",
    ]
    for names, what in ((LEFT_OUT, "left out"), (SET_FROM, "set from")):
        for name, arch in names.items():
            found = found_of(arch)
            die = found.figures["die"]
            lines.append(
                f"| {name} | {found.published * 1e6:.4g} | {die.value * 1e6:.0f} | "
                f"{die.low * 1e6:.0f} to {die.high * 1e6:.0f} | {found.error:+.1%} | {what} |"
            )
    return "\n".join(lines) + "\n"


def of_ends() -> str:
    """Return errors of dies left out, constants at ends of their range and the rest set again."""
    nodes = ("n7", "n6", "n4")
    groups = {
        "SRAM in banks": [f"node.{node}.sram" for node in nodes],
        "density of logic": [f"node.{node}.logic" for node in nodes],
        "register file": ["area.registers"],
        "matrix multiply-accumulate": ["area.mac"],
        "fp64 lane": ["area.fp64"],
        "PHY of GDDR": ["dram_type.gddr6.phy", "dram_type.gddr7.phy"],
        "PHY of HBM": ["dram_type.hbm2e.phy", "dram_type.hbm3.phy"],
    }
    lines = [
        f"| at one end | rest, a unit [MTr] | {' | '.join(LEFT_OUT)} |",
        "|---|---" + "|---" * len(LEFT_OUT) + "|",
    ]
    for what, paths in groups.items():
        for end in ("low", "high"):
            rest, errors = _at_end(paths, end)
            cells = " | ".join(f"{error:+.1%}" for error in errors)
            lines.append(f"| {what}, {end} | {rest / 1e6:.0f} | {cells} |")
    return "\n".join(lines) + "\n"


def _at_end(paths: list[str], end: str) -> tuple[float, list[float]]:
    """Return the rest of a unit and the errors, with some constants at an end of their range."""

    def moved(name: str) -> Arch:
        arch = ns.load_arch(name)
        for path in paths:
            arch = with_value(arch, path, getattr(arch.provenance[path], end))
        return arch

    rest = float(np.mean([unexplained(moved(name)) for name in SET_FROM.values()]))
    found = []
    for name in LEFT_OUT.values():
        arch = with_value(moved(name), "area.rest", max(rest, 0.0))
        found.append(area.die_area(Designs(arch)).item() / arch["area.die"] - 1.0)
    return rest, found


def of_blocks() -> str:
    """Return the share of each block of several dies."""
    names = {**LEFT_OUT, **SET_FROM, "decode_npu": "decode_npu"}
    found = [found_of(arch) for arch in names.values()]
    lines = [f"| share of the die [%] | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    for block in area.BLOCKS:
        if any(block in one.shares for one in found):
            shares = (one.shares.get(block, Figure(0, 0, 0)).value for one in found)
            lines.append(f"| {block} | {' | '.join(f'{s * 100:.1f}' for s in shares)} |")
    return "\n".join(lines) + "\n"


def share(arch: Arch, names: tuple[str, ...]) -> Figure:
    """Return the share of some blocks of a die, with its band."""

    def of(designs: Designs) -> np.ndarray:
        blocks = area.block_areas(designs)
        return sum(blocks[name] for name in names) / area.die_area(designs)

    low, high = quadrature(of, Designs(arch), constants(arch))
    return Figure(of(Designs(arch)).item(), low.item(), high.item())


def of_matrix() -> str:
    """Return the share that matrix units take, beside what the report says."""
    lines = ["| die | matrix units | with all fp64 lanes | the report |", "|---|---|---|---|"]
    for name, said in (("h100", "over 50 %"), ("a100", ""), ("decode_npu", "30 to 40 %")):
        arch = ns.load_arch(name)
        told = (share(arch, names) for names in (MATRIX[:1], MATRIX))
        cells = (f"{s.value:.1%} ({s.low:.1%} to {s.high:.1%})" for s in told)
        lines.append(f"| {name} | {' | '.join(cells)} | {said} |")
    return "\n".join(lines) + "\n"


def of_transistors() -> str:
    """Return the transistors of matrix units as a share of those published."""
    lines = ["| die | of published transistors | low to high of `area.mac` |", "|---|---|---|"]
    for name, count in TRANSISTORS.items():
        arch = ns.load_arch(LEFT_OUT[name])
        units = arch["units.count"] + arch["units.spare"]
        mark = arch.provenance["area.mac"]
        macs = units * area.macs(Designs(arch)).item()
        value, low, high = (macs * c / count for c in (arch["area.mac"], mark.low, mark.high))
        lines.append(f"| {name} | {value:.1%} | {low:.1%} to {high:.1%} |")
    return "\n".join(lines) + "\n"


def of_rates() -> str:
    """Return what matrix rate would give the report's share to the decode NPU."""
    arch, rate = ns.load_arch("decode_npu"), "matrix.int4.rate"
    now = share(arch, ("matrix",)).value
    lines = ["| share asked for | matrix rate, times that of decode_npu |", "|---|---|"]
    for asked in (0.3, 0.4):
        times = asked / (1 - asked) * (1 - now) / now
        scaled = share(with_value(arch, rate, arch[rate] * times), ("matrix",)).value
        assert abs(scaled - asked) < 1e-6
        lines.append(f"| {asked:.0%} | {times:.1f} |")
    return "\n".join(lines) + "\n"


def of_cost() -> str:
    """Return what chips cost."""
    lines = [
        "| machine | dies that work | die [USD] | memory [USD] | chip and memory [USD] | band |"
        " carbon [kg] |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in ("a100", "h100", "h200", "mi210", "rtx_5090", "l40s", "decode_npu"):
        f = found_of(name).figures
        cost = f["cost"]
        lines.append(
            f"| {name} | {f['yield'].value:.0%} | {f['die_cost'].value:.0f} | "
            f"{f['memory_cost'].value:,.0f} | {cost.value:,.0f} | "
            f"{cost.low:,.0f} to {cost.high:,.0f} | {f['embodied'].value:.0f} |"
        )
    return "\n".join(lines) + "\n"


def of_nodes() -> str:
    """Return the decode NPU in other nodes."""
    lines = ["| node | die [mm²] | die [USD] | chip and memory [USD] |", "|---|---|---|---|"]
    for node in ("n16", "n7", "n6", "n5", "n4", "n3"):
        f = silicon(with_value(ns.load_arch("decode_npu"), "technology.node", node)).figures
        lines.append(
            f"| {node} | {f['die'].value * 1e6:.0f} | {f['die_cost'].value:.0f} | "
            f"{f['cost'].value:,.0f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    for text in (
        of_rest(), of_dies(), of_ends(), of_blocks(), of_matrix(), of_transistors(), of_rates(),
        of_cost(), of_nodes(),
    ):  # fmt: skip
        print(text)
