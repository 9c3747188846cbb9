"""A member's REPORT brings in a key by the wrong way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.protocol.api import Say
from btard.node.protocol.state_sync.admission import introducer
from btard.node.protocol.wire.encoding import digest, encode
from btard.node.protocol.wire.messages import Application, Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_SIGNATURE_BYTES = 64


@attack(
    "introduce",
    acts_on="outputs",
    source="docs/adr/0069-new-members.md",
    examples=({}, {"what": "twice"}),
    choices={"what": ("undrawn", "forged", "twice", "differently")},
)
def introduce(output: Output, view: View, *, what: str = "undrawn") -> Sequence[Output]:
    """An application in a REPORT that has no place there.

    Args:
        what: one that its key never signed, in a step that is another member's turn, or nobody's (`undrawn`), or in
            this one's own (`forged`); or, of the one that this member rightly introduces, two copies (`twice`), or one
            for half of the others alone (`differently`).

    Source: docs/adr/0069-new-members.md, "who introduces it".
    """
    attempt = view.attempt
    if attempt is None or not isinstance(output, Say) or not isinstance(output.body, Report):
        return (output,)
    report, to = output.body, output.to
    ours = introducer(attempt.settings, attempt.roster, attempt.state.summary) == attempt.me
    if what == "differently" and ours and report.joins:
        half = len(to) // 2
        return Say(to[:half], report), Say(to[half:], replace(report, joins=report.joins[:-1]))
    if what == "twice" and ours and report.joins:
        return (Say(to, replace(report, joins=(*report.joins, report.joins[-1]))),)
    if (what == "undrawn" and not ours) or (what == "forged" and ours):
        return (Say(to, replace(report, joins=(*report.joins, encode(_forged(attempt.roster.founders))))),)
    return (output,)


def _forged(peer: int) -> Application:
    return Application(
        peer,
        0,
        digest("nobody's key"),
        "0" * 40,
        "tcp://127.0.0.1:1",
        "tcp://127.0.0.1:2",
        None,
        b"",
        bytes(_SIGNATURE_BYTES),
    )
