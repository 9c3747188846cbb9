"""What the union of all views comes to: a pure function, so that all honest peers conclude the same.

The first rule that matches decides: a certificate commits; misconduct that the union proves is banned; who is silent
is removed; a CLOSE unlike the others is banned.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from btard.node.protocol.adjudication.charges import Equivocation, Guilt, Publication, Ruled
from btard.node.protocol.adjudication.judging import Case, Counts
from btard.node.protocol.attempt.attempt import Added, Attempt, Transcript, Trigger
from btard.node.protocol.attempt.phases import PHASES, following, misfit
from btard.node.protocol.attempt.transfers import LackingError, lacking
from btard.node.protocol.wire.certificate import Certificate, open_signed
from btard.node.protocol.wire.encoding import decode_body, stub
from btard.node.protocol.wire.messages import Body, BulkKind, Close, Phase, Signed, Suspect, Void

_DISPUTE = (Phase.SUSPECT, Phase.VIEW, Phase.OUTCOME, Phase.HELLO)
_PER_SLOT = 2
_Key = tuple[int, Phase, tuple[Phase, int] | None]


@dataclass(frozen=True, slots=True)
class Decision:
    """The outcome of a dispute.

    Args:
        value: what the attempt's CLOSEs say and what stands; None: the attempt is void and starts again.
        guilts: who is removed, in roster order.
    """

    value: bytes | Void | None
    guilts: tuple[Guilt, ...]


def _key(body: Body) -> _Key:
    """The slot of a message within its attempt; a SUSPECT's includes the one that it names."""
    return body.slot.sender, body.slot.phase, (body.named, body.peer) if isinstance(body, Suspect) else None


def opened(signed: Signed, attempt: Attempt) -> Body | None:
    """A message of an attempt with a valid signature of an active peer, as a view may hold it; None for anything else:
    a function of the bytes and the roster, whatever the attempt's transcript holds."""
    body = open_signed(
        signed, attempt.roster.keys, attempt.tools.verify, run=attempt.settings.run, where=attempt.where,
        senders=attempt.roster.active, rule=_unviewed,
    )  # fmt: skip
    return None if isinstance(body, str) else body


def _unviewed(body: Body) -> str | None:
    """Views in views would let a liar nest them; OUTCOMEs and HELLOs are no part of an attempt's transcript."""
    return "nested" if body.slot.phase in _DISPUTE[1:] else None


def trigger_in(messages: Iterable[Signed], attempt: Attempt) -> Trigger | None:
    """What a view proves of an attempt that n equal CLOSEs have ended; None: nothing.

    Whoever froze the attempt saw something that contradicts its complete transcript, or f + 1 SUSPECTs, and its view
    holds that. A function of the view and of what the CLOSEs cover, so that all peers which hold them find the same.
    """
    complete, counts = attempt.transcript.certified(), Counter[_Key]()
    for signed in messages:
        body = opened(signed, attempt)
        if body is None:
            return None
        counts[_key(body)] += 1
        if counts[_key(body)] > _PER_SLOT:
            return None
        slot = body.slot
        if complete.add(body, signed) is Added.CONFLICT:
            pair = complete.conflicts[(slot.phase, slot.sender)]
            return Trigger(f"peer {slot.sender} equivocates in {slot.phase.name}", pair)
        if complete.split is not None:
            return Trigger("prefixes differ: not everybody has seen the same messages", complete.split)
        if isinstance(body, Suspect):
            by = complete.suspects[(body.named, body.peer)]
            if len(by) > attempt.roster.faults:
                return Trigger(f"peer {body.peer} is silent in {body.named.name}", tuple(by.values()))
    return None


