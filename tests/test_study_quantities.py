"""Quantities that claims of design studies measure: by hand, by measured data, and refusals."""

import json

import numpy as np
import pytest

import npusim as ns
from npusim import catalog
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.models.area import block_areas
from npusim.studies import quantities
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.quantities import (
    area_share,
    attention,
    busy_share,
    chips,
    clients,
    clock_choice,
    cold_start,
    handover,
    long_tail,
    memory,
    peak_per_watt,
    serving,
    sram_area,
    time_share,
    waits,
    without,
    work_per_joule,
)

VL = [f"paddleocr_vl_{phase}" for phase in ("vision", "prefill", "decode")]
FASTDEPLOY = {"model": "paddleocr_vl", "lowering": "fastdeploy", "arch": "metax_c500"}


def ask(quantity, settings=None, **options):
    return quantity.measure(quantity.Options.model_validate(options), settings or {})


# ---------------------------------------------------------------- what all of them keep


@pytest.mark.parametrize("name", quantities.names())
def test_each_says_what_it_is_and_refuses_what_it_does_not_know(name):
    quantity = quantities.find(name)
    assert quantity.UNIT
    assert quantity.FIGURE
    assert callable(quantity.doubts)
    with pytest.raises(ValueError, match="Extra inputs are not permitted"):
        quantity.Options.model_validate({"nobody_reads_this": 1})


def test_doubts_are_what_a_machine_assumes_with_a_range():
    c500 = ns.load_arch("metax_c500")
    found = assumed(c500, ["launch.eager.host", "power.limit", "no.such.path"])
    assert list(found) == ["launch.eager.host"]
    assert found["launch.eager.host"].low < 95e-6 < found["launch.eager.host"].high
    assert with_settings(c500, {"launch.eager.host": 1e-5})["launch.eager.host"] == 1e-5


# ---------------------------------------------------------------- shares of time


def test_a_share_is_the_sum_over_the_kernels_meant():
    w = ns.load_workload("paddleocr_vl_decode")
    seconds, kind = w["duration_s"], w.text("kind")
    found = ask(time_share, workload=w.name, kinds=["gemv"])
    assert found.value == pytest.approx(seconds[kind == "gemv"].sum() / seconds.sum())
    # by hand, from the table of the trace: 699 of 1,686 us
    assert found.value == pytest.approx(699 / 1686, abs=2e-3)
    assert found.low < found.value < found.high
    short = ask(time_share, workload=w.name, base="launches", shorter="5 us")
    assert short.value == pytest.approx((seconds < 5e-6).mean())
    named = ask(time_share, workload=w.name, kernels="gemv|splitK")
    assert 0 < named.value < 1


def test_shares_of_all_kinds_add_up_to_one():
    w = ns.load_workload("deepseek_ocr_decode")
    shares = [ask(time_share, workload=w.name, kinds=[k]).value for k in w.labels["kind"]]
    assert sum(shares) == pytest.approx(1)
    assert ask(time_share, workload=w.name, kinds=["conv"]).value == 0  # has none


def test_the_profiled_program_has_the_shares_that_were_profiled():
    """Seed 004: 49.2 % GEMV, 21.7 % pointwise, 6 % casts, 3.8 % attention; nothing is fitted."""
    program = {"model": "deepseek_ocr", "lowering": "hf-remote", "context": 926,
               "arch": "rtx_5090"}  # fmt: skip
    profiled = [(["gemv"], 0.492), (["pointwise", "activation"], 0.217), (["cast"], 0.06),
                (["attention", "attention_combine"], 0.038)]  # fmt: skip
    for kinds, share in profiled:
        found = ask(time_share, kinds=kinds, **program)
        assert found.low < share < found.high, kinds
    fewer = ask(time_share, {"floor.pointwise": 1e-8}, kinds=["gemv"], **program)
    assert fewer.value > ask(time_share, kinds=["gemv"], **program).value
    assert "floor.pointwise" in time_share.doubts(time_share.Options(**program))


def test_classes_are_those_of_shapes():
    w, h200 = ns.load_workload("deepseek_ocr_vision"), ns.load_arch("h200")
    from npusim.classes import by_shapes

    found = ask(time_share, workload=w.name, base="launches", limit="compute-bound")
    assert found.value == pytest.approx((by_shapes(w, h200) == "compute-bound").mean())


