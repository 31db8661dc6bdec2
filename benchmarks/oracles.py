"""One decoder layer beside what others say of it: GenZ's counts, and LLMCompass's measurements.

Run: PYTHONPATH=. python benchmarks/oracles.py; GenZ's part needs `pip install genz-llm`.

GenZ (A. Bambhaniya et al., "Demystifying AI platform design for distributed inference of
next-generation LLM models", arXiv:2406.01698) is a roofline of products and attention. It is given
the machine that npusim has, with peaks and bandwidth as quoted, so that counts are compared.

LLMCompass (H. Zhang et al., ISCA 2024, doi:10.1109/ISCA59077.2024.00082) published what it measured
of products and of one layer of GPT-3 175B on four A100 SXM4 80 GB, fp16, tensor parallel:
github.com/PrincetonUniversity/LLMCompass (BSD-3-Clause), commit b95c6c9, ae/figure5. `GEMM` and
`LAYER` are those figures, `OVERHEAD` what it says a launch adds to each in its loop
(hardware_model/compute_module.py). Nothing of npusim was fitted to them.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import npusim as ns
from npusim.arch import Designs
from npusim.importers.products import RULES as PRODUCTS
from npusim.importers.streams import RULES as STREAMS
from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Launch
from npusim.measured.shapes import COLD, Measurable, linear, operations
from npusim.models.kernel import kernel_time
from npusim.models.roofline import compute_time, memory_time

US, MS = 1e-6, 1e-3
# m, n, k -> seconds, one product of fp16 (ae/figure5/ab/real_hardware/matmul_A100.csv)
GEMM = {
    (64, 12288, 12288): 0.1900e-3, (128, 12288, 12288): 0.2003e-3, (256, 12288, 12288): 0.3185e-3,
    (512, 12288, 12288): 0.6118e-3, (1024, 12288, 12288): 1.1990e-3,
    (2048, 12288, 12288): 2.3586e-3, (4096, 12288, 12288): 4.4576e-3,
    (8192, 12288, 12288): 8.6216e-3, (16384, 12288, 12288): 17.0307e-3,
    (32768, 12288, 12288): 35.4407e-3, (8192, 64, 64): 0.0296e-3, (8192, 128, 128): 0.0310e-3,
    (8192, 256, 256): 0.0356e-3, (8192, 512, 512): 0.0471e-3, (8192, 1024, 1024): 0.0927e-3,
    (8192, 2048, 2048): 0.2818e-3, (8192, 4096, 4096): 1.0210e-3, (8192, 8192, 8192): 3.9614e-3,
    (8192, 16384, 16384): 15.0087e-3, (8192, 32768, 32768): 61.1346e-3,
}  # fmt: skip
# operator -> seconds of 8 sequences: 2,048 tokens each, and one token each of 3,072
# (ae/figure5/ijkl/real_hardware/transformer_A100.csv and transformerAR_A100.csv)
LAYER: Mapping[str, Mapping[str, float]] = {
    "prefill": {
        "Q, K, V": 13.7218e-3, "Q x K": 1.88112e-3, "A x V": 1.18315e-3, "Wo": 4.54032e-3,
        "W1": 17.46428e-3, "W2": 17.48562e-3, "softmax": 2.80154e-3, "norm 1": 0.68164e-3,
        "norm 2": 0.68164e-3, "GELU": 0.52428e-3, "all-reduce 1": 2.8909e-3,
        "all-reduce 2": 2.8909e-3,
    },
    "decode": {
        "Q, K, V": 212.431e-6, "Q x K": 106.096e-6, "A x V": 138.640e-6, "Wo": 68.903e-6,
        "W1": 185.966e-6, "W2": 186.086e-6, "softmax": 16.689e-6, "norm 1": 48.041e-6,
        "norm 2": 48.041e-6, "GELU": 47.922e-6, "all-reduce 1": 26.04e-6, "all-reduce 2": 26.04e-6,
    },
}  # fmt: skip
OVERHEAD = {"product": 21 * US, "softmax": 12 * US, "norm": 45 * US, "GELU": 45 * US}
ATTENTION = ("Q x K", "softmax", "A x V")
GPT3 = {
    "model_type": "opt", "architectures": ["OPTForCausalLM"], "hidden_size": 12288,
    "num_attention_heads": 96, "num_hidden_layers": 2, "ffn_dim": 49152, "vocab_size": 50272,
    "max_position_embeddings": 4096, "word_embed_proj_dim": 12288, "do_layer_norm_before": True,
    "activation_function": "gelu", "torch_dtype": "float16", "enable_bias": True,
    "tie_word_embeddings": True,
}  # fmt: skip  # OPT-175B is GPT-3 175B in its layers; two of its 96 are enough
BATCH, PROMPT, KEYS, CHIPS = 8, 2048, 3072, 4


# --- LLMCompass --------------------------------------------------------------------------------


def products(arch: ns.Arch) -> Mapping[tuple[int, int, int], float]:
    """Return the predicted time of each of its products, kernel alone [s]."""
    made = operations([linear("fp16", m, n, k) for m, n, k in GEMM])
    return dict(zip(GEMM, kernel_time(made, Designs(arch))[:, 0].tolist(), strict=True))


def gpt3(phase: str) -> ns.Workload:
    """Return one chip's share of two layers of GPT-3 175B, as PyTorch runs them eagerly."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "config.json"
        path.write_text(json.dumps(GPT3), encoding="utf-8")
        context = PROMPT if phase == "prefill" else KEYS - 1
        return ns.template(str(path), phase, batch=BATCH, context=context, tensor=CHIPS,
                           lowering="hf-eager")  # fmt: skip


