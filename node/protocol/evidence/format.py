"""The evidence of a ban: everything a third party needs to judge again, from the genesis keys and public data alone."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from torch import Tensor

from btard.node.errors import WireError
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    FalseProbation,
    Guilt,
    Unusable,
)
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import AttemptRecord, Ban, Contribution, State, Summary
from btard.node.protocol.wire.encoding import decoded, encode, tensor_bytes
from btard.node.protocol.wire.messages import Phase, Signed
from btard.node.protocol.wire.precision import FLOAT32, Precision

EVIDENCE_VERSION = 3

ABOUT_GRADIENTS = (FalseGradient, FalseHistory, FalseProbation)
"""Charges that are judged by computing a gradient of an earlier step again."""


class Held(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """Bytes of one part as they travelled: of an owner's gradient, or (place of its aggregator) of an aggregate."""

    step: int
    attempt: int
    owner: int
    part: int
    values: bytes


class Record(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What evidence shows of an `AttemptRecord`: its transcript, COMMIT to REPORT, and the certified state that it
    started from.

    `before` and `certificate` are empty for step 0, whose state the genesis determines.
    """

    step: int
    attempt: int
    active: tuple[int, ...]
    messages: tuple[Signed, ...]
    aggregates: tuple[Held, ...]
    before: Summary | None
    certificate: tuple[Signed, ...]


class Evidence(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """One ban, the charge behind it and its proof.

    Args:
        version: of this format.
        run: digest of the genesis.
        ban: the entry of the ban list.
        charge: what was judged.
        trial: the attempt in which it was judged.
        past: for a gradient, the committed attempt of the step before.
        publications: the parts that were published for judging.
        parameters: for a gradient, the raw float32 parameters it was computed at.
        judges: with mixed environments, the signed JUDGE messages.
        summary, certificate: the CLOSEs that made the ban effective, and the state they cover (None: VOID).
    """

    version: int
    run: bytes
    ban: Ban
    charge: Charge
    trial: Record
    past: Record | None
    publications: tuple[Held, ...]
    parameters: bytes
    judges: tuple[Signed, ...]
    summary: Summary | None
    certificate: tuple[Signed, ...]


_decoder = msgspec.msgpack.Decoder(Evidence)


def decode(data: bytes) -> Evidence:
    """Evidence from a file's bytes.

    Raises:
        WireError: not evidence, not canonical, or of another version.
    """
    evidence = decoded(_decoder, data, "an evidence file")
    if evidence.version != EVIDENCE_VERSION:
        raise WireError(f"evidence of version {evidence.version}; this program reads version {EVIDENCE_VERSION}")
    if encode(evidence) != data:
        raise WireError("the evidence is not in its canonical encoding")
    return evidence


def contradiction(evidence: Evidence) -> str | None:
    """What in an evidence file does not fit together, None if everything does; no signature is looked at."""
    ban, trial, past = evidence.ban, evidence.trial, evidence.past
    about_gradient = isinstance(evidence.charge, ABOUT_GRADIENTS)
    if (ban.step, ban.attempt) != (trial.step, trial.attempt):
        return "the ban and the trial are of different attempts"
    if about_gradient != (past is not None):
        return "the step before belongs to the evidence of a gradient charge, and to no other"
    if past is not None and (past.step, past.attempt) != _step_judged(evidence.charge, trial, past):
        return "the step judged is not the one of the charge"
    if not about_gradient and (evidence.parameters or evidence.judges):
        return "parameters or JUDGE messages without a gradient charge"
    records = (trial, past) if past is not None else (trial,)
    if any(record.before is None and record.certificate for record in records):
        return "a certificate without the state it covers"
    if not all(_in_place(record, held) for record in records for held in record.aggregates):
        return "an aggregate is named wrongly"
    if any((held.step, held.attempt) not in [(record.step, record.attempt) for record in records]
           for held in evidence.publications):  # fmt: skip
        return "a published part is of another attempt"
    return None


def _step_judged(charge: Charge, trial: Record, past: Record) -> tuple[int, int]:
    """(step, attempt) of the contribution in question; which attempt stood, a gradient's charge does not say."""
    if isinstance(charge, FalseHistory):
        return charge.step, charge.attempt
    return trial.step - 1, past.attempt


def _in_place(record: Record, held: Held) -> bool:
    """An aggregate of this attempt, its part being its aggregator's place."""
    here = (held.step, held.attempt) == (record.step, record.attempt)
    return here and held.owner in record.active and record.active.index(held.owner) == held.part


def tensor_of(values: bytes | memoryview) -> Tensor:
    """A float32 vector from raw little-endian bytes."""
    return FLOAT32.unpacked(values)


def gather(
    guilt: Guilt, ban: Ban, trial: Attempt, past: Attempt | None, after: State | None, certificate: tuple[Signed, ...]
) -> bytes:
    """The evidence file of one guilt.

    Args:
        guilt: what judging found.
        ban: the entry it became.
        trial: the attempt, with its CLOSEs.
        past: the committed attempt before it.
        after: the committed state, None if the attempt was void.
        certificate: the CLOSEs or OUTCOMEs that make the ban effective.
    """
    if isinstance(guilt.charge, FalseHistory):
        charge = guilt.charge
        past = trial.earlier(Contribution(charge.step, charge.attempt, charge.accused))
    about_gradient, precision = isinstance(guilt.charge, ABOUT_GRADIENTS) and past is not None, trial.settings.precision
    evidence = Evidence(
        version=EVIDENCE_VERSION,
        run=trial.settings.run,
        ban=ban,
        charge=guilt.charge,
        trial=_shown(trial.record(), aggregates_needed(guilt.charge), precision),
        past=_shown(past.record(), _past_aggregates_needed(guilt, past), precision)
        if about_gradient and past
        else None,
        publications=_publications(guilt.charge, trial, past),
        parameters=bytes(tensor_bytes(past.state.parameters_D)) if about_gradient and past else b"",
        judges=tuple(trial.transcript.signed(Phase.JUDGE).values()) if about_gradient else (),
        summary=after.summary if after is not None else None,
        certificate=certificate,
    )
    return encode(evidence)


def _shown(record: AttemptRecord, parts: Sequence[int], precision: Precision) -> Record:
    """An attempt with the aggregates of some parts. JUDGE travels by itself: its bits are counted, not replayed."""
    active, before = record.state.roster.active, record.state.certified
    messages = tuple(
        signed for phase, of_phase in record.phases.items() if phase is not Phase.JUDGE for signed in of_phase
    )
    aggregates = tuple(
        Held(record.step, record.number, owner, part, bytes(precision.packed(record.aggregates[owner])))
        for part, owner in enumerate(active)
        if part in parts
    )
    summary, certificate = (before.summary, before.certificate) if before is not None else (None, ())
    return Record(record.step, record.number, active, messages, aggregates, summary, certificate)


def aggregates_needed(charge: Charge) -> tuple[int, ...]:
    """The parts whose aggregates a charge about this attempt is judged with."""
    match charge:
        case Averaging(part=part) | FalseChecksum(part=part):
            return (part,)
        case _:
            return ()


def _past_aggregates_needed(guilt: Guilt, past: Attempt | None) -> tuple[int, ...]:
    """Checksums of the past step are judged unless the gradient itself is already wrong."""
    if past is None or guilt.reason in ("gradient", "probation"):
        return ()
    return tuple(range(past.split.count))


def _publications(charge: Charge, trial: Attempt, past: Attempt | None) -> tuple[Held, ...]:
    def concerns(step: int, owner: int, part: int) -> bool:
        match charge:
            case Averaging(part=wanted):
                return step == trial.step and part == wanted
            case Unusable(accused=accused, part=wanted):
                return step == trial.step and owner == accused and part == wanted
            case FalseChecksum(accused=accused, part=wanted):
                return step == trial.step and owner == accused and part == wanted
            case FalseGradient(accused=accused):
                return past is not None and step == past.step and owner == accused
            case _:
                return False

    held = sorted(trial.publications.items(), key=lambda item: item[0])
    return tuple(
        Held(step, attempt, owner, part, bytes(trial.settings.precision.packed(values_P)))
        for (step, attempt, owner, part), values_P in held
        if concerns(step, owner, part)
    )
