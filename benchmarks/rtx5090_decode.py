"""One decode step of DeepSeek-OCR on an RTX 5090, from hyperparameters and the datasheet.

    PYTHONPATH=. python benchmarks/rtx5090_decode.py

The kernels of a step follow from the model's layers and from PyTorch's way to run them; how many
there are of each is counted in the profile of a public study, and so is what each took on average
(nsys, means over 64 tokens at batch 1: github.com/CodeGandee/llm-perf-opt, MIT). The times are
printed beside the predictions and used for nothing else. The machine is `archs/rtx_5090.yaml`,
except for the share of the DRAM bandwidth: its file has what this very study's lm_head reached, so
the median of the machines calibrated on other measurements takes its place.

Hyperparameters: config.json of baidu/Unlimited-OCR, a derivative of DeepSeek-OCR, which agrees with
the layer summary of deepseek-ai/DeepSeek-OCR in every count of parameters.

Weights are cold: a step reads 1.15 GB of them. What lies between two kernels stays in the cache.
Router weights are cast to fp32 and back at every step, as autocast does there.
"""

import math
from dataclasses import dataclass

import numpy as np

import npusim as ns
from npusim.arch import Designs
from npusim.importers.work import Work
from npusim.measured import launched, shapes
from npusim.measured.launched import Launched
from npusim.measured.shapes import COLD, Measurable
from npusim.models.kernel import kernel_time

LAYERS, MOE, HIDDEN, HEADS, SIZE = 12, 11, 1280, 10, 128
DENSE, EXPERT, SHARED, EXPERTS, CHOSEN, VOCABULARY = 6848, 896, 1792, 64, 6, 129280
NORMS = 2 * LAYERS + 1
# FlashAttention 2 gives a tile of 128 keys to each part here, and the study's combining kernel is
# the one for 5 to 8 parts: the cache held 513 to 1,024 tokens.
CONTEXT = 768
BUSY_US, LM_HEAD_US, EXPERT_US = 179.07e3 / 64, 208.0, 3.74
CALIBRATED = ("a100", "h100", "h200", "l40s")
BYTES = {"bf16": 2, "fp32": 4, "int64": 8, "bool": 1}


@dataclass(frozen=True)
class Kernel:
    """Kernels of one make in a step.

    Attributes
    ----------
    family : str
    count : float
        In a step.
    measured : float
        Mean of each [us]; not-a-number where the profile has no mean of it alone.
    what : Measurable
    """

    family: str
    count: float
    measured: float
    what: Measurable


def small(kind, dtype, runs, m, n, read, written, *, weight=0.0, kv=0.0):
    """Return a kernel whose operands (bytes) the kernels before it have just written."""
    work = Work(kind, dtype, batch=1, m=m, n=n, read_weight=weight, read_activation=read,
                read_kv=kv, write_activation=written)  # fmt: skip
    return Measurable(work, COLD, COLD, read + written, "ATen", *runs)


def wide(kind, dtype, elements, *, inputs=1, routine="vectorized", weight=0.0, into=None):
    """Return a pointwise kernel on tensors without holes."""
    moved = elements * BYTES[dtype]
    runs = launched.pieces(routine, elements, 4 if routine.startswith("unrolled") else 8)
    written = moved if into is None else elements * BYTES[into]
    kept = inputs * moved - weight
    return small(kind, into or dtype, runs, 1, elements, kept, written, weight=weight)


def strided(kind, dtype, elements, inputs):
    """Return a pointwise kernel on tensors that repeat or have holes."""
    moved = elements * BYTES[dtype]
    each = 4 if BYTES[dtype] < 4 else 2
    runs = launched.pieces("strided", elements, each)
    return small(kind, dtype, runs, 1, elements, inputs * moved, moved)


def block(kind, dtype, routine, m, n, read, written, *, blocks=1, threads=128):
    return small(kind, dtype, Launched(routine, blocks, threads), m, n, read, written)


def product(n, k, routine="whole"):
    one = shapes.linear("bf16", 1, n, k)
    return Measurable(one.work, COLD, COLD, one.activation, "cuBLAS", routine)


