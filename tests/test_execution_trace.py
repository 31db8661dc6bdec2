import gzip
import io
import itertools
import json
import tarfile
import tracemalloc
import zipfile

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from npusim.arch import Designs
from npusim.durations import durations
from npusim.errors import InputError
from npusim.importers import chakra, execution_trace, import_trace, importers
from npusim.load import load_arch
from npusim.predict import replay
from npusim.workload_file import load_workload, save_workload
from tests.kineto_builder import Trace

ADDMM = (
    "aten::addmm(Tensor self, Tensor mat1, Tensor mat2, *, Scalar beta=1, Scalar alpha=1) -> Tensor"
)
ADD_ = "aten::add_.Tensor(Tensor(a!) self, Tensor other, *, Scalar alpha=1) -> Tensor(a!)"
COPY_ = "aten::copy_(Tensor(a!) self, Tensor src, bool non_blocking=False) -> Tensor(a!)"
UNARY = "aten::f(Tensor self) -> Tensor"
VIEW = "aten::view(Tensor(a) self, SymInt[] size) -> Tensor(a)"
SIZES = {"float": 4, "c10::BFloat16": 2, "c10::Half": 2, "long": 8}


class T:
    """A tensor: its number is that of its storage unless told otherwise."""

    def __init__(self, storage, *shape, dtype="float", device="cuda:0", tensor=None, strides=None):
        self.shape, self.type, self.strides = list(shape), f"Tensor({dtype})", strides or []
        size, count = SIZES[dtype], int(np.prod(shape))
        self.value = [tensor or storage + 1000, storage, 0, count, size, device]


def argument(x):
    """Return value, shape, type and strides of an argument as the observer writes them."""
    if isinstance(x, T):
        return x.value, x.shape, x.type, x.strides
    if isinstance(x, list):
        parts = [argument(y) for y in x]
        inner = ",".join(p[2] for p in parts)
        return [p[0] for p in parts], [p[1] for p in parts], f"GenericList[{inner}]", []
    kind = {bool: "Bool", int: "Int", float: "Double", type(None): "None"}.get(type(x), "String")
    return "<None>" if x is None else x, [], kind, []


def node(i, name, inputs=(), outputs=(), caller=1, schema="", **more):
    """One node in the new layout; keywords are other keys of it, `attrs` other attributes."""
    attributes = {"rf_id": i, "tid": 1, "op_schema": schema, **more.pop("attrs", {})}
    sides = {}
    for side, given_ in (("inputs", inputs), ("outputs", outputs)):
        parts = [argument(x) for x in given_]
        columns = list(zip(*parts, strict=True)) if parts else [()] * 4
        sides[side] = dict(zip(("values", "shapes", "types", "strides"), map(list, columns),
                               strict=True))  # fmt: skip
    return {"id": i, "name": name, "ctrl_deps": caller, **sides,
            "attrs": [{"name": k, "type": "string", "value": v} for k, v in attributes.items()],
            **more}  # fmt: skip


def operator(i, name, inputs, outputs, schema=UNARY, caller=1, **more):
    return node(i, name, inputs, outputs, caller, schema, **more)


def old(n):
    """Return a node as schema 1.0.1 lays it out."""
    flat = {a["name"]: a["value"] for a in n["attrs"]}
    sides = {}
    for side in ("inputs", "outputs"):
        sides |= {side: n[side]["values"], f"{side[:-1]}_shapes": n[side]["shapes"],
                  f"{side[:-1]}_types": n[side]["types"]}  # fmt: skip
    return {"name": n["name"], "id": n["id"], "parent": n["ctrl_deps"], "fw_parent": 0,
            "seq_id": -1, "scope": 0, "fw_tid": 0, **flat, **sides}  # fmt: skip


ROOT = node(1, "[pytorch|profiler|execution_trace|process]")


def text(nodes, schema="1.1.1-chakra.0.0.4"):
    return json.dumps({"schema": schema, "pid": 1, "time": "", "start_ts": 0, "nodes": nodes})


@pytest.fixture
def imported(tmp_path):
    """Import a trace of some nodes, with a root that calls itself, or of some text."""

    def run(content, name="x_et.json"):
        file = tmp_path / name
        content = text([*content, ROOT]) if isinstance(content, list) else content
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return import_trace(file)

    return run


def waits(w):
    """Return what each operation waits for."""
    indptr, indices = w.edges
    return [indices[a:b].tolist() for a, b in itertools.pairwise(indptr)]


LINEAR = [
    operator(5, "aten::linear", [x := T(10, 4, 8), weight := T(11, 16, 8), bias := T(12, 16)],
             [y := T(13, 4, 16)]),
    operator(6, "aten::t", [weight], [turned := T(11, 8, 16)], VIEW, caller=5),
    operator(7, "aten::transpose", [weight, 0, 1], [turned], VIEW, caller=6),
    operator(8, "aten::addmm", [bias, x, turned, 1, 1], [y], ADDMM, caller=5),
    operator(9, "aten::empty", [[32], 0], [T(99, 32)], caller=8),
]  # fmt: skip


