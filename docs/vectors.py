"""Test vectors for the specification (docs/spec/vectors.json): inputs and results of every digest and encoding."""

from __future__ import annotations

import json
from dataclasses import replace

import msgspec
import torch

from btard.node.build import configuration, genesis_roster, settings_of
from btard.node.config import WIRE_VERSION, Plugin, RunConfig
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer
from btard.node.protocol.api.events import RequestTranscript
from btard.node.protocol.attempt import mprng
from btard.node.protocol.attempt.attempt import aggregate_digest, part_digest
from btard.node.protocol.attempt.transcript import Transcript
from btard.node.protocol.attempt.verification import NormWindow, checksum
from btard.node.protocol.state.state import State, genesis_randomness, norms_digest, parameters_digest
from btard.node.protocol.state_sync.probation import gradient_digest
from btard.node.protocol.wire import messages
from btard.node.protocol.wire.bulk import BulkKey, BulkKind
from btard.node.protocol.wire.encoding import (
    body_digest,
    encode,
    encode_body,
    endorsement_bytes,
    place_of,
    signing_bytes,
)
from btard.node.protocol.wire.messages import Phase, Slot
from btard.node.transport import envelope, framing

SEED, RUN_ID, PEER = 7, "vectors", 1
RUN = RunConfig(peers=3, task=Plugin("quadratic", {"dimension": 8}), steps=4, data_seed=5)
VALUES = (0.0, 1.0, -2.5, 0.125, 3.0, -0.5, 100.0, 7.75)
TOKEN = bytes(range(32))


