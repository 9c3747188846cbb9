"""Rules by name and the form of them that the protocol runs and judges with."""

import math

import pytest
import torch

import btard.node.aggregation
from btard.node.aggregation import centered_clip, krum, mean, median
from btard.node.aggregation.factory import build_rule
from btard.node.aggregation.pre import clipping, nnm
from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES
from btard.node.config import Plugin
from btard.node.errors import ConfigError

EXAMPLES = [
    pytest.param(entry, dict(example), id=f"{entry.name}-{index}")
    for entry in RULES
    for index, example in enumerate(entry.examples)
]


def part(seed=0, count=6, columns=2000):
    inputs_NP = torch.randn(count, columns, generator=torch.Generator().manual_seed(seed))
    inputs_NP[: count // 3] *= 1000
    return inputs_NP


def test_lists_its_folder():
    assert [entry.name for entry in RULES] == [
        "bulyan", "caf", "centered_clip", "cge", "geometric_median", "krum", "mda", "meamed", "mean", "median", "monna",
        "multi_krum", "norm_clip", "sign_vote", "smea", "trimmed_mean",
    ]  # fmt: skip
    assert [entry.name for entry in PRE_AGGREGATIONS] == ["arc", "bucketing", "clipping", "nnm"]
    for entry in (*RULES, *PRE_AGGREGATIONS):
        assert entry.summary and entry.source and entry.examples, entry.name
        assert "Source:" in (entry.target.__doc__ or ""), entry.name


def test_every_rule_is_a_plain_function_of_the_package():
    for entry in RULES:
        assert getattr(btard.node.aggregation, entry.name) is entry.target
    for entry in PRE_AGGREGATIONS:
        assert getattr(btard.node.aggregation.pre, entry.name) is entry.target


@pytest.mark.parametrize("entry", list(RULES), ids=lambda entry: entry.name)
def test_a_rule_that_takes_f_has_a_condition(entry):
    assert ("f" in entry.parameters) == (entry.facts["condition"] is not None) == ("allow_weak" in entry.parameters)


@pytest.mark.parametrize("pre", list(PRE_AGGREGATIONS), ids=lambda entry: entry.name)
@pytest.mark.parametrize("entry", list(RULES), ids=lambda entry: entry.name)
def test_every_pre_aggregation_composes_with_every_rule(pre, entry):
    rule = build_rule(Plugin(entry.name), (Plugin(pre.name, dict(pre.examples[-1])),))
    for count in (6, 5, 2, 1):  # as few as a run may come to
        aggregated = rule.aggregate(part(count=count), 50.0)
        assert aggregated.value_P.shape == (2000,)
        assert rule.accepts(part(count=count), aggregated.value_P, 50.0)
    assert rule.audited
    assert rule.clip_radius(50.0) == math.inf


def test_pre_aggregations_apply_from_left_to_right():
    inputs_NP = part()
    rule = build_rule(Plugin("krum", {"f": 1}), (Plugin("clipping"), Plugin("nnm")))
    expected_P = krum(nnm(clipping(inputs_NP, radius=50.0), f=1), f=1)
    assert torch.equal(rule.aggregate(inputs_NP, 50.0).value_P, expected_P), "nnm takes the rule's f"
    own = build_rule(Plugin("krum", {"f": 1}), (Plugin("nnm", {"f": 2}),))
    assert torch.equal(own.aggregate(inputs_NP, 50.0).value_P, krum(nnm(inputs_NP, f=2), f=1))


def test_f_falls_with_the_rows_and_stays_where_weakness_is_allowed():
    """Nine rows admit f = 3 for Krum; five of them, after removals, f = 1."""
    inputs_NP = part(count=9)
    strong, weak = (build_rule(Plugin("krum", {"f": 3}), allow_weak=allowed) for allowed in (False, True))
    five_NP = inputs_NP[:5]
    assert torch.equal(strong.aggregate(inputs_NP, 1.0).value_P, krum(inputs_NP, f=3))
    assert torch.equal(strong.aggregate(five_NP, 1.0).value_P, krum(five_NP, f=1))
    assert torch.equal(weak.aggregate(five_NP, 1.0).value_P, krum(five_NP, f=2, allow_weak=True))


@pytest.mark.parametrize(("entry", "example"), EXAMPLES)
def test_a_judge_accepts_what_a_rule_computes(entry, example):
    """Every registered rule with each of its examples: one row adds a newcomer's file to this table by itself."""
    rule = build_rule(Plugin(entry.name, example))
    inputs_NP = part()
    before_NP = inputs_NP.clone()
    aggregated = rule.aggregate(inputs_NP, 50.0)
    assert aggregated.value_P.dtype == torch.float32
    assert aggregated.value_P.shape == (2000,)
    assert aggregated.iterations >= 1
    assert torch.equal(inputs_NP, before_NP)
    assert rule.accepts(inputs_NP, aggregated.value_P, 50.0)


@pytest.mark.parametrize(("entry", "example"), EXAMPLES)
def test_a_judge_rejects_a_shifted_value(entry, example):
    rule = build_rule(Plugin(entry.name, example))
    value_P = rule.aggregate(part(), 50.0).value_P
    assert not rule.accepts(part(), value_P + 0.01 * value_P.abs().max(), 50.0)


@pytest.mark.parametrize(("entry", "example"), EXAMPLES)
def test_a_judge_rejects_malformed_values(entry, example):
    rule = build_rule(Plugin(entry.name, example))
    value_P = rule.aggregate(part(), 50.0).value_P
    spoiled_P = value_P.clone()
    spoiled_P[3] = math.nan
    for bad in (spoiled_P, value_P[:-1], value_P.double(), value_P[None]):
        assert not rule.accepts(part(), bad, 50.0)


@pytest.mark.parametrize(
    ("name", "function", "audited", "clips"),
    [("centered_clip", centered_clip, False, True), ("mean", mean, False, False), ("median", median, True, False)],
)
def test_what_a_rule_declares(name, function, audited, clips):
    rule = build_rule(Plugin(name))
    expected_P = function(part(), radius=50.0) if clips else function(part())
    assert torch.equal(rule.aggregate(part(), 50.0).value_P, expected_P)
    assert rule.audited is audited
    assert rule.clip_radius(50.0) == (50.0 if clips else math.inf)


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (Plugin("centered_clip"), 1e-6 * 7.0),
        (Plugin("centered_clip", {"eps": 1e-3}), 1e-3 * 7.0),
        (Plugin("mean"), 2.0**-40 * 9.0),
        (Plugin("median"), math.inf),
    ],
    ids=["eps radius", "another eps", "rounding of the largest", "no residual"],
)
def test_slack(plugin, expected):
    assert build_rule(plugin).slack([1.0, 9.0, 4.0], 7.0) == pytest.approx(expected, rel=1e-12)


