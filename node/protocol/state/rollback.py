"""Undo: contributions of removed peers are recomputed, and the state goes back to before the first that is false.

A pure function of the agreed state, the undo step's transcript and recomputation (docs/adr/0031-undo.md).
Source: PROTOCOL section 4, "undo, where it is switched on, is a new agreed step that restores earlier parameters".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from btard.node.protocol.api import Undone
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.state.state import Layer, State, Window, layer_digest
from btard.node.protocol.state.undo_window import Contribution, Restoration


def moved_on(attempt: Attempt, after: State, lies: Collection[Contribution]) -> State:
    """The state after an attempt that stands, with its window; after an undo step that found lies, restored.

    Args:
        attempt: the attempt.
        after: the state that follows from it otherwise: verdicts carried out, update applied.
        lies: contributions that the undo step found false.
    """
    if attempt.settings.undo == 0:
        return after
    window, due = replace(attempt.state.window, undone=None), attempt.state.summary.undo
    if due:
        found = _restoration(window, due, lies)
        if found.to_step is not None:
            kept = tuple(layer for layer in window.layers if layer.step < found.to_step)
            before = window.layers[len(kept)].record.state
            window = replace(window, layers=kept)
            after = replace(after, parameters_D=before.parameters_D, optimiser_D=before.optimiser_D, norms=before.norms)
        window = replace(window, undone=found)
    elif attempt.contributors:
        layers = (*window.layers, _layer(attempt))
        dropped = len(layers) > attempt.settings.undo
        window = replace(window, layers=layers[dropped:], forgotten=window.forgotten or dropped)
    due = window.of(ban.peer for ban in after.bans[window.examined :])
    left = max(attempt.state.roster.genesis_faults - after.removed_faults, 0)
    checkers = min(after.roster.faults, left) + 1 if due else 0
    after = replace(after, window=replace(window, examined=len(after.bans)))
    return after.with_facts(undo=due, undo_checkers=checkers)


def _layer(attempt: Attempt) -> Layer:
    """What is kept of a committed attempt; tensors by reference."""
    state = replace(attempt.state, window=Window())
    record = replace(attempt.record(), state=state, own_D=None, publications={})
    return Layer(record, layer_digest(record, attempt.transcript.digest))


def _restoration(window: Window, due: Sequence[Contribution], lies: Collection[Contribution]) -> Restoration:
    """Where an undo step goes back to."""
    suspects = tuple(dict.fromkeys(sorted(item.owner for item in due)))
    if not lies:
        return Restoration(suspects, (), None, 0, older=False)
    to_step = min(item.step for item in lies)
    lost = sum(layer.step >= to_step for layer in window.layers)
    oldest = {peer: min(item for item in due if item.owner == peer) for peer in suspects}
    older = window.forgotten and any(oldest[item.owner] == item for item in lies)
    return Restoration(suspects, tuple(sorted(lies)), to_step, lost, older)


def undone(attempt: Attempt, state: State) -> list[Undone]:
    """What an undo step is reported to have done; nothing after any other."""
    found = state.window.undone
    if found is None:
        return []
    lies = tuple((item.step, item.owner) for item in found.lies)
    return [Undone(attempt.step, attempt.number, found.suspects, lies, found.to_step, found.lost, found.older)]
