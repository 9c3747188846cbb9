"""A false accusation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.protocol.wire.messages import MAX_ACCUSATIONS, Accusation, AccusationKind, Report, Verdict

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.wire.messages import Body


@attack(
    "false_accuse",
    acts_on="messages",
    source="Gorbunov et al. 2021, section 3.2 (ACCUSE); report, section 4.3",
    examples=({}, {"how": "bit"}, {"how": "aggregate"}, {"how": "checksum"}),
    choices={"how": ("verdict", "bit", "aggregate", "checksum")},
)
def false_accuse(body: Body, view: View, *, how: str = "verdict") -> Body:
    """An honest peer is accused of what it did not do.

    Args:
        body: an outgoing message; only a REPORT changes.
        how: `verdict`: as validator, call the honest target's gradient wrong. `bit`: as aggregator, call the
            checksums of one honest contributor false, drawn at random each step. `aggregate`: accuse an honest
            aggregator. `checksum`: accuse an honest contributor's checksum of another one's part.

    Source: report, section 4.3: "the accuser will be banned instead since false accusation is evidence of malice".
    """
    if not isinstance(body, Report):
        return body
    if how == "verdict":
        verdicts = tuple(_accuse(verdict, view) for verdict in body.verdicts)
        return body if verdicts == body.verdicts else replace(body, verdicts=verdicts)
    if how in ("aggregate", "checksum"):
        return _charge(body, view, AccusationKind(how))
    honest = [
        place
        for place, peer in enumerate(view.contributors)
        if peer not in view.accomplices and place < len(body.checks) and body.checks[place]
    ]
    if not honest:
        return body
    checks = list(body.checks)
    checks[honest[view.pick("false_accuse", len(honest))]] = False
    return replace(body, checks=tuple(checks))


def _charge(body: Report, view: View, kind: AccusationKind) -> Report:
    among = view.active if kind is AccusationKind.AGGREGATE else view.contributors
    honest = [peer for peer in among if peer not in view.accomplices]
    if not honest or len(body.accusations) >= MAX_ACCUSATIONS:
        return body
    accused = honest[view.pick("false_accuse", len(honest))]
    part = view.active.index(accused) if kind is AccusationKind.AGGREGATE else view.pick("part", len(view.active))
    charge = Accusation(kind, accused, body.slot.step, body.slot.attempt, part)
    return replace(body, accusations=(*body.accusations, charge))


def _accuse(verdict: Verdict, view: View) -> Verdict:
    return verdict if verdict.target in view.accomplices else replace(verdict, correct=False)
