"""Newcomers: how a key that is in no genesis comes to be on probation, and how it ends that without a place.

A candidate signs an application for one free id; where the roster is `sponsored`, a founder signs for its key, for one
key a run. A member that holds an application puts it into its REPORT in a step for which r has drawn it, while the door
is open: nobody new is on probation, and the last newcomer entered `admit_every` steps ago or earlier. So at most one
enters a step, nobody can make room for its own by choosing a key or an instant, and CLOSE fixes who entered. On
probation a newcomer is what a peer that comes back is (node/protocol/state_sync/probation.py), which also admits it.
Wrong, its key is out for ever; after `admit_every` steps without a correct gradient its id is free again, and its key
may apply anew, `TRIES` times in all.
Source: Gorbunov et al. 2021, section 3.3 (Sybil attacks); docs/adr/0069-new-members.md.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

import msgspec
from msgspec import structs

from btard.node.errors import WireError
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import permutation
from btard.node.protocol.roster import Roster
from btard.node.protocol.settings import Settings, Verify
from btard.node.protocol.state.state import Newcomer, Register, State, Summary
from btard.node.protocol.wire.encoding import application_bytes, decoded, digest, encode, sponsorship_bytes
from btard.node.protocol.wire.messages import APPLICATION_BYTES, TRIES, Application, Phase, Report

PATIENCE = 10
"""Steps that a newcomer may let pass without a correct gradient before its id is free again, at least: as long as the
door stays shut behind it, it keeps nobody out."""
MOST_OUT = 1000
"""Keys that a state names as out: with more, nobody else is let in."""
_TRANSPORT_CHARACTERS, _ADDRESS_CHARACTERS, _KEY_BYTES = 40, 270, 32
_decoder = msgspec.msgpack.Decoder(Application)


# --- an application -------------------------------------------------------------------------------------------


def application_of(data: bytes) -> Application | None:
    """The application in an entry of a REPORT's join requests; None: it is none (a JOIN, or nothing at all)."""
    try:
        application = decoded(_decoder, data, "an application")
    except WireError:
        return None
    return application if len(data) <= APPLICATION_BYTES and encode(application) == data else None


def refused(
    application: Application, settings: Settings, roster: Roster, summary: Summary, verify: Verify
) -> str | None:
    """Why an application would never let anybody in, in the state as it is; None: it would, once the door is open.

    Args:
        application: from anybody.
        settings, verify: of the run.
        roster: of the attempt under way.
        summary: the last certified state.

    Returns:
        `closed_roster`, `malformed`, `known_key`, `barred_key`, `full`, `taken_id`, `no_sponsor`, `spent_sponsor`, or
        `bad_signature`.
    """
    register, key = summary.register, application.key
    if settings.roster == "closed":
        return "closed_roster"
    texts = ((application.control, _ADDRESS_CHARACTERS), (application.bulk, _ADDRESS_CHARACTERS))
    lengths = len(key) == _KEY_BYTES and len(application.transport) == _TRANSPORT_CHARACTERS
    if not lengths or any(len(text) > most for text, most in texts):
        return "malformed"
    if not _least(register, key) <= application.number < TRIES:
        return "barred_key"
    if key in roster.keys or any(application.transport == each.transport for each in register.newcomers):
        return "known_key"
    if all(roster.keys[roster.founders :]):
        return "full"
    if not roster.founders <= application.peer < len(roster.keys) or roster.keys[application.peer]:
        return "taken_id"
    if (application.sponsor is None) != (settings.roster == "open"):
        return "no_sponsor"
    if application.sponsor is not None:
        sponsor = application.sponsor
        if not 0 <= sponsor < roster.founders or sponsor not in roster.active:
            return "no_sponsor"
        if any(by == sponsor and of != key for of, by in _vouched_for(register)):
            return "spent_sponsor"
        vouched = sponsorship_bytes(settings.run, key, application.transport)
        if not verify(roster.keys[sponsor], vouched, application.sponsorship):
            return "bad_signature"
    signed = application_bytes(settings.run, application)
    return None if verify(key, signed, application.signature) else "bad_signature"


def _least(register: Register, key: bytes) -> int:
    """The number that an application of a key has at least; `TRIES`: none will do."""
    least = next((number for out, _, number in register.out if out == key), 0)
    return TRIES if least is None else least


