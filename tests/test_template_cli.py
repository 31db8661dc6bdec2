"""``npusim template`` as people run it, on good and on bad input."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import npusim as ns
from npusim import catalog
from npusim.cli import main

ROOT = Path(__file__).parents[1]
CONFIG = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_act": "silu",
    "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_hidden_layers": 2,
    "num_key_value_heads": 2, "tie_word_embeddings": True, "torch_dtype": "bfloat16",
    "vocab_size": 100,
}  # fmt: skip


@pytest.fixture
def cli(tmp_path, monkeypatch):
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def run(*args):
        return CliRunner().invoke(main, ["template", *map(str, args)])

    return run


def paddle(*args):
    return ("paddleocr_vl", "--phase", *args, "-o", "w.parquet")


def test_what_is_made_is_told_and_written(cli):
    result = cli(*paddle("decode", "--context", "628", "--batch", "2", "--steps", "3", "--json"))
    assert result.exit_code == 0 and result.stderr == ""
    told = json.loads(result.stdout)
    assert set(told) >= {"out", "operations", "model", "lowering", "batch", "context", "new",
                         "origins", "notes", "command"}  # fmt: skip
    assert (told["out"], told["operations"]) == ("w.parquet", 3 * 782)
    assert (told["batch"], told["context"], told["lowering"]) == (2, 628, "hf-eager")
    assert told["origins"]["generated"]["count"] == 3 * 782
    w = ns.load_workload("w.parquet")
    assert w.name == "w" and len(w) == 3 * 782 and len(w.steps) == 3
    assert w.id == ns.template("paddleocr_vl", "decode", context=628, batch=2, steps=3).id
    assert [str(file) for file in Path().iterdir()] == ["w.parquet"]


def test_notes_of_a_model_are_told(cli):
    asked = ("qwen3_30b_a3b", "--phase", "decode", "--lowering", "npu", "-o", "w.parquet")
    said = cli(*asked)
    assert "note: weights of the chosen experts are not divided" in said.stdout
    assert json.loads(cli(*asked, "--json").stdout)["notes"]


@pytest.mark.parametrize(("args", "operations"), [
    (("prefill", "--context", "9", "--new", "3"), None),
    (("decode", "--draft", "2", "--acceptance", "0.5"), None),
    (("vision", "--image", "728X644", "--images", "2"), None),
    (("decode", "--lowering", "serving"), None),
    (("decode", "--set", "decoder.layers=1"), 782 - 17 * 42),
    (("decode", "--set", "decoder.layers = 3", "--set", "decoder.layers=1"), 782 - 17 * 42),
    (("decode", "--set", "decoder.layers=1", "--set", "dtype=fp16"), 782 - 17 * 42),
    (("decode", "--set", "decoder.layers=1", "--set", "vision=null"), 782 - 17 * 42),
    (("decode", "--set", "decoder.layers=1", "--set", "decoder.tied=true"), 782 - 17 * 42),
])  # fmt: skip
def test_what_may_be_asked(cli, args, operations):
    result = cli(*paddle(*args, "--json"))
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["operations"]
    assert found > 0 and operations in (None, found)


def test_a_config_of_hugging_face(cli, tmp_path):
    folder = tmp_path / "Tiny-Llama"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(CONFIG))
    result = cli(folder / "config.json", "--phase", "decode", "--context", 5, "-o", "w.parquet")
    assert result.exit_code == 0, result.output
    w = ns.load_workload("w.parquet")
    # q, k, v and output, three of the network in each layer, and the head: two bytes a weight
    weights = 2 * (64 * (64 + 2 * 32 + 64) + 3 * 64 * 128) + 64 * 100
    products = w.mask("kind", "gemv")
    assert w["read_weight"][products].sum() == 2 * weights


BAD = [
    (("nosuch", "--phase", "decode", "-o", "w.parquet"), "no such model: 'nosuch'"),
    (("no/such.json", "--phase", "decode", "-o", "w.parquet"), "no/such.json: no such file"),
    (("paddleocr_vl", "--phase", "decode", "-o", "w.txt"), "--output: not a name for a workload"),
    (("paddleocr_vl", "--phase", "decode", "-o", "w"), "--output: not a name for a workload"),
    (paddle("decode", "--batch", "0"), "batch: out of range: 0"),
    (paddle("decode", "--context", "-1"), "context: out of range: -1"),
    (paddle("decode", "--steps", "0"), "steps: out of range: 0"),
    (paddle("decode", "--new", "3"), "new: not of decode: 3"),
    (paddle("decode", "--draft", "3"), "draft: drafted tokens and their acceptance go together"),
    (paddle("decode", "--acceptance", "nan"), "acceptance"),
    (paddle("decode", "--draft", "1", "--acceptance", "nan"), "acceptance: out of range: nan"),
    (paddle("decode", "--image", "64x64"), "image: not of decode"),
    (paddle("decode", "--experts-hit", "6"), "experts_hit: of a model without experts"),
    (paddle("decode", "--lowering", "nosuch"), "no such lowering: 'nosuch'"),
    (paddle("prefill", "--logits", "all", "--context", "0"), "context: out of range: 0"),
    (paddle("page", "--context", "9"), "context: not of page"),
    *((paddle("vision", "--image", size), "--image: not the size of an image")
      for size in ("1024x", "x", "1024", "64x64x64", "-64x64", "6.4x64", "²x64", "9" * 20 + "x1")),
    (paddle("vision", "--image", "0x64"), "width: out of range: 0"),
    (paddle("vision", "--images", "0"), "images: out of range: 0"),
    (paddle("decode", "--set", "decoder.layers"), "--set: not a setting: 'decoder.layers'"),
    (paddle("decode", "--set", "=3"), "--set: not a setting: '=3'"),
    (paddle("decode", "--set", "decoder.layers=abc"), "decoder.layers: not a whole number: 'abc'"),
    (paddle("decode", "--set", "decoder.layers=1.5"), "decoder.layers: not a whole number: 1.5"),
    (paddle("decode", "--set", "decoder.layers=true"), "decoder.layers: not a whole number"),
    (paddle("decode", "--set", "decoder.layers=[1]"), "decoder.layers: not a whole number"),
    (paddle("decode", "--set", "decoder.tied=1"), "decoder.tied: not true or false: 1"),
    (paddle("decode", "--set", "decoder.layers.x=3"), "not a setting of a model"),
    (paddle("decode", "--set", "decoder..x=3"), "unknown key"),
    (paddle("decode", "--set", "nothing=3"), "nothing: unknown key: 'nothing'"),
    (paddle("decode", "--set", "decoder=3"), "decoder: not a mapping: 3"),
    (paddle("decode", "--set", "decoder.attention.kv_heads=3"), "does not divide the heads: 3"),
]  # fmt: skip


@pytest.mark.parametrize(("args", "said"), BAD)
def test_bad_input_is_told_in_a_line_and_nothing_is_written(cli, args, said):
    result = cli(*args)
    assert result.exit_code == 1 and isinstance(result.exception, SystemExit)
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ") and said in line
    assert not any(Path().iterdir())


@pytest.mark.parametrize("args", [
    ("paddleocr_vl", "-o", "w.parquet"), ("paddleocr_vl", "--phase", "decode"),
    paddle("train"), paddle("decode", "--batch", "two"), paddle("prefill", "--logits", "some"),
    paddle("decode", "--nothing"),
])  # fmt: skip
def test_what_click_refuses(cli, args):
    assert cli(*args).exit_code == 2
    assert not any(Path().iterdir())


def test_a_file_that_is_the_model_is_not_written_over(cli, tmp_path):
    file = tmp_path / "model.parquet"
    file.write_text(catalog.find("models", "paddleocr_vl").read_text())
    before = file.read_text()
    result = cli(file, "--phase", "decode", "-o", file)
    assert result.exit_code == 1 and "would be replaced by what is made of it" in result.stderr
    assert file.read_text() == before


def test_help_lists_what_ships(cli):
    said = " ".join(cli("--help").stdout.split())
    for name in (*catalog.names("models"), *catalog.names("lowerings")):
        assert name in said


def test_help_is_quick():
    """Neither models nor lowerings are read for it: the fastest of some runs, 0.4 s at most."""
    code = (
        "import sys; from npusim.cli import main; main(['--help'], standalone_mode=False);"
        "print([m for m in ('numpy', 'pydantic', 'npusim.templates') if m in sys.modules])"
    )
    found = []
    for _ in range(4):
        start = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found.append(time.perf_counter() - start)
        assert run.stdout.splitlines()[-1] == "[]"
    assert min(found) < 0.4
