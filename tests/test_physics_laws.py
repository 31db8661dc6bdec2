"""Laws that hold whatever the numbers are: of units of time, of limits, of order, of spelling."""

import json
from dataclasses import replace as with_fields

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog, config, units
from npusim.arch import Designs
from npusim.durations import durations
from npusim.energy import step_energy
from npusim.lanes import replay
from npusim.models.area import die_area
from npusim.models.kernel import kernel_cost
from npusim.parameters import PARAMETERS
from npusim.workload import COLUMNS, Steps, Workload, stream_order
from tests.builder import timed, workload
from tests.machines import machine, operations
from tests.test_physics import LAUNCHES, WORKS
from tests.test_physics import machine as shipped

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")


def in_half_the_time(arch):
    """Return a machine whose every rate is twice as high and every time half as long."""
    of = {p: PARAMETERS[p].unit for p in arch.values}
    named = {unit: () if unit in units.CHOICES else units.dimension(unit) for unit in of.values()}
    powers = {p: dict(named[of[p]]).get("s", 0) for p in of}
    return with_fields(arch, values={p: v * 0.5 ** powers[p] for p, v in arch.values.items()})


def half_as_long(w):
    """Return a workload all of whose times are half as long."""
    columns = {c: w[c] / 2 if COLUMNS[c].unit == "s" else w[c] for c in COLUMNS}
    steps = Steps(w.steps.wall_s / 2, w.steps.tail_s / 2)
    return Workload(w.name, columns, w.labels, steps, w.edges, w.meta)


@pytest.mark.parametrize(("place", "name"), [*enumerate(catalog.names("archs")),
                                             (0, "everything"), (1, "arrays")])  # fmt: skip
def test_with_all_rates_doubled_and_all_times_halved_a_step_takes_half(place, name):
    """Time is the only unit that changes: any constant of time in the code would show."""
    w, arch = ns.load_workload(WORKS[place % len(WORKS)]), shipped(name)
    assert w["host_s"].any()
    slow, fast = Designs(arch), Designs(in_half_the_time(arch))
    long, short = durations(w, slow), durations(half_as_long(w), fast)
    assert short.busy() == pytest.approx(long.busy() / 2, rel=1e-12)
    for launch in LAUNCHES:
        one, two = replay(w, slow, long, launch), replay(half_as_long(w), fast, short, launch)
        for time in ("wall_s", "device_busy_s", "host_busy_s", "device_idle_s", "host_wait_s"):
            assert getattr(two, time) == pytest.approx(getattr(one, time) / 2, rel=1e-9, abs=1e-12)
        same = [step_energy(v, d, t, r.wall_s) for v, d, t, r in
                ((w, slow, long, one), (half_as_long(w), fast, short, two))]  # fmt: skip
        if same[0] is not None:  # twice the power for half the time
            assert same[1].joules == pytest.approx(same[0].joules, rel=1e-9, nan_ok=True)
    np.testing.assert_array_equal(die_area(slow), die_area(fast))


FAR = 1e6  # so far beyond the other limits that they do not count
LIMITED = {
    "compute of products": ("gemm", "bf16", {"m": 4096, "n": 4096, "k": 4096, "flop": 2 * 4096**3},
                            ("matrix.bf16.rate",), {}),
    "compute of lanes": ("pointwise", "fp32", {"flop": 1e12}, ("vector.fp32.rate",), {}),
    "DRAM": ("pointwise", "fp32", {"read_weight": 1e12}, ("memories.dram.bandwidth",),
             {"memories.dram.bandwidth": 1e12}),
    "DRAM of products": ("gemv", "bf16", {"m": 1, "n": 65536, "k": 65536, "flop": 2.0 * 65536**2,
                                          "read_weight": 2.0 * 65536**2},
                         ("memories.dram.bandwidth",),
                         {"memories.dram.bandwidth": 1e10, "gemm.ramp": 0.0}),
    "cache": ("pointwise", "fp32", {"read_activation": 5e5, "distance_activation": 0.0},
              ("memories.l2.slice_width",), {"memories.l2.slice_width": 1.0}),
}  # fmt: skip


