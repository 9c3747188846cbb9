"""Hashes under a domain, whose fields cannot run into each other."""

from __future__ import annotations

import pytest
import torch

from btard.node.protocol.wire.digest import DIGEST_BYTES, digest, expand, number, tensor_bytes, tensor_digest

FIELDS = [
    ("the same", ("a", b"bc", b"d"), ("a", b"bc", b"d"), True),
    ("another domain", ("a", b"b"), ("c", b"b"), False),
    ("a border moved", ("a", b"bc", b"d"), ("a", b"b", b"cd"), False),
    ("joined fields", ("a", b"b", b"c"), ("a", b"bc"), False),
    ("an empty field", ("a", b"b"), ("a", b"b", b""), False),
    ("domain and field exchanged", ("ab", b"c"), ("a", b"bc"), False),
]


@pytest.mark.parametrize(("first", "second", "equal"), [row[1:] for row in FIELDS], ids=[row[0] for row in FIELDS])
def test_fields_are_kept_apart(first: tuple[str, bytes], second: tuple[str, bytes], equal: bool) -> None:
    assert (digest(*first) == digest(*second)) is equal
    assert len(digest(*first)) == DIGEST_BYTES


def test_a_shorter_expansion_is_a_prefix_of_a_longer_one() -> None:
    assert expand("z", b"seed", 100)[:37] == expand("z", b"seed", 37)
    assert expand("z", b"seed", 32) != expand("y", b"seed", 32)


def test_a_tensor_is_bound_to_its_name_shape_and_every_bit() -> None:
    values_P = torch.tensor([1.0, 2.0, 3.0, 4.0])
    base = tensor_digest("part", (number(1),), values_P)
    assert base == tensor_digest("part", (number(1),), values_P.clone())
    assert base != tensor_digest("part", (number(2),), values_P)
    assert base != tensor_digest("aggregate", (number(1),), values_P)
    assert base != tensor_digest("part", (number(1),), values_P[:3])
    assert base != tensor_digest("part", (number(1),), values_P.reshape(2, 2))
    changed_P = values_P.clone()
    changed_P[3] = torch.nextafter(changed_P[3], torch.tensor(9.0))
    assert base != tensor_digest("part", (number(1),), changed_P)


def test_a_tensors_bytes_are_little_endian_and_not_copied() -> None:
    values_P = torch.tensor([1.0, -2.0])
    view = tensor_bytes(values_P)
    assert view.tobytes() == b"\x00\x00\x80\x3f\x00\x00\x00\xc0"
    values_P[0] = 0.0
    assert view.tobytes()[:4] == bytes(4)
    assert tensor_bytes(torch.empty(0)).nbytes == 0


def test_numbers_have_eight_bytes() -> None:
    assert number(-1) == b"\xff" * 8
    assert number(258) == b"\x02\x01" + bytes(6)
