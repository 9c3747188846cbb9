"""The law of detection for a run's setting, counted as the score counts: attacked steps until a ban."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from btard.launcher.detection import (
    Buying,
    Setting,
    Waiting,
    bought_draws,
    detection_distribution,
    per_step_probability,
    time_to_last,
)
from btard.launcher.sweep.rows import Row
from btard.node.adversary.timing import ALWAYS
from btard.node.config import Role, RunConfig, Schedule
from btard.node.errors import ConfigError

HORIZON = 400
_FARTHEST = 2000


def setting_of(options: Mapping[str, Any]) -> tuple[RunConfig, dict[int, Role]]:
    """What the law depends on, of a row's options: attackers on one schedule, without `--role`."""
    # Rows of before there was a choice have idle validators, and attackers that do not choose.
    run = RunConfig(peers=options["peers"], validators=options["validators"],
                    validate_every=options["validate_every"], on_ban=options["on_ban"],
                    validators_contribute=options.get("validators_contribute", "off"))  # fmt: skip
    start, last = options["attack_start"], options.get("attack_last")
    schedule = Schedule(start if last is None else max(start, options["steps"] - last), options["attack_every"],
                        options["attack_stop"], options["attack_probability"],
                        options.get("attack_when", ALWAYS))  # fmt: skip
    return run, {run.peers - 1 - place: Role((), schedule) for place in range(options["byzantine"])}


def law_of(run: RunConfig, roles: Mapping[int, Role]) -> tuple[dict[int, float], str]:
    """Probability of each count of attacked contributions until conviction, and in words which law it is.

    Attackers that strike in every step follow the exact chain of launcher/detection/law.py, for removal or reform as
    the run has it; those that strike every K-th step meet a fresh draw each time, and follow the plain geometric law.
    No law, as for those that choose their steps: an empty mapping.
    """
    if not roles or run.validators == 0 or any(role.schedule.when != ALWAYS for role in roles.values()):
        return {}, ""
    schedules = {(role.schedule.every, role.schedule.probability) for role in roles.values()}
    start = min(role.schedule.start for role in roles.values())
    every = min(step for step, _ in schedules)
    if schedules == {(1, 1.0)}:
        chain = _chain(_setting(run, roles, start))
        return dict(
            chain
        ), f"exact chain, a convicted peer is {run.on_ban.removesuffix('e')}ed{_withheld(run, roles, start)}"
    contributors = run.peers if run.everyone_contributes else run.peers - run.validators
    hit = per_step_probability(contributors, len(roles), run.validators, validate_every=run.validate_every)
    law = {count: hit * (1 - hit) ** (count - 1) for count in range(1, HORIZON)}
    return law, f"geometric: each attacked contribution is convicted with probability {hit:.3f} (every {every} steps)"


def _withheld(run: RunConfig, roles: Mapping[int, Role], start: int) -> str:
    """What attackers can win that withhold a REVEAL, in words; empty where none does."""
    named = {plugin.name for role in roles.values() for plugin in role.attacks}
    if "withhold_reveal" not in named or run.on_ban != "remove":
        return ""
    best = bought_draws(_setting(run, roles, start), Buying(run.probation and run.probation + 1), HORIZON).present
    return f"; by withheld REVEALs and returns attackers can stay for {best.mean:.1f} steps on average"


def mean_of(law: Mapping[int, float]) -> float | None:
    """Expectation, None without a law."""
    return sum(count * p for count, p in law.items()) if law else None


def quantile_of(law: Mapping[int, float], level: float) -> int | None:
    """Least count with at least `level` of the probability up to it, None without a law."""
    total = 0.0
    for count in sorted(law):
        total += law[count]
        if total >= level:
            return count
    return None


def waiting_of(run: RunConfig, roles: Mapping[int, Role]) -> Waiting | None:
    """The law of the time to the last ban: protocol steps from the first attacked one, both included.

    Returns:
        None where the chain says nothing: no attackers, no validators, attackers that do not strike in every step from
        one step on.
    """
    schedules = {(role.schedule.every, role.schedule.probability, role.schedule.when) for role in roles.values()}
    starts = {role.schedule.start for role in roles.values()}
    if schedules != {(1, 1.0, ALWAYS)} or len(starts) > 1 or run.validators == 0:
        return None
    return _waiting(_setting(run, roles, min(starts)))


def last_ban_of(run: RunConfig, roles: Mapping[int, Role]) -> tuple[float, int] | None:
    """Mean and 99 % point of `waiting_of`; None where it says nothing, or is too far off to work out."""
    waiting = waiting_of(run, roles)
    try:
        return None if waiting is None else (waiting.mean, waiting.quantile(0.99))
    except ConfigError:
        return None


def lasted(row: Row) -> int | None:
    """T of a run: protocol steps from the first attacked one to the last ban, both included; None: somebody is left, or
    with undo and more than two attackers, of whose bans a row does not know all."""
    if row.last_ban is None or row.attacked_from is None or row.undetected:
        return None
    undo = row.options.get("undo")
    undoes = row.options["on_ban"] == "remove" if undo is None else bool(undo)
    if undoes and row.byzantine_peers > 2:
        return None
    # After the first ban comes the step that undoes, in which nobody contributes; the law does not count it.
    return row.last_ban - row.attacked_from + 1 - (undoes and row.first_ban != row.last_ban)


def convicted(row: Row) -> list[int]:
    """Attacked steps of each attacker that was convicted of a false gradient; rows of earlier versions do not say for
    what an attacker was banned, and there any ban counts."""
    return row.detection_steps if row.gradient_steps is None else row.gradient_steps


def place_of(row: Row) -> float | None:
    """Where a run's draw lies in the law of its own setting: the share of draws whose attackers last no longer.

    By T where attackers strike in every step; by the attacked steps of the only attacker where it strikes more rarely.
    None where somebody is left or went otherwise than by a false gradient.
    """
    steps = lasted(row)
    if steps is None or row.options.get("role") or not len(convicted(row)) == row.options["byzantine"] > 0:
        return None
    run, roles = setting_of(row.options)
    if (waiting := waiting_of(run, roles)) is not None:
        return 1.0 - waiting.survival[min(steps, len(waiting.survival) - 1)]
    if len(roles) == 1 == len(row.detection_steps) and row.options["attack_probability"] == 1:
        return sum(p for count, p in law_of(run, roles)[0].items() if count <= row.detection_steps[0]) or None
    return None


def _setting(run: RunConfig, roles: Mapping[int, Role], start: int) -> Setting:
    return Setting(
        run.peers, len(roles), run.validators, run.validate_every, start, run.validators_contribute, run.on_ban
    )


@lru_cache(maxsize=256)
def _waiting(setting: Setting) -> Waiting:
    return time_to_last(setting, min(_FARTHEST, HORIZON * setting.validate_every))


@lru_cache(maxsize=256)
def _chain(setting: Setting) -> tuple[tuple[int, float], ...]:
    """One given attacker's contributions; the last one, on the way out, is not counted by the score."""
    waiting = detection_distribution(setting, HORIZON).tagged_contributed
    return tuple((count, waiting.probability(count + 1)) for count in range(1, HORIZON - 1))