def vectors() -> str:
    """The file."""
    members, secrets = keys.generate(SEED, RUN.peers)
    roster, settings = genesis_roster(members), settings_of(RUN_ID, RUN, members, len(VALUES), b"environment")
    run, signer = settings.run, Signer(bytes.fromhex(secrets[PEER].signing_seed))
    values = torch.tensor(VALUES)

    def slot(phase: Phase, step: int = 0) -> Slot:
        return Slot(run, roster.digest, step, 0, phase, PEER)

    share = mprng.share(bytes.fromhex(secrets[PEER].randomness_seed), 2, 1)
    r = mprng.combine(2, 1, [bytes([place] * 32) for place in range(3)])
    suspect = messages.Suspect(slot(Phase.SUSPECT), (), Phase.COMMIT, 2)
    bodies: tuple[messages.Body, ...] = (
        messages.Hello(slot(Phase.HELLO), (), run, b"environment"),
        messages.Commit(slot(Phase.COMMIT), (), (bytes(32), bytes(32)), bytes(32)),
        messages.Agg(slot(Phase.AGG), (bytes(32),), messages.Missing((0, 2))),
        messages.Checksums(slot(Phase.CHECKSUMS), (bytes(32),), (0.5, -1.0), (1.0, 2.0)),
        messages.Report(
            slot(Phase.REPORT, 300), (bytes(32),), (True, False), (messages.Verdict(2, False),),
            (messages.Accusation(messages.AccusationKind.AGGREGATE, 2, 300, 0, 1),), (), (), (),
            (messages.Late(Phase.AGG, True, 2),), (12, 70_000),
        ),
        messages.Close(slot(Phase.CLOSE), (bytes(32),), messages.Void((messages.Removal(2, "silent", None),))),
        suspect,
        messages.Outcome(slot(Phase.OUTCOME), (), None, (messages.Removal(2, "checksum", 0),)),
    )  # fmt: skip
    transcript = Transcript(roster.active)
    for peer in roster.active:
        body = messages.Resend(Slot(run, roster.digest, 0, 0, Phase.RESEND, peer), ())
        transcript.add(body, messages.Signed(encode_body(body), b""))
    transcript.finish(Phase.RESEND)
    norms = NormWindow(((1.0, 2.0), (0.5, 4.0)))
    state = replace(State.genesis(roster, 0, values, torch.zeros(len(VALUES))), norms=norms).with_facts(step=1, r=r)
    claim = checksum(values, torch.ones(len(VALUES)), mprng.projection(r, len(VALUES)), 5.0)
    signed = messages.Signed(encode_body(suspect), signer.sign(signing_bytes(suspect, encode_body(suspect))))
    key = BulkKey(3, 1, BulkKind.AGGREGATE, 2, 2)
    found: dict[str, object] = {
        "wire_version": WIRE_VERSION,
        "genesis": {
            "run_id": RUN_ID,
            "configuration": configuration(RUN).decode(),
            "members": _json(list(members)),
            "run": run.hex(),
        },
        "roster": {"active": list(roster.active), "digest": roster.digest.hex()},
        "peer": {"id": PEER, "signing_seed": secrets[PEER].signing_seed},
        "bodies": [
            {
                "bytes": encode_body(body).hex(),
                "digest": body_digest(encode_body(body)).hex(),
                "place": encode(place_of(body)).hex(),
                "signature": signer.sign(signing_bytes(body, encode_body(body))).hex(),
            }
            for body in bodies
        ],
        "endorsement": signer.sign(endorsement_bytes(encode_body(suspect), 0, (2,))).hex(),
        "phase": {
            "name": "RESEND",
            "bodies": [each.body.hex() for each in transcript.signed(Phase.RESEND).values()],
            "digest": transcript.prefix[0].hex(),
            "transcript": transcript.digest.hex(),
        },
        "randomness": {
            "secret_seed": secrets[PEER].randomness_seed, "step": 2, "attempt": 1,
            "x": share.x.hex(), "salt": share.salt.hex(),
            "commitment": mprng.commitment(run, 2, 1, PEER, share).hex(),
            "r_of": [bytes([place] * 32).hex() for place in range(3)], "r": r.hex(),
            "genesis_r": genesis_randomness(RUN.data_seed).hex(),
            "xi": mprng.batch_seed(RUN.data_seed, r, 3, PEER).hex(),
            "permutation_of_0_to_9": list(mprng.permutation(r, range(10))),
            "coins_audit_half": [mprng.happens(r, "audit", part, 0.5) for part in range(16)],
            "z": bytes(mprng.projection(r, len(VALUES)).numpy().data).hex(),
        },
        "values": {
            "float32": bytes(values.numpy().data).hex(),
            "part": part_digest(settings, 2, 1, PEER, 0, values).hex(),
            "aggregate": aggregate_digest(settings, 2, 1, PEER, 1, values).hex(),
            "parameters": parameters_digest(values).hex(),
            "probation": gradient_digest(settings, 2, PEER, values).hex(),
            "checksum_against_ones": {"radius": 5.0, "s": claim.s.hex(), "norm": claim.norm.hex()},
        },
        "state": {
            "norms": norms_digest(norms).hex(),
            "summary": encode(state.summarise(transcript.digest)).hex(),
            "digest": state.summarise(transcript.digest).digest.hex(),
        },
        "frames": {
            "greeting": framing.encode_greeting(framing.Greeting(RUN_ID, TOKEN)).hex(),
            "probe": framing.encode_probe(framing.Probe(False, 513)).hex(),
            "signed": framing.encode_control(envelope.seal(signed)).hex(),
            "relayed_view": framing.encode_control(envelope.seal(messages.Endorsed(signed, ((2, bytes(64)),)))).hex(),
            "request": framing.encode_control(envelope.seal(key)).hex(),
            "transcript": framing.encode_control(envelope.seal(RequestTranscript((0,), 300, 1))).hex(),
            "bulk_header": framing.encode_bulk_header(TOKEN, key).hex(),
        },
    }  # fmt: skip
    return json.dumps(found, indent=1) + "\n"


def _json(value: object) -> str:
    """JSON as the digest of the genesis covers it."""
    return msgspec.json.Encoder(order="deterministic").encode(value).decode()
