"""An identity: made once, its secrets its own, for one run."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest

from btard.node.config import Endpoint
from btard.node.errors import BackendError, ConfigError
from btard.node.genesis import files, identity
from btard.node.genesis.approval import APPROVALS, Approval
from btard.node.genesis.genesis import Genesis, assemble
from btard.node.genesis.identity import Identity
from tests.ceremony import PEERS, RUN, address, path_of


def owners(where: Path) -> list[Identity]:
    """Four owners who have proposed themselves."""
    found = []
    for number in range(PEERS):
        identity.create(path_of(where, number))
        found.append(Identity.load(path_of(where, number)))
        found[-1].propose(address(number))
    return found


def genesis_of(found: list[Identity], name: str | None = None) -> Genesis:
    proposals = {str(owner.directory): owner.proposal for owner in found}
    return assemble(RUN, {file: proposal for file, proposal in proposals.items() if proposal is not None}, name)


def saved(where: Path, approval: Approval, name: str) -> Path:
    path = where / name
    path.write_bytes(msgspec.json.encode(approval))
    return path


def test_keys_are_made_once_and_are_their_owners(tmp_path: Path) -> None:
    where = tmp_path / "new" / "peer"
    member = identity.create(where)
    secrets = (where / identity.SECRETS).read_bytes()
    assert stat.S_IMODE((where / identity.SECRETS).stat().st_mode) == 0o600
    assert stat.S_IMODE(where.stat().st_mode) == 0o700
    assert Identity.load(where).public == member
    with pytest.raises(ConfigError, match="peer holds an identity; use another directory"):
        identity.create(where)
    assert (where / identity.SECRETS).read_bytes() == secrets
    assert member != identity.create(tmp_path / "other")


def test_a_link_to_an_identity_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / identity.SECRETS).symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="holds an identity"):
        identity.create(tmp_path)


def test_where_no_directory_can_be_it_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match=r"^cannot make .*file/peer: "):
        identity.create(tmp_path / "file" / "peer")


def test_a_directory_without_an_identity_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"holds no identity; `btard-node init .*` makes one$"):
        Identity.load(tmp_path)


def test_a_members_worker_is_told_all_that_the_genesis_says(tmp_path: Path) -> None:
    found = owners(tmp_path)
    genesis = genesis_of(found)
    for owner in found:
        peer = owner.place(genesis, "g")
        config = owner.config(genesis, peer, Endpoint("tcp://*:1", "tcp://*:2"), tmp_path / "data")
        assert genesis.members[peer].signing_key == owner.public.signing_key
        assert config.addresses[str(peer)] == genesis.proposals[peer].address
        assert (config.node, config.run_id, config.members) == (peer, genesis.run_id, genesis.members)
        assert config.checkpoints and config.approvals == str(owner.directory / APPROVALS)


def test_an_identity_approves_one_run_alone(tmp_path: Path) -> None:
    owner, *others = found = owners(tmp_path)
    genesis = genesis_of(found)
    approval = owner.approve(genesis, "g")
    assert owner.approved == genesis
    assert owner.approve(genesis, "g") == approval
    with pytest.raises(ConfigError, match=rf"has approved run {genesis.run_id} .* and h is another"):
        owner.approve(genesis_of(found, "again"), "h")
    others[0].propose(Endpoint("tcp://moved:1", "tcp://moved:2"))
    assert owner.approve(genesis_of(found), "moved") == approval, "addresses are not what is approved"


def test_a_genesis_without_oneself_is_not_approved(tmp_path: Path) -> None:
    identity.create(tmp_path / "stranger")
    genesis = genesis_of(owners(tmp_path))
    with pytest.raises(ConfigError, match=r"^g does not name the identity in .*stranger"):
        Identity.load(tmp_path / "stranger").approve(genesis, "g")


def test_a_genesis_with_another_transport_key_of_ours_is_not_approved(tmp_path: Path) -> None:
    owner, *_ = found = owners(tmp_path)
    genesis = genesis_of(found)
    peer = owner.place(genesis, "g")
    members = list(genesis.members)
    members[peer] = msgspec.structs.replace(members[peer], transport_key=members[peer - 1].transport_key)
    with pytest.raises(ConfigError, match=rf"^g names peer {peer} with another transport key"):
        owner.approve(msgspec.structs.replace(genesis, members=tuple(members)), "g")


def test_a_launchers_genesis_is_not_approved(tmp_path: Path) -> None:
    found = owners(tmp_path)
    with pytest.raises(ConfigError, match=r"^g says of no peer where it is"):
        found[0].approve(msgspec.structs.replace(genesis_of(found), addresses=()), "g")


def test_approvals_are_gathered(tmp_path: Path) -> None:
    owner, *others = found = owners(tmp_path)
    genesis = genesis_of(found)
    me = owner.place(genesis, "g")
    with pytest.raises(ConfigError, match="has not approved the genesis; `btard-node approve"):
        owner.gather(genesis, ())
    owner.approve(genesis, "g")
    assert owner.gather(genesis, ()) == frozenset(range(PEERS)) - {me}
    given = [saved(tmp_path, each.approve(genesis, "g"), f"{number}.approval") for number, each in enumerate(others)]
    last = others[-1].place(genesis, "g")
    assert owner.gather(genesis, tuple(given[:-1])) == {last}
    assert owner.gather(genesis, ()) == {last}, "they are kept"
    assert owner.gather(genesis, tuple(given)) == frozenset()
    with pytest.raises(ConfigError, match=r"none.approval does not exist"):
        owner.gather(genesis, (tmp_path / "none.approval",))


def test_approvals_of_another_run_are_not_gathered(tmp_path: Path) -> None:
    owner, other, *_ = found = owners(tmp_path)
    owner.approve(genesis_of(found), "g")
    foreign = saved(tmp_path, other.approve(genesis_of(found, "again"), "h"), "foreign.approval")
    with pytest.raises(ConfigError, match=r"foreign.approval approves genesis .* each run has approvals of its own"):
        owner.gather(genesis_of(found), (foreign,))


def test_files_are_small_and_regular(tmp_path: Path) -> None:
    path = tmp_path / "file"
    assert files.read(path, 10) is None
    path.write_bytes(b"01234567890")
    with pytest.raises(ConfigError, match=r"file: its 11 bytes are more than the 10"):
        files.read(path, 10)
    assert files.read(path, 11) == b"01234567890"
    with pytest.raises(ConfigError, match="no regular file"):
        files.read(tmp_path, 10)
    with pytest.raises(BackendError, match=r"^cannot write .*; check who owns its directory"):
        files.write(path / "below", {})