@pytest.mark.parametrize("limit", LIMITED)
@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_far_beyond_the_ridge_time_goes_as_one_over_the_rate(limit, factor):
    kind, dtype, sizes, paths, changes = LIMITED[limit]
    arch = with_fields(machine(), values={**machine().values, **changes,
                                          "units.load_rate": 64 * FAR})  # fmt: skip
    rates = {path: arch[path] * np.array([1.0, factor]) for path in paths}
    cost = kernel_cost(operations({"kind": kind, "dtype": dtype, **sizes}), Designs(arch, rates))
    slow, fast = (cost.time - cost.floor)[0]
    assert slow > 0
    assert fast == pytest.approx(slow / factor, rel=1e-2)


SPANS = st.lists(
    st.tuples(st.integers(1, 50), st.integers(1, 3), st.sets(st.integers(0, 20), max_size=3)),
    min_size=1, max_size=20,
)  # fmt: skip


def graph_of(spans):
    """Return a workload of given durations [us], streams and dependencies, and its longest path."""
    rows = [timed(took * 1e-6, stream=stream) for took, stream, _ in spans]
    streams = np.array([stream for _, stream, _ in spans])
    indptr, indices = stream_order(streams, np.zeros(len(spans), dtype=np.int64))
    needs = [sorted({*indices[indptr[i] : indptr[i + 1]].tolist(),
                     *(j for j in spans[i][2] if j < i)}) for i in range(len(spans))]  # fmt: skip
    path: list[float] = []
    for i, (took, _, _) in enumerate(spans):
        path.append(took * 1e-6 + max((path[j] for j in needs[i]), default=0.0))
    edges = (np.cumsum([0, *map(len, needs)]), np.array([j for n in needs for j in n], np.int64))
    return workload(*rows, edges=edges), max(path)


@given(spans=SPANS, launch=st.sampled_from(LAUNCHES), gap=st.sampled_from([0.0, 1e-6, 2e-5]))
def test_a_step_lies_between_its_critical_path_and_the_sum_of_all(spans, launch, gap):
    arch = ns.load_arch("h200")
    free = {p: 0.0 for p in arch.values if p.startswith("launch.") and PARAMETERS[p].unit == "s"}
    gaps = dict.fromkeys((f"launch.{mode}.interval" for mode in LAUNCHES), gap)
    arch = with_fields(arch, values={**arch.values, **free, **gaps, "host.sync": 0.0})
    w, critical = graph_of(spans)
    designs = Designs(arch)
    found = replay(w, designs, durations(w, designs), launch)
    serial = sum(took for took, _, _ in spans) * 1e-6
    slack = 1 + 1e-9
    assert critical <= found.wall_s[0] * slack
    assert found.wall_s[0] <= (serial + gap * (len(spans) - 1)) * slack
    if gap == 0.0:  # nothing but the graph: the earliest start of each is the longest path to it
        assert found.wall_s[0] == pytest.approx(critical, rel=1e-9)
    assert max(critical / 3, serial / 3) <= found.device_active_s[0] * slack  # three streams


@pytest.mark.parametrize("name", ["h200", "a100", "decode_npu", "rtx_4090"])
@pytest.mark.parametrize("launch", LAUNCHES)
def test_energy_is_power_times_time_and_the_sum_of_its_blocks(name, launch):
    found = ns.replay(ns.load_workload("paddleocr_vl_decode"), ns.load_arch(name), launch=launch)
    blocks = sum(sum(kinds.values()) for kinds in found.energy_by_block.values())
    assert found.energy_j == pytest.approx(found.power_w * found.wall_s, rel=1e-12)
    assert found.energy_j == pytest.approx(blocks, rel=1e-12)
    assert 0 < found.movement_j < found.energy_j
    low, high = found.energy_band_j
    assert low <= found.energy_j <= high


