"""Cost models: values worked out by hand, and laws that hold for every machine."""

import inspect
import math

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import npusim as ns
from npusim import catalog, host
from npusim.arch import Designs
from npusim.library import ROUTINES
from npusim.models import (
    area,
    attention,
    carbon,
    collective,
    cost,
    die_cost,
    energy,
    floor,
    fused,
    gemm,
    kernel,
    launch,
    modelled,
    models,
    prefetch,
    roofline,
    service_cost,
    technology,
    transfer,
    voltage,
)
from npusim.models.attention_library import LIBRARIES
from npusim.parameters import PARAMETERS
from npusim.workload import KINDS
from tests.builder import workload
from tests.machines import machine, operations

GEMM = {"kind": "gemm", "dtype": "bf16", "m": 4096, "n": 8192, "k": 8192,
        "flop": 2 * 4096 * 8192 * 8192, "read_weight": 2 * 8192 * 8192,
        "read_activation": 2 * 4096 * 8192, "write_activation": 2 * 4096 * 8192}  # fmt: skip
GEMV = {"kind": "gemv", "dtype": "bf16", "m": 1, "n": 103424, "k": 1024,
        "flop": 2 * 103424 * 1024, "read_weight": 2 * 103424 * 1024}  # fmt: skip
# Models of other things than time, whose numbers it must not depend on.
APART = (area, carbon, die_cost, energy, service_cost, technology, voltage)
# What is costed by its bytes and arithmetic alone.
STREAMED = sorted({*KINDS}.difference(gemm.KINDS, attention.KINDS))


def one(row, arch):
    return workload(row).operations(), Designs(arch)


class Recorder(Designs):
    """Designs that remember which parameters were asked for, and whose values were."""

    def __init__(self, base):
        super().__init__(base)
        object.__setattr__(self, "seen", set())
        object.__setattr__(self, "valued", set())

    def __getitem__(self, path):
        self.seen.add(path)
        self.valued.add(path)
        return super().__getitem__(path)

    def __contains__(self, path):
        self.seen.add(path)
        return super().__contains__(path)

    def distinct(self, paths):
        return self, np.zeros(1, dtype=int)

    def of(self, columns):
        """Stay one where `kernel` hands designs of a constant depth on."""
        assert np.all(columns.get("prefetch.depth", 1.0) == 1.0)
        return self


def machine_with_everything():
    """A machine that has every parameter that a model may read."""
    full = ns.with_value(ns.load_arch("decode_npu"), "array.rows", 8.0)
    for path in modelled():
        if path not in full.values:
            full = ns.with_value(
                full, path, max(PARAMETERS[path].low, min(PARAMETERS[path].high, 1.0))
            )
    return full


def operations_of_every_sort():
    """Every kind in every type, every routine, and attention as every library does it."""
    dtypes = ("fp32", "tf32", "fp16", "bf16", "fp8", "int8", "int4")
    sizes = {"batch": 1, "m": 64, "n": 512, "k": 64, "heads": 8, "kv_heads": 8, "blocks": 8,
             "threads": 128, "flop": 1e6, "read_activation": 1e6}  # fmt: skip
    rows = [{"kind": k, "dtype": d} for k in KINDS for d in dtypes]
    rows += [{"kind": "pointwise", "routine": routine} for routine in ROUTINES]
    rows += [{"kind": "gemm", "routine": how} for how in ("split", "whole")]
    rows += [{"kind": "gemv", "dtype": "bf16", "m": 1, "read_weight": 1e6}]
    rows += [{"kind": "fused", "routine": form} for form in fused.FORMS]
    rows += [{"kind": "collective", "routine": how} for how in collective.ROUTINES]
    libraries = [library.name for library in LIBRARIES]
    rows += [{"kind": "attention", "library": name, "m": m, "blocks": blocks}
             for name in libraries for m in (1, 64) for blocks in (0, 8)]  # fmt: skip
    return operations(*rows, **sizes)


@pytest.mark.parametrize("model", list(models()), ids=lambda m: m.__name__)
def test_every_model_declares_what_it_reads(model):
    assert set(model.PARAMETERS) <= set(PARAMETERS)
    assert model in (kernel, cost) or "Left out" in model.__doc__


def test_models_read_exactly_what_they_declare():
    designs = Recorder(machine_with_everything())
    kernel.kernel_time(operations_of_every_sort(), designs)
    assert "prefetch.depth" not in designs.valued  # how deep it is matters to lanes alone
    prefetch.depth(designs)
    for mode in launch.LAUNCHES:
        launch.launch_cost(mode, designs)
    in_lanes = {"host.speed", "host.sync", "host.threads", "host.record", "launch.eager.host",
                "launch.eager.depth"}  # fmt: skip
    in_programs = {"fusion.chain", "fusion.buffer", "fusion.products", "fusion.recompute",
                   "fusion.side_by_side"}  # fmt: skip
    of_time = {path for model in models() if model not in APART for path in model.PARAMETERS}
    assert designs.seen | in_lanes | in_programs == of_time
    source = inspect.getsource(host)
    assert all(f'"{path}"' in source for path in in_lanes)


