"""A reveal that does not come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen, told_apart
from btard.node.protocol.api import Forward, Say
from btard.node.protocol.attempt.mprng import combine
from btard.node.protocol.attempt.verification import allowed_pairs, draw
from btard.node.protocol.wire.messages import Phase, Reveal

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Input, Output


@attack(
    "withhold_reveal",
    acts_on="node",
    source="Gorbunov et al. 2021, appendix A.2 (an aborted multi-party random number generator)",
    examples=({}, {"biased": True}),
)
class WithholdReveal(Behaviour):
    """The attacker does not open its randomness: the attempt has no r and is tried again.

    Args:
        biased: wait for everybody else's reveal, and withhold the own one only where r would draw an attacker's
            gradient for validation: the retry draws anew. One attacker sacrifices itself for that, the others reveal.

    Source: PROTOCOL section 9, "a reveal withheld: removed, new attempt; at most f biased retries".
    """

    def __init__(self, *, biased: bool = False) -> None:
        self._biased = biased
        self._held: Say | None = None

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """REVEAL is withheld, or held back until r is known; nothing is passed on that would give it away."""
        if isinstance(output, Forward):
            return ()
        if not isinstance(output, Say) or not isinstance(output.body, Reveal):
            return (output,)
        self._held = Say(chosen(view, "all"), output.body) if self._biased else None
        # Accomplices get it at once: each of them must know r to choose.
        return (*told_apart(output, None, chosen(view, "all")), *self._decide(view))

    def heard(self, event: Input, view: View) -> Sequence[Output]:
        """The last of the others' reveals gives r away."""
        return self._decide(view)

    def _decide(self, view: View) -> Sequence[Output]:
        held, attempt = self._held, view.attempt
        if held is None or attempt is None:
            return ()
        if held.body.slot != attempt.slot(Phase.REVEAL):
            self._held = None
            return ()
        known = attempt.transcript.of(Reveal, Phase.REVEAL)
        if any(peer not in known for peer in view.peers):
            return ()
        self._held = None
        r = combine(attempt.step, attempt.number, [reveal.x for reveal in known.values()])
        settings, state = attempt.settings, attempt.state
        pairs = allowed_pairs(settings.validators, len(attempt.roster.active), attempt.roster.genesis_faults,
                              state.removed_faults, settings.validators_contribute)  # fmt: skip
        targets = draw(r, attempt.contributors, pairs, settings.validate_every).targets
        unwelcome = any(target in view.accomplices for target in targets)
        victim = next(peer for peer in view.peers if peer in view.accomplices)
        return () if unwelcome and victim == view.me else (held,)
