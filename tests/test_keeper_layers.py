"""The window of undo on disk: its steps are in their own checkpoints, kept as long as a newer one names them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from btard.node.config import Plugin
from btard.node.errors import CheckpointError
from btard.node.protocol.adjudication.judging import gradient_fault
from btard.node.protocol.api import PhaseEntered, Undone
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.mprng import Share
from btard.node.protocol.peer import Peer
from btard.node.protocol.roster import Roster
from btard.node.storage import checkpoint
from btard.node.storage.checkpointer import Checkpointer
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
    at = opened.newest(roster)
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


def test_every_checkpoint_that_is_kept_has_all_it_names(tmp_path: Path) -> None:
    """At the beginning of each attempt, through an undo step, void attempts and two bans."""
    stage = stage_of({4: [Plugin("sign_flip")], 5: [Plugin("stall")]}, 0, window=WINDOW)
    saving, peer = checkpointer(tmp_path), stage.simulation.nodes[0].peer
    roster, attempts, undone = Roster.genesis(peer.state.roster.keys), set(), 0
    for seen in stage.simulation.run():
        output = seen.output
        undone += seen.node == 0 and isinstance(output, Undone)
        if seen.node != 0 or not isinstance(output, PhaseEntered) or output.phase != "COMMIT":
            continue
        saving.hold(*(peer.holdings() or (0, 0, {})))
        saving.save(peer.snapshot())
        attempts.add((output.step, output.attempt))
        files = sorted(tmp_path.glob("*.checkpoint"))
        at = [checkpoint.load(path, b"r" * 32, 0, roster).at for path in files[-3:]]
        assert at[-1].state.summarise(b"t").digest == peer.state.summarise(b"t").digest
        assert at[-1].state.window.digest == peer.state.window.digest
        named = {layer.step for each in at for layer in each.state.window.layers}
        newest = {each.state.step for each in at}
        kept = {int(path.stem.split("-")[0]) for path in files}
        assert kept <= newest | {step - 1 for step in newest} | named | {step + 1 for step in named}, "or it is removed"
    saving.close()
    assert undone
    assert any(number for _, number in attempts), "an attempt was void"
    assert max(attempts) > (2 * WINDOW, 0)


def test_a_damaged_layer_is_one_clear_line(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    path = tmp_path / f"{peer.state.window.layers[0].step + 1:08d}-000.checkpoint"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    opened = checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match="no checkpoint can be used") as refused:
        opened.newest(roster)
    opened.close()
    assert f"{path} is damaged: its content does not match its digest" in str(refused.value)
    path.unlink()
    opened = checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match=f"needs a checkpoint of step {int(path.stem[:8])}; use the run"):
        opened.newest(roster)
    opened.close()


def test_a_layer_of_other_steps_is_refused(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    step = peer.state.window.layers[0].step + 1
    first, second = (tmp_path / f"{number:08d}-000.checkpoint" for number in (step, step + 1))
    first.write_bytes(second.read_bytes())
    opened = checkpointer(tmp_path)
    with pytest.raises(CheckpointError, match="is not of the steps that"):
        opened.newest(roster)
    opened.close()
    assert torch.isfinite(peer.state.parameters_D).all()
