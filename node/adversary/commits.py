"""Who takes part in an attempt, as an attacker hears it."""

from __future__ import annotations

from btard.node.errors import WireError
from btard.node.protocol.api import MessageArrived
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Commit


class Commits:
    """Who takes part in the latest attempt, from the COMMITs that this node heard."""

    def __init__(self) -> None:
        self._at = (-1, -1)
        self._contributes: dict[int, bool] = {}

    def listen(self, event: MessageArrived) -> None:
        """Note a COMMIT; the honest peer inside decides for itself whether it is valid."""
        try:
            body = decode_body(event.signed.body)
        except WireError:
            return
        if not isinstance(body, Commit):
            return
        at = (body.slot.step, body.slot.attempt)
        if at > self._at:
            self._at, self._contributes = at, {}
        if at == self._at:
            self._contributes[body.slot.sender] = bool(body.parts)

    def heard(self, step: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """(active, contributors) of the latest attempt at `step`, ascending; empty if none of it was heard."""
        if step != self._at[0]:
            return (), ()
        senders = sorted(self._contributes)
        return tuple(senders), tuple(peer for peer in senders if self._contributes[peer])
