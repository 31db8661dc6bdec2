"""What an operation does that only its neighbours tell: split products, shared work, caches."""

import numpy as np
import pytest

import npusim as ns
from npusim import catalog
from npusim.importers.coded import Coded
from npusim.importers.neighbours import Made, among_neighbours, with_neighbours
from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Work
from tests.kineto_builder import Trace, tensor

PRODUCT = Work("gemm", "bf16", m=8, n=8, k=64, flop=8192.0, read_weight=1024.0)
SUM = Work("splitk_reduce", "fp32", m=1, n=64, flop=128.0)
ADD = Work("pointwise", "bf16", m=1, n=64)


def routines(works, instances, blocks=None):
    """Return the routine of each, once neighbours are looked at."""
    blocks = blocks or [1] * len(works)
    found = with_neighbours(works, [None] * len(works), blocks, instances)
    return [w.routine for w in found]


def test_a_product_whose_call_sums_parts_is_split():
    works = [PRODUCT, SUM, ADD, PRODUCT]
    assert routines(works, [0, 0, 1, 2]) == ["split", "", "", "whole"]


def test_one_shape_may_be_split_in_one_call_and_whole_in_another():
    works = [PRODUCT, PRODUCT, SUM, PRODUCT, SUM]
    assert routines(works, [0, 1, 1, 2, 2]) == ["whole", "split", "", "split", ""]


def test_a_sum_before_its_product_counts_too():
    assert routines([SUM, PRODUCT], [3, 3]) == ["", "split"]


def test_a_product_of_an_unknown_call_may_be_either():
    assert routines([PRODUCT, SUM], [-1, -1]) == ["", ""]


@pytest.mark.parametrize("kind", ["gemv", "gemm"])
def test_products_of_every_size_are_told(kind):
    assert routines([Work(kind), SUM], [0, 0]) == ["split", ""]


@pytest.mark.parametrize("work", [Work("conv"), Work("attention"), Work("grouped_gemm"),
                                  Work("gemm", routine="conv_vector")],
                         ids=lambda w: w.kind + w.routine)  # fmt: skip
def test_what_has_a_routine_or_is_no_plain_product_is_left(work):
    assert routines([work, SUM], [0, 0]) == [work.routine, ""]


def test_nothing_else_of_a_work_changes():
    found = with_neighbours([PRODUCT, SUM], [None, None], [4, 1], [0, 0])
    assert found == [Work("gemm", "bf16", m=8, n=8, k=64, flop=8192.0, read_weight=1024.0,
                          routine="split"), SUM]  # fmt: skip


def test_kernels_that_share_a_call_are_split_together():
    # two products of one call share its work by blocks, 3 to 1
    found = with_neighbours([PRODUCT, PRODUCT, SUM], [None] * 3, [3, 1, 1], [0, 0, 0])
    assert [w.routine for w in found] == ["split", "split", ""]
    assert [w.flop for w in found] == [6144.0, 2048.0, 128.0]
    assert [w.read_weight for w in found] == [768.0, 256.0, 0.0]
    halves = with_neighbours([PRODUCT, PRODUCT], [None] * 2, [0, 0], [0, 0])
    assert [w.flop for w in halves] == [4096.0, 4096.0]  # where blocks are not known, evenly
    assert [w.routine for w in halves] == ["whole", "whole"]


def told(works, calls, instances, step):
    """Return what the works of some steps are once the neighbours in each are looked at."""
    made, rows = Made(), np.arange(len(works))
    codes = np.array([made.number(w) for w in works])
    found = among_neighbours(made, codes, Coded(calls, rows), Coded([1] * len(works), rows),
                             np.array(instances), np.array(step))  # fmt: skip
    return list(Coded(made.works, found))


def test_a_call_in_two_steps_has_its_sum_and_its_share_in_each_alone():
    # the sum of the second step is none of the first, and neither shares with the other
    found = told([PRODUCT, PRODUCT, SUM], [None] * 3, [5, 5, 5], [0, 1, 1])
    assert [w.routine for w in found] == ["whole", "split", ""]
    assert [w.flop for w in found] == [8192.0, 8192.0, 128.0]


def test_a_router_chooses_for_its_own_step():
    router = Work("topk", m=2, n=8)
    experts = Work("grouped_gemm", m=4, groups=8, read_weight=4.0)
    call = Call("aten::topk", (), ("", "2"))
    works = [router, experts, experts]
    found = told(works, [call, None, None], [0, 1, 2], [0, 0, 1])
    # of 8 experts two tokens with two each hit 8 (1 - (3/4)^2) = 3.5; without a router 4 rows hit 4
    assert [w.read_weight for w in found] == [0.0, 3.5, 4.0]


