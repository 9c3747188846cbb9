"""Who attacks, how and when: turns `--attack`, `--byzantine` and `--role` into roles. Only the launcher knows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from btard.launcher.options import syntax
from btard.node.config import Plugin, Role, Schedule
from btard.node.errors import ConfigError

_SCHEDULE_KEYS = ("start", "every", "stop", "probability")


@dataclass(frozen=True, slots=True)
class Attackers:
    """What the user wrote: `attack` for `byzantine` nodes (the highest free ids), and `roles` `ID=ATTACK` each."""

    attack: str | None
    byzantine: int
    roles: tuple[str, ...]
    schedule: Schedule


@dataclass(frozen=True, slots=True)
class _Draft:
    attacks: tuple[Plugin, ...]
    schedule: Schedule
    collude: bool


def assign(attackers: Attackers, peers: int, attack_seed: int, allow_majority: bool) -> dict[int, Role]:
    """The role of each Byzantine node, by genesis id.

    All attackers know each other, and so do not accuse each other, but for those whose role says `collude=false`:
    such a one is on its own.

    Raises:
        ConfigError: unknown attack, parameter or id, a bad schedule, or no honest majority left.
    """
    _check_counts(attackers, peers)
    _schedule(attackers.schedule, {}, "--attack ")
    drafts = _explicit(attackers, peers)
    if attackers.attack is not None:
        draft = _draft(attackers.attack, attackers.schedule, "--attack ")
        free = [peer for peer in reversed(range(peers)) if peer not in drafts]
        drafts |= dict.fromkeys(free[: attackers.byzantine], draft)
    _check_majority(attackers, len(drafts), peers, allow_majority)
    return _with_accomplices(dict(sorted(drafts.items())), attack_seed)


def majority_limit(peers: int) -> int:
    """How many of `peers` may be Byzantine: `ceil(n/2) - 1` (PROTOCOL section 1)."""
    return (peers + 1) // 2 - 1


def describe(role: Role) -> str:
    """A role in one phrase, as a user would write it."""
    schedule = role.schedule
    when = f"from {schedule.start}"
    when += f" every {schedule.every}" if schedule.every != 1 else ""
    when += f" before {schedule.stop}" if schedule.stop is not None else ""
    when += f" with probability {schedule.probability:g}" if schedule.probability != 1 else ""
    return f"{'+'.join(syntax.written(each) for each in role.attacks)} {when}"


def _check_counts(attackers: Attackers, peers: int) -> None:
    count = attackers.byzantine
    if not 0 <= count <= peers:
        raise ConfigError(f"--byzantine {count} must lie between 0 and --peers {peers}")
    if count > 0 and attackers.attack is None:
        raise ConfigError(f"--byzantine {count} has no attack; add --attack NAME (`btard-launch attacks` lists them)")
    if count == 0 and attackers.attack is not None:
        raise ConfigError(f"--attack {attackers.attack} has no attacker; add --byzantine 1")


def _check_majority(attackers: Attackers, count: int, peers: int, allow_majority: bool) -> None:
    limit = majority_limit(peers)
    if count <= limit or allow_majority:
        return
    asked = f"--byzantine {count}" if not attackers.roles else f"{count} attackers (--byzantine and --role)"
    use = f"use at most {limit}" if limit else "use none"
    raise ConfigError(f"{asked} of {peers} leaves no honest majority; {use}, or --allow-majority")


def _explicit(attackers: Attackers, peers: int) -> dict[int, _Draft]:
    drafts: dict[int, _Draft] = {}
    for text in attackers.roles:
        left, equals, right = text.partition("=")
        if not equals or not left.strip().isdecimal():
            raise ConfigError(f"--role {text} is not ID=ATTACK; write for example --role 4=noise:start=300")
        peer = int(left)
        if peer >= peers:
            raise ConfigError(f"--role {text}: there is no peer {peer}; ids run from 0 to {peers - 1}")
        if peer in drafts:
            raise ConfigError(f"--role {text}: peer {peer} has a role already; join attacks with '+'")
        drafts[peer] = _draft(right, attackers.schedule, f"--role {peer}=")
    return drafts


def _draft(text: str, schedule: Schedule, where: str) -> _Draft:
    from btard.node.adversary.registry import ATTACKS

    attacks: list[Plugin] = []
    settings: dict[str, object] = {}
    for chosen in syntax.plugins(text):
        entry = ATTACKS.get(chosen.name)
        own = {key: item for key, item in chosen.parameters.items() if not _is_setting(key, entry.parameters)}
        settings |= {key: item for key, item in chosen.parameters.items() if key not in own}
        ATTACKS.check(chosen.name, own)
        attacks.append(Plugin(chosen.name, own))
    collude = settings.pop("collude", True)
    if not isinstance(collude, bool):
        raise ConfigError(f"{where}{text}: collude={collude} must be true or false")
    return _Draft(tuple(attacks), _schedule(schedule, settings, where), collude)


def _is_setting(key: str, parameters: Mapping[str, object]) -> bool:
    """An attack's own parameter of the same name wins over the schedule's."""
    return key in (*_SCHEDULE_KEYS, "collude") and key not in parameters


def _schedule(default: Schedule, settings: Mapping[str, object], where: str) -> Schedule:
    try:
        schedule = msgspec.convert({**msgspec.structs.asdict(default), **settings}, Schedule)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}{_joined(settings)}: {error}") from error
    named = {key: f"{where}...:{key}=" if key in settings else f"--attack-{key} " for key in _SCHEDULE_KEYS}
    if schedule.start < 0:
        raise ConfigError(f"{named['start']}{schedule.start} is too small; use at least 0")
    if schedule.every < 1:
        raise ConfigError(f"{named['every']}{schedule.every} is too small; use at least 1")
    if schedule.stop is not None and schedule.stop <= schedule.start:
        raise ConfigError(f"{named['stop']}{schedule.stop} must lie after the first attack at {schedule.start}")
    if not 0 < schedule.probability <= 1:
        raise ConfigError(f"{named['probability']}{schedule.probability} must lie above 0 and up to 1")
    return schedule


def _joined(settings: Mapping[str, object]) -> str:
    return ",".join(f"{key}={item}" for key, item in settings.items())


def _with_accomplices(drafts: Mapping[int, _Draft], attack_seed: int) -> dict[int, Role]:
    """Who knows whom: a node spares its accomplices as a validator (see the attack `lenient_validator`)."""
    colluding = tuple(peer for peer, draft in drafts.items() if draft.collude)
    return {
        peer: Role(draft.attacks, draft.schedule, colluding if draft.collude else (peer,), attack_seed)
        for peer, draft in drafts.items()
    }