SPELLINGS = {
    "memories.dram.bandwidth": (2e12, "2 TB/s", "2000 GB/s", "2e12 B/s", "16 Tbit/s"),
    "memories.l2.capacity": (2.0**25, "32 MiB", "32768 KiB", "33554432 B", "33.554432 MB"),
    "units.clock": (1.5e9, "1.5 GHz", "1500 MHz", "1.5e9 Hz"),
    "memories.dram.latency": (5e-7, "500 ns", "0.5 us", "0.5 µs", "5e-7 s"),
    "matrix.efficiency": (0.75, "0.75", "75e-2"),
}


@pytest.mark.parametrize("path", SPELLINGS)
def test_how_a_number_is_written_changes_no_bit(path):
    value, *texts = SPELLINGS[path]
    w, h200 = ns.load_workload("paddleocr_vl_decode"), ns.load_arch("h200")
    expected = ns.replay(w, ns.with_value(h200, path, value), launch="graph")
    for text in texts:
        assert config.read_setting(f"{path}={text}") == (path, value)
        found = ns.replay(w, ns.with_value(h200, path, text), launch="graph")
        assert (found.wall_s, found.energy_j) == (expected.wall_s, expected.energy_j)


def test_a_machine_written_in_base_units_is_the_same_machine(root, tmp_path):
    """Every number of the file in the unit of its parameter, all digits written out."""
    h200 = ns.load_arch("h200")

    def plain(node, path):
        if isinstance(node, dict) and "value" in node:
            p = PARAMETERS[path]
            if p.unit in units.CHOICES:
                return node
            number = repr(h200[path] / units.parse(f"1 {p.unit}".removesuffix(" 1"), p.unit))
            text = number if p.unit == "1" else f"{number} {p.unit}"
            return {k: text if k == "value" else v for k, v in node.items()}
        if isinstance(node, dict):
            return {k: plain(v, f"{path}.{k}".lstrip(".")) for k, v in node.items()}
        return node

    tree = yaml.safe_load((root / "archs" / "h200.yaml").read_text(encoding="utf-8"))
    apart = {k: tree.pop(k) for k in ("calibration", "sweep") if k in tree}
    file = tmp_path / "h200.yaml"
    file.write_text(yaml.safe_dump({**plain(tree, ""), **apart}), encoding="utf-8")
    again = ns.load_arch(file)
    assert dict(again.values) == pytest.approx(dict(h200.values), rel=1e-14)


def test_columns_of_a_workload_come_in_any_order(tmp_path):
    source = catalog.find("workloads", "paddleocr_vl_decode")
    table = pq.read_table(source)
    turned, framed = tmp_path / "turned.parquet", tmp_path / "framed.parquet"
    pq.write_table(table.select(table.column_names[::-1]), turned)
    frame = table.to_pandas(ignore_metadata=True)
    columns = [c for c in table.column_names if c != "waits_for"]
    again = pa.Table.from_pandas(frame[columns], preserve_index=False)
    again = again.append_column("waits_for", table["waits_for"])
    pq.write_table(again.replace_schema_metadata(table.schema.metadata), framed)
    h200 = ns.load_arch("h200")
    first, *others = (ns.replay(ns.load_workload(f), h200) for f in (source, turned, framed))
    for other in others:
        assert (other.wall_s, other.device_busy_s) == (first.wall_s, first.device_busy_s)
        assert other.energy_j == first.energy_j


def test_the_order_in_which_labels_are_numbered_changes_no_bit():
    w = ns.load_workload("deepseek_ocr_decode_grouped")
    labels = {name: texts[::-1] for name, texts in w.labels.items()}
    columns = {c: len(labels[c]) - 1 - w[c] if c in labels else w[c] for c in COLUMNS}
    other = Workload(w.name, columns, labels, w.steps, w.edges, w.meta, host=w.host)
    designs = Designs(ns.load_arch("h200"))
    for launch in LAUNCHES:
        one, two = (replay(v, designs, durations(v, designs), launch) for v in (w, other))
        assert two.wall_s == pytest.approx(one.wall_s, rel=1e-14)
    assert json.dumps(w.meta, default=str) == json.dumps(other.meta, default=str)
