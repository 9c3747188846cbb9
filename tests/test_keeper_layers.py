"""The window of undo on disk: its steps are in the checkpoints after them, kept as long as a newer one names them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from btard.node.config import Plugin
from btard.node.errors import CheckpointError
from btard.node.protocol.adjudication.judging import gradient_fault
from btard.node.protocol.api import PhaseEntered, Undone
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import Share
from btard.node.protocol.peer import Peer
from btard.node.protocol.roster import Roster
from btard.node.storage.checkpoint import History
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.wal import ATTEMPT, contents
from tests.ledgers import attempts, files, records, spoil
from tests.simulation.stage import Stage
from tests.simulation.test_undo import stage_of

WINDOW = 4


def checkpointer(where: Path) -> Checkpointer:
    return Checkpointer(where, b"r" * 32, 0, b"f")


def kept(where: Path, steps: int) -> tuple[Stage, Peer, Roster]:
    """Peer 0, with every attempt saved, at the beginning of a step; peer 4 is banned in step 4."""
    stage = stage_of([Plugin("sign_flip")], 0, window=WINDOW)
    saving, peer = checkpointer(where), stage.simulation.nodes[0].peer
    for seen in stage.simulation.run():
        entered = seen.output
        if seen.node == 0 and isinstance(entered, PhaseEntered) and entered.phase == "COMMIT":
            saving.save(peer.snapshot())
            if entered.step == steps:
                break
    saving.close()
    return stage, peer, Roster.genesis(peer.state.roster.keys)


def test_an_undo_step_goes_on_from_disk_as_from_memory(tmp_path: Path) -> None:
    stage, peer, roster = kept(tmp_path, 5)
    opened = checkpointer(tmp_path)
    at = opened.newest(roster, peer.shared.tools.optimiser)
    opened.close()
    assert at is not None
    held, known = at.state.window, peer.state.window
    assert at.state.summary == peer.state.summary and at.state.summary.undo != ()
    assert (held.forgotten, held.examined) == (known.forgotten, known.examined)
    assert held.digest == known.digest
    assert at.state.summarise(b"t").digest == peer.state.summarise(b"t").digest
    attempt = Attempt(peer.shared.settings, peer.shared.tools, at.state, 0, 0, Share(b"", b""))
    assert peer.attempt is not None
    assert attempt.shares == peer.attempt.shares
    for item in at.state.summary.undo:
        past = attempt.earlier(item)
        true_D, _ = stage.task.gradient(past.state.parameters_D, past.seed(item.owner))
        fault = gradient_fault(past, item.owner, true_D)
        assert (fault is not None) == (item.step in (3, 4)), item


def test_every_checkpoint_that_is_kept_has_all_it_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the beginning of each attempt, through an undo step, void attempts and two bans; in files of few steps."""
    monkeypatch.setattr("btard.node.storage.disk._LEAST", 3)
    monkeypatch.setattr("btard.node.storage.disk._MOST", 3)
    stage = stage_of({4: [Plugin("sign_flip")], 5: [Plugin("stall")]}, 0, window=WINDOW)
    saving, peer = checkpointer(tmp_path), stage.simulation.nodes[0].peer
    roster, saved, undone = Roster.genesis(peer.state.roster.keys), set(), 0
    for seen in stage.simulation.run():
        output = seen.output
        undone += seen.node == 0 and isinstance(output, Undone)
        if seen.node != 0 or not isinstance(output, PhaseEntered) or output.phase != "COMMIT":
            continue
        saving.hold(*(peer.holdings() or (0, 0, {}, {})))
        saving.save(peer.snapshot())
        saved.add((output.step, output.attempt))
        found = [record for path in files(tmp_path) for record in contents(path).records]
        history = History(found, b"r" * 32, 0, roster, peer.shared.tools.optimiser)
        at = [history.load(name).at for name in history.names[:3]]
        assert at[0].state.summarise(b"t").digest == peer.state.summarise(b"t").digest
        assert at[0].state.window.digest == peer.state.window.digest
        assert [layer.digest for layer in at[0].state.window.layers] == [
            layer.digest for layer in peer.state.window.layers
        ]
        for kept, known in zip(at[0].state.window.layers, peer.state.window.layers, strict=True):
            assert kept.record.state.parameters_D.equal(known.record.state.parameters_D)
            assert kept.record.state.optimiser_D.equal(known.record.state.optimiser_D)
            assert all(kept.record.aggregates[owner].equal(P) for owner, P in known.record.aggregates.items())
        assert len(files(tmp_path)) <= 5, "or older ones are removed"
    saving.close()
    assert undone
    assert any(number for _, number in saved), "an attempt was void"
    assert max(saved) > (2 * WINDOW, 0)


