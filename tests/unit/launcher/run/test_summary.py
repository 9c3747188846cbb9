"""The score of a run, from hand-written journals."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from btard.launcher.files import as_json
from btard.launcher.monitor.state import Record, RunState, Undoing, undo_line
from btard.launcher.monitor.summary_table import rows
from btard.launcher.network import traffic
from btard.launcher.run import summary
from btard.launcher.run.experiment import Experiment
from btard.launcher.run.summary import Ending
from btard.node.config import Plugin, Role, Schedule
from btard.node.errors import BackendError
from btard.node.protocol.adjudication.offences import standing

NOISE = Role((Plugin("noise"),), Schedule(start=2, every=2), (2,), 0)
LATE = Ending("finished", 12.3456)


def committed(
    node: int, step: int, *, digest: str = "aa", active: Sequence[int] = (0, 1, 2), idle: Sequence[int] = (),
    seconds: float = 0.1, loss: float | None = 1.0, sent: int = 100,
) -> Record:  # fmt: skip
    return {
        "time": float(step), "node": node, "event": "committed", "step": step, "active": list(active),
        "contributors": [peer for peer in active if peer not in idle], "seconds": seconds, "loss": loss,
        "parameter_digest": digest, "state_digest": digest, "bulk_bytes": sent, "control_bytes": 10,
        "publication_bytes": 1,
    }  # fmt: skip


def banned(node: int, step: int, peer: int, reason: str = "gradient", removed: bool = True) -> Record:
    return {"time": 0.0, "node": node, "event": "banned", "step": step, "attempt": 0, "peer": peer, "reason": reason,
            "accuser": 0, "removed": removed, "standing": standing(reason),
            "evidence": "e" * 64, "path": f"nodes/{node}/evidence/x"}  # fmt: skip


def state(*records: Record, byzantine: Sequence[int] = ()) -> RunState:
    made = RunState(3, frozenset(byzantine))
    for record in records:
        made.apply(record)
    return made


def score(made: RunState, ending: Ending = LATE, role: Role = NOISE) -> summary.Summary:
    return summary.summarise("run", made, dict.fromkeys(made.byzantine, role), ending)


def test_the_fields_that_others_rely_on() -> None:
    fields = json.loads(as_json(score(state())))
    wanted = """outcome steps accuracy final_test_accuracy final_train_loss byzantine bans honest_banned undetected
        agreement parameter_digest bytes_sent bytes_expected wall_seconds step_seconds detection_steps"""
    assert set(wanted.split()) <= set(fields)
    assert set(fields["step_seconds"]) == {"median", "p95"}
    assert set(fields["bytes_sent"]) == {"total", "bulk", "control", "publication"}


def test_an_empty_run_has_a_valid_summary() -> None:
    made = score(state(), Ending("interrupted", 0.0, "stopped"))
    assert (made.steps, made.accuracy, made.final_train_loss, made.agreement) == (0, [], None, True)


def test_accuracy_adds_the_slices_up() -> None:
    def slice_of(node: int, step: int, correct: int, count: int) -> Record:
        return {"time": 0.0, "node": node, "event": "evaluated", "step": step, "correct": correct, "count": count}

    made = state(slice_of(0, 0, 1, 4), slice_of(1, 0, 3, 4), slice_of(2, 0, 2, 2), slice_of(0, 50, 5, 5),
                 slice_of(1, 50, 4, 5), slice_of(0, 100, 5, 5))  # fmt: skip
    assert score(made).accuracy == [(0, 0.6), (50, 0.9)], "step 100 lacks a slice"


@pytest.mark.parametrize(
    ("records", "byzantine", "agree"),
    [
        ([committed(0, 0), committed(1, 0), committed(2, 0)], (), True),
        ([committed(0, 0), committed(1, 0, digest="bb"), committed(0, 1), committed(1, 1)], (), False),
        ([committed(0, 0), {**committed(1, 0), "parameter_digest": "bb"}], (), False),
        ([committed(0, 0), {**committed(1, 0), "state_digest": "bb"}], (), False),
        ([committed(0, 0), committed(1, 0), committed(2, 0, digest="bb")], (2,), True),
        ([committed(0, 0), committed(1, 0, active=(0, 2), digest="bb")], (), True),
    ],
    ids=[
        "equal",
        "two honest differ once",
        "in parameters alone",
        "in the rest of the state alone",
        "an attacker differs",
        "a removed peer differs",
    ],
)
def test_agreement_is_about_honest_active_peers(records: list[Record], byzantine: tuple[int, ...], agree: bool) -> None:
    assert score(state(*records, byzantine=byzantine)).agreement is agree


@pytest.mark.parametrize("field", ["parameter_digest", "state_digest"])
def test_agreement_takes_both_digests(field: str) -> None:
    """Equal parameters in unequal states will part later; unequal parameters in one state are a broken digest."""
    other = {**committed(1, 0), field: "bb"}
    assert score(state(committed(0, 0), other)).agreement is False
    assert score(state(committed(0, 0), other, byzantine=(1,))).agreement is True


def test_detection_steps_count_what_was_attacked_until_the_ban() -> None:
    """Attacked are steps 2, 4, 6: a ban of step 6 for a gradient speaks of step 5, any other of step 6 itself."""
    steps = [committed(0, step, idle=(2,) if step == 4 else ()) for step in range(7)]

    def counted(reason: str, role: Role = NOISE) -> int:
        made = state(*steps, banned(0, 6, 2, reason), byzantine=(2,))
        return score(made, role=role).detection_steps["2"]

    always = Role((Plugin("noise"),), Schedule(start=2), (2,), 0)
    assert counted("gradient") == 1, "step 2; it validated in step 4"
    assert counted("checksum") == 3, "2, 4 and 6, a validator's other lies included"
    assert counted("gradient", always) == 3, "2, 3 and 5: it validated in 4, and 6 is not judged yet"
    assert counted("checksum", always) == 5
    assert counted("checksum", Role((Plugin("noise"),), Schedule(start=6), (2,), 0)) == 1
    assert counted("gradient", Role((Plugin("noise"),), Schedule(start=6), (2,), 0)) == 0


def test_an_attackers_own_record_of_its_attacks_counts() -> None:
    made = state(*(committed(0, step) for step in range(7)), banned(0, 6, 2), byzantine=(2,))
    made.attacked[2] = {1, 5, 6, 7}
    assert score(made).detection_steps == {"2": 2}, "1 and 5"
    made = state(*(committed(0, step) for step in range(7)), banned(0, 6, 2, "checksum"), byzantine=(2,))
    made.attacked[2] = {1, 5, 6, 7}
    assert score(made).detection_steps == {"2": 3}, "1, 5 and 6"


def test_bans_are_scored_with_the_roles() -> None:
    made = score(state(banned(0, 5, 2), banned(1, 5, 2), banned(0, 7, 1), byzantine=(2,)))
    assert [(ban.step, ban.peer, ban.byzantine) for ban in made.bans] == [(5, 2, True), (7, 1, False)]
    assert (made.honest_banned, made.honest_banned_peers) == (1, [1])
    assert (made.undetected, made.undetected_peers) == (0, [])
    assert made.bans[0].evidence == "nodes/0/evidence/x"


def test_an_attackers_word_bans_nobody() -> None:
    made = score(state(banned(2, 5, 0), byzantine=(2,)))
    assert (made.bans, made.honest_banned, made.undetected_peers) == ([], 0, [2])


def undone(node: int, step: int, lost: int) -> Record:
    return {"time": 1.0, "node": node, "event": "undone", "step": step, "attempt": 0, "suspects": [3],
            "lies": [[1, 3]] if lost else [], "to_step": 1 if lost else None, "lost": lost, "older": False}  # fmt: skip


def test_undo_steps_are_listed_once_and_by_honest_words() -> None:
    done = score(state(undone(3, 2, 9), undone(0, 5, 2), undone(1, 5, 2), undone(0, 8, 0), byzantine=(3,)))
    assert done.undone == [
        Undoing(5, (3,), ((1, 3),), 1, 2, older=False),
        Undoing(8, (3,), (), None, 0, older=False),
    ]
    what = "what peer 3 had contributed was recomputed"
    assert [text for _, text in rows(done) if text.startswith("step ")] == [
        f"step 5: {what}: 1 false; the parameters before step 1 stand again, 2 steps lost",
        f"step 8: {what}: nothing was false, and nothing is undone",
    ]


def test_one_step_is_one_step() -> None:
    (undo,) = score(state(undone(0, 5, 1), byzantine=(3,))).undone
    assert undo_line(undo).endswith("stand again, 1 step lost")


def test_a_run_without_a_step_claims_no_agreement() -> None:
    assert dict(rows(score(state())))["agreement"] == "no step was committed"
    assert dict(rows(score(state(committed(0, 0)))))["agreement"].startswith("equal digests")


@pytest.mark.parametrize(
    ("options", "ending"),
    [({}, "0.100"), ({"backend": "simulated"}, "0.100 (virtual)"),
     ({"backend": "simulated", "topology": "ring"}, "0.100")],
    ids=["real", "virtual", "a comparison run is timed, not modelled"],
)  # fmt: skip
def test_virtual_seconds_are_called_so(options: dict[str, str], ending: str) -> None:
    made = score(state(committed(0, 0), committed(0, 1), committed(0, 2)))
    assert dict(rows(made, Experiment(**options)))["seconds per step"].endswith(ending)  # type: ignore[arg-type]


def test_a_peer_that_stays_may_be_banned_again() -> None:
    made = score(state(banned(0, 5, 2, removed=False), banned(0, 9, 2), byzantine=(2,)))
    assert [ban.step for ban in made.bans] == [5, 9]


@pytest.mark.parametrize(
    ("ban", "idle_at", "steps"),
    [
        (banned(0, 7, 2), (), 3),  # attacked 2, 4, 6
        (banned(0, 7, 2), (4,), 2),
        (banned(0, 6, 2), (), 2),  # the verdict at 6 is about 5
        (banned(0, 6, 2, "aggregate"), (), 3),
        (banned(0, 1, 2), (), 0),
    ],
    ids=["contributed always", "validated at 4", "banned at a scheduled step", "banned in the same step", "too early"],
)
def test_attacked_steps_until_the_ban(ban: Record, idle_at: tuple[int, ...], steps: int) -> None:
    commits = [committed(0, step, idle=(2,) if step in idle_at else ()) for step in range(ban["step"])]
    made = state(*commits, ban, byzantine=(2,))
    assert score(made).detection_steps == {"2": steps}


@pytest.mark.parametrize(
    ("reason", "attacked_at", "steps"),
    [
        ("gradient", [2, 6, 8], 2),
        ("gradient", [2, 6, 7], 2),  # the verdict at 7 is about 6
        ("aggregate", [2, 6, 7, 8], 3),
        ("aggregate", [8], 0),
    ],
)
def test_the_attackers_own_record_counts(reason: str, attacked_at: list[int], steps: int) -> None:
    attacked: Record = {"time": 0.0, "node": 2, "event": "attacked", "steps": attacked_at}
    made = state(*(committed(0, step) for step in range(7)), banned(0, 7, 2, reason), attacked, byzantine=(2,))
    assert score(made).detection_steps == {"2": steps}


def test_bytes_and_times() -> None:
    made = state(committed(0, 0, sent=1), committed(0, 1, sent=50, seconds=0.1), committed(1, 1, sent=70, seconds=0.3),
                 committed(0, 2, idle=(0, 1, 2), seconds=9.0, sent=50))  # fmt: skip
    result = score(made, Ending("finished", 1.0, dimension=30))
    assert (result.bytes_sent.bulk, result.bytes_sent.control, result.bytes_sent.total) == (120, 20, 142)
    assert result.bytes_expected == 2 * traffic.step_bytes(30, (0, 1, 2), (0, 1, 2))
    assert (result.step_seconds.median, result.step_seconds.p95) == (0.2, 0.3)
    assert result.steps == 2, "the last step carries no gradients"


def test_the_final_loss_is_that_of_the_last_gradients() -> None:
    made = state(committed(0, 0, loss=9.0), committed(0, 1, loss=2.0), committed(1, 1, loss=4.0),
                 committed(2, 1, loss=100.0), committed(0, 2, loss=None), byzantine=(2,))  # fmt: skip
    assert score(made).final_train_loss == 3.0


def test_digests_of_the_end_or_of_the_last_step() -> None:
    finished: Record = {"time": 0.0, "node": 0, "event": "finished", "step": 2, "parameter_digest": "ff",
                        "path": "p", "control_bytes": 0, "bulk_bytes": 0, "publication_bytes": 0}  # fmt: skip
    made = state(committed(0, 0), finished, committed(1, 0, digest="bb"))
    assert score(made).parameter_digest == {"0": "ff", "1": "bb"}


def test_records_of_strangers_change_nothing() -> None:
    assert score(state(committed(7, 0), {"time": 0.0, "node": "launcher", "event": "started"})) == score(state())


@pytest.mark.parametrize(("count", "share", "expected"), [(100, 0.95, 95), (1, 0.95, 1), (20, 0.95, 19), (3, 0.5, 2)])
def test_percentiles(count: int, share: float, expected: int) -> None:
    assert summary.percentile(range(1, count + 1), share) == expected


def test_writing_to_a_place_that_is_gone(tmp_path: Path) -> None:
    with pytest.raises(BackendError, match="cannot write"):
        summary.write(score(state()), tmp_path / "gone")
