"""Attempts for tests of their parts: a real cluster's, stopped where the test needs it."""

from __future__ import annotations

import copy
from dataclasses import fields, replace

import msgspec

from btard.node.config import Plugin, RunConfig
from btard.node.protocol.attempt.attempt import Attempt
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.state.state import State
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import PHASE_OF, Body, Message, Signed
from tests.simulation.stage import Stage, run_until, set_up

PEERS = 6


def six(seed: int = 0, **more: object) -> Stage:
    """Six honest peers, quadratic task of 19 parameters, a validator in every step from 1 on."""
    run = RunConfig(peers=PEERS, task=Plugin("quadratic", {"dimension": 19}), steps=3, batch_size=2,
                    **more)  # type: ignore[arg-type]  # fmt: skip
    return set_up(run, protocol_seed=seed)


_STOPPED: dict[str, tuple[Stage, Round]] = {}
"""What was simulated before: tests change copies."""


def stopped(step: int, phase: str, node: int = 0, **more: object) -> tuple[Stage, Round]:
    """The round of a node that has just entered a phase of a step."""
    asked = repr((step, phase, node, sorted(more.items())))
    if asked not in _STOPPED:
        stage = six(**more)
        _STOPPED[asked] = stage, run_until(stage, node, step, phase)
    return copy.deepcopy(_STOPPED[asked])


def complete(step: int = 2, node: int = 0, **more: object) -> Round:
    """A round whose five phases up to REPORT are complete."""
    _, round_ = stopped(step, "CLOSE", node, **more)
    assert round_.attempt.r
    return round_


def amend(attempt: Attempt, body: Body) -> None:
    """Put a body in the place of what its sender said, as if it had always been so."""
    phase, sender = body.slot.phase, body.slot.sender
    attempt.transcript._bodies[phase][sender] = body
    attempt.transcript._signed[phase][sender] = Signed(encode_body(body), bytes(64))


def said(attempt: Attempt, kind: type[Message], peer: int) -> Body:
    """What a peer said in the phase of a message type."""
    return attempt.transcript.of(kind, PHASE_OF[kind])[peer]


def changed(attempt: Attempt, kind: type[Message], peer: int, **fields: object) -> None:
    """Change fields of what a peer said."""
    amend(attempt, msgspec.structs.replace(said(attempt, kind, peer), **fields))  # type: ignore[arg-type]


def state_with(state: State, **changes: object) -> State:
    """A state with other fields, or other facts of its summary."""
    own = {field.name for field in fields(State)}
    state = replace(state, **{name: value for name, value in changes.items() if name in own})  # type: ignore[arg-type]
    return state.with_facts(**{name: value for name, value in changes.items() if name not in own})


def replace_state(attempt: Attempt, **changes: object) -> None:
    """Change the state from which an attempt started."""
    attempt.state = state_with(attempt.state, **changes)
