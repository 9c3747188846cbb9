"""How an attempt ends: with n equal CLOSEs, or with a problem that names a peer and a phase."""

from __future__ import annotations

from dataclasses import dataclass

from node.protocol.messages import Phase, Signed
from node.protocol.state import State
from node.protocol.tribunal import Judgement


@dataclass(frozen=True, slots=True)
class Problem:
    """Why an attempt cannot go on: which peer, in which phase, in words."""

    peer: int | None
    phase: Phase
    text: str


@dataclass(frozen=True, slots=True)
class Ending:
    """n equal CLOSEs: what was decided, the state that follows, and the CLOSEs."""

    judgement: Judgement
    state: State
    closes: tuple[Signed, ...]
