"""Names of tensors: each has one, and what a neighbour sends in the place of one is refused."""

from __future__ import annotations

import msgspec
import pytest

from btard.node.errors import WireError
from btard.node.protocol.wire.bulk import BulkKey, BulkKind
from btard.node.protocol.wire.encoding import decode_key, encode

KEY = BulkKey(7, 1, BulkKind.PART, 3, 2)
PUT = msgspec.structs.replace


@pytest.mark.parametrize("kind", BulkKind)
def test_a_name_survives_its_bytes(kind: BulkKind) -> None:
    key = PUT(KEY, kind=kind, step=2**40)
    assert decode_key(encode(key)) == key
    assert hash(decode_key(encode(key))) == hash(key), "it is looked up in sets and dictionaries"


def test_every_field_belongs_to_the_name() -> None:
    others = [PUT(KEY, step=8), PUT(KEY, attempt=0), PUT(KEY, owner=2), PUT(KEY, part=3)]
    others += [PUT(KEY, kind=kind) for kind in BulkKind if kind is not BulkKind.PART]
    assert len({KEY, *others}) == len({encode(key) for key in (KEY, *others)}) == 1 + len(others) == 8


ODD: dict[str, object] = {
    "nothing": [],
    "one field fewer": [7, 1, "part", 3],
    "one field more": [7, 1, "part", 3, 2, 0],
    "an unknown kind": [7, 1, "gradient", 3, 2],
    "a kind in capitals": [7, 1, "PART", 3, 2],
    "no kind": [7, 1, None, 3, 2],
    "a fraction": [7, 1, "part", 3, 2.5],
    "a step in words": ["7", 1, "part", 3, 2],
    "a truth": [True, 1, "part", 3, 2],
    "a map": {"step": 7, "attempt": 1, "kind": "part", "owner": 3, "part": 2},
}


@pytest.mark.parametrize("fields", ODD.values(), ids=ODD)
def test_what_is_no_name_is_refused(fields: object) -> None:
    with pytest.raises(WireError, match="not a tensor's name"):
        decode_key(msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("data", [b"", b"\xc1", encode(KEY)[:-1], encode(KEY) + b"\x00"], ids=repr)
def test_rubbish_is_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        decode_key(data)


def test_a_number_that_no_step_has_is_a_name_that_nobody_knows() -> None:
    """Negative or enormous ones are read, not an error: the receiver finds no such tensor."""
    for number in (-1, 2**63, 2**64 - 1, -(2**63)):
        key = PUT(KEY, step=number, part=number)
        assert decode_key(encode(key)) == key
