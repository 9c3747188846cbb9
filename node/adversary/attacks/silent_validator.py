"""A validator that says nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen, told_apart
from btard.node.protocol.api import Forward, Say
from btard.node.protocol.wire.messages import Report

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "silent_validator",
    acts_on="outputs",
    source="Gorbunov et al. 2021, section 3.2; PROTOCOL section 3 (Validate)",
    examples=({}, {"how": "report"}),
    choices={"how": ("verdict", "report")},
)
def silent_validator(output: Output, view: View, *, how: str = "verdict") -> Sequence[Output]:
    """A drawn validator keeps its verdict to itself.

    Args:
        how: `verdict`: its REPORT lacks it; `report`: there is no REPORT, and it passes nothing on.

    Source: PROTOCOL section 3, "a missing verdict is a malformed REPORT"; section 9, "a validator silent: ban".
    """
    if isinstance(output, Forward) and how == "report":
        return ()
    if not isinstance(output, Say) or not isinstance(output.body, Report) or not output.body.verdicts:
        return (output,)
    if how == "verdict":
        return (Say(output.to, replace(output.body, verdicts=())),)
    return told_apart(output, None, chosen(view, "all"))