def layer(phase: str, arch: ns.Arch) -> dict[str, float]:
    """Return the predicted times of the second of two layers, kernels alone [s].

    Attention is one fused kernel here ("attention"), where LLMCompass measured three; "the rest" is
    what its layer does not have: cache, residual sums, kernels that the library launches beside.
    """
    w = gpt3(phase)
    rows = np.flatnonzero(w["layer"] == 1)
    kinds = w.text("kind")[rows].tolist()
    times = kernel_time(w.operations(rows), Designs(arch))[:, 0].tolist()
    names = iter(("Q, K, V", "Q, K, V", "Q, K, V", "Wo", "W1", "W2"))
    norms, sums = iter(("norm 1", "norm 2")), iter(("all-reduce 1", "all-reduce 2"))
    found: dict[str, float] = {}
    name = ""
    for kind, time in zip(kinds, times, strict=True):
        if kind in ("gemm", "gemv"):
            name = next(names)
        elif kind == "norm":
            name = next(norms)
        elif kind == "collective":
            name = next(sums)
        elif kind == "attention":
            name = "attention"
        elif kind == "activation":
            name = "GELU"
        elif kind not in ("splitk_reduce", "attention_combine"):  # these belong to the one before
            name = "the rest"
        found[name] = found.get(name, 0.0) + time
    return found


def unfused(phase: str, arch: ns.Arch) -> dict[str, float]:
    """Return the predicted times of attention as three kernels, as LLMCompass measured it [s]."""
    heads, keys = BATCH * 96 // CHIPS, KEYS if phase == "decode" else PROMPT
    queries = 1 if phase == "decode" else PROMPT
    made = [
        call("bmm", (heads, queries, 128), (heads, 128, keys)),
        call("softmax", (heads, queries, keys), values=("", "-1")),
        call("bmm", (heads, queries, keys), (heads, keys, 128)),
    ]
    return dict(zip(ATTENTION, kernel_time(operations(made), Designs(arch))[:, 0].tolist(),
                    strict=True))  # fmt: skip


def call(name: str, *shapes: tuple[int, ...], values: tuple[str, ...] = ()) -> Measurable:
    """Return a call of PyTorch on cold tensors of fp16, with the work that importers give it."""
    full = f"aten::{name}"
    tensors = tuple(Tensor(shape, "fp16", 2) for shape in shapes)
    work = {**PRODUCTS, **STREAMS}[full](Call(full, tensors, values), Launch(""))
    if work is None:
        raise RuntimeError(f"no rule takes {name} of {shapes}")
    return Measurable(work, COLD, COLD, COLD)


def overhead(name: str) -> float:
    """Return what LLMCompass says the launches of an operator add [s]."""
    if name.startswith("all-reduce"):
        return 0.0
    kind = name.split(maxsplit=1)[0]
    launches = 3 if name == "Q, K, V" else 1
    return launches * OVERHEAD.get(kind, OVERHEAD["product"])


# --- GenZ --------------------------------------------------------------------------------------


def quoted(arch: ns.Arch) -> ns.Arch:
    """Return a machine whose roofline is that of its datasheet: no throttling, no losses."""
    for path, value in {
        "matrix.efficiency": 1.0, "vector.efficiency": 1.0, "memories.dram.efficiency": 1.0,
        "units.base_clock": arch["matrix.clock"], "units.clock": arch["matrix.clock"],
    }.items():  # fmt: skip
        arch = ns.with_value(arch, path, value)
    return arch


def roofline(workload: ns.Workload, rows: Sequence[int], arch: ns.Arch) -> NDArray[np.float64]:
    """Return the roofline's time of some operations [s]."""
    o, designs = workload.operations(np.array(rows)), Designs(arch)
    return np.maximum(compute_time(o, designs), memory_time(o, designs))[:, 0]


