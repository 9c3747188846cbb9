"""What a node remembers of what it is told: what was admitted, before anything leaves that depends on it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from btard.node.protocol.api import Disputed, Dropped, Input, MessageArrived, Output, ViewArrived
from btard.node.protocol.disputes.dispute import MAX_OUTCOMES
from btard.node.protocol.wire.messages import (
    Close,
    Commit,
    Endorsed,
    Outcome,
    Phase,
    Removal,
    Signed,
    Suspect,
    View,
    Void,
    body_bytes,
    view_bytes,
)
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.durability import DurableMachine
from btard.node.storage.wal import HEARD
from btard.node.transport.envelope import seal
from tests.fuzz.scenes import ATTACKER, PEERS
from tests.ledgers import files, records
from tests.unit.node.protocol.test_router import DIGEST, Case

RECORD_BYTES = 256
"""More than a record's head, a signature and their framing."""


class Remembering(Case):
    """An honest peer in the middle of a step that keeps a ledger under `where`."""

    def __init__(self, where: Path) -> None:
        super().__init__()
        self.where = where
        self.checkpointer = Checkpointer(where, DIGEST, 0, DIGEST)
        self.checkpointer.save(self.peer.snapshot())
        self.keeping = DurableMachine(self.peer, self.peer, self.checkpointer)

    def tell(self, signed: Signed) -> list[Output]:
        return self._turn(MessageArrived(ATTACKER, signed))

    def show(self, view: Signed) -> list[Output]:
        return self._turn(ViewArrived(ATTACKER, Endorsed(view, ())))

    def _turn(self, event: Input) -> list[Output]:
        """As a driver does it."""
        outputs = self.keeping.handle(event)
        self.checkpointer.secure()
        return outputs

    def commit(self, content: int, **slot: object) -> Signed:
        return self.signed(Commit(self.slot(Phase.COMMIT, **slot), (), (), content.to_bytes(32, "big")))

    def view(self, content: int, **slot: object) -> Signed:
        """A view as large as they may be, full of what nobody has signed."""
        junk = Signed(content.to_bytes(4, "big") * (view_bytes(PEERS) // 8), bytes(64))
        return self.signed(View(self.slot(Phase.VIEW, **slot), (), (junk,)))

    @property
    def heard(self) -> list[bytes]:
        """The messages in its ledger."""
        return [record.content for record in records(self.where, HEARD)]

    @property
    def size(self) -> int:
        """Of its ledger, in bytes."""
        return sum(path.stat().st_size for path in files(self.where))


def unsigned(signed: Signed) -> Signed:
    return Signed(signed.body, bytes(64))


REFUSED: dict[str, Callable[[Remembering, int], object]] = {
    "a commit that nobody signed": lambda case, n: case.tell(unsigned(case.commit(n))),
    "a view that nobody signed": lambda case, n: case.show(unsigned(case.view(n))),
    "ahead and unsigned": lambda case, n: case.tell(unsigned(case.commit(n, attempt=1))),
    "a view ahead, unsigned": lambda case, n: case.show(unsigned(case.view(n, attempt=1))),
    "another run": lambda case, n: case.tell(case.commit(n, run=DIGEST)),
    "another roster": lambda case, n: case.tell(case.commit(n, roster=DIGEST)),
    "long ago": lambda case, n: case.tell(case.commit(n, step=-1 - n)),
    "far ahead": lambda case, n: case.tell(case.commit(n, step=10**6 + n)),
    "no body": lambda case, n: case.tell(Signed(b"\x93\x01" + bytes([n]) * 1000, bytes(64))),
    "too large": lambda case, n: case.tell(case.signed(Close(case.slot(Phase.CLOSE), (), bytes(5000 + n)))),
    "no view": lambda case, n: case.show(case.commit(n)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_trace_on_the_disk(name: str, tmp_path: Path) -> None:
    case = Remembering(tmp_path)
    before = case.size
    for number in range(50):
        outputs = REFUSED[name](case, number)
        assert isinstance(outputs, list) and len(outputs) == 1 and isinstance(outputs[0], Dropped)
    assert case.size == before
    assert case.heard == []


def outcome(case: Remembering, number: int) -> Signed:
    reason = f"{number:x}" * 16
    return case.signed(Outcome(case.slot(Phase.OUTCOME), (), Void((Removal(1, reason, None),)), ()))


SHARES: dict[str, tuple[Callable[[Remembering, int], object], int, int]] = {
    "ahead": (lambda case, n: case.tell(case.commit(n, attempt=1)), 4, body_bytes(Phase.COMMIT, PEERS)),
    "views ahead": (lambda case, n: case.show(case.view(n, attempt=1)), 4, view_bytes(PEERS)),
    "views": (lambda case, n: case.show(case.view(n)), 2, view_bytes(PEERS)),
    "equivocations": (
        lambda case, n: case.tell(case.commit(n)),
        2,  # the first contradicts what the attacker has said already, and begins a dispute, which freezes the attempt
        body_bytes(Phase.COMMIT, PEERS),
    ),
    "outcomes": (lambda case, n: case.tell(outcome(case, n)), MAX_OUTCOMES, body_bytes(Phase.OUTCOME, PEERS)),
    "suspicions": (
        lambda case, n: case.tell(case.signed(Suspect(case.slot(Phase.SUSPECT), (), Phase(2 + n % 8), n % PEERS))),
        12 * PEERS,
        body_bytes(Phase.SUSPECT, PEERS),
    ),
}


@pytest.mark.parametrize("name", SHARES)
def test_of_what_a_member_signs_a_share_is_kept_however_much_it_sends(name: str, tmp_path: Path) -> None:
    """The bound is in bytes: so many messages of the largest size, whatever comes after them."""
    case = Remembering(tmp_path)
    tell, most, size = SHARES[name]
    before, sizes = case.size, list[int]()
    for number in range(100):
        tell(case, number)
        sizes.append(case.size - before)
    assert 0 < len(case.heard) <= most
    assert sizes[-1] <= most * (size + RECORD_BYTES) + RECORD_BYTES
    assert sizes[-1] == sizes[most + PEERS * 12]


def test_a_view_whose_contents_began_a_dispute_is_kept_though_the_rest_of_it_is_junk(tmp_path: Path) -> None:
    case = Remembering(tmp_path)
    theirs = next(iter(case.peer.attempt.transcript.signed(Phase.COMMIT).values())) if case.peer.attempt else None
    assert theirs is not None
    proof = case.commit(7)  # not what the attacker has said in this attempt
    junk = Signed(b"junk" * 100, bytes(64))
    view = case.signed(View(case.slot(Phase.VIEW), (), (theirs, proof, junk)))
    outputs = case.show(view)
    assert any(isinstance(output, Disputed) for output in outputs)
    assert case.heard == [seal(Endorsed(view, ()))]


def test_what_an_output_depends_on_is_in_the_ledger_before_the_output_is_handed_out(tmp_path: Path) -> None:
    case = Remembering(tmp_path)
    proof = case.commit(7)
    outputs = case.tell(proof)
    assert any(isinstance(output, Disputed) for output in outputs)
    assert case.heard == [seal(proof)]


def test_what_a_restarted_node_hears_again_is_not_noted_again(tmp_path: Path) -> None:
    """A worker that is started again and again in one step must not fill the disk."""
    case = Remembering(tmp_path)
    step = case.attempt.step
    case.tell(case.commit(7, attempt=1))
    case.show(case.view(8, attempt=1))
    before = case.heard
    case.checkpointer.close()
    for _ in range(3):
        checkpointer = Checkpointer(tmp_path, DIGEST, 0, DIGEST)
        heard = checkpointer.recall(step)
        checkpointer.save(case.peer.snapshot())
        for event in heard:
            checkpointer.heard(event)
        assert case.heard == before
        assert len(heard) == 2
        checkpointer.close()
