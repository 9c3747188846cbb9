"""A false account of what was heard."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import TARGETS, chosen, told_apart
from btard.node.protocol.api import Say
from btard.node.protocol.wire.encoding import digest
from btard.node.protocol.wire.messages import Phase

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output


@attack(
    "false_prefix",
    acts_on="outputs",
    source="PROTOCOL section 3 (prefixes)",
    examples=({}, {"phase": "CLOSE", "place": 2}),
    choices={"phase": tuple(phase.name for phase in Phase if Phase.COMMIT.value <= phase.value <= Phase.CLOSE.value),
             "to": TARGETS},
)  # fmt: skip
def false_prefix(
    output: Output, view: View, *, phase: str = "REVEAL", place: int = 0, to: str = "all"
) -> Sequence[Output]:
    """A message whose prefix names other hashes than everybody's.

    Args:
        phase: of the message.
        place: which hash is false, from the first finished phase on; beyond the last: one hash too many.
        to: who gets it; `all` is everybody, the attacker's own peer, too, else the true one goes to the others.

    Source: PROTOCOL section 9, "a false prefix: dispute, proof, ban".
    """
    if not isinstance(output, Say) or output.body.slot.phase.name != phase:
        return (output,)
    prefix = list(output.body.prefix)
    prefix[place : place + 1] = [digest("false prefix", *prefix)]
    false = replace(output.body, prefix=tuple(prefix))
    return (Say(output.to, false),) if to == "all" else told_apart(output, false, chosen(view, to))
