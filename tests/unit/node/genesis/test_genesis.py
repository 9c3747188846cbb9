"""A genesis: the same whoever assembles it, and no field of it can be changed unnoticed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from btard.node.config import WIRE_VERSION, Endpoint, Member, RunConfig
from btard.node.crypto import keys
from btard.node.errors import ConfigError
from btard.node.genesis.approval import Approvals
from btard.node.genesis.genesis import (
    GENESIS_FORMAT,
    Genesis,
    assemble,
    configuration,
    decode_genesis,
    genesis_digest,
    genesis_roster,
)
from btard.node.genesis.proposal import propose
from tests.ceremony import PEERS, RUN, ceremony

MADE = ceremony()
PLAIN: dict[str, Any] = msgspec.to_builtins(MADE.genesis)
Place = tuple[str | int, ...]


def leaves(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Every value in JSON with its place; of configurations of plug-ins, their empty parameters too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    inside = [leaf for key, item in items for leaf in leaves(item, (*place, key))]
    yield from inside or [(place, value)]


LEAVES = {"/".join(map(str, place)): (place, value) for place, value in leaves(PLAIN)}


def other(value: Any) -> Any:
    """A value near another one, and of its kind where that has others."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value[:-1]}{'0' if value[-1:] != '0' else '1'}"
        case None:
            return 0.5
        case dict():
            return {"another": 1}
    return ["another"]


def changed(place: Place, value: Any) -> bytes:
    """The genesis with another value at a place."""
    plain = msgspec.json.decode(msgspec.json.encode(PLAIN))
    at = plain
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = value
    return msgspec.json.encode(plain)


def noticed(data: bytes, where: Path) -> bool:
    """True if a member, who has everybody's approval of the true genesis, will not run this one."""
    try:
        genesis = decode_genesis(data, "changed")
    except ConfigError as error:
        assert str(error).startswith(("changed", "--", "init ", "--arithmetic"))
        return True
    known = Approvals(genesis.run_id, genesis.run, genesis.members, where / "approvals.json")
    for approval in MADE.approvals():
        with pytest.raises(ConfigError, match=r"^mine approves genesis [0-9a-f]{16}, this one is"):
            known.add(approval, "mine")
    return known.missing == frozenset(range(PEERS))


def test_all_fields_are_tried() -> None:
    assert {place[0] for place, _ in LEAVES.values()} == set(Genesis.__struct_fields__)
    assert {place[1] for place, _ in LEAVES.values() if place[0] == "run"} == set(RunConfig.__struct_fields__)


@pytest.mark.parametrize("name", LEAVES)
def test_a_changed_field_is_noticed(name: str, tmp_path: Path) -> None:
    place, value = LEAVES[name]
    assert noticed(changed(place, other(value)), tmp_path)


@pytest.mark.parametrize("name", ["run", "run_id", "members", "wire_version", "format"])
def test_a_missing_field_is_noticed(name: str) -> None:
    with pytest.raises(ConfigError, match=r"^changed is damaged"):
        decode_genesis(msgspec.json.encode({key: value for key, value in PLAIN.items() if key != name}), "changed")


@pytest.mark.parametrize(("wire", "maker"), [(6, "btard 0.1.0"), (5, "the release that made it")])
def test_one_of_another_release_is_refused_with_the_release_that_reads_it(wire: int, maker: str) -> None:
    with pytest.raises(ConfigError, match=rf"was written by wire version {wire}, this program .*; use {maker}$"):
        decode_genesis(msgspec.json.encode({**PLAIN, "wire_version": wire}), "genesis.json")


def test_an_added_field_is_noticed() -> None:
    with pytest.raises(ConfigError, match=r"^changed is damaged: .*unknown field"):
        decode_genesis(msgspec.json.encode({**PLAIN, "more": 1}), "changed")


def test_an_unchanged_one_is_not(tmp_path: Path) -> None:
    genesis = decode_genesis(msgspec.json.encode(PLAIN), "genesis.json")
    known = Approvals(genesis.run_id, genesis.run, genesis.members, tmp_path / "approvals.json")
    for approval in MADE.approvals():
        known.add(approval, "mine")
    assert genesis == MADE.genesis
    assert not known.missing


