"""The page of the studies: what stands in it, and how it behaves in a browser.

Content is made by simple formulas, so that every count and ratio can be had by hand.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import re
import shutil
from html.parser import HTMLParser

import numpy as np
import pytest

from npusim.errors import InputError
from npusim.studies.page import anchor, band, embedded, page, shown, write

HOSTILE = "</script><b>\"bold\" & 'sly'\u2028<img src=x onerror=alert(1)>"
SUPPORTED, REFUTED, UNDECIDED, PART = "supported", "refuted", "undecided", "supported in part"
SVG = (
    '<?xml version="1.0"?><!DOCTYPE svg PUBLIC "a" "http://example.org/a.dtd">\n'
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 300" width="640" height="300">'
    '<rect x="60" y="40" width="520" height="200" fill="#cde"/>'
    '<text x="70" y="150" font-size="16">ratio of wall time [1]</text></svg>'
)

# ---------------------------------------------------------------- content


def claim(name, verdict, value, low, high, **more):
    # fmt: off
    return {
        "id": name, "says": f"the claim {name} about bandwidth", "source": "design note, section 2",
        "rule": "ratio of wall_s at most 1.05", "why": "five in a hundred is what a run varies by",
        "what": "wall_s of a decode step: 2.5 TB/s over 3.35 TB/s", "verdict": verdict, "where": "",
        "value": value, "low": low, "high": high, "unit": "1",
        "reason": "9 of 10 ms are spent waiting for DRAM", "note": "", "influential": None,
        "cases": [
            {"case": f"model A, batch {b}, graph", "value": value, "low": low, "high": high,
             "unit": "1", "verdict": UNDECIDED if verdict == PART else verdict, "sure": 0.97}
            for b in (1, 8)
        ],
        "data": ["model_a_decode (NVIDIA H200, 2026-03-01)"], **more,
    }
    # fmt: on


def study(name, claims, figures=1):
    # fmt: off
    return {
        "name": name, "title": f"Study of {name}", "question": f"Does {name} matter?",
        "source": "design note, section 2", "arch": "npu_a", "claims": claims,
        "figures": [{"title": f"{name}, figure {k}", "svg": SVG, "file": f"figures/{name} {k}.svg"}
                    for k in range(figures)],
        "files": [f"{name}.json"],
    }
    # fmt: on


INFLUENTIAL = {"path": "floor.matmul", "assumed": "0.6 us (0.1 us to 1 us)", "low_value": 1.02,
               "high_value": 1.09, "break_even": "flips above 2.3 us"}  # fmt: skip


def studies():
    where = "supported with graph, queue; refuted with eager"
    return [
        study("bandwidth", [
            claim("enough", SUPPORTED, 1.02, 1.01, 1.04, influential=INFLUENTIAL),
            claim("half", REFUTED, 1.9, 1.7, 2.1),
            claim("near", UNDECIDED, 1.05, 1.01, 1.09, note="refresh is left out"),
        ]),
        study("host", [
            claim("waits", PART, 1.2, 1.1, 1.3, where=where),
            claim("seconds", SUPPORTED, 0.0023, 0.0023, 0.0023, unit="s"),
        ], figures=2),
        study("silicon", [
            claim("share", REFUTED, 0.31, 0.28, 0.34, says=HOSTILE, reason=HOSTILE),
            claim("sram", SUPPORTED, 0.8, 0.7, 0.9, says="SRAM holds the keys"),
            claim("cases", SUPPORTED, 0.8, 0.7, 0.9, cases=[]),
        ]),
    ]  # fmt: skip


LAUNCHES = ["eager", "graph", "queue"]
BANDWIDTH = [2e12, 2.5e12, 3.35e12, 4.8e12, 8e12]  # B/s
SRAM = [0.0, 16e6, 64e6, 256e6]  # B
UNITS = [16, 32, 64, 96, 132]
IDLE = {"eager": 5.0, "graph": 1.0, "queue": 0.25}  # ms
KINDS = ["gemv", "attention", "idle"]
BLOCKS = ["dram", "core"]
ROWS = list(itertools.product(LAUNCHES, BANDWIDTH, SRAM, UNITS))


def parts(launch, bandwidth, sram, units):
    """Time in ms by kind, energy in mJ by block, area in mm2."""
    moved = 20.0 - sram / 32e6  # GB
    time = [1e12 * moved / bandwidth, 64 / units, IDLE[launch]]
    energy = [moved * 40.0, 2.0 * units + bandwidth / 1e11]
    return time, energy, 100 + 2.0 * units + sram / 1e6 + bandwidth / 1e11


def on_front():
    cost = np.array([(sum(time), sum(energy), area) for time, energy, area in MADE])
    return [not any(np.all(cost <= c, axis=1) & np.any(cost < c, axis=1)) for c in cost]


MADE = [parts(*row) for row in ROWS]
FRONT = on_front()
NOMINAL = ROWS.index(("graph", 3.35e12, 64e6, 64))


def designs():
    wall = np.array([sum(time) for time, _, _ in MADE]) * 1e-3
    energy = np.array([sum(e) for _, e, _ in MADE]) * 1e-3
    area = np.array([a for _, _, a in MADE])
    sram_labels = {"0": "no SRAM", "16e6": "16 MB", "6.4e7": "64 MB", "256000000.0": "256 MB"}
    # fmt: off
    return {
        "title": "Designs of an NPU", "work": "a page of model A: 500 tokens",
        "axes": [
            {"path": "memories.dram.bandwidth", "unit": "B/s", "values": BANDWIDTH,
             "labels": {f"{v:g}": f"{v / 1e12:g} TB/s" for v in BANDWIDTH}},
            {"path": "memories.sram.capacity", "unit": "B", "values": SRAM, "labels": sram_labels},
            {"path": "units", "unit": "1", "values": UNITS, "labels": {}},
        ],
        "objectives": [
            {"name": "wall_s", "label": "time", "unit": "ms", "scale": 1e3},
            {"name": "energy_j", "label": "energy", "unit": "mJ", "scale": 1e3},
            {"name": "area_mm2", "label": "area", "unit": "mm²", "scale": 1},
        ],
        "points": {
            "launch": [r[0] for r in ROWS],
            "memories.dram.bandwidth": np.array([r[1] for r in ROWS]),
            "memories.sram.capacity": [r[2] for r in ROWS], "units": [r[3] for r in ROWS],
            "wall_s": wall, "wall_low_s": wall * 0.9, "wall_high_s": wall * 1.1,
            "energy_j": energy, "area_mm2": area,
        },
        "front": list(FRONT),
        "time": {"kinds": KINDS, "ms": [t for t, _, _ in MADE]},
        "energy": {"blocks": BLOCKS, "mj": [e for _, e, _ in MADE]},
        "baselines": [
            {"name": "NVIDIA H200, eager, measured", "wall_s": 0.012, "energy_j": 1.5,
             "area_mm2": None, "time": [6.0, 1.0, 5.0], "energy": None},
            {"name": "NVIDIA H100, eager", "wall_s": 0.015, "energy_j": None, "area_mm2": 814.0,
             "time": None, "energy": None},
        ],
        "nominal": NOMINAL, "baseline": 0,
    }
    # fmt: on


MACHINES = [{"name": "H200", "peak": 989e12, "bandwidth": 4.8e12},
            {"name": "npu_a", "peak": 200e12, "bandwidth": 2.5e12},
            {"name": "H100", "peak": 989e12, "bandwidth": 3.35e12}]  # fmt: skip


def rooflines():
    def one(name, count, kinds):
        kernels = []
        for k in range(count):
            intensity = 0.5 * 1.6**k
            rate = {m["name"]: 0.8 * min(m["peak"], m["bandwidth"] * intensity) for m in MACHINES}
            share = {m["name"]: 2 * (k + 1) / (count * (count + 1)) for m in MACHINES}
            kernels.append({"name": f"kernel_{k}<bf16>", "kind": kinds[k % len(kinds)],
                            "intensity": intensity, "rate": rate, "share": share})  # fmt: skip
        return {"workload": name, "machines": MACHINES, "kernels": kernels}

    return [one("model_a_decode", 12, ["gemv", "attention", "copy"]),
            one("model_a_prefill", 8, ["gemm", "attention"])]  # fmt: skip


def content(**more):
    return {"title": "Design studies", "npusim": "0.1.0", "model": "7",
            "command": "npusim study --all", "studies": studies(), "designs": designs(),
            "rooflines": rooflines(), **more}  # fmt: skip


# ---------------------------------------------------------------- what stands in the page


class Read(HTMLParser):
    """Elements of a page; fails where tags do not pair up."""

    EMPTY = ("meta", "input", "img", "br")

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.texts, self.scripts = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []
        self.text = " ".join(" ".join(self.texts).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing, {self.open}"

    def handle_data(self, data):
        (self.scripts if self.open and self.open[-1] == "script" else self.texts).append(data)

    def all(self, tag, **attributes):
        return [a for t, a in self.elements if t == tag and attributes.items() <= a.items()]


@pytest.fixture(scope="module")
def text():
    return page(content())


@pytest.fixture(scope="module")
def read(text):
    return Read(text)


def test_every_claim_study_and_figure_is_there(read):
    rows = [a for a in read.all("tr") if "data-verdict" in a]
    claims = [(s["name"], c) for s in studies() for c in s["claims"]]
    assert [(r["data-study"], r["data-verdict"]) for r in rows] == [
        (name, c["verdict"]) for name, c in claims
    ]
    details = {a["id"] for a in read.all("details") if "id" in a}
    assert details == {anchor("claim", name, c["id"]) for name, c in claims}
    for s in studies():
        assert s["question"] in read.text
        assert all(read.all("img", alt=f["title"]) for f in s["figures"])
    for words in ("1.02 (1.01 to 1.04)", "2.3 ms", "flips above 2.3 us", "refresh is left out",
                  "supported with graph, queue; refuted with eager", "study --all"):  # fmt: skip
        assert words in read.text
    assert [s in read.text for s in "✓◐?✗"] == [True] * 4


def test_names_and_references_within_the_page_hold(read):
    ids = [a["id"] for _, a in read.elements if "id" in a]
    assert len(ids) == len(set(ids))
    for _, a in read.elements:
        wanted = " ".join(a.get(k) or "" for k in ("aria-labelledby", "aria-describedby", "for"))
        assert set(wanted.split()) <= set(ids)
        if (a.get("href") or "").startswith("#"):
            assert a["href"][1:] in ids
    levels = [int(t[1]) for t, _ in read.elements if re.fullmatch("h[1-6]", t)]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(b <= a + 1 for a, b in itertools.pairwise(levels))


def test_page_loads_nothing_from_elsewhere(text, read):
    assert not re.search(r"https?:|ftp:|@import|url\(", text)
    for _, a in read.elements:
        assert (a.get("src") or "data:").startswith("data:")
        assert not re.match(r"[a-z]+:|//|/", a.get("href") or "")
    assert read.all("a", href="figures/bandwidth%200.svg")  # a blank in a name survives
    assert read.all("meta")[1]["content"].startswith("default-src 'none'")


def test_policy_lets_the_scripts_of_the_page_run_and_no_other(text, read):
    (body,) = re.findall(r"<script>(.*?)</script>", text, flags=re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(body.encode()).digest()).decode()
    assert read.all("meta")[1]["content"].endswith(f"script-src 'sha256-{digest}'")


def test_hostile_text_stays_text():
    evil = content(title=HOSTILE)
    evil["designs"]["title"] = HOSTILE
    evil["designs"]["axes"][2]["labels"] = {"16": HOSTILE}
    evil["rooflines"][0]["kernels"][0]["name"] = HOSTILE
    evil["studies"][0] |= {
        "name": 'a"b',
        "title": HOSTILE,
        "files": ['x"onerror="y', "javascript:z"],
    }
    evil["studies"][0]["figures"] = [{"title": HOSTILE, "svg": SVG, "file": HOSTILE}]
    read = Read(page(evil))
    assert read.all("b") == [] and not read.all("img", src="x")
    assert not any(name.startswith("on") for _, a in read.elements for name in a)
    assert not any((a.get("href") or "").startswith("javascript:") for _, a in read.elements)
    assert read.all("img", alt=HOSTILE)
    assert " ".join(HOSTILE.split()) in read.text
    data = json.loads(read.scripts[0])
    assert data["designs"]["axes"][3]["values"][0] == HOSTILE
    assert data["rooflines"][0]["kernels"][0]["name"] == HOSTILE
    assert "\u2028" not in read.scripts[0] and "<" not in read.scripts[0]


def test_page_without_designs_and_rooflines(tmp_path):
    write(content(designs=None, rooflines=[]), tmp_path / "a" / "page.html")
    read = Read((tmp_path / "a" / "page.html").read_text(encoding="utf-8"))
    ids = {a.get("id") for _, a in read.elements}
    assert "verdicts" in ids and not {"designs", "rooflines"} & ids


def test_axis_values_become_places_and_labels():
    data = json.loads(Read(page(content())).scripts[0])["designs"]
    assert [a["values"] for a in data["axes"]] == [
        LAUNCHES,
        ["2 TB/s", "2.5 TB/s", "3.35 TB/s", "4.8 TB/s", "8 TB/s"],
        ["no SRAM", "16 MB", "64 MB", "256 MB"],  # keys of labels are numbers, however written
        ["16", "32", "64", "96", "132"],  # without a label: the value
    ]
    assert data["points"]["memories.dram.bandwidth"] == [BANDWIDTH.index(r[1]) for r in ROWS]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["studies"][1]["claims"][0].update(verdict="maybe"), "is no verdict"),
        (lambda c: c["studies"][1]["claims"][0]["cases"][0].update(verdict="no"), "no verdict"),
        (lambda c: c["designs"]["points"]["energy_j"].resize(7, refcheck=False), "has 7 rows"),
        (lambda c: c["designs"]["front"].pop(), "has 299 rows where launch has 300"),
        (lambda c: c["designs"]["axes"][2].update(values=[16, 32]), "that its axis lacks"),
        (lambda c: c["studies"][0]["figures"][0].update(svg="<b>"), "no SVG"),
    ],
)  # fmt: skip
def test_content_that_cannot_be_shown_is_refused(change, words):
    wrong = content()
    change(wrong)
    with pytest.raises(InputError, match=words):
        page(wrong)


def test_numbers_as_text():
    assert shown(float("inf"), "1") == "no limit" and shown(float("-inf"), "s") == "-no limit"
    assert shown(0.5, "1") == "0.5" and shown(2.4e12, "B/s") == "2.4 TB/s"
    assert band({"value": 1.0, "low": 0.5, "high": float("inf"), "unit": "1"}) == (
        "1 (0.5 to no limit)"
    )
    assert json.loads(embedded([float("nan"), np.float64(1 / 3), np.bool_(True), (1, None)])) == [
        None, 0.333333, True, [1, None],
    ]  # fmt: skip


# ---------------------------------------------------------------- in a browser

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
         "--disable-background-networking", "--disable-component-update"]  # fmt: skip


@pytest.fixture(scope="module")
def browser():
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("no chromium to open the page in")
    with sync_api.sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield made
        made.close()


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "studies.html"
    write(content(), file)
    return file.as_uri()


@pytest.fixture
def opened(browser, address):
    """Opens the page at a width; no test may leave an error behind or ask for another file."""
    errors, asked, windows = [], [], []

    def open_page(width=1400, where=""):
        window = browser.new_page(viewport={"width": width, "height": 900})
        windows.append(window)
        window.set_default_timeout(20_000)
        window.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
        window.on("pageerror", lambda e: errors.append(str(e)))
        window.on("request", lambda r: asked.append(r.url))
        window.goto(address + where)
        return window

    yield open_page
    assert errors == []
    assert [u for u in asked if not u.startswith(("data:", address))] == []
    for window in windows:
        window.close()


def rows_shown(window):
    return window.locator("#claims tbody tr:visible").count()


def points(window, name="design"):
    return window.locator(f"#{name}-plot svg path[data-id]").count()


def said(window, name):
    return window.locator(f"#{name}").inner_text()


@pytest.mark.parametrize("width", [1400, 400])
def test_page_fits_its_window_with_all_open(opened, width):
    window = opened(width)
    for _ in range(2):  # closed, then open
        wide = window.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        assert wide[0] <= wide[1]
        blank = "[...document.images].filter(i => !i.naturalWidth).length"
        assert window.evaluate(blank) == 0
        window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    # nothing is cut off at the side either, other than in boxes made to scroll
    outside = window.evaluate(
        "[...document.querySelectorAll('main *, header *')].filter(e => !e.closest('.scroller') &&"
        " !e.closest('.unseen') && !e.closest('thead') && e.getBoundingClientRect().right"
        " > innerWidth + 1).map(e => e.outerHTML.slice(0, 60))"
    )
    assert outside == []
    # a row is a row in a wide window, and a card whose parts stand below each other in a narrow one
    tops = (
        window.locator("#claims tbody tr")
        .first.locator("td")
        .evaluate_all("list => list.map(e => e.getBoundingClientRect().top)")
    )
    assert len(set(tops)) == (1 if width == 1400 else 6)


@pytest.mark.parametrize("width", [1400, 400])
def test_axe_finds_no_serious_fault(opened, width):
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is missing")
    window = opened(width)
    window.evaluate("document.querySelectorAll('details').forEach(d => { d.open = true; })")
    window.locator("#design-plot .canvas").focus()
    window.keyboard.press("ArrowRight")
    found = axe.Axe().run(window).response
    assert len(found["passes"]) > 20
    grave = [v for v in found["violations"] if v["impact"] in ("serious", "critical")]
    assert [(v["id"], v["nodes"][0]["html"][:120]) for v in grave] == []
    for name in ("Designs: a point each", "Roofline: a point for each kernel on each machine"):
        assert window.get_by_role("application", name=name).count() == 1


def test_verdicts_are_filtered(opened):
    window = opened()
    assert rows_shown(window) == 8
    for word, left in ((SUPPORTED, 4), (REFUTED, 2), (PART, 1)):
        window.locator(f"input[name=verdict][value='{word}']").uncheck()
        assert rows_shown(window) == left
    assert said(window, "claims-shown") == "1 of 8 claims shown"
    for word in (SUPPORTED, REFUTED, PART):
        window.locator(f"input[name=verdict][value='{word}']").check()
    window.locator("#claim-study").select_option("silicon")
    assert rows_shown(window) == 3
    window.locator("#claim-text").fill("KEYS holds")  # any case, any order
    assert said(window, "claims-shown") == "1 of 8 claims shown"
    window.locator("#claim-text").fill("no such word")
    assert rows_shown(window) == 0
    window.locator("#claim-study").select_option("")
    window.locator("#claim-text").fill("floor.matmul")
    assert rows_shown(window) == 1


def test_a_row_leads_to_the_details_of_its_claim(opened):
    window, near = opened(), f"#{anchor('claim', 'bandwidth', 'near')}"
    details, unfolded = window.locator(near), window.locator(f"{near}[open]")
    assert unfolded.count() == 0
    window.get_by_role("link", name="the claim near about bandwidth").click()
    unfolded.wait_for()  # a browser tells of a new address some time after the click
    assert details.locator("tbody tr").count() == 2
    assert "refresh is left out" in details.inner_text() and "97 %" in details.inner_text()
    assert window.evaluate("document.activeElement.tagName") == "SUMMARY"
    details.locator("summary").click()
    assert unfolded.count() == 0
    window.get_by_role("link", name="the claim near about bandwidth").click()  # a second time
    unfolded.wait_for()
    address = f"#{anchor('claim', 'host', 'waits')}"
    assert opened(where=address).locator(address).get_attribute("open") is not None


def test_details_are_open_in_print_and_closed_again(opened):
    window = opened()
    count = "document.querySelectorAll('details.claim[open]').length"
    window.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert window.evaluate(count) == 8
    window.evaluate("dispatchEvent(new Event('afterprint'))")
    assert window.evaluate(count) == 0


# ---------------------------------------------------------------- designs


def untick(window, axis, label):
    box = window.locator("#design-filters fieldset", has=window.get_by_text(axis, exact=True))
    box.get_by_label(label, exact=True).uncheck()


def test_designs_are_filtered_by_launch_and_axis(opened):
    window = opened()
    front = FRONT
    assert points(window) == 301  # and what they are compared with
    assert said(window, "designs-shown") == (
        f"300 of 300 designs shown, {sum(front)} of them on the Pareto front"
    )
    assert window.locator("#design-front tbody tr").count() == sum(front)
    # a band for each design of the front, and one for the nominal design, which is not on it
    assert not front[NOMINAL]
    assert window.locator("#design-plot .error").count() == sum(front) + 1
    untick(window, "launch", "eager")
    untick(window, "units", "16")
    untick(window, "memories.sram.capacity", "256 MB")
    left = [r[0] != "eager" and r[3] != 16 and r[2] != 256e6 for r in ROWS]
    assert sum(left) == 2 * 5 * 3 * 4
    best = sum(f for f, keep in zip(front, left, strict=True) if keep)
    assert 0 < best < sum(front)
    assert points(window) == 121
    assert said(window, "designs-shown") == (
        f"120 of 300 designs shown, {best} of them on the Pareto front"
    )
    assert window.locator("#design-plot .mark.best").count() == best
    assert window.locator("#design-front tbody tr").count() == best
    window.locator("#design-with").uncheck()
    assert points(window) == 120
    for label in ("graph", "queue"):
        untick(window, "launch", label)
    assert points(window) == 0
    assert "nothing to show" in window.locator("#design-plot svg").text_content()


def test_axes_of_the_plot_can_be_chosen(opened):
    window = opened()
    titles = window.locator("#design-plot svg text.title")
    assert titles.all_text_contents() == ["time [ms]", "energy [mJ]"]
    window.locator("#design-x").select_option(label="area [mm²]")
    assert titles.all_text_contents() == ["area [mm²]", "energy [mJ]"]
    assert points(window) == 300  # the area of the baseline is not known
    assert window.locator("#design-plot .error").count() == 0  # bands are of time
    window.locator("#design-x").select_option(label="energy [mJ]")  # the two change places
    assert titles.all_text_contents() == ["energy [mJ]", "area [mm²]"]
    window.locator("#design-log").check()
    assert points(window) == 300
    # least energy is leftmost, on logarithmic axes as well
    window.locator("#design-plot .canvas").focus()
    window.keyboard.press("Home")
    least = min(sum(e) for _, e, _ in (parts(*r) for r in ROWS))
    assert f"energy: {least:.0f} mJ" in window.locator("#design-plot .tip").inner_text()


def cells(window, name):
    rows = window.locator(f"#{name} tbody tr, #{name} tfoot tr").all()
    return [[" ".join(c.split()) for c in r.locator("th, td").all_inner_texts()] for r in rows]


def test_picked_design_shows_parameters_parts_and_difference(opened):
    window = opened()
    assert window.locator("#picked-title").inner_text() == "Design 153 (nominal)"
    row = ("queue", 8e12, 256e6, 64)
    k = ROWS.index(row)
    assert FRONT[k]
    # 20 - 8 = 12 GB moved in 1.5 ms, 64 / 64 = 1 ms, 0.25 ms idle; 12 x 40 mJ, 128 + 80 mJ
    assert parts(*row) == ([1.5, 1.0, 0.25], [480.0, 208.0], 564.0)
    window.locator("#design-front").get_by_role("button", name=f"Pick {k + 1}", exact=True).click()
    assert window.locator("#picked-title").inner_text() == f"Design {k + 1}, on the Pareto front"
    assert cells(window, "picked-parameters") == [
        ["launch", "queue"], ["memories.dram.bandwidth", "8 TB/s"],
        ["memories.sram.capacity", "256 MB"], ["units", "64"],
    ]  # fmt: skip
    # against 12 ms: 12 / 2.75 = 4.36, with 2.475 to 3.025 ms 3.97 to 4.85; 0.688 / 1.5 J = 0.459
    assert window.locator("#picked-difference").inner_text() == (
        "Against NVIDIA H200, eager, measured: 4.36× faster (3.97× to 4.85×), 0.46× the energy; "
        "not comparable: area"
    )
    assert cells(window, "picked-totals") == [
        ["time [ms]", "2.75 2.475 to 3.025", "12", "0.23×"],
        ["energy [mJ]", "688", "1,500", "0.46×"], ["area [mm²]", "564", "–", "–"],
    ]  # fmt: skip
    assert cells(window, "picked-time") == [
        ["gemv", "1.5", "54.5", "6", "−4.5"], ["attention", "1", "36.4", "1", "0"],
        ["idle", "0.25", "9.1", "5", "−4.75"], ["all", "2.75", "100.0", "12", "−9.25"],
    ]  # fmt: skip
    assert cells(window, "picked-energy") == [
        ["dram", "480", "69.8"], ["core", "208", "30.2"], ["all", "688", "100.0"],
    ]  # fmt: skip
    # bars: 1.5 of the longest, which is 6 of the baseline
    bars = window.locator("#picked-time .bar")
    assert bars.count() == 6
    widths = bars.evaluate_all("list => list.map(b => b.style.width)")
    assert widths == ["25%", "100%", "16.6667%", "16.6667%", "4.16667%", "83.3333%"]
    # the button keeps the focus although the table is drawn anew
    assert window.evaluate("document.activeElement.dataset.pick") == str(k)


def test_difference_is_told_from_the_chosen_baseline(opened):
    window = opened()
    differs = window.locator("#picked-difference")
    window.locator("#design-baseline").select_option(label="NVIDIA H100, eager")
    # nominal: 18 / 3.35 + 1 + 1 = 7.373 ms; 15 / 7.373 = 2.03; area 100 + 128 + 64 + 33.5 = 325.5
    assert differs.inner_text() == (
        "Against NVIDIA H100, eager: 2.03× faster (1.85× to 2.26×), 0.40× the area; "
        "not comparable: energy"
    )
    assert window.locator("#picked-time tbody tr").first.locator("td").count() == 2
    window.locator("#design-baseline").select_option(label="nominal design")
    assert differs.inner_text().startswith("Against nominal design: as fast (")
    # the slowest: 20 / 2 + 64 / 16 + 5 = 19 ms, 19 / 7.373 = 2.58
    window.locator("#design-plot .canvas").focus()
    window.keyboard.press("End")
    window.keyboard.press("Enter")
    slowest = ROWS.index(("eager", 2e12, 0.0, 16)) + 1
    assert window.locator("#picked-title").inner_text().startswith(f"Design {slowest}")
    assert "2.58× slower (2.32× to 2.83×)" in differs.inner_text()


def test_keyboard_walks_the_designs(opened):
    window = opened()
    order = sorted(
        range(300), key=lambda k: (round(sum(parts(*ROWS[k])[0]), 9), parts(*ROWS[k])[1])
    )
    front = [k for k in order if FRONT[k]]
    tip, spoken = window.locator("#design-plot .tip"), window.locator("#design-said")
    window.locator("#designs-shown").scroll_into_view_if_needed()
    # the plot is one stop of the Tab key: from the last filter to it, and on to the first button
    window.locator("#design-filters input").last.focus()
    window.keyboard.press("Tab")
    assert tip.is_visible() and "Design 153" in tip.inner_text()  # begins where the picked one is
    window.keyboard.press("Home")
    for step in (0, 1, 2):
        assert tip.locator("strong").inner_text().startswith(f"Design {order[step] + 1}")
        window.keyboard.press("ArrowRight")
    window.keyboard.press("ArrowLeft")
    assert spoken.inner_text().startswith(f"Design {order[2] + 1}")
    window.keyboard.press("Home")
    for _ in range(5):
        window.keyboard.press("ArrowUp")
    assert front[0] == order[0]
    assert spoken.inner_text().startswith(f"Design {front[5] + 1}, on the Pareto front; time: ")
    window.keyboard.press("ArrowDown")
    window.keyboard.press(" ")
    assert window.locator("#picked-title").inner_text().startswith(f"Design {front[4] + 1},")
    assert window.locator("#design-plot .ring").count() == 1
    window.keyboard.press("Escape")
    assert tip.is_hidden()
    window.keyboard.press("ArrowRight")
    assert tip.is_visible()
    window.keyboard.press("Tab")
    assert tip.is_hidden()
    assert window.evaluate("document.activeElement.closest('.plot')") is None


def centre(window, name, key):
    box = window.locator(f"#{name}-plot svg path[data-id='{key}']").bounding_box()
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.mark.parametrize("width", [1400, 400])
def test_pointer_shows_and_picks_a_design(opened, width):
    window = opened(width)
    window.locator("#design-plot").scroll_into_view_if_needed()
    tip = window.locator("#design-plot .tip")
    fastest = ROWS.index(("queue", 8e12, 256e6, 132))
    window.mouse.move(*centre(window, "design", fastest))
    lines = tip.inner_text().splitlines()
    # 1.5 + 64 / 132 + 0.25 ms; 480 + 264 + 80 mJ; 100 + 264 + 256 + 80 mm2
    assert lines == [f"Design {fastest + 1}, on the Pareto front", "time: 2.235 ms",
                     "energy: 824 mJ", "area: 700 mm²", "launch: queue",
                     "memories.dram.bandwidth: 8 TB/s", "memories.sram.capacity: 256 MB",
                     "units: 132"]  # fmt: skip
    box = tip.bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    window.mouse.click(*centre(window, "design", fastest))
    assert window.locator("#picked-title").inner_text().startswith(f"Design {fastest + 1},")
    star = centre(window, "design", "baseline")
    window.mouse.click(*star)  # a baseline is told of, but is nothing to pick
    assert "NVIDIA H200, eager, measured" in tip.inner_text()
    assert window.locator("#picked-title").inner_text().startswith(f"Design {fastest + 1},")
    frame = window.locator("#design-plot .canvas").bounding_box()
    window.mouse.move(frame["x"] + 0.9 * frame["width"], frame["y"] + 0.2 * frame["height"])
    assert tip.is_hidden()  # nothing is near there


# ---------------------------------------------------------------- rooflines


def test_roofline_shows_what_is_chosen(opened):
    window = opened()
    assert points(window, "roofline") == 12 * 2  # two machines to begin with
    assert window.locator("#roofline-plot .roof").count() == 2
    window.locator("#roofline-machines").get_by_label("H100").check()
    assert points(window, "roofline") == 12 * 3
    window.locator("#roofline-kinds").get_by_label("attention").uncheck()
    assert points(window, "roofline") == 8 * 3
    assert said(window, "roofline-shown") == "8 of 12 kernels shown on 3 of 3 machines"
    window.locator("#roofline-machines").get_by_label("H200").uncheck()
    assert points(window, "roofline") == 8 * 2
    window.locator("#roofline-workload").select_option(label="model_a_prefill")
    assert points(window, "roofline") == 8 * 2
    kinds = window.locator("#roofline-kinds label").all_inner_texts()
    assert [k.strip() for k in kinds] == ["gemm", "attention"]
    for kind in ("gemm", "attention"):
        window.locator("#roofline-kinds").get_by_label(kind).uncheck()
    assert points(window, "roofline") == 0


def test_roofline_kernels_by_pointer_keyboard_and_table(opened):
    window = opened()
    window.locator("#roofline-plot").scroll_into_view_if_needed()
    tip = window.locator("#roofline-plot .tip")
    # kernel 2: 0.5 x 1.6^2 = 1.28 FLOP/B; 0.8 x 4.8 TB/s x 1.28 = 4.915 TFLOP/s; 3 of 78 parts
    window.mouse.move(*centre(window, "roofline", "2/0"))
    assert tip.inner_text().splitlines() == [
        "kernel_2<bf16>", "copy on H200", "1.28 FLOP/B", "4.915 TFLOP/s, 80.0 % of the roof",
        "3.8 % of the time",
    ]  # fmt: skip
    window.locator("#roofline-plot .canvas").focus()
    window.keyboard.press("End")
    # kernel 11: 0.5 x 1.6^11 = 87.96 FLOP/B, beyond the knee of npu_a at 80: 0.8 x 200 TFLOP/s
    assert tip.locator("strong").inner_text() == "kernel_11<bf16>"
    window.keyboard.press("ArrowLeft")
    assert "160 TFLOP/s, 80.0 % of the roof" in tip.inner_text()
    assert window.locator("#roofline-said").inner_text().startswith("kernel_11<bf16>; copy on npu")
    window.get_by_text("The same as a table").click()
    rows = cells(window, "roofline-table")
    assert len(rows) == 24
    assert rows[4] == ["kernel_2<bf16>", "copy", "H200", "1.28", "4.915 TFLOP/s", "80.0 %", "3.8 %"]


def test_marks_lie_on_their_axes(opened):
    """Four fifths of the roof is as far below it everywhere, as both axes are logarithmic."""
    window = opened()
    at = [centre(window, "roofline", f"{k}/0") for k in range(4)]
    steps = [(b[0] - a[0], a[1] - b[1]) for a, b in itertools.pairwise(at)]
    # shapes differ, so the middle of the box is off by up to a few tenths of their size
    assert np.ptp([s[0] for s in steps]) < 1.5 and np.ptp([s[1] for s in steps]) < 6
    assert all(s[0] > 10 and s[1] > 5 for s in steps)