@pytest.mark.parametrize("layout", [lambda n: n, old], ids=["new", "old"])
def test_the_innermost_operator_counts_once(imported, layout):
    """4 x 8 times 8 x 16: 2*4*16*8 FLOP, weights of 8*16 and 16 floats."""
    w = imported(text([layout(n) for n in [*LINEAR, ROOT]]))
    assert w.text("operator").tolist() == ["aten::addmm"]
    assert w.text("kernel").tolist() == ["aten::addmm"]
    assert w.text("library").tolist() == ["unknown"]
    assert (w.text("kind")[0], w.text("dtype")[0], w.text("basis")[0]) == ("gemm", "fp32", "shape")
    assert w["flop"].tolist() == [2 * 4 * 16 * 8]
    assert w["read_weight"].tolist() == [4 * (8 * 16 + 16)]
    assert w["read_activation"].tolist() == [4 * 4 * 8]
    assert w["write_activation"].tolist() == [4 * 4 * 16]
    assert w["duration_s"].tolist() == w.steps.wall_s.tolist() == [0]
    assert w.meta["format"] == "pytorch execution trace"
    assert (w.meta["measured"], w.meta["host"], w.meta["device"]) == (False, "unknown", "")
    assert w.meta["skipped"] == {"views and metadata": 3, "callers of those that count": 1,
                                 "annotations": 1}  # fmt: skip
    assert w.meta["nodes"] == 6


def test_a_layer_without_bias_is_known_by_its_caller(imported):
    """aten::mm alone reads two activations; inside aten::linear the second one is weight."""
    a, b, c = T(1, 4, 8), T(2, 8, 16), T(3, 4, 16)
    inside = [operator(5, "aten::linear", [a, b], [c]),
              operator(6, "aten::matmul", [a, b], [c], caller=5),
              operator(7, "aten::mm", [a, b], [c], caller=6)]  # fmt: skip
    w = imported([*inside, operator(8, "aten::mm", [a, b], [T(4, 4, 16)])])
    assert w["read_weight"].tolist() == [8 * 16 * 4, 0]
    assert w["flop"].tolist() == [2 * 4 * 16 * 8] * 2


def test_types_and_strides(imported):
    """A bias that is expanded along the rows lies in memory once."""
    x = T(1, 4, 8, dtype="c10::BFloat16", strides=[8, 1])
    row = T(2, 4, 8, dtype="c10::BFloat16", strides=[0, 1])
    w = imported([operator(5, "aten::add", [x, row, 1], [T(3, 4, 8, dtype="c10::BFloat16")])])
    assert w.text("dtype").tolist() == ["bf16"]
    assert w["read_activation"].tolist() == [2 * (4 * 8 + 8)]


def test_dependencies_through_memory(imported):
    """Read after write, write after write, and write after read; a view is its storage."""
    a, b, c = T(1, 8), T(2, 8), T(3, 8)
    w = imported([
        operator(5, "aten::exp", [a], [b]),                     # 0 makes b
        operator(6, "aten::view", [b], [seen := T(2, 2, 4, tensor=77)], VIEW),
        operator(7, "aten::log", [seen], [c]),                  # 1 reads b through a view
        operator(8, "aten::add_", [b, a, 1], [b], ADD_),        # 2 changes b, which 1 has read
        operator(9, "aten::neg", [b], [T(4, 8)]),               # 3 reads what 2 wrote
        operator(10, "aten::neg", [a], [T(5, 8)]),              # 4 reads only what nobody writes
        operator(11, "aten::fill_", [a, 0], [a],
                 "aten::fill_.Scalar(Tensor(a!) self, Scalar value) -> Tensor(a!)"),
    ])  # fmt: skip
    assert waits(w) == [[], [0], [0, 1], [2], [], [0, 2, 4]]
    assert "aten::view" not in w.text("kernel")


def test_memory_that_is_given_out_again_is_new(imported):
    """The address of a freed tensor comes back: nothing waits for who used it before."""
    a, b, c = T(1, 8), T(2, 8), T(3, 8)
    w = imported([
        operator(5, "aten::exp", [a], [b]),
        operator(6, "aten::exp", [b], [c]),
        operator(7, "aten::empty", [[8]], [again := T(2, 8, tensor=70)]),
        operator(8, "aten::fill_", [again, 1], [again], "aten::fill_(Tensor(a!) self) -> ()"),
        operator(9, "aten::neg", [again], [T(3, 8, tensor=71)]),  # c, given out again
        operator(10, "aten::neg", [T(3, 8, tensor=71)], [T(9, 8)]),
    ])  # fmt: skip
    assert waits(w) == [[], [0], [], [2], [3]]


