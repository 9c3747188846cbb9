"""The judging of one attempt: its charges, what it waits for, and what this peer says about them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from btard.node.protocol.adjudication.accusations import charges, judged_peers, publications
from btard.node.protocol.adjudication.charges import Averaging, Charge, FalseGradient, FalseHistory, Guilt, Publication
from btard.node.protocol.adjudication.verdict import CaseFile, Fault, Judgement, far_from, judge
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.undo_window import Contribution
from btard.node.protocol.state_sync import probation
from btard.node.protocol.wire.messages import BulkKey, BulkKind, Have, Judge, Phase, Publish


@dataclass(frozen=True, slots=True)
class Counts:
    """How many publications and gradient charges judging has; None while that is not known yet.

    A message from a peer ahead of us is checked again when we get there.
    """

    publications: int | None = None
    charges: int | None = None


class Case:
    """What follows REPORT in an attempt.

    Args:
        attempt: the attempt, complete up to REPORT.
        past: the committed attempt of the step before, None in step 0.
    """

    def __init__(self, attempt: Attempt, past: Attempt | None) -> None:
        self.attempt = attempt
        self.past = past
        self.charges: tuple[Charge, ...] = charges(attempt)
        self.publications: tuple[Publication, ...] = publications(self.charges, attempt, past)
        gradient = [charge for charge in self.charges if isinstance(charge, FalseGradient)]
        self.accused: tuple[int, ...] = tuple(dict.fromkeys(charge.accused for charge in gradient))
        self.returning: tuple[int, ...] = probation.wanted(attempt)
        """Peers on probation whose gradients everyone computes again."""
        self.disowned: tuple[Contribution, ...] = tuple(
            Contribution(charge.step, charge.attempt, charge.accused)
            for charge in self.charges
            if isinstance(charge, FalseHistory)
        )
        self.mixed = attempt.settings.recompute_tolerance > 0
        self.judging: tuple[int, ...] = judged_peers(attempt) if self.mixed else ()
        self._counts = Counts(len(self.publications), len(self.judging))
        self._wanted = {self._index(publication): publication for publication in self.publications}

    @property
    def counts(self) -> Counts:
        """How many bits its HAVE and how many findings its JUDGE carry."""
        return self._counts

    @staticmethod
    def _index(publication: Publication) -> tuple[int, int, int, int]:
        return (publication.step, publication.attempt, publication.owner, publication.part)

    @property
    def phases(self) -> tuple[Phase, ...]:
        """The phases of judging, without those this transcript does not need, and CLOSE."""
        publishing = (Phase.PUBLISH, Phase.HAVE) if self.publications else ()
        return (*publishing, *((Phase.JUDGE,) if self.judging else ()), Phase.CLOSE)

    def phase_after(self, phase: Phase) -> Phase:
        """The phase that follows REPORT or a phase of judging."""
        return next(candidate for candidate in self.phases if candidate.value > phase.value)

    # --- publications -----------------------------------------------------------------------------------------

    def source_of(self, publication: Publication) -> Attempt | None:
        """The attempt whose commitment binds a publication."""
        for attempt in (self.attempt, self.past):
            if attempt is not None and (publication.step, publication.attempt) == (attempt.step, attempt.number):
                return attempt
        return None

    def ours(self) -> tuple[tuple[BulkKey, Tensor], ...]:
        """What this peer has to publish, with the bytes it committed to."""
        result = []
        for item in self.publications:
            source = self.source_of(item)
            if item.owner == self.attempt.me and source is not None and source.own_D is not None:
                key = BulkKey(item.step, item.attempt, BulkKind.PUBLICATION, item.owner, item.part)
                result.append((key, source.slice(source.own_D, item.part)))
        return tuple(result)

    def accept(self, key: BulkKey, values_P: Tensor) -> bool:
        """Keep a published part if it is wanted and is what its owner committed to."""
        publication = self._wanted.get((key.step, key.attempt, key.owner, key.part))
        source = self.source_of(publication) if publication is not None else None
        if source is None or not source.part_matches(key.owner, key.part, values_P):
            return False
        self.attempt.publications[(key.step, key.attempt, key.owner, key.part)] = values_P
        return True

    def missing(self) -> tuple[Publication, ...]:
        """Publications that are not here."""
        return tuple(item for index, item in self._wanted.items() if index not in self.attempt.publications)

    # --- what this peer says ----------------------------------------------------------------------------------

    def publish(self) -> Publish:
        """PUBLISH: our publications follow."""
        return Publish(self.attempt.slot(Phase.PUBLISH), self.attempt.transcript.prefix)

    def have(self, overdue: bool) -> Have | None:
        """HAVE, once every publication is here, or with the bits of those that did not come in time."""
        if not overdue and any(map(self.attempt.awaits_publication, self._wanted)):
            return None
        bits = tuple(self._index(item) in self.attempt.publications for item in self.publications)
        return Have(self.attempt.slot(Phase.HAVE), self.attempt.transcript.prefix, bits)

    def judge(self, recomputed: Mapping[int, Tensor]) -> Judge | None:
        """JUDGE, once the accused gradients are recomputed: our own finding on each."""
        if any(peer not in recomputed for peer in self.judging):
            return None
        if any(item.owner in self.judging for item in self.missing()):
            return None
        guilty = tuple(self._finds_guilty(peer, recomputed[peer]) for peer in self.judging)
        return Judge(self.attempt.slot(Phase.JUDGE), self.attempt.transcript.prefix, guilty)

    def _finds_guilty(self, owner: int, recomputed_D: Tensor) -> bool:
        """A false gradient, or false checksums of a true one: an aggregator in league may have passed them, and the
        validator that noticed has only this way to say so."""
        past = self.past
        items = [item for item in self.publications if item.owner == owner and item.step != self.attempt.step]
        published = {item.part: self.attempt.publications[self._index(item)] for item in items}
        claims_hold = past is None or all(past.claim_holds(owner, part, held) for part, held in published.items())
        tolerance = self.attempt.settings.recompute_tolerance
        return not claims_hold or far_from(torch.cat(list(published.values())), recomputed_D, tolerance)

    def verdict(
        self,
        recomputed: Mapping[int, Tensor],
        scarce: tuple[Publication, ...],
        withheld: tuple[Guilt, ...],
        faults: Mapping[Contribution, Fault | None],
    ) -> Judgement | None:
        """The outcome, once everything it needs is here.

        Args:
            recomputed: gradients of the step before, by peer.
            scarce: publications that too few hold. What they would have decided stays undecided, and an aggregate
                that cannot be checked does not count.
            withheld: their owners' guilt.
            faults: what recomputation found of contributions to earlier steps.
        """
        if any(item not in faults for item in self.disowned):
            return None
        if not self.mixed and any(peer not in recomputed for peer in self.accused):
            return None
        if any(item not in scarce for item in self.missing()):
            return None
        decidable = tuple(charge for charge in self.charges if not self._needs(charge, scarce))
        majority = self._majority() if self.mixed else None
        judgement = judge(decidable, CaseFile(self.attempt, self.past, recomputed, majority, faults))
        unchecked = any(isinstance(charge, Averaging) for charge in self.charges if charge not in decidable)
        return judgement.joined(withheld, unchecked, self.attempt.roster.active)

    def lies(self, faults: Mapping[Contribution, Fault | None]) -> tuple[Contribution, ...]:
        """Contributions in question that are false: nobody judged what all its checkers, one of them honest, pass."""
        return tuple(item for item in self.disowned if faults[item] is not None)

    def _needs(self, charge: Charge, scarce: tuple[Publication, ...]) -> bool:
        """True if judging a charge needs one of the scarce publications."""
        return any(item in scarce for item in publications((charge,), self.attempt, self.past))

    def _majority(self) -> frozenset[int]:
        """The accused whom more than half of the active roster finds guilty."""
        judges = self.attempt.transcript.of(Judge, Phase.JUDGE).values()
        active = len(self.attempt.roster.active)
        return frozenset(
            peer for place, peer in enumerate(self.judging) if 2 * sum(body.guilty[place] for body in judges) > active
        )
