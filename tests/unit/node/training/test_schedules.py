"""node/training/schedules.py: the rate of each step, and what cannot be one."""

from __future__ import annotations

import math
from typing import Any

import pytest

from btard.node.config import Plugin, RunConfig
from btard.node.errors import ConfigError
from btard.node.training.schedules import LearningRate, learning_rate


def rates(name: str, steps: int = 10, **parameters: Any) -> list[float]:
    rate = learning_rate(RunConfig(lr=0.5, steps=steps, schedule=Plugin(name, parameters)))
    return [rate(step) for step in range(steps + 2)]


@pytest.mark.parametrize(("step", "rate"), [(0, 0.05), (450, 0.025), (900, 0.0), (901, 0.0)])
def test_cosine_anneals_to_zero(step: int, rate: float) -> None:
    assert LearningRate(0.05, 900)(step) == pytest.approx(rate, abs=1e-12)


@pytest.mark.parametrize("base", [0.05, 0.1, 1 / 3, 1e-7])
def test_cosine_is_half_the_rate_times_one_plus_cosine(base: float) -> None:
    for step in range(901):
        expected = base / 2 * (1 + math.cos(math.pi * (step / 900)))
        assert LearningRate(base, 900)(step) == pytest.approx(expected, rel=0, abs=2e-15 * base)


def test_a_rate_comes_from_no_c_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last bit differs between libraries, and a rate is part of every update."""
    for name in ("cos", "sin", "pow", "exp"):
        monkeypatch.delattr(math, name)
    assert rates("cosine", warmup=2)[2] == 0.5
    assert rates("step", 40, every=1, gamma=0.3)[2:4] == [0.5 * (0.3 * 0.3), 0.5 * (0.3 * 0.3 * 0.3)]


CASES = [
    ("constant", {}, [0.5] * 12),
    ("linear", {}, [0.5 - 0.05 * step for step in range(10)] + [0.0, 0.0]),
    ("linear", {"minimum": 0.5, "warmup": 5}, [0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.45, 0.4, 0.35, 0.3, 0.25, 0.25]),
    ("step", {"every": 4, "gamma": 0.5}, [0.5] * 4 + [0.25] * 4 + [0.125] * 4),
    ("step", {"every": 5, "warmup": 2}, [0.25, 0.5] + [0.5] * 5 + [0.05] * 5),
    ("constant", {"warmup": 10}, [0.05 * (step + 1) for step in range(10)] + [0.5, 0.5]),
    ("cosine", {"warmup": 10}, [0.05 * (step + 1) for step in range(10)] + [0.5, 0.0]),
    ("linear", {"warmup": 20}, [0.025 * (step + 1) for step in range(12)]),
    ("cosine", {"minimum": 1.0}, [0.5] * 12),
]


@pytest.mark.parametrize(("name", "parameters", "wanted"), CASES, ids=[f"{row[0]} {row[1]}" for row in CASES])
def test_rates(name: str, parameters: Any, wanted: list[float]) -> None:
    assert rates(name, **parameters) == pytest.approx(wanted)


REFUSED = [
    ("cosin", {}, "did you mean 'cosine'"),
    ("constant", {"minimum": 0.1}, "no parameter 'minimum'"),
    ("cosine", {"warmup": -1}, "warmup=-1 must lie between 0 and inf"),
    ("cosine", {"warmup": 1.5}, "warmup=1.5 must be a int"),
    ("linear", {"minimum": -0.5}, "minimum=-0.5 must lie between 0 and 1"),
    ("step", {"every": 0}, "every=0 must lie between 1 and inf"),
    ("step", {"gamma": float("nan")}, "gamma=nan must lie between 0 and 1"),
]


@pytest.mark.parametrize(("name", "parameters", "problem"), REFUSED, ids=[row[2] for row in REFUSED])
def test_what_is_no_schedule(name: str, parameters: Any, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem):
        rates(name, **parameters)