def test_works_made_of_one_are_made_once():
    made = Made()
    number = made.number(PRODUCT)
    assert made.number(PRODUCT) == number
    once, again = (made.of(number, 0.5, lambda w: Work(w.kind, m=4)) for _ in range(2))
    assert once == again != number
    assert made.works == [PRODUCT, Work("gemm", m=4)]


def test_an_imported_trace_tells_split_products(tmp_path):
    trace = Trace()
    with trace.step():
        for sums in (False, True):
            with trace.op("aten::mm", tensor(1, 512), tensor(512, 64)):
                trace.kernel("void gemv2T_kernel_val<int>")
                if sums:
                    trace.kernel("void cublasLt::splitKreduce_kernel<32, 16, int, float>")
        trace.now += 5
        trace.kernel("nvjet_tst_64x8")  # launched by nobody who is known
    w = ns.import_trace(trace.write(tmp_path))
    assert w.text("kind")[:3].tolist() == ["gemv", "gemv", "splitk_reduce"]
    assert w.text("routine").tolist() == ["whole", "split", "", ""]


@pytest.mark.parametrize("name", catalog.names("workloads"))
def test_every_sum_of_a_shipped_workload_has_the_product_before_it(name):
    w = ns.load_workload(name)
    kind, routine = w.text("kind"), w.text("routine")
    sums = [i for i, k in enumerate(kind) if k == "splitk_reduce"]
    assert all(routine[i - 1] == "split" for i in sums)
    assert (routine == "split").sum() == len(sums)
    assert set(routine[[k in ("gemv", "gemm") for k in kind]]) <= {"split", "whole"}


# ---------------------------------------------------------------- advanced indexing

GATHER = Work("gather", "fp32", basis="launch", m=23, n=1, read_activation=92.0,
              write_activation=92.0)  # fmt: skip


def indexed(*reader, blocks=1, work=GATHER, name="aten::mul", index="aten::index"):
    """Return the work of an index that some tensors are read after."""
    calls = [Call(index, (tensor_of(1024, 6),), ()), Call(name, reader, ())]
    return with_neighbours([work, ADD], calls, [blocks, 1], [0, 1])[0]


def tensor_of(*shape, dtype="fp32"):
    return Tensor(shape, dtype, {"fp32": 4, "bf16": 2}[dtype])


def test_an_index_has_the_size_of_what_is_made_of_it():
    found = indexed(tensor_of(70, 1280), tensor_of(70, 1))
    assert (found.m, found.n) == (70, 1)
    assert (found.read_activation, found.write_activation) == (280.0, 280.0)


@pytest.mark.parametrize(
    ("reader", "changes"),
    [
        ((tensor_of(70, 1280), tensor_of(70, 1, dtype="bf16")), {}),  # of another type
        ((tensor_of(70, 1280), tensor_of(513)), {}),  # more than a block takes
        ((tensor_of(70), tensor_of(80)), {}),  # it could be either
        ((tensor_of(),), {}),  # a scalar
        ((), {}),
        ((tensor_of(70, 1),), {"blocks": 2}),  # fewer than two blocks take
        ((tensor_of(70, 1),), {"blocks": 0}),  # a launch that nobody knows
        ((tensor_of(70, 1),), {"index": "aten::gather"}),
        ((tensor_of(70, 1),), {"work": Work("gather", "fp32", m=23, n=1)}),  # its shape is known
    ],
)
def test_a_size_that_nothing_tells_stays(reader, changes):
    found = indexed(*reader, **changes)
    assert (found.m, found.n) == (23, 1)


def test_rows_of_an_index_stay_as_wide():
    row = Work("gather", "fp32", basis="launch", m=2, n=100, read_activation=800.0)
    found = indexed(tensor_of(5, 100), work=row)
    assert (found.m, found.n, found.read_activation) == (5, 100, 2000.0)


def test_experts_of_the_shipped_trace_gather_as_many_weights_as_they_have_tokens():
    w = ns.load_workload("deepseek_ocr_prefill")
    rows = w.mask("routine", "index") & w.mask("operator", "aten::index") & w.mask("dtype", "fp32")
    sizes, spent = w["m"][rows], w["duration_s"][rows] * 1e6
    assert len(set(sizes.tolist())) > 100
    # a thread takes one after the other: 128 of them, 256, 384
    medians = [np.median(spent[(sizes > low) & (sizes <= low + 128)]) for low in (0, 128, 256)]
    assert 0.8 < medians[1] - medians[0] < 1.2
    assert 0.8 < medians[2] - medians[1] < 1.2