def test_where_a_file_begins_behind_an_undo_step_the_checkpoint_before_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Peers 4 and 5 lie from the start on: the undo step goes back to the first of the window, and leaves nothing of
    it; its own checkpoint, which names all of it, serves where the one after it is damaged."""
    monkeypatch.setattr("btard.node.storage.disk._LEAST", 2)
    monkeypatch.setattr("btard.node.storage.disk._MOST", 2)
    stage = stage_of([Plugin("sign_flip")], 0, window=2 * WINDOW, start=1, validate_every=2)
    saving, peer = checkpointer(tmp_path), stage.simulation.nodes[0].peer
    roster, emptied = Roster.genesis(peer.state.roster.keys), 0
    for seen in stage.simulation.run():
        output = seen.output
        if seen.node != 0 or not isinstance(output, PhaseEntered) or output.phase != "COMMIT":
            continue
        saving.hold(*(peer.holdings() or (0, 0, {}, {})))
        saving.save(peer.snapshot())
        found = [record for path in files(tmp_path) for record in contents(path).records]
        history = History(found, b"r" * 32, 0, roster, peer.shared.tools.optimiser)
        before = [history.load(name).at.state.window.layers for name in history.names[1:2]]
        emptied += output.step > 1 and not peer.state.window.layers and len(before[0]) == 2 * WINDOW
    saving.close()
    assert emptied, "an undo step took back all that the window had"


def test_a_damaged_layer_is_one_clear_line(tmp_path: Path) -> None:
    """And what came before it serves as long as others may tell the rest."""
    _, peer, roster = kept(tmp_path, 5)
    step = peer.state.window.layers[0].step + 1
    record = records(tmp_path, ATTEMPT)[attempts(tmp_path).index((step, 0))]
    spoil(record, 0)
    opened = checkpointer(tmp_path)
    at = opened.newest(roster, peer.shared.tools.optimiser)
    opened.close()
    assert at is not None and at.state.step == step - 1
    where = f"{record.attached.path}, checkpoint of step {step} attempt 0"
    assert set(opened.problems) == {f"{where} is damaged: its content does not match its digest"}


def test_a_layer_of_other_steps_is_refused(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    update, opened = peer.shared.tools.optimiser, checkpointer(tmp_path)
    at = opened.newest(roster, update)
    assert at is not None and opened.problems == []
    first, *others = at.state.window.layers
    window = replace(at.state.window, layers=(replace(first, digest=b"x" * 32), *others))
    opened.save(replace(at, number=at.number + 1, state=replace(at.state, window=window)))
    opened.close()
    opened = checkpointer(tmp_path)
    again = opened.newest(roster, update)
    opened.close()
    assert again is not None and again.number == at.number
    assert f"checkpoint of step {first.step + 1} attempt 0 is not of the steps that" in opened.problems[0]


def test_a_ledger_without_a_step_of_the_window_is_one_clear_line(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    found = [record for path in files(tmp_path) for record in contents(path).records]
    step, saved = peer.state.window.layers[0].step + 1, attempts(tmp_path)
    lacking = [record for record, name in zip(found, saved, strict=True) if name != (step, 0)]
    with pytest.raises(CheckpointError, match=f"lacks a checkpoint of step {step}, which leads to"):
        History(lacking, b"r" * 32, 0, roster, peer.shared.tools.optimiser).load(saved[-1])
