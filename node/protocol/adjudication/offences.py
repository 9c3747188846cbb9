"""Why a peer is removed: one row for each offence, the gravest first. A peer guilty of several goes for the first.

What others did not get of a peer in time (messages, bytes) needs no malice: it may have been away, and come back in
time to say so but not to send them. It is gone, and may come back once (docs/adr/0050-an-omission-is-no-lie.md); one of
an eliminated pair may be honest; everything else is a lie that its author signed. Lies come first: who lied and then
withheld bytes is banned.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

Standing: TypeAlias = Literal["banned", "gone", "eliminated"]


@dataclass(frozen=True, slots=True)
class Offence:
    """What a peer did.

    Args:
        reason: its name in messages, evidence and records.
        sentence: what the peer did, for people; it begins with "it" or with what happened to it.
        standing: what the peer is after the verdict.
        voids: it leaves no valid aggregate, so the attempt is void.
    """

    reason: str
    sentence: str
    standing: Standing = "banned"
    voids: bool = False


_TABLE = (
    Offence("equivocation", "it signed two different messages for one slot; the pair is the proof"),
    Offence("malformed", "it signed a message that fits no rule of the protocol"),
    Offence("prefix", "it signed a history of the attempt that differs from everybody's messages"),
    Offence("incomplete", "it went on to a later phase although an earlier one was not complete"),
    Offence("close", "it ended the step in another state than everybody else"),
    Offence("aggregate", "its aggregate is not the fixed point of the published parts", voids=True),
    Offence("unusable", "it committed to entries that are not finite, or beyond 2^40", voids=True),
    Offence("bounds", "it claimed a checksum that no honest peer can have"),
    Offence("checksum", "its checksum is not what its committed bytes give"),
    Offence("gradient", "its gradient is not the one that its public seed gives"),
    Offence("probation", "on probation it signed another digest than that of the gradient its public seed gives"),
    Offence("false_report", "it passed as true a checksum, or in an undo step a contribution, that is false"),
    Offence("false_accusation", "what it accused proved true on recomputation"),
    Offence("withheld", "fewer than f + 1 peers held the bytes that it owed to all", "gone"),
    Offence("silent", "f + 1 peers missed its message at their deadlines, or its view in the dispute", "gone"),
    Offence("edges", "complaints tie it to more peers than can be faulty", "gone"),
    Offence("late", "it kept more peers waiting than can be faulty, in more than 10 of 100 steps each", "gone"),
    Offence(
        "eliminated",
        "the fourth complaint of this pair, or waits in too many steps: one of the two is faulty, both leave",
        "eliminated",
    ),
)
OFFENCES = {offence.reason: offence for offence in _TABLE}
"""By reason, the gravest first."""
_GRAVITY = {offence.reason: place for place, offence in enumerate(_TABLE)}


def gravity(reason: str) -> int:
    """A place in the table: the lower, the graver."""
    return _GRAVITY[reason]


def standing(reason: str) -> Standing:
    """What a peer is after a verdict for `reason`; a node may have written one that is none."""
    return OFFENCES[reason].standing if reason in OFFENCES else "banned"


def sentence(reason: str) -> str:
    """What the peer did, for people; a reason that is none stays what it is."""
    return OFFENCES[reason].sentence if reason in OFFENCES else reason
