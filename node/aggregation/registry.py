"""The aggregation rules and pre-aggregations by name; node/aggregation/factory.py makes protocol rules of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias, TypeVar

from torch import Tensor

from btard.node.aggregation.strength import Condition
from btard.node.errors import ConfigError
from btard.node.nearest import nearest
from btard.node.plugins.registry import Registry
from btard.node.protocol.rule import Aggregated

Residual: TypeAlias = Literal["clipped", "unclipped"] | None
RuleFunction: TypeAlias = Callable[..., Tensor]
CountedFunction: TypeAlias = Callable[..., Aggregated]
Function = TypeVar("Function", bound=RuleFunction)
_RESIDUALS = ("clipped", "unclipped", None)
_TAKES = ("inputs_NP",)

RULES: Registry[RuleFunction] = Registry("rule", "btard.node.aggregation")
PRE_AGGREGATIONS: Registry[RuleFunction] = Registry("pre-aggregation", "btard.node.aggregation.pre", listed_by="rules")


def rule(
    name: str,
    *,
    source: str,
    residual: Residual,
    counted: CountedFunction | None = None,
    condition: Condition | None = None,
    coordinatewise: bool = False,
    scattered: bool = False,
    exhaustive: bool = False,
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
        condition: on n and f, for a rule that takes `f` and `allow_weak`.
        coordinatewise: it treats every coordinate alone, so on parts it is what it is on the whole vector.
        scattered: `counted` takes a sequence of rows as well, each where it arrived: no copy is made of them.
        exhaustive: it looks at every subset of n - f rows; a run that would make too many is refused before it starts.
        examples: parameter sets that the shared test table runs.

    Raises:
        ConfigError: the name is taken, `residual` is no such promise, or parameters that it takes are missing.
    """
    if residual not in _RESIDUALS:
        raise ConfigError(
            f"rule {name!r}: residual={residual!r} is none of 'clipped', 'unclipped' and None; did you mean "
            f"{nearest(str(residual), ('clipped', 'unclipped'))!r}?"
        )
    clipped = ("radius", "eps") if residual == "clipped" else ()
    add = RULES.register(
        name, source=source, takes=_TAKES, needs=(*clipped, *_conditioned(condition)), examples=examples,
        residual=residual, counted=counted, condition=condition,
        coordinatewise=coordinatewise, scattered=scattered, exhaustive=exhaustive,
    )  # fmt: skip

    def register(function: Function) -> Function:
        add(function)
        return function

    return register


def pre_aggregation(
    name: str,
    *,
    source: str,
    rows: Callable[[int, Mapping[str, object]], int] = lambda rows, parameters: rows,
    condition: Condition | None = None,
    examples: tuple[Mapping[str, object], ...] = (),
) -> Callable[[Function], Function]:
    """Register a pre-aggregation: a plain function `f(inputs_NP, *, ...) -> Tensor[M, P]`.

    Args:
        name: what `--rule` takes in front of a rule, joined by `+`.
        source: paper and section.
        rows: M for N and the parameters.
        condition: on n and f, for one that takes `f` and `allow_weak`.
        examples: parameter sets that the shared test table runs.

    Raises:
        ConfigError: the name is taken.
    """
    add = PRE_AGGREGATIONS.register(
        name, source=source, takes=_TAKES, needs=_conditioned(condition), examples=examples, rows=rows,
        condition=condition,
    )  # fmt: skip

    def register(function: Function) -> Function:
        add(function)
        return function

    return register


def _conditioned(condition: Condition | None) -> tuple[str, ...]:
    return () if condition is None else ("f", "allow_weak")
