"""The three studies of benchmarks/host_studies.py: figures, layout, and what is said of them."""

import csv
import importlib
import json

import numpy as np
import pytest

import npusim as ns
from npusim.serving import serve
from npusim.serving.arrivals import crowd
from tests.conftest import ROOT, SHARED

FACTS = SHARED / "facts"


@pytest.fixture(scope="module")
def bench():
    """Return the benchmark's modules by their last name."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        yield {name: importlib.import_module(f"host_studies{name and '_'}{name}")
               for name in ("", "figures", "request", "service", "vision")}  # fmt: skip


@pytest.fixture(scope="module")
def table(bench):
    if not FACTS.is_dir():
        pytest.skip("../shared is not beside the checkout")
    return bench["request"].table()


# ---------------------------------------------------------------- figures


@pytest.mark.shared
def test_the_figures_are_those_of_the_facts(bench):
    study = bench["figures"]
    with (FACTS / "study_figures.csv").open() as lines:
        told = {(r["study"], r["quantity"]): r["value"] for r in csv.DictReader(lines)}
    here = {
        ("seed 000", "wall"): f"{study.WALL_S}",
        ("seed 000", "device-busy"): f"{1e3 * study.BUSY_S}",
        ("seed 000", "batch 1 / 2 / 4 aggregate"): " / ".join(map(str, study.AGGREGATE.values())),
        ("seed 000", "cold / warm first request"): f"{study.COLD_S} / {study.WARM_S}",
        ("seed 001", "seqs_1_len_1024 mean / P50 / P95 / throughput"):
            f"{study.ODD_ROW[0]:.4f} / {study.ODD_ROW[1]} / {study.ODD_ROW[2]} / 0.5757",
        ("seed 001", "formal run sequential"): f"{study.SEQUENTIAL_S} / {study.SEQUENTIAL_PER_S}",
        ("seed 001", "formal run 4 concurrent"): f"{study.FOUR_S} / {study.FOUR_PER_S}",
        ("seed 002", "single request"): f"{study.SINGLE_S[0]:.4f} -> {study.SINGLE_S[1]:.4f}",
        ("seed 002", "4x8 mean / P50 / P95"):
            " / ".join(f"{100 * g:.2f}" for g in study.GAIN.values()),
    }  # fmt: skip
    assert {key: told[key] for key in here} == here
    means = [v.split(" / ")[0] for (s, q), v in told.items() if s == "seed 001" and "seqs" in q]
    assert [f"{mean:.4f}" for mean in (study.ODD_ROW[0], *study.CLEAN_MEANS)] == means
    hyper = json.loads((FACTS / "paddleocr_vl.json").read_text())
    assert hyper["vision"]["num_hidden_layers"] == study.VISION_LAYERS


def test_answers_of_pairs_are_latency_times_rate(bench):
    study = bench["figures"]
    for tokens, seconds, rate in zip(
        study.PAIRS, study.PAIRS_S, study.PAIRS_TOKENS_PER_S, strict=True
    ):
        assert sum(tokens) / max(seconds) == pytest.approx(rate, abs=0.6)
    assert np.mean(study.PAIRS_TOKENS_PER_S) == pytest.approx(study.AGGREGATE[2], abs=0.05)


@pytest.mark.shared
def test_the_tables_of_the_page_are_those_of_the_benchmark(bench, table):
    text = bench[""].PAGE.read_text()
    assert {name for _, name, _ in bench[""].BLOCK.findall(text)} == set(bench[""].TABLES)
    assert bench[""].page(text) == text, "run: python benchmarks/host_studies.py --write"


# ---------------------------------------------------------------- the request of 4.38 s


@pytest.mark.shared
def test_a_step_has_the_listed_calls_and_all_of_device_time(bench, table):
    w = bench["request"].request(table)
    assert len(w) == 36_144
    assert len(w.steps) == 165
    assert w["duration_s"].sum() == pytest.approx(0.8543, rel=2e-3)
    names = w.text("kernel")
    assert (w["step"] == 0).sum() == 27  # vision attention, by itself
    attention = np.array([n.startswith("flash_fwd_splitkv") for n in names])
    assert set(np.bincount(w["step"][attention])[1:].tolist()) == {18}  # 2,952 / 164
    assert w["sync"].sum() == 165


@pytest.mark.shared
def test_launches_that_are_not_listed_carry_the_rest(bench, table):
    w = bench["request"].request(table, 350)
    more = w.mask("kernel", "not listed")
    assert set(np.bincount(w["step"][more], minlength=165)[1:].tolist()) == {130}
    assert w["duration_s"].sum() == pytest.approx(0.8543, rel=2e-3)
    # 16 % of 853 ms over 130 x 164 launches
    assert w["duration_s"][more] == pytest.approx(0.16 * 0.85314 / (130 * 164), rel=1e-3)


@pytest.mark.shared
def test_host_then_device_is_the_studys_sum(bench, table):
    """95 us x 220 launches and 5.2 ms of device a step, one after the other: within 5 %, as asked.

    Wall, its share that the device is busy, and time a token follow; device time is given.
    """
    request, study = bench["request"], bench["figures"]
    arch = ns.load_arch("metax_c500")
    each = request.Reading("", None, 95e-6, every=True)
    found = request.accounted(table, arch, each)
    by_hand = 36_144 * 95e-6 + 0.85314
    assert found.wall_s == pytest.approx(by_hand, rel=1e-3)
    assert found.wall_s == pytest.approx(study.WALL_S, rel=0.05)
    assert found.busy_s / found.wall_s == pytest.approx(0.195, rel=0.05)
    assert found.wall_s / study.TOKENS == pytest.approx(26.5e-3, rel=0.05)
    assert found.busy_s / study.STEPS == pytest.approx(5.2e-3, rel=0.05)


@pytest.mark.shared
def test_a_host_that_runs_ahead_hides_the_device(bench, table):
    request = bench["request"]
    arch = ns.load_arch("metax_c500")
    ahead = request.accounted(table, arch, request.Reading("", None, 95e-6))
    assert ahead.wall_s == pytest.approx(36_144 * 95e-6, rel=0.01)
    dearer = request.accounted(table, arch, request.Reading("", None, None))
    assert dearer.host_s == pytest.approx(4.38 / 36_144)
    assert dearer.wall_s == pytest.approx(4.38, rel=0.01)


@pytest.mark.shared
def test_what_tracing_would_cost(bench, table):
    request = bench["request"]
    launches = request.launches_a_step(table)
    assert launches == pytest.approx((36_144 - 27) / 164)
    # 26.545 ms with the tracer, 21.786 without
    assert request.tracing_s(launches) == pytest.approx(4.759e-3 / 220.2, rel=1e-3)


def test_the_fourth_study_counts_launches(bench):
    study = bench["figures"]
    counted = (study.FOURTH_KERNELS + study.FOURTH_COPIES) / study.FOURTH_STEPS
    assert round(counted) == bench["request"].FOURTH
    busy = study.FOURTH_BUSY_S / study.FOURTH_STEPS
    assert busy == pytest.approx(5.2e-3, rel=0.05)


# ---------------------------------------------------------------- steps and clients


def test_runs_of_two_clients_are_told_from_those_that_overlap(bench):
    service, study = bench["service"], bench["figures"]
    told = service.pairs(service.runs_cost())
    assert told == pytest.approx(study.PAIRS_TOKENS_PER_S, rel=0.05)
    assert np.mean(told) == pytest.approx(study.AGGREGATE[2], rel=0.02)
    wrong = np.mean(service.pairs(service.asked_cost()))
    assert wrong < 0.85 * study.AGGREGATE[2]


def test_the_image_request_without_a_tracer(bench):
    """Steps of text requests and what another study's request takes to be taken in."""
    service, study = bench["service"], bench["figures"]
    cost = service.runs_cost()
    for seconds, tokens in study.IMAGES:
        sent = [[service.request(service.taken_in(cost), tokens - 1)]]
        assert serve(sent, service.engine(cost)).end_s == pytest.approx(seconds, rel=0.05)


