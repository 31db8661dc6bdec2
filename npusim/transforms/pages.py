"""A paged KV cache: keys and values in pages of so many tokens, found through a table.

With T tokens a page, B sequences, H key heads and n keys of r bytes each (of one head), a layer

    reserves    ceil(n / T) pages of T tokens a sequence: less than one page too much
    attention   reads 4 B ceil(n / T) bytes of its table, and of each page what is filled:
                2 B H (floor(n / T) x s(T r) + s((n mod T) r)) bytes, s(x) = 32 ceil(x / 32)
    new token   goes to its slot: a scatter of B x H rows, keys and values apart, that reads 8 B
                bytes of slots, in place of a concatenation that copies the cache

since memory is read in sectors of 32 bytes, and a page of one head lies in one piece (page, head,
token, number). So there is no amplification where a row is of whole sectors, as 128 numbers of two
bytes are; 72 numbers of two bytes take 144 bytes and, alone in a page, 160.

What a kernel loses by the indirection goes by the kernel and not by the page, and is in no equation
here: the first paged kernel takes 20 to 26 % longer than one for memory in one piece (section 7.1
of arXiv:2309.06180), and FlashAttention is up to 2.85 times as fast as it (section 7.2 of
arXiv:2405.04437). Times are those of a kernel that hides it: take the former as a band above them.

Source: W. Kwon et al., "Efficient memory management for large language model serving with
PagedAttention", SOSP 2023, arXiv:2309.06180; R. Prabhu et al., "vAttention", ASPLOS 2025,
arXiv:2405.04437; sectors as in the Nsight Compute documentation.

Left out: the indirection; what the host does to keep tables; memory that is reserved and not
filled, which no model here runs out of; pages that sequences share.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from npusim.errors import InputError
from npusim.transforms import context
from npusim.transforms.growing import Token, copies_of, token
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.rows import Kernel, Row, Rows, kernel_row
from npusim.workload import Workload

PAGE = "workload.page_tokens"
PARAMETERS = (PAGE,)
NEEDS = context.NEEDS
LIMIT = "paged attention takes as long as any; a measured kernel takes 20 to 26 % longer"
UNMEASURED = "decode attention through a page table, which no measured attention has"

_ENTRY = 4.0  # bytes of a page's number
_SLOT = 8.0  # bytes of a token's slot
_SECTOR = 32.0  # bytes that memory is read in

_WRITE = Kernel("index_elementwise_kernel<128, 4, at::native::index_put_kernel_impl>",
                "aten::index_put_", "scatter", "index", 512)  # fmt: skip


def page_cache(w: Workload, tokens: float) -> Workload:
    """Return a workload whose KV cache lies in pages.

    Parameters
    ----------
    w : Workload
    tokens : float
        Tokens of a page, rounded to a whole number: 0 (not paged) to 1e5.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were, and are
        zero for what was not traced.

    Raises
    ------
    InputError
        Out of bounds, no decode attention, a static cache, or pages of another size.

    Examples
    --------
    One sequence over 674 keys has 43 pages of 16 tokens, and a table of 172 bytes:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> first = int(np.argmax(w.mask("kind", "attention")))
    >>> columns = ("read_kv", "read_activation")
    >>> [[float(v[c][first]) for c in columns] for v in (w, page_cache(w, 16))]
    [[690176.0, 4096.0], [690176.0, 4268.0]]
    """
    return transform(w, {PAGE: tokens})


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload with pages as `PARAMETERS` say."""
    tokens, before = int(np.rint(checked(settings)[PAGE])), changes(w).get(PAGE, 0.0)
    at = np.flatnonzero(touched(w))
    if tokens and "workload.static_cache" in changes(w):
        raise InputError("has a static KV cache, which lies in one piece", file=w.name,
                         place=PAGE)  # fmt: skip
    if not at.size:
        raise lacks(w, NEEDS, PAGE)
    if tokens == before:
        return w
    if before:
        raise InputError("has pages of another size", file=w.name, place=PAGE, value=tokens,
                         allowed=f"{before:g}",
                         hint="change the workload as it was traced")  # fmt: skip
    rows = Rows(w, PAGE)
    for attention in at.tolist():
        rows.change(attention, _attention(w, attention, tokens))
    for attention, copies in copies_of(w).items():
        for copy in copies:
            rows.replace(copy, _write(token(w, attention, copy), int(w["batch"][attention])))
    return changed(rows.workload(), {PAGE: float(tokens)}, {})


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are decode attention, shape (K,)."""
    return context.touched(w)


def present(w: Workload) -> dict[str, float]:
    """Return the tokens of a page, 0 where the cache has none."""
    return {PAGE: changes(w).get(PAGE, 0.0)}


def _attention(w: Workload, row: int, tokens: int) -> Row:
    """Return what changes of an attention: whole sectors of its pages, and their table."""
    keys, batch, heads = (max(int(w[c][row]), 1) for c in ("n", "batch", "heads"))
    pieces = 2.0 * batch * (int(w["kv_heads"][row]) or heads)  # of keys and of values
    key = float(w["read_kv"][row]) / keys / pieces
    full, rest = divmod(keys, tokens)
    filled = full * _sectors(tokens * key) + _sectors(rest * key)
    table = _ENTRY * batch * -(-keys // tokens)
    return {"read_kv": pieces * filled, "origin": "extrapolated",
            "read_activation": w["read_activation"][row] + table}  # fmt: skip


def _sectors(size: float) -> float:
    """Return the bytes of the sectors that something lies in which begins with one [B].

    Examples
    --------
    >>> _sectors(144.0), _sectors(256.0)
    (160.0, 256.0)
    """
    return _SECTOR * float(np.ceil(size / _SECTOR - 1e-9))


def _write(new: Token, batch: int) -> Row:
    """Return what puts the keys (values) of one token of each sequence into their pages."""
    return kernel_row(_WRITE, new.dtype, new.rows, new.size, write_kv=new.written,
                      read_activation=new.read + _SLOT * max(batch, 1))  # fmt: skip