def test_what_an_operator_allocates_inside_itself_is_its_result(imported):
    w = imported(
        [
            operator(5, "aten::mm", [T(1, 4, 4), T(2, 4, 4)], [T(3, 4, 4)]),
            operator(6, "aten::empty", [[4, 4]], [T(3, 4, 4)], caller=5),
            operator(7, "aten::neg", [T(3, 4, 4)], [T(4, 4, 4)]),
        ]
    )
    assert waits(w) == [[], [0]]


def test_empty_tensors_share_an_address_and_nothing_else(imported):
    nothing = T(7, 0)
    w = imported([operator(5, "aten::exp", [T(1, 8), nothing], [T(2, 8), nothing]),
                  operator(6, "aten::exp", [T(3, 8), nothing], [T(4, 8), nothing])])  # fmt: skip
    assert waits(w) == [[], []]


@pytest.mark.parametrize(
    ("name", "schema", "same"),
    [
        ("aten::reshape", "aten::reshape(Tensor(a) self, SymInt[] shape) -> Tensor(a)", True),
        ("aten::split", "aten::split.T(Tensor(a -> *) self, SymInt x) -> Tensor(a)[]", True),
        ("aten::my_view", "aten::my_view(Tensor(a) self) -> (Tensor(a), Tensor(a))", True),
        ("aten::dropout", "aten::dropout(Tensor input, float p, bool train) -> Tensor", True),
        ("aten::result_type", "aten::result_type(Tensor a, Tensor b) -> ScalarType", True),
        ("aten::record_stream", "aten::record_stream(Tensor(a!) self, Stream s) -> ()", True),
        ("aten::empty_like", "aten::empty_like(Tensor self) -> Tensor", False),
        ("aten::_unsafe_view", "aten::_unsafe_view(Tensor self, SymInt[] s) -> Tensor", True),
    ],
)
def test_views_and_metadata_do_no_work(imported, name, schema, same):
    a, b = T(1, 8), T(1 if same else 2, 8, tensor=50)
    w = imported([operator(5, "aten::exp", [T(3, 8)], [a]),
                  operator(6, name, [a, 0], [b], schema)])  # fmt: skip
    assert w.text("kernel").tolist() == ["aten::exp"]
    assert w.meta["skipped"]["views and metadata"] == 1


def test_annotations_and_what_has_no_schema_do_no_work(imported):
    a, b = T(1, 8), T(2, 8)
    w = imported([node(4, "ReluBackward0", [a]), node(5, "## forward ##"), node(6, "detach", [a]),
                  operator(7, "aten::exp", [a], [b], caller=4)])  # fmt: skip
    assert w.text("kernel").tolist() == ["aten::exp"]
    assert w.meta["skipped"] == {"annotations": 4}


def test_an_operator_without_a_rule_does_the_work_of_its_only_caller(imported):
    """aten::clamp_min has no rule, aten::relu has; a caller of two says nothing of either."""
    a, b = T(1, 8), T(2, 8)
    w = imported([
        operator(5, "aten::relu", [a], [b]),
        operator(6, "aten::clamp_min", [a, 0], [b], caller=5),
        operator(7, "aten::gelu", [a], [b]),
        operator(8, "aten::my_half", [a], [T(3, 8)], caller=7),
        operator(9, "aten::my_other_half", [a], [T(4, 8)], caller=7),
        operator(10, "aten::relu_", [a], [a], "aten::relu_(Tensor(a!) self) -> Tensor(a!)"),
    ])  # fmt: skip
    assert w.text("kind").tolist() == ["activation", "unknown", "unknown", "activation"]
    assert w["flop"].tolist() == [8, 0, 0, 8]
    assert w.text("operator")[0] == "aten::clamp_min"
    assert w.classified.tolist() == [True, False, False, True]


def test_results_tell_what_the_profiler_does_not_record(imported):
    half = [T(1, 2, 6, dtype="c10::Half"), T(2, 2, 4, dtype="c10::Half")]
    table, rows = T(4, 50, 16), T(5, 3, dtype="long")
    w = imported([
        operator(5, "aten::cat", [half, 1], [T(3, 2, 10, dtype="c10::Half")]),
        operator(6, "aten::index", [table, [rows]], [T(6, 3, 16)]),
        operator(7, "aten::arange", [0, 9], [T(7, 9, dtype="long")]),
        operator(8, "aten::index_put_", [table, [rows], T(8)], [table],
                 "aten::index_put_(Tensor(a!) self, Tensor?[] i, Tensor v) -> Tensor(a!)"),
    ])  # fmt: skip
    assert w.text("kind").tolist() == ["cat", "gather", "fill", "scatter"]
    assert w.text("dtype").tolist()[:3] == ["fp16", "fp32", "int64"]
    assert w["read_activation"].tolist() == [2 * (12 + 8), 4 * 48 + 8 * 3, 0, 0]
    assert w["write_activation"].tolist() == [2 * 20, 4 * 48, 8 * 9, 0]
    assert (w["m"].tolist()[:3], w["n"].tolist()[:3]) == ([2, 3, 1], [10, 16, 9])
    assert w.text("basis").tolist() == ["shape", "shape", "shape", "name"]  # its grid is not known


