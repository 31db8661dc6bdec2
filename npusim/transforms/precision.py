"""Precision: products compute in another type, and what they read comes in it.

``workload.arithmetic`` names the type. Bytes and peaks follow from its width, so fp8_e4m3 and
fp8_e5m2 are one here (fp8): they differ in range against resolution, not in speed. With b bits in
it and o bits in the type traced, a product m x n x k

    reads weights   n k x (stored + 16 / g) / 8 + scales [B], stored = workload.weight_bits, else b
    reads inputs    X x b / o + scales [B]
    writes          as many bytes as before: it accumulates wide and rounds to the type traced
    computes        as many FLOP as before, at the rate of its type (matrix.TYPE.rate)

``workload.scales`` says what shares a scale, of weights and of inputs alike:

    tensor     one of each, known ahead: no bytes that count, no look at the numbers
    channel    4 B a column of weights, 4 B a row of inputs
    group      2 B for g weights in a row (workload.weight_group), 4 B for g inputs

Scales of inputs that belong to a row or to groups of it follow from the largest number in them, so
a row has to be read before it can be written: a reduction. Somebody has to narrow the inputs, once
for all products that read the same (queries, keys and values do), and ``workload.quantize`` says
who. ``kernel``: one kernel in front, which reads X and writes what the products read; a cast where
scales are known, a kernel of the make of a norm where they are not. ``native``: what wrote X
writes it narrow, at no time; it writes X too if anything else reads it. So a step with ``native``
against one with ``kernel`` is what hardware that stores any type is worth to such a step.

Three settings are enough: who multiplies, what a scale covers, who narrows. The rest is there
already: bits of stored weights below those of the type (4 beside fp8) are widened as
`npusim.models.conversion` says, and bf16 with ``workload.weight_bits`` 4 is weights alone.

Products in fp32 stay (routers are kept wide for a reason), as do those that are narrower than the
type asked for, attention, embeddings and norms. Which kernel wrote what a product reads is told by
`npusim.reuse.stream`, from sizes and order.

Source: per-tensor, per-row and grouped scales as `torch._scaled_mm` takes them and as in
DeepSeek-AI, "DeepSeek-V3 technical report", 2024, arXiv:2412.19437, section 3.3; formats in
P. Micikevicius et al., "FP8 formats for deep learning", 2022, arXiv:2209.05433; one kernel that
narrows as in vllm-project/vllm (``dynamic_per_token_scaled_fp8_quant_kernel``).

Left out: what it does to the answers; layers that a recipe keeps wide; scales of groups along the
result, which a product applies between its k-steps; accumulation in fp8, which libraries for Hopper
correct on vector units (measured: 1 to 11 % of a product); the time that a kernel takes
longer if it narrows what it writes.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Designs
from npusim.errors import InputError
from npusim.reuse.stream import DATA, stream
from npusim.transforms import weights
from npusim.transforms.record import changed, changes, checked, lacks
from npusim.transforms.rows import Kernel, Row, Rows, kernel_row
from npusim.transforms.widths import own_bits
from npusim.units import CHOICES
from npusim.workload import Workload

Array = NDArray[np.float64]

ARITHMETIC, SCALES, QUANTIZE = "workload.arithmetic", "workload.scales", "workload.quantize"
PARAMETERS = (ARITHMETIC, SCALES, QUANTIZE)
NEEDS = "matrix product that reads weights in 16 bits or fewer"
LIMIT = "a library's kernels in the type are as good as those of the type traced"
UNMEASURED = "products in another type than traced"

_TYPES = ("bf16", "fp16", "fp8", "int8", "int4")  # of products that change
_BITS = {"bf16": 16.0, "fp16": 16.0, "fp8": 8.0, "int8": 8.0, "int4": 4.0}
_TENSOR, _CHANNEL, _GROUP = range(3)
_SCALE = 4.0  # bytes of a scale of a row or column
_TRACED, _NATIVE = 0, 1

_CAST = Kernel("quantize", "quantize", "cast", "unrolled", 512)
_OF_ROWS = Kernel("quantize_rows", "quantize", "reduction", "rms_norm", 1, 256)


def dtype_of(arithmetic: float) -> str:
    """Return the type that a choice of ``workload.arithmetic`` computes in, "" for the one traced.

    Examples
    --------
    >>> [dtype_of(i) for i in range(7)]
    ['', 'bf16', 'fp16', 'fp8', 'fp8', 'int8', 'int4']
    """
    name = CHOICES["arithmetic"][round(arithmetic)]
    return "" if name == "traced" else name.split("_")[0]


def transform(w: Workload, settings: Mapping[str, float]) -> Workload:
    """Return a workload whose products compute as some of `PARAMETERS` say.

    Parameters
    ----------
    w : Workload
    settings : mapping of str to float
        Places in `npusim.units.CHOICES`. By default scales are of groups where weights have them,
        else of tensors, and a kernel narrows.

    Returns
    -------
    Workload
        ``meta["transforms"]`` says what was changed. Measured times stay what they were, and are
        zero for what was not traced.

    Raises
    ------
    InputError
        No such products, groups without a size, weights stored wider than the type, or products
        that compute in another type than traced already.

    Examples
    --------
    127 products of a decode step have 73 inputs, and each gets a kernel that narrows it:

    >>> import npusim as ns
    >>> w = ns.load_workload("paddleocr_vl_decode")
    >>> fp8 = transform(w, {ARITHMETIC: 3, QUANTIZE: 0})
    >>> (len(fp8) - len(w)) // 3, len(transform(w, {ARITHMETIC: 3, QUANTIZE: 1})) - len(w)
    (73, 0)
    """
    asked, before = checked(settings), changes(w)
    if not touched(w).any():
        raise lacks(w, NEEDS, next(iter(asked)))
    now = present(w)
    if all(now[path] == value for path, value in asked.items()):
        return w
    if ARITHMETIC in before or SCALES in before:
        raise InputError("its products are changed already", file=w.name, place=next(iter(asked)),
                         hint="change the workload as it was traced")  # fmt: skip
    full = {**now, **asked}
    products = _Products(w, dtype_of(full[ARITHMETIC]), _scales(w, full, asked))
    counts = bool(products.dtype), products.has_scales.any(), products.narrows.any()
    used = {path: full[path] for path, does in zip(PARAMETERS, counts, strict=True) if does}
    if not used:
        return w
    rows = Rows(w, ARITHMETIC)
    for i, at in enumerate(products.at.tolist()):
        rows.change(at, products.row(i))
    _narrow(rows, w, products, round(full[QUANTIZE]))
    return changed(rows.workload(), used, {})


def touched(w: Workload) -> NDArray[np.bool_]:
    """Return which operations are products whose type can change, shape (K,)."""
    return weights.touched(w) & w.mask("dtype", *_TYPES)


def present(w: Workload) -> dict[str, float]:
    """Return the settings that describe products as they are."""
    before = changes(w)
    scales = _GROUP if before.get(weights.GROUP) else _TENSOR
    return {ARITHMETIC: before.get(ARITHMETIC, float(_TRACED)),
            SCALES: before.get(SCALES, float(scales)),
            QUANTIZE: before.get(QUANTIZE, 0.0)}  # fmt: skip


def refuse_without_rate(w: Workload, designs: Designs) -> None:
    """Refuse a type that was asked for and that the matrix unit of a machine does not compute in.

    Raises
    ------
    InputError
        ``workload.arithmetic`` names a type without ``matrix.TYPE.rate``.
    """
    dtype = dtype_of(changes(w).get(ARITHMETIC, _TRACED))
    if dtype and f"matrix.{dtype}.rate" not in designs:
        known = [t for t in _TYPES if f"matrix.{t}.rate" in designs]
        raise InputError(f"its matrix unit does not compute in {dtype}", file=designs.base.name,
                         place=ARITHMETIC, allowed=f"traced, or what is {' or '.join(known)}",
                         hint=f"--set matrix.{dtype}.rate=...")  # fmt: skip


def _scales(w: Workload, full: Mapping[str, float], asked: Mapping[str, float]) -> int:
    """Return what shares a scale, if weights have groups just where it is groups."""
    scales, group = round(full[SCALES]), changes(w).get(weights.GROUP, 0.0)
    if SCALES in asked and (scales == _GROUP) != (group > 0):
        other = "groups" if group else "no groups"
        raise InputError(f"weights have {other}", file=w.name, place=SCALES,
                         value=CHOICES["scales"][scales],
                         hint=f"set {weights.GROUP} for group alone")  # fmt: skip
    return scales


def _stored_in(w: Workload, bits: float) -> Array:
    """Return what each operation reads of weights in so many bits, (K,) [B]."""
    return weights.transform(w, {weights.BITS: bits})["read_weight"]


class _Products:
    """What changes of the P products that compute in a type; "" leaves them in theirs."""

    def __init__(self, w: Workload, dtype: str, scales: int) -> None:
        before, which = changes(w), touched(w)
        own, bits = own_bits(w, which), _BITS.get(dtype, np.inf)
        if dtype:
            which[which] = own >= bits
            own = own[own >= bits]
        if not which.any():
            raise lacks(w, f"product in a type as wide as {dtype}", ARITHMETIC)
        if dtype and before.get(weights.BITS, 0.0) > bits:
            raise InputError("weights are stored wider than the type they are computed in",
                             file=w.name, place=weights.BITS, value=before[weights.BITS],
                             allowed=f"up to {bits:g}")  # fmt: skip
        self.dtype, self._scales, self._group = dtype, scales, before.get(weights.GROUP, 0.0)
        self.at = np.flatnonzero(which)
        self._k = np.maximum(w["k"][which].astype(np.float64), 1.0)
        self._types = w.text("dtype")[which]
        computed = np.minimum(own, bits)
        stored = np.minimum(before.get(weights.BITS, np.inf), computed)
        self.has_scales = stored < own
        self.narrows = computed < own
        self.weights = self._weights(w, which, own, stored)
        self.given = w["read_activation"][which]  # bytes of inputs as they are
        self.share = computed / own  # of these that is left
        self.input_scales = np.where(self.narrows, self._input_scales(self.given * 8 / own), 0.0)

    def _weights(self, w: Workload, which: NDArray[np.bool_], own: Array, stored: Array) -> Array:
        """Return the bytes of weights, with scales and bias, (P,)."""
        in_8, in_16 = (_stored_in(w, bits)[which] for bits in (8.0, 16.0))
        columns = (in_16 - in_8) / self._k  # of all matrices that are read
        narrow = np.where(stored < own, _stored_in(w, float(stored.min()))[which],
                          w["read_weight"][which])  # fmt: skip
        scales = _SCALE * columns if self._scales == _CHANNEL else 0.0
        found: Array = narrow + np.where(self.has_scales, scales, 0.0)
        return found

    def _input_scales(self, count: Array) -> Array:
        """Return the bytes of scales of so many numbers, (P,)."""
        if self._scales == _TENSOR:
            return np.zeros(len(count))
        each = np.ceil(self._k / self._group) if self._scales == _GROUP else 1.0
        scales: Array = _SCALE * each * count / self._k
        return scales

    def row(self, i: int) -> Row:
        """Return what changes of a product."""
        return {"dtype": self.dtype or self._types[i], "origin": "extrapolated",
                "read_weight": self.weights[i], "read_activation": self.narrow(i)}  # fmt: skip

    def narrow(self, i: int) -> float:
        """Return the bytes of its inputs with their scales [B]."""
        return float(self.given[i] * self.share[i] + self.input_scales[i])

    def kernel(self, i: int) -> Row:
        """Return the kernel that narrows its inputs."""
        size = int(self._k[i])
        numbers = self.given[i] * 8.0 / _BITS[self._types[i]]
        rows = max(round(numbers / size), 1)
        is_known = self._scales == _TENSOR
        made, flop = (_CAST, numbers) if is_known else (_OF_ROWS, 2.0 * numbers)
        moved = {"read_activation": self.given[i], "write_activation": self.narrow(i)}
        row = kernel_row(made, self.dtype, rows, size, flop=flop, **moved)
        blocks = row["blocks"] if is_known else rows
        return {**row, "kernel": made.function, "library": "unknown", "blocks": blocks}


@dataclass
class _Tensor:
    """Something that a product reads: who wrote how much of it, and who reads it."""

    writer: int
    size: float
    readers: set[int] = field(default_factory=set)


def _narrow(rows: Rows, w: Workload, products: _Products, who: int) -> None:
    """Put in what narrows the inputs of products: kernels in front, or in what writes them."""
    number = {at: i for i, at in enumerate(products.at.tolist()) if products.narrows[i]}
    if who == _NATIVE:
        written = w["write_activation"].copy()
        for tensor in _tensors(w, number).values():
            if tensor.writer < 0:  # before the step: it is narrow already
                continue
            first = number[min(tensor.readers & number.keys())]
            part = tensor.size * products.share[first] + products.input_scales[first]
            alone = tensor.readers <= number.keys()
            written[tensor.writer] += part - (tensor.size if alone else 0.0)
        for at in np.flatnonzero(written != w["write_activation"]).tolist():
            row: Row = {"write_activation": written[at], "origin": "extrapolated"}
            rows.change(at, row)
        return
    seen = set()
    for at, key in _inputs(w, number).items():
        if key not in seen:
            seen.add(key)
            rows.insert(at, [products.kernel(number[at])])


# A tensor: the step, its memory, and the operation that wrote it last (-1: none of the step).
_Key = tuple[int, int, int]


def _tensors(w: Workload, products: Mapping[int, int]) -> dict[_Key, _Tensor]:
    """Return what some products read, each once."""
    found: dict[_Key, _Tensor] = {}
    for key, size, reader in _reads(w):
        found.setdefault(key, _Tensor(key[2], size)).readers.add(reader)
    return {key: t for key, t in found.items() if t.readers & products.keys()}


def _inputs(w: Workload, products: Mapping[int, int]) -> dict[int, tuple[_Key, ...]]:
    """Return what each of some products reads, in order; equal where they read the same."""
    found: dict[int, list[_Key]] = defaultdict(list)
    for key, _, reader in _reads(w):
        if reader in products:
            found[reader].append(key)
    return {at: tuple(found[at]) for at in sorted(found)}


def _reads(w: Workload) -> list[tuple[_Key, float, int]]:
    """Return the activations that operations read: which, bytes of it as written, and by whom."""
    found = []
    names = list(DATA)
    read, write = names.index("read_activation"), names.index("write_activation")
    kinds = w.text("kind")
    for step in range(len(w.steps)):
        at = np.flatnonzero(w["step"] == step)
        s = stream(kinds[at].tolist(), {name: w[name][at] for name in names}, 1)
        last: dict[int, tuple[int, float]] = {}
        columns = (s.block, s.operation, s.data, s.moved)
        for block, i, data, moved in zip(*(c.tolist() for c in columns), strict=True):
            if data == write:
                last[block] = int(at[i]), moved
            elif data == read:
                writer, size = last.get(block, (-1, moved))
                found.append(((step, block, writer), size, int(at[i])))
    return found
