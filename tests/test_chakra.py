import gzip
import itertools
import json
import sys
import tarfile
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npusim.errors import InputError
from npusim.importers import chakra, chakra_protobuf, files, graph_edges, import_trace
from npusim.load import load_arch
from npusim.predict import replay

METADATA, LOAD, STORE, COMP, SEND, RECV, COLL = range(1, 8)
TYPES = ("INVALID", "METADATA", "MEM_LOAD", "MEM_STORE", "COMP", "COMM_SEND", "COMM_RECV",
         "COMM_COLL", "STORAGE")  # fmt: skip


# ---------------------------------------------------------------- one trace, three forms


def varint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes([*out, n])


def number(field, value):
    return varint(field << 3) + varint(value)


def block(field, value):
    raw = value if isinstance(value, bytes) else value.encode()
    return varint(field << 3 | 2) + varint(len(raw)) + raw


def attribute(name, value):
    """Return an attribute: bool 27, int64 9, string 29 in the schema."""
    kind = {bool: 27, int: 9, str: 29}[type(value)]
    return block(1, name) + (block(kind, value) if kind == 29 else number(kind, int(value)))


def message(n):
    """Return a node as protobuf, written here field by field from the published schema."""
    out = number(1, n["id"]) + block(2, n["name"]) + number(3, n["type"])
    for field, key in ((4, "ctrl"), (5, "data")):
        out += block(field, b"".join(varint(i) for i in n[key])) if n[key] else b""
    for field, key in ((6, "start"), (7, "us")):
        out += number(field, n[key]) if n[key] else b""
    for field, side in ((8, n["inputs"]), (9, n["outputs"])):
        out += block(field, b"".join(block(i + 1, str(x)) for i, x in enumerate(side)))
    return out + b"".join(block(10, attribute(k, v)) for k, v in n["attrs"].items())


def protobuf(nodes, metadata=None):
    first = block(1, "0.0.4") if metadata is None else metadata
    parts = [first, *(message(n) for n in nodes)]
    return b"".join(varint(len(p)) + p for p in parts)


def printed(nodes):
    """Return what chakra_jsonizer prints: large numbers as text, defaults left out."""
    out = json.dumps({"version": "0.0.4"}, indent=2)
    for n in nodes:
        keys = {bool: "boolVal", int: "int64Val", str: "stringVal"}
        attrs = [{"name": k, keys[type(v)]: v if isinstance(v, bool) else str(v)}
                 for k, v in n["attrs"].items()]  # fmt: skip
        sides = {s: dict(zip(("values", "shapes", "types"), map(str, n[s]), strict=True))
                 for s in ("inputs", "outputs")}  # fmt: skip
        found = {"id": str(n["id"]), "name": n["name"], "type": TYPES[n["type"]] + "_NODE",
                 "ctrlDeps": [str(i) for i in n["ctrl"]], "dataDeps": [str(i) for i in n["data"]],
                 "startTimeMicros": str(n["start"]), "durationMicros": str(n["us"]), **sides,
                 "attr": attrs}  # fmt: skip
        out += json.dumps({k: v for k, v in found.items() if v not in ("0", [])}, indent=2)
    return out.encode()


def feeder(nodes):
    """Return the form that Chakra's feeder reads; it has no arguments and no starts."""
    graph = [
        {"Id": n["id"], "Name": n["name"], "NodeType": n["type"], "data_deps": n["data"],
         "ctrlDeps": n["ctrl"], "runtime": n["us"],
         **{k: v for k, v in n["attrs"].items() if k not in ("tid", "rf_id", "op_schema")}}
        for n in nodes
    ]  # fmt: skip
    return json.dumps({"workload_graph": graph}).encode()


def node(i, data=(), name="k", type=COMP, us=0, ctrl=(), start=0, inputs=(), outputs=(), **attrs):  # noqa: A002
    """One node; keywords are attributes, `cpu` is `is_cpu_op`."""
    if "cpu" in attrs:
        attrs["is_cpu_op"] = attrs.pop("cpu")
    empty = ([], [], [])
    return {"id": i, "name": name, "type": type, "data": list(data), "ctrl": list(ctrl), "us": us,
            "start": start, "inputs": inputs or empty, "outputs": outputs or empty,
            "attrs": attrs}  # fmt: skip


def host(i, data=(), name="work of the host", **more):
    return node(i, data, name, cpu=True, **more)


