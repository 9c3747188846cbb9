"""The law of detection where attackers buy draws and come back: beside the plain one of law.py.

**Bought draws** (PROTOCOL section 10 rule 7). Attackers see r before anybody acts on it: all gradients are committed,
and whoever reveals last can withhold its REVEAL (or call aggregates missing by HAVE bits). Where r would convict an
accomplice one of them does: it is removed as `gone`, the attempt starts again, and the new r draws anew. The price is
one removal; a `gone` peer comes back once, so each attacker can be removed twice. What this adversary does is the best
we know:

1. A draw that dooms an attacker is voided, as long as somebody pays who has more to lose by the draw than by leaving:
   first a peer that is doomed already (it leaves at the end of this step anyway and pays nothing); then, for one that
   never was away, with `sacrifice` an accomplice that has come back and owes no validation, else the doomed itself.
2. A peer that has come back and is doomed lets it happen: it would leave for good at once, and so it stays one step.
3. A validator never pays: its pair would pass to another peer, perhaps an honest one.

The state during a step:

    (F never away, B back, V honest validators, W_F and W_B serving attackers, Q doomed, the absent's steps left)

The contributors are H = n - b - V honest ones, F - W_F fresh, B - W_B - Q back and Q doomed. A draw is M validators and
M targets of a uniform order of them, M as in law.py; a doomed validator is replaced by the next in the order that is
not. Every attempt of a step draws from those who are left; the step ends with the first draw that is not voided. A peer
that pays in step t is in the roster again from t + `away`: `--probation K` takes K + 1 steps at least.

Where validators contribute too, there are n - b honest contributors and F + B others, and who serves matters for who
pays alone: a fresh validator that is drawn as a target, and for which nobody else pays, is doomed too. It never comes
back, so it counts among B from then on.

Before the first attacked step the attackers behave: nobody is doomed, nobody pays, validators take their turns.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from btard.launcher.detection.law import Setting
from btard.launcher.detection.markov import Waiting, absorbed, chain
from btard.node.errors import ConfigError

HONEST, FRESH, BACK, DOOMED, DUTIFUL = range(5)
"""Kinds of contributors; the dutiful are fresh ones that validate too."""


@dataclass(frozen=True, slots=True)
class Buying:
    """How attackers buy draws.

    Args:
        away: steps from the one in which a peer leaves to the first in which it is in the roster again; 0: none returns
            (`--probation 0`).
        sacrifice: accomplices that have come back pay for those that never were away.

    Raises:
        ConfigError: a negative number of steps.
    """

    away: int = 4
    sacrifice: bool = True

    def __post_init__(self) -> None:
        """Refuse impossible numbers."""
        if self.away < 0:
            raise ConfigError(f"away={self.away}; use 0 (nobody returns) or the steps that a probation takes")


@dataclass(frozen=True, slots=True)
class Lasted:
    """How long attackers last that buy draws, counted from the first attacked step.

    Args:
        steps: protocol steps until the last one is out for good, those in which the last are all away included.
        present: those of them in which at least one attacker is in the roster.
    """

    steps: Waiting
    present: Waiting


def bought_draws(setting: Setting, buying: Buying, horizon: int) -> Lasted:
    """The exact law of the docstring's first adversary.

    Args:
        setting: the run.
        buying: what the attackers do.
        horizon: protocol steps; what lasts longer is the tail of each Waiting.

    Raises:
        ConfigError: a conviction does not remove its target.
    """
    if setting.on_ban != "remove":
        raise ConfigError(f"on_ban={setting.on_ban}: the law of bought draws is one of removals; use on_ban=remove")
    # Who cannot return is like one that is back: it pays only when it is doomed already.
    whole = (setting.byzantine, 0) if buying.away else (0, setting.byzantine)
    law = {_Bought(*whole, 0, 0, 0, 0, ()): 1.0}
    for _ in range(setting.start):
        following: dict[_Bought, float] = defaultdict(float)
        for state, probability in law.items():
            for after, chance in _after_bought(setting, buying, state, False):
                following[after] += probability * chance
        law = following

    def moves(state: _Bought) -> Iterator[tuple[_Bought | None, float]]:
        for after, chance in _after_bought(setting, buying, state, True):
            yield (after if after.fresh or after.back or after.absent else None), chance

    made = chain(law, moves)
    return Lasted(
        absorbed(made, lambda state: True, horizon), absorbed(made, lambda state: state.fresh + state.back > 0, horizon)
    )


# --- draws ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=65536)
def _orders(pool: tuple[int, ...], length: int) -> tuple[tuple[tuple[int, ...], float], ...]:
    """Kinds of the first `length` of a uniform order of peers, of which the pool counts each kind."""
    if length == 0:
        return (((), 1.0),)
    found, total = [], sum(pool)
    for kind, count in enumerate(pool):
        if count:
            rest = (*pool[:kind], count - 1, *pool[kind + 1 :])
            found += [((kind, *more), count / total * chance) for more, chance in _orders(rest, length - 1)]
    return tuple(found)


@lru_cache(maxsize=65536)
def _served(pool: tuple[int, ...], count: int) -> tuple[tuple[tuple[tuple[int, int], ...], float], ...]:
    """(validator, target) kinds of a draw of so many pairs; doomed validators are replaced while others are left."""
    result: dict[tuple[tuple[int, int], ...], float] = defaultdict(float)
    for kinds, chance in _orders(pool, 2 * count):
        rest = tuple(many - kinds.count(kind) for kind, many in enumerate(pool))
        targets = kinds[count:]
        gone = [place for place in range(count) if kinds[place] == DOOMED]
        spare = tuple(0 if kind == DOOMED else many for kind, many in enumerate(rest))
        wanted = min(len(gone), sum(spare))
        for more, likely in _orders(spare, wanted):
            seat = dict(zip(gone, more, strict=False))
            validators = [seat.get(place, kinds[place]) for place in range(count)]
            pairs = [pair for pair in zip(validators, targets, strict=True) if pair[0] != DOOMED]
            result[tuple(sorted(pairs))] += chance * likely
    return tuple(result.items())


# --- bought draws ---------------------------------------------------------------------------------------------


class _Bought(NamedTuple):
    """F, B, V, W_F, W_B, Q and the absent of the module's docstring; F and B count those that serve, B the doomed."""

    fresh: int
    back: int
    serving: int
    serving_fresh: int
    serving_back: int
    doomed: int
    absent: tuple[int, ...]


