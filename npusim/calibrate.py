"""Calibration: parameters of a machine fitted to measured operations, with a record of it.

The record says for each parameter what it was and is, between which bounds, how sure the fit is,
what it is good for, and why; and for each kind of operation what is left unexplained, as quantiles
of measured over predicted time with the range of shapes and machines that were measured.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npusim.arch import Arch, Designs, Provenance, parameter
from npusim.bands import MACHINE, Domain, Residual, residual, shape_columns, span, widened
from npusim.errors import InputError
from npusim.fit import LOSSES, Fit, Pair, Variable
from npusim.fit_variables import Bounds, sharing, variables
from npusim.holdout import split
from npusim.measured import Measured
from npusim.measured.period import predicted
from npusim.models import modelled
from npusim.validate import Errors, errors_of

Array = NDArray[np.float64]

_WHOLE = ("gemm.tile_step", "gemm.cluster", "units.powered")  # no gradient leads to the next one
_NEXT_TO = 1e-9  # of the range between bounds: where a fit ends that wants less than the lower one
_AT_BOUND = 1e-3  # as a share of the bound
_DIGITS = 5  # of a fitted value: the next ones mean nothing
_SURE = 2.0  # standard errors on either side, as the range in which the value is believed to lie


@dataclass(frozen=True)
class Fitted:
    """What became of one parameter of one machine.

    Attributes
    ----------
    path, machine : str
        Dotted path, and the machine's name.
    shared : bool
        Whether the value is one for all machines.
    before, after : float
        Value before and after [SI].
    low, high : float
        Bounds of the fit [SI].
    at_bound : bool
        Whether the fit ended at one of them: the data would like to go on.
    standard_error : float
        Of the value after [SI]; not-a-number where the data do not tell.
    effect : float
        By how much the median error of all operations grows when it alone is put back.
    source, why : str
        What it was fitted to, and how many measurements decide it. One on which none depends is
        left as it was, with its source.
    """

    path: str
    machine: str
    shared: bool
    before: float
    after: float
    low: float
    high: float
    at_bound: bool
    standard_error: float
    effect: float
    source: str
    why: str

    @property
    def is_fitted(self) -> bool:
        """Whether any measurement depends on it."""
        return not (np.isnan(self.standard_error) and self.before == self.after)


@dataclass(frozen=True)
class Calibration:
    """Machines fitted to measurements.

    Attributes
    ----------
    archs : tuple of Arch
        The machines with their fitted values, in order of appearance.
    fitted : tuple of Fitted
        One a parameter and machine.
    free : int
        Parameters that were fitted; one that machines share counts once.
    before, after : Errors
        Of all operations that were fitted to, where the fit began and where it ended. Report on
        others: these flatter.
    residuals : dict of str to Residual
        What is left, by kind of operation.
    rows : tuple of str
        What was measured, one a pair.
    """

    archs: tuple[Arch, ...]
    fitted: tuple[Fitted, ...]
    free: int
    before: Errors
    after: Errors
    residuals: dict[str, Residual]
    rows: tuple[str, ...]

    def replaces(self, arch: Arch) -> Iterator[str]:
        """Say that a machine had a record of an earlier fit, and what its bands are made of now.

        Parameters
        ----------
        arch : Arch
            The machine as it was before.
        """
        if not arch.calibration:
            return
        before = sum(r["n"] for r in arch.calibration["residuals"].values())
        now = sum(r.n for r in self.residuals.values())
        yield (
            f"the calibration record of {arch.name} ({before} operations held back) is not carried "
            f"over: that of this fit ({now}) takes its place, so bands may widen; to keep what the "
            "old one knows, fit to what it was fitted to as well"
        )

    def of(self, machine: str) -> tuple[Fitted, ...]:
        """Return what became of the parameters of one machine."""
        return tuple(f for f in self.fitted if f.machine == machine)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values in SI units, ready for JSON; None where the data do not tell."""
        fitted = [asdict(f) for f in self.fitted]
        for f in fitted:
            f["standard_error"] = None if np.isnan(f["standard_error"]) else f["standard_error"]
        return {
            "measured": list(self.rows), "free": self.free,
            "before": asdict(self.before), "after": asdict(self.after), "fitted": fitted,
            "residuals": {kind: r.as_record() for kind, r in self.residuals.items()},
        }  # fmt: skip


