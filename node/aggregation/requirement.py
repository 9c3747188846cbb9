"""Does a rule withstand what a run may bring? Asked once, before the run."""

from __future__ import annotations

from collections.abc import Sequence

from node.aggregation.built import check_names, rows_after
from node.aggregation.registry import RULES
from node.aggregation.strength import Condition
from node.config import Plugin, RunConfig
from node.errors import ConfigError


def check_strength(run: RunConfig, attackers: int = 0) -> None:
    """Refuse a rule whose condition on n and f fails, unless the run allows that.

    n is the number of contributors: peers without a step's validators, after what pre-aggregations make of them.

    Args:
        run: with names and parameters that exist.
        attackers: how many peers will attack; 0 where that is not known.

    Raises:
        ConfigError: the condition, in words, with the numbers.
    """
    check_names(run.rule, run.pre)
    condition = RULES.get(run.rule.name).facts["condition"]
    if run.allow_weak or condition is None:
        return
    assert isinstance(condition, Condition)
    rows = rows_after(run.pre, run.peers - _validating(run))
    most = condition.most(rows)
    given = run.rule.parameters.get("f")
    f = most if given is None else int(given)
    if most < 0 or f > most:
        raise ConfigError(_too_few(run, condition, max(f, 0), rows, most))
    if attackers > f:
        peers = _peers_for(run.pre, condition, attackers) + _validating(run)
        raise ConfigError(
            f"rule {run.rule.name!r} ({condition.words}) withstands f={f} of n={rows} rows, and {attackers} of "
            f"the peers attack; use --peers {peers}, another rule, or --allow-weak"
        )


def _too_few(run: RunConfig, condition: Condition, f: int, rows: int, most: int) -> str:
    smaller = f"f={most}, " if most >= 0 else ""
    peers = _peers_for(run.pre, condition, f) + _validating(run)
    return (
        f"rule {run.rule.name!r} needs {condition.words}: f={f} takes {condition.rows(f)} rows, and --peers "
        f"{run.peers} with --validators {run.validators} leaves {rows}; use {smaller}--peers {peers}, or --allow-weak"
    )


def _validating(run: RunConfig) -> int:
    """Peers that validate in a step, at most (node/protocol/validators.py)."""
    if run.topology != "butterfly":
        return 0
    return min(run.validators, max(1, run.peers // 3))


def _peers_for(pre: Sequence[Plugin], condition: Condition, f: int) -> int:
    """The fewest contributors whose rows satisfy the condition."""
    contributors = 1
    while rows_after(pre, contributors) < condition.rows(f):
        contributors += 1
    return contributors
