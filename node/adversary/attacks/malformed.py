"""What no honest peer would send."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec.structs import replace

from btard.node.adversary.registry import attack
from btard.node.adversary.targets import chosen, shuffled, told_apart
from btard.node.protocol.api import Forward, Say
from btard.node.protocol.wire.encoding import MAX_MESSAGE_BYTES, digest, encode_body, expand
from btard.node.protocol.wire.messages import (
    Agg,
    Agg2,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Judge,
    Phase,
    Report,
    Reveal,
    Signed,
    view_bytes,
)

if TYPE_CHECKING:
    from btard.node.adversary.view import View
    from btard.node.protocol.api import Output

_HOW = ("shape", "type", "encoding", "oversized", "signature", "garbage", "foreign")
_SIGNATURE_BYTES = 64


@attack(
    "malformed",
    acts_on="outputs",
    source="PROTOCOL section 3 (a signed message that fits no rule)",
    examples=({}, {"how": "garbage", "instead": False}),
    choices={"how": _HOW, "phase": tuple(phase.name for phase in Phase if phase not in (Phase.HELLO, Phase.JOIN))},
)
def malformed(
    output: Output, view: View, *, how: str = "shape", phase: str = "CHECKSUMS", instead: bool = True
) -> Sequence[Output]:
    """A message that is well signed and fits no rule, or no message at all.

    Args:
        how: `shape`: one entry too many; `type`: the right slot, the wrong kind of message; `encoding`: another
            encoding of the same content; `oversized`: beyond the largest size; `signature`: an invalid one;
            `garbage`: random bytes; `foreign`: in an honest peer's name.
        phase: of the message.
        instead: in its place, and nothing is passed on that would give the true one away; else beside it (the true
            one first).

    Source: PROTOCOL section 9, "malformed, oversized, wrongly shaped, unsigned: rejected before it costs memory;
    signed ones are evidence".
    """
    if isinstance(output, Forward) and instead:
        return ()
    if not isinstance(output, Say) or output.body.slot.phase.name != phase:
        return (output,)
    false = _false(output, view, how)
    if false is None:
        return (output,)
    if how == "shape" and instead:
        return (false,)
    return (*(told_apart(output, None, chosen(view, "all")) if instead else (output,)), false)


def _false(say: Say, view: View, how: str) -> Output | None:
    body, honest = say.body, chosen(view, "all")
    data = encode_body(body)
    match how:
        case "shape":
            misshapen = _misshapen(body)
            return Say(say.to, misshapen) if misshapen is not None else None
        case "type":
            kind = Agg if not isinstance(body, Agg) else Agg2
            return Say(honest, kind(body.slot, body.prefix, b""))
        case "encoding":
            # The header of a short array in its long form: the same value, not the canonical bytes.
            return _unread(honest, b"\xdd\x00\x00\x00" + bytes([data[0] & 0x0F]) + data[1:])
        case "oversized":
            # Beyond every bound of the roster by one byte: a line would still carry it.
            size = view_bytes(len(view.attempt.roster.keys)) + 1 if view.attempt is not None else MAX_MESSAGE_BYTES
            return _unread(honest, expand("oversized", data, size))
        case "signature":
            return Forward(honest, (Signed(data, bytes(_SIGNATURE_BYTES)),))
        case "garbage":
            return Forward(honest, (Signed(expand("garbage", data, 512), digest("garbage", data) * 2),))
        case _:
            victims = shuffled(view, "malformed")
            stolen = replace(body, slot=replace(body.slot, sender=victims[0])) if victims else None
            return Say(honest, stolen) if stolen is not None else None


def _unread(honest: tuple[int, ...], data: bytes) -> Output:
    """Bytes that are refused before anybody looks at their signature."""
    return Forward(honest, (Signed(data, bytes(_SIGNATURE_BYTES)),))


def _misshapen(body: Body) -> Body | None:
    match body:
        case Commit():
            return replace(body, parts=(*body.parts, body.randomness))
        case Agg() | Agg2():
            return replace(body, aggregate=b"short")
        case Held() | Have() | Reveal():
            return replace(body, have=(*body.have, True))
        case Judge():
            return replace(body, guilty=(*body.guilty, True))
        case Checksums():
            return replace(body, s=(*body.s, 1.0))
        case Report():
            return replace(body, checks=(*body.checks, True))
        case Close():
            return replace(body, value=b"short")
        case _:
            return None
