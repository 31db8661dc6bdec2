"""Software knobs that put other kernels in place of some: bytes by hand, laws, shipped steps."""

import json
from collections import Counter

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim import transforms
from npusim.cli import main
from npusim.errors import InputError
from npusim.importers import kernel_names
from npusim.importers.routines import routine
from npusim.transforms import changes, set_batch, set_context, transformed
from npusim.transforms.cache import quantize_cache
from npusim.transforms.casts import CASTS, fold_casts
from npusim.transforms.in_place import IN_PLACE, write_in_place
from npusim.transforms.pages import PAGE, page_cache
from npusim.transforms.splits import SPLITS
from npusim.transforms.static_cache import static_cache
from npusim.workload import BYTES, COLUMNS, LABELS, Workload
from tests.builder import kernel, workload

# One query of 16 heads over 600 keys and values of 2 heads of 128 numbers of two bytes: 512 bytes a
# key, 512 a value. 4 parts of the keys are 8 blocks.
ATTENTION = kernel("sdpa", 5.0, 8, kind="attention", dtype="bf16", batch=1, m=1, n=600, k=128,
                   heads=16, kv_heads=2, flop=4.0 * 16 * 600 * 128, read_kv=614_400.0, layer=3,
                   read_activation=4096.0, write_activation=4096.0, library="cuDNN",
                   operator="aten::sdpa", host_s=9e-6, framework_s=9e-6)  # fmt: skip
GROW = kernel("cat", 1.5, 300, kind="cat", dtype="bf16", batch=1, m=1198, n=128, layer=3,
              read_kv=307_200.0, write_kv=307_200.0, routine="cat_vectorized", host_s=2e-6,
              registers=32)  # fmt: skip
COMBINE = kernel("combine", 1.0, 16, 256, kind="attention_combine", dtype="fp32", batch=1, m=1,
                 n=2048, flop=4096.0, read_activation=16_384.0, write_activation=4096.0, layer=3,
                 library="cuDNN", host_s=1e-6, framework_s=1e-6)  # fmt: skip
LAYER = kernel("gemv", 7.0, 32, kind="gemv", dtype="bf16", batch=1, m=1, n=1024, k=2048,
               flop=2.0 * 1024 * 2048, read_weight=4_194_304.0, read_activation=4096.0,
               write_activation=2048.0)  # fmt: skip
STEP = (GROW, GROW, ATTENTION, COMBINE, LAYER)
ALONE = (GROW, GROW, {**ATTENTION, "blocks": 2}, LAYER)  # keys in one part: nothing to combine
CALL = {**ATTENTION, "blocks": 0, "threads": 0}


def point(operator, dtype, m, n, read, write, kind="pointwise", **more):
    return kernel(operator, 1.0, operator=operator, kind=kind, dtype=dtype, batch=1, m=m, n=n,
                  read_activation=float(read), write_activation=float(write), **more)  # fmt: skip


def cast(dtype, n, read, write, m=1, **more):
    return point("copy", dtype, m, n, read, write, "cast", host_s=3e-6, framework_s=2e-6,
                 interpreter_s=1e-6, **more)  # fmt: skip


# A norm of 1024 numbers as transformers has it: widened, squared, its mean, scaled, narrowed.
WIDEN, NARROW = cast("fp32", 1024, 2048, 4096), cast("bf16", 1024, 4096, 2048)
NORM = (
    point("add", "bf16", 1, 1024, 4096, 2048),
    WIDEN,
    point("pow", "fp32", 1, 1024, 4096, 4096),
    point("mean", "fp32", 1, 1024, 4096, 4, "reduction"),
    point("add", "fp32", 1, 1, 12, 4),
    point("rsqrt", "fp32", 1, 1, 4, 4),
    point("mul", "fp32", 1, 1024, 4100, 4096),
    NARROW,
    point("mul", "bf16", 1, 1024, 2048, 2048, read_weight=2048.0),
)
# A router of 64 experts in fp32: its input and its weights are widened right before.
ROUTER = (
    cast("fp32", 1280, 2560, 5120),
    cast("fp32", 1280, 163_840, 327_680, m=64),
    kernel("gemv", 2.1, kind="gemv", dtype="fp32", batch=1, m=1, n=64, k=1280, flop=163_840.0,
           read_weight=327_680.0, read_activation=5120.0, write_activation=256.0),
    point("softmax", "fp32", 1, 64, 256, 256, "softmax"),
)  # fmt: skip
# Tables of positions: cosines and sines, both scaled and then narrowed.
TABLES = (
    point("cos", "fp32", 1, 128, 512, 512), point("mul", "fp32", 1, 128, 520, 512),
    point("sin", "fp32", 1, 128, 512, 512), point("mul", "fp32", 1, 128, 520, 512),
    cast("bf16", 128, 512, 256), cast("bf16", 128, 512, 256),
)  # fmt: skip

