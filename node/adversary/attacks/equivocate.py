"""Two different messages for one slot."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.protocol.api import Say
from btard.node.protocol.wire.encoding import digest
from btard.node.protocol.wire.messages import (
    Accusation,
    AccusationKind,
    Agg,
    Agg2,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Hello,
    Judge,
    Outcome,
    Report,
    Reveal,
    View,
)

if TYPE_CHECKING:
    from btard.node.adversary.view import View as Knowledge
    from btard.node.protocol.api import Output
    from btard.node.protocol.wire.messages import Body

PHASES = ("HELLO", "COMMIT", "AGG", "HELD", "AGG2", "REVEAL", "CHECKSUMS", "REPORT", "HAVE", "JUDGE", "CLOSE",
          "VIEW", "OUTCOME")  # fmt: skip
"""Phases whose message leaves a choice: RESEND, PUBLISH and SUSPECT hold nothing beside their slot."""


@attack(
    "equivocate",
    acts_on="outputs",
    source="Gorbunov et al. 2021, appendix D (broadcast); PROTOCOL section 2",
    examples=({}, {"phase": "CHECKSUMS", "to": "one"}),
    choices={"phase": PHASES, "to": TARGETS},
)
def equivocate(
    output: Output, view: Knowledge, *, phase: str = "COMMIT", to: str = "half", apart: bool = False
) -> Sequence[Output]:
    """Some peers get another message of a phase than the others, both signed and well-formed.

    Args:
        phase: of the message that is doubled.
        to: who gets the false one; accomplices and the attacker's own peer get the true one.
        apart: attackers choose different peers.

    Source: PROTOCOL section 9, "two COMMITs, AGGs, CHECKSUMS or CLOSEs to different peers: dispute, proof, ban".
    """
    if not isinstance(output, Say) or output.body.slot.phase.name != phase:
        return (output,)
    other = other_version(output.body)
    # Before the first attempt nobody has a roster but the one that HELLO goes to.
    view = view if view.peers else dataclasses.replace(view, active=output.to)
    return (output,) if other is None else told_apart(output, other, chosen(view, to, apart))


def other_version(body: Body) -> Body | None:
    """A different body for the same slot that every check of its shape lets pass; None: there is none."""
    match body:
        case Hello():
            return replace(body, fingerprint=_other(body.fingerprint))
        case Commit():
            return replace(body, randomness=_other(body.randomness))
        case Agg(aggregate=bytes() as aggregate) | Agg2(aggregate=aggregate) if aggregate:
            return replace(body, aggregate=_other(aggregate))
        case Held() | Have() | Reveal() if body.have:
            return replace(body, have=_flipped(body.have))
        case Judge() if body.guilty:
            return replace(body, guilty=_flipped(body.guilty))
        case Checksums() if body.s:
            return replace(body, s=(0.5 * body.s[0] + 0.125, *body.s[1:]))
        case Report():
            # An accusation of another step is dropped without penalty: nothing but the slot is at stake.
            idle = Accusation(AccusationKind.AGGREGATE, body.slot.sender, body.slot.step + 1, 0, 0)
            return replace(body, accusations=(*body.accusations, idle))
        case Close() | Outcome():
            return replace(body, value=_other(body.value if isinstance(body.value, bytes) else b"void"))
        case View():
            return replace(body, messages=body.messages[: len(body.messages) // 2])
        case _:
            return None


def _other(value: bytes) -> bytes:
    return digest("another", value)


def _flipped(bits: tuple[bool, ...]) -> tuple[bool, ...]:
    return (not bits[0], *bits[1:])
