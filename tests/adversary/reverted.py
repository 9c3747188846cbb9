"""Fixes taken back one by one: with each, the search has to find a broken promise within a stated number of states.

A patch names what it replaces by its dotted path, and is given the original. An entry says from where the search
starts, how many deviations it has and how many states it may see.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

from btard.node.protocol.disputes.previous_attempt import PreviousAttempt
from btard.node.protocol.disputes.resolution import Decision
from btard.node.protocol.wire.certificate import Certificate
from btard.node.protocol.wire.encoding import decode_body, encode
from btard.node.protocol.wire.messages import Close, Endorsed, Outcome, Signed
from tests.adversary.cluster import Size
from tests.adversary.explore import Found, explore
from tests.adversary.guided import guide

Patch = tuple[str, Callable[[object], object]]
"""A dotted path, and what makes the replacement from what is there."""


@dataclass(frozen=True, slots=True)
class Reverted:
    """A safeguard that is missing.

    Args:
        name: of the safeguard.
        patches: that take it away.
        size: of the cluster.
        prefix: words that come first (empty: none).
        deviations: of the exhaustive search that follows; 0: a guided search of `most` runs instead.
        most: states, or runs, within which it is found.
        kills: honest peers may be restarted.
    """

    name: str
    patches: tuple[Patch, ...]
    size: Size
    prefix: str = ""
    deviations: int = 0
    most: int = 500
    kills: bool = False


def _owner(path: str) -> tuple[object, str]:
    """The module or class that holds the last name of a dotted path."""
    names = path.split(".")
    for count in range(len(names) - 1, 0, -1):
        with contextlib.suppress(ModuleNotFoundError):
            owner: object = importlib.import_module(".".join(names[:count]))
            for name in names[count:-1]:
                owner = getattr(owner, name)
            return owner, names[-1]
    raise ValueError(f"no module is part of {path!r}")


@contextlib.contextmanager
def without(patches: tuple[Patch, ...]) -> Iterator[None]:
    """Apply patches, and undo them."""
    undo: list[tuple[object, str, object]] = []
    try:
        for path, make in patches:
            owner, name = _owner(path)
            # A property or a static method as such, not what it evaluates to.
            before = vars(owner)[name]
            setattr(owner, name, make(before))
            undo.append((owner, name, before))
        yield
    finally:
        for owner, name, before in reversed(undo):
            setattr(owner, name, before)


def control(which: Reverted, runs: int) -> Reverted:
    """The same search on the code as it is: of as many runs, and with gradients that leave the message loop free."""
    return replace(which, patches=(), prefix=which.prefix.replace(",block", ",slow"), most=runs)


def search(which: Reverted, until: float) -> Found:
    """The search that an entry describes, on the code as it is."""
    if which.deviations:
        return explore(which.size, ["near", "c"], which.deviations, which.most, until, which.kills,
                       stop_at_first=True, prefix=which.prefix)  # fmt: skip
    return guide(which.size, 1, which.most, until, which.kills, stop_at_first=True, prefix=which.prefix)[0]


def _nothing(_: object) -> object:
    return lambda *_: None


def _hasty(original: object) -> object:
    """`round_over` that counts two rounds."""

    def round_over(self: object) -> None:
        for _ in range(2):
            if not self.finished:  # type: ignore[attr-defined]
                original(self)  # type: ignore[operator]

    return round_over


def _deaf(original: object) -> object:
    """`begin` that does not freeze."""

    def begin(self: object) -> None:
        original(self)  # type: ignore[operator]
        self.round.frozen = self.round.sealed = False  # type: ignore[attr-defined]
        self.round.trigger = None  # type: ignore[attr-defined]

    return begin


def _at_once(_: object) -> object:
    """`let_rounds_begin` that does not ask whether the attempt before is closed."""

    def let_rounds_begin(self: object) -> None:
        dispute = self._shared.dispute  # type: ignore[attr-defined]
        if dispute is not None and dispute.frozen and not dispute.begun:
            dispute.begin()

    return let_rounds_begin


def _forgotten(lifecycle: object, *_: object) -> PreviousAttempt:
    """`_remembered` that knows of no attempt before."""
    return PreviousAttempt(lifecycle._shared)  # type: ignore[attr-defined]


def _two_of_each(_: object) -> object:
    """`_certificate` that knows two CLOSEs of each peer."""

    def certificate(self: object) -> Decision | None:
        found: dict[tuple[bytes, ...], set[int]] = {}
        for signed in self._shadow.transcript.everything():  # type: ignore[attr-defined]
            body = decode_body(signed.body)
            if isinstance(body, Close):
                key = (encode((body.value,)), *body.prefix)
                found.setdefault(key, set()).add(body.slot.sender)
                if len(found[key]) == len(self._shadow.roster.active):  # type: ignore[attr-defined]
                    return Decision(body.value, ())
        return None

    return certificate


def _follow_silently(original: object) -> object:
    """`_resolve` that signs nothing."""

    def resolve(self: object, body: object, messages: object) -> None:
        self._said = True  # type: ignore[attr-defined]
        original(self, body, messages)  # type: ignore[operator]

    return resolve


def _once_shown(_: object) -> object:
    """A view that waits is not looked at again, whatever its chain."""

    def knows(previous: PreviousAttempt, endorsed: Endorsed) -> bool:
        return previous.dispute is not None and previous.dispute.knows(endorsed.view)

    return knows


def _each_message(_: object) -> object:
    """`among` that counts messages, not those who signed them."""

    def among(told: Iterable[tuple[Close | Outcome, Signed]], active: tuple[int, ...]) -> Certificate | None:
        alike: dict[tuple[object, ...], list[tuple[Close | Outcome, Signed]]] = {}
        for body, signed in told:
            said = (body.value, body.prefix) if isinstance(body, Close) else (body.value, body.removals)
            alike.setdefault((type(body), *said), []).append((body, signed))
        for found in alike.values():
            end, count = found[0][0], len(found)
            if count == len(active) if isinstance(end, Close) else 2 * count > len(active):
                return Certificate(end, tuple(signed for _, signed in found))
        return None

    return staticmethod(among)


_FIRST_OUTCOMES: tuple[Patch, ...] = (
    ("btard.node.protocol.disputes.dispute.MAX_OUTCOMES", lambda _: 1),
    ("btard.node.protocol.disputes.dispute.Dispute._resolve", _follow_silently),
)
"""Of each sender the first OUTCOME alone counts, and who acts on a majority's signs none."""
_LATE_CLOSE = "near,c,@CLOSE1,hold:3:CLOSE:012,<Suspected"
_TWO_STEPS = "near,c,@CLOSE1,hold:5:CLOSE:0123,@COMMIT2,hold:5:COMMIT:0123,<Suspected,give:5:CLOSE:01,susp:5:23,+3"