def test_accepts_up_to_twice_the_tolerance():
    """Rows far within the radius: a shift e of the aggregate leaves the residual n ||e||."""
    rule = build_rule(Plugin("centered_clip", {"eps": 1e-3}))
    inputs_NP = torch.zeros(5, 10)
    value_P = torch.zeros(10)
    value_P[0] = 1.99e-3
    assert rule.accepts(inputs_NP, value_P, 1.0)
    value_P[0] = 2.01e-3
    assert not rule.accepts(inputs_NP, value_P, 1.0)


@pytest.mark.parametrize("name", [entry.name for entry in RULES])
def test_non_finite_inputs_are_the_callers_error(name):
    rule = build_rule(Plugin(name))
    inputs_NP = torch.full((3, 2), math.nan)
    with pytest.raises(ValueError, match="row 0"):
        rule.aggregate(inputs_NP, 1.0)
    with pytest.raises(ValueError, match="row 0"):
        rule.accepts(inputs_NP, torch.zeros(2), 1.0)


@pytest.mark.parametrize(
    ("plugin", "message"),
    [
        (Plugin("centred_clip"), "did you mean 'centered_clip'"),
        (Plugin("centered_clip", {"radius": 3.0}), "use --tau"),
        (Plugin("mean", {"radius": 3.0}), "use --tau"),
        (Plugin("centered_clip", {"eps": 0.0}), "eps 0.0 must lie in"),
        (Plugin("centered_clip", {"eps": "small"}), "must be a float"),
        (Plugin("centered_clip", {"epz": 1e-6}), "did you mean 'eps'"),
        (Plugin("median", {"eps": 1e-6}), "it takes none"),
        (Plugin("krum", {"f": -1}), "f=-1 must be a whole number"),
        (Plugin("krum", {"f": 1.5}), "f=1.5 must be a whole number"),
        (Plugin("krum", {"allow_weak": True}), "use --allow-weak"),
        (Plugin("nnm"), "write for example nnm\\+mean"),
        (Plugin("multi_krum", {"m": 0}), "m=0 must be a whole number"),
    ],
    ids=[
        "unknown rule",
        "radius",
        "radius of another",
        "eps out of range",
        "type",
        "unknown parameter",
        "no parameters",
        "negative f",
        "broken f",
        "weakness of one rule",
        "a pre-aggregation alone",
        "m out of range",
    ],
)
def test_plugins_that_cannot_run_are_refused(plugin, message):
    with pytest.raises(ConfigError, match=message):
        build_rule(plugin)
