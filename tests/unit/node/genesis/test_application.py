"""An application and a founder's word for it, under the keys that they name."""

from __future__ import annotations

import pytest

from btard.node.config import Endpoint
from btard.node.crypto.keys import fresh, public_identity
from btard.node.crypto.signing import verify
from btard.node.genesis.application import apply, sponsorship
from btard.node.protocol.state_sync.admission import application_bytes, sponsorship_bytes
from btard.node.protocol.wire.encoding import encode
from btard.node.protocol.wire.messages import APPLICATION_BYTES

RUN, ADDRESS = b"r" * 32, Endpoint("tcp://alpha.example:7400", "tcp://alpha.example:7401")


def test_both_sign_what_they_say_and_nothing_else() -> None:
    candidate, founder = fresh(), fresh()
    keys = public_identity(9, candidate)
    word = sponsorship(RUN, 2, founder, keys)
    application = apply(RUN, 9, candidate, ADDRESS, word)
    assert (application.peer, application.sponsor, application.control) == (9, 2, ADDRESS.control)
    assert application.key.hex() == keys.signing_key and application.transport == keys.transport_key
    assert verify(application.key, application_bytes(RUN, application), application.signature)
    assert not verify(application.key, application_bytes(b"s" * 32, application), application.signature)
    vouched = sponsorship_bytes(RUN, application.key, application.transport)
    assert verify(bytes.fromhex(public_identity(2, founder).signing_key), vouched, application.sponsorship)


@pytest.mark.parametrize("sponsored", [True, False])
def test_the_largest_fits(sponsored: bool) -> None:
    longest = "tcp://" + "x" * 253 + ":65535"
    candidate = fresh()
    word = sponsorship(RUN, 127, fresh(), public_identity(128, candidate)) if sponsored else None
    application = apply(RUN, 255, candidate, Endpoint(longest, longest), word)
    assert len(encode(application)) <= APPLICATION_BYTES
