"""How an attempt ends, or fails to: n equal CLOSEs, or messages that start a dispute."""

from __future__ import annotations

from dataclasses import dataclass

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
    """What was decided, the state that follows, and the n CLOSEs (or the majority's OUTCOMEs) that say so."""

    judgement: Judgement
    state: State
    certificate: tuple[Signed, ...]
