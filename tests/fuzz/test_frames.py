"""The fuzzer of `make fuzz`, a short run of it: no crash, no growth, and it does reach the peer's states."""

from __future__ import annotations

from contextlib import suppress

import pytest

from btard.node.errors import WireError
from btard.node.protocol.api import (
    BulkRequested,
    MessageArrived,
    SnapshotArrived,
    TranscriptRequested,
    ViewArrived,
)
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Phase
from btard.node.transport import framing
from btard.node.transport.envelope import unseal
from tests.fuzz.frames import GROWTH_MB, LARGEST, Fuzz, at_random, seeds

RUNS = 3000


@pytest.mark.slow
def test_random_frames_crash_nothing_and_leave_nothing_behind() -> None:
    fuzz = Fuzz(RUNS, guided=False)
    at_random(fuzz, RUNS)
    assert fuzz.count == RUNS
    assert fuzz.growth_mb < GROWTH_MB


def test_the_corpus_holds_every_kind_of_message() -> None:
    """A kind that no seed has, random bytes hardly ever hit: its decoder would go untested."""
    found = set()
    for seed in seeds():
        with suppress(WireError):
            content = framing.decode_control(memoryview(seed), LARGEST)
            if isinstance(content, bytes):
                arrived = unseal(0, content)
                found.add(
                    decode_body(arrived.signed.body).slot.phase
                    if isinstance(arrived, MessageArrived)
                    else type(arrived)
                )
    assert found == {*Phase, ViewArrived, BulkRequested, TranscriptRequested, SnapshotArrived}
