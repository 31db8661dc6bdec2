"""The first request: kernels that are compiled or loaded at their first use.

With K distinct kernels of which a share c is in the code cache,

    t(first) = t(warm) + K ((1 - c) compile + c load) + once

where compile is what a kernel takes that the cache does not have (from source or intermediate
code), load one that is in the cache and comes to the device at its first use, and once what is
paid once a process, whatever the kernels (a context, a library's handle).

Source: lazy loading and just-in-time compilation as in the CUDA C++ Programming Guide; what they
take on an H200 is measured in ``workloads/experiments/h200_host_axes.json``, axis ``first_use``.

Left out: shapes that select another kernel later in the life of a process, tuning at first use,
compilation on several threads, a cache that a machine shares between processes.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from npusim.errors import InputError
from npusim.workload import Workload

_NO_KERNELS = ("memcpy", "memset")  # a copy engine's, or part of the driver


def distinct_kernels(workloads: Iterable[Workload]) -> tuple[str, ...]:
    """Return the names of all kernels of some workloads, sorted.

    A name with its template parameters is a variant that is compiled and loaded by itself. One
    name may still hide several variants, or an importer that shortens names may merge some: the
    number is a lower bound.

    Examples
    --------
    >>> import npusim as ns
    >>> parts = [ns.load_workload(f"paddleocr_vl_{p}") for p in ("vision", "prefill", "decode")]
    >>> [len(distinct_kernels(parts[:n])) for n in (1, 2, 3)]
    [63, 80, 92]
    """
    names: set[str] = set()
    for w in workloads:
        names.update(w.text("kernel")[~w.mask("kind", *_NO_KERNELS)].tolist())
    return tuple(sorted(names))


def first_request(
    warm_s: float,
    kernels: int,
    compile_s: float,
    load_s: float = 0.0,
    cached: float = 0.0,
    once_s: float = 0.0,
) -> float:
    """Return the time of the first request [s].

    Parameters
    ----------
    warm_s : float
        The same request when everything is there [s].
    kernels : int
        Distinct kernels that it runs, none of them used before.
    compile_s, load_s : float
        Of a kernel that the code cache lacks, and of one that it has [s].
    cached : float
        Share of the kernels that the cache has, 0 to 1.
    once_s : float
        Whatever is paid once, besides [s].

    Raises
    ------
    InputError
        A negative time or number, or a share that is none.

    Examples
    --------
    >>> round(first_request(4.28, kernels=92, compile_s=1.4), 2)
    133.08
    >>> round(first_request(4.28, kernels=92, compile_s=1.4, load_s=0.01, cached=1), 2)
    5.2
    """
    _refuse_negative(warm_s=warm_s, kernels=kernels, compile_s=compile_s, load_s=load_s,
                     once_s=once_s)  # fmt: skip
    if not 0 <= cached <= 1:
        raise InputError("not a share", place="cached", value=cached, allowed="0 to 1")
    return warm_s + kernels * ((1 - cached) * compile_s + cached * load_s) + once_s


def time_a_kernel(cold_s: float, warm_s: float, kernels: int, once_s: float = 0.0) -> float:
    """Return what each kernel takes at its first use, if a first request is longer by that [s].

    Parameters
    ----------
    cold_s, warm_s : float
        The first request and the same later [s].
    kernels : int
        Distinct kernels that it runs.
    once_s : float
        What of the difference no kernel causes [s].

    Raises
    ------
    InputError
        No kernels, a negative time, or a first request that is shorter than the rest.

    Examples
    --------
    >>> round(time_a_kernel(135.2, 4.28, kernels=92), 2)
    1.42
    """
    _refuse_negative(cold_s=cold_s, warm_s=warm_s, kernels=kernels, once_s=once_s)
    if kernels < 1:
        raise InputError("no kernels", place="kernels", value=kernels, allowed="1 or more")
    if cold_s < warm_s + once_s:
        raise InputError("the first request is not the longer one", place="cold_s", value=cold_s,
                         allowed=f"{warm_s + once_s:g} s or more")  # fmt: skip
    return (cold_s - warm_s - once_s) / kernels


def _refuse_negative(**given: float) -> None:
    for place, value in given.items():
        if not (math.isfinite(value) and value >= 0):
            raise InputError("not a number of it", place=place, value=value, allowed="0 or more")
