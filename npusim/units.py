"""Physical quantities as text: ``"4.8 TB/s"`` to an SI float and back.

Inside npusim every quantity is a plain float in SI units (seconds, bytes, hertz, watts, joules).
Text with a unit exists only at the edge: YAML files, ``--set`` and tables. The grammar is small
and closed on purpose: a number, then symbols joined by ``*`` or ``/``. Nothing is evaluated.

- GB is 10^9 bytes, GiB is 2^30 bytes; ``KB`` is refused because it is used for both.
- B is a byte, bit is a bit.
- FLOP counts a multiply and an add as two; ``OP`` is the same count for integers. MAC is refused.
- Tr counts transistors, a plain number; money is in USD, mass in g (SI: kg), a Wh is 3,600 J.
- A quantity with a dimension needs its unit: a bare number is accepted only where the unit is 1.
"""

from __future__ import annotations

import math
import re
from fractions import Fraction

from npusim.errors import InputError

Dimension = tuple[tuple[str, int], ...]

# Factors are exact fractions, so that "0.284 us" is the float nearest to 2.84e-7.
_DECIMAL = {
    prefix: Fraction(10) ** exponent
    for prefix, exponent in {
        "f": -15, "p": -12, "n": -9, "u": -6, "µ": -6, "μ": -6, "m": -3, "k": 3, "M": 6, "G": 9,
        "T": 12, "P": 15, "E": 18,
    }.items()
}  # fmt: skip
_BINARY = {
    prefix: Fraction(1024) ** i for i, prefix in enumerate(("Ki", "Mi", "Gi", "Ti", "Pi"), 1)
}

# symbol -> (factor to SI, dimension, prefixes that make sense)
_SYMBOLS: dict[str, tuple[Fraction, dict[str, int], str]] = {
    "s": (Fraction(1), {"s": 1}, "fpnuµμm"),
    "h": (Fraction(3600), {"s": 1}, ""),
    "Hz": (Fraction(1), {"s": -1}, "kMGT"),
    "B": (Fraction(1), {"B": 1}, "kMGTPE"),
    "bit": (Fraction(1, 8), {"B": 1}, "kMGTPE"),
    "FLOP": (Fraction(1), {"FLOP": 1}, "kMGTPE"),
    "OP": (Fraction(1), {"FLOP": 1}, "kMGTPE"),
    "clock": (Fraction(1), {"clock": 1}, ""),
    "W": (Fraction(1), {"J": 1, "s": -1}, "nuµμmkM"),
    "J": (Fraction(1), {"J": 1}, "fpnuµμmkM"),
    "Wh": (Fraction(3600), {"J": 1}, "kMG"),
    "m": (Fraction(1), {"m": 1}, "nuµμmk"),
    "mm2": (Fraction(1, 10**6), {"m": 2}, ""),
    "cm2": (Fraction(1, 10**4), {"m": 2}, ""),
    "g": (Fraction(1, 1000), {"kg": 1}, "mk"),
    "USD": (Fraction(1), {"USD": 1}, "kM"),
    "Tr": (Fraction(1), {}, "kMG"),
    "%": (Fraction(1, 100), {}, ""),
    "1": (Fraction(1), {}, ""),
}

_HINTS = {
    "KB": "KB is ambiguous; write kB (1000 B) or KiB (1024 B)",
    "MAC": "count FLOP: 1 MAC is 2 FLOP",
    "FLOPS": "write FLOP/s",
    "OPS": "write OP/s",
    "bps": "write bit/s",
    "Bps": "write B/s",
    "b": "write bit or B",
}

# Units of values that are one of some names: inside npusim the place of the name in its list.
CHOICES = {
    "replacement": ("lru", "random"), "placement": ("pinned", "lru"), "port": ("shared", "own"),
    "arithmetic": ("traced", "bf16", "fp16", "fp8_e4m3", "fp8_e5m2", "int8", "int4"),
    "scales": ("tensor", "channel", "group"), "quantize": ("kernel", "native"),
    "products": ("fastest", "units", "gemv_unit", "array"),
    "special_place": ("fastest", "special", "vector"),
    "dataflow": ("weight", "output", "input"), "registers": ("single", "double"),
    "node": ("n16", "n12", "n7", "n6", "n5", "n4", "n3"),
    "dram_type": ("hbm2", "hbm2e", "hbm3", "hbm3e", "gddr6", "gddr6x", "gddr7", "lpddr5x", "ddr5"),
    "topology": ("switch", "full", "mesh", "ring"),
    "algorithm": ("library", "fastest", "ring", "tree", "one_shot", "in_switch"),
    "link_type": ("nvlink3", "nvlink4", "infinity_fabric", "pcie4", "pcie5"),
}  # fmt: skip

_TEXT = re.compile(r"\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?)\s*(\S.*?)?\s*")
_FACTOR = re.compile(r"([A-Za-zµμ%]+2?|1)(?:\^(-?[1-3]))?")
_LONGEST = 80


def _symbol(name: str, text: str) -> tuple[Fraction, dict[str, int]]:
    """Return factor and dimension of one symbol with its prefix."""
    if name in _SYMBOLS:
        factor, dimension, _ = _SYMBOLS[name]
        return factor, dimension
    for base in sorted(_SYMBOLS, key=len, reverse=True):
        if not name.endswith(base):
            continue
        prefix = name[: -len(base)]
        factor, dimension, prefixes = _SYMBOLS[base]
        if prefix in _BINARY and base in ("B", "bit"):
            return factor * _BINARY[prefix], dimension
        if len(prefix) == 1 and prefix in prefixes:
            return factor * _DECIMAL[prefix], dimension
    hint = next((h for ending, h in _HINTS.items() if name.endswith(ending)), None)
    raise InputError(f"unknown unit {name!r} in", value=text, hint=hint)


