"""Numbers of libraries: every machine begins with them, and its own file wins."""

import pytest
import yaml

import npusim as ns
from npusim import catalog, config
from npusim.errors import NpusimError
from npusim.models import modelled
from npusim.parameters import PARAMETERS

H200 = catalog.find("archs", "h200").read_text(encoding="utf-8")
FOLDER = catalog.folder("archs") / "libraries"
FLOOR = "library.vectorized.floor"
OWN = 'library:\n  vectorized:\n    floor: {value: 7, source: "of this test", kind: measured}\n'


@pytest.fixture
def libraries(tmp_path, monkeypatch):
    """Ship other libraries than those of the checkout."""
    folder = tmp_path / "archs"
    (folder / "libraries").mkdir(parents=True)
    monkeypatch.setattr(config.catalog, "folder", lambda collection: tmp_path / collection)
    config._libraries.cache_clear()

    def ship(**files):
        for name, text in files.items():
            (folder / "libraries" / f"{name}.yaml").write_text(text)
        return folder

    yield ship
    config._libraries.cache_clear()


def machine(folder, text=H200):
    file = folder / "machine.yaml"
    file.write_text(text)
    return config.read_arch(file)[0]


def plain(file):
    """Every number of a file of libraries, read without npusim."""
    tree = yaml.safe_load(file.read_text(encoding="utf-8"))["library"]
    return {f"library.{name}.{number}": entry
            for name, numbers in tree.items() for number, entry in numbers.items()}  # fmt: skip


@pytest.mark.parametrize("file", sorted(FOLDER.glob("*.yaml")), ids=lambda f: f.stem)
def test_every_shipped_machine_has_the_shipped_libraries(file):
    entries = plain(file)
    assert entries
    for name in ("h200", "decode_npu", "rtx_3060"):
        arch = ns.load_arch(name)
        for path, entry in entries.items():
            number = float(str(entry["value"]).split()[0])
            assert arch[path] == number, path
            assert arch.provenance[path].source == entry["source"]


def test_no_number_of_a_library_is_in_two_files():
    paths = [path for file in FOLDER.glob("*.yaml") for path in plain(file)]
    assert len(paths) == len(set(paths))


def test_attention_has_all_that_its_model_reads():
    needed = {p for p in modelled() if p.startswith("library.") and
              p.split(".")[1].endswith(("_decode", "_prefill"))}  # fmt: skip
    assert needed <= set(ns.load_arch("h200").values)


def test_a_machine_inherits_what_its_file_does_not_say(libraries):
    folder = libraries(one=OWN.replace("7", "3"), two=OWN.replace("vectorized", "fill"))
    arch = machine(folder)
    assert arch[FLOOR] == 3
    assert arch["library.fill.floor"] == 7
    assert arch.provenance[FLOOR].source == "of this test"
    assert [p for p in arch.values if p.startswith("library.")] == [FLOOR, "library.fill.floor"]


def test_the_file_of_a_machine_wins(libraries):
    folder = libraries(one=OWN.replace("7", "3").replace("this test", "the library"))
    arch = machine(folder, H200 + OWN)
    assert arch[FLOOR] == 7
    assert arch.provenance[FLOOR].source == "of this test"


def test_without_libraries_a_machine_has_none(libraries):
    arch = machine(libraries())
    assert not [p for p in arch.values if p.startswith("library.")]


def test_a_number_of_a_library_can_be_set():
    h200 = ns.load_arch("h200")
    changed = ns.with_value(h200, FLOOR, 2.5)
    assert changed[FLOOR] == 2.5
    assert changed.provenance[FLOOR].source == "set by the user"
    assert ns.load_arch("h200")[FLOOR] == h200[FLOOR] != 2.5
    with pytest.raises(NpusimError, match="out of bounds"):
        ns.with_value(h200, FLOOR, -1.0)
    w = ns.load_workload("paddleocr_vl_decode")
    assert ns.replay(w, changed, "graph").wall_s > ns.replay(w, h200, "graph").wall_s


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("vectorized", "vectorised"), ["library.vectorised", "unknown key"]),
        (OWN.replace("floor", "flor"), ["library.vectorized.flor", "unknown key", "floor"]),
        (OWN.replace("value: 7", "value: -7"), ["library.vectorized.floor.value", "out of bounds"]),
        (OWN.replace("value: 7", "value: 7 s"), ["library.vectorized.floor.value", "wrong unit"]),
        (OWN.replace(", kind: measured", ""), ["library.vectorized.floor.kind", "missing"]),
        (OWN.replace("measured", "assumed"), ["library.vectorized.floor", "range"]),
        (OWN + "floor:\n  matmul: {value: 1 us}\n", ["floor", "unknown key"]),
        (OWN + OWN, ["given twice", "library"]),
        ("- library\n", ["not a mapping"]),
        ("library: [\n", ["not YAML"]),
    ],
)
def test_a_mistake_in_a_library_is_told_with_its_file(libraries, text, words):
    folder = libraries(broken=text)
    with pytest.raises(NpusimError) as error:
        machine(folder)
    lines = str(error.value).splitlines()
    assert all(line.startswith(str(folder / "libraries" / "broken.yaml")) for line in lines)
    assert any(all(word in line for word in words) for line in lines), lines


def test_several_mistakes_in_a_library_are_told_at_once(libraries):
    two = "    block: {value: -1, source: of this test, kind: measured}\n"
    folder = libraries(broken=OWN.replace("value: 7", "value: -7") + two)
    with pytest.raises(NpusimError) as error:
        machine(folder)
    assert len(str(error.value).splitlines()) == 2


def test_libraries_hold_nothing_but_libraries():
    for file in FOLDER.glob("*.yaml"):
        assert set(yaml.safe_load(file.read_text(encoding="utf-8"))) == {"library"}
        assert all(path in PARAMETERS for path in plain(file))
