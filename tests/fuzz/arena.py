"""An honest Peer alone with an attacker: everything that bytes can be turned into.

The other honest peers are their recorded messages; in a dispute they say what synchrony lets them say: views with
everything that they must have held, and the OUTCOME that this peer signs.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import msgspec
import torch

from btard.node.crypto.signing import Signer
from btard.node.errors import WireError
from btard.node.protocol.api import (
    Banned,
    BulkArrived,
    BulkRequested,
    ComputeGradient,
    DeadlinePassed,
    Endorse,
    GradientReady,
    Halted,
    Input,
    MessageArrived,
    Output,
    Say,
    SendBulk,
    SetTimer,
    Start,
    ViewArrived,
)
from btard.node.protocol.wire.encoding import decode_body, encode_body, endorsement_bytes, signing_bytes
from btard.node.protocol.wire.messages import Body, Endorsed, Outcome, Phase, Signed, Slot, Suspect, View
from btard.node.transport.envelope import unseal
from tests.fuzz.mutations import Source, flipped, key_of, mutate
from tests.fuzz.scenes import ATTACKER, PEERS, Told, fresh, recorded, words, world


def _place(slot: Slot) -> tuple[int, int, int]:
    return slot.step, slot.attempt, slot.phase.value


class Arena:
    """One honest node, told what the attacker wants it to be told.

    Args:
        scene: which recorded run it comes from.
        start: how many of the recorded inputs it has had.
    """

    def __init__(self, scene: int, start: int) -> None:
        self.node = fresh(scene)
        self.words = words(scene)
        self._order = sorted({_place(decode_body(word.body).slot) for word in self.words})
        self._last = self._order[0]
        self._theirs = [word for word in self.words if decode_body(word.body).slot.sender == ATTACKER]
        self.signers = [Signer(bytes.fromhex(secret.signing_seed)) for secret in world()[2]]
        self.script = recorded(scene)
        self.accused: set[int] = set()
        self.halted = self.refused = ""
        self._timers: dict[str, None] = {}
        self._queue: deque[Input] = deque()
        self._views: set[tuple[int, int]] = set()
        self.position = min(start, len(self.script))
        self.feed(Start())
        for event in self.script[: self.position]:
            self.feed(event)

    # --- the honest world -------------------------------------------------------------------------------------

    def feed(self, event: Input) -> None:
        """Tell the peer, and perform what it answers."""
        self._queue.append(event)
        while self._queue:
            for output in self.node.machine.handle(self._queue.popleft()):
                self._perform(output)

    def go_on(self, most: int, with_attacker: bool = False) -> None:
        """The next recorded inputs: of the honest peers, or of the attacker as well. Nobody runs ahead of us."""
        for event in self.script[self.position : self.position + most]:
            if not self._possible(event):
                return
            self.position += 1
            if with_attacker or event.via != ATTACKER:
                self.feed(event)

    def _possible(self, event: Told) -> bool:
        """A phase needs a message of everyone, ours too, before anyone gets to the next."""
        if isinstance(event, BulkArrived):
            return True
        slot = decode_body(event.signed.body).slot
        ours, theirs = (self._order.index(at) if at in self._order else -1 for at in (self._last, _place(slot)))
        return theirs <= ours + 1

    def _perform(self, output: Output) -> None:
        match output:
            case Banned(peer=peer):
                self.accused.add(peer)
            case Halted(phase="HELLO", problem=problem):
                # No run begins without every member's consent; that is no crash of one.
                self.refused = problem
            case Halted(problem=problem):
                self.halted = problem
            case SetTimer(name=name) if name.startswith("dispute"):
                self._timers[name] = None
            case ComputeGradient():
                self._queue.append(self._gradient(output))
            case SendBulk(to=0, key=key, values_P=values_P):
                self._queue.append(BulkArrived(None, key, values_P))
            case Say(body=body):
                self._said(body)
            case Endorse():
                self.node.endorse(output.endorsed)
            case _:
                pass

    def _gradient(self, wanted: ComputeGradient) -> GradientReady:
        return self.node.compute(wanted, self.node.task.gradient)

    def _said(self, body: Body) -> None:
        if not isinstance(body, View | Outcome | Suspect):
            self._last = _place(body.slot)
        self._queue.append(MessageArrived(None, self.node.sign(body)))
        at = (body.slot.step, body.slot.attempt)
        others = [peer for peer in self._active() if peer not in (0, ATTACKER)]
        if isinstance(body, View) and at not in self._views:
            self._views.add(at)
            messages = tuple(dict.fromkeys((*body.messages, *self._held_by_others(body))))
            for peer in others:
                slot = msgspec.structs.replace(body.slot, sender=peer)
                view = self.signed(msgspec.structs.replace(body, slot=slot, messages=messages), peer)
                self._queue.append(ViewArrived(peer, Endorsed(view, ())))
        if isinstance(body, Outcome):
            self.accused |= {removal.peer for removal in body.removals}
            for peer in others:
                slot = msgspec.structs.replace(body.slot, sender=peer)
                said = self.signed(msgspec.structs.replace(body, slot=slot), peer)
                self._queue.append(MessageArrived(peer, said))

    def _held_by_others(self, view: View) -> Iterator[Signed]:
        """Whichever honest peer signed a message of a phase has held all of the phases before; an attacker can sign the
        last word of a step at its beginning."""
        at = (view.slot.step, view.slot.attempt)
        bodies = [(decode_body(signed.body), signed) for signed in self.words]
        here = [body for body, _ in bodies if (body.slot.step, body.slot.attempt) == at]
        held = {signed.body for signed in view.messages}
        honest = [body for body in here if body.slot.sender != ATTACKER and encode_body(body) in held]
        latest = max((body.slot.phase.value for body in honest), default=0)
        for body, signed in bodies:
            if body in here and body.slot.phase.value < latest:
                yield signed

    def _active(self) -> tuple[int, ...]:
        attempt = self.node.peer.attempt
        return attempt.roster.active if attempt is not None else tuple(range(PEERS))

    def signed(self, body: Body, peer: int) -> Signed:
        """A body under a peer's real key."""
        data = encode_body(body)
        return Signed(data, self.signers[peer].sign(signing_bytes(body, data)))

    # --- the attacker -----------------------------------------------------------------------------------------

    def strike(self, source: Source) -> None:
        """One thing that an attacker, or time in a dispute, can do."""
        match source.pick(12):
            case 0:
                self.frame(source.take(64))
            case 1:
                self.frame(b"\x00" + flipped(msgspec.msgpack.encode(self._word(source)), source))
            case 2 | 3 | 4:
                self.feed(MessageArrived(ATTACKER, self._forged(source)))
            case 5:
                self.feed(MessageArrived(ATTACKER, self._word(source)))
            case 6 | 7:
                self.feed(ViewArrived(ATTACKER, Endorsed(self._view(source), ())))
            case 8:
                self.feed(ViewArrived(ATTACKER, self._endorsed(source)))
            case 9:
                self.feed(BulkRequested(ATTACKER, key_of(source)))
            case 10:
                key, size = key_of(source), (4, 3, 16, 0)[source.pick(4)]
                value = (1.0, float("nan"), 1e38, -0.0)[source.pick(4)]
                self.feed(BulkArrived(ATTACKER, key, torch.full((size,), value)))
            case _:
                if self._timers:
                    name = next(iter(self._timers))
                    del self._timers[name]
                    self.feed(DeadlinePassed(name))

    def frame(self, data: bytes) -> None:
        """The content of a control frame from the attacker."""
        with suppress(WireError):
            self.feed(unseal(ATTACKER, data))

    def _word(self, source: Source) -> Signed:
        """Something that has been said, or that the attacker was going to say."""
        told = [event.signed for event in self.script[: self.position] if isinstance(event, MessageArrived)]
        known = told + self._theirs
        return known[source.pick(len(known))]

    def _forged(self, source: Source) -> Signed:
        """A recorded message, changed, put into the current attempt or left where it was, signed or not."""
        word = self.words[source.pick(len(self.words))]
        body = msgspec.msgpack.decode(word.body)
        attempt = self.node.peer.attempt
        how = source.pick(8)
        if attempt is not None and how < 6:
            slot = attempt.slot(Phase.COMMIT)
            body[1][:4] = [slot.run, slot.roster, attempt.step, attempt.number + (how == 5)]
            if how < 4 and body[2]:
                body[2] = list(attempt.transcript.prefix)
        body[1][5] = ATTACKER
        for _ in range(source.pick(3)):
            mutate(body, source)
        try:
            data = msgspec.msgpack.encode(body)
        except (OverflowError, ValueError):
            return self._word(source)
        if source.pick(16) == 0:
            return Signed(data, word.signature)
        try:
            return Signed(data, self.signers[ATTACKER].sign(signing_bytes(decode_body(data), data)))
        except WireError:  # nobody looks at the signature of what is no message
            return Signed(data, word.signature)

    def _view(self, source: Source) -> Signed:
        messages = tuple(
            (self._forged(source), self._word(source), Signed(source.take(8), b""))[source.pick(3)]
            for _ in range(source.pick(6))
        )
        attempt = self.node.peer.attempt
        if attempt is None:
            return self._word(source)
        return self.signed(View(attempt.slot(Phase.VIEW, ATTACKER), (), messages), ATTACKER)

    def _endorsed(self, source: Source) -> Endorsed:
        view, chain = self._view(source), []
        for _ in range(source.pick(5)):
            peer = source.pick(5)
            before = tuple(known for known, _ in chain)
            data = endorsement_bytes(view.body, source.pick(4), before)
            chain.append((peer, self.signers[ATTACKER].sign(data)))
        return Endorsed(view, tuple(chain))
