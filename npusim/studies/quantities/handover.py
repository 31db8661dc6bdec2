"""Time in which a KV cache gets from one chip to another, over the time to the first token.

    handover = tokens x cache of a token / (link.bandwidth / 2 x link.efficiency) + link.latency

One way over the links of one chip, after the whole prompt was computed; the time to the first token
is a replay of the prompt on the machine.

Left out: layers that are sent while later ones are computed, which hides all but the last; several
transfers at a time; what the receiver does with pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Literal

from npusim import units
from npusim.errors import InputError
from npusim.load import load_arch
from npusim.models.link import NEEDED
from npusim.predict import replay
from npusim.studies.assumed import assumed, with_settings
from npusim.studies.value import Doubt, Value
from npusim.sweep_block import Strict
from npusim.templates import load_lowering, load_model, template
from npusim.templates.kernels import ITEM
from npusim.templates.parameter_count import cache_elements

UNIT = "1"
FIGURE = "handover over the time to the first token"

_BANDWIDTH = "link.bandwidth"


class Options(Strict):
    """A prompt, and the link that its cache goes over.

    Attributes
    ----------
    arch, model, lowering : str
    launch : {"eager", "graph", "queue"}
    tokens : int
        Of the prompt.
    bandwidth : str
        Of the link, both directions; empty: the machine's.
    """

    arch: str
    model: str
    lowering: str = "serving"
    launch: Literal["eager", "graph", "queue"] = "graph"
    tokens: int
    bandwidth: str = ""


def doubts(options: Options) -> dict[str, Doubt]:
    """Return what the machine assumes of its links."""
    found = assumed(load_arch(options.arch), NEEDED)
    return {path: d for path, d in found.items() if not (options.bandwidth and path == _BANDWIDTH)}


def measure(options: Options, settings: Mapping[str, float]) -> Value:
    """Return the ratio.

    Raises
    ------
    InputError
        A machine without links, or no tokens.

    Examples
    --------
    >>> asked = Options(arch="h100", model="deepseek_ocr", tokens=913, bandwidth="300 GB/s")
    >>> 0 < measure(asked, {}).value < 0.2
    True
    """
    if options.tokens < 1:
        raise InputError("no prompt", place="tokens", value=options.tokens, allowed="1 or more")
    low, first, high = _first_token(options.arch, options.model, options.lowering, options.launch,
                                    options.tokens)  # fmt: skip
    own = {_BANDWIDTH: units.parse(options.bandwidth, "B/s")} if options.bandwidth else {}
    arch = with_settings(load_arch(options.arch), {**own, **settings})
    for path in NEEDED:
        if path not in arch.values:
            raise InputError("has no link to other chips", file=arch.name, place=path)
    model = load_model(options.model)
    latent = load_lowering(options.lowering).latent == "absorbed"
    token = cache_elements(model.decoder, latent) * model.decoder.layers * ITEM[model.dtype]
    rate = arch[_BANDWIDTH] / 2.0 * arch["link.efficiency"]
    sent = options.tokens * token / rate + arch["link.latency"]
    reason = (
        f"{options.tokens:,} tokens of {token / 1e3:.1f} kB are "
        f"{options.tokens * token / 1e6:.1f} MB: {1e6 * sent:.0f} us at {rate / 1e9:.0f} GB/s "
        f"one way, beside {1e3 * first:.2f} ms to the first token"
    )
    return Value(sent / first, sent / high, sent / low, reason, (options.model, options.arch))


@lru_cache(maxsize=64)
def _first_token(
    arch: str, model: str, lowering: str, launch: str, tokens: int
) -> tuple[float, float, float]:
    """Return low end, prediction and high end of a prompt's time; links play no part in it [s]."""
    w = template(model, "prefill", context=tokens, lowering=lowering)
    found = replay(w, load_arch(arch), launch)
    low, high = (found.wall_s, found.wall_s) if found.band is None else found.band.wall_s
    return low, found.wall_s, high
