"""What a k-step takes: products over K on operands that the cache holds, measured and told."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import npusim as ns
from npusim.arch import Designs
from npusim.measured.shapes import linear, operations
from npusim.models.gemm import gemm_cost

FILE = Path(__file__).parents[1] / "workloads/experiments/h200_tiles.json"
LINE, CLOCK = 128, 1.98e9  # bytes of K in a k-step


def slope(times):
    (k_first, first), (k_last, last) = times
    return (last - first) / ((k_last - k_first) * 2 / LINE)


@pytest.fixture(scope="module")
def products():
    """Return, for products that keep a tile and have a unit for each block, what was measured:
    (m, n, sides of the tile, time of a k-step [s])."""
    rows, found = json.loads(FILE.read_text())["rows"], []
    bf16 = [r for r in rows if r["dtype"] == "bf16"]
    for m, n in dict.fromkeys((r["m"], r["n"]) for r in bf16):
        own = [r for r in bf16 if (r["m"], r["n"]) == (m, n)]
        first, last = own[0], own[-1]
        tile = re.search(r"_(\d+)x(\d+)_", first["kernel"])
        if first["kernel"] != last["kernel"] or first["kernels"] != 1 or not tile:
            continue
        if first["grid"][0] * first["grid"][1] <= 132:
            took = slope([(r["k"], r["us"] * 1e-6) for r in (first, last)])
            found.append((m, n, sorted(map(int, tile.groups())), took))
    assert len(found) > 40
    return found


def test_units_take_in_64_bytes_a_clock_whatever_blocks_share(products):
    """Tiles of 12 to 27 KB a step: shared by two or eight, 60 to 80 B a clock come to each."""
    rates = [sum(sides) * LINE / took / CLOCK for _, _, sides, took in products
             if 12e3 <= sum(sides) * LINE <= 27e3]  # fmt: skip
    assert len(rates) > 10
    assert min(rates) > 50
    assert max(rates) < 80
    assert np.median(rates) == pytest.approx(69, abs=3)


def test_k_steps_are_told(products):
    """Of more than one row all within 21 %: the model chooses the tiles itself."""
    h200, errors = Designs(ns.load_arch("h200")), []
    for m, n, _, took in products:
        if m == 1:
            continue  # narrow tiles: tests of tiling
        both = []
        for k in (512, 2560):
            one = replace(linear("bf16", m, n, k, copies=1), routine="whole")
            both.append((k, gemm_cost(operations([one]), h200).time.item()))
        errors.append(abs(slope(both) / took - 1))
    assert np.median(errors) < 0.12
    assert max(errors) < 0.21
