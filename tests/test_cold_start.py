"""First requests: kernels that are compiled or loaded, by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

import npusim as ns
from npusim.cold_start import distinct_kernels, first_request, time_a_kernel
from npusim.errors import InputError
from tests.builder import kernel, workload

amounts = st.floats(0.0, 1e3)


def test_kernels_are_counted_once_and_copies_not_at_all():
    a = workload(kernel("gemm<64>"), kernel("gemm<64>"), kernel("gemm<128>"),
                 kernel("Memcpy DtoH", kind="memcpy"))  # fmt: skip
    b = workload(kernel("gemm<64>"), kernel("norm"), kernel("Memset", kind="memset"))
    assert distinct_kernels([a]) == ("gemm<128>", "gemm<64>")
    assert distinct_kernels([a, b]) == ("gemm<128>", "gemm<64>", "norm")
    assert distinct_kernels([]) == ()


def test_parts_of_a_model_share_kernels():
    parts = [ns.load_workload(f"paddleocr_vl_{p}") for p in ("vision", "prefill", "decode")]
    alone = [len(distinct_kernels([p])) for p in parts]
    whole = len(distinct_kernels(parts))
    assert max(alone) < whole < sum(alone)


def test_a_first_request_by_hand():
    # 100 kernels, a quarter cached: 75 x 0.2 + 25 x 0.01, half a second once
    assert first_request(2.0, 100, 0.2, load_s=0.01, cached=0.25, once_s=0.5) == pytest.approx(
        2 + 15 + 0.25 + 0.5
    )
    assert first_request(2.0, 100, 0.2, cached=1.0) == 2.0


def test_seed_000_is_as_asked():
    """135.2 s to 4.28 s: what 92 kernels take each, and back."""
    each = time_a_kernel(135.2, 4.28, 92)
    assert each == pytest.approx(130.92 / 92)
    assert first_request(4.28, 92, each) == pytest.approx(135.2)
    assert first_request(4.28, 92, each, cached=1) / 135.2 - 1 == pytest.approx(-0.97, abs=0.005)


@given(amounts, st.integers(1, 500), amounts, amounts, st.floats(0, 1), amounts)
def test_more_in_the_cache_is_never_slower(warm, kernels, load, more, cached, once):
    compiled = load + more
    first = first_request(warm, kernels, compiled, load, cached, once)
    assert first >= first_request(warm, kernels, compiled, load, 1.0, once) * (1 - 1e-9)
    assert first <= first_request(warm, kernels, compiled, load, 0.0, once) * (1 + 1e-9)
    cold = first_request(warm, kernels, compiled, once_s=once)
    assert time_a_kernel(cold, warm, kernels, once) == pytest.approx(compiled, abs=1e-6)


@pytest.mark.parametrize(
    ("make", "problem"),
    [(lambda: first_request(-1.0, 1, 1.0), "warm_s: not a number of it"),
     (lambda: first_request(1.0, -1, 1.0), "kernels: not a number of it"),
     (lambda: first_request(1.0, 1, float("nan")), "compile_s: not a number of it"),
     (lambda: first_request(1.0, 1, 1.0, cached=1.5), "not a share"),
     (lambda: first_request(1.0, 1, 1.0, cached=float("nan")), "not a share"),
     (lambda: time_a_kernel(1.0, 2.0, 5), "not the longer one"),
     (lambda: time_a_kernel(2.0, 1.0, 5, once_s=1.5), "not the longer one"),
     (lambda: time_a_kernel(2.0, 1.0, 0), "no kernels")],
)  # fmt: skip
def test_bad_numbers_are_refused(make, problem):
    with pytest.raises(InputError, match=problem):
        make()
