"""What a hostile node writes into its journal counts for itself alone, costs one line, and stops nobody."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from copy import deepcopy
from pathlib import Path
from typing import Any

import msgspec
import pytest
import torch

from btard import Experiment, run
from btard.launcher.containers import bundle, places, roles
from btard.launcher.files import as_json
from btard.launcher.monitor.ground_truth import GroundTruth
from btard.launcher.monitor.state import RunState
from btard.launcher.monitor.watch import NodeJournal, Watch
from btard.launcher.run import control, plan, scoring, summary
from btard.launcher.run.run_directory import read_record
from btard.launcher.run.summary import Ending
from btard.node.build import task_of
from btard.node.config import Plugin, Role, load
from btard.node.drivers.simulator import cluster
from btard.node.errors import DataError
from btard.node.genesis.ceremony import attend
from btard.node.genesis.genesis import read_genesis
from btard.node.protocol.api import Committed
from btard.node.storage.journal import Journal
from btard.node.storage.records import JOURNAL_BYTES, LINE_BYTES, MAX_PROBLEMS
from btard.node.verify import audit
from tests.workers import on_this_machine

ROOT = Path(__file__).parent.parent
PEERS, STEPS, HOSTILE = 6, 9, 5
GIGABYTE = 1 << 30
DIGEST, OTHER = "ab" * 32, "cd" * 32
SENT = {"bulk_bytes": 1, "control_bytes": 1, "publication_bytes": 1}
COMMITTED: dict[str, Any] = {
    "event": "committed", "step": 3, "attempt": 0, "contributors": [0, 1, 2], "active": [0, 1, 2, 3, 4, 5],
    "validators": {"3": 0}, "seconds": 0.5, "phases": {"AGG": 0.1}, "loss": 0.25, "parameter_digest": DIGEST,
    "state_digest": DIGEST, **SENT,
}  # fmt: skip
BANNED: dict[str, Any] = {
    "event": "banned", "step": 3, "attempt": 0, "peer": 1, "reason": "gradient", "accuser": None, "removed": True,
    "standing": "banned", "evidence": DIGEST, "path": f"nodes/{HOSTILE}/evidence/ban-3-0-1.evidence",
}  # fmt: skip
FINISHED: dict[str, Any] = {"event": "finished", "step": STEPS, "parameter_digest": OTHER,
                            "path": f"nodes/{HOSTILE}/parameters.f32", **SENT}  # fmt: skip


def line(record: dict[str, Any], **changed: object) -> bytes:
    return json.dumps({"time": 2.0, "node": HOSTILE, **record, **changed}).encode() + b"\n"


def outside(run_dir: Path, place: Path) -> None:
    """A file of the run directory that is not the hostile node's, and one beyond it."""
    (run_dir / "nodes/0/parameters.f32").write_bytes(b"honest")
    (run_dir.parent / "beyond").write_bytes(b"x")


def fifo(run_dir: Path, place: Path) -> None:
    os.mkfifo(place / "parameters.f32")


def link(run_dir: Path, place: Path) -> None:
    (place / "parameters.f32").symlink_to("/dev/zero")


def linked_folder(run_dir: Path, place: Path) -> None:
    (run_dir / "nodes/0/evidence").mkdir()
    (run_dir / "nodes/0/evidence/ban-3-0-1.evidence").write_bytes(b"another's")
    (place / "evidence").symlink_to(run_dir / "nodes/0/evidence")


def nothing(run_dir: Path, place: Path) -> None:
    """Nothing else lies there."""