def arguments(*tensors, dtype="float", size=4):
    """Return arguments of tensors given as (storage, shape)."""
    values = [[s + 100, s, 0, int(np.prod(shape)), size, "cuda:0"] for s, shape in tensors]
    return values, [list(shape) for _, shape in tensors], [f"Tensor({dtype})"] * len(tensors)


FORMS = {
    "protobuf": (protobuf, "x.et"),
    "printed": (printed, "x.json"),
    "feeder": (feeder, "y.json"),
}
needs_protobuf = pytest.mark.usefixtures("_protobuf")


@pytest.fixture
def _protobuf():
    pytest.importorskip("google.protobuf")


@pytest.fixture
def imported(tmp_path):
    """Import nodes in one form, or some bytes."""

    def run(content, form="protobuf", name=None):
        if form == "protobuf":
            pytest.importorskip("google.protobuf")
        make, usual = FORMS[form]
        file = tmp_path / (name or usual)
        file.write_bytes(content if isinstance(content, bytes) else make(content))
        return import_trace(file)

    return run


def waits(w):
    """Return what each operation waits for."""
    indptr, indices = w.edges
    return [indices[a:b].tolist() for a, b in itertools.pairwise(indptr)]


GRAPH = [
    node(0, name="load", type=LOAD, tensor_size=4096),
    node(1, [0], "layer1", us=30, num_ops=10**6, tensor_size=2048),
    node(2, [1], "gather", type=COLL, us=50, comm_size=1024, comm_type=2),
    node(3, [1], "layer2", us=20, num_ops=500, tensor_size=16),
    node(4, [2, 3], "softmax", us=10, num_ops=7, tensor_size=8),
    node(5, [4], "to the next", type=SEND, us=4, comm_size=64),
    node(6, [5], "from the last", type=RECV, us=4, comm_size=32),
    node(7, [4], "store", type=STORE, tensor_size=128),
    node(8, name="about", type=METADATA),
    node(9, name="a file", type=8),
]


@pytest.mark.parametrize("form", FORMS)
def test_a_simulators_graph_by_hand(imported, form):
    """Communication runs beside computation: 4 waits for both branches, 30 + max(50, 20) us."""
    w = imported(GRAPH, form)
    assert w.text("kind").tolist() == ["memcpy", "fused", "collective", "fused", "softmax",
                                       "collective", "collective", "memcpy"]  # fmt: skip
    assert w.text("kernel").tolist()[1:3] == ["layer1", "gather"]
    assert w.text("operator").tolist()[1:3] == ["unknown", "ALL_GATHER"]
    assert w["flop"].tolist() == [0, 1e6, 0, 500, 7, 0, 0, 0]
    assert w["read_activation"].tolist() == [4096, 2048, 1024, 16, 8, 64, 0, 128]
    assert w["write_activation"].tolist() == [4096, 0, 1024, 0, 0, 0, 32, 128]
    assert w.classified.all()
    assert waits(w) == [[], [0], [1], [1], [2, 3], [4], [5], [4]]
    us = w["duration_s"] * 1e6
    assert us == pytest.approx([0, 30, 50, 20, 10, 4, 4, 0])
    assert w["start_s"] * 1e6 == pytest.approx([0, 0, 30, 30, 80, 90, 94, 90])
    assert w.steps.wall_s * 1e6 == pytest.approx([98])
    assert w["stream"].tolist() == [0, 0, 1, 0, 0, 1, 1, 0]
    assert w.meta["format"] == ("chakra protobuf" if form == "protobuf" else "chakra json")
    assert (w.meta["measured"], w.meta["nodes"]) == (True, 10)
    assert w.meta["skipped"] == {"metadata": 1, "of another type": 1}


def test_starts_are_used_where_they_are_recorded(imported):
    graph = [node(1, start=1_700_000_000_000_100, us=5), node(2, [1], start=1_700_000_000_000_150),
             node(3, start=1_700_000_000_000_120, us=7)]  # fmt: skip
    for form in ("protobuf", "printed"):
        w = imported(graph, form)
        assert w["start_s"] * 1e6 == pytest.approx([0, 20, 50])
        assert waits(w) == [[], [], [0]]  # in the order in which they started
        assert w.meta["starts"] == "recorded"


@pytest.mark.parametrize("form", FORMS)
def test_nodes_of_the_host_pass_on_what_they_wait_for(imported, form):
    """K1 -> H -> H -> K2, and a node of the host that waits for two kernels."""
    w = imported([
        node(1), host(2, [1]), host(3, [2]), node(4, [3]), node(5, [1, 3]), host(6, [4, 5]),
        host(7), node(8, [6, 7]), node(9, [7]),
    ], form)  # fmt: skip
    assert waits(w) == [[], [0], [0], [1, 2], []]
    assert w.meta["skipped"] == {"on the host": 4}


