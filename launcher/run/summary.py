"""summary.json: the score of a run, from the journals and the launcher's knowledge of the roles."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from btard.launcher.files import as_json, write_atomically
from btard.launcher.monitor.state import Ban, Record, Return, RunState, Undoing
from btard.launcher.network import traffic
from btard.launcher.run.roles import describe
from btard.node.config import Role
from btard.node.errors import ConfigError, DataError
from btard.node.storage.records import read_regular


class StepSeconds(msgspec.Struct, frozen=True):
    """Duration of a step at its slowest honest node."""

    median: float | None
    p95: float | None


def step_seconds(state: RunState) -> StepSeconds:
    """Over all committed steps that carried gradients."""
    slowest = []
    for views in state.commits.values():
        honest = [view.seconds for node, view in views.items() if node not in state.byzantine and view.contributors]
        slowest += [max(honest)] if honest else []
    if not slowest:
        return StepSeconds(None, None)
    return StepSeconds(round(statistics.median(slowest), 6), round(percentile(slowest, 0.95), 6))


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of the values do not exceed."""
    ordered = sorted(values)
    place = max(0, -(-round(share * len(ordered) * 1e9) // 10**9) - 1)
    return ordered[min(place, len(ordered) - 1)]


FORMAT = 1
_MOST_BYTES = 256 << 20
FINISHED, FAILED, INTERRUPTED, TIMEOUT = "finished", "failed", "interrupted", "timeout"
BANNED, GONE, ELIMINATED = STANDINGS = ("banned", "gone", "eliminated")


class Sent(msgspec.Struct, frozen=True):
    """Bytes sent by all nodes together."""

    total: int
    bulk: int
    control: int
    publication: int


class BanRow(msgspec.Struct, frozen=True):
    """One verdict; `accuser` None: a predicate of the transcript; `evidence` is relative to the run directory."""

    step: int
    peer: int
    reason: str
    accuser: int | None
    evidence: str
    evidence_digest: str
    byzantine: bool


class Failure(msgspec.Struct, frozen=True):
    """A node that did not end well: its exit code, what it said, and the end of its log."""

    node: int
    exit_code: int | None
    problem: str | None
    log: tuple[str, ...]


class LinkRow(msgspec.Struct, frozen=True):
    """One direction of a modelled network: what was asked for against what was measured, over the whole run.

    Delays are means over messages, jitter included, losses shares of transmissions, rates bytes per second; None where
    nothing was measured. `held`: messages that waited for the end of a partition. `rtt_s`: the shortest answer to a
    probe, there and back.
    """

    sender: int
    receiver: int
    messages: int
    held: int
    requested_delay_s: float | None
    measured_delay_s: float | None
    requested_loss: float | None
    measured_loss: float | None
    requested_rate: float | None
    measured_rate: float | None
    rtt_s: float | None


class Happened(msgspec.Struct, frozen=True):
    """One event of the scenario: what the file asked for, and when it was carried out.

    `action`: kill, pause or continue, of `peers`; begins or ends, of a change of links.
    """

    action: str
    peers: tuple[int, ...]
    at_s: float
    text: str


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of summary.json.

    `bans` holds proven guilt; `gone` peers fell silent, of an `eliminated` pair one is faulty. `honest_banned`,
    `honest_gone`, `honest_eliminated` and `undetected` (attackers never removed nor convicted) count peers, the
    `_peers` fields name them. `agreement` says that all honest active peers held equal digests at every committed
    step; `keys` says where keys and coins come from: the system, or the protocol seed that run.json holds, so that
    whoever has it can sign for every peer; `bytes_expected` is the formula's bulk for the committed steps;
    `refused_records` counts what was refused in each node's journal; `detection_steps` counts, for each convicted or
    removed attacker, the attacked steps until then. `durability`: whether nodes waited for the disk (grouped, none), or
    kept nothing to go on from (null).
    """

    format: int = FORMAT
    run_id: str
    keys: Literal["system", "protocol-seed"] | None = None  # None: written by an earlier version
    outcome: str
    problem: str | None
    steps: int
    accuracy: list[tuple[int, float]]
    final_test_accuracy: float | None
    final_train_loss: float | None
    byzantine: list[int]
    attacks: dict[str, str]
    bans: list[BanRow]
    gone: list[BanRow]
    eliminated: list[BanRow]
    honest_banned: int
    honest_banned_peers: list[int]
    honest_gone: int
    honest_gone_peers: list[int]
    honest_eliminated: int
    honest_eliminated_peers: list[int]
    undetected: int
    undetected_peers: list[int]
    agreement: bool
    parameter_digest: dict[str, str]
    bytes_sent: Sent
    bytes_expected: int | None
    wall_seconds: float
    step_seconds: StepSeconds
    detection_steps: dict[str, int]
    voided_attempts: int
    failures: list[Failure]
    model: str | None
    links: list[LinkRow] = []
    scenario: list[Happened] = []
    returned: list[Return] = []
    undone: list[Undoing] = []
    durability: str | None = None
    refused_records: dict[str, int] = {}


@dataclass(frozen=True, slots=True)
class Ending:
    """How a run ended, beyond what the journals say."""

    outcome: str
    wall_seconds: float
    problem: str | None = None
    final_test_accuracy: float | None = None
    dimension: int | None = None
    failures: tuple[Failure, ...] = ()
    model: str | None = None
    durability: str | None = None
    protocol_seed: int | None = None
    refused: Mapping[int, int] = field(default_factory=dict)
    entry_bytes: int = traffic.FLOAT_BYTES


def summarise(run_id: str, state: RunState, roles: Mapping[int, Role], ending: Ending) -> Summary:
    """Score a run.

    Args:
        state: what the journals said.
        roles: who attacked, and how.
        ending: outcome and final figures.
    """
    first = state.first_bans
    honest = {standing: _honest(state, roles, standing) for standing in STANDINGS}
    undetected = sorted(set(roles) - set(first))
    sent = [node.sent for node in state.nodes.values()]
    return Summary(
        run_id=run_id, keys="system" if ending.protocol_seed is None else "protocol-seed",
        outcome=ending.outcome, problem=ending.problem, steps=_steps(state),
        accuracy=state.accuracy(), final_test_accuracy=ending.final_test_accuracy,
        final_train_loss=_final_loss(state), byzantine=sorted(roles),
        attacks={str(peer): describe(role) for peer, role in sorted(roles.items())},
        bans=_rows(state, roles, BANNED), gone=_rows(state, roles, GONE), eliminated=_rows(state, roles, ELIMINATED),
        honest_banned=len(honest[BANNED]), honest_banned_peers=honest[BANNED],
        honest_gone=len(honest[GONE]), honest_gone_peers=honest[GONE],
        honest_eliminated=len(honest[ELIMINATED]), honest_eliminated_peers=honest[ELIMINATED],
        undetected=len(undetected), undetected_peers=undetected,
        agreement=agreement(state), parameter_digest=_final_digests(state),
        bytes_sent=Sent(sum(b.total for b in sent), sum(b.bulk for b in sent), sum(b.control for b in sent),
                        sum(b.publication for b in sent)),
        bytes_expected=bytes_expected(state, ending.dimension, ending.entry_bytes),
        wall_seconds=round(ending.wall_seconds, 3), step_seconds=step_seconds(state),
        detection_steps={str(peer): attacked_steps(state, peer, role, first[peer])
                         for peer, role in sorted(roles.items()) if peer in first},
        voided_attempts=state.voided, failures=list(ending.failures), model=ending.model,
        links=[_link(pair, state.links[pair]) for pair in sorted(state.links)],
        scenario=msgspec.convert(state.happened, list[Happened]),
        returned=[state.returned[peer] for peer in sorted(state.returned)],
        undone=[state.undone[step] for step in sorted(state.undone)],
        durability=ending.durability,
        refused_records={str(node): count for node, count in sorted(ending.refused.items())},
    )  # fmt: skip


def agreement(state: RunState) -> bool:
    """True if, at every committed step, all honest active peers recorded equal digests (no step: True)."""
    for views in state.commits.values():
        mine = {(view.parameter_digest, view.state_digest)
                for node, view in views.items() if node not in state.byzantine and node in view.active}  # fmt: skip
        if len(mine) > 1:
            return False
    return True


def bytes_expected(state: RunState, dimension: int | None, entry_bytes: int) -> int | None:
    """The formula's bulk bytes, summed over the committed steps; None where the dimension is unknown."""
    if dimension is None:
        return None
    commits = [state.commit(step) for step in state.commits]
    return sum(traffic.step_bytes(dimension, c.active, c.contributors, entry_bytes) for c in commits if c is not None)


def attacked_steps(state: RunState, peer: int, role: Role, ban: Ban) -> int:
    """How many steps a peer attacked until its ban, by its schedule.

    A verdict on a gradient speaks of the step before, so there the ban's own step does not count. The attacker's own
    record counts where it kept one; else all steps of its schedule in which it took part do, which is an upper bound
    where its probability is below 1, or it chooses among them.
    """
    on_gradient = ban.reason == "gradient"
    if peer in state.attacked:
        return sum(step < ban.step + (not on_gradient) for step in state.attacked[peer])
    count = 0 if on_gradient else int(role.schedule.scheduled(ban.step))
    for step in range(ban.step):
        commit = state.commit(step)
        if commit is not None and role.schedule.scheduled(step):
            count += peer in (commit.contributors if on_gradient else commit.active)
    return count


def read(run_dir: Path) -> Summary:
    """The summary.json of a run directory.

    Raises:
        ConfigError: there is none, or it is not readable by this version.
    """
    file = run_dir / "summary.json"
    try:
        return msgspec.json.decode(read_regular(run_dir, file.name, _MOST_BYTES), type=Summary)
    except (OSError, DataError) as error:
        problem = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{run_dir} has no readable summary.json ({problem}); has the run ended?") from error
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file} is not readable by this version: {error}") from error


def write(summary: Summary, run_dir: Path) -> Path:
    """Write summary.json in one piece.

    Raises:
        BackendError: the disk is full or the directory is gone.
    """
    path = run_dir / "summary.json"
    write_atomically(path, as_json(summary))
    return path


def _rows(state: RunState, roles: Mapping[int, Role], standing: str) -> list[BanRow]:
    bans = (state.bans[key] for key in sorted(state.bans))
    return [
        BanRow(ban.step, ban.peer, ban.reason, ban.accuser, ban.evidence, ban.evidence_digest, ban.peer in roles)
        for ban in bans
        if ban.standing == standing
    ]


def _honest(state: RunState, roles: Mapping[int, Role], standing: str) -> list[int]:
    return sorted({ban.peer for ban in state.bans.values() if ban.standing == standing} - set(roles))


def _link(pair: tuple[int, int], record: Record) -> LinkRow:
    return msgspec.convert({**record, "sender": pair[0], "receiver": pair[1]}, LinkRow)


def _steps(state: RunState) -> int:
    """Committed steps that carried gradients."""
    commits = [state.commit(step) for step in state.commits]
    return sum(bool(commit.contributors) for commit in commits if commit is not None)


def _final_loss(state: RunState) -> float | None:
    for step in sorted(state.commits, reverse=True):
        views = state.commits[step]
        losses = [views[node].loss for node in state.honest if node in views]
        known = [loss for loss in losses if loss is not None]
        if known:
            return statistics.fmean(known)
    return None


def _final_digests(state: RunState) -> dict[str, str]:
    """Each node's parameters at its end, or at its last committed step if it did not get there."""
    digests = {}
    for node in state.nodes.values():
        last = state.commits.get(node.step, {}).get(node.node)
        digest = node.parameter_digest or (last.parameter_digest if last else None)
        if digest is not None:
            digests[str(node.node)] = digest
    return digests
