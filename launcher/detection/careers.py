"""How long attackers last under given keys: the draws of a run, followed without computing a gradient.

The coins are functions of the protocol seed and the roster alone, so which seed gives attackers a long career can be
known before anything is trained: runs at chosen quantiles of the law test its tail, where runs at random rarely come.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count

from btard.launcher.detection.law import Setting, time_to_last
from btard.node.crypto import keys
from btard.node.protocol.attempt.mprng import combine, share
from btard.node.protocol.attempt.verification import Draw, draw

LEVELS = (0.1, 0.25, 0.4, 0.5, 0.6, 0.75, 0.9, 0.95, 0.99)
"""Nine quantiles, the tail more densely."""
_HORIZON = 400


def career(
    protocol_seed: int, setting: Setting, *, undo: bool, attackers: Sequence[int] | None = None
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """How long the attackers of a run last that all lie in every step from `setting.start` on.

    A conviction removes or reforms, as the setting says.

    Args:
        protocol_seed: of the run's keys.
        setting: the run.
        undo: after a ban comes an undo step, in which nobody contributes.
        attackers: who they are; None: the peers with the highest ids.

    Returns:
        Steps from the first attacked to the last ban's, undo steps not counted; and (step, peer) of each ban.
    """
    seeds = [bytes.fromhex(each.randomness_seed) for each in keys.generate(protocol_seed, setting.peers)[1]]
    last = range(setting.peers - setting.byzantine, setting.peers)
    attacking = set(last if attackers is None else attackers)
    active = tuple(range(setting.peers))
    drawn, before = Draw(), set[int]()
    bans: list[tuple[int, int]] = []
    undoing, undone = False, 0
    for step in count():
        pairs = drawn.pairs(active)
        validating = frozenset() if setting.everyone_contributes else {validator for validator, _ in pairs}
        contributors = () if undoing else tuple(peer for peer in active if peer not in validating)
        r = combine(step, 0, [share(seeds[peer], step, 0).x for peer in active])
        caught = before & attacking  # who was convicted already is not convicted again
        guilty = {target for validator, target in pairs if validator not in attacking and target in caught}
        bans += [(step, peer) for peer in sorted(guilty)]
        attacking -= guilty
        if setting.on_ban == "remove":
            active = tuple(peer for peer in active if peer not in guilty)
        if not attacking:
            return step - setting.start + 1 - undone, tuple(bans)
        wanted = setting.pairs(len(active), setting.peers - len(active))
        drawn = draw(r, contributors, wanted, setting.validate_every)
        before = attacking.intersection(contributors) if step >= setting.start else set()
        undoing = undo and bool(guilty)
        undone += undoing
    raise AssertionError("unreachable: count() does not end")


def at_quantiles(setting: Setting, levels: Sequence[float] = LEVELS, *, undo: bool = True) -> tuple[int, ...]:
    """The least protocol seed for each level whose attackers last as long as that quantile of the law says.

    Args:
        setting: the run.
        levels: of the law of the time to the last ban.
        undo: as in `career`.
    """
    law = time_to_last(setting, _HORIZON)
    wanted = [law.quantile(level) for level in levels]
    found: dict[int, list[int]] = {}
    for seed in count(1):
        steps, _ = career(seed, setting, undo=undo)
        found.setdefault(steps, []).append(seed)
        if all(len(found.get(steps, ())) >= wanted.count(steps) for steps in wanted):
            break
    return tuple(found[steps].pop(0) for steps in wanted)
