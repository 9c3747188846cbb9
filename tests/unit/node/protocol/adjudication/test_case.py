"""The phases of judging: which there are, what is published, and when the verdict is there."""

from __future__ import annotations

import pytest
import torch

from btard.node.protocol.adjudication.case import Case
from btard.node.protocol.adjudication.charges import Guilt, Withheld
from btard.node.protocol.adjudication.verdict import Judgement
from btard.node.protocol.api import BulkKey, BulkKind
from btard.node.protocol.attempt.round import Round
from btard.node.protocol.wire.encoding import encode_body
from btard.node.protocol.wire.messages import Checksums, Judge, Phase, Publish, Report, Signed, Verdict
from tests.protocol_attempts import changed, complete, said, six


def accusing(**more: object) -> tuple[Round, int]:
    """A step whose validator accuses its (honest) target."""
    round_ = complete(**more)
    validator, target = round_.attempt.pairs[0]
    changed(round_.attempt, Report, validator, verdicts=(Verdict(target, False),))
    return round_, target


def averaging(**more: object) -> Round:
    """A step in which V3 fails everywhere."""
    return complete(delta_max=1e-9, **more)


PHASES = [
    ("nothing to judge", lambda: complete(), [Phase.CLOSE]),
    ("a gradient on one platform", lambda: accusing()[0], [Phase.CLOSE]),
    ("bytes needed", averaging, [Phase.PUBLISH, Phase.HAVE, Phase.CLOSE]),
    ("a gradient across environments", lambda: accusing(recompute_tolerance=1e-6)[0],
     [Phase.PUBLISH, Phase.HAVE, Phase.JUDGE, Phase.CLOSE]),
]  # fmt: skip


@pytest.mark.parametrize(("made", "phases"), [row[1:] for row in PHASES], ids=[row[0] for row in PHASES])
def test_phases(made, phases: list[Phase]) -> None:  # type: ignore[no-untyped-def]
    round_ = made()
    trial = Case(round_.attempt, round_.past)
    assert list(trial.phases) == phases
    path, phase = [], Phase.REPORT
    while phase is not Phase.CLOSE:
        phase = trial.phase_after(phase)
        path.append(phase)
    assert path == phases


def test_publications_are_kept_if_they_are_what_was_committed_to() -> None:
    round_ = averaging()
    trial = Case(round_.attempt, round_.past)
    attempt = round_.attempt
    attempt.publications.clear()
    owner = attempt.contributors[-1]
    key = BulkKey(attempt.step, attempt.number, BulkKind.PUBLICATION, owner, 3)
    true_D = six(delta_max=1e-9).task.gradient(attempt.state.parameters_D, attempt.seed(owner))[0]
    assert not trial.accept(key, torch.zeros(attempt.split.size(3)))
    assert trial.accept(key, attempt.slice(true_D, 3))
    assert not trial.accept(BulkKey(attempt.step, 7, BulkKind.PUBLICATION, owner, 3), attempt.slice(true_D, 3))
    assert {item.owner for item in trial.missing()} == set(attempt.contributors)
    assert trial.have(overdue=False) is None


def test_it_publishes_what_it_committed_to() -> None:
    round_ = averaging(node=2)
    attempt = round_.attempt
    ours = Case(attempt, round_.past).ours()
    assert [key.part for key, _ in ours] == list(range(6))
    assert all(key.owner == 2 and attempt.part_matches(2, key.part, values_P) for key, values_P in ours)


def test_it_says_that_its_publications_follow() -> None:
    round_ = averaging()
    attempt = round_.attempt
    assert Case(attempt, round_.past).publish() == Publish(attempt.slot(Phase.PUBLISH), attempt.transcript.prefix)


@pytest.mark.parametrize("lie", ["nothing", "the gradient", "its checksums"])
def test_a_judge_across_environments_compares_what_was_published(lie: str) -> None:
    """V3 has other parts published too: those of this step say nothing of the one before."""
    round_, target = accusing(recompute_tolerance=1e-6, delta_max=1e-9)
    attempt, past = round_.attempt, round_.past
    assert past is not None
    own_D = six(recompute_tolerance=1e-6).task.gradient(past.state.parameters_D, past.seed(target))[0]
    if lie == "its checksums":
        claims = said(past, Checksums, target)
        changed(past, Checksums, target, s=(claims.s[0] + 1.0, *claims.s[1:]))  # type: ignore[union-attr]
    trial = Case(attempt, past)
    assert {item.step for item in trial.publications} == {attempt.step, past.step} and trial.judging == (target,)
    attempt.publications.clear()
    assert trial.judge({}) is None and trial.judge({target: own_D}) is None, "what it compares is not here"
    for item in trial.publications:
        here = item.step == past.step and item.owner == target
        values_P = past.slice(own_D, item.part) if here else torch.zeros(attempt.split.size(item.part))
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = values_P
    found = trial.judge({target: own_D + (lie == "the gradient")})
    assert found is not None and found.guilty == (lie != "nothing",)


def test_what_too_few_hold_stays_undecided_and_voids_an_aggregate_that_it_would_have_checked() -> None:
    round_ = averaging()
    attempt = round_.attempt
    trial = Case(attempt, round_.past)
    true = {
        owner: six(delta_max=1e-9).task.gradient(attempt.state.parameters_D, attempt.seed(owner))[0]
        for owner in attempt.contributors
    }
    owner = attempt.contributors[0]
    for item in trial.publications:
        values_P = attempt.slice(true[item.owner], item.part)
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = values_P
    assert trial.verdict({}, (), (), {}) == Judgement()
    (lost,) = (item for item in trial.publications if (item.owner, item.part) == (owner, 3))
    del attempt.publications[(lost.step, lost.attempt, lost.owner, lost.part)]
    assert trial.missing() == (lost,) and trial.verdict({}, (), (), {}) is None
    guilt = Guilt(owner, "withheld", None, Withheld(owner, "publication", attempt.step, 3))
    assert trial.verdict({}, (lost,), (guilt,), {}) == Judgement((guilt,), void=True)


def test_the_verdict_waits_for_recomputation() -> None:
    round_, target = accusing()
    trial = Case(round_.attempt, round_.past)
    assert trial.verdict({}, (), (), {}) is None
    assert round_.past is not None
    true_D = six().task.gradient(round_.past.state.parameters_D, round_.past.seed(target))[0]
    judgement = trial.verdict({target: true_D}, (), (), {})
    assert judgement is not None
    assert [removal.reason for removal in judgement.removals] == ["false_accusation"]


@pytest.mark.parametrize(("guilty", "reason"), [(3, "false_accusation"), (4, "gradient")], ids=["half", "most"])
def test_across_environments_most_of_the_active_roster_decides(guilty: int, reason: str) -> None:
    round_, target = accusing(recompute_tolerance=1e-6)
    attempt = round_.attempt
    trial = Case(attempt, round_.past)
    for place, peer in enumerate(attempt.roster.active):
        body = Judge(attempt.slot(Phase.JUDGE, peer), attempt.transcript.prefix, (place < guilty,))
        attempt.transcript.add(body, Signed(encode_body(body), bytes(64)))
    for item in trial.publications:
        attempt.publications[(item.step, item.attempt, item.owner, item.part)] = torch.zeros(1)
    judgement = trial.verdict({}, (), (), {})
    assert judgement is not None
    assert [(removal.peer == target, removal.reason) for removal in judgement.removals] == [
        (reason == "gradient", reason)
    ]
