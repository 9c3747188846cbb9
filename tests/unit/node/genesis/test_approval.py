"""Approvals: of one genesis, of each member once, and all of them or no step."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from btard.node.errors import ConfigError
from btard.node.genesis.approval import APPROVAL_BYTES, Approvals, approve, decode_approval
from tests.ceremony import PEERS, ceremony

MADE, OTHER = ceremony(), ceremony(seed=1)
APPROVALS = MADE.approvals()


def known(where: Path) -> Approvals:
    genesis = MADE.genesis
    return Approvals(genesis.run_id, genesis.run, genesis.members, where / "approvals.json")


def test_all_have_to_approve(tmp_path: Path) -> None:
    here = known(tmp_path)
    for peer, approval in enumerate(APPROVALS):
        assert here.missing == frozenset(range(peer, PEERS))
        here.add(approval, "file")
    assert not here.missing


def test_an_approval_is_small_and_read_back() -> None:
    data = msgspec.json.format(msgspec.json.encode(APPROVALS[0]), indent=2)
    assert decode_approval(data, "mine") == APPROVALS[0]
    assert len(data) < APPROVAL_BYTES <= 1024


@pytest.mark.parametrize("peer", range(PEERS))
def test_a_changed_signature_is_named(peer: int, tmp_path: Path) -> None:
    signature = APPROVALS[peer].signature
    for place in range(0, len(signature), 16):
        nibble = "0" if signature[place] != "0" else "1"
        forged = msgspec.structs.replace(APPROVALS[peer], signature=signature[:place] + nibble + signature[place + 1 :])
        with pytest.raises(ConfigError, match=rf"^theirs: the signature of peer {peer} is not valid"):
            known(tmp_path).add(forged, "theirs")


def test_nobody_approves_for_another(tmp_path: Path) -> None:
    forged = msgspec.structs.replace(APPROVALS[1], signing_key=APPROVALS[0].signing_key)
    with pytest.raises(ConfigError, match="the signature of peer 0 is not valid"):
        known(tmp_path).add(forged, "theirs")
    with pytest.raises(ConfigError, match="the signature of peer 0 is not valid"):
        known(tmp_path).add(msgspec.structs.replace(APPROVALS[0], signature="no hex"), "theirs")


def test_an_approval_of_another_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"^theirs approves genesis {OTHER.genesis.digest[:16]}, this one is"):
        known(tmp_path).add(OTHER.approvals()[0], "theirs")
    stranger = msgspec.structs.replace(OTHER.approvals()[0], genesis=MADE.genesis.digest)
    with pytest.raises(ConfigError, match=r"^theirs is of no member of the run"):
        known(tmp_path).add(stranger, "theirs")


def test_a_member_of_two_runs_approves_each_by_itself(tmp_path: Path) -> None:
    named = ceremony(name="again").genesis
    with pytest.raises(ConfigError, match="each run has approvals of its own"):
        known(tmp_path).add(approve(named, MADE.secrets[0]), "theirs")


@pytest.mark.parametrize("peer", [-1, PEERS, 2**40])
def test_a_signature_of_nobody_counts_for_nobody(peer: int, tmp_path: Path) -> None:
    here = known(tmp_path)
    assert here.take(peer, bytes.fromhex(APPROVALS[0].signature)) is None
    assert here.missing == frozenset(range(PEERS))


def test_what_was_kept_is_read_and_checked_again(tmp_path: Path) -> None:
    here = known(tmp_path)
    for approval in APPROVALS[:3]:
        here.add(approval, "file")
    assert here.take(0, bytes.fromhex(APPROVALS[0].signature)) is False
    here.keep()
    assert known(tmp_path).missing == {3}
    path = tmp_path / "approvals.json"
    data = path.read_bytes()
    path.write_bytes(data.replace(APPROVALS[2].signature.encode(), APPROVALS[1].signature.encode()))
    with pytest.raises(ConfigError, match=r"approvals.json: the signature of peer 2 is not valid"):
        known(tmp_path)
    path.write_bytes(data[:-10])
    with pytest.raises(ConfigError, match=r"approvals.json holds no approvals \(.*; remove it"):
        known(tmp_path)


@pytest.mark.parametrize("data", [b"{", b"[]", b" " * (APPROVAL_BYTES + 1), b'{"genesis": 1}'])
def test_other_files_are_no_approvals(data: bytes) -> None:
    with pytest.raises(ConfigError, match=r"^notes is no approval"):
        decode_approval(data, "notes")
