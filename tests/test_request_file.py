"""Request logs: formats of public ones, and one line for what is wrong in a file."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.request_file import NAMES, read_requests

HEAD = "arrival_s,prompt,output\n"


@pytest.fixture
def log(tmp_path):
    """Write a log and read it."""

    def read(name, text, columns=None, scale=1.0):
        file = tmp_path / name
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_requests(file, columns, scale)

    return read


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def asked(found):
    return [(r.prompt, r.output, r.arrival_s) for r in found.requests]


def test_vllm_and_llmservingsim(log):
    rows = [
        {"request_id": "b", "input_toks": 20, "output_toks": 4, "arrival_time": 7.0,
         "queued_ts": 1002.5, "first_token_ts": 1003.0, "last_token_ts": 1004.5},
        {"request_id": "a", "input_toks": 10, "output_toks": 3, "arrival_time": 8.0,
         "queued_ts": 1002.0, "first_token_ts": 1002.25, "last_token_ts": 1006.0},
    ]  # fmt: skip
    found = log("requests.jsonl", lines(*rows))
    assert asked(found) == [(10, 3, 0.0), (20, 4, 0.5)]
    np.testing.assert_allclose(found.first_s, [0.25, 1.0])
    np.testing.assert_allclose(found.last_s, [4.0, 2.5])
    assert found.columns["arrival"] == "queued_ts"  # what the engine saw, before what a client did
    assert found.columns["prompt"] == "input_toks"


def test_azure(log):
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,3180,8\n"
        "2023-11-17 18:17:04.0319600,110,27\n"
    )
    found = log("AzureLLMInferenceTrace_conv.csv", text)
    times = [r.arrival_s for r in found.requests]
    assert times == pytest.approx([0.0, 0.052, 86_400.052], abs=1e-6)
    assert [r.prompt for r in found.requests] == [4808, 3180, 110]
    assert [r.output for r in found.requests] == [10, 8, 27]
    zoned = text.replace("\n2023-11-16 18:17:04.0319600", "\n2023-11-16 19:17:04.0319600+01:00")
    assert log("zoned.csv", zoned.replace("9600,", "9600Z,", 1)).requests[1].arrival_s == (
        pytest.approx(0.052, abs=1e-6)
    )


def test_burstgpt(log):
    text = (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,ChatGPT,472,18,490,Conversation log\n"
        "45,GPT-4,1087,230,1317,API log\n"
    )
    assert asked(log("BurstGPT_1.csv", text)) == [(472, 18, 0.0), (1087, 230, 40.0)]


def test_mooncake_is_in_milliseconds(log):
    # fmt: off
    rows = [{"timestamp": 27482, "input_length": 6955, "output_length": 52, "hash_ids": [46, 47]},
            {"timestamp": 30535, "input_length": 6472, "output_length": 26, "hash_ids": [46]}]
    # fmt: on
    found = log("mooncake_trace.jsonl", lines(*rows), scale=1e-3)
    assert [r.arrival_s for r in found.requests] == pytest.approx([0, 3.053])


def test_times_since_1970_keep_their_distances(log):
    rows = [{"arrival_time": 1.7e9 + t, "prompt_tokens": 5, "completion_tokens": 2,
             "first_token_s": 1.7e9 + t + 0.25, "last_token_s": 1.7e9 + t + 1}
            for t in (0, 2)]  # fmt: skip
    found = log("epoch.jsonl", lines(*rows))
    np.testing.assert_allclose([r.arrival_s for r in found.requests], [0, 2], atol=1e-6)
    np.testing.assert_allclose(found.first_s, [0.25, 2.25], atol=1e-6)


def test_tokens_of_a_log_with_dates(log):
    text = (
        "arrived_at,input_tokens,output_tokens,first_token_s,last_token_s\n"
        "2024-05-12T10:00:01,9,3,2024-05-12T10:00:04,2024-05-12T10:00:05\n"
        "2024-05-12T10:00:00,8,2,2024-05-12T10:00:01.5,2024-05-12T10:00:03\n"
    )
    found = log("dates.csv", text)
    assert asked(found) == [(8, 2, 0.0), (9, 3, 1.0)]
    np.testing.assert_allclose(found.first_s, [1.5, 4.0])
    np.testing.assert_allclose(found.last_s, [3.0, 5.0])


def test_requests_that_come_at_once_keep_their_order(log):
    text = HEAD + "2,1,1\n1,2,1\n2,3,1\n1,4,1\n"
    assert [r.prompt for r in log("same.csv", text).requests] == [2, 4, 1, 3]


@given(st.permutations(range(6)))
def test_the_order_of_rows_does_not_count(tmp_path, order):
    file = tmp_path / "any.csv"
    file.write_text(HEAD + "".join(f"{10 + i / 4},{i + 1},{2 * i + 1}\n" for i in order))
    expected = [(i + 1, 2 * i + 1, i / 4) for i in range(6)]
    assert asked(read_requests(file)) == expected


def test_what_a_spreadsheet_makes_of_csv(log):
    plain = log("plain.csv", HEAD + "1,10,5\n2.5,20,6\n")
    for text in (
        b"\xef\xbb\xbf" + (HEAD + "1,10,5\n2.5,20,6\n").encode(),
        (HEAD + "1,10,5\n2.5,20,6\n").replace("\n", "\r\n"),
        "arrival_s, prompt, output\n\n1, 10, 5\n\n2.5, 20.0, 6\n",
        '"arrival_s","prompt","output"\n"1","10","5"\n"2.5","20","6"',
    ):
        assert log("other.csv", text).requests == plain.requests
    assert log("log.txt", HEAD + "1,10,5\n2.5,20,6\n") == plain


def test_explicit_columns(log):
    text = "when,in,out,prompt\n3000,10,5,x\n1000,20,6,y\n"
    mine = {"arrival": "when", "prompt": "in", "output": "out"}
    found = log("mine.csv", text, mine, 1e-3)
    assert asked(found) == [(20, 6, 0.0), (10, 5, 2.0)]
    assert found.columns == mine


def test_prefixes_and_images(log):
    text = HEAD.strip() + ",prefix,prefix_tokens\n1,20,3,sys,10\n2,20,3,,\n3,20,3,007,5\n"
    found = log("prefix.csv", text).requests
    assert [(r.prefix, r.prefix_tokens) for r in found] == [("sys", 10), ("", 0), ("007", 5)]
    # fmt: off
    rows = [{"arrival_s": 0, "prompt": 20, "output": 1},
            {"arrival_s": 1, "prompt": 20, "output": 1, "image": "a", "image_tokens": 12}]
    # fmt: on
    found = log("image.jsonl", lines(*rows)).requests
    assert [(r.image, r.image_tokens) for r in found] == [("", 0), ("a", 12)]


def test_no_column_is_known_under_two_names():
    every = [column for columns in NAMES.values() for column in columns]
    assert len(every) == len(set(every))


GOOD = {"arrival_s": 1, "prompt": 4, "output": 3}
BAD = [
    ("a.csv", "", "holds no requests"),
    ("a.csv", HEAD, "holds no requests"),
    ("a.jsonl", "\n", "holds no requests"),
    ("a.csv", "arrival_s,prompt\n1,2\n", "no column for output (allowed: output, output_toks"),
    ("a.csv", "prompt,output\n1,2\n", "no column for arrival"),
    ("a.csv", "arrival_s;prompt;output\n1;2;3\n", "no column for arrival"),
    ("a.csv", HEAD + "1,ten,5\n2,20,6\n", "line 2, prompt: not a whole number: 'ten'"),
    ("a.csv", HEAD + "1,10,5\n\n2,20,six\n", "line 4, output: not a whole number: 'six'"),
    ("a.csv", HEAD + "1,10.5,5\n", "line 2, prompt: not a whole number: '10.5'"),
    ("a.csv", HEAD + "1,inf,5\n", "line 2, prompt: not a whole number: 'inf'"),
    ("a.csv", HEAD + "1,nan,5\n", "line 2, prompt: not a whole number: 'nan'"),
    ("a.csv", HEAD + "1,1_0,5\n", "line 2, prompt: not a whole number: '1_0'"),
    ("a.csv", HEAD + "1,True,5\n", "line 2, prompt: not a whole number: 'True'"),
    ("a.csv", HEAD + "1,10,5\n2,,5\n", "line 3, prompt: is missing"),
    ("a.csv", HEAD + "1,10,5\n2,-20,5\n", "line 3: prompt: not a number of tokens: -20"),
    ("a.csv", HEAD + "1,10,0\n", "line 2: output: not a number of tokens: 0"),
    ("a.csv", HEAD + "1,1e30,5\n", "line 2: prompt: not a number of tokens"),
    ("a.csv", HEAD + "1,10,5\nnan,10,5\n", "line 3, arrival_s: not a time: 'nan'"),
    ("a.csv", HEAD + "1,10,5\n-inf,10,5\n", "line 3, arrival_s: not a time: '-inf'"),
    ("a.csv", HEAD + "1,10,5\n,10,5\n", "line 3, arrival_s: is missing"),
    ("a.csv", HEAD + "1,10,5\nlater,10,5\n", "line 3, arrival_s: not a time: 'later'"),
    ("a.csv", HEAD + "now,10,5\n", "line 2, arrival_s: not a date: 'now'"),
    ("a.csv", HEAD + "2024-01-01,10,5\n7,10,5\n", "line 3, arrival_s: not a date: '7'"),
    ("a.csv", HEAD + "1,10\n", "line 2: not as many values as columns: 2 (allowed: 3)"),
    ("a.csv", HEAD + "1,2,3\n1,2,3,4\n", "line 3: not as many values as columns: 4"),
    ("a.csv", HEAD + '1,"2,3\n', "line 2: not CSV"),
    ("a.csv", "prompt,prompt,output,arrival_s\n1,2,3,4\n", "line 1: column given twice: 'prompt'"),
    ("a.csv", b"\xff\xfe\x00", "not UTF-8 text"),
    ("a.csv", HEAD.encode() + b"1,\xe9,5\n", "not UTF-8 text"),
    ("a.csv", HEAD.strip() + ",first_token_s\n1,2,3,4\n", "one column needs the other"),
    ("a.csv", HEAD.strip() + ",first_token_s,last_token_s\n1,2,3,0.5,2\n",
     "line 2, first_token_s: before arrival_s: '0.5'"),
    ("a.csv", HEAD.strip() + ",first_token_s,last_token_s\n1,2,3,3,2\n",
     "line 2, last_token_s: before first_token_s: '2'"),
    ("a.csv", HEAD.strip() + ",prefix,prefix_tokens\n1,2,3,sys,9\n", "line 2: prefix_tokens: more"),
    ("a.jsonl", "hello\n", "line 1: not a JSON object on a line of its own: 'hello'"),
    ("a.jsonl", lines(GOOD) + "[1]\n", "line 2: not a JSON object on a line of its own"),
    ("a.json", json.dumps([GOOD, GOOD]), "line 1: not a JSON object on a line of its own"),
    ("a.jsonl", "[" * 100_000, "line 1: not a JSON object on a line of its own"),
    ("a.jsonl", lines(GOOD | {"prompt": True}), "line 1, prompt: not a whole number: True"),
    ("a.jsonl", lines(GOOD | {"prompt": "12"}), "line 1, prompt: not a whole number: '12'"),
    ("a.jsonl", lines(GOOD | {"prompt": [1]}), "line 1, prompt: not a whole number: [1]"),
    ("a.jsonl", lines(GOOD | {"prompt": None}), "line 1, prompt: is missing"),
    ("a.jsonl", lines(GOOD, {"arrival_s": 2, "output": 1}), "line 2, prompt: is missing"),
    ("a.jsonl", lines(GOOD | {"prompt": float("nan")}), "line 1, prompt: not a whole number: nan"),
    ("a.jsonl", lines(GOOD | {"arrival_s": True}), "line 1, arrival_s: not a time: True"),
    ("a.jsonl", lines(GOOD | {"arrival_s": float("inf")}), "line 1, arrival_s: not a time: inf"),
    ("a.jsonl", lines(GOOD) + "\n" + lines(GOOD | {"output": -4}), "line 3: output: not a number"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "text", "message"), BAD)
def test_what_is_wrong_is_one_line_with_file_and_line(log, tmp_path, name, text, message):
    with pytest.raises(InputError) as found:
        log(name, text)
    told = str(found.value)
    assert told.startswith(f"{tmp_path / name}: ")
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("columns", "message"),
    [({"arival": "a"}, "columns: unknown: 'arival' (allowed: arrival, prompt,"),
     ({"arrival": "d"}, "arrival: no such column: 'd' (allowed: a, b, c)"),
     ({"arrival": "a", "prompt": "b"}, "no column for output")],
)  # fmt: skip
def test_columns_that_are_none(log, columns, message):
    with pytest.raises(InputError) as found:
        log("a.csv", "a,b,c\n1,2,3\n", columns)
    assert message in str(found.value)


def test_files_that_are_none(tmp_path):
    for file, message in (
        (tmp_path / "none.csv", "no such file"), (tmp_path, "cannot be read"),
        (tmp_path / "a\0b.csv", "not a path"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=message):
            read_requests(file)
