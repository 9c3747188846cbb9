"""What a node keeps for after a crash: whole files or none, one message a slot, a clear line where it cannot go on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest

from btard.node.build import Node, build_node, optimiser_of, task_of
from btard.node.config import NodeConfig, Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.drivers.simulator import Simulation, remembering_gradients
from btard.node.errors import BackendError, CheckpointError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.netem.conditions import Conditions
from btard.node.netem.links import LinkModel
from btard.node.netem.network import Network
from btard.node.protocol.api import BulkArrived, Committed, MessageArrived, PhaseEntered
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import parameters_digest
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Hello, Phase, Signed, Slot, Suspect
from btard.node.storage.checkpoint import Name
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.storage.wal import ATTEMPT, HEARD, SECTOR, SIGNED, TENSORS, Record, WriteAheadLog, contents
from btard.node.training.environment import fingerprint
from tests.ledgers import attempts, entries, files, records, spoil
from tests.simulation.restarting import RUN_ID, Cluster

RUN = RunConfig(peers=4, task=Plugin("quadratic"), steps=6, batch_size=4)
MEMBERS, SECRETS = generate(0, RUN.peers)
GENESIS = genesis_digest("run", RUN, MEMBERS)
PRINT = fingerprint("cpu")
ROSTER = genesis_roster(MEMBERS)
TASK = task_of(RUN, Path("unused"))
UPDATE = optimiser_of(RUN, TASK.dimension, TASK.layout)


def checkpointer(where: Path, node: int = 0, run: bytes = GENESIS, print_: bytes = PRINT) -> Checkpointer:
    return Checkpointer(where / str(node), run, node, print_)


def played(where: Path, steps: int) -> list[Node]:
    """Four nodes, each with a memory under `where`, until node 0 has committed a step and kept what begins after it;
    -1: until it has said something in step 0."""
    configs = [NodeConfig("run", me, RUN, MEMBERS, "", "", "") for me in range(RUN.peers)]
    nodes = {
        config.node: build_node(
            config, SECRETS[config.node], TASK, PRINT, checkpointer=checkpointer(where, config.node)
        )
        for config in configs
    }
    simulation = Simulation(nodes, Network(LinkModel()), remembering_gradients(TASK))
    committed = False
    for seen in simulation.run():
        if committed and seen.node != 0:
            break
        committed |= steps < 0 and seen.node == 0 and seen.output == PhaseEntered(0, 0, "AGG")
        committed |= seen.node == 0 and isinstance(seen.output, Committed) and seen.output.step == steps
    for node in nodes.values():
        assert node.checkpointer is not None
        node.checkpointer.close()
    return list(nodes.values())


# --- the ledger -----------------------------------------------------------------------------------------------


def test_a_torn_batch_is_dropped_and_written_over(tmp_path: Path) -> None:
    path = tmp_path / "1.ledger"
    first = WriteAheadLog(path)
    first.append(SIGNED, 0, b"one")
    first.sync()
    first.append(HEARD, 2, b"two")
    first.append(SIGNED, 0, b"three")
    first.sync()
    first.close()
    path.write_bytes(path.read_bytes()[:-1])
    assert entries(path) == [(SIGNED, 0, b"one")]
    again = WriteAheadLog(path)
    again.append(HEARD, 3, b"three")
    again.sync()
    again.append(HEARD, 3, b"led to nothing")
    again.close()
    assert entries(path) == [(SIGNED, 0, b"one"), (HEARD, 3, b"three")]
    assert entries(tmp_path / "none.ledger") == []


class _Watched(Disk):
    """Notes in which order a file is written and waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []

    def write(self, file: int, *pieces: bytes | memoryview) -> None:
        self.happened.append("write")
        super().write(file, *pieces)

    def sync(self, file: int) -> None:
        self.happened.append("sync")
        super().sync(file)