@pytest.mark.parametrize(
    "options, message",
    [
        ({}, "one of workload and model"),
        ({"model": "deepseek_ocr"}, "no times of its own"),
        ({"workload": "paddleocr_vl_decode", "kinds": ["nonsense"]}, "no kind of operation"),
        ({"workload": "paddleocr_vl_decode", "limit": "slow"}, "no class"),
    ],
)
def test_a_share_of_nothing_is_refused(options, message):
    with pytest.raises(InputError, match=message):
        ask(time_share, **options)
    with pytest.raises(InputError, match="changes nothing of a trace"):
        ask(time_share, {"floor.matmul": 1e-6}, workload="paddleocr_vl_decode")


def test_a_device_is_as_busy_as_measured():
    # seed 000: 854.3 ms over 164 steps, 4.38 s over 165 tokens (26.5 ms)
    found = ask(busy_share, workload="paddleocr_vl_decode", device="MetaX C500")
    assert found.value == pytest.approx((854.3 / 164) / 26.5, rel=1e-3)
    assert found.value == pytest.approx(0.195, rel=0.02)
    # seed 004: 179.07 ms of 629 to 707 ms over 64 tokens
    found = ask(busy_share, workload="deepseek_ocr_decode", device="NVIDIA GeForce RTX 5090")
    assert (found.low, found.high) == pytest.approx((179.07 / 707, 179.07 / 629), rel=1e-3)


def test_a_slower_host_leaves_the_device_idle():
    slow, fast = (ask(busy_share, {"launch.eager.host": t}, **FASTDEPLOY).value
                  for t in (95e-6, 10e-6))  # fmt: skip
    graph = ask(busy_share, launch="graph", **FASTDEPLOY).value
    assert slow < fast < graph < 1
    with pytest.raises(InputError, match="one of device and arch"):
        ask(busy_share, workload="paddleocr_vl_decode")
    with pytest.raises(InputError, match="has no measured device_busy"):
        ask(busy_share, workload="paddleocr_vl_decode_b8", device="MetaX C500")


def test_what_is_left_out_takes_its_launches_with_it():
    host = ns.load_arch("metax_c500")["launch.eager.host"]
    found = ask(without, kinds=["norm"], **FASTDEPLOY)
    # 18 layers with two norms each, and the last one, at 95 us each, of a host-bound step
    whole = ns.replay(_fastdeploy(), ns.load_arch("metax_c500")).wall_s
    assert (1 - found.value) * whole == pytest.approx(37 * host, rel=0.02)
    with pytest.raises(InputError, match="has no such operations"):
        ask(without, kinds=["conv"], **FASTDEPLOY)


def _fastdeploy():
    from npusim.templates import template

    return template("paddleocr_vl", "decode", lowering="fastdeploy")


# ---------------------------------------------------------------- clients, first requests