def test_what_others_wait_for_anyway_is_not_passed_on(imported):
    """A chain of nodes that each collect all before them stays a chain."""
    graph = [node(0)]
    for i in range(2, 60, 2):
        graph += [host(i - 1, range(0, i - 1)), node(i, [i - 1])]
    assert waits(imported(graph)) == [[], *([i] for i in range(29))]


def test_kernels_without_memory_stand_behind_their_operator(imported):
    """The feeder's form: mm(0) launches a kernel, relu(0) waits for mm(0) and (1)."""
    w = imported([
        host(1, name="aten::mm(0)"), host(2, [1], "aten::mm(1)"), node(3, [1], "sgemm"),
        host(4, [1, 2], "aten::relu(0)"), node(5, [4, 1, 2], "relu"), node(6, [4], "again"),
    ], "feeder")  # fmt: skip
    assert w.text("operator").tolist() == ["aten::mm", "aten::relu", "aten::relu"]
    assert waits(w) == [[], [0], [1]]


@pytest.mark.parametrize("form", FORMS)
def test_callers_are_what_a_node_waits_for_only_where_nothing_else_is_said(imported, form):
    first = [node(1), node(2, ctrl=[1]), node(3, ctrl=[2])]
    assert waits(imported(first, form)) == [[], [0], [1]]
    stale = [node(1), node(2, [1], ctrl=[3]), node(3, ctrl=[77])]
    assert waits(imported(stale, form)) == [[], [0], []]


def test_nodes_may_stand_in_any_order(imported):
    w = imported([node(1, [3], "c"), node(2, name="a"), node(3, [2], "b")])
    assert w.text("kernel").tolist() == ["a", "b", "c"]
    assert waits(w) == [[], [0], [1]]


def test_streams_are_orders(imported):
    w = imported([node(1, stream=7), node(2, stream=20), node(3, stream=7),
                  node(4, tid=7), node(5, [2], stream=7)])  # fmt: skip
    assert w["stream"].tolist() == [7, 20, 7, 7, 7]
    assert waits(w) == [[], [], [0], [2], [1, 3]]


# ---------------------------------------------------------------- converted from PyTorch


def test_kernels_take_the_arguments_of_their_operator(imported):
    """4 x 8 times 8 x 16 in two kernels; the bias is added by another one, in place."""
    mm, out = arguments((1, (4, 8)), (2, (8, 16))), arguments((3, (4, 16)))
    add = arguments((3, (4, 16)), (4, (16,)))
    schema = "aten::add_.Tensor(Tensor(a!) self, Tensor other) -> Tensor(a!)"
    w = imported([
        host(5, name="aten::linear", inputs=mm, outputs=out),
        host(6, [5], "aten::mm(0)", inputs=mm, outputs=out, ctrl=[5], rf_id=9),
        node(7, [6], "sgemm", us=3, inputs=mm, outputs=out, tid=7),
        host(8, [6], "aten::mm(1)", inputs=mm, outputs=out, ctrl=[5], rf_id=9),
        node(9, [8], "sgemm", us=4, inputs=mm, outputs=out, tid=7),
        host(10, [8], "aten::add_(0)", inputs=add, outputs=out, op_schema=schema),
        node(11, [10], "vectorized", us=1, inputs=add, outputs=out, tid=8),
    ])  # fmt: skip
    assert w.text("operator").tolist() == ["aten::mm", "aten::mm", "aten::add_"]
    assert w["flop"].tolist() == [2 * 4 * 16 * 8 / 2] * 2 + [64]
    assert w["read_weight"].tolist() == [8 * 16 * 4 / 2] * 2 + [64]  # inside aten::linear
    assert waits(w) == [[], [0], [1]]
    assert w["start_s"] * 1e6 == pytest.approx([0, 3, 7])
    assert w.meta["unreadable_arguments"] == 0


