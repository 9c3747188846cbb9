"""A worker's way back: what it finds of an earlier life, and how it goes on from there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from btard.node.config import NodeConfig
from btard.node.errors import WireError
from btard.node.genesis.genesis import genesis_digest, genesis_roster
from btard.node.protocol.api import BulkArrived, Input, MessageArrived, ViewArrived
from btard.node.protocol.state.state import Resumption
from btard.node.protocol.wire.encoding import decode_body
from btard.node.protocol.wire.messages import Message, Phase, Suspect, View
from btard.node.storage import journal
from btard.node.storage.checkpoint import Update
from btard.node.storage.checkpointer import Checkpointer
from btard.node.storage.disk import Disk
from btard.node.storage.journal import Journal

MEMORY = "state"
"""Folder of a node's directory that holds checkpoints and ledgers."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a node was doing when it was stopped.

    Args:
        checkpointer: its memory.
        at: where to go on; None: at the start.
        heard: what it had heard since.
        away_s: how long ago that was.
    """

    checkpointer: Checkpointer
    at: Resumption | None
    heard: tuple[Input, ...]
    away_s: float = 0.0


def recover(config: NodeConfig, fingerprint: bytes, log: Journal, update: Update) -> Recovery | None:
    """Open a node's memory, if it is to have one, and journal what is found there.

    Args:
        config: of the node.
        fingerprint: of the environment its gradients are computed in.
        log: its journal.
        update: the run's, which leads from one model to the next.

    Raises:
        BackendError: the memory cannot be used, or another process uses it.
        CheckpointError: there are checkpoints, and none can be used; or what was signed since cannot be read.
    """
    if not config.checkpoints:
        return None
    run = genesis_digest(config.run_id, config.run, config.members)
    disk = Disk(waits=config.durability == "grouped")
    checkpointer = Checkpointer(Path(config.directory) / MEMORY, run, config.node, fingerprint, disk)
    at = checkpointer.newest(genesis_roster(config.members, config.run.members), update)
    heard = tuple(checkpointer.recall(*((at.state.step, at.number) if at is not None else (0, 0))))
    if at is not None and _gave_up(config):
        at, heard = without_dispute(checkpointer, at, heard)
    for problem in checkpointer.problems:
        log.append("checkpoint_refused", problem=problem)
    if at is not None:
        log.append("resumed", step=at.state.step, attempt=at.number, heard=len(heard))
    return Recovery(checkpointer, at, heard, checkpointer.away_s)


def _gave_up(config: NodeConfig) -> bool:
    """True if the node's last life ended for want of a quorum."""
    last = None
    for record in journal.records(Path(config.directory) / "journal.jsonl"):
        if record["event"] in ("greeted", "resumed", "halted"):
            last = record["event"]
    return last == "halted"


def without_dispute(
    checkpointer: Checkpointer, at: Resumption, heard: tuple[Input, ...]
) -> tuple[Resumption, tuple[Input, ...]]:
    """Where a node that halted goes on and what it hears again, unless it has signed how the dispute ended: its
    attempt, but no SUSPECTs and no views of it. They were of a network that was cut, and where they still matter the
    others tell them again. Its own view says them, too: it is for another dispute alone, not left behind at the end.

    Args:
        checkpointer: its memory, which has recalled `heard`; what was signed stays signed.
        at: where it goes on.
        heard: what it had heard.
    """
    step, number = at.state.step, at.number
    if checkpointer.has_said(Phase.OUTCOME, step, number):
        return at, heard
    # The tensors that the dispute found are for its end. Before REPORT we need the parts as well, and ask for both.
    reported = checkpointer.has_said(Phase.REPORT, step, number)
    left = [event for event in heard if not _of_dispute(event, step, number)]
    viewed = checkpointer.has_said(Phase.VIEW, step, number)
    return replace(at, viewed=viewed), tuple(each for each in left if reported or not isinstance(each, BulkArrived))


def _of_dispute(event: Input, step: int, attempt: int) -> bool:
    """A SUSPECT or a view of an attempt."""
    match event:
        case ViewArrived(endorsed=endorsed):
            signed = endorsed.view
        case MessageArrived(signed=signed):
            pass
        case _:
            return False
    try:
        body: Message = decode_body(signed.body)
    except WireError:  # as malformed as when it came
        return False
    return isinstance(body, Suspect | View) and (body.slot.step, body.slot.attempt) == (step, attempt)


def elapsed_s(config: NodeConfig, now_s: float) -> float:
    """Seconds since this node first greeted, by its journal; 0 if it never did.

    Args:
        config: of the node.
        now_s: seconds since the epoch.
    """
    for record in journal.records(Path(config.directory) / "journal.jsonl"):
        if record["event"] == "greeted":
            return max(0.0, now_s - float(record["time"]))
    return 0.0