def test_a_step_paid_once_is_shared():
    # 45.9 and 65.2 tokens/s: 12.9 + 8.9 B ms, so four in 48.4 ms
    found = ask(clients, throughput={"1": 45.9, "2": 65.2}, clients=4)
    assert found.value == pytest.approx((4 / (12.898e-3 + 4 * 8.888e-3)) / 45.9, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((1, 4))  # all or nothing is shared
    between = ask(clients, throughput={"1": 45.9, "2": 65.2}, clients=4,
                  between=["1.2 ms", "8.9 ms"])  # fmt: skip
    assert 1.79 < between.low < between.high < 3.5


def test_a_saving_is_felt_by_all_who_wait():
    """One by one, each of n clients waits for the other n - 1: n times the saving, closed loop."""
    options = {"figure": "latency", "dispatch": "20 ms", "each": "0 ms", "steps": 8, "requests": 40,
               "request": "0.36 s", "saved": "10 ms", "taken_in": "one by one",
               "between": ["0 ms", "0 ms"]}  # fmt: skip
    one = ask(clients, clients=1, **options)
    assert one.value == pytest.approx(0.35 / 0.36)
    # a round of four: each is taken in for 0.2 s, eight steps of 20 ms follow; all wait for all
    four = ask(clients, clients=4, **options)
    assert four.value == pytest.approx((4 * 0.19 + 0.16) / (4 * 0.2 + 0.16), rel=0.01)
    with pytest.raises(InputError, match="leaves nothing"):
        ask(clients, clients=1, **{**options, "request": "0.1 s"})
    with pytest.raises(InputError, match="needs throughput"):
        ask(clients, clients=1)


def test_a_cache_saves_what_compiling_takes():
    path = catalog.folder("workloads") / "experiments" / "h200_host_axes.json"
    rows = [r for r in json.loads(path.read_text()) if r.get("axis") == "first_use"]
    mean = {way: np.mean([r["first_us"] for r in rows if r["way"] == way]) / 1e6
            for way in ("compiled", "loaded")}  # fmt: skip
    found = ask(cold_start, filled="4.28 s", workloads=VL)
    more = 92 * (mean["compiled"] - mean["loaded"])  # 92 kernels: tests/test_cold_start.py
    assert found.value == pytest.approx(4.28 / (4.28 + more))
    assert found.low < found.value < found.high
    # what the study measured asks for (135.2 - 4.28) / 92 s a kernel beside loading
    each = (135.2 - 4.28) / 92 + mean["loaded"]
    held = ask(cold_start, {"kernel.compile": each}, filled="4.28 s", workloads=VL)
    assert held.value == pytest.approx(4.28 / 135.2)


def test_a_tail_tells_how_many_were_slow():
    run = {"requests": 10, "mean": "1.7370 s", "usual": "0.3333 s", "published": "8.0539 s"}
    # one: 10 x 1.737 - 9 x 0.3333 = 14.370; P95 of ten lies 0.55 of the way from the ninth to it
    by_hand = 0.3333 + 0.55 * (14.3703 - 0.3333)
    assert ask(long_tail, **run).value == pytest.approx(by_hand / 8.0539, rel=1e-4)
    # two of 7.352 s each: P95 lies between them
    assert ask(long_tail, slow=2, **run).value == pytest.approx(7.3518 / 8.0539, rel=1e-4)
    with pytest.raises(InputError, match="not a number of slow requests"):
        ask(long_tail, slow=10, **run)


def test_waits_cost_where_the_device_is_the_slower_lane():
    step = {"workload": "paddleocr_vl_vision", "arch": "metax_c500"}
    found = [ask(waits, slower=f, **step).value for f in (1.0, 4.0, 16.0)]
    # docs/host_studies.md: 98.9 to 98.0, 99.6 to 98.0, 200.4 to 185.1 ms
    assert found == pytest.approx([98.0 / 98.9, 98.0 / 99.6, 185.1 / 200.4], abs=1.5e-3)
    with pytest.raises(InputError, match="not a factor"):
        ask(waits, **{**step, "slower": 0.0})


# ---------------------------------------------------------------- attention


SAM = {"batch": 54, "heads": 12, "kv_heads": 12, "size": 64, "queries": 196, "keys": 196}
TOKEN = {"batch": 1, "heads": 10, "kv_heads": 10, "size": 128, "queries": 1, "keys": 926}


def test_no_kernel_beats_the_peak_at_an_equal_shape():
    """4 x 54 x 12 x 196 x 196 x 64 FLOP are 30 us of the peak of an RTX 5090."""
    found = ask(attention, arch="rtx_5090", library="fa2", measured="160.74 us", **SAM)
    flop = 4 * 54 * 12 * 196 * 196 * 64
    peak = ns.load_arch("rtx_5090")
    units = peak["units.count"] * peak["matrix.bf16.rate"] * peak["matrix.clock"]
    assert found.high < 160.74e-6 / (flop / units) < 15.5
    assert f"{flop / 1e9:.3g} GFLOP" in found.reason


def test_the_fast_kernel_is_that_of_a_token():
    found = ask(attention, arch="rtx_5090", library="fa2", measured="10.34 us", **TOKEN)
    assert found.low < 1 < found.high
    assert found.value == pytest.approx(1, rel=0.25)


def test_attention_agrees_with_what_was_measured():
    rows = json.loads((catalog.folder("workloads") / "experiments" / "h200_prefill_more.json")
                      .read_text())  # fmt: skip
    rows = [r for r in rows if not r["causal"]]
    assert len(rows) > 4
    ratios = []
    for r in rows:
        n = r["sequence"]
        shape = {"batch": r["batch"], "heads": r["heads"], "kv_heads": r["kv_heads"],
                 "size": r["head_dim"], "queries": n, "keys": n}  # fmt: skip
        # both are whole calls: cuDNN in place of cuDNN is no change
        same = ask(attention, arch="h200", library="cudnn", replaces="cudnn", **shape)
        assert same.value == 1
        told = ask(attention, arch="h200", library="cudnn", measured=f"{r['latency_us']} us",
                   **shape)  # fmt: skip
        ratios.append(told.value)
    assert 0.7 < np.median(ratios) < 1.5


def test_a_comparison_of_nothing_is_refused():
    with pytest.raises(InputError, match="one of measured and replaces"):
        ask(attention, arch="h200", library="fa2", **SAM)
    with pytest.raises(InputError, match="attends to itself"):
        ask(attention, arch="h200", library="fa2", replaces="fa3", **{**SAM, "queries": 100})
    with pytest.raises(InputError, match="no attention library"):
        ask(attention, arch="h200", library="fa9", replaces="fa2", **SAM)


# ---------------------------------------------------------------- several chips


def test_slower_links_cost_what_the_table_of_scale_out_says():
    """docs/scale_out.md: decode on 8 chips keeps 94 % of its rate at 300 GB/s."""
    plan = {"arch": "decode_npu", "model": "llama_3_1_8b", "batch": 32, "context": 4096,
            "both": {"tensor": 8}, "against": {"link.bandwidth": "900 GB/s"}}  # fmt: skip
    slow = ask(chips, design={"link.bandwidth": "300 GB/s"}, **plan)
    assert 1 / slow.value == pytest.approx(0.94, abs=0.006)
    rate = ask(chips, figure="tokens_per_s", design={"link.bandwidth": "300 GB/s"}, **plan)
    assert rate.value == pytest.approx(1 / slow.value)
    same = ask(chips, design={"link.bandwidth": "900 GB/s"}, **plan)
    assert (same.low, same.value, same.high) == (1, 1, 1)
    later = ask(chips, {"link.latency": 1e-4}, design={"link.bandwidth": "300 GB/s"}, **plan)
    assert later.value < slow.value  # a latency that is paid on both sides hides the bandwidth
    with pytest.raises(InputError, match="neither of a plan nor of a machine"):
        ask(chips, design={"tensors": 2}, **plan)


def test_a_copy_of_the_model_halves_the_rate_of_a_chip():
    found = ask(chips, arch="decode_npu", model="llama_3_1_8b", batch=2, context=1024,
                figure="tokens_per_s_chip", design={"data": 2}, against={})  # fmt: skip
    # each has one of two sequences: hardly faster than both on one chip, and there are two chips
    assert 0.5 < found.value < 0.55


def test_a_cache_goes_over_half_of_the_link():
    asked = {"arch": "h100", "model": "llama_3_1_8b", "tokens": 2000, "bandwidth": "300 GB/s"}
    found = ask(handover, **asked)
    h100 = ns.load_arch("h100")
    # 32 layers x 8 heads x 128 x 2 x 2 B = 131,072 B a token, one way over half of the link
    sent = 2000 * 131_072 / (150e9 * h100["link.efficiency"]) + h100["link.latency"]
    assert f"{1e6 * sent:.0f} us" in found.reason
    assert found.low < found.value < found.high
    wide = ask(handover, **{**asked, "bandwidth": "900 GB/s"})
    assert wide.value == pytest.approx(found.value / 3, rel=1e-3)


# ---------------------------------------------------------------- silicon, watts, joules


def test_shares_of_a_die_add_up():
    areas = block_areas(Designs(ns.load_arch("h100")))
    total = sum(float(a[0]) for a in areas.values())
    found = ask(area_share, arch="h100", block="matrix")
    assert found.value == pytest.approx(float(areas["matrix"][0]) / total)
    assert ask(area_share, arch="h100", block="die").value == pytest.approx(1)
    two = ask(area_share, arch="h100", blocks=["matrix", "l2"])
    assert two.value == pytest.approx(float((areas["matrix"] + areas["l2"])[0]) / total)
    with pytest.raises(InputError, match="no block of a die"):
        ask(area_share, arch="h100", block="gemm")


def test_units_of_one_node_are_compared_without_a_doubt():
    """70 units of 1,024 FLOP a clock beside 132 (and 12 spare) of 4,096: as their counts say."""
    npu, h100 = (ns.load_arch(n) for n in ("decode_npu", "h100"))
    found = ask(area_share, arch="decode_npu", block="matrix", against="h100")
    assert found.high - found.low < 1e-6 * found.value  # the area of a multiplier cancels

    def multipliers(a):
        return (a["units.count"] + a.values.get("units.spare", 0.0)) * a["matrix.bf16.rate"]

    assert found.value == pytest.approx(multipliers(npu) / multipliers(h100), rel=0.01)


def test_a_memory_takes_its_bytes_in_area():
    byte = ns.load_arch("h100")["node.n4.sram"]
    found = ask(sram_area, arch="h100", bytes="100 MB")
    assert found.value == pytest.approx(100e6 * byte / 858e-6)
    twice = ask(sram_area, {"node.n4.sram": 2 * byte}, arch="h100", bytes="100 MB")
    assert twice.value == pytest.approx(2 * found.value)
    # 12 layers x 10 heads x 128 x 2, 2 B each: 61,440 B a token
    cache = ask(sram_area, arch="h100", model="deepseek_ocr", tokens=1000)
    assert cache.value == pytest.approx(1000 * 61_440 * byte / 858e-6)
    narrow = ask(sram_area, arch="h100", model="deepseek_ocr", tokens=1000, bits=8)
    assert narrow.value == pytest.approx(cache.value / 2)
    with pytest.raises(InputError, match="one of bytes and model"):
        ask(sram_area, arch="h100")


def test_peaks_of_datasheets():
    found = ask(peak_per_watt, arch="h100", against="a100", of="datasheet")
    assert found.value == pytest.approx((989.4 / 700) / (311.9 / 400), rel=2e-3)
    with pytest.raises(InputError, match="no published power limit"):
        ask(peak_per_watt, arch="decode_npu", of="datasheet")


def test_a_product_does_what_the_page_on_efficiency_says():
    found = ask(peak_per_watt, arch="decode_npu")
    assert found.value == pytest.approx(0.69 / 0.97, rel=0.03)
    assert found.low < found.value < found.high


def test_work_a_joule_is_energy_the_other_way_round():
    h100, npu = (ns.load_arch(n) for n in ("h100", "decode_npu"))
    w = ns.load_workload("paddleocr_vl_decode")
    by_hand = ns.replay(w, h100, "graph").energy_j / ns.replay(w, npu, "queue").energy_j
    found = ask(work_per_joule, arch="decode_npu", model="paddleocr_vl", work="decode")
    assert found.value == pytest.approx(by_hand)
    assert found.low < found.value < found.high


def test_a_clock_is_chosen_within_the_latency():
    step = {"workload": "paddleocr_vl_decode", "arch": "decode_npu"}
    none, some, more = (ask(clock_choice, longer=x, **step).value for x in (1.0, 1.1, 1.5))
    assert none == 1 > some >= more
    # asked for all the time, a board that sleeps costs little: the slow clock keeps its lead
    assert ask(clock_choice, longer=1.5, period="1 s", **step).value <= 1
    with pytest.raises(InputError, match="no clock is fast enough"):
        ask(clock_choice, latency="1 us", **step)


# ---------------------------------------------------------------- engines


def test_memory_is_that_of_the_plan():
    plan = {"model": "paddleocr_vl", "both": {"gpu_memory_utilization": 0.8}}
    # docs/memory_plan.md: 4.92 GB of 9.6 on an RTX 3060; 16 long sequences, 256 pages
    assert ask(memory, arch="rtx_3060", **plan).value == pytest.approx(4.92 / 9.6, rel=2e-3)
    for tokens, count in ((16384, 16), (793, 256)):
        found = ask(memory, arch="rtx_3060", figure="sequences", over="asked", tokens=tokens,
                    **plan)  # fmt: skip
        assert found.value * 256 == count
    half = ask(memory, arch="rtx_3060", over="against", **plan,
               design={"max_model_len": 8192, "max_num_batched_tokens": 8192})  # fmt: skip
    assert half.value == pytest.approx(3.97 / 4.92, rel=2e-3)
    more = ask(memory, {"memory.context": 2e9}, arch="rtx_3060", **plan)
    assert more.value == pytest.approx((4.922 + 2 - 0.649) / 9.6, rel=1e-3)
    with pytest.raises(InputError, match="no flag of an engine"):
        ask(memory, memory="8 GB", model="paddleocr_vl", design={"max_seqs": 1})
    with pytest.raises(InputError, match="valid integer"):
        ask(memory, memory="8 GB", model="paddleocr_vl", design={"max_num_seqs": "many"})


SMALL = {"engine.max_num_seqs": 8, "engine.max_num_batched_tokens": 660,
         "engine.max_model_len": 660, "requests.prompt": 628, "requests.output": 20,
         "requests.each": 2, "lowering": "serving"}  # fmt: skip


def test_more_clients_of_one_engine_share_its_steps():
    asked = {"study": "fastdeploy_flags", "figure": "tokens_per_s", "both": SMALL}
    found = ask(serving, design={"requests.clients": 8}, against={"requests.clients": 1}, **asked)
    assert 2 < found.value < 8
    assert found.low <= found.value <= found.high
    same = ask(serving, design={"requests.clients": 1}, against={"requests.clients": 1}, **asked)
    assert same.value == 1
    with pytest.raises(InputError, match="no figure of a serving study"):
        ask(serving, **{**asked, "figure": "wall"})
    with pytest.raises(InputError, match="no setting of a serving study"):
        ask(serving, design={"requests.client": 8}, **asked)
    with pytest.raises(InputError, match="valid integer"):
        ask(serving, **{**asked, "both": {**SMALL, "engine.max_num_seqs": "many"}})
