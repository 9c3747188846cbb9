"""A random run from a seed: size, rule, schedule, attackers and network. Replays one from the command line.

python -m tests.simulation.scenario 17
"""

from __future__ import annotations

import sys
from random import Random

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import PhaseEntered
from btard.node.training.environment import pin
from tests.simulation.checkers import PROMISES
from tests.simulation.stage import Stage, play, set_up

GRADIENT = (
    Plugin("sign_flip"),
    Plugin("sign_flip", {"scale": 1.0}),
    Plugin("constant_direction"),
    Plugin("noise"),
    Plugin("noise", {"variant": "notebook"}),
    Plugin("noise", {"variant": "small", "fraction": 0.1}),
)
BOUNDED = (Plugin("sign_flip", {"scale": 1.0}), Plugin("noise", {"variant": "small"}))
"""What the undefended mean survives without blowing up."""

OTHERS = (
    Plugin("shift_aggregate"),
    Plugin("shift_aggregate", {"scale": 0.01}),
    Plugin("shift_aggregate", {"scale": 0.5, "relative": False}),
    Plugin("shift_aggregate", {"scale": float("inf")}),
    Plugin("lie_checksum"),
    Plugin("lie_checksum", {"part": -1, "amount": -0.3}),
    Plugin("lie_checksum", {"entry": "norm"}),
    Plugin("lie_checksum", {"variant": "nan"}),
    Plugin("lie_checksum", {"variant": "huge"}),
    Plugin("lie_checksum", {"variant": "negative", "entry": "norm"}),
    Plugin("false_accuse"),
    Plugin("false_accuse", {"how": "bit"}),
    Plugin("lenient_validator", {"all": True}),
)


def scenario(seed: int) -> Stage:
    """The run that belongs to a seed."""
    dice = Random(seed)
    peers = dice.randint(4, 8)
    rule = dice.choices(("centered_clip", "mean", "median"), (6, 1, 1))[0]
    run = RunConfig(
        peers=peers,
        task=Plugin("quadratic", {"dimension": dice.choice((peers, 2 * peers + 1, 64))}),
        rule=Plugin(rule),
        steps=dice.randint(8, 14),
        batch_size=dice.choice((1, 4)),
        tau=dice.choice((1.0, 5.0, 20.0)),
        validators=dice.randint(1, 3),
        validate_every=dice.choice((1, 1, 2, 3)),
        delta_max=dice.choice((None, None, 3.0)),
        audit_share=dice.choice((0.1, 1.0)),
        on_ban=dice.choice(("remove", "reform")),
        data_seed=seed,
    )
    attackers = dice.sample(range(peers), dice.randint(0, (peers + 1) // 2 - 1))
    roles = {peer: _role(dice, tuple(sorted(attackers)), rule, seed) for peer in attackers}
    links = LinkModel(
        delay_s=dice.uniform(0.0, 0.1),
        jitter_s=dice.choice((0.0, 0.02, 0.5)),
        loss=dice.choice((0.0, 0.1)),
        duplicate=dice.choice((0.0, 0.1)),
        retransmit_s=0.05,
        seed=seed,
    )
    return set_up(run, roles, seed, links)


def _role(dice: Random, accomplices: tuple[int, ...], rule: str, seed: int) -> Role:
    gradient = BOUNDED if rule == "mean" else GRADIENT
    attacks = [dice.choice(gradient if dice.random() < 0.5 else OTHERS)]
    if dice.random() < 0.2:
        attacks.append(dice.choice(OTHERS if attacks[0] in gradient else gradient))
    schedule = Schedule(
        start=dice.randint(0, 4),
        every=dice.choice((1, 1, 2)),
        stop=dice.choice((None, None, 8)),
        probability=dice.choice((1.0, 1.0, 0.7)),
    )
    return Role(tuple(attacks), schedule, accomplices, attack_seed=seed)


def main(seed: int) -> None:
    """Replay one seed and print what every node reports."""
    pin("cpu")
    stage = scenario(seed)
    print(stage.run)
    for peer, role in stage.roles.items():
        print(peer, role)
    try:
        seen = play(stage, ())
    finally:
        for peer in stage.roles:
            print("attacked", peer, stage.adversary(peer).attacked)
    for observed in seen:
        if not isinstance(observed.output, PhaseEntered):
            print(f"{observed.time_s:9.3f} {observed.node} {str(observed.output)[:180]}")
    play(scenario(seed), PROMISES)
    print("all promises hold")


if __name__ == "__main__":
    main(int(sys.argv[1]))
