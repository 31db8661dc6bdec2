"""What a model makes of more chips: time, rate, memory and what is lost between them.

For each plan the workload of one chip of each stage (`npusim.templates.parallel`) is replayed, and
the stages are put together (`npusim.pipeline`): `batch` sequences go to `data` copies of the model
evenly, those of a copy through its stages in as many micro-batches as there are stages, where there
are enough sequences.

    rate = tokens of all sequences / time of the step
    efficiency = rate / (chips x rate of one chip with the same sequences)

A decode step is one token of every sequence in a pipeline that runs steadily, a prefill all prompts
from start to end. One chip stands for itself even where it could not hold the model.

Left out: what the chips' own hosts have to agree upon, network beyond the links that the machine
gives (several nodes), chips that differ in time by chance, energy of stages that wait, drafts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np

from npusim.arch import Arch, Designs, with_value
from npusim.errors import InputError
from npusim.fusion.program import program
from npusim.models.link import NEEDED as LINK
from npusim.pipeline import passed, round_s
from npusim.sweeps.evaluate import run_program
from npusim.templates import load_lowering, load_model, template
from npusim.templates.hyperparameters import Model
from npusim.templates.kernels import ITEM
from npusim.templates.parallel import Parallel, chip_parameters, share, stage_layers
from npusim.templates.parameter_count import cache_elements
from npusim.transforms import split, transformed
from npusim.transforms.precision import ARITHMETIC, dtype_of
from npusim.workload import Workload

_SCALE = 16.0  # bits of a scale that a group of quantised weights shares
# Changes of a workload that alter its tokens or its cache: the question says these itself.
_ASKED = (
    "workload.batch", "workload.context", "workload.kv_heads", "workload.draft_tokens",
    "workload.acceptance", "workload.draft_layers",
)  # fmt: skip


@dataclass(frozen=True)
class Plan:
    """How many chips do what: `npusim.templates.parallel`, and copies of the model.

    Attributes
    ----------
    tensor, expert, pipeline, overlap : int
        As in `npusim.templates.parallel.Parallel`.
    data : int
        Copies of the model, each with sequences of its own.
    """

    tensor: int = 1
    expert: int = 1
    pipeline: int = 1
    data: int = 1
    overlap: int = 1

    @property
    def chips(self) -> int:
        """Chips in all."""
        return max(self.tensor, self.expert) * self.pipeline * self.data


@dataclass(frozen=True)
class ScaleOut:
    """A plan and what comes of it.

    Attributes
    ----------
    plan : Plan
    chips, micro_batches : int
    step_s : float
        Time of a step of all sequences [s]: of a token each, or of their prompts.
    band_s : tuple of float
        The same if kernel times are at the ends of their band [s].
    tokens_per_s, tokens_per_s_chip : float
        Tokens of all chips, and of each [1/s].
    efficiency : float
        Rate of a chip over that of one chip alone with the same sequences.
    collective_share : float
        Share of device time that collectives take, on the stage where it is most.
    bubble_share : float
        Share of the time of the stages in which they wait for each other.
    weight_bytes, kv_bytes : float
        What the fullest chip holds [B].
    fits : bool or None
        Whether that is within the memory of the chip; None where it says no capacity.
    energy_j : float or None
        Energy of a token, all chips together [J]; None with several stages, of which the waiting
        is not known, and where the machine says too little.
    """

    plan: Plan
    chips: int
    micro_batches: int
    step_s: float
    band_s: tuple[float, float]
    tokens_per_s: float
    tokens_per_s_chip: float
    efficiency: float
    collective_share: float
    bubble_share: float
    weight_bytes: float
    kv_bytes: float
    fits: bool | None
    energy_j: float | None

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain values, ready for JSON, the plan's beside the others."""
        whole = asdict(self)
        return {**whole.pop("plan"), **whole}


@dataclass(frozen=True)
class Scaled:
    """What became of the plans: those that are possible in order, and why others are not."""

    rows: tuple[ScaleOut, ...]
    impossible: tuple[tuple[Plan, str], ...]
    notes: tuple[str, ...]


def plans(
    tensor: Sequence[int] = (1,), expert: Sequence[int] = (1,), pipeline: Sequence[int] = (1,),
    data: Sequence[int] = (1,), overlap: Sequence[int] = (1,),
) -> list[Plan]:  # fmt: skip
    """Return each combination of some splits, the fewest chips first.

    Examples
    --------
    >>> [p.chips for p in plans(tensor=(1, 2, 4), data=(1, 2))]
    [1, 2, 2, 4, 4, 8]
    """
    every = (Plan(*each) for each in product(tensor, expert, pipeline, data, overlap))
    return sorted(every, key=lambda p: p.chips)


