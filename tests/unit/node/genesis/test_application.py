"""An application and a founder's word for it, under the keys that they name, and as files."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import msgspec
import pytest
from msgspec.structs import replace

from btard.node.config import Endpoint, RunConfig, Secrets
from btard.node.crypto.keys import fresh, public_identity
from btard.node.crypto.signing import verify
from btard.node.errors import ConfigError
from btard.node.genesis.application import (
    APPLICATION_FILE_BYTES,
    ApplicationFile,
    apply,
    check,
    decode_application,
    is_reachable,
    vouched,
)
from btard.node.genesis.genesis import Genesis, assemble
from btard.node.genesis.proposal import propose
from btard.node.protocol.wire.encoding import application_bytes, encode, sponsorship_bytes
from btard.node.protocol.wire.messages import APPLICATION_BYTES

RUN, ADDRESS = b"r" * 32, Endpoint("tcp://alpha.example:7400", "tcp://alpha.example:7401")
NEW = 4


def test_both_sign_what_they_say_and_nothing_else() -> None:
    candidate, founder = fresh(), fresh()
    keys = public_identity(9, candidate)
    plain = apply(RUN, 9, candidate, ADDRESS)
    application = vouched(RUN, 2, founder, plain)
    assert (application.peer, application.sponsor, application.control) == (9, 2, ADDRESS.control)
    assert application.key.hex() == keys.signing_key and application.transport == keys.transport_key
    assert application_bytes(RUN, application) == application_bytes(RUN, plain), "a founder adds its word later"
    assert verify(application.key, application_bytes(RUN, application), application.signature)
    assert not verify(application.key, application_bytes(b"s" * 32, application), application.signature)
    assert not verify(application.key, application_bytes(RUN, replace(application, peer=8)), application.signature)
    said = sponsorship_bytes(RUN, application.key, application.transport)
    assert verify(bytes.fromhex(public_identity(2, founder).signing_key), said, application.sponsorship)


def test_the_largest_fits() -> None:
    longest = "tcp://" + "x" * 253 + ":65535"
    application = vouched(RUN, 127, fresh(), apply(RUN, 255, fresh(), Endpoint(longest, longest[:-1] + "4")))
    assert len(encode(application)) <= APPLICATION_BYTES
    file = msgspec.json.format(msgspec.json.encode(ApplicationFile.of(RUN.hex(), application)), indent=2)
    assert len(file) <= APPLICATION_FILE_BYTES
    assert decode_application(file, "it").application == application


# --- as a file ----------------------------------------------------------------------------------------------------


@cache
def founders() -> tuple[Secrets, ...]:
    return tuple(sorted((fresh() for _ in range(4)), key=lambda each: public_identity(0, each).signing_key))


def genesis(**options: object) -> Genesis:
    run = RunConfig(**{"peers": 4, "roster": "sponsored", "members": 6, **options})  # type: ignore[arg-type]
    where = [Endpoint(f"tcp://127.0.0.1:{7000 + 2 * peer}", f"tcp://127.0.0.1:{7001 + 2 * peer}") for peer in range(4)]
    proposals = [propose(secret, address) for secret, address in zip(founders(), where, strict=True)]
    return assemble(run, {str(place): each for place, each in enumerate(proposals)})


def file(found: Genesis, secret: Secrets | None = None, founder: int | None = 1, peer: int = NEW) -> ApplicationFile:
    digest = bytes.fromhex(found.digest)
    plain = apply(digest, peer, secret or fresh(), ADDRESS)
    application = plain if founder is None else vouched(digest, founder, founders()[founder], plain)
    return ApplicationFile.of(found.digest, application)


def test_a_sound_one_passes_and_goes_through_its_file() -> None:
    for found, founder in ((genesis(), 1), (genesis(), None), (genesis(roster="open"), None)):
        check(decode_application(msgspec.json.encode(file(found, founder=founder)), "a"), found, "a")


CLOSED = {"roster": "closed", "members": 0}


@pytest.mark.parametrize(
    ("made", "problem"),
    [
        (lambda: (file(genesis()), genesis(**CLOSED)), "is for the run of genesis"),
        (lambda: (file(genesis(steps=7)), genesis()), "apply to this one by `btard-node apply`"),
        (lambda: (file(genesis(), founders()[2]), genesis()), "is a member's or a newcomer's"),
        (lambda: (file(genesis(), peer=3), genesis()), "its id is another's; ask for a free one"),
        (lambda: (file(genesis(), peer=6), genesis()), "its id is another's; ask for a free one"),
        (lambda: (file(genesis(roster="open")), genesis(roster="open")), "nobody where it is open"),
        (lambda: (replace(file(genesis()), sponsor=2), genesis()), "a signature is not valid in this run"),
        (lambda: (replace(file(genesis()), number=1), genesis()), "a signature is not valid in this run"),
        (lambda: (replace(file(genesis()), number=3), genesis()), "this is not a new one of 3 applications"),
        (lambda: (replace(file(genesis()), genesis=genesis(**CLOSED).digest), genesis(**CLOSED)), "roster is closed"),
    ],
    ids=[
        "closed",
        "another run",
        "a founder's key",
        "a founder's id",
        "no such id",
        "vouched for an open roster",
        "another sponsor",
        "changed",
        "too often",
        "closed, and the right run",
    ],
)
def test_what_a_genesis_says_against_it(made: Callable[[], tuple[ApplicationFile, Genesis]], problem: str) -> None:
    application, found = made()
    with pytest.raises(ConfigError, match=problem):
        check(application, found, "7.application")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"x" * (APPLICATION_FILE_BYTES + 1),
        msgspec.json.encode(replace(file(genesis()), signing_key="A" * 64)),
        msgspec.json.encode(replace(file(genesis()), sponsorship="0")),
        msgspec.json.encode(replace(file(genesis()), transport_key="0")),
        msgspec.json.encode(replace(file(genesis()), control="ipc:///tmp/x")),
    ],
    ids=["empty", "nothing", "long", "upper case", "short", "no CURVE key", "no address"],
)
def test_what_is_none(data: bytes) -> None:
    with pytest.raises(ConfigError, match="is no application"):
        decode_application(data, "7.application")


def test_where_nobody_can_be_reached() -> None:
    key = public_identity(0, fresh()).transport_key
    assert is_reachable(key, ADDRESS)
    assert not is_reachable(key, Endpoint("simulated", "simulated"))
    assert not is_reachable("~" * 40, ADDRESS)