SHOWN = ("operator", "kind", "routine", "dtype", "m", "n", "blocks", "threads", *BYTES)


def rows(w, names=SHOWN):
    return list(zip(*(w.text(c) if c in LABELS else w[c] for c in names), strict=True))


def moved(w, name="read_activation"):
    return w[name].tolist()


@pytest.fixture(scope="module")
def paddle():
    return ns.load_workload("paddleocr_vl_decode")


@pytest.fixture(scope="module")
def h200():
    return ns.load_arch("h200")


# ---------------------------------------------------------------- a cache that is written in place


def test_a_copy_of_the_cache_becomes_a_copy_of_one_token():
    w = write_in_place(workload(*STEP))
    # 2 rows of 128 numbers, a block of 512 threads' elements: 512 bytes in, 512 into the cache
    copy = ("aten::copy_", "copy", "strided", "bf16", 2, 128, 1, 128, 0, 0, 512, 512, 0)
    assert rows(w)[:2] == [copy, copy]
    assert rows(w, COLUMNS)[2:] == rows(workload(*STEP), COLUMNS)[2:]
    assert w["host_s"][:2].tolist() == [2e-6, 2e-6]  # the host still launches something there
    assert not w["duration_s"][:2].any() and not w["registers"][:2].any()
    assert w.text("origin").tolist() == ["generated"] * 2 + ["measured"] * 3


def test_a_batch_writes_a_token_of_each_sequence():
    many = [{**GROW, "read_kv": 2_457_600.0, "write_kv": 2_457_600.0}] * 2
    w = write_in_place(workload(*many, {**ATTENTION, "batch": 8, "read_kv": 4_915_200.0}))
    assert rows(w, ("m", "n", "blocks", "read_activation", "write_kv"))[0] == (
        16,
        128,
        4,
        4096,
        4096,
    )


def test_a_step_of_paddleocr_vl_saves_all_but_a_token(paddle):
    after = write_in_place(paddle)
    saved = (paddle.bytes_moved - after.bytes_moved)[paddle["step"] == 0].sum()
    assert saved == 2 * 18 * 2 * (345_088 - 512)
    assert len(after) == len(paddle)
    assert Counter(paddle.text("kind")) - Counter(after.text("kind")) == {"cat": 108}
    assert Counter(after.text("kind")) - Counter(paddle.text("kind")) == {"copy": 108}


@given(st.integers(1, 4000), st.sampled_from([4.0, 8.0, 16.0]))
def test_a_token_does_not_go_by_context_and_follows_the_width(keys, bits):
    w = workload(*STEP)
    first = write_in_place(quantize_cache(set_context(w, keys), bits))
    then = quantize_cache(set_context(write_in_place(w), keys), bits)
    for name in ("m", "n", "blocks", *BYTES):
        assert first[name] == pytest.approx(then[name], rel=1e-12)
    assert moved(first, "write_kv")[:2] == pytest.approx([32.0 * bits] * 2)


def test_a_batch_of_what_is_written_in_place_is_the_same_either_way(paddle):
    first, then = set_batch(write_in_place(paddle), 8), write_in_place(set_batch(paddle, 8))
    for name in ("batch", "m", "n", "blocks", "flop", *BYTES):
        assert first[name] == pytest.approx(then[name], rel=1e-12), name


def test_a_static_cache_and_pages_are_in_place_already():
    for made in (static_cache(workload(*STEP), 700), page_cache(workload(*STEP), 16)):
        assert write_in_place(made) is made
        assert transforms.present(made, IN_PLACE) == 1
    both = transformed(workload(*STEP), {IN_PLACE: 1, PAGE: 16})
    assert changes(both) == {PAGE: 16.0}


# ---------------------------------------------------------------- pages


def test_pages_of_16_tokens_have_a_table_and_whole_sectors():
    w = page_cache(workload(*STEP), 16)
    # 600 keys are 37.5 pages of 16: 38 entries of 4 bytes; rows of 256 bytes are whole sectors
    assert (w["read_kv"][2], w["read_activation"][2]) == (614_400.0, 4096 + 4 * 38)
    write = ("aten::index_put_", "scatter", "index", "bf16", 2, 128, 1, 128, 0, 0, 520, 512, 0)
    assert rows(w)[:2] == [write, write]
    assert w.text("origin").tolist() == ["generated"] * 2 + ["extrapolated"] + ["measured"] * 2


