"""Another peer's commitment as one's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.behaviour import Behaviour
from btard.node.adversary.registry import attack
from btard.node.adversary.targets import shuffled
from btard.node.protocol.api import Say
from btard.node.protocol.wire.messages import Commit, Reveal

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Input, Output
    from btard.node.protocol.wire.messages import Body


@attack(
    "copy_commitment",
    acts_on="node",
    source="PROTOCOL section 3 (the commitment names its sender)",
    examples=({}, {"what": "parts"}),
    choices={"what": ("randomness", "parts")},
)
class CopyCommitment(Behaviour):
    """The attacker waits for an honest peer's COMMIT and sends what it holds as its own.

    Args:
        what: `randomness`: the commitment to x, and later the victim's x and salt, so that both would cancel out;
            `parts`: the digests of the victim's gradient, without computing one.

    Source: PROTOCOL section 9, "a commitment copied: useless": digests name the peer that commits.
    """

    def __init__(self, *, what: str = "randomness") -> None:
        self._what = what
        self._held: Say | None = None

    def said(self, output: Output, view: View) -> Sequence[Output]:
        """COMMIT and REVEAL wait for the victim's."""
        if not isinstance(output, Say) or not isinstance(output.body, Commit | Reveal):
            return (output,)
        if isinstance(output.body, Reveal) and self._what == "parts":
            return (output,)
        self._held = output
        return self._copy(view)

    def heard(self, event: Input, view: View) -> Sequence[Output]:
        """The victim's message may have come."""
        return self._copy(view)

    def _copy(self, view: View) -> Sequence[Output]:
        held, attempt, order = self._held, view.attempt, shuffled(view, "copy_commitment")
        if held is None or attempt is None or not order:
            return ()
        phase = held.body.slot.phase
        if held.body.slot != attempt.slot(phase):
            self._held = None
            return ()
        # Parts can only be copied from a contributor.
        giving = [peer for peer in order if self._what == "randomness" or peer in attempt.contributors]
        original = attempt.transcript.body(phase, giving[0]) if giving else None
        body: Body
        match held.body, original:
            case Commit() as ours, Commit() as theirs if self._what == "randomness":
                body = replace(ours, randomness=theirs.randomness)
            case Commit() as ours, Commit() as theirs:
                body = replace(ours, parts=theirs.parts) if ours.parts else ours
            case Reveal() as ours, Reveal() as theirs:
                body = replace(ours, x=theirs.x, salt=theirs.salt)
            case _:
                return ()
        self._held = None
        return (Say(held.to, body),)
