"""From a judged attempt to the next agreed state, or, in an undo step, back to before the first false contribution.

A pure function of the agreed state, the transcript and recomputation. Undo: contributions of removed peers are
recomputed, and the state goes back to before the first that is false (docs/adr/0031-undo.md).
Source: PROTOCOL section 4, "undo, where it is switched on, is a new agreed step that restores earlier parameters".
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

import numpy as np
from msgspec import structs

from btard.node.protocol.adjudication import complaints
from btard.node.protocol.adjudication.complaints import Complaints
from btard.node.protocol.adjudication.judging import Judgement
from btard.node.protocol.api import Undone
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import agreed
from btard.node.protocol.attempt.verification import allowed_pairs, draw
from btard.node.protocol.state.state import Contribution, Layer, Restoration, State, Window, layer_digest
from btard.node.protocol.state_sync.admission import PATIENCE, entered
from btard.node.protocol.state_sync.probation import Review


def next_state(
    attempt: Attempt, judgement: Judgement, lies: Collection[Contribution] = (), review: Review | None = None,
    charged: Complaints | None = None,
) -> State:  # fmt: skip
    """The state after an attempt that stands: update applied, verdicts carried out, validators drawn.

    Guilt found here left the aggregates valid, so the update uses them as they are.

    Args:
        attempt, judgement: what stands.
        lies: after an undo step, the contributions that it found false.
        review: what was found of peers on probation, whose guilt is in the judgement too.
        charged: pairs, as `complaints.after` has them; None: what it makes of the attempt without its judging.
    """
    settings, state = attempt.settings, attempt.state
    charged = complaints.after(attempt) if charged is None else charged
    punished = state.punished(attempt.step, attempt.number, judgement.removals, settings.reform)
    parameters_D, optimiser_D, norms = state.parameters_D, state.optimiser_D, state.norms
    if attempt.contributors:
        aggregate = [attempt.aggregates[owner] for owner in attempt.roster.active]
        parameters_D, optimiser_D = attempt.tools.optimiser.apply(parameters_D, optimiser_D, aggregate, attempt.step)
        norms = norms.append(_scaled_norms(attempt))
    if review is not None:
        patience = max(PATIENCE, settings.admit_every)
        punished = review.applied(punished, attempt.step + 1, settings.probation, patience)
    if settings.roster != "closed":
        punished = entered(attempt, punished, attempt.step + 1)
    active = len(punished.roster.active)
    back = frozenset(punished.roster.active) - frozenset(state.roster.active)  # they begin with a clean record
    faults, removed = punished.roster.genesis_faults, punished.removed_faults
    pairs = allowed_pairs(settings.validators, active, faults, removed, settings.validators_contribute)
    drawn = draw(attempt.r, attempt.contributors, pairs, settings.validate_every)
    facts = structs.replace(
        punished.summary,
        step=attempt.step + 1,
        r=attempt.r,
        complaints=tuple(row for row in charged if back.isdisjoint(row[:2])),
        late=complaints.late_after(attempt, punished.roster.active),
        bounds=agreed(attempt),
        validators=drawn.order,
        validator_count=drawn.count,
    )
    after = replace(
        punished, summary=facts, parameters_D=parameters_D, optimiser_D=optimiser_D, norms=norms, certificate=()
    )
    after = moved_on(attempt, after, lies)
    return replace(after, summary=after.summarise(attempt.transcript.digest))


def void_state(attempt: Attempt, judgement: Judgement) -> State:
    """The state before the next attempt at the same step: only the verdicts take effect."""
    return attempt.state.punished(attempt.step, attempt.number, judgement.removals, attempt.settings.reform)


def _scaled_norms(attempt: Attempt) -> list[float]:
    sizes_P = [max(stop - start, 1) for start, stop in attempt.split.bounds]
    _, norms_NP = attempt.claims()
    scaled: list[float] = (norms_NP / np.sqrt(sizes_P)).ravel().tolist()
    return scaled


# --- undo -----------------------------------------------------------------------------------------------------


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
