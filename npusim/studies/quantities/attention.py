"""Time of an attention kernel over that of another library's at the same shape.

What is replaced is a kernel that was measured, or another library's as it is predicted; what
replaces it is predicted (`npusim.models.attention`), a kernel alone beside a kernel that was
measured, a whole call with its helpers beside a call. Shapes are equal by construction: kernels of
two stages of a model differ in work, and a ratio of their times says nothing of either.

The band is that of left-out attention (`npusim.error_band`) on the prediction; where both sides are
predicted both are put at the same end, which leaves no band.

Left out: biases and masks, which not every library takes; a kernel that replaces another may need
the shapes of neighbours changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from npusim import units
from npusim.arch import Arch, Designs
from npusim.error_band import kinds_band, outside
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.measured.shapes import Measurable, decode_attention, operations, prefill_attention
from npusim.models.attention import attention_cost
from npusim.models.attention_library import CALLED
from npusim.models.roofline import matrix_peak
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict

UNIT = "1"
FIGURE = "times slower than the library that replaces it"


class Options(Strict):
    """A shape, a machine, and two kernels.

    Attributes
    ----------
    arch : str
    library : str
        Library that replaces the kernel: ``fa2``, ``fa3``, ``cudnn``...
    measured : str
        What the replaced kernel took at this shape; or empty.
    replaces : str
        Library that it was of, where it was not measured.
    batch, heads, kv_heads, size, queries, keys : int
        Sequences (or windows), heads of queries and of keys, head size, queries and keys of each
        sequence. One query is a step of decoding.
    dtype : str
    """

    arch: str
    library: str
    measured: str = ""
    replaces: str = ""
    batch: int
    heads: int
    kv_heads: int
    size: int
    queries: int
    keys: int
    dtype: str = "bf16"


def doubts(options: Options) -> dict[str, Doubt]:
    """Return the assumed numbers of the library and of the unit that computes products."""
    arch = load_arch(options.arch)
    phase = "decode" if options.queries == 1 else "prefill"
    numbers = f"library.{options.library}_{phase}."
    paths = [p for p in arch.values if p.startswith(numbers)]
    return assumed(arch, [*paths, "floor.attention", "units.load_rate", "matrix.boost_share"])


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        An unknown library, both or none of ``measured`` and ``replaces``, or a prompt that does not
        attend to itself alone.

    Examples
    --------
    A decode step's kernel of 10.34 us on an RTX 5090 is no faster than FlashAttention 2 is there:

    >>> shape = dict(batch=1, heads=10, kv_heads=10, size=128, queries=1, keys=926)
    >>> found = measure(Options(arch="rtx_5090", library="fa2", measured="10.34 us", **shape), {})
    >>> found.value < 1.2
    True
    """
    if bool(options.measured) == bool(options.replaces):
        raise InputError("needs one of measured and replaces", place="attention")
    arch = with_settings(load_arch(options.arch), settings)
    call = _call(options)
    low, new, high = _predicted(call, options.library, arch)
    if options.measured:
        old, from_what = units.parse(options.measured, "s"), "were measured"
        ratios = (old / low, old / high)
    else:
        lower, old, upper = _predicted(call, options.replaces, arch)
        ratios, from_what = (lower / low, upper / high), f"as {options.replaces} is predicted"
    least = call.work.flop / float(matrix_peak(Designs(arch), options.dtype)[0])
    reason = (
        f"{options.batch} x {options.heads} heads of {options.queries} queries and {options.keys} "
        f"keys are {call.work.flop / 1e9:.3g} GFLOP: {1e6 * old:.4g} us {from_what}, "
        f"{options.library} is predicted to take {1e6 * new:.4g} us, and the peak of "
        f"{options.arch} allows {1e6 * least:.3g} us, {old / least:.3g} times less, at best"
    )
    return Value(old / new, min(old / new, *ratios), max(old / new, *ratios), reason,
                 (options.arch, "archs/libraries/attention.yaml"))  # fmt: skip


def _call(options: Options) -> Measurable:
    o = options
    blocks = o.batch * o.heads if o.measured else 0  # with a grid it is a kernel, else a call
    if o.queries == 1:
        call = decode_attention(o.dtype, o.batch, o.heads, o.kv_heads, o.size, o.keys)
        return replace(call, blocks=blocks)
    if o.queries != o.keys:
        raise InputError("not a prompt that attends to itself alone", place="queries",
                         value=o.queries, allowed=f"1 or {o.keys}, as many as keys")  # fmt: skip
    call = prefill_attention(o.dtype, o.batch, o.heads, o.kv_heads, o.size, o.keys, causal=False)
    return replace(call, blocks=blocks)


def _predicted(call: Measurable, library: str, arch: Arch) -> tuple[float, float, float]:
    """Return low end, prediction and high end of a call's time [s]."""
    if library not in CALLED:
        raise InputError("no attention library", place="library", value=library,
                         allowed=", ".join(CALLED))  # fmt: skip
    designs = Designs(arch)
    time = attention_cost(operations([replace(call, library=library)]), designs).time
    kinds = {"attention": np.asarray(time[0])}
    low, high = kinds_band(kinds, designs, outside(kinds, designs))
    middle = float(time.item())
    return min(float(low[0]), middle), middle, max(float(high[0]), middle)
