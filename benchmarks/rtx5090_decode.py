"""One decode step of DeepSeek-OCR on an RTX 5090, from hyperparameters and the datasheet.

    PYTHONPATH=. python benchmarks/rtx5090_decode.py

The step is ``template("deepseek_ocr", "decode", lowering="hf-remote")``. How many kernels there are
of each family is counted in the profile of a public study, and so is what each took on average
(nsys, means over 64 tokens at batch 1: github.com/CodeGandee/llm-perf-opt, MIT). The times are
printed beside the predictions and used for nothing else. That products of one row are vector
kernels (``gemvx``) is told by their names. The machine is `archs/rtx_5090.yaml`,
except for the share of the DRAM bandwidth: its file has what this very study's lm_head reached, so
the median of the machines calibrated on other measurements takes its place.

Copies to the host are in the step, and not in the profile's summary of kernels.
"""

import numpy as np

import npusim as ns
from npusim.arch import Designs
from npusim.models.kernel import kernel_time
from npusim.templates import template

# FlashAttention 2 gives a tile of 128 keys to each part here, and the study's combining kernel is
# the one for 5 to 8 parts: the cache held 513 to 1,024 tokens.
CONTEXT = 767
BUSY_US, LM_HEAD_US, EXPERT_US = 179.07e3 / 64, 208.0, 3.74
CALIBRATED = ("a100", "h100", "h200", "l40s")
EXPERT = ("mm gate bf16", "mm up bf16", "mm down bf16")

# What the profile has one mean for: how many in a step, their mean [us], and which kernels of the
# lowering they are, by name and type. cuBLAS has two GEMV kernels there; large products have one.
PROFILE = {
    "GEMV, gemvx of 7": (257, 3.745, ("mm bf16", *EXPERT)),
    "GEMV, gemvx of 6": (36, 11.470, ("mm large bf16",)),
    "GEMM, dense down, split": (1, 13.434, ("mm split bf16",)),
    "sum of its parts": (1, 1.428, ("split-K reduce fp32",)),
    "to fp32": (94, 1.772, ("to fp32 fp32", "router weights to fp32 fp32", "logits to fp32 fp32",
                            "frequencies to fp32 fp32", "positions to fp32 fp32")),
    "to bf16": (82, 0.917, ("to model bf16", "router weights to model bf16",
                            "cos and sin to model bf16")),
    "mul, bf16": (103, 1.145, ("mul bf16", "mul weight bf16")),
    "mul, bf16, repeating": (48, 1.708, ("mul cos bf16", "mul sin bf16")),
    "mul, fp32, repeating": (36, 1.365, ("mul fp32", "mul weights fp32")),
    "mul by a number": (35, 0.906, ("mul number fp32",)),
    "add, bf16": (59, 0.947, ("add bf16",)),
    "silu": (78, 1.406, ("activation bf16",)),
    "pow": (25, 0.953, ("pow fp32",)),
    "mean": (25, 1.828, ("mean fp32",)),
    "add epsilon": (25, 0.946, ("add epsilon fp32",)),
    "rsqrt": (25, 0.949, ("rsqrt fp32",)),
    "attention": (12, 5.539, ("flash_fwd bf16",)),
    "its combine": (12, 3.213, ("flash_fwd combine fp32",)),
    "cat, cache": (24, 3.274, ("cat keys bf16", "cat values bf16")),
    "cat, halves": (24, 2.051, ("cat halves bf16",)),
    "cat, angles": (12, 1.146, ("cat angles fp32",)),
    "cat, experts": (11, 1.016, ("cat experts bf16",)),
    "cat, tokens": (1, 1.460, ("cat tokens int64",)),
    "neg": (24, 1.738, ("neg bf16",)),
    "angles": (12, 0.975, ("angles fp32",)),
    "cos": (12, 1.343, ("cos fp32",)),
    "sin": (12, 1.339, ("sin fp32",)),
    "softmax": (11, 1.016, ("softmax fp32",)),
    "top-k": (11, 3.371, ("top-k fp32",)),
    "sort": (11, 3.078, ("sort int64",)),
    "scatter": (11, 1.337, ("scatter int64",)),
    "sum of counts": (11, 2.339, ("sum of counts int64",)),
    "floor_divide": (11, 1.263, ("floor_divide int64",)),
    "gather of tokens": (11, 1.058, ("gather tokens bf16",)),
    "index_put": (11, 3.135, ("index_put bf16",)),
    "sum of experts": (11, 2.501, ("sum of experts fp32",)),
    "zeros": (12, 0.760, ("zeros int64",)),
    "arange": (12, 0.714, ("arange int64",)),
    "eq": (3, 1.079, ("eq bool",)),
    "argmax": (1, 18.874, ("argmax fp32",)),
    "embedding": (1, 1.621, ("index_select bf16",)),
    "any": (1, 1.795, ("any bool",)),
    "cumsum": (1, 1.660, ("cumsum int64",)),
    "its start": (1, 0.745, ("cumsum init int64",)),
    "masked fill": (1, 1.489, ("masked fill int64",)),
    "add, int64": (1, 1.159, ("add int64",)),
}  # fmt: skip


