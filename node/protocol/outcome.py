"""How an attempt ends, or fails to: by a certificate, or by messages that start a dispute."""

from __future__ import annotations

from dataclasses import dataclass

from node.protocol.certificate import Certificate
from node.protocol.messages import Signed
from node.protocol.state import State
from node.protocol.tribunal import Judgement


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