def test_a_namespace_is_no_part_of_a_name(imported):
    """fbgemm is a library, not a product."""
    w = imported([operator(5, "fbgemm::permute", [T(1, 8)], [T(2, 8)], "fbgemm::permute(T x) -> T"),
                  operator(6, "aten::exp", [T(1, 8)], [T(2, 8)])])  # fmt: skip
    assert w.text("kind").tolist() == ["unknown", "pointwise"]


def test_copies_from_and_to_the_host(imported):
    here, there = T(1, 8), T(2, 8, device="cpu")
    one = T(3, device="cuda:0")
    w = imported([
        operator(5, "aten::copy_", [here, there, False], [here], COPY_),
        operator(6, "aten::copy_", [there, here, False], [there], COPY_),
        operator(7, "aten::copy_", [there, here, True], [there], COPY_),
        operator(8, "aten::copy_", [here, T(4, 8), False], [here], COPY_),
        operator(9, "aten::item", [one], []),
        operator(10, "aten::_local_scalar_dense", [one], [], caller=9),
        operator(11, "aten::copy_", [there, T(5, 8, device="cpu"), False], [there], COPY_),
    ])  # fmt: skip
    assert w.text("kind").tolist() == ["memcpy", "memcpy", "memcpy", "copy", "memcpy"]
    assert w["read_activation"].tolist() == [32, 32, 32, 32, 4]
    assert w["sync"].tolist() == [False, True, False, False, True]
    assert w.text("kernel").tolist()[0] == "aten::copy_"
    assert w.meta["skipped"] == {"annotations": 1, "views and metadata": 1, "on the host": 1}


def test_generated_kernels_count(imported):
    more = {"attrs": {"kernel_backend": "triton", "kernel_file": "x.py"}}
    w = imported([operator(5, "aten::exp", [T(1, 8)], [T(2, 8)]),
                  node(6, "triton_poi_fused_0", [T(2, 8), T(3, 8), 8], **more),
                  operator(7, "aten::exp", [T(3, 8)], [T(4, 8)])])  # fmt: skip
    assert w.text("kind").tolist() == ["pointwise", "fused", "pointwise"]
    assert waits(w) == [[], [0], [1]]  # it may write whatever it is given


# ---------------------------------------------------------------- communication


def all_reduce(i, bucket, outer="c10d::allreduce_"):
    schema = "c10d::allreduce_(Tensor[] tensors) -> (Tensor[], Work)"
    return [operator(i, outer, [[bucket], "<Object>"], [[bucket]], schema),
            node(i + 1, "record_param_comms", [[bucket], 47], [[bucket]], i),
            node(i + 2, "nccl:all_reduce", [bucket], [], i + 1),
            node(i + 3, "record_param_comms", [47, 0, "wait"])]  # fmt: skip


def test_a_collective_counts_once_with_its_bytes_and_order(imported):
    bucket = T(1, 256)
    w = imported([
        operator(5, "aten::fill_", [bucket, 1], [bucket], "aten::fill_(Tensor(a!) self) -> ()"),
        *all_reduce(6, bucket),
        operator(12, "aten::neg", [bucket], [T(2, 256)]),
        operator(13, "aten::exp", [T(3, 8)], [T(4, 8)]),
    ])  # fmt: skip
    assert w.text("kind").tolist() == ["fill", "collective", "pointwise", "pointwise"]
    assert w.text("kernel")[1] == "nccl:all_reduce"
    assert (w["read_activation"][1], w["write_activation"][1], w["flop"][1]) == (1024, 1024, 0)
    assert w["stream"].tolist() == [0, 1, 0, 0]
    assert waits(w) == [[], [0], [1], []]


def test_what_comes_back_stands_in_the_call_around(imported):
    sent, got = T(1, 64, dtype="c10::BFloat16"), T(2, 96, dtype="c10::BFloat16")
    w = imported([
        operator(4, "aten::exp", [T(9, 64)], [sent]),
        operator(5, "c10d::alltoall_base_", [got, sent, "<Object>"], [],
                 "c10d::alltoall_base_(Tensor output, Tensor input) -> Work"),
        node(6, "record_param_comms", [sent, 147], [got], 5),
        node(7, "nccl:all_to_all", [sent], [], 6),
        operator(8, "aten::neg", [got], [T(3, 96)]),
    ])  # fmt: skip
    assert (w["read_activation"][1], w["write_activation"][1]) == (128, 192)
    assert w.text("dtype")[1] == "bf16"
    assert waits(w) == [[], [0], [1]]


def test_point_to_point(imported):
    w = imported([operator(4, "aten::exp", [T(9, 64)], [T(1, 64)]),
                  node(5, "nccl:send", [T(1, 64)]), node(6, "nccl:recv", [T(2, 64)]),
                  operator(7, "c10d::allgather_", [T(2, 64)], [])])  # fmt: skip
    assert w.text("kind").tolist() == ["pointwise", *["collective"] * 3]
    assert w["read_activation"].tolist()[1:] == [256, 0, 256]
    assert w["write_activation"].tolist()[1:] == [0, 256, 256]


