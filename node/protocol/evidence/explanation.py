"""What an evidence file shows, in one sentence: told only after the file has proved it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_never

from btard.node.protocol.adjudication.charges import (
    Averaging,
    Broken,
    Charge,
    Equivocation,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    FalseProbation,
    OutOfBounds,
    Ruled,
    Silent,
    Unusable,
    Withheld,
)
from btard.node.protocol.adjudication.offences import sentence
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.transfers import claimers, owed_aggregates, owed_parts
from btard.node.protocol.state.state import Ban
from btard.node.protocol.wire.messages import Phase, Place


def testimony(ban: Ban, charge: Charge, trial: Attempt, signers: Sequence[int]) -> str:
    """The sentence.

    Args:
        ban: what was proved.
        charge: the charge behind it.
        trial: the attempt in which it was judged, replayed.
        signers: whose OUTCOMEs or CLOSEs made it effective.
    """
    peer, part = ban.peer, getattr(charge, "part", None)
    match charge:
        case Ruled() | Broken():
            majority = f"{_names(signers)}, more than half of the roster,"
            return f"{majority} signed the removal of peer {peer}: {sentence(ban.reason)}"
        case Equivocation(first=first, second=second):
            return f"peer {peer} signed {_differences(first.place, second.place)}"
        case Silent(phase=phase):
            return f"more than f peers signed that they missed the {phase.name} of peer {peer} in the step before"
        case Withheld(stage="part" | "aggregate" as stage):
            return _shortage(ban, stage, charge.part, trial)
        case Withheld():
            return f"fewer than f + 1 peers say that they hold what peer {peer} had to publish for judging"
        case Unusable():
            return f"peer {peer} committed to a part {part} with entries that are not finite or beyond 2^40"
        case OutOfBounds():
            claim = trial.claim(peer, charge.part)
            return f"peer {peer} signed s = {claim.s:.6g} and norm = {claim.norm:.6g} for part {part}: impossible (V0)"
        case Averaging():
            return f"recomputed from the published parts, part {part} shows {_averaged(ban)}"
        case FalseChecksum():
            verdict = f"is what peer {charge.accused} claimed: peer {peer} accused it falsely"
            if ban.reason != "false_accusation":
                verdict = f"is not what peer {peer} claimed"
            return f"recomputed from the published bytes, the checksum of part {part} {verdict}"
        case FalseGradient():
            return _gradient(ban, charge)
        case FalseProbation():
            return f"on probation, peer {peer} signed another digest than that of the gradient its public seed gives"
        case FalseHistory(accused=accused, step=step):
            word, truth = ("false", "true") if ban.reason == "false_accusation" else ("true", "false")
            what = f"what peer {accused} contributed to step {step}"
            return f"peer {peer} called {what} {word}; recomputed, it is {truth}"
        case _:
            assert_never(charge)


def _averaged(ban: Ban) -> str:
    return {
        "aggregate": f"that peer {ban.peer} committed to a wrong aggregate",
        "false_report": f"that peer {ban.peer} passed a false checksum as true",
        "false_accusation": f"nothing wrong: peer {ban.peer} accused its aggregator falsely",
    }.get(ban.reason, f"that the checksum which peer {ban.peer} claimed is false")


def _gradient(ban: Ban, charge: FalseGradient) -> str:
    if ban.reason == "false_accusation":
        return f"the gradient of peer {charge.accused} is the one that its public seed gives: peer {ban.peer} lied"
    if ban.reason == "gradient":
        return (
            f"peer {ban.peer} committed to another gradient than its public seed gives, as peer {charge.accuser} said"
        )
    return f"peer {ban.peer} claimed other checksums than its gradient, recomputed from its public seed, has"


def _shortage(ban: Ban, stage: str, part: int, trial: Attempt) -> str:
    items, phase = (owed_parts(trial), Phase.HELD) if stage == "part" else (owed_aggregates(trial), Phase.REVEAL)
    place = next(place for place, item in enumerate(items) if (item.owner, item.part) == (ban.peer, part))
    held, needed = len(claimers(trial, phase, place)), trial.roster.faults + 1
    what = f"part {part} of peer {ban.peer}'s gradient" if stage == "part" else f"peer {ban.peer}'s aggregate"
    return f"{held} of {len(trial.roster.active)} peers say that they hold {what}; {needed} had to"


def _differences(first: Place, second: Place) -> str:
    where = f"of step {first.slot.step}, attempt {first.slot.attempt + 1}"
    if first.slot == second.slot:
        return f"two different messages for one slot: {first.slot.phase.name} {where}"
    return f"two histories {where}: its {first.slot.phase.name} and its {second.slot.phase.name} cannot both be true"


def _names(peers: Sequence[int]) -> str:
    return "peers " + ", ".join(str(peer) for peer in sorted(peers))