def attention():
    """Return the kernel that splits the keys, and the one that combines its parts."""
    parts = math.ceil(CONTEXT / 128)
    call = shapes.decode_attention("bf16", 1, HEADS, HEADS, SIZE, CONTEXT, copies=1)
    kernel = Measurable(call.work, COLD, call.kv, call.activation, "FlashAttention", "",
                        HEADS * parts, 128)  # fmt: skip
    result = 4.0 * HEADS * SIZE
    combine = block("attention_combine", "fp32", "", 1, HEADS * SIZE, parts * result, result / 2)
    return kernel, combine


def products():
    """Return the 293 matrix-vector products and the one that is split."""
    yield "GEMV, attention", 4 * LAYERS, math.nan, product(HIDDEN, HIDDEN)
    yield "GEMV, expert gate and up", 2 * CHOSEN * MOE, EXPERT_US, product(EXPERT, HIDDEN)
    yield "GEMV, expert down", CHOSEN * MOE, EXPERT_US, product(HIDDEN, EXPERT)
    yield "GEMV, shared gate and up", 2 * MOE, math.nan, product(SHARED, HIDDEN)
    yield "GEMV, shared down", MOE, math.nan, product(HIDDEN, SHARED)
    yield "GEMV, router", MOE, math.nan, product(EXPERTS, HIDDEN)
    yield "GEMV, dense gate and up", 2, math.nan, product(DENSE, HIDDEN)
    yield "GEMV, lm_head", 1, LM_HEAD_US, product(VOCABULARY, HIDDEN)
    yield "GEMM, dense down, split", 1, 13.43, product(HIDDEN, DENSE, "split")
    yield ("sum of its parts", 1, 1.43,
           block("splitk_reduce", "fp32", "", 1, HIDDEN, 8.0 * HIDDEN, 2.0 * HIDDEN))  # fmt: skip


def norms():
    """Return what a norm is made of: cast, square, mean, epsilon, root, scale, cast, weight."""
    rows = launched.reduce_rows(1, HIDDEN, 4)
    yield "pow", NORMS, 0.95, wide("pointwise", "fp32", HIDDEN)
    yield "mean", NORMS, 1.83, small("reduction", "fp32", rows, 1, HIDDEN, 4.0 * HIDDEN, 4.0)
    yield "add epsilon", NORMS, 0.95, wide("pointwise", "fp32", 1)
    yield "rsqrt", NORMS, 0.95, wide("pointwise", "fp32", 1)
    scale = strided("pointwise", "fp32", HIDDEN, 1)
    yield "mul, fp32, repeating", NORMS + MOE, 1.36, scale
    weight = wide("pointwise", "bf16", HIDDEN, inputs=2, weight=2.0 * HIDDEN)
    yield "mul, bf16, of norms", NORMS, 1.14, weight


def casts():
    """Return the 94 casts to fp32 and 82 to bf16; the profile has one mean for each."""
    router = EXPERTS * HIDDEN
    to = {"routine": "unrolled_cast", "into": "fp32"}
    yield "to fp32, rows", NORMS + 3 * MOE, math.nan, wide("cast", "bf16", HIDDEN, **to)
    yield "to fp32, few", LAYERS + MOE + 1, math.nan, wide("cast", "bf16", EXPERTS, **to)
    cold = wide("cast", "bf16", router, weight=2.0 * router, **to)
    yield "to fp32, router weights", MOE, math.nan, cold
    logits = wide("cast", "bf16", VOCABULARY, **to)
    yield "to fp32, logits", 1, math.nan, logits
    yield "to bf16, rows", NORMS + 2 * MOE, math.nan, wide("cast", "fp32", HIDDEN, into="bf16")
    yield "to bf16, cos and sin", 2 * LAYERS, math.nan, wide("cast", "fp32", SIZE, into="bf16")
    yield "to bf16, router weights", MOE, math.nan, wide("cast", "fp32", router, into="bf16")