def _unit(expression: str, text: str) -> tuple[Fraction, Dimension]:
    """Return factor and dimension of a unit expression such as ``TB/s``."""
    factor, total, sign = Fraction(1), dict[str, int](), 1
    for part in re.split(r"([*/·])", expression.replace(" ", "")):
        if part in ("*", "·", "/"):
            sign = -1 if part == "/" else 1
            continue
        match = _FACTOR.fullmatch(part)
        if match is None:
            raise InputError("cannot read the unit of", value=text, hint="e.g. '4.8 TB/s'")
        scale, dimension = _symbol(match[1], text)
        power = sign * int(match[2] or 1)
        factor *= scale**power
        for base, exponent in dimension.items():
            total[base] = total.get(base, 0) + exponent * power
    return factor, tuple(sorted((b, e) for b, e in total.items() if e))


def dimension(unit: str) -> Dimension:
    """Return the dimension of a unit, e.g. to check that two can be compared.

    Examples
    --------
    >>> dimension("TB/s") == dimension("bit/ns")
    True
    >>> dimension("FLOP/clock")
    (('FLOP', 1), ('clock', -1))
    """
    return _unit(unit, unit)[1]


def parse(text: str | float, unit: str) -> float:
    """Read a quantity and return it in SI units.

    Parameters
    ----------
    text : str or float
        A number with a unit, or a bare number where `unit` is ``"1"``.
    unit : str
        Any unit of the wanted dimension, e.g. ``"B/s"``.

    Returns
    -------
    float
        The value in SI units [of the dimension of `unit`].

    Raises
    ------
    InputError
        Not a number, not finite, no unit, an unknown unit, or one of another dimension.

    Examples
    --------
    >>> parse("4.8 TB/s", "B/s")
    4800000000000.0
    >>> parse("60 MiB", "B"), parse("60 MB", "B")
    (62914560.0, 60000000.0)
    >>> parse("16 pJ/bit", "J/B")
    1.28e-10
    >>> parse("75 %", "1")
    0.75
    >>> parse("random", "replacement")
    1.0
    """
    if unit in CHOICES:
        return _choice(text, unit)
    if isinstance(text, bool) or not isinstance(text, (str, int, float)):
        raise InputError("not a quantity", value=text, allowed=f"a number with a unit of {unit}")
    text = str(text) if isinstance(text, float) else text
    if isinstance(text, int):
        if text.bit_length() > 1000:
            raise InputError("number too large", value=text, allowed="up to 1e300")
        text = repr(text)
    match = _TEXT.fullmatch(text) if len(text) <= _LONGEST else None
    if match is None:
        raise InputError("not a quantity", value=text, allowed=f"a number with a unit of {unit}")
    number, expression = Fraction(match[1]), match[2] or "1"
    factor, found = _unit(expression, text)
    wanted = dimension(unit)
    if found != wanted:
        problem = "has no unit" if not found and wanted else "has the wrong unit"
        raise InputError(problem, value=text, allowed=f"a unit of {unit}")
    try:
        return float(number * factor)
    except OverflowError:
        raise InputError("not a finite number", value=text) from None


def _choice(text: str | float, unit: str) -> float:
    """Return the place of a name among those that a value can have."""
    if text not in CHOICES[unit]:
        raise InputError("not one of the names", value=text, allowed=", ".join(CHOICES[unit]))
    return float(CHOICES[unit].index(str(text)))


# How each dimension is shown: symbol, and the range of exponents of ten to choose from.
_SHOWN = ("s", "Hz", "B", "FLOP", "W", "J")
_STEPS = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T",
          5: "P", 6: "E"}  # fmt: skip


def show(value: float, unit: str, digits: int = 4) -> str:
    """Return an SI value as short text with a prefix, in the unit given without one.

    Examples
    --------
    >>> show(4.8e12, "B/s"), show(2.37e-3, "s"), show(132, "1"), show(4096, "FLOP/clock")
    ('4.8 TB/s', '2.37 ms', '132', '4096 FLOP/clock')
    >>> show(1.25e-7, "s"), show(0.0, "B"), show(1.0, "replacement")
    ('125 ns', '0 B', 'random')
    """
    if unit in CHOICES and value in range(len(CHOICES[unit])):
        return CHOICES[unit][int(value)]
    if unit in CHOICES:
        return f"{value:g} of {', '.join(CHOICES[unit])}"
    if unit == "1" or value == 0 or not math.isfinite(value):
        return f"{value:.{digits}g}" + ("" if unit == "1" else f" {unit}")
    factor = _unit(unit, unit)[0]
    value = value if factor == 1 else value / float(factor)
    head = re.split(r"[*/·]", unit)[0]
    if head not in _SHOWN or unit.endswith("/clock"):
        return f"{value:.{digits}g} {unit}"
    step = math.floor(math.log10(abs(value) * (1 + 1e-12)) / 3)
    allowed = [s for s, p in _STEPS.items() if p == "" or p in _SYMBOLS[head][2]]
    step = min(max(step, min(allowed)), max(allowed))
    return f"{value / 1000.0**step:.{digits}g} {_STEPS[step]}{unit}"
