"""A rule with its parameters and pre-aggregations, as the protocol runs it and judges with it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node.aggregation.registry import PRE_AGGREGATIONS, RULES, CountedFunction, Residual, RuleFunction
from btard.node.aggregation.residual import residual
from btard.node.aggregation.rows import check_rows, joined
from btard.node.aggregation.strength import Condition
from btard.node.config import Plugin
from btard.node.errors import ConfigError
from btard.node.limits import MAX_PEERS
from btard.node.plugins.registry import Entry, Registry
from btard.node.protocol.rule import Aggregated, Nearest, Rows, Rule, itself

_FLOAT32_ROUNDING = 2.0**-23
# A float64 sum of rows loses at most N 2^-53 of them: 2^-40 holds for thousands of contributors.
_SUMMATION = 2.0**-40
_MOST_ROWS = MAX_PEERS**2


def check_names(plugin: Plugin, pre: Sequence[Plugin] = ()) -> None:
    """Refuse names and parameters that do not exist.

    Raises:
        ConfigError: an unknown rule, pre-aggregation or parameter, or a parameter that the run sets.
    """
    if plugin.name in {entry.name for entry in PRE_AGGREGATIONS}:
        raise ConfigError(f"{plugin.name!r} comes in front of a rule; write for example {plugin.name}+mean")
    stages: list[tuple[Registry[RuleFunction], Plugin]] = [(RULES, plugin), *((PRE_AGGREGATIONS, each) for each in pre)]
    for registry, stage in stages:
        for parameter, option in {"radius": "--tau", "allow_weak": "--allow-weak"}.items():
            if parameter in stage.parameters:
                value = stage.parameters[parameter]
                raise ConfigError(
                    f"{registry.kind} {stage.name!r}: {parameter}={value!r} is not set here; use {option}"
                )
        registry.check(stage.name, stage.parameters)


def build_rule(plugin: Plugin, pre: Sequence[Plugin] = (), *, allow_weak: bool = False) -> Rule:
    """The protocol's form of a registered rule.

    Args:
        plugin: the rule's name and parameters; `radius` is not among them, the protocol gives it per part.
        pre: what rows go through before the rule, in this order.
        allow_weak: keep f where the condition on n and f fails, instead of lowering it.

    Raises:
        ConfigError: unknown rule, pre-aggregation or parameter, or a value out of range.
    """
    check_names(plugin, pre)
    entry = RULES.get(plugin.name)
    kind = None if pre else entry.facts["residual"]
    assert kind in ("clipped", "unclipped", None)
    counted = entry.facts["counted"]
    parameters = dict(plugin.parameters)
    if kind == "clipped":
        parameters["eps"] = float(parameters.get("eps", entry.parameters["eps"]))
    made = _BuiltRule(
        run=counted if callable(counted) else _count_one(entry.target),
        stage=_stage(entry, parameters),
        pre=tuple(_stage(PRE_AGGREGATIONS.get(each.name), each.parameters) for each in pre),
        kind=kind,
        allow_weak=allow_weak,
        scattered=entry.facts["scattered"] is True,
    )
    _try(made)
    return made


def _try(made: _BuiltRule) -> None:
    """Every stage on one row of one number, so that a parameter out of range is refused here and not in a worker."""
    row_NP = torch.zeros(1, 1)
    for stage in (*made.pre, made.stage):
        kind, run = (RULES.kind, made.run) if stage is made.stage else (PRE_AGGREGATIONS.kind, stage.function)
        try:
            run(row_NP, **stage.arguments(1, 1.0, None, made.allow_weak))
        except (ValueError, ArithmeticError) as error:
            raise ConfigError(f"{kind} {stage.name!r}: {error}; `btard-launch rules` lists the parameters") from error


@dataclass(frozen=True, slots=True)
class Stage:
    """A rule or pre-aggregation with the parameters that the user gave.

    Args:
        f: as given, None if the run chooses it.
        condition: on n and f; None for what takes no f.
    """

    name: str
    function: RuleFunction
    parameters: Mapping[str, object]
    takes_radius: bool
    f: int | None
    condition: Condition | None

    def arguments(self, rows: int, radius: float, f: int | None, allow_weak: bool) -> dict[str, object]:
        """Keyword arguments for so many rows.

        A run checks the condition before it starts (node/aggregation/resilience.py). Later f falls with the rows,
        since whoever was removed was one of the f; a judge must be able to compute whatever is left.
        """
        arguments = dict(self.parameters)
        if self.takes_radius:
            arguments["radius"] = radius
        if self.condition is not None:
            wanted = self.f if self.f is not None else f
            arguments["f"] = self.condition.lowered(wanted, rows, allow_weak)
            arguments["allow_weak"] = True
        return arguments


def _stage(entry: Entry[RuleFunction], parameters: Mapping[str, object]) -> Stage:
    known = entry.parameters
    given = parameters.get("f")
    condition = entry.facts["condition"] if "f" in known else None
    assert condition is None or isinstance(condition, Condition)
    if given is not None and not (isinstance(given, int) and given >= 0):
        raise ConfigError(f"{entry.name!r}: f={given} must be a whole number of at least 0; leave it out for as many "
                          "as the rows admit")  # fmt: skip
    return Stage(entry.name, entry.target, parameters, "radius" in known, given, condition)


def rows_after(pre: Sequence[Plugin], rows: int) -> int:
    """How many rows the pre-aggregations leave of `rows`.

    Args:
        pre: with parameters that `build_rule` accepts.
        rows: contributors, at least 1.

    Raises:
        ConfigError: a pre-aggregation says that it leaves none, or more than anybody could work with.
    """
    for each in pre:
        count = PRE_AGGREGATIONS.get(each.name).facts["rows"]
        assert callable(count)
        left = int(count(rows, each.parameters))
        if not 1 <= left <= _MOST_ROWS:
            raise ConfigError(
                f"pre-aggregation {each.name!r} says that it makes {left} rows of {rows}, not 1 to {_MOST_ROWS}; "
                "correct `rows` where it is registered"
            )
        rows = left
    return rows


@dataclass(frozen=True, slots=True)
class _BuiltRule:
    """A rule with its parameters; implements `btard.node.protocol.rule.Rule`."""

    run: CountedFunction
    stage: Stage
    pre: tuple[Stage, ...]
    kind: Residual
    allow_weak: bool
    scattered: bool
    """It takes rows where they lie; for the others they are copied beside one another."""

    @property
    def audited(self) -> bool:
        return self.kind is None

    def aggregate(self, inputs_NP: Rows, radius: float) -> Aggregated:
        if self.pre or not self.scattered:
            inputs_NP = joined(inputs_NP)
        for stage in self.pre:
            arguments = stage.arguments(len(inputs_NP), radius, self.stage.f, self.allow_weak)
            inputs_NP = stage.function(inputs_NP, **arguments)
        return self.run(inputs_NP, **self.stage.arguments(len(inputs_NP), radius, None, self.allow_weak))

    def clip_radius(self, radius: float) -> float:
        return radius if self.kind == "clipped" else math.inf

    def slack(self, norms: Sequence[float], radius: float) -> float:
        match self.kind:
            case "clipped":
                eps = self.stage.parameters["eps"]
                assert isinstance(eps, float)
                return eps * radius
            case "unclipped":
                return _SUMMATION * max(norms, default=0.0)
            case None:
                return math.inf  # nothing is promised of the residual, so no residual convicts

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float, nearest: Nearest = itself) -> bool:
        check_rows(inputs_NP)
        rows, columns = inputs_NP.shape
        if value_P.dtype != torch.float32 or value_P.shape != (columns,) or not bool(torch.isfinite(value_P).all()):
            return False
        ours_P = self.aggregate(inputs_NP, radius).value_P
        value_P, expected_P = nearest(value_P, ours_P), ours_P.double()
        # The rounding granted is that of the true aggregate: clipped rows pull by the radius at most, and a value large
        # enough would be granted more than all of them together.
        scale = float(torch.linalg.vector_norm(expected_P))
        if self.kind is None:
            error = float(torch.linalg.vector_norm(value_P.double() - expected_P))
            return error <= 2 * _FLOAT32_ROUNDING * scale
        left, norms = residual(inputs_NP, value_P, self.clip_radius(radius))
        return left <= 2 * rows * (self.slack(norms, radius) + _FLOAT32_ROUNDING * scale)


def _count_one(function: RuleFunction) -> CountedFunction:
    def counted(inputs_NP: Tensor, **parameters: object) -> Aggregated:
        return Aggregated(function(inputs_NP, **parameters), 1)

    return counted
