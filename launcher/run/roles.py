"""Who attacks, how and when: turns `--attack`, `--byzantine` and `--role` into roles. Only the launcher knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec

from btard.launcher.options import syntax
from btard.node.adversary.timing import ALWAYS, conditions
from btard.node.config import Plugin, Role, Schedule
from btard.node.errors import ConfigError

_SCHEDULE_KEYS = ("start", "every", "stop", "probability", "when")
_SETTINGS = (*_SCHEDULE_KEYS, "last", "collude")
"""What a role may set beside its attacks' parameters."""


@dataclass(frozen=True, slots=True)
class _Draft:
    attacks: tuple[Plugin, ...]
    schedule: Schedule
    collude: bool


def assign(
    attack: str | None, byzantine: int, roles: Sequence[str], schedule: Schedule,
    *, peers: int, attack_seed: int, allow_majority: bool, steps: int, last: int | None = None,
) -> dict[int, Role]:  # fmt: skip
    """The role of each Byzantine node, by genesis id: `attack` for `byzantine` nodes, the highest free ids, and `roles`
    written as `ID=ATTACK`.

    All attackers know each other, and so do not accuse each other, but for those whose role says `collude=false`:
    such a one is on its own. `last` has the schedule begin so many of the run's `steps` before the end, if not later.

    Raises:
        ConfigError: unknown attack, parameter or id, a bad schedule, or no honest majority left.
    """
    _check_counts(attack, byzantine, peers)
    schedule = _schedule(schedule, {}, "--attack ", steps, last)
    drafts = _explicit(roles, schedule, peers, steps)
    if attack is not None:
        draft = _draft(attack, schedule, "--attack ", steps)
        free = [peer for peer in reversed(range(peers)) if peer not in drafts]
        drafts |= dict.fromkeys(free[:byzantine], draft)
    count, limit = len(drafts), majority_limit(peers)
    if count > limit and not allow_majority:
        asked = f"{count} attackers (--byzantine and --role)" if roles else f"--byzantine {count}"
        use = f"use at most {limit}" if limit else "use none"
        raise ConfigError(f"{asked} of {peers} leaves no honest majority; {use}, or --allow-majority")
    return _with_accomplices(dict(sorted(drafts.items())), attack_seed)


def alone(peer: int, attack: str, steps: int) -> Role:
    """The role of a node whose own owner asks for it, in a run that no launcher has started: it knows of no other.

    Raises:
        ConfigError: unknown attack or parameter, or a bad schedule.
    """
    draft = _draft(attack, Schedule(start=0), "--attack ", steps)
    return Role(draft.attacks, draft.schedule, (peer,))


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
    when += f" when {schedule.when}" if schedule.when != ALWAYS else ""
    return f"{'+'.join(syntax.written(each) for each in role.attacks)} {when}"


def _check_counts(attack: str | None, count: int, peers: int) -> None:
    if not 0 <= count <= peers:
        raise ConfigError(f"--byzantine {count} must lie between 0 and --peers {peers}")
    if count > 0 and attack is None:
        raise ConfigError(f"--byzantine {count} has no attack; add --attack NAME (`btard-launch attacks` lists them)")
    if count == 0 and attack is not None:
        raise ConfigError(f"--attack {attack} has no attacker; add --byzantine 1")


def _explicit(roles: Sequence[str], schedule: Schedule, peers: int, steps: int) -> dict[int, _Draft]:
    drafts: dict[int, _Draft] = {}
    for text in roles:
        left, equals, right = text.partition("=")
        if not equals or not left.strip().isdecimal():
            raise ConfigError(f"--role {text} is not ID=ATTACK; write for example --role 4=noise:start=300")
        peer = int(left)
        if peer >= peers:
            raise ConfigError(f"--role {text}: there is no peer {peer}; ids run from 0 to {peers - 1}")
        if peer in drafts:
            raise ConfigError(f"--role {text}: peer {peer} has a role already; join attacks with '+'")
        drafts[peer] = _draft(right, schedule, f"--role {peer}=", steps)
    return drafts


def _draft(text: str, schedule: Schedule, where: str, steps: int) -> _Draft:
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
    return _Draft(tuple(attacks), _schedule(schedule, settings, where, steps), collude)


def _is_setting(key: str, parameters: Mapping[str, object]) -> bool:
    """An attack's own parameter of the same name wins over the schedule's."""
    return key in _SETTINGS and key not in parameters


def _schedule(
    default: Schedule, settings: Mapping[str, object], where: str, steps: int, last: int | None = None
) -> Schedule:
    own = {key: item for key, item in settings.items() if key != "last"}
    try:
        schedule = msgspec.convert({**msgspec.structs.asdict(default), **own}, Schedule)
        last = msgspec.convert(settings.get("last", last), int | None)
    except msgspec.ValidationError as error:
        raise ConfigError(f"{where}{_joined(settings)}: {error}") from error
    named = {key: f"{where}...:{key}=" if key in settings else f"--attack-{key} " for key in _SETTINGS}
    if last is not None:
        if not 1 <= last <= steps:
            raise ConfigError(f"{named['last']}{last} must lie between 1 and --steps {steps}")
        schedule = msgspec.structs.replace(schedule, start=max(schedule.start, steps - last))
    if schedule.start < 0:
        raise ConfigError(f"{named['start']}{schedule.start} is too small; use at least 0")
    if schedule.every < 1:
        raise ConfigError(f"{named['every']}{schedule.every} is too small; use at least 1")
    if schedule.stop is not None and schedule.stop <= schedule.start:
        raise ConfigError(f"{named['stop']}{schedule.stop} must lie after the first attack at {schedule.start}")
    if not 0 < schedule.probability <= 1:
        raise ConfigError(f"{named['probability']}{schedule.probability} must lie above 0 and up to 1")
    try:
        conditions(schedule.when)
    except ConfigError as error:
        raise ConfigError(f"{named['when']}{schedule.when}: {error}") from error
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