@pytest.mark.parametrize(
    ("size", "bits", "tokens", "each"),
    [
        (128, 16, 1, 256.0),  # eight sectors a row
        (72, 16, 1, 160.0),  # 144 bytes lie in five sectors
        (72, 16, 16, 144.0),  # 16 x 144 bytes are 72 sectors
        (64, 2, 1, 32.0),  # 16 bytes in one
        (64, 2, 2, 16.0),
    ],
)
def test_a_page_is_read_in_sectors(size, bits, tokens, each):
    attention = {**ATTENTION, "k": size, "read_kv": 600.0 * 2 * 2 * size * bits / 8}
    w = page_cache(workload(attention), tokens)
    assert w["read_kv"][0] == pytest.approx(600 * 2 * 2 * each)


def test_the_last_page_is_read_as_far_as_it_is_filled():
    attention = {**ATTENTION, "k": 72, "n": 17, "read_kv": 17.0 * 4 * 144}
    # 16 tokens of 144 bytes are 2304, whole sectors; the 17th begins a page: five sectors
    w = page_cache(workload(attention), 16)
    assert w["read_kv"][0] == 4 * (2304 + 160)
    assert w["read_activation"][0] == 4096 + 2 * 4


@given(st.integers(1, 4096), st.integers(1, 8), st.integers(1, 5000))
def test_pages_read_all_keys_and_at_most_a_sector_more_each(tokens, batch, keys):
    made = {**ATTENTION, "batch": batch, "n": keys, "k": 72, "read_kv": keys * batch * 4.0 * 144}
    w = page_cache(workload(made), tokens)
    pages = -(-keys // tokens)
    assert made["read_kv"] <= w["read_kv"][0] * (1 + 1e-12)
    assert w["read_kv"][0] < made["read_kv"] + 32 * 4 * batch * pages
    assert w["read_activation"][0] == 4096 + 4 * batch * pages


def test_slots_are_those_of_all_sequences():
    many = [{**GROW, "read_kv": 2_457_600.0, "write_kv": 2_457_600.0}] * 2
    w = page_cache(workload(*many, {**ATTENTION, "batch": 8, "read_kv": 4_915_200.0}), 16)
    assert moved(w)[:2] == [4096 + 64, 4096 + 64]


def test_a_paged_step_has_as_many_kernels_and_less_to_move(paddle):
    w = page_cache(paddle, 16)
    assert len(w) == len(paddle) and w.bytes_moved.sum() < paddle.bytes_moved.sum()
    assert transforms.unmeasured(w) and "20 to 26 %" in transforms.limits([PAGE])[0]


# ---------------------------------------------------------------- of all of them

KNOBS = {IN_PLACE: (0, 1), PAGE: (0, 16), SPLITS: (0, 8), CASTS: (1, 0)}
WHOLE = (*NORM, *ROUTER, *STEP)


@pytest.mark.parametrize(("path", "values"), KNOBS.items())
def test_as_traced_is_the_workload_itself_and_twice_is_once(path, values):
    traced, other = values
    w = workload(*WHOLE)
    assert transformed(w, {path: traced}) is w and transforms.present(w, path) == traced
    after = transformed(w, {path: other})
    assert after is not w and after.id != w.id
    assert changes(after) == {path: float(other)} == {path: transforms.present(after, path)}
    assert transformed(after, {path: other}) is after
    assert transforms.applies(after, path) and transforms.limits([path])
    with pytest.raises(InputError, match="change the workload as it was traced"):
        transformed(after, {path: traced})


@pytest.mark.parametrize(("path", "values"), KNOBS.items())
def test_a_changed_workload_is_written_and_read(tmp_path, path, values):
    w = transformed(workload(*WHOLE), {path: values[1]})
    ns.save_workload(w, tmp_path / "w.parquet")
    read = ns.load_workload(tmp_path / "w.parquet")
    assert read.id == w.id and transformed(read, {path: values[1]}) is read


@given(st.dictionaries(st.sampled_from(sorted(KNOBS)), st.just(1), min_size=1))
def test_all_at_once_never_move_more_but_for_parts_and_pages(chosen):
    w = workload(*WHOLE)
    after = transformed(w, {path: KNOBS[path][1] for path in chosen})
    more = 0.0
    if SPLITS in chosen:  # written and read again, where 4096 and 16,384 were counted
        more += 2 * 4 * 8 * 16 * 129 - 4096 - 16_384
    if PAGE in chosen:
        more += 4 * 38
    assert after.bytes_moved.sum() <= w.bytes_moved.sum() + more
    assert len(w) - len(after) == 4 * (CASTS in chosen)


@pytest.mark.parametrize("path", KNOBS)
def test_counters_stay_with_their_operations(path):
    w = workload(*WHOLE)
    counted = Workload(w.name, w.columns, w.labels, w.steps, w.edges, w.meta,
                       {"dram_read": np.arange(float(len(w)))})  # fmt: skip
    after = transformed(counted, {path: KNOBS[path][1]})
    numbers = after.counters["dram_read"]
    kinds = dict(zip(np.arange(float(len(w))), w.text("kernel"), strict=True))
    for name, number in zip(after.text("kernel"), numbers, strict=True):
        assert np.isnan(number) or kinds[number] == name
    assert np.isfinite(numbers).sum() == len(w) - {IN_PLACE: 2, PAGE: 2, SPLITS: 0, CASTS: 4}[path]


def test_what_is_added_is_called_what_an_importer_knows():
    w = transformed(workload(*WHOLE), {PAGE: 16})
    w = [w, transformed(workload(*WHOLE), {IN_PLACE: 1})]
    for one in w:
        new = one.mask("origin", "generated")
        assert new.sum() == 2
        for name, of, kind in np.array(rows(one, ("kernel", "routine", "kind")))[new]:
            assert (routine(name), kernel_names.kind(name)) == (of, kind)


@pytest.mark.parametrize(
    ("given", "settings", "message"),
    [
        ((LAYER,), {IN_PLACE: 1}, r"made: workload\.cache_in_place: has no operation of a decode"),
        ((LAYER,), {PAGE: 16}, "has no decode attention"),
        ((LAYER,), {SPLITS: 2}, r"made: workload\.attention_splits: has no decode attention"),
        ((LAYER,), {CASTS: 0}, r"made: workload\.casts: has no cast beside a kernel"),
        (({**ATTENTION, "m": 600},), {SPLITS: 2}, "has no decode attention"),
        (STEP, {IN_PLACE: 2}, r"out of bounds: 2 \(allowed: 0 to 1\)"),
        (STEP, {PAGE: -1}, "out of bounds: -1"),
        (STEP, {SPLITS: 129}, r"out of bounds: 129 \(allowed: 0 to 128\)"),
        (NORM, {CASTS: float("nan")}, "out of bounds: nan"),
        (STEP, {PAGE: 16, "workload.static_cache": 700}, "static KV cache, which lies in one pi"),
        (({**ATTENTION, "dtype": "odd"},), {SPLITS: 2}, "a type of unknown width: 'odd'"),
    ],
)  # fmt: skip
def test_what_a_knob_does_not_apply_to_is_refused(given, settings, message):
    with pytest.raises(InputError, match=message) as error:
        transformed(workload(*given), settings)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- the command line


def replay(*settings):
    flags = [part for setting in settings for part in ("--set", setting)]
    command = ["replay", "paddleocr_vl_decode", "--arch", "h200", "--launch", "graph"]
    return CliRunner().invoke(main, [*command, *flags, "--json"])


def test_the_command_line_folds_casts_and_writes_in_place(paddle, h200):
    done = replay("workload.casts=0", "workload.cache_in_place=1")
    assert done.exit_code == 0 and done.stderr == ""
    answer = json.loads(done.stdout)
    assert answer["launches"] == 782 - 78
    w = fold_casts(write_in_place(paddle))
    assert answer["wall_s"] == ns.replay(w, h200, "graph").wall_s
    assert answer["notes"][0].startswith("the workload is changed (workload.cache_in_place=1, wo")


def test_what_is_as_traced_changes_nothing_on_the_command_line():
    done = replay("workload.casts=1", "workload.attention_splits=0")
    assert "changes nothing here: --set workload.casts" in done.stderr
    assert json.loads(done.stdout)["launches"] == 782


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("workload.casts=2", "--set workload.casts: out of bounds: 2 (allowed: 0 to 1)"),
        ("workload.cache_in_place=yes", "--set workload.cache_in_place: not a quantity"),
        ("workload.page_tokens=16 B", "--set workload.page_tokens: has the wrong unit"),
        ("workload.attention_splits=1000", "--set workload.attention_splits: out of bounds: 1000"),
    ],
)
def test_bad_values_are_one_line(setting, words):
    done = replay(setting)
    assert done.exit_code == 1 and done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ") and words in line
