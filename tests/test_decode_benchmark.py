"""The step of benchmarks/rtx5090_decode.py against the counts and sizes of the study it follows."""

import csv
import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

import npusim as ns

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def decode():
    place = importlib.util.spec_from_file_location(
        "rtx5090_decode", ROOT / "benchmarks/rtx5090_decode.py"
    )
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def step(decode):
    return decode.step()


@pytest.fixture(scope="module")
def counts(decode, step):
    return Counter(decode.labels(*step))


def test_a_step_has_the_kernels_of_the_profile(decode, counts):
    """78,016 in 64 tokens; each belongs to one family, which has as many as the profile."""
    assert sum(counts.values()) == 1219
    families = [name for _, _, names in decode.PROFILE.values() for name in names]
    assert sorted(families) == sorted(counts)
    for family, (count, _, names) in decode.PROFILE.items():
        assert sum(counts[name] for name in names) == count, family


def test_the_means_of_the_profile_make_its_busy_time(decode):
    total = sum(count * mean for count, mean, _ in decode.PROFILE.values())
    assert total == pytest.approx(decode.BUSY_US, rel=1e-3)


def test_weights_are_those_of_the_active_parameters(step):
    """574 million parameters a token, 2 bytes each, the row of the embedding and 25 norms."""
    w, _ = step
    product = w.mask("kind", "gemv")
    assert w["read_weight"][product].sum() == 2 * 574_095_360
    assert w["flop"][product].sum() == 2 * 574_095_360
    assert (product & w.mask("routine", "whole")).sum() == 293
    assert w["read_weight"].sum() == 2 * (574_095_360 + 1280 + 25 * 1280)


def test_parts_of_attention_are_those_of_the_study(step):
    """Ten heads of 768 keys: six tiles, each a part; its combining kernel is that for 5 to 8."""
    w, _ = step
    attention, combine = (w.mask("kind", k) for k in ("attention", "attention_combine"))
    assert set(w["n"][attention]) == {768}
    assert set(w["blocks"][attention]) == {60}
    assert set(w["k"][combine]) == {6}


def test_nothing_measured_on_this_gpu_is_used(decode):
    arch, shipped = decode.machine(), ns.load_arch("rtx_5090")
    changed = {p for p in arch.values if arch[p] != shipped[p]}
    assert changed == {"memories.dram.efficiency"}
    others = [ns.load_arch(m)["memories.dram.efficiency"] for m in decode.CALIBRATED]
    assert min(others) < arch["memories.dram.efficiency"] < max(others)


def test_every_kernel_takes_some_time_and_the_large_one_the_bandwidth(decode, step):
    arch = decode.machine()
    told = decode.predicted(*step, arch)
    assert (told > 0.5).all() and np.isfinite(told).all()
    head = {name: value for name, _, value in decode.figures(*step, told)}["lm_head"]
    least = 331e6 / (arch["memories.dram.bandwidth"] * arch["memories.dram.efficiency"]) * 1e6
    assert least < head < 1.1 * least


@pytest.mark.shared
def test_counts_are_those_of_the_facts(decode, shared):
    profile = {f: count for f, (count, _, _) in decode.PROFILE.items()}
    families = {"SiLU": "silu", "flash_fwd_splitkv": "attention", "splitkv_combine": "its combine",
                "gatherTopK": "top-k", "bitonicSort": "sort", "rsqrt": "rsqrt", "ArgMax": "argmax",
                "MeanOps reduce (RMSNorm)": "mean", "gemmk1 (inv_freq @ pos)": "angles",
                "cos / sin": "cos", "neg (rotate_half q,k)": "neg"}  # fmt: skip
    with (shared / "facts" / "dsocr_decode_counts_per_token.csv").open() as lines:
        facts = {r["kernel_family"].strip('"'): r["instances_per_token_measured"]
                 for r in csv.DictReader(lines)}  # fmt: skip
    for fact, family in families.items():
        assert profile[family] == int(facts[fact]), family
    assert sum(n for f, n in profile.items() if f.startswith("GEMV")) == int(
        facts["cuBLAS gemvx template 7 + 6 (bf16 GEMV)"])  # fmt: skip