Lay = Callable[[Path, Path], None]
ROWS: dict[str, tuple[bytes, str, Lay]] = {
    "a ban in another's name": (line(BANNED, node=0), "it is said to be of node 0, in the folder of node 5", nothing),
    "a ban in the launcher's name": (line(BANNED, node="launcher"), "said to be of node launcher, in the", nothing),
    "a node that is true": (line(BANNED, node=True), "it is said to be of node True, in the folder", nothing),
    "an end in another's name": (line(FINISHED, node=0), "it is said to be of node 0, in the folder", nothing),
    "another's parameters": (line(FINISHED, path="nodes/0/parameters.f32"), "its file is nodes/0/parameters", outside),
    "a way out": (line(FINISHED, path="../beyond"), "its file is ../beyond instead of nodes/5/parameters", outside),
    "a way out and in": (line(FINISHED, path="nodes/5/../0/parameters.f32"), "its file is nodes/5/../0/param", outside),
    "an absolute path": (line(FINISHED, path="/etc/passwd"), "its file is /etc/passwd instead of nodes/5/", nothing),
    "a NUL in a path": (line(FINISHED, path="nodes/5/\0"), r"its file is nodes/5/\x00 instead of nodes/5", nothing),
    "a FIFO": (line(FINISHED), "nodes/5/parameters.f32: it is no regular file", fifo),
    "a link": (line(FINISHED), "nodes/5/parameters.f32: it is no regular file of the run directory (Too many", link),
    "a linked folder": (line(BANNED), "nodes/5/evidence/ban-3-0-1.evidence: it is no regular file", linked_folder),
    "a file that is not there": (line(BANNED), "its file nodes/5/evidence/ban-3-0-1.evidence is not there", nothing),
    "no path": (line({k: v for k, v in FINISHED.items() if k != "path"}), "missing required field `path`", nothing),
    "a step that is text": (line(COMMITTED, step="3"), "Expected `int`, got `str` - at `$.step`", nothing),
    "a step beyond the run": (line(COMMITTED, step=1 << 50), "it is of step 1125899906842624, and the run", nothing),
    "a negative step": (line(COMMITTED, step=-1), "Expected `int` >= 0 - at `$.step`", nothing),
    "a peer that nobody is": (line(BANNED, peer=6), "its peer 6 is not in the roster of 6", nothing),
    "a standing that nobody has": (line(BANNED, standing="king"), "Invalid enum value 'king'", nothing),
    "more bytes than there are": (line(COMMITTED, bulk_bytes=1 << 60), "Expected `int` <= 9007199254740992", nothing),
    "a time without end": (line(COMMITTED, time=1e300), "Expected `float` <= 100000000000.0 - at `$.time`", nothing),
    "a number without end": (b'{"time":1e999,"node":5,"event":"bound"}\n', "Number out of range", nothing),
    "a long number": (b'{"time":' + b"1" * 5000 + b',"node":5,"event":"bound"}\n', "out of range", nothing),
    "no number": (b'{"time":NaN,"node":5,"event":"bound"}\n', "JSON is malformed: invalid character", nothing),
    "a scenario": (line({"event": "scenario", "action": "kill", "peers": [0, 1], "text": "x", "at_s": 1.0}),
                   "events of the scenario are not a node's to tell", nothing),
    "a slice without equal": (line({"event": "evaluated", "step": 3, "correct": 9, "count": 3}),
                              "it has 9 correct answers of 3", nothing),
    "an address of another kind": (line({"event": "metrics", "address": "h:1\n- x"}), "Expected `str` match", nothing),
    "traffic of another kind": (line({"event": "traffic", "sent": {"0": 1}}), "Expected `object`, got `int`", nothing),
    "NUL bytes": (b"\0" * 100 + b"\n", "JSON is malformed", nothing),
    "no text": (b"\xff\xfe\n", "JSON is malformed", nothing),
    "no object": (b"[1,2]\n", "Expected `object`, got `array`", nothing),
    "nothing at all": (b"\n", "Input data was truncated", nothing),
    "deep nesting": (b'{"a":' + b"[" * 100_000 + b"\n", "maximum recursion depth exceeded", nothing),
    "escape sequences": (line(FINISHED, path="\x1b[2J\r\n"), r"its file is \x1b[2J\r\n instead of", nothing),
}  # fmt: skip


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run of six nodes, of which node 0 is honest and has journalled something."""
    where = tmp_path / "run"
    for node in range(PEERS):
        (where / "nodes" / str(node)).mkdir(parents=True)
    with Journal(where / "nodes/0/journal.jsonl", 0, lambda: 1.0) as honest:
        honest.append("bound", control="c", bulk="b")
    return where


def watched(run_dir: Path, byzantine: frozenset[int] = frozenset({HOSTILE})) -> tuple[Watch, RunState]:
    state = RunState(PEERS, byzantine)
    return Watch(run_dir, state, STEPS), state


def facts(state: RunState) -> tuple[object, ...]:
    """What a hostile journal must not decide."""
    nodes = [(node.state, node.out, node.step, node.finished, node.parameter_digest) for node in state.nodes.values()]
    told = (state.bans, state.killed, state.paused, state.happened, state.commits, state.slices, state.links)
    return deepcopy((nodes, *told))


@pytest.mark.parametrize("known", [True, False], ids=["an attacker", "held for honest"])
@pytest.mark.parametrize(("record", "problem", "lay"), ROWS.values(), ids=ROWS)
def test_a_hostile_record_is_one_line_and_the_rest_is_read(
    record: bytes, problem: str, lay: Lay, known: bool, run_dir: Path
) -> None:
    place = run_dir / "nodes" / str(HOSTILE)
    lay(run_dir, place)
    watch, state = watched(run_dir, frozenset({HOSTILE} if known else ()))
    watch.look()
    before = facts(state)
    (place / "journal.jsonl").write_bytes(record)
    assert watch.look() == []
    (told,) = watch.problems()
    assert told.startswith("nodes/5/journal.jsonl, record 1: ") and problem in told
    assert told.isprintable() and len(told) < 500
    assert facts(state) == before
    assert (watch.refused, watch.problems()) == ({HOSTILE: 1}, [])
    with (place / "journal.jsonl").open("ab") as file:
        file.write(line({"event": "expelled", "step": 4, "reason": "x"}))
    assert [each["event"] for each in watch.look()] == ["expelled"]
    assert state.nodes[HOSTILE].state == "expelled"
    watch.close()
    assert all(
        json.loads(each)["node"] in (0, HOSTILE) for each in (run_dir / "events.jsonl").read_bytes().splitlines()
    )


def test_a_record_of_a_hundred_megabytes_fills_no_memory(run_dir: Path) -> None:
    place = run_dir / "nodes" / str(HOSTILE) / "journal.jsonl"
    with place.open("wb") as file:
        file.write(b'{"time":1,"node":5,"event":"')
        for _ in range(100):
            file.write(b"x" * 1_000_000)
        file.write(b'"}\n' + line({"event": "bound"}))
    watch, _ = watched(run_dir)
    tracemalloc.start()
    assert [record["node"] for record in watch.look()] == [0, HOSTILE]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * LINE_BYTES
    assert watch.problems() == [f"nodes/5/journal.jsonl, record 1: it is longer than {LINE_BYTES} bytes"]


@pytest.mark.parametrize("kind", ["fifo", "link", "folder", "linked folder"])
def test_a_journal_that_is_no_file_holds_nobody_up(kind: str, run_dir: Path) -> None:
    place = run_dir / "nodes" / str(HOSTILE)
    if kind == "fifo":
        os.mkfifo(place / "journal.jsonl")
    elif kind == "link":
        (place / "journal.jsonl").symlink_to(run_dir / "nodes/0/journal.jsonl")
    elif kind == "folder":
        (place / "journal.jsonl").mkdir()
    else:
        place.rmdir()
        place.symlink_to(run_dir / "nodes/0")
    watch, _ = watched(run_dir)
    assert [record["node"] for record in watch.look()] == [0]
    (told,) = watch.problems()
    assert told.startswith("nodes/5/journal.jsonl: it is no regular file")


def test_a_sparse_journal_of_ten_gigabytes_is_read_so_far(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btard.node.storage.records.JOURNAL_BYTES", 1 << 26)  # a gigabyte of zeros takes seconds
    with (run_dir / "nodes" / str(HOSTILE) / "journal.jsonl").open("wb") as file:
        file.truncate(10 * JOURNAL_BYTES)
    watch, _ = watched(run_dir)
    assert [record["node"] for record in watch.look()] == [0]
    assert watch.problems() == [f"nodes/5/journal.jsonl: only its first {1 << 26} bytes are read"]
    assert watch.look() == watch.problems() == []


def test_a_journal_that_shrinks_is_read_no_further(run_dir: Path) -> None:
    place = run_dir / "nodes" / str(HOSTILE) / "journal.jsonl"
    place.write_bytes(line({"event": "bound"}) * 3)
    watch, _ = watched(run_dir)
    assert len(watch.look()) == 1 + 3
    place.write_bytes(line({"event": "greeted", "peers": [1]}))
    assert watch.look() == []
    assert watch.problems() == ["nodes/5/journal.jsonl: it has shrunk below what was read; nothing more of it is"]
    place.write_bytes(line({"event": "expelled", "step": 1, "reason": "x"}) * 9)
    assert watch.look() == watch.problems() == []


def test_a_thousand_malformed_records_are_not_a_thousand_lines(run_dir: Path) -> None:
    (run_dir / "nodes" / str(HOSTILE) / "journal.jsonl").write_bytes(b"{}\n" * 1000)
    watch, _ = watched(run_dir)
    watch.look()
    told = watch.problems()
    assert len(told) == MAX_PROBLEMS + 1 and told[-1].endswith(
        f"there are more malformed records; {MAX_PROBLEMS} are named"
    )
    assert watch.refused == {HOSTILE: 1000}


def test_what_is_nested_without_a_type_is_left_out(run_dir: Path) -> None:
    """Whoever reads it would trip: it cannot be a key, nor be written as JSON where the stack is short."""
    deep = json.loads("[" * 300 + "]" * 300)
    (run_dir / "nodes" / str(HOSTILE) / "journal.jsonl").write_bytes(
        line({"event": "halted", "step": 1, "phase": "AGG", "peer": None, "problem": "p"}, attempt=[1], deep=deep)
        + line({"event": "unheard of", "list": [1], "word": "kept"})
    )
    watch, state = watched(run_dir, frozenset())
    truth = GroundTruth({}, state)
    found = watch.look()
    truth.saw(found)
    assert found[1:] == [
        {"time": 2.0, "node": HOSTILE, "event": "halted", "step": 1, "phase": "AGG", "peer": None, "problem": "p"},
        {"time": 2.0, "node": HOSTILE, "event": "unheard of", "word": "kept"},
    ]


def test_an_attackers_numbers_change_no_figure_but_its_own(run_dir: Path) -> None:
    """Steps that it alone has committed, a test set of its own, bytes beyond any sum."""
    with Journal(run_dir / "nodes/0/journal.jsonl", 0, lambda: 1.0) as honest:
        honest.append(**{**COMMITTED, "step": 0})
        honest.append("evaluated", step=0, correct=5, count=10)
    resumed = {"event": "resumed", "step": 3, "attempt": 0, "heard": 0}
    (run_dir / "nodes" / str(HOSTILE) / "journal.jsonl").write_bytes(
        line({"event": "evaluated", "step": 0, "correct": 1 << 50, "count": 1 << 50})
        + line({"event": "evaluated", "step": 7, "correct": 1 << 50, "count": 1 << 50})
        + b"".join(line(COMMITTED, step=step, bulk_bytes=1 << 53) + line(resumed) for step in range(1, STEPS))
    )
    watch, state = watched(run_dir)
    watch.look()
    assert watch.problems() == []
    score = summary.summarise("run", state, {HOSTILE: Role((Plugin("noise"),))}, Ending("finished", 1.0, dimension=64))
    assert (score.steps, score.accuracy) == (1, [(0, 0.5)])
    assert score.bytes_expected == summary.bytes_expected(state, 64, 4) > 0
    assert msgspec.json.decode(as_json(score))["bytes_sent"]["bulk"] == (1 << 53) + 1


def test_a_resumed_run_goes_on_behind_what_was_accepted(run_dir: Path) -> None:
    place = run_dir / "nodes" / str(HOSTILE) / "journal.jsonl"
    place.write_bytes(b"junk\n" + line({"event": "bound"}) + b"junk\n" + line({"event": "greeted", "peers": [0]}))
    watch, _ = watched(run_dir)
    assert len(watch.look()) == 3
    watch.close()
    with place.open("ab") as file:
        file.write(b"junk\n" + line({"event": "expelled", "step": 1, "reason": "x"}))
    again, _ = watched(run_dir)
    again.catch_up()
    assert [record["event"] for record in again.look()] == ["expelled"]
    assert again.refused == {HOSTILE: 3}
    again.close()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of five without attackers."""
    where = tmp_path_factory.mktemp("finished") / "run"
    run(Experiment(peers=5, task="quadratic", device="cpu", steps=4, eval_every=4, backend="simulated",
                   run_dir=str(where)))  # fmt: skip
    return where


