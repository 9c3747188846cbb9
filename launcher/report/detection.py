"""The law of detection for a run's setting, counted as the score counts: attacked steps until a ban."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from btard.launcher.detection import Setting, detection_distribution, per_step_probability
from btard.node.config import Role, RunConfig, Schedule
from btard.node.errors import ConfigError

HORIZON = 400
_FARTHEST = 2000


def setting_of(options: Mapping[str, Any]) -> tuple[RunConfig, dict[int, Role]]:
    """What the law depends on, of a row's options: attackers on one schedule, without `--role`."""
    # Rows of before there was a choice have idle validators.
    run = RunConfig(peers=options["peers"], validators=options["validators"],
                    validate_every=options["validate_every"], on_ban=options["on_ban"],
                    validators_contribute=options.get("validators_contribute", "off"))  # fmt: skip
    schedule = Schedule(options["attack_start"], options["attack_every"], options["attack_stop"],
                        options["attack_probability"])  # fmt: skip
    return run, {run.peers - 1 - place: Role((), schedule) for place in range(options["byzantine"])}


def law_of(run: RunConfig, roles: Mapping[int, Role]) -> tuple[dict[int, float], str]:
    """Probability of each count of attacked contributions until conviction, and in words which law it is.

    Attackers that strike in every step follow the exact chain of launcher/detection/law.py for removal; those that
    strike every K-th step meet a fresh draw each time, and follow the plain geometric law. No law: an empty mapping.
    """
    if not roles or run.validators == 0:
        return {}, ""
    schedules = {(role.schedule.every, role.schedule.probability) for role in roles.values()}
    start = min(role.schedule.start for role in roles.values())
    every = min(step for step, _ in schedules)
    if schedules == {(1, 1.0)}:
        chain = _chain(_setting(run, roles, start))
        staying = "; here a convicted peer stays and turns honest, which draws the other a little later"
        note = "exact chain for removal" + (staying if run.on_ban == "reform" else "")
        return dict(chain), note
    contributors = run.peers if run.everyone_contributes else run.peers - run.validators
    hit = per_step_probability(contributors, len(roles), run.validators, validate_every=run.validate_every)
    law = {count: hit * (1 - hit) ** (count - 1) for count in range(1, HORIZON)}
    return law, f"geometric: each attacked contribution is convicted with probability {hit:.3f} (every {every} steps)"


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


def last_ban_of(run: RunConfig, roles: Mapping[int, Role]) -> tuple[float, int] | None:
    """When the last attacker is out, by the exact chain for removal.

    Returns:
        Mean and 99 % point, in protocol steps from the first attacked one to the last ban, both included; None where
        the chain says nothing: no attackers, no validators, attackers that do not strike in every step, or a 99 %
        point too far off to work out.
    """
    schedules = {(role.schedule.every, role.schedule.probability) for role in roles.values()}
    starts = {role.schedule.start for role in roles.values()}
    if schedules != {(1, 1.0)} or len(starts) > 1 or run.validators == 0:
        return None
    return _last_ban(_setting(run, roles, min(starts)))


def _setting(run: RunConfig, roles: Mapping[int, Role], start: int) -> Setting:
    return Setting(run.peers, len(roles), run.validators, run.validate_every, start, run.validators_contribute)


@lru_cache(maxsize=256)
def _last_ban(setting: Setting) -> tuple[float, int] | None:
    horizon = min(_FARTHEST, HORIZON * setting.validate_every)
    waiting = detection_distribution(setting, horizon).last_steps
    try:
        return waiting.mean, waiting.quantile(0.99)
    except ConfigError:
        return None


@lru_cache(maxsize=256)
def _chain(setting: Setting) -> tuple[tuple[int, float], ...]:
    """One given attacker's contributions; the last one, on the way out, is not counted by the score."""
    waiting = detection_distribution(setting, HORIZON).tagged_contributed
    return tuple((count, waiting.probability(count + 1)) for count in range(1, HORIZON - 1))
