"""A serving study: from its file to runs, each with a band and, where there is a log, beside it.

Each point of the axes is one run: a machine, an engine on it with what memory leaves for its KV
cache, requests, and what came of them. Step times are computed once for all runs that share
machine, engine and lengths. The band comes from running again with all step times at either end of
theirs.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, with_value
from npusim.errors import InputError
from npusim.latency import Latency
from npusim.load import load_arch
from npusim.memory_plan import memory_plan
from npusim.models.link import NEEDED as LINK
from npusim.predict import replay
from npusim.request_file import Log
from npusim.serving import Fleet, Limits, Outcome, Policy, Pool, Transfer, serve
from npusim.serving_block import Engine, Serving, ServingFile, with_axis
from npusim.serving_energy import chips_of, joules
from npusim.serving_requests import Measured, drawn, logged, measured
from npusim.step_times import CAPTURED, ENDS, GridTimes, Sizes, grid_times
from npusim.sweeps.evaluate import with_changes
from npusim.sweeps.space import unmodelled
from npusim.templates import load_model, template
from npusim.transforms import applies, split, transformed
from npusim.workload import Workload

Tick = Callable[[float], None]


@dataclass(frozen=True)
class Run:
    """One point of a study.

    Attributes
    ----------
    axes : mapping
        Where it is.
    middle : Outcome
    low, high : Outcome, optional
        With step times at the low and high end of their band.
    limits : Limits
    policy : Policy
        Of the engines that answer.
    kv_token : float
        KV cache of a token on one chip [B].
    engines : int
        That answer.
    cut : int
        Drawn requests that were cut to what an engine takes.
    energy_j : float, optional
        Energy of all chips over the run [J].
    measured : Measured, optional
    """

    axes: Mapping[str, Any]
    middle: Outcome
    low: Outcome | None
    high: Outcome | None
    limits: Limits
    policy: Policy
    kv_token: float
    engines: int
    cut: int
    energy_j: float | None
    measured: Measured | None = None


@dataclass
class Known:
    """What runs have in common: times of steps, and the steps, which all machines replay."""

    times: dict[tuple[Any, ...], GridTimes] = field(default_factory=dict)
    steps: dict[tuple[str, ...], Workload] = field(default_factory=dict)


@dataclass
class _Times:
    """Step times that were computed, by what they depend on."""

    sizes: Sizes
    known: Known
    tick: Tick = lambda _: None


def run_study(
    study: ServingFile,
    band: bool = True,
    tick: Callable[[int, int, float], None] | None = None,
    known: Known | None = None,
) -> list[Run]:
    """Run a study.

    Parameters
    ----------
    study : ServingFile
    band : bool
        Whether to run each point at both ends of its band, too.
    tick : callable, optional
        Told which run of how many is under way, and the share of its step times that is computed.
    known : Known, optional
        What earlier runs computed, to which that of this one is added.

    Raises
    ------
    InputError
        A model, machine, lowering or log that is not there, a configuration that does not fit.
    """
    points = [_asked(study, axes, block) for axes, block in _points(study)]
    times = _Times(_sizes(points), Known() if known is None else known)
    found = []
    for i, point in enumerate(points):
        if tick is not None:
            times.tick = partial(tick, i, len(points))
        times.tick(0.0)
        found.append(_run(study, point, band, times))
    return found


def _points(study: ServingFile) -> Iterator[tuple[dict[str, Any], Serving]]:
    for values in itertools.product(*study.axes.values()):
        axes = dict(zip(study.axes, values, strict=True))
        block = study.block
        for path, value in axes.items():
            block = with_axis(block, path, value)
        yield axes, block


@dataclass(frozen=True)
class _Point:
    """What one run is asked to do."""

    axes: Mapping[str, Any]
    block: Serving
    requests: list[Any]
    log: Log | None
    image_tokens: int
    cut: int

    @property
    def prefill(self) -> Engine:
        """An engine on which prompts enter: as those that answer, but for what is given."""
        other = None if self.block.prefill is None else self.block.prefill.engine
        if other is None:
            return self.block.engine
        given = {name: getattr(other, name) for name in other.model_fields_set}
        return self.block.engine.model_copy(update=given)

    @property
    def engines(self) -> list[Engine]:
        """Engines that answer, and those on which prompts enter."""
        return [self.block.engine, self.prefill]

    @property
    def longest(self) -> int:
        """Tokens of the longest request."""
        flat = itertools.chain(*(r if isinstance(r, list) else [r] for r in self.requests))
        return max(int(r.tokens) for r in flat)


def _asked(study: ServingFile, axes: Mapping[str, Any], block: Serving) -> _Point:
    tokens = int(_seen(block).meta["tokens"]) if block.requests.image is not None else 0
    log = logged(study, block.requests)
    requests, cut = (list(log.requests), 0) if log is not None else drawn(study, block, tokens)
    return _Point(axes, block, requests, log, tokens, cut)


def _sizes(points: Sequence[_Point]) -> Sizes:
    """Return what step times have to cover, for all runs of a study."""
    engines = [(engine, point.longest) for point in points for engine in point.engines]
    return Sizes(
        max(min(e.max_num_batched_tokens, e.max_num_seqs * longest) for e, longest in engines),
        max(e.max_num_seqs for e, _ in engines),
        max(min(e.max_model_len, longest) for e, longest in engines),
    )  # fmt: skip


def _run(study: ServingFile, point: _Point, band: bool, times: _Times) -> Run:
    block, requests = point.block, point.requests
    arch = _machine(study.arch, block.set)
    pool, kv_token = _pool(point, block.engine, arch, block.engines, times)
    fleet, chips = Fleet(pool, block.route), [chips_of(pool, block.engine.tensor, arch)]
    if block.prefill is not None:
        other = _machine(block.prefill.arch or study.arch, block.set)
        engine = point.prefill
        prompts, _ = _pool(point, engine, other, block.prefill.engines, times)
        between = _between((other, engine.tensor), (arch, block.engine.tensor), kv_token)
        fleet = replace(fleet, prompts=prompts, transfer=between)
        chips.insert(0, chips_of(prompts, engine.tensor, other))
    until = None if block.until is None else float(block.until)
    ends = {end: serve(requests, _at_end(fleet, end), until, bool(block.requests.rounds))
            for end in (ENDS if band else ENDS[1:2])}  # fmt: skip
    limits = Limits(**{f"{n}_s": float(v) for n, v in block.limits if v is not None})
    return Run(point.axes, ends["middle"], ends.get("low"), ends.get("high"), limits, pool.policy,
               kv_token, block.engines, point.cut, joules(ends["middle"], chips),
               measured(point.log))  # fmt: skip


def _between(sender: tuple[Arch, int], receiver: tuple[Arch, int], kv_token: float) -> Transfer:
    """Return how KV caches get from engine to engine: over the links of all of their chips.

    One way, half of ``link.bandwidth`` x ``link.efficiency`` of each chip, of the slower side.
    """
    rates, latency = [], 0.0
    for arch, chips in (sender, receiver):
        _refuse_without_links(arch)
        rates.append(chips * arch["link.bandwidth"] / 2.0 * arch["link.efficiency"])
        latency = max(latency, arch["link.latency"])
    return Transfer(kv_token * receiver[1], min(rates), latency)


def _refuse_without_links(arch: Arch) -> None:
    for path in LINK:
        if path not in arch.values:
            raise InputError("has no link to other chips", file=arch.name, place=path,
                             hint=f"give it one: --set '{path}=...'")  # fmt: skip


def _at_end(fleet: Fleet, end: str) -> Fleet:
    """Return a fleet whose step times are at an end of their band."""

    def moved(pool: Pool) -> Pool:
        times = pool.times
        return replace(pool, times=times.at_end(end)) if isinstance(times, GridTimes) else pool

    prompts = None if fleet.prompts is None else moved(fleet.prompts)
    return replace(fleet, pool=moved(fleet.pool), prompts=prompts)


def _machine(name: str, settings: Mapping[str, Any]) -> Arch:
    arch = load_arch(name)
    for error in unmodelled(list(settings)):
        raise error
    for path, value in split(dict(settings))[0].items():
        arch = with_value(arch, path, value)
    return arch


def _pool(
    point: _Point, engine: Engine, arch: Arch, engines: int, times: _Times
) -> tuple[Pool, float]:
    """Return engines that are alike, and the KV cache of a token on one of their chips [B]."""
    block = point.block
    if engine.tensor > 1:
        _refuse_without_links(arch)
    changes = _changes(block)
    model = load_model(block.model, block.settings)
    plan = memory_plan(
        model, arch, engine.max_model_len, engine.max_num_seqs,
        engine.max_num_batched_tokens, engine.gpu_memory_utilization,
        framework=engine.framework, block_tokens=engine.block_size, tensor=engine.tensor,
        chunked_prefill=engine.chunked_prefill, kv_bits=changes.get("workload.kv_bits"),
        weight_bits=changes.get("workload.weight_bits"),
    )  # fmt: skip
    if not engine.kv_blocks and not plan.fits:
        raise InputError(
            "does not fit the memory", place="--max-model-len", value=engine.max_model_len,
            hint=f"npusim memory {block.model} --arch {arch.name} says what to change",
        )  # fmt: skip
    policy = Policy(
        engine.max_num_seqs, engine.max_num_batched_tokens, engine.max_model_len,
        engine.kv_blocks or plan.blocks, engine.block_size, engine.chunked_prefill,
        not engine.prefill_apart, engine.one_prompt_a_step, engine.prefix_caching, True,
        engine.encoder_cache_tokens,
    )  # fmt: skip
    grid = _grid(block, engine, arch, times)
    captured = tuple(c for c in grid.captured if c <= 2 * engine.max_num_seqs)
    grid = replace(grid, engine_s=float(engine.step_overhead), captured=captured)
    if point.image_tokens:
        low, middle, high = (t / point.image_tokens for t in _image_times(block, arch))
        grid = replace(grid, image_token_s=(low, middle, high))
    return Pool(grid, policy, engines), plan.kv_token


def _grid(block: Serving, engine: Engine, arch: Arch, times: _Times) -> GridTimes:
    """Return step times, computed once; one chip alone feels nothing of its links."""
    felt = {p: v for p, v in arch.values.items() if engine.tensor > 1 or p[:5] != "link."}
    changes = _changes(block)
    key = (arch.name, tuple(sorted(felt.items())), block.model, block.lowering, block.launch,
           repr(block.settings), repr(changes), engine.tensor, times.sizes)  # fmt: skip
    found, steps = times.known.times, times.known.steps
    if key not in found:
        how: dict[str, Any] = {"lowering": block.lowering, "settings": block.settings,
                               "tensor": engine.tensor}  # fmt: skip
        captured = [c for c in CAPTURED if c <= 2 * times.sizes.requests]
        both = [template(block.model, phase, **how) for phase in ("decode", "prefill")]
        with_changes(both, changes)  # refuses what changes nothing in either

        def made(phase: str, **sizes: Any) -> Workload:
            key = (phase, block.model, repr(how), repr(changes), repr(sizes))
            if key not in steps:
                w = template(block.model, phase, **sizes, **how)
                steps[key] = transformed(w, {p: v for p, v in changes.items() if applies(w, p)})
            return steps[key]

        found[key] = grid_times(
            lambda b, c: made("decode", batch=b, context=c),
            lambda n, c: made("prefill", context=c or n, new=n if c else None),
            arch, times.sizes, block.launch, captured if block.launch == "graph" else (),
            times.tick,
        )  # fmt: skip
    return found[key]


def _changes(block: Serving) -> dict[str, float]:
    """Return what is changed of the workloads of all steps."""
    return {path: float(value) for path, value in split(dict(block.set))[1].items()}


def _image_times(block: Serving, arch: Arch) -> tuple[float, float, float]:
    """Return the time of the encoder, between the ends of its band [s]."""
    found = replay(_seen(block), arch, block.launch)
    low, high = (found.wall_s, found.wall_s) if found.band is None else found.band.wall_s
    return low, found.wall_s, high


def _seen(block: Serving) -> Any:
    width, height = block.requests.image or (0, 0)
    return template(block.model, "vision", image=(width, height), lowering=block.lowering,
                    settings=block.settings)  # fmt: skip


def notes(study: ServingFile, runs: Sequence[Run]) -> list[str]:
    """Return what a reader of the runs should know."""
    block = study.block
    found = [f"times of steps: replays of {block.model}, lowering {block.lowering}, "
             f"{block.launch} launch, interpolated; nothing of them is measured"]  # fmt: skip
    if block.launch == "eager":
        found.append("eager launch: host time of a kernel is the lowering's where it has been "
                     "measured, else the machine's launch.eager.host")  # fmt: skip
    found += load_model(block.model, block.settings).notes
    if runs[0].low is None:
        found.append("no band asked for")
    cut = max(run.cut for run in runs)
    if cut:
        found.append(f"drawn requests that were cut to max_model_len: up to {cut} of a run")
    late = sum(run.middle.in_flight for run in runs)
    if late:
        found.append(f"{late} requests were in flight when a run was ended: no wait of theirs is "
                     "in the percentiles")  # fmt: skip
    found += [f"rejected: {why}" for why in dict.fromkeys(
        why.split(": ", 1)[1] for run in runs for why in run.middle.rejected[:1])]  # fmt: skip
    if any(run.measured is not None and run.middle.rejected for run in runs):
        found.append("requests of the log were rejected, so measured percentiles hold more of them")
    return found


def told(run: Run) -> dict[str, Any]:
    """Return a run as plain values in SI units."""
    found: dict[str, Any] = {"axes": dict(run.axes), **_figures(run.middle, run)}
    made = sum(int(e.samples.sum()) for e in run.middle.engines)
    if run.energy_j is not None and made:
        found |= {"energy_j": run.energy_j, "j_per_token": run.energy_j / made}
    if run.low is not None and run.high is not None:
        found["band"] = {"low": _figures(run.low, run), "high": _figures(run.high, run)}
    if run.measured is not None:
        found["measured"] = {name: _latency(s) for name, s in run.measured.summaries.items()}
    return found


def _latency(latency: Latency) -> dict[str, float]:
    return {
        name: getattr(latency, name) for name in ("mean_s", "p50_s", "p95_s", "p99_s", "most_s")
    }


def _figures(o: Outcome, run: Run) -> dict[str, Any]:
    held = np.concatenate([e.blocks for e in o.engines[-run.engines :]])
    return {
        "arrived": o.arrived, "answered": len(o), "in_flight": o.in_flight,
        "rejected": len(o.rejected), "stops": int(o.stops.sum()),
        "seconds": o.end_s, "steps": sum(len(e.end_s) for e in o.engines),
        **{name: _latency(s) for name, s in o.summaries().items()},
        "requests_per_s": o.requests_per_s, "tokens_per_s": o.tokens_per_s,
        "goodput_per_s": o.goodput(run.limits), "utilisation": o.utilisation,
        "in_system": o.in_system, "cached_share": _share(o.cached, o.prompt),
        "kv_blocks": run.policy.blocks, "kv_blocks_most": int(held.max(initial=0)),
    }  # fmt: skip


def _share(part: Sequence[int] | NDArray[np.int64], whole: NDArray[np.int64]) -> float:
    total = float(np.sum(whole))
    return float(np.sum(part)) / total if total else 0.0
