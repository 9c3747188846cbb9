"""What a node keeps for after a crash: whole files or none, one message a slot, a clear line where it cannot go on."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from btard.node.build import Node, build_node, task_of
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
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.storage.wal import HEARD, SECTOR, SIGNED, WriteAheadLog, read
from btard.node.training.environment import fingerprint
from tests.simulation.restarting import RUN_ID, Cluster

RUN = RunConfig(peers=4, task=Plugin("quadratic"), steps=6, batch_size=4)
MEMBERS, SECRETS = generate(0, RUN.peers)
GENESIS = genesis_digest("run", RUN, MEMBERS)
PRINT = fingerprint("cpu")


def checkpointer(where: Path, node: int = 0, run: bytes = GENESIS, print_: bytes = PRINT) -> Checkpointer:
    return Checkpointer(where / str(node), run, node, print_)


def played(where: Path, steps: int) -> list[Node]:
    """Four nodes, each with a memory under `where`, until node 0 has committed a step and kept what begins after it."""
    task = task_of(RUN, Path("unused"))
    configs = [NodeConfig("run", me, RUN, MEMBERS, "", "", "") for me in range(RUN.peers)]
    nodes = {
        config.node: build_node(
            config, SECRETS[config.node], task, PRINT, checkpointer=checkpointer(where, config.node)
        )
        for config in configs
    }
    simulation = Simulation(nodes, Network(LinkModel()), remembering_gradients(task))
    committed = False
    for seen in simulation.run():
        if committed and seen.node != 0:
            break
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
    assert read(path) == [(SIGNED, 0, b"one")]
    again = WriteAheadLog(path)
    again.append(HEARD, 3, b"three")
    again.sync()
    again.append(HEARD, 3, b"led to nothing")
    again.close()
    assert read(path) == [(SIGNED, 0, b"one"), (HEARD, 3, b"three")]
    assert read(tmp_path / "none.ledger") == []


class _Watched(Disk):
    """Notes in which order a file is written and waited for."""

    def __init__(self) -> None:
        super().__init__()
        self.happened: list[str] = []

    def write(self, file: int, data: bytes | memoryview) -> None:
        self.happened.append("write")
        super().write(file, data)

    def sync(self, file: int) -> None:
        self.happened.append("sync")
        super().sync(file)


def test_only_the_last_batch_can_be_one_that_the_disk_loses(tmp_path: Path) -> None:
    """The journal may tell of something twice before anything leaves; a loss of power then is no damage."""
    path, disk = tmp_path / "x.ledger", _Watched()
    book, ends = WriteAheadLog(path, disk), []
    for content in (b"a" * 900, b"b" * 900, b"c"):
        book.append(HEARD, 1, content)
        book.write()
        ends.append(path.stat().st_size)
    assert disk.happened == ["write", "write", "sync", "write", "sync", "write"]
    book.sync()
    book.sync()
    assert disk.happened[6:] == ["sync"]
    whole = path.read_bytes()
    lost = whole[: ends[1]].ljust(len(whole), b"\0")
    path.write_bytes(lost)
    assert [content[:1] for _, _, content in read(path)] == [b"a", b"b"]


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
        assert read(path) == kept
        wal(path, b"three")
        assert read(path) == [*kept, (SIGNED, 0, b"three")]


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
        assert read(path) == [(SIGNED, 0, b"one")]
        wal(path, b"two")
        assert read(path) == [(SIGNED, 0, b"one"), (SIGNED, 0, b"two")]
    path.unlink()
    wal(path, b"one", LONG, b"three")
    followed = path.read_bytes()
    for holes in ({0}, {1}, {2}, {3}, {2, 3, 4}, {0, 1}):
        path.write_bytes(lost(followed, holes))
        for use in (read, WriteAheadLog):
            with pytest.raises(CheckpointError, match="is damaged at byte"):
                use(path)


def test_the_opening_may_be_missing_with_the_first_batch_alone(tmp_path: Path) -> None:
    path = tmp_path / "1.ledger"
    wal(path, LONG)
    data = path.read_bytes()
    for holes in ({0}, {0, 1}, {0, 2}, {0, 1, 2, 3}):
        path.write_bytes(lost(data, holes))
        assert read(path) == []
        wal(path, b"again")
        assert read(path) == [(SIGNED, 0, b"again")]


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
            read(path)
    with pytest.raises(CheckpointError, match=f"1.ledger is damaged at byte {begins[-1]}: .*from a copy"):
        WriteAheadLog(path)


def test_a_node_whose_ledger_is_damaged_does_not_go_on(tmp_path: Path) -> None:
    where = tmp_path / "0"
    played(tmp_path, steps=2)
    path = sorted(where.glob("*.ledger"))[-2]
    whole = path.read_bytes()
    assert len(read(path)) > 2
    path.write_bytes(whole[:513] + b"\xff\xff\xff\x00" + whole[517:])
    again = checkpointer(tmp_path)
    at = again.newest(genesis_roster(MEMBERS))
    assert at is not None
    with pytest.raises(CheckpointError, match="is damaged at byte 512"):
        again.recall(at.state.step, at.number)
    again.close()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\x03\x00\x00\x00\x00\x00\x00\x00\x00one", "no ledger of format 3: of an earlier release"),
        (b"BTARD ledger \x02whatever", "a ledger of format 2, this program reads 3"),
    ],
    ids=["earlier", "later"],
)
def test_a_ledger_of_another_format_is_refused(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "1.ledger"
    path.write_bytes(content)
    for use in (read, WriteAheadLog):
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
    first.sign(encode_body(Suspect(suspect, (), Phase.AGG, 1)), lambda body: Signed(body, b"t" * 64))
    first.secure()
    first.close()
    again = checkpointer(tmp_path)
    assert again.recall(0) == []
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
    at = kept.newest(genesis_roster(MEMBERS))
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
    steps = [path.stem for path in sorted((tmp_path / "0").glob("*.checkpoint"))]
    assert steps == [f"{step:08d}-000" for step in range(1, 5)], "three, and the one whose model the oldest names"
    kept.close()


def test_tensors_of_an_attempt_are_written_before_its_end_is_said_and_are_heard_again(tmp_path: Path) -> None:
    node = played(tmp_path, 4)[0]
    kept, files = checkpointer(tmp_path), sorted((tmp_path / "0").glob("*.tensors"))
    assert [path.stem for path in files] == [f"{step:08d}-000" for step in range(1, 5)], "older ones are removed"
    assert node.peer.past is not None
    held = {event.key.owner: event.values_P for event in kept.recall(4) if isinstance(event, BulkArrived)}
    assert held.keys() == node.peer.past.aggregates.keys()
    assert all(held[owner].equal(values_P) for owner, values_P in node.peer.past.aggregates.items())
    at = kept.newest(genesis_roster(MEMBERS))
    assert at is not None
    assert at.past is not None
    assert at.past.aggregates.keys() == held.keys(), "the checkpoint of step 5 names the file of step 4"
    kept.close()


def test_damaged_tensors_of_the_attempt_under_way_are_left_out_and_told(tmp_path: Path) -> None:
    played(tmp_path, 3)
    path = tmp_path / "0" / "00000003-000.tensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    kept = checkpointer(tmp_path)
    assert not [event for event in kept.recall(3) if isinstance(event, BulkArrived)]
    assert kept.problems == [f"{path} is damaged: its content does not match its digest"]
    at = kept.newest(genesis_roster(MEMBERS))
    assert at is not None
    assert at.state.step == 3, "the checkpoint of step 4 needs that file; the one before serves"
    kept.close()


@pytest.mark.slow
@pytest.mark.parametrize("place", [60, 0.3, 0.6, -1], ids=["header", "messages", "vectors", "last byte"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_serves(place: float, tmp_path: Path) -> None:
    played(tmp_path, 3)
    *_, before, newest = sorted((tmp_path / "0").glob("*.checkpoint"))
    data = bytearray(newest.read_bytes())
    data[int(len(data) * place) if isinstance(place, float) else place] ^= 1
    newest.write_bytes(data)
    kept = checkpointer(tmp_path)
    at = kept.newest(genesis_roster(MEMBERS))
    assert at is not None
    assert f"{at.state.step:08d}-{at.number:03d}" == before.stem
    assert kept.problems == [f"{newest} is damaged: its content does not match its digest"]
    assert newest.with_suffix(".damaged").read_bytes() == data, "nothing is lost"
    kept.close()


def test_a_checkpoint_whose_model_of_the_step_before_is_damaged_does_not_serve(tmp_path: Path) -> None:
    played(tmp_path, 4)
    *_, serves, damaged, newest = sorted((tmp_path / "0").glob("*.checkpoint"))
    data = bytearray(damaged.read_bytes())
    data[-1] ^= 1
    damaged.write_bytes(data)
    kept = checkpointer(tmp_path)
    at = kept.newest(genesis_roster(MEMBERS))
    assert at is not None
    assert f"{at.state.step:08d}-{at.number:03d}" == serves.stem
    assert at.past is not None
    assert parameters_digest(at.past.state.parameters_D) != parameters_digest(at.state.parameters_D)
    assert kept.problems == [f"{damaged} is damaged: its content does not match its digest"] * 2
    assert {path.stem for path in (tmp_path / "0").glob("*.damaged")} == {damaged.stem, newest.stem}
    kept.close()


DAMAGE = {
    "empty": (lambda data: b"", "is damaged: it does not begin as a checkpoint does"),
    "cut": (lambda data: data[:-1], "is damaged: its content does not match its digest"),
    "a later format": (
        lambda data: data[:17] + b"\x63" + data[18:],
        "format 99, this program reads 8; use the release",
    ),
    "the one before": (lambda data: data[:17] + b"\x07" + data[18:], "format 7, this program reads 8; use btard 0.1.0"),
}


@pytest.mark.parametrize(("change", "words"), DAMAGE.values(), ids=DAMAGE)
def test_where_no_checkpoint_can_be_used_there_is_one_line_and_nothing_changes(
    change: object, words: str, tmp_path: Path
) -> None:
    assert callable(change)
    played(tmp_path, 3)
    files = sorted((tmp_path / "0").glob("*.checkpoint"))
    for path in files:
        path.write_bytes(change(path.read_bytes()))
    kept = checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint can be used") as refused:
        kept.newest(genesis_roster(MEMBERS))
    assert words in str(refused.value)
    assert "\n" not in str(refused.value)
    assert sorted((tmp_path / "0").glob("*.checkpoint")) == files
    kept.close()


def test_another_runs_and_another_environments_checkpoints_are_refused(tmp_path: Path) -> None:
    played(tmp_path, 2)
    for kept, words in (
        (lambda: checkpointer(tmp_path, run=b"x" * 32), "belongs to another run or node"),
        (lambda: checkpointer(tmp_path, print_=b"y" * 32), "was written in another environment"),
    ):
        opened = kept()
        with pytest.raises(CheckpointError, match=words):
            opened.newest(genesis_roster(MEMBERS))
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
    at = kept.newest(genesis_roster(cluster.members))
    assert at is not None
    assert (at.state.step, at.number) == (again.step, 1)
    assert at.past is not None and at.past.state.step == again.step - 1
    assert at.before is not None
    restored = Attempt.of(at.before, peer.shared.settings, peer.shared.tools, 0, b"")
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