def test_the_status_of_a_run_with_a_hostile_journal_is_told(finished: Path) -> None:
    journal = finished / "nodes/4/journal.jsonl"
    intact = journal.read_bytes()
    journal.write_bytes(line(BANNED, node=0) + intact)
    told = control.status(finished)
    journal.write_bytes(intact)
    assert [row for row in told if row.startswith("warning: ")] == [
        "warning: nodes/4/journal.jsonl, record 1: it is said to be of node 0, in the folder of node 4"
    ]
    assert sum("finished" in row for row in told[2:]) == 5


def scored(run_dir: Path) -> scoring.Final:
    """What the launcher makes of a finished run directory, its journals read anew."""
    record = read_record(run_dir)
    state = RunState(record.run.peers, frozenset(int(peer) for peer in record.roles))
    for node in state.nodes:
        for each in NodeJournal(run_dir, node, state.peers, record.run.steps, plays=True).look():
            state.apply(each)
    roles = {int(peer): role for peer, role in record.roles.items()}
    made = plan.again(record.experiment, record.run, roles, Path(record.data_directory))
    return scoring.final_figures(made, run_dir, state)


@pytest.fixture
def altered(finished: Path) -> Iterator[Path]:
    """The finished run, put right again afterwards."""
    kept = {path: path.read_bytes() for path in finished.rglob("*") if path.is_file() and not path.is_symlink()}
    yield finished
    for path, content in kept.items():
        path.unlink(missing_ok=True)
        path.write_bytes(content)


