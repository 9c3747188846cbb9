"""What the core counts on in a rule: asked of each that there is, and of what an attacker puts around its own."""

from __future__ import annotations

import math

import pytest
import torch

from btard.node.adversary.attacks.false_rule import FalseRule
from btard.node.aggregation.factory import build_rule
from btard.node.aggregation.registry import RULES
from btard.node.config import Plugin
from btard.node.protocol.rule import Aggregated, Rule

CASES = [(entry.name, dict(entry.examples[0]) if entry.examples else {}) for entry in RULES]


def rows() -> torch.Tensor:
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(("name", "parameters"), CASES, ids=[name for name, _ in CASES])
def test_rows_beside_one_another_and_rows_where_they_lie_have_one_aggregate(
    name: str, parameters: dict[str, object]
) -> None:
    rule, inputs_NP = build_rule(Plugin(name, parameters)), rows()
    found = rule.aggregate(inputs_NP, 1.0)
    assert found.value_P.is_contiguous()
    assert rule.aggregate([row.clone() for row in inputs_NP], 1.0).value_P.equal(found.value_P)
    assert rule.audited is math.isinf(rule.slack([1.0] * 7, 1.0)), "a residual is promised, or parts are audited"


def test_an_attackers_rule_differs_in_its_own_aggregates_alone() -> None:
    true = build_rule(Plugin("mean"))
    false: Rule = FalseRule(true, lambda made: Aggregated(-made.value_P, made.iterations))
    value_P = true.aggregate(rows(), 1.0).value_P
    assert false.aggregate(rows(), 1.0).value_P.equal(-value_P)
    assert false.accepts(rows(), value_P, 1.0) and not false.accepts(rows(), -value_P, 1.0)
    assert (false.audited, false.clip_radius(1.0), false.slack([1.0], 1.0)) == (
        true.audited,
        true.clip_radius(1.0),
        true.slack([1.0], 1.0),
    )
