"""How long greetings are awaited, on a virtual clock. (Over real sockets: tests/unit/node/test_worker.py.)"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from btard.node.config import Endpoint
from btard.node.crypto import keys
from btard.node.drivers.bootstrap import GRACE_S, mesh
from btard.node.errors import TransportError
from btard.node.genesis.genesis import genesis_roster
from btard.node.protocol.attempt.deadlines import outcome_s
from btard.node.storage.recovery import Recovery
from btard.node.transport.arrivals import Arrival, ControlArrival
from btard.node.transport.counters import Counters
from btard.node.transport.transport import Transport
from tests.workers import QUADRATIC, roster

PEERS, MESH_S = 6, 60.0
RUN = msgspec.structs.replace(QUADRATIC, peers=PEERS)
D = RUN.delivery_bound_s
HELLO_S = outcome_s(cast("Any", RUN))


class Line:
    """A transport on a virtual clock: peers greet, and speak, at their time.

    Args:
        greet: seconds at which a peer's greeting comes; who is not in it is silent.
        speak: seconds at which a peer's first message of the protocol comes.
    """

    def __init__(self, greet: Mapping[int, float], speak: Mapping[int, float] | None = None) -> None:
        self.now_s = 0.0
        self.counters, self.refusals = Counters(), dict[int, str]()
        self.connected, self.approvals = False, cast("Any", None)
        self._greet, self._speak = greet, dict(speak or {})

    @property
    def greeted(self) -> frozenset[int]:
        return frozenset(peer for peer, at_s in self._greet.items() if at_s <= self.now_s)

    def connect(self, addresses: Mapping[int, Endpoint], moves: int = 0) -> None:
        self.connected = True

    def silence(self, peer: int) -> str | None:
        return self.refusals.get(peer)

    def poll(self, timeout_s: float) -> list[Arrival]:
        """Time passes until the next thing happens, or `timeout_s` is over."""
        end = self.now_s + timeout_s
        self.now_s = min([end, *(at_s for at_s in (*self._greet.values(), *self._speak.values()) if at_s > self.now_s)])
        spoken = [peer for peer, at_s in self._speak.items() if at_s <= self.now_s]
        for peer in spoken:
            del self._speak[peer]
        return [ControlArrival(peer, b"hello") for peer in spoken]


class Told:
    """A launcher that has said where everybody listens."""

    addresses: dict[int, Endpoint] | None = dict.fromkeys(
        range(PEERS), Endpoint("tcp://127.0.0.1:1", "tcp://127.0.0.1:1")
    )

    def __call__(self) -> bool:
        return False


def waited_s(where: Path, line: Line, recovery: Recovery | None = None, grace_s: float = GRACE_S) -> float:
    """When worker 0 goes on."""
    config = roster(where, RUN)[0]
    transport = cast("Transport", line)
    assert mesh(config, transport, Told(), [], MESH_S, recovery, grace_s=grace_s, clock=lambda: line.now_s)
    assert line.connected
    return line.now_s


def at(at_s: float, *peers: int) -> dict[int, float]:
    return dict.fromkeys(peers, at_s)


# Six peers, f = 2: three others are enough.
WAITS: dict[str, tuple[Line, float]] = {
    "all greet": (Line(at(1.0, 1, 2, 3, 4, 5)), 1.0),
    "one is silent": (Line(at(1.0, 1, 2, 3, 4)), 1.0 + GRACE_S),
    "f are silent": (Line(at(1.0, 1, 2, 3)), 1.0 + GRACE_S),
    "one is late": (Line({**at(1.0, 1, 2, 3, 4), 5: 9.0}), 9.0),
    "enough are there only at the end": (Line(at(MESH_S - 1, 1, 2, 3, 4)), MESH_S),
    "one is silent, and another has gone on": (Line(at(1.0, 1, 2, 3, 4), at(3.0, 2)), 3.0 + D),
    "all are there soon after another has gone on": (Line({**at(1.0, 1, 2, 3, 4), 5: 3.5}, at(3.0, 2)), 3.5),
    "another has gone on while too few were there": (Line({**at(1.0, 1, 5), 2: 20.0}, at(3.0, 5)), 20.0),
}


@pytest.mark.parametrize(("line", "until_s"), WAITS.values(), ids=WAITS)
def test_a_worker_goes_on(line: Line, until_s: float, tmp_path: Path) -> None:
    assert waited_s(tmp_path, line) == pytest.approx(until_s)


def test_fewer_than_that_are_named_when_the_time_is_over(tmp_path: Path) -> None:
    line = Line(at(1.0, 1, 2), at(2.0, 1))
    line.refusals[4] = "it speaks version 2"
    with pytest.raises(
        TransportError, match=r"^no greeting from peers 3, 4, 5 \(peer 4: it speaks.*\) within 60 s; chec"
    ):
        waited_s(tmp_path, line)
    assert line.now_s == pytest.approx(MESH_S)


# --- approvals ----------------------------------------------------------------------------------------------------


class Unapproved(Line):
    """Others' approvals come at their time.

    Args:
        approve: seconds at which a peer's comes; who is not in it never approves.
    """

    def __init__(self, greet: Mapping[int, float], approve: Mapping[int, float]) -> None:
        super().__init__({**greet, **{-peer: at_s for peer, at_s in approve.items()}})
        self._approve = approve
        self.approvals = self

    @property
    def missing(self) -> frozenset[int]:
        """Of whom there is no approval."""
        return frozenset(range(1, PEERS)) - {peer for peer, at_s in self._approve.items() if at_s <= self.now_s}


EVERYBODY = at(1.0, 1, 2, 3, 4, 5)


def test_no_approval_may_be_missing(tmp_path: Path) -> None:
    assert waited_s(tmp_path, Unapproved(EVERYBODY, {**at(2.0, 1, 2, 3, 4), 5: 50.0})) == pytest.approx(50.0)
    with pytest.raises(TransportError, match=r"^no approval of peer 5 within 60 s; ask their owners"):
        waited_s(tmp_path / "again", Unapproved(EVERYBODY, at(2.0, 1, 2, 3, 4)))


def test_a_member_that_has_approved_may_be_silent(tmp_path: Path) -> None:
    assert waited_s(tmp_path, Unapproved(at(1.0, 1, 2, 3), at(2.0, 1, 2, 3, 4, 5))) == pytest.approx(2.0 + GRACE_S)


def test_a_wait_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    line = Unapproved({**at(1.0, 1, 3, 4), 2: 25.0, 5: 25.0}, {**EVERYBODY, 4: 31.0})
    line.refusals[5] = "it speaks version 2"
    config, transport = roster(tmp_path, RUN)[0], cast("Transport", line)
    assert mesh(config, transport, Told(), [], MESH_S, clock=lambda: line.now_s, say=said.append)
    del line.refusals[5]
    assert said == [
        *["waiting for 2 of 6: peer 2, peer 5; last heard: peer 5: it speaks version 2"] * 2,
        "waiting for the approvals of 1 of 6: peer 4",
    ]
    said.clear()
    line = Unapproved({**at(1.0, 1, 3, 4), 2: 15.0, 5: 15.0}, EVERYBODY)
    mesh(config, cast("Transport", line), Told(), [], MESH_S, grace_s=MESH_S, clock=lambda: line.now_s, say=said.append)
    assert said == ["waiting for 2 of 6: peer 2, peer 5; last heard: never"]


@pytest.mark.parametrize("heard_s", [0.0, D])
@pytest.mark.parametrize("grace_s", [0.0, GRACE_S, MESH_S])
def test_who_is_greeted_by_all_does_not_wait_in_vain_for_those_that_are_not(
    grace_s: float, heard_s: float, tmp_path: Path
) -> None:
    """Peer 5 greets peer 1 alone, which begins at 10 s; what it hears of us by its deadline must be our HELLO."""
    began_s = 10.0
    line = Line({**at(1.0, 2, 3), **at(began_s, 1, 4)}, at(began_s + heard_s, 1))
    assert waited_s(tmp_path, line, grace_s=grace_s) + D < began_s + HELLO_S


# --- started again ------------------------------------------------------------------------------------------------


def recovery(removed: tuple[int, ...]) -> Recovery:
    """Of a node whose checkpoint has a roster without some peers."""
    active = genesis_roster(keys.generate(0, PEERS)[0]).without(removed)
    at = SimpleNamespace(state=SimpleNamespace(roster=active))
    return Recovery(cast("Any", None), cast("Any", at), ())


AGAIN: dict[str, tuple[tuple[int, ...], Line, float]] = {
    "who was removed is not waited for": ((5,), Line(at(1.0, 1, 2, 3, 4)), 1.0),
    "a dead one, while the others are under way": ((), Line(at(1.0, 1, 2, 3, 4), at(1.5, 3)), 1.5 + D),
    "a dead one, and the whole run starts again": ((), Line(at(1.0, 1, 2, 3, 4)), 1.0 + GRACE_S),
    "of five, two are dead": ((5,), Line(at(1.0, 1, 2), at(1.5, 1)), 1.5 + D),
}


@pytest.mark.parametrize(("removed", "line", "until_s"), AGAIN.values(), ids=AGAIN)
def test_a_worker_that_was_started_again_goes_on(
    removed: tuple[int, ...], line: Line, until_s: float, tmp_path: Path
) -> None:
    assert waited_s(tmp_path, line, recovery(removed), grace_s=MESH_S) == pytest.approx(until_s)


def test_a_worker_that_was_started_again_needs_as_many(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"^no greeting from peers 2, 3, 4 within 60 s"):
        waited_s(tmp_path, Line(at(1.0, 1), at(1.0, 1)), recovery((5,)))
