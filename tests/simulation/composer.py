"""A random adversary from a seed: size, rule, network, attackers, what each of them does, and when.

Every choice hangs on the seed and its own name, so a new attack in the registry changes few of the older runs. Older
compositions stay, for the seeds that are known by them: 1 has registered attacks on random networks; 2 adds the moves
of tests/adversary, slow and blocking gradients, restarts with storage faults, and strangers; 3 lets a share of
runs send bfloat16.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from random import Random

import msgspec
from blake3 import blake3
from msgspec.structs import replace

from btard.node.adversary.registry import ATTACKS
from btard.node.adversary.targets import TARGETS
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.plugins.registry import Entry
from tests.simulation.hooked import Hooked
from tests.simulation.mishaps import FATES, Blow, Restarts, Strangers
from tests.simulation.moves import Mind
from tests.simulation.network import network
from tests.simulation.stage import Stage, set_up

BOUND_S = 0.5
GRADIENT_BOUND_S = 1.0
COMPOSITION = 3
"""The newest."""

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
_THINKS, _SLOW, _RESTARTS, _STRANGERS, _NARROW = 0.6, 0.25, 0.2, 0.25, 0.2
"""Shares of runs with each kind of move, where it can be played, and of those that send bfloat16."""
_LONG_S = 5.0 * BOUND_S
_CATCH_UP_S = 8.0 * BOUND_S + 3.0 * GRADIENT_BOUND_S


def candidates() -> tuple[Entry, ...]:
    """Every registered attack that a task without labels lets act, where no newcomers come."""
    return tuple(entry for entry in ATTACKS if not entry.facts["needs_classes"] and entry.name != "introduce")


def dice_of(seed: int, *names: object) -> Random:
    """A generator of its own for everything that a name stands for."""
    text = "/".join(str(name) for name in (seed, *names))
    return Random(int.from_bytes(blake3(text.encode()).digest(8), "little"))


def compose(seed: int, composition: int = COMPOSITION) -> Stage:
    """The run that belongs to a seed, ready to be played."""
    run, roles, links, gradient_s = _plain(seed)
    if composition == 1:
        stage = set_up(run, roles, seed, links)
        stage.simulation._gradient_s = gradient_s
        return stage
    narrow = composition > 2 and run.recompute_tolerance == 0.0 and dice_of(seed, "wire").random() < _NARROW
    return _moved(seed, replace(run, wire="bf16") if narrow else run, roles, links, gradient_s)


def _plain(seed: int) -> tuple[RunConfig, dict[int, Role], LinkModel, float]:
    """Size, rule, attackers and network, and how long a gradient takes."""
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
    links = network(dice, peers, BOUND_S)
    return run, roles, links, dice.choice((0.0, 0.05, 0.9)) * GRADIENT_BOUND_S


def _moved(seed: int, run: RunConfig, roles: dict[int, Role], links: LinkModel, gradient_s: float) -> Stage:
    """The same with moves; each kind has its own chance, and they meet."""
    falls = run.peers <= 9 and not _returns(roles) and dice_of(seed, "restarts").random() < _RESTARTS
    slow = dice_of(seed, "slow").random() < _SLOW
    near = dice_of(seed, "deaf").random() < 0.5
    if falls:
        roles = _fewer(roles, (run.peers + 1) // 2 - 2)
    if falls or (slow and near):
        links = LinkModel(delay_s=0.01 * BOUND_S, jitter_s=0.02 * BOUND_S, seed=seed)
    if slow and not near:
        # Longer than a round of a dispute: whoever is at a gradient must take part meanwhile.
        run = replace(run, gradient_bound_s=_LONG_S)
    thinks = bool(roles) and run.peers <= 9 and dice_of(seed, "mind").random() < _THINKS
    if thinks and dice_of(seed, "mind", "alone").random() < 0.5:
        roles = {peer: replace(role, schedule=Schedule(start=run.steps + 1)) for peer, role in roles.items()}
    stage = set_up(run, roles, seed, links)
    plain = stage.simulation
    simulation = Hooked(plain.nodes, plain.network, plain._compute, gradient_s)
    stage = dataclasses.replace(stage, simulation=simulation)
    kinds = {"a mind": thinks, "slow gradients": slow, "restarts": falls}
    simulation.plan += [name for name, chosen in kinds.items() if chosen]
    if slow:
        _slow(seed, simulation, deaf=near and not falls)
    if thinks:
        dice = dice_of(seed, "mind", "how")
        first = dice.randint(0, min(2, run.steps - 1))
        last, share = first + dice.randint(1, 3), dice.choice((0.03, 0.1, 0.3))
        Mind(stage, dice, first, last, share, dice.randint(4, 16))
    if falls:
        _fall(seed, stage)
    if dice_of(seed, "strangers").random() < _STRANGERS:
        simulation.plan.append("strangers")
        dice = dice_of(seed, "strangers", "how")
        Strangers(stage, dice, sorted(dice.uniform(0.0, 2.0 * run.steps) for _ in range(dice.randint(5, 60))))
    return stage


def _returns(roles: dict[int, Role]) -> bool:
    return any(plugin.name == "rejoin" for role in roles.values() for plugin in role.attacks)


def _fewer(roles: dict[int, Role], most: int) -> dict[int, Role]:
    """The first attackers: a peer that is killed counts as faulty while it is away."""
    kept = tuple(sorted(roles))[: max(0, most)]
    return {
        peer: replace(roles[peer], accomplices=tuple(set(roles[peer].accomplices) & set(kept)) or (peer,))
        for peer in kept
    }


def _slow(seed: int, simulation: Hooked, deaf: bool) -> None:
    """Gradients of any length up to T_g, each peer's own; where they block the loop, up to what D leaves."""
    dice = dice_of(seed, "slow", "how")
    most_s, simulation.deaf = 0.9 * BOUND_S if deaf else None, deaf
    usual = {node: dice.choice((0.01, 0.3, 1.0)) for node in simulation.nodes}

    def takes(node: int) -> float:
        run_s = most_s if most_s is not None else simulation.nodes[node].peer.shared.settings.gradient_bound_s
        simulation.moves["gradient: up to T_g" if not deaf else "gradient: up to D"] += 1
        return run_s * (usual[node] if dice.random() < 0.7 else dice.random())

    simulation.gradient_takes = takes


