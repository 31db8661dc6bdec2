"""What Ascend calls its operators, and how a matrix product's shapes are read.

The tables are data: first match wins. Type names carry versions (``MatMulV2``, ``MatMulV3``).
"""

from __future__ import annotations

import math
import re
from functools import lru_cache

from npusim.importers import kernel_names
from npusim.importers.work import Work

_KINDS = (
    (r"hcom.*|hccl.*|(mc2)?(all|reduce)_?(reduce|gather|scatter|to_?all).*|broadcast__.*",
     "collective"),
    (r"(matmul|groupedmatmul|moe).*(all_?reduce|reduce_?scatter|combine|dispatch).*", "fused"),
    (r"all_?gather.*matmul.*", "fused"),
    (r"(quant|weightquant)?groupedmatmul.*", "grouped_gemm"),
    (r"(transpose|quant|weightquant|transquant)?(batch)?matmul.*|gemm.*|fullyconnection.*", "gemm"),
    (r"(depthwise)?conv[23]d.*", "conv"),
    (r".*(flash|paged|infer|incre|prompt|ring|laser|latent|ragged|multi_?head)\w*attention.*|mla.*",
     "attention"),
    (r".*(rope|rotary)\w*", "rope"),
    (r"\w*(rms|layer|group|batch|deep|instance)norm\w*", "norm"),
    (r"moegatingtopk\w*|topk\w*", "topk"),
    (r"log_?softmax\w*|\w*softmax\w*", "softmax"),
    (r"\w*sort", "sort"),
    (r"swiglu\w*|(fast|quick)?ge?lu\w*|silu|swish\w*|sigmoid|relu\w*|tanh|hardswish|elu|mish",
     "activation"),
    (r"cast\w*|(ascend|dynamic|ascendanti)?(de)?quant\w*", "cast"),
    (r"transpose\w*|transdata|asstrided|viewcopy|tensormove|identity|slice\w*|stridedslice\w*"
     r"|split\w*|pad(v\d|d)?|tile\w*|broadcast(to)?d?|expand\w*|reshape|contiguous|inplacecopy|copy"
     r"|flip|reverse\w*|roll", "copy"),
    (r"concat\w*|pack|stack", "cat"),
    (r"gather\w*|embedding\w*|index(select)?|moetokenpermute|moeinitrouting\w*", "gather"),
    (r"scatter\w*|indexput\w*|inplaceindex\w*|\w*reshapeandcache\w*|moetokenunpermute"
     r"|moefinalizerouting\w*|kvcache\w*", "scatter"),
    (r"reduce\w*|arg(max|min)\w*|lpnorm\w*|histogram\w*|bincount", "reduction"),
    (r"cumsum\w*|cumprod\w*|nonzero\w*|unique\w*", "scan"),
    (r"zeros\w*|ones\w*|fill\w*|range\w*|arange|eye|linspace\w*", "fill"),
    (r"mem_?set|atomic(addr)?clean|zerosinplace", "memset"),
    (r"memcpy\w*|sdma\w*|pcie\w*", "memcpy"),
    (r"adds?|addn|addcmul|addcdiv|axpy\w*|subs?|muls?|div|realdiv|floordiv|pow\w*|exp\w*|log\d?p?"
     r"|sqrt|rsqrt|reciprocal|neg|abs|sin|cos|floor|ceil|round|sign|square|maximum|minimum|equal"
     r"|notequal|less(equal)?|greater(equal)?|select\w*|where|maskedfill\w*|logical\w*|bitwise\w*"
     r"|clip\w*|triu|tril|floormod|remainder\w*|isnan|isinf|isfinite|erf|dropout\w*|lerp",
     "pointwise"),
)  # fmt: skip
_LONGEST = 200  # no type is longer, and patterns with two wildcards are slow on text that is
_COMPILED = tuple((re.compile(pattern), kind) for pattern, kind in _KINDS)
_PLAIN_PRODUCT = re.compile(r"(batch)?matmul(v\d|common)?", re.IGNORECASE)
_DTYPES = {
    "float16": ("fp16", 2), "fp16": ("fp16", 2), "half": ("fp16", 2), "bf16": ("bf16", 2),
    "bfloat16": ("bf16", 2), "float": ("fp32", 4), "float32": ("fp32", 4), "fp32": ("fp32", 4),
}  # fmt: skip
_SHAPE = re.compile(r"[0-9]{1,9}(,[0-9]{1,9}){0,7}")