# ---------------------------------------------------------------- steps


def test_steps_reach_from_mark_to_mark_and_edges_stay_inside(imported):
    """A thread of its own runs the backward pass: it is in no annotation, only between two."""
    a = T(1, 8)
    w = imported([
        operator(3, "aten::exp", [a], [T(9, 8)]),
        node(4, "ProfilerStep#6"), operator(5, "aten::neg", [a], [T(2, 8)], caller=4),
        operator(6, "aten::neg", [T(2, 8)], [T(3, 8)]),
        node(7, "ProfilerStep#7"), node(8, "ProfilerStep#8"),
        operator(9, "aten::neg", [T(3, 8)], [T(4, 8)], caller=8),
        operator(10, "aten::neg", [T(4, 8)], [T(5, 8)], caller=8),
    ])  # fmt: skip
    assert w["step"].tolist() == [0, 0, 1, 1]
    assert waits(w) == [[], [0], [], [2]]
    assert (w.meta["marked_steps"], w.meta["outside_steps"]) == (3, 1)


def test_ones_own_marks_come_first(imported):
    w = imported([node(2, "ProfilerStep#1"), operator(3, "aten::exp", [T(1, 8)], [T(2, 8)]),
                  node(4, "step#0"), operator(5, "aten::neg", [T(2, 8)], [T(3, 8)])])  # fmt: skip
    assert w.text("kernel").tolist() == ["aten::neg"]
    assert (w.meta["marked_steps"], w.meta["outside_steps"]) == (1, 1)
    with pytest.raises(InputError, match=r"no device operation lies inside a step: '?1 steps"):
        imported([operator(3, "aten::exp", [T(1, 8)], [T(2, 8)]), node(4, "step#0")])


# ---------------------------------------------------------------- linked with a profiler trace


def kernel(i, name, by, ts, us, inputs, outputs, schema=UNARY, cat="kernel", stream=7):
    return node(i, name, inputs, outputs, by, schema, cat=cat, ts=ts, exclusive_dur=us,
                inclusive_dur=us, stream=stream, ph="X")  # fmt: skip


def test_kernels_of_a_linked_trace(imported):
    """Kernels count, operators say what they do; two kernels of one call share its FLOP."""
    epoch = 1_700_000_000_000_000.0
    a, b, c = T(1, 4, 8), T(2, 8, 16), T(3, 4, 16)
    args = ([a, b], [c])
    w = imported([
        operator(5, "aten::linear", *args, ts=epoch, exclusive_dur=900.0),
        operator(6, "aten::mm", *args, caller=5, ts=epoch, exclusive_dur=800.0),
        kernel(7, "sgemm_part", 6, epoch + 10, 3.0, *args),
        kernel(8, "sgemm_part", 6, epoch + 14, 5.5, *args),
        operator(9, "nccl:all_reduce", [c], [], ""),
        kernel(10, "ncclDevKernel_AllReduce", 9, epoch + 30, 7.0, [c], [], "", stream=20),
        operator(11, "aten::fill_", [a, 0], [a], ADD_),
        kernel(12, "Memset (Device)", 11, epoch + 21, 1.0, [a, 0], [a], ADD_, "gpu_memset"),
        node(13, "some range", cat="gpu_user_annotation", ts=epoch, exclusive_dur=99.0),
    ])  # fmt: skip
    assert w.text("kernel").tolist() == ["sgemm_part"] * 2 + ["ncclDevKernel_AllReduce",
                                                             "Memset (Device)"]  # fmt: skip
    assert w.text("operator").tolist() == ["aten::mm"] * 2 + ["nccl:all_reduce", "aten::fill_"]
    assert w["flop"].tolist() == [2 * 4 * 16 * 8 / 2] * 2 + [0, 0]
    assert w["read_weight"].sum() == 8 * 16 * 4  # inside aten::linear
    assert w.text("kind").tolist() == ["gemm", "gemm", "collective", "memset"]
    assert w["write_activation"].tolist()[2:] == [256, 128]
    assert w["duration_s"] == pytest.approx([3e-6, 5.5e-6, 7e-6, 1e-6], rel=1e-12)
    assert w["start_s"] == pytest.approx([0, 4e-6, 20e-6, 11e-6], rel=1e-12)
    assert w.steps.wall_s == pytest.approx([27e-6], rel=1e-12)
    assert w["stream"].tolist() == [7, 7, 20, 7]
    assert waits(w) == [[], [0], [1], [0, 1]]  # the last overwrites what two have read
    assert (w.meta["measured"], w.meta["starts"]) == (True, "recorded")
    assert w.meta["skipped"] == {"on the host": 4, "annotations": 2}


