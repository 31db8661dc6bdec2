"""Requests through serving engines: arrivals, continuous batching, KV blocks, several engines.

Times of steps come from outside (`npusim.serving.step.StepTimes`): a few numbers of a machine that
was measured, or replays on a machine that was not (`npusim.step_times`).
"""

from __future__ import annotations

from npusim.serving.fleet import ROUTES, Fleet, Pool, Transfer
from npusim.serving.outcome import Limits, Outcome
from npusim.serving.policy import Policy
from npusim.serving.request import Request
from npusim.serving.simulate import serve
from npusim.serving.step import LinearTimes, Step, StepTimes

__all__ = ["ROUTES", "Fleet", "Limits", "LinearTimes", "Outcome", "Policy", "Pool", "Request",
           "Step", "StepTimes", "Transfer", "serve"]  # fmt: skip
