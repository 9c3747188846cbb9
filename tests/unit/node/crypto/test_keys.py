"""Keys of a roster: repeatable from a seed, independent of each other, unreadable by others."""

from __future__ import annotations

import stat
from pathlib import Path

import msgspec
import pytest
import zmq
from zmq.utils import z85

from btard.node.config import Secrets
from btard.node.crypto import keys
from btard.node.crypto.signing import Signer
from btard.node.errors import BackendError, ConfigError


def test_the_same_seed_gives_the_same_keys() -> None:
    assert keys.generate(7, 4) == keys.generate(7, 4)
    assert keys.generate(7, 4)[1][:2] == keys.generate(7, 2)[1]
    assert keys.generate(-1, 1) != keys.generate(1, 1)


def test_without_a_seed_all_keys_are_new() -> None:
    one, other = (set(msgspec.structs.astuple(keys.fresh())) for _ in range(2))
    assert len(one | other) == 6


def test_no_two_secrets_are_alike() -> None:
    _, secrets = keys.generate(0, 20)
    raw = [bytes.fromhex(s.signing_seed) for s in secrets]
    raw += [bytes.fromhex(s.randomness_seed) for s in secrets]
    raw += [z85.decode(s.transport_secret.encode()) for s in secrets]
    assert len(set(raw)) == 60
    assert {len(secret) for secret in raw} == {32}


def test_members_show_the_public_halves() -> None:
    members, secrets = keys.generate(3, 3)
    for peer, (member, secret) in enumerate(zip(members, secrets, strict=True)):
        assert member.id == peer
        assert member.signing_key == Signer(bytes.fromhex(secret.signing_seed)).public.hex()
        assert member.transport_key.encode() == zmq.curve_public(secret.transport_secret.encode())


def test_a_file_holds_them_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "secrets.json"
    secret = keys.fresh()
    keys.write(path, secret)
    keys.write(path, secret)  # written anew, it replaces the old one
    assert keys.load(path) == secret
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_directory_that_is_not_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "gone" / "secrets.json"
    with pytest.raises(BackendError, match=f"cannot write the key file {path}: No such file"):
        keys.write(path, keys.generate(0, 1)[1][0])


GOOD = keys.generate(0, 1)[1][0]
BAD_FILES = {
    "not JSON": (b"\x00\x01", "is not a key file"),
    "a key missing": (b'{"signing_seed": "00"}', "is not a key file"),
    "not hex": (msgspec.json.encode(msgspec.structs.replace(GOOD, signing_seed="zz" * 32)), "is not a key file"),
    "not Z85": (msgspec.json.encode(msgspec.structs.replace(GOOD, transport_secret="~" * 40)), "is not a key file"),
    "too short": (msgspec.json.encode(msgspec.structs.replace(GOOD, randomness_seed="00")), r"keys of \(32, 32, 1\)"),
    "unknown key": (msgspec.json.encode({**msgspec.to_builtins(GOOD), "extra": 1}), "is not a key file"),
}


@pytest.mark.parametrize(("content", "problem"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "secrets.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem) as error:
        keys.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the key file"):
        keys.load(tmp_path / "none.json")


def test_a_seed_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not fit into 128 bits"):
        keys.generate(2**127, 1)


def test_secrets_have_the_fields_that_the_configuration_declares() -> None:
    assert set(Secrets.__struct_fields__) == {"signing_seed", "transport_secret", "randomness_seed"}
