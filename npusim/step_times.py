"""Times of an engine's steps from replays on a machine, on a grid that is computed once.

A step enters R tokens: whole prompts or parts of them, and one token of each request under way. Its
products, norms and the like depend on R alone, the head and the choice of a token on how many
tokens of answers it makes, attention on whose keys are read:

    device = rest(R) + head(samples) + attention of decoding(B, context / B)
             + sum over prompts of attention(new, there before)                     [s]
    step   = max(host(R), device) + tail(R) + images + work                         [s]

with each from replays of templates: of decode steps of R sequences for rest, head, host and tail,
of decode steps of B sequences at several contexts, of parts of prompts. Between grid points they
are interpolated linearly. A graph is captured for some sizes only (`captured`): fewer tokens take
as long as the next larger size.

Power is that of a decode step of R sequences with short contexts: a step's joules are its time
times that.

A power limit that holds the clock down is solved at every doubling of R, as decode up to the most
requests and as a prompt beyond, and its clock taken for all sizes between.

Left out: sequences of very different lengths in one decode batch (attention is that of as many of
the mean length); attention of prompts and of decoding in one kernel (each starts alone here);
a decode step's tail where only prompts enter; what else grows with the context: gaps and host time
of the kernels that put split attention together (below 1 % of a step of a graph, up to 5 % of one
that its host holds up). Lowerings that copy a cache as it grows (`hf-eager`) are refused.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TypeVar

import numpy as np

from npusim.arch import Arch, Designs
from npusim.compare import replay_with_band
from npusim.durations import durations
from npusim.energy import step_energy
from npusim.error_band import band_factors
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.models.energy import has_energy
from npusim.models.kernel import kernel_time
from npusim.models.voltage import clocked
from npusim.power import held
from npusim.serving.step import Step
from npusim.workload import Workload

_Found = TypeVar("_Found")
_Make = Callable[[int, int], Workload]
ENDS = ("low", "middle", "high")
_ATTENTION = ("attention", "attention_combine")
_FEWEST = 16  # tokens of the smallest part of a prompt in a grid
_SHORT = 128  # tokens of the shortest context in a grid: below it attention is taken to be as long
_GROWS = 0.01  # of the bytes of a step
_FINE = 8  # grid points of a doubling of what is entered, where nothing is captured
# Sizes that vLLM captures by default: 1, 2, 4, multiples of 8 to 256 and of 16 to 512
# (docs.vllm.ai, configuration: cudagraph_capture_sizes).
CAPTURED = (1, 2, 4, *range(8, 257, 8), *range(272, 513, 16))


@dataclass(frozen=True)
class Line:
    """A function of one number, linear between points and beyond the last two; constant below.

    Examples
    --------
    >>> line = Line((1.0, 2.0, 4.0), (1.0, 2.0, 6.0))
    >>> line.at(0.5), line.at(3.0), line.at(5.0)
    (1.0, 4.0, 8.0)
    """

    x: tuple[float, ...]
    y: tuple[float, ...]

    def at(self, x: float) -> float:
        """Return its value."""
        if x <= self.x[0] or len(self.x) == 1:
            return self.y[0]
        i = min(max(bisect_left(self.x, x), 1), len(self.x) - 1)
        x0, x1, y0, y1 = self.x[i - 1], self.x[i], self.y[i - 1], self.y[i]
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@dataclass(frozen=True)
class Plane:
    """A function of two numbers: lines along the second at points of the first.

    Examples
    --------
    >>> plane = Plane((1.0, 3.0), (Line((0.0, 1.0), (0.0, 1.0)), Line((0.0, 1.0), (2.0, 4.0))))
    >>> plane.at(2.0, 0.5)
    1.75
    """

    x: tuple[float, ...]
    lines: tuple[Line, ...]

    def at(self, x: float, y: float) -> float:
        """Return its value."""
        if x <= self.x[0] or len(self.x) == 1:
            return self.lines[0].at(y)
        i = min(max(bisect_left(self.x, x), 1), len(self.x) - 1)
        x0, x1 = self.x[i - 1], self.x[i]
        y0, y1 = self.lines[i - 1].at(y), self.lines[i].at(y)
        return y0 + (y1 - y0) * (x - x0) / (x1 - x0)


@dataclass(frozen=True)
class GridTimes:
    """Times of steps on a grid; see the head of this module.

    Attributes
    ----------
    rest, host, tail : Line
        By tokens that enter [s].
    head : Line
        By tokens of answers that a step makes [s].
    decode : Plane
        Attention of decoding, by requests and their mean context [s].
    prompt : Plane
        Attention of a prompt, by tokens that enter and that were there before [s].
    image_token_s : tuple of float
        Each token that the encoder makes, at the low end of the band, in its middle and at the
        high end [s].
    engine_s : float
        Of the engine's own host program in each step, while the device waits [s].
    watts : Line, optional
        Mean power of one chip in a step, by tokens that enter [W]; None where no energy is known.
    captured : tuple of int
        Sizes of steps that a graph was captured for, rising; empty: each size has its own.
    ends : tuple of Line
        Low and high end of the band of a step, as shares of its time, by tokens that enter.
    end : str
        Which of `ENDS` this is.
    """

    rest: Line
    host: Line
    tail: Line
    head: Line
    decode: Plane
    prompt: Plane
    image_token_s: tuple[float, float, float] = (0.0, 0.0, 0.0)
    engine_s: float = 0.0
    watts: Line | None = None
    captured: tuple[int, ...] = ()
    ends: tuple[Line, Line] | None = None
    end: str = "middle"

    def seconds(self, step: Step) -> float:
        """Return the time of a step [s]."""
        tokens = step.tokens
        if tokens == 0:
            return step.work_s
        rows: float = tokens
        if self.captured and tokens <= self.captured[-1]:
            rows = self.captured[bisect_left(self.captured, tokens)]
        device = self.rest.at(rows)
        if step.samples:
            device += self.head.at(step.samples)
        if step.decodes:
            device += self.decode.at(step.decodes, step.context / step.decodes)
        for new, before in step.prompts:
            device += self.prompt.at(new, before)
        total = max(self.host.at(rows), device) + self.tail.at(rows) + self.engine_s
        if self.ends is not None and self.end != "middle":
            total *= self.ends[ENDS.index(self.end) // 2].at(rows)
        image = self.image_token_s[ENDS.index(self.end)]
        return total + image * sum(step.images) + step.work_s

    def at_end(self, end: str) -> GridTimes:
        """Return the same at an end of its band.

        Raises
        ------
        InputError
            No such end, or no band.
        """
        if end not in ENDS:
            raise InputError("no end of a band", value=end, allowed=", ".join(ENDS))
        if self.ends is None and end != "middle":
            raise InputError("these times have no band", value=end, allowed="middle")
        return replace(self, end=end)


@dataclass(frozen=True)
class Sizes:
    """What a grid covers.

    Attributes
    ----------
    tokens : int
        Most tokens that enter in a step.
    requests : int
        Most requests under way.
    context : int
        Most tokens of a request.
    """

    tokens: int
    requests: int
    context: int

    def __post_init__(self) -> None:
        for place in ("tokens", "requests", "context"):
            value = getattr(self, place)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise InputError("not a size", place=place, value=value,
                                 allowed="a whole number from 1")  # fmt: skip


@dataclass(frozen=True)
class _Replay:
    """Device times of one step: attention, head and the rest; what the host adds; band, power."""

    attention: float
    head: float
    rest: float
    host: float
    tail: float
    low: float
    high: float
    watts: float


def grid_times(
    decode: _Make,
    prompt: _Make,
    arch: Arch,
    sizes: Sizes,
    launch: str = "graph",
    captured: Sequence[int] = (),
    tick: Callable[[float], None] = lambda _: None,
) -> GridTimes:
    """Return times of steps on a machine.

    Parameters
    ----------
    decode : callable
        Gives a decode step of so many sequences with so many tokens in their caches.
    prompt : callable
        Gives a part of one prompt: so many new tokens after so many.
    arch : Arch
    sizes : Sizes
    launch : {"eager", "graph", "queue"}
    captured : sequence of int
        Sizes of steps that graphs are captured for.
    tick : callable
        Told the share of what is done after each replay.

    Returns
    -------
    GridTimes

    Raises
    ------
    InputError
        As `npusim.replay`; a lowering under which a step is no sum of its parts.
    """
    rows = _rows(sizes, captured)
    contexts = _doubling(_SHORT, sizes.context)
    batches = _doubling(1, sizes.requests)
    news = _doubling(min(_FEWEST, sizes.tokens), min(sizes.tokens, sizes.context), 2)
    befores = [0, *_doubling(_SHORT, max(sizes.context - 1, _SHORT), 1 / 3)]
    _refuse_growing(decode, contexts)
    told = _Told(tick, len(rows) + len(batches) + len(news))
    clocks = _clocks(decode, prompt, Designs(arch), launch, sizes)
    steps = [told(_replayed(decode(r, _FEWEST), Designs(arch), launch, clocks.at(r)))
             for r in rows]  # fmt: skip
    whole = _lines(rows, steps)
    decoding = [told(_attending(decode, b, contexts, Designs(arch), clocks)) for b in batches]
    entering = [told(_attending(prompt, n, befores, Designs(arch), clocks)) for n in news]
    return GridTimes(
        whole["rest"], whole["host"], whole["tail"], whole["head"],
        Plane(tuple(map(float, batches)), tuple(decoding)),
        Plane(tuple(map(float, news)), tuple(entering)),
        watts=whole["watts"] if has_energy(Designs(arch)) else None,
        captured=tuple(sorted(captured)), ends=(whole["low"], whole["high"]),
    )  # fmt: skip


def _refuse_growing(decode: _Make, contexts: Sequence[int]) -> None:
    """Refuse steps in which more than attention grows with the context."""
    moved = []
    for context in (contexts[0], contexts[-1]):
        w = decode(1, context)
        moved.append(float(w.bytes_moved[~np.isin(w.text("kind"), _ATTENTION)].sum()))
    if moved[1] > moved[0] * (1 + _GROWS):
        raise InputError(
            "kernels beside attention grow with the context (a cache that is copied, say), so a "
            "step is no sum of its parts", place="lowering", value=w.meta.get("lowering", w.name),
            hint="choose one of a serving engine: serving, serving-fa2, fastdeploy, npu",
        )  # fmt: skip


class _Told:
    """Counts what is done, and tells whoever wants to know."""

    def __init__(self, tick: Callable[[float], None], most: int) -> None:
        self._tick, self._most, self._done = tick, most, 0

    def __call__(self, found: _Found) -> _Found:
        self._done += 1
        self._tick(self._done / self._most)
        return found


def _clocks(decode: _Make, prompt: _Make, designs: Designs, launch: str, sizes: Sizes) -> Line:
    """Return the share of its clock that a power limit leaves, by tokens that enter.

    More tokens than requests are those of a prompt.
    """
    if "power.limit" not in designs:
        return Line((1.0,), (1.0,))
    rows = _doubling(1, max(sizes.tokens, sizes.requests))
    steps = (decode(r, _SHORT) if r <= sizes.requests else prompt(min(r, sizes.context), 0)
             for r in rows)  # fmt: skip
    shares = [float(held(program(w, designs, launch), designs, launch).share[0]) for w in steps]
    return Line(tuple(map(float, rows)), tuple(shares))


def _attending(
    step: _Make, size: int, contexts: Sequence[int], designs: Designs, clocks: Line
) -> Line:
    """Return the time of attention by context, at the clock of a step of as many tokens."""
    at = _at_clock(designs, clocks.at(size))
    return Line(tuple(map(float, contexts)),
                tuple(_attention(step(size, c), at) for c in contexts))  # fmt: skip


def _at_clock(designs: Designs, share: float) -> Designs:
    return clocked(designs, np.array([share])) if share < 1 else designs


def _attention(w: Workload, designs: Designs) -> float:
    rows, inverse = w.unique()
    attends = np.isin(w.text("kind")[rows], _ATTENTION)
    if not attends.any():
        return 0.0
    times = kernel_time(w.operations(rows[attends]), designs)[:, 0]
    return float(times @ np.bincount(inverse, minlength=len(rows))[attends])


def _lines(rows: Sequence[int], steps: Sequence[_Replay]) -> dict[str, Line]:
    x = tuple(map(float, rows))
    return {name: Line(x, tuple(getattr(step, name) for step in steps))
            for name in ("rest", "host", "tail", "head", "low", "high", "watts")}  # fmt: skip


def _rows(sizes: Sizes, captured: Sequence[int]) -> list[int]:
    """Return tokens that enter at grid points: captured sizes, and some of each doubling."""
    most = max(sizes.tokens, sizes.requests)
    rows = {c for c in captured if c < most} | {1, most}
    for low, high in pairwise(_doubling(1, most)):
        if high > max(captured, default=0):
            rows |= {round(low + (high - low) * i / _FINE) for i in range(_FINE)}
    return sorted(rows)


def _doubling(least: int, most: int, parts: float = 1) -> list[int]:
    """Return sizes that grow by 2 to the power of 1 / parts each, both ends among them."""
    if most <= least:
        return [least]
    steps = int(np.ceil(parts * np.log2(most / least) - 1e-9))
    return sorted({min(round(least * 2 ** (i / parts)), most) for i in range(steps + 1)} | {most})


def _replayed(w: Workload, designs: Designs, launch: str, clock: float) -> _Replay:
    """Replay a step at a share of its clock."""
    designs = _at_clock(designs, clock)
    ran = program(w, designs, launch)
    time = durations(ran, designs)
    banded = replay_with_band(ran, designs, time, launch, band_factors(ran, designs, time))
    each = time.table[time.row, 0] * time.scale
    attends = np.isin(ran.text("kind"), _ATTENTION)
    last = np.flatnonzero(ran["layer"] >= 0)
    after = np.zeros(len(ran), dtype=bool)
    after[last[-1] + 2 if len(last) else 0 :] = True  # the last norm is of all tokens
    middle = banded.middle
    wall, busy = float(middle.wall_s[0]), float(middle.device_busy_s[0])
    host = float(middle.host_busy_s[0])
    ends = [wall if end is None else float(end.wall_s[0]) for end in (banded.low, banded.high)]
    spent = step_energy(ran, designs, time, middle.wall_s)
    attention, head = float(each[attends].sum()), float(each[after & ~attends].sum())
    low, high = (end / wall if wall > 0 else 1.0 for end in ends)
    return _Replay(
        attention, head, max(busy - attention - head, 0.0), host, wall - max(host, busy), low, high,
        0.0 if spent is None else float(spent.watts[0]),
    )  # fmt: skip