def calibrate(
    pairs: Sequence[Pair],
    free: Sequence[str],
    *,
    shared: bool = True,
    own: Collection[str] = (),
    families: Mapping[str, str] | None = None,
    by_family: Collection[str] = (),
    bounds: Bounds | None = None,
    loss: str = "soft_l1",
    starts: int = 1,
    seed: int = 0,
) -> Calibration:
    """Fit parameters to measured operations.

    Minimises the sum of a robust loss of log(predicted / measured), so that twice too slow is as
    bad as twice too fast and a few outliers do not decide.

    Parameters
    ----------
    pairs : sequence of (Measured, Arch)
        What was measured on which machine; of one machine there may be several.
    free : sequence of str
        Dotted paths to fit.
    shared : bool
        Whether machines share one value of each parameter.
    own : collection of str
        Parameters of which each machine has its own value all the same.
    families : mapping of str to str, optional
        Family of kernels that the library has for each machine, by the machine's name.
    by_family : collection of str
        Parameters of which machines of one family share a value, those of another have another.
    bounds : mapping of str to (low, high), optional
        Bounds of some parameters [SI]. By default the range that the machine's file gives where
        it is wider than a point, else the bounds of the parameter's declaration. A shared value
        keeps to the bounds of all machines.
    loss : str
        One of `npusim.fit.LOSSES`.
    starts : int
        Starting points: the values of the machines, and others at random. The best end counts.
    seed : int
        Of the random starting points.

    Returns
    -------
    Calibration

    Raises
    ------
    InputError
        Nothing to fit or to fit to, an unknown parameter, one that a machine does not have or that
        only takes whole numbers, fewer measurements than parameters, a machine of no family where
        families share a value, or bounds of machines that share a value and have none in common.
    """
    machines = _checked(pairs, free, loss, starts)
    kin = sharing(machines, free, shared, own, families or {}, by_family)
    asked = variables(pairs, machines, kin, bounds or {})
    moved = Fit(pairs, asked).seen()
    kept = [v for v, m in zip(asked, moved, strict=True) if m]
    if not kept:
        raise InputError("no measured time depends on what is to be fitted",
                         value=", ".join(free))  # fmt: skip
    measurements = sum(len(m) for m, _ in pairs)
    if measurements < len(kept):
        raise InputError("fewer measurements than parameters to fit", value=measurements,
                         allowed=f"{len(kept)} or more")  # fmt: skip
    fit = Fit(pairs, kept)
    end = fit.solve(loss, starts, seed)
    values = np.where(end.values == fit.start(), end.values, _rounded(end.values, kept))
    log = fit.residuals(np.column_stack([values, fit.start()]))
    put_back = np.repeat(values[:, None], len(kept), axis=1)
    np.fill_diagonal(put_back, fit.start())
    effect = _median_ape(fit.residuals(put_back)) - _median_ape(log[:, 0])
    found = dict(zip(kept, zip(values, end.standard_error, effect, strict=True), strict=True))
    rows = _rows(pairs)
    became: list[list[Fitted]] = []  # one list a variable
    for v, m in zip(asked, moved, strict=True):
        names = dict.fromkeys(pairs[i][1].name for i in v.pairs)
        told = f"{m} of {len(log)}"
        became.append([_fitted(v, machines[name], len(names) > 1, found.get(v), told, rows)
                       for name in names])  # fmt: skip
    count = sum(any(f.is_fitted for f in its) for its in became)
    fitted = [f for its in became for f in its]
    archs = {name: _with_fitted(arch, fitted) for name, arch in machines.items()}
    seconds = np.concatenate([m.seconds for m, _ in pairs])
    after, before = (errors_of(np.exp(column) * seconds, seconds) for column in log.T)
    left = residuals([(m, archs[arch.name]) for m, arch in pairs])
    return Calibration(tuple(archs.values()), tuple(fitted), count, before, after, left, rows)


def unpublished(arch: Arch) -> tuple[str, ...]:
    """Return the parameters that models read and that no document or direct measurement gives.

    What can be fitted where nobody says what to fit: not the numbers of libraries, which are the
    same on every machine, nor those that only take whole numbers.

    Examples
    --------
    >>> import npusim as ns
    >>> "floor.matmul" in unpublished(ns.load_arch("h200"))
    True
    >>> "memories.dram.bandwidth" in unpublished(ns.load_arch("h200"))
    False
    """
    read = modelled()
    return tuple(
        path for path, p in arch.provenance.items()
        if path in read and p.kind in ("calibrated", "assumed")
        and not path.startswith("library.") and path not in _WHOLE
        and not path.endswith(".count")
    )  # fmt: skip


def held_back(pairs: Sequence[Pair], free: Sequence[str], seed: int = 0) -> dict[str, Residual]:
    """Return residuals of a random half of each table, of machines fitted to the other half.

    What remains is what a prediction of something new may be off by; what a fit leaves of the very
    rows that it was fitted to flatters.
    """
    first, second = zip(*(split(measured, seed) for measured, _ in pairs), strict=True)
    machines = [arch for _, arch in pairs]
    fitted = calibrate(list(zip(first, machines, strict=True)), free)
    by_name = {arch.name: arch for arch in fitted.archs}
    rest = [(m, by_name[a.name]) for m, a in zip(second, machines, strict=True) if len(m)]
    return residuals(rest)