@lru_cache(maxsize=100_000)
def kind(operator_type: str, name: str) -> str:
    """Return the kind of an operator, from its type or, without one, from its kernel's name.

    Examples
    --------
    >>> kind("MatMulV2", "x"), kind("FlashAttentionScore", "x"), kind("AddRmsNorm", "x")
    ('gemm', 'attention', 'norm')
    >>> kind("N/A", "aclnnMatmul_MatMulCommon_MatMulV2"), kind("MyOwn", "my_own")
    ('gemm', 'unknown')
    """
    for text in (operator_type, name.rpartition("_")[2]):
        short = text[:_LONGEST].lower()
        found = next((k for p, k in _COMPILED if p.fullmatch(short)), None)
        if found is not None:
            return found
    return kernel_names.kind(name)


def _shapes(text: str) -> list[tuple[int, ...]] | None:
    """Return shapes of a list like ``"1,4096;4096,512;"``, empty ones left out.

    Examples
    --------
    >>> _shapes('"1,4096;4096,512;"'), _shapes('"[2,8]"'), _shapes("N/A")
    ([(1, 4096), (4096, 512)], [(2, 8)], None)
    """
    found = []
    for part in text.strip("\"' \t").split(";"):
        clean = part.strip("[]() \"'").replace(" ", "")
        if not clean:
            continue
        if not _SHAPE.fullmatch(clean):
            return None
        found.append(tuple(int(n) for n in clean.split(",")))
    return found


def _dtype(text: str, count: int) -> tuple[str, int] | None:
    """Return the one type that the first tensors share, and its bytes, if we know it."""
    names = [n.strip().lower().removeprefix("dt_") for n in text.strip("\"' \t").split(";")]
    known = {_DTYPES.get(n) for n in names[:count]}
    return known.pop() if len(known) == 1 and len(names) >= count else None


def product(
    operator_type: str, shapes: str, dtypes: str, formats: str, result: tuple[str, str]
) -> Work | None:
    """Return the work of a plain matrix product if its columns leave one reading only.

    Parameters
    ----------
    operator_type : str
    shapes, dtypes, formats : str
        Of the inputs, separated by semicolons.
    result : tuple of str
        Shapes and types of the outputs, empty where the file has none.

    Returns
    -------
    Work or None
        None for anything packed, quantised, transposed in more than one way that would fit, or
        with a third operand that is not a bias.

    Examples
    --------
    >>> w = product("MatMulV2", "1,64;64,32", "BF16;BF16", "ND;ND", ("1,32", "BF16"))
    >>> w.kind, w.m, w.n, w.k, w.flop, w.read_activation, w.write_activation
    ('gemv', 1, 32, 64, 4096.0, 4224.0, 64.0)
    """
    inputs, outputs = _shapes(shapes), _shapes(result[0])
    if not _PLAIN_PRODUCT.fullmatch(operator_type) or not inputs or outputs is None:
        return None
    kinds = {f.strip(" \"'\t").upper() for f in formats.split(";")} - {""}
    dtype = _dtype(dtypes, 2)
    wide = _dtype(result[1], 1) if result[1] else dtype
    if kinds - {"ND", "N/A"} or dtype is None or wide is None or len(outputs) > 1:
        return None
    found = _dimensions(inputs, outputs[0] if outputs else None)
    if found is None:
        return None
    batch, m, n, k = found
    bias = math.prod(inputs[2]) if len(inputs) == 3 else 0
    read = (batch * (m * k + k * n) + bias) * dtype[1]
    return Work("gemv" if m == 1 and batch == 1 else "gemm", dtype[0], batch=batch, m=m, n=n, k=k,
                flop=2.0 * batch * m * n * k, read_activation=float(read),
                write_activation=float(batch * m * n * wide[1]))  # fmt: skip


def _dimensions(
    inputs: list[tuple[int, ...]], result: tuple[int, ...] | None
) -> tuple[int, int, int, int] | None:
    """Return batch, m, n and k if just one reading of the operands, transposed or not, fits.

    Examples
    --------
    >>> _dimensions([(8, 16), (16, 4)], None), _dimensions([(4, 16), (8, 16)], (4, 8))
    ((1, 8, 4, 16), (1, 4, 8, 16))
    >>> _dimensions([(16, 16), (16, 4)], None) is None  # the first may be transposed: no matter
    False
    >>> _dimensions([(16, 4), (16, 4)], None) is None  # 16 x 16 or 4 x 4
    True
    """
    if len(inputs) not in (2, 3) or min(len(inputs[0]), len(inputs[1])) < 2:
        return None
    (*outer, a0, a1), (*inner, b0, b1) = inputs[0], inputs[1]
    if outer != inner or (result is not None and list(result[:-2]) != outer):
        return None
    fits = {
        (m, n, k)
        for m, k in ((a0, a1), (a1, a0))
        for j, n in ((b0, b1), (b1, b0))
        if j == k and (result is None or result[-2:] == (m, n))
    }
    if len(fits) != 1:
        return None
    m, n, k = fits.pop()
    if len(inputs) == 3 and inputs[2] not in ((n,), (1, n)):
        return None
    return math.prod(outer), m, n, k