def test_times_of_a_linked_trace_must_be_times(imported):
    for change, field in (({"exclusive_dur": -1}, "exclusive_dur"), ({"ts": 1e30}, "ts")):
        bad = kernel(6, "k", 5, 1.0, 2.0, [T(1, 8)], [T(2, 8)]) | change
        with pytest.raises(InputError, match=f"node 6, {field}: not a time"):
            imported([operator(5, "aten::exp", [T(1, 8)], [T(2, 8)]), bad])


def test_without_starts_kernels_begin_when_what_they_wait_for_has_ended(imported):
    a, b, c = T(1, 8), T(2, 8), T(3, 8)
    bare = [kernel(6, "k", 5, None, 2.0, [a], [b]), kernel(7, "k", 5, None, 3.0, [T(8, 8)], [c],
                                                           stream=9),
            kernel(9, "k", 8, None, 1.0, [b, c], [T(4, 8)])]  # fmt: skip
    w = imported([operator(5, "aten::exp", [a], [b]), *bare[:2],
                  operator(8, "aten::add", [b, c], [T(4, 8)]), bare[2]])  # fmt: skip
    assert w["start_s"] == pytest.approx([0, 0, 3e-6], abs=1e-12)
    assert w.steps.wall_s == pytest.approx([4e-6], rel=1e-12)
    assert w.meta["starts"] == "as soon as what they wait for has ended"


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([], "among 1 nodes (1 annotations)"),
        ([operator(5, "aten::exp", [T(1, 8, device="cpu")], [T(2, 8, device="cpu")])],
         "among 2 nodes (1 annotations, 1 on the host)"),
        ([operator(5, "aten::t", [T(1, 8)], [T(1, 8)], VIEW)],
         "among 2 nodes (1 annotations, 1 views and metadata)"),
        (all_reduce(5, T(1, 8)), "1 communication, 1 annotations, 1 on the host, 2 callers of"),
    ],
)  # fmt: skip
def test_a_trace_without_computation_is_refused(imported, nodes, says):
    with pytest.raises(InputError, match="no computation on a device") as caught:
        imported(nodes)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


GOOD = [operator(5, "aten::exp", [T(1, 8)], [T(2, 8)]),
        operator(6, "aten::exp", [T(2, 8)], [T(3, 8)])]  # fmt: skip


def test_numbers_must_tell_nodes_apart_and_callers_come_first(imported):
    with pytest.raises(InputError, match="node 5: two nodes have one number: 'aten::exp'"):
        imported([*GOOD, GOOD[0]])
    circle = [{**GOOD[0], "ctrl_deps": 6}, {**GOOD[1], "ctrl_deps": 5}]
    with pytest.raises(InputError, match="node 5: a node begins before the one that calls it: 6"):
        imported(circle)


def test_a_caller_that_had_not_finished_is_missing_and_counted(imported):
    """The observer writes a node when it ends: stopped inside a range, it never writes that."""
    w = imported([{**n, "ctrl_deps": 3} for n in GOOD])
    assert len(w) == 2
    assert w.meta["unfinished_callers"] == 1


@pytest.mark.parametrize("keep", [1, 40, 300, 0.5, 0.9, -2, -1])
def test_a_trace_that_is_cut_short_is_refused(imported, keep):
    whole = text([ROOT, *GOOD])
    end = int(len(whole) * keep) if isinstance(keep, float) else keep
    with pytest.raises(
        InputError, match=r"cut short|not a supported trace|no traceEvents|not a pr"
    ):
        imported(whole[:end])


@pytest.mark.parametrize(
    "change",
    [{"id": "5"}, {"id": None}, {"name": 7}, {"inputs": 3}, {"attrs": [1]},
     {"inputs": {"values": 3}}, {"ctrl_deps": [1]}, {"ts": "x"}],
)  # fmt: skip
def test_nodes_of_another_form_are_refused(imported, change):
    with pytest.raises(InputError) as caught:
        imported([GOOD[0], {**GOOD[1], **change}])
    assert "nodes[" in str(caught.value) or "not JSON" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "shape", "kind", "flop"),
    [
        ([1, 2], [8], "Tensor(float)", 8),  # where it lives is not known, what it is is
        (7, [8], "Tensor(float)", 8),
        ([1, -2, 0, "x", 4, "cuda:0"], "y", "Tensor(float)", 0),
        (T(9, 8).value, [2**62, 2**62], "Tensor(float)", 0),
        (T(9, 8).value, [8], "Tensor(nullptr (uninitialized))", 0),
        (T(9, 8).value, [8], "Tensor(", 0),
        ([T(9, 8).value], [[8]], "GenericList[Tensor(", 0),
        ([T(9, 8).value], [[8]], "GenericList[Tensor(float),Tensor(float)]", 0),
        (1, [], 5, 0),
    ],
)
def test_malformed_arguments_count_as_absent(imported, value, shape, kind, flop):
    sides = {"values": [value], "shapes": [shape], "types": [kind]}
    w = imported([{**GOOD[0], "inputs": sides}, GOOD[1]])
    assert waits(w) == [[], [0]]
    assert w["flop"].tolist() == [flop, 8]


