"""Short names of kernels that a person can read, none of them standing for two kernels.

The names of profilers are long and in six dialects (demangled C++ of several compilers, names cut
short, generated code). The tables are data: first match wins; what no rule knows keeps the name of
its function. Kernels that would share a label are told apart by what differs in their names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

from npusim.importers.kernel_names import library as library_of

# pattern -> label; the label takes the pattern's named groups
_RULES = tuple((re.compile(pattern), text) for pattern, text in (
    (r"nvjet_(?:sm\d+_)?\w+?_(?P<tile>\d+x\d+)_", "nvjet {tile} GEMM"),
    (r"xmma_(?P<way>fprop|dgrad|wgrad)_.*tilesize(?P<tile>[\dx]+)",
     "xmma {tile} convolution {way}"),
    (r"xmma_(?:\w*?)gemm_.*tilesize(?P<tile>[\dx]+)", "xmma {tile} GEMM"),
    (r"cutlass\w*tensorop\w*?(?P<way>fprop|dgrad|wgrad)\w*?_(?P<tile>\d+x\d+)",
     "convolution {way} {tile}"),
    (r"cutlass_(?:\d+_)?(?P<unit>wmma)?\w*?gemm(?:_(?P<then>relu|gelu))?\w*?_(?P<tile>\d+x\d+)",
     "GEMM {tile} {unit} {then}"),
    (r"(?:volta|turing|ampere|maxwell|sm\d+)_(?P<name>\w*?gemm)_(?P<tile>\d+x\d+)",
     "{name} {tile}"),
    (r"cudnn_(?:infer_|train_)?\w*?(?P<way>winograd_)?(?P<tile>\d+x\d+)_(?!.*sdpa).*_v\d",
     "convolution {way} {tile}"),
    (r"Cijk_\w*?MT(?P<tile>\d+x\d+x\d+)", "GEMM {tile}"),
    (r"igemm_(?P<way>fwd|bwd|wrw)_\w*?_bt(?P<tile>[\dx]+)", "convolution {way} {tile}"),
    (r"splitK_?reduce", "split-K reduce"),
    (r"reduce_1Block", "dot product reduce"),
    (r"\bdot_kernel", "dot product"),
    (r"gemmk1_kernel", "GEMM k=1"),
    (r"gemv|cublasGemvParams", "GEMV"),
    (r"splitkv_combine|lean_reduction", "flash split-KV combine"),
    (r"splitkv", "flash split-KV attention"),
    (r"flash_(?:bwd|bprop)", "flash attention backward"),
    (r"fmha_cutlass[FB]_\w*?_(?P<tile>\d+x\d+)", "memory-efficient attention {tile}"),
    (r"flash_(?:fwd|fprop)|FlashAttn|fmha_v\d", "flash attention"),
    (r"(?:nccl|rccl)(?:Dev)?Kernel_(?P<way>[A-Za-z]+)", "{way}"),
    (r"^triton_(?:poi|red|per|tem|for)_fused_(?P<name>\w+?)(?:_\d+)?$", "fused {name}"),
    (r"multi_tensor_apply_kernel<.*?(?P<name>\w+?)Functor", "multi-tensor {name}"),
    (r"\breduce_kernel<.*?(?P<name>\w+?)(?:Ops|_functor)<", "{name} reduction"),
    (r"\breduce_kernel<.*?(?P<name>\w+?)_kernel(?:_cuda|_impl)", "{name} reduction"),
    (r"index_elementwise_kernel<.*?(?P<name>index\w*?)_kernel_impl", "{name}"),
    (r"_scatter_gather_elementwise_kernel<.*?_cuda_(?P<name>\w+?)_internal_kernel", "{name}"),
))  # fmt: skip

# What an elementwise kernel does, searched for in what is left of its name after the loop.
_LOOP = re.compile(r"(?P<form>vectorized|unrolled)?\w*elementwise_kernel\w*<")
_FORMS = {"vectorized": "vec", "unrolled": "unrolled", None: ""}
_INNER = tuple(re.compile(pattern) for pattern in (
    r"binary_internal::(\w+?)Functor",
    r"\b(Compare\w*?)Functor",
    r"CUDAFunctor\w*?_(\w+?)<",
    r"\b(?!gpu_|Cuda)(\w+?)(?:_cuda|CUDA)?_?[Kk]ernel(?:_cuda|_impl|Impl)?\b",
    r"\blaunch_(\w+?)(?:_scalar)?\(",
    r"\b(?![AB]Unary|Binary)(\w+?)Functor",
    r"\b(\w+?)_cuda\w*",
))  # fmt: skip

_TYPES = {
    "c10::BFloat16": "bf16", "__nv_bfloat16": "bf16", "bfloat16_t": "bf16", "bf16": "bf16",
    "__hip_bfloat16": "bf16", "c10::Half": "fp16", "__half": "fp16", "half_t": "fp16",
    "f16": "fp16", "half": "fp16", "e4m3": "fp8", "e5m2": "fp8", "double": "fp64",
    "float": "fp32", "f32": "fp32", "sgemm": "fp32", "long": "int64", "int": "int32",
    "bool": "bool",
}  # fmt: skip
# Whole numbers stand for sizes and offsets nearly everywhere: only these places tell a type.
_TYPED = re.compile(
    r"(?:Functor\w*|Ops|ReduceOp|lambda)[<(](c10::BFloat16|c10::Half|float|double|long|int|bool)"
    r"\b(?!\)\s*[(#])"
)
_FLOAT = re.compile(
    r"(c10::BFloat16|__nv_bfloat16|__hip_bfloat16|bfloat16_t|bf16|c10::Half|__half|half_t|e4m3|e5m2"
    r"|(?<![a-z])f16|_half\b|double|\bfloat\b|(?<![a-z])f32|sgemm)"
)
_TENSILE = re.compile(r"Cijk_\w+?_(BB|HH|SB|B|H|S|F8)\w*?_")
_TENSILE_TYPES = {"BB": "bf16", "B": "bf16", "HH": "fp16", "H": "fp16", "F8": "fp8"}

# Some profilers lose a bracket of ``<<unnamed>::`` and of ``::<unnamed>::``.
_UNNAMED = re.compile(r"\(anonymous namespace\)::|(?<![A-Za-z0-9])<?unnamed>::|\{anonymous\}::")
_UNNAMED_ARGUMENT = re.compile(r"(?<=[A-Za-z0-9])<unnamed>::")
_READ = 1000  # letters of a name: the patterns backtrack, and nothing that matters comes later
_LONGEST = 60
_SAYS_NOTHING = {
    "at", "native", "anonymous", "namespace", "unnamed", "instance", "std", "detail", "void",
    "const", "unsigned", "kernel",
}  # fmt: skip
_PIECES = re.compile(r"[A-Za-z0-9]+")
_MANGLED_PIECES = re.compile(r"L[a-z](\d+)E")  # template arguments that are numbers
_SHOWN_DIFFERENCES = 4


def label(kernel: str, dtype: str = "unknown", library: str = "") -> str:
    """Return what a kernel does, in which type, and the library it comes from.

    Parameters
    ----------
    kernel : str
        Name as the profiler gives it.
    dtype : str
        The type it computes in, used where the name tells none.
    library : str
        Its library, told from the name by default.

    Examples
    --------
    >>> label("nvjet_sm90_tst_128x64_64x8_1x2_h_bz_bias_TNT", "bf16")
    'nvjet 128x64 GEMM bf16 (cuBLAS)'
    >>> label("void at::native::vectorized_elementwise_kernel<4, at::native::BinaryFunctor<c10::"
    ...       "BFloat16, c10::BFloat16, c10::BFloat16, at::native::binary_internal::MulFunctor<"
    ...       "float> >, std::array<char*, 3ul> >(int)")
    'elementwise mul bf16, vec (ATen)'
    >>> label("my_own_kernel<float>(float*)")
    'my own fp32'
    """
    return _with(_what(kernel), _dtype(kernel, dtype), "", library or library_of(kernel))


def labels(
    kernels: Sequence[str], dtypes: Sequence[str] | None = None,
    libraries: Sequence[str] | None = None,
) -> list[str]:  # fmt: skip
    """Return one label a kernel, different for different names.

    Parameters are those of `label`, one a kernel; the order of the kernels changes nothing but
    numbers given to kernels whose names differ in nothing that can be shown.

    Examples
    --------
    >>> labels(["gemv2T_kernel_val<float, 128, 16>()", "gemv2T_kernel_val<float, 128, 32>()"])
    ['GEMV fp32, variant 16 (cuBLAS)', 'GEMV fp32, variant 32 (cuBLAS)']
    """
    dtypes = dtypes or ["unknown"] * len(kernels)
    libraries = libraries or [""] * len(kernels)
    names = list(dict.fromkeys(kernels))
    about = dict(zip(kernels, zip(dtypes, libraries, strict=True), strict=True))
    short = {k: label(k, *about[k]) for k in names}
    shared = Counter(short.values())
    groups: dict[str, list[str]] = {}
    for k in names:
        if shared[short[k]] > 1:
            groups.setdefault(short[k], []).append(k)
    for group in groups.values():
        for k, variant in zip(group, _differences(group), strict=True):
            dtype, library = about[k]
            found = library or library_of(k)
            short[k] = _with(_what(k), _dtype(k, dtype), variant, found)
    _number(short)
    return [short[k] for k in kernels]


def _number(short: dict[str, str]) -> None:
    """Give numbers to labels that are still shared."""
    taken: set[str] = set()
    for k, text in short.items():
        unique, number = text, 1
        while unique in taken:
            number += 1
            unique = f"{text} #{number}"
        taken.add(unique)
        short[k] = unique


def _with(what: str, dtype: str, variant: str, library: str) -> str:
    head, comma, form = what.partition(",")
    text = f"{head} {dtype}".rstrip() + comma + form
    if variant:
        text += f", variant {variant}"
    return text + (f" ({library})" if library not in ("", "unknown", "runtime") else "")


@lru_cache(maxsize=100_000)
def _what(kernel: str) -> str:
    """Return what a kernel does, without type and library."""
    plain = _plain(kernel)
    if library_of(kernel) == "runtime":
        return plain[:_LONGEST]
    for pattern, text in _RULES:
        if found := pattern.search(plain):
            parts = {key: _words(value or "") for key, value in found.groupdict().items()}
            return " ".join(text.format(**parts).split())
    return _elementwise(plain) or _function(plain)


def _plain(kernel: str) -> str:
    """Return a name without its unnamed namespaces.

    Examples
    --------
    >>> _plain("void at::<unnamed>::f<<unnamed>::T>()"), _plain("void unnamed>::f<unnamed>::T>()")
    ('void at::f<T>()', 'void f<T>()')
    """
    return _UNNAMED.sub("", _UNNAMED_ARGUMENT.sub("<", kernel[:_READ]))


def _elementwise(plain: str) -> str:
    loop = _LOOP.search(plain)
    if loop is None:
        return ""
    rest = plain[loop.end() :]
    found = next((m for p in _INNER if (m := p.search(rest))), None)
    form = _FORMS[loop["form"]]
    return f"elementwise {_words(found[1]) if found else ''}".rstrip() + (f", {form}" * bool(form))


def _words(name: str) -> str:
    """Return a name of code as words.

    Examples
    --------
    >>> _words("_unsafe_view_mul"), _words("NormTwo"), _words("128x64"), _words("GeluCUDA")
    ('unsafe view mul', 'norm two', '128x64', 'gelu CUDA')
    """
    parts = re.findall(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z0-9]+|[A-Z]", name)
    text = " ".join(p if p.isupper() and len(p) > 1 else p.lower() for p in parts)
    return text if len(text) <= _LONGEST else text[:_LONGEST].rsplit(" ", 1)[0] + " ..."


def _function(plain: str) -> str:
    """Return the name of the function, its namespaces, parameters and arguments left out."""
    name = _mangled(plain)
    if name == plain:
        head = re.split(r"[<(]", plain.removeprefix("void "), maxsplit=1)[0]
        name = head.rpartition("::")[2].rpartition(" ")[2] or plain
    name = re.sub(r"_?[Kk]ernel\w{0,2}$", "", name) or name
    return _words(name) or plain[:_LONGEST]


def _mangled(name: str) -> str:
    """Return the last part of a mangled C++ name, other names as they are.

    Examples
    --------
    >>> _mangled("_ZN5aiter10rms_kernelIDF16bEEvPT_"), _mangled("plain")
    ('rms_kernel', 'plain')
    """
    if not name.startswith("_Z"):
        return name
    at, last = 3 if name.startswith("_ZN") else 2, ""
    while found := re.compile(r"(\d{1,3})(?=[A-Za-z_])").match(name, at):
        at = found.end() + int(found[1])
        last = name[found.end() : at]
    return last or name


@lru_cache(maxsize=100_000)
def _dtype(kernel: str, given: str) -> str:
    """Return the type in a kernel's name, or the one given."""
    plain = _plain(kernel)
    if "sdpa" in plain:  # named f16 whichever of the two half types it is given
        return "" if given == "unknown" else given
    if tensile := _TENSILE.search(plain):
        return _TENSILE_TYPES.get(tensile[1], "fp32")
    found = _TYPED.search(plain) or _FLOAT.search(plain)
    if found is not None:
        return _TYPES[found[1].lstrip("_") if found[1] == "_half" else found[1]]
    return "" if given == "unknown" else given