def step():
    """Return the decode step, without its copies to the host."""
    w = template("deepseek_ocr", "decode", context=CONTEXT, lowering="hf-remote")
    return w, np.flatnonzero(~w.mask("kind", "memcpy"))


def labels(w, at):
    """Return name and type of kernels; of products also which are split and which are large."""
    product, split = w.mask("kernel", "mm"), w.mask("routine", "split")
    large = w["read_weight"] > 2 * 1280 * 1280
    names = np.array(w.text("kernel"), dtype=object)
    names[product & large] = "mm large"
    names[product & split] = "mm split"
    return (names + " " + np.array(w.text("dtype"), dtype=object))[at]


def machine():
    """Return the RTX 5090 with nothing that was measured on one."""
    known = [ns.load_arch(name)["memories.dram.efficiency"] for name in CALIBRATED]
    arch = ns.load_arch("rtx_5090")
    return ns.with_value(arch, "memories.dram.efficiency", float(np.median(known)))


def predicted(w, at, arch):
    """Return the time of each kernel [us]."""
    return kernel_time(w.operations(), Designs(arch))[at, 0] * 1e6


def rows():
    """Return for the accuracy page what was asked for: name, measured and predicted [us]."""
    w, at = step()
    return figures(w, at, predicted(w, at, machine()))


def figures(w, at, told):
    """Return the same for a step and what was predicted for its kernels."""
    experts = np.isin(labels(w, at), EXPERT)
    head = np.argmax(w["read_weight"][at])
    return [
        ("common expert GEMV", EXPERT_US, float(told[experts].mean())),
        ("lm_head", LM_HEAD_US, float(told[head])),
        ("busy", BUSY_US, float(told.sum())),
    ]


def line(name, count, measured, told):
    print(f"{name:28} {count:5.0f} {measured:8.2f} {told:8.2f} {told / measured:6.2f} "
          f"{count * measured:8.1f} {count * told:8.1f}")  # fmt: skip


def main():
    (w, at), arch = step(), machine()
    told, named = predicted(w, at, arch), labels(w, at)
    print(f"{'kernels':28} {'count':>5} {'measured':>8} {'told us':>8} {'ratio':>6} "
          f"{'in all':>8} {'told':>8}")  # fmt: skip
    means = {f: told[np.isin(named, of)].mean() for f, (_, _, of) in PROFILE.items()}
    for family, mean in sorted(means.items(), key=lambda f: -PROFILE[f[0]][0] * f[1]):
        count, measured, _ = PROFILE[family]
        line(family, count, measured, mean)
    print(f"\n{len(at):,} kernels in a step; DRAM at {arch['memories.dram.efficiency']:.3f} of the "
          "datasheet")  # fmt: skip
    for name, actual, value in figures(w, at, told):
        line(name, 1, actual, value)


if __name__ == "__main__":
    main()
