"""A workload as a machine with a fusion engine runs it: each chain one operation.

A fused operation stands where the last of its chain did. It does the FLOP of all, reads what the
chain reads from outside (once, however many members read it) and weights and KV cache as before,
and writes what is read later or by nobody that is known; all else stays on the chip. A product that
hands its result on remains one, with other results. Branches are members that read or write by
index: which elements, data decide (column ``k`` of a fused kernel). Special functions are those of
its steps (column ``heads``); what rows need is in the numbers of a chain's form. Work that several
chains do again counts in each; parts side by side are a batch (column ``batch``).

An engine needs to know what comes behind an operation. In a graph or a hardware queue it does; an
eager host issues one operation at a time, and nothing is fused.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.columns import BYTES_OF
from npusim.errors import InputError
from npusim.fusion.chains import Chain, Limits, chains
from npusim.fusion.dataflow import Dataflow, dataflow
from npusim.fusion.macro_ops import PRODUCT, ROW, load_macro_ops
from npusim.fusion.outside import BESIDE, activations
from npusim.leave_out import taken
from npusim.models.special import evaluations
from npusim.transforms.rows import Rows
from npusim.workload import Workload

CHAIN = "fusion.chain"
# What a design may say of its engine, and what is so where it does not.
ENGINE = {CHAIN: 0.0, "fusion.buffer": np.inf, "fusion.products": 0.0, "fusion.recompute": 0.0,
            "fusion.side_by_side": 0.0}  # fmt: skip

_BRANCHES = ("index", "place")
_SOFTMAX = ("softmax", "sort", "scan")  # which pass over a row more than once


def limits(designs: Designs, row: int = 0) -> Limits | None:
    """Return what the fusion engine of a design may fuse, None without an engine.

    Examples
    --------
    >>> import npusim as ns
    >>> limits(Designs(ns.load_arch("h200"))) is None
    True
    """
    if CHAIN not in designs:
        return None
    chain, buffer, products, recompute, side_by_side = (
        float(np.broadcast_to(designs[path], len(designs))[row]) if path in designs else default
        for path, default in ENGINE.items()
    )
    if chain < 2:
        return None
    return Limits(int(chain), buffer, products > 0, int(recompute), int(side_by_side))


def program(w: Workload, designs: Designs, launch: str, mode: str = "model") -> Workload:
    """Return a workload as the first of some designs runs it under a launch mode.

    Raises
    ------
    InputError
        Mode ``transfer``, and something to fuse: what never ran has no time to carry over.

    Examples
    --------
    >>> import npusim as ns
    >>> w, npu = ns.load_workload("paddleocr_vl_decode"), Designs(ns.load_arch("decode_npu"))
    >>> len(program(w, npu, "queue")) < len(w) == len(program(w, npu, "eager"))
    True
    """
    found = limits(designs) if launch != "eager" else None
    ran = w if found is None else fused(w, found)
    if mode == "transfer" and ran is not w:
        raise InputError("fused operations were never measured, so no time of theirs can be "
                         "transferred", place=CHAIN, value=f"{designs[CHAIN][0]:g}", allowed="0",
                         hint="use --mode model")  # fmt: skip
    return ran


def programs(
    w: Workload, designs: Designs, launch: str, mode: str = "model"
) -> Iterator[tuple[Workload, Designs, NDArray[np.intp]]]:
    """Yield each program of a workload, the designs that run it, and which these are."""
    few, which = designs.distinct(tuple(ENGINE))
    alike: dict[Limits | None, list[int]] = {}
    for i in range(len(few)):
        alike.setdefault(None if launch == "eager" else limits(few, i), []).append(i)
    for places in alike.values():
        rows = np.flatnonzero(np.isin(which, places))
        part = designs.of({p: c[rows] for p, c in designs.columns.items()})
        yield program(w, part, launch, mode), part, rows


def fused(w: Workload, allowed: Limits) -> Workload:
    """Return a workload in which chains run as one; itself if there are none."""
    known = _FUSED.setdefault(w, {})
    if allowed not in known:
        known[allowed] = _fused(w, allowed)
    return known[allowed] or w


# What was fused, as long as somebody holds what it was made of; None where there was no chain.
_FUSED: WeakKeyDictionary[Workload, dict[Limits, Workload | None]] = WeakKeyDictionary()


def _fused(w: Workload, allowed: Limits) -> Workload | None:
    found = chains(w, load_macro_ops(), allowed)
    if not found:
        return None
    flow, rows, functions = dataflow(w), Rows(w, CHAIN), _functions(w)
    kept = np.ones(len(w), dtype=bool)
    for chain in found:
        needed = round(float(functions[list(chain.members)].sum()))
        rows.replace(chain.members[-1], _row(w, chain, flow, needed))
        kept[list(chain.members[:-1])] = False
    whole = rows.workload()
    columns, counters, edges = taken(whole, kept)
    meta: dict[str, Any] = {**w.meta, "fused": len(found)}
    return Workload(w.name, columns, whole.labels, w.steps, edges, meta, counters, w.host)


def _row(w: Workload, chain: Chain, flow: Dataflow, functions: int) -> dict[str, Any]:
    """Return the columns of the operation that a chain becomes."""
    members = list(chain.members)
    sums = {name: float(w[name][members].sum()) for name in ("flop", *BESIDE)}
    read, written = activations(w, members, chain.again, flow)
    table = load_macro_ops()
    kinds = [w.labels["kind"][w["kind"][m]] for m in members]
    same = {"kernel": f"fused: {chain.name}", "operator": "", "basis": "shape",
            "origin": "generated", "read_activation": read, "write_activation": written,
            **sums}  # fmt: skip
    if table.classes[kinds[0]] == PRODUCT:
        head = members[0]
        kept = {c: w[c][head] for c in ("batch", "m", "n", "k", "groups", "blocks", "threads")}
        texts = {c: w.labels[c][w[c][head]] for c in ("kind", "dtype", "library", "routine")}
        return {**same, **kept, **texts}
    branches = sum(table.classes[kind] in _BRANCHES for kind in kinds)
    return {**same, "kind": "fused", "dtype": _widest(w, members), "library": "fusion",
            "routine": _routine(chain, kinds), "batch": chain.parts, "m": chain.rows,
            "n": chain.width, "k": branches, "heads": functions,
            "blocks": chain.rows if chain.is_of_rows else 0}  # fmt: skip


def _functions(w: Workload) -> NDArray[np.float64]:
    """Return how many special functions each operation needs as a step of a chain, (K,)."""
    rows = [kind for kind, of in load_macro_ops().classes.items() if of == ROW]
    return np.where(w.mask("kind", *rows), 0.0, evaluations(w.operations()))


def _routine(chain: Chain, kinds: list[str]) -> str:
    if not chain.is_of_rows:
        return "fused_steps"
    return "fused_passes" if any(kind in _SOFTMAX for kind in kinds) else "fused_rows"


def _widest(w: Workload, members: list[int]) -> str:
    types: list[str] = [w.labels["dtype"][w["dtype"][m]] for m in members]
    return max(types, key=lambda t: BYTES_OF.get(t, 2.0))
