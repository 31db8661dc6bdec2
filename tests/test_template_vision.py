"""Vision encoders from hyperparameters: tokens, windows, parameters, kernels and bytes."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.catalog import names
from npusim.errors import InputError, InputErrors
from npusim.templates import load_model, template
from npusim.templates.parameter_count import (
    model_parameters,
    projector_parameters,
    sam_parameters,
    tower_parameters,
    vision_parameters,
)
from npusim.templates.vision import page_tokens, resized, view_tokens, views, vision_operators
from npusim.templates.vision_hyperparameters import Projector, Resize, Tower, Vision
from npusim.templates.vision_sam import windows

DEEPSEEK = load_model("deepseek_ocr").vision
PADDLE = load_model("paddleocr_vl").vision
# The trace ran CLIP on SAM's features alone: no class token, positions or norm before, no newline.
AS_TRACED = {
    "vision.tower.class_token": False, "vision.tower.pre_norm": False,
    "vision.tower.positions": "none", "vision.tower.table": 0, "vision.newline": False,
}  # fmt: skip
PLAIN = Tower(width=64, layers=2, heads=4, intermediate=256, patch=16)
TRACED = [
    ("deepseek_ocr_vision", "deepseek_ocr", (1024, 1024), AS_TRACED),
    ("paddleocr_vl_vision", "paddleocr_vl", (728, 644), {}),  # 52 x 46 = 2,392 patches
]


def sizes_of(v, name, image, images=1):
    """Return the sizes of the operators of a name."""
    return [o.named for o in vision_operators(v, 1280, image, images) if o.name == name]


def flop_of(workload, *kinds):
    """Return the FLOP of the kernels of some kinds."""
    return sum(workload["flop"][workload.mask("kind", kind)].sum() for kind in kinds)


def counts(workload, step=0):
    """Return how many kernels of each kind a step has."""
    return Counter(workload.text("kind")[workload["step"] == step])


class TestTokens:
    def test_deepseek_views(self):
        assert views(DEEPSEEK, (1024, 1024)).each == 16 * 16
        assert view_tokens(DEEPSEEK, (1024, 1024)) == 256
        assert view_tokens(DEEPSEEK, (640, 640)) == 100

    def test_the_tower_has_a_class_token_more(self):
        attention = sizes_of(DEEPSEEK, "full_attention", (1024, 1024))
        assert {a["rows"] for a in attention} == {257} and len(attention) == 24
        assert {a["rows"] for a in sizes_of(DEEPSEEK, "full_attention", (640, 640))} == {101}

    def test_pages(self):
        assert page_tokens(DEEPSEEK, (1024, 1024)) == 16 * 16 + 16 + 1
        # four crops of 10 x 10 are 20 rows of 20, each with a newline; 703 with 10 tokens of text
        assert page_tokens(DEEPSEEK, (1024, 1024), (640, 640), 2, 2) == 20 * 21 + 273 == 703 - 10
        assert page_tokens(PADDLE, (800, 600)) == 609  # neither newline nor separator

    def test_paddle_resizes_to_its_factor(self):
        assert resized(PADDLE.resize, (800, 600)) == (812, 588)  # 29 and 21 times 28
        seen = views(PADDLE, (800, 600))
        assert (seen.wide, seen.high, seen.each) == (58, 42, 2436)
        assert view_tokens(PADDLE, (800, 600)) == 2436 // 4 == 609

    def test_too_few_and_too_many_pixels_are_scaled(self):
        # 100 x 100: sqrt(147456 / 10^4) = 3.84, 384 / 28 = 13.7, up to 14 x 28
        assert resized(PADDLE.resize, (100, 100)) == (392, 392)
        # 3000 x 3000: sqrt(9 10^6 / 2359296) = 1.953, 1536 / 28 = 54.9, down to 54 x 28
        assert resized(PADDLE.resize, (3000, 3000)) == (1512, 1512)

    def test_sides_below_the_factor(self):
        # 14 pixels high: 28 x 280, which are 7,840; times sqrt(147456 / 7840) = 4.337
        assert resized(PADDLE.resize, (140, 14)) == (44 * 28, 5 * 28)

    @given(st.integers(28, 5000), st.integers(28, 5000))
    def test_resized_sides_are_multiples_and_not_too_many(self, width, height):
        r = Resize(factor=28, min_pixels=147456, max_pixels=2359296)
        a, b = resized(r, (width, height))
        assert a % 28 == b % 28 == 0
        assert a * b <= 2359296 or min(a, b) == 28
        assert a * b >= 147456

    def test_pooling_makes_one_token(self):
        v = Vision(tower=PLAIN.model_copy(update={"pooling": "attention"}), projector=Projector())
        assert view_tokens(v, (224, 224)) == 1


class TestWindows:
    def test_by_hand(self):
        assert windows(64, 64, 14) == 25  # filled up to 70 x 70
        assert windows(40, 40, 14) == 9  # filled up to 42 x 42
        assert windows(28, 14, 14) == 2

    @given(st.integers(1, 200), st.integers(1, 200), st.integers(1, 30))
    def test_they_cover_the_map_and_no_more_than_a_window_too_much(self, high, wide, window):
        number = windows(high, wide, window)
        assert number * window**2 >= high * wide
        assert number * window**2 < (high + window) * (wide + window)

    def test_global_layers_have_none(self):
        layers = [o.layer for o in vision_operators(DEEPSEEK, 1280, (1024, 1024))
                  if o.name == "windows"]  # fmt: skip
        assert layers == [0, 1, 3, 4, 6, 7, 9, 10]

    def test_windows_that_fit_are_not_filled(self):
        filled, fitting = (
            counts(template("deepseek_ocr", "vision", image=size, settings=AS_TRACED))["fill"]
            for size in ((1024, 1024), (1792, 1792))  # 112 = 8 x 14
        )
        assert filled - fitting == 8  # one a layer with windows


class TestFlop:
    def test_a_crop_of_640(self):
        w = template("deepseek_ocr", "vision", image=(640, 640))
        patches = 1600 * 768 * 768
        within = 1764 * 768 * (2304 + 768) + 2 * 9 * 12 * 196 * 196 * 64
        within += 2 * 14 * (9 * 12 * 14) * 14 * 64  # relative positions: rows, columns
        across = 1600 * 768 * (2304 + 768) + 2 * 12 * 1600 * 1600 * 64
        across += 2 * 40 * (12 * 40) * 40 * 64
        networks = 12 * 1600 * 768 * 3072 * 2
        neck = 1600 * 256 * 768 + 1600 * 256 * 2304 + 400 * 512 * 2304 + 100 * 1024 * 4608
        clip = 101 * 1024 * (4 * 1024 + 2 * 4096) + 2 * 16 * 101 * 101 * 64
        products = patches + 8 * within + 4 * across + networks + neck + 24 * clip
        products += 100 * 2048 * 1280
        assert flop_of(w, "gemm", "conv", "attention") == 2 * products

    def test_convolutions_of_four_crops(self):
        # multiply-adds of the layer summary of DeepSeek-OCR, bias of the patches with them
        w = template("deepseek_ocr", "vision", image=(640, 640), images=4)
        conv = w["flop"][w.mask("kind", "conv")] / 2
        bias = w["flop"][w.mask("operator", "add bias")]
        assert conv[0] + bias[0] == 3_779_788_800
        expected = [1_258_291_200, 3_774_873_600, 1_887_436_800, 1_887_436_800]
        assert conv[1:].tolist() == expected

    def test_images_multiply_the_work(self):
        one, four = (template("paddleocr_vl", "vision", image=(800, 600), images=n) for n in (1, 4))
        for kind in ("gemm", "conv", "attention"):
            assert flop_of(four, kind) == 4 * flop_of(one, kind)
        assert four.meta["tokens"] == 4 * 609

    def test_paddle_by_hand(self):
        w = template("paddleocr_vl", "vision", image=(800, 600))
        assert flop_of(w, "attention") == 27 * 4 * 16 * 2436**2 * 72
        products = 27 * 2436 * 1152 * (4 * 1152 + 2 * 4304) + 609 * 4608 * (4608 + 1024)
        assert flop_of(w, "gemm") == 2 * products


class TestTraces:
    """Kernels, FLOP and bytes of two traces of an H200."""

    @pytest.mark.parametrize(("name", "model", "image", "settings"), TRACED)
    def test_same_kernels(self, name, model, image, settings):
        trace, made = (
            ns.load_workload(name),
            template(model, "vision", image=image, settings=settings),
        )
        step = trace["step"] == 0
        assert made.text("kind").tolist() == trace.text("kind")[step].tolist()
        # one routine has no name in the trace: the product of the three sizes of an image
        differ = made.text("routine") != trace.text("routine")[step]
        assert differ.sum() <= 1
        # at the end of a traced step the host waits for the device
        assert np.array_equal(made["sync"][:-1], trace["sync"][step][:-1])

    @pytest.mark.parametrize(("name", "model", "image", "settings"), TRACED)
    def test_same_work(self, name, model, image, settings):
        trace, made = (
            ns.load_workload(name),
            template(model, "vision", image=image, settings=settings),
        )
        step = trace["step"] == 0
        assert made["flop"].sum() == pytest.approx(trace["flop"][step].sum(), rel=1e-7)
        assert made.bytes_moved.sum() == pytest.approx(trace.bytes_moved[step].sum(), rel=1e-3)
        for column in ("read_weight", "read_activation", "write_activation"):
            assert made[column].sum() == pytest.approx(trace[column][step].sum(), rel=0.01), column

    @pytest.mark.parametrize(("name", "model", "image", "settings"), TRACED)
    def test_same_replay(self, name, model, image, settings):
        h200 = ns.load_arch("h200")
        trace, made = (
            ns.load_workload(name),
            template(model, "vision", image=image, settings=settings),
        )
        traced, busy = (ns.replay(w, h200, launch="graph").device_busy_s for w in (trace, made))
        assert busy == pytest.approx(traced, rel=0.005)
        measured = trace["duration_s"][trace["step"] == 0].sum()
        assert busy == pytest.approx(measured, rel=0.06)

    def test_the_published_model_has_five_kernels_more(self):
        # class token, positions looked up and added, norm before, newlines
        traced, whole = (template("deepseek_ocr", "vision", image=(1024, 1024), settings=s)
                         for s in (AS_TRACED, None))  # fmt: skip
        assert len(traced) == 767
        more = Counter(whole.text("operator")) - Counter(traced.text("operator"))
        assert more == {"cat class token": 1, "positions of a table": 1, "add": 1,
                        "layer_norm": 1, "cat newline": 1}  # fmt: skip


class TestParameters:
    def test_deepseek(self):
        sam = 3 * 256 * 768 + 768 + 64 * 64 * 768  # patches, positions
        sam += 8 * 7_091_328 + 4 * 7_104_128  # blocks, as the layer summary counts them
        sam += 196_608 + 512 + 589_824 + 512 + 1_179_648 + 4_718_592  # neck, compressor
        assert sam_parameters(DEEPSEEK.sam) == sam == 95_569_152
        clip = 1024 + 257 * 1024 + 2048  # class token, positions, norm before
        clip += 24 * (4 * 1024 * 1025 + 2 * 1024 * 4096 + 4096 + 1024 + 4 * 1024)
        assert tower_parameters(DEEPSEEK.tower) == clip == 302_575_616
        assert projector_parameters(DEEPSEEK.projector, 2048, 1280) == 2_622_720
        newline_and_separator = 2_560
        total = sam + clip + 2_622_720 + newline_and_separator
        assert vision_parameters(DEEPSEEK, 1280) == total
        unused = 3 * 14 * 14 * 1024  # CLIP's patches
        assert total + unused == 401_372_160
        assert model_parameters(load_model("deepseek_ocr")) == 3_336_106_240

    def test_paddle(self):
        layer = 4 * 1152 * 1153 + 2 * 1152 * 4304 + 4304 + 1152 + 4 * 1152
        tower = 588 * 1152 + 1152 + 729 * 1152 + 27 * layer + 2 * 1152
        assert tower_parameters(PADDLE.tower) == tower
        packed_positions = 32768 * 1152
        assert tower + packed_positions == 450_735_984
        assert projector_parameters(PADDLE.projector, 4608, 1024) == 25_960_192
        assert model_parameters(load_model("paddleocr_vl")) == 958_588_736

    def test_pooling_head(self):
        pooled = PADDLE.tower.model_copy(update={"pooling": "attention"})
        assert tower_parameters(pooled) - tower_parameters(PADDLE.tower) == 15_238_352

    def test_tower_by_hand(self):
        # 768 x 64 + 64 of patches, two layers of 4 x 64 x 65 + 2 x 64 x 256 + 256 + 64 + 4 x 64
        assert tower_parameters(PLAIN) == 49_216 + 2 * 49_984 + 128


class TestTowers:
    def plain(self, **changes):
        return Vision(tower=PLAIN.model_copy(update=changes), projector=Projector())

    def operators(self, v, image=(224, 224)):
        return [o.name for o in vision_operators(v, 128, image)]

    def test_order_of_a_plain_tower(self):
        layer = ["vision_qkv", "full_attention", "linear", "residual_layer_norm", "ffn"]
        assert self.operators(self.plain()) == [
            "patches", "layer_norm", *layer, "residual_layer_norm", *layer, "residual_layer_norm",
            "linear",
        ]  # fmt: skip
        assert self.operators(self.plain(post_norm=False))[-2] == "residual"

    def test_positions_are_resized_only_where_the_grid_differs(self):
        v = self.plain(positions="interpolated", table=196)
        assert "resized_positions" not in self.operators(v)  # 224 / 16 = 14
        assert "resized_positions" in self.operators(v, (256, 256))
        assert "resized_positions" in self.operators(v, (448, 112))  # as many, of another shape

    def test_learned_positions_fit_one_grid(self):
        v = self.plain(positions="learned", table=196)
        assert "add_positions" in self.operators(v)
        with pytest.raises(InputError, match=r"positions learned are of another size.*224 x 224"):
            views(v, (256, 256))

    def test_rms_norm_and_rotation(self):
        made = self.operators(self.plain(norm="rms", rotary=True))
        assert made.count("grid_rotate") == 2 and "residual_rms_norm" in made
        assert "layer_norm" not in made

    def test_attention_pooling_has_kernels(self):
        on = template("paddleocr_vl", "vision", image=(800, 600), settings={
            "vision.tower.pooling": "attention", "vision.projector.merge": 1,
            "vision.projector.hidden": None})  # fmt: skip
        off = template("paddleocr_vl", "vision", image=(800, 600), settings={
            "vision.projector.merge": 1, "vision.projector.hidden": None})  # fmt: skip
        # query, keys and values, scores, values weighted, output, network; 1 token, not 2,436, on
        width, rows = 1152, 2436
        more = 2 * width**2 + 2 * rows * width**2 + 2 * rows * width + 2 * width * 4304
        more -= (rows - 1) * width * 1024
        made = flop_of(on, "gemm", "gemv") - flop_of(off, "gemm", "gemv")
        assert made == 2 * more

    @pytest.mark.parametrize("lowering", names("lowerings"))
    @pytest.mark.parametrize("model", ["deepseek_ocr", "paddleocr_vl"])
    def test_every_lowering_does_the_products(self, lowering, model):
        made = template(model, "vision", image=(448, 448), lowering=lowering)
        eager = template(model, "vision", image=(448, 448))
        products = [flop_of(w, "gemm", "gemv", "conv", "attention") for w in (made, eager)]
        # what a lowering fuses with a product counts to it, and is little
        assert products[1] <= products[0] <= 1.01 * products[1]


class TestMistakes:
    @pytest.mark.parametrize(("field", "value", "message"), [
        ("tower.heads", 7, "tower.heads: does not divide the width"),
        ("tower.heads", 0, "tower.heads: .*allowed: 1 or more"),
        ("tower.table", 10, "tower.table: not a square"),
        ("tower.patch", 14, "tower.patch: .*features of sam"),
        ("tower.packed", True, "tower.packed: .*of images of one size"),
        ("tower.width", 512, "sam.compressor: does not end in the width of the tower"),
        ("sam.heads", 5, "sam.heads: does not divide the width"),
        ("sam.table", 4095, "sam.table: not a square"),
        ("sam.global_layers", [2, 12], "sam.global_layers: no such layer"),
        ("sam.window", 0, "sam.window: .*allowed: 1 or more"),
        ("projector.merge", 0, "projector.merge: .*allowed: 1 or more"),
        ("tower.wdith", 1, "tower.wdith: unknown key"),
    ])  # fmt: skip
    def test_of_deepseek_by_field(self, field, value, message):
        with pytest.raises((InputError, InputErrors), match=f"vision.{message}"):
            load_model("deepseek_ocr", {f"vision.{field}": value})

    @pytest.mark.parametrize(("field", "value", "message"), [
        ("tower.heads", 64, "tower.rotary: .*multiple of 4"),  # heads of 18
        ("tower.class_token", True, "tower.class_token: .*no class token"),
        ("tower.positions", "learned", "tower.positions: .*interpolated"),
        ("tower.positions", "none", "tower.table: of no positions"),
        ("tower.table", 0, "tower.table: positions need a table"),
        ("tower.patch", None, "tower.patch: is missing"),
        ("resize.factor", 14, "resize.factor: .*multiple of 28"),
        ("resize.min_pixels", 2359297, "resize.min_pixels: more than max_pixels"),
    ])  # fmt: skip
    def test_of_paddle_by_field(self, field, value, message):
        with pytest.raises((InputError, InputErrors), match=f"vision.{message}"):
            load_model("paddleocr_vl", {f"vision.{field}": value})

    @pytest.mark.parametrize(("image", "message"), [
        ((1000, 1024), "image: patches do not fit: '1000 x 1024'.*multiples of 64"),
        ((0, 1024), "width: out of range: 0"),
        ((1024, -64), "height: out of range: -64"),
        ((1024.0, 1024), "width: not a whole number: 1024.0"),
        ((1024,), "needs a width and a height"),
        ((64000, 64000), "more pixels"),
    ])  # fmt: skip
    def test_images(self, image, message):
        with pytest.raises(InputError, match=message):
            template("deepseek_ocr", "vision", image=image)

    def test_a_model_without_a_page_needs_an_image(self):
        with pytest.raises(InputError, match="image: is needed for vision"):
            template("deepseek_ocr", "vision", settings={"page": None})

    def test_number_of_images(self):
        with pytest.raises(InputError, match="images: out of range: 0"):
            template("deepseek_ocr", "vision", image=(64, 64), images=0)

    def test_too_long(self):
        with pytest.raises(InputError, match="too long for its width: '8040 x 40'"):
            template("paddleocr_vl", "vision", image=(8040, 40))

    def test_what_is_of_another_phase(self):
        with pytest.raises(InputError, match="context: not of vision"):
            template("deepseek_ocr", "vision", image=(64, 64), context=10)
        with pytest.raises(InputError, match="image: not of prefill"):
            template("deepseek_ocr", "prefill", context=10, image=(64, 64))

    def test_a_model_without_eyes(self):
        with pytest.raises(InputError, match="no vision encoder"):
            template("deepseek_ocr", "vision", image=(64, 64), settings={"vision": None})

    def test_parts_of_a_page(self):
        with pytest.raises(InputError, match="number of parts"):
            page_tokens(DEEPSEEK, (1024, 1024), (640, 640), 0, 2)
