"""Before step 0: who has said HELLO, and from an environment in which our gradients repeat.

There is no agreement before there is a run, so nothing that honest peers sign may depend on what a HELLO said: a liar
shows each of them another one, or none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings
from btard.node.protocol.wire.encoding import digest
from btard.node.protocol.wire.messages import Hello, Phase, Signed, Slot


class Greeting:
    """The HELLOs that one peer has heard.

    Args:
        settings: see there.
        roster: the genesis roster.
    """

    def __init__(self, settings: Settings, roster: Roster) -> None:
        self._settings, self._roster = settings, roster
        self._heard: dict[int, tuple[Hello, Signed]] = {}
        self._patient = True
        self.told = False
        """Another peer has passed a HELLO on: the run has begun there."""

    def hello(self, me: int) -> Hello:
        """What this peer says."""
        settings = self._settings
        slot = Slot(settings.run, self._roster.digest, 0, 0, Phase.HELLO, me)
        return Hello(slot, (), settings.run, settings.fingerprint)

    def take(self, body: Hello, signed: Signed) -> str | None:
        """Keep a HELLO of our genesis, the first of each sender; returns why it is refused, None if it is kept."""
        settings, roster = self._settings, self._roster
        if body.genesis != settings.run or body.slot.roster != roster.digest or body.prefix:
            return "late"
        if body.slot.sender in self._heard:
            return "duplicate"
        self._heard[body.slot.sender] = (body, signed)
        return None

    def overdue(self) -> None:
        """The wait for the last greetings is over: up to f silent peers hold nobody up any longer."""
        self._patient = False

    @property
    def missing(self) -> tuple[int, ...]:
        """Peers that have not greeted."""
        return tuple(peer for peer in self._roster.active if peer not in self._heard)

    @property
    def complete(self) -> bool:
        """Everyone whom we wait for has greeted."""
        return not self.missing or (not self._patient and self.quorate)

    @property
    def quorate(self) -> bool:
        """No more than f peers are missing."""
        return len(self.missing) <= self._roster.faults

    @property
    def odd(self) -> tuple[int, ...]:
        """Peers that compute where our gradients would not repeat bit for bit.

        Up to f of them may be lying, and to us alone; if more are odd, it is we who compute elsewhere.
        """
        if self._settings.recompute_tolerance > 0:
            return ()
        ours = self._settings.fingerprint
        return tuple(peer for peer, (hello, _) in sorted(self._heard.items()) if hello.fingerprint != ours)

    @property
    def elsewhere(self) -> bytes:
        """The fingerprint that most of the odd peers have."""
        found = Counter(self._heard[peer][0].fingerprint for peer in self.odd)
        return found.most_common(1)[0][0]

    @property
    def fingerprints(self) -> bytes:
        """Digest of the environments that the run is taken to have: everybody's is ours, or (mixed) unknown."""
        if self._settings.recompute_tolerance > 0:
            return b""
        return digest("fingerprints", *([self._settings.fingerprint] * len(self._roster.active)))

    def messages(self) -> Iterable[Signed]:
        """All HELLOs, for peers that have not heard of some."""
        return (signed for _, signed in self._heard.values())