def _vouched_for(register: Register) -> Iterator[tuple[bytes, int | None]]:
    """Keys that have entered, each with its sponsor."""
    yield from ((each.key, each.sponsor) for each in register.newcomers)
    yield from ((key, sponsor) for key, sponsor, _ in register.out)


# --- in a REPORT ----------------------------------------------------------------------------------------------


def candidates(summary: Summary) -> tuple[int, ...]:
    """The newcomers on probation."""
    admitted = {peer for peer, _ in summary.returned}
    return tuple(each.peer for each in summary.register.newcomers if each.peer not in admitted)


def introducer(settings: Settings, roster: Roster, summary: Summary) -> int | None:
    """The member whose REPORT may carry an application; None: the door is shut.

    Args:
        settings: of the run.
        roster: of the attempt under way.
        summary: the last certified state, whose r nobody knew when the step before began.
    """
    register = summary.register
    shut = settings.roster == "closed" or summary.step < register.opens or len(register.out) >= MOST_OUT
    if shut or candidates(summary) or all(roster.keys[roster.founders :]):
        return None
    return permutation(digest("introducer", summary.r), roster.active)[0]


def application_fits(application: Application, attempt: Attempt, sender: int) -> bool:
    """True if this peer's REPORT may carry this application."""
    settings, summary = attempt.settings, attempt.state.summary
    if sender != introducer(settings, attempt.roster, summary):
        return False
    return refused(application, settings, attempt.roster, summary, attempt.tools.verify) is None


def introduced(attempt: Attempt) -> tuple[int, Application] | None:
    """The application that an attempt's REPORTs carry, and who carries it; None: none."""
    for sender, report in attempt.transcript.of(Report, Phase.REPORT).items():
        for data in report.joins:
            if (application := application_of(data)) is not None:
                return sender, application
    return None


# --- the state after it ---------------------------------------------------------------------------------------


def revised(
    register: Register,
    step: int,
    correct: Collection[int],
    wrong: Collection[int],
    members: Iterable[int],
    patience: int = PATIENCE,
) -> Register:
    """The register after the JOINs of a step.

    Args:
        register: before it, with the counts after it.
        step: the next one.
        correct, wrong: newcomers whose digest was the right one, or was not.
        members: who has been admitted so far, and is now.
        patience: steps that one may let pass without a correct gradient.
    """
    settled, kept, gone = frozenset(members), list[Newcomer](), dict[int, tuple[bytes, int | None, int | None]]()
    for each in register.newcomers:
        if each.peer in settled:
            kept.append(each)
        elif each.peer in wrong:
            gone[each.peer] = each.key, each.sponsor, None
        elif each.peer in correct:
            kept.append(structs.replace(each, heard=step))
        elif step - each.heard <= patience:
            kept.append(each)
        else:
            gone[each.peer] = each.key, each.sponsor, each.number + 1
    left = tuple((peer, count) for peer, count in register.probation if peer not in gone)
    again = {key for key, _, _ in gone.values()}
    out = (*(each for each in register.out if each[0] not in again), *gone.values())
    return structs.replace(register, probation=left, newcomers=tuple(kept), out=out)


def entered(attempt: Attempt, state: State, step: int) -> State:
    """The state before `step` with the newcomer that an attempt's REPORTs introduce, if they do.

    Whoever carries it and whoever vouches for it have to be in the roster still: a member that this very attempt bans
    brings nobody in.

    Args:
        attempt: complete up to REPORT.
        state: with the attempt's verdicts and admissions.
        step: the next one.
    """
    found = introduced(attempt)
    if found is None:
        return state
    carrier, application = found
    if not {carrier, application.sponsor} - {None} <= set(state.roster.active):
        return state
    register = state.summary.register
    fresh = Newcomer(
        application.peer,
        application.number,
        application.key,
        application.transport,
        application.control,
        application.bulk,
        application.sponsor,
        step,
    )
    newcomers = tuple(sorted((*register.newcomers, fresh), key=lambda each: each.peer))
    opens = step + attempt.settings.admit_every
    return registered(state, structs.replace(register, newcomers=newcomers, opens=opens))


def registered(state: State, register: Register) -> State:
    """The state with a register; a plain list of probations as long as no newcomer has ever entered."""
    plain = register == Register(register.probation)
    state = state.with_facts(admissions=register.probation if plain else register)
    return replace(state, roster=state.summary.roster(state.roster, state.roster.active))