def test_it_is_the_same_in_any_order_and_its_members_are_sorted_by_key() -> None:
    names = list(MADE.proposals)
    for seed in range(5):
        random.Random(seed).shuffle(names)
        assert assemble(RUN, {name: MADE.proposals[name] for name in names}) == MADE.genesis
    signing = [member.signing_key for member in MADE.genesis.members]
    assert signing == sorted(signing)
    assert MADE.genesis.proposals == tuple(sorted(MADE.proposals.values(), key=lambda each: each.signing_key))


def test_its_name_follows_from_its_contents_unless_it_has_one() -> None:
    assert MADE.genesis.run_id != ceremony(run=msgspec.structs.replace(RUN, steps=4)).genesis.run_id
    assert MADE.genesis.run_id != ceremony(seed=1).genesis.run_id
    assert ceremony(name="six-people").genesis.run_id == "six-people"


@pytest.mark.parametrize("name", ["", "two words", "x" * 65, "a/b"])
def test_a_name_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"--name .* must be up to 64 letters"):
        ceremony(name=name)


@pytest.mark.parametrize("count", [PEERS - 1, PEERS + 1])
def test_another_number_of_proposals_is_refused(count: int) -> None:
    many = ceremony(run=msgspec.structs.replace(RUN, peers=PEERS + 1)).proposals
    with pytest.raises(ConfigError, match=rf"^{count} proposals for a run of {PEERS} peers; .* set peers = {count}"):
        assemble(RUN, dict(list(many.items())[:count]))


def test_two_proposals_with_one_key_are_refused_by_their_names() -> None:
    again = propose(MADE.secrets[0], Endpoint("tcp://elsewhere:1", "tcp://elsewhere:2"))
    first = next(name for name, each in MADE.proposals.items() if each.signing_key == again.signing_key)
    replaced = next(name for name in MADE.proposals if name != first)
    with pytest.raises(ConfigError, match=r"^\d.proposal and \d.proposal propose one key") as caught:
        assemble(RUN, {**MADE.proposals, replaced: again})
    assert first in str(caught.value) and replaced in str(caught.value)


def test_a_stolen_transport_key_is_refused() -> None:
    stolen = msgspec.structs.replace(MADE.secrets[1], transport_secret=MADE.secrets[0].transport_secret)
    theirs = keys.public_identity(0, MADE.secrets[1]).signing_key
    replaced = next(name for name, each in MADE.proposals.items() if each.signing_key == theirs)
    with pytest.raises(ConfigError, match="propose one key"):
        assemble(RUN, {**MADE.proposals, replaced: propose(stolen, Endpoint("tcp://h:1", "tcp://h:2"))})


def test_an_address_of_another_member_is_noticed() -> None:
    first, second, *rest = MADE.genesis.addresses
    swapped = msgspec.structs.replace(MADE.genesis, addresses=(second, first, *rest))
    with pytest.raises(ConfigError, match=r"^g: peer 0: its signature is not valid"):
        decode_genesis(msgspec.json.encode(swapped), "g")
    short = msgspec.structs.replace(MADE.genesis, addresses=(first, second))
    with pytest.raises(ConfigError, match=r"^g has 2 addresses for 4 members"):
        decode_genesis(msgspec.json.encode(short), "g")


def test_members_are_different() -> None:
    twice = msgspec.structs.replace(
        MADE.genesis,
        members=(*MADE.genesis.members[:3], msgspec.structs.replace(MADE.genesis.members[0], id=3)),
        addresses=(),
    )
    with pytest.raises(ConfigError, match=r"^g is damaged: two members have one signing key"):
        decode_genesis(msgspec.json.encode(twice), "g")


def test_a_launchers_genesis_has_no_addresses_and_is_as_it_always_was() -> None:
    members = keys.generate(0, 2)[0]
    run = RunConfig(peers=2)
    made = Genesis(GENESIS_FORMAT, WIRE_VERSION, "run", run, members)
    assert list(msgspec.to_builtins(made)) == ["format", "wire_version", "run_id", "run", "members"]
    assert decode_genesis(msgspec.json.encode(made), "g") == made
    assert made.proposals == ()
    assert made.digest == genesis_digest("run", run, members).hex()


def test_the_configuration_leaves_out_what_came_later() -> None:
    assert b"optimiser" not in configuration(RUN)
    assert b'"steps":3' in configuration(RUN)


def test_the_roster_is_all_members() -> None:
    members = (Member(0, "aa" * 32, ""), Member(1, "bb" * 32, ""))
    assert genesis_roster(members).keys == (b"\xaa" * 32, b"\xbb" * 32)