def _differences(kernels: Sequence[str]) -> list[str]:
    """Return what sets each of some names apart: the fewest words that do, at most a few."""
    pieces = [[p for p in _PIECES.findall(k) if p not in _SAYS_NOTHING] for k in kernels]
    if all(k.startswith("_Z") for k in kernels):
        pieces = [_MANGLED_PIECES.findall(k) for k in kernels]
    if len({len(own) for own in pieces}) == 1:
        rows = list(zip(*_telling(list(zip(*pieces, strict=True))), strict=True))
        return ["/".join(row) for row in rows] if rows else [""] * len(kernels)
    common = Counter(pieces[0])
    for own in pieces[1:]:
        common &= Counter(own)
    rare = [list(dict.fromkeys((Counter(own) - common).elements())) for own in pieces]
    return ["/".join(own[:_SHOWN_DIFFERENCES]) for own in rare]


def _telling(columns: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Return the columns that together tell most rows apart, one by one the best, in their order.

    Examples
    --------
    >>> _telling([("a", "a", "a"), ("1", "1", "2"), ("x", "y", "y"), ("u", "v", "v")])
    [('1', '1', '2'), ('x', 'y', 'y')]
    """
    chosen: list[int] = []
    apart = 1
    while len(chosen) < _SHOWN_DIFFERENCES:
        counts = [
            len(set(zip(*(columns[i] for i in (*chosen, new)), strict=True)))
            for new in range(len(columns))
        ]
        if not counts or max(counts) <= apart:
            break
        apart = max(counts)
        chosen.append(counts.index(apart))
    return [columns[i] for i in sorted(chosen)]
