"""Approvals over real sockets: they follow the greeting, are passed on once all are there, and have to be signed."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from btard.node.config import RunConfig
from btard.node.errors import WireError
from btard.node.genesis.approval import Approvals, approve
from btard.node.genesis.genesis import Genesis
from btard.node.transport import framing
from btard.node.transport.framing import Approved
from btard.node.transport.transport import Transport
from tests.transports import MEMBERS, SECRETS, pump, raw_peer, start

GENESIS = Genesis(1, 6, "run", RunConfig(peers=3), MEMBERS)
SIGNED = {peer: bytes.fromhex(approve(GENESIS, secret).signature) for peer, secret in enumerate(SECRETS)}
ALL = frozenset(range(3))


def approving(stack: ExitStack, where: Path, me: int, genesis: Genesis = GENESIS) -> Transport:
    """A transport of a member that has its own approval alone."""
    node = start(stack, me)
    path = where / f"approvals-{me}.json"
    node.approvals = Approvals(genesis.run_id, genesis.run, genesis.members, path)
    signature = bytes.fromhex(approve(genesis, SECRETS[me]).signature)
    assert node.approvals.take(me, signature)
    return node


def lacking(node: Transport) -> frozenset[int]:
    assert node.approvals is not None
    return node.approvals.missing


def test_everybody_gets_everybodys_and_keeps_them(stack: ExitStack, tmp_path: Path) -> None:
    nodes = [approving(stack, tmp_path, me) for me in range(3)]
    for node in nodes:
        node.connect({each.me: each.bound for each in nodes})
    pump(nodes, lambda _: not any(map(lacking, nodes)))
    for me in range(3):
        kept = Approvals(GENESIS.run_id, GENESIS.run, MEMBERS, tmp_path / f"approvals-{me}.json")
        assert kept.signatures == SIGNED
    assert not any(node.counters.dropped for node in nodes)


def test_one_that_has_all_shows_them_to_a_member_that_another_one_ignores(stack: ExitStack, tmp_path: Path) -> None:
    """Peer 2 speaks to peer 0 alone; what it signed reaches peer 1 all the same, before peer 0 takes a step."""
    first, second, third = (approving(stack, tmp_path, me) for me in range(3))
    addresses = {each.me: each.bound for each in (first, second, third)}
    first.connect(addresses)
    second.connect(addresses)
    third.connect({0: first.bound})
    pump([first, second, third], lambda _: not lacking(first) and not lacking(second))
    assert 2 not in second.greeted


def test_approvals_of_another_genesis_are_named(stack: ExitStack, tmp_path: Path) -> None:
    """The run's name is the same, so the greeting counts; the genesis is not, so no step is taken."""
    changed = msgspec.structs.replace(GENESIS, run=RunConfig(peers=3, steps=901))
    nodes = [approving(stack, tmp_path, 0), approving(stack, tmp_path, 1, changed)]
    for node in nodes:
        node.connect({each.me: each.bound for each in nodes})
    pump(nodes, lambda _: all(node.counters.dropped["approvals_of_another_genesis"] for node in nodes))
    assert nodes[0].refusals == {1: f"it approves genesis {changed.digest[:16]}, and we {GENESIS.digest[:16]}"}
    assert lacking(nodes[0]) == ALL - {0}


def test_a_launchers_run_takes_none(stack: ExitStack, tmp_path: Path) -> None:
    plain, other = start(stack, 0), approving(stack, tmp_path, 1)
    other.connect({0: plain.bound})
    pump([plain, other], lambda _: plain.counters.dropped["approvals_unasked"] == 1)


def test_a_forged_one_counts_for_nothing_and_ends_the_frame(stack: ExitStack, tmp_path: Path) -> None:
    node = approving(stack, tmp_path, 0)
    socket = raw_peer(stack, node, SECRETS[1].transport_secret)
    digest = bytes.fromhex(GENESIS.digest)
    for signatures in (((2, SIGNED[1]), (1, SIGNED[1])), ((77, SIGNED[1]),), ((1, b""),)):
        socket.send(framing.encode_approvals(Approved(digest, signatures)))
    pump([node], lambda _: node.counters.dropped["approval_not_valid"] == 3)
    assert lacking(node) == ALL - {0}
    socket.send(framing.encode_approvals(Approved(digest, tuple(SIGNED.items()))))
    pump([node], lambda _: not lacking(node))


def test_approvals_round_trip() -> None:
    approved = Approved(bytes(32), tuple(SIGNED.items()))
    assert framing.decode_control(memoryview(framing.encode_approvals(approved)), 1 << 20) == approved


@pytest.mark.parametrize("content", [b"", b"\x90", b"\x92\xc4\x00", b"\xff", b"\x92\xc4\x00\x91\x01"])
def test_malformed_approvals_are_a_wire_error(content: bytes) -> None:
    with pytest.raises(WireError):
        framing.decode_control(memoryview(bytes((framing.APPROVALS,)) + content), 1 << 20)


def test_approvals_of_the_largest_roster_fit_into_a_control_message() -> None:
    many = Approved(bytes(32), tuple((peer, bytes(64)) for peer in range(256)))
    assert len(framing.encode_approvals(many)) < framing.Limits.for_run(256, 1).control_bytes
