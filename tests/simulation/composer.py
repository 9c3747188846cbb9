"""A random adversary from a seed: size, rule, network, attackers, what each of them does, and when.

Every choice hangs on the seed and its own name, so a new attack in the registry changes few of the older runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from random import Random

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from node.attacks.registry import ATTACKS
from node.attacks.targets import TARGETS
from node.config import Plugin, Role, RunConfig, Schedule
from node.registry import Entry
from tests.simulation.network import network
from tests.simulation.stage import Stage, set_up

BOUND_S = 0.5
GRADIENT_BOUND_S = 1.0

NUMBERS: Mapping[str, tuple[object, ...]] = {
    "amount": (0.5, -0.3, 1e-3),
    "before_s": (0.001, 0.01, 0.1, 0.4, -0.4),
    "delay": (1, 2),
    "entries": (1, 3),
    "fraction": (0.1, 1.0),
    "part": (0, -1, 1),
    "place": (0, 1),
    "scale": (1.0, 0.01, 0.3, 100.0, float("inf")),
    "share": (0.5, 1.0),
    "sigma": (0.1, 100.0),
    "value": (float("inf"), -1e30, float("nan")),
}
"""Values of parameters that are numbers; others keep their default."""

GRADIENT = frozenset({"gradient", "data"})
_TARGETS_BY_NAME = TARGETS[-1]
_REJOINS = 0.06
"""Share of runs in which an attacker falls silent and comes back."""


def candidates() -> tuple[Entry, ...]:
    """Every registered attack that a task without labels lets act."""
    return tuple(entry for entry in ATTACKS if not entry.facts["needs_classes"])


def dice_of(seed: int, *names: object) -> Random:
    """A generator of its own for everything that a name stands for."""
    text = "/".join(str(name) for name in (seed, *names))
    return Random(int.from_bytes(blake3(text.encode()).digest(8), "little"))


def compose(seed: int) -> Stage:
    """The run that belongs to a seed, ready to be played."""
    dice = dice_of(seed, "run")
    peers = dice.choices(range(4, 17), (20, 22, 24, 14, 8, 3, 2, 1, 1, 1, 1, 1, 2))[0]
    long = peers <= 7 and dice.random() < 0.15
    run = RunConfig(
        peers=peers,
        task=Plugin("quadratic", {"dimension": dice.choice((peers, peers + 1, 2 * peers + 1, 32))}),
        rule=Plugin(dice.choices(("centered_clip", "mean", "median"), (8, 1, 1))[0]),
        steps=dice.randint(11, 14) if long else dice.randint(2, 5),
        batch_size=1,
        tau=dice.choice((1.0, 5.0, 20.0)),
        validators=dice.choice((1, 1, 2, 3)),
        validate_every=dice.choice((1, 1, 2, 3)),
        delta_max=dice.choice((None, None, None, 3.0)),
        audit_share=dice.choice((0.1, 1.0)),
        on_ban=dice.choice(("remove", "remove", "reform")),
        data_seed=seed,
        recompute_tolerance=dice.choices((0.0, 1e-6), (9, 1))[0],
        delivery_bound_s=BOUND_S,
        gradient_bound_s=GRADIENT_BOUND_S,
    )
    if run.recompute_tolerance == 0.0:
        run = replace(run, undo=dice_of(seed, "undo 16").choices((0, 2, 3, 8), (5, 1, 1, 1))[0])
    attackers = tuple(sorted(dice.sample(range(peers), _how_many(dice, (peers + 1) // 2 - 1))))
    known = bool(dice.random() < 0.8)
    roles = {peer: _role(seed, peer, run, attackers if known else (peer,)) for peer in attackers}
    if attackers and peers <= 9 and dice_of(seed, "back").random() < _REJOINS:
        run, roles = _rejoining(seed, run, roles)
    stage = set_up(run, roles, seed, network(dice, peers, BOUND_S))
    stage.simulation._gradient_s = dice.choice((0.0, 0.05, 0.9)) * GRADIENT_BOUND_S
    return stage


def _rejoining(seed: int, run: RunConfig, roles: dict[int, Role]) -> tuple[RunConfig, dict[int, Role]]:
    """The same run, long enough for its first attacker to fall silent and come back."""
    dice, first = dice_of(seed, "back", "how"), min(roles)
    choices = ATTACKS.get("rejoin").facts["choices"]
    assert isinstance(choices, Mapping)
    plugin = Plugin("rejoin", {"then": dice.choice(choices["then"])})
    role = Role((plugin,), Schedule(start=dice.randint(0, 2)), roles[first].accomplices, attack_seed=seed)
    steps, probation = dice.randint(10, 16), dice.randint(1, 2)
    run = msgspec.structs.replace(run, steps=steps, probation=probation, recompute_tolerance=0.0, undo=0)
    return run, {**roles, first: role}


def _how_many(dice: Random, most: int) -> int:
    """Usually as many attackers as the model allows."""
    return most if dice.random() < 0.6 else dice.randint(0, most)


def _role(seed: int, peer: int, run: RunConfig, accomplices: tuple[int, ...]) -> Role:
    """One attacker's attacks and schedule; one in three attackers does what all of its kind do."""
    whose = "all" if dice_of(seed, "joint").random() < 0.34 else peer
    dice = dice_of(seed, "role", whose)
    count = dice.choices((1, 2, 3), (5, 3, 1))[0]
    attacks = tuple(_attack(seed, whose, number, run) for number in range(count))
    start = dice.randint(0, min(4, run.steps - 1)) if run.steps < 10 or dice.random() < 0.6 else dice.randint(9, 11)
    schedule = Schedule(
        start=start,
        every=dice.choice((1, 1, 1, 2)),
        stop=dice.choice((None, start + 1, start + 2)),
        probability=dice.choice((1.0, 1.0, 0.7)),
    )
    return Role(attacks, schedule, accomplices, attack_seed=seed)