def test_older_converters_name_the_outer_operator(imported):
    """aten::conv2d with the nine arguments of aten::cudnn_convolution, stride 2."""
    values = [[11, 1, 0, 1536, 4, "cuda:0"], [12, 2, 0, 864, 4, "cuda:0"], [1, 1], [2, 2], [1, 1],
              1, False, False, True]  # fmt: skip
    shapes = [[2, 3, 16, 16], [32, 3, 3, 3], [[], []], [[], []], [[], []], [], [], [], []]
    types = ["Tensor(float)"] * 2 + ["GenericList[Int,Int]"] * 3 + ["Int", "Bool", "Bool", "Bool"]
    outer = arguments((1, (2, 3, 16, 16)), (2, (32, 3, 3, 3)))
    inner = (values, shapes, types)
    w = imported([
        host(1, name="aten::conv2d(0)", inputs=outer),
        node(2, [1], "implicit_gemm", inputs=inner),
        node(3, [1], "other", inputs=arguments((5, (8,)))),  # what called that is not known
        host(4, name="aten::relu(0)", inputs=arguments((6, (8,)))),
        node(5, [4], "elementwise_kernel", inputs=arguments((6, (8,)))),
    ])  # fmt: skip
    assert w.text("operator").tolist() == ["aten::cudnn_convolution", "aten::conv2d", "aten::relu"]
    assert w["flop"].tolist() == [2 * (2 * 8 * 8) * 32 * (3 * 3 * 3), 0, 8]
    assert w.text("basis").tolist() == ["shape", "none", "shape"]


def test_collectives_without_a_size_have_that_of_their_tensors(imported):
    tensors = arguments((1, (64,)), dtype="c10::BFloat16", size=2)
    w = imported([node(1, name="x", inputs=tensors, outputs=tensors),
                  node(2, [1], "ncclKernel_Broadcast", COLL, inputs=tensors, comm_type=5),
                  node(3, [2], "y", inputs=tensors)])  # fmt: skip
    assert w.text("operator").tolist() == ["unknown", "BROADCAST", "unknown"]
    assert (w["read_activation"][1], w["write_activation"][1]) == (128, 128)
    assert w.text("dtype")[1] == "bf16"
    assert waits(w) == [[], [0], [1]]


def test_operators_count_where_there_are_no_kernels(imported):
    """A trace of the host alone is read as PyTorch's own execution traces are."""
    mm, out = arguments((1, (4, 8)), (2, (8, 16))), arguments((3, (4, 16)))
    w = imported(
        [
            host(1, name="[pytorch|profiler|execution_trace|process]"),
            host(5, [1], "aten::linear", inputs=mm, outputs=out, ctrl=[1]),
            host(6, [5], "aten::mm", inputs=mm, outputs=out, ctrl=[5]),
            host(7, [6], "aten::exp", inputs=out, outputs=arguments((4, (4, 16)))),
        ]
    )
    assert w.text("kernel").tolist() == ["aten::mm", "aten::exp"]
    assert w["read_weight"].tolist() == [8 * 16 * 4, 0]
    assert waits(w) == [[], [0]]
    assert w.meta["measured"] is False


def test_arguments_that_are_no_lists_are_counted(imported):
    bad = ("[" * 10**4, "1 + 1", "[0or 1]")
    w = imported([host(1, name="aten::exp", inputs=bad), node(2, [1], "k", inputs=bad),
                  node(3, inputs=("{}", "'x'", "9" * 9**5))])  # fmt: skip
    assert w.meta["unreadable_arguments"] == 6
    assert w["flop"].tolist() == [0, 0]


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("graph", "says"),
    [
        ([node(1, [2]), node(2, [1])], "node 1: dependencies form a cycle: 'k'"),
        ([node(1), node(2, [2])], "node 2: dependencies form a cycle: 'k'"),
        ([node(1), node(2, [5])], "node 2: depends on a node that is not in the trace: 5"),
        ([node(1), node(2), node(1, name="other")], "node 1: two nodes have one number: 'other'"),
        ([host(1), host(2, [1])], "no computation on a device among 2 nodes (2 on the host)"),
        ([node(1, type=COLL, comm_size=5)], "among 1 nodes (1 communication)"),
        (
            [node(1, type=METADATA), node(2, type=8)],
            "among 2 nodes (1 metadata, 1 of another type)",
        ),
        ([node(1, us=10**13)], "node 1: not a duration: 10000000000000"),
    ],
)
def test_graphs_that_cannot_be_replayed(imported, form, graph, says):
    with pytest.raises(InputError) as caught:
        imported(graph, form)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


