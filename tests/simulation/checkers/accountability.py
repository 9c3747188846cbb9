"""Accountability: whoever is caught at it is banned: at once for what the transcript shows, for a gradient whenever
an honest validator examined it. What was done is read from the bytes themselves, whatever attack they come from, and
judged by the oracle, not by what peers judge with."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from btard.node.build import tools_of
from btard.node.drivers.simulator import Observed
from btard.node.protocol.api import Accused
from tests.simulation.checkers.testimony import Bans, Commits
from tests.simulation.oracle import REPORT, Account
from tests.simulation.stage import Stage

_NOTABLE = 1e-2
"""A shift of an aggregate that V2's random projection hardly ever misses, in units of the clipping radius."""

_EVEN = 1e-5
"""Of radius and aggregate: what is left of the clipped differences at a fixed point held in float32."""

_ROUNDING = 1e-5
"""Relative error of an aggregate that no audit takes for float32 rounding."""

_HIDDEN = 1e-4
"""Relative shift of one that V2 hardly ever takes for it."""

_COARSER = 2.0**15
"""Rounding to bfloat16 is as much coarser."""


def _pull(rows_NP: NDArray[np.float64], value_P: NDArray[np.float64], radius: float) -> float:
    """Norm of the mean of the clipped differences, 0 at a fixed point of CenteredClip."""
    differences_NP = rows_NP - value_P
    norms_N = np.maximum(np.linalg.norm(differences_NP, axis=1), 1e-300)
    return float(np.linalg.norm((np.minimum(1.0, radius / norms_N)[:, None] * differences_NP).mean(axis=0)))


class Accountability:
    """Looks at every committed transcript with an eye for all bytes, and whether its step ended with the ban."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._bans, self._commits = Bans(), Commits(stage)
        self._audited: set[tuple[int, int | None]] = set()
        self._rule = tools_of(stage.run).rule
        self._parameters_D = stage.task.initial(stage.run.init_seed)
        self._past: Account | None = None
        self._past_parameters_D = self._parameters_D

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        self._bans.see(seen)
        accused = seen.output
        if isinstance(accused, Accused) and accused.kind.startswith("averaging"):
            self._audited.add((accused.step, accused.accused))
        if (fresh := self._commits.fresh(seen)) is not None:
            done, account = fresh
            for owner in account.aggregates:
                assert account.aggregate_committed(owner), f"peer {seen.node} took another aggregate of peer {owner}"
            for peer in self._stage.roles:
                if peer in done.active and not self._bans.out(peer, done.step):
                    self._examine(peer, account)
            self._past, self._past_parameters_D = account, self._parameters_D
            self._parameters_D = done.parameters_D

    def end(self) -> None:
        pass

    def _examine(self, peer: int, account: Account) -> None:
        """A Byzantine peer that is still there after a step."""
        wrongs = {
            "claimed false checksums that an honest aggregator saw": self._false_claims(peer, account),
            "called true checksums false": self._false_bits(peer, account),
            "committed to a false aggregate": self._false_aggregate(peer, account),
            "gave a false gradient that an honest validator examined": self._false_gradient(peer, account),
            "accused a true gradient": self._false_verdict(peer, account),
        }
        shown = [wrong for wrong, found in wrongs.items() if found]
        assert not shown, f"peer {peer} {' and '.join(shown)} at step {account.step}, and was not banned"

    def _part(self, owner: int, part: int, account: Account) -> NDArray[np.float32] | None:
        """The bytes that a contributor committed to, as its node holds them; None if it committed to others."""
        theirs = self._stage.simulation.nodes[owner].peer
        start, stop = account.parts[part]
        for held in (theirs.past, theirs.attempt):
            same = held is not None and (held.step, held.number) == (account.step, account.number)
            if same and held is not None and held.own_D is not None:
                values_P: NDArray[np.float32] = held.own_D[start:stop].numpy()
                return values_P if account.part_committed(owner, part, values_P) else None
        return None

    def _lies(self, owner: int, part: int, account: Account) -> bool | None:
        """True if a contributor's claim about a part is false, None if nobody can tell."""
        values_P = self._part(owner, part, account)
        return None if values_P is None else account.lies(owner, part, values_P)

    def _false_claims(self, peer: int, account: Account) -> bool:
        if peer not in account.contributors:
            return False
        honest = (place for place, owner in enumerate(account.active) if owner in self._stage.honest)
        return any(self._lies(peer, part, account) for part in honest)

    def _false_bits(self, peer: int, account: Account) -> bool:
        checks, _, accusations, *_ = account.fields(REPORT, peer)
        assert isinstance(checks, list)
        assert isinstance(accusations, list)
        honest, contributors = self._stage.honest, account.contributors
        if any(owner in honest and not bit for owner, bit in zip(contributors, checks, strict=True)):
            return True
        for kind, accused, step, attempt, part in accusations:
            aggregators = account.active if contributors else ()
            known = aggregators if kind == "aggregate" else contributors
            real = kind != "gradient" and 0 <= part < len(account.active)
            here = (step, attempt) == (account.step, account.number)
            if real and here and accused in known and accused in honest:
                return True
        return False

    def _false_aggregate(self, peer: int, account: Account) -> bool:
        """One that V2 is bound to see: far off, no claim about it false, somebody within the radius."""
        part, owners = account.active.index(peer), account.contributors
        inputs = [values_P for owner in owners if (values_P := self._part(owner, part, account)) is not None]
        if not owners or len(inputs) < len(owners) or any(self._lies(owner, part, account) for owner in owners):
            return False
        value_P = account.aggregates[peer].astype(np.float64)
        radius, clip_radius = account.world.radius(value_P.size), account.world.clip_radius(value_P.size)
        true_P = account.world.aggregate(np.stack(inputs).astype(np.float64), radius)
        if true_P is None:  # a rule whose definition tests/test_aggregation_byzfl.py holds
            true_P = self._rule.aggregate(torch.from_numpy(np.stack(inputs)), radius).value_P.double().numpy()
        error, coarser = float(np.linalg.norm(true_P - value_P)), _COARSER if account.world.narrow else 1.0
        if self._rule.audited:
            wrong = not error <= _ROUNDING * coarser * float(np.linalg.norm(true_P))
            return wrong and (account.step, peer) in self._audited
        near = any(account.claim(owner, part)[1] <= clip_radius for owner in owners)
        length = float(np.linalg.norm(value_P))
        if account.world.clips and _pull(np.stack(inputs).astype(np.float64), value_P, radius) <= _EVEN * (
            radius + length
        ):
            return False  # rows out of each other's reach have more than one fixed point
        return near and error > _NOTABLE * radius + _HIDDEN * coarser * length

    def _false_gradient(self, peer: int, account: Account) -> bool:
        verdicts, past, honest = account.verdicts, self._past, self._stage.honest
        examined = any(target == peer for validator in honest for target, _ in verdicts.get(validator, ()))
        if not examined or past is None or peer not in past.contributors or self._stage.run.recompute_tolerance > 0:
            return False
        true_D, _ = self._stage.simulation._compute(self._past_parameters_D, past.batch_seed(peer), None)
        return past.gradient_false(peer, true_D.numpy())

    def _false_verdict(self, peer: int, account: Account) -> bool:
        return any(not correct and target in self._stage.honest for target, correct in account.verdicts[peer])
