"""``npusim memory``: what it prints, its JSON, and bad input."""

import json
import os
import re

import pytest
from click.testing import CliRunner

from npusim.cli import main
from npusim.commands.memory import memory
from npusim.memory_plan import memory_plan

GUIDE = ["paddleocr_vl", "--max-model-len", "16384", "--max-num-seqs", "256",
         "--max-num-batched-tokens", "16384", "--framework", "fastdeploy",
         "--no-chunked-prefill"]  # fmt: skip


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run the command in an empty folder."""
    cwd = tmp_path / "cwd"
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    if "memory" not in main.commands:
        main.add_command(memory)
    return lambda *args: CliRunner().invoke(main, ["memory", *(str(a) for a in args)])


@pytest.fixture
def told(run):
    """Return the one JSON object that the command prints."""

    def answer(*args):
        done = run(*args, "--json")
        assert (done.exit_code, done.stderr) == (0, "")
        assert len(done.stdout.splitlines()) == 1
        assert os.listdir() == []  # noqa: PTH208
        return json.loads(done.stdout)

    return answer


def test_it_answers_what_the_library_does(told):
    content = told(*GUIDE, "--arch", "rtx_3060", "--gpu-memory-utilization", "0.8")
    plan = memory_plan("paddleocr_vl", 12e9, 16384, 256, 16384, 0.8, framework="fastdeploy",
                       chunked_prefill=False)  # fmt: skip
    same = json.loads(json.dumps(plan.as_dict()))
    assert {name: content[name] for name in same} == same
    assert content["fits"] is True
    assert content["arch"] == "rtx_3060"
    assert content["advice"] == []
    assert content["weights_bytes"] == 1_917_177_472
    assert content["kv_bytes_per_token"] == 18_432
    assert content["kv_bytes_all_sequences"] == 77_309_411_328


def test_one_that_does_not_fit_is_an_answer(run, told):
    flags = ["llama_3_1_8b", "--memory", "24 GB", "--max-model-len", "131072",
             "--max-num-batched-tokens", "2048"]  # fmt: skip
    content = told(*flags)
    assert content["fits"] is False
    said = {a["flag"]: (a["bound"], a["value"]) for a in content["advice"]}
    assert set(said) == {"--max-model-len", "--memory", "--tensor"}
    assert said["--max-model-len"] == ("at most", content["largest"]["max_model_len"])
    done = run(*flags)
    assert done.exit_code == 0
    assert "DOES NOT FIT: " in done.stdout
    assert "any one of these makes it fit:" in done.stdout
    assert f"--max-model-len at most {said['--max-model-len'][1]:,}" in done.stdout


def test_each_piece_of_advice_typed_in_fits(told):
    flags = {"--memory": "19 GB", "--max-model-len": 16384, "--max-num-batched-tokens": 32768,
             "--max-num-seqs": 256, "--gpu-memory-utilization": 0.93}  # fmt: skip
    spoken = [str(part) for flag in flags.items() for part in flag]
    content = told("llama_3_1_8b", *spoken)
    assert content["fits"] is False
    assert content["advice"]
    for a in content["advice"]:
        value = f"{a['value']:.0f}B" if a["flag"] == "--memory" else a["value"]
        changed = flags | {a["flag"]: value}
        again = [str(part) for flag in changed.items() for part in flag]
        assert told("llama_3_1_8b", *again)["fits"] is True, a


def test_what_it_prints(run):
    done = run(*GUIDE, "--arch", "rtx_3060", "--gpu-memory-utilization", "0.8")
    assert (done.exit_code, done.stderr) == (0, "")
    title, *lines = done.stdout.splitlines()
    assert title.startswith("PaddleOCR-VL-0.9B on rtx_3060, 12 GB, as fastdeploy counts")
    shares = {line.strip().split("  ")[0]: float(found[1]) for line in lines
              if (found := re.search(r"(-?[0-9.]+)%", line))}  # fmt: skip
    assert shares["weights"] == pytest.approx(16.0, abs=0.05)
    assert shares["reserve"] == pytest.approx(20.0, abs=0.05)
    assert shares.pop("taken beside") < shares["reserve"]  # a part of it
    assert sum(shares.values()) == pytest.approx(100, abs=0.4)
    text = done.stdout
    assert "a token of the KV cache takes 18.43 kB, a sequence of 16,384 takes 302 MB" in text
    assert "fits: " in text
    assert "all sequences at their longest would take 77.31 GB" in text


def test_a_reserve_that_is_too_small_is_said(run, told):
    flags = ["paddleocr_vl", "--memory", "12 GB", "--gpu-memory-utilization", "0.99"]
    content = told(*flags)
    assert content["fits"] is True
    assert content["spare_bytes"] < 0
    assert content["utilization_with_room_beside"] == 0.94
    assert "out of memory in service" in run(*flags).stdout
    lower = told(*flags[:-1], content["utilization_with_room_beside"])
    assert lower["spare_bytes"] >= 0
    assert lower["utilization_with_room_beside"] is None


def test_a_usual_length_other_than_a_page(told):
    page = told(*GUIDE, "--memory", "8 GB")
    longer = told(*GUIDE, "--memory", "8 GB", "--typical", "4096")
    assert page["typical_tokens"] == 628 + 165
    assert longer["typical_tokens"] == 4096
    assert longer["typical_sequences"] == longer["pool_blocks"] // 64
    assert told("llama_3_1_8b", "--arch", "h200")["typical_tokens"] is None


def test_a_machine_with_another_memory(told):
    a100 = told("llama_3_1_8b", "--arch", "a100", "--memory", "40 GB")
    assert a100["capacity_bytes"] == 40e9
    assert a100["arch"] == "a100"
    # larger than the memory of the machine itself
    assert told("llama_3_1_8b", "--arch", "rtx_3060", "--memory", "48 GB")["fits"] is True


def test_a_hugging_face_config_says_how_long_its_sequences_may_be(run, tmp_path):
    config = tmp_path / "config.json"
    config.write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 2048,
        "intermediate_size": 8192, "num_hidden_layers": 16, "num_attention_heads": 32,
        "num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": True,
        "torch_dtype": "bfloat16", "hidden_act": "silu", "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5,
    }))  # fmt: skip
    done = run(config, "--memory", "24 GB", "--max-model-len", "8193")
    assert done.exit_code == 1
    assert done.stderr == ("error: --max-model-len: longer than the model was made for: 8193 "
                           "(allowed: up to 8,192)\n")  # fmt: skip
    assert run(config, "--memory", "24 GB", "--max-model-len", "8192").exit_code == 0


SMALL = ["paddleocr_vl", "--memory", "8 GB"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["paddleocr_vl"], "--arch: is needed"),
        (["none", "--memory", "8 GB"], "none"),
        (["paddleocr_vl", "--arch", "none"], "none"),
        (["paddleocr_vl", "--memory", "8"], "--memory: has no unit"),
        (["paddleocr_vl", "--memory", "8 GB/s"], "--memory: has the wrong unit"),
        (["paddleocr_vl", "--memory", "0 GB"], "--memory: not a size of a memory"),
        (["paddleocr_vl", "--memory", "1 GB"], "the weights alone, 1.917 GB, are larger"),
        ([*SMALL, "--max-num-seqs", "0"], "--max-num-seqs: not a count"),
        ([*SMALL, "--gpu-memory-utilization", "1.5"],
         "--gpu-memory-utilization: out of range: 1.5"),
        ([*SMALL, "--gpu-memory-utilization", "nan"],
         "--gpu-memory-utilization: out of range: nan"),
        ([*SMALL, "--image", "0x5"], "--image: not a size of an image"),
        ([*SMALL, "--image", "1x900"], "too long for its width"),
        (["llama_3_1_8b", "--memory", "24 GB", "--image", "640x640"],
         "--image: of a model without"),
        ([*SMALL, "--typical", "99999"], "--typical: out of range"),
        ([*SMALL, "--typical", "0"], "--typical: out of range"),
        ([*SMALL, "--framework", "x"], "--framework: unknown framework"),
        ([*SMALL, "--tensor", "5"], "--tensor: does not divide"),
        ([*SMALL, "--images", "0"], "--images: not a count"),
        ([*SMALL, "--block-size", "0"], "--block-size: not a count"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run, flags, message):
    done = run(*flags)
    assert (done.exit_code, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: ")
    assert message in line
