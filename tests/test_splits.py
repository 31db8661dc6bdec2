"""Parts of the keys of decode attention: grids, bytes and combining kernels by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.arch import Designs
from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.models.kernel import kernel_time
from npusim.transforms import changes, set_batch, set_context
from npusim.transforms.in_place import write_in_place
from npusim.transforms.splits import SPLITS, split_keys
from npusim.workload import BYTES, COLUMNS, stream_order
from tests.builder import workload
from tests.test_software_knobs import ALONE, ATTENTION, CALL, STEP, rows


@pytest.fixture(scope="module")
def paddle():
    return ns.load_workload("paddleocr_vl_decode")


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


def test_parts_change_the_grid_and_what_is_combined():
    w = split_keys(workload(*STEP), 16)
    names = ("routine", "blocks", "threads", "flop", "read_kv", "read_activation")
    assert rows(w, names)[2] == ("split", 32, 128, 4 * 16 * 600 * 128, 614_400, 4096)
    # 16 parts of 16 heads of 128 numbers in fp32 and a sum each
    parts = 4 * 16 * 16 * 129
    assert w["write_activation"][2] == w["read_activation"][3] == parts
    names = ("k", "n", "blocks", "threads", "flop", "write_activation")
    assert rows(w, names)[3] == (16, 2048, 16, 256, 2 * 16 * 2048, 4096)
    assert rows(w, COLUMNS)[4] == rows(workload(*STEP), COLUMNS)[4]


def test_keys_in_one_part_need_no_combining():
    w = split_keys(workload(*STEP), 1)
    assert w.text("kind").tolist() == ["cat", "cat", "attention", "gemv"]
    assert rows(w, ("routine", "blocks", "write_activation"))[2] == ("whole", 2, 4096)
    assert w["host_s"].sum() == pytest.approx(workload(*STEP)["host_s"].sum() - 1e-6)
    order = stream_order(w["stream"], w["step"])
    assert all(np.array_equal(a, b) for a, b in zip(w.edges, order, strict=True))


def test_keys_in_parts_for_the_first_time_are_combined():
    w = split_keys(workload(*ALONE), 4)
    assert w.text("kind").tolist() == ["cat", "cat", "attention", "attention_combine", "gemv"]
    names = ("operator", "library", "dtype", "k", "m", "n", "blocks", "threads", "layer",
             "stream", "step", "read_activation", "write_activation", "duration_s", "host_s",
             "origin")  # fmt: skip
    assert rows(w, names)[3] == ("aten::sdpa", "cuDNN", "fp32", 4, 1, 2048, 16, 256, 3, 7, 0,
                                 4 * 4 * 16 * 129, 4096, 0, 0, "generated")  # fmt: skip
    name = w.text("kernel")[3]
    assert (kernel_names.kind(name), kernel_names.library(name)) == ("attention_combine", "cuDNN")
    again = split_keys(w, 1)
    assert rows(again) == rows(split_keys(workload(*ALONE), 1))


def test_other_libraries_combine_with_a_kernel_of_theirs():
    w = split_keys(workload({**ATTENTION, "library": "FlashAttention"}), 2)
    name = w.text("kernel")[1]
    assert kernel_names.kind(name) == "attention_combine"
    assert w.text("library")[1] == "FlashAttention"


def test_a_whole_call_combines_its_parts_itself():
    w = split_keys(workload(CALL), 8)
    assert len(w) == 1
    assert rows(w, ("routine", "blocks", "threads", "write_activation"))[0] == (
        "split",
        16,
        0,
        4096,
    )


def test_launch_grids_of_traces_tell_their_parts(paddle):
    for w, parts in ((paddle, 4), (ns.load_workload("deepseek_ocr_decode_grouped"), 8),
                     (ns.load_workload("deepseek_ocr_decode_grouped_b16"), 1),
                     (ns.load_workload("paddleocr_vl_decode_b32"), 4)):  # fmt: skip
        at = w.mask("kind", "attention")
        asked = split_keys(w, parts)
        assert np.array_equal(asked["blocks"][asked.mask("kind", "attention")], w["blocks"][at])
        assert asked.mask("kind", "attention_combine").sum() == (parts > 1) * at.sum()


def test_what_the_library_chose_takes_as_long_when_it_is_asked_for(paddle, h200):
    """The parts of the grid are those of the model's library, on the machine of the trace."""
    for name, parts in (("paddleocr_vl_decode", 4), ("deepseek_ocr_decode_grouped", 8)):
        w = ns.load_workload(name)
        times = [seconds(v, h200, "attention") for v in (w, split_keys(w, parts))]
        assert times[1] == pytest.approx(times[0], rel=1e-9)
    few = ns.with_value(h200, "units.count", 2.0)  # the library would not split here
    assert seconds(paddle, few, "attention") != pytest.approx(
        seconds(split_keys(paddle, 4), few, "attention"))  # fmt: skip


