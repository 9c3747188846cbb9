"""Does a rule withstand what a run may bring, and can it be computed? Asked once, before the run."""

from __future__ import annotations

import itertools
import math

from btard.node.aggregation.factory import build_rule, rows_after
from btard.node.aggregation.registry import RULES
from btard.node.aggregation.strength import Condition
from btard.node.aggregation.subsets import MOST_SUBSETS
from btard.node.config import RunConfig, validators_contribute
from btard.node.errors import ConfigError
from btard.node.limits import MAX_PEERS
from btard.node.protocol.rule import Rule


def rule_for(run: RunConfig, attackers: int = 0) -> Rule:
    """The rule of a run, unless it cannot be built or is no match for the run.

    Args:
        run: its rule, pre-aggregations, peers and validators.
        attackers: how many peers will attack; 0 where that is not known.

    Raises:
        ConfigError: an unknown name or parameter, a value out of range, a condition on n and f that fails, or more
            subsets of the rows than can be looked at; with the numbers.
    """
    # First of all: what follows computes with the parameters.
    made = build_rule(run.rule, run.pre, allow_weak=run.allow_weak)
    _check_strength(run, attackers)
    _check_subsets(run, attackers)
    return made


def _check_strength(run: RunConfig, attackers: int) -> None:
    """Refuse a rule whose condition on n and f fails, unless the run allows that.

    n is the number of contributors: peers without a step's idle validators, after what pre-aggregations make of them.
    """
    condition = _condition(run)
    if run.allow_weak or condition is None:
        return
    rows = rows_after(run.pre, _contributors(run, run.peers))
    most = condition.most(rows)
    given = run.rule.parameters.get("f")
    f = most if given is None else int(given)
    if most < 0 or f > most:
        raise ConfigError(_too_few(run, condition, max(f, 0), rows, most))
    if attackers > f:
        use = _use(_peers_for(run, condition, attackers), "another rule", "or --allow-weak")
        raise ConfigError(
            f"rule {run.rule.name!r} ({condition.words}) withstands f={f} of n={rows} rows, and {attackers} of "
            f"the peers attack; {use}"
        )


def _too_few(run: RunConfig, condition: Condition, f: int, rows: int, most: int) -> str:
    smaller = f"f={most}" if most >= 0 else ""
    use = _use(smaller, _peers_for(run, condition, f), "or --allow-weak")
    return (
        f"rule {run.rule.name!r} needs {condition.words}: f={f} takes {condition.rows(f)} rows, and --peers "
        f"{run.peers} with --validators {run.validators} leaves {rows}; {use}"
    )


def _check_subsets(run: RunConfig, attackers: int) -> None:
    """Refuse a rule that would look at more subsets of its rows than its limit, in any step.

    A step without validators has as many contributors as there are peers; later ones have fewer.
    """
    condition = _condition(run)
    if condition is None or not RULES.get(run.rule.name).facts["exhaustive"]:
        return
    found = [_subsets(run, condition, contributors) for contributors in range(1, run.peers + 1)]
    count, rows, f = max(found)
    if count <= MOST_SUBSETS:
        return
    smaller = next(less for less in range(f, -1, -1) if math.comb(rows, less) <= MOST_SUBSETS)
    peers = len(list(itertools.takewhile(lambda each: each[0] <= MOST_SUBSETS, found)))
    left = _contributors(run, peers)
    enough = left > 0 and condition.rows(attackers) <= rows_after(run.pre, left)
    use = _use(f"f={smaller}" if smaller >= attackers else "", f"--peers {peers}" if enough else "", "or another rule")
    raise ConfigError(
        f"rule {run.rule.name!r} looks at {_shown(count)} subsets of {rows - f} of {rows} rows (f={f}), more than "
        f"the {MOST_SUBSETS} it may; {use}"
    )


def _subsets(run: RunConfig, condition: Condition, contributors: int) -> tuple[int, int, int]:
    """Subsets that so many contributors make, the number of their rows, and f."""
    rows = rows_after(run.pre, contributors)
    f = condition.lowered(run.rule.parameters.get("f"), rows, run.allow_weak)
    return math.comb(rows, f), rows, f


def _shown(count: int) -> str:
    """A number that may have thousands of digits."""
    return f"all {count}" if count < 10**15 else f"about 10^{int(count.bit_length() * math.log10(2))}"


def _condition(run: RunConfig) -> Condition | None:
    condition = RULES.get(run.rule.name).facts["condition"]
    assert condition is None or isinstance(condition, Condition)
    return condition


def _contributors(run: RunConfig, peers: int) -> int:
    """How many contribute in a step at least, of so many peers (node/protocol/attempt/verification.py)."""
    if run.topology != "butterfly" or validators_contribute(run.validators_contribute, peers):
        return peers
    return peers - min(run.validators, max(1, peers // 3))


def _peers_for(run: RunConfig, condition: Condition, f: int) -> str:
    """The fewest peers whose rows satisfy the condition, as an option; empty if there are never enough."""
    for peers in range(2, MAX_PEERS + 1):
        if rows_after(run.pre, _contributors(run, peers)) >= condition.rows(f):
            return f"--peers {peers}"
    return ""


def _use(*choices: str) -> str:
    """What to do next: the choices that there are, the last one of them always."""
    left = [choice for choice in choices if choice]
    return "use " + (", ".join(left) if len(left) > 1 else left[0].removeprefix("or "))
