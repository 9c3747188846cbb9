"""The window of undo on disk: each step's layer is written once, named by the checkpoints, and gone with the last."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from node.config import Plugin
from node.errors import CheckpointError
from node.keeper import Keeper
from node.protocol.attempt import Attempt
from node.protocol.events import PhaseEntered
from node.protocol.peer import Peer
from node.protocol.randomness import Share
from node.protocol.roster import Roster
from node.protocol.tribunal import gradient_fault
from node.protocol.undo import earlier
from tests.simulation.stage import Stage
from tests.simulation.test_undo import stage_of

WINDOW = 4


def keeper(where: Path) -> Keeper:
    return Keeper(where, b"r" * 32, 0, b"f")


def kept(where: Path, steps: int) -> tuple[Stage, Peer, Roster]:
    """Peer 0, with every attempt saved, at the beginning of a step; peer 4 is banned in step 4."""
    stage = stage_of([Plugin("sign_flip")], 0, window=WINDOW)
    saving, peer = keeper(where), stage.simulation.nodes[0].peer
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
    opened = keeper(tmp_path)
    at = opened.newest(roster)
    opened.close()
    assert at is not None
    held, known = at.state.window, peer.state.window
    assert held.due == known.due != ()
    assert (held.checkers, held.forgotten, held.examined) == (known.checkers, known.forgotten, known.examined)
    assert held.digest == known.digest
    assert at.state.summarise(b"t").digest == peer.state.summarise(b"t").digest
    attempt = Attempt(peer.settings, peer.tools, at.state, 0, 0, Share(b"", b""))
    assert peer.attempt is not None
    assert attempt.shares == peer.attempt.shares
    for item in held.due:
        past = earlier(attempt, item)
        true_D, _ = stage.task.gradient(past.state.parameters_D, past.seed(item.owner))
        fault = gradient_fault(past, item.owner, true_D)
        assert (fault is not None) == (item.step in (3, 4)), item


def test_layers_are_written_once_and_removed_with_the_last_checkpoint_that_names_them(tmp_path: Path) -> None:
    kept(tmp_path, 9)
    steps = sorted(int(path.stem) for path in tmp_path.glob("*.layer"))
    opened = keeper(tmp_path)
    at = opened.newest(Roster.genesis(stage_of({}, 0).ground().keys))
    opened.close()
    assert at is not None
    assert {layer.step for layer in at.state.window.layers} <= set(steps)
    assert len(steps) <= WINDOW + 2, "two checkpoints before the newest may name one more each"
    assert 5 not in steps, "an undo step has no gradients, so no layer"


def test_a_damaged_layer_is_one_clear_line(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    path = tmp_path / f"{peer.state.window.layers[-1].step:08d}.layer"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    opened = keeper(tmp_path)
    at = opened.newest(roster)
    assert at is not None
    assert at.state.step == 4, "the checkpoint before does not name it"
    assert opened.problems == [f"{path} is damaged: its content does not match its digest"]
    opened.close()
    for layer in tmp_path.glob("*.layer"):
        layer.unlink()
    opened = keeper(tmp_path)
    with pytest.raises(CheckpointError, match=r"no checkpoint can be used: cannot read the checkpoint .*\.layer"):
        opened.newest(roster)
    opened.close()


def test_a_layer_of_another_run_is_refused(tmp_path: Path) -> None:
    _, peer, roster = kept(tmp_path, 5)
    first, *others = sorted(tmp_path.glob("*.layer"))
    others[0].write_bytes(first.read_bytes())
    opened = keeper(tmp_path)
    with pytest.raises(CheckpointError, match="is not the layer that the checkpoint names"):
        opened.newest(roster)
    opened.close()
    assert torch.isfinite(peer.state.parameters_D).all()
