"""A validator that closes its eyes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.protocol.wire.messages import AccusationKind, Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.wire.messages import Body


@attack(
    "lenient_validator",
    acts_on="messages",
    source="report, section 4.1; Gorbunov et al. 2021, section 3.2",
    examples=({}, {"all": True}),
    always=True,
)
def lenient_validator(body: Body, view: View, *, all: bool = False) -> Body:
    """A validator reports *correct* of its accomplices, whatever it found; every Byzantine node does this.

    It is always on, outside the schedule too: an accomplice never accuses an accomplice. It does not touch V1 bits:
    an aggregator that passes a false checksum is convicted with its sender as soon as the part is recomputed.

    Args:
        body: an outgoing message; only verdicts and gradient accusations in a REPORT change.
        all: say it of everybody, also of attackers that this one does not know.

    Source: report, section 4.1: "Assuming that Byzantine attackers do not accuse their peers when it is their turn to
    validate"; PROTOCOL section 9, "saying *correct* for its accomplice": a later draw finds it.
    """
    if not isinstance(body, Report):
        return body

    def spared(peer: int) -> bool:
        return all or peer in view.accomplices

    verdicts = tuple(replace(verdict, correct=True) if spared(verdict.target) else verdict for verdict in body.verdicts)
    accusations = tuple(
        accusation
        for accusation in body.accusations
        if accusation.kind is not AccusationKind.GRADIENT or not spared(accusation.accused)
    )
    if verdicts == body.verdicts and accusations == body.accusations:
        return body
    return replace(body, verdicts=verdicts, accusations=accusations)
