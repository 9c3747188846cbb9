"""When a node writes to its memory: messages once they are admitted, tensors before the end is said, attempts as they
begin, once what came before is in the journal."""

from __future__ import annotations

from typing import Protocol

from btard.node.protocol.api import Banned, Committed, Disputed, Input, Output, PhaseEntered, TimePassed, Voided
from btard.node.protocol.peer import Peer
from btard.node.protocol.wire.messages import Phase
from btard.node.storage.checkpointer import Checkpointer

_BEGINS, _ENDS = Phase.COMMIT.name, Phase.CLOSE.name
"""The first and the last phase of an attempt."""


class Machine(Protocol):
    """What inputs go to."""

    def handle(self, event: Input, /) -> list[Output]:
        """Outputs that answer an input."""


class DurableMachine:
    """A machine whose messages are noted and whose attempts are saved, before anything of them leaves.

    Whoever drives it calls `keep` after each `handle`, once it has journalled what the outputs say has happened. After
    a crash in between the end of the step is gone through again; the other way round, nobody could tell what happened.

    Args:
        machine: takes the inputs.
        peer: the honest peer inside it.
        checkpointer: where to.
    """

    def __init__(self, machine: Machine, peer: Peer, checkpointer: Checkpointer) -> None:
        self._machine, self._peer, self._checkpointer = machine, peer, checkpointer
        self._own = machine is not peer  # what an attack made of a gradient cannot be computed again
        self._begun = False

    def handle(self, event: Input) -> list[Output]:
        """As the machine's."""
        if isinstance(event, TimePassed):
            return self._machine.handle(event)
        outputs = self._machine.handle(event)
        if self._peer.admitted:
            # Before anything leaves that depends on it; what is refused costs no memory.
            self._checkpointer.heard(event)
        tells = ends = begins = False
        for output in outputs:
            if isinstance(output, Committed | Banned | Voided):
                tells = True
            elif isinstance(output, Disputed):
                ends = True
            elif isinstance(output, PhaseEntered):
                begins = begins or output.phase == _BEGINS
                ends = ends or output.phase == _ENDS
        if tells:
            self._checkpointer.write()  # the journal is about to tell of it: a killed process must know why
        if ends and (held := self._peer.holdings()) is not None:  # about to be closed, or frozen by a dispute
            self._checkpointer.hold(*held)
        self._begun = begins
        return outputs

    def keep(self) -> None:
        """Save the attempt that has begun, if one has."""
        if self._begun and self._peer.resumable:
            self._checkpointer.save(self._peer.snapshot(), self._own)
        self._begun = False
