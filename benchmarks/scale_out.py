"""The tables of docs/scale_out.md: more chips, slower links, and shares that others measured.

    PYTHONPATH=. python benchmarks/scale_out.py

Rewrites what stands between the marks of each table in the page.
"""

import tempfile
from pathlib import Path

import npusim as ns
from npusim.scale_out import Plan, plans, scale_out
from npusim.units import CHOICES

PAGE = Path(__file__).parent.parent / "docs" / "scale_out.md"
LINKS = (300e9, 400e9, 500e9, 900e9)
FP8 = {"workload.arithmetic": CHOICES["arithmetic"].index("fp8_e4m3")}
HALF = {"workload.weight_bits": 8}

# What, model, phase, sequences, tokens, plan, settings.
SLOWER = [
    ("Llama-3.1-8B, decode, 2 chips", "llama_3_1_8b", "decode", 32, 4096, Plan(tensor=2), {}),
    ("decode, 8 chips", "llama_3_1_8b", "decode", 32, 4096, Plan(tensor=8), {}),
    ("prefill, 2 chips", "llama_3_1_8b", "prefill", 1, 4096, Plan(tensor=2), {}),
    ("prefill, 8 chips", "llama_3_1_8b", "prefill", 1, 4096, Plan(tensor=8), {}),
    ("prefill, 8 chips, overlap", "llama_3_1_8b", "prefill", 1, 4096,
     Plan(tensor=8, overlap=2), {}),
    ("prefill, 4 stages of 2 chips", "llama_3_1_8b", "prefill", 16, 4096,
     Plan(tensor=2, pipeline=4), {}),
    ("DeepSeek-V3, decode, 32 chips", "deepseek_v3", "decode", 1024, 4096, Plan(expert=32), HALF),
    ("decode, 32 chips, overlap", "deepseek_v3", "decode", 8192, 2048,
     Plan(expert=32, overlap=2), HALF),
    ("decode, the same without", "deepseek_v3", "decode", 8192, 2048, Plan(expert=32), HALF),
    ("prefill, 32 chips", "deepseek_v3", "prefill", 32, 2048, Plan(expert=32), HALF),
    ("prefill, 32 chips, overlap", "deepseek_v3", "prefill", 32, 2048,
     Plan(expert=32, overlap=2), HALF),
]  # fmt: skip

LLAMA_70B = """title: Llama-3.3-70B
source: config.json of meta-llama/Llama-3.3-70B-Instruct
dtype: bf16
decoder:
  layers: 80
  hidden: 8192
  vocabulary: 128256
  intermediate: 28672
  activation: silu
  tied: false
  attention: {heads: 64, kv_heads: 8, head_size: 128}
"""


def percent(share: float, sign: str = "", digits: int = 0) -> str:
    return f"{100 * share:{sign}.{digits}f} %"


def more_chips() -> str:
    """Return Llama-3.1-8B on one to eight H200s."""
    wanted = plans(tensor=(1, 2, 4, 8))
    lines = ["| chips | time per token | tokens/s | a chip | efficiency | collectives | J/token |",
             "|---|---|---|---|---|---|---|"]  # fmt: skip
    found = scale_out("llama_3_1_8b", ns.load_arch("h200"), "decode", 32, 4096, wanted)
    for row in found.rows:
        low, high = (f"{1e3 * t:.2f}" for t in row.band_s)
        lines.append(
            f"| {row.chips} | {1e3 * row.step_s:.2f} ms ({low}–{high}) | {row.tokens_per_s:,.0f} | "
            f"{row.tokens_per_s_chip:,.0f} | {percent(row.efficiency)} | "
            f"{percent(row.collective_share)} | {row.energy_j:.3f} |"
        )
    return "\n".join(lines)


def slower_links() -> str:
    """Return what slower links leave of the rate of the decode NPU with 900 GB/s."""
    arch = ns.load_arch("decode_npu")
    lines = ["| on `decode_npu` | at 900 GB/s | collectives | 500 GB/s | 400 GB/s | 300 GB/s |",
             "|---|---|---|---|---|---|"]  # fmt: skip
    for what, model, phase, batch, context, plan, settings in SLOWER:
        rows = {b: scale_out(model, ns.with_value(arch, "link.bandwidth", b), phase, batch, context,
                             [plan], "queue", settings=settings).rows[0]
                for b in LINKS}  # fmt: skip
        full = rows[900e9]
        left = " | ".join(percent(full.step_s / rows[b].step_s) for b in (500e9, 400e9, 300e9))
        lines.append(f"| {what} | {1e3 * full.step_s:.1f} ms | "
                     f"{percent(full.collective_share)} | {left} |")  # fmt: skip
    return "\n".join(lines)


def measured_shares() -> str:
    """Return shares and gains beside those of a poster on eight H100s."""
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "llama_70b.yaml"
        model.write_text(LLAMA_70B)
        wanted = [Plan(tensor=8), Plan(tensor=4, data=2)]
        ways = {"fp8": FP8, "bf16": {}}
        rows = {name: scale_out(str(model), ns.load_arch("h100"), "prefill", 8, 2048, wanted,
                                settings=settings).rows
                for name, settings in ways.items()}  # fmt: skip
    gain = {name: four.tokens_per_s / eight.tokens_per_s - 1
            for name, (eight, four) in rows.items()}  # fmt: skip
    eight, four = (percent(row.collective_share, digits=1) for row in rows["fp8"])
    return "\n".join([
        "| Llama-3.3-70B, prompts of 2,048 tokens, eight H100s | measured | here |",
        "|---|---|---|",
        f"| share of all-reduces, fp8, 8 chips | 35.1 % | {eight} |",
        f"| share of all-reduces, fp8, 4 chips | 25.5 % | {four} |",
        f"| two copies on 4 chips over one on 8, fp8 | +27.3 % | {percent(gain['fp8'], '+', 1)} |",
        f"| the same, bf16 | +18.1 % | {percent(gain['bf16'], '+', 1)} |",
    ])  # fmt: skip


def main() -> None:
    text = PAGE.read_text()
    for name, table in (("more chips", more_chips), ("slower links", slower_links),
                        ("measured", measured_shares)):  # fmt: skip
        start, end = f"<!-- {name} -->\n", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        _, _, after = rest.partition(end)
        text = f"{before}{start}\n{table()}\n\n{end}{after}"
    PAGE.write_text(text)
    print(PAGE)


if __name__ == "__main__":
    main()
