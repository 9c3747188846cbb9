"""Messages that no honest peer would sign, made from those that it would."""

from __future__ import annotations

from collections.abc import Iterable

from blake3 import blake3
from msgspec.structs import replace

from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import (
    Agg,
    Body,
    Checksums,
    Close,
    Commit,
    Have,
    Held,
    Outcome,
    Phase,
    Removal,
    Report,
    Reveal,
    Signed,
    Slot,
    Suspect,
    View,
)

KINDS = ("twin", "bad", "odd")


def _noise(*fields: bytes) -> bytes:
    return blake3(b"noise" + b"".join(fields)).digest()


def crafted(kind: str, body: Body) -> Body | None:
    """Another message for the slot of `body`: a `twin` that fits as well, a `bad` one that is malformed, an `odd` one
    with another prefix; None where there is none."""
    match kind:
        case "twin":
            return _twin(body)
        case "bad":
            return _bad(body)
        case _:
            return _odd(body)


def _twin(body: Body) -> Body | None:
    match body:
        case Commit(randomness=value):
            return replace(body, randomness=_noise(value))
        case Agg(aggregate=bytes(value)) if value:
            return replace(body, aggregate=_noise(value))
        case Reveal(have=(first, *rest)):
            return replace(body, have=(not first, *rest))
        case Checksums(s=(first, *rest)):
            return replace(body, s=(first + 2.0**-20, *rest))
        case Report(checks=(first, *rest)):
            return replace(body, checks=(not first, *rest))
        case Have(have=(first, *rest)) | Held(have=(first, *rest)):
            return replace(body, have=(not first, *rest))
        case Close():
            return replace(body, value=_noise(body.value if isinstance(body.value, bytes) else b""))
        case View(messages=(_, *rest)):
            return replace(body, messages=tuple(rest))
        case Outcome():
            return replace(body, value=_noise(b"outcome"))
        case _:
            return None


def _bad(body: Body) -> Body | None:
    match body:
        case Commit():
            return replace(body, randomness=b"short")
        case Agg():
            return replace(body, aggregate=b"short")
        case Reveal():
            return replace(body, x=_noise(body.x))
        case Checksums():
            return replace(body, s=(*body.s, 0.0))
        case Report():
            return replace(body, checks=(*body.checks, True))
        case Have() | Held():
            return replace(body, have=(*body.have, True))
        case Close():
            return replace(body, value=b"short")
        case _:
            return None


def _odd(body: Body) -> Body | None:
    if body.slot.phase.value > Phase.CLOSE.value:
        return None
    return replace(body, prefix=(*body.prefix[:-1], _noise(*body.prefix[-1:])))


def equivocation(where: tuple[bytes, bytes, int, int], sender: int) -> tuple[Body, Body]:
    """Two COMMITs for one slot: a trigger wherever the attempt is, whatever was said in the slot before."""
    slot = Slot(*where, Phase.COMMIT, sender)
    return Commit(slot, (), (), _noise(b"first")), Commit(slot, (), (), _noise(b"second"))


def suspicion(where: tuple[bytes, bytes, int, int], sender: int, phase: Phase, peer: int) -> Body:
    """A SUSPECT of a slot."""
    return Suspect(Slot(*where, Phase.SUSPECT, sender), (), phase, peer)


def fate(where: tuple[bytes, bytes, int, int], sender: int, peer: int, reason: str) -> Body:
    """An OUTCOME by which the attempt is void and `peer` removed."""
    return Outcome(Slot(*where, Phase.OUTCOME, sender), (), None, (Removal(peer, reason, None),))


def _first(item: tuple[tuple[int, int, int, int], Signed]) -> tuple[int, int, int, int]:
    return item[0]


def view(where: tuple[bytes, bytes, int, int], sender: int, messages: Iterable[Signed], extra: tuple[Signed, ...],
         close: bool) -> Body:  # fmt: skip
    """A VIEW of an attempt: two messages at most of each slot, in slot order.

    Args:
        where: the attempt.
        sender: the view's owner.
        messages: what is known of the attempt.
        extra: shown as well.
        close: CLOSEs are shown.
    """
    counts: dict[tuple[object, ...], int] = {}
    shown: list[tuple[tuple[int, int, int, int], Signed]] = []
    for signed in dict.fromkeys((*extra, *messages)):
        body = decode_body(signed.body)
        slot, named = body.slot, (body.named.value, body.peer) if isinstance(body, Suspect) else (0, 0)
        key = (slot.phase.value, slot.sender, *named)
        counts[key] = counts.get(key, 0) + 1
        if slot.phase in (Phase.VIEW, Phase.OUTCOME) or counts[key] > 2 or (slot.phase is Phase.CLOSE and not close):
            continue
        shown.append((key, signed))
    return View(
        Slot(*where, Phase.VIEW, sender), (), tuple(signed for _, signed in sorted(shown, key=lambda it: it[0]))
    )