def test_of_what_was_written_since_the_last_sync_a_disk_may_lose_any(tmp_path: Path) -> None:
    """The journal may tell of something twice before anything leaves; a loss of power then is no damage."""
    path, disk = tmp_path / "x.ledger", _Watched()
    book, ends = WriteAheadLog(path, disk), [SECTOR]
    book.append(HEARD, 1, b"before")
    book.sync()
    for content in (b"a" * 900, b"b" * 900, b"c"):
        ends.append(path.stat().st_size)
        book.append(HEARD, 1, content)
        book.write()
    assert disk.happened == ["write", "sync", "write", "sync", "write", "write", "write"], "the opening, and so on"
    book.sync()
    book.sync()
    assert disk.happened[7:] == ["sync"]
    whole = path.read_bytes()
    kept = [b"before", b"a" * 900, b"b" * 900, b"c"]
    for first, lost_at in enumerate(ends):
        path.write_bytes(whole[:lost_at] + bytes(SECTOR) + whole[lost_at + SECTOR :])
        if first:
            assert [content for _, _, content in entries(path)] == kept[:first]
        else:
            with pytest.raises(CheckpointError, match=f"is damaged at byte {SECTOR}"):
                entries(path)


def test_what_goes_with_a_record_is_not_in_its_way(tmp_path: Path) -> None:
    """Vectors lie behind the records of their batch, whatever is in them: others choose their bytes."""
    path = tmp_path / "1.ledger"
    book = WriteAheadLog(path)
    book.append(SIGNED, 0, b"one")
    book.sync()
    batch = path.read_bytes()[SECTOR:]
    book.append(TENSORS, 0, b"two", [batch, b"", b"x" * 700])
    book.append(ATTEMPT, 0, b"three", [b"yz"])
    book.append(SIGNED, 0, b"four")
    book.sync()
    place = path.stat().st_size
    book.append(SIGNED, 0, b"five")
    book.sync()
    book.close()
    found = contents(path).records
    assert [record.content for record in found] == [b"one", b"two", b"three", b"four", b"five"]
    assert found[1].attached.read(0, 10**6) == batch + b"x" * 700
    assert found[1].attached.read(SECTOR, 3) == b"xxx"
    assert found[2].attached.read(0, 2) == b"yz"
    whole = path.read_bytes()
    for damage in (bytes(len(batch)), b"\xb5" * len(batch)):  # its vectors are lost or damaged, its records are there
        path.write_bytes(whole[: place - 3 * SECTOR] + damage + whole[place - 3 * SECTOR + len(batch) :])
        assert [record.content for record in contents(path).records] == [record.content for record in found]
    path.write_bytes(whole[: place - 2 * SECTOR])  # and here its end, with all that came after it
    assert [content for _, _, content in entries(path)] == [b"one", b"two", b"three", b"four"]
    again = WriteAheadLog(path)
    again.append(SIGNED, 0, b"six")
    again.sync()
    again.close()
    assert [content for _, _, content in entries(path)] == [b"one", b"two", b"three", b"four", b"six"]
    assert contents(path).records[2].attached.read(0, 2) == b"\0\0"


LONG = bytes(1200)
"""Three sectors of a batch, and zeros that must not pass for a sector that is not there."""


def wal(path: Path, *contents: bytes) -> list[int]:
    """Write one batch for each content; where each of them begins."""
    book, begins = WriteAheadLog(path), []
    for content in contents:
        begins.append(path.stat().st_size)
        book.append(SIGNED, 0, content)
        book.sync()
    book.close()
    return begins


@pytest.mark.slow
def test_wherever_a_batch_is_cut_off_those_before_it_are_whole(tmp_path: Path) -> None:
    path = tmp_path / "1.ledger"
    _, second = wal(path, b"one", LONG)
    data = path.read_bytes()
    assert len(data) == 5 * SECTOR
    for end in range(0, len(data), 7):
        path.write_bytes(data[:end])
        kept = [(SIGNED, 0, b"one")] if end >= second else []
        assert entries(path) == kept
        wal(path, b"three")
        assert entries(path) == [*kept, (SIGNED, 0, b"three")]