def model(run_dir: Path) -> bytes:
    tensors = torch.load(run_dir / scoring.MODEL, weights_only=True).values()
    return b"".join(tensor.numpy().tobytes() for tensor in tensors)


def noise(run_dir: Path, node: int) -> None:
    """Other parameters in a node's folder, under its own certificate."""
    path = run_dir / "nodes" / str(node) / "parameters.f32"
    path.write_bytes(bytes(reversed(path.read_bytes())))


def rolled_back(run_dir: Path, node: int) -> None:
    """Certificate and parameters of the step before the last: they are genuine, and not the end."""
    genesis, record = read_genesis(run_dir), read_record(run_dir)
    assert record.seeds.protocol is not None
    task = task_of(genesis.run, Path(record.data_directory))
    for seen in cluster(genesis.run, task, {}, record.seeds.protocol, run_id=genesis.run_id).run():
        match seen.output:
            case Committed(step=step) as done if step == genesis.run.steps - 1:
                parameters_D, certificate = done.parameters_D, done.certificate
            case Committed(step=step) as done if step == genesis.run.steps:
                assert done.certificate == (run_dir / "nodes/4/certificate").read_bytes(), "it is the same run"
    (run_dir / "nodes" / str(node) / "parameters.f32").write_bytes(parameters_D.numpy().tobytes())
    (run_dir / "nodes" / str(node) / "certificate").write_bytes(certificate)