def _fall(seed: int, stage: Stage) -> None:
    """One honest peer, killed up to three times at any instant; now and then all at once."""
    dice = dice_of(seed, "restarts", "how")
    everyone = dice.random() < 0.15
    length_s = dice.choice((0.5, 2.0)) * stage.run.steps
    blows: list[Blow] = []
    for at_s in sorted(dice.uniform(0.1, length_s) for _ in range(dice.randint(1, 3))):
        away_s = dice.choice((0.0, 0.1, 0.5, 1.0)) * BOUND_S
        fate = dice.choice(FATES) if not everyone else dice.choice(("kill", "power"))
        # Whoever is killed again before it has caught up is away for as long as others have patience.
        if not blows or at_s > blows[-1].at_s + blows[-1].away_s + _CATCH_UP_S:
            blows.append(Blow(at_s, fate, away_s))
    victims = stage.honest if everyone else (dice.choice(stage.honest),)
    Restarts(stage, seed, dict.fromkeys(victims, tuple(blows)))


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
    wire = f" {stage.run.wire}" if stage.run.wire != "float32" else ""
    plan = stage.simulation.plan if isinstance(stage.simulation, Hooked) else []
    beside = f" with {', '.join(plan)}" if plan else ""
    return f"n={stage.run.peers} steps={stage.run.steps}{undo}{wire} {roles or 'nobody attacks'}{beside}"


def _words(plugin: Plugin) -> str:
    return f"{plugin.name}({', '.join(f'{name}={value}' for name, value in plugin.parameters.items())})"
