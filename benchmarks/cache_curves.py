"""Time against footprint, over the edge of the last-level cache: plateaus, knees, single points.

PYTHONPATH=. python benchmarks/cache_curves.py

Prints a Markdown table and draws docs/accuracy/cache_*.png. The axis `l2_residency` of the H200 is
shipped; the public curves are read from ../shared/external and left out where they are absent.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

import npusim as ns
from npusim.arch import Designs
from npusim.measured import read_axes
from npusim.measured.period import predicted
from npusim.models.cost import smooth_max
from npusim.models.memory import STREAM, TILES, dram_bandwidth, l2_bandwidth
from npusim.models.residency import resident_share

ROOT = Path(__file__).resolve().parents[1]
AXES = ROOT / "workloads" / "experiments" / "h200_axes.json"
PUBLIC = ROOT.parent / "shared" / "external" / "gpu-benches" / "gpu-l2-cache"
FIGURES = ROOT / "docs" / "accuracy"
MACHINES = {"a100": "a100_80", "h100_pcie": "h100_pcie", "l40": "l40", "mi210": "mi210"}
PIECE = 2.0**19  # what a block of the public benchmark reads
LONG = 2.0**30  # beyond it translation of addresses takes its share
MIB = 2.0**20

HEAD = (
    "| curve | resident: measured, predicted | cold: measured, predicted "
    "| knee [MiB]: measured, predicted | cold less resident | points: median, worst | n |\n"
    "|---|---|---|---|---|---|---|\n"
)


@dataclass
class Curve:
    """Measured and predicted time over N footprints.

    Attributes
    ----------
    case : str
    footprint : array, shape (N,)
        Bytes in turn, growing [B].
    measured, predicted : array, shape (N,)
        Time of one operation [s], or of one byte [s/B].
    resident, cold : array of bool, shape (N,)
        Which points lie far below and far above the capacity of the cache.
    unit : str
        ``us`` for times of an operation, ``GB/s`` for times of a byte.
    """

    case: str
    footprint: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    resident: np.ndarray
    cold: np.ndarray
    unit: str

    @property
    def errors(self):
        return np.abs(self.predicted / self.measured - 1)

    def plateaus(self, time):
        """Return the resident and the cold time."""
        return np.median(time[self.resident]), np.median(time[self.cold])

    def knee(self, time):
        """Return the footprint at which time is half-way between its two plateaus [B]."""
        return knee(self.footprint, time, *self.plateaus(time))

    def difference(self, time):
        resident, cold = self.plateaus(time)
        return cold - resident

    def ratio(self, of):
        """Return predicted over measured of a number that a curve has."""
        return of(self.predicted) / of(self.measured)


def knee(footprint, time, resident, cold):
    """Return where time first rises to half-way between two plateaus, between points by the log.

    A curve that starts slowly (few bytes do not fill the machine) has to come down first.
    """
    half = (resident + cold) / 2
    below = np.flatnonzero(time <= half)
    if not len(below):
        raise ValueError("the curve has no resident part")
    above = np.flatnonzero((time > half) & (np.arange(len(time)) > below[0]))
    if not len(above):
        raise ValueError("the curve has no cold part")
    at = above[0]
    share = (half - time[at - 1]) / (time[at] - time[at - 1])
    return footprint[at - 1] * (footprint[at] / footprint[at - 1]) ** share


def readers(footprint, units):
    """Return how many units read one byte at about the same time.

    Each unit has a block that reads a piece; with fewer pieces than units some read the same one,
    started together, and what one of them misses the others find. This belongs to the experiment,
    not to the cache.

    >>> readers(np.array([2 * PIECE, 10 * PIECE]), 4).tolist()
    [2.0, 1.0]
    """
    return np.maximum(1.0, units * PIECE / footprint)


def reading(footprint, designs):
    """Return the time of a byte when all units read a footprint round and round [s/B]."""
    units = designs["units.count"].item()
    every = np.array([[units]])
    missed = 1.0 - resident_share(footprint, designs)[:, 0]
    dram = missed / readers(footprint, units) / dram_bandwidth(every, designs, TILES).item()
    cache = np.full_like(footprint, 1.0 / l2_bandwidth(every, designs).item())
    return smooth_max(cache, dram, np.array(STREAM))


def public_points(file):
    """Return footprints [B] and bandwidth [B/s] of a public curve."""
    rows = [line.split() for line in file.read_text().splitlines()[1:]]
    found = np.array([(float(r[2]) * 1024, float(r[6]) * 1e9) for r in rows if len(r) > 6])
    return found[:, 0], found[:, 1]


def public(name):
    """Return the curve of a machine: read-only bandwidth against footprint."""
    arch = ns.load_arch(name)
    footprint, bandwidth = public_points(PUBLIC / f"{MACHINES[name]}.txt")
    capacity, units = arch["memories.l2.capacity"], arch["units.count"]
    far = max(4 * capacity, 2 * units * PIECE)  # and every piece has one reader
    return Curve(
        f"{name}, reads",
        footprint,
        1.0 / bandwidth,
        reading(footprint, Designs(arch)),
        footprint <= capacity / 2,
        (footprint >= far) & (footprint <= LONG),
        "GB/s",
    )


def h200(arch=None):
    """Yield the curves of the axis `l2_residency`: two GEMVs over weights in turn, one stream."""
    arch = arch or ns.load_arch("h200")
    rows = json.loads(AXES.read_text())
    axes = read_axes(AXES)
    told = predicted(axes, Designs(arch))[:, 0]
    capacity = arch["memories.l2.capacity"]
    series = {}
    for at, row in enumerate(axes.row):
        r = rows[row - 1]
        if r["axis"] == "l2_residency":
            gemv = r["op"] == "gemv"
            case = f"h200, GEMV {r['n']}x{r['k']}" if gemv else "h200, mul_scalar"
            mib = r["footprint_mb"] if gemv else r["mb_read"] + r["mb_write"]
            series.setdefault(case, []).append((mib * MIB, axes.seconds[at], told[at]))
    for case, points in series.items():
        footprint, seconds, model = np.array(sorted(points)).T
        gemv = "GEMV" in case
        each = 1.0 if gemv else footprint
        resident = footprint <= 0.56 * capacity  # two GEMV weights of 16.7 MiB belong to it
        if not gemv:
            resident &= footprint >= capacity / 4  # less does not fill the machine
        cold = footprint >= 1.05 * capacity
        yield Curve(case, footprint, seconds / each, model / each, resident, cold,
                    "us" if gemv else "GB/s")  # fmt: skip


def shown(time, unit):
    return f"{time * 1e6:.2f} µs" if unit == "us" else f"{1e-9 / time:,.0f} GB/s"


def told(c):
    """Return the row of a curve."""
    ends = " | ".join(
        f"{shown(m, c.unit)}, {shown(p, c.unit)} ({(p / m if c.unit == 'us' else m / p) - 1:+.0%})"
        for m, p in zip(c.plateaus(c.measured), c.plateaus(c.predicted), strict=True)
    )
    knees = c.knee(c.measured) / MIB, c.knee(c.predicted) / MIB
    return (
        f"| {c.case} | {ends} | {knees[0]:.1f}, {knees[1]:.1f} ({c.ratio(c.knee) - 1:+.0%}) "
        f"| {c.ratio(c.difference) - 1:+.0%} | {np.median(c.errors):.1%}, {c.errors.max():.1%} "
        f"| {len(c.footprint)} |"
    )


def draw(c, file):
    """Draw measured points and the predicted curve."""
    figure = Figure(figsize=(6.4, 2.6), layout="constrained")
    ax = figure.subplots()
    put = (lambda t: t * 1e6) if c.unit == "us" else (lambda t: 1e-9 / t)
    ax.scatter(c.footprint / MIB, put(c.measured), s=10, linewidths=0, color="#2a5d8f")
    ax.plot(c.footprint / MIB, put(c.predicted), color="#b3541e", linewidth=1.1)
    ax.set_xscale("log")
    ax.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter(NullFormatter())  # else labels would overlap
    ax.set_ylim(0, 1.08 * max(put(c.measured).max(), put(c.predicted).max()))
    ax.set_xlabel("footprint [MiB]")
    ax.set_ylabel("time [µs]" if c.unit == "us" else "bandwidth [GB/s]")
    ax.set_title(f"{c.case}: measured (points), predicted (line)", fontsize=9, loc="left")
    figure.savefig(file, dpi=90)


def curves():
    """Return all curves that can be made, and why others cannot."""
    found, absent = list(h200()), []
    for name, file in MACHINES.items():
        if (PUBLIC / f"{file}.txt").is_file():
            found.append(public(name))
        else:
            absent.append(f"{name} left out: its public curve is not beside the checkout")
    return found, absent


def report():
    """Draw the curves; yield the lines of a Markdown table and of its figures."""
    found, absent = curves()
    FIGURES.mkdir(exist_ok=True)
    yield HEAD.rstrip("\n")
    for number, c in enumerate(found):
        yield told(c)
        draw(c, FIGURES / f"cache{number:02d}.png")
    for number, c in enumerate(found):
        yield f"\n![{c.case}](accuracy/cache{number:02d}.png)"
    for why in absent:
        yield f"\n{why}."


if __name__ == "__main__":
    for line in report():
        print(line)