def test_four_clients_lie_between_packed_and_one_by_one(bench):
    service, study = bench["service"], bench["figures"]
    for cost in (service.asked_cost(), service.runs_cost()):
        assert service.taken_in(cost) == pytest.approx(0.3572 - 8 * cost.time(1))
        low, high = service.together(cost), service.one_by_one(cost)
        assert low.latency_s.mean() < study.FOUR_S < high.latency_s.mean()
        assert low.requests_per_s > study.FOUR_PER_S > high.requests_per_s
        by_hand = 4 * service.taken_in(cost) + 8 * cost.time(4)
        assert high.latency_s.mean() == pytest.approx(by_hand)


def test_rounds_and_clients_are_one_reading_for_requests_of_one_size(bench):
    service = bench["service"]
    sent = crowd(4, 8, [service.request(0.19, 8)])
    runs = [serve(sent, service.engine(service.runs_cost()), rounds=r) for r in (False, True)]
    assert runs[0].latency_s == pytest.approx(runs[1].latency_s)


def test_the_study_of_four_clients_agrees_with_itself(bench):
    """Little's law: clients in the service are requests a second times their latency."""
    study = bench["figures"]
    assert 3.8 < study.FOUR_PER_S * study.FOUR_S < study.FOUR_CLIENTS
    one = study.SEQUENTIAL_PER_S * study.SEQUENTIAL_S
    assert one == pytest.approx(1, abs=1e-3)


