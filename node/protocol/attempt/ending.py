"""How an attempt ends, or fails to: by a certificate, or by messages that start a dispute."""

from __future__ import annotations

from dataclasses import dataclass

from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.state.state import State
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.messages import Signed


@dataclass(frozen=True, slots=True)
class Trigger:
    """Why a dispute starts: messages that prove it to everyone who receives them."""

    cause: str
    messages: tuple[Signed, ...]


@dataclass(frozen=True, slots=True)
class Ending:
    """What was decided, the state that follows, and the certificate that says so."""

    judgement: Judgement
    state: State
    certificate: Certificate