@pytest.mark.parametrize("forge", [noise, rolled_back], ids=["noise", "rolled back"])
def test_the_model_is_that_of_a_majority_with_certificates(forge: Callable[[Path, int], None], altered: Path) -> None:
    agreed = (altered / "nodes/4/parameters.f32").read_bytes()
    (altered / scoring.MODEL).unlink()
    for node in (0, 1):
        forge(altered, node)
    figures = scored(altered)
    assert figures.problem is None and figures.test_accuracy is not None
    assert model(altered) == agreed
    (altered / scoring.MODEL).unlink()
    forge(altered, 2)
    assert scored(altered) == scoring.Final(
        problem="no model: certified final parameters that agree are needed of 3 of the 5 nodes, and 2 have them; see "
        "`btard-launch verify`"
    )
    assert not (altered / scoring.MODEL).exists()


def test_parameters_that_change_after_their_certificate_was_checked_are_refused(altered: Path) -> None:
    record = read_record(altered)
    digest = summary_digest(altered)
    noise(altered, 0)
    with pytest.raises(DataError, match=r"parameters.f32 is not what it was when its certificate was checked; run"):
        audit.evaluate_final(record.run, altered, altered / "nodes/0/parameters.f32", digest=digest)


def summary_digest(run_dir: Path) -> str:
    made: dict[str, str] = json.loads((run_dir / "summary.json").read_bytes())["parameter_digest"]
    return made["0"]


