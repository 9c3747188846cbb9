"""Accountability: whoever is caught at it is banned: at once for what the transcript shows, for a gradient whenever
an honest validator examined it. What was done is read from the bytes themselves, whatever attack they come from."""

from __future__ import annotations

import torch
from torch import Tensor

from node.protocol.attempt import Attempt
from node.protocol.messages import AccusationKind, Phase, Report
from node.protocol.notices import Accused, Committed
from node.protocol.tribunal import gradient_fault
from node.simulator import Observed
from tests.simulation.checkers.testimony import Bans, Commits
from tests.simulation.stage import Stage

_NOTABLE = 1e-2
"""A shift of an aggregate that V2's random projection hardly ever misses, in units of the clipping radius."""


class Accountability:
    """Looks at every committed transcript with an eye for all bytes, and whether its step ended with the ban."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._bans, self._commits = Bans(), Commits(stage)
        self._audited: set[tuple[int, int | None]] = set()
        self._past: Attempt | None = None

    def see(self, seen: Observed) -> None:
        if seen.node not in self._stage.honest:
            return
        self._bans.see(seen)
        accused = seen.output
        if isinstance(accused, Accused) and accused.kind.startswith("averaging"):
            self._audited.add((accused.step, accused.accused))
        if (fresh := self._commits.fresh(seen)) is not None:
            done, attempt = fresh
            for peer in self._stage.roles:
                if peer in done.active and not self._bans.out(peer, done.step):
                    self._examine(peer, attempt, done)
            self._past = attempt

    def end(self) -> None:
        pass

    def _examine(self, peer: int, attempt: Attempt, done: Committed) -> None:
        """A Byzantine peer that is still there after a step."""
        wrongs = {
            "claimed false checksums that an honest aggregator saw": self._false_claims(peer, attempt),
            "called true checksums false": self._false_bits(peer, attempt),
            "committed to a false aggregate": self._false_aggregate(peer, attempt),
            "gave a false gradient that an honest validator examined": self._false_gradient(peer, attempt),
            "accused a true gradient": self._false_verdict(peer, attempt),
        }
        shown = [wrong for wrong, found in wrongs.items() if found]
        assert not shown, f"peer {peer} {' and '.join(shown)} at step {done.step}, and was not banned"

    def _part(self, owner: int, part: int, attempt: Attempt) -> Tensor | None:
        """The bytes that a contributor committed to, as its node holds them; None if it committed to others."""
        theirs = self._stage.simulation.nodes[owner].peer
        for held in (theirs.past, theirs.attempt):
            same = held is not None and (held.step, held.number) == (attempt.step, attempt.number)
            if same and held is not None and held.own_D is not None:
                values_P = attempt.slice(held.own_D, part)
                return values_P if attempt.part_matches(owner, part, values_P) else None
        return None

    def _lies(self, owner: int, part: int, attempt: Attempt) -> bool | None:
        """True if a contributor's claim about a part is false, None if nobody can tell."""
        values_P = self._part(owner, part, attempt)
        return None if values_P is None else not attempt.claim_holds(owner, part, values_P)

    def _false_claims(self, peer: int, attempt: Attempt) -> bool:
        if peer not in attempt.contributors:
            return False
        honest = (place for place, owner in enumerate(attempt.roster.active) if owner in self._stage.honest)
        return any(self._lies(peer, part, attempt) for part in honest)

    def _false_bits(self, peer: int, attempt: Attempt) -> bool:
        report = attempt.transcript.body(Phase.REPORT, peer)
        assert isinstance(report, Report)
        honest = self._stage.honest
        if any(owner in honest and not bit for owner, bit in zip(attempt.contributors, report.checks, strict=True)):
            return True
        here = (attempt.step, attempt.number)
        for charge in report.accusations:
            known = attempt.aggregators if charge.kind is AccusationKind.AGGREGATE else attempt.contributors
            real = charge.kind is not AccusationKind.GRADIENT and 0 <= charge.part < attempt.split.count
            if real and (charge.step, charge.attempt) == here and charge.accused in known and charge.accused in honest:
                return True
        return False

    def _false_aggregate(self, peer: int, attempt: Attempt) -> bool:
        """One that V2 is bound to see: far off, no claim about it false, somebody within the radius."""
        part, owners = attempt.roster.place(peer), attempt.contributors
        inputs = [values_P for owner in owners if (values_P := self._part(owner, part, attempt)) is not None]
        if not owners or len(inputs) < len(owners) or any(self._lies(owner, part, attempt) for owner in owners):
            return False
        rule, radius, value_P = attempt.tools.rule, attempt.radius(part), attempt.aggregates[peer]
        inputs_NP = torch.stack(inputs)
        if rule.accepts(inputs_NP, value_P, radius):
            return False
        if rule.audited:
            return (attempt.step, peer) in self._audited
        error = float((rule.aggregate(inputs_NP, radius).value_P - value_P).double().norm())
        near = any(attempt.claim(owner, part).norm <= attempt.clip_radius(part) for owner in owners)
        return near and error > _NOTABLE * radius + 1e-4 * float(value_P.double().norm())

    def _false_gradient(self, peer: int, attempt: Attempt) -> bool:
        past = self._past
        examined = any(target == peer and validator in self._stage.honest for validator, target in attempt.pairs)
        if not examined or past is None or peer not in past.contributors or past.settings.recompute_tolerance > 0:
            return False
        true_D, _ = self._stage.simulation._compute(past.state.parameters_D, past.seed(peer), None)
        return gradient_fault(past, peer, true_D) is not None

    def _false_verdict(self, peer: int, attempt: Attempt) -> bool:
        report = attempt.transcript.body(Phase.REPORT, peer)
        assert isinstance(report, Report)
        return any(not verdict.correct and verdict.target in self._stage.honest for verdict in report.verdicts)