# ---------------------------------------------------------------- the vision path


def test_each_change_removes_its_work_from_the_trace(bench):
    vision, study = bench["vision"], bench["figures"]
    w = vision.measured()
    rows = vision.removable(w)
    kind, operator = w.text("kind"), w.text("operator")
    layers, steps = study.VISION_LAYERS, len(w.steps)
    assert rows[5].sum() == layers * steps  # a cast a layer
    assert rows[4].sum() == 5 * layers * steps  # a difference, three reads, a copy
    assert w["sync"][rows[4]].sum() == 3 * layers * steps
    together = np.sum(list(rows.values()), axis=0)
    assert together.max() == 1  # none twice
    assert w["sync"][together == 0].sum() == 0  # no wait is left
    kept = together == 0
    for what in ("gemm", "conv", "attention", "norm", "activation"):
        assert kept[kind == what].all()
    assert kept[operator == "aten::cos"].all()


def test_a_launch_and_a_wait_by_hand(bench):
    vision, study = bench["vision"], bench["figures"]
    arch = ns.load_arch("metax_c500")
    host, copy, sync = (arch[p] for p in ("launch.eager.host", "launch.eager.copy_latency",
                                          "host.sync"))  # fmt: skip
    change = study.Change(0, "test", 10, 2)
    assert vision.counted_s(change, arch) == pytest.approx(12 * host + 2 * (copy + sync))
    everything = vision.all_changes()
    assert (everything.launches, everything.syncs) == (77, 9)


def test_the_measured_saving_lies_between_the_two_estimates(bench):
    vision, service = bench["vision"], bench["service"]
    arch = ns.load_arch("metax_c500")
    low = vision.counted_s(vision.all_changes(), arch)
    traced = vision.traced(arch)
    assert low < service.saved_s() < traced[0][2]
    assert all(saved > 0 for _, _, saved in traced.values())
    alone = sum(traced[n][2] for n in range(1, 6))
    assert traced[0][2] == pytest.approx(alone, rel=0.01)  # the host decides: they add up


def test_waits_cost_more_where_the_device_is_behind(bench):
    found = list(bench["vision"].waits_cost(ns.load_arch("metax_c500")))
    each = [(wall - free) / waits for _, wall, free, waits in found]
    assert each == sorted(each)
    assert each[-1] > 10 * each[0] > 0
    assert found[0][0] < 0.2 * found[0][1]  # the host is the slower lane
    assert found[-1][0] > 0.8 * found[-1][1]  # the device is


def test_what_4x8_gains_by_hand(bench):
    service = bench["service"]
    cost, s = service.runs_cost(), service.saved_s()
    assert s == pytest.approx(0.0169)
    taken, step = service.taken_in(cost), cost.time(4)
    by_hand = {
        service.one_by_one: -4 * s / (4 * taken + 8 * step),
        service.packed: -2 * s / (2 * taken + 8 * step),  # two groups
        service.together: -s / (taken + 8 * step),
    }
    for way, gain in by_hand.items():
        assert service.change(way, cost, s)["mean"] == pytest.approx(gain, rel=0.01)
    steps = round((7.4039 - taken) / cost.time(1))
    gain = service.change(service.long_answers, cost, s)["mean"]
    assert gain == pytest.approx(-4 * s / (4 * taken + steps * step), rel=0.01)


def test_only_a_first_request_explains_both_figures(bench):
    service, study = bench["service"], bench["figures"]
    cost, s = service.runs_cost(), service.saved_s()
    measured = study.GAIN["mean"]
    for way in (service.one_by_one, service.packed, service.together):
        assert 0.5 < service.change(way, cost, s)["mean"] / measured < 1.5
    assert service.change(service.long_answers, cost, s)["mean"] / measured < 0.2
    most = service.change(service.long_answers, cost, service.cached_s())["mean"]
    assert most / measured < 0.7  # not even without any encoder
    assert service.needed_s(service.long_answers, cost) > 8 * s


@pytest.mark.parametrize("clients", [1, 2, 4])
def test_everybody_pays_for_what_blocks(bench, clients):
    service = bench["service"]
    cost = service.runs_cost()
    assert service.paid(service.one_by_one, cost, clients) == pytest.approx(clients)
    assert service.paid(service.packed, cost, clients) == pytest.approx(min(clients, 2))
    assert service.paid(service.together, cost, clients) == pytest.approx(1)
