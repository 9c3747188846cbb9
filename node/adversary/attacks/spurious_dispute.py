"""Disputes about nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen, shuffled
from btard.node.protocol.api import PhaseEntered, Say
from btard.node.protocol.wire.messages import Outcome, Phase, Removal, Suspect, View

if TYPE_CHECKING:
    from btard.node.adversary.view import View as Knowledge
    from btard.node.protocol.api import Output
    from btard.node.protocol.attempt.attempt import Attempt

_WITHIN = tuple(phase.name for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value)


@attack(
    "spurious_dispute",
    acts_on="outputs",
    source="PROTOCOL section 4",
    examples=({}, {"how": "outcome"}),
    choices={"how": ("suspect", "view", "two_views", "outcome"), "phase": _WITHIN},
)
def spurious_dispute(
    output: Output, view: Knowledge, *, how: str = "suspect", phase: str = "REVEAL"
) -> Sequence[Output]:
    """The attacker acts as if there were a dispute.

    Args:
        how: `suspect`: every honest peer is called silent in this phase; `view`: a view without a trigger;
            `two_views`: different ones to two halves of the roster; `outcome`: the word that an honest peer is gone.
        phase: on entering which the attacker does so.

    Source: PROTOCOL section 4, "a dispute starts from f+1 SUSPECTs on one slot, or from a self-proving trigger".
    """
    attempt = view.attempt
    if not isinstance(output, PhaseEntered) or output.phase != phase or attempt is None:
        return (output,)
    return (output, *_spurious(attempt, view, how, Phase[phase]))


def _spurious(attempt: Attempt, view: Knowledge, how: str, phase: Phase) -> list[Output]:
    honest, half = chosen(view, "all"), chosen(view, "half")
    rest = tuple(peer for peer in honest if peer not in half)
    if not honest:
        return []
    messages = tuple(attempt.transcript.everything())
    match how:
        case "suspect":
            slot = attempt.slot(Phase.SUSPECT)
            return [Say(honest, Suspect(slot, (), phase, peer)) for peer in honest]
        case "view":
            return [Say(honest, View(attempt.slot(Phase.VIEW), (), messages))]
        case "two_views":
            slot = attempt.slot(Phase.VIEW)
            told: list[Output] = [Say(half, View(slot, (), messages))]
            return [*told, Say(rest, View(slot, (), messages[1:]))] if rest else told
        case _:
            victim = Removal(shuffled(view, "spurious_dispute")[0], "silent", None)
            return [Say(honest, Outcome(attempt.slot(Phase.OUTCOME), (), None, (victim,)))]