def rotary():
    """Return the rotary embedding, computed anew in each layer, and the cache that grows."""
    half, flat = HEADS * SIZE // 2, HEADS * SIZE
    # cuBLAS has a kernel of its own for k = 1, which multiplies elements.
    yield "angles", LAYERS, 0.98, wide("pointwise", "fp32", SIZE // 2)
    pair = launched.cat(4.0 * SIZE, 2)
    yield "cat, angles", LAYERS, 1.15, small("cat", "fp32", pair, 1, SIZE // 2, 512.0, 512.0)
    yield "cos and sin", 2 * LAYERS, 1.34, wide("pointwise", "fp32", SIZE, routine="special")
    yield "mul by a number", 2 * LAYERS + MOE, 0.91, wide("pointwise", "fp32", SIZE)
    yield "neg", 2 * LAYERS, 1.74, strided("pointwise", "bf16", half, 1)
    turned = block("cat", "bf16", "cat", 1, half, 2.0 * flat, 2.0 * flat, blocks=4 * 170,
                   threads=512)  # fmt: skip
    yield "cat, halves", 2 * LAYERS, 2.05, turned
    yield "mul, bf16, repeating", 4 * LAYERS, 1.71, strided("pointwise", "bf16", flat, 2)
    cache = 2.0 * CONTEXT * flat
    grid = launched.cat(2 * cache, 2)  # an input of one token still has its row of blocks
    whole = small("cat", "bf16", grid, CONTEXT, flat, 2.0 * flat, cache, kv=cache)
    yield "cat, cache", 2 * LAYERS, 3.27, whole


def layers():
    """Return residuals, activations and attention."""
    kernel, combine = attention()
    yield "attention", LAYERS, 5.54, kernel
    yield "its combine", LAYERS, 3.21, combine
    yield "silu", CHOSEN * MOE + LAYERS, 1.41, wide("activation", "bf16", EXPERT, routine="special")
    yield ("mul, bf16, gate by up", CHOSEN * MOE + LAYERS, 1.14,
           wide("pointwise", "bf16", EXPERT, inputs=2))  # fmt: skip
    yield ("add, bf16", 4 * LAYERS + MOE, 0.95, wide("pointwise", "bf16", HIDDEN, inputs=2))


def routing():
    """Return how tokens find their experts, and come back."""
    one, sent = 4.0 * EXPERTS, CHOSEN * HIDDEN
    yield "softmax", MOE, 1.02, small("softmax", "fp32", launched.softmax(1, EXPERTS, 4),
                                      1, EXPERTS, one, one)  # fmt: skip
    yield "top-k", MOE, 3.37, block("topk", "fp32", "topk_block", 1, EXPERTS, one, 72, threads=64)
    yield "sort", MOE, 3.08, block("sort", "int64", "sort_bitonic", 1, CHOSEN, 48, 96, threads=256)
    yield "zeros", LAYERS, 0.76, small("fill", "int64", launched.pieces("fill", EXPERTS, 8),
                                       1, EXPERTS, 0.0, 8.0 * EXPERTS)  # fmt: skip
    yield "scatter", MOE, 1.34, block("scatter", "int64", "scatter_gather", CHOSEN, 1, 48, 48)
    yield "sum of counts", MOE, 2.34, block("reduction", "int64", "reduce_columns", 1, EXPERTS,
                                            512, 512, threads=32)  # fmt: skip
    yield "divide", MOE, 1.26, wide("pointwise", "int64", CHOSEN)
    yield "gather of tokens", MOE, 1.06, block("gather", "bf16", "gather_vectorized", CHOSEN,
                                               HIDDEN, 2.0 * sent, 2.0 * sent, blocks=CHOSEN,
                                               threads=160)  # fmt: skip
    back = block("scatter", "bf16", "index", CHOSEN, HIDDEN, 2.0 * sent, 2.0 * sent, blocks=15)
    yield "index_put", MOE, 3.14, back
    joined = launched.cat(2.0 * sent, CHOSEN)
    yield "cat, experts", MOE, 1.01, small("cat", "bf16", joined, 1, HIDDEN, 2.0 * sent, 2.0 * sent)
    total = block("reduction", "fp32", "reduce_columns", 1, sent, 4.0 * sent, 4.0 * HIDDEN,
                  blocks=3)  # fmt: skip
    yield "sum of experts", MOE, 2.50, total
    yield "arange", LAYERS, 0.71, block("fill", "int64", "indexed_fill", 1, EXPERTS, 0, 512,
                                        threads=64)  # fmt: skip


def ends():
    """Return what a step has once: the embedding, the position, the token that is chosen."""
    yield "argmax", 1, 18.87, block("reduction", "fp32", "reduce_arg", 1, VOCABULARY,
                                    4.0 * VOCABULARY, 8, threads=512)  # fmt: skip
    embedding = Launched("index_small", 10, 128)
    yield "embedding", 1, 1.62, small("gather", "bf16", embedding, 1, HIDDEN, 8, 2.0 * HIDDEN,
                                      weight=2.0 * HIDDEN)  # fmt: skip
    yield "compare", 3, 1.08, wide("pointwise", "int64", 1, into="bool")
    yield "fill and add", 2, 1.32, wide("pointwise", "int64", 1)
    yield "any", 1, 1.79, block("reduction", "bool", "reduce_rows", 1, 1, 1, 1, threads=32)
    yield "cumulative sum", 1, 1.66, block("scan", "int64", "scan_device", 1, CONTEXT,
                                           8.0 * CONTEXT, 8.0 * CONTEXT)  # fmt: skip
    yield "its start", 1, 0.74, block("scan", "int64", "scan_init", 1, 1, 0, 16)
    yield "cat, tokens", 1, 1.46, small("cat", "int64", launched.cat(8.0 * CONTEXT, 2), 1, CONTEXT,
                                        8.0 * CONTEXT, 8.0 * CONTEXT)  # fmt: skip


# Families that the profile has one mean for -> (those families, that mean).
TOGETHER = (
    (("GEMV, attention", "GEMV, expert gate and up", "GEMV, expert down", "GEMV, router"), 3.75),
    (("GEMV, shared gate and up", "GEMV, shared down", "GEMV, dense gate and up",
      "GEMV, lm_head"), 11.47),
    (("to fp32, rows", "to fp32, few", "to fp32, router weights", "to fp32, logits"), 1.77),
    (("to bf16, rows", "to bf16, cos and sin", "to bf16, router weights"), 0.92),
)  # fmt: skip


def kernels():
    parts = products, norms, casts, rotary, layers, routing, ends
    return [Kernel(*row) for part in parts for row in part()]


def machine():
    """Return the RTX 5090 with nothing that was measured on one."""
    known = [ns.load_arch(name)["memories.dram.efficiency"] for name in CALIBRATED]
    arch = ns.load_arch("rtx_5090")
    return ns.with_value(arch, "memories.dram.efficiency", float(np.median(known)))


def predicted(step, arch):
    """Return the time of one kernel of each family [us]."""
    return kernel_time(shapes.operations([k.what for k in step]), Designs(arch))[:, 0] * 1e6


def figures(told, step):
    """Return what was asked for: name, measured and predicted [us]."""
    count = {k.family: k.count for k in step}
    experts = ("GEMV, expert gate and up", "GEMV, expert down")
    common = sum(count[f] * told[f] for f in experts) / sum(count[f] for f in experts)
    busy = sum(k.count * told[k.family] for k in step)
    return [
        ("common expert GEMV", EXPERT_US, common),
        ("lm_head", LM_HEAD_US, told["GEMV, lm_head"]),
        ("busy", BUSY_US, busy),
    ]


def rows():
    """Return the same for the accuracy page [us]."""
    step = kernels()
    told = dict(zip((k.family for k in step), predicted(step, machine()), strict=True))
    return figures(told, step)


def line(name, count, measured, told):
    print(f"{name:28} {count:5.0f} {measured:8.2f} {told:8.2f} {told / measured:6.2f} "
          f"{count * measured:8.1f} {count * told:8.1f}")  # fmt: skip


def main():
    step, arch = kernels(), machine()
    told = dict(zip((k.family for k in step), predicted(step, arch), strict=True))
    print(f"{'kernels':28} {'count':>5} {'measured':>8} {'told us':>8} {'ratio':>6} "
          f"{'in all':>8} {'told':>8}")  # fmt: skip
    for k in sorted(step, key=lambda k: -k.count * told[k.family]):
        line(k.family, k.count, k.measured, told[k.family])
    count = {k.family: k.count for k in step}
    print("\nwhat the profile has one mean for")
    for families, mean in TOGETHER:
        many = sum(count[f] for f in families)
        line(families[0] + " ...", many, mean, sum(count[f] * told[f] for f in families) / many)
    print(f"\n{sum(count.values()):.0f} of 1,219 kernels in a step; DRAM at "
          f"{arch['memories.dram.efficiency']:.3f} of the datasheet")  # fmt: skip
    for name, actual, value in figures(told, step):
        line(name, 1, actual, value)


if __name__ == "__main__":
    main()
