"""The evidence file: what travels in it for which charge, which bytes are one, what does not fit together."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from btard.node.errors import WireError
from btard.node.protocol.adjudication.charges import (
    Averaging,
    Charge,
    FalseChecksum,
    FalseGradient,
    FalseHistory,
    Guilt,
    OutOfBounds,
    Ruled,
    Unusable,
)
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.evidence.format import (
    EVIDENCE_VERSION,
    Evidence,
    aggregates_needed,
    contradiction,
    decode,
    gather,
    tensor_of,
)
from btard.node.protocol.state.state import Ban
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import Phase
from tests.protocol_attempts import PEERS, complete

BAD, PART = 5, 3
put = msgspec.structs.replace


def published() -> Round:
    """Step 2 of six, with two parts of everyone published from it and from the step before."""
    round_ = complete()
    assert round_.past is not None
    for attempt in (round_.attempt, round_.past):
        for owner in range(PEERS):
            for part in (PART, PART + 1):
                index = (attempt.step, attempt.number, owner, part)
                round_.attempt.publications[index] = torch.full((2,), float(owner))
    return round_


def file(charge: Charge, reason: str = "checksum", round_: Round | None = None) -> bytes:
    round_ = round_ or published()
    ban = Ban(2, 0, BAD, reason, None, True)
    return gather(Guilt(BAD, reason, None, charge), ban, round_.attempt, round_.past, None, ())


def evidence(charge: Charge, reason: str = "checksum") -> Evidence:
    return decode(file(charge, reason))


ALL = tuple(range(PEERS))
CARRIED: list[tuple[str, Charge, str, tuple[int, ...], list[tuple[int, int, int]], tuple[int, ...] | None]] = [
    ("out of bounds", OutOfBounds(BAD, PART), "bounds", (), [], None),
    ("a ruling", Ruled(BAD, "prefix"), "prefix", (), [], None),
    ("an aggregate", Averaging(PART, "V2"), "aggregate", (PART,), [(2, owner, PART) for owner in ALL], None),
    ("a claim", FalseChecksum(BAD, PART, 0), "checksum", (PART,), [(2, BAD, PART)], None),
    ("a part", Unusable(BAD, PART), "unusable", (), [(2, BAD, PART)], None),
    ("a gradient", FalseGradient(BAD, 1), "gradient", (), [(1, BAD, PART), (1, BAD, PART + 1)], ()),
    ("a gradient's checksums", FalseGradient(BAD, 1), "checksum", (), [(1, BAD, PART), (1, BAD, PART + 1)], ALL),
]
"""The charge; whose aggregates of the trial, which publications (step, owner, part) and which aggregates of the step
before go with it (None: that step does not)."""


@pytest.mark.parametrize(
    ("charge", "reason", "aggregates", "publications", "past"),
    [row[1:] for row in CARRIED],
    ids=[row[0] for row in CARRIED],
)
def test_what_travels(
    charge: Charge,
    reason: str,
    aggregates: tuple[int, ...],
    publications: list[tuple[int, int, int]],
    past: tuple[int, ...] | None,
) -> None:
    found = evidence(charge, reason)
    assert tuple(held.part for held in found.trial.aggregates) == aggregates
    assert [(held.step, held.owner, held.part) for held in found.publications] == publications
    assert (tuple(held.part for held in found.past.aggregates) if found.past is not None else None) == past
    assert len(found.parameters) == (0 if past is None else 4 * 19)
    assert contradiction(found) is None


def test_a_replayed_charge_names_the_aggregates_it_needs_as_its_author_did() -> None:
    needed = [aggregates_needed(charge) for charge in (Averaging(PART, "V2"), FalseChecksum(BAD, PART, 0))]
    assert needed == [(PART,)] * 2 and aggregates_needed(Unusable(BAD, PART)) == ()


def test_a_file_is_read_as_it_was_written() -> None:
    round_ = published()
    data = file(Averaging(PART, "V2"), "aggregate", round_)
    found, attempt = decode(data), round_.attempt
    assert encode(found) == data
    assert (found.version, found.run) == (EVIDENCE_VERSION, attempt.settings.run)
    assert (found.trial.step, found.trial.attempt, found.trial.active) == (2, 0, ALL)
    assert found.trial.before == attempt.state.summary and found.trial.certificate == attempt.state.certificate
    finished = [phase for phase in attempt.transcript.finished if phase is not Phase.JUDGE]
    assert len(found.trial.messages) == PEERS * len(finished)
    (held,) = found.trial.aggregates
    assert torch.equal(tensor_of(held.values), attempt.aggregates[PART])


RULING = Ruled(BAD, "prefix")
BYTES: dict[str, tuple[Callable[[], bytes], str]] = {
    "nothing": (lambda: b"", "not an evidence file"),
    "something else": (lambda: encode((1, 2)), "not an evidence file"),
    "a byte more": (lambda: file(RULING) + b"\x00", "not an evidence file"),
    "a byte less": (lambda: file(RULING)[:-1], "not an evidence file"),
    "another version": (lambda: encode(put(evidence(RULING), version=EVIDENCE_VERSION + 1)), "version 4; this"),
    "a longer encoding of its version": (
        lambda: file(RULING).replace(bytes([EVIDENCE_VERSION]), bytes([0xCC, EVIDENCE_VERSION]), 1),
        "canonical",
    ),
    "a map in the place of the arrays": (
        lambda: msgspec.msgpack.encode({"version": EVIDENCE_VERSION}),
        "not an evidence file",
    ),
}


@pytest.mark.parametrize("name", BYTES)
def test_bytes_that_are_no_evidence(name: str) -> None:
    make, problem = BYTES[name]
    with pytest.raises(WireError, match=problem):
        decode(make())


AVERAGING, GRADIENT = Averaging(PART, "V2"), FalseGradient(BAD, 1)
Change = Callable[[Evidence], Evidence]


def held(of: str, **fields: object) -> Change:
    """Change the first tensor of the trial's aggregates, or of the publications."""

    def change(found: Evidence) -> Evidence:
        if of == "publications":
            first, *rest = found.publications
            return put(found, publications=(put(first, **fields), *rest))
        first, *rest = found.trial.aggregates
        return put(found, trial=put(found.trial, aggregates=(put(first, **fields), *rest)))

    return change


