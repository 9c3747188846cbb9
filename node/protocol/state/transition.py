"""From a judged attempt to the next agreed state: a pure function."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

import numpy as np
from msgspec import structs

from btard.node.protocol.adjudication import complaints
from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.deadlines import agreed
from btard.node.protocol.attempt.verification import allowed_pairs, draw
from btard.node.protocol.state.rollback import moved_on
from btard.node.protocol.state.state import State
from btard.node.protocol.state.undo_window import Contribution
from btard.node.protocol.state_sync.probation import Review


def next_state(
    attempt: Attempt, judgement: Judgement, lies: Collection[Contribution] = (), review: Review | None = None,
    case: Case | None = None,
) -> State:  # fmt: skip
    """The state after an attempt that stands: update applied, verdicts carried out, validators drawn.

    Guilt found here left the aggregates valid, so the update uses them as they are.

    Args:
        attempt, judgement: what stands.
        lies: after an undo step, the contributions that it found false.
        review: what was found of peers on probation, whose guilt is in the judgement too.
        case: its judging, None where nothing is known of it.
    """
    settings, state = attempt.settings, attempt.state
    punished = state.punished(attempt.step, attempt.number, judgement.removals, settings.reform)
    parameters_D, optimiser_D, norms = state.parameters_D, state.optimiser_D, state.norms
    if attempt.contributors:
        aggregate = [attempt.aggregates[owner] for owner in attempt.roster.active]
        parameters_D, optimiser_D = attempt.tools.optimiser.apply(parameters_D, optimiser_D, aggregate, attempt.step)
        norms = norms.append(_scaled_norms(attempt))
    if review is not None:
        punished = review.applied(punished, attempt.step + 1, settings.probation)
    active = len(punished.roster.active)
    back = frozenset(punished.roster.active) - frozenset(state.roster.active)  # they begin with a clean record
    faults, removed = state.roster.genesis_faults, punished.removed_faults
    pairs = allowed_pairs(settings.validators, active, faults, removed, settings.validators_contribute)
    drawn = draw(attempt.r, attempt.contributors, pairs, settings.validate_every)
    facts = structs.replace(
        punished.summary,
        step=attempt.step + 1,
        r=attempt.r,
        complaints=tuple(row for row in complaints.after(attempt, case) if back.isdisjoint(row[:2])),
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
