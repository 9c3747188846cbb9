"""How long a peer waits: more than an honest peer can need."""

from __future__ import annotations

import pytest

from node.config import Plugin, RunConfig
from node.protocol.deadlines import wait_s
from node.protocol.messages import Phase
from tests.simulation.stage import set_up

RUN = RunConfig(peers=6, task=Plugin("quadratic", {"dimension": 1000}), delivery_bound_s=2.0, gradient_bound_s=30.0,
                minimum_rate=1000.0)  # fmt: skip
SETTINGS = set_up(RUN).ground().settings
BULK_S = 6 * 4.0 * 1000 / 1000.0
ROWS = [
    (Phase.HELLO, 0, 0, 12.0 + 60.0),
    (Phase.COMMIT, 0, 0, 12.0 + 30.0),
    (Phase.AGG, 0, 0, 12.0 + 30.0 + BULK_S),
    (Phase.REVEAL, 0, 0, 12.0 + BULK_S),
    (Phase.CHECKSUMS, 0, 0, 12.0),
    (Phase.REPORT, 0, 0, 12.0 + 30.0),
    (Phase.PUBLISH, 3, 2, 12.0 + 60.0),
    (Phase.HAVE, 3, 2, 12.0 + 60.0 + 3 * BULK_S),
    (Phase.HAVE, 1, 0, 12.0 + BULK_S),
    (Phase.JUDGE, 3, 2, 12.0 + 60.0),
    (Phase.CLOSE, 0, 0, 12.0),
    (Phase.CLOSE, 0, 1, 12.0 + 30.0),
]


@pytest.mark.parametrize(("phase", "publications", "recomputed", "expected"), ROWS,
                         ids=[f"{row[0].name}-{row[1]}-{row[2]}" for row in ROWS])  # fmt: skip
def test_waits(phase: Phase, publications: int, recomputed: int, expected: float) -> None:
    assert wait_s(phase, SETTINGS, 6, publications, recomputed) == pytest.approx(expected)