def residuals(pairs: Sequence[Pair]) -> dict[str, Residual]:
    """Return what models leave of measured operations, by kind, with what was measured.

    Fitted on one half and taken from the other, these make honest bands.
    """
    ratios: dict[str, list[Array]] = {}
    domains: dict[str, Domain] = {}
    for measured, arch in pairs:
        ratio = measured.seconds / predicted(measured, Designs(arch))[:, 0]
        for kind in sorted(set(measured.operations.kind)):
            rows = measured.operations.kind == kind
            ratios.setdefault(kind, []).append(ratio[rows])
            domains[kind] = widened(domains.get(kind, {}), _domain(measured.take(rows), arch))
    return {k: residual(np.concatenate(r), domains[k]) for k, r in sorted(ratios.items())}


def _domain(measured: Measured, arch: Arch) -> Domain:
    """Return the least and most of each quantity that was measured, of operations of one kind."""
    o = measured.operations
    domain = {name: span(column) for name, column in shape_columns(str(o.kind[0]), o)}
    domain |= {path: (arch[path],) * 2 for path in MACHINE if path in arch.values}
    used = np.where(np.isnan(measured.units), arch["units.count"], measured.units)
    return domain | {"units.count": span(used)}


def _checked(pairs: Sequence[Pair], free: Sequence[str], loss: str, starts: int) -> dict[str, Arch]:
    """Return the machines by name, if all that was asked can be done."""
    if not pairs or not free:
        raise InputError("nothing to fit to" if free else "nothing to fit")
    machines: dict[str, Arch] = {}
    for _, arch in pairs:
        if machines.setdefault(arch.name, arch) != arch:
            raise InputError("two machines of one name", value=arch.name)
    twice = next((path for path in free if list(free).count(path) > 1), None)
    if twice is not None:
        raise InputError("parameter given twice", value=twice)
    if loss not in LOSSES:
        raise InputError("unknown loss", value=loss, allowed=", ".join(LOSSES))
    if starts < 1:
        raise InputError("too few starts", value=starts, allowed="1 or more")
    for path in free:
        if parameter(path).path.endswith(".count"):
            raise InputError("takes whole numbers only, so it cannot be fitted", value=path)
    return machines


def _median_ape(log: Array) -> Array:
    """Return the median error of each design from log(predicted / measured), (N, D) to (D,)."""
    median: Array = np.median(np.abs(np.exp(log) - 1), axis=0)
    return median


def _rounded(values: Array, of: Sequence[Variable]) -> Array:
    """Return fitted values to a few digits, within their bounds; a bound itself next to it."""
    short = np.array([float(f"{value:.{_DIGITS}g}") for value in values])
    low, high = (np.array(side) for side in zip(*((v.low, v.high) for v in of), strict=True))
    short = np.where(short - low <= _NEXT_TO * (high - low), low, short)
    return np.asarray(np.clip(short, low, high), dtype=np.float64)


def _rows(pairs: Sequence[Pair]) -> tuple[str, ...]:
    """Say what was fitted to."""
    said = []
    for measured, arch in pairs:
        ops = ", ".join(sorted(set(measured.op)))
        said.append(f"{len(measured)} rows of {measured.source} on {arch.name} ({ops})")
    return tuple(said)


def _fitted(
    v: Variable, arch: Arch, shared: bool, end: tuple[float, float, float] | None, moved: str,
    rows: Sequence[str],
) -> Fitted:  # fmt: skip
    """Return what became of a parameter; without an end no measurement depends on it."""
    before = arch[v.path]
    if end is None:
        return Fitted(v.path, arch.name, False, before, before, v.low, v.high, False, np.nan, 0.0,
                      arch.provenance[v.path].source,
                      "left as it was: no measured time depends on it")  # fmt: skip
    after, error, effect = (float(x) for x in end)
    unseen = np.isnan(error) and after == before
    at_bound = not unseen and (_near(after, v.low) or _near(after, v.high))
    why = f"{moved} measured times depend on it"
    why += ", in steps that no gradient sees: left as it was" if unseen else ""
    why += "; at its bound: the measurements ask for more" if at_bound else ""
    source = f"npusim calibrate: {'; '.join(rows)}"
    return Fitted(v.path, arch.name, shared, before, after, v.low, v.high, at_bound, error, effect,
                  source, why)  # fmt: skip


def _near(value: float, bound: float) -> bool:
    return abs(value - bound) <= _AT_BOUND * abs(bound)


def _with_fitted(arch: Arch, fitted: Sequence[Fitted]) -> Arch:
    """Return a machine with its fitted values and where they come from."""
    values, provenance = dict(arch.values), dict(arch.provenance)
    for f in fitted:
        if f.machine == arch.name and f.is_fitted:
            values[f.path] = f.after
            provenance[f.path] = Provenance(f.source, "calibrated", *_believed(f))
    return replace(arch, values=values, provenance=provenance, calibration={})


def _believed(f: Fitted) -> tuple[float, float]:
    """Return the range in which a value is believed to lie: within the bounds, around the fit."""
    if np.isnan(f.standard_error):
        return f.low, f.high
    far = _SURE * f.standard_error
    low, high = (float(f"{end:.{_DIGITS}g}") for end in (f.after - far, f.after + far))
    return max(f.low, min(low, f.after)), min(f.high, max(high, f.after))