@lru_cache(maxsize=65536)
def _after_bought(
    setting: Setting, buying: Buying, state: _Bought, attacking: bool
) -> tuple[tuple[_Bought, float], ...]:
    """States of the next step with their probabilities."""
    result: dict[_Bought, float] = defaultdict(float)
    for after, chance in _attempts(setting, buying, state, attacking):
        result[after] += chance
    return tuple((after, chance) for after, chance in result.items() if chance > 0.0)


def _attempts(setting: Setting, buying: Buying, state: _Bought, attacking: bool) -> Iterator[tuple[_Bought, float]]:
    """States of the next step, by the attempts of this one; `state` loses in each who pays."""
    pool = _contributing(setting, state)
    contributors = sum(pool)
    absent = tuple(sorted(left - 1 for left in state.absent if left > 1))
    returning = len(state.absent) - len(absent)
    fresh, back = state.fresh, state.back - state.doomed + returning
    missing = setting.byzantine - fresh - back
    count = min(setting.pairs(setting.peers - missing, missing), contributors // 2)
    happens = 1.0 / setting.validate_every if count else 0.0
    yield _Bought(fresh, back, 0, 0, 0, 0, absent), 1.0 - happens
    if not count:
        return
    for drawn, likely in _served(pool, count):
        chance = happens * likely
        hit = [target for validator, target in drawn
               if attacking and validator == HONEST and target not in (HONEST, DOOMED)]  # fmt: skip
        left = _paid(buying, state, hit)
        if left is not None:
            yield from ((after, chance * further) for after, further in _after_bought(setting, buying, left, attacking))
            continue
        serving = Counter(FRESH if validator == DUTIFUL else validator for validator, _ in drawn)
        unpaid = len(hit) - hit.count(BACK)
        idle = 0 if setting.everyone_contributes else serving[HONEST]
        after = _Bought(fresh - unpaid, back + unpaid, idle, serving[FRESH], serving[BACK], len(hit), absent)
        yield after, chance


def _contributing(setting: Setting, state: _Bought) -> tuple[int, ...]:
    """How many contribute of each kind."""
    honest = setting.peers - setting.byzantine
    fresh = state.fresh - state.serving_fresh
    if setting.everyone_contributes:
        return honest, fresh, state.back - state.doomed, state.doomed, state.serving_fresh
    return honest - state.serving, fresh, state.back - state.serving_back - state.doomed, state.doomed


def _paid(buying: Buying, state: _Bought, hit: Sequence[int]) -> _Bought | None:
    """The state without whoever voids the attempt, None if nobody does."""
    if not hit:
        return None
    if state.doomed:
        return state._replace(back=state.back - 1, doomed=state.doomed - 1)
    if FRESH not in hit and DUTIFUL not in hit:
        return None
    if buying.sacrifice and state.back > state.serving_back:
        return state._replace(back=state.back - 1)
    if FRESH not in hit:
        return None
    return state._replace(fresh=state.fresh - 1, absent=tuple(sorted((*state.absent, buying.away))))