def test_nesting_has_no_limit_but_memory(imported):
    """5,000 operators inside each other, and lists inside each other where a value stands."""
    deep = [operator(i, "aten::outer", [T(1, 8)], [T(2, 8)], caller=i - 1) for i in range(2, 5_002)]
    inner = operator(30_000, "aten::exp", [T(1, 8)], [T(2, 8)], caller=5_001)
    tracemalloc.start()
    w = imported([*deep, inner])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert w.text("kernel").tolist() == ["aten::exp"]
    assert peak < 60e6
    lists = text([ROOT, *GOOD]).replace('"pid": 1', '"pid": ' + "[" * 10**5 + "]" * 10**5)
    with pytest.raises(InputError, match="too deep"):
        imported(lists)


# ---------------------------------------------------------------- which importer takes what


def test_the_file_decides_not_its_name(imported, tmp_path):
    packed = gzip.compress(text([ROOT, *GOOD]).encode())
    assert imported(packed, "anything.bin").meta["format"] == "pytorch execution trace"
    assert imported(json.dumps(json.loads(text([ROOT, *GOOD])), indent=4)).meta["measured"] is False
    trace = tmp_path / "kineto.json"
    trace.write_text(json.dumps({"schemaVersion": 1, "traceEvents": Trace().events}))
    assert not execution_trace.sniff(trace)
    for content in (b"", b"{", b"[]", b'{"nodes": []}', b"\x00" * 99, b'{"schema": "1.0"}'):
        trace.write_bytes(content)
        assert not execution_trace.sniff(trace)
        assert not chakra.sniff(trace)
    assert not execution_trace.sniff(tmp_path / "none")


@pytest.mark.parametrize("pack", ["w", "w:gz", "w:bz2", "zip"])
def test_no_importer_takes_an_archive(tmp_path, pack):
    file = tmp_path / ("trace.zip" if pack == "zip" else "trace.tar.gz")
    content = text([ROOT, *GOOD]).encode()
    if pack == "zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("x_et.json", content)
    else:
        with tarfile.open(file, pack) as archive:
            entry = tarfile.TarInfo("x_et.json")
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    assert [i.FORMAT for i in importers() if i.sniff(file)] == []
    with pytest.raises(InputError, match=r"archive|not a supported trace"):
        import_trace(file)


# ---------------------------------------------------------------- properties


@st.composite
def programs(draw):
    """Operators that read some storages and write or make others."""
    storages = st.integers(1, 6)
    found = []
    for i in range(draw(st.integers(1, 12))):
        reads = draw(st.lists(storages, max_size=3, unique=True))
        writes = draw(st.lists(st.sampled_from(reads), max_size=2, unique=True)) if reads else []
        found.append((reads, writes, draw(storages) + 10 * (i + 1)))
    return found


@settings(max_examples=60)
@given(programs())
def test_operations_wait_for_exactly_those_that_touch_what_they_touch(tmp_path, program):
    """A path joins two operations only through conflicts, and any conflict is on a path."""
    nodes = []
    for i, (reads, writes, made) in enumerate(program):
        arguments = ", ".join(f"Tensor({'a!' if r in writes else 'a'}) x{r}" for r in reads)
        nodes.append(operator(i + 2, "aten::exp", [T(r, 8) for r in reads], [T(made, 8)],
                              f"aten::f({arguments}) -> Tensor"))  # fmt: skip
    file = tmp_path / "x.json"
    file.write_text(text([*nodes, ROOT]))
    found = waits(import_trace(file))
    before = [set() for _ in program]
    for j, group in enumerate(found):
        assert group == sorted(set(group))
        assert all(i < j for i in group)
        before[j] = set(group).union(*(before[i] for i in group))
    for j, (reads, writes, _) in enumerate(program):
        for i in range(j):
            clash = set(program[i][1]) & {*reads, *writes} or set(program[i][0]) & set(writes)
            assert i in before[j] or not clash
            assert clash or i not in found[j]


@settings(max_examples=80)
@given(st.integers(0, 10**6), st.integers(0, 255))
@example(0, 0)
def test_damage_is_an_input_error_or_another_trace(tmp_path, at, byte):
    raw = bytearray(text([ROOT, *LINEAR, *all_reduce(20, T(1, 8))]).encode())
    raw[at % len(raw)] = byte
    file = tmp_path / "x.json"
    file.write_bytes(raw)
    try:
        w = import_trace(file)
    except InputError as error:
        assert "\n" not in str(error)
    else:
        assert len(w) >= 1


# ---------------------------------------------------------------- what follows


