"""A false word in an undo step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.protocol.wire.messages import Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.wire.messages import Body


@attack(
    "false_recheck",
    acts_on="messages",
    source="docs/adr/0031-undo.md; PROTOCOL section 6",
    examples=({}, {"how": "disown"}, {"how": "one"}),
    choices={"how": ("pass", "disown", "one")},
)
def false_recheck(body: Body, view: View, *, how: str = "pass") -> Body:
    """What an attacker had to recompute in an undo step is not what it says.

    Args:
        body: an outgoing message; only a REPORT with such words changes.
        how: `pass`: call everything true, so that an accomplice's poison stays. `disown`: call everything false, so
            that honest steps are lost. `one`: turn one word about, drawn at random.

    Source: PROTOCOL section 6, "the guilty is banned, else the accuser: a false accusation is evidence of malice".
    """
    if not isinstance(body, Report) or not body.holds:
        return body
    if how == "one":
        turned = view.pick("false_recheck", len(body.holds))
        holds = tuple(word != (place == turned) for place, word in enumerate(body.holds))
    else:
        holds = (how == "pass",) * len(body.holds)
    return body if holds == body.holds else replace(body, holds=holds)
