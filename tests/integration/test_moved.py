"""A real process that is started again at another address comes back by its signed record, and so do two of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import monotonic

import msgspec
import pytest

from btard.node.config import Endpoint, Plugin, RunConfig
from tests.workers import Worker, changed, introduce, roster, workers

pytestmark = pytest.mark.sockets

PATIENCE_S = 240.0
"""Ends a cluster that hangs; no test depends on how long anything takes."""
RUN = RunConfig(
    peers=6,
    task=Plugin("quadratic", {"dimension": 24}),
    steps=1_000_000,
    batch_size=2,
    eval_every=1_000_000,
    probation=2,
    delivery_bound_s=1.0,
    gradient_bound_s=1.0,
)


def wait(started: Sequence[Worker], done: Callable[[], bool]) -> None:
    """Until `done`, while all of them live."""
    end = monotonic() + PATIENCE_S
    while not done():
        assert monotonic() < end, [each.log for each in started]
        for each in started:
            each.process.join(0.02)
            assert each.process.exitcode is None, each.log


def removed(worker: Worker) -> set[int]:
    """Whom a worker knows to be gone."""
    return {record["peer"] for record in worker.said("banned")}


def returned(worker: Worker) -> dict[int, int]:
    """By peer the step after which a worker knows it to be back."""
    return {record["peer"]: record["step"] for record in worker.said("returned")}


@pytest.mark.parametrize("moving", [(4,), (3, 4)], ids=["one moves", "two move at once"])
def test_who_is_started_again_at_another_address_serves_its_probation_and_is_back(
    moving: tuple[int, ...], tmp_path: Path
) -> None:
    """Nobody is told the new addresses, and each that moves knows the old ones of the others alone. Peer 4 had
    two ports and has one then."""
    made = [changed(each, checkpoints=True) for each in roster(tmp_path, RUN)]
    with ExitStack() as stack:
        everyone = stack.enter_context(workers(made))
        addresses, staying = introduce(everyone), [each for each in everyone if each.config.node not in moving]
        wait(everyone, lambda: all(len(each.said("committed")) > 2 for each in everyone))
        for peer in moving:
            os.kill(everyone[peer].process.pid or 0, signal.SIGKILL)
        wait(staying, lambda: all(removed(each) == set(moving) for each in staying))
        elsewhere = [
            changed(made[peer], listen=Endpoint(*[f"tcp://127.0.0.{peer}:*"] * (1 if peer == 4 else 2)))
            for peer in moving
        ]
        again = stack.enter_context(workers(elsewhere))
        for each in again:
            each.pipe.send(("addresses", {**addresses, each.config.node: each.bound()}))
        both = [*staying, *again]
        wait(both, lambda: all(returned(each).keys() == set(moving) for each in staying))
        back = max(max(returned(each).values()) for each in staying)
        wait(both, lambda: all(each.said("committed")[-1]["step"] > back + 3 for each in both))
        for each in both:
            each.pipe.send(("stop",))
        assert [each.exit_code() for each in both] == [143] * len(both), [each.log for each in both]
        digests: dict[int, set[str]] = {}
        for each in both:
            for record in each.said("committed"):
                digests.setdefault(record["step"], set()).add(record["state_digest"])
        assert all(len(found) == 1 for found in digests.values())
        for each in again:
            kept = msgspec.json.decode((Path(each.config.directory) / "address.json").read_bytes())
            assert kept["counter"] == 1
        assert not any(reason.startswith("address") for each in both for reason in each.drops)
        assert [each.log for each in both] == [""] * len(both)