def genz(
    phase: str, batch: int, tokens: int, chips: int, arch: ns.Arch
) -> dict[str, dict[str, float]]:
    """Return GenZ's FLOP, bytes [B] and time [s] of the operators of a layer of Llama-3.1-8B.

    In decode a token of each sequence sees itself and `tokens` before it.
    """
    from GenZ import ParallelismConfig, System, Unit, get_configs  # noqa: PLC0415
    from GenZ.analyse_model import analysis_model  # noqa: PLC0415
    from GenZ.Models import attention, ffn  # noqa: PLC0415

    model = get_configs("meta-llama/Llama-3.1-8B")
    split = ParallelismConfig(tensor_parallel=chips)
    if phase == "prefill":
        made = attention.mha_flash_attention_prefill(model, split, tokens)
        made += ffn.ffn_prefill(model, split, tokens)
    else:
        made = attention.mha_flash_attention_decode(model, split, tokens, 1)
        made += ffn.ffn_decode(model, split)
    peak = arch["matrix.bf16.rate"] * arch["units.count"] * arch["matrix.clock"]
    # its GB/s are 2^30 B/s; what stays on the chip costs nothing
    system = System(Unit(), flops=peak / 1e12, onchip_mem_bw=1e12,
                    offchip_mem_bw=arch["memories.dram.bandwidth"] / 2**30)  # fmt: skip
    table = analysis_model([[row[0], batch, *row[1:]] for row in made], system, Unit(),
                           intermediate_on_chip=True)  # fmt: skip
    found: dict[str, dict[str, float]] = {}
    for row in table.to_dict("records"):
        found[row["Layer Name"]] = {
            "flop": row["Num ops (MFLOP)"] * 1e6, "input": row["Input_a (MB)"] * 2**20,
            "weight": row["Input_w (MB)"] * 2**20, "output": row["Output (MB)"] * 2**20,
            "time": row["Latency (msec)"] * MS,
        }  # fmt: skip
    return found


def llama(
    phase: str, batch: int, tokens: int, chips: int
) -> tuple[ns.Workload, dict[str, int], list[int]]:
    """Return a template of Llama-3.1-8B, GenZ's operators in it, and all rows of that layer."""
    w = ns.template("llama_3_1_8b", phase, batch=batch, context=tokens, tensor=chips,
                    lowering="serving")  # fmt: skip
    rows = np.flatnonzero(w["layer"] == 1)
    kinds = w.text("kind")[rows]
    products = rows[np.isin(kinds, ["gemm", "gemv"])].tolist()
    found = dict(zip(("QKV", "Out Proj", "up+gate", "down"), products, strict=True))
    found["attention"] = int(rows[kinds == "attention"][0])
    return w, found, rows.tolist()


# --- tables ------------------------------------------------------------------------------------


def report_llmcompass(arch: ns.Arch) -> None:
    """Print measured and predicted times of products and of a layer."""
    print(
        "| m, n, k | measured [us] | predicted | error | with its launch |\n|---|---|---|---|---|"
    )
    for shape, told in products(arch).items():
        was, eager = GEMM[shape], told + OVERHEAD["product"]
        print(f"| {shape[0]}, {shape[1]}, {shape[2]} | {was / US:.1f} | {told / US:.1f} "
              f"| {told / was - 1:+.1%} | {eager / was - 1:+.1%} |")  # fmt: skip
    for phase, measured in LAYER.items():
        found, apart = layer(phase, arch), unfused(phase, arch)
        print(f"\n| GPT-3 175B, {phase} | measured [us] | predicted | error | with its launch |")
        print("|---|---|---|---|---|")
        kernels = {name: found.get(name) or apart[name] for name in measured}
        rows = [(name, was, kernels[name], overhead(name)) for name, was in measured.items()]
        rows.append(("all", sum(measured.values()), sum(kernels.values()),
                     sum(overhead(name) for name in measured)))  # fmt: skip
        for name, was, told, more in rows:
            print(f"| {name} | {was / US:.1f} | {told / US:.1f} | {told / was - 1:+.1%} "
                  f"| {(told + more) / was - 1:+.1%} |")  # fmt: skip
        print(f"| attention, fused | | {found['attention'] / US:.1f} | | |")
        print(f"| the rest | | {found['the rest'] / US:.1f} | | |")


def report_genz(arch: ns.Arch) -> None:
    """Print GenZ's layer beside the roofline, and beside the model, of the template."""
    for phase, batch in (("prefill", 1), ("decode", 1), ("decode", 64)):
        w, found, rows = llama(phase, batch, PROMPT, 1)
        plain = quoted(arch)
        theirs = sum(row["time"] for row in genz(phase, batch, PROMPT, 1, plain).values())
        mine = roofline(w, list(found.values()), plain).sum()
        whole = roofline(w, rows, plain).sum()
        model = kernel_time(w.operations(np.array(rows)), Designs(arch)).sum()
        print(f"| Llama-3.1-8B, {phase}, batch {batch} | {theirs / US:.1f} | {mine / US:.1f} "
              f"| {whole / US:.1f} | {model / US:.1f} |")  # fmt: skip


if __name__ == "__main__":
    report_llmcompass(ns.load_arch("a100"))
    if find_spec("GenZ"):
        print("\n| one layer on an A100 [us] | GenZ | the same operators, datasheet roofline "
              "| all kernels, roofline | all kernels, model |\n|---|---|---|---|---|")  # fmt: skip
        report_genz(ns.load_arch("a100"))
