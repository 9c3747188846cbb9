"""A reveal that does not come."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from node.attacks.behaviour import Behaviour
from node.attacks.registry import attack
from node.attacks.targets import chosen, told_apart
from node.protocol.events import Say
from node.protocol.messages import Phase, Reveal
from node.protocol.randomness import combine
from node.protocol.validators import draw

if TYPE_CHECKING:
    from node.attacks.view import View
    from node.protocol.events import Input, Output


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
            gradient for validation: the retry draws anew.

    Source: PROTOCOL section 9, "a reveal withheld: removed, new attempt; at most f biased retries".
    """

    def __init__(self, *, biased: bool = False) -> None:
        self._biased = biased
        self._held: Say | None = None

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """REVEAL is withheld, or held back until r is known."""
        if not isinstance(output, Say) or not isinstance(output.body, Reveal):
            return (output,)
        if self._biased:
            self._held = output
            return self._decide(view)
        return told_apart(output, None, chosen(view, "all"))

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
        assert isinstance(held.body, Reveal)
        xs = {peer: reveal.x for peer, reveal in known.items()} | {view.me: held.body.x}
        if any(peer not in xs for peer in view.peers):
            return ()
        self._held = None
        r = combine(attempt.step, attempt.number, [xs[peer] for peer in view.peers])
        pairs = max(1, attempt.settings.validators)
        targets = draw(r, attempt.contributors, pairs, attempt.settings.validate_every).targets
        unwelcome = any(target in view.accomplices for target in targets)
        return told_apart(held, None, chosen(view, "all")) if unwelcome else (held,)
