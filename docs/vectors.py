"""Test vectors for the specification (docs/spec/vectors.json): inputs and results of every digest and encoding."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import torch

from btard.node.build import settings_of
from btard.node.config import WIRE_VERSION, Endpoint, Plugin, RunConfig
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer
from btard.node.genesis.genesis import configuration, genesis_roster
from btard.node.protocol.api import RequestTranscript
from btard.node.protocol.attempt import mprng
from btard.node.protocol.attempt.attempt import Transcript, aggregate_digest, part_digest
from btard.node.protocol.attempt.verification import NormWindow, checksum
from btard.node.protocol.state.state import State, genesis_randomness, norms_digest, parameters_digest
from btard.node.protocol.state_sync.probation import gradient_digest
from btard.node.protocol.wire import messages
from btard.node.protocol.wire.encoding import (
    body_digest,
    encode,
    encode_body,
    endorsement_bytes,
    place_of,
    signing_bytes,
)
from btard.node.protocol.wire.messages import BulkKey, BulkKind, Phase, Slot
from btard.node.transport import envelope, framing
from btard.node.transport.address_records import AddressBook

SEED, RUN_ID, PEER = 7, "vectors", 1
RUN = RunConfig(peers=3, task=Plugin("quadratic", {"dimension": 8}), steps=4, data_seed=5)
VALUES = (0.0, 1.0, -2.5, 0.125, 3.0, -0.5, 100.0, 7.75)
TOKEN = bytes(range(32))
MEMBERS, SECRETS = keys.generate(SEED, RUN.peers)
SECRET = SECRETS[PEER]
SIGNER = Signer(bytes.fromhex(SECRET.signing_seed))
ROSTER = genesis_roster(MEMBERS)
SETTINGS = settings_of(RUN_ID, RUN, MEMBERS, len(VALUES), b"environment")
TENSOR = torch.tensor(VALUES)
R = mprng.combine(2, 1, [bytes([place] * 32) for place in range(3)])


def vectors() -> str:
    """The file."""
    found: dict[str, object] = {
        "wire_version": WIRE_VERSION,
        "genesis": {
            "run_id": RUN_ID,
            "configuration": configuration(RUN).decode(),
            "members": _json(list(MEMBERS)),
            "run": SETTINGS.run.hex(),
        },
        "roster": {"active": list(ROSTER.active), "digest": ROSTER.digest.hex()},
        "peer": {"id": PEER, "signing_seed": SECRET.signing_seed},
        "bodies": [_body(body) for body in _bodies()],
        "endorsement": SIGNER.sign(endorsement_bytes(encode_body(_suspect()), 0, (2,))).hex(),
        "phase": _phase(),
        "randomness": _randomness(),
        "values": _values(),
        "state": _state(),
        "frames": _frames(),
    }
    return json.dumps(found, indent=1) + "\n"


def _slot(phase: Phase, step: int = 0) -> Slot:
    return Slot(SETTINGS.run, ROSTER.digest, step, 0, phase, PEER)


def _suspect() -> messages.Suspect:
    return messages.Suspect(_slot(Phase.SUSPECT), (), Phase.COMMIT, 2)


def _bodies() -> tuple[messages.Body, ...]:
    """One of each shape that a body may have."""
    return (
        messages.Hello(_slot(Phase.HELLO), (), SETTINGS.run, b"environment"),
        messages.Commit(_slot(Phase.COMMIT), (), (bytes(32), bytes(32)), bytes(32)),
        messages.Agg(_slot(Phase.AGG), (bytes(32),), messages.Missing((0, 2))),
        messages.Checksums(_slot(Phase.CHECKSUMS), (bytes(32),), (0.5, -1.0), (1.0, 2.0)),
        messages.Report(
            _slot(Phase.REPORT, 300), (bytes(32),), (True, False), (messages.Verdict(2, False),),
            (messages.Accusation(messages.AccusationKind.AGGREGATE, 2, 300, 0, 1),), (), (), (),
            (messages.Late(Phase.AGG, True, 2),), (12, 70_000),
        ),
        messages.Close(_slot(Phase.CLOSE), (bytes(32),), messages.Void((messages.Removal(2, "silent", None),))),
        _suspect(),
        messages.Outcome(_slot(Phase.OUTCOME), (), None, (messages.Removal(2, "checksum", 0),)),
    )  # fmt: skip


def _signed(body: messages.Body) -> messages.Signed:
    data = encode_body(body)
    return messages.Signed(data, SIGNER.sign(signing_bytes(body, data)))


def _body(body: messages.Body) -> dict[str, object]:
    signed = _signed(body)
    return {
        "bytes": signed.body.hex(),
        "digest": body_digest(signed.body).hex(),
        "place": encode(place_of(body)).hex(),
        "signature": signed.signature.hex(),
    }


def _transcript() -> Transcript:
    """A phase that all have spoken in."""
    transcript = Transcript(ROSTER.active)
    for peer in ROSTER.active:
        body = messages.Resend(Slot(SETTINGS.run, ROSTER.digest, 0, 0, Phase.RESEND, peer), ())
        transcript.add(body, messages.Signed(encode_body(body), b""))
    transcript.finish(Phase.RESEND)
    return transcript


def _phase() -> dict[str, object]:
    transcript = _transcript()
    return {
        "name": "RESEND",
        "bodies": [each.body.hex() for each in transcript.signed(Phase.RESEND).values()],
        "digest": transcript.prefix[0].hex(),
        "transcript": transcript.digest.hex(),
    }


def _randomness() -> dict[str, object]:
    share = mprng.share(bytes.fromhex(SECRET.randomness_seed), 2, 1)
    return {
        "secret_seed": SECRET.randomness_seed, "step": 2, "attempt": 1,
        "x": share.x.hex(), "salt": share.salt.hex(),
        "commitment": mprng.commitment(SETTINGS.run, 2, 1, PEER, share).hex(),
        "r_of": [bytes([place] * 32).hex() for place in range(3)], "r": R.hex(),
        "genesis_r": genesis_randomness(RUN.data_seed).hex(),
        "xi": mprng.batch_seed(RUN.data_seed, R, 3, PEER).hex(),
        "permutation_of_0_to_9": list(mprng.permutation(R, range(10))),
        "coins_audit_half": [mprng.happens(R, "audit", part, 0.5) for part in range(16)],
        "z": bytes(mprng.projection(R, len(VALUES)).numpy().data).hex(),
    }  # fmt: skip


def _values() -> dict[str, object]:
    claim = checksum(TENSOR, torch.ones(len(VALUES)), mprng.projection(R, len(VALUES)), 5.0)
    return {
        "float32": bytes(TENSOR.numpy().data).hex(),
        "part": part_digest(SETTINGS, 2, 1, PEER, 0, TENSOR).hex(),
        "aggregate": aggregate_digest(SETTINGS, 2, 1, PEER, 1, TENSOR).hex(),
        "parameters": parameters_digest(TENSOR).hex(),
        "probation": gradient_digest(SETTINGS, 2, PEER, TENSOR).hex(),
        "checksum_against_ones": {"radius": 5.0, "s": claim.s.hex(), "norm": claim.norm.hex()},
    }


def _state() -> dict[str, object]:
    norms = NormWindow(((1.0, 2.0), (0.5, 4.0)))
    state = replace(State.genesis(ROSTER, 0, TENSOR, torch.zeros(len(VALUES))), norms=norms).with_facts(step=1, r=R)
    summary = state.summarise(_transcript().digest)
    return {"norms": norms_digest(norms).hex(), "summary": encode(summary).hex(), "digest": summary.digest.hex()}


def _address() -> framing.AddressRecord:
    """Of a peer that has moved once."""
    book = AddressBook(PEER, bytes.fromhex(SECRET.signing_seed), {}, SETTINGS.run)
    book.announce(1, Endpoint("tcp://node-1:7400", "tcp://[::1]:7401"))
    (record,) = book.for_peer(0)
    return record


def _frames() -> dict[str, object]:
    signed, key = _signed(_suspect()), BulkKey(3, 1, BulkKind.AGGREGATE, 2, 2)
    return {
        "greeting": framing.encode_greeting(framing.Greeting(RUN_ID, TOKEN)).hex(),
        "address": framing.encode_address(_address()).hex(),
        "probe": framing.encode_probe(framing.Probe(False, 513)).hex(),
        "signed": framing.encode_control(envelope.seal(signed)).hex(),
        "relayed_view": framing.encode_control(envelope.seal(messages.Endorsed(signed, ((2, bytes(64)),)))).hex(),
        "request": framing.encode_control(envelope.seal(key)).hex(),
        "transcript": framing.encode_control(envelope.seal(RequestTranscript((0,), 300, 1))).hex(),
        "bulk_header": framing.encode_bulk_header(TOKEN, key).hex(),
    }


def _json(value: object) -> str:
    """JSON as the digest of the genesis covers it."""
    return msgspec.json.Encoder(order="deterministic").encode(value).decode()
