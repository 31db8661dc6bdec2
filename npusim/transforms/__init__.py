"""Transforms: what changes a workload rather than the machine, `Workload` to `Workload`.

One change a file. Each file lists in ``PARAMETERS`` the dotted paths that it reads, all below
``workload.``, so that they are axes of a sweep and ``--set`` flags as those of a machine are. It
says what a workload must hold for it (``NEEDS``) and which operations it changes (``touched``).

A changed workload keeps its host and measured times, and its kernels but for those that a change
puts in, in the place of others or out (`npusim.transforms.rows`); ``meta["transforms"]`` says what
was changed, and nothing that was measured is of it any more. One left as it was is itself.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from types import MappingProxyType, ModuleType
from typing import TypeVar

from npusim.errors import InputError
from npusim.transforms import (
    batch,
    block_size,
    cache,
    casts,
    context,
    experts,
    in_place,
    kv_heads,
    merging,
    pages,
    precision,
    speculation,
    splits,
    static_cache,
    weights,
)
from npusim.transforms.batch import set_batch
from npusim.transforms.block_size import enlarge_blocks
from npusim.transforms.cache import quantize_cache
from npusim.transforms.casts import fold_casts
from npusim.transforms.context import set_context
from npusim.transforms.experts import skew_experts
from npusim.transforms.in_place import write_in_place
from npusim.transforms.kv_heads import group_heads
from npusim.transforms.merging import merge_products
from npusim.transforms.pages import page_cache
from npusim.transforms.precision import refuse_without_rate
from npusim.transforms.profiler import only_steps, unprofiled
from npusim.transforms.record import changes, refuse_late, told
from npusim.transforms.speculation import speculate
from npusim.transforms.splits import split_keys
from npusim.transforms.weights import quantize_weights
from npusim.workload import Workload

__all__ = [
    "TRANSFORMABLE", "applies", "changes", "enlarge_blocks", "fold_casts", "group_heads",
    "limits", "merge_products", "needs", "only_steps",
    "page_cache", "present", "quantize_cache", "quantize_weights", "refuse_changed",
    "refuse_without_rate", "set_batch", "set_context", "skew_experts", "speculate", "split",
    "split_keys", "told", "transformed", "unmeasured", "unprofiled", "write_in_place",
]  # fmt: skip

_Value = TypeVar("_Value")

# Batch before the static cache, which is made for it, and after the context. What puts other
# kernels in place of some comes behind what changes sizes: a static cache or pages before a write
# in place, which they bring themselves, and casts behind weights, which they know as they were;
# types of products behind both, for which inputs and weights are as they then are. Drafts, for
# which steps are as they are, come last.
# Behind them come merged products alone, once for several steps. Larger blocks come behind all that
# makes grids.
_TRANSFORMS = (
    kv_heads, weights, cache, context, batch, static_cache, pages, in_place, splits, casts,
    precision, experts, block_size, speculation, merging,
)  # fmt: skip

# Path -> the file that reads it.
TRANSFORMABLE: Mapping[str, ModuleType] = MappingProxyType(
    {path: transform for transform in _TRANSFORMS for path in transform.PARAMETERS}
)


def split(settings: Mapping[str, _Value]) -> tuple[dict[str, _Value], dict[str, _Value]]:
    """Return the settings (or axes) of the machine, and those of the workload.

    Examples
    --------
    >>> split({"units.count": 66, "workload.context": 8192})
    ({'units.count': 66}, {'workload.context': 8192})
    """
    workload = {path: value for path, value in settings.items() if path in TRANSFORMABLE}
    return {path: v for path, v in settings.items() if path not in workload}, workload


def transformed(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with some settings changed.

    Parameters
    ----------
    w : Workload
    settings : mapping of str to float
        Value of each dotted path below ``workload.`` that changes.

    Returns
    -------
    Workload
        A new one, or the same if nothing changes.

    Raises
    ------
    InputError
        An unknown path, a value out of bounds, or a workload that a setting does not apply to.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> changes(transformed(w, {"workload.kv_bits": 8, "workload.context": 4096}))
    {'workload.kv_bits': 8.0, 'workload.context': 4096.0}
    """
    for path in settings:
        if path not in TRANSFORMABLE:
            raise InputError("not a setting of a workload", value=path,
                             allowed=", ".join(TRANSFORMABLE))  # fmt: skip
    refuse_late(w, settings)
    for transform in _TRANSFORMS:
        own = {path: v for path, v in settings.items() if path in transform.PARAMETERS}
        w = transform.transform(w, own) if own else w
    return w


def applies(w: Workload, path: str) -> bool:
    """Return whether a workload has what a setting changes.

    Examples
    --------
    >>> import npusim as ns
    >>> applies(ns.load_workload("paddleocr_vl_prefill"), "workload.context")
    False
    """
    return bool(TRANSFORMABLE[path].touched(w).any())


def needs(path: str) -> str:
    """Return what a workload must have for a setting, in words."""
    return str(TRANSFORMABLE[path].NEEDS)


def present(w: Workload, path: str) -> float | None:
    """Return the setting that describes most of a workload as it is, None if none does.

    Examples
    --------
    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> present(w, "workload.weight_bits"), present(w, "workload.context")
    (16.0, 675.0)
    """
    value = float(TRANSFORMABLE[path].present(w)[path]) if applies(w, path) else math.nan
    return None if math.isnan(value) else value


def limits(paths: Collection[str]) -> list[str]:
    """Return what the changes that some settings ask for leave out, a sentence each."""
    found = dict.fromkeys(TRANSFORMABLE[path] for path in paths)
    return [f"{', '.join(p for p in t.PARAMETERS if p in paths)}: {t.LIMIT}" for t in found]


def unmeasured(w: Workload) -> tuple[str, ...]:
    """Return in which ways a changed workload lies outside of what any measurement holds."""
    found = dict.fromkeys(TRANSFORMABLE[path].UNMEASURED for path in changes(w))
    return tuple(text for text in found if text)


def refuse_changed(w: Workload, what: str) -> None:
    """Refuse what needs the measured times of a workload if it has been changed.

    Raises
    ------
    InputError
        The workload is not what was traced.
    """
    record = changes(w)
    if record:
        raise InputError(f"{what} needs what was measured, but the workload is changed",
                         file=w.name, value=told(record))  # fmt: skip