class ViewMerge:
    """The messages of all views that count, laid out as a transcript.

    Args:
        views: the messages of each, in roster order of their owners.
        heard: owners of these views.
        doubles: owners of two views, with both.
        attempt: this peer's own record of the attempt, whose tensors complete phases need.
        past: the committed attempt before it.
    """

    def __init__(
        self,
        views: Iterable[Iterable[Signed]],
        heard: Iterable[int],
        doubles: dict[int, tuple[Signed, Signed]],
        attempt: Attempt,
        past: Attempt | None,
    ) -> None:
        self._shadow = copy.copy(attempt)
        self._shadow.transcript = Transcript(attempt.roster.active)
        self._past = past
        self._heard, self._doubles = frozenset(heard), doubles
        self._reached = Phase.COMMIT
        self._trial: Case | None = None
        self._seen: dict[bytes, _Key] = {}
        self._said_closes: list[tuple[Close, Signed]] = []
        """All of them: a liar signs a third one so that the two which prove it hide the one of the certificate."""
        for messages in views:
            self._read(messages)

    def _read(self, messages: Iterable[Signed]) -> None:
        """A view, up to the first message that no honest one holds: what comes after it counts for nothing, so that a
        liar cannot have everyone check more signatures than there are slots. All honest peers stop at the same place.
        """
        counts: Counter[_Key] = Counter()
        for signed in messages:
            key = self._seen.get(signed.body)
            if key is None:
                body = opened(signed, self._shadow)
                if body is None:
                    return
                key = self._seen[signed.body] = _key(body)
                self._shadow.transcript.add(body, signed)
                if isinstance(body, Close):
                    self._said_closes.append((body, signed))
            counts[key] += 1
            if counts[key] > _PER_SLOT:
                return

    def admitted(self) -> Iterator[tuple[Body, Signed]]:
        """Every message that counts."""
        for signed in self._shadow.transcript.everything():
            yield decode_body(signed.body), signed

    def decide(self) -> Decision | None:
        """The first rule that matches; None if nothing does, which takes more than f faults.

        Raises:
            LackingError: a rule depends on bytes that are not here yet.
        """
        for rule in (self._certificate, self._equivocation, self._misconduct, self._silence, self._odd_close):
            decision = rule()
            if decision is not None:
                return decision
        return None

    # --- the rules --------------------------------------------------------------------------------------------

    def _certificate(self) -> Decision | None:
        """n CLOSEs equal in value and prefix, from whichever of an equivocator's messages: commit, nothing else."""
        certificate = Certificate.among(self._said_closes, self._shadow.roster.active)
        return Decision(certificate.value, ()) if certificate is not None else None

    def _equivocation(self) -> Decision | None:
        pairs = dict(self._doubles)
        for (_, sender), pair in self._shadow.transcript.conflicts.items():
            pairs.setdefault(sender, pair)
        guilts = {
            peer: Guilt(peer, "equivocation", None, Equivocation(peer, stub(first), stub(second)))
            for peer, (first, second) in pairs.items()
        }
        return self._retry(guilts)

    def _misconduct(self) -> Decision | None:
        """Signers of malformed messages, of prefixes unlike the union's, and of messages whose earlier phases are
        incomplete in the union: an honest signer's view would have held them, or the other version of a liar's message
        that it went by. Whose view did not arrive may have been cut off after it had heard them: gone, not banned, but
        for what does not fit the very prefix that it names."""
        shadow = self._shadow
        guilty: dict[int, str] = {}
        phase, walking = Phase.COMMIT, True
        visited: set[Phase] = set()
        while walking:
            visited.add(phase)
            for sender, body in self._bodies(phase):
                fits = body.prefix == shadow.transcript.prefix
                if not fits and sender not in self._heard:
                    guilty.setdefault(sender, "silent")
                elif self._misfits(body):
                    guilty.setdefault(sender, "malformed")
                elif not fits:
                    guilty.setdefault(sender, "prefix")
            if guilty or shadow.transcript.missing(phase) or phase is Phase.CLOSE:
                break
            shadow.transcript.finish(phase)
            phase = self._next(phase)
        self._reached = phase
        if guilty:
            # Whatever else looks odd may follow from these; one removal opens a new attempt.
            return self._convict(guilty)
        for later in Phase:
            if later not in visited and later not in _DISPUTE:
                for sender, _ in self._bodies(later):
                    heard = "incomplete" if later.value > phase.value else "malformed"
                    guilty.setdefault(sender, heard if sender in self._heard else "silent")
        for (named, peer), by in shadow.transcript.suspects.items():
            for sender, signed in by.items():
                body = decode_body(signed.body)
                if misfit(body, shadow, Counts()) is not None or named in _DISPUTE or peer == sender:
                    guilty.setdefault(sender, "malformed")
        return self._convict(guilty)

    def _convict(self, guilty: dict[int, str]) -> Decision | None:
        return self._retry({peer: Guilt(peer, rule, None, Ruled(peer, rule)) for peer, rule in guilty.items()})

    def _silence(self) -> Decision | None:
        """f + 1 SUSPECTs on one slot: silent, even if its message appears. More than f silent peers are no faults: the
        network was cut, and nobody is removed for it."""
        shadow = self._shadow
        slots = shadow.transcript.silent(shadow.roster.faults + 1)
        guilts = {peer: Guilt(peer, "silent", None, Ruled(peer, f"silent in {phase.name}")) for phase, peer in slots}
        if not guilts or len(guilts) > shadow.roster.faults:
            return None
        if self._reached is Phase.CLOSE:
            value = self._value()
            if value is not None:
                return Decision(value, self._ordered(guilts))
        return self._retry(guilts)

    def _odd_close(self) -> Decision | None:
        value = self._value() if self._reached is Phase.CLOSE else None
        if value is None:
            return None
        odd = [peer for peer, body in self._closes().items() if body.value != value]
        guilts = {peer: Guilt(peer, "close", None, Ruled(peer, "close")) for peer in odd}
        return Decision(value, self._ordered(guilts)) if guilts else None

    def lacking(self) -> Iterator[tuple[BulkKind, Publication, tuple[int, ...]]]:
        """Tensors that we lack and enough peers say they hold, in the phases that the union completes."""
        shadow = self._shadow
        for phase in (Phase.HELD, Phase.REVEAL):
            items = PHASES[phase].items
            if items is not None and phase in shadow.transcript.finished:
                yield from lacking(shadow, phase, items.kind, items.of(shadow, self._trial))

    # --- helpers ----------------------------------------------------------------------------------------------

    def _next(self, phase: Phase) -> Phase:
        shadow = self._shadow
        if phase is Phase.REVEAL:
            shadow.fix_randomness()
        if phase is Phase.REPORT:
            if any(owner not in shadow.aggregates for owner in shadow.aggregators):
                raise LackingError
            self._trial = Case(shadow, self._past)
        return following(shadow, phase, self._trial)[0]

    def _misfits(self, body: Body) -> bool:
        counts = self._trial.counts if self._trial is not None else Counts()
        return misfit(body, self._shadow, counts) is not None

    def _bodies(self, phase: Phase) -> list[tuple[int, Body]]:
        signed = self._shadow.transcript.signed(phase)
        return [(peer, decode_body(message.body)) for peer, message in signed.items()]

    def _closes(self) -> dict[int, Close]:
        return self._shadow.transcript.of(Close, Phase.CLOSE)

    def _value(self) -> bytes | Void | None:
        """The value that at least f + 1 CLOSEs carry: one of them is honest, and honest ones are equal."""
        values = [body.value for body in self._closes().values()]
        quorum = self._shadow.roster.faults + 1
        return next((value for value in values if values.count(value) >= quorum), None)

    def _ordered(self, guilts: dict[int, Guilt]) -> tuple[Guilt, ...]:
        return tuple(guilts[peer] for peer in self._shadow.roster.active if peer in guilts)

    def _retry(self, guilts: dict[int, Guilt]) -> Decision | None:
        return Decision(None, self._ordered(guilts)) if guilts else None
