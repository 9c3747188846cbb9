"""What a node leaves on disk: journal lines, evidence, parameters, certificate."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
import torch
from blake3 import blake3
from torch import Tensor

from btard.node.build import build_node, task_of
from btard.node.config import Endpoint, NodeConfig, Plugin, RunConfig
from btard.node.crypto.keys import generate
from btard.node.drivers.realtime import Driver
from btard.node.errors import BackendError
from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    Expelled,
    Finished,
    Halted,
    Output,
    PhaseEntered,
    Undone,
    Voided,
)
from btard.node.protocol.state.state import parameters_digest
from btard.node.storage import journal
from btard.node.storage.journal import Journal
from btard.node.storage.recorder import Recorder, write_atomically
from btard.node.training.environment import fingerprint
from btard.node.training.task import Task
from btard.node.transport.transport import Transport

RUN = RunConfig(peers=3, task=Plugin("quadratic"), steps=4, eval_every=2, batch_size=2)
PARAMETERS_D = torch.arange(64, dtype=torch.float32)
DIGEST = parameters_digest(PARAMETERS_D).hex()


class Bench:
    """A recorder of node 1 with everything real around it, and the journal it has written."""

    def __init__(self, where: Path) -> None:
        self.run_dir = where
        self.directory = where / "nodes" / "1"
        members, secrets = generate(0, RUN.peers)
        self.config = config = NodeConfig("run", 1, RUN, members, "", str(self.directory), "")
        task = task_of(RUN, where)
        self.transport = Transport(
            1, secrets[1], members, Endpoint("tcp://127.0.0.1:*", "tcp://127.0.0.1:*"), run_id="run"
        )
        self.journal = Journal(self.directory / "journal.jsonl", 1)
        self.recorder = Recorder(config, self.journal, task, self.transport)
        self.driver = Driver(
            build_node(config, secrets[1], task, fingerprint("cpu")), self.transport, self.recorder.observe
        )
        self.recorder.attach(self.driver)

    def records(self) -> list[journal.Record]:
        return journal.read(self.directory / "journal.jsonl")[0]

    def of(self, output: Output) -> journal.Record:
        """The fields of the first record that an output leaves."""
        before = len(self.records())
        self.recorder.observe(output)
        record = self.records()[before]
        assert record.pop("node") == 1
        assert record.pop("time") > 0
        return record


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    made = Bench(tmp_path)
    yield made
    made.journal.close()
    made.transport.close(0)


def committed(step: int, active: tuple[int, ...] = (0, 1, 2), contributors: tuple[int, ...] = (0, 1)) -> Committed:
    return Committed(
        step,
        1,
        contributors,
        active,
        {2: 0},
        PARAMETERS_D,
        b"\x01" * 32,
        b"certificate",
        5,
        parameters_digest(PARAMETERS_D),
    )


def test_a_committed_step(bench: Bench) -> None:
    bench.driver.loss, bench.driver.gradient_s, bench.driver.gradient_cpu_s = 0.25, 1.5, 1.25
    bench.transport.counters.sent(0, "part", 100)
    bench.transport.counters.sent(2, "aggregate", 10)
    bench.transport.counters.sent(2, "publication", 7)
    bench.transport.counters.sent(2, "control", 5)
    bench.transport.counters.sent(2, "greeting", 1)
    bench.recorder.observe(PhaseEntered(3, 1, "COMMIT"))
    bench.recorder.observe(PhaseEntered(3, 1, "AGG"))
    record = bench.of(committed(3))
    seconds, phases, cpu = record.pop("seconds"), record.pop("phases"), record.pop("cpu_seconds")
    assert seconds >= sum(phases.values()) - 1e-5
    assert phases.keys() == {"COMMIT", "AGG"}
    assert cpu > 0
    assert record == {
        "event": "committed",
        "step": 3,
        "attempt": 1,
        "contributors": [0, 1],
        "active": [0, 1, 2],
        "validators": {"2": 0},
        "loss": 0.25,
        "parameter_digest": DIGEST,
        "state_digest": "01" * 32,
        "clip_iterations": 5,
        "gradient_seconds": 1.5,
        "gradient_cpu_seconds": 1.25,
        "bulk_bytes": 110,
        "publication_bytes": 7,
        "control_bytes": 6,
    }


def test_a_validator_has_no_loss_of_its_own(bench: Bench) -> None:
    bench.driver.loss = 0.25
    assert bench.of(committed(3, contributors=(0, 2)))["loss"] is None


@pytest.mark.parametrize(
    ("step", "active", "slice_"),
    [(0, (0, 1, 2), (21, 42)), (2, (1, 2), (0, 32)), (4, (0, 1), (32, 64)), (3, (0, 1, 2), None)],
    ids=["first", "two left", "last", "not due"],
)
def test_each_peer_evaluates_its_slice(
    bench: Bench, step: int, active: tuple[int, ...], slice_: tuple[int, int] | None
) -> None:
    bench.recorder.observe(committed(step, active))
    found = [record for record in bench.records() if record["event"] == "evaluated"]
    if slice_ is None:
        assert found == []
        return
    task = task_of(RUN, bench.run_dir)
    assert [(record["step"], record["correct"], record["count"]) for record in found] == [
        (step, task.evaluate(PARAMETERS_D, *slice_), slice_[1] - slice_[0])
    ]


def test_around_attacks_every_fifth_step_is_evaluated(bench: Bench) -> None:
    task, run = task_of(RUN, bench.run_dir), msgspec.structs.replace(RUN, steps=200, eval_every=50)
    own = msgspec.structs.replace(bench.config, run=run, closely=((95, 112), (140, 145)))
    recorder = Recorder(own, bench.journal, task, bench.transport)
    for step in range(201):
        recorder.observe(committed(step))
    found = [record["step"] for record in bench.records() if record["event"] == "evaluated"]
    assert found == [0, 50, 95, 100, 105, 110, 140, 145, 150, 200]


def test_a_peer_that_is_asked_to_evaluates_the_whole_test_set(bench: Bench) -> None:
    task, own = task_of(RUN, bench.run_dir), msgspec.structs.replace(bench.config, evaluate="whole")
    told = list[tuple[int, int]]()
    recorder = Recorder(own, bench.journal, task, bench.transport)
    recorder.evaluated = lambda correct, count: told.append((correct, count))
    recorder.observe(committed(2, (1, 2)))
    assert told == [(task.evaluate(PARAMETERS_D, 0, task.test_size), task.test_size)]


def test_the_slices_cover_every_item_once() -> None:
    for count in (1, 2, 3, 5, 6, 7):
        edges = [place * 10_000 // count for place in range(count + 1)]
        assert (edges[0], edges[-1]) == (0, 10_000)
        assert sorted(edges) == edges


class Later:
    """A driver that computes when the test wants it to."""

    def __init__(self) -> None:
        self.dropped: Counter[str] = Counter()
        self.gradient_s = self.gradient_cpu_s = self.loss = 0.0
        self.works: list[tuple[Callable[[], int], Callable[[int], None]]] = []

    def beside(self, work: Callable[[], int], done: Callable[[int], None]) -> None:
        self.works.append((work, done))


def test_evaluations_that_never_have_a_free_moment_do_not_fill_the_memory(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two sets of parameters may wait; the last step's wait in any case, since the result rests on them."""
    monkeypatch.setattr("btard.node.storage.recorder._WAITING_BYTES", 2 * PARAMETERS_D.nbytes)
    run, later = msgspec.structs.replace(RUN, steps=6, eval_every=1), Later()
    own, task = msgspec.structs.replace(bench.config, run=run), task_of(RUN, bench.run_dir)
    recorder = Recorder(own, bench.journal, task, bench.transport)
    recorder.attach(cast(Driver, later))
    for step in range(3):
        recorder.observe(committed(step))
    for _ in range(len(later.works) // 2):
        work, done = later.works.pop(0)
        done(work())
    for step in range(3, 7):
        recorder.observe(committed(step))
    for work, done in later.works:
        done(work())
    left_out = [record["step"] for record in bench.records() if record["event"] == "unevaluated"]
    assert left_out == [2, 4, 5]
    assert [record["step"] for record in bench.records() if record["event"] == "evaluated"] == [0, 1, 3, 6]


def test_an_evaluation_is_made_of_pieces_that_are_all_told_at_once(bench: Bench) -> None:
    pieces: list[tuple[int, int]] = []
    later = Later()

    class Large:
        """A task with more test items than one piece holds."""

        test_size = 2000

        def evaluate(self, parameters_D: Tensor, start: int, stop: int) -> int:
            pieces.append((start, stop))
            return stop - start - 1

    bench.recorder = Recorder(bench.config, bench.journal, cast(Task, Large()), bench.transport)
    bench.recorder.attach(cast(Driver, later))
    bench.recorder.observe(committed(0))
    assert [record["event"] for record in bench.records()] == ["committed"]
    for work, done in later.works:
        assert [record["event"] for record in bench.records()] == ["committed"]
        done(work())
    assert pieces == [(666, 922), (922, 1178), (1178, 1333)]
    last = bench.records()[-1]
    assert (last["event"], last["step"], last["correct"], last["count"]) == ("evaluated", 0, 664, 667)


OTHERS: dict[str, tuple[Output, dict[str, object]]] = {
    "accused": (
        Accused(3, 0, "gradient", 2, None, 1),
        {"step": 3, "attempt": 0, "kind": "gradient", "accused": 2, "part": None, "accuser": 1},
    ),
    "voided": (Voided(3, 0, (2,)), {"step": 3, "attempt": 0, "removals": [2]}),
    "undone": (
        Undone(5, 0, (2,), ((3, 2), (4, 2)), 3, 2, older=False),
        {"step": 5, "attempt": 0, "suspects": [2], "lies": [[3, 2], [4, 2]], "to_step": 3, "lost": 2, "older": False},
    ),
    "expelled": (Expelled(3, "gradient"), {"step": 3, "reason": "gradient"}),
    "halted": (
        Halted(3, "AGG", 2, "peer 2 is silent"),
        {"step": 3, "phase": "AGG", "peer": 2, "problem": "peer 2 is silent"},
    ),
}


@pytest.mark.parametrize("event", OTHERS)
def test_other_events(bench: Bench, event: str) -> None:
    output, fields = OTHERS[event]
    assert bench.of(output) == {"event": event, **fields}


def test_evidence_is_a_file_named_by_its_digest(bench: Bench) -> None:
    record = bench.of(Banned(3, 1, 2, "checksum", 0, True, b"evidence"))
    path = bench.run_dir / record["path"]
    assert path.read_bytes() == b"evidence"
    assert record == {
        "event": "banned",
        "step": 3,
        "attempt": 1,
        "peer": 2,
        "reason": "checksum",
        "accuser": 0,
        "removed": True,
        "standing": "banned",
        "evidence": blake3(b"evidence").hexdigest(),
        "path": "nodes/1/evidence/ban-3-1-2.evidence",
    }


def test_the_end_leaves_parameters_and_their_certificate(bench: Bench) -> None:
    bench.recorder.observe(committed(4))
    record = bench.of(Finished(4, PARAMETERS_D, b"certificate"))
    assert (record["parameter_digest"], record["path"]) == (DIGEST, "nodes/1/parameters.f32")
    assert (bench.run_dir / record["path"]).read_bytes() == PARAMETERS_D.numpy().astype("<f4").tobytes()
    assert (bench.directory / "certificate").read_bytes() == b"certificate"


def test_refusals_of_driver_and_transport_are_added_up(bench: Bench) -> None:
    bench.driver.dropped.update(late=2, malformed=1)
    bench.transport.counters.dropped.update(malformed=3, stranger=1)
    bench.recorder.end()
    found = [(record["reason"], record["count"]) for record in bench.records() if record["event"] == "dropped"]
    assert found == [("late", 2), ("malformed", 4), ("stranger", 1)]


def test_the_steps_of_an_attack(bench: Bench) -> None:
    bench.recorder.attacked([2, 3])
    assert [record["steps"] for record in bench.records()] == [[2, 3]]


@pytest.mark.parametrize("data", [b"", b"new", memoryview(b"new")], ids=["empty", "bytes", "view"])
def test_a_file_is_replaced_as_a_whole(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_atomically(path, b"old")
    write_atomically(path, data)
    assert path.read_bytes() == bytes(data)
    assert [entry.name for entry in path.parent.iterdir()] == ["file"]


def test_a_file_that_cannot_be_written_is_one_line_and_keeps_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "file.tmp").mkdir()
    with pytest.raises(BackendError, match=r"^cannot write .*file: Is a directory; free the disk and run again$"):
        write_atomically(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"
