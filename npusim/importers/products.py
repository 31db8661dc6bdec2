"""Rules for matrix products, convolutions and attention.

The second operand of a linear layer is weight; keys and values of attention with one query are
KV cache.
"""

from __future__ import annotations

import math
from dataclasses import replace

from npusim.importers.tensors import Call, Tensor
from npusim.importers.work import Launch, Rule, Work

GEMV_ROWS = 1


def _product(
    call: Call,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    *,
    transposed: bool = False,
    weight: bool = False,
    result_bytes: int | None = None,
) -> Work | None:
    """Return a x b (+ bias); b may be stored transposed.

    b is weight inside a linear layer, where the caller says so, and where a bias is added along
    the rows, as only a layer does.
    """
    if len(a.shape) < 2 or len(b.shape) < 2:
        return None
    *outer, m, k = a.shape
    n = b.shape[-2] if transposed else b.shape[-1]
    has_bias = bias is not None and len(bias.shape) == 1
    is_weight = weight or transposed or has_bias or call.within("aten::linear") is not None
    batch = math.prod(outer)
    if is_weight:  # leading dimensions of the input are rows of one product
        batch, m = 1, m * batch
    operand = b.nbytes + (bias.nbytes if bias is not None else 0.0)
    return Work(
        "gemv" if m <= GEMV_ROWS and batch == 1 else "gemm", a.dtype,
        batch=batch, m=m, n=n, k=k, flop=2.0 * batch * m * n * k,
        read_weight=operand if is_weight else 0.0,
        read_activation=a.nbytes + (0.0 if is_weight else operand),
        write_activation=float(batch * m * n * (result_bytes or a.itemsize)),
    )  # fmt: skip


