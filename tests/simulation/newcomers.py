"""A random run that newcomers apply to: who they are, when they come, and what else goes on, from a seed."""

from __future__ import annotations

from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Banned, Committed, Expelled, Finished, Halted, Lapsed, Returned, Suspected
from tests.simulation.composer import BOUND_S, GRADIENT_BOUND_S, _role, dice_of
from tests.simulation.network import network
from tests.simulation.stage import Stage, set_up

_HOSTILE = ("gradient", "equivocate", "flood", "later", "silence", "nothing")
_MEMBERS = ("undrawn", "forged", "twice", "differently")


def compose(seed: int) -> Stage:
    """The run that belongs to a seed, ready to be played.

    Founders and newcomers that attack are together no more than the founders alone may be.
    """
    dice = dice_of(seed, "newcomers")
    peers = dice.choice((4, 5, 6, 7))
    coming = dice.randint(1, 3)
    run = RunConfig(
        peers=peers,
        task=Plugin("quadratic", {"dimension": dice.choice((16, 24, 32))}),
        steps=dice.randint(14, 22),
        batch_size=1,
        validators=dice.choice((1, 1, 2)),
        probation=dice.randint(1, 3),
        roster=dice.choice(("sponsored", "open")),
        members=peers + coming + dice.randint(0, 1),
        admit_every=dice.choice((1, 3, 6)),
        on_ban=dice.choice(("remove", "remove", "reform")),
        data_seed=seed,
        delivery_bound_s=BOUND_S,
        gradient_bound_s=GRADIENT_BOUND_S,
    )
    ids = tuple(dice.sample(range(peers, run.members), coming))
    faulty = dice.randint(0, (peers + 1) // 2 - 1)
    bad = dice.sample(ids, min(faulty, dice.randint(0, coming)))
    attackers = tuple(sorted((*dice.sample(range(peers), faulty - len(bad)), *bad)))
    roles = {}
    for peer in attackers:
        if peer in bad:
            plugin = Plugin("rejoin", {"then": dice.choice(_HOSTILE)})
            roles[peer] = Role((plugin,), Schedule(start=0), attackers, attack_seed=seed)
        elif dice.random() < 0.3:
            plugin = Plugin("introduce", {"what": dice.choice(_MEMBERS)})
            roles[peer] = Role((plugin,), Schedule(start=dice.randint(1, 6)), attackers, attack_seed=seed)
        else:
            role = _role(seed, peer, run, attackers)
            late = Schedule(dice.randint(1, run.steps - 2), role.schedule.every, None, role.schedule.probability)
            roles[peer] = Role(role.attacks, late, attackers, attack_seed=seed)
    newcomers = {peer: dice.randint(0, run.steps // 2) for peer in ids}
    return set_up(run, roles, seed, network(dice, run.members, BOUND_S), newcomers=newcomers)


class Newcomers:
    """Honest newcomers are treated as honest founders are: never suspected, banned or wrong, and of one mind with them.

    Whoever has come before the last step ends with the others.
    """

    def __init__(self, stage: Stage) -> None:
        everyone = set(stage.simulation.nodes)
        self._honest = {peer for peer in everyone if peer >= stage.run.peers and peer not in stage.roles}
        self._members = set(stage.honest)
        self._digests: dict[int, bytes] = {}
        self._back: set[int] = set()
        self._last = stage.run.steps
        self._ended: set[int] = set()

    def see(self, seen: Observed) -> None:
        output = seen.output
        if seen.node in self._members:
            match output:
                case Banned(peer=peer) | Suspected(peer=peer):
                    assert peer not in self._honest, f"honest newcomer {peer}: {output}"
                case Lapsed(peer=peer, reason=reason):
                    assert reason == "silent" or peer not in self._honest, f"honest newcomer {peer}: {output}"
                case Returned(peer=peer, step=step) if peer in self._honest and step < self._last:
                    self._back.add(peer)
        match output:
            case Committed() as done if seen.node in self._honest | self._members:
                digest = self._digests.setdefault(done.step, done.state_digest)
                assert done.state_digest == digest, f"peer {seen.node} holds another state after step {done.step}"
            case Finished():
                self._ended.add(seen.node)
            case Expelled() | Halted() if seen.node in self._back:
                raise AssertionError(f"honest newcomer {seen.node}: {output}")

    def end(self) -> None:
        assert self._back <= self._ended, f"newcomers {self._back - self._ended} never finished"
