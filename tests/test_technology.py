"""Numbers of technologies: every machine begins with them, and its own file wins."""

import numpy as np
import pytest
import yaml

import npusim as ns
from npusim import catalog, config
from npusim.arch import Designs
from npusim.errors import NpusimError
from npusim.models.technology import of_choice, of_node
from npusim.parameters import PARAMETERS
from npusim.technology import GROUPS, NODES, TABLES

H200 = catalog.find("archs", "h200").read_text(encoding="utf-8")
FOLDER = catalog.folder("archs") / "technology"
OWN = 'area:\n  mac: {value: 7 kTr, source: "of this test", kind: measured}\n'


def entries(node, path=()):
    if "value" in node:
        yield ".".join(path), node
        return
    for key, child in node.items():
        yield from entries(child, (*path, key))


def shipped():
    for file in FOLDER.glob("*.yaml"):
        yield from entries(yaml.safe_load(file.read_text(encoding="utf-8")))


@pytest.fixture
def technology(tmp_path, monkeypatch):
    """Ship other technologies than those of the checkout."""
    folder = tmp_path / "archs"
    (folder / "technology").mkdir(parents=True)
    monkeypatch.setattr(config.catalog, "folder", lambda collection: tmp_path / collection)
    config._libraries.cache_clear()

    def read(text, machine=H200):
        (folder / "technology" / "one.yaml").write_text(text)
        file = folder / "machine.yaml"
        file.write_text(machine)
        return config.read_arch(file)[0]

    yield read
    config._libraries.cache_clear()


def test_every_number_of_a_technology_ships_once():
    paths = [path for path, _ in shipped()]
    assert len(paths) == len(set(paths))
    assert set(paths) <= set(PARAMETERS)
    declared = {f"{group}.{name}" for group, numbers in TABLES.items() for name in numbers}
    assert declared <= set(paths)
    assert "area.die" not in paths  # of a machine, never of all of them
    assert {path.split(".")[0] for path in paths} <= set(GROUPS)


def test_every_machine_has_them_with_their_sources():
    for name in ("h200", "decode_npu", "rtx_3060"):
        arch = ns.load_arch(name)
        for path, entry in shipped():
            assert arch.provenance[path].source == entry["source"], path


def test_the_file_of_a_machine_wins(technology):
    assert technology(OWN)["area.mac"] == 7000
    both = technology(OWN, H200.replace("\narea:\n", "\n" + OWN.replace("7 kTr", "9 kTr")))
    assert both["area.mac"] == 9000


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (OWN.replace("mac", "mca"), ["area.mca", "unknown key", "mac"]),
        (OWN.replace("7 kTr", "7 mm2"), ["area.mac.value", "wrong unit"]),
        (OWN.replace("measured", "assumed"), ["area.mac", "range"]),
        ("units:\n  count: {value: 3}\n", ["units", "unknown key"]),
        (OWN.replace("area:", "library:").replace("mac", "fill"), ["library", "unknown key"]),
    ],
)
def test_mistakes_are_told_with_their_file(technology, text, words):
    with pytest.raises(NpusimError) as error:
        technology(text)
    assert all("one.yaml" in line for line in str(error.value).splitlines())
    assert all(word in str(error.value) for word in words)


def test_a_node_is_looked_up_design_by_design():
    arch = ns.load_arch("h200")
    nodes = np.arange(len(NODES), dtype=float)
    found = of_node("wafer", Designs(arch, {"technology.node": nodes}))
    assert found.tolist() == [arch[f"node.{name}.wafer"] for name in NODES]
    columns = {"technology.node": np.array([2.0, 5.0, 2.0]),
               "node.n7.wafer": np.array([1e3, 2e3, 3e3])}  # fmt: skip
    assert of_node("wafer", Designs(arch, columns)).tolist() == [1e3, arch["node.n4.wafer"], 3e3]
    assert of_choice("technology.memory", "price", Designs(arch)).tolist() == [15e-9]


def test_a_smaller_node_is_no_less_dense():
    arch = ns.load_arch("h200")
    for number, sign in (("logic", 1.0), ("sram", -1.0), ("energy", -1.0)):
        values = [sign * arch[f"node.{name}.{number}"] for name in NODES]
        assert values == sorted(values), number


def test_units_of_area_money_and_carbon():
    parse = ns.units.parse
    assert parse("96.3 MTr/mm2", "Tr/mm2") == pytest.approx(96.3e12)
    assert parse("1 kWh", "J") == 3.6e6
    assert parse("100 g/kWh", "g/kWh") == pytest.approx(0.1 / 3.6e6)
    assert parse("1 1/cm2", "1/cm2") == pytest.approx(1e4)
    assert parse("2 USD/GB", "USD/GB") == pytest.approx(2e-9)
    assert parse("300 mm", "mm") == pytest.approx(0.3)
    assert parse("1 mm2/MB", "mm2/MB") == pytest.approx(1e-12)
    assert ns.units.show(8.14e-4, "mm2") == "814 mm2"
    assert ns.units.show(1e-12, "mm2/MB") == "1 mm2/MB"
