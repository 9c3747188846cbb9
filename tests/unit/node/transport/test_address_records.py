"""Address records: signed, numbered, of one run; what is not so is refused, and nobody is kept but the roster."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from btard.node.config import Endpoint
from btard.node.crypto.signing import Signer
from btard.node.errors import WireError
from btard.node.transport import framing
from btard.node.transport.address_records import AddressBook, signing_bytes
from btard.node.transport.arrivals import RefusedError
from btard.node.transport.framing import AddressRecord

RUN = bytes(range(32))
SEEDS = [bytes([me]) * 32 for me in range(3)]
KEYS = {me: Signer(seed).public for me, seed in enumerate(SEEDS)}
HERE = Endpoint("tcp://node-1:7400", "tcp://[::1]:7401")


def book(me: int, run: bytes = RUN) -> AddressBook:
    return AddressBook(me, SEEDS[me], {peer: key for peer, key in KEYS.items() if peer != me}, run)


def record(peer: int, counter: int, endpoint: Endpoint = HERE, run: bytes = RUN) -> AddressRecord:
    """As the peer itself makes it."""
    own = book(peer, run)
    own.announce(counter, endpoint)
    (made,) = own.for_peer((peer + 1) % 3)
    return made


def test_the_newest_record_counts_and_is_shown_to_all_but_its_peer() -> None:
    own = book(0)
    own.announce(4, HERE)
    assert own.learn(1, record(1, 1))
    assert own.learn(2, record(1, 3, Endpoint("tcp://b:1", "tcp://b:2")))
    assert own.endpoint(1) == Endpoint("tcp://b:1", "tcp://b:2")
    assert own.endpoint(2) is None
    assert [(each.peer, each.counter) for each in own.for_peer(2)] == [(0, 4), (1, 3)]
    assert [(each.peer, each.counter) for each in own.for_peer(1)] == [(0, 4)]


def test_who_has_not_moved_has_no_record() -> None:
    own = book(0)
    own.announce(0, HERE)
    assert own.for_peer(1) == []


def test_the_same_again_and_older_ones_of_others_are_no_news() -> None:
    own = book(0)
    assert own.learn(1, record(1, 2))
    assert not own.learn(1, record(1, 2))
    assert not own.learn(2, record(1, 2))
    assert not own.learn(2, record(1, 1)), "peer 2 has not heard the newer one yet"
    assert own.endpoint(1) == HERE


CHANGED: dict[str, tuple[str, Any]] = {
    "run": ("address_of_another_run", bytes(32)),
    "peer": ("address_forged", 2),
    "counter": ("address_forged", 8),
    "control": ("address_forged", "tcp://node-1:7402"),
    "bulk": ("address_forged", "tcp://[::2]:7401"),
    "signature": ("address_forged", bytes(64)),
}


def test_every_field_is_tried() -> None:
    assert tuple(CHANGED) == AddressRecord.__struct_fields__


@pytest.mark.parametrize("field", CHANGED)
def test_a_record_with_a_field_changed_is_refused(field: str) -> None:
    reason, value = CHANGED[field]
    own = book(0)
    with pytest.raises(RefusedError, match=rf"^{reason}$"):
        own.learn(1, msgspec.structs.replace(record(1, 7), **{field: value}))
    assert own.endpoint(1) is own.endpoint(2) is None


@pytest.mark.parametrize(
    "endpoint", ["tcp://node-1:0", "nowhere", "ipc:///tmp/a", "tcp://a:1;b:2", "tcp://" + "a" * 300]
)
@pytest.mark.parametrize("field", ["control", "bulk"])
def test_what_cannot_be_dialled_is_refused_though_it_is_signed(field: str, endpoint: str) -> None:
    with pytest.raises(RefusedError, match=r"^address_malformed$"):
        book(0).learn(1, record(1, 1, msgspec.structs.replace(HERE, **{field: endpoint})))


def test_an_address_may_be_one_endpoint_but_not_none_nor_the_same_twice() -> None:
    own = book(0)
    assert own.learn(1, record(1, 1, Endpoint("tcp://node-1:7400")))
    assert own.endpoint(1) == Endpoint("tcp://node-1:7400")
    for number, endpoint in enumerate((Endpoint(""), Endpoint("tcp://a:1", "tcp://a:1")), 2):
        with pytest.raises(RefusedError, match=r"^address_malformed$") as refused:
            own.learn(1, record(1, number, endpoint))
        problem = refused.value.problem or ""
        assert problem.startswith(f"peer 1 shows an address record of peer 1 with {endpoint.control!r}"), problem
        assert "\n" not in problem
    assert own.endpoint(1) == Endpoint("tcp://node-1:7400")


def test_a_record_of_another_run_or_of_nobody_in_the_roster_is_refused() -> None:
    with pytest.raises(RefusedError, match=r"^address_of_another_run$"):
        book(0).learn(1, record(1, 1, run=b"yesterday"))
    with pytest.raises(RefusedError, match=r"^address_of_a_stranger$"):
        book(0).learn(1, msgspec.structs.replace(record(1, 1), peer=3))


@pytest.mark.parametrize("endpoint", [HERE, Endpoint("tcp://b:1", "tcp://b:2")], ids=["there", "elsewhere"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_peer_that_shows_an_older_record_of_its_own_is_named(number: int, endpoint: Endpoint) -> None:
    """As is one that uses a number for two addresses."""
    own, known = book(0), record(1, 2, Endpoint("tcp://c:1", "tcp://c:2"))
    own.learn(2, known)
    with pytest.raises(RefusedError, match=r"^address_older$") as refused:
        own.learn(1, record(1, number, endpoint))
    assert (refused.value.problem or "").startswith(f"peer 1 shows address record {number} and record 2 is known: ")
    assert own.endpoint(1) == Endpoint(known.control, known.bulk)


def test_a_peer_whose_directory_is_an_older_copy_is_told_by_the_others() -> None:
    own = book(0)
    own.announce(1, Endpoint("tcp://a:1", "tcp://a:2"))
    with pytest.raises(RefusedError, match=r"^address_of_ours_is_older$") as refused:
        own.learn(1, record(0, 2))
    assert (refused.value.problem or "").startswith("the others know address record 2 of peer 0")
    assert own.for_peer(1)[0].counter == 1, "our own word is our own"


# --- frames ---------------------------------------------------------------------------------------------------


def test_a_record_travels_in_one_frame() -> None:
    longest = Endpoint("tcp://" + "a" * 253 + ":65535", "tcp://" + "b" * 253 + ":65535")
    made = record(2, 2**31 - 1, longest)
    frame = framing.encode_address(made)
    assert len(frame) <= framing.ADDRESS_LIMIT_BYTES
    assert framing.decode_control(memoryview(frame), 1 << 20) == made
    assert book(0).learn(1, made)


FIELDS = [RUN, 1, 1, HERE.control, HERE.bulk, bytes(64)]
BAD = {
    "a field less": FIELDS[:5],
    "a field more": [*FIELDS, 1],
    "three endpoints": [*FIELDS[:5], "tcp://[::1]:7402", FIELDS[5]],
    "a negative peer": [RUN, -1, *FIELDS[2:]],
    "a huge peer": [RUN, 2**40, *FIELDS[2:]],
    "number 0": [RUN, 1, 0, *FIELDS[3:]],
    "a huge number": [RUN, 1, 2**31, *FIELDS[3:]],
    "a number of text": [RUN, 1, "1", *FIELDS[3:]],
    "an endpoint of bytes": [RUN, 1, 1, b"a", *FIELDS[4:]],
    "too long": [RUN, 1, 1, "a" * 1000, *FIELDS[4:]],
    "a map": {"run": RUN},
}


@pytest.mark.parametrize("content", BAD.values(), ids=BAD)
def test_malformed_records_are_wire_errors(content: object) -> None:
    with pytest.raises(WireError, match="address record"):
        framing.decode_control(memoryview(b"\x04" + msgspec.msgpack.encode(content)), 1 << 20)


@given(st.binary(max_size=200))
def test_any_bytes_as_a_record_give_one_or_a_wire_error(tail: bytes) -> None:
    try:
        content = framing.decode_control(memoryview(b"\x04" + tail), 1000)
    except WireError:
        return
    assert isinstance(content, AddressRecord)


def test_a_signature_covers_where_one_field_ends_and_the_next_begins() -> None:
    one, other = (msgspec.structs.replace(record(1, 1), control=c, bulk=b) for c, b in (("ab", "c"), ("a", "bc")))
    assert signing_bytes(one) != signing_bytes(other)
