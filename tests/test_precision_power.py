"""What docs/precision.md says of data and clocks follows from the rows that ship."""

import json
import re
from collections import Counter

import pytest

DATA = {"normal": "randn", "small integers": "ints", "zeros": "zeros"}
PRODUCTS = [(dtype, n) for dtype in ("bf16", "fp8") for n in (8192, 4096)]


@pytest.fixture(scope="module")
def found(root):
    return json.loads((root / "workloads/experiments/h200_precision_power.json").read_text())


@pytest.fixture(scope="module")
def power(found):
    """Products that were timed in every way, by type, width and data."""
    return {(r["dtype"], r["n"], r["data"]): r for r in found["rows"] if "sustained" in r}


@pytest.fixture(scope="module")
def page(root):
    return re.sub(r"\s+", " ", (root / "docs/precision.md").read_text())


def cycles(row):
    """Clocks of one product under lasting load, in thousands."""
    return row["sustained"]["us"] * row["sustained"]["mhz_nvml"] / 1e3


def ratios(power, how, products=PRODUCTS):
    """Time with normal numbers over time with zeros, of each product."""
    return [power[t, n, "randn"][how]["us"] / power[t, n, "zeros"][how]["us"] for t, n in products]


def test_the_run_is_whole(found):
    assert Counter(r["what"] for r in found["rows"]) == {
        "power": 22, "axis": 45, "int4": 12, "quantise": 24,
    }  # fmt: skip
    assert found["errors"] == found["left_out"] == []


def test_one_product_takes_608_to_808_us(power, page):
    rows = [r for (dtype, n, _), r in power.items() if (dtype, n) == ("bf16", 8192)]
    us = [r[how]["us"] for r in rows for how in ("burst", "hot", "sustained")]
    said = re.search(r"One product takes (\d+) to (\d+) µs", page)
    assert [round(min(us)), round(max(us))] == [int(v) for v in said.groups()] == [608, 808]


def test_cycles_stay_within_5_percent_while_clocks_move(power, page):
    assert "Cycles of bf16 and fp8 stay within 5 %" in page
    for dtype, n in PRODUCTS:
        rows = [r for (t, width, _), r in power.items() if (t, width) == (dtype, n)]
        spent, clocks = [cycles(r) for r in rows], [r["sustained"]["mhz_nvml"] for r in rows]
        assert len(rows) == (3 if n == 8192 else 2)
        assert max(spent) / min(spent) < 1.05
        assert max(clocks) / min(clocks) > 1.15
        assert all(r["sustained"]["reasons"] == [4] for r in rows)  # the power limit


def test_data_are_worth_9_to_24_percent(power, page):
    worth = [100 * (r - 1) for how in ("burst", "sustained") for r in ratios(power, how)]
    said = re.search(r"Data are worth (\d+) to (\d+) % .*?; (\d+) to (\d+) % in int8\)", page)
    int8 = [("int8", 8192), ("int8", 4096)]
    less = [100 * (r - 1) for how in ("burst", "sustained") for r in ratios(power, how, int8)]
    assert [round(v) for v in (min(worth), max(worth), min(less), max(less))] == [
        int(v) for v in said.groups()
    ]


def test_load_that_lasts_is_worth_up_to_21_percent(power, page):
    most = max(r["sustained"]["us"] / r["burst"]["us"] for r in power.values())
    assert f"how long load has lasted up to {100 * (most - 1):.0f} %" in page


def test_the_table_of_the_page(power, root):
    """A cell is the row's figure, rounded."""
    text = (root / "docs/precision.md").read_text()
    table = re.search(r"\| product \| data \| burst.*?\n(?=\n)", text, re.DOTALL).group()
    product, seen = "", 0
    for line in table.splitlines()[2:]:
        name, data, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        product = name or product
        dtype, size = product.split()
        row = power[dtype, int(size.split("×")[1]), DATA[data]]
        s = row["sustained"]
        exact = [row["burst"]["us"], row["hot"]["us"], s["us"], s["mhz_nvml"], s["watts"]]
        exact.append(cycles(row))
        assert [float(c.replace(",", "")) for c in cells] == pytest.approx(exact, abs=0.501)
        seen += 1
    assert seen == 9