CHANGES: list[tuple[str, Charge, Change, str]] = [
    ("a ban of another attempt", RULING, lambda e: put(e, ban=put(e.ban, attempt=1)), "different attempts"),
    ("a ban of another step", RULING, lambda e: put(e, ban=put(e.ban, step=1)), "different attempts"),
    ("a step before for no gradient", RULING, lambda e: put(e, past=e.trial), "belongs to the evidence of a gradient"),
    ("no step before", GRADIENT, lambda e: put(e, past=None), "belongs to the evidence of a gradient"),
    ("another step before", GRADIENT, lambda e: put(e, past=put(e.past, step=0)), "not the one of the charge"),
    ("another step disowned", GRADIENT, lambda e: put(e, charge=FalseHistory(BAD, 0, 0)), "not the one of the charge"),
    (
        "another attempt disowned",
        GRADIENT,
        lambda e: put(e, charge=FalseHistory(BAD, 1, 1)),
        "not the one of the charge",
    ),
    ("parameters for no gradient", RULING, lambda e: put(e, parameters=bytes(4)), "without a gradient charge"),
    ("judges of no gradient", RULING, lambda e: put(e, judges=e.trial.messages[:1]), "without a gradient charge"),
    ("a certificate of nothing", RULING, lambda e: put(e, trial=put(e.trial, before=None)), "without the state"),
    (
        "a certificate of nothing before",
        GRADIENT,
        lambda e: put(e, past=put(e.past, before=None, certificate=e.trial.certificate)),
        "without the state",
    ),
    ("an aggregate of another step", AVERAGING, held("aggregates", step=1), "named wrongly"),
    ("an aggregate of another attempt", AVERAGING, held("aggregates", attempt=1), "named wrongly"),
    ("an aggregate of another place", AVERAGING, held("aggregates", part=2), "named wrongly"),
    ("an aggregate of nobody", AVERAGING, held("aggregates", owner=PEERS), "named wrongly"),
    ("a publication of another step", AVERAGING, held("publications", step=1), "of another attempt"),
    ("a publication of another attempt", GRADIENT, held("publications", attempt=1), "of another attempt"),
]


@pytest.mark.parametrize(("charge", "change", "problem"), [row[1:] for row in CHANGES], ids=[row[0] for row in CHANGES])
def test_what_does_not_fit_together(charge: Charge, change: Change, problem: str) -> None:
    found = evidence(charge)
    assert contradiction(found) is None
    assert problem in (contradiction(change(found)) or "")


@pytest.mark.parametrize("count", [0, 1, 3])
def test_raw_bytes_as_a_tensor_of_their_own(count: int) -> None:
    values = torch.arange(float(count)) - 1.0
    data = bytearray(values.numpy().tobytes())
    made = tensor_of(memoryview(data))
    data[:] = bytes(len(data))
    assert made.dtype is torch.float32 and torch.equal(made, values), "nothing is shared with the file"


@pytest.mark.parametrize("size", [1, 3, 5])
def test_bytes_that_are_no_float32_values(size: int) -> None:
    with pytest.raises(WireError, match=f"{size} bytes"):
        tensor_of(bytes(size))


def test_a_file_is_a_value_that_travels_as_the_fields_of_its_table_and_nothing_else() -> None:
    """PROTOCOL section 15: the fields in their order, at every depth."""
    data = file(FalseGradient(BAD, 1))
    fields = msgspec.msgpack.decode(data)
    version, run, ban, charge, trial, past, publications, parameters, judges, summary, certificate = fields
    assert (version, len(run), ban, charge) == (3, 32, [2, 0, BAD, "checksum", None, True], ["gradient", BAD, 1])
    assert (trial[:3], past[:3]) == ([2, 0, list(ALL)], [1, 0, list(ALL)])
    assert [len(record) for record in (trial, past)] == [7, 7]
    assert [each[:4] for each in (*publications, past[4][0])] == [[1, 0, BAD, 3], [1, 0, BAD, 4], [1, 0, 0, 0]]
    assert (len(parameters), judges, summary, certificate) == (4 * 19, [], None, [])
    assert len({decode(data), decode(data)}) == 1
    for part in (fields, trial, publications[0]):
        part.append(0)
        with pytest.raises(WireError, match="not an evidence file"):
            decode(encode(fields))
        part.pop()
    assert encode(fields) == data, "nothing else was changed"