REVERTED = (
    Reverted("a certificate outranks the rest", (("btard.node.protocol.disputes.resolution.ViewMerge._certificate", _nothing),), Size(4, 1),
             _LATE_CLOSE),
    Reverted("a dispute freezes its attempt", (("btard.node.protocol.disputes.dispute.Dispute.begin", _deaf),), Size(4, 1),
             _LATE_CLOSE),
    Reverted("a dispute has f + 1 rounds", (("btard.node.protocol.disputes.dolev_strong.DolevStrong.round_over", _hasty),), Size(4, 1),
             "near,n,@CLOSE1,hold:3:CLOSE:012,<Suspected,+4,susp:1:02", most=1500),
    Reverted("rounds wait for the attempt before",
             (("btard.node.protocol.disputes.previous_attempt.PreviousAttempt.let_rounds_begin", _at_once), *_FIRST_OUTCOMES), Size(6, 2), _TWO_STEPS),
    Reverted("a committed peer joins the dispute", (("btard.node.protocol.disputes.previous_attempt.PreviousAttempt._reason_to_join", _nothing),),
             Size(4, 1), _LATE_CLOSE + ",give:3:CLOSE:0"),
    Reverted("one message from each closes the attempt before",
             (("btard.node.protocol.disputes.previous_attempt.PreviousAttempt.close_if_all_have_left", _nothing),), Size(4, 1), "near,c,@CLOSE1"),
    Reverted("an OUTCOME counts for what it says", _FIRST_OUTCOMES, Size(4, 1),
             "near,c,+13,view:3:01:1second,fate:3:12:equivocation"),
    Reverted("a third CLOSE hides nothing", (("btard.node.protocol.disputes.resolution.ViewMerge._certificate", _two_of_each),), Size(4, 1),
             "near,c,+17,hold:3:CLOSE:012,+1,hold:3:COMMIT:01,+1,give:3:CLOSE:2"),
    Reverted("a restart keeps the attempt before",
             (("btard.node.protocol.attempt.lifecycle.AttemptLifecycle._remembered", lambda _: _forgotten),), Size(6, 1),
             "near,c,@CLOSE1,hold:5:CLOSE:01234,<Suspected,give:5:CLOSE:0,+1,kill:0:500", kills=True),
    Reverted("gradients are computed beside the message loop", (), Size(4, 1),
             "near,c,tg2500,block0=2500,@CLOSE1,hold:3:CLOSE:012,<Suspected"),
    Reverted("a peer has one vote", (("btard.node.protocol.wire.certificate.Certificate.among", _each_message),), Size(4, 1),
             "near,c,@AGG1"),
    Reverted("a longer chain counts", (("btard.node.protocol.disputes.previous_attempt.PreviousAttempt.knows", _once_shown),), Size(5, 2),
             "near,n,+17,hold:4:CLOSE:01,+1,hold:4:COMMIT:01,+1,give:4:CLOSE:1,bad:4:COMMIT:01,+8,view:4:2:1second-",
             most=4000),
    Reverted("what ends an attempt here counts as passed on", (("btard.node.protocol.router.by_another", _nothing),), Size(5, 1),
             "odd,n,+45,hold:4:CLOSE:012,+5,kill:0:3600,+15", kills=True),
    Reverted("equivocation is judged", (("btard.node.protocol.disputes.resolution.ViewMerge._equivocation", _nothing),), Size(4, 1),
             "near,c,@CLOSE1"),
)  # fmt: skip
