"""Cycles of a systolic array, held against registers that move cycle by cycle, and SCALE-Sim."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npusim.models.systolic_cycles import cycles, folds, streamed
from npusim.units import CHOICES

FLOWS = CHOICES["dataflow"]
NOTHING = -1

# --- registers that move -----------------------------------------------------------------------
# Both machines below know nothing of any formula: their controllers look at registers only, and
# what leaves them is the product.


def cut(a, high, wide):
    """Return a matrix in padded blocks, by rows and columns of blocks."""
    full = np.zeros((math.ceil(a.shape[0] / high) * high, math.ceil(a.shape[1] / wide) * wide))
    full[: a.shape[0], : a.shape[1]] = a
    return [np.hsplit(rows, full.shape[1] // wide) for rows in np.vsplit(full, len(full) // high)]


class Stationary:
    """An array whose elements keep weights: inputs go right, sums go down.

    Weights come down a chain of each column, one a cycle, and each row catches its own. With double
    registers they wait beside those at work, until the first input of their fold passes.
    """

    def __init__(self, rows, columns, double):
        self.shape, self.double = (rows, columns), double
        self.active, self.waiting, self.sums = (np.zeros(self.shape) for _ in range(3))
        self.waits_for, self.at_work = (np.full(self.shape, NOTHING) for _ in range(2))
        self.x, self.chain = np.zeros(self.shape), np.zeros(self.shape)
        self.x_fold, self.x_step, self.chain_fold, self.chain_row = (
            np.full(self.shape, NOTHING) for _ in range(4)
        )

    def run(self, inputs, weights):
        """Return the sums of each fold, and the cycles until the last has left."""
        rows, columns = self.shape
        steps = len(inputs[0])
        out = [np.full((steps, columns), np.nan) for _ in inputs]
        loads, starts, left = [], [], 0
        for now in itertools.count():
            idle = not starts or now - starts[-1] >= steps
            if len(starts) < len(loads) and idle and now - loads[-1] >= rows:
                starts.append(now)
            empty = left == len(starts) * steps * columns
            if len(loads) == len(starts) < len(weights) and (self.double or empty):
                loads.append(now)  # the corner takes the weight before it in this very cycle
            self.move(now, inputs, weights, loads, starts)
            at = np.flatnonzero(self.x_fold[-1] != NOTHING)
            for c in at:
                out[self.x_fold[-1, c]][self.x_step[-1, c], c] = self.sums[-1, c]
            left += len(at)
            if left == len(weights) * steps * columns:
                return out, now + 1

    def move(self, now, inputs, weights, loads, starts):
        """Move everything by one element, and multiply."""
        rows, columns = self.shape
        for a in (self.x, self.x_fold, self.x_step):
            a[:, 1:] = a[:, :-1].copy()
            a[:, 0] = NOTHING
        for fold, start in enumerate(starts):
            for r in range(rows):
                if 0 <= now - start - r < len(inputs[fold]):
                    step = now - start - r
                    self.x[r, 0] = inputs[fold][step, r]
                    self.x_fold[r, 0], self.x_step[r, 0] = fold, step
        works = self.x_fold != NOTHING
        if self.double:
            new = works & (self.x_fold != self.at_work)
            assert (self.waits_for[new] == self.x_fold[new]).all()
            self.active[new], self.at_work[new] = self.waiting[new], self.x_fold[new]
            self.waits_for[new] = NOTHING
        assert (self.at_work[works] == self.x_fold[works]).all()
        above = np.vstack([np.zeros((1, columns)), self.sums[:-1]])
        self.sums = np.where(works, above + self.x * self.active, 0.0)
        self.load(now, weights, loads)

    def load(self, now, weights, loads):
        """Move the weights down, and catch those that have come to their row."""
        rows, columns = self.shape
        for a in (self.chain, self.chain_fold, self.chain_row):
            a[1:] = a[:-1].copy()
            a[0] = NOTHING
        for fold, load in enumerate(loads):
            for c in range(columns):
                if 0 <= now - load - c < rows:
                    row = now - load - c
                    self.chain[0, c] = weights[fold][row, c]
                    self.chain_fold[0, c], self.chain_row[0, c] = fold, row
        caught = (self.chain_row == np.arange(rows)[:, None]) & (self.chain_fold != NOTHING)
        if self.double:
            assert (self.waits_for[caught] == NOTHING).all()  # nothing is overwritten
            self.waiting[caught], self.waits_for[caught] = (
                self.chain[caught], self.chain_fold[caught])  # fmt: skip
        else:
            self.active[caught], self.at_work[caught] = (
                self.chain[caught], self.chain_fold[caught])  # fmt: skip


def run_output(rows, columns, double, inputs, weights):
    """Return the results of each fold, and the cycles, of an array whose elements keep results.

    Inputs go right, weights go down. A wire of each column takes one result a cycle, lowest row
    first; with double registers a finished one waits beside the next.
    """
    shape, steps = (rows, columns), inputs[0].shape[1]
    sums, x, w = (np.zeros(shape) for _ in range(3))
    x_at, w_at = np.full((*shape, 2), NOTHING), np.full((*shape, 2), NOTHING)
    waiting, waits = np.zeros(shape), np.full(shape, NOTHING)
    out, starts, left = [np.full(shape, np.nan) for _ in inputs], [], 0
    first_column = 0  # results that its wire has taken
    for now in itertools.count():
        idle = not starts or now - starts[-1] >= steps
        behind = len(starts) * rows - first_column
        ready = behind <= steps - 1 if double else left == len(starts) * rows * columns
        if len(starts) < len(inputs) and idle and (ready or not starts):
            starts.append(now)
        for a in (x, x_at):
            a[:, 1:] = a[:, :-1].copy()
        for a in (w, w_at):
            a[1:] = a[:-1].copy()
        x_at[:, 0], w_at[0] = NOTHING, NOTHING
        for fold, start in enumerate(starts):
            for r in range(rows):
                if 0 <= now - start - r < steps:
                    x[r, 0] = inputs[fold][r, now - start - r]
                    x_at[r, 0] = fold, now - start - r
            for c in range(columns):
                if 0 <= now - start - c < steps:
                    w[0, c] = weights[fold][now - start - c, c]
                    w_at[0, c] = fold, now - start - c
        assert (x_at == w_at).all()  # what meets belongs together
        works, new = x_at[..., 1] != NOTHING, x_at[..., 1] == 0
        sums = np.where(works, np.where(new, 0.0, sums) + x * w, sums)
        done = x_at[..., 1] == steps - 1
        assert (waits[done] == NOTHING).all()  # nothing is overwritten
        waiting[done], waits[done] = sums[done], x_at[done, 0]
        for c in range(columns):
            held = [(waits[r, c], r) for r in range(rows) if waits[r, c] != NOTHING]
            if held:
                fold, r = min(held)
                out[fold][r, c], waits[r, c] = waiting[r, c], NOTHING
                left += 1
                first_column += c == 0
        if left == len(inputs) * rows * columns:
            return out, now + 1


def simulate(flow, double, rows, columns, *pairs):
    """Return the cycles of products, one chain of folds; check that they are the products."""
    if flow == "input":  # the inputs stay: the machine of weights with its operands exchanged
        return simulate("weight", double, rows, columns, *((w.T, x.T) for x, w in pairs))
    inputs, weights, places = [], [], []
    sums = [np.zeros((math.ceil(len(x) / rows) * rows, math.ceil(w.shape[1] / columns) * columns))
            for x, w in pairs]  # fmt: skip
    for of, (x, w) in enumerate(pairs):
        if flow == "output":
            across = cut(w, len(w), columns)[0]
            down = [row[0] for row in cut(x, rows, x.shape[1])]
            for (i, a), (j, b) in itertools.product(enumerate(down), enumerate(across)):
                inputs.append(a)
                weights.append(b)
                places.append((of, slice(i * rows, (i + 1) * rows), j))
        else:
            slices, parts = cut(x, len(x), rows)[0], cut(w, rows, columns)
            for j, i in itertools.product(range(len(parts[0])), range(len(parts))):
                inputs.append(slices[i])
                weights.append(parts[i][j])
                places.append((of, slice(0, len(x)), j))
    if flow == "output":
        out, taken = run_output(rows, columns, double, inputs, weights)
    else:
        out, taken = Stationary(rows, columns, double).run(inputs, weights)
    for (of, lines, j), found in zip(places, out, strict=True):
        sums[of][lines, j * columns : (j + 1) * columns] += found
    for (x, w), found in zip(pairs, sums, strict=True):
        assert np.array_equal(found[: len(x), : w.shape[1]], x @ w)
    return taken


def numbers(m, n, k, seed=0):
    values = np.random.default_rng(seed)
    return values.integers(-4, 5, (m, k)).astype(float), values.integers(-4, 5, (k, n)).astype(
        float
    )


def formula(flow, double, rows, columns, m, n, k, products=1, chains=1):
    one = np.ones(1)
    array = rows * one, columns * one, FLOWS.index(flow) * one
    count = folds(m * one, n * one, k * one, *array) * products
    stream = streamed(m * one, n * one, k * one, array[2])
    return cycles(count, stream, *array, double * one, chains * one).item()


SIZES = ((1, 1, 1), (1, 7, 9), (5, 1, 9), (5, 7, 1), (3, 8, 12), (9, 5, 11), (4, 4, 4), (14, 3, 2))
ARRAYS = ((1, 1), (1, 4), (4, 1), (2, 5), (5, 2), (4, 4))


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("double", [0, 1])
@pytest.mark.parametrize("array", ARRAYS)
@pytest.mark.parametrize("size", SIZES)
def test_cycles_are_those_of_registers_that_move(flow, double, array, size):
    assert formula(flow, double, *array, *size) == simulate(flow, double, *array, numbers(*size))


SIDE = st.integers(1, 12)


@settings(max_examples=60)
@given(flow=st.sampled_from(FLOWS), double=st.integers(0, 1), rows=st.integers(1, 6),
       columns=st.integers(1, 6), m=SIDE, n=SIDE, k=SIDE)  # fmt: skip
def test_cycles_of_any_product_are_those_of_registers(flow, double, rows, columns, m, n, k):
    found = simulate(flow, double, rows, columns, numbers(m, n, k))
    assert formula(flow, double, rows, columns, m, n, k) == found


@pytest.mark.parametrize("flow", FLOWS)
def test_products_in_one_chain_fill_and_drain_once(flow):
    rows, columns, size = 3, 4, (2, 6, 5)
    pairs = [numbers(*size, seed) for seed in range(3)]
    together = simulate(flow, 1, rows, columns, *pairs)
    assert formula(flow, 1, rows, columns, *size, products=3) == together
    apart = sum(simulate(flow, 1, rows, columns, pair) for pair in pairs)
    assert formula(flow, 1, rows, columns, *size, products=3, chains=3) == apart > together


# --- SCALE-Sim ---------------------------------------------------------------------------------

SHORT = {"weight": "ws", "output": "os", "input": "is"}
CASES = [  # rows, columns, m, n, k
    (8, 8, 5, 20, 30),  # odd sizes
    (4, 16, 1, 33, 17),  # GEMV on a wide array
    (16, 16, 64, 48, 40),
    (32, 8, 100, 37, 65),  # a tall array
    (8, 128, 1, 1280, 128),  # GEMV on a narrow array, and on a wide one of the same area
    (4, 256, 1, 1280, 64),
    (8, 128, 8, 640, 320),
    (16, 64, 128, 128, 128),
    (64, 64, 100, 100, 100),
    (1, 32, 3, 70, 50),
]


def scale_sim(flow, rows, columns, m, n, k):
    """Return the cycles of SCALE-Sim's arrays, all operands being there in time.

    Its memories are left out: with operands always there they add nothing but a cycle less (they
    count from zero), and version 3.0.0 breaks in them under NumPy 2.4.
    """
    pytest.importorskip("scalesim", reason="SCALE-Sim is not installed")
    from importlib import import_module

    from scalesim.scale_config import scale_config

    config = scale_config()
    config.array_rows, config.array_cols, config.df = rows, columns, SHORT[flow]
    config.valid_conf_flag = True
    module = import_module(f"scalesim.compute.systolic_compute_{SHORT[flow]}")
    array = getattr(module, f"systolic_compute_{SHORT[flow]}")()
    addresses = np.arange(m * k + k * n + m * n)
    x, w, y = np.split(addresses, [m * k, m * k + k * n])
    array.set_params(config_obj=config, ifmap_op_mat=x.reshape(m, k), filter_op_mat=w.reshape(k, n),
                     ofmap_op_mat=y.reshape(m, n))  # fmt: skip
    (length,) = {len(demand) for demand in array.get_demand_matrices()}
    return length


@pytest.mark.parametrize("flow", FLOWS)
@pytest.mark.parametrize("case", CASES)
def test_cycles_are_those_of_scale_sim(flow, case):
    assert formula(flow, 0, *case) == pytest.approx(scale_sim(flow, *case), rel=0.02)
