"""A thief signs with a peer's key while its owner works: the pair of messages is the proof, and the key is banned."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.config import Plugin, RunConfig
from btard.node.crypto.keys import generate
from btard.node.crypto.signing import Signer
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import Banned, Expelled, Finished, MessageArrived
from btard.node.protocol.evidence.verifier import Verifier
from btard.node.protocol.wire.encoding import encode_body, signing_bytes
from btard.node.protocol.wire.messages import Body, Close, Commit, Signed
from tests.simulation.hooked import Hooked
from tests.simulation.stage import Stage, play, set_up

RUN = RunConfig(peers=6, task=Plugin("quadratic"), steps=6, batch_size=4)
OWNER, STEP, SEED = 3, 2, 7
HONEST = {0, 1, 2, 4, 5}


def forged(body: Commit | Close) -> Body:
    """Another message for the same slot."""
    field = "randomness" if isinstance(body, Commit) else "value"
    return msgspec.structs.replace(body, **{field: bytes(32)})


@pytest.mark.parametrize("kind", [Commit, Close])
@pytest.mark.parametrize("told", [(0,), (0, 1, 2, 4, 5)], ids=["one is told", "all are told"])
def test_a_second_signer_bans_the_key_and_nobody_else(kind: type[Commit] | type[Close], told: tuple[int, ...]) -> None:
    plain = set_up(RUN, protocol_seed=SEED, links=LinkModel(jitter_s=0.02, seed=SEED))
    inner = plain.simulation
    simulation = Hooked(inner.nodes, inner.network, inner.nodes[0].task.gradient, 0.05)
    _, secrets = generate(SEED, RUN.peers)
    thief = Signer(bytes.fromhex(secrets[OWNER].signing_seed))

    def steal(node: int, body: Body) -> None:
        if node != OWNER or not isinstance(body, kind) or (body.slot.step, body.slot.attempt) != (STEP, 0):
            return
        other = forged(body)
        data = encode_body(other)
        for peer in told:
            simulation.hand(peer, MessageArrived(OWNER, Signed(data, thief.sign(signing_bytes(other, data)))))

    simulation.on_say = steal
    seen = play(Stage(RUN, {}, SEED, plain.task, simulation), ())
    bans = [(each.node, each.output) for each in seen if isinstance(each.output, Banned)]
    assert {node for node, _ in bans} >= HONEST
    assert {(ban.peer, ban.reason) for _, ban in bans} == {(OWNER, "equivocation")}
    assert {each.node for each in seen if isinstance(each.output, Finished)} == HONEST
    assert [each.node for each in seen if isinstance(each.output, Expelled)] == [OWNER]
    verifier = Verifier(plain.ground())  # anybody with the genesis and the data
    for _, ban in bans:
        proof = verifier.check(ban.evidence)
        assert (proof.ban.peer, proof.kind) == (OWNER, "equivocation")
