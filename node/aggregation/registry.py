"""The aggregation rules by name, and the object that the protocol runs and judges with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from node.aggregation.residual import residual
from node.aggregation.rows import check_rows
from node.config import Plugin
from node.errors import ConfigError
from node.protocol.rule import Aggregated, Rule
from node.registry import Registry

Residual: TypeAlias = Literal["clipped", "unclipped"] | None
RuleFunction: TypeAlias = Callable[..., Tensor]
CountedFunction: TypeAlias = Callable[..., Aggregated]
Function = TypeVar("Function", bound=RuleFunction)

RULES: Registry[RuleFunction] = Registry("rule", "node.aggregation")

_FLOAT32_ROUNDING = 2.0**-23
# A float64 sum of rows loses at most N 2^-53 of them: 2^-40 holds for thousands of contributors.
_SUMMATION = 2.0**-40


def rule(
    name: str,
    *,
    source: str,
    residual: Residual,
    counted: CountedFunction | None = None,
    examples: tuple[Mapping[str, object], ...] = (),
) -> Callable[[Function], Function]:
    """Register an aggregation rule: a plain function `f(inputs_NP, *, ...) -> Tensor[P]`.

    Args:
        name: what `--rule` takes.
        source: paper and section.
        residual: what V2 can check in the transcript: "clipped" if `sum_i min(1, radius/||x_i - v||) (x_i - v)`
            vanishes to `eps radius` (the function then takes `radius` and `eps`), "unclipped" if `sum_i (x_i - v)`
            vanishes, None if neither does (a share of the parts is audited instead).
        counted: the same rule with its iteration count; without it every call counts as one iteration.
        examples: parameter sets that the shared test table runs.

    Raises:
        ConfigError: the name is taken.
    """
    add = RULES.register(name, source=source, examples=examples, residual=residual, counted=counted)

    def register(function: Function) -> Function:
        add(function)
        return function

    return register


def build_rule(plugin: Plugin) -> Rule:
    """The protocol's form of a registered rule.

    Args:
        plugin: the rule's name and parameters; `radius` is not among them, the protocol gives it per part.

    Raises:
        ConfigError: unknown rule or parameter, a value out of range, or a radius.
    """
    if "radius" in plugin.parameters:
        raise ConfigError(f"rule {plugin.name!r}: radius={plugin.parameters['radius']!r} is not set here; use --tau")
    RULES.check(plugin.name, plugin.parameters)
    entry = RULES.get(plugin.name)
    kind = entry.facts["residual"]
    assert kind in ("clipped", "unclipped", None)
    counted = entry.facts["counted"]
    run = counted if callable(counted) else _count_one(entry.target)
    parameters = dict(plugin.parameters)
    if kind == "clipped":
        parameters["eps"] = float(parameters.get("eps", entry.parameters["eps"]))
    try:
        run(torch.zeros(1, 1), **parameters)
    except ValueError as error:
        raise ConfigError(f"rule {plugin.name!r}: {error}; `btard-launch rules` lists the parameters") from error
    return _BuiltRule(run, parameters, kind, takes_radius="radius" in entry.parameters)


@dataclass(frozen=True, slots=True)
class _BuiltRule:
    """A rule with its parameters; implements `node.protocol.rule.Rule`."""

    run: CountedFunction
    parameters: Mapping[str, object]
    kind: Residual
    takes_radius: bool

    @property
    def audited(self) -> bool:
        return self.kind is None

    def aggregate(self, inputs_NP: Tensor, radius: float) -> Aggregated:
        radius_argument = {"radius": radius} if self.takes_radius else {}
        return self.run(inputs_NP, **radius_argument, **self.parameters)

    def clip_radius(self, radius: float) -> float:
        return radius if self.kind == "clipped" else math.inf

    def slack(self, norms: Sequence[float], radius: float) -> float:
        match self.kind:
            case "clipped":
                eps = self.parameters["eps"]
                assert isinstance(eps, float)
                return eps * radius
            case "unclipped":
                return _SUMMATION * max(norms, default=0.0)
            case None:
                return math.inf  # nothing is promised of the residual, so no residual convicts

    def accepts(self, inputs_NP: Tensor, value_P: Tensor, radius: float) -> bool:
        check_rows(inputs_NP)
        rows, columns = inputs_NP.shape
        if value_P.dtype != torch.float32 or value_P.shape != (columns,) or not bool(torch.isfinite(value_P).all()):
            return False
        expected_P = self.aggregate(inputs_NP, radius).value_P.double()
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