def scale_out(
    model: str,
    arch: Arch,
    phase: str,
    batch: int,
    context: int,
    plans: Sequence[Plan],
    launch: str = "graph",
    lowering: str = "serving",
    settings: Mapping[str, float] | None = None,
) -> Scaled:
    """Return what a model makes of each plan.

    Parameters
    ----------
    model : str
        A name that ships, a YAML file, or a Hugging Face ``config.json``.
    arch : Arch
        One chip.
    phase : {"decode", "prefill"}
    batch : int
        Sequences of all chips together.
    context : int
        Tokens of each: in the cache before, or of the prompt.
    plans : sequence of Plan
    launch : {"eager", "graph", "queue"}
    lowering : str
    settings : mapping, optional
        Parameters of the machine or of the workload that differ: dotted path -> value.

    Raises
    ------
    InputError
        Bad input, or no plan that is possible: then why the first is not.

    Examples
    --------
    >>> import npusim as ns
    >>> found = scale_out("llama_3_1_8b", ns.load_arch("h200"), "decode", 8, 1024,
    ...                   [Plan(), Plan(tensor=2), Plan(tensor=3)])
    >>> [row.chips for row in found.rows], [plan.tensor for plan, _ in found.impossible]
    ([1, 2], [3])
    """
    if phase not in ("decode", "prefill"):
        raise InputError("not a phase that is split over chips", place="phase", value=phase,
                         allowed="decode, prefill")  # fmt: skip
    of_machine, of_workload = split(dict(settings or {}))
    for path in _ASKED:
        if path in of_workload:
            raise InputError("not a setting of a plan", place=path, value=of_workload[path],
                             hint="batch and context are asked for; heads are the model's, drafts "
                             "are left out")  # fmt: skip
    for path, value in of_machine.items():
        arch = with_value(arch, path, value)
    ask = _Ask(model, arch, phase, batch, context, launch, lowering, of_workload)
    one = ask.chip(Plan(), 0, batch)  # bad input that no plan is to blame for is told first
    alone = ask.tokens / one.wall[0]
    rows, impossible = [], []
    for plan in plans:
        try:
            rows.append(ask.row(plan, alone))
        except InputError as error:
            impossible.append((plan, error))
    if not rows and impossible:
        raise impossible[0][1]
    return Scaled(tuple(rows), tuple((p, str(e)) for p, e in impossible),
                  tuple(ask.notes(rows)))  # fmt: skip


@dataclass(frozen=True)
class _Chip:
    """What a step of one chip takes: time [s], energy [J], share of collectives in device time."""

    wall: tuple[float, float, float]
    joules: float | None
    collective: float