def lost(data: bytes, sectors: Iterable[int]) -> bytes:
    """What a disk has that never got some sectors."""
    holes = set(sectors)
    return b"".join(
        bytes(SECTOR) if place in holes else data[place * SECTOR : (place + 1) * SECTOR]
        for place in range(len(data) // SECTOR)
    )


def test_sectors_that_the_disk_never_got_are_told_from_damage(tmp_path: Path) -> None:
    """Power is lost between the writing of a batch and the end of its sync: any of its sectors may be missing. The same
    in a batch that others follow was damage: those were written after it had been synced."""
    path = tmp_path / "1.ledger"
    wal(path, b"one", LONG)
    last = path.read_bytes()
    for holes in ({2}, {3}, {4}, {2, 3}, {2, 4}, {3, 4}, {2, 3, 4}):
        path.write_bytes(lost(last, holes))
        assert entries(path) == [(SIGNED, 0, b"one")]
        wal(path, b"two")
        assert entries(path) == [(SIGNED, 0, b"one"), (SIGNED, 0, b"two")]
    path.unlink()
    wal(path, b"one", LONG, b"three")
    followed = path.read_bytes()
    for holes in ({0}, {1}, {2}, {3}, {2, 3, 4}, {0, 1}):
        path.write_bytes(lost(followed, holes))
        with pytest.raises(CheckpointError, match="is damaged at byte"):
            entries(path)


def test_a_file_whose_opening_the_disk_never_got_has_nothing_else(tmp_path: Path) -> None:
    """It is synced before anything that follows it is written."""
    path = tmp_path / "1.ledger"
    wal(path, b"one")
    data = path.read_bytes()
    for left in (b"", data[:9], data[:200], bytes(200), bytes(SECTOR)):
        path.write_bytes(left)
        assert entries(path) == []
        wal(path, b"again")
        assert entries(path) == [(SIGNED, 0, b"again")]
    path.write_bytes(lost(data, {0}))
    with pytest.raises(CheckpointError, match="is damaged at byte 0"):
        entries(path)


@pytest.mark.slow
@pytest.mark.parametrize("flip", [0x01, 0x80, 0xFF])
def test_a_damaged_record_is_refused_wherever_the_damage_is(flip: int, tmp_path: Path) -> None:
    """A length that is damaged used to hide all that came after it: the node could have signed in those slots again."""
    path = tmp_path / "1.ledger"
    begins = wal(path, b"one", LONG, b"three")
    data = path.read_bytes()
    for place in range(len(b"BTARD ledger ."), len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        batch = max((begin for begin in begins if begin <= place), default=0)
        with pytest.raises(CheckpointError, match=f"1.ledger is damaged at byte {batch}: .*from a copy"):
            entries(path)
    with pytest.raises(CheckpointError, match=f"1.ledger is damaged at byte {begins[-1]}: .*from a copy"):
        WriteAheadLog(path)


def test_a_node_whose_ledger_is_damaged_does_not_go_on(tmp_path: Path) -> None:
    """Not where what it has signed since the step before may be missing; what was said long ago binds nobody."""
    where = tmp_path / "0"
    played(tmp_path, steps=4)
    (path,) = files(where)
    whole, batches = path.read_bytes(), []
    for place in range(SECTOR, len(whole), SECTOR):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        if contents(path).damage:
            batches.append(place)
    assert len(batches) > 30
    refused = []
    for place in batches:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x40]) + whole[place + 1 :])
        again = checkpointer(tmp_path)
        try:
            at = again.newest(ROSTER, UPDATE)
            assert at is not None
            again.recall(at.state.step, at.number)
            assert "is damaged at byte" in again.problems[-1]
        except CheckpointError as error:
            assert "is damaged at byte" in str(error)
            refused.append(place)
        again.close()
    assert 0 < len(refused) < len(batches)
    assert refused[-1] == batches[-1], "the end of the ledger"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x03\x00\x00\x00\x00\x00\x00\x00\x00one", "no ledger of format 4: of an earlier release"),
        (b"BTARD ledger \x03whatever", "a ledger of format 3, this program reads 4"),
    ],
    ids=["earlier", "later"],
)
def test_a_ledger_of_another_format_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "1.ledger"
    path.write_bytes(content)
    for use in (contents, WriteAheadLog):
        with pytest.raises(CheckpointError, match=words):
            use(path)
    assert path.read_bytes() == content


