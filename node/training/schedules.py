"""Learning-rate schedules: pure functions of a step and of the run's length, by name for `--schedule`.

A schedule is a factor of the base rate, of sums, products and quotients alone, so that it is the same float64 on every
machine. `warmup` raises it linearly over so many steps (Goyal et al. 2017), and the schedule itself goes over those
that are left.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from btard.node.config import RunConfig
from btard.node.errors import ConfigError
from btard.node.training.registry import SCHEDULES, schedule

Factor = Callable[[int, int], float]
"""`(step, total_steps) -> factor of the base rate`."""


@schedule("cosine", source="Loshchilov and Hutter 2017 (SGDR), equation 5 without restarts")
def cosine(step: int, total: int, *, minimum: float = 0.0, warmup: int = 0) -> float:
    """From 1 along half a cosine to `minimum`, which it keeps after the last step."""
    return minimum + (1.0 - minimum) * 0.5 * (1 + _cosine(_progress(step, total, warmup)))


@schedule("linear", source="You et al. 2020 (polynomial decay of power 1)")
def linear(step: int, total: int, *, minimum: float = 0.0, warmup: int = 0) -> float:
    """From 1 along a straight line to `minimum`, which it keeps after the last step."""
    return 1.0 - (1.0 - minimum) * _progress(step, total, warmup)


@schedule("constant", source="Robbins and Monro 1951")
def constant(step: int, total: int, *, warmup: int = 0) -> float:
    """1 in every step."""
    return 1.0


@schedule("step", source="He et al. 2016, section 4.2")
def step_decay(step: int, total: int, *, every: int = 300, gamma: float = 0.1, warmup: int = 0) -> float:
    """Multiplied by `gamma` after every so many steps."""
    return math.prod([float(gamma)] * ((step - warmup) // every))


@dataclass(frozen=True, slots=True)
class LearningRate:
    """The rate of each step.

    Args:
        base: rate at factor 1.
        total_steps: T.
        factor: the schedule, from step `warmup` on.
        warmup: steps over which the rate rises to the base.
    """

    base: float
    total_steps: int
    factor: Factor = cosine
    warmup: int = 0

    def __call__(self, step: int) -> float:
        """Learning rate of a step, in float64."""
        return self.base * ((step + 1) / self.warmup if step < self.warmup else self.factor(step, self.total_steps))


def learning_rate(run: RunConfig) -> LearningRate:
    """The rates of a run.

    Raises:
        ConfigError: an unknown schedule or parameter, or a value out of range.
    """
    name, parameters = run.schedule.name, run.schedule.parameters
    SCHEDULES.check(name, parameters)
    ranges = {"minimum": (0, 1), "gamma": (0, 1), "warmup": (0, math.inf), "every": (1, math.inf)}
    for key, value in parameters.items():
        low, high = ranges.get(key, (-math.inf, math.inf))
        if not (isinstance(value, int | float) and low <= value <= high):
            raise ConfigError(f"--schedule {name}: {key}={value} must lie between {low} and {high}")
    factor = partial(SCHEDULES.get(name).target, **parameters)
    return LearningRate(run.lr, run.steps, factor, parameters.get("warmup", 0))


def _cosine(share: float) -> float:
    """cos(pi share) of a share in [0, 1] within 1e-15, by Taylor's polynomial: a C library's last bit is its own."""
    angle, result = math.pi * min(share, 1.0 - share), 1.0
    for order in range(22, 0, -2):
        result = 1.0 - angle * angle / (order * (order - 1)) * result
    return result if share <= 0.5 else -result


def _progress(step: int, total: int, warmup: int) -> float:
    """Share of the steps after the warm-up that are over, at most 1."""
    return min((step - warmup) / max(total - warmup, 1), 1.0)