class _Ask:
    """One question, and the replays made for it so far: alike chips are replayed once."""

    def __init__(
        self, model: str, arch: Arch, phase: str, batch: int, context: int, launch: str,
        lowering: str, changes: Mapping[str, float],
    ) -> None:  # fmt: skip
        self._name, self._arch, self._phase, self._launch = model, arch, phase, launch
        self._batch, self._context, self._lowering = batch, context, lowering
        self._changes, self._known = dict(changes), dict[str, _Chip]()
        self._model = load_model(model)
        self._latent = load_lowering(lowering).latent

    @property
    def tokens(self) -> float:
        """Tokens of a step of all sequences."""
        return float(self._batch * (self._context if self._phase == "prefill" else 1))

    def row(self, plan: Plan, alone: float) -> ScaleOut:
        """Return what comes of a plan, against the rate of one chip alone."""
        _check(plan, self._batch)
        _check_links(plan, self._arch)
        own = -(-self._batch // plan.data)
        count = min(plan.pipeline, own)
        chips = [self.chip(plan, s, -(-own // count)) for s in range(plan.pipeline)]
        stages = np.array([chip.wall for chip in chips])
        if self._phase == "decode":
            step = round_s(stages, count)
            bubble = 1.0 - count * float(stages[:, 0].sum()) / (len(chips) * float(step[0]))
        else:
            through = passed(stages, count)
            step, bubble = through.total_s, float(through.bubble_share[0])
        rate = self.tokens / float(step[0])
        weights, cache = self._held(plan, own)
        room = self._arch.values.get("memories.dram.capacity")
        return ScaleOut(
            plan, plan.chips, count, float(step[0]), (float(step[1]), float(step[2])),
            rate, rate / plan.chips, rate / plan.chips / alone,
            max(chip.collective for chip in chips), max(bubble, 0.0), weights, cache,
            None if room is None else weights + cache <= float(room),
            self._energy(plan, chips[0]) if plan.pipeline == 1 else None,
        )  # fmt: skip

    def chip(self, plan: Plan, stage: int, batch: int) -> _Chip:
        """Return the replay of a chip of a stage."""
        made = _made(repr(self._model), self._name, self._phase, batch, self._context,
                     self._lowering, plan, stage)  # fmt: skip
        w = transformed(made, self._changes)
        if w.id not in self._known:
            self._known[w.id] = _replayed(w, self._arch, self._launch)
        return self._known[w.id]

    def notes(self, rows: Sequence[ScaleOut]) -> Iterator[str]:
        """Say what a reader should know before using the numbers."""
        yield from self._model.notes
        yield (
            "left out: activations and the framework's own memory, hosts that wait for each other, "
            "links beyond those of the machine"
        )
        if self._model.vision is not None:
            yield "the vision encoder is left out, its weights too"
        if any(row.plan.expert > 1 for row in rows):
            yield "experts: the busiest chip decides, tokens choose for themselves"
        if any(row.plan.overlap > 1 for row in rows):
            yield "overlap: kernels side by side do not slow each other down here"
        if any(row.plan.pipeline > 1 for row in rows):
            yield "pipeline: a stage sends before it goes on; no energy of stages that wait"
        if any(row.fits is False for row in rows):
            yield "a chip that cannot hold its part is replayed as if it could"

    def _held(self, plan: Plan, sequences: int) -> tuple[float, float]:
        """Return weights and cache of the fullest chip [B]."""
        m, parts = self._model, []
        for stage in range(plan.pipeline):
            p = Parallel(plan.tensor, plan.expert, plan.pipeline, stage)
            tokens = -(-sequences // p.groups) * (self._context + (self._phase == "decode"))
            here = share(m.decoder, p)
            layer = cache_elements(here, self._latent == "absorbed")
            held_kv = tokens * layer * len(stage_layers(m.decoder.layers, p))
            table = here.vocabulary * here.hidden * (stage == 0)  # embeddings are not quantised
            rest = chip_parameters(m.decoder, p) - table
            parts.append((table * ITEM[m.dtype] + rest * self._weight_bytes(m),
                          held_kv * self._kv_bytes(m)))  # fmt: skip
        return max(parts, key=sum)

    def _weight_bytes(self, m: Model) -> float:
        computed = dtype_of(self._changes.get(ARITHMETIC, 0)) or m.dtype
        bits = self._changes.get("workload.weight_bits", 8 * ITEM[computed])
        group = self._changes.get("workload.weight_group")
        return (bits + (_SCALE / group if group else 0.0)) / 8

    def _kv_bytes(self, m: Model) -> float:
        return self._changes.get("workload.kv_bits", 8 * ITEM[m.dtype]) / 8

    def _energy(self, plan: Plan, chip: _Chip) -> float | None:
        return None if chip.joules is None else chip.joules * plan.chips / self.tokens


@lru_cache(maxsize=64)
def _made(
    hyperparameters: str, model: str, phase: str, batch: int, context: int, lowering: str,
    plan: Plan, stage: int,
) -> Workload:  # fmt: skip
    """Return the workload of a chip, made once for all machines; a changed file is another."""
    return template(
        model, phase, batch=batch, context=context, lowering=lowering, tensor=plan.tensor,
        expert=plan.expert, pipeline=plan.pipeline, stage=stage, overlap=plan.overlap,
    )  # fmt: skip


def _check_links(plan: Plan, arch: Arch) -> None:
    if plan.chips == plan.data:
        return
    for path in LINK:
        if path not in arch.values:
            raise InputError("has no link to other chips", file=arch.name, place=path,
                             hint=f"give it one: --set '{path}=...'")  # fmt: skip


def _replayed(w: Workload, arch: Arch, launch: str) -> _Chip:
    """Replay the workload of one chip."""
    designs = Designs(arch)
    ran = run_program(designs, program(w, designs, launch), launch, "model")
    banded, time = ran.banded, ran.settled.time
    ends = (end or banded.middle for end in (banded.low, banded.high))
    wall, low, high = (float(end.wall_s[0]) for end in (banded.middle, *ends))
    if not all(math.isfinite(x) for x in (wall, low, high)):
        raise InputError("no time known", file=w.name, value=wall)
    seconds = time.table[time.row, 0] * time.scale
    between = float(seconds[ran.workload.mask("kind", "collective")].sum())
    total = float(seconds.sum())
    joules = None if ran.spent is None else float(ran.spent.joules[0])
    return _Chip((wall, low, high), None if joules is None or math.isnan(joules) else joules,
                 between / total if total > 0 else 0.0)  # fmt: skip


def _check(plan: Plan, batch: int) -> None:
    if not 1 <= plan.data <= batch:
        raise InputError("not a number of copies with a sequence each", place="data",
                         value=plan.data, allowed=f"1 to {batch}")  # fmt: skip