def test_a_slot_in_which_it_has_spoken_gets_the_same_message_again(tmp_path: Path) -> None:
    """A restarted peer composes something else: what it says is what it said, byte for byte."""
    slot = Slot(GENESIS, b"r" * 32, 0, 0, Phase.HELLO, 0)
    said, other = Hello(slot, (), b"g", b"before"), Hello(slot, (), b"g", b"after")
    suspect = Slot(GENESIS, b"r" * 32, 0, 0, Phase.SUSPECT, 0)
    first = checkpointer(tmp_path)
    kept = first.sign(encode_body(said), lambda body: Signed(body, b"s" * 64))
    suspected = first.sign(encode_body(Suspect(suspect, (), Phase.AGG, 1)), lambda body: Signed(body, b"t" * 64))
    first.secure()
    first.close()
    again = checkpointer(tmp_path)
    assert again.recall(0) == [MessageArrived(None, suspected)], "it may be what froze the attempt"
    assert again.sign(encode_body(other), _never) == kept
    assert again.sign(encode_body(Suspect(suspect, (), Phase.AGG, 1)), _never).signature == b"t" * 64
    fresh = again.sign(encode_body(Suspect(suspect, (), Phase.AGG, 2)), lambda body: Signed(body, b"u" * 64))
    assert fresh.signature == b"u" * 64, "a suspicion of another slot is another message"
    again.close()


def _never(body: bytes) -> Signed:
    raise AssertionError("it signed a second message for a slot")


# --- checkpoints ----------------------------------------------------------------------------------------------


def test_a_node_goes_on_from_its_newest_checkpoint_with_what_it_had_heard(tmp_path: Path) -> None:
    node = played(tmp_path, 3)[0]
    kept = checkpointer(tmp_path)
    at = kept.newest(ROSTER, UPDATE)
    assert at is not None
    assert (at.state.step, at.number) == (4, 0)
    assert parameters_digest(at.state.parameters_D) == parameters_digest(node.peer.state.parameters_D)
    assert at.state.summary == node.peer.state.summary
    assert at.past is not None
    assert at.past.state.step == 3
    restored = Attempt.of(at.past, node.peer.shared.settings, node.peer.shared.tools, 0, b"")
    assert node.peer.past is not None
    assert restored.transcript.digest == node.peer.past.transcript.digest
    assert restored.z.equal(node.peer.past.z)
    heard = kept.recall(4)
    assert heard
    assert all(isinstance(event, MessageArrived) and event.via not in (None, 0) for event in heard)
    assert attempts(tmp_path / "0") == [(step, 0) for step in range(5)]
    kept.close()


def test_tensors_of_an_attempt_are_kept_before_its_end_is_said_and_are_heard_again(tmp_path: Path) -> None:
    node = played(tmp_path, 4)[0]
    kept, written = checkpointer(tmp_path), records(tmp_path / "0", TENSORS)
    assert [name for name, _ in _named(written)] == [(step, 0) for step in range(5)]
    assert node.peer.past is not None
    held = {event.key.owner: event.values_P for event in kept.recall(4) if isinstance(event, BulkArrived)}
    assert held.keys() == node.peer.past.aggregates.keys()
    assert all(held[owner].equal(values_P) for owner, values_P in node.peer.past.aggregates.items())
    at = kept.newest(ROSTER, UPDATE)
    assert at is not None
    assert at.past is not None
    assert at.past.aggregates.keys() == held.keys(), "the checkpoint of step 5 needs no others"
    kept.close()


def _named(found: list[Record]) -> list[tuple[Name, Record]]:
    return [(names_of(record), record) for record in found]


def names_of(record: Record) -> Name:
    step, number, *_ = msgspec.msgpack.decode(record.content)
    return step, number


def saved(where: Path, kind: int, step: int) -> Record:
    """The record of an attempt, or of its tensors."""
    return dict(_named(records(where, kind)))[step, 0]


