"""A kernel's work, from its operator where that is known and from its name where it is not."""

from __future__ import annotations

from dataclasses import replace

from npusim.importers import kernel_names, products, streams
from npusim.importers.routines import routine
from npusim.importers.tensors import Call
from npusim.importers.work import Launch, Work

RULES = {**products.RULES, **streams.RULES}

# Kernels that help the main one of an operator; they do not carry its FLOP a second time.
HELPERS = {"splitk_reduce", "attention_combine", "setup"}


def describe(call: Call | None, launch: Launch) -> Work:
    """Return what a kernel does, from its operator if that is known and from its name if not."""
    work = _work(call, launch)
    return replace(work, routine=routine(launch.kernel, call))


def _work(call: Call | None, launch: Launch) -> Work:
    named = kernel_names.kind(launch.kernel)
    if named in ("memcpy", "memset"):
        return _copy_engine(named, launch)
    rule = RULES.get(call.name) if call is not None else None
    if call is None or rule is None:
        return Work(named, basis="name" if named != "unknown" else "none")
    work = _helper(named, call, launch) if named in HELPERS else rule(call, launch)
    return work if work is not None else Work(named, basis="name" if named != "unknown" else "none")


def _copy_engine(named: str, launch: Launch) -> Work:
    """Return the work of a copy or fill; one of unknown size has no bytes to claim.

    Examples
    --------
    >>> [_copy_engine("memset", Launch("x", nbytes=n)).basis for n in (0.0, 8.0)]
    ['name', 'launch']
    """
    if not launch.nbytes:
        return Work(named, basis="name")
    read = launch.nbytes if named == "memcpy" else 0.0
    return Work(named, basis="launch", n=int(launch.nbytes), m=1, read_activation=read,
                write_activation=launch.nbytes)  # fmt: skip


def _helper(named: str, call: Call, launch: Launch) -> Work | None:
    """Return the work of a kernel that serves the main one of its operator.

    A combination adds up partial results: how many is not recorded, two is the least there can
    be. A set-up kernel writes a few addresses for each matrix, or rearranges an input.
    """
    rule = RULES[call.name]
    main = rule(call, launch)
    if main is None:
        return None
    if named == "setup":
        moved = 64.0 * main.groups if main.groups else main.read_activation
        return Work("setup", main.dtype, batch=1, m=1, n=max(main.groups, 1),
                    read_activation=moved, write_activation=moved)  # fmt: skip
    results = main.batch * main.m * main.n
    if named == "attention_combine":
        results = main.batch * main.heads * main.m * main.k
    return Work(named, "fp32", batch=1, m=1, n=results, flop=2.0 * results,
                read_activation=8.0 * results, write_activation=2.0 * results)  # fmt: skip
