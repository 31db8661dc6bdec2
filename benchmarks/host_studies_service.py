"""Requests of several clients in the three studies, by closed-loop simulation.

A way to serve is a function of the cost of a step, of the clients, and of by how much less a
request (or a group of them) blocks the engine: what is saved of vision and prefill.
"""

import host_studies_figures as study
import numpy as np

from npusim.serving import Fleet, LinearTimes, Policy, Pool, Request, serve
from npusim.step_cost import fit_step_cost

CLIENTS, EACH = 4, 8
MOST = 4  # max_num_seqs of the services
APART_S = 1e-3  # between clients whose answers are done together, on their way to the engine
SPREAD = (0.5, 1.4, 0.8, 1.0, 0.7, 1.8, 0.9, 0.9)  # sizes of images, as multiples of the usual one


def engine(cost, packed=False, group_s=0.0):
    """Return an engine that takes requests in before it decodes on: one by one, or all that wait.

    What a request takes before its first token is its ``work_s``; prompts have one token.
    """
    policy = Policy(MOST, mixed=False, one_by_one=not packed)
    return Fleet(Pool(LinearTimes(cost, group_s=group_s), policy))


def request(seconds, steps, outside_s=0.0):
    """Return a request that is taken in for so long, and decodes for so many steps."""
    return Request(1, steps + 1, work_s=seconds, outside_s=outside_s)


def asked_cost():
    """Return the cost of a step as the aggregate throughputs of seed 000 have it."""
    return fit_step_cost([1, 2], [study.AGGREGATE[n] for n in (1, 2)])


def alone():
    """Return prefill and step of a text request, fitted to the five that ran alone [s]."""
    seconds, tokens = np.array(study.ALONE).T
    table = np.column_stack([np.ones_like(tokens), tokens - 1])
    prefill, step = np.linalg.lstsq(table, seconds, rcond=None)[0]
    return float(prefill), float(step)


def runs_cost():
    """Return the cost of a step from runs in which one or two requests decoded throughout."""
    prefill, step = alone()
    full = [i for i, tokens in enumerate(study.PAIRS) if tokens[0] == tokens[1]]
    pair = np.mean([(max(study.PAIRS_S[i]) - 2 * prefill) / (study.PAIRS[i][0] - 1)
                    for i in full])  # fmt: skip
    return fit_step_cost([1, 2], [1 / step, 2 / pair])


def pairs(cost):
    """Return tokens a second of the five runs of two requests, simulated."""
    prefill = alone()[0]
    runs = ([[request(prefill, n - 1)] for n in tokens] for tokens in study.PAIRS)
    return [serve(sent, engine(cost)).tokens_per_s for sent in runs]


def taken_in(cost):
    """Return vision, prefill and all else of seed 001's request that is no decode step [s]."""
    return study.SEQUENTIAL_S - study.SHORT_STEPS * cost.time(1)


def one_by_one(cost, clients=CLIENTS, less=0.0, sizes=(1.0,)):
    """Serve short answers; the engine takes in one request after another."""
    whole = taken_in(cost)
    requests = [request(whole * size - less, study.SHORT_STEPS) for size in sizes]
    sent = [[requests[(n * clients + c) % len(sizes)] for n in range(EACH)]
            for c in range(clients)]  # fmt: skip
    return serve(sent, engine(cost))


def packed(cost, clients=CLIENTS, less=0.0, apart_s=APART_S):
    """Serve short answers; all that wait are taken in for what one of them costs: host work.

    Clients reach the engine one after another, so that the first of them finds it idle and is
    taken in alone; with ``apart_s=0`` all are taken in at once.
    """
    sent = [[request(0.0, study.SHORT_STEPS, c * apart_s)] * EACH for c in range(clients)]
    return serve(sent, engine(cost, packed=True, group_s=taken_in(cost) - less))


def together(cost, clients=CLIENTS, less=0.0):
    return packed(cost, clients, less, apart_s=0.0)


def long_answers(cost, clients=CLIENTS, less=0.0):
    """Serve answers so long that one alone takes as long as seed 002's single request."""
    whole = taken_in(cost)
    steps = round((study.SINGLE_S[0] - whole) / cost.time(1))
    return serve([[request(whole - less, steps)] * EACH] * clients, engine(cost))


WAYS = (
    ("7.4 s are a warm request with a long answer", long_answers),
    ("7.4 s are a first request; later ones short, taken in one by one", one_by_one),
    ("the same, packed, the first of four alone", packed),
    ("the same, packed, all four together", together),
)


def saved_s():
    """Return what seed 002 saves of its single request [s]."""
    return study.SINGLE_S[0] - study.SINGLE_S[1]


def cached_s():
    """Return what a request saves whose image is encoded already, in the sequential run [s]."""
    return study.SEQUENTIAL_S - study.ENCODER_CACHED_S


def change(way, cost, less, **how):
    """Return the relative change of mean, P50 and P95."""
    before, after = (way(cost, less=x, **how).summaries()["latency"] for x in (0.0, less))
    return {"mean": after.mean_s / before.mean_s - 1, "P50": after.p50_s / before.p50_s - 1,
            "P95": after.p95_s / before.p95_s - 1}  # fmt: skip


def paid(way, cost, clients, less=1e-3, **how):
    """Return by how much the mean latency falls for each second that is blocked less."""
    before, after = (way(cost, clients, less=x, **how).latency_s.mean() for x in (0.0, less))
    return (before - after) / less


def needed_s(way, cost):
    """Return what must be saved of a request (or group) for the measured change of the mean."""
    return -study.GAIN["mean"] * way(cost).latency_s.mean() / paid(way, cost, CLIENTS)
