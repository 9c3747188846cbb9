"""Plays a simulated run under attack and holds it to the promises of PROTOCOL section 1; tests judge what is left."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from btard.node.build import fingerprint_of, settings_of, tools_of
from btard.node.config import Plugin, Role, RunConfig, Schedule
from btard.node.crypto.keys import generate
from btard.node.drivers.simulator import Observed, cluster
from btard.node.netem.links import LinkModel
from btard.node.protocol.api import (
    Accused,
    Banned,
    Committed,
    Disputed,
    Dropped,
    Expelled,
    Finished,
    Halted,
    Output,
    PhaseEntered,
    Probed,
    Returned,
    Suspected,
    Undone,
    Voided,
)
from btard.node.protocol.evidence.verifier import Ground, Verifier
from btard.node.protocol.state.state import Ban
from btard.node.training.registry import build_task
from btard.node.training.task import Task, TaskContext

START = 3
"""The step attacked, where a test says nothing else."""

LINKS = LinkModel(delay_s=0.01, jitter_s=0.02)
TASK = Plugin("quadratic", {"dimension": 24})


def configuration(peers: int = 6, steps: int = 6, **changes: object) -> RunConfig:
    """A small run with short bounds."""
    given: dict[str, object] = {"delivery_bound_s": 0.5, "gradient_bound_s": 1.0, "batch_size": 2, "task": TASK}
    return RunConfig(peers=peers, steps=steps, **{**given, **changes})  # type: ignore[arg-type]


@dataclass
class Story:
    """What honest peers went through."""

    honest: tuple[int, ...]
    bans: dict[tuple[int, int, int], set[tuple[str, bool]]] = field(default_factory=dict)
    evidence: dict[tuple[int, int, int], set[bytes]] = field(default_factory=dict)
    reporters: dict[tuple[int, int, int], set[int]] = field(default_factory=dict)
    returns: dict[tuple[int, int], set[bytes]] = field(default_factory=dict)
    back: dict[int, int] = field(default_factory=dict)
    probed: set[tuple[int, int, int]] = field(default_factory=set)
    digests: dict[int, dict[int, bytes]] = field(default_factory=dict)
    ends: dict[int, Output] = field(default_factory=dict)
    dropped: Counter[str] = field(default_factory=Counter)
    disputes: set[tuple[int, int]] = field(default_factory=set)
    causes: list[str] = field(default_factory=list)
    suspected: set[tuple[int, str, int]] = field(default_factory=set)
    voided: set[tuple[int, int]] = field(default_factory=set)
    phases: set[tuple[int, int, str]] = field(default_factory=set)
    charges: set[tuple[int, str]] = field(default_factory=set)
    validators: dict[int, dict[int, int]] = field(default_factory=dict)
    attacked: dict[int, list[int]] = field(default_factory=dict)
    undone: dict[int, Undone] = field(default_factory=dict)

    def watch(self, seen: Observed) -> None:
        """Take one output."""
        if seen.node not in self.honest:
            return
        match seen.output:
            case Banned() as ban:
                key = (ban.step, ban.attempt, ban.peer)
                self.bans.setdefault(key, set()).add((ban.reason, ban.removed))
                self.evidence.setdefault(key, set()).add(ban.evidence)
                self.reporters.setdefault(key, set()).add(seen.node)
            case Returned() as returned:
                self.returns.setdefault((returned.step, returned.attempt), set()).add(returned.evidence)
                self.back[returned.peer] = returned.step
            case Probed() as probed:
                self.probed.add((probed.step, probed.peer, probed.correct))
            case Committed() as committed:
                self.digests.setdefault(committed.step, {})[seen.node] = committed.state_digest
                self.validators[committed.step] = dict(committed.validators)
            case PhaseEntered(step, attempt, phase):
                self.phases.add((step, attempt, phase))
            case Accused() as accused:
                self.charges.add((accused.step, accused.kind))
            case Finished() | Expelled() | Halted() as end:
                self.ends[seen.node] = end
            case Dropped(reason=reason):
                self.dropped[reason] += 1
            case Disputed() as disputed:
                self.disputes.add((disputed.step, disputed.attempt))
                self.causes.append(disputed.cause)
            case Suspected() as suspected:
                self.suspected.add((suspected.step, suspected.phase, suspected.peer))
            case Undone() as undone:
                assert self.undone.setdefault(undone.step, undone) == undone
            case Voided() as voided:
                self.voided.add((voided.step, voided.attempt))

    @property
    def removed(self) -> list[tuple[int, int, str]]:
        """(step, peer, reason) of every removal, in order."""
        return [(step, peer, reason) for (step, _, peer), words in sorted(self.bans.items()) for reason, _ in words]

    @property
    def lost(self) -> tuple[int, ...]:
        """Honest peers that were removed."""
        return tuple(sorted({peer for _, _, peer in self.bans} & set(self.honest)))


def play(
    attacks: Sequence[Plugin] | Mapping[int, Sequence[Plugin]],
    attackers: tuple[int, ...] = (5,),
    *,
    schedule: Schedule | Mapping[int, Schedule] | None = None,
    run: RunConfig | None = None,
    links: LinkModel = LINKS,
    seed: int = 0,
    honest_lost: int = 0,
) -> Story:
    """Run to the end and check every promise.

    Args:
        attacks: of all attackers, or of each.
        schedule: of the attacks, or of each attacker's; by default the one step `START`.
        honest_lost: honest peers that mutual eliminations may cost.
    """
    run = run or configuration()
    schedule = schedule or Schedule(start=START, stop=START + 1)
    when = schedule if isinstance(schedule, Mapping) else dict.fromkeys(attackers, schedule)
    chosen = attacks if isinstance(attacks, Mapping) else dict.fromkeys(attackers, tuple(attacks))
    roles = {peer: Role(tuple(own), when[peer], attackers, attack_seed=seed) for peer, own in chosen.items()}
    task = build_task(run.task, TaskContext(Path("unused"), run.batch_size))
    story = Story(tuple(peer for peer in range(run.peers) if peer not in attackers))
    simulation = cluster(run, task, roles, protocol_seed=seed, links=links)
    for seen in simulation.run(max_events=400_000):
        story.watch(seen)
    for peer in attackers:
        adversary = simulation.nodes[peer].adversary
        story.attacked[peer] = adversary.attacked if adversary is not None else []
    check_promises(story, run, honest_lost)
    check_evidence(story, run, task, seed)
    return story


def check_promises(story: Story, run: RunConfig, honest_lost: int) -> None:
    """Agreement, accuracy, liveness."""
    assert len(story.lost) <= honest_lost, f"honest peers removed: {story.removed}"
    for _, peer, reason in story.removed:
        assert peer not in story.honest or reason == "eliminated", f"honest peer {peer} removed: {story.removed}"
    for peer in story.honest:
        wanted = Expelled if peer in story.lost else Finished
        assert isinstance(story.ends.get(peer), wanted), (peer, story.ends.get(peer), story.removed)
    kept = set(story.honest) - set(story.lost)
    assert set(story.digests) == {*range(run.steps + 1), *story.undone}
    for step, digests in story.digests.items():
        assert kept <= set(digests), f"step {step} was not committed by all"
        assert len(set(digests.values())) == 1, f"step {step}: honest peers hold different states"
    for key, words in story.bans.items():
        assert len(words) == 1, f"honest peers differ about {key}: {words}"
        assert kept <= story.reporters[key], f"not all honest peers know of {key}"


def check_evidence(story: Story, run: RunConfig, task: Task, seed: int) -> None:
    """Accountability: every ban's evidence, in every version that an honest peer wrote, verifies offline."""
    members, _ = generate(seed, run.peers)
    settings = settings_of("simulated", run, members, task.dimension, fingerprint_of(run, task))
    keys = tuple(bytes.fromhex(member.signing_key) for member in members)
    initial_D = task.initial(run.init_seed)
    ground = Ground(settings, tools_of(run), keys, initial_D, lambda p_D, xi: task.gradient(p_D, xi)[0])
    verifier = Verifier(ground)
    for when in sorted({*(key[:2] for key in story.evidence), *story.returns}):
        verifier.settle(_proven(story, verifier, when))
        for data in sorted(story.returns.get(when, ())):
            verifier.readmit(data)
    assert dict(verifier.returned) == {peer: step + 1 for peer, step in story.back.items()}


def _proven(story: Story, verifier: Verifier, when: tuple[int, int]) -> list[Ban]:
    """The bans of one attempt, each shown by every honest peer's file."""
    together: list[Ban] = []
    for key in sorted(key for key in story.evidence if key[:2] == when):
        proofs = [verifier.check(data) for data in sorted(story.evidence[key])]
        bans = {proof.ban for proof in proofs}
        assert len(bans) == 1
        (ban,) = bans
        assert (ban.step, ban.attempt, ban.peer) == key
        assert {(ban.reason, ban.removed)} == story.bans[key]
        together.append(ban)
    return together
