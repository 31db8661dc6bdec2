"""What a workload reuses, from the command line and as a library; computing where weights lie."""

import json

import numpy as np
import pytest
from click.testing import CliRunner

import npusim as ns
from npusim.arch import Designs
from npusim.cache import Cache
from npusim.cli import main
from npusim.errors import InputError
from npusim.locality import locality, simulated
from npusim.models.kernel import kernel_time
from npusim.reuse.experts import last_used, probabilities, zipf
from npusim.traffic import GROUPS, traffic
from npusim.workload import BYTES
from tests.machines import machine, operations

DECODE = "paddleocr_vl_decode"


def run(*arguments):
    return CliRunner().invoke(main, ["reuse", *arguments])


def test_weights_stay_only_where_a_whole_step_fits():
    found = json.loads(run(DECODE, "--capacity", "600 MB", "--capacity", "800 MB", "--json").output)
    w = ns.load_workload(DECODE)
    weights = w["read_weight"].sum() / len(w.steps)
    assert found["moved"]["weight"] == pytest.approx(weights)
    assert found["missed"]["weight"] == pytest.approx([weights, 0.0], abs=1.0)
    assert found["capacity"] == [6e8, 8e8]
    assert found["notes"] == []


def test_the_table_names_classes_and_notes_experts():
    text = run("deepseek_ocr_decode_grouped").output
    assert "weights" in text
    assert "KV cache" in text
    assert "experts are drawn anew" in text


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(["--capacity", "3"], "--capacity: has no unit"),
     (["--capacity", "0 B"], "out of bounds"),
     (["--simulate", "--line", "1 B", "--capacity", "1 MB"], "--line: too many lines"),
     (["--simulate", "--policy", "srrip", "--capacity", "1 MB"], "ways"),
     (["--simulate", "--ways", "-1", "--capacity", "1 MB"], "ways")],
    ids=str,
)  # fmt: skip
def test_bad_input_is_one_line(arguments, says):
    done = run(DECODE, *arguments)
    assert done.exit_code == 1
    assert says in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("more", [[], ["--simulate", "--capacity", "1 MB"]], ids=str)
def test_a_workload_without_shapes_is_refused(tmp_path, more):
    table = tmp_path / "kernels.csv"
    table.write_text("name,calls,total_us\nfoo,10,100\n")
    done = run(str(table), *more)
    assert done.exit_code == 1
    assert "nothing is known of what its operations read and write" in done.output
    assert done.output.count("\n") == 1


@pytest.mark.parametrize("capacity", [16, 64, 256, 1024])
def test_looking_up_agrees_with_exact_simulation(capacity):
    for name in (DECODE, "deepseek_ocr_decode_grouped"):
        found = simulated(
            ns.load_workload(name), Cache(capacity=capacity * 2**20, line=8192, ways=0)
        )
        assert found.hits == pytest.approx(found.profiled, abs=0.01)


def test_a_victim_cache_adds_its_capacity():
    w, line = ns.load_workload(DECODE), 65536
    one, two = (simulated(w, Cache(capacity=700 * 2**20, line=line, ways=0, victim=v)).hits
                for v in (0, 128 * 2**20))  # fmt: skip
    assert one < 0.2  # small data that come again soon
    assert two > 0.99


def test_levels_add_up_and_their_energy_by_hand():
    w, arch = ns.load_workload(DECODE), ns.load_arch("h200")
    found = traffic(w, Designs(arch))
    moved = sum(w[name].sum() for name in BYTES) / len(w.steps)
    assert sum(float(found[lv][g][0]) for lv in found for g in GROUPS) == pytest.approx(moved)
    of = {level: sum(float(m[0]) for m in groups.values()) for level, groups in found.items()}
    by_hand = of["dram"] * 15.4e-12 * 8 + of["l2"] * 7e-12 * 8
    assert ns.replay(w, arch, "graph").movement_j == pytest.approx(by_hand)


def test_energy_is_unknown_where_a_machine_does_not_say():
    assert ns.replay(ns.load_workload(DECODE), ns.load_arch("mi300x"), "graph").movement_j is None


def test_experts_by_hand():
    # two of four, all alike: half were used a step ago, a quarter of them two steps ago
    share, touched = last_used(zipf(4, 0.0), 2.0)
    assert share.sum() == pytest.approx(1.0)
    assert share[:2] == pytest.approx([0.5, 0.25])
    assert touched[:2] == pytest.approx([2.0, 3.0])
    assert probabilities(zipf(64, 1.0), 6.0).sum() == pytest.approx(6.0)
    skewed, even = (last_used(zipf(64, s), 6.0)[0][0] for s in (1.0, 0.0))
    assert skewed > 2 * even


def test_popularity_needs_one_number_an_expert():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    with pytest.raises(InputError, match="64 numbers"):
        _ = w.renamed(w.name, experts=[1.0, 2.0]).reuse
    given = w.renamed(w.name, experts=[1.0] * 64).reuse
    assert np.allclose(given.windows, w.reuse.windows)


IN_PLACE = {"sram_compute__capacity": 4e6, "sram_compute__largest": 2e6,
            "sram_compute__bandwidth": 1e13, "sram_compute__latency": 1e-7}  # fmt: skip


def in_step(size):
    """Return a workload's GEMV of 1 x 1024 x 512, the only weights of its step [B]."""
    w = ns.load_workload(DECODE)
    row = int(np.flatnonzero(w.mask("kind", "gemv") & (w["read_weight"] == size))[0])
    return w.operations(np.array([row]))


def test_small_layers_are_computed_where_their_weights_lie():
    o = in_step(524288.0)
    small = ns.load_workload(DECODE).reuse.weights
    held = small[small <= 2e6].sum()
    h200, values = ns.load_arch("h200"), dict(IN_PLACE)
    for capacity, inside in ((held, True), (held - 1, False)):
        values["sram_compute__capacity"] = capacity
        arch = h200
        for path, value in values.items():
            arch = ns.with_value(arch, path.replace("__", "."), value)
        time = kernel_time(o, Designs(arch)).item()
        by_hand = 1e-7 + 524288.0 / 1e13
        assert (time == pytest.approx(by_hand)) is inside


def test_arrays_without_their_numbers_are_refused():
    o = operations({"kind": "gemv", "m": 1, "n": 64, "k": 64, "read_weight": 8192.0})
    with pytest.raises(InputError, match=r"sram_compute\.largest"):
        kernel_time(o, Designs(machine(sram_compute__capacity=1e6)))


def test_a_memory_without_a_bandwidth_is_refused():
    o = operations({"kind": "gemv", "m": 1, "n": 64, "k": 64, "read_weight": 8192.0})
    with pytest.raises(InputError, match=r"weight_sram\.bandwidth"):
        kernel_time(o, Designs(machine(memories__weight_sram__capacity=1e6)))


def test_tiles_must_fit_the_memory_of_a_unit():
    o = operations({"m": 4096, "n": 4096, "k": 4096, "flop": 2.0 * 4096**3})
    h200 = ns.load_arch("h200")
    tiny, own = (kernel_time(o, Designs(ns.with_value(h200, "memories.l1.capacity", size))).item()
                 for size in ("16 KiB", "228 KiB"))  # fmt: skip
    assert tiny > 1.05 * own


def test_capacities_sort_loads_by_hand():
    w = ns.load_workload(DECODE)
    none, all_of_it = locality(w, [1.0, 1e12]).missed["weight"]
    assert none == pytest.approx(w["read_weight"].sum() / len(w.steps))
    assert all_of_it == 0