def _mm(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    return _product(call, t[0], t[1], None) if len(t) >= 2 else None


_OUT_DTYPE = 6  # position of `out_dtype` among the inputs of _scaled_mm
_SCALAR_TYPE_BYTES = {5: 2, 6: 4, 15: 2}  # half, float, bfloat16 in PyTorch's numbering


def _scaled_mm(call: Call, _: Launch) -> Work | None:
    """Return a product of FP8 operands; its result is wider, bf16 unless the call says so."""
    t = call.tensors
    wide = _SCALAR_TYPE_BYTES.get((call.numbers(_OUT_DTYPE) or [15])[0], 2)
    return _product(call, t[0], t[1], None, weight=True, result_bytes=wide) if len(t) > 1 else None


def _addmm(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    return _product(call, t[1], t[2], t[0]) if len(t) >= 3 else None


def _linear(call: Call, _: Launch) -> Work | None:
    t = call.tensors
    bias = t[2] if len(t) >= 3 else None
    return _product(call, t[0], t[1], bias, transposed=True) if len(t) >= 2 else None


def _grouped_mm(call: Call, _: Launch) -> Work | None:
    """Return a grouped product: rows of a spread over the matrices of b.

    How many matrices are hit is not recorded. With the router's top-k in sight (`with_router`)
    it is the expectation for a uniform router; without, every row is taken to hit its own.
    """
    t = call.tensors
    if len(t) < 2 or len(t[0].shape) != 2 or len(t[1].shape) != 3:
        return None
    (m, k), (groups, *_inner, n) = t[0].shape, t[1].shape
    hit = min(m, groups)
    return Work("grouped_gemm", t[0].dtype, batch=1, m=m, n=n, k=k, groups=groups,
                flop=2.0 * m * n * k, read_weight=hit * t[1].nbytes / max(groups, 1),
                read_activation=t[0].nbytes,
                write_activation=float(m * n * t[0].itemsize))  # fmt: skip


def with_router(work: Work, tokens: int, chosen: int) -> Work:
    """Return a grouped product whose weights are those a uniform router is expected to hit.

    With `tokens` tokens that each choose `chosen` of E experts, the expected number of experts
    hit is ``E (1 - (1 - chosen/E)^tokens)``.

    Examples
    --------
    >>> one = Work("grouped_gemm", groups=64, m=6, read_weight=6.0)
    >>> round(with_router(one, tokens=1, chosen=6).read_weight, 6)
    6.0
    """
    hit_before = min(work.m, work.groups)
    if not 0 < chosen <= work.groups or tokens * chosen != work.m:
        return work
    hit = work.groups * (1 - (1 - chosen / work.groups) ** tokens)
    return replace(work, read_weight=work.read_weight * hit / hit_before)


_MAY_BE_TRANSPOSED = ("aten::convolution", "aten::_convolution")


def _conv(padding: int, stride: int, dilation: int) -> Rule:
    """Return the rule of a convolution whose settings stand at these positions."""

    def rule(call: Call, _: Launch) -> Work | None:
        t = call.tensors
        if len(t) < 2 or len(t[0].shape) != len(t[1].shape) or len(t[0].shape) < 3:
            return None
        x, w = t[0], t[1]
        size, kernel = x.shape[2:], w.shape[2:]

        def setting(position: int, default: int) -> list[int]:
            given = call.numbers(position) or [default]
            return given * len(size) if len(given) == 1 else given

        p, s, d = setting(padding, 0), setting(stride, 1), setting(dilation, 1)
        transposed = "True" in call.values[6:7] and call.name in _MAY_BE_TRANSPOSED
        if min(len(p), len(s), len(d)) < len(size) or 0 in s or transposed:
            return None
        out = [(size[i] + 2 * p[i] - d[i] * (kernel[i] - 1) - 1) // s[i] + 1
               for i in range(len(size))]  # fmt: skip
        pixels = x.shape[0] * math.prod(out)
        if pixels <= 0:
            return None
        depth = math.prod(w.shape[1:])
        return Work("conv", x.dtype, batch=1, m=pixels, n=w.shape[0], k=depth,
                    flop=2.0 * pixels * w.shape[0] * depth, read_weight=w.nbytes,
                    read_activation=x.nbytes,
                    write_activation=float(pixels * w.shape[0] * x.itemsize))  # fmt: skip

    return rule


_SDPA = "aten::scaled_dot_product_attention"
_HEADS_SECOND_TO_LAST = ("flash_attn::", "aten::_flash_attention", "aten::_efficient_attention")
# Position of the flag that makes attention causal among the inputs of each operator.
_CAUSAL = {
    _SDPA: 5,
    "aten::_scaled_dot_product_flash_attention": 4,
    "aten::_scaled_dot_product_cudnn_attention": 6,
    "aten::_scaled_dot_product_efficient_attention": 6,
    "aten::_flash_attention_forward": 8,
    "aten::_cudnn_attention_forward": 10,
}


def _attention(call: Call, _: Launch) -> Work | None:
    """Return fused attention; keys and values are KV cache when there is one query."""
    outer = call.within(_SDPA)
    source = outer or call
    t = source.tensors
    if len(t) < 3 or any(len(x.shape) != 4 for x in t[:3]):
        return None
    q, key, value = t[:3]
    swap = outer is None and call.name.startswith(_HEADS_SECOND_TO_LAST)
    batch, heads, queries, size = _heads_first(q.shape, swap)
    kv_heads, length = _heads_first(key.shape, swap)[1:3]
    flag = _CAUSAL.get(source.name, len(source.values))
    pairs = queries * length
    if source.values[flag : flag + 1] == ("True",):  # query i sees the first i + 1 keys
        seen = min(queries, length)
        pairs = seen * (seen + 1) // 2 + (queries - seen) * length
    stored = key.nbytes + value.nbytes
    is_cache = queries == 1 and length > 1
    mask = sum(x.nbytes for x in t[3:4]) if outer is not None else 0.0
    return Work("attention", q.dtype, batch=batch, m=queries, n=length, k=size, heads=heads,
                kv_heads=kv_heads, flop=4.0 * batch * heads * pairs * size,
                read_kv=stored if is_cache else 0.0,
                read_activation=q.nbytes + mask + (0.0 if is_cache else stored),
                write_activation=q.nbytes)  # fmt: skip


def _heads_first(shape: tuple[int, ...], swap: bool) -> tuple[int, ...]:
    return (shape[0], shape[2], shape[1], shape[3]) if swap else shape


_conv_cudnn, _conv_miopen, _conv_aten = _conv(2, 3, 4), _conv(3, 4, 5), _conv(4, 3, 5)

RULES: dict[str, Rule] = {
    "aten::mm": _mm,
    "aten::bmm": _mm,
    "aten::matmul": _mm,
    "aten::_scaled_mm": _scaled_mm,
    "aten::addmm": _addmm,
    "aten::baddbmm": _addmm,
    "aten::linear": _linear,
    "aten::_grouped_mm": _grouped_mm,
    "aten::cudnn_convolution": _conv_cudnn,
    "aten::miopen_convolution": _conv_miopen,
    "aten::convolution": _conv_aten,
    "aten::_convolution": _conv_aten,
    "aten::scaled_dot_product_attention": _attention,
    "aten::_scaled_dot_product_cudnn_attention": _attention,
    "aten::_scaled_dot_product_flash_attention": _attention,
    "aten::_scaled_dot_product_efficient_attention": _attention,
    "aten::_cudnn_attention_forward": _attention,
    "aten::_flash_attention_forward": _attention,
    "aten::_efficient_attention_forward": _attention,
    "flash_attn::_flash_attn_forward": _attention,
}