def test_a_product_computes_at_the_clock_of_its_unit():
    # 4 units x 1,024 FLOP x 1 GHz; fp32 on the vector unit, 64 FLOP, of which half is reached
    ops = operations({"flop": 4.096e12}, {"flop": 2.56e11, "dtype": "fp32"})
    found = roofline.compute_time(ops, Designs(machine(vector__efficiency=0.5)))
    assert found.ravel().tolist() == pytest.approx([1.0, 2.0])


def test_a_large_product_is_bound_by_the_matrix_unit():
    ops, h200 = one(GEMM, ns.load_arch("h200"))
    assert kernel.bound(ops, h200)[0, 0] == "compute"


def test_a_vocabulary_gemv_is_bound_by_dram():
    # 211.8 MB at 0.883 x 4.8 TB/s = 49.97 us
    ops, h200 = one(GEMV, ns.load_arch("h200"))
    expected = 2 * 103424 * 1024 / (0.883 * 4.8e12)
    assert roofline.memory_time(ops, h200)[0, 0] == pytest.approx(expected)
    assert kernel.bound(ops, h200)[0, 0] == "memory"
    assert kernel.kernel_time(ops, h200)[0, 0] > expected


def test_an_empty_kernel_takes_its_floor():
    ops, h200 = one({"kind": "reduction"}, ns.load_arch("h200"))
    assert kernel.kernel_time(ops, h200)[0, 0] == pytest.approx(1.93e-6)
    assert kernel.bound(ops, h200)[0, 0] == "floor"


def test_products_without_a_matrix_rate_run_on_the_vector_unit():
    a100 = Designs(ns.load_arch("a100"))
    assert roofline.unit_of("gemm", "fp8", a100) == "vector"
    assert roofline.unit_of("gemm", "bf16", a100) == "matrix"
    assert roofline.unit_of("softmax", "bf16", a100) == "vector"


def test_the_ridge_point_is_where_both_limits_meet():
    designs = Designs(ns.load_arch("h200"))
    at_ridge = float(roofline.ridge_point(designs, "bf16")[0])
    ops = workload({"kind": "gemm", "dtype": "bf16", "flop": at_ridge * 1e9,
                    "read_weight": 1e9}).operations()  # fmt: skip
    compute, memory = roofline.compute_time(ops, designs), roofline.memory_time(ops, designs)
    assert compute[0, 0] == pytest.approx(memory[0, 0])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_floor_that_every_machine_gives(kind):
    for name in catalog.names("archs"):
        assert floor.floor_path(kind) in ns.load_arch(name).values


RATES = [
    p for p in roofline.PARAMETERS
    if p.endswith((".rate", ".bandwidth", ".efficiency", ".count", ".clock"))
]  # fmt: skip


def rows_of(kinds):
    return st.fixed_dictionaries(
        {
            "kind": st.sampled_from(kinds),
            "dtype": st.sampled_from(["fp32", "bf16", "fp8", "int8", "int64"]),
            "flop": st.floats(0, 1e15),
            "read_weight": st.floats(0, 1e12),
            "read_kv": st.floats(0, 1e12),
            "write_activation": st.floats(0, 1e12),
        }
    )


TINY = {"kind": "scan", "dtype": "fp32", "flop": 1e12, "read_weight": 1e-300,
        "read_kv": 2.2e-313, "write_activation": 1.0}  # fmt: skip


@example(row=TINY, path="units.clock", factor=0.5)  # caches of which a capacity holds 1e313
@given(row=rows_of(KINDS), path=st.sampled_from(RATES), factor=st.floats(0.1, 0.999))
def test_a_slower_machine_is_never_faster(row, path, factor):
    arch = ns.load_arch("decode_npu")
    if path not in arch.values:
        return
    ops = workload(row).operations()
    low = max(arch[path] * factor, PARAMETERS[path].low)
    low = math.floor(low) if path.endswith(".count") else low
    pair = kernel.kernel_time(ops, Designs(arch, {path: np.array([low, arch[path]])}))[0]
    assert pair[0] >= pair[1] * (1 - 1e-12)


@given(row=rows_of(STREAMED), caches=st.sampled_from(["step", "cold"]))
def test_time_is_the_floor_plus_the_longer_of_both_limits(row, caches):
    designs = Designs(ns.load_arch("h200"))
    ops = workload(row).under(caches).operations()
    busy = (kernel.kernel_time(ops, designs) - floor.floor_time(ops, designs)).item()
    compute = roofline.compute_time(ops, designs).item()
    moving = transfer.transfer_time(ops, designs["units.count"][None, :], designs).item()
    assert busy == pytest.approx(max(compute, moving), rel=1e-9, abs=1e-18)
    if caches == "cold":  # every byte comes from DRAM: the roofline bounds it
        bound = max(compute, roofline.memory_time(ops, designs).item())
        assert busy >= bound * (1 - 1e-9) - 1e-18


@given(row=rows_of(STREAMED), scale=st.floats(1.5, 100))
def test_work_scales_the_time_above_the_floor(row, scale):
    designs = Designs(ns.load_arch("h200"))
    larger = {k: v * scale if isinstance(v, float) else v for k, v in row.items()}
    small, large = (
        kernel.kernel_time(o, designs)[0, 0] - floor.floor_time(o, designs)[0, 0]
        for o in (workload(row).operations(), workload(larger).operations())
    )
    assert large == pytest.approx(scale * small, rel=1e-9, abs=1e-15)