@needs_protobuf
@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"\xff" * 20, "message 1: message without a length: 'ffffffffffffffffffff'"),
        (varint(10**10) + b"x", "message 1: message too long: 10000000000"),
        (varint(1 << 22) + b"x", "message 1: cut short inside a message: '1 bytes'"),
        (protobuf([]), "among 0 nodes (none)"),
        (varint(2) + number(1, 7), "does not begin with the metadata"),
        (protobuf([]) + varint(3) + b"\x0a\xff\xff", "message 2: not a node of a Chakra trace"),
        (protobuf([]) + varint(4) + block(2, b"\xff\xfe"), "message 2: not a node of a Chakra"),
        (protobuf([node(1)]) + varint(10**10), "message 3: message too long: 10000000000"),
        (protobuf([node(1, us=9)])[:-1], "message 2: cut short inside a message"),
        (protobuf([node(1)]) + b"\x80", "message 3: message without a length: '80'"),
    ],
)
def test_damaged_protobuf(tmp_path, raw, says):
    file = tmp_path / "x.et"
    file.write_bytes(raw)
    tracemalloc.start()
    with pytest.raises(InputError) as caught:
        import_trace(file)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert says in str(caught.value)
    assert peak < 20e6


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (printed(GRAPH)[:-30], "cut short"),
        (printed(GRAPH).replace(b'"30"', b'"x"'), "object 3: not a node of a Chakra trace"),
        (printed(GRAPH).replace(b'"MEM_LOAD_NODE"', b"[]"), "object 2: not a node of a Chakra"),
        (printed(GRAPH) + b'{"id": ' + b"[" * 10**5, "not a node of a Chakra trace"),
        (printed(GRAPH) + b"\xff", "not UTF-8"),
        (printed(GRAPH) + b"]", "not JSON"),
        (feeder(GRAPH)[:-9], "JSON is cut short"),
        (feeder(GRAPH).replace(b'"Id": 3', b'"Id": "3"'), "workload_graph[3].Id"),
        (b'{"workload_graph": []}', "among 0 nodes (none)"),
        (feeder(GRAPH).replace(b"4096", b"-1"), "node 0, tensor_size: not an amount: -1"),
    ],
)
def test_damaged_json(imported, raw, says):
    with pytest.raises(InputError) as caught:
        imported(raw, "feeder")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_of_nodes_and_dependencies_have_a_limit(imported, monkeypatch):
    monkeypatch.setattr(files, "MOST_OPERATIONS", 9)
    with pytest.raises(InputError, match="too many operations"):
        imported(GRAPH)
    monkeypatch.undo()
    monkeypatch.setattr(chakra, "MOST_EDGES", 5)
    with pytest.raises(InputError, match="too many operations"):
        imported(GRAPH)
    monkeypatch.undo()
    monkeypatch.setattr(graph_edges, "MOST_EDGES", 900)
    fans = [node(i) for i in range(40)] + [host(40, range(40))]
    assert len(imported([*fans, node(41, [40])])) == 41
    with pytest.raises(InputError, match=r"too many dependencies \(allowed: up to 900\)"):
        imported([*fans, *(host(41 + i, [40, i]) for i in range(40))])


def test_without_protobuf_its_traces_say_what_to_install(imported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "google.protobuf.descriptor_pb2", None)
    chakra_protobuf._message.cache_clear()
    file = tmp_path / "x.et"
    file.write_bytes(protobuf(GRAPH))
    with pytest.raises(InputError, match=r"pip install 'npusim\[chakra\]'"):
        import_trace(file)
    assert len(imported(GRAPH, "feeder")) == 8  # the others need none of it


# ---------------------------------------------------------------- which files it takes


@needs_protobuf
def test_the_file_decides_not_its_name(tmp_path):
    for name, raw in (
        ("trace.bin", protobuf(GRAPH)), ("t.et.gz", gzip.compress(protobuf(GRAPH))),
        ("x.et", printed(GRAPH)), ("x.et", feeder(GRAPH)), ("a", gzip.compress(feeder(GRAPH))),
        ("b", protobuf(GRAPH, b"")), ("c", protobuf(GRAPH, block(2, attribute("schema", "1.0")))),
    ):  # fmt: skip
        file = tmp_path / name
        file.write_bytes(raw)
        assert chakra.sniff(file)
        assert len(import_trace(file)) == 8
    file = tmp_path / "other"
    for raw in (b"", b"text, more\n1,2\n", b"{}", b"#\nfoo" * 30, b"SQLite format 3\0" * 9):
        file.write_bytes(raw)
        assert not chakra.sniff(file)
    assert not chakra.sniff(tmp_path / "none")


# ---------------------------------------------------------------- properties


@settings(max_examples=60)
@given(st.lists(st.tuples(st.booleans(), st.sets(st.integers(0, 14), max_size=3)), min_size=1,
                max_size=14))  # fmt: skip