def _attack(seed: int, whose: object, number: int, run: RunConfig) -> Plugin:
    """Of all attacks the one that draws the highest lot: a new one takes a share from each, and moves nothing else."""
    protocol = dice_of(seed, "kind", whose, number).random() < 0.75
    among = [entry for entry in candidates() if (entry.facts["acts_on"] not in GRADIENT) == protocol]
    entry = max(among, key=lambda entry: dice_of(seed, "lot", whose, number, entry.name).random())
    dice = dice_of(seed, "parameters", whose, number, entry.name)
    choices = entry.facts["choices"]
    assert isinstance(choices, Mapping)
    values = {name: _value(dice, name, default, choices.get(name), run.peers)
              for name, default in sorted(entry.parameters.items())}  # fmt: skip
    return Plugin(entry.name, {name: value for name, value in values.items() if value is not None})


def _value(dice: Random, name: str, default: object, choices: tuple[str, ...] | None, peers: int) -> object:
    if choices is not None:
        picked = dice.choice(choices)
        if picked == _TARGETS_BY_NAME:
            return "".join(f"@{peer}" for peer in sorted(dice.sample(range(peers), dice.randint(1, peers - 1))))
        return picked
    if isinstance(default, bool):
        return dice.random() < 0.5
    if name == "phase":
        return dice.choice(("COMMIT", "AGG", "REVEAL", "CHECKSUMS", "REPORT", "CLOSE"))
    picked = dice.choice(NUMBERS[name]) if name in NUMBERS else default
    return int(str(picked)) if isinstance(default, int) and isinstance(picked, int) else picked


def described(stage: Stage) -> str:
    """A composed run in a few words."""
    roles = "; ".join(
        f"{peer}: {', '.join(_words(plugin) for plugin in role.attacks)} from {role.schedule.start}"
        for peer, role in stage.roles.items()
    )
    undo = f" undo={stage.run.undo}" if stage.run.undo else ""
    return f"n={stage.run.peers} steps={stage.run.steps}{undo} {roles or 'nobody attacks'}"


def _words(plugin: Plugin) -> str:
    return f"{plugin.name}({', '.join(f'{name}={value}' for name, value in plugin.parameters.items())})"