def seconds(w, arch, *kinds):
    time = kernel_time(w.operations(), Designs(arch))[:, 0]
    return float(time[w.mask("kind", *kinds)].sum())


@given(st.integers(1, 128), st.integers(64, 20_000), st.integers(1, 16))
def test_a_call_and_its_kernels_apart_take_as_long(parts, keys, batch):
    """Of cuDNN, whose calls have no helpers, but for the transfer of the parts that they lack."""
    h200 = ns.load_arch("h200")
    sizes = {"n": keys, "batch": batch, "read_kv": 1024.0 * keys * batch}
    apart = split_keys(workload({**ATTENTION, **sizes}), parts)
    call = split_keys(workload({**CALL, **sizes}), parts)
    kinds = "attention", "attention_combine"
    times = seconds(apart, h200, *kinds), seconds(call, h200, *kinds)
    assert times[0] >= times[1] * (1 - 1e-2)
    assert times[0] <= times[1] * 1.02 + 3 * apart["write_activation"].max() / 3e12


def test_combining_takes_longer_by_each_part(h200):
    few, many = (split_keys(workload(*STEP), p) for p in (2, 66))
    more = seconds(many, h200, "attention_combine") - seconds(few, h200, "attention_combine")
    cycles = h200.values["library.cudnn_decode.part"] / h200.values["units.clock"]
    assert more == pytest.approx(64 * cycles, rel=0.1)


@given(st.integers(1, 128), st.integers(1, 128))
def test_parts_conserve_keys_and_arithmetic_of_attention(first, second):
    w = workload(*STEP)
    one, two = split_keys(w, first), split_keys(w, second)
    for name in ("flop", "read_kv", "write_kv"):
        assert one[name][one.mask("kind", "attention", "cat")].sum() == w[name][:3].sum()
        assert two[name][two.mask("kind", "attention", "cat")].sum() == w[name][:3].sum()
    again = split_keys(one, second)
    assert changes(again) == {SPLITS: float(second)}
    names = ("kind", "routine", "k", "blocks", "threads", "flop", *BYTES)
    assert rows(again, names) == rows(two, names)


def test_parts_help_over_long_contexts_and_hurt_in_large_batches(paddle, h200):
    def wall(w, parts):
        return ns.replay(split_keys(w, parts), h200, "graph").wall_s

    long, many = set_context(paddle, 32_768), ns.load_workload("paddleocr_vl_decode_b32")
    assert wall(long, 64) < 0.75 * wall(long, 4) < 0.75 * wall(long, 1)
    assert wall(many, 1) < wall(many, 32)


def test_batch_after_parts_is_batch_before(paddle):
    first, then = set_batch(split_keys(paddle, 8), 8), split_keys(set_batch(paddle, 8), 8)
    for name in ("batch", "blocks", "threads", "k", "flop", *BYTES):
        assert first[name] == pytest.approx(then[name], rel=1e-12), name


def test_parts_that_come_need_the_order_of_streams():
    edges = (np.array([0, 0, 0, 0, 1]), np.array([0]))
    with pytest.raises(InputError, match=r"workload\.attention_splits: has dependencies beside"):
        split_keys(workload(*ALONE, edges=edges), 4)
    assert write_in_place(workload(*ALONE, edges=edges)).edges[1].tolist() == [0]