def test_operations_wait_as_the_graph_says(tmp_path, graph):
    """Whether one waits for another is the same with and without the nodes of the host."""
    nodes = [(host if on_host else node)(i, sorted(d for d in deps if d < i), str(i))
             for i, (on_host, deps) in enumerate(graph)]  # fmt: skip
    nodes.append(node(len(graph), [len(graph) - 1], str(len(graph))))
    file = tmp_path / "x.json"
    file.write_bytes(feeder(nodes[::-1]))
    w = import_trace(file)
    on_device = {n["name"] for n in nodes if not n["attrs"].get("is_cpu_op")}
    reach = []
    for n in nodes:
        reach.append({i for d in n["data"] for i in (str(d), *reach[d])})
    before = []
    for group in waits(w):
        before.append(set(group).union(*(before[i] for i in group)))
    names = w.text("kernel")
    assert set(names) == on_device
    for name, found in zip(names, before, strict=True):
        assert {names[i] for i in found} == reach[int(name)] & on_device


@needs_protobuf
@settings(max_examples=150)
@given(st.integers(0, 10**6), st.binary(min_size=1, max_size=3))
@example(0, b"\x80")
def test_damage_is_an_input_error_or_another_trace(tmp_path, at, raw):
    mm = arguments((1, (4, 8)), (2, (8, 16)))
    whole = bytearray(protobuf([*GRAPH, host(20, name="aten::mm", inputs=mm, rf_id=3),
                                node(21, [20], inputs=mm, tid=3)]))  # fmt: skip
    start = at % len(whole)
    whole[start : start + len(raw)] = raw
    file = tmp_path / "x.et"
    file.write_bytes(whole)
    try:
        w = import_trace(file)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(w) >= 1


@settings(max_examples=100)
@given(st.binary(max_size=200))
def test_any_bytes_are_an_input_error(tmp_path, raw):
    pytest.importorskip("google.protobuf")
    file = tmp_path / "x.et"
    file.write_bytes(raw)
    with pytest.raises(InputError):
        import_trace(file)


def test_a_replay_overlaps_what_does_not_wait(imported):
    h200 = load_arch("h200")
    result = replay(imported(GRAPH), h200, "graph")
    assert result.wall_s > 0
    assert result.launches == 8


# ---------------------------------------------------------------- measured files


@pytest.fixture
def unpacked(shared):
    def run(name, member):
        file = shared / "external/traces/chakra/tests/data" / name
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        with tarfile.open(file) as archive:
            return archive.extractfile(member).read()

    return run


@pytest.mark.shared
def test_resnet_in_both_forms(imported, unpacked):
    """One training step of ResNet-50, batch 32: the kernels and times of both files agree."""
    w = imported(unpacked("feeder_tests_trace.tar.gz", "tests/data/chakra.0.et"))
    assert len(w) == 1216
    assert w["duration_s"].sum() * 1e6 == pytest.approx(329_543)
    assert set(w["stream"].tolist()) == {7, 14}
    assert w.meta["skipped"] == {"on the host": 2448}
    assert w.meta["unreadable_arguments"] == 0
    forward = w.text("operator") == "aten::cudnn_convolution"
    # 4,087,136,256 multiplications and additions an image in the convolutions of ResNet-50
    assert w["flop"][forward].sum() == 32 * 2 * 4_087_136_256
    collectives = w.mask("kind", "collective")
    assert set(w["stream"][collectives].tolist()) == {14}
    assert w["read_activation"][collectives][2:].sum() / 4 == 25_557_032  # its parameters
    last = np.flatnonzero(collectives)[-1]
    assert w["stream"][waits(w)[last]].tolist().count(7) > 0  # gradients come first

    from_json = imported(unpacked("json_trace.tar.gz", "jsonData/chakra.0.json"), "feeder")
    assert sorted(from_json["duration_s"]) == sorted(w["duration_s"])
    assert len(from_json.edges[1]) > 1215


@pytest.mark.shared
def test_a_small_graph(imported, unpacked):
    """A copy for flattening, and the broadcast that waits for it."""
    w = imported(unpacked("json_trace.tar.gz", "jsonData/small_chakra.0.json"), "feeder")
    assert w.text("kind").tolist() == ["cat", "collective"]
    assert w["duration_s"] * 1e6 == pytest.approx([4, 28])
    assert waits(w) == [[], [0]]
    assert w.meta["skipped"] == {"on the host": 5}