@pytest.mark.sockets
def test_the_observers_process_beside_a_node_that_lies_in_every_file(tmp_path: Path) -> None:
    """Three honest workers; node 3 is only what it has put into its volume."""
    settings = {"BTARD_PEERS": "4", "BTARD_TASK": "quadratic", "BTARD_STEPS": "5", "BTARD_ATTACK": "noise",
                "BTARD_BYZANTINE": "1", "BTARD_ATTACK_START": "0", "BTARD_DELIVERY_BOUND": "2s",
                "BTARD_GRADIENT_BOUND": "1s", "PATH": os.environ["PATH"]}  # fmt: skip
    made = roles.from_environment(settings)
    bundle.lay_out(made, tmp_path)
    place = places.written_by(tmp_path, 3)
    (place / "evidence").mkdir(parents=True)
    os.mkfifo(place / "alive")
    os.mkfifo(place / "exit")
    (place / "parameters.f32").write_bytes(b"\0" * 256)
    (place / "certificate").symlink_to(places.written_by(tmp_path, 0) / "certificate")
    with (place / "evidence/ban-2-0-1.evidence").open("wb") as file:
        file.truncate(10 * GIGABYTE)
    own = {"parameter_digest": OTHER, "path": "nodes/3/parameters.f32", "node": 3}
    (place / "journal.jsonl").write_bytes(
        line({"event": "bound"}, node=3)
        + line(BANNED, node=0, peer=1, path="nodes/3/evidence/ban-2-0-1.evidence")
        + line(FINISHED, **{**own, "node": 0})
        + line(FINISHED, **own, step=5)
        + b"\0" * 1000 + b"\n{}\n"
        + line({"event": "scenario", "action": "kill", "peers": [0, 1, 2], "text": "x", "at_s": 1.0}, node=3)
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    follow = "import sys; from pathlib import Path; from btard.launcher.containers import observer\n"
    command = [sys.executable, "-c", follow + "sys.exit(observer.main([], Path(sys.argv[1]), port=0))", str(tmp_path)]
    with on_this_machine(tmp_path, range(3), 4) as workers, ExitStack() as held:
        approved = attend(load(places.config_of(tmp_path, 3)), held, threading.Event().wait, 120.0)
        assert approved is not None and approved.node == 3
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        assert [worker.wait(30) for worker in workers] == [0, 0, 0]
    run_dir = places.runs(tmp_path) / made.record.run_id
    score = json.loads((run_dir / "summary.json").read_bytes())
    assert (score["outcome"], score["agreement"], score["bans"], score["keys"]) == ("finished", True, [], "system")
    assert [row["peer"] for row in score["gone"]] == [3]
    assert (score["honest_banned"], score["honest_gone"], score["refused_records"]) == (0, 0, {"3": 5})
    assert score["scenario"] == []
    assert model(run_dir) == (run_dir / "nodes/0/parameters.f32").read_bytes()
    assert sum(path.stat().st_blocks * 512 for path in run_dir.rglob("*")) < 8 << 20
    told = [row for row in done.stdout.splitlines() if row.startswith("warning: ")]
    assert len(told) == 5 + 1
    for problem in ("record 2: it is said to be of node 0, in the folder of node 3",
                    "record 3: it is said to be of node 0, in the folder of node 3",
                    "record 5: JSON is malformed", "record 6: it has no event",
                    "record 7: events of the scenario are not a node's to tell",
                    "ban-2-0-1.evidence has 10737418240 bytes, more than the "):  # fmt: skip
        assert sum(problem in row for row in told) == 1, (problem, done.stdout)