def test_damaged_tensors_of_the_attempt_under_way_are_left_out_and_told(tmp_path: Path) -> None:
    played(tmp_path, 3)
    record = saved(tmp_path / "0", TENSORS, 3)
    spoil(record, -1)
    kept = checkpointer(tmp_path)
    assert not [event for event in kept.recall(3) if isinstance(event, BulkArrived)]
    problem = f"{record.attached.path}, tensors of step 3 attempt 0 is damaged: its content does not match its digest"
    assert kept.problems == [problem]
    at = kept.newest(ROSTER, UPDATE)
    assert at is not None
    assert at.state.step == 3, "the checkpoint of step 4 needs them; the one before serves"
    kept.close()


@pytest.mark.parametrize("place", [60, 0.3, 0.6, -1], ids=["header", "messages", "certificate", "last byte"])
def test_where_a_checkpoint_is_damaged_the_one_before_serves(place: float, tmp_path: Path) -> None:
    played(tmp_path, 3)
    record = saved(tmp_path / "0", ATTEMPT, 4)
    spoil(record, int(record.attached.size * place) if isinstance(place, float) else place)
    kept = checkpointer(tmp_path)
    at = kept.newest(ROSTER, UPDATE)
    assert at is not None
    assert (at.state.step, at.number) == (3, 0)
    problem = (
        f"{record.attached.path}, checkpoint of step 4 attempt 0 is damaged: its content does not match its digest"
    )
    assert kept.problems == [problem]
    kept.close()


def test_a_model_is_written_at_the_beginning_of_a_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And files are kept that the steps of a checkpoint lie in, with the one before them."""
    monkeypatch.setattr("btard.node.storage.disk._LEAST", 2)
    monkeypatch.setattr("btard.node.storage.disk._MOST", 2)
    played(tmp_path, 5)
    model = 4 * (TASK.dimension + UPDATE.initial_state(TASK.dimension).numel())
    found = _named(records(tmp_path / "0", ATTEMPT))
    vectors = {step: record.attached.size - header_bytes(record) for (step, _), record in found}
    assert vectors == {2: model, 3: 0, 4: model, 5: 0, 6: model}
    assert [path.stem for path in files(tmp_path / "0")] == ["00000001", "00000002", "00000003"]


def header_bytes(record: Record) -> int:
    size: int = msgspec.msgpack.decode(record.content)[2]
    return size


def test_a_damaged_model_is_made_again_from_the_one_before_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From an older file: its model, and the updates since. Where that is damaged as well, no checkpoint serves that
    follows from it, and nothing is changed."""
    monkeypatch.setattr("btard.node.storage.disk._LEAST", 2)
    monkeypatch.setattr("btard.node.storage.disk._MOST", 2)
    node = played(tmp_path, 4)[0]
    where = tmp_path / "0"
    wanted = node.peer.state
    assert wanted.step == 5
    firsts = [contents(path).records for path in files(where)]
    models = [next(record for record in found if record.kind == ATTEMPT) for found in firsts]
    assert [names_of(record)[0] for record in models] == [0, 2, 4]
    spoil(models[-1], -1)
    kept = checkpointer(tmp_path)
    at = kept.newest(ROSTER, UPDATE)
    assert at is not None
    assert at.state.summary == wanted.summary
    assert at.state.parameters_D.equal(wanted.parameters_D) and at.state.optimiser_D.equal(wanted.optimiser_D)
    assert kept.problems == []
    kept.close()
    spoil(models[0], -1)
    spoil(models[1], -1)
    content = [path.read_bytes() for path in files(where)]
    kept = checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint can be used") as refused:
        kept.newest(ROSTER, UPDATE)
    assert "\n" not in str(refused.value)
    assert [path.read_bytes() for path in files(where)] == content
    kept.close()


def test_a_node_without_a_whole_checkpoint_but_of_step_0_begins_by_the_genesis(tmp_path: Path) -> None:
    """After a loss of power its model may be what the disk never got; what was signed stands."""
    played(tmp_path, -1)
    (begun,) = records(tmp_path / "0", ATTEMPT)
    spoil(begun, -1)
    kept = checkpointer(tmp_path)
    assert kept.newest(ROSTER, UPDATE) is None
    assert len(kept.problems) == 1 and "a whole model, which leads to step 0" in kept.problems[0]
    heard = kept.recall(0, 0)
    assert kept.has_said(Phase.COMMIT, 0, 0) and any(isinstance(event, MessageArrived) for event in heard)
    kept.close()


