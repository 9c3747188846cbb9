"""Signatures: RFC 8032's vectors and everything a strict verifier must refuse."""

from __future__ import annotations

import pytest

from btard.node.crypto import signing
from btard.node.crypto.signing import Signer, verify
from btard.node.errors import LocalProtocolError

# RFC 8032, section 7.1, TEST 1 to 3: seed, public key, message, signature.
RFC_8032 = {
    "test 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
        "d25bf5f0595bbe24655141438e7a100b",
    ),
    "test 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c"
        "387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "test 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc659"
        "4a7c15e9716ed28dc027beceea1ec40a",
    ),
}
ORDER = 2**252 + 27742317777372353535851937790883648493
SIGNER = Signer(bytes(32))
MESSAGE = b"the aggregate of part 3"
SIGNATURE = SIGNER.sign(MESSAGE)
SMALL_ORDER = {
    "zero": bytes(32),
    "one": b"\x01" + bytes(31),
    "order 8": bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
}


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC_8032.values(), ids=RFC_8032)
def test_rfc_8032_vectors(seed: str, public: str, message: str, signature: str) -> None:
    signer = Signer(bytes.fromhex(seed))
    assert signer.public.hex() == public
    assert signer.sign(bytes.fromhex(message)).hex() == signature
    assert verify(signer.public, bytes.fromhex(message), bytes.fromhex(signature))


def malleable(signature: bytes) -> bytes:
    """The other S that satisfies the equation: a lax verifier would see a second signature."""
    scalar = int.from_bytes(signature[32:], "little") + ORDER
    return signature[:32] + scalar.to_bytes(32, "little")


REFUSED = {
    "other message": (SIGNER.public, MESSAGE + b"!", SIGNATURE),
    "other key": (Signer(b"\1" * 32).public, MESSAGE, SIGNATURE),
    "a flipped bit": (SIGNER.public, MESSAGE, bytes([SIGNATURE[0] ^ 1]) + SIGNATURE[1:]),
    "S beyond the order": (SIGNER.public, MESSAGE, malleable(SIGNATURE)),
    "no signature": (SIGNER.public, MESSAGE, b""),
    "a byte short": (SIGNER.public, MESSAGE, SIGNATURE[:-1]),
    "a byte long": (SIGNER.public, MESSAGE, SIGNATURE + b"\0"),
    "short key": (SIGNER.public[:-1], MESSAGE, SIGNATURE),
    "long key": (SIGNER.public + b"\0", MESSAGE, SIGNATURE),
    "a key off the curve": (b"\x02" + bytes(31), MESSAGE, SIGNATURE),
    "all ones": (b"\xff" * 32, MESSAGE, b"\xff" * 64),
}


@pytest.mark.parametrize(("public", "message", "signature"), REFUSED.values(), ids=REFUSED)
def test_refused_without_an_exception(public: bytes, message: bytes, signature: bytes) -> None:
    assert verify(SIGNER.public, MESSAGE, SIGNATURE)
    assert not verify(public, message, signature)


@pytest.mark.parametrize("key", SMALL_ORDER.values(), ids=SMALL_ORDER)
def test_a_key_of_small_order_signs_nothing(key: bytes) -> None:
    # R of small order and S = 0 satisfy the cofactored equation for every message.
    assert not any(verify(key, MESSAGE, point + bytes(32)) for point in SMALL_ORDER.values())


def test_signing_repeats() -> None:
    assert Signer(bytes(32)).sign(MESSAGE) == SIGNATURE


def test_a_seed_of_the_wrong_length_is_our_mistake() -> None:
    with pytest.raises(LocalProtocolError, match="32 bytes, not 31"):
        Signer(bytes(31))


def test_a_signer_judges_as_anybody_does(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own message that comes back too, which costs no computation while it is one of the last."""
    signer, other = Signer(bytes(31) + b"\1"), Signer(bytes(31) + b"\2")
    made = [signer.sign(bytes([number])) for number in range(40)]
    again = [(public, bytes([number]), signature)
             for number, mine in enumerate(made) for public in (signer.public, other.public)
             for signature in (mine, made[0], other.sign(bytes([number])), mine[:-1])]  # fmt: skip
    assert [signer.verify(*each) for each in again] == [verify(*each) for each in again]
    monkeypatch.setattr(signing, "verify", lambda *_: pytest.fail("it was computed"))
    assert signer.verify(signer.public, bytes([39]), made[39])
