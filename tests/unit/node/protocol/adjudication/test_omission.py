"""What a list of SUSPECTs proves in a later REPORT, and what it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest

from btard.node.crypto.signing import Signer
from btard.node.protocol.adjudication.omission import Silent, encode_silences, silence
from btard.node.protocol.attempt.attempt import Attempt, Transcript
from btard.node.protocol.wire.encoding import encode, encode_body, signing_bytes
from btard.node.protocol.wire.messages import Phase, Signed, Slot, Suspect, plain_bytes
from tests.protocol_attempts import complete

ACCUSED = 5
STEP = 2
LARGE = (bytes(plain_bytes(6)),)


@pytest.fixture(scope="module")
def signers() -> list[Signer]:
    from btard.node.crypto.keys import generate

    return [Signer(bytes.fromhex(secret.signing_seed)) for secret in generate(0, 6)[1]]


@pytest.fixture(scope="module")
def attempt() -> Attempt:
    return complete(step=STEP).attempt


def suspects(
    attempt: Attempt, signers: list[Signer], by: Iterable[int] = (0, 1, 2), *, step: int = STEP - 1, number: int = 0,
    phase: Phase = Phase.CLOSE, peer: int = ACCUSED, run: bytes | None = None, prefix: tuple[bytes, ...] = (),
) -> list[Signed]:  # fmt: skip
    made = []
    for sender in by:
        slot = Slot(run or attempt.settings.run, attempt.roster.digest, step, number, Phase.SUSPECT, sender)
        body = Suspect(slot, prefix, phase, peer)
        data = encode_body(body)
        made.append(Signed(data, signers[sender].sign(signing_bytes(body, data))))
    return made


def test_more_than_f_suspicions_prove_silence(attempt: Attempt, signers: list[Signer]) -> None:
    assert attempt.roster.faults == 2
    assert silence(encode(tuple(suspects(attempt, signers))), attempt) == Silent(ACCUSED, Phase.CLOSE)


Make = Callable[[Attempt, list[Signer]], list[Signed]]
NOTHING: list[tuple[str, Make]] = [
    ("none", lambda a, s: []),
    ("f of them", lambda a, s: suspects(a, s, (0, 1))),
    ("one peer thrice", lambda a, s: suspects(a, s, (0, 0, 0))),
    ("the accused among them", lambda a, s: suspects(a, s, (0, 1, ACCUSED))),
    ("of two steps", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), step=STEP, number=-1)]),
    ("of two phases", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), phase=Phase.AGG)]),
    ("of two peers", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), peer=4)]),
    ("of this very attempt", lambda a, s: suspects(a, s, step=STEP)),
    ("of a later step", lambda a, s: suspects(a, s, step=STEP + 1)),
    ("two steps old", lambda a, s: suspects(a, s, step=STEP - 2)),
    ("of another run", lambda a, s: suspects(a, s, run=bytes(32))),
    ("of nobody", lambda a, s: suspects(a, s, peer=77)),
    ("a broken signature", lambda a, s: [*suspects(a, s, (0, 1)), Signed(suspects(a, s, (2,))[0].body, bytes(64))]),
    ("larger than an honest peer takes", lambda a, s: [*suspects(a, s, (0, 1)), *suspects(a, s, (2,), prefix=LARGE)]),
    ("another message", lambda a, s: [*suspects(a, s, (0, 1)), a.transcript.signed(Phase.AGG)[2]]),
]  # fmt: skip


@pytest.mark.parametrize("make", [row[1] for row in NOTHING], ids=[row[0] for row in NOTHING])
def test_what_proves_nothing(attempt: Attempt, signers: list[Signer], make: Make) -> None:
    assert silence(encode(tuple(make(attempt, signers))), attempt) is None


@pytest.mark.parametrize("data", [b"", b"\xc1", b"\x90", encode((1, 2)), encode((("a", "b"),) * 3)])
def test_garbage_proves_nothing(attempt: Attempt, data: bytes) -> None:
    assert silence(data, attempt) is None


def test_what_a_transcript_holds_is_what_a_report_carries(attempt: Attempt, signers: list[Signer]) -> None:
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for signed in suspects(attempt, signers, (3, 1, 0, 2)):
        transcript.add(decode_body(signed.body), signed)
    for signed in suspects(attempt, signers, (0, 1), peer=4):
        transcript.add(decode_body(signed.body), signed)
    (data,) = encode_silences(transcript, attempt.roster.faults)
    assert silence(data, attempt) == Silent(ACCUSED, Phase.CLOSE), "only two peers suspect peer 4"


def test_f_silent_peers_are_charged_each(attempt: Attempt, signers: list[Signer]) -> None:
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for peer in (4, ACCUSED):
        for signed in suspects(attempt, signers, peer=peer):
            transcript.add(decode_body(signed.body), signed)
    charged = [silence(data, attempt) for data in encode_silences(transcript, attempt.roster.faults)]
    assert charged == [Silent(4, Phase.CLOSE), Silent(ACCUSED, Phase.CLOSE)]


def test_more_than_f_silent_peers_are_a_network_that_was_cut(attempt: Attempt, signers: list[Signer]) -> None:
    """Each half of the roster suspects the other: no charge against anybody."""
    from btard.node.protocol.wire.encoding import decode_body

    transcript = Transcript(attempt.roster.active)
    for one, other in (((0, 1, 2), (3, 4, 5)), ((3, 4, 5), (0, 1, 2))):
        for peer in other:
            for signed in suspects(attempt, signers, one, peer=peer):
                transcript.add(decode_body(signed.body), signed)
    assert len(transcript.silent(attempt.roster.faults + 1)) == 6
    assert encode_silences(transcript, attempt.roster.faults) == []