def test_an_update_that_leads_elsewhere_is_noticed(tmp_path: Path) -> None:
    """All peers have signed what the model is: a replay that comes to another one does not serve."""
    played(tmp_path, 3)
    other = optimiser_of(msgspec.structs.replace(RUN, lr=2 * RUN.lr), TASK.dimension, TASK.layout)
    kept = checkpointer(tmp_path)
    at = kept.newest(ROSTER, other)
    assert at is not None
    assert at.state.step == 0, "its model is written"
    assert "its model is not the one that all have signed" in kept.problems[0]
    kept.close()


def test_another_runs_and_another_environments_checkpoints_are_refused(tmp_path: Path) -> None:
    played(tmp_path, 2)
    for kept, words in (
        (lambda: checkpointer(tmp_path, run=b"x" * 32), "belongs to another run or node"),
        (lambda: checkpointer(tmp_path, print_=b"y" * 32), "was written in another environment"),
    ):
        opened = kept()
        with pytest.raises(CheckpointError, match=words):
            opened.newest(ROSTER, UPDATE)
        opened.close()


def test_one_process_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("btard.node.storage.checkpointer._PATIENCE_S", 0.0)
    first = checkpointer(tmp_path)
    with pytest.raises(BackendError, match="in use: node 0 of this run is running; stop it first"):
        checkpointer(tmp_path)
    first.close()
    checkpointer(tmp_path).close()


@pytest.mark.parametrize(
    "attack",
    [Plugin("withhold_part", {"to": "all", "again": True}), Plugin("withhold_reveal")],
    ids=["by all CLOSEs", "by an OUTCOME"],
)
def test_an_attempt_that_was_void_comes_back_with_the_one_after_it(attack: Plugin, tmp_path: Path) -> None:
    """Its dispute may be still to come, and this node may hold what ends it."""
    roles = {5: Role((attack,), Schedule(start=2), (5,))}
    cluster = Cluster(tmp_path, Conditions(), roles, 1)
    playing = cluster.watched.simulation.run()
    begun = (seen.output for seen in playing if seen.node == 0)
    again = next(output for output in begun if isinstance(output, PhaseEntered) and output.attempt == 1)
    next(seen for seen in playing if seen.node != 0)  # what is told is kept next
    peer = cluster.watched.simulation.nodes[0].peer
    assert peer.router.previous.round is not None
    ended = peer.router.previous.round.attempt
    for each in cluster.keepers.values():
        each.close()
    kept = Checkpointer(
        tmp_path / "0", genesis_digest(RUN_ID, cluster.run, cluster.members), 0, peer.shared.settings.fingerprint
    )
    at = kept.newest(genesis_roster(cluster.members), peer.shared.tools.optimiser)
    assert at is not None
    assert (at.state.step, at.number) == (again.step, 1)
    assert at.past is not None and at.past.state.step == again.step - 1
    assert at.before is not None
    cluster.watched.simulation.nodes[0].restore(at)  # which computes its own gradient again
    assert peer.resumption is not None and peer.resumption.before is not None
    restored = Attempt.of(peer.resumption.before, peer.shared.settings, peer.shared.tools, 0, b"")
    assert (restored.step, restored.number, restored.r) == (ended.step, 0, ended.r)
    assert restored.state.roster == ended.state.roster
    assert restored.state.parameters_D.equal(ended.state.parameters_D)
    assert restored.transcript.finished == ended.transcript.finished
    assert restored.transcript.digest == ended.transcript.digest
    assert set(restored.transcript.everything()) == set(ended.transcript.everything()) != set()
    for found, wanted in ((restored.aggregates, ended.aggregates), (restored.publications, ended.publications)):
        assert found.keys() == wanted.keys()
        assert all(found[key].equal(values_P) for key, values_P in wanted.items())
    assert restored.own_D is not None and ended.own_D is not None
    assert restored.own_D.equal(ended.own_D)
    kept.close()
