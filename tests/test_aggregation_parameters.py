"""Numeric parameters of every rule and pre-aggregation: each has a range, and is held to it when the rule is built."""

from __future__ import annotations

import math

import pytest
import torch

from btard.launcher.options.syntax import written
from btard.launcher.run import plan
from btard.launcher.run.experiment import Experiment
from btard.node.aggregation import geometric_median
from btard.node.aggregation.factory import build_rule
from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES
from btard.node.config import Plugin
from btard.node.errors import ConfigError

COUNT = (-1, 0.5, 2.0, math.nan, math.inf)
POSITIVE = (0, -1, -0.5, math.nan, math.inf)
BAD = {
    "f": COUNT,
    "m": (0, *COUNT),
    "s": (0, -1, 1.5),
    "eps": (0, -1e-6, 1e-9, 1, math.nan, math.inf),
    "smoothing": POSITIVE,
    "scale": (*POSITIVE, 2.0**41),
}
ANY = {"own", "seed"}
"""Whole numbers of which each has a meaning."""
OF_THE_RUN = {"radius", "allow_weak"}
"""Set by other options; `check_names` refuses them."""

STAGES = [(registry, entry) for registry in (RULES, PRE_AGGREGATIONS) for entry in registry]
ROWS = [
    pytest.param(registry is PRE_AGGREGATIONS, Plugin(entry.name, {name: value}), id=f"{entry.name}-{name}={value}")
    for registry, entry in STAGES
    for name in entry.parameters
    for value in BAD.get(name, ())
]


def test_every_parameter_has_a_range() -> None:
    """A newcomer's parameter needs a row above, or a reason for none."""
    taken = {name for _, entry in STAGES for name in entry.parameters}
    assert taken == BAD.keys() | ANY | OF_THE_RUN


@pytest.mark.parametrize(("in_front", "bad"), ROWS)
def test_a_parameter_out_of_range_is_refused_before_anything_starts(in_front: bool, bad: Plugin) -> None:
    """Whether or not the number of peers would do, and before it is asked for."""
    with pytest.raises(ConfigError) as caught:
        build_rule(Plugin("median"), (bad,)) if in_front else build_rule(bad)
    message = str(caught.value)
    (name,) = bad.parameters
    assert repr(bad.name) in message and name in message and "\n" not in message
    for peers in (2, 24):
        options = {"task": "quadratic", "device": "cpu", "peers": peers, "validators": 0}
        with pytest.raises(ConfigError) as planned:
            plan.make(Experiment(rule=written(bad) + "+median" * in_front, **options))
        assert repr(bad.name) in str(planned.value) and name in str(planned.value)


@pytest.mark.parametrize("name", sorted(ANY))
def test_any_whole_number_will_do(name: str) -> None:
    for registry, entry in STAGES:
        for value in (-7, 0, 10**6) if name in entry.parameters else ():
            plugin = Plugin(entry.name, {name: value})
            made = build_rule(plugin) if registry is RULES else build_rule(Plugin("median"), (plugin,))
            assert bool(made.aggregate(torch.eye(5), 1.0).value_P.isfinite().all())


def test_the_stage_at_fault_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^pre-aggregation 'bucketing': s=0 must be at least 1; `btard-launch"):
        build_rule(Plugin("median"), (Plugin("nnm"), Plugin("bucketing", {"s": 0})))
    with pytest.raises(ConfigError, match=r"^rule 'geometric_median': smoothing -1 must be a positive, finite number"):
        build_rule(Plugin("geometric_median", {"smoothing": -1}))


def test_a_smoothing_whose_square_overflows_smooths_everything() -> None:
    """Within the radius every distance counts quadratically: the mean."""
    rows = torch.tensor([[0.0, 1.0], [3.0, 5.0], [6.0, 3.0]])
    assert geometric_median(rows, smoothing=1e300).tolist() == [3.0, 3.0]