def test_a_replay_needs_no_times_and_a_transfer_has_none(imported, tmp_path):
    w = imported([*LINEAR, operator(20, "aten::my_own", [T(13, 4, 16)], [T(14, 4, 16)])])
    h200 = load_arch("h200")
    result = replay(w, h200, "graph")
    known = durations(w, Designs(h200)).of(0)[0]
    assert result.device_busy_s == pytest.approx(known)  # what has no shapes counts as nothing
    assert result.wall_s > result.device_busy_s > 0
    with pytest.raises(InputError, match="--mode model"):
        replay(w, h200, "graph", "transfer")
    save_workload(w, tmp_path / "w.parquet")
    again = load_workload(tmp_path / "w.parquet")
    assert again.id == w.id
    assert again.meta == w.meta


# ---------------------------------------------------------------- measured files

PARAM = "external/traces/param/et_replay/tests/inputs"


@pytest.fixture
def real(shared):
    def run(name):
        file = shared / name
        if not file.is_file():
            pytest.skip(f"{file} is not there")
        return import_trace(file)

    return run


def resnet50(batch):
    """Return the FLOP of the 53 convolutions of ResNet-50 on 224 x 224 images."""

    def conv(size, inner, outer, kernel):
        return 2 * batch * size * size * outer * inner * kernel * kernel

    found = [conv(112, 3, 64, 7)]
    width_in = 64
    for size, width, blocks in ((56, 64, 3), (28, 128, 4), (14, 256, 6), (7, 512, 3)):
        for block in range(blocks):
            before = size * 2 if block == 0 and size < 56 else size  # stride sits in the 3 x 3
            found += [conv(before, width_in, width, 1), conv(size, width, width, 3),
                      conv(size, width, 4 * width, 1)]  # fmt: skip
            if block == 0:
                found.append(conv(size, width_in, 4 * width, 1))
            width_in = 4 * width
    return found


@pytest.mark.shared
@pytest.mark.parametrize("name", ["resnet_et.json.gz", "1.1.0-chakra.0.0.4/resnet_2gpu_et.json.gz"])
def test_resnet_training(real, name):
    """Three steps of ResNet-50, batch 32, fp32, with gradients reduced over the processes."""
    w = real(f"{PARAM}/{name}")
    assert len(w.steps) == w.meta["marked_steps"] == 3
    forward = w.text("kind") == "conv"
    for step in range(3):
        flop = w["flop"][forward & (w["step"] == step)]
        assert sorted(flop.tolist()) == sorted(resnet50(32))
    assert set(w.text("operator")[forward]) == {"aten::cudnn_convolution"}
    assert set(w.text("dtype")[forward]) == {"fp32"}
    weights = sum(w["read_weight"][forward & (w["step"] == 0)]) / 4
    assert weights == 23_454_912  # parameters of its convolutions
    assert w.mask("kind", "collective").sum() == 21
    reduced = w["read_activation"][w.text("kernel") == "nccl:all_reduce"]
    assert reduced.sum() / 3 / 4 == 25_557_032  # all parameters of ResNet-50, every step
    found = waits(w)
    for i in np.flatnonzero(w.text("operator") == "aten::cudnn_batch_norm"):
        assert w.text("operator")[found[i][-1]] == "aten::cudnn_convolution"


@pytest.mark.shared
def test_linear_training(real):
    """20 layers of 1024 x 1024 on 512 rows: one product forward and two backward."""
    w = real(f"{PARAM}/linear_et.json.gz")
    products = w.mask("kind", "gemm")
    assert len(w.steps) == 1
    assert products.sum() == 62
    assert set(w["flop"][products]) == {2.0 * 512 * 1024 * 1024}
    assert w.meta["nodes"] == 931
    assert sum(w.meta["skipped"].values()) + len(w) == 931


@pytest.mark.shared
def test_add_benchmark(real):
    w = real("external/traces/hta/execution_trace_benchmark_simple_add_et.json.gz")
    assert w.text("kernel").tolist() == ["aten::uniform_"] * 2 + ["aten::add"] * 2
    assert w["flop"].tolist() == [0, 0, 65536, 65536]
    assert w["read_activation"].tolist()[2:] == [2 * 4 * 65536] * 2
    assert waits(w) == [[], [], [0, 1], [0, 1]]
    assert w.meta["skipped"]["on the host"] == 20  # it clears a cache there


@pytest.mark.shared
def test_dlrm_of_every_rank(shared, imported):
    file = shared / PARAM / "dlrm_pytorch_et.tar.gz"
    if not file.is_file():
        pytest.skip(f"{file} is not there")
    with tarfile.open(file) as archive:
        members = [m for m in archive.getmembers() if m.name.endswith(".json")]
        raw = [archive.extractfile(m).read() for m in members]
    assert len(raw) == 8
    for content in raw:
        nodes = json.loads(content)["nodes"]
        w = imported(content)
        called = [n["name"] for n in nodes if n["name"].startswith("nccl:")]
        assert w.text("kernel")[w.mask("kind", "collective")].tolist() == called
        products = [n for n in nodes if n["name"] in ("aten::mm", "aten::addmm", "aten::bmm")]
        assert w.mask("kind", "gemm", "gemv").sum() == len(products)
